"""From levels of n-grams to the packed forms that look-ups use, and back."""

from __future__ import annotations

from collections.abc import Sequence

import numba
import numpy as np

from .lm_kernels import (
    CHILD_BIT,
    CODES,
    COLUMNS,
    FIRST_STATE,
    KEY_BITS,
    NUM_NODES,
    RECORD_BIT,
    RECORD_BITS,
    SAMPLE,
    SAMPLE_SHIFT,
    CompactArrays,
    LMArrays,
    addresses,
    compact_backoff,
    compact_children,
    compact_field,
    compact_key,
    compact_prob,
    compact_suffix,
)
from .lm_levels import Levels, link_suffixes

_FINE_BINS = 1 << 16
_COARSE_BINS = 1 << 10
_LLOYD_ROUNDS = 40
_MAX_NODES = (1 << 31) - 1


def pack_exact(levels: Levels) -> LMArrays:
    """Pack a model into plain arrays; scores stay as they are.

    Args:
        levels (`Levels`): the model.

    Returns:
        `LMArrays`: ready for look-ups.

    Raises:
        ValueError: when there are more n-grams than 32 bits count.
    """
    sizes = levels.sizes
    firsts = _first_states(sizes)
    num_nodes, num_contexts = firsts[-1], firsts[-2]
    words = np.zeros(num_nodes, dtype=np.int32)
    probs = np.zeros(num_nodes, dtype=np.float32)
    next_state = np.zeros(num_nodes, dtype=np.int32)
    suffix = np.zeros(num_contexts, dtype=np.int32)
    backoffs = np.zeros(num_contexts, dtype=np.float32)
    first_child = np.empty(num_contexts + 1, dtype=np.int64)
    first_child[0] = 1
    link = np.zeros(sizes[0], dtype=np.int32)
    for k in range(levels.order):
        here = slice(firsts[k], firsts[k + 1])
        words[here], probs[here] = levels.words[k], levels.log_probs[k]
        if k > 0:
            # States skip contexts that have no children and nothing to back off.
            link = next_state[firsts[k - 1] : firsts[k]][levels.suffix[k]]
        next_state[here] = link
        if k + 1 < levels.order:
            backoffs[here], suffix[here] = levels.log_backoffs[k], link
            first_child[here] = levels.first_child[k][:-1]
            first_child[here] += firsts[k + 1]
            alive = (np.diff(levels.first_child[k]) > 0) | (levels.log_backoffs[k] != 0)
            next_state[here][alive] = np.arange(firsts[k], firsts[k + 1], dtype=np.int32)[alive]
    first_child[num_contexts] = num_nodes
    return LMArrays(words, probs, next_state, backoffs, suffix, first_child)


def _first_states(sizes: Sequence[int]) -> list[int]:
    firsts = [1, *(1 + np.cumsum(np.asarray(sizes, dtype=np.int64))).tolist()]
    if firsts[-1] > _MAX_NODES:
        raise ValueError(f"The model has {firsts[-1] - 1} n-grams; at most {_MAX_NODES - 1} are supported: prune it.")
    return firsts


def compact_table(sizes: Sequence[int], rank_bits: Sequence[int]) -> tuple[np.ndarray, dict[str, int]]:
    """Where the fields of a compact model lie, and how long its arrays are.

    Args:
        sizes (sequence of `int`): n-grams of each order.
        rank_bits (sequence of `int`): bits of the keys of the two highest orders.

    Returns:
        `(np.ndarray, dict[str, int])`: the table, and the length of every other array.
    """
    order = len(sizes)
    firsts = _first_states(sizes)
    table = np.zeros((order + 1, COLUMNS), dtype=np.int64)
    table[0, 0] = order
    record_bit = child_bit = sample = 0
    for level in range(1, order + 1):
        row = table[level]
        row[NUM_NODES], row[FIRST_STATE] = sizes[level - 1], firsts[level - 1]
        row[RECORD_BIT], row[CHILD_BIT], row[SAMPLE] = record_bit, child_bit, sample
        if level == 1:
            continue
        row[KEY_BITS] = max(1, int(sizes[level - 2] - 1).bit_length())
        if level + 1 >= order:
            row[KEY_BITS] = rank_bits[level - order + 1]
        row[RECORD_BITS] = row[KEY_BITS] + (8 if level == order else 16)
        record_bit += int(row[RECORD_BITS]) * sizes[level - 1]
        if level < order:
            child_bit += sizes[level - 1] + sizes[level]
            sample += (sizes[level - 1] >> SAMPLE_SHIFT) + 1
    lengths = {
        "unigram_probs": sizes[0],
        "unigram_backoffs": sizes[0],
        "unigram_children": sizes[0] + 1,
        # One more number, so that reading a field that crosses into it stays inside.
        "records": (record_bit >> 6) + 2,
        "children": (child_bit >> 6) + 2,
        "samples": max(sample, 1),
        "codebook": (order + 1) * 2 * CODES,
    }
    return table.reshape(-1), lengths


