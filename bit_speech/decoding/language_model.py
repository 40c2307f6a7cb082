"""Backoff n-gram language models: read from ARPA, kept in flat arrays, saved in a memory-mapped binary form."""

from __future__ import annotations

import json
import math
import os
import zlib
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path

import numpy as np

from .arpa import ArpaTables, read_arpa, write_arpa_lines
from .lm_kernels import LMArrays, link_states, score_words

_MAGIC = b"BITNGRAM"
_VERSION = 1
_ALIGNMENT = 64
_LN10 = math.log(10.0)
# What KenLM gives unknown words of a model without <unk>.
_MISSING_UNK_LOG10 = -100.0
_DTYPES = {
    "words": "<i4",
    "probs": "<f4",
    "next_state": "<i4",
    "backoffs": "<f4",
    "suffix": "<i4",
    "first_child": "<i8",
}


class NGramLM:
    """A backoff n-gram model of any order. All scores are natural logarithms.

    Made by [`NGramLM.from_arpa`], [`NGramLM.load`] or `build_ngram_lm`, not by its constructor.

    Args:
        arrays (`LMArrays`): the packed model.
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words in UTF-8, one after the other.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        counts (sequence of `int`): number of n-grams of each order; its length is the order of the model.

    Note:
        Unknown words score as `<unk>`; a model without `<unk>` gives them 10^-100, as KenLM does.

    Example:
        >>> from bit_speech.decoding import build_ngram_lm
        >>> lm = build_ngram_lm(["the cat sat", "the cat ran", "a dog sat"], order=2)
        >>> lm.order, "cat" in lm
        (2, True)
        >>> lm.score_sentence("the cat sat") > lm.score_sentence("sat cat the")
        True
    """

    def __init__(self, arrays: LMArrays, vocabulary: np.ndarray, offsets: np.ndarray, counts: Iterable[int]) -> None:
        for array in (*arrays, vocabulary, offsets):
            array.flags.writeable = False
        self.arrays = arrays
        self.counts = tuple(int(count) for count in counts)
        self._vocabulary = vocabulary
        self._offsets = offsets
        for name in ("<s>", "</s>"):
            if name not in self._index:
                raise ValueError(f"The language model has no {name}; sentence boundaries are needed for scoring.")
        self.bos = self._index["<s>"]
        self.eos = self._index["</s>"]
        self.unk = self._index.get("<unk>", self._index.get("<UNK>", -1))
        if self.unk < 0:
            raise ValueError("The language model has no <unk>; read it with NGramLM.from_arpa, which adds one.")

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
    def _index(self) -> dict[str, int]:
        return {word: index for index, word in enumerate(self.words)}

    def __contains__(self, word: object) -> bool:
        return word in self._index

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
        return self._index.get(word, self.unk)

    @property
    def start_state(self) -> int:
        """State at the beginning of a sentence, after `<s>`."""
        return int(self.arrays.next_state[1 + self.bos])

    def unigram_scores(self) -> np.ndarray:
        """Natural-log probability of every word without context.

        Returns:
            `np.ndarray` of shape `(words,)`: scores, float32, in the order of `words`.
        """
        return np.array(self.arrays.probs[1 : 1 + len(self)], dtype=np.float32)

    def word_scores(self, sentence: str, bos: bool = True, eos: bool = True) -> np.ndarray:
        """Natural-log probability of every word of a sentence given the words before it.

        Args:
            sentence (`str`): words separated by spaces.
            bos (`bool`): start at the beginning of a sentence rather than without context.
            eos (`bool`): score the end of the sentence too.

        Returns:
            `np.ndarray` of shape `(words + eos,)`: scores, float64.
        """
        indices = [self.word_index(word) for word in sentence.split()]
        if eos:
            indices.append(self.eos)
        state = np.int64(self.start_state if bos else 0)
        scores, _ = score_words(self.arrays, state, np.array(indices, dtype=np.int64))
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
                known = [word in self._index for word in sentence.split()] + [True]
                scores = scores[np.array(known)]
            total += float(scores.sum())
            count += len(scores)
        if count == 0:
            raise ValueError("No sentences to compute a perplexity of.")
        return math.exp(-total / count)

    @classmethod
    def from_arpa(cls, path: str | os.PathLike[str]) -> NGramLM:
        """Read an ARPA file.

        Args:
            path (`str`): the file, plain or `.gz`, `.xz`, `.bz2`; any order.

        Returns:
            `NGramLM`: the model, log10 scores turned into natural logarithms.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is no ARPA file, is truncated, or disagrees with its own counts.

        Note:
            N-grams whose context is missing (pruned models of some tools) get the context inserted with the probability
            that backing off gives it, so that scores do not change.
        """
        return pack_ngrams(read_arpa(path))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the model in its own binary form, which [`NGramLM.load`] opens in milliseconds.

        Args:
            path (`str`): destination. Written under a temporary name, then renamed.
        """
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        arrays = {name: getattr(self.arrays, name).astype(dtype, copy=False) for name, dtype in _DTYPES.items()}
        arrays |= {"vocabulary": self._vocabulary, "offsets": self._offsets.astype("<i8", copy=False)}
        sections, position, checksum = [], 0, 0
        for name, array in arrays.items():
            sections.append({"name": name, "dtype": array.dtype.str, "length": len(array), "offset": position})
            checksum = zlib.crc32(_bytes_of(array), checksum)
            position += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        header = {"order": self.order, "counts": self.counts, "sections": sections, "payload_bytes": position}
        header["payload_crc32"] = checksum
        text = json.dumps(header).encode()
        text += b" " * (-(len(text) + 20) % _ALIGNMENT)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            with temporary.open("wb") as stream:
                stream.write(_MAGIC)
                stream.write(np.array([_VERSION, len(text), zlib.crc32(text)], dtype="<u4").tobytes())
                stream.write(text)
                for array in arrays.values():
                    stream.write(_bytes_of(array))
                    stream.write(b"\0" * (-array.nbytes % _ALIGNMENT))
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | os.PathLike[str], verify: bool = False) -> NGramLM:
        """Open a model that [`NGramLM.save`] wrote. The arrays are memory-mapped, so processes share them.

        Args:
            path (`str`): the file.
            verify (`bool`): read the whole file and compare its checksum. The header's checksum and the length of the
                file are always checked.

        Returns:
            `NGramLM`: the model.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is of another kind or version, damaged or truncated.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"No language model at {path}.")
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(20)
            if len(start) < 20 or start[:8] != _MAGIC:
                raise ValueError(f"{path} is not a bit-speech n-gram model; use NGramLM.from_arpa for ARPA files.")
            version, length, checksum = (int(value) for value in np.frombuffer(start, dtype="<u4", offset=8))
            if version != _VERSION:
                raise ValueError(
                    f"{path} has format version {version}, this library reads {_VERSION}; convert the ARPA file again."
                )
            text = stream.read(min(length, size))
        if len(text) < length or zlib.crc32(text) != checksum:
            raise ValueError(f"The header of {path} is damaged or truncated; convert the ARPA file again.")
        header = json.loads(text)
        if size != 20 + length + header["payload_bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, its header says {20 + length + header['payload_bytes']}; the file is "
                "truncated or damaged: convert the ARPA file again."
            )
        data = np.memmap(path, dtype=np.uint8, mode="r")
        arrays = {}
        crc = 0
        for section in header["sections"]:
            begin = 20 + length + section["offset"]
            dtype = np.dtype(section["dtype"])
            # A plain array view: compiled code knows one array type, mapped or not.
            view = np.asarray(data[begin : begin + section["length"] * dtype.itemsize]).view(np.ndarray).view(dtype)
            arrays[section["name"]] = view
            if verify:
                crc = zlib.crc32(_bytes_of(view), crc)
        if verify and crc != header["payload_crc32"]:
            raise ValueError(f"The checksum of {path} is wrong, the file is damaged: convert the ARPA file again.")
        packed = LMArrays(**{name: arrays[name] for name in _DTYPES})
        return cls(packed, arrays["vocabulary"], arrays["offsets"], header["counts"])

    def write_arpa(self, path: str | os.PathLike[str]) -> None:
        """Write the model as an ARPA file.

        Args:
            path (`str`): destination; `.gz`, `.xz` and `.bz2` compress. Written under a temporary name, then renamed.
        """
        write_arpa_lines(path, self._arpa_lines())

    def _arpa_lines(self) -> Iterator[str]:
        arrays = self.arrays
        num_contexts = len(arrays.backoffs)
        yield "\\data\\"
        for order, count in enumerate(self.counts, start=1):
            yield f"ngram {order}={count}"
        log10_probs = np.maximum(arrays.probs.astype(np.float64) / _LN10, _MISSING_UNK_LOG10)
        texts: list[str] = [""]
        begin = 1
        for order, count in enumerate(self.counts, start=1):
            yield ""
            yield f"\\{order}-grams:"
            end = begin + count
            parents = np.searchsorted(arrays.first_child, np.arange(begin, end), side="right") - 1
            names = self.words
            previous = begin - len(texts)
            here = []
            for node, parent, word in zip(
                range(begin, end), parents.tolist(), arrays.words[begin:end].tolist(), strict=True
            ):
                name = names[word] if order == 1 else f"{texts[parent - previous]} {names[word]}"
                here.append(name)
                backoff = f"\t{arrays.backoffs[node] / _LN10:.9g}" if node < num_contexts else ""
                yield f"{log10_probs[node]:.9g}\t{name}{backoff}"
            texts, begin = here, end
        yield ""
        yield "\\end\\"


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).view(np.uint8).data) if len(array) else memoryview(b"")


