"""The training script: one command from a configuration to scores, and the same command continues."""

import json
from pathlib import Path

import pytest

from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.training import BITTrainingArguments

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted(path for path in (EXAMPLES / "configs").glob("*.yaml") if "train_bit_ctc.py" in path.read_text())


@pytest.fixture(scope="module")
def script():
    from bit_speech.experiments import train_ctc

    return train_ctc


@pytest.fixture
def small_preset(monkeypatch):
    """The demonstration's participant with a handful of sentences."""
    from dataclasses import replace

    import bit_speech.simulation.intracortical as intracortical

    small = replace(
        intracortical.PRESETS["demo"],
        train_sentences=12,
        val_sentences=4,
        test_sentences=2,
        num_sessions=2,
        num_electrodes=8,
    )
    monkeypatch.setattr(intracortical, "PRESETS", {"demo": small})


SMALL = {
    "bit": {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16},
    "gru": {"hidden_size": 8, "num_hidden_layers": 1},
}


def flags(kind, output_dir):
    return [
        f"--config={EXAMPLES / 'configs' / f'{kind}_simulated.yaml'}",
        f"--output_dir={output_dir}",
        f"--model_config={json.dumps(SMALL[kind])}",
        "--max_steps=2",
        "--eval_steps=1",
        "--save_steps=1",
        "--warmup_steps=0",
        "--per_device_train_batch_size=4",
        "--use_cpu",
        "--disable_tqdm=true",
    ]


@pytest.mark.parametrize("kind", ["bit", "gru"])
def test_a_configuration_trains_scores_and_leaves_a_model_that_loads(script, small_preset, tmp_path, kind):
    from bit_speech import BITForCTC, BITGRUForCTC, BITProcessor

    script.main(flags(kind, tmp_path))
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert 0 < metrics["final_evaluation"]["eval_per"] <= 2 and metrics["step"] == 2
    assert metrics["experiment"]["simulate"] == "demo"
    (BITForCTC if kind == "bit" else BITGRUForCTC).from_pretrained(tmp_path / "model")
    assert list(BITProcessor.from_pretrained(tmp_path / "model").feature_extractor.participants) == ["sim"]


def test_the_same_command_continues_and_other_settings_are_refused(script, small_preset, tmp_path):
    first = script.main(flags("bit", tmp_path))
    again = script.main(flags("bit", tmp_path))
    assert again["final_evaluation"]["eval_per"] == first["final_evaluation"]["eval_per"]
    with pytest.raises(ValueError, match="other learning_rate; choose another output_dir"):
        script.main([*flags("bit", tmp_path), "--learning_rate=1e-4"])


@pytest.mark.parametrize("config", CONFIGS, ids=lambda path: path.stem)
def test_every_configuration_is_read_and_says_its_command_and_its_result(script, config):
    lines = config.read_text().splitlines()
    assert lines[0].startswith(f"# python examples/train_bit_ctc.py --config examples/configs/{config.name}")
    assert lines[-1].startswith("# result: ")
    parser = ExperimentParser([script.ExperimentArguments, BITTrainingArguments])
    trials = [] if "simulate" in load_config(config) else ["--trials=somewhere"]
    arguments, training = parser.parse([f"--config={config}", "--use_cpu", *trials])
    config_class, _ = script.MODELS[arguments.model]
    config_class(participants={"p": 4}, sessions=["a"], **(arguments.model_config or {}))
    assert isinstance(training.learning_rate, float) and training.seed == load_config(config)["seed"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (["--model=lstm", "--trials=x"], "bit, gru"),
        (["--model=bit"], "either --trials"),
        (["--model=gru", "--trials=x", "--pretrained=y"], "cannot start --model gru"),
        (["--trials=x", "--new_read_in"], "what is taken from --pretrained"),
        (["--trials=x", "--simulate=demo"], "not both"),
        (["--trials=x", "--lexicon=cmudict"], "both --lexicon and --lm"),
        (["--trials=no/such/folder"], "no/such/folder"),
    ],
)
def test_a_command_that_cannot_work_is_refused_with_the_remedy(script, tmp_path, wrong, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        script.main([*wrong, f"--output_dir={tmp_path}", "--use_cpu"])


@pytest.mark.parametrize(
    ("known", "more", "read_in"),
    [("sim", [], "widened"), ("someone else", [], "new"), ("sim", ["--new_read_in"], "new")],
)
def test_training_starts_from_a_pretrained_encoder(script, small_preset, tmp_path, capsys, known, more, read_in):
    import torch

    from bit_speech import BITConfig, BITFeatureExtractor, BITForCTC, BITForMaskedModeling

    kinds = {"feature_kinds": ["threshold_crossings"]}
    BITFeatureExtractor(participants={known: 8}, **kinds).save_pretrained(tmp_path / "encoder")
    encoder = BITForMaskedModeling(BITConfig(participants={known: 8}, mask_ratio=0.5, **SMALL["bit"]))
    encoder.save_pretrained(tmp_path / "encoder")
    settings = [*flags("bit", tmp_path / "run"), "--model_config={}", "--learning_rate=0"]
    script.main([*settings, f"--pretrained={tmp_path / 'encoder'}", *more])
    # Eight electrodes: threshold crossings as in pretraining, and spike-band power that is new.
    assert f"{{'sim': '{read_in}'}}" in capsys.readouterr().out
    model = BITForCTC.from_pretrained(tmp_path / "run" / "model")
    assert model.config.participants == {"sim": 16} and model.config.mask_ratio == 0.0
    assert torch.equal(model.encoder.layers[0].mlp.up_proj.weight, encoder.encoder.layers[0].mlp.up_proj.weight)


def test_words_are_decoded_and_scored_when_a_lexicon_and_a_language_model_are_given(script, small_preset, tmp_path):
    from bit_speech.decoding import build_ngram_lm
    from bit_speech.simulation import SimulatedParticipant

    texts = [trial.text for trial in SimulatedParticipant("demo").trials("val")]
    lm = tmp_path / "lm.arpa"
    build_ngram_lm(texts, order=2).write_arpa(lm)
    settings = ["--lexicon=cmudict", f"--lm={lm}", "--beam_size=20", "--acoustic_scale=0.5"]
    scores = script.main([*flags("bit", tmp_path / "run"), *settings])
    wer = scores["word_error_rate"]
    assert wer["num_sentences"] == len(texts) and wer["low"] <= wer["rate"] <= wer["high"]
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["word_error_rate"] == wer
