"""Compiled housekeeping of the beam search: what is agreed, what can be forgotten."""

from __future__ import annotations

import numba
import numpy as np

from .beam_kernels import (
    CONTEXT,
    HISTORY,
    JOIN,
    NUM_HISTORIES,
    NUM_RECORDS,
    OTHER,
    PARENT,
    PREVIOUS,
    RECORD,
    RECORD_WORD,
    TOTAL,
    WORD,
    hash_pair,
)

# More words than this are not kept open, even when hypotheses disagree on them.
MOST_OPEN_WORDS = 512


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
def best_hypothesis(beam, num):
    """Index of the best living hypothesis."""
    best = 0
    for i in range(1, num):
        if beam.scores[i, TOTAL] > beam.scores[best, TOTAL]:
            best = i
    return best


@numba.njit(nogil=True, cache=True)
def common_history(beam, num, histories):
    """Longest history that all living hypotheses begin with. Histories come after those that they extend."""
    links = histories.links
    common = np.int64(beam.links[0, HISTORY])
    for i in range(1, num):
        other = np.int64(beam.links[i, HISTORY])
        while other != common:
            if other > common:
                other = np.int64(links[other, PARENT])
            else:
                common = np.int64(links[common, PARENT])
    return common


@numba.njit(nogil=True, cache=True)
def count_words(histories, history):
    """Number of words of a history that are still in the table."""
    count = 0
    while history > 0:
        history = np.int64(histories.links[history, PARENT])
        count += 1
    return count


@numba.njit(nogil=True, cache=True)
def word_records(histories, record):
    """The records of words that lead to a record, first word first; of what was joined, the one that stayed."""
    records = histories.records
    count, here = 0, record
    while here >= 0:
        count += records[here, RECORD_WORD] != JOIN
        here = np.int64(records[here, PREVIOUS])
    found = np.empty(count, dtype=np.int64)
    while record >= 0:
        if records[record, RECORD_WORD] != JOIN:
            count -= 1
            found[count] = record
        record = np.int64(records[record, PREVIOUS])
    return found


@numba.njit(nogil=True, cache=True)
def drop_stragglers(beam, num, histories):
    """When too many words are open, keep only hypotheses that agree with the best on the older half of them."""
    history = np.int64(beam.links[best_hypothesis(beam, num), HISTORY])
    if count_words(histories, history) <= MOST_OPEN_WORDS:
        return num
    for _ in range(MOST_OPEN_WORDS // 2):
        history = np.int64(histories.links[history, PARENT])
    kept = 0
    for i in range(num):
        other = np.int64(beam.links[i, HISTORY])
        while other > history:
            other = np.int64(histories.links[other, PARENT])
        if other == history:
            beam.links[kept] = beam.links[i]
            beam.scores[kept] = beam.scores[i]
            kept += 1
    return kept


@numba.njit(nogil=True, cache=True)
def tidy(beam, num, histories, recombine, common, num_committed):
    """Forget, in place, what no living hypothesis leads to, and all that lies before the committed history.

    Args:
        beam (`Beam`): the living hypotheses; their links are renumbered.
        num (`int`): how many there are.
        histories (`Histories`): the tables.
        recombine (`bool`): whether contexts are something else than histories.
        common (`int`): history that becomes the new beginning; 0 commits nothing.
        num_committed (`int`): its number of words; their records are cut off.
    """
    links, scores = histories.links, histories.scores
    count = histories.counts[NUM_HISTORIES]
    moved = np.full(count, -1, dtype=np.int32)
    moved[common] = 0
    for i in range(num):
        history = np.int64(beam.links[i, HISTORY])
        while moved[history] < 0:
            moved[history] = 1
            history = np.int64(links[history, PARENT])
    kept = 1
    links[0] = links[common]
    scores[0] = scores[common]
    links[0, PARENT] = links[0, WORD] = -1
    for old in range(common + 1, count):
        if moved[old] == 1:
            moved[old] = kept
            links[kept] = links[old]
            links[kept, PARENT] = moved[links[old, PARENT]]
            scores[kept] = scores[old]
            kept += 1
    histories.counts[NUM_HISTORIES] = kept
    histories.table[:] = -1
    fill_history_table(links, histories.table, kept)
    for i in range(num):
        beam.links[i, HISTORY] = moved[beam.links[i, HISTORY]]
        if not recombine:
            beam.links[i, CONTEXT] = beam.links[i, HISTORY]

    # Records: those that living hypotheses lead to, less the committed words.
    records = histories.records
    count = histories.counts[NUM_RECORDS]
    moved = np.full(count, -1, dtype=np.int32)
    depth = np.zeros(count, dtype=np.int32)
    for record in range(count):
        previous = records[record, PREVIOUS]
        depth[record] = (depth[previous] if previous >= 0 else 0) + (records[record, RECORD_WORD] != JOIN)
    for i in range(num):
        if beam.links[i, RECORD] >= 0:
            moved[beam.links[i, RECORD]] = 1
    for record in range(count - 1, -1, -1):
        if moved[record] < 0:
            continue
        if depth[record] <= num_committed:
            moved[record] = -1
            continue
        if records[record, PREVIOUS] >= 0:
            moved[records[record, PREVIOUS]] = 1
        if records[record, RECORD_WORD] == JOIN and records[record, OTHER] >= 0:
            moved[records[record, OTHER]] = 1
    kept = 0
    for record in range(count):
        if moved[record] < 0:
            continue
        moved[record] = kept
        records[kept] = records[record]
        histories.record_scores[kept] = histories.record_scores[record]
        if records[kept, PREVIOUS] >= 0:
            records[kept, PREVIOUS] = moved[records[kept, PREVIOUS]]
        if records[kept, RECORD_WORD] == JOIN and records[kept, OTHER] >= 0:
            records[kept, OTHER] = moved[records[kept, OTHER]]
        kept += 1
    histories.counts[NUM_RECORDS] = kept
    for i in range(num):
        if beam.links[i, RECORD] >= 0:
            beam.links[i, RECORD] = moved[beam.links[i, RECORD]]
