"""The corpora that come as MATLAB files, written in their layouts and both formats, small enough to count by hand."""

import numpy as np
import pytest

from datasets_scripts import (
    convert_chowdhury_2020,
    convert_fan_2023,
    convert_kunz_2025,
    convert_ma_2023,
    convert_odoherty_2017,
    convert_willett_2021,
)

VERSIONS = ("v5", "v7.3")


def convert(module, folder, **options):
    return module.convert(folder / "in", folder / "out", progress=False, **options)


def column(*values):
    return np.array(values, dtype=float).reshape(-1, 1)


def times(*values):
    return np.array(values, dtype=float).reshape(1, -1)


@pytest.mark.parametrize("version", VERSIONS)
def test_random_target_reaching_adds_sorted_and_unsorted_units_of_a_channel(
    tmp_path, matlab_file, matlab_cell, trials_in, version
):
    empty = np.zeros((0, 0))
    # Rows are channels, columns are units; the first unit was not sorted.
    spikes = matlab_cell([times(10.0, 10.021), times(10.04), times(10.005), empty], (2, 2))
    variables = {
        "spikes": spikes,
        "chan_names": matlab_cell(["M1 001", "S1 002"]),
        "t": column(*np.arange(10.0, 10.0641, 0.004)),
    }
    matlab_file(tmp_path / "in" / "indy_20160407_02.mat", variables, version)
    convert(convert_odoherty_2017, tmp_path)
    (row,) = trials_in(tmp_path / "out" / "odoherty_2017_indy_M1-1_S1-1")
    assert row["features"].tolist() == [[2, 0], [1, 0], [0, 1]]
    assert (row["participant_id"], row["session_id"]) == ("indy", "indy_20160407_02")


def test_random_target_reaching_of_another_layout_is_refused(tmp_path, matlab_file, matlab_cell):
    path = tmp_path / "in" / "indy_20160407_02.mat"
    matlab_file(path, {"spikes": matlab_cell([times(1.0)]), "t": column(0, 1)}, "v7.3")
    with pytest.raises(ValueError, match=r"indy_20160407_02.mat: it has no chan_names; there are spikes, t"):
        convert(convert_odoherty_2017, tmp_path)
    names = matlab_cell(["M1 001", "M1 002"])
    matlab_file(path, {"spikes": matlab_cell([times(1.0)]), "t": column(0, 1), "chan_names": names}, "v7.3")
    with pytest.raises(ValueError, match="expected a cell with 2 rows"):
        convert(convert_odoherty_2017, tmp_path)


def xds(cell, **changes):
    values = {
        "spikes": cell([times(0.001, 0.02), times(0.03), times(0.039)], (1, 3)),
        "unit_names": cell(["elec1", "elec3_1", "elec3_2"], (1, 3)),
        "time_frame": column(*np.arange(0.0, 0.0401, 0.001)),
        "meta": {"monkey": "Jango", "task": "WF", "array": "M1"},
    }
    return {"xds": {**values, **changes}}


@pytest.mark.parametrize("version", VERSIONS)
def test_wrist_force_has_a_channel_for_every_electrode_of_the_array(
    tmp_path, matlab_file, matlab_cell, trials_in, version
):
    matlab_file(tmp_path / "in" / "Jango_20150730_001.mat", xds(matlab_cell), version)
    convert(convert_ma_2023, tmp_path)
    (row,) = trials_in(tmp_path / "out" / "ma_2023_jango_M1-96")
    assert row["features"][:, [0, 1, 2]].tolist() == [[1, 0, 0], [1, 0, 2]] and row["features"].sum() == 4
    assert (row["task"], row["session_id"]) == ("isometric_wrist", "Jango_20150730_001")


def test_an_unknown_task_is_written_as_the_laboratory_calls_it(tmp_path, matlab_file, matlab_cell, trials_in):
    meta = {"monkey": "Jango", "task": "XY", "array": "M1"}
    matlab_file(tmp_path / "in" / "a.mat", xds(matlab_cell, meta=meta), "v5")
    convert(convert_ma_2023, tmp_path)
    assert trials_in(tmp_path / "out" / "ma_2023_jango_M1-96")[0]["task"] == "xy"


