"""Rates, delays and adapters of a body that learns to listen."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from bit_speech.evaluation import word_error_rate
from bit_speech.training.published_quirks import first_blocks, mean_over_batches
from bit_speech.training.speech_body import (
    add_low_rank_adapters,
    body_factor,
    build_speech_model,
    speech_optimizers,
)


def small_models():
    spec = importlib.util.spec_from_file_location(
        "speech_small_models", Path(__file__).parents[1] / "modeling_bit" / "small_models.py"
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules["speech_small_models"] = module
    spec.loader.exec_module(module)
    return module


SMALL = small_models()


def rates(model, steps, **settings):
    """Rate of front end and body at each step."""
    optimizer, schedule = speech_optimizers(model, 1.0, 0.1, steps, **settings)
    found = []
    for _ in range(steps):
        by_part = {group["is_speech"]: group["lr"] for group in optimizer.param_groups}
        found.append((by_part[False], by_part.get(True)))
        optimizer.step()
        schedule.step()
    return found


def test_the_published_schedule_holds_the_body_and_ramps_it_up():
    found = rates(SMALL.speech(), 20, hold_steps=7, ramp_steps=3, legacy=True)
    assert [front for front, _ in found] == [1.0] * 20
    assert [body for _, body in found] == pytest.approx([0.0] * 7 + [0.025, 0.05, 0.075] + [0.1] * 10)


def test_the_published_frozen_runs_decay_in_steps():
    found = rates(SMALL.speech(freeze_body=True), 20, legacy=True, legacy_decay_steps=10)
    assert [front for front, _ in found] == pytest.approx([1.0] * 10 + [0.1] * 10) and found[0][1] is None


def test_by_default_every_part_has_the_same_shape_of_rate():
    found = rates(SMALL.speech(), 10, warmup_steps=2)
    assert [body for _, body in found] == pytest.approx([0.1 * front for front, _ in found])
    assert found[0][0] < found[1][0] < found[2][0] > found[9][0] > 0


def test_every_trainable_parameter_is_in_one_group_and_head_and_body_in_their_own():
    model = SMALL.speech(mask_ratio=0.2, auxiliary_ctc_weight=0.5)
    optimizer, _ = speech_optimizers(model, 1.0, 0.1, 10)
    grouped = [id(p) for group in optimizer.param_groups for p in group["params"]]
    assert sorted(grouped) == sorted(id(p) for p in model.parameters())
    speech = {id(p) for group in optimizer.param_groups if group["is_speech"] for p in group["params"]}
    parts = {name.split(".")[0] for name, p in model.named_parameters() if id(p) in speech}
    assert parts == {"body", "head"}


def test_a_model_whose_front_end_cannot_learn_is_refused():
    model = SMALL.speech()
    model.front_end.requires_grad_(False)
    with pytest.raises(ValueError, match="front end"):
        speech_optimizers(model, 1.0, 0.1, 10)


@pytest.mark.parametrize("step, total, expected", [(0, 10, 1.0), (5, 10, 0.5), (10, 10, 0.0), (12, 10, 0.0)])
def test_cosine_decay_ends_at_zero(step, total, expected):
    assert body_factor(step, total) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm", "data2vec-audio"])
def test_adapters_learn_in_every_body_and_merge_into_a_plain_model(kind):
    model = SMALL.speech(kind, mask_ratio=0.2, auxiliary_ctc_weight=0.3)
    before = {name: value.clone() for name, value in model.body.named_parameters()}
    adapted = add_low_rank_adapters(model, rank=2)
    inputs = SMALL.batch((70, 65, 60))
    optimizer, _ = speech_optimizers(adapted, 1e-2, 1e-2, 4)
    for _ in range(2):  # in the first step one of the two factors is zero
        optimizer.zero_grad()
        adapted.train()(**inputs).loss.backward()
        optimizer.step()
    learning = {name: p for name, p in adapted.named_parameters() if p.requires_grad}
    assert all(p.grad.any() for p in learning.values())
    assert any("lora" in name for name in learning) and any("front_end" in name for name in learning)
    with torch.no_grad():
        expected = adapted.eval()(**inputs).logits
        plain = adapted.merge_and_unload()
        torch.testing.assert_close(plain(**inputs).logits, expected, atol=1e-5, rtol=1e-5)
    after = dict(plain.body.named_parameters())
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(after[name], before[name])}
    assert changed and all(name.endswith("weight") and ".layers." in name for name in changed)


def test_regimes_start_from_the_checkpoint_or_from_nothing(tmp_path):
    from transformers import AutoConfig, AutoModelForCTC

    torch.manual_seed(3)
    own = AutoModelForCTC.from_config(AutoConfig.for_model(**SMALL.speech_body()))
    own.save_pretrained(tmp_path)
    values = {"participants": {"t": 6}, "patch_size": 8, "hidden_size": 4, "num_hidden_layers": 1}
    weight = own.base_model.encoder.layers[0].attention.q_proj.weight
    taken = {}
    for regime in ("full", "frozen", "scratch"):
        model = build_speech_model(tmp_path, regime, **values)
        taken[regime] = torch.equal(model.body.encoder.layers[0].attention.q_proj.weight, weight)
        assert any(p.requires_grad for p in model.body.parameters()) == (regime != "frozen")
    assert taken == {"full": True, "frozen": True, "scratch": False}
    with pytest.raises(ValueError, match="'partial'"):
        build_speech_model(tmp_path, "partial", **values)


def test_the_first_block_is_first_by_its_number_in_each_session():
    assert first_blocks(["a", "a", "b", "b"], [2, 3, 9, 8]) == [True, False, False, True]


def test_batches_count_the_same_whatever_their_length():
    texts, guesses = ["a", "b", "c d e f g h i j"], ["a", "x", "c d e f g h i j"]
    assert mean_over_batches(word_error_rate, texts, guesses, batch_size=2) == pytest.approx((0.5 + 0) / 2)
    assert word_error_rate(texts, guesses).rate == pytest.approx(0.1)
    with pytest.raises(ValueError, match="no sentences"):
        mean_over_batches(word_error_rate, [], [])
