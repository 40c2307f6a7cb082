"""Compiled CTC prefix beam search over the lexicon trie with an n-gram language model.

A hypothesis is a pair (trie node, history of words). It carries two acoustic scores: of all alignments that end in a
blank, and of all that end in the label of its node. The language-model part of its score is a function of the pair
alone, so it is kept apart and alignments merge correctly. Whole words only ever follow from emitting SIL after the last
phoneme, or, at a price, the first phoneme of the next word.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from .lexicon import TrieArrays
from .lm_kernels import LMArrays, score_word

_SIL_CLASS = 40
_NEG_INF = -np.inf


class SearchSettings(NamedTuple):
    """Numbers that the compiled search needs.

    Args:
        beam_size (`int`): how many hypotheses survive a frame.
        beam_threshold (`float`): how far below the best a hypothesis may be, in natural-log units.
        lm_weight (`float`): factor on language-model scores.
        word_score (`float`): added for every word.
        missing_sil_score (`float`): added when a word is not followed by SIL; -inf forbids it.
        blank_skip_log_prob (`float`): frames whose blank is at least this probable only advance, nothing is extended.
        log_add (`bool`): merge alignments by log-add rather than by maximum.
        start_state (`int`): language-model state at the beginning of the sentence.
        eos (`int`): word index of `</s>`, -1 without a language model.
        root_look_ahead (`float`): best look-ahead score of all words.
    """

    beam_size: int
    beam_threshold: float
    lm_weight: float
    word_score: float
    missing_sil_score: float
    blank_skip_log_prob: float
    log_add: bool
    start_state: int
    eos: int
    root_look_ahead: float


class Beam(NamedTuple):
    """The living hypotheses; together with `Histories` the whole state of a search.

    Args:
        node (`np.ndarray` of shape `(N,)`, int32): trie node.
        history (`np.ndarray` of shape `(N,)`, int32): words completed so far.
        blank (`np.ndarray` of shape `(N,)`, float64): acoustic score of alignments that end in a blank.
        label (`np.ndarray` of shape `(N,)`, float64): acoustic score of alignments that end in the node's label.
        lm (`np.ndarray` of shape `(N,)`, float64): language-model part of the score, look-ahead included.
        record (`np.ndarray` of shape `(N,)`, int32): last entry in the table of word ends.
        word_start (`np.ndarray` of shape `(N,)`, int32): frame where the word in progress began.
        last_label (`np.ndarray` of shape `(N,)`, int32): last frame of the last phoneme.
    """

    node: np.ndarray
    history: np.ndarray
    blank: np.ndarray
    label: np.ndarray
    lm: np.ndarray
    record: np.ndarray
    word_start: np.ndarray
    last_label: np.ndarray


class Histories(NamedTuple):
    """Every sequence of words that was tried, as a tree; entry 0 is the empty one.

    Args:
        parent (`np.ndarray` of shape `(H,)`, int32): history without its last word.
        word (`np.ndarray` of shape `(H,)`, int32): last word.
        state (`np.ndarray` of shape `(H,)`, int32): language-model state.
        lm (`np.ndarray` of shape `(H,)`, float64): natural-log language-model score, unweighted.
        score (`np.ndarray` of shape `(H,)`, float64): weighted score with word scores.
        table (`np.ndarray` of shape `(S,)`, int32): open-addressing hash table over (parent, word).
        records (`np.ndarray` of shape `(R, 4)`, int32): word ends: previous record, word, first and last frame.
        counts (`np.ndarray` of shape `(3,)`, int64): used entries of the tree and of the records; frames so far.
    """

    parent: np.ndarray
    word: np.ndarray
    state: np.ndarray
    lm: np.ndarray
    score: np.ndarray
    table: np.ndarray
    records: np.ndarray
    counts: np.ndarray


@numba.njit(nogil=True, cache=True)
def _combine(a, b, log_add):  # type: ignore[no-untyped-def]
    if a < b:
        a, b = b, a
    if not log_add or b < a - 30.0 or b == -np.inf:
        return a
    return a + math.log1p(math.exp(b - a))


@numba.njit(nogil=True, cache=True)
def _popcount(bits):  # type: ignore[no-untyped-def]
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def _hash_pair(a, b):  # type: ignore[no-untyped-def]
    value = (np.uint64(a) << np.uint64(32)) ^ np.uint64(b)
    value *= np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def _intern_history(histories, lm, word_ids, settings, parent, word):  # type: ignore[no-untyped-def]
    """History `parent` followed by `word`: found, or added with its language-model score."""
    table = histories.table
    mask = np.uint64(len(table) - 1)
    slot = np.int64(_hash_pair(parent, word) & mask)
    while table[slot] >= 0:
        entry = table[slot]
        if histories.parent[entry] == parent and histories.word[entry] == word:
            return np.int64(entry)
        slot = np.int64(np.uint64(slot + 1) & mask)
    entry = histories.counts[0]
    histories.counts[0] = entry + 1
    table[slot] = entry
    histories.parent[entry] = parent
    histories.word[entry] = word
    score, state = np.float64(0.0), np.int64(0)
    if settings.eos >= 0:
        score, state = score_word(lm, np.int64(histories.state[parent]), np.int64(word_ids[word]))
    histories.state[entry] = state
    histories.lm[entry] = histories.lm[parent] + score
    histories.score[entry] = histories.score[parent] + settings.lm_weight * score + settings.word_score
    return np.int64(entry)


@numba.njit(nogil=True, cache=True)
def _grow_1d(array, size):  # type: ignore[no-untyped-def]
    bigger = np.empty(size, dtype=array.dtype)
    bigger[: len(array)] = array
    return bigger


@numba.njit(nogil=True, cache=True)
def _reserve_histories(histories, num_words, num_records):  # type: ignore[no-untyped-def]
    """Make room for that many more histories and records."""
    used = histories.counts[0]
    parent, word, state, lm, score = histories.parent, histories.word, histories.state, histories.lm, histories.score
    table, records = histories.table, histories.records
    if used + num_words > len(parent):
        size = 2 * (used + num_words)
        parent, word, state = _grow_1d(parent, size), _grow_1d(word, size), _grow_1d(state, size)
        lm, score = _grow_1d(lm, size), _grow_1d(score, size)
        table_size = 1024
        while table_size < 2 * size:
            table_size *= 2
        table = np.full(table_size, -1, dtype=np.int32)
        mask = np.uint64(table_size - 1)
        for entry in range(1, used):
            slot = np.int64(_hash_pair(parent[entry], word[entry]) & mask)
            while table[slot] >= 0:
                slot = np.int64(np.uint64(slot + 1) & mask)
            table[slot] = entry
    if histories.counts[1] + num_records > len(records):
        bigger = np.empty((2 * (histories.counts[1] + num_records), 4), dtype=np.int32)
        bigger[: len(records)] = records
        records = bigger
    return Histories(parent, word, state, lm, score, table, records, histories.counts)


@numba.njit(nogil=True, cache=True)
def start_beam(settings):  # type: ignore[no-untyped-def]
    """State before the first frame."""
    beam = Beam(
        np.zeros(1, dtype=np.int32),
        np.zeros(1, dtype=np.int32),
        np.zeros(1, dtype=np.float64),
        np.full(1, -np.inf),
        np.full(1, settings.root_look_ahead),
        np.full(1, -1, dtype=np.int32),
        np.full(1, -1, dtype=np.int32),
        np.full(1, -1, dtype=np.int32),
    )
    histories = Histories(
        np.full(1024, -1, dtype=np.int32),
        np.full(1024, -1, dtype=np.int32),
        np.full(1024, settings.start_state, dtype=np.int32),
        np.zeros(1024, dtype=np.float64),
        np.zeros(1024, dtype=np.float64),
        np.full(2048, -1, dtype=np.int32),
        np.empty((1024, 4), dtype=np.int32),
        np.array([1, 0, 0], dtype=np.int64),
    )
    return beam, histories


@numba.njit(nogil=True, cache=True)
def _empty_beam(size):  # type: ignore[no-untyped-def]
    return Beam(
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.float64),
        np.empty(size, dtype=np.float64),
        np.empty(size, dtype=np.float64),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.int32),
        np.empty(size, dtype=np.int32),
    )


@numba.njit(nogil=True, cache=True)
def _copy_hypothesis(source, i, target, j):  # type: ignore[no-untyped-def]
    target.node[j] = source.node[i]
    target.history[j] = source.history[i]
    target.blank[j] = source.blank[i]
    target.label[j] = source.label[i]
    target.lm[j] = source.lm[i]
    target.record[j] = source.record[i]
    target.word_start[j] = source.word_start[i]
    target.last_label[j] = source.last_label[i]


@numba.njit(nogil=True, cache=True)
def _grow_beam(beam, size):  # type: ignore[no-untyped-def]
    bigger = _empty_beam(size)
    for i in range(len(beam.node)):
        _copy_hypothesis(beam, i, bigger, i)
    return bigger


@numba.njit(nogil=True, cache=True)
def _find_slot(table, stamps, stamp, beam, node, history):  # type: ignore[no-untyped-def]
    mask = np.uint64(len(table) - 1)
    slot = np.int64(_hash_pair(node, history) & mask)
    while stamps[slot] == stamp:
        i = table[slot]
        if beam.node[i] == node and beam.history[i] == history:
            break
        slot = np.int64(np.uint64(slot + 1) & mask)
    return slot


@numba.njit(nogil=True, cache=True)
def _add(new, best_part, count, table, stamps, stamp, node, history, blank, label, lm, record, start, last, log_add):  # type: ignore[no-untyped-def]
    """Add alignments to the hypothesis (node, history), which is made when it is new. Returns the count."""
    slot = _find_slot(table, stamps, stamp, new, node, history)
    part = max(blank, label)
    if stamps[slot] != stamp:
        stamps[slot] = stamp
        table[slot] = count
        i = count
        count += 1
        new.node[i] = node
        new.history[i] = history
        new.blank[i] = blank
        new.label[i] = label
        new.lm[i] = lm
        best_part[i] = -np.inf
    else:
        i = table[slot]
        new.blank[i] = _combine(new.blank[i], blank, log_add)
        new.label[i] = _combine(new.label[i], label, log_add)
    if part >= best_part[i]:
        best_part[i] = part
        new.record[i] = record
        new.word_start[i] = start
        new.last_label[i] = last
    return count


@numba.njit(nogil=True, cache=True)
def _kth_largest(values, count, k, scratch):  # type: ignore[no-untyped-def]
    """k-th largest of the first `count` values (quickselect, deterministic)."""
    for i in range(count):
        scratch[i] = values[i]
    low, high, target = 0, count - 1, k - 1
    while low < high:
        pivot = scratch[(low + high) >> 1]
        i, j = low, high
        while i <= j:
            while scratch[i] > pivot:
                i += 1
            while scratch[j] < pivot:
                j -= 1
            if i <= j:
                scratch[i], scratch[j] = scratch[j], scratch[i]
                i += 1
                j -= 1
        if target <= j:
            high = j
        elif target >= i:
            low = i
        else:
            break
    return scratch[target]


@numba.njit(nogil=True, cache=True)
def advance(log_probs, trie, look_ahead, lm, word_ids, settings, beam, histories):  # type: ignore[no-untyped-def]
    """Advance a search over a chunk of frames.

    Args:
        log_probs (`np.ndarray` of shape `(T, 41)`, float32): scaled scores in model class order.
        trie (`TrieArrays`): the lexicon.
        look_ahead (`np.ndarray` of shape `(nodes,)`, float32): weighted score of the best word below each node.
        lm (`LMArrays`): the language model.
        word_ids (`np.ndarray` of shape `(words,)`, int32): language-model index of each word of the lexicon; -1 forbids it.
        settings (`SearchSettings`): see there.
        beam (`Beam`): state before the chunk; not changed.
        histories (`Histories`): word histories; may be changed in place.

    Returns:
        (`Beam`, `Histories`): state after the chunk.
    """
    num_classes = log_probs.shape[1]
    log_add = settings.log_add
    all_mask = ~np.uint64(0)
    capacity = 4096
    new = _empty_beam(capacity)
    best_part = np.empty(capacity, dtype=np.float64)
    ranks = np.empty(capacity, dtype=np.float64)
    scratch = np.empty(capacity, dtype=np.float64)
    table = np.empty(4 * capacity, dtype=np.int32)
    stamps = np.zeros(4 * capacity, dtype=np.int32)
    stamp = 0
    candidates = np.empty(num_classes, dtype=np.int64)
    old = _empty_beam(max(len(beam.node), 64))
    num_old = len(beam.node)
    for i in range(num_old):
        _copy_hypothesis(beam, i, old, i)

    for t in range(len(log_probs)):
        row = log_probs[t]
        frame = np.int32(histories.counts[2])
        histories.counts[2] += 1
        if row[0] >= settings.blank_skip_log_prob:
            for i in range(num_old):
                total = _combine(old.blank[i], old.label[i], log_add)
                stay = old.label[i] + row[trie.label[old.node[i]]]
                if old.node[i] == 1:
                    stay = total + row[_SIL_CLASS]
                elif old.node[i] == 0:
                    stay = -np.inf
                old.blank[i] = total + row[0]
                old.label[i] = stay
            continue

        # Phonemes of this frame, most probable first.
        num_candidates = 0
        for c in range(1, num_classes):
            if c != _SIL_CLASS and row[c] > -np.inf:
                j = num_candidates
                while j > 0 and row[candidates[j - 1]] < row[c]:
                    candidates[j] = candidates[j - 1]
                    j -= 1
                candidates[j] = c
                num_candidates += 1

        # The best hypothesis goes first, so that the threshold is tight from the start.
        first = 0
        best_old = -np.inf
        for i in range(num_old):
            rank = _combine(old.blank[i], old.label[i], log_add) + old.lm[i]
            if rank > best_old:
                best_old, first = rank, i

        stamp += 1
        count = 0
        best_new = -np.inf
        for step in range(num_old):
            i = step
            if step == 0:
                i = first
            elif step == first:
                i = 0
            node = np.int64(old.node[i])
            history = np.int64(old.history[i])
            label = np.int64(trie.label[node])
            total = _combine(old.blank[i], old.label[i], log_add)
            own_lm = old.lm[i]
            word_low, word_high = trie.word_begin[node], trie.word_begin[node + 1]
            num_here = word_high - word_low

            most = 2 + num_candidates + num_here * (1 + num_candidates)
            if count + most > capacity:
                while count + most > capacity:
                    capacity *= 2
                new = _grow_beam(new, capacity)
                best_part = _grow_1d(best_part, capacity)
                ranks = np.empty(capacity, dtype=np.float64)
                scratch = np.empty(capacity, dtype=np.float64)
                table = np.empty(4 * capacity, dtype=np.int32)
                stamps = np.zeros(4 * capacity, dtype=np.int32)
                stamp = 1
                for k in range(count):
                    slot = _find_slot(table, stamps, stamp, new, np.int64(new.node[k]), np.int64(new.history[k]))
                    stamps[slot] = stamp
                    table[slot] = k
            histories = _reserve_histories(histories, num_here, num_here)

            # Stay: a blank, or the same label again.
            blank = total + row[0]
            stay = -np.inf
            if node == 1:
                stay = total + row[_SIL_CLASS]
            elif node != 0:
                stay = old.label[i] + row[label]
            rank = max(blank, stay) + own_lm
            if rank >= best_new - settings.beam_threshold and rank > -np.inf:
                best_new = max(best_new, rank)
                last = old.last_label[i]
                if node > 1 and stay >= blank:
                    last = frame
                count = _add(
                    new, best_part, count, table, stamps, stamp, node, history, blank, stay, own_lm,
                    old.record[i], old.word_start[i], last, log_add,
                )  # fmt: skip

            # Further into the word.
            children = trie.children[node]
            for k in range(num_candidates):
                c = candidates[k]
                if total + row[c] + own_lm < best_new - settings.beam_threshold:
                    break
                bit = np.uint64(1) << np.uint64(c)
                if children & bit == 0:
                    continue
                came = old.blank[i] if c == label else total
                child = trie.first_child[node] + _popcount(children & (bit - np.uint64(1)))
                child_lm = own_lm - look_ahead[node] + look_ahead[child]
                rank = came + row[c] + child_lm
                if rank < best_new - settings.beam_threshold or rank == -np.inf:
                    continue
                best_new = max(best_new, rank)
                start = frame if node <= 1 else old.word_start[i]
                count = _add(
                    new, best_part, count, table, stamps, stamp, child, history, -np.inf, came + row[c], child_lm,
                    old.record[i], start, frame, log_add,
                )  # fmt: skip

            sil = total + row[_SIL_CLASS]
            if node == 0:
                rank = sil + own_lm
                if rank >= best_new - settings.beam_threshold and rank > -np.inf:
                    best_new = max(best_new, rank)
                    count = _add(
                        new, best_part, count, table, stamps, stamp, np.int64(1), history, -np.inf, sil, own_lm,
                        old.record[i], np.int32(-1), np.int32(-1), log_add,
                    )  # fmt: skip
                continue
            if num_here == 0:
                continue
            # The word ends: with SIL, or at a price with the first phoneme of the next word.
            with_sil = sil + own_lm >= best_new - settings.beam_threshold and sil > -np.inf
            without = total + settings.missing_sil_score
            without_sil = num_candidates > 0 and (
                without + row[candidates[0]] + own_lm >= best_new - settings.beam_threshold
            )
            if not with_sil and not without_sil:
                continue
            for w in range(word_low, word_high):
                word = np.int64(trie.words[w])
                if word_ids[word] < 0:
                    continue
                longer = _intern_history(histories, lm, word_ids, settings, history, word)
                base = histories.score[longer] + settings.root_look_ahead
                record = np.int32(-1)
                if with_sil and sil + base >= best_new - settings.beam_threshold:
                    best_new = max(best_new, sil + base)
                    record = _record(histories, old.record[i], word, old.word_start[i], old.last_label[i])
                    count = _add(
                        new, best_part, count, table, stamps, stamp, np.int64(1), longer, -np.inf, sil, base,
                        record, np.int32(-1), np.int32(-1), log_add,
                    )  # fmt: skip
                if not without_sil:
                    continue
                for k in range(num_candidates):
                    c = candidates[k]
                    if without + row[c] + base < best_new - settings.beam_threshold:
                        break
                    bit = np.uint64(1) << np.uint64(c)
                    if trie.children[0] & bit == 0:
                        continue
                    came = (old.blank[i] if c == label else total) + settings.missing_sil_score
                    child = trie.first_child[0] + _popcount(trie.children[0] & (bit - np.uint64(1)))
                    child_lm = histories.score[longer] + look_ahead[child]
                    rank = came + row[c] + child_lm
                    if rank < best_new - settings.beam_threshold or rank == -np.inf:
                        continue
                    best_new = max(best_new, rank)
                    if record < 0:
                        record = _record(histories, old.record[i], word, old.word_start[i], old.last_label[i])
                    count = _add(
                        new, best_part, count, table, stamps, stamp, child, longer, -np.inf, came + row[c], child_lm,
                        record, frame, frame, log_add,
                    )  # fmt: skip

        # Prune.
        best_new = -np.inf
        for i in range(count):
            ranks[i] = _combine(new.blank[i], new.label[i], log_add) + new.lm[i]
            best_new = max(best_new, ranks[i])
        cutoff = best_new - settings.beam_threshold
        if count > settings.beam_size:
            cutoff = max(cutoff, _kth_largest(ranks, count, settings.beam_size, scratch))
        if len(old.node) < min(count, 2 * settings.beam_size):
            old = _empty_beam(2 * min(count, settings.beam_size))
        num_old = 0
        limit = min(settings.beam_size, count)
        for i in range(count):
            if ranks[i] >= cutoff and num_old < limit:
                _copy_hypothesis(new, i, old, num_old)
                num_old += 1

    result = _empty_beam(num_old)
    for i in range(num_old):
        _copy_hypothesis(old, i, result, i)
    return result, histories


@numba.njit(nogil=True, cache=True)
def _record(histories, previous, word, start, end):  # type: ignore[no-untyped-def]
    record = histories.counts[1]
    histories.counts[1] = record + 1
    histories.records[record, 0] = previous
    histories.records[record, 1] = word
    histories.records[record, 2] = start
    histories.records[record, 3] = end
    return np.int32(record)


@numba.njit(nogil=True, cache=True)
def finish(trie, lm, word_ids, settings, beam, histories):  # type: ignore[no-untyped-def]
    """Complete the hypotheses: the last word where its SIL is missing, and the end of the sentence.

    Returns:
        (`Histories`, history, acoustic, lm, score, record): the grown histories and, for each distinct sequence of
        words, its acoustic score, unweighted language-model score, total score and table entry of its last word.
    """
    most = 1
    for i in range(len(beam.node)):
        node = beam.node[i]
        most += 1 + trie.word_begin[node + 1] - trie.word_begin[node]
    histories = _reserve_histories(histories, most, most)
    history = np.empty(most, dtype=np.int32)
    acoustic = np.empty(most, dtype=np.float64)
    best_part = np.empty(most, dtype=np.float64)
    record = np.empty(most, dtype=np.int32)
    place = np.full(len(histories.parent), -1, dtype=np.int32)
    count = 0
    for i in range(len(beam.node)):
        node = np.int64(beam.node[i])
        total = _combine(beam.blank[i], beam.label[i], settings.log_add)
        low, high = trie.word_begin[node], trie.word_begin[node + 1]
        options = 1 if node <= 1 else high - low
        for option in range(options):
            if node <= 1:
                entry, mass, last = np.int64(beam.history[i]), total, beam.record[i]
            else:
                word = np.int64(trie.words[low + option])
                mass = total + settings.missing_sil_score
                if word_ids[word] < 0 or mass == -np.inf:
                    continue
                entry = _intern_history(histories, lm, word_ids, settings, np.int64(beam.history[i]), word)
                last = _record(histories, beam.record[i], word, beam.word_start[i], beam.last_label[i])
            j = place[entry]
            if j < 0:
                j = count
                place[entry] = j
                history[j] = entry
                acoustic[j] = mass
                best_part[j] = mass
                record[j] = last
                count += 1
            else:
                acoustic[j] = _combine(acoustic[j], mass, settings.log_add)
                if mass > best_part[j]:
                    best_part[j] = mass
                    record[j] = last
    lm_score = np.empty(count, dtype=np.float64)
    score = np.empty(count, dtype=np.float64)
    for j in range(count):
        entry = history[j]
        end = 0.0
        if settings.eos >= 0:
            end, _ = score_word(lm, np.int64(histories.state[entry]), np.int64(settings.eos))
        lm_score[j] = histories.lm[entry] + end
        score[j] = acoustic[j] + histories.score[entry] + settings.lm_weight * end
    return histories, history[:count], acoustic[:count], lm_score, score, record[:count]


@numba.njit(nogil=True, cache=True)
def fill_look_ahead(trie, word_scores, look_ahead):  # type: ignore[no-untyped-def]
    """Best score of the words at or below each node, in place. Children have higher indices than their parents."""
    for node in range(len(look_ahead) - 1, -1, -1):
        best = -np.inf
        for w in range(trie.word_begin[node], trie.word_begin[node + 1]):
            best = max(best, word_scores[trie.words[w]])
        children = trie.children[node]
        low = trie.first_child[node]
        for child in range(low, low + _popcount(children)):
            best = max(best, look_ahead[child])
        look_ahead[node] = best


__all__ = [
    "Beam",
    "Histories",
    "LMArrays",
    "SearchSettings",
    "TrieArrays",
    "advance",
    "fill_look_ahead",
    "finish",
    "start_beam",
]
