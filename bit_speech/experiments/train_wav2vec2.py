"""Teach a speech model to listen to the cortex: full fine-tuning, a frozen body, from scratch, or low-rank adapters.

    bit-speech train wav2vec2 --config examples/configs/wav2vec2_brain_simulated.yaml

The same command continues a stopped run. `--legacy true` repeats the published system with its quirks.
"""

from __future__ import annotations

import copy
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data import Augmentation
from bit_speech.decoding.spelling import SpellingDecoder
from bit_speech.evaluation import character_error_rate, word_error_rate
from bit_speech.evaluation.spelled_text import score_spelling
from bit_speech.experiments.trials import check_source, column, read_trials
from bit_speech.scoring import load_lm
from bit_speech.training import COMMON_SETTINGS, BITTrainer, BITTrainingArguments, newest_complete_checkpoint
from bit_speech.training.published_quirks import first_blocks, mean_over_batches
from bit_speech.training.speech_body import REGIMES, build_speech_model, speech_optimizers
from processing_bit import BITFeatureExtractor, BITProcessor, PhonemeTokenizer, SpellingTokenizer


@dataclass
class ExperimentArguments:
    """What listens, how it learns, and to whom."""

    _show_all_settings = True

    speech_checkpoint: str = HfArg(default="facebook/wav2vec2-base-960h", help="Folder or Hub name of a speech model.")
    regime: str = HfArg(default="full", help="full, frozen, scratch (random weights) or lora.")
    vocabulary: str = HfArg(default="characters", help="characters (of the checkpoint) or phonemes (a new head).")
    new_head: bool = HfArg(default=False, help="Start with a random head, as checkpoints without text need.")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of Wav2Vec2BrainConfig (JSON).")
    body_learning_rate: float = HfArg(default=1e-5, help="Peak rate of body and head; scratch uses learning_rate.")
    body_hold: float = HfArg(default=0.07, help="Share of the steps before a fully tuned body learns.")
    body_ramp: float = HfArg(default=0.03, help="Share of the steps in which its rate then grows.")
    lm: str | None = HfArg(default=None, help="Word n-gram model, .arpa[.gz|.xz] or saved, for characters.")
    lora_rank: int = HfArg(default=8, help="Rank of the adapters.")
    curriculum_epochs: int = HfArg(default=0, help="Epochs on the shorter half of the trials before all of them.")
    legacy: bool = HfArg(default=False, help="The published quirks: schedules, split, metrics, padding, no noise.")
    trials: str | None = HfArg(default=None, help="Folder of trials, from `bit-speech convert`.")
    test_split: str = HfArg(default="test", help="Split that is scored once at the end.")
    simulate: str | None = HfArg(default=None, help="Simulate this preset instead: demo, t12-like, t15-like.")
    simulation_seed: int = HfArg(default=0, help="Another seed is another simulated participant.")
    normalization: str = HfArg(default="block", help="z-score per block, per session, or none.")
    smoothing_sd_bins: float = HfArg(default=1.5, help="Gaussian smoothing in bins of 20 ms; 0 turns it off.")
    feature_kinds: list[str] | None = HfArg(default=None, help="Keep these kinds of channels; default all.")
    channel_areas: list[str] | None = HfArg(default=None, help="Keep these areas; default all.")
    white_noise_sd: float = HfArg(default=0.2, help="Noise added to every bin and channel.")
    constant_offset_sd: float = HfArg(default=0.05, help="Offset added to every channel of a trial.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        for name, known in (("regime", REGIMES), ("vocabulary", ("characters", "phonemes"))):
            if getattr(self, name) not in known:
                raise ValueError(f"--{name} {getattr(self, name)!r} is unknown; choose one of {', '.join(known)}")
        check_source(self.trials, self.simulate)
        if isinstance(self.model_config, str):
            self.model_config = json.loads(self.model_config)


def read_splits(arguments: ExperimentArguments) -> tuple[Any, Any, Any]:
    """Trials for training, for choosing the checkpoint, and for the scores.

    Args:
        arguments ([`ExperimentArguments`]): the settings.

    Returns:
        `tuple`: three times trials; with `legacy` the first block of every session is what is scored.
    """
    # A simulated participant has one test split, whatever the folder of trials would call it.
    splits = ("train", "validation", "test" if arguments.simulate else arguments.test_split)
    source = (arguments.trials, arguments.simulate, arguments.simulation_seed)
    train, validation, test = read_trials(*source, *splits)
    if arguments.legacy:
        scored = first_blocks(column(train, "session_id"), column(train, "block_index"))
        return subset(train, scored, False), validation, subset(train, scored, True)
    return train, validation, test


def subset(trials: Any, marks: list[bool], keep: bool) -> Any:
    """The trials that carry the mark, or those that do not.

    Args:
        trials (`datasets.Dataset` or `list[dict]`): all trials.
        marks (`list[bool]`): one for each.
        keep (`bool`): which marks stay.

    Returns:
        `datasets.Dataset` or `list[dict]`: the trials that stay.

    Example:
        >>> subset(["a", "b", "c"], [True, False, True], True)
        ['a', 'c']
    """
    rows = [i for i, mark in enumerate(marks) if mark is keep]
    return [trials[i] for i in rows] if isinstance(trials, list) else trials.select(rows)


def build(arguments: ExperimentArguments, trials: Any) -> tuple[BITProcessor, Any]:
    """Processor and model for the participant and the sessions of the training trials.

    Args:
        arguments ([`ExperimentArguments`]): the settings.
        trials (`datasets.Dataset` or `list[dict]`): the training trials.

    Returns:
        `tuple`: the processor, and the untrained model.

    Raises:
        ValueError: when settings and trials do not fit each other.
    """
    selection: dict[str, Any] = {"feature_kinds": arguments.feature_kinds, "channel_areas": arguments.channel_areas}
    shaping: dict[str, Any] = {name: getattr(arguments, name) for name in ("normalization", "smoothing_sd_bins")}
    row, sessions = trials[0], sorted(set(column(trials, "session_id")))
    raw = (row[name] for name in ("features", "feature_kinds", "channel_areas"))
    channels = BITFeatureExtractor(**shaping, **selection).select(*raw).shape[1]
    known: dict[str, Any] = {"participants": {row["participant_id"]: channels}, "sessions": sessions}
    tokenizer: Any = PhonemeTokenizer() if arguments.vocabulary == "phonemes" else SpellingTokenizer()
    if arguments.vocabulary == "characters" and not arguments.new_head:
        tokenizer = SpellingTokenizer.from_speech_checkpoint(arguments.speech_checkpoint)
    quirks: dict[str, Any] = {"legacy": True, "ctc_zero_infinity": True} if arguments.legacy else {}
    settings: dict[str, Any] = {**known, **(arguments.model_config or {}), **quirks}  # type: ignore[dict-item]
    new_head = arguments.new_head or arguments.vocabulary == "phonemes"
    if new_head:
        settings |= {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.blank_token_id}
    model = build_speech_model(arguments.speech_checkpoint, arguments.regime, new_head, arguments.lora_rank, **settings)
    return BITProcessor(BITFeatureExtractor(**shaping, **selection, **known), tokenizer), model


def train(arguments: ExperimentArguments, training: BITTrainingArguments, processor: Any, model: Any, data: Any) -> Any:
    """Train on all trials, after the shorter half of them with a curriculum.

    Args:
        arguments ([`ExperimentArguments`]): the settings.
        training ([`BITTrainingArguments`]): those of the trainer.
        processor ([`BITProcessor`]): prepares trials.
        model ([`Wav2Vec2BrainForCTC`]): is trained.
        data (`tuple`): training and validation trials.

    Returns:
        [`BITTrainer`]: with the best checkpoint's weights.
    """
    steps_per_epoch = -(-len(data[0]) // (training.train_batch_size * training.gradient_accumulation_steps))
    steps = training.max_steps if training.max_steps > 0 else round(training.num_train_epochs * steps_per_epoch)
    waits = {"hold_steps": round(arguments.body_hold * steps), "ramp_steps": round(arguments.body_ramp * steps)}
    optimizers = speech_optimizers(
        model,
        training.learning_rate,
        training.learning_rate if arguments.regime == "scratch" else arguments.body_learning_rate,
        steps,
        training.weight_decay,
        0 if arguments.legacy else training.get_warmup_steps(steps),
        legacy=arguments.legacy,
        legacy_decay_steps=10 * steps_per_epoch if arguments.regime == "frozen" else None,
        **(waits if arguments.regime == "full" else {}),
    )
    noise = Augmentation(white_noise_sd=arguments.white_noise_sd, constant_offset_sd=arguments.constant_offset_sd)
    shared: dict[str, Any] = {"processing_class": processor, "augmentation": None if arguments.legacy else noise}
    checkpoint = newest_complete_checkpoint(training.output_dir)
    if arguments.curriculum_epochs and checkpoint is None:
        lengths = np.array([len(text) for text in column(data[0], "text")])
        short = (lengths <= np.median(lengths)).tolist()
        first = copy.copy(training)
        first.num_train_epochs, first.max_steps, first.save_strategy = arguments.curriculum_epochs, -1, "no"
        first.output_dir, first.load_best_model_at_end = f"{training.output_dir}/curriculum", False
        BITTrainer(model, first, subset(data[0], short, True), **shared).train()
    trainer = BITTrainer(model, training, data[0], data[1], **shared, optimizers=optimizers)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    return trainer


def score(arguments: ExperimentArguments, trainer: Any, trials: Any) -> dict[str, Any]:
    """Error rates of the test trials, pooled; with `legacy` also averaged over batches.

    Args:
        arguments ([`ExperimentArguments`]): the settings.
        trainer ([`BITTrainer`]): holds the trained model.
        trials (`datasets.Dataset` or `list[dict]`): the test trials.

    Returns:
        `dict`: rates of characters and words, or of phonemes.
    """
    if arguments.vocabulary == "phonemes":
        return {"phonemes": trainer.evaluate(trials, metric_key_prefix="test")["test_per"]}
    tokenizer, texts, decoder = trainer.processing_class.tokenizer, column(trials, "text"), None
    if arguments.lm is not None:
        lm = load_lm(arguments.lm)
        decoder = SpellingDecoder(lm.words, lm, tokenizer.characters, len(tokenizer), tokenizer.blank_token_id)
    rates, found = score_spelling(texts, trainer.predict_log_probs(trials), tokenizer, decoder)
    scores: dict[str, Any] = {name: rate.to_dict() for name, rate in rates.items()}
    if arguments.legacy:
        for kind, measure in (("cer", character_error_rate), ("wer", word_error_rate)):
            scores[f"{kind}_mean_over_batches"] = mean_over_batches(measure, texts, found["greedy"])
    return scores


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment.

    Args:
        argv (`list[str]`, *optional*): the settings as a command line without the program's name.

    Returns:
        `dict`: rates of the test trials.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when a folder or file is not there.
    """
    parser = ExperimentParser(
        [ExperimentArguments, BITTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="bit-speech train wav2vec2 --config examples/configs/wav2vec2_brain_simulated.yaml --regime lora",
        highlights=COMMON_SETTINGS,
    )
    parser.prog = "bit-speech train wav2vec2"
    arguments, training = parser.parse(argv)
    if arguments.legacy:
        training.max_grad_norm, training.metric_for_best_model = 0.0, "eval_loss"
    set_seed(training.seed)
    train_trials, validation, test = read_splits(arguments)
    processor, model = build(arguments, train_trials)
    trainer = train(arguments, training, processor, model, (train_trials, validation))
    scores = score(arguments, trainer, test)
    trainer.model = trainer.model.merge_and_unload() if arguments.regime == "lora" else trainer.model
    trainer.save_model(str(Path(training.output_dir) / "model"))
    trainer.save_run_record(test=scores, experiment=parser.resolved)
    print(json.dumps(scores, indent=2))
    return scores
