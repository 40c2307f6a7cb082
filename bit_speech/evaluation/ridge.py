"""Ridge regression for many voxels at once: one eigendecomposition per fold, a penalty of its own for every voxel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

Score = Literal["correlation", "r2"]
# 15 values from 10 to 10,000, squared: the published filter is S / (S^2 + a^2), whose penalty is a^2.
PENALTIES: tuple[float, ...] = tuple(float(value) for value in np.logspace(1, 4, 15) ** 2)


@dataclass(frozen=True)
class RidgeFit:
    """A fitted ridge regression.

    Args:
        weights (`np.ndarray` of shape `(F, X)`): weight of every feature for every voxel.
        feature_means (`np.ndarray` of shape `(F,)`): what is subtracted from features before they are weighted.
        voxel_means (`np.ndarray` of shape `(X,)`): what is added to predictions.
        penalties (`np.ndarray` of shape `(X,)`): the penalty of every voxel.
        scores (`np.ndarray` of shape `(A, X)`): mean score over the validation folds of every penalty and voxel;
            `(0, X)` when there was nothing to choose.
    """

    weights: np.ndarray
    feature_means: np.ndarray
    voxel_means: np.ndarray
    penalties: np.ndarray
    scores: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Predict responses.

        Args:
            features (`np.ndarray` of shape `(R, F)`): features of other TRs.

        Returns:
            `np.ndarray` of shape `(R, X)`.

        Raises:
            ValueError: if the number of features differs from that of the fit.
        """
        if features.ndim != 2 or features.shape[1] != len(self.feature_means):
            raise ValueError(f"features have shape {features.shape}; expected (TRs, {len(self.feature_means)})")
        return (features - self.feature_means).astype(self.weights.dtype) @ self.weights + self.voxel_means


def block_folds(num_trs: int, num_folds: int = 5, block_trs: int = 20, seed: int = 0) -> list[np.ndarray]:
    """Cut a recording into blocks and deal these out at random to validation folds.

    Args:
        num_trs (`int`): TRs R of the recording.
        num_folds (`int`): folds.
        block_trs (`int`): TRs in a block; neighbours in time belong together, because BOLD is slow.
        seed (`int`): of the dealing.

    Returns:
        list of `np.ndarray`: sorted validation TRs of each fold; every TR is in exactly one.

    Raises:
        ValueError: if there are fewer blocks than folds.

    Example:
        >>> [fold.tolist() for fold in block_folds(6, num_folds=2, block_trs=2, seed=1)]
        [[0, 1, 4, 5], [2, 3]]
    """
    blocks = np.arange(num_trs) // block_trs
    number = int(blocks[-1]) + 1 if num_trs else 0
    if number < num_folds:
        raise ValueError(f"{num_trs} TRs are {number} block(s) of {block_trs}: too few for {num_folds} folds")
    fold_of_block = np.random.default_rng(seed).permutation(number) % num_folds
    return [np.flatnonzero(fold_of_block[blocks] == fold) for fold in range(num_folds)]


def bootstrap_folds(
    num_trs: int, num_draws: int = 3, block_trs: int = 20, share: float = 0.25, seed: int = 0
) -> list[np.ndarray]:
    """Draw validation sets of whole blocks, each anew: the published way to choose penalties.

    Args:
        num_trs (`int`): TRs R of the recording.
        num_draws (`int`): validation sets; 3 in brain-tuning, 50 in LeBel et al. 2023.
        block_trs (`int`): TRs in a block.
        share (`float`): share of the TRs in each set.
        seed (`int`): of the draws.

    Returns:
        list of `np.ndarray`: sorted validation TRs of each draw.

    Raises:
        ValueError: if a draw would be empty or hold everything.
    """
    number = num_trs // block_trs
    drawn = round(share * num_trs / block_trs)
    if not 1 <= drawn < number:
        raise ValueError(
            f"{share:g} of {num_trs} TRs are {drawn} of {number} block(s) of {block_trs}: use smaller blocks"
        )
    rng = np.random.default_rng(seed)
    sets = [np.sort(rng.choice(number, drawn, replace=False)) for _ in range(num_draws)]
    return [(chosen[:, None] * block_trs + np.arange(block_trs)).ravel() for chosen in sets]


