"""The figures of the report, drawn with matplotlib into PNG bytes; every function takes plain arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from bit_speech.evaluation.ctc_alignment import AlignedLabel
from bit_speech.evaluation.figure_style import ACCENT, INK, MUTED, PERCENT, SECOND, STYLE, png
from configuration_bit.phoneme_inventory_bit import BLANK_TOKEN, MODEL_ORDER, SIL_TOKEN

# Vowels, stops, affricates and fricatives, nasals, liquids and glides: phonemes that are confused stand side by side.
ARTICULATORY_ORDER = (
    *("IY", "IH", "EY", "EH", "AE", "AA", "AO", "AH", "ER", "UH", "UW", "OW", "OY", "AY", "AW"),
    *("P", "B", "T", "D", "K", "G", "CH", "JH", "F", "V", "TH", "DH", "S", "Z", "SH", "ZH", "HH"),
    *("M", "N", "NG", "L", "R", "W", "Y", SIL_TOKEN),
)

OPERATION_COLORS = {
    "correct": INK,
    "substitution": "#b45309",
    "insertion": "#1d4ed8",
    "deletion": "#be123c",
}
_FEATURE_MAPS = tuple(
    LinearSegmentedColormap.from_list(name, ["#ffffff", *colors])
    for name, colors in (
        ("crossings", ["#9db4ea", "#2b5fd9", "#101f57"]),
        ("power", ["#94d2c8", "#12857a", "#06332f"]),
        ("other", ["#d9b8e6", "#8b3fae", "#361046"]),
    )
)
_POSTERIOR_MAP = LinearSegmentedColormap.from_list("posterior", ["#ffffff", "#c9d6f7", "#2b5fd9", "#0d1b4c"])
_CONFUSION_MAP = LinearSegmentedColormap.from_list("confusion", ["#ffffff", "#fcd9b6", "#e07b2a", "#7c2d12"])


@dataclass(frozen=True)
class TimedWord:
    """A word with its place in the recording.

    Args:
        text (`str`): the word.
        start_s (`float`): onset in seconds from the first bin.
        end_s (`float`): offset in seconds.
        operation (`str`): how it compares with the reference; see [`~bit_speech.evaluation.AlignedToken`].
    """

    text: str
    start_s: float
    end_s: float
    operation: str = "correct"


def trial_figure(
    *,
    duration_s: float,
    features: np.ndarray | None = None,
    feature_kinds: Sequence[str] | None = None,
    log_probs: np.ndarray | None = None,
    aligned: Sequence[AlignedLabel] = (),
    operations: Sequence[str] = (),
    reference_words: Sequence[TimedWord] = (),
    hypothesis_words: Sequence[TimedWord] = (),
) -> bytes:
    """Draw one trial on one time axis: neural features, phoneme posteriors with the aligned phonemes, and words.

    Args:
        duration_s (`float`): length of the recording in seconds.
        features (`np.ndarray` of shape `(T, C)`, *optional*): neural features, raw or normalised.
        feature_kinds (`list[str]`, *optional*): kind of every channel; one panel per kind.
        log_probs (`np.ndarray` of shape `(P, 41)`, *optional*): log-probabilities in model class order.
        aligned (`list[AlignedLabel]`, *optional*): reference phonemes at the frames of `log_probs`.
        operations (`list[str]`, *optional*): for every aligned phoneme, whether the greedy decoding has it.
        reference_words (`list[TimedWord]`, *optional*): drawn below the posteriors.
        hypothesis_words (`list[TimedWord]`, *optional*): drawn below the reference, coloured by error.

    Returns:
        `bytes`: a PNG image.
    """
    groups = _feature_groups(features, feature_kinds)
    shown = _shown_classes(log_probs, aligned)
    num_strips = bool(reference_words) + bool(hypothesis_words)
    # (name, height of the axes, room above it), in inches. Placed by hand: automatic layout of so many labels is slow.
    panels = [(f"features:{index}", 1.3, 0.32) for index in range(len(groups))]
    if shown:
        panels.append(("posteriors", 0.2 + 0.118 * len(shown), 0.56 if _labels_stand(aligned) else 0.46))
    if num_strips:
        panels.append(("words", 0.28 * num_strips, 0.12))
    if not panels:
        raise ValueError("a trial figure needs features, log_probs or timed words; this trial has none of them")
    with rc_context(STYLE):
        width, height = 11.0, sum(axes + room for _, axes, room in panels) + 0.48
        figure = Figure(figsize=(width, height))
        top = height
        for number, (name, axes_height, room) in enumerate(panels):
            top -= room + axes_height
            ax = figure.add_axes((0.62 / width, top / height, (width - 0.72) / width, axes_height / height))
            if name.startswith("features"):
                index = int(name.split(":")[1])
                _draw_features(ax, *groups[index], duration_s=duration_s, colors=_FEATURE_MAPS[index % 3])
            elif name == "posteriors" and log_probs is not None:
                _draw_posteriors(ax, log_probs, shown, aligned, operations, duration_s)
            else:
                _draw_words(ax, reference_words, hypothesis_words)
            ax.set_xlim(0, duration_s)
            ax.tick_params(axis="x", labelbottom=number == len(panels) - 1)
            if number == len(panels) - 1:
                ax.set_xlabel("time (s)")
                ax.tick_params(axis="x", length=3)
        return png(figure)


def learning_curve_figure(learning_curve: Sequence[Mapping[str, float]]) -> bytes:
    """Draw losses and error rates against training steps.

    Args:
        learning_curve (`list[dict]`): records as in a Trainer's `log_history`: `step` (or `epoch`) with `loss`,
            `eval_loss`, `eval_per`, `eval_wer`, ... in any subset.

    Returns:
        `bytes`: a PNG image.

    Raises:
        ValueError: if no record has a loss or an error rate.
    """
    losses = {"loss": "training", "train_loss": "training", "eval_loss": "validation"}
    rates = {
        key: key.removeprefix("eval_").upper() for key in ("eval_per", "eval_wer", "eval_cer", "per", "wer", "cer")
    }
    panels = []
    for title, names, percent in (("CTC loss", losses, False), ("validation error rate", rates, True)):
        series = {
            label: points
            for key, label in names.items()
            if len(points := _series(learning_curve, key))
            # The record that ends a run repeats the mean loss once; one point is no curve beside another one.
            and not (key == "train_loss" and _series(learning_curve, "loss").size)
        }
        if series:
            panels.append((title, series, percent))
    if not panels:
        raise ValueError("learning_curve has no loss, eval_loss, eval_per, eval_wer or eval_cer in any record")
    x_label = "step" if any("step" in record for record in learning_curve) else "epoch"
    with rc_context(STYLE):
        figure = Figure(figsize=(9.6 if len(panels) > 1 else 5.4, 3.1), layout="constrained")
        for ax, (title, series, percent) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
            for color, (label, points) in zip((ACCENT, SECOND, "#0f766e"), series.items()):
                few = len(points) <= 40
                ax.plot(points[:, 0], points[:, 1], color=color, lw=1.8, marker="o" if few else "", ms=3, label=label)
            if percent:
                label, points = next(iter(series.items()))
                best = points[points[:, 1].argmin()]
                ax.plot(*best, "o", ms=7, mfc="white", mec=ACCENT, mew=1.8, zorder=5)
                ax.set_title(f"{title}; best {label} {100 * best[1]:.1f} % at {x_label} {best[0]:g}")
                ax.yaxis.set_major_formatter(PERCENT)
                ax.set_ylim(bottom=0)
            else:
                ax.set_title(title)
            if len(series) > 1:
                ax.legend(loc="upper right")
            ax.set_xlabel(x_label)
            ax.xaxis.set_major_locator(MaxNLocator(6, integer=x_label == "step"))
            ax.grid(axis="y")
        return png(figure)


def per_session_figure(rates: Mapping[str, tuple[float, float, float]], unit: str = "PER") -> bytes:
    """Draw one bar with its interval per session.

    Args:
        rates (`dict[str, tuple]`): session -> rate, low, high, as shares.
        unit (`str`, *optional*): name of the rate.

    Returns:
        `bytes`: a PNG image.
    """
    names = list(rates)
    values = np.array([rates[name] for name in names], dtype=float).reshape(-1, 3)
    with rc_context(STYLE):
        figure = Figure(figsize=(7.2, 0.9 + 0.26 * len(names)), layout="constrained")
        ax = figure.subplots()
        rows = np.arange(len(names))
        ax.barh(rows, values[:, 0], height=0.62, color="#aec3f4", zorder=2)
        spread = np.abs(values[:, 1:] - values[:, :1]).T
        ax.errorbar(values[:, 0], rows, xerr=spread, fmt="none", ecolor=INK, elinewidth=1.2, capsize=2.5, zorder=3)
        right = max(float(values.max()), 0.01) * 1.14
        for row, (rate, _, high) in enumerate(values.tolist()):
            ax.text(max(rate, high) + 0.012 * right, row, f"{100 * rate:.1f}", va="center", fontsize=8, color=INK)
        ax.set_yticks(rows, names)
        ax.set_ylim(len(names) - 0.4, -0.6)
        ax.set_xlim(0, right)
        ax.xaxis.set_major_formatter(PERCENT)
        ax.set_xlabel(f"{unit}, with 95 % interval")
        ax.tick_params(axis="y", length=0, labelcolor=INK)
        ax.spines["left"].set_visible(False)
        ax.grid(axis="x")
        return png(figure)


def confusion_figure(confusions: Mapping[tuple[str, str | None], int]) -> bytes:
    """Draw which phonemes were decoded as which; the diagonal is left out, so that errors show.

    Args:
        confusions (`dict`): `(reference, prediction)` -> count; a prediction of None is a deletion. Correct phonemes
            belong to it too, because shares are of all uses of the reference phoneme.

    Returns:
        `bytes`: a PNG image.
    """
    present = {name for pair in confusions for name in pair if name is not None}
    names = [name for name in ARTICULATORY_ORDER if name in present]
    names += sorted(present - set(names))
    place = {name: index for index, name in enumerate(names)}
    shares = np.zeros((len(names), len(names) + 1))
    for (reference, prediction), count in confusions.items():
        shares[place[reference], len(names) if prediction is None else place[prediction]] += count
    shares /= np.maximum(shares.sum(axis=1, keepdims=True), 1)
    diagonal = np.arange(len(names))
    shares[diagonal, diagonal] = 0.0
    with rc_context(STYLE):
        size = 0.148 * len(names)
        figure = Figure(figsize=(size + 1.0, size + 1.5), layout="constrained")
        ax = figure.subplots()
        top = max(float(shares.max()), 0.01)
        image = ax.imshow(shares, cmap=_CONFUSION_MAP, vmin=0, vmax=top, interpolation="nearest", aspect="equal")
        for index in diagonal:
            ax.add_patch(Rectangle((index - 0.5, index - 0.5), 1, 1, fc="#eef1f5", ec="none"))
        ax.axvline(len(names) - 0.5, color="#b8c0cc", lw=0.8)
        ax.set_xticks(range(len(names) + 1), [*names, "missed"], rotation=90, fontsize=6.8)
        ax.set_yticks(range(len(names)), names, fontsize=6.8)
        ax.tick_params(length=0, labelcolor=INK)
        ax.set_xticks(np.arange(-0.5, len(names) + 1), minor=True)
        ax.set_yticks(np.arange(-0.5, len(names)), minor=True)
        ax.grid(which="minor", color="#f1f3f6", lw=0.6)
        ax.tick_params(which="minor", length=0)
        ax.spines[:].set_visible(False)
        ax.set_xlabel("decoded")
        ax.set_ylabel("said")
        bar = figure.colorbar(image, ax=ax, location="bottom", shrink=0.5, pad=0.02, aspect=30, format=PERCENT)
        bar.outline.set_visible(False)
        bar.set_label("share of the phoneme's uses")
        return png(figure)


def length_figure(rates: Mapping[str, Mapping[str, tuple[float, float, float]]]) -> bytes:
    """Draw error rates against the length of the sentence.

    Args:
        rates (`dict`): name of a rate -> {words in the sentence, such as `"4-5"` -> (rate, low, high)}.

    Returns:
        `bytes`: a PNG image.
    """
    labels = list(next(iter(rates.values())))
    with rc_context(STYLE):
        figure = Figure(figsize=(5.4, 3.1), layout="constrained")
        ax = figure.subplots()
        for index, (color, (name, by_length)) in enumerate(zip((SECOND, ACCENT, "#0f766e"), rates.items())):
            values = np.array([by_length[label] for label in labels], dtype=float)
            x = np.arange(len(labels)) + 0.12 * (index - (len(rates) - 1) / 2)
            spread = np.abs(values[:, 1:] - values[:, :1]).T
            ax.errorbar(x, values[:, 0], yerr=spread, fmt="o-", ms=4.5, lw=1.6, color=color, capsize=2.5, label=name)
        ax.set_xticks(range(len(labels)), labels)
        ax.set_xlabel("words in the sentence")
        ax.yaxis.set_major_formatter(PERCENT)
        ax.set_ylim(bottom=0)
        ax.legend(loc="best")
        ax.grid(axis="y")
        return png(figure)


def _series(learning_curve: Sequence[Mapping[str, float]], key: str) -> np.ndarray:
    points = [
        (record.get("step", record.get("epoch", index)), record[key])
        for index, record in enumerate(learning_curve)
        if record.get(key) is not None and np.isfinite(record[key])
    ]
    return np.array(points, dtype=float).reshape(-1, 2)


def _feature_groups(features: np.ndarray | None, feature_kinds: Sequence[str] | None) -> list[tuple[str, np.ndarray]]:
    if features is None or len(features) == 0:
        return []
    if feature_kinds is None:
        return [("neural features", features)]
    kinds = np.asarray(feature_kinds)
    return [(kind.replace("_", " "), features[:, kinds == kind]) for kind in dict.fromkeys(kinds.tolist())]


def _draw_features(ax: Axes, name: str, values: np.ndarray, duration_s: float, colors: LinearSegmentedColormap) -> None:
    values = np.nan_to_num(np.asarray(values, dtype=np.float32))
    counts = bool(np.all(values >= 0) and np.all(values == np.round(values)))
    if counts:
        # A raster: one tick per bin with crossings, dark from the busiest hundredth of bins on.
        low, high, unit = 0.0, min(4.0, max(1.0, float(np.quantile(values, 0.99)))), "counts per bin"
    else:
        values = (values - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-6)
        low, high, unit = 0.0, 3.0, "z-scored per channel, values above the mean"
    ax.imshow(
        values.T,
        aspect="auto",
        cmap=colors,
        vmin=low,
        vmax=high,
        extent=(0, duration_s, values.shape[1], 0),
        interpolation="antialiased",
    )
    ax.set_title(f"{name}  ·  {values.shape[1]} channels, {unit}")
    ax.set_ylabel("channel")
    ax.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    ax.tick_params(axis="x", length=0)


def _shown_classes(log_probs: np.ndarray | None, aligned: Sequence[AlignedLabel]) -> list[int]:
    """Rows of the posterior panel: phonemes that were said or got some probability, in articulatory order."""
    if log_probs is None or len(log_probs) == 0:
        return []
    likely = np.exp(log_probs).max(axis=0) > 0.1
    wanted = {label.label for label in aligned} | set(np.flatnonzero(likely).tolist())
    order = [MODEL_ORDER.index(name) for name in (*ARTICULATORY_ORDER, BLANK_TOKEN)]
    return [index for index in order if index in wanted] or order


def _labels_stand(aligned: Sequence[AlignedLabel]) -> bool:
    """Many phonemes stand upright, or their names would overlap."""
    return len(aligned) > 65


def _draw_posteriors(
    ax: Axes,
    log_probs: np.ndarray,
    shown: list[int],
    aligned: Sequence[AlignedLabel],
    operations: Sequence[str],
    duration_s: float,
) -> None:
    frame_s = duration_s / len(log_probs)
    ax.imshow(
        np.exp(log_probs[:, shown]).T,
        aspect="auto",
        cmap=_POSTERIOR_MAP,
        vmin=0,
        vmax=1,
        extent=(0, duration_s, len(shown) - 0.5, -0.5),
        interpolation="nearest",
    )
    rows = {label: row for row, label in enumerate(shown)}
    for index, label in enumerate(aligned):
        operation = operations[index] if index < len(operations) else "correct"
        color = OPERATION_COLORS["deletion"] if operation != "correct" else "#0f766e"
        start, width = label.onset_frame * frame_s, (label.offset_frame - label.onset_frame) * frame_s
        box = Rectangle((start, rows[label.label] - 0.5), width, 1, fill=False, ec=color, lw=1.1, zorder=4)
        ax.add_patch(box)
        ax.text(
            start + width / 2,
            1.008,
            label.phoneme,
            transform=ax.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=6.2,
            rotation=90 if _labels_stand(aligned) else 0,
            color=color if operation != "correct" else INK,
            fontweight="bold" if operation != "correct" else "normal",
        )
    ax.set_yticks(range(len(shown)), ["blank" if i == 0 else MODEL_ORDER[i] for i in shown], fontsize=6.5)
    ax.tick_params(length=0, labelcolor=INK)
    ax.tick_params(axis="x", labelcolor=MUTED)
    ax.set_ylabel("phoneme")
    title = "phoneme posteriors"
    if aligned:
        title += "  ·  boxes: what was to be said, aligned;  red: missed or decoded as another phoneme"
    ax.set_title(title, pad=(24 if _labels_stand(aligned) else 16) if aligned else 6)


def _draw_words(ax: Axes, reference_words: Sequence[TimedWord], hypothesis_words: Sequence[TimedWord]) -> None:
    strips = [(name, words) for name, words in (("said", reference_words), ("decoded", hypothesis_words)) if words]
    for row, (_, words) in enumerate(strips):
        for word in words:
            color = OPERATION_COLORS[word.operation]
            wrong = word.operation != "correct"
            face = "#fdeede" if wrong else "#eef2f8"
            box = Rectangle((word.start_s, row - 0.4), word.end_s - word.start_s, 0.8, fc=face, ec="#c3ccd8", lw=0.7)
            ax.add_patch(box)
            ax.text(
                (word.start_s + word.end_s) / 2,
                row,
                word.text,
                ha="center",
                va="center",
                fontsize=7.5,
                color=color,
                fontweight="bold" if wrong else "normal",
                clip_on=True,
            )
    ax.set_ylim(len(strips) - 0.45, -0.55)
    ax.set_yticks(range(len(strips)), [name for name, _ in strips])
    ax.tick_params(axis="y", length=0, labelcolor=INK)
    ax.spines["left"].set_visible(False)
