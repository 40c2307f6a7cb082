"""Figures of where decoders err."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib import rc_context
from matplotlib.figure import Figure

from bit_speech.evaluation.error_breakdown import ErrorClass
from bit_speech.evaluation.figure_style import ACCENT, INK, MUTED, PERCENT, SECOND, STYLE, png

_COLOURS = (ACCENT, SECOND, INK, MUTED)


def breakdown_figure(
    by_frequency: Mapping[str, Sequence[ErrorClass]], by_length: Mapping[str, Sequence[ErrorClass]]
) -> bytes:
    """Draw error rates by word frequency and by sentence length, for up to four decoders.

    Args:
        by_frequency (`Mapping[str, list]`): decoder -> classes of words, from `errors_by_frequency`.
        by_length (`Mapping[str, list]`): the same decoders -> classes of sentences, from `errors_by_length`.

    Returns:
        `bytes`: a PNG image; lines are 95 % intervals over sentences.

    Raises:
        ValueError: when there is no decoder, more than four, or the two name different ones.
    """
    if not by_frequency or len(by_frequency) > len(_COLOURS) or list(by_frequency) != list(by_length):
        raise ValueError(
            f"by_frequency names {list(by_frequency)}, by_length {list(by_length)}; give the same one to four decoders"
        )
    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.0), layout="constrained")
        panels = (
            ("occurrences of the word in the language model's text", by_frequency),
            ("words in the sentence", by_length),
        )
        for ax, (label, table) in zip(figure.subplots(1, 2, sharey=True), panels):
            classes_by_low = {one.low: one.name for classes in table.values() for one in classes}
            names = [classes_by_low[low] for low in sorted(classes_by_low)]
            for number, (decoder, classes) in enumerate(table.items()):
                shift = 0.12 * (number - (len(table) - 1) / 2)
                places = [names.index(one.name) + shift for one in classes]
                for place, one in zip(places, classes):
                    ax.plot([place, place], [one.error.low, one.error.high], color=_COLOURS[number], lw=1.0, alpha=0.5)
                rates = [one.error.rate for one in classes]
                ax.plot(places, rates, color=_COLOURS[number], marker="o", ms=4, lw=1.2, label=decoder)
            ax.set_xticks(range(len(names)), names)
            ax.set_xlabel(label)
            ax.yaxis.set_major_formatter(PERCENT)
            ax.grid(axis="y")
            ax.set_ylim(bottom=0)
        figure.axes[0].set_ylabel("word errors")
        figure.axes[1].legend(loc="best")
        return png(figure)
