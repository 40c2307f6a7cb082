"""Train a merger: a language model that reads what several decoders wrote and writes the sentence that was meant.

    python examples/train_merger.py --config examples/configs/merger_qwen2_5.yaml \
        --train_predictions runs/seed*/validation/predictions.jsonl \
        --eval_predictions runs/seed*/test/predictions.jsonl

Every file is what `bit-speech evaluate` wrote for one decoder. The training sentences must be ones that the decoders
did not see while *they* were trained; their word error rates are told, so that a mismatch shows. Scores are
free-running: at evaluation the merger sees transcripts alone.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.decoding import LLMMerger, confusion_network
from bit_speech.decoding.merging import INSTRUCTION
from bit_speech.evaluation import normalize_text, paired_bootstrap, word_error_rate
from bit_speech.files import write_json
from bit_speech.training import SealCheckpoints, newest_complete_checkpoint
from bit_speech.training.merger import STAGES, merger_trainer, read_predictions


@dataclass
class MergerArguments:
    """Which model learns from which transcripts, and how."""

    _show_all_settings = True

    model: str = HfArg(default="Qwen/Qwen2.5-1.5B-Instruct", help="Causal language model: Hub id or folder.")
    train_predictions: list[str] = HfArg(default_factory=list, help="predictions.jsonl of every decoder, to train on.")
    eval_predictions: list[str] = HfArg(default_factory=list, help="The same for the sentences that are scored.")
    output_dir: str = HfArg(default="runs/merger", help="Where checkpoints, the model and the scores go.")
    stages: list[str] = HfArg(default_factory=lambda: ["sft"], help="In this order: sft, then dpo or grpo.")
    instruction: str = HfArg(default=INSTRUCTION, help="What the prompt asks for; see merger_prompt.")
    max_candidates: int = HfArg(default=10, help="Distinct transcripts shown in a prompt.")
    lora_rank: int | None = HfArg(default=None, help="Train adapters of this rank; all weights if none.")
    device: str = HfArg(default="cpu", help="cpu, cuda, ...")
    dtype: str = HfArg(default="auto", help="float32, bfloat16, or auto: as saved.")
    seed: int = HfArg(default=42, help="Seed of batches, adapters and sampling.")
    max_steps: int = HfArg(default=-1, help="Steps of each stage; -1 counts epochs instead.")
    per_device_train_batch_size: int = HfArg(default=8, help="Prompts (for grpo: answers) per step.")
    gradient_accumulation_steps: int = HfArg(default=1, help="Steps whose gradients are added up.")
    logging_steps: int = HfArg(default=10, help="Log the loss every so many steps.")
    save_steps: int = HfArg(default=200, help="Write a checkpoint every so many steps.")
    bf16: bool = HfArg(default=False, help="Compute in bfloat16.")
    sft_learning_rate: float = HfArg(default=2e-4, help="Peak learning rate of supervised fine-tuning.")
    sft_epochs: float = HfArg(default=3.0, help="Passes over the training sentences.")
    dpo_learning_rate: float = HfArg(default=5e-6, help="Peak learning rate of preference optimization.")
    dpo_epochs: float = HfArg(default=1.0, help="Passes over the pairs.")
    dpo_beta: float = HfArg(default=0.1, help="How closely the model keeps to what it was before.")
    grpo_learning_rate: float = HfArg(default=2e-6, help="Peak learning rate of policy gradients.")
    grpo_epochs: float = HfArg(default=1.0, help="Passes over the prompts.")
    grpo_num_generations: int = HfArg(default=8, help="Answers sampled for each prompt.")

    def __post_init__(self) -> None:
        """Check what can be checked before a model is loaded."""
        if not self.train_predictions:
            raise ValueError("give --train_predictions: one predictions.jsonl per decoder")
        if self.eval_predictions and len(self.eval_predictions) != len(self.train_predictions):
            raise ValueError("give as many --eval_predictions as --train_predictions, in the same order of decoders")
        if not self.stages or set(self.stages) - set(STAGES):
            raise ValueError(f"stages is {self.stages}; name some of {', '.join(STAGES)}")


def stage_settings(arguments: MergerArguments, stage: str) -> dict[str, Any]:
    """Arguments of TRL's configuration for one stage."""
    settings = {
        "output_dir": str(Path(arguments.output_dir) / stage),
        "learning_rate": getattr(arguments, f"{stage}_learning_rate"),
        "num_train_epochs": getattr(arguments, f"{stage}_epochs"),
        "max_steps": arguments.max_steps,
        "per_device_train_batch_size": arguments.per_device_train_batch_size,
        "gradient_accumulation_steps": arguments.gradient_accumulation_steps,
        "logging_steps": arguments.logging_steps,
        "save_steps": arguments.save_steps,
        "save_total_limit": 2,
        "lr_scheduler_type": "cosine",
        "warmup_steps": 0.05,
        "bf16": arguments.bf16,
        "use_cpu": arguments.device == "cpu",
        "seed": arguments.seed,
        "report_to": "none",
        "gradient_checkpointing": arguments.device != "cpu",
    }
    if stage == "dpo":
        settings["beta"] = arguments.dpo_beta
    if stage == "grpo":
        settings |= {"num_generations": arguments.grpo_num_generations, "max_completion_length": 64}
    return settings


