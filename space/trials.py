"""Trials to decode: simulated ones that are always there, and files that visitors bring."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bit_speech.data import read_trial_file
from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from bit_speech.data.trial_files import ENDINGS
from bit_speech.sample_checkpoints import sample_names, sample_participant
from processing_bit.feature_extraction_bit import BITFeatureExtractor

MAX_SECONDS = 60.0
MAX_BYTES = 400_000_000
HOW_TO_SAVE = (
    "Save it with numpy.savez('trial.npz', features=array), one row per bin of 20 ms and one column per channel."
)


class UnreadableTrial(ValueError):
    """A file or a recording that cannot be decoded; the message tells a visitor why, and what to do."""


@dataclass(frozen=True)
class Trial:
    """One recording of an attempted sentence.

    Args:
        name (`str`): what the page calls it.
        features (`np.ndarray` of shape `(T, C)`): float32, raw, in bins of `bin_size_ms`.
        feature_kinds (`tuple[str, ...]`): kind of each channel.
        channel_areas (`tuple[str, ...]`, *optional*): brain area of each channel.
        participant_id (`str`, *optional*): whose recording it is.
        session_id (`str`, *optional*): session, if known.
        text (`str`, *optional*): the sentence that was attempted, if known.
        bin_size_ms (`float`): length of a bin in milliseconds.
        simulated (`bool`): made by the simulator, so no person was recorded.
    """

    name: str
    features: np.ndarray
    feature_kinds: tuple[str, ...]
    channel_areas: tuple[str, ...] | None = None
    participant_id: str | None = None
    session_id: str | None = None
    text: str | None = None
    bin_size_ms: float = 20.0
    simulated: bool = False

    @property
    def seconds(self) -> float:
        """Length in seconds (`float`)."""
        return len(self.features) * self.bin_size_ms / 1000

    def columns(self) -> dict[str, Any]:
        """Give what a processor reads.

        Returns:
            `dict`: features, participant, session and channels, as far as they are known; never the sentence.
        """
        known = {
            "features": self.features,
            "participant_id": self.participant_id,
            "session_id": self.session_id,
            "feature_kinds": list(self.feature_kinds),
            "channel_areas": None if self.channel_areas is None else list(self.channel_areas),
        }
        return {name: value for name, value in known.items() if value is not None}


def bundled_trials() -> list[Trial]:
    """Simulate the trials that the page offers.

    Returns:
        `list[Trial]`: held-out sentences of the participant that the models in the box were trained on: two of each
        session, two sentences in one recording of about ten seconds, and two of the few words that the end-to-end model
        in the box knows, when there is that model.
    """
    participant = sample_participant("sim-ctc")
    found = [trial for session in participant.sessions for trial in _first_trials(participant, session, 2)]
    long = [_simulated(participant, participant.trial(participant.sessions[0], 21, place)) for place in (7, 21)]
    both = replace(
        long[0],
        features=np.concatenate([one.features for one in long]),
        text=" ".join(one.text for one in long if one.text),
    )
    few = []
    if "sim-llm" in sample_names():
        speaker = sample_participant("sim-llm")
        few = [trial for session in speaker.sessions[:2] for trial in _first_trials(speaker, session, 1)]
    trials = [*found, both, *(replace(trial, name=", few words") for trial in few)]
    return [
        replace(trial, name=f"{number}: session {trial.session_id}, {trial.seconds:.1f} s{trial.name}")
        for number, trial in enumerate(trials, 1)
    ]


def _first_trials(participant: Any, session: str, count: int) -> list[Trial]:
    return [_simulated(participant, trial) for trial in islice(participant.trials("test", session), count)]


def _simulated(participant: Any, trial: Any) -> Trial:
    return Trial(
        name="",
        features=trial.features,
        feature_kinds=tuple(participant.feature_kinds),
        channel_areas=tuple(participant.channel_areas),
        participant_id=trial.participant_id,
        session_id=trial.session_id,
        text=trial.text,
        simulated=True,
    )


def read_trial(path: str | Path) -> Trial:
    """Read the trial of a file.

    Args:
        path (`str`): an NPZ, HDF5 or NWB file with an array of shape `(bins, channels)`, named `features`, `neural` or
            `input_features`, and perhaps `session`, `text` and `feature_kinds`. Of an HDF5 file whose groups are
            trials, the first is read.

    Returns:
        `Trial`: as it was recorded; [`check_trial`] says whether a model can read it.

    Raises:
        UnreadableTrial: when the file is of another format, damaged, too large, or has no such array.
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in ENDINGS:
        raise UnreadableTrial(
            f"{path.name} is a {ending or 'nameless kind of'} file; this page reads {', '.join(ENDINGS)}. {HOW_TO_SAVE}"
        )
    if path.stat().st_size == 0:
        raise UnreadableTrial(f"{path.name} is an empty file (0 bytes). Save the recording again and upload that file.")
    try:
        _refuse_surprises(path, ENDINGS[ending])
    except (OSError, zipfile.BadZipFile) as error:
        raise UnreadableTrial(f"{path.name} cannot be read as {ending[1:]}: {error}. {HOW_TO_SAVE}") from error
    try:
        row = next(read_trial_file(path))
    except ValueError as error:
        raise UnreadableTrial(f"{str(error).replace(str(path), path.name)}.") from error
    kept = {name: row.get(name) for name in ("participant_id", "session_id", "text")}
    return Trial(path.name, row["features"], tuple(row.get("feature_kinds", ())), **kept)


