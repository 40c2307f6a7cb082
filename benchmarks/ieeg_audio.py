"""Minutes to days on simulated patients: does pretraining on ambient sound help a task, and what does it depend on?

    python -m benchmarks.ieeg_audio                    # every missing cell (about 25 core minutes), then the table
    python -m benchmarks.ieeg_audio --groups main      # some of them
    python -m benchmarks.ieeg_audio --tables           # only the table, from the cells that exist

Three simulated patients (seeds 1 to 3 of the simulator) with weights of three seeds each. A cell is one patient, seed
and group of conditions, and is a file; a run that was stopped goes on. Training, validation and test are different
recording files. Nothing is selected on the test files: recipe and signal-to-noise ratio were chosen on patient 0, who
is not in the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from benchmarks.common import save_result
from bit_speech.data.aligned_segments import WindowSet, join_windows, make_windows, take_hours
from bit_speech.data.audio_features import LogMelFeatures, window_means
from bit_speech.evaluation.retrieval import (
    Ranks,
    date_decodability,
    fit_scaling,
    paired_permutation_test,
    retrieval_ranks,
    score_ranks,
    shift_windows,
    shuffle_channels,
)
from bit_speech.files import write_json
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from bit_speech.training.ieeg_audio_trainer import IEEGAudioTrainer, IEEGAudioTrainingArguments
from configuration_bit import IEEGAudioConfig
from modeling_bit import IEEGAudioForRetrieval
from processing_bit import IEEGAudioProcessor, IEEGFeatureExtractor

WORK = Path("runs/benchmarks/ieeg_audio")
PATIENTS = (1, 2, 3)
SEEDS = (0, 1, 2)
GROUPS = ("main", "ideal", "turned", "drift", "several", "sizes", "linear", "joint", "targets", "regions")
REGION_KNOWN = 0.8  # share of the channels whose region says whether they hear anything
CHANNELS = 24
SIZES = (1 / 12, 1 / 4, 1 / 2)  # shares of the twelve training files; the whole is in "main"
CONDITIONS = ("ambient", "clean_in_room", "clean")
BLOCK_S = 60.0
ALSO = ("ambient_speech", "ambient_same_day", "ambient_cross_day", "channels_shuffled", "time_shifted")
# Results by patient and seed.
Cells = dict[tuple[int, int], dict[str, Any]]


@dataclass(frozen=True)
class Recipe:
    """Every number that is not the simulator's."""

    encoder: dict[str, Any] = field(
        default_factory=lambda: {
            "initial_size": 24, "hidden_size": 40, "num_hidden_layers": 4, "dilation_period": None,
            "output_layers": "narrow_last", "output_size": 40, "pool_size": 32, "dropout": 0.1,
        }
    )  # fmt: skip
    batch: int = 64
    pretraining_updates: int = 200
    task_updates: int = 100
    finetuning_updates: int = 60
    rate: float = 1e-3
    finetuning_rate: float = 3e-4
    weight_decay: float = 0.05


RECIPE = Recipe()


def patient(number: int, turn: float = 0.0) -> SimulatedPatient:
    """One of the patients: 80 minutes of ambient sound over four days, 30 minutes of an audiobook."""
    config = ContinuousConfig(
        participant_id=f"s{number}", num_channels=CHANNELS, num_days=4, files_per_day=4, file_s=300.0, task_files=6,
        signal_to_noise=2.0, task_turn=turn,
    )  # fmt: skip
    return SimulatedPatient(config, seed=number)


def windows(number: int, features: str = "log_mel", turn: float = 0.0) -> WindowSet:
    """All windows of a patient; made once and kept."""
    folder = WORK / f"windows_s{number}" / (f"turned_{turn:g}" if turn else "plain")
    if not (folder / "ideal.npy").is_file():
        simulated, parts, ideal = patient(number, turn), [], []
        for name in simulated.splits:
            parts.append(make_windows(simulated.segments(name), LogMelFeatures()))
            for condition in ("clean", "clean_in_room") if name.startswith("task") else ("ambient",):
                frames = simulated.ideal_speech_features(name, condition)
                ideal.append(window_means(frames, 100.0, 3.0, len(parts[-1].where(condition=condition))))
        join_windows(parts).save(folder)
        np.save(folder / "ideal.npy", np.concatenate(ideal))
    found = WindowSet.load(folder)
    if features == "ideal":
        found.targets = np.load(folder / "ideal.npy")
    return found


