"""Means and standard deviations of blocks and sessions, and a check whether recordings are z-scored already."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import datasets
import numpy as np

from bit_speech.data.reading import TrialReader

Statistics: TypeAlias = tuple[np.ndarray, np.ndarray]
TrialSource: TypeAlias = "datasets.Dataset | datasets.DatasetDict | Iterable[Mapping[str, Any]]"

_COLUMNS = ("session_id", "block_index", "split", "features")


class RunningStatistics:
    """Mean and standard deviation per channel, merged trial by trial in double precision.

    Note:
        Merges with the pairwise update of Chan, Golub and LeVeque (1983, doi:10.1080/00031305.1983.10483115), which
        stays exact where a sum of squares would cancel (raw spike-band power has a mean far from zero).

    Example:
        >>> running = RunningStatistics()
        >>> running.add(np.array([[0.0], [2.0]])); running.add(np.array([[4.0]]))
        >>> running.mean, running.std.round(3)
        (array([2.]), array([1.633]))
    """

    def __init__(self) -> None:
        self.count = 0
        self._mean = np.zeros(0)
        self._squares = np.zeros(0)

    def add(self, features: np.ndarray) -> None:
        """Take one trial into account.

        Args:
            features (`np.ndarray` of shape `(T, C)`): a trial's bins.

        Raises:
            ValueError: when the number of channels differs from the trials before.
        """
        count = len(features)
        if count == 0:
            return
        if self.count and features.shape[1] != len(self._mean):
            raise ValueError(f"a trial has {features.shape[1]} channels, those before it {len(self._mean)}")
        mean = features.mean(axis=0, dtype=np.float64)
        centred = features - mean
        squares = np.einsum("tc,tc->c", centred, centred)
        if not self.count:
            self.count, self._mean, self._squares = count, mean, squares
            return
        total = self.count + count
        delta = mean - self._mean
        self._squares = self._squares + squares + delta * delta * (self.count * count / total)
        self._mean = self._mean + delta * (count / total)
        self.count = total

    @property
    def mean(self) -> np.ndarray:
        """Mean of every channel, float64 of shape `(C,)`."""
        return self._mean

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation of every channel (divisor n), float64 of shape `(C,)`."""
        return np.sqrt(self._squares / max(self.count, 1))


def _trials(source: TrialSource) -> Iterator[Mapping[str, Any]]:
    if isinstance(source, datasets.DatasetDict):
        for part in source.values():
            yield from _trials(part)
    elif isinstance(source, datasets.Dataset):
        yield from TrialReader(source, _COLUMNS)
    else:
        yield from source


def _grouped(trials: Iterable[tuple[Hashable, np.ndarray]]) -> dict[Any, RunningStatistics]:
    groups: dict[Any, RunningStatistics] = {}
    for key, features in trials:
        groups.setdefault(key, RunningStatistics()).add(features)
    return groups


def block_statistics(dataset: TrialSource) -> dict[tuple[str, int], Statistics]:
    """Mean and standard deviation of every block, over all its bins.

    Args:
        dataset (`datasets.Dataset`, `datasets.DatasetDict` or iterable of trials): a block that lies in several splits
            is pooled when the whole `DatasetDict` is given.

    Returns:
        `dict[tuple[str, int], tuple[np.ndarray, np.ndarray]]`: `(session_id, block_index)` -> `(mean, std)`, each
            float32 of shape `(C,)`, in the features' own unit. A dead channel has standard deviation 0.

    Note:
        Whole-block statistics look into the future of a trial: right for offline work (the Brain-to-Text '24 baseline
        does it), impossible while the block still runs.

    Example:
        >>> trial = {"session_id": "a", "block_index": 1, "features": np.array([[1.0], [3.0]], np.float32)}
        >>> block_statistics([trial])
        {('a', 1): (array([2.], dtype=float32), array([1.], dtype=float32))}
    """
    keyed = (((str(row["session_id"]), int(row["block_index"])), row["features"]) for row in _trials(dataset))
    return {key: _as_pair(group) for key, group in _grouped(keyed).items()}


def session_statistics(dataset: TrialSource, splits: Sequence[str] | None = ("train",)) -> dict[str, Statistics]:
    """Mean and standard deviation of every session, by default over its training trials alone.

    Args:
        dataset (`datasets.Dataset`, `datasets.DatasetDict` or iterable of trials): the trials.
        splits (`list[str]`, *optional*): values of the column `split` that count; None takes every trial.

    Returns:
        `dict[str, tuple[np.ndarray, np.ndarray]]`: session -> `(mean, std)`, each float32 of shape `(C,)`. A session
            without a trial of these splits is not in it.

    Raises:
        ValueError: when no trial at all belongs to these splits.

    Example:
        >>> trial = {"session_id": "a", "split": "train", "features": np.array([[1.0], [3.0]], np.float32)}
        >>> session_statistics([trial])["a"][0]
        array([2.], dtype=float32)
    """
    keyed = (
        (str(row["session_id"]), row["features"])
        for row in _trials(dataset)
        if splits is None or str(row["split"]) in splits
    )
    groups = _grouped(keyed)
    if not groups:
        wanted = "any split" if splits is None else f"split {' or '.join(map(repr, splits))}"
        raise ValueError(f"no trial of {wanted} in the dataset: there is nothing to compute statistics from")
    return {session: _as_pair(group) for session, group in groups.items()}


