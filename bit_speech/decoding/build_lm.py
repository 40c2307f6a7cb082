"""Build n-gram language models from text: interpolated modified Kneser-Ney smoothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .kneser_ney import estimate
from .language_model import NGramLM
from .lm_counts import count_ngrams
from .lm_levels import Levels
from .lm_mix import mix, tune_weights
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
    thresholds = _checked_thresholds(order, min_counts, max_words)
    space = Workspace()
    tokenizer = Tokenizer()
    corpus = read_corpus("the sentences", blocks_of_sentences(sentences), tokenizer, space)
    words = _choose_words(tokenizer.words, [corpus], vocabulary, max_words)
    levels = _build_levels(corpus, words, tokenizer.words, order, thresholds, space, 1)
    return NGramLM.from_levels(levels, metadata=_metadata([corpus], order, thresholds, words))


def build_ngram_lm_from_files(
    texts: Sequence[str | os.PathLike[str]],
    order: int = 3,
    *,
    min_counts: Sequence[int] | None = None,
    vocabulary: Iterable[str] | None = None,
    max_words: int | None = None,
    weights: Sequence[float] | None = None,
    interpolate_on: str | os.PathLike[str] | None = None,
    quantize: bool = False,
    memory: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    num_threads: int = 1,
    progress: Callable[[str], None] = lambda stage: None,
) -> NGramLM:
    """Estimate an interpolated modified Kneser-Ney model of text files, which may be larger than memory.

    Args:
        texts (sequence of `str`): files, one sentence per line; `.gz`, `.xz` and `.bz2` are decompressed.
        order (`int`): length of the longest n-grams, 1 to 6.
        min_counts (sequence of `int`, optional): as in [`build_ngram_lm`].
        vocabulary (iterable of `str`, optional): as in [`build_ngram_lm`].
        max_words (`int`, optional): as in [`build_ngram_lm`]; occurrences in all texts count.
        weights (sequence of `float`, optional): build one model of each text and mix them linearly with these weights.
        interpolate_on (`str`, optional): a held-out text; weights are chosen to make it most probable. Without this and
            without weights, the texts are one corpus.
        quantize (`bool`): round scores to 8 bits and pack everything into bit fields.
        memory (`int`, optional): bytes that working arrays may take; the rest goes to files that are mapped.
            The finished model is held in memory on top.
        folder (`str`, optional): where a folder for such files is made, and removed in the end; default the system's.
        num_threads (`int`): threads to compute on.
        progress (callable): told what begins.

    Returns:
        `NGramLM`: the model; its `metadata` names the texts with their SHA-256, and the settings.

    Raises:
        FileNotFoundError: when a text is missing.
        ValueError: when there is no text or a setting makes no sense.
    """
    thresholds = _checked_thresholds(order, min_counts, max_words)
    if not texts:
        raise ValueError("No text was given to build a language model from.")
    if weights is not None and interpolate_on is not None:
        raise ValueError("Give weights or a text to tune them on, not both.")
    if weights is not None and (len(weights) != len(texts) or min(weights) <= 0):
        raise ValueError(f"The weights are {list(weights)}; expected {len(texts)} positive numbers, one for each text.")
    if memory is not None and memory < 1 << 20:
        raise ValueError(f"memory is {memory} bytes; expected at least 1 MiB.")
    if num_threads < 1:
        raise ValueError(f"num_threads is {num_threads}; expected at least 1.")
    space = Workspace(memory, folder)
    tokenizer = Tokenizer()
    mixed = weights is not None or interpolate_on is not None
    corpora = []
    for group in [[text] for text in texts] if mixed else [list(texts)]:
        name = " + ".join(os.path.basename(text) for text in group)
        progress(f"reading {name}")
        blocks = (block for text in group for block in blocks_of_file(text))
        corpora.append(read_corpus(name, blocks, tokenizer, space))
    words = _choose_words(tokenizer.words, corpora, vocabulary, max_words)
    metadata = _metadata(corpora, order, thresholds, words)
    found = tokenizer.words
    models = [
        _build_levels(corpus, words, found, order, thresholds, space, num_threads, progress) for corpus in corpora
    ]
    levels = models[0]
    if mixed:
        if interpolate_on is not None:
            progress("tuning the weights")
            held_out = read_corpus(os.path.basename(interpolate_on), blocks_of_file(interpolate_on), tokenizer, space)
            _recode(held_out, words, tokenizer.words)
            metadata["interpolated_on"] = held_out.to_dict()
            weights = tune_weights(models, held_out.tokens, BOS)
        shares = np.array(weights, dtype=np.float64)
        shares /= shares.sum()
        metadata["weights"] = shares.tolist()
        if len(models) > 1:
            progress("mixing models")
            levels = mix(models, shares.tolist(), space)
    progress("packing")
    return NGramLM.from_levels(levels, quantize, metadata)


def _checked_thresholds(order: int, min_counts: Sequence[int] | None, max_words: int | None) -> list[int]:
    if not 1 <= order <= 6:
        raise ValueError(f"order is {order}; expected 1 to 6.")
    thresholds = [1] * order if min_counts is None else [int(count) for count in min_counts]
    if len(thresholds) != order or thresholds[0] != 1 or sorted(thresholds) != thresholds:
        raise ValueError(
            f"min_counts is {list(thresholds)}; expected {order} numbers that begin with 1 and never decrease."
        )
    if max_words is not None and max_words < 1:
        raise ValueError(f"max_words is {max_words}; expected at least 1.")
    return thresholds


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
        room = len(found) + len(SPECIAL)
        occurrences = np.sum([np.bincount(corpus.tokens, minlength=room) for corpus in corpora], axis=0)
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
    _recode(corpus, words, found)
    blobs = [word.encode() for word in words]
    offsets = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype(np.int64)
    vocabulary = (np.frombuffer(b"".join(blobs), dtype=np.uint8), offsets)
    levels = count_ngrams(corpus.tokens, order, vocabulary, space, num_threads, progress)
    space.free(corpus.tokens)
    progress("smoothing")
    estimate(levels, thresholds, space, num_threads)
    return levels


def _recode(corpus: Corpus, words: list[str], found: list[str]) -> None:
    """Turn the word indices of the tokenizer into those of the model, in place."""
    place = {word: index for index, word in enumerate(words)}
    # Text that spells out a boundary or <unk> must not count as one.
    recode = np.array(
        [UNK, BOS, EOS, *(UNK if word in SPECIAL else place.get(word, UNK) for word in found)], dtype=np.int32
    )
    for begin in range(0, len(corpus.tokens), 1 << 20):
        block = corpus.tokens[begin : begin + (1 << 20)]
        block[:] = recode[block]


def _metadata(corpora: list[Corpus], order: int, thresholds: Sequence[int], words: list[str]) -> dict[str, Any]:
    return {
        "smoothing": "interpolated modified Kneser-Ney",
        "corpora": [corpus.to_dict() for corpus in corpora],
        "order": order,
        "min_counts": list(thresholds),
        "num_words": len(words),
    }