def train(
    sets: list[WindowSet],
    seed: int,
    updates: int,
    start: IEEGAudioTrainer | None = None,
    normalization: str = "fixed",
    places: dict[str, Any] | None = None,
    **model: Any,
) -> IEEGAudioTrainer:
    """Train a new model, or finetune the one of another run."""
    set_seed(seed)
    more: dict[str, Any] = {}
    if start is None:
        participants = {str(part.participant[0]): part.ieeg.shape[2] for part in sets}
        sessions = sorted({str(name) for part in sets for name in part.session})
        extractor = IEEGFeatureExtractor(participants, sessions, normalization=normalization, **(places or {}))
        if normalization == "fixed":
            extractor.fit({str(part.participant[0]): [part.ieeg.reshape(-1, CHANNELS)] for part in sets})
        processor = IEEGAudioProcessor(extractor)
        processor.fit_targets(np.concatenate([part.targets for part in sets]))
        width = sets[0].targets.shape[1]
        config = {
            **RECIPE.encoder,
            "participants": participants,
            "sessions": sessions,
            "embedding_size": width,
            **model,
        }
        network = IEEGAudioForRetrieval(IEEGAudioConfig(**config))
    else:
        processor, network = start.processor, IEEGAudioForRetrieval(start.model.config)
        network.load_state_dict(start.model.state_dict())
        more = {"finetune_mode": "full", "head_learning_rate": RECIPE.rate}
    arguments = IEEGAudioTrainingArguments(
        output_dir=str(WORK / "trainer"), max_steps=updates, per_device_train_batch_size=RECIPE.batch, seed=seed,
        learning_rate=RECIPE.rate if start is None else RECIPE.finetuning_rate, weight_decay=RECIPE.weight_decay,
        warmup_steps=0.1, eval_strategy="no", save_strategy="no", load_best_model_at_end=False, use_cpu=True,
        disable_tqdm=True, logging_steps=10**6, **more,
    )  # fmt: skip
    trainer = IEEGAudioTrainer(network, arguments, processor, sets)
    trainer.train()
    return trainer


def ranks_of(trainer: IEEGAudioTrainer, test: WindowSet, pool: str = "all", target: str = "audio") -> Ranks:
    """Ranks of test windows among their candidates."""
    return retrieval_ranks(trainer.embed(test, target), trainer.wanted(test, target), test.session, pool)


def score(trainer: IEEGAudioTrainer, test: WindowSet, pool: str = "all", target: str = "audio") -> dict[str, Any]:
    """Scores, and the ranks themselves for paired tests."""
    ranks = ranks_of(trainer, test, pool, target)
    return {**score_ranks(ranks, blocks_of(test)).to_dict(), "ranks": [round(float(r), 5) for r in ranks.relative]}


def blocks_of(test: WindowSet) -> list[str]:
    """Minutes of a file, which are resampled and swapped as a whole."""
    return [f"{name}/{int(start // BLOCK_S)}" for name, start in zip(test.file, test.start_s, strict=True)]


def zero_shot(trainer: IEEGAudioTrainer, data: WindowSet) -> dict[str, Any]:
    """A pretrained model on the test files of every condition."""
    return {name: score(trainer, data.where(split="test", condition=name)) for name in CONDITIONS}


