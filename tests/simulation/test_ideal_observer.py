"""Promises of the ideal observer: exact against enumeration, proper probabilities, a bound."""

from dataclasses import replace

import numpy as np
import pytest

from bit_speech.simulation import PRESETS, IdealObserver, SimulatedParticipant, semi_markov
from bit_speech.simulation.ideal_observer import phone_trigrams

TINY = replace(
    PRESETS["demo"], train_sentences=2, val_sentences=0, test_sentences=6, num_sessions=1, max_words=4, tuning_gain=0.5
)


@pytest.fixture(scope="module")
def observer() -> IdealObserver:
    return IdealObserver(SimulatedParticipant(TINY, seed=0))


@pytest.fixture(scope="module")
def trials(observer):
    return list(observer.participant.trials("test"))


def segmentations(num_bins: int, first: int, last: int, phones: range):
    """All (phones, starts) of `num_bins` bins that begin with `first` and end with the only `last`."""

    def extend(states, starts):
        for start in range(starts[-1] + 1, num_bins):
            yield [*states, last], [*starts, start]
            for phone in phones:
                yield from extend([*states, phone], [*starts, start])

    yield from extend([first], [0])


def tiny_model(seed: int):
    """Three phones between two silences, seen by three Poisson channels for six bins."""
    rng = np.random.default_rng(seed)
    size, transient, max_age, num_bins = 5, 2, 3, 6
    means = rng.gamma(2.0, 0.5, (size, 3))
    share = np.array([0.8, 0.3])
    pairs = means[None, :, None] + (means[:, None, None] - means[None, :, None]) * share[:, None]
    counts = rng.poisson(1.0, (num_bins, 1, 3))

    def likelihood(rates):
        factorials = np.array([1, 1, 2, 6, 24, 120, 720, 5040])
        return (rates**counts * np.exp(-rates) / factorials[counts]).prod(axis=-1)

    young = likelihood(pairs.reshape(-1, 3)).reshape(num_bins, size, size, transient)
    old = likelihood(means)
    hazards = rng.uniform(0.2, 0.9, (size, max_age))
    transitions = rng.dirichlet(np.ones(4), (size, size))  # to the three phones and the end
    transitions = np.concatenate([transitions[..., :3], np.zeros((size, size, 1)), transitions[..., 3:]], axis=-1)
    transitions[:, 4] = 0
    return young, old, hazards, transitions


def joint(states, starts, young, old, hazards, transitions) -> float:
    """Probability of one segmentation together with the recording, straight from the definition."""
    num_bins, transient, max_age = len(young), young.shape[3], hazards.shape[1]
    probability, before = 1.0, states[0]
    for index, (state, start) in enumerate(zip(states, starts)):
        if index:
            context = states[index - 2] if index > 1 else states[0]
            probability *= transitions[context, states[index - 1], state]
        end = starts[index + 1] if index + 1 < len(starts) else num_bins
        for age in range(end - start):
            seen = young[start + age, before, state, age] if age < transient else old[start + age, state]
            hazard = hazards[state, min(age, max_age - 1)]
            probability *= seen * (hazard if age == end - start - 1 else 1 - hazard)
        before = state
    return probability


@pytest.mark.parametrize("seed", range(3))
def test_forward_backward_and_viterbi_equal_enumeration(seed):
    young, old, hazards, transitions = tiny_model(seed)
    window, total, best = 2, 0.0, (0.0, None, None)
    expected = np.zeros((6, 5))
    for states, starts in segmentations(6, 3, 4, range(3)):
        probability = joint(states, starts, young, old, hazards, transitions)
        total += probability
        best = max(best, (probability, states, starts), key=lambda item: item[0])
        for state, start, end in zip(states, starts, [*starts[1:], 6]):
            for bin_index in range(start, min(end, start + window)):
                expected[bin_index, state] += probability
    kept, scales = semi_markov.forward(young, old, hazards, transitions, 3, window)
    found, end = semi_markov.backward(young, old, hazards, transitions, 4, kept, scales)
    assert np.log(scales).sum() + np.log(end) == pytest.approx(np.log(total), abs=1e-10)
    np.testing.assert_allclose(found / end, expected / total, atol=1e-12)
    with np.errstate(divide="ignore"):
        logs = [np.log(part) for part in (young, old, hazards, 1 - hazards, transitions)]
    phones, starts, score = semi_markov.viterbi(*logs, 3, 4)
    assert (phones.tolist(), starts.tolist()) == (best[1], best[2])
    assert score == pytest.approx(np.log(best[0]), abs=1e-10)


