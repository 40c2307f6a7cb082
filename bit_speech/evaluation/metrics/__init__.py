"""Metrics for Hugging Face Evaluate that need no network: folders that `evaluate.load` opens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bit_speech.import_utils import require

METRICS = ("per", "wer")


def metric_folder(name: str) -> Path:
    """Return the folder of a metric, for `evaluate.load`.

    Args:
        name (`str`): `"per"` (phoneme error rate) or `"wer"` (word error rate).

    Returns:
        `Path`: the folder with the metric's script.

    Raises:
        ValueError: if there is no such metric.

    Example:
        ```python
        >>> metric_folder("per").name
        'per'

        ```
    """
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; choose one of {', '.join(METRICS)}")
    return Path(__file__).with_name(name)


def load_metric(name: str, **kwargs: Any) -> Any:
    """Load a metric of this package with Hugging Face Evaluate, without the network.

    Args:
        name (`str`): `"per"` or `"wer"`.
        **kwargs: passed on to `evaluate.load`.

    Returns:
        `evaluate.Metric`: with `add`, `add_batch` and `compute(predictions=..., references=...)`.

    Raises:
        ValueError: if there is no such metric.
        ImportError: if the package `evaluate` is not installed.
    """
    folder = metric_folder(name)
    return require("evaluate").load(str(folder), **kwargs)
