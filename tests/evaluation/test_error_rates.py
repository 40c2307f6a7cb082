"""Rates equal hand counts and jiwer's, intervals mean what they say, and bad input is refused by name."""

import random
import time

import jiwer
import numpy as np
import pytest

from bit_speech.evaluation import (
    align_tokens,
    align_words,
    character_error_rate,
    edit_counts,
    error_rate_by_group,
    normalize_brain_to_text_24,
    normalize_brain_to_text_25,
    normalize_text,
    paired_bootstrap,
    phoneme_error_rate,
    split_words,
    word_error_rate,
)
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

WORDS = ["the", "a", "of", "it's", "well-known", "neuron", "speaks", "quietly", "today", "no", "yes", "i"]


def random_sentences(generator: random.Random, count: int, longest: int = 9) -> list[str]:
    return [" ".join(generator.choices(WORDS, k=generator.randint(1, longest))) for _ in range(count)]


def corrupted(generator: random.Random, sentence: str) -> str:
    words = []
    for word in sentence.split():
        kind = generator.random()
        if kind < 0.15:
            words.append(generator.choice(WORDS))
        elif kind < 0.25:
            words += [word, generator.choice(WORDS)]
        elif kind > 0.9:
            continue
        else:
            words.append(word)
    return " ".join(words)


def test_word_error_rate_equals_a_hand_count():
    # "quick" -> "quack" (substitution), "fox" missing (deletion), "again" added (insertion); second sentence is right.
    result = word_error_rate(["the quick brown fox ran home", "hello"], ["the quack brown ran home again", "hello"])
    assert (result.substitutions, result.insertions, result.deletions) == (1, 1, 1)
    assert (result.errors, result.reference_length, result.num_sentences) == (3, 7, 2)
    assert float(result) == result.rate == 3 / 7


def test_rates_are_pooled_and_not_averaged_over_sentences():
    result = word_error_rate(
        ["yes", "one two three four five six seven eight nine"], ["no", "one two three four five six seven eight nine"]
    )
    assert result.rate == pytest.approx(0.1)


def test_character_error_rate_equals_a_hand_count():
    result = character_error_rate(["Kitten!"], ["sitting"])
    assert (result.errors, result.substitutions, result.insertions, result.reference_length) == (3, 2, 1, 6)


def test_phoneme_error_rate_counts_sil_as_a_phoneme():
    assert phoneme_error_rate(["HH AY SIL"], ["HH AY"]).rate == pytest.approx(1 / 3)


def test_phoneme_sequences_may_be_strings_lists_arrays_or_class_indices():
    expected, found = ["HH", "AY", "SIL"], ["HH", "EY", "SIL"]
    rates = [
        phoneme_error_rate([" ".join(expected)], [" ".join(found)]),
        phoneme_error_rate([expected], [tuple(found)]),
        phoneme_error_rate([np.array([16, 6, 40])], [[16, 13, 40]]),
    ]
    assert {rate.rate for rate in rates} == {1 / 3}


def test_word_and_character_rates_equal_jiwer_on_random_sentences():
    generator = random.Random(0)
    references = random_sentences(generator, 300)
    predictions = [corrupted(generator, sentence) for sentence in references]
    words, ours = jiwer.process_words(references, predictions), word_error_rate(references, predictions, "none", 0)
    assert ours.rate == pytest.approx(words.wer, abs=1e-12)
    assert (ours.substitutions, ours.insertions, ours.deletions) == (
        words.substitutions,
        words.insertions,
        words.deletions,
    )
    characters = jiwer.process_characters(references, predictions)
    assert character_error_rate(references, predictions, "none", 0).rate == pytest.approx(characters.cer, abs=1e-12)


def test_counts_stay_exact_beyond_255_edits():
    assert phoneme_error_rate(["AA " * 700], ["IY " * 400], 0).errors == 700


@pytest.mark.parametrize(
    ("reference", "prediction", "rate"), [("", "", 0.0), ("", "a", 1.0), ("", "a b", 2.0), ("a b", "", 1.0)]
)
def test_empty_sentences_are_counted_as_jiwer_does(reference, prediction, rate):
    assert word_error_rate([reference], [prediction]).rate == rate == jiwer.wer(reference, prediction)


