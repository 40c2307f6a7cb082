"""Any BIDS data set in which participants hear sounds: NIfTI in one space, events -> a folder of stories.

    python -m datasets_scripts.convert_bids_stories --input_dir raw/ds --output_dir runs/ds --space MNI152NLin6Asym

A run is taken for every row of an events table whose `stim_file` names a wav file; its `onset` says when that began.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from bit_speech.data.story_runs import StoryRun, read_wav, write_run, write_story
from bit_speech.data.story_time import scanner_times
from bit_speech.import_utils import require
from datasets_scripts.command import run_converter
from datasets_scripts.story_files import read_confounds, remove_confounds, story_parser

NAME = "bids_stories"


def convert(
    input_dir: str, output_dir: str, space: str | None = None, mask: str | None = None, source: str = "BIDS data set",
    licence: str = "see the source", confounds: list[str] | None = None, test: list[str] | None = None,
) -> str:  # fmt: skip
    """Convert every sound of every events table.

    Args:
        input_dir (`str`): a BIDS data set; BOLD is taken from `derivatives/fmriprep` when that is there.
        output_dir (`str`): folder of stories.
        space (`str`, *optional*): the `space-` of the BOLD; default the raw one.
        mask (`str`, *optional*): NIfTI of the voxels to keep, one for all participants; default those that ever change
            in the participant's first run.
        source (`str`): where the recordings come from.
        licence (`str`): of the recordings.
        confounds (`list[str]`, *optional*): columns of fMRIPrep's table to take out.
        test (`list[str]`, *optional*): stories for tests.

    Returns:
        `str`: participants and their stories.

    Raises:
        FileNotFoundError: if there are no events with sounds, or BOLD is missing.
        ValueError: if a sound ends after its run.
    """
    nibabel = require("nibabel")
    root = Path(input_dir)
    prepared = root / "derivatives" / "fmriprep"
    tables = sorted(root.glob("sub-*/**/func/*_events.tsv")) + sorted(root.glob("sub-*/func/*_events.tsv"))
    kept = None if mask is None else np.asarray(nibabel.load(mask).dataobj) > 0
    masks: dict[str, np.ndarray] = {}
    found: dict[str, list[str]] = {}
    for table in dict.fromkeys(tables):
        sounds = [(onset, name) for onset, name in _sounds(table)]
        if not sounds:
            continue
        stem, person = table.name.removesuffix("_events.tsv"), table.name.split("_")[0]
        folder = prepared / table.parent.relative_to(root) if prepared.is_dir() else table.parent
        name = f"{stem}_space-{space}*_bold.nii.gz" if space else f"{stem}_bold.nii.gz"
        images = sorted(folder.glob(name))
        if len(images) != 1:
            raise FileNotFoundError(f"{folder} holds {len(images)} files {name}; expected one")
        image = nibabel.load(images[0])
        tr_s = _repetition_time(table, image)
        volume = np.asarray(image.dataobj, dtype=np.float32)
        if person not in masks:
            masks[person] = kept if kept is not None else volume.std(axis=3) > 0
        if masks[person].shape != volume.shape[:3]:
            raise ValueError(f"the mask has shape {masks[person].shape}, {images[0].name} {volume.shape[:3]}")
        columns = None
        if confounds:
            columns = read_confounds(next(folder.glob(f"{stem}_*confounds*.tsv")), confounds)
        clean = remove_confounds(volume[masks[person]].T, columns, stem)
        for onset, sound in sounds:
            audio = read_wav(root / "stimuli" / sound)
            first = int(np.ceil(onset / tr_s))
            last = int((onset + len(audio) / 16_000) / tr_s)
            if last > len(clean):
                raise ValueError(f"{stem}: {sound} needs {last} volumes, the run has {len(clean)}")
            story = Path(sound).stem
            times = scanner_times(len(clean), tr_s, -onset)
            split = "test" if story in (test or []) else "train"
            write_run(
                output_dir,
                StoryRun(
                    person, story, split, clean[first:last], times[first:last], tr_s, space or "native", source, licence
                ),
            )
            write_story(output_dir, story, audio)
            found.setdefault(person, []).append(story)
    if not found:
        raise FileNotFoundError(f"{root} holds no events table with a wav file in its column stim_file")
    return "\n".join(f"{person}: {', '.join(stories)}" for person, stories in found.items())


def _sounds(table: Path) -> list[tuple[float, str]]:
    lines = [line.split("\t") for line in table.read_text(encoding="utf-8").strip().splitlines()]
    if not lines or "stim_file" not in lines[0]:
        return []
    onset, name = lines[0].index("onset"), lines[0].index("stim_file")
    return [(float(row[onset]), row[name]) for row in lines[1:] if row[name].endswith(".wav")]


def _repetition_time(table: Path, image: object) -> float:
    sidecar = table.with_name(table.name.replace("_events.tsv", "_bold.json"))
    if sidecar.is_file():
        return float(json.loads(sidecar.read_text(encoding="utf-8"))["RepetitionTime"])
    return float(image.header.get_zooms()[3])  # type: ignore[attr-defined]


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: 0, or 2 when the input was refused.
    """
    parser = story_parser(
        NAME,
        "Any BIDS data set with sounds: NIfTI and events -> a folder of stories.",
        "Read: sub-*/[ses-*/]func/*_events.tsv (onset, stim_file), the BOLD beside it or in derivatives/fmriprep, its\n"
        "RepetitionTime, stimuli/<stim_file>.",
    )
    parser.add_argument("--space", help="space- of the BOLD, such as MNI152NLin2009cAsym (default: raw)")
    parser.add_argument("--mask", help="NIfTI of the voxels to keep; participants share voxels only with one mask")
    parser.add_argument("--source", default="BIDS data set", help="where the recordings come from")
    parser.add_argument("--licence", default="see the source", help="licence of the recordings")
    parser.add_argument("--confounds", nargs="*", help="columns of fMRIPrep's table to take out")
    parser.add_argument("--test", nargs="*", help="stories for tests")
    return run_converter(NAME, convert, parser.parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
