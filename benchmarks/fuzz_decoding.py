"""Decode random posteriors with random lexicons, language models and settings, and check what comes out.

    python -m benchmarks.fuzz_decoding --count 100000 [--seed 0]

Every case either decodes to hypotheses that hold together (distinct, sorted, scores that add up, times in order, equal
when cut into chunks, on a copy and after saving) or is refused with an error that names the fault. Prints the seed of a
case that does not, and stops.
"""

from __future__ import annotations

import argparse
import math
import time
from collections import Counter

import numpy as np

from benchmarks.common import save_result
from bit_speech.decoding import BeamSearchDecoder, DecoderState, Lexicon, NGramLM, build_ngram_lm
from configuration_bit.phoneme_inventory_bit import PHONEMES


def random_lexicon(rng: np.random.Generator) -> Lexicon:
    """One word up to forty, over one phoneme or many, homophones and prefixes among them."""
    num_words, num_phonemes = int(rng.choice([1, 2, 10, 40])), int(rng.choice([1, 3, 39]))
    return Lexicon(
        (
            f"w{rng.integers(num_words)}",
            [PHONEMES[i] for i in rng.integers(0, num_phonemes, rng.integers(1, 6))],
            float(rng.choice([1.0, 0.5, 0.01])),
        )
        for _ in range(3 * num_words)
    )


def random_lm(rng: np.random.Generator, lexicon: Lexicon) -> NGramLM | None:
    """None, or a model of order 1 to 4 over the lexicon and an unknown word."""
    if rng.random() < 0.2:
        return None
    words = [*lexicon.words, "x"]
    text = [" ".join(rng.choice(words, rng.integers(1, 6))) for _ in range(int(rng.choice([1, 5, 30])))]
    return build_ngram_lm(text, order=int(rng.integers(1, 5)))


def random_settings(rng: np.random.Generator, lexicon: Lexicon) -> dict:
    """Any settings that make sense."""
    hot = {}
    if rng.random() < 0.3:
        hot = {" ".join(rng.choice(lexicon.words, rng.integers(1, 4))): float(rng.normal(0, 3)) for _ in range(3)}
    return {
        "beam_size": int(rng.choice([1, 2, 10, 300])),
        "beam_threshold": float(rng.choice([0.1, 3, 14, 1000, math.inf])),
        "lm_weight": float(rng.choice([0, 0.5, 3])),
        "word_score": float(rng.normal()),
        "acoustic_scale": float(rng.choice([0.1, 1, 3])),
        "blank_penalty": float(rng.choice([0, 3])),
        "num_hypotheses": int(rng.choice([1, 7, 100])),
        "missing_sil_score": float(rng.choice([0, -3, -math.inf])),
        "extra_sil_score": float(rng.choice([0, -4, -math.inf])),
        "unknown_word_score": float(rng.choice([0, -3])),
        "blank_skip_threshold": float(rng.choice([1, 0.9])),
        "merge": str(rng.choice(["log_add", "max"])),
        "recombine": bool(rng.random() < 0.7),
        "lattice_beam": float(rng.choice([0.5, 8, 100])),
        "confidence_temperature": float(rng.choice([0.3, 1, 5])),
        "hotwords": hot,
    }


def random_log_probs(rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Log-probabilities, and what is wrong with them ("" for nothing)."""
    log_probs = rng.normal(0, rng.choice([0.1, 2, 20]), (int(rng.integers(0, 20)), 41))
    if rng.random() < 0.3:
        log_probs[rng.random(log_probs.shape) < 0.7] = -np.inf
        log_probs[np.isneginf(log_probs).all(axis=1), 0] = 0.0
    log_probs = log_probs - np.logaddexp.reduce(log_probs, axis=1, keepdims=True)
    if len(log_probs) and rng.random() < 0.15:
        fault = str(rng.choice(["NaN", "-inf", "> 0", "shape"]))
        frame = int(rng.integers(len(log_probs)))
        if fault == "shape":
            return log_probs[:, : int(rng.integers(0, 41))], fault
        if fault == "-inf":
            log_probs[frame] = -np.inf
        else:
            log_probs[frame, rng.integers(41)] = {"NaN": np.nan, "> 0": 3.0}[fault]
        return log_probs, fault
    return log_probs, ""


def check(decoder: BeamSearchDecoder, log_probs: np.ndarray, rng: np.random.Generator) -> None:
    """Raise an `AssertionError` when a result does not hold together."""
    found = decoder.decode(log_probs)
    assert 1 <= len(found) <= decoder.num_hypotheses
    assert len({one.text for one in found}) == len(found)
    assert all(a.score >= b.score for a, b in zip(found[:-1], found[1:], strict=True))
    for one in found:
        assert one.text == " ".join(word.text for word in one.words)
        times = [0, *(frame for word in one.words for frame in (word.start_frame, word.end_frame)), len(log_probs)]
        assert times == sorted(times)
        assert all(not word.confidence < 0 and not word.confidence > 1 for word in one.words)
        assert not math.isnan(one.score)
        if not one.complete or math.isinf(one.score) or decoder.hotwords:
            continue
        score = one.acoustic_score + decoder.word_score * len(one.words)
        if decoder.lm is not None:
            assert math.isclose(one.lm_score, decoder.lm.score_sentence(one.text), rel_tol=1e-4, abs_tol=1e-4)
            unknown = sum(word.text not in decoder.lm for word in one.words)
            score += decoder.lm_weight * one.lm_score + (decoder.unknown_word_score or 0.0) * unknown
        assert math.isclose(one.score, score, rel_tol=1e-5, abs_tol=1e-4)
    state, low = decoder.start(), 0
    while low < len(log_probs):
        high = low + int(rng.integers(0, 8))
        decoder.advance(state, log_probs[low:high])
        low = high
        state = (state, state.copy(), DecoderState.from_bytes(state.to_bytes()))[rng.integers(3)]
    assert repr(decoder.finish(state)) == repr(found)


def run(first_seed: int, count: int, per_decoder: int = 20) -> Counter[str]:
    """Run so many cases; every decoder gets several inputs, since making one takes longest."""
    outcomes: Counter[str] = Counter()
    for seed in range(first_seed, first_seed + -(-count // per_decoder)):
        rng = np.random.default_rng(seed)
        lexicon = random_lexicon(rng)
        decoder = BeamSearchDecoder(lexicon, random_lm(rng, lexicon), **random_settings(rng, lexicon))
        for number in range(per_decoder):
            log_probs, fault = random_log_probs(rng)
            try:
                check(decoder, log_probs, rng)
                outcome = "decoded"
            except ValueError as error:
                assert fault and "log_probs" in str(error), f"seed {seed}, case {number}: {error}"
                outcome = f"refused: {fault}"
            except AssertionError as error:
                raise AssertionError(f"seed {seed}, case {number}: {error}") from error
            assert outcome != "decoded" or not fault, f"seed {seed}, case {number}: {fault} was not refused"
            outcomes[outcome] += 1
    return outcomes


def main() -> None:
    """Run, count, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    start = time.process_time()
    outcomes = run(options.seed, options.count)
    result = {"count": sum(outcomes.values()), "seed": options.seed, "outcomes": dict(sorted(outcomes.items()))}
    print(f"written to {save_result('fuzz_decoding', result | {'cpu_s': time.process_time() - start})}")


if __name__ == "__main__":
    main()
