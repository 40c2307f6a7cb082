import gzip
import lzma
import math
from pathlib import Path

import numpy as np
import pytest

from bit_speech.decoding import NGramLM, build_ngram_lm
from bit_speech.decoding.lm_kernels import child_range, child_score, child_word, score_word

FIXTURE = Path(__file__).parents[1] / "fixtures" / "lm_small_arpa" / "small.arpa"
HAND = """
\\data\\
ngram 1=5
ngram 2=4
ngram 3=2

\\1-grams:
-1.0\t<unk>
-99\t<s>\t-0.5
-0.7\t</s>
-0.4\ta\t-0.3
-0.6\tb\t-0.2

\\2-grams:
-0.2\t<s> a\t-0.1
-0.5\ta b\t-0.25
-0.3\tb a
-0.35\tb </s>

\\3-grams:
-0.05\t<s> a b
-0.15\ta b </s>

\\end\\
"""
LN10 = math.log(10)


@pytest.fixture
def hand(tmp_path):
    path = tmp_path / "hand.arpa"
    path.write_text(HAND)
    return path


@pytest.mark.parametrize(
    ("sentence", "log10"),
    [
        ("a b", -0.2 - 0.05 - 0.15),  # <s> a | <s> a b | a b </s>
        ("b", -0.5 - 0.6 - 0.35),  # backed off: bo(<s>) + b, then b </s>
        ("a a", -0.2 + (-0.1 - 0.3 - 0.4) + (-0.3 - 0.7)),  # a a is unseen: bo(<s> a) + bo(a) + a, then bo(a) + </s>
        ("b a b", (-0.5 - 0.6) - 0.3 - 0.5 - 0.15),  # the state after `b a` is `a`
        ("a x b", -0.2 + (-0.1 - 0.3 - 1.0) - 0.6 - 0.35),  # an unknown word, then a fresh start
        ("", -0.5 - 0.7),
    ],
)
def test_scores_of_a_model_made_by_hand(hand, sentence, log10):
    assert NGramLM.from_arpa(hand).score_sentence(sentence) == pytest.approx(log10 * LN10, abs=1e-6)


def reference_scores(path):
    """Backoff scoring straight from the text of an ARPA file, with a dictionary."""
    table, order = {}, 0
    for line in path.read_text().splitlines():
        if line.endswith("-grams:"):
            order = int(line[1])
        elif order and line and not line.startswith("\\"):
            fields = line.split("\t")
            table[tuple(fields[1].split())] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)

    def score(history, word):
        if (*history, word) in table:
            return table[(*history, word)][0]
        return table.get(history, (0.0, 0.0))[1] + score(history[1:], word)

    def sentence(words):
        known = ["<s>"] + [w if (w,) in table else "<unk>" for w in words] + ["</s>"]
        return [LN10 * score(tuple(known[max(0, i - order + 1) : i]), known[i]) for i in range(1, len(known))]

    return sentence, [key[0] for key in table if len(key) == 1]


def random_sentences(words, number, seed=0):
    rng = np.random.default_rng(seed)
    pool = [w for w in words if not w.startswith("<")]
    return [[pool[i] for i in rng.integers(0, len(pool), rng.integers(0, 12))] for _ in range(number)]


def test_scores_equal_those_of_the_arpa_file_word_by_word():
    lm = NGramLM.from_arpa(FIXTURE)
    score, words = reference_scores(FIXTURE)
    frequent = words[:20]  # many of their n-grams are listed
    for sentence in random_sentences(words, 100) + random_sentences(frequent, 300, seed=1) + [["zzz", "the", "zzz"]]:
        np.testing.assert_allclose(lm.word_scores(" ".join(sentence)), score(sentence), rtol=1e-6, atol=1e-6)


def test_scores_equal_those_of_kenlm(tmp_path):
    kenlm = pytest.importorskip("kenlm")
    built = build_ngram_lm(FIXTURE.read_text().splitlines()[150:700], order=4)
    built.write_arpa(tmp_path / "built.arpa")
    for path in (FIXTURE, tmp_path / "built.arpa"):
        ours, theirs = NGramLM.from_arpa(path), kenlm.Model(str(path))
        for sentence in random_sentences(ours.words[:200], 200, seed=2):
            text = " ".join(sentence)
            assert ours.score_sentence(text) == pytest.approx(theirs.score(text) * LN10, rel=1e-5, abs=1e-4)


