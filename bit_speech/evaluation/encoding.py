"""How well features of a story predict the brain: held-out correlations, their significance, and tables by region."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bit_speech.data.cortical_areas import ROI_SETS
from bit_speech.evaluation.ridge import PENALTIES, RidgeFit, fit_ridge


@dataclass(frozen=True)
class StoryPrediction:
    """Responses to one story and what a model that never saw it predicts.

    Args:
        story_id (`str`): the story.
        predicted (`np.ndarray` of shape `(R, X)`): the prediction.
        measured (`np.ndarray` of shape `(R, X)`): BOLD.
    """

    story_id: str
    predicted: np.ndarray
    measured: np.ndarray


def correlation_by_voxel(predicted: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Correlate over time, voxel by voxel.

    Args:
        predicted (`np.ndarray` of shape `(R, X)`): predictions.
        measured (`np.ndarray` of shape `(R, X)`): responses.

    Returns:
        `np.ndarray` of shape `(X,)`: Pearson's r; 0 where one of the two does not change.

    Raises:
        ValueError: if the shapes differ.

    Example:
        >>> correlation_by_voxel(np.array([[1.0], [2.0], [3.0]]), np.array([[2.0], [4.0], [6.0]])).round(6).tolist()
        [1.0]
    """
    if predicted.shape != measured.shape or predicted.ndim != 2:
        raise ValueError(f"predicted has shape {predicted.shape} and measured {measured.shape}; both must be (R, X)")
    return (_unit_columns(predicted) * _unit_columns(measured)).sum(axis=0)


def _unit_columns(values: np.ndarray) -> np.ndarray:
    centred = values - values.mean(axis=0, dtype=np.float64)
    norm = np.sqrt(np.square(centred).sum(axis=0))
    return np.divide(centred, norm, out=np.zeros_like(centred), where=norm > 1e-12)


def pooled_correlation(stories: Sequence[StoryPrediction]) -> np.ndarray:
    """Correlate over the TRs of all stories, each with its own mean taken off.

    Args:
        stories (sequence of [`StoryPrediction`]): held-out stories.

    Returns:
        `np.ndarray` of shape `(X,)`.
    """
    return correlation_by_voxel(*_joined(stories))


def _joined(stories: Sequence[StoryPrediction]) -> tuple[np.ndarray, np.ndarray]:
    predicted = np.concatenate([story.predicted - story.predicted.mean(axis=0) for story in stories])
    return predicted, np.concatenate([story.measured - story.measured.mean(axis=0) for story in stories])


def predict_held_out_stories(
    features: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    num_folds: int | None = None,
    penalties: Sequence[float] = PENALTIES,
    inner_folds: int = 5,
    seed: int = 0,
    **settings: Any,
) -> list[StoryPrediction]:
    """Predict every story with a model fitted on other stories: outer folds of stories, inner folds for penalties.

    Args:
        features (mapping of `str` to `np.ndarray` of shape `(R, F)`): features by story, with delays.
        responses (mapping of `str` to `np.ndarray` of shape `(R, X)`): BOLD by story, the same TRs.
        num_folds (`int`, *optional*): groups of stories; default one story at a time.
        penalties (sequence of `float`): see [`~bit_speech.evaluation.ridge.fit_ridge`].
        inner_folds (`int`): groups of training stories, each held out once to choose penalties.
        seed (`int`): deals stories out to groups.
        **settings: of `fit_ridge`.

    Returns:
        list of [`StoryPrediction`], in the order of `responses`.

    Raises:
        ValueError: if the two do not hold the same stories, or there are too few.
    """
    names = list(responses)
    if set(names) != set(features) or len(names) < 3:
        raise ValueError(
            f"features have stories {sorted(features)}, responses {sorted(names)}; expected the same, at least 3"
        )
    for name in names:
        if len(features[name]) != len(responses[name]):
            raise ValueError(f"{name}: {len(features[name])} TRs of features, {len(responses[name])} of responses")
    order = [names[i] for i in np.random.default_rng(seed).permutation(len(names))]
    groups = [order[start :: num_folds or len(names)] for start in range(num_folds or len(names))]
    found = {}
    for held_out in groups:
        training = [name for name in names if name not in held_out]
        fit = fit_stories(features, responses, training, penalties, inner_folds, **settings)
        for name in held_out:
            found[name] = StoryPrediction(name, fit.predict(features[name]), np.asarray(responses[name]))
    return [found[name] for name in names]


