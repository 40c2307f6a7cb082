"""What every benchmark shares: the machine it ran on, and where results go."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
