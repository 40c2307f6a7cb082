"""Compiled reading of the tables that a search leaves: word arcs, their posteriors, the best distinct sentences."""

from __future__ import annotations

import math

import numba
import numpy as np

from .beam_kernels import END, FIRST, JOIN, OTHER, PREVIOUS, RECORD_WORD
from .lm_kernels import score_word
from .search_graph import phrase_step, word_step


@numba.njit(nogil=True, cache=True)
def score_step(model, settings, state, phrase, word):
    """Language-model score of a word, the same weighted with all that a word adds, and the states after it."""
    score, matched, extra = 0.0, np.int64(0), settings.word_score
    if settings.eos >= 0:
        unknown = model.word_ids[word] == settings.unk
        score, state, matched = word_step(model, state, word)
        if unknown:
            extra += settings.unknown_word_score
    phrase, gain = phrase_step(model.hot, phrase, word)
    return score, model.lm_weight * score + extra + gain, state, phrase


@numba.njit(nogil=True, cache=True)
def score_sentence(model, settings, state, phrase, words):
    """Language-model score of words and the end of the sentence, and the same weighted with all that words add."""
    raw = weighted = 0.0
    for word in words:
        score, step, state, phrase = score_step(model, settings, state, phrase, np.int64(word))
        raw += score
        weighted += step
    if settings.eos >= 0:
        score, _ = score_word(model.lm, state, np.int64(settings.eos))
        raw += score
        weighted += model.lm_weight * score
    return raw, weighted - model.hot.held[phrase]


@numba.njit(nogil=True, cache=True)
def _insert(sources, deltas, count, source, delta):
    """Insert an alternative into a list sorted from best to worst, without repetition. Returns its new length."""
    for i in range(count):
        if sources[i] == source:
            if deltas[i] >= delta:
                return count
            for j in range(i, count - 1):
                sources[j], deltas[j] = sources[j + 1], deltas[j + 1]
            count -= 1
            break
    most = len(sources)
    if count == most and deltas[count - 1] >= delta:
        return count
    i = min(count, most - 1)
    while i > 0 and deltas[i - 1] < delta:
        sources[i], deltas[i] = sources[i - 1], deltas[i - 1]
        i -= 1
    sources[i], deltas[i] = source, delta
    return min(count + 1, most)


@numba.njit(nogil=True, cache=True)
def collect_arcs(
    records, record_scores, num_records, model, settings, base_acoustic, first_state, first_phrase, end_records,
    end_acoustic, most_sources,
):  # fmt: skip
    """Turn records into word arcs between nodes; node 0 is the beginning, the last one the end.

    Of all alternatives that were joined before a word, the `most_sources` best are told apart.

    Returns:
        `(int64 (arcs, 5), float64 (arcs, 3), int)`: source, target, word (-1 at the end), first frame, one past the
        last; acoustic, language-model and total score; and the number of nodes. Sorted by target, sources come first.
    """
    needed = np.zeros(num_records, dtype=np.bool_)
    for record in end_records:
        if record >= 0:
            needed[record] = True
    num_words = 0
    for record in range(num_records - 1, -1, -1):
        if needed[record]:
            if records[record, PREVIOUS] >= 0:
                needed[records[record, PREVIOUS]] = True
            if records[record, RECORD_WORD] != JOIN:
                num_words += 1
            elif records[record, OTHER] >= 0:
                needed[records[record, OTHER]] = True
    sources = np.empty((num_records + 1, most_sources), dtype=np.int64)
    deltas = np.empty((num_records + 1, most_sources), dtype=np.float64)
    counts = np.zeros(num_records + 1, dtype=np.int64)
    # The last row stands for record -1, the beginning.
    sources[num_records, 0], deltas[num_records, 0], counts[num_records] = -1, 0.0, 1
    node = np.zeros(num_records + 1, dtype=np.int64)
    states = np.zeros(num_records + 1, dtype=np.int64)
    phrases = np.zeros(num_records + 1, dtype=np.int64)
    states[num_records], phrases[num_records] = first_state, first_phrase
    most = most_sources * num_words + num_records + 1
    links, scores = np.empty((most, 5), dtype=np.int64), np.empty((most, 3), dtype=np.float64)
    count, num_nodes = 0, 1
    for record in range(num_records):
        if not needed[record]:
            continue
        previous = np.int64(records[record, PREVIOUS])
        if previous < 0:
            previous = num_records
        if records[record, RECORD_WORD] == JOIN:
            other = np.int64(records[record, OTHER])
            if other < 0:
                other = num_records
            number = 0
            for k in range(counts[previous]):
                number = _insert(sources[record], deltas[record], number, sources[previous, k], deltas[previous, k])
            for k in range(counts[other]):
                delta = deltas[other, k] + record_scores[record]
                number = _insert(sources[record], deltas[record], number, sources[other, k], delta)
            counts[record] = number
            # The states of the one that stayed.
            states[record], phrases[record] = states[previous], phrases[previous]
            continue
        word = np.int64(records[record, RECORD_WORD])
        node[record] = num_nodes
        sources[record, 0], deltas[record, 0], counts[record] = record, 0.0, 1
        score, step, state, phrase = score_step(model, settings, states[previous], phrases[previous], word)
        states[record], phrases[record] = state, phrase
        for k in range(counts[previous]):
            source = sources[previous, k]
            if source >= 0 and records[source, END] >= records[record, END]:
                continue  # joined within the word: times are those of the one that stayed
            place = source if source >= 0 else num_records
            before = record_scores[source] if source >= 0 else base_acoustic
            acoustic = record_scores[record] + deltas[previous, k] - before
            score, step, state, phrase = score_step(model, settings, states[place], phrases[place], word)
            begin = np.int64(records[record, FIRST])
            if source >= 0:
                begin = max(begin, np.int64(records[source, END]) + 1)
            row, values = links[count], scores[count]
            row[0], row[1], row[2], row[3], row[4] = node[place], num_nodes, word, begin, records[record, END] + 1
            values[0], values[1], values[2] = acoustic, score, acoustic + step
            count += 1
        num_nodes += 1
    # Into the end: the best of each source, since several ends may lead there through joins.
    best = np.full(num_records + 1, -np.inf, dtype=np.float64)
    for i in range(len(end_records)):
        last = np.int64(end_records[i])
        if last < 0:
            last = num_records
        for k in range(counts[last]):
            source = sources[last, k]
            place = source if source >= 0 else num_records
            before = record_scores[source] if source >= 0 else base_acoustic
            best[place] = max(best[place], end_acoustic[i] + deltas[last, k] - before)
    for place in range(num_records + 1):
        if best[place] == -np.inf:
            continue
        score = 0.0
        if settings.eos >= 0:
            score, _ = score_word(model.lm, np.int64(states[place]), np.int64(settings.eos))
        row, values = links[count], scores[count]
        row[0], row[1], row[2], row[3], row[4] = node[place], num_nodes, -1, 0, 0
        values[0], values[1] = best[place], score
        values[2] = best[place] + model.lm_weight * score - model.hot.held[phrases[place]]
        count += 1
    return links[:count], scores[:count], num_nodes + 1


