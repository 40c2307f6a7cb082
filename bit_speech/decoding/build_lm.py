"""Build n-gram language models from text: interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import numpy as np

from .arpa import ArpaTables
from .language_model import NGramLM, pack_ngrams

_SPECIAL = ("<unk>", "<s>", "</s>")
_UNK, _BOS, _EOS = range(3)
# lmplz's --discount_fallback, for corpora too small to estimate discounts.
_FALLBACK_DISCOUNTS = (0.5, 1.0, 1.5)
_LOG10_ZERO = -99.0


def build_ngram_lm(
    sentences: Iterable[str],
    order: int = 3,
    *,
    min_counts: Sequence[int] | None = None,
    vocabulary: Iterable[str] | None = None,
    max_words: int | None = None,
) -> NGramLM:
    """Estimate an interpolated modified Kneser-Ney model.

    Args:
        sentences (iterable of `str`): words separated by white space, already normalised; empty sentences are skipped.
        order (`int`): length of the longest n-grams, 1 to 6.
        min_counts (sequence of `int`, optional): for each order, how often an n-gram must occur to be kept; 1 keeps
            all. The first must be 1 (limit the vocabulary instead), and the list may not decrease. The probability of
            what is dropped goes to the backoff, so every context still sums to one.
        vocabulary (iterable of `str`, optional): the words of the model; others become `<unk>`. Words that never occur
            get the probability of an unseen word.
        max_words (`int`, optional): keep only this many of the most frequent words; others become `<unk>`.

    Returns:
        `NGramLM`: the model; `write_arpa` and `save` write it.

    Raises:
        ValueError: when there is no text or a setting makes no sense.

    Note:
        Chen and Goodman (1998), with the conventions of KenLM's lmplz (Heafield et al. 2013): lower orders count
        distinct left neighbours, except after `<s>`; the unigrams are interpolated with the uniform distribution over
        the vocabulary, `<unk>` and `</s>`. Where the counts of counts do not allow an estimate, the discounts are
        0.5, 1 and 1.5.

    Example:
        >>> lm = build_ngram_lm(["we were here", "we were there"], order=2)
        >>> round(lm.perplexity(["we were here"]), 2) < 3
        True
    """
    if not 1 <= order <= 6:
        raise ValueError(f"order is {order}; expected 1 to 6.")
    thresholds = [1] * order if min_counts is None else [int(count) for count in min_counts]
    if len(thresholds) != order or thresholds[0] != 1 or sorted(thresholds) != thresholds:
        raise ValueError(
            f"min_counts is {list(thresholds)}; expected {order} numbers that begin with 1 and never decrease."
        )
    if max_words is not None and max_words < 1:
        raise ValueError(f"max_words is {max_words}; expected at least 1.")
    words, tokens, remaining = _tokens(sentences, vocabulary, max_words)
    ids, ngrams, counts = _count(tokens, remaining, order, len(words))
    adjusted = _adjust(ids, ngrams, counts)
    tables = _estimate(ngrams, counts, adjusted, thresholds, words)
    return pack_ngrams(tables)


def _tokens(
    sentences: Iterable[str], vocabulary: Iterable[str] | None, max_words: int | None
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Words of the model, word index of every token with boundaries, how many tokens its sentence has left."""
    index: dict[str, int] = {}
    stream: list[int] = []
    lengths: list[int] = []
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise ValueError(f"A sentence is {sentence!r}; expected text.")
        parts = sentence.split()
        if parts:
            stream.extend([index.setdefault(word, len(index)) for word in parts])
            lengths.append(len(parts))
    if not lengths:
        raise ValueError("No text to build a language model from: every sentence is empty.")
    found = list(index)
    occurrences = np.bincount(np.array(stream, dtype=np.int64), minlength=len(found))
    if vocabulary is None:
        wanted = [word for word in found if word not in _SPECIAL]
    else:
        wanted = [word for word in dict.fromkeys(vocabulary) if word not in _SPECIAL]
        bad = [word for word in wanted if not word or word.split() != [word]]
        if bad:
            raise ValueError(f"The vocabulary holds {bad[0]!r}; words must be non-empty and free of spaces.")
    if max_words is not None and len(wanted) > max_words:
        frequency = Counter({word: int(occurrences[index[word]]) if word in index else 0 for word in wanted})
        wanted = [word for word, _ in frequency.most_common(max_words)]
    words = [*_SPECIAL, *wanted]
    place = {word: i for i, word in enumerate(words)}
    # Text that spells out a boundary or <unk> must not count as one.
    recode = np.array([_UNK if word in _SPECIAL else place.get(word, _UNK) for word in found], dtype=np.int64)
    sizes = np.array(lengths, dtype=np.int64) + 2
    ends = np.cumsum(sizes)
    tokens = np.empty(int(ends[-1]), dtype=np.int64)
    inside = np.ones(len(tokens), dtype=bool)
    inside[ends - 1] = inside[ends - sizes] = False
    tokens[ends - sizes] = _BOS
    tokens[ends - 1] = _EOS
    tokens[inside] = recode[np.array(stream, dtype=np.int64)]
    remaining = np.repeat(ends, sizes) - np.arange(len(tokens))
    return words, tokens, remaining


