"""Spikes are counted in the bin that they belong to, and in no other."""

import csv
import doctest
import os
from pathlib import Path

import numpy as np
import pytest

from datasets_scripts import corpora, nwb_files, spikes
from datasets_scripts.convert_nlb_2021 import convert

REACH = Path(__file__).parents[1] / "fixtures" / "mc_maze_reach" / "trial_748_spikes.csv"


@pytest.mark.parametrize("module", [spikes, nwb_files])
def test_the_examples_in_the_documentation_hold(module):
    assert doctest.testmod(module).failed == 0 and doctest.testmod(module).attempted > 0


def test_a_spike_at_an_edge_belongs_to_the_later_bin():
    times = [np.array([0.999, 1.0, 1.0199, 1.02, 1.0399, 1.04])]
    assert spikes.count_spikes(times, 1.0, 1.04).ravel().tolist() == [2.0, 2.0]


def test_rounded_times_far_from_zero_stay_on_their_side_of_the_edge():
    # 1 ms samples, an hour into a recording: start + i * 0.02 is not exact there.
    start = 3600.003
    samples = np.round(start + np.arange(1000) / 1000, 3)
    assert spikes.count_spikes([samples], start, start + 1.0).ravel().tolist() == [20.0] * 50


def test_an_incomplete_last_bin_is_dropped():
    assert spikes.count_spikes([np.array([0.05])], 0.0, 0.059).shape == (2, 1)
    assert spikes.count_spikes([np.array([0.05])], 0.0, 0.01).shape == (0, 1)


def test_a_stretch_of_whole_bins_keeps_its_last_one_however_its_times_are_rounded():
    for start in (0.1, 12.34, 3600.003):
        assert [spikes.whole_bins(start, round(start + i / 50, 3)) for i in range(500)] == list(range(500))


def test_all_units_of_an_electrode_are_added_up():
    channels = spikes.merge_units([(2, [0.3, 0.1]), (0, [0.5]), (2, [0.2])], 3)
    assert [times.tolist() for times in channels] == [[0.5], [], [0.1, 0.2, 0.3]]


@pytest.mark.parametrize(
    ("unit", "message"), [((3, [0.1]), "channel 3, but there are 3"), ((0, [np.nan]), "no number")]
)
def test_an_impossible_unit_is_refused(unit, message):
    with pytest.raises(ValueError, match=message):
        spikes.merge_units([unit], 3)


def test_counts_are_added_and_power_is_averaged_when_bins_get_longer():
    features = np.array([[1, 10], [2, 20], [3, 30], [4, 50], [9, 90]], dtype=np.float32)
    longer = spikes.rebin(features, ["threshold_crossings", "spike_band_power"], 2)
    assert longer.tolist() == [[3.0, 15.0], [7.0, 40.0]] and longer.dtype == np.float32


@pytest.mark.parametrize("values", [[-1.0], [0.5], [np.nan], [np.inf]])
def test_what_is_no_count_is_refused(values):
    with pytest.raises(ValueError, match="no count"):
        spikes.whole_counts(np.array(values), "TX")
    assert spikes.whole_counts(np.array([2.0001, 0]), "TX").tolist() == [2.0, 0.0]


def test_bins_that_do_not_divide_twenty_milliseconds_are_refused():
    assert [spikes.rebin_factor(size) for size in (0.001, 0.01, 0.02)] == [20, 2, 1]
    for size in (0.03, 0.015, 0.0):
        with pytest.raises(ValueError, match="not a multiple"):
            spikes.rebin_factor(size)


def test_segments_do_not_overlap_and_only_a_short_rest_is_lost():
    assert spikes.cut(5.0, 25.0, 20.0) == [(5.0, 25.0)]
    pieces = spikes.cut(0.0, 40.9, 20.0)
    assert pieces == [(0.0, 20.0), (20.0, 40.0)]
    assert spikes.cut(0.0, 41.0, 20.0)[-1] == (40.0, 41.0)
    bins = [spikes.whole_bins(*piece) for piece in spikes.cut(1234.567, 1234.567 + 600, 20.0)]
    assert bins == [1000] * 30


