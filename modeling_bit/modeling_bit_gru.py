"""The benchmark's recurrent baseline."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from transformers import initialization as init
from transformers.modeling_utils import PreTrainedModel

from configuration_bit.configuration_bit_gru import BITGRUConfig
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .layers_bit import (
    Dropout,
    SessionLinear,
    count_frames,
    ctc_loss,
    extract_patches,
    find_participant,
    init_identity,
    prepare_frames,
)
from .modeling_bit import BITCTCOutput, BITModelOutput


class BITGRUPreTrainedModel(RemoteCodeMixin, PreTrainedModel):
    """What the recurrent models share: loading, saving and initial values."""

    config_class = BITGRUConfig
    base_model_prefix = "encoder"
    main_input_name = "input_features"
    accepts_loss_kwargs = False  # or gradient accumulation would scale the mean loss

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
        # The released baseline's values. Everything that a checkpoint may lack is covered (see BITPreTrainedModel).
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
            init.uniform_(module.bias, -(module.in_features**-0.5), module.in_features**-0.5)
        elif isinstance(module, nn.ParameterDict):
            init_identity(module)
        elif isinstance(module, BITGRUModel):
            init.xavier_uniform_(module.initial_state)


class BITGRUModel(BITGRUPreTrainedModel):
    """Day layers, overlapping patches and a stack of gated recurrent units.

    Args:
        config (`BITGRUConfig`): the configuration.

    Example:
        ```python
        >>> model = BITGRUModel(BITGRUConfig(participants={"t15": 8}, hidden_size=16, num_hidden_layers=1)).eval()
        >>> model(torch.zeros(2, 22, 8)).last_hidden_state.shape
        torch.Size([2, 3, 16])

        ```
    """

    def __init__(self, config: BITGRUConfig) -> None:
        super().__init__(config)
        (channels,) = config.participants.values()
        self.day_layers = SessionLinear(config.sessions, channels)
        self.input_dropout = Dropout(config.input_dropout)
        self.gru = nn.GRU(
            input_size=config.patch_size * channels,
            hidden_size=config.hidden_size,
            num_layers=config.num_hidden_layers,
            dropout=config.hidden_dropout if config.num_hidden_layers > 1 else 0.0,
            batch_first=True,
            bidirectional=config.bidirectional,
        )
        self.initial_state = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BITModelOutput | tuple:
        """Encode trials.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): zeros; the model reads one participant.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; needed when the
                configuration names more than one.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITModelOutput` or `tuple`: states `(B, P, D)` and the frame mask.

        Raises:
            ValueError: if a shape, index or mask does not fit.
        """
        config = self.config
        find_participant(config.participants, participant_index, input_features)
        lengths, frame_mask = prepare_frames(input_features, attention_mask, config.patch_size, config.patch_stride)
        features = input_features.to(self.initial_state.dtype)
        if attention_mask is not None:
            features = features.masked_fill(~attention_mask.bool()[..., None], 0.0)  # whatever it holds, NaN too
        features = nn.functional.softsign(self.day_layers(features, session_index))
        patches = extract_patches(self.input_dropout(features), config.patch_size, config.patch_stride)

        layers = config.num_hidden_layers * (2 if config.bidirectional else 1)
        state = self.initial_state.expand(layers, patches.shape[0], -1).contiguous()
        if config.bidirectional and attention_mask is not None:
            # The backward direction must start at each trial's own end. Forwards, what follows the end is harmless.
            packed = nn.utils.rnn.pack_padded_sequence(
                patches, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False
            )
            packed_output, _ = self.gru(packed, state)
            hidden, _ = nn.utils.rnn.pad_packed_sequence(packed_output, True, total_length=patches.shape[1])
        else:
            hidden, _ = self.gru(patches, state)
        output = BITModelOutput(last_hidden_state=hidden, frame_mask=frame_mask)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()


class BITGRUForCTC(BITGRUPreTrainedModel):
    """The recurrent baseline of Brain-to-Text '25 with its phoneme head, trained with CTC.

    Args:
        config (`BITGRUConfig`): the configuration.

    Note:
        Card et al. 2024, doi:10.1056/NEJMoa2314132, as released with Brain-to-Text '25: day-specific input layers with
        softsign, patches of 14 bins every 4, five layers of 768 units, learnable initial state.

    Example:
        ```python
        >>> config = BITGRUConfig(participants={"t15": 8}, hidden_size=16, num_hidden_layers=1)
        >>> BITGRUForCTC(config).eval()(torch.zeros(2, 22, 8)).logits.shape
        torch.Size([2, 3, 41])

        ```
    """

    def __init__(self, config: BITGRUConfig) -> None:
        super().__init__(config)
        self.encoder = BITGRUModel(config)
        self.head = nn.Linear(config.hidden_size * (2 if config.bidirectional else 1), config.vocab_size)
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
    ) -> BITCTCOutput | tuple:
        """Score the phoneme classes in every frame.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): processed features, 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): zeros; the model reads one participant.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; needed when the
                configuration names more than one.
            labels (`torch.Tensor` of shape `(B, L)`, *optional*): phoneme classes, padded with -100.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITCTCOutput` or `tuple`: loss (when labels are given), logits, frame mask.

        Raises:
            ValueError: if a shape, index, mask or label does not fit.
        """
        config = self.config
        encoded = self.encoder(input_features, attention_mask, participant_index, session_index, return_dict=True)
        logits = self.head(encoded.last_hidden_state)  # (B, P, V)
        loss = None
        if labels is not None:
            lengths = encoded.frame_mask.sum(dim=1)
            loss = ctc_loss(
                logits, lengths, labels, config.pad_token_id, config.ctc_loss_reduction, config.ctc_zero_infinity
            )
        output = BITCTCOutput(loss=loss, logits=logits, frame_mask=encoded.frame_mask)
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    @classmethod
    def from_brain_to_text_25_checkpoint(
        cls,
        path: str | os.PathLike,
        sessions: Sequence[str],
        participant: str = "t15",
        patch_stride: int = 4,
        **config_values: Any,
    ) -> BITGRUForCTC:
        """Load the baseline checkpoint that was released with Brain-to-Text '25.

        The names map as follows (prefixes `module.` and `_orig_mod.` are dropped first):

        | released | here |
        |---|---|
        | `day_weights.N` `(C, C)` | `encoder.day_layers.weight.<session N>` |
        | `day_biases.N` `(1, C)` | `encoder.day_layers.bias.<session N>` `(C,)` |
        | `h0` `(1, 1, D)` | `encoder.initial_state` |
        | `gru.*` | `encoder.gru.*` |
        | `out.weight`, `out.bias` | `head.weight`, `head.bias` |

        Sizes are read from the tensors. Patches are flattened in the same order (bin after bin), so the outputs are
        equal, given features smoothed as the baseline expects.

        Args:
            path (`str` or `os.PathLike`): the checkpoint file (`checkpoint/best_checkpoint`), or a bare state dict.
            sessions (`Sequence[str]`): the session names in the order of the checkpoint's `args.yaml`.
            participant (`str`, defaults to `"t15"`): name to give the participant.
            patch_stride (`int`, defaults to 4): bins between patches; the tensors do not tell it.
            **config_values: further values for [`BITGRUConfig`], such as dropouts for continued training.

        Returns:
            `BITGRUForCTC`: in evaluation mode.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is not such a checkpoint, or the number of sessions differs.

        Note:
            Only tensors and plain numbers are unpickled (`weights_only=True`, with numpy scalars allowed, because the
            released file stores its validation scores as such).
        """
        if not Path(path).is_file():
            raise FileNotFoundError(f"No checkpoint file at {path}: give the baseline's `checkpoint/best_checkpoint`.")
        with torch.serialization.safe_globals(_numpy_scalar_types()):
            content = torch.load(path, map_location="cpu", weights_only=True)
        state = content.get("model_state_dict", content) if isinstance(content, dict) else {}
        state = {name.replace("module.", "").replace("_orig_mod.", ""): value for name, value in state.items()}
        missing = [name for name in ("day_weights.0", "h0", "gru.weight_ih_l0", "out.weight") if name not in state]
        if missing:
            raise ValueError(f"{path} is not a Brain-to-Text '25 baseline checkpoint: it lacks {missing}.")
        num_days = sum(name.startswith("day_weights.") for name in state)
        if len(sessions) != num_days:
            raise ValueError(
                f"{path} has {num_days} day layers, but {len(sessions)} sessions were named: give the list of its "
                "args.yaml, in its order."
            )
        channels = state["day_weights.0"].shape[0]
        config = BITGRUConfig(
            vocab_size=state["out.weight"].shape[0],
            participants={participant: channels},
            sessions=list(sessions),
            patch_size=state["gru.weight_ih_l0"].shape[1] // channels,
            patch_stride=patch_stride,
            hidden_size=state["h0"].shape[-1],
            num_hidden_layers=sum(name.startswith("gru.weight_ih_l") for name in state),
            **config_values,
        )
        model = cls(config)
        keys = model.encoder.day_layers.keys
        mapped = {"encoder.initial_state": state["h0"]}
        for name, value in state.items():
            kind, _, rest = name.partition(".")
            if kind == "day_weights":
                mapped[f"encoder.day_layers.weight.{keys[int(rest)]}"] = value
            elif kind == "day_biases":
                mapped[f"encoder.day_layers.bias.{keys[int(rest)]}"] = value.reshape(-1)
            elif kind == "gru":
                mapped[f"encoder.{name}"] = value
            elif kind == "out":
                mapped[f"head.{rest}"] = value
            elif name != "h0":
                raise ValueError(f"{path} has an unknown tensor {name!r}: it is not the released baseline.")
        model.load_state_dict(mapped)
        return model.eval()


def _numpy_scalar_types() -> list[Any]:
    """What a pickled numpy number is made of; under its names before and since numpy 2."""
    scalar = np._core.multiarray.scalar
    dtypes = [type(np.dtype(name)) for name in ("float32", "float64", "int64")]
    return [(scalar, "numpy.core.multiarray.scalar"), (scalar, "numpy._core.multiarray.scalar"), np.dtype, *dtypes]
