"""The trainer's promises on trials small enough to check by hand."""

import json
from dataclasses import replace

import datasets
import numpy as np
import pytest
import torch
from rapidfuzz.distance import Levenshtein

from bit_speech.data import Augmentation, CTCCollator, trial_features
from bit_speech.data.statistics import block_statistics
from bit_speech.decoding.greedy import greedy_decode
from bit_speech.training import BITTrainer
from bit_speech.training.batches import EpochBatchSampler, LengthSortedBatchSampler
from bit_speech.training.parameter_groups import parameter_groups
from bit_speech.training.prepared_trials import PreparedTrials
from configuration_bit.configuration_bit_gru import BITGRUConfig
from modeling_bit.modeling_bit_gru import BITGRUForCTC


def as_dataset(rows):
    return datasets.Dataset.from_list(
        [{**row, "features": row["features"].tolist()} for row in rows], features=trial_features(8)
    ).with_format("numpy")


def gradients(run):
    """Gradient of the first update, and its logged loss."""
    found = {}

    def keep(*args, **kwargs):
        if not found:
            found.update({name: p.grad.clone() for name, p in run.model.named_parameters() if p.grad is not None})
        return type(run.callback_handler).on_pre_optimizer_step(run.callback_handler, *args, **kwargs)

    run.callback_handler.on_pre_optimizer_step = keep
    run.train()
    return found, run.state.log_history[0]["loss"]


