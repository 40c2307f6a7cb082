import math
import subprocess
import sys

import pytest
import torch

from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
from modeling_bit.layers_ieeg_audio import PositionReadIn
from modeling_bit.losses_ieeg_audio import clip_loss, cosine_similarities, duplicate_positives, siglip_loss
from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval, IEEGAudioModel

SMALL = {
    "participants": {"s1": 4},
    "initial_size": 6,
    "hidden_size": 8,
    "num_hidden_layers": 4,
    "output_size": 7,
    "pool_size": 5,
    "embedding_size": 6,
    "window_bins": 24,
}
KINDS = {
    "two convolutions": {},
    "narrow last": {"output_layers": "narrow_last", "dilation_period": None},
    "linear": {"encoder_type": "linear"},
    "mean linear": {"encoder_type": "mean_linear"},
    "positions": {"read_in": "position", "position_frequencies": 3},
    "regions": {"read_in": "position", "position_frequencies": 3, "regions": ["A1", "A5", "44"]},
    "two participants": {"participants": {"s1": 4, "s2": 9}, "participant_layer": True, "participant_dropout": 0.5},
    "days": {"sessions": ["d1", "d2"], "session_layer": True, "session_dropout": 0.5, "day_adversary_weight": 0.5},
    "siglip": {"loss": "siglip"},
    "finetuned": {"finetuning_head": True},
}


def small(**changes):
    torch.manual_seed(0)
    return IEEGAudioForRetrieval(IEEGAudioConfig(**{**SMALL, **changes}))


def batch(count=5, bins=24, channels=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return {
        "input_features": torch.randn(count, bins, channels, generator=generator),
        "labels": torch.randn(count, 6, generator=generator),
        "participant_index": torch.zeros(count, dtype=torch.long),
        "session_index": torch.arange(count) % 2,
        "channel_positions": 0.05 * torch.randn(count, channels, 3, generator=generator),
        "channel_regions": (torch.arange(channels) % 4 - 1).expand(count, -1),
    }


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_the_presets_have_the_published_numbers_of_parameters():
    with torch.device("meta"):
        model = IEEGAudioModel(IEEGAudioConfig.preset("brainmagick", participants={"s1": 141}))
        parts = [parameters(part) for part in (model.read_in, model.layers, model.output, model.pooling)]
        assert parts == [38_340, 6_108_800, 861_824, 262_657] and parameters(model) == sum(parts)
        model = IEEGAudioModel(IEEGAudioConfig.preset("neuralbench", participants={"s1": 230}))
        # 270 -> 320 -> 320 -> 320 -> 512 with gates of 320 and 512, the last without a norm; counted by hand.
        assert parameters(model.layers) == 260_160 + 2 * 308_160 + 492_032 + 615_040 + 1_573_888
        assert [parameters(part) for part in (model.read_in, model.pooling, model.projection)] == [
            62_370,
            131_585,
            525_312,
        ]
        for depth, count in ((4, 2_414_720), (5, 2_722_880)):
            config = IEEGAudioConfig(num_hidden_layers=depth, participant_layer=True)
            model = IEEGAudioModel(config)
            assert parameters(model.layers) == count
        assert parameters(model.participant_layer) == 2 * 72_900  # one participant, and the unseen


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_trains_all_its_parameters_and_learns_eight_windows(kind):
    model = small(**KINDS[kind]).train()
    inputs = batch(8)
    reached = dict.fromkeys(dict(model.named_parameters()), False)
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-2)
    for step in range(60):
        if "s2" in model.config.participants and step % 2:
            other = batch(8, channels=9, seed=1) | {"participant_index": torch.ones(8, dtype=torch.long)}
            loss = model(**other).loss
        else:
            loss = model(**inputs).loss
        optimizer.zero_grad()
        loss.backward()
        for name, parameter in model.named_parameters():
            reached[name] |= parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
        optimizer.step()
    assert [name for name, found in reached.items() if not found] == []
    similar = cosine_similarities(model.eval()(**inputs).embedding, inputs["labels"])
    # Means over time of four channels tell less.
    least = 4 if kind == "mean linear" else 7
    assert int((similar.argmax(dim=1) == torch.arange(8)).sum()) >= least


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_model_gives_equal_embeddings(tmp_path, kind):
    model, inputs = small(**KINDS[kind]).eval(), batch()
    model.save_pretrained(tmp_path)
    again = IEEGAudioForRetrieval.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, atol=1e-5, rtol=1e-6)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "linear"])
def test_padding_and_the_rest_of_the_batch_change_nothing(kind):
    model, inputs = small(**KINDS[kind]).eval(), batch()
    del inputs["labels"]
    padded = dict(inputs)
    padded["input_features"] = torch.cat([inputs["input_features"], torch.full((5, 7, 4), 99.0)], dim=1)
    padded["attention_mask"] = torch.arange(31).expand(5, 31) < 24
    whole = model(**inputs).embedding
    torch.testing.assert_close(model(**padded).embedding, whole, atol=1e-5, rtol=1e-5)
    one = model(**{key: value[2:3] for key, value in inputs.items()}).embedding
    torch.testing.assert_close(one, whole[2:3], atol=1e-5, rtol=1e-5)


