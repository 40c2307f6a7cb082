"""Pictures of a recording and of what the network hears in it."""

from __future__ import annotations

import numpy as np
from listening import Transcript
from matplotlib import rc_context
from matplotlib.figure import Figure
from trials import Trial

from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from bit_speech.evaluation.figure_style import ACCENT, INK, STYLE, png

_RECORDING_WIDTH, _PHONEMES_WIDTH = 6.6, 9.0
# Fixed margins: finding them anew costs as much as the drawing itself. Inches left, right, below and above.
_LEFT, _RIGHT, _BELOW, _ABOVE = 0.62, 0.12, 0.42, 0.3


def recording_figure(trial: Trial) -> bytes:
    """Draw threshold crossings as a raster and spike-band power as a heat map.

    Args:
        trial (`Trial`): a checked recording.

    Returns:
        `bytes`: a PNG image. Power is z-scored by channel over the trial, so that loud channels do not hide the others.
    """
    kinds = np.asarray(trial.feature_kinds)
    parts = [kind for kind in dict.fromkeys(trial.feature_kinds)]
    height = 2.15
    with rc_context(STYLE):
        figure = Figure(figsize=(_RECORDING_WIDTH, height * len(parts)))
        for row, kind in enumerate(parts):
            values = trial.features[:, kinds == kind].T
            ax = _axes(figure, len(parts), row)
            if kind == THRESHOLD_CROSSINGS:
                ax.imshow(values, **_heat(trial.seconds, len(values)), cmap="Greys", vmin=0, vmax=4)
                ax.set_title("threshold crossings (darker: more in a bin)")
            else:
                spread = values.std(axis=1, keepdims=True)
                z = (values - values.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1)
                ax.imshow(z, **_heat(trial.seconds, len(values)), cmap="viridis", vmin=-2, vmax=3)
                title = kind.replace("_", " ").replace("spike band", "spike-band")
                ax.set_title(f"{title} (brighter: above the channel's mean; -2 to 3 SD)")
            ax.set_ylabel("electrode" if kind in (THRESHOLD_CROSSINGS, SPIKE_BAND_POWER) else "channel")
            if row == len(parts) - 1:
                ax.set_xlabel("seconds")
        return png(figure)


def posterior_figure(transcript: Transcript) -> bytes:
    """Draw the probability of every phoneme over time, with the decoded ones above it.

    Args:
        transcript (`Transcript`): with log-probabilities.

    Returns:
        `bytes`: a PNG image. Blanks are left out: most frames say "nothing new".

    Raises:
        ValueError: when there are no log-probabilities.
    """
    if transcript.log_probs is None:
        raise ValueError("this model has no phoneme probabilities to draw")
    probabilities = np.sqrt(np.exp(transcript.log_probs[:, 1:].T))
    names = transcript.labels[1:]
    step = transcript.seconds_per_frame
    seconds = len(transcript.log_probs) * step
    with rc_context(STYLE):
        figure = Figure(figsize=(_PHONEMES_WIDTH, 4.9))
        ax = _axes(figure, 1, 0, above=0.78)
        ax.imshow(probabilities, **_heat(seconds, len(names)), cmap="Blues", vmin=0, vmax=1)
        ax.set_yticks(np.arange(len(names)) + 0.5, names, fontsize=5.5)
        ax.tick_params(axis="y", length=0)
        ax.set_xlabel("seconds")
        ax.set_title("phoneme probabilities (square root) and, above, the decoded phonemes", pad=28)
        crowded = len(transcript.phonemes) > 3.5 * _PHONEMES_WIDTH
        for number, phoneme in enumerate(transcript.phonemes):
            if phoneme.label == "SIL":
                continue
            # Neighbours share two lines, so that they do not overlap.
            ax.annotate(
                phoneme.label,
                ((phoneme.start + phoneme.end) * step / 2, 1),
                (0, 3 + 10 * (number % 2)),
                xycoords=("data", "axes fraction"),
                textcoords="offset points",
                ha="center",
                fontsize=5.5 if crowded else 7.5,
                color=(ACCENT, INK)[number % 2],
            )
        return png(figure)


def _axes(figure: Figure, rows: int, row: int, above: float = _ABOVE):
    width, height = figure.get_size_inches()
    share = height / rows
    bottom = height - (row + 1) * share + _BELOW
    return figure.add_axes(
        (_LEFT / width, bottom / height, (width - _LEFT - _RIGHT) / width, (share - _BELOW - above) / height)
    )


def _heat(seconds: float, rows: int) -> dict:
    return {"aspect": "auto", "interpolation": "nearest", "origin": "upper", "extent": (0.0, seconds, rows, 0.0)}