def main_group(number: int, seed: int, features: str = "log_mel", turn: float = 0.0, **model: Any) -> dict[str, Any]:
    """Task only, pretrained without and with finetuning, and controls blind to the signal."""
    data = windows(number, features, turn)
    task, test = data.where(split="train", condition="clean"), data.where(split="test", condition="clean")
    pretrained = train([data.where(split="train", condition="ambient")], seed, RECIPE.pretraining_updates, **model)
    ambient = data.where(split="test", condition="ambient")
    speech, blocks = ambient.speech >= 0.5, np.array(blocks_of(ambient))
    result = {
        "hours": pretrained.train_dataset.sets[0].hours,
        "task_minutes": 60 * task.hours,
        "zero_shot": zero_shot(pretrained, data),
        "ambient_speech": score_ranks(ranks_of(pretrained, ambient).select(speech), blocks[speech]).to_dict(),
        "ambient_same_day": score_ranks(ranks_of(pretrained, ambient, "same"), blocks).to_dict(),
        "ambient_cross_day": score_ranks(ranks_of(pretrained, ambient, "cross"), blocks).to_dict(),
        "finetuned": score(train([task], seed, RECIPE.finetuning_updates, start=pretrained), test),
        "task_only": score(train([task], seed, RECIPE.task_updates, **model), test),
    }  # fmt: skip
    shuffled = ambient.select(np.arange(len(ambient)))
    shuffled.ieeg = shuffle_channels(ambient.ieeg, seed)
    shifted = ambient.select(np.arange(len(ambient)))
    shifted.ieeg = ambient.ieeg[shift_windows(ambient.file, 33)]
    return result | {"channels_shuffled": score(pretrained, shuffled), "time_shifted": score(pretrained, shifted)}


def sizes_group(number: int, seed: int) -> dict[str, Any]:
    """Pretraining on less, with the same number of updates."""
    data = windows(number)
    ambient, task = data.where(split="train", condition="ambient"), data.where(split="train", condition="clean")
    found = {}
    for share in SIZES:
        part = take_hours(ambient, share * ambient.hours)
        trained = train([part], seed, RECIPE.pretraining_updates)
        tuned = train([task], seed, RECIPE.finetuning_updates, start=trained)
        finetuned = score(tuned, data.where(split="test", condition="clean"))
        found[f"{share:.3f}"] = {"hours": part.hours, "zero_shot": zero_shot(trained, data), "finetuned": finetuned}
    return found


def drift_group(number: int, seed: int) -> dict[str, Any]:
    """The last day is never trained on: what helps across days, and can the date still be read?"""
    data = windows(number)
    ambient = data.where(condition="ambient")
    last = sorted(set(ambient.session.tolist()))[-1]
    before = ambient.select((ambient.session != last) & (ambient.split == "train"))
    held_out = ambient.select(ambient.session == last)
    known = ambient.select((ambient.session != last) & (ambient.split != "train"))
    ways: dict[str, dict[str, Any]] = {
        "nothing": {},
        "running": {"normalization": "running"},
        "day_layer": {"session_layer": True, "session_dropout": 0.3},
        "adversary": {"day_adversary_weight": 0.3},
    }
    found = {}
    for name, settings in ways.items():
        trained = train([before], seed, RECIPE.pretraining_updates, **settings)
        everything = join_windows([known, held_out, before])
        dates = [int(str(session)[-1]) for session in everything.session]
        found[name] = {
            "new_day": score(trained, held_out),
            "known_days": score(trained, known),
            "date_r": date_decodability(trained.embed(everything), dates, everything.file),
        }
    dates = [int(str(session)[-1]) for session in ambient.session]
    found["audio"] = {"date_r": date_decodability(ambient.targets, dates, ambient.file)}
    return found


def several_group(number: int, seed: int) -> dict[str, Any]:
    """One model for all patients, beside one for each with the same number of updates on the patient, or in all."""
    if number != PATIENTS[0]:
        return {}
    everyone = [windows(index) for index in PATIENTS]
    ambient = [data.where(split="train", condition="ambient") for data in everyone]
    together = train(ambient, seed, len(PATIENTS) * RECIPE.pretraining_updates)
    found = {}
    for index, data, own in zip(PATIENTS, everyone, ambient, strict=True):
        test = data.where(split="test", condition="ambient")
        alone = train([own], seed, RECIPE.pretraining_updates)
        longer = train([own], seed, len(PATIENTS) * RECIPE.pretraining_updates)
        found[f"s{index}"] = {
            "together": score(together, test), "alone": score(alone, test), "alone_longer": score(longer, test),
        }  # fmt: skip
    return found


