"""The encoder of intracranial EEG that is trained to find the sound that was heard."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import ModelOutput

from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .layers_bit import find_participant, per_participant
from .layers_ieeg_audio import AttentionPooling, ConvolutionLayer, IndexedAffine, PositionReadIn
from .losses_ieeg_audio import clip_loss, cosine_similarities, duplicate_positives, siglip_loss


@dataclass
class IEEGAudioOutput(ModelOutput):
    """Output of [`IEEGAudioModel`] and [`IEEGAudioForRetrieval`].

    Args:
        loss (`torch.Tensor`, *optional*): scalar, when `labels` were given.
        logits (`torch.Tensor` of shape `(B, B)`, *optional*): scaled similarity of every window with every audio
            vector of the batch, when `labels` were given.
        embedding (`torch.Tensor` of shape `(B, D)`): the predicted audio vector of each window.
        time_weights (`torch.Tensor` of shape `(B, T)`, *optional*): weight of every bin; None for the baselines.
        session_logits (`torch.Tensor` of shape `(B, S)`, *optional*): scores of the sessions, when there is an
            adversary.
        states (`torch.Tensor` of shape `(B, F)`): what the embedding is projected from.
        target_embeddings (`dict` of `torch.Tensor`, *optional*): the predicted vector of each further target.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    embedding: torch.Tensor | None = None
    time_weights: torch.Tensor | None = None
    session_logits: torch.Tensor | None = None
    states: torch.Tensor | None = None
    target_embeddings: dict[str, torch.Tensor] | None = None


class IEEGAudioPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    """What the iEEG models share: loading, saving and initial values."""

    config_class = IEEGAudioConfig
    base_model_prefix = "encoder"
    main_input_name = "input_features"
    accepts_loss_kwargs = False  # or gradient accumulation would scale the mean loss

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # torch's own values, as in the published networks; everything that a checkpoint may lack is covered, because
        # loading builds on the meta device and leaves uninitialised memory where nothing is set.
        if isinstance(module, (nn.Linear, nn.Conv1d)):
            if getattr(module, "starts_as_identity", False):
                init.eye_(module.weight)
                init.zeros_(module.bias)
                return
            bound = module.weight[0].numel() ** -0.5
            init.uniform_(module.weight, -bound, bound)
            init.uniform_(module.bias, -bound, bound)
        elif isinstance(module, nn.BatchNorm1d):
            init.ones_(module.weight)
            init.zeros_(module.bias)
            init.zeros_(module.running_mean)
            init.ones_(module.running_var)
            init.zeros_(module.num_batches_tracked)
        elif isinstance(module, IndexedAffine):
            init.copy_(module.weight, torch.eye(module.weight.shape[1]).expand_as(module.weight))
            if module.bias is not None:
                init.zeros_(module.bias)
        elif isinstance(module, PositionReadIn):
            init.normal_(module.queries)
            if module.regions is not None:
                init.zeros_(module.regions)
        elif isinstance(module, nn.ParameterDict):
            for temperature in module.values():
                init.constant_(temperature, self.config.temperature_init)
        elif isinstance(module, IEEGAudioForRetrieval):
            init.constant_(module.temperature, self.config.temperature_init)
            if module.logit_bias is not None:
                init.constant_(module.logit_bias, -10.0)  # most pairs do not belong together


