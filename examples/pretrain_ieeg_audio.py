"""Pretrain an encoder of intracranial EEG on days of ambient sound, or finetune it on a task.

    python examples/pretrain_ieeg_audio.py --config examples/configs/pretrain_ieeg_audio_simulated.yaml
    python examples/pretrain_ieeg_audio.py --config examples/configs/finetune_ieeg_audio_simulated.yaml

`windows` are folders that `bit-speech convert` of an iEEG corpus wrote (see docs/ieeg_audio.md); one a participant.
`simulate` makes a patient with known truth instead. The same command continues a run that was stopped. Model and
processor are then in `<output_dir>/model`: give that folder to `--pretrained`, or to `retrieve_speech.py`.
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

from bit_speech.arguments import ExperimentParser
from bit_speech.data.aligned_segments import WindowSet, join_windows, load_segments, make_windows, take_hours
from bit_speech.data.audio_features import CachedFeatures, LogMelFeatures, SpeechModelFeatures
from bit_speech.evaluation.retrieval import retrieval_ranks, score_ranks
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from bit_speech.training import newest_complete_checkpoint
from bit_speech.training.ieeg_audio_trainer import IEEG_AUDIO_SETTINGS, IEEGAudioTrainer, IEEGAudioTrainingArguments
from configuration_bit import ENCODER_PRESETS, IEEGAudioConfig
from modeling_bit import IEEGAudioForRetrieval
from processing_bit import IEEGAudioProcessor, IEEGFeatureExtractor


@dataclass
class ExperimentArguments:
    """What is learnt from what."""

    _show_all_settings = True

    segments: list[str] = HfArg(default_factory=list, help="Folders of aligned segments, one a participant.")
    simulate: dict[str, Any] | str | None = HfArg(default=None, help="Or patients to make up: name -> settings (JSON).")
    condition: str = HfArg(default="ambient", help="What is trained on: ambient, clean or clean_in_room.")
    test_conditions: list[str] = HfArg(default_factory=lambda: ["ambient"], help="What is scored at the end.")
    audio_features: str = HfArg(default="log_mel", help="log_mel, or the Hub name or folder of a speech model.")
    audio_layer: int = HfArg(default=19, help="Which hidden states of the speech model; 19 of 24 in the paper.")
    cache: str = HfArg(default="runs/audio_features", help="Where audio features and windows are kept.")
    hours: float | None = HfArg(default=None, help="Only so many hours of training windows, whole files.")
    preset: str = HfArg(default="brainmagick", help="Shape of the encoder: brainmagick or neuralbench.")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of the model's configuration (JSON).")
    normalization: str = HfArg(default="fixed", help="fixed, or running (follows slow drift).")
    pretrained: str | None = HfArg(default=None, help="Folder of a pretrained model to start from.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        for name in ("simulate", "model_config"):
            if isinstance(getattr(self, name), str):
                setattr(self, name, json.loads(getattr(self, name)))
        if bool(self.segments) == bool(self.simulate):
            raise ValueError("give either --segments, folders of aligned segments, or --simulate, patients to make up")
        if self.preset not in ENCODER_PRESETS:
            raise ValueError(f"--preset is {self.preset!r}; choose one of {', '.join(ENCODER_PRESETS)}")


def read_windows(arguments: ExperimentArguments) -> tuple[list[WindowSet], dict[str, Any]]:
    """Windows of every participant with their audio features, and how those were made."""
    if arguments.audio_features == "log_mel":
        features: Any = LogMelFeatures()
    else:
        features = SpeechModelFeatures(arguments.audio_features, arguments.audio_layer)
    cached, sets = CachedFeatures(features, arguments.cache), []
    for folder in arguments.segments:
        sets.append(make_windows(load_segments(folder), cached))
    for number, (name, settings) in enumerate((arguments.simulate or {}).items()):
        patient = SimulatedPatient(ContinuousConfig(participant_id=name, **settings), seed=number)
        parts = [make_windows(patient.segments(file_id), features) for file_id in patient.splits]
        sets.append(join_windows(parts))
    return sets, features.settings


def build(arguments: ExperimentArguments, sets: list[WindowSet], settings: dict[str, Any]) -> tuple[Any, Any]:
    """Model and processor, new or pretrained. The statistics of audio are always those of pretraining."""
    if arguments.pretrained:
        model = IEEGAudioForRetrieval.from_pretrained(arguments.pretrained)
        return model, IEEGAudioProcessor.from_pretrained(arguments.pretrained)
    participants = {str(part.participant[0]): part.ieeg.shape[2] for part in sets}
    sessions = sorted({str(name) for part in sets for name in part.session})
    changes = {"participants": participants, "sessions": sessions, "embedding_size": sets[0].targets.shape[1]}
    model = IEEGAudioForRetrieval(IEEGAudioConfig.preset(arguments.preset, **changes, **(arguments.model_config or {})))
    extractor = IEEGFeatureExtractor(participants, sessions, normalization=arguments.normalization)
    if arguments.normalization == "fixed":
        extractor.fit({str(p.participant[0]): [p.ieeg.reshape(-1, p.ieeg.shape[2])] for p in sets})
    processor = IEEGAudioProcessor(extractor, target_settings=settings)
    processor.fit_targets(np.concatenate([part.targets for part in sets]))
    return model, processor


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment."""
    parser = ExperimentParser(
        [ExperimentArguments, IEEGAudioTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/pretrain_ieeg_audio.py --config examples/configs/pretrain_ieeg_audio_simulated.yaml",
        highlights=IEEG_AUDIO_SETTINGS,
    )
    arguments, training = parser.parse(argv)
    parser.save_beside(training.output_dir, write=False)
    set_seed(training.seed)
    with training.main_process_first(desc="reading windows"):
        sets, settings = read_windows(arguments)
    train = [take_hours(p.where(split="train", condition=arguments.condition), arguments.hours) for p in sets]
    held_out = [part.where(split="validation", condition=arguments.condition) for part in sets]
    model, processor = build(arguments, train, settings)
    trainer = IEEGAudioTrainer(model, training, processor, train, held_out)
    parser.save_beside(training.output_dir, write=trainer.is_world_process_zero())
    checkpoint = newest_complete_checkpoint(training.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(Path(training.output_dir) / "model"))
    scores: dict[str, Any] = {}
    for part in sets:
        for condition in arguments.test_conditions:
            test = part.where(split="test", condition=condition)
            ranks = retrieval_ranks(trainer.embed(test), processor.normalize_targets(test.targets))
            kept = test.speech >= 0.5
            entry = {"all": score_ranks(ranks, test.file).to_dict()}
            if kept.any():
                entry["speech"] = score_ranks(ranks.select(kept), test.file[kept]).to_dict()
            scores[f"{test.participant[0]}/{condition}"] = entry
    trainer.save_run_record(test=scores, experiment=parser.resolved)
    if trainer.is_world_process_zero():
        print(json.dumps(scores, indent=2))
    return scores


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"pretrain_ieeg_audio: {error}")
