"""Losses of the end-to-end decoder."""

from __future__ import annotations

import torch
from torch.nn import functional as F


def token_loss(logits: torch.Tensor, labels: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy of the next token, in float32.

    Args:
        logits (`torch.Tensor` of shape `(B, N, V)`): scores; those at a position predict the next one.
        labels (`torch.Tensor` of shape `(B, N)`): tokens, -100 where nothing is to be predicted.
        reduction (`str`): `"mean"` over all predicted tokens, or `"sum"`.

    Returns:
        `torch.Tensor`: scalar.
    """
    return F.cross_entropy(
        logits[:, :-1].flatten(0, 1).float(), labels[:, 1:].flatten(), ignore_index=-100, reduction=reduction
    )


def masked_mean(vectors: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the places that a mask marks.

    Args:
        vectors (`torch.Tensor` of shape `(B, N, D)`): vectors; whatever an unmarked place holds has no part.
        mask (`torch.Tensor` of shape `(B, N)`, bool): True = counts.

    Returns:
        `torch.Tensor` of shape `(B, D)`, float32; zeros where nothing is marked.

    Example:
        ```python
        >>> masked_mean(torch.tensor([[[1.0], [3.0], [99.0]]]), torch.tensor([[True, True, False]])).tolist()
        [[2.0]]

        ```
    """
    total = vectors.float().masked_fill(~mask[..., None], 0.0).sum(dim=1)
    return total / mask.sum(dim=1, keepdim=True).clamp(min=1)


def contrastive_loss(
    neural: torch.Tensor,
    text: torch.Tensor,
    scale: torch.Tensor,
    sentences: torch.Tensor | None = None,
    more_neural: torch.Tensor | None = None,
    more_text: torch.Tensor | None = None,
    more_sentences: torch.Tensor | None = None,
) -> torch.Tensor:
    """Symmetric InfoNCE between the neural and the text vector of each trial.

    Args:
        neural (`torch.Tensor` of shape `(B, A)`): neural vectors, of any length.
        text (`torch.Tensor` of shape `(B, A)`): text vectors of the same trials.
        scale (`torch.Tensor`): scalar, one over the temperature.
        sentences (`torch.Tensor` of shape `(B,)`, *optional*): a number for each sentence. Trials of the same sentence
            are not contrasted with each other.
        more_neural (`torch.Tensor` of shape `(Q, A)`, *optional*): further negatives, such as those of past batches.
        more_text (`torch.Tensor` of shape `(Q, A)`, *optional*): the same for text.
        more_sentences (`torch.Tensor` of shape `(Q,)`, *optional*): their sentences.

    Returns:
        `torch.Tensor`: scalar, the mean over trials and both directions.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740: the batch gives the negatives. Prompts repeat in the benchmarks, so a
        batch may hold one sentence twice; there its second trial would be a wrong negative.

    Example:
        ```python
        >>> same = torch.eye(4)
        >>> bool(contrastive_loss(same, same, torch.tensor(10.0)) < 0.01)
        True

        ```
    """
    neural, text = F.normalize(neural.float(), dim=-1), F.normalize(text.float(), dim=-1)
    rows = torch.arange(len(neural), device=neural.device)
    total = neural.new_zeros(())
    for anchors, others, more in ((neural, text, more_text), (text, neural, more_neural)):
        if more is not None:
            others = torch.cat([others, F.normalize(more.float(), dim=-1)])
        scores = scale.float() * anchors @ others.T  # (B, B + Q)
        if sentences is not None:
            known = sentences if more is None else torch.cat([sentences, more_sentences])
            same = sentences[:, None] == known[None]
            same[rows, rows] = False
            scores = scores.masked_fill(same, float("-inf"))
        total = total + F.cross_entropy(scores, rows)
    return total / 2
