"""Error rates as the benchmarks count them: pooled over sentences, with bootstrap intervals and paired comparisons."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein

Unit = Literal["word", "character", "phoneme"]
Operation = Literal["correct", "substitution", "insertion", "deletion"]

_OUTSIDE_BENCHMARK_ALPHABET = re.compile(r"[^a-zA-Z\- ']")
# Resampled sentences per chunk; keeps the index matrix of the bootstrap near 16 MB.
_BOOTSTRAP_CHUNK = 4_000_000


@dataclass(frozen=True)
class ErrorRate:
    """A pooled error rate with its bootstrap interval and its counts.

    Args:
        rate (`float`): errors divided by reference length, both summed over sentences; 0.08 is 8 %, and above 1 is
            possible.
        low (`float`): lower end of the 95 % interval.
        high (`float`): upper end of the 95 % interval.
        errors (`int`): substitutions + insertions + deletions.
        reference_length (`int`): reference words, characters or phonemes.
        substitutions (`int`): reference tokens replaced by another.
        insertions (`int`): predicted tokens that no reference token answers to.
        deletions (`int`): reference tokens that were not predicted.
        num_sentences (`int`): sentences pooled.

    Example:
        ```python
        >>> rate = word_error_rate(["see you later"], ["see you latter"])
        >>> print(f"{float(rate):.3f}", rate.substitutions, rate.reference_length)
        0.333 1 3

        ```
    """

    rate: float
    low: float
    high: float
    errors: int
    reference_length: int
    substitutions: int
    insertions: int
    deletions: int
    num_sentences: int

    def __float__(self) -> float:
        return self.rate

    def __str__(self) -> str:
        return f"{100 * self.rate:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as plain numbers, for JSON.

        Returns:
            `dict`: field name -> number.
        """
        return asdict(self)


@dataclass(frozen=True)
class PairedComparison:
    """Two systems on the same sentences: difference and ratio of their error rates, with paired bootstrap intervals.

    Args:
        rate_a (`float`): pooled error rate of system A.
        rate_b (`float`): pooled error rate of system B.
        difference (`float`): `rate_a - rate_b`; negative means that A makes fewer errors.
        difference_low (`float`): lower end of its 95 % interval.
        difference_high (`float`): upper end of its 95 % interval.
        ratio (`float`): `rate_a / rate_b`; below 1 means that A makes fewer errors. Infinite when only B is perfect,
            1 when both are.
        ratio_low (`float`): lower end of its 95 % interval.
        ratio_high (`float`): upper end of its 95 % interval.
        share_a_better (`float`): share of resamples in which A makes fewer errors than B (ties count half).
        num_sentences (`int`): sentences compared.
    """

    rate_a: float
    rate_b: float
    difference: float
    difference_low: float
    difference_high: float
    ratio: float
    ratio_low: float
    ratio_high: float
    share_a_better: float
    num_sentences: int

    def __str__(self) -> str:
        return f"{self.ratio:.2f} x [{self.ratio_low:.2f}, {self.ratio_high:.2f}]"

    def to_dict(self) -> dict[str, float | int]:
        """Return the fields as plain numbers.

        Returns:
            `dict`: field name -> number. A ratio against a system without errors is infinite, which JSON does not have.
        """
        return asdict(self)


@dataclass(frozen=True)
class AlignedToken:
    """One step of an alignment between a reference and a prediction.

    Args:
        operation (`str`): `"correct"`, `"substitution"`, `"insertion"` or `"deletion"`.
        reference: the reference token; None for an insertion.
        prediction: the predicted token; None for a deletion.
    """

    operation: Operation
    reference: Any
    prediction: Any


def normalize_brain_to_text_24(text: str) -> str:
    """Normalise a sentence as the Brain-to-Text '24 benchmark does before counting words.

    Args:
        text (`str`): a prompt or a decoded sentence.

    Returns:
        `str`: letters, hyphens, apostrophes and spaces only; `--` removed; lower case; white space at both ends
        removed. Double spaces inside stay, and make empty words in [`split_words`], as in the benchmark.

    Note:
        Digits are deleted, not spelt out. The order of the rules is that of the published scoring code
        (fwillett/speechBCI, cffan/neural_seq_decoder).

    Example:
        ```python
        >>> normalize_brain_to_text_24("Well -- it's OK, isn't it?")
        "well  it's ok isn't it"

        ```
    """
    return _OUTSIDE_BENCHMARK_ALPHABET.sub("", text).replace("--", "").lower().strip()


