"""Probes find what a layer holds, and nothing where there is nothing."""

import numpy as np
import pytest

from bit_speech.evaluation.probes import probe_layers, sentence_types


def vectors(labels: np.ndarray, seed: int) -> np.ndarray:
    """Two layers: noise, and labels behind noise."""
    rng = np.random.default_rng(seed)
    known = labels if labels.ndim == 2 else np.eye(3)[labels]
    noise = rng.normal(size=(2, len(labels), 8))
    noise[1, :, : known.shape[1]] += 4 * known
    return noise


def test_sounds_are_found_in_the_layer_that_holds_them():
    rng = np.random.default_rng(0)
    first, second = (rng.random((n, 3)) < 0.3 for n in (300, 200))
    scores = probe_layers(
        vectors(first, 1), first, vectors(second, 2), second, "present", epochs=300, learning_rate=0.05
    )
    assert scores[1]["macro_f1"] > 0.9 > 0.3 > scores[0]["macro_f1"]


def test_classes_are_found_and_permuted_labels_give_chance():
    rng = np.random.default_rng(0)
    first, second = rng.integers(3, size=300), rng.integers(3, size=300)
    settings = {"kind": "class", "epochs": 200, "learning_rate": 0.05}
    scores = probe_layers(vectors(first, 1), first, vectors(second, 2), second, **settings)
    assert scores[1]["micro_f1"] > 0.9
    permuted = probe_layers(vectors(first, 1), rng.permutation(first), vectors(second, 2), second, **settings)
    assert permuted[1]["micro_f1"] == pytest.approx(1 / 3, abs=0.12)


def test_labels_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 and 1 labels for 3 and 1 utterances"):
        probe_layers(np.zeros((1, 3, 2)), np.zeros(2, int), np.zeros((1, 1, 2)), np.zeros(1, int), "class")


def test_questions_are_told_from_statements_by_their_first_word():
    texts = ["How much is it?", "Can't you see", "however it is", "", "I do", '"Who" he asked']
    assert sentence_types(texts).tolist() == [1, 2, 0, 0, 0, 1]
