"""Batches: every trial once, few sessions, similar lengths, the same on every run."""

import numpy as np
import pytest

from bit_speech.data.samplers import SessionBatchSampler

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(20, 400, size=203).tolist()
SESSIONS = [f"s{i}" for i in RNG.choice(7, size=203, p=[0.4, 0.2, 0.1, 0.1, 0.1, 0.06, 0.04])]


@pytest.mark.parametrize(
    ("batch_size", "sessions_per_batch"), [(1, None), (1, 1), (8, None), (8, 1), (8, 3), (30, None), (30, 4)]
)
def test_one_epoch_takes_every_trial_once_in_full_sized_batches(sessions_per_batch, batch_size):
    sampler = SessionBatchSampler(LENGTHS, SESSIONS, batch_size, sessions_per_batch)
    batches = list(sampler)
    assert sorted(i for batch in batches for i in batch) == list(range(203))
    assert len(batches) == len(sampler)
    assert max(map(len, batches)) <= batch_size
    most = 7 if sessions_per_batch is None else sessions_per_batch
    assert max(len({SESSIONS[i] for i in batch}) for batch in batches) <= most


def test_batches_of_several_sessions_share_equally():
    sessions = ["a"] * 40 + ["b"] * 40 + ["c"] * 40 + ["d"] * 40
    for batch in SessionBatchSampler([10] * 160, sessions, batch_size=8, sessions_per_batch=4):
        assert sorted(sessions[i] for i in batch) == ["a", "a", "b", "b", "c", "c", "d", "d"]


def padding(sampler):
    batches = list(sampler)
    padded = sum(len(batch) * max(LENGTHS[i] for i in batch) for batch in batches)
    return padded / sum(LENGTHS) - 1


@pytest.mark.parametrize("sessions_per_batch", [None, 2])
def test_similar_lengths_in_a_batch_save_padding(sessions_per_batch):
    plain = SessionBatchSampler(LENGTHS, SESSIONS, 16, sessions_per_batch, bucket_batches=1)
    sorted_by_length = SessionBatchSampler(LENGTHS, SESSIONS, 16, sessions_per_batch)
    assert padding(sorted_by_length) < 0.7 * padding(plain)


def test_the_order_depends_on_seed_and_epoch_alone():
    def order(seed, epoch):
        sampler = SessionBatchSampler(LENGTHS, SESSIONS, 8, 2, seed=seed)
        sampler.set_epoch(3)
        list(sampler)
        sampler.set_epoch(epoch)
        return list(sampler)

    assert order(1, 5) == order(1, 5)
    assert order(1, 5) != order(1, 6) and order(1, 5) != order(2, 5)


def test_changing_a_batch_does_not_change_the_sampler():
    sampler = SessionBatchSampler(LENGTHS, SESSIONS, 8)
    first = [list(batch) for batch in sampler]
    for batch in sampler:
        batch.clear()
    assert list(sampler) == first


def test_incomplete_batches_can_be_left_out():
    sampler = SessionBatchSampler(LENGTHS, SESSIONS, 8, 2, drop_last=True)
    assert {len(batch) for batch in sampler} == {8} and len(sampler) == len(list(sampler))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1, 2], ["a"], 1), "2 lengths but 1 session_ids"),
        (([], [], 1), "no trials"),
        (([3, 0], ["a", "a"], 1), "trial 1 has length 0"),
        (([3], ["a"], 0), "batch_size must be positive"),
        (([3], ["a"], 2, 3), "sessions_per_batch must be from 1 to batch_size 2, got 3"),
        (([3], ["a"], 2, 1, 0, False, 0), "bucket_batches must be positive"),
    ],
)
def test_wrong_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        SessionBatchSampler(*arguments)
