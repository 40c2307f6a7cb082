"""Signal in, labels out: feature extraction, phoneme and character tokenizers and the processor that joins them."""

from .feature_extraction_bit import BITFeatureExtractor
from .feature_extraction_ieeg import IEEGFeatureExtractor
from .feature_extraction_story import StoryFeatureExtractor
from .phonemization_bit import Phonemizer, phonemize_word
from .processing_bit import BITProcessor
from .processing_bit_llm import BITLLMProcessor
from .processing_ieeg_audio import IEEGAudioProcessor
from .tokenization_phoneme import PhonemeTokenizer
from .tokenization_spelling import SpellingTokenizer

__all__ = [
    "BITFeatureExtractor",
    "BITLLMProcessor",
    "BITProcessor",
    "IEEGAudioProcessor",
    "IEEGFeatureExtractor",
    "SpellingTokenizer",
    "StoryFeatureExtractor",
    "PhonemeTokenizer",
    "Phonemizer",
    "phonemize_word",
]
