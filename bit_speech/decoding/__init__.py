"""Phoneme probabilities in, words out: greedy and beam-search decoding, lexicons, n-gram language models."""

from .beam_search import BeamSearchDecoder, Hypothesis, Word
from .build_lm import build_ngram_lm
from .fusion import Candidate, ConfusionNetwork, candidates_from_nbest, confusion_network, vote
from .greedy import greedy_decode
from .language_model import NGramLM
from .lexicon import Lexicon
from .rescoring import CausalLMRescorer, RescoringWeights, rescore
from .tuning import tune_decoder

__all__ = [
    "BeamSearchDecoder",
    "Candidate",
    "CausalLMRescorer",
    "ConfusionNetwork",
    "Hypothesis",
    "Lexicon",
    "NGramLM",
    "RescoringWeights",
    "Word",
    "build_ngram_lm",
    "candidates_from_nbest",
    "confusion_network",
    "greedy_decode",
    "rescore",
    "tune_decoder",
    "vote",
]
