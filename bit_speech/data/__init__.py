"""Trials: their schema, reading, splitting, statistics, augmentation, batches, and how converters write them."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bit_speech.data.augmentation import Augmentation
    from bit_speech.data.collators import CTCCollator
    from bit_speech.data.corpus_building import CorpusSource, build_corpus
    from bit_speech.data.corpus_streaming import stream_corpus
    from bit_speech.data.pretraining_corpus import CorpusBatchSampler, PretrainingCorpus, corpus_loader
    from bit_speech.data.reading import TrialReader, load_trials
    from bit_speech.data.samplers import SessionBatchSampler
    from bit_speech.data.schema import trial_features, validate_trial
    from bit_speech.data.splits import check_leakage, split_by_block, split_by_session
    from bit_speech.data.statistics import block_statistics, check_normalization, session_statistics
    from bit_speech.data.trial_files import read_trial_file

# Loaded when asked for: a converter needs no torch, and a reader no collator.
_HOMES = {
    "Augmentation": "augmentation",
    "CTCCollator": "collators",
    "CorpusBatchSampler": "pretraining_corpus",
    "CorpusSource": "corpus_building",
    "PretrainingCorpus": "pretraining_corpus",
    "SessionBatchSampler": "samplers",
    "TrialReader": "reading",
    "block_statistics": "statistics",
    "build_corpus": "corpus_building",
    "check_leakage": "splits",
    "check_normalization": "statistics",
    "corpus_loader": "pretraining_corpus",
    "load_trials": "reading",
    "read_trial_file": "trial_files",
    "session_statistics": "statistics",
    "split_by_block": "splits",
    "split_by_session": "splits",
    "stream_corpus": "corpus_streaming",
    "trial_features": "schema",
    "validate_trial": "schema",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
