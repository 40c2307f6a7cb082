"""Pretrain an encoder of intracranial EEG on days of ambient sound, or finetune it on a task.

    python examples/pretrain_ieeg_audio.py --config examples/configs/pretrain_ieeg_audio_simulated.yaml
    python examples/pretrain_ieeg_audio.py --config examples/configs/finetune_ieeg_audio_simulated.yaml

`segments` are folders that `bit-speech convert` of an iEEG corpus wrote (see docs/ieeg_audio.md); one a participant.
`simulate` makes a patient with known truth instead. The same command continues a run that was stopped. Model and
processor are then in `<output_dir>/model`: give that folder to `--pretrained`, or to `retrieve_speech.py`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data.aligned_segments import CONDITIONS, take_hours
from bit_speech.evaluation.retrieval import retrieval_ranks, score_ranks
from bit_speech.experiments.ieeg_audio_recordings import build, of_conditions, read_windows
from bit_speech.training import newest_complete_checkpoint
from bit_speech.training.ieeg_audio_trainer import IEEG_AUDIO_SETTINGS, IEEGAudioTrainer, IEEGAudioTrainingArguments
from configuration_bit import ENCODER_PRESETS


@dataclass
class ExperimentArguments:
    """What is learnt from what."""

    _show_all_settings = True

    segments: list[str] = HfArg(default_factory=list, help="Folders of aligned segments, one a participant.")
    simulate: dict[str, Any] | str | None = HfArg(default=None, help="Or patients to make up: name -> settings (JSON).")
    condition: str = HfArg(
        default="ambient", help="What is trained on: ambient, clean or clean_in_room; or several, ambient+clean."
    )
    test_conditions: list[str] = HfArg(default_factory=lambda: ["ambient"], help="What is scored at the end.")
    audio_features: str = HfArg(default="log_mel", help="log_mel, or the Hub name or folder of a speech model.")
    audio_layer: int = HfArg(default=19, help="Which hidden states of the speech model; 19 of 24 in the paper.")
    cache: str = HfArg(default="runs/audio_features", help="Where audio features and windows are kept.")
    hours: float | None = HfArg(default=None, help="Only so many hours of training windows, whole files.")
    preset: str = HfArg(default="brainmagick", help="Shape of the encoder: brainmagick or neuralbench.")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of the model's configuration (JSON).")
    normalization: str = HfArg(default="fixed", help="fixed, or running (follows slow drift).")
    extra_targets: dict[str, Any] | str | None = HfArg(
        default=None,
        help="What else is to be found (JSON): name -> audio_features (and audio_layer) or frames (a folder of "
        "<file_id>.npy) and rate_hz; and a weight.",
    )
    regions: str | None = HfArg(
        default=None, help="A JSON file, participant -> channel -> brain region, for read_in 'position'."
    )
    pretrained: str | None = HfArg(default=None, help="Folder of a pretrained model to start from.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        for name in ("simulate", "model_config", "extra_targets"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))
        if bool(self.segments) == bool(self.simulate):
            raise ValueError("give either --segments, folders of aligned segments, or --simulate, patients to make up")
        self.extra_targets = self.extra_targets or {}
        for name, settings in self.extra_targets.items():
            extra = set(settings) - {"audio_features", "audio_layer", "frames", "rate_hz", "weight"}
            if extra or ("frames" in settings) == ("audio_features" in settings):
                raise ValueError(f"--extra_targets {name}: give audio_features, or frames and rate_hz; got {settings}")
            if "frames" in settings and "rate_hz" not in settings:
                raise ValueError(f"--extra_targets {name}: frames need their rate_hz; got {settings}")
        unknown = sorted({*self.condition.split("+"), *self.test_conditions} - set(CONDITIONS))
        if unknown:
            raise ValueError(f"there is no condition {', '.join(unknown)}; choose of {', '.join(CONDITIONS)}")
        if self.preset not in ENCODER_PRESETS:
            raise ValueError(f"--preset is {self.preset!r}; choose one of {', '.join(ENCODER_PRESETS)}")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment."""
    parser = ExperimentParser(
        [ExperimentArguments, IEEGAudioTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/pretrain_ieeg_audio.py --config examples/configs/pretrain_ieeg_audio_simulated.yaml",
        highlights=IEEG_AUDIO_SETTINGS,
    )
    arguments, training = parser.parse(argv)
    parser.save_beside(training.output_dir, write=False)
    set_seed(training.seed)
    with training.main_process_first(desc="reading windows"):
        data = read_windows(arguments)
    train = [take_hours(of_conditions(part, "train", arguments.condition), arguments.hours) for part in data.sets]
    held_out = [of_conditions(part, "validation", arguments.condition) for part in data.sets]
    model, processor = build(arguments, train, data)
    trainer = IEEGAudioTrainer(model, training, processor, train, held_out)
    parser.save_beside(training.output_dir, write=trainer.is_world_process_zero())
    checkpoint = newest_complete_checkpoint(training.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(Path(training.output_dir) / "model"))
    scores: dict[str, Any] = {}
    for part in data.sets:
        for condition in arguments.test_conditions:
            test = part.where(split="test", condition=condition)
            ranks = retrieval_ranks(trainer.embed(test), trainer.wanted(test))
            kept = test.speech >= 0.5
            entry = {"all": score_ranks(ranks, test.file).to_dict()}
            if kept.any():
                entry["speech"] = score_ranks(ranks.select(kept), test.file[kept]).to_dict()
            for name in data.target_sizes:
                ranks = retrieval_ranks(trainer.embed(test, name), trainer.wanted(test, name))
                entry[name] = score_ranks(ranks, test.file).to_dict()
            scores[f"{test.participant[0]}/{condition}"] = entry
    trainer.save_run_record(test=scores, experiment=parser.resolved)
    if trainer.is_world_process_zero():
        print(json.dumps(scores, indent=2))
    return scores


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"pretrain_ieeg_audio: {error}")
