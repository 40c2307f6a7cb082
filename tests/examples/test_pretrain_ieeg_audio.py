"""From a simulated patient to a pretrained model, a finetuned one, and a report to listen to."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.simulation.continuous import ContinuousConfig
from configuration_bit import IEEGAudioConfig

EXAMPLES = Path(__file__).parents[2] / "examples"
PATIENT = {
    "num_channels": 6,
    "num_days": 1,
    "files_per_day": 3,
    "task_files": 3,
    "file_s": 30.0,
}
SMALL = ["--use_cpu", "true", "--max_steps", "3", "--per_device_train_batch_size", "8", "--save_strategy", "no"]
SMALL += ["--load_best_model_at_end", "false", "--simulate", json.dumps({"s1": PATIENT})]


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def test_a_patient_is_pretrained_on_finetuned_and_listened_to(tmp_path, capsys):
    script = load("pretrain_ieeg_audio")
    size = json.dumps({"initial_size": 6, "hidden_size": 8, "output_size": 8, "pool_size": 4})
    first = ["--output_dir", str(tmp_path / "a"), "--preset", "neuralbench", "--model_config", size, *SMALL]
    scores = script.main([*first, "--test_conditions", "ambient", "clean"])
    assert scores["s1/ambient"]["all"]["num_candidates"] == 10 and "s1/clean" in scores
    second = ["--output_dir", str(tmp_path / "b"), "--pretrained", str(tmp_path / "a" / "model"), *SMALL]
    script.main([*second, "--condition", "clean", "--test_conditions", "clean", "--finetune_mode", "full"])
    record = json.loads((tmp_path / "b" / "metrics.json").read_text())
    assert record["model_config"]["finetuning_head"] and record["audio_features"]["kind"] == "log_mel"
    report = ["--model", str(tmp_path / "b" / "model"), "--simulate", json.dumps(PATIENT), "--condition", "clean"]
    load("retrieve_speech").main([*report, "--queries", "2", "--nearest", "3", "--output_dir", str(tmp_path / "r")])
    page = (tmp_path / "r" / "report.html").read_text()
    assert page.count("<audio") == 2 * 4 and "rank" in page


def test_the_configurations_are_settings_that_exist():
    script = load("pretrain_ieeg_audio")
    parser = ExperimentParser([script.ExperimentArguments, script.IEEGAudioTrainingArguments])
    for path in sorted((EXAMPLES / "configs").glob("*ieeg_audio*.yaml")):
        arguments, training = parser.parse(["--config", str(path), "--use_cpu", "true"])
        assert training.learning_rate > 0
        changes = dict(arguments.model_config or {})
        if changes.get("session_layer"):
            changes["sessions"] = ["s1.day0"]
        IEEGAudioConfig.preset(arguments.preset, participants={"s1": 24}, **changes)
        assert all(ContinuousConfig(participant_id=n, **s) for n, s in (arguments.simulate or {}).items())
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# python examples/") and lines[-1].startswith("# result:")
        assert load_config(path)["output_dir"].startswith("runs/")


def test_contradictions_are_refused_before_any_data_is_read(tmp_path):
    script = load("pretrain_ieeg_audio")
    with pytest.raises((ValueError, SystemExit)):
        script.main(["--output_dir", str(tmp_path)])
    with pytest.raises((ValueError, SystemExit)):
        script.main(["--output_dir", str(tmp_path), "--preset", "resnet", *SMALL])