class IEEGAudioModel(IEEGAudioPreTrainedModel):
    """Windows of iEEG in, one vector in the space of audio features for each window out.

    Args:
        config (`IEEGAudioConfig`): the configuration.

    Note:
        Evanson et al. 2025, arXiv 2512.15830; see [`IEEGAudioConfig`] for what the paper leaves open.

    Example:
        ```python
        >>> config = IEEGAudioConfig.preset("neuralbench", participants={"s1": 6}, hidden_size=8, embedding_size=5)
        >>> IEEGAudioModel(config)(torch.zeros(2, 120, 6)).embedding.shape
        torch.Size([2, 5])

        ```
    """

    def __init__(self, config: IEEGAudioConfig) -> None:
        super().__init__(config)
        size, width = config.initial_size, config.embedding_size
        count = len(config.participants)
        self.participant_layer = (
            IndexedAffine(count, size, config.participant_dropout, bias=False) if config.participant_layer else None
        )
        self.session_layer = (
            IndexedAffine(len(config.sessions), size, config.session_dropout, bias=True)
            if config.session_layer
            else None
        )
        self.layers, self.output, self.pooling, self.projection = None, None, None, None
        if config.encoder_type == "linear":
            channels = next(iter(config.participants.values()))
            self.read_in = None
            self.participant_layer = self.session_layer = None
            self.projection = nn.Linear(channels * config.window_bins, width)
        else:
            self.read_in = (
                PositionReadIn(size, config.position_frequencies, len(config.regions))
                if config.read_in == "position"
                else per_participant(config.participants, lambda channels: nn.Conv1d(channels, size, 1))
            )
            if config.encoder_type == "mean_linear":
                self.projection = nn.Linear(size, width)
            else:
                self._build_convolutions(config)
        self.head = None
        if config.finetuning_head:
            self._build_head()
        self.post_init()

    def _build_convolutions(self, config: IEEGAudioConfig) -> None:
        self.layers = nn.ModuleList(ConvolutionLayer(config, index) for index in range(config.num_hidden_layers))
        if config.output_layers == "two_convolutions":
            self.output = nn.Sequential(
                nn.Conv1d(config.hidden_size, 2 * config.hidden_size, 1),
                nn.GELU(),
                nn.Conv1d(2 * config.hidden_size, config.embedding_size, 1),
            )
            self.pooling = AttentionPooling(config.embedding_size, config.pool_size)
        else:
            self.pooling = AttentionPooling(config.output_size, config.pool_size)
            self.projection = nn.Linear(config.output_size, config.embedding_size)

    @property
    def state_size(self) -> int:
        """Width F of `states` (`int`)."""
        if self.config.encoder_type == "linear" or self.projection is None:
            return self.config.embedding_size
        return self.projection.in_features

    def _build_head(self) -> None:
        self.head = nn.Linear(self.config.embedding_size, self.config.embedding_size)
        self.head.starts_as_identity = True

    def add_finetuning_head(self) -> None:
        """Append the linear layer (D, D) of finetuning, unless it is there.

        Note:
            It starts as the identity, so that finetuning starts from what pretraining found. The paper does not say
            how it starts.
        """
        if self.head is not None:
            return
        self.config.finetuning_head = True
        parameter = next(self.parameters())
        self._build_head()
        nn.init.eye_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(parameter)

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        channel_positions: torch.Tensor | None = None,
        channel_regions: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> IEEGAudioOutput | tuple:
        """Embed windows.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): scaled and clamped iEEG.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each window, all equal;
                -1 is someone new, whom only `read_in="position"` can read.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each window; -1 is a new one.
            channel_positions (`torch.Tensor` of shape `(B, C, 3)`, *optional*): metres; for `read_in="position"`.
            channel_regions (`torch.Tensor` of shape `(B, C)`, *optional*): positions in `config.regions`, -1 where
                unknown; for `read_in="position"`.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `IEEGAudioOutput` or `tuple`.

        Raises:
            ValueError: if a shape or index does not fit, or positions are missing.
        """
        config = self.config
        mask = self._check_mask(input_features, attention_mask)
        features = input_features if mask is None else input_features * mask.unsqueeze(-1).to(input_features.dtype)
        if config.encoder_type == "linear":
            find_participant(config.participants, participant_index, input_features)
            if features.shape[1] != config.window_bins:
                raise ValueError(
                    f"Windows have {features.shape[1]} bins, the linear encoder reads {config.window_bins}."
                )
            embedding, weights = self.projection(features.flatten(1)), None
            states = embedding
        else:
            hidden = self._read_in(
                features.transpose(1, 2), input_features, participant_index, channel_positions, channel_regions
            )
            if self.participant_layer is not None:
                hidden = self.participant_layer(hidden, participant_index)
            if self.session_layer is not None:
                hidden = self.session_layer(hidden, session_index)
            states, weights = self._encode(hidden, mask)
            embedding = states if self.projection is None else self.projection(states)
        if self.head is not None:
            embedding = self.head(embedding)
        output = IEEGAudioOutput(embedding=embedding, time_weights=weights, states=states)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _check_mask(self, features: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor | None:
        if features.dim() != 3:
            raise ValueError(f"`input_features` must be (batch, bins, channels), got shape {tuple(features.shape)}.")
        if mask is None:
            return None
        if mask.shape != features.shape[:2]:
            raise ValueError(
                f"`attention_mask` has shape {tuple(mask.shape)}, the windows {tuple(features.shape[:2])}."
            )
        mask = mask.bool()
        if mask.device.type == "cpu" and not bool(mask.any(dim=1).all()):
            raise ValueError("A window has no real bin in `attention_mask`: leave it out.")
        return mask

    def _read_in(
        self,
        features: torch.Tensor,
        input_features: torch.Tensor,
        participant_index: torch.Tensor | None,
        channel_positions: torch.Tensor | None,
        channel_regions: torch.Tensor | None,
    ) -> torch.Tensor:
        if self.config.read_in == "position":
            if channel_positions is None:
                raise ValueError("read_in='position' needs `channel_positions` of shape (B, C, 3) in metres.")
            return self.read_in(features, channel_positions, channel_regions)
        return self.read_in[find_participant(self.config.participants, participant_index, input_features)](features)

    def _encode(self, hidden: torch.Tensor, mask: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Pooled states `(B, F)` and the weight of every bin."""
        real = None if mask is None else mask.unsqueeze(1).to(hidden.dtype)  # (B, 1, T)
        if self.layers is None:
            mean = hidden.mean(dim=2) if real is None else (hidden * real).sum(dim=2) / real.sum(dim=2)
            return mean, None
        hidden = hidden if real is None else hidden * real  # the read-in's bias fills padding too
        for layer in self.layers:
            hidden = layer(hidden, real)
        if self.output is not None:
            hidden = self.output(hidden)
        return self.pooling(hidden.transpose(1, 2), mask)


class IEEGAudioForRetrieval(IEEGAudioPreTrainedModel):
    """The encoder with the contrastive loss that trains it: among the sounds of a batch, find the one that was heard.

    Args:
        config (`IEEGAudioConfig`): the configuration.

    Note:
        Evanson et al. 2025, arXiv 2512.15830: cosine similarity, learnable temperature, negatives from the batch.
        The temperature is clamped, at log 100 as in CLIP. The day adversary (Ganin et al. 2016, arXiv 1505.07818)
        goes beyond the paper.

    Example:
        ```python
        >>> config = IEEGAudioConfig.preset("neuralbench", participants={"s1": 6}, hidden_size=8, embedding_size=5)
        >>> output = IEEGAudioForRetrieval(config)(torch.randn(4, 120, 6), labels=torch.randn(4, 5))
        >>> output.logits.shape, bool(output.loss > 0)
        (torch.Size([4, 4]), True)

        ```
    """

    def __init__(self, config: IEEGAudioConfig) -> None:
        super().__init__(config)
        self.encoder = IEEGAudioModel(config)
        self.temperature = nn.Parameter(torch.tensor(config.temperature_init))
        self.logit_bias = nn.Parameter(torch.tensor(-10.0)) if config.loss == "siglip" else None
        self.day_adversary = (
            nn.Linear(config.embedding_size, len(config.sessions)) if config.day_adversary_weight else None
        )
        self.target_heads = nn.ModuleDict(
            {name: nn.Linear(self.encoder.state_size, size) for name, size in config.extra_targets.items()}
        )
        self.target_temperatures = nn.ParameterDict(
            {name: nn.Parameter(torch.tensor(config.temperature_init)) for name in config.extra_targets}
        )
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        channel_positions: torch.Tensor | None = None,
        channel_regions: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> IEEGAudioOutput | tuple:
        """Embed windows and, given the audio, score how well they find it.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): scaled and clamped iEEG.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): see [`IEEGAudioModel`].
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): see [`IEEGAudioModel`].
            channel_positions (`torch.Tensor` of shape `(B, C, 3)`, *optional*): see [`IEEGAudioModel`].
            channel_regions (`torch.Tensor` of shape `(B, C)`, *optional*): see [`IEEGAudioModel`].
            labels (`torch.Tensor` of shape `(B, D)`, *optional*): z-scored audio features of each window; followed by
                those of `config.extra_targets`, if there are any.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `IEEGAudioOutput` or `tuple`.

        Raises:
            ValueError: if a shape or index does not fit.
        """
        config = self.config
        output = self.encoder(
            input_features,
            attention_mask,
            participant_index,
            session_index,
            channel_positions,
            channel_regions,
            return_dict=True,
        )
        if self.target_heads:
            output.target_embeddings = {name: head(output.states) for name, head in self.target_heads.items()}
        if labels is not None:
            wanted = self._split_labels(labels, len(input_features))
            output.logits, output.loss = self._compare(output.embedding, wanted["audio"], self.temperature)
            for name, found in (output.target_embeddings or {}).items():
                loss = self._compare(found, wanted[name], self.target_temperatures[name])[1]
                output.loss = output.loss + config.target_weights.get(name, 1.0) * loss
            if self.day_adversary is not None:
                output.loss = output.loss + config.day_adversary_weight * self._adversary_loss(output, session_index)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _split_labels(self, labels: torch.Tensor, windows: int) -> dict[str, torch.Tensor]:
        sizes = {"audio": self.config.embedding_size, **self.config.extra_targets}
        if len(labels) != windows or labels.dim() != 2 or labels.shape[1] != self.config.label_size:
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)} for {windows} windows: expected one row each, of widths "
                f"{', '.join(f'{name} {size}' for name, size in sizes.items())}."
            )
        return dict(zip(sizes, labels.split(list(sizes.values()), dim=1), strict=True))

    def _compare(
        self, found: torch.Tensor, wanted: torch.Tensor, temperature: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scaled similarities and the contrastive loss."""
        config = self.config
        factor = temperature.clamp(max=config.temperature_max).exp()
        logits = factor * cosine_similarities(found, wanted)
        if self.logit_bias is None:
            return logits, clip_loss(logits, config.symmetric)
        logits = logits + self.logit_bias
        return logits, siglip_loss(logits, duplicate_positives(wanted, config.duplicate_threshold))

    @property
    def scale(self) -> torch.Tensor:
        """Factor on the similarities, after clamping (`torch.Tensor`, scalar)."""
        return self.temperature.clamp(max=self.config.temperature_max).exp()

    def _adversary_loss(self, output: IEEGAudioOutput, session_index: torch.Tensor | None) -> torch.Tensor:
        if session_index is None:
            raise ValueError("The day adversary needs the `session_index` of every window.")
        # The same value, the opposite gradient: the head learns the day, the encoder unlearns it.
        vector = F.normalize(output.embedding, dim=1)
        reversed_vector = 2 * vector.detach() - vector
        output.session_logits = self.day_adversary(reversed_vector)
        if bool((session_index >= 0).any()):
            return F.cross_entropy(output.session_logits, session_index.long().clamp(min=-1), ignore_index=-1)
        return output.session_logits.sum() * 0.0