def targets_group(number: int, seed: int) -> dict[str, Any]:
    """Spectrum and idealised speech features in one loss, beside each alone; scored on both, ambient and finetuned."""
    data, ideal = windows(number), windows(number, "ideal").targets
    width = data.targets.shape[1]
    data.targets = np.concatenate([data.targets, ideal], axis=1)
    alone = {"log_mel": windows(number), "ideal": windows(number, "ideal")}
    ambient = {"split": "train", "condition": "ambient"}
    both = {"embedding_size": width, "extra_targets": {"speech": ideal.shape[1]}}
    found: dict[str, Any] = {}
    joint = train([data.where(**ambient)], seed, RECIPE.pretraining_updates, **both)
    for name, target in (("log_mel", "audio"), ("ideal", "speech")):
        single = train([alone[name].where(**ambient)], seed, RECIPE.pretraining_updates)
        found[name] = {
            condition: {
                "joint": score(joint, data.where(split="test", condition=condition), target=target),
                "alone": score(single, alone[name].where(split="test", condition=condition)),
            }
            for condition in CONDITIONS
        }
    return found


def regions_of(number: int) -> list[str]:
    """A region for each channel: it says whether the channel hears anything, except in a fifth of the channels."""
    rng = np.random.default_rng([number, 17])
    responsive = patient(number)._responsive
    told = np.where(rng.random(CHANNELS) < REGION_KNOWN, responsive, rng.random(CHANNELS) < responsive.mean())
    names = np.array([["cuneus", "precuneus", "insula"], ["superiortemporal", "transversetemporal", "bankssts"]])
    return [str(names[int(hears), rng.integers(3)]) for hears in told]


def regions_group(number: int, seed: int) -> dict[str, Any]:
    """All patients through one read-in: by place, by place and region, and by one convolution for each."""
    if number != PATIENTS[0]:
        return {}
    everyone = {f"s{index}": windows(index) for index in PATIENTS}
    places = {
        "channel_positions": {f"s{index}": patient(index).channel_positions.tolist() for index in PATIENTS},
        "channel_regions": {f"s{index}": regions_of(index) for index in PATIENTS},
    }
    places["regions"] = sorted({name for names in places["channel_regions"].values() for name in names})
    ways: dict[str, dict[str, Any]] = {
        "own": {},
        "place": {"read_in": "position"},
        "place_and_region": {"read_in": "position", "regions": places["regions"]},
    }
    updates = len(PATIENTS) * RECIPE.pretraining_updates
    ambient = [data.where(split="train", condition="ambient") for data in everyone.values()]
    found: dict[str, Any] = {name: {} for name in everyone}
    for way, model in ways.items():
        trained = train(ambient, seed, updates, places=places, **model)
        for name, data in everyone.items():
            found[name][way] = score(trained, data.where(split="test", condition="ambient"))
    return found


def joint_group(number: int, seed: int) -> dict[str, Any]:
    """Ambient and clean sound in one training, without a second stage."""
    data = windows(number)
    mixed = data.select((data.split == "train") & np.isin(data.condition, ["ambient", "clean"]))
    return zero_shot(train([mixed], seed, RECIPE.pretraining_updates + RECIPE.finetuning_updates), data)


RUN: dict[str, Callable[[int, int], dict[str, Any]]] = {
    "main": main_group,
    "ideal": lambda number, seed: main_group(number, seed, "ideal"),
    "turned": lambda number, seed: main_group(number, seed, turn=1.4),
    "sizes": sizes_group,
    "drift": drift_group,
    "several": several_group,
    "joint": joint_group,
    "targets": targets_group,
    "regions": regions_group,
    "linear": lambda number, seed: main_group(number, seed, encoder_type="linear"),
}


