"""The Little Prince (Li et al. 2022): preprocessed NIfTI of nine sections in three languages -> a folder of stories.

    python -m datasets_scripts.convert_little_prince --input_dir raw/ds003643 --output_dir runs/prince --language EN

Source: Li et al. 2022, doi:10.1038/s41597-022-01625-7; data OpenNeuro ds003643 (CC0-1.0); TR 2 s, 49 English, 28 French
and 35 Chinese speakers.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bit_speech.data.story_runs import StoryRun, read_wav, write_run, write_story
from bit_speech.data.story_time import scanner_times
from bit_speech.import_utils import require
from datasets_scripts.command import run_converter
from datasets_scripts.story_files import remove_confounds, story_parser

NAME = "little_prince"
SOURCE = "Li et al. 2022, doi:10.1038/s41597-022-01625-7, OpenNeuro ds003643"
LANGUAGES, SECTIONS, TR_S, LEAD_TRS = ("EN", "FR", "CN"), 9, 2.0, 4


def convert(
    input_dir: str,
    output_dir: str,
    language: str = "EN",
    mask: str | None = None,
    participants: list[str] | None = None,
) -> str:
    """Convert all sections of the speakers of one language.

    Args:
        input_dir (`str`): ds003643, with `derivatives` and `stimuli`.
        output_dir (`str`): folder of stories; section 9 is the test, section 8 the validation.
        language (`str`): EN, FR or CN.
        mask (`str`, *optional*): NIfTI of the voxels to keep; default those that change in everybody's first run.
        participants (`list[str]`, *optional*): default all, such as `sub-EN057`.

    Returns:
        `str`: how many participants were converted.

    Raises:
        FileNotFoundError: if runs, sounds or the mask are missing.
        ValueError: if a participant has another number of runs, or a run is shorter than its section.
    """
    if language not in LANGUAGES:
        raise ValueError(f"language is {language!r}; choose one of {', '.join(LANGUAGES)}")
    nibabel = require("nibabel")
    root = Path(input_dir)
    sounds = [_sound(root / "stimuli", language, number) for number in range(1, SECTIONS + 1)]
    folders = sorted((root / "derivatives").glob(f"sub-{language}*"))
    folders = [folder for folder in folders if not participants or folder.name in participants]
    if not folders:
        raise FileNotFoundError(f"{root / 'derivatives'} holds no sub-{language}*")
    runs = {folder.name: sorted(folder.glob("func/*_bold.nii.gz"), key=_run_number) for folder in folders}
    for person, paths in runs.items():
        if len(paths) != SECTIONS:
            raise ValueError(f"{person} has {len(paths)} runs in derivatives; expected {SECTIONS}")
    if mask is None:
        firsts = (
            np.asarray(nibabel.load(paths[0]).dataobj, dtype=np.float32).std(axis=3) > 0 for paths in runs.values()
        )
        kept = np.logical_and.reduce(list(firsts))
    else:
        kept = np.asarray(nibabel.load(mask).dataobj) > 0
    for person, paths in runs.items():
        for number, path in enumerate(paths, 1):
            story = f"{language}_section{number}"
            volume = np.asarray(nibabel.load(path).dataobj, dtype=np.float32)
            if volume.shape[:3] != kept.shape:
                raise ValueError(f"{path.name} has shape {volume.shape[:3]}, the mask {kept.shape}")
            length = int(len(sounds[number - 1]) / 16_000 / TR_S)
            if volume.shape[3] < LEAD_TRS + length:
                raise ValueError(
                    f"{path.name} holds {volume.shape[3]} volumes; section {number} needs {LEAD_TRS + length}"
                )
            rows = slice(LEAD_TRS, LEAD_TRS + length)
            clean = remove_confounds(volume[kept].T, None, path.name)[rows]
            times = scanner_times(volume.shape[3], TR_S, -LEAD_TRS * TR_S)[rows]
            split = {SECTIONS: "test", SECTIONS - 1: "validation"}.get(number, "train")
            write_run(output_dir, StoryRun(person, story, split, clean, times, TR_S, "MNIColin27", SOURCE, "CC0-1.0"))
    for number, audio in enumerate(sounds, 1):
        write_story(output_dir, f"{language}_section{number}", audio)
    return f"{language}: {len(runs)} participants, {SECTIONS} sections, {int(kept.sum())} voxels"


def _run_number(path: Path) -> int:
    return int(path.name.split("_run-")[1].split("_")[0])


def _sound(folder: Path, language: str, number: int) -> np.ndarray:
    paths = sorted(folder.glob(f"task-lpp{language}_section[-_]{number}.wav"))
    if len(paths) != 1:
        raise FileNotFoundError(
            f"{folder} holds {len(paths)} files task-lpp{language}_section-{number}.wav; expected one"
        )
    return read_wav(paths[0])


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: 0, or 2 when the input was refused.
    """
    parser = story_parser(
        NAME,
        "The Little Prince (ds003643): preprocessed NIfTI -> a folder of stories.",
        "Read: derivatives/sub-<language>*/func/*_run-<n>_*_bold.nii.gz, nine each, in order, and\n"
        "stimuli/task-lpp<language>_section-<n>.wav. Sounds begin 4 volumes after the scan.",
    )
    parser.add_argument("--language", default="EN", choices=LANGUAGES)
    parser.add_argument("--mask", help="NIfTI of the voxels to keep")
    parser.add_argument("--participants", nargs="+", help="default all")
    return run_converter(NAME, convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
