"""The end-to-end training script: from two folders to scores, and the same command continues."""

import json
from pathlib import Path

import pytest
import torch

from bit_speech import BITConfig, BITFeatureExtractor, BITForCTC, BITProcessor, PhonemeTokenizer
from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.training import BITLLMTrainingArguments, load_end_to_end, train_tokenizer

EXAMPLES = Path(__file__).parents[2] / "examples"
CONFIGS = sorted(path for path in (EXAMPLES / "configs").glob("bit_llm*.yaml"))
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture(scope="module")
def script():
    from bit_speech.experiments import train_llm

    return train_llm


@pytest.fixture
def folders(monkeypatch, tmp_path):
    """The demonstration's participant with a handful of sentences, a tiny phoneme model and a tiny language model."""
    from dataclasses import replace

    from transformers import Qwen2Config, Qwen2ForCausalLM

    import bit_speech.simulation.intracortical as intracortical

    sizes = {"train_sentences": 8, "val_sentences": 4, "test_sentences": 2, "num_sessions": 2, "num_electrodes": 8}
    small = replace(intracortical.PRESETS["demo"], **sizes)
    monkeypatch.setattr(intracortical, "PRESETS", {"demo": small})
    torch.manual_seed(7)
    BITForCTC(BITConfig(participants={"sim": 16}, **SMALL)).save_pretrained(tmp_path / "ctc")
    BITProcessor(BITFeatureExtractor(participants={"sim": 16}), PhonemeTokenizer()).save_pretrained(tmp_path / "ctc")
    tokenizer = train_tokenizer(["go on", "decode the above"] * 4, 280)
    tokenizer.save_pretrained(tmp_path / "lm")
    text = Qwen2Config(vocab_size=280, num_key_value_heads=1, tie_word_embeddings=True, eos_token_id=2, **SMALL)
    Qwen2ForCausalLM(text).save_pretrained(tmp_path / "lm")
    return tmp_path


def flags(folders, **more):
    settings = {
        "config": EXAMPLES / "configs" / "bit_llm_small.yaml",
        "output_dir": folders / "run",
        "encoder": folders / "ctc",
        "language_model": folders / "lm",
        "max_steps": 2,
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": 1,
        "save_steps": 1,
        "warmup_steps": 0,
        "per_device_train_batch_size": 4,
        "max_new_tokens": 4,
        "disable_tqdm": "true",
        "use_cpu": "true",
        **more,
    }
    return [f"--{name}={value}" for name, value in settings.items()]


def test_with_adapters_the_script_trains_scores_continues_and_leaves_models_that_load(script, folders):
    first = script.main(flags(folders, mode="lora", score_sampling="true"))
    assert first["final_evaluation"]["eval_wer"] > 0 and first["nucleus_sampling"]["wer"] > 0
    record = json.loads((folders / "run" / "metrics.json").read_text())
    assert record["step"] == 2 and record["experiment"]["mode"] == "lora"
    again = script.main(flags(folders, mode="lora", score_sampling="true"))
    assert again["final_evaluation"]["eval_wer"] == first["final_evaluation"]["eval_wer"]
    assert again["nucleus_sampling"] == first["nucleus_sampling"]
    adapters = load_end_to_end(folders / "run" / "model").state_dict()
    for name, value in load_end_to_end(folders / "run" / "merged").state_dict().items():
        assert (adapters[name] - value).abs().max() < 1e-6, name


def test_a_run_goes_on_from_a_model_of_another_task(script, folders):
    script.main(flags(folders, max_steps=1))
    more = {
        "start_from": folders / "run" / "model",
        "output_dir": folders / "next",
        "encoder": "",
        "language_model": "",
    }
    plain = folders / "plain.yaml"
    plain.write_text("simulate: demo\nmode: full\n")
    script.main([*flags(folders, **more, max_steps=1), f"--config={plain}"])
    start, base = load_end_to_end(folders / "run" / "model"), load_end_to_end(folders / "next" / "base")
    for name, value in start.state_dict().items():
        assert (base.state_dict()[name] == value).all(), name


def test_from_scratch_the_encoders_weights_are_new_and_everything_can_learn(script, folders):
    script.main(flags(folders, from_scratch="true", model_config=json.dumps({"ctc_weight": 0.3})))
    base, source = load_end_to_end(folders / "run" / "base"), BITForCTC.from_pretrained(folders / "ctc")
    new, old = (model.encoder.layers[0].mlp.up_proj.weight for model in (base, source))
    assert (new == old).float().mean() < 0.1
    with pytest.raises(ValueError, match="holds a run with other mode"):
        script.main(flags(folders, from_scratch="true", model_config=json.dumps({"ctc_weight": 0.3}), mode="frozen"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_every_configuration_is_understood(script, path):
    parser = ExperimentParser([script.EndToEndArguments, BITLLMTrainingArguments])
    source = [] if "simulate" in load_config(path) else ["--trials=folder"]
    arguments, training = parser.parse([f"--config={path}", *source, "--use_cpu", "--bf16=false"])
    assert training.metric_for_best_model == "eval_wer"
    assert arguments.start_from or arguments.model_config["contrastive_weight"] == 0.1


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"encoder": ""}, "--encoder and --language_model are needed"),
        ({"start_from": "folder"}, "--start_from is a whole model"),
        ({"trials": "folder"}, "either --trials"),
        ({"base_in_4bit": "true"}, "needs --mode lora"),
    ],
)
def test_settings_that_cannot_be_are_refused_before_any_data_is_read(script, folders, changed, message):
    with pytest.raises(ValueError, match=message):
        script.main(flags(folders, **changed))
