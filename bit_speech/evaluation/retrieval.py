"""How well predicted vectors find the sound that was heard: ranks with ties, top-k, intervals, tests, controls."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

# Cosines closer than this are a tie.
_TIE = 1e-9
_ROWS_AT_ONCE = 1024
TOP_K: tuple[int, ...] = (1, 5, 10)
POOLS: tuple[str, ...] = ("all", "same", "cross")


@dataclass(frozen=True)
class Ranks:
    """Where each window's own sound came among its candidates.

    Attributes:
        rank (`np.ndarray` of shape `(N,)`): candidates before it, ties counted half; 0 is the best.
        num_candidates (`np.ndarray` of shape `(N,)`): how many there were, its own among them.
    """

    rank: np.ndarray
    num_candidates: np.ndarray

    @property
    def relative(self) -> np.ndarray:
        """Rank divided by the number of candidates (`np.ndarray` of shape `(N,)`): 0 best, 0.5 chance."""
        return self.rank / self.num_candidates

    def select(self, keep: np.ndarray) -> Ranks:
        """The ranks of some windows, with their candidates as they were.

        Args:
            keep (`np.ndarray`): which windows, as a mask or positions.

        Returns:
            `Ranks`: of these windows.
        """
        return Ranks(self.rank[keep], self.num_candidates[keep])


@dataclass(frozen=True)
class RetrievalScores:
    """Scores of a set of windows.

    Attributes:
        mean_relative_rank (`float`): 0 perfect, 0.5 chance.
        low (`float`): lower end of its 95 % interval, from resampling blocks.
        high (`float`): upper end.
        top_k (`dict[int, float]`): share of windows whose own sound is among the first k.
        chance_top_k (`dict[int, float]`): what a guess would reach.
        num_windows (`int`): windows scored.
        num_candidates (`float`): candidates of a window, on average.
        num_blocks (`int`): blocks that were resampled.
    """

    mean_relative_rank: float
    low: float
    high: float
    top_k: dict[int, float]
    chance_top_k: dict[int, float]
    num_windows: int
    num_candidates: float
    num_blocks: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file.

        Returns:
            `dict`: the attributes; `top_k` as `top_1`, `top_5`, ...
        """
        tops = {f"top_{k}": value for k, value in self.top_k.items()}
        chance = {f"chance_top_{k}": value for k, value in self.chance_top_k.items()}
        names = ("mean_relative_rank", "low", "high", "num_windows", "num_candidates", "num_blocks")
        return {**{name: getattr(self, name) for name in names}, **tops, **chance}


def retrieval_ranks(
    predictions: np.ndarray, targets: np.ndarray, groups: Sequence[Any] | None = None, pool: str = "all"
) -> Ranks:
    """Rank every window's own sound among candidates by cosine similarity.

    Args:
        predictions (`np.ndarray` of shape `(N, D)`): predicted vectors.
        targets (`np.ndarray` of shape `(N, D)`): vectors of the sounds that were heard.
        groups (sequence of length `N`, *optional*): day (or file) of each window, for `pool`.
        pool (`str`, defaults to `"all"`): candidates are the sounds of all windows, of the window's own group
            (`"same"`), or its own sound and those of all other groups (`"cross"`).

    Returns:
        `Ranks`: rank and number of candidates of every window.

    Raises:
        ValueError: if shapes do not fit, values are not finite, or the pool is unknown.

    Note:
        rank = (#better + #at least as good - 1) / 2, so that constant predictions give 0.5. Equal sounds are one
        candidate. Within a day, time and scene help nobody; across days they may.

    Example:
        >>> ranks = retrieval_ranks(np.eye(4), np.eye(4))
        >>> ranks.rank.tolist(), ranks.num_candidates.tolist()
        ([0.0, 0.0, 0.0, 0.0], [4, 4, 4, 4])
    """
    predictions, targets = _unit(predictions, "predictions"), _unit(targets, "targets")
    if predictions.shape != targets.shape:
        raise ValueError(f"predictions have the shape {predictions.shape}, targets {targets.shape}: give one each")
    if pool not in POOLS:
        raise ValueError(f"pool is {pool!r}: choose one of {', '.join(POOLS)}")
    if pool == "all":
        return _rank_among(predictions, targets, targets)
    if groups is None or len(groups) != len(targets):
        given = "none" if groups is None else len(groups)
        raise ValueError(f"pool={pool!r} needs the group of each of {len(targets)} windows, got {given}")
    names = np.asarray(groups)
    rank, count = np.zeros(len(targets)), np.zeros(len(targets), dtype=int)
    for name in np.unique(names):
        own = names == name
        candidates = targets[own] if pool == "same" else targets[~own]
        part = _rank_among(predictions[own], targets[own], candidates, own_is_candidate=pool == "same")
        rank[own], count[own] = part.rank, part.num_candidates
    return Ranks(rank, count)


