"""Training the end-to-end decoder: one update however it is cut, honest evaluation, exact resuming."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from bit_speech.data import Augmentation
from bit_speech.training.contrastive_trainer import BITLLMTrainingArguments, ContrastiveTrainer

ROOT = Path(__file__).parents[2]
SCRIPT = Path(__file__).with_name("tiny_llm.py")


@pytest.fixture(scope="module")
def llm():
    spec = importlib.util.spec_from_file_location("tests_training_tiny_llm", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def losses(run):
    return [log["loss"] for log in run.state.log_history if "loss" in log]


@pytest.fixture(scope="module")
def whole(llm, tmp_path_factory):
    """Two steps, each on one batch of all eight trials."""
    return llm.one_update(tmp_path_factory.mktemp("whole"), batch_size=8, accumulation=1)


def test_accumulation_over_four_batches_is_one_big_batch_contrastive_loss_and_queue_included(llm, whole, tmp_path):
    cut = llm.one_update(tmp_path, batch_size=2, accumulation=4)
    assert losses(cut) == pytest.approx(losses(whole), abs=1e-5)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], value, atol=1e-5, rtol=0, msg=name)


def test_accumulation_over_uneven_batches_is_one_big_batch(llm, tmp_path):
    whole = llm.one_update(tmp_path / "whole", batch_size=8, accumulation=1, count=7)
    cut = llm.one_update(tmp_path / "cut", batch_size=3, accumulation=3, count=7)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(cut.model.state_dict()[name], value, atol=1e-5, rtol=0, msg=name)


def run_two_processes(folder, *flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(folder), str(rank), *flags],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in (0, 1)
    ]
    try:
        for process in processes:
            _, errors = process.communicate(timeout=200)
            assert process.returncode == 0, errors[-3000:]
    finally:
        for process in processes:
            process.kill()


@pytest.mark.slow
def test_a_network_spread_over_two_processes_gives_the_same_numbers_and_sentences(tmp_path):
    run_two_processes(tmp_path, "--spread")


@pytest.mark.slow
def test_two_processes_with_two_batches_each_are_one_big_batch(llm, whole, tmp_path):
    run_two_processes(tmp_path)
    assert torch.load(tmp_path / "losses.pt", weights_only=True) == pytest.approx(losses(whole), abs=1e-5)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    for name, value in whole.model.state_dict().items():
        torch.testing.assert_close(weights[name], value, atol=1e-5, rtol=0, msg=name)


def test_both_passes_of_an_update_see_the_same_dropout(llm, tmp_path):
    built = llm.build(dropout=0.3, contrastive_weight=1.0)
    settings = {"max_steps": 1, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 2}
    run = llm.trainer(tmp_path, train=llm.trials(8), built=built, **settings)
    seen = []
    run.model.register_forward_hook(lambda _, args, output: seen.append((output.logits is None, output.neural_embeds)))
    run.train()
    assert [without for without, _ in seen] == [True, True, False, False]
    assert torch.equal(seen[0][1], seen[2][1]) and torch.equal(seen[1][1], seen[3][1])
    assert built[0].encoder.layers[0].mlp.dropout.p == 0.3


def test_every_trained_parameter_moves_in_an_update(llm, whole):
    before, _ = llm.build(ctc_weight=0.3, contrastive_weight=0.5)
    for (name, parameter), other in zip(whole.model.named_parameters(), before.parameters(), strict=True):
        assert torch.equal(parameter, other) != parameter.requires_grad, name
    frozen = [name for name, parameter in whole.model.named_parameters() if not parameter.requires_grad]
    assert frozen == ["encoder.mask_token"]  # nothing is masked in this stage


def test_the_reported_loss_is_that_of_the_formula(llm, tmp_path):
    built = llm.build(contrastive_weight=0.5)
    run = llm.trainer(tmp_path, train=llm.trials(4), built=built, max_steps=1, per_device_train_batch_size=4)
    batch = next(iter(run.get_train_dataloader()))
    model, _ = llm.build(contrastive_weight=0.5)
    with torch.no_grad():
        tokens, _, _ = model.encode_neural(
            batch["input_features"], batch["input_features_mask"], participant_index=batch["participant_index"]
        )
        neural, text = [], []
        for i, mask in enumerate(batch["input_features_mask"]):
            neural.append(tokens[i, : int(mask.sum()) // 5].mean(0))
            text.append(model.get_input_embeddings()(batch["input_ids"][i][batch["sentence_mask"][i]]).mean(0))
        neural = F.normalize(model.aligner.neural(torch.stack(neural)), dim=-1)
        text = F.normalize(model.aligner.text(torch.stack(text)), dim=-1)
        scores = 10 * neural @ text.T
        rows = torch.arange(4)
        expected = (F.cross_entropy(scores, rows) + F.cross_entropy(scores.T, rows)) / 2
        inputs = {k: v for k, v in batch.items() if k not in ("trial_index", "sentence_id", "logits_to_keep")}
        logits = model(**inputs).logits[:, :-1]
        log_probs = logits.log_softmax(-1)
        targets = batch["labels"][:, 1:]
        picked = log_probs[targets != -100].gather(1, targets[targets != -100][:, None])
        expected = 0.5 * expected - picked.mean()
    run.train()
    assert losses(run)[0] == pytest.approx(float(expected), abs=1e-5)


def test_trials_of_one_sentence_are_not_contrasted_with_each_other(llm, tmp_path):
    rows = llm.trials(4, sentences=["go on"] * 4)
    run = llm.trainer(tmp_path, train=rows, built=llm.build(contrastive_weight=1.0), max_steps=1)
    batch = next(iter(run.get_train_dataloader()))
    vectors = {"neural": torch.randn(4, 8), "text": torch.randn(4, 8), "sentences": batch["sentence_id"]}
    assert float(run._contrast(vectors, torch.tensor(10.0))) == 0.0


def test_the_queue_keeps_the_newest_vectors_and_a_resumed_run_continues_with_it(llm, tmp_path):
    settings = {"negative_queue": 5, "max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    settings |= {"per_device_train_batch_size": 3, "gradient_accumulation_steps": 2}

    def run():
        built = llm.build(dropout=0.2, contrastive_weight=1.0)
        noise = Augmentation(white_noise_sd=0.2)
        return llm.trainer(tmp_path, train=llm.trials(8), built=built, augmentation=noise, **settings)

    whole = run()
    whole.train()
    assert whole._queue["neural"].shape == (5, 8)
    resumed = run()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed) == losses(whole)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_run_with_adapters_resumes_exactly(llm, tmp_path):
    from bit_speech.training import choose_trained_parts

    def run():
        model, processor = llm.build(dropout=0.2)
        built = choose_trained_parts(model, "lora"), processor
        settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
        return llm.trainer(tmp_path, train=llm.trials(8), built=built, **settings)

    whole, resumed = run(), run()
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert losses(resumed) == losses(whole)


def test_a_planted_answer_cannot_be_read_at_evaluation(llm, tmp_path):
    """The trials' text is changed to sentences that nothing else could suggest: what is written stays the same."""
    run = llm.trainer(tmp_path, train=llm.trials(8))
    seen = []
    run.model.register_forward_pre_hook(lambda _, args, inputs: seen.append(inputs), with_kwargs=True)
    plain = run.evaluation_loop(run.get_eval_dataloader(llm.trials(6)), "")
    written_with = len(seen)
    planted = run.evaluation_loop(run.get_eval_dataloader(llm.trials(6, sentences=["zebra zebra zebra"] * 6)), "")
    assert planted.predictions == plain.predictions
    answer = run.processing_class.encode_answers(["zebra"])[0][:-1]
    generating = [call for call in seen[written_with:] if call.get("labels") is None]
    assert generating
    for call in generating:
        assert not any(call.get(name) is not None for name in ("labels", "sentence_mask", "ctc_labels"))
        for row in call["input_ids"].tolist():
            assert not any(row[i : i + len(answer)] == answer for i in range(len(row)))
    assert planted.metrics["eval_wer"] >= 1.0


