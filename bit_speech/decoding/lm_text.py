"""Text to word indices: a compiled tokeniser, and arrays that move to disk when memory runs out."""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path

import numba
import numpy as np

from .arpa import find_word, open_binary

SPECIAL = ("<unk>", "<s>", "</s>")
UNK, BOS, EOS = range(3)
_BLOCK_BYTES = 1 << 23
_RARE_SPACES = re.compile(r"[^\S\x00-\x7f]")
# The sentence ends here, among provisional word indices.
LINE_END = -1


class Workspace:
    """Arrays in memory up to a budget, and beyond it in memory-mapped temporary files without a name.

    Files without a name need no clearing up: their space is free again when the last array over them is gone, also
    after an error or a killed process.

    Args:
        memory (`int`, optional): bytes that arrays may take in memory; None for no limit.
        folder (`str`, optional): where the temporary files are made; None for the system's folder.
    """

    def __init__(self, memory: int | None = None, folder: str | os.PathLike[str] | None = None) -> None:
        self.memory = memory
        self._folder = folder
        self._used: dict[int, int] = {}
        self._lock = threading.Lock()

    def empty(self, size: int, dtype: type) -> np.ndarray:
        """Make an array.

        Args:
            size (`int`): number of elements.
            dtype (`type`): of each.

        Returns:
            `np.ndarray` of shape `(size,)`: in memory or mapped.
        """
        size_bytes = size * np.dtype(dtype).itemsize
        with self._lock:
            if self.memory is None or size == 0 or sum(self._used.values()) + size_bytes <= self.memory:
                array: np.ndarray = np.empty(size, dtype=dtype)
                self._used[id(array)] = size_bytes
                return array
        with tempfile.TemporaryFile(dir=self._folder, prefix="bit_speech_lm_") as file:
            mapped = np.memmap(file, dtype=dtype, mode="w+", shape=(size,))
        # A plain array over the map: compiled code knows one array type.
        return np.asarray(mapped).view(np.ndarray)

    def free(self, *arrays: np.ndarray) -> None:
        """Tell that arrays are not used any more, so that others may take their place in memory.

        Args:
            *arrays (`np.ndarray`): made by [`Workspace.empty`]; others are ignored.
        """
        with self._lock:
            for array in arrays:
                self._used.pop(id(array), None)


@numba.njit(nogil=True, cache=True)
def _tokenise(data, position, table, vocabulary, offsets, num_words, tokens):
    """Split lines into words. Stops when a table is full; the last line must end with a line end."""
    count = 0
    size = len(data)
    while position < size:
        c = data[position]
        if c == 10:
            if count == len(tokens):
                break
            tokens[count] = LINE_END
            count += 1
            position += 1
            continue
        if c == 32 or (c >= 9 and c <= 13) or (c >= 28 and c <= 31):
            position += 1
            continue
        end = position
        while end < size:
            c = data[end]
            if c == 32 or (c >= 9 and c <= 13) or (c >= 28 and c <= 31):
                break
            end += 1
        if count == len(tokens):
            break
        slot = find_word(table, vocabulary, offsets, data, position, end)
        word = table[slot]
        if word < 0:
            low = offsets[num_words]
            length = end - position
            if 2 * num_words > len(table) or num_words + 2 > len(offsets) or low + length > len(vocabulary):
                break
            for j in range(length):
                vocabulary[low + j] = data[position + j]
            word = num_words
            offsets[word + 1] = low + length
            table[slot] = word
            num_words += 1
        tokens[count] = word
        count += 1
        position = end
    return position, num_words, count


