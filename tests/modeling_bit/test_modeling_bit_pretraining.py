"""What is special about pretraining: what is hidden, what is predicted, what counts."""

import pytest
import torch
from torch.nn import functional as F

from bit_speech import BITConfig, BITForMaskedModeling

OBJECTIVES = {
    "reconstruction": {"mask_ratio": 0.5, "mask_max_span": 3},
    "reconstruction, causal": {"mask_ratio": 0.5, "mask_max_span": 3, "causal": True},
    "poisson": {"mask_ratio": 0.5, "mask_max_span": 3, "pretraining_objective": "poisson"},
    "autoregressive": {"causal": True, "pretraining_objective": "autoregressive"},
}
every_objective = pytest.mark.parametrize("objective", OBJECTIVES.values(), ids=OBJECTIVES.keys())


def masked(**values) -> BITForMaskedModeling:
    torch.manual_seed(0)
    small = {
        "participants": {"t15": 6},
        "hidden_size": 24,
        "num_attention_heads": 2,
        "num_hidden_layers": 2,
        "intermediate_size": 32,
    }
    return BITForMaskedModeling(BITConfig(**(small | OBJECTIVES["reconstruction"] | values)))


def of(objective, **values) -> BITForMaskedModeling:
    return masked(**({"mask_ratio": 0.0} | objective | values))