def test_what_a_checkpoint_lacks_starts_as_the_identity(tmp_path):
    small().save_pretrained(tmp_path)
    changes = {"finetuning_head": True, "participant_layer": True, "sessions": ["d1"], "session_layer": True}
    model = IEEGAudioForRetrieval.from_pretrained(tmp_path, **changes).eval()
    again = small().eval()
    inputs = batch()
    inputs["session_index"][:] = 0
    torch.testing.assert_close(model(**inputs).logits, again(**inputs).logits, atol=1e-4, rtol=1e-4)


def test_adding_the_head_changes_nothing_until_it_is_trained():
    model, inputs = small().eval(), batch()
    before = model(**inputs).embedding
    model.encoder.add_finetuning_head()
    assert torch.allclose(model(**inputs).embedding, before, atol=1e-6) and model.config.finetuning_head


def test_an_unseen_day_uses_the_row_of_the_unseen():
    model, inputs = small(**KINDS["days"]).eval(), batch()
    with torch.no_grad():
        model.encoder.session_layer.bias[2] += 1.0
    known = model(**inputs).embedding
    unseen = model(**{**inputs, "session_index": torch.full((5,), -1)}).embedding
    assert not torch.allclose(known, unseen)
    assert torch.equal(model(**{**inputs, "session_index": None, "labels": None}).embedding, unseen)


def test_positions_read_in_any_number_of_channels_in_any_order():
    torch.manual_seed(0)
    layer = PositionReadIn(5, 3)
    torch.nn.init.normal_(layer.queries)
    features, positions = torch.randn(1, 6, 9), 0.05 * torch.randn(1, 6, 3)
    order = torch.randperm(6)
    mixed = layer(features, positions)
    torch.testing.assert_close(layer(features[:, order], positions[:, order]), mixed)
    positions[0, 4] = math.nan
    kept = [0, 1, 2, 3, 5]
    torch.testing.assert_close(layer(features, positions), layer(features[:, kept], positions[:, kept]))


def test_a_region_says_something_about_a_channel_whose_place_is_unknown():
    torch.manual_seed(0)
    layer = PositionReadIn(5, 3, num_regions=2)
    torch.nn.init.normal_(layer.queries)
    torch.nn.init.zeros_(layer.regions)
    features, positions = torch.randn(1, 4, 9), 0.05 * torch.randn(1, 4, 3)
    regions = torch.tensor([[0, 1, -1, 0]])
    without = layer(features, positions)
    torch.testing.assert_close(layer(features, positions, regions), without)  # regions start without a say
    torch.nn.init.normal_(layer.regions)
    assert not torch.allclose(layer(features, positions, regions), without)
    lost = positions.clone()
    lost[0, 1:3] = math.nan  # channel 1 still has its region, channel 2 nothing
    changed = features.clone()
    changed[0, 2] += 100.0
    torch.testing.assert_close(layer(changed, lost, regions), layer(features, lost, regions))
    changed[0, 1] += 100.0
    assert not torch.allclose(layer(changed, lost, regions), layer(features, lost, regions))


SEVERAL = {"embedding_size": 3, "extra_targets": {"text": 2, "layer": 1}, "target_weights": {"text": 0.5}}


@pytest.mark.parametrize("kind", ["two convolutions", "narrow last", "linear", "mean linear", "siglip"])
def test_the_loss_of_several_targets_is_their_weighted_sum(kind):
    model, inputs = small(**KINDS[kind], **SEVERAL).eval(), batch()
    with torch.no_grad():
        model.target_temperatures["layer"].fill_(0.0)
    output = model(**inputs)
    audio, layer, text = inputs["labels"].split([3, 1, 2], dim=1)
    total = 0.0
    for found, wanted, factor, weight in (
        (output.embedding, audio, 1 / 0.07, 1.0),
        (output.target_embeddings["layer"], layer, 1.0, 1.0),
        (output.target_embeddings["text"], text, 1 / 0.07, 0.5),
    ):
        scores = factor * cosine_similarities(found, wanted)
        if kind == "siglip":
            total += weight * siglip_loss(scores + model.logit_bias, duplicate_positives(wanted, 0.999))
        else:
            total += weight * clip_loss(scores)
    torch.testing.assert_close(output.loss, total)
    assert output.target_embeddings["text"].shape == (5, 2)
    alone = small(**KINDS[kind], embedding_size=3).eval()
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if not k.startswith("target_")})
    torch.testing.assert_close(alone(**{**inputs, "labels": audio}).logits, output.logits)


def test_several_targets_survive_saving_and_all_learn(tmp_path):
    model, inputs = small(**SEVERAL).train(), batch(8)
    model(**inputs).loss.backward()
    assert [name for name, value in model.named_parameters() if value.grad is None or not value.grad.any()] == []
    model.save_pretrained(tmp_path)
    again = IEEGAudioForRetrieval.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).loss, model.eval()(**inputs).loss)
    small(embedding_size=3).save_pretrained(tmp_path / "audio")
    more = IEEGAudioForRetrieval.from_pretrained(tmp_path / "audio", **SEVERAL)  # what it lacks gets values
    assert math.isclose(float(more.target_temperatures["text"].detach()), math.log(1 / 0.07), rel_tol=1e-6)
    assert more.target_heads["text"].weight.isfinite().all()


