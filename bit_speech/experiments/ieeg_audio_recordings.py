"""What an experiment on iEEG and sound reads, windows, targets and places of channels, and the model made for them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.aligned_segments import WindowSet, join_windows, load_segments, make_windows
from bit_speech.data.audio_features import CachedFeatures, LogMelFeatures, SpeechModelFeatures, window_means
from bit_speech.data.window_targets import frame_targets
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from configuration_bit import IEEGAudioConfig
from modeling_bit import IEEGAudioForRetrieval
from processing_bit import IEEGAudioProcessor, IEEGFeatureExtractor


@dataclass
class Recordings:
    """Windows of every participant, how their sound was described, and where the channels are.

    Attributes:
        sets (`list[WindowSet]`): one for each participant; further targets are columns behind those of the sound.
        audio_settings (`dict`): how the sound was described.
        target_sizes (`dict[str, int]`): width of every further target.
        channels (`dict[str, list[str]]`): names of every participant's channels.
        positions (`dict[str, list[list[float]]]`): their places in metres, for participants where any is known.
    """

    sets: list[WindowSet]
    audio_settings: dict[str, Any]
    target_sizes: dict[str, int]
    channels: dict[str, list[str]]
    positions: dict[str, list[list[float]]]

    def note_places(self, rows: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Hand rows on; names and positions of the channels are those of a participant's first one.

        Args:
            rows (`Iterable` of `dict`): aligned segments.

        Yields:
            `dict`: the same segments.
        """
        for row in rows:
            name = str(row["participant_id"])
            if name not in self.channels:
                self.channels[name] = list(row["channel_names"])
                if row["channel_positions"] is not None and np.isfinite(np.float32(row["channel_positions"])).any():
                    self.positions[name] = [[float(v) for v in place] for place in row["channel_positions"]]
            yield row

    def add_target(self, windows: WindowSet, name: str, values: np.ndarray) -> None:
        """Put the columns of a further target beside those of the sound.

        Args:
            windows (`WindowSet`): is changed.
            name (`str`): of the target.
            values (`np.ndarray` of shape `(N, D)`): its vectors.
        """
        windows.targets = np.concatenate([windows.targets, values], axis=1)
        self.target_sizes[name] = values.shape[1]


def describer(name: str, layer: int) -> Any:
    """What turns sound into vectors.

    Args:
        name (`str`): `log_mel`, or the Hub name or folder of a speech model.
        layer (`int`): which hidden states of a speech model.

    Returns:
        callable: see `bit_speech.data.audio_features`.
    """
    return LogMelFeatures() if name == "log_mel" else SpeechModelFeatures(name, layer)


def read_windows(arguments: Any) -> Recordings:
    """Windows of every participant with their targets, and how those were made.

    Args:
        arguments: settings of `examples/pretrain_ieeg_audio.py`.

    Returns:
        [`Recordings`]: of all participants.

    Raises:
        ValueError: if segments or frames cannot be used.
    """
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
    """A further target of a simulated patient: what a very good speech model might hear, frames, or other sound.

    Args:
        patient (`SimulatedPatient`): who.
        windows (`WindowSet`): all windows of the patient.
        settings (`dict`): `audio_features` (and `audio_layer`), or `frames` and `rate_hz`.

    Returns:
        `np.ndarray` of shape `(N, D)`: in the order of the windows.
    """
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
    """The windows of a split that were heard in one of the conditions.

    Args:
        windows (`WindowSet`): of one participant.
        split (`str`): `train`, `validation` or `test`.
        conditions (`str`): one, or several such as `ambient+clean`.

    Returns:
        `WindowSet`: these windows.

    Raises:
        ValueError: if there is none.
    """
    part = windows.where(split=split)
    kept = np.isin(part.condition, conditions.split("+"))
    if not kept.any():
        raise ValueError(f"{part.participant[0]} has no window for {split} with the condition {conditions!r}")
    return part.select(kept)


def build(arguments: Any, sets: list[WindowSet], data: Recordings) -> tuple[Any, Any]:
    """Model and processor, new or pretrained. The statistics of audio are always those of pretraining.

    Args:
        arguments: settings of `examples/pretrain_ieeg_audio.py`.
        sets (`list[WindowSet]`): the training windows of every participant.
        data ([`Recordings`]): targets and places.

    Returns:
        `tuple`: [`IEEGAudioForRetrieval`] and [`IEEGAudioProcessor`].

    Raises:
        ValueError: if places are missing that the read-in needs, or targets differ from those of pretraining.
    """
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


def places_of(arguments: Any, data: Recordings) -> dict[str, Any]:
    """Positions from the segments and regions from a file, as the feature extractor takes them.

    Args:
        arguments: settings of `examples/pretrain_ieeg_audio.py`.
        data ([`Recordings`]): channels and positions.

    Returns:
        `dict`: `channel_positions`, `channel_regions` and `regions`.

    Raises:
        ValueError: if the file names someone who is not there.
    """
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
    """A pretrained model; further targets may be left out, but not added or changed.

    Args:
        folder (`str`): where the model lies.
        target_sizes (`dict[str, int]`): further targets of the windows.

    Returns:
        `tuple`: model and processor.

    Raises:
        ValueError: if the model looks for other targets.
    """
    config = IEEGAudioConfig.from_pretrained(folder)
    processor = IEEGAudioProcessor.from_pretrained(folder)
    if target_sizes and target_sizes != config.extra_targets:
        raise ValueError(f"{folder} looks for {config.extra_targets}, --extra_targets give {target_sizes}")
    if not target_sizes and config.extra_targets:
        size = config.embedding_size
        processor.target_mean, processor.target_sd = processor.target_mean[:size], processor.target_sd[:size]
        config.extra_targets, config.target_weights = {}, {}
    return IEEGAudioForRetrieval.from_pretrained(folder, config=config), processor
