"""Vectors that describe sound: log-mel, or a layer of a speech model; cached on disk under their settings' hash."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

FRAME_RATE_HZ: float = 120.0
CHUNK_S: float = 30.0
_MEL_FFT = 512


def window_means(frames: np.ndarray, frame_rate_hz: float, window_s: float, count: int) -> np.ndarray:
    """Mean of the frames within each of several windows that follow one another.

    Args:
        frames (`np.ndarray` of shape `(F, D)`): features over time.
        frame_rate_hz (`float`): frames per second.
        window_s (`float`): duration of a window in seconds.
        count (`int`): windows.

    Returns:
        `np.ndarray` of shape `(count, D)`: float32.

    Raises:
        ValueError: if the frames end before the last window has begun.

    Example:
        >>> window_means(np.array([[1.0], [3.0], [5.0], [5.0]]), 2.0, 1.0, 2).tolist()
        [[2.0], [5.0]]
    """
    borders = np.round(np.arange(count + 1) * window_s * frame_rate_hz).astype(int)
    if borders[-2] >= len(frames):
        raise ValueError(f"{len(frames)} frames at {frame_rate_hz} Hz end before window {count - 1} of {window_s} s")
    sums = np.add.reduceat(frames[: borders[-1]].astype(np.float64), borders[:-1], axis=0)
    return (sums / np.diff(np.minimum(borders, len(frames)))[:, None]).astype(np.float32)


class LogMelFeatures:
    """Logarithm of the energy in mel bands: the acoustic baseline.

    Args:
        num_mels (`int`): bands, which is the width D.

    Note:
        Window 512, hop 128, log10(energy + 1e-5); the paper's own values are not known.

    Example:
        >>> frames, rate = LogMelFeatures(8)(np.zeros(16000, np.float32), 16000)
        >>> frames.shape, rate, round(float(frames[0, 0]), 3)
        ((125, 8), 125.0, -5.0)
    """

    def __init__(self, num_mels: int = 40) -> None:
        if num_mels < 1:
            raise ValueError(f"num_mels is {num_mels}: give a number of bands")
        self.settings: dict[str, Any] = {"kind": "log_mel", "num_mels": num_mels, "fft": _MEL_FFT, "hop": _MEL_FFT // 4}
        self._filters: dict[int, np.ndarray] = {}

    def __call__(self, audio: np.ndarray, rate_hz: int) -> tuple[np.ndarray, float]:
        """Compute frames.

        Args:
            audio (`np.ndarray` of shape `(S,)`): samples in -1..1.
            rate_hz (`int`): samples per second.

        Returns:
            `tuple[np.ndarray, float]`: frames `(F, D)` and their rate in hertz.
        """
        from transformers.audio_utils import mel_filter_bank

        if rate_hz not in self._filters:
            self._filters[rate_hz] = mel_filter_bank(
                _MEL_FFT // 2 + 1, self.settings["num_mels"], 0.0, rate_hz / 2, rate_hz, norm="slaney"
            ).astype(np.float32)
        hop = self.settings["hop"]
        padded = np.pad(audio.astype(np.float32), _MEL_FFT // 2)
        frames = np.lib.stride_tricks.sliding_window_view(padded, _MEL_FFT)[::hop][: max(1, len(audio) // hop)]
        window = np.hanning(_MEL_FFT + 1)[:-1].astype(np.float32)
        return np.log10(_power(frames * window) @ self._filters[rate_hz] + 1e-5), rate_hz / hop


def _power(frames: np.ndarray) -> np.ndarray:
    from scipy.fft import rfft

    spectrum = rfft(frames.astype(np.float32, copy=False), axis=1)  # stays float32
    return np.square(spectrum.real) + np.square(spectrum.imag)


class SpeechModelFeatures:
    """A layer of a frozen speech model, such as wav2vec 2.0.

    Args:
        model (`str` or `PreTrainedModel`): Hub name or folder, or a loaded model.
        layer (`int`): index into `hidden_states`; 0 is what enters the first block. 19 of 24 in the paper.
        device (`str`): where it runs.

    Note:
        Evanson et al. 2025, arXiv 2512.15830: `facebook/wav2vec2-large-xlsr-53`, 30 s at a time, interpolated to 120 Hz
        (nearest). The samples are brought to mean 0 and deviation 1 in every chunk.
    """

    def __init__(self, model: Any = "facebook/wav2vec2-large-xlsr-53", layer: int = 19, device: str = "cpu") -> None:
        if isinstance(model, str):
            from transformers import AutoModel

            name, model = model, AutoModel.from_pretrained(model)
        else:
            name = f"{model.config.model_type}-{_weights_hash(model)}"
        if not 0 <= layer <= model.config.num_hidden_layers:
            raise ValueError(f"layer is {layer}: {name} has hidden states 0 to {model.config.num_hidden_layers}")
        self.settings: dict[str, Any] = {
            "kind": "speech_model", "model": name, "layer": layer, "rate_hz": FRAME_RATE_HZ, "chunk_s": CHUNK_S,
        }  # fmt: skip
        self._model = model.to(device).eval()
        self._device = device

    def __call__(self, audio: np.ndarray, rate_hz: int) -> tuple[np.ndarray, float]:
        """Compute frames.

        Args:
            audio (`np.ndarray` of shape `(S,)`): samples.
            rate_hz (`int`): samples per second; brought to 16 kHz.

        Returns:
            `tuple[np.ndarray, float]`: frames `(F, D)` at 120 Hz.
        """
        import torch

        audio = resample_audio(audio, rate_hz, 16_000)
        step, parts = int(CHUNK_S * 16_000), []
        for start in range(0, len(audio), step):
            chunk = audio[start : start + step]
            if len(chunk) < 400:  # shorter than the first convolutions see
                continue
            chunk = (chunk - chunk.mean()) / (chunk.std() + 1e-7)
            with torch.inference_mode():
                values = torch.from_numpy(chunk.astype(np.float32))[None].to(self._device)
                hidden = self._model(values, output_hidden_states=True).hidden_states[self.settings["layer"]]
                wanted = max(1, round(len(chunk) / 16_000 * FRAME_RATE_HZ))
                hidden = torch.nn.functional.interpolate(hidden.transpose(1, 2).float(), size=wanted)
            parts.append(hidden[0].T.cpu().numpy())
        if not parts:
            raise ValueError(f"{len(audio)} samples at 16 kHz are too short for a speech model: 400 is the least")
        return np.concatenate(parts), FRAME_RATE_HZ


def _weights_hash(model: Any) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().view(-1)[:64].numpy().tobytes())
    return digest.hexdigest()[:12]


def resample_audio(audio: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """Change the rate of mono or stereo sound; channels are averaged.

    Args:
        audio (`np.ndarray` of shape `(S,)` or `(S, 2)`): samples.
        rate_hz (`int`): their rate.
        wanted_hz (`int`): the rate to reach.

    Returns:
        `np.ndarray` of shape `(S',)`: float32.

    Example:
        >>> resample_audio(np.zeros((44100, 2)), 44100, 16000).shape
        (16000,)
    """
    from math import gcd

    from scipy.signal import resample_poly

    mono = audio.mean(axis=1) if audio.ndim == 2 else audio
    if rate_hz == wanted_hz:
        return np.asarray(mono, dtype=np.float32)
    common = gcd(int(rate_hz), int(wanted_hz))
    return resample_poly(mono, wanted_hz // common, rate_hz // common).astype(np.float32)


def speech_share(audio: np.ndarray, rate_hz: int, window_s: float, count: int) -> np.ndarray:
    """Share of each window in which someone seems to speak: the voice band is well above the quiet of the segment.

    Args:
        audio (`np.ndarray` of shape `(S,)`): samples in -1..1 of one segment.
        rate_hz (`int`): samples per second.
        window_s (`float`): duration of a window in seconds.
        count (`int`): windows.

    Returns:
        `np.ndarray` of shape `(count,)`: float32 between 0 and 1.

    Note:
        A plain detector by energy: frames of 25 ms between 200 and 4,000 Hz, 9 dB above the tenth percentile of the
        segment and above -60 dB. Give windows of your own detector where noise is loud.

    Example:
        >>> noise = np.random.default_rng(0).normal(size=16000).astype(np.float32)
        >>> speech_share(np.concatenate([1e-4 * noise, 0.1 * noise]), 16000, 1.0, 2).tolist()
        [0.0, 1.0]
    """
    size = int(0.025 * rate_hz)
    frames = audio[: len(audio) // size * size].reshape(-1, size)
    frequency = np.fft.rfftfreq(size, 1 / rate_hz)
    energy = (
        _power(frames * np.hanning(size).astype(np.float32))[:, (frequency >= 200) & (frequency <= 4000)].sum(axis=1)
        / size**2
    )
    level = 10 * np.log10(energy + 1e-12)
    loud = (level > np.percentile(level, 10) + 9) & (level > -60)
    return window_means(loud[:, None].astype(np.float32), rate_hz / size, window_s, count)[:, 0]


class CachedFeatures:
    """Keeps the frames of every sound on disk; a change of settings makes a new folder.

    Args:
        features (callable with `settings`): such as [`LogMelFeatures`] or [`SpeechModelFeatures`].
        folder (`str`): where the cache lies.

    Note:
        A file is named after the hash of the sound, a folder after the hash of the settings.
    """

    def __init__(self, features: Callable[[np.ndarray, int], tuple[np.ndarray, float]], folder: str | Path) -> None:
        self.settings: dict[str, Any] = features.settings  # type: ignore[attr-defined]
        text = json.dumps(self.settings, sort_keys=True)
        self.folder = Path(folder) / hashlib.sha256(text.encode()).hexdigest()[:16]
        self._features = features

    def __call__(self, audio: np.ndarray, rate_hz: int) -> tuple[np.ndarray, float]:
        """Read frames from the cache, or compute and keep them.

        Args:
            audio (`np.ndarray` of shape `(S,)`): samples.
            rate_hz (`int`): samples per second.

        Returns:
            `tuple[np.ndarray, float]`: frames `(F, D)` and their rate in hertz.
        """
        key = hashlib.sha256(np.ascontiguousarray(audio).tobytes() + f"{audio.dtype}{rate_hz}".encode()).hexdigest()
        path = self.folder / key[:2] / f"{key}.npz"
        if path.is_file():
            with np.load(path) as stored:
                return stored["frames"].astype(np.float32), float(stored["rate"])
        frames, rate = self._features(audio, rate_hz)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with temporary.open("wb") as file:
            np.savez(file, frames=frames.astype(np.float32), rate=rate)
        os.replace(temporary, path)
        return frames.astype(np.float32), rate
