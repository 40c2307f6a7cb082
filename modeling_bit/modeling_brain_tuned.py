"""A speech model that predicts the brains of people who listen: low-rank updates, a readout of frames, a voxel head."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput
from transformers.modeling_utils import PreTrainedModel

from configuration_bit.configuration_brain_tuned import BrainTunedConfig
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .losses_brain_tuned import voxel_loss


@dataclass
class BrainTunedModelOutput(ModelOutput):
    """Output of [`BrainTunedModel`].

    Args:
        pooled (`torch.Tensor` of shape `(B, D)`, or `(B, K, D)` with K regions): one vector per clip (and region).
        last_hidden_state (`torch.Tensor` of shape `(B, P, D)`): frames of the last layer.
        hidden_states (`tuple` of `torch.Tensor`, *optional*): frames of every layer, the input of the first included.
    """

    pooled: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


@dataclass
class VoxelPredictionOutput(ModelOutput):
    """Output of [`BrainTunedForVoxelPrediction`].

    Args:
        loss (`torch.Tensor`, *optional*): with labels, a number.
        logits (`torch.Tensor` of shape `(B, X)`): predicted BOLD.
        pooled (`torch.Tensor`): see [`BrainTunedModelOutput`].
        hidden_states (`tuple` of `torch.Tensor`, *optional*): see [`BrainTunedModelOutput`].
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    pooled: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class LowRankLinear(nn.Linear):
    """A linear map that does not learn, and a low-rank update that does.

    Args:
        in_features (`int`): inputs.
        out_features (`int`): outputs.
        bias (`bool`): as in `nn.Linear`.
        rank (`int`): of the update.
        alpha (`float`): the update is scaled by `alpha / rank`.
        dropout (`float`): before the update.

    Note:
        Hu et al. 2021, arXiv 2106.09685. Written here, so that a saved model needs no other package to load.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool, rank: int, alpha: float, dropout: float
    ) -> None:
        super().__init__(in_features, out_features, bias=bias)
        self.scale = alpha / rank
        self.dropout = nn.Dropout(dropout)
        self.down = nn.Parameter(torch.empty(rank, in_features))
        self.up = nn.Parameter(torch.zeros(out_features, rank))
        self.reset_update()

    @torch.no_grad()
    def reset_update(self) -> None:
        """Start the update at zero."""
        init.kaiming_uniform_(self.down, a=math.sqrt(5))
        init.zeros_(self.up)

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Map and update.

        Args:
            hidden (`torch.Tensor` of shape `(..., in_features)`): inputs.

        Returns:
            `torch.Tensor` of shape `(..., out_features)`.
        """
        update = nn.functional.linear(nn.functional.linear(self.dropout(hidden), self.down), self.up)
        return super().forward(hidden) + self.scale * update

    def merged(self) -> nn.Linear:
        """Give the plain linear map that does the same without dropout.

        Returns:
            `nn.Linear`: with copies of the weights.
        """
        plain = nn.Linear(self.in_features, self.out_features, bias=self.bias is not None)
        plain.weight = nn.Parameter(self.weight.detach() + self.scale * self.up.detach() @ self.down.detach())
        if self.bias is not None:
            plain.bias = nn.Parameter(self.bias.detach().clone())
        return plain.to(self.weight.device)


def canonical_hrf(lags_s: torch.Tensor) -> torch.Tensor:
    """Evaluate the canonical haemodynamic response.

    Args:
        lags_s (`torch.Tensor`): seconds since the event.

    Returns:
        `torch.Tensor`: a response of height 1 that peaks at 5 s and dips below zero at 15 s; zero before the event.

    Note:
        The difference of two gamma densities of shapes 6 and 16, the second with a sixth of the weight (SPM's).

    Example:
        ```python
        >>> float(canonical_hrf(torch.tensor([5.0])).round(decimals=2))
        1.0

        ```
    """
    lags = lags_s.clamp_min(0.0)
    first = lags**5 * torch.exp(-lags) / math.gamma(6)
    second = lags**15 * torch.exp(-lags) / math.gamma(16)
    peak = 5.0**5 * math.exp(-5.0) / math.gamma(6)
    return (first - second / 6.0) / peak