def test_the_loss_goes_down_and_the_best_checkpoint_by_phoneme_error_rate_is_loaded(tiny, tmp_path):
    run = tiny.trainer(
        tmp_path,
        train=tiny.trials(40),
        evaluation=tiny.trials(9, seed=1),
        max_steps=30,
        eval_strategy="steps",
        eval_steps=10,
        save_strategy="steps",
        save_steps=10,
        load_best_model_at_end=True,
        learning_rate=2e-2,
    )
    run.train()
    losses = [log["loss"] for log in run.state.log_history if "loss" in log]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    scores = [log["eval_per"] for log in run.state.log_history if "eval_per" in log]
    assert run.state.best_metric == min(scores)
    assert run.evaluate()["eval_per"] == pytest.approx(min(scores))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_gradient_accumulation_gives_the_gradient_of_one_big_batch_also_when_the_batches_differ_in_size(
    tiny, tmp_path, reduction
):
    rows = [row for row in tiny.trials(11) if len(row["features"]) > 0]
    found = []
    for batch_size, steps in ((11, 1), (4, 3)):
        run = tiny.trainer(
            tmp_path / str(batch_size),
            train=rows,
            net=tiny.model(dropout=0.0, ctc_loss_reduction=reduction),
            per_device_train_batch_size=batch_size,
            gradient_accumulation_steps=steps,
            max_steps=1,
            max_grad_norm=0.0,
        )
        found.append(gradients(run))
    (big, big_loss), (small, small_loss) = found
    assert small_loss == pytest.approx(big_loss, rel=1e-5)
    for name, gradient in big.items():
        torch.testing.assert_close(small[name], gradient, atol=1e-5 * gradient.abs().max().item() + 1e-7, rtol=1e-4)


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("cut", [0, 3])
def test_a_training_batch_is_what_the_collator_makes_of_the_same_trials_in_the_same_epoch(tiny, before, cut):
    rows = tiny.trials(6)
    augmentation = Augmentation(
        white_noise_sd=0.5,
        constant_offset_sd=0.2,
        time_mask_ratio=0.2,
        time_mask_max_bins=4,
        random_cut_max_bins=cut,
        channel_dropout=0.2,
        noise_before_smoothing=before,
    )
    processor = tiny.processor(normalization="block")
    prepared = PreparedTrials(rows, processor, augmentation=augmentation, seed=5)
    collate = CTCCollator(processor, augmentation, block_statistics(as_dataset(rows)), seed=5)
    for epoch in (0, 3, 3):
        collate.set_epoch(epoch)
        expected = collate([rows[i] for i in (4, 1, 2)])
        batch = prepared.collate([prepared[(epoch, i)] for i in (4, 1, 2)])
        assert batch.pop("trial_index").tolist() == [4, 1, 2]
        assert set(batch) == set(expected)
        for key, value in expected.items():
            torch.testing.assert_close(batch[key], value, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("normalization", ["none", "session", "block"])
def test_a_dataset_and_a_list_of_rows_are_prepared_alike_cached_or_not(tiny, normalization):
    rows = tiny.trials(5)
    prepared = [
        PreparedTrials(source, tiny.processor(normalization=normalization), cache_gigabytes=size, fit_sessions=True)
        for source in (rows, as_dataset(rows))
        for size in (0.0, 1.0)
    ]
    for i in range(5):
        for other in prepared[1:]:
            np.testing.assert_allclose(other[i]["features"], prepared[0][i]["features"], atol=1e-5)
            assert other.labels[i] == prepared[0].labels[i]
    assert len({other.content_hash() for other in prepared}) == 1


def test_the_order_of_calls_does_not_change_the_augmentation(tiny):
    prepared = PreparedTrials(tiny.trials(4), tiny.processor(), augmentation=Augmentation(white_noise_sd=1.0))
    first = [prepared[(2, i)]["features"].copy() for i in range(4)]
    again = [prepared[(2, i)]["features"] for i in (3, 2, 1, 0)][::-1]
    for one, other in zip(first, again):
        assert np.array_equal(one, other)
    assert not np.array_equal(first[0], prepared[(3, 0)]["features"])


def test_the_error_rate_equals_a_count_by_hand_and_pools_errors_over_trials(tiny, tmp_path):
    rows = tiny.trials(10)
    run = tiny.trainer(tmp_path, evaluation=rows, per_device_eval_batch_size=3)
    scores = run.evaluate()
    labels = run._evaluation_trials(rows).labels
    predictions = [greedy_decode(values) for values in run.predict_log_probs(rows)]
    errors = [Levenshtein.distance(label, list(prediction)) for label, prediction in zip(labels, predictions)]
    assert scores["eval_per"] == pytest.approx(sum(errors) / sum(len(label) for label in labels))
    for session in tiny.SESSIONS:
        members = [i for i, row in enumerate(rows) if row["session_id"] == session]
        expected = sum(errors[i] for i in members) / sum(len(labels[i]) for i in members)
        assert scores[f"eval_per_{session}"] == pytest.approx(expected)


def test_predictions_come_in_the_order_of_the_dataset_and_do_not_depend_on_the_batch(tiny, tmp_path):
    rows = tiny.trials(7)
    together = tiny.trainer(tmp_path, per_device_eval_batch_size=7).predict_log_probs(rows)
    alone = tiny.trainer(tmp_path, per_device_eval_batch_size=1).predict_log_probs(rows)
    run = tiny.trainer(tmp_path)
    for row, one, other in zip(rows, together, alone, strict=True):
        assert one.shape == (run.model.num_frames(len(row["features"])), 41)
        assert one.dtype == np.float32
        np.testing.assert_allclose(np.exp(one).sum(axis=1), 1, atol=1e-5)
        np.testing.assert_allclose(one, other, atol=1e-5)


def test_evaluation_does_not_change_what_training_does_next(tiny, tmp_path):
    losses = []
    for name, strategy in (("with", "steps"), ("without", "no")):
        run = tiny.trainer(
            tmp_path / name,
            train=tiny.trials(24),
            evaluation=tiny.trials(9, seed=1),
            max_steps=6,
            eval_strategy=strategy,
            eval_steps=1,
        )
        run.train()
        losses.append(tiny.step_losses(run))
    assert losses[0] == losses[1]


def test_trials_too_short_for_their_labels_are_refused_or_left_out_and_named(tiny, tmp_path):
    rows = tiny.trials(9)
    rows[4]["features"] = rows[4]["features"][:12]
    with pytest.raises(
        ValueError, match=r"1 of 9 training trials have fewer frames.*p\.1 block 0 trial 4 \(2 frames for"
    ):
        tiny.trainer(tmp_path, train=rows)
    run = tiny.trainer(tmp_path, train=rows, skip_short_trials=True, max_steps=2)
    assert len(run.train_dataset) == 8
    run.train()
    assert "trial 4" in json.loads((tmp_path / "metrics.json").read_text())["skipped_trials"][0]


def test_trials_that_cannot_be_aligned_count_as_errors_in_evaluation_but_leave_the_loss_finite(tiny, tmp_path):
    rows = tiny.trials(6)
    rows[1]["features"], rows[2]["features"] = rows[1]["features"][:12], rows[2]["features"][:3]
    run = tiny.trainer(tmp_path, evaluation=rows)
    scores = run.evaluate()
    assert np.isfinite(scores["eval_loss"]) and scores["eval_per"] > 0
    log_probs = run.predict_log_probs(rows)
    assert [len(values) for values in log_probs[1:3]] == [2, 0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"participant_id": "q"}, "participants"),
        ({"session_id": "p.99"}, r"p\.99"),
        ({"phonemes": None}, "neither phonemes nor text"),
        ({"phonemes": "AA XX"}, "XX"),
        ({"features": np.zeros((40, 9), np.float32)}, r"\(40, 9\)"),
        ({"features": np.zeros((0, 8), np.float32)}, "no bins"),
    ],
)
def test_a_wrong_trial_is_refused_before_the_first_step_with_its_name(tiny, tmp_path, change, message):
    rows = tiny.trials(4)
    rows[2] = {**rows[2], **change}
    with pytest.raises(ValueError, match=message):
        tiny.trainer(tmp_path, train=rows, proc=tiny.processor(normalization="block"))


