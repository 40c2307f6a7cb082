"""Phoneme error rate as a metric of Hugging Face Evaluate, pooled over sentences; SIL counts as a phoneme."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from bit_speech.evaluation.error_rates import phoneme_error_rate

_DESCRIPTION = (
    "Phoneme error rate: edits divided by reference phonemes, both summed over sentences. SIL counts as a phoneme."
)
_INPUTS = """
Args:
    predictions (list of str): phonemes separated by spaces, after the CTC collapse.
    references (list of str): phonemes separated by spaces.
    num_bootstrap (int): resamples of sentences for the 95 % interval; default 0, no interval.
Returns:
    per, low, high, errors, reference_length, substitutions, insertions, deletions, num_sentences.
"""


class PhonemeErrorRate(evaluate.Metric):
    """Phoneme error rate for `evaluate`: `compute(predictions=[...], references=[...])["per"]`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.Value("string"), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self, predictions: list[str], references: list[str], num_bootstrap: int = 0, seed: int = 0
    ) -> dict[str, Any]:
        result = phoneme_error_rate(references, predictions, num_bootstrap=num_bootstrap, seed=seed).to_dict()
        return {"per": result.pop("rate"), **result}