class Tokenizer:
    """Gives every distinct word an index, in the order of appearance."""

    def __init__(self) -> None:
        self.num_words = 0
        self._table = np.full(1 << 16, -1, dtype=np.int32)
        self._vocabulary = np.empty(1 << 20, dtype=np.uint8)
        self._offsets = np.zeros(1 << 15, dtype=np.int64)

    def __call__(self, block: bytes) -> np.ndarray:
        """Indices of the words of whole lines; -1 where a line ends."""
        data = np.frombuffer(block, dtype=np.uint8)
        tokens = np.empty(len(data) // 2 + 2, dtype=np.int32)
        position, filled = 0, 0
        while position < len(data):
            position, self.num_words, count = _tokenise(
                data, position, self._table, self._vocabulary, self._offsets, self.num_words, tokens[filled:]
            )
            filled += count
            if position < len(data):
                if filled == len(tokens):
                    tokens = np.concatenate([tokens, np.empty(len(tokens), dtype=np.int32)])
                else:
                    self._grow()
        return tokens[:filled]

    def _grow(self) -> None:
        self._vocabulary = np.concatenate([self._vocabulary, np.empty_like(self._vocabulary)])
        self._offsets = np.concatenate([self._offsets, np.zeros_like(self._offsets)])
        self._table = np.full(2 * len(self._table), -1, dtype=np.int32)
        _fill_table(self._table, self._vocabulary, self._offsets, self.num_words)

    @property
    def words(self) -> list[str]:
        """The words, in the order of their indices."""
        blob = self._vocabulary.tobytes()
        ends = self._offsets[: self.num_words + 1].tolist()
        return [blob[low:high].decode() for low, high in zip(ends[:-1], ends[1:], strict=True)]


@numba.njit(nogil=True, cache=True)
def _fill_table(table, vocabulary, offsets, num_words):
    for word in range(num_words):
        table[find_word(table, vocabulary, offsets, vocabulary, offsets[word], offsets[word + 1])] = word


class Corpus:
    """The word indices of one text, with what identifies it.

    Args:
        name (`str`): where the text is from.
        tokens (`np.ndarray` of shape `(tokens,)`, int32): `<s>` words `</s>`, one sentence after the other.
        sha256 (`str`): hash of the text, decompressed.
        num_words (`int`): words without `<s>` and `</s>`.
        num_sentences (`int`): sentences that are not empty.
    """

    def __init__(self, name: str, tokens: np.ndarray, sha256: str, num_words: int, num_sentences: int) -> None:
        self.name = name
        self.tokens = tokens
        self.sha256 = sha256
        self.num_words = num_words
        self.num_sentences = num_sentences

    def to_dict(self) -> dict[str, str | int]:
        """What is recorded with a model."""
        return {
            "name": self.name,
            "sha256": self.sha256,
            "words": self.num_words,
            "sentences": self.num_sentences,
        }


@numba.njit(nogil=True, cache=True)
def _frame_sentences(tokens, first_index, out):
    """Put `<s>` and `</s>` around lines that are not empty; `first_index` is added to word indices."""
    count, words, sentences = 0, 0, 0
    inside = False
    for token in tokens:
        if token == LINE_END:
            if inside:
                out[count] = EOS
                count += 1
            inside = False
            continue
        if not inside:
            out[count] = BOS
            count += 1
            sentences += 1
            inside = True
        out[count] = token + first_index
        count += 1
        words += 1
    return count, words, sentences


def read_corpus(name: str, blocks: Iterable[bytes], tokenizer: Tokenizer, space: Workspace) -> Corpus:
    """Tokenise a text. Word indices are those of the tokenizer plus 3, see `SPECIAL`.

    Args:
        name (`str`): where the text is from.
        blocks (iterable of `bytes`): whole lines of UTF-8, line end last.
        tokenizer (`Tokenizer`): learns the words.
        space (`Workspace`): where the indices go.

    Returns:
        `Corpus`: the text.

    Raises:
        ValueError: when there is no word, or bytes are not UTF-8.
    """
    digest = hashlib.sha256()
    pieces: list[np.ndarray] = []
    words = sentences = 0
    for block in blocks:
        digest.update(block)
        if not block.isascii():
            try:
                text = block.decode()
            except UnicodeDecodeError as error:
                bad = block[max(0, error.start - 20) : error.end + 20]
                raise ValueError(f"{name} is not UTF-8 text: {bad!r}; convert it first.") from error
            block = _RARE_SPACES.sub(" ", text).encode()
        tokens = tokenizer(block)
        framed = np.empty(3 * len(tokens), dtype=np.int32)
        count, more_words, more_sentences = _frame_sentences(tokens, len(SPECIAL), framed)
        piece = space.empty(count, np.int32)
        piece[:] = framed[:count]
        pieces.append(piece)
        words += more_words
        sentences += more_sentences
    if words == 0:
        raise ValueError(f"No text to build a language model from: every sentence of {name} is empty.")
    whole = pieces[0]
    if len(pieces) > 1:
        whole = space.empty(sum(map(len, pieces)), np.int32)
        np.concatenate(pieces, out=whole)
        space.free(*pieces)
    return Corpus(name, whole, digest.hexdigest(), words, sentences)


def blocks_of_file(path: str | os.PathLike[str]) -> Iterator[bytes]:
    """Read a text file, plain or compressed, in blocks of whole lines.

    Args:
        path (`str`): the file; `.gz`, `.xz` and `.bz2` are decompressed.

    Returns:
        iterator of `bytes`: each block ends with a line end.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it cannot be decompressed.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No text at {path}.")
    rest: list[bytes] = []
    with open_binary(path) as stream:
        while True:
            try:
                block = stream.read(_BLOCK_BYTES)
            except Exception as error:
                raise ValueError(f"{path} cannot be read ({error}); it is damaged or truncated.") from error
            if not block:
                break
            cut = block.rfind(b"\n") + 1
            if cut:
                yield b"".join([*rest, block[:cut]])
                rest = []
            if cut < len(block):
                rest.append(block[cut:])
    if rest:
        yield b"".join([*rest, b"\n"])


def blocks_of_sentences(sentences: Iterable[str]) -> Iterator[bytes]:
    """Turn sentences into blocks of lines.

    Args:
        sentences (iterable of `str`): one sentence each.

    Returns:
        iterator of `bytes`: each block ends with a line end.

    Raises:
        ValueError: when something is not text.
    """
    lines: list[str] = []
    size = 0
    for sentence in sentences:
        if not isinstance(sentence, str):
            raise ValueError(f"A sentence is {sentence!r}; expected text.")
        lines.append(" ".join(sentence.splitlines()))
        size += len(sentence)
        if size > _BLOCK_BYTES:
            yield ("\n".join(lines) + "\n").encode()
            lines, size = [], 0
    if lines:
        yield ("\n".join(lines) + "\n").encode()
