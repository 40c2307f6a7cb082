"""Promises of the simulated participant: determinism, splits, labels, durations, tasks."""

from dataclasses import replace

import numpy as np
import pytest

from bit_speech.simulation import (
    PRESETS,
    SimulatedParticipant,
    SimulationConfig,
    load_sentences,
    normalize_sentence,
    pronounce,
)
from bit_speech.simulation.articulation import LATENTS, articulatory_targets, carry_over, duration_cdf
from bit_speech.simulation.text import FIFTY_WORDS
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

SMALL = replace(
    PRESETS["demo"],
    train_sentences=30,
    val_sentences=6,
    test_sentences=8,
    num_sessions=2,
    sentences_per_block=5,
    num_electrodes=16,
)


@pytest.fixture(scope="module")
def participant() -> SimulatedParticipant:
    return SimulatedParticipant(SMALL, seed=3)


@pytest.fixture(scope="module")
def trials(participant):
    return list(participant.trials())


def test_a_trial_made_alone_equals_the_one_made_in_the_stream(participant, trials):
    trial = trials[17]
    again = SimulatedParticipant(SMALL, seed=3).trial(trial.session_id, trial.block_index, trial.trial_index)
    assert again.text == trial.text
    np.testing.assert_array_equal(again.features, trial.features)


def test_another_seed_gives_another_participant(trials):
    other = next(SimulatedParticipant(SMALL, seed=4).trials())
    assert other.text != trials[0].text or not np.array_equal(other.features, trials[0].features)


def test_no_sentence_and_no_block_is_in_two_splits(participant, trials):
    texts = {
        split: {normalize_sentence(text) for text in participant.sentences(split)} for split in ("train", "val", "test")
    }
    assert sum(map(len, texts.values())) == len(set().union(*texts.values())) == 44
    splits: dict = {}
    for trial in trials:
        splits.setdefault((trial.session_id, trial.block_index), set()).add(trial.split)
    assert all(len(found) == 1 for found in splits.values())


def test_trials_come_in_the_order_of_the_sentences_of_their_split(participant):
    assert [trial.text for trial in participant.trials("test")] == participant.sentences("test")


def test_text_for_language_models_holds_nothing_that_is_held_out(participant):
    held_out = {normalize_sentence(text) for split in ("val", "test") for text in participant.sentences(split)}
    allowed = {normalize_sentence(text) for text in participant.language_model_sentences()}
    assert not held_out & allowed
    assert len(allowed) > 10_000


def test_more_training_sentences_leave_the_held_out_text_alone(participant):
    longer = SimulatedParticipant(replace(SMALL, train_sentences=60), seed=3)
    assert longer.sentences("test") == participant.sentences("test")


def test_labels_are_the_pronunciation_and_tile_the_speech(trials):
    for trial in trials:
        phonemes = trial.phonemes.split()
        assert phonemes == pronounce(trial.text)
        assert phonemes[-1] == "SIL"
        assert [MODEL_ORDER[index] for index in trial.phone_ids] == phonemes
        assert (trial.phone_onsets[1:] == trial.phone_offsets[:-1]).all()
        assert trial.phone_onsets[0] >= 3 and trial.phone_offsets[-1] < trial.num_bins
        durations = trial.phone_offsets - trial.phone_onsets
        assert durations[trial.phone_ids < 40].min() >= SMALL.min_phone_bins and durations.min() >= 2


@pytest.mark.parametrize("preset", PRESETS)
def test_every_trial_has_frames_enough_for_ctc(preset):
    config = replace(
        PRESETS[preset], num_electrodes=4, train_sentences=300, val_sentences=0, test_sentences=0, num_sessions=1
    )
    for trial in SimulatedParticipant(config).trials():
        needed = len(trial.phone_ids) + (trial.phone_ids[1:] == trial.phone_ids[:-1]).sum()
        assert trial.num_bins // 5 >= needed
        assert (trial.num_bins - 14) // 4 + 1 >= needed


