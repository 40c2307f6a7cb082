"""One's own recordings are converted by saying where things are."""

import datetime

import h5py
import numpy as np
import pytest
import yaml

from bit_speech.data.reading import TrialReader
from datasets_scripts import convert_participant as converter

CHANNELS = [
    {"count": 2, "kind": "threshold_crossings", "area": "6v"},
    {"count": 1, "kind": "spike_band_power", "area": "44"},
]
RNG = np.random.default_rng(0)


def write_config(folder, **changes):
    config = {
        "participant_id": "p01",
        "source": "our laboratory",
        "licence": "CC-BY-4.0",
        "format": "npz",
        "files": "*.npz",
        "channels": CHANNELS,
        "fields": {"features": "neural", "session": {"pattern": r"(p01\.\d+)_"}, "block": "block", "text": "cue"},
    }
    config |= changes
    path = folder / "my_participant.yaml"
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump({key: value for key, value in config.items() if value is not None}))
    return path


def convert(config, target, **options):
    return converter.convert(config, target, progress=False, **options)


def write_npz(folder, sessions=("p01.1", "p01.2"), per_session=3):
    written = {}
    folder.mkdir(parents=True, exist_ok=True)
    for session in sessions:
        for trial in range(per_session):
            neural = RNG.normal(size=(5 + trial, 3))
            np.savez(
                folder / f"{session}_{trial}.npz", neural=neural, block=trial // 2, cue=f"Hello {session} {trial}."
            )
            written[(session, trial)] = neural
    return written


def test_a_folder_of_npz_files_becomes_trials(tmp_path, load):
    written = write_npz(tmp_path / "in")
    report = convert(write_config(tmp_path / "in"), tmp_path / "out")
    assert report.splits["train"]["num_trials"] == 6
    for row in TrialReader(load(tmp_path / "out", "train")):
        session, trial = row["session_id"], row["trial_index"]
        np.testing.assert_array_equal(row["features"], written[(session, trial)].astype(np.float32))
        assert row["block_index"] == trial // 2 and row["text"] == f"Hello {session} {trial}."
        assert row["participant_id"] == "p01" and row["phonemes"] is None and row["licence"] == "CC-BY-4.0"
        assert row["feature_kinds"] == ["threshold_crossings"] * 2 + ["spike_band_power"]
        assert row["channel_areas"] == ["6v", "6v", "44"] and row["task"] == "attempted_speech"
        assert row["source"] == f"our laboratory {session}_{trial}.npz"


def test_blocks_and_sessions_are_held_out_by_name(tmp_path, load):
    write_npz(tmp_path / "in")
    held_out = {"validation": {"p01.1": [1]}, "test": {"p01.2": "all"}}
    convert(write_config(tmp_path / "in", held_out=held_out), tmp_path / "out")
    trials = load(tmp_path / "out")
    assert {(row["session_id"], row["block_index"]) for row in TrialReader(trials["train"])} == {("p01.1", 0)}
    assert {(row["session_id"], row["block_index"]) for row in TrialReader(trials["validation"])} == {("p01.1", 1)}
    assert {row["session_id"] for row in TrialReader(trials["test"])} == {"p01.2"}


def test_hdf5_groups_are_trials_and_the_file_gives_what_they_lack(tmp_path, load):
    folder = tmp_path / "in"
    folder.mkdir()
    arrays = [RNG.normal(size=(3, 6 + i)).astype(np.float32) for i in range(2)]
    with h5py.File(folder / "day.h5", "w") as file:
        file.attrs["day"] = "p01.2024.01.01"
        for i, array in enumerate(arrays):
            group = file.create_group(f"t{i}")
            group["neural"] = array
            group["cue"] = f"Sentence {i}"
            group.attrs["block"] = 7
            group.attrs["number"] = 40 + i
            group.attrs["part"] = ("train", "val")[i]
    fields = {"features": "neural", "session": "day", "block": "block", "trial": "number", "text": "cue"}
    fields["split"] = "part"
    config = write_config(
        folder, format="hdf5", files="*.h5", trials="group", fields=fields, feature_layout="channels_bins"
    )
    convert(config, tmp_path / "out")
    trials = load(tmp_path / "out")
    for i, split in enumerate(("train", "validation")):
        row = TrialReader(trials[split])[0]
        np.testing.assert_array_equal(row["features"], arrays[i].T)
        assert (row["session_id"], row["block_index"], row["trial_index"]) == ("p01.2024.01.01", 7, 40 + i)
        assert row["text"] == f"Sentence {i}"


INTERVAL_FIELDS = {
    "features": "neural",
    "session": {"value": "p01.1"},
    "block": "blocks",
    "text": "cues",
    "start": "start",
    "stop": "stop",
}


