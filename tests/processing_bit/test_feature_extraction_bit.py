"""Signal side: what is done to a trial, in which order, and what is refused."""

import numpy as np
import pytest
import torch

from processing_bit.feature_extraction_bit import BITFeatureExtractor

RNG = np.random.default_rng(0)
CHANNELS = 6


def extractor(**settings):
    return BITFeatureExtractor(**{"participants": {"t15": CHANNELS}, **settings})


def trials(*lengths):
    return [RNG.normal(3.0, 2.0, size=(length, CHANNELS)).astype(np.float32) for length in lengths]


# Smoothing


@pytest.mark.parametrize("smoothing", ["symmetric", "causal"])
def test_smoothing_equals_a_renormalised_gaussian_computed_bin_by_bin(smoothing):
    (trial,) = trials(40)
    smoothed = extractor(smoothing=smoothing).smooth(trial)
    for t in range(40):
        lags = np.arange(-6, 1 if smoothing == "causal" else 7)
        lags = lags[(t + lags >= 0) & (t + lags < 40)]
        weights = np.exp(-0.5 * (lags / 2.0) ** 2)
        expected = (weights[:, None] * trial[t + lags]).sum(axis=0) / weights.sum()
        np.testing.assert_allclose(smoothed[t], expected, rtol=2e-5, atol=1e-5)


@pytest.mark.parametrize("smoothing", ["symmetric", "causal"])
@pytest.mark.parametrize("length", [1, 2, 5, 12, 13, 31, 32, 33, 100])
def test_a_constant_signal_stays_constant_at_every_length(smoothing, length):
    constant = np.full((length, CHANNELS), 7.0, dtype=np.float32)
    np.testing.assert_allclose(extractor(smoothing=smoothing).smooth(constant), constant, rtol=1e-6)


def test_the_kernel_sums_to_one_and_has_the_papers_thirteen_taps():
    symmetric, causal = extractor().smoothing_kernel(), extractor(smoothing="causal").smoothing_kernel()
    assert symmetric.size == 13 and causal.size == 7
    assert symmetric.sum() == pytest.approx(1) and causal.sum() == pytest.approx(1)
    assert np.array_equal(symmetric, symmetric[::-1]) and np.all(np.diff(causal) < 0)


def test_symmetric_smoothing_has_no_direction():
    (trial,) = trials(50)
    forward = extractor().smooth(trial)
    np.testing.assert_allclose(extractor().smooth(trial[::-1])[::-1], forward, rtol=1e-4, atol=1e-5)


def test_a_future_bin_never_changes_the_causally_smoothed_past():
    (trial,) = trials(60)
    changed = trial.copy()
    changed[30:] += 100.0
    causal = extractor(smoothing="causal")
    before, after = causal.smooth(trial), causal.smooth(changed)
    assert np.array_equal(before[:30], after[:30])
    assert not np.array_equal(before[30:], after[30:])


@pytest.mark.parametrize("size", [1, 3, 4, 17, 40])
def test_causal_smoothing_chunk_by_chunk_equals_the_whole_trial_bit_for_bit(size):
    (trial,) = trials(97)
    causal = extractor(smoothing="causal")
    reach = causal.smoothing_kernel().size - 1
    chunks = [causal.smooth(trial[a : a + size], past=trial[max(0, a - reach) : a]) for a in range(0, 97, size)]
    assert np.array_equal(np.concatenate(chunks), causal.smooth(trial))


def test_more_past_than_the_kernel_reaches_changes_nothing():
    (trial,) = trials(50)
    causal = extractor(smoothing="causal")
    assert np.array_equal(causal.smooth(trial[40:], past=trial[:40]), causal.smooth(trial)[40:])


def test_past_bins_are_refused_by_symmetric_smoothing():
    (trial,) = trials(10)
    with pytest.raises(ValueError, match="smoothing='causal'"):
        extractor().smooth(trial, past=trial)


def test_zero_bins_of_smoothing_leave_the_signal_alone():
    (trial,) = trials(9)
    assert np.array_equal(extractor(smoothing_sd_bins=0).smooth(trial), trial)


# Batches


@pytest.mark.parametrize("smoothing", ["symmetric", "causal"])
def test_a_trial_does_not_depend_on_its_batch(smoothing):
    batch = trials(7, 40, 23)
    extract = extractor(normalization="none", smoothing=smoothing)
    together = extract(batch)["input_features"]
    for index, trial in enumerate(batch):
        alone = extract(trial)["input_features"][0]
        assert np.array_equal(together[index, : len(trial)], alone)


