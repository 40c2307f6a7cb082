"""The '24 converter reads the official layout, field by field, and refuses the rest."""

import h5py
import numpy as np
import pytest
import scipy.io

from bit_speech.data.reading import TrialReader
from datasets_scripts import convert_brain_to_text_24 as converter

DAY = converter.SESSIONS[4]
FOLDERS = {"train": "train", "validation": "test", "test": "competitionHoldOut"}


def convert(source, target, **options):
    return converter.convert(source, target, progress=False, **{"allow_partial": True, **options})


@pytest.fixture
def written(tmp_path, layout_24):
    sessions = {}
    for seed, (split, folder) in enumerate(FOLDERS.items()):
        sessions[split] = layout_24.session(seed)
        layout_24.file(tmp_path / "in" / folder / f"{DAY}.mat", sessions[split], redacted=split == "test")
    return sessions


def test_every_field_of_the_layout_arrives(tmp_path, written, load):
    convert(tmp_path / "in", tmp_path / "out")
    trials = load(tmp_path / "out")
    assert list(trials) == ["train", "validation", "test"]
    for split, session in written.items():
        rows = list(TrialReader(trials[split]))
        assert len(rows) == 4
        for index, row in enumerate(rows):
            expected = np.concatenate([session["tx1"][index][:, :128], session["spikePow"][index][:, :128]], axis=1)
            np.testing.assert_array_equal(row["features"], expected.astype(np.float32))
            assert row["features"].dtype == np.float32
            assert row["participant_id"] == "t12" and row["session_id"] == DAY and row["split"] == split
            assert (row["block_index"], row["trial_index"]) == (session["blockIdx"][index], index)
            assert row["bin_size_ms"] == 20.0 and row["species"] == "human" and row["task"] == "attempted_speech"
            assert row["text"] == (None if split == "test" else session["sentenceText"][index])
            assert row["phonemes"] is None
            assert row["source"] == f"doi:10.5061/dryad.x69p8czpq {FOLDERS[split]}/{DAY}.mat"
            assert row["licence"] == "CC0-1.0"
            assert row["feature_kinds"] == ["threshold_crossings"] * 128 + ["spike_band_power"] * 128
            assert row["channel_areas"] == (["superior_6v"] * 64 + ["inferior_6v"] * 64) * 2


@pytest.mark.parametrize("threshold", ["tx2", "tx4"])
@pytest.mark.parametrize(
    ("area", "columns", "arrays"),
    [
        ("44", slice(128, 256), ["inferior_44", "superior_44"]),
        ("all", slice(0, 256), ["superior_6v", "inferior_6v", "inferior_44", "superior_44"]),
    ],
)
def test_area_and_threshold_are_chosen(tmp_path, written, load, threshold, area, columns, arrays):
    convert(tmp_path / "in", tmp_path / "out", area=area, threshold=threshold)
    session = written["train"]
    for index, row in enumerate(TrialReader(load(tmp_path / "out", "train"))):
        expected = [session[threshold][index][:, columns], session["spikePow"][index][:, columns]]
        np.testing.assert_array_equal(row["features"], np.concatenate(expected, axis=1).astype(np.float32))
        assert row["channel_areas"] == [array for array in arrays for _ in range(64)] * 2


def test_unknown_choices_are_refused(tmp_path, written):
    with pytest.raises(ValueError, match="area 'M1' is unknown; choose one of 6v, 44, all"):
        convert(tmp_path / "in", tmp_path / "out", area="M1")
    with pytest.raises(ValueError, match="threshold 'tx5' is unknown"):
        convert(tmp_path / "in", tmp_path / "out", threshold="tx5")


def test_a_session_of_one_trial_is_read(tmp_path, layout_24, load):
    session = layout_24.session(8, trials=1)
    layout_24.file(tmp_path / "in/train" / f"{DAY}.mat", session)
    convert(tmp_path / "in", tmp_path / "out")
    row = TrialReader(load(tmp_path / "out", "train"))[0]
    assert row["text"] == session["sentenceText"][0] and len(row["features"]) == len(session["tx1"][0])


def test_the_complete_release_is_24_sessions_15_of_them_held_out(tmp_path, written):
    assert len(converter.SESSIONS) == 24 and len(converter.HELD_OUT_SESSIONS) == 15
    assert sum(converter.NUM_TRIALS.values()) == 10_880
    with pytest.raises(ValueError) as error:
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)
    message = str(error.value)
    assert "train: 23 session(s) missing: t12.2022.04.28, t12.2022.05.05" in message
    assert "train: 4 trials, the release has 8,800" in message
    assert "test: 14 session(s) missing" in message and "--allow_partial" in message
    assert not (tmp_path / "out").exists()


