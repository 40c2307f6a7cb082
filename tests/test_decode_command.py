"""`bit-speech decode` reads trials from wherever they are and writes what the model wrote, `report` scores it."""

import argparse
import json
import shutil

import h5py
import numpy as np
import pytest

from bit_speech import sample_checkpoint
from bit_speech.cli import main
from bit_speech.decode_command import _submit
from bit_speech.decoding import greedy_decode
from bit_speech.evaluation import word_error_rate
from bit_speech.evaluation.submissions import read_submission_25
from bit_speech.sample_checkpoints import sample_trials
from bit_speech.training import BITTrainer, BITTrainingArguments
from bit_speech.transcription import Transcriber, Transcription
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

from .converted import convert
from .hub.models_to_publish import bit, end_to_end, neural

COUNT = 4


def lines(text):
    return [json.loads(line) for line in text.splitlines()]


@pytest.fixture(scope="module")
def said():
    return sample_trials("sim-ctc", COUNT)


@pytest.fixture(scope="module")
def folder(said, tmp_path_factory):
    """The same trials as a converter leaves them."""
    return convert(said, tmp_path_factory.mktemp("decode"))


def test_a_model_in_the_box_decodes_its_held_out_trials_one_line_each(said, capsys):
    assert main(["decode", "--model", "sim-ctc", "--simulated", str(COUNT)]) == 0
    written = capsys.readouterr().out.splitlines()
    assert len(written) == COUNT
    assert word_error_rate([row["text"] for row in said], written, num_bootstrap=0).rate < 0.4


