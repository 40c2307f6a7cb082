"""Figures of encoding models: correlations beside their controls, curves over data, and maps on a flat grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from bit_speech.evaluation.figure_style import ACCENT, GRID, INK, MUTED, SECOND, STYLE, png
from bit_speech.import_utils import require

_COLOURS = (ACCENT, SECOND, "#0f766e", "#7c3aed", MUTED, "#b45309")


def controls_figure(
    correlations: Mapping[str, np.ndarray], significant: np.ndarray, means: Mapping[str, tuple[float, float, float]]
) -> bytes:
    """Draw held-out correlations of a model and its controls, by voxel and on average.

    Args:
        correlations (mapping of `str` to `np.ndarray` of shape `(X,)`): the model first, then controls.
        significant (`np.ndarray` of shape `(X,)`): True where the model passes its test.
        means (mapping of `str` to `tuple`): mean over voxels, and its interval.

    Returns:
        `bytes`: a PNG image.
    """
    names = list(correlations)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.6, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(1.5, 1.0))
        edges = np.linspace(
            min(v.min() for v in correlations.values()), max(v.max() for v in correlations.values()), 36
        )
        for name, colour in zip(names, _COLOURS):
            left.hist(correlations[name], edges, histtype="step", color=colour, label=name, linewidth=1.4)
        left.axvline(0.0, color=GRID, linewidth=0.8, zorder=0)
        left.set_xlabel("correlation with held-out stories")
        left.set_ylabel("components or voxels")
        left.set_title(f"{int(significant.sum())} of {len(significant)} significant (false discovery rate 5 %)")
        left.legend()
        shown = [name for name in names if name in means]
        for row, name in enumerate(shown):
            mean, low, high = means[name]
            right.plot([low, high], [row, row], color=_COLOURS[names.index(name)], linewidth=1.6)
            right.plot(mean, row, "o", color=_COLOURS[names.index(name)], markersize=5)
        right.axvline(0.0, color=GRID, linewidth=0.8, zorder=0)
        right.set_yticks(range(len(shown)), shown, color=INK)
        right.invert_yaxis()
        right.set_xlabel("mean correlation, 95 % interval")
        right.set_title("average")
        return png(figure)


def curves_figure(
    curves: Mapping[str, Sequence[tuple[float, float, float, float]]], x_label: str, y_label: str, log: bool = False
) -> bytes:
    """Draw one line per model over an amount of data.

    Args:
        curves (mapping of `str` to sequence of `tuple`): (amount, value, low, high) of each point.
        x_label (`str`): the amount and its unit.
        y_label (`str`): the value.
        log (`bool`): logarithmic amounts.

    Returns:
        `bytes`: a PNG image.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(5.0, 3.2), layout="constrained")
        ax = figure.subplots()
        for (name, points), colour in zip(curves.items(), _COLOURS):
            amounts, values, lows, highs = np.array(sorted(points)).T
            ax.fill_between(amounts, lows, highs, color=colour, alpha=0.12, linewidth=0)
            ax.plot(amounts, values, "o-", color=colour, label=name, markersize=4, linewidth=1.4)
        if log:
            ax.set_xscale("log")
        ax.set_xlabel(x_label)
        ax.set_ylabel(y_label)
        ax.grid(axis="y")
        ax.legend()
        return png(figure)


def surface_figure(scores: np.ndarray, coordinates: np.ndarray, title: str, label: str = "correlation") -> bytes:
    """Draw scores on the two hemispheres seen from the left and from the right.

    Args:
        scores (`np.ndarray` of shape `(X,)`): one number per vertex; NaN is grey.
        coordinates (`np.ndarray` of shape `(X, 3)`): places of the vertices in mm (right, front, up), of the inflated
            surface for a view into the sulci; the left hemisphere is left of zero.
        title (`str`): what is shown.
        label (`str`): of the colour bar.

    Returns:
        `bytes`: a PNG image. Vertices are drawn from the far ones to the near ones, so that near ones hide far ones.

    Raises:
        ValueError: if there is not one place per score.
    """
    if coordinates.shape != (len(scores), 3):
        raise ValueError(f"coordinates have shape {coordinates.shape}; expected ({len(scores)}, 3)")
    limit = float(np.nanquantile(np.abs(scores), 0.99)) if np.isfinite(scores).any() else 1.0
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 2.8), layout="constrained")
        axes = figure.subplots(1, 2)
        drawn = None
        for ax, side, sign in zip(axes, ("left", "right"), (-1.0, 1.0)):
            members = np.flatnonzero(coordinates[:, 0] * sign > 0)
            # From the left, the front of the head is on the left of the picture.
            members = members[np.argsort(coordinates[members, 0] * sign)]
            across, up, values = sign * coordinates[members, 1], coordinates[members, 2], scores[members]
            missing = ~np.isfinite(values)
            ax.scatter(across[missing], up[missing], s=2, color=GRID, linewidths=0)
            drawn = ax.scatter(
                across[~missing], up[~missing], s=2, c=values[~missing], cmap="RdBu_r", vmin=-limit, vmax=limit,
                linewidths=0,
            )  # fmt: skip
            ax.set_aspect("equal")
            ax.set_axis_off()
            ax.set_title(f"{side} hemisphere")
        if drawn is not None:
            bar = figure.colorbar(drawn, ax=axes, shrink=0.7, aspect=25)
            bar.outline.set_visible(False)
            bar.set_label(label)
        figure.suptitle(title, fontsize=9.5)
        return png(figure)


def surface_places(fsaverage: str | Path, vertices: Sequence[int]) -> np.ndarray:
    """Read where vertices of FreeSurfer's template lie on the inflated surfaces, the hemispheres side by side.

    Args:
        fsaverage (`str`): folder of the template, with `surf/lh.inflated` and `surf/rh.inflated`.
        vertices (sequence of `int`): numbers over both hemispheres, the left one first, as
            `datasets_scripts/project_to_fsaverage.py` writes them.

    Returns:
        `np.ndarray` of shape `(X, 3)`: mm, for [`surface_figure`].
    """
    surfaces = require("nibabel").freesurfer
    folder = Path(fsaverage) / "surf"
    left, right = (surfaces.read_geometry(folder / f"{side}.inflated")[0] for side in ("lh", "rh"))
    left[:, 0] -= left[:, 0].max() + 1.0
    right[:, 0] -= right[:, 0].min() - 1.0
    return np.concatenate([left, right])[np.asarray(vertices)]
