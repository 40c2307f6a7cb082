"""Phoneme probabilities in, words out: greedy and beam-search decoding, lexicons, n-gram language models."""

from .beam_search import BeamSearchDecoder, Hypothesis, Word
from .build_lm import build_ngram_lm
from .fusion import Candidate, ConfusionNetwork, candidates_from_nbest, confusion_network, vote
from .greedy import greedy_decode
from .joint import JointDecoder, JointResult, JointWeights, choose, proposals, tune_joint
from .language_model import NGramLM
from .lattice import Lattice, LatticeArc
from .lexicon import Lexicon
from .merging import LLMMerger, merger_prompt
from .rescoring import CausalLMRescorer, RescoringWeights, hypotheses_from_lattice, rescore
from .sentence_likelihood import SentenceLikelihood
from .streaming import DecoderState, PartialText
from .tuning import optimize_decoder, tune_decoder, tune_rescoring

__all__ = [
    "BeamSearchDecoder",
    "Candidate",
    "CausalLMRescorer",
    "ConfusionNetwork",
    "DecoderState",
    "Hypothesis",
    "JointDecoder",
    "JointResult",
    "JointWeights",
    "Lattice",
    "LatticeArc",
    "LLMMerger",
    "Lexicon",
    "NGramLM",
    "PartialText",
    "RescoringWeights",
    "SentenceLikelihood",
    "Word",
    "build_ngram_lm",
    "candidates_from_nbest",
    "choose",
    "confusion_network",
    "greedy_decode",
    "hypotheses_from_lattice",
    "merger_prompt",
    "optimize_decoder",
    "proposals",
    "rescore",
    "tune_decoder",
    "tune_joint",
    "tune_rescoring",
    "vote",
]
