"""Compiled CTC prefix beam search over the lexicon trie with an n-gram language model.

A hypothesis is a pair (trie node, context), the context being the words so far, or the language-model state that they
lead to. It carries two acoustic scores: of all alignments that end in a blank, and of all that end in the label of its
node. The language-model part of its score is a function of the words and the node alone, so it is kept apart and
alignments merge correctly. Words end by emitting SIL after their last phoneme, or, at a price, the first phoneme of the
next word.

Memory is allocated in Python: when a table is full, the kernel stops before the frame and says what to enlarge.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numba
import numpy as np

from .lm_kernels import score_word

SIL_CLASS = 40

# Columns of `Beam.links`.
NODE, CONTEXT, HISTORY, RECORD, START, LAST = range(6)
# Columns of `Beam.scores`.
BLANK, LABEL, LM, TOTAL, BEST_PART = range(5)
# Columns of `Histories.links` and `Histories.scores`.
PARENT, WORD, STATE = range(3)
RAW, WEIGHTED = range(2)
# Entries of `Histories.counts`.
NUM_HISTORIES, NUM_RECORDS, NUM_FRAMES = range(3)
# Why the search stopped.
DONE, MORE_HYPOTHESES, MORE_HISTORIES, MORE_RECORDS = range(4)


class SearchSettings(NamedTuple):
    """Numbers that the compiled search needs.

    Args:
        beam_size (`int`): how many hypotheses survive a frame.
        beam_threshold (`float`): how far below the best a hypothesis may be, in natural-log units.
        lm_weight (`float`): factor on language-model scores.
        word_score (`float`): added for every word.
        unknown_word_score (`float`): added for words that the language model does not know.
        missing_sil_score (`float`): added when a word is not followed by SIL; -inf forbids it.
        log_add (`bool`): merge alignments by log-add rather than by maximum.
        recombine (`bool`): of hypotheses that differ only in words the language model no longer sees, keep the best.
        eos (`int`): word index of `</s>`, -1 without a language model.
        unk (`int`): word index of `<unk>`.
    """

    beam_size: int
    beam_threshold: float
    lm_weight: float
    word_score: float
    unknown_word_score: float
    missing_sil_score: float
    log_add: bool
    recombine: bool
    eos: int
    unk: int


class Beam(NamedTuple):
    """Hypotheses; those of one frame together with `Histories` are the whole state of a search.

    Args:
        links (`np.ndarray` of shape `(N, 6)`, int32): trie node, context, history, last entry in the table of word
            ends, first frame of the word in progress, last frame of the last phoneme.
        scores (`np.ndarray` of shape `(N, 5)`, float64): acoustic score of alignments that end in a blank; of those
            that end in the label; language-model part with look-ahead; sum of all; and the best single contribution.
    """

    links: np.ndarray
    scores: np.ndarray


class Histories(NamedTuple):
    """Every sequence of words that was tried, as a tree whose entry 0 is the empty one, and the times of word ends.

    Args:
        links (`np.ndarray` of shape `(H, 3)`, int32): history without its last word, last word, language-model state.
        scores (`np.ndarray` of shape `(H, 2)`, float64): natural-log language-model score, and the same weighted
            and with word scores.
        table (`np.ndarray` of shape `(S,)`, int32): open-addressing hash table over (parent, word).
        records (`np.ndarray` of shape `(R, 4)`, int32): word ends: previous record, word, first and last frame.
        counts (`np.ndarray` of shape `(3,)`, int64): used histories, used records, frames so far.
    """

    links: np.ndarray
    scores: np.ndarray
    table: np.ndarray
    records: np.ndarray
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
def count_bits(bits):
    """Number of set bits of an unsigned 64-bit number."""
    bits = bits - ((bits >> np.uint64(1)) & np.uint64(0x5555555555555555))
    bits = (bits & np.uint64(0x3333333333333333)) + ((bits >> np.uint64(2)) & np.uint64(0x3333333333333333))
    bits = (bits + (bits >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((bits * np.uint64(0x0101010101010101)) >> np.uint64(56))


@numba.njit(nogil=True, cache=True)
def hash_pair(a, b):
    """Hash of two non-negative 32-bit numbers."""
    value = (np.uint64(a) << np.uint64(32)) | np.uint64(b)
    value *= np.uint64(0x9E3779B97F4A7C15)
    return value ^ (value >> np.uint64(32))


@numba.njit(nogil=True, cache=True)
def fill_history_table(links, table, count):
    """Enter the first `count` histories into an empty hash table."""
    mask = np.uint64(len(table) - 1)
    for entry in range(1, count):
        slot = np.int64(hash_pair(links[entry, PARENT], links[entry, WORD]) & mask)
        while table[slot] >= 0:
            slot = np.int64(np.uint64(slot + 1) & mask)
        table[slot] = entry


@numba.njit(nogil=True, cache=True)
def _longer_history(histories, lm, word_ids, settings, parent, word):
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
    score, state, extra = np.float64(0.0), np.int64(0), settings.word_score
    if settings.eos >= 0:
        lm_word = np.int64(word_ids[word])
        score, state = score_word(lm, np.int64(links[parent, STATE]), lm_word)
        if lm_word == settings.unk:
            extra += settings.unknown_word_score
    links[entry, PARENT], links[entry, WORD], links[entry, STATE] = parent, word, state
    scores[entry, RAW] = scores[parent, RAW] + score
    scores[entry, WEIGHTED] = scores[parent, WEIGHTED] + settings.lm_weight * score + extra
    return entry


@numba.njit(nogil=True, cache=True)
def _add_record(histories, previous, word, start, end):
    record = histories.counts[NUM_RECORDS]
    histories.counts[NUM_RECORDS] = record + 1
    row = histories.records[record]
    row[0], row[1], row[2], row[3] = previous, word, start, end
    return record


@numba.njit(nogil=True, cache=True)
def _add(new, count, table, stamps, stamp, log_add, node, context, history, record, start, last, blank, label, lm):
    """Add alignments to the hypothesis (node, context), which is made when it is new. Returns how many there are."""
    links, scores = new.links, new.scores
    mask = np.uint64(len(table) - 1)
    slot = np.int64(hash_pair(node, context) & mask)
    while stamps[slot] == stamp:
        i = table[slot]
        if links[i, NODE] == node and links[i, CONTEXT] == context:
            break
        slot = np.int64(np.uint64(slot + 1) & mask)
    part = max(blank, label)
    fresh = stamps[slot] != stamp
    if fresh:
        stamps[slot] = stamp
        table[slot] = count
        i = np.int32(count)
        count += 1
    else:
        i = table[slot]
        if links[i, HISTORY] == history:
            scores[i, BLANK] = combine(scores[i, BLANK], blank, log_add)
            scores[i, LABEL] = combine(scores[i, LABEL], label, log_add)
        else:
            # Another history leads to the same context: the better one stays.
            if combine(blank, label, log_add) + lm <= (
                combine(scores[i, BLANK], scores[i, LABEL], log_add) + scores[i, LM]
            ):
                return count
            fresh = True
    if fresh:
        links[i, NODE], links[i, CONTEXT], links[i, HISTORY] = node, context, history
        scores[i, BLANK], scores[i, LABEL], scores[i, LM] = blank, label, lm
    if fresh or part > scores[i, BEST_PART]:
        scores[i, BEST_PART] = part
        links[i, RECORD], links[i, START], links[i, LAST] = record, start, last
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
def advance(
    log_probs, skip, first_frame, trie, look_ahead, lm, word_ids, settings, old, num_old, new, table, stamps, ranks,
    histories,
):  # fmt: skip
    """Advance a search over frames, in place.

    Args:
        log_probs (`np.ndarray` of shape `(T, 41)`, float32): scaled scores in model class order.
        skip (`np.ndarray` of shape `(T,)`, bool): frames that are nearly certain blanks: nothing is extended there.
        first_frame (`int`): row of `log_probs` to begin with.
        trie (`TrieArrays`): the lexicon.
        look_ahead (`np.ndarray` of shape `(nodes,)`, float64): weighted score of the best word below each node.
        lm (`LMArrays`): the language model.
        word_ids (`np.ndarray` of shape `(words,)`, int32): language-model index of each lexicon word; -1 forbids it.
        settings (`SearchSettings`): see there.
        old (`Beam`): the living hypotheses.
        num_old (`int`): how many there are.
        new (`Beam`): room for the next ones.
        table (`np.ndarray` of shape `(power of two,)`, int32): hash table over the next hypotheses.
        stamps (`np.ndarray`, int64): when each entry of the table was made; one more element holds the time.
        ranks (`np.ndarray` of shape `(room,)`, float64): scratch.
        histories (`Histories`): word histories.

    Returns:
        `(int, int, int)`: why it stopped, at which row of `log_probs`, and how many hypotheses live.
    """
    threshold, log_add, recombine = settings.beam_threshold, settings.log_add, settings.recombine
    missing_sil = settings.missing_sil_score
    capacity = len(ranks)
    num_classes = log_probs.shape[1]
    candidates = np.empty(num_classes, dtype=np.int64)
    root_children, root_first, root_ahead = trie.children[0], np.int64(trie.first_child[0]), look_ahead[0]

    for t in range(first_frame, len(log_probs)):
        row = log_probs[t]
        frame = histories.counts[NUM_FRAMES]
        if skip[t]:
            for i in range(num_old):
                node = old.links[i, NODE]
                total = combine(old.scores[i, BLANK], old.scores[i, LABEL], log_add)
                stay = -np.inf
                if node == 1:
                    stay = total + row[SIL_CLASS]
                elif node > 1:
                    stay = old.scores[i, LABEL] + row[trie.label[node]]
                old.scores[i, BLANK] = total + row[0]
                old.scores[i, LABEL] = stay
                old.scores[i, TOTAL] = combine(total + row[0], stay, log_add) + old.scores[i, LM]
            histories.counts[NUM_FRAMES] = frame + 1
            continue

        # The phonemes of this frame, most probable first; and the best hypothesis, which goes first, so that the
        # threshold is tight from the start.
        num_candidates = 0
        for c in range(1, num_classes):
            if c != SIL_CLASS and row[c] > -np.inf:
                j = num_candidates
                while j > 0 and row[candidates[j - 1]] < row[c]:
                    candidates[j] = candidates[j - 1]
                    j -= 1
                candidates[j] = c
                num_candidates += 1
        first = 0
        num_words = 0
        for i in range(num_old):
            if old.scores[i, TOTAL] > old.scores[first, TOTAL]:
                first = i
            node = old.links[i, NODE]
            num_words += trie.here[node] - trie.begin[node]
        if histories.counts[NUM_HISTORIES] + num_words > len(histories.links):
            return MORE_HISTORIES, t, num_old
        if histories.counts[NUM_RECORDS] + num_words > len(histories.records):
            return MORE_RECORDS, t, num_old

        stamp = stamps[len(table)] + 1
        stamps[len(table)] = stamp
        count = 0
        cutoff = -np.inf
        for step in range(num_old):
            i = step
            if step == 0:
                i = first
            elif step == first:
                i = 0
            node, context, history = (
                np.int64(old.links[i, NODE]),
                old.links[i, CONTEXT],
                np.int64(old.links[i, HISTORY]),
            )
            record, start, last = (
                np.int64(old.links[i, RECORD]),
                np.int64(old.links[i, START]),
                np.int64(old.links[i, LAST]),
            )
            label = np.int64(trie.label[node])
            own_lm = old.scores[i, LM]
            total = old.scores[i, TOTAL] - own_lm
            after_blank = old.scores[i, BLANK]
            word_low, word_high = trie.begin[node], trie.here[node]
            if count + 2 + num_candidates + (word_high - word_low) * (1 + num_candidates) > capacity:
                return MORE_HYPOTHESES, t, num_old

            # Stay: a blank, or the same label again.
            blank = total + row[0]
            stay = -np.inf
            if node == 1:
                stay = total + row[SIL_CLASS]
            elif node > 1:
                stay = old.scores[i, LABEL] + row[label]
            rank = max(blank, stay) + own_lm
            if rank >= cutoff and rank > -np.inf:
                cutoff = max(cutoff, rank - threshold)
                end = frame if node > 1 and stay >= blank else last
                count = _add(
                    new, count, table, stamps, stamp, log_add,
                    node, context, history, record, start, end, blank, stay, own_lm,
                )  # fmt: skip

            # Further into the word.
            children = trie.children[node]
            for k in range(num_candidates):
                c = candidates[k]
                if total + row[c] + own_lm < cutoff:
                    break
                bit = np.uint64(1) << np.uint64(c)
                if children & bit == 0:
                    continue
                mass = (after_blank if c == label else total) + row[c]
                child = trie.first_child[node] + count_bits(children & (bit - np.uint64(1)))
                child_lm = own_lm - look_ahead[node] + look_ahead[child]
                rank = mass + child_lm
                if rank < cutoff or rank == -np.inf:
                    continue
                cutoff = max(cutoff, rank - threshold)
                count = _add(
                    new, count, table, stamps, stamp, log_add,
                    child, context, history, record, start if node > 1 else frame, frame, -np.inf, mass, child_lm,
                )  # fmt: skip

            # A silence before the first word.
            sil = total + row[SIL_CLASS]
            with_sil = sil + own_lm >= cutoff and sil > -np.inf
            if node == 0 and with_sil:
                cutoff = max(cutoff, sil + own_lm - threshold)
                count = _add(
                    new, count, table, stamps, stamp, log_add,
                    np.int64(1), context, history, record, start, last, -np.inf, sil, own_lm,
                )  # fmt: skip

            # The word ends: with SIL, or at a price with the first phoneme of the next word.
            if word_low == word_high:
                continue
            without = total + missing_sil
            without_sil = without > -np.inf and num_candidates > 0 and without + row[candidates[0]] + own_lm >= cutoff
            if not with_sil and not without_sil:
                continue
            for w in range(word_low, word_high):
                word = np.int64(trie.words[w])
                if word_ids[word] < 0:
                    continue
                longer = _longer_history(histories, lm, word_ids, settings, history, word)
                base = histories.scores[longer, WEIGHTED]
                following = histories.links[longer, STATE] if recombine else np.int32(longer)
                end_record = np.int64(-1)
                if with_sil and sil + base + root_ahead >= cutoff:
                    cutoff = max(cutoff, sil + base + root_ahead - threshold)
                    end_record = _add_record(histories, record, word, start, last)
                    count = _add(
                        new, count, table, stamps, stamp, log_add,
                        np.int64(1), following, longer, end_record, np.int64(-1), np.int64(-1), -np.inf, sil,
                        base + root_ahead,
                    )  # fmt: skip
                if not without_sil:
                    continue
                for k in range(num_candidates):
                    c = candidates[k]
                    if without + row[c] + base + root_ahead < cutoff:
                        break
                    bit = np.uint64(1) << np.uint64(c)
                    if root_children & bit == 0:
                        continue
                    mass = (after_blank if c == label else total) + row[c] + missing_sil
                    child = root_first + count_bits(root_children & (bit - np.uint64(1)))
                    child_lm = base + look_ahead[child]
                    rank = mass + child_lm
                    if rank < cutoff or rank == -np.inf:
                        continue
                    cutoff = max(cutoff, rank - threshold)
                    if end_record < 0:
                        end_record = _add_record(histories, record, word, start, last)
                    count = _add(
                        new, count, table, stamps, stamp, log_add,
                        child, following, longer, end_record, frame, frame, -np.inf, mass, child_lm,
                    )  # fmt: skip

        # Keep the best.
        best = -np.inf
        for i in range(count):
            total = combine(new.scores[i, BLANK], new.scores[i, LABEL], log_add) + new.scores[i, LM]
            new.scores[i, TOTAL] = total
            best = max(best, total)
        cutoff = best - threshold
        num_ranks = 0
        for i in range(count):
            if new.scores[i, TOTAL] >= cutoff:
                ranks[num_ranks] = new.scores[i, TOTAL]
                num_ranks += 1
        if num_ranks > settings.beam_size:
            cutoff = _kth_largest(ranks, num_ranks, settings.beam_size)
        num_old = 0
        for i in range(count):
            if new.scores[i, TOTAL] >= cutoff and num_old < settings.beam_size:
                for j in range(6):
                    old.links[num_old, j] = new.links[i, j]
                for j in range(5):
                    old.scores[num_old, j] = new.scores[i, j]
                num_old += 1
        histories.counts[NUM_FRAMES] = frame + 1
    return DONE, len(log_probs), num_old


@numba.njit(nogil=True, cache=True)
def finish(trie, lm, word_ids, settings, beam, num_old, histories, place, ends):
    """Complete the hypotheses: the last word where its SIL is missing, and the end of the sentence.

    Args:
        trie (`TrieArrays`): the lexicon.
        lm (`LMArrays`): the language model.
        word_ids (`np.ndarray` of shape `(words,)`, int32): language-model index of each lexicon word; -1 forbids it.
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
    for i in range(num_old):
        node = np.int64(beam.links[i, NODE])
        total = combine(beam.scores[i, BLANK], beam.scores[i, LABEL], settings.log_add)
        low, high = trie.begin[node], trie.here[node]
        for option in range(1 if node <= 1 else high - low):
            history, record, mass = np.int64(beam.links[i, HISTORY]), np.int64(beam.links[i, RECORD]), total
            if node > 1:
                word = np.int64(trie.words[low + option])
                mass = total + settings.missing_sil_score
                if word_ids[word] < 0 or mass == -np.inf:
                    continue
                history = _longer_history(histories, lm, word_ids, settings, history, word)
                record = _add_record(histories, record, word, beam.links[i, START], beam.links[i, LAST])
            j = place[history]
            if j < 0:
                j = np.int32(count)
                place[history] = j
                ends.links[j, HISTORY] = history
                ends.scores[j, BLANK] = mass
                ends.scores[j, BEST_PART] = -np.inf
                count += 1
            else:
                ends.scores[j, BLANK] = combine(ends.scores[j, BLANK], mass, settings.log_add)
            if mass > ends.scores[j, BEST_PART]:
                ends.scores[j, BEST_PART] = mass
                ends.links[j, RECORD] = record
    for j in range(count):
        history = np.int64(ends.links[j, HISTORY])
        end = np.float64(0.0)
        if settings.eos >= 0:
            end, _ = score_word(lm, np.int64(histories.links[history, STATE]), np.int64(settings.eos))
        ends.scores[j, LM] = histories.scores[history, RAW] + end
        ends.scores[j, TOTAL] = ends.scores[j, BLANK] + histories.scores[history, WEIGHTED] + settings.lm_weight * end
    return count


@numba.njit(nogil=True, cache=True)
def fill_look_ahead(trie, word_scores, look_ahead):
    """Best score of the words at or below each node, in place. Children have higher indices than their parents."""
    for node in range(len(look_ahead) - 1, -1, -1):
        best = -np.inf
        for w in range(trie.begin[node], trie.here[node]):
            best = max(best, word_scores[trie.words[w]])
        low = trie.first_child[node]
        for child in range(low, low + count_bits(trie.children[node])):
            best = max(best, look_ahead[child])
        look_ahead[node] = best
