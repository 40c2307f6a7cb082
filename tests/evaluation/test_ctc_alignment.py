"""The best path agrees with brute force over all paths, and impossible alignments are refused."""

import itertools

import numpy as np
import pytest

from bit_speech.ctc import required_frames
from bit_speech.evaluation import align_ctc
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER


def collapse(path: tuple[int, ...]) -> list[int]:
    return [label for label, _ in itertools.groupby(path) if label != 0]


def random_log_probs(seed: int, num_frames: int, num_classes: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(num_frames, num_classes)) * 2
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("labels", [[1], [1, 2], [1, 1], [2, 1, 1], [1, 2, 1], [2, 2, 2]])
@pytest.mark.parametrize("seed", range(5))
def test_the_alignment_is_the_best_of_all_paths(labels, seed):
    num_frames = 6
    log_probs = random_log_probs(seed, num_frames, 3)
    paths = [path for path in itertools.product(range(3), repeat=num_frames) if collapse(path) == labels]
    best = max(paths, key=lambda path: sum(log_probs[frame, label] for frame, label in enumerate(path)))
    path = [0] * num_frames
    for aligned in align_ctc(log_probs, labels):
        path[aligned.onset_frame : aligned.offset_frame] = [aligned.label] * (
            aligned.offset_frame - aligned.onset_frame
        )
    assert tuple(path) == best


def test_equal_neighbours_are_parted_by_a_blank():
    log_probs = random_log_probs(0, 5, 41)
    first, second = align_ctc(log_probs, "L L")
    assert first.offset_frame < second.onset_frame


def test_known_onsets_are_found_again():
    onsets = [2, 9, 15, 21]
    phonemes = ["HH", "AY", "SIL", "N"]
    probabilities = np.full((26, 41), 0.001)
    probabilities[:, 0] = 0.9
    for onset, phoneme in zip(onsets, phonemes, strict=True):
        probabilities[onset : onset + 3, 0] = 0.001
        probabilities[onset : onset + 3, MODEL_ORDER.index(phoneme)] = 0.9
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    aligned = align_ctc(np.log(probabilities).astype(np.float32), phonemes)
    assert [label.phoneme for label in aligned] == phonemes
    assert [label.onset_frame for label in aligned] == onsets
    assert [label.offset_frame for label in aligned] == [onset + 3 for onset in onsets]
    assert all(
        label.log_prob == pytest.approx(np.log(0.9 / probabilities.sum(axis=1)[0] / 1), abs=0.1) for label in aligned
    )


def test_spans_are_in_order_and_never_overlap():
    rng = np.random.default_rng(3)
    aligned = align_ctc(random_log_probs(1, 300, 41), rng.integers(1, 41, size=90).tolist())
    assert len(aligned) == 90
    for first, second in itertools.pairwise(aligned):
        assert first.onset_frame < first.offset_frame <= second.onset_frame


def test_exactly_enough_frames_suffice_and_one_less_is_refused():
    labels = [5, 5, 7]
    assert required_frames(labels) == 4
    assert len(align_ctc(random_log_probs(0, 4, 41), labels)) == 3
    with pytest.raises(ValueError, match="3 frames are too few for 3 labels, which need 4"):
        align_ctc(random_log_probs(0, 3, 41), labels)


def test_no_labels_align_to_nothing():
    assert align_ctc(random_log_probs(0, 4, 41), []) == []


@pytest.mark.parametrize("labels", ["HH AH0", [0], [41], [-100]])
def test_labels_that_are_no_phonemes_are_refused(labels):
    with pytest.raises(ValueError, match="AH0|label"):
        align_ctc(random_log_probs(0, 8, 41), labels)


def test_scores_that_are_no_log_probabilities_are_refused():
    with pytest.raises(ValueError, match="NaN or positive"):
        align_ctc(np.ones((4, 41)), "HH")
    with pytest.raises(ValueError, match="shape"):
        align_ctc(np.zeros((1, 4, 41)), "HH")
    impossible = np.full((4, 41), -np.inf)
    impossible[:, 0] = 0.0
    with pytest.raises(ValueError, match="probability zero"):
        align_ctc(impossible, "HH")
