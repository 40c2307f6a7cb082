"""Augmentation changes what it says, in the amount it says, and nothing else."""

import numpy as np
import pytest

from bit_speech.data.augmentation import Augmentation

ONES = np.ones((200, 30), np.float32)


def rng(seed=0):
    return np.random.default_rng(seed)


def test_nothing_happens_by_default():
    assert Augmentation()(ONES, rng()) is ONES


def test_white_noise_has_the_stated_deviation_and_mean_zero():
    noise = Augmentation(white_noise_sd=0.8)(ONES, rng()) - 1
    assert noise.dtype == np.float32
    assert noise.std() == pytest.approx(0.8, rel=0.03) and abs(noise.mean()) < 0.03


def test_a_constant_offset_is_one_value_per_channel():
    offset = Augmentation(constant_offset_sd=0.5)(np.ones((50, 2000), np.float32), rng()) - 1
    assert np.ptp(offset, axis=0).max() == 0
    assert offset[0].std() == pytest.approx(0.5, rel=0.1)


@pytest.mark.parametrize(("ratio", "longest"), [(0.25, 5), (0.5, 15), (0.9, 40), (0.3, 1000)])
@pytest.mark.parametrize("seed", range(3))
def test_exactly_the_stated_share_of_the_bins_is_masked(ratio, longest, seed):
    masked = Augmentation(time_mask_ratio=ratio, time_mask_max_bins=longest)(ONES, rng(seed))
    rows = (masked == 0).all(axis=1)
    assert rows.sum() == round(ratio * 200)
    np.testing.assert_array_equal(masked[~rows], ONES[~rows])


def test_single_bins_can_be_masked_in_a_trial_of_one_bin():
    assert Augmentation(time_mask_ratio=0.6, time_mask_max_bins=3)(ONES[:1], rng()).tolist() == [[0.0] * 30]


def test_a_random_cut_takes_every_length_up_to_its_maximum_and_leaves_a_bin():
    cut = Augmentation(random_cut_max_bins=3)
    trial = np.arange(10, dtype=np.float32)[:, None]
    lengths = {10 - len(cut(trial, rng(seed))) for seed in range(50)}
    assert lengths == {0, 1, 2, 3}
    assert cut(trial, rng(1))[-1] == 9
    assert all(len(cut(trial[:1], rng(seed))) == 1 for seed in range(10))


def test_dropped_channels_are_zero_for_the_whole_trial():
    dropped = Augmentation(channel_dropout=0.3)(np.ones((5, 3000), np.float32), rng())
    columns = (dropped == 0).all(axis=0)
    assert columns.mean() == pytest.approx(0.3, abs=0.03)
    assert (dropped[:, ~columns] == 1).all()


def test_the_same_generator_gives_the_same_trial_and_the_input_stays():
    everything = Augmentation(1.0, 0.2, 0.3, 10, 3, 0.1)
    before = ONES.copy()
    first, second, other = (everything(ONES, rng(seed)) for seed in (4, 4, 5))
    np.testing.assert_array_equal(first, second)
    assert first.shape != other.shape or not np.array_equal(first, other)
    np.testing.assert_array_equal(ONES, before)


@pytest.mark.parametrize(
    "wrong",
    [
        {"white_noise_sd": -1},
        {"constant_offset_sd": float("nan")},
        {"time_mask_ratio": 1.0, "time_mask_max_bins": 3},
        {"time_mask_ratio": 0.3},
        {"random_cut_max_bins": -2},
        {"channel_dropout": 1.5},
    ],
)
def test_amounts_that_make_no_sense_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Augmentation(**wrong)