def test_wrist_force_of_another_layout_is_refused(tmp_path, matlab_file, matlab_cell):
    path = tmp_path / "in" / "a.mat"
    matlab_file(path, xds(matlab_cell, unit_names=matlab_cell(["elec1", "ainp1", "elec2"])), "v5")
    with pytest.raises(ValueError, match="a unit is called 'ainp1'; expected a name such as 'elec12'"):
        convert(convert_ma_2023, tmp_path)
    matlab_file(path, {"xds": {"spike_counts": column(1, 2)}}, "v7.3")
    with pytest.raises(ValueError, match=r"no xds.spikes, .*; there are xds, xds.spike_counts"):
        convert(convert_ma_2023, tmp_path)


def trial_data(**changes):
    values = {
        "S1_spikes": np.array([[1, 0, 0], [0, 1, 1], [0, 0, 2], [1, 0, 0], [9, 9, 9]], dtype=float),
        # Electrode and unit; unit 0 is what was not sorted.
        "S1_unit_guide": np.array([[2, 0], [2, 1], [96, 1]], dtype=float),
        "bin_size": column(0.01),
        "monkey": "Han",
    }
    return {**values, **changes}


@pytest.mark.parametrize("version", VERSIONS)
def test_area_2_adds_the_units_of_an_electrode_and_pairs_of_bins(tmp_path, matlab_file, trials_in, version):
    matlab_file(tmp_path / "in" / "Han_20171101_COactpas_TD.mat", {"trial_data": trial_data()}, version)
    convert(convert_chowdhury_2020, tmp_path)
    (row,) = trials_in(tmp_path / "out" / "chowdhury_2020_han_area2-96")
    assert row["features"][:, [1, 95]].tolist() == [[2, 1], [1, 2]] and row["features"].sum() == 6
    assert (row["participant_id"], row["task"]) == ("han", "reaching")


@pytest.mark.parametrize("version", VERSIONS)
def test_area_2_in_several_structs_is_several_stretches(tmp_path, matlab_file, trials_in, version):
    parts = [trial_data(), trial_data(S1_spikes=np.array([[0, 0, 3], [0, 0, 4]], dtype=float))]
    if version == "v5":
        array = np.zeros((1, 2), dtype=[(name, object) for name in parts[0]])
        for index, part in enumerate(parts):
            array[0, index] = tuple(part.values())
        parts = array
    matlab_file(tmp_path / "in" / "Han_20171101_TRT_TD.mat", {"trial_data": parts}, version)
    convert(convert_chowdhury_2020, tmp_path)
    rows = trials_in(tmp_path / "out" / "chowdhury_2020_han_area2-96")
    assert [row["features"][:, 95].tolist() for row in rows] == [[1, 2], [7]]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bin_size": column(0.03)}, "its bins are 30 ms; 20 ms is not a multiple"),
        ({"S1_unit_guide": np.array([[1.0, 1.0]])}, "S1_unit_guide has 1 units"),
        ({"S1_unit_guide": np.array([[1.0, 1], [2, 1], [130, 1]])}, "electrodes 1 to 130; expected 1 to 96"),
        ({"S1_spikes": np.full((4, 3), 0.4)}, "S1_spikes holds 0.4.*, which is no count"),
    ],
)
def test_area_2_of_another_layout_is_refused(tmp_path, matlab_file, changes, message):
    matlab_file(tmp_path / "in" / "Han_TD.mat", {"trial_data": trial_data(**changes)}, "v7.3")
    with pytest.raises(ValueError, match=message):
        convert(convert_chowdhury_2020, tmp_path)


def ramp(bins, channels=2):
    """Bin i of channel c holds i + 100 c, which fits a byte."""
    return (np.arange(bins)[:, None] + 100 * np.arange(channels)).astype(np.uint8)


