"""Pretrain a small Wav2Vec2 on synthesized speech: the speech body for machines that cannot reach the Hub.

    python examples/pretrain_wav2vec2_speech.py --output_dir runs/speech_body
    python examples/pretrain_wav2vec2_speech.py --objective contrastive --output_dir runs/speech_body_ssl

`espeak-ng` (Debian: `apt-get install espeak-ng`) speaks sentences of the shipped lists with several voices; none of
them is a prompt of participants T12 or T15, so that nothing a simulated participant attempts was heard before.
`ctc` learns to spell what is spoken, as the checkpoint of the published system did; `contrastive` hears speech without
text (Wav2Vec2's own pretraining) and is the control. The folder loads as any Wav2Vec2 checkpoint does.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Trainer,
    TrainingArguments,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    Wav2Vec2ForPreTraining,
    set_seed,
)
from transformers.hf_argparser import HfArg
from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices, _sample_negative_indices

from bit_speech.arguments import ExperimentParser
from bit_speech.evaluation import character_error_rate
from bit_speech.files import write_json
from bit_speech.simulation.text import load_sentences, normalize_sentence, pronounce
from processing_bit.tokenization_spelling import SpellingTokenizer

SAMPLING_RATE = 16_000
VOICES = ("en-us", "en-gb", "en-us+f3", "en-gb+m3")


@dataclass
class SpeechArguments:
    """What is heard, and by how large a model."""

    _show_all_settings = True

    objective: str = HfArg(default="ctc", help="ctc (spell what is spoken) or contrastive (without text).")
    num_sentences: int = HfArg(default=3000, help="Sentences to speak; a twentieth of them is held out.")
    max_words: int = HfArg(default=6, help="Longest sentence.")
    words_per_minute: int = HfArg(default=200, help="Speaking rate.")
    hidden_size: int = HfArg(default=128, help="Width of the body.")
    num_hidden_layers: int = HfArg(default=4, help="Layers of the body.")
    intermediate_size: int = HfArg(default=512, help="Width of the feed-forward parts.")
    num_attention_heads: int = HfArg(default=4, help="Attention heads.")

    def __post_init__(self) -> None:
        """Refuse unknown objectives."""
        if self.objective not in ("ctc", "contrastive"):
            raise ValueError(f"--objective {self.objective!r} is unknown; choose ctc or contrastive")


def choose_sentences(number: int, max_words: int) -> list[str]:
    """Short sentences that no participant is ever asked to say, in an order that is random but always the same."""
    prompts = {normalize_sentence(text) for source in ("t12", "t15") for text in load_sentences(source)}
    found = {normalize_sentence(text) for text in load_sentences("tatoeba")} - prompts
    fitting = [text for text in found if 2 <= len(text.split()) <= max_words]
    shuffled = sorted(fitting, key=lambda text: hashlib.sha256(text.encode()).digest())
    chosen = list(islice((text for text in shuffled if pronounce(text)), number))
    if len(chosen) < number:
        raise ValueError(f"There are only {len(chosen)} sentences of 2 to {max_words} words, {number} were asked for.")
    return chosen


def speak(text: str, voice: str, words_per_minute: int) -> np.ndarray:
    """Synthesize a sentence; float32 at 16 kHz with zero mean and unit variance."""
    from scipy.signal import resample_poly

    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_per_minute), text]
    try:
        wav = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise FileNotFoundError("espeak-ng is not installed: apt-get install espeak-ng") from error
    samples = np.frombuffer(wav[44:], dtype="<i2").astype(np.float32)
    audio = resample_poly(samples, 320, 441)  # 22.05 kHz to 16 kHz
    return ((audio - audio.mean()) / (audio.std() + 1e-7)).astype(np.float32)


def build_model(arguments: SpeechArguments, tokenizer: SpellingTokenizer) -> Any:
    """A Wav2Vec2 with five convolutions (20 ms hop) and a small body."""
    names = ("hidden_size", "num_hidden_layers", "intermediate_size", "num_attention_heads")
    config = Wav2Vec2Config(
        **{name: getattr(arguments, name) for name in names},
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.blank_token_id,
        conv_dim=(32, 64, 96, 128, 128),
        conv_kernel=(10, 8, 8, 4, 4),
        conv_stride=(5, 4, 4, 2, 2),
        feat_extract_norm="layer",  # unlike "group" it does not mix padding into a recording
        num_conv_pos_embeddings=32,
        num_conv_pos_embedding_groups=8,
        layerdrop=0.0,
        mask_time_prob=0.05 if arguments.objective == "ctc" else 0.5,
        ctc_zero_infinity=True,
        ctc_loss_reduction="mean",
        codevector_dim=64,
        proj_codevector_dim=64,
        num_codevectors_per_group=64,
        num_negatives=50,
    )
    return (Wav2Vec2ForCTC if arguments.objective == "ctc" else Wav2Vec2ForPreTraining)(config)


class SpeechCollator:
    """Pads recordings; labels for CTC, or masks and negatives for the contrastive objective."""

    def __init__(self, extractor: Wav2Vec2FeatureExtractor, model: Any, objective: str) -> None:
        self.extractor, self.model, self.objective = extractor, model, objective

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Make a batch."""
        batch = dict(self.extractor.pad([{"input_values": row["input_values"]} for row in rows], return_tensors="pt"))
        if self.objective == "ctc":
            labels = [torch.tensor(row["labels"]) for row in rows]
            batch["labels"] = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100)
            return batch
        lengths = self.model._get_feat_extract_output_lengths(batch["attention_mask"].sum(dim=1))
        shape = (len(rows), int(lengths.max()))
        real = torch.arange(shape[1]) < lengths[:, None]
        masked = _compute_mask_indices(shape, 0.5, 8, real.long(), min_masks=2)
        negatives = _sample_negative_indices(shape, self.model.config.num_negatives, masked)
        return batch | {
            "mask_time_indices": torch.from_numpy(masked),
            "sampled_negative_indices": torch.from_numpy(negatives),
        }


