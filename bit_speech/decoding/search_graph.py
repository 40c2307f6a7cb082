"""The graph that the beam search walks: the lexicon trie, and below every language-model state its own small trie.

A word that the model knows after a state is reached through the trie of that state, which holds only such words and
whose look-ahead is therefore exact. All other words are reached by backing off to a shorter state, in the end to the
whole lexicon with the look-ahead of single words. Histories that back off to the same state meet there, which is why
few hypotheses suffice. The tries of states are made node by node when the search first comes by, and are kept.

The same idea, the language model pushed into the graph, gives static transducers their speed; made lazily, it costs no
memory for what is never visited.
"""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np

from .lexicon import TrieArrays
from .lm_kernels import child_range, child_score, child_word, score_match

SIL_CLASS = 40
# The root of the whole lexicon.
ROOT = 1
# Entries of `Graph.counts`.
NUM_NODES, NUM_ITEMS, NUM_STATES = range(3)
# Answers of `state_root` and `expand` beside nodes.
NO_WORDS, NO_ROOM = 0, -1


class HotPhrases(NamedTuple):
    """Boosted phrases as an automaton over words; state 0 is outside every phrase.

    Args:
        first (`np.ndarray` of shape `(words,)`, float32): what a word gains that begins a phrase, 0 for others.
        begin (`np.ndarray` of shape `(states + 1,)`, int32): where the continuations of each state begin.
        words (`np.ndarray`, int32): continuing word.
        following (`np.ndarray`, int32): state after it.
        gains (`np.ndarray`, float32): score gained with it; complete phrases keep theirs.
        held (`np.ndarray` of shape `(states,)`, float32): score that must be given back when the phrase breaks off.
    """

    first: np.ndarray
    begin: np.ndarray
    words: np.ndarray
    following: np.ndarray
    gains: np.ndarray
    held: np.ndarray


class Model(NamedTuple):
    """Everything that does not change while decoding.

    Args:
        trie (`TrieArrays`): the lexicon.
        lm (`LMArrays` or another packed model): the language model.
        word_ids (`np.ndarray` of shape `(words,)`, int32): language-model index of each lexicon word; -1 forbids it.
        item_begin (`np.ndarray` of shape `(LM words + 1,)`, int32): where the pronunciations of a language-model word
            begin in `items`.
        items (`np.ndarray`, int32): pronunciations, as ranks in the trie's order.
        bias (`np.ndarray` of shape `(pronunciations,)`, float32): weighted score of a word apart from the model's.
        pronunciation_scores (`np.ndarray` of shape `(pronunciations,)`, float32): weighted pronunciation scores.
        hot (`HotPhrases`): boosted phrases.
        lm_weight (`float`): factor on language-model scores.
    """

    trie: TrieArrays
    lm: NamedTuple
    word_ids: np.ndarray
    item_begin: np.ndarray
    items: np.ndarray
    bias: np.ndarray
    pronunciation_scores: np.ndarray
    hot: HotPhrases
    lm_weight: float


class Graph(NamedTuple):
    """Nodes of the lexicon trie first, with the same numbers, then those of the tries of language-model states.

    Args:
        label (`np.ndarray`, uint8): class that leads into the node, SIL for roots.
        children (`np.ndarray`, uint64): bit c is set when the node has a child with class c.
        first_child (`np.ndarray`, int32): index of the first child, -1 before the children are made.
        ahead (`np.ndarray`, float32): weighted score of the best word at or below the node.
        begin (`np.ndarray`, int32): first item at or below the node.
        here (`np.ndarray`, int32): one past the last item that ends in the node itself.
        end (`np.ndarray`, int32): one past the last item at or below the node.
        trie_node (`np.ndarray`, int32): the same place in the lexicon trie.
        state (`np.ndarray`, int32): language-model state whose trie it belongs to.
        ranks (`np.ndarray`, int32): pronunciation of each item.
        scores (`np.ndarray`, float32): weighted score of each item's word after the state.
        table (`np.ndarray` of shape `(power of two, 2)`, int32): open-addressing table of states (0 is none) and roots.
        counts (`np.ndarray` of shape `(3,)`, int64): used nodes, items and states.
    """

    label: np.ndarray
    children: np.ndarray
    first_child: np.ndarray
    ahead: np.ndarray
    begin: np.ndarray
    here: np.ndarray
    end: np.ndarray
    trie_node: np.ndarray
    state: np.ndarray
    ranks: np.ndarray
    scores: np.ndarray
    table: np.ndarray
    counts: np.ndarray


