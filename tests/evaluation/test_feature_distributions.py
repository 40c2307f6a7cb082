"""Distances of two clouds of features are what can be worked out by hand."""

import numpy as np
import pytest

from bit_speech.evaluation.feature_distributions import (
    feature_distance,
    feature_distribution_figure,
    feature_map,
)


def sentences(mean, count=12, width=4, seed=0, scale=1.0):
    rng = np.random.default_rng(seed)
    return [mean + scale * rng.normal(size=(5 + index % 3, width)) for index in range(count)]


def test_the_centroid_distance_is_in_units_of_the_spread():
    first = [np.array([[-1.0, 0.0], [1.0, 0.0]])] * 4  # mean 0, mean square distance 1
    second = [np.array([[5.0, 0.0], [7.0, 0.0]])] * 4
    assert feature_distance(first, second).centroid_distance == pytest.approx(6.0)


def test_two_draws_of_one_cloud_cannot_be_told_apart():
    found = feature_distance(sentences(0.0, 60, seed=1), sentences(0.0, 60, seed=2))
    assert found.centroid_distance < 0.2 and abs(found.probe_accuracy - 0.5) < 0.08


def test_clouds_far_apart_are_told_apart():
    found = feature_distance(sentences(0.0, seed=1), sentences(4.0, seed=2))
    assert found.probe_accuracy == 1.0 and found.num_first == sum(map(len, sentences(0.0)))


def test_the_probe_cannot_learn_sentences_by_heart():
    rng = np.random.default_rng(0)
    # Each sentence has a place of its own; the two sets share the distribution of places.
    first, second = ([np.repeat(rng.normal(size=(1, 30)), 8, axis=0) for _ in range(20)] for _ in range(2))
    assert feature_distance(first, second).probe_accuracy < 0.75


def test_sentence_level_counts_each_sentence_once():
    found = feature_distance(sentences(0.0), sentences(1.0), level="sentence")
    assert (found.num_first, found.num_second) == (12, 12)


def test_the_figure_shows_both_planes_and_is_the_same_every_time():
    sets = {"brain": sentences(0.0, seed=1), "audio": sentences(4.0, seed=2)}
    planes = feature_map(sets, max_per_set=30)
    assert {name: points.shape for name, points in planes.items()} == {"brain": (30, 2), "audio": (30, 2)}
    distance = feature_distance(*sets.values())
    images = [feature_distribution_figure(planes, planes, {"before": distance, "after": distance}) for _ in range(2)]
    assert images[0][:8] == b"\x89PNG\r\n\x1a\n" and images[0] == images[1]


@pytest.mark.parametrize(
    "second, named",
    [
        (sentences(0.0, 3), "3 sentences"),
        (sentences(0.0, width=5), "width"),
        ([np.full((2, 4), np.nan)] * 4, "NaN"),
        ([np.zeros(4)] * 4, r"\(4,\)"),
    ],
)
def test_unusable_features_are_named(second, named):
    with pytest.raises(ValueError, match=named):
        feature_distance(sentences(0.0), second)
