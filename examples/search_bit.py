"""Search batch size, learning rate and weight decay of the phoneme model as the paper did: 30 random samples.

    python examples/search_bit.py --config examples/configs/bit_simulated.yaml --output_dir runs/search
    python examples/search_bit.py --config examples/configs/bit_t15.yaml --trials runs/t15_trials --backend ray

Takes the settings of `train_bit_ctc.py`; what is searched is drawn anew for every sample. Ray spreads the samples over
the machines of a cluster (`pip install bit-speech[cluster]`).
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArg

from bit_speech import BITTrainer, BITTrainingArguments
from bit_speech.arguments import ExperimentParser
from bit_speech.data import Augmentation
from bit_speech.experiments.train_ctc import AUGMENTATION, ExperimentArguments, build
from bit_speech.experiments.trials import read_trials
from bit_speech.files import write_json
from bit_speech.training import COMMON_SETTINGS
from bit_speech.training.search import random_search


@dataclass
class SearchArguments:
    """How the search goes."""

    _show_all_settings = True

    samples: int = HfArg(default=30, help="Random samples; the paper took 30.")
    backend: str = HfArg(default="optuna", help="optuna (one after the other) or ray (a cluster).")


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the search."""
    parser = ExperimentParser(
        [ExperimentArguments, SearchArguments, BITTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/search_bit.py --config examples/configs/bit_simulated.yaml --samples 10",
        highlights=COMMON_SETTINGS,
    )
    arguments, search, training = parser.parse(argv)
    # Only the last evaluation of a sample counts, and no weights are kept.
    training.save_strategy, training.load_best_model_at_end = "no", False
    train_trials, eval_trials = read_trials(
        arguments.trials, arguments.simulate, arguments.simulation_seed, arguments.train_split, arguments.eval_split
    )
    processor, _ = build(arguments, train_trials)
    trainer = BITTrainer(
        None,
        training,
        train_trials,
        eval_trials,
        processing_class=processor,
        augmentation=Augmentation(**{name: getattr(arguments, name) for name in AUGMENTATION}),
        model_init=lambda: build(arguments, train_trials)[1],
    )
    best = random_search(trainer, "eval_per", n_trials=search.samples, backend=search.backend)
    result = {"eval_per": best.objective, **best.hyperparameters}
    write_json(Path(training.output_dir) / "best.json", result)
    print(json.dumps(result, indent=2))
    return result


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError, ImportError) as error:
        sys.exit(f"search_bit: {error}")
