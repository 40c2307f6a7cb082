"""Files that visitors bring: what is read, and what is refused in words."""

from dataclasses import replace

import h5py
import numpy as np
import pytest
import trials
from trials import Trial, UnreadableTrial, check_trial, read_trial

from bit_speech import BITFeatureExtractor

CHANNELS = 6


def extractor(**settings):
    return BITFeatureExtractor(**{"participants": {"sim": CHANNELS}, "normalization": "none"} | settings)


def features(bins=40, channels=CHANNELS):
    return np.random.default_rng(0).normal(size=(bins, channels)).astype(np.float32)


def trial(values, **known):
    return Trial(name="mine", features=values, feature_kinds=(), **known)


def refusal(work, *arguments):
    with pytest.raises(UnreadableTrial) as refused:
        work(*arguments)
    return str(refused.value)


def test_an_npz_file_gives_its_features_and_what_else_it_knows(tmp_path):
    kinds = ["threshold_crossings"] * 3 + ["spike_band_power"] * 3
    np.savez(
        tmp_path / "a.npz", features=features().astype(np.float64), session="sim.2024.01.05", sentence="go on",
        participant_id="sim", feature_kinds=kinds,
    )  # fmt: skip
    found = read_trial(tmp_path / "a.npz")
    assert np.array_equal(found.features, features()) and found.features.dtype == np.float32
    assert (found.session_id, found.text, found.participant_id) == ("sim.2024.01.05", "go on", "sim")
    assert list(found.feature_kinds) == kinds and not found.simulated


def test_an_hdf5_file_gives_the_first_of_its_trials(tmp_path):
    with h5py.File(tmp_path / "a.hdf5", "w") as file:
        file.attrs["session"] = "sim.2024.01.05"
        for number in range(2):
            file.create_group(f"trial_{number:04d}")["input_features"] = features() + number
    found = read_trial(tmp_path / "a.hdf5")
    assert np.array_equal(found.features, features()) and found.session_id == "sim.2024.01.05"


