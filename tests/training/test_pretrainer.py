"""Pretraining on many participants: what the encoder sees, what counts, and runs that survive."""

import importlib.util
import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from bit_speech.training.pretraining_input import PretrainingInput, smooth_visible
from processing_bit.feature_extraction_bit import BITFeatureExtractor

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny_pretraining.py")


@pytest.fixture(scope="module")
def tiny():
    """The module `tiny_pretraining.py` beside this file."""
    spec = importlib.util.spec_from_file_location("tests_training_tiny_pretraining", TINY)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# ---- what the encoder sees ----


@pytest.mark.parametrize("kind", ["symmetric", "causal"])
def test_smoothing_a_padded_batch_is_the_extractors_smoothing_of_each_trial(kind):
    extractor = BITFeatureExtractor(smoothing=kind)
    kernel = torch.from_numpy(extractor.smoothing_kernel()[::-1].copy())
    left = len(kernel) - 1 if kind == "causal" else len(kernel) // 2
    lengths = torch.tensor([150, 64, 7])
    features = torch.randn(3, 150, 4)
    mask = torch.arange(150) < lengths[:, None]
    smoothed = smooth_visible(features.masked_fill(~mask[..., None], 50.0), mask, kernel, left)
    for row, length in enumerate(lengths.tolist()):
        expected = torch.from_numpy(extractor.smooth(features[row, :length].numpy()))
        torch.testing.assert_close(smoothed[row, :length], expected, atol=2e-6, rtol=1e-5)


def test_nothing_of_a_hidden_patch_is_smoothed_into_what_the_encoder_sees():
    kernel = torch.from_numpy(BITFeatureExtractor().smoothing_kernel())
    prepare = PretrainingInput(kernel, left=6, patch_size=5)
    features, mask = torch.randn(1, 33, 2), torch.ones(1, 33, dtype=torch.bool)
    hidden = torch.tensor([[False, True, True, False, False, True]])
    changed = features.clone()
    changed[:, 5:15], changed[:, 25:30] = 9.0, -9.0
    visible = [*range(5), *range(15, 25), *range(30, 33)]
    first, second = (prepare(values, mask, hidden, training=False) for values in (features, changed))
    assert torch.equal(first[:, visible], second[:, visible])


def test_noise_has_the_asked_size_and_only_in_training():
    prepare = PretrainingInput(torch.ones(1), 0, 5, white_noise_sd=0.2, constant_offset_sd=0.5)
    features, mask = torch.zeros(40, 200, 10), torch.ones(40, 200, dtype=torch.bool)
    torch.manual_seed(0)
    noisy = prepare(features, mask, None, training=True)
    assert noisy.mean(dim=1).std().item() == pytest.approx(0.5, rel=0.1)
    assert (noisy - noisy.mean(dim=1, keepdim=True)).std().item() == pytest.approx(0.2, rel=0.02)
    assert torch.equal(prepare(features, mask, None, training=False), features)


def test_the_model_gets_noisy_input_and_the_raw_target(tiny, tmp_path):
    run = tiny.pretrainer(tmp_path)
    batch = next(iter(run.get_train_dataloader()))
    seen = run._seen(batch, training=True)
    assert torch.equal(seen["labels"], batch["input_features"])
    assert not torch.isclose(seen["input_features"], seen["labels"]).any(dim=2).all(dim=1).any()


# ---- batches and masks ----


def test_every_batch_holds_one_participant_under_the_models_index(tiny, tmp_path):
    net = tiny.model({"a": 9, **tiny.PARTICIPANTS})
    run = tiny.pretrainer(tmp_path, net=net)
    shapes = {int(b["participant_index"][0]): b["input_features"].shape[2] for b in run.get_train_dataloader()}
    assert shapes == {1: 6, 2: 4}


def test_a_mask_is_a_function_of_seed_epoch_and_trial(tiny, tmp_path):
    def masks(batch_size, epoch, seed):
        loader = tiny.pretrainer(tmp_path, per_device_train_batch_size=batch_size, seed=seed).get_train_dataloader()
        loader.set_epoch(epoch)
        found = {}
        for batch in loader:
            frames = batch["attention_mask"].sum(dim=1) // 5
            for index, mask, count in zip(batch["trial_index"].tolist(), batch["time_mask"], frames.tolist()):
                assert not mask[count:].any()
                found[index] = mask[:count].tolist()
        return found

    first = masks(4, 0, 1)
    assert len(first) == 24 and first == masks(7, 0, 1)
    assert first != masks(4, 1, 1) and first != masks(4, 0, 2)