def test_an_empty_dataset_a_missing_column_and_a_missing_processor_are_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="no trials"):
        tiny.trainer(tmp_path, train=[])
    with pytest.raises(ValueError, match="block_index"):
        tiny.trainer(tmp_path, train=[{k: v for k, v in row.items() if k != "block_index"} for row in tiny.trials(2)])
    with pytest.raises(ValueError, match="processing_class"):
        BITTrainer(tiny.model(), tiny.arguments(tmp_path))


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    run = tiny.trainer(tmp_path, train=tiny.trials(8))
    with torch.no_grad():
        run.model.head["p"].bias.fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="step 1"):
        run.train()


def test_the_record_of_a_run_says_what_it_depends_on(tiny, tmp_path):
    run = tiny.trainer(
        tmp_path,
        train=tiny.trials(16),
        evaluation=tiny.trials(5, seed=1),
        augmentation=Augmentation(white_noise_sd=0.2),
    )
    run.train()
    run.save_run_record(word_error_rate=0.5)
    record = json.loads((tmp_path / "metrics.json").read_text())
    expected_bins = sum(len(row["features"]) for row in tiny.trials(16)) * 2  # four steps of 8 are two passes over 16
    assert record["training_bins"] == expected_bins
    assert record["word_error_rate"] == 0.5
    assert record["arguments"]["learning_rate"] == 5e-3 and record["augmentation"]["white_noise_sd"] == 0.2
    assert record["seeds"]["seed"] == 42 and record["training_seconds"] > 0 and record["peak_memory_gb"]["process"] > 0
    assert not any(key.endswith("token") for key in record["arguments"])
    curve = json.loads((tmp_path / "learning_curve.json").read_text())
    assert [entry["step"] for entry in curve if "loss" in entry] == [1, 2, 3, 4]


def test_a_changed_feature_or_label_changes_the_hash_of_the_data(tiny):
    rows = tiny.trials(4)
    hashes = {PreparedTrials(rows, tiny.processor()).content_hash()}
    changed = [dict(row) for row in rows]
    changed[3]["features"] = changed[3]["features"] + np.float32(1e-3)
    hashes.add(PreparedTrials(changed, tiny.processor()).content_hash())
    changed[3] = {**rows[3], "phonemes": "AA"}
    hashes.add(PreparedTrials(changed, tiny.processor()).content_hash())
    assert len(hashes) == 3


def test_read_in_body_and_head_learn_at_their_own_rates_and_only_matrices_decay(tiny, tmp_path):
    run = tiny.trainer(
        tmp_path, train=tiny.trials(8), read_in_learning_rate=1e-3, head_learning_rate=0.0, weight_decay=0.1
    )
    groups = {group["name"]: group for group in run.create_optimizer().param_groups}
    assert {name: group["lr"] for name, group in groups.items()} == {
        "read_in": 1e-3,
        "read_in, no decay": 1e-3,
        "body": 5e-3,
        "body, no decay": 5e-3,
        "head": 0.0,
        "head, no decay": 0.0,
    }
    assert all(group["weight_decay"] == (0.0 if "no decay" in name else 0.1) for name, group in groups.items())
    assert all(p.ndim == 1 for name, group in groups.items() if "no decay" in name for p in group["params"])
    head = run.model.head["p"].weight.clone()
    run.train()
    assert torch.equal(head, run.model.head["p"].weight)