def _as_pair(group: RunningStatistics) -> Statistics:
    return group.mean.astype(np.float32), group.std.astype(np.float32)


@dataclass(frozen=True)
class NormalizationReport:
    """What the statistics of recordings say about how they were normalised.

    Attributes:
        kind (`str`): `"block"` (mean 0 and standard deviation 1 in every block: z-scored over whole blocks, which a
            running system cannot do), `"session"` (the same over whole sessions only), `"running"` (near 0 and 1 but
            not exactly: z-scored with statistics from elsewhere, such as preceding trials), or `"raw"`.
        block_mean (`float`): median over blocks and live channels of the absolute mean.
        block_std_error (`float`): median over blocks and live channels of |standard deviation - 1|.
        session_mean (`float`): as `block_mean`, over sessions.
        session_std_error (`float`): as `block_std_error`, over sessions.
        num_blocks (`int`): blocks seen.
        num_sessions (`int`): sessions seen.
    """

    kind: str
    block_mean: float
    block_std_error: float
    session_mean: float
    session_std_error: float
    num_blocks: int
    num_sessions: int

    def __str__(self) -> str:
        """Say it in one line."""
        return (
            f"{self.kind} (|mean| and |sd - 1|: {self.block_mean:.2g} and {self.block_std_error:.2g} in "
            f"{self.num_blocks} blocks, {self.session_mean:.2g} and {self.session_std_error:.2g} in "
            f"{self.num_sessions} sessions)"
        )


def check_normalization(dataset: TrialSource, exact: float = 0.01, near: float = 0.5) -> NormalizationReport:
    """Judge from the statistics alone whether, and how, features were z-scored before they were published.

    Args:
        dataset (`datasets.Dataset`, `datasets.DatasetDict` or iterable of trials): whole blocks, so give every split.
        exact (`float`, defaults to 0.01): largest deviation from mean 0 and standard deviation 1 that passes for a
            z-score over the very trials at hand (rounding, a few trials left out).
        near (`float`, defaults to 0.5): largest deviation that passes for normalised at all.

    Returns:
        `NormalizationReport`: the verdict and the numbers behind it.

    Raises:
        ValueError: when the dataset is empty.

    Note:
        The documentation of the Brain-to-Text '25 data says that features are z-scored with the preceding 20 trials
        (expected here: `"running"`); a community audit held that they look z-scored over whole blocks (`"block"`). A
        released block lacks trials that were left out, which moves an exact z-score by about a part in the number of
        trials; raise `exact` to allow for it.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> counts = {"session_id": "a", "block_index": 1, "features": rng.poisson(3.0, (200, 8)).astype(np.float32)}
        >>> check_normalization([counts]).kind
        'raw'
        >>> x = counts["features"]
        >>> check_normalization([counts | {"features": (x - x.mean(0)) / x.std(0)}]).kind
        'block'
    """
    blocks = _grouped(((str(t["session_id"]), int(t["block_index"])), t["features"]) for t in _trials(dataset))
    if not blocks:
        raise ValueError("the dataset holds no trial: there is nothing to judge")
    sessions: dict[str, list[RunningStatistics]] = {}
    for (session, _), group in blocks.items():
        sessions.setdefault(session, []).append(group)
    block_mean, block_std = _deviation([(group.mean, group.std) for group in blocks.values()])
    session_mean, session_std = _deviation([_pool(groups) for groups in sessions.values()])
    if max(block_mean, block_std) <= exact:
        kind = "block"
    elif max(session_mean, session_std) <= exact:
        kind = "session"
    elif max(block_mean, block_std) <= near:
        kind = "running"
    else:
        kind = "raw"
    return NormalizationReport(kind, block_mean, block_std, session_mean, session_std, len(blocks), len(sessions))


def _pool(groups: Sequence[RunningStatistics]) -> Statistics:
    counts = np.array([group.count for group in groups], dtype=np.float64)[:, None]
    means = np.stack([group.mean for group in groups])
    variances = np.stack([group.std**2 for group in groups])
    mean = (counts * means).sum(axis=0) / counts.sum()
    return mean, np.sqrt((counts * (variances + (means - mean) ** 2)).sum(axis=0) / counts.sum())


def _deviation(statistics: Sequence[Statistics]) -> tuple[float, float]:
    means = np.concatenate([np.abs(mean[std > 0]) for mean, std in statistics])
    stds = np.concatenate([np.abs(std[std > 0] - 1.0) for _, std in statistics])
    if not len(means):
        return float("inf"), float("inf")
    return float(np.median(means)), float(np.median(stds))
