"""Days of ambient speech, the cortex that hears it, and an audiobook at the end: aligned segments with known truth."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bit_speech.data.aligned_segments import SEGMENT_S, split_files
from bit_speech.data.audio_features import LogMelFeatures
from bit_speech.simulation.ambient_sound import FRAME_HZ, RATE_HZ, Language, Soundtrack, ambient_sound, narration

CONTINUOUS_VERSION: str = "1"
_CEPSTRA = 8
_LAGS_S: tuple[float, ...] = (0.075, 0.15, 0.25)


@dataclass(frozen=True)
class ContinuousConfig:
    """A simulated patient.

    Args:
        participant_id (`str`): name.
        num_channels (`int`): iEEG channels C.
        responsive_share (`float`): share of the channels that hear anything.
        acoustic_share (`float`): share of the response that follows the spectrum; the rest follows articulation.
        num_days (`int`): days of ambient recording.
        files_per_day (`int`): recordings in a day.
        file_s (`float`): duration of a recording in seconds.
        task_files (`int`): recordings of the audiobook, on the last day.
        speech_share (`float`): share of the ambient time with speech.
        attention_share (`float`): share of the ambient time that the patient listens; of the task it is 0.95.
        unattended_gain (`float`): response to what is not listened to, relative to what is.
        signal_to_noise (`float`): standard deviation of the response over that of the noise, in responsive channels.
        drift_per_day (`float`): radians by which every channel's tuning turns in a day.
        task_turn (`float`): radians by which the tuning for the audiobook differs from that for the room, for example
            because a story is listened to in another way.
        offset_drift (`float`): change of every channel's mean in a day, in deviations.
        sampling_rate_hz (`float`): of the iEEG that comes out, already filtered.

    Raises:
        ValueError: if a value is out of range.

    Example:
        >>> ContinuousConfig(num_days=2, files_per_day=3).ambient_hours
        1.0
    """

    participant_id: str = "s1"
    num_channels: int = 32
    responsive_share: float = 0.4
    acoustic_share: float = 0.5
    num_days: int = 4
    files_per_day: int = 6
    file_s: float = 600.0
    task_files: int = 4
    speech_share: float = 0.5
    attention_share: float = 0.6
    unattended_gain: float = 0.2
    signal_to_noise: float = 0.5
    drift_per_day: float = 0.12
    task_turn: float = 0.0
    offset_drift: float = 0.3
    sampling_rate_hz: float = 40.0

    def __post_init__(self) -> None:
        """Check the ranges."""
        for name in ("num_channels", "num_days", "files_per_day"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least 1")
        for name in ("responsive_share", "speech_share", "attention_share"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1")
        if self.file_s < SEGMENT_S:
            raise ValueError(f"file_s is {self.file_s}; a recording needs at least one segment of {SEGMENT_S} s")

    @property
    def ambient_hours(self) -> float:
        """Hours of ambient recording in all splits (`float`)."""
        return self.num_days * self.files_per_day * self.file_s / 3600


class SimulatedPatient:
    """Makes the recordings of one patient, file by file; every file is a function of (seed, file).

    Args:
        config (`ContinuousConfig`): the patient.
        seed (`int`): of the patient and everything that happens.
        language (`Language`, *optional*): default the language of seed 0, which all patients share.
        clips (`Sequence[np.ndarray]`): real speech at 16 kHz, played among the synthesised talkers.

    Note:
        Responses: eight cepstra of what reaches the ear and ten articulatory features of the phones, smoothed and
        delayed by 75 to 250 ms, mixed into channels, scaled by attention, plus noise with a 1/f spectrum that channels
        share. Tuning and offsets drift over days. What makes ambient and clean sound differ is the room and the
        microphone alone.
    """

    def __init__(
        self,
        config: ContinuousConfig,
        seed: int = 0,
        language: Language | None = None,
        clips: Sequence[np.ndarray] = (),
    ) -> None:
        self.config, self.seed = config, seed
        self.language = language if language is not None else Language()
        self._clips = clips
        self._last: tuple[str, Soundtrack] | None = None
        rng = np.random.default_rng([seed, 11])
        latents = len(_LAGS_S) * (_CEPSTRA + self.language.articulation.shape[1])
        self._maps = rng.normal(size=(2, latents, config.num_channels)) / latents**0.5
        acoustic = np.tile(np.arange(_CEPSTRA + self.language.articulation.shape[1]) < _CEPSTRA, len(_LAGS_S))
        share = np.where(acoustic, config.acoustic_share, 1 - config.acoustic_share) ** 0.5
        self._maps *= share[:, None]
        responsive = max(1, round(config.responsive_share * config.num_channels))
        self._responsive = rng.permutation(config.num_channels) < responsive
        self._noise_mix = rng.normal(size=(6, config.num_channels)) / 6**0.5
        self._offsets = rng.normal(size=(config.num_days + 1, config.num_channels)) * config.offset_drift
        # Positions of contacts along shafts: neighbours are 3.5 mm apart.
        starts = rng.uniform(-0.05, 0.05, (-(-config.num_channels // 8), 3))
        direction = rng.normal(size=starts.shape)
        direction /= np.linalg.norm(direction, axis=1, keepdims=True)
        steps = np.arange(config.num_channels)
        self.channel_positions = starts[steps // 8] + 0.0035 * (steps % 8)[:, None] * direction[steps // 8]
        self.channel_names = [f"{chr(65 + step // 8 % 26)}{step % 8 + 1}" for step in steps]
        ambient = [f"day{day}_file{number}" for day in range(config.num_days) for number in range(config.files_per_day)]
        self.splits = split_files(ambient, seed=seed) if len(ambient) > 2 else dict.fromkeys(ambient, "train")
        task = [f"task_file{number}" for number in range(config.task_files)]
        self.splits |= split_files(task, (0.5, 0.25, 0.25), seed) if len(task) > 2 else dict.fromkeys(task, "train")

    def soundtrack(self, file_id: str) -> Soundtrack:
        """What sounded during a file.

        Args:
            file_id (`str`): one of `splits`.

        Returns:
            `Soundtrack`: sound and truth.
        """
        if self._last is not None and self._last[0] == file_id:
            return self._last[1]
        config, rng = self.config, self._rng(file_id, 1)
        if file_id.startswith("task"):
            sound = narration(self.language, config.file_s, rng)
        else:
            sound = ambient_sound(self.language, config.file_s, rng, config.speech_share, self._clips)
        self._last = (file_id, sound)
        return sound

    def response(self, file_id: str, sound: Soundtrack) -> np.ndarray:
        """What the electrodes record of it.

        Args:
            file_id (`str`): one of `splits`.
            sound (`Soundtrack`): of this file.

        Returns:
            `np.ndarray` of shape `(T, C)`: float32 at `sampling_rate_hz`, deviations of the noise.
        """
        config, rng = self.config, self._rng(file_id, 2)
        day = self.day(file_id)
        drive = self._drive(sound)
        angle = config.drift_per_day * day + config.task_turn * file_id.startswith("task")
        mixed = drive @ (np.cos(angle) * self._maps[0] + np.sin(angle) * self._maps[1])
        share = 0.95 if file_id.startswith("task") else config.attention_share
        mixed *= self._attention(len(mixed), share, rng)[:, None]
        mixed *= config.signal_to_noise * self._responsive
        rate = config.sampling_rate_hz
        shared, own = _pink(rng, len(mixed), 6, rate), _pink(rng, len(mixed), config.num_channels, rate)
        noise = shared @ self._noise_mix + 0.7 * own
        return (mixed + noise + self._offsets[day]).astype(np.float32)

    def day(self, file_id: str) -> int:
        """Day of a file; the task is on the last.

        Args:
            file_id (`str`): one of `splits`.

        Returns:
            `int`: from 0.
        """
        return (
            self.config.num_days - 1 if file_id.startswith("task") else int(file_id.split("_")[0].removeprefix("day"))
        )

    def segments(self, file_id: str) -> Iterator[dict[str, Any]]:
        """The aligned segments of a file; of the task both the clean sound and that of the room's microphone.

        Args:
            file_id (`str`): one of `splits`.

        Yields:
            `dict`: rows of [`~bit_speech.data.aligned_segments.segment_features`].
        """
        config, sound = self.config, self.soundtrack(file_id)
        ieeg = self.response(file_id, sound)
        tracks = {"ambient": sound.microphone}
        if file_id.startswith("task"):
            tracks = {"clean": np.clip(sound.dry, -1, 1), "clean_in_room": sound.microphone}
        bins, samples = round(SEGMENT_S * config.sampling_rate_hz), round(SEGMENT_S * RATE_HZ)
        for condition, track in tracks.items():
            for index in range(len(ieeg) // bins):
                yield {
                    "participant_id": config.participant_id,
                    "session_id": f"{config.participant_id}.day{self.day(file_id)}",
                    "file_id": file_id,
                    "segment_index": index,
                    "start_s": index * SEGMENT_S,
                    "split": self.splits[file_id],
                    "condition": condition,
                    "ieeg": ieeg[index * bins : (index + 1) * bins],
                    "sampling_rate_hz": config.sampling_rate_hz,
                    "channel_names": self.channel_names,
                    "channel_positions": self.channel_positions.tolist(),
                    "audio": (32767 * track[index * samples : (index + 1) * samples]).astype(np.int16),
                    "audio_rate_hz": RATE_HZ,
                    "preprocessing": f"simulator {CONTINUOUS_VERSION}",
                    "source": f"simulated patient, seed {self.seed}",
                    "licence": "CC0-1.0",
                }

    def ideal_speech_features(self, file_id: str, condition: str, size: int = 64) -> np.ndarray:
        """What a very good speech model might hear: phones, whoever says them, with a trace of the room.

        Args:
            file_id (`str`): one of `splits`.
            condition (`str`): `ambient`, `clean` or `clean_in_room`.
            size (`int`): width D.

        Returns:
            `np.ndarray` of shape `(F, size)`: float32 at 100 Hz.

        Note:
            It stands in for wav2vec 2.0, whose weights a simulator cannot bring along, and is made from the truth:
            one random vector a phone, noise, and for clean sound a shift of its own, as the paper's embeddings of clean
            speech lie apart from those of the room. Real clips are silence to it.
        """
        rng = np.random.default_rng([size, 5])
        table = np.concatenate([rng.normal(size=(len(self.language.articulation), size)), np.zeros((1, size))])
        shift = rng.normal(size=size) * (condition == "clean")
        frames = table[self.soundtrack(file_id).phones] + shift
        return (frames + self._rng(file_id, 3).normal(size=frames.shape)).astype(np.float32)

    def _rng(self, file_id: str, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.seed, purpose, list(self.splits).index(file_id)])

    def _drive(self, sound: Soundtrack) -> np.ndarray:
        """Smoothed, delayed, standardised latents at the rate of the iEEG, `(T, L)`."""
        from scipy.fft import dct
        from scipy.ndimage import gaussian_filter1d

        mel, mel_rate = LogMelFeatures(24)(sound.dry, RATE_HZ)
        cepstra = dct(mel, norm="ortho", axis=1)[:, :_CEPSTRA]
        time = (
            np.arange(round(len(sound.phones) / FRAME_HZ * self.config.sampling_rate_hz)) / self.config.sampling_rate_hz
        )
        articulation = np.concatenate([self.language.articulation, np.zeros((1, 10))])[sound.phones]
        parts = []
        for values, rate in ((cepstra, mel_rate), (articulation, float(FRAME_HZ))):
            smooth = gaussian_filter1d(values, 0.025 * rate, axis=0)
            smooth = (smooth - smooth.mean(axis=0)) / (smooth.std(axis=0) + 1e-6)
            for lag in _LAGS_S:
                index = np.clip(((time - lag) * rate).astype(int), 0, len(smooth) - 1)
                parts.append(smooth[index])
        acoustic, articulatory = parts[: len(_LAGS_S)], parts[len(_LAGS_S) :]
        return np.concatenate([np.concatenate(pair, axis=1) for pair in zip(acoustic, articulatory)], axis=1)

    def _attention(self, bins: int, share: float, rng: np.random.Generator) -> np.ndarray:
        """Listening comes and goes, for about 40 s at a time."""
        gain, position, listening = np.empty(bins), 0, rng.random() < share
        while position < bins:
            mean_s = 40.0 * 2 * (share if listening else 1 - share)
            length = 1 + round(rng.exponential(mean_s) * self.config.sampling_rate_hz)
            gain[position : position + length] = 1.0 if listening else self.config.unattended_gain
            position, listening = position + length, not listening
        return gain


def _pink(rng: np.random.Generator, bins: int, channels: int, rate_hz: float) -> np.ndarray:
    """Noise with a spectrum of about 1/f down to 0.05 Hz, deviation 1, `(bins, channels)`."""
    spectrum = np.fft.rfft(rng.standard_normal((bins, channels), dtype=np.float32), axis=0)
    frequency = np.fft.rfftfreq(bins, 1 / rate_hz)
    spectrum *= (np.maximum(frequency, 0.05) ** -0.5)[:, None]
    noise = np.fft.irfft(spectrum, bins, axis=0)
    return noise / noise.std(axis=0)
