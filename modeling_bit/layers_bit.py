"""Layers and helpers that two models share."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from transformers import initialization as init


def count_frames(num_bins: int | torch.Tensor, patch_size: int, patch_stride: int) -> int | torch.Tensor:
    """Number of whole patches in a trial; a trailing partial patch is dropped.

    Args:
        num_bins (`int` or `torch.Tensor`): number of bins.
        patch_size (`int`): bins in a patch.
        patch_stride (`int`): bins from one patch to the next.

    Returns:
        `int` or `torch.Tensor`: `floor((num_bins - patch_size) / patch_stride) + 1`, never below 0.

    Example:
        ```python
        >>> count_frames(14, 5, 5), count_frames(4, 5, 5), count_frames(torch.tensor([22, 13]), 14, 4).tolist()
        (2, 0, [3, 0])

        ```
    """
    if isinstance(num_bins, torch.Tensor):
        return (torch.div(num_bins - patch_size, patch_stride, rounding_mode="floor") + 1).clamp(min=0)
    return max(0, (num_bins - patch_size) // patch_stride + 1)


def extract_patches(features: torch.Tensor, patch_size: int, patch_stride: int) -> torch.Tensor:
    """Cut trials into patches and flatten each, bin after bin.

    Args:
        features (`torch.Tensor` of shape `(B, T, C)`): trials.
        patch_size (`int`): bins in a patch.
        patch_stride (`int`): bins from one patch to the next.

    Returns:
        `torch.Tensor` of shape `(B, P, patch_size * C)`: the C channels of a patch's first bin come first.
    """
    batch, bins, channels = features.shape
    frames = count_frames(bins, patch_size, patch_stride)
    if patch_stride == patch_size:
        return features[:, : frames * patch_size].reshape(batch, frames, patch_size * channels)
    patches = features.unfold(1, patch_size, patch_stride)  # (B, P, C, patch_size), a view
    return patches.transpose(2, 3).reshape(batch, frames, patch_size * channels)


def prepare_frames(
    features: torch.Tensor, attention_mask: torch.Tensor | None, patch_size: int, patch_stride: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Number of real frames of each trial, after checking the inputs.

    Args:
        features (`torch.Tensor` of shape `(B, T, C)`): trials, padded at the end.
        attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin.
        patch_size (`int`): bins in a patch.
        patch_stride (`int`): bins from one patch to the next.

    Returns:
        `tuple[torch.Tensor, torch.Tensor]`: frame lengths `(B,)` and the frame mask `(B, P)`, True = real frame.

    Raises:
        ValueError: if a shape is wrong, the batch is shorter than one patch, or padding is not at the end.
    """
    batch, bins = features.shape[:2]
    frames = count_frames(bins, patch_size, patch_stride)
    if frames == 0:
        raise ValueError(f"Trials of {bins} bins are shorter than one patch of {patch_size} bins.")
    if attention_mask is None:
        lengths = torch.full((batch,), frames, dtype=torch.long, device=features.device)
    else:
        if attention_mask.shape != features.shape[:2]:
            raise ValueError(
                f"`attention_mask` has shape {tuple(attention_mask.shape)}, but the trials have "
                f"(batch, bins) = {(batch, bins)}."
            )
        attention_mask = attention_mask.bool()
        if values_are_cheap(attention_mask) and bool((attention_mask[:, 1:] & ~attention_mask[:, :-1]).any()):
            raise ValueError("`attention_mask` has padding before or inside a trial: pad at the end only.")
        lengths = count_frames(attention_mask.sum(dim=1), patch_size, patch_stride)
    return lengths, torch.arange(frames, device=features.device) < lengths[:, None]


def values_are_cheap(tensor: torch.Tensor) -> bool:
    """Whether reading a tensor's values costs nothing: on the CPU, outside of compilation.

    Args:
        tensor (`torch.Tensor`): any tensor.

    Returns:
        `bool`: False on an accelerator (reading would wait for it) and while compiling (reading would cut the graph).
    """
    return tensor.device.type == "cpu" and not torch.compiler.is_compiling()


def find_participant(participants: Mapping[str, int], index: torch.Tensor | None, features: torch.Tensor) -> str:
    """Name of the participant of a batch, after checking the number of channels.

    Args:
        participants (`Mapping[str, int]`): participant name -> number of channels, in index order.
        index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial; all equal. Default 0.
        features (`torch.Tensor` of shape `(B, T, C)`): the trials.

    Returns:
        `str`: the name.

    Raises:
        ValueError: if the batch mixes participants, the index does not exist, or the channels do not fit.

    Note:
        With one participant on an accelerator the values of `index` are not read, because that would wait for it.
    """
    if features.dim() != 3:
        raise ValueError(f"`input_features` must be (batch, bins, channels), got shape {tuple(features.shape)}.")
    names = list(participants)
    position = 0
    if index is not None:
        if index.shape != features.shape[:1]:
            raise ValueError(
                f"`participant_index` has shape {tuple(index.shape)} for {features.shape[0]} trials: give one each."
            )
        if len(names) > 1 or values_are_cheap(index):
            values = sorted(set(index.tolist()))
            if len(values) > 1:
                raise ValueError(f"One participant per batch, but `participant_index` holds {values}.")
            if not 0 <= values[0] < len(names):
                raise ValueError(f"`participant_index` {values[0]} does not exist: participants are {names}.")
            position = values[0]
    name = names[position]
    if features.shape[2] != participants[name]:
        raise ValueError(
            f"Participant {name!r} has {participants[name]} channels, got trials with {features.shape[2]}."
        )
    return name


