"""Interpolated modified Kneser-Ney smoothing of counted n-grams."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from .lm_levels import Levels, parts
from .lm_text import BOS, Workspace

# lmplz's --discount_fallback, for corpora too small to estimate discounts.
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_LOG_ZERO = -99.0 * np.log(10.0)


@numba.njit(nogil=True, cache=True)
def _count_suffixes(suffix, out):
    """Kneser-Ney counts: by how many distinct words an n-gram is preceded."""
    for node in range(len(suffix)):
        out[suffix[node]] += 1


@numba.njit(nogil=True, cache=True)
def _counts_of_counts(counts, found):
    for count in counts:
        if count < len(found):
            found[count] += 1


def discounts_of(counts: np.ndarray) -> np.ndarray:
    """Estimate the three discounts of one order.

    Args:
        counts (`np.ndarray`, uint32): adjusted counts.

    Returns:
        `np.ndarray` of shape `(4,)`: discount for counts 0, 1, 2 and at least 3.
    """
    found = np.zeros(5, dtype=np.int64)
    _counts_of_counts(counts, found)
    _, n1, n2, n3, n4 = found.tolist()
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        values = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (values > 0).all() and (values <= [1, 2, 3]).all():
            return np.concatenate([[0.0], values])
    return np.array([0.0, *_FALLBACK_DISCOUNTS])


@numba.njit(nogil=True, cache=True)
def _estimate(
    begin, end, first_child, counts, raw, threshold, discounts, suffix, lower_log_probs, uniform, log_probs, log_gammas,
    log_zero,
):  # fmt: skip
    """Probabilities of the children of contexts `begin` to `end`, and the weight of the lower order in each."""
    for context in range(begin, end):
        low, high = np.int64(first_child[context]), np.int64(first_child[context + 1])
        total, kept = 0.0, 0.0
        for child in range(low, high):
            count = counts[child]
            total += count
            if raw[child] >= threshold:
                kept += count - discounts[min(count, 3)]
        gamma = 1.0
        if total > 0:
            gamma = min(max(1.0 - kept / total, 0.0), 1.0)
        log_gammas[context] = np.log(gamma) if gamma > 0 else log_zero
        for child in range(low, high):
            count = counts[child]
            lower = uniform
            if len(lower_log_probs):
                lower = np.exp(np.float64(lower_log_probs[suffix[child]]))
            share = (count - discounts[min(count, 3)]) / total if total > 0 else 0.0
            p = share + gamma * lower
            log_probs[child] = max(np.log(p), log_zero) if p > 0 else log_zero


def estimate(levels: Levels, thresholds: Sequence[int], space: Workspace, num_threads: int) -> None:
    """Turn counts into probabilities and backoff weights, in place; drop n-grams that occur too rarely.

    Args:
        levels (`Levels`): with counts and suffixes. The counts are gone afterwards.
        thresholds (sequence of `int`): for each order, how often an n-gram must occur to be kept.
        space (`Workspace`): where the arrays go.
        num_threads (`int`): threads to compute on.
    """
    order = levels.order
    adjusted = [space.empty(size, np.uint32) for size in levels.sizes[:-1]]

    def adjust(k: int) -> None:
        adjusted[k][:] = 0
        _count_suffixes(levels.suffix[k + 1], adjusted[k])
        low, high = BOS, BOS + 1
        for j in range(k):
            low, high = int(levels.first_child[j][low]), int(levels.first_child[j][high])
        # Nothing comes before <s>.
        adjusted[k][low:high] = levels.counts[k][low:high]

    root = np.array([0, levels.sizes[0]], dtype=np.int32)
    with ThreadPoolExecutor(num_threads) as pool:
        list(pool.map(adjust, range(order - 1)))
        if order == 1:
            adjusted.append(levels.counts[0].copy())
        else:
            adjusted.append(levels.counts[-1])
        adjusted[0][BOS] = 0  # never predicted
        nothing = np.empty(0, dtype=np.float32)
        root_gamma = np.empty(1, dtype=np.float32)
        for k in range(order):
            log_probs = space.empty(levels.sizes[k], np.float32)
            gammas = space.empty(levels.sizes[k - 1], np.float32) if k else root_gamma
            lower = levels.log_probs[k - 1] if k else nothing
            first_child = levels.first_child[k - 1] if k else root
            discounts = discounts_of(adjusted[k])

            def part(limits, k=k, lower=lower, first_child=first_child, discounts=discounts, out=(log_probs, gammas)):
                _estimate(
                    *limits, first_child, adjusted[k], levels.counts[k], thresholds[k] if k else 0, discounts,
                    levels.suffix[k], lower, 1.0 / (levels.sizes[0] - 1), *out, _LOG_ZERO,
                )  # fmt: skip

            list(pool.map(part, parts(len(first_child) - 1)))
            if k == 0:
                log_probs[BOS] = _LOG_ZERO
            else:
                levels.log_backoffs.append(gammas)
            levels.log_probs.append(log_probs)
    space.free(*adjusted[:-1])
    if max(thresholds) > 1:
        _prune(levels, thresholds, space)
    space.free(*levels.counts)
    levels.counts = []


@numba.njit(nogil=True, cache=True)
def _renumber(counts, threshold, places):
    """New index of each n-gram, -1 for those to be dropped. Returns how many are kept."""
    kept = 0
    for node in range(len(counts)):
        places[node] = -1
        if counts[node] >= threshold:
            places[node] = kept
            kept += 1
    return kept


@numba.njit(nogil=True, cache=True)
def _move(places, words, log_probs, suffix, lower_places):
    """Close the gaps, in place."""
    for node in range(len(places)):
        place = places[node]
        if place >= 0:
            words[place] = words[node]
            log_probs[place] = log_probs[node]
            suffix[place] = lower_places[suffix[node]]


@numba.njit(nogil=True, cache=True)
def _move_contexts(places, first_child, child_places, log_backoffs):
    """Close the gaps among contexts, in place."""
    kept = 0
    children = 0
    for node in range(len(places)):
        begin = children
        for child in range(first_child[node], first_child[node + 1]):
            if child_places[child] >= 0:
                children += 1
        if places[node] >= 0:
            first_child[kept] = begin
            log_backoffs[kept] = log_backoffs[node]
            kept += 1
    first_child[kept] = children


def _prune(levels: Levels, thresholds: Sequence[int], space: Workspace) -> None:
    """Drop rare n-grams; counts never grow with length, so what an n-gram needs is kept with it."""
    places = []
    sizes = []
    for k, counts in enumerate(levels.counts):
        place = space.empty(len(counts), np.int32)
        sizes.append(int(_renumber(counts, thresholds[k] if k else 0, place)))
        places.append(place)
    for k in range(levels.order - 1):
        _move_contexts(places[k], levels.first_child[k], places[k + 1], levels.log_backoffs[k])
        levels.first_child[k] = levels.first_child[k][: sizes[k] + 1]
        levels.log_backoffs[k] = levels.log_backoffs[k][: sizes[k]]
    for k in range(1, levels.order):
        _move(places[k], levels.words[k], levels.log_probs[k], levels.suffix[k], places[k - 1])
        levels.words[k] = levels.words[k][: sizes[k]]
        levels.log_probs[k] = levels.log_probs[k][: sizes[k]]
        levels.suffix[k] = levels.suffix[k][: sizes[k]]
    space.free(*places)
