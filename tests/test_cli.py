"""The command line refuses what it cannot do, and says what to do instead."""

import json
import subprocess
import sys

import pytest

from bit_speech.cli import main


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


def test_a_language_model_without_a_lexicon_is_refused(tmp_path, capsys):
    assert main(["evaluate", "--model", "m", "--trials", "t", "--lm", "lm.arpa"]) == 2
    assert "--lexicon" in capsys.readouterr().err


COMMANDS = ["convert", "simulate", "evaluate", "build-lm", "demo", "finetune", "publish", "doctor", "info"]


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
