"""Make `AutoModelForCTC`, `AutoProcessor` and their like know the models here, without importing torch for it.

`import bit_speech` must stay fast, but registering needs the classes, and the classes need torch and transformers. So
the registration waits: it happens right after transformers' own auto modules are first imported, in whatever order.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

_AUTO = "transformers.models.auto."

# Our classes, and modules that they build on. Some of those import an auto module half-way through their own execution;
# while one of them is unfinished, our classes cannot be had.
_ROOMS = ("configuration_bit", "modeling_bit", "processing_bit")
_FOUNDATIONS = (
    "transformers.configuration_utils",
    "transformers.feature_extraction_utils",
    "transformers.modeling_layers",
    "transformers.modeling_utils",
    "transformers.processing_utils",
    "transformers.tokenization_utils_base",
    "transformers.tokenization_utils_tokenizers",
    "bit_speech.pipelines",  # a class of ours outside the rooms
)


def _register_configurations() -> None:
    from transformers.models.auto.configuration_auto import AutoConfig

    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from configuration_bit.configuration_bit_llm import BITLLMConfig
    from configuration_bit.configuration_brain_tuned import BrainTunedConfig
    from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
    from configuration_bit.configuration_wav2vec2_brain import Wav2Vec2BrainConfig

    ours = (BITConfig, BITGRUConfig, BITLLMConfig, BrainTunedConfig, IEEGAudioConfig, Wav2Vec2BrainConfig)
    for config_class in ours:
        AutoConfig.register(config_class.model_type, config_class, exist_ok=True)


def _register_models() -> None:
    from transformers.models.auto.modeling_auto import (
        AutoModel,
        AutoModelForAudioClassification,
        AutoModelForCTC,
        AutoModelForMultimodalLM,
        AutoModelForPreTraining,
    )

    from modeling_bit.modeling_bit import BITConfig, BITForCTC, BITModel
    from modeling_bit.modeling_bit_gru import BITGRUConfig, BITGRUForCTC, BITGRUModel
    from modeling_bit.modeling_bit_llm import BITForConditionalGeneration, BITLLMConfig
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling
    from modeling_bit.modeling_brain_tuned import BrainTunedConfig, BrainTunedForVoxelPrediction, BrainTunedModel
    from modeling_bit.modeling_ieeg_audio import IEEGAudioConfig, IEEGAudioForRetrieval, IEEGAudioModel
    from modeling_bit.modeling_wav2vec2_brain import Wav2Vec2BrainConfig, Wav2Vec2BrainForCTC

    AutoModel.register(BITConfig, BITModel, exist_ok=True)
    AutoModel.register(BITGRUConfig, BITGRUModel, exist_ok=True)
    AutoModel.register(BrainTunedConfig, BrainTunedModel, exist_ok=True)
    # Transformers has no class for regression on audio; this is its class for one vector of outputs per recording.
    AutoModelForAudioClassification.register(BrainTunedConfig, BrainTunedForVoxelPrediction, exist_ok=True)
    AutoModel.register(IEEGAudioConfig, IEEGAudioModel, exist_ok=True)
    AutoModel.register(BITLLMConfig, BITForConditionalGeneration, exist_ok=True)
    AutoModelForMultimodalLM.register(BITLLMConfig, BITForConditionalGeneration, exist_ok=True)
    AutoModelForPreTraining.register(BITConfig, BITForMaskedModeling, exist_ok=True)
    AutoModelForPreTraining.register(IEEGAudioConfig, IEEGAudioForRetrieval, exist_ok=True)
    AutoModelForCTC.register(BITConfig, BITForCTC, exist_ok=True)
    AutoModelForCTC.register(BITGRUConfig, BITGRUForCTC, exist_ok=True)
    AutoModelForCTC.register(Wav2Vec2BrainConfig, Wav2Vec2BrainForCTC, exist_ok=True)


def _register_feature_extractors() -> None:
    from transformers.models.auto.feature_extraction_auto import AutoFeatureExtractor

    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from configuration_bit.configuration_bit_llm import BITLLMConfig
    from configuration_bit.configuration_brain_tuned import BrainTunedConfig
    from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
    from configuration_bit.configuration_wav2vec2_brain import Wav2Vec2BrainConfig
    from processing_bit.feature_extraction_bit import BITFeatureExtractor
    from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
    from processing_bit.feature_extraction_story import StoryFeatureExtractor

    AutoFeatureExtractor.register(BrainTunedConfig, StoryFeatureExtractor, exist_ok=True)
    for config_class in (BITConfig, BITGRUConfig, BITLLMConfig, Wav2Vec2BrainConfig):
        AutoFeatureExtractor.register(config_class, BITFeatureExtractor, exist_ok=True)
    AutoFeatureExtractor.register(IEEGAudioConfig, IEEGFeatureExtractor, exist_ok=True)


def _register_tokenizers() -> None:
    from transformers.models.auto.tokenization_auto import AutoTokenizer

    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from configuration_bit.configuration_wav2vec2_brain import Wav2Vec2BrainConfig
    from processing_bit.tokenization_phoneme import PhonemeTokenizer
    from processing_bit.tokenization_spelling import SpellingTokenizer

    for config_class in (BITConfig, BITGRUConfig):
        AutoTokenizer.register(config_class, tokenizer_class=PhonemeTokenizer, exist_ok=True)
    AutoTokenizer.register(Wav2Vec2BrainConfig, tokenizer_class=SpellingTokenizer, exist_ok=True)


def _register_processors() -> None:
    from transformers.models.auto.processing_auto import AutoProcessor

    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from configuration_bit.configuration_bit_llm import BITLLMConfig
    from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
    from configuration_bit.configuration_wav2vec2_brain import Wav2Vec2BrainConfig
    from processing_bit.processing_bit import BITProcessor
    from processing_bit.processing_bit_llm import BITLLMProcessor
    from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

    for config_class in (BITConfig, BITGRUConfig, Wav2Vec2BrainConfig):
        AutoProcessor.register(config_class, BITProcessor, exist_ok=True)
    AutoProcessor.register(BITLLMConfig, BITLLMProcessor, exist_ok=True)
    AutoProcessor.register(IEEGAudioConfig, IEEGAudioProcessor, exist_ok=True)


def _register_pipelines() -> None:
    from transformers import AutoModelForCTC, AutoModelForMultimodalLM
    from transformers.pipelines import PIPELINE_REGISTRY

    from bit_speech.pipelines import NeuralToTextPipeline

    if "neural-to-text" not in PIPELINE_REGISTRY.supported_tasks:
        PIPELINE_REGISTRY.register_pipeline(
            "neural-to-text",
            pipeline_class=NeuralToTextPipeline,
            pt_model=(AutoModelForMultimodalLM, AutoModelForCTC),
            type="multimodal",
        )


class _RegisterAfterImport(MetaPathFinder):
    """Import hook: watches transformers' modules and registers as soon as everything needed is there."""

    def __init__(self) -> None:
        self.waiting: dict[str, Callable[[], None]] = {
            f"{_AUTO}configuration_auto": _register_configurations,
            f"{_AUTO}modeling_auto": _register_models,
            f"{_AUTO}feature_extraction_auto": _register_feature_extractors,
            f"{_AUTO}tokenization_auto": _register_tokenizers,
            f"{_AUTO}processing_auto": _register_processors,
            "transformers.pipelines": _register_pipelines,
        }
        self.auto_modules = set(self.waiting)
        self.executing: set[str] = set()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Let the standard finder find a watched module, and look again once it has been executed."""
        if not (fullname in _FOUNDATIONS or fullname in self.auto_modules or fullname.split(".")[0] in _ROOMS):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is None or spec.loader is None:
            return None
        execute = spec.loader.exec_module

        def execute_then_register(module: ModuleType) -> None:
            self.executing.add(fullname)
            try:
                execute(module)
            finally:
                self.executing.discard(fullname)
            self.register_what_is_ready()

        spec.loader.exec_module = execute_then_register  # type: ignore[method-assign]
        return spec

    def register_what_is_ready(self) -> None:
        """Register with every auto module that is there, unless our classes cannot be made yet."""
        for name in list(self.waiting):
            if self.executing - self.auto_modules:
                return
            if name in sys.modules and name not in self.executing and name in self.waiting:
                self.waiting.pop(name)()
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)


def register_auto_classes() -> None:
    """Register all models and processors with transformers' Auto classes, now or when those are first imported.

    Doing it twice changes nothing.
    """
    if any(isinstance(finder, _RegisterAfterImport) for finder in sys.meta_path):
        return
    finder = _RegisterAfterImport()
    sys.meta_path.insert(0, finder)
    finder.register_what_is_ready()
