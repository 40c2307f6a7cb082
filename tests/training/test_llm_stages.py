"""Putting the end-to-end decoder together: what is loaded exactly, what is refused, adapters and merging."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2AudioConfig, Qwen2AudioForConditionalGeneration, pipeline

from bit_speech.training import (
    build_end_to_end,
    choose_trained_parts,
    load_end_to_end,
    load_in_4bit,
    merge_adapters,
)
from bit_speech.training.llm_stages import load_audio_projector, load_language_model

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def llm():
    spec = importlib.util.spec_from_file_location("tests_training_tiny_llm", HERE / "tiny_llm.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def qwen2_audio(llm, tmp_path_factory):
    """A random Qwen2-Audio with a tokenizer, saved by transformers itself."""
    folder = tmp_path_factory.mktemp("qwen2_audio")
    torch.manual_seed(3)
    audio = {"d_model": 12, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 16}
    text = llm.text_config(tie_word_embeddings=False).to_dict()
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig(audio_config=audio, text_config=text))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.save_pretrained(folder)
    llm.tokenizer().save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def aero(llm, qwen2_audio, tmp_path_factory):
    """The same weights under Aero-1-Audio's names and model type."""
    folder, model = tmp_path_factory.mktemp("aero"), qwen2_audio[1]
    names = {
        r"^model\.multi_modal_projector\.": "audio_modal_projector.",
        r"^model\.audio_tower\.": "audio_tower.",
        r"^model\.language_model\.": "language_model.model.",
        r"^lm_head\.": "language_model.lm_head.",
    }
    weights = {}
    for key, value in model.state_dict().items():
        for pattern, replacement in names.items():
            key = re.sub(pattern, replacement, key)
        weights[key] = value.contiguous()
    assert not any(key.startswith("model.") for key in weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    config = {**model.config.to_dict(), "model_type": "aero", "architectures": ["AeroForConditionalGeneration"]}
    (folder / "config.json").write_text(json.dumps(config))
    llm.tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["qwen2_audio", "aero"])
def test_the_language_model_of_an_audio_model_is_loaded_exactly(kind, qwen2_audio, request):
    folder, source = qwen2_audio[0] if kind == "qwen2_audio" else request.getfixturevalue("aero"), qwen2_audio[1]
    found = load_language_model(folder)
    for name, value in source.model.language_model.state_dict().items():
        assert torch.equal(found.model.state_dict()[name], value), name
    assert torch.equal(found.lm_head.weight, source.lm_head.weight)
    projector = load_audio_projector(folder)
    for name, value in source.model.multi_modal_projector.linear.state_dict().items():
        assert torch.equal(projector[name], value), name


@pytest.mark.parametrize("kind", ["qwen2_audio", "aero"])
def test_in_audio_modality_the_audio_models_projector_is_part_of_the_decoder(kind, llm, qwen2_audio, request):
    folder, source = qwen2_audio[0] if kind == "qwen2_audio" else request.getfixturevalue("aero"), qwen2_audio[1]
    model, processor = build_end_to_end(
        llm.tiny.model(),
        folder,
        feature_extractor=llm.tiny.processor().feature_extractor,
        modality="audio",
    )
    assert model.config.audio_hidden_size == 12
    assert torch.equal(model.multi_modal_projector.weight, source.model.multi_modal_projector.linear.weight)
    rows = llm.trials(2)
    batch = processor.for_generation([row["features"] for row in rows], session_id="p.0", return_tensors="pt")
    assert model.generate(**batch, max_new_tokens=2).shape[1] > batch["input_ids"].shape[1]


