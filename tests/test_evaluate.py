"""`bit-speech evaluate` scores every kind of model that reads text out, with the decoder that lies beside it."""

import json

import numpy as np
import pytest

from bit_speech import BITForCTC, SpellingTokenizer, Wav2Vec2BrainConfig, Wav2Vec2BrainForCTC, sample_checkpoint
from bit_speech.cli import main
from bit_speech.evaluation import character_error_rate, word_error_rate
from bit_speech.sample_checkpoints import sample_trials
from bit_speech.transcription import Transcriber

from .converted import convert
from .hub.models_to_publish import BODY, SMALL, bit, end_to_end, neural


def evaluate(model, trials, output, *flags):
    command = [
        "evaluate",
        "--model",
        str(model),
        "--trials",
        str(trials),
        "--split",
        "test",
        "--output_dir",
        str(output),
    ]
    assert main([*command, *flags]) == 0
    lines = (output / "predictions.jsonl").read_text().splitlines()
    assert (output / "report" / "report.html").is_file()
    return json.loads((output / "metrics.json").read_text()), [json.loads(line) for line in lines]


@pytest.fixture
def small_trials(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"participant_id": "t15", "session_id": "s", "block_index": 1, "trial_index": index, "split": "test",
         "features": rng.normal(size=(60, 6)).astype(np.float32), "text": text, "phonemes": None,
         "feature_kinds": ["spike_band_power"] * 6, "channel_areas": ["6v"] * 6}
        for index, text in enumerate(["go on", "i can speak"])
    ]  # fmt: skip
    return convert(rows, tmp_path)


def test_words_are_written_by_the_decoder_beside_the_model_unless_another_is_given(tmp_path):
    said = sample_trials("sim-ctc", 6)
    trials = convert(said, tmp_path)
    model = sample_checkpoint("sim-ctc")
    found = [one.text for one in Transcriber.from_pretrained(model, num_hypotheses=1).transcribe(said)]
    metrics, rows = evaluate("sim-ctc", trials, tmp_path / "saved")
    assert [row["hypothesis_text"] for row in rows] == found
    rate = word_error_rate([row["text"] for row in said], found, num_bootstrap=0)
    assert metrics["wer"]["rate"] == rate.rate < 0.5 and metrics["per"]["rate"] < 0.5
    (tmp_path / "lexicon.txt").write_text("and\tAE N D\n")
    metrics, rows = evaluate(model, trials, tmp_path / "given", "--lexicon", str(tmp_path / "lexicon.txt"))
    assert {word for row in rows for word in row["hypothesis_text"].split()} <= {"and"}


def test_a_phoneme_model_without_a_decoder_is_scored_on_phonemes(small_trials, tmp_path):
    model, processor = BITForCTC(bit()), neural()
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    metrics, rows = evaluate(tmp_path / "m", small_trials, tmp_path / "out")
    assert "per" in metrics and "wer" not in metrics and "hypothesis_text" not in rows[0]


@pytest.mark.parametrize("kind", ["letters", "sentences"])
def test_models_of_letters_and_of_sentences_are_scored_on_characters_and_words(kind, small_trials, tmp_path):
    if kind == "letters":
        model = Wav2Vec2BrainForCTC(Wav2Vec2BrainConfig(participants={"t15": 6}, body_config=BODY, **SMALL))
        processor = neural(SpellingTokenizer())
    else:
        model, processor = end_to_end()
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    metrics, rows = evaluate(tmp_path / "m", small_trials, tmp_path / "out")
    references, found = ([row[key] for row in rows] for key in ("reference_text", "hypothesis_text"))
    assert references == ["go on", "i can speak"]
    assert metrics["cer"]["rate"] == character_error_rate(references, found, num_bootstrap=0).rate
    assert metrics["wer"]["rate"] == word_error_rate(references, found, num_bootstrap=0).rate


def test_a_decoder_for_a_model_that_writes_words_by_itself_is_refused(small_trials, tmp_path, capsys):
    model, processor = end_to_end()
    model.save_pretrained(tmp_path / "m")
    processor.save_pretrained(tmp_path / "m")
    command = ["evaluate", "--model", str(tmp_path / "m"), "--trials", str(small_trials), "--split", "test"]
    assert main([*command, "--lexicon", "cmudict", "--beam_size", "20"]) == 2
    assert "drop --beam_size, --lexicon" in capsys.readouterr().err
