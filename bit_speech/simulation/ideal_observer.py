"""The limit: decoding with the true parameters of the simulation."""

from __future__ import annotations

import numpy as np

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

from . import semi_markov
from .articulation import LEAD_STATE, NUM_PHONES, NUM_STATES, SIL_STATE, TRAIL_STATE
from .channels import SessionChannels
from .intracortical import SimulatedParticipant, SimulatedTrial

# States whose label is a class: phones 0-38 are classes 1-39, SIL 39 is class 40.
_LABELLED = NUM_PHONES + 1
_FLOOR = -600.0


def phone_trigrams(sentences: list[tuple[str, ...]]) -> np.ndarray:
    """Estimate which state follows which, from pronounced sentences.

    Args:
        sentences (`list` of `tuple[str, ...]`): phonemes with SIL after every word.

    Returns:
        `np.ndarray` of shape `(42, 42, 42)`: P(next | previous, current), interpolated with bigrams (Witten-Bell) and
        these with a floor over everything that the structure allows: speech starts with a phone and ends after SIL.
    """
    index = {phone: state for state, phone in enumerate(MODEL_ORDER[1:])}
    size = NUM_STATES
    codes: list[int] = []
    for phonemes in sentences:
        states = [LEAD_STATE, LEAD_STATE, *(index[phone] for phone in phonemes), TRAIL_STATE]
        codes += [(p * size + c) * size + n for p, c, n in zip(states, states[1:], states[2:])]
    counts = np.bincount(np.array(codes, dtype=np.int64), minlength=size**3).reshape(size, size, size).astype(float)
    allowed = np.zeros((NUM_STATES, NUM_STATES))
    allowed[:NUM_PHONES, : SIL_STATE + 1] = 1
    allowed[SIL_STATE, :NUM_PHONES] = 1
    allowed[SIL_STATE, TRAIL_STATE] = 1
    allowed[LEAD_STATE, :NUM_PHONES] = 1
    pairs = counts.sum(axis=0) + 0.1 * allowed
    bigrams = pairs / np.maximum(pairs.sum(axis=1, keepdims=True), 1e-30)
    kinds = (counts > 0).sum(axis=2, keepdims=True)
    totals = counts.sum(axis=2, keepdims=True)
    backed_off = np.broadcast_to(bigrams, counts.shape)
    return np.where(totals > 0, (counts + kinds * backed_off) / np.maximum(totals + kinds, 1), backed_off)


