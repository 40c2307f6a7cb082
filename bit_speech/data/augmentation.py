"""Random changes to a training trial: noise, offsets, missing time, missing channels."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training trial, on its own and before padding; every part is off by default.

    Amplitudes are in the unit of the features they meet: standard deviations once features are z-scored.

    Args:
        white_noise_sd (`float`, defaults to 0.0): standard deviation of noise added to every value.
        constant_offset_sd (`float`, defaults to 0.0): standard deviation of an offset drawn once per channel and trial.
        time_mask_ratio (`float`, defaults to 0.0): share of the bins that is set to 0, in spans.
        time_mask_max_bins (`int`, defaults to 0): longest span of masked bins; lengths are uniform from 1 to this.
        random_cut_max_bins (`int`, defaults to 0): between 0 and this many bins are cut off the start.
        channel_dropout (`float`, defaults to 0.0): probability that a channel is set to 0 for the whole trial.
        noise_before_smoothing (`bool`, defaults to False): add noise and offset before smoothing instead of after it.

    Raises:
        ValueError: for a negative amount, a ratio outside [0, 1), or a mask ratio without a span length.

    Note:
        The Brain-to-Text '25 baseline (doi:10.1056/NEJMoa2314132) uses white noise 1.0, offsets 0.2 and a cut of 0-2
        bins, all before smoothing, and adds the noise to the padding too; here padding stays zero. Time masking with
        many long spans is from Feghhi et al. (arXiv:2507.02800); there each of a fixed number of masks may overlap
        others, here the masked share is exact.

    Example:
        >>> augment = Augmentation(time_mask_ratio=0.5, time_mask_max_bins=3)
        >>> masked = augment(np.ones((10, 2), np.float32), np.random.default_rng(0))
        >>> int((masked == 0).all(axis=1).sum())
        5
    """

    white_noise_sd: float = 0.0
    constant_offset_sd: float = 0.0
    time_mask_ratio: float = 0.0
    time_mask_max_bins: int = 0
    random_cut_max_bins: int = 0
    channel_dropout: float = 0.0
    noise_before_smoothing: bool = False

    def __post_init__(self) -> None:
        """Refuse amounts that make no sense."""
        for name in ("white_noise_sd", "constant_offset_sd", "time_mask_max_bins", "random_cut_max_bins"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} must be 0 or more, got {value!r}")
        for name in ("time_mask_ratio", "channel_dropout"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise ValueError(f"{name} must be in [0, 1), got {value!r}")
        if self.time_mask_ratio and not self.time_mask_max_bins:
            raise ValueError("time_mask_ratio needs time_mask_max_bins, the longest span of masked bins")

    def cut(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Cut a random number of bins off the start; at least one bin stays.

        Args:
            features (`np.ndarray` of shape `(T, C)`): a trial.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `np.ndarray` of shape `(T - cut, C)`: a view.
        """
        if not self.random_cut_max_bins:
            return features
        return features[min(int(rng.integers(self.random_cut_max_bins + 1)), len(features) - 1) :]

    def add_noise(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Add white noise and a constant offset per channel.

        Args:
            features (`np.ndarray` of shape `(T, C)`): a trial.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `np.ndarray` of shape `(T, C)`: a new array, or the trial itself when both amounts are 0.
        """
        if self.white_noise_sd:
            noise = rng.standard_normal(features.shape, dtype=np.float32)
            noise *= np.float32(self.white_noise_sd)
            features = np.add(features, noise, out=noise)
        if self.constant_offset_sd:
            offset = rng.standard_normal(features.shape[1], dtype=np.float32) * np.float32(self.constant_offset_sd)
            features = features + offset
        return features

    def mask(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Set spans of time, and whole channels, to 0 (the mean of z-scored features).

        Args:
            features (`np.ndarray` of shape `(T, C)`): a trial.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `np.ndarray` of shape `(T, C)`: a new array, or the trial itself when both amounts are 0. Exactly
                `round(time_mask_ratio * T)` bins are masked.
        """
        if not self.time_mask_ratio and not self.channel_dropout:
            return features
        features = features.copy()
        features[self._masked_bins(len(features), rng)] = 0.0
        if self.channel_dropout:
            features[:, rng.random(features.shape[1]) < self.channel_dropout] = 0.0
        return features

    def _masked_bins(self, num_bins: int, rng: np.random.Generator) -> np.ndarray:
        masked = np.zeros(num_bins, dtype=bool)
        wanted = round(self.time_mask_ratio * num_bins)
        while (lacking := wanted - int(np.count_nonzero(masked))) > 0:
            length = min(int(rng.integers(1, self.time_mask_max_bins + 1)), lacking)
            start = int(rng.integers(num_bins - length + 1))
            masked[start : start + length] = True
        return masked

    def __call__(self, features: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Apply everything at once, for features that need no smoothing in between.

        Args:
            features (`np.ndarray` of shape `(T, C)`): a normalised trial, float32. It is not changed.
            rng (`np.random.Generator`): source of randomness; the same state gives the same result.

        Returns:
            `np.ndarray` of shape `(T', C)`: the changed trial, float32.
        """
        return self.mask(self.add_noise(self.cut(features, rng), rng), rng)
