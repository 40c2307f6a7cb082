"""A speech model listens to simulated participants: full, frozen, from scratch, low-rank; beside BIT and the GRU.

    python -m benchmarks.wav2vec2_brain             # the speech body, every missing cell, then the tables
    python -m benchmarks.wav2vec2_brain --seeds 0   # a third of it
    python -m benchmarks.wav2vec2_brain --tables    # only the tables, from the cells that exist
    python -m benchmarks.wav2vec2_brain --speed     # training and latency beside BIT of equal size, on a quiet machine

A cell is one (model, seed): the same simulated participant, the same characters to learn, the same number of epochs and
the same shape of the learning rate for every model. The speech body is a small Wav2Vec2 that has learnt to spell
synthesized speech (needs espeak-ng), from sentences that no participant is asked to say. Scored once on test sentences
that neither training nor the language model has seen. Accuracy on a simulated participant is called that.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, by_name, compact, interval, machine, numbers, run_cells, save_result
from benchmarks.encoders import BIT_NOISE, RECIPES, latency_ms
from bit_speech.files import write_json

NAME = "wav2vec2_brain"
WORK = Path("runs/benchmarks") / NAME
BODY = WORK / "speech_body"
PRESET = "t12-like"
REGIMES = ("full", "frozen", "scratch", "lora")
# Full fine-tuning as published is slower in the body, and waits; here it has the schedule of the others.
SAME_RATE = "full_same_rate"
MODELS = (*REGIMES, "bit", "gru", SAME_RATE)
EPOCHS = 12
BATCH_SIZE = 8
# The published front end, bidirectional, scaled down with the body; one layer is best for a frozen body there.
FRONT_END = {"hidden_size": 64, "num_hidden_layers": 1}
LEARNING_RATE = 2e-3
# As published, a tenth of the front end's rate where a pretrained body learns as a whole; elsewhere the same rate.
BODY_RATE = {"full": LEARNING_RATE / 10, "frozen": LEARNING_RATE, "scratch": LEARNING_RATE, "lora": LEARNING_RATE}
BODY_RATE[SAME_RATE] = LEARNING_RATE
# Published: the body waits 7 of 100 epochs, then its rate grows for 3.
HOLD, RAMP, WARMUP = 0.07, 0.03, 0.05
BIT_CONFIG = {
    "hidden_size": 256, "num_hidden_layers": 5, "num_attention_heads": 4, "intermediate_size": 384,
    "hidden_dropout": 0.2, "attention_dropout": 0.2, "embedding_dropout": 0.2,
}  # fmt: skip
METRICS = ("cer", "wer", "cer_lm", "wer_lm")


def prepare_body() -> None:
    """Teach a small Wav2Vec2 to spell synthesized speech, once."""
    if (BODY / "speech_pretraining.json").exists():
        return
    command = [sys.executable, "examples/pretrain_wav2vec2_speech.py", "--config", "examples/configs/speech_body.yaml"]
    flags = [
        "--output_dir",
        str(BODY),
        "--use_cpu",
        "true",
        "--disable_tqdm",
        "true",
        "--bf16",
        str(has_bf16()).lower(),
    ]
    subprocess.run([*command, *flags], check=True, env={**os.environ, "PYTHONPATH": "."})


def has_bf16() -> bool:
    """Whether the processor is faster with bfloat16."""
    import torch

    return torch.cpu._is_avx512_bf16_supported()


def trials_of(participant: Any, split: str) -> list[dict[str, Any]]:
    """Rows as the trainer takes them, z-scored within each block as the benchmarks' releases are."""
    columns = ("participant_id", "session_id", "block_index", "trial_index", "split", "features", "text")
    rows = [{name: getattr(trial, name) for name in columns} for trial in participant.trials(split)]
    blocks: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in rows:
        blocks.setdefault((row["session_id"], row["block_index"]), []).append(row)
    for members in blocks.values():
        values = np.concatenate([row["features"] for row in members])
        mean, std = values.mean(axis=0), values.std(axis=0) + 1e-6
        for row in members:
            row["features"] = ((row["features"] - mean) / std).astype(np.float32)
    return rows


