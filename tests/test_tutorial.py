"""The tutorial works: every command and every line of Python in it runs, in order, on a tiny simulated participant."""

import io
import json
import os
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from bit_speech.cli import main

from .documentation import DOCS, replaced, walk

TUTORIAL, PUBLISHING = DOCS / "tutorial_own_participant.md", DOCS / "publishing.md"
# What makes it tiny: the tutorial's words, and what the test puts in their place.
SMALLER = {
    "train_sentences=600, val_sentences=60, test_sentences=60": "train_sentences=12, val_sentences=4, "
    "test_sentences=2, max_words=3",
    "language_model_sentences(held_out)": "language_model_sentences(held_out)[:300]",
    "--lexicon cmudict --lm lm.bin": "--lexicon words.txt --lm lm.bin --beam_size 20 --max_steps 2 --use_cpu true "
    "--per_device_train_batch_size 4",
}
WORDS = {"the": "DH AH", "i": "AY", "you": "Y UW", "is": "IH Z", "to": "T UW", "tom": "T AA M", "he": "HH IY"}


@pytest.fixture(scope="module")
def walked(tmp_path_factory):
    """The folder after the whole tutorial, the names its Python has defined, and what was printed."""
    text = replaced(TUTORIAL.read_text(encoding="utf-8"), SMALLER)
    names: dict = {}
    folder, before = tmp_path_factory.mktemp("tutorial"), os.getcwd()
    os.chdir(folder)
    try:
        Path("words.txt").write_text("".join(f"{word}\t{phonemes}\n" for word, phonemes in WORDS.items()))
        with redirect_stdout(io.StringIO()) as said:
            walk(text, names)
    finally:
        os.chdir(before)
    return folder, names, said.getvalue()


def test_the_data_report_shows_rates_dead_channels_drift_and_overlap(walked):
    report = json.loads((walked[0] / "runs/me/data_report/data_report.json").read_text())
    assert report["normalization"]["kind"] == "raw"
    assert [report["splits"][split]["num_trials"] for split in ("train", "validation", "test")] == [12, 4, 2]
    assert report["sessions"][0]["rate_hz"] > 1 and report["sessions"][0]["drift"] is None
    assert report["leakage"]["sentences_in_several_splits"] == {}
    figures = {path.stem for path in (walked[0] / "runs/me/data_report/figures").glob("*.png")}
    assert figures == {"rates", "dead_channels", "drift", "durations"}


def test_training_ends_with_a_model_scores_a_report_and_a_card_to_fill_in(walked):
    runs = walked[0] / "runs/me"
    metrics = json.loads((runs / "metrics.json").read_text())
    assert [scored["split"] for scored in metrics["evaluations"]] == ["validation, which chose the checkpoint", "test"]
    assert metrics["evaluations"][1]["wer"]["num_sentences"] == 2
    assert (runs / "report" / "report.html").is_file()
    card = (runs / "card.yaml").read_text()
    assert "simulated: true" in card and "data: simulated by bit-speech\n" in card and "consent: null" in card


def test_the_trained_folder_writes_sentences(walked):
    decoded = walked[1]["decoded"]
    assert len(decoded.text) == 3 and set(" ".join(decoded.text).split()) <= set(WORDS)


def test_the_model_is_tried_in_a_clean_process_before_it_may_leave(walked):
    assert "model my-lab/p01-decoder: " in walked[2] and "nothing was uploaded; add --push" in walked[2]
    assert "runs in a clean process, without this package: logits (1, " in walked[2]


def test_every_command_of_the_page_on_publishing_runs(walked, monkeypatch, capsys):
    monkeypatch.chdir(walked[0])
    # The tutorial has just run this very model in a clean process.
    monkeypatch.setattr("bit_speech.hub.model_folder.check_in_clean_process", lambda folder: {"logits": (1, 2, 41)})
    walk(PUBLISHING.read_text(encoding="utf-8"), {})
    said = capsys.readouterr().out
    assert said.count("nothing was uploaded") == 4
    assert "space my-lab/bci-wer" in said and "dataset my-lab/p01-trials: 1 files" in said


def test_the_same_command_goes_on_and_other_settings_are_refused(walked, monkeypatch, capsys):
    monkeypatch.chdir(walked[0])
    again = ["finetune", "--data", "recordings", "--output_dir", "runs/me", "--lexicon", "words.txt", "--lm", "lm.bin"]
    assert main([*again, "--beam_size", "20", "--max_steps", "3", "--use_cpu", "true"]) == 2
    assert "holds a run with other max_steps" in capsys.readouterr().err
