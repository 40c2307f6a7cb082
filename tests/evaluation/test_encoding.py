"""Encoding scores, their tests and intervals, against cases whose truth is known."""

import numpy as np
import pytest

from bit_speech.evaluation.encoding import (
    ROI_SETS,
    StoryPrediction,
    block_permutation_test,
    false_discovery_rate,
    participant_bootstrap,
    pooled_correlation,
    predict_held_out_stories,
    region_table,
    story_block_bootstrap,
)
from bit_speech.evaluation.noise_ceiling import noise_ceiling, share_of_ceiling


def stories(signal: float, voxels: int = 40, num: int = 4, trs: int = 100, seed: int = 0) -> list[StoryPrediction]:
    rng = np.random.default_rng(seed)
    found = []
    for number in range(num):
        predicted = rng.normal(size=(trs, voxels))
        found.append(StoryPrediction(f"s{number}", predicted, signal * predicted + rng.normal(size=(trs, voxels))))
    return found


@pytest.mark.parametrize("snr, ceiling", [(0.1, 0.577), (0.5, 0.845), (1.0, 0.913)])
def test_the_noise_ceiling_of_five_repeats_is_that_of_theory(snr, ceiling):
    rng = np.random.default_rng(1)
    signal = np.sqrt(snr) * rng.normal(size=(1, 1500, 200))
    found = noise_ceiling(signal + rng.normal(size=(5, 1500, 200)))
    assert found.mean() == pytest.approx(ceiling, abs=0.01)


def test_a_perfect_model_reaches_the_noise_ceiling():
    rng = np.random.default_rng(2)
    signal = rng.normal(size=(2000, 30))
    repeats = signal + 1.5 * rng.normal(size=(4, 2000, 30))
    reached = pooled_correlation([StoryPrediction("s", signal, repeats.mean(axis=0))])
    assert np.mean(reached / noise_ceiling(repeats)) == pytest.approx(1.0, abs=0.02)


def test_voxels_without_signal_have_no_ceiling_and_no_share_of_it():
    ceilings = noise_ceiling(np.stack([np.tile([[1.0], [-1.0]], (4, 1)), np.tile([[-1.0], [1.0]], (4, 1))]))
    assert ceilings.tolist() == [0.0]
    assert np.isnan(share_of_ceiling(np.array([0.3]), ceilings)[0])


def test_a_story_is_predicted_by_models_that_never_saw_it():
    rng = np.random.default_rng(0)
    features = {f"s{i}": rng.normal(size=(50, 3)) for i in range(4)}
    responses = {name: values @ np.eye(3) for name, values in features.items()}
    # A story with answers of its own: had it been seen, three features could follow it at least a little.
    responses["s1"] = -responses["s1"]
    found = predict_held_out_stories(features, responses, penalties=[1e-6, 1e-3])
    assert [story.story_id for story in found] == ["s0", "s1", "s2", "s3"]
    others = np.concatenate([features[n] for n in ("s0", "s2", "s3")])
    answers = np.concatenate([responses[n] for n in ("s0", "s2", "s3")])
    expected = np.linalg.lstsq(others - others.mean(axis=0), answers, rcond=None)[0]
    np.testing.assert_allclose(
        found[1].predicted, (features["s1"] - others.mean(0)) @ expected + answers.mean(0), atol=1e-3
    )


def test_permutation_finds_signal_and_leaves_noise_at_its_rate():
    real, noise = block_permutation_test(stories(0.5)), block_permutation_test(stories(0.0, voxels=400))
    assert (false_discovery_rate(real) <= 0.05).all()
    assert 0.02 <= (noise <= 0.05).mean() <= 0.09
    assert real.min() == pytest.approx(1 / 1001)


def test_permutation_of_slow_signals_is_not_fooled_by_their_slowness():
    rng = np.random.default_rng(0)
    smooth = np.apply_along_axis(np.convolve, 1, rng.normal(size=(2, 1000, 300)), np.ones(5) / 5, "same")
    p_values = block_permutation_test([StoryPrediction("s", *smooth)], block_trs=20)
    assert (p_values <= 0.05).mean() < 0.09


def test_the_bootstrap_holds_the_mean_and_sees_that_a_model_equals_itself():
    better, worse = stories(1.0, seed=3), stories(0.3, seed=3)
    mean, low, high = story_block_bootstrap(better, num_draws=200)
    assert mean == pytest.approx(pooled_correlation(better).mean(), abs=1e-9)
    assert low < mean < high < low + 0.1
    assert story_block_bootstrap(better, better, num_draws=50) == (0.0, 0.0, 0.0)
    same_data = [StoryPrediction(s.story_id, s.predicted, b.measured) for s, b in zip(worse, better)]
    assert story_block_bootstrap(better, same_data, num_draws=50)[0] == pytest.approx(0.0)


def test_models_of_different_stories_are_not_compared():
    with pytest.raises(ValueError, match="different stories"):
        story_block_bootstrap(stories(1.0), stories(1.0)[:2])


def test_the_interval_over_participants_narrows_to_a_point_when_they_agree_and_refuses_nobody():
    assert participant_bootstrap([0.1, 0.1]) == (0.1, 0.1, 0.1)
    with pytest.raises(ValueError, match="no participants"):
        participant_bootstrap([])


def test_regions_average_areas_and_not_vertices():
    scores, areas = np.array([1.0, 1.0, 1.0, 0.0, np.nan]), ["44", "44", "44", "45", "45"]
    assert region_table(scores, areas, {"both": ("44", "45"), "none": ("V1",)}) == {"both": 0.5}
    with pytest.raises(ValueError, match="'glasser'"):
        region_table(scores, areas, "glasser")


def test_the_language_region_of_the_paper_is_the_sum_of_its_parts():
    paper = ROI_SETS["paper"]
    assert set(paper["language"]) == {a for part in ("AG", "LTC", "IFG", "MFG") for a in paper[part]}
    assert len(ROI_SETS["released_code"]["late_language"]) == 16
