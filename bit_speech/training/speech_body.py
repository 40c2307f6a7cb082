"""How a body that was pretrained on speech learns to listen to the cortex: rates, delays and low-rank adapters."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from bit_speech.import_utils import require
from bit_speech.training.parameter_groups import parameter_groups

if TYPE_CHECKING:
    from torch import nn

    from modeling_bit.modeling_wav2vec2_brain import Wav2Vec2BrainForCTC

REGIMES = ("full", "frozen", "scratch", "lora")
_SPEECH = re.compile(r"(^|\.)(body|head)\.")
# WavLM's attention reads the weights of its projections directly, past any adapter.
_ADAPTED = {"wavlm": "intermediate_dense|output_dense"}


def build_speech_model(
    checkpoint: str | os.PathLike, regime: str, new_head: bool = False, lora_rank: int = 8, **config_values: Any
) -> Any:
    """Build a speech model with a front end for recordings, ready to train in one of four regimes.

    Args:
        checkpoint (`str` or `os.PathLike`): folder or Hub name of a speech model.
        regime (`str`): `"full"` (everything learns), `"frozen"` (the front end alone), `"scratch"` (the same
            architecture with random weights) or `"lora"` (front end and head, and low-rank updates of the body).
        new_head (`bool`): see [`~Wav2Vec2BrainForCTC.from_speech_checkpoint`].
        lora_rank (`int`): rank of the updates; they are scaled by 2.
        **config_values: fields of [`Wav2Vec2BrainConfig`]; `vocab_size` and `pad_token_id` are needed with a new head.

    Returns:
        [`Wav2Vec2BrainForCTC`], or `peft.PeftModel` around one.

    Raises:
        ValueError: if the regime is unknown, or the checkpoint does not fit.
        ImportError: when peft is not installed and the regime is `"lora"`.
    """
    from transformers import AutoConfig

    from modeling_bit.modeling_wav2vec2_brain import Wav2Vec2BrainConfig, Wav2Vec2BrainForCTC

    if regime not in REGIMES:
        raise ValueError(f"regime is {regime!r}; choose one of {', '.join(REGIMES)}")
    if regime == "scratch":
        body = AutoConfig.from_pretrained(checkpoint)
        classes = {"vocab_size": body.vocab_size, "pad_token_id": body.pad_token_id}
        return Wav2Vec2BrainForCTC(Wav2Vec2BrainConfig(body_config=body, **{**classes, **config_values}))
    config_values = {"freeze_body": regime == "frozen", **config_values}
    model = Wav2Vec2BrainForCTC.from_speech_checkpoint(checkpoint, new_head=new_head, **config_values)
    return add_low_rank_adapters(model, lora_rank, 2.0 * lora_rank) if regime == "lora" else model


def body_factor(step: int, total: int, warmup: int = 0, hold: int = 0, ramp: int = 0, decay: str = "cosine") -> float:
    """Share of the peak learning rate at a step.

    Args:
        step (`int`): optimizer step, from 0.
        total (`int`): steps of the whole run.
        warmup (`int`): steps of linear growth at the start.
        hold (`int`): steps at rate zero (the body waits for its front end).
        ramp (`int`): steps of linear growth after `hold`.
        decay (`str`): `"cosine"` down to zero at `total`, or `"constant"`.

    Returns:
        `float`: between 0 and 1.

    Example:
        >>> [round(body_factor(step, 10, hold=2, ramp=2, decay="constant"), 2) for step in range(6)]
        [0.0, 0.0, 0.33, 0.67, 1.0, 1.0]
    """
    factor = 1.0 if decay == "constant" else 0.5 * (1.0 + math.cos(math.pi * min(1.0, step / max(1, total))))
    if step < warmup:
        factor *= (step + 1) / (warmup + 1)
    if step < hold:
        return 0.0
    if step < hold + ramp:
        factor *= (step - hold + 1) / (ramp + 1)
    return factor


def speech_optimizers(
    model: nn.Module,
    learning_rate: float,
    body_learning_rate: float,
    total_steps: int,
    weight_decay: float = 1e-4,
    warmup_steps: int = 0,
    hold_steps: int = 0,
    ramp_steps: int = 0,
    legacy_decay_steps: int | None = None,
    legacy: bool = False,
) -> tuple[torch.optim.Optimizer, Any]:
    """Build optimizer and schedule with a rate of its own for body and head.

    Args:
        model (`nn.Module`): a [`Wav2Vec2BrainForCTC`], with or without adapters.
        learning_rate (`float`): peak rate of the front end.
        body_learning_rate (`float`): peak rate of body and head.
        total_steps (`int`): optimizer steps of the whole run.
        weight_decay (`float`): of matrices.
        warmup_steps (`int`): linear warm-up of both rates.
        hold_steps (`int`): steps during which body and head do not learn.
        ramp_steps (`int`): steps in which their rate then grows.
        legacy_decay_steps (`int`, *optional*): with `legacy`, multiply the front end's rate by 0.1 every so many steps,
            as the published frozen runs do and the other regimes do not.
        legacy (`bool`): constant rates and Adam whose decay is added to the gradient of every parameter, as published;
            otherwise AdamW with cosine decay, the same in every regime.

    Returns:
        `tuple`: the optimizer and its schedule, for `BITTrainer(optimizers=...)`.

    Raises:
        ValueError: if the model has no trainable parameters in its front end.

    Note:
        Fiedler et al. 2025 (arXiv 2501.09459): 1e-4 for the front end; body at zero for 7 of 100 epochs, then a ramp of
        3 epochs to 1e-5.
    """
    speech = {id(value) for name, value in model.named_parameters() if _SPEECH.search(name)}
    groups = []
    for group in parameter_groups(model, learning_rate, weight_decay):
        for is_speech, rate in ((False, learning_rate), (True, body_learning_rate)):
            members = [value for value in group["params"] if (id(value) in speech) is is_speech]
            if members:
                decay = weight_decay if legacy else group["weight_decay"]
                groups.append({"params": members, "lr": rate, "weight_decay": decay, "is_speech": is_speech})
    if all(group["is_speech"] for group in groups):
        raise ValueError("The front end has no trainable parameters: nothing would learn to read the recordings.")

    def front(step: int) -> float:
        if legacy:
            return 0.1 ** (step // legacy_decay_steps) if legacy_decay_steps else 1.0
        return body_factor(step, total_steps, warmup_steps)

    def body(step: int) -> float:
        shape = "constant" if legacy else "cosine"
        return body_factor(step, total_steps, warmup_steps, hold_steps, ramp_steps, shape)

    factors: list[Callable[[int], float]] = [body if group["is_speech"] else front for group in groups]
    optimizer = torch.optim.Adam(groups) if legacy else torch.optim.AdamW(groups)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, factors)


def add_low_rank_adapters(model: Wav2Vec2BrainForCTC, rank: int = 8, alpha: float = 16.0, dropout: float = 0.0) -> Any:
    """Freeze the body but for low-rank updates of its matrices; front end and head learn fully.

    Args:
        model ([`Wav2Vec2BrainForCTC`]): the model; it is changed.
        rank (`int`): rank of the updates.
        alpha (`float`): the updates are scaled by `alpha / rank`.
        dropout (`float`): dropout before the updates.

    Returns:
        `peft.PeftModel`: train it like the model itself; `merge_and_unload()` gives a plain model back.

    Raises:
        ImportError: when peft is not installed.

    Note:
        Hu et al. 2021, arXiv 2106.09685, on all attention projections; on the feed-forward parts of WavLM.
    """
    peft = require("peft")
    kind = model.config.body_config.model_type
    adapted = _ADAPTED.get(kind, "q_proj|k_proj|v_proj|out_proj")
    whole = ["front_end", "head"] + (["auxiliary_head"] if model.auxiliary_head is not None else [])
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=rf".*body\.encoder\.layers\.\d+\..*({adapted})",
        modules_to_save=whole,
    )
    return peft.get_peft_model(model, settings)
