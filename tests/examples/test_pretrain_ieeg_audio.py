"""From a simulated patient to a pretrained model, a finetuned one, and a report to listen to."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest

from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.data.aligned_segments import write_segments
from bit_speech.experiments import ieeg_audio_recordings as recordings
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient
from configuration_bit import IEEGAudioConfig
from processing_bit import IEEGAudioProcessor

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
        if changes.get("session_layer") or changes.get("day_adversary_weight"):
            changes["sessions"] = ["s1.day0"]
        IEEGAudioConfig.preset(arguments.preset, participants={"s1": 24}, **changes)
        assert all({"audio_features", "frames"} & set(how) for how in arguments.extra_targets.values())
        assert all(ContinuousConfig(participant_id=n, **s) for n, s in (arguments.simulate or {}).items())
        lines = path.read_text().splitlines()
        assert lines[0].startswith("# python examples/") and lines[-1].startswith("# result:")
        assert load_config(path)["output_dir"].startswith("runs/")


def test_places_regions_and_further_targets_go_all_the_way(tmp_path):
    """Segments on disk with positions, a table of regions, and frames of text beside the sound."""
    script = load("pretrain_ieeg_audio")
    patient = SimulatedPatient(ContinuousConfig(participant_id="s1", **PATIENT))
    rows = [row for name in patient.splits for row in patient.segments(name)]
    write_segments(tmp_path / "s1" / "data" / "all.parquet", rows)
    (tmp_path / "frames").mkdir()
    for name in patient.splits:
        np.save(tmp_path / "frames" / f"{name}.npy", np.random.default_rng(0).normal(size=(60, 5)))
    (tmp_path / "regions.json").write_text(json.dumps({"s1": {"A1": "STG", "A2": "44", "A9": "STG"}}))
    extra = {"text": {"frames": str(tmp_path / "frames"), "rate_hz": 2, "weight": 0.5},
             "again": {"audio_features": "log_mel"}}  # fmt: skip
    size = {"initial_size": 6, "hidden_size": 8, "output_size": 8, "pool_size": 4, "read_in": "position",
            "position_frequencies": 2}  # fmt: skip
    settings = ["--segments", str(tmp_path / "s1"), "--cache", str(tmp_path / "cache"), *SMALL[:-2]]
    settings += ["--preset", "neuralbench"]
    first = ["--regions", str(tmp_path / "regions.json"), "--extra_targets", json.dumps(extra)]
    first += ["--model_config", json.dumps(size), "--output_dir", str(tmp_path / "a")]
    scores = script.main([*settings, *first])["s1/ambient"]
    assert scores["text"]["num_candidates"] == scores["again"]["num_candidates"] == 10
    model = tmp_path / "a" / "model"
    config = IEEGAudioConfig.from_pretrained(model)
    assert config.extra_targets == {"again": 40, "text": 5} and config.target_weights == {"text": 0.5}
    assert config.regions == ["44", "STG"] and config.embedding_size == 40
    extractor = IEEGAudioProcessor.from_pretrained(model).feature_extractor
    np.testing.assert_allclose(extractor.channel_positions["s1"], patient.channel_positions, atol=1e-6)
    assert extractor.channel_regions["s1"] == ["STG", "44", "", "", "", ""]
    # Finetuning looks for the sound alone; the report is searched with it alone.
    second = ["--pretrained", str(model), "--condition", "clean", "--test_conditions", "clean"]
    script.main([*settings, *second, "--output_dir", str(tmp_path / "b")])
    assert IEEGAudioConfig.from_pretrained(tmp_path / "b" / "model").extra_targets == {}
    load("retrieve_speech").main(["--model", str(model), "--segments", str(tmp_path / "s1"), "--queries", "1",
                                  "--output_dir", str(tmp_path / "r")])  # fmt: skip
    with pytest.raises(ValueError, match="looks for"):
        other = json.dumps({"text": extra["text"]})
        script.main([*settings, *second, "--extra_targets", other, "--output_dir", str(tmp_path / "c")])


def test_a_simulated_patient_may_be_asked_for_ideal_speech_too(tmp_path):
    script = load("pretrain_ieeg_audio")
    arguments = script.ExperimentArguments(
        simulate={"s1": PATIENT}, extra_targets='{"speech": {"audio_features": "ideal_speech"}}'
    )
    data = recordings.read_windows(arguments)
    both = recordings.of_conditions(data.sets[0], "train", "ambient+clean")
    assert set(both.condition.tolist()) == {"ambient", "clean"} and set(both.split.tolist()) == {"train"}
    assert data.target_sizes == {"speech": 64} and data.sets[0].targets.shape[1] == 104
    assert len(data.positions["s1"]) == 6
    lost = recordings.Recordings(data.sets, {}, data.target_sizes, data.channels, {})
    arguments.model_config = {"read_in": "position"}
    with pytest.raises(ValueError, match="no channel of s1"):
        recordings.build(arguments, data.sets, lost)


@pytest.mark.parametrize(
    "target, named",
    [({"frames": "x"}, "rate_hz"), ({}, "audio_features"), ({"audio_features": "log_mel", "mass": 1}, "mass")],
)
def test_a_target_that_cannot_be_read_is_refused_at_once(target, named):
    with pytest.raises(ValueError, match=named):
        load("pretrain_ieeg_audio").ExperimentArguments(simulate={"s1": PATIENT}, extra_targets={"text": target})


def test_contradictions_are_refused_before_any_data_is_read(tmp_path):
    script = load("pretrain_ieeg_audio")
    with pytest.raises((ValueError, SystemExit)):
        script.main(["--output_dir", str(tmp_path)])
    with pytest.raises((ValueError, SystemExit)):
        script.main(["--output_dir", str(tmp_path), "--preset", "resnet", *SMALL])
    with pytest.raises(ValueError, match="no condition loud"):
        script.main(["--output_dir", str(tmp_path), "--condition", "ambient+loud", *SMALL])
