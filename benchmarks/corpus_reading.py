"""How fast one core reads the pretraining corpus: from the memory-mapped store to padded, z-scored batches.

    python -m benchmarks.corpus_reading            # half a minute; writes a gigabyte to a temporary folder

Three stores of the same recordings: spike counts (uint8), values that were z-scored before they were published
(float16) and values that float16 would round too coarsely (float32). Two numbers each: bytes of real (not padded)
float32 values delivered in batches, and bytes of the store read for them, per second of CPU and of wall time. Beside
them the stock road: rows of a `datasets.Dataset` in numpy format, z-scored and padded.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.common import save_result
from bit_speech.data import (
    CorpusBatchSampler,
    CorpusSource,
    PretrainingCorpus,
    block_statistics,
    build_corpus,
    corpus_loader,
    load_trials,
)
from bit_speech.data.writing import ShardWriter, dataset_card
from bit_speech.files import write_text

CHANNELS = (96, 128, 192)
BATCH_SIZE = 64
REPEATS = 5


def write_recordings(folder: Path, channels: int, num_bins: int, change: Callable[[np.ndarray], np.ndarray]) -> Path:
    """Write trials of 2 to 30 seconds as a converted folder."""
    rng = np.random.default_rng(channels)
    name = f"p{channels}"
    kinds, areas = ["threshold_crossings"] * channels, ["M1"] * channels
    written = number = 0
    with ShardWriter(folder / "data" / f"train-{name}.parquet", channels, compression="none") as writer:
        while written < num_bins:
            bins = int(rng.integers(100, 1500))
            features = change(rng.poisson(0.6, (bins, channels)).astype(np.float32))
            writer.add(
                {
                    "participant_id": name, "session_id": f"{name}.2024.01.05", "block_index": number // 40,
                    "trial_index": number % 40, "split": "train", "features": features, "bin_size_ms": 20.0,
                    "feature_kinds": kinds, "channel_areas": areas, "species": "macaque", "task": "reaching",
                    "text": None, "phonemes": None, "source": "random counts", "licence": "CC0-1.0",
                }
            )  # fmt: skip
            written, number = written + bins, number + 1
    counts = {"num_trials": number, "num_bins": written, "num_sessions": 1, "num_bytes": 1}
    card = dataset_card(
        title=name, licence="CC0-1.0", description="Random counts.", num_channels=channels, splits={"train": counts}
    )
    write_text(folder / "README.md", card)
    return folder


def forget(folder: Path) -> None:
    """Ask the system to drop the store from its cache, where it can."""
    for path in folder.glob("*.bin"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def timed(batches: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Read one epoch: gigabytes of real float32 values, seconds of CPU and of wall time."""
    wall, cpu, values = time.perf_counter(), time.process_time(), 0
    for batch in batches:
        values += int(batch["attention_mask"].sum()) * batch["input_features"].shape[2]
    return {
        "gb": 4 * values / 1e9, "cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall
    }  # fmt: skip


def epoch(corpus: PretrainingCorpus, number: int) -> dict[str, float]:
    """Time one epoch over the corpus."""
    sampler = CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, BATCH_SIZE)
    sampler.set_epoch(number)
    return timed(corpus_loader(corpus, sampler))


def rates(runs: list[dict[str, float]], bytes_per_value: float) -> dict[str, float]:
    """Median speeds of several epochs."""
    cpu, wall = (statistics.median(run["gb"] / run[key] for run in runs) for key in ("cpu_s", "wall_s"))
    return {
        "delivered_gb_per_cpu_s": cpu, "delivered_gb_per_s": wall,
        "stored_gb_per_cpu_s": cpu * bytes_per_value / 4, "stored_gb_per_s": wall * bytes_per_value / 4,
    }  # fmt: skip


def stock_batches(folders: list[Path], cache: Path) -> Iterable[dict[str, Any]]:
    """The same batches from rows in numpy format."""
    for folder in folders:
        trials = load_trials(folder, "train", cache_dir=cache)
        stats = block_statistics(trials)
        for start in range(0, len(trials), BATCH_SIZE):
            rows = trials[start : start + BATCH_SIZE]
            features = [
                torch.from_numpy((x - stats[key][0]) / stats[key][1])
                for key, x in zip(zip(rows["session_id"], map(int, rows["block_index"])), rows["features"])
            ]
            lengths = torch.tensor([len(x) for x in features])
            padded = torch.nn.utils.rnn.pad_sequence(features, batch_first=True)
            yield {
                "input_features": padded, "attention_mask": torch.arange(padded.shape[1]) < lengths[:, None]
            }  # fmt: skip


def main() -> None:
    """Build the stores, read them, and save the speeds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=100, help="size of the uint8 store")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    num_bins = arguments.megabytes * 1_000_000 // sum(CHANNELS)
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "uint8": lambda counts: counts,
        "float16": lambda counts: (counts - np.float32(0.6)) / np.float32(0.7746),
        "float32": lambda counts: counts + np.float32(5000.1),
    }
    result: dict[str, Any] = {
        "command": "python -m benchmarks.corpus_reading",
        "what": f"padded z-scored float32 batches of {BATCH_SIZE} items, one core; delivered bytes leave padding out",
        "stores": {},
    }
    with tempfile.TemporaryDirectory() as temporary:
        for name, change in changes.items():
            folder = Path(temporary) / name
            folders = [write_recordings(folder / f"p{c}", c, num_bins, change) for c in CHANNELS]
            start = time.perf_counter()
            corpus = PretrainingCorpus(build_corpus([CorpusSource(path) for path in folders], folder / "store"))
            built = time.perf_counter() - start
            if {entry["dtype"] for entry in corpus.manifest} != {name}:
                raise RuntimeError(f"expected a store of {name}, got {[e['dtype'] for e in corpus.manifest]}")
            size = np.dtype(name).itemsize
            forget(folder / "store")
            cold = epoch(corpus, 0)
            warm = [epoch(corpus, 1 + number) for number in range(REPEATS)]
            stored = sum(entry["values"]["num_bytes"] for entry in corpus.manifest)
            result["stores"][name] = {
                "stored_mb": stored / 1e6,
                "hours": corpus.hours,
                "build_s": built,
                **rates(warm, size),
                "first_epoch_after_dropping_the_cache": rates([cold], size),
            }
            if name == "uint8":
                list(stock_batches(folders, folder / "cache"))
                stock = [timed(stock_batches(folders, folder / "cache")) for _ in range(2)]
                result["stock"] = rates(stock, 4)
            print(name, result["stores"][name], flush=True)
    result["peak_memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(result["stock"], save_result("corpus_reading", result))


if __name__ == "__main__":
    main()
