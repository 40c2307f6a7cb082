"""The command line refuses what it cannot do, and says what to do instead."""

import importlib
import json
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from bit_speech.cli import KINDS, main

EXAMPLES = Path(__file__).parents[1] / "examples"
# Scripts that are a command as a script.
SCRIPTS = {
    "pretrain_bit": "pretrain",
    "train_bit_ctc": "train ctc",
    "train_bit_llm": "train llm",
    "train_causal_lm": "train causal-lm",
    "train_wav2vec2_brain": "train wav2vec2",
}


def test_an_unknown_preset_is_refused_with_the_presets_that_exist(tmp_path, capsys):
    assert main(["simulate", "--preset", "t16-like", "--output_dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "'t16-like'" in error and "t15-like" in error


def test_a_missing_input_folder_is_refused_by_name(tmp_path, capsys):
    missing = str(tmp_path / "nothing_here")
    try:
        status = main(["convert", "brain_to_text_25", "--input_dir", missing, "--output_dir", str(tmp_path / "out")])
    except SystemExit as exit_:
        status = exit_.code
    assert status not in (0, None)
    assert "nothing_here" in capsys.readouterr().err + str(status)
    assert not (tmp_path / "out").exists()


COMMANDS = [
    "convert", "simulate", "pretrain", "train", "finetune", "build-lm", "decode", "evaluate", "report", "publish",
    "doctor", "info", "demo",
]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_of_every_command_shows_an_example(command, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and "example" in shown and f"bit-speech {command}" in shown


@pytest.mark.parametrize("command", COMMANDS)
def test_a_flag_that_no_command_has_ends_with_status_2(command, capsys):
    try:
        status = main([command, "--no_such_flag", "x"])
    except SystemExit as stopped:
        status = stopped.code
    assert status == 2
    assert capsys.readouterr().err


@pytest.mark.parametrize("kind", KINDS)
def test_help_of_every_kind_of_model_explains_its_settings_with_an_example(kind, capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", kind, "--help"])
    shown = capsys.readouterr().out
    assert stopped.value.code == 0 and f"usage: bit-speech train {kind} " in shown
    assert "--output_dir" in shown and f"example:\n  bit-speech train {kind} --config" in shown


def test_an_unknown_kind_of_model_is_refused_with_those_that_exist(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["train", "lstm"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert "'lstm'" in error and "wav2vec2" in error


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["train", "ctc", "--learnin_rate", "1"], "bit-speech train ctc: unknown setting --learnin_rate"),
        (["train", "llm", "--encoder", "x"], "bit-speech train llm: --encoder and --language_model are needed"),
        (["pretrain"], "bit-speech pretrain: give --trials"),
        (["pretrain", "--config", "no.yaml"], "bit-speech pretrain: there is no configuration file no.yaml"),
    ],
)
def test_an_experiment_that_cannot_start_is_refused_under_its_name(command, message, capsys):
    assert main(command) == 2
    assert capsys.readouterr().err.startswith(message)


@pytest.mark.parametrize(("script", "command"), SCRIPTS.items())
def test_scripts_of_experiments_are_the_commands(script, command, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", [f"{script}.py", "--help"])
    with pytest.raises(SystemExit) as stopped:
        runpy.run_path(str(EXAMPLES / f"{script}.py"), run_name="__main__")
    assert stopped.value.code == 0
    assert f"usage: bit-speech {command} " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("command", "module", "name"),
    [
        (["pretrain"], "bit_speech.experiments.pretrain", "main"),
        (["train", "ctc"], "bit_speech.experiments.train_ctc", "main"),
        (["finetune"], "bit_speech.finetuning", "finetune"),
    ],
)
def test_an_experiment_prints_json_and_nothing_else_for_scripts(command, module, name, capsys, monkeypatch):
    def experiment(argv):
        print("progress")
        return {"argv": argv, "loss": float("inf")}

    monkeypatch.setattr(importlib.import_module(module), name, experiment)
    assert main([*command, "--seed", "1", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out) == {"argv": ["--seed", "1"], "loss": "inf"}
    assert shown.err == "progress\n"


def test_what_was_simulated_and_converted_is_told_as_json(tmp_path, capsys, monkeypatch):
    from bit_speech.simulation import PRESETS

    sizes = {"train_sentences": 3, "val_sentences": 2, "test_sentences": 1, "num_sessions": 1, "num_electrodes": 4}
    monkeypatch.setattr("bit_speech.simulation.PRESETS", {"demo": replace(PRESETS["demo"], **sizes)})
    assert main(["simulate", "--output_dir", str(tmp_path / "raw"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["num_trials"] == {"train": 3, "val": 2, "test": 1}
    command = ["convert", "brain_to_text_25", "--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "t")]
    assert main([*command, "--allow_partial", "--quiet", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert {split: counts["num_trials"] for split, counts in report["splits"].items()} == {
        "train": 3, "validation": 2, "test": 1,
    }  # fmt: skip


def test_a_language_model_that_was_built_is_told_as_json(capsys, monkeypatch):
    def build_lm(output, **settings):
        print("5 n-grams")
        return SimpleNamespace(order=2, counts=(3, 2))

    monkeypatch.setattr("bit_speech.decoding.lm_command.build_lm", build_lm)
    assert main(["build-lm", "--text", "t", "--output", "lm.bin", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"output": "lm.bin", "order": 2, "counts": [3, 2]}


def test_doctor_says_what_is_missing_and_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setattr("bit_speech.doctor.is_available", lambda name: name != "peft")
    assert main(["doctor", "--json"]) == 0
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)}
    assert checks["peft"]["state"] == "missing" and "bit-speech[llm]" in checks["peft"]["remedy"]
    assert checks["torch"]["state"] == "ok" and checks["torch"]["remedy"] == ""


def test_doctor_fails_when_a_needed_package_is_too_old(capsys, monkeypatch):
    monkeypatch.setattr("importlib.metadata.requires", lambda name: ["numpy>=99"])
    assert main(["doctor"]) == 1
    assert "pip install 'numpy>=99'" in capsys.readouterr().out


def test_evaluate_prints_json_and_nothing_else_for_scripts(capsys, monkeypatch):
    def evaluate_model(**settings):
        print("report: somewhere")
        return {"split": settings["split"]}

    monkeypatch.setattr("bit_speech.scoring.evaluate_model", evaluate_model)
    assert main(["evaluate", "--model", "m", "--trials", "t", "--split", "test", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"split": "test"}


def test_info_is_json_for_scripts(capsys):
    assert main(["info", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["versions"]["torch"]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_lists_every_command(command, capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    assert command in capsys.readouterr().out


def test_the_converter_of_each_source_explains_itself():
    command = [sys.executable, "-m", "bit_speech.cli", "convert", "brain_to_text_25", "--help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "--allow_partial" in shown


def test_info_names_versions(capsys):
    assert main(["info"]) == 0
    assert "torch" in capsys.readouterr().out


def test_the_demo_does_not_touch_a_folder_it_did_not_make(tmp_path, capsys):
    (tmp_path / "trials").mkdir()
    (tmp_path / "trials" / "mine.parquet").write_bytes(b"years of work")
    assert main(["demo", "--output_dir", str(tmp_path)]) == 2
    assert "choose an empty --output_dir" in capsys.readouterr().err
    assert (tmp_path / "trials" / "mine.parquet").read_bytes() == b"years of work"
