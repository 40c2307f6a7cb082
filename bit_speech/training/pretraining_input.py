"""What the encoder sees in pretraining: smoothed and noisy values, with nothing of what is hidden."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch.nn import functional as F

_CHUNK = 64


def smooth_visible(features: torch.Tensor, visible: torch.Tensor, kernel: torch.Tensor, left: int) -> torch.Tensor:
    """Smooth trials over time; bins that are hidden or padding take no part.

    Args:
        features (`torch.Tensor` of shape `(B, T, C)`): trials.
        visible (`torch.Tensor` of shape `(B, T)`, bool): True = real bin that the encoder may see.
        kernel (`torch.Tensor` of shape `(K,)`): weights, from the earliest bin to the latest.
        left (`int`): how many of the weights are for bins before the smoothed one.

    Returns:
        `torch.Tensor` of shape `(B, T, C)`: weighted means of visible bins, 0 where no visible bin is in reach.

    Note:
        A product with a band matrix for each stretch of 64 bins: faster on the CPU than a convolution, which would need
        the channels before the bins.
    """
    width, bins = kernel.numel(), features.shape[1]
    band = features.new_zeros(_CHUNK, _CHUNK + width - 1)
    for row in range(_CHUNK):
        band[row, row : row + width] = kernel
    weights = visible.to(features.dtype)[..., None]
    around = (0, 0, left, width - 1 - left)
    values, weights = F.pad(features * weights, around), F.pad(weights, around)
    smoothed = torch.empty_like(features)
    for start in range(0, bins, _CHUNK):
        stop = min(start + _CHUNK, bins)
        part = band[: stop - start, : stop - start + width - 1]
        reach = slice(start, stop + width - 1)
        torch.div(part @ values[:, reach], (part @ weights[:, reach]).clamp(min=1e-6), out=smoothed[:, start:stop])
    return smoothed


@dataclass(frozen=True)
class PretrainingInput:
    """Turns raw z-scored values into what the encoder sees.

    Args:
        kernel (`torch.Tensor` of shape `(K,)`): smoothing weights, from the earliest bin to the latest.
        left (`int`): how many of them are for bins before the smoothed one.
        patch_size (`int`): bins in a patch.
        white_noise_sd (`float`): standard deviation of noise added to every value, in training.
        constant_offset_sd (`float`): standard deviation of an offset drawn once for each channel and trial.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740: Gaussian smoothing of 2 bins, then noise 0.2 and offsets 0.05, then
        masking; the target is neither smoothed nor noisy. There the smoothing carries hidden values into the visible
        patches beside them, from which part of the target could be computed back; here hidden bins take no part.
    """

    kernel: torch.Tensor
    left: int
    patch_size: int
    white_noise_sd: float = 0.0
    constant_offset_sd: float = 0.0

    def __call__(
        self, features: torch.Tensor, attention_mask: torch.Tensor, time_mask: torch.Tensor | None, training: bool
    ) -> torch.Tensor:
        """Smooth, and in training add noise.

        Args:
            features (`torch.Tensor` of shape `(B, T, C)`): raw z-scored values.
            attention_mask (`torch.Tensor` of shape `(B, T)`, bool): True = real bin.
            time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): True = hidden patch.
            training (`bool`): whether noise is added; it comes from torch's generator.

        Returns:
            `torch.Tensor` of shape `(B, T, C)`: a new tensor.
        """
        if self.kernel.numel() > 1:
            visible = attention_mask
            if time_mask is not None:
                hidden = time_mask.repeat_interleave(self.patch_size, dim=1)
                visible = visible & ~F.pad(hidden, (0, features.shape[1] - hidden.shape[1]))
            features = smooth_visible(features, visible, self.kernel.to(features), self.left)
        if training and self.white_noise_sd:
            features = torch.randn_like(features).mul_(self.white_noise_sd).add_(features)
        if training and self.constant_offset_sd:
            features = features + torch.randn_like(features[:, :1]) * self.constant_offset_sd
        return features