def _refuse_surprises(path: Path, file_format: str) -> None:
    """Files of strangers: nothing that unpacks to more than it looks, nothing that points at other files here."""
    size = 0
    if file_format == "npz":
        with zipfile.ZipFile(path) as archive:
            size = sum(entry.file_size for entry in archive.infolist())
    else:
        with h5py.File(path, "r") as file:

            def look(name: str, link: Any) -> str | None:
                nonlocal size
                if isinstance(link, h5py.ExternalLink):
                    return name
                item = file[name] if isinstance(link, h5py.HardLink) else None
                if isinstance(item, h5py.Dataset):
                    size += item.nbytes
                    return name if item.external or item.is_virtual else None
                return None

            elsewhere = file.visititems_links(look)
        if elsewhere is not None:
            raise UnreadableTrial(f"{path.name} keeps {elsewhere!r} in another file. Save all data in one file.")
    if size > MAX_BYTES:
        raise UnreadableTrial(
            f"{path.name} holds {size / 1e6:,.0f} MB of data; the most is {MAX_BYTES / 1e6:.0f} MB. Save one trial of "
            f"at most {MAX_SECONDS:.0f} s."
        )


def check_trial(trial: Trial, extractor: BITFeatureExtractor, min_bins: int) -> Trial:
    """Stop what a model cannot read.

    Args:
        trial (`Trial`): a recording.
        extractor (`BITFeatureExtractor`): the model's.
        min_bins (`int`): bins that make one frame.

    Returns:
        `Trial`: the same with its participant named; channels of unknown kind are taken for crossings first, then
        power, as the converters write them.

    Raises:
        UnreadableTrial: when it is empty, too short or too long, of another participant, has another number of
            channels, or NaN.
    """
    features, name = trial.features, trial.name
    if features.ndim != 2:
        raise UnreadableTrial(
            f"{name} has an array of shape {features.shape}; a trial has two axes: bins and channels."
        )
    bins, channels = features.shape
    if not features.size:
        raise UnreadableTrial(f"{name} is empty: {bins} bins of {channels} channels. Save the bins of one sentence.")
    participant = _participant(trial, extractor)
    if len(trial.feature_kinds) != channels:
        half = channels // 2 if channels % 2 == 0 else channels
        kinds = (THRESHOLD_CROSSINGS,) * half + (SPIKE_BAND_POWER,) * (channels - half)
        trial = replace(trial, feature_kinds=kinds)
    expected = extractor.participants[participant]
    read = extractor.select(features, trial.feature_kinds, trial.channel_areas).shape[1]
    if read != expected:
        turned = " It seems to be transposed: bins come first, so save array.T." if bins == expected else ""
        remedy = (
            turned or " Upload a recording of the participant that the model was trained on, with all its channels."
        )
        raise UnreadableTrial(f"{name} has {read} channels, but the model reads {expected}.{remedy}")
    if bins < min_bins:
        raise UnreadableTrial(
            f"{name} has {bins} bins, and the model needs at least {min_bins}. Save a whole sentence."
        )
    if trial.seconds > MAX_SECONDS:
        raise UnreadableTrial(
            f"{name} is {trial.seconds:.0f} s long; the most is {MAX_SECONDS:.0f} s. Cut it into sentences."
        )
    if not np.isfinite(features).all():
        place = np.argwhere(~np.isfinite(features))
        raise UnreadableTrial(
            f"{name} has {len(place)} values that are no numbers (NaN or infinite), the first at bin {place[0][0]}, "
            f"channel {place[0][1]}. Repair them, for example with the channel's mean."
        )
    return replace(trial, participant_id=participant)


def _participant(trial: Trial, extractor: BITFeatureExtractor) -> str:
    known = list(extractor.participants)
    if trial.participant_id in known:
        return trial.participant_id
    if trial.participant_id is not None:
        raise UnreadableTrial(
            f"{trial.name} is of participant {trial.participant_id!r}; the model knows {', '.join(known)}. Models read "
            "the participants that they were trained on."
        )
    if len(known) > 1:
        raise UnreadableTrial(
            f"{trial.name} does not say whose recording it is, and the model knows {', '.join(known)}. Save "
            "participant_id in the file."
        )
    return known[0]
