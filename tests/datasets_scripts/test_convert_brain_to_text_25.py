"""The '25 converter reads the official layout with all its variations, field by field, and refuses the rest."""

import csv
import json
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from bit_speech.data.reading import TrialReader
from configuration_bit.phoneme_inventory_bit import LM_ORDER, MODEL_ORDER
from datasets_scripts import convert_brain_to_text_25 as converter

DAY = "t15.2023.08.13"
FIXTURES = Path(__file__).parents[1] / "fixtures"


def convert(source, target, **options):
    return converter.convert(source, target, progress=False, **{"allow_partial": True, **options})


def one_trial(tmp_path, layout_25, **changes):
    trial = layout_25.trial(1, DAY, 4, 9, **changes)
    layout_25.file(tmp_path / "in" / DAY / "data_train.hdf5", [trial])
    return trial, tmp_path / "in"


def edit(folder, change, name="data_train.hdf5", key="trial_0000"):
    with h5py.File(folder / DAY / name, "a") as file:
        change(file[key])


def test_every_field_of_the_layout_arrives(tmp_path, layout_25, load):
    written = layout_25.session(tmp_path / "in", DAY)
    report = convert(tmp_path / "in", tmp_path / "out")
    trials = load(tmp_path / "out")
    assert {name: len(part) for name, part in trials.items()} == {"train": 4, "validation": 2, "test": 2}
    for split, name in (("train", "train"), ("validation", "val"), ("test", "test")):
        for row, source in zip(TrialReader(trials[split]), written[name], strict=True):
            np.testing.assert_array_equal(row["features"], source["input_features"])
            assert row["features"].dtype == np.float32
            assert row["participant_id"] == "t15" and row["session_id"] == DAY and row["split"] == split
            assert (row["block_index"], row["trial_index"]) == (source["block_num"], source["trial_num"])
            assert row["bin_size_ms"] == 20.0 and row["species"] == "human" and row["task"] == "attempted_speech"
            assert row["source"] == f"doi:10.5061/dryad.dncjsxm85 {DAY}/data_{name}.hdf5"
            assert row["licence"] == "CC0-1.0"
            assert row["text"] == (None if split == "test" else source["text"])
            phonemes = " ".join(MODEL_ORDER[i] for i in source["seq_class_ids"])
            assert row["phonemes"] == (None if split == "test" else phonemes)
    assert report.splits["train"] == {
        "num_trials": 4,
        "num_bins": sum(len(trial["input_features"]) for trial in written["train"]),
        "num_sessions": 1,
        "num_bytes": (tmp_path / "out/data" / f"train-{DAY}.parquet").stat().st_size,
    }


def test_channels_are_named_in_the_order_of_the_columns(tmp_path, layout_25, load):
    _, source = one_trial(tmp_path, layout_25)
    convert(source, tmp_path / "out")
    row = load(tmp_path / "out", "train")[0]
    areas = ["ventral_6v"] * 64 + ["area_4"] * 64 + ["55b"] * 64 + ["dorsal_6v"] * 64
    assert list(row["channel_areas"]) == areas * 2
    assert list(row["feature_kinds"]) == ["threshold_crossings"] * 256 + ["spike_band_power"] * 256


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("text_as", ["str", "bytes"])
def test_float64_and_bytes_are_read_like_float32_and_str(tmp_path, layout_25, load, dtype, text_as):
    written = layout_25.session(tmp_path / "in", DAY, splits=("train",), dtype=dtype, text_as=text_as)["train"]
    convert(tmp_path / "in", tmp_path / "out")
    for row, source in zip(load(tmp_path / "out", "train"), written, strict=True):
        np.testing.assert_array_equal(row["features"], source["input_features"].astype(np.float32))
        assert row["features"].dtype == np.float32 and row["text"] == source["text"]


def test_bins_after_n_time_steps_are_padding(tmp_path, layout_25, load):
    trial, source = one_trial(tmp_path, layout_25, bins=30)
    edit(source, lambda group: group.attrs.modify("n_time_steps", 22))
    convert(source, tmp_path / "out")
    np.testing.assert_array_equal(load(tmp_path / "out", "train")[0]["features"], trial["input_features"][:22])


def test_the_class_order_is_named_and_never_guessed(tmp_path, layout_25, load):
    trial, source = one_trial(tmp_path, layout_25)
    convert(source, tmp_path / "lm", class_order="lm")
    assert load(tmp_path / "lm", "train")[0]["phonemes"] == " ".join(LM_ORDER[i] for i in trial["seq_class_ids"])
    with pytest.raises(ValueError, match="class order 'kaldi' is unknown"):
        convert(source, tmp_path / "out", class_order="kaldi")
    with h5py.File(source / DAY / "data_train.hdf5", "a") as file:
        file.attrs["class_order"] = "lm"
    with pytest.raises(ValueError, match="states class order 'lm', but 'model' was asked for"):
        convert(source, tmp_path / "out2")


