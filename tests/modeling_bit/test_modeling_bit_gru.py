"""What is special about the recurrent baseline."""

import numpy as np
import pytest
import torch

from bit_speech import BITConfig, BITGRUForCTC

from .small_models import batch, gru

DAYS, CHANNELS, UNITS, LAYERS, PATCH, STRIDE = 3, 5, 8, 2, 6, 2


@pytest.fixture
def released(tmp_path):
    """A checkpoint laid out like the released one, and its file."""
    generator = torch.Generator().manual_seed(0)

    def values(*shape):
        return torch.randn(*shape, generator=generator) * 0.4

    state = {"h0": values(1, 1, UNITS), "out.weight": values(41, UNITS), "out.bias": values(41)}
    for day in range(DAYS):
        state[f"day_weights.{day}"] = values(CHANNELS, CHANNELS)
        state[f"day_biases.{day}"] = values(1, CHANNELS)
    for layer in range(LAYERS):
        width = PATCH * CHANNELS if layer == 0 else UNITS
        state[f"gru.weight_ih_l{layer}"] = values(3 * UNITS, width)
        state[f"gru.weight_hh_l{layer}"] = values(3 * UNITS, UNITS)
        state[f"gru.bias_ih_l{layer}"] = values(3 * UNITS)
        state[f"gru.bias_hh_l{layer}"] = values(3 * UNITS)
    path = tmp_path / "best_checkpoint"
    checkpoint = {
        "model_state_dict": {f"_orig_mod.{name}": value for name, value in state.items()},
        "optimizer_state_dict": {"state": {}, "param_groups": [{"lr": 0.005}]},
        "val_PER": np.float64(0.101),
        "val_loss": np.float32(12.5),
    }
    torch.save(checkpoint, path)
    return path, state


def released_forward(state, features, day):
    """The baseline written out from its description: one trial, one step at a time."""
    x = features @ state[f"day_weights.{day}"] + state[f"day_biases.{day}"]
    x = x / (1 + x.abs())
    frames = [x[start : start + PATCH].reshape(-1) for start in range(0, len(x) - PATCH + 1, STRIDE)]
    for layer in range(LAYERS):
        h, outputs = state["h0"][0, 0], []
        for frame in frames:
            from_input = state[f"gru.weight_ih_l{layer}"] @ frame + state[f"gru.bias_ih_l{layer}"]
            from_state = state[f"gru.weight_hh_l{layer}"] @ h + state[f"gru.bias_hh_l{layer}"]
            (ir, iz, inn), (hr, hz, hn) = from_input.chunk(3), from_state.chunk(3)
            reset, update = torch.sigmoid(ir + hr), torch.sigmoid(iz + hz)
            h = (1 - update) * torch.tanh(inn + reset * hn) + update * h
            outputs.append(h)
        frames = outputs
    return torch.stack(frames) @ state["out.weight"].T + state["out.bias"]


def test_a_released_checkpoint_gives_the_baselines_output(released):
    path, state = released
    sessions = ["t15.2023.08.11", "t15.2023.08.13", "t15.2023.08.18"]
    model = BITGRUForCTC.from_brain_to_text_25_checkpoint(path, sessions, patch_stride=STRIDE)
    assert (model.config.patch_size, model.config.hidden_size, model.config.num_hidden_layers) == (PATCH, UNITS, LAYERS)
    features = torch.randn(DAYS, 31, CHANNELS)
    with torch.no_grad():
        logits = model(features, session_index=torch.arange(DAYS)).logits
    for day in range(DAYS):
        torch.testing.assert_close(logits[day], released_forward(state, features[day], day), atol=1e-5, rtol=1e-4)


def test_a_loaded_checkpoint_survives_saving(released, tmp_path):
    model = BITGRUForCTC.from_brain_to_text_25_checkpoint(released[0], ["a", "b", "c"], patch_stride=STRIDE)
    model.save_pretrained(tmp_path / "saved")
    again = BITGRUForCTC.from_pretrained(tmp_path / "saved").eval()
    inputs = {"input_features": torch.randn(3, 31, CHANNELS), "session_index": torch.arange(3)}
    assert torch.equal(model(**inputs).logits, again(**inputs).logits)


def test_the_number_of_sessions_must_be_the_checkpoints(released):
    with pytest.raises(ValueError, match="3 day layers, but 2 sessions"):
        BITGRUForCTC.from_brain_to_text_25_checkpoint(released[0], ["a", "b"])


def test_another_file_is_refused(tmp_path):
    torch.save({"model_state_dict": {"conv.weight": torch.zeros(1)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match="lacks"):
        BITGRUForCTC.from_brain_to_text_25_checkpoint(tmp_path / "other.pt", ["a"])
    with pytest.raises(FileNotFoundError, match=r"nowhere\.pt"):
        BITGRUForCTC.from_brain_to_text_25_checkpoint(tmp_path / "nowhere.pt", ["a"])


def test_a_checkpoint_with_code_in_it_is_not_executed(tmp_path):
    class Trap:
        def __reduce__(self):
            return (open, (str(tmp_path / "sprung"), "w"))

    torch.save({"model_state_dict": {}, "trap": Trap()}, tmp_path / "trap.pt")
    with pytest.raises(Exception, match="(?i)weights.only"):
        BITGRUForCTC.from_brain_to_text_25_checkpoint(tmp_path / "trap.pt", ["a"])
    assert not (tmp_path / "sprung").exists()


def test_initial_values_are_the_baselines():
    model = gru(hidden_size=32)
    assert torch.equal(model.encoder.day_layers.weight["t15-2023-08-11"], torch.eye(6))
    hidden = model.encoder.gru.weight_hh_l0
    torch.testing.assert_close(hidden.T @ hidden, torch.eye(32), atol=1e-5, rtol=0.0)
    inward = model.encoder.gru.weight_ih_l0
    assert inward.abs().max().item() == pytest.approx((6 / sum(inward.shape)) ** 0.5, rel=0.02)


def test_the_forward_direction_never_looks_ahead():
    model = gru().eval()
    inputs = batch((70,))
    changed = inputs["input_features"].clone()
    changed[:, 50:] += 1.0
    with torch.no_grad():
        before = model(inputs["input_features"], session_index=inputs["session_index"]).logits
        after = model(changed, session_index=inputs["session_index"]).logits
    safe = model.num_frames(50)
    assert torch.equal(before[:, :safe], after[:, :safe]) and not torch.equal(before[:, safe:], after[:, safe:])


def test_one_layer_serves_all_trials_when_no_session_is_named():
    model = gru(sessions=[]).eval()
    assert model(torch.zeros(2, 22, 6)).logits.shape == (2, 3, 41)


def test_sessions_that_would_share_a_name_are_refused():
    with pytest.raises(ValueError, match="a-b"):
        gru(sessions=["a.b", "a-b"])


def test_the_configurations_are_not_mixed_up():
    with pytest.raises(Exception, match="BITConfig|patch|input_dropout"):
        BITGRUForCTC(BITConfig(participants={"t15": 6}))