def run_cell(group: str, number: int, seed: int) -> None:
    """Run a cell unless it is there."""
    path = WORK / "cells" / f"{group}-s{number}-{seed}.json"
    if path.is_file():
        return
    started = time.process_time()
    result = RUN[group](number, seed)
    write_json(path, {**result, "cpu_s": round(time.process_time() - started, 1)})
    print(f"{path.stem}: {time.process_time() - started:.0f} s of CPU", flush=True)


def read_cells(group: str) -> Cells:
    """The finished cells of a group, by patient and seed."""
    found = {}
    for path in sorted((WORK / "cells").glob(f"{group}-s*-*.json")):
        _, number, seed = path.stem.split("-")
        found[int(number[1:]), int(seed)] = json.loads(path.read_text(encoding="utf-8"))
    return found


def summary(entries: Cells) -> dict[str, Any]:
    """Mean over cells, by patient, spread; and an interval from resampling patients, then seeds."""
    values = {key: entry["mean_relative_rank"] for key, entry in entries.items()}
    patients = sorted({number for number, _ in values})
    by_patient = {number: [value for (owner, _), value in values.items() if owner == number] for number in patients}
    rng = np.random.default_rng(0)
    means = []
    for _ in range(2000):
        chosen = rng.choice(patients, len(patients))
        means.append(np.mean([np.mean(rng.choice(by_patient[number], len(by_patient[number]))) for number in chosen]))
    first = next(iter(entries.values()))
    return {
        "rank": [float(np.mean(list(values.values()))), *map(float, np.quantile(means, [0.025, 0.975]))],
        "by_patient": [float(np.mean(by_patient[number])) for number in patients],
        "top_1": float(np.mean([entry["top_1"] for entry in entries.values()])),
        "top_10": float(np.mean([entry["top_10"] for entry in entries.values()])),
        "chance_top_10": first["chance_top_10"],
        "num_candidates": first["num_candidates"],
        "num_windows": first["num_windows"],
        "cells": len(entries),
    }


def compare(first: Cells, second: Cells) -> dict[str, Any]:
    """Paired test on the same windows: ranks averaged over seeds, minutes of all patients swapped."""
    shared = sorted(set(first) & set(second))
    one, two, blocks = [], [], []
    for number in sorted({owner for owner, _ in shared}):
        keys = [key for key in shared if key[0] == number]
        mean = [np.mean([side[key]["ranks"] for key in keys], axis=0) for side in (first, second)]
        one.append(mean[0])
        two.append(mean[1])
        # Test windows lie in order of time, 20 a minute, files of whole minutes.
        blocks += [f"{number}/{index // round(BLOCK_S / 3)}" for index in range(len(mean[0]))]
    test = paired_permutation_test(np.concatenate(one), np.concatenate(two), blocks)
    wins = sum(first[key]["mean_relative_rank"] < second[key]["mean_relative_rank"] for key in shared)
    counts = {"blocks": test.num_blocks, "cells": len(shared), "wins": wins}
    return {"difference": test.difference, "p_value": test.p_value, **counts}