@numba.njit(nogil=True, cache=True)
def count_bits(bits):
    """Number of set bits of an unsigned 64-bit number."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def fill_look_ahead(trie, scores, look_ahead):
    """Best score of the pronunciations at or below each node of the lexicon, in place."""
    # Children have higher indices than their parents.
    for node in range(len(look_ahead) - 1, -1, -1):
        best = np.float32(-np.inf)
        for item in range(trie.begin[node], trie.here[node]):
            best = max(best, scores[item])
        low = trie.first_child[node]
        for child in range(low, low + count_bits(trie.children[node])):
            best = max(best, look_ahead[child])
        look_ahead[node] = best


@numba.njit(nogil=True, cache=True)
def _state_slot(table, state):
    mask = np.uint64(len(table) - 1)
    slot = np.int64((np.uint64(state) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32) & mask)
    while table[slot, 0] != 0 and table[slot, 0] != state:
        slot = np.int64(np.uint64(slot + 1) & mask)
    return slot


@numba.njit(nogil=True, cache=True)
def _insertion_sort(ranks, scores, low, high):
    for i in range(low + 1, high):
        rank, score = ranks[i], scores[i]
        j = i
        while j > low and ranks[j - 1] > rank:
            ranks[j], scores[j] = ranks[j - 1], scores[j - 1]
            j -= 1
        ranks[j], scores[j] = rank, score


@numba.njit(nogil=True, cache=True)
def _sort_items(ranks, scores, low, high):
    """Sort items by rank, in place: by insertion when they are few, else by radix."""
    count = high - low
    if count <= 32:
        _insertion_sort(ranks, scores, low, high)
        return
    most = 0
    for i in range(low, high):
        most = max(most, ranks[i])
    spare_ranks, spare_scores = np.empty(count, dtype=np.int32), np.empty(count, dtype=np.float32)
    shift = 0
    while most >> shift > 0:
        begin = np.zeros(257, dtype=np.int64)
        for i in range(low, high):
            begin[(ranks[i] >> shift & 255) + 1] += 1
        for digit in range(256):
            begin[digit + 1] += begin[digit]
        for i in range(low, high):
            digit = ranks[i] >> shift & 255
            spare_ranks[begin[digit]], spare_scores[begin[digit]] = ranks[i], scores[i]
            begin[digit] += 1
        for i in range(count):
            ranks[low + i], scores[low + i] = spare_ranks[i], spare_scores[i]
        shift += 8


@numba.njit(nogil=True, cache=True)
def state_root(graph, model, state):
    """Root of the trie of a language-model state, made when it is new.

    Returns:
        `int`: the node; `NO_WORDS` when no word of the lexicon follows the state; `NO_ROOM` when the graph is full.
    """
    slot = _state_slot(graph.table, state)
    if graph.table[slot, 0] == state:
        return np.int64(graph.table[slot, 1])
    low, high = child_range(model.lm, state)
    first = graph.counts[NUM_ITEMS]
    node = graph.counts[NUM_NODES]
    if 2 * (graph.counts[NUM_STATES] + 1) > len(graph.table) or node >= len(graph.label):
        return np.int64(NO_ROOM)
    count = first
    best = np.float32(-np.inf)
    for child in range(low, high):
        word = child_word(model.lm, child)
        for i in range(model.item_begin[word], model.item_begin[word + 1]):
            if count == len(graph.ranks):
                return np.int64(NO_ROOM)
            rank = model.items[i]
            graph.ranks[count] = rank
            graph.scores[count] = model.lm_weight * child_score(model.lm, child) + model.bias[rank]
            best = max(best, graph.scores[count])
            count += 1
    graph.counts[NUM_STATES] += 1
    graph.table[slot, 0] = state
    graph.table[slot, 1] = NO_WORDS
    if count == first or best == -np.inf:
        return np.int64(NO_WORDS)
    _sort_items(graph.ranks, graph.scores, first, count)
    graph.counts[NUM_ITEMS] = count
    graph.counts[NUM_NODES] = node + 1
    graph.table[slot, 1] = node
    graph.label[node], graph.trie_node[node], graph.state[node] = SIL_CLASS, ROOT, state
    graph.begin[node], graph.here[node], graph.end[node] = first, first, count
    graph.ahead[node], graph.first_child[node], graph.children[node] = best, -1, 0
    return np.int64(node)


@numba.njit(nogil=True, cache=True)
def expand(graph, trie, node):
    """Make the children of a node of a state's trie. Returns `NO_ROOM` when the graph is full."""
    count = graph.counts[NUM_NODES]
    if count + 64 > len(graph.label):
        return np.int64(NO_ROOM)
    graph.first_child[node] = count
    place = np.int64(graph.trie_node[node])
    bits = trie.children[place]
    item, high = np.int64(graph.here[node]), np.int64(graph.end[node])
    child = np.int64(trie.first_child[place])
    mask = np.uint64(0)
    while item < high:
        # Children are in the order of their pronunciations.
        while trie.end[child] <= graph.ranks[item]:
            child += 1
        begin, best = item, np.float32(-np.inf)
        while item < high and graph.ranks[item] < trie.here[child]:
            best = max(best, graph.scores[item])
            item += 1
        here = item
        while item < high and graph.ranks[item] < trie.end[child]:
            best = max(best, graph.scores[item])
            item += 1
        label = trie.label[child]
        mask |= np.uint64(1) << np.uint64(label)
        graph.label[count], graph.trie_node[count], graph.state[count] = label, child, graph.state[node]
        graph.begin[count], graph.here[count], graph.end[count] = begin, here, item
        graph.ahead[count], graph.first_child[count], graph.children[count] = best, -1, 0
        count += 1
    graph.children[node] = mask & bits
    graph.counts[NUM_NODES] = count
    return np.int64(node)