@pytest.mark.parametrize("version", VERSIONS)
def test_handwritten_sentences_are_cut_from_the_go_cue_to_their_end(
    tmp_path, matlab_file, matlab_cell, trials_in, version
):
    sentences = {
        "neuralActivityTimeSeries": ramp(20),
        "blockNumsTimeSeries": column(*[3] * 10, *[4] * 10),
        "goCueOnsetTimeBin": column(3, 11, 15),
        "sentenceEndTimeBin": column(6, 13, 18),
        "sentencePrompt": matlab_cell(["hi>you~", "no", "bye"]),
        "excludedSentences": column(0, 1, 0),
    }
    matlab_file(tmp_path / "in" / "Datasets" / "t5.2019.05.08" / "sentences.mat", sentences, version)
    convert(convert_willett_2021, tmp_path)
    rows = trials_in(tmp_path / "out" / "willett_2021_t5_hand_knob-2")
    # Bins 3 to 6, counted from 1, hold 2, 3, 4, 5.
    assert [row["features"].tolist() for row in rows] == [[[5, 205], [9, 209]], [[29, 229], [33, 233]]]
    assert [(row["text"], row["block_index"]) for row in rows] == [("hi>you~", 3), ("bye", 4)]
    assert {row["session_id"] for row in rows} == {"t5.2019.05.08"}


def test_handwritten_characters_end_at_the_next_delay_or_the_end_of_the_block(
    tmp_path, matlab_file, matlab_cell, trials_in
):
    letters = {
        "neuralActivityTimeSeries": ramp(20),
        "blockNumsTimeSeries": column(*[3] * 12, *[4] * 8),
        "delayPeriodOnsetTimeBin": column(1, 7, 13),
        "goPeriodOnsetTimeBin": column(3, 9, 15),
        "characterCues": matlab_cell(["a", "greaterThan", "doNothing"]),
    }
    matlab_file(tmp_path / "in" / "t5.2019.05.08" / "singleLetters.mat", letters, "v5")
    matlab_file(tmp_path / "in" / "t5.2019.05.08" / "straightLines.mat", {"x": column(1)}, "v5")
    convert(convert_willett_2021, tmp_path)
    rows = trials_in(tmp_path / "out" / "willett_2021_t5_hand_knob-2")
    assert [(row["text"], len(row["features"])) for row in rows] == [("a", 2), (">", 2), (None, 3)]
    assert rows[1]["features"][0, 0] == 8 + 9


def test_handwriting_outside_the_recording_is_refused(tmp_path, matlab_file, matlab_cell):
    sentences = {
        "neuralActivityTimeSeries": ramp(20),
        "blockNumsTimeSeries": column(*[3] * 20),
        "goCueOnsetTimeBin": column(3),
        "sentenceEndTimeBin": column(21),
        "sentencePrompt": matlab_cell(["hi"]),
        "excludedSentences": column(0),
    }
    matlab_file(tmp_path / "in" / "t5.2019.05.08" / "sentences.mat", sentences, "v5")
    with pytest.raises(ValueError, match=r"sentences.mat: a trial is from bin 2 to bin 21 of 20"):
        convert(convert_willett_2021, tmp_path)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_year_of_handwriting_has_one_stretch_per_sentence(tmp_path, matlab_file, matlab_cell, trials_in, version):
    day = {
        "tx_feats": matlab_cell([ramp(3), ramp(2) + np.uint8(50)], (1, 2)),
        "sentences": matlab_cell(["hi>you~", "bye"], (1, 2)),
        "blocks": matlab_cell([column(5), column(6)], (1, 2)) if version == "v5" else column(5, 6),
    }
    matlab_file(tmp_path / "in" / "t5.2022.09.29_n.mat", day, version)
    matlab_file(tmp_path / "in" / "t5.2022.09.29_r.mat", day, version)
    convert(convert_fan_2023, tmp_path)
    rows = trials_in(tmp_path / "out" / "fan_2023_t5_hand_knob-2")
    assert [row["features"].tolist() for row in rows[:2]] == [[[0, 100], [1, 101], [2, 102]], [[50, 150], [51, 151]]]
    assert [(row["trial_index"], row["block_index"]) for row in rows] == [(0, 5), (1, 6), (2, 5), (3, 6)]
    assert {row["session_id"] for row in rows} == {"t5.2022.09.29"} and rows[0]["text"] == "hi>you~"


