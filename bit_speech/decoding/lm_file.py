"""The binary file of a packed n-gram model: a checked header, then arrays that are mapped into memory.

20 bytes (magic, version, length and CRC-32 of the header), the header as JSON, then the sections, each aligned to 64
bytes. The header says how long every section is and what its XXH3-64 checksum is.
"""

from __future__ import annotations

import json
import mmap
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xxhash

from .lm_kernels import COLUMNS, KEY_BITS, CompactArrays, LMArrays
from .lm_pack import compact_table

_MAGIC = b"BITNGRAM"
_VERSION = 3
_ALIGNMENT = 64
_CHUNK_BYTES = 1 << 22
_MAX_HEADER_BYTES = 1 << 24
_RESIDENT_BYTES = 96 << 20
_EXACT, _QUANTISED = "exact", "quantized"
_DTYPES = {
    _EXACT: {
        "words": "<i4",
        "probs": "<f4",
        "next_state": "<i4",
        "backoffs": "<f4",
        "suffix": "<i4",
        "first_child": "<i8",
    },
    _QUANTISED: {
        "unigram_probs": "<f4",
        "unigram_backoffs": "<f4",
        "unigram_children": "<i4",
        "records": "<u8",
        "children": "<u8",
        "samples": "<u4",
        "codebook": "<f4",
    },
}
_VOCABULARY = {"vocabulary": "|u1", "offsets": "<i8"}
_REMEDY = "build it or convert the ARPA file again"


def write_model(
    path: str | os.PathLike[str],
    arrays: LMArrays | CompactArrays,
    vocabulary: np.ndarray,
    offsets: np.ndarray,
    counts: tuple[int, ...],
    specials: Mapping[str, int],
    metadata: Mapping[str, Any],
) -> None:
    """Write a packed model under a temporary name, then rename it.

    Args:
        path (`str`): destination; missing parent folders are made.
        arrays (`LMArrays` or `CompactArrays`): the packed model.
        vocabulary (`np.ndarray` of shape `(bytes,)`, uint8): the words.
        offsets (`np.ndarray` of shape `(words + 1,)`, int64): where each word begins.
        counts (`tuple` of `int`): n-grams of each order.
        specials (mapping): indices of `bos`, `eos` and `unk`.
        metadata (mapping): anything JSON can hold: where the model comes from.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = _EXACT if isinstance(arrays, LMArrays) else _QUANTISED
    rank_bits = [0, 0]
    if isinstance(arrays, CompactArrays) and len(counts) > 1:
        rank_bits = arrays.table.reshape(-1, COLUMNS)[-2:, KEY_BITS].tolist()
    values = {name: (getattr(arrays, name), dtype) for name, dtype in _DTYPES[kind].items()}
    values |= {"vocabulary": (vocabulary, _VOCABULARY["vocabulary"]), "offsets": (offsets, _VOCABULARY["offsets"])}
    sections, position = [], 0
    blobs = []
    for name, (array, dtype) in values.items():
        blob = _bytes_of(array.astype(dtype, copy=False))
        checksum = xxhash.xxh3_64_hexdigest(blob)
        sections.append({"name": name, "length": len(array), "offset": position, "checksum": checksum})
        position += -(-len(blob) // _ALIGNMENT) * _ALIGNMENT
        blobs.append(blob)
    header = {
        "kind": kind,
        "counts": list(counts),
        "rank_bits": rank_bits,
        **{name: int(index) for name, index in specials.items()},
        "payload_bytes": position,
        "sections": sections,
        "metadata": dict(metadata),
    }
    text = json.dumps(header, allow_nan=False).encode()
    text += b" " * (-(len(text) + 20) % _ALIGNMENT)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(_MAGIC)
            stream.write(np.array([_VERSION, len(text), zlib.crc32(text)], dtype="<u4").tobytes())
            stream.write(text)
            for blob in blobs:
                stream.write(blob)
                stream.write(b"\0" * (-len(blob) % _ALIGNMENT))
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _bytes_of(array: np.ndarray) -> memoryview:
    return memoryview(np.ascontiguousarray(array).view(np.uint8).data) if len(array) else memoryview(b"")


class MappedFile:
    """A file mapped into memory, of which only a bounded part counts as memory of this process.

    Args:
        path (`Path`): the file; it must not be empty.

    Note:
        Whoever looks up many n-grams soon has touched every page of a large model. Pages that are given back stay in
        the system's cache of files, from where they return in microseconds.
    """

    def __init__(self, path: Path) -> None:
        with path.open("rb") as stream:
            self._map = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        self._floor = _resident_file_bytes()

    def __deepcopy__(self, memo: dict[int, Any]) -> MappedFile:
        return self  # nothing in it ever changes, and a mapping cannot be copied

    def bytes(self) -> np.ndarray:
        """The content, uint8 of shape `(bytes,)`, read-only."""
        return np.frombuffer(self._map, dtype=np.uint8)

    def release_pages(self) -> None:
        """Give the pages back if this process has mapped many (96 MB of files) since the last time; Linux only."""
        if len(self._map) <= _RESIDENT_BYTES:  # not worth asking the system after every sentence
            return
        if _resident_file_bytes() - self._floor > _RESIDENT_BYTES:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._floor = _resident_file_bytes()


def _resident_file_bytes() -> int:
    """How much of this process's resident memory belongs to files; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as stream:
            return int(stream.read().split()[2]) * mmap.PAGESIZE
    except FileNotFoundError:  # not Linux
        return 0


