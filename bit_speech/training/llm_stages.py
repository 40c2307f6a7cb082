"""The stages of end-to-end training: put the network together, choose what learns, adapters, merging."""

from __future__ import annotations

import copy
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bit_speech.import_utils import is_available, require

if TYPE_CHECKING:
    from modeling_bit import BITForConditionalGeneration
    from processing_bit import BITLLMProcessor

# Parts that are new or the encoder's: always trained, and saved whole beside the adapters.
TRAINED_PARTS = ("encoder", "neural_projector", "aligner", "ctc_head")
LORA_TARGETS = r"(.*language_model.*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)|multi_modal_projector)"
TRAINING_MODES = ("frozen", "lora", "full")

# Audio-LLMs: names in the checkpoint -> names in a causal language model. Aero-1-Audio is laid out like Qwen2-Audio
# except for the name of its projector.
_AUDIO_MODELS = ("qwen2_audio", "aero")
_LANGUAGE_MODEL_KEYS = {
    r"^(model\.)?language_model\.model\.": "model.",
    r"^(model\.)?language_model\.lm_head\.": "lm_head.",
    r"^model\.language_model\.(?!model\.|lm_head\.)": "model.",
}
_AUDIO_PROJECTOR = re.compile(r"(^|\.)(multi_modal_projector|audio_modal_projector)\.linear\.(weight|bias)$")


