"""Looking things up by name in NPZ, HDF5 and NWB files, so that one reader serves all three."""

from __future__ import annotations

import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import h5py
import numpy as np

FORMATS: tuple[str, ...] = ("npz", "hdf5", "nwb")


class UnknownName(ValueError):
    """A file has nothing of that name; the message says what it has."""


class Recording(AbstractContextManager["Recording"], ABC):
    """An open file whose contents have names; use one of its subclasses, or [`open_recording`]."""

    @abstractmethod
    def get(self, name: str) -> Any:
        """Look something up.

        Args:
            name (`str`): what the file calls it.

        Returns:
            an array, something that gives arrays when sliced, or a single value.

        Raises:
            UnknownName: when the file has no such thing.
            ValueError: when it has, and it cannot be read.
        """

    def groups(self) -> Iterator[tuple[str, Recording]]:
        """Give the groups of the file, in order.

        Returns:
            `Iterator[tuple[str, Recording]]`: name and content of each group.

        Raises:
            ValueError: when the format has no groups.
        """
        raise ValueError("only HDF5 files have groups: use 'trials: file' or 'trials: interval'")

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""


def _missing(name: str, present: list[str]) -> UnknownName:
    return UnknownName(f"it has no {name!r}; it has {', '.join(sorted(present)) or 'nothing'}")


class NpzRecording(Recording):
    """An NPZ file: names are those given to `np.savez`.

    Args:
        path (`Path`): the file.
    """

    def __init__(self, path: Path) -> None:
        if not zipfile.is_zipfile(path):
            raise ValueError("it is no NPZ file, as np.savez writes them")
        self._file = np.load(path, allow_pickle=False)

    def get(self, name: str) -> Any:
        """Look an array up; see [`Recording.get`]."""
        if name not in self._file.files:
            raise _missing(name, list(self._file.files))
        try:
            return self._file[name]
        except ValueError as error:
            raise ValueError(
                f"{name!r} cannot be read ({error}): arrays of Python objects are not read, because that would run "
                "code; save text as np.array(list_of_str)"
            ) from error

    def __exit__(self, *exception: Any) -> None:
        """Close the file."""
        self._file.close()


class Hdf5Recording(Recording):
    """An HDF5 file: names are paths of datasets, or names of attributes of the file or the group.

    Args:
        group (`Path` or `h5py.Group`): the file, or a group of an open one.
        parent (`Hdf5Recording`, *optional*): where to look for what the group does not have.
    """

    def __init__(self, group: Path | h5py.Group, parent: Hdf5Recording | None = None) -> None:
        self._owned = not isinstance(group, h5py.Group)
        self._group = group if isinstance(group, h5py.Group) else h5py.File(group, "r")
        self._parent = parent

    def get(self, name: str) -> Any:
        """Look a dataset or an attribute up; see [`Recording.get`]."""
        found = self._group.get(name)
        if isinstance(found, h5py.Dataset):
            return found
        if name in self._group.attrs:
            return self._group.attrs[name]
        if self._parent is not None:
            return self._parent.get(name)
        present: list[str] = []
        self._group.visititems(lambda key, item: present.append(key) if isinstance(item, h5py.Dataset) else None)
        raise _missing(name, [*present, *(f"{key} (attribute)" for key in self._group.attrs)])

    def groups(self) -> Iterator[tuple[str, Recording]]:
        """Give the groups of the file in the order of their names; see [`Recording.groups`]."""
        for name, item in self._group.items():
            if isinstance(item, h5py.Group):
                yield name, Hdf5Recording(item, self)

    def __exit__(self, *exception: Any) -> None:
        """Close the file."""
        if self._owned:
            self._group.file.close()


class NwbRecording(Recording):
    """An NWB file, read by pynwb.

    A name is looked for among the columns of the trials table, then the time series (acquisition, then processing
    modules, as `module/interface` or the bare name), then `session_id` and `identifier`. `units` gives the spike times.

    Args:
        path (`Path`): the file.

    Raises:
        ImportError: when pynwb is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            from pynwb import NWBHDF5IO
        except ImportError as error:
            raise ImportError("NWB files need pynwb: pip install 'bit-speech[nwb]'") from error
        with ExitStack() as stack:
            io = stack.enter_context(NWBHDF5IO(str(path), mode="r", load_namespaces=True))
            self._nwb = io.read()
            self._stack = stack.pop_all()

    def _series(self) -> dict[str, Any]:
        found = {}
        for module_name, module in self._nwb.processing.items():
            for name, item in module.data_interfaces.items():
                found[f"{module_name}/{name}"] = item
                found.setdefault(name, item)
        found.update(self._nwb.acquisition)
        return {name: item for name, item in found.items() if hasattr(item, "data")}

    def get(self, name: str) -> Any:
        """Look a column, a time series or the session up; see [`Recording.get`] and the class."""
        trials = self._nwb.trials
        if trials is not None and name in trials.colnames:
            return np.asarray(trials[name].data[:])
        series = self._series()
        if name in series:
            return series[name].data
        if name in ("session_id", "identifier") and getattr(self._nwb, name, None):
            return getattr(self._nwb, name)
        columns = [] if trials is None else [f"{column} (trials)" for column in trials.colnames]
        raise _missing(name, [*columns, *series, "session_id", "identifier"])

    @property
    def num_trials(self) -> int:
        """Rows of the trials table (`int`); 0 without one."""
        return 0 if self._nwb.trials is None else len(self._nwb.trials)

    def times(self, name: str) -> np.ndarray:
        """Start of every sample of a time series.

        Args:
            name (`str`): the time series.

        Returns:
            `np.ndarray`: seconds, from its timestamps, or from its starting time and rate.

        Raises:
            ValueError: when there is no such series.
        """
        series = self._series().get(name)
        if series is None:
            raise _missing(name, list(self._series()))
        if series.timestamps is not None:
            return np.asarray(series.timestamps[:], dtype=np.float64)
        return series.starting_time + np.arange(len(series.data)) / series.rate

    def spike_counts(self, starts: np.ndarray, bin_size_s: float) -> np.ndarray:
        """Count the spikes of every unit in bins.

        Args:
            starts (`np.ndarray` of shape `(T,)`): start of every bin, seconds, increasing.
            bin_size_s (`float`): length of a bin, seconds.

        Returns:
            `np.ndarray` of shape `(T, units)`: counts, float32.

        Raises:
            ValueError: when the file has no units.
        """
        if self._nwb.units is None:
            raise ValueError("it has no units, so there are no spikes to count")
        units = [np.asarray(self._nwb.units["spike_times"][i]) for i in range(len(self._nwb.units))]
        counts = np.empty((len(starts), len(units)), dtype=np.float32)
        for unit, spikes in enumerate(units):
            spikes = np.sort(spikes)
            counts[:, unit] = np.searchsorted(spikes, starts + bin_size_s) - np.searchsorted(spikes, starts)
        return counts

    def __exit__(self, *exception: Any) -> None:
        """Close the file."""
        self._stack.close()


def open_recording(path: Path, file_format: str) -> Recording:
    """Open a file for looking things up.

    Args:
        path (`Path`): the file.
        file_format (`str`): `"npz"`, `"hdf5"` or `"nwb"`.

    Returns:
        `Recording`: to be used as a context manager.

    Raises:
        ValueError: when the format is unknown.
        OSError: when the file cannot be read.
    """
    if file_format not in FORMATS:
        raise ValueError(f"format {file_format!r} is unknown; choose one of {', '.join(FORMATS)}")
    return {"npz": NpzRecording, "hdf5": Hdf5Recording, "nwb": NwbRecording}[file_format](path)
