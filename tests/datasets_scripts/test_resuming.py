"""A conversion that is killed and run again gives, byte for byte, what one that was never killed gives."""

import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import pytest
from filelock import FileLock

from datasets_scripts import convert_brain_to_text_25 as converter

SESSIONS = ("t15.2023.08.13", "t15.2023.08.18")
ROOT = Path(__file__).parents[2]


def convert(source, target, **options):
    return converter.convert(source, target, allow_partial=True, progress=False, **options)


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture
def source(tmp_path, layout_25):
    for session in SESSIONS:
        layout_25.session(tmp_path / "in", session, channels=16)
    return tmp_path / "in"


@pytest.fixture
def reference(tmp_path, source):
    convert(source, tmp_path / "reference")
    return contents(tmp_path / "reference")


def test_the_dataset_is_what_was_promised_and_nothing_else(reference):
    shards = [f"data/{split}-{session}.parquet" for split in ("test", "train", "validation") for session in SESSIONS]
    assert list(reference) == ["README.md", "conversion.json", *shards]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("moment", [1, 2, 5, 6, 12, 13, 14])
@pytest.mark.parametrize("before", [True, False])
def test_killed_before_or_after_any_rename_and_resumed_it_is_the_same(tmp_path, source, reference, moment, before):
    target = tmp_path / "out"
    child = os.fork()
    if child == 0:
        # Renames are where a file comes into being: shard, manifest, shard, manifest, ..., manifest, card.
        rename, count = os.replace, 0

        def replace(*arguments, **options):
            nonlocal count
            count += 1
            if count == moment and before:
                os.kill(os.getpid(), signal.SIGKILL)
            rename(*arguments, **options)
            if count == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        os.replace = replace
        try:
            convert(source, target)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
    report = convert(source, target)
    assert contents(target) == reference
    done = moment // 2 - (1 if before and moment % 2 == 0 else 0)
    assert len(report.kept) == min(done, 6) and len(report.kept) + len(report.written) == 6


@pytest.mark.slow
def test_killed_at_any_time_by_another_process_it_resumes(tmp_path, layout_25):
    days = converter.SESSIONS[:6]
    for day in days:
        layout_25.session(tmp_path / "in", day, splits=("train",), per_block=6, bins=800)
    convert(tmp_path / "in", tmp_path / "reference")
    target = tmp_path / "out"
    arguments = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(target), "--allow_partial", "--quiet"]
    command = [sys.executable, "-m", "datasets_scripts.convert_brain_to_text_25", *arguments]
    rng = random.Random(0)
    killed = 0
    for round_number in range(4):
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        have = len(list(target.glob("data/*.parquet")))
        while process.poll() is None and len(list(target.glob("data/*.parquet"))) <= have:
            time.sleep(0.002)
        time.sleep(rng.random() * 0.03 * round_number)
        process.kill()
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.DEVNULL).returncode == 0
    assert contents(target) == contents(tmp_path / "reference")


def test_what_is_complete_is_not_written_again(tmp_path, source, reference):
    target = tmp_path / "out"
    assert len(convert(source, target).written) == 6
    times = {path: path.stat().st_mtime_ns for path in target.glob("data/*")}
    again = convert(source, target)
    assert not again.written and len(again.kept) == 6
    assert {path: path.stat().st_mtime_ns for path in target.glob("data/*")} == times
    assert contents(target) == reference


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_a_damaged_shard_is_written_again(tmp_path, source, reference, damage):
    target = tmp_path / "out"
    convert(source, target)
    shard = target / f"data/train-{SESSIONS[0]}.parquet"
    if damage == "delete":
        shard.unlink()
    elif damage == "truncate":
        shard.write_bytes(shard.read_bytes()[:-10])
    else:
        data = bytearray(shard.read_bytes())
        data[len(data) // 2] ^= 1
        shard.write_bytes(data)
    assert convert(source, target).written == (f"data/train-{SESSIONS[0]}.parquet",)
    assert contents(target) == reference


def test_a_source_file_that_changed_is_read_again(tmp_path, source):
    target = tmp_path / "out"
    convert(source, target)
    with h5py.File(source / SESSIONS[1] / "data_train.hdf5", "a") as file:
        file["trial_0000"].attrs["sentence_label"] = "Corrected."
    assert convert(source, target).written == (f"data/train-{SESSIONS[1]}.parquet",)


def test_other_options_do_not_continue_an_old_conversion(tmp_path, source):
    target = tmp_path / "out"
    convert(source, target)
    with pytest.raises(ValueError, match="was converted with options .*choose another output folder"):
        convert(source, target, compression="zstd")


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path, source):
    target = tmp_path / "out"
    (target / "data").mkdir(parents=True)
    (target / "data" / "train-other.parquet").write_bytes(b"x")
    with pytest.raises(ValueError, match="holds data/train-other.parquet, which this conversion does not make"):
        convert(source, target)
    shutil.rmtree(target)
    target.mkdir()
    (target / "README.md").write_text("mine")
    with pytest.raises(ValueError, match="holds a README.md but no conversion.json"):
        convert(source, target)
    (target / "conversion.json").write_text("{")
    with pytest.raises(ValueError, match="is damaged"):
        convert(source, target)


def test_two_processes_do_not_write_into_one_folder(tmp_path, source):
    target = tmp_path / "out"
    target.mkdir()
    with FileLock(target / ".conversion.lock"), pytest.raises(FileExistsError, match="another process is converting"):
        convert(source, target)


def test_a_refused_trial_leaves_no_dataset_but_keeps_what_is_done(tmp_path, source, reference, monkeypatch):
    target = tmp_path / "out"
    path = source / SESSIONS[1] / "data_train.hdf5"
    with h5py.File(path, "a") as file:
        good = file["trial_0001"].attrs["sentence_label"]
        file["trial_0001"].attrs["sentence_label"] = ""
    monkeypatch.setattr(converter, "check_expected", lambda *args, **kwargs: None)
    monkeypatch.setattr(converter, "_num_channels", lambda *args: 16)
    with pytest.raises(ValueError, match=r"trial 1: the text is missing"):
        converter.convert(source, target, progress=False)
    assert not (target / "README.md").exists()
    assert not json.loads((target / "conversion.json").read_text())["complete"]
    assert len(convert(source, target).left_out) == 1
    # Strict again: what had to be left out is not taken for complete.
    with pytest.raises(ValueError, match=r"trial 1: the text is missing"):
        converter.convert(source, target, progress=False)
    with h5py.File(path, "a") as file:
        file["trial_0001"].attrs["sentence_label"] = good
    report = converter.convert(source, target, progress=False)
    assert report.written == (f"data/train-{SESSIONS[1]}.parquet",)