def read_model(
    path: str | os.PathLike[str], verify: bool = True
) -> tuple[LMArrays | CompactArrays, np.ndarray, np.ndarray, dict[str, Any], MappedFile]:
    """Map a file that [`write_model`] wrote.

    Args:
        path (`str`): the file.
        verify (`bool`): read the whole file and compare the checksums; those of exact models always are.

    Returns:
        `tuple`: the packed model, the bytes of the words, their offsets, the header, and the mapped file.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is of another kind or version, damaged or truncated.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"No language model at {path}.")
    size = path.stat().st_size
    with path.open("rb") as stream:
        start = stream.read(20)
        if len(start) < 20 or start[:8] != _MAGIC:
            raise ValueError(f"{path} is not a bit-speech n-gram model; use NGramLM.from_arpa for ARPA files.")
        version, length, checksum = (int(value) for value in np.frombuffer(start, dtype="<u4", offset=8))
        if version != _VERSION:
            raise ValueError(f"{path} has format version {version}, this library reads {_VERSION}; {_REMEDY}.")
        text = stream.read(length) if length <= min(size, _MAX_HEADER_BYTES) else b""
        if len(text) < length or zlib.crc32(text) != checksum:
            raise ValueError(f"The header of {path} is damaged or truncated; {_REMEDY}.")
        try:
            header = json.loads(text)
            sections = _checked_sections(header)
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
            raise ValueError(f"The header of {path} makes no sense ({error!r}); {_REMEDY}.") from error
        if size != 20 + length + header["payload_bytes"]:
            raise ValueError(
                f"{path} has {size} bytes, its header says {20 + length + header['payload_bytes']}; the file is "
                f"truncated or damaged: {_REMEDY}."
            )
        if verify or header["kind"] == _EXACT:
            for name, dtype, section in sections:
                stream.seek(20 + length + section["offset"])
                if _checksum_of(stream, section["length"] * np.dtype(dtype).itemsize) != section["checksum"]:
                    raise ValueError(
                        f"The checksum of the section {name!r} of {path} is wrong, the file is damaged: {_REMEDY}."
                    )
    mapped = MappedFile(path)
    data = mapped.bytes()
    arrays = {}
    for name, dtype, section in sections:
        begin = 20 + length + section["offset"]
        end = begin + section["length"] * np.dtype(dtype).itemsize
        arrays[name] = data[begin:end].view(dtype)
    vocabulary, offsets = arrays.pop("vocabulary"), arrays.pop("offsets")
    if offsets[0] != 0 or offsets[-1] != len(vocabulary) or (np.diff(offsets) < 0).any():
        raise ValueError(f"The vocabulary of {path} is damaged; {_REMEDY}.")
    if header["kind"] == _EXACT:
        return LMArrays(**arrays), vocabulary, offsets, header, mapped
    table, _ = compact_table(header["counts"], header["rank_bits"])
    table.flags.writeable = False
    return CompactArrays(table=table, **arrays), vocabulary, offsets, header, mapped


def _checksum_of(stream: Any, size: int) -> str:
    # Read, not mapped: looking at every page would count all of the file as this process's memory.
    checksum = xxhash.xxh3_64()
    buffer = memoryview(bytearray(_CHUNK_BYTES))
    while size > 0:
        got = stream.readinto(buffer[: min(size, _CHUNK_BYTES)])
        if not got:
            break
        checksum.update(buffer[:got])
        size -= got
    return checksum.hexdigest()


def _checked_sections(header: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Name, type and place of every array; ValueError when the header contradicts itself."""
    kind, counts = header["kind"], header["counts"]
    integers = [*counts, *header["rank_bits"], header["bos"], header["eos"], header["unk"], header["payload_bytes"]]
    if any(type(value) is not int or value < 0 for value in integers):
        raise ValueError("a number is none")
    if (
        kind not in _DTYPES
        or not len(counts) >= 1
        or len(header["rank_bits"]) != 2
        or max(header["rank_bits"]) > 32
        or not isinstance(header["metadata"], dict)
    ):
        raise ValueError("unknown kind or order")
    if counts[0] == 0 or sum(counts) >= 1 << 31 or max(header["bos"], header["eos"], header["unk"]) >= counts[0]:
        raise ValueError("counts out of range")
    nodes = 1 + sum(counts)
    contexts = nodes - counts[-1]
    if kind == _EXACT:
        lengths = dict.fromkeys(("words", "probs", "next_state"), nodes)
        lengths |= dict.fromkeys(("backoffs", "suffix"), contexts) | {"first_child": contexts + 1}
    else:
        if len(counts) > 6:
            raise ValueError("quantized models have at most order 6")
        _, lengths = compact_table(counts, header["rank_bits"])
    lengths["offsets"] = counts[0] + 1
    position = 0
    result = []
    dtypes = _DTYPES[kind] | _VOCABULARY
    if [section["name"] for section in header["sections"]] != list(dtypes):
        raise ValueError("sections are missing")
    for section in header["sections"]:
        name, length = section["name"], section["length"]
        if type(length) is not int or length < 0 or lengths.get(name, length) != length:
            raise ValueError(f"section {name!r} has a wrong length")
        if section["offset"] != position or not isinstance(section["checksum"], str):
            raise ValueError(f"section {name!r} is out of place")
        position += -(-length * np.dtype(dtypes[name]).itemsize // _ALIGNMENT) * _ALIGNMENT
        result.append((name, dtypes[name], section))
    if position != header["payload_bytes"]:
        raise ValueError("sections do not fill the file")
    return result
