import numpy as np
import pytest

from bit_speech.ctc import collapse
from bit_speech.decoding import greedy_decode


def log_probs_of(path):
    return np.log(np.eye(41)[path] * 0.9 + 0.1 / 41)


def test_a_blank_between_equal_labels_keeps_both():
    assert greedy_decode(log_probs_of([5, 0, 5])) == [5, 5]


def test_repeats_collapse_before_blanks_drop():
    assert greedy_decode(log_probs_of([0, 5, 5, 0, 0, 5, 7, 7, 0])) == [5, 5, 7]


def test_only_blanks_or_no_frames_give_nothing():
    assert greedy_decode(log_probs_of([0, 0, 0])) == []
    assert greedy_decode(np.zeros((0, 41))) == []


def test_another_blank_index_can_be_named():
    assert collapse([40, 3, 40, 3], blank=40) == [3, 3]


def test_wrong_input_is_named():
    with pytest.raises(ValueError, match=r"\(41,\)"):
        greedy_decode(np.zeros(41))
    broken = log_probs_of([1, 2, 3])
    broken[1, 4] = np.nan
    with pytest.raises(ValueError, match="NaN at frame 1"):
        greedy_decode(broken)
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        collapse(np.zeros((2, 3)))
