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
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data.aligned_segments import (
    CONDITIONS,
    WindowSet,
    join_windows,
    load_segments,
    make_windows,
    take_hours,
)
from bit_speech.data.audio_features import CachedFeatures, LogMelFeatures, SpeechModelFeatures, window_means
from bit_speech.data.window_targets import frame_targets
from bit_speech.evaluation.retrieval import retrieval_ranks, score_ranks
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from bit_speech.training import newest_complete_checkpoint
from bit_speech.training.ieeg_audio_trainer import IEEG_AUDIO_SETTINGS, IEEGAudioTrainer, IEEGAudioTrainingArguments
from configuration_bit import ENCODER_PRESETS, IEEGAudioConfig
from modeling_bit import IEEGAudioForRetrieval
from processing_bit import IEEGAudioProcessor, IEEGFeatureExtractor


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


@dataclass
class Recordings:
    """Windows of every participant, how their sound was described, and where the channels are."""

    sets: list[WindowSet]
    audio_settings: dict[str, Any]
    target_sizes: dict[str, int]
    channels: dict[str, list[str]]
    positions: dict[str, list[list[float]]]

    def note_places(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Hand rows on; names and positions of the channels are those of a participant's first one."""
        for row in rows:
            name = str(row["participant_id"])
            if name not in self.channels:
                self.channels[name] = list(row["channel_names"])
                if row["channel_positions"] is not None and np.isfinite(np.float32(row["channel_positions"])).any():
                    self.positions[name] = [[float(v) for v in place] for place in row["channel_positions"]]
            yield row

    def add_target(self, windows: WindowSet, name: str, values: np.ndarray) -> None:
        """Put the columns of a further target beside those of the sound."""
        windows.targets = np.concatenate([windows.targets, values], axis=1)
        self.target_sizes[name] = values.shape[1]


def describer(name: str, layer: int) -> Any:
    """What turns sound into vectors."""
    return LogMelFeatures() if name == "log_mel" else SpeechModelFeatures(name, layer)


def read_windows(arguments: ExperimentArguments) -> Recordings:
    """Windows of every participant with their targets, and how those were made."""
    features = describer(arguments.audio_features, arguments.audio_layer)
    found = Recordings([], features.settings, {}, {}, {})
    for folder in arguments.segments:
        windows = make_windows(found.note_places(load_segments(folder)), CachedFeatures(features, arguments.cache))
        for name, settings in sorted(arguments.extra_targets.items()):
            if "frames" in settings:
                more = frame_targets(windows, settings["frames"], settings["rate_hz"])
            else:
                other = describer(settings["audio_features"], settings.get("audio_layer", 19))
                more = make_windows(load_segments(folder), CachedFeatures(other, arguments.cache)).targets
            found.add_target(windows, name, more)
        found.sets.append(windows)
    for number, (name, settings) in enumerate((arguments.simulate or {}).items()):
        patient = SimulatedPatient(ContinuousConfig(participant_id=name, **settings), seed=number)
        windows = join_windows(
            [make_windows(found.note_places(patient.segments(file_id)), features) for file_id in patient.splits]
        )
        for target, how in sorted(arguments.extra_targets.items()):
            found.add_target(windows, target, simulated_target(patient, windows, how))
        found.sets.append(windows)
    return found


def simulated_target(patient: SimulatedPatient, windows: WindowSet, settings: dict[str, Any]) -> np.ndarray:
    """A further target of a simulated patient: what a very good speech model might hear, frames, or other sound."""
    if "frames" in settings:
        return frame_targets(windows, settings["frames"], settings["rate_hz"])
    if settings["audio_features"] != "ideal_speech":
        other = describer(settings["audio_features"], settings.get("audio_layer", 19))
        return join_windows([make_windows(patient.segments(name), other) for name in patient.splits]).targets
    parts: list[np.ndarray] = []
    for name in patient.splits:
        for condition in ("clean", "clean_in_room") if name.startswith("task") else ("ambient",):
            count = len(windows.where(file=name, condition=condition))
            parts.append(window_means(patient.ideal_speech_features(name, condition), 100.0, 3.0, count))
    return np.concatenate(parts)


def of_conditions(windows: WindowSet, split: str, conditions: str) -> WindowSet:
    """The windows of a split that were heard in one of the conditions."""
    part = windows.where(split=split)
    kept = np.isin(part.condition, conditions.split("+"))
    if not kept.any():
        raise ValueError(f"{part.participant[0]} has no window for {split} with the condition {conditions!r}")
    return part.select(kept)


def build(arguments: ExperimentArguments, sets: list[WindowSet], data: Recordings) -> tuple[Any, Any]:
    """Model and processor, new or pretrained. The statistics of audio are always those of pretraining."""
    if arguments.pretrained:
        return reopen(arguments.pretrained, data.target_sizes)
    participants = {str(part.participant[0]): part.ieeg.shape[2] for part in sets}
    sessions = sorted({str(name) for part in sets for name in part.session})
    width = sets[0].targets.shape[1] - sum(data.target_sizes.values())
    weights = {name: float(how["weight"]) for name, how in arguments.extra_targets.items() if "weight" in how}
    changes = {"participants": participants, "sessions": sessions, "embedding_size": width}
    changes |= {"extra_targets": data.target_sizes, "target_weights": weights}
    settings = dict(arguments.model_config or {})
    places = places_of(arguments, data)
    if settings.get("read_in") == "position":
        changes["regions"] = places["regions"]
        lost = [name for name in participants if name not in data.positions and not places["channel_regions"].get(name)]
        if lost:
            raise ValueError(f"read_in 'position' needs places, but no channel of {', '.join(lost)} has one")
    model = IEEGAudioForRetrieval(IEEGAudioConfig.preset(arguments.preset, **changes, **settings))
    extractor = IEEGFeatureExtractor(participants, sessions, normalization=arguments.normalization, **places)
    if arguments.normalization == "fixed":
        extractor.fit({str(p.participant[0]): [p.ieeg.reshape(-1, p.ieeg.shape[2])] for p in sets})
    processor = IEEGAudioProcessor(extractor, target_settings=data.audio_settings)
    processor.fit_targets(np.concatenate([part.targets for part in sets]))
    return model, processor


def places_of(arguments: ExperimentArguments, data: Recordings) -> dict[str, Any]:
    """Positions from the segments and regions from a file, as the feature extractor takes them."""
    known = json.loads(Path(arguments.regions).read_text(encoding="utf-8")) if arguments.regions else {}
    strangers = sorted(set(known) - set(data.channels))
    if strangers:
        raise ValueError(
            f"{arguments.regions} names {', '.join(strangers)}; there are {', '.join(sorted(data.channels))}"
        )
    regions = {name: [known[name].get(channel, "") for channel in data.channels[name]] for name in known}
    table = sorted({region for names in regions.values() for region in names if region})
    positions = {
        name: data.positions.get(name, [[float("nan")] * 3] * len(channels))
        for name, channels in data.channels.items()
        if name in data.positions or name in regions
    }
    return {"channel_positions": positions, "channel_regions": regions, "regions": table}


def reopen(folder: str, target_sizes: dict[str, int]) -> tuple[Any, Any]:
    """A pretrained model; further targets may be left out, but not added or changed."""
    config = IEEGAudioConfig.from_pretrained(folder)
    processor = IEEGAudioProcessor.from_pretrained(folder)
    if target_sizes and target_sizes != config.extra_targets:
        raise ValueError(f"{folder} looks for {config.extra_targets}, --extra_targets give {target_sizes}")
    if not target_sizes and config.extra_targets:
        size = config.embedding_size
        processor.target_mean, processor.target_sd = processor.target_mean[:size], processor.target_sd[:size]
        config.extra_targets, config.target_weights = {}, {}
    return IEEGAudioForRetrieval.from_pretrained(folder, config=config), processor


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
