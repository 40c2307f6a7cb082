"""Brain-to-Text '24 (participant T12): MATLAB files of the competition -> trials.

    python -m datasets_scripts.convert_brain_to_text_24 --input_dir competitionData --output_dir runs/t12

Source: Willett et al. 2023, doi:10.1038/s41586-023-06377-x; data doi:10.5061/dryad.x69p8czpq (CC0-1.0), file
`competitionData.tar.gz`, which unpacks to `competitionData/{train,test,competitionHoldOut}/t12.YYYY.MM.DD.mat`.
"""

from __future__ import annotations

import argparse
import os
import struct
import sys
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
from scipy.io.matlab import MatReadError

from bit_speech.data.conversion import (
    ConversionReport,
    Problem,
    ShardPlan,
    SourceDescription,
    check_expected,
    run_conversion,
)
from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from datasets_scripts.command import converter_parser, run_converter

PARTICIPANT = "t12"
NUM_ELECTRODES = 256
BIN_SIZE_MS = 20.0
# Quarters of the electrodes, in the order of the columns of every variable.
ARRAYS: tuple[str, ...] = ("superior_6v", "inferior_6v", "inferior_44", "superior_44")
AREAS: tuple[str, ...] = ("6v", "44", "all")
THRESHOLDS: dict[str, float] = {"tx1": -3.5, "tx2": -4.5, "tx3": -5.5, "tx4": -6.5}
FOLDERS: dict[str, str] = {"train": "train", "validation": "test", "test": "competitionHoldOut"}
NUM_TRIALS: dict[str, int] = {"train": 8800, "validation": 880, "test": 1200}

_DAYS = """
2022.04.28 2022.05.05 2022.05.17 2022.05.19 2022.05.24 2022.05.26 2022.06.02 2022.06.07 2022.06.14 2022.06.16 2022.06.21
2022.06.23 2022.06.28 2022.07.05 2022.07.14 2022.07.21 2022.07.27 2022.07.29 2022.08.02 2022.08.11 2022.08.13 2022.08.18
2022.08.23 2022.08.25
"""
SESSIONS: tuple[str, ...] = tuple(f"t12.{day}" for day in _DAYS.split())
# The competition holds out trials of these days only.
_HELD_OUT = (4, 5, 6, 7, 8, 9, 10, 12, 13, 14, 15, 16, 18, 19, 20)
HELD_OUT_SESSIONS: tuple[str, ...] = tuple(SESSIONS[i] for i in _HELD_OUT)

DOI = "doi:10.5061/dryad.x69p8czpq"

# What scipy raises on a damaged file depends on where the damage is.
_UNREADABLE = (OSError, ValueError, TypeError, KeyError, IndexError, zlib.error, MatReadError, NotImplementedError)

EPILOG = """\
what is read:  <input_dir>/{train,test,competitionHoldOut}/t12.YYYY.MM.DD.mat (MATLAB v5)
what is written: <output_dir>/data/{train,validation,test}-<session>.parquet, README.md, conversion.json
               (the competition's `test` is the public validation set, competitionHoldOut the test set without text)
               open it with bit_speech.data.load_trials(output_dir) or datasets.load_dataset(output_dir)

A trial has the crossings of the chosen threshold, then spike-band power, of the chosen electrodes: 256 channels for
area 6v, which the published decoders use.
The complete release has 8,800 / 880 / 1,200 trials of 24 / 24 / 15 sessions; anything else is refused unless
--allow_partial is given, which also leaves out broken trials and lists them.
A run that was stopped goes on where it stopped: give the same command again.

examples:
  python -m datasets_scripts.convert_brain_to_text_24 --input_dir competitionData --output_dir runs/t12
  python -m datasets_scripts.convert_brain_to_text_24 --input_dir competitionData --output_dir runs/t12_all \\
      --area all --threshold tx2
"""


@dataclass(frozen=True)
class _File:
    """One MATLAB file and what is the same for all its trials."""

    path: Path
    name: str
    split: str
    session_id: str
    threshold: str
    area: str


