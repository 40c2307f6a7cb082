"""Converting and reading back: a synthetic Brain-to-Text '25 release with trials of real sizes, on one core.

    python -m benchmarks.conversion                     # 2.5 GB in a temporary folder, about three times that on disk
    python -m benchmarks.conversion --gigabytes 0.3     # a quick look

Every step runs in a process of its own that is pinned to one core. Rates are float32-equivalent megabytes of features
(4 bytes times bins times channels) per second, by the clock and by CPU time; on a machine that does something else too,
CPU time is the one that repeats. Files were just written, so they come from the page cache: a disk slower than these
rates sets the pace instead.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from benchmarks.common import save_result
from datasets_scripts.convert_brain_to_text_25 import NUM_CHANNELS, NUM_TRIALS, SESSIONS, convert

# Trials of the release: median 17.0 s, mean 17.73 s, 2.76 to 49.5 s, in bins of 20 ms; log-normal between the two.
MEDIAN_BINS, MEAN_BINS, SHORTEST_BINS, LONGEST_BINS = 850, 886.5, 138, 2475
TRIALS_PER_FILE = {"train": 179, "val": 35, "test": 35}
BATCH_SIZE = 16
BARS = {"convert_mb_per_s": 150, "convert_peak_memory_mb": 2000, "read_batches_mb_per_s": 800}


def write_release(folder: Path, gigabytes: float, seed: int = 0, **storage: Any) -> dict[str, Any]:
    """Write sessions of the '25 layout until they hold this many gigabytes of features.

    Half of the channels are z-scored counts, which take few distinct values, half are continuous, as in the release.
    """
    rng = np.random.default_rng(seed)
    pool = np.concatenate(
        [
            (rng.poisson(rng.uniform(0.1, 2.0, NUM_CHANNELS // 2), (20_000, NUM_CHANNELS // 2)) - 0.6) / 0.8,
            rng.standard_normal((20_000, NUM_CHANNELS // 2)),
        ],
        axis=1,
    ).astype(np.float32)
    sigma = np.sqrt(2 * np.log(MEAN_BINS / MEDIAN_BINS))
    counts = {"trials": 0, "bins": 0, "files": 0}
    for session in SESSIONS:
        for split, number in TRIALS_PER_FILE.items():
            path = folder / session / f"data_{split}.hdf5"
            path.parent.mkdir(parents=True, exist_ok=True)
            with h5py.File(path, "w") as file:
                for trial in range(number):
                    bins = int(np.clip(rng.lognormal(np.log(MEDIAN_BINS), sigma), SHORTEST_BINS, LONGEST_BINS))
                    start = int(rng.integers(len(pool) - bins))
                    _write_trial(
                        file.create_group(f"trial_{trial:04d}"),
                        pool[start : start + bins],
                        session,
                        split,
                        trial,
                        storage,
                    )
                    counts["trials"] += 1
                    counts["bins"] += bins
                    if counts["bins"] * NUM_CHANNELS * 4 >= gigabytes * 1e9:
                        break
            counts["files"] += 1
            if counts["bins"] * NUM_CHANNELS * 4 >= gigabytes * 1e9:
                size = sum(path.stat().st_size for path in folder.rglob("*.hdf5"))
                return {**counts, "megabytes": counts["bins"] * NUM_CHANNELS * 4 / 1e6, "megabytes_on_disk": size / 1e6}
    raise ValueError(
        f"{gigabytes} GB is more than the {len(SESSIONS)} sessions of the release hold: ask for at most 19"
    )


def _write_trial(
    group: h5py.Group, features: np.ndarray, session: str, split: str, trial: int, storage: dict[str, Any]
) -> None:
    group.create_dataset("input_features", data=features, **storage)
    group.attrs.update(
        {"n_time_steps": len(features), "session": session, "block_num": 1 + trial // 40, "trial_num": trial}
    )
    if split != "test":
        labels = np.zeros(500, np.int32)
        labels[:60] = 1 + np.arange(60) % 40
        text = f"This is sentence number {trial} of the {split} set of {session}."
        codes = np.zeros(500, np.int32)
        codes[: len(text)] = list(text.encode())
        group.create_dataset("seq_class_ids", data=labels)
        group.create_dataset("transcription", data=codes)
        group.attrs.update({"seq_len": 60, "sentence_label": text})


def timed(work: Callable[[], float]) -> dict[str, float]:
    """Run something that gives the megabytes it handled; give seconds, rates and peak memory of this process."""
    clock, cpu = time.perf_counter(), time.process_time()
    megabytes = work()
    clock, cpu = time.perf_counter() - clock, time.process_time() - cpu
    return {
        "seconds": round(clock, 2),
        "cpu_seconds": round(cpu, 2),
        "mb_per_s": round(megabytes / clock, 1),
        "mb_per_cpu_s": round(megabytes / cpu, 1),
        "peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6, 1),
    }


def step_convert(folder: Path, source: str, compression: str) -> dict[str, Any]:
    """Convert; in this process."""

    def work() -> float:
        report = convert(
            folder / source, folder / f"out_{source}", allow_partial=True, compression=compression, progress=False
        )
        return sum(counts["num_bins"] for counts in report.splits.values()) * NUM_CHANNELS * 4 / 1e6

    result: dict[str, Any] = timed(work)
    written = sum(path.stat().st_size for path in (folder / f"out_{source}/data").glob("*.parquet")) / 1e6
    return {**result, "megabytes_written": round(written, 1)}


def step_read(folder: Path, source: str, compression: str) -> dict[str, Any]:
    """Open the dataset for the first time, then read batches in random order; in this process."""
    from bit_speech.data.reading import TrialReader, load_trials

    loaded: dict[str, Any] = {}

    def first() -> float:
        loaded.update(load_trials(folder / f"out_{source}", cache_dir=folder / "cache"))
        return megabytes

    manifest = json.loads((folder / f"out_{source}/conversion.json").read_text())
    megabytes = sum(counts["num_bins"] for counts in manifest["splits"].values()) * NUM_CHANNELS * 4 / 1e6
    results: dict[str, Any] = {"first_opening": timed(first)}
    train = loaded["train"]
    order = np.random.default_rng(0).permutation(len(train))
    batches = [order[i : i + BATCH_SIZE].tolist() for i in range(0, len(order) - BATCH_SIZE + 1, BATCH_SIZE)]
    reader = TrialReader(train)
    # The buffer is reused, as a loader with pinned memory does: making a new one costs as much as filling it.
    buffer = np.zeros((BATCH_SIZE, LONGEST_BINS, NUM_CHANNELS), np.float32)

    def padded(rows: list[dict[str, Any]]) -> float:
        longest = max(len(row["features"]) for row in rows)
        for row, into in zip(rows, buffer):
            into[: len(row["features"])] = row["features"]
            into[len(row["features"]) : longest] = 0.0
        return sum(row["features"].nbytes for row in rows) / 1e6

    def fresh(rows: list[dict[str, Any]]) -> float:
        batch = np.zeros((len(rows), max(len(row["features"]) for row in rows), NUM_CHANNELS), np.float32)
        for row, into in zip(rows, batch):
            into[: len(row["features"])] = row["features"]
        return sum(row["features"].nbytes for row in rows) / 1e6

    ways: dict[str, Callable[[], float]] = {
        "reader_padded_batches": lambda: sum(padded(reader.__getitems__(batch)) for batch in batches),
        "reader_padded_batches_new_memory": lambda: sum(fresh(reader.__getitems__(batch)) for batch in batches),
        "numpy_format_padded_batches": lambda: sum(
            padded([train[i] for i in batch]) for batch in batches[: len(batches) // 4]
        ),
    }
    for name, work in ways.items():
        work()  # The first pass brings the file into the page cache.
        results[name] = timed(work)
    return results


STEPS = {"convert": step_convert, "read": step_read}


def in_own_process(step: str, folder: Path, source: str, compression: str) -> dict[str, Any]:
    """Run a step in a fresh process that may use one core."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-m", "benchmarks.conversion", "--step", step, "--folder", str(folder)]
    command += ["--source", source, "--compression", compression]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _bars_met(converted: dict[str, Any], read: dict[str, Any], rate: str) -> dict[str, bool]:
    return {
        "convert_mb_per_s": converted[rate] >= BARS["convert_mb_per_s"],
        "convert_peak_memory_mb": converted["peak_memory_mb"] <= BARS["convert_peak_memory_mb"],
        "read_batches_mb_per_s": read["reader_padded_batches"][rate] >= BARS["read_batches_mb_per_s"],
    }