def test_durations_follow_their_hazards(participant):
    hazards = participant.duration_hazards
    assert hazards.min() >= 0 and hazards.max() <= 1 and (hazards[:, -1] > 0).all()
    lengths = np.arange(1, 1025)
    means = (np.diff(duration_cdf(hazards), axis=1, prepend=0) * lengths).sum(axis=1)
    shares = SMALL.phone_duration_ms / SMALL.bin_size_ms
    assert means[:39].mean() == pytest.approx(shares, rel=0.15)


def test_similar_phones_have_similar_targets():
    targets = articulatory_targets()
    names = MODEL_ORDER[1:40]

    def distance(a: str, b: str) -> float:
        return float(np.linalg.norm(targets[names.index(a)] - targets[names.index(b)]))

    assert targets.shape == (42, len(LATENTS)) and np.abs(targets).max() <= 1
    assert distance("T", "D") < distance("T", "AA")
    assert distance("IY", "IH") < distance("IY", "AO")
    assert min(distance(a, b) for a in names for b in names if a != b) > 0.2


def test_coarticulation_ends():
    share = carry_over(5)
    assert (np.diff(share) < 0).all() and share[-1] == 0


def test_features_are_counts_and_positive_power(participant, trials):
    features = np.concatenate([trial.features for trial in trials])
    counts, power = features[:, :16], features[:, 16:]
    assert features.dtype == np.float32
    assert (counts == np.rint(counts)).all() and counts.min() == 0
    dead = participant.channels(participant.sessions[0]).dead
    assert (power[:, ~dead] > 0).all()
    assert participant.feature_kinds == ["threshold_crossings"] * 16 + ["spike_band_power"] * 16
    assert participant.channel_areas == ["ventral_6v"] * 32


def test_dead_electrodes_record_nothing_and_noisy_ones_nothing_of_speech():
    config = replace(SMALL, dead_electrode_share=0.25, noisy_electrode_share=0.25)
    participant = SimulatedParticipant(config)
    channels = participant.channels(participant.sessions[0])
    assert channels.dead.sum() == 4
    assert (np.abs(channels.tuning).sum(axis=1) == 0).sum() == 8
    features = next(participant.trials()).features
    assert not features[:, np.append(channels.dead, channels.dead)].any()


def test_tuning_drifts_a_little_from_day_to_day_and_more_over_many():
    participant = SimulatedParticipant(replace(SMALL, num_sessions=8, tuning_drift_per_session=0.2), seed=1)
    first, second, last = (participant.channels(participant.sessions[i]).tuning.ravel() for i in (0, 1, 7))
    assert 0.9 < np.corrcoef(first, second)[0, 1] < 1
    assert np.corrcoef(first, last)[0, 1] < np.corrcoef(first, second)[0, 1]


def test_common_noise_is_stationary_and_of_unit_variance(participant):
    channels = participant.channels(participant.sessions[0])
    rng = np.random.default_rng(0)
    draws = np.stack([channels.draw_common_noise(60, rng) for _ in range(3000)])
    np.testing.assert_allclose(draws.std(axis=0), 1, atol=0.06)


def test_the_statistics_of_the_real_trial_are_met():
    config = replace(PRESETS["t12-like"], num_sessions=1, train_sentences=10, val_sentences=0, test_sentences=0)
    figures = []
    for seed in range(4):
        features = np.concatenate([trial.features for trial in SimulatedParticipant(config, seed).trials()])
        active = features[:, :64].std(axis=0) > 0
        counts, log_power = features[:, :64][:, active], np.log(features[:, 64:][:, active])
        same = [np.corrcoef(a, b)[0, 1] for a, b in zip(np.log1p(counts).T, log_power.T)]
        rates = counts.mean(axis=0)
        fano = counts.var(axis=0) / rates
        figures.append((np.mean(same), np.median(rates), (counts == 0).mean(), np.median(fano)))
    correlation, rate, silent, fano = np.mean(figures, axis=0)
    # Figures of the real trial; tests/fixtures/t12_neural_trial.
    assert correlation == pytest.approx(0.48, abs=0.03)
    assert rate == pytest.approx(0.57, abs=0.08)
    assert silent == pytest.approx(0.575, abs=0.04)
    assert fano == pytest.approx(1.02, abs=0.1)


