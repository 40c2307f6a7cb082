"""A run that was killed and resumed is the run that was not."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from bit_speech.training.checkpoints import (
    checkpoints,
    delete_old_checkpoints,
    is_complete,
    newest_complete_checkpoint,
    seal_checkpoint,
    set_incomplete_aside,
)

ROOT = Path(__file__).parents[2]
TINY = Path(__file__).with_name("tiny.py")


def run_process(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    return subprocess.run([*command], env=environment, capture_output=True, text=True, timeout=200)


@pytest.fixture
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def test_a_run_killed_twice_and_resumed_repeats_every_loss_and_ends_with_the_same_weights(tiny, tmp_path, one_thread):
    whole = tiny.survivor(tmp_path / "whole")
    whole.train()

    # Killed between two checkpoints, then, resumed, in the middle of writing one.
    killed = run_process(sys.executable, str(TINY), str(tmp_path / "killed"), "--kill_at_step", "10")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert newest_complete_checkpoint(tmp_path / "killed").name == "checkpoint-8"
    killed = run_process(sys.executable, str(TINY), str(tmp_path / "killed"), "--resume", "--kill_while_saving", "16")
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert (tmp_path / "killed" / "checkpoint-16").is_dir()
    assert newest_complete_checkpoint(tmp_path / "killed").name == "checkpoint-12"

    resumed = tiny.survivor(tmp_path / "killed")
    resumed.train(resume_from_checkpoint=True)

    assert tiny.step_losses(resumed) == tiny.step_losses(whole)
    assert len(tiny.step_losses(resumed)) == 24
    scores = [[log for log in run.state.log_history if "eval_per" in log] for run in (resumed, whole)]
    for mine, other in zip(*scores, strict=True):
        assert {k: v for k, v in mine.items() if "second" not in k and "runtime" not in k} == {
            k: v for k, v in other.items() if "second" not in k and "runtime" not in k
        }
    assert resumed.training_bins == whole.training_bins
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_loss_logged_over_several_steps_is_the_same_when_the_run_resumed_between_them(tiny, tmp_path, one_thread):
    settings = {"max_steps": 6, "logging_steps": 3, "save_strategy": "steps", "save_steps": 4}
    whole = tiny.trainer(tmp_path, train=tiny.trials(16), **settings)
    mean_loss = whole.train().training_loss
    resumed = tiny.trainer(tmp_path, train=tiny.trials(16), **settings)
    rest = resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    assert tiny.step_losses(resumed) == tiny.step_losses(whole)
    assert rest.training_loss != mean_loss  # over the two steps of the second call alone


def test_a_half_written_checkpoint_is_not_resumed_from(tiny, tmp_path):
    run = tiny.trainer(tmp_path, train=tiny.trials(16), max_steps=4, save_strategy="steps", save_steps=2)
    run.train()
    (tmp_path / "checkpoint-4" / "checkpoint_complete.json").unlink()
    assert newest_complete_checkpoint(tmp_path).name == "checkpoint-2"
    again = tiny.trainer(tmp_path, train=tiny.trials(16), max_steps=4)
    with pytest.raises(ValueError, match="checkpoint-4 is not a complete checkpoint.*checkpoint-2"):
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
    again.train(resume_from_checkpoint=True)
    assert (tmp_path / "incomplete-checkpoint-4").is_dir()


def test_resuming_without_a_checkpoint_is_refused(tiny, tmp_path):
    with pytest.raises(ValueError, match="no complete checkpoint"):
        tiny.trainer(tmp_path, train=tiny.trials(8)).train(resume_from_checkpoint=True)


def test_a_checkpoint_counts_only_while_all_its_files_have_their_size(tmp_path):
    folder = tmp_path / "checkpoint-10"
    folder.mkdir()
    (folder / "model.safetensors").write_bytes(b"12345")
    assert not is_complete(folder)
    seal_checkpoint(folder)
    assert is_complete(folder)
    assert json.loads((folder / "checkpoint_complete.json").read_text()) == {"files": {"model.safetensors": 5}}
    (folder / "model.safetensors").write_bytes(b"1234")
    assert not is_complete(folder)
    assert newest_complete_checkpoint(tmp_path) is None


def test_incomplete_checkpoints_are_set_aside_and_never_deleted(tmp_path):
    for step in (5, 10):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text("x")
    seal_checkpoint(tmp_path / "checkpoint-5")
    moved = set_incomplete_aside(tmp_path)
    assert [path.name for path in moved] == ["incomplete-checkpoint-10"]
    assert (moved[0] / "weights").read_text() == "x"
    assert [path.name for path in checkpoints(tmp_path)] == ["checkpoint-5"]


def test_the_newest_and_the_best_checkpoint_stay_when_older_ones_are_deleted(tmp_path):
    for step in (5, 10, 15, 20):
        (tmp_path / f"checkpoint-{step}").mkdir()
        seal_checkpoint(tmp_path / f"checkpoint-{step}")
    (tmp_path / "checkpoint-25").mkdir()  # half written: neither counted nor deleted

    def left(keep, best=None):
        delete_old_checkpoints(tmp_path, keep, best)
        return [path.name.split("-")[1] for path in checkpoints(tmp_path)]

    assert left(None) == ["5", "10", "15", "20", "25"]
    assert left(3, tmp_path / "checkpoint-5") == ["5", "15", "20", "25"]
    assert left(1, tmp_path / "checkpoint-5") == ["5", "20", "25"]
    assert left(1) == ["20", "25"]


def test_a_saved_run_holds_no_pickle_of_its_arguments(tiny, tmp_path):
    run = tiny.trainer(tmp_path, train=tiny.trials(8), max_steps=1, save_strategy="steps", save_steps=1)
    run.train()
    run.save_model(str(tmp_path / "model"))
    assert not list(tmp_path.rglob("training_args.bin"))
    assert (tmp_path / "model" / "model.safetensors").is_file()


@pytest.mark.slow
def test_two_processes_train_as_one_with_the_same_global_batch(tiny, tmp_path, one_thread):
    alone = tiny.distributed(tmp_path / "alone", batch_size=8)
    alone.train()
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29511"]
    done = run_process(*torchrun, str(TINY), str(tmp_path / "two"), "--distributed")
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "two" / "result.json").read_text())
    for (step, loss, norm, _), (other_step, other_loss, other_norm, _) in zip(
        tiny.step_losses(alone), result["losses"], strict=True
    ):
        assert step == other_step
        assert loss == pytest.approx(other_loss, rel=1e-5)
        assert norm == pytest.approx(other_norm, rel=1e-4)
    resume = ["--resume_from", str(tmp_path / "two" / "checkpoint-4")]  # in the middle of an epoch
    done = run_process(*torchrun, str(TINY), str(tmp_path / "again"), "--distributed", *resume)
    assert done.returncode == 0, done.stderr[-3000:]
    assert json.loads((tmp_path / "again" / "result.json").read_text()) == result
    weights = torch.load(tmp_path / "two" / "weights.pt", weights_only=True)
    for name, value in alone.model.state_dict().items():
        torch.testing.assert_close(value, weights[name], atol=1e-4, rtol=1e-3)
    scores = alone.evaluate()
    assert result["per"] == pytest.approx(scores["eval_per"])
    assert result["eval_loss"] == pytest.approx(scores["eval_loss"], rel=1e-3)
    assert result["bins"] == alone.training_bins
    alone_sums = [float(values.sum()) for values in alone.predict_log_probs(tiny.trials(7, seed=2))]
    assert result["first"] == pytest.approx(alone_sums, rel=1e-3)