def test_an_empty_sentence_among_others_adds_its_insertions():
    result = word_error_rate(["a b c d", ""], ["a b c d", "x"])
    assert result.rate == 0.25 and result.insertions == 1


def test_edit_counts_always_add_up():
    generator = random.Random(1)
    references = random_sentences(generator, 100)
    counts = edit_counts(references, random_sentences(generator, 100))
    assert np.array_equal(counts[:, 0], counts[:, 2:].sum(axis=1))
    assert np.array_equal(counts[:, 1], [len(sentence.split()) for sentence in references])


def test_permuted_labels_give_chance():
    generator = np.random.default_rng(0)
    labels = [generator.integers(1, len(MODEL_ORDER), size=30).tolist() for _ in range(200)]
    aligned = phoneme_error_rate(labels, labels, 0)
    permuted = phoneme_error_rate(labels, [labels[i] for i in generator.permutation(200)], 0)
    unrelated = phoneme_error_rate(labels, [generator.integers(1, 41, size=30).tolist() for _ in range(200)], 0)
    assert aligned.rate == 0
    assert permuted.rate == pytest.approx(unrelated.rate, abs=0.02)
    assert permuted.rate > 0.8


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are you, Ma'am?", "how are you ma'am"),
        ("a well-known fact", "a well-known fact"),
        ("wait- what", "wait what"),
        ("so--called", "socalled"),
        ("it 's me", "it's me"),
        ("  two   spaces ", "two spaces"),
        ("room 101", "room"),
        ("caf\u00e9 \u2019tis", "caf tis"),
        ("Yes -- no", "yes - no"),
    ],
)
def test_rules_of_brain_to_text_25(text, expected):
    assert normalize_brain_to_text_25(text) == expected == normalize_text(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("How are you, Ma'am?", "how are you ma'am"),
        ("wait- what", "wait- what"),
        ("so--called", "socalled"),
        ("it 's me", "it 's me"),
        (" two  spaces ", "two  spaces"),
        ("Yes -- no", "yes  no"),
    ],
)
def test_rules_of_brain_to_text_24(text, expected):
    assert normalize_brain_to_text_24(text) == expected == normalize_text(text, "brain_to_text_24")


def test_double_spaces_make_empty_words_in_24_only():
    assert split_words("yes  no", "brain_to_text_24") == ["yes", "", "no"]
    assert split_words("yes  no", "brain_to_text_25") == ["yes", "no"]
    assert word_error_rate(["yes no"], ["yes  no"], "brain_to_text_24").errors == 1


def test_the_benchmark_changes_the_rate_where_its_rules_differ():
    assert word_error_rate(["it's"], ["it 's"], "brain_to_text_25").errors == 0
    assert word_error_rate(["it's"], ["it 's"], "brain_to_text_24").errors == 2


def test_the_interval_contains_the_rate_and_repeats_for_a_seed():
    generator = random.Random(2)
    references = random_sentences(generator, 150)
    predictions = [corrupted(generator, sentence) for sentence in references]
    first, second = (word_error_rate(references, predictions, seed=3) for _ in range(2))
    assert first == second
    assert first.low < first.rate < first.high
    assert word_error_rate(references, predictions, seed=4).low != first.low


def test_the_interval_covers_the_true_rate_in_about_95_of_100_samples():
    generator = np.random.default_rng(0)
    covered = 0
    for seed in range(200):
        wrong = generator.random((60, 5)) < 0.2
        predictions = [["x" if bad else "a" for bad in row] for row in wrong]
        rate = phoneme_error_rate([["a"] * 5] * 60, predictions, num_bootstrap=400, seed=seed)
        covered += rate.low <= 0.2 <= rate.high
    assert 0.88 <= covered / 200 <= 0.99


def test_ten_thousand_resamples_of_the_whole_benchmark_take_a_second():
    references = ["a b c d e f"] * 1426
    predictions = ["a b c d e x" if i % 3 else "a b c d e f" for i in range(1426)]
    start = time.process_time()
    word_error_rate(references, predictions)
    assert time.process_time() - start < 3.0


def test_no_resamples_give_a_degenerate_interval():
    rate = word_error_rate(["a b"], ["a c"], num_bootstrap=0)
    assert rate.low == rate.high == rate.rate == 0.5