def fit_ridge(
    features: np.ndarray,
    responses: np.ndarray,
    penalties: float | Sequence[float] | np.ndarray = PENALTIES,
    folds: Sequence[np.ndarray] | None = None,
    score: Score = "correlation",
    voxels_at_once: int = 2048,
    dtype: torch.dtype = torch.float32,
    device: str | torch.device | None = None,
) -> RidgeFit:
    """Fit a ridge regression to every voxel, each with the penalty that predicts held-out blocks of it best.

    Args:
        features (`np.ndarray` of shape `(R, F)`): features of every TR, with delays.
        responses (`np.ndarray` of shape `(R, X)`): BOLD of every voxel; memory-mapped arrays are read in slices.
        penalties (`float` or sequence of `float`): scikit-learn's `alpha`, candidates for all voxels.
        folds (sequence of `np.ndarray`, *optional*): validation TRs of each fold, from [`block_folds`] or
            [`bootstrap_folds`]; default 5 folds of blocks of 20 TRs. Not used for a single penalty.
        score (`str`): `"correlation"` or `"r2"`, averaged over folds.
        voxels_at_once (`int`): bounds the memory beyond inputs and weights.
        dtype (`torch.dtype`): of products; decompositions are always in double precision.
        device (`str`, *optional*): default the GPU when there is one.

    Returns:
        [`RidgeFit`].

    Raises:
        ValueError: if shapes do not fit, or a value is not finite or not positive.

    Note:
        With `Q L Q'` the eigendecomposition of the features' second moments, weights for a penalty `a` are
        `Q (Q' F' y) / (L + a)`. With more features than TRs the same is done with products of TRs. Nothing is scaled;
        the means of the training TRs are taken off.

    Example:
        >>> rng = np.random.default_rng(0)
        >>> features, weights = rng.normal(size=(200, 3)), rng.normal(size=(3, 2))
        >>> fit = fit_ridge(features, features @ weights, [1e-6, 1e6], block_folds(200))
        >>> bool(np.abs(fit.weights - weights).max() < 1e-4), fit.penalties.tolist()
        (True, [1e-06, 1e-06])
    """
    candidates = np.atleast_1d(np.asarray(penalties, dtype=np.float64))
    _check(features, responses, candidates)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    inputs = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float64)).to(device)
    slices = [slice(start, start + voxels_at_once) for start in range(0, responses.shape[1], voxels_at_once)]
    scores = np.zeros((0, responses.shape[1]))
    chosen = np.full(responses.shape[1], candidates[0])
    if len(candidates) > 1:
        folds = block_folds(len(features)) if folds is None else folds
        scores = np.zeros((len(candidates), responses.shape[1]))
        for held_out in folds:
            training = np.setdiff1d(np.arange(len(features)), held_out)
            solver = _Solver(inputs[training], dtype)
            solver.read(inputs[held_out])
            for part in slices:
                block = torch.from_numpy(np.array(responses[:, part])).to(device, dtype)
                for row, found in enumerate(solver.scores(block[training], block[held_out], candidates, score)):
                    scores[row, part] += found / len(folds)
        chosen = candidates[scores.argmax(axis=0)]
    solver = _Solver(inputs, dtype)
    weights: np.ndarray = np.empty((features.shape[1], responses.shape[1]), dtype=_numpy(dtype))
    means: np.ndarray = np.empty(responses.shape[1], dtype=_numpy(dtype))
    for part in slices:
        block = torch.from_numpy(np.array(responses[:, part])).to(device, dtype)
        means[part] = block.mean(dim=0).cpu().numpy()
        weights[:, part] = solver.weights(block, chosen[part]).cpu().numpy()
    return RidgeFit(weights, solver.mean.cpu().numpy(), means, chosen, scores)


