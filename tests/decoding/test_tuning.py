import json

import numpy as np
import pytest

from bit_speech.decoding import (
    BeamSearchDecoder,
    Hypothesis,
    Lexicon,
    RescoringWeights,
    build_ngram_lm,
    optimize_decoder,
    tune_decoder,
    tune_rescoring,
)
from bit_speech.decoding.tuning import count_word_errors
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

LEXICON = Lexicon.from_words({"be": "B IY", "pea": "P IY", "me": "M IY", "the": "DH AH", "tea": "T IY"})
TEXT = ["the tea", "me", "be the tea", "the pea be me"] * 3
INDEX = {name: i for i, name in enumerate(MODEL_ORDER)}


def overconfident(text, seed, scale=6.0):
    """Posteriors whose log-probabilities are far too far apart, with errors the language model can mend."""
    rng = np.random.default_rng(seed)
    path = [0]
    for word in text.split():
        for name in (*LEXICON.pronunciations(word)[0], "SIL"):
            path += [INDEX[name], 0]
    scores = rng.normal(0, 1.0, (len(path), 41))
    scores[np.arange(len(path)), path] += 3.0
    scores *= scale
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def errors(decoder, batch, texts):
    return sum(
        count_word_errors(t.split(), decoder.decode(b)[0].text.split()) for b, t in zip(batch, texts, strict=True)
    )


def test_tuning_never_makes_more_errors_on_its_sentences():
    lm = build_ngram_lm(TEXT, order=2)
    batch = [overconfident(text, seed) for seed, text in enumerate(TEXT)]
    decoder = BeamSearchDecoder(LEXICON, lm, beam_size=50, acoustic_scale=3.0, beam_threshold=12.0)
    before = errors(decoder, batch, TEXT)
    tuned = tune_decoder(batch, [text.capitalize() + "." for text in TEXT], decoder)
    assert errors(tuned, batch, TEXT) < before
    assert decoder.acoustic_scale == 3.0 and tuned.lexicon is decoder.lexicon and tuned.lm is decoder.lm


def test_only_the_given_values_are_tried():
    batch = [overconfident(text, seed) for seed, text in enumerate(TEXT[:3])]
    decoder = BeamSearchDecoder(LEXICON, None, acoustic_scale=0.5)
    tuned = tune_decoder(
        batch, TEXT[:3], decoder, acoustic_scales=[0.5], blank_penalties=[1.0], word_scores=[0.5], max_sentences=2
    )
    assert tuned.blank_penalty in (0.0, 1.0) and tuned.word_score in (0.0, 0.5) and tuned.lm_weight == 1.0


def test_settings_can_be_changed_one_at_a_time():
    decoder = BeamSearchDecoder(LEXICON, None, beam_size=50, merge="max")
    changed = decoder.with_settings(beam_size=10)
    assert (changed.beam_size, changed.merge, decoder.beam_size) == (10, "max", 50)
    assert BeamSearchDecoder(LEXICON, None, **decoder.settings).settings == decoder.settings
    with pytest.raises(ValueError, match="'beam'"):
        decoder.with_settings(beam=10)


def test_wrong_numbers_of_sentences_are_named():
    decoder = BeamSearchDecoder(LEXICON, None)
    with pytest.raises(ValueError, match="1 utterances but 2"):
        tune_decoder([overconfident("me", 0)], ["me", "be"], decoder)
    with pytest.raises(ValueError, match="No validation"):
        tune_decoder([], [], decoder)


@pytest.fixture(scope="module")
def badly_set():
    lm = build_ngram_lm(TEXT, order=2)
    batch = [overconfident(text, seed) for seed, text in enumerate(TEXT)]
    return batch, BeamSearchDecoder(LEXICON, lm, beam_size=20, acoustic_scale=3.0, beam_threshold=12.0)


def test_searching_together_makes_fewer_errors_and_never_more_than_before(badly_set):
    batch, decoder = badly_set
    found = optimize_decoder(batch, [text.capitalize() + "." for text in TEXT], decoder, num_trials=12)
    assert errors(found, batch, TEXT) < errors(decoder, batch, TEXT)
    # One trial is the decoder itself, though its scale lies outside the range.
    kept = optimize_decoder(batch, TEXT, decoder, num_trials=1)
    assert kept.settings == decoder.settings


def test_a_search_that_was_stopped_goes_on_as_if_it_had_not_been(badly_set, tmp_path):
    batch, decoder = badly_set
    space = {"acoustic_scale": (0.1, 1.0), "lm_weight": (0.5, 2.0)}
    whole = optimize_decoder(batch, TEXT, decoder, num_trials=8, search_space=space, study_path=tmp_path / "whole.log")
    for trials in (3, 8):
        parts = optimize_decoder(
            batch, TEXT, decoder, num_trials=trials, search_space=space, study_path=tmp_path / "parts.log"
        )
    assert parts.settings == whole.settings
    assert trial_values(tmp_path / "parts.log") == trial_values(tmp_path / "whole.log")
    assert len(trial_values(tmp_path / "whole.log")) == 8
    with pytest.raises(ValueError, match="other ranges"):
        optimize_decoder(batch, TEXT, decoder, num_trials=9, study_path=tmp_path / "parts.log")


def trial_values(path):
    return [row["values"] for row in map(json.loads, path.read_text().splitlines()) if row.get("values")]


def test_a_time_penalty_narrows_the_beam(badly_set):
    batch, decoder = badly_set
    space = {"beam_size": (1, 400)}
    wide = decoder.with_settings(beam_size=400, acoustic_scale=0.4)
    found = optimize_decoder(batch, TEXT, wide, num_trials=6, search_space=space, time_penalty=100.0)
    assert found.beam_size < 400 and isinstance(found.beam_size, int)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_trials": 0}, "num_trials"),
        ({"time_penalty": -1}, "time_penalty"),
        ({"search_space": {"x": (0, 1)}}, "'x'"),
    ],
)
def test_a_search_without_sense_is_refused(badly_set, settings, message):
    with pytest.raises(ValueError, match=message):
        optimize_decoder(badly_set[0], TEXT, badly_set[1], **settings)


def test_rescoring_weights_are_those_with_fewest_errors():
    # The causal model knows which word is right; the first pass prefers the other by 4 and by 1.
    nbest = [
        [Hypothesis("the pea", -1.0, -1.0, 0.0), Hypothesis("the tea", -5.0, -5.0, 0.0)],
        [Hypothesis("me", -1.0, -1.0, 0.0), Hypothesis("be", -2.0, -2.0, 0.0)],
    ]
    llm = [np.array([-20.0, -10.0]), np.array([-10.0, -11.0])]
    found = tune_rescoring(nbest, llm, ["the tea", "me"], llm_weights=[0.0, 0.3, 0.5, 2.0], word_scores=[0.0])
    assert found.llm_weight == 0.5
    # Nothing to gain: the causal model stays out.
    assert tune_rescoring(nbest, llm, ["the pea", "me"]).llm_weight == 0.0


def test_rescoring_lists_without_sense_are_refused():
    nbest = [[Hypothesis("a", 0.0, 0.0, 0.0)]]
    with pytest.raises(ValueError, match="arrays of scores"):
        tune_rescoring(nbest, [], ["a"])
    with pytest.raises(ValueError, match="references"):
        tune_rescoring(nbest, [np.zeros(1)], [])
    assert isinstance(tune_rescoring(nbest, [np.zeros(1)], ["a"]), RescoringWeights)
