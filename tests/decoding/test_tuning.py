import numpy as np
import pytest

from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm, tune_decoder
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