def write_continuous(folder, start, stop, **more):
    folder.mkdir(parents=True, exist_ok=True)
    neural = RNG.normal(size=(50, 3)).astype(np.float32)
    with h5py.File(folder / "recording.h5", "w") as file:
        file["neural"] = neural
        file["start"], file["stop"] = start, stop
        file["blocks"] = [1, 2]
        file["cues"] = ["One.", "Two."]
        for key, value in more.items():
            file[key] = value
    return neural


@pytest.mark.parametrize(
    ("times", "start", "stop"),
    [
        ("bins", [3, 30], [9, 50]),
        ("matlab", [4, 31], [9, 50]),
        ("seconds", [0.06, 0.6], [0.18, 1.0]),
    ],
)
def test_stretches_of_a_recording_are_cut_in_every_unit_of_time(tmp_path, load, times, start, stop):
    neural = write_continuous(tmp_path / "in", start, stop)
    config = write_config(
        tmp_path / "in", format="hdf5", files="*.h5", trials="interval", fields=INTERVAL_FIELDS, times=times
    )
    convert(config, tmp_path / "out")
    rows = list(TrialReader(load(tmp_path / "out", "train")))
    for row, (first, last), block, text in zip(rows, ((3, 9), (30, 50)), (1, 2), ("One.", "Two."), strict=True):
        np.testing.assert_array_equal(row["features"], neural[first:last])
        assert row["block_index"] == block and row["text"] == text


def test_timestamps_with_a_gap_cut_where_the_time_says(tmp_path, load):
    times = np.concatenate([np.arange(25) * 0.02, 10 + np.arange(25) * 0.02])
    neural = write_continuous(tmp_path / "in", [0.1, 10.0], [0.2, 10.1], time=times)
    config = write_config(
        tmp_path / "in", format="hdf5", files="*.h5", trials="interval", fields=INTERVAL_FIELDS | {"timestamps": "time"}
    )
    convert(config, tmp_path / "out")
    rows = list(TrialReader(load(tmp_path / "out", "train")))
    np.testing.assert_array_equal(rows[0]["features"], neural[5:10])
    np.testing.assert_array_equal(rows[1]["features"], neural[25:30])


def test_a_stretch_outside_the_recording_is_named_and_can_be_left_out(tmp_path, load):
    write_continuous(tmp_path / "in", [3, 45], [9, 51])
    config = write_config(
        tmp_path / "in", format="hdf5", files="*.h5", trials="interval", fields=INTERVAL_FIELDS, times="bins"
    )
    with pytest.raises(ValueError, match=r"recording.h5, interval 1 \(45 to 51\): it does not lie in the 50 bins"):
        convert(config, tmp_path / "out")
    in_seconds = write_config(tmp_path / "in", format="hdf5", files="*.h5", trials="interval", fields=INTERVAL_FIELDS)
    with pytest.raises(ValueError, match=r"interval 0 \(3 to 9\): it does not lie within the recording"):
        convert(in_seconds, tmp_path / "out")
    config = write_config(
        tmp_path / "in", format="hdf5", files="*.h5", trials="interval", fields=INTERVAL_FIELDS, times="bins"
    )
    report = convert(config, tmp_path / "out", allow_partial=True)
    assert report.splits["train"]["num_trials"] == 1 and len(report.left_out) == 1


@pytest.fixture
def nwb_file(tmp_path):
    pynwb = pytest.importorskip("pynwb")
    (tmp_path / "in").mkdir()
    start = datetime.datetime(2024, 1, 1, tzinfo=datetime.UTC)
    nwb = pynwb.NWBFile("d", "p01-file", start, session_id="p01.2024.01.01")
    counts = RNG.poisson(2.0, size=(100, 3)).astype(np.float32)
    nwb.add_acquisition(pynwb.TimeSeries(name="binned_spikes", data=counts, unit="n", rate=50.0, starting_time=1.0))
    nwb.add_trial_column("cue", "the sentence")
    nwb.add_trial_column("block_num", "the block")
    nwb.add_trial(start_time=1.1, stop_time=1.5, cue="First.", block_num=1)
    nwb.add_trial(start_time=2.0, stop_time=2.6, cue="Second.", block_num=2)
    for times in ([1.105, 1.106, 1.13], [2.01], []):
        nwb.add_unit(spike_times=np.array(times, dtype=float))
    path = tmp_path / "in" / "a.nwb"
    with pynwb.NWBHDF5IO(str(path), "w") as io:
        io.write(nwb)
    return path, counts


NWB_FIELDS = {
    "features": "binned_spikes",
    "session": "session_id",
    "block": "block_num",
    "text": "cue",
    "start": "start_time",
    "stop": "stop_time",
}


