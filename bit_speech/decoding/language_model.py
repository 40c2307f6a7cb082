"""Backoff n-gram language models: read from ARPA, kept exact or quantized, saved in a memory-mapped binary form."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from .arpa import ArpaTables, find_words, read_arpa, word_table, write_arpa_lines
from .lm_file import MappedFile, read_model, write_model
from .lm_kernels import CompactArrays, LMArrays, score_words
from .lm_levels import MISSING_LOG, Levels, levels_from_ngrams
from .lm_pack import pack_compact, pack_exact, unpack

_LN10 = math.log(10.0)
_NO_METADATA: Mapping[str, Any] = {}


class NGramLM:
    """A backoff n-gram model of any order. All scores are natural logarithms.

    Made by [`NGramLM.from_arpa`], [`NGramLM.load`] or `build_ngram_lm`, not by its constructor.

    Args:
        arrays (`LMArrays` or `CompactArrays`): the packed model.
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words in UTF-8, one after the other.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        counts (sequence of `int`): number of n-grams of each order; its length is the order of the model.
        specials (mapping, optional): indices of `bos`, `eos` and `unk`; looked up when not given.
        metadata (mapping, optional): where the model comes from; saved with it.
        mapped (`MappedFile`, optional): the file that the arrays are part of.

    Note:
        Unknown words score as `<unk>`; a model without `<unk>` gives them 10^-100, as KenLM does. A quantized model
        takes a third of the memory or less; its scores of order 2 and above are rounded to 256 values per order.

    Example:
        >>> from bit_speech.decoding import build_ngram_lm
        >>> lm = build_ngram_lm(["the cat sat", "the cat ran", "a dog sat"], order=2)
        >>> lm.order, "cat" in lm
        (2, True)
        >>> lm.score_sentence("the cat sat") > lm.score_sentence("sat cat the")
        True
    """

    def __init__(
        self,
        arrays: LMArrays | CompactArrays,
        vocabulary: np.ndarray,
        offsets: np.ndarray,
        counts: Iterable[int],
        specials: Mapping[str, int] | None = None,
        metadata: Mapping[str, Any] = _NO_METADATA,
        mapped: MappedFile | None = None,
    ) -> None:
        for array in (*arrays, vocabulary, offsets):
            array.flags.writeable = False
        self.arrays = arrays
        self.counts = tuple(int(count) for count in counts)
        self.metadata = dict(metadata)
        self._vocabulary = vocabulary
        self._offsets = offsets
        self._mapped = mapped
        if specials is None:
            specials = self._find_specials()
        self.bos, self.eos, self.unk = (int(specials[name]) for name in ("bos", "eos", "unk"))

    def _find_specials(self) -> dict[str, int]:
        for name in ("<s>", "</s>"):
            if name not in self:
                raise ValueError(f"The language model has no {name}; sentence boundaries are needed for scoring.")
        bos, eos, unk, other_unk = self._look_up(["<s>", "</s>", "<unk>", "<UNK>"]).tolist()
        unk = unk if unk >= 0 else other_unk
        if unk < 0:
            raise ValueError("The language model has no <unk>; read it with NGramLM.from_arpa, which adds one.")
        return {"bos": bos, "eos": eos, "unk": unk}

    @classmethod
    def from_levels(cls, levels: Levels, quantize: bool = False, metadata: Mapping[str, Any] = _NO_METADATA) -> NGramLM:
        """Pack a model.

        Args:
            levels (`Levels`): what a builder or reader made.
            quantize (`bool`): round scores to 8 bits and pack everything into bit fields.
            metadata (mapping, optional): where the model comes from.

        Returns:
            `NGramLM`: the model.
        """
        arrays = pack_compact(levels) if quantize else pack_exact(levels)
        return cls(arrays, levels.vocabulary, levels.offsets, levels.sizes, metadata=metadata)

    @property
    def quantized(self) -> bool:
        """Whether scores are rounded to 8 bits."""
        return isinstance(self.arrays, CompactArrays)

    def quantize(self) -> NGramLM:
        """Make a quantized copy.

        Returns:
            `NGramLM`: the same n-grams in bit fields, states and word indices unchanged.
        """
        return NGramLM.from_levels(self.levels(), quantize=True, metadata=self.metadata)

    def levels(self) -> Levels:
        """Unpack the model.

        Returns:
            `Levels`: its n-grams, order by order.
        """
        return unpack(self.arrays, self.counts, self._vocabulary, self._offsets)

    @property
    def order(self) -> int:
        """Length of the longest n-grams."""
        return len(self.counts)

    @cached_property
    def words(self) -> tuple[str, ...]:
        """All words of the vocabulary, `<s>`, `</s>` and `<unk>` among them, in the order of their indices."""
        blob = self._vocabulary.tobytes()
        ends = self._offsets.tolist()
        return tuple(blob[low:high].decode() for low, high in zip(ends[:-1], ends[1:], strict=True))

    @cached_property
    def _table(self) -> np.ndarray:
        # A hash table over the bytes: a tenth of the memory of a dictionary of strings, and made in milliseconds.
        return word_table(self._vocabulary, self._offsets)

    def _look_up(self, words: Sequence[str]) -> np.ndarray:
        blobs = [word.encode() for word in words]
        ends = np.concatenate([[0], np.cumsum([len(blob) for blob in blobs])]).astype(np.int64)
        data = np.frombuffer(b"".join(blobs), dtype=np.uint8)
        return find_words(self._table, self._vocabulary, self._offsets, data, ends)

    def __contains__(self, word: object) -> bool:
        return isinstance(word, str) and int(self._look_up([word])[0]) >= 0

    def __len__(self) -> int:
        return len(self._offsets) - 1

    def __repr__(self) -> str:
        return f"NGramLM(order={self.order}, counts={self.counts})"

    def word_index(self, word: str) -> int:
        """Index of a word; that of `<unk>` when the model does not know it.

        Args:
            word (`str`): as spelt in the model.

        Returns:
            `int`: index into `words`.
        """
        return int(self.word_indices([word])[0])

    def word_indices(self, words: Sequence[str]) -> np.ndarray:
        """Indices of many words at once, at a fraction of the cost of asking one by one.

        Args:
            words (sequence of `str`): as spelt in the model.

        Returns:
            `np.ndarray` of shape `(words,)`: indices into `words`, int64; that of `<unk>` for unknown words.
        """
        found = self._look_up(words)
        found[found < 0] = self.unk
        return found

    @property
    def start_state(self) -> int:
        """State at the beginning of a sentence, after `<s>`."""
        _, state = score_words(self.arrays, np.int64(0), np.array([self.bos], dtype=np.int64))
        return int(state)

    def unigram_scores(self) -> np.ndarray:
        """Natural-log probability of every word without context.

        Returns:
            `np.ndarray` of shape `(words,)`: scores, float32, in the order of `words`.
        """
        if isinstance(self.arrays, CompactArrays):
            return np.array(self.arrays.unigram_probs)
        return np.array(self.arrays.probs[1 : 1 + len(self)])

    def word_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> np.ndarray:
        """Natural-log probability of every word of a sentence given the words before it.

        Args:
            sentence (`str`): words separated by spaces.
            bos (`bool`): start at the beginning of a sentence rather than without context.
            eos (`bool`): score the end of the sentence too.

        Returns:
            `np.ndarray` of shape `(words + eos,)`: scores, float64.
        """
        indices = self.word_indices(sentence.split())
        if eos:
            indices = np.append(indices, self.eos)
        state = np.int64(self.start_state if bos else 0)
        scores, _ = score_words(self.arrays, state, indices)
        return scores

    def score_sentence(self, sentence: str, bos: bool = True, eos: bool = True) -> float:
        """Natural-log probability of a sentence.

        Args:
            sentence (`str`): words separated by spaces.
            bos (`bool`): start at the beginning of a sentence rather than without context.
            eos (`bool`): score the end of the sentence too.

        Returns:
            `float`: the sum of [`NGramLM.word_scores`].
        """
        return float(self.word_scores(sentence, bos, eos).sum())

    def perplexity(self, sentences: Iterable[str], include_unknown: bool = True) -> float:
        """Perplexity per word, ends of sentences counted.

        Args:
            sentences (iterable of `str`): words separated by spaces.
            include_unknown (`bool`): count words that the model does not know, at the score of `<unk>`.

        Returns:
            `float`: exp of the mean negative natural-log probability.

        Raises:
            ValueError: when there is nothing to score.
        """
        total, count = 0.0, 0
        for sentence in sentences:
            scores = self.word_scores(sentence)
            if not include_unknown:
                scores = scores[np.append(self._look_up(sentence.split()) >= 0, True)]
            total += float(scores.sum())
            count += len(scores)
        if count == 0:
            raise ValueError("No sentences to compute a perplexity of.")
        return math.exp(-total / count)

    @classmethod
    def from_arpa(cls, path: str | os.PathLike[str], quantize: bool = False) -> NGramLM:
        """Read an ARPA file.

        Args:
            path (`str`): the file, plain or `.gz`, `.xz`, `.bz2`; order 1 to 6.
            quantize (`bool`): round scores to 8 bits and pack everything into bit fields.

        Returns:
            `NGramLM`: the model, log10 scores turned into natural logarithms.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is no ARPA file, is truncated, or disagrees with its own counts.

        Note:
            N-grams of which a prefix or suffix is missing (pruned models of some tools) get it inserted with the
            probability that backing off gives it, so that scores do not change.
        """
        return cls.from_levels(levels_from_arpa(read_arpa(path)), quantize, {"arpa": os.path.basename(path)})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model in its own binary form, which [`NGramLM.load`] maps into memory.

        Args:
            path (`str`): destination. Written under a temporary name, then renamed.
        """
        specials = {"bos": self.bos, "eos": self.eos, "unk": self.unk}
        write_model(path, self.arrays, self._vocabulary, self._offsets, self.counts, specials, self.metadata)

    @classmethod
    def load(cls, path: str | os.PathLike[str], verify: bool = True) -> NGramLM:
        """Open a model that [`NGramLM.save`] wrote. The arrays are memory-mapped, so processes share them.

        Args:
            path (`str`): the file.
            verify (`bool`): read the whole file once and compare its checksums. Without it, a quantized model of any
                size opens in milliseconds, and one that was damaged after writing may give wrong scores. Exact models,
                and the header and the length of everything, are always checked.

        Returns:
            `NGramLM`: the model.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is of another kind or version, damaged or truncated.
        """
        arrays, vocabulary, offsets, header, mapped = read_model(path, verify)
        return cls(arrays, vocabulary, offsets, header["counts"], header, header["metadata"], mapped)

    def release_pages(self) -> None:
        """Give pages of the model's file back to the system if many have become memory of this process.

        Decoders call it after every sentence, which keeps a model of any size from filling memory; scores do not
        change. Nothing happens to models that were not loaded from a file.
        """
        if self._mapped is not None:
            self._mapped.release_pages()

    def write_arpa(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ARPA file.

        Args:
            path (`str`): destination; `.gz`, `.xz` and `.bz2` compress. Written under a temporary name, then renamed.
        """
        write_arpa_lines(path, self._arpa_lines())

    def _arpa_lines(self) -> Iterator[str]:
        levels, names = self.levels(), self.words
        yield "\\data\\"
        for order, count in enumerate(self.counts, start=1):
            yield f"ngram {order}={count}"
        contexts = [""]
        for k in range(self.order):
            yield ""
            yield f"\\{k + 1}-grams:"
            probs = np.maximum(levels.log_probs[k].astype(np.float64), MISSING_LOG) / _LN10
            here = [names[word] for word in levels.words[k].tolist()]
            if k > 0:
                parents = np.repeat(np.arange(len(contexts)), np.diff(levels.first_child[k - 1])).tolist()
                here = [f"{contexts[parent]} {name}" for parent, name in zip(parents, here, strict=True)]
            if k + 1 < self.order:
                backoffs = (levels.log_backoffs[k].astype(np.float64) / _LN10).tolist()
                for prob, name, backoff in zip(probs.tolist(), here, backoffs, strict=True):
                    yield f"{prob:.9g}\t{name}\t{backoff:.9g}"
            else:
                for prob, name in zip(probs.tolist(), here, strict=True):
                    yield f"{prob:.9g}\t{name}"
            contexts = here
        yield ""
        yield "\\end\\"


def levels_from_arpa(tables: ArpaTables) -> Levels:
    """Sort the n-grams of an ARPA file into levels.

    Args:
        tables (`ArpaTables`): words, n-grams in any order, log10 scores.

    Returns:
        `Levels`: the model, with `<unk>`.

    Raises:
        ValueError: when an n-gram is listed twice or the order is above 6.
    """
    vocabulary, offsets, ngrams, log_probs, log_backoffs = tables
    if len(ngrams) > 6:
        raise ValueError(f"The model has order {len(ngrams)}; at most 6 is supported.")
    blob, ends = vocabulary.tobytes(), offsets.tolist()
    if not {b"<unk>", b"<UNK>"} & {blob[low:high] for low, high in zip(ends[:-1], ends[1:], strict=True)}:
        vocabulary = np.concatenate([vocabulary, np.frombuffer(b"<unk>", dtype=np.uint8)])
        offsets = np.append(offsets, offsets[-1] + 5)
        ngrams = [np.vstack([ngrams[0], [[len(ends) - 1]]]).astype(np.int32), *ngrams[1:]]
        log_probs = [np.append(log_probs[0], MISSING_LOG / _LN10), *log_probs[1:]]
        log_backoffs = [np.append(log_backoffs[0], 0.0), *log_backoffs[1:]]
    probs, backoffs = ([values * _LN10 for values in scores] for scores in (log_probs, log_backoffs))
    return levels_from_ngrams(vocabulary, offsets, ngrams, probs, backoffs)
