"""Step by step from a recording to text, with every kind of model."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from figures import posterior_figure, recording_figure
from listening import Listener, Phoneme, Transcript
from transformers import Qwen2Config
from trials import bundled_trials

from bit_speech import BITConfig, BITForConditionalGeneration, BITLLMConfig, BITLLMProcessor, sample_checkpoint
from bit_speech.training import train_tokenizer


@pytest.fixture(scope="module")
def trials():
    return bundled_trials()


@pytest.fixture(scope="module")
def listener():
    return Listener(sample_checkpoint("sim-ctc"))


@pytest.fixture(scope="module")
def writer(tmp_path_factory, listener):
    """An end-to-end model of the same participant that has learned nothing."""
    folder = tmp_path_factory.mktemp("writer")
    processor = BITLLMProcessor(listener.extractor, train_tokenizer(["go on", "decode"] * 4, 270))
    torch.manual_seed(0)
    config = BITLLMConfig(
        encoder_config=BITConfig(
            participants={"sim": 128}, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16
        ).to_dict(),
        text_config=Qwen2Config(
            vocab_size=270, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2,
            intermediate_size=16,
        ).to_dict(),
        neural_token_id=processor.neural_token_id,
    )  # fmt: skip
    BITForConditionalGeneration(config).save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.fixture(autouse=True)
def short_answers(monkeypatch):
    monkeypatch.setattr("modeling_bit.pipeline_bit.MAX_NEW_TOKENS", 3)


def decoded(listener, trial):
    transcript = listener.hear(listener.check(trial))
    partials = list(listener.search(transcript))
    listener.write(transcript)
    return transcript, partials


def test_the_text_of_the_stream_ends_where_the_whole_search_ends(listener, trials):
    transcript, partials = decoded(listener, trials[4])
    assert transcript.text == "the car is good" == transcript.hypotheses[0].text
    assert partials[-1].text in transcript.text
    assert [partial.num_frames for partial in partials] == sorted({partial.num_frames for partial in partials})
    assert len({(partial.text, partial.stable) for partial in partials}) == len(partials)


def test_phonemes_are_runs_of_the_best_class_without_blanks():
    best = [0, 1, 1, 0, 1, 2]
    transcript = Transcript(trial=None, log_probs=np.log(np.eye(3)[best] * 0.9 + 0.03), labels=["<blank>", "AA", "B"])
    assert transcript.phonemes == [Phoneme("AA", 1, 3), Phoneme("AA", 4, 5), Phoneme("B", 5, 6)]


def test_without_an_end_to_end_model_there_is_no_sentence_of_one(listener, trials):
    transcript, _ = decoded(listener, trials[4])
    assert transcript.end_to_end is None and not transcript.problem
    assert listener.writer_name is None


def test_an_end_to_end_model_writes_beside_the_cascade(writer, trials):
    both = Listener(sample_checkpoint("sim-ctc"), writer)
    transcript, _ = decoded(both, trials[4])
    assert transcript.text == "the car is good"
    assert isinstance(transcript.end_to_end, str) and "end-to-end model" in transcript.timing
    assert both.writer_name == writer.name


def test_an_end_to_end_model_alone_has_a_sentence_and_no_phonemes(writer, trials):
    alone = Listener(writer)
    transcript, partials = decoded(alone, trials[4])
    assert transcript.text == transcript.end_to_end
    assert partials == [] and transcript.phonemes == [] and transcript.hypotheses == []
    with pytest.raises(ValueError, match="no phoneme probabilities"):
        posterior_figure(transcript)


def test_a_recording_that_the_end_to_end_model_cannot_read_says_why(writer, trials):
    both = Listener(sample_checkpoint("sim-ctc"), writer)
    both.writer.processor.feature_extractor.participants = {"sim": 96}
    transcript, _ = decoded(both, trials[4])
    assert transcript.text == "the car is good"
    assert "128 channels" in transcript.problem and transcript.end_to_end is None


def test_a_ctc_model_in_the_place_of_the_end_to_end_one_is_refused():
    with pytest.raises(ValueError, match="is no end-to-end model"):
        Listener(sample_checkpoint("sim-ctc"), sample_checkpoint("sim-ctc"))


def test_without_a_word_decoder_phonemes_appear_one_by_one(trials, tmp_path):
    source = sample_checkpoint("sim-ctc")
    for path in source.glob("*.*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    transcript, partials = decoded(Listener(tmp_path), trials[4])
    assert transcript.text == partials[-1].text == " ".join(phoneme.label for phoneme in transcript.phonemes)
    assert all(later.text.startswith(sooner.text) for sooner, later in zip(partials, partials[1:]))
    assert transcript.hypotheses == []


def test_a_known_session_scales_by_its_statistics_and_an_unknown_one_by_the_recording(listener, trials):
    known, unknown = trials[4], replace(trials[4], session_id="sim.2099.01.01")
    assert "session sim.2024.01.11" in listener.normalization(known)
    assert "this recording alone" in listener.normalization(unknown)
    by_session, by_itself = (listener.hear(listener.check(trial)).log_probs for trial in (known, unknown))
    assert by_session.shape == by_itself.shape and not np.array_equal(by_session, by_itself)


def test_trials_of_another_participant_are_left_out(listener, trials):
    assert len(listener.readable(trials)) == len(trials) >= 9
    assert listener.readable([replace(trials[0], participant_id="t15")]) == []


def test_equal_recordings_are_drawn_as_equal_pictures(listener, trials):
    trial = listener.check(trials[0])
    assert recording_figure(trial) == recording_figure(trial)
    assert recording_figure(trial)[:4] == posterior_figure(listener.hear(trial))[:4] == b"\x89PNG"
