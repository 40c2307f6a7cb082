"""Promises of the writers: the official layouts, field by field."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import scipy.io

from bit_speech.simulation import PRESETS, SimulatedParticipant, write_brain_to_text_24, write_brain_to_text_25

CONFIG = replace(
    PRESETS["demo"],
    train_sentences=8,
    val_sentences=2,
    test_sentences=3,
    num_sessions=2,
    sentences_per_block=3,
    num_electrodes=12,
)


@pytest.fixture(scope="module")
def participant() -> SimulatedParticipant:
    return SimulatedParticipant(CONFIG, seed=5)


def test_brain_to_text_25_has_the_official_layout(participant, tmp_path):
    write_brain_to_text_25(participant, tmp_path)
    for split in ("train", "val", "test"):
        for session in participant.sessions:
            trials = list(participant.trials(split, session))
            with h5py.File(tmp_path / session / f"data_{split}.hdf5") as file:
                assert list(file) == [f"trial_{index:04d}" for index in range(len(trials))]
                for group, trial in zip(file.values(), trials, strict=True):
                    assert group["input_features"].shape == (trial.num_bins, 24)
                    assert group["input_features"].dtype == np.float32
                    attributes = dict(group.attrs)
                    assert attributes["n_time_steps"] == trial.num_bins
                    assert attributes["session"] == session
                    assert (attributes["block_num"], attributes["trial_num"]) == (trial.block_index, trial.trial_index)
                    if split == "test":
                        assert set(group) == {"input_features"}
                        assert "sentence_label" not in attributes and "seq_len" not in attributes
                        continue
                    labels = group["seq_class_ids"][:]
                    assert labels.shape == (500,) and np.issubdtype(labels.dtype, np.integer)
                    assert labels[: attributes["seq_len"]].tolist() == trial.phone_ids.tolist()
                    assert not labels[attributes["seq_len"] :].any()
                    characters = group["transcription"][:]
                    assert characters.shape == (500,)
                    assert bytes(characters[characters > 0].astype(np.uint8)).decode() == trial.text
                    assert attributes["sentence_label"] == trial.text


def test_brain_to_text_25_is_scored_within_each_block(participant, tmp_path):
    write_brain_to_text_25(participant, tmp_path)
    with h5py.File(tmp_path / participant.sessions[0] / "data_train.hdf5") as file:
        first_block = np.concatenate(
            [group["input_features"][:] for group in file.values() if group.attrs["block_num"] == 1]
        )
    active = first_block.std(axis=0) > 0
    np.testing.assert_allclose(first_block.mean(axis=0), 0, atol=1e-4)
    np.testing.assert_allclose(first_block[:, active].std(axis=0), 1, atol=1e-4)


def test_brain_to_text_25_has_no_file_for_a_split_without_trials(tmp_path):
    participant = SimulatedParticipant(replace(CONFIG, val_sentences=0, test_sentences=1), seed=5)
    write_brain_to_text_25(participant, tmp_path)
    written = {f"{path.parent.name}/{path.name}" for path in tmp_path.rglob("*") if path.is_file()}
    first, second = participant.sessions
    assert written == {f"{first}/data_train.hdf5", f"{second}/data_train.hdf5", f"{second}/data_test.hdf5"}


def test_brain_to_text_24_has_the_official_layout(participant, tmp_path):
    write_brain_to_text_24(participant, tmp_path)
    for split, folder in (("train", "train"), ("val", "test"), ("test", "competitionHoldOut")):
        for session in participant.sessions:
            trials = list(participant.trials(split, session))
            content = scipy.io.loadmat(tmp_path / folder / f"{session}.mat")
            number = len(trials)
            assert content["blockIdx"].shape == (number, 1)
            assert content["blockIdx"].ravel().tolist() == [trial.block_index for trial in trials]
            texts = [text.strip() for text in content["sentenceText"]]
            assert texts == ([""] * number if split == "test" else [trial.text for trial in trials])
            for key in ("tx1", "tx2", "tx3", "tx4", "spikePow"):
                assert content[key].shape == (1, number)
                assert content[key][0, 0].shape == (trials[0].num_bins, 256)
            np.testing.assert_array_equal(content["tx1"][0, -1][:, :12], trials[-1].features[:, :12])
            np.testing.assert_array_equal(content["spikePow"][0, -1][:, :12], trials[-1].features[:, 12:])
            assert not content["tx1"][0, 0][:, 12:128].any() and content["tx1"][0, 0][:, 128:].any()
            crossings = [content[f"tx{number}"][0, 0].astype(int) for number in (1, 2, 3, 4)]
            assert all(
                (lax >= strict).all() and lax.sum() > strict.sum() for lax, strict in zip(crossings, crossings[1:])
            )


def test_too_many_electrodes_for_area_6v_are_refused(tmp_path):
    participant = SimulatedParticipant(replace(CONFIG, num_electrodes=160))
    with pytest.raises(ValueError, match="160 electrodes"):
        write_brain_to_text_24(participant, tmp_path)


@pytest.mark.parametrize("write", [write_brain_to_text_24, write_brain_to_text_25])
def test_a_movement_does_not_fit_a_speech_layout(write, tmp_path):
    with pytest.raises(ValueError, match="handwriting"):
        write(SimulatedParticipant(replace(CONFIG, task="handwriting")), tmp_path)
