"""A pretrained encoder goes on to another participant, and to more channels."""

import pytest
import torch

from bit_speech import BITConfig, BITForCTC, BITForMaskedModeling, BITModel, load_pretrained_encoder

SMALL = {
    "hidden_size": 24,
    "num_attention_heads": 2,
    "num_hidden_layers": 2,
    "intermediate_size": 32,
    "patch_size": 2,
}


@pytest.fixture(scope="module")
def pretrained():
    torch.manual_seed(0)
    model = BITForMaskedModeling(BITConfig(participants={"monkey": 4, "t15": 3}, mask_ratio=0.5, **SMALL)).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return model


def test_the_body_is_copied_whatever_the_participants_are(pretrained):
    model = BITForCTC(BITConfig(participants={"new": 5}, **SMALL))
    fresh = {name: value.clone() for name, value in model.encoder.read_in.state_dict().items()}
    assert load_pretrained_encoder(model, pretrained) == {"new": "new"}
    for name, value in model.encoder.state_dict().items():
        if not name.startswith("read_in"):
            assert torch.equal(value, pretrained.encoder.state_dict()[name]), name
    assert all(torch.equal(value, fresh[name]) for name, value in model.encoder.read_in.state_dict().items())


def test_the_read_in_of_a_known_participant_with_the_same_channels_is_copied(pretrained):
    model = BITForCTC(BITConfig(participants={"t15": 3}, **SMALL)).eval()
    assert load_pretrained_encoder(model, pretrained) == {"t15": "copied"}
    features = torch.randn(2, 12, 3)
    states = pretrained.encoder(features, participant_index=torch.tensor([1, 1])).last_hidden_state
    assert torch.equal(model.encoder(features).last_hidden_state, states)


def test_a_read_in_that_shall_be_new_is_not_copied_and_the_body_is(pretrained):
    model = BITForCTC(BITConfig(participants={"t12": 4, "t15": 6}, **SMALL))
    before = {name: layer.projection.weight.clone() for name, layer in model.encoder.read_in.items()}
    done = load_pretrained_encoder(model, pretrained, new_read_in=["t15"])
    assert done["t15"] == "new"
    assert torch.equal(model.encoder.read_in["t15"].projection.weight, before["t15"])
    for copied, old in zip(model.encoder.layers.parameters(), pretrained.encoder.layers.parameters(), strict=True):
        assert torch.equal(copied, old)
    with pytest.raises(ValueError, match=r"`new_read_in` names \['t16'\], but the model knows \['t12', 't15'\]"):
        load_pretrained_encoder(model, pretrained, new_read_in=["t16"])


def test_new_channels_join_without_moving_the_columns_of_the_old_ones(pretrained):
    model = BITModel(BITConfig(participants={"t15": 5}, **SMALL))
    assert load_pretrained_encoder(model, pretrained, {"t15": [4, 0, 2]}) == {"t15": "widened"}
    old, new = pretrained.encoder.read_in["t15"], model.read_in["t15"]
    columns = [4, 0, 2, 5 + 4, 5 + 0, 5 + 2]  # two bins of five channels
    others = [1, 3, 5 + 1, 5 + 3]
    assert torch.equal(new.projection.weight[:, columns], old.projection.weight)
    assert torch.equal(new.projection.bias, old.projection.bias)
    assert torch.equal(new.norm_in.weight[columns], old.norm_in.weight)
    assert torch.equal(new.norm_in.bias[columns], old.norm_in.bias)
    assert not new.projection.weight[:, others].any()
    assert torch.equal(new.norm_in.weight[others], torch.ones(4)) and not new.norm_in.bias[others].any()
    assert torch.equal(new.norm_out.weight, old.norm_out.weight)


def test_a_widened_read_in_gives_the_old_embedding_when_the_new_channels_keep_the_scale():
    torch.manual_seed(0)
    before = BITModel(BITConfig(participants={"t15": 3}, **SMALL))
    after = BITModel(BITConfig(participants={"t15": 6}, **SMALL))
    load_pretrained_encoder(after, before, {"t15": range(3)})
    patches = torch.randn(7, 2, 3)
    doubled = torch.cat([patches, patches], dim=2)  # the same mean and variance over a patch
    torch.testing.assert_close(after.read_in["t15"](doubled.flatten(1)), before.read_in["t15"](patches.flatten(1)))


def test_new_channels_learn_from_the_first_step(pretrained):
    model = BITForCTC(BITConfig(participants={"t15": 5}, **SMALL))
    load_pretrained_encoder(model, pretrained, {"t15": range(3)})
    model(torch.randn(2, 20, 5), labels=torch.tensor([[3, 4], [5, -100]])).loss.backward()
    assert model.encoder.read_in["t15"].projection.weight.grad[:, 3:5].abs().min() > 0


def test_a_saved_folder_can_be_the_source_and_masking_ends_with_pretraining(pretrained, tmp_path):
    pretrained.save_pretrained(tmp_path)
    config = BITConfig.from_pretrained(tmp_path, participants={"t15": 5}, mask_ratio=0.0)
    model = BITForCTC(config)
    assert load_pretrained_encoder(model, tmp_path, {"t15": range(3)}) == {"t15": "widened"}
    assert torch.equal(model.encoder.layers[1].mlp.up_proj.weight, pretrained.encoder.layers[1].mlp.up_proj.weight)
    assert not model.encoder.mask_token.requires_grad
    assert model.train().encoder(torch.randn(1, 20, 5)).time_mask is None


WRONG = {
    "other sizes": ({"participants": {"t15": 3}, "num_hidden_layers": 1}, {}, "num_hidden_layers 2 and 1"),
    "unsaid channels": ({"participants": {"t15": 5}}, {}, r"had 3 channels in pretraining and has 5 now"),
    "too few channels": ({"participants": {"t15": 5}}, {"t15": [0, 1]}, r"3 different positions below 5, got \[0, 1\]"),
    "a channel twice": ({"participants": {"t15": 5}}, {"t15": [0, 1, 1]}, r"got \[0, 1, 1\]"),
    "a channel beyond": ({"participants": {"t15": 5}}, {"t15": [0, 1, 5]}, r"got \[0, 1, 5\]"),
    "channels of nobody": ({"participants": {"new": 5}}, {"new": range(5)}, r"\['new'\]"),
}


@pytest.mark.parametrize("values, kept, named", WRONG.values(), ids=WRONG.keys())
def test_what_does_not_fit_is_named(pretrained, values, kept, named):
    with pytest.raises(ValueError, match=named):
        load_pretrained_encoder(BITForCTC(BITConfig(**(SMALL | values))), pretrained, kept)