def test_day_layers_and_initial_states_do_not_decay():
    net = BITGRUForCTC(BITGRUConfig(participants={"p": 4}, sessions=["a", "b"], hidden_size=6, num_hidden_layers=1))
    groups = parameter_groups(net, learning_rate=1.0, weight_decay=0.1)
    decaying = {id(p) for group in groups if group["weight_decay"] for p in group["params"]}
    for name, parameter in net.named_parameters():
        expected = parameter.ndim >= 2 and not any(word in name for word in ("session", "day", "initial_state", "bias"))
        assert (id(parameter) in decaying) == expected, name
    assert sum(len(group["params"]) for group in groups) == len(list(net.parameters()))
    with pytest.raises(ValueError, match="read_in_learning_rate"):
        parameter_groups(torch.nn.Linear(2, 2), learning_rate=1.0, weight_decay=0.0, read_in_learning_rate=0.1)


def test_every_trial_comes_once_in_an_epoch_over_all_processes_and_epochs_differ():
    lengths, sessions = list(range(10, 31)), ["a", "b", "c"] * 7
    processes = [
        EpochBatchSampler(["p"] * 21, sessions, lengths, batch_size=3, seed=1, num_processes=2, process_index=rank)
        for rank in (0, 1)
    ]
    orders = []
    for epoch in (0, 1):
        for sampler in processes:
            sampler.set_epoch(epoch)
        batches = [list(sampler) for sampler in processes]
        assert len(batches[0]) == len(batches[1]) == len(processes[0])
        seen = sorted(i for process in batches for batch in process for _, i in batch)
        assert seen == list(range(21))
        assert {e for process in batches for batch in process for e, _ in batch} == {epoch}
        orders.append(batches)
    assert orders[0] != [[[(0, i) for _, i in batch] for batch in process] for process in orders[1]]


def test_a_batch_holds_one_participant_and_no_process_is_left_without_trials():
    sampler = EpochBatchSampler(["p"] * 5 + ["q"] * 4, ["s"] * 9, [10] * 9, batch_size=2, num_processes=2)
    for batch in sampler:
        assert len(batch) >= 1 and len({i < 5 for _, i in batch}) == 1


def test_evaluation_batches_hold_every_trial_once_with_like_lengths_together():
    lengths = [5, 50, 6, 52, 7]
    samplers = [LengthSortedBatchSampler([("p",)] * 5, lengths, 2, 2, rank) for rank in (0, 1)]
    batches = [[i for _, i in batch] for sampler in samplers for batch in sampler]
    assert sorted(i for batch in batches for i in batch) == list(range(5))
    assert [3, 1] in batches


def test_loader_workers_and_the_main_process_make_the_same_run(tiny, tmp_path):
    losses = []
    for workers in (0, 1):
        run = tiny.trainer(
            tmp_path / str(workers),
            train=tiny.trials(16),
            augmentation=Augmentation(white_noise_sd=0.5),
            dataloader_num_workers=workers,
        )
        run.train()
        losses.append(tiny.step_losses(run))
    assert losses[0] == losses[1]


def test_participants_with_different_channels_train_together(tiny, tmp_path):
    rows = tiny.trials(8) + tiny.trials(8, seed=1, channels=6, participant="q")
    run = tiny.trainer(
        tmp_path,
        train=rows,
        evaluation=rows,
        net=tiny.model(participants={"p": 8, "q": 6}),
        proc=tiny.processor(participants={"p": 8, "q": 6}),
        per_device_train_batch_size=4,
    )
    run.train()
    assert np.isfinite(run.evaluate()["eval_loss"])


def test_half_precision_on_the_processor_trains_and_scores_in_finite_numbers(tiny, tmp_path):
    run = tiny.trainer(tmp_path, train=tiny.trials(8), evaluation=tiny.trials(4), bf16=True)
    run.train()
    assert np.isfinite(run.evaluate()["eval_loss"])
    assert run.predict_log_probs(tiny.trials(2))[0].dtype == np.float32


def test_without_evaluation_trials_the_callers_settings_stay_as_they_are(tiny, tmp_path):
    settings = replace(
        tiny.arguments(tmp_path), eval_strategy="epoch", save_strategy="epoch", load_best_model_at_end=True
    )
    run = BITTrainer(tiny.model(), settings, train_dataset=tiny.trials(8), processing_class=tiny.processor())
    assert settings.load_best_model_at_end and not run.args.load_best_model_at_end