def run_step(arguments: argparse.Namespace) -> None:
    """Pin this process to one core, run a step and print its result."""
    import datasets
    import pyarrow

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    pyarrow.set_cpu_count(1)
    pyarrow.set_io_thread_count(1)
    datasets.disable_progress_bars()
    print(json.dumps(STEPS[arguments.step](Path(arguments.folder), arguments.source, arguments.compression)))


def main() -> None:
    """Write the release, convert it, read it back, and save the numbers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.5, help="features to convert (default: 2.5)")
    parser.add_argument("--compression", default="lz4", help="of the Parquet files (default: lz4)")
    parser.add_argument("--work_dir", help="where to put the temporary folder (default: the system's)")
    parser.add_argument("--step", choices=sorted(STEPS), help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    parser.add_argument("--source", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.step:
        run_step(arguments)
        return
    with tempfile.TemporaryDirectory(dir=arguments.work_dir) as name:
        folder = Path(name)
        written = write_release(folder / "contiguous", arguments.gigabytes)
        print(f"{written['megabytes']:,.0f} MB in {written['trials']} trials, {written['files']} files", flush=True)
        load = os.getloadavg()[0]
        converted = in_own_process("convert", folder, "contiguous", arguments.compression)
        print(f"convert: {converted}", flush=True)
        read = in_own_process("read", folder, "contiguous", arguments.compression)
        for way, numbers in read.items():
            print(f"{way}: {numbers}", flush=True)
        zipped = write_release(folder / "gzip", min(0.3, arguments.gigabytes), compression="gzip", compression_opts=4)
        from_gzip = in_own_process("convert", folder, "gzip", arguments.compression)
        print(f"convert from gzip: {from_gzip}", flush=True)
    complete = sum(NUM_TRIALS.values()) * MEAN_BINS * NUM_CHANNELS * 4 / 1e6
    result = {
        "what": "synthetic Brain-to-Text '25 release, one core, files in memory",
        "work_dir": arguments.work_dir or tempfile.gettempdir(),
        "load_average_of_the_machine": load,
        "niceness": os.nice(0) if hasattr(os, "nice") else None,
        "input": written,
        "compression": arguments.compression,
        "convert": converted,
        "read": read,
        "convert_from_gzip_hdf5": {"input": zipped, **from_gzip},
        "complete_release": {
            "megabytes": round(complete),
            "extrapolated_convert_minutes": round(complete / converted["mb_per_s"] / 60, 1),
            "extrapolated_first_opening_minutes": round(complete / read["first_opening"]["mb_per_s"] / 60, 1),
        },
        "bars": BARS,
        "bars_met": _bars_met(converted, read, "mb_per_s"),
        # What the same work takes from a core that has nothing else to do, and never waits for a disk.
        "bars_met_by_cpu_time": _bars_met(converted, read, "mb_per_cpu_s"),
    }
    print(f"written to {save_result('conversion', result)}")
    print(f"bars met by the clock {result['bars_met']}, by CPU time {result['bars_met_by_cpu_time']}")


if __name__ == "__main__":
    main()