class IdealObserver:
    """Decodes a simulated participant with the true rates, tuning, drift, durations and common noise.

    Args:
        participant (`SimulatedParticipant`): a participant with a speech task.

    Raises:
        ValueError: when the task has no sentences.

    Note:
        Exact: emissions (negative binomial counts and log-normal power, both channels of every electrode, given the
        true state; evaluated as Chebyshev series in the log rate, error below 1e-3 nats a bin), coarticulation and
        durations.

        A gift that no decoder has: the true common noise, drift and baseline of the trial, which makes this a bound.

        An approximation: text enters as a phone trigram, estimated on all sentences that are not held out; a decoder
        that knows words can do better with the same neural evidence. `decode_given_boundaries` is the bound with the
        true alignment given as well.

    Example:
        >>> from dataclasses import replace
        >>> from bit_speech.simulation import PRESETS, SimulatedParticipant
        >>> tiny = replace(PRESETS["demo"], train_sentences=1, val_sentences=0, test_sentences=1, num_sessions=1)
        >>> participant = SimulatedParticipant(tiny)
        >>> observer = IdealObserver(participant)
        >>> observer.log_probs(next(participant.trials("test"))).shape[1]
        41
    """

    def __init__(self, participant: SimulatedParticipant) -> None:
        if not participant.has_text:
            raise ValueError(f"task {participant.config.task!r} has no phonemes to observe")
        self.participant = participant
        self.hazards = participant.duration_hazards
        self.transitions = phone_trigrams(participant._language_model_phonemes())
        self._carry_over = participant._carry_over
        self._basis_session: str | None = None
        self._basis = np.zeros((0, 0), dtype=np.float32)
        self._nodes = np.zeros((0, 0))

    def log_probs(self, trial: SimulatedTrial, window_bins: int | None = None) -> np.ndarray:
        """Give class probabilities per bin that decode like the output of a CTC network.

        Args:
            trial (`SimulatedTrial`): a trial of this participant.
            window_bins (`int`, *optional*): a label shows during the first bins of its segment, then blank; at most
                `transient_bins`. By default two fifths of a mean phone: slower speech has less certain onsets.

        Returns:
            `np.ndarray` of shape `(T, 41)`: float32 natural logarithms in model order (blank 0, AA..ZH 1-39, SIL 40),
            the posterior that the segment of that label is younger than the window. Each row sums to one.

        Raises:
            ValueError: when the window does not fit.
        """
        config = self.participant.config
        if window_bins is None:
            fitting = round(0.4 * config.phone_duration_ms / config.bin_size_ms)
            window_bins = max(1, min(fitting, config.transient_bins))
        if not 1 <= window_bins <= config.transient_bins:
            raise ValueError(f"window_bins={window_bins} must lie between 1 and {config.transient_bins}")
        posteriors, _ = self._posteriors(trial, window_bins)
        probabilities = np.empty((trial.num_bins, len(MODEL_ORDER)))
        probabilities[:, 1:] = posteriors[:, :_LABELLED]
        probabilities[:, 0] = 1 - probabilities[:, 1:].sum(axis=1)
        probabilities = np.clip(probabilities, 1e-12, 1.0)
        return np.log(probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)

    def log_likelihood(self, trial: SimulatedTrial) -> float:
        """Give the log-probability of a recording under the model, over all sentences and alignments.

        Args:
            trial (`SimulatedTrial`): a trial of this participant.

        Returns:
            `float`: natural logarithm.
        """
        return self._posteriors(trial, 1)[1]

    def decode(self, trial: SimulatedTrial) -> list[str]:
        """Give the most probable phoneme sequence with its segmentation (Viterbi).

        Args:
            trial (`SimulatedTrial`): a trial of this participant.

        Returns:
            `list[str]`: phonemes, SIL after every word.
        """
        young, old = self._emissions(trial)
        with np.errstate(divide="ignore"):
            log_hazards, log_survivals = np.log(self.hazards), np.log1p(-self.hazards)
            log_transitions = np.log(self.transitions)
        states, _, _ = semi_markov.viterbi(
            young, old, log_hazards, log_survivals, log_transitions, LEAD_STATE, TRAIL_STATE
        )
        return [MODEL_ORDER[state + 1] for state in states if state < _LABELLED]

    def decode_given_boundaries(self, trial: SimulatedTrial) -> list[str]:
        """Name each segment when its true boundaries are known.

        Args:
            trial (`SimulatedTrial`): a trial of this participant.

        Returns:
            `list[str]`: the most probable phoneme of each true segment, given the whole recording.
        """
        young, old = self._emissions(trial)
        onsets = [0, *trial.phone_onsets, trial.phone_offsets[-1]]
        ends = [*onsets[1:], trial.num_bins]
        transient = young.shape[3]
        with np.errstate(divide="ignore"):
            log_hazards = np.log(self.hazards)
            log_survivals = np.log1p(-self.hazards)
            log_transitions = np.log(self.transitions)
        scores = []
        for start, end in zip(onsets, ends, strict=True):
            ages = np.minimum(np.arange(end - start), self.hazards.shape[1] - 1)
            early = min(transient, end - start)
            score = sum(young[start + age, :, :, age] for age in range(early))  # (S, S) previous, current
            score = score + old[start + early : end].sum(axis=0)
            scores.append(score + log_survivals[:, ages[:-1]].sum(axis=1) + log_hazards[:, ages[-1]])
        only_lead = np.full((NUM_STATES, NUM_STATES), -np.inf)
        only_lead[LEAD_STATE, LEAD_STATE] = 0
        messages = [only_lead]
        for score in scores[1:]:
            messages.append(_log_sum(messages[-1][:, :, None] + log_transitions, axis=0) + score)
        last = np.full((NUM_STATES, NUM_STATES), -np.inf)
        last[:, TRAIL_STATE] = 0
        value, names = last, []
        for index in range(len(scores) - 1, 0, -1):
            posterior = _log_sum(messages[index] + value, axis=0)
            names.append(int(np.argmax(posterior)))
            value = _log_sum(log_transitions + (scores[index] + value)[None], axis=2)
        return [MODEL_ORDER[state + 1] for state in reversed(names) if state < _LABELLED]

    def _posteriors(self, trial: SimulatedTrial, window_bins: int) -> tuple[np.ndarray, float]:
        """P(current state, younger than the window | recording), (T, 42), and the log-likelihood."""
        young, old = self._emissions(trial)
        largest = np.maximum(young.max(axis=(1, 2, 3)), old.max(axis=1))
        young = np.exp(np.maximum(young - largest[:, None, None, None], _FLOOR))
        old = np.exp(np.maximum(old - largest[:, None], _FLOOR))
        kept, scales = semi_markov.forward(young, old, self.hazards, self.transitions, LEAD_STATE, window_bins)
        joint, end = semi_markov.backward(young, old, self.hazards, self.transitions, TRAIL_STATE, kept, scales)
        return joint / end, float(largest.sum() + np.log(scales).sum() + np.log(end))

    def _emissions(self, trial: SimulatedTrial) -> tuple[np.ndarray, np.ndarray]:
        """Log-likelihoods of every state in every bin: transient ages (T, S, S, A) and later ones (T, S)."""
        channels = self.participant.channels(trial.session_id)
        if self._basis_session != trial.session_id:
            self._prepare(channels)
            self._basis_session = trial.session_id
        used = self._used
        at_nodes = channels.log_likelihood(self._nodes[:, None], trial.features, trial.baseline, trial.common_noise)
        number = len(at_nodes)
        angles = np.pi * (np.arange(number) + 0.5) / number
        transform = np.cos(np.arange(number)[:, None] * angles) * (2 / number)
        transform[0] /= 2
        coefficients = np.tensordot(transform, at_nodes[..., used], axes=1)  # (K, T, E)
        coefficients = coefficients.transpose(1, 0, 2).reshape(trial.num_bins, -1).astype(np.float64)
        # The state-independent part is large and is added at the end in full precision.
        constant = coefficients[:, : used.sum()].sum(axis=1)
        series = coefficients[:, used.sum() :].astype(np.float32) @ self._basis
        scores = series.astype(np.float64) + constant[:, None]
        transient = self.participant.config.transient_bins
        split = NUM_STATES * NUM_STATES * transient
        young = scores[:, :split].reshape(trial.num_bins, NUM_STATES, NUM_STATES, transient)
        return np.ascontiguousarray(young), np.ascontiguousarray(scores[:, split:])

    def _prepare(self, channels: SessionChannels) -> None:
        """Chebyshev polynomials of every state's log rate, for the electrodes that are tuned."""
        targets = channels.state_log_rates.astype(np.float64)  # (S, E)
        reach = np.abs(targets).max(axis=0)
        self._used = reach > 0
        number = int(np.ceil(9 + 2 * reach.max(initial=0.0)))
        # Log rates of a transient lie between two targets, so within the reach of the targets.
        self._nodes = np.cos(np.pi * (np.arange(number) + 0.5) / number)[:, None] * reach
        share = self._carry_over[:-1]
        pairs = targets[None, :, None] + (targets[:, None, None] - targets[None, :, None]) * share[:, None]
        rates = np.concatenate([pairs.reshape(-1, len(reach)), targets])[:, self._used] / reach[self._used]
        angle = np.arccos(np.clip(rates, -1, 1)).astype(np.float32)
        basis = np.cos(np.arange(1, number, dtype=np.float32)[:, None] * angle[:, None, :])  # (states, K - 1, E)
        self._basis = np.ascontiguousarray(basis.reshape(len(rates), -1).T)


def _log_sum(values: np.ndarray, axis: int) -> np.ndarray:
    largest = np.max(values, axis=axis, keepdims=True)
    largest = np.where(np.isfinite(largest), largest, 0.0)
    with np.errstate(divide="ignore"):
        return np.log(np.exp(values - largest).sum(axis=axis)) + np.squeeze(largest, axis=axis)
