"""The BIT encoder and its phoneme model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, PreTrainedModel

from configuration_bit.configuration_bit import BITConfig
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .layers_bit import (
    Dropout,
    SessionLinear,
    count_frames,
    ctc_loss,
    extract_patches,
    find_participant,
    init_identity,
    per_participant,
    prepare_frames,
    values_are_cheap,
)
from .layers_bit import (
    dropout as drop,
)
from .masking_bit import sample_span_mask


@dataclass
class BITModelOutput(ModelOutput):
    """Output of [`BITModel`].

    Args:
        last_hidden_state (`torch.Tensor` of shape `(B, P, D)`): encoded patches.
        frame_mask (`torch.Tensor` of shape `(B, P)`, bool): True = real frame.
        time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): True = the patch was replaced by the mask token.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): the embedded patches and the output of each block.
    """

    last_hidden_state: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    time_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class BITCTCOutput(ModelOutput):
    """Output of the phoneme models.

    Args:
        loss (`torch.Tensor`, *optional*): scalar CTC loss, when labels were given.
        logits (`torch.Tensor` of shape `(B, P, V)`): raw scores in the model's class order.
        frame_mask (`torch.Tensor` of shape `(B, P)`, bool): True = real frame.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): states of the encoder.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class BITReadIn(nn.Module):
    """A participant's way into the encoder: LayerNorm, Linear, LayerNorm on flattened patches.

    Args:
        patch_width (`int`): bins in a patch x channels.
        hidden_size (`int`): width of the encoder D.
        eps (`float`): epsilon of the norms.
    """

    def __init__(self, patch_width: int, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(patch_width, eps=eps)
        self.projection = nn.Linear(patch_width, hidden_size)
        self.norm_out = nn.LayerNorm(hidden_size, eps=eps)

    def forward(self, patches: torch.Tensor) -> torch.Tensor:
        """Embed patches.

        Args:
            patches (`torch.Tensor` of shape `(B, P, patch_width)`): flattened patches.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`.
        """
        return self.norm_out(self.projection(self.norm_in(patches)))


class BITRotaryEmbedding(nn.Module):
    """Rotary position embedding whose position is the index of a patch's first bin.

    Args:
        head_dim (`int`): width of a head.
        theta (`float`): base of the frequencies.
        patch_stride (`int`): bins from one patch to the next.
    """

    inv_freq: torch.Tensor

    def __init__(self, head_dim: int, theta: float, patch_stride: int) -> None:
        super().__init__()
        self.head_dim, self.theta, self.patch_stride = head_dim, theta, patch_stride
        self.register_buffer("inv_freq", self.compute_frequencies(), persistent=False)

    def compute_frequencies(self) -> torch.Tensor:
        """Angular frequencies, one for each pair of a head.

        Returns:
            `torch.Tensor` of shape `(head_dim / 2,)`, radians per bin.
        """
        return self.theta ** (-torch.arange(0, self.head_dim, 2, dtype=torch.float32) / self.head_dim)

    @torch.no_grad()
    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines and sines for every patch.

        Args:
            hidden (`torch.Tensor` of shape `(B, P, D)`): gives the number of patches, the type and the device.

        Returns:
            `tuple[torch.Tensor, torch.Tensor]`: two tensors of shape `(P, head_dim)`.
        """
        bins = torch.arange(hidden.shape[1], device=hidden.device, dtype=torch.float32) * self.patch_stride
        angles = torch.outer(bins, self.inv_freq.float())
        angles = torch.cat([angles, angles], dim=-1)
        return angles.cos().to(hidden.dtype), angles.sin().to(hidden.dtype)


def rotate(states: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> torch.Tensor:
    """Turn queries or keys by their position (rotate-half form).

    Args:
        states (`torch.Tensor` of shape `(..., P, head_dim)`): queries or keys.
        cosines (`torch.Tensor` of shape `(P, head_dim)`): from [`BITRotaryEmbedding`].
        sines (`torch.Tensor` of shape `(P, head_dim)`): from [`BITRotaryEmbedding`].

    Returns:
        `torch.Tensor`: like `states`.
    """
    first, second = states.chunk(2, dim=-1)
    return states * cosines + torch.cat([-second, first], dim=-1) * sines


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention written out, with the probabilities.

    Args:
        module (`nn.Module`): the calling layer.
        query (`torch.Tensor` of shape `(B, heads, P, head_dim)`): queries.
        key (`torch.Tensor` of shape `(B, heads, P, head_dim)`): keys.
        value (`torch.Tensor` of shape `(B, heads, P, head_dim)`): values.
        attention_mask (`torch.Tensor`, *optional*): bool, True = may be seen; broadcasts to `(B, heads, P, P)`.
        scaling (`float`): factor on the scores.
        dropout (`float`): dropout on the probabilities.
        **kwargs: ignored; the other attention functions use them.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: output `(B, P, heads, head_dim)` and probabilities `(B, heads, P, P)`.
    """
    scores = (query * scaling) @ key.transpose(2, 3)
    if attention_mask is not None:
        scores = scores.masked_fill(~attention_mask, float("-inf"))
    probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    return (drop(probabilities, dropout, module.training) @ value).transpose(1, 2).contiguous(), probabilities


def depth_scale(config: BITConfig) -> float:
    """Factor on the initial weights of a block's projections; the deeper the encoder, the smaller.

    Args:
        config (`BITConfig`): the configuration.

    Returns:
        `float`: `0.67 * num_hidden_layers ** -0.25`.
    """
    return 0.67 * config.num_hidden_layers**-0.25


class BITAttention(nn.Module):
    """Multi-head attention with rotary positions; dropout on the probabilities and before the output projection.

    Args:
        config (`BITConfig`): the configuration.
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__()
        self.config = config
        self.num_heads = config.num_attention_heads
        self.head_dim = config.hidden_size // config.num_attention_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = config.causal
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)  # one product is faster than three
        self.qkv.init_scales = (1.0, 1.0, depth_scale(config) * 2**0.5)
        self.out_dropout = Dropout(config.hidden_dropout)
        self.out_proj = nn.Linear(config.hidden_size, config.hidden_size)
        self.out_proj.init_scales = (depth_scale(config),)

    def forward(self, hidden: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], mask: Any) -> torch.Tensor:
        """Let the patches look at each other.

        Args:
            hidden (`torch.Tensor` of shape `(B, P, D)`): normed patches.
            rotary (`tuple[torch.Tensor, torch.Tensor]`): cosines and sines.
            mask (`torch.Tensor`, block mask or `None`): what the attention implementation understands.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`.
        """
        batch, frames, width = hidden.shape
        qkv = self.qkv(hidden).view(batch, frames, 3, self.num_heads, self.head_dim)
        query, key, value = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # (B, heads, P, head_dim) each
        query, key = rotate(query, *rotary).to(value.dtype), rotate(key, *rotary).to(value.dtype)
        attend: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        drop_now = self.dropout if self.training else 0.0
        if drop_now and self.config._attn_implementation == "sdpa" and values_are_cheap(hidden):
            attend = eager_attention_forward  # with dropout torch has no fused kernel on the CPU, and ours drops faster
        output, _ = attend(
            self,
            query,
            key,
            value,
            mask,
            dropout=drop_now,
            scaling=self.scaling,
            is_causal=self.is_causal,
        )
        return self.out_proj(self.out_dropout(output.reshape(batch, frames, width)))


class BITMLP(nn.Module):
    """Feed-forward part of a block.

    Args:
        config (`BITConfig`): the configuration.
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size)
        self.dropout = Dropout(config.hidden_dropout)
        self.up_proj.init_scales = self.down_proj.init_scales = (depth_scale(config),)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Transform each patch by itself.

        Args:
            hidden (`torch.Tensor` of shape `(B, P, D)`): normed patches.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`.
        """
        return self.dropout(self.down_proj(self.activation(self.up_proj(hidden))))


class BITLayer(GradientCheckpointingLayer):
    """One pre-norm block.

    Args:
        config (`BITConfig`): the configuration.
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = BITAttention(config)
        self.mlp_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = BITMLP(config)

    def forward(self, hidden: torch.Tensor, rotary: tuple[torch.Tensor, torch.Tensor], mask: Any) -> torch.Tensor:
        """Attention and feed-forward, each added to its input.

        Args:
            hidden (`torch.Tensor` of shape `(B, P, D)`): patches.
            rotary (`tuple[torch.Tensor, torch.Tensor]`): cosines and sines.
            mask (`torch.Tensor`, block mask or `None`): what may be seen.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`.
        """
        hidden = hidden + self.attention(self.attention_norm(hidden), rotary, mask)
        return hidden + self.mlp(self.mlp_norm(hidden))


class BITPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    """What all BIT models share: loading, saving and initial values."""

    config_class = BITConfig
    base_model_prefix = "encoder"
    main_input_name = "input_features"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False  # or gradient accumulation would scale the mean loss
    _no_split_modules = ["BITLayer"]
    _keys_to_ignore_on_load_unexpected = [r"^read_out\."]  # what only pretraining needs
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_flex_attn = True

    def num_frames(self, num_bins: int | torch.Tensor) -> int | torch.Tensor:
        """Number of output frames of a trial; a trailing partial patch is dropped.

        Args:
            num_bins (`int` or `torch.Tensor`): number of bins.

        Returns:
            `int` or `torch.Tensor`: number of frames, never below 0.
        """
        return count_frames(num_bins, self.config.patch_size, self.config.patch_stride)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # torch's own values times the paper's scaling by depth. Everything that a checkpoint may lack is covered:
        # loading builds on the meta device and leaves uninitialised memory where nothing is set. transformers asks only
        # about modules that hold parameters themselves, so nothing may hang on a module that merely holds others.
        if isinstance(module, nn.Linear):
            if not getattr(module.weight, "_is_hf_initialized", False):
                scales = getattr(module, "init_scales", (1.0,))
                for part, scale in zip(module.weight.chunk(len(scales)), scales, strict=True):
                    init.uniform_(part, -scale * module.in_features**-0.5, scale * module.in_features**-0.5)
            if module.bias is not None:
                init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)
        elif isinstance(module, nn.LayerNorm):
            init.constant_(module.weight, getattr(module, "init_gain", 1.0))
            init.zeros_(module.bias)
        elif isinstance(module, nn.ParameterDict):
            init_identity(module)
        elif isinstance(module, BITRotaryEmbedding):
            init.copy_(module.inv_freq, module.compute_frequencies())
        elif isinstance(module, BITModel):
            init.normal_(module.mask_token)