def pack_ngrams(tables: ArpaTables) -> NGramLM:
    """Pack n-gram tables into the arrays that the compiled look-ups use.

    Args:
        tables (`ArpaTables`): words, n-grams in any order, log10 scores.

    Returns:
        `NGramLM`: the model.

    Raises:
        ValueError: when an n-gram is listed twice.
    """
    vocabulary, offsets, ngrams, log_probs, log_backoffs = tables
    num_words = len(offsets) - 1
    blob = vocabulary.tobytes()
    ends = offsets.tolist()
    known = {blob[low:high] for low, high in zip(ends[:-1], ends[1:], strict=True)}
    if not known & {b"<unk>", b"<UNK>"}:
        vocabulary = np.concatenate([vocabulary, np.frombuffer(b"<unk>", dtype=np.uint8)])
        offsets = np.append(offsets, offsets[-1] + 5)
        ngrams = [np.vstack([ngrams[0], [[num_words]]]).astype(np.int32), *ngrams[1:]]
        log_probs = [np.append(log_probs[0], _MISSING_UNK_LOG10), *log_probs[1:]]
        log_backoffs = [np.append(log_backoffs[0], 0.0), *log_backoffs[1:]]
        num_words += 1

    # keys[k]: sorted (context node, word) of order k + 1, as one integer; base[k]: node of its first entry.
    sections = _with_contexts(ngrams, log_probs, log_backoffs, num_words)
    counts = [len(section[0]) for section in sections]
    num_nodes = 1 + sum(counts)
    num_contexts = num_nodes - counts[-1]
    keys = np.concatenate([section[0] for section in sections])
    parents = np.concatenate([[0], keys // num_words])
    words = np.concatenate([[0], keys % num_words]).astype(np.int32)
    probs = np.concatenate([[0.0], *(section[1] for section in sections)]) * _LN10
    backoffs = np.concatenate([[0.0], *(section[2] for section in sections)])[:num_contexts] * _LN10
    first_child = np.searchsorted(parents[1:], np.arange(num_contexts + 1), side="left") + 1
    arrays = LMArrays(
        words=words,
        probs=probs.astype(np.float32),
        next_state=np.zeros(num_nodes, dtype=np.int32),
        backoffs=backoffs.astype(np.float32),
        suffix=np.zeros(num_contexts, dtype=np.int32),
        first_child=first_child.astype(np.int64),
    )
    link_states(
        arrays.words, arrays.first_child, arrays.backoffs, arrays.suffix, arrays.next_state, parents, num_contexts
    )
    return NGramLM(arrays, vocabulary, offsets.astype(np.int64), counts)


def _with_contexts(
    ngrams: list[np.ndarray], log_probs: list[np.ndarray], log_backoffs: list[np.ndarray], num_words: int
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Sorted (key, log10 probability, log10 backoff) of each order, missing contexts inserted."""
    while True:
        sections: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        bases = [1]
        for k, table in enumerate(ngrams):
            nodes = np.zeros(len(table), dtype=np.int64)
            for j in range(k):
                keys = nodes * num_words + table[:, j]
                rows = np.searchsorted(sections[j][0], keys)
                found = sections[j][0][np.minimum(rows, len(sections[j][0]) - 1)] == keys
                if not found.all():
                    missing = np.unique(table[~found, : j + 1], axis=0)
                    break
                nodes = bases[j] + rows
            else:
                keys = nodes * num_words + table[:, k]
                rank = np.argsort(keys, kind="stable")
                keys = keys[rank]
                if len(keys) > 1 and (keys[1:] == keys[:-1]).any():
                    twice = table[rank[int(np.flatnonzero(keys[1:] == keys[:-1])[0])]]
                    raise ValueError(f"The {k + 1}-gram with word indices {twice.tolist()} is listed twice.")
                sections.append((keys, log_probs[k][rank], log_backoffs[k][rank]))
                bases.append(bases[-1] + len(keys))
                continue
            break
        else:
            _fill_missing(sections, bases, num_words)
            return sections
        # Insert the contexts that were found missing, then begin again.
        unknown = np.full(len(missing), np.nan)
        ngrams = [np.vstack([t, missing]).astype(np.int32) if i == j else t for i, t in enumerate(ngrams)]
        log_probs = [np.append(p, unknown) if i == j else p for i, p in enumerate(log_probs)]
        log_backoffs = [np.append(p, np.zeros(len(missing))) if i == j else p for i, p in enumerate(log_backoffs)]


def _fill_missing(sections: list[tuple[np.ndarray, np.ndarray, np.ndarray]], bases: list[int], num_words: int) -> None:
    """Give inserted contexts (NaN) the probability that backing off gives them."""
    for k in range(1, len(sections)):
        keys, probs, _ = sections[k]
        for row in np.flatnonzero(np.isnan(probs)):
            sequence = [int(keys[row]) % num_words]
            parent = int(keys[row]) // num_words
            for j in range(k - 1, -1, -1):
                key = int(sections[j][0][parent - bases[j]])
                sequence.append(key % num_words)
                parent = key // num_words
            sequence.reverse()
            probs[row] = _backed_off(sections, bases, num_words, sequence)


def _backed_off(
    sections: list[tuple[np.ndarray, np.ndarray, np.ndarray]], bases: list[int], num_words: int, sequence: list[int]
) -> float:
    """log10 p(last word | words before) with the context shortened by one word at least."""
    total = 0.0
    for begin in range(1, len(sequence)):
        context = _find(sections, bases, num_words, sequence[begin - 1 : -1])
        if context is not None:
            total += float(sections[len(sequence) - begin - 1][2][context])
        found = _find(sections, bases, num_words, sequence[begin:])
        if found is not None and not np.isnan(sections[len(sequence) - begin - 1][1][found]):
            return total + float(sections[len(sequence) - begin - 1][1][found])
    return _MISSING_UNK_LOG10


def _find(
    sections: list[tuple[np.ndarray, np.ndarray, np.ndarray]], bases: list[int], num_words: int, sequence: list[int]
) -> int | None:
    """Row of an n-gram within its order."""
    node = 0
    row = 0
    for k, word in enumerate(sequence):
        keys = sections[k][0]
        row = int(np.searchsorted(keys, node * num_words + word))
        if row == len(keys) or keys[row] != node * num_words + word:
            return None
        node = bases[k] + row
    return row