class FrameReadout(nn.Module):
    """Makes one vector of the frames of a clip, or one for each region of the brain.

    Args:
        config (`BrainTunedConfig`): the configuration.
    """

    def __init__(self, config: BrainTunedConfig) -> None:
        super().__init__()
        self.config = config
        width = config.body_config.hidden_size
        if config.readout == "hrf":
            self.lag_logits = nn.Parameter(torch.empty(config.num_lags))
        if config.readout == "regions":
            self.queries = nn.Parameter(torch.empty(config.num_regions, width))
            self.keys = nn.Linear(width, width)
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Give new parameters their initial values."""
        config = self.config
        if config.readout == "hrf":
            # Weights run from the start of the clip to its end, so lags run backwards.
            lags = config.clip_s * (1.0 - (torch.arange(config.num_lags) + 0.5) / config.num_lags)
            init.copy_(self.lag_logits, canonical_hrf(lags).clamp_min(0.02).log())
        if config.readout == "regions":
            # Almost equal attention at first, so that training begins at the mean.
            init.normal_(self.queries, std=config.initializer_range)

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        """Pool frames.

        Args:
            frames (`torch.Tensor` of shape `(B, P, D)`): frames of the last layer.

        Returns:
            `torch.Tensor` of shape `(B, D)`, or `(B, K, D)` with K regions.
        """
        kind = self.config.readout
        if kind == "mean":
            return frames.mean(dim=1)
        if kind == "last":
            return frames[:, -1]
        if kind == "hrf":
            logits = nn.functional.interpolate(
                self.lag_logits[None, None], size=frames.shape[1], mode="linear", align_corners=True
            )
            return (logits.softmax(dim=-1)[0] @ frames)[:, 0]
        scores = self.queries @ self.keys(frames).transpose(1, 2) / math.sqrt(frames.shape[2])  # (B, K, P)
        return scores.softmax(dim=-1) @ frames


class VoxelHead(nn.Module):
    """Linear maps from pooled frames to voxels: one for all, one each, or one for all with low-rank deviations.

    Args:
        config (`BrainTunedConfig`): the configuration.
    """

    def __init__(self, config: BrainTunedConfig) -> None:
        super().__init__()
        self.config = config
        width, voxels, people = config.body_config.hidden_size, config.num_voxels, len(config.participants)
        copies = people if config.head == "separate" else 1
        self.weight = nn.Parameter(torch.empty(copies, voxels, width))
        self.bias = nn.Parameter(torch.empty(copies, voxels))
        if config.head == "low_rank":
            self.basis = nn.Linear(width, config.deviation_rank, bias=False)
            self.deviations = nn.Parameter(torch.empty(people, config.deviation_rank, voxels))
        regions = torch.arange(voxels) * config.num_regions // voxels
        self.register_buffer("region_of_voxel", regions, persistent=config.readout == "regions")
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Give parameters their initial values; deviations start at none."""
        init.normal_(self.weight, std=self.config.initializer_range)
        init.zeros_(self.bias)
        if self.config.head == "low_rank":
            init.zeros_(self.deviations)

    def forward(self, pooled: torch.Tensor, participant_index: torch.Tensor | None) -> torch.Tensor:
        """Predict voxels.

        Args:
            pooled (`torch.Tensor` of shape `(B, D)` or `(B, K, D)`): from [`FrameReadout`].
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): whose voxels. Without, what is shared: a
                participant who was not in training.

        Returns:
            `torch.Tensor` of shape `(B, X)`.
        """
        if self.config.head == "separate":
            if participant_index is None:
                raise ValueError("Separate heads need `participant_index`; nobody's head fits a new participant.")
            predicted = pooled.new_empty(len(pooled), self.config.num_voxels)
            for person in participant_index.unique().tolist():
                members = participant_index == person
                predicted[members] = self._map(pooled[members], self.weight[person], self.bias[person])
            return predicted
        predicted = self._map(pooled, self.weight[0], self.bias[0])
        if self.config.head == "low_rank":
            if participant_index is None:
                return predicted
            mean = pooled.mean(dim=1) if pooled.ndim == 3 else pooled
            basis = self.basis(mean)
            deviation = torch.stack([basis[i] @ self.deviations[p] for i, p in enumerate(participant_index.tolist())])
            predicted = predicted + deviation
        return predicted

    def _map(self, pooled: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
        if pooled.ndim == 2:
            return nn.functional.linear(pooled, weight, bias)
        parts = pooled.new_empty(len(pooled), len(bias))
        for region in range(self.config.num_regions):
            members = self.region_of_voxel == region
            parts[:, members] = nn.functional.linear(pooled[:, region], weight[members], bias[members])
        return parts


class BrainTunedPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    """What both models share: initial values, and which parts learn."""

    config_class = BrainTunedConfig
    base_model_prefix = "model"
    main_input_name = "input_values"
    accepts_loss_kwargs = False  # or gradient accumulation would scale the mean loss
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        if isinstance(module, LowRankLinear):
            module.reset_update()
        elif isinstance(module, (FrameReadout, VoxelHead)):
            module.reset()
            if isinstance(module, VoxelHead) and not getattr(module.region_of_voxel, "_is_hf_initialized", False):
                voxels = self.config.num_voxels
                init.copy_(module.region_of_voxel, torch.arange(voxels) * self.config.num_regions // voxels)
        elif isinstance(module, nn.Linear):
            init.normal_(module.weight, std=self.config.initializer_range)
            if module.bias is not None:
                init.zeros_(module.bias)

    @torch.no_grad()
    def initialize_weights(self) -> None:
        """Give initial values to everything that a checkpoint lacks, updates inside the body included."""
        super().initialize_weights()
        # The body's class initialises what is inside it and knows nothing of updates.
        for module in self.modules():
            if isinstance(module, LowRankLinear) and not getattr(module.down, "_is_hf_initialized", False):
                module.reset_update()

    @classmethod
    def from_speech_checkpoint(
        cls, name: str | os.PathLike, load_kwargs: dict[str, Any] | None = None, **config_values: Any
    ) -> Any:
        """Build the model with the body of a checkpoint that was trained on audio.

        Args:
            name (`str` or `os.PathLike`): folder or Hub name of a speech model.
            load_kwargs (`dict`, *optional*): passed to `from_pretrained`, such as `revision` or `local_files_only`.
            **config_values: fields of [`BrainTunedConfig`].

        Returns:
            This class, in evaluation mode: the body is exact, updates start at zero, the rest is random.

        Raises:
            ValueError: if the checkpoint lacks a weight of the body (all are listed).
        """
        speech, report = AutoModel.from_pretrained(
            name, dtype=torch.float32, output_loading_info=True, **(load_kwargs or {})
        )
        missing = sorted(key for key in report["missing_keys"] if "masked_spec_embed" not in key)
        if missing:
            raise ValueError(f"{name} lacks {len(missing)} weights, which would be random: {', '.join(missing)}.")
        model = cls(BrainTunedConfig(body_config=speech.config, **config_values))
        source = speech.encoder if speech.config.model_type == "whisper" else speech
        unexpected = model.base_model.body.load_state_dict(source.state_dict(), strict=False).unexpected_keys
        if unexpected:
            raise ValueError(f"{name} has weights that its own class does not know: {', '.join(unexpected)}.")
        return model.eval()


class BrainTunedModel(BrainTunedPreTrainedModel):
    """A speech model with low-rank updates and a readout of its last layer.

    Args:
        config (`BrainTunedConfig`): the configuration. Building the model from it gives random weights everywhere;
            [`~BrainTunedModel.from_speech_checkpoint`] takes the body from a model that was trained on audio.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520.

    Example:
        ```python
        >>> body = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...         "intermediate_size": 32, "conv_dim": [8], "conv_kernel": [10], "conv_stride": [320],
        ...         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        >>> model = BrainTunedModel(BrainTunedConfig(body_config=body)).eval()
        >>> model(torch.zeros(2, 16000)).pooled.shape
        torch.Size([2, 32])

        ```
    """

    def __init__(self, config: BrainTunedConfig) -> None:
        super().__init__(config)
        self.body = AutoModel.from_config(config.body_config)
        if config.body_config.model_type == "whisper":
            self.body = self.body.encoder
        if config.tuning == "lora":
            self._add_updates()
        self.readout = FrameReadout(config)
        self.post_init()
        self.train()

    def _add_updates(self) -> None:
        config, found = self.config, set()
        for parent in [*self.transformer.modules()]:
            for name, child in list(parent.named_children()):
                if name in config.lora_targets and type(child) is nn.Linear:
                    updated = LowRankLinear(
                        child.in_features, child.out_features, child.bias is not None,
                        config.lora_rank, config.lora_alpha, config.lora_dropout,
                    )  # fmt: skip
                    updated.weight, updated.bias = child.weight, child.bias
                    setattr(parent, name, updated)
                    found.add(name)
        missing = sorted(set(config.lora_targets) - found)
        if missing:
            raise ValueError(
                f"`lora_targets` names {', '.join(missing)}, which the layers of {config.body_config.model_type} lack."
            )

    @property
    def transformer(self) -> nn.Module:
        """The part of the body after its convolutions (`nn.Module`)."""
        return self.body.layers if self.config.body_config.model_type == "whisper" else self.body.encoder

    def train(self, mode: bool = True) -> BrainTunedModel:
        """Switch training on or off: which parameters learn follows `config.tuning`, dropout `config.body_dropout`.

        Args:
            mode (`bool`, defaults to `True`): True = training.

        Returns:
            `BrainTunedModel`: itself.
        """
        super().train(mode)
        # Here and not only at the start: loading gives every parameter a gradient again, and ends with `eval()`.
        self.body.requires_grad_(False)
        if self.config.tuning == "full":
            self.transformer.requires_grad_(True)
            if hasattr(self.body, "feature_projection"):
                self.body.feature_projection.requires_grad_(True)
        if hasattr(self.body, "feature_extractor"):
            self.body.feature_extractor._requires_grad = False
        if not self.config.body_dropout:
            self.body.eval()
        for module in self._updates():
            module.down.requires_grad_(True)
            module.up.requires_grad_(True)
            module.dropout.train(mode)
        return self

    def _updates(self) -> Iterator[LowRankLinear]:
        return (module for module in self.body.modules() if isinstance(module, LowRankLinear))

    def forward(
        self, input_values: torch.Tensor, output_hidden_states: bool = False, **kwargs: Any
    ) -> BrainTunedModelOutput:
        """Listen to clips.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): 16 kHz audio, normalised per clip; or `(B, P, C)`, what
                [`~BrainTunedModel.convolve`] made of it; for Whisper its spectra of shape `(B, mel, 3000)`.
            output_hidden_states (`bool`, defaults to `False`): also return the frames of every layer.
            **kwargs: none; unknown keys are refused by name.

        Returns:
            [`BrainTunedModelOutput`].

        Raises:
            TypeError: if there are unknown arguments.
            ValueError: if hidden states are asked for without audio.
        """
        if kwargs:
            raise TypeError(f"unknown arguments: {', '.join(sorted(kwargs))}")
        if input_values.ndim == 3 and hasattr(self.body, "feature_extractor"):
            if output_hidden_states:
                raise ValueError("`output_hidden_states` needs audio of shape (B, S), not the output of `convolve`.")
            projected = self.body.feature_projection(input_values)
            projected = projected[0] if isinstance(projected, tuple) else projected
            found = self.body.encoder(projected, return_dict=True)
        else:
            found = self.body(input_values, output_hidden_states=output_hidden_states, return_dict=True)
        frames, hidden = found.last_hidden_state, found.hidden_states if output_hidden_states else None
        if self.config.body_config.model_type == "whisper":
            # Spectra are padded to 30 s; only the clip's own frames count, one per 20 ms.
            real = min(frames.shape[1], math.ceil(50 * self.config.clip_s))
            frames, hidden = frames[:, :real], tuple(h[:, :real] for h in hidden) if hidden is not None else None
        return BrainTunedModelOutput(pooled=self.readout(frames), last_hidden_state=frames, hidden_states=hidden)

    @torch.no_grad()
    def convolve(self, input_values: torch.Tensor) -> torch.Tensor:
        """Pass clips through the convolutions, which never learn: once is enough for a whole training.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): clips.

        Returns:
            `torch.Tensor` of shape `(B, P, C)`: what `forward` also takes.

        Raises:
            ValueError: if the body masks frames in training or has no convolutions over audio.
        """
        if not hasattr(self.body, "feature_extractor") or self.config.body_dropout:
            raise ValueError("Convolutions can be kept for Wav2Vec2-like bodies with `body_dropout=False` only.")
        return self.body.feature_extractor(input_values).transpose(1, 2)

    def merge_body(self) -> PreTrainedModel:
        """Give the speech model with the updates inside its weights.

        Returns:
            `PreTrainedModel`: a model of the body's own class (for Whisper its encoder); saved, it is what plain
                `AutoModel` loads, without this package.
        """
        kind = self.config.body_config.model_type
        whole = AutoModel.from_config(self.config.body_config)
        plain = whole.encoder if kind == "whisper" else whole
        updates = {name: module for name, module in self.body.named_modules() if isinstance(module, LowRankLinear)}
        state = {
            key: value
            for key, value in self.body.state_dict().items()
            if not (key.rpartition(".")[0] in updates and key.endswith((".down", ".up")))
        }
        for name, module in updates.items():
            state[f"{name}.weight"] = module.merged().weight
        plain.load_state_dict(state)
        return plain.eval()


class BrainTunedForVoxelPrediction(BrainTunedPreTrainedModel):
    """A speech model that predicts BOLD from the ten seconds before it.

    Args:
        config (`BrainTunedConfig`): the configuration.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520: mean over frames, one linear map for all participants, mean square.

    Example:
        ```python
        >>> body = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...         "intermediate_size": 32, "conv_dim": [8], "conv_kernel": [10], "conv_stride": [320],
        ...         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        >>> model = BrainTunedForVoxelPrediction(BrainTunedConfig(body_config=body, num_voxels=5)).eval()
        >>> model(torch.zeros(2, 16000), labels=torch.zeros(2, 5)).logits.shape
        torch.Size([2, 5])

        ```
    """

    def __init__(self, config: BrainTunedConfig) -> None:
        super().__init__(config)
        self.model = BrainTunedModel(config)
        self.head = VoxelHead(config)
        self.post_init()
        self.train()

    def train(self, mode: bool = True) -> BrainTunedForVoxelPrediction:
        """Switch training on or off, see [`BrainTunedModel.train`].

        Args:
            mode (`bool`, defaults to `True`): True = training.

        Returns:
            `BrainTunedForVoxelPrediction`: itself.
        """
        super().train(mode)
        return self

    def forward(
        self,
        input_values: torch.Tensor,
        participant_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        voxel_weights: torch.Tensor | None = None,
        progress: float | torch.Tensor = 0.0,
        output_hidden_states: bool = False,
        **kwargs: Any,
    ) -> VoxelPredictionOutput:
        """Predict BOLD.

        Args:
            input_values (`torch.Tensor` of shape `(B, S)`): clips, see [`BrainTunedModel.forward`].
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): positions in `config.participants`; a shared
                head ignores them.
            labels (`torch.Tensor` of shape `(B, X)`, *optional*): BOLD.
            voxel_weights (`torch.Tensor` of shape `(X,)`, *optional*): see [`voxel_loss`].
            progress (`float`): share of the training that is over, see [`voxel_loss`].
            output_hidden_states (`bool`, defaults to `False`): also return the frames of every layer.
            **kwargs: none; unknown keys are refused by name.

        Returns:
            [`VoxelPredictionOutput`].

        Raises:
            ValueError: if a participant is unknown, or labels have another shape than predictions.
        """
        people = len(self.config.participants)
        if participant_index is not None and people and not 0 <= int(participant_index.min()) <= int(
            participant_index.max()
        ) < people:  # fmt: skip
            raise ValueError(
                f"`participant_index` is {participant_index.tolist()}, but there are {people} participants."
            )
        found = self.model(input_values, output_hidden_states=output_hidden_states, **kwargs)
        predicted = self.head(found.pooled, participant_index)
        loss = None
        if labels is not None:
            loss = voxel_loss(predicted, labels, self.config.loss, voxel_weights, progress)
        return VoxelPredictionOutput(
            loss=loss, logits=predicted, pooled=found.pooled, hidden_states=found.hidden_states
        )

    def merge_body(self) -> PreTrainedModel:
        """Give the tuned speech model alone, see [`BrainTunedModel.merge_body`].

        Returns:
            `PreTrainedModel`: a model of the body's own class.
        """
        return self.model.merge_body()

    def set_regions(self, region_of_voxel: torch.Tensor) -> None:
        """Say which region each voxel belongs to, for `readout="regions"`.

        Args:
            region_of_voxel (`torch.Tensor` of shape `(X,)`): from 0 to `config.num_regions - 1`; saved with the model.

        Raises:
            ValueError: if the readout has no regions, or the tensor does not fit.
        """
        wanted, regions = self.config.num_voxels, self.config.num_regions
        if self.config.readout != "regions":
            raise ValueError(f"`readout` is {self.config.readout!r}, which has no regions.")
        if tuple(region_of_voxel.shape) != (wanted,) or not 0 <= int(region_of_voxel.min()) <= int(
            region_of_voxel.max()
        ) < regions:  # fmt: skip
            raise ValueError(f"`region_of_voxel` must hold {wanted} numbers from 0 to {regions - 1}.")
        self.head.region_of_voxel.copy_(region_of_voxel)
