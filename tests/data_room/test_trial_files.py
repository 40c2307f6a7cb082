"""Files with a trial or a few, whatever their format and names."""

from datetime import UTC, datetime

import h5py
import numpy as np
import pytest

from bit_speech.data import read_trial_file

FEATURES = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)


def one(path, **settings):
    (trial,) = read_trial_file(path, **settings)
    return trial


def test_an_npy_file_gives_the_features_alone(tmp_path):
    np.save(tmp_path / "a.npy", FEATURES.astype(np.float64))
    trial = one(tmp_path / "a.npy")
    assert list(trial) == ["features"] and trial["features"].dtype == np.float32
    assert np.array_equal(trial["features"], FEATURES)


def test_an_npz_file_says_what_it_knows_of_the_trial_and_nothing_else(tmp_path):
    kinds = ["threshold_crossings"] * 6
    np.savez(
        tmp_path / "a.npz", neural=FEATURES, session="p.1", block=3, sentence="go on", feature_kinds=kinds, other=1
    )
    trial = one(tmp_path / "a.npz")
    assert np.array_equal(trial.pop("features"), FEATURES)
    assert trial == {"session_id": "p.1", "block_index": 3, "text": "go on", "feature_kinds": kinds}


def test_every_group_of_an_hdf5_file_is_a_trial(tmp_path):
    with h5py.File(tmp_path / "data_train.hdf5", "w") as file:
        for number in range(3):
            group = file.create_group(f"trial_{number:04d}")
            group["input_features"] = FEATURES + number
            group.attrs.update(session="t15.2023.08.11", block_num=2, trial_num=number, sentence_label="I can speak.")
    trials = list(read_trial_file(tmp_path / "data_train.hdf5"))
    assert [trial["trial_index"] for trial in trials] == [0, 1, 2]
    assert all(np.array_equal(trial["features"], FEATURES + number) for number, trial in enumerate(trials))
    assert {(trial["session_id"], trial["block_index"], trial["text"]) for trial in trials} == {
        ("t15.2023.08.11", 2, "I can speak.")
    }


def nwb(path, num_trials):
    pynwb = pytest.importorskip("pynwb")
    file = pynwb.NWBFile("a sentence", "one", datetime(2024, 1, 5, tzinfo=UTC), session_id="p.1")
    file.add_acquisition(pynwb.TimeSeries(name="neural", data=FEATURES, unit="counts", rate=50.0))
    file.add_trial_column("sentence", "what was said")
    for number in range(num_trials):
        file.add_trial(start_time=float(number), stop_time=number + 1.0, sentence="go on")
    with pynwb.NWBHDF5IO(path, "w") as io:
        io.write(file)


def test_an_nwb_file_of_one_trial_is_read_and_one_of_many_is_sent_to_the_converter(tmp_path):
    nwb(tmp_path / "one.nwb", 1)
    trial = one(tmp_path / "one.nwb")
    assert np.array_equal(trial["features"], FEATURES) and (trial["session_id"], trial["text"]) == ("p.1", "go on")
    nwb(tmp_path / "many.nwb", 2)
    with pytest.raises(ValueError, match="2 trials in one recording; cut it with `bit-speech convert participant`"):
        one(tmp_path / "many.nwb")


def test_features_of_another_name_are_named(tmp_path):
    np.savez(tmp_path / "a.npz", mine=FEATURES)
    with pytest.raises(ValueError, match="no array called features, neural, input_features or neural_features, so"):
        one(tmp_path / "a.npz")
    assert np.array_equal(one(tmp_path / "a.npz", field="mine")["features"], FEATURES)
    with pytest.raises(ValueError, match="no array called yours"):
        one(tmp_path / "a.npz", field="yours")


@pytest.mark.parametrize(
    ("values", "message"),
    [(np.array([["a"]]), "not numbers"), (np.array([{}], dtype=object), "would run code")],
)
def test_what_is_no_number_is_refused_and_nothing_is_unpickled(tmp_path, values, message):
    np.savez(tmp_path / "a.npz", features=values)
    with pytest.raises(ValueError, match=message):
        one(tmp_path / "a.npz")


def test_files_that_are_not_there_or_of_another_format_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no recording .*a.npz"):
        one(tmp_path / "a.npz")
    (tmp_path / "a.mat").write_bytes(b"MATLAB")
    with pytest.raises(ValueError, match=r"a.mat is no .npy, .npz, .h5, .hdf5, .nwb file"):
        one(tmp_path / "a.mat")
