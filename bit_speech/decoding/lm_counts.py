"""Count n-grams of any number of tokens: sorted runs, merged into the levels of a model."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np

from .lm_levels import MAX_WORDS, WORD_BITS, Levels, link_suffixes
from .lm_text import EOS, Workspace

_RUN_TOKENS = 1 << 22
_DIGIT_BITS = 11
_FIELD = np.uint64((1 << WORD_BITS) - 1)


@numba.njit(nogil=True, cache=True)
def _make_keys(tokens, begin, end, order, bits, high, low):
    """Keys of the n-grams that begin at each token; `bits` for each word, the first three words in `high`.

    Words count from 1; a sentence that ends early leaves zeros, which sort first.
    """
    shift = np.uint64(bits)
    for i in range(begin, end):
        first, second = np.uint64(0), np.uint64(0)
        alive = True
        for k in range(order):
            digit = np.uint64(0)
            if alive:
                word = tokens[i + k]
                digit = np.uint64(word + 1)
                alive = word != EOS
            if k < 3:
                first = (first << shift) | digit
            else:
                second = (second << shift) | digit
        high[i - begin] = first
        low[i - begin] = second


@numba.njit(nogil=True, cache=True)
def _radix_pass(high, low, by_high, shift, mask, starts, high_out, low_out):
    """One stable counting sort by some bits. Returns False when all keys have them in common (nothing is done)."""
    starts[:] = 0
    keys = high if by_high else low
    for i in range(len(keys)):
        starts[np.int64((keys[i] >> shift) & mask)] += 1
    total = 0
    for b in range(len(starts)):
        count = starts[b]
        if count == len(keys):
            return False
        starts[b] = total
        total += count
    for i in range(len(keys)):
        digit = np.int64((keys[i] >> shift) & mask)
        j = starts[digit]
        starts[digit] = j + 1
        high_out[j] = high[i]
        low_out[j] = low[i]
    return True


@numba.njit(nogil=True, cache=True)
def _sort_keys(high, low, bits_high, bits_low):
    """Sort (high, low) pairs; returns the sorted arrays, which may be new ones."""
    high_out, low_out = np.empty_like(high), np.empty_like(low)
    starts = np.empty(1 << _DIGIT_BITS, dtype=np.int64)
    mask = np.uint64((1 << _DIGIT_BITS) - 1)
    for part in range(2):
        bits = bits_low if part == 0 else bits_high
        shift = 0
        while shift < bits:
            if _radix_pass(high, low, part == 1, np.uint64(shift), mask, starts, high_out, low_out):
                high, high_out = high_out, high
                low, low_out = low_out, low
            shift += _DIGIT_BITS
    return high, low


@numba.njit(nogil=True, cache=True)
def _unique(high, low, counts):
    """Keep distinct keys in place, with their counts. Returns how many there are."""
    n = -1
    for i in range(len(high)):
        if n >= 0 and high[i] == high[n] and low[i] == low[n]:
            counts[n] += 1
        else:
            n += 1
            high[n], low[n], counts[n] = high[i], low[i], 1
    return n + 1


@numba.njit(nogil=True, cache=True)
def _merge(high_a, low_a, counts_a, high_b, low_b, counts_b, high, low, counts):
    """Merge two sorted runs. Returns how many distinct keys there are."""
    i, j, n = 0, 0, 0
    while i < len(high_a) or j < len(high_b):
        if i < len(high_a) and j < len(high_b):
            x, y = high_a[i], high_b[j]
            before = x < y or (x == y and low_a[i] < low_b[j])
            same = x == y and low_a[i] == low_b[j]
        else:
            before, same = i < len(high_a), False
        if before or same:
            high[n], low[n], counts[n] = high_a[i], low_a[i], counts_a[i]
            i += 1
            if same:
                counts[n] += counts_b[j]
                j += 1
        else:
            high[n], low[n], counts[n] = high_b[j], low_b[j], counts_b[j]
            j += 1
        n += 1
    return n


@numba.njit(nogil=True, cache=True)
def _word_at(high, low, k, order, bits):
    """k-th digit of a key."""
    first = min(order, 3)
    mask = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    if k < first:
        return np.int64((high >> np.uint64(bits * (first - 1 - k))) & mask)
    return np.int64((low >> np.uint64(bits * (order - 1 - k))) & mask)


@numba.njit(nogil=True, cache=True)
def _new_from(high, low, i, order, bits):
    """First word in which a key differs from the key before it."""
    if i == 0:
        return 0
    for k in range(order):
        if _word_at(high[i], low[i], k, order, bits) != _word_at(high[i - 1], low[i - 1], k, order, bits):
            return k
    return order


@numba.njit(nogil=True, cache=True)
def _count_levels(high, low, order, bits, sizes):
    for i in range(len(high)):
        for k in range(_new_from(high, low, i, order, bits), order):
            if _word_at(high[i], low[i], k, order, bits) == 0:
                break
            sizes[k] += 1


@numba.njit(nogil=True, cache=True)
def _fill_level(high, low, run_counts, order, bits, k, words, counts, begins):
    """Words, counts and children of level k + 1 from sorted keys. `begins` has no entries for the last level."""
    node, child = np.int64(-1), np.int64(0)
    for i in range(len(high)):
        fresh = _new_from(high, low, i, order, bits)
        digit = _word_at(high[i], low[i], k, order, bits)
        if digit == 0:
            continue
        if fresh <= k:
            if k == 0:
                while node < digit - 1:
                    node += 1
                    counts[node] = 0
                    words[node] = node
                    if len(begins):
                        begins[node] = child
            else:
                node += 1
                counts[node] = 0
                words[node] = digit - 1
                if len(begins):
                    begins[node] = child
        counts[node] += run_counts[i]
        if len(begins) and fresh <= k + 1 and _word_at(high[i], low[i], k + 1, order, bits) > 0:
            child += 1
    node += 1
    while node < len(words):  # words of the vocabulary that come after the last one seen
        counts[node] = 0
        words[node] = node
        if len(begins):
            begins[node] = child
        node += 1
    if len(begins):
        begins[node] = child


_Run = tuple[np.ndarray, np.ndarray, np.ndarray]


def count_ngrams(
    tokens: np.ndarray,
    order: int,
    vocabulary: tuple[np.ndarray, np.ndarray],
    space: Workspace,
    num_threads: int,
    progress: Callable[[str], None] = lambda stage: None,
) -> Levels:
    """Count all n-grams up to an order.

    Args:
        tokens (`np.ndarray` of shape `(tokens,)`, int32): `<s>` words `</s>`, one sentence after the other.
        order (`int`): length of the longest n-grams.
        vocabulary (`tuple` of two `np.ndarray`): bytes and offsets of the words.
        space (`Workspace`): where the arrays go.
        num_threads (`int`): runs are sorted on so many threads.
        progress (callable): told what begins.

    Returns:
        `Levels`: with counts, children and suffixes.

    Raises:
        ValueError: when there are too many words.
    """
    num_words = len(vocabulary[1]) - 1
    if num_words > MAX_WORDS:
        raise ValueError(f"The text has {num_words} distinct words; at most {MAX_WORDS} are supported: limit them.")
    bits = max(1, int(num_words).bit_length())
    run_tokens = _RUN_TOKENS
    if space.memory is not None:
        # Each thread sorts a run with two copies of its keys.
        run_tokens = max(1 << 10, min(run_tokens, space.memory // (48 * num_threads)))
    begins = range(0, len(tokens), run_tokens)

    def sorted_run(begin: int) -> _Run:
        end = min(begin + run_tokens, len(tokens))
        high, low = np.empty(end - begin, dtype=np.uint64), np.empty(end - begin, dtype=np.uint64)
        _make_keys(tokens, begin, end, order, bits, high, low)
        high, low = _sort_keys(high, low, bits * min(order, 3), bits * max(order - 3, 0))
        counts = np.empty(len(high), dtype=np.uint32)
        return _stored((high, low, counts), int(_unique(high, low, counts)), space)

    def merged(pair: list[_Run]) -> _Run:
        if len(pair) == 1:
            return pair[0]
        room = len(pair[0][0]) + len(pair[1][0])
        out = (space.empty(room, np.uint64), space.empty(room, np.uint64), space.empty(room, np.uint32))
        size = int(_merge(*pair[0], *pair[1], *out))
        space.free(*pair[0], *pair[1])
        pair.clear()
        if size > 0.95 * room:
            return out[0][:size], out[1][:size], out[2][:size]
        smaller = _stored(out, size, space)
        space.free(*out)
        return smaller

    with ThreadPoolExecutor(num_threads) as pool:
        progress("sorting n-grams")
        runs = list(pool.map(sorted_run, begins))
        progress("merging n-grams")
        while len(runs) > 1:
            pairs = [runs[i : i + 2] for i in range(0, len(runs), 2)]
            runs = []
            runs = list(pool.map(merged, pairs))
        progress("linking n-grams")
        levels = _levels_of_run(runs[0], order, bits, vocabulary, space, pool)
        space.free(*runs[0])
        runs.clear()
        link_suffixes(levels, space.empty, pool.map)
    return levels


def _levels_of_run(
    run: _Run,
    order: int,
    bits: int,
    vocabulary: tuple[np.ndarray, np.ndarray],
    space: Workspace,
    pool: ThreadPoolExecutor,
) -> Levels:
    sizes = np.zeros(order, dtype=np.int64)
    _count_levels(run[0], run[1], order, bits, sizes)
    sizes[0] = len(vocabulary[1]) - 1
    levels = Levels(*vocabulary, words=[], first_child=[])

    def filled(k: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        words, counts = space.empty(int(sizes[k]), np.int32), space.empty(int(sizes[k]), np.uint32)
        children = space.empty(int(sizes[k]) + 1 if k + 1 < order else 0, np.int32)
        _fill_level(*run, order, bits, k, words, counts, children)
        return words, counts, children

    for words, counts, children in pool.map(filled, range(order)):
        levels.words.append(words)
        levels.counts.append(counts)
        levels.first_child.append(children)
    levels.first_child.pop()
    return levels


def _stored(run: tuple[np.ndarray, ...], size: int, space: Workspace) -> _Run:
    out = []
    for array in run:
        copy = space.empty(size, array.dtype.type)
        copy[:] = array[:size]
        out.append(copy)
    return out[0], out[1], out[2]