def test_the_complete_release_is_45_sessions_4_of_them_for_training_only():
    with open(FIXTURES / "t15_block_table/t15_copyTaskData_description.csv", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    days = sorted({f"t15.{row['Date'].replace('-', '.')}" for row in table})
    held_out = {f"t15.{row['Date'].replace('-', '.')}" for row in table if row["Split"] == "Val/Test"}
    assert list(converter.SESSIONS) == days
    assert set(days) - held_out == converter.TRAIN_ONLY_SESSIONS
    # The table counts sentences that were shown; some were not released.
    shown = Counter()
    for row in table:
        shown[row["Split"]] += int(row["Number of sentences"])
    assert converter.NUM_TRIALS["train"] <= shown["Train"]
    assert converter.NUM_TRIALS["validation"] + converter.NUM_TRIALS["test"] <= shown["Val/Test"]


def write_release(tmp_path, layout_25, table):
    """The whole release in miniature: every session, the official counts per split, one bin of 512 channels a trial."""
    totals = {"train": 8072, "val": 1426, "test": 1450}
    for split, total in totals.items():
        days = [day for day in table if split == "train" or day not in converter.TRAIN_ONLY_SESSIONS]
        for i, day in enumerate(days):
            count = total // len(days) + (i < total % len(days))
            path = tmp_path / day / f"data_{split}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w", libver="latest") as file:
                for trial in range(count):
                    file.create_group(f"trial_{trial:04d}")
                file["trial_0000"].create_dataset("input_features", data=np.zeros((1, 512), np.float32))


def test_counts_and_sessions_of_the_release_are_checked_before_anything_is_written(tmp_path, layout_25):
    source = tmp_path / "in"
    write_release(source, layout_25, converter.SESSIONS)
    plans, problems, channels = converter._plan(source, "model", False, None)
    sessions = {
        split: [s for s in converter.SESSIONS if split == "train" or s not in converter.TRAIN_ONLY_SESSIONS]
        for split in converter.FILES
    }
    expected = {"counts": converter.NUM_TRIALS, "sessions": sessions, "allow_partial": False}
    converter.check_expected(plans, problems, **expected)
    assert len(plans) == 45 + 41 + 41 and channels == 512
    with h5py.File(source / DAY / "data_val.hdf5", "a") as file:
        del file["trial_0001"]
    (source / "t15.2025.04.13" / "data_test.hdf5").unlink()
    with pytest.raises(ValueError) as error:
        converter.convert(source, tmp_path / "out", progress=False)
    assert "validation: 1,425 trials, the release has 1,426" in str(error.value)
    assert "test: 1 session(s) missing: t15.2025.04.13" in str(error.value)
    assert "--allow_partial" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_one_day_is_refused_unless_partial_is_allowed(tmp_path, layout_25):
    layout_25.session(tmp_path / "in", DAY)
    with pytest.raises(ValueError, match="not the complete release"):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)
    assert convert(tmp_path / "in", tmp_path / "out").splits["train"]["num_trials"] == 4


def test_a_day_without_val_and_test_is_read(tmp_path, layout_25, load):
    layout_25.session(tmp_path / "in", "t15.2023.08.11", splits=("train",))
    layout_25.session(tmp_path / "in", DAY)
    report = convert(tmp_path / "in", tmp_path / "out")
    assert report.splits["train"]["num_sessions"] == 2 and report.splits["validation"]["num_sessions"] == 1
    assert not report.left_out


def test_an_unknown_session_is_refused_unless_partial_is_allowed(tmp_path, layout_25):
    layout_25.session(tmp_path / "in", "t15.2030.01.01")
    with pytest.raises(ValueError, match=r"1 unknown session\(s\): t15.2030.01.01"):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)


def damage_nan(group):
    group["input_features"][3, 7] = np.nan


def damage_inf(group):
    group["input_features"][2, 500] = -np.inf


def damage_zero_length(group):
    del group["input_features"]
    group.create_dataset("input_features", data=np.zeros((0, 512), np.float32))
    group.attrs["n_time_steps"] = 0


def damage_channels(group):
    features = group["input_features"][:, :511]
    del group["input_features"]
    group.create_dataset("input_features", data=features)


def damage_text(group):
    group.attrs["sentence_label"] = "   "


def damage_no_text(group):
    del group.attrs["sentence_label"]


def damage_labels(group):
    del group["seq_class_ids"]


def damage_class(group):
    group["seq_class_ids"][0] = 41


