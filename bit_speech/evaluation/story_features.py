"""Layers of a speech model as features of a story: causal windows, as encoding models are fitted to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
        model (`nn.Module`): a Wav2Vec2, HuBERT, WavLM or data2vec-audio model, in evaluation mode.
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples of the whole story.
        extractor ([`StoryFeatureExtractor`]): length, stride and normalisation of the windows.
        layers (sequence of `int`): hidden states; 0 is the input of the first layer.
        batch_size (`int`): windows that pass the model together.
        share (`bool`): compute convolutions over audio once for the whole story where that is exact (see the note);
            otherwise each window passes the whole model.
        from_s (`float`): leave out windows that end before, in seconds.

    Returns:
        `tuple`: layer -> `(N, D)` float32, and `(N,)` the end of every window in seconds.

    Raises:
        ValueError: if a layer does not exist.

    Note:
        Windows of 16.1 s every 0.1 s hear every sample 161 times. Convolutions are shared only with
        `normalization="none"` (normalise the whole story first) and layer norm between convolutions: a mean and
        deviation of each window, or group norm over its time (the base models), make them differ. The transformer
        attends to all frames of a window from its first layer on, so every window needs its own pass through it;
        that part cannot be shared without changing the features. Layers above the last one asked for are left out.
    """
    available = int(model.config.num_hidden_layers)
    wrong = [layer for layer in layers if not 0 <= layer <= available]
    if wrong or not layers:
        raise ValueError(f"layers {wrong or list(layers)} do not exist: the model has 0 to {available}")
    ends = extractor.window_ends(len(audio))
    ends = ends[ends >= round(from_s * extractor.sampling_rate)]
    found: dict[int, list[np.ndarray]] = {layer: [] for layer in layers}
    shared = share and can_share(model, extractor)
    frames = _frames_of_story(model, audio) if shared else None
    length, hop = round(extractor.window_s * extractor.sampling_rate), _hop(model)
    with _reduced(model, max(layers), frames is not None):
        for part in _batches(ends, length, batch_size):
            if frames is None:
                windows = np.stack(extractor.windows(audio, part))
                hidden = _hidden_states(model, windows)
            else:
                count = _num_frames(model, int(min(part[0], length)))
                starts = np.maximum(part - length, 0) // hop
                inputs = torch.stack([frames[:, start : start + count] for start in starts])
                hidden = model(inputs, output_hidden_states=True, return_dict=True).hidden_states
            for layer in layers:
                found[layer].append(hidden[layer][:, -1].float().cpu().numpy())
    return {layer: np.concatenate(parts) for layer, parts in found.items()}, ends / extractor.sampling_rate


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


@contextmanager
def _reduced(model: nn.Module, last: int, without_convolutions: bool) -> Iterator[None]:
    """Leave out layers that nobody asked for, and convolutions whose output is what the model will be given."""
    if model.config.model_type not in CONVOLUTIONAL:
        yield
        return
    layers, convolutions = model.encoder.layers, model.feature_extractor
    if not getattr(model.config, "do_stable_layer_norm", False):  # there the last layer's output passes one more norm
        model.encoder.layers = layers[:last]
    if without_convolutions:
        model.feature_extractor = torch.nn.Identity()
    try:
        yield
    finally:
        model.encoder.layers, model.feature_extractor = layers, convolutions


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


def _hidden_states(model: nn.Module, windows: np.ndarray) -> tuple[torch.Tensor, ...]:
    device = next(model.parameters()).device
    if model.config.model_type != "whisper":
        inputs = torch.from_numpy(windows).to(device)
        return model(inputs, output_hidden_states=True, return_dict=True).hidden_states
    from transformers import WhisperFeatureExtractor

    spectra = WhisperFeatureExtractor(feature_size=model.config.num_mel_bins)(
        list(windows), sampling_rate=16_000, return_tensors="pt"
    )["input_features"].to(device)
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