@pytest.mark.parametrize(("suffix", "opener"), [(".gz", gzip.open), (".xz", lzma.open)])
def test_compressed_files_are_read(tmp_path, suffix, opener):
    path = tmp_path / f"lm.arpa{suffix}"
    with opener(path, "wb") as stream:
        stream.write(FIXTURE.read_bytes())
    assert NGramLM.from_arpa(path).score_sentence("the little") == NGramLM.from_arpa(FIXTURE).score_sentence(
        "the little"
    )


def test_unigram_scores_are_those_of_words_without_context(hand):
    lm = NGramLM.from_arpa(hand)
    expected = [lm.word_scores(word, bos=False, eos=False)[0] for word in lm.words if word not in ("<s>", "</s>")]
    found = lm.unigram_scores()
    assert found.dtype == np.float32
    np.testing.assert_allclose([found[lm.word_index(word)] for word in ("<unk>", "a", "b")], expected)


def test_the_listed_continuations_of_a_context_are_enumerated_with_their_scores(hand):
    lm = NGramLM.from_arpa(hand)
    _, after_a = score_word(lm.arrays, np.int64(0), np.int64(lm.word_index("a")))
    _, after_start_a = score_word(lm.arrays, np.int64(lm.start_state), np.int64(lm.word_index("a")))
    for state, expected in ((after_a, {"b": -0.5}), (after_start_a, {"b": -0.05}), (lm.start_state, {"a": -0.2})):
        begin, end = child_range(lm.arrays, state)
        found = {lm.words[child_word(lm.arrays, i)]: child_score(lm.arrays, i) / LN10 for i in range(begin, end)}
        assert found == pytest.approx(expected)


def test_counts_order_and_words_are_those_of_the_file(hand):
    lm = NGramLM.from_arpa(hand)
    assert (lm.order, lm.counts) == (3, (5, 4, 2))
    assert set(lm.words) == {"<unk>", "<s>", "</s>", "a", "b"}
    assert "a" in lm and "x" not in lm and len(lm) == 5


def test_windows_line_ends_and_spaces_are_read(tmp_path, hand):
    path = tmp_path / "windows.arpa"
    path.write_bytes(HAND.replace("\t", " ").replace("\n", "\r\n").encode())
    assert NGramLM.from_arpa(path).score_sentence("a b") == NGramLM.from_arpa(hand).score_sentence("a b")


def test_a_missing_unk_scores_like_kenlms(tmp_path):
    path = tmp_path / "closed.arpa"
    path.write_text(HAND.replace("-1.0\t<unk>\n", "").replace("ngram 1=5", "ngram 1=4"))
    lm = NGramLM.from_arpa(path)
    assert lm.word_scores("x", bos=False, eos=False)[0] == pytest.approx(-100 * LN10)


def test_a_missing_context_does_not_change_scores(tmp_path):
    path = tmp_path / "pruned.arpa"
    path.write_text(HAND.replace("-0.5\ta b\t-0.25\n", "").replace("ngram 2=4", "ngram 2=3"))
    lm = NGramLM.from_arpa(path)
    assert lm.score_sentence("a b") == pytest.approx((-0.2 - 0.05 - 0.15) * LN10, abs=1e-6)
    # `b` after `a` backs off: bo(a) + b; the 3-gram `a b </s>` is still there.
    assert lm.score_sentence("b a b") == pytest.approx((-0.5 - 0.6 - 0.3 - (0.3 + 0.6) - 0.15) * LN10, abs=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("hello", "not an ARPA file"),
        ("", "not an ARPA file"),
        ("\\data\\\n\n\\1-grams:\n", "no 1-grams"),
        (HAND[: HAND.index("\\3-grams:") + 10], "only 0 of 2 3-grams"),
        (HAND[: HAND.index("-0.15\ta b </s>")], "only 1 of 2 3-grams"),
        (HAND[: HAND.index("\\end\\")], "truncated"),
        (HAND.replace("ngram 2=4", "ngram 2=5"), "only 4 of 5 2-grams"),
        (HAND.replace("ngram 2=4", "ngram 2=3"), "found '-0.35..b </s>'"),
        (HAND.replace("-0.3\tb a", "-0.3\tb q"), "line 17: a word is not among the 1-grams"),
        (HAND.replace("-0.3\tb a", "x\tb a"), "line 17: a number was expected"),
        (HAND.replace("-0.3\tb a", "-0.3\tb"), "line 17: expected a log10 probability"),
        (HAND.replace("-0.3\tb a", "-0.3\tb a\t-1\t-1"), "line 17: expected a log10 probability"),
        (HAND.replace("-0.6\tb", "-0.6\ta"), "line 12: the word was already listed"),
        (HAND.replace("-0.3\tb a", "-0.3\ta b"), "listed twice"),
        (HAND.replace("ngram 2=4\n", ""), "expected the count of order 2"),
        (HAND.replace("</s>", "<e>"), "has no </s>"),
        (HAND.replace("-0.05\t<s> a b", "nan\t<s> a b"), "a number was expected"),
        (HAND.replace("-0.05\t<s> a b", "0.5\t<s> a b"), "line 21: a log10 probability above zero"),
    ],
)
def test_a_broken_arpa_file_is_refused_with_the_reason(tmp_path, text, message):
    path = tmp_path / "broken.arpa"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        NGramLM.from_arpa(path)