def test_padding_is_zero_masked_and_only_up_to_the_longest_trial():
    batch = extractor()(trials(4, 9))
    assert batch["input_features"].shape == (2, 9, CHANNELS) and batch["input_features"].dtype == np.float32
    assert batch["attention_mask"].dtype == bool and batch["attention_mask"].sum(axis=1).tolist() == [4, 9]
    assert not batch["input_features"][0, 4:].any()


def test_pad_puts_finished_trials_into_a_batch_unchanged():
    finished = trials(3, 5)
    batch = extractor().pad(finished, return_tensors="pt")
    assert torch.equal(batch["input_features"][0, :3], torch.from_numpy(finished[0]))
    assert batch["attention_mask"].tolist() == [[True] * 3 + [False] * 2, [True] * 5]


def test_the_input_is_never_changed():
    batch = trials(8, 5)
    copies = [trial.copy() for trial in batch]
    extractor()(batch)
    assert all(np.array_equal(trial, copy) for trial, copy in zip(batch, copies))


@pytest.mark.parametrize(
    "convert",
    [
        lambda trial: trial,
        lambda trial: trial.astype(np.float64),
        lambda trial: trial.astype(np.float16),
        lambda trial: trial.astype(np.uint8),
        lambda trial: trial.tolist(),
        lambda trial: torch.from_numpy(trial),
        lambda trial: torch.from_numpy(trial).to(torch.bfloat16).requires_grad_(),
        lambda trial: np.asfortranarray(trial),
    ],
    ids=["float32", "float64", "float16", "uint8", "lists", "torch", "bfloat16", "fortran"],
)
def test_every_kind_of_number_gives_the_same_features(convert):
    counts = [RNG.integers(0, 9, size=(length, CHANNELS)).astype(np.float32) for length in (6, 11)]
    expected = extractor()(counts)["input_features"]
    np.testing.assert_allclose(extractor()([convert(trial) for trial in counts])["input_features"], expected, atol=1e-5)
    one = extractor()(convert(counts[1]))["input_features"]
    np.testing.assert_allclose(one, extractor()(counts[1])["input_features"], atol=1e-5)


def test_a_three_dimensional_array_is_a_batch():
    array = RNG.normal(size=(3, 8, CHANNELS))
    assert extractor()(array)["input_features"].shape == (3, 8, CHANNELS)


def test_torch_tensors_come_back_when_asked_for():
    batch = extractor(sessions=["a", "b"])(trials(3, 4), session_id=["b", "a"], return_tensors="pt")
    assert batch["input_features"].dtype == torch.float32 and batch["attention_mask"].dtype == torch.bool
    assert batch["participant_index"].dtype == torch.int64 and batch["session_index"].tolist() == [1, 0]


# Normalisation


def test_block_statistics_are_those_of_the_trials_of_the_same_session_and_block():
    batch = trials(10, 20, 30, 40)
    batch[3] += 50.0
    extract = extractor(smoothing_sd_bins=0)
    out = extract(batch, session_id=["a", "a", "a", "b"], block_index=[1, 1, 2, 1])["input_features"]
    block = np.concatenate(batch[:2])
    np.testing.assert_allclose(out[0, :10], (batch[0] - block.mean(0)) / block.std(0), rtol=1e-4, atol=1e-5)
    for index, length in ((2, 30), (3, 40)):
        np.testing.assert_allclose(out[index, :length].mean(0), 0, atol=1e-4)
        np.testing.assert_allclose(out[index, :length].std(0), 1, atol=1e-4)


def test_given_statistics_are_used_for_all_trials_or_one_per_trial():
    batch = trials(5, 5)
    extract = extractor(smoothing_sd_bins=0)
    first, second = (np.zeros(CHANNELS), np.ones(CHANNELS)), (np.ones(CHANNELS), np.full(CHANNELS, 2.0))
    for statistics in (first, np.stack(first), [value.tolist() for value in first]):
        np.testing.assert_allclose(extract(batch, statistics=statistics)["input_features"], np.stack(batch))
    out = extract(batch, statistics=[first, second])["input_features"]
    np.testing.assert_allclose(out[1], (batch[1] - 1) / 2, rtol=1e-6)


def test_merged_statistics_equal_those_of_all_bins_even_far_from_zero():
    batch = [trial.astype(np.float64) + 1e6 for trial in trials(3, 50, 1, 20)]
    mean, std = extractor().compute_statistics([trial.astype(np.float32) for trial in batch])
    everything = np.concatenate(batch).astype(np.float32).astype(np.float64)
    np.testing.assert_allclose(mean, everything.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, everything.std(0), rtol=1e-9)


