"""Movements without labels: reaching and handwriting in the latent space that speech uses too."""

from __future__ import annotations

import math

import numpy as np

from .articulation import LATENTS

# Movement and speech share the gate and four motor latents; an electrode tuned to them is active in both.
_MOTOR_LATENTS = tuple(
    LATENTS.index(name) for name in ("speech_gate", "labial", "coronal", "height", "backness", "dorsal")
)
_STROKE_MS = {"reaching": 600.0, "handwriting": 160.0}


def movement_latents(task: str, num_bins: int, bin_size_ms: float, rng: np.random.Generator) -> np.ndarray:
    """Draw the latents of one movement trial: minimum-jerk strokes between random points of the plane.

    Args:
        task (`str`): `"reaching"` (slow, with pauses) or `"handwriting"` (strokes follow each other).
        num_bins (`int`): length of the trial.
        bin_size_ms (`float`): width of a bin.
        rng (`np.random.Generator`): source of randomness.

    Returns:
        `np.ndarray` of shape `(T, 17)`: float64. Gate, position (2), velocity (2) and speed use six of the articulatory
        latents, the others are 0.

    Raises:
        ValueError: when there is no such movement.

    Note:
        Minimum jerk: Flash & Hogan 1985 (doi:10.1523/JNEUROSCI.05-07-01688.1985).
    """
    if task not in _STROKE_MS:
        raise ValueError(f"no movement {task!r}; choose one of {', '.join(_STROKE_MS)}")
    position = np.zeros((num_bins, 2))
    moving = np.zeros(num_bins)
    here, now = np.zeros(2), int(rng.integers(3, 15))
    while now < num_bins:
        length = max(3, round(_STROKE_MS[task] * math.exp(0.25 * rng.standard_normal()) / bin_size_ms))
        there = rng.uniform(-1, 1, 2)
        u = (np.arange(1, length + 1) / length)[:, None]
        path = here + (there - here) * (10 * u**3 - 15 * u**4 + 6 * u**5)
        end = min(now + length, num_bins)
        position[now:end] = path[: end - now]
        position[end:] = there
        moving[now:end] = 1
        here = there
        now = end + (int(rng.geometric(1 / 12)) if task == "reaching" else int(rng.geometric(0.7)) - 1)
    velocity = np.gradient(position, axis=0)
    velocity /= max(np.abs(velocity).max(), 1e-9)
    latents = np.zeros((num_bins, len(LATENTS)))
    columns = (2 * moving - 1, position[:, 0], position[:, 1], velocity[:, 0], velocity[:, 1], np.hypot(*velocity.T))
    for latent, values in zip(_MOTOR_LATENTS, columns, strict=True):
        latents[:, latent] = values
    return latents
