"""Which parameters learn at which rate, and which of them decay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import nn

# Name components that the models use; a part that no parameter belongs to is an error when it gets a rate of its own.
_READ_IN = re.compile(r"(^|\.)(read_ins?|read_in_\w+|session_\w+|day_\w+)(\.|$)")
_HEAD = re.compile(r"(^|\.)(heads?|lm_heads?|ctc_heads?|classifiers?)(\.|$)")
_NO_DECAY = re.compile(r"bias|norm|(^|\.)(mask_token|session_\w+|day_\w+|initial_state\w*|h0)(\.|$)", re.IGNORECASE)


def part_of(name: str) -> str:
    """Tell which part of a model a parameter belongs to.

    Args:
        name (`str`): name of the parameter.

    Returns:
        `str`: `"read_in"` (layers of one participant or session), `"head"` or `"body"`.

    Example:
        >>> part_of("model.layers.0.attention.q_proj.weight")
        'body'
    """
    if _READ_IN.search(name):
        return "read_in"
    return "head" if _HEAD.search(name) else "body"


def parameter_groups(
    model: nn.Module,
    learning_rate: float,
    weight_decay: float,
    read_in_learning_rate: float | None = None,
    head_learning_rate: float | None = None,
    module_rates: Mapping[str, float | None] | None = None,
) -> list[dict[str, Any]]:
    """Group the trainable parameters for an optimizer.

    Args:
        model (`nn.Module`): the model.
        learning_rate (`float`): peak rate of everything that has none of its own.
        weight_decay (`float`): of matrices. Biases, norms, mask token, initial states and the layers of single days
            have none: a day's map starts at the identity, and decay would pull it to zero.
        read_in_learning_rate (`float`, *optional*): peak rate of the read-in.
        head_learning_rate (`float`, *optional*): peak rate of the head.
        module_rates (`Mapping[str, float]`, *optional*): peak rates of whole modules by their name, such as
            `language_model`; everything inside belongs to the module and not to read-in or head.

    Returns:
        `list[dict]`: groups with `params`, `lr`, `weight_decay` and `name`; parts without parameters are left out.

    Raises:
        ValueError: when a part that the model does not have is given a rate.
    """
    modules = {name: rate for name, rate in (module_rates or {}).items() if rate is not None}
    rates = {"read_in": read_in_learning_rate, "body": None, "head": head_learning_rate, **modules}
    groups: dict[tuple[str, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = next((module for module in modules if module in name.split(".")), part_of(name))
        decays = parameter.ndim >= 2 and not _NO_DECAY.search(name)
        rate = rates[part] if rates[part] is not None else learning_rate
        group = groups.setdefault(
            (part, decays),
            {
                "params": [],
                "lr": rate,
                "weight_decay": weight_decay if decays else 0.0,
                "name": part if decays else f"{part}, no decay",
            },
        )
        group["params"].append(parameter)
    for part, rate in rates.items():
        if rate is not None and not any(key[0] == part for key in groups):
            raise ValueError(f"{part}_learning_rate is {rate}, but the model has no trainable parameters of its {part}")
    return list(groups.values())
