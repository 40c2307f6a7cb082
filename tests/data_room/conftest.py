"""Small trials for the tests of the data room."""

import numpy as np
import pytest

CHANNELS = 4


def make_trial(session="p.2024.01.01", block=1, trial=0, bins=12, channels=CHANNELS, **changes):
    rng = np.random.default_rng((block, trial, bins, sum(map(ord, session))))
    half = channels // 2
    return {
        "participant_id": session.split(".")[0],
        "session_id": session,
        "block_index": block,
        "trial_index": trial,
        "split": "train",
        "features": rng.normal(size=(bins, channels)).astype(np.float32),
        "bin_size_ms": 20.0,
        "feature_kinds": ["threshold_crossings"] * half + ["spike_band_power"] * (channels - half),
        "channel_areas": ["6v", "44"] * half + ["44"] * (channels % 2),
        "species": "human",
        "task": "attempted_speech",
        "text": f"Sentence {session} {block} {trial}.",
        "phonemes": "HH AH L OW SIL",
        "source": "simulated",
        "licence": "CC0-1.0",
    } | changes


def make_trials(sessions=("p.2024.01.01", "p.2024.01.08"), blocks=(1, 2, 3), per_block=3):
    return [
        make_trial(session, block, trial, bins=10 + 7 * trial + block)
        for session in sessions
        for block in blocks
        for trial in range(per_block)
    ]


def make_dataset(trials):
    import datasets

    from bit_speech.data.schema import trial_features

    features = trial_features(trials[0]["features"].shape[1])
    return datasets.Dataset.from_list(trials, features=features).with_format("numpy")


@pytest.fixture
def trial():
    """One valid trial; keyword arguments change it."""
    return make_trial


@pytest.fixture
def trials():
    """Valid trials of two sessions with three blocks of three."""
    return make_trials


@pytest.fixture
def dataset():
    """A dataset of given trials, in numpy format."""
    return make_dataset