def test_shuffled_time_keeps_the_bins_of_a_trial_in_one_random_order(tiny, tmp_path):
    plain, shuffled, again = (
        next(iter(tiny.pretrainer(tmp_path, shuffle_time=shuffle).get_train_dataloader()))
        for shuffle in (False, True, True)
    )
    assert torch.equal(shuffled["input_features"], again["input_features"])
    for before, after, real in zip(plain["input_features"], shuffled["input_features"], plain["attention_mask"]):
        assert not torch.equal(before, after) and torch.equal(before[~real], after[~real])
        order = before[real][:, 0].argsort(), after[real][:, 0].argsort()
        assert torch.equal(before[real][order[0]], after[real][order[1]])


@pytest.mark.parametrize("objective", ["poisson", "autoregressive"])
def test_objectives_on_counts_get_the_counts_of_the_corpus(tiny, tmp_path, objective):
    corpus = tiny.MemoryCorpus(tiny.PARTICIPANTS, counts=True)
    causal = objective == "autoregressive"
    net = tiny.model(
        tiny.PARTICIPANTS, pretraining_objective=objective, causal=causal, mask_ratio=0.0 if causal else 0.5
    )
    run = tiny.pretrainer(tmp_path, corpus, corpus, net=net, causal_smoothing=causal, max_steps=45, logging_steps=45)
    before = run.evaluate()["eval_loss"]
    run.train()
    assert run.evaluate()["eval_loss"] < before - 0.005


def test_half_of_the_corpus_is_hidden(tiny, tmp_path):
    run = tiny.pretrainer(tmp_path, train=tiny.MemoryCorpus(tiny.PARTICIPANTS, items_each=300))
    hidden = frames = 0
    for batch in run.get_train_dataloader():
        hidden += int(batch["time_mask"].sum())
        frames += int((batch["attention_mask"].sum(dim=1) // 5).sum())
    assert hidden / frames == pytest.approx(0.5, abs=0.01)


def test_items_shorter_than_a_patch_are_left_out_and_reported(tiny, tmp_path, caplog):
    corpus = tiny.MemoryCorpus(tiny.PARTICIPANTS)
    corpus.items[3] = corpus.items[3][:4]
    corpus._set(corpus.items, corpus.dataset_index)
    with caplog.at_level("WARNING"):
        run = tiny.pretrainer(tmp_path, train=corpus)
    assert len(run.train_dataset) == 23 and "1 of 24 items of train_dataset" in caplog.text


def test_a_model_that_cannot_read_the_corpus_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="'h' with 6 channels, the model knows it with 5"):
        tiny.pretrainer(tmp_path, net=tiny.model({"h": 5, "m": 4}))
    with pytest.raises(ValueError, match="'m' with 4 channels, the model knows it not"):
        tiny.pretrainer(tmp_path, net=tiny.model({"h": 6}))


def test_a_causal_encoder_must_not_see_the_future_through_smoothing(tiny, tmp_path):
    net = tiny.model(tiny.PARTICIPANTS, causal=True)
    with pytest.raises(ValueError, match="causal_smoothing"):
        tiny.pretrainer(tmp_path, net=net)
    assert tiny.pretrainer(tmp_path, net=net, causal_smoothing=True).processing_class.smoothing == "causal"


# ---- training and scoring ----


def test_pretraining_explains_hidden_patches_of_other_trials_better_and_better(tiny, tmp_path):
    held_out = tiny.MemoryCorpus(tiny.PARTICIPANTS)
    run = tiny.pretrainer(tmp_path, evaluation=held_out, max_steps=70, learning_rate=1e-2, logging_steps=35)
    before = run.evaluate()
    run.train()
    after = run.evaluate()
    assert after["eval_r2"] > before["eval_r2"] + 0.05 and after["eval_loss"] < before["eval_loss"]
    assert after["eval_r2"] == pytest.approx((after["eval_r2_h"] + after["eval_r2_m"]) / 2)


def test_scores_do_not_depend_on_the_evaluation_batch_nor_on_chance(tiny, tmp_path):
    held_out = tiny.MemoryCorpus(tiny.PARTICIPANTS, seed=1)
    scores = []
    for size in (3, 8):
        run = tiny.pretrainer(tmp_path, evaluation=held_out, per_device_eval_batch_size=size)
        torch.manual_seed(size)
        scores.append({k: v for k, v in run.evaluate().items() if "second" not in k and "runtime" not in k})
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)