def per_participant(participants: Mapping[str, int], build: Callable[[int], nn.Module]) -> nn.ModuleDict:
    """One module for each participant.

    Args:
        participants (`Mapping[str, int]`): participant name -> number of channels.
        build (`Callable[[int], nn.Module]`): makes the module from the number of channels.

    Returns:
        `nn.ModuleDict`: the modules by name.

    Raises:
        ValueError: if a name cannot be the name of a torch module.
    """
    modules = nn.ModuleDict()
    for name, channels in participants.items():
        try:
            modules[name] = build(channels)
        except KeyError as error:
            raise ValueError(f"Participant name {name!r} is reserved by torch: choose another.") from error
    return modules


def dropout(states: torch.Tensor, probability: float, training: bool) -> torch.Tensor:
    """Dropout that is cheap on the CPU too.

    Args:
        states (`torch.Tensor`): any values.
        probability (`float`): chance of each value to become zero, in [0, 1).
        training (`bool`): False returns `states` as they are.

    Returns:
        `torch.Tensor`: like `states`; its expectation is `states`.

    Note:
        On the CPU torch draws a Bernoulli number for each value, at 12 ns each, which was a sixth of a training step.
        Here four values share one 64-bit number of torch's generator (1.3 ns each); the probability is met to 1e-5.
    """
    if not training or probability == 0.0:
        return states
    if not values_are_cheap(states):
        return F.dropout(states, probability, training)
    count = states.numel()
    bits = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
    kept = round((1.0 - probability) * 65536)
    keep = (bits.view(torch.int16)[:count].view(states.shape) < kept - 32768).to(states.dtype)
    return states * keep.mul_(65536 / kept)


class Dropout(nn.Module):
    """[`dropout`] as a module.

    Args:
        probability (`float`): chance of each value to become zero, in [0, 1).
    """

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.p = probability

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        """Drop values in training.

        Args:
            states (`torch.Tensor`): any values.

        Returns:
            `torch.Tensor`: like `states`.
        """
        return dropout(states, self.p, self.training)

    def extra_repr(self) -> str:
        """Show the probability when the model is printed.

        Returns:
            `str`: for example `"p=0.4"`.
        """
        return f"p={self.p}"


@torch.no_grad()
def init_identity(parameters: nn.ParameterDict) -> None:
    """Make the maps of a [`SessionLinear`] the identity, except those that a checkpoint has filled.

    Args:
        parameters (`nn.ParameterDict`): its weights or its biases.
    """
    for parameter in parameters.values():
        if parameter.dim() == 2:
            init.eye_(parameter)
        else:
            init.zeros_(parameter)


class SessionLinear(nn.Module):
    """A linear map of the channels for each session, the identity at first.

    A parameter belongs to its session by name, so that a checkpoint can be continued with more sessions: the new ones
    start as the identity, the known ones keep what they learnt.

    Args:
        sessions (`Sequence[str]`): session names in the order of `session_index`. Empty: one map for all trials.
        num_channels (`int`): feature channels C.

    Raises:
        ValueError: if two sessions would get the same parameter name.
    """

    def __init__(self, sessions: Sequence[str], num_channels: int) -> None:
        super().__init__()
        self.sessions = list(sessions)
        self.keys = [name.replace(".", "-") for name in self.sessions] or ["all_sessions"]
        if len(set(self.keys)) != len(self.keys):
            raise ValueError(f"Session names {self.sessions} differ only in '.' and '-': rename them.")
        self.weight = nn.ParameterDict({key: nn.Parameter(torch.eye(num_channels)) for key in self.keys})
        self.bias = nn.ParameterDict({key: nn.Parameter(torch.zeros(num_channels)) for key in self.keys})

    def forward(self, features: torch.Tensor, session_index: torch.Tensor | None = None) -> torch.Tensor:
        """Apply each trial's own map.

        Args:
            features (`torch.Tensor` of shape `(B, T, C)`): trials.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial.

        Returns:
            `torch.Tensor` of shape `(B, T, C)`.

        Raises:
            ValueError: if an index is missing or does not exist.
        """
        if len(self.keys) == 1 and (session_index is None or not values_are_cheap(session_index)):
            return features @ self.weight[self.keys[0]] + self.bias[self.keys[0]]
        if session_index is None:
            raise ValueError(f"`session_index` is needed: this model knows {len(self.keys)} sessions.")
        if session_index.shape != features.shape[:1]:
            raise ValueError(
                f"`session_index` has shape {tuple(session_index.shape)} for {features.shape[0]} trials: give one each."
            )
        if torch.compiler.is_compiling():
            used, position = list(range(len(self.keys))), session_index
        else:
            # Only the sessions at hand take part, so that the others get no gradient and their optimiser state rests.
            values = session_index.tolist()
            used = sorted(set(values))
            if used[0] < 0 or used[-1] >= len(self.keys):
                raise ValueError(
                    f"`session_index` {used} is outside the {len(self.keys)} known sessions {self.sessions}."
                )
            position = torch.tensor([used.index(value) for value in values], device=features.device)
        if len(used) == 1:
            return features @ self.weight[self.keys[used[0]]] + self.bias[self.keys[used[0]]]
        weight = torch.stack([self.weight[self.keys[i]] for i in used]).to(features.dtype)
        bias = torch.stack([self.bias[self.keys[i]] for i in used]).to(features.dtype)
        return torch.bmm(features, weight.index_select(0, position)) + bias.index_select(0, position)[:, None]