def test_trials_of_a_folder_become_predictions_and_predictions_a_report(said, folder, tmp_path, capsys):
    predictions = tmp_path / "run" / "predictions.jsonl"
    command = ["decode", "--model", "sim-ctc", "--trials", str(folder), "--nbest", "3", "--json"]
    assert main([*command, "--output", str(predictions)]) == 0
    found = lines(predictions.read_text())
    assert [row["reference_text"] for row in found] == [row["text"] for row in said]
    assert [row["trial_index"] for row in found] == [row["trial_index"] for row in said]
    for row in found:
        scores = [one["score"] for one in row["nbest"]]
        assert 1 <= len(scores) <= 3 and scores == sorted(scores, reverse=True)
        assert row["nbest"][0] == {"text": row["hypothesis_text"], "score": row["score"]}
        assert " ".join(word["word"] for word in row["words"]) == row["hypothesis_text"]
        times = [time for word in row["words"] for time in (word["start_time"], word["end_time"])]
        assert times == sorted(times) and all(0 <= word["confidence"] <= 1 for word in row["words"])
    capsys.readouterr()

    assert main(["report", str(predictions.parent), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    rate = word_error_rate([row["text"] for row in said], [row["hypothesis_text"] for row in found], num_bootstrap=0)
    assert shown["systems"]["run"]["rates"]["WER"]["rate"] == pytest.approx(rate.rate)
    assert (predictions.parent / "report" / "report.html").is_file()
    # A second time it could replace a page that holds more.
    assert main(["report", str(predictions.parent)]) == 2
    assert "give an --output_dir" in capsys.readouterr().err


def test_two_systems_are_compared_on_the_same_trials_only(tmp_path, capsys):
    rows = [
        {"session_id": "s", "block_index": 1, "trial_index": i, "reference_text": "go on", "hypothesis_text": "go"}
        for i in range(3)
    ]
    files = {}
    for name, kept in (("one", rows), ("two", rows[::-1]), ("three", rows[:2])):
        files[name] = tmp_path / name / "predictions.jsonl"
        files[name].parent.mkdir()
        files[name].write_text("".join(json.dumps(row) + "\n" for row in kept))
    assert main(["report", str(files["one"]), "--compare", str(files["two"]), "--output_dir", str(tmp_path / "r")]) == 0
    assert capsys.readouterr().out.startswith("one: WER 50.0 %, CER 60.0 %\ntwo: WER 50.0 %, CER 60.0 %\n")
    assert (
        main(["report", str(files["one"]), "--compare", str(files["three"]), "--output_dir", str(tmp_path / "x")]) == 2
    )
    assert "1 are missing from the first" in capsys.readouterr().err
    files["one"].write_text('{"said": "go on"}\n')
    assert main(["report", str(files["one"])]) == 2
    assert "line 1 has neither hypothesis_text nor" in capsys.readouterr().err


def test_files_of_one_trial_give_what_the_trial_gives(said, tmp_path, capsys):
    np.save(tmp_path / "a.npy", said[1]["features"])
    np.savez(tmp_path / "b.npz", neural=said[2]["features"])
    session = ["--session_id", said[1]["session_id"]]
    assert said[2]["session_id"] == said[1]["session_id"]
    assert main(["decode", "--model", "sim-ctc", str(tmp_path / "a.npy"), str(tmp_path / "b.npz"), *session]) == 0
    from_files = capsys.readouterr().out.splitlines()
    assert main(["decode", "--model", "sim-ctc", "--simulated", "3"]) == 0
    assert from_files == capsys.readouterr().out.splitlines()[1:]


def test_a_sentence_is_shown_as_it_grows(capsys):
    assert main(["decode", "--model", "sim-ctc", "--simulated", "1", "--stream"]) == 0
    shown = capsys.readouterr()
    grown = [line.split(" s  ", 1)[1] for line in shown.err.splitlines() if " s  " in line]
    settled = [line.split(" | ")[0].strip() for line in grown]
    assert len(grown) > 2 and all(later.startswith(earlier) for earlier, later in zip(settled, settled[1:]))
    assert grown[-1].replace(" | ", " ").split() == shown.out.split()


def test_without_a_word_decoder_phonemes_are_written_and_it_is_said(tmp_path, capsys):
    shutil.copytree(sample_checkpoint("sim-ctc"), tmp_path / "m", ignore=shutil.ignore_patterns("decoder"))
    model = Transcriber.from_pretrained(tmp_path / "m")
    (found,) = model.transcribe(sample_trials("sim-ctc"))
    assert model.writes == "phonemes" and set(found.text.split()) <= set(MODEL_ORDER)
    with pytest.raises(ValueError, match="only with a word decoder"):
        next(model.transcribe(sample_trials("sim-ctc"), on_partial=print))


def untrained_trials():
    rng = np.random.default_rng(0)
    return [
        {"participant_id": "t15", "session_id": "s", "block_index": block, "trial_index": index,
         "features": (rng.normal(size=(bins, 6)) * (1 + block) + 5 * block).astype(np.float32), "text": "go on"}
        for index, (block, bins) in enumerate([(1, 60), (2, 45), (1, 30), (2, 3)])
    ]  # fmt: skip


def test_statistics_of_a_block_are_those_of_training(tmp_path):
    from bit_speech import BITForCTC

    trials, processor = untrained_trials(), neural(normalization="block")
    model = BITForCTC(bit())
    arguments = BITTrainingArguments(
        output_dir=str(tmp_path), eval_strategy="no", load_best_model_at_end=False, use_cpu=True
    )
    scores = BITTrainer(model, arguments, processing_class=processor).predict_log_probs(trials)
    wanted = [" ".join(MODEL_ORDER[label] for label in greedy_decode(rows)) for rows in scores]
    found = list(Transcriber(model, processor).transcribe(trials))
    assert [one.text for one in found] == wanted and wanted[0] != wanted[2]
    # Three bins are less than a patch: there is nothing to read, and no error.
    assert found[3].text == "" and found[3].place["trial_index"] == 3


def test_an_end_to_end_model_gives_distinct_sentences_with_scores(tmp_path, capsys):
    model, processor = end_to_end()
    transcriber = Transcriber(model, processor)
    trial = {**untrained_trials()[0], "session_id": None}
    (found,) = transcriber.transcribe([trial], num_best=3)
    assert transcriber.writes == "words" and found.reference == "go on"
    scores = [one["score"] for one in found.nbest]
    assert len(scores) == 3 and scores == sorted(scores, reverse=True) and found.score == scores[0]
    (greedy,) = transcriber.transcribe([trial], num_beams=1)
    assert greedy.score is None and greedy.nbest == []


def test_a_submission_is_in_order_and_has_no_empty_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("bit_speech.evaluation.submissions.NUM_SENTENCES_25", 3)
    found = [
        Transcription(text, place={"session_id": f"t15.2023.08.{day}", "block_index": 1, "trial_index": index})
        for text, day, index in (("third", 13, 0), ("first", 11, 0), ("", 11, 1))
    ]
    output = str(tmp_path / "s.csv")
    _submit(argparse.Namespace(submission="brain_to_text_25", output=output), found)
    assert read_submission_25(output) == ["first", "the", "third"]
    assert "1 sentences are empty" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--simulated", "1", "--trials", "x"], "one source of trials"),
        ([], "one source of trials"),
        (["--simulated", "1", "--nbest", "0"], "--nbest is 0"),
        (["--simulated", "500"], "1 to 200 held-out trials"),
        (["--simulated", "1", "--submission", "brain_to_text_25"], "needs --trials"),
        (["no_such.npy"], "no recording no_such.npy"),
        (["--trials", "no_such_folder"], "no_such_folder"),
        ([__file__], "is no .npy, .npz, .h5, .hdf5, .nwb file"),
        (["--simulated", "1", "--lm", "lm.arpa"], "needs a lexicon"),
        (["--simulated", "1", "--field", "x"], "--field, --participant_id and --session_id belong to files"),
    ],
)
def test_what_cannot_be_decoded_is_refused_with_the_remedy(flags, message, capsys):
    assert main(["decode", "--model", "sim-ctc", *flags]) == 2
    assert message in capsys.readouterr().err


def test_a_trial_that_does_not_fit_the_model_is_named(tmp_path, capsys):
    np.save(tmp_path / "narrow.npy", np.zeros((50, 3), np.float32))
    assert main(["decode", "--model", "sim-ctc", str(tmp_path / "narrow.npy"), "--session_id", "sim.2024.01.05"]) == 2
    assert "trial session_id sim.2024.01.05: " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["junk.npz", "junk.npy", "short.h5"])
def test_a_damaged_file_is_refused_by_its_name_and_nobody_is_advised_to_unpickle_it(tmp_path, capsys, name):
    whole = tmp_path / "whole.h5"
    with h5py.File(whole, "w") as file:
        file["features"] = np.zeros((200, 128), np.float32)
    (tmp_path / name).write_bytes(whole.read_bytes()[:5000] if name.endswith("h5") else b"no recording")
    assert main(["decode", "--model", "sim-ctc", str(tmp_path / name)]) == 2
    said = capsys.readouterr().err
    assert f"{name} cannot be read" in said and "again" in said and "pickle" not in said
