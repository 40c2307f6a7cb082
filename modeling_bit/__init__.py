"""What a model does: torch modules. The names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .masking_bit import sample_span_mask
    from .modeling_bit import BITForCTC, BITModel, BITPreTrainedModel
    from .modeling_bit_gru import BITGRUForCTC, BITGRUModel, BITGRUPreTrainedModel
    from .modeling_bit_llm import BITForConditionalGeneration
    from .modeling_bit_pretraining import BITForMaskedModeling
    from .modeling_brain_tuned import BrainTunedForVoxelPrediction, BrainTunedModel
    from .modeling_ieeg_audio import IEEGAudioForRetrieval, IEEGAudioModel
    from .modeling_wav2vec2_brain import Wav2Vec2BrainForCTC
    from .transfer_bit import load_pretrained_encoder

_HOME = {
    "BITForCTC": "modeling_bit",
    "BITForConditionalGeneration": "modeling_bit_llm",
    "BITForMaskedModeling": "modeling_bit_pretraining",
    "BITGRUForCTC": "modeling_bit_gru",
    "BITGRUModel": "modeling_bit_gru",
    "BITGRUPreTrainedModel": "modeling_bit_gru",
    "BITModel": "modeling_bit",
    "BITPreTrainedModel": "modeling_bit",
    "BrainTunedForVoxelPrediction": "modeling_brain_tuned",
    "BrainTunedModel": "modeling_brain_tuned",
    "IEEGAudioForRetrieval": "modeling_ieeg_audio",
    "IEEGAudioModel": "modeling_ieeg_audio",
    "Wav2Vec2BrainForCTC": "modeling_wav2vec2_brain",
    "load_pretrained_encoder": "transfer_bit",
    "sample_span_mask": "masking_bit",
}

__all__ = [
    "BITForCTC",
    "BITForConditionalGeneration",
    "BITForMaskedModeling",
    "BITGRUForCTC",
    "BITGRUModel",
    "BITGRUPreTrainedModel",
    "BITModel",
    "BITPreTrainedModel",
    "BrainTunedForVoxelPrediction",
    "BrainTunedModel",
    "IEEGAudioForRetrieval",
    "IEEGAudioModel",
    "Wav2Vec2BrainForCTC",
    "load_pretrained_encoder",
    "sample_span_mask",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