def test_imagined_speech_is_weaker_and_shifted_in_the_same_electrodes():
    imagined = replace(SMALL, task="imagined_speech", sentences_source="fifty_words")
    a = SimulatedParticipant(SMALL, seed=2).channels("sim.2024.01.05").tuning
    participant = SimulatedParticipant(imagined, seed=2)
    b = participant.channels("sim.2024.01.05").tuning
    assert np.linalg.norm(b) < 0.6 * np.linalg.norm(a)
    assert 0.5 < np.corrcoef(a.ravel(), b.ravel())[0, 1] < 0.98
    assert {word for text in participant.sentences("train") for word in text.split()} <= set(FIFTY_WORDS)


@pytest.mark.parametrize(
    ("task", "species"), [("reaching", "macaque"), ("handwriting", "human"), ("reaching", "human")]
)
def test_movements_have_no_labels(task, species):
    participant = SimulatedParticipant(replace(SMALL, task=task, species=species, areas=("M1", "PMd")))
    trial = next(participant.trials())
    assert trial.text is None and trial.phonemes is None and len(trial.phone_ids) == 0
    assert trial.features.shape[1] == 32
    with pytest.raises(ValueError, match="no sentences"):
        participant.sentences("train")


def test_another_species_has_other_electrodes():
    human, macaque = (
        SimulatedParticipant(replace(SMALL, task="reaching", species=species)).channels("sim.2024.01.05").tuning
        for species in ("human", "macaque")
    )
    assert abs(np.corrcoef(human.ravel(), macaque.ravel())[0, 1]) < 0.3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "singing"}, "singing"),
        ({"species": "cat"}, "cat"),
        ({"species": "macaque"}, "macaque"),
        ({"sentences_source": "web"}, "web"),
        ({"num_electrodes": 10, "areas": ("a", "b", "c")}, "10 electrodes"),
        ({"tuning_gain": -1.0}, "tuning_gain=-1.0"),
        ({"max_words": 1}, "max_words=1"),
        ({"common_variance_shares": (1.0,)}, "common_variance_shares"),
    ],
)
def test_a_wrong_number_is_named(change, message):
    with pytest.raises(ValueError, match=message):
        SimulationConfig(**change)


def test_wrong_names_are_refused(participant):
    with pytest.raises(ValueError, match="no preset 'demmo'"):
        SimulatedParticipant("demmo")
    with pytest.raises(ValueError, match="no split 'dev'"):
        next(participant.trials("dev"))
    with pytest.raises(ValueError, match="no session 'x'"):
        next(participant.trials(session_id="x"))
    with pytest.raises(ValueError, match="no trial 99"):
        participant.trial(participant.sessions[0], 1, 99)
    with pytest.raises(ValueError, match="no sentence list 'books'"):
        load_sentences("books")
    with pytest.raises(ValueError, match="usable ones"):
        SimulatedParticipant(replace(SMALL, train_sentences=1_000_000)).sentences("train")


def test_all_sentence_lists_are_there():
    sizes = {source: len(load_sentences(source)) for source in ("t12", "t15", "tatoeba", "read_speech")}
    assert sizes == {"t12": 8800, "t15": 8072, "tatoeba": 69241, "read_speech": 47187}


def test_what_cannot_be_pronounced_is_left_out():
    assert pronounce("Hello, world!") == ["HH", "AH", "L", "OW", "SIL", "W", "ER", "L", "D", "SIL"]
    assert pronounce("don't well-known") == ["D", "OW", "N", "T", "SIL", "W", "EH", "L", "SIL", "N", "OW", "N", "SIL"]
    assert pronounce("xqzzt") is None
    assert pronounce("it is 5 o'clock") is None
    assert pronounce("?!") is None
