"""The `AlignedSegment`: half a minute of iEEG and the sound of the same time; splits by file, and windows."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.audio_features import speech_share, window_means
from bit_speech.files import write_json

SEGMENT_S: float = 30.0
SPLITS: tuple[str, ...] = ("train", "validation", "test")
# What was heard: the room as it is; a clean recording; the clean recording as the room's microphone got it.
CONDITIONS: tuple[str, ...] = ("ambient", "clean", "clean_in_room")

# Column -> whether it may be null.
SEGMENT_COLUMNS: dict[str, bool] = {
    "participant_id": False,
    "session_id": False,
    "file_id": False,
    "segment_index": False,
    "start_s": False,
    "split": False,
    "condition": False,
    "ieeg": False,
    "sampling_rate_hz": False,
    "channel_names": False,
    "channel_positions": True,
    "audio": False,
    "audio_rate_hz": False,
    "preprocessing": False,
    "source": False,
    "licence": False,
}
_TEXT = ("participant_id", "session_id", "file_id", "split", "condition", "preprocessing", "source", "licence")


def segment_features(num_channels: int) -> Any:
    """Describe the columns of a dataset of segments.

    Args:
        num_channels (`int`): iEEG channels C.

    Returns:
        `datasets.Features`: `ieeg` is `Array2D((None, C), "float32")`, `audio` a list of int16.

    Example:
        >>> segment_features(5)["ieeg"].shape
        (None, 5)
    """
    from datasets import Array2D, Features, List, Value

    text = {name: Value("string") for name in _TEXT}
    return Features(
        {
            **text,
            "segment_index": Value("int32"),
            "start_s": Value("float64"),
            "ieeg": Array2D((None, num_channels), "float32"),
            "sampling_rate_hz": Value("float32"),
            "channel_names": List(Value("string")),
            "channel_positions": List(List(Value("float32"))),
            "audio": List(Value("int16")),
            "audio_rate_hz": Value("int32"),
        }
    )


def validate_segment(segment: Mapping[str, Any]) -> None:
    """Check that a row is a segment, and say precisely what is wrong when it is not.

    Args:
        segment (`dict`): one row with the columns of [`segment_features`].

    Raises:
        ValueError: naming file and segment, the column, the value, and what was expected.
    """
    name = f"file {segment.get('file_id', '?')}, segment {segment.get('segment_index', '?')}"
    missing = [column for column in SEGMENT_COLUMNS if column not in segment]
    unknown = [column for column in segment if column not in SEGMENT_COLUMNS]
    if missing or unknown:
        raise ValueError(f"{name}: missing column(s) {missing}, unknown column(s) {unknown}")
    for column in _TEXT:
        if not isinstance(segment[column], str) or not segment[column]:
            raise ValueError(f"{name}: {column} must be a non-empty string, got {segment[column]!r}")
    if segment["split"] not in SPLITS or segment["condition"] not in CONDITIONS:
        raise ValueError(
            f"{name}: split {segment['split']!r} must be one of {SPLITS}, condition {segment['condition']!r} one of "
            f"{CONDITIONS}"
        )
    ieeg, audio = segment["ieeg"], segment["audio"]
    if not isinstance(ieeg, np.ndarray) or ieeg.dtype != np.float32 or ieeg.ndim != 2 or 0 in ieeg.shape:
        raise ValueError(f"{name}: ieeg must be a float32 array (bins, channels), got {_describe(ieeg)}")
    if not (math.isfinite(ieeg.max()) and math.isfinite(ieeg.min())):
        raise ValueError(f"{name}: ieeg holds NaN or infinity; leave the segment out, or the channel")
    if not isinstance(audio, np.ndarray) or audio.dtype != np.int16 or audio.ndim != 1:
        raise ValueError(f"{name}: audio must be an int16 array (samples,), got {_describe(audio)}")
    if len(segment["channel_names"]) != ieeg.shape[1]:
        raise ValueError(f"{name}: {len(segment['channel_names'])} channel_names for {ieeg.shape[1]} channels")
    durations = len(ieeg) / segment["sampling_rate_hz"], len(audio) / segment["audio_rate_hz"]
    if abs(durations[0] - durations[1]) > 1.5 / segment["sampling_rate_hz"]:
        raise ValueError(f"{name}: iEEG lasts {durations[0]:.3f} s, audio {durations[1]:.3f} s; cut both alike")


def _describe(value: Any) -> str:
    return f"{value.dtype} {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def split_files(
    file_ids: Sequence[str],
    shares: tuple[float, float, float] = (0.8, 0.1, 0.1),
    seed: int = 0,
    test_sessions: Mapping[str, str] | None = None,
    held_out: Iterable[str] = (),
) -> dict[str, str]:
    """Assign whole recording files to splits, before any feature is computed.

    Args:
        file_ids (`Sequence[str]`): files (of two hours, say), each once.
        shares (`tuple[float, float, float]`): of train, validation and test.
        seed (`int`): of the assignment.
        test_sessions (`Mapping[str, str]`, *optional*): file -> session, needed by `held_out`.
        held_out (`Iterable[str]`): sessions (days) that go to test as a whole.

    Returns:
        `dict[str, str]`: file -> split; validation and test have at least one file each.

    Raises:
        ValueError: if a file is named twice, or too few are left for three splits.

    Note:
        The paper assigns two-hour files; its shares are not known. Windows of one file never lie in two splits: the
        audio features look at 30 s around a window.

    Example:
        >>> sorted(split_files(list("abcde")).values())
        ['test', 'train', 'train', 'train', 'validation']
    """
    if len(set(file_ids)) != len(file_ids):
        raise ValueError("file_ids names a file more than once: give every file once")
    days = set(held_out)
    if days and test_sessions is None:
        raise ValueError(f"held_out={sorted(days)} needs test_sessions, the session of every file")
    sessions = test_sessions or {}
    split = {name: "test" for name in file_ids if sessions.get(name) in days}
    rest = [name for name in file_ids if name not in split]
    if len(rest) < 3:
        raise ValueError(f"{len(rest)} file(s) outside the held-out days cannot be train, validation and test")
    order = np.random.default_rng(seed).permutation(len(rest))
    validation, test = (max(1, round(share * len(rest))) for share in shares[1:])
    names = ["validation"] * validation + ["test"] * test + ["train"] * len(rest)
    split |= {rest[int(index)]: name for index, name in zip(order, names, strict=False)}
    return {name: split[name] for name in file_ids}


@dataclass(frozen=True)
class SegmentLeakage:
    """What two splits have in common.

    Attributes:
        files (`tuple[str, ...]`): files with segments in more than one split.
        sounds (`int`): segments whose very sound is also in another split.
        overlaps (`int`): segments that overlap in time with one of another split, in the same file.
    """

    files: tuple[str, ...]
    sounds: int
    overlaps: int

    @property
    def ok(self) -> bool:
        """True when nothing is shared."""
        return not (self.files or self.sounds or self.overlaps)


def check_segment_leakage(segments: Iterable[Mapping[str, Any]]) -> SegmentLeakage:
    """Look for files, sounds and times that lie in more than one split.

    Args:
        segments (`Iterable` of `dict`): all segments of a dataset; only `participant_id`, `file_id`, `split`,
            `start_s`, `condition`, `audio` and `audio_rate_hz` are read. Digital silence is no shared sound.

    Returns:
        `SegmentLeakage`: what was found.
    """
    files: dict[tuple[str, str], set[str]] = {}
    sounds: dict[bytes, list[str]] = {}
    times: dict[tuple[str, str, str], list[tuple[float, float, str]]] = {}
    for segment in segments:
        owner, split = (segment["participant_id"], segment["file_id"]), segment["split"]
        audio = np.asarray(segment["audio"])
        files.setdefault(owner, set()).add(split)
        if audio.any():
            sounds.setdefault(hashlib.sha256(audio.tobytes()).digest(), []).append(split)
        stop = segment["start_s"] + len(audio) / segment["audio_rate_hz"]
        times.setdefault((*owner, segment["condition"]), []).append((segment["start_s"], stop, split))
    overlaps = 0
    for spans in times.values():
        spans.sort()
        overlaps += sum(b[0] < a[1] - 1e-6 and a[2] != b[2] for a, b in zip(spans, spans[1:], strict=False))
    shared = sum(len(splits) for splits in sounds.values() if len(set(splits)) > 1)
    return SegmentLeakage(
        tuple(sorted(name for (_, name), splits in files.items() if len(splits) > 1)), shared, overlaps
    )


@dataclass
class WindowSet:
    """Windows of iEEG with the audio features of the same time; arrays of equal length N.

    Attributes:
        ieeg (`np.ndarray` of shape `(N, T, C)`): float32, filtered, not scaled.
        targets (`np.ndarray` of shape `(N, D)`): float32, mean audio features, not scaled.
        speech (`np.ndarray` of shape `(N,)`): share of the window that holds speech, by a detector.
        start_s (`np.ndarray` of shape `(N,)`): start within the file in seconds.
        participant (`np.ndarray` of shape `(N,)`): names.
        session (`np.ndarray` of shape `(N,)`): names.
        file (`np.ndarray` of shape `(N,)`): names.
        split (`np.ndarray` of shape `(N,)`): `train`, `validation` or `test`.
        condition (`np.ndarray` of shape `(N,)`): see `CONDITIONS`.
    """

    ieeg: np.ndarray
    targets: np.ndarray
    speech: np.ndarray
    start_s: np.ndarray
    participant: np.ndarray
    session: np.ndarray
    file: np.ndarray
    split: np.ndarray
    condition: np.ndarray

    def __post_init__(self) -> None:
        """Check that all arrays have one length."""
        lengths = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(lengths.values())) != 1:
            raise ValueError(f"the arrays of a WindowSet have different lengths: {lengths}")

    def __len__(self) -> int:
        return len(self.ieeg)

    @property
    def hours(self) -> float:
        """Duration without gaps, for windows at 40 Hz (`float`)."""
        return len(self) * self.ieeg.shape[1] / 40.0 / 3600.0

    def select(self, keep: np.ndarray) -> WindowSet:
        """Some of the windows.

        Args:
            keep (`np.ndarray`): a mask or positions.

        Returns:
            `WindowSet`: these windows.
        """
        return WindowSet(**{field.name: getattr(self, field.name)[keep] for field in fields(self)})

    def where(self, **values: str) -> WindowSet:
        """The windows with certain names.

        Args:
            **values (`str`): for example `split="train"`, `condition="ambient"`.

        Returns:
            `WindowSet`: these windows.

        Raises:
            ValueError: if none is left.
        """
        keep = np.ones(len(self), dtype=bool)
        for name, value in values.items():
            keep &= getattr(self, name) == value
        if not keep.any():
            raise ValueError(f"no window has {values}")
        return self.select(keep)

    def save(self, folder: str | Path) -> Path:
        """Write the arrays, the large ones so that they can be memory-mapped.

        Args:
            folder (`str`): destination.

        Returns:
            `Path`: the folder.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("ieeg", "targets", "speech", "start_s"):
            temporary = folder / f".{name}.npy.partial"
            with temporary.open("wb") as file:
                np.save(file, getattr(self, name))
            temporary.replace(folder / f"{name}.npy")
        names = ("participant", "session", "file", "split", "condition")
        write_json(folder / "windows.json", {name: getattr(self, name).tolist() for name in names})
        return folder

    @classmethod
    def load(cls, folder: str | Path) -> WindowSet:
        """Open what [`~WindowSet.save`] wrote; the iEEG stays on disk until it is used.

        Args:
            folder (`str`): where it lies.

        Returns:
            `WindowSet`: the windows.

        Raises:
            FileNotFoundError: if there is none.
        """
        import json

        folder = Path(folder)
        if not (folder / "windows.json").is_file():
            raise FileNotFoundError(f"{folder} holds no windows.json: make it with WindowSet.save")
        names = json.loads((folder / "windows.json").read_text(encoding="utf-8"))
        arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("ieeg", "targets")}
        arrays |= {name: np.load(folder / f"{name}.npy") for name in ("speech", "start_s")}
        return cls(**arrays, **{name: np.asarray(value) for name, value in names.items()})