def convert(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    area: str = "6v",
    threshold: str = "tx1",
    allow_partial: bool = False,
    compression: str = "lz4",
    progress: bool = True,
) -> ConversionReport:
    """Convert the Brain-to-Text '24 competition data.

    Args:
        input_dir (`str`): `competitionData`, with the folders `train`, `test` and `competitionHoldOut`.
        output_dir (`str`): dataset to write; a run that was stopped is continued.
        area (`str`, defaults to `"6v"`): electrodes to keep: `"6v"` (columns 0-127), `"44"` (128-255) or `"all"`.
        threshold (`str`, defaults to `"tx1"`): which threshold crossings: `"tx1"` to `"tx4"`, at -3.5, -4.5, -5.5 and
            -6.5 times the root mean square.
        allow_partial (`bool`, defaults to False): convert what is there, whatever the counts, and leave broken trials
            out. Recordings of others in the same layout, also with another number of electrodes (a multiple of 4), are
            then accepted too.
        compression (`str`, defaults to `"lz4"`): of the Parquet files: `"lz4"`, `"zstd"`, `"snappy"`, `"none"`.
        progress (`bool`, defaults to True): show a progress bar.

    Returns:
        `ConversionReport`: counts, what was left out, and what the splits share.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no session.
        ValueError: when the release is not complete or a trial is broken, and `allow_partial` is off; naming file,
            trial and value. Also for an unknown area or threshold.

    Note:
        The public validation set, `test` in the files, is the split `validation` here; `competitionHoldOut` is `test`,
        and its redacted text is null. `trial_index` counts the trials of a file from 0, in its order, which a
        submission needs. `phonemes` are null: the source has none, and the processor makes them from the text.

    Example:
        ```python
        report = convert("competitionData", "runs/t12")
        trials = load_trials("runs/t12")
        ```
    """
    if area not in AREAS:
        raise ValueError(f"area {area!r} is unknown; choose one of {', '.join(AREAS)}")
    if threshold not in THRESHOLDS:
        raise ValueError(f"threshold {threshold!r} is unknown; choose one of {', '.join(THRESHOLDS)}")
    folder = Path(input_dir)
    plans, problems, num_electrodes = _plan(folder, area, threshold, allow_partial)
    check_expected(
        plans,
        problems,
        counts=NUM_TRIALS,
        sessions={"train": SESSIONS, "validation": SESSIONS, "test": HELD_OUT_SESSIONS},
        allow_partial=allow_partial,
    )
    return run_conversion(
        output_dir,
        plans,
        num_channels=num_electrodes * 2 if area == "all" else num_electrodes,
        source=_description(area, threshold, plans),
        problems=problems,
        allow_partial=allow_partial,
        compression=compression,
        progress=progress,
    )


def _participant(session_id: str) -> str:
    return session_id.split(".", 1)[0]


def _description(area: str, threshold: str, plans: Sequence[ShardPlan]) -> SourceDescription:
    channels = (
        f"Channels: threshold crossings at {THRESHOLDS[threshold]} times the root mean square (`{threshold}`), then "
        f"spike-band power, of {'all electrodes' if area == 'all' else f'area {area}'}. `validation` is the files' "
        "`test`, `test` their `competitionHoldOut`, which has no text."
    )
    options = {"area": area, "threshold": threshold}
    others = sorted({_participant(plan.session_id) for plan in plans} - {PARTICIPANT})
    if others:
        return SourceDescription(
            converter="brain_to_text_24",
            title=f"Trials of {', '.join(others)}",
            licence="unknown",
            description=(
                f"Attempted speech of {', '.join(others)}, read from files in the layout of Brain-to-Text '24. These "
                "are not the recordings that were published in that layout."
            ),
            notes=(channels,),
            options=options,
        )
    return SourceDescription(
        converter="brain_to_text_24",
        title="Brain-to-Text '24 trials",
        licence="CC0-1.0",
        description=(
            "Attempted speech of BrainGate2 participant T12, recorded with four 64-electrode arrays in 20 ms bins. "
            "Willett et al. 2023, [doi:10.1038/s41586-023-06377-x](https://doi.org/10.1038/s41586-023-06377-x); data "
            "[doi:10.5061/dryad.x69p8czpq](https://doi.org/10.5061/dryad.x69p8czpq), CC0-1.0."
        ),
        notes=(
            channels,
            "The features are not normalised: z-score them within each block, as the published decoders do. Speech was "
            "mouthed on 2022.06.23, 08.18, 08.23 and 08.25, and vocalised on the other days.",
        ),
        options=options,
    )


