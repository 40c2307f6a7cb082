"""Spike times to counts in 20 ms bins: the edge rule, electrodes, re-binning, and cutting long recordings.

A bin that starts at s holds the spikes with s <= time < s + 20 ms. Recorded times are rounded (to a sample or a
millisecond), and so are sums of bin lengths, so a time within a microsecond below an edge counts as at the edge. A last
bin that is not complete is dropped. All units of an electrode, sorted or not, are added up: that is what crossed the
threshold there.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from bit_speech.data.schema import SPIKE_BAND_POWER

BIN_SIZE_S = 0.02
BIN_SIZE_MS = 20.0
EDGE_TOLERANCE_S = 1e-6


def whole_bins(start: float, stop: float) -> int:
    """Count the complete bins of a stretch of time.

    Args:
        start (`float`): seconds.
        stop (`float`): seconds.

    Returns:
        `int`: bins of 20 ms.

    Example:
        >>> whole_bins(0.1, 0.16), whole_bins(0.1, 0.159)
        (3, 2)
    """
    return max(0, int((stop - start + EDGE_TOLERANCE_S) / BIN_SIZE_S))


def count_spikes(channels: Sequence[np.ndarray], start: float, stop: float) -> np.ndarray:
    """Count spikes in bins.

    Args:
        channels (`list[np.ndarray]`): spike times of every channel, seconds, ascending.
        start (`float`): start of the first bin, seconds.
        stop (`float`): end of the stretch, seconds.

    Returns:
        `np.ndarray` of shape `(T, C)`: counts, float32.

    Example:
        >>> count_spikes([np.array([0.1, 0.119, 0.12])], 0.1, 0.14).tolist()
        [[2.0], [1.0]]
    """
    bins = whole_bins(start, stop)
    edges = start - EDGE_TOLERANCE_S + BIN_SIZE_S * np.arange(bins + 1)
    counts = np.empty((bins, len(channels)), dtype=np.float32)
    for channel, times in enumerate(channels):
        counts[:, channel] = np.diff(np.searchsorted(times, edges))
    return counts


def merge_units(units: Iterable[tuple[int, np.ndarray]], num_channels: int) -> list[np.ndarray]:
    """Put the spikes of all units of an electrode together.

    Args:
        units (`Iterable[tuple[int, np.ndarray]]`): channel and spike times (seconds, in any order) of every unit.
        num_channels (`int`): channels C.

    Returns:
        `list[np.ndarray]`: spike times of every channel, ascending; empty for an electrode without units.

    Raises:
        ValueError: for a channel that does not exist, or a time that is no number.

    Example:
        >>> [times.tolist() for times in merge_units([(1, np.array([2.0])), (1, np.array([1.0]))], 2)]
        [[], [1.0, 2.0]]
    """
    found: list[list[np.ndarray]] = [[] for _ in range(num_channels)]
    for channel, times in units:
        if not 0 <= channel < num_channels:
            raise ValueError(f"a unit is of channel {channel}, but there are {num_channels} channels (from 0)")
        times = np.asarray(times, dtype=np.float64).reshape(-1)
        if not np.all(np.isfinite(times)):
            raise ValueError(f"a unit of channel {channel} has a spike time that is no number")
        found[channel].append(times)
    # Sorted runs one after the other: the stable sort merges them.
    return [np.sort(np.concatenate(times), kind="stable") if times else np.empty(0) for times in found]


def whole_counts(values: np.ndarray, name: str) -> np.ndarray:
    """Check that what should be counts are counts.

    Args:
        values (`np.ndarray`): of any type; a float that is off by less than a thousandth is rounded.
        name (`str`): what to call them in a message.

    Returns:
        `np.ndarray`: whole numbers, float32.

    Raises:
        ValueError: for negative, fractional or missing values: rates, or features that were normalised.
    """
    values = np.asarray(values)
    if values.dtype.kind not in "buif":
        raise ValueError(f"{name} is {values.dtype}; expected counts")
    counts = np.rint(values.astype(np.float32))
    with np.errstate(invalid="ignore"):
        wrong = ~(np.abs(counts - values) < 1e-3) | (counts < 0)
    if np.any(wrong):
        raise ValueError(
            f"{name} holds {values[wrong][0]}, which is no count: the file has rates or normalised features instead"
        )
    return counts


def rebin(features: np.ndarray, feature_kinds: Sequence[str], factor: int) -> np.ndarray:
    """Make bins longer: counts are added up, power is averaged.

    Args:
        features (`np.ndarray` of shape `(T, C)`): short bins.
        feature_kinds (`list[str]`): kind of every channel.
        factor (`int`): short bins in a long one; a rest at the end is dropped.

    Returns:
        `np.ndarray` of shape `(T // factor, C)`: float32.

    Example:
        >>> kinds = ["threshold_crossings", "spike_band_power"]
        >>> rebin(np.array([[1.0, 1.0], [2.0, 2.0], [9.0, 9.0]]), kinds, 2).tolist()
        [[3.0, 1.5]]
    """
    bins = len(features) // factor
    longer = features[: bins * factor].reshape(bins, factor, features.shape[1]).sum(axis=1, dtype=np.float64)
    longer[:, np.asarray(feature_kinds) == SPIKE_BAND_POWER] /= factor
    return longer.astype(np.float32)


def rebin_factor(bin_size_s: float) -> int:
    """Tell how many bins of a source make one of ours.

    Args:
        bin_size_s (`float`): seconds.

    Returns:
        `int`: at least 1.

    Raises:
        ValueError: when 20 ms is not a multiple of the bin size.

    Example:
        >>> rebin_factor(0.01)
        2
    """
    factor = round(BIN_SIZE_S / bin_size_s) if bin_size_s > 0 else 0
    if factor < 1 or abs(factor * bin_size_s - BIN_SIZE_S) > EDGE_TOLERANCE_S:
        raise ValueError(f"its bins are {1000 * bin_size_s:g} ms; 20 ms is not a multiple of that")
    return factor


def cut(start: float, stop: float, segment_s: float, shortest_s: float = 1.0) -> list[tuple[float, float]]:
    """Cut a long stretch into segments that do not overlap.

    Args:
        start (`float`): seconds.
        stop (`float`): seconds.
        segment_s (`float`): length of a segment.
        shortest_s (`float`, defaults to 1): what remains at the end is dropped when it is shorter.

    Returns:
        `list[tuple[float, float]]`: start and stop of the segments; the stretch itself when it is no longer than one.

    Example:
        >>> cut(0.0, 45.5, 20.0)
        [(0.0, 20.0), (20.0, 40.0), (40.0, 45.5)]
    """
    if stop - start <= segment_s + EDGE_TOLERANCE_S:
        return [(start, stop)]
    length = BIN_SIZE_S * round(segment_s / BIN_SIZE_S)
    count = int(np.ceil((stop - start - EDGE_TOLERANCE_S) / length))
    pieces = [(start + i * length, min(start + (i + 1) * length, stop)) for i in range(count)]
    return [(first, last) for first, last in pieces if last - first >= shortest_s]


def join_touching(intervals: Sequence[tuple[float, float, str]]) -> list[tuple[float, float, str]]:
    """Join intervals that follow each other without a gap of a whole bin and have the same label.

    Args:
        intervals (`list[tuple[float, float, str]]`): start, stop and label, ascending.

    Returns:
        `list[tuple[float, float, str]]`: the joined ones.

    Example:
        >>> join_touching([(0.0, 0.6, "train"), (0.6, 1.2, "train"), (1.2, 1.8, "val")])
        [(0.0, 1.2, 'train'), (1.2, 1.8, 'val')]
    """
    joined: list[tuple[float, float, str]] = []
    for start, stop, label in intervals:
        if joined and label == joined[-1][2] and start - joined[-1][1] < BIN_SIZE_S - EDGE_TOLERANCE_S:
            joined[-1] = (joined[-1][0], stop, label)
        else:
            joined.append((start, stop, label))
    return joined


def active_stretches(channels: Sequence[np.ndarray], longest_pause_s: float = 1.0) -> list[tuple[float, float]]:
    """Find when a recording ran, in a file that does not say: from the first spike to the last, without pauses.

    Args:
        channels (`list[np.ndarray]`): spike times of every channel, seconds, ascending.
        longest_pause_s (`float`, defaults to 1): a longer time without a spike on any channel ends a stretch.

    Returns:
        `list[tuple[float, float]]`: start and stop, seconds.

    Example:
        >>> active_stretches([np.array([0.5, 1.0]), np.array([1.5, 9.0, 9.5])])
        [(0.5, 1.5), (9.0, 9.5)]
    """
    times = np.sort(np.concatenate([np.empty(0), *channels]), kind="stable")
    if not len(times):
        return []
    breaks = np.flatnonzero(np.diff(times) > longest_pause_s)
    starts, stops = [0, *(breaks + 1)], [*breaks, len(times) - 1]
    return [(float(times[first]), float(times[last])) for first, last in zip(starts, stops)]