def normalize_brain_to_text_25(text: str) -> str:
    """Normalise a sentence as the Brain-to-Text '25 benchmark does before counting words.

    Args:
        text (`str`): a prompt or a decoded sentence.

    Returns:
        `str`: letters, hyphens, apostrophes and single spaces only; lower case; a hyphen before a space and `--`
        removed; an apostrophe joined to the word before it.

    Note:
        The version of the published evaluation script (nejm-brain-to-text, `evaluate_model`); a second copy in the
        same repository lacks the rule for a hyphen before a space. Digits are deleted, not spelt out, and inner hyphens
        stay inside a word.

    Example:
        ```python
        >>> normalize_brain_to_text_25("Well-known, I think- it 's  2 late!")
        "well-known i think it's late"

        ```
    """
    text = _OUTSIDE_BENCHMARK_ALPHABET.sub("", text)
    text = text.replace("- ", " ").lower()
    text = text.replace("--", "")
    text = text.replace(" '", "'")
    return " ".join(text.split())


def _unchanged(text: str) -> str:
    return text


_NORMALIZERS: dict[str, Callable[[str], str]] = {
    "brain_to_text_24": normalize_brain_to_text_24,
    "brain_to_text_25": normalize_brain_to_text_25,
    "none": _unchanged,
}


def normalize_text(text: str, benchmark: str = "brain_to_text_25") -> str:
    """Normalise a sentence with the rules of a benchmark.

    Args:
        text (`str`): a prompt or a decoded sentence.
        benchmark (`str`, *optional*): `"brain_to_text_25"`, `"brain_to_text_24"` or `"none"` (text as it is).

    Returns:
        `str`: the normalised sentence.

    Raises:
        ValueError: if the benchmark is unknown or `text` is not a string.

    Example:
        ```python
        >>> normalize_text("How are you, Ma'am?")
        "how are you ma'am"

        ```
    """
    if benchmark not in _NORMALIZERS:
        raise ValueError(f"unknown normalization {benchmark!r}; choose one of {', '.join(sorted(_NORMALIZERS))}")
    if not isinstance(text, str):
        raise ValueError(f"expected a sentence as str, got {type(text).__name__}: {text!r}")
    return _NORMALIZERS[benchmark](text)


def split_words(text: str, benchmark: str = "brain_to_text_25") -> list[str]:
    """Normalise a sentence and cut it into words as a benchmark does.

    Args:
        text (`str`): a prompt or a decoded sentence.
        benchmark (`str`, *optional*): see [`normalize_text`].

    Returns:
        `list[str]`: words. Brain-to-Text '24 cuts at every single space, so that two spaces make an empty word that
        counts.

    Raises:
        ValueError: see [`normalize_text`].

    Note:
        The published '24 code gives an empty sentence one empty word; here it has none, which leaves the number of
        errors of an empty prediction unchanged.

    Example:
        ```python
        >>> split_words("no -- not now", "brain_to_text_24"), split_words("no -- not now", "brain_to_text_25")
        (['no', '', 'not', 'now'], ['no', '-', 'not', 'now'])

        ```
    """
    normalized = normalize_text(text, benchmark)
    if benchmark == "brain_to_text_24":
        return normalized.split(" ") if normalized else []
    return normalized.split()


