"""Configuration of the encoder that finds the sound a person heard in their intracranial EEG."""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any, Literal

from transformers.configuration_utils import PreTrainedConfig

from .configuration_bit import check_participants
from .remote_code_bit import RemoteCodeMixin

# The two published shapes of the encoder; both fit the description in the paper, which gives no sizes.
ENCODER_PRESETS: dict[str, dict[str, Any]] = {
    "brainmagick": {"num_hidden_layers": 10, "dilation_period": 5, "output_layers": "two_convolutions"},
    "neuralbench": {
        "num_hidden_layers": 4,
        "dilation_period": None,
        "output_layers": "narrow_last",
        "output_size": 512,
    },
}


class IEEGAudioConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`IEEGAudioModel`] and [`IEEGAudioForRetrieval`]. The defaults are the preset "brainmagick".

    Args:
        participants (`dict[str, int]`): participant name -> number of iEEG channels C.
        sessions (`list[str]`): session (day) names in the order of `session_index`; needed by `session_layer` and
            `day_adversary_weight` only.
        window_bins (`int`, defaults to 120): bins of a window (3 s at 40 Hz); the flattening baseline needs it.
        encoder_type (`str`, defaults to `"convolution"`): `"convolution"`; or a baseline: `"linear"` (flatten, one
            linear layer) or `"mean_linear"` (1x1 convolution, mean over time).
        read_in (`str`, defaults to `"participant"`): `"participant"` is a 1x1 convolution for each participant;
            `"position"` weighs channels by their place in the brain, so it reads participants it has never seen.
        position_frequencies (`int`, defaults to 10): Fourier frequencies per axis of `read_in="position"`.
        regions (`list[str]`): brain regions in the order of `channel_regions`; each has a learned vector that
            `read_in="position"` adds to what it knows of a channel's place, zero at first.
        initial_size (`int`, defaults to 270): channels after the read-in.
        participant_layer (`bool`, defaults to `False`): a linear layer for each participant, and one for unseen ones.
        participant_dropout (`float`, defaults to 0.0): share of training windows that use the layer for the unseen.
        session_layer (`bool`, defaults to `False`): an affine layer for each session, and one for unseen sessions.
        session_dropout (`float`, defaults to 0.0): share of training windows that use the layer for the unseen.
        hidden_size (`int`, defaults to 320): channels of the convolutions.
        num_hidden_layers (`int`, defaults to 10): convolutions.
        kernel_size (`int`, defaults to 3): odd width of a convolution in bins.
        dilation_growth (`int`, defaults to 2): factor of the dilation from one layer to the next.
        dilation_period (`int`, *optional*, defaults to 5): layers after which the dilation starts at 1 again.
        glu_every (`int`, defaults to 2): a gated linear unit after every so many layers; 0 for none.
        output_layers (`str`, defaults to `"two_convolutions"`): `"two_convolutions"` adds 1x1 convolutions to twice
            the hidden size and to `embedding_size` before pooling; `"narrow_last"` gives the last convolution
            `output_size` channels and no activation, and adds a linear layer after pooling.
        output_size (`int`, defaults to 512): see `output_layers`.
        pool_size (`int`, defaults to 256): hidden units of the attention over time.
        embedding_size (`int`, defaults to 1024): width D of the audio features to be found.
        extra_targets (`dict[str, int]`): further things to be found in the same windows, such as another layer, text or
            video: name -> width. Each has a projection of the pooled states and a temperature of its own; its vectors
            follow the audio features in `labels`, in the order of the names.
        target_weights (`dict[str, float]`): weight of each further target in the loss, 1 unless given; that of the
            audio features is 1.
        dropout (`float`, defaults to 0.0): dropout after every convolution.
        loss (`str`, defaults to `"clip"`): `"clip"` or `"siglip"`.
        symmetric (`bool`, defaults to `False`): average the losses of finding the audio and of finding the brain.
        temperature_init (`float`, defaults to log(1/0.07)): initial logarithm of the factor on the similarities.
        temperature_max (`float`, defaults to log(100)): where it is clamped.
        duplicate_threshold (`float`, defaults to 0.999): audio features with at least this cosine are the same sound
            for `"siglip"`, so that silence is no false negative.
        day_adversary_weight (`float`, defaults to 0.0): weight of the reversed gradient of a head that tells the
            session from the embedding.
        finetuning_head (`bool`, defaults to `False`): one more linear layer (D, D), which starts as the identity.

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Evanson et al. 2025, arXiv 2512.15830: convolutions with skips, Bahdanau attention over time, CLIP loss in one
        direction; depth and widths are not given, so both published networks of this family are presets (Défossez et
        al. 2023, doi:10.1038/s42256-023-00714-5, and the public benchmark of the same authors). Several participants,
        sessions, positions and the adversary go beyond the paper.

    Example:
        ```python
        >>> IEEGAudioConfig.preset("neuralbench", participants={"s1": 141}).num_hidden_layers
        4

        ```
    """

    model_type = "bit_speech_ieeg_audio"

    participants: dict[str, int] = field(default_factory=lambda: {"participant": 141})
    sessions: list[str] = field(default_factory=list)
    window_bins: int = 120
    encoder_type: Literal["convolution", "linear", "mean_linear"] = "convolution"
    read_in: Literal["participant", "position"] = "participant"
    position_frequencies: int = 10
    regions: list[str] = field(default_factory=list)
    initial_size: int = 270
    participant_layer: bool = False
    participant_dropout: float = 0.0
    session_layer: bool = False
    session_dropout: float = 0.0
    hidden_size: int = 320
    num_hidden_layers: int = 10
    kernel_size: int = 3
    dilation_growth: int = 2
    dilation_period: int | None = 5
    glu_every: int = 2
    output_layers: Literal["two_convolutions", "narrow_last"] = "two_convolutions"
    output_size: int = 512
    pool_size: int = 256
    embedding_size: int = 1024
    extra_targets: dict[str, int] = field(default_factory=dict)
    target_weights: dict[str, float] = field(default_factory=dict)
    dropout: float = 0.0
    loss: Literal["clip", "siglip"] = "clip"
    symmetric: bool = False
    temperature_init: float = math.log(1 / 0.07)
    temperature_max: float = math.log(100)
    duplicate_threshold: float = 0.999
    day_adversary_weight: float = 0.0
    finetuning_head: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Check everything."""
        self.participants, self.sessions = check_participants(self.participants, self.sessions)
        super().__post_init__(**kwargs)
        sizes = ("window_bins", "position_frequencies", "initial_size", "hidden_size", "num_hidden_layers")
        for name in (*sizes, "kernel_size", "dilation_growth", "output_size", "pool_size", "embedding_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be an integer of at least 1, got {getattr(self, name)!r}.")
        for name in ("participant_dropout", "session_dropout", "dropout"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"`{name}` must be in [0, 1), got {getattr(self, name)!r}.")
        if self.kernel_size % 2 == 0:
            raise ValueError(f"`kernel_size` must be odd to keep the bins in place, got {self.kernel_size}.")
        if self.dilation_period is not None and self.dilation_period < 1:
            raise ValueError(f"`dilation_period` must be None or at least 1 layer, got {self.dilation_period}.")
        if self.glu_every < 0 or self.day_adversary_weight < 0:
            raise ValueError(
                f"`glu_every` and `day_adversary_weight` must not be negative, got {self.glu_every} and "
                f"{self.day_adversary_weight}."
            )
        self._check_targets()
        if len(set(self.regions)) != len(self.regions) or (self.regions and self.read_in != "position"):
            raise ValueError(
                f"`regions` must be different names and need read_in='position', got {self.regions} and "
                f"read_in={self.read_in!r}."
            )
        for name, known in (
            ("encoder_type", ("convolution", "linear", "mean_linear")),
            ("read_in", ("participant", "position")),
            ("output_layers", ("two_convolutions", "narrow_last")),
            ("loss", ("clip", "siglip")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"`{name}` must be one of {', '.join(known)}, got {getattr(self, name)!r}.")
        if self.temperature_init > self.temperature_max:
            raise ValueError(
                f"`temperature_init`={self.temperature_init} is above `temperature_max`={self.temperature_max}."
            )
        if (self.session_layer or self.day_adversary_weight) and not self.sessions:
            raise ValueError("session_layer and day_adversary_weight need the names of the `sessions`, got none.")
        if self.encoder_type == "linear" and (len(self.participants) > 1 or self.read_in == "position"):
            raise ValueError(
                "encoder_type='linear' flattens the channels of one participant, got participants "
                f"{sorted(self.participants)} and read_in={self.read_in!r}: use 'mean_linear' or 'convolution'."
            )

    def _check_targets(self) -> None:
        # Saved files sort keys: so must this, or labels would change places.
        self.regions, self.extra_targets = list(self.regions), dict(sorted(self.extra_targets.items()))
        for name, size in self.extra_targets.items():
            if not name.isidentifier() or name == "audio" or isinstance(size, bool) or not isinstance(size, int):
                raise ValueError(
                    f"`extra_targets` has {name!r}: {size!r}: give a name of letters and digits other than 'audio', "
                    "and an integer width."
                )
            if size < 1:
                raise ValueError(f"`extra_targets` has {name!r}: {size}: a width is at least 1.")
        for name, weight in self.target_weights.items():
            if name not in self.extra_targets or not weight > 0:
                raise ValueError(
                    f"`target_weights` has {name!r}: {weight!r}: give a positive weight to one of "
                    f"{sorted(self.extra_targets)}."
                )

    @property
    def label_size(self) -> int:
        """Width of `labels`: the audio features and all further targets (`int`)."""
        return self.embedding_size + sum(self.extra_targets.values())

    @classmethod
    def preset(cls, name: str, **changes: Any) -> IEEGAudioConfig:
        """Make the configuration of a published shape of the encoder.

        Args:
            name (`str`): `"brainmagick"` or `"neuralbench"`.
            **changes: fields that differ, `participants` above all.

        Returns:
            `IEEGAudioConfig`: the configuration.

        Raises:
            ValueError: if there is no such preset.
        """
        if name not in ENCODER_PRESETS:
            raise ValueError(f"There is no preset {name!r}: choose one of {', '.join(ENCODER_PRESETS)}.")
        return cls(**{**ENCODER_PRESETS[name], **changes})
