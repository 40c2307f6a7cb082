"""Losses between predicted and measured BOLD."""

from __future__ import annotations

import torch
from torch import nn


def voxel_loss(
    predicted: torch.Tensor,
    labels: torch.Tensor,
    kind: str = "l2",
    voxel_weights: torch.Tensor | None = None,
    progress: float | torch.Tensor = 0.0,
) -> torch.Tensor:
    """Compare predicted with measured responses.

    Args:
        predicted (`torch.Tensor` of shape `(B, X)`): predictions of B TRs.
        labels (`torch.Tensor` of shape `(B, X)`): BOLD.
        kind (`str`): `"l2"` (mean square over voxels and TRs), `"correlation"` (1 - Pearson's r over the voxels of each
            TR), `"cosine_l2"` (1 - cosine over voxels + half the mean square), `"cosine_huber"` (1 - cosine + Huber
            loss with threshold 0.6) or `"annealed"` ((1 - progress) L2 + progress correlation).
        voxel_weights (`torch.Tensor` of shape `(X,)`, *optional*): not negative, such as noise ceilings; scaled to mean
            1. Every mean over voxels becomes a weighted one.
        progress (`float`): share of the training that is over, for `"annealed"`.

    Returns:
        `torch.Tensor`: a number.

    Raises:
        ValueError: if shapes differ or the kind is unknown.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520: L2 was best beyond six hours of data, correlation below. The paper's
        cosine + L2 and that of its code differ; both are here.

    Example:
        ```python
        >>> float(voxel_loss(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[2.0, 4.0, 6.0]]), "correlation"))
        0.0

        ```
    """
    if predicted.shape != labels.shape or predicted.ndim != 2:
        raise ValueError(
            f"`labels` has shape {tuple(labels.shape)}, predictions {tuple(predicted.shape)}: both must be (TRs, "
            "voxels)."
        )
    # The sums below are long: in half precision they would lose the small differences between good models.
    predicted, labels = predicted.float(), labels.float()
    weights = torch.ones_like(labels[0]) if voxel_weights is None else voxel_weights.to(labels)
    weights = weights / weights.mean().clamp_min(1e-12)

    def square() -> torch.Tensor:
        return ((predicted - labels).square() * weights).mean()

    def correlation() -> torch.Tensor:
        return (1.0 - _cosine(_centre(predicted, weights), _centre(labels, weights), weights)).mean()

    def cosine() -> torch.Tensor:
        return (1.0 - _cosine(predicted, labels, weights)).mean()

    if kind == "l2":
        return square()
    if kind == "correlation":
        return correlation()
    if kind == "cosine_l2":
        return cosine() + 0.5 * square()
    if kind == "cosine_huber":
        return cosine() + (nn.functional.huber_loss(predicted, labels, reduction="none", delta=0.6) * weights).mean()
    if kind == "annealed":
        return (1.0 - progress) * square() + progress * correlation()
    raise ValueError(f"`kind` is {kind!r}: choose l2, correlation, cosine_l2, cosine_huber or annealed.")


def _centre(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return values - (values * weights).mean(dim=1, keepdim=True)


def _cosine(first: torch.Tensor, second: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    product = (first * second * weights).sum(dim=1)
    sizes = (first.square() * weights).sum(dim=1) * (second.square() * weights).sum(dim=1)
    return product / sizes.clamp_min(1e-12).sqrt()
