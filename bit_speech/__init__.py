"""Brain recordings in, sentences out: the laboratory of bit-speech (data, simulation, training, decoding, evaluation).

Importing it makes the models known to transformers' Auto classes. The names below are loaded on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .auto_classes import register_auto_classes

if TYPE_CHECKING:
    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from configuration_bit.configuration_bit_llm import BITLLMConfig
    from configuration_bit.configuration_brain_tuned import BrainTunedConfig
    from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
    from configuration_bit.configuration_wav2vec2_brain import Wav2Vec2BrainConfig
    from modeling_bit.modeling_bit import BITForCTC, BITModel
    from modeling_bit.modeling_bit_gru import BITGRUForCTC
    from modeling_bit.modeling_bit_llm import BITForConditionalGeneration
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling
    from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction, BrainTunedModel
    from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval, IEEGAudioModel
    from modeling_bit.modeling_wav2vec2_brain import Wav2Vec2BrainForCTC
    from modeling_bit.transfer_bit import load_pretrained_encoder
    from processing_bit.feature_extraction_bit import BITFeatureExtractor
    from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
    from processing_bit.feature_extraction_story import StoryFeatureExtractor
    from processing_bit.processing_bit import BITProcessor
    from processing_bit.processing_bit_llm import BITLLMProcessor
    from processing_bit.processing_ieeg_audio import IEEGAudioProcessor
    from processing_bit.tokenization_phoneme import PhonemeTokenizer
    from processing_bit.tokenization_spelling import SpellingTokenizer

    from .processor_with_decoder import BITProcessorWithDecoder
    from .sample_checkpoints import sample_checkpoint
    from .training.brain_tuning import BrainTuningArguments, BrainTuningTrainer
    from .training.contrastive_trainer import BITLLMTrainingArguments, ContrastiveTrainer
    from .training.ieeg_audio_trainer import IEEGAudioTrainer, IEEGAudioTrainingArguments
    from .training.pretrainer import BITPretrainer
    from .training.pretraining_arguments import BITPretrainingArguments
    from .training.trainer import BITTrainer
    from .training.training_arguments import BITTrainingArguments

__version__ = "0.1.0"

_HOME = {
    "BITConfig": "configuration_bit.configuration_bit",
    "BITFeatureExtractor": "processing_bit.feature_extraction_bit",
    "BITForCTC": "modeling_bit.modeling_bit",
    "BITForConditionalGeneration": "modeling_bit.modeling_bit_llm",
    "BITForMaskedModeling": "modeling_bit.modeling_bit_pretraining",
    "BITGRUConfig": "configuration_bit.configuration_bit_gru",
    "BITGRUForCTC": "modeling_bit.modeling_bit_gru",
    "BITModel": "modeling_bit.modeling_bit",
    "BITLLMConfig": "configuration_bit.configuration_bit_llm",
    "BITLLMTrainingArguments": "bit_speech.training.contrastive_trainer",
    "BITLLMProcessor": "processing_bit.processing_bit_llm",
    "BITPretrainer": "bit_speech.training.pretrainer",
    "BITPretrainingArguments": "bit_speech.training.pretraining_arguments",
    "BITProcessor": "processing_bit.processing_bit",
    "BITProcessorWithDecoder": "bit_speech.processor_with_decoder",
    "BITTrainer": "bit_speech.training.trainer",
    "BITTrainingArguments": "bit_speech.training.training_arguments",
    "BrainTunedConfig": "configuration_bit.configuration_brain_tuned",
    "BrainTunedForVoxelPrediction": "modeling_bit.modeling_brain_tuned",
    "BrainTunedModel": "modeling_bit.modeling_brain_tuned",
    "BrainTuningArguments": "bit_speech.training.brain_tuning",
    "BrainTuningTrainer": "bit_speech.training.brain_tuning",
    "ContrastiveTrainer": "bit_speech.training.contrastive_trainer",
    "StoryFeatureExtractor": "processing_bit.feature_extraction_story",
    "IEEGAudioConfig": "configuration_bit.configuration_ieeg_audio",
    "IEEGAudioForRetrieval": "modeling_bit.modeling_ieeg_audio",
    "IEEGAudioModel": "modeling_bit.modeling_ieeg_audio",
    "IEEGAudioProcessor": "processing_bit.processing_ieeg_audio",
    "IEEGAudioTrainer": "bit_speech.training.ieeg_audio_trainer",
    "IEEGAudioTrainingArguments": "bit_speech.training.ieeg_audio_trainer",
    "IEEGFeatureExtractor": "processing_bit.feature_extraction_ieeg",
    "SpellingTokenizer": "processing_bit.tokenization_spelling",
    "PhonemeTokenizer": "processing_bit.tokenization_phoneme",
    "Wav2Vec2BrainConfig": "configuration_bit.configuration_wav2vec2_brain",
    "Wav2Vec2BrainForCTC": "modeling_bit.modeling_wav2vec2_brain",
    "load_pretrained_encoder": "modeling_bit.transfer_bit",
    "sample_checkpoint": "bit_speech.sample_checkpoints",
}

__all__ = [
    "BITConfig",
    "BITFeatureExtractor",
    "BITForCTC",
    "BITForConditionalGeneration",
    "BITForMaskedModeling",
    "BITGRUConfig",
    "BITGRUForCTC",
    "BITLLMConfig",
    "BITLLMProcessor",
    "BITLLMTrainingArguments",
    "BITModel",
    "BITPretrainer",
    "BITPretrainingArguments",
    "BITProcessor",
    "BITProcessorWithDecoder",
    "BITTrainer",
    "BITTrainingArguments",
    "BrainTunedConfig",
    "BrainTunedForVoxelPrediction",
    "BrainTunedModel",
    "BrainTuningArguments",
    "BrainTuningTrainer",
    "ContrastiveTrainer",
    "IEEGAudioConfig",
    "IEEGAudioForRetrieval",
    "IEEGAudioModel",
    "IEEGAudioProcessor",
    "IEEGAudioTrainer",
    "IEEGAudioTrainingArguments",
    "IEEGFeatureExtractor",
    "SpellingTokenizer",
    "StoryFeatureExtractor",
    "PhonemeTokenizer",
    "Wav2Vec2BrainConfig",
    "Wav2Vec2BrainForCTC",
    "load_pretrained_encoder",
    "sample_checkpoint",
]

register_auto_classes()


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