class BITModel(BITPreTrainedModel):
    """The BIT encoder: patches of binned neural features in, one vector for each patch out.

    Args:
        config (`BITConfig`): the configuration.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740: patches of 5 bins x all channels, LayerNorm-Linear-LayerNorm read-in
        for each participant, 7 pre-norm blocks of width 384 with 6 heads and rotary positions, final norm. Padding
        never reaches a real frame here; in the released code the padding value leaks into each trial's last bins.

    Example:
        ```python
        >>> model = BITModel(BITConfig(participants={"t15": 8}, hidden_size=24, num_hidden_layers=1)).eval()
        >>> model(torch.zeros(2, 23, 8)).last_hidden_state.shape
        torch.Size([2, 4, 24])

        ```
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__(config)
        if config.read_in == "session":
            (channels,) = config.participants.values()
            self.session_layers = SessionLinear(config.sessions, channels)
        self.read_in = per_participant(
            config.participants,
            lambda channels: BITReadIn(config.patch_size * channels, config.hidden_size, config.layer_norm_eps),
        )
        # Without masking the token takes no part in the loss, so it is not trained either.
        self.mask_token = nn.Parameter(torch.randn(config.hidden_size), requires_grad=config.mask_ratio > 0)
        self.embedding_dropout = Dropout(config.embedding_dropout)
        self.rotary = BITRotaryEmbedding(
            config.hidden_size // config.num_attention_heads, config.rope_theta, config.patch_stride
        )
        self.layers = nn.ModuleList([BITLayer(config) for _ in range(config.num_hidden_layers)])
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.gradient_checkpointing = False
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        time_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BITModelOutput | tuple:
        """Encode trials.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial, all equal.
                Default: the first.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; used when
                `read_in="session"`.
            time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): patches to replace by the mask token.
                Default: in training, spans that cover `mask_ratio` of each trial.
            output_hidden_states (`bool`, *optional*): also return the states between the blocks.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITModelOutput` or `tuple`.

        Raises:
            ValueError: if a shape, index or mask does not fit.
        """
        config = self.config
        name = find_participant(config.participants, participant_index, input_features)
        lengths, frame_mask = prepare_frames(input_features, attention_mask, config.patch_size, config.patch_stride)
        features = input_features.to(self.norm.weight.dtype)
        if attention_mask is not None:
            features = features.masked_fill(~attention_mask.bool()[..., None], 0.0)  # whatever it holds, NaN too
        if config.read_in == "session":
            features = self.session_layers(features, session_index)
        patches = extract_patches(features, config.patch_size, config.patch_stride)

        if time_mask is None and self.training and config.mask_ratio > 0:
            time_mask = sample_span_mask(lengths, patches.shape[1], config.mask_ratio, config.mask_max_span)
        if time_mask is not None and time_mask.shape != frame_mask.shape:
            raise ValueError(f"`time_mask` has shape {tuple(time_mask.shape)}, frames are {tuple(frame_mask.shape)}.")
        hidden = self._embed(self.read_in[name], patches, time_mask)  # (B, P, D)
        hidden = self.embedding_dropout(hidden)

        rotary = self.rotary(hidden)
        mask = self._make_attention_mask(frame_mask, padded=attention_mask is not None)
        keep = config.output_hidden_states if output_hidden_states is None else output_hidden_states
        states = [hidden]
        for layer in self.layers:
            hidden = layer(hidden, rotary, mask)
            if keep:
                states.append(hidden)
        output = BITModelOutput(
            last_hidden_state=self.norm(hidden),
            frame_mask=frame_mask,
            time_mask=time_mask,
            hidden_states=tuple(states) if keep else None,
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _embed(self, read_in: nn.Module, patches: torch.Tensor, time_mask: torch.Tensor | None) -> torch.Tensor:
        """Embedded patches, the mask token where patches are hidden."""
        if time_mask is None:
            return read_in(patches)
        if not values_are_cheap(time_mask):
            hidden = read_in(patches)
            return torch.where(time_mask[..., None], self.mask_token.to(hidden.dtype), hidden)
        # Hidden patches need not be read. (On an accelerator, counting them would wait for it.)
        visible = read_in(patches[~time_mask])
        hidden = self.mask_token.to(visible.dtype).expand(*time_mask.shape, -1)
        return hidden.masked_scatter(~time_mask[..., None], visible)

    def _make_attention_mask(self, frame_mask: torch.Tensor, padded: bool) -> Any:
        """What each patch may see, in the form that the chosen attention implementation takes."""
        implementation = self.config._attn_implementation
        causal, window = self.config.causal, self.config.attention_window
        frames, device = frame_mask.shape[1], frame_mask.device
        if padded and values_are_cheap(frame_mask) and bool(frame_mask.all()):
            padded = False
        if "flash" in implementation:
            if window is not None:
                raise ValueError("`attention_window` is not available with flash attention: use sdpa, eager or flex.")
            return frame_mask if padded else None
        if implementation == "flex_attention":
            return _make_block_mask(frame_mask if padded else None, frame_mask.shape, causal, window, device)
        if window is None and not causal:
            # A trial without one real frame sees its padding, so that no row is empty (its output means nothing).
            return (frame_mask | ~frame_mask.any(dim=1, keepdim=True))[:, None, None] if padded else None
        if window is None and implementation == "sdpa" and not (self.training and values_are_cheap(frame_mask)):
            return None  # causal: padding comes after every real frame, so causality already hides it
        position = torch.arange(frames, device=device)
        visible = _is_visible(position[:, None], position[None], causal, window)
        if padded and not causal:
            itself = position[:, None] == position[None]
            return (visible & frame_mask[:, None, :] | itself)[:, None]
        return visible[None, None]


def _is_visible(query: torch.Tensor, key: torch.Tensor, causal: bool, window: int | None) -> torch.Tensor:
    visible = (key <= query) if causal else torch.ones_like(query == key)
    return visible if window is None else visible & ((query - key).abs() <= window)


def _make_block_mask(
    frame_mask: torch.Tensor | None, shape: torch.Size, causal: bool, window: int | None, device: torch.device
) -> Any:
    if frame_mask is None and not causal and window is None:
        return None
    from torch.nn.attention.flex_attention import create_block_mask

    def may_see(batch: torch.Tensor, head: torch.Tensor, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        visible = _is_visible(query, key, causal, window)
        return visible if frame_mask is None else (visible & frame_mask[batch, key]) | (query == key)

    return create_block_mask(may_see, shape[0], None, shape[1], shape[1], device=device)


class BITForCTC(BITPreTrainedModel):
    """The BIT encoder with a phoneme head for each participant, trained with CTC.

    Args:
        config (`BITConfig`): the configuration.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740, section on phoneme decoding. The released code sums the loss over the
        batch and hides infinite losses; here the default is the mean over trials of loss / number of labels, and an
        impossible trial (fewer frames than its labels need) gives an infinite loss.

    Example:
        ```python
        >>> model = BITForCTC(BITConfig(participants={"t15": 8}, hidden_size=24, num_hidden_layers=1)).eval()
        >>> output = model(torch.zeros(2, 50, 8), labels=torch.tensor([[3, 40], [7, -100]]))
        >>> output.logits.shape, bool(output.loss > 0)
        (torch.Size([2, 10, 41]), True)

        ```
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__(config)
        self.encoder = BITModel(config)
        self.head = per_participant(config.participants, lambda _: nn.Linear(config.hidden_size, config.vocab_size))
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        time_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BITCTCOutput | tuple:
        """Score the phoneme classes in every frame.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial, all equal.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; used when
                `read_in="session"`.
            labels (`torch.Tensor` of shape `(B, L)`, *optional*): phoneme classes, padded with -100.
            time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): patches to mask, see [`BITModel`].
            output_hidden_states (`bool`, *optional*): also return the states between the blocks.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITCTCOutput` or `tuple`: loss (when labels are given), logits, frame mask.

        Raises:
            ValueError: if a shape, index, mask or label does not fit.
        """
        config = self.config
        encoded = self.encoder(
            input_features,
            attention_mask=attention_mask,
            participant_index=participant_index,
            session_index=session_index,
            time_mask=time_mask,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        name = find_participant(config.participants, participant_index, input_features)
        logits = self.head[name](encoded.last_hidden_state)  # (B, P, V)
        loss = None
        if labels is not None:
            lengths = encoded.frame_mask.sum(dim=1)
            loss = ctc_loss(
                logits, lengths, labels, config.pad_token_id, config.ctc_loss_reduction, config.ctc_zero_infinity
            )
        output = BITCTCOutput(
            loss=loss, logits=logits, frame_mask=encoded.frame_mask, hidden_states=encoded.hidden_states
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()
