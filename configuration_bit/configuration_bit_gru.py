"""Configuration of the benchmark's recurrent baseline."""

from __future__ import annotations

from dataclasses import field
from typing import Any, Literal

from transformers.configuration_utils import PreTrainedConfig

from .configuration_bit import check_participants, check_ranges
from .phoneme_inventory_bit import MODEL_ORDER
from .remote_code_bit import RemoteCodeMixin


class BITGRUConfig(RemoteCodeMixin, PreTrainedConfig):
    """Configuration of [`BITGRUForCTC`]. The defaults are the baseline of Brain-to-Text '25.

    Args:
        vocab_size (`int`, defaults to 41): number of classes: blank, 39 phonemes, SIL.
        pad_token_id (`int`, defaults to 0): class of the CTC blank.
        participants (`dict[str, int]`): exactly one participant name -> number of feature channels.
        sessions (`list[str]`): session names in the order of `session_index`; each has an input layer of its own.
            Empty: one layer for all trials.
        patch_size (`int`, defaults to 14): bins that the network reads at once.
        patch_stride (`int`, defaults to 4): bins from one patch to the next.
        hidden_size (`int`, defaults to 768): units in a layer.
        num_hidden_layers (`int`, defaults to 5): layers.
        input_dropout (`float`, defaults to 0.2): dropout after the session's input layer.
        hidden_dropout (`float`, defaults to 0.4): dropout between the recurrent layers.
        bidirectional (`bool`, defaults to `False`): read the trial in both directions.
        ctc_loss_reduction (`str`, defaults to `"mean"`): `"mean"` or `"sum"`, see [`BITConfig`].
        ctc_zero_infinity (`bool`, defaults to `False`): see [`BITConfig`].

    Raises:
        ValueError: if a value is out of range; the message names it.

    Note:
        Card et al. 2024, doi:10.1056/NEJMoa2314132, in the PyTorch form released with Brain-to-Text '25. The released
        network is unidirectional; `bidirectional=True` goes beyond it.

    Example:
        ```python
        >>> BITGRUConfig(participants={"t15": 512}, sessions=["t15.2023.08.11"]).patch_stride
        4

        ```
    """

    model_type = "bit_speech_gru"

    vocab_size: int = 41
    pad_token_id: int = 0
    participants: dict[str, int] = field(default_factory=lambda: {"participant": 512})
    sessions: list[str] = field(default_factory=list)
    patch_size: int = 14
    patch_stride: int = 4
    hidden_size: int = 768
    num_hidden_layers: int = 5
    input_dropout: float = 0.2
    hidden_dropout: float = 0.4
    bidirectional: bool = False
    ctc_loss_reduction: Literal["mean", "sum"] = "mean"
    ctc_zero_infinity: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill in the class names and check everything."""
        self.participants, self.sessions = check_participants(self.participants, self.sessions)
        super().__post_init__(**kwargs)
        if self.vocab_size == len(MODEL_ORDER):
            self.id2label = dict(enumerate(MODEL_ORDER))
            self.label2id = {token: index for index, token in enumerate(MODEL_ORDER)}
        positive = ("vocab_size", "patch_size", "patch_stride", "hidden_size", "num_hidden_layers")
        check_ranges(self, positive, ("input_dropout", "hidden_dropout"))
        if len(self.participants) != 1:
            raise ValueError(
                f"The recurrent baseline reads one participant, got {sorted(self.participants)}: make one model each."
            )