def word_error_rate(
    references: Sequence[str],
    predictions: Sequence[str],
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> ErrorRate:
    """Word error rate pooled over sentences.

    Args:
        references (`list[str]`): what was to be said.
        predictions (`list[str]`): what was decoded, in the same order.
        normalization (`str`, *optional*): applied to both sides: `"brain_to_text_25"`, `"brain_to_text_24"` or
            `"none"`.
        num_bootstrap (`int`, *optional*): resamples of sentences for the 95 % interval; 0 gives `low = high = rate`.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        [`ErrorRate`]: never a mean of rates per sentence.

    Raises:
        ValueError: for lists of different or zero length, or entries that are not strings.

    Example:
        ```python
        >>> rate = word_error_rate(["I can speak.", "Hello"], ["i can speak", "hello there"])
        >>> rate.errors, rate.reference_length, rate.insertions
        (1, 4, 1)

        ```
    """
    return error_rate(references, predictions, "word", normalization, num_bootstrap, seed)


def character_error_rate(
    references: Sequence[str],
    predictions: Sequence[str],
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> ErrorRate:
    """Character error rate pooled over sentences; spaces count.

    Args:
        references (`list[str]`): what was to be said.
        predictions (`list[str]`): what was decoded, in the same order.
        normalization (`str`, *optional*): see [`word_error_rate`].
        num_bootstrap (`int`, *optional*): see [`word_error_rate`].
        seed (`int`, *optional*): see [`word_error_rate`].

    Returns:
        [`ErrorRate`]: counts are characters of the normalised sentences.

    Raises:
        ValueError: see [`word_error_rate`].

    Example:
        ```python
        >>> character_error_rate(["Ha!"], ["he"]).errors
        1

        ```
    """
    return error_rate(references, predictions, "character", normalization, num_bootstrap, seed)


def phoneme_error_rate(
    references: Sequence[Any], predictions: Sequence[Any], num_bootstrap: int = 10_000, seed: int = 0
) -> ErrorRate:
    """Phoneme error rate pooled over sentences; SIL counts as a phoneme, as in the benchmarks.

    Args:
        references (`list[str]` or `list` of token sequences): `"HH AY SIL"`, `["HH", "AY", "SIL"]` or class indices.
        predictions (like `references`): after the CTC collapse (repeats merged first, then blanks dropped).
        num_bootstrap (`int`, *optional*): see [`word_error_rate`].
        seed (`int`, *optional*): see [`word_error_rate`].

    Returns:
        [`ErrorRate`]: counts are phonemes.

    Raises:
        ValueError: see [`word_error_rate`].

    Example:
        ```python
        >>> rate = phoneme_error_rate(["HH AY SIL"], [["HH", "EY"]])
        >>> rate.substitutions, rate.deletions
        (1, 1)

        ```
    """
    return error_rate(references, predictions, "phoneme", "none", num_bootstrap, seed)


def error_rate(
    references: Sequence[Any],
    predictions: Sequence[Any],
    unit: Unit = "word",
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> ErrorRate:
    """Error rate in any unit, pooled over sentences; what the three named rates are made of.

    Args:
        references (`list`): see [`word_error_rate`] and [`phoneme_error_rate`].
        predictions (`list`): in the same order.
        unit (`str`, *optional*): `"word"`, `"character"` or `"phoneme"`.
        normalization (`str`, *optional*): for words and characters.
        num_bootstrap (`int`, *optional*): resamples of sentences.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        [`ErrorRate`]: with a 95 % percentile interval.

    Raises:
        ValueError: see [`word_error_rate`].
    """
    return _summarize(edit_counts(references, predictions, unit, normalization), num_bootstrap, seed)


def error_rate_by_group(
    references: Sequence[Any],
    predictions: Sequence[Any],
    groups: Sequence[Hashable],
    unit: Unit = "word",
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> dict[Any, ErrorRate]:
    """Error rate of every group of sentences, for example per session.

    Args:
        references (`list`): see [`error_rate`].
        predictions (`list`): in the same order.
        groups (`list`): group of every sentence, for example its `session_id`.
        unit (`str`, *optional*): `"word"`, `"character"` or `"phoneme"`.
        normalization (`str`, *optional*): for words and characters.
        num_bootstrap (`int`, *optional*): resamples within each group.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        `dict`: group -> [`ErrorRate`], groups in order of first appearance.

    Raises:
        ValueError: see [`word_error_rate`]; also if `groups` has another length.

    Example:
        ```python
        >>> rates = error_rate_by_group(["a b", "a b"], ["a b", "a c"], ["monday", "friday"])
        >>> rates["monday"].rate, rates["friday"].rate
        (0.0, 0.5)

        ```
    """
    if len(groups) != len(references):
        raise ValueError(f"{len(groups)} groups for {len(references)} references; give one group per sentence")
    counts = edit_counts(references, predictions, unit, normalization)
    members: dict[Any, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return {group: _summarize(counts[indices], num_bootstrap, seed) for group, indices in members.items()}


def paired_bootstrap(
    references: Sequence[Any],
    predictions_a: Sequence[Any],
    predictions_b: Sequence[Any],
    unit: Unit = "word",
    normalization: str = "brain_to_text_25",
    num_bootstrap: int = 10_000,
    seed: int = 0,
) -> PairedComparison:
    """Compare two systems on the same sentences.

    Both systems are resampled together, so that hard sentences do not widen the interval of their difference.

    Args:
        references (`list`): see [`error_rate`].
        predictions_a (`list`): of system A.
        predictions_b (`list`): of system B.
        unit (`str`, *optional*): `"word"`, `"character"` or `"phoneme"`.
        normalization (`str`, *optional*): for words and characters.
        num_bootstrap (`int`, *optional*): resamples of sentences.
        seed (`int`, *optional*): seed of the resamples.

    Returns:
        [`PairedComparison`]: difference A - B and ratio A / B with 95 % intervals.

    Raises:
        ValueError: see [`word_error_rate`].

    Example:
        ```python
        >>> result = paired_bootstrap(["a b c d"] * 20, ["a b c x"] * 20, ["a b x y"] * 20)
        >>> result.difference, result.ratio, str(result)
        (-0.25, 0.5, '0.50 x [0.50, 0.50]')

        ```
    """
    counts_a = edit_counts(references, predictions_a, unit, normalization)
    counts_b = edit_counts(references, predictions_b, unit, normalization)
    errors_a, errors_b, lengths = counts_a[:, 0], counts_b[:, 0], counts_a[:, 1]
    sums = _resampled_sums(np.stack([errors_a, errors_b, lengths], axis=1), num_bootstrap, seed)
    rates_a, rates_b = _rates(sums[:, 0], sums[:, 2]), _rates(sums[:, 1], sums[:, 2])
    point_a, point_b = (float(_rates(errors.sum(), lengths.sum())) for errors in (errors_a, errors_b))
    difference, ratio = point_a - point_b, float(_ratios(np.array(point_a), np.array(point_b)))
    low, high = _interval(rates_a - rates_b, difference)
    ratio_low, ratio_high = _interval(_ratios(rates_a, rates_b), ratio)
    better = np.mean(rates_a < rates_b) + 0.5 * np.mean(rates_a == rates_b) if num_bootstrap else np.nan
    return PairedComparison(
        rate_a=point_a,
        rate_b=point_b,
        difference=difference,
        difference_low=low,
        difference_high=high,
        ratio=ratio,
        ratio_low=ratio_low,
        ratio_high=ratio_high,
        share_a_better=float(better),
        num_sentences=len(counts_a),
    )


def align_tokens(reference: Sequence[Hashable], prediction: Sequence[Hashable]) -> list[AlignedToken]:
    """Align two token sequences with the fewest edits.

    Args:
        reference (`list`): tokens that were to be produced.
        prediction (`list`): tokens that were produced.

    Returns:
        `list[AlignedToken]`: in reading order. Where several alignments have the fewest edits, the one of rapidfuzz
        is taken (as jiwer does).

    Example:
        ```python
        >>> [step.operation for step in align_tokens("a b c".split(), "a x c d".split())]
        ['correct', 'substitution', 'correct', 'insertion']

        ```
    """
    steps: list[AlignedToken] = []
    for block in Levenshtein.opcodes(list(reference), list(prediction)):
        expected = reference[block.src_start : block.src_end]
        found = prediction[block.dest_start : block.dest_end]
        if block.tag == "equal":
            steps += [AlignedToken("correct", a, b) for a, b in zip(expected, found, strict=True)]
        elif block.tag == "replace":
            steps += [AlignedToken("substitution", a, b) for a, b in zip(expected, found, strict=True)]
        elif block.tag == "delete":
            steps += [AlignedToken("deletion", a, None) for a in expected]
        else:
            steps += [AlignedToken("insertion", None, b) for b in found]
    return steps


def align_words(reference: str, prediction: str, normalization: str = "brain_to_text_25") -> list[AlignedToken]:
    """Align two sentences word by word, for showing where a decoder erred.

    Args:
        reference (`str`): what was to be said.
        prediction (`str`): what was decoded.
        normalization (`str`, *optional*): see [`normalize_text`].

    Returns:
        `list[AlignedToken]`: tokens are normalised words.

    Raises:
        ValueError: see [`normalize_text`].

    Example:
        ```python
        >>> align_words("I do, too.", "i do")[-1]
        AlignedToken(operation='deletion', reference='too', prediction=None)

        ```
    """
    return align_tokens(split_words(reference, normalization), split_words(prediction, normalization))


def edit_counts(
    references: Sequence[Any],
    predictions: Sequence[Any],
    unit: Unit = "word",
    normalization: str = "brain_to_text_25",
) -> np.ndarray:
    """Count the edits of every sentence.

    Args:
        references (`list`): see [`error_rate`].
        predictions (`list`): in the same order.
        unit (`str`, *optional*): `"word"`, `"character"` or `"phoneme"`.
        normalization (`str`, *optional*): for words and characters.

    Returns:
        `np.ndarray` of shape `(N, 5)`, int64: errors, reference length, substitutions, insertions, deletions.

    Raises:
        ValueError: see [`word_error_rate`].
    """
    for name, values in (("references", references), ("predictions", predictions)):
        if isinstance(values, str):
            raise ValueError(f"{name} is one string, {values[:40]!r}; give a list of sentences, even for one sentence")
    if len(references) != len(predictions):
        raise ValueError(
            f"{len(references)} references but {len(predictions)} predictions; give one prediction per reference"
        )
    if len(references) == 0:
        raise ValueError("there are no sentences to score: references and predictions are empty lists")
    counts = np.zeros((len(references), 5), dtype=np.int64)
    for index, (reference, prediction) in enumerate(zip(references, predictions, strict=True)):
        expected = _tokens(reference, unit, normalization, f"reference {index}")
        found = _tokens(prediction, unit, normalization, f"prediction {index}")
        tags = [edit.tag for edit in Levenshtein.editops(expected, found)]
        counts[index] = (len(tags), len(expected), tags.count("replace"), tags.count("insert"), tags.count("delete"))
    return counts


def _tokens(value: Any, unit: str, normalization: str, where: str) -> list[Any]:
    if value is None:
        raise ValueError(f"{where} is None: this sentence has no text to score; leave it out of both lists")
    if unit == "phoneme":
        if isinstance(value, str):
            return value.split()
        tokens = np.asarray(value)
        if tokens.ndim != 1:
            raise ValueError(f"{where} has shape {tokens.shape}; give one flat sequence of phonemes or 'HH AY SIL'")
        return tokens.tolist()
    if not isinstance(value, str):
        raise ValueError(f"{where} is {type(value).__name__}, not a sentence: {value!r}")
    if unit == "word":
        return split_words(value, normalization)
    if unit == "character":
        return list(normalize_text(value, normalization))
    raise ValueError(f"unknown unit {unit!r}; choose word, character or phoneme")


def _rates(errors: Any, lengths: Any) -> Any:
    """Errors per reference token; with an empty reference every inserted token is one error, as in jiwer."""
    return np.asarray(errors) / np.maximum(np.asarray(lengths), 1)


def _ratios(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    both_zero = (numerator == 0) & (denominator == 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(both_zero, 1.0, numerator / denominator)


def _interval(values: np.ndarray, point: float) -> tuple[float, float]:
    if values.size == 0:
        return point, point
    if np.isinf(values).any():
        # Interpolation between a number and infinity is not a number; the order statistic is.
        low, high = np.quantile(values, (0.025, 0.975), method="nearest")
    else:
        low, high = np.quantile(values, (0.025, 0.975))
    return float(low), float(high)


def _resampled_sums(columns: np.ndarray, num_bootstrap: int, seed: int) -> np.ndarray:
    """Column sums of resampled rows: `(N, K)` -> `(num_bootstrap, K)`."""
    if num_bootstrap < 0:
        raise ValueError(f"num_bootstrap is {num_bootstrap}; give 0 (no interval) or more")
    num_sentences, num_columns = columns.shape
    generator = np.random.default_rng(seed)
    sums = np.empty((num_bootstrap, num_columns), dtype=np.int64)
    step = max(1, _BOOTSTRAP_CHUNK // num_sentences)
    for start in range(0, num_bootstrap, step):
        stop = min(start + step, num_bootstrap)
        drawn = generator.integers(0, num_sentences, size=(stop - start, num_sentences), dtype=np.int32)
        for column in range(num_columns):
            sums[start:stop, column] = columns[:, column][drawn].sum(axis=1)
    return sums


def _summarize(counts: np.ndarray, num_bootstrap: int, seed: int) -> ErrorRate:
    total = counts.sum(axis=0)
    rate = float(_rates(total[0], total[1]))
    sums = _resampled_sums(counts[:, :2], num_bootstrap, seed)
    low, high = _interval(_rates(sums[:, 0], sums[:, 1]), rate)
    return ErrorRate(
        rate=rate,
        low=low,
        high=high,
        errors=int(total[0]),
        reference_length=int(total[1]),
        substitutions=int(total[2]),
        insertions=int(total[3]),
        deletions=int(total[4]),
        num_sentences=len(counts),
    )