@numba.njit(nogil=True, cache=True)
def _log_add(a, b):
    high, low = max(a, b), min(a, b)
    if low == -np.inf:
        return high
    return high + math.log1p(math.exp(low - high))


@numba.njit(nogil=True, cache=True)
def arc_posteriors(links, scores, num_nodes, temperature):
    """Share of the lattice's probability that goes through each arc, and how far its best path is below the best."""
    forward, backward = np.full(num_nodes, -np.inf), np.full(num_nodes, -np.inf)
    into, onward = np.full(num_nodes, -np.inf), np.full(num_nodes, -np.inf)
    forward[0] = backward[num_nodes - 1] = into[0] = onward[num_nodes - 1] = 0.0
    for arc in range(len(links)):
        source, target = links[arc, 0], links[arc, 1]
        forward[target] = _log_add(forward[target], forward[source] + scores[arc, 2] / temperature)
        into[target] = max(into[target], into[source] + scores[arc, 2])
    for arc in range(len(links) - 1, -1, -1):
        source, target = links[arc, 0], links[arc, 1]
        backward[source] = _log_add(backward[source], backward[target] + scores[arc, 2] / temperature)
        onward[source] = max(onward[source], onward[target] + scores[arc, 2])
    posteriors, gaps = np.zeros(len(links)), np.zeros(len(links))
    for arc in range(len(links)):
        source, target, score = links[arc, 0], links[arc, 1], scores[arc, 2]
        if forward[num_nodes - 1] > -np.inf:
            through = forward[source] + score / temperature + backward[target] - forward[num_nodes - 1]
            posteriors[arc] = min(1.0, math.exp(through))
        gaps[arc] = into[num_nodes - 1] - into[source] - score - onward[target]
    return posteriors, gaps


@numba.njit(nogil=True, cache=True)
def best_paths(links, scores, num_nodes, number):
    """The best paths through the lattice that differ in their words, as arcs from the last to the first.

    Returns:
        `int64 (paths, longest)`: arcs, -1 beyond the beginning. Best first.
    """
    values = np.full((num_nodes, number), -np.inf)
    hashes = np.zeros((num_nodes, number), dtype=np.uint64)
    arcs = np.full((num_nodes, number), -1, dtype=np.int64)
    ranks = np.zeros((num_nodes, number), dtype=np.int64)
    counts = np.zeros(num_nodes, dtype=np.int64)
    lengths = np.zeros((num_nodes, number), dtype=np.int64)
    values[0, 0], hashes[0, 0], counts[0] = 0.0, np.uint64(1), 1
    for arc in range(len(links)):
        source, target = links[arc, 0], links[arc, 1]
        for k in range(counts[source]):
            value = values[source, k] + scores[arc, 2]
            count = counts[target]
            if value == -np.inf or (count == number and value <= values[target, number - 1]):
                break
            code = (hashes[source, k] ^ np.uint64(links[arc, 2] + 2)) * np.uint64(0x9E3779B97F4A7C15)
            code ^= code >> np.uint64(29)
            place = count
            for i in range(count):
                if hashes[target, i] == code:
                    place = i
                    break
            if place < count and values[target, place] >= value:
                continue
            i = min(place, number - 1)
            while i > 0 and values[target, i - 1] < value:
                values[target, i], hashes[target, i] = values[target, i - 1], hashes[target, i - 1]
                arcs[target, i], ranks[target, i] = arcs[target, i - 1], ranks[target, i - 1]
                lengths[target, i] = lengths[target, i - 1]
                i -= 1
            values[target, i], hashes[target, i] = value, code
            arcs[target, i], ranks[target, i] = arc, k
            lengths[target, i] = lengths[source, k] + 1
            if place == count:
                counts[target] = min(count + 1, number)
    # Ranks were those at the time; sources are complete before their targets, so they still hold.
    last = num_nodes - 1
    longest = 1
    for k in range(counts[last]):
        longest = max(longest, lengths[last, k])
    paths = np.full((counts[last], longest), -1, dtype=np.int64)
    for k in range(counts[last]):
        node, rank = last, k
        for step in range(longest):
            arc = arcs[node, rank]
            if arc < 0:
                break
            paths[k, step] = arc
            node, rank = links[arc, 0], ranks[node, rank]
    return paths
