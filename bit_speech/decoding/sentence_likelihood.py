"""How likely a CTC model finds a sentence: the sum over all its pronunciations, silences and alignments."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

import numba
import numpy as np
import numpy.typing as npt

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, SIL_TOKEN

from .greedy import check_log_probs
from .lexicon import Lexicon

_SIL = MODEL_ORDER.index(SIL_TOKEN)
_Pronunciation = tuple[tuple[int, ...], float]


class SentenceLikelihood:
    """Natural-log likelihood of whole sentences under the frames of a CTC model.

    Args:
        lexicon (`Lexicon`): pronunciations of the words; the scores of alternatives count as in the beam search.
        missing_sil_score (`float`): natural log of the price of no SIL after a word; `-inf` forbids it.
        extra_sil_score (`float`): natural log of the price of a SIL before the first word; `-inf` forbids it.
        pronounce (callable, *optional*): gives the pronunciations of a word that the lexicon lacks, as strings of
            phonemes (`"HH AY"`); none for a word that cannot be pronounced.

    Raises:
        ValueError: when a score is above zero or NaN.

    Note:
        Graves et al. 2006 (doi:10.1145/1143844.1143891) sum over the alignments of one label sequence. Here labels form
        a graph (words, alternatives, optional SIL), and the same recursion runs over its arcs: exact, nothing pruned.
        The decoder's search prunes, scales its frames and chooses the words; this answers for given words.

    Example:
        >>> likelihood = SentenceLikelihood(Lexicon.from_words({"hi": "HH AY", "high": "HH AY", "he": "HH IY"}))
        >>> log_probs = np.log(np.eye(41)[[16, 6, 40]] * 0.9 + 0.1 / 41)
        >>> scores = likelihood.score(log_probs, ["hi", "high", "he", "hum"])
        >>> bool(scores[0] == scores[1] > scores[2]), float(scores[3])
        (True, -inf)
    """

    def __init__(
        self,
        lexicon: Lexicon,
        *,
        missing_sil_score: float = -4.0,
        extra_sil_score: float = -4.0,
        pronounce: Callable[[str], Iterable[str]] | None = None,
    ) -> None:
        for name, value in (("missing_sil_score", missing_sil_score), ("extra_sil_score", extra_sil_score)):
            if math.isnan(value) or value > 0:
                raise ValueError(f"{name} is {value}; expected zero or less (-inf forbids).")
        self.lexicon = lexicon
        self.missing_sil_score = float(missing_sil_score)
        self.extra_sil_score = float(extra_sil_score)
        self.pronounce = pronounce
        self._known: dict[str, list[_Pronunciation]] = {}
        for word, code, score in lexicon._coded():
            self._known.setdefault(word, []).append((tuple(code), score))

    def score(self, log_probs: npt.ArrayLike, sentences: Sequence[str]) -> np.ndarray:
        """Score sentences for one recording.

        Args:
            log_probs (`np.ndarray` of shape `(T, 41)`): natural-log probabilities in model class order.
            sentences (sequence of `str`): words separated by spaces; the empty sentence is silence.

        Returns:
            `np.ndarray` of shape `(len(sentences),)`: float64; `-inf` where a word has no pronunciation or the frames
            are too few.

        Raises:
            ValueError: when the frames are no log-probabilities, or `sentences` is one string.
        """
        if isinstance(sentences, str):
            raise ValueError(f"sentences is one string, {sentences[:60]!r}; give a list of sentences.")
        frames = np.ascontiguousarray(check_log_probs(log_probs, len(MODEL_ORDER), "log_probs"), dtype=np.float64)
        return np.array([self._score(frames, sentence) for sentence in sentences])

    def _score(self, frames: np.ndarray, sentence: str) -> float:
        graph = self._graph(sentence.split())
        return -math.inf if graph is None else float(_forward(frames, *graph))

    def _pronunciations(self, word: str) -> list[_Pronunciation]:
        if word not in self._known:
            found = list(self.pronounce(word)) if self.pronounce is not None else []
            more = Lexicon.from_words({word: found}) if found else None
            self._known[word] = [] if more is None else [(tuple(code), score) for _, code, score in more._coded()]
        return self._known[word]

    def _graph(self, words: Sequence[str]) -> tuple[np.ndarray, ...] | None:
        """Labels, the arcs between them in the order of their ends, and the arcs to the end of the sentence.

        Node 0 is the silence before anything; its label is the blank.
        """
        labels, sources, targets, scores = [0], [], [], []

        def add(label: int, before: list[tuple[int, float]]) -> int:
            labels.append(label)
            for source, score in before:
                if score > -math.inf:
                    sources.append(source)
                    targets.append(len(labels) - 1)
                    scores.append(score)
            return len(labels) - 1

        ways = [(0, 0.0), (add(_SIL, [(0, self.extra_sil_score)]), 0.0)]
        for word in words:
            pronunciations = self._pronunciations(word)
            if not pronunciations:
                return None
            ends = []
            for phonemes, score in pronunciations:
                node = add(phonemes[0], [(source, before + score) for source, before in ways])
                for label in phonemes[1:]:
                    node = add(label, [(node, 0.0)])
                ends.append(node)
            silence = add(_SIL, [(node, 0.0) for node in ends])
            ways = [(silence, 0.0), *((node, self.missing_sil_score) for node in ends)]
        last, price = zip(*ways)
        whole, real = np.int64, np.float64
        return (
            np.array(labels, whole), np.array(sources, whole), np.array(targets, whole), np.array(scores, real),
            np.array(last, whole), np.array(price, real),
        )  # fmt: skip


@numba.njit(nogil=True, cache=True)
def _log_add(a, b):
    if a < b:
        a, b = b, a
    return a if b == -np.inf else a + math.log1p(math.exp(b - a))


@numba.njit(nogil=True, cache=True)
def _forward(frames, labels, sources, targets, scores, last, price):
    """Sum over all paths; every node has a state that emits its label and one that emits blanks after it."""
    label_sum = np.full(len(labels), -np.inf)
    blank_sum = np.full(len(labels), -np.inf)
    blank_sum[0] = 0.0
    entering = np.empty(len(labels))
    for frame in frames:
        entering[:] = label_sum
        for arc in range(len(sources)):
            source, target = sources[arc], targets[arc]
            reached = blank_sum[source]
            if labels[source] != labels[target]:
                reached = _log_add(reached, label_sum[source])
            entering[target] = _log_add(entering[target], reached + scores[arc])
        for node in range(len(labels)):
            blank_sum[node] = _log_add(blank_sum[node], label_sum[node]) + frame[0]
            label_sum[node] = entering[node] + frame[labels[node]]
        label_sum[0] = -np.inf
    total = -np.inf
    for way in range(len(last)):
        total = _log_add(total, _log_add(label_sum[last[way]], blank_sum[last[way]]) + price[way])
    return total
