"""Does pretraining help, and which part of it? Phoneme error rates of a simulated participant with little data.

    python -m benchmarks.pretraining                       # every missing cell (100 core minutes), then the table
    python -m benchmarks.pretraining --seeds 0 --conditions scratch all human
    python -m benchmarks.pretraining --tables              # only the table, from the cells that exist

A cohort is a target participant, six other humans and five monkeys (`benchmarks/pretraining_cohort.py`); a seed is
another cohort with other weights. An encoder is pretrained once per condition and seed, and fine-tuned for attempted
and imagined speech, with the same number of updates whatever it starts from. Test sentences are seen by no training,
labelled or not. Nothing is selected on them: the recipe was chosen on a pilot cohort that is not in the table.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import pretraining_cohort as cohort
from benchmarks.common import RESULTS, numbers, run_cells, save_result
from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from bit_speech.files import write_json

WORK = Path("runs/benchmarks/pretraining")
TASKS = ("attempted", "imagined")
# What each condition is pretrained on. "target" are the target's labelled trials of both tasks, without the labels.
CONDITIONS: dict[str, tuple[str, ...]] = {
    "scratch": (),
    "all": ("target", "humans", "monkeys"),
    "human": ("target", "humans"),
    "human_longer": ("target", "humans"),
    "monkey": ("target", "monkeys"),
    "shuffled": ("target", "humans", "monkeys"),
    "matched": ("target", "humans", "monkeys"),
    "same_participant": ("target", "target_more"),
    "others": ("humans", "monkeys"),
    "all_new_read_in": ("target", "humans", "monkeys"),
    "all_crossings": ("target", "humans", "monkeys"),
    "scratch_masked": (),
    "cross_task": (),
}
# Conditions with more pretraining than the others, by how much: their row is no control, but says what time buys.
LONGER = {"human_longer": 4}
# Conditions that are fine-tuned from the encoder of another, without the target's read-in.
NEW_READ_IN = {"all_new_read_in": "all"}
CURVE = {"scratch": (150, 600, 1000), "all": (150, 600)}


@dataclass(frozen=True)
class Recipe:
    """Every number that is not the simulator's."""

    encoder: dict[str, Any] = field(
        default_factory=lambda: {
            "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 256,
        }
    )  # fmt: skip
    pretraining_bins: float = 5e6
    # Every recording of the cohort has both; the paper's corpus lacks the power of many, hence "all_crossings".
    pretraining_kinds: tuple[str, ...] = (THRESHOLD_CROSSINGS, SPIKE_BAND_POWER)
    pretraining_batch: int = 16
    pretraining_rate: float = 2e-3
    mask_ratio: float = 0.4
    mask_max_span: int = 2
    pretraining_dropout: float = 0.1
    temperature: float = 2.0
    fine_tuning_updates: int = 380
    least_fine_tuning_epochs: int = 12
    fine_tuning_batch: int = 16
    fine_tuning_rate: float = 2e-3
    dropout: float = 0.4
    embedding_dropout: float = 0.2

    def key(self, condition: str) -> str:
        """Short hash of all that a cell depends on: cells of other recipes are never mixed with these."""
        pretrained = bool(CONDITIONS[condition])
        numbers = {
            name: value
            for name, value in asdict(self).items()
            if pretrained or not name.startswith(("pretraining", "mask", "temperature"))
        }
        cohort_numbers = [cohort.ATTEMPTED, cohort.IMAGINED] + ([cohort.OTHERS] if pretrained else [])
        text = json.dumps([numbers, repr(cohort_numbers)], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()

    def updates(self, trials: int) -> int:
        """Updates of a fine-tuning: the same for every condition, and more for many trials."""
        per_epoch = -(-trials // self.fine_tuning_batch)
        return max(self.fine_tuning_updates, self.least_fine_tuning_epochs * per_epoch)


RECIPE = Recipe()


def corpus_of(condition: str, seed: int) -> Any:
    """Build the corpus of a condition from the cohort."""
    from bit_speech.data import CorpusSource, PretrainingCorpus, build_corpus

    shuffled = condition == "shuffled"
    folder = WORK / f"cohort-{seed}{'-shuffled' if shuffled else ''}"
    sources = []
    for part in CONDITIONS[condition]:
        for participant, name, limit in cohort.members(part, seed):
            path = cohort.write_participant(participant, folder / name, limit, shuffle_time=shuffled)
            sources.append(CorpusSource(path))
    kinds = (THRESHOLD_CROSSINGS,) if condition == "all_crossings" else RECIPE.pretraining_kinds
    corpus = PretrainingCorpus(build_corpus(sources, folder / f"corpus-{condition}", feature_kinds=kinds))
    if condition == "matched":
        # As many hours as "human" has, an equal share of every dataset.
        wanted = corpus_of("human", seed).hours / corpus.hours
        keep = [
            position
            for number in range(len(corpus.manifest))
            for position in _share(np.flatnonzero(corpus.dataset_index == number), wanted)
        ]
        corpus = corpus.select(keep)
    return corpus


def _share(positions: np.ndarray, share: float) -> list[int]:
    return positions[np.linspace(0, len(positions) - 1, max(1, round(share * len(positions)))).astype(int)].tolist()


def pretrain(condition: str, seed: int) -> Path:
    """Pretrain the encoder of a condition, once; every condition but those of `LONGER` sees the same number of bins."""
    import torch
    from transformers import set_seed

    from bit_speech.training import BITPretrainer, BITPretrainingArguments
    from configuration_bit.configuration_bit import BITConfig
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling

    output = WORK / f"encoders-{RECIPE.key(condition)}" / f"{condition}.{seed}"
    if (output / "record.json").exists():
        return output
    corpus = corpus_of(condition, seed)
    set_seed(seed)
    dropout = dict.fromkeys(("hidden_dropout", "attention_dropout", "embedding_dropout"), RECIPE.pretraining_dropout)
    bins = RECIPE.pretraining_bins * LONGER.get(condition, 1)
    model = BITForMaskedModeling(
        BITConfig(
            participants=corpus.participants,
            mask_ratio=RECIPE.mask_ratio,
            mask_max_span=RECIPE.mask_max_span,
            **RECIPE.encoder,
            **dropout,
        )
    )
    trainer = BITPretrainer(
        model,
        BITPretrainingArguments(
            output_dir=str(output / "run"),
            max_steps=round(bins / (RECIPE.pretraining_batch * float(corpus.num_bins.mean()))),
            per_device_train_batch_size=RECIPE.pretraining_batch,
            learning_rate=RECIPE.pretraining_rate,
            mixing_temperature=RECIPE.temperature,
            warmup_steps=0.05,
            bf16=torch.cpu._is_avx512_bf16_supported(),
            eval_strategy="no",
            save_strategy="steps",
            save_steps=0.25,
            save_total_limit=1,
            logging_steps=0.1,
            load_best_model_at_end=False,
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
        ),
        corpus,
    )
    trainer.train(resume_from_checkpoint=True if list((output / "run").glob("checkpoint-*")) else None)
    model.save_pretrained(output / "model")
    record = trainer.run_record()
    write_json(
        output / "record.json",
        {
            "hours": corpus.hours,
            "bins": record["training_bins"],
            "seconds": record["training_seconds"],
            "updates": trainer.state.global_step,
            "losses": [log["loss"] for log in trainer.state.log_history if "loss" in log],
        },
    )
    shutil.rmtree(output / "run")
    return output


def fine_tune(condition: str, task: str, trials: int, seed: int) -> tuple[Any, Any]:
    """Train a phoneme model on labelled trials of the target; give the trainer and the result so far."""
    import torch
    from transformers import set_seed

    from bit_speech.data import Augmentation
    from bit_speech.training import BITTrainer, BITTrainingArguments
    from configuration_bit.configuration_bit import BITConfig
    from modeling_bit.modeling_bit import BITForCTC
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling
    from modeling_bit.transfer_bit import load_pretrained_encoder
    from processing_bit.feature_extraction_bit import BITFeatureExtractor
    from processing_bit.processing_bit import BITProcessor
    from processing_bit.tokenization_phoneme import PhonemeTokenizer

    participant = cohort.target(seed, task)
    rows = list(cohort.rows(participant, "train", trials))
    set_seed(seed)
    participants = {cohort.TARGET: participant.config.num_channels}
    processor = BITProcessor(BITFeatureExtractor(participants=participants, normalization="block"), PhonemeTokenizer())
    dropout = {"hidden_dropout": RECIPE.dropout, "attention_dropout": RECIPE.dropout}
    masking = {"mask_ratio": 0.5, "mask_max_span": 5} if condition == "scratch_masked" else {}
    if masking:
        dropout = dict.fromkeys(dropout, 0.1)
    model = BITForCTC(
        BITConfig(
            participants=participants,
            embedding_dropout=0.1 if masking else RECIPE.embedding_dropout,
            **RECIPE.encoder,
            **dropout,
            **masking,
        )
    )
    result: dict[str, Any] = {}
    if CONDITIONS[condition]:
        folder = pretrain(NEW_READ_IN.get(condition, condition), seed)
        result["pretraining"] = json.loads((folder / "record.json").read_text())
        encoder = BITForMaskedModeling.from_pretrained(folder / "model")
        # The crossings are the first half of the channels.
        channels = encoder.config.participants.get(cohort.TARGET)
        known = {cohort.TARGET: range(channels)} if channels not in (None, participants[cohort.TARGET]) else None
        new = [cohort.TARGET] if condition in NEW_READ_IN else []
        result["read_in"] = load_pretrained_encoder(model, encoder, known, new)[cohort.TARGET]
    elif condition == "cross_task":
        source, _ = fine_tune("scratch", "attempted", cohort.ATTEMPTED_TRIALS, seed)
        result["read_in"] = load_pretrained_encoder(model, source.model)[cohort.TARGET]
    trainer = BITTrainer(
        model,
        BITTrainingArguments(
            output_dir=str(WORK / "fine_tuning" / f"{condition}.{task}.{trials}.{seed}"),
            max_steps=RECIPE.updates(len(rows)),
            per_device_train_batch_size=RECIPE.fine_tuning_batch,
            learning_rate=RECIPE.fine_tuning_rate,
            weight_decay=1e-5,
            warmup_steps=0.05,
            bf16=torch.cpu._is_avx512_bf16_supported(),
            eval_strategy="no",
            save_strategy="no",
            load_best_model_at_end=False,
            logging_steps=0.1,
            seed=seed,
            use_cpu=True,
            disable_tqdm=True,
        ),
        rows,
        processing_class=processor,
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )
    trainer.train()
    result["updates"] = trainer.state.global_step
    return trainer, result


def run_cell(condition: str, task: str, trials: int, seed: int) -> dict[str, Any]:
    """Fine-tune and score one cell; the last weights are scored, none are selected."""
    import torch

    from bit_speech.decoding import greedy_decode
    from bit_speech.evaluation import phoneme_error_rate
    from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

    torch.set_num_threads(1)
    start = time.process_time()
    trainer, result = fine_tune(condition, task, trials, seed)
    test = list(cohort.rows(cohort.target(seed, task), "test"))
    found = [
        " ".join(MODEL_ORDER[label] for label in greedy_decode(values)) for values in trainer.predict_log_probs(test)
    ]
    each = [
        phoneme_error_rate([row["phonemes"]], [text], num_bootstrap=0) for row, text in zip(test, found, strict=True)
    ]
    result = {
        "condition": condition,
        "task": task,
        "trials": trials,
        "seed": seed,
        "recipe": RECIPE.key(condition),
        "simulator": cohort.target(seed, task).version,
        **result,
        "cpu_seconds": time.process_time() - start,
        "parameters": trainer.model.num_parameters(),
        # As text, so that a cell stays one line in a file for people.
        "errors": " ".join(str(one.errors) for one in each),
        "lengths": " ".join(str(one.reference_length) for one in each),
    }
    write_json(_cell_path(condition, task, trials, seed), result)
    return result


def _cell_path(condition: str, task: str, trials: int, seed: int) -> Path:
    return WORK / "cells" / f"{condition}.{task}.{trials}.{seed}.{RECIPE.key(condition)}.json"


def wanted_cells(conditions: list[str], tasks: list[str], seeds: list[int]) -> list[tuple[str, str, int, int]]:
    """Cells in the order of their importance: whole comparisons of a seed first, the learning curve last."""
    main_trials = {"attempted": cohort.ATTEMPTED_TRIALS, "imagined": cohort.IMAGINED_TRIALS}
    cells = [
        (condition, task, main_trials[task], seed)
        for seed in seeds
        for condition in conditions
        for task in tasks
        if not (condition == "cross_task" and task == "attempted")
    ]
    if "attempted" in tasks:
        cells += [
            (condition, "attempted", trials, seed)
            for seed in seeds
            for condition in conditions
            for trials in CURVE.get(condition, ())
        ]
    return cells


def read_cells() -> list[dict[str, Any]]:
    """Finished cells of this recipe: those on disk, and those that only the published results still hold."""
    cells = {}
    published = RESULTS / "pretraining.json"
    if published.exists():
        for cell in json.loads(published.read_text(encoding="utf-8"))["cells"]:
            cells[_key(cell)] = cell
    for path in sorted((WORK / "cells").glob("*.json")):
        cell = json.loads(path.read_text(encoding="utf-8"))
        cells[_key(cell)] = cell
    found = [cell for cell in cells.values() if cell["recipe"] == RECIPE.key(cell["condition"])]
    if len(found) < len(cells):
        print(f"{len(cells) - len(found)} cells of other recipes are left out")
    return sorted(found, key=_key)


def _key(cell: dict[str, Any]) -> tuple[str, str, int, int, str]:
    return (cell["condition"], cell["task"], cell["trials"], cell["seed"], cell["recipe"])


def bootstrap(
    cells: list[dict[str, Any]], others: list[dict[str, Any]] | None = None, draws: int = 10000
) -> list[float]:
    """Pooled PER, or its relative change against others, with a 95 % interval.

    Participants are drawn again, and sentences within each; with `others` (the same participants in the same order),
    the same participants and sentences for both.
    """
    rng = np.random.default_rng(0)
    tables = [(numbers(cell["errors"]), numbers(cell["lengths"])) for cell in cells]
    against = [(numbers(cell["errors"]), numbers(cell["lengths"])) for cell in others] if others else tables
    sums = np.empty((draws, 3))
    for draw in range(draws):
        total = np.zeros(3)
        for index in rng.integers(len(tables), size=len(tables)):
            errors, lengths = tables[index]
            chosen = rng.integers(len(errors), size=len(errors))
            total += errors[chosen].sum(), lengths[chosen].sum(), against[index][0][chosen].sum()
        sums[draw] = total
    errors, lengths = (sum(int(table[column].sum()) for table in tables) for column in (0, 1))
    if others is None:
        value, drawn = errors / lengths, sums[:, 0] / sums[:, 1]
    else:
        base = sum(int(table[0].sum()) for table in against)
        value, drawn = errors / base - 1, sums[:, 0] / sums[:, 2] - 1
    return [float(value), float(np.quantile(drawn, 0.025)), float(np.quantile(drawn, 0.975))]


def summarise() -> dict[str, Any]:
    """Put the finished cells into rows, with intervals, and write them with the machine's description."""
    cells = read_cells()
    groups: dict[tuple[str, str, int], dict[int, dict[str, Any]]] = {}
    for cell in cells:
        groups.setdefault((cell["condition"], cell["task"], cell["trials"]), {})[cell["seed"]] = cell
    rows = []
    for (condition, task, trials), by_seed in groups.items():
        found = [by_seed[seed] for seed in sorted(by_seed)]
        row: dict[str, Any] = {
            "task": task, "condition": condition, "trials": trials, "seeds": sorted(by_seed), "per": bootstrap(found),
            "per_by_seed": [float(numbers(c["errors"]).sum() / numbers(c["lengths"]).sum()) for c in found],
            "pretraining_hours": float(np.median([c.get("pretraining", {}).get("hours", 0.0) for c in found])),
            "cpu_seconds": float(np.median([c["cpu_seconds"] for c in found])),
        }  # fmt: skip
        scratch = groups.get(("scratch", task, trials), {})
        both = sorted(set(by_seed) & set(scratch))
        if condition != "scratch" and both:
            row["seeds_compared"] = both
            row["change"] = bootstrap([by_seed[s] for s in both], [scratch[s] for s in both])
            row["scratch_of_these"] = bootstrap([scratch[s] for s in both])
        rows.append(row)
    order = list(CONDITIONS)
    rows.sort(key=lambda row: (row["task"], order.index(row["condition"]), row["trials"]))
    result = {
        "command": "python -m benchmarks.pretraining",
        "what": "PER on test sentences of simulated participants, mean rate over participants and sentences",
        "recipe": asdict(RECIPE),
        "simulator": sorted({cell["simulator"] for cell in cells}),
        "labelled_trials_to_match": trials_to_match(rows),
        "rows": rows,
        "cells": cells,
    }
    save_result("pretraining", result)
    return result


def trials_to_match(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Labelled trials at which "all" reaches what "scratch" reaches with 1,000, along a line in log trials."""
    curve = {
        name: sorted(
            (row["trials"], row["per"][0]) for row in rows if (row["task"], row["condition"]) == ("attempted", name)
        )
        for name in ("scratch", "all")
    }
    goal = dict(curve["scratch"]).get(1000)
    found: dict[str, Any] = {"curves": curve, "goal": goal, "trials": None}
    points = curve["all"]
    for (few, high), (many, low) in zip(points, points[1:]):
        if goal is not None and low <= goal <= high:
            share = (high - goal) / max(high - low, 1e-9)
            found["trials"] = round(float(np.exp(np.log(few) + share * np.log(many / few))))
    return found


def main() -> None:
    """Run the missing cells and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conditions", nargs="+", default=list(CONDITIONS), choices=list(CONDITIONS))
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--no_curve", action="store_true", help="leave out the learning curve")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1, help="conditions at once, one core each")
    parser.add_argument("--tables", action="store_true", help="only collect the finished cells")
    parser.add_argument("--cells", nargs="+", metavar="CONDITION.TASK.TRIALS.SEED", help="run these in this process")
    arguments = parser.parse_args()
    if arguments.cells:
        for name in arguments.cells:
            condition, task, trials, seed = name.split(".")
            cell = run_cell(condition, task, int(trials), int(seed))
            per = numbers(cell["errors"]).sum() / numbers(cell["lengths"]).sum()
            print(f"{name}: PER {100 * per:.1f} %, {cell['cpu_seconds']:.0f} CPU seconds", flush=True)
        return
    if not arguments.tables:
        done = {_key(cell)[:4] for cell in read_cells()}
        cells = wanted_cells(arguments.conditions, arguments.tasks, arguments.seeds)
        main_trials = {cohort.ATTEMPTED_TRIALS, cohort.IMAGINED_TRIALS}
        missing = [
            cell for cell in cells if cell not in done and not (arguments.no_curve and cell[2] not in main_trials)
        ]
        # Cells that share an encoder run one after the other in one process.
        groups: dict[tuple[str, int], list[str]] = {}
        for condition, task, trials, seed in missing:
            groups.setdefault((condition, seed), []).append(f"{condition}.{task}.{trials}.{seed}")
        logs = {names[0]: names for names in groups.values()}
        run_cells("pretraining", "--cells", logs, WORK, arguments.processes)
    result = summarise()
    for row in result["rows"]:
        per = " ".join(f"{100 * value:.1f}" for value in row["per"])
        change = " ".join(f"{100 * value:+.1f}" for value in row["change"]) if "change" in row else ""
        print(f"{row['task']:9} {row['condition']:16} {row['trials']:5} seeds {row['seeds']} PER {per}  {change}")
    print("labelled trials to match scratch at 1,000:", result["labelled_trials_to_match"]["trials"])


if __name__ == "__main__":
    main()
