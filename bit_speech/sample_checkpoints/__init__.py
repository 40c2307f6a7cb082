"""Models in the box: small checkpoints, trained on simulated participants, that come with the package."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bit_speech.simulation import SimulatedParticipant

RECORD_NAME = "record.json"


def sample_checkpoint(name: str) -> Path:
    """Give the folder of a checkpoint that comes with the package.

    Args:
        name (`str`): `"sim-ctc"`: an encoder with CTC, its lexicon and its language model, trained on the participant
            `SimulatedParticipant("demo")`. `"sim-encoder"`: an encoder pretrained on other simulated participants,
            without labels. `"sim-llm"`: an end-to-end model of the first participant, who speaks in 50 words.

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
    names = sample_names()
    if name not in names:
        raise ValueError(f"there is no sample checkpoint {name!r}; there are {', '.join(names) or 'none'}")
    return Path(__file__).parent / name


def sample_names() -> list[str]:
    """Names of the checkpoints that come with the package.

    Returns:
        `list[str]`: in alphabetical order.
    """
    return sorted(path.parent.name for path in Path(__file__).parent.glob(f"*/{RECORD_NAME}"))


def find_model(name: str) -> str:
    """Where a model is that commands are asked for.

    Args:
        name (`str`): folder, Hub name, or name of a model in the box; a folder of that name comes first.

    Returns:
        `str`: what `from_pretrained` takes.

    Example:
        >>> find_model("my-lab/p01-decoder")
        'my-lab/p01-decoder'
    """
    in_the_box = name in sample_names() and not Path(name).exists()
    return str(sample_checkpoint(name)) if in_the_box else name


def sample_participant(name: str) -> SimulatedParticipant:
    """The simulated participant that a checkpoint was trained on.

    Args:
        name (`str`): as for [`sample_checkpoint`].

    Returns:
        `SimulatedParticipant`: its test split was never seen.

    Raises:
        ValueError: when there is no such checkpoint.

    Example:
        >>> sample_participant("sim-ctc").num_trials("test")
        200
    """
    from bit_speech.simulation import PRESETS, SimulatedParticipant

    record = json.loads((sample_checkpoint(name) / RECORD_NAME).read_text(encoding="utf-8"))
    settings = record["settings"]
    config = replace(PRESETS[settings["preset"]], **record.get("participant_changes", {}))
    return SimulatedParticipant(config, seed=settings["participant_seed"])


def sample_trials(name: str, count: int = 1) -> list[dict[str, Any]]:
    """Held-out trials of the participant that a checkpoint was trained on.

    Args:
        name (`str`): as for [`sample_checkpoint`].
        count (`int`): how many.

    Returns:
        `list[dict]`: rows with the columns of a `Trial` that decoding reads, and the sentence that was said.

    Raises:
        ValueError: when there is no such checkpoint, or no so many trials.
    """
    from bit_speech.experiments.trials import simulated_trials

    participant = sample_participant(name)
    if not 0 < count <= participant.num_trials("test"):
        raise ValueError(f"count is {count}; the participant has 1 to {participant.num_trials('test')} held-out trials")
    return simulated_trials(participant, "test", count)


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