def join_windows(parts: Sequence[WindowSet]) -> WindowSet:
    """Put sets of windows one after another.

    Args:
        parts (`Sequence[WindowSet]`): with equal window length, channels and features.

    Returns:
        `WindowSet`: all of them.
    """
    return WindowSet(
        **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(WindowSet)}
    )


def take_hours(windows: WindowSet, hours: float | None) -> WindowSet:
    """Whole files, evenly spread over the recording, until the hours are reached.

    Args:
        windows (`WindowSet`): of one participant.
        hours (`float`, *optional*): how many; None takes all.

    Returns:
        `WindowSet`: the windows of these files.

    Raises:
        ValueError: if there are fewer hours, or the hours are less than half a file.
    """
    if hours is None:
        return windows
    files = list(dict.fromkeys(windows.file.tolist()))
    wanted = round(hours / windows.hours * len(files))
    if not 1 <= wanted <= len(files):
        raise ValueError(
            f"{hours} of {windows.hours:.2f} hours in {len(files)} files is {wanted} files: choose 1 or more"
        )
    kept = [files[int(i)] for i in np.linspace(0, len(files) - 1, wanted).round()]
    return windows.select(np.isin(windows.file, kept))


def make_windows(
    segments: Iterable[Mapping[str, Any]],
    audio_features: Callable[[np.ndarray, int], tuple[np.ndarray, float]],
    window_s: float = 3.0,
    offset_s: float = 0.0,
) -> WindowSet:
    """Cut segments into windows and compute the audio features of each.

    Args:
        segments (`Iterable` of `dict`): aligned segments; a window never crosses the end of one.
        audio_features (callable): audio `(S,)` in -1..1 and its rate -> frames `(F, D)` and their rate in hertz; see
            `bit_speech.data.audio_features`. It sees one segment at a time.
        window_s (`float`): duration of a window in seconds.
        offset_s (`float`): the brain is read so much later than the sound (0.15 in related work; unknown here).

    Returns:
        `WindowSet`: all windows in order.

    Raises:
        ValueError: if no segment holds a window.
    """
    columns: dict[str, list[Any]] = {field.name: [] for field in fields(WindowSet)}
    for segment in segments:
        rate = float(segment["sampling_rate_hz"])
        bins, shift = round(window_s * rate), round(offset_s * rate)
        count = (len(segment["ieeg"]) - shift) // bins
        if count < 1:
            continue
        audio = np.asarray(segment["audio"], dtype=np.float32) / 32768.0
        frames, frame_rate = audio_features(audio, int(segment["audio_rate_hz"]))
        columns["ieeg"].append(segment["ieeg"][shift : shift + count * bins].reshape(count, bins, -1))
        columns["targets"].append(window_means(frames, frame_rate, window_s, count))
        columns["speech"].append(speech_share(audio, int(segment["audio_rate_hz"]), window_s, count))
        columns["start_s"].append(segment["start_s"] + window_s * np.arange(count))
        for name in ("participant", "session", "file"):
            columns[name].append(np.full(count, segment[f"{name}_id"]))
        for name in ("split", "condition"):
            columns[name].append(np.full(count, segment[name]))
    if not columns["ieeg"]:
        raise ValueError(f"no segment holds a window of {window_s} s")
    return WindowSet(**{name: np.concatenate(values) for name, values in columns.items()})


