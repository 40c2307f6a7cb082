"""The model in the box decodes out of the box, is what its record says, and is small."""

import json

import pytest
import torch

from bit_speech import BITForCTC, BITProcessorWithDecoder, sample_checkpoint
from bit_speech.evaluation import word_error_rate
from bit_speech.hub.card_facts import CardFacts, Measurements
from bit_speech.hub.cards import model_card
from bit_speech.sample_checkpoints import RECORD_NAME, file_hashes
from bit_speech.simulation import SimulatedParticipant


def record():
    return json.loads((sample_checkpoint("sim-ctc") / RECORD_NAME).read_text())


def test_every_file_is_the_one_that_was_recorded():
    assert file_hashes(sample_checkpoint("sim-ctc")) == record()["sha256"]


def test_the_checkpoint_is_small_and_holds_nothing_that_runs():
    files = [path for path in sample_checkpoint("sim-ctc").rglob("*") if path.is_file()]
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


def test_its_model_card_shows_how_to_name_the_session():
    card = model_card("lab/sim-ctc", sample_checkpoint("sim-ctc"), CardFacts(simulated=True), Measurements())
    assert 'processor([trial], participant_id="sim", session_id="sim.2024.01.05", return_tensors="pt")' in card
    assert "**Simulated participant.**" in card and "Consent: no person was recorded." in card


def test_an_unknown_name_is_refused_with_those_that_exist():
    with pytest.raises(ValueError, match="'sim-llm'; there are sim-ctc"):
        sample_checkpoint("sim-llm")
