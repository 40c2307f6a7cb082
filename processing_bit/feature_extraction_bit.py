"""Raw recordings in 20 ms bins to model inputs: select, normalise, smooth, and only then pad.

Pure numpy; the same functions serve training, offline decoding and streaming.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, FeatureExtractionMixin

from configuration_bit.configuration_bit import check_participants
from configuration_bit.remote_code_bit import RemoteCodeMixin

Statistics = tuple[np.ndarray, np.ndarray]

_SMOOTHING_ROWS = 32  # bins smoothed at a time, so that the running sums stay in the processor's cache
_DEAD_RATIO = 1e-6  # a channel whose standard deviation is smaller than this share of its mean is constant


def _to_array(value: Any, name: str) -> np.ndarray:
    if hasattr(value, "detach"):
        value = value.detach().cpu()
        value = (value.float() if value.is_floating_point() else value).numpy()
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} is ragged: every bin needs the same number of channels ({error}).") from error
    if array.dtype.kind not in "fiub":
        raise ValueError(
            f"{name} has the type {array.dtype}: give numbers as a numpy array, torch tensor or nested list of shape "
            "(bins, channels)."
        )
    return array


def _depth(value: Any) -> int:
    """Number of dimensions of an array, or nesting depth of lists, without copying."""
    if hasattr(value, "ndim"):
        return int(value.ndim)
    if isinstance(value, (list, tuple)):
        return 1 + (_depth(value[0]) if len(value) else 0)
    return 0


def _per_trial(value: Any, count: int, name: str) -> list[Any]:
    if isinstance(value, (list, tuple, np.ndarray)) or (hasattr(value, "tolist") and getattr(value, "ndim", 0) == 1):
        values = list(value) if isinstance(value, (list, tuple)) else value.tolist()
        if len(values) != count:
            raise ValueError(f"{name} has {len(values)} entries for {count} trials: give one for all or one per trial.")
        return values
    return [value] * count


class BITFeatureExtractor(RemoteCodeMixin, FeatureExtractionMixin):
    """Turns raw trials into padded model inputs.

    Per trial and in this order: keep the wanted kinds and areas of channels, z-score, smooth over time; then pad the
    batch with zeros to its longest trial. Smoothing before padding means that a trial's values do not depend on its
    batch.

    Args:
        participants (`dict[str, int]`, *optional*, defaults to `{"participant": 512}`): name of each participant and
            its number of channels after selection. `participant_index` counts in alphabetical order, because the saved
            JSON is sorted.
        sessions (`list[str]`, *optional*): sessions in the order of the model's session table; empty if the model
            has none.
        normalization (`str`, defaults to `"block"`): `"block"` z-scores with the mean and standard deviation of the
            trial's block, `"session"` with `session_statistics`, `"none"` leaves the values as they are.
        smoothing_sd_bins (`float`, defaults to 2.0): standard deviation of the Gaussian in bins; 0 turns smoothing off.
        smoothing (`str`, defaults to `"symmetric"`): `"symmetric"` looks both ways; `"causal"` is the half Gaussian
            over the present and the past, for streaming.
        feature_kinds (`list[str]`, *optional*): keep only channels of these kinds, such as `"threshold_crossings"`.
        channel_areas (`list[str]`, *optional*): keep only channels of these areas, such as `"6v"`.
        bin_size_ms (`float`, defaults to 20): duration of a bin in milliseconds.
        session_statistics (`dict[str, dict[str, list[float]]]`, *optional*): per session `mean` and `std` of every
            channel over training trials; see [`~BITFeatureExtractor.fit_session_statistics`].

    Raises:
        ValueError: if a setting is unknown or out of range.

    Note:
        BIT (10.48550/arXiv.2511.21740) smooths inside the model, after padding with -100, so that padding leaks into
        the last six bins; here no bin outside the trial is ever read. The kernel is cut at 3 standard deviations, which
        gives the paper's 13 taps at 2 bins (the Brain-to-Text '25 baseline keeps 9), and is renormalised at both ends
        of a trial. A constant channel becomes zeros; the published code divides by its zero deviation.

    Example:
        ```python
        >>> extractor = BITFeatureExtractor(participants={"t15": 3}, normalization="none", smoothing_sd_bins=0)
        >>> batch = extractor([np.ones((4, 3)), np.ones((2, 3))], participant_id="t15")
        >>> batch["input_features"].shape, batch["attention_mask"].sum(axis=1).tolist()
        ((2, 4, 3), [4, 2])

        ```
    """

    model_input_names = ["input_features", "attention_mask", "participant_index", "session_index"]

    def __init__(
        self,
        participants: dict[str, int] | None = None,
        sessions: Sequence[str] | None = None,
        normalization: str = "block",
        smoothing_sd_bins: float = 2.0,
        smoothing: str = "symmetric",
        feature_kinds: Sequence[str] | None = None,
        channel_areas: Sequence[str] | None = None,
        bin_size_ms: float = 20,
        session_statistics: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
        **kwargs: Any,
    ) -> None:
        participants = {"participant": 512} if participants is None else participants
        self.participants, self.sessions = check_participants(participants, sessions)
        if normalization not in ("block", "session", "none"):
            raise ValueError(f"normalization is {normalization!r}: choose 'block', 'session' or 'none'.")
        if smoothing not in ("symmetric", "causal"):
            raise ValueError(
                f"smoothing is {smoothing!r}: choose 'symmetric' or 'causal' (smoothing_sd_bins=0 is off)."
            )
        if not (math.isfinite(smoothing_sd_bins) and smoothing_sd_bins >= 0):
            raise ValueError(f"smoothing_sd_bins is {smoothing_sd_bins}: give a number of bins, 0 to turn it off.")
        if not bin_size_ms > 0:
            raise ValueError(f"bin_size_ms is {bin_size_ms}: give a positive duration in milliseconds.")
        self.normalization = normalization
        self.smoothing_sd_bins = float(smoothing_sd_bins)
        self.smoothing = smoothing
        self.feature_kinds = None if feature_kinds is None else list(feature_kinds)
        self.channel_areas = None if channel_areas is None else list(channel_areas)
        self.bin_size_ms = float(bin_size_ms)
        self.session_statistics = {
            session: {key: [float(value) for value in entry[key]] for key in ("mean", "std")}
            for session, entry in (session_statistics or {}).items()
        }
        super().__init__(**kwargs)

    def select(
        self,
        features: Any,
        feature_kinds: Sequence[str] | None = None,
        channel_areas: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Keep the channels whose kind and area are wanted.

        Args:
            features (array-like of shape `(..., C)`): values whose last axis is channels; also works on a mean.
            feature_kinds (`Sequence[str]`, *optional*): kind of each of the `C` channels.
            channel_areas (`Sequence[str]`, *optional*): area of each of the `C` channels.

        Returns:
            `np.ndarray` of shape `(..., C')`: the kept channels in their old order; the input itself if all are kept.

        Raises:
            ValueError: if a selection is asked for but the labels are missing, do not fit the channels, or leave none.
        """
        array = _to_array(features, "features")
        keep = np.ones(array.shape[-1] if array.ndim else 0, dtype=bool)
        for setting, wanted, labels in (
            ("feature_kinds", self.feature_kinds, feature_kinds),
            ("channel_areas", self.channel_areas, channel_areas),
        ):
            if wanted is None:
                continue
            if labels is None:
                raise ValueError(f"{setting} selects {wanted}, but the {setting} of the channels are not given.")
            if len(labels) != keep.size:
                raise ValueError(f"{setting} names {len(labels)} channels, but the features have {keep.size}.")
            keep &= np.isin(np.asarray(labels), wanted)
            if not keep.any():
                raise ValueError(
                    f"No channel is left: {setting} selects {wanted}, the channels are {sorted(set(labels))}."
                )
        return array if keep.all() else array[..., keep]

    def compute_statistics(self, trials: Sequence[Any]) -> Statistics:
        """Mean and standard deviation of every channel over all bins of some trials.

        Args:
            trials (`Sequence` of array-likes of shape `(T, C)`): trials of one block or session; from the training
                split only, unless the block itself is all that will be known at use.

        Returns:
            `tuple[np.ndarray, np.ndarray]`: mean and population standard deviation, float64 of shape `(C,)`.

        Raises:
            ValueError: if there is no trial, or trials differ in their number of channels.

        Example:
            ```python
            >>> mean, std = BITFeatureExtractor().compute_statistics([[[0.0], [2.0]], [[4.0]]])
            >>> float(mean[0]), round(float(std[0]), 3)
            (2.0, 1.633)

            ```
        """
        if len(trials) == 0:
            raise ValueError("No trials: give at least one trial to compute statistics from.")
        count, mean, squares = 0, np.zeros(0), np.zeros(0)
        for index, trial in enumerate(trials):
            array = self._checked(trial, f"trial {index}", None)
            if count and array.shape[1] != mean.size:
                raise ValueError(f"trial {index} has {array.shape[1]} channels, but trial 0 has {mean.size}.")
            # Chan's merging of means and squared deviations: exact also where the mean is far larger than the spread.
            bins = array.shape[0]
            trial_mean = array.mean(axis=0, dtype=np.float64)
            trial_squares = np.square(array - trial_mean).sum(axis=0)
            if not count:
                mean, squares = trial_mean, trial_squares
            else:
                delta = trial_mean - mean
                squares = squares + trial_squares + np.square(delta) * (count * bins / (count + bins))
                mean = mean + delta * (bins / (count + bins))
            count += bins
        return mean, np.sqrt(squares / count)

    def fit_session_statistics(self, trials: Mapping[str, Sequence[Any]]) -> None:
        """Compute and keep the statistics that `normalization="session"` uses; they are saved with the extractor.

        Args:
            trials (`Mapping[str, Sequence]`): for each session its training trials, of shape `(T, C)` after selection.

        Raises:
            ValueError: if a session has no trials.
        """
        for session, arrays in trials.items():
            if len(arrays) == 0:
                raise ValueError(f"The session {session!r} has no training trials to compute statistics from.")
            mean, std = self.compute_statistics(arrays)
            # Nine digits give a float32 back exactly and keep the saved file small.
            self.session_statistics[session] = {
                "mean": [float(f"{value:.9g}") for value in mean],
                "std": [float(f"{value:.9g}") for value in std],
            }

    def normalize(self, features: Any, mean: Any, std: Any) -> np.ndarray:
        """Z-score every channel.

        Args:
            features (array-like of shape `(T, C)`): one trial.
            mean (array-like of shape `(C,)`): mean of every channel.
            std (array-like of shape `(C,)`): standard deviation of every channel.

        Returns:
            `np.ndarray`: float32 of shape `(T, C)`; zeros in every constant channel (standard deviation at most a
            millionth of the mean's size), so that a dead electrode says nothing instead of infinity.

        Raises:
            ValueError: if the statistics do not fit the channels or are not finite.
        """
        array = _to_array(features, "features")
        mean64 = np.asarray(_to_array(mean, "mean"), dtype=np.float64)
        std64 = np.asarray(_to_array(std, "std"), dtype=np.float64)
        for name, value in (("mean", mean64), ("std", std64)):
            if value.shape != (array.shape[-1],):
                raise ValueError(
                    f"{name} has the shape {value.shape}, but the features have {array.shape[-1]} channels."
                )
            if not np.isfinite(value).all():
                channel = int(np.flatnonzero(~np.isfinite(value))[0])
                raise ValueError(
                    f"{name} is {value[channel]} at channel {channel}: compute statistics from clean trials."
                )
        if (std64 < 0).any():
            channel = int(np.flatnonzero(std64 < 0)[0])
            raise ValueError(f"std is {std64[channel]} at channel {channel}: a standard deviation is never negative.")
        live = std64 > np.maximum(_DEAD_RATIO * np.abs(mean64), np.finfo(np.float32).tiny)
        scale = np.divide(1.0, std64, out=np.zeros_like(std64), where=live)
        if array.dtype not in (np.float32, np.float64):
            array = array.astype(np.float32)
        scaled = array - mean64.astype(array.dtype)
        scaled *= scale.astype(array.dtype)
        return scaled.astype(np.float32, copy=False)

    def smoothing_kernel(self) -> np.ndarray:
        """Weights of the smoothing kernel.

        Returns:
            `np.ndarray`: float32, sums to 1. Symmetric: weights of lags `-R..R`. Causal: weights of lags `0..R` into
            the past, the present first. `R` is 3 standard deviations rounded up; one weight of 1 if smoothing is off.

        Example:
            ```python
            >>> BITFeatureExtractor().smoothing_kernel().size
            13
            >>> BITFeatureExtractor(smoothing="causal").smoothing_kernel().size
            7

            ```
        """
        radius = math.ceil(3 * self.smoothing_sd_bins)
        lags = np.arange(0 if self.smoothing == "causal" else -radius, radius + 1, dtype=np.float64)
        weights = np.exp(-0.5 * np.square(lags / self.smoothing_sd_bins)) if radius else np.ones(1)
        return (weights / weights.sum()).astype(np.float32)

    def smooth(self, features: Any, past: Any | None = None) -> np.ndarray:
        """Smooth one trial over time with a Gaussian; no bin outside the trial is read.

        Args:
            features (array-like of shape `(T, C)`): one trial, or the next chunk of one.
            past (array-like of shape `(K, C)`, *optional*): the unsmoothed bins right before `features`, to
                smooth a trial chunk by chunk. Only the last `smoothing_kernel().size - 1` count. Causal smoothing only.

        Returns:
            `np.ndarray`: float32 of shape `(T, C)`. Where the kernel reaches over an end of the trial, the weights of
            the bins that exist are renormalised. Chunks with their `past` give bit for bit what the whole trial gives.

        Raises:
            ValueError: if `past` is given to symmetric smoothing, or does not fit the features.
        """
        array = np.ascontiguousarray(_to_array(features, "features"), dtype=np.float32)
        if array.ndim != 2:
            raise ValueError(f"features has the shape {array.shape}: smooth one trial of shape (bins, channels).")
        if past is not None and self.smoothing != "causal":
            raise ValueError("past is given, but symmetric smoothing needs the future too: set smoothing='causal'.")
        known = 0
        if past is not None:
            before = np.asarray(_to_array(past, "past"), dtype=np.float32)
            if before.ndim != 2 or before.shape[1] != array.shape[1]:
                raise ValueError(f"past has the shape {before.shape}, but the features have {array.shape[1]} channels.")
            before = before[max(0, before.shape[0] - self.smoothing_kernel().size + 1) :]
            known = before.shape[0]
            array = np.concatenate([before, array])
        smoothed = np.empty((array.shape[0] - known, array.shape[1]), dtype=np.float32)
        self._smooth_into(smoothed, array, known)
        return smoothed

    def _smooth_into(self, smoothed: np.ndarray, array: np.ndarray, known: int = 0) -> None:
        """Smooth the bins of `array` from `known` on into `smoothed`, always adding the taps from old to new."""
        kernel = self.smoothing_kernel()
        if kernel.size == 1:
            smoothed[...] = array[known:]
            return
        taps = kernel[::-1]
        left = kernel.size - 1 if self.smoothing == "causal" else kernel.size // 2
        bins = array.shape[0]
        weight = np.zeros(bins, dtype=np.float32)
        scratch = np.empty((min(_SMOOTHING_ROWS, bins), array.shape[1]), dtype=np.float32)
        for start in range(known, bins, _SMOOTHING_ROWS):
            stop = min(start + _SMOOTHING_ROWS, bins)
            total = smoothed[start - known : stop - known]
            total[...] = 0.0
            for tap, value in enumerate(taps):
                first = max(start, left - tap)  # the first bin of this part whose neighbour exists, and the last
                last = min(stop, bins + left - tap)
                if first >= last:
                    continue
                product = scratch[: last - first]
                np.multiply(array[first + tap - left : last + tap - left], value, out=product)
                total[first - start : last - start] += product
                weight[first:last] += value
            total /= weight[start:stop, None]

    def pad(self, trials: Sequence[Any], return_tensors: str | None = None) -> BatchFeature:
        """Put trials of different lengths into one batch, with zeros after the shorter ones.

        Args:
            trials (`Sequence` of array-likes of shape `(T, C)`): finished trials.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.

        Returns:
            `BatchFeature`: `input_features` (float32, `(B, T, C)`, T of the longest trial) and `attention_mask` (bool,
            `(B, T)`, True = real bin).

        Raises:
            ValueError: if there is no trial, or trials differ in their number of channels.
        """
        arrays = [self._checked(trial, f"trial {index}", None) for index, trial in enumerate(trials)]
        if not arrays:
            raise ValueError("No trials: give at least one trial of shape (bins, channels).")
        channels = arrays[0].shape[1]
        lengths = [array.shape[0] for array in arrays]
        features = np.zeros((len(arrays), max(lengths), channels), dtype=np.float32)
        for index, array in enumerate(arrays):
            if array.shape[1] != channels:
                raise ValueError(f"trial {index} has {array.shape[1]} channels, but trial 0 has {channels}.")
            features[index, : lengths[index]] = array
        mask = np.arange(max(lengths))[None, :] < np.asarray(lengths)[:, None]
        return BatchFeature({"input_features": features, "attention_mask": mask}, tensor_type=return_tensors)

    def __call__(
        self,
        features: Any,
        *,
        participant_id: str | Sequence[str] | None = None,
        session_id: str | Sequence[str | None] | None = None,
        block_index: int | Sequence[int] | None = None,
        statistics: Any | None = None,
        feature_kinds: Sequence[str] | None = None,
        channel_areas: Sequence[str] | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Select, normalise, smooth and pad trials of one participant.

        Args:
            features (array-like of shape `(T, C)`, or a sequence of them): one trial or many; numpy, torch or nested
                lists of any number type.
            participant_id (`str`, *optional*): whose trials these are; the only participant if there is just one.
            session_id (`str` or `Sequence[str]`, *optional*): session of all trials, or one per trial.
            block_index (`int` or `Sequence[int]`, *optional*): block of all trials, or one per trial.
            statistics (*optional*): one `(mean, std)` pair for all trials or one per trial, used instead of computing
                or looking them up. Of the channels before or after selection.
            feature_kinds (`Sequence[str]`, *optional*): kind of each raw channel; needed if the extractor selects.
            channel_areas (`Sequence[str]`, *optional*): area of each raw channel; needed if the extractor selects.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.

        Returns:
            `BatchFeature`: `input_features` (float32, `(B, T, C)`), `attention_mask` (bool, `(B, T)`),
            `participant_index` (int64, `(B,)`), and `session_index` (int64, `(B,)`) if the extractor has sessions.

        Raises:
            ValueError: naming the trial and the value, if a trial is empty, not `(bins, channels)`, has another number
                of channels or a value that is not finite, or if a participant or session is unknown.

        Note:
            With `normalization="block"` and no `statistics`, the trials of this call that share session and block are
            taken as the block. A single trial is then normalised by itself: at use, pass the running statistics of the
            block.
        """
        trials = self._split(features)
        count = len(trials)
        participant = self._participant(participant_id, count)
        sessions = _per_trial(session_id, count, "session_id")
        blocks = _per_trial(block_index, count, "block_index")
        session_positions = [self._session_position(session, index) for index, session in enumerate(sessions)]
        pairs = self._pairs(statistics, count)
        selecting = self.feature_kinds is not None or self.channel_areas is not None
        arrays = []
        for index, trial in enumerate(trials):
            name = f"trial {index}"
            array = _to_array(trial, name)
            expected = self.participants[participant]
            if selecting and not (feature_kinds is None and channel_areas is None and array.shape[-1:] == (expected,)):
                raw = array.shape[-1] if array.ndim else 0
                array = self.select(array, feature_kinds, channel_areas)
                pair = pairs[index]
                if pair is not None and np.shape(pair[0])[-1:] == (raw,) and raw != array.shape[-1]:
                    pairs[index] = (
                        self.select(pair[0], feature_kinds, channel_areas),
                        self.select(pair[1], feature_kinds, channel_areas),
                    )
            arrays.append(self._checked(array, name, participant))
        if self.normalization != "none" or statistics is not None:
            self._fill_statistics(pairs, arrays, sessions, blocks)
            for index, pair in enumerate(pairs):
                if pair is not None:
                    try:
                        arrays[index] = self.normalize(arrays[index], *pair)
                    except ValueError as error:
                        raise ValueError(f"trial {index}: {error}") from error
        lengths = np.asarray([array.shape[0] for array in arrays])
        padded = np.zeros((count, lengths.max(), arrays[0].shape[1]), dtype=np.float32)
        for index, array in enumerate(arrays):
            self._smooth_into(padded[index, : array.shape[0]], array)
        mask = np.arange(lengths.max())[None, :] < lengths[:, None]
        batch = BatchFeature({"input_features": padded, "attention_mask": mask})
        batch["participant_index"] = np.full(count, list(self.participants).index(participant), dtype=np.int64)
        if self.sessions:
            batch["session_index"] = np.asarray(session_positions, dtype=np.int64)
        return batch.convert_to_tensors(return_tensors)

    def _split(self, features: Any) -> list[Any]:
        depth = _depth(features)
        if isinstance(features, (list, tuple)) and len(features) == 0:
            raise ValueError("No trials: give at least one trial of shape (bins, channels).")
        if isinstance(features, (list, tuple)) and any(_depth(trial) == 2 for trial in features):
            return list(features)
        if depth == 2:
            return [features]
        if depth == 3:
            return [features[index] for index in range(len(features))]
        shape = getattr(features, "shape", f"({len(features)},)" if depth else "()")
        raise ValueError(
            f"features has {depth} dimension(s) (shape {tuple(shape) if not isinstance(shape, str) else shape}): give "
            "one trial of shape (bins, channels) or a list of them."
        )

    def _participant(self, participant_id: str | Sequence[str] | None, count: int) -> str:
        if participant_id is None:
            if len(self.participants) > 1:
                raise ValueError(f"participant_id is missing: name one of {list(self.participants)}.")
            return next(iter(self.participants))
        names = set(_per_trial(participant_id, count, "participant_id"))
        if len(names) != 1:
            raise ValueError(f"One batch holds the participants {sorted(map(str, names))}: process one at a time.")
        name = names.pop()
        if name not in self.participants:
            raise ValueError(
                f"The participant {name!r} is unknown: name one of {list(self.participants)}, or make an extractor and "
                "a model whose `participants` has it with its number of channels."
            )
        return name

    def _session_position(self, session: str | None, index: int) -> int:
        if not self.sessions:
            return 0
        if session is None and len(self.sessions) == 1:
            return 0
        if session not in self.sessions:
            raise ValueError(
                f"trial {index}: the session {session!r} is unknown; the known ones are {self.sessions}. Name one of "
                "them, or make an extractor and a model whose `sessions` has it."
            )
        return self.sessions.index(session)

    def _pairs(self, statistics: Any | None, count: int) -> list[Any]:
        if statistics is None:
            return [None] * count
        if isinstance(statistics, np.ndarray):
            statistics = list(statistics)
        if not isinstance(statistics, (list, tuple)) or len(statistics) == 0:
            raise ValueError("statistics must be one (mean, std) pair or a list with one pair per trial.")
        # A pair holds two vectors; a list of pairs holds things that hold vectors.
        if len(statistics) == 2 and all(_depth(entry) == 1 for entry in statistics):
            return [tuple(statistics)] * count
        if len(statistics) != count:
            raise ValueError(
                f"statistics has {len(statistics)} pairs for {count} trials: give one pair, or one per trial."
            )
        for index, pair in enumerate(statistics):
            if pair is not None and len(pair) != 2:
                raise ValueError(f"statistics of trial {index} has {len(pair)} entries: give a (mean, std) pair.")
        return list(statistics)

    def _fill_statistics(
        self, pairs: list[Any], arrays: list[np.ndarray], sessions: list[Any], blocks: list[Any]
    ) -> None:
        if self.normalization == "session":
            for index, session in enumerate(sessions):
                if pairs[index] is not None:
                    continue
                if session not in self.session_statistics:
                    raise ValueError(
                        f"trial {index}: no statistics for the session {session!r}; there are some for "
                        f"{sorted(self.session_statistics)}. Call fit_session_statistics with its training trials, or "
                        "pass statistics=(mean, std)."
                    )
                entry = self.session_statistics[session]
                pairs[index] = (np.asarray(entry["mean"]), np.asarray(entry["std"]))
        elif self.normalization == "block":
            groups: dict[Hashable, list[int]] = {}
            for index, key in enumerate(zip(sessions, blocks)):
                if pairs[index] is None:
                    groups.setdefault(key, []).append(index)
            for members in groups.values():
                pair = self.compute_statistics([arrays[index] for index in members])
                for index in members:
                    pairs[index] = pair

    def _checked(self, trial: Any, name: str, participant: str | None) -> np.ndarray:
        array = _to_array(trial, name)
        if array.ndim != 2:
            raise ValueError(f"{name} has the shape {array.shape}: a trial has the shape (bins, channels).")
        if array.shape[0] == 0 or array.shape[1] == 0:
            raise ValueError(f"{name} is empty (shape {array.shape}): leave trials without bins out.")
        if participant is not None and array.shape[1] != self.participants[participant]:
            raise ValueError(
                f"{name} has {array.shape[1]} channels, but participant {participant!r} has "
                f"{self.participants[participant]}: choose the participant, or set `feature_kinds` / `channel_areas` "
                "and pass those of the channels."
            )
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
            finite = bool(np.isfinite(array.sum()))  # a quick test of all values at once
        if not finite and not np.isfinite(array).all():
            row, channel = (int(position[0]) for position in np.nonzero(~np.isfinite(array)))
            raise ValueError(
                f"{name} has the value {array[row, channel]} at bin {row}, channel {channel}: repair it (for example "
                "set it to the channel's mean) or leave the trial out."
            )
        return array
