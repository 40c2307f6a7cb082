"""How well any model could predict a voxel, judged by how well repeats of the same story agree."""

from __future__ import annotations

import numpy as np


def noise_ceiling(repeats: np.ndarray) -> np.ndarray:
    """Estimate the correlation that a perfect model would have with the mean of repeats.

    Args:
        repeats (`np.ndarray` of shape `(K, R, X)`): responses to K presentations of one story, in any unit.

    Returns:
        `np.ndarray` of shape `(X,)`: from 0 (the repeats share nothing) to 1.

    Raises:
        ValueError: if there are fewer than two repeats or TRs, or values that are not finite.

    Note:
        Schoppe et al. 2016, doi 10.3389/fncom.2016.00010. The signal power is `(K Var(mean) - TP) / (K - 1)`, with TP
        the mean power of single repeats; published code takes TP as 1, which is the same for z-scored repeats. For a
        signal-to-noise ratio s the ceiling is `1 / sqrt(1 + 1 / (K s))`.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> signal, noise = rng.normal(size=(2000, 1)), rng.normal(size=(5, 2000, 1))
        >>> round(float(noise_ceiling(signal + noise)[0]), 2), round((1 + 1 / 5) ** -0.5, 2)
        (0.91, 0.91)
    """
    if repeats.ndim != 3 or repeats.shape[0] < 2 or repeats.shape[1] < 2:
        raise ValueError(f"repeats have shape {repeats.shape}; expected (repeats, TRs, voxels) with at least 2 of each")
    number = repeats.shape[0]
    power_of_mean = repeats.mean(axis=0, dtype=np.float64).var(axis=0)
    power = np.mean([one.var(axis=0, dtype=np.float64) for one in repeats], axis=0)
    if not np.isfinite(power).all():
        voxel = int(np.flatnonzero(~np.isfinite(power))[0])
        raise ValueError(f"repeats hold NaN or infinity at voxel {voxel}; leave it out or repair it")
    signal = (number * power_of_mean - power) / (number - 1)
    found = np.zeros(repeats.shape[2])
    good = signal > 0
    found[good] = 1.0 / np.sqrt(1.0 + np.maximum(power[good] / signal[good] - 1.0, 0.0) / number)
    return found


def share_of_ceiling(correlations: np.ndarray, ceilings: np.ndarray, least_ceiling: float = 0.05) -> np.ndarray:
    """Divide correlations by their noise ceilings where these are large enough to divide by.

    Args:
        correlations (`np.ndarray` of shape `(X,)`): between prediction and mean of repeats.
        ceilings (`np.ndarray` of shape `(X,)`): from [`noise_ceiling`].
        least_ceiling (`float`): voxels at or below are left out. 0.05 is published; dividing by so little inflates
            noise, so report 0.1 or 0.2 and the plain correlation too.

    Returns:
        `np.ndarray` of shape `(X,)`: NaN where left out.

    Example:
        >>> share_of_ceiling(np.array([0.2, 0.1]), np.array([0.5, 0.01])).tolist()
        [0.4, nan]
    """
    kept = ceilings > least_ceiling
    return np.where(kept, correlations / np.where(kept, ceilings, 1.0), np.nan)