def build(name: str, participants: dict[str, int], sessions: list[str], tokenizer: Any) -> Any:
    """The model of a cell, with one class for each character."""
    from bit_speech import BITConfig, BITForCTC, BITGRUConfig, BITGRUForCTC
    from bit_speech.training.speech_body import build_speech_model

    classes = {"vocab_size": len(tokenizer), "pad_token_id": tokenizer.blank_token_id}
    if name == "bit":
        return BITForCTC(BITConfig(participants=participants, **BIT_CONFIG, **classes))
    if name == "gru":
        config = BITGRUConfig(participants=participants, sessions=sessions, **RECIPES["gru"].config, **classes)
        return BITGRUForCTC(config)
    settings = {"participants": participants, "sessions": sessions, **FRONT_END}
    return build_speech_model(BODY, "full" if name == SAME_RATE else name, **settings)


def optimizers(name: str, model: Any, steps: int) -> tuple[Any, Any]:
    """Optimizer and schedule: the same shape for every model, a delayed and slower body where all of it learns."""
    from bit_speech.training.speech_body import speech_optimizers

    waits = {"hold_steps": round(HOLD * steps), "ramp_steps": round(RAMP * steps)} if name == "full" else {}
    return speech_optimizers(
        model, LEARNING_RATE, BODY_RATE[name], steps, weight_decay=1e-4, warmup_steps=round(WARMUP * steps), **waits
    )


def run_cell(name: str, seed: int) -> dict[str, Any]:
    """Train and score one model on one participant; the result is also written to disk."""
    import torch
    from transformers import set_seed

    from bit_speech import BITFeatureExtractor, BITProcessor, BITTrainer, BITTrainingArguments, SpellingTokenizer
    from bit_speech.data import Augmentation
    from bit_speech.evaluation import character_error_rate, word_error_rate
    from bit_speech.simulation import SimulatedParticipant

    torch.set_num_threads(1)
    participant = SimulatedParticipant(PRESET, seed=seed)
    train, validation, test = (trials_of(participant, split) for split in ("train", "val", "test"))
    set_seed(seed)
    participants = {train[0]["participant_id"]: train[0]["features"].shape[1]}
    sessions = [] if name == "bit" else list(participant.sessions)
    tokenizer = SpellingTokenizer()
    extractor = BITFeatureExtractor(participants=participants, sessions=sessions, normalization="none")
    processor = BITProcessor(extractor, tokenizer)
    model = build(name, participants, sessions, tokenizer)
    steps = EPOCHS * -(-len(train) // BATCH_SIZE)
    peers = {"learning_rate": 1e-3 if name == "bit" else 3e-3, "weight_decay": 1e-5 if name == "bit" else 1e-3}
    own, noise = {}, BIT_NOISE
    if name in BODY_RATE:
        own["optimizers"] = optimizers(name, model, steps)
    if name == "gru":
        noise, peers = RECIPES["gru"].augmentation, peers | {"max_grad_norm": 5.0}
    trainer = BITTrainer(
        model=model,
        args=BITTrainingArguments(
            output_dir=str(WORK / f"{name}-{seed}"),
            num_train_epochs=EPOCHS,
            per_device_train_batch_size=BATCH_SIZE,
            warmup_steps=WARMUP,
            bf16=has_bf16(),
            eval_strategy="steps",
            eval_steps=0.125,
            save_strategy="no",
            load_best_model_at_end=False,
            logging_steps=50,
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
            **peers,
        ),
        train_dataset=train,
        eval_dataset=validation,
        processing_class=processor,
        augmentation=Augmentation(**noise),
        **own,
    )
    trainer.train()
    trainable = sum(p.numel() for p in trainer.model.parameters() if p.requires_grad)
    if name == "lora":
        trainer.model = trainer.model.merge_and_unload()
    trainer.save_model(str(WORK / f"{name}-{seed}" / "model"))
    scores = {"validation": trainer.predict_log_probs(validation), "test": trainer.predict_log_probs(test)}
    for split, values in scores.items():
        lengths = np.array([len(one) for one in values])
        path = WORK / "log_probs" / f"{name}.{seed}.{split}.npz"
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, values=np.concatenate(values), lengths=lengths)
    texts = [row["text"] for row in test]
    found = [tokenizer.decode_ctc(values.argmax(axis=1)) for values in scores["test"]]
    record = trainer.run_record()
    truth = list(participant.trials("test"))[:50]
    result = {
        "preset": PRESET, "model": name, "seed": seed, "simulator": participant.version, "epochs": EPOCHS,
        "cer": rate(character_error_rate, texts, found), "wer": rate(word_error_rate, texts, found),
        "examples": [[text, heard] for text, heard in zip(texts[:3], found)],
        "training_bins": record["training_bins"], "training_seconds": record["training_seconds"],
        "training_bins_per_s": record["training_bins"] / record["training_seconds"],
        "parameters": sum(p.numel() for p in trainer.model.parameters()), "trainable_parameters": trainable,
        "latency_ms": latency_ms(trainer.model, processor, truth, participant.config.participant_id),
        "validation_curve": [[log["step"], log["eval_per"]] for log in trainer.state.log_history if "eval_per" in log],
    }  # fmt: skip
    write_json(WORK / "cells" / f"{name}.{seed}.json", result)
    return result


