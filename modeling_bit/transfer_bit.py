"""From one encoder to another: what a pretrained encoder gives to a participant with other channels."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .modeling_bit import BITModel, BITPreTrainedModel

# What two encoders must share for the weights of one to mean anything in the other.
_SHARED = (
    "patch_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "rope_theta",
)


@torch.no_grad()
def load_pretrained_encoder(
    model: BITPreTrainedModel,
    source: str | os.PathLike | BITPreTrainedModel,
    kept_channels: Mapping[str, Sequence[int]] | None = None,
    new_read_in: Sequence[str] = (),
) -> dict[str, str]:
    """Copy a pretrained encoder into a model for other participants or other channels.

    Blocks, final norm and mask token are always copied. The read-in of a participant that both models know is copied
    too; when its channels have grown (threshold crossings, then spike-band power as well), the columns of the old
    channels are copied and those of the new ones start at zero, so that the embedding is at first that of the old
    channels. Everything else keeps its initial values.

    Args:
        model ([`BITForCTC`], [`BITModel`] or [`BITForMaskedModeling`]): is changed.
        source (`str`, `os.PathLike` or model): saved folder, Hub name, or model with the pretrained encoder.
        kept_channels (`Mapping[str, Sequence[int]]`, *optional*): participant name -> for each old channel in order its
            position among the model's channels. Needed for a participant whose number of channels has changed.
        new_read_in (`Sequence[str]`, *optional*): participants of the model whose read-in keeps its initial values,
            though it could be copied.

    Returns:
        `dict[str, str]`: for each participant of `model` what happened to its read-in: `"copied"`, `"widened"` or
        `"new"`.

    Raises:
        ValueError: if the encoders have different shapes, or it is not said which channels are the old ones.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740, pretrain on threshold crossings and fine-tune with spike-band power as
        well, and do not say what becomes of the read-in. Layer norms run over all channels of a patch, so the widened
        read-in gives the old embedding only up to the scale that the new channels bring in.

    Example:
        ```python
        >>> from configuration_bit.configuration_bit import BITConfig
        >>> small = {"hidden_size": 24, "num_hidden_layers": 1}
        >>> pretrained = BITModel(BITConfig(participants={"monkey": 4, "t15": 6}, **small))
        >>> model = BITModel(BITConfig(participants={"t12": 8, "t15": 12}, **small))
        >>> load_pretrained_encoder(model, pretrained, kept_channels={"t15": range(6)})
        {'t12': 'new', 't15': 'widened'}

        ```
    """
    if isinstance(source, (str, os.PathLike)):
        source = BITModel.from_pretrained(source)
    old: BITModel = getattr(source, "encoder", source)
    new: BITModel = getattr(model, "encoder", model)
    different = {
        key: (getattr(old.config, key), getattr(new.config, key))
        for key in _SHARED
        if getattr(old.config, key) != getattr(new.config, key)
    }
    if different:
        listed = ", ".join(f"{key} {was} and {now}" for key, (was, now) in different.items())
        raise ValueError(f"The pretrained encoder and the model differ in {listed}: build the model with the former.")
    kept_channels = dict(kept_channels or {})
    strangers = sorted(set(new_read_in) - set(new.config.participants))
    if strangers:
        raise ValueError(f"`new_read_in` names {strangers}, but the model knows {sorted(new.config.participants)}.")
    unknown = sorted(set(kept_channels) - (set(old.read_in) & set(new.read_in)))
    if unknown:
        raise ValueError(
            f"`kept_channels` names {unknown}, but the participants of both models are "
            f"{sorted(set(old.read_in) & set(new.read_in))}."
        )

    done = {}
    for name, channels in new.config.participants.items():
        before = old.config.participants.get(name)
        if before is None or name in new_read_in:
            done[name] = "new"
        elif before == channels and name not in kept_channels:
            new.read_in[name].load_state_dict(old.read_in[name].state_dict())
            done[name] = "copied"
        else:
            kept = _check_kept(name, kept_channels.get(name), before, channels)
            _widen(old.read_in[name], new.read_in[name], kept, channels, new.config.patch_size)
            done[name] = "widened"
    new.layers.load_state_dict(old.layers.state_dict())
    new.norm.load_state_dict(old.norm.state_dict())
    new.mask_token.copy_(old.mask_token)
    return done


def _check_kept(name: str, kept: Sequence[int] | None, before: int, channels: int) -> list[int]:
    if kept is None:
        raise ValueError(
            f"Participant {name!r} had {before} channels in pretraining and has {channels} now: say which of the "
            f"{channels} the old ones are, e.g. kept_channels={{{name!r}: range({before})}}."
        )
    kept = [int(position) for position in kept]
    if len(kept) != before or len(set(kept)) != before or not all(0 <= position < channels for position in kept):
        raise ValueError(
            f"`kept_channels` of {name!r} must be {before} different positions below {channels}, got {kept}."
        )
    return kept


def _widen(old: nn.Module, new: nn.Module, kept: list[int], channels: int, patch_size: int) -> None:
    """Give a read-in of more channels the columns of one of fewer."""
    bins = torch.arange(patch_size, device=new.projection.weight.device)[:, None]
    columns = (bins * channels + torch.tensor(kept, device=bins.device)).flatten()  # a patch is bin after bin
    new.projection.weight.zero_()
    new.projection.weight[:, columns] = old.projection.weight.to(new.projection.weight)
    new.projection.bias.copy_(old.projection.bias)
    new.norm_in.weight[columns] = old.norm_in.weight.to(new.norm_in.weight)
    new.norm_in.bias[columns] = old.norm_in.bias.to(new.norm_in.bias)
    new.norm_out.load_state_dict(old.norm_out.state_dict())