def spell(model: Any, collate: SpeechCollator, rows: list[dict[str, Any]], tokenizer: SpellingTokenizer) -> list[str]:
    """What the model hears, greedily."""
    model.eval()
    heard = []
    for row in rows:
        with torch.no_grad():
            logits = model(**{key: value for key, value in collate([row]).items() if key != "labels"}).logits
        heard.append(tokenizer.decode_ctc(logits[0].argmax(dim=-1)))
    return heard


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Speak, train, score and save."""
    parser = ExperimentParser([SpeechArguments, TrainingArguments], description=(__doc__ or "").split("\n\n")[0])
    arguments, training = parser.parse(argv)
    training.label_names = ["labels" if arguments.objective == "ctc" else "mask_time_indices"]
    set_seed(training.seed)
    tokenizer = SpellingTokenizer()
    extractor = Wav2Vec2FeatureExtractor(return_attention_mask=True)
    texts = choose_sentences(arguments.num_sentences, arguments.max_words)
    voices = [VOICES[i % len(VOICES)] for i in range(len(texts))]
    with ThreadPoolExecutor(2) as pool:
        spoken = list(pool.map(speak, texts, voices, [arguments.words_per_minute] * len(texts)))
    rows = [{"input_values": audio, "labels": tokenizer.encode_text(text)} for audio, text in zip(spoken, texts)]
    held_out = max(1, len(rows) // 20)
    model = build_model(arguments, tokenizer)
    collate = SpeechCollator(extractor, model, arguments.objective)
    trainer = Trainer(
        model, training, collate, rows[held_out:], eval_dataset=rows[:held_out], processing_class=extractor
    )
    trainer.train()
    record: dict[str, Any] = {
        "settings": parser.resolved,
        "parameters": model.num_parameters(),
        "body_parameters": sum(p.numel() for p in model.wav2vec2.encoder.parameters()),
        "seconds_of_speech": sum(map(len, spoken)) / SAMPLING_RATE,
        "training_seconds": trainer.state.log_history[-1]["train_runtime"],
    }
    if arguments.objective == "ctc":
        heard = spell(model, collate, rows[:held_out], tokenizer)
        record["held_out_cer"] = character_error_rate(texts[:held_out], heard).to_dict()
        record["examples"] = [[text, found] for text, found in zip(texts[:5], heard)]
    else:
        record["held_out_loss"] = trainer.evaluate()["eval_loss"]
    model.save_pretrained(training.output_dir)
    extractor.save_pretrained(training.output_dir)
    tokenizer.save_pretrained(training.output_dir)
    write_json(Path(training.output_dir) / "speech_pretraining.json", record)
    print({key: value for key, value in record.items() if key != "settings"})
    return record


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"pretrain_wav2vec2_speech: {error}")
