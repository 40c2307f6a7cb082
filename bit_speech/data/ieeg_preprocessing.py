"""Filtering and resampling of iEEG as a stream: a day of 200 channels goes through a few hundred megabytes.

Every filter is linear-phase and centred, and is computed block by block on a grid that starts with the file, so that
pieces of any size give the very numbers of the whole file.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.ieeg_recordings import Recording

_ATTENUATION_DB = 60.0
_CHUNK_S = 20.0
# Rate at which the high-gamma band is turned into an envelope, in multiples of the band's width.
_ENVELOPE_OVERSAMPLING = 3.0


@dataclass(frozen=True)
class IEEGPreprocessing:
    """What is done to a recording before windows are cut.

    Args:
        stream (`str`): `"low"` is the band-passed voltage, `"gamma"` the envelope of high gamma, `"both"` the channels
            of one after those of the other.
        low_hz (`float`): lower edge of the band-pass of `"low"`; 0 for none.
        high_hz (`float`): upper edge; at 40 Hz the resampler's own edge (18 Hz) is lower.
        gamma_hz (`tuple[float, float]`): band of `"gamma"`.
        notch_hz (`float`, *optional*): mains frequency; it and its multiples are taken out where a band holds them.
        reference (`str`): `"none"`, `"average"` (of the good channels), or `"bipolar"` (neighbours on a shaft).
        output_hz (`float`): rate of what comes out.

    Raises:
        ValueError: if a value is out of range.

    Note:
        Evanson et al. 2025, arXiv 2512.15830: 0.05 to 50 Hz, 40 Hz; as a variant bipolar, 70 to 120 Hz, Hilbert.
        Channels are combined after the filters of the voltage, which commute with it, and before the envelope, which
        does not.

    Example:
        >>> IEEGPreprocessing(stream="gamma").output_hz
        40.0
    """

    stream: str = "low"
    low_hz: float = 0.05
    high_hz: float = 50.0
    gamma_hz: tuple[float, float] = (70.0, 120.0)
    notch_hz: float | None = 50.0
    reference: str = "none"
    output_hz: float = 40.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if self.stream not in ("low", "gamma", "both"):
            raise ValueError(f"stream is {self.stream!r}; choose low, gamma or both")
        if self.reference not in ("none", "average", "bipolar"):
            raise ValueError(f"reference is {self.reference!r}; choose none, average or bipolar")
        if not 0 <= self.low_hz < self.high_hz or not 0 < self.gamma_hz[0] < self.gamma_hz[1]:
            raise ValueError(f"bands must rise: low_hz {self.low_hz}, high_hz {self.high_hz}, gamma_hz {self.gamma_hz}")
        if self.output_hz <= 0 or (self.notch_hz is not None and self.notch_hz <= 0):
            raise ValueError(f"output_hz {self.output_hz} and notch_hz {self.notch_hz} must be positive")

    def to_dict(self) -> dict[str, Any]:
        """Plain values for a file.

        Returns:
            `dict`: the settings.
        """
        return {**asdict(self), "gamma_hz": list(self.gamma_hz)}


def _half_length_s(transition_hz: float) -> float:
    """Half the duration of a Kaiser-windowed kernel."""
    return (_ATTENUATION_DB - 7.95) / (2.285 * 2 * math.pi * transition_hz) / 2


def _low_pass(time_s: np.ndarray, edge_hz: float, transition_hz: float) -> np.ndarray:
    """Kaiser-windowed sinc at any times; `edge_hz` is where the gain is one half; the area under it is 1."""
    from scipy.special import i0

    half = _half_length_s(transition_hz)
    beta = 0.1102 * (_ATTENUATION_DB - 8.7)
    inside = np.clip(1 - (time_s / half) ** 2, 0, None)
    window = np.where(np.abs(time_s) <= half, i0(beta * np.sqrt(inside)) / i0(beta), 0.0)
    return 2 * edge_hz * np.sinc(2 * edge_hz * time_s) * window


def _unit_area(kernel: np.ndarray) -> np.ndarray:
    return kernel / kernel.sum(axis=1, keepdims=True)


class FilterAndResample:
    """One linear-phase filter and a change of rate, as a matrix that every block of the signal is multiplied with.

    Args:
        input_hz (`float`): rate that comes in.
        output_hz (`float`): rate that goes out.
        edge_hz (`float`): upper edge of the band (gain one half), or its half width around `center_hz`.
        transition_hz (`float`): width of the fall from 1 to 1/1000.
        center_hz (`float`): above 0, the band around it is moved to 0: the output is the analytic signal there.
        notches_hz (`Sequence[float]`): frequencies in the band that are taken out.

    Raises:
        ValueError: if the band does not fit the rates.

    Note:
        The impulse response is evaluated where inputs and outputs lie, so any ratio of rates is exact to a millionth;
        no intermediate rate is needed. Beyond the ends of the file the first and last value go on.
    """

    def __init__(
        self,
        input_hz: float,
        output_hz: float,
        edge_hz: float,
        transition_hz: float,
        center_hz: float = 0.0,
        notches_hz: Sequence[float] = (),
    ) -> None:
        top = center_hz + edge_hz + transition_hz / 2
        if top > input_hz / 2:
            raise ValueError(
                f"a band up to {top:g} Hz needs a recording at {2 * top:g} Hz or more, this one has {input_hz:g}"
            )
        ratio = Fraction(output_hz / input_hz).limit_denominator(10_000)
        self.input_hz, self.output_hz = float(input_hz), float(output_hz)
        # A block takes about a quarter of a second, and a whole number of samples in and out.
        repeat = (
            max(1, round(0.25 * output_hz / ratio.numerator))
            if center_hz
            else max(1, round(output_hz / ratio.numerator))
        )
        self.block_out, self.block_in = ratio.numerator * repeat, ratio.denominator * repeat
        narrow = min(2.0, transition_hz)
        half = max(_half_length_s(transition_hz), _half_length_s(narrow) if len(notches_hz) else 0.0)
        self.margin = math.ceil(half * input_hz)
        lag = (np.arange(self.block_out)[:, None] * (self.block_in / self.block_out)
               - np.arange(-self.margin, self.block_in + self.margin)[None, :]) / input_hz  # fmt: skip
        kernel = _unit_area(_low_pass(lag, edge_hz, transition_hz))
        self.is_complex = center_hz > 0
        if self.is_complex:
            # The carrier is a function of the lag, so every block has the same matrix; the phase that this adds is lost
            # in the envelope.
            kernel = 2 * kernel * np.exp(2j * np.pi * center_hz * lag)
        for notch in notches_hz:
            carrier = np.exp(2j * np.pi * notch * lag) if self.is_complex else np.cos(2 * np.pi * notch * lag)
            kernel = kernel - 2 * carrier * _unit_area(_low_pass(lag, narrow, narrow))
        if self.is_complex:
            kernel = np.concatenate([kernel.real, kernel.imag])
        self._matrix = np.ascontiguousarray(kernel.T, dtype=np.float32)  # (block_in + 2 margin, outputs)
        self._buffer: np.ndarray | None = None
        self._seen = self._given = 0

    def push(self, samples: np.ndarray) -> np.ndarray:
        """Take the next samples and give what can be computed by now.

        Args:
            samples (`np.ndarray` of shape `(C, n)`): float32.

        Returns:
            `np.ndarray` of shape `(C, m)`: float32, or complex64 for a band around `center_hz`; m may be 0.
        """
        if not samples.shape[1]:
            return self._empty(len(samples))
        if self._buffer is None:
            self._buffer = np.repeat(samples[:, :1], self.margin, axis=1)
        self._seen += samples.shape[1]
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        return self._run(final=False)

    def finish(self) -> np.ndarray:
        """Give the outputs at the end of the file.

        Returns:
            `np.ndarray` of shape `(C, m)`: the last outputs.

        Raises:
            ValueError: if nothing was pushed.
        """
        if self._buffer is None:
            raise ValueError("the recording is empty")
        tail = np.repeat(self._buffer[:, -1:], self.block_in + 2 * self.margin, axis=1)
        self._buffer = np.concatenate([self._buffer, tail], axis=1)
        return self._run(final=True)

    def _empty(self, channels: int) -> np.ndarray:
        return np.zeros((channels, 0), np.complex64 if self.is_complex else np.float32)

    def _run(self, final: bool) -> np.ndarray:
        assert self._buffer is not None
        width = self.block_in + 2 * self.margin
        total = int(self._seen * self.block_out / self.block_in + 1e-9)
        wanted = -(-(total - self._given) // self.block_out) if final else 10**9
        count = max(0, min((self._buffer.shape[1] - width) // self.block_in + 1, wanted))
        out = np.empty((len(self._buffer), count, self._matrix.shape[1]), np.float32)
        for block in range(count):
            start = block * self.block_in
            np.matmul(self._buffer[:, start : start + width], self._matrix, out=out[:, block])
        self._buffer = self._buffer[:, count * self.block_in :].copy()
        if self.is_complex:
            values = out[..., : self.block_out] + 1j * out[..., self.block_out :]
        else:
            values = out
        values = values.reshape(len(out), -1)
        if final:
            values = values[:, : total - self._given]
        self._given += values.shape[1]
        return values


class HighPass:
    """Takes out what is slower than an edge, with a long centred kernel.

    Args:
        rate_hz (`float`): rate of the signal.
        edge_hz (`float`): gain one half; the fall from 1 to 1/1000 is as wide as the edge is high.
    """

    def __init__(self, rate_hz: float, edge_hz: float) -> None:
        self.margin = math.ceil(_half_length_s(edge_hz) * rate_hz)
        kernel = _low_pass(np.arange(-self.margin, self.margin + 1) / rate_hz, edge_hz, edge_hz)
        self._kernel = -kernel / kernel.sum()
        self._kernel[self.margin] += 1
        self._block = 2 * self.margin
        self._buffer: np.ndarray | None = None
        self._seen = self._given = 0

    def push(self, samples: np.ndarray, final: bool = False) -> np.ndarray:
        """Take the next samples and give what can be computed by now.

        Args:
            samples (`np.ndarray` of shape `(C, n)`): float32.
            final (`bool`): these are the last.

        Returns:
            `np.ndarray` of shape `(C, m)`: float32.
        """
        from scipy.fft import irfft, next_fast_len, rfft

        if self._buffer is None:
            if not samples.shape[1]:
                return samples
            self._buffer = np.repeat(samples[:, :1], self.margin, axis=1)
        self._seen += samples.shape[1]
        self._buffer = np.concatenate([self._buffer, samples], axis=1)
        if final:
            tail = np.repeat(self._buffer[:, -1:], self._block + 2 * self.margin, axis=1)
            self._buffer = np.concatenate([self._buffer, tail], axis=1)
        width = self._block + 2 * self.margin
        wanted = -(-(self._seen - self._given) // self._block) if final else 10**9
        count = max(0, min((self._buffer.shape[1] - width) // self._block + 1, wanted))
        size = next_fast_len(width, real=True)
        response = rfft(self._kernel, size)
        parts = [np.zeros((len(self._buffer), 0), np.float32)]
        for block in range(count):
            piece = self._buffer[:, block * self._block : block * self._block + width]
            # In double precision: a slow drift is many times larger than what is left.
            filtered = irfft(rfft(piece.astype(np.float64), size, axis=1) * response, size, axis=1)
            parts.append(filtered[:, 2 * self.margin : 2 * self.margin + self._block].astype(np.float32))
        self._buffer = self._buffer[:, count * self._block :].copy()
        values = np.concatenate(parts, axis=1)
        if final:
            values = values[:, : self._seen - self._given]
        self._given += values.shape[1]
        return values


def bipolar_pairs(names: Sequence[str]) -> list[tuple[int, int]]:
    """Neighbouring contacts on the same shaft.

    Args:
        names (`Sequence[str]`): such as `A1`, `A'2`, `EEG TP3-Ref`.

    Returns:
        `list[tuple[int, int]]`: positions of (contact n, contact n + 1), in the order of the first.

    Example:
        >>> bipolar_pairs(["A1", "A2", "A4", "B'1", "B'2", "ECG"])
        [(0, 1), (3, 4)]
    """
    found: dict[tuple[str, int], int] = {}
    for position, name in enumerate(names):
        bare = re.sub(r"^(EEG|SEEG|POL)\s+|-(Ref|REF|AVG|A1A2)$", "", name.strip())
        match = re.fullmatch(r"(\D.*?|\D)(\d+)", bare)
        if match:
            found[(match.group(1), int(match.group(2)))] = position
    return [(at, found[(shaft, number + 1)]) for (shaft, number), at in found.items() if (shaft, number + 1) in found]


class Preprocessor:
    """The stream of one recording: push samples, get filtered channels at the output rate.

    Args:
        settings (`IEEGPreprocessing`): what is done.
        input_hz (`float`): rate of the recording.
        channel_names (`Sequence[str]`): of the channels that are pushed, good ones only.

    Raises:
        ValueError: if a band does not fit the rate, or there is no bipolar pair.
    """

    def __init__(self, settings: IEEGPreprocessing, input_hz: float, channel_names: Sequence[str]) -> None:
        self.settings = settings
        out = settings.output_hz
        names = list(channel_names)
        self._pairs = bipolar_pairs(names) if settings.reference == "bipolar" else []
        if settings.reference == "bipolar":
            if not self._pairs:
                raise ValueError(f"no two channels are neighbours on a shaft; names are {', '.join(names[:8])}")
            names = [f"{names[first]}-{names[second]}" for first, second in self._pairs]
        self._low = self._high_pass = self._gamma = self._envelope = None
        self.channel_names: list[str] = []
        if settings.stream in ("low", "both"):
            edge = min(settings.high_hz, 0.45 * out)
            self._low = FilterAndResample(input_hz, out, edge, 0.1 * out, notches_hz=self._notches(0.0, edge))
            self._high_pass = HighPass(out, settings.low_hz) if settings.low_hz else None
            self.channel_names += names
        if settings.stream in ("gamma", "both"):
            low, high = settings.gamma_hz
            middle = out * math.ceil(_ENVELOPE_OVERSAMPLING * (high - low) / out)
            notches = self._notches(low, high)
            self._gamma = FilterAndResample(
                input_hz, middle, (high - low) / 2, 0.1 * (high - low), (high + low) / 2, notches
            )
            self._envelope = FilterAndResample(middle, out, 0.45 * out, 0.1 * out)
            self.channel_names += [f"{name} gamma" for name in names] if settings.stream == "both" else names

    def _notches(self, low: float, high: float) -> list[float]:
        mains = self.settings.notch_hz
        if mains is None:
            return []
        return [mains * k for k in range(1, int((high + 2) / mains) + 1) if low - 2 <= mains * k <= high + 2]

    def _reference(self, values: np.ndarray) -> np.ndarray:
        if self._pairs:
            first, second = np.array(self._pairs).T
            return values[first] - values[second]
        return values - values.mean(axis=0) if self.settings.reference == "average" else values

    def push(self, samples: np.ndarray | None) -> list[np.ndarray]:
        """Take the next samples; None says that there are no more.

        Args:
            samples (`np.ndarray` of shape `(C, n)`, *optional*): float32.

        Returns:
            `list[np.ndarray]`: for each stream what is ready, `(C', m)`; the streams may be ready at different times.
        """
        final, ready = samples is None, []
        if self._low is not None:
            values = self._reference(self._low.finish() if samples is None else self._low.push(samples))
            ready.append(values if self._high_pass is None else self._high_pass.push(values, final))
        if self._gamma is not None and self._envelope is not None:
            band = self._reference(self._gamma.finish() if samples is None else self._gamma.push(samples))
            values = self._envelope.push(np.abs(band).astype(np.float32))
            ready.append(np.concatenate([values, self._envelope.finish()], axis=1) if final else values)
        return ready


def preprocess(
    recording: Recording,
    settings: IEEGPreprocessing,
    bad_channels: Iterable[str] = (),
    output: str | os.PathLike[str] | None = None,
    chunk_s: float = _CHUNK_S,
) -> tuple[np.ndarray, list[str]]:
    """Filter a whole recording, reading a few seconds at a time.

    Args:
        recording ([`~bit_speech.data.ieeg_recordings.Recording`]): what is read.
        settings (`IEEGPreprocessing`): what is done.
        bad_channels (`Iterable[str]`): channels that are left out before anything is combined.
        output (`str`, *optional*): `.npy` file to write to and map; default memory.
        chunk_s (`float`): seconds read at a time; it does not change the result.

    Returns:
        `tuple[np.ndarray, list[str]]`: `(T, C')` float32 at `settings.output_hz`, and the names of the channels.

    Raises:
        ValueError: if a bad channel does not exist, none is left, or the recording is shorter than a tenth of a second.
    """
    bad = set(bad_channels)
    unknown = sorted(bad - set(recording.channel_names))
    if unknown:
        raise ValueError(f"bad channels {unknown} are not in the recording; it has {recording.channel_names[:8]} ...")
    good = [index for index, name in enumerate(recording.channel_names) if name not in bad]
    if not good:
        raise ValueError("every channel is bad: nothing is left")
    stream = Preprocessor(settings, recording.sampling_rate_hz, [recording.channel_names[index] for index in good])
    total = int(recording.num_samples * settings.output_hz / recording.sampling_rate_hz + 1e-9)
    if total < 0.1 * settings.output_hz:
        raise ValueError(
            f"the recording has {recording.num_samples} samples at {recording.sampling_rate_hz} Hz: too short"
        )
    shape = (total, len(stream.channel_names))
    partial = None if output is None else Path(output).with_name(f".{Path(output).name}.partial")
    result: Any
    if partial is None:
        result = np.empty(shape, np.float32)
    else:
        result = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
    filled: list[int] = []
    for samples in _pieces(recording, good, chunk_s):
        ready = stream.push(samples)
        filled = filled or [0] * len(ready)
        width = shape[1] // len(ready)
        for number, values in enumerate(ready):
            stop = min(total, filled[number] + values.shape[1])
            columns = slice(number * width, (number + 1) * width)
            result[filled[number] : stop, columns] = values.T[: stop - filled[number]]
            filled[number] = stop
    if set(filled) != {total}:
        raise RuntimeError(f"{filled} of {total} bins came out of the filters")
    if partial is not None:
        result.flush()
        del result
        os.replace(partial, str(output))
        return np.load(str(output), mmap_mode="r"), stream.channel_names
    return result, stream.channel_names


def _pieces(recording: Recording, good: list[int], chunk_s: float) -> Iterator[np.ndarray | None]:
    step = max(1, round(chunk_s * recording.sampling_rate_hz))
    for start in range(0, recording.num_samples, step):
        samples = recording.read(start, min(start + step, recording.num_samples))
        yield samples if len(good) == len(samples) else samples[good]
    yield None


def find_bad_channels(values: np.ndarray, names: Sequence[str], factor: float = 10.0) -> list[str]:
    """Channels that are flat, or many times as loud or quiet as the others.

    Args:
        values (`np.ndarray` of shape `(T, C)`): filtered iEEG.
        names (`Sequence[str]`): of the channels.
        factor (`float`): how many times the median spread of all channels is too much, or its inverse too little.

    Returns:
        `list[str]`: names of suspects, for a person to look at.

    Example:
        >>> find_bad_channels(np.random.default_rng(0).normal(size=(500, 4)) * [1, 0, 1, 99], ["a", "b", "c", "d"])
        ['b', 'd']
    """
    low, high = np.percentile(values[:: max(1, len(values) // 20_000)], [25, 75], axis=0)
    spread = high - low
    middle = np.median(spread)
    return [name for name, value in zip(names, spread, strict=True) if not middle / factor <= value <= middle * factor]