def ctc_loss(
    logits: torch.Tensor,
    frame_lengths: torch.Tensor,
    labels: torch.Tensor,
    blank: int,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> torch.Tensor:
    """Connectionist temporal classification loss, in float32.

    Args:
        logits (`torch.Tensor` of shape `(B, P, V)`): raw scores.
        frame_lengths (`torch.Tensor` of shape `(B,)`): real frames of each trial.
        labels (`torch.Tensor` of shape `(B, L)`): classes, padded with -100.
        blank (`int`): class of the blank.
        reduction (`str`): `"mean"`: mean over trials of loss / number of labels; `"sum"`: sum over trials.
        zero_infinity (`bool`): count an impossible trial as zero instead of infinity.

    Returns:
        `torch.Tensor`: scalar.

    Raises:
        ValueError: if a label is not a class, or is the blank.
    """
    if labels.dim() != 2 or labels.shape[0] != logits.shape[0]:
        raise ValueError(f"`labels` must be (batch, labels) for {logits.shape[0]} trials, got {tuple(labels.shape)}.")
    real = labels >= 0
    if values_are_cheap(labels):
        wrong = labels[(real & ((labels >= logits.shape[2]) | (labels == blank))) | (~real & (labels != -100))]
        if wrong.numel():
            raise ValueError(
                f"Label {int(wrong[0])} is not a phoneme class: classes are 0 to {logits.shape[2] - 1} without the "
                f"blank {blank}, padding is -100."
            )
    log_probs = F.log_softmax(logits, dim=-1, dtype=torch.float32).transpose(0, 1)  # (P, B, V)
    targets, label_lengths = labels.clamp(min=0), real.sum(dim=1)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        if not torch.compiler.is_compiling():
            lengths = (frame_lengths, label_lengths)
            return F.ctc_loss(log_probs, targets, *lengths, blank, reduction, zero_infinity)
        losses, _ = _compilable_ctc(log_probs, targets, frame_lengths, label_lengths, blank, zero_infinity)
        return losses.sum() if reduction == "sum" else (losses / label_lengths.clamp(min=1)).mean()


# torch's own operator has outputs whose shapes depend on the labels, which cuts a compiled graph. This one computes the
# gradient along with the losses, so that all its shapes are known.
@torch.library.custom_op("bit_speech::ctc", mutates_args=())
def _compilable_ctc(
    log_probs: torch.Tensor,
    targets: torch.Tensor,
    frame_lengths: torch.Tensor,
    label_lengths: torch.Tensor,
    blank: int,
    zero_infinity: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    arguments = (targets, frame_lengths, label_lengths)
    losses, alpha = torch.ops.aten._ctc_loss.Tensor(log_probs, *arguments, blank, zero_infinity)
    gradient = torch.ops.aten._ctc_loss_backward.Tensor(
        torch.ones_like(losses), log_probs, *arguments, losses, alpha, blank, zero_infinity
    )
    if zero_infinity:
        losses = torch.where(losses.isinf(), 0.0, losses)
    return losses, gradient.contiguous()


@_compilable_ctc.register_fake
def _(log_probs, targets, frame_lengths, label_lengths, blank, zero_infinity):  # type: ignore[no-untyped-def]
    return log_probs.new_empty(log_probs.shape[1]), log_probs.new_empty(log_probs.shape)


def _keep_gradient(ctx: Any, inputs: tuple, output: tuple[torch.Tensor, torch.Tensor]) -> None:
    ctx.save_for_backward(output[1])


def _ctc_backward(ctx: Any, grad_losses: torch.Tensor, _: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    (gradient,) = ctx.saved_tensors
    return gradient * grad_losses[None, :, None], None, None, None, None, None


_compilable_ctc.register_autograd(_ctc_backward, setup_context=_keep_gradient)
