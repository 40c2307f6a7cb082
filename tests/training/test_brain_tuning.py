"""Brain-tuning learns, resumes exactly, deals stretches out fairly, and repeats the released schedule on demand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import set_seed

from bit_speech.training.brain_tuning import (
    BrainTuningArguments,
    BrainTuningTrainer,
    StoryRunDataset,
    StretchBatchSampler,
    fit_head,
    legacy_factor,
)
from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction
from processing_bit.feature_extraction_story import StoryFeatureExtractor

from .tiny_stories import VOXELS, cohort, config, stimulus

PEOPLE = ["S00", "S01"]


def dataset(stories=(0, 1), people=(0, 1)) -> StoryRunDataset:
    # Participants with different stories: the second heard one less.
    pairs = [(p, s) for p in people for s in stories if not (p == 1 and s == stories[0] and len(stories) > 1)]
    runs = [cohort(snr=4.0).run(person, stimulus(story)) for person, story in pairs]
    return StoryRunDataset(runs, {f"story{s}": stimulus(s).audio for s in stories}, PEOPLE)


@pytest.mark.slow
def test_two_processes_tune_as_one_with_the_same_stretches(tmp_path):
    script = (
        "import sys; sys.path.insert(0, {root!r})\n"
        "from tests.training.test_brain_tuning import losses, trainer\n"
        "trainer({folder!r}, steps=6, per_device_train_batch_size=2).train()\n"
    )
    root = str(Path(__file__).parents[2])
    (tmp_path / "two.py").write_text(script.format(root=root, folder=str(tmp_path / "two")))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": root}
    done = subprocess.run(
        [*command, str(tmp_path / "two.py")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stderr[-3000:]
    # Stretches of 3 TRs: two for one process, one for the other.
    trainer(tmp_path / "one", steps=6, per_device_train_batch_size=4).train()
    np.testing.assert_allclose(losses(tmp_path / "two"), losses(tmp_path / "one"), atol=1e-4)


def trainer(folder, steps=4, **values) -> BrainTuningTrainer:
    set_seed(0)
    model_values = values.pop("model", {})
    model = BrainTunedForVoxelPrediction(config(participants=PEOPLE, lora_dropout=0.0, **model_values))
    settings = {
        "output_dir": str(folder), "max_steps": steps, "per_device_train_batch_size": 3, "use_cpu": True,
        "disable_tqdm": True, "eval_strategy": "no", "save_strategy": "no", "load_best_model_at_end": False,
        "logging_steps": 1, "learning_rate": 1e-2,
    } | values  # fmt: skip
    arguments = BrainTuningArguments(**settings)
    return BrainTuningTrainer(model, arguments, dataset(), dataset((2,)), extractor=StoryFeatureExtractor(clip_s=4.0))


def losses(folder) -> list[float]:
    return [log["loss"] for log in json.loads((Path(folder) / "learning_curve.json").read_text()) if "loss" in log]


def test_training_lowers_the_loss_and_leaves_a_record(tmp_path):
    tuned = trainer(tmp_path, steps=40, model={"head": "low_rank"})
    before = tuned.evaluate(tuned.train_dataset)["eval_correlation"]
    tuned.train()
    after = tuned.evaluate(tuned.train_dataset)
    assert after["eval_correlation"] > before + 0.2
    assert {"eval_correlation_S00", "eval_correlation_S01"} < set(after)
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["runs"]["train"]["S01"]["stories"] == 1
    assert record["training_bins"] >= 40


def test_a_stopped_run_continues_as_if_it_had_not_stopped(tmp_path):
    whole = trainer(tmp_path / "whole", steps=6, save_strategy="steps", save_steps=3)
    whole.train()
    part = trainer(tmp_path / "part", steps=6, save_strategy="steps", save_steps=3)
    part.train()
    # As after a kill: the second half is lost.
    import shutil

    shutil.rmtree(tmp_path / "part" / "checkpoint-6")
    again = trainer(tmp_path / "part", steps=6, save_strategy="steps", save_steps=3)
    again.train(resume_from_checkpoint=True)
    assert losses(tmp_path / "part") == losses(tmp_path / "whole")
    for (name, first), second in zip(whole.model.named_parameters(), again.model.parameters()):
        torch.testing.assert_close(first, second, rtol=0, atol=0, msg=name)


def test_every_tr_of_every_run_comes_once_in_an_epoch_whatever_the_number_of_processes():
    lengths = [7, 5]
    expected = sorted((run, row) for run, length in enumerate(lengths) for row in range(length))
    for processes in (1, 2):
        found = []
        for index in range(processes):
            sampler = StretchBatchSampler(lengths, 2, num_processes=processes, process_index=index)
            batches = list(sampler)
            assert all(len({key[1] for key in batch}) == 1 for batch in batches)
            found += [key[1:3] for batch in batches for key in batch]
        assert sorted(set(found)) == expected
    assert len(list(StretchBatchSampler(lengths, 2))) == len(StretchBatchSampler(lengths, 2))


def test_order_is_a_function_of_seed_and_epoch():
    first, second = StretchBatchSampler([40], 2, seed=1), StretchBatchSampler([40], 2, seed=1)
    assert list(first) == list(second)
    second.set_epoch(1)
    assert [batch[0][1:] for batch in first] != [batch[0][1:] for batch in second]


def test_the_rate_falls_to_zero_and_with_legacy_rises_until_the_27th_of_30_epochs(tmp_path):
    ours = trainer(tmp_path / "a", steps=-1, num_train_epochs=10)
    steps = 10 * len(ours.get_train_dataloader())
    ours.create_optimizer_and_scheduler(steps)
    rates = []
    for _ in range(steps):
        ours.optimizer.step()
        ours.lr_scheduler.step()
        rates.append(ours.lr_scheduler.get_last_lr()[0])
    assert int(np.argmax(rates)) < steps * 0.15 and rates[-1] == 0.0
    published = [legacy_factor(step, 1, 82, 3, 30) for step in range(82 * 30 + 1)]
    assert int(np.argmax(published)) == 82 * 27
    assert published[-1] == pytest.approx(0.988, abs=1e-3)


def test_legacy_normalises_over_the_batch_and_keeps_the_order(tmp_path):
    legacy = trainer(tmp_path, legacy=True)
    loader = legacy.get_train_dataloader()
    batches = list(loader)
    assert [b["keys"][0].tolist() for b in batches] == [[0, 0, 3], [1, 0, 3], [2, 0, 3]]
    clips = batches[1]["input_values"]
    assert float(clips.std(correction=0)) == pytest.approx(1.0, abs=1e-3)
    assert float(clips[0].std()) != pytest.approx(1.0, abs=1e-3)


def test_batches_hold_the_clip_before_each_tr_of_one_participant(tmp_path):
    batch = next(iter(trainer(tmp_path).get_train_dataloader()))
    run = trainer(tmp_path).train_dataset.runs[int(batch["keys"][0, 0])]
    row = int(batch["keys"][0, 1])
    np.testing.assert_array_equal(batch["labels"][0].numpy(), run.responses[row])
    end = round((run.tr_times_s[row] + 1.0) * 16000)
    story = trainer(tmp_path).train_dataset.stories[run.story_id]
    heard = np.concatenate([np.zeros(64000, np.float32), story, np.zeros(64000, np.float32)])[end : end + 64000]
    np.testing.assert_allclose(
        batch["input_values"][0].numpy(), (heard - heard.mean()) / np.sqrt(heard.var() + 1e-7), atol=1e-4
    )


def test_whisper_is_tuned_on_its_spectra(tmp_path):
    body = {
        "model_type": "whisper", "d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "decoder_layers": 1,
        "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "num_mel_bins": 8,
        "vocab_size": 20, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
    }  # fmt: skip
    set_seed(0)
    model = BrainTunedForVoxelPrediction(config(participants=PEOPLE, body_config=body))
    arguments = BrainTuningArguments(
        output_dir=str(tmp_path), max_steps=2, per_device_train_batch_size=3, use_cpu=True, disable_tqdm=True,
        eval_strategy="no", save_strategy="no", load_best_model_at_end=False, logging_steps=1,
    )  # fmt: skip
    extractor = StoryFeatureExtractor(clip_s=4.0, num_mel_bins=8)
    tuned = BrainTuningTrainer(model, arguments, dataset(), extractor=extractor)
    assert next(iter(tuned.get_train_dataloader()))["input_values"].shape == (3, 8, 3000)
    tuned.train()
    assert all(module.up.abs().sum() > 0 for module in model.model._updates())


def test_runs_that_do_not_fit_are_refused(tmp_path):
    run = cohort().run(0, stimulus(0))
    with pytest.raises(ValueError, match="no sound of story 'story0'"):
        StoryRunDataset([run], {})
    with pytest.raises(ValueError, match=f"{VOXELS} voxels, the model 5"):
        BrainTuningTrainer(
            BrainTunedForVoxelPrediction(config(num_voxels=5)), BrainTuningArguments(output_dir=str(tmp_path)),
            StoryRunDataset([run], {"story0": stimulus(0).audio}), extractor=StoryFeatureExtractor(clip_s=4.0),
        )  # fmt: skip


def test_kept_convolutions_change_no_more_than_rounding(tmp_path):
    plain, kept = trainer(tmp_path / "a", steps=5), trainer(tmp_path / "b", steps=5, keep_convolutions=True)
    plain.train()
    kept.train()
    np.testing.assert_allclose(losses(tmp_path / "b"), losses(tmp_path / "a"), atol=2e-3)


@pytest.mark.parametrize("head", ["shared", "separate"])
def test_a_fitted_head_predicts_what_ridge_on_the_pooled_frames_predicts(head):
    torch.manual_seed(0)
    data, extractor = dataset(), StoryFeatureExtractor(clip_s=4.0)
    model = BrainTunedForVoxelPrediction(config(participants=PEOPLE, head=head)).eval()
    before = [np.mean([_fit(model, data, run, extractor)]) for run in data.runs]
    fit_head(model, data, extractor)
    after = [np.mean([_fit(model, data, run, extractor)]) for run in data.runs]
    assert np.mean(after) < np.mean(before)
    # The mean of a ridge regression's predictions is the mean of what it was fitted to.
    people = [["S00", "S01"]] if head == "shared" else [["S00"], ["S01"]]
    for names in people:
        runs = [run for run in data.runs if run.participant_id in names]
        predicted = np.concatenate([_predict(model, data, run, extractor) for run in runs])
        measured = np.concatenate([run.responses for run in runs])
        np.testing.assert_allclose(predicted.mean(axis=0), measured.mean(axis=0), atol=1e-4)


def _predict(model, data, run, extractor) -> np.ndarray:
    clips = torch.from_numpy(extractor(data.stories[run.story_id], run.tr_times_s)["input_values"])
    person = torch.full((len(clips),), PEOPLE.index(run.participant_id))
    with torch.no_grad():
        return model(clips, person).logits.numpy()


def _fit(model, data, run, extractor) -> float:
    return float(np.square(_predict(model, data, run, extractor) - run.responses).mean())