def damage_blank(group):
    group["seq_class_ids"][1] = 0


def damage_length(group):
    group.attrs["n_time_steps"] = 10_000


def damage_session(group):
    group.attrs["session"] = "t15.2023.09.03"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (damage_nan, r"session t15.2023.08.13, block 4, trial 10: features hold 1 NaN .* bin 3, channel 7 \(nan\)"),
        (damage_inf, r"trial 10: features hold 1 NaN or infinite value\(s\), the first at bin 2, channel 500 \(-inf\)"),
        (damage_zero_length, "n_time_steps is 0, but input_features has 0 bins"),
        (damage_channels, "trial 10: features have 511 channels, expected 512"),
        (damage_text, "trial 10: the text is missing, but split 'train' needs labels"),
        (damage_no_text, "trial_0001: the attribute 'sentence_label' is missing"),
        (damage_labels, "trial_0001: the dataset 'seq_class_ids' is missing"),
        (damage_class, r"seq_class_ids holds \d+..41; the classes are 0..40"),
        (damage_blank, r"label 1 of \d+ is the blank: either seq_len or the class order 'model' is wrong"),
        (damage_length, "n_time_steps is 10000"),
        (damage_session, "its session is 't15.2023.09.03', but it lies in the folder 't15.2023.08.13'"),
    ],
)
def test_a_broken_trial_is_named_and_can_be_left_out(tmp_path, layout_25, load, damage, message, monkeypatch):
    source = tmp_path / "in"
    trials = [layout_25.trial(seed, DAY, 4, 9 + seed, bins=12) for seed in range(3)]
    layout_25.file(source / DAY / "data_train.hdf5", trials)
    edit(source, damage, key="trial_0001")
    monkeypatch.setattr(converter, "check_expected", lambda *args, **kwargs: None)
    with pytest.raises(ValueError, match=message):
        convert(source, tmp_path / "out", allow_partial=False)
    report = convert(source, tmp_path / "out")
    assert len(report.left_out) == 1 and report.splits["train"]["num_trials"] == 2
    assert [row["trial_index"] for row in load(tmp_path / "out", "train")] == [9, 11]
    manifest = json.loads((tmp_path / "out/conversion.json").read_text())
    listed = manifest["shards"][f"data/train-{DAY}.parquet"]["left_out"]
    assert listed[0]["source"] == f"{DAY}/data_train.hdf5"
    assert "**Incomplete.**" in (tmp_path / "out/README.md").read_text()


def test_a_truncated_file_is_named_and_can_be_left_out(tmp_path, layout_25):
    layout_25.session(tmp_path / "in", DAY)
    path = tmp_path / "in" / DAY / "data_val.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ValueError, match=f"{DAY}/data_val.hdf5: truncated or not an HDF5 file: download it again"):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=False)
    report = convert(tmp_path / "in", tmp_path / "out")
    assert set(report.splits) == {"train", "test"} and len(report.left_out) == 1


def test_folders_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="no folder"):
        convert(tmp_path / "nowhere", tmp_path / "out")
    (tmp_path / "in").mkdir()
    with pytest.raises(FileNotFoundError, match="holds no <session>/data_train.hdf5"):
        convert(tmp_path / "in", tmp_path / "out")


def test_another_participant_keeps_its_name_and_is_not_called_the_published_data(tmp_path, layout_25, load):
    layout_25.session(tmp_path / "in", "sim.2024.01.05", channels=24)
    convert(tmp_path / "in", tmp_path / "out", areas=["area_a", "area_b", "area_c"])
    row = load(tmp_path / "out", "train")[0]
    assert row["participant_id"] == "sim" and row["licence"] == "unknown"
    assert list(row["channel_areas"]) == (["area_a"] * 4 + ["area_b"] * 4 + ["area_c"] * 4) * 2
    card = (tmp_path / "out/README.md").read_text()
    assert "not the recordings that were published" in card and "CC0" not in card
    with pytest.raises(ValueError, match="24 channels, the release has 512"):
        convert(tmp_path / "in", tmp_path / "out2", allow_partial=False)


def test_the_command_teaches_and_reports(tmp_path, layout_25, capsys):
    with pytest.raises(SystemExit):
        converter.main(["--help"])
    helped = capsys.readouterr().out
    assert "hdf5_data_final" in helped and "8,072 / 1,426 / 1,450" in helped and "examples:" in helped
    layout_25.session(tmp_path / "in", DAY)
    arguments = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--quiet"]
    assert converter.main(arguments) == 2
    assert "not the complete release" in capsys.readouterr().err
    assert converter.main([*arguments, "--allow_partial"]) == 0
    assert "train 4, validation 2, test 2 trials" in capsys.readouterr().out
