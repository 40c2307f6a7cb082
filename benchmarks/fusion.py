"""Ten noisy decodes of the same sentences: single models, voting, rescoring and the merger beside the oracle.

    python -m benchmarks.fusion --causal_lm FOLDER [--work_dir DIR] [--text corpus.txt.xz]

FOLDER is a model of `examples/train_causal_lm.py` (`examples/configs/causal_lm_small.yaml`). Sentences are the shipped
lists, parted by the sentence's hash: part 0 is scored (and tuned on), parts 1 and 2 train the merger, all others train
the n-gram model; the causal language model must have been trained with `held_out_parts: [0, 1, 2]`. What is made on the
way stays in the working folder, and the same command continues from there.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.common import save_result
from bit_speech.decoding import (
    BeamSearchDecoder,
    CausalLMRescorer,
    Hypothesis,
    Lexicon,
    LLMMerger,
    RescoringWeights,
    build_ngram_lm,
    candidates_from_nbest,
    confusion_network,
    greedy_decode,
    tune_decoder,
)
from bit_speech.decoding.rescoring import score_features
from bit_speech.evaluation import paired_bootstrap, phoneme_error_rate, word_error_rate
from bit_speech.files import write_json
from bit_speech.simulation import load_sentences
from bit_speech.simulation.articulation import NUM_PHONES, SIL_STATE, articulatory_targets
from bit_speech.simulation.text import normalize_sentence, pronounce
from bit_speech.training import NUM_PARTS, read_sentences, select_sentences
from bit_speech.training.merger import merger_trainer
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

NUM_MODELS = 10
LISTS = ("tatoeba", "t12", "t15", "read_speech")
TRAINING_PARTS = (1, 2)
# What the simulated models make of the articulation: noise, the part of it that all share because the recording is the
# same, and how sure they are of themselves. Set so that a model's phoneme error rate is near that of t15-like encoders.
NOISE_SD = 0.25
SHARED_VARIANCE = 0.5
ASSUMED_SD = 0.19
DELETED, INSERTED = 0.025, 0.012


def simulate_posteriors(phonemes: list[str], sentence: int, model: int) -> np.ndarray:
    """Log-probabilities that one of the models gives one sentence.

    Args:
        phonemes: of the sentence, with SIL.
        sentence: number of the sentence; noise that belongs to the recording depends on it alone.
        model: number of the model.

    Returns:
        float32 of shape (frames, 41), model class order.
    """
    targets = np.concatenate([articulatory_targets()[: NUM_PHONES + 1], np.zeros((NUM_PHONES + 1, 1))], axis=1)
    targets[:, -1] = 1.5  # a last dimension tells phonemes from blanks
    blank = np.zeros((1, targets.shape[1]))
    shared, own = np.random.default_rng([7, sentence]), np.random.default_rng([8, sentence, model])
    classes: list[int] = [-1]
    bursts: list[float] = [1.0]
    burst = float(np.exp(0.35 * shared.standard_normal()))
    word = 1.0
    for name in phonemes:
        row = SIL_STATE if name == "SIL" else MODEL_ORDER.index(name) - 1
        frames, gap = 1 + int(shared.random() < 0.4), int(shared.integers(0, 2))
        lost, extra = shared.random(), shared.random()
        if lost < DELETED and name != "SIL":
            row = -1
        elif extra < INSERTED:
            classes += [int(shared.integers(0, NUM_PHONES)), -1]
            bursts += [burst * word] * 2
        classes += [row] * frames + [-1] * gap
        bursts += [burst * word] * (frames + gap)
        if name == "SIL":
            word = 2.0 if shared.random() < 0.12 else 0.9
    centres = np.concatenate([targets, blank])
    clean = centres[classes]
    noise = np.sqrt(SHARED_VARIANCE) * shared.standard_normal(clean.shape)
    noise += np.sqrt(1 - SHARED_VARIANCE) * own.standard_normal(clean.shape)
    seen = clean + NOISE_SD * np.array(bursts)[:, None] * noise
    distance = ((seen[:, None] - centres[None]) ** 2).sum(-1)
    scores = -distance / (2 * ASSUMED_SD**2)
    scores = np.concatenate([scores[:, -1:], scores[:, :-1]], axis=1)
    return (scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)).astype(np.float32)


def choose_sentences(options: argparse.Namespace) -> dict[str, list[str]]:
    """Sentences of 3 to 14 words that can be pronounced: to score, to tune on, to train the merger on."""
    rng = np.random.default_rng(0)
    everything = [normalize_sentence(text) for name in LISTS for text in load_sentences(name)]
    chosen = {}
    for name, parts in (("held_out", (0,)), ("training", TRAINING_PARTS)):
        found = list(dict.fromkeys(select_sentences(everything, parts=parts)))
        found = [text for text in found if 3 <= len(text.split()) <= 14 and pronounce(text)]
        rng.shuffle(found)
        chosen[name] = found
    tuned = options.num_tuning
    return {
        "tuning": chosen["held_out"][:tuned],
        "test": chosen["held_out"][tuned : tuned + options.num_test],
        "training": chosen["training"][: options.num_training],
    }


def make_decoder(options: argparse.Namespace, tuning: list[str]) -> tuple[BeamSearchDecoder, dict[str, Any]]:
    """The word decoder that all models share, with weights tuned on the first model's tuning sentences."""
    kept = sorted(set(range(NUM_PARTS)) - {0, *TRAINING_PARTS})
    text = [normalize_sentence(line) for name in LISTS for line in load_sentences(name)]
    text += [normalize_sentence(line) for path in options.text for line in read_sentences(path)]
    text = select_sentences(text, parts=kept)
    lm = build_ngram_lm(text, order=3)
    lexicon = Lexicon.from_cmudict(words=sorted({word for line in text for word in line.split()}))
    start = BeamSearchDecoder(
        lexicon, lm, beam_size=100, num_hypotheses=10, acoustic_scale=0.4, unknown_word_score=None
    )
    posteriors = [simulate_posteriors(pronounce(line) or [], index, 0) for index, line in enumerate(tuning[:60])]
    greedy = [" ".join(MODEL_ORDER[label] for label in greedy_decode(one)) for one in posteriors]
    per = phoneme_error_rate([" ".join(pronounce(line) or []) for line in tuning[:60]], greedy)
    decoder = tune_decoder(posteriors, tuning[:60], start)
    weights = {name: getattr(decoder, name) for name in ("acoustic_scale", "lm_weight", "word_score", "blank_penalty")}
    facts = {"sentences": len(text), "words": len(lexicon), "greedy_per": float(per), "decoder": weights}
    print(f"n-gram model of {len(text):,} sentences, {len(lexicon):,} words; PER {per}; {weights}", flush=True)
    return decoder, facts