def test_an_nwb_file_gives_the_series_of_that_name(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    from datetime import UTC, datetime

    file = pynwb.NWBFile("a sentence", "one", datetime(2024, 1, 5, tzinfo=UTC), session_id="sim.2024.01.05")
    file.add_acquisition(pynwb.TimeSeries(name="neural", data=features(), unit="counts", rate=50.0))
    with pynwb.NWBHDF5IO(tmp_path / "a.nwb", "w") as io:
        io.write(file)
    found = read_trial(tmp_path / "a.nwb")
    assert np.array_equal(found.features, features()) and found.session_id == "sim.2024.01.05"


def test_files_of_other_formats_are_refused_with_those_that_are_read(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"MATLAB")
    said = refusal(read_trial, tmp_path / "a.mat")
    assert "a.mat is a .mat file; this page reads .npz, .h5, .hdf5, .nwb." in said and "numpy.savez" in said


def test_an_empty_file_and_a_damaged_one_are_told_apart(tmp_path):
    (tmp_path / "a.npz").touch()
    assert "empty file (0 bytes)" in refusal(read_trial, tmp_path / "a.npz")
    for name in ("b.npz", "b.h5", "b.nwb"):
        (tmp_path / name).write_bytes(b"\x00" * 100)
        assert f"{name} cannot be read as {name[2:]}" in refusal(read_trial, tmp_path / name)


def test_a_file_without_such_an_array_is_told_the_names(tmp_path):
    np.savez(tmp_path / "a.npz", other=features())
    said = refusal(read_trial, tmp_path / "a.npz")
    assert (
        "a.npz cannot be read as npz: it has no array called features, neural, input_features or neural_features"
        in said
    )


def test_text_and_python_objects_in_the_place_of_numbers_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", features=np.array([["a", "b"]]))
    assert "not numbers" in refusal(read_trial, tmp_path / "a.npz")
    np.savez(tmp_path / "b.npz", features=np.array([{}, {}], dtype=object))
    assert "numpy.savez" in refusal(read_trial, tmp_path / "b.npz")


def test_a_file_that_unpacks_to_far_more_than_it_weighs_is_refused_before_it_is_unpacked(tmp_path, monkeypatch):
    monkeypatch.setattr(trials, "MAX_BYTES", 1_000_000)
    np.savez_compressed(tmp_path / "a.npz", features=np.zeros((100_000, CHANNELS), dtype=np.float32))
    assert (tmp_path / "a.npz").stat().st_size < 10_000
    assert "the most is 1 MB" in refusal(read_trial, tmp_path / "a.npz")
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("features", (100_000, CHANNELS), dtype="f4", compression="gzip")
    assert "the most is 1 MB" in refusal(read_trial, tmp_path / "a.h5")


def test_a_file_that_points_at_other_files_is_refused(tmp_path):
    with h5py.File(tmp_path / "secret.h5", "w") as file:
        file["features"] = features()
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["features"] = h5py.ExternalLink(str(tmp_path / "secret.h5"), "features")
    assert "link.h5 keeps 'features' in another file." in refusal(read_trial, tmp_path / "link.h5")
    (tmp_path / "secret.raw").write_bytes(features().tobytes())
    with h5py.File(tmp_path / "raw.h5", "w") as file:
        file.create_dataset("features", (40, CHANNELS), "f4", external=[(str(tmp_path / "secret.raw"), 0, 960)])
    assert "raw.h5 keeps 'features' in another file." in refusal(read_trial, tmp_path / "raw.h5")


def test_a_good_trial_is_let_through_with_its_participant_and_its_channels_named():
    found = check_trial(trial(features()), extractor(), 5)
    assert found.participant_id == "sim"
    assert found.feature_kinds == ("threshold_crossings",) * 3 + ("spike_band_power",) * 3


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (features(channels=5), "mine has 5 channels, but the model reads 6. Upload a recording of the participant"),
        (features(bins=CHANNELS, channels=40), "It seems to be transposed: bins come first, so save array.T."),
        (features(bins=0), "mine is empty: 0 bins of 6 channels."),
        (features(bins=4), "mine has 4 bins, and the model needs at least 5."),
        (features(bins=3001), "mine is 60 s long; the most is 60 s. Cut it into sentences."),
        (features()[0], "mine has an array of shape (6,); a trial has two axes"),
        (np.where(np.arange(240).reshape(40, 6) == 45, np.nan, features()), "1 values that are no numbers"),
        (np.where(np.arange(240).reshape(40, 6) == 45, np.inf, features()), "the first at bin 7, channel 3"),
    ],
)
def test_what_the_model_cannot_read_is_refused_with_a_remedy(values, said):
    assert said in refusal(check_trial, trial(values), extractor(), 5)


def test_a_recording_of_another_participant_is_refused():
    assert "is of participant 't15'; the model knows sim." in refusal(
        check_trial, trial(features(), participant_id="t15"), extractor(), 5
    )
    two = extractor(participants={"a": CHANNELS, "b": CHANNELS})
    assert "does not say whose recording it is, and the model knows a, b." in refusal(
        check_trial, trial(features()), two, 5
    )
    assert check_trial(trial(features(), participant_id="b"), two, 5).participant_id == "b"


def test_channels_that_the_model_leaves_out_do_not_count():
    crossings = extractor(participants={"sim": 3}, feature_kinds=["threshold_crossings"])
    assert check_trial(trial(features()), crossings, 5).features.shape == (40, CHANNELS)
    assert "mine has 2 channels, but the model reads 3" in refusal(
        check_trial, trial(features(channels=4)), crossings, 5
    )


def test_the_sentence_is_not_among_what_the_processor_reads():
    known = replace(trial(features()), text="go on", session_id="s")
    assert set(known.columns()) == {"features", "session_id", "feature_kinds"}
