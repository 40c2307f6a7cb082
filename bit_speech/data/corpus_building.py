"""Building the store of a pretraining corpus: Parquet shards once in, memory-mapped arrays out."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from filelock import FileLock, Timeout
from safetensors.numpy import save_file

from bit_speech.data.reading import arrays_of
from bit_speech.data.schema import SPLITS, THRESHOLD_CROSSINGS
from bit_speech.data.statistics import RunningStatistics
from bit_speech.data.writing import file_hash
from bit_speech.files import write_json

CORPUS_NAME = "corpus.json"
CORPUS_VERSION = 1
NORMALIZATIONS = ("block", "session", "none")
_IDENTITY = ("participant_id", "session_id", "block_index", "trial_index", "split", "bin_size_ms")
_FACTS = ("species", "task", "source", "licence")
# Rounding to float16 must stay below this share of a channel's standard deviation.
_MAX_ROUNDING = 0.01
_HALF_STEP = 2.0**-11


@dataclass(frozen=True)
class CorpusSource:
    """A converted folder of trials that takes part in a corpus.

    Args:
        folder (`str`): what a converter wrote. Every participant in it becomes a dataset of its own.
        name (`str`, *optional*): what the participant is called in the corpus; for a folder with one participant.
            Default: its own name. Two folders of one participant share its read-in when they agree in channels.
        weight (`float`, defaults to 1.0): how often it is drawn, relative to the share that the mixing rule gives it.

    Raises:
        ValueError: when the weight is not positive.
    """

    folder: str | os.PathLike[str]
    name: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        """Refuse a weight that draws nothing."""
        if not 0 < self.weight < float("inf"):
            raise ValueError(f"{self.folder}: weight is {self.weight!r}; it must be positive (or leave the source out)")


def build_corpus(
    sources: Sequence[CorpusSource],
    output_dir: str | os.PathLike[str],
    *,
    feature_kinds: Sequence[str] = (THRESHOLD_CROSSINGS,),
    normalization: str = "block",
    segment_s: float = 30.0,
    overlap_s: float = 0.0,
    include_held_out: bool = False,
) -> Path:
    """Turn converted folders into a memory-mapped store, dataset by dataset.

    A dataset that is stored already, from the same shards and with the same settings, is kept; so a build that was
    stopped goes on where it was. A file appears under its name only when it is complete.

    Args:
        sources (`list[CorpusSource]`): what to mix.
        output_dir (`str`): folder of the store; `corpus.json` is written last.
        feature_kinds (`list[str]`, defaults to threshold crossings): channels to keep. Many recordings have no
            spike-band power, and a body that is to serve all of them learns from what all have.
        normalization (`str`, defaults to `"block"`): over which trials a z-score is taken: `"block"`, `"session"`, or
            `"none"` for features that are normalised already. The statistics are stored beside the raw values and
            applied on reading; only trials of the corpus count.
        segment_s (`float`, defaults to 30): longer recordings are cut into equal pieces of at most this many seconds.
        overlap_s (`float`, defaults to 0): what neighbouring pieces share, in seconds.
        include_held_out (`bool`, defaults to False): also take the trials of the validation and test splits. Recorded
            in the manifest, because accuracy on those splits then means less.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: for a folder that is no dataset of trials, a participant without such channels, channels or bin
            sizes that disagree, two datasets of one name, or a setting out of range.
        FileNotFoundError: when a folder does not exist.
        FileExistsError: when another process is building there.

    Note:
        Values are stored as uint8 when all of them are whole numbers from 0 to 255 (threshold crossings in 20 ms are);
        else as float16 when its rounding stays below a hundredth of every channel's standard deviation; else as
        float32. How the published corpus was cut, and whether held-out trials were in it, is not known (Zhang, He et
        al. 2025, arXiv 2511.21740).
    """
    if not sources:
        raise ValueError("no sources: give at least one converted folder")
    if normalization not in NORMALIZATIONS:
        raise ValueError(f"normalization must be one of {', '.join(NORMALIZATIONS)}, got {normalization!r}")
    if not 0 <= overlap_s < segment_s:
        raise ValueError(f"overlap_s={overlap_s} must be at least 0 and below segment_s={segment_s}")
    settings = {
        "corpus_version": CORPUS_VERSION,
        "feature_kinds": list(feature_kinds),
        "normalization": normalization,
        "segment_s": float(segment_s),
        "overlap_s": float(overlap_s),
        "splits": list(SPLITS) if include_held_out else ["train"],
    }
    folder = Path(output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".corpus.lock", timeout=0):
            return _build(sources, folder, settings)
    except Timeout:
        raise FileExistsError(f"another process is building {str(folder)!r}; wait for it to end") from None


def _build(sources: Sequence[CorpusSource], folder: Path, settings: dict[str, Any]) -> Path:
    entries: list[dict[str, Any]] = []
    for source in sources:
        for participant, shards in _shards_by_participant(Path(source.folder), settings["splits"], source.name).items():
            dataset = f"{Path(source.folder).resolve().name}.{participant}"
            if any(entry["dataset"] == dataset for entry in entries):
                raise ValueError(f"two sources would both be the dataset {dataset!r}: give their folders other names")
            fingerprint = {
                **settings,
                "shards": [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in shards],
            }
            entry = _stored_entry(folder, dataset, fingerprint)
            if entry is None:
                entry = _store(folder, dataset, participant, shards, settings)
                write_json(folder / f"{dataset}.json", {"fingerprint": fingerprint, **entry})
            entries.append({**entry, "participant": source.name or participant, "weight": source.weight})
    _check_agreement(entries)
    write_json(folder / CORPUS_NAME, {**settings, "datasets": entries})
    return folder


def _shards_by_participant(folder: Path, splits: Sequence[str], name: str | None) -> dict[str, list[Path]]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: convert recordings first (bit-speech convert --help)")
    if not (folder / "README.md").is_file():
        raise ValueError(f"{str(folder)!r} has no README.md: it is no finished conversion; run the converter again")
    shards = [path for path in sorted((folder / "data").glob("*.parquet")) if path.name.split("-", 1)[0] in splits]
    if not shards:
        raise ValueError(
            f"{str(folder)!r} holds no shards of the split(s) {', '.join(splits)}: convert them, leave the source out, "
            "or pass include_held_out=True"
        )
    found: dict[str, list[Path]] = {}
    for path in shards:
        for participant in sorted(set(pq.read_table(path, columns=["participant_id"]).column(0).to_pylist())):
            found.setdefault(participant, []).append(path)
    if name is not None and len(found) > 1:
        raise ValueError(
            f"{str(folder)!r} holds the participants {', '.join(found)}: a source with a name must hold only one"
        )
    return dict(sorted(found.items()))


def _stored_entry(folder: Path, dataset: str, fingerprint: Mapping[str, Any]) -> dict[str, Any] | None:
    path = folder / f"{dataset}.json"
    if not path.is_file():
        return None
    entry = json.loads(path.read_text(encoding="utf-8"))
    if entry.pop("fingerprint") != fingerprint:
        return None
    for kind in ("values", "index"):
        file = folder / entry[kind]["file"]
        if not file.is_file() or file_hash(file) != entry[kind]["xxh3_128"]:
            return None
    return entry


def _check_agreement(entries: Sequence[Mapping[str, Any]]) -> None:
    first: dict[str, Mapping[str, Any]] = {}
    for entry in entries:
        if entry["bin_size_ms"] != entries[0]["bin_size_ms"]:
            raise ValueError(
                f"dataset {entry['dataset']!r} has bins of {entry['bin_size_ms']:g} ms, {entries[0]['dataset']!r} of "
                f"{entries[0]['bin_size_ms']:g} ms: convert both to one bin size"
            )
        same = first.setdefault(entry["participant"], entry)
        if same["num_channels"] != entry["num_channels"]:
            raise ValueError(
                f"participant {entry['participant']!r} has {same['num_channels']} channels in {same['dataset']!r} but "
                f"{entry['num_channels']} in {entry['dataset']!r}: give one of the sources another name"
            )


def read_shard(
    path: str | os.PathLike[str], feature_kinds: Sequence[str], participant: str | None = None
) -> Iterator[dict[str, Any]]:
    """Read the trials of a shard in order, with the chosen channels only and one row group in memory at a time.

    Args:
        path (`str`): a Parquet shard of trials.
        feature_kinds (`list[str]`): kinds of channel to keep.
        participant (`str`, *optional*): only trials of this participant.

    Yields:
        `dict`: identity columns, `species`, `task`, `source`, `licence`, and `features` (float32, `(T, C)`).

    Raises:
        ValueError: when it has no channel of these kinds.
    """
    columns = [*_IDENTITY, *_FACTS, "feature_kinds", "features"]
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            yield from table_trials(file.read_row_group(group, columns=columns), feature_kinds, str(path), participant)


def table_trials(
    table: pa.Table, feature_kinds: Sequence[str], name: str, participant: str | None = None
) -> Iterator[dict[str, Any]]:
    """Decode trials of an Arrow table, with the chosen channels only.

    Args:
        table (`pyarrow.Table`): rows with the columns of a trial; all with the same channels.
        feature_kinds (`list[str]`): kinds of channel to keep.
        name (`str`): what messages call the table.
        participant (`str`, *optional*): only trials of this participant.

    Yields:
        `dict`: as [`read_shard`].

    Raises:
        ValueError: when there is no channel of these kinds, or the trials differ in their channels.
    """
    if not table.num_rows:
        return
    kinds = table.column("feature_kinds").combine_chunks()
    first = kinds[0].as_py()
    flat = kinds.flatten()
    if len(flat) != len(first) * table.num_rows or not pc.all(pc.equal(flat, pa.array(first * table.num_rows))).as_py():
        raise ValueError(f"{name}: trials of one shard differ in feature_kinds; convert them into separate folders")
    keep = np.flatnonzero(np.isin(first, list(feature_kinds)))
    if not len(keep):
        raise ValueError(
            f"{name}: no channel is of the kind(s) {', '.join(feature_kinds)}; it has {', '.join(sorted(set(first)))}"
        )
    # A range of channels is a view; anything else is a copy.
    chosen: Any = slice(int(keep[0]), int(keep[-1]) + 1) if len(keep) == keep[-1] - keep[0] + 1 else keep
    rows = table.select([*_IDENTITY, *_FACTS]).to_pylist()
    features = (array for chunk in table.column("features").chunks for array in arrays_of(chunk, len(first)))
    for row, array in zip(rows, features, strict=True):
        if participant is None or row["participant_id"] == participant:
            yield {**row, "features": array[:, chosen]}


@dataclass
class _Survey:
    """What a first look at a dataset says."""

    groups: dict[tuple[str, int], RunningStatistics]
    facts: dict[str, list[str]]
    bin_size_ms: float
    is_count: bool
    largest: float

    def dtype(self) -> str:
        """Smallest type that holds the values."""
        if self.is_count:
            return "uint8"
        live = np.concatenate([group.std[group.std > 0] for group in self.groups.values()])
        fits = self.largest < float(np.finfo(np.float16).max)
        return "float16" if fits and self.largest * _HALF_STEP <= _MAX_ROUNDING * live.min(initial=1.0) else "float32"


def _group_of(trial: Mapping[str, Any], normalization: str) -> tuple[str, int]:
    return (str(trial["session_id"]), int(trial["block_index"]) if normalization == "block" else -1)


def _survey(shards: Sequence[Path], participant: str, settings: Mapping[str, Any], dataset: str) -> _Survey:
    groups: dict[tuple[str, int], RunningStatistics] = {}
    facts: dict[str, set[str]] = {name: set() for name in _FACTS}
    sizes: set[float] = set()
    is_count, largest = True, 0.0
    for path in shards:
        for trial in read_shard(path, settings["feature_kinds"], participant):
            features = trial["features"]
            group = groups.setdefault(_group_of(trial, settings["normalization"]), RunningStatistics())
            try:
                group.add(features)
            except ValueError as error:
                raise ValueError(f"dataset {dataset!r}, {path.name}: {error}") from error
            low, high = float(features.min()), float(features.max())
            if not (np.isfinite(low) and np.isfinite(high)):
                raise ValueError(
                    f"dataset {dataset!r}, {path.name}: trial {trial['trial_index']} of block {trial['block_index']} "
                    "holds NaN or infinity; convert the recording again"
                )
            largest = max(largest, -low, high)
            is_count = is_count and low >= 0 and high <= 255 and bool((features == features.astype(np.uint8)).all())
            sizes.add(float(trial["bin_size_ms"]))
            for name in _FACTS:
                facts[name].add(str(trial[name]))
    if len(sizes) > 1:
        raise ValueError(f"dataset {dataset!r} has bins of {sorted(sizes)} ms: convert it to one bin size")
    channels = {len(group.mean) for group in groups.values()}
    if len(channels) > 1:
        raise ValueError(f"dataset {dataset!r} has sessions of {sorted(channels)} channels: convert them separately")
    return _Survey(groups, {name: sorted(values) for name, values in facts.items()}, sizes.pop(), is_count, largest)


def cut(num_bins: int, segment_bins: int, overlap_bins: int = 0) -> list[tuple[int, int]]:
    """Cut a recording into pieces of nearly equal length, so that no scrap is left at its end.

    Args:
        num_bins (`int`): bins of the recording.
        segment_bins (`int`): longest piece.
        overlap_bins (`int`): bins that neighbouring pieces share at least.

    Returns:
        `list[tuple[int, int]]`: first bin and number of bins of each piece; together they cover the recording.

    Example:
        >>> cut(10, 4), cut(10, 4, 1)
        ([(0, 3), (3, 4), (7, 3)], [(0, 4), (3, 4), (6, 4)])
    """
    if num_bins <= segment_bins:
        return [(0, num_bins)]
    pieces = -(-(num_bins - overlap_bins) // (segment_bins - overlap_bins))
    edges = np.round(np.linspace(0, num_bins - overlap_bins, pieces + 1)).astype(int)
    return [(int(a), int(b - a) + overlap_bins) for a, b in zip(edges[:-1], edges[1:])]


def _store(
    folder: Path, dataset: str, participant: str, shards: Sequence[Path], settings: Mapping[str, Any]
) -> dict[str, Any]:
    survey = _survey(shards, participant, settings, dataset)
    keys = list(survey.groups)
    position = {key: number for number, key in enumerate(keys)}
    sessions = sorted({session for session, _ in keys})
    bin_s = survey.bin_size_ms / 1000
    segment_bins = max(1, round(settings["segment_s"] / bin_s))
    overlap_bins = min(round(settings["overlap_s"] / bin_s), segment_bins - 1)
    columns: dict[str, list[int]] = {
        name: [] for name in ("start", "num_bins", "group", "session", "block_index", "trial_index")
    }
    values_path, index_path = folder / f"{dataset}.{survey.dtype()}.bin", folder / f"{dataset}.index.safetensors"
    total, trials = 0, 0
    partial = values_path.with_name(f".{values_path.name}.partial")
    with partial.open("wb") as file:
        for path in shards:
            for trial in read_shard(path, settings["feature_kinds"], participant):
                np.ascontiguousarray(trial["features"], dtype=survey.dtype()).tofile(file)
                for first, length in cut(len(trial["features"]), segment_bins, overlap_bins):
                    columns["start"].append(total + first)
                    columns["num_bins"].append(length)
                    columns["group"].append(position[_group_of(trial, settings["normalization"])])
                    columns["session"].append(sessions.index(str(trial["session_id"])))
                    columns["block_index"].append(int(trial["block_index"]))
                    columns["trial_index"].append(int(trial["trial_index"]))
                total += len(trial["features"])
                trials += 1
    num_channels = len(survey.groups[keys[0]].mean)
    if settings["normalization"] == "none":
        mean, std = np.zeros((len(keys), num_channels)), np.ones((len(keys), num_channels))
    else:
        mean = np.stack([survey.groups[key].mean for key in keys])
        std = np.stack([survey.groups[key].std for key in keys])
    index = {name: np.array(column, dtype=np.int64) for name, column in columns.items()}
    index |= {"mean": mean.astype(np.float32), "std": std.astype(np.float32)}
    index_partial = index_path.with_name(f".{index_path.name}.partial")
    save_file(index, index_partial)
    os.replace(partial, values_path)
    os.replace(index_partial, index_path)
    return {
        "dataset": dataset,
        "participant": participant,
        **{name: ", ".join(values) for name, values in survey.facts.items()},
        "num_channels": num_channels,
        "num_trials": trials,
        "num_segments": len(columns["start"]),
        "num_bins": total,
        "bin_size_ms": survey.bin_size_ms,
        "hours": total * bin_s / 3600,
        "dtype": survey.dtype(),
        "exact": survey.dtype() != "float16",
        "sessions": sessions,
        "values": {
            "file": values_path.name,
            "num_bytes": values_path.stat().st_size,
            "xxh3_128": file_hash(values_path),
        },
        "index": {"file": index_path.name, "num_bytes": index_path.stat().st_size, "xxh3_128": file_hash(index_path)},
    }