def rewrite(path, **changes):
    variables = {key: value for key, value in scipy.io.loadmat(path).items() if not key.startswith("__")}
    variables |= changes
    scipy.io.savemat(path, {key: value for key, value in variables.items() if value is not None}, format="5")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (np.full((9, 256), np.nan, np.float32), r"trial 2: features hold 1152 NaN .* first at bin 0, channel 128"),
        (np.zeros((0, 256), np.float32), r"trial 2: features have no time bins"),
        (np.zeros((9, 255), np.float32), r"trial 2: spikePow has shape \(9, 255\); expected \(bins, 256\)"),
        (np.array(["text"]), "trial 2: spikePow is ndarray <U4; expected numbers"),
    ],
)
def test_a_broken_trial_is_named_and_can_be_left_out(tmp_path, written, load, value, message, monkeypatch):
    path = tmp_path / "in/train" / f"{DAY}.mat"
    power = scipy.io.loadmat(path)["spikePow"]
    power[0, 2] = value
    crossings = scipy.io.loadmat(path)["tx1"]
    if value.dtype.kind == "f":
        crossings[0, 2] = np.zeros((len(value), 256), np.uint8)
    rewrite(path, spikePow=power, tx1=crossings)
    monkeypatch.setattr(converter, "check_expected", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match=message):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)
    report = convert(tmp_path / "in", tmp_path / "out")
    assert len(report.left_out) == 1
    assert [int(row["trial_index"]) for row in load(tmp_path / "out", "train")] == [0, 1, 3]


@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_a_truncated_file_is_named(tmp_path, written, share):
    path = tmp_path / "in/test" / f"{DAY}.mat"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    report = convert(tmp_path / "in", tmp_path / "out")
    assert set(report.splits) == {"train", "test"}
    assert {problem.source for problem in report.left_out} == {f"test/{DAY}.mat"}
    assert "truncated or not a MATLAB file: download it again" in report.left_out[0].reason


def test_a_file_of_matlab_7_3_is_told_apart(tmp_path, written):
    path = tmp_path / "in/test" / f"{DAY}.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["tx1"] = np.zeros(3)
    header = b"MATLAB 7.3 MAT-file".ljust(124) + b"\x00\x02IM"
    path.write_bytes(header + path.read_bytes()[128:])
    report = convert(tmp_path / "in", tmp_path / "out")
    assert "it is a MATLAB v7.3 file; the release has v5 files" in report.left_out[0].reason


def test_files_that_lack_something_are_named(tmp_path, written):
    path = tmp_path / "in/train" / f"{DAY}.mat"
    rewrite(path, tx1=None)
    with pytest.raises(ValueError, match=f"train/{DAY}.mat: no variable tx1; there are blockIdx"):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)
    assert "train" not in convert(tmp_path / "in", tmp_path / "out").splits


def test_folders_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no train/<session>.mat"):
        convert(tmp_path / "in", tmp_path / "out")


def test_another_participant_with_fewer_electrodes_is_not_called_the_published_data(tmp_path, layout_24, load):
    layout_24.file(tmp_path / "in/train/sim.2024.01.05.mat", layout_24.session(3, electrodes=16))
    convert(tmp_path / "in", tmp_path / "out")
    row = load(tmp_path / "out", "train")[0]
    assert row["participant_id"] == "sim" and row["licence"] == "unknown"
    assert (
        row["features"].shape[1] == 16 and list(row["channel_areas"][:8]) == ["superior_6v"] * 4 + ["inferior_6v"] * 4
    )


def test_the_command_teaches_and_reports(tmp_path, written, capsys):
    with pytest.raises(SystemExit):
        converter.main(["--help"])
    helped = capsys.readouterr().out
    assert "competitionHoldOut" in helped and "8,800 / 880 / 1,200" in helped and "examples:" in helped
    arguments = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--quiet"]
    assert converter.main(arguments) == 2
    assert "not the complete release" in capsys.readouterr().err
    assert converter.main([*arguments, "--allow_partial"]) == 0
    assert "train 4, validation 4, test 4 trials" in capsys.readouterr().out
