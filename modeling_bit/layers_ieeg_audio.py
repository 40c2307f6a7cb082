"""Layers of the iEEG encoder: read-in by place, layers by participant and day, convolutions, attention over time."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig

# Positions are in metres; this box holds a head, and 1 is the period of the slowest wave.
_BOX_M = 0.24


class PositionReadIn(nn.Module):
    """Mixes channels into a fixed number of virtual ones by where they are in the brain.

    Args:
        size (`int`): virtual channels.
        frequencies (`int`): Fourier frequencies per axis.
        num_regions (`int`, defaults to 0): brain regions with a learned vector each, beside the place.

    Note:
        The spatial attention of Défossez et al. 2023 with three axes instead of two. A channel whose position (NaN) and
        region (-1) are both unknown gets no weight; one of the two is enough.
    """

    def __init__(self, size: int, frequencies: int, num_regions: int = 0) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.queries = nn.Parameter(torch.empty(size, 2 * frequencies**3))
        self.regions = nn.Parameter(torch.empty(num_regions, 2 * frequencies**3)) if num_regions else None

    def embed(self, positions: torch.Tensor) -> torch.Tensor:
        """Cosines and sines of plane waves at the positions.

        Args:
            positions (`torch.Tensor` of shape `(..., C, 3)`): metres, in one space for all participants (MNI).

        Returns:
            `torch.Tensor` of shape `(..., C, 2 * frequencies ** 3)`.
        """
        waves = torch.arange(self.frequencies, device=positions.device, dtype=torch.float32)
        phase = 2 * torch.pi * (positions.float() / _BOX_M + 0.5).unsqueeze(-1) * waves  # (..., C, 3, f)
        x, y, z = phase.unbind(-2)
        total = (x[..., :, None, None] + y[..., None, :, None] + z[..., None, None, :]).flatten(-3)
        return torch.cat([total.cos(), total.sin()], dim=-1)

    def forward(
        self, features: torch.Tensor, positions: torch.Tensor, regions: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Mix the channels.

        Args:
            features (`torch.Tensor` of shape `(B, C, T)`): channels.
            positions (`torch.Tensor` of shape `(B, C, 3)`): metres; NaN where unknown.
            regions (`torch.Tensor` of shape `(B, C)`, *optional*): region of each channel; -1 where unknown.

        Returns:
            `torch.Tensor` of shape `(B, size, T)`.

        Raises:
            ValueError: if positions or regions do not fit the channels, or no channel of a window has either.
        """
        if positions.shape != (*features.shape[:2], 3):
            raise ValueError(
                f"`channel_positions` has shape {tuple(positions.shape)}, expected {(*features.shape[:2], 3)}: give x, "
                "y, z in metres of every channel."
            )
        known = positions.isfinite().all(dim=-1)  # (B, C)
        embedded = self.embed(positions.nan_to_num()) * known.unsqueeze(-1)
        if self.regions is not None and regions is not None:
            if regions.shape != features.shape[:2] or int(regions.max()) >= len(self.regions):
                raise ValueError(
                    f"`channel_regions` has shape {tuple(regions.shape)} and numbers up to {int(regions.max())}: give "
                    f"{tuple(features.shape[:2])} numbers below {len(self.regions)}, -1 for unknown."
                )
            named = regions >= 0
            embedded = embedded + self.regions[regions.clamp(min=0)] * named.unsqueeze(-1)
            known = known | named
        if not bool(known.any(dim=1).all()):
            raise ValueError("No channel of a window has a position or region: use read_in='participant'.")
        scores = torch.einsum("vd,bcd->bvc", self.queries, embedded) / embedded.shape[-1] ** 0.5
        weights = scores.masked_fill(~known[:, None], float("-inf")).softmax(dim=-1)
        return weights.to(features.dtype) @ features