@pytest.mark.parametrize("value", [0.0, 0.1, 5.0, 1e6, -3e-9])
def test_a_constant_channel_becomes_zeros_and_never_infinity(value):
    batch = trials(9, 12)
    for trial in batch:
        trial[:, 2] = value
    for normalization in ("block", "session"):
        extract = extractor(normalization=normalization)
        extract.fit_session_statistics({"a": batch})
        out = extract(batch, session_id="a")["input_features"]
        assert np.isfinite(out).all() and not out[:, :, 2].any()


def test_a_live_channel_of_tiny_values_is_not_taken_for_dead():
    batch = [trial * 1e-10 for trial in trials(30)]
    out = extractor(smoothing_sd_bins=0)(batch)["input_features"][0]
    np.testing.assert_allclose(out.std(0), 1, rtol=1e-4)


def test_session_statistics_are_fitted_once_saved_and_found_again(tmp_path):
    training = trials(40, 50)
    extract = extractor(normalization="session", smoothing_sd_bins=0)
    extract.fit_session_statistics({"a": training})
    extract.save_pretrained(tmp_path)
    loaded = BITFeatureExtractor.from_pretrained(tmp_path)
    (test,) = trials(10)
    everything = np.concatenate(training)
    out = loaded(test, session_id="a")["input_features"][0]
    np.testing.assert_allclose(out, (test - everything.mean(0)) / everything.std(0), rtol=1e-4, atol=1e-5)
    assert np.array_equal(out, extract(test, session_id="a")["input_features"][0])


def test_none_leaves_the_values_as_they_are():
    (trial,) = trials(5)
    assert np.array_equal(extractor(normalization="none", smoothing_sd_bins=0)(trial)["input_features"][0], trial)


# Selection

KINDS = ["threshold_crossings"] * 3 + ["spike_band_power"] * 3
AREAS = ["6v", "44", "6v"] * 2


def test_channels_are_kept_by_kind_and_area_and_given_statistics_with_them():
    (trial,) = trials(8)
    extract = BITFeatureExtractor(
        participants={"t12": 2}, feature_kinds=["spike_band_power"], channel_areas=["6v"], smoothing_sd_bins=0
    )
    statistics = (np.arange(6.0), np.ones(6))
    out = extract(trial, feature_kinds=KINDS, channel_areas=AREAS, statistics=statistics)["input_features"][0]
    np.testing.assert_allclose(out, (trial - np.arange(6))[:, [3, 5]], rtol=1e-5, atol=1e-5)
    assert np.array_equal(extract.select(np.arange(6), KINDS, AREAS), [3, 5])


def test_trials_that_are_already_selected_pass():
    extract = BITFeatureExtractor(participants={"t12": 3}, feature_kinds=["spike_band_power"])
    assert extract(np.ones((4, 3)))["input_features"].shape == (1, 4, 3)


def test_selection_without_labels_or_without_a_match_is_refused():
    extract = BITFeatureExtractor(participants={"t12": 3}, channel_areas=["6v"])
    with pytest.raises(ValueError, match="channel_areas of the channels are not given"):
        extract(np.ones((4, 6)))
    with pytest.raises(ValueError, match="No channel is left.*6v.*44"):
        extract.select(np.ones((4, 6)), channel_areas=["44"] * 6)


# What is refused


def broken(trial, row, channel, value):
    trial = trial.astype(np.float64)
    trial[row, channel] = value
    return trial


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (lambda: broken(np.ones((9, 6)), 7, 4, np.nan), "trial 1 has the value nan at bin 7, channel 4"),
        (lambda: broken(np.ones((9, 6)), 2, 5, -np.inf), "trial 1 has the value -inf at bin 2, channel 5"),
        (lambda: broken(np.ones((9, 6)), 3, 1, 1e300), "trial 1 has the value inf at bin 3, channel 1"),
        (lambda: np.ones((9, 5)), "trial 1 has 5 channels, but participant 't15' has 6"),
        (lambda: np.ones((0, 6)), r"trial 1 is empty \(shape \(0, 6\)\)"),
        (lambda: np.ones(6), r"trial 1 has the shape \(6,\)"),
        (lambda: [[1.0] * 6, [1.0] * 5], "trial 1 is ragged"),
        (lambda: np.full((3, 6), "x"), "trial 1 has the type <U1"),
        (lambda: np.ones((3, 6), dtype=complex), "trial 1 has the type complex128"),
    ],
)
def test_a_bad_trial_is_refused_by_its_index_and_value(second, message):
    with pytest.raises(ValueError, match=message):
        extractor()([np.ones((4, 6)), second()])


