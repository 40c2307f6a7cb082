"""Filtered iEEG to model inputs: robust scaling with stored statistics, clamping, windows.

Pure numpy. Filtering and resampling come before and live in `bit_speech.data.ieeg_preprocessing`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from configuration_bit.configuration_bit import check_participants
from configuration_bit.remote_code_bit import RemoteCodeMixin

# Samples per channel from which median and quartiles are taken: 1e5 give the median to 0.4 % of a deviation.
_FIT_SAMPLES = 100_000


class IEEGFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """Turns filtered recordings into scaled, clamped windows.

    Args:
        participants (`dict[str, int]`, *optional*): participant name -> number of channels C.
        sessions (`list[str]`, *optional*): sessions in the order of the model's session table; others get -1.
        sampling_rate_hz (`float`, defaults to 40): bins per second of what comes in.
        window_s (`float`, defaults to 3): duration of a window in seconds.
        clamp (`float`, defaults to 20): largest absolute value after scaling.
        normalization (`str`, defaults to `"fixed"`): `"fixed"` scales with the stored statistics of the training
            recordings, `"running"` with median and quartiles of the past alone, which follows slow drift.
        running_s (`float`, defaults to 600): seconds of the past that `"running"` looks at.
        statistics (`dict[str, dict[str, list[float]]]`, *optional*): per participant `center` and `scale` of every
            channel; see [`~IEEGFeatureExtractor.fit`].
        channel_positions (`dict[str, list[list[float]]]`, *optional*): per participant x, y, z of every channel in
            metres (NaN where unknown); returned with every batch.
        regions (`list[str]`, *optional*): brain regions in the order of the model's table.
        channel_regions (`dict[str, list[str]]`, *optional*): per participant the region of every channel; names that
            are not in `regions` are unknown (-1). Returned with every batch.

    Raises:
        ValueError: if a setting is unknown or out of range.

    Note:
        Robust scaling per channel (median, interquartile range) as in Evanson et al. 2025, arXiv 2512.15830. The clamp
        at 20 is that of the published code of this family; the paper gives none. A channel that does not vary becomes
        zeros.

    Example:
        ```python
        >>> extractor = IEEGFeatureExtractor(participants={"s1": 2}, window_s=1.0)
        >>> recording = np.random.default_rng(0).normal(size=(100, 2))
        >>> extractor.fit({"s1": [recording]})
        >>> extractor(recording, participant_id="s1")["input_features"].shape
        (2, 40, 2)

        ```
    """

    model_input_names = [
        "input_features",
        "attention_mask",
        "participant_index",
        "session_index",
        "channel_positions",
        "channel_regions",
    ]

    def __init__(
        self,
        participants: dict[str, int] | None = None,
        sessions: Sequence[str] | None = None,
        sampling_rate_hz: float = 40.0,
        window_s: float = 3.0,
        clamp: float = 20.0,
        normalization: str = "fixed",
        running_s: float = 600.0,
        statistics: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
        channel_positions: Mapping[str, Sequence[Sequence[float]]] | None = None,
        regions: Sequence[str] | None = None,
        channel_regions: Mapping[str, Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> None:
        participants = {"participant": 141} if participants is None else participants
        self.participants, self.sessions = check_participants(participants, sessions)
        for name, value in (
            ("sampling_rate_hz", sampling_rate_hz),
            ("window_s", window_s),
            ("clamp", clamp),
            ("running_s", running_s),
        ):
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}: give a positive number.")
        if normalization not in ("fixed", "running"):
            raise ValueError(f"normalization is {normalization!r}: choose 'fixed' or 'running'.")
        if round(window_s * sampling_rate_hz) < 1:
            raise ValueError(f"window_s={window_s} holds no bin at {sampling_rate_hz} Hz.")
        self.sampling_rate_hz = float(sampling_rate_hz)
        self.window_s = float(window_s)
        self.clamp = float(clamp)
        self.normalization = normalization
        self.running_s = float(running_s)
        self.statistics = {
            name: {key: [float(value) for value in entry[key]] for key in ("center", "scale")}
            for name, entry in (statistics or {}).items()
        }
        self.channel_positions = {
            name: [[float(value) for value in position] for position in positions]
            for name, positions in (channel_positions or {}).items()
        }
        self.regions = list(regions or [])
        self.channel_regions = {name: list(names) for name, names in (channel_regions or {}).items()}
        for what, known in (("positions", self.channel_positions), ("regions", self.channel_regions)):
            for name, entries in known.items():
                if name not in self.participants or len(entries) != self.participants[name]:
                    raise ValueError(
                        f"channel_{what} has {len(entries)} entries of {name!r}, the channels are {self.participants}: "
                        "give one for each channel of a known participant."
                    )
        super().__init__(**kwargs)

    @property
    def window_bins(self) -> int:
        """Bins of a window (`int`)."""
        return round(self.window_s * self.sampling_rate_hz)

    def fit(self, recordings: Mapping[str, Sequence[Any]]) -> None:
        """Compute and keep median and interquartile range of every channel; they are saved with the extractor.

        Args:
            recordings (`Mapping[str, Sequence]`): for each participant the training recordings, of shape `(T, C)`.
                Nothing of validation or test belongs here. Of long recordings evenly spaced bins are used.

        Raises:
            ValueError: if a participant has no recording, or one does not fit.
        """
        for participant, arrays in recordings.items():
            if len(arrays) == 0:
                raise ValueError(f"Participant {participant!r} has no training recording to compute statistics from.")
            total = sum(len(array) for array in arrays)
            step = max(1, total // _FIT_SAMPLES)
            parts = [self._checked(array, participant)[::step] for array in arrays]
            center, scale = robust_statistics(np.concatenate(parts))
            # Nine digits give a float32 back exactly and keep the saved file small.
            self.statistics[participant] = {
                "center": [float(f"{value:.9g}") for value in center],
                "scale": [float(f"{value:.9g}") for value in scale],
            }

    def scale(self, recording: Any, participant_id: str | None = None) -> np.ndarray:
        """Scale every channel and clamp.

        Args:
            recording (array-like of shape `(T, C)`): filtered iEEG at `sampling_rate_hz`.
            participant_id (`str`, *optional*): whose; the only participant if there is just one.

        Returns:
            `np.ndarray`: float32 of shape `(T, C)`, within `-clamp..clamp`.

        Raises:
            ValueError: if the channels do not fit, or `fit` was not called for this participant.
        """
        name = self._participant(participant_id)
        array = self._checked(recording, name)
        if self.normalization == "running":
            scaled = self._scale_by_past(array)
        else:
            if name not in self.statistics:
                raise ValueError(
                    f"There are no statistics of participant {name!r}: call fit with the training recordings first."
                )
            entry = self.statistics[name]
            scaled = _divide(array - np.asarray(entry["center"], np.float32), np.asarray(entry["scale"], np.float32))
        return np.clip(scaled, -self.clamp, self.clamp, out=scaled)

    def _scale_by_past(self, array: np.ndarray) -> np.ndarray:
        """Scale second by second with the past `running_s`; the first second uses itself."""
        step = max(1, round(self.sampling_rate_hz))
        past = max(step, round(self.running_s * self.sampling_rate_hz))
        every = max(1, past // 2000)
        scaled = np.empty_like(array)
        for start in range(0, len(array), step):
            stop = min(start + step, len(array))
            known = array[max(0, start - past) : start] if start else array[:stop]
            center, scale = robust_statistics(known[::every] if len(known) > 2000 else known)
            scaled[start:stop] = _divide(array[start:stop] - center.astype(np.float32), scale.astype(np.float32))
        return scaled

    def places(self, participant_id: str | None = None) -> dict[str, np.ndarray]:
        """Where the channels of a participant are, as far as it is known.

        Args:
            participant_id (`str`, *optional*): whose; the only participant if there is just one.

        Returns:
            `dict[str, np.ndarray]`: `channel_positions` (float32, `(C, 3)`) and `channel_regions` (int64, `(C,)`),
                each only when it was given.
        """
        name, found = self._participant(participant_id), {}
        if name in self.channel_positions:
            found["channel_positions"] = np.asarray(self.channel_positions[name], dtype=np.float32)
        if name in self.channel_regions:
            table = {region: index for index, region in enumerate(self.regions)}
            numbers = [table.get(region, -1) for region in self.channel_regions[name]]
            found["channel_regions"] = np.asarray(numbers, dtype=np.int64)
        return found

    def cut(self, recording: np.ndarray) -> np.ndarray:
        """Cut into windows that do not overlap; what is left at the end is dropped.

        Args:
            recording (`np.ndarray` of shape `(T, C)`): one stretch without gaps.

        Returns:
            `np.ndarray` of shape `(N, window_bins, C)`: a view.
        """
        count = len(recording) // self.window_bins
        return recording[: count * self.window_bins].reshape(count, self.window_bins, recording.shape[1])

    def __call__(
        self,
        recording: Any,
        participant_id: str | None = None,
        session_id: str | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Scale a stretch of iEEG and cut it into windows.

        Args:
            recording (array-like of shape `(T, C)`): filtered iEEG at `sampling_rate_hz`, without gaps.
            participant_id (`str`, *optional*): whose; the only participant if there is just one.
            session_id (`str`, *optional*): the session; -1 in `session_index` when it is not in `sessions`.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.

        Returns:
            `BatchFeature`: `input_features` (float32, `(N, window_bins, C)`), `attention_mask` (bool,
            `(N, window_bins)`, all True), `participant_index` and `session_index` (int64, `(N,)`), and when they are
            known `channel_positions` (float32, `(N, C, 3)`) and `channel_regions` (int64, `(N, C)`).

        Raises:
            ValueError: naming the value, for a recording that cannot be used.
        """
        name = self._participant(participant_id)
        windows = self.cut(self.scale(recording, name))
        if not len(windows):
            raise ValueError(f"The recording has {len(recording)} bins, a window {self.window_bins}: it holds none.")
        count = len(windows)
        session = self.sessions.index(session_id) if session_id in self.sessions else -1
        batch = {
            "input_features": windows,
            "attention_mask": np.ones(windows.shape[:2], dtype=bool),
            "participant_index": np.full(count, list(self.participants).index(name), dtype=np.int64),
            "session_index": np.full(count, session, dtype=np.int64),
        }
        for key, values in self.places(name).items():
            batch[key] = np.broadcast_to(values, (count, *values.shape)).copy()
        return BatchFeature(batch).convert_to_tensors(return_tensors)

    def _participant(self, name: str | None) -> str:
        if name is None:
            if len(self.participants) > 1:
                raise ValueError(f"participant_id is missing: the extractor knows {sorted(self.participants)}.")
            return next(iter(self.participants))
        if name not in self.participants:
            raise ValueError(f"Participant {name!r} is unknown: the extractor knows {sorted(self.participants)}.")
        return name

    def _checked(self, recording: Any, participant: str) -> np.ndarray:
        array = np.asarray(recording, dtype=np.float32)
        channels = self.participants[self._participant(participant)]
        if array.ndim != 2 or array.shape[1] != channels:
            raise ValueError(
                f"The recording of {participant!r} has the shape {array.shape}, expected (bins, {channels})"
                f"{': is it transposed? time comes first' if array.ndim == 2 and array.shape[0] == channels else ''}."
            )
        if array.size and not (math.isfinite(array.max()) and math.isfinite(array.min())):
            first_bin, channel = (int(i) for i in np.argwhere(~np.isfinite(array))[0])
            raise ValueError(
                f"The recording of {participant!r} holds {array[first_bin, channel]} at bin {first_bin}, channel "
                f"{channel}: repair it or cut it out."
            )
        return array


def robust_statistics(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range of every channel.

    Args:
        values (`np.ndarray` of shape `(T, C)`): bins.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: median and range, of shape `(C,)`.

    Example:
        ```python
        >>> median, spread = robust_statistics(np.arange(9.0)[:, None])
        >>> float(median[0]), float(spread[0])
        (4.0, 4.0)

        ```
    """
    low, center, high = np.percentile(values, [25, 50, 75], axis=0)
    return center, high - low


def _divide(values: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return values * np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > np.finfo(np.float32).tiny)
