"""Voting on words: alignment by hand, the tie rule, and what never depends on anything but the input."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bit_speech.decoding import Candidate, ConfusionNetwork, Hypothesis, candidates_from_nbest, confusion_network, vote
from bit_speech.decoding.fusion import _disagreement, _improve, _insert

SENTENCE = st.lists(st.sampled_from("abc"), max_size=5).map(" ".join)


def test_the_majority_wins_every_word():
    assert vote(["the cat sat", "the bat sat", "a cat sat"]) == "the cat sat"


def test_a_word_that_most_lack_is_left_out_and_one_that_most_have_is_put_in():
    assert vote(["go home", "go home now", "go home"]) == "go home"
    assert vote(["go home", "go back home", "go back home"]) == "go back home"


def test_the_vote_can_be_a_sentence_that_nobody_said():
    assert vote(["x b c", "a x c", "a b x"]) == "a b c"


def test_weights_count():
    assert vote([Candidate(("a",)), Candidate(("a",)), Candidate(("b",), weight=2.5)]) == "b"


def test_confidences_count():
    sure = Candidate(("b",), confidences=(0.9,))
    unsure = [Candidate(("a",), confidences=(0.3,))] * 2
    assert vote([*unsure, sure]) == "b"
    # 0.9 for the word against twice 0.3 for none, then twice 0.6.
    missing = [Candidate(())] * 2
    assert vote([*missing, sure], no_word_confidence=0.3) == "b"
    assert vote([*missing, sure], no_word_confidence=0.6) == ""


def test_a_tie_goes_to_the_word_and_to_the_first_candidate():
    assert vote(["a", "b"]) == "a"
    assert vote(["b", "a"]) == "b"
    assert vote(["", "a"]) == "a"
    assert vote(["a c", "a"]) == "a c"


def test_shares_of_a_slot_add_up_to_one_best_first():
    network = confusion_network(["a", "b", "b", ""])
    assert network.slots == [{"b": 0.5, "a": 0.25, "": 0.25}]


def test_one_candidate_is_its_own_vote():
    assert vote(["just this"]) == "just this"
    assert vote([""]) == ""
    assert confusion_network(["", ""]).slots == []


def test_no_candidate_is_refused():
    with pytest.raises(ValueError, match="no candidate"):
        vote([])


@pytest.mark.parametrize(
    "settings", [{"weight": 0.0}, {"weight": math.nan}, {"confidences": (0.5, 0.5)}, {"confidences": (1.5,)}]
)
def test_a_candidate_without_sense_is_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Candidate(("a",), **settings)


def every_alignment(left, right):
    """All ways to align two sentences, as pairs of cells."""
    if not left and not right:
        yield []
    if left and right:
        yield from ([(left[0], right[0]), *rest] for rest in every_alignment(left[1:], right[1:]))
    if left:
        yield from ([(left[0], ""), *rest] for rest in every_alignment(left[1:], right))
    if right:
        yield from ([("", right[0]), *rest] for rest in every_alignment(left, right[1:]))


@settings(max_examples=60, deadline=None)
@given(SENTENCE, SENTENCE)
def test_the_alignment_of_two_sentences_is_the_cheapest_there_is(left, right):
    rows = _insert([left.split()], [1.0], right.split())
    expected = min(sum(a != b for a, b in pairs) for pairs in every_alignment(left.split(), right.split()))
    assert _disagreement(rows, [1.0, 1.0]) == expected


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=5))
def test_alignment_loses_no_word_and_improving_never_costs_more(sentences):
    rows = []
    for number, sentence in enumerate(sentences):
        rows = _insert(rows, [1.0] * number, sentence.split())
    better = _improve(rows, [1.0] * len(rows), 10)
    for table in (rows, better):
        assert [" ".join(cell for cell in row if cell) for row in table] == sentences
        assert len({len(row) for row in table}) == 1
    assert _disagreement(better, [1.0] * len(rows)) <= _disagreement(rows, [1.0] * len(rows))


@settings(max_examples=60, deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=5), st.integers(1, 4))
def test_a_clear_majority_sentence_always_wins(sentences, extra):
    winner = "a b a c"
    assert vote([*sentences, *[winner] * (len(sentences) + extra)]) == winner


@settings(max_examples=40, deadline=None)
@given(st.lists(SENTENCE, min_size=1, max_size=4))
def test_the_network_lists_its_best_sentences_first_and_each_once(sentences):
    network = confusion_network(sentences)
    found = network.sentences(1000)
    by_hand: dict[str, float] = {}
    for path in itertools.product(*(slot.items() for slot in network.slots)):
        text = " ".join(word for word, _ in path if word)
        by_hand[text] = max(by_hand.get(text, -math.inf), sum(math.log(share) for _, share in path))
    assert dict(found) == pytest.approx(by_hand)
    scores = [score for _, score in found]
    assert scores == sorted(scores, reverse=True)
    assert [score for _, score in network.sentences(3)] == pytest.approx(scores[:3])


def test_rare_words_can_be_left_out_of_the_list():
    network = ConfusionNetwork([{"a": 0.9, "b": 0.1}, {"c": 0.15, "d": 0.1}])
    assert [text for text, _ in network.sentences(9, smallest_share=0.2)] == ["a c"]
    with pytest.raises(ValueError, match="number"):
        network.sentences(0)


def test_n_best_lists_vote_with_their_probabilities():
    nbest = [Hypothesis("a b", math.log(0.6), 0.0, 0.0), Hypothesis("a c", math.log(0.2), 0.0, 0.0)]
    sure, weighted = candidates_from_nbest([nbest, nbest[:1]], model_weights=[1.0, 2.0])[1:]
    assert (sure.words, sure.weight) == (("a", "c"), pytest.approx(0.25))
    assert (weighted.words, weighted.weight) == (("a", "b"), pytest.approx(2.0))
    flat = candidates_from_nbest([nbest], score_scale=0.0)
    assert [one.weight for one in flat] == pytest.approx([0.5, 0.5])
    assert len(candidates_from_nbest([nbest], num_hypotheses=1)) == 1


def test_impossible_scores_do_not_break_the_vote():
    nbest = [Hypothesis("a", -np.inf, 0.0, 0.0), Hypothesis("b", -np.inf, 0.0, 0.0)]
    assert [one.weight for one in candidates_from_nbest([nbest])] == [0.5, 0.5]


def test_lists_without_sense_are_refused():
    with pytest.raises(ValueError, match="list 0 is empty"):
        candidates_from_nbest([[]])
    with pytest.raises(ValueError, match="one for each"):
        candidates_from_nbest([[Hypothesis("a", 0.0, 0.0, 0.0)]], model_weights=[1.0, 2.0])