def test_labels_without_the_further_targets_are_refused_with_their_widths():
    with pytest.raises(ValueError, match="audio 3, layer 1, text 2"):
        small(**SEVERAL)(**{**batch(), "labels": torch.zeros(5, 3)})


def test_the_temperature_is_clamped():
    model = small()
    with torch.no_grad():
        model.temperature.fill_(50.0)
    assert float(model.scale.detach()) == pytest.approx(100.0)
    assert float(small().scale.detach()) == pytest.approx(1 / 0.07, rel=1e-6)


def test_the_clip_loss_is_that_of_a_hand_count():
    scores = torch.tensor([[2.0, 0.0], [1.0, 1.0]])
    rows = (math.log(1 + math.exp(-2)) + math.log(2)) / 2
    columns = (math.log(1 + math.exp(-1)) + math.log(1 + math.exp(-1))) / 2
    assert float(clip_loss(scores)) == pytest.approx(rows)
    assert float(clip_loss(scores, symmetric=True)) == pytest.approx((rows + columns) / 2)


def test_duplicates_are_no_negatives_for_siglip():
    audio = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    scores = 9.0 * cosine_similarities(audio, audio) - 4.0
    perfect = siglip_loss(scores, duplicate_positives(audio, 0.999))
    assert perfect < 0.1 < siglip_loss(scores, torch.eye(3, dtype=torch.bool))


def test_the_adversary_pushes_the_encoder_against_its_head():
    model, inputs = small(**{**KINDS["days"], "day_adversary_weight": 1.0}).eval(), batch()
    output = model(**{**inputs, "labels": inputs["labels"] * 0})  # no audio: the contrastive loss has no gradient
    output.loss.backward()
    head = model.day_adversary.weight
    with torch.no_grad():
        model.day_adversary.weight -= 0.5 * head.grad
    better = model(**{**inputs, "labels": inputs["labels"] * 0}).loss
    assert better < output.loss
    with torch.no_grad():
        model.encoder.output[2].weight -= 0.5 * model.encoder.output[2].weight.grad
    assert model(**{**inputs, "labels": inputs["labels"] * 0}).loss > better


@pytest.mark.parametrize(
    "kind, changes, named",
    [
        ("two convolutions", {"input_features": torch.zeros(5, 24, 3)}, "4 channels"),
        ("two convolutions", {"input_features": torch.zeros(5, 24)}, r"\(5, 24\)"),
        ("two convolutions", {"labels": torch.zeros(5, 7)}, r"\(5, 7\)"),
        ("two convolutions", {"labels": torch.zeros(4, 6)}, r"\(4, 6\) for 5 windows"),
        ("regions", {"channel_regions": torch.full((5, 4), 3)}, "up to 3"),
        ("regions", {"channel_regions": torch.zeros(5, 3, dtype=torch.long)}, r"\(5, 3\)"),
        ("two convolutions", {"attention_mask": torch.zeros(5, 24)}, "no real bin"),
        ("two convolutions", {"attention_mask": torch.ones(5, 23)}, r"\(5, 23\)"),
        ("linear", {"input_features": torch.zeros(5, 23, 4)}, "23 bins"),
        ("positions", {"channel_positions": None}, "channel_positions"),
        ("positions", {"channel_positions": torch.full((5, 4, 3), math.nan)}, "position"),
        ("days", {"session_index": torch.full((5,), 7)}, "7"),
        ("days", {"session_index": None}, "session_index"),
    ],
)
def test_wrong_input_is_refused_by_name(kind, changes, named):
    with pytest.raises(ValueError, match=named):
        small(**KINDS[kind])(**{**batch(), **changes})


def test_a_saved_folder_loads_where_the_package_is_missing(tmp_path):
    from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
    from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

    small().save_pretrained(tmp_path)
    statistics = {"s1": {"center": [0.0] * 4, "scale": [1.0] * 4}}
    extractor = IEEGFeatureExtractor(participants={"s1": 4}, window_s=0.6, statistics=statistics)
    IEEGAudioProcessor(extractor, target_mean=[0.0] * 6, target_sd=[1.0] * 6).save_pretrained(tmp_path)
    code = (
        "import sys; sys.modules.update(dict.fromkeys(('bit_speech', 'configuration_bit', 'modeling_bit', "
        "'processing_bit')))\n"
        "import numpy as np\n"
        "from transformers import AutoModelForPreTraining, AutoProcessor\n"
        f"model = AutoModelForPreTraining.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
        f"processor = AutoProcessor.from_pretrained({str(tmp_path)!r}, trust_remote_code=True)\n"
        "batch = processor(np.ones((50, 4)), audio_features=np.ones((2, 6)), return_tensors='pt')\n"
        "print(tuple(model(**batch).logits.shape))"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "1", "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    assert run.stdout.strip() == "(2, 2)", run.stderr[-2000:]