def measure_speed(threads: int = 1, rounds: int = 5, steps: int = 2) -> dict[str, Any]:
    """Training and latency of the models in turns, so that whatever else the machine does meets all of them."""
    import torch

    from bit_speech import BITFeatureExtractor, BITProcessor, SpellingTokenizer
    from bit_speech.simulation import SimulatedParticipant

    torch.set_num_threads(threads)
    participant = SimulatedParticipant(PRESET, seed=0)
    trials = trials_of(participant, "test")[: BATCH_SIZE * steps]
    participants = {trials[0]["participant_id"]: trials[0]["features"].shape[1]}
    tokenizer = SpellingTokenizer()
    people, runs = {}, {}
    for name in ("full", "frozen", "lora", "bit", "gru"):
        sessions = [] if name == "bit" else list(participant.sessions)
        extractor = BITFeatureExtractor(participants=participants, sessions=sessions, normalization="none")
        people[name] = BITProcessor(extractor, tokenizer)
        model = build(name, participants, sessions, tokenizer)
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        runs[name] = (model, torch.optim.AdamW(trained, lr=1e-5, fused=True))
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    for turn in range(rounds + 1):
        for name, (model, optimizer) in runs.items():
            model.train()
            bins, start, used = 0, time.perf_counter(), time.process_time()
            for step in range(steps):
                rows = trials[step::steps]
                inputs = people[name](
                    [row["features"] for row in rows], text=[row["text"] for row in rows],
                    session_id=[row["session_id"] for row in rows] if name != "bit" else None, return_tensors="pt",
                )  # fmt: skip
                with torch.autocast("cpu", torch.bfloat16, enabled=has_bf16()):
                    loss = model(**inputs).loss
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()
                bins += sum(len(row["features"]) for row in rows)
            wall, used = time.perf_counter() - start, time.process_time() - used
            if turn:  # the first turn warms up
                found[name].append({"bins_per_s": bins / wall, "bins_per_cpu_s": bins / used})
    rows_of = {}
    heard = list(participant.trials("test"))[:45]
    for name, (model, _) in runs.items():
        row: dict[str, Any] = {key: float(np.median([one[key] for one in found[name]])) for key in found[name][0]}
        ratios = [one["bins_per_cpu_s"] / peer["bins_per_cpu_s"] for one, peer in zip(found[name], found["bit"])]
        row["cpu_speed_beside_bit"] = float(np.median(ratios))
        row["parameters"] = sum(parameter.numel() for parameter in model.parameters())
        row["latency_ms"] = latency_ms(model, people[name], heard, participant.config.participant_id)
        rows_of[name] = row
    return {"threads": threads, "rounds": rounds, "batch_size": BATCH_SIZE, "rows": rows_of}


def rate(measure: Any, references: list[str], found: list[str]) -> dict[str, Any]:
    """A pooled rate with its interval, and the errors of every sentence for paired comparisons."""
    pooled = measure(references, found)
    each = [measure([reference], [one], num_bootstrap=0) for reference, one in zip(references, found)]
    return {
        "rate": pooled.rate, "low": pooled.low, "high": pooled.high,
        "errors": [one.errors for one in each], "lengths": [one.reference_length for one in each],
    }  # fmt: skip


def read_log_probs(name: str, seed: int, split: str) -> list[np.ndarray]:
    """What a cell's model gave for a split."""
    stored = np.load(WORK / "log_probs" / f"{name}.{seed}.{split}.npz")
    return np.split(stored["values"], np.cumsum(stored["lengths"])[:-1])


