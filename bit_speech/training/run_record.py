"""What a result depends on: settings, code, data, machine, time."""

from __future__ import annotations

import math
import os
import platform
import resource
import subprocess
import sys
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bit_speech.import_utils import installed_versions

if TYPE_CHECKING:
    from bit_speech.training.trainer import BITTrainer


def git_commit() -> str | None:
    """Commit of the source tree that this package runs from.

    Returns:
        `str` or None: the commit, with `+changes` when tracked files differ from it; None outside a git checkout.
    """
    here = Path(__file__).resolve().parent

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=30)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository (a virtual environment in it, for example).
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else commit


def hardware() -> dict[str, Any]:
    """Describe the machine.

    Returns:
        `dict`: processor, cores, threads, memory in GB, accelerators, operating system and versions.
    """
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "accelerators": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(),
    }


def peak_memory_gb() -> dict[str, float]:
    """Peak memory of this process so far.

    Returns:
        `dict[str, float]`: `process` (resident set), and `accelerator` when there is one; in GB of 10^9 bytes.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    found = {"process": round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)}
    if torch.cuda.is_available():
        found["accelerator"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return found


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


def describe_run(trainer: BITTrainer) -> dict[str, Any]:
    """Describe a run so that it can be repeated and compared.

    Args:
        trainer ([`BITTrainer`]): before, during or after training.

    Returns:
        `dict`: plain values; see [`BITTrainer.run_record`].
    """
    args, state, trials = trainer.args, trainer.state, trainer.train_dataset
    evaluations = [log for log in state.log_history if any(key.startswith("eval") and "per" in key for key in log)]
    extractor = trainer.processing_class.feature_extractor
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
            "skipped_trials": trainer.skipped_trials,
            "peak_memory_gb": peak_memory_gb(),
            "seeds": {"seed": args.seed, "data_seed": args.data_seed},
            "git_commit": git_commit(),
            "data_hash": {
                "train": trials.content_hash() if trials is not None else None,
                **{name: prepared.content_hash() for name, prepared in trainer.evaluation_sets().items()},
            },
            "hardware": {**hardware(), "processes": args.world_size},
            "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
            "augmentation": asdict(trainer.augmentation) if is_dataclass(trainer.augmentation) else None,
            "arguments": {key: value for key, value in args.to_dict().items() if not key.endswith("_token")},
            "model_config": trainer.model.config.to_diff_dict(),
            "feature_extractor": {
                key: value for key, value in extractor.to_dict().items() if key != "session_statistics"
            },
        }
    )
