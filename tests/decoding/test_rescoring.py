"""Rescoring with a causal language model: what is scored, and what the scores become."""

import math

import numpy as np
import pytest
import torch

from bit_speech.decoding import (
    BeamSearchDecoder,
    CausalLMRescorer,
    Hypothesis,
    Lexicon,
    RescoringWeights,
    build_ngram_lm,
    hypotheses_from_lattice,
    rescore,
)
from bit_speech.decoding.lattice import Lattice, LatticeArc
from bit_speech.decoding.rescoring import score_continuations

from .small_language_models import small_model, small_tokenizer

SENTENCES = ["the cat sat", "a rat", "the cat sat on the mat", "a rat", "i saw it"]


@pytest.fixture(scope="module")
def tokenizer():
    return small_tokenizer()


def by_hand(model, ids, first):
    """Log-probability of the tokens from place `first` on, one sentence at a time, without any cache."""
    with torch.no_grad():
        log_probs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    return sum(float(log_probs[place - 1, ids[place]]) for place in range(first, len(ids)))


@pytest.mark.parametrize("kind", ["qwen2", "llama", "gpt2"])
@pytest.mark.parametrize("batch_tokens", [1, 12, 10_000])
def test_batched_scores_are_those_of_one_sentence_at_a_time(kind, batch_tokens, tokenizer):
    model = small_model(kind)
    found = CausalLMRescorer(model, tokenizer, batch_tokens=batch_tokens).score(SENTENCES)
    expected = [by_hand(model, [*tokenizer(text)["input_ids"], 2], 1) for text in SENTENCES]
    assert found == pytest.approx(expected, abs=1e-4)


def test_a_context_is_conditioned_on_and_not_counted(tokenizer):
    model = small_model()
    rescorer = CausalLMRescorer(model, tokenizer)
    whole = [*tokenizer("a cat saw the rat")["input_ids"], 2]
    first = len(tokenizer("a cat")["input_ids"])
    for context in ("a cat", "a cat "):
        assert rescorer.score(["saw the rat"], context)[0] == pytest.approx(by_hand(model, whole, first), abs=1e-4)
    assert rescorer.score(["saw the rat"])[0] != pytest.approx(by_hand(model, whole, first), abs=1e-2)


def test_the_probabilities_of_all_continuations_add_up_to_one():
    model = small_model()
    scores = score_continuations(model, [1, 70], [[token] for token in range(model.config.vocab_size)])
    assert np.logaddexp.reduce(scores) == pytest.approx(0, abs=1e-4)


def test_an_empty_sentence_scores_as_the_end(tokenizer):
    model = small_model()
    assert CausalLMRescorer(model, tokenizer).score([""])[0] == pytest.approx(by_hand(model, [1, 2], 1), abs=1e-4)
    assert CausalLMRescorer(model, tokenizer, score_end=False).score([""])[0] == 0


def test_end_punctuation_adds_up_the_probabilities_of_the_marks(tokenizer):
    model = small_model()
    marks = CausalLMRescorer(model, tokenizer, end_punctuation=".?").score(["a rat"])[0]
    single = CausalLMRescorer(model, tokenizer).score(["a rat.", "a rat?"])
    assert marks == pytest.approx(np.logaddexp(*single), abs=1e-6)


def test_sentence_case_writes_as_people_do(tokenizer):
    model = small_model()
    cased = CausalLMRescorer(model, tokenizer, text_form="sentence_case").score(["what i saw i'm not in"])
    assert cased == pytest.approx(CausalLMRescorer(model, tokenizer).score(["What I saw I'm not in"]), abs=1e-6)


def test_a_tokenizer_without_beginning_token_begins_with_the_end_token(tokenizer):
    model, plain = small_model(), small_tokenizer()
    plain.bos_token = None
    expected = by_hand(model, [2, *plain("a rat", add_special_tokens=False)["input_ids"], 2], 1)
    assert CausalLMRescorer(model, plain).score(["a rat"])[0] == pytest.approx(expected, abs=1e-4)


def test_no_template_of_the_tokenizer_slips_into_a_score(tokenizer):
    assert CausalLMRescorer(small_model(), tokenizer)._encode("a rat") == tokenizer("a rat")["input_ids"][1:]


def hypothesis(text, acoustic, lm):
    return Hypothesis(text, acoustic + lm, acoustic, lm)


def test_scores_combine_as_promised():
    weights = RescoringWeights(llm_weight=0.5, lm_weight=2.0, word_score=1.0)
    found = weights.combine([hypothesis("a b", -3.0, -4.0), hypothesis("c", -2.0, -5.0)], np.array([-10.0, -20.0]))
    assert found.tolist() == [-3 - 8 - 5 + 2, -2 - 10 - 10 + 1]
    mean = RescoringWeights(llm_weight=0.5, lm_weight=2.0, length_normalization=1.0)
    assert mean.combine([hypothesis("a b", -3.0, -4.0)], np.array([-10.0])).tolist() == [-3 - (8 + 5) / 3]


