"""`pipeline("neural-to-text")` where this package is installed: words, times, lists, from wherever trials are."""

import shutil

import h5py
import numpy as np
import pytest
from transformers import pipeline

from bit_speech import sample_checkpoint
from bit_speech.data import load_trials
from bit_speech.pipelines import NeuralToTextPipeline
from bit_speech.sample_checkpoints import sample_trials
from bit_speech.transcription import Transcriber

from .converted import convert
from .hub.models_to_publish import end_to_end


@pytest.fixture(scope="module")
def said():
    return sample_trials("sim-ctc", 4)


@pytest.fixture(scope="module")
def read():
    return pipeline("neural-to-text", model=str(sample_checkpoint("sim-ctc")))


@pytest.fixture(scope="module")
def expected(said):
    transcriber = Transcriber.from_pretrained(sample_checkpoint("sim-ctc"), num_hypotheses=10)
    return list(transcriber.transcribe(said, num_best=3))


def test_a_phoneme_model_writes_the_words_of_the_decoder_beside_it(read, said, expected):
    assert isinstance(read, NeuralToTextPipeline)
    found = read(said, num_best=3, return_timestamps="word")
    for one, other in zip(found, expected, strict=True):
        assert (one["text"], one["score"], one["nbest"]) == (other.text, other.score, other.nbest)
        assert [chunk["text"] for chunk in one["chunks"]] == one["text"].split()
        times = [time for chunk in one["chunks"] for time in chunk["timestamp"]]
        assert times == sorted(times) and all(0 <= chunk["confidence"] <= 1 for chunk in one["chunks"])
    assert set(read(said[0])) == {"text", "score"}


def test_a_long_list_is_as_long_as_was_asked_for(read, said):
    assert len(read(said[0], num_best=12)["nbest"]) == 12


@pytest.mark.parametrize("batch_size", [3, 4])
def test_trials_that_are_read_together_give_what_each_gives(read, said, expected, batch_size):
    found = read(said, batch_size=batch_size)
    assert [one["text"] for one in found] == [other.text for other in expected]
    assert [one["score"] for one in found] == pytest.approx([other.score for other in expected], abs=1e-3)


def test_one_trial_gives_one_answer_and_many_give_a_list_wherever_they_come_from(read, said, expected, tmp_path):
    features, session = said[1]["features"], said[1]["session_id"]
    np.save(tmp_path / "a.npy", features)
    np.savez(tmp_path / "b.npz", neural=features, session=session)
    text = expected[1].text
    ways = [features, said[1], tmp_path / "a.npy", str(tmp_path / "b.npz")]
    for way in ways:
        assert read(way, session_id=session)["text"] == text
    assert [one["text"] for one in read(ways, session_id=session)] == [text] * 4
    assert read(tmp_path / "b.npz")["text"] == text  # the file says the session
    assert [one["text"] for one in read(way for way in said)] == [one.text for one in expected]
    with h5py.File(tmp_path / "c.h5", "w") as file:
        for trial in said[:2]:
            group = file.create_group(f"trial_{trial['trial_index']:04d}")
            group["input_features"], group.attrs["session"] = trial["features"], trial["session_id"]
    both = read([tmp_path / "c.h5", said[2]])
    assert [one["text"] for one in both[0]] == [one.text for one in expected[:2]] and both[1]["text"] == expected[
        2
    ].text


def test_a_data_set_of_trials_is_read_row_by_row(read, said, expected, tmp_path):
    dataset = load_trials(convert(said, tmp_path), "test")
    assert [one["text"] for one in read(dataset)] == [one.text for one in expected]


def test_the_batch_size_of_the_pipeline_counts_where_a_call_gives_none(said, expected, monkeypatch):
    sizes = []
    read_together = Transcriber._read
    monkeypatch.setattr(Transcriber, "_read", lambda *all: sizes.append(len(all[1])) or read_together(*all))
    read = pipeline("neural-to-text", model=str(sample_checkpoint("sim-ctc")), batch_size=3)
    assert [one["text"] for one in read(said)] == [one.text for one in expected]
    assert sizes == [3, 1]


def test_without_a_decoder_phonemes_are_given_and_a_lexicon_makes_words_of_them(said, tmp_path):
    folder = tmp_path / "model"
    shutil.copytree(sample_checkpoint("sim-ctc"), folder, ignore=shutil.ignore_patterns("decoder"))
    read = pipeline("neural-to-text", model=str(folder))
    with pytest.raises(ValueError, match="knows no times of words"):
        read(said[0], return_timestamps=True)
    phonemes = read(said[0])["text"].split()
    (tmp_path / "lexicon.txt").write_text(f"word\t{' '.join(one for one in phonemes if one != 'SIL')}\n")
    with_words = pipeline("neural-to-text", model=str(folder), lexicon=str(tmp_path / "lexicon.txt"))
    assert with_words(said[0])["text"] == "word"


def test_an_end_to_end_model_takes_the_settings_of_generate(tmp_path):
    model, processor = end_to_end()
    trial = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    read = NeuralToTextPipeline(model=model, processor=processor)
    found = read([trial, trial[:44]], num_best=2, max_new_tokens=6, batch_size=2)
    alone = [read(one, num_best=2, max_new_tokens=6) for one in (trial, trial[:44])]
    assert [one["text"] for one in found] == [one["text"] for one in alone] and len(found[0]["nbest"]) == 2
    sampled = read(trial, do_sample=True, num_best=3, max_new_tokens=4)
    assert len(sampled["nbest"]) == 3 and "score" not in sampled
    with pytest.raises(ValueError, match="leave `lexicon` and `lm` out"):
        NeuralToTextPipeline(model=model, processor=processor, lexicon="cmudict")


@pytest.mark.parametrize(
    ("inputs", "settings", "message"),
    [
        ({"neural": 1}, {}, "no 'features'; it has neural"),
        ([1.0, 2.0], {}, "this has 0 axes"),
        (np.zeros((50, 3)), {"session_id": "sim.2024.01.05"}, "trial session_id sim.2024.01.05: .*3 channels"),
        ("there_is_no.npz", {}, "no recording there_is_no.npz"),
        (np.zeros((50, 128)), {"num_beams": 2}, "no use for num_beams"),
        (np.zeros((50, 128)), {"num_best": 0}, "num_best is 0"),
        (np.zeros((50, 128)), {"return_timestamps": "char"}, "return_timestamps is 'char'"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_the_value(read, inputs, settings, message):
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        read(inputs, **settings)
