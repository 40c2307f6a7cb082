"""Training the merger with TRL: first by example, then by preference or by reward."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bit_speech.decoding import LLMMerger
from bit_speech.decoding.tuning import count_word_errors
from bit_speech.import_utils import require

STAGES = ("sft", "dpo", "grpo")
_KEY = ("session_id", "block_index", "trial_index")


def read_predictions(paths: Sequence[str | os.PathLike[str]]) -> tuple[list[list[str]], list[str]]:
    """Read what several decoders wrote about the same trials.

    Args:
        paths (sequence of `str`): one `predictions.jsonl` per decoder, as `bit-speech evaluate` writes them, with words
            and reference sentences.

    Returns:
        `tuple[list[list[str]], list[str]]`: for every trial what each decoder wrote, in the order of the files, and the
        references.

    Raises:
        ValueError: when a line lacks a sentence, or the files are about different trials.
    """
    if not paths:
        raise ValueError("there is no file of predictions; give one predictions.jsonl per decoder")
    tables: list[dict[tuple[Any, ...], Mapping[str, Any]]] = []
    for path in paths:
        rows = [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
        for number, row in enumerate(rows, start=1):
            missing = [name for name in (*_KEY, "hypothesis_text", "reference_text") if name not in row]
            if missing:
                raise ValueError(
                    f"line {number} of {path} has no {missing[0]}; evaluate with a lexicon and on known text"
                )
        tables.append({tuple(row[name] for name in _KEY): row for row in rows})
    for path, table in zip(paths[1:], tables[1:], strict=True):
        if table.keys() != tables[0].keys():
            odd = sorted(map(str, table.keys() ^ tables[0].keys()))
            raise ValueError(f"{path} and {paths[0]} are about different trials, for example {odd[0]}")
    candidates = [[table[key]["hypothesis_text"] for table in tables] for key in tables[0]]
    return candidates, [row["reference_text"] for row in tables[0].values()]


def merger_examples(
    merger: LLMMerger, candidate_lists: Sequence[Sequence[str]], references: Sequence[str]
) -> list[dict[str, Any]]:
    """Questions with their answers, for supervised fine-tuning.

    Args:
        merger (`LLMMerger`): writes the prompts.
        candidate_lists (sequence of sequences of `str`): what each decoder wrote, for every sentence.
        references (sequence of `str`): what was said, in the form in which the merger shall write it.

    Returns:
        `list[dict]`: columns `prompt` and `completion` as TRL takes them, and `reference`.

    Raises:
        ValueError: when the numbers of lists and references differ, or there are none.
    """
    if len(candidate_lists) != len(references) or not references:
        raise ValueError(
            f"{len(candidate_lists)} lists of candidates and {len(references)} references; give one for each"
        )
    rows = []
    for candidates, reference in zip(candidate_lists, references, strict=True):
        prompt = merger.prompt(candidates)
        rows.append({"prompt": prompt, "completion": _answer(prompt, reference), "reference": reference})
    return rows


def preference_pairs(
    merger: LLMMerger, candidate_lists: Sequence[Sequence[str]], references: Sequence[str]
) -> list[dict[str, Any]]:
    """What was said beside what the merger wrote instead, for direct preference optimization.

    Args:
        merger (`LLMMerger`): writes freely; its errors become the rejected answers.
        candidate_lists (sequence of sequences of `str`): what each decoder wrote, for every sentence.
        references (sequence of `str`): what was said.

    Returns:
        `list[dict]`: columns `prompt`, `chosen` and `rejected`. Where the merger is right, the candidate with most
        errors is rejected; sentences on which nobody errs are left out.

    Raises:
        ValueError: when nobody errs anywhere.
    """
    pairs = []
    written = merger.merge(candidate_lists)
    for candidates, reference, text in zip(candidate_lists, references, written, strict=True):
        words = reference.split()
        rejected = text
        if text.split() == words:
            rejected = max(candidates, key=lambda candidate: count_word_errors(words, candidate.split()))
        if rejected.split() != words:
            prompt = merger.prompt(candidates)
            pairs.append(
                {"prompt": prompt, "chosen": _answer(prompt, reference), "rejected": _answer(prompt, rejected)}
            )
    if not pairs:
        raise ValueError("neither the merger nor any candidate has an error, so there is nothing to prefer")
    return pairs


def word_error_reward(completions: Sequence[Any], reference: Sequence[str], **columns: Any) -> list[float]:
    """Reward for policy gradients: minus the word error rate of each answer.

    Args:
        completions (sequence of `str` or messages): what the model wrote.
        reference (sequence of `str`): what was said.
        **columns: other columns of the data set, not used.

    Returns:
        `list[float]`: 0 for a right answer, -1 when as many words are wrong as were said.

    Example:
        >>> word_error_reward(["the cat sat", "the bat"], ["the cat sat", "the cat sat"])
        [0.0, -0.6666666666666666]
    """
    texts = [one if isinstance(one, str) else one[-1]["content"] for one in completions]
    return [
        -count_word_errors(said.split(), text.split()) / max(1, len(said.split()))
        for text, said in zip(texts, reference, strict=True)
    ]


def merger_trainer(
    stage: str,
    merger: LLMMerger,
    candidate_lists: Sequence[Sequence[str]],
    references: Sequence[str],
    lora_rank: int | None = None,
    **settings: Any,
) -> Any:
    """Make the TRL trainer of one stage.

    Args:
        stage (`str`): `"sft"` (the right answer as an example), then `"dpo"` (the right answer is preferred to the
            merger's errors) or `"grpo"` (answers are sampled and rewarded by their word error rate).
        merger (`LLMMerger`): what is trained, in place.
        candidate_lists (sequence of sequences of `str`): what each decoder wrote about sentences that the decoders were
            *not* trained on; otherwise the merger learns from errors that are too few and too small.
        references (sequence of `str`): what was said.
        lora_rank (`int`, *optional*): train adapters of this rank on all linear layers; all weights when None.
        **settings: arguments of `trl.SFTConfig`, `trl.DPOConfig` or `trl.GRPOConfig`.

    Returns:
        `trl.SFTTrainer`, `trl.DPOTrainer` or `trl.GRPOTrainer`: call `train()`; afterwards set `merger.model` to its
        `model`.

    Raises:
        ValueError: when there is no such stage.
        ImportError: when `trl` (or `peft`, for adapters) is not installed.
    """
    if stage not in STAGES:
        raise ValueError(f"stage is {stage!r}; expected one of {', '.join(STAGES)}")
    from datasets import Dataset

    trl = require("trl")
    adapters = None
    if lora_rank is not None and not hasattr(merger.model, "peft_config"):
        adapters = require("peft").LoraConfig(
            r=lora_rank, lora_alpha=2 * lora_rank, target_modules="all-linear", task_type="CAUSAL_LM"
        )
    shared = {"model": merger.model, "processing_class": merger.tokenizer, "peft_config": adapters}
    if stage == "sft":
        rows = Dataset.from_list(merger_examples(merger, candidate_lists, references)).remove_columns("reference")
        config = trl.SFTConfig(completion_only_loss=True, **settings)
        return trl.SFTTrainer(args=config, train_dataset=rows, **shared)
    if stage == "dpo":
        import copy

        rows = Dataset.from_list(preference_pairs(merger, candidate_lists, references))
        # With adapters the frozen weights themselves are the reference.
        with_adapters = adapters is not None or hasattr(merger.model, "peft_config")
        frozen = None if with_adapters else copy.deepcopy(merger.model)
        return trl.DPOTrainer(args=trl.DPOConfig(**settings), train_dataset=rows, ref_model=frozen, **shared)
    rows = Dataset.from_list(merger_examples(merger, candidate_lists, references)).remove_columns("completion")
    config = trl.GRPOConfig(**settings)
    return trl.GRPOTrainer(args=config, train_dataset=rows, reward_funcs=word_error_reward, **shared)


def _answer(prompt: str | list[dict[str, str]], text: str) -> str | list[dict[str, str]]:
    return text if isinstance(prompt, str) else [{"role": "assistant", "content": text}]
