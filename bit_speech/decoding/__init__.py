"""Phoneme probabilities in, words out: greedy and beam-search decoding, lexicons, n-gram language models."""

from .beam_search import BeamSearchDecoder, Hypothesis, Word
from .build_lm import build_ngram_lm
from .greedy import greedy_decode
from .language_model import NGramLM
from .lexicon import Lexicon
from .rescoring import CausalLMRescorer, RescoringWeights, rescore
from .tuning import tune_decoder

__all__ = [
    "BeamSearchDecoder",
    "CausalLMRescorer",
    "Hypothesis",
    "Lexicon",
    "NGramLM",
    "RescoringWeights",
    "Word",
    "build_ngram_lm",
    "greedy_decode",
    "rescore",
    "tune_decoder",
]
