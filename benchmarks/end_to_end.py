"""From neural activity to sentences in one network, beside the cascade on the same encoder; and both together.

    python -m benchmarks.end_to_end                       # every missing cell, then the tables (two hours on two cores)
    python -m benchmarks.end_to_end --causal_lm FOLDER    # with a model of examples/train_causal_lm.py that is there
    python -m benchmarks.end_to_end --groups main         # the comparison with the cascade alone
    python -m benchmarks.end_to_end --tables              # only the tables, from the cells that exist
    python -m benchmarks.end_to_end --tables --latency    # and the latencies again (three minutes), on a quiet machine

A cell is one (participant, variant, seed). Participants are simulated: `attempted` is t15-like (the encoders of
`benchmarks/encoders.py`), `imagined_*` is that of `benchmarks/pretraining.py` with fifty words. Encoders learn phonemes
first; the cascade decodes their posteriors with a word 3-gram; the network starts from the same encoder and
from a small language model that has learnt to spell (`benchmarks/spelling_lm.py`). Test sentences are seen by no
training and no language model; weights are tuned on validation. Free-running word error rates throughout. Accuracy on a
simulated participant is called that.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, by_name, compact, interval, numbers, run_cells, save_result
from benchmarks.end_to_end_cells import BEAMS, LONGER, PROMPT, RECIPE, REFERENCE, VARIANTS, run_cell, weigh_again
from benchmarks.end_to_end_people import IMAGINED, SEEDS, WORK, Person, comparable, held_out_sentences
from bit_speech.files import write_json

NAME = "end_to_end"
LLM = WORK / "llm"
CONFIG = "examples/configs/causal_lm_small.yaml"
GROUPS = ("main", "imagined", "ablation")


def prepare_llm(causal_lm: str | None, longer: bool) -> None:
    """Make the text model by its own recipe unless one is given, check what it has read, and teach it to spell."""
    from benchmarks.spelling_lm import ROUNDS, train_spelling_lm

    if not (LLM / "model" / "config.json").exists():
        if causal_lm is None:
            command = [sys.executable, "examples/train_causal_lm.py", "--config", CONFIG, "--output_dir", str(LLM)]
            subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": "."})
        else:
            source = Path(causal_lm)
            source = source if (source / "config.json").exists() else source / "model"
            shutil.copytree(source, LLM / "model", ignore=shutil.ignore_patterns("*.pt", "*.pth", "*.bin"))
            for name in ("config.yaml", "perplexity.json"):
                if (source.parent / name).exists():
                    shutil.copy(source.parent / name, LLM / name)
    if not (LLM / "text_checked.json").exists():
        write_json(LLM / "text_checked.json", check_text())
    train_spelling_lm(LLM / "model", LLM / "spelling", held_out_sentences(), rounds=ROUNDS[:1])
    if longer:
        if not (LLM / "spelling_longer").exists():
            shutil.copytree(LLM / "spelling", LLM / "spelling_longer")
        train_spelling_lm(LLM / "model", LLM / "spelling_longer", held_out_sentences())


def check_text() -> dict[str, Any]:
    """Make the text model's training text again; refuse a model that has read a t15-like person's scored sentences.

    The fifty-word sentences are so plain that some occur in any text: those are listed, and not scored.
    """
    from bit_speech.arguments import load_config
    from bit_speech.experiments.train_causal_lm import LanguageModelArguments, read_corpus

    settings = load_config(LLM / "config.yaml")
    known = LanguageModelArguments.__dataclass_fields__
    arguments = LanguageModelArguments(**{key: value for key, value in settings.items() if key in known})
    text = {comparable(sentence) for sentence in read_corpus(arguments, settings.get("seed", 42))[0]}
    scored: dict[str, set[str]] = {}
    for kind in ("attempted", "imagined_scratch"):
        people = [Person(kind, seed).participant for seed in SEEDS]
        lines = [line for person in people for split in ("val", "test") for line in person.sentences(split)]
        scored[kind] = set(map(comparable, lines))
    if scored["attempted"] & text:
        raise ValueError(f"the language model has read {len(scored['attempted'] & text)} of the scored sentences")
    return {"sentences_read": len(text), "fifty_word_sentences_read": sorted(scored["imagined_scratch"] & text)}


def wanted_cells(groups: Sequence[str], seeds: Sequence[int]) -> list[tuple[str, str, int]]:
    """Cells in the order of their importance, so that a run stopped early leaves whole comparisons."""
    main = [("attempted", REFERENCE, seed) for seed in seeds]
    imagined = [(kind, REFERENCE, seed) for seed in seeds for kind in IMAGINED]
    ablation = [("attempted", name, seed) for seed in seeds for name in VARIANTS if name != REFERENCE]
    chosen = {"main": main, "imagined": imagined, "ablation": ablation}
    return [cell for name in groups for cell in chosen[name]]


def read_cells() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Finished cells: those on disk, and those that only the published results still hold."""
    stored = RESULTS / f"{NAME}.json"
    before = json.loads(stored.read_text())["cells"] if stored.exists() else []
    found = [*before, *(json.loads(path.read_text()) for path in sorted((WORK / "cells").glob("*.json")))]
    return {(cell["kind"], cell["variant"], cell["seed"]): cell for cell in found}


