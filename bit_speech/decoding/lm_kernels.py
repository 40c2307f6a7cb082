"""Compiled look-ups in packed n-gram models: exact ones in plain arrays, quantized ones in bit fields.

The functions take either kind: `LMArrays` or `CompactArrays`. A state is a number that both kinds share: n-grams are
counted from 1 (the empty context is 0), order by order, sorted by their words; a state is the number of a context.
Numbers in a quantized model that was damaged unseen are kept inside its arrays: it gives wrong scores at worst.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np
from numba import types
from numba.extending import intrinsic, overload

# Rows of `CompactArrays.table`, one for each level; row 0 holds the order.
NUM_NODES, FIRST_STATE, RECORD_BIT, KEY_BITS, RECORD_BITS, CHILD_BIT, SAMPLE, COLUMNS = range(8)
CODES = 256
SAMPLE_SHIFT = 5


class LMArrays(NamedTuple):
    """A backoff n-gram model as flat arrays: a trie of contexts, each n-gram one node.

    Node 0 is the empty context; the nodes of order 1 follow in order of the word index, then order 2, and so on,
    sorted by (context node, word). A language-model state is the node of the longest context that can matter.

    Args:
        words (`np.ndarray` of shape `(nodes,)`, int32): last word of each n-gram.
        probs (`np.ndarray` of shape `(nodes,)`, float32): natural log of the probability of that word.
        next_state (`np.ndarray` of shape `(nodes,)`, int32): state after that word.
        backoffs (`np.ndarray` of shape `(contexts,)`, float32): natural log of the backoff weight, for all orders but
            the highest.
        suffix (`np.ndarray` of shape `(contexts,)`, int32): state to back off to.
        first_child (`np.ndarray` of shape `(contexts + 1,)`, int64): where the n-grams that extend a context begin.
    """

    words: np.ndarray
    probs: np.ndarray
    next_state: np.ndarray
    backoffs: np.ndarray
    suffix: np.ndarray
    first_child: np.ndarray


class CompactArrays(NamedTuple):
    """A backoff n-gram model in bit fields, scores of orders above 1 quantized to 8 bits.

    The record of an n-gram holds a key that sorts it among the children of its context, the code of its probability,
    and, below the highest order, the code of its backoff. The key is the position, in the level below, of the n-gram
    without its first word; so it names the word and the context to back off to at once. In the two highest levels it
    counts from the first child of the shorter context, which takes half the bits. Children of level k >= 2 are
    counted in unary, `1...10` for each context, with the number of the first child stored for every 32nd.

    Args:
        table (`np.ndarray` of shape `((order + 1) * 7,)`, int64): sizes and places of each level.
        unigram_probs (`np.ndarray` of shape `(words,)`, float32): natural logs, exact.
        unigram_backoffs (`np.ndarray` of shape `(words,)`, float32): natural logs, exact.
        unigram_children (`np.ndarray` of shape `(words + 1,)`, int32): first child of each word.
        records (`np.ndarray`, uint64): bit fields, level after level.
        children (`np.ndarray`, uint64): unary numbers of children, level after level.
        samples (`np.ndarray`, uint32): first child of every 32nd context, level after level.
        codebook (`np.ndarray` of shape `((order + 1) * 512,)`, float32): for each level 256 natural-log probabilities
            and 256 backoff weights. Backoff code 0 means: no children, nothing to back off, not worth a state.

    Note:
        The idea of keys relative to the shorter context is that of Pibiri and Venturini (2017), there with other codes.
    """

    table: np.ndarray
    unigram_probs: np.ndarray
    unigram_backoffs: np.ndarray
    unigram_children: np.ndarray
    records: np.ndarray
    children: np.ndarray
    samples: np.ndarray
    codebook: np.ndarray


@intrinsic
def _count_ones(typing_context, value):
    """Number of set bits."""

    def generate(context, builder, signature, arguments):
        return builder.ctpop(arguments[0])

    return types.uint64(types.uint64), generate


@intrinsic
def _trailing_zeros(typing_context, value):
    """Position of the lowest set bit; 64 without one."""

    def generate(context, builder, signature, arguments):
        return builder.cttz(arguments[0], context.get_constant(types.boolean, False))

    return types.uint64(types.uint64), generate


class _Addresses(NamedTuple):
    """Where the arrays of a `CompactArrays` begin. Numbers: counting references to arrays costs more than reading."""

    table: np.int64
    unigram_probs: np.int64
    unigram_backoffs: np.int64
    unigram_children: np.int64
    records: np.int64
    children: np.int64
    samples: np.int64
    codebook: np.int64
    num_children: np.int64


def _loader(kind):
    """Compiled `load(address, index)`: a number of the given type from an array that begins at an address."""

    @intrinsic
    def load(typing_context, address, index):
        def generate(context, builder, signature, arguments):
            pointer = builder.inttoptr(arguments[0], context.get_value_type(kind).as_pointer())
            return builder.load(builder.gep(pointer, [arguments[1]]))

        return kind(types.int64, types.int64), generate

    return load


load_u64 = _loader(types.uint64)
load_i64 = _loader(types.int64)
load_u32 = _loader(types.uint32)
load_i32 = _loader(types.int32)
load_f32 = _loader(types.float32)


@numba.njit(nogil=True, cache=True)
def addresses(lm):
    """Where the arrays of a compact model begin; they must live as long as the numbers are used."""
    return _Addresses(
        np.int64(lm.table.ctypes.data),
        np.int64(lm.unigram_probs.ctypes.data),
        np.int64(lm.unigram_backoffs.ctypes.data),
        np.int64(lm.unigram_children.ctypes.data),
        np.int64(lm.records.ctypes.data),
        np.int64(lm.children.ctypes.data),
        np.int64(lm.samples.ctypes.data),
        np.int64(lm.codebook.ctypes.data),
        np.int64(len(lm.children)),
    )


@numba.njit(nogil=True, cache=True)
def read_bits(words, position, width):
    """Bits `position` to `position + width` as a number; at most 64 of them."""
    index = position >> 6
    shift = position & 63
    value = load_u64(words, index) >> np.uint64(shift)
    if shift + width > 64:
        value |= load_u64(words, index + 1) << np.uint64(64 - shift)
    return np.int64(value & ((np.uint64(1) << np.uint64(width)) - np.uint64(1)))


@numba.njit(nogil=True, cache=True)
def compact_field(lm, level, column):
    """Entry of the table of a compact model."""
    return load_i64(lm.table, level * COLUMNS + column)


@numba.njit(nogil=True, cache=True)
def compact_children(lm, level, node):
    """First and one past the last child of an n-gram, as positions in the next level."""
    if level == 0:
        return np.int64(0), compact_field(lm, 1, NUM_NODES)
    most = compact_field(lm, level + 1, NUM_NODES)
    if level == 1:
        begin, end = np.int64(load_i32(lm.unigram_children, node)), np.int64(load_i32(lm.unigram_children, node + 1))
        return max(np.int64(0), min(begin, most)), max(np.int64(0), min(end, most))
    first_bit = compact_field(lm, level, CHILD_BIT)
    block = node >> SAMPLE_SHIFT
    sample = min(np.int64(load_u32(lm.samples, compact_field(lm, level, SAMPLE) + block)), most)
    position = first_bit + sample + (block << SAMPLE_SHIFT)
    index = position >> 6
    zeros = ~load_u64(lm.children, index) & (~np.uint64(0) << np.uint64(position & 63))
    skip = node & ((1 << SAMPLE_SHIFT) - 1)
    if skip > 0:
        here = np.int64(_count_ones(zeros))
        while here < skip:
            skip -= here
            index += 1
            if index >= lm.num_children:
                return most, most
            zeros = ~load_u64(lm.children, index)
            here = np.int64(_count_ones(zeros))
        for _ in range(skip - 1):
            zeros &= zeros - np.uint64(1)
        position = (index << 6) + np.int64(_trailing_zeros(zeros)) + 1
        zeros &= zeros - np.uint64(1)
    while zeros == 0:
        index += 1
        if index >= lm.num_children:
            return most, most
        zeros = ~load_u64(lm.children, index)
    end = (index << 6) + np.int64(_trailing_zeros(zeros))
    begin = min(position - first_bit - node, most)
    return max(np.int64(0), begin), max(np.int64(0), min(begin + end - position, most))


@numba.njit(nogil=True, cache=True)
def compact_key(lm, level, node):
    """Key of an n-gram of level 2 or above."""
    position = compact_field(lm, level, RECORD_BIT) + node * compact_field(lm, level, RECORD_BITS)
    return read_bits(lm.records, position, compact_field(lm, level, KEY_BITS))


@numba.njit(nogil=True, cache=True)
def _compact_parent(lm, level, node):
    """Position in the level below of the context of an n-gram of level 3 or above."""
    below = level - 1
    first_sample = compact_field(lm, below, SAMPLE)
    low, high = np.int64(0), ((compact_field(lm, below, NUM_NODES) - 1) >> SAMPLE_SHIFT) + 1
    while high - low > 1:
        middle = (low + high) >> 1
        if load_u32(lm.samples, first_sample + middle) <= node:
            low = middle
        else:
            high = middle
    # The context is the number of zeros before the one that stands for the n-gram.
    context = low << SAMPLE_SHIFT
    sample = min(np.int64(load_u32(lm.samples, first_sample + low)), node)
    ones = node - sample
    position = compact_field(lm, below, CHILD_BIT) + sample + context
    index = position >> 6
    skipped = position & 63
    bits = load_u64(lm.children, index) & (~np.uint64(0) << np.uint64(skipped))
    here = np.int64(_count_ones(bits))
    while here <= ones:
        ones -= here
        context += 64 - skipped - here
        skipped = np.int64(0)
        index += 1
        if index >= lm.num_children:
            return np.int64(0)
        bits = load_u64(lm.children, index)
        here = np.int64(_count_ones(bits))
    for _ in range(ones):
        bits &= bits - np.uint64(1)
    before = np.int64(_trailing_zeros(bits)) - skipped
    return max(np.int64(0), min(context + before - ones, compact_field(lm, below, NUM_NODES) - 1))


@numba.njit(nogil=True, cache=True)
def compact_suffix(lm, level, node):
    """The n-gram without its first word, as a position in the level below, for levels above 1."""
    key = compact_key(lm, level, node)
    if level > 2 and level >= load_i64(lm.table, 0) - 1:
        # At most two levels down the keys are positions.
        parent = _compact_parent(lm, level, node)
        shorter = compact_key(lm, level - 1, parent)
        if level - 1 > 2 and level == load_i64(lm.table, 0):
            grandparent = _compact_parent(lm, level - 1, parent)
            shortest = min(compact_key(lm, level - 2, grandparent), compact_field(lm, level - 3, NUM_NODES) - 1)
            base, _ = compact_children(lm, level - 3, shortest)
            shorter += base
        base, _ = compact_children(lm, level - 2, min(shorter, compact_field(lm, level - 2, NUM_NODES) - 1))
        key += base
    return min(key, compact_field(lm, level - 1, NUM_NODES) - 1)


@numba.njit(nogil=True, cache=True)
def compact_prob(lm, level, node):
    """Natural-log probability of an n-gram of any level."""
    if level == 1:
        return np.float64(load_f32(lm.unigram_probs, node))
    width = compact_field(lm, level, RECORD_BITS)
    position = compact_field(lm, level, RECORD_BIT) + node * width + compact_field(lm, level, KEY_BITS)
    return np.float64(load_f32(lm.codebook, 2 * CODES * level + read_bits(lm.records, position, 8)))


@numba.njit(nogil=True, cache=True)
def compact_backoff(lm, level, node):
    """Natural-log backoff weight of a context, and whether it is worth a state."""
    if level == 0:
        return np.float64(0.0), False
    if level == 1:
        backoff = np.float64(load_f32(lm.unigram_backoffs, node))
        return backoff, backoff != 0.0 or load_i32(lm.unigram_children, node + 1) > load_i32(lm.unigram_children, node)
    width = compact_field(lm, level, RECORD_BITS)
    position = compact_field(lm, level, RECORD_BIT) + node * width + compact_field(lm, level, KEY_BITS) + 8
    code = read_bits(lm.records, position, 8)
    return np.float64(load_f32(lm.codebook, 2 * CODES * level + CODES + code)), code != 0


@numba.njit(nogil=True, cache=True)
def compact_find(lm, level, begin, end, key):
    """Position of a key among the children of a context, or -1."""
    width = compact_field(lm, level, RECORD_BITS)
    bits = compact_field(lm, level, KEY_BITS)
    base = compact_field(lm, level, RECORD_BIT)
    while begin < end:
        middle = (begin + end) >> 1
        found = read_bits(lm.records, base + middle * width, bits)
        if found == key:
            return middle
        if found < key:
            begin = middle + 1
        else:
            end = middle
    return np.int64(-1)


@numba.njit(nogil=True, cache=True)
def compact_place(lm, state):
    """Level and position of a state; the empty context for what is no context."""
    order = load_i64(lm.table, 0)
    level = np.int64(0)
    while level + 1 < order and state >= compact_field(lm, level + 1, FIRST_STATE):
        level += 1
    if level == 0:
        return level, np.int64(0)
    node = state - compact_field(lm, level, FIRST_STATE)
    if node >= compact_field(lm, level, NUM_NODES):
        return np.int64(0), np.int64(0)
    return level, node


@numba.njit(nogil=True, cache=True)
def _score_compact(arrays, state, word):
    lm = addresses(arrays)
    order = load_i64(lm.table, 0)
    depth, node = compact_place(lm, state)
    # The state and what it backs off to, shortest first.
    zero = np.int64(0)
    chain = (zero, zero, zero, zero, zero)
    for level in range(depth, 0, -1):
        chain = (node, chain[0], chain[1], chain[2], chain[3])
        if level > 1:
            node = compact_suffix(lm, level, node)
    # The word after no context, after the shortest, and so on, as far as the model goes.
    found, found_begin, matched = np.int64(word), zero, zero
    next_state = zero
    _, alive = compact_backoff(lm, np.int64(min(1, order - 1)), found)
    if alive:
        next_state = found + 1
    for level in range(1, depth + 1):
        begin, end = compact_children(lm, level, chain[level - 1])
        key = found
        if level + 2 >= order:
            key -= found_begin
        child = compact_find(lm, level + 1, begin, end, key)
        if child < 0:
            break
        found, found_begin, matched = child, begin, np.int64(level)
        if level + 1 < order:
            _, alive = compact_backoff(lm, level + 1, found)
            if alive:
                next_state = compact_field(lm, level + 1, FIRST_STATE) + found
    score = compact_prob(lm, matched + 1, found)
    for level in range(matched + 1, depth + 1):
        backoff, _ = compact_backoff(lm, np.int64(level), chain[level - 1])
        score += backoff
    listed = zero
    if matched > 0:
        listed = compact_field(lm, matched, FIRST_STATE) + chain[matched - 1]
    return score, next_state, listed


@numba.njit(nogil=True, cache=True)
def _compact_child_place(lm, child):
    level = np.int64(1)
    while level < load_i64(lm.table, 0) and child >= compact_field(lm, level + 1, FIRST_STATE):
        level += 1
    return level, child - compact_field(lm, level, FIRST_STATE)


@numba.njit(nogil=True, cache=True)
def _child_word_compact(arrays, child):
    lm = addresses(arrays)
    level, node = _compact_child_place(lm, child)
    while level > 1:
        node = compact_suffix(lm, level, node)
        level -= 1
    return node


@numba.njit(nogil=True, cache=True)
def _child_score_compact(arrays, child):
    lm = addresses(arrays)
    level, node = _compact_child_place(lm, child)
    return compact_prob(lm, level, node)


@numba.njit(nogil=True, cache=True)
def _child_range_compact(arrays, state):
    lm = addresses(arrays)
    level, node = compact_place(lm, state)
    begin, end = compact_children(lm, level, node)
    first = compact_field(lm, level + 1, FIRST_STATE)
    return first + begin, first + end


@numba.njit(nogil=True, cache=True)
def _back_off_compact(arrays, state):
    lm = addresses(arrays)
    level, node = compact_place(lm, state)
    backoff, _ = compact_backoff(lm, level, node)
    if level < 2:
        return backoff, np.int64(0)
    return backoff, compact_field(lm, level - 1, FIRST_STATE) + compact_suffix(lm, level, node)


@numba.njit(nogil=True, cache=True)
def find_in_children(words, low, high, word):
    """Position of a word among sorted words, or -1."""
    while low < high:
        middle = (low + high) >> 1
        found = words[middle]
        if found == word:
            return middle
        if found < word:
            low = middle + 1
        else:
            high = middle
    return np.int64(-1)


@numba.njit(nogil=True, cache=True)
def _find_child(lm, context, word):
    """Node of the n-gram `context word` of an exact model, or -1 when the model does not have it."""
    low = np.int64(lm.first_child[context])
    if context == 0:
        return low + word
    return find_in_children(lm.words, low, np.int64(lm.first_child[context + 1]), word)


@numba.njit(nogil=True, cache=True)
def _score_exact(lm, state, word):
    backoff = np.float64(0.0)
    while True:
        node = _find_child(lm, state, word)
        if node >= 0:
            return backoff + lm.probs[node], np.int64(lm.next_state[node]), state
        backoff += lm.backoffs[state]
        state = np.int64(lm.suffix[state])


@numba.njit(nogil=True, cache=True)
def _child_range_exact(lm, state):
    return np.int64(lm.first_child[state]), np.int64(lm.first_child[state + 1])


@numba.njit(nogil=True, cache=True)
def _child_word_exact(lm, child):
    return np.int64(lm.words[child])


@numba.njit(nogil=True, cache=True)
def _child_score_exact(lm, child):
    return np.float64(lm.probs[child])


@numba.njit(nogil=True, cache=True)
def _back_off_exact(lm, state):
    return np.float64(lm.backoffs[state]), np.int64(lm.suffix[state])


def _by_kind(name, exact, compact):
    """A function that numba replaces by that of the kind of model."""

    def stub(lm, *arguments):
        raise NotImplementedError(f"{name} is called from compiled code only")

    @overload(stub, inline="never")
    def choose(lm, *arguments):
        chosen = compact if lm.instance_class is CompactArrays else exact

        def call(lm, *arguments):
            return chosen(lm, *arguments)

        return call

    return stub


_score_match = _by_kind("score_match", _score_exact, _score_compact)
_child_range = _by_kind("child_range", _child_range_exact, _child_range_compact)
_child_word = _by_kind("child_word", _child_word_exact, _child_word_compact)
_child_score = _by_kind("child_score", _child_score_exact, _child_score_compact)
_back_off = _by_kind("back_off", _back_off_exact, _back_off_compact)


@numba.njit(nogil=True, cache=True)
def score_match(lm, state, word):
    """Natural-log probability of a word after a state, the state after it, and the longest suffix that lists it."""
    return _score_match(lm, state, word)


@numba.njit(nogil=True, cache=True)
def score_word(lm, state, word):
    """Natural-log probability of a word after a state, and the state after it."""
    score, following, _ = _score_match(lm, state, word)
    return score, following


@numba.njit(nogil=True, cache=True)
def child_range(lm, state):
    """First and one past the last of the n-grams that extend a state by one word."""
    return _child_range(lm, state)


@numba.njit(nogil=True, cache=True)
def child_word(lm, child):
    """Last word of an n-gram found by `child_range`."""
    return _child_word(lm, child)


@numba.njit(nogil=True, cache=True)
def child_score(lm, child):
    """Natural-log probability of the last word of an n-gram found by `child_range`."""
    return _child_score(lm, child)


@numba.njit(nogil=True, cache=True)
def back_off(lm, state):
    """Natural-log backoff weight of a state, and the shorter state that it leads to."""
    return _back_off(lm, state)


@numba.njit(nogil=True, cache=True)
def score_words(lm, state, words):
    """Natural-log probabilities of consecutive words, and the state after the last."""
    scores = np.empty(len(words), dtype=np.float64)
    for i in range(len(words)):
        scores[i], state = score_word(lm, state, np.int64(words[i]))
    return scores, state
