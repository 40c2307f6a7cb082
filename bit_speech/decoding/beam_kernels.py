"""Compiled CTC prefix beam search over the search graph.

A hypothesis is a pair (node, context). It carries two acoustic scores: of all alignments that end in a blank, and of
all that end in the label of its node. The language-model part of its score is a function of the words and the node
alone, so it is kept apart and alignments merge correctly. Words end by emitting SIL after their last phoneme, or, at a
price, the first phoneme of the next word.

With recombination the node says what the language model still sees: after a word, a hypothesis starts in the trie of
the language-model state, and, at the price of backing off, in those of all shorter states; where histories meet, the
best stays. Without it the context is the history, and all words are reached through the whole lexicon.

Memory is allocated in Python: when a table is full, the kernel stops before the frame and says what to enlarge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from .lm_kernels import back_off, score_word
from .search_graph import NO_ROOM, ROOT, SIL_CLASS, count_bits, expand, locate, phrase_step, state_root, word_step

# Columns of `Beam.links`.
NODE, CONTEXT, HISTORY, RECORD, START, LAST = range(6)
# What START holds before the first word; after a word it is -1.
BEFORE_SPEECH = -2
# Columns of `Beam.scores`.
BLANK, LABEL, LM, TOTAL, BEST_PART = range(5)
# Columns of `Histories.links` and `Histories.scores`.
PARENT, WORD, STATE, MATCHED, PHRASE = range(5)
RAW, WEIGHTED = range(2)
# Columns of `Histories.records`; a join has no word, and another record in place of the first frame.
PREVIOUS, RECORD_WORD, FIRST, END = range(4)
JOIN, OTHER = -1, FIRST
# Entries of `Histories.counts`.
NUM_HISTORIES, NUM_RECORDS, NUM_FRAMES = range(3)
# Why the search stopped.
DONE, MORE_HYPOTHESES, MORE_HISTORIES, MORE_RECORDS, MORE_GRAPH, TIDY = range(6)
# Unreachable histories and records are dropped whenever so many frames have passed, however the input is cut.
TIDY_FRAMES = 256


class SearchSettings(NamedTuple):
    """Numbers that the compiled search needs.

    Args:
        beam_size (`int`): how many hypotheses survive a frame.
        beam_threshold (`float`): how far below the best a hypothesis may be, in natural-log units.
        word_score (`float`): added for every word.
        unknown_word_score (`float`): added for words that the language model does not know.
        missing_sil_score (`float`): added when a word is not followed by SIL; -inf forbids it.
        extra_sil_score (`float`): added for every SIL after a word but the first; -inf forbids it.
        log_add (`bool`): merge alignments by log-add rather than by maximum.
        recombine (`bool`): of hypotheses that differ only in words the language model no longer sees, keep the best.
        lattice_beam (`float`): what loses by at most this in recombination is recorded; 0 records nothing.
        best_ahead (`float`): no look-ahead of a root is better.
        eos (`int`): word index of `</s>`, -1 without a language model.
        unk (`int`): word index of `<unk>`.
    """

    beam_size: int
    beam_threshold: float
    word_score: float
    unknown_word_score: float
    missing_sil_score: float
    extra_sil_score: float
    log_add: bool
    recombine: bool
    lattice_beam: float
    best_ahead: float
    eos: int
    unk: int


class Beam(NamedTuple):
    """Hypotheses; those of one frame together with `Histories` are the whole state of a search.

    Args:
        links (`np.ndarray` of shape `(N, 6)`, int32): node, context, history, last entry in the table of word ends,
            first frame of the word in progress, last frame of the last phoneme.
        scores (`np.ndarray` of shape `(N, 5)`, float64): acoustic score of alignments that end in a blank; of those
            that end in the label; language-model part with look-ahead; sum of all; and the best single contribution.
    """

    links: np.ndarray
    scores: np.ndarray


class Histories(NamedTuple):
    """Every sequence of words that was tried, as a tree whose entry 0 is the empty one, and the times of word ends.

    Args:
        links (`np.ndarray` of shape `(H, 5)`, int32): history without its last word, last word, language-model state,
            state after which the model lists the last word, state of the boosted phrases.
        scores (`np.ndarray` of shape `(H, 2)`, float64): natural-log language-model score, and the same weighted
            and with word scores and boosts.
        table (`np.ndarray` of shape `(S,)`, int32): open-addressing hash table over (parent, word).
        records (`np.ndarray` of shape `(R, 4)`, int32): word ends: previous record, word, first and last frame; or
            joins: the record that stayed, -1, and the one that was recombined with it.
        record_scores (`np.ndarray` of shape `(R,)`, float64): acoustic score up to the word end; for joins, how much
            more the other record's had been.
        counts (`np.ndarray` of shape `(3,)`, int64): used histories, used records, frames so far.
    """

    links: np.ndarray
    scores: np.ndarray
    table: np.ndarray
    records: np.ndarray
    record_scores: np.ndarray
    counts: np.ndarray


@numba.njit(nogil=True, cache=True)
def combine(a, b, log_add):
    """Log-add or maximum of two scores."""
    high = max(a, b)
    low = min(a, b)
    if not log_add or low < high - 30.0 or low == -np.inf:
        return high
    return high + math.log1p(math.exp(low - high))


@numba.njit(nogil=True, cache=True)
def hash_pair(a, b):
    """Hash of two non-negative 32-bit numbers."""
    value = (np.uint64(a) << np.uint64(32)) | np.uint64(b)
    value *= np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _longer_history(histories, model, settings, parent, word):
    """History `parent` followed by `word`: found, or added with its language-model score."""
    links, scores, table = histories.links, histories.scores, histories.table
    mask = np.uint64(len(table) - 1)
    slot = np.int64(hash_pair(parent, word) & mask)
    while table[slot] >= 0:
        entry = np.int64(table[slot])
        if links[entry, PARENT] == parent and links[entry, WORD] == word:
            return entry
        slot = np.int64(np.uint64(slot + 1) & mask)
    entry = histories.counts[NUM_HISTORIES]
    histories.counts[NUM_HISTORIES] = entry + 1
    table[slot] = entry
    score, state, matched, extra = np.float64(0.0), np.int64(0), np.int64(0), settings.word_score
    if settings.eos >= 0:
        score, state, matched = word_step(model, np.int64(links[parent, STATE]), word)
        if model.word_ids[word] == settings.unk:
            extra += settings.unknown_word_score
    phrase, gain = phrase_step(model.hot, np.int64(links[parent, PHRASE]), word)
    row = links[entry]
    row[PARENT], row[WORD], row[STATE], row[MATCHED], row[PHRASE] = parent, word, state, matched, phrase
    scores[entry, RAW] = scores[parent, RAW] + score
    scores[entry, WEIGHTED] = scores[parent, WEIGHTED] + model.lm_weight * score + extra + gain
    return entry


@numba.njit(nogil=True, cache=True)
def _add_record(histories, previous, word, first, end, score):
    record = histories.counts[NUM_RECORDS]
    histories.counts[NUM_RECORDS] = record + 1
    row = histories.records[record]
    row[PREVIOUS], row[RECORD_WORD], row[FIRST], row[END] = previous, word, first, end
    histories.record_scores[record] = score
    return record


@numba.njit(nogil=True, cache=True)
def _add(
    new, count, table, stamp, settings, histories, node, context, history, record, start, last, blank, label, lm
):  # fmt: skip
    """Add alignments to the hypothesis (node, context), which is made when it is new. Returns how many there are."""
    links, scores = new.links, new.scores
    mask = np.uint64(len(table) - 1)
    slot = np.int64(hash_pair(node, context) & mask)
    while table[slot] >> 32 == stamp:
        i = table[slot] & 0xFFFFFFFF
        if links[i, NODE] == node and links[i, CONTEXT] == context:
            break
        slot = np.int64(np.uint64(slot + 1) & mask)
    part = max(blank, label)
    if table[slot] >> 32 != stamp:
        table[slot] = stamp << 32 | count
        i = np.int64(count)
        count += 1
    else:
        i = table[slot] & 0xFFFFFFFF
        if links[i, HISTORY] == history:
            scores[i, BLANK] = combine(scores[i, BLANK], blank, settings.log_add)
            scores[i, LABEL] = combine(scores[i, LABEL], label, settings.log_add)
            if part > scores[i, BEST_PART]:
                scores[i, BEST_PART] = part
                links[i, RECORD], links[i, START], links[i, LAST] = record, start, last
            return count
        # Another history leads to the same context: the better one stays.
        mine = combine(blank, label, settings.log_add)
        its = combine(scores[i, BLANK], scores[i, LABEL], settings.log_add)
        lead = its + scores[i, LM] - mine - lm
        near = abs(lead) < settings.lattice_beam and record >= 0 and links[i, RECORD] >= 0
        if lead >= 0:
            if near:
                links[i, RECORD] = _add_record(
                    histories, np.int64(links[i, RECORD]), JOIN, record, np.int64(-1), mine - its
                )
            return count
        if near:
            record = _add_record(histories, record, JOIN, np.int64(links[i, RECORD]), np.int64(-1), its - mine)
    row = links[i]
    row[NODE], row[CONTEXT], row[HISTORY] = node, context, history
    row[RECORD], row[START], row[LAST] = record, start, last
    values = scores[i]
    values[BLANK], values[LABEL], values[LM], values[BEST_PART] = blank, label, lm, part
    return count


@numba.njit(nogil=True, cache=True)
def _kth_largest(values, count, k):
    """k-th largest of the first `count` values; reorders them."""
    low, high, target = 0, count - 1, k - 1
    while low < high:
        pivot = values[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while values[i] > pivot:
                i += 1
            while values[j] < pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return values[target]


@numba.njit(nogil=True, cache=True)
def _rest(beam, count, row, graph, settings):
    """Advance over a frame that is nearly certainly blank: nothing is extended."""
    links, scores = beam.links, beam.scores
    for i in range(count):
        total = combine(scores[i, BLANK], scores[i, LABEL], settings.log_add)
        label = graph.label[links[i, NODE]]
        stay = scores[i, LABEL] + row[label]
        if label == SIL_CLASS:
            extra = 0.0 if links[i, START] == BEFORE_SPEECH else settings.extra_sil_score
            stay = combine(stay, scores[i, BLANK] + row[label] + extra, settings.log_add)
        scores[i, BLANK] = total + row[0]
        scores[i, LABEL] = stay
        scores[i, TOTAL] = combine(total + row[0], stay, settings.log_add) + scores[i, LM]


@numba.njit(nogil=True, cache=True)
def _prune(new, count, ranks, settings):
    """Keep the best hypotheses, in place and in order. Returns how many stay."""
    links, scores = new.links, new.scores
    best = -np.inf
    for i in range(count):
        total = combine(scores[i, BLANK], scores[i, LABEL], settings.log_add) + scores[i, LM]
        scores[i, TOTAL] = total
        best = max(best, total)
    cutoff = best - settings.beam_threshold
    num_ranks = 0
    for i in range(count):
        if scores[i, TOTAL] >= cutoff:
            ranks[num_ranks] = scores[i, TOTAL]
            num_ranks += 1
    if num_ranks > settings.beam_size:
        cutoff = _kth_largest(ranks, num_ranks, settings.beam_size)
    kept = 0
    for i in range(count):
        if scores[i, TOTAL] >= cutoff and kept < settings.beam_size:
            if kept < i:
                for j in range(links.shape[1]):
                    links[kept, j] = links[i, j]
                for j in range(scores.shape[1]):
                    scores[kept, j] = scores[i, j]
            kept += 1
    return kept


@numba.njit(nogil=True, cache=True)
def advance(
    log_probs, skip, first_frame, model, graph, settings, old, num_old, new, table, stamps, ranks, histories
):  # fmt: skip
    """Advance a search over frames, in place.

    Args:
        log_probs (`np.ndarray` of shape `(T, 41)`, float32): scaled scores in model class order.
        skip (`np.ndarray` of shape `(T,)`, bool): frames that are nearly certain blanks: nothing is extended there.
        first_frame (`int`): row of `log_probs` to begin with.
        model (`Model`): lexicon, language model and their weights.
        graph (`Graph`): where hypotheses walk; grows.
        settings (`SearchSettings`): see there.
        old (`Beam`): the living hypotheses.
        num_old (`int`): how many there are.
        new (`Beam`): room for the next ones.
        table (`np.ndarray` of shape `(power of two,)`, int64): hash table over the next hypotheses, each entry with the
            time it was made.
        stamps (`np.ndarray` of shape `(1,)`, int64): that time.
        ranks (`np.ndarray` of shape `(room,)`, float64): scratch.
        histories (`Histories`): word histories.

    Returns:
        `(int, int, int, bool)`: why it stopped, at which row of `log_probs`, how many hypotheses live, and whether they
        are in `new` rather than `old`.
    """
    threshold, recombine = settings.beam_threshold, settings.recombine
    missing_sil, best_ahead = settings.missing_sil_score, settings.best_ahead
    trie, ahead = model.trie, graph.ahead
    capacity = len(ranks)
    num_classes = log_probs.shape[1]
    candidates = np.empty(num_classes, dtype=np.int64)
    live = np.empty(num_classes + 1, dtype=np.uint64)  # the k most probable phonemes as bits
    swapped = False

    for t in range(first_frame, len(log_probs)):
        row = log_probs[t]
        frame = histories.counts[NUM_FRAMES]
        if skip[t]:
            _rest(old, num_old, row, graph, settings)
            histories.counts[NUM_FRAMES] = frame + 1
            if (frame + 1) % TIDY_FRAMES == 0:
                return TIDY, t + 1, num_old, swapped
            continue

        # The phonemes of this frame, most probable first; and the best hypothesis, which goes first, so that the
        # threshold is tight from the start.
        num_candidates = 0
        for phoneme in range(1, num_classes):
            if phoneme != SIL_CLASS and row[phoneme] > -np.inf:
                j = num_candidates
                while j > 0 and row[candidates[j - 1]] < row[phoneme]:
                    candidates[j] = candidates[j - 1]
                    j -= 1
                candidates[j] = phoneme
                num_candidates += 1
        live[0] = 0
        for k in range(num_candidates):
            live[k + 1] = live[k] | np.uint64(1) << np.uint64(candidates[k])
        first = 0
        num_words = 0
        for i in range(num_old):
            if old.scores[i, TOTAL] > old.scores[first, TOTAL]:
                first = i
            num_words += graph.here[old.links[i, NODE]] - graph.begin[old.links[i, NODE]]
        if histories.counts[NUM_HISTORIES] + num_words > len(histories.links):
            return MORE_HISTORIES, t, num_old, swapped
        if histories.counts[NUM_RECORDS] + num_words > len(histories.records):
            return MORE_RECORDS, t, num_old, swapped

        top = row[candidates[0]] if num_candidates > 0 else np.float32(-np.inf)
        most = max(row[0], row[SIL_CLASS], top) + max(0.0, best_ahead)

        stamp = stamps[0] + 1
        stamps[0] = stamp
        count = 0
        cutoff = -np.inf
        for step in range(num_old):
            i = step
            if step == 0:
                i = first
            elif step == first:
                i = 0
            old_links, old_scores = old.links[i], old.scores[i]
            own_lm = old_scores[LM]
            total = old_scores[TOTAL] - own_lm
            # A most optimistic extension that is too bad means that all are.
            if old_scores[TOTAL] + most < cutoff:
                continue
            node, context, history = np.int64(old_links[NODE]), old_links[CONTEXT], np.int64(old_links[HISTORY])
            record, start, last = np.int64(old_links[RECORD]), np.int64(old_links[START]), np.int64(old_links[LAST])
            label = np.int64(graph.label[node])
            after_blank = old_scores[BLANK]
            at_root = label == SIL_CLASS
            word_low, word_high = graph.begin[node], graph.here[node]
            if count + 1 + num_candidates > capacity:
                return MORE_HYPOTHESES, t, num_old, swapped
            if settings.lattice_beam > 0 and histories.counts[NUM_RECORDS] + 2 * capacity > len(histories.records):
                return MORE_RECORDS, t, num_old, swapped

            # Stay: a blank, or the same label again; at a root also a SIL after a blank, at a price after a word.
            blank = total + row[0]
            stay = old_scores[LABEL] + row[label]
            if at_root:
                extra = 0.0 if start == BEFORE_SPEECH else settings.extra_sil_score
                stay = combine(stay, after_blank + row[label] + extra, settings.log_add)
            rank = max(blank, stay) + own_lm
            if rank >= cutoff and rank > -np.inf:
                cutoff = max(cutoff, rank - threshold)
                end = frame if stay >= blank and not at_root else last
                count = _add(
                    new, count, table, stamp, settings, histories,
                    node, context, history, record, start, end, blank, stay, own_lm,
                )  # fmt: skip

            # Further into the word.
            num_live = 0
            while num_live < num_candidates and total + own_lm + row[candidates[num_live]] >= cutoff:
                num_live += 1
            if num_live > 0:
                child = np.int64(graph.first_child[node])
                if child < 0:
                    if expand(graph, trie, node) == NO_ROOM:
                        return MORE_GRAPH, t, num_old, swapped
                    child = np.int64(graph.first_child[node])
                children = graph.children[node]
                bits = children & live[num_live]
                while bits != 0:
                    low_bit = bits & (~bits + np.uint64(1))
                    bits ^= low_bit
                    here = child + count_bits(children & (low_bit - np.uint64(1)))
                    c = np.int64(graph.label[here])
                    mass = (after_blank if c == label else total) + row[c]
                    child_lm = own_lm - ahead[node] + ahead[here]
                    rank = mass + child_lm
                    if rank < cutoff or rank == -np.inf:
                        continue
                    cutoff = max(cutoff, rank - threshold)
                    count = _add(
                        new, count, table, stamp, settings, histories,
                        here, context, history, record, frame if at_root else start, frame, -np.inf, mass, child_lm,
                    )  # fmt: skip

            # The word ends: with SIL, or at a price with the first phoneme of the next word.
            if word_low == word_high:
                continue
            sil, without = total + row[SIL_CLASS], total + missing_sil
            level = np.int64(graph.state[node])
            for item in range(word_low, word_high):
                reach = own_lm - ahead[node] + graph.scores[item] + best_ahead
                if max(sil, without + top) + reach < cutoff or max(sil, without + top) + reach == -np.inf:
                    continue
                rank_of_item = graph.ranks[item]
                word = np.int64(trie.words[rank_of_item])
                longer = _longer_history(histories, model, settings, history, word)
                # What a longer state lists is reached through its own trie.
                if recombine and histories.links[longer, MATCHED] != level:
                    continue
                spoken = np.float64(model.pronunciation_scores[rank_of_item])
                base = histories.scores[longer, WEIGHTED]
                following = histories.links[longer, PHRASE] if recombine else np.int32(longer)
                state = np.int64(histories.links[longer, STATE]) if recombine else np.int64(0)
                end_record = np.int64(-1)
                while True:
                    if count + 1 + num_candidates > capacity:
                        return MORE_HYPOTHESES, t, num_old, swapped
                    root = np.int64(ROOT)
                    if state > 0:
                        root = state_root(graph, model, state)
                        if root == NO_ROOM:
                            return MORE_GRAPH, t, num_old, swapped
                    if root > 0:
                        root_lm = base + ahead[root]
                        mass = sil + spoken
                        rank = mass + root_lm
                        if rank >= cutoff and rank > -np.inf:
                            cutoff = max(cutoff, rank - threshold)
                            if end_record < 0:
                                end_record = _add_record(histories, record, word, start, last, total + spoken)
                            count = _add(
                                new, count, table, stamp, settings, histories,
                                root, following, longer, end_record, np.int64(-1), np.int64(-1), -np.inf, mass, root_lm,
                            )  # fmt: skip
                        num_live = 0
                        while (
                            num_live < num_candidates
                            and without + spoken + row[candidates[num_live]] + root_lm >= cutoff
                            and without > -np.inf
                        ):
                            num_live += 1
                        if num_live > 0:
                            if graph.first_child[root] < 0 and expand(graph, trie, root) == NO_ROOM:
                                return MORE_GRAPH, t, num_old, swapped
                            children = graph.children[root]
                            bits = children & live[num_live]
                            while bits != 0:
                                low_bit = bits & (~bits + np.uint64(1))
                                bits ^= low_bit
                                here = graph.first_child[root] + count_bits(children & (low_bit - np.uint64(1)))
                                c = np.int64(graph.label[here])
                                mass = (after_blank if c == label else total) + row[c] + missing_sil + spoken
                                child_lm = base + ahead[here]
                                rank = mass + child_lm
                                if rank < cutoff or rank == -np.inf:
                                    continue
                                cutoff = max(cutoff, rank - threshold)
                                if end_record < 0:
                                    end_record = _add_record(histories, record, word, start, last, total + spoken)
                                count = _add(
                                    new, count, table, stamp, settings, histories,
                                    here, following, longer, end_record, frame, frame, -np.inf, mass, child_lm,
                                )  # fmt: skip
                    if state == 0:
                        break
                    weight, state = back_off(model.lm, state)
                    base += model.lm_weight * weight

        num_old = _prune(new, count, ranks, settings)
        old, new = new, old
        swapped = not swapped
        histories.counts[NUM_FRAMES] = frame + 1
        if (frame + 1) % TIDY_FRAMES == 0:
            return TIDY, t + 1, num_old, swapped
    return DONE, len(log_probs), num_old, swapped


@numba.njit(nogil=True, cache=True)
def begin_search(model, graph, settings, state, beam, histories):
    """Fill the beam with the hypotheses before the first frame. Returns how many, or `NO_ROOM`."""
    row = histories.links[0]
    row[PARENT], row[WORD], row[STATE], row[MATCHED], row[PHRASE] = -1, -1, state, 0, 0
    histories.scores[0, RAW] = histories.scores[0, WEIGHTED] = 0.0
    count = 0
    base = 0.0
    while True:
        root = np.int64(ROOT)
        if settings.recombine and state > 0:
            root = state_root(graph, model, state)
            if root == NO_ROOM:
                return NO_ROOM
        if root > 0:
            links, scores = beam.links[count], beam.scores[count]
            links[NODE], links[CONTEXT], links[HISTORY] = root, 0, 0
            links[RECORD], links[START], links[LAST] = -1, BEFORE_SPEECH, -1
            lm = base + graph.ahead[root]
            scores[BLANK], scores[LABEL], scores[LM], scores[TOTAL], scores[BEST_PART] = 0.0, -np.inf, lm, lm, 0.0
            count += 1
        if state == 0 or not settings.recombine:
            return count
        weight, state = back_off(model.lm, state)
        base += model.lm_weight * weight


@numba.njit(nogil=True, cache=True)
def settle(graph, model, states, places, beam):
    """Find the nodes of hypotheses from their language-model states and places in the lexicon; False: no room."""
    for i in range(len(states)):
        node = locate(graph, model, np.int64(states[i]), np.int64(places[i]))
        if node == NO_ROOM:
            return False
        beam.links[i, NODE] = node
    return True


@numba.njit(nogil=True, cache=True)
def finish(model, graph, settings, beam, num_old, histories, place, ends):
    """Complete the hypotheses: the last word where its SIL is missing, and the end of the sentence.

    Args:
        model (`Model`): lexicon, language model and their weights.
        graph (`Graph`): where hypotheses walked.
        settings (`SearchSettings`): see there.
        beam (`Beam`): the living hypotheses.
        num_old (`int`): how many there are.
        histories (`Histories`): word histories, with room for one more word of every hypothesis.
        place (`np.ndarray` of shape `(H,)`, int32): filled with -1.
        ends (`Beam`): room for the distinct sentences. Filled with history and record, and with the acoustic score
            (`BLANK`), unweighted language-model score (`LM`) and total score (`TOTAL`).

    Returns:
        `int`: how many distinct sentences there are.
    """
    count = 0
    # Roots first: a history in several of them is the same set of alignments, not several.
    for at_root in (True, False):
        for i in range(num_old):
            node = np.int64(beam.links[i, NODE])
            if (graph.label[node] == SIL_CLASS) != at_root:
                continue
            total = combine(beam.scores[i, BLANK], beam.scores[i, LABEL], settings.log_add)
            low, high = graph.begin[node], graph.here[node]
            for option in range(1 if at_root else high - low):
                history, record, mass = np.int64(beam.links[i, HISTORY]), np.int64(beam.links[i, RECORD]), total
                if not at_root:
                    rank = graph.ranks[low + option]
                    word = np.int64(model.trie.words[rank])
                    mass = total + settings.missing_sil_score + model.pronunciation_scores[rank]
                    if graph.scores[low + option] == -np.inf or mass == -np.inf:
                        continue
                    longer = _longer_history(histories, model, settings, history, word)
                    if settings.recombine and histories.links[longer, MATCHED] != graph.state[node]:
                        continue
                    history = longer
                    record = _add_record(
                        histories, record, word, beam.links[i, START], beam.links[i, LAST],
                        total + model.pronunciation_scores[rank],
                    )  # fmt: skip
                j = place[history]
                if j < 0:
                    j = np.int32(count)
                    place[history] = j
                    ends.links[j, HISTORY] = history
                    ends.scores[j, BLANK] = mass
                    ends.scores[j, BEST_PART] = -np.inf
                    count += 1
                elif at_root:
                    ends.scores[j, BLANK] = max(ends.scores[j, BLANK], mass)
                else:
                    ends.scores[j, BLANK] = combine(ends.scores[j, BLANK], mass, settings.log_add)
                if mass > ends.scores[j, BEST_PART]:
                    ends.scores[j, BEST_PART] = mass
                    ends.links[j, RECORD] = record
    for j in range(count):
        history = np.int64(ends.links[j, HISTORY])
        end = np.float64(0.0)
        if settings.eos >= 0:
            end, _ = score_word(model.lm, np.int64(histories.links[history, STATE]), np.int64(settings.eos))
        held = np.float64(model.hot.held[histories.links[history, PHRASE]])
        ends.scores[j, LM] = histories.scores[history, RAW] + end
        ends.scores[j, TOTAL] = (
            ends.scores[j, BLANK] + histories.scores[history, WEIGHTED] + model.lm_weight * end - held
        )
    return count