def test_a_year_of_handwriting_of_another_layout_is_refused(tmp_path, matlab_file, matlab_cell):
    day = {"tx_feats": matlab_cell([ramp(3), ramp(2, 3)]), "sentences": matlab_cell(["a", "b"]), "blocks": column(1, 1)}
    matlab_file(tmp_path / "in" / "t5.2022.05.18.mat", day, "v5")
    with pytest.raises(ValueError, match=r"channels \[\(2,\), \(3,\)\]; expected one number"):
        convert(convert_fan_2023, tmp_path)
    matlab_file(tmp_path / "in" / "t5.2022.05.18.mat", day | {"sentences": matlab_cell(["a"])}, "v5")
    with pytest.raises(ValueError, match="there are 2 trials, 1 sentences and 2 blocks"):
        convert(convert_fan_2023, tmp_path)


def inner_speech(cell, bin_size=10, **changes):
    values = {
        "binnedTX": ramp(20),
        "spikePow": np.arange(40, dtype=np.float32).reshape(20, 2),
        "blockNum": column(*[1] * 10, *[2] * 10),
        "delayTrialEpochs": np.array([[1, 4], [11, 14]], dtype=float),
        "goTrialEpochs": np.array([[5, 9], [15, 18]], dtype=float),
        "trialCues": column(2, 1),
        "cueList": cell(["DO_NOTHING", "ban"], (1, 2)),
        # The second set goes on into the power, as the analysis of the source has it.
        "chanSets": cell([column(1, 3), column(2, 4)], (1, 2)),
        "chanSetNames": cell(["ventral6v", "55b"], (1, 2)),
        "binSize": column(bin_size),
    }
    return {**values, **changes}


@pytest.mark.parametrize("version", VERSIONS)
def test_inner_speech_epochs_count_from_one_and_include_their_last_bin(
    tmp_path, matlab_file, matlab_cell, trials_in, version
):
    path = tmp_path / "in" / "t15.2024.04.07_imagined1stMotor_raw.mat"
    matlab_file(path, inner_speech(matlab_cell, bin_size=20), version)
    convert(convert_kunz_2025, tmp_path)
    rows = trials_in(tmp_path / "out" / "kunz_2025_t15_ventral6v-1_55b-1_power")
    # Bins 5 to 9, counted from 1.
    assert rows[0]["features"][:, 0].tolist() == [4, 5, 6, 7, 8]
    assert rows[0]["features"][0].tolist() == [4, 104, 8, 9]
    assert [(row["text"], row["task"], row["block_index"]) for row in rows] == [
        ("ban", "imagined_speech_motor", 1),
        (None, "rest", 2),
    ]
    assert rows[0]["channel_areas"] == ["ventral6v", "55b"] * 2 and rows[0]["session_id"] == "t15.2024.04.07"
    assert rows[0]["feature_kinds"] == ["threshold_crossings"] * 2 + ["spike_band_power"] * 2


def test_inner_speech_in_short_bins_adds_counts_and_averages_power(tmp_path, matlab_file, matlab_cell, trials_in):
    matlab_file(tmp_path / "in" / "t16.2024.03.04_mouthed_raw.mat", inner_speech(matlab_cell), "v5")
    convert(convert_kunz_2025, tmp_path)
    rows = trials_in(tmp_path / "out" / "kunz_2025_t16_ventral6v-1_55b-1_power")
    # Five bins of 10 ms: two pairs, and one that is dropped.
    assert rows[0]["features"].tolist() == [[4 + 5, 104 + 105, 9, 10], [6 + 7, 106 + 107, 13, 14]]


