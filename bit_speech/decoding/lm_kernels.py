"""Compiled look-ups in the packed n-gram model."""

from __future__ import annotations

from typing import NamedTuple

import numba
import numpy as np


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


@numba.njit(nogil=True, cache=True)
def find_child(lm, context, word):
    """Node of the n-gram `context word`, or -1 when the model does not have it."""
    low = lm.first_child[context]
    high = lm.first_child[context + 1]
    if context == 0:
        return low + word
    while low < high:
        middle = (low + high) >> 1
        found = lm.words[middle]
        if found == word:
            return middle
        if found < word:
            low = middle + 1
        else:
            high = middle
    return np.int64(-1)


@numba.njit(nogil=True, cache=True)
def score_word(lm, state, word):
    """Natural-log probability of a word after a state, and the state after it."""
    backoff = np.float64(0.0)
    while True:
        node = find_child(lm, state, word)
        if node >= 0:
            return backoff + lm.probs[node], np.int64(lm.next_state[node])
        backoff += lm.backoffs[state]
        state = np.int64(lm.suffix[state])


@numba.njit(nogil=True, cache=True)
def score_words(lm, state, words):
    """Natural-log probabilities of consecutive words, and the state after the last."""
    scores = np.empty(len(words), dtype=np.float64)
    for i in range(len(words)):
        scores[i], state = score_word(lm, state, np.int64(words[i]))
    return scores, state


@numba.njit(nogil=True, cache=True)
def child_range(lm, state):
    """First and one past the last of the n-grams that extend a state by one word."""
    return np.int64(lm.first_child[state]), np.int64(lm.first_child[state + 1])


@numba.njit(nogil=True, cache=True)
def child_word(lm, child):
    """Last word of an n-gram found by `child_range`."""
    return np.int64(lm.words[child])


@numba.njit(nogil=True, cache=True)
def child_score(lm, child):
    """Natural-log probability of the last word of an n-gram found by `child_range`."""
    return np.float64(lm.probs[child])


@numba.njit(nogil=True, cache=True)
def back_off(lm, state):
    """Natural-log backoff weight of a state, and the shorter state that it leads to."""
    return np.float64(lm.backoffs[state]), np.int64(lm.suffix[state])


@numba.njit(nogil=True, cache=True)
def link_states(words, first_child, backoffs, suffix, next_state, parents, num_contexts):
    """Fill `suffix` (longest proper suffix that is a context) and `next_state` of every node, in place.

    A context without successors and with backoff weight 1 scores like its suffix, so states skip it.
    """
    next_state[0] = 0
    suffix[0] = 0
    for node in range(1, len(words)):
        parent = parents[node]
        if parent == 0:
            link = np.int64(0)
        else:
            context = np.int64(suffix[parent])
            while True:
                low = first_child[context]
                high = first_child[context + 1]
                link = np.int64(-1)
                if context == 0:
                    link = low + words[node]
                else:
                    while low < high:
                        middle = (low + high) >> 1
                        if words[middle] == words[node]:
                            link = middle
                            break
                        if words[middle] < words[node]:
                            low = middle + 1
                        else:
                            high = middle
                if link >= 0:
                    break
                context = np.int64(suffix[context])
            link = np.int64(next_state[link])
        alive = False
        if node < num_contexts:
            suffix[node] = link
            alive = first_child[node + 1] > first_child[node] or backoffs[node] != 0.0
        next_state[node] = node if alive else link
