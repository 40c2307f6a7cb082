"""Opening recordings of iEEG and sound: EDF as a memory map, everything else that MNE reads, WAV and FLAC."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from bit_speech.files import write_bytes
from bit_speech.import_utils import require

_AUXILIARY = re.compile(
    r"((EEG|POL)\s+)?((DC|E[CK]G|EMG|EOG|TRIG|MARK|STI|STATUS|EVENT)\s*-?\d*|OSAT|SPO2|PR|PLETH|E|(POL\s*)?\$.*)(-Ref)?",
    re.IGNORECASE,
)
IEEG_KINDS: tuple[str, ...] = ("seeg", "ecog", "dbs", "eeg")


class Recording(Protocol):
    """What preprocessing reads from.

    Attributes:
        sampling_rate_hz (`float`): samples per second.
        channel_names (`list[str]`): of all channels.
        num_samples (`int`): of each channel.
    """

    sampling_rate_hz: float
    channel_names: list[str]
    num_samples: int

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples `start` to `stop` of all channels, float32 `(C, stop - start)`, in volts or what the file holds."""
        ...


class ArrayRecording:
    """A recording in memory, or memory-mapped.

    Args:
        values (`np.ndarray` of shape `(C, n)`): samples.
        sampling_rate_hz (`float`): samples per second.
        channel_names (`Sequence[str]`, *optional*): default `ch0`, `ch1`, ...

    Raises:
        ValueError: if the names do not fit.
    """

    def __init__(self, values: np.ndarray, sampling_rate_hz: float, channel_names: Sequence[str] | None = None) -> None:
        names = [f"ch{index}" for index in range(len(values))] if channel_names is None else list(channel_names)
        if values.ndim != 2 or len(names) != len(values):
            raise ValueError(
                f"values have the shape {values.shape} for {len(names)} names: expected (channels, samples)"
            )
        self._values = values
        self.sampling_rate_hz = float(sampling_rate_hz)
        self.channel_names = names
        self.num_samples = values.shape[1]

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples.

        Args:
            start (`int`): the first.
            stop (`int`): one after the last.

        Returns:
            `np.ndarray` of shape `(C, stop - start)`: float32.
        """
        return np.asarray(self._values[:, start:stop], dtype=np.float32)


class EDFRecording:
    """A plain EDF file, memory-mapped: reading is as fast as the disk.

    Args:
        path (`str`): file with 16-bit samples, in one piece (EDF or EDF+C).

    Raises:
        ValueError: if the file is something else; the message says what.

    Note:
        Channels of the most common rate are signals; annotations and others are left out. The unit is volts where the
        file says uV or mV. MNE reads the same numbers, and every other format.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        path = Path(path)
        with path.open("rb") as file:
            head = file.read(256).decode("latin-1")
            if not head.startswith("0 "):
                raise ValueError(f"{path.name} is no EDF file (BDF and others are read through MNE)")
            if head[192:236].startswith("EDF+D"):
                raise ValueError(f"{path.name} is EDF+D, a recording with gaps: export it in pieces without gaps")
            count, records, duration = int(head[252:256]), int(head[236:244]), float(head[244:252])
            widths = (16, 80, 8, 8, 8, 8, 8, 80, 8, 32)
            fields = []
            for width in widths:
                text = file.read(width * count).decode("latin-1")
                fields.append([text[i * width : (i + 1) * width].strip() for i in range(count)])
        samples = np.array([int(value) for value in fields[8]])
        signals = [i for i, name in enumerate(fields[0]) if "Annotations" not in name]
        if not signals or duration <= 0:
            raise ValueError(f"{path.name} holds no signal of a known duration")
        rates, counts = np.unique(samples[signals], return_counts=True)
        per_record = int(rates[counts.argmax()])
        self._chosen = [i for i in signals if samples[i] == per_record]
        width = int(samples.sum())
        available = (path.stat().st_size - int(head[184:192])) // (2 * width)
        records = available if records < 0 else records  # -1: still being written
        if available < records:
            raise ValueError(f"{path.name} should hold {records} records, but ends after {available}: copy it again")
        self._records = np.memmap(path, "<i2", "r", offset=int(head[184:192]), shape=(records, width))
        starts = np.concatenate([[0], np.cumsum(samples)[:-1]])
        self._starts = starts[self._chosen]
        self._per_record = per_record
        # Physical minimum and maximum, digital minimum and maximum.
        low, high, digital_low, digital_high = (
            np.array([float(fields[number][i]) for i in self._chosen]) for number in (3, 4, 5, 6)
        )
        volts = np.array([{"uV": 1e-6, "µV": 1e-6, "mV": 1e-3}.get(fields[2][i], 1.0) for i in self._chosen])
        gain = (high - low) / (digital_high - digital_low)
        self._gain = (gain * volts).astype(np.float32)[:, None]
        self._offset = ((low - gain * digital_low) * volts).astype(np.float32)[:, None]
        self.sampling_rate_hz = per_record / duration
        self.channel_names = [fields[0][i] for i in self._chosen]
        self.num_samples = records * per_record
        self._joined = np.array_equal(np.diff(self._starts), np.full(len(self._chosen) - 1, per_record))

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples.

        Args:
            start (`int`): the first.
            stop (`int`): one after the last.

        Returns:
            `np.ndarray` of shape `(C, stop - start)`: float32, volts.
        """
        size, channels = self._per_record, len(self._chosen)
        first, last = start // size, -(-stop // size)
        values = np.empty((channels, last - first, size), np.float32)
        records = self._records[first:last]
        if self._joined:
            begin = int(self._starts[0])
            block = records[:, begin : begin + channels * size].reshape(last - first, channels, size)
            np.copyto(values, block.transpose(1, 0, 2))
        else:
            for index, begin in enumerate(self._starts):
                values[index] = records[:, begin : begin + size]
        values = values.reshape(channels, -1)[:, start - first * size : stop - first * size]
        values *= self._gain
        values += self._offset
        return values


def write_edf(
    path: str | os.PathLike[str],
    values: np.ndarray,
    rate_hz: int,
    channel_names: Sequence[str],
    limit_uv: float = 3276.7,
) -> None:
    """Write a plain EDF file of whole seconds, in microvolts.

    Args:
        path (`str`): destination.
        values (`np.ndarray` of shape `(C, n)`): volts.
        rate_hz (`int`): samples per second.
        channel_names (`Sequence[str]`): at most 16 letters each.
        limit_uv (`float`): largest value that can be written; the resolution is a 32,767th of it.

    Raises:
        ValueError: if a value is larger, or the recording is shorter than a second.
    """
    channels, seconds = len(values), values.shape[1] // rate_hz
    microvolts = 1e6 * values[:, : seconds * rate_hz]
    if not seconds or np.abs(microvolts).max() > limit_uv:
        raise ValueError(f"{values.shape[1]} samples up to {np.abs(1e6 * values).max():.0f} uV; limit_uv is {limit_uv}")

    def text(value: Any, width: int) -> bytes:
        return f"{value:<{width}}"[:width].encode("ascii")

    head: list[tuple[Any, int]] = [
        ("0", 8),
        ("X X X X", 80),
        ("Startdate X X X X", 80),
        ("01.01.00", 8),
        ("00.00.00", 8),
    ]
    head += [(256 * (channels + 1), 8), ("", 44), (seconds, 8), (1, 8), (channels, 4)]
    columns: list[tuple[Sequence[Any], int]] = [(channel_names, 16)]
    for constant, width in (("", 80), ("uV", 8), (f"{-limit_uv:.6g}", 8), (f"{limit_uv:.6g}", 8)):
        columns.append(([constant] * channels, width))
    for number, width in ((-32767, 8), (32767, 8), ("", 80), (rate_hz, 8), ("", 32)):
        columns.append(([number] * channels, width))
    digital = np.round(microvolts * (32767 / limit_uv)).astype("<i2")
    content = b"".join(text(*entry) for entry in head)
    content += b"".join(text(value, width) for column, width in columns for value in column)
    content += np.ascontiguousarray(digital.reshape(channels, seconds, rate_hz).transpose(1, 0, 2)).tobytes()
    write_bytes(path, content)


class MNERecording:
    """Any file that MNE reads.

    Args:
        raw (`mne.io.BaseRaw` or `str`): opened, or a path.
        kinds (`Sequence[str]`): kinds of channels that are taken; the first of them that the file has.

    Raises:
        ValueError: if no channel is of these kinds.
    """

    def __init__(self, raw: Any, kinds: Sequence[str] = IEEG_KINDS) -> None:
        mne = require("mne")
        if isinstance(raw, (str, os.PathLike)):
            raw = mne.io.read_raw(raw, preload=False, verbose="error")
        types = raw.get_channel_types()
        wanted = [kind for kind in kinds if kind in types]
        if not wanted:
            raise ValueError(f"the recording has channels of the kinds {sorted(set(types))}, none of {list(kinds)}")
        # sEEG and ECoG often lie in one recording; EEG counts only where there is nothing else.
        invasive = [kind for kind in wanted if kind != "eeg"] or wanted
        self._picks = [index for index, kind in enumerate(types) if kind in invasive]
        self._raw = raw
        self.sampling_rate_hz = float(raw.info["sfreq"])
        self.channel_names = [raw.ch_names[index] for index in self._picks]
        self.num_samples = int(raw.n_times)
        self.bad_channels = [name for name in raw.info["bads"] if name in self.channel_names]
        places = np.array([raw.info["chs"][index]["loc"][:3] for index in self._picks], dtype=float)
        places[~places.any(axis=1)] = np.nan  # zeros stand for unknown
        self.channel_positions = places

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples.

        Args:
            start (`int`): the first.
            stop (`int`): one after the last.

        Returns:
            `np.ndarray` of shape `(C, stop - start)`: float32, volts.
        """
        return self._raw.get_data(self._picks, start, stop).astype(np.float32)


