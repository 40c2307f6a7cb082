"""What is special about the BIT encoder."""

import pytest
import torch
from torch.nn import functional as F

from bit_speech import BITConfig, BITForCTC, BITModel

from .small_models import SESSIONS, batch, bit


def test_the_papers_core_has_6910208_parameters():
    model = BITModel(BITConfig())
    core = sum(p.numel() for name, p in model.named_parameters() if not name.startswith("read_in."))
    assert core == 6_910_208


@pytest.mark.parametrize("channels, count", [(96, 186_000), (256, 495_000), (512, 989_000)])
def test_a_participants_read_in_has_the_papers_size(channels, count):
    model = BITModel(BITConfig(participants={"t15": channels}, num_hidden_layers=1))
    assert sum(p.numel() for p in model.read_in.parameters()) == pytest.approx(count, rel=5e-3)


def test_the_forward_is_the_papers_formula():
    """One layer written out from the specification, with none of the model's code."""
    model = bit(num_hidden_layers=1, patch_size=3).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    weights = {name.removeprefix("encoder."): value for name, value in model.named_parameters()}
    features = torch.randn(1, 13, 6)

    def linear(x, name):
        return x @ weights[f"{name}.weight"].T + weights[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)

    x = features[0, :12].reshape(4, 18)
    x = norm(linear(norm(x, "read_in.t15.norm_in"), "read_in.t15.projection"), "read_in.t15.norm_out")
    y = norm(x, "layers.0.attention_norm")
    query, key, value = linear(y, "layers.0.attention.qkv").split(24, dim=-1)
    attended = []
    for head in range(2):
        q, k, v = (t[:, head * 12 : head * 12 + 12] for t in (query, key, value))
        scores = torch.empty(4, 4)
        for i in range(4):
            for j in range(4):
                # Rotary embedding: pair (a, a + 6) turns by (bin of i - bin of j) x frequency.
                angle = 3.0 * (i - j) * 10000.0 ** (-torch.arange(6) / 6)
                turned = k[j, :6] * angle.cos() + k[j, 6:] * angle.sin()
                turned_2 = k[j, 6:] * angle.cos() - k[j, :6] * angle.sin()
                scores[i, j] = (q[i, :6] @ turned + q[i, 6:] @ turned_2) / 12**0.5
        attended.append(scores.softmax(dim=-1) @ v)
    x = x + linear(torch.cat(attended, dim=-1), "layers.0.attention.out_proj")
    y = F.gelu(linear(norm(x, "layers.0.mlp_norm"), "layers.0.mlp.up_proj"))
    x = norm(x + linear(y, "layers.0.mlp.down_proj"), "norm")
    expected = linear(x, "head.t15")
    torch.testing.assert_close(model(features).logits[0], expected, atol=1e-5, rtol=1e-4)


def test_initial_values_follow_the_depth_scaling():
    model = bit(hidden_size=128, num_hidden_layers=4, intermediate_size=256)
    bound, scale = 128**-0.5, 0.67 * 4**-0.25
    layer = model.encoder.layers[0]
    query, key, value = layer.attention.qkv.weight.chunk(3)
    for weight, expected in [
        (query, bound),
        (key, bound),
        (value, bound * scale * 2**0.5),
        (layer.attention.out_proj.weight, bound * scale),
        (layer.mlp.up_proj.weight, bound * scale),
        (layer.mlp.down_proj.weight, 256**-0.5 * scale),
    ]:
        assert weight.abs().max().item() == pytest.approx(expected, rel=0.02)
    assert model.encoder.mask_token.std().item() == pytest.approx(1.0, abs=0.25)