def test_an_error_rate_reads_as_percent_with_its_interval():
    rate = word_error_rate(["a b c d"] * 10, ["a b c x"] * 10)
    assert str(rate) == "25.0 % [25.0, 25.0]"
    assert rate.to_dict()["errors"] == 10


def test_rates_by_group_pool_within_each_group():
    rates = error_rate_by_group(
        ["a b", "a b c", "a"], ["a b", "a x y", "b"], ["t15.2023.08.13", "t15.2023.08.11", "t15.2023.08.13"]
    )
    assert list(rates) == ["t15.2023.08.13", "t15.2023.08.11"]
    assert rates["t15.2023.08.13"].rate == pytest.approx(1 / 3)
    assert rates["t15.2023.08.11"].errors == 2 and rates["t15.2023.08.11"].num_sentences == 1


def test_a_paired_interval_is_narrower_than_the_difference_of_two_intervals():
    generator = np.random.default_rng(5)
    hard = generator.random(200) < 0.3  # Hard sentences fail for both systems.
    a = ["x x x x x" if difficult else "a b c d e" for difficult in hard]
    b = ["x x x x x" if difficult else ("a b c d x" if generator.random() < 0.5 else "a b c d e") for difficult in hard]
    references = ["a b c d e"] * 200
    paired = paired_bootstrap(references, a, b)
    single = word_error_rate(references, a)
    assert paired.difference_high - paired.difference_low < 0.5 * (single.high - single.low)
    assert paired.ratio_low < paired.ratio < paired.ratio_high < 1
    assert paired.share_a_better > 0.99


def test_two_equal_systems_have_difference_zero_and_ratio_one():
    paired = paired_bootstrap(["a b", "c"], ["a x", "c"], ["a y", "c"])
    assert (paired.difference, paired.ratio, paired.ratio_low, paired.ratio_high) == (0.0, 1.0, 1.0, 1.0)
    assert paired.share_a_better == 0.5


def test_the_ratio_to_a_perfect_system_is_infinite_and_that_of_two_perfect_ones_is_one():
    assert paired_bootstrap(["a b"] * 3, ["a x"] * 3, ["a b"] * 3).ratio == float("inf")
    assert paired_bootstrap(["a b"] * 3, ["a b"] * 3, ["a b"] * 3).ratio == 1.0


def test_alignment_names_every_operation():
    steps = align_words("The cat sat down.", "a cat sat right down now")
    assert [(step.operation, step.reference, step.prediction) for step in steps] == [
        ("substitution", "the", "a"),
        ("correct", "cat", "cat"),
        ("correct", "sat", "sat"),
        ("insertion", None, "right"),
        ("correct", "down", "down"),
        ("insertion", None, "now"),
    ]
    assert [step.operation for step in align_tokens("a b c", "b")].count("deletion") == 4


def test_an_alignment_spells_both_sides():
    generator = random.Random(7)
    for reference in random_sentences(generator, 50):
        prediction = corrupted(generator, reference)
        steps = align_words(reference, prediction, "none")
        assert [step.reference for step in steps if step.reference is not None] == reference.split()
        assert [step.prediction for step in steps if step.prediction is not None] == prediction.split()


@pytest.mark.parametrize(
    ("references", "predictions", "message"),
    [
        (["a", "b"], ["a"], "2 references but 1 predictions"),
        ([], [], "no sentences"),
        ("hello", "hello", "one string"),
        (["a", None], ["a", "b"], "reference 1 is None"),
        (["a"], [3], "prediction 0 is int"),
    ],
)
def test_bad_input_is_refused_with_its_reason(references, predictions, message):
    with pytest.raises(ValueError, match=message):
        word_error_rate(references, predictions)


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="brain_to_text_26"):
        word_error_rate(["a"], ["a"], "brain_to_text_26")
    with pytest.raises(ValueError, match="syllable"):
        edit_counts(["a"], ["a"], "syllable")
    with pytest.raises(ValueError, match="1 groups for 2 references"):
        error_rate_by_group(["a", "b"], ["a", "b"], ["x"])
    with pytest.raises(ValueError, match="-1"):
        word_error_rate(["a"], ["a"], num_bootstrap=-1)
    with pytest.raises(ValueError, match="one flat sequence"):
        phoneme_error_rate([np.ones((2, 2))], [np.ones((2, 2))])
