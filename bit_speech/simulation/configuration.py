"""Every number of a simulated participant, and the presets."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import MappingProxyType

from .text import SENTENCE_SOURCES

SIMULATOR_VERSION = "1"
"""Changes whenever the same configuration and seed would give other data, or a preset's numbers change."""

SPEECH_TASKS = ("attempted_speech", "imagined_speech")
MOVEMENT_TASKS = ("reaching", "handwriting")
SPECIES = ("human", "macaque")


@dataclass(frozen=True)
class SimulationConfig:
    """Every parameter of a simulated participant; a unit is part of the name.

    Args:
        participant_id (`str`): name of the participant; session names start with it.
        task (`str`): `"attempted_speech"`, `"imagined_speech"`, `"reaching"` or `"handwriting"`.
        species (`str`): `"human"` or `"macaque"` (movement tasks only for the latter).
        sentences_source (`str`): name of a list of `load_sentences`.
        min_words (`int`): shortest sentence.
        max_words (`int`): longest sentence.
        train_sentences (`int`): sentences of the training split over all sessions.
        val_sentences (`int`): sentences of the validation split.
        test_sentences (`int`): sentences of the held-out test split.
        sentences_per_block (`int`): sentences until the next block starts; a block belongs to one split.
        num_sessions (`int`): recording days.
        days_between_sessions (`int`): calendar distance of two sessions.
        num_electrodes (`int`): electrodes; every one gives a threshold-crossing and a spike-band-power channel.
        areas (`tuple[str, ...]`): areas that share the electrodes equally, in electrode order.
        bin_size_ms (`float`): width of a bin.
        phone_duration_ms (`float`): mean duration of the average phone.
        phone_duration_shape (`float`): regularity of durations (negative binomial shape).
        min_phone_bins (`int`): no phone is shorter.
        pause_ms (`float`): mean of a long pause between words.
        short_pause_probability (`float`): share of word boundaries with a pause of 2-4 bins only.
        lead_silence_ms (`float`): mean silence before speech.
        trail_silence_ms (`float`): mean silence after speech.
        transient_bins (`int`): bins over which a phone still carries the previous one (coarticulation).
        tuning_gain (`float`): standard deviation of the log rate of a typical electrode over phones: the knob of the
            signal-to-noise ratio.
        tuning_sparsity (`float`): threshold below which the tuning to a latent is zero, in standard deviations.
        tuning_smoothness_electrodes (`float`): distance over which tuning is similar on the array grid, in electrodes.
        electrode_quality_sd (`float`): spread of the log of the electrodes' gains.
        mean_rate_hz (`float`): median rate of threshold crossings.
        rate_spread (`float`): standard deviation of the electrodes' log rates.
        max_rate_hz (`float`): refractoriness: the rate at which an electrode saturates.
        burstiness (`float`): excess of the count variance over Poisson, as a share of the squared mean.
        dead_electrode_share (`float`): electrodes that record nothing (both channels zero).
        noisy_electrode_share (`float`): electrodes whose rate has nothing to do with the task.
        common_time_constants_ms (`tuple[float, ...]`): one common-mode noise source each.
        common_variance_shares (`tuple[float, ...]`): how much of the common noise each source brings; they add up to 1.
        common_rate_sd (`float`): typical effect of all common noise on the log rate.
        common_power_sd (`float`): the same on the standardised log power.
        power_tuning (`float`): how many times stronger the standardised log power follows the log rate.
        power_count_weight (`float`): how much the standardised log power follows the count of the same bin.
        power_log_sd (`float`): standard deviation of the noise of the log power, all of it.
        tuning_drift_per_session (`float`): share of tuning replaced from one session to the next (0 = never, 1 = all).
        gain_drift_per_session (`float`): standard deviation of the step of the log gain of an electrode.
        baseline_drift_per_session (`float`): standard deviation of the step of the log rate of an electrode.
        baseline_drift_within_session (`float`): standard deviation of the slow change of the log rate within a day.
        imagined_gain (`float`): size of imagined relative to attempted speech.
        imagined_rotation (`float`): share of tuning that imagining replaces.
        movement_trial_s (`float`): mean duration of a trial of a movement task.
    """

    participant_id: str = "sim"
    task: str = "attempted_speech"
    species: str = "human"
    sentences_source: str = "tatoeba"
    min_words: int = 2
    max_words: int = 7
    train_sentences: int = 3000
    val_sentences: int = 100
    test_sentences: int = 200
    sentences_per_block: int = 40
    num_sessions: int = 4
    days_between_sessions: int = 3
    num_electrodes: int = 64
    areas: tuple[str, ...] = ("ventral_6v",)
    bin_size_ms: float = 20.0
    phone_duration_ms: float = 130.0
    phone_duration_shape: float = 3.0
    min_phone_bins: int = 3
    pause_ms: float = 180.0
    short_pause_probability: float = 0.4
    lead_silence_ms: float = 300.0
    trail_silence_ms: float = 250.0
    transient_bins: int = 5
    tuning_gain: float = 0.3
    tuning_sparsity: float = 0.7
    tuning_smoothness_electrodes: float = 1.0
    electrode_quality_sd: float = 0.4
    mean_rate_hz: float = 28.0
    rate_spread: float = 0.4
    max_rate_hz: float = 400.0
    burstiness: float = 0.02
    dead_electrode_share: float = 0.03
    noisy_electrode_share: float = 0.06
    common_time_constants_ms: tuple[float, ...] = (60.0, 200.0, 500.0)
    common_variance_shares: tuple[float, ...] = (0.25, 0.5, 0.25)
    common_rate_sd: float = 0.2
    common_power_sd: float = 0.27
    power_tuning: float = 1.0
    power_count_weight: float = 0.46
    power_log_sd: float = 0.3
    tuning_drift_per_session: float = 0.05
    gain_drift_per_session: float = 0.05
    baseline_drift_per_session: float = 0.1
    baseline_drift_within_session: float = 0.1
    imagined_gain: float = 0.4
    imagined_rotation: float = 0.5
    movement_trial_s: float = 4.0

    def __post_init__(self) -> None:
        """Refuse values that make no participant."""
        if self.task not in SPEECH_TASKS + MOVEMENT_TASKS:
            raise ValueError(f"no task {self.task!r}; choose one of {', '.join(SPEECH_TASKS + MOVEMENT_TASKS)}")
        if self.species not in SPECIES:
            raise ValueError(f"no species {self.species!r}; choose one of {', '.join(SPECIES)}")
        if self.species != "human" and self.task in SPEECH_TASKS:
            raise ValueError(
                f"a {self.species} does not do task {self.task!r}; choose one of {', '.join(MOVEMENT_TASKS)}"
            )
        if self.sentences_source not in (*SENTENCE_SOURCES, "fifty_words"):
            raise ValueError(
                f"no sentence list {self.sentences_source!r}; choose one of {', '.join(SENTENCE_SOURCES)}, fifty_words"
            )
        at_least_one = ("train_sentences", "num_sessions", "num_electrodes", "sentences_per_block", "min_words",
                        "days_between_sessions", "min_phone_bins", "transient_bins")  # fmt: skip
        for name in at_least_one:
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        not_negative = (
            "val_sentences",
            "test_sentences",
            "tuning_gain",
            "burstiness",
            "power_log_sd",
            "common_rate_sd",
        )
        for name in not_negative:
            if getattr(self, name) < 0:
                raise ValueError(f"{name}={getattr(self, name)} must not be negative")
        if self.max_words < self.min_words:
            raise ValueError(f"max_words={self.max_words} is below min_words={self.min_words}")
        if not self.areas or self.num_electrodes % len(self.areas):
            raise ValueError(
                f"{self.num_electrodes} electrodes do not divide into the {len(self.areas)} areas {self.areas}"
            )
        if not 0 <= self.tuning_drift_per_session <= 1:
            raise ValueError(f"tuning_drift_per_session={self.tuning_drift_per_session} must lie between 0 and 1")
        if len(self.common_variance_shares) != len(self.common_time_constants_ms):
            raise ValueError(
                f"{len(self.common_variance_shares)} common_variance_shares for {len(self.common_time_constants_ms)} "
                "common_time_constants_ms: give one share to each source"
            )
        if self.dead_electrode_share + self.noisy_electrode_share >= 1:
            raise ValueError("dead_electrode_share and noisy_electrode_share leave no working electrode")

    @property
    def num_channels(self) -> int:
        """Feature channels: crossings and power of every electrode (`int`)."""
        return 2 * self.num_electrodes