def batch(model, lengths=(70, 45, 33), channels=6, padding=0.0):
    """Trials with counts as labels, and a mask for the objectives that have one."""
    generator = torch.Generator().manual_seed(1)
    counts = torch.poisson(torch.full((len(lengths), max(lengths), channels), 0.7), generator=generator)
    mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
    features = counts - 0.7 + 0.1 * torch.randn(counts.shape, generator=generator)
    features[~mask], counts[~mask] = padding, abs(padding)
    inputs = {"input_features": features, "attention_mask": mask, "labels": counts}
    if model.config.pretraining_objective != "autoregressive":
        inputs["time_mask"] = torch.rand(len(lengths), max(lengths) // 5, generator=generator) < 0.5
    return inputs


def counted(model, inputs):
    """Bins whose labels count in the loss, worked out trial by trial."""
    bins = torch.zeros(inputs["attention_mask"].shape, dtype=torch.bool)
    for row, length in enumerate(inputs["attention_mask"].sum(dim=1).tolist()):
        for patch in range(length // 5):
            predicted = patch > 0 if "time_mask" not in inputs else bool(inputs["time_mask"][row, patch])
            bins[row, 5 * patch : 5 * patch + 5] = predicted
    return bins


@every_objective
def test_only_hidden_or_coming_real_patches_are_predicted(objective):
    model = of(objective).eval()
    inputs = batch(model)
    output = model(**inputs)
    bins = counted(model, inputs)
    assert output.prediction.shape == output.target.shape == (bins.sum() // 5, 30)
    target = inputs["labels"][bins].reshape(-1, 30)
    torch.testing.assert_close(
        output.target, (target > 0).float() if "autoregressive" in objective.values() else target
    )


@every_objective
def test_labels_of_visible_patches_and_padding_change_neither_loss_nor_gradient(objective):
    model = of(objective).eval()
    inputs = batch(model)
    bins = counted(model, inputs)
    results = []
    for value in (0.0, 7.0, float("nan")):
        labels = inputs["labels"].masked_fill(~bins[..., None], value)
        model.zero_grad()
        loss = model(**(inputs | {"labels": labels})).loss
        loss.backward()
        results.append([loss.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@every_objective
def test_the_loss_has_no_gradient_with_respect_to_labels_or_features_that_do_not_count(objective):
    model = of(objective).eval()
    inputs = batch(model)
    features, labels = inputs["input_features"].requires_grad_(), inputs["labels"].requires_grad_()
    model(**(inputs | {"input_features": features, "labels": labels})).loss.backward()
    if labels.grad is not None:  # binarised labels have none at all
        assert not labels.grad[~counted(model, inputs)].any()
    seen = inputs["attention_mask"].clone()
    if "time_mask" in inputs:
        seen &= ~inputs["time_mask"].repeat_interleave(5, dim=1)
    assert not features.grad[~seen].any() and features.grad[seen].any()


def test_the_loss_is_the_mean_squared_error_of_hidden_entries():
    model = masked().eval()
    inputs = batch(model)
    output = model(**inputs)
    torch.testing.assert_close(output.loss, (output.prediction - output.target).square().mean())


def test_without_labels_the_input_itself_is_reconstructed():
    model = masked().eval()
    inputs = batch(model)
    with_labels = model(**(inputs | {"labels": inputs["input_features"]}))
    assert torch.equal(model(**(inputs | {"labels": None})).loss, with_labels.loss)


def test_poisson_and_binary_losses_are_those_of_torch():
    for objective, loss in (
        ("poisson", lambda rate, count: (rate - count * rate.log()).mean()),
        ("autoregressive", lambda chance, spike: F.binary_cross_entropy(chance, spike)),
    ):
        model = of(OBJECTIVES[objective]).eval()
        output = model(**batch(model))
        torch.testing.assert_close(output.loss, loss(output.prediction, output.target))


@every_objective
def test_a_trial_does_not_depend_on_its_batch_or_its_padding(objective):
    model = of(objective).eval()
    together = batch(model, padding=float("nan"))
    full = model(**together).prediction
    alone = []
    for row, bins in enumerate((70, 45, 33)):
        inputs = {key: value[row : row + 1, :bins] for key, value in together.items()}
        if "time_mask" in inputs:
            inputs["time_mask"] = together["time_mask"][row : row + 1, : bins // 5]
        alone.append(model(**inputs).prediction)
    torch.testing.assert_close(torch.cat(alone), full, atol=2e-6, rtol=1e-5)


def test_what_a_hidden_patch_holds_does_not_reach_the_prediction():
    model = masked().eval()
    inputs = batch(model)
    hidden = inputs["time_mask"].repeat_interleave(5, dim=1)
    changed = inputs["input_features"].masked_fill(hidden[..., None], 9.0)
    assert torch.equal(model(**inputs).prediction, model(**(inputs | {"input_features": changed})).prediction)


def test_the_future_never_reaches_an_autoregressive_prediction():
    model = of(OBJECTIVES["autoregressive"]).eval()
    inputs = {"input_features": torch.randn(1, 70, 6), "labels": torch.zeros(1, 70, 6)}
    changed = inputs["input_features"].clone()
    changed[:, 35:40] = torch.randn(5, 6)  # the eighth patch, which the seventh prediction is about
    moved = model(**inputs).prediction != model(**(inputs | {"input_features": changed})).prediction
    assert moved.any(dim=1).nonzero().flatten().tolist() == list(range(7, 13))


@pytest.mark.parametrize("mode", ["train", "eval"])
def test_masks_are_drawn_when_none_is_given_and_cover_the_asked_share_of_every_trial(mode):
    model = masked(mask_ratio=0.3)
    getattr(model, mode)()
    inputs = batch(model, lengths=(200, 150, 55))
    inputs.pop("time_mask")
    mask = model(**inputs).time_mask
    assert ((mask.sum(dim=1) - 0.3 * torch.tensor([40, 30, 11])).abs() < 1).all()


@every_objective
def test_gradient_reaches_every_parameter_of_the_participant_and_none_of_others(objective):
    model = of(objective, participants={"m": 4, "t15": 6}).train()
    model(**batch(model), participant_index=torch.ones(3, dtype=torch.long)).loss.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert (parameter.grad is not None and parameter.grad.any()) == (".m." not in name), name


@every_objective
def test_saving_and_loading_gives_equal_predictions(objective, tmp_path):
    model = of(objective).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(tmp_path)
    again = BITForMaskedModeling.from_pretrained(tmp_path).eval()
    inputs = batch(model)
    assert torch.equal(again(**inputs).prediction, model(**inputs).prediction)


def test_whatever_a_checkpoint_lacks_is_initialised(tmp_path):
    model = masked()
    model.save_pretrained(tmp_path, state_dict={"nothing": torch.zeros(1)})
    junk = torch.full((1 << 20,), float("nan"))
    del junk
    loaded = BITForMaskedModeling.from_pretrained(tmp_path)
    assert all(torch.isfinite(value).all() for value in loaded.state_dict().values())
    assert torch.equal(loaded.read_out["t15"].norm_out.weight, torch.full((30,), 0.1))
    assert loaded.read_out["t15"].projection.weight.std() > 0.05


def test_computing_the_read_in_only_where_it_matters_changes_nothing(monkeypatch):
    model = masked().eval()
    inputs = batch(model)
    inputs["time_mask"] &= inputs["attention_mask"][:, :70].unflatten(1, (-1, 5)).all(dim=2)
    gradients = []
    for cheap in (True, False):
        monkeypatch.setattr("modeling_bit.modeling_bit.values_are_cheap", lambda _, cheap=cheap: cheap)
        model.zero_grad()
        model(**inputs).loss.backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for first, second in zip(*gradients, strict=True):
        torch.testing.assert_close(first, second, atol=1e-6, rtol=1e-5)


def test_explained_variance_is_that_of_the_formula():
    model = masked().eval()
    output = model(**batch(model))
    target, prediction = (values.reshape(-1, 6) for values in (output.target, output.prediction))
    spread = sum(((target[:, c] - target[:, c].mean()) ** 2).sum() for c in range(6))
    torch.testing.assert_close(output.r2, 1 - ((target - prediction) ** 2).sum() / spread)


def test_a_batch_too_short_to_hide_a_patch_has_the_loss_zero():
    model = masked().train()
    loss = model(torch.randn(2, 7, 6), time_mask=torch.zeros(2, 1, dtype=torch.bool)).loss
    loss.backward()
    assert loss == 0


def test_shared_structure_is_learnt():
    """All channels follow one slow wave: hidden patches can be told from the visible ones."""
    torch.manual_seed(0)
    model = masked(embedding_dropout=0.0, hidden_dropout=0.0, attention_dropout=0.0)
    model = model.train()
    wave = torch.sin(torch.arange(100) / 8 + torch.linspace(0, 6, 16)[:, None])
    features = wave[..., None] * torch.tensor([1.0, -1.0, 0.5, 2.0, -0.5, 1.5])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(100):
        model(features).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert model.eval()(features).r2 > 0.6


def test_half_precision_gives_a_float32_loss_close_to_full_precision():
    model = masked().eval()
    inputs = batch(model)
    with torch.no_grad():
        full = model(**inputs).loss
        with torch.autocast("cpu", torch.bfloat16):
            auto = model(**inputs).loss
    assert auto.dtype == torch.float32
    torch.testing.assert_close(auto, full, rtol=0.02, atol=0.0)


@every_objective
@pytest.mark.parametrize("implementation", ["eager", pytest.param("flex_attention", marks=pytest.mark.slow)])
def test_attention_implementations_agree(objective, implementation):
    expected, other = of(objective).eval(), of(objective, attn_implementation=implementation).eval()
    inputs = batch(expected)
    with torch.no_grad():
        torch.testing.assert_close(other(**inputs).prediction, expected(**inputs).prediction, atol=2e-6, rtol=1e-5)


WRONG = {
    "overlapping patches": ({"patch_stride": 2}, "patch_stride=2"),
    "nothing hidden": ({"mask_ratio": 0.0}, "mask_ratio=0.0"),
    "a mask where none is": ({**OBJECTIVES["autoregressive"], "mask_ratio": 0.2}, "mask_ratio=0.2"),
    "predicting what is seen": ({"pretraining_objective": "autoregressive"}, "causal=True"),
    "an unknown objective": ({"pretraining_objective": "contrast"}, "'contrast'"),
}


@pytest.mark.parametrize("values, named", WRONG.values(), ids=WRONG.keys())
def test_configurations_that_learn_nothing_are_refused(values, named):
    with pytest.raises(ValueError, match=named):
        masked(**values)


def test_wrong_labels_and_masks_are_named():
    model = masked().eval()
    inputs = batch(model)
    with pytest.raises(ValueError, match=r"\(3, 69, 6\)"):
        model(**(inputs | {"labels": inputs["labels"][:, :69]}))
    with pytest.raises(ValueError, match="time_mask"):
        model(**(inputs | {"time_mask": inputs["time_mask"][:, :9]}))
    counts = of(OBJECTIVES["poisson"]).eval()
    with pytest.raises(ValueError, match="spike counts, got -"):
        counts(**(inputs | {"labels": inputs["input_features"]}))
    with pytest.raises(ValueError, match="give them as"):
        counts(**(inputs | {"labels": None}))
    coming = of(OBJECTIVES["autoregressive"]).eval()
    with pytest.raises(ValueError, match="masks nothing"):
        coming(**inputs)
