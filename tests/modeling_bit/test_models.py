"""Promises that hold for every architecture of this room."""

import pytest
import torch

from .small_models import MODELS, batch, bit, gru

every_model = pytest.mark.parametrize("make", MODELS.values(), ids=MODELS.keys())


@every_model
def test_output_has_one_row_of_scores_for_each_frame(make):
    model, inputs = make().eval(), batch((70, 45, 33))
    output = model(**inputs)
    frames = model.num_frames(70)
    assert output.logits.shape == (3, frames, 41) and output.frame_mask.shape == (3, frames)
    assert output.frame_mask.sum(dim=1).tolist() == [model.num_frames(n) for n in (70, 45, 33)]
    assert output[0] is output.loss and output.loss.ndim == 0


@every_model
def test_a_trial_does_not_depend_on_its_batch_or_its_padding(make):
    model = make().eval()
    together = batch((70, 45, 33), padding=float("nan"))
    with torch.no_grad():
        full = model(**together)
        for i, bins in enumerate((70, 45, 33)):
            features, session = together["input_features"][i : i + 1, :bins], together["session_index"][i : i + 1]
            alone = model(features, session_index=session).logits
            torch.testing.assert_close(alone[0], full.logits[i, : alone.shape[1]], atol=2e-6, rtol=1e-5)


@every_model
def test_padding_changes_no_gradient(make):
    model = make().eval()  # without dropout
    inputs = batch((40, 40))
    gradients = []
    for extra in (0, 23):
        padded = dict(inputs)
        padded["input_features"] = torch.nn.functional.pad(inputs["input_features"], (0, 0, 0, extra), value=9.0)
        padded["attention_mask"] = torch.nn.functional.pad(inputs["attention_mask"], (0, extra), value=False)
        model.zero_grad()
        model(**padded).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters() if p.grad is not None])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)


@every_model
def test_gradient_reaches_every_trainable_parameter(make):
    model = make().train()
    model(**batch((70, 45, 33))).loss.backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert missing == []


@every_model
def test_saving_and_loading_gives_equal_logits(make, tmp_path):
    model, inputs = make().eval(), batch()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path, attn_implementation=model.config._attn_implementation).eval()
    weights = again.state_dict()
    assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
    # Loaded weights lie elsewhere in memory, where some kernels add in another order.
    torch.testing.assert_close(again(**inputs).logits, model(**inputs).logits, atol=1e-6, rtol=1e-6)


