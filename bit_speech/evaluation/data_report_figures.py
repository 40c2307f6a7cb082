"""Figures of the data report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from bit_speech.evaluation.figure_style import ACCENT, MUTED, SECOND, STYLE, png

if TYPE_CHECKING:
    from bit_speech.evaluation.data_report import DataReport


def _session_names(report: DataReport) -> list[str]:
    return [session.session_id for session in report.sessions]


def rate_figure(report: DataReport) -> bytes:
    """Draw the mean of every channel in every session.

    Args:
        report (`DataReport`): the numbers.

    Returns:
        `bytes`: a PNG image.
    """
    names, kinds = _session_names(report), list(report.feature_kinds)
    counts = any(session.rate_hz is not None for session in report.sessions)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, (0.9 + 0.22 * len(names)) * len(kinds)), layout="constrained")
        for ax, kind in zip(figure.subplots(len(kinds), 1, squeeze=False)[:, 0], kinds):
            channels = np.flatnonzero([name == kind for name in report.channel_kinds])
            values = report.channel_rates[:, channels]
            # One loud channel must not hide all others, and rounding errors of z-scored features are no picture.
            top = max(float(np.percentile(values, 98)), 1e-3)
            low = min(0.0, float(np.percentile(values, 2)))
            image = ax.imshow(values, aspect="auto", cmap="viridis", vmin=low, vmax=top, interpolation="nearest")
            ax.set_yticks(range(len(names)), names)
            ax.set_title(kind.replace("_", " "))
            unit = "per second" if counts and kind == THRESHOLD_CROSSINGS else "mean"
            figure.colorbar(image, ax=ax, label=unit, extend="max")
        ax.set_xlabel("channel, counted within its kind")
        return png(figure)


def dead_channel_figure(report: DataReport) -> bytes:
    """Draw how many channels of every session are dead.

    Args:
        report (`DataReport`): the numbers.

    Returns:
        `bytes`: a PNG image.
    """
    names = _session_names(report)
    dead = [len(session.dead_channels) for session in report.sessions]
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 1.0 + 0.22 * len(names)), layout="constrained")
        ax = figure.subplots()
        ax.barh(range(len(names)), dead, color=SECOND, height=0.6)
        ax.set_yticks(range(len(names)), names)
        ax.invert_yaxis()
        ax.set_xlim(0, max(5, max(dead)))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_xlabel(f"dead channels of {report.num_channels}")
        ax.grid(axis="x")
        return png(figure)


def drift_figure(report: DataReport) -> bytes:
    """Draw how far sessions lie apart: every pair, and from each to the next.

    Args:
        report (`DataReport`): the numbers.

    Returns:
        `bytes`: a PNG image.
    """
    names = _session_names(report)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        matrix, line = figure.subplots(1, 2)
        top = max(0.5, float(report.drift.max()))
        image = matrix.imshow(report.drift, cmap="magma", vmin=0, vmax=top, interpolation="nearest")
        for axis in (matrix.xaxis, matrix.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        matrix.set_xlabel("session")
        matrix.set_ylabel("session")
        matrix.set_title("every pair")
        figure.colorbar(image, ax=matrix, label="standard deviations")
        steps = [session.drift for session in report.sessions[1:]]
        line.plot(range(1, len(names)), steps, color=ACCENT, marker="o", ms=4, lw=1.2)
        line.set_title("from the session before")
        line.set_xticks(range(1, len(names)), names[1:], rotation=60, ha="right")
        line.set_ylim(0, 1.1 * max(0.5, max(float(step or 0) for step in steps)))
        line.grid(axis="y")
        return png(figure)


def duration_figure(report: DataReport) -> bytes:
    """Draw how long trials are.

    Args:
        report (`DataReport`): the numbers.

    Returns:
        `bytes`: a PNG image.
    """
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 2.0), layout="constrained")
        ax = figure.subplots()
        ax.hist(report.trial_seconds, bins=40, color=ACCENT)
        median = float(np.median(report.trial_seconds))
        ax.axvline(median, color=MUTED, lw=1.0, ls="--", label=f"median {median:.1f} s")
        ax.set_xlabel("seconds of a trial")
        ax.set_ylabel("trials")
        ax.legend()
        return png(figure)
