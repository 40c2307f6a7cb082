"""Writing a simulated participant in the official layouts of the Brain-to-Text benchmarks."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path

import numpy as np

from bit_speech.import_utils import require

from .intracortical import SPLITS, SimulatedParticipant, SimulatedTrial

LABEL_LENGTH = 500
"""Length of the zero-padded label arrays in both benchmarks."""


def _blocks(participant: SimulatedParticipant, split: str, session_id: str) -> Iterator[list[SimulatedTrial]]:
    trials = participant.trials(split, session_id)
    for _, block in groupby(trials, key=lambda trial: trial.block_index):
        yield list(block)


def _check_speech(participant: SimulatedParticipant) -> None:
    if not participant.has_text:
        raise ValueError(
            f"task {participant.config.task!r} has no sentences: the Brain-to-Text layouts hold speech only"
        )


def _padded(values: Iterable[int], what: str) -> np.ndarray:
    values = np.fromiter(values, dtype=np.int32)
    if len(values) > LABEL_LENGTH:
        raise ValueError(
            f"a sentence has {len(values)} {what}, more than the {LABEL_LENGTH} of the layout: lower max_words"
        )
    return np.pad(values, (0, LABEL_LENGTH - len(values)))


def write_brain_to_text_25(participant: SimulatedParticipant, output_dir: str | os.PathLike[str]) -> Path:
    """Write the HDF5 files of Brain-to-Text '25: one folder per session, one file per split, one group per trial.

    Args:
        participant (`SimulatedParticipant`): a participant with a speech task.
        output_dir (`str` or `os.PathLike`): folder to fill; files that are already there are replaced.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: when the task has no sentences, or one is longer than the layout allows.

    Note:
        As in the release (doi:10.5061/dryad.dncjsxm85), features are z-scored within each block, the test split has no
        labels, and a split without trials on a day has no file. Truth of the test split: `participant.trials("test")`.
    """
    h5py = require("h5py")
    _check_speech(participant)
    folder = Path(output_dir)
    for session_id in participant.sessions:
        for split in SPLITS:
            blocks = _blocks(participant, split, session_id)
            first = next(blocks, None)
            if first is None:
                continue
            path = folder / session_id / f"data_{split}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".partial")
            with h5py.File(temporary, "w") as file:
                index = 0
                for block in _chain_first(first, blocks):
                    values = np.concatenate([trial.features for trial in block]).astype(np.float64)
                    mean, std = values.mean(axis=0), values.std(axis=0)
                    for trial in block:
                        features = ((trial.features - mean) / (std + 1e-8)).astype(np.float32)
                        group = file.create_group(f"trial_{index:04d}")
                        _fill_group(group, trial, features, with_labels=split != "test")
                        index += 1
            os.replace(temporary, path)
    return folder


def _chain_first(first: list[SimulatedTrial], rest: Iterator[list[SimulatedTrial]]) -> Iterator[list[SimulatedTrial]]:
    yield first
    yield from rest


def _fill_group(group, trial: SimulatedTrial, features: np.ndarray, with_labels: bool) -> None:
    group.create_dataset("input_features", data=features)
    group.attrs["n_time_steps"] = trial.num_bins
    group.attrs["session"] = trial.session_id
    group.attrs["block_num"] = trial.block_index
    group.attrs["trial_num"] = trial.trial_index
    if with_labels and trial.text is not None:
        group.create_dataset("seq_class_ids", data=_padded(trial.phone_ids, "phonemes"))
        group.create_dataset("transcription", data=_padded(trial.text.encode("ascii"), "characters"))
        group.attrs["seq_len"] = len(trial.phone_ids)
        group.attrs["sentence_label"] = trial.text
