"""Rows come back exactly as they were written."""

from pathlib import Path

import numpy as np
import pytest

from bit_speech.data.reading import TrialReader, load_trials
from bit_speech.data.writing import ShardWriter, dataset_card

FIXTURES = Path(__file__).parents[1] / "fixtures"


def write(folder, trials, num_channels=4, **options):
    parts = {}
    for trial in trials:
        parts.setdefault((trial["split"], trial["session_id"]), []).append(trial)
    counts = {}
    for (split, session), rows in parts.items():
        with ShardWriter(folder / "data" / f"{split}-{session}.parquet", num_channels, **options) as writer:
            for row in rows:
                writer.add(row)
        numbers = counts.setdefault(split, {"num_trials": 0, "num_bins": 0, "num_sessions": 0, "num_bytes": 0})
        numbers["num_trials"] += writer.summary.num_trials
        numbers["num_bins"] += writer.summary.num_bins
        numbers["num_sessions"] += 1
        numbers["num_bytes"] += writer.summary.num_bytes
    card = dataset_card(title="t", licence="CC0-1.0", description="d", num_channels=num_channels, splits=counts)
    (folder / "README.md").write_text(card)


def assert_equal(row, trial):
    assert set(row) == set(trial)
    for name, value in trial.items():
        if name == "features":
            assert row[name].dtype == np.float32
            np.testing.assert_array_equal(row[name], value)
        elif name in ("feature_kinds", "channel_areas"):
            assert list(row[name]) == value
        else:
            assert row[name] == value, name


@pytest.mark.parametrize("compression", ["lz4", "zstd", "snappy", "none"])
def test_what_is_written_is_read_back(tmp_path, trials, trial, compression):
    rows = [*trials(), trial(split="test", text=None, phonemes=None), trial(split="test", trial=1, bins=1)]
    write(tmp_path / "d", rows, compression=compression)
    loaded = load_trials(tmp_path / "d", cache_dir=tmp_path / "cache")
    for split in ("train", "test"):
        expected = [row for row in rows if row["split"] == split]
        for row, fast, written in zip(loaded[split], TrialReader(loaded[split]), expected, strict=True):
            assert_equal(row, written)
            assert_equal(fast, written)


def test_plain_load_dataset_gives_the_right_types(tmp_path, trials):
    import datasets

    from bit_speech.data.schema import trial_features

    write(tmp_path / "d", trials())
    loaded = datasets.load_dataset(str(tmp_path / "d"), cache_dir=str(tmp_path / "cache"))
    assert loaded["train"].features == trial_features(4)
    shards = [str(path) for path in (tmp_path / "d/data").glob("*.parquet")]
    bare = datasets.load_dataset("parquet", data_files=shards, cache_dir=str(tmp_path / "cache"), split="train")
    assert bare.features == trial_features(4)


def test_row_groups_keep_the_order_of_many_large_trials(tmp_path, trial):
    rows = [trial(trial=i, bins=900 + i, channels=600) for i in range(12)]
    write(tmp_path / "d", rows, num_channels=600)
    reader = TrialReader(load_trials(tmp_path / "d", "train", cache_dir=tmp_path / "cache"))
    for row, written in zip(reader, rows, strict=True):
        np.testing.assert_array_equal(row["features"], written["features"])


def test_the_fast_reader_follows_select_shuffle_and_positions(dataset, trials):
    rows = trials()
    data = dataset(rows)
    order = [7, 2, 2, 17, 0]
    reader = TrialReader(data.select(order))
    assert_equal(reader[-1], rows[0])
    for row, i in zip(reader.__getitems__([4, 0, 3]), (0, 7, 17), strict=True):
        assert_equal(row, rows[i])
    shuffled = data.shuffle(seed=3)
    for row, slow in zip(TrialReader(shuffled), shuffled, strict=True):
        np.testing.assert_array_equal(row["features"], slow["features"])
    with pytest.raises(IndexError):
        reader[5]


def test_the_fast_reader_gives_the_columns_asked_for(dataset, trials):
    reader = TrialReader(dataset(trials()), ["text", "features"])
    assert list(reader[0]) == ["text", "features"] and len(reader) == 18
    with pytest.raises(ValueError, match=r"no column\(s\) colour"):
        TrialReader(dataset(trials()), ["colour"])


def test_names_that_differ_between_trials_are_told_apart(dataset, trial):
    rows = [
        trial(),
        trial(trial=1, channel_areas=["a", "bc", "d", "e"]),
        trial(trial=2, channel_areas=["ab", "c", "d", "e"]),
    ]
    read = [row["channel_areas"] for row in TrialReader(dataset(rows))]
    assert read == [row["channel_areas"] for row in rows]


def test_views_are_read_only_so_that_the_file_is_safe(tmp_path, trials):
    write(tmp_path / "d", trials())
    row = TrialReader(load_trials(tmp_path / "d", "train", cache_dir=tmp_path / "cache"))[0]
    with pytest.raises(ValueError, match="read-only"):
        row["features"][0, 0] = 1.0


def test_folders_that_hold_no_dataset_are_explained(tmp_path, trials):
    with pytest.raises(FileNotFoundError, match="convert recordings first"):
        load_trials(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="not the output of a converter"):
        load_trials(tmp_path / "empty")
    write(tmp_path / "d", trials())
    with pytest.raises(ValueError, match="no split 'val' in .*; it has train"):
        load_trials(tmp_path / "d", "val")
    (tmp_path / "d/README.md").unlink()
    with pytest.raises(FileNotFoundError, match="did not finish; run the same command again"):
        load_trials(tmp_path / "d")


def test_a_shard_appears_only_when_it_is_complete(tmp_path, trial):
    path = tmp_path / "data/train-a.parquet"
    with pytest.raises(ValueError, match="NaN"), ShardWriter(path, 4) as writer:
        writer.add(trial())
        assert not path.exists()
        writer.add(trial(features=np.full((3, 4), np.nan, np.float32)))
    assert list(path.parent.iterdir()) == []
    with pytest.raises(ValueError, match="would hold no trial"), ShardWriter(path, 4):
        pass
    assert list(path.parent.iterdir()) == []
    with pytest.raises(ValueError, match="compression 'gzip' is unknown"):
        ShardWriter(path, 4, compression="gzip")


def test_a_real_trial_survives_writing_and_reading(tmp_path, trial):
    features = np.ascontiguousarray(np.load(FIXTURES / "t12_neural_trial/figure1_neural_data.npy").T)
    kinds = (["threshold_crossings"] * 64 + ["spike_band_power"] * 64) * 2
    row = trial("t12.2022.04.28", features=features, feature_kinds=kinds)
    row["channel_areas"] = ["inferior_6v"] * 128 + ["superior_6v"] * 128
    write(tmp_path / "d", [row], num_channels=256)
    assert_equal(TrialReader(load_trials(tmp_path / "d", "train", cache_dir=tmp_path / "cache"))[0], row)
