"""The processor of iEEG and audio: windows of the brain, z-scored audio features of the same windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from configuration_bit.remote_code_bit import RemoteCodeMixin

_SMALLEST_SD = 1e-6  # a feature that varies less is constant


class IEEGAudioProcessor(RemoteCodeMixin, ProcessorMixin):
    """Joins an [`IEEGFeatureExtractor`] with the statistics of the audio features that the model was trained to find.

    Args:
        feature_extractor ([`IEEGFeatureExtractor`]): for the brain.
        target_mean (`list[float]`, *optional*): mean of each of the D audio features over training windows.
        target_sd (`list[float]`, *optional*): their standard deviation.
        target_settings (`dict`, *optional*): how the audio features were made, as
            `bit_speech.data.audio_features` describes itself; kept so that nobody searches with other features.

    Note:
        Audio features are z-scored per dimension with the statistics of the training windows, never of others.

    Example:
        ```python
        >>> from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
        >>> processor = IEEGAudioProcessor(IEEGFeatureExtractor(participants={"s1": 2}))
        >>> processor.fit_targets(np.array([[1.0, 5.0], [3.0, 5.0]]))
        >>> processor.normalize_targets([[3.0, 5.0]]).tolist()
        [[1.0, 0.0]]

        ```
    """

    def __init__(
        self,
        feature_extractor: Any = None,
        target_mean: Sequence[float] | None = None,
        target_sd: Sequence[float] | None = None,
        target_settings: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        self.target_mean = None if target_mean is None else [float(value) for value in target_mean]
        self.target_sd = None if target_sd is None else [float(value) for value in target_sd]
        self.target_settings = dict(target_settings or {})
        super().__init__(feature_extractor, **kwargs)

    def fit_targets(self, audio_features: Any) -> None:
        """Compute and keep mean and standard deviation of every audio feature.

        Args:
            audio_features (array-like of shape `(N, D)`): of training windows.

        Raises:
            ValueError: if there are fewer than two windows, or a value is not finite.
        """
        array = _vectors(audio_features)
        if len(array) < 2:
            raise ValueError(f"{len(array)} training window(s) give no statistics: at least 2 are needed.")
        self.target_mean = [float(f"{value:.9g}") for value in array.mean(axis=0, dtype=np.float64)]
        self.target_sd = [float(f"{value:.9g}") for value in array.std(axis=0, dtype=np.float64)]

    def normalize_targets(self, audio_features: Any) -> np.ndarray:
        """Z-score audio features.

        Args:
            audio_features (array-like of shape `(N, D)`): of windows.

        Returns:
            `np.ndarray`: float32 of shape `(N, D)`; zeros in a feature that was constant in training.

        Raises:
            ValueError: if `fit_targets` was not called, or the width does not fit.
        """
        array = _vectors(audio_features)
        if self.target_mean is None or self.target_sd is None:
            raise ValueError("The processor has no statistics of audio features: call fit_targets first.")
        mean, sd = np.asarray(self.target_mean), np.asarray(self.target_sd)
        if array.shape[1] != len(mean):
            raise ValueError(f"Audio features have the width {array.shape[1]}, the statistics {len(mean)}.")
        scale = np.divide(1.0, sd, out=np.zeros_like(sd), where=sd > _SMALLEST_SD)
        return ((array - mean) * scale).astype(np.float32)

    def __call__(
        self,
        recording: Any = None,
        audio_features: Any = None,
        participant_id: str | None = None,
        session_id: str | None = None,
        return_tensors: str | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Prepare brain, audio features, or both.

        Args:
            recording (array-like of shape `(T, C)`, *optional*): filtered iEEG without gaps.
            audio_features (array-like of shape `(N, D)`, *optional*): of the same windows.
            participant_id (`str`, *optional*): see [`IEEGFeatureExtractor`].
            session_id (`str`, *optional*): see [`IEEGFeatureExtractor`].
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.
            **kwargs: nothing; a misspelt name is refused.

        Returns:
            `BatchFeature`: what [`IEEGFeatureExtractor`] gives, and `labels` (float32, `(N, D)`).

        Raises:
            ValueError: naming the value, for input that cannot be used.
        """
        if kwargs:
            raise ValueError(f"Unknown argument(s) {', '.join(sorted(kwargs))}: give recording and audio_features.")
        if recording is None and audio_features is None:
            raise ValueError("Nothing to process: give recording, audio_features, or both.")
        batch = BatchFeature()
        if recording is not None:
            batch = self.feature_extractor(recording, participant_id=participant_id, session_id=session_id)
        if audio_features is not None:
            labels = self.normalize_targets(audio_features)
            if recording is not None and len(labels) != len(batch["input_features"]):
                raise ValueError(
                    f"{len(labels)} audio vectors for {len(batch['input_features'])} windows of iEEG: give one each."
                )
            batch["labels"] = labels
        return batch.convert_to_tensors(return_tensors)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that the models take."""
        return [*self.feature_extractor.model_input_names, "labels"]


def _vectors(value: Any) -> np.ndarray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2 or not array.shape[1]:
        raise ValueError(f"Audio features have the shape {array.shape}, expected (windows, features).")
    if not np.isfinite(array).all():
        raise ValueError("Audio features hold NaN or infinity: leave such windows out.")
    return array