@pytest.mark.parametrize(
    "values", [{}, {"causal": True}, {"attention_window": 3}, {"causal": True, "attention_window": 3}]
)
@pytest.mark.parametrize("implementation", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
def test_attention_implementations_agree(values, implementation):
    inputs = batch()
    expected = bit(attn_implementation="sdpa", **values).eval()
    other = bit(attn_implementation=implementation, **values).eval()
    with torch.no_grad():
        reference, output = expected(**inputs), other(**inputs)
    real = reference.frame_mask
    torch.testing.assert_close(output.logits[real], reference.logits[real], atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("window, reach", [(None, 14), (2, 4)])
def test_the_future_never_changes_the_past_of_a_causal_encoder(window, reach):
    model = bit(causal=True, attention_window=window).eval()
    features = torch.randn(1, 70, 6)
    changed = features.clone()
    changed[:, 35:40] += 1.0  # the eighth patch
    with torch.no_grad():
        moved = (model(features).logits != model(changed).logits).any(dim=-1)[0].nonzero().flatten().tolist()
    assert moved == list(range(7, min(14, 7 + reach + 1)))


def test_a_windowed_encoder_sees_the_window_on_both_sides():
    model = bit(attention_window=1, num_hidden_layers=1).eval()
    features = torch.randn(1, 70, 6)
    changed = features.clone()
    changed[:, 35:40] += 1.0
    with torch.no_grad():
        moved = (model(features).logits != model(changed).logits).any(dim=-1)[0].nonzero().flatten().tolist()
    assert moved == [6, 7, 8]


def test_participants_have_read_ins_and_heads_of_their_own():
    model = bit(participants={"t12": 4, "t15": 6}).eval()
    second = model(torch.randn(2, 50, 6), participant_index=torch.tensor([1, 1]))
    assert second.logits.shape == (2, 10, 41)
    second.logits.sum().backward()
    assert model.head["t12"].weight.grad is None and model.head["t15"].weight.grad is not None
    with pytest.raises(ValueError, match="'t12' has 4 channels, got trials with 6"):
        model(torch.randn(2, 50, 6))


def test_a_participant_name_that_torch_reserves_is_refused():
    with pytest.raises(ValueError, match="'training'"):
        bit(participants={"training": 6})


def test_session_layers_start_as_no_change():
    plain, with_sessions = bit().eval(), bit(read_in="session", sessions=SESSIONS).eval()
    with_sessions.load_state_dict(plain.state_dict(), strict=False)
    inputs = batch()
    torch.testing.assert_close(plain(**inputs).logits, with_sessions(**inputs).logits)


def test_sessions_that_are_not_in_the_batch_get_no_gradient():
    model = bit(read_in="session", sessions=SESSIONS)
    model(**(batch() | {"session_index": torch.tensor([0, 2, 2])})).loss.backward()
    gradients = [model.encoder.session_layers.weight[name.replace(".", "-")].grad is not None for name in SESSIONS]
    assert gradients == [True, False, True]


def test_masked_patches_hide_what_they_hold():
    model = bit(mask_ratio=0.5).eval()
    features = torch.randn(1, 50, 6)
    mask = torch.zeros(1, 10, dtype=torch.bool)
    mask[0, 3:6] = True
    changed = features.clone()
    changed[:, 15:30] = 7.0
    assert torch.equal(model(features, time_mask=mask).logits, model(changed, time_mask=mask).logits)
    assert not torch.equal(model(features).logits, model(changed).logits)


def test_training_masks_the_asked_share_and_evaluation_masks_nothing():
    model = bit(mask_ratio=0.3).encoder
    inputs = {name: batch()[name] for name in ("input_features", "attention_mask")}
    output = model.train()(**inputs)
    masked, frames = output.time_mask.sum(dim=1), output.frame_mask.sum(dim=1)
    assert ((masked - 0.3 * frames).abs() < 1).all()
    assert model.eval()(**inputs).time_mask is None


def test_the_mask_token_is_trained_only_when_masking_is_on():
    assert not bit().encoder.mask_token.requires_grad
    assert bit(mask_ratio=0.1).encoder.mask_token.requires_grad


def test_hidden_states_are_returned_when_asked():
    states = bit().eval()(**batch(), output_hidden_states=True).hidden_states
    assert len(states) == 3 and states[0].shape == (3, 14, 24)


def test_gradient_checkpointing_changes_no_gradient():
    inputs, gradients = batch(), []
    for checkpointing in (False, True):
        model = bit(hidden_dropout=0.0, attention_dropout=0.0, embedding_dropout=0.0).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
            assert model.encoder.layers[0].gradient_checkpointing
        model(**inputs).loss.backward()
        gradients.append([p.grad for p in model.parameters() if p.requires_grad])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second)


@pytest.mark.parametrize("probability", [0.1, 0.4, 0.9])
def test_dropout_keeps_the_mean_and_drops_the_asked_share(probability):
    from modeling_bit.layers_bit import dropout

    torch.manual_seed(0)
    dropped = dropout(torch.ones(1000, 201), probability, training=True)
    assert (dropped == 0).float().mean().item() == pytest.approx(probability, abs=0.005)
    assert dropped.mean().item() == pytest.approx(1.0, abs=0.02)
    neighbours = ((dropped[:, 1:] == 0) & (dropped[:, :-1] == 0)).float().mean().item()
    assert neighbours == pytest.approx(probability**2, abs=0.01)


def test_training_is_reproducible_from_the_seed():
    losses = []
    for _ in range(2):
        model = bit(mask_ratio=0.5).train()
        torch.manual_seed(5)
        losses.append([model(**batch()).loss.item() for _ in range(3)])
    assert losses[0] == losses[1] and len(set(losses[0])) == 3


def test_an_encoder_loads_into_the_phoneme_model(tmp_path):
    model = bit()
    model.encoder.save_pretrained(tmp_path)
    loaded = BITForCTC.from_pretrained(tmp_path)
    for name, value in model.encoder.state_dict().items():
        assert torch.equal(loaded.encoder.state_dict()[name], value), name
    assert torch.isfinite(loaded.head["t15"].weight).all()
