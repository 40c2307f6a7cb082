"""Reading and writing ARPA files, plain or compressed, with a compiled line parser."""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any, NamedTuple

import numba
import numpy as np

_BLOCK_BYTES = 1 << 22
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open, ".bz2": bz2.open}
_COUNT = re.compile(rb"^ngram\s+(\d+)\s*=\s*(\d+)$")

# What the parser found when it stopped.
_NEEDS_MORE, _BLANK_OR_SECTION, _BAD_NUMBER, _UNKNOWN_WORD, _WRONG_FIELDS, _DUPLICATE_WORD, _POSITIVE = range(7)
_PROBLEMS = {
    _BAD_NUMBER: "a number was expected",
    _UNKNOWN_WORD: "a word is not among the 1-grams",
    _WRONG_FIELDS: "expected a log10 probability, the words and, below the highest order, an optional backoff",
    _DUPLICATE_WORD: "the word was already listed",
    _POSITIVE: "a log10 probability above zero",
}


class ArpaTables(NamedTuple):
    """What an ARPA file holds, in the order of the file.

    Args:
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words in UTF-8, one after the other.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        ngrams (`list` of `np.ndarray` of shape `(n, k)`, int32): word indices, one array per order k.
        log10_probs (`list` of `np.ndarray` of shape `(n,)`, float64): log10 probabilities.
        log10_backoffs (`list` of `np.ndarray` of shape `(n,)`, float64): log10 backoff weights, 0 where there is none.
    """

    vocabulary: np.ndarray
    offsets: np.ndarray
    ngrams: list[np.ndarray]
    log10_probs: list[np.ndarray]
    log10_backoffs: list[np.ndarray]


def open_binary(path: str | os.PathLike[str], mode: str = "rb") -> IO[bytes]:
    """Open a file that may be compressed; `.gz`, `.xz` and `.bz2` are known by their suffix.

    Args:
        path (`str`): the file.
        mode (`str`): `"rb"` or `"wb"`.

    Returns:
        file object of bytes.
    """
    path = Path(path)
    suffix = Path(path.name.removesuffix(".tmp")).suffix
    opener: Callable[..., IO[bytes]] = _OPENERS.get(suffix, open)
    return opener(path, mode)


