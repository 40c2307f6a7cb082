"""Brain-to-Text '25 (participant T15): HDF5 files of the release -> trials.

    python -m datasets_scripts.convert_brain_to_text_25 --input_dir hdf5_data_final --output_dir runs/t15

Source: Card et al. 2024, doi:10.1056/NEJMoa2314132; data doi:10.5061/dryad.dncjsxm85 (CC0-1.0), file
`t15_copyTask_neuralData.zip`, which unpacks to `hdf5_data_final/t15.YYYY.MM.DD/data_{train,val,test}.hdf5`.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from bit_speech.data.conversion import (
    ConversionReport,
    Problem,
    ShardPlan,
    SourceDescription,
    check_expected,
    run_conversion,
)
from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from configuration_bit.phoneme_inventory_bit import BLANK_TOKEN, CLASS_ORDERS
from datasets_scripts.command import converter_parser, run_converter

# In the order of the columns, once for threshold crossings and once for spike-band power.
AREAS: tuple[str, ...] = ("ventral_6v", "area_4", "55b", "dorsal_6v")
PARTICIPANT = "t15"
NUM_CHANNELS = 512
BIN_SIZE_MS = 20.0
FILES: dict[str, str] = {"train": "data_train.hdf5", "validation": "data_val.hdf5", "test": "data_test.hdf5"}
NUM_TRIALS: dict[str, int] = {"train": 8072, "validation": 1426, "test": 1450}

_DAYS = """
2023.08.11 2023.08.13 2023.08.18 2023.08.20 2023.08.25 2023.08.27 2023.09.01 2023.09.03 2023.09.24 2023.09.29 2023.10.01
2023.10.06 2023.10.08 2023.10.13 2023.10.15 2023.10.20 2023.10.22 2023.11.03 2023.11.04 2023.11.17 2023.11.19 2023.11.26
2023.12.03 2023.12.08 2023.12.10 2023.12.17 2023.12.29 2024.02.25 2024.03.03 2024.03.08 2024.03.15 2024.03.17 2024.04.25
2024.04.28 2024.05.10 2024.06.14 2024.07.19 2024.07.21 2024.07.28 2025.01.10 2025.01.12 2025.03.14 2025.03.16 2025.03.30
2025.04.13
"""
SESSIONS: tuple[str, ...] = tuple(f"t15.{day}" for day in _DAYS.split())
TRAIN_ONLY_SESSIONS: frozenset[str] = frozenset(
    {"t15.2023.08.11", "t15.2024.03.03", "t15.2024.04.25", "t15.2024.04.28"}
)

DOI = "doi:10.5061/dryad.dncjsxm85"

EPILOG = """\
what is read:  <input_dir>/<session>/data_{train,val,test}.hdf5, one group per trial (trial_0000, ...)
what is written: <output_dir>/data/{train,validation,test}-<session>.parquet, README.md, conversion.json
               open it with bit_speech.data.load_trials(output_dir) or datasets.load_dataset(output_dir)

The complete release has 8,072 / 1,426 / 1,450 trials of 45 sessions (41 with val and test); anything else is refused
unless --allow_partial is given, which also leaves out broken trials and lists them.
A run that was stopped goes on where it stopped: give the same command again.

examples:
  python -m datasets_scripts.convert_brain_to_text_25 --input_dir hdf5_data_final --output_dir runs/t15
  python -m datasets_scripts.convert_brain_to_text_25 --input_dir one_day --output_dir runs/day --allow_partial