def decode_all(options: argparse.Namespace, sentences: dict[str, list[str]]) -> tuple[dict[str, Any], dict[str, Any]]:
    """N-best lists of every model for every sentence, from the working folder where they are already there."""
    saved = options.work_dir / "nbest.json"
    if saved.is_file():
        stored = json.loads(saved.read_text())
        if stored["sentences"] == sentences:
            return stored["nbest"], stored["facts"]
    decoder, facts = make_decoder(options, sentences["tuning"])
    nbest: dict[str, Any] = {}
    first = 0
    start, frames = time.process_time(), 0
    for name, texts in sentences.items():
        nbest[name] = []
        for index, text in enumerate(texts, start=first):
            lists = []
            for model in range(NUM_MODELS):
                posteriors = simulate_posteriors(pronounce(text) or [], index, model)
                frames += len(posteriors)
                found = decoder.decode(posteriors)
                lists.append([(one.text, one.score, one.acoustic_score, one.lm_score) for one in found])
            nbest[name].append(lists)
        first += len(texts)
        print(f"decoded {name}: {len(texts)} sentences, {time.process_time() - start:.0f} CPU s", flush=True)
    # The same sentences from the mean of the models' log-probabilities: what one gains before the decoder.
    nbest["averaged"] = []
    for index, text in enumerate(sentences["test"], start=len(sentences["tuning"])):
        mean = np.mean([simulate_posteriors(pronounce(text) or [], index, m) for m in range(NUM_MODELS)], axis=0)
        mean -= np.logaddexp.reduce(mean, axis=1, keepdims=True)
        nbest["averaged"].append(decoder.decode(mean)[0].text)
    write_json(saved, {"sentences": sentences, "nbest": nbest, "facts": facts})
    return nbest, facts


def as_hypotheses(lists: list[list[list[Any]]]) -> list[list[Hypothesis]]:
    """N-best lists of one sentence as the decoder gave them."""
    return [[Hypothesis(*map(_number, entry)) for entry in nbest] for nbest in lists]


def _number(value: Any) -> Any:
    return value if isinstance(value, str) else float(value)