def score_words() -> None:
    """Decode every cell that lacks it with one word 3-gram, whose text holds no held-out sentence of any seed."""
    from bit_speech import SpellingTokenizer
    from bit_speech.decoding import build_ngram_lm
    from bit_speech.decoding.spelling import SpellingDecoder
    from bit_speech.demo import language_model_sentences
    from bit_speech.evaluation import character_error_rate, normalize_text, word_error_rate
    from bit_speech.simulation import SimulatedParticipant

    paths = [path for path in sorted((WORK / "cells").glob("*.json")) if "wer_lm" not in json.loads(path.read_text())]
    if not paths:
        return
    seeds = sorted({0, 1, 2} | {json.loads(path.read_text())["seed"] for path in paths})
    people = {seed: SimulatedParticipant(PRESET, seed=seed) for seed in seeds}
    texts = {(s, split): [t.text for t in people[s].trials(split)] for s in seeds for split in ("val", "test")}
    sentences = language_model_sentences([text for held_out in texts.values() for text in held_out])
    lm = build_ngram_lm(sentences, order=3)
    tokenizer = SpellingTokenizer()
    words = sorted({word for sentence in sentences for word in sentence.split()})
    classes = {"characters": tokenizer.characters, "num_classes": len(tokenizer), "blank": tokenizer.blank_token_id}
    decoder = SpellingDecoder(words, lm, beam_size=100, **classes)
    for path in paths:
        cell = json.loads(path.read_text())
        name, seed = cell["model"], cell["seed"]
        validation = [normalize_text(text) for text in texts[seed, "val"]]
        tuned = decoder.tuned(read_log_probs(name, seed, "validation"), validation, max_sentences=40)
        found = [nbest[0].text for nbest in tuned.decode_batch(read_log_probs(name, seed, "test"))]
        cell["cer_lm"] = rate(character_error_rate, texts[seed, "test"], found)
        cell["wer_lm"] = rate(word_error_rate, texts[seed, "test"], found)
        weights = ("acoustic_scale", "blank_penalty", "word_score", "lm_weight")
        cell["decoder"] = {key: tuned.search.settings[key] for key in weights} | {"words": len(words)}
        write_json(path, cell)
        print("words:", name, seed, f"WER {100 * cell['wer_lm']['rate']:.1f} %", flush=True)


def analyse(seed: int = 0, sentences: int = 60) -> dict[str, Any]:
    """Compare what enters and leaves the body: test trials of a participant, and the same sentences spoken."""
    import torch
    from transformers import AutoModel

    from bit_speech import BITFeatureExtractor, Wav2Vec2BrainForCTC
    from bit_speech.evaluation.feature_distributions import feature_distance, feature_distribution_figure, feature_map
    from bit_speech.simulation import SimulatedParticipant
    from examples.pretrain_wav2vec2_speech import VOICES, speak

    trials = trials_of(SimulatedParticipant(PRESET, seed=seed), "test")[:sentences]
    audio: dict[str, list[np.ndarray]] = {"before": [], "after": []}
    speech = AutoModel.from_pretrained(BODY).eval()
    for index, trial in enumerate(trials):
        samples = torch.from_numpy(speak(trial["text"], VOICES[index % len(VOICES)], 200))[None]
        with torch.no_grad():
            projected, _ = speech.feature_projection(speech.feature_extractor(samples).transpose(1, 2))
            audio["before"].append(projected[0].numpy())
            audio["after"].append(speech.encoder(projected.clone()).last_hidden_state[0].numpy())
    result: dict[str, Any] = {"sentences": len(trials), "seed": seed}
    for name in REGIMES:
        folder = WORK / f"{name}-{seed}" / "model"
        if not folder.exists():
            continue
        model = Wav2Vec2BrainForCTC.from_pretrained(folder).eval()
        extractor = BITFeatureExtractor.from_pretrained(folder)
        brain: dict[str, list[np.ndarray]] = {"before": [], "after": []}
        for trial in trials:
            inputs = extractor([trial["features"]], session_id=trial["session_id"], return_tensors="pt")
            with torch.no_grad():
                states = model(**inputs, output_hidden_states=True).hidden_states
            for place, values in zip(brain, states):
                brain[place].append(values[0].numpy())
        found = {place: feature_distance(brain[place], audio[place]) for place in brain}
        means = {place: feature_distance(brain[place], audio[place], level="sentence") for place in brain}
        result[name] = {"frames": {place: one.to_dict() for place, one in found.items()},
                        "sentences": {place: one.to_dict() for place, one in means.items()}}  # fmt: skip
        if name == "full":
            planes = {place: feature_map({"brain": brain[place], "speech": audio[place]}) for place in brain}
            image = feature_distribution_figure(planes["before"], planes["after"], found)
            (RESULTS / f"{NAME}_features.png").write_bytes(image)
    return result


