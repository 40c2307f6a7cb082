"""Narratives (Nastase et al. 2021): fMRIPrep's GIFTI on fsaverage6 -> a folder of stories.

    python -m datasets_scripts.convert_narratives --input_dir raw/ds002345 --output_dir runs/narratives --task 21styear

Source: Nastase et al. 2021, doi:10.1038/s41597-021-01033-3; data OpenNeuro ds002345 (CC0-1.0).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.story_runs import Interval, StoryRun, read_wav, write_run, write_story, write_words
from bit_speech.data.story_time import scanner_times
from datasets_scripts.command import run_converter
from datasets_scripts.story_files import (
    read_confounds,
    read_gifti,
    remove_confounds,
    story_parser,
)

NAME = "narratives"
SOURCE = "Nastase et al. 2021, doi:10.1038/s41597-021-01033-3, OpenNeuro ds002345"
TR_S = 1.5
# Story -> (volumes before the sound, volumes of the sound).
CLOCKS = {"21styear": (14, 2225)}
CONFOUNDS = ("trans_x", "trans_y", "trans_z", "rot_x", "rot_y", "rot_z", "cosine*", "a_comp_cor_0*")


def convert(
    input_dir: str, output_dir: str, task: str = "21styear", onset_trs: int | None = None,
    stimulus_trs: int | None = None, confounds: list[str] | None = None, test_share: float = 0.2,
) -> str:  # fmt: skip
    """Convert one story of all participants.

    Args:
        input_dir (`str`): ds002345, with `derivatives/fmriprep`, `stimuli` and `code/scan_exclude.json`.
        output_dir (`str`): folder of stories.
        task (`str`): the story.
        onset_trs (`int`, *optional*): volumes before the sound; known for 21styear.
        stimulus_trs (`int`, *optional*): volumes of the sound.
        confounds (`list[str]`, *optional*): columns to take out; an empty list leaves all in.
        test_share (`float`): the last part of the story is the test run `<task>_test`, which no training may see.

    Returns:
        `str`: how many participants were converted, and who was left out.

    Raises:
        FileNotFoundError: if there are no files of the story.
        ValueError: if the clock is unknown, or a run is too short for it.
    """
    if task not in CLOCKS and (onset_trs is None or stimulus_trs is None):
        raise ValueError(f"the clock of {task!r} is not known: give --onset_trs and --stimulus_trs")
    known = CLOCKS.get(task, (0, 0))
    onset, length = known[0] if onset_trs is None else onset_trs, known[1] if stimulus_trs is None else stimulus_trs
    root = Path(input_dir)
    prepared = root / "derivatives" / "fmriprep"
    excluded_file = root / "code" / "scan_exclude.json"
    excluded = json.loads(excluded_file.read_text(encoding="utf-8")) if excluded_file.is_file() else {}
    names = _strings(excluded.get(task, []))
    paths = sorted(prepared.glob(f"sub-*/func/sub-*_task-{task}_*space-fsaverage6_hemi-L*.func.gii"))
    if not paths:
        raise FileNotFoundError(f"{prepared} holds no sub-*/func/*_task-{task}_*space-fsaverage6_hemi-L*.func.gii")
    wanted = CONFOUNDS if confounds is None else confounds
    cut = onset + round((1 - test_share) * length)
    done, left_out = [], []
    for left in paths:
        person = left.name.split("_")[0]
        if any(Path(name).name.split("_bold")[0] in left.name for name in names):
            left_out.append(left.name.split("_space-")[0])
            continue
        if person in done:
            raise ValueError(f"{person} has several runs of {task}, among them {left.name}; keep one in the folder")
        right = left.with_name(left.name.replace("_hemi-L", "_hemi-R"))
        if not right.is_file():
            raise FileNotFoundError(f"{left} has no right hemisphere {right.name}")
        both = np.concatenate([read_gifti(left), read_gifti(right)], axis=1)
        if len(both) < onset + length:
            raise ValueError(f"{left.name} holds {len(both)} volumes; {task} needs {onset} + {length}")
        table = None
        if wanted:
            tables = sorted(left.parent.glob(f"{person}_task-{task}_*confounds*.tsv"))
            if not tables:
                raise FileNotFoundError(
                    f"{left.parent} holds no table of confounds of {task}; --confounds leaves all in"
                )
            table = read_confounds(tables[0], wanted)
        clean = remove_confounds(both, table, f"{person}, {task}")
        times = scanner_times(len(clean), TR_S, -onset * TR_S)
        for story, split, rows in (
            (task, "train", slice(onset, cut)), (f"{task}_test", "test", slice(cut, onset + length)),
        ):  # fmt: skip
            write_run(
                output_dir,
                StoryRun(person, story, split, clean[rows], times[rows], TR_S, "fsaverage6", SOURCE, "CC0-1.0"),
            )
        done.append(person)
    audio = read_wav(root / "stimuli" / f"{task}_audio.wav")
    words = _gentle_words(root / "stimuli" / "gentle" / task / "align.json")
    for story in (task, f"{task}_test"):
        write_story(output_dir, story, audio)
        if words:
            write_words(output_dir, story, {"word": words})
    return f"{task}: {len(done)} participants; left out by scan_exclude.json: {', '.join(left_out) or 'nobody'}"


def _strings(value: Any) -> list[str]:
    """All scans that an entry of scan_exclude.json names, however deep."""
    if isinstance(value, str):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [name for part in parts for name in _strings(part)]


def _gentle_words(path: Path) -> list[Interval]:
    """Words that the aligner found; none when the story was not aligned."""
    if not path.is_file():
        return []
    rows = json.loads(path.read_text(encoding="utf-8"))["words"]
    return [Interval(row["start"], row["end"], row["word"]) for row in rows if row.get("case") == "success"]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: 0, or 2 when the input was refused.
    """
    parser = story_parser(
        NAME,
        "Narratives (ds002345): fMRIPrep's GIFTI on fsaverage6 -> a folder of stories.",
        "Read: derivatives/fmriprep/sub-*/func/sub-*_task-<task>_*space-fsaverage6_hemi-{L,R}*.func.gii, the table of\n"
        "confounds beside it, stimuli/<task>_audio.wav, stimuli/gentle/<task>/align.json, code/scan_exclude.json.",
    )
    parser.add_argument("--task", default="21styear", help="the story (default: 21styear)")
    parser.add_argument("--onset_trs", type=int, help="volumes before the sound")
    parser.add_argument("--stimulus_trs", type=int, help="volumes of the sound")
    parser.add_argument("--confounds", nargs="*", help=f"columns to take out (default: {' '.join(CONFOUNDS)})")
    parser.add_argument(
        "--test_share", type=float, default=0.2, help="last part of the story, for tests (default: 0.2)"
    )
    return run_converter(NAME, convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
