"""Train the small checkpoints that come with the package, on a simulated participant, and record how they were made.

    python examples/make_sample_checkpoints.py --output_dir runs/samples
    cp -r runs/samples/sim-ctc bit_speech/sample_checkpoints/     # to ship it

`sim-ctc`: the encoder of the demonstration with CTC, z-scored by session, and a word decoder with an open vocabulary.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech import (
    BITConfig,
    BITFeatureExtractor,
    BITForCTC,
    BITProcessor,
    BITProcessorWithDecoder,
    BITTrainer,
    BITTrainingArguments,
    PhonemeTokenizer,
)
from bit_speech.arguments import ExperimentParser
from bit_speech.data import Augmentation
from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm, tune_decoder
from bit_speech.demo import language_model_sentences
from bit_speech.files import write_json
from bit_speech.machine import git_commit, hardware
from bit_speech.sample_checkpoints import RECORD_NAME, file_hashes
from bit_speech.scoring import transcribe
from bit_speech.simulation import SimulatedParticipant

MAX_MEGABYTES = 6.0
COLUMNS = ("participant_id", "session_id", "block_index", "trial_index", "split", "features", "text", "phonemes")


@dataclass
class SampleArguments:
    """How large, how long."""

    _show_all_settings = True

    output_dir: str = HfArg(default="runs/samples", help="The folder sim-ctc is made in it.")
    preset: str = HfArg(default="demo", help="Preset of the simulated participant.")
    participant_seed: int = HfArg(default=0, help="Which simulated participant.")
    num_training_sentences: int = HfArg(default=2000, help="Of the preset's training sentences, the first so many.")
    num_validation_sentences: int = HfArg(default=60, help="Sentences that choose checkpoint and decoder weights.")
    num_test_sentences: int = HfArg(default=100, help="Held-out sentences that are scored once.")
    num_train_epochs: float = HfArg(default=6.0, help="Passes over the training sentences.")
    per_device_train_batch_size: int = HfArg(default=16, help="Trials per update.")
    learning_rate: float = HfArg(default=3e-3, help="Peak learning rate.")
    max_words: int = HfArg(default=20_000, help="Words of the vocabulary: the most frequent that CMUdict knows.")
    beam_size: int = HfArg(default=200, help="Hypotheses kept while decoding.")
    bf16: bool = HfArg(default=False, help="Train in bfloat16.")
    seed: int = HfArg(default=0, help="Of weights, batches and augmentation.")


def rows(participant: SimulatedParticipant, split: str, count: int) -> list[dict[str, Any]]:
    """The first trials of a split, spread over its sessions."""
    total = participant.num_trials(split)
    chosen = {round(i * total / min(count, total)) for i in range(min(count, total))}
    channels = {"feature_kinds": participant.feature_kinds, "channel_areas": participant.channel_areas}
    trials = (trial for i, trial in enumerate(participant.trials(split)) if i in chosen)
    return [{**{name: getattr(trial, name) for name in COLUMNS}, **channels} for trial in trials]


def build_decoder(participant: SimulatedParticipant, arguments: SampleArguments) -> BeamSearchDecoder:
    """A word decoder whose language model has seen no held-out sentence."""
    sentences = language_model_sentences(participant.sentences("val") + participant.sentences("test"))
    counts: dict[str, int] = {}
    for sentence in sentences:
        for word in sentence.split():
            counts[word] = counts.get(word, 0) + 1
    known = Lexicon.from_cmudict(words=sorted(counts))
    words = sorted(known.words, key=lambda word: (-counts[word], word))[: arguments.max_words]
    lm = build_ngram_lm(sentences, order=3, min_counts=(1, 1, 2), vocabulary=words).quantize()
    return BeamSearchDecoder(Lexicon.from_cmudict(words=sorted(words)), lm, beam_size=arguments.beam_size)


def train(participant: SimulatedParticipant, arguments: SampleArguments, output: Path) -> tuple[BITTrainer, list[Any]]:
    """Train the encoder of the demonstration."""
    training = rows(participant, "train", arguments.num_training_sentences)
    validation = rows(participant, "val", arguments.num_validation_sentences)
    name, channels = training[0]["participant_id"], training[0]["features"].shape[1]
    # By session, so that a single trial can be decoded without the rest of its block.
    extractor = BITFeatureExtractor(participants={name: channels}, normalization="session")
    config = BITConfig(
        participants={name: channels}, hidden_size=128, num_hidden_layers=4, num_attention_heads=2,
        intermediate_size=256, hidden_dropout=0.05, attention_dropout=0.05, embedding_dropout=0.05, patch_stride=3,
        mask_ratio=0.2, mask_max_span=4,
    )  # fmt: skip
    trainer = BITTrainer(
        BITForCTC(config),
        BITTrainingArguments(
            output_dir=str(output), num_train_epochs=arguments.num_train_epochs,
            per_device_train_batch_size=arguments.per_device_train_batch_size, learning_rate=arguments.learning_rate,
            warmup_steps=0.05, eval_strategy="steps", eval_steps=0.5, save_strategy="steps", save_steps=0.5,
            save_total_limit=1, seed=arguments.seed, use_cpu=True, bf16=arguments.bf16, logging_steps=20,
        ),
        training, validation, processing_class=BITProcessor(extractor, PhonemeTokenizer()),
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )  # fmt: skip
    trainer.train()
    return trainer, validation


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Make the checkpoints."""
    parser = ExperimentParser(
        [SampleArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/make_sample_checkpoints.py --output_dir runs/samples",
    )
    (arguments,) = parser.parse(argv)
    folder = Path(arguments.output_dir) / "sim-ctc"
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another --output_dir")
    torch.manual_seed(arguments.seed)
    set_seed(arguments.seed)
    start = time.process_time()
    participant = SimulatedParticipant(arguments.preset, seed=arguments.participant_seed)
    trainer, validation = train(participant, arguments, Path(arguments.output_dir) / "training")
    decoder = build_decoder(participant, arguments)
    known = trainer.predict_log_probs(validation)
    decoder = tune_decoder(known, [row["text"] for row in validation], decoder)
    test = rows(participant, "test", arguments.num_test_sentences)
    log_probs = trainer.predict_log_probs(test)
    scores = transcribe(
        log_probs, decoder, texts=[row["text"] for row in test], phonemes=[row["phonemes"] for row in test]
    )
    trainer.model.save_pretrained(folder)
    seconds_per_frame = (
        trainer.model.config.patch_stride * trainer.processing_class.feature_extractor.bin_size_ms / 1000
    )
    BITProcessorWithDecoder(trainer.processing_class, decoder, seconds_per_frame).save_pretrained(folder)
    for path in folder.glob("*.py"):
        path.unlink()  # the package itself is the code of what it ships
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    if megabytes > MAX_MEGABYTES:
        raise ValueError(f"{folder} has {megabytes:.1f} MB, more than {MAX_MEGABYTES}: lower max_words")
    record = {
        "data": "simulated participant; accuracy on simulated data says nothing about a person",
        "command": "python examples/make_sample_checkpoints.py",
        "settings": {key: value for key, value in asdict(arguments).items() if key != "output_dir"},
        "test": scores.to_dict(),
        "parameters": trainer.model.num_parameters(),
        "vocabulary_words": len(decoder.lexicon),
        "megabytes": round(megabytes, 2),
        "processor_seconds": round(time.process_time() - start, 1),
        "machine": hardware(),
        "git_commit": git_commit(),
        "sha256": file_hashes(folder),
    }
    write_json(folder / RECORD_NAME, record)
    shutil.rmtree(Path(arguments.output_dir) / "training")
    print(json.dumps({key: record[key] for key in ("test", "megabytes", "processor_seconds")}, indent=2))
    return record


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"make_sample_checkpoints: {error}")
