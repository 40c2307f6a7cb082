"""Writing trials: Parquet shards whose columns a reader gets back exactly, built from arrays without copying rows."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash

from bit_speech.data.schema import trial_features, validate_trial

COMPRESSIONS: tuple[str, ...] = ("lz4", "zstd", "snappy", "none")

# Large enough that a row group amortises its overhead, small enough that reading one needs little memory.
_ROW_GROUP_BYTES = 16 * 2**20
_REPEATED_COLUMNS = ("participant_id", "session_id", "split", "species", "task", "source", "licence")


@dataclass(frozen=True)
class ShardSummary:
    """What a shard holds.

    Attributes:
        num_trials (`int`): its trials.
        num_bins (`int`): time bins of all of them.
        num_bytes (`int`): size of the file.
        xxh3_128 (`str`): hash of the file, from [`file_hash`].
    """

    num_trials: int
    num_bins: int
    num_bytes: int
    xxh3_128: str


def file_hash(path: str | os.PathLike[str]) -> str:
    """Hash a file, to notice when it changes or is damaged.

    Args:
        path (`str`): a file of any size.

    Returns:
        `str`: XXH3-128, hexadecimal.

    Note:
        No defence against forgery. A cryptographic hash of everything read and written took a fifth of the time of a
        conversion; this one takes none that can be measured.
    """
    digest = xxhash.xxh3_128()
    buffer = memoryview(bytearray(2**20))
    with open(path, "rb", buffering=0) as file:
        while count := file.readinto(buffer):
            digest.update(buffer[:count])
    return digest.hexdigest()


class ShardWriter:
    """Writes one Parquet file of trials; the file appears under its name only when it is complete.

    Use it as a context manager: leaving the block completes the file, an exception discards it.

    Args:
        path (`str`): destination, ending in `.parquet`. While it is written, it is `.<name>.partial` beside it.
        num_channels (`int`): feature channels C of every trial.
        compression (`str`, defaults to `"lz4"`): `"lz4"`, `"zstd"` (smaller, slower), `"snappy"` or `"none"`.
        require_text (`bool`, defaults to False): refuse trials without text.

    Raises:
        ValueError: when the compression is unknown.

    Example:
        ```python
        with ShardWriter("out/data/train-p1.2024.01.01.parquet", num_channels=256) as writer:
            for trial in trials:
                writer.add(trial)
        print(writer.summary)
        ```
    """

    def __init__(
        self, path: str | os.PathLike[str], num_channels: int, compression: str = "lz4", require_text: bool = False
    ) -> None:
        if compression not in COMPRESSIONS:
            raise ValueError(f"compression {compression!r} is unknown; choose one of {', '.join(COMPRESSIONS)}")
        self.path = Path(path)
        self.num_channels = num_channels
        self.summary: ShardSummary | None = None
        self._require_text = require_text
        features = trial_features(num_channels)
        self._schema = features.arrow_schema
        self._features_type = self._schema.field("features").type
        self._partial = self.path.with_name(f".{self.path.name}.partial")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._writer: pq.ParquetWriter | None = pq.ParquetWriter(
            self._partial,
            self._schema,
            compression=compression,
            compression_level=1 if compression == "zstd" else None,
            # Recorded floats do not repeat enough for a dictionary; the names of things do.
            use_dictionary=[*_REPEATED_COLUMNS, "feature_kinds.list.element", "channel_areas.list.element"],
            write_statistics=["session_id", "block_index", "trial_index", "split"],
        )
        self._rows: list[Mapping[str, Any]] = []
        self._buffered_bytes = 0
        self._num_trials = 0
        self._num_bins = 0
        self._names: dict[tuple[str, ...], pa.Array] = {}

    def add(self, trial: Mapping[str, Any]) -> None:
        """Check a trial and add it.

        Args:
            trial (`dict`): one row with the columns of [`~bit_speech.data.schema.trial_features`]. Its `features` must
                not be changed afterwards.

        Raises:
            ValueError: naming the trial, when it is not valid.
        """
        validate_trial(trial, self.num_channels, self._require_text)
        self._rows.append(trial)
        self._buffered_bytes += trial["features"].nbytes
        if self._buffered_bytes >= _ROW_GROUP_BYTES:
            self._write_rows()

    def close(self) -> ShardSummary:
        """Write what is left and give the file its name.

        Returns:
            `ShardSummary`: what the file holds.

        Raises:
            ValueError: when it holds no trial.
        """
        if self._writer is None:
            raise ValueError(f"{self.path.name} is closed already")
        self._write_rows()
        if not self._num_trials:
            self.discard()
            raise ValueError(f"{self.path.name} would hold no trial")
        self._writer.close()
        self._writer = None
        summary = ShardSummary(self._num_trials, self._num_bins, self._partial.stat().st_size, file_hash(self._partial))
        os.replace(self._partial, self.path)
        self.summary = summary
        return summary

    def discard(self) -> None:
        """Give up the file: nothing stays on disk."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None
        self._partial.unlink(missing_ok=True)

    def __enter__(self) -> ShardWriter:
        """Begin to write."""
        return self

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        """Complete the file, or discard it after an exception."""
        if kind is None:
            self.close()
        else:
            self.discard()

    def _write_rows(self) -> None:
        if not self._rows or self._writer is None:
            return
        arrays = [self._column(name) for name in self._schema.names]
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        self._writer.write_table(table, row_group_size=len(self._rows))
        self._num_trials += len(self._rows)
        self._num_bins += sum(len(row["features"]) for row in self._rows)
        self._rows = []
        self._buffered_bytes = 0

    def _column(self, name: str) -> pa.Array:
        values = [row[name] for row in self._rows]
        if name == "features":
            return self._features(values)
        if name in ("feature_kinds", "channel_areas"):
            return self._name_lists(values)
        return pa.array(values, type=self._schema.field(name).type)

    def _features(self, arrays: Sequence[np.ndarray]) -> pa.Array:
        bins = np.array([len(array) for array in arrays])
        values = np.concatenate([np.ascontiguousarray(array).reshape(-1) for array in arrays])
        bin_offsets = np.arange(bins.sum() + 1, dtype=np.int32) * np.int32(self.num_channels)
        trial_offsets = np.concatenate([[0], np.cumsum(bins)]).astype(np.int32)
        rows = pa.ListArray.from_arrays(pa.array(bin_offsets), pa.array(values))
        storage = pa.ListArray.from_arrays(pa.array(trial_offsets), rows)
        return pa.ExtensionArray.from_storage(self._features_type, storage)

    def _name_lists(self, lists: Sequence[Sequence[str]]) -> pa.Array:
        parts = []
        for names in lists:
            key = tuple(names)
            if key not in self._names:
                self._names[key] = pa.array(key, type=pa.string())
            parts.append(self._names[key])
        offsets = np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int32)
        return pa.ListArray.from_arrays(pa.array(offsets), pa.concat_arrays(parts))


