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


AREA_ELECTRODES = 128
"""Electrodes of area 6v, and as many of area 44, in the '24 layout."""
# Share of the crossings of -3.5 RMS that also cross -4.5, -5.5 and -6.5: spike amplitudes fall off steeply.
_THRESHOLD_SHARES = {"tx2": 0.45, "tx3": 0.45, "tx4": 0.5}
_FOLDERS_24 = {"train": "train", "val": "test", "test": "competitionHoldOut"}


def write_brain_to_text_24(participant: SimulatedParticipant, output_dir: str | os.PathLike[str]) -> Path:
    """Write the MATLAB v5 files of Brain-to-Text '24: `train`, `test` and `competitionHoldOut`, one file per session.

    Args:
        participant (`SimulatedParticipant`): a participant with a speech task and at most 128 electrodes.
        output_dir (`str` or `os.PathLike`): folder to fill (`competitionData` in the release); files that are already
            there are replaced.

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: when the task has no sentences, or there are more than 128 electrodes.

    Note:
        As in the release (doi:10.5061/dryad.x69p8czpq), the split that is public for validation is in `test`, the
        hidden one in `competitionHoldOut` without its sentences, and features are raw. The participant's electrodes
        are the first of area 6v, places without an electrode are silent, and the 128 channels of area 44 do not depend
        on speech. Crossings of the stricter thresholds `tx2` to `tx4` are a random part of those of the laxer one
        before.
    """
    scipy_io = require("scipy.io")
    _check_speech(participant)
    electrodes = participant.config.num_electrodes
    if electrodes > AREA_ELECTRODES:
        raise ValueError(
            f"{electrodes} electrodes do not fit into area 6v of the '24 layout, which has {AREA_ELECTRODES}"
        )
    folder = Path(output_dir)
    for number, session_id in enumerate(participant.sessions):
        area_44_rates = np.random.default_rng([participant.seed, 5]).gamma(4.0, 0.1, AREA_ELECTRODES)
        for split, name in _FOLDERS_24.items():
            trials = list(participant.trials(split, session_id))
            if not trials:
                continue
            columns: dict[str, list[np.ndarray]] = {key: [] for key in ("tx1", "tx2", "tx3", "tx4", "spikePow")}
            for trial in trials:
                key = [participant.seed, 6, number, trial.block_index, trial.trial_index]
                _fill_trial_24(columns, trial, area_44_rates, np.random.default_rng(key))
            texts = ["" if split == "test" else trial.text or "" for trial in trials]
            width = max(1, *(len(text) for text in texts))
            variables: dict[str, np.ndarray] = {key: _cells(arrays) for key, arrays in columns.items()}
            variables["blockIdx"] = np.array([[trial.block_index] for trial in trials], dtype=np.uint16)
            variables["sentenceText"] = np.array([text.ljust(width) for text in texts])
            path = folder / name / f"{session_id}.mat"
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(path.name + ".partial")
            with open(temporary, "wb") as file:
                scipy_io.savemat(file, variables, format="5", do_compression=True, oned_as="column")
            os.replace(temporary, path)
    return folder


def _fill_trial_24(
    columns: dict[str, list[np.ndarray]], trial: SimulatedTrial, area_44_rates: np.ndarray, rng: np.random.Generator
) -> None:
    electrodes = trial.features.shape[1] // 2
    crossings = np.zeros((trial.num_bins, 2 * AREA_ELECTRODES), dtype=np.int64)
    power = np.zeros((trial.num_bins, 2 * AREA_ELECTRODES), dtype=np.float32)
    crossings[:, :electrodes] = trial.features[:, :electrodes]
    power[:, :electrodes] = trial.features[:, electrodes:]
    crossings[:, AREA_ELECTRODES:] = rng.poisson(area_44_rates, size=(trial.num_bins, AREA_ELECTRODES))
    power[:, AREA_ELECTRODES:] = 40 * np.exp(
        0.3 * rng.standard_normal((trial.num_bins, AREA_ELECTRODES), dtype=np.float32)
    )
    crossings = np.minimum(crossings, 255)
    columns["tx1"].append(crossings.astype(np.uint8))
    for name, share in _THRESHOLD_SHARES.items():
        crossings = rng.binomial(crossings, share)
        columns[name].append(crossings.astype(np.uint8))
    columns["spikePow"].append(power)


def _cells(arrays: list[np.ndarray]) -> np.ndarray:
    cells = np.empty((1, len(arrays)), dtype=object)
    for index, array in enumerate(arrays):
        cells[0, index] = array
    return cells
