"""The corpora that come as NWB files, written by pynwb in their layouts, small enough to count spikes by hand."""

import h5py
import numpy as np
import pytest

from datasets_scripts import (
    convert_churchland_2012,
    convert_even_chen_2019,
    convert_falcon_h1,
    convert_falcon_h2,
    convert_nlb_2021,
    convert_perich_2018,
    convert_temmar_2025,
)

GROUPS = {
    "1": ("M1 in Motor Cortex, left hemisphere", "array corresponding to device implanted at M1"),
    "2": ("Caudal, dorsal Pre-motor cortex, Left hemisphere", "array corresponding to device implanted at PMd"),
}
ELECTRODES = [("unknown", "2"), ("unknown", "1"), ("unknown", "1")]


def convert(module, folder, source=None, **options):
    return module.convert(source or folder / "in", folder / "out", progress=False, **options)


def write_reaching(nwb_file, folder, name="sub-Jenkins_ses-20090912_behavior+ecephys.nwb", **more):
    values = {
        "electrodes": ELECTRODES,
        "groups": GROUPS,
        "units": [(0, [1.0, 1.019, 1.02]), (2, [1.05]), (2, [1.041])],
        "trials": {"start_time": [1.0, 2.0], "stop_time": [1.06, 2.06]},
    }
    return nwb_file(folder / "in" / "sub-Jenkins" / name, **{**values, **more})


@pytest.mark.parametrize("module", [convert_churchland_2012, convert_even_chen_2019])
def test_reaching_trials_have_the_counts_of_every_electrode(tmp_path, nwb_file, trials_in, module):
    write_reaching(nwb_file, tmp_path)
    convert(module, tmp_path)
    rows = trials_in(tmp_path / "out" / f"{module.CORPUS.name}_jenkins_PMd-1_M1-2")
    assert [row["features"].tolist() for row in rows] == [
        [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 2.0]],
        [[0.0, 0.0, 0.0]] * 3,
    ]
    row = rows[0]
    assert row["channel_areas"] == ["PMd", "M1", "M1"] and row["feature_kinds"] == ["threshold_crossings"] * 3
    assert (row["participant_id"], row["session_id"], row["task"]) == ("jenkins", "Jenkins_20090912", "reaching")
    assert row["source"].endswith("sub-Jenkins/sub-Jenkins_ses-20090912_behavior+ecephys.nwb")


def test_the_dead_electrode_of_a_session_is_reported(tmp_path, nwb_file):
    write_reaching(nwb_file, tmp_path)
    report = convert(convert_churchland_2012, tmp_path)
    assert report.dead_channels == {"churchland_2012_jenkins_PMd-1_M1-2": {"Jenkins_20090912": [1]}}
    assert "1 of 1 sessions have dead channels" in str(report)


def test_trials_without_a_gap_are_joined(tmp_path, nwb_file, trials_in):
    write_reaching(nwb_file, tmp_path, trials={"start_time": [1.0, 1.06, 1.2], "stop_time": [1.06, 1.1, 1.3]})
    convert(convert_even_chen_2019, tmp_path)
    assert [len(row["features"]) for row in trials_in(tmp_path / "out" / "even_chen_2019_jenkins_PMd-1_M1-2")] == [5, 5]


def test_trials_after_the_clock_started_again_are_refused_and_can_be_left_out(tmp_path, nwb_file, trials_in):
    times = {"start_time": [1.0, 2.0, 1.5, 5.0], "stop_time": [1.06, 2.06, 2.01, 5.06]}
    write_reaching(nwb_file, tmp_path, trials=times)
    with pytest.raises(ValueError, match=r"trial 1 \(2 s to 2.06 s\) shares its time .* started again"):
        convert(convert_churchland_2012, tmp_path)
    report = convert(convert_churchland_2012, tmp_path, allow_partial=True)
    assert len(trials_in(tmp_path / "out" / "churchland_2012_jenkins_PMd-1_M1-2")) == 2
    assert len(report.datasets["churchland_2012_jenkins_PMd-1_M1-2"].left_out) == 2


