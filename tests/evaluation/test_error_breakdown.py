"""Errors by word frequency and sentence length, and their figure."""

import pytest

from bit_speech.evaluation import errors_by_frequency, errors_by_length, word_counts, word_error_rate
from bit_speech.evaluation.breakdown_figures import breakdown_figure

REFERENCES = ["the cat sat", "a gnu", "the dog ran off there"]
PREDICTIONS = ["the cat the sat", "a new", "the dog off"]
COUNTS = {"the": 500, "a": 400, "cat": 20, "sat": 20, "dog": 20, "off": 60, "there": 60, "new": 90}


def test_every_error_belongs_to_one_class_of_words():
    classes = errors_by_frequency(REFERENCES, PREDICTIONS, COUNTS, edges=(0, 1, 100))
    by_name = {one.name: one.error for one in classes}
    assert list(by_name) == ["0", "1-99", "100+"]
    # gnu was heard as new, ran was lost; both are unknown to the text.
    assert (by_name["0"].substitutions, by_name["0"].deletions, by_name["0"].reference_length) == (1, 1, 2)
    # there was lost
    assert (by_name["1-99"].errors, by_name["1-99"].reference_length) == (1, 5)
    # a second "the" was inserted
    assert (by_name["100+"].insertions, by_name["100+"].reference_length) == (1, 3)
    whole = word_error_rate(REFERENCES, PREDICTIONS)
    assert sum(one.error.errors for one in classes) == whole.errors
    assert sum(one.error.reference_length for one in classes) == whole.reference_length


def test_sentences_are_sorted_by_the_words_that_were_said():
    classes = errors_by_length(REFERENCES, PREDICTIONS, edges=(1, 3, 5))
    assert [(one.name, one.error.errors, one.error.num_sentences) for one in classes] == [
        ("1-2", 1, 1), ("3-4", 1, 1), ("5+", 2, 1),
    ]  # fmt: skip
    assert classes[0].to_dict()["error"]["errors"] == 1


def test_words_are_counted_as_they_are_scored():
    assert word_counts(["I see; I do!", "see?"]) == {"i": 2, "see": 2, "do": 1}


def test_classes_that_do_not_rise_and_lists_that_differ_are_refused():
    with pytest.raises(ValueError, match="rising numbers from 0"):
        errors_by_frequency(["a"], ["a"], {}, edges=(1, 5))
    with pytest.raises(ValueError, match="rising numbers"):
        errors_by_length(["a"], ["a"], edges=(3, 3))
    with pytest.raises(ValueError, match="equal length"):
        errors_by_frequency(["a"], [], {})


def test_the_figure_is_an_image_and_wants_the_same_decoders():
    frequency = {"ours": errors_by_frequency(REFERENCES, PREDICTIONS, COUNTS, num_bootstrap=50)}
    length = {"ours": errors_by_length(REFERENCES, PREDICTIONS, num_bootstrap=50)}
    image = breakdown_figure(frequency, length)
    assert image.startswith(b"\x89PNG") and image == breakdown_figure(frequency, length)
    with pytest.raises(ValueError, match="give the same"):
        breakdown_figure(frequency, {"theirs": length["ours"]})
