"""Scores of models that spell: characters and words, greedy and with a language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bit_speech.evaluation.error_rates import ErrorRate, character_error_rate, word_error_rate

if TYPE_CHECKING:
    import numpy as np

    from bit_speech.decoding.spelling import SpellingDecoder


def score_spelling(
    texts: Sequence[str], log_probs: Sequence[np.ndarray], tokenizer: Any, decoder: SpellingDecoder | None = None
) -> tuple[dict[str, ErrorRate], dict[str, list[str]]]:
    """Decode character log-probabilities and score what comes out.

    Args:
        texts (list of `str`): what was said.
        log_probs (list of `np.ndarray` of shape `(P, V)`): of the same trials, in the tokenizer's classes.
        tokenizer ([`SpellingTokenizer`]): spells.
        decoder ([`SpellingDecoder`], *optional*): finds words; without it only greedy text is scored.

    Returns:
        `tuple`: pooled rates `cer_greedy`, `wer_greedy` (and `cer_lm`, `wer_lm`), and the texts `greedy` (and `lm`).

    Raises:
        ValueError: when the numbers of texts and trials differ.

    Example:
        >>> import numpy as np
        >>> from processing_bit import SpellingTokenizer
        >>> rates, found = score_spelling(["hi"], [np.log(np.eye(32)[[11, 0, 7]] + 1e-9)], SpellingTokenizer())
        >>> found["greedy"], rates["cer_greedy"].errors
        (['ha'], 1)
    """
    found = {"greedy": [tokenizer.decode_ctc(values.argmax(axis=1)) for values in log_probs]}
    if decoder is not None:
        found["lm"] = [nbest[0].text for nbest in decoder.decode_batch(log_probs)]
    rates = {}
    for name, guesses in found.items():
        rates[f"cer_{name}"] = character_error_rate(texts, guesses)
        rates[f"wer_{name}"] = word_error_rate(texts, guesses)
    return rates, found