def pooled(cells: list[dict], metric: str, others: list[dict] | None = None) -> list[float]:
    """Errors over reference length of all seeds, or that minus other cells' of the same seeds; with a 95 % interval."""
    tables = []
    for index, cell in enumerate(cells):
        minus = numbers(others[index][metric]["errors"]) if others else 0
        tables.append((numbers(cell[metric]["errors"]) - minus, numbers(cell[metric]["lengths"])))
    return interval(tables, np.random.default_rng(0), 2000)


def summarise() -> dict[str, Any]:
    """Collect the cells on disk, and those of an earlier result that are not, into one table."""
    stored = RESULTS / f"{NAME}.json"
    before = json.loads(stored.read_text()) if stored.exists() else {}
    cells = {(cell["model"], cell["seed"]): cell for cell in before.get("cells", [])}
    for path in sorted((WORK / "cells").glob("*.json")):
        cell = json.loads(path.read_text())
        cells[cell["model"], cell["seed"]] = cell
    rows = []
    for name in MODELS:
        found = [cell for (model, _), cell in sorted(cells.items()) if model == name]
        if not found:
            continue
        row: dict[str, Any] = {"model": name, "seeds": [cell["seed"] for cell in found]}
        for metric in METRICS:
            scored = [cell for cell in found if metric in cell]
            if scored:
                row[metric] = pooled(scored, metric)
                row[f"{metric}_by_seed"] = [cell[metric]["rate"] for cell in scored]
        scratch = [cells["scratch", cell["seed"]] for cell in found if ("scratch", cell["seed"]) in cells]
        if name != "scratch" and len(scratch) == len(found):
            row["cer_minus_scratch"] = pooled(found, "cer", scratch)
        for key in ("training_bins_per_s", "training_seconds", "parameters", "trainable_parameters"):
            row[key] = float(np.median([cell[key] for cell in found]))
        row["latency_ms_median"] = float(np.median([cell["latency_ms"]["median"] for cell in found]))
        row["latency_ms_p95"] = float(np.median([cell["latency_ms"]["p95"] for cell in found]))
        rows.append(row)
    record = BODY / "speech_pretraining.json"
    body = json.loads(record.read_text()) if record.exists() else before.get("speech_body")
    if body:
        body["settings"].pop("output_dir", None)
    result = {
        "command": f"python -m benchmarks.{NAME}",
        "what": f"characters of test sentences of {PRESET} simulated participants, {EPOCHS} epochs",
        "published_cer": {"full": 0.1855, "frozen": 0.3446, "scratch": 0.3901},
        "speech_body": body,
        "rows": rows,
        "cells": [cell | {name: compact(cell[name]) for name in METRICS if name in cell} for cell in cells.values()],
        "analysis": before.get("analysis", {}),
        "note": before.get("note", ""),
        "speed": before.get("speed", []),
    }
    if (WORK / "full-0" / "model").exists():
        result["analysis"] = analyse()
    save_result(NAME, result)
    return result


def main() -> None:
    """Run the missing cells and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--processes", type=int, default=max(1, os.cpu_count() or 2), help="cells at once, one thread")
    parser.add_argument("--tables", action="store_true", help="only collect the finished cells")
    parser.add_argument("--speed", action="store_true", help="measure training and latency anew")
    parser.add_argument("--cell", nargs=2, metavar=("MODEL", "SEED"), help="run one cell in this process")
    arguments = parser.parse_args()
    if arguments.cell:
        run_cell(arguments.cell[0], int(arguments.cell[1]))
        return
    if not arguments.tables:
        prepare_body()
    if arguments.speed:
        result = json.loads((RESULTS / f"{NAME}.json").read_text())
        save_result(NAME, result | {"speed": [measure_speed()], "speed_machine": machine()})
        return
    if not arguments.tables:
        # Models innermost, so that a run stopped early has whole comparisons.
        cells = [(model, seed) for seed in arguments.seeds for model in arguments.models]
        missing = [cell for cell in cells if not (WORK / "cells" / f"{cell[0]}.{cell[1]}.json").exists()]

        run_cells(NAME, "--cell", by_name(missing), WORK, arguments.processes)
        score_words()
    for row in summarise()["rows"]:
        shown = [f"{metric} {100 * row[metric][0]:.1f} %" for metric in METRICS if metric in row]
        print(row["model"], row["seeds"], *shown)


if __name__ == "__main__":
    main()
