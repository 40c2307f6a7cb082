"""One sentence from several: confusion networks aligned word by word, and voting on them."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from .beam_search import Hypothesis

NO_WORD = ""
_SAME = 1e-9


@dataclass(frozen=True)
class Candidate:
    """A sentence that takes part in the vote.

    Args:
        words (`tuple[str, ...]`): its words.
        weight (`float`): how much it counts, for example its share of the model's n-best probability.
        confidences (`tuple[float, ...]`, *optional*): how sure the model was of each word, 0 to 1.

    Raises:
        ValueError: when the weight is not positive, or the confidences do not fit the words.
    """

    words: tuple[str, ...]
    weight: float = 1.0
    confidences: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not (self.weight > 0 and math.isfinite(self.weight)):
            raise ValueError(f"The weight of {' '.join(self.words)!r} is {self.weight}; expected a positive number.")
        if self.confidences is not None and (
            len(self.confidences) != len(self.words) or not all(0 <= value <= 1 for value in self.confidences)
        ):
            raise ValueError(
                f"{' '.join(self.words)!r} has confidences {self.confidences}; expected one from 0 to 1 per word."
            )


@dataclass(frozen=True)
class ConfusionNetwork:
    """Slots one after the other; in each, words that exclude each other, with their shares of the vote.

    Args:
        slots (`list[dict[str, float]]`): shares by word, best first, adding up to 1; the empty word stands for none.

    Example:
        >>> network = confusion_network(["the cat sat", "a cat sat", "the cats sat down"])
        >>> network.best()
        'the cat sat'
        >>> [list(slot) for slot in network.slots]
        [['the', 'a'], ['cat', 'cats'], ['sat'], ['', 'down']]
    """

    slots: list[dict[str, float]] = field(default_factory=list)

    def best(self) -> str:
        """Take the winner of every slot.

        Returns:
            `str`: the sentence; ties were decided when the network was made.
        """
        return " ".join(word for word in (next(iter(slot)) for slot in self.slots) if word != NO_WORD)

    def sentences(self, number: int, smallest_share: float = 0.0) -> list[tuple[str, float]]:
        """List the sentences with the largest products of shares.

        Args:
            number (`int`): how many at most.
            smallest_share (`float`): words with a smaller share are left out, unless they win their slot.

        Returns:
            `list[tuple[str, float]]`: distinct sentences with the sum of the natural logarithms of their shares, best
            first. Of several ways to the same sentence the best one counts.

        Raises:
            ValueError: when `number` is less than 1.
        """
        if number < 1:
            raise ValueError(f"number is {number}; expected at least 1.")
        found: dict[str, float] = {"": 0.0}
        for slot in self.slots:
            longer: dict[str, float] = {}
            for place, (word, share) in enumerate(slot.items()):
                if share <= 0 or (place and share < smallest_share):
                    continue
                for text, score in found.items():
                    extended = f"{text} {word}".strip() if word else text
                    total = score + math.log(share)
                    if total > longer.get(extended, -math.inf):
                        longer[extended] = total
            # Slots are independent, so the best of the whole begin with the best of the beginning.
            found = dict(heapq.nsmallest(number, longer.items(), key=lambda item: -item[1]))
        return list(found.items())


def candidates_from_nbest(
    nbest_lists: Sequence[Sequence[Hypothesis]],
    model_weights: Sequence[float] | None = None,
    score_scale: float = 1.0,
    num_hypotheses: int = 10,
) -> list[Candidate]:
    """Turn n-best lists of several models into candidates.

    Args:
        nbest_lists (sequence of sequences of `Hypothesis`): one list per model, best first.
        model_weights (sequence of `float`, *optional*): how much each model counts; equally when None.
        score_scale (`float`): factor on the scores before they become shares of a list's probability: below 1 for lists
            that are too sure of their best.
        num_hypotheses (`int`): hypotheses taken from each list.

    Returns:
        `list[Candidate]`: every hypothesis with its share of its list's probability times the model's weight.

    Raises:
        ValueError: when a list is empty or the numbers of lists and weights differ.
    """
    weights = [1.0] * len(nbest_lists) if model_weights is None else list(model_weights)
    if len(weights) != len(nbest_lists):
        raise ValueError(f"{len(nbest_lists)} n-best lists but {len(weights)} model weights; give one for each.")
    candidates = []
    for number, (nbest, weight) in enumerate(zip(nbest_lists, weights, strict=True)):
        if not nbest:
            raise ValueError(f"n-best list {number} is empty; leave the model out of this sentence.")
        scores = score_scale * np.array([hypothesis.score for hypothesis in nbest[:num_hypotheses]])
        # A list whose best is impossible has nothing to weigh: its hypotheses count the same.
        shares = np.exp(scores - scores.max()) if np.isfinite(scores.max()) else np.ones(len(scores))
        for hypothesis, share in zip(nbest, shares / shares.sum()):
            if share > 0:
                candidates.append(Candidate(tuple(hypothesis.text.split()), weight * float(share)))
    return candidates


def confusion_network(
    candidates: Iterable[Candidate | str], no_word_confidence: float = 1.0, max_rounds: int = 10
) -> ConfusionNetwork:
    """Align sentences word by word and count the votes.

    Args:
        candidates (iterable of `Candidate` or `str`): the sentences, at least one. A string counts 1.
        no_word_confidence (`float`): how sure a candidate is where it has no word and others do; only of importance
            beside candidates with confidences.
        max_rounds (`int`): how often every candidate is aligned anew to all the others, at most.

    Returns:
        `ConfusionNetwork`: the slots with their shares.

    Raises:
        ValueError: when there is no candidate.

    Note:
        ROVER (Fiscus 1997, doi:10.1109/ASRU.1997.659110) aligns each system once, to what came before, at equal cost
        for every difference. Here an alignment costs the share of votes it disagrees with, is exact (dynamic
        programming) for each sentence, starts from the heaviest candidate, and is then improved: each candidate in turn
        is taken out and aligned to the others until nothing gets cheaper. A tie in a slot goes to the word rather than
        to no word, and among words to that of the candidate given first; ties between alignments prefer to match, then
        to leave the slot empty, from the end of the sentence on. So the result depends on nothing but the input.
    """
    given = [
        Candidate(tuple(candidate.split())) if isinstance(candidate, str) else candidate for candidate in candidates
    ]
    if not given:
        raise ValueError("There is no candidate to vote on; give at least one sentence.")
    # Equal sentences are one row of the alignment.
    rows: dict[tuple[str, ...], float] = {}
    for candidate in given:
        rows[candidate.words] = rows.get(candidate.words, 0.0) + candidate.weight
    order = sorted(rows, key=lambda words: -rows[words])
    aligned: list[list[str]] = []
    for number, words in enumerate(order):
        aligned = _insert(aligned, [rows[other] for other in order[:number]], list(words))
    weights = [rows[words] for words in order]
    aligned = _improve(aligned, weights, max_rounds) if len(aligned) > 2 else aligned
    places = {words: number for number, words in enumerate(order)}
    return _count(given, [aligned[places[candidate.words]] for candidate in given], no_word_confidence)


def vote(candidates: Iterable[Candidate | str], no_word_confidence: float = 1.0) -> str:
    """Let sentences vote on every word.

    Args:
        candidates (iterable of `Candidate` or `str`): see [`confusion_network`].
        no_word_confidence (`float`): see [`confusion_network`].

    Returns:
        `str`: the sentence of the winners.

    Example:
        >>> vote(["i need my glasses", "i need nine glasses", "i kneed my glasses"])
        'i need my glasses'
    """
    return confusion_network(candidates, no_word_confidence).best()


def _insert(aligned: list[list[str]], weights: list[float], words: list[str]) -> list[list[str]]:
    """Align one more sentence to the rows, which get new columns where it has a word that no column can take.

    Returns the rows with the new one last, all of equal length.
    """
    if not aligned:
        return [words]
    columns = list(zip(*aligned))
    total = sum(weights)
    shares: list[dict[str, float]] = []
    for column in columns:
        share: dict[str, float] = {}
        for cell, weight in zip(column, weights):
            share[cell] = share.get(cell, 0.0) + weight
        shares.append(share)
    empty = [total - share.get(NO_WORD, 0.0) for share in shares]
    num_columns, num_words = len(columns), len(words)
    cost = [[0.0] * (num_words + 1) for _ in range(num_columns + 1)]
    for j in range(1, num_words + 1):
        cost[0][j] = j * total
    for i in range(1, num_columns + 1):
        row, above, share, skip = cost[i], cost[i - 1], shares[i - 1], empty[i - 1]
        row[0] = above[0] + skip
        for j in range(1, num_words + 1):
            match = above[j - 1] + total - share.get(words[j - 1], 0.0)
            row[j] = min(match, above[j] + skip, row[j - 1] + total)
    cells: list[str] = []
    sources: list[int] = []  # column of every cell, -1 for a new one
    i, j = num_columns, num_words
    while i or j:
        here = cost[i][j]
        if i and j and cost[i - 1][j - 1] + total - shares[i - 1].get(words[j - 1], 0.0) <= here + _SAME:
            i, j = i - 1, j - 1
            cells.append(words[j])
            sources.append(i)
        elif i and cost[i - 1][j] + empty[i - 1] <= here + _SAME:
            i -= 1
            cells.append(NO_WORD)
            sources.append(i)
        else:
            j -= 1
            cells.append(words[j])
            sources.append(-1)
    sources.reverse()
    grown = [[NO_WORD if column < 0 else row[column] for column in sources] for row in aligned]
    return [*grown, cells[::-1]]


def _disagreement(aligned: list[list[str]], weights: list[float]) -> float:
    """Sum over columns and pairs of rows that differ of the product of their weights."""
    total, cost = sum(weights), 0.0
    for column in zip(*aligned):
        share: dict[str, float] = {}
        for cell, weight in zip(column, weights):
            share[cell] = share.get(cell, 0.0) + weight
        cost += total**2 - sum(value**2 for value in share.values())
    return cost / 2


def _improve(aligned: list[list[str]], weights: list[float], max_rounds: int) -> list[list[str]]:
    """Take out each row in turn and align it anew to the others, until nothing gets cheaper."""
    best = _disagreement(aligned, weights)
    for _ in range(max_rounds):
        before = best
        for number in range(len(aligned)):
            others = aligned[:number] + aligned[number + 1 :]
            kept = [column for column in zip(*others) if any(column)]
            others = [list(row) for row in zip(*kept)] if kept else [[] for _ in others]
            words = [cell for cell in aligned[number] if cell]
            *rest, new = _insert(others, weights[:number] + weights[number + 1 :], words)
            changed = [*rest[:number], new, *rest[number:]]
            cost = _disagreement(changed, weights)
            if cost < best - _SAME:
                aligned, best = changed, cost
        if best >= before - _SAME:
            break
    return aligned


def _count(candidates: list[Candidate], aligned: list[list[str]], no_word_confidence: float) -> ConfusionNetwork:
    """Add up the votes of every column."""
    votes: list[dict[str, float]] = [{} for _ in aligned[0]]
    for candidate, cells in zip(candidates, aligned, strict=True):
        sure = iter(candidate.confidences or [1.0] * len(candidate.words))
        for slot, cell in zip(votes, cells, strict=True):
            confidence = next(sure) if cell else no_word_confidence
            slot[cell] = slot.get(cell, 0.0) + candidate.weight * confidence
    slots = []
    for slot in votes:
        total = sum(slot.values())
        if total <= 0:
            # Nobody is sure of anything here: every candidate counts the same.
            slot, total = dict.fromkeys(slot, 1.0), float(len(slot))
        # Sorting is stable, and the dictionary holds words in the order of the candidates.
        ranked = sorted(slot, key=lambda word: (-round(slot[word] / total, 9), word == NO_WORD))
        slots.append({word: slot[word] / total for word in ranked})
    return ConfusionNetwork([slot for slot in slots if set(slot) != {NO_WORD}])
