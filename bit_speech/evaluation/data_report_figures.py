"""Figures of the data report."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

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
    names = _session_names(report)
    counts = any(session.rate_hz is not None for session in report.sessions)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 1.4 + 0.22 * len(names)), layout="constrained")
        ax = figure.subplots()
        # One loud channel must not hide all others.
        top = float(np.percentile(report.channel_rates, 98)) or 1.0
        low = min(0.0, float(np.percentile(report.channel_rates, 2)))
        image = ax.imshow(
            report.channel_rates, aspect="auto", cmap="viridis", vmin=low, vmax=top, interpolation="nearest"
        )
        ax.set_yticks(range(len(names)), names)
        ax.set_xlabel("channel")
        figure.colorbar(image, ax=ax, label="mean per second" if counts else "mean", extend="max")
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
        image = matrix.imshow(report.drift, cmap="magma", vmin=0, interpolation="nearest")
        matrix.set_xlabel("session")
        matrix.set_ylabel("session")
        matrix.set_title("every pair")
        figure.colorbar(image, ax=matrix, label="standard deviations")
        steps = [session.drift for session in report.sessions[1:]]
        line.plot(range(1, len(names)), steps, color=ACCENT, marker="o", ms=4, lw=1.2)
        line.set_title("from the session before")
        line.set_xticks(range(1, len(names)), names[1:], rotation=60, ha="right")
        line.set_ylim(bottom=0)
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
