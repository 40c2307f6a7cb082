"""Promises of the speech model that listens to the cortex, beyond those that all models share."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCTC

from bit_speech import (
    BITFeatureExtractor,
    BITProcessor,
    SpellingTokenizer,
    Wav2Vec2BrainConfig,
    Wav2Vec2BrainForCTC,
)
from configuration_bit.configuration_wav2vec2_brain import SPEECH_BODIES

from .small_models import batch, speech, speech_body

BODIES = {
    **{kind: (kind, {}) for kind in SPEECH_BODIES},
    "wav2vec2, large": ("wav2vec2", {"do_stable_layer_norm": True}),
    "wavlm, large": ("wavlm", {"do_stable_layer_norm": True}),
    "hubert with batch norm": ("hubert", {"conv_pos_batch_norm": True}),
}
every_body = pytest.mark.parametrize("kind, extra", BODIES.values(), ids=BODIES.keys())


def checkpoint(folder, kind="wav2vec2", head=True, **values):
    """Save a speech model as the Hub holds them."""
    torch.manual_seed(5)
    config = AutoConfig.for_model(**speech_body(kind, **values))
    model = (AutoModelForCTC if head else AutoModel).from_config(config).eval()
    model.save_pretrained(folder)
    return model


def small(**values):
    return {"participants": {"t15": 6}, "patch_size": 8, "hidden_size": 8, "num_hidden_layers": 1} | values


@every_body
def test_no_body_lets_padding_into_a_trial(kind, extra):
    model = speech(kind, extra).eval()
    together = batch((70, 45, 33), padding=float("nan"))
    with torch.no_grad():
        full = model(**together).logits
        for i, bins in enumerate((70, 45, 33)):
            session = together["session_index"][i : i + 1]
            alone = model(together["input_features"][i : i + 1, :bins], session_index=session).logits[0]
            torch.testing.assert_close(alone, full[i, : len(alone)], atol=5e-6, rtol=1e-5)


@every_body
def test_every_body_trains_and_loads_again(kind, extra, tmp_path):
    model, inputs = speech(kind, extra).train(), batch((70, 65, 60))
    model(**inputs).loss.backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    model.eval().save_pretrained(tmp_path)
    again = Wav2Vec2BrainForCTC.from_pretrained(tmp_path).eval()
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, atol=5e-6, rtol=1e-5)


@every_body
def test_frames_pass_through_the_checkpoint_s_own_body_and_head(kind, extra, tmp_path):
    own = checkpoint(tmp_path, kind, **extra)
    model = Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, **small())
    assert not model.training and model.config.vocab_size == own.config.vocab_size
    inputs = batch((70,))
    inputs.pop("labels"), inputs.pop("session_index")
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
        before, after = output.hidden_states
        torch.testing.assert_close(own.base_model.encoder(before.clone()).last_hidden_state, after)
        torch.testing.assert_close(own.lm_head(after), output.logits)
    mine, theirs = model.body.encoder.state_dict(), own.base_model.encoder.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_checkpoint_that_lacks_weights_of_the_body_is_refused_by_name(tmp_path):
    own = checkpoint(tmp_path)
    state = own.state_dict()
    lost = [name for name in state if "layers.1.attention.q_proj" in name or "pos_conv_embed.conv.bias" in name]
    own.save_pretrained(tmp_path, state_dict={name: value for name, value in state.items() if name not in lost})
    with pytest.raises(ValueError, match="lacks 3 weights") as error:
        Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, **small())
    assert all(name in str(error.value) for name in lost)


def test_a_checkpoint_without_text_needs_a_new_head_and_says_what_is_random(tmp_path):
    checkpoint(tmp_path, head=False)
    with pytest.raises(ValueError, match="new_head=True"):
        Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, **small())
    model = Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, new_head=True, **small(vocab_size=41, mask_ratio=0.2))
    parts = ["front_end.day_layers", "front_end.gru", "front_end.projection", "front_end.mask_token", "head"]
    assert model.random_parts(new_head=True) == parts
    assert model.config.vocab_size == 41


def test_another_vocabulary_than_the_checkpoint_s_is_refused(tmp_path):
    checkpoint(tmp_path)
    with pytest.raises(ValueError, match="vocab_size is 41"):
        Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, **small(vocab_size=41))


def test_a_frozen_body_does_not_learn_and_has_no_dropout():
    inputs = batch((70, 65, 60))
    model = speech(freeze_body=True, num_hidden_layers=1).train()
    torch.testing.assert_close(model(**inputs).logits, model(**inputs).logits)
    frozen = {name: value.clone() for name, value in model.state_dict().items() if name.startswith(("body", "head"))}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    model(**inputs).loss.backward()
    optimizer.step()
    assert all(torch.equal(model.state_dict()[name], value) for name, value in frozen.items())
    assert model.front_end.gru.weight_ih_l0.grad.any()
    legacy = speech(freeze_body=True, num_hidden_layers=1, legacy=True).train()
    assert not torch.equal(legacy(**inputs).logits, legacy(**inputs).logits)


def test_a_frozen_body_is_still_frozen_when_it_is_loaded_again(tmp_path):
    speech(freeze_body=True).save_pretrained(tmp_path)
    model = Wav2Vec2BrainForCTC.from_pretrained(tmp_path)
    learning = {name.split(".")[0] for name, p in model.named_parameters() if p.requires_grad}
    assert learning == {"front_end"}


def test_legacy_lets_padding_in_and_gives_ctc_one_frame_less():
    inputs = batch((70, 45))
    published, corrected = speech(legacy=True).eval(), speech().eval()
    bins = int(inputs["attention_mask"][1].sum())
    alone = published(inputs["input_features"][1:, :bins], session_index=inputs["session_index"][1:]).logits[0]
    assert not torch.allclose(alone, published(**inputs).logits[1, : len(alone)], atol=1e-4)
    exact = {"labels": torch.randint(1, 41, (1, 16)), "session_index": torch.tensor([0])}  # 16 frames of 70 bins
    exact["labels"] = torch.arange(1, 17)[None]
    features = inputs["input_features"][:1]
    assert published.num_frames(70) == 16
    assert corrected(features, **exact).loss.isfinite() and published(features, **exact).loss.isinf()


def test_masking_hides_frames_in_training_only():
    model = speech(mask_ratio=0.5)
    states, lengths = torch.randn(2, 20, 16), torch.tensor([20, 10])
    hidden = (model.train().front_end.mask(states, lengths) == model.front_end.mask_token).all(dim=-1)
    assert hidden.sum(dim=1).tolist() == [10, 5] and not hidden[1, 10:].any()
    assert torch.equal(model.eval().front_end.mask(states, lengths), states)


def test_the_auxiliary_loss_is_added_with_its_weight():
    inputs = batch((70, 65))
    model = speech(auxiliary_ctc_weight=0.5, num_hidden_layers=1).eval()
    both = model(**inputs).loss
    model.config.auxiliary_ctc_weight = 0.0
    main = model(**inputs).loss
    model.config.auxiliary_ctc_weight = 1.0
    torch.testing.assert_close(both, main + 0.5 * (model(**inputs).loss - main))


def test_a_stride_of_one_bin_gives_the_frame_rate_of_the_body():
    assert speech(patch_size=32, patch_stride=1).num_frames(81) == 50


@pytest.mark.parametrize(
    "values, named",
    [
        ({"body_config": {"model_type": "bert"}}, "'bert'"),
        ({"body_config": speech_body(add_adapter=True)}, "add_adapter"),
        ({"participants": {"a": 2, "b": 2}}, "one participant"),
        ({"projection_sizes": [0]}, "projection_sizes"),
        ({"mask_ratio": 1.0}, "mask_ratio"),
        ({"auxiliary_ctc_weight": -0.1}, "auxiliary_ctc_weight"),
    ],
)
def test_impossible_configurations_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        Wav2Vec2BrainConfig(**{"body_config": speech_body()} | values)


# Every cell of the published grid: units, layers, hidden projections; here with 4 channels and a tiny body.
PROJECTIONS = ([], [128], [256], [512], [512, 128])
GRID = [(units, layers, sizes) for units in (256, 512, 1024) for layers in (1, 3, 5) for sizes in PROJECTIONS]
BY_SHAPE = [
    [cell for cell in GRID if cell[:2] == (units, layers)] for units in (256, 512, 1024) for layers in (1, 3, 5)
]


def check_cells(cells, folder):
    inputs = torch.randn(2, 60, 4)
    np.save(folder / "inputs.npy", inputs.numpy())
    expected = {}
    for units, layers, sizes in cells:
        torch.manual_seed(0)
        config = Wav2Vec2BrainConfig(
            participants={"t12": 4}, hidden_size=units, num_hidden_layers=layers, projection_sizes=sizes,
            body_config=speech_body(),
        )  # fmt: skip
        model = Wav2Vec2BrainForCTC(config).train()
        optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
        model(input_features=inputs, labels=torch.tensor([[5, 6], [7, 8]])).loss.backward()
        optimizer.step()
        name = f"{units}-{layers}-" + "_".join(map(str, sizes))
        model.eval().save_pretrained(folder / name)
        BITProcessor(BITFeatureExtractor(participants={"t12": 4}), SpellingTokenizer()).save_pretrained(folder / name)
        with torch.no_grad():
            expected[name] = model(input_features=inputs).logits.numpy()
    script = folder / "load_cells.py"  # away from the repository: a script's own folder is importable
    script.write_text((Path(__file__).parent / "load_cells.py").read_text(encoding="utf-8"), encoding="utf-8")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(folder)], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with np.load(folder / "logits.npz") as found:
        assert set(found) == set(expected)
        for name, logits in expected.items():
            np.testing.assert_allclose(found[name], logits, atol=1e-6)


def test_corner_cells_of_the_published_grid_train_save_and_load_in_a_clean_process(tmp_path):
    check_cells([(256, 1, []), (256, 3, [512, 128]), (512, 1, [256])], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("cells", BY_SHAPE, ids=lambda cells: f"{cells[0][0]} units, {cells[0][1]} layers")
def test_every_cell_of_the_published_grid_trains_saves_and_loads_in_a_clean_process(cells, tmp_path):
    assert len(cells) == 5
    check_cells(cells, tmp_path)
