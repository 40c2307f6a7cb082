"""Layers of a speech model as features of a story: causal windows, as encoding models are fitted to."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bit_speech.data.story_time import lanczos_resample, make_delays, zscore

if TYPE_CHECKING:
    from torch import nn

    from processing_bit.feature_extraction_story import StoryFeatureExtractor


CONVOLUTIONAL = ("wav2vec2", "hubert", "wavlm", "data2vec-audio")


@torch.no_grad()
def window_features(
    model: nn.Module,
    audio: np.ndarray,
    extractor: StoryFeatureExtractor,
    layers: Sequence[int],
    batch_size: int = 16,
    share: bool = True,
    from_s: float = 0.0,
) -> tuple[dict[int, np.ndarray], np.ndarray]:
    """Take the last frame of chosen layers in every causal window of a story.

    Args:
        model (`nn.Module`): a Wav2Vec2, HuBERT, WavLM, data2vec-audio or Whisper model, in evaluation mode.
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples of the whole story.
        extractor ([`StoryFeatureExtractor`]): length, stride and normalisation of the windows.
        layers (sequence of `int`): hidden states; 0 is the input of the first layer.
        batch_size (`int`): windows that pass the model together.
        share (`bool`): pass the convolutions (or the first of them) once for all windows where that is exact, see the
            note.
        from_s (`float`): leave out windows that end before, in seconds.

    Returns:
        `tuple`: layer -> `(N, D)` float32, and `(N,)` the end of every window in seconds.

    Raises:
        ValueError: if a layer does not exist.

    Note:
        Windows of 16.1 s every 0.1 s hear every sample 161 times, and most of that work cannot be saved. Convolutions
        are shared whole only with `normalization="none"` (normalise the whole story first) and layer norm between
        them. Group norm over a window's time (the base models) makes all frames depend on the whole window: then the
        first convolution alone is shared, which is linear. The transformer attends to all frames of a window from its
        first layer on, so every window needs its own pass through it. Layers above the last one asked for are left
        out, and that one is computed for the last frame only.
    """
    available = int(model.config.num_hidden_layers)
    wrong = [layer for layer in layers if not 0 <= layer <= available]
    if wrong or not layers:
        raise ValueError(f"layers {wrong or list(layers)} do not exist: the model has 0 to {available}")
    ends = extractor.window_ends(len(audio))
    ends = ends[ends >= round(from_s * extractor.sampling_rate)]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    length = round(extractor.window_s * extractor.sampling_rate)
    if model.config.model_type in CONVOLUTIONAL:
        frames_of = _frame_maker(model, audio, extractor, share)
        with _reduced(model, max(layers)):
            for part in _batches(ends, length, batch_size):
                hidden = model(frames_of(part), output_hidden_states=True, return_dict=True).hidden_states
                _keep_last_frame(hidden, found)
    else:
        for part in _batches(ends, length, batch_size):
            _keep_last_frame(_hear_spectra(model, np.stack(extractor.windows(audio, part))), found)
    return {layer: np.concatenate(parts) for layer, parts in found.items()}, ends / extractor.sampling_rate


def _keep_last_frame(hidden: Sequence[torch.Tensor], found: dict[int, list[np.ndarray]]) -> None:
    for layer, parts in found.items():
        parts.append(hidden[layer][:, -1].float().cpu().numpy())


def can_share(model: nn.Module, extractor: StoryFeatureExtractor) -> bool:
    """Tell whether the convolutions of a whole story hold those of every window exactly.

    Args:
        model (`nn.Module`): the speech model.
        extractor ([`StoryFeatureExtractor`]): how windows are cut.

    Returns:
        `bool`: True when nothing is normalised over a window and windows begin at a frame.
    """
    config = model.config
    if config.model_type not in CONVOLUTIONAL or extractor.normalization != "none":
        return False
    per_frame = config.model_type == "data2vec-audio" or config.feat_extract_norm == "layer"
    hop = _hop(model)
    stride, length = (round(value * extractor.sampling_rate) for value in (extractor.stride_s, extractor.window_s))
    return per_frame and stride % hop == 0 and length % hop == 0


def _hop(model: nn.Module) -> int:
    return int(np.prod(getattr(model.config, "conv_stride", [320])))


def _num_frames(model: nn.Module, samples: int) -> int:
    for kernel, stride in zip(model.config.conv_kernel, model.config.conv_stride):
        samples = (samples - kernel) // stride + 1
    return samples


def _batches(ends: np.ndarray, length: int, batch_size: int) -> Iterator[np.ndarray]:
    """Windows that are equally long together: those of the beginning alone."""
    whole = int(np.searchsorted(ends, length))
    yield from (ends[i : i + 1] for i in range(whole))
    yield from (ends[i : i + batch_size] for i in range(whole, len(ends), batch_size))


def _frame_maker(
    model: nn.Module, audio: np.ndarray, extractor: StoryFeatureExtractor, share: bool
) -> Callable[[np.ndarray], torch.Tensor]:
    """Choose how windows pass the convolutions: from the ends of windows to frames of shape `(B, channels, P)`."""
    convolutions, device = model.feature_extractor, next(model.parameters()).device
    length, hop = round(extractor.window_s * extractor.sampling_rate), _hop(model)

    def alone(part: np.ndarray) -> torch.Tensor:
        return convolutions(torch.from_numpy(np.stack(extractor.windows(audio, part))).to(device))

    if share and can_share(model, extractor):
        frames = _frames_of_story(model, audio)

        def cut(part: np.ndarray) -> torch.Tensor:
            count = _num_frames(model, int(min(part[0], length)))
            return torch.stack([frames[:, s : s + count] for s in np.maximum(part - length, 0) // hop])

        return cut
    if share and _can_share_first(model, extractor):
        samples = np.asarray(audio, dtype=np.float32)

        def continued(part: np.ndarray) -> torch.Tensor:
            if part[0] < length:
                return alone(part)
            return _share_first_convolution(convolutions.conv_layers, samples, part, length, extractor, device)

        return continued
    return alone


def _can_share_first(model: nn.Module, extractor: StoryFeatureExtractor) -> bool:
    stride = round(extractor.stride_s * extractor.sampling_rate)
    grouped = getattr(model.config, "feat_extract_norm", None) == "group" and not model.config.conv_bias
    return grouped and stride % model.config.conv_stride[0] == 0


def _share_first_convolution(
    layers: nn.ModuleList,
    samples: np.ndarray,
    ends: np.ndarray,
    length: int,
    extractor: StoryFeatureExtractor,
    device: torch.device,
) -> torch.Tensor:
    """Pass neighbouring windows through the convolutions, the first of them once for all.

    Group norm takes off what a window's mean adds, and its deviation is a factor before the norm: instead of dividing
    the window, the norm's small constant is multiplied by the variance.
    """
    first, begin = layers[0], int(ends[0]) - length
    whole = first.conv(torch.from_numpy(samples[None, None, begin : int(ends[-1])]).to(device))
    stride, norm, found = first.conv.stride[0], first.layer_norm, []
    count = (length - first.conv.kernel_size[0]) // stride + 1
    for end in ends.tolist():
        start = (end - length - begin) // stride
        variance = 1.0
        if extractor.normalization != "none":
            variance = float(samples[end - length : end].var()) + 1e-7
        hidden = torch.nn.functional.group_norm(
            whole[:, :, start : start + count], norm.num_groups, norm.weight, norm.bias, norm.eps * variance
        )
        hidden = first.activation(hidden)
        for layer in layers[1:]:
            hidden = layer(hidden)
        found.append(hidden)
    return torch.cat(found)


@contextmanager
def _reduced(model: nn.Module, last: int) -> Iterator[None]:
    """Leave out the convolutions, layers that nobody asked for, and all frames but the last of the last layer."""
    encoder, convolutions = model.encoder, model.feature_extractor
    layers, norm = encoder.layers, encoder.layer_norm
    stable = bool(getattr(model.config, "do_stable_layer_norm", False))
    # The input of the first layer is known only when there is one.
    encoder.layers, model.feature_extractor = layers[: max(1, last)], torch.nn.Identity()
    if stable and last < len(layers):
        encoder.layer_norm = torch.nn.Identity()  # it comes after the last layer of all
    # WavLM's attention hands its positions from layer to layer, and adapters come on top: these run whole.
    plain = model.config.model_type != "wavlm" and getattr(model.config, "adapter_attn_dim", None) is None
    if last and plain:
        layers[last - 1].forward = partial(_last_frame_only, layers[last - 1], stable)
    try:
        yield
    finally:
        encoder.layers, encoder.layer_norm, model.feature_extractor = layers, norm, convolutions
        if last and plain:
            del layers[last - 1].forward


def _last_frame_only(
    layer: nn.Module,
    norm_first: bool,
    hidden_states: torch.Tensor,
    attention_mask: torch.Tensor | None = None,
    **kwargs: Any,
) -> torch.Tensor:
    """What a layer of the transformer makes of the last frame, `(B, 1, D)`: it looks at all, nobody looks at it."""
    mask = None if attention_mask is None else attention_mask[..., -1:, :]
    heard = layer.layer_norm(hidden_states) if norm_first else hidden_states
    state = hidden_states[:, -1:] + layer.attention(heard[:, -1:], key_value_states=heard, attention_mask=mask)[0]
    if norm_first:
        return state + layer.feed_forward(layer.final_layer_norm(state))
    state = layer.layer_norm(state)
    return layer.final_layer_norm(state + layer.feed_forward(state))


def _frames_of_story(model: nn.Module, audio: np.ndarray, seconds: int = 20) -> torch.Tensor:
    """Output of the convolutions for a whole story, of shape `(channels, P)`, made piece by piece."""
    device, hop = next(model.parameters()).device, _hop(model)
    reach = 1
    for kernel, stride in reversed(list(zip(model.config.conv_kernel, model.config.conv_stride))):
        reach = (reach - 1) * stride + kernel
    total, step = _num_frames(model, len(audio)), seconds * 16_000 // hop
    samples = torch.from_numpy(np.asarray(audio, dtype=np.float32)).to(device)
    parts = []
    for start in range(0, total, step):
        stop = min(total, start + step)
        piece = samples[start * hop : (stop - 1) * hop + reach]
        parts.append(model.feature_extractor(piece[None])[0])
    return torch.cat(parts, dim=1)


def _hear_spectra(model: nn.Module, windows: np.ndarray) -> tuple[torch.Tensor, ...]:
    """Hidden states of Whisper's encoder."""
    from transformers import WhisperFeatureExtractor

    spectra = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)(
        list(windows), sampling_rate=16_000, return_tensors="pt"
    )["input_features"].to(next(model.parameters()).device)
    encoder = model.encoder if hasattr(model, "encoder") else model
    hidden = encoder(spectra, output_hidden_states=True, return_dict=True).hidden_states
    # Spectra are padded to 30 s; the last frame that hears something is the window's.
    real = max(1, -(-windows.shape[1] // 320))
    return tuple(states[:, :real] for states in hidden)


def story_features(
    model: nn.Module,
    audio: np.ndarray,
    tr_times_s: np.ndarray,
    extractor: StoryFeatureExtractor,
    layers: Sequence[int],
    delays: Sequence[int] = (1, 2, 3, 4),
    **settings: Any,
) -> dict[int, np.ndarray]:
    """Make the features of an encoding model: windows, low-pass filter to the TRs, z-score, delays.

    Args:
        model (`nn.Module`): see [`window_features`].
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples of the whole story.
        tr_times_s (`np.ndarray` of shape `(R,)`): start of every TR in seconds.
        extractor ([`StoryFeatureExtractor`]): windows.
        layers (sequence of `int`): hidden states.
        delays (sequence of `int`): TRs.
        **settings: of [`window_features`].

    Returns:
        `dict[int, np.ndarray]`: layer -> `(R, D * len(delays))`.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520: 3 lobes, delays of 1 to 4 TRs.
    """
    found, times = window_features(model, audio, extractor, layers, **settings)
    return {
        layer: make_delays(zscore(lanczos_resample(values, times, np.asarray(tr_times_s))), delays)
        for layer, values in found.items()
    }