class IndexedAffine(nn.Module):
    """One linear map for each participant (or session), all starting as the identity, and one for unseen ones.

    Args:
        count (`int`): known participants or sessions; row `count` belongs to the unseen.
        size (`int`): channels.
        dropout (`float`): share of training windows that use the row of the unseen, which learns it.
        bias (`bool`): add an offset.
    """

    def __init__(self, count: int, size: int, dropout: float, bias: bool) -> None:
        super().__init__()
        self.count, self.dropout = count, dropout
        self.weight = nn.Parameter(torch.empty(count + 1, size, size))
        self.bias = nn.Parameter(torch.empty(count + 1, size)) if bias else None

    def forward(self, features: torch.Tensor, index: torch.Tensor | None) -> torch.Tensor:
        """Apply each window's map.

        Args:
            features (`torch.Tensor` of shape `(B, C, T)`): channels.
            index (`torch.Tensor` of shape `(B,)`, *optional*): row of each window; -1, like no index at all, is unseen.

        Returns:
            `torch.Tensor` of shape `(B, C, T)`.

        Raises:
            ValueError: if an index does not exist.
        """
        unseen = features.new_full((len(features),), self.count, dtype=torch.long)
        rows = unseen if index is None else torch.where(index < 0, self.count, index)
        if rows.device.type == "cpu" and bool((rows > self.count).any()):
            raise ValueError(
                f"Index {int(rows.max())} does not exist: there are {self.count} known rows, -1 is unseen."
            )
        if self.training and self.dropout:
            rows = torch.where(torch.rand(len(rows), device=rows.device) < self.dropout, self.count, rows)
        mixed = torch.einsum("bct,bdc->bdt", features, self.weight[rows])
        return mixed if self.bias is None else mixed + self.bias[rows].unsqueeze(-1)


class ConvolutionLayer(nn.Module):
    """Convolution, batch norm, GELU; the input is added where the shapes agree; every so often a gated linear unit.

    Args:
        config (`IEEGAudioConfig`): the configuration.
        index (`int`): which layer, from 0.
    """

    def __init__(self, config: IEEGAudioConfig, index: int) -> None:
        super().__init__()
        last_is_plain = config.output_layers == "narrow_last" and index == config.num_hidden_layers - 1
        inputs = config.initial_size if index == 0 else config.hidden_size
        outputs = config.output_size if last_is_plain else config.hidden_size
        step = index if config.dilation_period is None else index % config.dilation_period
        dilation = config.dilation_growth**step
        self.convolution = nn.Conv1d(
            inputs, outputs, config.kernel_size, padding=config.kernel_size // 2 * dilation, dilation=dilation
        )
        self.norm = None if last_is_plain else nn.BatchNorm1d(outputs)
        self.dropout = nn.Dropout(config.dropout)
        gated = config.glu_every and (index + 1) % config.glu_every == 0
        self.gate = nn.Conv1d(outputs, 2 * outputs, 3, padding=1) if gated else None

    def forward(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Run the layer.

        Args:
            hidden (`torch.Tensor` of shape `(B, H, T)`): states.
            mask (`torch.Tensor` of shape `(B, 1, T)`, *optional*): 1 = real bin. Padding is zero for every convolution,
                like the bins beyond the window's end.

        Returns:
            `torch.Tensor` of shape `(B, H', T)`.
        """
        states = self.convolution(hidden)
        if self.norm is not None:
            states = self.dropout(F.gelu(self.norm(states)))
        if states.shape == hidden.shape:
            states = states + hidden
        states = states if mask is None else states * mask
        if self.gate is not None:
            states = F.glu(self.gate(states), dim=1)
            states = states if mask is None else states * mask
        return states


class AttentionPooling(nn.Module):
    """Weighted mean over time; the weights are read from the states themselves.

    Args:
        size (`int`): channels.
        hidden_size (`int`): width of the layer that scores a bin.

    Note:
        Bahdanau et al. 2015, arXiv 1409.0473, without a query.
    """

    def __init__(self, size: int, hidden_size: int) -> None:
        super().__init__()
        self.score_in = nn.Linear(size, hidden_size)
        self.score_out = nn.Linear(hidden_size, 1)

    def forward(self, states: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """Pool.

        Args:
            states (`torch.Tensor` of shape `(B, T, F)`): states.
            mask (`torch.Tensor` of shape `(B, T)`, bool, *optional*): True = real bin.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: pooled states `(B, F)` and weights `(B, T)`.
        """
        scores = self.score_out(self.score_in(states).tanh()).squeeze(-1)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        weights = scores.softmax(dim=1)
        return torch.einsum("bt,btf->bf", weights, states), weights