def test_eight_trials_are_learned_by_heart_and_written_freely(llm, tmp_path):
    built = llm.build(text={"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2})
    run = llm.trainer(
        tmp_path, train=llm.trials(8), evaluation=llm.trials(8), built=built, max_steps=60, learning_rate=1e-2
    )
    run.train()
    scores = run.evaluate()
    assert scores["eval_wer"] == 0.0 and scores["eval_teacher_forced_token_accuracy"] == 1.0
    assert run.write_sentences(llm.trials(8)) == llm.SENTENCES
    assert len(run.write_sentences(llm.trials(8), num_beams=2, num_return_sequences=2)) == 8  # the best of each


def test_the_best_checkpoint_is_chosen_by_the_free_running_word_error_rate(tmp_path):
    args = BITLLMTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    assert args.metric_for_best_model == "eval_wer" and args.greater_is_better is False


def test_the_record_of_a_run_names_what_decides(llm, tmp_path):
    run = llm.trainer(tmp_path, train=llm.trials(4), evaluation=llm.trials(4), max_steps=1)
    run.train()
    record = run.run_record()
    assert record["model_config"]["contrastive_weight"] == 0.1 and record["prompt"].endswith("sentence:")
    assert record["arguments"]["max_new_tokens"] == 16


def test_a_trial_without_a_frame_is_written_as_nothing_and_counts_as_errors(llm, tmp_path):
    rows = llm.trials(3)
    rows[1] = {**rows[1], "features": rows[1]["features"][:3]}
    run = llm.trainer(tmp_path, train=llm.trials(4))
    assert run.write_sentences(rows)[1] == ""
    assert np.isfinite(run.evaluate(rows)["eval_wer"])
    with pytest.raises(ValueError, match="fewer frames"):
        llm.trainer(tmp_path, train=rows)


def test_phonemes_are_read_by_the_same_encoder(llm, tmp_path):
    rows = llm.trials(3)
    rows[1] = {**rows[1], "features": rows[1]["features"][:3]}
    run = llm.trainer(tmp_path, train=llm.trials(4))
    found = run.predict_log_probs(rows)
    model = llm.tiny.model(0.0).eval()
    expected = llm.tiny.trainer(tmp_path / "ctc", net=model).predict_log_probs(rows)
    assert found[1].shape == (0, 41)
    for mine, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(mine, other, atol=1e-5)
    without = llm.trainer(tmp_path, built=llm.build(encoder=model.config))
    with pytest.raises(ValueError, match="no phoneme head"):
        without.predict_log_probs(rows)


@pytest.mark.gpu
def test_on_a_gpu_the_network_learns_and_writes_in_half_precision(llm, tmp_path):
    run = llm.trainer(tmp_path, train=llm.trials(8), evaluation=llm.trials(8), use_cpu=False, bf16=True)
    run.train()
    assert run.model.device.type == "cuda" and np.isfinite(run.evaluate()["eval_loss"])


def test_trials_without_a_sentence_can_be_written_but_not_learned(llm, tmp_path):
    rows = llm.trials(3)
    rows[2] = {**rows[2], "text": None}
    with pytest.raises(ValueError, match="neither phonemes nor text"):
        llm.trainer(tmp_path, train=rows)
    assert len(llm.trainer(tmp_path, train=llm.trials(4)).write_sentences(rows)) == 3


def test_new_parts_language_model_and_encoder_learn_at_their_own_rates(llm, tmp_path):
    run = llm.trainer(
        tmp_path,
        train=llm.trials(4),
        learning_rate=1e-4,
        projector_learning_rate=1e-3,
        language_model_learning_rate=2e-4,
    )
    expected = {"encoder": 1e-4, "neural_projector": 1e-3, "aligner": 1e-3, "language_model": 2e-4}
    rates = {id(p): group["lr"] for group in run.create_optimizer().param_groups for p in group["params"]}
    for name, parameter in run.model.named_parameters():
        if parameter.requires_grad:
            assert rates.pop(id(parameter)) == expected[name.split(".")[0]], name
    assert not rates
    frozen = llm.build()
    frozen[0].language_model.requires_grad_(False)
    run = llm.trainer(tmp_path, train=llm.trials(4), built=frozen, language_model_learning_rate=1e-4)
    with pytest.raises(ValueError, match="language_model_learning_rate is 0.0001"):
        run.create_optimizer()


@pytest.mark.parametrize(
    "name, value",
    [("negative_queue", -1), ("projector_learning_rate", -1.0), ("max_new_tokens", 0), ("num_beams", 0)],
)
def test_settings_out_of_range_are_named(tmp_path, name, value):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        BITLLMTrainingArguments(output_dir=str(tmp_path), use_cpu=True, **{name: value})


def test_a_trainer_without_a_processor_is_refused(llm, tmp_path):
    with pytest.raises(ValueError, match="processing_class is missing"):
        ContrastiveTrainer(llm.build()[0], llm.arguments(tmp_path), train_dataset=llm.trials(2))
