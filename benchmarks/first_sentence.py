"""How long a newcomer waits for the first sentence: fresh processes, compiled code absent (cold) and there (warm).

    python -m benchmarks.first_sentence [--repeats 3]

Cold is the state right after installation, when numba has compiled nothing; what it compiles it keeps. Measured are
the command that decodes one trial with the model in the box, the lines of Python that the README shows, and the
demonstration up to the first sentence that it prints, before it trains.
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.common import save_result

ROOT = Path(__file__).parents[1]
BIT_SPEECH = [sys.executable, "-m", "bit_speech.cli"]


def ways() -> dict[str, list[str]]:
    """Commands that end, or begin, with a decoded sentence."""
    lines = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), re.DOTALL)[0]
    return {
        "command": [*BIT_SPEECH, "decode", "--model", "sim-ctc", "--simulated", "1"],
        "python": [sys.executable, "-c", lines],
        "demo": [*BIT_SPEECH, "demo", "--output_dir"],
    }


def measure(way: str, command: list[str], cache: str) -> dict[str, float]:
    """One fresh process, until its first sentence is on standard output."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache, "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryDirectory() as folder:
        command = [*command, folder] if way == "demo" else command
        start = time.perf_counter()
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment, cwd=ROOT
        )
        assert process.stdout is not None
        sentence = ""
        for line in process.stdout:
            if way != "demo" or "read:" in line:
                sentence = line.strip()
                break
        seconds = time.perf_counter() - start
        if way == "demo":
            process.terminate()
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if not sentence or (way != "demo" and process.returncode):
        raise RuntimeError(f"{' '.join(command)} gave {sentence!r} and status {process.returncode}")
    return {
        "wall_s": seconds,
        "processor_s": usage.ru_utime + usage.ru_stime,
        "memory_mb": usage.ru_maxrss / 1e3,
    }


def main() -> None:
    """Measure every way, cold and warm in turn, and keep the medians."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--repeats", type=int, default=3, help="fresh processes per state (default: 3)")
    arguments = parser.parse_args()
    found: dict[str, Any] = {}
    for way, command in ways().items():
        runs: dict[str, list[dict[str, float]]] = {"cold": [], "warm": []}
        for _ in range(arguments.repeats):
            with tempfile.TemporaryDirectory() as cache:
                for state, kept in runs.items():
                    kept.append(measure(way, command, cache))
                    print(way, state, {key: round(value, 1) for key, value in kept[-1].items()}, flush=True)
        found[way] = {
            state: {key: round(statistics.median(run[key] for run in kept), 1) for key in kept[0]}
            | {"all_wall_s": [round(run["wall_s"], 1) for run in kept]}
            for state, kept in runs.items()
        }
    save_result("first_sentence", {"repeats": arguments.repeats, "load": os.getloadavg()[0], "ways": found})


if __name__ == "__main__":
    main()
