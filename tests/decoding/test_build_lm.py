import math

import numpy as np
import pytest

from bit_speech.decoding import NGramLM, build_ngram_lm
from bit_speech.decoding.lm_kernels import score_word

TEXT = ["the cat sat on the mat", "the cat ran", "a dog sat", "the dog sat on the cat", "a a a", "the mat"]


def probabilities(lm, state):
    """Probability of every word but <s> after a state."""
    words = [i for i in range(len(lm)) if i != lm.bos]
    return np.exp([score_word(lm.arrays, np.int64(state), np.int64(word))[0] for word in words])


def random_text(seed, sentences=300):
    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(50)]
    shares = 1 / np.arange(1, 51) ** 1.2
    return [" ".join(rng.choice(words, rng.integers(1, 9), p=shares / shares.sum())) for _ in range(sentences)]


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("text", [TEXT, random_text(0)])
def test_probabilities_sum_to_one_after_every_context(order, text):
    lm = build_ngram_lm(text, order=order)
    for state in range(len(lm.arrays.backoffs)):
        assert probabilities(lm, state).sum() == pytest.approx(1.0, abs=1e-5)


def test_probabilities_sum_to_one_after_pruning_and_with_a_vocabulary():
    lm = build_ngram_lm(
        random_text(1), order=3, min_counts=[1, 2, 3], vocabulary=["w0", "w1", "w2", "w3", "w7", "never"]
    )
    full = build_ngram_lm(random_text(1), order=3, vocabulary=["w0", "w1", "w2", "w3", "w7", "never"])
    assert lm.counts[1] < full.counts[1] and lm.counts[2] < full.counts[2]
    assert set(lm.words) == {"<s>", "</s>", "<unk>", "w0", "w1", "w2", "w3", "w7", "never"}
    for state in range(len(lm.arrays.backoffs)):
        assert probabilities(lm, state).sum() == pytest.approx(1.0, abs=1e-5)
    assert math.exp(lm.word_scores("never", bos=False, eos=False)[0]) > 0


def test_probabilities_equal_a_computation_by_hand():
    # Too little text to estimate discounts: 0.5, 1 and 1.5. Bigrams: <s> a 2, a b 1, b </s> 1, a </s> 1.
    lm = build_ngram_lm(["a b", "a"], order=2)
    # Unigrams count distinct words before: a 1 (<s>), b 1 (a), </s> 2 (b, a); total 4. The mass of the discounts,
    # (0.5 + 0.5 + 1) / 4 = 1/2, is spread over a, b, </s> and <unk>.
    a = b = 0.5 / 4 + 0.5 / 4
    end = 1.0 / 4 + 0.5 / 4
    assert math.exp(lm.word_scores("a", bos=False, eos=False)[0]) == pytest.approx(a)
    assert math.exp(lm.word_scores("", bos=False)[0]) == pytest.approx(end)
    # After <s>: a twice, discount 1, so half of the mass backs off. After a: b and </s> once each, half backs off.
    expected = [(2 - 1) / 2 + 0.5 * a, (1 - 0.5) / 2 + 0.5 * b, (1 - 0.5) / 1 + 0.5 * end]
    np.testing.assert_allclose(np.exp(lm.word_scores("a b")), expected, rtol=1e-6)