@pytest.mark.parametrize(
    ("behaviour", "task", "first"),
    [
        ("attempted", "attempted_speech", 4),
        ("mouthed", "mouthed_speech", 4),
        ("imagined1stAuditory", "imagined_speech_auditory", 4),
        ("imaginedListening", "imagined_listening", 4),
        ("listening", "listening", 0),
        ("reading", "reading", 0),
    ],
)
def test_each_behaviour_has_its_task_and_the_epoch_in_which_it_happens(
    tmp_path, matlab_file, matlab_cell, trials_in, behaviour, task, first
):
    path = tmp_path / "in" / f"t12.2023.08.15_{behaviour}_raw.mat"
    matlab_file(path, inner_speech(matlab_cell, bin_size=20), "v5")
    matlab_file(path.with_name("t12.2023.08.15_allBehaviors_raw.mat"), {"x": column(1)}, "v5")
    convert(convert_kunz_2025, tmp_path)
    row = trials_in(tmp_path / "out" / "kunz_2025_t12_ventral6v-1_55b-1_power")[0]
    assert row["task"] == task and row["features"][0, 0] == first


def test_interleaved_behaviours_are_told_by_their_cues(tmp_path, matlab_file, matlab_cell, trials_in):
    cues = ["DO_NOTHING$0", "ban (imaginedlistening)", "ban\\n(attempted)$1", "kite$0"]
    changes = {
        "cueList": matlab_cell(cues, (1, 4)),
        "trialCues": column(2, 3, 4, 1),
        "delayTrialEpochs": np.array([[1, 2], [5, 6], [11, 12], [15, 16]], dtype=float),
        "goTrialEpochs": np.array([[3, 4], [7, 8], [13, 14], [17, 18]], dtype=float),
    }
    path = tmp_path / "in" / "t12.2024.04.11_interleavedVerbalBehaviors_raw.mat"
    matlab_file(path, inner_speech(matlab_cell, bin_size=20, **changes), "v5")
    convert(convert_kunz_2025, tmp_path)
    rows = trials_in(tmp_path / "out" / "kunz_2025_t12_ventral6v-1_55b-1_power")
    assert [(row["text"], row["task"], row["features"][0, 0]) for row in rows] == [
        ("ban", "imagined_listening", 2),
        ("ban", "attempted_speech", 6),
        ("kite", "listening", 10),
        (None, "rest", 16),
    ]


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        ("t12.2023.08.15_humming_raw", {}, "behaviour 'humming' is unknown; known are attempted"),
        ("t12_attempted_raw", {}, "its name is not <participant>"),
        ("t12.2023.08.15_attempted_raw", {"binSize": column(15)}, "its bins are 15 ms"),
        ("t12.2023.08.15_attempted_raw", {"trialCues": column(0, 1)}, "trialCues are 0 to 1, but cueList has 2"),
        ("t12.2023.08.15_attempted_raw", {"trialCues": column(1)}, r"expected \(1, 2\), as there are 1 trialCues"),
        (
            "t12.2023.08.15_attempted_raw",
            {"goTrialEpochs": np.array([[0.0, 3], [5, 6]])},
            r"trial 0 is from bin 0 to bin 3 \(from 1\)",
        ),
        (
            "t12.2023.08.15_attempted_raw",
            {"goTrialEpochs": np.array([[1.0, 3], [5, 21]])},
            "trial 1 is from bin 5 to bin 21 .* there are 20",
        ),
        ("t12.2023.08.15_attempted_raw", {"spikePow": np.zeros((19, 2))}, r"spikePow \(19, 2\)"),
        ("t12.2023.08.15_attempted_raw", {"binnedTX": np.full((20, 2), -0.3)}, "binnedTX holds -0.3"),
    ],
)
def test_inner_speech_of_another_layout_is_refused(tmp_path, matlab_file, matlab_cell, name, changes, message):
    matlab_file(tmp_path / "in" / f"{name}.mat", inner_speech(matlab_cell, **changes), "v5")
    with pytest.raises(ValueError, match=message):
        convert(convert_kunz_2025, tmp_path)
