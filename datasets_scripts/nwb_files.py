"""What the converters read in NWB files (version 2), by h5py, so that only what is asked for is loaded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from datasets_scripts.spikes import merge_units

_ELECTRODES = "general/extracellular_ephys/electrodes"
# What a description of a place says -> the name of the area.
_AREAS = (
    (r"\bpmd\b|dorsal,? pre-?motor", "PMd"),
    (r"\bm1\b|primary motor", "M1"),
    (r"\barea 2\b", "area2"),
    (r"\bs1\b|somatosensory", "S1"),
)


@contextmanager
def open_nwb(path: Path) -> Iterator[h5py.File]:
    """Open an NWB file.

    Args:
        path (`Path`): the file.

    Yields:
        `h5py.File`: open for reading.

    Raises:
        ValueError: when it is no NWB file of version 2.
    """
    with h5py.File(path, "r") as file:
        version = text(file.attrs.get("nwb_version", "none"))
        if not version.startswith("2."):
            raise ValueError(f"it is no NWB file of version 2 (nwb_version: {version})")
        yield file


def need(group: h5py.Group, name: str) -> Any:
    """Look something up.

    Args:
        group (`h5py.Group`): where to look.
        name (`str`): path below it.

    Returns:
        `h5py.Dataset` or `h5py.Group`: what is there.

    Raises:
        ValueError: when it is not there; the message says what is.
    """
    found = group.get(name)
    if found is not None:
        return found
    parent, _, _ = name.rpartition("/")
    while parent and parent not in group:
        parent = parent.rpartition("/")[0]
    present = ", ".join(sorted(group[parent] if parent else group)) or "nothing"
    raise ValueError(f"it has no {name!r}; {parent or 'the file'} holds {present}")


def text(value: Any) -> str:
    """Give a stored string as text.

    Args:
        value: bytes, a string, or a scalar array of one.

    Returns:
        `str`: the text.
    """
    value = value.item() if isinstance(value, np.ndarray) else value
    return value.decode("utf-8") if isinstance(value, bytes) else str(value)


def subject(file: h5py.File) -> str:
    """Name of the participant.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `str`: its subject, in lower case, with `_` for blanks.
    """
    return re.sub(r"\s+", "_", text(need(file, "general/subject/subject_id")[()]).strip().lower())


def session_name(path: Path) -> str:
    """Name of the session, from a file name as the DANDI archive gives them.

    Args:
        path (`Path`): the file.

    Returns:
        `str`: subject, session and description, without the words for them.

    Example:
        >>> session_name(Path("sub-Jenkins_ses-20090912_behavior+ecephys.nwb"))
        'Jenkins_20090912'
    """
    words = [re.sub(r"^(sub|ses|desc)-", "", word) for word in path.stem.split("_")]
    return "_".join(word for word in words if not re.fullmatch(r"(behavior|ecephys|image|\+)+", word))


def session_day(file: h5py.File) -> str:
    """Day of the recording.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `str`: such as `"2022.05.18"`.
    """
    return text(need(file, "session_start_time")[()])[:10].replace("-", ".")


def trial_column(file: h5py.File, name: str) -> np.ndarray:
    """Read a column of the trials table.

    Args:
        file (`h5py.File`): an open NWB file.
        name (`str`): the column.

    Returns:
        `np.ndarray`: one value per trial; text as `str`.
    """
    values = need(file, f"intervals/trials/{name}")[()]
    return np.array([text(value) for value in values]) if values.dtype.kind in "OS" else values


def trial_intervals(file: h5py.File) -> tuple[list[tuple[int, float, float]], list[str]]:
    """Read when the trials were.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `tuple[list[tuple[int, float, float]], list[str]]`: row, start and stop of every trial, ascending in time, and
        what is wrong with the others: no length, or sharing their time with another trial. The latter happens where the
        clock of the recording started again: spikes of such times cannot be told apart.
    """
    starts, stops = (np.asarray(trial_column(file, name), dtype=np.float64) for name in ("start_time", "stop_time"))
    problems = [
        f"trial {row} is from {starts[row]:g} s to {stops[row]:g} s" for row in np.flatnonzero(~(stops > starts))
    ]
    rows = [int(row) for row in np.argsort(starts, kind="stable") if stops[row] > starts[row]]
    shared = set()
    last = None
    for row in rows:
        # A sample may belong to the end of one trial and to the start of the next.
        if last is not None and starts[row] < stops[last] - 2e-3:
            shared |= {row, last}
        if last is None or stops[row] > stops[last]:
            last = row
    problems += [
        f"trial {row} ({starts[row]:g} s to {stops[row]:g} s) shares its time with another trial: the clock of the "
        "recording started again"
        for row in sorted(shared)
    ]
    return [(row, float(starts[row]), float(stops[row])) for row in rows if row not in shared], problems


def unit_spikes(file: h5py.File) -> list[np.ndarray]:
    """Read the spike times of every unit.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `list[np.ndarray]`: seconds.
    """
    times, ends = need(file, "units/spike_times"), need(file, "units/spike_times_index")[()]
    return [times[first:last] for first, last in zip([0, *ends[:-1]], ends)]


def electrode_spikes(file: h5py.File) -> tuple[list[np.ndarray], list[str]]:
    """Read the spikes of every electrode; all of its units are put together.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `tuple[list[np.ndarray], list[str]]`: spike times and area of every row of the electrode table, in its order.

    Raises:
        ValueError: when the file has no units, no electrodes, or a unit of several electrodes.
    """
    electrodes, ends = need(file, "units/electrodes")[()], need(file, "units/electrodes_index")[()]
    if not np.array_equal(ends, np.arange(1, len(ends) + 1)):
        raise ValueError("a unit has no electrode, or several; expected one each")
    areas = electrode_areas(file)
    return merge_units(zip(electrodes.tolist(), unit_spikes(file)), len(areas)), areas


def electrode_areas(file: h5py.File) -> list[str]:
    """Tell the area of every electrode.

    Args:
        file (`h5py.File`): an open NWB file.

    Returns:
        `list[str]`: `"M1"`, `"PMd"`, ... as far as the location of the electrode, or else the location or description
        of its group, names a known one; otherwise the location as it is, or `"unknown"`.
    """
    locations = [text(value) for value in need(file, f"{_ELECTRODES}/location")[()]]
    groups = [text(value) for value in need(file, f"{_ELECTRODES}/group_name")[()]]
    described = {name: _group_texts(file, name) for name in set(groups)}
    return [_area([location, *described[group]]) for location, group in zip(locations, groups)]


def _group_texts(file: h5py.File, name: str) -> list[str]:
    group = file.get(f"general/extracellular_ephys/{name}")
    if group is None:
        return []
    location = [text(group["location"][()])] if "location" in group else []
    return [*location, text(group.attrs.get("description", ""))]


def _area(texts: Sequence[str]) -> str:
    for described in texts:
        for pattern, area in _AREAS:
            if re.search(pattern, described, re.IGNORECASE):
                return area
    return texts[0].strip() or "unknown"


def series(file: h5py.File, name: str, places: Sequence[str]) -> h5py.Group:
    """Look a time series up in the places where it may be.

    Args:
        file (`h5py.File`): an open NWB file.
        name (`str`): the time series.
        places (`list[str]`): groups, the likeliest first.

    Returns:
        `h5py.Group`: its group, which holds `data`.

    Raises:
        ValueError: when it is in none of them.
    """
    for place in places:
        if f"{place}/{name}/data" in file:
            return file[f"{place}/{name}"]
    return need(file, f"{places[0]}/{name}")


def series_pieces(times: np.ndarray, bin_size_s: float) -> list[tuple[int, int]]:
    """Find the pieces of a binned series that have no gap.

    Args:
        times (`np.ndarray` of shape `(T,)`): time of every bin, seconds.
        bin_size_s (`float`): length of a bin.

    Returns:
        `list[tuple[int, int]]`: first and last bin (not included) of every piece.

    Raises:
        ValueError: when the times do not increase, or bins are closer than their length.
    """
    steps = np.diff(times)
    if np.any(steps < 0.5 * bin_size_s):
        row = int(np.argmax(steps < 0.5 * bin_size_s))
        raise ValueError(f"its bins {row} and {row + 1} are {1000 * steps[row]:g} ms apart; expected 20 ms")
    breaks = [0, *(np.flatnonzero(steps > 1.5 * bin_size_s) + 1).tolist(), len(times)]
    return list(zip(breaks[:-1], breaks[1:]))
