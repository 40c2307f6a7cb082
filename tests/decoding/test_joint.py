"""Joint decoding: exact likelihoods of sentences, and sentences of several decoders weighed up."""

import itertools

import numpy as np
import pytest

from bit_speech.decoding import (
    JointDecoder,
    JointWeights,
    Lexicon,
    SentenceLikelihood,
    build_ngram_lm,
    choose,
    proposals,
    tune_joint,
)
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

NEVER = float("-inf")


def frames(count: int, seed: int = 0) -> np.ndarray:
    logits = 2 * np.random.default_rng(seed).normal(size=(count, 41))
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def by_torch(log_probs: np.ndarray, phonemes: str) -> float:
    import torch

    labels = torch.tensor([[MODEL_ORDER.index(name) for name in phonemes.split()]])
    loss = torch.nn.functional.ctc_loss(
        torch.from_numpy(log_probs)[:, None], labels, [len(log_probs)], [labels.shape[1]], reduction="sum"
    )
    return -float(loss)


def test_the_likelihood_is_that_of_ctc_summed_over_pronunciations_and_silences():
    lexicon = Lexicon.from_words({"read": {"R EH D": 0.25, "R IY D": 0.75}, "deed": "D IY D"})
    log_probs = frames(14)
    ways = []
    for first, (read, share) in itertools.product((False, True), (("R EH D", 0.25), ("R IY D", 0.75))):
        for between, last in itertools.product((False, True), repeat=2):
            text = f"{'SIL ' * first}{read} {'SIL ' * between}D IY D{' SIL' * last}"
            price = np.log(share) - 3.0 * first - 2.0 * ((not between) + (not last))
            ways.append(by_torch(log_probs, text) + price)
    likelihood = SentenceLikelihood(lexicon, missing_sil_score=-2.0, extra_sil_score=-3.0)
    # The lexicon keeps the probabilities of its alternatives in single precision.
    assert likelihood.score(log_probs, ["read deed"])[0] == pytest.approx(np.logaddexp.reduce(ways), abs=1e-6)


def test_silence_and_sentences_that_do_not_fit_are_scored_too():
    likelihood = SentenceLikelihood(Lexicon.from_words({"hi": "HH AY"}), missing_sil_score=NEVER, extra_sil_score=NEVER)
    log_probs = frames(4)
    scores = likelihood.score(log_probs, ["", "hi", "hi hi", "unheard"])
    assert scores[0] == pytest.approx(log_probs[:, 0].sum())
    assert scores[1] == pytest.approx(by_torch(log_probs, "HH AY SIL"))
    assert list(scores[2:]) == [NEVER, NEVER]


def test_a_word_outside_the_lexicon_is_pronounced_when_somebody_knows_how():
    lexicon = Lexicon.from_words({"hi": "HH AY"})
    log_probs = frames(6)
    helped = SentenceLikelihood(lexicon, pronounce={"bye": ["B AY"]}.get)
    known = SentenceLikelihood(lexicon.with_words({"bye": "B AY"}))
    assert helped.score(log_probs, ["hi bye"]) == known.score(log_probs, ["hi bye"])


def test_bad_frames_and_prices_are_refused():
    lexicon = Lexicon.from_words({"hi": "HH AY"})
    with pytest.raises(ValueError, match="missing_sil_score is 1.0"):
        SentenceLikelihood(lexicon, missing_sil_score=1.0)
    with pytest.raises(ValueError, match="give a list"):
        SentenceLikelihood(lexicon).score(frames(4), "hi")
    with pytest.raises(ValueError, match="log_probs"):
        SentenceLikelihood(lexicon).score(np.zeros((4, 7)), ["hi"])


