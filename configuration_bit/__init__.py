"""What a model is: configurations and the phoneme inventory (numbers and names, no computation).

The names are loaded on first use, so that reading the phoneme inventory does not import torch and transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .configuration_bit import BITConfig
    from .configuration_bit_gru import BITGRUConfig
    from .configuration_bit_llm import BITLLMConfig
    from .configuration_brain_tuned import BrainTunedConfig
    from .configuration_ieeg_audio import ENCODER_PRESETS, IEEGAudioConfig
    from .configuration_wav2vec2_brain import Wav2Vec2BrainConfig
    from .phoneme_inventory_bit import CLASS_ORDERS, MODEL_ORDER, PHONEMES, class_permutation
    from .remote_code_bit import RemoteCodeMixin, flatten_remote_code

_HOME = {
    "BITConfig": "configuration_bit",
    "BITGRUConfig": "configuration_bit_gru",
    "BITLLMConfig": "configuration_bit_llm",
    "BrainTunedConfig": "configuration_brain_tuned",
    "CLASS_ORDERS": "phoneme_inventory_bit",
    "ENCODER_PRESETS": "configuration_ieeg_audio",
    "IEEGAudioConfig": "configuration_ieeg_audio",
    "MODEL_ORDER": "phoneme_inventory_bit",
    "PHONEMES": "phoneme_inventory_bit",
    "class_permutation": "phoneme_inventory_bit",
    "RemoteCodeMixin": "remote_code_bit",
    "Wav2Vec2BrainConfig": "configuration_wav2vec2_brain",
    "flatten_remote_code": "remote_code_bit",
}

__all__ = [
    "CLASS_ORDERS",
    "ENCODER_PRESETS",
    "MODEL_ORDER",
    "PHONEMES",
    "BITConfig",
    "BITGRUConfig",
    "BITLLMConfig",
    "BrainTunedConfig",
    "IEEGAudioConfig",
    "RemoteCodeMixin",
    "Wav2Vec2BrainConfig",
    "class_permutation",
    "flatten_remote_code",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