def load_segments(folder: str | Path) -> Iterable[Mapping[str, Any]]:
    """Read the segments that a converter wrote, one after another.

    Args:
        folder (`str`): with `data/*.parquet`.

    Yields:
        `dict`: rows of [`segment_features`], `ieeg` and `audio` as arrays.

    Raises:
        FileNotFoundError: if there are none.
    """
    import pyarrow.parquet as pq

    files = sorted(Path(folder).glob("data/*.parquet"))
    if not files:
        raise FileNotFoundError(f"{folder} holds no data/*.parquet: convert a corpus first (docs/ieeg_audio.md)")
    for path in files:
        for batch in pq.ParquetFile(path).iter_batches(batch_size=4):
            for row in batch.to_pylist():
                row["ieeg"] = np.asarray(row["ieeg"], dtype=np.float32)
                row["audio"] = np.asarray(row["audio"], dtype=np.int16)
                yield row


def _arrow_column(value: Any, kind: Any) -> Any:
    """A column of one row; arrays are not turned into Python numbers on the way."""
    import pyarrow as pa

    if isinstance(value, np.ndarray):
        flat = pa.array(value.ravel())
        for size in reversed(value.shape):
            flat = pa.ListArray.from_arrays(pa.array(np.arange(0, len(flat) + 1, size, dtype=np.int32)), flat)
        if isinstance(kind, pa.ExtensionType):
            return pa.ExtensionArray.from_storage(kind, flat.cast(kind.storage_type))
        return flat.cast(kind)
    return pa.array([value], kind)


def write_segments(path: str | Path, segments: Iterable[Mapping[str, Any]]) -> int:
    """Check segments and write them to a Parquet file, which appears under its name only when it is complete.

    Args:
        path (`str`): destination, ending in `.parquet`.
        segments (`Iterable` of `dict`): with equal channels; a few are in memory at a time.

    Returns:
        `int`: segments written.

    Raises:
        ValueError: if a segment is not valid, or there is none.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.partial")
    writer, count = None, 0
    try:
        for segment in segments:
            validate_segment(segment)
            features = segment_features(segment["ieeg"].shape[1])
            if writer is None:
                writer = pq.ParquetWriter(partial, features.arrow_schema, compression="zstd", compression_level=1)
            columns = [_arrow_column(segment[field.name], field.type) for field in features.arrow_schema]
            writer.write_table(pa.Table.from_arrays(columns, schema=features.arrow_schema))
            count += 1
        if writer is None:
            raise ValueError(f"{path.name} would hold no segment")
        writer.close()
        writer = None
        partial.replace(path)
    finally:
        if writer is not None:
            writer.close()
        partial.unlink(missing_ok=True)
    return count