def slow_kneser_ney(text, order):
    """Interpolated modified Kneser-Ney by its definition: p(word | history) with dictionaries."""
    sentences = [["<s>", *line.split(), "</s>"] for line in text]
    raw = [{} for _ in range(order + 1)]
    for words in sentences:
        for k in range(1, order + 1):
            for i in range(len(words) - k + 1):
                gram = tuple(words[i : i + k])
                raw[k][gram] = raw[k].get(gram, 0) + 1
    counts = [{}, *(dict(table) for table in raw[1:])]
    for k in range(1, order):
        for gram in counts[k]:
            if gram[0] != "<s>":
                counts[k][gram] = sum(longer[1:] == gram for longer in raw[k + 1])
    counts[1][("<s>",)] = 0
    discounts = [None]
    for k in range(1, order + 1):
        n = [sum(c == value for c in counts[k].values()) for value in range(5)]
        y = n[1] / (n[1] + 2 * n[2])
        discounts.append([0, 1 - 2 * y * n[2] / n[1], 2 - 3 * y * n[3] / n[2], 3 - 4 * y * n[4] / n[3]])
        assert min(discounts[-1][1:]) > 0
    vocabulary = {w for words in sentences for w in words} | {"<unk>"}

    def probability(history, word):
        k = len(history) + 1
        if k == 1:
            lower = 1 / (len(vocabulary) - 1)
        else:
            lower = probability(history[1:], word)
        here = {g: c for g, c in counts[k].items() if g[:-1] == history and c > 0}
        total = sum(here.values())
        if not total:
            return lower
        count = counts[k].get((*history, word), 0)
        gamma = sum(discounts[k][min(c, 3)] for c in here.values()) / total
        return (count - discounts[k][min(count, 3)]) / total + gamma * lower

    return probability


def test_probabilities_equal_the_definition():
    text = random_text(2, sentences=150)
    lm = build_ngram_lm(text, order=3)
    probability = slow_kneser_ney(text, 3)
    for line in [*random_text(3, sentences=15), *text[:15]]:
        words = ["<s>", *line.split(), "</s>"]
        expected = [probability(tuple(words[max(0, i - 2) : i]), words[i]) for i in range(1, len(words))]
        np.testing.assert_allclose(np.exp(lm.word_scores(line)), expected, rtol=1e-5)


def test_a_longer_context_helps_on_text_that_has_structure():
    rng = np.random.default_rng(0)
    follows = rng.integers(0, 30, (30, 3))

    def walk():
        word, words = int(rng.integers(30)), []
        for _ in range(12):
            words.append(f"w{word}")
            word = int(follows[word, rng.integers(3)])
        return " ".join(words)

    train, test = [walk() for _ in range(400)], [walk() for _ in range(50)]
    one, two = (build_ngram_lm(train, order=order).perplexity(test) for order in (1, 2))
    # Three equally likely successors, and sentences that end after twelve words.
    assert 2.5 < two < 5 < one < 32


def test_the_vocabulary_can_be_limited():
    lm = build_ngram_lm(TEXT, order=2, max_words=2)
    assert set(lm.words) == {"<s>", "</s>", "<unk>", "the", "a"}
    assert lm.score_sentence("the cat") == lm.score_sentence("the zebra")


def test_text_that_spells_boundaries_does_not_make_boundaries():
    lm = build_ngram_lm(["a </s> b", "a b <s>"], order=2)
    assert lm.words.count("</s>") == 1 and lm.counts[0] == 5


def test_a_built_model_survives_writing_and_saving(tmp_path):
    lm = build_ngram_lm(random_text(4), order=4)
    lm.write_arpa(tmp_path / "lm.arpa.xz")
    lm.save(tmp_path / "lm.bin")
    copy, loaded = NGramLM.from_arpa(tmp_path / "lm.arpa.xz"), NGramLM.load(tmp_path / "lm.bin")
    for line in random_text(5, sentences=20):
        assert copy.score_sentence(line) == pytest.approx(lm.score_sentence(line), rel=1e-5)
        assert loaded.score_sentence(line) == lm.score_sentence(line)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"order": 0}, "order is 0"),
        ({"order": 7}, "order is 7"),
        ({"min_counts": [1, 2]}, "min_counts"),
        ({"min_counts": [1, 3, 2]}, "min_counts"),
        ({"min_counts": [2, 2, 2]}, "min_counts"),
        ({"max_words": 0}, "max_words is 0"),
        ({"vocabulary": ["two words"]}, "two words"),
    ],
)
def test_a_setting_without_sense_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        build_ngram_lm(TEXT, **arguments)


def test_empty_text_is_refused():
    with pytest.raises(ValueError, match="No text"):
        build_ngram_lm(["", "  "])
    with pytest.raises(ValueError, match="expected text"):
        build_ngram_lm([["a", "b"]])