class _Solver:
    """Features of the training TRs, decomposed once for all voxels and penalties."""

    def __init__(self, features: torch.Tensor, dtype: torch.dtype):
        self.dtype = dtype
        self.mean = features.mean(dim=0)
        centred = features - self.mean
        rows, columns = centred.shape
        self.dual = rows < columns
        product = centred @ centred.T if self.dual else centred.T @ centred
        values, vectors = torch.linalg.eigh(product)
        self.values = values.clamp_min(0.0)
        # `back` turns responses (R, X) into the rotated space, `out` leads from there to weights.
        if self.dual:
            self.back, self.out = vectors.T.to(dtype), (centred.T @ vectors).to(dtype)
        else:
            self.back, self.out = (vectors.T @ centred.T).to(dtype), vectors.to(dtype)

    def rotated(self, responses: torch.Tensor) -> torch.Tensor:
        return self.back @ (responses - responses.mean(dim=0))

    def weights(self, responses: torch.Tensor, penalties: np.ndarray) -> torch.Tensor:
        wanted = torch.from_numpy(penalties).to(self.values.device)
        shrink = 1.0 / (self.values[:, None] + wanted)
        return self.out @ (self.rotated(responses).mul_(shrink.to(self.dtype)))

    def read(self, held_out: torch.Tensor) -> None:
        """Rotate the features of the validation TRs."""
        self.inputs = ((held_out - self.mean).to(self.dtype)) @ self.out

    def scores(
        self, responses: torch.Tensor, truth: torch.Tensor, penalties: np.ndarray, score: Score
    ) -> Iterator[np.ndarray]:
        rotated = self.rotated(responses)
        mean = responses.mean(dim=0)
        for penalty in penalties:
            shrink = (1.0 / (self.values + float(penalty))).to(self.dtype)
            predicted = (self.inputs * shrink) @ rotated
            if score == "r2":
                centred = truth - truth.mean(dim=0)
                total = centred.square().sum(dim=0)
                lost = (truth - mean - predicted).square().sum(dim=0)
                found = torch.where(total > 0, 1.0 - lost / total.clamp_min(1e-30), torch.zeros_like(total))
            else:
                found = _correlation(predicted, truth)
            yield found.double().cpu().numpy()


def _correlation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    first, second = first - first.mean(dim=0), second - second.mean(dim=0)
    scale = (first.square().sum(dim=0) * second.square().sum(dim=0)).sqrt()
    found = (first * second).sum(dim=0) / scale.clamp_min(1e-30)
    return torch.where(scale > 0, found, torch.zeros_like(found))


def _numpy(dtype: torch.dtype) -> type:
    return np.float64 if dtype == torch.float64 else np.float32


def _check(features: np.ndarray, responses: np.ndarray, penalties: np.ndarray) -> None:
    if features.ndim != 2 or responses.ndim != 2 or len(features) != len(responses) or len(features) < 2:
        raise ValueError(
            f"features have shape {features.shape} and responses {responses.shape}; expected (TRs, features) and "
            "(TRs, voxels) with equally many TRs, at least 2"
        )
    if not (np.isfinite(penalties).all() and (penalties > 0).all()):
        raise ValueError(f"penalties must be positive, got {penalties.tolist()}")
    for name, array in (("features", features), ("responses", responses)):
        # Sums are finite exactly when everything is, short of overflow, and need no array of booleans.
        columns = np.asarray(array.sum(axis=0, dtype=np.float64))
        if not np.isfinite(columns).all():
            column = int(np.flatnonzero(~np.isfinite(columns))[0])
            raise ValueError(f"{name} hold NaN or infinity in column {column}; leave it out or repair it")