def load_language_model(name: str | os.PathLike[str], dtype: Any = "auto") -> Any:
    """Load the causal language model of a folder: its own, or that inside an audio-LLM.

    Args:
        name (`str`): folder or Hub name of a causal language model, Qwen2-Audio or Aero-1-Audio.
        dtype (`torch.dtype` or `str`): as in `from_pretrained`; `"auto"` as saved.

    Returns:
        `PreTrainedModel`: the language model with its head.

    Raises:
        ValueError: when weights that the model needs are not in the checkpoint and would stay random; all are listed.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedConfig

    content, _ = PreTrainedConfig.get_config_dict(name)
    settings: dict[str, Any] = {}
    if content.get("model_type") in _AUDIO_MODELS:
        settings = {
            "config": AutoConfig.for_model(**{"model_type": "qwen2", **content.get("text_config", {})}),
            "key_mapping": _LANGUAGE_MODEL_KEYS,
        }
    model, report = AutoModelForCausalLM.from_pretrained(name, dtype=dtype, output_loading_info=True, **settings)
    refuse_random_weights(report["missing_keys"], name)
    return model


def load_audio_projector(name: str | os.PathLike[str]) -> dict[str, torch.Tensor]:
    """Load the projector of an audio-LLM, which leads from its audio tower's output to its token embeddings.

    Args:
        name (`str`): folder or Hub name of Qwen2-Audio or Aero-1-Audio with safetensors files.

    Returns:
        `dict[str, torch.Tensor]`: `weight` (D_text, D_audio) and `bias` (D_text,).

    Raises:
        ValueError: when the checkpoint has none.
    """
    from safetensors import safe_open

    folder = Path(name)
    if not folder.is_dir():
        from huggingface_hub import snapshot_download

        folder = Path(snapshot_download(str(name), allow_patterns=["*.safetensors", "*.json"]))
    found = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as weights:
            for key in list(weights.keys()):
                match = _AUDIO_PROJECTOR.search(key)
                if match:
                    found[match[3]] = weights.get_tensor(key)
    refuse_random_weights([f"multi_modal_projector.{key}" for key in ("weight", "bias") if key not in found], name)
    return found


def refuse_random_weights(missing: Any, name: Any) -> None:
    """Stop when a checkpoint lacks weights.

    Args:
        missing (iterable of `str`): names of the weights that were not found.
        name (`str`): the checkpoint.

    Raises:
        ValueError: listing all of them.

    Example:
        >>> refuse_random_weights([], "folder")
    """
    names = sorted(set(missing))
    if names:
        raise ValueError(
            f"{name} lacks {len(names)} weights, which would stay random: {', '.join(names)}. The config.json is of "
            "another model, or the names need a mapping."
        )


def build_end_to_end(
    encoder: Any,
    language_model: Any,
    *,
    feature_extractor: Any = None,
    tokenizer: Any = None,
    dtype: Any = "auto",
    processor_settings: dict[str, Any] | None = None,
    **settings: Any,
) -> tuple[BITForConditionalGeneration, BITLLMProcessor]:
    """Put encoder and language model together.

    Args:
        encoder (`str`, [`BITForCTC`] or [`BITConfig`]): folder of a phoneme model or of a pretrained encoder (then
            there is no phoneme head), a phoneme model, or the configuration of an encoder to train from scratch.
        language_model (`str` or `PreTrainedModel`): see [`load_language_model`], or a loaded one.
        feature_extractor ([`BITFeatureExtractor`], *optional*): that of the encoder; default the one in its folder.
        tokenizer (`PreTrainedTokenizerBase`, *optional*): default the one in the language model's folder.
        dtype (`torch.dtype` or `str`): of the language model.
        processor_settings (`dict`, *optional*): of [`BITLLMProcessor`], such as `prompt`.
        **settings: of [`BITLLMConfig`], such as `projector_type`, `modality`, `contrastive_weight`.

    Returns:
        `tuple[BITForConditionalGeneration, BITLLMProcessor]`: the projector is new; everything else is as loaded. The
        encoder's masking is off, as in the paper's last stage.

    Raises:
        ValueError: when any other weight would stay random, or something needed is not given.
    """
    from transformers import AutoTokenizer

    from configuration_bit import BITLLMConfig
    from modeling_bit import BITForConditionalGeneration
    from processing_bit import BITFeatureExtractor, BITLLMProcessor

    source, encoder_config, has_head = _load_encoder(encoder)
    if feature_extractor is None:
        if not isinstance(encoder, (str, os.PathLike)):
            raise ValueError("feature_extractor is missing: give that of the encoder.")
        feature_extractor = BITFeatureExtractor.from_pretrained(encoder)
    if tokenizer is None:
        if not isinstance(language_model, (str, os.PathLike)):
            raise ValueError("tokenizer is missing: give that of the language model.")
        tokenizer = AutoTokenizer.from_pretrained(language_model)
    name = language_model
    if isinstance(name, (str, os.PathLike)):
        language_model = load_language_model(name, dtype)
    processor = BITLLMProcessor(
        feature_extractor,
        tokenizer,
        patch_size=encoder_config.patch_size,
        patch_stride=encoder_config.patch_stride,
        stacking=settings.get("stacking", 1),
        **(processor_settings or {}),
    )
    audio = None
    if settings.get("modality") == "audio":
        if not isinstance(name, (str, os.PathLike)):
            raise ValueError("modality='audio' needs the folder of an audio-LLM as language_model.")
        audio = load_audio_projector(name)
        settings["audio_hidden_size"] = audio["weight"].shape[1]
    settings.setdefault("ctc_head", has_head or settings.get("ctc_weight", 0.0) > 0)
    config = BITLLMConfig(
        encoder_config=encoder_config,
        text_config=language_model.config,
        neural_token_id=processor.neural_token_id,
        **settings,
    )
    parts: tuple[Any, ...] = (config.encoder_config, config.text_config)
    for part in parts:
        part.name_or_path = ""  # the folders of this machine are nobody's business where the model is loaded
    model = BITForConditionalGeneration(config, language_model)
    if source is not None:
        model.encoder.load_state_dict(source.encoder.state_dict())
        if has_head and config.ctc_head:
            model.ctc_head.heads.load_state_dict(source.head.state_dict())
    if audio is not None:
        model.multi_modal_projector.load_state_dict(audio)
    return model.eval(), processor


def _load_encoder(encoder: Any) -> tuple[Any, Any, bool]:
    """The phoneme model that gives the weights (or None), the encoder's configuration, and whether it has a head."""
    from modeling_bit import BITForCTC

    has_head = True
    if isinstance(encoder, (str, os.PathLike)):
        encoder, report = BITForCTC.from_pretrained(encoder, output_loading_info=True)
        missing = set(report["missing_keys"])
        has_head = not any(key.startswith("head.") for key in missing)
        refuse_random_weights([key for key in missing if not key.startswith("head.")], encoder.name_or_path)
    source = encoder if hasattr(encoder, "state_dict") else None
    config = copy.deepcopy(source.config if source is not None else encoder)
    config.mask_ratio = 0.0
    return source, config, has_head and source is not None


def choose_trained_parts(
    model: BITForConditionalGeneration,
    mode: str = "lora",
    base_folder: str | os.PathLike[str] | None = None,
    rank: int = 8,
    alpha: int = 32,
    dropout: float = 0.2,
) -> Any:
    """Choose what learns. Encoder, projector and aligner always do.

    Args:
        model ([`BITForConditionalGeneration`]): is changed.
        mode (`str`): `"lora"`: adapters on the language model's seven projections (and on an audio-LLM's projector);
            `"frozen"`: the language model stays as it is; `"full"`: all of it learns.
        base_folder (`str`, *optional*): where `model` is saved as it is now; saved adapters name it as their base.
        rank (`int`): of the adapters.
        alpha (`int`): their scale is `alpha / rank`.
        dropout (`float`): on what the adapters read.

    Returns:
        [`BITForConditionalGeneration`], or `peft.PeftModel` around it.

    Raises:
        ValueError: when the mode is unknown, or adapters fit nothing.
        ImportError: when peft is not installed.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740: rank 8, alpha 32, dropout 0.2, query, key, value, output, gate, up and
        down projections. The released code finds them by name alone, which also adapts the audio tower that is not
        used; here the names must lie inside the language model.
    """
    if mode not in TRAINING_MODES:
        raise ValueError(f"mode is {mode!r}; expected one of {', '.join(TRAINING_MODES)}")
    if mode == "full":
        return model
    if mode == "frozen":
        model.language_model.requires_grad_(False)
        if model.config.modality == "audio":
            model.multi_modal_projector.requires_grad_(False)
        return model
    peft = require("peft")
    parts = [name for name in TRAINED_PARTS if hasattr(model, name)]
    if model.config.ctc_weight == 0:
        parts = [name for name in parts if name != "ctc_head"]
    settings = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=LORA_TARGETS,
        modules_to_save=parts,
        task_type="CAUSAL_LM",
    )
    if base_folder is not None:
        settings.base_model_name_or_path = str(Path(base_folder).resolve())
        model.name_or_path = settings.base_model_name_or_path
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    adapted = peft.get_peft_model(model, settings)
    for name, parameter in adapted.named_parameters():
        # What took no part before, such as the mask token of an encoder that masks nothing, takes none now.
        plain = name.replace("base_model.model.", "", 1).replace(".modules_to_save.default", "")
        if plain in frozen:
            parameter.requires_grad_(False)
    return adapted