def read_identities(path: str | os.PathLike[str]) -> list[tuple[str, str, int, str | None]]:
    """Read who is who in a shard, without its features.

    Args:
        path (`str`): a shard.

    Returns:
        `list[tuple[str, str, int, str | None]]`: split, session, block and text of every trial.
    """
    table = pq.read_table(path, columns=["split", "session_id", "block_index", "text"])
    return list(zip(*(table.column(name).to_pylist() for name in ("split", "session_id", "block_index", "text"))))


def dataset_card(
    *,
    title: str,
    licence: str,
    description: str,
    num_channels: int,
    splits: Mapping[str, Mapping[str, int]],
    notes: Sequence[str] = (),
) -> str:
    """Write the dataset card: for people, and for `load_dataset`, which takes splits and column types from it.

    Args:
        title (`str`): name of the dataset.
        licence (`str`): SPDX identifier, such as `"CC0-1.0"`, or `"unknown"`.
        description (`str`): where the recordings come from, with their DOI.
        num_channels (`int`): feature channels C.
        splits (`dict[str, dict[str, int]]`): split -> `num_trials`, `num_bins`, `num_sessions`, `num_bytes`.
        notes (`list[str]`): paragraphs to end with.

    Returns:
        `str`: content of `README.md`.
    """
    columns = [_card_column(name, feature) for name, feature in trial_features(num_channels).to_dict().items()]
    uncompressed = {name: counts["num_bins"] * num_channels * 4 for name, counts in splits.items()}
    metadata: dict[str, Any] = {
        "license": licence.lower() if licence.lower() != "unknown" else "unknown",
        "pretty_name": title,
        "tags": ["brain-computer-interface", "speech", "neural-recordings"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [{"split": name, "path": f"data/{name}-*.parquet"} for name in splits],
            }
        ],
        "dataset_info": {
            "config_name": "default",
            "features": columns,
            "splits": [
                {"name": name, "num_bytes": uncompressed[name], "num_examples": counts["num_trials"]}
                for name, counts in splits.items()
            ],
            "download_size": sum(counts["num_bytes"] for counts in splits.values()),
            "dataset_size": sum(uncompressed.values()),
        },
    }
    # JSON is YAML, and it is written the same way by every version of every library.
    header = "\n".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in metadata.items())
    table = "\n".join(
        f"| {name} | {counts['num_trials']:,} | {counts['num_sessions']} | {counts['num_bins']:,} |"
        for name, counts in splits.items()
    )
    paragraphs = [
        f"---\n{header}\n---\n\n# {title}",
        description,
        f"| split | trials | sessions | bins |\n|---|---|---|---|\n{table}",
        f"""One row is one trial. `features` is float32 of shape (bins, {num_channels}), time first, as in the source:
nothing was normalised, smoothed or cut here. `feature_kinds` and `channel_areas` name every channel; `phonemes` are
ARPAbet without stress, with `SIL` after every word; `text` and `phonemes` are null where the source gives none.

```python
from bit_speech.data import load_trials
trials = load_trials("this folder")            # or datasets.load_dataset("this folder").with_format("numpy")
trials["{next(iter(splits))}"][0]["features"].shape
```""",
        *notes,
    ]
    return "\n\n".join(paragraphs) + "\n"


def _card_column(name: str, feature: Mapping[str, Any]) -> dict[str, Any]:
    kind = feature["_type"]
    if kind == "List":
        return {"name": name, "list": feature["feature"]["dtype"]}
    if kind == "Array2D":
        return {"name": name, "dtype": {"array2_d": {"shape": list(feature["shape"]), "dtype": feature["dtype"]}}}
    return {"name": name, "dtype": feature["dtype"]}
