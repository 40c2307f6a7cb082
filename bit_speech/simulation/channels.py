"""What the electrodes record: tuning to the latents, noise, drift, and the exact likelihood of a recording."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .articulation import NUM_PHONES, SIL_STATE, articulatory_targets
from .configuration import SPECIES, SimulationConfig

# Drift within a day: slow sines of the session's progress (cycles per session).
_DRIFT_CYCLES = np.array([0.25, 0.6, 1.3])
# Rows of the log-gamma table: counts above this do not occur at any rate a cortical electrode reaches in 20 ms.
_MAX_TABULATED_COUNT = 400
_LOG_FACTORIAL = np.array([math.lgamma(count + 1) for count in range(_MAX_TABULATED_COUNT)])


@dataclass(frozen=True)
class SessionChannels:
    """True channel parameters of one session.

    Args:
        tuning (`np.ndarray` of shape `(E, K)`): change of the log rate per unit of each latent.
        state_log_rates (`np.ndarray` of shape `(42, E)`): float32, log rate of each state's target above the mean.
        baseline (`np.ndarray` of shape `(E,)`): log of the expected crossings per bin at the mean of the latents.
        drift_weights (`np.ndarray` of shape `(E, 3)`): slow change of the baseline within the session.
        drift_phases (`np.ndarray` of shape `(E, 3)`): phases of it, in radians.
        noise_rate_loading (`np.ndarray` of shape `(E, Q)`): common noise on the log rate.
        noise_power_loading (`np.ndarray` of shape `(E, Q)`): common noise on the standardised log power.
        noise_memory (`np.ndarray` of shape `(Q,)`): autoregression coefficient of each common source, per bin.
        power_log_mean (`np.ndarray` of shape `(E,)`): mean of the log power.
        burstiness (`np.ndarray` of shape `(E,)`): excess count variance as a share of the squared mean.
        dead (`np.ndarray` of shape `(E,)`): bool, electrodes that record nothing.
        max_count (`float`): saturation of the expected crossings per bin.
        power_log_sd (`float`): unit of the standardised log power.
        power_tuning (`float`): standardised log power per unit of log rate.
        power_count_weight (`float`): standardised log power per standard deviation of the count.
    """

    tuning: np.ndarray
    state_log_rates: np.ndarray
    baseline: np.ndarray
    drift_weights: np.ndarray
    drift_phases: np.ndarray
    noise_rate_loading: np.ndarray
    noise_power_loading: np.ndarray
    noise_memory: np.ndarray
    power_log_mean: np.ndarray
    burstiness: np.ndarray
    dead: np.ndarray
    max_count: float
    power_log_sd: float
    power_tuning: float
    power_count_weight: float

    @property
    def num_electrodes(self) -> int:
        """Electrodes (`int`)."""
        return len(self.baseline)

    def within_session_drift(self, progress: float) -> np.ndarray:
        """Give the change of the baseline at a moment of the session.

        Args:
            progress (`float`): 0 at the start of the session, 1 at its end.

        Returns:
            `np.ndarray` of shape `(E,)`: to be added to the log rate.
        """
        waves = np.sin(2 * np.pi * _DRIFT_CYCLES * progress + self.drift_phases)
        return (self.drift_weights * waves).sum(axis=1)

    def draw_common_noise(self, num_bins: int, rng: np.random.Generator) -> np.ndarray:
        """Draw the noise that electrodes share: smooth and stationary, of unit variance.

        Args:
            num_bins (`int`): length of the trial.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `np.ndarray` of shape `(T, Q)`: float64. Two first-order autoregressions in series make each source; its
            correlation falls to a half within 1.7 time constants, flat at first as in the real trial.
        """
        memory = self.noise_memory
        innovations = rng.standard_normal((num_bins + 1, len(memory)))
        variance = 1 / (1 - memory**2)
        # First bin from the stationary law: `inner` is the first autoregression, `outer` the second, which it drives.
        covariance = variance / (1 - memory**2)
        outer_variance = variance * (1 + memory**2) / (1 - memory**2) ** 2
        inner = np.sqrt(variance) * innovations[0]
        residual_sd = np.sqrt(outer_variance - covariance**2 / variance)
        outer = covariance / variance * inner + residual_sd * innovations[num_bins]
        noise = np.empty((num_bins, len(memory)))
        noise[0] = outer
        for now in range(1, num_bins):
            inner = memory * inner + innovations[now]
            outer = memory * outer + inner
            noise[now] = outer
        return noise / np.sqrt(outer_variance)

    def mean_counts(self, log_rates: np.ndarray) -> np.ndarray:
        """Turn log rates into expected crossings, saturating because a neuron is refractory.

        Args:
            log_rates (`np.ndarray`): log of the crossings per bin without saturation.

        Returns:
            `np.ndarray`: expected crossings per bin, below `max_count`.
        """
        rates = np.exp(log_rates)
        return rates / (1 + rates / self.max_count)

    def draw_features(
        self, tuned: np.ndarray, baseline: np.ndarray, common: np.ndarray, rng: np.random.Generator
    ) -> np.ndarray:
        """Draw a recording given everything that drives it.

        Args:
            tuned (`np.ndarray` of shape `(T, E)`): log-rate modulation by the task.
            baseline (`np.ndarray` of shape `(E,)`): log rate without it in this trial.
            common (`np.ndarray` of shape `(T, Q)`): common noise.
            rng (`np.random.Generator`): source of randomness.

        Returns:
            `np.ndarray` of shape `(T, 2 E)`: float32, counts then power.
        """
        num_bins, electrodes = tuned.shape
        log_rates = tuned + (baseline + common @ self.noise_rate_loading.T).astype(np.float32)
        means = self.mean_counts(log_rates)
        burstiness = np.maximum(self.burstiness, 1e-9)
        gains = rng.standard_gamma(1 / burstiness, size=(num_bins, electrodes)) * burstiness
        counts = rng.poisson(means * gains)
        log_power = self._log_power_mean(tuned, counts, means, baseline, common)
        noise = rng.standard_normal((num_bins, electrodes), dtype=np.float32)
        log_power += (self.power_log_sd * math.sqrt(1 - self.power_count_weight**2)) * noise
        features = np.empty((num_bins, 2 * electrodes), dtype=np.float32)
        features[:, :electrodes] = counts
        features[:, electrodes:] = np.exp(log_power)
        features[:, np.concatenate([self.dead, self.dead])] = 0
        return features

    def _log_power_mean(
        self, tuned: np.ndarray, counts: np.ndarray, means: np.ndarray, baseline: np.ndarray, common: np.ndarray
    ) -> np.ndarray:
        residuals = (counts - means) / np.sqrt(means + self.burstiness * means**2)
        shared = common @ self.noise_power_loading.T + (baseline - self.baseline)
        standardised = self.power_tuning * tuned + self.power_count_weight * residuals + shared
        return self.power_log_mean + self.power_log_sd * standardised

    def log_likelihood(
        self, tuned: np.ndarray, features: np.ndarray, baseline: np.ndarray, common: np.ndarray
    ) -> np.ndarray:
        """Give the exact log-likelihood of each electrode's count and power, given the truth about everything else.

        Args:
            tuned (`np.ndarray` of shape `(..., E)` that broadcasts with `(T, E)`): assumed log-rate modulation.
            features (`np.ndarray` of shape `(T, 2 E)`): the recording, raw.
            baseline (`np.ndarray` of shape `(E,)`): true log rate without the task.
            common (`np.ndarray` of shape `(T, Q)`): true common noise.

        Returns:
            `np.ndarray` of shape `(..., T, E)`: natural logarithm of P(count) p(log power | count); 0 for dead
            electrodes.
        """
        electrodes = self.num_electrodes
        counts = features[:, :electrodes].astype(np.float64)
        log_power = np.log(np.maximum(features[:, electrodes:], 1e-30).astype(np.float64))
        means = self.mean_counts(tuned + (baseline + common @ self.noise_rate_loading.T))
        shape = 1 / np.maximum(self.burstiness, 1e-9)
        sizes = counts.astype(np.int64)
        # log Gamma(n + k) - log Gamma(k) is the sum of log(k + i) below n: exact for any k, and it needs no special
        # function.
        rising = np.zeros_like(counts)
        for step in range(int(sizes.max(initial=0))):
            rising += np.where(sizes > step, np.log(shape + step), 0.0)
        constant = rising - _LOG_FACTORIAL[np.minimum(sizes, _MAX_TABULATED_COUNT - 1)]
        log_count = constant + counts * (np.log(means) - np.log(shape + means)) - shape * np.log1p(means / shape)
        sd = self.power_log_sd * math.sqrt(1 - self.power_count_weight**2)
        error = (log_power - self._log_power_mean(tuned, counts, means, baseline, common)) / sd
        log_density = -0.5 * error**2 - math.log(sd * math.sqrt(2 * math.pi))
        return np.where(self.dead, 0.0, log_count + log_density)


def _electrode_field(config: SimulationConfig) -> np.ndarray:
    """Factor (E, E) that makes white noise spatially smooth within each array."""
    per_area = config.num_electrodes // len(config.areas)
    side = math.ceil(math.sqrt(per_area))
    places = np.array([divmod(index, side) for index in range(per_area)], dtype=float)
    distance = np.linalg.norm(places[:, None] - places[None], axis=-1)
    smooth = np.exp(-0.5 * (distance / max(config.tuning_smoothness_electrodes, 1e-3)) ** 2)
    factor = np.linalg.cholesky(0.6 * smooth + 0.4 * np.eye(per_area))
    return np.kron(np.eye(len(config.areas)), factor)


def _tuning_of(field: np.ndarray, gains: np.ndarray, covariance: np.ndarray, sparsity: float) -> np.ndarray:
    """Sparse tuning (E, K) whose effect over phones has standard deviation `gains`."""
    sparse = np.sign(field) * np.maximum(np.abs(field) - sparsity, 0.0)
    effect = np.sqrt(np.einsum("ek,kl,el->e", sparse, covariance, sparse))
    return sparse * (gains / np.maximum(effect, 1e-6))[:, None]


def build_sessions(config: SimulationConfig, seed: int) -> list[SessionChannels]:
    """Draw the electrodes of a participant and let them drift over the sessions.

    Args:
        config (`SimulationConfig`): the numbers.
        seed (`int`): the participant; the same seed has the same electrodes in every task.

    Returns:
        `list[SessionChannels]`: one per session.
    """
    rng = np.random.default_rng([seed, 3, SPECIES.index(config.species)])
    electrodes = config.num_electrodes
    targets = articulatory_targets()
    weights = np.append(np.full(NUM_PHONES, 0.85 / NUM_PHONES), 0.15)
    typical = targets[: SIL_STATE + 1]
    center = weights @ typical
    covariance = (typical - center).T @ (weights[:, None] * (typical - center))
    smooth = _electrode_field(config)
    num_latents = targets.shape[1]

    field = smooth @ rng.standard_normal((electrodes, num_latents))
    imagined = smooth @ rng.standard_normal((electrodes, num_latents))
    quality = config.electrode_quality_sd * rng.standard_normal(electrodes)
    bins_per_s = 1000 / config.bin_size_ms
    baseline = math.log(config.mean_rate_hz / bins_per_s) + config.rate_spread * rng.standard_normal(electrodes)
    sources = len(config.common_time_constants_ms)
    loading = 0.5 + math.sqrt(0.75) * rng.standard_normal((electrodes, sources))
    power_loading = 0.5 * loading + math.sqrt(0.75) * (
        0.5 + math.sqrt(0.75) * rng.standard_normal((electrodes, sources))
    )
    power_log_mean = math.log(40.0) + 0.5 * rng.standard_normal(electrodes)
    order = rng.permutation(electrodes)
    num_dead = round(config.dead_electrode_share * electrodes)
    num_noisy = round(config.noisy_electrode_share * electrodes)
    dead, noisy = np.zeros(electrodes, dtype=bool), np.zeros(electrodes, dtype=bool)
    dead[order[:num_dead]] = True
    noisy[order[num_dead : num_dead + num_noisy]] = True

    sessions = []
    drift = config.tuning_drift_per_session
    gain_walk, baseline_walk = np.zeros(electrodes), np.zeros(electrodes)
    for index in range(config.num_sessions):
        steps = np.random.default_rng([seed, 4, SPECIES.index(config.species), index])
        fresh = smooth @ steps.standard_normal((electrodes, num_latents))
        gain_step, baseline_step = steps.standard_normal((2, electrodes))
        drift_weights = steps.standard_normal((electrodes, len(_DRIFT_CYCLES))) / math.sqrt(len(_DRIFT_CYCLES) / 2)
        phases = steps.uniform(0, 2 * np.pi, (electrodes, len(_DRIFT_CYCLES)))
        if index:
            field = math.sqrt(1 - drift**2) * field + drift * fresh
            gain_walk = gain_walk + config.gain_drift_per_session * gain_step
            baseline_walk = baseline_walk + config.baseline_drift_per_session * baseline_step
        gains = config.tuning_gain * np.exp(quality + gain_walk)
        used = field
        if config.task == "imagined_speech":
            turn = config.imagined_rotation
            gains = gains * config.imagined_gain
            used = math.sqrt(1 - turn**2) * field + turn * imagined
        tuning = _tuning_of(used, gains, covariance, config.tuning_sparsity)
        tuning[dead | noisy] = 0
        per_source = np.sqrt(np.asarray(config.common_variance_shares, dtype=float))
        sessions.append(
            SessionChannels(
                tuning=tuning,
                state_log_rates=((targets - center) @ tuning.T).astype(np.float32),
                baseline=baseline + baseline_walk,
                drift_weights=config.baseline_drift_within_session * drift_weights,
                drift_phases=phases,
                noise_rate_loading=config.common_rate_sd * per_source * loading * np.where(noisy, 3.0, 1.0)[:, None],
                noise_power_loading=config.common_power_sd * per_source * power_loading,
                noise_memory=np.exp(-config.bin_size_ms / np.asarray(config.common_time_constants_ms, dtype=float)),
                power_log_mean=power_log_mean,
                burstiness=np.where(noisy, config.burstiness + 0.5, config.burstiness),
                dead=dead,
                max_count=config.max_rate_hz / bins_per_s,
                power_log_sd=config.power_log_sd,
                power_tuning=config.power_tuning,
                power_count_weight=config.power_count_weight,
            )
        )
    return sessions
