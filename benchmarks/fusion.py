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
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np

from benchmarks.common import save_result
from bit_speech.decoding import (
    BeamSearchDecoder,
    CausalLMRescorer,
    ConfusionNetwork,
    Hypothesis,
    Lexicon,
    LLMMerger,
    build_ngram_lm,
    candidates_from_nbest,
    confusion_network,
    greedy_decode,
    tune_decoder,
    tune_rescoring,
)
from bit_speech.decoding.tuning import count_word_errors
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


def rescore_all(
    options: argparse.Namespace, nbest: dict[str, Any], texts: dict[str, list[str]], lm_weight: float
) -> tuple[dict[str, Any], dict[str, Any]]:
    """N-best lists after the causal language model, its weights tuned on the first model's tuning lists."""
    saved = options.work_dir / "causal_scores.json"
    scores: dict[str, list[list[list[float]]]] = json.loads(saved.read_text()) if saved.is_file() else {}
    rescorer = CausalLMRescorer.from_pretrained(options.causal_lm, dtype="float32")
    # The first five of each list: what lies behind hardly ever wins and costs as much.
    nbest = {part: [[one[:5] for one in lists] for lists in nbest[part]] for part in ("tuning", "test")}
    for part in ("tuning", "test"):
        if part not in scores:
            scores[part] = []
            for lists in nbest[part]:
                sentences = list(dict.fromkeys(entry[0] for one in lists for entry in one))
                found = dict(zip(sentences, rescorer.score(sentences).tolist(), strict=True))
                scores[part].append([[found[entry[0]] for entry in one] for one in lists])
            write_json(saved, scores)
    first = [as_hypotheses(lists)[0] for lists in nbest["tuning"]]
    weights = tune_rescoring(
        first, [np.array(one[0]) for one in scores["tuning"]], texts["tuning"], lm_weight=lm_weight
    )
    result = {}
    for part in ("tuning", "test"):
        result[part] = []
        for lists, found in zip(nbest[part], scores[part], strict=True):
            rescored = []
            for hypotheses, one in zip(as_hypotheses(lists), found, strict=True):
                totals = weights.combine(hypotheses, np.array(one))
                order = np.argsort(-totals, kind="stable")
                rescored.append([replace(hypotheses[i], score=float(totals[i])) for i in order])
            result[part].append(rescored)
    return result, {"rescoring": weights.to_dict()}


def tune_votes(lists: list[list[list[Hypothesis]]], texts: list[str]) -> float:
    """Scale of the scores that makes n-best voting best on the tuning sentences; the smallest of equals."""
    rates = {}
    for scale in (0.0, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 2.0):
        voted = [confusion_network(candidates_from_nbest(one, score_scale=scale)).best() for one in lists]
        rates[scale] = word_error_rate(texts, voted, num_bootstrap=0).rate
    return min(rates, key=lambda scale: (rates[scale], scale))


def train_merger(
    options: argparse.Namespace, stage: str, merger: LLMMerger, candidates: list[list[str]], texts: list[str]
) -> LLMMerger:
    """One stage of training, from the working folder where it was done before."""
    folder = options.work_dir / f"merger_{stage}"
    if not (folder / "merger_config.json").is_file():
        settings = {
            "sft": {"learning_rate": 1e-3, "num_train_epochs": options.sft_epochs},
            "dpo": {"learning_rate": 1e-5, "num_train_epochs": 1, "beta": 0.1},
        }[stage]
        trainer = merger_trainer(
            stage, merger, candidates, texts, output_dir=str(options.work_dir / f"{stage}_run"), seed=0,
            per_device_train_batch_size=16, lr_scheduler_type="cosine", warmup_steps=0.05, logging_steps=20,
            save_strategy="no", report_to="none", use_cpu=not options.gpu, bf16=options.bf16,
            gradient_checkpointing=False, **settings,
        )  # fmt: skip
        trainer.train()
        merger.model = trainer.model
        merger.save_pretrained(folder)
    return LLMMerger.from_pretrained(str(folder), dtype="float32", device="cuda" if options.gpu else "cpu")