def published(cell: dict[str, Any]) -> dict[str, Any]:
    """A cell as it is published: without sentences, and errors as text, so that it stays short for people."""
    kept = {key: value for key, value in cell.items() if key not in ("curve", "test", "validation")}
    for part in ("validation", "test"):
        ways = {way: value for way, value in cell.get(part, {}).items() if way != "sentences"}
        kept[part] = {way: compact(value) for way, value in ways.items()}
    return kept


def pooled(cells: list[dict[str, Any]], way: str, others: str | None = None, draws: int = 10_000) -> list[float]:
    """Pooled WER with a 95 % interval, or its difference to another way."""
    rng = np.random.default_rng(0)
    tables = []
    for cell in cells:
        minus = numbers(cell["test"][others]["errors"]) if others else 0
        tables.append((numbers(cell["test"][way]["errors"]) - minus, numbers(cell["test"][way]["lengths"])))
    return interval(tables, rng, draws)


def compared(cells: list[dict[str, Any]], references: list[dict[str, Any]], draws: int = 10_000) -> list[float]:
    """Difference of greedy WERs between two lists of cells of the same seeds, with a 95 % interval."""
    tables = []
    for a, b in zip(cells, references, strict=True):
        first, second = a["test"]["greedy"], b["test"]["greedy"]
        tables.append((numbers(first["errors"]) - numbers(second["errors"]), numbers(first["lengths"])))
    return interval(tables, np.random.default_rng(0), draws)


def summarise(measure_again: bool = False) -> dict[str, Any]:
    """Put the finished cells into tables; latencies of an earlier run are kept unless they shall be measured again."""
    cells = read_cells()
    stored = RESULTS / f"{NAME}.json"
    before = json.loads(stored.read_text()) if stored.exists() else {}
    rows: dict[str, list[dict[str, Any]]] = {"main": [], "imagined": [], "ablation": []}
    for kind, variant in (("attempted", REFERENCE), ("attempted", LONGER), *((kind, REFERENCE) for kind in IMAGINED)):
        found = [cells[key] for key in sorted(cells) if key[:2] == (kind, variant)]
        for way in sorted({way for cell in found for way in cell["test"]} - {"sentences"}):
            members = [cell for cell in found if way in cell["test"]]
            row = {
                "kind": kind, "variant": variant, "way": way, "seeds": [cell["seed"] for cell in members],
                "wer": pooled(members, way),
                "by_seed": [cell["test"][way]["rate"] for cell in members],
                "minus_cascade": pooled(members, way, "cascade") if way != "cascade" else None,
            }  # fmt: skip
            if way == "joint":
                row["minus_better"] = [cell["joint_minus_better"] for cell in members]
            rows["main" if kind == "attempted" else "imagined"].append(row)
    for name in VARIANTS:
        found = {key[2]: cells[key] for key in sorted(cells) if key[:2] == ("attempted", name)}
        both = [seed for seed in found if ("attempted", REFERENCE, seed) in cells]
        if both:
            members = [found[seed] for seed in both]
            references = [cells["attempted", REFERENCE, seed] for seed in both]
            rows["ablation"].append({
                "variant": name, "seeds": both, "wer": pooled(members, "greedy"),
                "by_seed": [cell["test"]["greedy"]["rate"] for cell in members],
                "minus_reference": compared(members, references) if name != REFERENCE else None,
                "token_accuracy": float(np.mean([cell["teacher_forced_token_accuracy"] for cell in members])),
                "training_cpu_s": float(np.median([cell["training_cpu_s"] for cell in members])),
            })  # fmt: skip
    scratch, pretrained = (
        {key[2]: cells[key] for key in sorted(cells) if key[:2] == (kind, REFERENCE)} for kind in IMAGINED
    )
    both = sorted(set(scratch) & set(pretrained))
    files = {name: f"{name}/spelling.json" for name in ("spelling", "spelling_longer")}
    files |= {"text": "perplexity.json", "checked": "text_checked.json"}
    records = {
        name: json.loads((LLM / path).read_text()) if (LLM / path).exists() else before.get("llm", {}).get(name)
        for name, path in files.items()
    }
    result = {
        "command": f"python -m benchmarks.{NAME}",
        "what": "free-running WER on test sentences of simulated participants, pooled over sentences and seeds",
        "recipe": {**asdict(RECIPE), "prompt": PROMPT, "beams": BEAMS},
        "published_wer": {"cascade": 0.0635, "single network": 0.1567},
        "llm": records,
        "rows": rows,
        "imagined_pretrained_minus_scratch": {
            "seeds": both, "difference": compared([pretrained[s] for s in both], [scratch[s] for s in both]),
        } if both else None,
        "latency": before.get("latency"),
        "analysis": before.get("analysis"),
        "note": before.get("note", ""),
        "cells": [published(cell) for cell in cells.values()],
    }  # fmt: skip
    if (WORK / "models" / f"attempted.{REFERENCE}.0" / "model" / "config.json").exists():
        from benchmarks.end_to_end_analysis import analyse, measure_latency

        for name, make in (("latency", measure_latency), ("analysis", analyse)):
            path = WORK / f"{name}.json"
            if not path.exists() or (measure_again and name == "latency"):
                write_json(path, make())
            result[name] = json.loads(path.read_text())
    save_result(NAME, result)
    return result


