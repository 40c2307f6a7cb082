"""Models in the box: small checkpoints, trained on simulated participants, that come with the package."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

RECORD_NAME = "record.json"


def sample_checkpoint(name: str) -> Path:
    """Give the folder of a checkpoint that comes with the package.

    Args:
        name (`str`): `"sim-ctc"`: an encoder with CTC, its lexicon and its language model, trained on the participant
            `SimulatedParticipant("demo")`.

    Returns:
        `Path`: for `from_pretrained`. `record.json` in it says how it was made and how well it decodes.

    Raises:
        ValueError: when there is no such checkpoint.

    Note:
        `examples/make_sample_checkpoints.py` makes them. They show how things work; accuracy on a simulated participant
        says nothing about a person.

    Example:
        >>> sample_checkpoint("sim-ctc").name
        'sim-ctc'
    """
    here = Path(__file__).parent
    names = sorted(path.parent.name for path in here.glob(f"*/{RECORD_NAME}"))
    if name not in names:
        raise ValueError(f"there is no sample checkpoint {name!r}; there are {', '.join(names) or 'none'}")
    return here / name


def file_hashes(folder: str | os.PathLike[str]) -> dict[str, str]:
    """Hash every file of a checkpoint but its record.

    Args:
        folder (`str`): the checkpoint.

    Returns:
        `dict[str, str]`: path relative to the folder -> SHA-256 of the content.
    """
    folder = Path(folder)
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != RECORD_NAME)
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}
