"""Reading datasets of trials: from a converted folder to rows and arrays, without a copy."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from bit_speech.data.schema import SPLITS, TRIAL_COLUMNS


def load_trials(
    folder: str | os.PathLike[str], split: str | None = None, *, cache_dir: str | os.PathLike[str] | None = None
) -> datasets.Dataset | datasets.DatasetDict:
    """Open a converted folder of trials.

    Args:
        folder (`str`): what a converter wrote: `README.md` and `data/*.parquet`. (A dataset on the Hub:
            `datasets.load_dataset(name).with_format("numpy")`.)
        split (`str`, *optional*): `"train"`, `"validation"` or `"test"`; default all of them.
        cache_dir (`str`, *optional*): where `datasets` keeps the memory-mapped Arrow copy of the Parquet files; default
            its own cache. It takes as much disk as the uncompressed features, and is made once.

    Returns:
        `datasets.Dataset` (one split) or `datasets.DatasetDict` (all): in numpy format, `features` as float32 `(T, C)`.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no converted trials.
        ValueError: when the split does not exist, or the folder holds something other than trials.

    Example:
        ```python
        trials = load_trials("runs/t15")
        trials["train"][0]["features"].shape  # (T, 512)
        ```
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: convert recordings first (bit-speech convert --help)")
    if not any((folder / "data").glob("*.parquet")):
        raise FileNotFoundError(f"{str(folder)!r} holds no data/*.parquet: it is not the output of a converter")
    if not (folder / "README.md").is_file():
        raise FileNotFoundError(
            f"{str(folder)!r} has shards but no README.md: the conversion did not finish; run the same command again"
        )
    if split is not None:
        present = sorted({path.name.split("-", 1)[0] for path in (folder / "data").glob("*.parquet")}, key=_split_order)
        if split not in present:
            raise ValueError(f"no split {split!r} in {str(folder)!r}; it has {', '.join(present)}")
    trials = datasets.load_dataset(str(folder), split=split, cache_dir=None if cache_dir is None else str(cache_dir))
    for part in trials.values() if isinstance(trials, datasets.DatasetDict) else (trials,):
        missing = [column for column in TRIAL_COLUMNS if column not in part.column_names]
        if missing:
            raise ValueError(f"{str(folder)!r} is no dataset of trials: it lacks the column(s) {', '.join(missing)}")
    return trials.with_format("numpy")


def _split_order(name: str) -> tuple[int, str]:
    return (SPLITS.index(name) if name in SPLITS else len(SPLITS), name)


class TrialReader:
    """Rows of a dataset of trials, decoded without a copy: the fast way into a data loader.

    A row is the dictionary that the dataset itself gives, with two differences: `features` is a read-only view into the
    memory-mapped file (copy it before writing into it), and the two per-channel name columns are decoded once per
    distinct value instead of once per row, which costs the stock path more time than the features do.

    Args:
        dataset (`datasets.Dataset`): trials, from [`load_trials`]; `select`, `filter` and `shuffle` are respected.
        columns (`list[str]`, *optional*): columns to give; default all that the dataset has.

    Raises:
        ValueError: when a column does not exist, or `features` is not a two-dimensional float32 column.

    Example:
        ```python
        reader = TrialReader(load_trials("runs/t15", "train"))
        reader[0]["features"].shape, len(reader)
        ```
    """

    def __init__(self, dataset: datasets.Dataset, columns: Sequence[str] | None = None) -> None:
        names = list(dataset.column_names) if columns is None else list(columns)
        unknown = [name for name in names if name not in dataset.column_names]
        if unknown:
            raise ValueError(f"no column(s) {', '.join(unknown)}; the dataset has {', '.join(dataset.column_names)}")
        feature = dataset.features.get("features")
        if not isinstance(feature, datasets.Array2D) or feature.dtype != "float32":
            raise ValueError(f"column 'features' is {feature!r}; expected Array2D((None, C), 'float32')")
        self.columns = names
        self.num_channels = int(feature.shape[1])
        self._dataset = dataset.with_format("arrow", columns=names)
        self._names: dict[bytes, list[str]] = {}

    def __len__(self) -> int:
        return len(self._dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Decode one row.

        Args:
            index (`int`): position, counted from the end when negative.

        Returns:
            `dict`: the row; see the class.
        """
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"trial {index} of a dataset of {len(self)}")
        return self._rows(self._dataset[index % len(self)])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Decode several rows at once (a data loader calls this with a batch of positions).

        Args:
            indices (`list[int]`): positions.

        Returns:
            `list[dict]`: the rows, in the order asked for.
        """
        return self._rows(self._dataset[[int(index) for index in indices]])

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Give every row in order."""
        for start in range(0, len(self), 16):
            yield from self._rows(self._dataset[start : start + 16])

    def _rows(self, table: pa.Table) -> list[dict[str, Any]]:
        columns = [self._decode(name, table.column(name)) for name in self.columns]
        return [dict(zip(self.columns, values)) for values in zip(*columns)]

    def _decode(self, name: str, column: pa.ChunkedArray) -> list[Any]:
        if name == "features":
            return [array for chunk in column.chunks for array in arrays_of(chunk, self.num_channels)]
        if pa.types.is_list(column.type) and pa.types.is_string(column.type.value_type):
            return [self._decode_names(chunk[i]) for chunk in column.chunks for i in range(len(chunk))]
        return column.to_pylist()

    def _decode_names(self, value: pa.ListScalar) -> list[str]:
        strings = value.values
        # The characters and where the names end: equal for equal lists, and read without making Python strings.
        offsets = np.frombuffer(strings.buffers()[1], dtype=np.int32)[
            strings.offset : strings.offset + len(strings) + 1
        ]
        characters = strings.buffers()[2]
        content = b"" if characters is None else characters[int(offsets[0]) : int(offsets[-1])].to_pybytes()
        key = (offsets - offsets[0]).tobytes() + content
        if key not in self._names:
            self._names[key] = strings.to_pylist()
        return self._names[key]


def arrays_of(chunk: pa.Array, num_channels: int) -> Iterator[np.ndarray]:
    """Give the features of each trial in a piece of the column `features`, without a copy.

    Args:
        chunk (`pyarrow.Array`): `Array2D` values, or their storage.
        num_channels (`int`): feature channels C.

    Yields:
        `np.ndarray` of shape `(T, C)`: float32, read-only.
    """
    storage = chunk.storage if isinstance(chunk, pa.ExtensionArray) else chunk
    offsets = storage.offsets.to_numpy()
    # The child arrays are the whole file's; the offsets, not the arrays, know which trials were asked for.
    rows = storage.values
    starts = rows.offsets.to_numpy()
    values = rows.values.to_numpy(zero_copy_only=True)
    for begin, end in zip(offsets[:-1], offsets[1:]):
        yield values[starts[begin] : starts[end]].reshape(int(end - begin), num_channels)
