"""Checkpoints that are whole or do not count: a run can be killed at any moment, in the middle of saving too.

transformers writes a checkpoint file by file into its final folder, so a folder that exists may be half written. Here a
checkpoint counts only when its seal is there: a small file, written last, that lists every file with its size. Older
checkpoints are deleted only after the newer one is sealed, so there is always a whole one to come back to.
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from pathlib import Path

from bit_speech.files import write_json

logger = logging.getLogger(__name__)

SEAL_NAME = "checkpoint_complete.json"
_CHECKPOINT = re.compile(r"^checkpoint-(\d+)$")


def seal_checkpoint(folder: str | os.PathLike[str]) -> Path:
    """Declare a checkpoint complete.

    Args:
        folder (`str`): a checkpoint folder to which nothing will be written any more.

    Returns:
        `Path`: the seal, which lists every file of the folder with its size in bytes.
    """
    folder = Path(folder)
    sizes = {
        path.relative_to(folder).as_posix(): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != SEAL_NAME
    }
    return write_json(folder / SEAL_NAME, {"files": sizes})


def is_complete(folder: str | os.PathLike[str]) -> bool:
    """Tell whether a checkpoint was written to its end and still has all its files.

    Args:
        folder (`str`): a checkpoint folder.

    Returns:
        `bool`: True when the seal is there and every file it lists has its size.
    """
    folder = Path(folder)
    seal = folder / SEAL_NAME
    if not seal.is_file():
        return False
    # The seal itself is written atomically, so if it is there it is whole.
    sizes: dict[str, int] = json.loads(seal.read_text(encoding="utf-8"))["files"]
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def checkpoints(output_dir: str | os.PathLike[str]) -> list[Path]:
    """List the checkpoint folders of a run, complete or not, oldest step first.

    Args:
        output_dir (`str`): folder of the run.

    Returns:
        `list[Path]`: folders named `checkpoint-<step>`.
    """
    output_dir = Path(output_dir)
    if not output_dir.is_dir():
        return []
    found = [
        (int(match[1]), path)
        for path in output_dir.iterdir()
        if path.is_dir() and (match := _CHECKPOINT.match(path.name))
    ]
    return [path for _, path in sorted(found)]


def newest_complete_checkpoint(output_dir: str | os.PathLike[str]) -> Path | None:
    """Find the checkpoint to resume from.

    Args:
        output_dir (`str`): folder of the run.

    Returns:
        `Path` or None: the complete checkpoint of the highest step, None when there is none.

    Example:
        >>> newest_complete_checkpoint("no/such/run") is None
        True
    """
    return next((path for path in reversed(checkpoints(output_dir)) if is_complete(path)), None)


def set_incomplete_aside(output_dir: str | os.PathLike[str]) -> list[Path]:
    """Rename half-written checkpoints so that nothing takes them for real ones.

    Args:
        output_dir (`str`): folder of the run.

    Returns:
        `list[Path]`: where they are now: `incomplete-checkpoint-<step>`; an earlier one of the same name is replaced.
    """
    moved = []
    for path in checkpoints(output_dir):
        if is_complete(path):
            continue
        aside = path.with_name(f"incomplete-{path.name}")
        if aside.exists():
            shutil.rmtree(aside)
        os.replace(path, aside)
        logger.warning("%s was not written to its end; it is now %s and is not used", path.name, aside.name)
        moved.append(aside)
    return moved


def delete_old_checkpoints(
    output_dir: str | os.PathLike[str], keep: int | None, best: str | os.PathLike[str] | None = None
) -> list[Path]:
    """Delete the oldest complete checkpoints; the newest and the best always stay.

    Args:
        output_dir (`str`): folder of the run.
        keep (`int` or None): how many to keep, None for all. The best counts among them.
        best (`str`, *optional*): the best checkpoint.

    Returns:
        `list[Path]`: what was deleted. Half-written checkpoints are not touched.
    """
    if keep is None or keep <= 0:
        return []
    complete = [path for path in checkpoints(output_dir) if is_complete(path)]
    precious = {path.resolve() for path in complete[-1:]} | ({Path(best).resolve()} if best else set())
    others = [path for path in complete if path.resolve() not in precious]
    spare = max(0, keep - (len(complete) - len(others)))
    old = others[: len(others) - spare]
    for path in old:
        # Without its seal it does not count any more, should the process end half-way through.
        (path / SEAL_NAME).unlink()
        shutil.rmtree(path)
    return old