def test_rescoring_sorts_anew_and_keeps_the_words(tokenizer):
    model = small_model()
    rescorer = CausalLMRescorer(model, tokenizer)
    llm = rescorer.score(["the cat sat", "a rat sat"])
    better, worse = ("the cat sat", "a rat sat") if llm[0] > llm[1] else ("a rat sat", "the cat sat")
    nbest = [hypothesis(worse, -1.0, -1.0), hypothesis(better, -1.0, -1.0)]
    found = rescore(nbest, rescorer, RescoringWeights(llm_weight=1.0, lm_weight=1.0))
    assert [one.text for one in found] == [better, worse]
    assert found[0].score == pytest.approx(-2 + max(llm)) and found[0].acoustic_score == -1.0
    assert rescore(nbest, rescorer, RescoringWeights(llm_weight=0.0))[0].text == worse, "equal scores keep their order"


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"text_form": "upper"}, "text_form"), ({"batch_tokens": 0}, "batch_tokens")],
)
def test_settings_without_sense_are_refused(settings, message, tokenizer):
    with pytest.raises(ValueError, match=message):
        CausalLMRescorer(small_model(), tokenizer, **settings)


def test_weights_without_sense_are_refused():
    with pytest.raises(ValueError, match="llm_weight"):
        RescoringWeights(llm_weight=-1.0)
    with pytest.raises(ValueError, match="word_score"):
        RescoringWeights(word_score=math.nan)
    assert RescoringWeights(word_score=-1.0).word_score == -1.0


def test_input_without_sense_is_refused(tokenizer):
    rescorer = CausalLMRescorer(small_model(), tokenizer)
    with pytest.raises(ValueError, match="one string"):
        rescorer.score("a rat")
    with pytest.raises(ValueError, match="no hypothesis"):
        rescore([], rescorer)
    naked = small_tokenizer()
    naked.bos_token = naked.eos_token = None
    with pytest.raises(ValueError, match="neither"):
        CausalLMRescorer(small_model(), naked)


def test_a_saved_model_scores_the_same(tokenizer, tmp_path):
    model = small_model()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    loaded = CausalLMRescorer.from_pretrained(str(tmp_path), end_punctuation=".")
    expected = CausalLMRescorer(model, tokenizer, end_punctuation=".").score(SENTENCES)
    assert loaded.score(SENTENCES) == pytest.approx(expected, abs=1e-5)


def test_a_lattice_lists_its_sentences_best_first_and_each_once():
    arcs = [
        LatticeArc(0, 1, "the", 0, 2, -1.0, -2.0, -3.0, 0.7),
        LatticeArc(0, 1, "a", 0, 1, -2.0, -2.0, -4.0, 0.3),
        LatticeArc(0, 2, "the", 0, 2, -1.5, -2.0, -3.5, 0.2),
        LatticeArc(1, 3, "cat", 2, 5, -1.0, -1.0, -2.0, 0.6),
        LatticeArc(2, 3, "cat", 2, 5, -4.0, -1.0, -5.0, 0.1),
        LatticeArc(1, 3, "rat", 2, 5, -2.5, -1.0, -3.5, 0.3),
        LatticeArc(3, 4, "", 5, 5, 0.0, -0.5, -0.5, 1.0),
    ]
    lattice = Lattice(5, 6, arcs)
    found = hypotheses_from_lattice(lattice)
    assert [(one.text, one.score) for one in found] == [
        ("the cat", -5.5), ("a cat", -6.5), ("the rat", -7.0), ("a rat", -8.0),
    ]  # fmt: skip
    assert (found[0].acoustic_score, found[0].lm_score) == (-2.0, -3.5)
    assert [(word.text, word.start_frame, word.end_frame) for word in found[0].words] == [("the", 0, 2), ("cat", 2, 5)]
    assert [one.text for one in hypotheses_from_lattice(lattice, 2)] == ["the cat", "a cat"]
    with pytest.raises(ValueError, match="number is 0"):
        hypotheses_from_lattice(lattice, 0)
    with pytest.raises(ValueError, match="no way"):
        hypotheses_from_lattice(Lattice(5, 6, arcs[:-1]))


def test_a_decoders_lattice_lists_the_decoders_sentences():
    lexicon = Lexicon.from_words({"be": "B IY", "bee": "B IY", "the": "DH AH", "tea": "T IY"})
    decoder = BeamSearchDecoder(lexicon, build_ngram_lm(["the tea", "be the tea", "the bee"] * 3, order=2))
    scores = np.random.default_rng(3).normal(0, 2, (14, 41))
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    found, expected = hypotheses_from_lattice(decoder.lattice(scores), 5), decoder.decode(scores)[:5]
    assert [one.text for one in found] == [one.text for one in expected]
    assert [one.score for one in found] == pytest.approx([one.score for one in expected], abs=1e-3)
