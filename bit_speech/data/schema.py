"""The `Trial`: one row per attempted sentence or movement, the same columns whatever the source.

Converters write facts into these columns; normalising, smoothing and cutting are choices, and the processor makes them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from datasets import Array2D, Features, List, Value

from configuration_bit.phoneme_inventory_bit import PHONEMES, SIL_TOKEN

SPLITS: tuple[str, ...] = ("train", "validation", "test")
THRESHOLD_CROSSINGS: str = "threshold_crossings"
SPIKE_BAND_POWER: str = "spike_band_power"

# Column -> whether it may be null.
TRIAL_COLUMNS: dict[str, bool] = {
    "participant_id": False,
    "session_id": False,
    "block_index": False,
    "trial_index": False,
    "split": False,
    "features": False,
    "bin_size_ms": False,
    "feature_kinds": False,
    "channel_areas": False,
    "species": False,
    "task": False,
    "text": True,
    "phonemes": True,
    "source": False,
    "licence": False,
}

_TEXT_COLUMNS = ("participant_id", "session_id", "split", "species", "task", "source", "licence")
_KNOWN_PHONEMES = frozenset((*PHONEMES, SIL_TOKEN))


def trial_features(num_channels: int) -> Features:
    """Describe the columns of a dataset of trials.

    Args:
        num_channels (`int`): feature channels C of every trial. Trials with another number of channels belong in
            another dataset, because a column has one type.

    Returns:
        `datasets.Features`: the 15 columns of a trial; `features` is `Array2D((None, C), "float32")`.

    Raises:
        ValueError: when `num_channels` is not a positive integer.

    Example:
        >>> trial_features(512)["features"].shape
        (None, 512)
    """
    if isinstance(num_channels, bool) or not isinstance(num_channels, int) or num_channels < 1:
        raise ValueError(f"num_channels must be a positive integer, got {num_channels!r}")
    return Features(
        {
            "participant_id": Value("string"),
            "session_id": Value("string"),
            "block_index": Value("int32"),
            "trial_index": Value("int32"),
            "split": Value("string"),
            "features": Array2D((None, num_channels), "float32"),
            "bin_size_ms": Value("float32"),
            "feature_kinds": List(Value("string")),
            "channel_areas": List(Value("string")),
            "species": Value("string"),
            "task": Value("string"),
            "text": Value("string"),
            "phonemes": Value("string"),
            "source": Value("string"),
            "licence": Value("string"),
        }
    )


def trial_name(trial: Mapping[str, Any]) -> str:
    """Name a trial for a message.

    Args:
        trial (`dict`): a trial, complete or not.

    Returns:
        `str`: its session, block and trial.

    Example:
        >>> trial_name({"session_id": "t15.2023.08.11", "block_index": 2, "trial_index": 0})
        'session t15.2023.08.11, block 2, trial 0'
    """
    session, block, index = (trial.get(key, "?") for key in ("session_id", "block_index", "trial_index"))
    return f"session {session}, block {block}, trial {index}"


def validate_features(features: Any, num_channels: int | None, name: str) -> np.ndarray:
    """Check one array of features.

    Args:
        features (`np.ndarray` of shape `(T, C)`): float32, time first.
        num_channels (`int`, *optional*): the C that is expected; None accepts any.
        name (`str`): what to call the trial in a message, from [`trial_name`].

    Returns:
        `np.ndarray` of shape `(T, C)`: the array that came in.

    Raises:
        ValueError: when it is no array, not float32, not two-dimensional, without bins or channels, with another number
            of channels, or holds NaN or infinity.

    Example:
        >>> validate_features(np.zeros((3, 2), np.float32), 2, "trial 0").shape
        (3, 2)
    """
    if not isinstance(features, np.ndarray):
        raise ValueError(
            f"{name}: features must be a numpy array of shape (bins, channels), got {type(features).__name__}"
        )
    if features.dtype != np.float32:
        raise ValueError(f"{name}: features have dtype {features.dtype}; convert them with .astype('float32')")
    if features.ndim != 2:
        raise ValueError(f"{name}: features have shape {features.shape}; expected two dimensions (bins, channels)")
    if features.shape[0] == 0:
        raise ValueError(f"{name}: features have no time bins (shape {features.shape}); leave the trial out")
    if num_channels is not None and features.shape[1] != num_channels:
        transposed = " (is it transposed? time comes first)" if features.shape[0] == num_channels else ""
        raise ValueError(f"{name}: features have {features.shape[1]} channels, expected {num_channels}{transposed}")
    if features.shape[1] == 0:
        raise ValueError(f"{name}: features have no channels (shape {features.shape})")
    # The extremes are finite exactly when everything is (NaN wins in both), and they need no array of booleans.
    if not (math.isfinite(features.max()) and math.isfinite(features.min())):
        time_bin, channel = (int(i) for i in np.argwhere(~np.isfinite(features))[0])
        count = int(np.count_nonzero(~np.isfinite(features)))
        raise ValueError(
            f"{name}: features hold {count} NaN or infinite value(s), the first at bin {time_bin}, channel {channel} "
            f"({features[time_bin, channel]}); repair the recording or leave the trial out"
        )
    return features


def validate_trial(trial: Mapping[str, Any], num_channels: int | None = None, require_text: bool = False) -> None:
    """Check that a row is a trial, and say precisely what is wrong when it is not.

    Args:
        trial (`dict`): one row with the columns of [`trial_features`].
        num_channels (`int`, *optional*): the number of channels that is expected; default any.
        require_text (`bool`, defaults to False): refuse a trial whose `text` is null or empty (for labelled splits).

    Raises:
        ValueError: naming session, block and trial, the column, the value, and what was expected.

    Example:
        >>> try:
        ...     validate_trial({"session_id": "a.2024.01.01", "block_index": 1, "trial_index": 7})
        ... except ValueError as error:
        ...     print(str(error)[:69])
        session a.2024.01.01, block 1, trial 7: missing column(s) participant
    """
    name = trial_name(trial)
    missing = [column for column in TRIAL_COLUMNS if column not in trial]
    if missing:
        raise ValueError(f"{name}: missing column(s) {', '.join(missing)}")
    unknown = [column for column in trial if column not in TRIAL_COLUMNS]
    if unknown:
        raise ValueError(
            f"{name}: unknown column(s) {', '.join(map(str, unknown))}; a trial has {', '.join(TRIAL_COLUMNS)}"
        )
    for column in _TEXT_COLUMNS:
        if not isinstance(trial[column], str) or not trial[column].strip():
            raise ValueError(f"{name}: {column} must be a non-empty string, got {trial[column]!r}")
    if trial["split"] not in SPLITS:
        raise ValueError(f"{name}: split is {trial['split']!r}; expected one of {', '.join(SPLITS)}")
    for column in ("block_index", "trial_index"):
        value = trial[column]
        if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= int(value) < 2**31:
            raise ValueError(f"{name}: {column} must be a non-negative integer, got {value!r}")
    bin_size_ms = trial["bin_size_ms"]
    if not isinstance(bin_size_ms, int | float | np.floating | np.integer) or not 0 < float(bin_size_ms) < math.inf:
        raise ValueError(f"{name}: bin_size_ms must be a positive number of milliseconds, got {bin_size_ms!r}")
    features = validate_features(trial["features"], num_channels, name)
    for column in ("feature_kinds", "channel_areas"):
        _validate_channel_names(trial[column], column, features.shape[1], name)
    _validate_labels(trial, require_text, name)


def _validate_channel_names(names: Sequence[str], column: str, num_channels: int, trial: str) -> None:
    if isinstance(names, str) or len(names) != num_channels:
        got = repr(names) if isinstance(names, str) else f"{len(names)} names"
        raise ValueError(f"{trial}: {column} needs one name per channel ({num_channels}), got {got}")
    # Hundreds of names, but few that differ.
    wrong = {name for name in set(names) if not isinstance(name, str) or not name}
    if wrong:
        raise ValueError(
            f"{trial}: {column} holds {sorted(map(repr, wrong))[0]}; every name must be a non-empty string"
        )


def _validate_labels(trial: Mapping[str, Any], require_text: bool, name: str) -> None:
    text, phonemes = trial["text"], trial["phonemes"]
    if text is not None and (not isinstance(text, str) or not text.strip()):
        raise ValueError(f"{name}: text must be a non-empty string or null, got {text!r}")
    if text is None and require_text:
        raise ValueError(f"{name}: the text is missing, but split {trial['split']!r} needs labels")
    if phonemes is None:
        return
    if not isinstance(phonemes, str) or not phonemes.strip():
        raise ValueError(f"{name}: phonemes must be a string such as 'HH AH L OW SIL' or null, got {phonemes!r}")
    for phoneme in phonemes.split(" "):
        if phoneme not in _KNOWN_PHONEMES:
            raise ValueError(f"{name}: {phoneme!r} is no phoneme; expected ARPAbet without stress digits, and SIL")