def _plan(folder: Path, area: str, threshold: str, allow_partial: bool) -> tuple[list[ShardPlan], list[Problem], int]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: unpack competitionData.tar.gz from {DOI}")
    found = [(split, path) for split, name in FOLDERS.items() for path in sorted((folder / name).glob("*.mat"))]
    if not found:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no train/<session>.mat: give the folder that holds {', '.join(FOLDERS.values())} "
            "(competitionData)"
        )
    files, problems = [], []
    for split, path in found:
        file = _File(path, f"{path.parent.name}/{path.name}", split, path.stem, threshold, area)
        try:
            files.append((file, _count(file)))
        except _UNREADABLE as error:
            problems.append(Problem(file.name, "", _reason(error)))
    electrodes = NUM_ELECTRODES
    if allow_partial and files:
        electrodes = _electrodes([file for file, _ in files], problems)
    kinds, arrays = _channels(area, electrodes)
    plans = [
        ShardPlan(
            split=file.split,
            session_id=file.session_id,
            sources={file.name: file.path},
            num_trials=num_trials,
            read=partial(_trials, file, electrodes, kinds, arrays),
            require_text=file.split != "test",
        )
        for file, num_trials in files
    ]
    return plans, problems, electrodes


def _reason(error: Exception) -> str:
    if isinstance(error, NotImplementedError):
        return f"it is a MATLAB v7.3 file; the release has v5 files: save it with -v7 ({error})"
    if isinstance(error, _LayoutError):
        return str(error)
    return f"truncated or not a MATLAB file: download it again ({error})"


class _LayoutError(ValueError):
    """A readable file with something else in it."""


def _check_complete(path: Path) -> None:
    """Refuse a v5 file that ends before its last variable does, which scipy reads as a file with fewer variables."""
    size = path.stat().st_size
    with open(path, "rb") as file:
        header = file.read(128)
        order = {b"\x00\x01IM": "<", b"\x01\x00MI": ">"}.get(header[124:128])
        if order is None:
            # No v5 file: what else it is, scipy finds out.
            return
        position = len(header)
        while position < size:
            tag = file.read(8)
            if len(tag) == 8:
                position += 8 + struct.unpack(f"{order}II", tag)[1]
            if len(tag) < 8 or position > size:
                raise ValueError(f"it has {size:,} bytes and ends within a variable")
            file.seek(position)


def _count(file: _File) -> int:
    """Number of trials of a file, from its headers alone."""
    _check_complete(file.path)
    shapes = {name: shape for name, shape, _ in scipy.io.whosmat(file.path)}
    needed = [file.threshold, "spikePow", "blockIdx", *(["sentenceText"] if file.split != "test" else [])]
    missing = [name for name in needed if name not in shapes]
    if missing:
        raise _LayoutError(f"no variable {', '.join(missing)}; there are {', '.join(sorted(shapes))}")
    counts = {name: int(np.prod(shapes[name])) for name in (file.threshold, "spikePow", "blockIdx")}
    if len(set(counts.values())) != 1:
        raise _LayoutError(f"the variables differ in their number of trials: {counts}")
    number = counts["blockIdx"]
    if not number:
        raise _LayoutError("it holds no trial")
    return number


def _electrodes(files: Sequence[_File], problems: list[Problem]) -> int:
    """Number of electrodes of the first file that can be read."""
    for file in files:
        try:
            cells = scipy.io.loadmat(file.path, variable_names=["spikePow"])["spikePow"].reshape(-1)
        except _UNREADABLE as error:
            problems.append(Problem(file.name, "", _reason(error)))
            continue
        for cell in cells:
            if cell.ndim == 2 and cell.shape[1]:
                if cell.shape[1] % len(ARRAYS):
                    raise ValueError(f"{file.name} has {cell.shape[1]} electrodes; the layout has four equal arrays")
                return cell.shape[1]
    return NUM_ELECTRODES