def collect() -> dict[str, Any]:
    """Everything that the cells say so far."""

    def take(cells: Cells, *path: str) -> Cells:
        found = {}
        for key, entry in cells.items():
            for name in path:
                entry = entry[name]
            found[key] = entry
        return found

    result: dict[str, Any] = {"command": "python -m benchmarks.ieeg_audio", "rows": {}, "tests": {}}
    for group in ("main", "ideal", "turned", "linear"):
        cells = read_cells(group)
        if not cells:
            continue
        result["rows"][group] = {
            "task_only": summary(take(cells, "task_only")),
            **{f"zero_shot_{name}": summary(take(cells, "zero_shot", name)) for name in CONDITIONS},
            "finetuned": summary(take(cells, "finetuned")),
            **{name: summary(take(cells, name)) for name in ALSO},
        }  # fmt: skip
        result["tests"][group] = compare(take(cells, "finetuned"), take(cells, "task_only"))
        first = next(iter(cells.values()))
        result["hours"], result["task_minutes"] = first["hours"], first["task_minutes"]
    sizes, main_cells = read_cells("sizes"), read_cells("main")
    shared = sorted(set(sizes) & set(main_cells))
    if shared:
        result["sizes"] = {}
        for what in (("zero_shot", "ambient"), ("zero_shot", "clean"), ("finetuned",)):
            rows = [summary(take({key: sizes[key] for key in shared}, f"{share:.3f}", *what)) for share in SIZES]
            rows.append(summary(take({key: main_cells[key] for key in shared}, *what)))
            hours = [sizes[shared[0]][f"{share:.3f}"]["hours"] for share in SIZES] + [main_cells[shared[0]]["hours"]]
            runs = [[take({key: sizes[key]}, f"{share:.3f}", *what)[key]["mean_relative_rank"] for share in SIZES]
                    + [take({key: main_cells[key]}, *what)[key]["mean_relative_rank"]] for key in shared]  # fmt: skip
            fit = fit_scaling(hours, np.array(runs))
            result["sizes"]["_".join(what)] = {
                "hours": hours, "rank": [row["rank"][0] for row in rows], "cells": len(shared),
                "slope": [fit.slope, fit.low, fit.high], "r2": fit.r2,
            }  # fmt: skip
    drift = read_cells("drift")
    if drift:
        result["drift"] = {}
        for name in ("nothing", "running", "day_layer", "adversary"):
            new = take(drift, name, "new_day")
            result["drift"][name] = {
                "new_day": summary(new),
                "known_days": summary(take(drift, name, "known_days")),
                "date_r": float(np.mean([cell[name]["date_r"] for cell in drift.values()])),
            }
            if name != "nothing":
                result["drift"][name]["test"] = compare(new, take(drift, "nothing", "new_day"))
        result["audio_date_r"] = float(np.mean([cell["audio"]["date_r"] for cell in drift.values()]))
    several = {
        (index, seed): cell[f"s{index}"]
        for (_, seed), cell in read_cells("several").items() if f"s{PATIENTS[0]}" in cell for index in PATIENTS
    }  # fmt: skip
    if several:
        result["several"] = {name: summary(take(several, name)) for name in ("together", "alone", "alone_longer")}
        for name in ("alone", "alone_longer"):
            result["several"][f"test_{name}"] = compare(take(several, "together"), take(several, name))
    joint = read_cells("joint")
    if joint:
        result["joint"] = {name: summary(take(joint, name)) for name in CONDITIONS}
        shared_joint = {key: main_cells[key] for key in joint if key in main_cells}
        if shared_joint:
            result["joint"]["test"] = compare(take(joint, "clean"), take(shared_joint, "finetuned"))
    targets = read_cells("targets")
    if targets:
        result["targets"] = {
            f"{name}_{condition}": {
                "joint": summary(take(targets, name, condition, "joint")),
                "alone": summary(take(targets, name, condition, "alone")),
                "test": compare(take(targets, name, condition, "joint"), take(targets, name, condition, "alone")),
            }
            for name in ("log_mel", "ideal") for condition in CONDITIONS
        }  # fmt: skip
    regions = {
        (index, seed): cell[f"s{index}"]
        for (_, seed), cell in read_cells("regions").items() if f"s{PATIENTS[0]}" in cell for index in PATIENTS
    }  # fmt: skip
    if regions:
        result["regions"] = {name: summary(take(regions, name)) for name in ("own", "place", "place_and_region")}
        for name in ("own", "place"):
            result["regions"][f"test_{name}"] = compare(take(regions, "place_and_region"), take(regions, name))
    result["cpu_minutes"] = sum(cell["cpu_s"] for group in GROUPS for cell in read_cells(group).values()) / 60
    return result


def main() -> None:
    """Run what is missing, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", nargs="+", choices=GROUPS, default=list(GROUPS))
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--tables", action="store_true", help="run nothing, collect what is there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if not arguments.tables:
        for seed in arguments.seeds:
            for group in arguments.groups:
                for number in PATIENTS:
                    run_cell(group, number, seed)
    save_result("ieeg_audio", collect())


if __name__ == "__main__":
    main()
