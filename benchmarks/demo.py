"""The demonstration as a benchmark: error rates, seconds and memory of the whole road.

python -m benchmarks.demo
"""

from benchmarks.common import save_result
from bit_speech.demo import run_demo


def main() -> None:
    """Run it and keep its metrics."""
    save_result("demo", run_demo("runs/demo"))


if __name__ == "__main__":
    main()