def _channels(area: str, electrodes: int) -> tuple[list[str], list[str]]:
    """Kind and array of every channel that is kept."""
    arrays = [array for array in ARRAYS for _ in range(electrodes // len(ARRAYS))][_columns(area, electrodes)]
    return [THRESHOLD_CROSSINGS] * len(arrays) + [SPIKE_BAND_POWER] * len(arrays), arrays * 2


def _columns(area: str, electrodes: int) -> slice:
    half = electrodes // 2
    return {"6v": slice(0, half), "44": slice(half, electrodes), "all": slice(0, electrodes)}[area]


def _trials(file: _File, electrodes: int, kinds: list[str], arrays: list[str]) -> Iterator[dict[str, Any] | Problem]:
    names = [file.threshold, "spikePow", "blockIdx", "sentenceText"]
    try:
        variables = scipy.io.loadmat(file.path, variable_names=names)
    except _UNREADABLE as error:
        yield Problem(file.name, "", _reason(error))
        return
    blocks = variables["blockIdx"].reshape(-1)
    crossings, power = variables[file.threshold].reshape(-1), variables["spikePow"].reshape(-1)
    texts: Sequence[str | None] = [None] * len(blocks)
    if file.split != "test":
        texts = [str(text).strip() or None for text in np.asarray(variables["sentenceText"]).reshape(-1)]
    if len(texts) != len(blocks):
        yield Problem(file.name, "", f"there are {len(texts)} sentences for {len(blocks)} trials")
        return
    participant = _participant(file.session_id)
    columns = _columns(file.area, electrodes)
    for index in range(len(blocks)):
        try:
            features = _features(crossings[index], power[index], columns, electrodes, file.threshold)
        except ValueError as error:
            yield Problem(file.name, f"trial {index}", str(error))
            continue
        # Sessions are long; what has been given away is not needed again.
        crossings[index] = power[index] = None
        yield {
            "participant_id": participant,
            "session_id": file.session_id,
            "block_index": int(blocks[index]),
            "trial_index": index,
            "split": file.split,
            "features": features,
            "bin_size_ms": BIN_SIZE_MS,
            "feature_kinds": kinds,
            "channel_areas": arrays,
            "species": "human",
            "task": "attempted_speech",
            "text": texts[index],
            "phonemes": None,
            "source": f"{DOI} {file.name}" if participant == PARTICIPANT else file.name,
            "licence": "CC0-1.0" if participant == PARTICIPANT else "unknown",
        }


def _features(crossings: Any, power: Any, columns: slice, electrodes: int, threshold: str) -> np.ndarray:
    for name, cell in ((threshold, crossings), ("spikePow", power)):
        if not isinstance(cell, np.ndarray) or cell.dtype.kind not in "fui":
            raise ValueError(f"{name} is {type(cell).__name__} {getattr(cell, 'dtype', '')}; expected numbers")
        if cell.ndim != 2 or cell.shape[1] != electrodes:
            raise ValueError(f"{name} has shape {cell.shape}; expected (bins, {electrodes})")
    if len(crossings) != len(power):
        raise ValueError(f"{threshold} has {len(crossings)} bins, spikePow {len(power)}")
    kept = range(*columns.indices(electrodes))
    features = np.empty((len(power), 2 * len(kept)), dtype=np.float32)
    with np.errstate(over="ignore"):
        features[:, : len(kept)] = crossings[:, columns]
        features[:, len(kept) :] = power[:, columns]
    return features


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of the command.

    Returns:
        `argparse.ArgumentParser`: with help that teaches.
    """
    parser = converter_parser(
        "brain_to_text_24",
        "Brain-to-Text '24 (participant T12) -> trials in Parquet.",
        EPILOG,
        input_help="competitionData: folders train, test, competitionHoldOut",
    )
    parser.add_argument(
        "--area", choices=AREAS, default="6v", help="electrodes to keep (default: 6v, ventral premotor; 44 is Broca's)"
    )
    parser.add_argument(
        "--threshold",
        choices=sorted(THRESHOLDS),
        default="tx1",
        help="threshold crossings at -3.5 (tx1, default), -4.5, -5.5 or -6.5 (tx4) x RMS",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments without the program name; default the process's own.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    return run_converter("brain_to_text_24", convert, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
