"""Train the small checkpoints that come with the package, on simulated participants, and record how they were made.

    python examples/make_sample_checkpoints.py --output_dir runs/samples
    cp -r runs/samples/sim-* bit_speech/sample_checkpoints/     # to ship them

`sim-ctc` (sample_ctc.py) gives phonemes, and words with its decoder; `sim-encoder` (sample_encoder.py) is pretrained
without labels; `sim-llm` (sample_llm.py) writes sentences end to end.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.files import write_json
from bit_speech.machine import git_commit, hardware
from bit_speech.sample_checkpoints import RECORD_NAME, file_hashes

sys.path.insert(0, str(Path(__file__).parent))  # the recipes lie beside this file

import sample_ctc
import sample_encoder
import sample_llm

MAX_MEGABYTES = 6.0


@dataclass
class SampleArguments:
    """What is made, and of whom."""

    _show_all_settings = True

    output_dir: str = HfArg(default="runs/samples", help="The folders of the checkpoints are made in it.")
    which: list[str] = HfArg(
        default_factory=lambda: ["sim-ctc", "sim-encoder", "sim-llm"],
        help="Checkpoints to make; sim-llm needs sim-ctc.",
    )
    preset: str = HfArg(default="demo", help="Preset of the simulated participants.")
    participant_seed: int = HfArg(default=0, help="Which simulated participant.")
    num_validation_sentences: int = HfArg(default=60, help="Sentences that choose checkpoint and decoder weights.")
    num_test_sentences: int = HfArg(default=100, help="Held-out sentences that are scored once.")
    bf16: bool = HfArg(default=False, help="Train in bfloat16.")
    seed: int = HfArg(default=0, help="Of weights, batches and augmentation.")


def make(name: str, shared: SampleArguments, recipe: Any, own: Any) -> dict[str, Any]:
    """Make one checkpoint and its record."""
    folder = Path(shared.output_dir) / name
    if folder.exists():
        raise ValueError(f"{folder} is there already; choose another --output_dir")
    work = Path(shared.output_dir) / f"{name}.work"
    work.mkdir(parents=True)
    set_seed(shared.seed)
    start = time.process_time()
    made = recipe.make(folder, work, shared, own)
    for path in folder.glob("*.py"):
        path.unlink()  # the package itself is the code of what it ships
    megabytes = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    if megabytes > MAX_MEGABYTES:
        raise ValueError(f"{folder} has {megabytes:.1f} MB, more than {MAX_MEGABYTES}")
    settings = {**asdict(shared), **asdict(own)}
    record = {
        "data": "simulated participants; accuracy on simulated data says nothing about a person",
        "command": " ".join(["python examples/make_sample_checkpoints.py", *_changed(settings, own)]),
        "settings": {key: value for key, value in settings.items() if key not in ("output_dir", "which")},
        **made,
        "megabytes": round(megabytes, 2),
        "processor_seconds": round(time.process_time() - start, 1),
        "machine": hardware(),
        "git_commit": git_commit(),
        "sha256": file_hashes(folder),
    }
    write_json(folder / RECORD_NAME, record)
    shutil.rmtree(work)
    print(json.dumps({key: value for key, value in record.items() if key not in ("machine", "sha256")}, indent=2))
    return record


def _changed(settings: dict[str, Any], own: Any) -> list[str]:
    """Flags that the defaults do not say."""
    defaults = {**asdict(SampleArguments()), **asdict(type(own)())}
    names = [name for name in settings if name not in ("output_dir", "which") and settings[name] != defaults[name]]
    return [f"--{name} {settings[name]}" for name in names]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Make the checkpoints."""
    recipes = {
        "sim-ctc": (sample_ctc, sample_ctc.CTCArguments),
        "sim-encoder": (sample_encoder, sample_encoder.EncoderArguments),
        "sim-llm": (sample_llm, sample_llm.LLMArguments),
    }
    parser = ExperimentParser(
        [SampleArguments, *(arguments for _, arguments in recipes.values())],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/make_sample_checkpoints.py --output_dir runs/samples",
    )
    shared, *own = parser.parse(argv)
    unknown = sorted(set(shared.which) - set(recipes))
    if unknown:
        raise ValueError(f"--which {unknown[0]} is unknown; choose from {', '.join(recipes)}")
    return {
        name: make(name, shared, recipe, settings)
        for (name, (recipe, _)), settings in zip(recipes.items(), own, strict=True)
        if name in shared.which
    }


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"make_sample_checkpoints: {error}")
