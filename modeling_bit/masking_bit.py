"""Time masks over patches, for supervised training and for self-supervision."""

from __future__ import annotations

import torch


def sample_span_mask(
    lengths: torch.Tensor,
    num_frames: int,
    ratio: float,
    max_span: int,
    generator: torch.Generator | None = None,
) -> torch.Tensor:
    """Draw a mask of random spans for each trial, covering exactly the asked share of its real frames.

    Spans of uniformly drawn length 1 to `max_span` are collected until they cover `round(ratio * length)` frames (the
    last one is cut to fit). They are placed in random order between the unmasked frames, so they never overlap, on a
    ring of the trial's frames that is then turned by a random angle, so every frame is masked equally often.

    Args:
        lengths (`torch.Tensor` of shape `(B,)`): number of real frames of each trial.
        num_frames (`int`): number of frames P of the padded batch.
        ratio (`float`): share of the real frames to mask, in [0, 1].
        max_span (`int`): longest span, in frames.
        generator (`torch.Generator`, *optional*): source of randomness on the device of `lengths`; default torch's own.

    Returns:
        `torch.Tensor` of shape `(B, P)`, bool: True = masked. Padding is never masked.

    Raises:
        ValueError: if `ratio` is outside [0, 1] or `max_span` is below 1.

    Note:
        The released BIT code draws one span length for a whole batch and lets spans overlap, which masks about 40 %
        when 50 % is asked (Zhang, He et al. 2025, arXiv 2511.21740); here every trial draws its own spans and the
        realised share is the asked one.

    Example:
        ```python
        >>> mask = sample_span_mask(torch.tensor([10, 4]), num_frames=10, ratio=0.5, max_span=3)
        >>> mask.sum(dim=1).tolist(), bool(mask[1, 4:].any())
        ([5, 2], False)

        ```
    """
    if not 0.0 <= ratio <= 1.0:
        raise ValueError(f"`ratio` must be in [0, 1], got {ratio!r}.")
    if max_span < 1:
        raise ValueError(f"`max_span` must be at least 1 frame, got {max_span!r}.")
    device, batch = lengths.device, lengths.shape[0]
    real = lengths.clamp(max=num_frames)[:, None]
    wanted = torch.floor(ratio * real + 0.5).long()  # (B, 1)

    drawn = torch.rand(batch, num_frames, device=device, generator=generator)
    drawn = (drawn * max_span).long().clamp(max=max_span - 1) + 1
    before = drawn.cumsum(dim=1) - drawn
    spans = torch.minimum(drawn, (wanted - before).clamp(min=0))  # (B, P), zero once the spans cover enough
    frames = torch.arange(num_frames, device=device)
    singles = (frames < real - wanted).long()  # (B, P): the unmasked frames, one each

    items = torch.cat([spans, singles], dim=1)  # (B, 2P)
    order = torch.rand(items.shape, device=device, generator=generator).masked_fill(items == 0, 2.0).argsort(dim=1)
    ends = items.gather(1, order).cumsum(dim=1)
    turn = torch.rand(batch, 1, device=device, generator=generator) * real
    position = (frames + turn.long()) % real.clamp(min=1)
    item = torch.searchsorted(ends, position, right=True).clamp(max=items.shape[1] - 1)
    masked = order.gather(1, item) < num_frames
    return masked & (frames < real)
