"""Where a decoder errs: by how often a word occurs in text, and by how long a sentence is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise

import numpy as np

from bit_speech.evaluation.error_rates import (
    ErrorRate,
    _summarize,
    align_tokens,
    error_rate_by_group,
    split_words,
)

FREQUENCY_EDGES = (0, 1, 10, 100, 1000)
"""Smallest counts of the classes that [`errors_by_frequency`] makes by default; words never seen are the first."""


@dataclass(frozen=True)
class ErrorClass:
    """Error rate of one class of words or sentences.

    Args:
        low (`int`): smallest count or length in the class.
        high (`int`, *optional*): largest; None where there is no bound.
        error (`ErrorRate`): errors over reference words of the class, with a 95 % interval over sentences.
    """

    low: int
    high: int | None
    error: ErrorRate

    @property
    def name(self) -> str:
        """The class in words, such as `1-9`, `0` or `1000+` (`str`)."""
        if self.high is None:
            return f"{self.low}+"
        return str(self.low) if self.low == self.high else f"{self.low}-{self.high}"

    def to_dict(self) -> dict[str, object]:
        """Give the class as JSON can hold it.

        Returns:
            `dict`: bounds, name, and the fields of the error rate.
        """
        return {"name": self.name, "low": self.low, "high": self.high, "error": asdict(self.error)}


def word_counts(sentences: Iterable[str], normalization: str = "brain_to_text_25") -> Counter[str]:
    """Count the words of a text, for example of that which a language model was built from.

    Args:
        sentences (iterable of `str`): the text.
        normalization (`str`, *optional*): see `normalize_text`.

    Returns:
        `Counter[str]`: word -> occurrences.

    Example:
        ```python
        >>> word_counts(["I see.", "i do"])["i"]
        2

        ```
    """
    return Counter(word for sentence in sentences for word in split_words(sentence, normalization))


def errors_by_frequency(
    references: Sequence[str],
    predictions: Sequence[str],
    counts: Mapping[str, int],
    edges: Sequence[int] = FREQUENCY_EDGES,
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> list[ErrorClass]:
    """Error rate of frequent and of rare words.

    Args:
        references (`list[str]`): what was said.
        predictions (`list[str]`): what was decoded, in the same order.
        counts (`Mapping[str, int]`): how often each word occurs in some text, from [`word_counts`].
        edges (sequence of `int`, *optional*): smallest count of each class, rising, the first one 0.
        normalization (`str`, *optional*): see `normalize_text`.
        num_bootstrap (`int`, *optional*): resamples of sentences.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        `list[ErrorClass]`: rare words first; classes without a reference word are left out. A substitution or deletion
        belongs to the word that was said. An insertion belongs to the class of the inserted word, because it answers to
        no word that was said; so the errors of all classes add up to those of the word error rate, as far as every
        inserted word's class has a reference word.

    Raises:
        ValueError: when `edges` do not rise from 0, or the lists are empty or differ in length.

    Example:
        ```python
        >>> classes = errors_by_frequency(["see the gnu"], ["see the new"], {"see": 5, "the": 80}, edges=(0, 1))
        >>> [(one.name, one.error.errors, one.error.reference_length) for one in classes]
        [('0', 1, 1), ('1+', 0, 2)]

        ```
    """
    _check_edges(edges, 0)
    _check_pairs(references, predictions)
    table = np.zeros((len(edges), len(references), 5), dtype=np.int64)
    columns = {"substitution": 2, "insertion": 3, "deletion": 4}
    for row, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        for step in align_tokens(split_words(reference, normalization), split_words(prediction, normalization)):
            word = step.prediction if step.reference is None else step.reference
            place = int(np.searchsorted(edges, counts.get(str(word), 0), side="right")) - 1
            table[place, row, 1] += step.reference is not None
            if step.operation != "correct":
                table[place, row, [0, columns[step.operation]]] += 1
    return _classes(edges, [_summarize(one, num_bootstrap, seed) for one in table])


def errors_by_length(
    references: Sequence[str],
    predictions: Sequence[str],
    edges: Sequence[int] = (1, 3, 5, 7, 10, 15),
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> list[ErrorClass]:
    """Word error rate of short and of long sentences.

    Args:
        references (`list[str]`): what was said.
        predictions (`list[str]`): what was decoded, in the same order.
        edges (sequence of `int`, *optional*): smallest number of words of each class, rising. Sentences shorter than
            the first are left out.
        normalization (`str`, *optional*): see `normalize_text`.
        num_bootstrap (`int`, *optional*): resamples within each class.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        `list[ErrorClass]`: short sentences first; classes without a sentence are left out.

    Raises:
        ValueError: when `edges` do not rise, or the lists are empty or differ in length.

    Example:
        ```python
        >>> classes = errors_by_length(["go", "i see you now"], ["go", "i see you"], edges=(1, 3))
        >>> [(one.name, one.error.errors) for one in classes]
        [('1-2', 0), ('3+', 1)]

        ```
    """
    _check_edges(edges, None)
    _check_pairs(references, predictions)
    lengths = [len(split_words(reference, normalization)) for reference in references]
    groups = [int(np.searchsorted(edges, length, side="right")) - 1 for length in lengths]
    found = error_rate_by_group(references, predictions, groups, "word", normalization, num_bootstrap, seed)
    return _classes(edges, [found.get(place) for place in range(len(edges))])


def _classes(edges: Sequence[int], rates: Sequence[ErrorRate | None]) -> list[ErrorClass]:
    highs = [after - 1 for _, after in pairwise(edges)] + [None]
    return [
        ErrorClass(int(low), high, rate)
        for low, high, rate in zip(edges, highs, rates, strict=True)
        if rate is not None and rate.reference_length
    ]


def _check_edges(edges: Sequence[int], first: int | None) -> None:
    if not len(edges) or (first is not None and edges[0] != first) or any(a >= b for a, b in pairwise(edges)):
        raise ValueError(f"edges is {tuple(edges)}; expected rising numbers{'' if first is None else f' from {first}'}")


def _check_pairs(references: Sequence[str], predictions: Sequence[str]) -> None:
    if isinstance(references, str) or len(references) != len(predictions) or not len(references):
        raise ValueError(
            f"{len(references)} references and {len(predictions)} predictions; give lists of equal length, not empty"
        )
