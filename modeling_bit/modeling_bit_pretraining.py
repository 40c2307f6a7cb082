"""Self-supervised pretraining of the BIT encoder: reconstruct what was hidden, or predict what comes next."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional as F
from transformers.modeling_outputs import ModelOutput

from configuration_bit.configuration_bit import BITConfig

from .layers_bit import extract_patches, find_participant, per_participant, prepare_frames, values_are_cheap
from .masking_bit import sample_span_mask
from .modeling_bit import BITModel, BITPreTrainedModel


@dataclass
class BITMaskedModelingOutput(ModelOutput):
    """Output of [`BITForMaskedModeling`]. N is the number of patches that count in the loss.

    Args:
        loss (`torch.Tensor`): scalar, the mean over the entries of `target`.
        r2 (`torch.Tensor`): scalar, share of the target's variance (around each channel's mean in the batch) that the
            prediction explains, for the batch's one participant.
        prediction (`torch.Tensor` of shape `(N, patch_size * C)`): expected values, spike counts or spike
            probabilities of the patches.
        target (`torch.Tensor` of shape `(N, patch_size * C)`): what they were.
        frame_mask (`torch.Tensor` of shape `(B, P)`, bool): True = real frame.
        time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): True = the patch was hidden.
        hidden_states (`tuple[torch.Tensor, ...]`, *optional*): states of the encoder.
    """

    loss: torch.Tensor | None = None
    r2: torch.Tensor | None = None
    prediction: torch.Tensor | None = None
    target: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    time_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class BITReadOut(nn.Module):
    """A participant's way out of the encoder, the read-in reversed: LayerNorm, Linear, LayerNorm.

    Args:
        patch_width (`int`): bins in a patch x channels.
        hidden_size (`int`): width of the encoder D.
        eps (`float`): epsilon of the norms.
    """

    def __init__(self, patch_width: int, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.norm_in = nn.LayerNorm(hidden_size, eps=eps)
        self.projection = nn.Linear(hidden_size, patch_width)
        self.norm_out = nn.LayerNorm(patch_width, eps=eps)
        # Of single bins little can be predicted, and from 1 the gain comes down by no more than the learning rate in a
        # step: after 200 steps the prediction was still worse than the mean (docs/pretraining.md).
        self.norm_out.init_gain = 0.1

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Turn encoded patches back into patches.

        Args:
            hidden (`torch.Tensor` of shape `(N, D)`): encoded patches.

        Returns:
            `torch.Tensor` of shape `(N, patch_width)`.
        """
        return self.norm_out(self.projection(self.norm_in(hidden)))