def test_explained_variance_is_pooled_over_the_trials_of_a_participant(tiny, tmp_path):
    held_out = tiny.MemoryCorpus({"h": 6}, items_each=5, seed=1)
    run = tiny.pretrainer(
        tmp_path, train=held_out, net=tiny.model({"h": 6}), evaluation=held_out, per_device_eval_batch_size=2
    )
    score = run.evaluate()["eval_r2_h"]
    target, prediction = [], []
    for batch in run.get_eval_dataloader():
        output = run.model.eval()(**run._seen(batch, training=False))
        target.append(output.target.reshape(-1, 6))
        prediction.append(output.prediction.reshape(-1, 6))
    target, prediction = torch.cat(target), torch.cat(prediction)
    error, spread = (target - prediction).square().sum(), (target - target.mean(dim=0)).square().sum()
    assert score == pytest.approx(1 - (error / spread).item(), rel=1e-4)


def test_an_update_cut_into_pieces_is_the_update_of_the_whole(tiny, tmp_path):
    quiet = {"white_noise_sd": 0.0, "constant_offset_sd": 0.0, "max_steps": 6}
    weights = []
    for size, pieces in ((6, 1), (3, 2)):
        corpus = tiny.MemoryCorpus({"h": 6}, items_each=12)
        net = tiny.model({"h": 6}, dropout=0.0)
        run = tiny.pretrainer(
            tmp_path, corpus, net=net, per_device_train_batch_size=size, gradient_accumulation_steps=pieces, **quiet
        )
        if pieces == 2:  # the batches of six trials, each in two halves
            whole = tiny.pretrainer(tmp_path, corpus, net=net, per_device_train_batch_size=6).get_train_dataloader()
            sampler = whole.batch_sampler
            halves = _Halves(sampler)
            run._loader = lambda batches, _, make=run._loader, halves=halves: make(batches, halves)
        run.train()
        weights.append([p.detach().clone() for p in run.model.parameters()])
    for first, second in zip(*weights, strict=True):
        torch.testing.assert_close(first, second, atol=2e-5, rtol=1e-4)


class _Halves:
    def __init__(self, batches):
        self.batches, self.set_epoch, self.batch_size = batches, batches.set_epoch, 3

    def __len__(self):
        return 2 * len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            yield batch[0::2]
            yield batch[1::2]


def test_a_loss_that_is_not_finite_stops_the_run(tiny, tmp_path):
    run = tiny.pretrainer(tmp_path)
    run.model.read_out["h"].projection.weight.data.fill_(math.inf)
    run.model.read_out["m"].projection.weight.data.fill_(math.inf)
    with pytest.raises(FloatingPointError, match="step 1"):
        run.train()


def test_the_saved_folder_says_how_the_signal_was_prepared_and_fine_tunes(tiny, tmp_path):
    from bit_speech import BITConfig, BITForCTC, load_pretrained_encoder

    corpus = tiny.MemoryCorpus(tiny.PARTICIPANTS)
    corpus.settings = {"feature_kinds": ["threshold_crossings"], "normalization": "session"}
    run = tiny.pretrainer(tmp_path, corpus, smoothing_sd_bins=1.0)
    run.train()
    run.save_model(str(tmp_path / "model"))
    extractor = BITFeatureExtractor.from_pretrained(tmp_path / "model")
    assert extractor.smoothing_sd_bins == 1.0 and extractor.normalization == "session"
    assert extractor.feature_kinds == ["threshold_crossings"]
    model = BITForCTC(BITConfig.from_pretrained(tmp_path / "model", participants={"h": 12}, mask_ratio=0.0))
    assert load_pretrained_encoder(model, tmp_path / "model", {"h": range(6)}) == {"h": "widened"}
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["corpus"]["train"]["participants"] == tiny.PARTICIPANTS and record["training_bins"] > 0


