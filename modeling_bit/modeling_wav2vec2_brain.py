"""A speech model that listens to the cortex: recurrent front end, transformer body pretrained on audio, CTC head."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import AutoModel, AutoModelForCTC
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging

from configuration_bit.configuration_wav2vec2_brain import SPEECH_BODIES, Wav2Vec2BrainConfig
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .layers_bit import (
    SessionLinear,
    count_frames,
    ctc_loss,
    extract_patches,
    find_participant,
    init_identity,
    prepare_frames,
)
from .masking_bit import sample_span_mask
from .modeling_bit import BITCTCOutput

logger = logging.get_logger(__name__)


class Wav2Vec2BrainFrontEnd(nn.Module):
    """Brain feature extractor: day layers, overlapping patches, recurrent layers and a projection to the body's width.

    Args:
        config (`Wav2Vec2BrainConfig`): the configuration.
    """

    def __init__(self, config: Wav2Vec2BrainConfig) -> None:
        super().__init__()
        self.config = config
        (channels,) = config.participants.values()
        width = config.body_config.hidden_size
        self.day_layers = SessionLinear(config.sessions, channels)
        self.gru = nn.GRU(
            input_size=config.patch_size * channels,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            dropout=config.hidden_dropout if config.num_hidden_layers > 1 else 0.0,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        sizes = [config.hidden_size * (2 if config.bidirectional else 1), *config.projection_sizes, width]
        layers: list[nn.Module] = []
        for before, after in zip(sizes, sizes[1:]):
            layers += [nn.Linear(before, after), nn.GELU()]
        self.projection = nn.Sequential(*layers[:-1])
        self.norm = nn.LayerNorm(width, eps=config.body_config.layer_norm_eps) if config.junction_norm else None
        self.mask_token = nn.Parameter(torch.zeros(width)) if config.mask_ratio > 0 else None

    def forward(
        self, features: torch.Tensor, lengths: torch.Tensor, session_index: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Turn brain features into what the body takes for speech.

        Args:
            features (`torch.Tensor` of shape `(B, T, C)`): trials; zeros after each trial's end.
            lengths (`torch.Tensor` of shape `(B,)`): real frames of each trial.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`.
        """
        config = self.config
        features = nn.functional.softsign(self.day_layers(features, session_index))
        patches = extract_patches(features, config.patch_size, config.patch_stride)
        if config.bidirectional and not config.legacy:
            # The backward direction must start at each trial's own end. Forwards, what follows the end is harmless.
            packed = nn.utils.rnn.pack_padded_sequence(
                patches, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
            )
            states, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], True, total_length=patches.shape[1])
        else:
            states, _ = self.gru(patches)
        states = self.projection(states)
        return states if self.norm is None else self.norm(states)

    def mask(self, states: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """Hide spans of frames from the body, in training only.

        Args:
            states (`torch.Tensor` of shape `(B, P, D)`): what [`forward`] gave.
            lengths (`torch.Tensor` of shape `(B,)`): real frames of each trial.

        Returns:
            `torch.Tensor` of shape `(B, P, D)`: a copy; the bodies write into what they are given.
        """
        if not self.training or self.mask_token is None:
            return states.clone()
        masked = sample_span_mask(lengths, states.shape[1], self.config.mask_ratio, self.config.mask_max_span)
        return torch.where(masked[..., None], self.mask_token.to(states.dtype), states)


class Wav2Vec2BrainForCTC(RemoteCodeMixin, PreTrainedModel):
    """A Wav2Vec2, HuBERT, WavLM or data2vec-audio body behind a recurrent front end, trained with CTC.

    Args:
        config (`Wav2Vec2BrainConfig`): the configuration. Building the model from it gives random weights everywhere;
            [`~Wav2Vec2BrainForCTC.from_speech_checkpoint`] takes body and head from a model that was trained on audio.

    Note:
        Fiedler et al. 2025, arXiv 2501.09459. Departures (unless `config.legacy`): recurrent layers and body see each
        trial to its own end only, CTC gets every frame, and a frozen body has no dropout. The body's convolutions over
        audio, its feature projection and its own masking are left out, as in the published system.

    Example:
        ```python
        >>> body = {"model_type": "wav2vec2", "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2,
        ...         "intermediate_size": 32, "conv_dim": [8], "conv_kernel": [10], "conv_stride": [5],
        ...         "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2}
        >>> config = Wav2Vec2BrainConfig(participants={"t12": 8}, hidden_size=16, num_hidden_layers=1, body_config=body)
        >>> Wav2Vec2BrainForCTC(config).eval()(torch.zeros(2, 40, 8)).logits.shape
        torch.Size([2, 3, 32])

        ```
    """

    config_class = Wav2Vec2BrainConfig
    base_model_prefix = "model"
    main_input_name = "input_features"
    accepts_loss_kwargs = False  # or gradient accumulation would scale the mean loss
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: Wav2Vec2BrainConfig) -> None:
        super().__init__(config)
        width = config.body_config.hidden_size
        self.front_end = Wav2Vec2BrainFrontEnd(config)
        self.auxiliary_head = nn.Linear(width, config.vocab_size) if config.auxiliary_ctc_weight > 0 else None
        # The whole speech model, so that its own class gives its own initial values; then only what frames go through.
        self.body = AutoModel.from_config(config.body_config)
        for unused in ("feature_extractor", "feature_projection", "masked_spec_embed", "adapter"):
            if hasattr(self.body, unused):
                delattr(self.body, unused)
        self.dropout = nn.Dropout(getattr(config.body_config, "final_dropout", 0.0))
        self.head = nn.Linear(width, config.vocab_size)
        self.post_init()
        self.train()

    def num_frames(self, num_bins: int | torch.Tensor) -> int | torch.Tensor:
        """Number of output frames of a trial; a trailing partial patch is dropped.

        Args:
            num_bins (`int` or `torch.Tensor`): number of bins.

        Returns:
            `int` or `torch.Tensor`: number of frames, never below 0.
        """
        return count_frames(num_bins, self.config.patch_size, self.config.patch_stride)

    def train(self, mode: bool = True) -> Wav2Vec2BrainForCTC:
        """Switch dropout on or off; a frozen body stays frozen, and has no dropout unless `config.legacy`.

        Args:
            mode (`bool`, defaults to `True`): True = training.

        Returns:
            `Wav2Vec2BrainForCTC`: itself.
        """
        super().train(mode)
        if self.config.freeze_body:
            # Here and not only at the start: loading gives every parameter a gradient again, and ends with `eval()`.
            self.body.requires_grad_(False)
            self.head.requires_grad_(False)
            if not self.config.legacy:
                self.body.eval()
                self.dropout.eval()
        return self

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        # Everything of ours that a checkpoint may lack; the body initialises itself.
        if isinstance(module, nn.GRU):
            bound = module.hidden_size**-0.5
            for name, parameter in module.named_parameters():
                if "weight_hh" in name:
                    init.orthogonal_(parameter)
                elif "weight_ih" in name:
                    init.xavier_uniform_(parameter)
                else:
                    init.uniform_(parameter, -bound, bound)
        elif isinstance(module, nn.Linear):
            init.xavier_uniform_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.LayerNorm):
            init.ones_(module.weight)
            init.zeros_(module.bias)
        elif isinstance(module, nn.ParameterDict):
            init_identity(module)
        elif isinstance(module, Wav2Vec2BrainFrontEnd) and module.mask_token is not None:
            init.normal_(module.mask_token, std=0.02)

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        return_dict: bool | None = None,
    ) -> BITCTCOutput | tuple:
        """Score the classes in every frame.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): zeros; the model reads one participant.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; needed when the
                configuration names more than one.
            labels (`torch.Tensor` of shape `(B, L)`, *optional*): classes, padded with -100.
            output_hidden_states (`bool`, defaults to `False`): also return the frames before and after the body.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITCTCOutput` or `tuple`: loss (when labels are given), logits, frame mask, and when asked `hidden_states`:
            two tensors `(B, P, D)`, before and after the body.

        Raises:
            ValueError: if a shape, index, mask or label does not fit.
        """
        config = self.config
        find_participant(config.participants, participant_index, input_features)
        lengths, frame_mask = prepare_frames(input_features, attention_mask, config.patch_size, config.patch_stride)
        features = input_features.to(self.head.weight.dtype)
        if attention_mask is not None:
            features = features.masked_fill(~attention_mask.bool()[..., None], 0.0)  # whatever it holds, NaN too
        before = self.front_end(features, lengths, session_index)

        entering = self.front_end.mask(before, lengths)
        with self._masked_positions(frame_mask):
            after = self.body.encoder(entering, attention_mask=None if config.legacy else frame_mask).last_hidden_state
        logits = self.head(self.dropout(after))  # (B, P, V)

        loss = None
        if labels is not None:
            frames = (lengths - 1).clamp(min=1) if config.legacy else lengths
            settings = (labels, config.pad_token_id, config.ctc_loss_reduction, config.ctc_zero_infinity)
            loss = ctc_loss(logits, frames, *settings)
            if self.auxiliary_head is not None:
                auxiliary = ctc_loss(self.auxiliary_head(before), frames, *settings)
                loss = loss + config.auxiliary_ctc_weight * auxiliary
        output = BITCTCOutput(loss=loss, logits=logits, frame_mask=frame_mask)
        if output_hidden_states:
            output.hidden_states = (before, after)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @contextmanager
    def _masked_positions(self, frame_mask: torch.Tensor) -> Iterator[None]:
        """Keep padding at zero inside position embeddings of several layers (data2vec-audio, some HuBERTs).

        Their first convolution or norm would fill it, and the next would carry it into the trial.
        """
        embedding = self.body.encoder.pos_conv_embed
        inner = [*getattr(embedding, "layers", []), *filter(None, [getattr(embedding, "batch_norm", None)])]

        def clear(module: nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:  # (B, D, P)
            return output.masked_fill(~frame_mask[:, None], 0.0)

        hooks = [] if self.config.legacy else [module.register_forward_hook(clear) for module in inner]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    @classmethod
    def from_speech_checkpoint(
        cls,
        name: str | os.PathLike,
        new_head: bool = False,
        load_kwargs: dict[str, Any] | None = None,
        **config_values: Any,
    ) -> Wav2Vec2BrainForCTC:
        """Build the model with the body of a checkpoint that was trained on audio, and its CTC head.

        What the checkpoint gives is exact; what starts random is logged, and named by
        [`~Wav2Vec2BrainForCTC.random_parts`]: the front end always, the head with `new_head`. A checkpoint that lacks
        weights of the body is refused.

        Args:
            name (`str` or `os.PathLike`): folder or Hub name of a Wav2Vec2, HuBERT, WavLM or data2vec-audio model.
            new_head (`bool`, defaults to `False`): start with a random head, for other classes (phonemes) or for
                checkpoints that were pretrained without text.
            load_kwargs (`dict`, *optional*): passed to `from_pretrained`, such as `revision` or `local_files_only`.
            **config_values: fields of [`Wav2Vec2BrainConfig`]; `vocab_size` and `pad_token_id` are those of the
                checkpoint unless `new_head`.

        Returns:
            `Wav2Vec2BrainForCTC`: in evaluation mode.

        Raises:
            ValueError: if the model type is not supported, the checkpoint lacks a weight of the body (all are listed),
                or it has no CTC head and `new_head` is False.
        """
        load_kwargs = dict(load_kwargs or {})
        body_config = cls.config_class.sub_configs["body_config"].from_pretrained(name, **load_kwargs)
        if body_config.model_type not in SPEECH_BODIES:
            raise ValueError(
                f"{name} is of model type {body_config.model_type!r}: choose one of {', '.join(SPEECH_BODIES)}."
            )
        has_head = any(str(kind).endswith("ForCTC") for kind in body_config.architectures or [])
        if not has_head and not new_head:
            raise ValueError(
                f"{name} was pretrained without a CTC head: give new_head=True to start with a random one."
            )
        auto_class = AutoModelForCTC if has_head and not new_head else AutoModel
        speech, report = auto_class.from_pretrained(name, dtype=torch.float32, output_loading_info=True, **load_kwargs)
        needed = ("encoder.", f"{speech.base_model_prefix}.encoder.", "lm_head.")
        missing = sorted(key for key in report["missing_keys"] if key.startswith(needed))
        if missing:
            raise ValueError(f"{name} lacks {len(missing)} weights, which would be random: {', '.join(missing)}.")
        if auto_class is AutoModelForCTC:
            classes = {"vocab_size": body_config.vocab_size, "pad_token_id": body_config.pad_token_id}
            for key, value in classes.items():
                if config_values.get(key, value) != value:
                    raise ValueError(
                        f"{key} is {config_values[key]}, but the head of {name} has {value}: use its vocabulary, or "
                        "give new_head=True."
                    )
            config_values |= classes
        model = cls(cls.config_class(body_config=body_config, **config_values))
        model.body.encoder.load_state_dict(speech.base_model.encoder.state_dict())
        if auto_class is AutoModelForCTC:
            model.head.load_state_dict(speech.lm_head.state_dict())
        logger.warning("%s: these parts start random: %s", name, ", ".join(model.random_parts(new_head)))
        return model.eval()

    def random_parts(self, new_head: bool = False) -> list[str]:
        """Name the parts that a speech checkpoint does not give.

        Args:
            new_head (`bool`, defaults to `False`): whether the head was not taken from the checkpoint.

        Returns:
            `list[str]`: names of modules and parameters.
        """
        parts = [f"front_end.{name}" for name, _ in self.front_end.named_children()]
        if self.front_end.mask_token is not None:
            parts.append("front_end.mask_token")
        if self.auxiliary_head is not None:
            parts.append("auxiliary_head")
        return [*parts, "head"] if new_head else parts
