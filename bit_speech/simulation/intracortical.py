"""Participants with intracortical arrays and known truth.

A sentence becomes phones with random durations; phones move articulatory latents towards their targets, each starting
from the previous phone's target (carry-over coarticulation); electrodes mix the latents into log rates; threshold
crossings are negative binomial with a saturating mean, and spike-band power is log-normal around the log rate and the
count of the same bin.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

from . import articulation
from .articulation import LEAD_STATE, TRAIL_STATE
from .channels import SessionChannels, build_sessions
from .configuration import MOVEMENT_TASKS, PRESETS, SIMULATOR_VERSION, SimulationConfig
from .movement import movement_latents
from .text import load_sentences, normalize_sentence, pronounce

SPLITS = ("train", "val", "test")
FIRST_SESSION = datetime.date(2024, 1, 5)
# CTC needs a frame for every label and one more between equal neighbours, for the paper's patches and for the GRU's.
CTC_FRAMINGS = ((5, 5), (14, 4))  # (patch, stride) in bins


@dataclass(frozen=True)
class SimulatedTrial:
    """One simulated trial with its truth.

    Args:
        participant_id (`str`): name of the participant.
        session_id (`str`): name of the session, such as `"sim.2024.01.05"`.
        block_index (`int`): block within the session, from 1.
        trial_index (`int`): trial within the block, from 0.
        split (`str`): `"train"`, `"val"` or `"test"`.
        text (`str` or `None`): the sentence, None for movement tasks.
        phonemes (`str` or `None`): its phonemes, separated by spaces, SIL after every word.
        features (`np.ndarray` of shape `(T, C)`): float32, raw: crossings (counts) of all electrodes, then spike-band
            power.
        phone_ids (`np.ndarray` of shape `(L,)`): the phonemes as ids in model order.
        phone_onsets (`np.ndarray` of shape `(L,)`): first bin of each.
        phone_offsets (`np.ndarray` of shape `(L,)`): first bin after each.
        common_noise (`np.ndarray` of shape `(T, Q)`): the true common-mode noise.
        baseline (`np.ndarray` of shape `(E,)`): the true log rate of each electrode at the latents' mean in this trial.
    """

    participant_id: str
    session_id: str
    block_index: int
    trial_index: int
    split: str
    text: str | None
    phonemes: str | None
    features: np.ndarray
    phone_ids: np.ndarray
    phone_onsets: np.ndarray
    phone_offsets: np.ndarray
    common_noise: np.ndarray
    baseline: np.ndarray

    @property
    def num_bins(self) -> int:
        """Bins of the trial (`int`)."""
        return len(self.features)


@cache
def _pronounced(source: str, min_words: int, max_words: int) -> list[tuple[str, tuple[str, ...] | None]]:
    """Distinct sentences of a length, each with its phonemes or None; kept, because it takes a second or two."""
    pool: dict[str, str] = {}
    for text in load_sentences(source):
        normalized = normalize_sentence(text)
        if normalized not in pool and min_words <= len(normalized.split()) <= max_words:
            pool[normalized] = text.replace("’", "'")
    pronounced: list[tuple[str, tuple[str, ...] | None]] = []
    for text in pool.values():
        phonemes = pronounce(text) if text.isascii() else None
        pronounced.append((text, None if phonemes is None else tuple(phonemes)))
    return pronounced


@dataclass(frozen=True)
class _Slot:
    """Place of one sentence in the recording."""

    session: int
    block_index: int
    trial_index: int
    split: str
    sentence: int  # within the split
    progress: float  # 0 at the start of the session, 1 at its end


class SimulatedParticipant:
    """A participant whose data can be made, trial by trial, from a configuration and a seed.

    Args:
        config (`SimulationConfig` or `str`): the numbers, or the name of one of `PRESETS`.
        seed (`int`): everything random follows from it.

    Raises:
        ValueError: when the preset does not exist or the sentence list is too short for the splits.

    Note:
        Sentences with a word outside CMUdict or with digits are skipped. The same seed gives the same test and
        validation sentences whatever the number of training sentences. In the rare trial whose durations leave fewer
        frames (patches of 5 bins, or of 14 with stride 4) than CTC needs for its labels, they are drawn again.

    Example:
        >>> from dataclasses import replace
        >>> tiny = replace(PRESETS["demo"], train_sentences=4, val_sentences=2, test_sentences=2, num_sessions=1)
        >>> participant = SimulatedParticipant(tiny, seed=1)
        >>> participant.sessions, sum(1 for _ in participant.trials())
        (['sim.2024.01.05'], 8)
    """

    version = SIMULATOR_VERSION

    def __init__(self, config: SimulationConfig | str = "demo", seed: int = 0) -> None:
        if isinstance(config, str):
            if config not in PRESETS:
                raise ValueError(f"no preset {config!r}; choose one of {', '.join(PRESETS)}")
            config = PRESETS[config]
        self.config = config
        self.seed = int(seed)
        step = datetime.timedelta(days=config.days_between_sessions)
        dates = [FIRST_SESSION + index * step for index in range(config.num_sessions)]
        self._session_names = [f"{config.participant_id}.{date:%Y.%m.%d}" for date in dates]
        self._channels = build_sessions(config, self.seed)

    @property
    def sessions(self) -> list[str]:
        """Names of the sessions in order of time (`list[str]`)."""
        return list(self._session_names)

    @property
    def feature_kinds(self) -> list[str]:
        """Kind of each feature channel (`list[str]` of length C)."""
        electrodes = self.config.num_electrodes
        return ["threshold_crossings"] * electrodes + ["spike_band_power"] * electrodes

    @property
    def channel_areas(self) -> list[str]:
        """Brain area of each feature channel (`list[str]` of length C)."""
        per_area = self.config.num_electrodes // len(self.config.areas)
        return 2 * [area for area in self.config.areas for _ in range(per_area)]

    @property
    def has_text(self) -> bool:
        """Whether the task has sentences (`bool`)."""
        return self.config.task not in MOVEMENT_TASKS

    @cached_property
    def _pool(self) -> list[tuple[str, tuple[str, ...]]]:
        """Distinct usable sentences of the source in random order, each with its phonemes."""
        config = self.config
        candidates = _pronounced(config.sentences_source, config.min_words, config.max_words)
        order = np.random.default_rng([self.seed, 1]).permutation(len(candidates))
        usable = []
        for index in order:
            text, phonemes = candidates[index]
            if phonemes is not None:
                usable.append((text, phonemes))
        needed = config.train_sentences + config.val_sentences + config.test_sentences
        if needed > len(usable):
            raise ValueError(
                f"{needed} sentences asked for, but {config.sentences_source!r} has {len(usable)} usable ones of "
                f"{config.min_words}-{config.max_words} words: lower train_sentences or choose another source"
            )
        return usable

    def _split_range(self, split: str) -> slice:
        config = self.config
        held_out = config.test_sentences + config.val_sentences
        if split == "test":
            return slice(0, config.test_sentences)
        if split == "val":
            return slice(config.test_sentences, held_out)
        if split == "train":
            return slice(held_out, held_out + config.train_sentences)
        raise ValueError(f"no split {split!r}; choose one of {', '.join(SPLITS)}")

    def sentences(self, split: str) -> list[str]:
        """Give the sentences of a split; no sentence is in two splits.

        Args:
            split (`str`): `"train"`, `"val"` or `"test"`.

        Returns:
            `list[str]`: in the order in which the trials of that split come.

        Raises:
            ValueError: when there is no such split, or the task has no sentences.
        """
        chosen = self._split_range(split)
        self._check_text("sentences")
        return [text for text, _ in self._pool[chosen]]

    def language_model_sentences(self) -> list[str]:
        """Give all usable sentences of the source that are in neither the validation nor the test split.

        Returns:
            `list[str]`: training sentences and those never attempted: text on which a language model may be trained.
        """
        self._check_text("sentences")
        return [text for text, _ in self._pool[self.config.test_sentences + self.config.val_sentences :]]

    def _language_model_phonemes(self) -> list[tuple[str, ...]]:
        return [phonemes for _, phonemes in self._pool[self.config.test_sentences + self.config.val_sentences :]]

    def _check_text(self, what: str) -> None:
        if not self.has_text:
            raise ValueError(f"task {self.config.task!r} has no {what}: it is a movement without labels")

    @cached_property
    def _slots(self) -> list[_Slot]:
        config = self.config
        counts = {"train": config.train_sentences, "val": config.val_sentences, "test": config.test_sentences}
        given = dict.fromkeys(SPLITS, 0)
        slots = []
        for session in range(config.num_sessions):
            block, places = 0, []
            for split in SPLITS:
                share = (
                    counts[split] * (session + 1) // config.num_sessions
                    - counts[split] * session // config.num_sessions
                )
                for number in range(share):
                    trial = number % config.sentences_per_block
                    block += trial == 0
                    places.append((block, trial, split, given[split]))
                    given[split] += 1
            for index, (block_index, trial, split, sentence) in enumerate(places):
                slots.append(_Slot(session, block_index, trial, split, sentence, index / max(len(places) - 1, 1)))
        return slots

    def num_trials(self, split: str | None = None) -> int:
        """Count the trials.

        Args:
            split (`str`, *optional*): only this split.

        Returns:
            `int`: trials over all sessions.
        """
        return len(self._chosen_slots(split))

    def _chosen_slots(self, split: str | None, session_id: str | None = None) -> list[_Slot]:
        if split is not None:
            self._split_range(split)
        if session_id is not None and session_id not in self._session_names:
            raise ValueError(f"no session {session_id!r}; this participant has {', '.join(self._session_names)}")
        return [
            slot
            for slot in self._slots
            if split in (None, slot.split) and session_id in (None, self._session_names[slot.session])
        ]

    def trials(self, split: str | None = None, session_id: str | None = None) -> Iterator[SimulatedTrial]:
        """Make the trials, one after the other; nothing is kept.

        Args:
            split (`str`, *optional*): only this split.
            session_id (`str`, *optional*): only this session.

        Yields:
            `SimulatedTrial`: in order of session, block and trial. A trial depends on the seed and its place alone, so
            it is the same whether or not others are made.

        Raises:
            ValueError: when there is no such split or session.
        """
        for slot in self._chosen_slots(split, session_id):
            yield self._make(slot)

    def trial(self, session_id: str, block_index: int, trial_index: int) -> SimulatedTrial:
        """Make one trial again.

        Args:
            session_id (`str`): name of the session.
            block_index (`int`): block within the session, from 1.
            trial_index (`int`): trial within the block, from 0.

        Returns:
            `SimulatedTrial`: equal to the one that `trials` gives.

        Raises:
            ValueError: when there is no such session or trial.
        """
        for slot in self._chosen_slots(None, session_id):
            if (slot.block_index, slot.trial_index) == (block_index, trial_index):
                return self._make(slot)
        raise ValueError(f"session {session_id!r} has no trial {trial_index} in block {block_index}")

    def channels(self, session_id: str) -> SessionChannels:
        """Give the true tuning of a session.

        Args:
            session_id (`str`): name of the session.

        Returns:
            `SessionChannels`: tuning, baselines and noise of every electrode on that day.

        Raises:
            ValueError: when there is no such session.
        """
        if session_id not in self._session_names:
            raise ValueError(f"no session {session_id!r}; this participant has {', '.join(self._session_names)}")
        return self._channels[self._session_names.index(session_id)]

    @cached_property
    def duration_hazards(self) -> np.ndarray:
        """The true duration model, see `articulation.duration_hazards` (`np.ndarray` of shape `(42, 40)`)."""
        config = self.config
        return articulation.duration_hazards(
            phone_duration_bins=config.phone_duration_ms / config.bin_size_ms,
            phone_duration_shape=config.phone_duration_shape,
            min_phone_bins=config.min_phone_bins,
            pause_bins=config.pause_ms / config.bin_size_ms,
            short_pause_probability=config.short_pause_probability,
            lead_silence_bins=config.lead_silence_ms / config.bin_size_ms,
            trail_silence_bins=config.trail_silence_ms / config.bin_size_ms,
        )

    @cached_property
    def _duration_cdf(self) -> np.ndarray:
        return articulation.duration_cdf(self.duration_hazards)

    @cached_property
    def _carry_over(self) -> np.ndarray:
        return articulation.carry_over(self.config.transient_bins)

    def _make(self, slot: _Slot) -> SimulatedTrial:
        rng = np.random.default_rng([self.seed, 2, slot.session, slot.block_index, slot.trial_index])
        session = self._channels[slot.session]
        if self.has_text:
            text, phonemes = self._pool[self._split_range(slot.split)][slot.sentence]
            ids = np.array([MODEL_ORDER.index(phone) for phone in phonemes], dtype=np.int64)
            durations = self._draw_durations(ids, rng)
            states = np.concatenate([[LEAD_STATE], ids - 1, [TRAIL_STATE]])
            onsets = np.cumsum(durations) - durations
            tuned = self._speech_log_rates(session, states, durations, onsets)
            trial_onsets, trial_offsets = onsets[1:-1], onsets[1:-1] + durations[1:-1]
            phoneme_text: str | None = " ".join(phonemes)
        else:
            text, phoneme_text = None, None
            ids = trial_onsets = trial_offsets = np.zeros(0, dtype=np.int64)
            mean_bins = 1000 * self.config.movement_trial_s / self.config.bin_size_ms
            num_bins = max(10, int(rng.gamma(16.0, mean_bins / 16.0)))
            latents = movement_latents(self.config.task, num_bins, self.config.bin_size_ms, rng)
            tuned = (latents @ session.tuning.T).astype(np.float32)
        baseline = session.baseline + session.within_session_drift(slot.progress)
        common = session.draw_common_noise(len(tuned), rng)
        features = session.draw_features(tuned, baseline, common, rng)
        return SimulatedTrial(
            participant_id=self.config.participant_id,
            session_id=self._session_names[slot.session],
            block_index=slot.block_index,
            trial_index=slot.trial_index,
            split=slot.split,
            text=text,
            phonemes=phoneme_text,
            features=features,
            phone_ids=ids,
            phone_onsets=trial_onsets,
            phone_offsets=trial_offsets,
            common_noise=common,
            baseline=baseline,
        )

    def _draw_durations(self, ids: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        states = np.concatenate([[LEAD_STATE], ids - 1, [TRAIL_STATE]])
        frames_needed = len(ids) + int(np.sum(ids[1:] == ids[:-1]))
        table = self._duration_cdf[states]
        for _ in range(100):
            durations = (table < rng.random((len(states), 1))).sum(axis=1) + 1
            if all((durations.sum() - patch) // stride + 1 >= frames_needed for patch, stride in CTC_FRAMINGS):
                return durations
        raise ValueError(
            f"phone_duration_ms={self.config.phone_duration_ms} is too short for frames of 5 bins: "
            f"{len(ids)} labels need {frames_needed} frames"
        )

    def _speech_log_rates(
        self, session: SessionChannels, states: np.ndarray, durations: np.ndarray, onsets: np.ndarray
    ) -> np.ndarray:
        """Log-rate modulation of every bin by speech, (T, E)."""
        previous = np.concatenate([states[:1], states[:-1]])
        segment = np.repeat(np.arange(len(states)), durations)
        age = np.arange(len(segment)) - onsets[segment]
        share = self._carry_over[np.minimum(age, self.config.transient_bins)][:, None].astype(np.float32)
        targets = session.state_log_rates
        current = targets[states][segment]
        return current + (targets[previous][segment] - current) * share

    def __repr__(self) -> str:
        """Name the participant, its sessions and its electrodes."""
        name = self.config.participant_id
        sizes = f"{self.config.num_sessions} sessions, {self.config.num_electrodes} electrodes"
        return f"SimulatedParticipant({name!r}, {sizes})"
