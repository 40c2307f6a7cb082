import numpy as np
import pytest

from bit_speech.evaluation.retrieval import (
    Ranks,
    date_decodability,
    fit_scaling,
    paired_permutation_test,
    retrieval_ranks,
    score_ranks,
    shift_windows,
    shuffle_channels,
)

RNG = np.random.default_rng(0)
TARGETS = RNG.normal(size=(1500, 16))


def test_a_perfect_prediction_ranks_zero():
    scores = score_ranks(retrieval_ranks(3.0 * TARGETS, TARGETS))
    assert scores.mean_relative_rank == 0 and scores.top_k == {1: 1.0, 5: 1.0, 10: 1.0}
    assert scores.num_candidates == 1500


def test_a_random_prediction_ranks_in_the_middle():
    scores = score_ranks(retrieval_ranks(RNG.normal(size=TARGETS.shape), TARGETS))
    assert abs(scores.mean_relative_rank - 0.5) < 0.03 and scores.low < 0.5 < scores.high
    assert scores.top_k[10] < 0.02 and scores.chance_top_k[10] == pytest.approx(10 / 1500)


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_a_constant_prediction_ranks_in_the_middle(constant):
    ranks = retrieval_ranks(np.full(TARGETS.shape, constant), TARGETS)
    assert ranks.relative.mean() == pytest.approx(0.5, abs=1e-3)


def test_ranks_and_ties_are_those_of_a_hand_count():
    targets = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]])
    predictions = np.array([[1.0, 1.0], [1.0, 0.0], [0.0, 1.0]])
    # Window 0: own 0.71 ties with target 1. Window 1: own 0, target 0 is better. Window 2: own 0 ties with target 0.
    assert retrieval_ranks(predictions, targets).rank.tolist() == [0.5, 1.0, 1.5]


def test_equal_sounds_are_one_candidate():
    targets = np.array([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])
    ranks = retrieval_ranks(targets, targets)
    assert ranks.rank.tolist() == [0, 0, 0] and ranks.num_candidates.tolist() == [2, 2, 2]


def test_pools_of_the_same_and_of_other_days_are_those_of_a_hand_count():
    targets = np.array([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0], [0.6, 0.8]])
    predictions = np.array([[0.0, 1.0]] * 4)  # likes window 2 most, then 3, 1, 0
    days = ["a", "a", "b", "b"]
    same = retrieval_ranks(predictions, targets, days, "same")
    assert same.rank.tolist() == [1, 0, 0, 1] and same.num_candidates.tolist() == [2, 2, 2, 2]
    cross = retrieval_ranks(predictions, targets, days, "cross")
    assert cross.rank.tolist() == [2, 2, 0, 0] and cross.num_candidates.tolist() == [3, 3, 3, 3]


def test_knowing_only_the_day_helps_across_days_and_not_within_one():
    days = np.repeat(np.arange(5), 60)
    scene = RNG.normal(size=(5, 16))
    targets = 2 * scene[days] + RNG.normal(size=(300, 16))
    assert retrieval_ranks(scene[days], targets).relative.mean() < 0.2
    assert abs(retrieval_ranks(scene[days], targets, days, "same").relative.mean() - 0.5) < 0.05


def test_the_interval_resamples_whole_files():
    blocks = np.repeat(np.arange(10), 50)
    rank = np.repeat(RNG.uniform(0, 100, 10), 50)  # windows of a file are all alike
    ranks = Ranks(rank, np.full(500, 100))
    files, windows = score_ranks(ranks, blocks), score_ranks(ranks)
    assert files.high - files.low > 4 * (windows.high - windows.low)


def test_the_permutation_test_holds_its_level_and_finds_a_difference():
    p_values, files = [], np.repeat(np.arange(12), 5)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        offset = rng.normal(size=12)[files]  # files differ, systems do not
        first, second = offset + rng.normal(size=60), rng.normal(size=60)
        p_values.append(paired_permutation_test(first, second, files).p_value)
    assert 0.01 < np.mean(np.array(p_values) < 0.05) < 0.1
    assert paired_permutation_test(np.zeros(12), np.ones(12)).p_value == 2 / 2**12


def test_a_shuffled_channel_keeps_its_values_within_the_window():
    windows = RNG.normal(size=(4, 3, 5))
    shuffled = shuffle_channels(windows)
    assert not np.array_equal(shuffled, windows)
    np.testing.assert_array_equal(np.sort(shuffled, axis=2), np.sort(windows, axis=2))
    order = np.argsort(shuffled[0, 0])
    np.testing.assert_array_equal(shuffled[0][:, order], windows[0][:, np.argsort(windows[0, 0])])


def test_a_shift_stays_within_its_file():
    positions = shift_windows(["a"] * 4 + ["b"] * 3, 2)
    assert positions.tolist() == [2, 3, 0, 1, 5, 6, 4]


def test_a_scaling_fit_finds_the_slope_and_its_interval():
    hours = [1, 2, 4, 8]
    runs = 0.4 - 0.1 * np.log10(hours) + 0.01 * RNG.normal(size=(9, 4))
    fit = fit_scaling(hours, runs)
    assert fit.low < -0.1 < fit.high < 0 and fit.r2 > 0.8


def test_the_date_is_read_from_vectors_that_drift_and_from_no_others():
    files = np.repeat(np.arange(12), 20)
    days = files / 2
    noise = RNG.normal(size=(240, 6))
    assert date_decodability(noise + days[:, None] * np.eye(6)[0], days, files) > 0.8
    assert date_decodability(noise, days, files) < 0.3


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: retrieval_ranks(TARGETS[:3], TARGETS), "1500"),
        (lambda: retrieval_ranks(TARGETS, TARGETS, pool="week"), "week"),
        (lambda: retrieval_ranks(TARGETS, TARGETS, pool="same"), "none"),
        (lambda: retrieval_ranks(TARGETS * np.nan, TARGETS), "window 0"),
        (lambda: score_ranks(Ranks(np.zeros(0), np.zeros(0))), "no window"),
        (lambda: shift_windows(["a", "a"], 2), "2 windows"),
        (lambda: paired_permutation_test(np.zeros(2), np.zeros(3)), "same windows"),
        (lambda: fit_scaling([1, 2], np.zeros((1, 2))), "3 sizes"),
        (lambda: date_decodability(np.zeros((2, 2)), [0, 1], [0, 1]), "3 files"),
    ],
)
def test_what_cannot_be_scored_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