def pack_compact(levels: Levels) -> CompactArrays:
    """Pack a model into bit fields, with scores of orders above 1 quantized to 8 bits.

    Args:
        levels (`Levels`): the model.

    Returns:
        `CompactArrays`: ready for look-ups.

    Raises:
        ValueError: when there are more n-grams than 31 bits count.
    """
    order, sizes = levels.order, levels.sizes
    all_keys = list(levels.suffix)
    rank_bits = [0, 0]
    root = np.array([0, sizes[0]], dtype=np.int32)
    for level in range(max(2, order - 1), order + 1):
        ranks = np.empty(sizes[level - 1], dtype=np.int32)
        lower = root if level == 2 else levels.first_child[level - 3]
        _ranks(levels.first_child[level - 2], levels.suffix[level - 2], levels.suffix[level - 1], lower, ranks)
        rank_bits[level - order + 1] = max(1, int(ranks.max(initial=0)).bit_length())
        all_keys[level - 1] = ranks
    table, lengths = compact_table(sizes, rank_bits)
    records = np.zeros(lengths["records"], dtype=np.uint64)
    children = np.zeros(lengths["children"], dtype=np.uint64)
    samples = np.zeros(lengths["samples"], dtype=np.uint32)
    codebook = np.zeros((order + 1, 2, CODES), dtype=np.float32)
    rows = table.reshape(order + 1, COLUMNS)
    no_codes = np.zeros(0, dtype=np.uint8)
    for level in range(2, order + 1):
        prob_codes, codebook[level, 0] = quantize(levels.log_probs[level - 1], CODES)
        backoff_codes = no_codes
        if level < order:
            backoff_codes, codebook[level, 1, 1:] = quantize(levels.log_backoffs[level - 1], CODES - 1)
            _mark_dead(levels.first_child[level - 1], levels.log_backoffs[level - 1], backoff_codes)
            _write_children(
                levels.first_child[level - 1], rows[level, CHILD_BIT], children, samples[rows[level, SAMPLE] :]
            )
        _write_records(records, rows[level], all_keys[level - 1], prob_codes, backoff_codes)
    no_children = np.zeros(sizes[0] + 1, dtype=np.int32)
    return CompactArrays(
        table=table,
        unigram_probs=np.array(levels.log_probs[0], dtype=np.float32),
        unigram_backoffs=np.array(levels.log_backoffs[0] if order > 1 else no_children[:-1], dtype=np.float32),
        unigram_children=np.array(levels.first_child[0] if order > 1 else no_children, dtype=np.int32),
        records=records,
        children=children,
        samples=samples,
        codebook=codebook.reshape(-1),
    )


@numba.njit(nogil=True, cache=True)
def _ranks(first_child, parents_suffix, suffix, lower_first_child, ranks):
    """Position of each suffix among the children of the shorter context."""
    for parent in range(len(first_child) - 1):
        base = lower_first_child[parents_suffix[parent]]
        for child in range(first_child[parent], first_child[parent + 1]):
            ranks[child] = suffix[child] - base


@numba.njit(nogil=True, cache=True)
def _mark_dead(first_child, log_backoffs, codes):
    """Codes 1 to 255 for contexts that are worth a state, 0 for the others."""
    for node in range(len(codes)):
        if first_child[node] == first_child[node + 1] and log_backoffs[node] == 0.0:
            codes[node] = 0
        else:
            codes[node] += 1


@numba.njit(nogil=True, cache=True)
def _put_bits(words, position, value):
    index, shift = position >> 6, position & 63
    words[index] |= value << np.uint64(shift)
    if shift > 0:
        words[index + 1] |= value >> np.uint64(64 - shift)


@numba.njit(nogil=True, cache=True)
def _write_records(records, row, keys, prob_codes, backoff_codes):
    key_bits = row[KEY_BITS]
    for node in range(len(keys)):
        value = np.uint64(keys[node]) | (np.uint64(prob_codes[node]) << np.uint64(key_bits))
        if len(backoff_codes):
            value |= np.uint64(backoff_codes[node]) << np.uint64(key_bits + 8)
        _put_bits(records, row[RECORD_BIT] + node * row[RECORD_BITS], value)


@numba.njit(nogil=True, cache=True)
def _write_children(first_child, first_bit, children, samples):
    for node in range(len(first_child) - 1):
        if node & ((1 << SAMPLE_SHIFT) - 1) == 0:
            samples[node >> SAMPLE_SHIFT] = first_child[node]
        for child in range(first_child[node], first_child[node + 1]):
            position = first_bit + node + child
            children[position >> 6] |= np.uint64(1) << np.uint64(position & 63)


@numba.njit(nogil=True, cache=True)
def _histogram(values, low, scale, counts, sums):
    for value in values:
        b = np.int64((value - low) * scale)
        counts[b] += 1
        sums[b] += value


@numba.njit(nogil=True, cache=True)
def _look_up(values, low, scale, code_of_bin, codes):
    for i in range(len(values)):
        codes[i] = code_of_bin[np.int64((values[i] - low) * scale)]


