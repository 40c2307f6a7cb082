"""How much of a machine a training run uses: operations that a model needs, and what the machine can do at most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from configuration_bit.configuration_bit import BITConfig

# Dense bf16 operations per second of the matrix units, from the makers' data sheets.
_PEAKS = {
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L40": 181e12,
    "A40": 150e12,
    "RTX 4090": 165e12,
    "L4": 121e12,
    "T4": 65e12,
}


def training_flops(config: BITConfig, frames: int, pairs: int, channels: int, hidden: int = 0) -> int:
    """Floating-point operations that one training step of the encoder needs, without those of padding.

    Args:
        config (`BITConfig`): the model.
        frames (`int`): real patches in the batch.
        pairs (`int`): sum over trials of the squared number of patches: pairs that attention compares.
        channels (`int`): channels of the batch's participant.
        hidden (`int`): masked patches: these are not read in, but read out.

    Returns:
        `int`: matrix products of forward and backward (twice the forward), 2 operations for a multiply-add. Norms,
            activations and the optimizer are not counted, as is usual for model-FLOPs utilisation.

    Example:
        >>> from configuration_bit.configuration_bit import BITConfig
        >>> config = BITConfig(hidden_size=2, num_attention_heads=1, num_hidden_layers=1, intermediate_size=3)
        >>> training_flops(config, frames=1, pairs=1, channels=1)  # 3 x 2 x (16 + 12 + 4 + 10)
        252
    """
    width = config.hidden_size
    block = 4 * width * width + 2 * width * config.intermediate_size
    patch = config.patch_size * channels * width
    products = (
        config.num_hidden_layers * (frames * block + 2 * pairs * width) + (frames - hidden) * patch + hidden * patch
    )
    return 3 * 2 * products


def peak_flops(device: torch.device, dtype: torch.dtype = torch.bfloat16) -> float | None:
    """Operations per second that a device can do at most.

    Args:
        device (`torch.device`): an accelerator whose data sheet is known, or the CPU, which is measured: the fastest of
            ten large matrix products on the current number of threads.
        dtype (`torch.dtype`): of the products, for the CPU.

    Returns:
        `float` or None: operations per second; None for an unknown accelerator.
    """
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        return next((peak for known, peak in _PEAKS.items() if known in name), None)
    if device.type != "cpu":
        return None
    # No random numbers: those of training must not move.
    left, right = torch.ones(2048, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        left @ right
        seconds.append(time.perf_counter() - start)
    return 2 * 2048 * 1024 * 1024 / min(seconds)