_DEMO = SimulationConfig()
_T12 = replace(
    _DEMO,
    participant_id="t12like",
    sentences_source="t12",
    max_words=18,
    train_sentences=800,
    val_sentences=100,
    test_sentences=200,
    num_sessions=5,
    areas=("superior_6v", "inferior_6v"),
    phone_duration_ms=190.0,
    phone_duration_shape=2.5,
    pause_ms=300.0,
    short_pause_probability=0.5,
    lead_silence_ms=500.0,
    trail_silence_ms=400.0,
    tuning_gain=0.29,
    common_time_constants_ms=(300.0, *(6 * (230.0,)), 60.0),
    common_variance_shares=(0.3, *(6 * (0.1,)), 0.1),
    common_rate_sd=0.28,
    common_power_sd=0.32,
    tuning_drift_per_session=0.1,
    baseline_drift_per_session=0.15,
)
_T15 = replace(
    _T12,
    participant_id="t15like",
    sentences_source="t15",
    train_sentences=700,
    max_words=6,
    areas=("ventral_6v", "area_4", "55b", "dorsal_6v"),
    phone_duration_ms=290.0,
    pause_ms=560.0,
    short_pause_probability=0.25,
    lead_silence_ms=600.0,
    trail_silence_ms=500.0,
    tuning_gain=0.38,
)
PRESETS = MappingProxyType({"demo": _DEMO, "t12-like": _T12, "t15-like": _T15})
"""Named configurations: `"demo"` (short trials, clear signals), `"t12-like"` (62 words a minute, weaker signals) and
`"t15-like"` (slower speech, longer trials, sentences of at most 6 words)."""
