"""Word error rate as a metric of Hugging Face Evaluate: pooled, with the text normalisation of the benchmarks."""

from __future__ import annotations

from typing import Any

import datasets
import evaluate

from bit_speech.evaluation.error_rates import word_error_rate

_DESCRIPTION = "Word error rate: edits divided by reference words, both summed over sentences, after normalisation."
_INPUTS = """
Args:
    predictions (list of str): decoded sentences.
    references (list of str): what was to be said.
    normalization (str): brain_to_text_25 (default), brain_to_text_24 or none.
    num_bootstrap (int): resamples of sentences for the 95 % interval; default 0, no interval.
Returns:
    wer, low, high, errors, reference_length, substitutions, insertions, deletions, num_sentences.
"""


class WordErrorRate(evaluate.Metric):
    """Word error rate for `evaluate`: `compute(predictions=[...], references=[...])["wer"]`."""

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
        self,
        predictions: list[str],
        references: list[str],
        normalization: str = "brain_to_text_25",
        num_bootstrap: int = 0,
        seed: int = 0,
    ) -> dict[str, Any]:
        result = word_error_rate(references, predictions, normalization, num_bootstrap, seed).to_dict()
        return {"wer": result.pop("rate"), **result}
