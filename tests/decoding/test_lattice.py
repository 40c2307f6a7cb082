import math

import numpy as np
import pytest

from bit_speech.decoding import BeamSearchDecoder, Lattice, Lexicon, build_ngram_lm
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

INDEX = {name: i for i, name in enumerate(MODEL_ORDER)}
WORDS = {"be": "B IY", "bee": "B IY", "b": ["B", "B IY"], "the": ["M", "M B"], "mem": "M IY M", "me": "M IY"}
TEXT = ["me be the bee", "be the mem", "b b me", "the me be", "bee the the", "mem be"]
WIDE = {"beam_size": 10**5, "beam_threshold": math.inf, "blank_skip_threshold": 1.0, "lattice_beam": 1e9}


@pytest.fixture(scope="module")
def decoder():
    return BeamSearchDecoder(Lexicon.from_words(WORDS), build_ngram_lm(TEXT, order=3), lm_weight=0.7, word_score=0.3)


def random_log_probs(seed, frames, scale=2.0):
    rng = np.random.default_rng(seed)
    log_probs = np.full((frames, 41), -np.inf)
    scores = rng.normal(0, scale, (frames, 5))
    log_probs[:, [0, INDEX["B"], INDEX["IY"], INDEX["M"], INDEX["SIL"]]] = scores
    return log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)


def test_the_best_path_scores_like_the_best_sentence_and_posteriors_are_shares(decoder):
    for seed in range(5):
        log_probs = random_log_probs(seed, 30)
        lattice, best = decoder.lattice(log_probs), decoder.decode(log_probs)[0]
        score = {0: 0.0}
        for arc in lattice.arcs:
            score[arc.target] = max(score.get(arc.target, -math.inf), score[arc.source] + arc.score)
            assert 0 <= arc.posterior <= 1 and arc.source < arc.target
            assert not arc.word or 0 <= arc.start_frame < arc.end_frame <= 30
        # Exact but for words that the language model sees further back than where histories met.
        assert score[lattice.num_nodes - 1] == pytest.approx(best.score, abs=1.0)
        into_the_end = [arc.posterior for arc in lattice.arcs if arc.target == lattice.num_nodes - 1]
        assert sum(into_the_end) == pytest.approx(1, abs=0.01)  # what lies beyond the lattice beam is left out


def test_a_narrower_lattice_has_fewer_arcs_and_the_same_best_sentence(decoder):
    log_probs = random_log_probs(9, 40)
    wide, narrow = decoder.lattice(log_probs), decoder.with_settings(lattice_beam=1.0).lattice(log_probs)
    assert 0 < len(narrow.arcs) < len(wide.arcs)
    assert decoder.with_settings(lattice_beam=1.0).decode(log_probs)[0].text == decoder.decode(log_probs)[0].text


def test_recombination_with_a_lattice_finds_nearly_the_n_best_of_the_exact_search(decoder):
    kept = total = same = 0
    for seed in range(10):
        log_probs = random_log_probs(seed, 7)
        exact = decoder.with_settings(recombine=False, merge="max", num_hypotheses=8, **WIDE).decode(log_probs)
        found = decoder.with_settings(merge="max", num_hypotheses=40, **WIDE).decode(log_probs)
        scores = {h.text: h.score for h in found}
        for h in exact:
            total += 1
            kept += h.text in scores and abs(scores[h.text] - h.score) < 0.5
        same += exact[0].text == found[0].text
    assert same >= 8
    assert kept > 0.7 * total


def test_a_lattice_is_saved_and_read_back(decoder, tmp_path):
    lattice = decoder.lattice(random_log_probs(1, 20))
    lattice.save(tmp_path / "lattice.json")
    assert Lattice.load(tmp_path / "lattice.json") == lattice
    (tmp_path / "other.json").write_text('{"format": "other"}')
    for name in ("other.json",):
        with pytest.raises(ValueError, match="other.json is no lattice"):
            Lattice.load(tmp_path / name)
    text = (tmp_path / "lattice.json").read_text()
    (tmp_path / "short.json").write_text(text[: len(text) // 2])
    with pytest.raises(ValueError, match="short.json is no lattice"):
        Lattice.load(tmp_path / "short.json")


def test_lattices_need_recombination(decoder):
    for settings in ({"recombine": False}, {"num_hypotheses": 1}):
        with pytest.raises(ValueError, match="recombine=True"):
            decoder.with_settings(**settings).lattice(random_log_probs(0, 3))


def test_an_empty_lattice_when_no_word_can_end(decoder):
    log_probs = np.full((3, 41), -np.inf)
    log_probs[:, INDEX["ZH"]] = 0.0
    assert decoder.lattice(log_probs).arcs == []


def test_a_higher_temperature_makes_confidences_more_modest(decoder):
    log_probs = random_log_probs(3, 30)
    cold, warm = (decoder.with_settings(confidence_temperature=t).decode(log_probs)[0] for t in (0.5, 4.0))
    assert cold.text == warm.text
    assert sum(word.confidence for word in cold.words) > sum(word.confidence for word in warm.words)


def one_hot(labels, confidence=0.9):
    path = [0]
    for name in labels.split():
        path += [INDEX[name], 0]
    return np.log(np.eye(41)[path] * confidence + (1 - confidence) / 41)


def test_a_hotword_wins_against_its_homophone_and_its_score_adds_up(decoder):
    log_probs = one_hot("M IY SIL B IY SIL")
    assert decoder.decode(log_probs)[0].text == "me be"
    hot = decoder.with_settings(hotwords={"bee": 5.0}).decode(log_probs)[0]
    plain = {h.text: h.score for h in decoder.with_settings(num_hypotheses=100).decode(log_probs)}
    assert hot.text == "me bee"
    assert hot.score == pytest.approx(plain["me bee"] + 5.0, abs=1e-4)


def test_a_hot_phrase_counts_whole_or_not_at_all(decoder):
    log_probs = one_hot("B IY SIL M SIL M IY SIL")  # be/bee/b the me
    decoder = decoder.with_settings(recombine=False, beam_size=5000)
    plain = {h.text: h.score for h in decoder.with_settings(num_hypotheses=300).decode(log_probs)}
    for phrase, hit in (("bee the", True), ("bee mem", False), ("bee the me", True), ("the mem", False)):
        boosted = decoder.with_settings(hotwords={phrase: 3.0}, num_hypotheses=300).decode(log_probs)
        scores = {h.text: h.score for h in boosted}
        assert scores["bee the me"] == pytest.approx(plain["bee the me"] + 3.0 * hit, abs=1e-4)
        assert scores["be the me"] == pytest.approx(plain["be the me"], abs=1e-4)


def test_hotwords_without_sense_are_named(decoder):
    with pytest.raises(ValueError, match="'zebra' is not in the lexicon"):
        decoder.with_settings(hotwords={"me zebra": 1.0})
    with pytest.raises(ValueError, match="boost of hotword 'me' is nan"):
        decoder.with_settings(hotwords={"me": math.nan})


def test_pronunciation_probabilities_count(decoder):
    lexicon = Lexicon.from_words({"a": {"B IY": 0.9}, "b": {"B IY": 0.1}})
    found = BeamSearchDecoder(lexicon, None).decode(one_hot("B IY SIL"))
    assert [h.text for h in found[:2]] == ["a", "b"]
    assert found[0].score - found[1].score == pytest.approx(math.log(9), abs=1e-4)
    equal = BeamSearchDecoder(lexicon, None, pronunciation_weight=0.0).decode(one_hot("B IY SIL"))
    assert equal[0].score == pytest.approx(equal[1].score, abs=1e-6)
