"""The models in the box work out of the box, are what their records say, and are small."""

import json
from dataclasses import replace

import pytest
import torch

from bit_speech import (
    BITConfig,
    BITFeatureExtractor,
    BITForCTC,
    BITForMaskedModeling,
    BITProcessorWithDecoder,
    load_pretrained_encoder,
    sample_checkpoint,
)
from bit_speech.data.splits import comparable_text
from bit_speech.evaluation import word_error_rate
from bit_speech.hub.card_facts import CardFacts, Measurements
from bit_speech.hub.cards import model_card
from bit_speech.sample_checkpoints import (
    RECORD_NAME,
    file_hashes,
    sample_names,
    sample_participant,
    sample_trials,
)
from bit_speech.simulation import PRESETS, SimulatedParticipant
from bit_speech.transcription import Transcriber

NAMES = ["sim-ctc", "sim-encoder", "sim-llm"]


def record(name="sim-ctc"):
    return json.loads((sample_checkpoint(name) / RECORD_NAME).read_text())


def test_the_models_in_the_box_are_those():
    assert sample_names() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_the_one_that_was_recorded(name):
    assert file_hashes(sample_checkpoint(name)) == record(name)["sha256"]
    assert record(name)["settings"]["seed"] == 0 and len(record(name)["git_commit"]) >= 40


@pytest.mark.parametrize("name", NAMES)
def test_the_checkpoint_is_small_and_holds_nothing_that_runs(name):
    files = [path for path in sample_checkpoint(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 6_000_000
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".npz", ".bin"}


def test_it_decodes_held_out_trials_one_by_one():
    folder = sample_checkpoint("sim-ctc")
    model, processor = BITForCTC.from_pretrained(folder).eval(), BITProcessorWithDecoder.from_pretrained(folder)
    participant = SimulatedParticipant("demo", seed=record()["settings"]["participant_seed"])
    said, found = [], []
    for trial, _ in zip(participant.trials("test"), range(8)):
        inputs = processor(trial.features, participant_id="sim", session_id=trial.session_id, return_tensors="pt")
        with torch.no_grad():
            outputs = model(**inputs)
        said.append(trial.text)
        found += processor.batch_decode(outputs.logits, outputs.frame_mask).text
    # Far above the recorded rate, which 8 sentences scatter around, and far below a decoder that does not work.
    assert word_error_rate(said, found, num_bootstrap=0).rate < 0.3


def test_the_recorded_rates_are_those_of_a_decoder_that_works():
    test = record()["test"]
    assert test["per"]["rate"] < 0.25 and test["wer"]["rate"] < 0.2
    assert test["wer"]["num_sentences"] == record()["settings"]["num_test_sentences"]


def test_the_pretrained_encoder_fills_in_what_is_hidden_of_its_participants():
    folder = sample_checkpoint("sim-encoder")
    model = BITForMaskedModeling.from_pretrained(folder).eval()
    people = record("sim-encoder")["participants"]
    assert sorted(people) == sorted(model.config.participants)
    name, seed = next(iter(people.items()))
    extractor = BITFeatureExtractor.from_pretrained(folder)
    speaker = SimulatedParticipant(replace(PRESETS["demo"], participant_id=name), seed=seed)
    trials = [trial.features for trial, _ in zip(speaker.trials("test"), range(8))]
    torch.manual_seed(0)
    with torch.no_grad():
        inputs = extractor(
            trials, participant_id=name, block_index=0, feature_kinds=speaker.feature_kinds, return_tensors="pt"
        )
        outputs = model(**inputs)
    # The mean of the block, which is zero after z-scoring, explains nothing of it.
    assert outputs.r2 > 0 and min(record("sim-encoder")["held_out_reconstruction"].values()) > 0


def test_the_pretrained_encoder_goes_to_another_participant():
    folder = sample_checkpoint("sim-encoder")
    before = BITConfig.from_pretrained(folder).to_dict()
    model = BITForCTC(BITConfig.from_dict({**before, "participants": {"sim": 128}, "mask_ratio": 0.0}))
    assert load_pretrained_encoder(model, folder) == {"sim": "new"}
    pretrained = BITForMaskedModeling.from_pretrained(folder)
    for name, weight in pretrained.encoder.layers.state_dict().items():
        assert torch.equal(weight, model.encoder.layers.state_dict()[name]), name


def test_the_end_to_end_model_writes_held_out_sentences():
    trials = sample_trials("sim-llm", 8)
    transcriber = Transcriber.from_pretrained(sample_checkpoint("sim-llm"))
    written = [one.text for one in transcriber.transcribe(trials)]
    test = record("sim-llm")["test"]
    said = [trial["text"] for trial in trials]
    # Eight sentences scatter around the recorded rate; a model that ignores what it reads is far above it.
    assert word_error_rate(said, written, num_bootstrap=0).rate < test["wer"]["rate"] + 0.25
    shuffled = word_error_rate(said, written[1:] + written[:1], num_bootstrap=0).rate
    assert shuffled > word_error_rate(said, written, num_bootstrap=0).rate + 0.5


def test_the_end_to_end_models_held_out_sentences_were_never_learnt():
    participant, before = sample_participant("sim-llm"), sample_participant("sim-ctc")
    learnt = set(map(comparable_text, participant.sentences("train"))) | set(
        map(comparable_text, before.sentences("train"))
    )
    test = [comparable_text(text) for text in participant.sentences("test")]
    left_out = record("sim-llm")["test_sentences_left_out"]
    assert sum(text in learnt for text in test) == left_out
    assert record("sim-llm")["test"]["wer"]["num_sentences"] == len(test) - left_out > 80


def test_its_model_card_shows_how_to_name_the_session():
    card = model_card("lab/sim-ctc", sample_checkpoint("sim-ctc"), CardFacts(simulated=True), Measurements())
    assert 'processor([trial], participant_id="sim", session_id="sim.2024.01.05", return_tensors="pt")' in card
    assert "**Simulated participant.**" in card and "Consent: no person was recorded." in card


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="'sim-gru'; there are sim-ctc, sim-encoder, sim-llm"):
        sample_checkpoint("sim-gru")
    with pytest.raises(ValueError, match="count is 0; the participant has 1 to 200"):
        sample_trials("sim-ctc", 0)
