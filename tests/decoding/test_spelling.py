"""Characters are decoded by the same search, exactly."""

import itertools
import math

import numpy as np
import pytest

from bit_speech.ctc import collapse
from bit_speech.decoding import build_ngram_lm
from bit_speech.decoding.spelling import SpellingDecoder
from processing_bit.tokenization_spelling import SpellingTokenizer

CHARACTERS = {" ": 1, "a": 2, "b": 4}
WIDE = {"beam_size": 2000, "beam_threshold": math.inf, "num_hypotheses": 50, "recombine": False}


def random_log_probs(frames: int, classes: int, seed: int) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(size=(frames, classes)) * 2
    return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


@pytest.mark.parametrize("seed", range(4))
def test_the_best_sentence_is_that_of_all_paths_added_up(seed):
    log_probs = random_log_probs(6, 5, seed)
    lm = build_ngram_lm(["a ab", "ab a", "bb a", "ab bb ab"], order=2)
    words = {"a", "ab", "bb"}
    totals: dict[tuple[str, ...], float] = {}
    for path in itertools.product((0, 1, 2, 4), repeat=6):  # class 3 is no character
        text = "".join({1: " ", 2: "a", 4: "b"}[label] for label in collapse(path))
        sentence = tuple(text.split())
        if set(sentence) <= words:
            score = sum(log_probs[frame, label] for frame, label in enumerate(path))
            totals[sentence] = np.logaddexp(totals.get(sentence, -math.inf), score)
    by_hand = {" ".join(s): score + 0.7 * lm.score_sentence(" ".join(s)) for s, score in totals.items()}
    best = max(by_hand, key=by_hand.get)
    found = SpellingDecoder(words, lm, CHARACTERS, num_classes=5, lm_weight=0.7, **WIDE).decode(log_probs)
    assert found[0].text == best
    for hypothesis in found[:10]:
        assert hypothesis.score == pytest.approx(by_hand[hypothesis.text], abs=1e-4)


def test_a_sentence_spelled_by_the_tokenizer_comes_back():
    tokenizer = SpellingTokenizer()
    path = [label for one in tokenizer.encode_text("I'll tell all") for label in (one, 0)]
    log_probs = np.log(np.eye(32)[path] * 0.9 + 0.1 / 32)
    decoder = SpellingDecoder(["i'll", "tell", "all", "bell"], None, tokenizer.characters, num_classes=32)
    assert decoder.decode(log_probs)[0].text == "i'll tell all"
    assert tokenizer.decode_ctc(path) == "i'll tell all"


def test_words_that_cannot_be_spelled_are_told():
    decoder = SpellingDecoder(["ab", "été"], None, CHARACTERS, num_classes=5)
    assert decoder.unspellable == ["été"]


@pytest.mark.parametrize(
    "characters, words, named",
    [
        ({"a": 2}, ["a"], "no space"),
        ({" ": 1, "a": 1}, ["a"], "different"),
        ({" ": 1, "a": 5}, ["a"], "below 5"),
        (CHARACTERS, ["c"], "None of the words"),
        ({" ": 1, **{chr(300 + i): i + 2 for i in range(40)}}, ["a"], "40 letters"),
    ],
)
def test_wrong_vocabularies_are_refused(characters, words, named):
    with pytest.raises(ValueError, match=named):
        SpellingDecoder(words, None, characters, num_classes=5)
