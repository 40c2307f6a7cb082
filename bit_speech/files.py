"""Writing files so that a crash never leaves half of one."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Write a file under a temporary name in the same folder, then rename it.

    Args:
        path (`str`): destination; missing parent folders are made.
        content (`bytes`): all of the file.

    Returns:
        `Path`: the destination.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    r"""Write a text file atomically.

    Args:
        path (`str`): destination; missing parent folders are made.
        text (`str`): content, written as UTF-8 with `\n` line ends.

    Returns:
        `Path`: the destination.
    """
    return write_bytes(path, text.encode())


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write a JSON file atomically, readable by people: indented, keys in the order given.

    Args:
        path (`str`): destination; missing parent folders are made.
        value: anything `json` can write. NaN is refused, because JSON has none.

    Returns:
        `Path`: the destination.

    Raises:
        ValueError: when the value holds NaN or infinity.
    """
    return write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
