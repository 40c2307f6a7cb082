"""What a result depends on: settings, code, data, machine, time."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bit_speech.machine import git_commit, hardware, peak_memory_gb

if TYPE_CHECKING:
    from bit_speech.training.surviving import SurvivingTrainer


def finite(value: Any) -> Any:
    """Bring a value into the form that JSON can hold.

    Args:
        value: numbers, text, tensors of one number, and lists and dicts of them.

    Returns:
        The same with plain Python types; what is not finite, or no value at all, becomes text.

    Example:
        >>> finite({"loss": float("inf"), "step": np.int64(3)})
        {'loss': 'inf', 'step': 3}
    """
    if isinstance(value, dict):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, (np.generic, torch.Tensor)):
        return finite(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (str, int, float)):
        return value
    return str(value)


def describe_run(trainer: SurvivingTrainer, **more: Any) -> dict[str, Any]:
    """Describe a run so that it can be repeated and compared.

    Args:
        trainer ([`SurvivingTrainer`]): before, during or after training.
        **more: what only this kind of trainer has.

    Returns:
        `dict`: plain values.
    """
    args, state, trials = trainer.args, trainer.state, trainer.train_dataset
    evaluations = [log for log in state.log_history if any(key.startswith("eval") for key in log)]
    return finite(
        {
            "step": state.global_step,
            "epoch": state.epoch,
            "best": {
                "metric": args.metric_for_best_model,
                "value": state.best_metric,
                "step": state.best_global_step,
                "checkpoint": state.best_model_checkpoint,
            },
            "last_evaluation": evaluations[-1] if evaluations else None,
            "training_seconds": round(trainer.training_seconds, 3),
            "training_bins": trainer.training_bins,
            "training_trials": len(trials) if trials is not None else 0,
            "peak_memory_gb": peak_memory_gb(),
            "seeds": {"seed": args.seed, "data_seed": args.data_seed},
            "git_commit": git_commit(),
            "hardware": {**hardware(), "processes": args.world_size},
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "arguments": {key: value for key, value in args.to_dict().items() if not key.endswith("_token")},
            "model_config": trainer.model.config.to_diff_dict(),
            **more,
        }
    )
