"""An n-gram model level by level: what builders and readers make, and what the packed forms are made of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numba
import numpy as np

from .lm_kernels import find_in_children

MISSING_LOG = -100.0 * np.log(10.0)  # what KenLM gives unknown words of a model without <unk>
# Fields of this many bits hold one word of a key; two 64-bit numbers hold six words.
WORD_BITS = 21
MAX_WORDS = (1 << WORD_BITS) - 2


@dataclass
class Levels:
    """N-grams of each order k, sorted by their words. Level k has index k - 1 in every list.

    Every prefix and every suffix of an n-gram is an n-gram of the level below; the first level has every word.

    Args:
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words in UTF-8, one after the other.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        words (`list` of `np.ndarray` of shape `(n_k,)`, int32): last word of each n-gram.
        first_child (`list` of `np.ndarray` of shape `(n_k + 1,)`, int32): where the n-grams begin, in the next level,
            that extend each n-gram; for all levels but the last.
        suffix (`list` of `np.ndarray` of shape `(n_k,)`, int32): the n-gram without its first word, in the level below;
            zeros in the first level.
        log_probs (`list` of `np.ndarray` of shape `(n_k,)`, float32): natural log of p(last word | words before).
        log_backoffs (`list` of `np.ndarray` of shape `(n_k,)`, float32): natural log of the backoff weight; for all
            levels but the last.
        counts (`list` of `np.ndarray` of shape `(n_k,)`, uint32): how often each n-gram occurs; empty when not known.
    """

    vocabulary: np.ndarray
    offsets: np.ndarray
    words: list[np.ndarray]
    first_child: list[np.ndarray]
    suffix: list[np.ndarray] = field(default_factory=list)
    log_probs: list[np.ndarray] = field(default_factory=list)
    log_backoffs: list[np.ndarray] = field(default_factory=list)
    counts: list[np.ndarray] = field(default_factory=list)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.words)

    @property
    def sizes(self) -> tuple[int, ...]:
        """How many n-grams each level has."""
        return tuple(len(words) for words in self.words)


@numba.njit(nogil=True, cache=True)
def _link_suffixes(begin, end, parents_suffix, first_child, lower_first_child, words, lower_words, suffix):
    """Suffixes of the children of the n-grams `begin` to `end`. Returns the first child without one, or -1."""
    for parent in range(begin, end):
        low, high = np.int64(first_child[parent]), np.int64(first_child[parent + 1])
        if low == high:
            continue
        shorter = np.int64(parents_suffix[parent])
        position, last = np.int64(lower_first_child[shorter]), np.int64(lower_first_child[shorter + 1])
        for child in range(low, high):
            word = words[child]
            # Both lists are sorted: gallop, then search.
            step = np.int64(1)
            while position + step < last and lower_words[position + step] <= word:
                position += step
                step <<= 1
            found = find_in_children(lower_words, position, min(position + step, last), word)
            if found < 0:
                return np.int64(child)
            suffix[child] = found
            position = found
    return np.int64(-1)


def link_suffixes(levels: Levels, empty: Callable[..., np.ndarray] = np.empty, run: Callable[..., Any] = map) -> None:
    """Fill `suffix`, in place, level by level from the first.

    Args:
        levels (`Levels`): with words and children.
        empty (callable): makes the arrays.
        run (callable): `map`, or that of a thread pool.

    Raises:
        ValueError: when an n-gram has no suffix in the level below.
    """
    levels.suffix = [np.zeros(len(levels.words[0]), dtype=np.int32)]
    root = np.array([0, len(levels.words[0])], dtype=np.int32)
    for k in range(1, levels.order):
        suffix = empty(len(levels.words[k]), np.int32)
        first_child = levels.first_child[k - 1]
        lower_first_child = root if k == 1 else levels.first_child[k - 2]

        def link(limits, k=k, suffix=suffix, first_child=first_child, lower_first_child=lower_first_child):
            return _link_suffixes(
                *limits, levels.suffix[k - 1], first_child, lower_first_child, levels.words[k], levels.words[k - 1],
                suffix,
            )  # fmt: skip

        if max(run(link, parts(len(first_child) - 1))) >= 0:
            raise ValueError(f"A {k + 1}-gram has no suffix among the {k}-grams.")
        levels.suffix.append(suffix)


def parts(size: int, number: int = 8) -> list[tuple[int, int]]:
    """Cut a range into equal parts, to be worked on by several threads."""
    edges = np.linspace(0, size, number + 1).astype(int).tolist() if size > 10_000 else [0, size]
    return list(zip(edges[:-1], edges[1:], strict=True))


@numba.njit(nogil=True, cache=True)
def first_children(high_keys, low_keys, parent_high, parent_low, first_child):
    """Where the children of each n-gram begin, from their sorted prefixes."""
    child = np.int64(0)
    for parent in range(len(parent_high)):
        first_child[parent] = child
        while (
            child < len(high_keys) and high_keys[child] == parent_high[parent] and low_keys[child] == parent_low[parent]
        ):
            child += 1
    first_child[len(parent_high)] = child


@numba.njit(nogil=True, cache=True)
def is_listed(high_keys, low_keys, high, low, found):
    """Which of the wanted keys are among sorted keys."""
    for i in range(len(high)):
        begin, end = 0, len(high_keys)
        while begin < end:
            middle = (begin + end) >> 1
            if high_keys[middle] < high[i] or (high_keys[middle] == high[i] and low_keys[middle] < low[i]):
                begin = middle + 1
            else:
                end = middle
        found[i] = begin < len(high_keys) and high_keys[begin] == high[i] and low_keys[begin] == low[i]


def keys_of(ngrams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two 64-bit numbers that sort like the words of each n-gram; an n-gram sorts before its extensions.

    Args:
        ngrams (`np.ndarray` of shape `(n, k)`): word indices, k at most 6.

    Returns:
        `tuple` of two `np.ndarray` of shape `(n,)`, uint64.
    """
    keys = []
    for part in (ngrams[:, :3], ngrams[:, 3:]):
        key = np.zeros(len(ngrams), dtype=np.uint64)
        for column in range(3):
            key <<= np.uint64(WORD_BITS)
            if column < part.shape[1]:
                key |= part[:, column].astype(np.uint64) + np.uint64(1)
        keys.append(key)
    return keys[0], keys[1]


