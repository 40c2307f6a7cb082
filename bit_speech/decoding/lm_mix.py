"""Mix n-gram models linearly into one backoff model."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from .lm_kernels import score_words
from .lm_levels import Levels, link_suffixes
from .lm_pack import pack_exact
from .lm_text import EOS, Workspace

_EM_ROUNDS = 100
_EM_TOLERANCE = 1e-6
# A context whose listed words have all of the probability backs off with this little.
_LEAST_MASS = 1e-9


@numba.njit(nogil=True, cache=True)
def _merge_level(places_a, places_b, first_a, words_a, first_b, words_b, first_out, words_out, from_a, from_b):
    """Union of the children of every context; places are -1 where a model lacks it. Returns how many there are."""
    n = 0
    for parent in range(len(places_a)):
        first_out[parent] = n
        i = j = end_i = end_j = 0
        if places_a[parent] >= 0:
            i, end_i = first_a[places_a[parent]], first_a[places_a[parent] + 1]
        if places_b[parent] >= 0:
            j, end_j = first_b[places_b[parent]], first_b[places_b[parent] + 1]
        while i < end_i or j < end_j:
            take_a = i < end_i and (j == end_j or words_a[i] <= words_b[j])
            take_b = j < end_j and (i == end_i or words_b[j] <= words_a[i])
            words_out[n] = words_a[i] if take_a else words_b[j]
            from_a[n] = i if take_a else -1
            from_b[n] = j if take_b else -1
            i += take_a
            j += take_b
            n += 1
    first_out[len(places_a)] = n
    return n


def _union(a: Levels, b: Levels, space: Workspace) -> tuple[Levels, list[np.ndarray], list[np.ndarray]]:
    """N-grams of either model, and for each level where they are in both."""
    everything = np.arange(a.sizes[0], dtype=np.int32)
    levels = Levels(a.vocabulary, a.offsets, [a.words[0]], [])
    places_a, places_b = [everything], [everything]
    for k in range(1, a.order):
        room = a.sizes[k] + b.sizes[k]
        first = space.empty(len(levels.words[-1]) + 1, np.int32)
        words, from_a, from_b = (space.empty(room, np.int32) for _ in range(3))
        n = _merge_level(
            places_a[-1], places_b[-1], a.first_child[k - 1], a.words[k], b.first_child[k - 1], b.words[k],
            first, words, from_a, from_b,
        )  # fmt: skip
        levels.first_child.append(first)
        levels.words.append(words[:n])
        places_a.append(from_a[:n])
        places_b.append(from_b[:n])
    return levels, places_a, places_b


@numba.njit(nogil=True, cache=True)
def _expand_level(first_child, suffix, places, context_places, log_probs, log_backoffs, lower, out):
    """Probabilities that one model gives to all n-grams of the union: its own, or by backing off."""
    for context in range(len(first_child) - 1):
        backoff = np.float32(0.0)
        if context_places[context] >= 0:
            backoff = log_backoffs[context_places[context]]
        for child in range(first_child[context], first_child[context + 1]):
            if places[child] >= 0:
                out[child] = log_probs[places[child]]
            else:
                out[child] = backoff + lower[suffix[child]]


@numba.njit(nogil=True, cache=True)
def _add_share(total, log_probs, weight):
    for i in range(len(total)):
        total[i] += weight * np.exp(np.float64(log_probs[i]))


@numba.njit(nogil=True, cache=True)
def _log_in_place(values, floor, out):
    for i in range(len(values)):
        out[i] = max(np.log(values[i]), floor) if values[i] > 0 else floor


@numba.njit(nogil=True, cache=True)
def _backoffs(first_child, suffix, probs, lower_probs, out):
    """Weights with which the words that are not listed get the probability that is left."""
    for context in range(len(first_child) - 1):
        begin, end = first_child[context], first_child[context + 1]
        left, left_below = 1.0, 1.0
        for child in range(begin, end):
            left -= probs[child]
            left_below -= lower_probs[suffix[child]]
        out[context] = 0.0
        if end > begin:
            out[context] = np.log(max(left, _LEAST_MASS) / max(left_below, _LEAST_MASS))


def mix(models: Sequence[Levels], weights: Sequence[float], space: Workspace) -> Levels:
    """Interpolate models over the same vocabulary: p = sum of weight * p_model for every n-gram that any of them lists.

    Args:
        models (sequence of `Levels`): of the same order, with the same words in the same order.
        weights (sequence of `float`): positive, of sum 1.
        space (`Workspace`): where the arrays go.

    Returns:
        `Levels`: one backoff model. Backoff weights are chosen so that every context sums to one.

    Note:
        Stolcke (2002), section 3.3 on mixing models statically. What no model lists after a context gets the mixed
        probability of the shorter context, which is close to, but not, the mixture.
    """
    union = models[0]
    places = [[np.arange(size, dtype=np.int32) for size in union.sizes]]
    for model in models[1:]:
        union, of_union, of_model = _union(union, model, space)
        places = [
            [np.where(new >= 0, old[new], np.int32(-1)) for old, new in zip(one, of_union, strict=True)]
            for one in places
        ]
        places.append(of_model)
    link_suffixes(union, space.empty)
    mixed: list[np.ndarray] = []
    lower = [model.log_probs[0] for model in models]
    for k in range(union.order):
        total = np.zeros(union.sizes[k], dtype=np.float64)
        here = []
        for i, model in enumerate(models):
            log_probs = lower[i]
            if k > 0:
                log_probs = space.empty(union.sizes[k], np.float32)
                _expand_level(
                    union.first_child[k - 1], union.suffix[k], places[i][k], places[i][k - 1], model.log_probs[k],
                    model.log_backoffs[k - 1], lower[i], log_probs,
                )  # fmt: skip
            _add_share(total, log_probs, float(weights[i]))
            here.append(log_probs)
        if k > 0:
            space.free(*lower)
            backoffs = space.empty(union.sizes[k - 1], np.float32)
            _backoffs(union.first_child[k - 1], union.suffix[k], total, mixed[-1], backoffs)
            union.log_backoffs.append(backoffs)
        logs = space.empty(union.sizes[k], np.float32)
        _log_in_place(total, -99.0 * np.log(10.0), logs)
        union.log_probs.append(logs)
        mixed.append(total)
        lower = here
    return union


def tune_weights(models: Sequence[Levels], tokens: np.ndarray, start_words: int) -> list[float]:
    """Find the weights that make a held-out text most probable, by expectation maximisation.

    Args:
        models (sequence of `Levels`): with the same words in the same order.
        tokens (`np.ndarray` of shape `(tokens,)`, int32): the text, `<s>` words `</s>`.
        start_words (`int`): index of `<s>`, where a sentence begins.

    Returns:
        `list[float]`: positive numbers of sum 1.
    """
    begins = np.flatnonzero(tokens == start_words)
    ends = np.flatnonzero(tokens == EOS) + 1
    probs = []
    for model in models:
        arrays = pack_exact(model)
        _, start = score_words(arrays, np.int64(0), np.array([start_words], dtype=np.int64))
        scores = [
            score_words(arrays, start, tokens[begin + 1 : end].astype(np.int64))[0]
            for begin, end in zip(begins.tolist(), ends.tolist(), strict=True)
        ]
        probs.append(np.exp(np.concatenate(scores)))
    table = np.array(probs)
    weights = np.full(len(models), 1.0 / len(models))
    for _ in range(_EM_ROUNDS):
        share = weights[:, None] * table
        new = (share / np.maximum(share.sum(axis=0), 1e-300)).mean(axis=1)
        new /= new.sum()
        done = np.abs(new - weights).max() < _EM_TOLERANCE
        weights = new
        if done:
            break
    return [float(weight) for weight in weights]
