"""Do brain features look like speech to a speech model? Distances of the two, before and after its body.

Fiedler et al. 2025 (arXiv 2501.09459) show the two clouds apart before the body and overlapping in part after it, by
eye. Here the same picture comes with two numbers: how far the centres are apart, and how well a straight cut tells the
two apart on sentences it has not seen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from bit_speech.import_utils import require


@dataclass(frozen=True)
class FeatureDistance:
    """How far two sets of features are apart.

    Args:
        centroid_distance (`float`): distance of the two means in units of the root mean square distance of a feature
            from its own set's mean. 0: same centre; 1: as far as the sets are wide.
        probe_accuracy (`float`): balanced accuracy of a linear classifier on sentences that it was not fitted on. 0.5:
            no straight cut tells them apart; 1: every feature is told apart.
        num_first (`int`): features of the first set.
        num_second (`int`): features of the second set.
    """

    centroid_distance: float
    probe_accuracy: float
    num_first: int
    num_second: int

    def to_dict(self) -> dict[str, Any]:
        """Give the numbers as JSON can hold them.

        Returns:
            `dict[str, Any]`: all fields.
        """
        return asdict(self)


def feature_distance(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], level: str = "frame", seed: int = 0
) -> FeatureDistance:
    """Measure how far two sets of features are apart.

    Args:
        first (list of `np.ndarray` of shape `(P, D)`): frames of each sentence, for example from a brain.
        second (list of `np.ndarray` of shape `(P, D)`): frames of each sentence, for example from audio; other
            sentences, lengths and numbers are fine, D is the same.
        level (`str`): `"frame"`, or `"sentence"` to compare the mean of each sentence's frames.
        seed (`int`): draws the two halves of the sentences.

    Returns:
        [`FeatureDistance`]: centroid distance, and probe accuracy over two folds. The folds cut between sentences,
        never through one; features are standardised on the fold that the probe is fitted on.

    Raises:
        ImportError: when scikit-learn is not installed.
        ValueError: if a set has fewer than four sentences, or a shape or value is unusable.

    Example:
        >>> brain, audio = [np.zeros((3, 2))] * 4, [np.ones((2, 2))] * 4
        >>> noise = np.random.default_rng(0)
        >>> brain, audio = [[x + 0.1 * noise.normal(size=x.shape) for x in xs] for xs in (brain, audio)]
        >>> feature_distance(brain, audio).probe_accuracy
        1.0
    """
    require("sklearn")
    from sklearn.linear_model import LogisticRegression

    if level not in ("frame", "sentence"):
        raise ValueError(f"level is {level!r}; choose frame or sentence")
    checked = [_check(one, name) for one, name in ((first, "first"), (second, "second"))]
    if checked[0][0].shape[1] != checked[1][0].shape[1]:
        raise ValueError(f"first has width {checked[0][0].shape[1]}, second {checked[1][0].shape[1]}; expected equal")
    if level == "sentence":
        checked = [[frames.mean(axis=0, keepdims=True) for frames in sentences] for sentences in checked]
    rng = np.random.default_rng(seed)
    features, labels, folds = [], [], []
    for label, sentences in enumerate(checked):
        fold_of = rng.permutation(len(sentences)) % 2
        for frames, fold in zip(sentences, fold_of):
            features.append(frames)
            labels += [label] * len(frames)
            folds += [fold] * len(frames)
    values, label_of, fold_of = np.concatenate(features), np.array(labels), np.array(folds)

    means = [values[label_of == label].mean(axis=0) for label in (0, 1)]
    spread = np.mean([((values[label_of == label] - means[label]) ** 2).sum(axis=1).mean() for label in (0, 1)])
    distance = float(np.linalg.norm(means[0] - means[1]))

    right = {0: [0, 0], 1: [0, 0]}  # label -> [correct, all]
    for fold in (0, 1):
        fitted, held_out = values[fold_of == fold], values[fold_of != fold]
        center, scale = fitted.mean(axis=0), fitted.std(axis=0) + 1e-9
        probe = LogisticRegression(max_iter=500, class_weight="balanced")
        probe.fit((fitted - center) / scale, label_of[fold_of == fold])
        guessed, truth = probe.predict((held_out - center) / scale), label_of[fold_of != fold]
        for label in (0, 1):
            right[label][0] += int((guessed[truth == label] == label).sum())
            right[label][1] += int((truth == label).sum())
    accuracy = float(np.mean([correct / count for correct, count in right.values()]))
    ratio = distance / float(np.sqrt(spread)) if spread > 0 else (float("inf") if distance > 0 else 0.0)
    return FeatureDistance(ratio, accuracy, *(int((label_of == label).sum()) for label in (0, 1)))


def feature_map(
    sets: Mapping[str, Sequence[np.ndarray]], max_per_set: int = 500, perplexity: float = 30.0, seed: int = 0
) -> dict[str, np.ndarray]:
    """Lay features out on a plane by t-SNE, all sets together.

    Args:
        sets (`dict[str, list[np.ndarray]]`): name -> frames `(P, D)` of each sentence.
        max_per_set (`int`): frames drawn of each set.
        perplexity (`float`): of t-SNE; lowered where there are too few frames for it.
        seed (`int`): draws the frames and starts t-SNE.

    Returns:
        `dict[str, np.ndarray]`: name -> coordinates `(N, 2)`. Only neighbourhoods mean something.

    Raises:
        ImportError: when scikit-learn is not installed.
        ValueError: if a shape or value is unusable.
    """
    require("sklearn")
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rng = np.random.default_rng(seed)
    drawn = {}
    for name, sentences in sets.items():
        frames = np.concatenate(_check(sentences, name))
        drawn[name] = frames[rng.permutation(len(frames))[:max_per_set]]
    values = np.concatenate(list(drawn.values()))
    values = (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-9)
    reduced = PCA(min(30, *values.shape), random_state=seed).fit_transform(values)
    plane = TSNE(perplexity=min(perplexity, (len(values) - 1) / 3), init="pca", random_state=seed).fit_transform(
        reduced
    )
    borders = np.cumsum([len(frames) for frames in drawn.values()])[:-1]
    return dict(zip(drawn, np.split(plane, borders)))


def feature_distribution_figure(
    before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray], distances: Mapping[str, FeatureDistance]
) -> bytes:
    """Draw two planes side by side: features before and after the body.

    Args:
        before (`dict[str, np.ndarray]`): name -> coordinates `(N, 2)`, from [`feature_map`].
        after (`dict[str, np.ndarray]`): the same after the body.
        distances (`dict[str, FeatureDistance]`): `"before"` and `"after"`, for the titles.

    Returns:
        `bytes`: a PNG image.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from bit_speech.evaluation.figure_style import ACCENT, SECOND, STYLE, png

    with rc_context(STYLE):
        figure = Figure(figsize=(7.4, 3.6), layout="constrained")
        for ax, (name, planes) in zip(figure.subplots(1, 2), (("before", before), ("after", after))):
            for (label, points), color in zip(planes.items(), (ACCENT, SECOND)):
                ax.scatter(*points.T, s=6, color=color, alpha=0.5, linewidths=0, label=label)
            found = distances[name]
            ax.set_title(
                f"{name} the body: centres {found.centroid_distance:.2f}, probe {100 * found.probe_accuracy:.0f} %"
            )
            ax.set_xticks([])
            ax.set_yticks([])
            ax.legend(loc="best", markerscale=2)
        return png(figure)


def _check(sentences: Sequence[np.ndarray], name: str) -> list[np.ndarray]:
    arrays = [np.asarray(frames, dtype=np.float64) for frames in sentences]
    arrays = [frames for frames in arrays if frames.size]
    if len(arrays) < 4:
        raise ValueError(f"{name} has {len(arrays)} sentences with frames; expected at least 4, two for each fold")
    for index, frames in enumerate(arrays):
        if frames.ndim != 2 or frames.shape[1] != arrays[0].shape[1]:
            raise ValueError(f"{name}[{index}] has shape {frames.shape}; expected (frames, width), all of one width")
        if not np.isfinite(frames).all():
            raise ValueError(f"{name}[{index}] holds NaN or infinity; the model's output is broken there")
    return arrays
