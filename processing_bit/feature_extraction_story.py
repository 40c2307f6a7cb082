"""The sound of a story to model inputs: a clip for every TR, or causal windows for every tenth of a second."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin, WhisperFeatureExtractor

from configuration_bit.remote_code_bit import RemoteCodeMixin

NORMALIZATIONS = ("clip", "batch", "none")


class StoryFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """Cuts stories into the clips that a brain-tuned model hears.

    Args:
        sampling_rate (`int`, defaults to 16000): samples per second of the audio that comes in.
        clip_s (`float`, defaults to 10.0): seconds of a clip: the TR's own 2 s and the 8 s before.
        end_offset_s (`float`, defaults to 1.0): a clip ends this long after its TR begins, in the middle of the volume.
        window_s (`float`, defaults to 16.1): seconds of a causal window, for encoding features.
        stride_s (`float`, defaults to 0.1): seconds from one window to the next.
        normalization (`str`, defaults to `"clip"`): zero mean and unit variance per `"clip"` (or window), over the
            whole `"batch"` as the released code does by accident, or `"none"`.
        num_mel_bins (`int`, defaults to 0): for Whisper: clips become its spectra of so many bands, padded to 30 s, and
            are not normalised.

    Raises:
        ValueError: if a value is out of range.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520. Before a story begins there is silence.

    Example:
        ```python
        >>> extractor = StoryFeatureExtractor(clip_s=4.0)
        >>> extractor(np.ones(16000 * 10, np.float32), tr_times_s=[0.0, 5.0]).input_values.shape
        (2, 64000)

        ```
    """

    model_input_names = ["input_values"]

    def __init__(
        self,
        sampling_rate: int = 16_000,
        clip_s: float = 10.0,
        end_offset_s: float = 1.0,
        window_s: float = 16.1,
        stride_s: float = 0.1,
        normalization: str = "clip",
        num_mel_bins: int = 0,
        **kwargs: Any,
    ) -> None:
        lengths = {"sampling_rate": sampling_rate, "clip_s": clip_s, "window_s": window_s, "stride_s": stride_s}
        for name, value in lengths.items():
            if not value > 0:
                raise ValueError(f"`{name}` must be positive, got {value!r}.")
        if normalization not in NORMALIZATIONS:
            raise ValueError(f"`normalization` is {normalization!r}: choose one of {', '.join(NORMALIZATIONS)}.")
        if num_mel_bins < 0 or (num_mel_bins and clip_s > 30):
            raise ValueError(f"`num_mel_bins` is {num_mel_bins} for clips of {clip_s} s: Whisper hears at most 30 s.")
        super().__init__(**kwargs)
        self.num_mel_bins = num_mel_bins
        self.sampling_rate, self.clip_s, self.end_offset_s = sampling_rate, clip_s, end_offset_s
        self.window_s, self.stride_s, self.normalization = window_s, stride_s, normalization

    def __call__(
        self,
        audio: Any,
        tr_times_s: Sequence[float] | np.ndarray,
        sampling_rate: int | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Cut a clip for every TR.

        Args:
            audio (`np.ndarray` of shape `(S,)`): the whole story.
            tr_times_s (sequence of `float`): start of every TR, in seconds from the first sample.
            sampling_rate (`int`, *optional*): of `audio`, to be checked.
            return_tensors (`str`, *optional*): `"pt"` for torch, default numpy.

        Returns:
            `BatchFeature` with `input_values` of shape `(R, clip samples)`, or `(R, num_mel_bins, 3000)`.

        Raises:
            ValueError: if the audio has another rate or shape, or is not finite.
        """
        ends = np.round((np.asarray(tr_times_s, dtype=np.float64) + self.end_offset_s) * self.sampling_rate)
        clips = self._cut(audio, ends.astype(np.int64), round(self.clip_s * self.sampling_rate), sampling_rate)
        values = self.spectra(clips) if self.num_mel_bins else self.normalize(clips)
        return BatchFeature({"input_values": values}, tensor_type=return_tensors)

    def spectra(self, clips: Any) -> np.ndarray:
        """Turn sound into what Whisper hears.

        Args:
            clips (sequence of `np.ndarray` of shape `(S,)`): 16 kHz samples, at most 30 s.

        Returns:
            `np.ndarray` of shape `(R, num_mel_bins, 3000)`: log-mel spectra.
        """
        whisper = WhisperFeatureExtractor(feature_size=self.num_mel_bins)
        found = whisper(list(clips), sampling_rate=self.sampling_rate, return_tensors="np")
        return found["input_features"].astype(np.float32)

    def window_ends(self, num_samples: int) -> np.ndarray:
        """Say where causal windows end.

        Args:
            num_samples (`int`): samples S of the story.

        Returns:
            `np.ndarray`: sample after the last one of every window: one stride, two strides, ... up to the end.
        """
        stride = round(self.stride_s * self.sampling_rate)
        return np.arange(stride, num_samples + 1, stride)

    def windows(self, audio: Any, ends: np.ndarray) -> list[np.ndarray]:
        """Cut causal windows; those of a story's beginning are shorter, as nothing was heard before.

        Args:
            audio (`np.ndarray` of shape `(S,)`): the whole story.
            ends (`np.ndarray`): from [`~StoryFeatureExtractor.window_ends`].

        Returns:
            list of `np.ndarray`: samples, each window normalised by itself (`"batch"` is for clips and normalises it so
                too).
        """
        samples, length = self._check(audio, None), round(self.window_s * self.sampling_rate)
        return [self.normalize(samples[None, max(0, end - length) : end])[0] for end in np.asarray(ends).tolist()]

    def normalize(self, clips: np.ndarray) -> np.ndarray:
        """Normalise clips as the setting says.

        Args:
            clips (`np.ndarray` of shape `(R, S)`): clips.

        Returns:
            `np.ndarray` of shape `(R, S)`: float32; silence stays zero.
        """
        if self.normalization == "none" or not clips.size:
            return clips
        axis = None if self.normalization == "batch" else 1
        mean = clips.mean(axis=axis, keepdims=True)
        variance = clips.var(axis=axis, keepdims=True)
        return ((clips - mean) / np.sqrt(variance + 1e-7)).astype(np.float32)

    def _cut(self, audio: Any, ends: np.ndarray, length: int, sampling_rate: int | None) -> np.ndarray:
        samples = self._check(audio, sampling_rate)
        found = np.zeros((len(ends), length), dtype=np.float32)
        for row, end in enumerate(ends.tolist()):
            start, stop = max(0, end - length), min(len(samples), end)
            if stop > start:
                found[row, length - (end - start) : length - (end - stop)] = samples[start:stop]
        return found

    def _check(self, audio: Any, sampling_rate: int | None) -> np.ndarray:
        samples = np.asarray(audio, dtype=np.float32)
        if sampling_rate is not None and sampling_rate != self.sampling_rate:
            raise ValueError(
                f"`sampling_rate` is {sampling_rate}, the model hears {self.sampling_rate}: resample first."
            )
        if samples.ndim != 1 or not len(samples):
            raise ValueError(f"`audio` has shape {samples.shape}: give one channel, of shape (samples,).")
        if not np.isfinite(samples).all():
            raise ValueError("`audio` holds NaN or infinity: repair the file.")
        return samples