def test_a_trial_without_times_is_named(tmp_path, nwb_file):
    write_reaching(nwb_file, tmp_path, trials={"start_time": [1.0, np.nan], "stop_time": [1.06, 2.0]})
    with pytest.raises(ValueError, match="trial 1 is from nan s to 2 s"):
        convert(convert_churchland_2012, tmp_path)


def test_benchmark_trials_keep_their_split_and_the_test_file_is_left_out(tmp_path, nwb_file, trials_in):
    trials = {
        "start_time": [1.0, 1.6, 2.2, 2.8],
        "stop_time": [1.6, 2.2, 2.8, 3.4],
        "split": ["train", "none", "val", "train"],
    }
    write_reaching(nwb_file, tmp_path, "sub-Indy_desc-train_behavior+ecephys.nwb", trials=trials, subject="Indy")
    write_reaching(nwb_file, tmp_path, "sub-Indy_desc-test_ecephys.nwb", trials=trials, subject="Indy")
    convert(convert_nlb_2021, tmp_path)
    rows = trials_in(tmp_path / "out" / "nlb_2021_indy_PMd-1_M1-2")
    assert sorted((row["trial_index"], row["split"], len(row["features"])) for row in rows) == [
        (0, "train", 60),
        (1, "validation", 30),
        (2, "train", 30),
    ]
    assert {row["session_id"] for row in rows} == {"Indy_train"}


def test_an_unknown_split_is_refused(tmp_path, nwb_file):
    write_reaching(nwb_file, tmp_path, trials={"start_time": [1.0], "stop_time": [1.6], "split": ["dev"]})
    with pytest.raises(ValueError, match="split 'dev'; expected train, none, val, test"):
        convert(convert_nlb_2021, tmp_path)


def test_a_continuous_recording_ends_at_a_pause(tmp_path, nwb_file, trials_in):
    busy = np.arange(10.0, 13.0, 0.5)
    units = [(0, busy), (0, busy[1:-1] + 0.01), (1, np.arange(100.0, 150.001, 0.25))]
    name = "sub-C_ses-CO-20131003_behavior+ecephys.nwb"
    write_reaching(nwb_file, tmp_path, name, subject="C", units=units, electrodes=[("M1", "1")] * 2)
    convert(convert_perich_2018, tmp_path)
    rows = trials_in(tmp_path / "out" / "perich_2018_chewie_M1-2")
    assert [len(row["features"]) for row in rows] == [125, 1000, 1000, 500]
    # 10.0 s and 10.5 s are in bins 0 and 25; the second unit of the electrode is 10 ms later.
    first = rows[0]["features"]
    assert np.flatnonzero(first[:, 0]).tolist() == [0, 25, 50, 75, 100] and first[25, 0] == 2 and first[0, 0] == 1
    assert rows[1]["features"][:, 1].sum() == 80
    assert (rows[0]["participant_id"], rows[0]["session_id"]) == ("chewie", "C_CO-20131003")


def test_a_converted_corpus_goes_into_the_pretraining_store_count_by_count(tmp_path, nwb_file, trials_in):
    from bit_speech.data.corpus_building import CorpusSource, build_corpus
    from bit_speech.data.pretraining_corpus import PretrainingCorpus

    rng = np.random.default_rng(0)
    write_reaching(nwb_file, tmp_path, units=[(i % 3, np.sort(rng.uniform(0, 25, 900))) for i in range(5)])
    write_link(nwb_file, tmp_path, counts=rng.poisson(2.0, size=(200, 2)).astype(float), bins=200)
    reaching = convert(convert_perich_2018, tmp_path / "reaching", source=tmp_path / "in" / "sub-Jenkins")
    fingers = convert(convert_temmar_2025, tmp_path / "fingers", source=tmp_path / "in" / "sub-Monkey-N")
    folders = [report.datasets[name].output_dir for report in (reaching, fingers) for name in report.datasets]
    build_corpus([CorpusSource(folder) for folder in folders], tmp_path / "store")
    corpus = PretrainingCorpus(tmp_path / "store")
    assert corpus.participants == {"jenkins": 3, "monkey_n": 2}
    assert [entry["dtype"] for entry in corpus.manifest] == ["uint8", "uint8"]
    for number, folder in enumerate(folders):
        items = np.flatnonzero(corpus.dataset_index == number)
        stored = [corpus.batch([item], with_counts=True)["labels"][0].numpy() for item in items]
        converted = [row["features"][:, : corpus.manifest[number]["num_channels"]] for row in trials_in(folder)]
        np.testing.assert_array_equal(np.concatenate(stored), np.concatenate(converted))


