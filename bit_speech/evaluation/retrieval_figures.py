"""Figures of retrieval: where the ranks lie, what hours are worth, how vectors move from day to day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from bit_speech.evaluation.figure_style import ACCENT, INK, MUTED, STYLE, png
from bit_speech.evaluation.retrieval import Ranks, ScalingFit


def rank_figure(ranks: Mapping[str, Ranks]) -> bytes:
    """Draw for several systems which share of the windows is found within which share of the candidates.

    Args:
        ranks (`Mapping[str, Ranks]`): name of a system -> its ranks.

    Returns:
        `bytes`: a PNG image; a guess lies on the diagonal.

    Raises:
        ValueError: if there is no system.
    """
    if not ranks:
        raise ValueError("there is no system to draw")
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.6), layout="constrained")
        ax = figure.subplots()
        ax.plot([0, 1], [0, 1], color=MUTED, linewidth=0.8, linestyle=":", label="a guess")
        for name, found in ranks.items():
            relative = np.sort(found.relative)
            share = np.arange(1, len(relative) + 1) / len(relative)
            size = found.num_candidates.mean()
            ax.step(relative, share, where="post", label=f"{name} ({size:.0f} candidates, mean {relative.mean():.3f})")
        ax.set(xlim=(0, 1), ylim=(0, 1), xlabel="share of the candidates looked at", ylabel="share of windows found")
        ax.legend(loc="lower right")
        return png(figure)


def scaling_figure(hours: Sequence[float], ranks: np.ndarray, fit: ScalingFit) -> bytes:
    """Draw ranks over hours of pretraining with the fitted line.

    Args:
        hours (sequence of length `S`): sizes.
        ranks (`np.ndarray` of shape `(R, S)`): mean relative rank of every run.
        fit (`ScalingFit`): from [`~bit_speech.evaluation.retrieval.fit_scaling`].

    Returns:
        `bytes`: a PNG image.
    """
    x = np.asarray(hours, dtype=float)
    with rc_context(STYLE):
        figure = Figure(figsize=(4.6, 3.2), layout="constrained")
        ax = figure.subplots()
        for run in np.atleast_2d(ranks):
            ax.plot(x, run, color=MUTED, linewidth=0.6, marker=".", markersize=3)
        ax.plot(x, np.atleast_2d(ranks).mean(axis=0), color=ACCENT, marker="o", label="mean of the runs")
        ax.plot(x, fit.intercept + fit.slope * np.log10(x), color=INK, linestyle="--", linewidth=0.9)
        ax.set_xscale("log")
        ax.set(xlabel="hours of pretraining", ylabel="mean relative rank")
        ax.set_title(f"{fit.slope:+.3f} [{fit.low:+.3f}, {fit.high:+.3f}] for ten times the hours, r2 {fit.r2:.2f}")
        ax.legend()
        return png(figure)


def plane(vectors: np.ndarray, method: str = "pca", seed: int = 0) -> np.ndarray:
    """Place vectors on a plane.

    Args:
        vectors (`np.ndarray` of shape `(N, D)`): brain or audio vectors.
        method (`str`): `"pca"`, or `"umap"`, which needs the package umap-learn.
        seed (`int`): of UMAP.

    Returns:
        `np.ndarray` of shape `(N, 2)`: places.

    Raises:
        ValueError: if the method is unknown.
        ImportError: if umap-learn is not installed.

    Example:
        >>> plane(np.random.default_rng(0).normal(size=(9, 4))).shape
        (9, 2)
    """
    if method == "umap":
        from bit_speech.import_utils import require

        return np.asarray(require("umap").UMAP(random_state=seed).fit_transform(vectors))
    if method != "pca":
        raise ValueError(f"method is {method!r}: choose pca or umap")
    centred = np.asarray(vectors, dtype=float) - np.mean(vectors, axis=0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    return left[:, :2] * values[:2]


def day_figure(places: Mapping[str, np.ndarray], days: Sequence[float]) -> bytes:
    """Draw vectors of windows, coloured by day: clusters of days are drift.

    Args:
        places (`Mapping[str, np.ndarray]`): name (brain, audio) -> places `(N, 2)` from [`plane`].
        days (sequence of length `N`): day of each window.

    Returns:
        `bytes`: a PNG image.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(3.7 * len(places), 3.4), layout="constrained")
        axes = figure.subplots(1, len(places), squeeze=False)[0]
        for ax, (name, where) in zip(axes, places.items(), strict=True):
            image = ax.scatter(where[:, 0], where[:, 1], c=days, s=5, cmap="viridis", linewidths=0)
            ax.set_title(name)
            ax.set_xticks([])
            ax.set_yticks([])
        bar = figure.colorbar(image, ax=axes[-1], shrink=0.8, aspect=25)
        bar.outline.set_visible(False)
        bar.set_label("day")
        return png(figure)
