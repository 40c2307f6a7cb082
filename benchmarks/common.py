"""What benchmarks share: the machine they ran on, where results go, cells in processes of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.files import write_json
from bit_speech.machine import git_commit, hardware

RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    """Describe the machine, the commit and the day."""
    commit = git_commit() or "unknown"
    return {**hardware(), "commit": commit[:7] + commit[40:], "date": datetime.now(UTC).strftime("%Y-%m-%d")}


def save_result(name: str, result: dict[str, Any]) -> Path:
    """Write `benchmarks/results/<name>.json` with the machine's description added."""
    return write_json(RESULTS / f"{name}.json", {"machine": machine(), **result})


def run_cells(name: str, flag: str, cells: Mapping[str, Sequence[object]], work: Path, processes: int) -> None:
    """Run cells of a benchmark, each in a process of its own with one thread.

    Args:
        name (`str`): of the benchmark.
        flag (`str`): its argument that is followed by what names cells.
        cells (`dict`): name of the log, in `work`/logs, and what follows the flag.
        work (`Path`): folder of the benchmark.
        processes (`int`): how many at once.
    """
    (work / "logs").mkdir(parents=True, exist_ok=True)

    def start(log: str) -> None:
        words = [str(word) for word in cells[log]]
        with (work / "logs" / f"{log}.log").open("w") as stream:
            subprocess.run(
                [sys.executable, "-m", f"benchmarks.{name}", flag, *words],
                check=True, stdout=stream, stderr=subprocess.STDOUT, env={**os.environ, "OMP_NUM_THREADS": "1"},
            )  # fmt: skip
        print("done:", *words, flush=True)

    with ThreadPoolExecutor(processes) as pool:
        for finished in [pool.submit(start, log) for log in cells]:
            finished.result()


def by_name(cells: Iterable[Sequence[object]]) -> dict[str, Sequence[object]]:
    """Cells by all their parts, with dots between: `t15-like.bit.0`."""
    return {".".join(map(str, cell)): cell for cell in cells}


def numbers(values: str | list[int]) -> np.ndarray:
    """Numbers of a list, or of text."""
    return np.array(values.split() if isinstance(values, str) else values, dtype=np.int64)


def compact(rate: Mapping[str, Any]) -> dict[str, Any]:
    """A rate as it is published: errors and lengths of the sentences as text, so that the file stays short."""
    return {**rate, **{key: " ".join(map(str, numbers(rate[key]))) for key in ("errors", "lengths")}}


def interval(tables: list[tuple[np.ndarray, np.ndarray]], rng: np.random.Generator, draws: int) -> list[float]:
    """Sum of the first over the sum of the second column, and its 95 % interval over seeds and sentences."""
    values = np.empty(draws)
    for draw in range(draws):
        top = bottom = 0
        for index in rng.integers(len(tables), size=len(tables)):
            chosen = rng.integers(len(tables[index][0]), size=len(tables[index][0]))
            top, bottom = top + tables[index][0][chosen].sum(), bottom + tables[index][1][chosen].sum()
        values[draw] = top / bottom
    whole = sum(top.sum() for top, _ in tables) / sum(bottom.sum() for _, bottom in tables)
    return [float(whole), float(np.quantile(values, 0.025)), float(np.quantile(values, 0.975))]
