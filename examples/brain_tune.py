"""Tune a speech model to predict the brains of people who listen to stories.

    python examples/brain_tune.py --config examples/configs/brain_tune_simulated.yaml
    python examples/brain_tune.py --config examples/configs/brain_tune_lebel.yaml --stories FOLDER

`FOLDER` comes from one of the converters (`datasets_scripts/convert_lebel.py`, ...). The same command continues a
stopped run. `merged` in the output is an ordinary speech model; `examples/encode_voxels.py` compares it with others.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech import BrainTunedForVoxelPrediction, BrainTuningArguments, BrainTuningTrainer, StoryFeatureExtractor
from bit_speech.arguments import ExperimentParser
from bit_speech.data.story_runs import list_runs, read_run
from bit_speech.evaluation.noise_ceiling import noise_ceiling
from bit_speech.simulation.story_cohort import CohortConfig, speak_espeak, speak_tones, write_cohort
from bit_speech.training import COMMON_SETTINGS, newest_complete_checkpoint
from bit_speech.training.brain_tuning import StoryRunDataset, fit_head, save_merged_body

CONTROLS = ("none", "time_shifted", "permuted")


@dataclass
class ExperimentArguments:
    """Which model hears which stories, and whose brains it predicts."""

    _show_all_settings = True

    speech_checkpoint: str = HfArg(default="facebook/wav2vec2-base", help="Folder or Hub name of a speech model.")
    stories: str | None = HfArg(default=None, help="Folder of stories, from a converter.")
    simulate: dict[str, Any] | str | None = HfArg(
        default=None, help="Settings of `write_cohort` (JSON), with `speech` (tones or espeak) and `cohort` (a dict)."
    )
    participants: list[str] = HfArg(default_factory=list, help="Who to tune on; default everybody.")
    max_stories: int | None = HfArg(default=None, help="Stories to train on, the first of them.")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of BrainTunedConfig (JSON).")
    end_offset_s: float = HfArg(default=1.0, help="A clip ends so long after its TR began.")
    fit_head: bool = HfArg(default=False, help="Start the head at a ridge regression; the published one is random.")
    weigh_by_ceiling: bool = HfArg(default=False, help="Weigh voxels by the noise ceiling of the test story's repeats.")
    control: str = HfArg(
        default="none", help="none, time_shifted or permuted (blocks of 15 TRs): BOLD of another time."
    )

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        if (self.stories is None) == (self.simulate is None):
            raise ValueError("give either --stories (a folder) or --simulate (settings), and not both")
        if self.control not in CONTROLS:
            raise ValueError(f"--control {self.control!r} is unknown; choose one of {', '.join(CONTROLS)}")
        for name in ("simulate", "model_config"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))


def simulate(settings: dict[str, Any], folder: Path) -> Path:
    """Write a simulated cohort, once."""
    if not (folder / "cohort.json").exists():
        settings = dict(settings)
        speak = {"tones": speak_tones, "espeak": speak_espeak}[settings.pop("speech", "tones")]
        write_cohort(folder, CohortConfig(**settings.pop("cohort", {})), speak=speak, **settings)
    return folder


def disturb(responses: np.ndarray, control: str, seed: int) -> np.ndarray:
    """BOLD of another time of the same run, so that only chance can be learned."""
    if control == "time_shifted":
        return np.roll(responses, len(responses) // 2, axis=0)
    if control == "permuted":
        blocks = np.array_split(np.arange(len(responses)), max(2, len(responses) // 15))
        order = np.random.default_rng([seed, len(responses)]).permutation(len(blocks))
        return responses[np.concatenate([blocks[i] for i in order])]
    return responses


def read_datasets(
    arguments: ExperimentArguments, folder: Path, seed: int
) -> tuple[StoryRunDataset, StoryRunDataset | None]:
    """Runs to train on, and runs that choose the checkpoint; a participant who lacks a story goes without it."""
    runs = list_runs(folder)
    people = arguments.participants or sorted(runs)
    unknown = [name for name in people if name not in runs]
    if unknown:
        raise ValueError(f"--participants {' '.join(unknown)} have no runs; there are {', '.join(sorted(runs))}")
    parts: dict[str, list[tuple[str, str]]] = {"train": [], "validation": []}
    for person in people:
        for story in runs[person]:
            split = read_run(folder, person, story).split
            if split in parts:
                parts[split].append((person, story))
    if arguments.max_stories is not None:
        kept = sorted({story for _, story in parts["train"]})[: arguments.max_stories]
        parts["train"] = [pair for pair in parts["train"] if pair[1] in kept]
    train = StoryRunDataset.from_folder(folder, parts["train"], people)
    for run in train.runs:
        run.responses[:] = disturb(run.responses.copy(), arguments.control, seed)
    validation = StoryRunDataset.from_folder(folder, parts["validation"], people) if parts["validation"] else None
    return train, validation


def ceilings(folder: Path, people: list[str]) -> np.ndarray:
    """Noise ceiling of every voxel, averaged over participants with repeats."""
    found = []
    for person, stories in list_runs(folder).items():
        for story in stories if person in people else []:
            repeats = read_run(folder, person, story, with_repeats=True).repeats
            if repeats is not None:
                found.append(noise_ceiling(repeats))
    if not found:
        raise ValueError("--weigh_by_ceiling needs a story that was heard several times; none has repeats")
    return np.mean(found, axis=0)


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment."""
    parser = ExperimentParser([ExperimentArguments, BrainTuningArguments], __doc__ or "", highlights=COMMON_SETTINGS)
    arguments, training = parser.parse(argv)
    set_seed(training.seed)
    output = Path(training.output_dir)
    folder = Path(arguments.stories) if arguments.stories else simulate(dict(arguments.simulate), output / "cohort")
    train, validation = read_datasets(arguments, folder, training.seed)
    if validation is None:
        training.eval_strategy, training.load_best_model_at_end = "no", False
    values = {"num_voxels": train.num_voxels, "participants": train.participants, **(arguments.model_config or {})}
    model = BrainTunedForVoxelPrediction.from_speech_checkpoint(arguments.speech_checkpoint, **values)
    extractor = StoryFeatureExtractor(
        clip_s=model.config.clip_s,
        end_offset_s=arguments.end_offset_s,
        num_mel_bins=getattr(model.config.body_config, "num_mel_bins", 0),
    )
    weights = ceilings(folder, train.participants) if arguments.weigh_by_ceiling else None
    checkpoint = newest_complete_checkpoint(output)
    if arguments.fit_head and checkpoint is None:
        fit_head(model, train, extractor)
    trainer = BrainTuningTrainer(model, training, train, validation, extractor=extractor, voxel_weights=weights)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores = trainer.evaluate(validation, metric_key_prefix="validation") if validation else {}
    trainer.save_model(str(output / "model"))
    save_merged_body(trainer.model, output / "merged")
    trainer.save_run_record(validation=scores, experiment=parser.resolved)
    print(json.dumps(scores, indent=2))
    return scores


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(f"brain_tune: {error}")