def tune_choice(
    merger: LLMMerger, candidates: list[list[str]], networks: list[ConfusionNetwork], texts: list[str]
) -> None:
    """Set the merger's weight of the votes to the best on the tuning sentences; the smallest of equals."""
    weighed = merger.weigh_up(candidates, networks)
    rates = {}
    for weight in (0.0, 0.1, 0.2, 0.5, 1.0, 1.5, 2.0, 3.0, 5.0, 8.0, 12.0, 20.0):
        chosen = [options[int(np.argmax(scores + weight * votes))] for options, scores, votes in weighed]
        rates[weight] = word_error_rate(texts, chosen, num_bootstrap=0).rate
    merger.vote_weight = min(rates, key=lambda weight: (rates[weight], weight))


def closest(sentences: list[str], text: str) -> str:
    """The sentence with fewest word errors, the first of equals."""
    return min(sentences, key=lambda sentence: count_word_errors(text.split(), sentence.split()))


def run_systems(
    options: argparse.Namespace, nbest: dict[str, Any], texts: dict[str, list[str]], lm_weight: float
) -> tuple[dict[str, list[str]], dict[str, Any]]:
    """Sentences of every system for the test part; everything that is tuned is tuned on the tuning part."""
    facts: dict[str, Any] = {}
    lists = {part: [as_hypotheses(one) for one in nbest[part]] for part in ("tuning", "test")}
    firsts = {part: [[one[0][0] for one in lists] for lists in nbest[part]] for part in ("tuning", "test", "training")}
    on_tuning = [
        word_error_rate(texts["tuning"], [row[m] for row in firsts["tuning"]], num_bootstrap=0).rate
        for m in range(NUM_MODELS)
    ]
    best = int(np.argmin(on_tuning))
    found: dict[str, list[str]] = {f"model {m}": [row[m] for row in firsts["test"]] for m in range(NUM_MODELS)}
    found["best single model"] = found[f"model {best}"]
    found["vote"] = [confusion_network(row).best() for row in firsts["test"]]
    scale = tune_votes(lists["tuning"], texts["tuning"])
    networks = {
        part: [confusion_network(candidates_from_nbest(one, score_scale=scale)) for one in lists[part]]
        for part in ("tuning", "test")
    }
    found["vote on n-best lists"] = [network.best() for network in networks["test"]]
    rescored, more = rescore_all(options, nbest, texts, lm_weight)
    facts |= {"n_best_score_scale": scale, **more}
    found["best single model, rescored"] = [one[best][0].text for one in rescored["test"]]
    found["vote after rescoring"] = [confusion_network([x[0].text for x in one]).best() for one in rescored["test"]]
    scale = tune_votes(rescored["tuning"], texts["tuning"])
    facts["rescored_score_scale"] = scale
    rescored_networks = {
        part: [confusion_network(candidates_from_nbest(one, score_scale=scale)) for one in rescored[part]]
        for part in ("tuning", "test")
    }
    found["vote on rescored n-best lists"] = [network.best() for network in rescored_networks["test"]]
    merger = LLMMerger.from_pretrained(options.causal_lm, instruction="", dtype="float32")
    for stage in ("sft", "dpo"):
        start = time.process_time()
        number = len(texts["training"]) if stage == "sft" else options.num_pairs
        merger = train_merger(options, stage, merger, firsts["training"][:number], texts["training"][:number])
        name = {"sft": "merger (SFT)", "dpo": "merger (SFT, DPO)"}[stage]
        found[f"{name}, free"] = merger.merge(firsts["test"])
        tune_choice(merger, firsts["tuning"], networks["tuning"], texts["tuning"])
        found[f"{name}, among the network's sentences"] = merger.choose(firsts["test"], networks["test"])
        weights = {"vote_weight": merger.vote_weight}
        tune_choice(merger, firsts["tuning"], rescored_networks["tuning"], texts["tuning"])
        found[f"{name}, among the rescored network's"] = merger.choose(firsts["test"], rescored_networks["test"])
        weights["vote_weight_rescored"] = merger.vote_weight
        facts[name] = {**weights, "cpu_s": time.process_time() - start}
        print(name, facts[name], flush=True)
    found["mean of the log-probabilities before decoding"] = nbest["averaged"]
    found["oracle: best of the ten"] = [closest(row, text) for row, text in zip(firsts["test"], texts["test"])]
    found["oracle: best of all n-best lists"] = [
        closest([hypothesis.text for nbest in one for hypothesis in nbest], text)
        for one, text in zip(lists["test"], texts["test"])
    ]
    return found, facts