@pytest.mark.parametrize(
    ("features", "message"),
    [(np.ones(6), "1 dimension"), ([], "No trials"), (5.0, "0 dimension"), (np.ones((1, 2, 3, 6)), "4 dimension")],
)
def test_input_that_is_no_trial_is_refused(features, message):
    with pytest.raises(ValueError, match=message):
        extractor()(features)


def test_large_finite_values_whose_sum_overflows_are_accepted():
    assert np.isfinite(extractor(normalization="none")(np.full((50, 6), 3e37))["input_features"]).all()


def test_an_unknown_participant_lists_the_known_ones():
    extract = BITFeatureExtractor(participants={"t15": 6, "t12": 4})
    with pytest.raises(ValueError, match="'t99' is unknown.*'t12', 't15'"):
        extract(np.ones((3, 6)), participant_id="t99")
    with pytest.raises(ValueError, match="participant_id is missing"):
        extract(np.ones((3, 6)))
    with pytest.raises(ValueError, match="participants \\['t12', 't15'\\]"):
        extract([np.ones((3, 6))] * 2, participant_id=["t15", "t12"])


def test_the_only_participant_is_the_default_and_indices_count_alphabetically():
    assert extractor()(np.ones((3, 6)))["participant_index"].tolist() == [0]
    extract = BITFeatureExtractor(participants={"t15": 6, "t12": 4})
    assert extract(np.ones((3, 6)), participant_id="t15")["participant_index"].tolist() == [1]


def test_an_unknown_session_names_the_trial_and_lists_the_known_ones():
    extract = extractor(sessions=["day1", "day2"])
    with pytest.raises(ValueError, match="trial 1: the session 'day9' is unknown.*day1.*day2"):
        extract(trials(3, 3), session_id=["day1", "day9"])


def test_session_index_is_there_only_when_there_are_sessions():
    assert "session_index" not in extractor()(np.ones((3, 6)), session_id="anything")
    assert extractor(sessions=["only"])(np.ones((3, 6)))["session_index"].tolist() == [0]


def test_a_session_without_statistics_says_how_to_get_them():
    with pytest.raises(ValueError, match="trial 0: no statistics for the session 'a'.*fit_session_statistics"):
        extractor(normalization="session")(np.ones((3, 6)), session_id="a")


@pytest.mark.parametrize(
    ("statistics", "message"),
    [
        ((np.zeros(5), np.ones(5)), "trial 0: mean has the shape"),
        ((np.zeros(6), -np.ones(6)), "never negative"),
        ((np.full(6, np.nan), np.ones(6)), "mean is nan at channel 0"),
        ([(np.zeros(6), np.ones(6))] * 3, "3 pairs for 1 trials"),
    ],
)
def test_statistics_that_do_not_fit_are_refused(statistics, message):
    with pytest.raises(ValueError, match=message):
        extractor()(np.ones((3, 6)), statistics=statistics)


def test_lists_that_do_not_match_the_trials_are_refused():
    with pytest.raises(ValueError, match="block_index has 3 entries for 2 trials"):
        extractor()(trials(3, 3), block_index=[1, 2, 3])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"normalization": "zscore"}, "normalization is 'zscore'"),
        ({"smoothing": "box"}, "smoothing is 'box'"),
        ({"smoothing_sd_bins": -1}, "smoothing_sd_bins is -1"),
        ({"smoothing_sd_bins": float("nan")}, "smoothing_sd_bins is nan"),
        ({"bin_size_ms": 0}, "bin_size_ms is 0"),
        ({"participants": {}}, "participants"),
        ({"sessions": ["a", "a"]}, "more than once"),
    ],
)
def test_settings_out_of_range_are_refused_by_value(settings, message):
    with pytest.raises(ValueError, match=message):
        extractor(**settings)


def test_settings_survive_saving(tmp_path):
    extract = BITFeatureExtractor(
        participants={"z": 3, "a": 2},
        sessions=["s2", "s1"],
        normalization="session",
        smoothing_sd_bins=1.5,
        smoothing="causal",
        feature_kinds=["spike_band_power"],
        channel_areas=["6v"],
        bin_size_ms=10,
    )
    extract.save_pretrained(tmp_path)
    loaded = BITFeatureExtractor.from_pretrained(tmp_path)
    for name in vars(BITFeatureExtractor()):
        assert getattr(loaded, name) == getattr(extract, name), name
    assert list(loaded.participants) == list(extract.participants) and loaded.sessions == ["s2", "s1"]