@pytest.mark.parametrize("kind", ["qwen2_audio", "aero"])
def test_a_checkpoint_in_another_layout_is_refused_with_the_list_of_its_weights(kind, llm, qwen2_audio, aero, tmp_path):
    source = aero if kind == "aero" else qwen2_audio[0]
    weights = load_file(source / "model.safetensors")
    lost = [key for key in weights if "layers.0.mlp.up_proj" in key and "language_model" in key]
    renamed = {(f"other.{key}" if key in lost else key): value for key, value in weights.items()}
    renamed = {key: value for key, value in renamed.items() if "projector" not in key}
    save_file(renamed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text((source / "config.json").read_text())
    with pytest.raises(ValueError, match=r"1 weights.*random: model\.layers\.0\.mlp\.up_proj\.weight"):
        load_language_model(tmp_path)
    with pytest.raises(ValueError, match=r"2 weights.*multi_modal_projector\.bias, multi_modal_projector\.weight"):
        load_audio_projector(tmp_path)


def test_a_text_model_is_loaded_exactly_and_tied_heads_are_not_missing(llm, tmp_path):
    source = llm.language_model()
    source.save_pretrained(tmp_path)
    found = load_language_model(tmp_path)
    for name, value in source.state_dict().items():
        assert torch.equal(found.state_dict()[name], value), name


def test_the_encoder_and_its_head_come_from_the_phoneme_model(llm, tmp_path):
    encoder = llm.tiny.model(mask_ratio=0.3)
    encoder.save_pretrained(tmp_path / "ctc")
    llm.tiny.processor().save_pretrained(tmp_path / "ctc")
    llm.language_model().save_pretrained(tmp_path / "lm")
    llm.tokenizer().save_pretrained(tmp_path / "lm")
    model, processor = build_end_to_end(tmp_path / "ctc", tmp_path / "lm", stacking=2)
    model.save_pretrained(tmp_path / "whole")
    assert str(tmp_path) not in (tmp_path / "whole" / "config.json").read_text()
    for name, value in encoder.encoder.state_dict().items():
        assert torch.equal(model.encoder.state_dict()[name], value), name
    assert torch.equal(model.ctc_head.heads["p"].weight, encoder.head["p"].weight)
    assert model.config.encoder_config.mask_ratio == 0.0 and processor.stacking == 2
    assert processor.feature_extractor.sessions == llm.tiny.SESSIONS


def test_a_pretrained_encoder_without_a_phoneme_head_gives_none_and_a_broken_one_is_refused(llm, tmp_path):
    llm.tiny.model().encoder.save_pretrained(tmp_path)
    llm.tiny.processor().feature_extractor.save_pretrained(tmp_path)
    model, _ = build_end_to_end(tmp_path, llm.language_model(), tokenizer=llm.tokenizer())
    assert not model.config.ctc_head and not hasattr(model, "ctc_head")
    weights = load_file(tmp_path / "model.safetensors")
    save_file({k: v for k, v in weights.items() if "qkv" not in k}, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match="random: .*qkv.bias"):
        build_end_to_end(tmp_path, llm.language_model(), tokenizer=llm.tokenizer())


def test_an_encoder_from_scratch_is_built_from_its_configuration(llm):
    model, _ = llm.build(encoder=llm.tiny.model().config)
    assert not model.config.ctc_head
    with pytest.raises(ValueError, match="feature_extractor is missing"):
        build_end_to_end(llm.tiny.model(), llm.language_model(), tokenizer=llm.tokenizer())
    with pytest.raises(ValueError, match="tokenizer is missing"):
        build_end_to_end(
            llm.tiny.model(), llm.language_model(), feature_extractor=llm.tiny.processor().feature_extractor
        )


def test_adapters_sit_on_the_seven_projections_of_the_language_model_alone(llm, qwen2_audio):
    model, _ = build_end_to_end(
        llm.tiny.model(),
        qwen2_audio[0],
        feature_extractor=llm.tiny.processor().feature_extractor,
        modality="audio",
    )
    adapted = choose_trained_parts(model, "lora")
    places = {name.rsplit(".lora_A", 1)[0] for name, _ in adapted.named_parameters() if ".lora_A" in name}
    layer = "base_model.model.language_model.model.layers.0."
    attention = {f"{layer}self_attn.{part}_proj" for part in "qkvo"}
    mlp = {f"{layer}mlp.{part}_proj" for part in ("gate", "up", "down")}
    assert places == attention | mlp | {"base_model.model.multi_modal_projector"}
    settings = adapted.peft_config["default"]
    assert (settings.r, settings.lora_alpha, settings.lora_dropout) == (8, 32, 0.2)


@pytest.mark.parametrize("mode", ["frozen", "lora", "full"])
def test_what_learns_is_what_the_mode_says(llm, mode):
    model, _ = llm.build()
    chosen = choose_trained_parts(model, mode)
    learning = {name for name, parameter in chosen.named_parameters() if parameter.requires_grad}
    for part in ("encoder", "neural_projector", "aligner"):
        assert any(f"{part}." in name for name in learning), part
    assert not any("mask_token" in name or "ctc_head" in name for name in learning)
    language = {name for name in learning if "language_model" in name}
    if mode == "frozen":
        assert not language
    elif mode == "lora":
        assert language and all("lora_" in name for name in language)
    else:
        assert any("embed_tokens" in name for name in language)


@pytest.fixture(scope="module")
def adapted(llm, tmp_path_factory):
    """A model with adapters after two steps, its folders, a batch and what it makes of it."""
    folder = tmp_path_factory.mktemp("adapted")
    model, processor = llm.build(contrastive_weight=0.3)
    model.save_pretrained(folder / "base")
    processor.save_pretrained(folder / "base")
    run = llm.trainer(
        folder / "run",
        train=llm.trials(8),
        built=(choose_trained_parts(model, "lora", folder / "base"), processor),
        max_steps=4,
        learning_rate=0.05,
    )
    run.train()
    run.save_model(str(folder / "model"))
    rows = llm.trials(3)
    batch = processor(
        [row["features"] for row in rows],
        [row["text"] for row in rows],
        session_id="p.0",
        return_tensors="pt",
    )
    with torch.no_grad():
        expected = run.model.eval()(**batch)
    return folder, run, dict(batch), expected


def test_the_merged_model_equals_the_one_with_adapters(adapted, tmp_path):
    folder, run, batch, expected = adapted
    loaded = load_end_to_end(folder / "model", merge=False).eval()
    plain = load_end_to_end(folder / "base").eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, expected.logits, atol=1e-6, rtol=0)
        assert (plain(**batch).logits - expected.logits).abs().max() > 1e-2  # training did change it
        merged = merge_adapters(loaded)
        torch.testing.assert_close(merged(**batch).logits, expected.logits, atol=1e-5, rtol=0)
        assert merge_adapters(merged) is merged
        merged.save_pretrained(tmp_path / "merged")
        again = load_end_to_end(tmp_path / "merged")
        torch.testing.assert_close(again(**batch).logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(again(**batch).neural_embeds, expected.neural_embeds, atol=1e-5, rtol=0)


def test_adapters_are_small_and_hold_the_trained_parts_whole(adapted):
    folder = adapted[0]
    names = set(load_file(folder / "model" / "adapter_model.safetensors"))
    assert not any("embed_tokens" in name or "base_layer" in name for name in names)
    for part in ("encoder.norm.weight", "neural_projector.linear_in.weight", "aligner.log_scale"):
        assert f"base_model.model.{part}" in names
    assert (folder / "model" / "processor_config.json").is_file()


def test_a_pipeline_reads_with_adapters(adapted, llm):
    folder, run, _, _ = adapted
    rows = llm.trials(2)
    read = pipeline("neural-to-text", model=str(folder / "model"))
    statistics = (np.zeros(8), np.ones(8))
    found = read(
        [row["features"] for row in rows], session_id="p.0", statistics=statistics, max_new_tokens=4, num_beams=1
    )
    features = [row["features"] for row in rows]
    batch = run.processing_class.for_generation(features, session_id="p.0", statistics=statistics, return_tensors="pt")
    ids = run.model.eval().generate(**batch, max_new_tokens=4, do_sample=False)
    texts = run.processing_class.decode_answers(ids, batch["input_ids"].shape[1])
    assert [answer["text"] for answer in found] == texts


def test_a_base_that_moved_with_its_adapters_is_found_and_one_that_is_gone_is_named(adapted, tmp_path):
    folder, _, batch, expected = adapted
    (tmp_path / "model").symlink_to(folder / "model")
    settings = json.loads((folder / "model" / "adapter_config.json").read_text())
    moved = tmp_path / "moved" / "model"
    moved.mkdir(parents=True)
    for file in (folder / "model").iterdir():
        (moved / file.name).write_bytes(file.read_bytes())
    settings["base_model_name_or_path"] = str(tmp_path / "elsewhere" / "base")
    (moved / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="elsewhere.*neither|base of the adapters"):
        load_end_to_end(moved)
    (tmp_path / "moved" / "base").symlink_to(folder / "base")
    with torch.no_grad():
        torch.testing.assert_close(load_end_to_end(moved)(**batch).logits, expected.logits, atol=1e-5, rtol=0)


CLEAN = """
import importlib.abc, sys, torch
class Blocker(importlib.abc.MetaPathFinder):
    def find_spec(self, fullname, path=None, target=None):
        if fullname.split(".")[0] in ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech"):
            raise ModuleNotFoundError(f"No module named {fullname!r} (blocked)", name=fullname)
sys.meta_path.insert(0, Blocker())
from safetensors.torch import load_file, save_file
from transformers import AutoModelForMultimodalLM, AutoProcessor, pipeline
folder = sys.argv[1]
batch = load_file(folder + "/batch.safetensors")
model = AutoModelForMultimodalLM.from_pretrained(folder + "/model", trust_remote_code=True).eval()
with torch.no_grad():
    found = {"adapters": model(**batch).logits}
whole = AutoModelForMultimodalLM.from_pretrained(folder + "/base", trust_remote_code=True).eval()
processor = AutoProcessor.from_pretrained(folder + "/model", trust_remote_code=True)
assert type(whole).__module__.startswith("transformers_modules."), type(whole)
assert type(processor).__module__.startswith("transformers_modules."), type(processor)
trials = [batch["input_features"][i].numpy() for i in range(2)]
inputs = processor.for_generation(trials, session_id="p.0", return_tensors="pt")
found["written"] = whole.generate(**inputs, max_new_tokens=3, do_sample=False)
read = pipeline("neural-to-text", model=folder + "/base", trust_remote_code=True)
assert type(read).__module__.startswith("transformers_modules."), type(read)
texts = [answer["text"] for answer in read([trials[0]], session_id="p.0", max_new_tokens=3, num_beams=1)]
assert texts == processor.decode_answers(found["written"][:1], inputs["input_ids"].shape[1]), texts
save_file(found, folder + "/found.safetensors")
"""


def test_adapters_and_whole_models_load_in_a_clean_process_without_this_package(adapted):
    folder, run, batch, expected = adapted
    save_file({key: value.contiguous() for key, value in batch.items()}, folder / "batch.safetensors")
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    environment |= {"HF_HOME": str(folder / "home"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", CLEAN, str(folder)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[-4000:]
    found = load_file(folder / "found.safetensors")
    torch.testing.assert_close(found["adapters"], expected.logits, atol=1e-6, rtol=0)
    trials = [batch["input_features"][i].numpy() for i in range(2)]
    inputs = run.processing_class.for_generation(trials, session_id="p.0", return_tensors="pt")
    written = load_end_to_end(folder / "base").generate(**inputs, max_new_tokens=3, do_sample=False)
    assert torch.equal(found["written"], written)


def test_a_base_in_4_bits_needs_a_gpu_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(RuntimeError, match="CUDA GPU"):
        load_in_4bit(tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr("bit_speech.training.llm_stages.is_available", lambda name: False)
    with pytest.raises(ImportError, match="bitsandbytes"):
        load_in_4bit(tmp_path)


def test_a_language_model_in_half_precision_stays_so_beside_an_encoder_in_full(llm, tmp_path):
    llm.language_model().to(torch.bfloat16).save_pretrained(tmp_path / "lm")
    llm.tokenizer().save_pretrained(tmp_path / "lm")
    model, processor = build_end_to_end(
        llm.tiny.model(), tmp_path / "lm", feature_extractor=llm.tiny.processor().feature_extractor
    )
    model.save_pretrained(tmp_path / "whole")
    again = load_end_to_end(tmp_path / "whole")
    rows = llm.trials(3)
    features = [row["features"] for row in rows]
    batch = processor(features, [row["text"] for row in rows], session_id="p.0", return_tensors="pt")
    for made in (model, again):
        assert {parameter.dtype for parameter in made.language_model.parameters()} == {torch.bfloat16}
        assert {parameter.dtype for parameter in made.encoder.parameters()} == {torch.float32}
    assert torch.equal(again(**batch).logits, model(**batch).logits)
    again(**batch).loss.backward()
    inputs = processor.for_generation(features, session_id="p.0", return_tensors="pt")
    assert again.generate(**inputs, max_new_tokens=2).shape[0] == 3


def test_an_unknown_mode_is_refused(llm):
    with pytest.raises(ValueError, match="half.*frozen, lora, full"):
        choose_trained_parts(llm.build()[0], "half")
