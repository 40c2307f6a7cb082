"""What the command `bit-speech report` does."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EPILOG = """\
examples:
  bit-speech report runs/me                                              # predictions.jsonl and what lies beside it
  bit-speech report predictions.jsonl --output_dir runs/report --title "Day 3"
  bit-speech report runs/bit/predictions.jsonl --compare runs/gru/predictions.jsonl

Predictions are lines of JSON, as evaluate, finetune, demo and `decode --json` write them. The page is one file that
needs no network; report.json beside it holds the same numbers.
"""
KEYS = (
    "session_id", "block_index", "trial_index", "reference_text", "hypothesis_text", "reference_phonemes",
    "hypothesis_phonemes",
)  # fmt: skip
_PLACE = KEYS[:3]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of the command.

    Args:
        parser (`argparse.ArgumentParser`): is changed.
    """
    parser.add_argument("run", help="folder of a run with predictions.jsonl, or such a file")
    parser.add_argument("--compare", nargs="+", default=[], metavar="FILE", help="predictions of others, same trials")
    parser.add_argument("--output_dir", help="where report.html goes (default: report, beside the predictions)")
    parser.add_argument("--title", help="heading of the page (default: the folder's name)")
    parser.add_argument("--json", action="store_true", help="print the rates and the page's path as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Args:
        arguments (`argparse.Namespace`): from a parser with [`add_arguments`].

    Returns:
        `int`: 0.

    Raises:
        FileNotFoundError: when there are no predictions.
        ValueError: when a line is no prediction, or the trials of two files differ.
    """
    from bit_speech.evaluation.report import write_report

    source = Path(arguments.run)
    path = source / "predictions.jsonl" if source.is_dir() else source
    trials = read_predictions(path)
    folder = Path(arguments.output_dir) if arguments.output_dir else path.parent / "report"
    if not arguments.output_dir and folder.exists():
        raise ValueError(f"{folder} is there already, perhaps with more than predictions know; give an --output_dir")
    others = [Path(name) for name in arguments.compare]
    names = [_name(other) for other in (path, *others)]
    if len(set(names)) < len(names):
        raise ValueError(
            f"the systems would be called {', '.join(names)}; keep each one's predictions in its own folder"
        )
    page = write_report(
        folder,
        title=arguments.title or path.resolve().parent.name,
        trials=trials,
        comparisons={_name(other): _same_trials(other, trials, path) for other in others},
        learning_curve=_beside(path, "learning_curve.json") or _beside(path, "training/learning_curve.json"),
        system=_name(path),
    )
    rates = json.loads((folder / "report.json").read_text(encoding="utf-8"))["systems"]
    if arguments.json:
        print(json.dumps({"report": str(page), "systems": rates}, indent=2))
    else:
        for name, system in rates.items():
            shown = [f"{unit} {100 * rate['rate']:.1f} %" for unit, rate in system["rates"].items()]
            print(f"{name}: {', '.join(shown) or 'nothing to score against'}")
        print(f"report: {page}")
    return 0


def read_predictions(path: str | Path) -> list[dict[str, Any]]:
    """Read what was decoded, one JSON object per line.

    Args:
        path (`str`): the file.

    Returns:
        `list[dict]`: of every trial the keys that a report takes.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: naming the line that holds no prediction.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there are no predictions {path}; evaluate, finetune and `decode --json` write them")
    rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}, line {number} is no JSON: {error}") from error
        if not isinstance(row, dict) or not {"hypothesis_text", "hypothesis_phonemes"} & set(row):
            raise ValueError(f"{path}, line {number} has neither hypothesis_text nor hypothesis_phonemes")
        rows.append({key: row[key] for key in KEYS if key in row})
    return rows


def _same_trials(other: Path, trials: Sequence[dict[str, Any]], path: Path) -> list[dict[str, Any]]:
    """Predictions of another system, in the order of the first."""
    found = {tuple(row.get(key) for key in _PLACE): row for row in read_predictions(other)}
    missing = [place for row in trials if (place := tuple(row.get(key) for key in _PLACE)) not in found]
    if missing or len(found) != len(trials):
        raise ValueError(
            f"{other} has {len(found)} different trials and {path} {len(trials)}; {len(missing)} are missing from the "
            "first: compare decodings of the same trials"
        )
    return [found[tuple(row.get(key) for key in _PLACE)] for row in trials]


def _name(path: Path) -> str:
    folder = path.resolve().parent.name
    return folder if path.name == "predictions.jsonl" else f"{folder}/{path.stem}"


def _beside(path: Path, name: str) -> Any:
    file = path.parent / name
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None