def levels_from_ngrams(
    vocabulary: np.ndarray,
    offsets: np.ndarray,
    ngrams: list[np.ndarray],
    log_probs: list[np.ndarray],
    log_backoffs: list[np.ndarray],
) -> Levels:
    """Sort n-grams in any order into levels; missing prefixes and suffixes are inserted, scores do not change by that.

    Args:
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words in UTF-8, one after the other.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        ngrams (`list` of `np.ndarray` of shape `(n, k)`, int32): word indices; the 1-grams list the words in order.
        log_probs (`list` of `np.ndarray` of shape `(n,)`): natural logs.
        log_backoffs (`list` of `np.ndarray` of shape `(n,)`): natural logs.

    Returns:
        `Levels`: all of it.

    Raises:
        ValueError: when an n-gram is listed twice, or there are too many words.
    """
    if len(offsets) - 1 > MAX_WORDS:
        raise ValueError(f"The model has {len(offsets) - 1} words; at most {MAX_WORDS} are supported.")
    order = len(ngrams)
    keys: list[tuple[np.ndarray, np.ndarray]] = [keys_of(table) for table in ngrams]
    tables, probs, backoffs = list(ngrams), list(log_probs), list(log_backoffs)
    for k in range(order - 1, -1, -1):
        high, low = keys[k]
        rank = np.lexsort((low, high)) if k > 2 else np.argsort(high, kind="stable")
        keys[k] = high, low = high[rank], low[rank]
        tables[k], probs[k], backoffs[k] = tables[k][rank], probs[k][rank], backoffs[k][rank]
        same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
        if same.any():
            twice = tables[k][int(np.flatnonzero(same)[0])].tolist()
            blob = vocabulary.tobytes()
            text = " ".join(blob[offsets[word] : offsets[word + 1]].decode("utf-8", "replace") for word in twice)
            raise ValueError(f"The {k + 1}-gram `{text}` is listed twice.")
        if k == 0:
            break
        below = np.lexsort(keys[k - 1][::-1])
        sorted_below = keys[k - 1][0][below], keys[k - 1][1][below]
        missing = []
        for part in (tables[k][:, :-1], tables[k][:, 1:]):
            wanted = keys_of(part)
            found = np.empty(len(part), dtype=np.bool_)
            is_listed(*sorted_below, *wanted, found)
            missing.append(part[~found])
        extra = np.unique(np.vstack(missing), axis=0)
        if len(extra):
            tables[k - 1] = np.vstack([tables[k - 1], extra]).astype(np.int32)
            probs[k - 1] = np.append(probs[k - 1], np.full(len(extra), np.nan))
            backoffs[k - 1] = np.append(backoffs[k - 1], np.zeros(len(extra)))
            keys[k - 1] = keys_of(tables[k - 1])
    first_child = []
    for k in range(order - 1):
        begins = np.empty(len(tables[k]) + 1, dtype=np.int32)
        first_children(*keys_of(tables[k + 1][:, :-1]), *keys[k], begins)
        first_child.append(begins)
    levels = Levels(vocabulary, offsets, [np.ascontiguousarray(table[:, -1]) for table in tables], first_child)
    link_suffixes(levels)
    for k in range(1, order):
        inserted = np.flatnonzero(np.isnan(probs[k]))
        if len(inserted):
            parents = np.searchsorted(first_child[k - 1], inserted, side="right") - 1
            probs[k][inserted] = backoffs[k - 1][parents] + probs[k - 1][levels.suffix[k][inserted]]
    levels.log_probs = [values.astype(np.float32) for values in probs]
    levels.log_backoffs = [values.astype(np.float32) for values in backoffs[:-1]]
    return levels