def quantize(values: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Replace numbers by the nearest of a few, chosen for the least squared error (Lloyd's method on a fine histogram).

    Args:
        values (`np.ndarray` of shape `(n,)`, float32): finite numbers.
        number (`int`): how many to choose, at most 256.

    Returns:
        `(np.ndarray, np.ndarray)`: codes, uint8 of shape `(n,)`, and the chosen numbers, float32 of shape `(number,)`,
        ascending.

    Example:
        >>> codes, levels = quantize(np.array([-1.0, -1.0, -3.0], dtype=np.float32), 4)
        >>> levels[codes].tolist()
        [-1.0, -1.0, -3.0]
    """
    codes = np.zeros(len(values), dtype=np.uint8)
    if len(values) == 0:
        return codes, np.zeros(number, dtype=np.float32)
    low, high = float(values.min()), float(values.max())
    scale = (_FINE_BINS - 1) / (high - low) if high > low else 0.0
    counts_by_bin, sums_by_bin = np.zeros(_FINE_BINS), np.zeros(_FINE_BINS)
    _histogram(values, low, scale, counts_by_bin, sums_by_bin)
    used = np.flatnonzero(counts_by_bin)
    counts, sums = counts_by_bin[used], sums_by_bin[used]
    means = sums / counts
    if len(used) <= number:
        centres = np.concatenate([means, np.full(number - len(used), means[-1])])
        owner = np.arange(len(used))
    else:
        # Begin near the optimum, whose density grows with the cube root of that of the values.
        coarse = counts_by_bin.reshape(-1, _FINE_BINS // _COARSE_BINS).sum(axis=1)
        share = np.concatenate([[0.0], np.cumsum(np.cbrt(coarse))])
        wanted = (np.arange(number) + 0.5) / number * share[-1]
        centres = np.interp(wanted, share, np.linspace(low, high, _COARSE_BINS + 1))
        for _ in range(_LLOYD_ROUNDS):
            owner = np.searchsorted((centres[:-1] + centres[1:]) / 2, means)
            weight = np.bincount(owner, weights=counts, minlength=number)
            total = np.bincount(owner, weights=sums, minlength=number)
            centres = np.sort(np.where(weight > 0, total / np.maximum(weight, 1), centres))
        owner = np.searchsorted((centres[:-1] + centres[1:]) / 2, means)
    code_of_bin = np.zeros(_FINE_BINS, dtype=np.uint8)
    code_of_bin[used] = owner
    _look_up(values, low, scale, code_of_bin, codes)
    return codes, centres.astype(np.float32)


def unpack(
    arrays: LMArrays | CompactArrays, sizes: Sequence[int], vocabulary: np.ndarray, offsets: np.ndarray
) -> Levels:
    """Turn a packed model into levels again.

    Args:
        arrays (`LMArrays` or `CompactArrays`): the packed model.
        sizes (sequence of `int`): n-grams of each order.
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.

    Returns:
        `Levels`: the same model; quantized scores stay quantized.
    """
    order, firsts = len(sizes), _first_states(sizes)
    levels = Levels(vocabulary, offsets, [], [])
    if isinstance(arrays, LMArrays):
        for k in range(order):
            here = slice(firsts[k], firsts[k + 1])
            levels.words.append(arrays.words[here])
            levels.log_probs.append(arrays.probs[here])
            if k + 1 < order:
                begins = arrays.first_child[firsts[k] : firsts[k + 1] + 1] - firsts[k + 1]
                levels.first_child.append(begins.astype(np.int32))
                levels.log_backoffs.append(arrays.backoffs[here])
        link_suffixes(levels)
        return levels
    levels.suffix = []
    for k in range(order):
        words, suffix = np.arange(sizes[k], dtype=np.int32), np.zeros(sizes[k], dtype=np.int32)
        probs = np.empty(sizes[k], dtype=np.float32)
        has_children = k + 1 < order
        backoffs = np.empty(sizes[k] if has_children else 0, dtype=np.float32)
        begins = np.empty(sizes[k] + 1 if has_children else 0, dtype=np.int32)
        _unpack_level(arrays, k + 1, levels.words[-1] if k else words, words, suffix, probs, backoffs, begins)
        levels.words.append(words)
        levels.suffix.append(suffix)
        levels.log_probs.append(probs)
        if has_children:
            levels.log_backoffs.append(backoffs)
            levels.first_child.append(begins)
    return levels


@numba.njit(nogil=True, cache=True)
def _unpack_level(arrays, level, lower_words, words, suffix, probs, backoffs, begins):
    lm = addresses(arrays)
    for node in range(len(probs)):
        probs[node] = compact_prob(lm, level, node)
        if len(backoffs):
            backoffs[node], _ = compact_backoff(lm, level, node)
            begins[node], begins[node + 1] = compact_children(lm, level, node)
    if level < 2:
        return
    for parent in range(compact_field(lm, level - 1, NUM_NODES)):
        low, high = compact_children(lm, level - 1, parent)
        base = np.int64(0)
        if low < high:
            base = compact_suffix(lm, level, low) - compact_key(lm, level, low)
        for node in range(low, high):
            suffix[node] = base + compact_key(lm, level, node)
            words[node] = lower_words[suffix[node]]
