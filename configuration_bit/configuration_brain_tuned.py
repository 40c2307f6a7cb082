"""Configuration of speech models that are tuned to predict the brains of people who listen."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .remote_code_bit import RemoteCodeMixin

# Speech models that can be tuned, and which of their matrices get low-rank updates. WavLM's attention reads the weights
# of its projections past any update, so its feed-forward parts are tuned.
TUNED_BODIES: dict[str, tuple[str, ...]] = {
    "wav2vec2": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "hubert": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "data2vec-audio": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "whisper": ("q_proj", "k_proj", "v_proj", "out_proj"),
    "wavlm": ("intermediate_dense", "output_dense"),
}


class BrainTunedConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`BrainTunedModel`] and [`BrainTunedForVoxelPrediction`]. The defaults are the published ones.

    Args:
        body_config (`PreTrainedConfig` or `dict`, *optional*): configuration of a Wav2Vec2, HuBERT, WavLM,
            data2vec-audio or Whisper model (its encoder is used); a `dict` needs its `model_type`. Default:
            `Wav2Vec2Config()`, the base size.
        num_voxels (`int`, defaults to 30172): voxels or vertices X that are predicted.
        participants (`list[str]`): names in the order of `participant_index`. Only heads that differ between
            participants need them.
        tuning (`str`, defaults to `"lora"`): `"lora"` (low-rank updates), `"full"` (the transformer learns) or
            `"frozen"` (only the head learns). Convolutions over audio never learn.
        lora_rank (`int`, defaults to 8): rank of the updates.
        lora_alpha (`float`, defaults to 32.0): the updates are scaled by `lora_alpha / lora_rank`.
        lora_dropout (`float`, defaults to 0.1): dropout before the updates.
        lora_targets (`list[str]`, *optional*): names of the matrices to update; default by type of body.
        body_dropout (`bool`, defaults to `False`): dropout and masking of the body in training. The published model
            leaves them out.
        readout (`str`, defaults to `"mean"`): how the frames of a clip become one vector: `"mean"`, `"last"`,
            `"hrf"` (a learned weight per lag, started at the canonical haemodynamic response) or `"regions"` (each
            region of voxels attends to frames with a query of its own).
        clip_s (`float`, defaults to 10.0): seconds of a clip; `"hrf"` reads its lags from it.
        num_lags (`int`, defaults to 10): learned weights of `"hrf"`, interpolated over the clip.
        num_regions (`int`, defaults to 1): queries of `"regions"`.
        head (`str`, defaults to `"shared"`): `"shared"` (one linear map for everybody), `"separate"` (one each) or
            `"low_rank"` (a shared map and a low-rank deviation of each participant).
        deviation_rank (`int`, defaults to 15): rank of the deviations.
        loss (`str`, defaults to `"l2"`): `"l2"`, `"correlation"`, `"cosine_l2"`, `"cosine_huber"` (what the released
            code calls cosine + L2) or `"annealed"` (from L2 to correlation over the training).
        initializer_range (`float`, defaults to 0.02): standard deviation of new matrices.

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520. Deviations follow the form of arXiv 2607.05171 (shared basis plus a
        participant's own, rank 15).

    Example:
        ```python
        >>> config = BrainTunedConfig(num_voxels=100, body_config={"model_type": "hubert"})
        >>> config.lora_rank, config.body_config.hidden_size, config.lora_targets
        (8, 768, ['q_proj', 'k_proj', 'v_proj', 'out_proj'])

        ```
    """

    model_type = "bit_speech_brain_tuned"
    sub_configs = {"body_config": AutoConfig}

    body_config: dict | PreTrainedConfig | None = None
    num_voxels: int = 30172
    participants: list[str] = field(default_factory=list)
    tuning: Literal["lora", "full", "frozen"] = "lora"
    lora_rank: int = 8
    lora_alpha: float = 32.0
    lora_dropout: float = 0.1
    lora_targets: list[str] | None = None
    body_dropout: bool = False
    readout: Literal["mean", "last", "hrf", "regions"] = "mean"
    clip_s: float = 10.0
    num_lags: int = 10
    num_regions: int = 1
    head: Literal["shared", "separate", "low_rank"] = "shared"
    deviation_rank: int = 15
    loss: Literal["l2", "correlation", "cosine_l2", "cosine_huber", "annealed"] = "l2"
    initializer_range: float = 0.02

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the body's configuration and check everything."""
        body: Any = {"model_type": "wav2vec2"} if self.body_config is None else self.body_config
        kind = body.get("model_type") if isinstance(body, dict) else body.model_type
        if kind not in TUNED_BODIES:
            raise ValueError(f"`body_config` is of model type {kind!r}: choose one of {', '.join(TUNED_BODIES)}.")
        self.body_config = AutoConfig.for_model(**body) if isinstance(body, dict) else body
        if self.lora_targets is None:
            self.lora_targets = list(TUNED_BODIES[kind])
        self.participants = list(self.participants)
        super().__post_init__(**kwargs)
        for name in ("num_voxels", "lora_rank", "num_lags", "num_regions", "deviation_rank"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
        if not 0.0 <= self.lora_dropout < 1.0:
            raise ValueError(f"`lora_dropout` must be in [0, 1), got {self.lora_dropout!r}.")
        if not self.clip_s > 0:
            raise ValueError(f"`clip_s` must be positive, got {self.clip_s!r}.")
        if len(set(self.participants)) != len(self.participants):
            raise ValueError(f"`participants` names someone twice: {self.participants!r}.")
        if self.head != "shared" and not self.participants:
            raise ValueError(f"`head` is {self.head!r}, which needs `participants`.")
        if self.num_regions > self.num_voxels:
            raise ValueError(f"`num_regions` is {self.num_regions}, more than the {self.num_voxels} voxels.")
        if kind == "wavlm" and self.tuning == "lora" and any("proj" in name for name in self.lora_targets):
            raise ValueError(
                f"`lora_targets` is {self.lora_targets!r}: WavLM's attention would not see these updates; use "
                "intermediate_dense and output_dense."
            )