def test_a_unit_of_several_electrodes_is_refused(tmp_path, nwb_file):
    path = write_reaching(nwb_file, tmp_path)
    with h5py.File(path, "a") as file:
        file["units/electrodes_index"][...] = [1, 1, 3]
    with pytest.raises(ValueError, match="a unit has no electrode, or several"):
        convert(convert_perich_2018, tmp_path)


@pytest.mark.parametrize("module", [convert_churchland_2012, convert_perich_2018])
@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("units", r"it has no 'units/.*'; the file holds .*general"),
        ("general/extracellular_ephys/electrodes/location", "electrodes/location'; .* holds .*group_name"),
    ],
)
def test_a_file_with_another_layout_is_refused_with_what_it_has(tmp_path, nwb_file, module, gone, message):
    path = write_reaching(nwb_file, tmp_path)
    with h5py.File(path, "a") as file:
        del file[gone]
    with pytest.raises(ValueError, match=message):
        convert(module, tmp_path)


def test_what_is_no_nwb_file_is_refused(tmp_path):
    (tmp_path / "in").mkdir()
    with h5py.File(tmp_path / "in" / "a.nwb", "w") as file:
        file["units"] = 1
    with pytest.raises(ValueError, match="no NWB file of version 2"):
        convert(convert_churchland_2012, tmp_path)


def write_link(nwb_file, folder, place="analysis", bins=6, times=None, counts=None):
    counts = np.arange(bins * 2, dtype=float).reshape(bins, 2) if counts is None else counts
    times = np.arange(bins) * 0.02 if times is None else times
    common = {"electrodes": [1, 0], "timestamps": times}
    return nwb_file(
        folder / "in" / "sub-Monkey-N" / "sub-Monkey-N_ses-20200127-CO_behavior+ecephys.nwb",
        subject="Monkey N",
        electrodes=[("S1", "1"), ("Hand area of M1", "1")],
        series=[
            (place, "ThresholdCrossings", {"data": counts, **common}),
            (
                "analysis" if place == "analysis" else "acquisition",
                "SpikingBandPower",
                {"data": counts * 0.25, **common},
            ),
        ],
    )


@pytest.mark.parametrize("place", ["analysis", "ecephys"])
def test_finger_movements_have_crossings_then_power_and_end_at_gaps(tmp_path, nwb_file, trials_in, place):
    times = np.array([0.0, 0.02, 0.04, 1.0, 1.02, 1.04])
    write_link(nwb_file, tmp_path, place, times=times)
    convert(convert_temmar_2025, tmp_path)
    rows = trials_in(tmp_path / "out" / "temmar_2025_monkey_n_M1-1_S1-1_power")
    assert rows[1]["features"].tolist() == [[6, 7, 1.5, 1.75], [8, 9, 2.0, 2.25], [10, 11, 2.5, 2.75]]
    assert len(rows) == 2 and rows[0]["channel_areas"] == ["M1", "S1"] * 2
    assert rows[0]["feature_kinds"] == ["threshold_crossings"] * 2 + ["spike_band_power"] * 2
    assert (rows[0]["session_id"], rows[0]["task"]) == ("Monkey-N_20200127-CO", "finger_movement")


def test_finger_movements_of_another_layout_are_refused(tmp_path, nwb_file):
    path = write_link(nwb_file, tmp_path, counts=np.full((6, 2), 0.5))
    with pytest.raises(ValueError, match="ThresholdCrossings holds 0.5, which is no count"):
        convert(convert_temmar_2025, tmp_path)
    with h5py.File(path, "a") as file:
        del file["analysis/ThresholdCrossings"]
    with pytest.raises(ValueError, match="no 'analysis/ThresholdCrossings'; analysis holds SpikingBandPower"):
        convert(convert_temmar_2025, tmp_path)


def test_bins_of_another_length_are_refused(tmp_path, nwb_file):
    write_link(nwb_file, tmp_path, times=np.arange(6) * 0.005)
    with pytest.raises(ValueError, match="bins 0 and 1 are 5 ms apart; expected 20 ms"):
        convert(convert_temmar_2025, tmp_path)


