"""The simulated cohort has the truth that its settings promise."""

import numpy as np
import pytest

from bit_speech.data.story_time import zscore
from bit_speech.evaluation.encoding import correlation_by_voxel
from bit_speech.evaluation.noise_ceiling import noise_ceiling
from bit_speech.simulation.story_cohort import CohortConfig, StoryCohort, haemodynamic_response, make_stimulus

SIZES = {"acoustic": 16, "phonemic": 39, "lexical": 2}
SENTENCES = ["we go home now", "the dog can see you", "they like it here", "she said no to him"] * 40


def vectors(texts) -> np.ndarray:
    return np.array([[len(text.split()), len(text)] for text in texts], dtype=float)


@pytest.fixture(scope="module")
def story():
    return make_stimulus("long", list(np.random.default_rng(0).permutation(SENTENCES)), vectors)


def test_the_noise_ceiling_is_that_of_the_signal_to_noise_ratio(story):
    cohort = StoryCohort(CohortConfig(num_voxels=40, snr=0.5, noise_memory=0.0), SIZES)
    found = noise_ceiling(cohort.run(0, story, num_repeats=5).repeats)
    assert found.mean() == pytest.approx(0.845, abs=0.04)


def test_participants_share_what_the_settings_say(story):
    for deviation, low, high in ((0.0, 0.95, 1.0), (1.0, -0.3, 0.3)):
        cohort = StoryCohort(CohortConfig(num_voxels=200, deviation=deviation, hrf_peak_sd_s=0.0), SIZES)
        first, second = (cohort.signal(person, story)[0] for person in (0, 1))
        assert low <= correlation_by_voxel(first, second).mean() <= high + 1e-9


def test_an_area_follows_its_level_and_no_other(story):
    config = CohortConfig(num_voxels=40, areas={"A1": (1.0, 0.0, 0.0)}, hrf_peak_sd_s=0.0)
    first = StoryCohort(config, SIZES).signal(0, story)[0]
    changed = dict(story.levels, phonemic=story.levels["phonemic"][::-1].copy())
    second = StoryCohort(config, SIZES).signal(0, type(story)(story.story_id, story.audio, story.text, changed))[0]
    np.testing.assert_array_equal(first, second)


def test_responses_lag_behind_the_sound(story):
    config = CohortConfig(num_voxels=1, areas={"A1": (1.0, 0.0, 0.0)}, shared_dims=1, hrf_peak_sd_s=0.0, tr_s=1.0)
    cohort = StoryCohort(config, SIZES)
    signal = cohort.signal(0, story)[0][:, 0]
    features = zscore(story.levels["acoustic"]) @ cohort._directions["acoustic"]
    drive = features[:, 0][5::10][: len(signal)]
    lags = [abs(np.corrcoef(drive[: len(signal) - lag], signal[lag:])[0, 1]) for lag in range(10)]
    assert 3 <= int(np.argmax(lags)) <= 7


def test_the_same_seed_gives_the_same_scan_and_another_session_other_noise(story):
    cohort = StoryCohort(CohortConfig(num_voxels=8), SIZES)
    first, again = cohort.run(3, story), cohort.run(3, story)
    np.testing.assert_array_equal(first.responses, again.responses)
    assert np.abs(first.responses - cohort.run(3, story, session=1).responses).max() > 0.1


def test_the_response_peaks_when_it_should():
    lags = np.arange(0, 25, 0.1)
    assert lags[haemodynamic_response(lags, 4.0).argmax()] == pytest.approx(4.0, abs=0.05)


def test_impossible_cohorts_are_refused():
    with pytest.raises(ValueError, match="snr -1"):
        CohortConfig(snr=-1)
    with pytest.raises(ValueError, match="no sentences"):
        make_stimulus("empty", [], vectors)
