"""Configuration of the speech model that listens to the cortex."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from transformers import AutoConfig
from transformers.configuration_utils import PreTrainedConfig

from .configuration_bit import check_participants, check_ranges
from .remote_code_bit import RemoteCodeMixin

# Speech models whose transformer takes frames and a frame mask, and that bring convolutional position embeddings.
SPEECH_BODIES: tuple[str, ...] = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


class Wav2Vec2BrainConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`Wav2Vec2BrainForCTC`]. The defaults are the best cell of the published grid.

    Args:
        vocab_size (`int`, defaults to 32): number of classes; 32 characters of the English Wav2Vec2 checkpoints, or 41
            phoneme classes.
        pad_token_id (`int`, defaults to 0): class of the CTC blank.
        participants (`dict[str, int]`): exactly one participant name -> number of feature channels.
        sessions (`list[str]`): session names in the order of `session_index`; each has an input layer of its own.
            Empty: one layer for all trials.
        patch_size (`int`, defaults to 32): bins that the front end reads at once.
        patch_stride (`int`, defaults to 4): bins from one frame to the next; 1 gives the 50 Hz that the body was
            trained with.
        hidden_size (`int`, defaults to 512): units of the recurrent front end in each direction.
        num_hidden_layers (`int`, defaults to 5): its layers.
        bidirectional (`bool`, defaults to `True`): read the trial in both directions.
        hidden_dropout (`float`, defaults to 0.45): dropout between the recurrent layers.
        projection_sizes (`list[int]`): hidden layers between the recurrent layers and the body. Empty: one linear map.
        junction_norm (`bool`, defaults to `False`): layer norm between front end and body.
        mask_ratio (`float`, defaults to 0.0): share of the frames replaced by a mask token in training.
        mask_max_span (`int`, defaults to 5): longest run of masked frames.
        auxiliary_ctc_weight (`float`, defaults to 0.0): weight of a second CTC loss on the frames before the body.
        freeze_body (`bool`, defaults to `False`): body and head do not learn.
        legacy (`bool`, defaults to `False`): the published system's defects: padding reaches the recurrent layers and
            the body, CTC is given one frame too few, and a frozen body keeps its dropout.
        ctc_loss_reduction (`str`, defaults to `"mean"`): `"mean"` or `"sum"`, see [`BITConfig`].
        ctc_zero_infinity (`bool`, defaults to `False`): see [`BITConfig`].
        body_config (`PreTrainedConfig` or `dict`, *optional*): configuration of a Wav2Vec2, HuBERT, WavLM or
            data2vec-audio model; a `dict` needs its `model_type`. Default: `Wav2Vec2Config()`, the base size.

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Fiedler et al. 2025, arXiv 2501.09459, and its released code. There `junction_norm`, masking and the auxiliary
        loss do not exist.

    Example:
        ```python
        >>> config = Wav2Vec2BrainConfig(participants={"t12": 256}, body_config={"model_type": "hubert"})
        >>> config.patch_size, config.body_config.hidden_size
        (32, 768)

        ```
    """

    model_type = "bit_speech_wav2vec2"
    sub_configs = {"body_config": AutoConfig}

    vocab_size: int = 32
    pad_token_id: int = 0
    participants: dict[str, int] = field(default_factory=lambda: {"participant": 256})
    sessions: list[str] = field(default_factory=list)
    patch_size: int = 32
    patch_stride: int = 4
    hidden_size: int = 512
    num_hidden_layers: int = 5
    bidirectional: bool = True
    hidden_dropout: float = 0.45
    projection_sizes: list[int] = field(default_factory=list)
    junction_norm: bool = False
    mask_ratio: float = 0.0
    mask_max_span: int = 5
    auxiliary_ctc_weight: float = 0.0
    freeze_body: bool = False
    legacy: bool = False
    ctc_loss_reduction: Literal["mean", "sum"] = "mean"
    ctc_zero_infinity: bool = False
    body_config: dict | PreTrainedConfig | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Build the body's configuration and check everything."""
        self.participants, self.sessions = check_participants(self.participants, self.sessions)
        body: Any = {"model_type": "wav2vec2"} if self.body_config is None else self.body_config
        kind = body.get("model_type") if isinstance(body, dict) else body.model_type
        if kind not in SPEECH_BODIES:
            raise ValueError(f"`body_config` is of model type {kind!r}: choose one of {', '.join(SPEECH_BODIES)}.")
        if isinstance(body, dict):
            body = AutoConfig.for_model(**body)
        self.body_config = body
        super().__post_init__(**kwargs)
        positive = ("vocab_size", "patch_size", "patch_stride", "hidden_size", "num_hidden_layers", "mask_max_span")
        check_ranges(self, positive, ("hidden_dropout", "mask_ratio"))
        if len(self.participants) != 1:
            raise ValueError(f"The front end reads one participant, got {sorted(self.participants)}: one model each.")
        if not all(isinstance(size, int) and size >= 1 for size in self.projection_sizes):
            raise ValueError(f"`projection_sizes` must be positive integers, got {self.projection_sizes!r}.")
        if not 0.0 <= self.auxiliary_ctc_weight < float("inf"):
            raise ValueError(f"`auxiliary_ctc_weight` must be at least 0, got {self.auxiliary_ctc_weight!r}.")
        if getattr(body, "add_adapter", False):
            raise ValueError("`body_config` has add_adapter=True, which shortens the frames: use a body without one.")
