"""Contrastive losses between brain and audio vectors."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def cosine_similarities(brain: torch.Tensor, audio: torch.Tensor) -> torch.Tensor:
    """Cosine of every brain vector with every audio vector, in float32.

    Args:
        brain (`torch.Tensor` of shape `(B, D)`): predicted vectors.
        audio (`torch.Tensor` of shape `(K, D)`): candidates.

    Returns:
        `torch.Tensor` of shape `(B, K)`: cosines; 0 where a vector is zero.

    Raises:
        ValueError: if the shapes do not fit.

    Example:
        ```python
        >>> cosine_similarities(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]]))
        tensor([[1., 0.]])

        ```
    """
    if brain.dim() != 2 or audio.dim() != 2 or brain.shape[1] != audio.shape[1]:
        raise ValueError(
            f"Vectors must be (B, D) and (K, D), got {tuple(brain.shape)} and {tuple(audio.shape)}: `labels` need the "
            "model's embedding_size."
        )
    return F.normalize(brain.float(), dim=1) @ F.normalize(audio.float(), dim=1).T


def clip_loss(scores: torch.Tensor, symmetric: bool = False) -> torch.Tensor:
    """Cross-entropy of finding the right audio among the candidates of the batch.

    Args:
        scores (`torch.Tensor` of shape `(B, K)`): similarities times the temperature factor; candidate i belongs to
            window i, further candidates (K > B) are negatives only.
        symmetric (`bool`, defaults to `False`): average with the loss of finding the right window for each audio.

    Returns:
        `torch.Tensor`: scalar.

    Raises:
        ValueError: if there are fewer candidates than windows, or `symmetric` with K > B.

    Note:
        Radford et al. 2021, arXiv 2103.00020; the paper of this model uses one direction.

    Example:
        ```python
        >>> round(float(clip_loss(torch.zeros(4, 4))), 4)  # log 4: a guess
        1.3863

        ```
    """
    windows, candidates = scores.shape
    if candidates < windows or (symmetric and candidates != windows):
        raise ValueError(
            f"{windows} windows and {candidates} candidates: give each window its own, and no others if symmetric."
        )
    target = torch.arange(windows, device=scores.device)
    loss = F.cross_entropy(scores, target)
    return (loss + F.cross_entropy(scores.T, target)) / 2 if symmetric else loss


def duplicate_positives(audio: torch.Tensor, threshold: float) -> torch.Tensor:
    """Which candidates are the same sound.

    Args:
        audio (`torch.Tensor` of shape `(B, D)`): audio vectors.
        threshold (`float`): cosine from which on two are the same.

    Returns:
        `torch.Tensor` of shape `(B, B)`, bool: True on the diagonal, and for duplicates.

    Example:
        ```python
        >>> duplicate_positives(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]]), 0.999).int().tolist()
        [[1, 1, 0], [1, 1, 0], [0, 0, 1]]

        ```
    """
    same = cosine_similarities(audio, audio) >= threshold
    return same | torch.eye(len(audio), dtype=torch.bool, device=audio.device)


def siglip_loss(scores: torch.Tensor, positives: torch.Tensor) -> torch.Tensor:
    """Every pair judged by itself: the same sound, or not.

    Args:
        scores (`torch.Tensor` of shape `(B, B)`): similarities times the temperature factor, plus a bias.
        positives (`torch.Tensor` of shape `(B, B)`, bool): pairs that belong together.

    Returns:
        `torch.Tensor`: scalar, the sum over candidates averaged over windows.

    Note:
        Zhai et al. 2023, arXiv 2303.15343; with duplicates as further positives.

    Example:
        ```python
        >>> round(float(siglip_loss(torch.zeros(2, 2), torch.eye(2, dtype=torch.bool))), 4)  # 2 log 2
        1.3863

        ```
    """
    signs = torch.where(positives, 1.0, -1.0)
    return -F.logsigmoid(signs * scores).sum(dim=1).mean()
