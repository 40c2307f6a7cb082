"""Exact inference in an explicit-duration hidden Markov model over phones, compiled.

A state is (previous phone, current phone, age of the current phone). The emission of the first `A` ages depends on all
three, later ones on the current phone alone. A segment ends with a probability that depends on phone and age, the last
age standing for all later ones; the next phone depends on the current and the previous one.
"""

from __future__ import annotations

import numpy as np
from numba import njit

# Forward mass below this share of the total is dropped; it cannot reach the sixteenth digit of a posterior.
_NEGLIGIBLE = 1e-60
_BACKWARD_LIMIT = 1e250


@njit(cache=True, nogil=True)
def forward(
    young: np.ndarray, old: np.ndarray, hazards: np.ndarray, transitions: np.ndarray, first: int, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """Run the forward pass.

    Args:
        young (`np.ndarray` of shape `(T, S, S, A)`): likelihoods `[bin, previous, current, age]`, up to a factor per
            bin.
        old (`np.ndarray` of shape `(T, S)`): likelihoods of ages from `A` on, up to the same factor.
        hazards (`np.ndarray` of shape `(S, D)`): P(segment ends | phone, age), `D > A`.
        transitions (`np.ndarray` of shape `(S, S, S)`): P(next | previous, current).
        first (`int`): the phone of the first segment, which is also its own previous phone.
        window (`int`): number of ages whose forward probabilities are wanted, at most `A`.

    Returns:
        `np.ndarray` of shape `(T, S, S, window)`: P(state | bins so far) of the first ages.
        `np.ndarray` of shape `(T,)`: scale of each bin; the sum of logarithms, with the end's hazard, is the
        likelihood.
    """
    num_bins, size, _, num_young = young.shape
    num_ages = hazards.shape[1]
    kept = np.zeros((num_bins, size, size, window))
    scales = np.zeros(num_bins)
    mass = np.zeros((size, size, num_ages))
    alive = np.zeros((size, size), dtype=np.bool_)
    ending = np.zeros((size, size))
    entering = np.zeros((size, size))
    mass[first, first, 0] = young[0, first, first, 0]
    alive[first, first] = True
    for now in range(num_bins):
        if now > 0:
            ending[:] = 0.0
            for p in range(size):
                for c in range(size):
                    if alive[p, c]:
                        total = 0.0
                        for age in range(num_ages):
                            total += mass[p, c, age] * hazards[c, age]
                        ending[p, c] = total
            entering[:] = 0.0
            for p in range(size):
                for c in range(size):
                    if ending[p, c] > 0.0:
                        for n in range(size):
                            entering[c, n] += ending[p, c] * transitions[p, c, n]
            for p in range(size):
                for c in range(size):
                    if alive[p, c]:
                        last = num_ages - 1
                        stay = mass[p, c, last] * (1.0 - hazards[c, last])
                        mass[p, c, last] = (stay + mass[p, c, last - 1] * (1.0 - hazards[c, last - 1])) * old[now, c]
                        for age in range(last - 1, num_young - 1, -1):
                            mass[p, c, age] = mass[p, c, age - 1] * (1.0 - hazards[c, age - 1]) * old[now, c]
                        for age in range(num_young - 1, 0, -1):
                            mass[p, c, age] = mass[p, c, age - 1] * (1.0 - hazards[c, age - 1]) * young[now, p, c, age]
                    mass[p, c, 0] = entering[p, c] * young[now, p, c, 0]
                    if mass[p, c, 0] > 0.0:
                        alive[p, c] = True
        total = 0.0
        for p in range(size):
            for c in range(size):
                if alive[p, c]:
                    part = 0.0
                    for age in range(num_ages):
                        part += mass[p, c, age]
                    ending[p, c] = part
                    total += part
        scales[now] = total
        if total == 0.0:
            return kept, scales
        factor = 1.0 / total
        for p in range(size):
            for c in range(size):
                if alive[p, c]:
                    if ending[p, c] * factor < _NEGLIGIBLE:
                        mass[p, c, :] = 0.0
                        alive[p, c] = False
                    else:
                        for age in range(num_ages):
                            mass[p, c, age] *= factor
                        for age in range(window):
                            kept[now, p, c, age] = mass[p, c, age]
    return kept, scales


@njit(cache=True, nogil=True)
def backward(
    young: np.ndarray,
    old: np.ndarray,
    hazards: np.ndarray,
    transitions: np.ndarray,
    last_phone: int,
    kept: np.ndarray,
    scales: np.ndarray,
) -> tuple[np.ndarray, float]:
    """Run the backward pass and join it with the forward one.

    Args:
        young (`np.ndarray` of shape `(T, S, S, A)`): as for `forward`.
        old (`np.ndarray` of shape `(T, S)`): as for `forward`.
        hazards (`np.ndarray` of shape `(S, D)`): as for `forward`.
        transitions (`np.ndarray` of shape `(S, S, S)`): as for `forward`.
        last_phone (`int`): the phone with whose end the recording ends.
        kept (`np.ndarray` of shape `(T, S, S, W)`): from `forward`.
        scales (`np.ndarray` of shape `(T,)`): from `forward`.

    Returns:
        `np.ndarray` of shape `(T, S)`: joint of the whole recording and "the current phone is `s` and younger than W
        bins", divided by the scales.
        `float`: probability of the end given all bins, by which the former is divided to give posteriors.
    """
    num_bins, size, _, num_young = young.shape
    num_ages = hazards.shape[1]
    window = kept.shape[3]
    joint = np.zeros((num_bins, size))
    value = np.zeros((size, size, num_ages))
    leaving = np.zeros((size, size))
    for now in range(num_bins - 1, -1, -1):
        if now == num_bins - 1:
            for p in range(size):
                for age in range(num_ages):
                    value[p, last_phone, age] = hazards[last_phone, age]
        else:
            after = now + 1
            factor = 1.0 / scales[after]
            for c in range(size):
                for p in range(size):
                    leaving[p, c] = 0.0
                for n in range(size):
                    future = young[after, c, n, 0] * value[c, n, 0]
                    if future > 0.0:
                        for p in range(size):
                            leaving[p, c] += transitions[p, c, n] * future
            for p in range(size):
                for c in range(size):
                    leave = leaving[p, c] * factor
                    for age in range(num_young - 1):
                        stay = (1.0 - hazards[c, age]) * factor * young[after, p, c, age + 1] * value[p, c, age + 1]
                        value[p, c, age] = min(hazards[c, age] * leave + stay, _BACKWARD_LIMIT)
                    seen = factor * old[after, c]
                    for age in range(num_young - 1, num_ages - 1):
                        stay = (1.0 - hazards[c, age]) * seen * value[p, c, age + 1]
                        value[p, c, age] = min(hazards[c, age] * leave + stay, _BACKWARD_LIMIT)
                    stay = (1.0 - hazards[c, num_ages - 1]) * seen * value[p, c, num_ages - 1]
                    value[p, c, num_ages - 1] = min(hazards[c, num_ages - 1] * leave + stay, _BACKWARD_LIMIT)
        for p in range(size):
            for c in range(size):
                for age in range(window):
                    joint[now, c] += kept[now, p, c, age] * value[p, c, age]
    first_total = 0.0
    for p in range(size):
        for c in range(size):
            first_total += kept[0, p, c, 0] * value[p, c, 0]
    return joint, first_total


@njit(cache=True, nogil=True)
def viterbi(
    young: np.ndarray, old: np.ndarray, log_hazards: np.ndarray, log_survivals: np.ndarray, log_transitions: np.ndarray,
    first: int, last_phone: int,
) -> tuple[np.ndarray, np.ndarray, float]:  # fmt: skip
    """Find the most probable segmentation.

    Args:
        young (`np.ndarray` of shape `(T, S, S, A)`): log-likelihoods of the first ages.
        old (`np.ndarray` of shape `(T, S)`): log-likelihoods of later ages.
        log_hazards (`np.ndarray` of shape `(S, D)`): log P(segment ends | phone, age).
        log_survivals (`np.ndarray` of shape `(S, D)`): log P(segment goes on | phone, age).
        log_transitions (`np.ndarray` of shape `(S, S, S)`): log P(next | previous, current).
        first (`int`): phone of the first segment.
        last_phone (`int`): phone of the last segment.

    Returns:
        `np.ndarray` of shape `(L,)`: phones of the segments.
        `np.ndarray` of shape `(L,)`: their first bins.
        `float`: log joint probability of the recording and this segmentation.
    """
    num_bins, size, _, num_young = young.shape
    num_ages = log_hazards.shape[1]
    last = num_ages - 1
    score = np.full((size, size, num_ages), -np.inf)
    tail_start = np.zeros((size, size), dtype=np.int32)
    segment_start = np.zeros((num_bins, size, size), dtype=np.int32)
    before = np.zeros((num_bins, size, size), dtype=np.int16)
    ending = np.full((size, size), -np.inf)
    entering = np.full((size, size), -np.inf)
    score[first, first, 0] = young[0, first, first, 0]
    for now in range(num_bins):
        if now > 0:
            entering[:] = -np.inf
            for p in range(size):
                for c in range(size):
                    if ending[p, c] > -np.inf:
                        for n in range(size):
                            candidate = ending[p, c] + log_transitions[p, c, n]
                            if candidate > entering[c, n]:
                                entering[c, n] = candidate
                                before[now, c, n] = p
            for p in range(size):
                for c in range(size):
                    stay = score[p, c, last] + log_survivals[c, last]
                    arrive = score[p, c, last - 1] + log_survivals[c, last - 1]
                    if arrive > stay:
                        tail_start[p, c] = now - last
                    score[p, c, last] = max(stay, arrive) + old[now, c]
                    for age in range(last - 1, num_young - 1, -1):
                        score[p, c, age] = score[p, c, age - 1] + log_survivals[c, age - 1] + old[now, c]
                    for age in range(num_young - 1, 0, -1):
                        score[p, c, age] = score[p, c, age - 1] + log_survivals[c, age - 1] + young[now, p, c, age]
                    score[p, c, 0] = entering[p, c] + young[now, p, c, 0]
        for p in range(size):
            for c in range(size):
                best, best_age = -np.inf, 0
                for age in range(num_ages):
                    candidate = score[p, c, age] + log_hazards[c, age]
                    if candidate > best:
                        best, best_age = candidate, age
                ending[p, c] = best
                segment_start[now, p, c] = tail_start[p, c] if best_age == last else now - best_age
    phones = np.zeros(num_bins, dtype=np.int64)
    starts = np.zeros(num_bins, dtype=np.int64)
    p = 0
    for candidate in range(size):
        if ending[candidate, last_phone] > ending[p, last_phone]:
            p = candidate
    c, now, count = last_phone, num_bins - 1, 0
    best = ending[p, c]
    if best == -np.inf:
        return phones[:0], starts[:0], best
    while True:
        start = segment_start[now, p, c]
        phones[count], starts[count] = c, start
        count += 1
        if start <= 0:
            break
        earlier = before[start, p, c]
        now, c, p = start - 1, p, earlier
    return phones[:count][::-1].copy(), starts[:count][::-1].copy(), best
