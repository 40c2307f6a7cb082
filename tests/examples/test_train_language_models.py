"""The scripts for the small language model and the merger: one command, a model folder, the same command goes on."""

import importlib.util
import json
import math
import shutil
import sys
from pathlib import Path

import pytest

from bit_speech.arguments import ExperimentParser, load_config
from bit_speech.decoding import CausalLMRescorer, LLMMerger
from bit_speech.experiments import train_causal_lm

EXAMPLES = Path(__file__).parents[2] / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def text(number):
    return " ".join(
        ["the", "cat", "rat", "sat", "on", "mat"][(number * step) % 6] for step in (1, 5, 2, number % 7 + 1)
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("language_model")
    corpus = folder / "corpus.txt"
    corpus.write_text("".join(f"{text(number)} {number:03d}\n".replace("0", "go ") for number in range(300)))
    flags = [
        f"--config={EXAMPLES / 'configs' / 'causal_lm_small.yaml'}",
        f"--output_dir={folder / 'run'}",
        f"--text={corpus}",
        *("--sentence_lists", "t15", "--exclude_participants", "demo:0"),
        *("--vocab_size=300", "--hidden_size=16", "--num_hidden_layers=1", "--num_attention_heads=2"),
        *("--intermediate_size=16", "--block_size=16", "--max_steps=4", "--eval_steps=2", "--save_steps=2"),
        *("--num_scored_sentences=30", "--warmup_steps=0", "--bf16=false", "--max_text_sentences=200"),
    ]
    script = train_causal_lm
    return script, flags, folder / "run", script.main(flags)


def test_the_model_is_an_ordinary_folder_with_its_perplexity(trained):
    _, _, folder, result = trained
    assert json.loads((folder / "perplexity.json").read_text()) == result
    rescorer = CausalLMRescorer.from_pretrained(str(folder / "model"))
    assert all(score < 0 for score in rescorer.score(["the cat sat", "on the mat"]))
    assert 1 < result["perplexity_per_word_and_end"] < 1e9 and math.isfinite(result["loss_per_token"])


def test_the_same_command_continues_and_another_setting_is_refused(trained):
    script, flags, folder, result = trained
    assert (folder / "checkpoint-4" / "checkpoint_complete.json").is_file()
    assert script.main(flags) == result
    # As if it had been stopped after its second step.
    shutil.rmtree(folder / "checkpoint-4")
    (folder / "perplexity.json").unlink()
    assert script.main(flags)["perplexity_per_word_and_end"] == pytest.approx(result["perplexity_per_word_and_end"])
    with pytest.raises(ValueError, match="other learning_rate; choose another output_dir"):
        script.main([*flags, "--learning_rate=1e-5"])


def test_a_language_model_without_text_is_refused(trained):
    with pytest.raises(ValueError, match="no text"):
        trained[0].main([f"--output_dir={trained[2]}/other"])
    with pytest.raises(ValueError, match="held_out_parts"):
        trained[0].LanguageModelArguments(text=["a"], held_out_parts=[20])


def predictions(path, texts, references):
    rows = [
        {"session_id": "s", "block_index": 1, "trial_index": i, "hypothesis_text": one, "reference_text": said}
        for i, (one, said) in enumerate(zip(texts, references))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_merger_is_trained_scored_and_saved(trained, tmp_path):
    pytest.importorskip("trl")
    script = load("train_merger")
    said = ["the cat sat", "on the mat", "the rat", "sat on it"]
    files = {
        part: [
            predictions(tmp_path / f"{part}{i}.jsonl", [one.replace(word, "go") for one in said], said)
            for i, word in enumerate(("cat", "on"))
        ]
        for part in ("train", "eval")
    }
    flags = [
        f"--config={EXAMPLES / 'configs' / 'merger_small.yaml'}",
        f"--model={trained[2] / 'model'}",
        *("--train_predictions", *files["train"], "--eval_predictions", *files["eval"]),
        *(f"--output_dir={tmp_path / 'run'}", "--max_steps=1", "--per_device_train_batch_size=2", "--bf16=false"),
    ]
    scores = script.main(flags)
    assert scores["stages"] == ["sft", "dpo"] and len(scores["decoders"]) == 2
    assert scores["decoders"][0]["rate"] == pytest.approx(1 / 11)
    saved = json.loads((tmp_path / "run" / "scores.json").read_text())
    assert saved["merger"] == scores["merger"]
    assert LLMMerger.from_pretrained(str(tmp_path / "run" / "model")).instruction == ""


@pytest.mark.parametrize("name", ["merger_qwen2_5", "merger_small"])
def test_every_recipe_is_read_and_says_its_command(name):
    script = load("train_merger")
    path = EXAMPLES / "configs" / f"{name}.yaml"
    assert path.read_text().startswith(f"# python examples/train_merger.py --config examples/configs/{name}.yaml")
    parser = ExperimentParser([script.MergerArguments])
    (arguments,) = parser.parse([f"--config={path}", "--train_predictions", "a", "b"])
    assert arguments.stages == load_config(path)["stages"]
    for stage in arguments.stages:
        assert script.stage_settings(arguments, stage)["learning_rate"] > 0
    with pytest.raises(ValueError, match="as many"):
        parser.parse([f"--config={path}", "--train_predictions", "a", "b", "--eval_predictions", "a"])
