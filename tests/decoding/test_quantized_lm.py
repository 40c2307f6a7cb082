"""Quantized models keep n-grams, states and, within rounding, scores."""

import numpy as np
import pytest

from bit_speech.decoding import NGramLM, build_ngram_lm
from bit_speech.decoding.lm_kernels import back_off, child_range, child_score, child_word, score_word
from bit_speech.decoding.lm_pack import quantize


def random_text(seed, sentences=300):
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(50)]
    shares = 1 / np.arange(1, 51) ** 1.2
    return [" ".join(rng.choice(words, rng.integers(1, 9), p=shares / shares.sum())) for _ in range(sentences)]


@pytest.fixture(scope="module", params=[1, 2, 3, 5])
def pair(request):
    exact = build_ngram_lm(random_text(6, sentences=600), order=request.param)
    return exact, exact.quantize()


def test_states_and_listed_words_are_those_of_the_exact_model(pair):
    exact, rounded = pair
    assert rounded.quantized and not exact.quantized
    assert rounded.start_state == exact.start_state and rounded.counts == exact.counts
    for line in [*random_text(6, sentences=30), *random_text(7, sentences=30), "w1 zzz w2"]:
        state = np.int64(exact.start_state)
        for word in [*line.split(), "</s>"]:
            index = np.int64(exact.word_index(word))
            _, following = score_word(exact.arrays, state, index)
            assert score_word(rounded.arrays, state, index)[1] == following
            assert child_range(rounded.arrays, state) == child_range(exact.arrays, state)
            for child in range(*child_range(exact.arrays, state)):
                assert child_word(rounded.arrays, child) == child_word(exact.arrays, child)
            state = following


def test_scores_differ_by_little(pair):
    exact, rounded = pair
    for state in range(1 if exact.order == 1 else len(exact.arrays.backoffs)):
        for child in range(*child_range(exact.arrays, np.int64(state)))[:20]:
            assert child_score(rounded.arrays, child) == pytest.approx(child_score(exact.arrays, child), abs=0.2)
        if state > 0:
            assert back_off(rounded.arrays, np.int64(state))[0] == pytest.approx(exact.arrays.backoffs[state], abs=0.2)


def test_backing_off_by_hand_gives_the_score_of_an_unlisted_word(pair):
    _, rounded = pair
    state = np.int64(rounded.start_state)
    for word in range(len(rounded)):
        if word == rounded.bos:
            continue
        expected, context = 0.0, state
        while True:
            begin, end = child_range(rounded.arrays, context)
            listed = [child for child in range(begin, end) if child_word(rounded.arrays, child) == word]
            if listed:
                expected += child_score(rounded.arrays, listed[0])
                break
            weight, context = back_off(rounded.arrays, context)
            expected += weight
        assert score_word(rounded.arrays, state, np.int64(word))[0] == pytest.approx(expected, abs=1e-9)


def test_perplexity_hardly_changes(pair):
    exact, rounded = pair
    text = random_text(8, sentences=200)
    assert rounded.perplexity(text) == pytest.approx(exact.perplexity(text), rel=0.005)


def test_a_saved_quantized_model_is_the_same(pair, tmp_path):
    _, rounded = pair
    rounded.save(tmp_path / "lm.bin")
    loaded = NGramLM.load(tmp_path / "lm.bin")
    assert loaded.quantized and loaded.words == rounded.words and loaded.metadata == rounded.metadata
    for mine, theirs in zip(rounded.arrays, loaded.arrays, strict=True):
        assert mine.dtype == theirs.dtype and not theirs.flags.writeable
        np.testing.assert_array_equal(mine, theirs)


def test_a_quantized_model_can_be_written_as_arpa(pair, tmp_path):
    _, rounded = pair
    rounded.write_arpa(tmp_path / "lm.arpa")
    copy = NGramLM.from_arpa(tmp_path / "lm.arpa")
    for line in random_text(9, sentences=20):
        np.testing.assert_allclose(copy.word_scores(line), rounded.word_scores(line), rtol=1e-5)


def test_no_other_256_values_on_a_fine_grid_are_nearer():
    values = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    codes, levels = quantize(values, 256)
    nearest = np.abs(values[:, None] - levels[None]).min(axis=1)
    # Codes are found through a histogram of 65,536 bins, so a value at a border may get its second nearest.
    assert np.abs(values - levels[codes]).max() <= nearest.max() + np.ptp(values) / 65536
    uniform = np.ptp(values) / 256 / np.sqrt(12)
    assert np.sqrt(np.mean((values - levels[codes]) ** 2)) < 0.9 * uniform


def test_many_contexts_and_a_context_with_many_words_are_found():
    # Unary counts that cross the 64-bit words and the sampled positions: one context with thousands of words.
    text = [f"a b w{i}" for i in range(3000)] + [f"v{i} c d" for i in range(500)] + [f"a v{i} x" for i in range(500)]
    exact = build_ngram_lm(text, order=4)
    rounded = exact.quantize()
    states = range(len(exact.arrays.backoffs))
    assert [child_range(rounded.arrays, s) for s in states] == [child_range(exact.arrays, s) for s in states]
