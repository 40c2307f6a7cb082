"""The recipes: a speech body from synthesized speech, and the four regimes that listen to a participant with it."""

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
TINY = ["--hidden_size=16", "--num_hidden_layers=1", "--intermediate_size=16", "--num_attention_heads=2"]


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def speech():
    return load("pretrain_wav2vec2_speech")


@pytest.fixture(scope="module")
def body(speech, tmp_path_factory):
    """A speech body by our own recipe, on tones instead of speech where espeak-ng is missing."""
    import numpy as np

    folder = tmp_path_factory.mktemp("speech_body")
    spoken = speech.speak
    if shutil.which("espeak-ng") is None:
        speech.speak = lambda text, voice, rate: np.sin(np.arange(300 * len(text)) / 9).astype(np.float32)
    try:
        record = speech.main(
            [*TINY, f"--output_dir={folder}", "--num_sentences=20", "--max_steps=2", "--per_device_train_batch_size=4",
             "--use_cpu", "--disable_tqdm=true", "--save_strategy=no", "--report_to=none"]
        )  # fmt: skip
    finally:
        speech.speak = spoken
    assert record["held_out_cer"]["num_sentences"] == 1 and record["body_parameters"] > 0
    return folder


@pytest.fixture
def small_preset(monkeypatch):
    import bit_speech.simulation.intracortical as intracortical

    small = replace(
        intracortical.PRESETS["demo"],
        train_sentences=8, val_sentences=3, test_sentences=2, num_sessions=2, num_electrodes=4, sentences_per_block=2,
        min_words=2, max_words=3,
    )  # fmt: skip
    monkeypatch.setattr(intracortical, "PRESETS", {"demo": small})


def listen(body, output_dir, *extra):
    from bit_speech.experiments import train_wav2vec2

    flags = [
        f"--config={EXAMPLES / 'configs' / 'wav2vec2_brain_simulated.yaml'}", f"--output_dir={output_dir}",
        f"--speech_checkpoint={body}", "--simulate=demo", "--max_steps=2", "--eval_steps=2", "--save_steps=2",
        "--per_device_train_batch_size=4", "--use_cpu", "--disable_tqdm=true", "--skip_short_trials=true",
        "--model_config=" + json.dumps({"hidden_size": 4, "num_hidden_layers": 1, "patch_size": 8, "patch_stride": 2}),
    ]  # fmt: skip
    return train_wav2vec2.main([*flags, *extra])


@pytest.mark.parametrize("regime", ["full", "frozen", "scratch", "lora"])
def test_every_regime_trains_scores_and_leaves_a_model_that_loads(body, small_preset, tmp_path, regime):
    from bit_speech import BITProcessor, Wav2Vec2BrainForCTC

    scores = listen(body, tmp_path, f"--regime={regime}")
    assert scores["cer_greedy"]["rate"] > 0 and scores["wer_greedy"]["num_sentences"] == 2
    model = Wav2Vec2BrainForCTC.from_pretrained(tmp_path / "model")
    assert not [name for name, _ in model.named_parameters() if "lora" in name]
    assert model.config.freeze_body == (regime == "frozen")
    assert BITProcessor.from_pretrained(tmp_path / "model").tokenizer.word_delimiter == "|"


def test_phonemes_and_a_curriculum_work_too(body, small_preset, tmp_path):
    scores = listen(body, tmp_path, "--vocabulary=phonemes", "--curriculum_epochs=1")
    assert set(scores) == {"phonemes"} and (tmp_path / "curriculum" / "metrics.json").is_file()


def test_legacy_scores_first_blocks_and_averages_over_batches(body, small_preset, tmp_path):
    scores = listen(body, tmp_path, "--legacy=true", "--regime=frozen")
    assert scores["cer_mean_over_batches"] > 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["experiment"]["legacy"] is True
    assert scores["wer_greedy"]["num_sentences"] == 4  # two sessions, blocks of two


def test_no_sentence_of_a_participant_is_spoken(speech):
    from bit_speech.simulation.text import load_sentences, normalize_sentence

    prompts = {normalize_sentence(text) for source in ("t12", "t15") for text in load_sentences(source)}
    assert not prompts & set(speech.choose_sentences(3000, 6))


def test_speech_without_text_is_the_control(speech, monkeypatch, tmp_path):
    import numpy as np

    from bit_speech import Wav2Vec2BrainForCTC

    monkeypatch.setattr(speech, "speak", lambda *_: np.random.default_rng(0).normal(size=8000).astype(np.float32))
    speech.main(
        [*TINY, f"--output_dir={tmp_path}", "--objective=contrastive", "--num_sentences=8", "--max_steps=1",
         "--per_device_train_batch_size=4", "--use_cpu", "--disable_tqdm=true", "--save_strategy=no",
         "--report_to=none"]
    )  # fmt: skip
    with pytest.raises(ValueError, match="without a CTC head"):
        Wav2Vec2BrainForCTC.from_speech_checkpoint(tmp_path, participants={"t": 6})
    model = Wav2Vec2BrainForCTC.from_speech_checkpoint(
        tmp_path, new_head=True, participants={"t": 6}, hidden_size=4, num_hidden_layers=1, vocab_size=32
    )
    assert "head" in model.random_parts(new_head=True)