def test_all_scores_of_a_sentence_stand_in_one_row():
    likelihood = SentenceLikelihood(Lexicon.from_words({"hi": "HH AY", "he": "HH IY"}))
    lm = build_ngram_lm(["hi he", "he"], order=2)
    log_probs = frames(8)
    texts = proposals(["hi he"], ["hi  he", "he"])
    rows = JointDecoder(likelihood, lm).features(log_probs, texts, lambda asked: [-1.0 - len(one) for one in asked])
    assert rows[:, 0].tolist() == likelihood.score(log_probs, texts).tolist()
    assert rows[:, 1].tolist() == [lm.score_sentence(text) for text in texts]
    assert rows[:, 2:].tolist() == [[-6.0, 2.0], [-3.0, 1.0]]
    with pytest.raises(ValueError, match="No sentence was proposed"):
        JointDecoder(likelihood).features(log_probs, [], lambda asked: [])
    with pytest.raises(ValueError, match="or a NaN"):
        JointDecoder(likelihood).features(log_probs, texts, lambda asked: [0.0])


def test_confidences_are_the_shares_of_sentences_that_have_the_word_there():
    texts = ["i need it", "i knead it", "need it now"]
    rows = np.log(np.array([[0.5], [0.3], [0.2]])) * np.array([[1.0, 0.0, 0.0, 0.0]])
    result = choose(texts, rows, JointWeights(ctc=1.0, lm=0.0, llm=0.0))
    assert result.text == "i need it"
    assert result.confidences == pytest.approx((0.8, 0.7, 1.0))
    assert [share for _, share in result.sentences] == pytest.approx([0.5, 0.3, 0.2])


def test_what_has_no_weight_cannot_rule_a_sentence_out():
    rows = np.array([[NEVER, -1.0, -1.0, 1.0], [-5.0, -2.0, -2.0, 1.0]])
    assert choose(["a", "b"], rows, JointWeights(ctc=0.0)).text == "a"
    assert choose(["a", "b"], rows, JointWeights()).text == "b"
    impossible = np.full((2, 4), NEVER)
    assert [share for _, share in choose(["a", "b"], impossible, JointWeights()).sentences] == [0.5, 0.5]


def test_tuned_weights_follow_the_score_that_knows():
    rng = np.random.default_rng(0)
    lists, rows, references = [], [], []
    for index in range(40):
        lists.append([f"good {index}", f"bad {index}", f"worse {index}"])
        scores = np.zeros((3, 4))
        scores[:, 0] = 2 * rng.normal(size=3)  # says nothing
        scores[:, 2] = np.array([0.0, -2.0, -3.0]) + rng.normal(size=3)
        scores[:, 3] = 2
        rows.append(scores)
        references.append(f"good {index}")
    weights = tune_joint(lists, rows, references)
    assert weights.llm > 3 * weights.ctc
    assert weights.lm == 0  # all alike
    right = sum(choose(*one, weights).text == text for *one, text in zip(lists, rows, references))
    assert right > 30
    assert tune_joint(lists, rows, references, fixed=["llm"]).llm == 0


def test_one_sentence_that_cannot_be_pronounced_does_not_silence_the_likelihood():
    lists, rows = (
        [["good", "bad", "zzz"]] * 5,
        [np.array([[-1.0, -1, -1, 1], [-3.0, -1, -1, 1], [NEVER, -1, -1, 1]])] * 5,
    )
    alone = tune_joint(lists, rows, ["good"] * 5)
    with_zzz = tune_joint([*lists, lists[0]], [*rows, rows[0]], ["good"] * 5 + ["zzz"])
    assert alone.ctc > 1 and with_zzz == alone


def test_tuning_refuses_what_does_not_fit():
    with pytest.raises(ValueError, match="1 lists of sentences but 0"):
        tune_joint([["a"]], [], ["a"])
    with pytest.raises(ValueError, match="fixed names \\['colour'\\]"):
        tune_joint([["a"]], [np.zeros((1, 4))], ["a"], fixed=["colour"])
    with pytest.raises(ValueError, match="expected a finite number"):
        JointWeights(ctc=-1.0)