@every_model
def test_the_same_seed_gives_the_same_model(make):
    first, second = make().state_dict(), make().state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    "make, extra",
    [
        (bit, {}),
        (bit, {"read_in": "session", "sessions": ["a", "b", "c"]}),
        (gru, {}),
        (gru, {"bidirectional": True}),
    ],
    ids=["bit", "bit with sessions", "gru", "gru both ways"],
)
def test_whatever_a_checkpoint_lacks_is_initialised(make, extra, tmp_path):
    model = make(**extra)
    model.save_pretrained(tmp_path, state_dict={"head.nothing": torch.zeros(1)})
    junk = torch.full((1 << 20,), float("nan"))  # makes it likely that uninitialised memory is not zero
    del junk
    torch.manual_seed(3)
    loaded = type(model).from_pretrained(tmp_path)
    torch.manual_seed(3)
    again = type(model).from_pretrained(tmp_path)
    fresh = model.state_dict()
    for name, value in loaded.state_dict().items():
        assert torch.isfinite(value).all(), name
        assert torch.equal(value, again.state_dict()[name]), name
        assert value.abs().max() < 6, name
        if fresh[name].numel() > 100:
            torch.testing.assert_close(value.std(), fresh[name].std(), rtol=0.35, atol=0.0, msg=name)
    buffers = dict(model.named_buffers())
    for name, value in loaded.named_buffers():
        assert torch.equal(value, buffers[name]), name
    assert torch.isfinite(loaded.eval()(**batch()).logits).all()


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_a_checkpoint_can_be_continued_with_more_sessions(make, tmp_path):
    extra = {"read_in": "session"} if make is bit else {}
    model = make(sessions=["day.1", "day.2"], **extra)
    layers = model.encoder.session_layers if make is bit else model.encoder.day_layers
    torch.nn.init.normal_(layers.weight["day-2"])
    model.save_pretrained(tmp_path)
    grown = type(model).from_pretrained(tmp_path, sessions=["day.2", "day.3"])
    new_layers = grown.encoder.session_layers if make is bit else grown.encoder.day_layers
    assert torch.equal(new_layers.weight["day-2"], layers.weight["day-2"])
    assert torch.equal(new_layers.weight["day-3"], torch.eye(6))


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_eight_trials_are_learnt_by_heart(make):
    values = {"hidden_size": 64} | ({"patch_size": 6, "patch_stride": 3} if make is gru else {"num_attention_heads": 4})
    model = make(**values).train()
    for module in model.modules():
        for name in ("p", "dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    inputs = batch((60, 50, 40, 60, 55, 45, 60, 50), seed=1)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(150):
        loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if loss < 0.03:
            break
    best = model.eval()(**inputs)
    for scores, real, labels in zip(best.logits, best.frame_mask, inputs["labels"], strict=True):
        path = torch.unique_consecutive(scores[real].argmax(dim=-1))
        assert path[path > 0].tolist() == labels[labels >= 0].tolist()


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_the_loss_is_the_mean_over_trials_of_loss_per_label(make):
    model, inputs = make().eval(), batch((70, 45, 33))
    output = model(**inputs)
    by_hand = []
    for i in range(3):
        labels = inputs["labels"][i][inputs["labels"][i] >= 0]
        log_probs = output.logits[i, output.frame_mask[i]].log_softmax(dim=-1)
        frames, count = torch.tensor(len(log_probs)), torch.tensor(len(labels))
        by_hand.append(torch.nn.functional.ctc_loss(log_probs, labels, frames, count, reduction="sum") / count)
    torch.testing.assert_close(output.loss, torch.stack(by_hand).mean())
    model.config.ctc_loss_reduction = "sum"
    counts = (inputs["labels"] >= 0).sum(dim=1)
    torch.testing.assert_close(model(**inputs).loss, (torch.stack(by_hand) * counts).sum())


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_a_trial_too_short_for_its_labels_gives_an_infinite_loss_not_a_hidden_one(make):
    model = make().eval()
    inputs = batch((22, 22)) | {"labels": torch.tensor([[1] * 9, [2] * 9])}
    assert model(**inputs).loss.isinf()


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_half_precision_gives_a_float32_loss_close_to_full_precision(make):
    model, inputs = make().eval(), batch()
    with torch.no_grad():
        full = model(**inputs).loss
        with torch.autocast("cpu", torch.bfloat16):
            auto = model(**inputs).loss
        half = model.to(torch.bfloat16)(**inputs).loss
    assert auto.dtype == half.dtype == torch.float32
    torch.testing.assert_close(auto, full, rtol=0.03, atol=0.0)
    torch.testing.assert_close(half, full, rtol=0.05, atol=0.0)


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_gradient_accumulation_must_not_scale_the_mean_loss(make):
    assert make().accepts_loss_kwargs is False


@pytest.mark.parametrize("make", [bit, gru], ids=["bit", "gru"])
def test_a_tuple_is_returned_when_asked(make):
    loss, logits, frame_mask = make().eval()(**batch(), return_dict=False)
    assert loss.ndim == 0 and logits.ndim == 3 and frame_mask.dtype == torch.bool


def test_frames_are_whole_patches_only():
    model = bit()
    assert [model.num_frames(n) for n in (0, 4, 5, 9, 10)] == [0, 0, 1, 1, 2]
    assert bit(patch_stride=2).num_frames(torch.tensor([4, 5, 6, 7])).tolist() == [0, 1, 1, 2]
    assert gru().num_frames(torch.tensor([13, 14, 17, 18])).tolist() == [0, 1, 1, 2]


WRONG = {
    "two participants in a batch": ({"participant_index": torch.tensor([0, 1, 0])}, r"\[0, 1\]"),
    "an unknown participant": ({"participant_index": torch.tensor([7, 7, 7])}, "7"),
    "an index for each trial": ({"participant_index": torch.tensor([0])}, r"\(1,\)"),
    "an unknown session": ({"session_index": torch.tensor([0, 5, 1])}, r"5"),
    "other channels": ({"input_features": torch.zeros(3, 70, 7)}, "7"),
    "no batch": ({"input_features": torch.zeros(70, 6)}, r"\(70, 6\)"),
    "a mask of other bins": ({"attention_mask": torch.ones(3, 69)}, r"\(3, 69\)"),
    "padding at the start": ({"attention_mask": torch.arange(70).expand(3, 70) > 3}, "before or inside"),
    "too few bins": ({"input_features": torch.zeros(3, 4, 6), "attention_mask": None}, "4 bins"),
    "a class too many": ({"labels": torch.tensor([[1], [41], [2]])}, "41"),
    "a blank as label": ({"labels": torch.tensor([[1], [0], [2]])}, "Label 0"),
    "another padding": ({"labels": torch.tensor([[1], [-1], [2]])}, "Label -1"),
    "labels of another batch": ({"labels": torch.tensor([[1], [2]])}, r"\(2, 1\)"),
}


@pytest.mark.parametrize("wrong, named", WRONG.values(), ids=WRONG.keys())
@pytest.mark.parametrize("make", [MODELS["sessions"], gru], ids=["bit", "gru"])
def test_wrong_input_is_named(make, wrong, named):
    with pytest.raises(ValueError, match=named):
        make().eval()(**(batch((70, 45, 33)) | wrong))


@pytest.mark.parametrize("make", [MODELS["sessions"], gru], ids=["bit", "gru"])
def test_a_missing_session_index_is_said(make):
    with pytest.raises(ValueError, match="session_index"):
        make().eval()(**(batch() | {"session_index": None}))


def test_the_loss_of_a_compiled_model_and_its_gradient_are_those_of_torch():
    from modeling_bit.layers_bit import _compilable_ctc

    logits = torch.randn(3, 12, 41, dtype=torch.float32, requires_grad=True)
    labels, counts = torch.randint(1, 41, (3, 4)), torch.tensor([4, 2, 3])
    frames = torch.tensor([12, 9, 3])  # the last is too short when labels repeat
    labels[2] = 5
    for zero_infinity in (False, True):
        log_probs = logits.log_softmax(dim=-1).transpose(0, 1)
        expected = torch.nn.functional.ctc_loss(log_probs, labels, frames, counts, 0, "none", zero_infinity)
        losses, _ = _compilable_ctc(log_probs, labels, frames, counts, 0, zero_infinity)
        torch.testing.assert_close(losses, expected)
        weights, good = torch.tensor([1.0, 2.0, 3.0]), slice(0, 3 if zero_infinity else 2)
        first = torch.autograd.grad((expected * weights)[good].sum(), logits, retain_graph=True)[0]
        second = torch.autograd.grad((losses * weights)[good].sum(), logits)[0]
        torch.testing.assert_close(first[good], second[good])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "causal and windowed", "overlapping", "sessions"])
def test_compiling_the_whole_graph_changes_nothing(name):
    model, inputs = MODELS[name]().eval(), batch()
    compiled = torch.compile(model, fullgraph=True)
    expected, output = model(**inputs), compiled(**inputs)
    torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output.loss, expected.loss)
    parameters = [p for p in model.parameters() if p.requires_grad]
    for first, second in zip(
        torch.autograd.grad(expected.loss, parameters), torch.autograd.grad(output.loss, parameters), strict=True
    ):
        torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-3)


@pytest.mark.slow
def test_training_compiles_as_one_graph_with_masking_and_dropout():
    model = torch.compile(MODELS["masked"]().train(), fullgraph=True)
    loss = model(**batch()).loss
    loss.backward()
    assert torch.isfinite(loss)
