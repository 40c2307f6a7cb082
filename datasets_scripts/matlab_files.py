"""Reading MATLAB files, v5 (scipy) and v7.3 (HDF5), into the same Python values; only what is asked for is loaded."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

# What scipy and h5py raise on a damaged file depends on where the damage is.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, zlib.error, MatReadError, NotImplementedError)


def read_matlab(path: Path, names: Sequence[str], optional: Sequence[str] = ()) -> dict[str, Any]:
    """Read variables, or fields of structs.

    Args:
        path (`Path`): a MATLAB file, v5 or v7.3.
        names (`list[str]`): variables that must be there; `"xds.meta"` is the field `meta` of the struct `xds`.
        optional (`list[str]`): variables that may be there.

    Returns:
        `dict[str, Any]`: name -> value. Numbers are arrays with at least two dimensions, as in MATLAB; text is `str` (a
        character matrix: list of `str`); cells are object arrays of their MATLAB shape; a struct is a dictionary, and a
        field of a struct array is a list with one value per element.

    Raises:
        ValueError: when the file cannot be read, or something is not there; the message says what is.
    """
    try:
        reader = _read_hdf5 if h5py.is_hdf5(path) else _read_v5
        found, present = reader(path, [*names, *optional])
    except _UNREADABLE as error:
        raise ValueError(f"truncated or not a MATLAB file: download it again ({error})") from error
    missing = [name for name in names if name not in found]
    if missing:
        raise ValueError(f"it has no {', '.join(missing)}; there are {', '.join(sorted(present)) or 'no variables'}")
    return found


def flat(values: Any) -> np.ndarray:
    """Give numbers, or the contents of a cell, as a list of values in MATLAB's order.

    Args:
        values: an array.

    Returns:
        `np.ndarray` of one dimension.

    Example:
        >>> flat(np.array([[1, 2], [3, 4]])).tolist()
        [1, 3, 2, 4]
    """
    return np.asarray(values).reshape(-1, order="F")


def scalar(value: Any, name: str) -> float:
    """Give the only number of an array.

    Args:
        value: an array.
        name (`str`): what to call it in a message.

    Returns:
        `float`: the number.

    Raises:
        ValueError: when it is not one number.
    """
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "buif":
        raise ValueError(f"{name} is {array.dtype} of shape {array.shape}; expected one number")
    return float(array.reshape(-1)[0])


def words(cell: Any, name: str) -> list[str]:
    """Give the texts of a cell.

    Args:
        cell: a cell of texts, or a character matrix.
        name (`str`): what to call it in a message.

    Returns:
        `list[str]`: the texts, without blanks around them.

    Raises:
        ValueError: when something in it is no text.

    Example:
        >>> words(["ban ", "day"], "cueList")
        ['ban', 'day']
    """
    values = [cell] if isinstance(cell, str) else cell if isinstance(cell, list) else flat(cell).tolist()
    # A cell within a cell, as some files have it.
    values = [flat(value)[0] if isinstance(value, np.ndarray) and value.size == 1 else value for value in values]
    wrong = [value for value in values if not isinstance(value, str)]
    if wrong:
        raise ValueError(f"{name} holds {type(wrong[0]).__name__}; expected text")
    return [value.strip() for value in values]


def _read_v5(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    tops = sorted({name.partition(".")[0] for name in names})
    variables = scipy.io.loadmat(path, variable_names=tops)
    present = {name for name, _, _ in scipy.io.whosmat(path)}
    found = {}
    for name in names:
        top, _, fields = name.partition(".")
        if top not in variables:
            continue
        value = variables[top]
        for key in fields.split(".") if fields else ():
            if value.dtype.names is None:
                break
            present |= {f"{top}.{known}" for known in value.dtype.names}
            if key not in value.dtype.names:
                break
            values = value[key].reshape(-1, order="F")
            value = values[0] if len(values) == 1 else [_from_v5(element) for element in values]
        else:
            found[name] = value if isinstance(value, list) else _from_v5(value)
    return found, present


def _from_v5(value: np.ndarray) -> Any:
    if value.dtype.names is not None:
        structs = [{key: _from_v5(one[key]) for key in value.dtype.names} for one in value.reshape(-1, order="F")]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype.kind in "US":
        texts = [str(text) for text in value.reshape(-1)]
        return texts[0] if len(texts) == 1 else texts if texts else ""
    if value.dtype == object:
        return _cell([_from_v5(element) for element in value.reshape(-1, order="F")], value.shape)
    return value


def _cell(values: Sequence[Any], shape: tuple[int, ...]) -> np.ndarray:
    cell = np.empty(len(values), dtype=object)
    for index, value in enumerate(values):
        cell[index] = value
    return cell.reshape(shape, order="F")


def _read_hdf5(path: Path, names: Sequence[str]) -> tuple[dict[str, Any], set[str]]:
    with h5py.File(path, "r") as file:
        present = {name for name in file if not name.startswith("#")}
        found = {}
        for name in names:
            top, _, fields = name.partition(".")
            if fields and isinstance(file.get(top), h5py.Group):
                present |= {f"{top}.{known}" for known in file[top]}
            item = file.get(name.replace(".", "/"))
            if item is not None:
                found[name] = _from_hdf5(item, file)
        return found, present


def _from_hdf5(item: Any, file: h5py.File) -> Any:
    if isinstance(item, h5py.Group):
        return {key: _from_hdf5(item[key], file) for key in item}
    kind = item.attrs.get("MATLAB_class", b"")
    kind = kind.decode() if isinstance(kind, bytes) else str(kind)
    if item.attrs.get("MATLAB_empty", 0):
        return "" if kind == "char" else np.empty((0, 0), dtype=object if kind == "cell" else np.float64)
    if item.dtype == h5py.ref_dtype:
        # HDF5 has the axes the other way round, so its C order is MATLAB's order.
        values = [_from_hdf5(file[reference], file) for reference in item[()].reshape(-1)]
        return _cell(values, item.shape[::-1]) if kind == "cell" else values
    value = item[()].T
    if kind == "char":
        texts = ["".join(chr(code) for code in row) for row in np.atleast_2d(value)]
        return texts[0] if len(texts) == 1 else texts
    return np.atleast_2d(value)
