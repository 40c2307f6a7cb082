"""Time masks over patches, for supervised training and for self-supervision."""

from __future__ import annotations

import torch


def sample_span_mask(
    lengths: torch.Tensor,
    num_frames: int,
    ratio: float,
    max_span: int,
    generator: torch.Generator | None = None,
    trial_seeds: torch.Tensor | None = None,
) -> torch.Tensor:
    """Draw a mask of random spans for each trial, covering the asked share of its real frames.

    Spans of uniformly drawn length 1 to `max_span` are collected until they cover `ratio * length` frames (the last one
    is cut to fit; a fraction of a frame is rounded up or down at random, so that the share is met on average for short
    trials too). They are placed in random order between the unmasked frames, so they never overlap, on a ring of the
    trial's frames that is then turned by a random angle, so every frame is masked equally often.

    Args:
        lengths (`torch.Tensor` of shape `(B,)`): number of real frames of each trial.
        num_frames (`int`): number of frames P of the padded batch.
        ratio (`float`): share of the real frames to mask, in [0, 1].
        max_span (`int`): longest span, in frames.
        generator (`torch.Generator`, *optional*): source of randomness on the device of `lengths`; default torch's own.
        trial_seeds (`torch.Tensor` of shape `(B,)`, int64, *optional*): instead of a generator, one seed for each
            trial. A trial's mask then depends on its seed and length alone: not on its batch, its padding or the
            device.

    Returns:
        `torch.Tensor` of shape `(B, P)`, bool: True = masked. Padding is never masked.

    Raises:
        ValueError: if `ratio` is outside [0, 1], `max_span` is below 1, or the seeds are not one for each trial.

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
    if trial_seeds is not None and trial_seeds.shape != lengths.shape:
        raise ValueError(
            f"`trial_seeds` has shape {tuple(trial_seeds.shape)} for {tuple(lengths.shape)} trials: give one each."
        )
    device, batch = lengths.device, lengths.shape[0]

    def draw(stream: int, count: int) -> torch.Tensor:
        if trial_seeds is not None:
            return _hashed_uniform(trial_seeds, stream, count)
        return torch.rand(batch, count, device=device, generator=generator)

    real = lengths.clamp(max=num_frames)[:, None]
    wanted = torch.minimum((ratio * real + draw(0, 1)).long(), real)  # (B, 1)

    drawn = (draw(1, num_frames) * max_span).long().clamp(max=max_span - 1) + 1
    before = drawn.cumsum(dim=1) - drawn
    spans = torch.minimum(drawn, (wanted - before).clamp(min=0))  # (B, P), zero once the spans cover enough
    frames = torch.arange(num_frames, device=device)
    singles = (frames < real - wanted).long()  # (B, P): the unmasked frames, one each

    items = torch.cat([spans, singles], dim=1)  # (B, 2P)
    keys = torch.cat([draw(2, num_frames), draw(3, num_frames)], dim=1)
    order = keys.masked_fill(items == 0, 2.0).argsort(dim=1)
    ends = items.gather(1, order).cumsum(dim=1)
    turn = draw(4, 1) * real
    position = (frames + turn.long()) % real.clamp(min=1)
    item = torch.searchsorted(ends, position, right=True).clamp(max=items.shape[1] - 1)
    masked = order.gather(1, item) < num_frames
    return masked & (frames < real)


def _hashed_uniform(seeds: torch.Tensor, stream: int, count: int) -> torch.Tensor:
    """Numbers in [0, 1) of shape `(B, count)`, a function of seed, stream and position.

    The mixer is that of SplitMix64 (Steele, Lea and Flood 2014, doi:10.1145/2660193.2660195).
    """
    position = torch.arange(count, device=seeds.device) + (stream << 32) + 1
    # Twice, so that the streams of neighbouring seeds are not shifted copies of each other.
    mixed = _mix(_mix(seeds.long())[:, None] + position * -7046029254386353131)
    return ((mixed >> 40) & 0xFFFFFF).float() / 2**24


def _mix(bits: torch.Tensor) -> torch.Tensor:
    # torch has no unsigned shift: the mask drops the copies of the sign.
    bits = (bits ^ ((bits >> 30) & (2**34 - 1))) * -4658895280553007687
    bits = (bits ^ ((bits >> 27) & (2**37 - 1))) * -7723592293110705685
    return bits ^ ((bits >> 31) & (2**33 - 1))
