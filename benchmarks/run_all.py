"""Run every benchmark that this machine can run and write docs/benchmarks.md.

python -m benchmarks.run_all
"""

from __future__ import annotations

import subprocess
import sys

from benchmarks import tables

MODULES = (
    "demo",
    "first_sentence",
    "simulator_statistics",
    "conversion",
    "pretraining_throughput",
    "encoders",
    "wav2vec2_brain",
    "space",
    "encoding",
    "brain_tuning",
    "end_to_end",
    "ieeg_preprocessing",
    "ieeg_audio",
)


def main() -> None:
    """Run them one after the other; the word decoder's needs data of its own, see its `--help`."""
    for name in MODULES:
        subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], check=True)
    tables.main()


if __name__ == "__main__":
    main()
