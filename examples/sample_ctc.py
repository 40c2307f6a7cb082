"""`sim-ctc`: the encoder of the demonstration with CTC, z-scored by session, and a word decoder, open vocabulary."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
from bit_speech.data import Augmentation
from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm, tune_decoder
from bit_speech.demo import language_model_sentences
from bit_speech.experiments.trials import column, simulated_trials
from bit_speech.scoring import transcribe
from bit_speech.simulation import SimulatedParticipant


@dataclass
class CTCArguments:
    """How large, how long."""

    _show_all_settings = True

    num_training_sentences: int = HfArg(default=2000, help="Of the training sentences, so many, spread over them.")
    num_train_epochs: float = HfArg(default=6.0, help="Passes over the training sentences.")
    per_device_train_batch_size: int = HfArg(default=16, help="Trials per update.")
    learning_rate: float = HfArg(default=3e-3, help="Peak learning rate.")
    max_words: int = HfArg(default=20_000, help="Words of the vocabulary: the most frequent that CMUdict knows.")
    beam_size: int = HfArg(default=200, help="Hypotheses kept while decoding.")


def spread(participant: SimulatedParticipant, split: str, count: int) -> list[dict[str, Any]]:
    """So many trials of a split, spread over its sessions."""
    trials = simulated_trials(participant, split)
    count = min(count, len(trials))
    return [trials[i] for i in sorted({round(i * len(trials) / count) for i in range(count)})]


def build_decoder(participant: SimulatedParticipant, arguments: CTCArguments) -> BeamSearchDecoder:
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


def train(
    participant: SimulatedParticipant, shared: Any, arguments: CTCArguments, output: Path
) -> tuple[BITTrainer, list[Any]]:
    """Train the encoder of the demonstration."""
    training = spread(participant, "train", arguments.num_training_sentences)
    validation = spread(participant, "validation", shared.num_validation_sentences)
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
            save_total_limit=1, seed=shared.seed, use_cpu=True, bf16=shared.bf16, logging_steps=20,
        ),
        training, validation, processing_class=BITProcessor(extractor, PhonemeTokenizer()),
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )  # fmt: skip
    trainer.train()
    return trainer, validation


def make(folder: Path, work: Path, shared: Any, arguments: CTCArguments) -> dict[str, Any]:
    """Train, score and save; what is returned goes into the record."""
    participant = SimulatedParticipant(shared.preset, seed=shared.participant_seed)
    trainer, validation = train(participant, shared, arguments, work)
    decoder = build_decoder(participant, arguments)
    decoder = tune_decoder(trainer.predict_log_probs(validation), column(validation, "text"), decoder)
    test = spread(participant, "test", shared.num_test_sentences)
    scores = transcribe(
        trainer.predict_log_probs(test), decoder, texts=column(test, "text"), phonemes=column(test, "phonemes")
    )
    trainer.model.save_pretrained(folder)
    seconds_per_frame = (
        trainer.model.config.patch_stride * trainer.processing_class.feature_extractor.bin_size_ms / 1000
    )
    BITProcessorWithDecoder(trainer.processing_class, decoder, seconds_per_frame).save_pretrained(folder)
    return {
        "test": scores.to_dict(),
        "parameters": trainer.model.num_parameters(),
        "vocabulary_words": len(decoder.lexicon),
    }