def normalized(paths: list[str]) -> tuple[list[list[str]], list[str]]:
    """Transcripts and references in the form in which they are scored."""
    candidates, references = read_predictions(paths)
    return [[normalize_text(text) for text in row] for row in candidates], [normalize_text(text) for text in references]


def score(merger: LLMMerger, candidates: list[list[str]], references: list[str]) -> dict[str, Any]:
    """Word error rates of every decoder, of the vote, and of the merger's own sentences."""
    voted = [confusion_network(row).best() for row in candidates]
    written = [normalize_text(text) for text in merger.merge(candidates)]
    return {
        "decoders": [word_error_rate(references, list(texts)).to_dict() for texts in zip(*candidates, strict=True)],
        "vote": word_error_rate(references, voted).to_dict(),
        "merger": word_error_rate(references, written).to_dict(),
        "merger_minus_vote": paired_bootstrap(references, written, voted).to_dict(),
    }


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment."""
    parser = ExperimentParser(
        [MergerArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="python examples/train_merger.py --config examples/configs/merger_qwen2_5.yaml --train_predictions ...",
    )
    (arguments,) = parser.parse(argv)
    output = Path(arguments.output_dir)
    parser.save_beside(output, write=False)
    set_seed(arguments.seed)
    candidates, references = normalized(arguments.train_predictions)
    settings = {"instruction": arguments.instruction, "max_candidates": arguments.max_candidates}
    merger = LLMMerger.from_pretrained(
        arguments.model, device=arguments.device, dtype=arguments.dtype, batch_size=16, **settings
    )
    parser.save_beside(output)
    for stage in arguments.stages:
        trainer = merger_trainer(
            stage, merger, candidates, references, arguments.lora_rank, **stage_settings(arguments, stage)
        )
        trainer.add_callback(SealCheckpoints())
        checkpoint = newest_complete_checkpoint(output / stage)
        trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        merger.model = trainer.model
    merger.save_pretrained(output / "model")
    scores: dict[str, Any] = {"training_sentences": len(references), "stages": arguments.stages}
    scores["decoders_on_training_sentences"] = [
        word_error_rate(references, list(texts), num_bootstrap=0).rate for texts in zip(*candidates, strict=True)
    ]
    if arguments.eval_predictions:
        scores |= score(
            LLMMerger.from_pretrained(str(output / "model"), device=arguments.device),
            *normalized(arguments.eval_predictions),
        )
    write_json(output / "scores.json", scores)
    print(json.dumps(scores, indent=2))
    return scores


if __name__ == "__main__":
    try:
        main()
    except (ValueError, FileNotFoundError) as error:
        sys.exit(f"train_merger: {error}")