def open_recording(path: str | os.PathLike[str]) -> Recording:
    """Open a recording: plain EDF as a memory map, everything else through MNE.

    Args:
        path (`str`): `.edf`, `.fif`, `.vhdr`, `.set`, ... or `.npy` files are refused (their rate is unknown).

    Returns:
        `Recording`: ready to be read piece by piece.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it cannot be read.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path} does not exist: give a recording that MNE reads (EDF, FIF, BrainVision, ...)")
    return EDFRecording(path) if path.suffix.lower() == ".edf" else MNERecording(path)


def auxiliary_channels(names: Sequence[str]) -> list[str]:
    """Channels of an EDF that are no iEEG by their name: heart, eyes, triggers, sound inputs.

    Args:
        names (`Sequence[str]`): of all channels; plain EDF does not say what a channel is.

    Returns:
        `list[str]`: those to leave out.

    Example:
        >>> auxiliary_channels(["A1", "DC3", "EKG1", "TRIG", "PR", "PR1", "POL E"])
        ['DC3', 'EKG1', 'TRIG', 'PR', 'POL E']
    """
    return [name for name in names if _AUXILIARY.fullmatch(name.strip())]


def read_audio(
    path: str | os.PathLike[str], start_s: float = 0.0, duration_s: float | None = None
) -> tuple[np.ndarray, int]:
    """Read sound, mono, without reading the whole file.

    Args:
        path (`str`): WAV, FLAC, OGG or what else libsndfile reads.
        start_s (`float`): first second.
        duration_s (`float`, *optional*): how many seconds; default to the end.

    Returns:
        `tuple[np.ndarray, int]`: float32 `(S,)` in -1..1, channels averaged, and their rate in hertz.

    Raises:
        FileNotFoundError: if there is no such file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path} does not exist: give a sound file (WAV, FLAC)")
    with require("soundfile").SoundFile(str(path)) as file:
        file.seek(min(len(file), max(0, round(start_s * file.samplerate))))
        count = -1 if duration_s is None else round(duration_s * file.samplerate)
        return file.read(count, dtype="float32", always_2d=True).mean(axis=1), file.samplerate