def perplexity(causal_lm: str) -> str:
    """What the model's training script found, beside or above the model."""
    for folder in (Path(causal_lm), Path(causal_lm).parent):
        if (folder / "perplexity.json").is_file():
            return f"{json.loads((folder / 'perplexity.json').read_text())['perplexity_per_word_and_end']:.0f}"
    return "unknown"


def main() -> None:
    """Make the data, train the merger, score everything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--causal_lm", required=True, help="folder of a model of examples/train_causal_lm.py")
    parser.add_argument("--text", nargs="*", default=[], help="further text for the n-gram model, a sentence per line")
    parser.add_argument("--work_dir", type=Path, default=Path("runs/fusion_benchmark"))
    parser.add_argument("--num_tuning", type=int, default=200)
    parser.add_argument("--num_test", type=int, default=400)
    parser.add_argument("--num_training", type=int, default=4000)
    parser.add_argument("--sft_epochs", type=float, default=4)
    parser.add_argument("--num_pairs", type=int, default=1000, help="training sentences that DPO takes its pairs from")
    parser.add_argument("--bf16", action="store_true", help="train in bfloat16; faster where the processor knows it")
    parser.add_argument("--gpu", action="store_true", help="train and run the merger on CUDA")
    options = parser.parse_args()
    options.work_dir.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    texts = choose_sentences(options)
    nbest, facts = decode_all(options, texts)
    found, more = run_systems(options, nbest, texts, facts["decoder"]["lm_weight"])
    references = texts["test"]
    rows = []
    for name, sentences in found.items():
        rate = word_error_rate(references, sentences)
        difference = paired_bootstrap(references, sentences, found["vote"])
        beside = paired_bootstrap(references, sentences, found["vote on rescored n-best lists"])
        rows.append(
            {
                "system": name, "wer": rate.to_dict(), "minus_vote": difference.to_dict(),
                "minus_rescored_vote": beside.to_dict(),
            }
        )  # fmt: skip
        points = [
            100 * value for value in (difference.difference, difference.difference_low, difference.difference_high)
        ]
        print(f"{name:50s} WER {rate}, minus vote {points[0]:+.2f} [{points[1]:+.2f}, {points[2]:+.2f}]", flush=True)
    best = paired_bootstrap(references, found["vote"], found["best single model"])
    result = {
        "command": (
            f"python -m benchmarks.fusion --causal_lm FOLDER --num_training {options.num_training} --sft_epochs "
            f"{options.sft_epochs:g} --num_pairs {options.num_pairs}{' --bf16' if options.bf16 else ''}"
        ),
        "what": (
            f"{NUM_MODELS} simulated models on the same {len(references)} held-out sentences (articulatory confusions, "
            f"{SHARED_VARIANCE:.0%} of the noise variance shared), one decoder; merger trained on "
            f"{len(texts['training'])} others, {options.sft_epochs:g} times over, {options.num_pairs} for DPO; "
            f"the causal model's perplexity per word on held-out text is {perplexity(options.causal_lm)}"
        ),
        "rows": rows,
        "vote_minus_best_single": best.to_dict(),
        "facts": {**facts, **more, "seconds": time.perf_counter() - start},
    }
    print(f"written to {save_result('fusion', result)}")


if __name__ == "__main__":
    main()
