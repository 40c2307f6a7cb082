"""Figures of what an encoder tells apart: dissimilarity matrices, words of two tasks, confusions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure

from bit_speech.evaluation.figure_style import ACCENT, INK, SECOND, STYLE, png
from bit_speech.evaluation.representations import Confusions, RepresentationalSimilarity

# More names than this on an axis cannot be read.
_MOST_NAMES = 80


def similarity_figure(
    first: np.ndarray, second: np.ndarray, names: tuple[str, str], result: RepresentationalSimilarity
) -> bytes:
    """Draw two dissimilarity matrices side by side.

    Args:
        first (`np.ndarray` of shape `(N, N)`): dissimilarities of one representation.
        second (`np.ndarray` of shape `(N, N)`): dissimilarities of the other.
        names (`tuple[str, str]`): what the two are called.
        result ([`RepresentationalSimilarity`]): their comparison, for the title.

    Returns:
        `bytes`: a PNG image. Items are ordered by the first matrix's leading axis, the same in both.
    """
    values, vectors = np.linalg.eigh(first.mean() - first)
    order = np.argsort(vectors[:, int(np.argmax(values))])
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.6), layout="constrained")
        for ax, matrix, name in zip(figure.subplots(1, 2), (first, second), names):
            shown = matrix[np.ix_(order, order)]
            off_diagonal = shown[~np.eye(len(shown), dtype=bool)]
            low, high = np.quantile(off_diagonal, [0.02, 0.98])
            image = ax.imshow(shown, cmap="cividis", vmin=low, vmax=max(high, low + 1e-9), interpolation="nearest")
            ax.set_title(name)
            ax.set_xticks([])
            ax.set_yticks([])
            ax.spines[:].set_visible(False)
            bar = figure.colorbar(image, ax=ax, shrink=0.8, aspect=25)
            bar.outline.set_visible(False)
            bar.set_label("1 - cosine")
        figure.suptitle(
            f"Pearson r {result.correlation:.3f} [{result.low:.3f}, {result.high:.3f}], p {result.p_value:.3g}, "
            f"{result.num_items} sentences",
            fontsize=9.5,
        )
        return png(figure)


def word_plane_figure(
    words: Sequence[str], first: np.ndarray, second: np.ndarray, similarity: np.ndarray, tasks: tuple[str, str]
) -> bytes:
    """Draw the words of two tasks on their principal plane, a line between the two versions of a word.

    Args:
        words (list of `str`): names.
        first (`np.ndarray` of shape `(W, 2)`): coordinates in one task, from `principal_plane`.
        second (`np.ndarray` of shape `(W, 2)`): in the other.
        similarity (`np.ndarray` of shape `(W,)`): cosine of the two versions; the deeper the colour, the more alike.
        tasks (`tuple[str, str]`): what the tasks are called.

    Returns:
        `bytes`: a PNG image.
    """
    depth = 0.25 + 0.75 * np.clip(similarity, 0.0, 1.0)
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 4.6), layout="constrained")
        ax = figure.subplots()
        for a, b, alpha in zip(first, second, depth):
            ax.plot([a[0], b[0]], [a[1], b[1]], color="#b8c0cc", lw=0.6, alpha=float(alpha), zorder=1)
        ax.scatter(first[:, 0], first[:, 1], color=ACCENT, alpha=depth, s=22, label=tasks[0], zorder=2)
        ax.scatter(second[:, 0], second[:, 1], color=SECOND, alpha=depth, s=22, marker="s", label=tasks[1], zorder=2)
        if len(words) <= _MOST_NAMES:
            for name, place in zip(words, first):
                ax.annotate(name, place, xytext=(3, 3), textcoords="offset points", fontsize=6.5, color=INK)
        ax.set_xlabel("first principal component")
        ax.set_ylabel("second principal component")
        ax.legend(loc="best")
        return png(figure)


def substitution_figure(found: Confusions, unit: str = "phoneme") -> bytes:
    """Draw which tokens were decoded as which, as shares of all substitutions.

    Args:
        found ([`Confusions`]): from `confusions`.
        unit (`str`): what the tokens are.

    Returns:
        `bytes`: a PNG image; said from left to right, decoded from top to bottom.

    Raises:
        ValueError: when there is no substitution to draw.
    """
    count = len(found.tokens)
    if count == 0:
        raise ValueError(f"there is no substitution of a {unit} to draw; lower min_count")
    with rc_context(STYLE):
        size = float(np.clip(0.16 * count, 2.5, 12.0))
        figure = Figure(figsize=(size + 1.2, size + 1.0), layout="constrained")
        ax = figure.subplots()
        image = ax.imshow(found.percent, cmap="Oranges", vmin=0, interpolation="nearest")
        if count <= _MOST_NAMES:
            ax.set_xticks(range(count), found.tokens, rotation=90, fontsize=6.5)
            ax.set_yticks(range(count), found.tokens, fontsize=6.5)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel(f"{unit} said")
        ax.set_ylabel(f"{unit} decoded")
        bar = figure.colorbar(image, ax=ax, shrink=0.7, aspect=30)
        bar.outline.set_visible(False)
        bar.set_label(f"% of {found.num_substitutions} substitutions")
        return png(figure)


def stage_figure(found: Mapping[str, RepresentationalSimilarity], text_name: str = "the language model") -> bytes:
    """Draw how much each stage of a network arranges sentences as a text model does.

    Args:
        found (`Mapping[str, RepresentationalSimilarity]`): from `similarity_by_stage`.
        text_name (`str`): what the text's vectors belong to.

    Returns:
        `bytes`: a PNG image; lines are 95 % intervals over sentences.

    Raises:
        ValueError: when there is no stage.
    """
    if not found:
        raise ValueError("there is no stage to draw")
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 0.9 + 0.38 * len(found)), layout="constrained")
        ax = figure.subplots()
        for place, one in enumerate(found.values()):
            ax.plot([one.low, one.high], [place, place], color="#b8c0cc", lw=2.2, zorder=1)
            ax.scatter([one.correlation], [place], color=ACCENT, s=30, zorder=2)
        ax.axvline(0.0, color=INK, lw=0.6)
        ax.set_yticks(range(len(found)), list(found))
        ax.invert_yaxis()
        ax.grid(axis="x")
        ax.set_xlabel(f"correlation of dissimilarities with those of {text_name}")
        return png(figure)


def attention_figure(attention: np.ndarray, tokens: Sequence[str], frame_ms: float = 100.0) -> bytes:
    """Draw where written tokens looked.

    Args:
        attention (`np.ndarray` of shape `(tokens, neural tokens)`): from `attention_over_neural`.
        tokens (list of `str`): what was written.
        frame_ms (`float`): milliseconds from one neural token to the next.

    Returns:
        `bytes`: a PNG image; time from left to right, tokens from top to bottom, each row on its own scale.

    Raises:
        ValueError: when the numbers of rows and tokens differ.
    """
    if len(attention) != len(tokens):
        raise ValueError(f"{len(attention)} rows of attention for {len(tokens)} tokens; give one row each")
    with rc_context(STYLE):
        figure = Figure(figsize=(6.2, 0.9 + 0.24 * len(tokens)), layout="constrained")
        ax = figure.subplots()
        shown = attention / np.maximum(attention.max(axis=1, keepdims=True), 1e-12)
        seconds = attention.shape[1] * frame_ms / 1000
        ax.imshow(
            shown, cmap="Blues", aspect="auto", interpolation="nearest", extent=(0, seconds, len(tokens) - 0.5, -0.5)
        )
        ax.set_yticks(range(len(tokens)), tokens)
        ax.tick_params(length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("time in the trial (s)")
        return png(figure)
