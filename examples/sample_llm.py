"""`sim-llm`: an end-to-end model: the encoder of `sim-ctc`, a projector, and a small language model that writes.

The participant is that of `sim-ctc`, who now speaks in the 50-word vocabulary of Moses et al. 2021 (sentences composed
here), because a language model of half a million parameters cannot know more words.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArg

from bit_speech import BITFeatureExtractor, BITForCTC, BITLLMTrainingArguments, ContrastiveTrainer, sample_checkpoint
from bit_speech.data import Augmentation
from bit_speech.data.splits import comparable_text
from bit_speech.evaluation import word_error_rate
from bit_speech.experiments import train_causal_lm
from bit_speech.experiments.trials import column, simulated_trials
from bit_speech.files import write_text
from bit_speech.simulation import PRESETS, SimulatedParticipant
from bit_speech.training import build_end_to_end

PROMPT = "#:"
# A neural token covers 0.24 s, most of a word: with fewer of them the language model soon finds its way.
STACKING = 4


@dataclass
class LLMArguments:
    """How large, how long."""

    _show_all_settings = True

    llm_training_sentences: int = HfArg(default=1400, help="Different sentences of the 50-word vocabulary.")
    llm_vocab_size: int = HfArg(default=600, help="Tokens of the language model: bytes, and the words of its text.")
    llm_text_steps: int = HfArg(default=100, help="Updates of the language model on the training sentences alone.")
    llm_steps: int = HfArg(default=1500, help="Updates of projector and language model; the encoder stays.")
    llm_batch_size: int = HfArg(default=16, help="Trials per update.")
    llm_learning_rate: float = HfArg(default=1e-3, help="Their peak learning rate.")


def speaker(shared: Any, arguments: LLMArguments) -> tuple[SimulatedParticipant, dict[str, Any]]:
    """The participant, and what differs from the preset."""
    changes = {
        "sentences_source": "fifty_words",
        "train_sentences": arguments.llm_training_sentences,
        "val_sentences": shared.num_validation_sentences,
        "test_sentences": shared.num_test_sentences,
    }
    config = replace(PRESETS[shared.preset], **changes)
    return SimulatedParticipant(config, seed=shared.participant_seed), changes


def train_language_model(sentences: list[str], work: Path, shared: Any, arguments: LLMArguments) -> Path:
    """The language model of the training sentences, by `bit-speech train causal-lm`."""
    text = write_text(work / "sentences.txt", "".join(f"{sentence}\n" for sentence in sentences))
    train_causal_lm.main(
        [
            f"--text={text}", f"--output_dir={work / 'language_model'}", f"--vocab_size={arguments.llm_vocab_size}",
            "--block_size=32", "--hidden_size=128", "--num_hidden_layers=3", "--num_attention_heads=4",
            "--intermediate_size=256", f"--max_steps={arguments.llm_text_steps}", "--warmup_steps=0.05",
            "--learning_rate=3e-3", "--per_device_train_batch_size=16", "--save_strategy=no", "--logging_steps=50",
            "--use_cpu=true", "--report_to=none", f"--seed={shared.seed}",
        ]
    )  # fmt: skip
    return work / "language_model" / "model"


def make(folder: Path, work: Path, shared: Any, arguments: LLMArguments) -> dict[str, Any]:
    """Train, score and save; what is returned goes into the record."""
    participant, changes = speaker(shared, arguments)
    training = simulated_trials(participant, "train")
    language_model = train_language_model(column(training, "text"), work, shared, arguments)
    made = folder.parent / "sim-ctc"
    ctc = made if made.is_dir() else sample_checkpoint("sim-ctc")
    # Statistics of its own sentences, which are shorter than those of `sim-ctc`.
    extractor = BITFeatureExtractor.from_pretrained(ctc)
    extractor = BITFeatureExtractor(**{**extractor.to_dict(), "session_statistics": {}})
    model, processor = build_end_to_end(
        BITForCTC.from_pretrained(ctc), language_model, feature_extractor=extractor,
        processor_settings={"prompt": PROMPT}, stacking=STACKING, contrastive_weight=0.0,
    )  # fmt: skip
    model.encoder.requires_grad_(False)  # it reads this participant already, and half of the time is spent elsewhere
    validation = simulated_trials(participant, "validation")
    trainer = ContrastiveTrainer(
        model,
        BITLLMTrainingArguments(
            output_dir=str(work / "run"), max_steps=arguments.llm_steps, seed=shared.seed, use_cpu=True,
            bf16=shared.bf16, per_device_train_batch_size=arguments.llm_batch_size,
            learning_rate=arguments.llm_learning_rate, warmup_steps=0.05, weight_decay=1e-2, eval_strategy="steps",
            eval_steps=0.25, save_strategy="steps", save_steps=0.25, save_total_limit=1, logging_steps=20,
            max_new_tokens=20,
        ),
        train_dataset=training, eval_dataset=validation, processing_class=processor,
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )  # fmt: skip
    trainer.train()
    trainer.model.save_pretrained(folder)
    trainer.processing_class.save_pretrained(folder)
    return {
        **score(trainer, participant, shared),
        "participant_changes": changes,
        "parameters": trainer.model.num_parameters(),
        "vocabulary_words": len({word for sentence in column(training, "text") for word in sentence.split()}),
    }


def score(trainer: ContrastiveTrainer, participant: SimulatedParticipant, shared: Any) -> dict[str, Any]:
    """Free-running word error rate, greedy and with beams, on sentences that neither part has been trained on."""
    # The encoder comes from another training, on sentences of an open vocabulary.
    before = SimulatedParticipant(shared.preset, seed=shared.participant_seed).sentences("train")
    known = set(map(comparable_text, before))
    test = [row for row in simulated_trials(participant, "test") if comparable_text(row["text"]) not in known]
    rates = {
        name: word_error_rate(column(test, "text"), trainer.write_sentences(test, num_beams=beams)).to_dict()
        for name, beams in (("wer_greedy", 1), ("wer", 5))
    }
    return {"test": rates, "test_sentences_left_out": participant.num_trials("test") - len(test)}
