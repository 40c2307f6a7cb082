"""Training a merger: what it learns from, what is rewarded, and that every stage of TRL runs on it."""

import json

import pytest
import torch

from bit_speech.decoding import LLMMerger, merger_prompt
from bit_speech.training import train_tokenizer
from bit_speech.training.merger import (
    merger_examples,
    merger_trainer,
    preference_pairs,
    read_predictions,
    word_error_reward,
)

CANDIDATES = [["the cat sat", "the bat sat"], ["a rat", "a rat"], ["go on", "go home"]]
REFERENCES = ["the cat sat", "a rat", "go home"]


def small_merger():
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=300, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=True,
    )  # fmt: skip
    tokenizer = train_tokenizer(["the cat sat candidates: vote: sentence: a rat go home"] * 5, 300)
    return LLMMerger(Qwen2ForCausalLM(config), tokenizer, instruction="")


def write_predictions(path, texts, references=REFERENCES):
    rows = [
        {"session_id": "s", "block_index": 1, "trial_index": number, "hypothesis_text": text, "reference_text": said}
        for number, (text, said) in enumerate(zip(texts, references))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_predictions_of_several_decoders_are_put_side_by_side(tmp_path):
    one = write_predictions(tmp_path / "one.jsonl", ["a", "b", "c"])
    two = write_predictions(tmp_path / "two.jsonl", ["x", "y", "z"])
    two.write_text("".join(reversed(two.read_text().splitlines(keepends=True))))
    assert read_predictions([one, two]) == ([["a", "x"], ["b", "y"], ["c", "z"]], REFERENCES)


def test_predictions_that_do_not_belong_together_are_refused(tmp_path):
    one = write_predictions(tmp_path / "one.jsonl", ["a", "b", "c"])
    two = write_predictions(tmp_path / "two.jsonl", ["a", "b"])
    with pytest.raises(ValueError, match="different trials"):
        read_predictions([one, two])
    two.write_text('{"session_id": "s", "block_index": 1, "trial_index": 0}\n')
    with pytest.raises(ValueError, match="line 1 .* no hypothesis_text"):
        read_predictions([two])
    with pytest.raises(ValueError, match="no file"):
        read_predictions([])


def test_the_reference_is_the_answer_and_never_part_of_the_question():
    rows = merger_examples(small_merger(), CANDIDATES, ["xylophone"] * 3)
    assert [row["completion"] for row in rows] == ["xylophone"] * 3
    assert all("xylophone" not in row["prompt"] for row in rows)
    assert rows[0]["prompt"] == merger_prompt(CANDIDATES[0], "")
    with pytest.raises(ValueError, match="3 lists of candidates and 1"):
        merger_examples(small_merger(), CANDIDATES, ["one"])


def test_an_error_is_rejected_for_every_pair(monkeypatch):
    merger = small_merger()
    monkeypatch.setattr(merger, "merge", lambda lists: ["the cat sat", "a rat", "go on"])
    pairs = preference_pairs(merger, CANDIDATES, REFERENCES)
    # Right: the worst candidate is rejected. Right and nobody errs: no pair. Wrong: the merger's own sentence.
    assert [(pair["chosen"], pair["rejected"]) for pair in pairs] == [
        ("the cat sat", "the bat sat"),
        ("go home", "go on"),
    ]
    monkeypatch.setattr(merger, "merge", lambda lists: ["a rat"])
    with pytest.raises(ValueError, match="nothing to prefer"):
        preference_pairs(merger, [["a rat"]], ["a rat"])


def test_the_reward_is_minus_the_word_error_rate():
    answers = ["go home", "go", "", "go home now please yes"]
    assert word_error_reward(answers, ["go home"] * 4, prompts=[]) == [0.0, -0.5, -1.0, -1.5]
    chat = [[{"role": "assistant", "content": "go on"}]]
    assert word_error_reward(chat, ["go home"]) == [-0.5]


def test_no_other_stage_is_known():
    with pytest.raises(ValueError, match="'ppo'"):
        merger_trainer("ppo", small_merger(), CANDIDATES, REFERENCES)


@pytest.mark.parametrize("stage", ["sft", "dpo", "grpo"])
def test_every_stage_trains_the_merger(stage, tmp_path):
    pytest.importorskip("trl")
    merger = small_merger()
    before = {name: value.clone() for name, value in merger.model.state_dict().items()}
    settings = {"per_device_train_batch_size": 2, "max_steps": 2, "learning_rate": 1e-2, "use_cpu": True}
    settings |= {"report_to": "none", "save_strategy": "no", "output_dir": str(tmp_path), "bf16": False}
    if stage == "grpo":
        settings |= {"num_generations": 2, "max_completion_length": 4}
    trainer = merger_trainer(stage, merger, CANDIDATES, REFERENCES, **settings)
    trainer.train()
    assert any(not torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())
    assert len(merger.merge(CANDIDATES)) == 3


def test_supervised_training_learns_the_answer_alone_and_its_end(tmp_path):
    pytest.importorskip("trl")
    merger = small_merger()
    settings = {"per_device_train_batch_size": 2, "use_cpu": True, "report_to": "none", "output_dir": str(tmp_path)}
    trainer = merger_trainer("sft", merger, CANDIDATES, REFERENCES, bf16=False, **settings)
    batch = next(iter(trainer.get_train_dataloader()))
    for ids, labels in zip(batch["input_ids"].tolist(), batch["labels"].tolist()):
        learned = [label for label in labels if label != -100]
        assert ids[0] == 1 and ids.count(1) == 1, "one beginning"
        assert learned[-1] == 2, "the end is learned"
        text = merger.tokenizer.decode(learned, skip_special_tokens=True)
        assert text in REFERENCES
        question = merger.tokenizer.decode(ids[: len(ids) - len(learned) - ids.count(0)], skip_special_tokens=True)
        assert question.endswith("sentence:\n")


def test_adapters_are_merged_into_an_ordinary_model(tmp_path):
    pytest.importorskip("trl")
    pytest.importorskip("peft")
    merger = small_merger()
    settings = {"per_device_train_batch_size": 2, "max_steps": 1, "learning_rate": 1e-1, "use_cpu": True, "bf16": False}
    trainer = merger_trainer(
        "sft",
        merger,
        CANDIDATES,
        REFERENCES,
        lora_rank=2,
        report_to="none",
        output_dir=str(tmp_path / "run"),
        **settings,
    )
    trained = {name for name, value in trainer.model.named_parameters() if value.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    trainer.train()
    merger.model = trainer.model
    answers = merger.weigh_up(CANDIDATES)[0][1]
    loaded = LLMMerger.from_pretrained(str(merger.save_pretrained(tmp_path / "model")))
    assert not (tmp_path / "model" / "adapter_config.json").exists()
    assert loaded.weigh_up(CANDIDATES)[0][1] == pytest.approx(answers, abs=1e-3)
