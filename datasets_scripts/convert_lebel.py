"""Moth Radio Hour fMRI (LeBel et al. 2023): HDF5 of preprocessed BOLD, TextGrids and sounds -> a folder of stories.

    python -m datasets_scripts.convert_lebel --input_dir raw/ds003020 --output_dir runs/lebel

Source: LeBel et al. 2023, doi:10.1038/s41597-023-02437-z; data OpenNeuro ds003020 (CC0-1.0), 8 participants, TR 2 s.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from bit_speech.data.story_runs import StoryRun, read_wav, write_run, write_story, write_words
from bit_speech.data.story_time import scanner_times, trim
from bit_speech.import_utils import require
from datasets_scripts.command import run_converter
from datasets_scripts.story_files import read_textgrid, story_parser

NAME = "lebel"
SOURCE = "LeBel et al. 2023, doi:10.1038/s41597-023-02437-z, OpenNeuro ds003020"
TEST = ("wheretheressmoke",)
# The paper holds out two stories and names none; its code holds out the first, its predecessor's the second.
VALIDATION = ("itsabox", "stagefright")
TR_S, FIRST_S, PAD_TRS = 2.0, -10.0, 5


def story_times(num_scans: int) -> np.ndarray:
    """Times of the volumes that the preprocessed files keep.

    Args:
        num_scans (`int`): volumes of the scan, from `respdict.json`.

    Returns:
        `np.ndarray`: start of each volume in seconds; scans begin 10 s before the sound, 10 volumes are cut at the
            start and 5 at the end, after 5 that the release never counts.
    """
    return trim(scanner_times(num_scans - PAD_TRS, TR_S, FIRST_S), 10, 5)


def convert(
    input_dir: str, output_dir: str, participants: list[str] | None = None, stories: list[str] | None = None,
    validation: list[str] | None = None,
) -> str:  # fmt: skip
    """Convert runs whose BOLD and sound are there.

    Args:
        input_dir (`str`): ds003020, with `derivative` and `stimuli`.
        output_dir (`str`): folder of stories.
        participants (`list[str]`, *optional*): default all, such as `UTS03`.
        stories (`list[str]`, *optional*): default all.
        validation (`list[str]`, *optional*): stories that choose checkpoints.

    Returns:
        `str`: a line for each participant.

    Raises:
        FileNotFoundError: if a part of the data set is missing.
        ValueError: if a run has another number of volumes than its scan leaves.
    """
    h5py = require("h5py")
    root = Path(input_dir)
    derivative = root / "derivative"
    lengths_file = derivative / "respdict.json"
    if not lengths_file.is_file():
        raise FileNotFoundError(f"there is no {lengths_file}: datalad get derivative/respdict.json")
    lengths = json.loads(lengths_file.read_text(encoding="utf-8"))
    folders = sorted(path for path in (derivative / "preprocessed_data").glob("UTS*") if path.is_dir())
    if participants:
        folders = [path for path in folders if path.name in participants]
    if not folders:
        raise FileNotFoundError(f"{derivative / 'preprocessed_data'} holds no folder of {participants or 'UTS*'}")
    held_out = VALIDATION if validation is None else validation
    report, written = [], set()
    for folder in folders:
        count = most_empty = 0
        for path in sorted(folder.glob("*.hf5")):
            story = path.stem
            if stories and story not in stories:
                continue
            if story not in lengths:
                raise ValueError(f"{path}: {story!r} is not in respdict.json")
            with h5py.File(path, "r") as file:
                responses = file["data"][()].astype(np.float32)
                repeats = file["individual_repeats"][()].astype(np.float32) if "individual_repeats" in file else None
            # Voxels at the edge of the scan have no signal in some sessions.
            empty = np.isnan(responses).any(axis=0)
            responses[:, empty] = 0.0
            most_empty = max(most_empty, int(empty.sum()))
            times = story_times(int(lengths[story]))
            if len(responses) != len(times):
                raise ValueError(
                    f"{path} holds {len(responses)} volumes; a scan of {lengths[story]} leaves {len(times)}"
                )
            split = "test" if story in TEST else "validation" if story in held_out else "train"
            run = StoryRun(
                folder.name, story, split, responses, times, TR_S, "native", SOURCE, "CC0-1.0",
                None if repeats is None else np.nan_to_num(repeats),
            )  # fmt: skip
            write_run(output_dir, run)
            written.add(story)
            count += 1
        report.append(f"{folder.name}: {count} stories, at most {most_empty} voxels without signal (zero)")
    for story in sorted(written):
        sound = root / "stimuli" / f"{story}.wav"
        write_story(output_dir, story, read_wav(sound))
        grid = derivative / "TextGrids" / f"{story}.TextGrid"
        if grid.is_file():
            write_words(output_dir, story, read_textgrid(grid))
    return "\n".join(report)


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: 0, or 2 when the input was refused.
    """
    parser = story_parser(
        NAME,
        "Moth Radio Hour fMRI (ds003020): HDF5, TextGrids and sounds -> a folder of stories.",
        "Read: derivative/preprocessed_data/UTS*/<story>.hf5 (data, individual_repeats), derivative/respdict.json,\n"
        "derivative/TextGrids/<story>.TextGrid, stimuli/<story>.wav. Voxels stay in each participant's own space; see\n"
        "datasets_scripts.project_to_fsaverage for a common one.",
    )
    parser.add_argument("--participants", nargs="+", help="default all")
    parser.add_argument("--stories", nargs="+", help="default all")
    parser.add_argument("--validation", nargs="*", help=f"default {' '.join(VALIDATION)}")
    return run_converter(NAME, convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