def test_intervals_are_joined_only_without_a_gap_and_with_one_label():
    intervals = [(0.0, 1.0, "a"), (1.001, 2.0, "a"), (2.02, 3.0, "a"), (3.0, 4.0, "b")]
    assert spikes.join_touching(intervals) == [(0.0, 2.0, "a"), (2.02, 3.0, "a"), (3.0, 4.0, "b")]


def test_a_recording_without_spikes_has_no_stretches():
    assert spikes.active_stretches([np.empty(0)]) == []


def test_a_binned_recording_gives_only_bins_that_it_has():
    read = corpora.bin_reader(lambda: np.ones((10, 1)), ["threshold_crossings"], 0.01)
    assert read(corpora.Stretch(0.02, 0.1)).ravel().tolist() == [2.0] * 4
    with pytest.raises(ValueError, match="from bin 2 to bin 12, but the recording has 10"):
        read(corpora.Stretch(0.02, 0.12))


def counts_by_the_millisecond(events, start, bins):
    """The same by whole numbers: milliseconds since the start, divided by 20."""
    electrodes = np.zeros((bins, 192), dtype=np.float32)
    for unit, time in events:
        time_bin = (round(time * 1000) - round(start * 1000)) // 20
        if time_bin < bins:
            electrodes[time_bin, 96 * (unit // 1000 - 1) + unit // 10 % 100 - 1] += 1
    return electrodes


def test_a_real_reach_of_a_macaque_has_the_counts_of_its_milliseconds(tmp_path, nwb_file, trials_in):
    with open(REACH, encoding="utf-8") as file:
        events = [(int(row["unit"]), float(row["time"])) for row in csv.DictReader(file)]
    units: dict[int, list[float]] = {}
    for unit, time in events:
        units.setdefault(unit, []).append(time)
    nwb_file(
        tmp_path / "in" / "sub-Jenkins" / "sub-Jenkins_ses-full_desc-train_behavior+ecephys.nwb",
        electrodes=[("PMd", "1")] * 96 + [("M1", "1")] * 96,
        units=[(96 * (unit // 1000 - 1) + unit // 10 % 100 - 1, times) for unit, times in units.items()],
        trials={"start_time": [2282.6], "stop_time": [2285.836], "split": ["val"]},
    )
    convert(tmp_path / "in", tmp_path / "out", progress=False)
    (row,) = trials_in(tmp_path / "out" / "nlb_2021_jenkins_PMd-96_M1-96")
    assert len(units) == 152 and row["features"].shape == (161, 192) and row["features"].sum() == 1645
    np.testing.assert_array_equal(row["features"], counts_by_the_millisecond(events, 2282.6, 161))
    assert row["split"] == "validation" and row["session_id"] == "Jenkins_full_train"
    assert row["channel_areas"] == ["PMd"] * 96 + ["M1"] * 96


@pytest.mark.data
@pytest.mark.parametrize("number", [748, 1356])
def test_whole_trials_of_a_macaque_are_binned_without_losing_a_spike(number):
    folder = os.environ.get("BIT_SPEECH_DATA")
    path = Path(folder or "", "mc_maze_trials", f"trial_{number}_data.csv")
    if not folder or not path.is_file():
        pytest.skip(f"BIT_SPEECH_DATA names no folder with mc_maze_trials/{path.name}")
    rows = np.genfromtxt(path, delimiter=",", names=True)
    names = [name for name in rows.dtype.names if name.startswith("unit_")]
    raster = np.stack([rows[name] for name in names], axis=1)
    start = float(rows["timestamp"][0])
    trains = [rows["timestamp"][raster[:, unit] > 0] for unit in range(len(names))]
    counts = spikes.count_spikes(trains, start, start + len(rows) / 1000)
    np.testing.assert_array_equal(counts, raster[: len(counts) * 20].reshape(-1, 20, len(names)).sum(axis=1))