def test_a_truncated_compressed_file_is_refused(tmp_path):
    path = tmp_path / "lm.arpa.xz"
    path.write_bytes(lzma.compress(FIXTURE.read_bytes())[:-2000])
    with pytest.raises(ValueError, match="truncated"):
        NGramLM.from_arpa(path)


def test_missing_files_are_named(tmp_path):
    for read in (NGramLM.from_arpa, NGramLM.load):
        with pytest.raises(FileNotFoundError, match="nowhere"):
            read(tmp_path / "nowhere")


def test_save_and_load_change_nothing(tmp_path):
    lm = NGramLM.from_arpa(FIXTURE)
    lm.save(tmp_path / "lm.bin")
    loaded = NGramLM.load(tmp_path / "lm.bin", verify=True)
    assert loaded.words == lm.words and loaded.counts == lm.counts
    for mine, theirs in zip(lm.arrays, loaded.arrays, strict=True):
        assert mine.dtype == theirs.dtype and not theirs.flags.writeable
        np.testing.assert_array_equal(mine, theirs)
    assert loaded.score_sentence("the little house") == lm.score_sentence("the little house")


def test_truncated_foreign_and_damaged_models_are_refused(tmp_path):
    path = tmp_path / "lm.bin"
    NGramLM.from_arpa(FIXTURE).save(path)
    good = path.read_bytes()
    broken = {
        "truncated": good[:-100],
        "not a bit-speech": b"PK" + good[2:],
        "format version 9": good[:8] + b"\x09\0\0\0" + good[12:],
        "header": good[:30] + b"#" + good[31:],
        "not a bit-speech n-gram": b"",
    }
    for message, data in broken.items():
        path.write_bytes(data)
        with pytest.raises(ValueError, match=message):
            NGramLM.load(path)
    middle = len(good) // 2
    path.write_bytes(good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :])
    with pytest.raises(ValueError, match="checksum"):
        NGramLM.load(path, verify=True)


def test_writing_arpa_and_reading_it_back_changes_nothing(tmp_path, hand):
    for source in (hand, FIXTURE):
        lm = NGramLM.from_arpa(source)
        lm.write_arpa(tmp_path / "copy.arpa.gz")
        copy = NGramLM.from_arpa(tmp_path / "copy.arpa.gz")
        assert copy.words == lm.words and copy.counts == lm.counts
        np.testing.assert_allclose(copy.arrays.probs, lm.arrays.probs, rtol=1e-6)
        np.testing.assert_allclose(copy.arrays.backoffs, lm.arrays.backoffs, rtol=1e-6, atol=1e-9)
    assert not list(tmp_path.glob("*.tmp"))


def test_perplexity_counts_words_and_sentence_ends(hand):
    lm = NGramLM.from_arpa(hand)
    assert lm.perplexity(["a b"]) == pytest.approx(10 ** (0.4 / 3))
    assert lm.perplexity(["a x"], include_unknown=False) < lm.perplexity(["a x"])
    with pytest.raises(ValueError, match="No sentences"):
        lm.perplexity([])


def test_many_words_are_looked_up_at_once(hand):
    lm = NGramLM.from_arpa(hand)
    words = ["b", "zzz", "a", "<s>", "", "<unk>"]
    assert lm.word_indices(words).tolist() == [lm.words.index(w) if w in lm.words else lm.unk for w in words]
    assert lm.word_indices([]).tolist() == [] and 3 not in lm
