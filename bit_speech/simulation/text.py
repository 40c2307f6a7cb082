"""Sentences that simulated participants attempt, and how they are pronounced."""

from __future__ import annotations

import lzma
import re
from functools import cache
from pathlib import Path

from configuration_bit.phoneme_inventory_bit import SIL_TOKEN
from processing_bit.phonemization_bit import cmudict_pronunciations

SENTENCE_FOLDER = Path(__file__).parent / "sentences"
SENTENCE_SOURCES = ("t12", "t15", "tatoeba", "read_speech")
"""Names of the sentence lists that travel with the package; licences are in `sentences/SOURCE.txt`."""

# The vocabulary of the 50-word set of Moses et al. 2021 (doi:10.1056/NEJMoa2027540), also used with imagined speech.
FIFTY_WORDS = tuple(
    [
        "am",
        "are",
        "bad",
        "bring",
        "clean",
        "closer",
        "comfortable",
        "coming",
        "computer",
        "do",
        "faith",
        "family",
        "feel",
        "glasses",
        "going",
        "good",
        "goodbye",
        "have",
        "hello",
        "help",
        "here",
        "hope",
        "how",
        "hungry",
        "i",
        "is",
        "it",
        "like",
        "music",
        "my",
        "need",
        "no",
        "not",
        "nurse",
        "okay",
        "outside",
        "please",
        "right",
        "success",
        "tell",
        "that",
        "they",
        "thirsty",
        "tired",
        "up",
        "very",
        "what",
        "where",
        "yes",
        "you",
    ]
)

_NOT_A_WORD = re.compile(r"[^a-z' ]")
_FIFTY_WORD_TEMPLATES = (
    ("i am {state}", "you are {state}", "they are {state}", "it is {state}", "my {thing} is {state}"),
    ("i am not {state}", "you are not very {state}", "they are not {state}", "is it {state}", "are you {state}"),
    ("bring my {thing} here", "please bring my {thing}", "where is my {thing}", "i need my {thing}", "tell my {thing}"),
    ("what do you {verb}", "how do you {verb}", "i {verb} you", "they {verb} my {thing}", "do you {verb} it"),
    ("my {thing} is coming", "i am going {place}", "are they going {place}", "my {thing} is {place}", "is it {place}"),
)
_FIFTY_WORD_SLOTS = {
    "state": (
        "bad",
        "good",
        "clean",
        "comfortable",
        "hungry",
        "thirsty",
        "tired",
        "okay",
        "right",
        "very good",
        "closer",
    ),
    "thing": ("computer", "family", "glasses", "music", "nurse", "faith", "hope", "success"),
    "verb": ("like", "need", "feel", "have", "help", "bring", "hope"),
    "place": ("outside", "here", "up", "up here", "closer"),
}
_FIFTY_WORD_ENDS = ("", "please", "okay", "yes", "no", "hello")


@cache
def _read(path: Path) -> tuple[str, ...]:
    with lzma.open(path, "rt", encoding="utf-8") as file:
        return tuple(file.read().splitlines())


def load_sentences(source: str) -> list[str]:
    """Load one of the sentence lists that travel with the package.

    Args:
        source (`str`): `"t12"` (8,800 prompts of participant T12, CC0), `"t15"` (8,072 training sentences of
            participant T15, CC0), `"tatoeba"` (69,241 short sentences, CC-BY 2.0 FR), `"read_speech"` (47,187
            sentences of LJ Speech, VCTK and LibriTTS, public domain and CC-BY-4.0) or `"fifty_words"` (short sentences
            composed of the 50-word vocabulary of Moses et al. 2021, made here).

    Returns:
        `list[str]`: one sentence each, in the order of the source; `"t12"` and `"t15"` keep their repeats.

    Raises:
        ValueError: when there is no such list.

    Example:
        >>> len(load_sentences("t12"))
        8800
    """
    if source == "fifty_words":
        return _fifty_word_sentences()
    if source not in SENTENCE_SOURCES:
        raise ValueError(f"no sentence list {source!r}; choose one of {', '.join((*SENTENCE_SOURCES, 'fifty_words'))}")
    return list(_read(SENTENCE_FOLDER / f"{source}.txt.xz"))


def _fifty_word_sentences() -> list[str]:
    sentences: dict[str, None] = {}
    for template in (template for group in _FIFTY_WORD_TEMPLATES for template in group):
        slot = re.search(r"{(\w+)}", template)
        fillers = _FIFTY_WORD_SLOTS[slot.group(1)] if slot else ("",)
        for filler in fillers:
            core = re.sub(r"{\w+}", filler, template)
            for end in _FIFTY_WORD_ENDS:
                sentences[f"{core} {end}".strip()] = None
                if end:
                    sentences[f"{end} {core}"] = None
    return list(sentences)


def normalize_sentence(text: str) -> str:
    """Reduce a sentence to lower-case words with apostrophes, the form in which two sentences count as the same.

    Args:
        text (`str`): a sentence with any case and punctuation.

    Returns:
        `str`: letters, apostrophes and single spaces; hyphens separate words.

    Example:
        >>> normalize_sentence("Well-known, isn't it?")
        "well known isn't it"
    """
    text = text.lower().replace("’", "'").replace("-", " ")
    words = (word.strip("'") if word.startswith("'") and word.endswith("'") else word for word in text.split())
    return " ".join(_NOT_A_WORD.sub("", " ".join(words)).split())


def pronounce(text: str) -> list[str] | None:
    """Turn a sentence into phonemes with SIL after every word, including the last.

    Args:
        text (`str`): a sentence; case and punctuation do not matter.

    Returns:
        `list[str]` or `None`: ARPAbet without stress, the first CMUdict pronunciation of every word; None when a word
        is not in CMUdict, the text holds a digit, or nothing is left to say.

    Example:
        >>> pronounce("Hello!")
        ['HH', 'AH', 'L', 'OW', 'SIL']
    """
    words = normalize_sentence(text).split()
    if not words or re.search(r"\d", text) or not text.isprintable():
        return None
    pronunciations = cmudict_pronunciations()
    phonemes: list[str] = []
    for word in words:
        entry = pronunciations.get(word) or pronunciations.get(word.strip("'"))
        if entry is None:
            return None
        phonemes.extend(entry)
        phonemes.append(SIL_TOKEN)
    return phonemes
