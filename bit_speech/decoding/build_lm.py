"""Build n-gram language models from text: interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from .kneser_ney import estimate
from .language_model import NGramLM
from .lm_counts import count_ngrams
from .lm_levels import Levels
from .lm_text import (
    BOS,
    EOS,
    SPECIAL,
    UNK,
    Corpus,
    Tokenizer,
    Workspace,
    blocks_of_file,
    blocks_of_sentences,
    read_corpus,
)


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
    with Workspace() as space:
        tokenizer = Tokenizer()
        corpus = read_corpus("the sentences", blocks_of_sentences(sentences), tokenizer, space)
        words = _choose_words(tokenizer.words, [corpus], vocabulary, max_words)
        levels = _build_levels(corpus, words, tokenizer.words, order, thresholds, space, 1)
        return NGramLM.from_levels(levels, metadata=_metadata([corpus], order, thresholds, words))


def _choose_words(
    found: list[str], corpora: list[Corpus], vocabulary: Iterable[str] | None, max_words: int | None
) -> list[str]:
    """Words of the model, `SPECIAL` first."""
    if vocabulary is None:
        wanted = [word for word in found if word not in SPECIAL]
    else:
        wanted = [word for word in dict.fromkeys(vocabulary) if word not in SPECIAL]
        bad = [word for word in wanted if not word or word.split() != [word]]
        if bad:
            raise ValueError(f"The vocabulary holds {bad[0]!r}; words must be non-empty and free of spaces.")
    if max_words is not None and len(wanted) > max_words:
        occurrences = sum(np.bincount(corpus.tokens, minlength=len(found) + len(SPECIAL)) for corpus in corpora)
        frequency = dict(zip(found, occurrences[len(SPECIAL) :].tolist(), strict=True))
        wanted = sorted(wanted, key=lambda word: -frequency.get(word, 0))[:max_words]
    return [*SPECIAL, *wanted]


def _build_levels(
    corpus: Corpus,
    words: list[str],
    found: list[str],
    order: int,
    thresholds: Sequence[int],
    space: Workspace,
    num_threads: int,
    progress: Callable[[str], None] = lambda stage: None,
) -> Levels:
    """Count and smooth one text. The word indices of the corpus become those of the model."""
    place = {word: index for index, word in enumerate(words)}
    # Text that spells out a boundary or <unk> must not count as one.
    recode = np.array(
        [UNK, BOS, EOS, *(UNK if word in SPECIAL else place.get(word, UNK) for word in found)], dtype=np.int32
    )
    for begin in range(0, len(corpus.tokens), 1 << 20):
        block = corpus.tokens[begin : begin + (1 << 20)]
        block[:] = recode[block]
    blobs = [word.encode() for word in words]
    offsets = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype(np.int64)
    vocabulary = (np.frombuffer(b"".join(blobs), dtype=np.uint8), offsets)
    levels = count_ngrams(corpus.tokens, order, vocabulary, space, num_threads, progress)
    space.free(corpus.tokens)
    progress("smoothing")
    estimate(levels, thresholds, space, num_threads)
    return levels


def _metadata(corpora: list[Corpus], order: int, thresholds: Sequence[int], words: list[str]) -> dict[str, Any]:
    return {
        "smoothing": "interpolated modified Kneser-Ney",
        "corpora": [corpus.to_dict() for corpus in corpora],
        "order": order,
        "min_counts": list(thresholds),
        "num_words": len(words),
    }
