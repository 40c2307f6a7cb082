"""Pretrain an encoder on unlabelled recordings of many participants by masked reconstruction.

    bit-speech pretrain --config examples/configs/pretrain_bit_all.yaml
    torchrun --nproc-per-node 8 -m bit_speech.cli pretrain --config examples/configs/pretrain_bit_all.yaml --bf16 true

`trials` are folders that `bit-speech convert` wrote. They are stored once as a memory-mapped corpus; held-out and test
trials stay out of it. The same command continues a run that was stopped, from its newest complete checkpoint. The
encoder is then in `<output_dir>/model`: give it to `bit-speech train ctc --pretrained`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data import CorpusSource, PretrainingCorpus, build_corpus
from bit_speech.training import (
    PRETRAINING_SETTINGS,
    BITPretrainer,
    BITPretrainingArguments,
    newest_complete_checkpoint,
)
from configuration_bit import BITConfig
from modeling_bit import BITForMaskedModeling


@dataclass
class ExperimentArguments:
    """What is pretrained on what."""

    _show_all_settings = True

    trials: list[str] = HfArg(default_factory=list, help="Folders of trials, from `bit-speech convert`, or of several.")
    corpus: str = HfArg(default="runs/corpus", help="Where the memory-mapped store of these trials lies, or is built.")
    normalization: str = HfArg(default="block", help="z-score per block, per session, or none.")
    species: list[str] | None = HfArg(default=None, help="Only datasets of these species, e.g. human macaque.")
    participants: list[str] | None = HfArg(default=None, help="Only these participants.")
    hours: float | None = HfArg(default=None, help="Only so many hours, an equal share of every dataset.")
    eval_share: float = HfArg(default=0.02, help="Share of the items that is held out to watch the reconstruction.")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of the model's configuration (JSON).")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        if not self.trials:
            raise ValueError("give --trials, at least one folder that `bit-speech convert` wrote")
        if not 0 <= self.eval_share < 1:
            raise ValueError(f"--eval_share is {self.eval_share}; it must be 0 (no evaluation) or a share below 1")
        if isinstance(self.model_config, str):
            self.model_config = json.loads(self.model_config)


def find_sources(folders: list[str]) -> list[CorpusSource]:
    """The conversions that folders hold: a folder of trials is one, a folder of such folders is several.

    Args:
        folders (`list[str]`): what was given as `trials`.

    Returns:
        `list[CorpusSource]`: those of a folder of several are named by participant and areas, as the converter named
            them, so that a read-in is shared only where the channels are the same.
    """
    sources = []
    for folder in map(Path, folders):
        parts = [] if (folder / "README.md").is_file() else sorted(card.parent for card in folder.glob("*/README.md"))
        sources += [CorpusSource(part, name=part.name.removeprefix(f"{folder.name}_")) for part in parts]
        sources += [] if parts else [CorpusSource(folder)]
    return sources


def read_corpus(arguments: ExperimentArguments) -> tuple[PretrainingCorpus, PretrainingCorpus | None]:
    """Items to train on, and items to watch.

    Args:
        arguments ([`ExperimentArguments`]): which recordings.

    Returns:
        `tuple`: the corpus to train on, and the held-out one or None.

    Raises:
        ValueError: when nothing is left, or there are fewer hours than asked for.
    """
    sources = find_sources(arguments.trials)
    corpus = PretrainingCorpus(build_corpus(sources, arguments.corpus, normalization=arguments.normalization))
    wanted = [
        number
        for number, entry in enumerate(corpus.manifest)
        if (arguments.species is None or entry["species"] in arguments.species)
        and (arguments.participants is None or entry["participant"] in arguments.participants)
    ]
    if not wanted:
        raise ValueError(
            f"no dataset of {arguments.corpus} is left by species {arguments.species} and participants "
            f"{arguments.participants}"
        )
    items = np.flatnonzero(np.isin(corpus.dataset_index, wanted))
    held_out = items[np.random.default_rng(0).random(len(items)) < arguments.eval_share]
    train = corpus.select(np.setdiff1d(items, held_out))  # type: ignore[arg-type]
    if arguments.hours is not None:
        share = arguments.hours / train.hours
        if share > 1:
            raise ValueError(f"--hours {arguments.hours} is more than the {train.hours:.2f} hours of the corpus")
        parts = [np.flatnonzero(train.dataset_index == number) for number in wanted]
        kept = [part[np.linspace(0, len(part) - 1, max(1, round(share * len(part)))).astype(int)] for part in parts]
        train = train.select(np.concatenate(kept))  # type: ignore[arg-type]
    return train, (corpus.select(held_out) if len(held_out) else None)  # type: ignore[arg-type]


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment.

    Args:
        argv (`list[str]`, *optional*): the settings as a command line without the program's name.

    Returns:
        `dict`: `final_evaluation`, when something is held out.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when a folder or file is not there.
    """
    parser = ExperimentParser(
        [ExperimentArguments, BITPretrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="bit-speech pretrain --config examples/configs/pretrain_bit_all.yaml --max_steps 1000",
        highlights=PRETRAINING_SETTINGS,
    )
    parser.prog = "bit-speech pretrain"
    arguments, training = parser.parse(argv)
    parser.save_beside(training.output_dir, write=False)
    set_seed(training.seed)
    with training.main_process_first(desc="building the corpus"):
        train, held_out = read_corpus(arguments)
    settings = {"mask_ratio": 0.5, **(arguments.model_config or {})}
    model = BITForMaskedModeling(BITConfig(participants=train.participants, **settings))
    trainer = BITPretrainer(model, training, train, held_out)
    if trainer.is_world_process_zero():
        print(train.table())
    parser.save_beside(training.output_dir, write=trainer.is_world_process_zero())
    checkpoint = newest_complete_checkpoint(training.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores = {"final_evaluation": trainer.evaluate()} if held_out is not None else {}
    trainer.save_model(str(Path(training.output_dir) / "model"))
    trainer.save_run_record(**scores, experiment=parser.resolved)
    if trainer.is_world_process_zero() and scores:
        shown = {key: value for key, value in scores["final_evaluation"].items() if key.startswith("eval_r2")}
        print(json.dumps(shown, indent=2))
    return scores