def _count(
    tokens: np.ndarray, remaining: np.ndarray, order: int, num_words: int
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    """For each order: n-gram index at every position (-1 over the end), the distinct n-grams, their counts."""
    ids = [tokens]
    ngrams = [np.arange(num_words)[:, None]]
    counts = [np.bincount(tokens, minlength=num_words)]
    for k in range(2, order + 1):
        begins = np.flatnonzero(remaining >= k)
        keys = ids[-1][begins] * num_words + tokens[begins + k - 1]
        distinct, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
        here = np.full(len(tokens), -1, dtype=np.int64)
        here[begins] = inverse
        previous = ngrams[-1][distinct // num_words]
        ngrams.append(np.hstack([previous, (distinct % num_words)[:, None]]))
        counts.append(count)
        ids.append(here)
    return ids, ngrams, counts


def _adjust(ids: list[np.ndarray], ngrams: list[np.ndarray], counts: list[np.ndarray]) -> list[np.ndarray]:
    """Kneser-Ney counts: below the highest order, how many distinct words come before; raw after `<s>`."""
    adjusted = []
    for k in range(len(counts) - 1):
        longer = ids[k + 1]
        begins = np.flatnonzero(longer >= 0)
        suffix = np.zeros(len(counts[k + 1]), dtype=np.int64)
        suffix[longer[begins]] = ids[k][begins + 1]
        distinct = np.bincount(suffix, minlength=len(counts[k]))
        adjusted.append(np.where(ngrams[k][:, 0] == _BOS, counts[k], distinct))
    adjusted.append(counts[-1].copy())
    adjusted[0][_BOS] = 0  # never predicted
    return adjusted


def _discounts(counts: np.ndarray) -> np.ndarray:
    """Discount for counts 0, 1, 2 and at least 3."""
    n1, n2, n3, n4 = (float((counts == value).sum()) for value in (1, 2, 3, 4))
    if min(n1, n2, n3) > 0:
        y = n1 / (n1 + 2 * n2)
        found = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
        if (found > 0).all() and (found <= [1, 2, 3]).all():
            return np.concatenate([[0.0], found])
    return np.array([0.0, *_FALLBACK_DISCOUNTS])


def _estimate(
    ngrams: list[np.ndarray],
    counts: list[np.ndarray],
    adjusted: list[np.ndarray],
    thresholds: list[int],
    words: list[str],
) -> ArpaTables:
    order, num_words = len(ngrams), len(words)
    probs: list[np.ndarray] = []
    gammas: list[np.ndarray] = []  # weight of the lower order, for each context of this order
    keeps: list[np.ndarray] = []
    for k in range(order):
        count = adjusted[k]
        keep = counts[k] >= thresholds[k] if k else np.ones(num_words, dtype=bool)
        if k == 0:
            context = np.zeros(num_words, dtype=np.int64)
            num_contexts = 1
        else:
            context = _rows_of(ngrams[k][:, :-1], ngrams[k - 1], num_words)
            num_contexts = len(ngrams[k - 1])
            keep &= keeps[k - 1][context]
        discounts = _discounts(count[count > 0])
        total = np.bincount(context, weights=count, minlength=num_contexts)
        share = (count - discounts[np.minimum(count, 3)]) / np.maximum(total[context], 1)
        kept = np.bincount(context, weights=np.where(keep, share, 0.0), minlength=num_contexts)
        gamma = np.where(total > 0, np.clip(1.0 - kept, 0.0, 1.0), 1.0)
        if k == 0:
            lower: np.ndarray | float = 1.0 / (num_words - 1)  # every word but <s>
        else:
            lower = probs[k - 1][_rows_of(ngrams[k][:, 1:], ngrams[k - 1], num_words)]
        probs.append(share + gamma[context] * lower)
        gammas.append(gamma)
        keeps.append(keep)
    probs[0][_BOS] = 0.0

    blob = [word.encode() for word in words]
    offsets = np.concatenate([[0], np.cumsum([len(word) for word in blob])]).astype(np.int64)
    tables = ArpaTables(np.frombuffer(b"".join(blob), dtype=np.uint8), offsets, [], [], [])
    for k in range(order):
        keep = keeps[k]
        with np.errstate(divide="ignore"):
            tables.ngrams.append(ngrams[k][keep].astype(np.int32))
            tables.log10_probs.append(np.maximum(np.log10(probs[k][keep]), _LOG10_ZERO))
            backoff = np.log10(gammas[k + 1])[keep] if k + 1 < order else np.zeros(int(keep.sum()))
            tables.log10_backoffs.append(np.maximum(backoff, _LOG10_ZERO))
    return tables


def _rows_of(wanted: np.ndarray, table: np.ndarray, num_words: int) -> np.ndarray:
    """Row of each wanted n-gram in a table of n-grams that is sorted; all of them are there."""
    key = wanted[:, 0].copy()
    table_key = table[:, 0].copy()
    for column in range(1, table.shape[1]):
        # Keys stay small, so that any order fits into 64 bits.
        distinct, table_ids = np.unique(table_key * num_words + table[:, column], return_inverse=True)
        key = np.searchsorted(distinct, key * num_words + wanted[:, column])
        table_key = table_ids
    return np.searchsorted(table_key, key)
