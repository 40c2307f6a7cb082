"""Named arrays as one block of bytes with version and checksum: NumPy's archive, never a pickle."""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterable, Mapping

import numpy as np

_HEADER = "header"
# What NumPy and the archive below it raise on bytes that are something else, or were cut or changed.
_UNREADABLE = (ValueError, OSError, EOFError, KeyError, zipfile.BadZipFile, zlib.error, NotImplementedError)


def pack_arrays(arrays: Mapping[str, np.ndarray], version: int) -> bytes:
    """Turn arrays into bytes.

    Args:
        arrays (`dict[str, np.ndarray]`): numbers of any shapes.
        version (`int`): of the format; read back before anything else is believed.

    Returns:
        `bytes`: for [`unpack_arrays`].
    """
    stream = io.BytesIO()
    header = np.array([version, _checksum(arrays)], dtype="<u4")
    np.savez(stream, **arrays, **{_HEADER: header})  # type: ignore[arg-type]
    return stream.getvalue()


def unpack_arrays(data: bytes, version: int, names: Iterable[str], what: str, remedy: str) -> dict[str, np.ndarray]:
    """Read what [`pack_arrays`] made.

    Args:
        data (`bytes`): what was saved.
        version (`int`): the version that is understood.
        names (iterable of `str`): the arrays that must be there, and no others.
        what (`str`): what the bytes are and ought to be, for messages: `"lexicon.npz is no lexicon"`.
        remedy (`str`): what to do about it.

    Returns:
        `dict[str, np.ndarray]`: the arrays.

    Raises:
        ValueError: when the bytes are of another kind or version, truncated or damaged.

    Example:
        >>> data = pack_arrays({"scores": np.arange(3)}, version=1)
        >>> unpack_arrays(data, 1, ["scores"], "these bytes are no scores", "save them again")["scores"].tolist()
        [0, 1, 2]
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except _UNREADABLE as error:
        raise ValueError(f"{what}, or damaged ({error}); {remedy}.") from error
    if set(arrays) != {*names, _HEADER} or arrays[_HEADER].shape != (2,):
        raise ValueError(f"{what}; {remedy}.")
    found, checksum = (int(value) for value in arrays.pop(_HEADER))
    if found != version:
        raise ValueError(f"{what} of version {version}, but of version {found}; {remedy}.")
    if _checksum(arrays) != checksum:
        raise ValueError(f"{what}, or damaged (its checksum is wrong); {remedy}.")
    return arrays


def _checksum(arrays: Mapping[str, np.ndarray]) -> int:
    checksum = 0
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        head = json.dumps([name, array.dtype.str, array.shape]).encode()
        checksum = zlib.crc32(head + array.tobytes(), checksum)
    return checksum
