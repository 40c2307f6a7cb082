"""`sim-encoder`: an encoder pretrained by masked reconstruction on several simulated participants, without labels."""

from __future__ import annotations

import importlib
import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from transformers.hf_argparser import HfArg

from bit_speech.experiments import pretrain
from bit_speech.simulation import PRESETS, SimulatedParticipant, write_brain_to_text_25

# The encoder of the demonstration, but for its overlapping patches, which would show what is hidden.
ENCODER = {
    "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 256,
    "hidden_dropout": 0.05, "attention_dropout": 0.05, "embedding_dropout": 0.05, "mask_ratio": 0.4, "mask_max_span": 2,
}  # fmt: skip


@dataclass
class EncoderArguments:
    """How large, how long."""

    _show_all_settings = True

    encoder_participants: int = HfArg(default=4, help="Simulated participants; seeds follow the one of --seed.")
    encoder_sentences: int = HfArg(default=200, help="Sentences of each.")
    encoder_steps: int = HfArg(default=2000, help="Updates.")
    encoder_batch_size: int = HfArg(default=16, help="Trials per update.")
    encoder_learning_rate: float = HfArg(default=2e-3, help="Peak learning rate.")


def make(folder: Path, work: Path, shared: Any, arguments: EncoderArguments) -> dict[str, Any]:
    """Simulate, convert, pretrain with `bit-speech pretrain`, and save; what is returned goes into the record."""
    people = {}
    for seed in range(shared.participant_seed + 1, shared.participant_seed + 1 + arguments.encoder_participants):
        name = f"sim{seed}"
        config = replace(
            PRESETS[shared.preset], participant_id=name, train_sentences=arguments.encoder_sentences, val_sentences=0,
            test_sentences=0,
        )  # fmt: skip
        write_brain_to_text_25(SimulatedParticipant(config, seed=seed), work / name / "hdf5_data_final")
        importlib.import_module("datasets_scripts.convert_brain_to_text_25").convert(
            work / name / "hdf5_data_final", work / "trials" / name, allow_partial=True, progress=False
        )
        people[name] = seed
    scores = pretrain.main(
        [
            "--trials", *(str(work / "trials" / name) for name in people), f"--corpus={work / 'corpus'}",
            f"--output_dir={work / 'run'}", f"--model_config={json.dumps(ENCODER)}", "--eval_share=0.05",
            f"--max_steps={arguments.encoder_steps}", "--warmup_steps=0.05", "--use_cpu=true", "--logging_steps=50",
            f"--per_device_train_batch_size={arguments.encoder_batch_size}", f"--bf16={str(shared.bf16).lower()}",
            f"--learning_rate={arguments.encoder_learning_rate}", f"--seed={shared.seed}", "--save_strategy=no",
            "--eval_strategy=no", "--load_best_model_at_end=false",
        ]
    )  # fmt: skip
    shutil.copytree(work / "run" / "model", folder, ignore=shutil.ignore_patterns("*.py", "training_args*"))
    from bit_speech import BITForMaskedModeling

    return {
        "held_out_reconstruction": {
            key.removeprefix("eval_"): value for key, value in scores["final_evaluation"].items() if "r2" in key
        },
        "participants": people,
        "parameters": BITForMaskedModeling.from_pretrained(folder).num_parameters(),
    }
