"""Choose a decoder's weights on validation sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from .beam_search import BeamSearchDecoder

_NOT_COMPARED = re.compile(r"[^a-z' ]")


def tune_decoder(
    log_probs: Sequence[npt.ArrayLike],
    references: Sequence[str],
    decoder: BeamSearchDecoder,
    *,
    acoustic_scales: Sequence[float] = (0.2, 0.28, 0.4, 0.56, 0.8, 1.1),
    blank_penalties: Sequence[float] = (0.0, 1.5, 3.0, 4.5),
    word_scores: Sequence[float] = (-1.0, 0.0, 1.0),
    lm_weights: Sequence[float] | None = None,
    max_sentences: int = 60,
    num_threads: int = 1,
) -> BeamSearchDecoder:
    """Choose acoustic scale, blank penalty, word score and, when asked, language-model weight by word errors.

    One setting is searched after the other, and the acoustic scale once more, more finely, at the end. Among settings
    with equally many errors the one whose right sentences lead most clearly is taken.

    Args:
        log_probs (list of `np.ndarray` of shape `(T, 41)`): natural-log probabilities of validation sentences.
        references (list of `str`): what was said, one text for each.
        decoder (`BeamSearchDecoder`): lexicon, language model and the settings that are not searched.
        acoustic_scales (sequence of `float`): scales to try. What matters is the ratio to the language-model weight.
        blank_penalties (sequence of `float`): natural-log blank penalties to try.
        word_scores (sequence of `float`): word scores to try.
        lm_weights (sequence of `float`, optional): language-model weights to try; by default the decoder's is kept.
        max_sentences (`int`): use the first sentences only, to save time.
        num_threads (`int`): how many sentences to decode at a time.

    Returns:
        `BeamSearchDecoder`: the same decoder with the chosen weights; read them from its attributes.

    Raises:
        ValueError: when there is nothing to tune on, or the numbers of utterances and references differ.

    Example:
        >>> import numpy as np
        >>> from bit_speech.decoding import Lexicon
        >>> decoder = BeamSearchDecoder(Lexicon.from_words({"a": "AH"}), None)
        >>> log_probs = np.log(np.eye(41)[[0, 3, 40]] * 0.9 + 0.1 / 41)
        >>> tune_decoder([log_probs], ["a"], decoder).decode(log_probs)[0].text
        'a'
    """
    if len(log_probs) != len(references):
        raise ValueError(f"{len(log_probs)} utterances but {len(references)} references; give one text for each.")
    if not len(references):
        raise ValueError("No validation sentences to tune on.")
    if max_sentences < 1:
        raise ValueError(f"max_sentences is {max_sentences}; expected at least 1.")
    utterances = list(log_probs[:max_sentences])
    words = [_words(text) for text in references[:max_sentences]]

    def cost(candidate: BeamSearchDecoder) -> tuple[int, float]:
        errors, doubt = 0, 0.0
        for best, reference in zip(candidate.decode_batch(utterances, num_threads), words, strict=True):
            errors += count_word_errors(reference, _words(best[0].text))
            scores = np.array([hypothesis.score for hypothesis in best])
            right = np.array([_words(hypothesis.text) == reference for hypothesis in best])
            share = np.exp(scores - np.logaddexp.reduce(scores))[right].sum() if np.isfinite(scores).all() else 0.0
            doubt -= float(share)
        return errors, doubt

    def search(name: str, values: Sequence[float], best: BeamSearchDecoder, lowest: tuple[int, float]) -> tuple:
        for value in values:
            if value != getattr(best, name):
                candidate = best.with_settings(**{name: float(value)})
                found = cost(candidate)
                if found < lowest:
                    best, lowest = candidate, found
        return best, lowest

    best, lowest = decoder, cost(decoder)
    best, lowest = search("acoustic_scale", acoustic_scales, best, lowest)
    best, lowest = search("blank_penalty", blank_penalties, best, lowest)
    best, lowest = search("word_score", word_scores, best, lowest)
    if lm_weights is not None:
        best, lowest = search("lm_weight", lm_weights, best, lowest)
    best, _ = search("acoustic_scale", [best.acoustic_scale * factor for factor in (0.85, 1.18)], best, lowest)
    return best


def _words(text: str) -> list[str]:
    return _NOT_COMPARED.sub(" ", text.lower()).split()


def count_word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Substitutions, insertions and deletions between two word sequences.

    Args:
        reference (sequence of `str`): what was said.
        hypothesis (sequence of `str`): what was decoded.

    Returns:
        `int`: Levenshtein distance.

    Example:
        >>> count_word_errors("a b c".split(), "a c d".split())
        2
    """
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != found))
    return row[-1]