"""


@dataclass(frozen=True)
class _File:
    """One HDF5 file and what is the same for all its trials."""

    path: Path
    name: str
    split: str
    session_id: str
    class_order: str


def convert(
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    allow_partial: bool = False,
    areas: Sequence[str] | None = None,
    class_order: str = "model",
    compression: str = "lz4",
    progress: bool = True,
) -> ConversionReport:
    """Convert the Brain-to-Text '25 release.

    Args:
        input_dir (`str`): `hdf5_data_final`, with one folder per session.
        output_dir (`str`): dataset to write; a run that was stopped is continued.
        allow_partial (`bool`, defaults to False): convert what is there, whatever the counts, and leave broken trials
            out. Recordings of others in the same layout, also with another number of channels, are then accepted too.
        areas (`list[str]`, *optional*): area of each array, in the order of the channels, all arrays equally large.
            Default: the four of the release for 512 channels, else `"unknown"`.
        class_order (`str`, defaults to `"model"`): order of the 41 classes in `seq_class_ids`: `"model"`, which the
            release has (blank 0, AA..ZH 1-39, SIL 40), `"lm"` or `"tf24"`. An HDF5 file with the attribute
            `class_order` must agree.
        compression (`str`, defaults to `"lz4"`): of the Parquet files: `"lz4"`, `"zstd"`, `"snappy"`, `"none"`.
        progress (`bool`, defaults to True): show a progress bar.

    Returns:
        `ConversionReport`: counts, what was left out, and what the splits share.

    Raises:
        FileNotFoundError: when the folder does not exist or holds no session.
        ValueError: when the release is not complete or a trial is broken, and `allow_partial` is off; naming file,
            trial and value. Also for an unknown class order.

    Note:
        `phonemes` come from `seq_class_ids`, `text` from `sentence_label`; the test split has neither. `trial_index` is
        `trial_num`, and rows keep the order of the file, which a submission needs. The data's documentation says that
        features were z-scored with the preceding 20 trials; they are written as they are
        (`bit_speech.data.check_normalization` looks for itself).

    Example:
        ```python
        report = convert("hdf5_data_final", "runs/t15")
        trials = load_trials("runs/t15")
        ```
    """
    if class_order not in CLASS_ORDERS:
        raise ValueError(
            f"class order {class_order!r} is unknown: name one of {', '.join(CLASS_ORDERS)}; it is not guessed"
        )
    folder = Path(input_dir)
    plans, problems, num_channels = _plan(folder, class_order, allow_partial, areas)
    check_expected(
        plans,
        problems,
        counts=NUM_TRIALS,
        sessions={
            split: [name for name in SESSIONS if split == "train" or name not in TRAIN_ONLY_SESSIONS] for split in FILES
        },
        allow_partial=allow_partial,
    )
    return run_conversion(
        output_dir,
        plans,
        num_channels=num_channels,
        source=_description({"class_order": class_order, "areas": None if areas is None else list(areas)}, plans),
        problems=problems,
        allow_partial=allow_partial,
        compression=compression,
        progress=progress,
    )


def _description(options: Mapping[str, Any], plans: Sequence[ShardPlan]) -> SourceDescription:
    order = f"Class order of the labels that were read: `{options['class_order']}`. Here phonemes are names."
    others = sorted({_participant(plan.session_id) for plan in plans} - {PARTICIPANT})
    if others:
        return SourceDescription(
            converter="brain_to_text_25",
            title=f"Trials of {', '.join(others)}",
            licence="unknown",
            description=(
                f"Attempted speech of {', '.join(others)}, read from files in the layout of Brain-to-Text '25. These "
                "are not the recordings that were published in that layout."
            ),
            notes=(order, "`validation` is the files' `val`."),
            options=options,
        )
    return SourceDescription(
        converter="brain_to_text_25",
        title="Brain-to-Text '25 trials",
        licence="CC0-1.0",
        description=(
            "Attempted speech of BrainGate2 participant T15, recorded with four 64-electrode arrays: threshold "
            "crossings (-4.5 RMS) and spike-band power in 20 ms bins. Card et al. 2024, "
            "[doi:10.1056/NEJMoa2314132](https://doi.org/10.1056/NEJMoa2314132); data "
            "[doi:10.5061/dryad.dncjsxm85](https://doi.org/10.5061/dryad.dncjsxm85), CC0-1.0."
        ),
        notes=(
            order,
            "`validation` is the release's `val`. The test split has no labels. According to the documentation of the "
            "data, features were z-scored with the preceding 20 trials before publication; vocalised and silent "
            "attempts are not told apart.",
        ),
        options=options,
    )


def _participant(session_id: str) -> str:
    return session_id.split(".", 1)[0]


def _plan(
    folder: Path, class_order: str, allow_partial: bool, areas: Sequence[str] | None
) -> tuple[list[ShardPlan], list[Problem], int]:
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: unpack t15_copyTask_neuralData.zip from {DOI}")
    paths = sorted(path for file in FILES.values() for path in folder.glob(f"*/{file}"))
    if not paths:
        raise FileNotFoundError(
            f"{str(folder)!r} holds no <session>/data_train.hdf5: give the folder that holds t15.YYYY.MM.DD "
            "and so on (hdf5_data_final)"
        )
    splits = {file: split for split, file in FILES.items()}
    files, problems = [], []
    for path in paths:
        name = f"{path.parent.name}/{path.name}"
        try:
            num_trials, num_channels = _look(path, class_order)
        except (OSError, ValueError) as error:
            reason = "truncated or not an HDF5 file: download it again" if isinstance(error, OSError) else ""
            problems.append(Problem(name, "", f"{reason} ({error})" if reason else str(error)))
            continue
        if not num_trials:
            problems.append(Problem(name, "", "it holds no trial"))
            continue
        files.append((_File(path, name, splits[path.name], path.parent.name, class_order), num_trials, num_channels))
    num_channels = _num_channels([channels for _, _, channels in files], allow_partial)
    kinds, areas = _channels(num_channels, areas)
    plans = [
        ShardPlan(
            split=file.split,
            session_id=file.session_id,
            sources={file.name: file.path},
            num_trials=num_trials,
            read=partial(_trials, file, kinds, areas),
            require_text=file.split != "test",
        )
        for file, num_trials, _ in files
    ]
    return plans, problems, num_channels


def _look(path: Path, class_order: str) -> tuple[int, int]:
    """Number of trials and of channels of a file."""
    with h5py.File(path, "r") as file:
        stated = file.attrs.get("class_order", class_order)
        stated = stated.decode() if isinstance(stated, bytes) else str(stated)
        if stated != class_order:
            raise ValueError(f"the file states class order {stated!r}, but {class_order!r} was asked for")
        for group in file.values():
            features = group.get("input_features") if isinstance(group, h5py.Group) else None
            if isinstance(features, h5py.Dataset) and features.ndim == 2:
                return len(file), features.shape[1]
        return len(file), NUM_CHANNELS


def _num_channels(channels: Sequence[int], allow_partial: bool) -> int:
    """The number of channels of most files; a file that differs is refused when its trials are read."""
    most = max(sorted(set(channels)), key=list(channels).count) if channels else NUM_CHANNELS
    if most != NUM_CHANNELS and not allow_partial:
        raise ValueError(
            f"the files have {most} channels, the release has {NUM_CHANNELS}: pass allow_partial=True "
            "(--allow_partial) when this is another participant in the same layout"
        )
    if most % 2:
        raise ValueError(f"the files have {most} channels; the layout has crossings, then as many of spike-band power")
    return most


def _channels(num_channels: int, areas: Sequence[str] | None) -> tuple[list[str], list[str]]:
    """Kind and area of every channel."""
    if areas is None:
        areas = AREAS if num_channels == NUM_CHANNELS else ("unknown",)
    electrodes = num_channels // 2
    if isinstance(areas, str) or not areas or electrodes % len(areas):
        raise ValueError(
            f"areas is {areas!r}: give a list of names, one per array; {electrodes} electrodes share equally"
        )
    kinds = [THRESHOLD_CROSSINGS] * electrodes + [SPIKE_BAND_POWER] * electrodes
    return kinds, [area for area in areas for _ in range(electrodes // len(areas))] * 2


def _trials(file: _File, kinds: list[str], areas: list[str]) -> Iterator[dict[str, Any] | Problem]:
    with h5py.File(file.path, "r") as handle:
        for key in handle:
            try:
                yield _trial(handle[key], file, kinds, areas)
            except (OSError, ValueError) as error:
                yield Problem(file.name, key, str(error))


def _trial(group: Any, file: _File, kinds: list[str], areas: list[str]) -> dict[str, Any]:
    if not isinstance(group, h5py.Group):
        raise ValueError("it is not a group; a trial is a group with input_features")
    attributes = dict(group.attrs)
    session = _text(_required(attributes, "session"), "session")
    if session != file.session_id:
        raise ValueError(f"its session is {session!r}, but it lies in the folder {file.session_id!r}")
    participant = _participant(session)
    text, phonemes = None, None
    if file.split != "test":
        text = _text(_required(attributes, "sentence_label"), "sentence_label").strip() or None
        phonemes = _phonemes(group, int(_required(attributes, "seq_len")), file.class_order)
    return {
        "participant_id": participant,
        "session_id": session,
        "block_index": int(_required(attributes, "block_num")),
        "trial_index": int(_required(attributes, "trial_num")),
        "split": file.split,
        "features": _features(group, int(_required(attributes, "n_time_steps"))),
        "bin_size_ms": BIN_SIZE_MS,
        "feature_kinds": kinds,
        "channel_areas": areas,
        "species": "human",
        "task": "attempted_speech",
        "text": text,
        "phonemes": phonemes,
        "source": f"{DOI} {file.name}" if participant == PARTICIPANT else file.name,
        "licence": "CC0-1.0" if participant == PARTICIPANT else "unknown",
    }


def _required(attributes: Mapping[str, Any], name: str) -> Any:
    if name not in attributes:
        raise ValueError(f"the attribute {name!r} is missing; there are {', '.join(sorted(attributes)) or 'none'}")
    return attributes[name]


def _text(value: Any, name: str) -> str:
    if isinstance(value, np.ndarray) and value.size == 1:
        value = value.reshape(-1)[0]
    if isinstance(value, bytes):
        return value.decode("utf-8")
    if isinstance(value, str):
        return str(value)
    raise ValueError(f"{name} is {value!r}, which is no text")


def _dataset(group: Any, name: str) -> Any:
    dataset = group.get(name)
    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"the dataset {name!r} is missing; there are {', '.join(group) or 'none'}")
    return dataset


def _features(group: Any, num_bins: int) -> np.ndarray:
    dataset = _dataset(group, "input_features")
    if dataset.ndim != 2 or dataset.dtype.kind != "f":
        raise ValueError(
            f"input_features is {dataset.dtype} of shape {dataset.shape}; expected floats (bins, channels)"
        )
    if not 0 < num_bins <= dataset.shape[0]:
        raise ValueError(f"n_time_steps is {num_bins}, but input_features has {dataset.shape[0]} bins")
    features = dataset[:num_bins]
    if features.dtype == np.float32:
        return features
    with np.errstate(over="ignore"):
        # A value too large for float32 becomes infinite, which the check of every trial refuses.
        return features.astype(np.float32)


def _phonemes(group: Any, length: int, class_order: str) -> str:
    ids = np.asarray(_dataset(group, "seq_class_ids")[()])
    names = CLASS_ORDERS[class_order]
    if not 0 < length <= len(ids):
        raise ValueError(f"seq_len is {length}, but seq_class_ids has {len(ids)} entries")
    ids = ids[:length]
    if ids.min() < 0 or ids.max() >= len(names):
        raise ValueError(f"seq_class_ids holds {int(ids.min())}..{int(ids.max())}; the classes are 0..{len(names) - 1}")
    phonemes = [names[i] for i in ids]
    if BLANK_TOKEN in phonemes:
        raise ValueError(
            f"label {phonemes.index(BLANK_TOKEN)} of {length} is the blank: either seq_len or the class order "
            f"{class_order!r} is wrong"
        )
    return " ".join(phonemes)


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of the command.

    Returns:
        `argparse.ArgumentParser`: with help that teaches.
    """
    parser = converter_parser(
        "brain_to_text_25",
        "Brain-to-Text '25 (participant T15) -> trials in Parquet.",
        EPILOG,
        input_help="hdf5_data_final: one folder per session, with its HDF5 files",
    )
    parser.add_argument(
        "--areas", nargs="+", help="area of each array, in channel order (default: T15's four for 512 channels)"
    )
    parser.add_argument(
        "--class_order",
        choices=sorted(CLASS_ORDERS),
        default="model",
        help="order of the 41 classes in the labels; the release has 'model' (default)",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments without the program name; default the process's own.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    return run_converter("brain_to_text_25", convert, build_parser().parse_args(argv))


if __name__ == "__main__":
    sys.exit(main())
