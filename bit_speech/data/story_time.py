"""The clocks of a story in the scanner: when volumes were taken, and how features come to that rate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def scanner_times(num_trs: int, tr_s: float = 2.0, first_s: float = -10.0) -> np.ndarray:
    """Say when each volume began, in seconds from the first sample of the story.

    Args:
        num_trs (`int`): volumes R.
        tr_s (`float`): seconds from one volume to the next.
        first_s (`float`): start of the first volume; scans of ds003020 begin 10 s before the sound.

    Returns:
        `np.ndarray` of shape `(R,)`: seconds.

    Raises:
        ValueError: if there is no volume or no time between them.

    Example:
        >>> scanner_times(3).tolist()
        [-10.0, -8.0, -6.0]
    """
    if num_trs < 1 or tr_s <= 0:
        raise ValueError(f"num_trs is {num_trs} and tr_s {tr_s}; both must be positive")
    return first_s + tr_s * np.arange(num_trs, dtype=np.float64)


def trim(values: np.ndarray, start_trs: int = 10, end_trs: int = 5) -> np.ndarray:
    """Leave out the first and last volumes, where the scanner settles and stories have begun or ended.

    Args:
        values (`np.ndarray` of shape `(R, ...)`): one row per TR.
        start_trs (`int`): rows to leave out at the start; 10 in ds003020, 50 for its test story when scoring.
        end_trs (`int`): rows to leave out at the end.

    Returns:
        `np.ndarray`: a view of what is left.

    Raises:
        ValueError: if nothing would be left.
    """
    if start_trs < 0 or end_trs < 0 or start_trs + end_trs >= len(values):
        raise ValueError(f"cannot take {start_trs} and {end_trs} TRs from the ends of {len(values)}")
    return values[start_trs : len(values) - end_trs]


def lanczos_resample(
    values: np.ndarray,
    times_s: np.ndarray,
    new_times_s: np.ndarray,
    lobes: int = 3,
    cutoff_hz: float | None = None,
    normalized: bool = False,
) -> np.ndarray:
    """Bring features to the times of the volumes with a low-pass filter of finite length.

    Args:
        values (`np.ndarray` of shape `(N, F)`): features at `times_s`.
        times_s (`np.ndarray` of shape `(N,)`): increasing, seconds.
        new_times_s (`np.ndarray` of shape `(R,)`): where features are wanted.
        lobes (`int`): half-width of the kernel in periods of the cutoff.
        cutoff_hz (`float`, *optional*): default one over the mean distance of `new_times_s`.
        normalized (`bool`): divide by the sum of the kernel's weights, so that constants stay what they are. The
            published code does not, which z-scoring afterwards mostly hides; events (words) want the sum.

    Returns:
        `np.ndarray` of shape `(R, F)`.

    Raises:
        ValueError: if shapes do not fit or times do not increase.

    Example:
        >>> times = np.arange(0, 20, 0.1)
        >>> slow = lanczos_resample(np.sin(times / 5)[:, None], times, np.arange(6, 14, 2.0), normalized=True)
        >>> bool(np.abs(slow[:, 0] - np.sin(np.arange(6, 14, 2.0) / 5)).max() < 0.02)
        True
    """
    if values.ndim != 2 or len(values) != len(times_s):
        raise ValueError(f"values have shape {values.shape} for {len(times_s)} times; expected (times, features)")
    if np.any(np.diff(times_s) < 0):
        raise ValueError("times_s must not decrease; sort the features by time")
    if cutoff_hz is None:
        if len(new_times_s) < 2:
            raise ValueError("one new time has no rate: give cutoff_hz")
        cutoff_hz = 1.0 / float(np.mean(np.diff(new_times_s)))
    reach = lobes / cutoff_hz
    starts = np.searchsorted(times_s, new_times_s - reach, side="left")
    stops = np.searchsorted(times_s, new_times_s + reach, side="right")
    found = np.zeros((len(new_times_s), values.shape[1]), dtype=np.result_type(values.dtype, np.float32))
    for row, (start, stop) in enumerate(zip(starts, stops)):
        distance = (new_times_s[row] - times_s[start:stop]) * cutoff_hz
        weights = np.sinc(distance) * np.sinc(distance / lobes)
        total = weights.sum()
        if normalized and abs(total) > 1e-9:
            weights = weights / total
        found[row] = weights @ values[start:stop]
    return found


def make_delays(features: np.ndarray, delays: Sequence[int] = (1, 2, 3, 4)) -> np.ndarray:
    """Lay earlier features beside each other, so that a linear model can learn the haemodynamic response.

    Args:
        features (`np.ndarray` of shape `(R, F)`): one row per TR.
        delays (sequence of `int`): TRs; 1 to 4 are 2 to 8 s. Negative delays look ahead.

    Returns:
        `np.ndarray` of shape `(R, F * len(delays))`: zeros where a story has not begun (or has ended).

    Example:
        >>> make_delays(np.array([[1.0], [2.0], [3.0]]), (0, 1)).tolist()
        [[1.0, 0.0], [2.0, 1.0], [3.0, 2.0]]
    """
    rows, columns = features.shape
    found = np.zeros((rows, len(delays), columns), dtype=features.dtype)
    for position, delay in enumerate(delays):
        if abs(delay) >= rows:
            continue
        if delay >= 0:
            found[delay:, position] = features[: rows - delay]
        else:
            found[:delay, position] = features[-delay:]
    return found.reshape(rows, -1)


def zscore(values: np.ndarray) -> np.ndarray:
    """Give every column zero mean and unit variance over the rows of one story.

    Args:
        values (`np.ndarray` of shape `(R, F)`): features or responses of one story.

    Returns:
        `np.ndarray` of shape `(R, F)`: columns that do not change become zero.

    Example:
        >>> zscore(np.array([[1.0, 5.0], [3.0, 5.0]])).tolist()
        [[-1.0, 0.0], [1.0, 0.0]]
    """
    centred = values - values.mean(axis=0)
    scale = centred.std(axis=0)
    # What rounding leaves of a constant must not be blown up to unit variance.
    alive = scale > 1e-6 * np.maximum(np.abs(values).max(axis=0), 1e-12)
    return np.divide(centred, scale, out=np.zeros_like(centred), where=alive)
