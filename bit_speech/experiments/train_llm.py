r"""Train the end-to-end decoder: encoder, projector and language model in one network.

    bit-speech train llm --config examples/configs/bit_llm_small.yaml
    torchrun --nproc-per-node 2 -m bit_speech.cli train llm \
        --config examples/configs/bit_llm_paper_t15.yaml --trials DIR

The encoder comes from `bit-speech train ctc` (or `pretrain`), the language model from any folder or Hub name.
The same command continues a run that was stopped.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser
from bit_speech.data import Augmentation
from bit_speech.evaluation import word_error_rate
from bit_speech.experiments.trials import check_source, read_trials
from bit_speech.training import (
    COMMON_SETTINGS,
    BITLLMTrainingArguments,
    ContrastiveTrainer,
    build_end_to_end,
    choose_trained_parts,
    load_end_to_end,
    load_in_4bit,
    merge_adapters,
    newest_complete_checkpoint,
)
from configuration_bit import BITConfig
from processing_bit import BITFeatureExtractor, BITLLMProcessor

# The paper's way to generate (arXiv 2511.21740), scored beside the greedy one that chooses the checkpoint.
NUCLEUS = {"do_sample": True, "top_p": 0.9, "temperature": 0.7, "top_k": 0, "num_beams": 1}
STAGE_SETTINGS = (
    "projector_learning_rate",
    "language_model_learning_rate",
    "negative_queue",
    "max_new_tokens",
    "num_beams",
)


@dataclass
class EndToEndArguments:
    """What is put together, and what of it learns."""

    _show_all_settings = True

    encoder: str = HfArg(default="", help="Folder of `bit-speech train ctc` (or `pretrain`), with its processor.")
    start_from: str | None = HfArg(
        default=None, help="Go on from this end-to-end model, e.g. of another task, instead."
    )
    from_scratch: bool = HfArg(default=False, help="Keep only the encoder's sizes and start it anew.")
    language_model: str = HfArg(default="", help="Folder or Hub name: causal LM, Qwen2-Audio or Aero-1-Audio.")
    dtype: str = HfArg(default="auto", help="Precision of the language model's weights.")
    mode: str = HfArg(default="lora", help="What of the language model learns: lora, frozen or full.")
    lora_rank: int = HfArg(default=8, help="Rank of the adapters.")
    lora_alpha: int = HfArg(default=32, help="Their scale is alpha / rank.")
    lora_dropout: float = HfArg(default=0.2, help="Dropout on what they read.")
    base_in_4bit: bool = HfArg(default=False, help="Keep the language model in 4 bits (lora, CUDA only).")
    model_config: dict[str, Any] | str | None = HfArg(default=None, help="Fields of BITLLMConfig (JSON).")
    processor_config: dict[str, Any] | str | None = HfArg(default=None, help="Settings of BITLLMProcessor (JSON).")
    trials: str | None = HfArg(default=None, help="Folder of trials, from `bit-speech convert`.")
    simulate: str | None = HfArg(default=None, help="Simulate this preset instead: demo, t12-like, t15-like.")
    simulation_seed: int = HfArg(default=0, help="Another seed is another simulated participant.")
    train_split: str = HfArg(default="train", help="Split to train on.")
    eval_split: str = HfArg(default="validation", help="Split that chooses the checkpoint and is scored.")
    white_noise_sd: float = HfArg(default=0.0, help="Noise added to every bin and channel (the paper: none here).")
    constant_offset_sd: float = HfArg(default=0.0, help="Offset added to every channel of a trial.")
    score_sampling: bool = HfArg(default=False, help="At the end also score the paper's nucleus sampling.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        parts = [name for name in ("encoder", "language_model") if getattr(self, name)]
        if self.start_from is None and len(parts) < 2:
            raise ValueError("--encoder and --language_model are needed (or --start_from, an end-to-end model)")
        if self.start_from is not None and (parts or self.model_config or self.processor_config or self.from_scratch):
            raise ValueError("--start_from is a whole model: leave out --encoder, --language_model and their settings")
        check_source(self.trials, self.simulate)
        if self.base_in_4bit and self.mode != "lora":
            raise ValueError(f"--base_in_4bit needs --mode lora: weights in 4 bits cannot learn, got {self.mode!r}")
        for name in ("model_config", "processor_config"):
            value = getattr(self, name)
            setattr(self, name, json.loads(value) if isinstance(value, str) else dict(value or {}))


def build(arguments: EndToEndArguments, base: Path) -> tuple[Any, BITLLMProcessor]:
    """The network at the start of the run, which is kept: adapters need it, and a continued run starts from it.

    Args:
        arguments ([`EndToEndArguments`]): the settings.
        base (`Path`): where it is kept.

    Returns:
        `tuple`: the model, of which the wanted parts learn, and the processor.
    """
    if not base.is_dir():
        if arguments.start_from is not None:
            model = load_end_to_end(arguments.start_from)
            processor = BITLLMProcessor.from_pretrained(arguments.start_from)
        else:
            old, new = arguments.encoder, arguments.from_scratch
            sizes: Any = arguments.model_config
            prompts: Any = arguments.processor_config
            model, processor = build_end_to_end(
                BITConfig.from_pretrained(old) if new else old,
                arguments.language_model,
                feature_extractor=BITFeatureExtractor.from_pretrained(old),
                dtype=arguments.dtype,
                processor_settings=prompts,
                **sizes,
            )
        unfinished = base.with_name(f".{base.name}.{os.getpid()}.tmp")
        model.save_pretrained(unfinished)
        processor.save_pretrained(unfinished)
        os.replace(unfinished, base)
    processor = BITLLMProcessor.from_pretrained(base)
    model = load_in_4bit(base) if arguments.base_in_4bit else load_end_to_end(base, text_dtype=arguments.dtype)
    adapters = {name: getattr(arguments, f"lora_{name}") for name in ("rank", "alpha", "dropout")}
    return choose_trained_parts(model, arguments.mode, base, **adapters), processor


def main(argv: list[str] | None = None) -> dict[str, Any]:
    """Run the experiment.

    Args:
        argv (`list[str]`, *optional*): the settings as a command line without the program's name.

    Returns:
        `dict`: `final_evaluation`, and `nucleus_sampling` when asked for.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when a folder or file is not there.
    """
    parser = ExperimentParser(
        [EndToEndArguments, BITLLMTrainingArguments],
        description=(__doc__ or "").split("\n\n")[0],
        example="bit-speech train llm --config examples/configs/bit_llm_small.yaml --mode full",
        highlights=(*COMMON_SETTINGS, *STAGE_SETTINGS),
    )
    parser.prog = "bit-speech train llm"
    arguments, training = parser.parse(argv)
    output = Path(training.output_dir)
    parser.save_beside(output, write=False)
    set_seed(training.seed)
    train_trials, eval_trials = read_trials(
        arguments.trials, arguments.simulate, arguments.simulation_seed, arguments.train_split, arguments.eval_split
    )
    with training.main_process_first(desc="putting the network together"):
        model, processor = build(arguments, output / "base")
    noise = Augmentation(white_noise_sd=arguments.white_noise_sd, constant_offset_sd=arguments.constant_offset_sd)
    trainer = ContrastiveTrainer(
        model,
        training,
        train_dataset=train_trials,
        eval_dataset=eval_trials,
        processing_class=processor,
        augmentation=noise,
    )
    parser.save_beside(output, write=trainer.is_world_process_zero())
    checkpoint = newest_complete_checkpoint(output)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    scores: dict[str, Any] = {"final_evaluation": trainer.evaluate()}
    if arguments.score_sampling:
        set_seed(training.seed)
        references: Any = trainer.evaluation_sets()["eval"]
        rate = word_error_rate(references.sentences, trainer.write_sentences(eval_trials, **NUCLEUS))
        scores["nucleus_sampling"] = {"wer": rate.rate, "low": rate.low, "high": rate.high}
    trainer.save_model(str(output / "model"))
    trainer.save_run_record(**scores, experiment=parser.resolved)
    if trainer.is_world_process_zero():
        if arguments.mode == "lora" and not arguments.base_in_4bit:
            merged = merge_adapters(trainer.model)
            merged.save_pretrained(output / "merged")
            processor.save_pretrained(output / "merged")
        print(json.dumps({key: value for key, value in scores.items() if key != "experiment"}, indent=2))
    return scores
