"""Predictions in, numbers out: error rates with intervals, alignment, submission files, and the report on them."""

from bit_speech.evaluation.ctc_alignment import AlignedLabel, align_ctc
from bit_speech.evaluation.error_rates import (
    AlignedToken,
    ErrorRate,
    PairedComparison,
    align_tokens,
    align_words,
    character_error_rate,
    edit_counts,
    error_rate,
    error_rate_by_group,
    normalize_brain_to_text_24,
    normalize_brain_to_text_25,
    normalize_text,
    paired_bootstrap,
    phoneme_error_rate,
    split_words,
    word_error_rate,
)
from bit_speech.evaluation.submissions import submission_order, write_submission_24, write_submission_25

__all__ = [
    "AlignedLabel",
    "AlignedToken",
    "ErrorRate",
    "PairedComparison",
    "align_ctc",
    "align_tokens",
    "align_words",
    "character_error_rate",
    "edit_counts",
    "error_rate",
    "error_rate_by_group",
    "normalize_brain_to_text_24",
    "normalize_brain_to_text_25",
    "normalize_text",
    "paired_bootstrap",
    "phoneme_error_rate",
    "split_words",
    "submission_order",
    "word_error_rate",
    "write_submission_24",
    "write_submission_25",
]
