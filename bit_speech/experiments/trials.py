"""Where the trials of an experiment come from: a converted folder, or a simulated participant."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bit_speech.simulation import SimulatedParticipant

_COLUMNS = ("participant_id", "session_id", "block_index", "trial_index", "split", "features", "text", "phonemes")


def check_source(trials: str | None, simulate: str | None) -> None:
    """Refuse settings that name no trials, or two sources of them.

    Args:
        trials (`str`, *optional*): the setting `--trials`.
        simulate (`str`, *optional*): the setting `--simulate`.

    Raises:
        ValueError: unless exactly one of them is given.

    Example:
        >>> check_source("runs/me/trials", None)
    """
    if (trials is None) == (simulate is None):
        raise ValueError("give either --trials (a folder) or --simulate (a preset), and not both")


def simulated_trials(participant: SimulatedParticipant, split: str, count: int | None = None) -> list[dict[str, Any]]:
    """Rows of one split of a simulated participant, as training reads them.

    Args:
        participant (`SimulatedParticipant`): who speaks.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        count (`int`, *optional*): only the first so many.

    Returns:
        `list[dict]`: the `Trial` columns that an experiment needs.
    """
    channels = {"feature_kinds": participant.feature_kinds, "channel_areas": participant.channel_areas}
    trials = islice(participant.trials({"validation": "val"}.get(split, split)), count)
    return [{**{column: getattr(trial, column) for column in _COLUMNS}, **channels} for trial in trials]


def read_trials(trials: str | None, simulate: str | None, simulation_seed: int, *splits: str) -> list[Any]:
    """Trials of an experiment.

    Args:
        trials (`str`, *optional*): folder that `bit-speech convert` wrote.
        simulate (`str`, *optional*): preset of a simulated participant, instead.
        simulation_seed (`int`): which simulated participant.
        *splits (`str`): splits, such as `"train"` and `"validation"`.

    Returns:
        `list`: for each split its trials: a `datasets.Dataset`, or a list of rows when they are simulated.

    Raises:
        FileNotFoundError: when there is no such folder.
        ValueError: when there is no such split or preset.
    """
    if trials is not None:
        from bit_speech.data import load_trials

        return [load_trials(trials, split) for split in splits]
    from bit_speech.simulation import SimulatedParticipant

    participant = SimulatedParticipant(str(simulate), seed=simulation_seed)
    return [simulated_trials(participant, split) for split in splits]


def column(trials: Any, name: str) -> list[Any]:
    """One column of a dataset or of a list of rows.

    Args:
        trials (`datasets.Dataset` or `list[dict]`): the trials.
        name (`str`): the column.

    Returns:
        `list`: its values.

    Example:
        >>> column([{"text": "go on"}, {"text": "stop"}], "text")
        ['go on', 'stop']
    """
    return [row[name] for row in trials] if isinstance(trials, list) else list(trials[name])