def test_an_nwb_file_gives_time_series_and_trials_table(tmp_path, load, nwb_file):
    path, counts = nwb_file
    config = write_config(path.parent, format="nwb", files="*.nwb", trials="interval", fields=NWB_FIELDS)
    convert(config, tmp_path / "out")
    rows = list(TrialReader(load(tmp_path / "out", "train")))
    np.testing.assert_array_equal(rows[0]["features"], counts[5:25])
    np.testing.assert_array_equal(rows[1]["features"], counts[50:80])
    assert [(row["session_id"], row["block_index"], row["text"]) for row in rows] == [
        ("p01.2024.01.01", 1, "First."),
        ("p01.2024.01.01", 2, "Second."),
    ]


def test_spikes_of_nwb_units_are_counted_in_bins(tmp_path, load, nwb_file):
    path, _ = nwb_file
    fields = NWB_FIELDS | {"features": "units"}
    config = write_config(path.parent, format="nwb", files="*.nwb", trials="interval", fields=fields)
    convert(config, tmp_path / "out")
    rows = list(TrialReader(load(tmp_path / "out", "train")))
    assert rows[0]["features"].shape == (20, 3) and rows[1]["features"].shape == (30, 3)
    assert rows[0]["features"][:2, 0].tolist() == [2.0, 1.0] and rows[0]["features"].sum() == 3
    assert rows[1]["features"][0, 1] == 1.0 and rows[1]["features"].sum() == 1


def test_a_file_that_cannot_be_read_is_named_and_can_be_left_out(tmp_path):
    write_npz(tmp_path / "in")
    path = tmp_path / "in" / "p01.1_1.npz"
    path.write_bytes(path.read_bytes()[:100])
    config = write_config(tmp_path / "in")
    with pytest.raises(ValueError, match="p01.1_1.npz: .*Repair it"):
        convert(config, tmp_path / "out")
    assert convert(config, tmp_path / "out", allow_partial=True).splits["train"]["num_trials"] == 5


def test_arrays_of_python_objects_are_never_unpickled(tmp_path):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in/p01.1_0.npz", neural=np.zeros((4, 3)), block=1, cue=np.array([{"a": 1}], dtype=object))
    with pytest.raises(ValueError, match="'cue' cannot be read .* would run code"):
        convert(write_config(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((4, 3), np.nan), "features hold 12 NaN"),
        (np.zeros((4, 2)), "features have 2 channels, expected 3"),
        (np.zeros((3, 4)), "is it transposed"),
        (np.zeros((0, 3)), "no time bins"),
        (np.zeros(4), r"features have shape \(4,\)"),
        (np.full((4, 3), 1e300), "NaN or infinite"),
    ],
)
def test_a_broken_trial_is_named(tmp_path, array, message):
    (tmp_path / "in").mkdir()
    np.savez(tmp_path / "in/p01.1_0.npz", neural=array, block=1, cue="Hi.")
    with pytest.raises(ValueError, match=message):
        convert(write_config(tmp_path / "in"), tmp_path / "out")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "csv"}, "format is 'csv'; choose one of npz, hdf5, nwb"),
        ({"colour": "red"}, r"unknown key\(s\) colour"),
        ({"channels": None}, r"missing key\(s\) channels"),
        ({"channels": [{"count": 0, "kind": "a", "area": "b"}]}, "count"),
        ({"trials": "interval"}, "start, stop missing"),
        ({"trials": "group"}, "trials: group needs format: hdf5"),
        ({"fields": {"features": "x", "session": "s", "block": "b", "txt": "t"}}, "fields: unknown txt"),
        ({"fields": {"features": "x", "session": {"pattern": "nogroup"}, "block": "b"}}, "exactly one"),
        ({"held_out": {"dev": {}}}, "held_out: unknown split 'dev'"),
        ({"files": "*.mat"}, "no file '\\*.mat'"),
        ({"fields": {"features": "neural", "session": "day", "block": "block"}}, "it has no 'day'; it has block, cue"),
    ],
)
def test_a_wrong_configuration_is_explained(tmp_path, changes, message):
    write_npz(tmp_path / "in")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        convert(write_config(tmp_path / "in", **changes), tmp_path / "out")


def test_another_configuration_does_not_continue_an_old_conversion(tmp_path):
    write_npz(tmp_path / "in")
    convert(write_config(tmp_path / "in"), tmp_path / "out")
    with pytest.raises(ValueError, match="choose another output folder"):
        convert(write_config(tmp_path / "in", task="imagined_speech"), tmp_path / "out")


def test_the_command_prints_an_example_that_is_valid(tmp_path, capsys):
    assert converter.main(["--example"]) == 0
    path = tmp_path / "example.yaml"
    path.write_text(capsys.readouterr().out)
    assert converter.ParticipantConfig.from_yaml(path).num_channels == 256
    with pytest.raises(SystemExit):
        converter.main(["--help"])
    assert "held_out" in capsys.readouterr().out
    write_npz(tmp_path / "in")
    arguments = ["--config", str(write_config(tmp_path / "in")), "--output_dir", str(tmp_path / "out"), "--quiet"]
    assert converter.main(arguments) == 0
    assert "train 6 trials" in capsys.readouterr().out