def fit_stories(
    features: Mapping[str, np.ndarray],
    responses: Mapping[str, np.ndarray],
    stories: Sequence[str],
    penalties: Sequence[float] = PENALTIES,
    inner_folds: int = 5,
    **settings: Any,
) -> RidgeFit:
    """Fit one ridge regression to several stories; penalties are chosen on stories held out in turn.

    Args:
        features (mapping of `str` to `np.ndarray` of shape `(R, F)`): features by story, with delays.
        responses (mapping of `str` to `np.ndarray` of shape `(R, X)`): BOLD by story.
        stories (sequence of `str`): the stories to fit, at least 2.
        penalties (sequence of `float`): candidates.
        inner_folds (`int`): groups of stories, each held out once.
        **settings: of [`~bit_speech.evaluation.ridge.fit_ridge`].

    Returns:
        [`~bit_speech.evaluation.ridge.RidgeFit`].

    Raises:
        ValueError: if there are fewer than two stories.
    """
    if len(stories) < 2:
        raise ValueError(f"penalties are chosen on held-out stories, which needs at least 2; got {list(stories)}")
    lengths = [len(responses[name]) for name in stories]
    group = np.repeat(np.arange(len(stories)) % min(inner_folds, len(stories)), lengths)
    folds = [np.flatnonzero(group == number) for number in range(int(group.max()) + 1)]
    inputs = np.concatenate([features[name] for name in stories])
    return fit_ridge(inputs, np.concatenate([responses[name] for name in stories]), penalties, folds, **settings)


def block_permutation_test(
    stories: Sequence[StoryPrediction], block_trs: int = 10, num_permutations: int = 1000, seed: int = 0
) -> np.ndarray:
    """Ask how often blocks of the prediction in random order do as well.

    Args:
        stories (sequence of [`StoryPrediction`]): held-out stories; blocks change places over all of them.
        block_trs (`int`): TRs in a block; 10 TRs of 2 s are longer than the haemodynamic response.
        num_permutations (`int`): random orders.
        seed (`int`): of the orders.

    Returns:
        `np.ndarray` of shape `(X,)`: one-sided p-values, at least `1 / (num_permutations + 1)`.

    Raises:
        ValueError: if there are fewer than 5 blocks.
    """
    predicted, measured = _joined(stories)
    number = len(predicted) // block_trs
    if number < 5:
        raise ValueError(f"{len(predicted)} TRs are {number} block(s) of {block_trs}; at least 5 are needed")
    # A remainder shorter than a block cannot change places with one, so it takes no part.
    length = number * block_trs
    predicted, measured = _unit_columns(predicted[:length]), _unit_columns(measured[:length])
    # All that a permutation needs are the products of every block with every other.
    first = predicted.reshape(number, block_trs, -1).transpose(2, 0, 1).astype(np.float32)
    second = measured.reshape(number, block_trs, -1).transpose(2, 1, 0).astype(np.float32)
    orders = np.random.default_rng(seed).permuted(np.tile(np.arange(number), (num_permutations, 1)), axis=1)
    places = np.arange(number)
    better = np.empty(len(first), dtype=np.int64)
    for voxel in range(len(first)):
        products = first[voxel] @ second[voxel]
        # A sum in another order may differ in the last digit, which must not decide.
        better[voxel] = np.count_nonzero(products[orders, places].sum(axis=1) >= np.trace(products) - 1e-6)
    return (1 + better) / (1 + num_permutations)


def false_discovery_rate(p_values: np.ndarray) -> np.ndarray:
    """Adjust p-values so that a threshold bounds the expected share of false discoveries.

    Args:
        p_values (`np.ndarray` of shape `(X,)`): of many tests.

    Returns:
        `np.ndarray` of shape `(X,)`: q-values; those at most 0.05 are discoveries at a rate of 5 %.

    Note:
        Benjamini & Hochberg 1995, for independent or positively dependent tests.

    Example:
        >>> false_discovery_rate(np.array([0.01, 0.04, 0.03, 0.5])).round(4).tolist()
        [0.04, 0.0533, 0.0533, 0.5]
    """
    order = np.argsort(p_values)
    scaled = p_values[order] * len(p_values) / np.arange(1, len(p_values) + 1)
    found = np.empty(len(p_values))
    found[order] = np.minimum(np.minimum.accumulate(scaled[::-1])[::-1], 1.0)
    return found


