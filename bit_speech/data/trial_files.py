"""Files that hold a trial or a few, as people save them: array and facts, whatever they are called."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.recordings import NwbRecording, Recording, UnknownName, open_recording

ENDINGS: dict[str, str] = {".npz": "npz", ".h5": "hdf5", ".hdf5": "hdf5", ".nwb": "nwb"}
# What the features are called: here, in many laboratories, and in the files of Brain-to-Text '25.
FEATURE_NAMES: tuple[str, ...] = ("features", "neural", "input_features", "neural_features")
_NUMBERS = {
    "block_index": ("block_index", "block_num", "block"),
    "trial_index": ("trial_index", "trial_num", "trial"),
}
_WORDS = {
    "participant_id": ("participant_id", "participant"),
    "session_id": ("session_id", "session"),
    "text": ("text", "sentence", "sentence_label"),
}
_LABELS = ("feature_kinds", "channel_areas")
HOW_TO_SAVE = (
    "Copy it again, or save it with numpy.savez('trial.npz', features=array): one row per bin, one column per channel"
)


def read_trial_file(path: str | os.PathLike[str], field: str | None = None) -> Iterator[dict[str, Any]]:
    """Read the trials of a file.

    Args:
        path (`str`): `.npy`: the features alone. `.npz`: features, and perhaps `participant_id`, `session_id`,
            `block_index`, `trial_index`, `text`, `feature_kinds` and `channel_areas` (`session`, `block`, `sentence`
            and the names of Brain-to-Text '25 are understood too). `.h5`, `.hdf5`: the same as datasets or attributes,
            of the file or, with many trials, of its groups. `.nwb`: a time series and the columns of one trial.
        field (`str`, *optional*): what the file calls the features; `features`, `neural`, `input_features` or
            `neural_features` when left out.

    Yields:
        `dict`: `features`, float32 of shape `(T, C)`, and of the columns of a `Trial` those that the file knows.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is of another format or damaged, has no such array, or holds something else than numbers.
            Nothing is unpickled.
        ImportError: for NWB without pynwb.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no recording {path}")
    ending = path.suffix.lower()
    if ending == ".npy":
        try:
            yield {"features": _numbers(np.load(path, allow_pickle=False))}
        except (ValueError, EOFError) as error:
            raise ValueError(f"{path} cannot be read: save it again with np.save(path, features)") from error
        return
    if ending not in ENDINGS:
        raise ValueError(
            f"{path} is no .npy, {', '.join(ENDINGS)} file; `bit-speech convert participant` reads recordings of many "
            "trials"
        )
    names = FEATURE_NAMES if field is None else (field,)
    try:
        with open_recording(path, ENDINGS[ending]) as recording:
            yield from _trials(recording, names)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} cannot be read as {ending[1:]}: {error}. {HOW_TO_SAVE}") from error


def _trials(recording: Recording, names: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    found = _trial(recording, names)
    if found is not None:
        if isinstance(recording, NwbRecording) and recording.num_trials > 1:
            raise ValueError(
                f"it holds {recording.num_trials} trials in one recording; cut it with `bit-speech convert participant`"
            )
        yield found
        return
    try:
        groups = list(recording.groups())
    except ValueError:  # a format without groups
        groups = []
    count = 0
    for _, group in groups:
        found = _trial(group, names)
        if found is not None:
            count += 1
            yield found
    if not count:
        wanted = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
        raise ValueError(f"it has no array called {wanted}, so give the name that it has as `field`")


def _trial(recording: Recording, names: tuple[str, ...]) -> dict[str, Any] | None:
    values = _first(recording, names)
    if values is None:
        return None
    trial: dict[str, Any] = {"features": _numbers(values)}
    for column, others in _WORDS.items():
        trial[column] = _word(_first(recording, others))
    for column, others in _NUMBERS.items():
        value = _word(_first(recording, others))
        trial[column] = int(value) if value is not None and value.lstrip("-").isdigit() else None
    for column in _LABELS:
        value = _first(recording, (column,))
        trial[column] = None if value is None else [_word(label) for label in np.asarray(value).ravel()]
    return {column: value for column, value in trial.items() if value is not None}


def _numbers(values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise ValueError(f"the features are {array.dtype} values, not numbers")
    with np.errstate(over="ignore"):
        return array.astype(np.float32)


def _first(recording: Recording, names: tuple[str, ...]) -> Any:
    """What the first name that is there stands for; None when none is."""
    for name in names:
        try:
            return recording.get(name)
        except UnknownName:
            continue
    return None


def _word(value: Any) -> str | None:
    """A single value as text; None when there is none, or several."""
    if value is None:
        return None
    array = np.asarray(value)
    if array.size != 1:
        return None
    value = array.ravel()[0]
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