def main() -> None:
    """Run the missing cells and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--causal_lm", help="folder of examples/train_causal_lm.py; made by its recipe when left out")
    parser.add_argument("--groups", nargs="+", default=GROUPS, choices=GROUPS)
    parser.add_argument("--seeds", nargs="+", type=int, default=list(SEEDS))
    parser.add_argument("--processes", type=int, default=max(1, os.cpu_count() or 2), help="cells at once, one thread")
    parser.add_argument("--tables", action="store_true", help="only collect the finished cells")
    parser.add_argument(
        "--weigh", action="store_true", help="tune the weights of joint decoding anew, from saved lists"
    )
    parser.add_argument("--latency", action="store_true", help="measure latencies again, for a quiet machine")
    parser.add_argument("--cell", nargs=3, metavar=("PARTICIPANT", "VARIANT", "SEED"), help="run one cell here")
    arguments = parser.parse_args()
    if arguments.cell:
        kind, name, seed = arguments.cell
        run_cell(kind, name, int(seed), LLM, whole=name in (REFERENCE, LONGER))
        return
    if not arguments.tables:
        missing = {
            group: [
                cell
                for cell in wanted_cells([group], arguments.seeds)
                if not (WORK / "cells" / "{}.{}.{}.json".format(*cell)).exists()
            ]
            for group in arguments.groups
        }
        names = {name for cells in missing.values() for _, name, _ in cells}
        prepare_llm(arguments.causal_lm, longer=any(VARIANTS[name].llm == "spelling_longer" for name in names))
        for cells in missing.values():
            # What several cells of a person share is made once, before they run side by side.
            for kind, seed in dict.fromkeys((kind, seed) for kind, _, seed in cells):
                Person(kind, seed).cascade()
            run_cells(NAME, "--cell", by_name(cells), WORK, arguments.processes)
    if arguments.weigh:
        for path in sorted((WORK / "lists").glob("*.json")):
            kind, name, seed, _ = path.name.split(".")
            weigh_again(kind, name, int(seed))
    result = summarise(arguments.latency)
    for row in [*result["rows"]["main"], *result["rows"]["imagined"]]:
        print(row["kind"], f"{row['way']:32s}", row["seeds"], " ".join(f"{100 * value:.1f}" for value in row["wer"]))
    for row in result["rows"]["ablation"]:
        print(f"{row['variant']:32s}", row["seeds"], " ".join(f"{100 * value:.1f}" for value in row["wer"]))


if __name__ == "__main__":
    main()