# ---- runs that survive, on one process and on two ----


def start(*command, processes=1):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    runner = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"] if processes == 2 else []
    return subprocess.run(
        [sys.executable, *runner, str(TINY), *command], env=environment, capture_output=True, text=True, timeout=200
    )


def test_a_run_killed_in_the_middle_of_an_epoch_repeats_every_loss_and_ends_with_the_same_weights(tiny, tmp_path):
    whole = tiny.survivor(tmp_path / "whole")
    whole.train()
    killed = start(str(tmp_path / "killed"), "--kill_at_step", "13")
    assert killed.returncode == -signal.SIGKILL, killed.stderr[-2000:]
    assert not (tmp_path / "killed" / "checkpoint-15").exists()
    assert (tmp_path / "killed" / "checkpoint-10").is_dir()  # an epoch has 8 steps

    resumed = tiny.survivor(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)
    assert tiny.step_losses(resumed) == tiny.step_losses(whole) and len(tiny.step_losses(whole)) == 24
    assert resumed.training_bins == whole.training_bins
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def compare(result, one, steps, tiny):
    expected = tiny.step_losses(one)
    assert len(expected) == steps and [step for step, _, _ in result["losses"]] == [step for step, _, _ in expected]
    for (_, loss, norm), (_, other_loss, other_norm) in zip(result["losses"], expected, strict=True):
        assert loss == pytest.approx(other_loss, abs=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-3, abs=1e-5)
    assert result["bins"] == one.training_bins
    scores = one.evaluate()
    for name in ("eval_r2_h", "eval_r2_m", "eval_loss"):
        assert result["scores"][name] == pytest.approx(scores[name], abs=1e-4)


def test_two_processes_have_the_losses_of_one(tiny, tmp_path):
    one = tiny.distributed(tmp_path / "one", batch_size=8, max_steps=12)
    one.train()
    done = start(str(tmp_path / "two"), "--distributed", "--max_steps", "12", processes=2)
    assert done.returncode == 0, done.stderr[-3000:]
    compare(json.loads((tmp_path / "two" / "result.json").read_text()), one, 12, tiny)


@pytest.mark.slow
def test_two_processes_one_of_which_is_killed_repeat_the_fifty_losses_of_one_process(tiny, tmp_path):
    one = tiny.distributed(tmp_path / "one", batch_size=8)
    one.train()
    killed = start(str(tmp_path / "two"), "--distributed", "--kill_at_step", "29", processes=2)
    assert killed.returncode != 0
    assert (tmp_path / "two" / "checkpoint-20" / "checkpoint_complete.json").is_file()
    again = start(str(tmp_path / "two"), "--distributed", "--resume", processes=2)
    assert again.returncode == 0, again.stderr[-3000:]
    compare(json.loads((tmp_path / "two" / "result.json").read_text()), one, 50, tiny)


def test_every_number_of_the_record_can_be_written(tiny, tmp_path):
    run = tiny.pretrainer(tmp_path)
    run.train()
    curve = json.loads((tmp_path / "learning_curve.json").read_text())
    assert [log["step"] for log in curve if "loss" in log] == [1, 2, 3, 4]
    assert all(np.isfinite(log["loss"]) for log in curve if "loss" in log)
    for log in curve[:4]:
        assert log["patches_per_second"] > 0 and 0 < log["model_flops_utilisation"] < 1


def test_the_counted_operations_are_those_of_the_matrix_products_that_run(tiny):
    from torch.utils.flop_counter import FlopCounterMode

    from bit_speech.training.throughput import training_flops

    model = tiny.model({"h": 6}, dropout=0.0, attn_implementation="eager", mask_ratio=0.5)
    features, mask = torch.randn(2, 100, 6), torch.zeros(2, 20, dtype=torch.bool)
    mask[:, :10] = True
    with FlopCounterMode(display=False) as counter:
        model(features, time_mask=mask).loss.backward()
    expected = training_flops(model.config, frames=40, pairs=2 * 20**2, channels=6, hidden=20)
    assert counter.get_total_flops() == expected