def test_emissions_equal_the_likelihood_of_every_state(observer, trials):
    trial = trials[0]
    channels = observer.participant.channels(trial.session_id)
    young, old = observer._emissions(trial)
    targets = channels.state_log_rates.astype(np.float64)
    for state in (0, 17, 39, 41):
        direct = channels.log_likelihood(targets[state], trial.features, trial.baseline, trial.common_noise)
        assert np.abs(direct[:, observer._used].sum(axis=1) - old[:, state]).max() < 1e-3
    mixed = targets[5] + (targets[30] - targets[5]) * observer._carry_over[2]
    direct = channels.log_likelihood(mixed, trial.features, trial.baseline, trial.common_noise)
    assert np.abs(direct[:, observer._used].sum(axis=1) - young[:, 30, 5, 2]).max() < 1e-3


def test_the_likelihood_of_counts_and_power_is_a_probability(observer):
    channels = observer.participant.channels(observer.participant.sessions[0])
    electrodes = channels.num_electrodes
    log_power = np.linspace(-6, 14, 2001)
    total = np.zeros(electrodes)
    for count in range(12):
        features = np.empty((len(log_power), 2 * electrodes))
        features[:, :electrodes] = count
        features[:, electrodes:] = np.exp(log_power)[:, None]
        tuned, common = np.full(electrodes, 0.3), np.full((len(log_power), 3), 0.5)
        density = np.exp(channels.log_likelihood(tuned, features, channels.baseline, common))
        total += density.sum(axis=0) * (log_power[1] - log_power[0])
    alive = ~channels.dead & (np.abs(channels.tuning).sum(axis=1) > 0)
    np.testing.assert_allclose(total[alive], 1, atol=1e-3)


def test_drawn_counts_have_the_stated_mean_and_variance(observer):
    channels = observer.participant.channels(observer.participant.sessions[0])
    zeros = np.zeros((20_000, channels.num_electrodes), dtype=np.float32)
    common = np.zeros((20_000, 3))
    features = channels.draw_features(zeros, channels.baseline, common, np.random.default_rng(0))
    counts = features[:, ~np.append(channels.dead, np.ones_like(channels.dead))]
    mean = channels.mean_counts(channels.baseline)[~channels.dead]
    np.testing.assert_allclose(counts.mean(axis=0), mean, rtol=0.06)
    variance = mean + channels.burstiness[~channels.dead] * mean**2
    np.testing.assert_allclose(counts.var(axis=0), variance, rtol=0.1)


def test_every_bin_is_a_distribution_in_model_order(observer, trials):
    log_probs = observer.log_probs(trials[0])
    assert log_probs.shape == (trials[0].num_bins, 41) and log_probs.dtype == np.float32
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1, atol=1e-5)
    assert log_probs[0].argmax() == 0


def test_clear_signals_are_read_without_error(observer, trials):
    for trial in trials:
        assert " ".join(observer.decode(trial)) == trial.phonemes
        best = observer.log_probs(trial).argmax(axis=1)
        collapsed = best[np.append(True, best[1:] != best[:-1])]
        assert collapsed[collapsed > 0].tolist() == trial.phone_ids.tolist()


def test_the_true_boundaries_help():
    participant = SimulatedParticipant(replace(TINY, tuning_gain=0.12), seed=0)
    observer = IdealObserver(participant)
    wrong = {"free": 0, "aligned": 0}
    for trial in participant.trials("test"):
        truth = trial.phonemes.split()
        aligned = observer.decode_given_boundaries(trial)
        assert len(aligned) == len(truth)
        wrong["aligned"] += sum(a != b for a, b in zip(truth, aligned))
        wrong["free"] += _edit_distance(truth, observer.decode(trial))
    assert 0 < wrong["aligned"] < wrong["free"]


def test_the_truth_explains_the_recording_better_than_another_trial_does(observer, trials):
    a, b = trials[:2]
    length = min(a.num_bins, b.num_bins)
    shuffled = replace(a, features=np.random.default_rng(0).permutation(a.features))
    assert observer.log_likelihood(a) > observer.log_likelihood(shuffled)
    assert length > 0


def test_trigrams_are_probabilities_that_respect_the_structure():
    transitions = phone_trigrams([("AA", "B", "SIL"), ("B", "AA", "SIL", "AA", "SIL")])
    sums = transitions.sum(axis=2)
    np.testing.assert_allclose(sums[:, :41], 1, atol=1e-9)
    assert transitions[:, 39, 39].max() == 0  # no silence after silence
    assert transitions[:, :39, 41].max() == 0  # speech ends after SIL only
    assert transitions[40, 40, 0] > transitions[40, 40, 1]  # seen beginnings are likelier


def test_a_window_that_does_not_fit_is_refused(observer, trials):
    with pytest.raises(ValueError, match="window_bins=9"):
        observer.log_probs(trials[0], window_bins=9)


def test_a_movement_cannot_be_observed():
    with pytest.raises(ValueError, match="reaching"):
        IdealObserver(SimulatedParticipant(replace(TINY, task="reaching")))


def _edit_distance(a: list[str], b: list[str]) -> int:
    row = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, y in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (x != y))
    return row[-1]
