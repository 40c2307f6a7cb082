"""The command that makes the shipped checkpoints makes some that load, and records what they are."""

import importlib.util
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from bit_speech import BITForCTC, BITProcessorWithDecoder
from bit_speech.sample_checkpoints import RECORD_NAME, file_hashes

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def script(monkeypatch):
    import bit_speech.simulation.intracortical as intracortical

    sizes = {"train_sentences": 12, "val_sentences": 4, "test_sentences": 2, "num_sessions": 2, "num_electrodes": 8}
    monkeypatch.setattr(intracortical, "PRESETS", {"demo": replace(intracortical.PRESETS["demo"], **sizes)})
    spec = importlib.util.spec_from_file_location("make_sample_checkpoints", EXAMPLES / "make_sample_checkpoints.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules["make_sample_checkpoints"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_one_command_makes_a_checkpoint_that_loads_and_is_recorded(script, tmp_path, monkeypatch):
    recipe = script.sample_ctc
    sentences = recipe.language_model_sentences
    monkeypatch.setattr(recipe, "language_model_sentences", lambda held_out: sentences(held_out)[:2000])
    flags = ["--num_train_epochs", "1", "--per_device_train_batch_size", "4", "--max_words", "200", "--beam_size", "10"]
    flags += ["--which", "sim-ctc"]
    script.main(["--output_dir", str(tmp_path), *flags])
    folder = tmp_path / "sim-ctc"
    record = json.loads((folder / RECORD_NAME).read_text())
    assert record["sha256"] == file_hashes(folder)
    assert record["settings"]["participant_seed"] == 0 and record["vocabulary_words"] == 200
    assert record["test"]["wer"]["num_sentences"] == 2
    assert not list(folder.rglob("*.py")) and [path.name for path in tmp_path.iterdir()] == ["sim-ctc"]
    model, processor = BITForCTC.from_pretrained(folder), BITProcessorWithDecoder.from_pretrained(folder)
    assert model.config.participants == processor.processor.feature_extractor.participants
    with pytest.raises(ValueError, match="is there already"):
        script.main(["--output_dir", str(tmp_path), *flags])


@pytest.mark.slow
def test_an_encoder_is_pretrained_without_labels_and_recorded(script, tmp_path):
    from bit_speech import BITForMaskedModeling

    flags = ["--encoder_participants", "2", "--encoder_sentences", "12", "--encoder_steps", "2"]
    script.main(["--output_dir", str(tmp_path), "--which", "sim-encoder", *flags])
    folder = tmp_path / "sim-encoder"
    record = json.loads((folder / RECORD_NAME).read_text())
    assert record["sha256"] == file_hashes(folder) and record["participants"] == {"sim1": 1, "sim2": 2}
    assert set(record["held_out_reconstruction"]) == {"r2", "r2_sim1", "r2_sim2"}
    assert sorted(BITForMaskedModeling.from_pretrained(folder).config.participants) == ["sim1", "sim2"]


@pytest.mark.slow
def test_an_end_to_end_model_is_made_of_the_encoder_in_the_box_and_recorded(script, tmp_path):
    from bit_speech.transcription import Transcriber

    flags = [
        "--llm_training_sentences", "200", "--llm_steps", "2", "--llm_text_steps", "2", "--llm_batch_size", "4",
        "--num_validation_sentences", "3", "--num_test_sentences", "3",
    ]  # fmt: skip
    script.main(["--output_dir", str(tmp_path), "--which", "sim-llm", *flags])
    folder = tmp_path / "sim-llm"
    record = json.loads((folder / RECORD_NAME).read_text())
    assert record["sha256"] == file_hashes(folder)
    assert record["participant_changes"]["sentences_source"] == "fifty_words"
    assert record["test"]["wer"]["num_sentences"] == 3 - record["test_sentences_left_out"]
    assert Transcriber.from_pretrained(folder).writes == "words"
    with pytest.raises(ValueError, match="--which sim-gru is unknown"):
        script.main(["--output_dir", str(tmp_path), "--which", "sim-gru"])
