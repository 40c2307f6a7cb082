"""From encoder frames to tokens that a language model reads, to phonemes, and to vectors that are compared."""

from __future__ import annotations

import math

import torch
from torch import nn

from configuration_bit.configuration_bit import BITConfig

from .layers_bit import Dropout, per_participant


def stack_frames(frames: torch.Tensor, frame_mask: torch.Tensor, stacking: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Join neighbouring frames to wider ones.

    Args:
        frames (`torch.Tensor` of shape `(B, P, D)`): encoder output, padded at the end.
        frame_mask (`torch.Tensor` of shape `(B, P)`, bool): True = real frame.
        stacking (`int`): frames that are joined.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: `(B, K, stacking * D)` and its mask `(B, K)`, K = P / stacking rounded up.
        What a trial's last frame lacks is filled with zeros, so that the end of a sentence is not lost.

    Example:
        ```python
        >>> frames, mask = stack_frames(torch.ones(1, 3, 4), torch.tensor([[True, True, True]]), 2)
        >>> frames.shape, frames[0, 1].tolist()
        (torch.Size([1, 2, 8]), [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0])

        ```
    """
    if stacking == 1:
        return frames, frame_mask
    batch, count, width = frames.shape
    missing = -count % stacking
    frames = nn.functional.pad(frames * frame_mask[..., None], (0, 0, 0, missing))
    frame_mask = nn.functional.pad(frame_mask, (0, missing))
    joined = frames.reshape(batch, (count + missing) // stacking, stacking * width)
    return joined, frame_mask.view(batch, -1, stacking)[..., 0]


class BITLinearProjector(nn.Module):
    """One linear map.

    Args:
        in_size (`int`): width of a frame.
        out_size (`int`): width of a token.
    """

    def __init__(self, in_size: int, out_size: int) -> None:
        super().__init__()
        self.linear = nn.Linear(in_size, out_size)

    def forward(self, frames: torch.Tensor, text_table: torch.Tensor | None = None) -> torch.Tensor:
        """Project frames.

        Args:
            frames (`torch.Tensor` of shape `(B, K, in_size)`): frames.
            text_table (`torch.Tensor`, *optional*): not used.

        Returns:
            `torch.Tensor` of shape `(B, K, out_size)`.
        """
        return self.linear(frames)


class BITMLPProjector(nn.Module):
    """Linear, ReLU, Linear: the paper's projector.

    Args:
        in_size (`int`): width of a frame.
        hidden_size (`int`): width in between.
        out_size (`int`): width of a token.
    """

    def __init__(self, in_size: int, hidden_size: int, out_size: int) -> None:
        super().__init__()
        self.linear_in = nn.Linear(in_size, hidden_size)
        self.linear_out = nn.Linear(hidden_size, out_size)

    def forward(self, frames: torch.Tensor, text_table: torch.Tensor | None = None) -> torch.Tensor:
        """Project frames.

        Args:
            frames (`torch.Tensor` of shape `(B, K, in_size)`): frames.
            text_table (`torch.Tensor`, *optional*): not used.

        Returns:
            `torch.Tensor` of shape `(B, K, out_size)`.
        """
        return self.linear_out(torch.relu(self.linear_in(frames)))


class BITCrossAttentionProjector(nn.Module):
    """Each neural token looks at the language model's token embeddings and takes a mixture of them along.

    Args:
        in_size (`int`): width of a frame.
        hidden_size (`int`): width of queries, keys and values (one head).
        out_size (`int`): width of a token.
        text_size (`int`): width of the language model's embeddings.
        dropout (`float`): on what was read.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740, Table 7: neural queries, text keys and values, layer norm and a linear
        map to 256, one head, a learned residual scale that starts at 0.5, dropout 0.1. The paper does not say which
        text it is, and at inference there is none: with the sentence as keys, training would read what inference must
        find. Here keys and values are all rows of the language model's embedding table, in training and at inference
        alike; they are read, not trained.
    """

    def __init__(self, in_size: int, hidden_size: int, out_size: int, text_size: int, dropout: float) -> None:
        super().__init__()
        self.neural_norm = nn.LayerNorm(in_size)
        self.text_norm = nn.LayerNorm(text_size)
        self.query = nn.Linear(in_size, hidden_size)
        # A bias would move all scores of a query alike, which softmax does not see.
        self.key = nn.Linear(text_size, hidden_size, bias=False)
        self.value = nn.Linear(text_size, hidden_size)
        self.residual_scale = nn.Parameter(torch.tensor([0.5]))  # sharding takes no scalars
        self.dropout = Dropout(dropout)
        self.output = nn.Linear(hidden_size, out_size)

    def attention(self, frames: torch.Tensor, text_table: torch.Tensor) -> torch.Tensor:
        """How much each neural token takes of each text token.

        Args:
            frames (`torch.Tensor` of shape `(B, K, in_size)`): frames.
            text_table (`torch.Tensor` of shape `(V, text_size)`): token embeddings.

        Returns:
            `torch.Tensor` of shape `(B, K, V)`: probabilities.
        """
        query, key = self.query(self.neural_norm(frames)), self.key(self.text_norm(text_table))
        return (query @ key.T * query.shape[-1] ** -0.5).softmax(dim=-1)

    def forward(self, frames: torch.Tensor, text_table: torch.Tensor | None = None) -> torch.Tensor:
        """Project frames.

        Args:
            frames (`torch.Tensor` of shape `(B, K, in_size)`): frames.
            text_table (`torch.Tensor` of shape `(V, text_size)`): token embeddings.

        Returns:
            `torch.Tensor` of shape `(B, K, out_size)`.

        Raises:
            ValueError: if the token embeddings are missing.
        """
        if text_table is None:
            raise ValueError("The cross-attention projector needs `text_table`, the language model's embeddings.")
        query = self.query(self.neural_norm(frames))
        normed = self.text_norm(text_table)
        read = nn.functional.scaled_dot_product_attention(
            query, self.key(normed).expand(len(query), -1, -1), self.value(normed).expand(len(query), -1, -1)
        )
        return self.output(query + self.residual_scale * self.dropout(read))


class BITPhonemeHead(nn.Module):
    """The phoneme head of [`BITForCTC`]: a linear map for each participant.

    Args:
        config ([`BITConfig`]): the encoder's configuration.
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__()
        self.heads = per_participant(config.participants, lambda _: nn.Linear(config.hidden_size, config.vocab_size))

    def forward(self, frames: torch.Tensor, participant: str) -> torch.Tensor:
        """Score the phoneme classes.

        Args:
            frames (`torch.Tensor` of shape `(B, P, D)`): encoder output.
            participant (`str`): whose trials they are.

        Returns:
            `torch.Tensor` of shape `(B, P, V)`.
        """
        return self.heads[participant](frames)


class BITAligner(nn.Module):
    """Brings neural and text vectors into one space: a linear map for each, and a learned temperature.

    Args:
        text_size (`int`): width of the language model's embeddings.
        size (`int`): width of the shared space.
        temperature (`float`): at first.
    """

    def __init__(self, text_size: int, size: int, temperature: float) -> None:
        super().__init__()
        self.neural = nn.Linear(text_size, size)
        self.text = nn.Linear(text_size, size)
        self.initial_log_scale = -math.log(temperature)
        self.log_scale = nn.Parameter(torch.tensor([self.initial_log_scale]))  # sharding takes no scalars

    def forward(self, neural: torch.Tensor, text: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Map both sides.

        Args:
            neural (`torch.Tensor` of shape `(B, D)`): means of neural tokens.
            text (`torch.Tensor` of shape `(B, D)`): means of text tokens.

        Returns:
            `tuple[torch.Tensor, torch.Tensor, torch.Tensor]`: `(B, A)`, `(B, A)`, and one over the temperature, at most
            100.
        """
        dtype = self.neural.weight.dtype
        scale = self.log_scale.float().exp().clamp(max=100.0)[0]
        return self.neural(neural.to(dtype)), self.text(text.to(dtype)), scale