def load_end_to_end(
    folder: str | os.PathLike[str], merge: bool = True, text_dtype: Any = "auto", **settings: Any
) -> Any:
    """Load a trained end-to-end decoder: a whole model, or adapters on their base.

    Args:
        folder (`str`): what `save_pretrained` wrote. The base of adapters is looked for where it was, then beside the
            folder.
        merge (`bool`): put adapters into the weights.
        text_dtype (`torch.dtype` or `str`): precision of the language model; `"auto"` is its own. Everything else is
            float32, because it is trained (`from_pretrained` gives all parts one precision).
        **settings: of `from_pretrained`, such as `attn_implementation`.

    Returns:
        [`BITForConditionalGeneration`], or `peft.PeftModel` for adapters that are not merged.

    Raises:
        ValueError: when the base of the adapters is gone, or weights would stay random.
        ImportError: when there are adapters and peft is not installed.
    """
    from configuration_bit import BITLLMConfig
    from modeling_bit import BITForConditionalGeneration

    folder = Path(folder)
    if not (folder / "adapter_config.json").is_file():
        if text_dtype == "auto":
            text_dtype = BITLLMConfig.from_pretrained(folder).text_config.dtype or torch.float32
        settings = {"dtype": torch.float32, **settings}
        model, report = BITForConditionalGeneration.from_pretrained(folder, output_loading_info=True, **settings)
        refuse_random_weights(report["missing_keys"], folder)
        text_dtype = getattr(torch, text_dtype) if isinstance(text_dtype, str) else text_dtype
        for parameter in model.language_model.parameters():  # not its buffers: positions need all their digits
            parameter.data = parameter.data.to(text_dtype)
        return model
    peft = require("peft")
    base = Path(peft.PeftConfig.from_pretrained(str(folder)).base_model_name_or_path)
    places = [base, folder.parent / base.name]
    base = next((place for place in places if (place / "config.json").is_file()), base)
    if not base.is_dir():
        raise ValueError(f"The base of the adapters in {folder} is neither {places[0]} nor {places[1]}: move it there.")
    model = peft.PeftModel.from_pretrained(load_end_to_end(base, text_dtype=text_dtype, **settings), str(folder))
    return merge_adapters(model) if merge else model


def merge_adapters(model: Any) -> BITForConditionalGeneration:
    """Put adapters into the weights they adapt.

    Args:
        model (`peft.PeftModel` or [`BITForConditionalGeneration`]): is changed.

    Returns:
        [`BITForConditionalGeneration`]: a plain model.
    """
    return model.merge_and_unload() if hasattr(model, "merge_and_unload") else model


def load_in_4bit(folder: str | os.PathLike[str]) -> BITForConditionalGeneration:
    """Load an end-to-end model with its language model in 4 bits, as the base of adapters.

    Args:
        folder (`str`): a whole model, as [`build_end_to_end`] makes and `save_pretrained` saves.

    Returns:
        [`BITForConditionalGeneration`]: on the GPU; encoder, projector and heads keep their precision.

    Raises:
        RuntimeError: without a CUDA GPU.
        ImportError: when bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    from modeling_bit import BITForConditionalGeneration

    if not torch.cuda.is_available():
        raise RuntimeError("A base in 4 bits needs a CUDA GPU, and there is none: use mode 'lora' without 4 bits.")
    if not is_available("bitsandbytes"):
        raise ImportError("a base in 4 bits needs the package 'bitsandbytes': pip install bitsandbytes")
    settings = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[*TRAINED_PARTS, "multi_modal_projector", "lm_head"],
    )
    return BITForConditionalGeneration.from_pretrained(folder, quantization_config=settings, device_map={"": 0})