class BITForMaskedModeling(BITPreTrainedModel):
    """The BIT encoder with a read-out for each participant, trained on recordings without labels.

    Args:
        config (`BITConfig`): the configuration; `pretraining_objective` chooses what is learnt.

    Raises:
        ValueError: if patches overlap (a hidden patch would show in its neighbours), or nothing is masked.

    Note:
        Zhang, He et al. 2025, arXiv 2511.21740: half of the patches are replaced by one learnable token, and the raw
        z-scored values of the hidden patches are reconstructed with a squared error. The released code sums the error
        and hides one span length a batch; here it is the mean over the hidden entries and every trial draws its own
        spans. The last norm's gain starts at 0.1 instead of 1. Read-in and read-out are computed only where they
        matter. The autoregressive objective on binarised counts goes beyond the paper: an independent replication
        found it the best on monkey recordings (github.com/sergiolsantamaria2/brain2text-ssl-nhp).

    Example:
        ```python
        >>> config = BITConfig(participants={"t15": 8}, hidden_size=24, num_hidden_layers=1, mask_ratio=0.5)
        >>> output = BITForMaskedModeling(config)(torch.randn(2, 50, 8))
        >>> output.prediction.shape, bool(output.loss > 0)
        (torch.Size([10, 40]), True)

        ```
    """

    def __init__(self, config: BITConfig) -> None:
        super().__init__(config)
        if config.patch_stride != config.patch_size:
            raise ValueError(
                f"Pretraining needs patches that do not overlap, got patch_stride={config.patch_stride} for "
                f"patch_size={config.patch_size}: overlapping neighbours would show what is hidden."
            )
        if config.pretraining_objective != "autoregressive" and config.mask_ratio == 0:
            raise ValueError("mask_ratio=0.0 hides nothing, so nothing is learnt: use for example mask_ratio=0.5.")
        if config.pretraining_objective == "autoregressive" and config.mask_ratio > 0:
            raise ValueError(
                f"pretraining_objective='autoregressive' masks nothing, got mask_ratio={config.mask_ratio}: use 0.0."
            )
        self.encoder = BITModel(config)
        self.read_out = per_participant(
            config.participants,
            lambda channels: BITReadOut(config.patch_size * channels, config.hidden_size, config.layer_norm_eps),
        )
        self.post_init()

    def forward(
        self,
        input_features: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        participant_index: torch.Tensor | None = None,
        session_index: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        time_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> BITMaskedModelingOutput | tuple:
        """Hide patches and predict them.

        Args:
            input_features (`torch.Tensor` of shape `(B, T, C)`): features as the encoder sees them (z-scored, smoothed,
                with noise), 20 ms bins, padded at the end.
            attention_mask (`torch.Tensor` of shape `(B, T)`, *optional*): True = real bin. Default: all real.
            participant_index (`torch.Tensor` of shape `(B,)`, *optional*): participant of each trial, all equal.
            session_index (`torch.Tensor` of shape `(B,)`, *optional*): session of each trial; used when
                `read_in="session"`.
            labels (`torch.Tensor` of shape `(B, T, C)`, *optional*): what is predicted: the z-scored values without
                smoothing and noise (default: `input_features`), or for the other objectives the spike counts.
            time_mask (`torch.Tensor` of shape `(B, P)`, bool, *optional*): patches to hide. Default: spans that cover
                `mask_ratio` of each trial, in evaluation too.
            output_hidden_states (`bool`, *optional*): also return the states between the blocks.
            return_dict (`bool`, *optional*): False returns a tuple.

        Returns:
            `BITMaskedModelingOutput` or `tuple`.

        Raises:
            ValueError: if a shape, index or mask does not fit, or counts are missing or negative.
        """
        config = self.config
        name = find_participant(config.participants, participant_index, input_features)
        lengths, frame_mask = prepare_frames(input_features, attention_mask, config.patch_size, config.patch_stride)
        target = self._patches_to_predict(input_features, labels)
        if config.pretraining_objective == "autoregressive":
            if time_mask is not None:
                raise ValueError("pretraining_objective='autoregressive' masks nothing: leave `time_mask` out.")
        elif time_mask is None:
            time_mask = sample_span_mask(lengths, frame_mask.shape[1], config.mask_ratio, config.mask_max_span)
        encoded = self.encoder(
            input_features,
            attention_mask=attention_mask,
            participant_index=participant_index,
            session_index=session_index,
            time_mask=time_mask,
            output_hidden_states=output_hidden_states,
            return_dict=True,
        )
        hidden = encoded.last_hidden_state
        if config.pretraining_objective == "autoregressive":
            hidden, target, counted = hidden[:, :-1], target[:, 1:], frame_mask[:, 1:]
        else:
            counted = time_mask & frame_mask
        position = counted.flatten().nonzero().squeeze(1)
        hidden = hidden.flatten(0, 1).index_select(0, position)  # (N, D)
        target = target.flatten(0, 1).index_select(0, position)  # (N, patch_size * C)
        loss, prediction, target = self._loss(self.read_out[name](hidden).float(), target.float())
        output = BITMaskedModelingOutput(
            loss=loss,
            r2=r2_score(prediction, target, config.patch_size),
            prediction=prediction,
            target=target,
            frame_mask=frame_mask,
            time_mask=time_mask,
            hidden_states=encoded.hidden_states,
        )
        return output if (config.return_dict if return_dict is None else return_dict) else output.to_tuple()

    def _patches_to_predict(self, features: torch.Tensor, labels: torch.Tensor | None) -> torch.Tensor:
        if labels is None:
            if self.config.pretraining_objective != "reconstruction":
                raise ValueError(
                    f"pretraining_objective={self.config.pretraining_objective!r} predicts spike counts: give them as "
                    "`labels` of the shape of `input_features`."
                )
            labels = features
        if labels.shape != features.shape:
            raise ValueError(
                f"`labels` has shape {tuple(labels.shape)}, but the features have {tuple(features.shape)}: give what "
                "every bin and channel holds."
            )
        return extract_patches(labels, self.config.patch_size, self.config.patch_stride)

    def _loss(self, scores: torch.Tensor, target: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Loss, expected values and target, each in float32."""
        objective = self.config.pretraining_objective
        count = max(1, target.numel())  # a batch of trials too short to mask one patch has the loss 0
        if objective == "reconstruction":
            return F.mse_loss(scores, target, reduction="sum") / count, scores.detach(), target
        if values_are_cheap(target) and bool((target < 0).any()):
            raise ValueError(f"`labels` must be spike counts, got {float(target.min())}.")
        if objective == "poisson":
            loss = F.poisson_nll_loss(scores, target, reduction="sum") / count  # scores are log rates
            return loss, scores.detach().exp(), target
        target = (target > 0).float()
        loss = F.binary_cross_entropy_with_logits(scores, target, reduction="sum") / count
        return loss, scores.detach().sigmoid(), target


@torch.no_grad()
def r2_score(prediction: torch.Tensor, target: torch.Tensor, patch_size: int) -> torch.Tensor:
    """Share of the variance of the channels that a prediction explains.

    Args:
        prediction (`torch.Tensor` of shape `(N, patch_size * C)`): predicted patches.
        target (`torch.Tensor` of shape `(N, patch_size * C)`): true patches.
        patch_size (`int`): bins in a patch.

    Returns:
        `torch.Tensor`: scalar, 1 - squared error / squared distance from each channel's mean, both summed over all
        channels; not a number when the target does not vary.

    Example:
        ```python
        >>> target = torch.tensor([[1.0, 5.0, 3.0, 5.0]])  # two bins of two channels
        >>> float(r2_score(target, target, 2)), float(r2_score(torch.tensor([[2.0, 5.0, 2.0, 5.0]]), target, 2))
        (1.0, 0.0)

        ```
    """
    bins = target.unflatten(1, (patch_size, -1)).flatten(0, 1)  # (N * patch_size, C)
    error = (prediction - target).square().sum()
    return 1.0 - error / (bins - bins.mean(dim=0)).square().sum()
