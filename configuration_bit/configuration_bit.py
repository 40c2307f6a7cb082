"""Configuration of the BIT encoder."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from transformers.configuration_utils import PreTrainedConfig

from .phoneme_inventory_bit import MODEL_ORDER
from .remote_code_bit import RemoteCodeMixin


def check_participants(participants: Any, sessions: Any) -> tuple[dict[str, int], list[str]]:
    """Validate the participants and sessions of a configuration and bring them into their lasting order.

    Args:
        participants (`dict[str, int]`): participant name -> number of feature channels.
        sessions (`list[str]`): session names; their order gives `session_index`.

    Returns:
        `tuple[dict[str, int], list[str]]`: the participants sorted by name, and the sessions as a list. Sorting makes
        `participant_index` survive saving, because JSON configurations are written with sorted keys.

    Raises:
        ValueError: if there is no participant, a name is empty or has a dot, a channel count is not a positive
            integer, or a session is named twice.

    Example:
        ```python
        >>> check_participants({"t15": 512, "t12": 256}, ["t15.2023.08.11"])
        ({'t12': 256, 't15': 512}, ['t15.2023.08.11'])

        ```
    """
    if not isinstance(participants, dict) or not participants:
        raise ValueError(
            f"`participants` must name at least one participant, e.g. {{'t15': 512}}, got {participants!r}."
        )
    for name, channels in participants.items():
        if not isinstance(name, str) or not name or "." in name:
            raise ValueError(f"Participant name {name!r} must be a non-empty string without dots.")
        if isinstance(channels, bool) or not isinstance(channels, int) or channels < 1:
            raise ValueError(f"Participant {name!r} must have a positive number of channels, got {channels!r}.")
    sessions = list(sessions or [])
    if not all(isinstance(name, str) and name for name in sessions):
        raise ValueError(f"`sessions` must be non-empty strings such as 't15.2023.08.11', got {sessions!r}.")
    twice = sorted({name for name in sessions if sessions.count(name) > 1})
    if twice:
        raise ValueError(f"`sessions` names {twice} more than once: name every session once.")
    return dict(sorted(participants.items())), sessions


def check_ranges(config: Any, positive: tuple[str, ...], probabilities: tuple[str, ...]) -> None:
    """Check the plain numbers of a configuration.

    Args:
        config (`PreTrainedConfig`): the configuration.
        positive (`tuple[str, ...]`): names of fields that must be integers of at least 1.
        probabilities (`tuple[str, ...]`): names of fields that must lie in [0, 1).

    Raises:
        ValueError: naming the field and its value.
    """
    for name in positive:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError(f"`{name}` must be an integer of at least 1, got {value!r}.")
    for name in probabilities:
        value = getattr(config, name)
        if not isinstance(value, (int, float)) or not 0.0 <= value < 1.0:
            raise ValueError(f"`{name}` must be in [0, 1), got {value!r}.")
    if config.ctc_loss_reduction not in ("mean", "sum"):
        raise ValueError(f"`ctc_loss_reduction` must be 'mean' or 'sum', got {config.ctc_loss_reduction!r}.")
    if not 0 <= config.pad_token_id < config.vocab_size:
        raise ValueError(
            f"`pad_token_id` is the CTC blank and must be a class below vocab_size={config.vocab_size}, "
            f"got {config.pad_token_id!r}."
        )


class BITConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`BITModel`], [`BITForMaskedModeling`] and [`BITForCTC`]. The defaults are the paper's encoder.

    Args:
        vocab_size (`int`, defaults to 41): number of classes: blank, 39 phonemes, SIL.
        pad_token_id (`int`, defaults to 0): class of the CTC blank.
        participants (`dict[str, int]`): participant name -> number of feature channels. Each has a read-in and a head
            of its own. `participant_index` counts them in alphabetical order.
        sessions (`list[str]`): session names in the order of `session_index`. Needed when `read_in="session"`.
        read_in (`str`, defaults to `"participant"`): `"participant"` is the paper's read-in; `"session"` puts a linear
            map of the channels for each session (identity at first) before it.
        patch_size (`int`, defaults to 5): bins in a patch; 5 bins of 20 ms are 100 ms.
        patch_stride (`int`, *optional*): bins from one patch to the next; default `patch_size` (no overlap).
        hidden_size (`int`, defaults to 384): width of the encoder.
        num_hidden_layers (`int`, defaults to 7): number of blocks.
        num_attention_heads (`int`, defaults to 6): heads; each has width `hidden_size / num_attention_heads`.
        intermediate_size (`int`, defaults to 512): width inside the feed-forward part.
        hidden_act (`str`, defaults to `"gelu"`): its activation.
        embedding_dropout (`float`, defaults to 0.2): dropout on the embedded patches, after masking.
        hidden_dropout (`float`, defaults to 0.4): dropout on the attention output (before its projection) and on the
            feed-forward output.
        attention_dropout (`float`, defaults to 0.4): dropout on attention probabilities.
        rope_theta (`float`, defaults to 10000.0): base of the rotary embedding; the position is a patch's first bin.
        layer_norm_eps (`float`, defaults to 1e-5): epsilon of the layer norms.
        causal (`bool`, defaults to `False`): a patch sees itself and the past only.
        attention_window (`int`, *optional*): a patch sees at most this many patches on each side; default all.
        mask_ratio (`float`, defaults to 0.0): share of each trial's patches that is replaced by the mask token in
            training. The paper's self-supervision hides 0.5.
        mask_max_span (`int`, defaults to 15): masked spans are 1 to this many patches long.
        pretraining_objective (`str`, defaults to `"reconstruction"`): what [`BITForMaskedModeling`] learns.
            `"reconstruction"` is the paper's: the z-scored values of masked patches, squared error. `"poisson"`: the
            spike counts of masked patches, Poisson likelihood. `"autoregressive"`: whether each channel spikes in each
            bin of the next patch, from the past alone (needs `causal=True`, masks nothing).
        ctc_loss_reduction (`str`, defaults to `"mean"`): `"mean"` is the mean over trials of loss / number of labels;
            `"sum"` the sum over trials.
        ctc_zero_infinity (`bool`, defaults to `False`): replace the infinite loss of a trial with fewer frames than
            its labels need by zero. Off, so that such trials are seen.

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740. Table 10 of the paper calls 512 the head dimension; it is the
        feed-forward width (the head width is 384 / 6 = 64), which the parameter count of 7 M confirms. The released
        code hides infinite losses and sums instead of averaging; both depart here.

    Example:
        ```python
        >>> config = BITConfig(participants={"t15": 512})
        >>> config.hidden_size // config.num_attention_heads, config.patch_stride
        (64, 5)

        ```
    """

    model_type = "bit_speech"

    vocab_size: int = 41
    pad_token_id: int = 0
    participants: dict[str, int] = field(default_factory=lambda: {"participant": 512})
    sessions: list[str] = field(default_factory=list)
    read_in: Literal["participant", "session"] = "participant"
    patch_size: int = 5
    patch_stride: int | None = None
    hidden_size: int = 384
    num_hidden_layers: int = 7
    num_attention_heads: int = 6
    intermediate_size: int = 512
    hidden_act: str = "gelu"
    embedding_dropout: float = 0.2
    hidden_dropout: float = 0.4
    attention_dropout: float = 0.4
    rope_theta: float = 10000.0
    layer_norm_eps: float = 1e-5
    causal: bool = False
    attention_window: int | None = None
    mask_ratio: float = 0.0
    mask_max_span: int = 15
    pretraining_objective: Literal["reconstruction", "poisson", "autoregressive"] = "reconstruction"
    ctc_loss_reduction: Literal["mean", "sum"] = "mean"
    ctc_zero_infinity: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in what depends on other values, and check everything."""
        if self.patch_stride is None:
            self.patch_stride = self.patch_size
        self.participants, self.sessions = check_participants(self.participants, self.sessions)
        super().__post_init__(**kwargs)
        if self.vocab_size == len(MODEL_ORDER):
            self.id2label = dict(enumerate(MODEL_ORDER))
            self.label2id = {token: index for index, token in enumerate(MODEL_ORDER)}
        sizes = ("vocab_size", "patch_size", "patch_stride", "hidden_size", "num_hidden_layers")
        more_sizes = ("num_attention_heads", "intermediate_size", "mask_max_span")
        check_ranges(
            self, sizes + more_sizes, ("embedding_dropout", "hidden_dropout", "attention_dropout", "mask_ratio")
        )
        if self.hidden_size % self.num_attention_heads or (self.hidden_size // self.num_attention_heads) % 2:
            raise ValueError(
                f"hidden_size={self.hidden_size} must be num_attention_heads={self.num_attention_heads} heads of one "
                "even width (rotary embeddings turn pairs)."
            )
        if self.attention_window is not None and self.attention_window < 0:
            raise ValueError(f"`attention_window` must be None or at least 0 patches, got {self.attention_window}.")
        if self.read_in not in ("participant", "session"):
            raise ValueError(f"`read_in` must be 'participant' or 'session', got {self.read_in!r}.")
        if self.pretraining_objective not in ("reconstruction", "poisson", "autoregressive"):
            raise ValueError(
                "`pretraining_objective` must be 'reconstruction', 'poisson' or 'autoregressive', got "
                f"{self.pretraining_objective!r}."
            )
        if self.pretraining_objective == "autoregressive" and not self.causal:
            raise ValueError("pretraining_objective='autoregressive' predicts the future: it needs causal=True.")
        if self.read_in == "session" and (len(self.participants) != 1 or not self.sessions):
            raise ValueError(
                "read_in='session' needs exactly one participant and its `sessions`, got participants "
                f"{sorted(self.participants)} and {len(self.sessions)} sessions."
            )
