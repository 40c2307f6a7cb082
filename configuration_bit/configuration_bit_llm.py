"""Configuration of the end-to-end decoder: encoder, projector and language model in one network."""

from __future__ import annotations

import copy
from typing import Any, Literal

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_bit import BITConfig
from .remote_code_bit import RemoteCodeMixin


class BITLLMConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`BITForConditionalGeneration`].

    Args:
        encoder_config ([`BITConfig`] or `dict`, *optional*): the encoder; default `BITConfig()`.
        text_config (`PreTrainedConfig` or `dict`, *optional*): any causal language model; a `dict` needs its
            `model_type`. Default: `Qwen2Config()`.
        neural_token_id (`int`, *optional*): id that marks the places of neural tokens in `input_ids`. It need not be a
            row of the language model's table, because it is never looked up there. Default: the size of that table.
        projector_type (`str`, defaults to `"mlp"`): `"mlp"` (Linear, ReLU, Linear), `"linear"`, or `"cross_attention"`
            (neural tokens look at the language model's token embeddings).
        projector_hidden_size (`int`, *optional*): width inside the projector; default its output width for `"mlp"` and
            256 for `"cross_attention"`.
        projector_dropout (`float`, defaults to 0.1): dropout on what `"cross_attention"` reads.
        stacking (`int`, defaults to 1): encoder frames that are joined to one neural token.
        modality (`str`, defaults to `"neural"`): `"neural"` projects into the token embeddings; `"audio"` into the
            output of an audio-LLM's audio tower, from where that model's own projector leads on.
        audio_hidden_size (`int`, *optional*): width of the audio tower's output; needed when `modality="audio"`.
        ctc_head (`bool`, defaults to `True`): keep the encoder's phoneme head, for the CTC likelihood of a sentence.
        ctc_weight (`float`, defaults to 0.0): weight of the phoneme CTC loss beside the token cross-entropy; 0 leaves
            the head as it is.
        contrastive_weight (`float`, defaults to 0.1): weight of the contrastive loss, which the trainer adds; 0 leaves
            out the aligner that it needs.
        contrastive_size (`int`, defaults to 512): width of the aligner's output.
        contrastive_temperature (`float`, defaults to 0.1): its temperature at first; it is learned.
        contrastive_pooling (`str`, defaults to `"sentence"`): what the two contrasted vectors are means of.
            `"sentence"`: the trial's real neural tokens, and the tokens of its sentence alone. `"everything"`: all
            neural tokens with the padding, and all text with prompt, end and padding, as in the released code; for
            comparison only.

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740. The paper weighs the contrastive loss 1 : 1 against a cross-entropy
        that is summed over the 10 to 15 tokens of a sentence; here the cross-entropy is a mean per token, so that 0.1
        is about the same. The released code pools the contrasted vectors over prompt and padding.

    Example:
        ```python
        >>> config = BITLLMConfig(encoder_config={"participants": {"t15": 512}}, text_config={"model_type": "qwen3"})
        >>> config.text_config.model_type, config.encoder_config.hidden_size, config.projector_type
        ('qwen3', 384, 'mlp')

        ```
    """

    model_type = "bit_speech_llm"
    sub_configs = {"encoder_config": BITConfig, "text_config": AutoConfig}

    encoder_config: dict | PreTrainedConfig | None = None
    text_config: dict | PreTrainedConfig | None = None
    neural_token_id: int | None = None
    projector_type: Literal["mlp", "linear", "cross_attention"] = "mlp"
    projector_hidden_size: int | None = None
    projector_dropout: float = 0.1
    stacking: int = 1
    modality: Literal["neural", "audio"] = "neural"
    audio_hidden_size: int | None = None
    ctc_head: bool = True
    ctc_weight: float = 0.0
    contrastive_weight: float = 0.1
    contrastive_size: int = 512
    contrastive_temperature: float = 0.1
    contrastive_pooling: Literal["sentence", "everything"] = "sentence"

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the two sub-configurations and check everything."""
        encoder: Any = {} if self.encoder_config is None else self.encoder_config
        # Copies: a sub-configuration is told of the whole's attention implementation, which is not set yet.
        self.encoder_config = BITConfig.from_dict(encoder) if isinstance(encoder, dict) else copy.deepcopy(encoder)
        text: Any = {"model_type": "qwen2"} if self.text_config is None else self.text_config
        if isinstance(text, dict):
            if "model_type" not in text:
                raise ValueError("`text_config` has no `model_type`: say which language model it is, e.g. 'qwen2'.")
            text = AutoConfig.for_model(**text)
        else:
            text = copy.deepcopy(text)
        self.text_config = text
        if self.neural_token_id is None:
            self.neural_token_id = text.vocab_size
        if self.projector_hidden_size is None and self.projector_type == "cross_attention":
            self.projector_hidden_size = 256
        # Saving and generating ask the whole model about its language model.
        kwargs.setdefault("tie_word_embeddings", bool(getattr(text, "tie_word_embeddings", False)))
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            kwargs.setdefault(name, getattr(text, name, None))
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        """Refuse values that cannot be."""
        for name, choices in (
            ("projector_type", ("mlp", "linear", "cross_attention")),
            ("modality", ("neural", "audio")),
            ("contrastive_pooling", ("sentence", "everything")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"`{name}` must be one of {', '.join(choices)}, got {getattr(self, name)!r}.")
        optional = [name for name in ("projector_hidden_size", "audio_hidden_size") if getattr(self, name) is not None]
        for name in ("stacking", "contrastive_size", *optional):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
        for name in ("ctc_weight", "contrastive_weight"):
            if not 0.0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"`{name}` must be at least 0, got {getattr(self, name)!r}.")
        if not 0.0 <= self.projector_dropout < 1.0:
            raise ValueError(f"`projector_dropout` must be in [0, 1), got {self.projector_dropout!r}.")
        if not 0.01 <= self.contrastive_temperature < float("inf"):
            raise ValueError(f"`contrastive_temperature` must be at least 0.01, got {self.contrastive_temperature!r}.")
        if self.modality == "audio" and self.audio_hidden_size is None:
            raise ValueError(
                "modality='audio' needs `audio_hidden_size`, the width of the audio tower (1280 in Qwen2-Audio)."
            )
        if self.ctc_weight and not self.ctc_head:
            raise ValueError(f"ctc_weight={self.ctc_weight} needs ctc_head=True.")
        if not isinstance(self.neural_token_id, int) or self.neural_token_id < 0:
            raise ValueError(f"`neural_token_id` must be an id of at least 0, got {self.neural_token_id!r}.")
