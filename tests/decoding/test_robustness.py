import math

import numpy as np
import pytest

from benchmarks.fuzz_decoding import run as run_fuzz
from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm
from configuration_bit.phoneme_inventory_bit import PHONEMES


def random_decoder(rng):
    num_words, num_phonemes = int(rng.choice([1, 2, 10, 40])), int(rng.choice([1, 3, 39]))
    lexicon = Lexicon(
        (f"w{rng.integers(num_words)}", [PHONEMES[i] for i in rng.integers(0, num_phonemes, rng.integers(1, 6))])
        for _ in range(3 * num_words)
    )
    lm = None
    if rng.random() < 0.8:
        words = [*lexicon.words, "x"]
        text = [" ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(int(rng.choice([1, 5, 30])))]
        lm = build_ngram_lm(text, order=int(rng.integers(1, 5)))
    return BeamSearchDecoder(
        lexicon,
        lm,
        beam_size=int(rng.choice([1, 2, 10, 300])),
        beam_threshold=float(rng.choice([0.1, 3, 14, 1000, math.inf])),
        lm_weight=float(rng.choice([0, 0.5, 3])),
        word_score=float(rng.normal()),
        acoustic_scale=float(rng.choice([0.1, 1, 3])),
        blank_penalty=float(rng.choice([0, 3])),
        num_hypotheses=int(rng.choice([1, 7, 1000])),
        missing_sil_score=float(rng.choice([0, -3, -math.inf])),
        unknown_word_score=float(rng.choice([0, -3])),
        blank_skip_threshold=float(rng.choice([1, 0.9])),
        merge=str(rng.choice(["log_add", "max"])),
        recombine=bool(rng.random() < 0.5),
    )


def random_log_probs(rng):
    log_probs = rng.normal(0, rng.choice([0.1, 2, 20]), (int(rng.integers(0, 20)), 41))
    if rng.random() < 0.3:
        log_probs[rng.random(log_probs.shape) < 0.7] = -np.inf
        log_probs[np.isneginf(log_probs).all(axis=1), 0] = 0.0
    return log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)


@pytest.mark.parametrize("seed", range(30))
def test_any_settings_on_any_input_give_hypotheses_that_hold_together(seed):
    rng = np.random.default_rng(seed)
    decoder, log_probs = random_decoder(rng), random_log_probs(rng)
    hypotheses = decoder.decode(log_probs)
    assert 1 <= len(hypotheses) <= decoder.num_hypotheses
    assert len({h.text for h in hypotheses}) == len(hypotheses)
    assert all(a.score >= b.score for a, b in zip(hypotheses, hypotheses[1:]))
    for h in hypotheses:
        assert h.text == " ".join(word.text for word in h.words)
        ends = [0, *(frame for word in h.words for frame in (word.start_frame, word.end_frame)), len(log_probs)]
        assert ends == sorted(ends)
        assert all(word.start_frame < word.end_frame for word in h.words)
        if not h.complete or math.isinf(h.score):
            continue
        score = h.acoustic_score + decoder.word_score * len(h.words)
        if decoder.lm is not None:
            assert h.lm_score == pytest.approx(decoder.lm.score_sentence(h.text), rel=1e-4)
            unknown = sum(word.text not in decoder.lm for word in h.words)
            score += decoder.lm_weight * h.lm_score + decoder.unknown_word_score * unknown
        assert h.score == pytest.approx(score, rel=1e-6)


def test_recombination_nearly_always_finds_the_same_best_sentence():
    gaps = []
    for seed in range(30):
        rng = np.random.default_rng(seed)
        decoder, log_probs = random_decoder(rng), random_log_probs(rng)[:4]
        if decoder.lm is None or len(decoder.lexicon) > 10:
            continue
        exact = decoder.with_settings(
            beam_size=10**6, beam_threshold=math.inf, merge="max", recombine=False, blank_skip_threshold=1.0
        )
        best, merged = exact.decode(log_probs)[0], exact.with_settings(recombine=True).decode(log_probs)[0]
        if best.complete:
            gaps.append(best.score - merged.score)
    assert len(gaps) > 10
    assert min(gaps) > -1e-6
    assert np.mean(np.array(gaps) < 1e-6) > 0.8


def test_random_lexicons_models_settings_and_broken_input_hold_together_or_are_refused():
    # The long version: python -m benchmarks.fuzz_decoding
    outcomes = run_fuzz(10**6, 60, per_decoder=6)
    assert outcomes["decoded"] > 30
    assert any(outcome.startswith("refused") for outcome in outcomes)