@numba.njit(nogil=True, cache=True)
def locate(graph, model, state, place):
    """Node of a state's trie at a place of the lexicon trie, made when it is new; `NO_ROOM` when the graph is full."""
    if state == 0:
        return np.int64(place)
    trie = model.trie
    node = state_root(graph, model, state)
    while node > 0 and graph.trie_node[node] != place:
        if graph.first_child[node] < 0 and expand(graph, trie, node) < 0:
            return np.int64(NO_ROOM)
        child = np.int64(graph.first_child[node])
        # Of the children, the one whose interval of pronunciations holds that of the place.
        while trie.end[graph.trie_node[child]] <= trie.begin[place]:
            child += 1
        node = child
    return np.int64(node)


@numba.njit(nogil=True, cache=True)
def phrase_step(hot, state, word):
    """State of the boosted phrases after a word, and the score gained (or given back) with it."""
    given_back = np.float64(hot.held[state])
    if state > 0:
        for i in range(hot.begin[state], hot.begin[state + 1]):
            if hot.words[i] == word:
                return np.int64(hot.following[i]), np.float64(hot.gains[i])
    for i in range(hot.begin[0], hot.begin[1] if hot.first[word] != 0 else hot.begin[0]):
        if hot.words[i] == word:
            return np.int64(hot.following[i]), np.float64(hot.gains[i]) - given_back
    return np.int64(0), -given_back


@numba.njit(nogil=True, cache=True)
def word_step(model, state, word):
    """Natural-log score of a lexicon word after a state, the state after it, and the state where it is listed."""
    return score_match(model.lm, state, np.int64(model.word_ids[word]))


def new_graph(
    model: Model, scores: np.ndarray, look_ahead: np.ndarray, nodes: int = 1 << 21, items: int = 1 << 23
) -> Graph:
    """Start a graph: the lexicon trie alone.

    Args:
        model (`Model`): lexicon and language model.
        scores (`np.ndarray` of shape `(pronunciations,)`, float32): weighted scores without context.
        look_ahead (`np.ndarray` of shape `(nodes,)`, float32): their look-ahead.
        nodes (`int`): how many nodes of states' tries there is room for. What is not used takes address space alone.
        items (`int`): the same for their items.

    Returns:
        `Graph`: the graph.
    """
    trie = model.trie
    used_nodes, used_items = len(trie.label), len(trie.words)
    nodes, items = nodes + used_nodes, items + used_items
    graph = Graph(
        label=np.empty(nodes, dtype=np.uint8),
        children=np.empty(nodes, dtype=np.uint64),
        first_child=np.empty(nodes, dtype=np.int32),
        ahead=np.empty(nodes, dtype=np.float32),
        begin=np.empty(nodes, dtype=np.int32),
        here=np.empty(nodes, dtype=np.int32),
        end=np.empty(nodes, dtype=np.int32),
        trie_node=np.empty(nodes, dtype=np.int32),
        state=np.empty(nodes, dtype=np.int32),
        ranks=np.empty(items, dtype=np.int32),
        scores=np.empty(items, dtype=np.float32),
        table=np.zeros((1 << 20, 2), dtype=np.int32),
        counts=np.array([used_nodes, used_items, 0]),
    )
    for name in ("label", "children", "first_child", "begin", "here", "end"):
        getattr(graph, name)[:used_nodes] = getattr(trie, name)
    graph.ahead[:used_nodes] = look_ahead
    graph.trie_node[:used_nodes] = np.arange(used_nodes)
    graph.state[:used_nodes] = 0
    graph.ranks[:used_items] = np.arange(used_items)
    graph.scores[:used_items] = scores
    return graph


def forget_states(graph: Graph, model: Model) -> None:
    """Forget the tries of all language-model states, in place, so that no memory is asked for twice.

    Args:
        graph (`Graph`): made by [`new_graph`]; the lexicon's own nodes stay.
        model (`Model`): the same as then.
    """
    graph.table[:] = 0
    graph.counts[:] = len(model.trie.label), len(model.trie.words), 0