def write_h1(
    nwb_file, folder, trials, rate=0.02, kinematics=None, name="sub-HumanPitt-held-in-calib_ses-19250101T111740"
):
    samples = len(trials) if kinematics is None else kinematics
    return nwb_file(
        folder / "in" / f"{name}.nwb",
        subject="HumanPitt-held-in-calib",
        units=[(None, [4.98, 4.999, 5.0]), (None, [5.03, 5.0599])],
        series=[
            (
                "acquisition",
                "OpenLoopKinematics",
                {"data": np.zeros((samples, 7)), "unit": "m", "rate": rate, "starting_time": 0.0, "offset": 5.0},
            ),
            (
                "acquisition",
                "TrialNum",
                {"data": np.array(trials), "unit": "n", "rate": rate, "starting_time": 0.0},
            ),
        ],
    )


def test_reach_and_grasp_bins_end_at_their_samples(tmp_path, nwb_file, trials_in):
    write_h1(nwb_file, tmp_path, [1.0, 1.0, np.nan, np.nan])
    write_h1(nwb_file, tmp_path, [1], name="sub-HumanPitt-held-in-minival_ses-19250101T111740")
    convert(convert_falcon_h1, tmp_path)
    rows = trials_in(tmp_path / "out" / "falcon_h1_h1_motor_cortex-2")
    # The first sample, at 5.0 s, ends the bin from 4.98 s on.
    assert [row["features"].tolist() for row in rows] == [[[2, 0], [1, 0]], [[0, 1], [0, 1]]]
    assert (rows[0]["species"], rows[0]["task"]) == ("human", "reach_and_grasp")
    assert rows[0]["session_id"] == "h1.HumanPitt-held-in-calib_19250101T111740"


def test_reach_and_grasp_of_another_layout_is_refused(tmp_path, nwb_file):
    write_h1(nwb_file, tmp_path, [1, 1], rate=30.0)
    with pytest.raises(ValueError, match="has the rate 30; expected bins of 20 ms"):
        convert(convert_falcon_h1, tmp_path)
    write_h1(nwb_file, tmp_path, [1, 1], kinematics=3)
    with pytest.raises(ValueError, match="TrialNum has 2 samples, OpenLoopKinematics 3"):
        convert(convert_falcon_h1, tmp_path)


def write_h2(nwb_file, folder, cues, name="sub-T5-held-in-calib_ses-20220518"):
    data = np.arange(10, dtype=np.uint8).reshape(5, 2)
    times = np.array([0.0, 0.02, 0.04, 10.06, 10.08])
    trials = {"start_time": [0.0, 10.06], "stop_time": [0.04, 10.08], "cue": ["hi>you~", "bye"], "block_num": [3, 4]}
    return nwb_file(
        folder / "in" / f"{name}.nwb",
        subject="T5_held_in_calib",
        day="2022-05-18",
        trials={key: values[:cues] for key, values in trials.items()},
        series=[("acquisition", "binned_spikes", {"data": data, "unit": "int", "timestamps": times})],
    )


def test_handwritten_sentences_are_parted_by_gaps(tmp_path, nwb_file, trials_in):
    write_h2(nwb_file, tmp_path, cues=2)
    write_h2(nwb_file, tmp_path, cues=2, name="sub-T5-held-in-minival_ses-20220518")
    convert(convert_falcon_h2, tmp_path)
    rows = trials_in(tmp_path / "out" / "falcon_h2_t5_hand_knob-2")
    assert [row["features"].tolist() for row in rows] == [[[0, 1], [2, 3], [4, 5]], [[6, 7], [8, 9]]]
    assert [(row["text"], row["block_index"]) for row in rows] == [("hi>you~", 3), ("bye", 4)]
    assert {row["session_id"] for row in rows} == {"t5.2022.05.18"}


def test_gaps_that_do_not_fit_the_sentences_are_refused(tmp_path, nwb_file):
    write_h2(nwb_file, tmp_path, cues=1)
    with pytest.raises(ValueError, match="gaps part the bins into 2 trials, but the trials table has 1"):
        convert(convert_falcon_h2, tmp_path)