def is_arpa(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is an ARPA file, compressed or not.

    Args:
        path (`str`): the file; it need not exist.

    Returns:
        `bool`: True for `.arpa` and `.arpa` with a suffix of compression.

    Example:
        >>> is_arpa("lm.arpa.xz"), is_arpa("lm.bin")
        (True, False)
    """
    path = Path(path)
    return path.suffix == ".arpa" or (path.suffix in _OPENERS and Path(path.stem).suffix == ".arpa")


@numba.njit(nogil=True, cache=True)
def hash_bytes(data, begin, end):
    """FNV-1a of a slice of bytes."""
    value = np.uint64(0xCBF29CE484222325)
    for i in range(begin, end):
        value = (value ^ np.uint64(data[i])) * np.uint64(0x100000001B3)
    return value ^ (value >> np.uint64(29))


@numba.njit(nogil=True, cache=True)
def find_word(table, vocabulary, offsets, data, begin, end):
    """Slot of a word in the open-addressing table: its entry is the word index, or -1 when the word is new."""
    mask = np.int64(len(table) - 1)
    slot = np.int64(hash_bytes(data, begin, end) & np.uint64(mask))
    while table[slot] >= 0:
        word = table[slot]
        low = offsets[word]
        if offsets[word + 1] - low == end - begin:
            same = True
            for i in range(end - begin):
                if vocabulary[low + i] != data[begin + i]:
                    same = False
                    break
            if same:
                return slot
        slot = (slot + 1) & mask
    return slot


@numba.njit(nogil=True, cache=True)
def word_table(vocabulary, offsets):
    """Open-addressing table for `find_word` over all words."""
    num_words = len(offsets) - 1
    size = 16
    while size < 2 * num_words:
        size *= 2
    table = np.full(size, -1, dtype=np.int32)
    for word in range(num_words):
        table[find_word(table, vocabulary, offsets, vocabulary, offsets[word], offsets[word + 1])] = word
    return table


@numba.njit(nogil=True, cache=True)
def find_words(table, vocabulary, offsets, data, ends):
    """Indices of the words between consecutive `ends` of `data`; -1 for those that are not there."""
    found = np.empty(len(ends) - 1, dtype=np.int64)
    for i in range(len(found)):
        found[i] = table[find_word(table, vocabulary, offsets, data, ends[i], ends[i + 1])]
    return found


@numba.njit(nogil=True, cache=True)
def _parse_number(data, begin, end):
    """Decimal number and whether it was one."""
    sign = 1.0
    i = begin
    if i < end and (data[i] == 45 or data[i] == 43):
        if data[i] == 45:
            sign = -1.0
        i += 1
    mantissa = 0.0
    digits = 0
    scale = 0
    seen_point = False
    while i < end:
        c = data[i]
        if c >= 48 and c <= 57:
            if digits < 18:
                mantissa = mantissa * 10.0 + (c - 48)
                if mantissa > 0:
                    digits += 1
                if seen_point:
                    scale -= 1
            elif not seen_point:
                scale += 1
        elif c == 46 and not seen_point:
            seen_point = True
        else:
            break
        i += 1
    if i == begin or (i == begin + 1 and (seen_point or data[begin] == 45 or data[begin] == 43)):
        return 0.0, False
    if i < end and (data[i] == 101 or data[i] == 69):
        i += 1
        exponent_sign = 1
        if i < end and (data[i] == 45 or data[i] == 43):
            if data[i] == 45:
                exponent_sign = -1
            i += 1
        if i == end:
            return 0.0, False
        exponent = 0
        while i < end and data[i] >= 48 and data[i] <= 57 and exponent < 1000:
            exponent = exponent * 10 + (data[i] - 48)
            i += 1
        scale += exponent_sign * exponent
    if i != end:
        return 0.0, False
    if scale < 0:
        return sign * mantissa / 10.0 ** (-scale), True
    return sign * mantissa * 10.0**scale, True


@numba.njit(nogil=True, cache=True)
def _parse_rows(data, pos, order, table, vocabulary, offsets, ngrams, probs, backoffs, row):
    """Parse whole lines of one section into the arrays; stop at a blank line, a section line or a problem."""
    size = len(data)
    begins = np.empty(order + 2, dtype=np.int64)
    ends = np.empty(order + 2, dtype=np.int64)
    while row < len(probs):
        end = pos
        while end < size and data[end] != 10:
            end += 1
        if end == size:
            return pos, row, _NEEDS_MORE
        fields = 0
        i = pos
        while i < end:
            while i < end and (data[i] == 32 or data[i] == 9 or data[i] == 13):
                i += 1
            if i == end:
                break
            start = i
            while i < end and data[i] != 32 and data[i] != 9 and data[i] != 13:
                i += 1
            if fields == order + 2:
                return pos, row, _WRONG_FIELDS
            begins[fields] = start
            ends[fields] = i
            fields += 1
        if fields == 0 or (fields == 1 and data[begins[0]] == 92):
            return pos, row, _BLANK_OR_SECTION
        if fields < order + 1:
            return pos, row, _WRONG_FIELDS
        value, good = _parse_number(data, begins[0], ends[0])
        if not good:
            return pos, row, _BAD_NUMBER
        if value > 1e-6:
            return pos, row, _POSITIVE
        probs[row] = min(value, 0.0)
        backoffs[row] = 0.0
        if fields == order + 2:
            value, good = _parse_number(data, begins[order + 1], ends[order + 1])
            if not good:
                return pos, row, _BAD_NUMBER
            backoffs[row] = value
        for k in range(order):
            slot = find_word(table, vocabulary, offsets, data, begins[k + 1], ends[k + 1])
            word = table[slot]
            if order == 1:
                if word >= 0:
                    return pos, row, _DUPLICATE_WORD
                word = row
                low = offsets[row]
                length = ends[k + 1] - begins[k + 1]
                for j in range(length):
                    vocabulary[low + j] = data[begins[k + 1] + j]
                offsets[row + 1] = low + length
                table[slot] = word
            elif word < 0:
                return pos, row, _UNKNOWN_WORD
            ngrams[row, k] = word
        row += 1
        pos = end + 1
    return pos, row, _BLANK_OR_SECTION


class _Lines:
    """A stream of bytes of which lines or blocks of lines can be taken."""

    def __init__(self, stream: IO[bytes], path: Path) -> None:
        self.stream = stream
        self.path = path
        self.data = b""
        self.pos = 0
        self.line = 0
        self.ended = False

    def fill(self) -> bool:
        try:
            block = self.stream.read(_BLOCK_BYTES)
        except (EOFError, OSError, lzma.LZMAError) as error:
            raise ValueError(f"{self.path} cannot be decompressed ({error}); it is damaged or truncated.") from error
        if not block and not self.ended and not self.data.endswith(b"\n"):
            block = b"\n"
        if not block:
            self.ended = True
            return False
        self.data = self.data[self.pos :] + block
        self.pos = 0
        return True

    def next(self) -> bytes | None:
        while True:
            end = self.data.find(b"\n", self.pos)
            if end >= 0:
                line = self.data[self.pos : end]
                self.pos = end + 1
                self.line += 1
                return line.strip()
            if not self.fill():
                return None

    def next_filled(self) -> bytes | None:
        line = self.next()
        while line is not None and not line:
            line = self.next()
        return line


def read_arpa(path: str | os.PathLike[str]) -> ArpaTables:
    """Read an ARPA file of any order, block by block.

    Args:
        path (`str`): the file, plain or `.gz`, `.xz`, `.bz2`.

    Returns:
        `ArpaTables`: words, n-grams and their log10 scores.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is no ARPA file, is truncated, or disagrees with its own counts.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No ARPA file at {path}.")
    with open_binary(path) as stream:
        lines = _Lines(stream, path)
        counts = _read_header(lines)
        table_size = 1 << max(4, int(2 * counts[0]).bit_length())
        table = np.full(table_size, -1, dtype=np.int32)
        # Grown below when the words turn out longer.
        vocabulary = np.empty(16 * counts[0] + 2 * _BLOCK_BYTES, dtype=np.uint8)
        offsets = np.zeros(counts[0] + 1, dtype=np.int64)
        tables = ArpaTables(vocabulary, offsets, [], [], [])
        for order, count in enumerate(counts, start=1):
            section = lines.next_filled()
            if section != b"\\%d-grams:" % order:
                raise ValueError(
                    f"{path}, line {lines.line}: expected `\\{order}-grams:`, found {_show(section)}; the counts of "
                    "the header and the sections must agree."
                )
            vocabulary = _read_section(lines, order, count, table, vocabulary, offsets, tables)
        ending = lines.next_filled()
        if ending != b"\\end\\":
            raise ValueError(f"{path}, line {lines.line}: expected `\\end\\`, found {_show(ending)}.")
    return tables._replace(vocabulary=vocabulary[: offsets[-1]].copy())


def _show(line: bytes | None) -> str:
    return "the end of the file; it is truncated" if line is None else repr(line[:60].decode("utf-8", "replace"))


def _read_header(lines: _Lines) -> list[int]:
    line = lines.next()
    while line is not None and line != b"\\data\\":
        if lines.line > 1000 or b"\0" in line:
            line = None
            break
        line = lines.next()
    if line is None:
        raise ValueError(f"{lines.path} is not an ARPA file: no line `\\data\\` at its beginning.")
    counts: list[int] = []
    while True:
        line = lines.next_filled()
        match = _COUNT.match(line) if line is not None else None
        if match is None:
            if line is not None:
                # Give the line back to whoever reads the first section.
                lines.data = line + b"\n" + lines.data[lines.pos :]
                lines.pos, lines.line = 0, lines.line - 1
            break
        if int(match[1]) != len(counts) + 1:
            raise ValueError(
                f"{lines.path}, line {lines.line}: expected the count of order {len(counts) + 1}, found {_show(line)}."
            )
        counts.append(int(match[2]))
    if not counts or counts[0] == 0:
        raise ValueError(f"{lines.path}: the header names no 1-grams, found {_show(line)}.")
    return counts


def _read_section(
    lines: _Lines,
    order: int,
    count: int,
    table: np.ndarray,
    vocabulary: np.ndarray,
    offsets: np.ndarray,
    tables: ArpaTables,
) -> np.ndarray:
    ngrams = np.empty((count, order), dtype=np.int32)
    probs = np.empty(count, dtype=np.float64)
    backoffs = np.zeros(count, dtype=np.float64)
    row = 0
    while row < count:
        data = np.frombuffer(lines.data, dtype=np.uint8)
        if order == 1 and len(vocabulary) < offsets[row] + len(data):
            vocabulary = np.concatenate([vocabulary, np.empty(max(len(vocabulary), len(data)), dtype=np.uint8)])
        pos, new_row, status = _parse_rows(
            data, lines.pos, order, table, vocabulary, offsets, ngrams, probs, backoffs, row
        )
        lines.line += new_row - row
        lines.pos, row = int(pos), int(new_row)
        if row == count:
            break
        if status in _PROBLEMS:
            bad = lines.next()
            raise ValueError(f"{lines.path}, line {lines.line}: {_PROBLEMS[status]}, found {_show(bad)}.")
        if status == _BLANK_OR_SECTION or not lines.fill():
            raise ValueError(
                f"{lines.path}, line {lines.line + 1}: only {row} of {count} {order}-grams; the file is truncated or "
                "its header is wrong."
            )
    tables.ngrams.append(ngrams)
    tables.log10_probs.append(probs)
    tables.log10_backoffs.append(backoffs)
    return vocabulary


def write_arpa_lines(path: str | os.PathLike[str], lines: Iterator[str]) -> None:
    """Write the lines of an ARPA file, compressed as the suffix says, under a temporary name first.

    Args:
        path (`str`): destination.
        lines (iterator of `str`): lines without their ends.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.tmp")
    try:
        with open_binary(temporary, "wb") as stream:
            block: list[str] = []
            for line in lines:
                block.append(line)
                if len(block) == 50_000:
                    stream.write(("\n".join(block) + "\n").encode())
                    block.clear()
            if block:
                stream.write(("\n".join(block) + "\n").encode())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