def story_block_bootstrap(
    stories: Sequence[StoryPrediction],
    against: Sequence[StoryPrediction] | None = None,
    block_trs: int = 10,
    num_draws: int = 1000,
    seed: int = 0,
    voxels: np.ndarray | None = None,
) -> tuple[float, float, float]:
    """Give the mean correlation over voxels, or its gain over another model, with a 95 % interval.

    Args:
        stories (sequence of [`StoryPrediction`]): held-out stories.
        against (sequence of [`StoryPrediction`], *optional*): another model's predictions of the same stories.
        block_trs (`int`): TRs that are drawn together.
        num_draws (`int`): draws, with replacement, of blocks within stories.
        seed (`int`): of the draws; equal for both models.
        voxels (`np.ndarray`, *optional*): a mask or indices; default all voxels.

    Returns:
        `tuple`: mean, and its 2.5 and 97.5 per cent quantiles.

    Raises:
        ValueError: if the two models predict different stories.
    """
    models = [stories] if against is None else [stories, against]
    if against is not None and [s.story_id for s in stories] != [s.story_id for s in against]:
        raise ValueError("The two models predict different stories: give the same ones in the same order.")
    sums = np.stack([_block_sums(model, block_trs, voxels) for model in models])  # (models, 6, blocks, X)
    story_of = np.concatenate([np.full(-(-len(story.measured) // block_trs), i) for i, story in enumerate(stories)])
    members = [np.flatnonzero(story_of == number) for number in range(len(stories))]
    rng = np.random.default_rng(seed)

    counts = np.ones((num_draws + 1, len(story_of)))
    for draw in range(num_draws):
        chosen = np.concatenate([rng.choice(blocks, len(blocks)) for blocks in members])
        counts[draw + 1] = np.bincount(chosen, minlength=len(story_of))
    values = _mean_correlations(counts, sums[0])
    if against is not None:
        values = values - _mean_correlations(counts, sums[1])
    low, high = np.quantile(values[1:], [0.025, 0.975])
    return float(values[0]), float(low), float(high)


def _mean_correlations(counts: np.ndarray, sums: np.ndarray) -> np.ndarray:
    """Correlation, averaged over voxels, of every draw: how often each block was drawn, and the sums over blocks."""
    product, one, two, first, second, total = (counts @ part for part in sums)
    covariance = product / total - first * second / total**2
    spread = (one / total - (first / total) ** 2) * (two / total - (second / total) ** 2)
    return (covariance / np.sqrt(np.maximum(spread, 1e-24))).mean(axis=1)


def _block_sums(stories: Sequence[StoryPrediction], block_trs: int, voxels: np.ndarray | None) -> np.ndarray:
    """Sums over each block of all that a correlation needs, of shape `(6, blocks, X)`."""
    rows = []
    for story in stories:
        predicted, measured = (values[:, voxels] if voxels is not None else values for values in (
            story.predicted.astype(np.float64), story.measured.astype(np.float64)))  # fmt: skip
        predicted, measured = predicted - predicted.mean(axis=0), measured - measured.mean(axis=0)
        starts = np.arange(0, len(measured), block_trs)
        parts = (predicted * measured, predicted**2, measured**2, predicted, measured, np.ones_like(measured))
        rows.append(np.stack([np.add.reduceat(part, starts, axis=0) for part in parts]))
    return np.concatenate(rows, axis=1)


def participant_bootstrap(
    values: Sequence[float], num_draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Give the mean over participants with a 95 % interval from drawing participants again.

    Args:
        values (sequence of `float`): one number of each participant.
        num_draws (`int`): draws with replacement.
        seed (`int`): of the draws.

    Returns:
        `tuple`: mean, and its 2.5 and 97.5 per cent quantiles.

    Raises:
        ValueError: if there are no values.

    Example:
        >>> participant_bootstrap([0.2, 0.2, 0.2])
        (0.2, 0.2, 0.2)
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array):
        raise ValueError("There are no participants to draw from.")
    drawn = np.random.default_rng(seed).choice(array, (num_draws, len(array))).mean(axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return round(float(array.mean()), 12), round(float(low), 12), round(float(high), 12)


def region_table(
    scores: np.ndarray, areas: Sequence[str], regions: Mapping[str, Iterable[str]] | str = "paper"
) -> dict[str, float]:
    """Average scores by region: over the vertices of each area of both hemispheres, then over areas.

    Args:
        scores (`np.ndarray` of shape `(X,)`): one number per vertex; NaN is left out.
        areas (sequence of `str`): Glasser area of every vertex, such as `"A5"`.
        regions (mapping or `str`): areas of each region, or a name in `ROI_SETS`.

    Returns:
        `dict[str, float]`: the mean of each region; regions without any vertex are left out.

    Raises:
        ValueError: if there is not one area per vertex, or the set is unknown.

    Example:
        >>> region_table(np.array([0.2, 0.4, 0.9]), ["A1", "A1", "V1"])
        {'A1': 0.3, 'early_auditory': 0.3}
    """
    if isinstance(regions, str):
        if regions not in ROI_SETS:
            raise ValueError(f"there is no set of regions {regions!r}; choose one of {', '.join(ROI_SETS)}")
        regions = ROI_SETS[regions]
    if len(areas) != len(scores):
        raise ValueError(f"{len(areas)} areas for {len(scores)} vertices; expected one for each")
    names = np.asarray(areas)
    kept = np.isfinite(scores)
    means = {area: float(scores[(names == area) & kept].mean()) for area in set(names[kept].tolist())}
    found = {name: [means[area] for area in members if area in means] for name, members in regions.items()}
    return {name: round(float(np.mean(values)), 12) for name, values in found.items() if values}