def _unit(vectors: np.ndarray, name: str) -> np.ndarray:
    array = np.asarray(vectors, dtype=np.float64)
    if array.ndim != 2 or not array.size:
        raise ValueError(f"{name} have the shape {array.shape}: expected (windows, features)")
    if not np.isfinite(array).all():
        raise ValueError(f"{name} hold NaN or infinity, the first in window {np.argwhere(~np.isfinite(array))[0][0]}")
    norm = np.linalg.norm(array, axis=1, keepdims=True)
    return np.divide(array, norm, out=np.zeros_like(array), where=norm > 0)


def _rank_among(
    predictions: np.ndarray, targets: np.ndarray, candidates: np.ndarray, own_is_candidate: bool = True
) -> Ranks:
    candidates = np.unique(candidates, axis=0) if len(candidates) else candidates
    rank = np.zeros(len(targets))
    for start in range(0, len(targets), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        own = np.einsum("nd,nd->n", predictions[rows], targets[rows])[:, None]
        scores = predictions[rows] @ candidates.T
        better = (scores > own + _TIE).sum(axis=1)
        as_good = (scores >= own - _TIE).sum(axis=1)
        rank[rows] = (better + as_good - own_is_candidate) / 2
    return Ranks(rank, np.full(len(targets), len(candidates) + (not own_is_candidate), dtype=int))


def score_ranks(
    ranks: Ranks,
    blocks: Sequence[Any] | None = None,
    top_k: Sequence[int] = TOP_K,
    num_resamples: int = 2000,
    seed: int = 0,
) -> RetrievalScores:
    """Mean relative rank with an interval, and top-k.

    Args:
        ranks (`Ranks`): from [`retrieval_ranks`].
        blocks (sequence of length `N`, *optional*): recording file of each window. Neighbouring windows depend on each
            other, so whole files are resampled. Default: every window by itself.
        top_k (`Sequence[int]`): which k.
        num_resamples (`int`): bootstrap resamples.
        seed (`int`): seed of the resampling.

    Returns:
        `RetrievalScores`: always with the number of candidates.

    Raises:
        ValueError: if there is no window.

    Example:
        >>> score_ranks(Ranks(np.array([0.0, 3.0]), np.array([4, 4]))).top_k[1]
        0.5
    """
    relative = ranks.relative
    if not len(relative):
        raise ValueError("there is no window to score")
    sums, sizes = _block_sums(relative, blocks)
    chosen = np.random.default_rng(seed).integers(0, len(sums), (num_resamples, len(sums)))
    means = sums[chosen].sum(axis=1) / sizes[chosen].sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return RetrievalScores(
        mean_relative_rank=float(relative.mean()),
        low=float(low),
        high=float(high),
        top_k={k: float((ranks.rank < k).mean()) for k in top_k},
        chance_top_k={k: float(np.minimum(1.0, k / ranks.num_candidates).mean()) for k in top_k},
        num_windows=len(relative),
        num_candidates=float(ranks.num_candidates.mean()),
        num_blocks=len(sums),
    )


def _block_sums(values: np.ndarray, blocks: Sequence[Any] | None) -> tuple[np.ndarray, np.ndarray]:
    if blocks is None:
        return values, np.ones(len(values))
    if len(blocks) != len(values):
        raise ValueError(f"blocks has {len(blocks)} entries for {len(values)} windows")
    _, member = np.unique(np.asarray(blocks), return_inverse=True)
    return np.bincount(member, weights=values), np.bincount(member).astype(float)


@dataclass(frozen=True)
class PairedTest:
    """Two systems on the same windows.

    Attributes:
        difference (`float`): mean of the first minus mean of the second; negative means that the first ranks better.
        p_value (`float`): two-sided, from swapping the systems block by block.
        num_blocks (`int`): blocks that were swapped.
    """

    difference: float
    p_value: float
    num_blocks: int


def paired_permutation_test(
    first: np.ndarray,
    second: np.ndarray,
    blocks: Sequence[Any] | None = None,
    num_permutations: int = 10_000,
    seed: int = 0,
) -> PairedTest:
    """Test whether two systems rank the same windows differently.

    Args:
        first (`np.ndarray` of shape `(N,)`): relative ranks of one system.
        second (`np.ndarray` of shape `(N,)`): of the other, same windows.
        blocks (sequence of length `N`, *optional*): stretches that are swapped as a whole.
        num_permutations (`int`): random sign patterns; with few blocks all patterns are used instead.
        seed (`int`): of the patterns.

    Returns:
        `PairedTest`: difference and p value. With b blocks p cannot be below 2 / 2^b.

    Raises:
        ValueError: if the two do not have the same windows.

    Example:
        >>> paired_permutation_test(np.zeros(5), np.ones(5)).p_value  # 2 of 32 sign patterns
        0.0625
    """
    first, second = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    if first.shape != second.shape or first.ndim != 1 or not first.size:
        raise ValueError(f"ranks have the shapes {first.shape} and {second.shape}: give the same windows of both")
    sums, _ = _block_sums(first - second, blocks)
    observed = abs(sums.sum())
    if 2 ** len(sums) <= num_permutations:
        patterns = (np.arange(2 ** len(sums))[:, None] >> np.arange(len(sums))) & 1
        extreme = (np.abs((1 - 2 * patterns) @ sums) >= observed - 1e-12).mean()
    else:
        signs = np.random.default_rng(seed).choice([-1.0, 1.0], (num_permutations, len(sums)))
        # The observed pattern is one of the possible ones.
        extreme = (1 + (np.abs(signs @ sums) >= observed - 1e-12).sum()) / (1 + num_permutations)
    return PairedTest(float(sums.sum() / len(first)), float(extreme), len(sums))


def shuffle_channels(windows: np.ndarray, seed: int = 0) -> np.ndarray:
    """A control that is blind to where a signal comes from: every window with its channels in another order.

    Args:
        windows (`np.ndarray` of shape `(N, T, C)`): iEEG.
        seed (`int`): of the orders.

    Returns:
        `np.ndarray` of shape `(N, T, C)`: a copy.
    """
    order = np.random.default_rng(seed).permuted(np.tile(np.arange(windows.shape[2]), (len(windows), 1)), axis=1)
    return np.take_along_axis(windows, order[:, None, :], axis=2)


def shift_windows(files: Sequence[Any], shift: int) -> np.ndarray:
    """A control with the right statistics at the wrong time: which window to take instead of each.

    Args:
        files (sequence of length `N`): recording file of each window, in order of time.
        shift (`int`): windows by which a file is rotated; many more than neighbours depend on each other.

    Returns:
        `np.ndarray` of shape `(N,)`: positions, rotated within each file.

    Raises:
        ValueError: if a file is not longer than the shift.

    Example:
        >>> shift_windows(["a", "a", "a", "b", "b", "b"], 1).tolist()
        [2, 0, 1, 5, 3, 4]
    """
    names = np.asarray(files)
    positions = np.arange(len(names))
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        if not 0 < shift < len(own):
            raise ValueError(f"file {name!r} has {len(own)} windows: a shift by {shift} is not possible")
        positions[own] = np.roll(own, shift)
    return positions


@dataclass(frozen=True)
class ScalingFit:
    """Mean relative rank as a straight line in the logarithm of the hours.

    Attributes:
        slope (`float`): change of the rank for ten times the hours.
        low (`float`): lower end of the slope's 95 % interval.
        high (`float`): upper end.
        intercept (`float`): rank at one hour.
        r2 (`float`): explained variance of the means of each size.
    """

    slope: float
    low: float
    high: float
    intercept: float
    r2: float


def fit_scaling(hours: Sequence[float], ranks: np.ndarray, num_resamples: int = 2000, seed: int = 0) -> ScalingFit:
    """Fit rank = intercept + slope * log10(hours).

    Args:
        hours (sequence of length `S`): sizes of the pretraining.
        ranks (`np.ndarray` of shape `(R, S)`): mean relative ranks of runs (participants and seeds).
        num_resamples (`int`): resamples of runs for the interval.
        seed (`int`): of the resampling.

    Returns:
        `ScalingFit`: slope with interval.

    Raises:
        ValueError: if there are fewer than three sizes, or the shapes do not fit.

    Example:
        >>> round(fit_scaling([1, 10, 100], np.array([[0.4, 0.3, 0.2]])).slope, 6)
        -0.1
    """
    ranks = np.atleast_2d(np.asarray(ranks, dtype=float))
    if len(hours) < 3 or ranks.shape[1] != len(hours) or min(hours) <= 0:
        raise ValueError(f"hours {list(hours)} and ranks of shape {ranks.shape}: give ranks (runs, at least 3 sizes)")
    x = np.log10(np.asarray(hours, dtype=float))
    slope, intercept = np.polyfit(x, ranks.mean(axis=0), 1)
    chosen = np.random.default_rng(seed).integers(0, len(ranks), (num_resamples, len(ranks)))
    slopes = np.polyfit(x, ranks[chosen].mean(axis=1).T, 1)[0]
    low, high = np.quantile(slopes, [0.025, 0.975])
    means = ranks.mean(axis=0)
    spread = ((means - means.mean()) ** 2).sum()
    error = ((means - intercept - slope * x) ** 2).sum()
    r2 = 1 - error / spread if spread > 0 else 0.0
    return ScalingFit(float(slope), float(low), float(high), float(intercept), float(r2))


def date_decodability(
    embeddings: np.ndarray, dates: Sequence[float], blocks: Sequence[Any], penalty: float = 1.0
) -> float:
    """Correlation between the date and what a linear map reads from the vectors, on files it has not seen.

    Args:
        embeddings (`np.ndarray` of shape `(N, D)`): brain or audio vectors of windows.
        dates (sequence of length `N`): days since the first.
        blocks (sequence of length `N`): recording file of each window; left out one at a time.
        penalty (`float`): ridge penalty, relative to the mean variance of the features.

    Returns:
        `float`: Pearson r. The published brain embeddings reach 0.95, the audio embeddings do not drift.

    Raises:
        ValueError: if there are fewer than three files, or one date only.
    """
    features, days = np.asarray(embeddings, dtype=float), np.asarray(dates, dtype=float)
    names = np.asarray(blocks)
    files = np.unique(names)
    if len(files) < 3 or np.ptp(days) == 0:
        raise ValueError(f"{len(files)} files over {np.ptp(days)} days: at least 3 files and 2 dates are needed")
    predicted = np.empty(len(days))
    for name in files:
        held = names == name
        mean, day = features[~held].mean(axis=0), days[~held].mean()
        x = features[~held] - mean
        gram = x.T @ x
        ridge = penalty * np.trace(gram) / len(gram)
        weights = np.linalg.solve(gram + ridge * np.eye(len(gram)), x.T @ (days[~held] - day))
        predicted[held] = (features[held] - mean) @ weights + day
    return float(np.corrcoef(predicted, days)[0, 1])
