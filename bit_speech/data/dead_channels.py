"""Dead channels: which channels of a session recorded nothing, and the rule that a corpus applies to them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from bit_speech.files import write_json

DEAD_CHANNELS_NAME = "dead_channels.json"
MAX_DEAD_CHANNELS = 2


def find_dead_channels(arrays: Iterable[np.ndarray]) -> list[int]:
    """Find the channels that never change.

    Args:
        arrays (`Iterable[np.ndarray]` of shape `(T, C)`): all trials of one session.

    Returns:
        `list[int]`: indices of the dead channels, ascending.

    Raises:
        ValueError: when there is no array.

    Note:
        The published rule names no criterion. "Holds one value throughout" needs no threshold, and serves counts (never
        a spike) and power (a disconnected input) alike.

    Example:
        >>> find_dead_channels([np.array([[0, 1], [0, 2]]), np.array([[0, 2]])])
        [0]
    """
    low = high = None
    for array in arrays:
        least, most = array.min(axis=0), array.max(axis=0)
        low = least if low is None else np.minimum(low, least)
        high = most if high is None else np.maximum(high, most)
    if low is None or high is None:
        raise ValueError("a session without trials has no dead channels to find")
    return [int(channel) for channel in np.flatnonzero(low == high)]


def repair_dead_channels(
    features: np.ndarray, dead: Sequence[int], feature_kinds: Sequence[str], max_dead: int = MAX_DEAD_CHANNELS
) -> np.ndarray | None:
    """Apply the rule: few dead channels are filled in, a session with many is left out.

    Args:
        features (`np.ndarray` of shape `(T, C)`): one trial.
        dead (`list[int]`): dead channels of its session, from [`find_dead_channels`].
        feature_kinds (`list[str]`): kind of every channel.
        max_dead (`int`, defaults to 2): the most dead channels that a session may have.

    Returns:
        `np.ndarray` of shape `(T, C)`, float32: a dead channel holds, bin by bin, the mean over the live channels of
        its kind. The input itself when nothing is dead. None when the session is to be left out.

    Raises:
        ValueError: when a kind has no live channel, or the names do not fit the channels.

    Note:
        arXiv 2511.21740, appendix: fewer than 2 dead channels are interpolated with the mean, more than 2 exclude the
        recording. Exactly 2 is open there; here it is still repaired. A filled-in channel does not hold whole counts.
        The rule is for threshold crossings: where units were sorted by hand, an electrode without a unit is not broken.

    Example:
        >>> repair_dead_channels(np.array([[4.0, 0.0, 2.0]], np.float32), [1], ["threshold_crossings"] * 3).tolist()
        [[4.0, 3.0, 2.0]]
    """
    if len(feature_kinds) != features.shape[1]:
        raise ValueError(f"there are {len(feature_kinds)} kinds for {features.shape[1]} channels")
    if len(dead) > max_dead:
        return None
    if not len(dead):
        return features
    repaired = features.astype(np.float32)
    kinds = np.asarray(feature_kinds)
    alive = np.ones(len(kinds), dtype=bool)
    alive[list(dead)] = False
    for kind in sorted({str(kinds[channel]) for channel in dead}):
        if not np.any(alive & (kinds == kind)):
            raise ValueError(f"every channel of kind {kind!r} is dead: leave the session out")
        repaired[:, ~alive & (kinds == kind)] = features[:, alive & (kinds == kind)].mean(axis=1, keepdims=True)
    return repaired


def record_dead_channels(folder: str | os.PathLike[str]) -> dict[str, list[int]]:
    """Find the dead channels of every session of a converted dataset, and write them beside it.

    Args:
        folder (`str`): what a converter wrote. `dead_channels.json` is written there.

    Returns:
        `dict[str, list[int]]`: session -> dead channels.

    Raises:
        FileNotFoundError: when the folder holds no trials.
    """
    shards: dict[str, list[Path]] = {}
    for path in sorted((Path(folder) / "data").glob("*.parquet")):
        session = pq.ParquetFile(path).read_row_group(0, columns=["session_id"])["session_id"][0].as_py()
        shards.setdefault(session, []).append(path)
    if not shards:
        raise FileNotFoundError(f"{str(folder)!r} holds no data/*.parquet: it is not the output of a converter")
    dead = {
        session: find_dead_channels(array for path in paths for array in _features(path))
        for session, paths in shards.items()
    }
    write_json(Path(folder) / DEAD_CHANNELS_NAME, {"criterion": "one value throughout the session", "sessions": dead})
    return dead


def _features(path: Path) -> Iterator[np.ndarray]:
    """All bins of a shard, a row group at a time."""
    file = pq.ParquetFile(path)
    for group in range(file.num_row_groups):
        for chunk in file.read_row_group(group, columns=["features"])["features"].chunks:
            # The features are lists of lists, with or without the type that `datasets` gives them.
            bins = getattr(chunk, "storage", chunk).flatten()
            yield bins.flatten().to_numpy().reshape(len(bins), -1)
