"""Ambient sound with known words of a kind: synthesised talkers, real clips, a room, babble, gain control, silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

RATE_HZ: int = 16_000
FRAME_HZ: int = 100
NUM_PHONES: int = 40
_FFT = 512
_HOP = RATE_HZ // FRAME_HZ


@dataclass(frozen=True)
class Soundtrack:
    """What sounded, and what reached the microphone.

    Attributes:
        microphone (`np.ndarray` of shape `(S,)`): float32 in -1..1, 16 kHz.
        dry (`np.ndarray` of shape `(S,)`): the talker alone, as the ear gets it.
        phones (`np.ndarray` of shape `(F,)`): phone at 100 Hz, -1 where nobody talks or a real clip plays.
    """

    microphone: np.ndarray
    dry: np.ndarray
    phones: np.ndarray


class Language:
    """Phones with spectra, and a vocabulary of made-up words that some use often.

    Args:
        seed (`int`): of the language; patients who share it hear the same language.
        num_words (`int`): words in the vocabulary.

    Note:
        Phones are bumps at up to three formants for voiced ones, a broad band for noises. It sounds like nothing on
        earth; what matters is that sounds have parts that recur, talkers differ, and the truth is known.
    """

    def __init__(self, seed: int = 0, num_words: int = 200) -> None:
        rng = np.random.default_rng([seed, 1])
        frequency = np.linspace(0, RATE_HZ / 2, _FFT // 2 + 1)
        self.formants = np.sort(rng.uniform((250, 900, 2200), (850, 2300, 3500), (NUM_PHONES, 3)), axis=1)
        self.voiced = np.arange(NUM_PHONES) < 26
        self.noise_center = rng.uniform(1500, 6500, NUM_PHONES)
        self.loudness = np.where(self.voiced, rng.uniform(0.7, 1.3, NUM_PHONES), rng.uniform(0.1, 0.4, NUM_PHONES))
        self.duration_frames = np.where(self.voiced, 9.0, 6.0)
        self.articulation = rng.normal(size=(NUM_PHONES, 10))
        self.words = [rng.integers(0, NUM_PHONES, rng.integers(2, 7)) for _ in range(num_words)]
        self.word_share = 1.0 / np.arange(1, num_words + 1)
        self.word_share /= self.word_share.sum()
        self._frequency = frequency.astype(np.float32)
        # Random phases, drawn once: complex exponentials were most of the time of synthesis.
        self.phasors = np.exp(2j * np.pi * rng.random((509, _FFT // 2 + 1))).astype(np.complex64)

    def spectra(self, tract: float) -> np.ndarray:
        """Magnitude spectra of all phones for one talker.

        Args:
            tract (`float`): factor on the formants; 1 is the mean talker.

        Returns:
            `np.ndarray` of shape `(NUM_PHONES, 257)`.
        """
        bumps = np.exp(-0.5 * ((self._frequency - tract * self.formants[..., None]) / 120.0) ** 2)
        voiced = (bumps * np.array([1.0, 0.6, 0.3])[:, None]).sum(axis=1) + 0.01
        noisy = np.exp(-0.5 * ((self._frequency - tract * self.noise_center[:, None]) / 900.0) ** 2)
        return (np.where(self.voiced[:, None], voiced, noisy) * self.loudness[:, None]).astype(np.float32)

    def talk(self, rng: np.random.Generator, num_frames: int) -> np.ndarray:
        """A stream of words.

        Args:
            rng (`np.random.Generator`): randomness.
            num_frames (`int`): frames at 100 Hz.

        Returns:
            `np.ndarray` of shape `(num_frames,)`: phones.
        """
        parts: list[np.ndarray] = []
        total = 0
        while total < num_frames:
            word = self.words[rng.choice(len(self.words), p=self.word_share)]
            lengths = np.maximum(3, rng.poisson(self.duration_frames[word]))
            parts.append(np.repeat(word, lengths))
            total += int(lengths.sum())
        return np.concatenate(parts)[:num_frames]


def synthesise(
    language: Language, phones: np.ndarray, tract: float, pitch_hz: float, rng: np.random.Generator
) -> np.ndarray:
    """Speak a stream of phones.

    Args:
        language (`Language`): the spectra.
        phones (`np.ndarray` of shape `(F,)`): at 100 Hz; -1 is silence.
        tract (`float`): see [`Language.spectra`].
        pitch_hz (`float`): mean pitch.
        rng (`np.random.Generator`): phases and melody.

    Returns:
        `np.ndarray` of shape `(F * 160,)`: float32.
    """
    from scipy.fft import irfft

    magnitude = np.concatenate([language.spectra(tract), np.zeros((1, _FFT // 2 + 1), np.float32)])[phones]
    # Phones run into each other within about 30 ms.
    magnitude[1:-1] = (magnitude[:-2] + 2 * magnitude[1:-1] + magnitude[2:]) / 4
    melody = pitch_hz * (1 + 0.15 * np.sin(2 * np.pi * np.cumsum(rng.uniform(0.2, 0.8, len(phones))) / FRAME_HZ))
    voiced = np.flatnonzero(np.append(language.voiced, False)[phones])
    turns = (2 * np.pi / melody[voiced]).astype(np.float32)[:, None]
    magnitude[voiced] *= 0.5 + 0.5 * np.cos(turns * language._frequency)
    phasors = language.phasors[rng.integers(0, len(language.phasors), len(phones))]
    frames = irfft(magnitude * phasors, axis=1)
    frames *= np.hanning(_FFT).astype(np.float32)
    output = np.zeros((len(phones) + 4) * _HOP, np.float32)
    for part in range(4):  # frames four apart do not overlap (512 < 640), so they are added in one go
        chosen = frames[part::4]
        block = np.zeros((len(chosen), 4 * _HOP), np.float32)
        block[:, :_FFT] = chosen
        flat = block.ravel()[: len(output) - part * _HOP]
        output[part * _HOP : part * _HOP + len(flat)] += flat
    return output[: len(phones) * _HOP]


def ambient_sound(
    language: Language,
    duration_s: float,
    rng: np.random.Generator,
    speech_share: float = 0.5,
    clips: Sequence[np.ndarray] = (),
    clip_share: float = 0.2,
) -> Soundtrack:
    """A hospital room: visitors and a television talk now and then, behind babble, echo and an automatic gain.

    Args:
        language (`Language`): what is spoken.
        duration_s (`float`): seconds.
        rng (`np.random.Generator`): everything random.
        speech_share (`float`): share of the time that somebody talks.
        clips (`Sequence[np.ndarray]`): real recordings at 16 kHz that are played among the synthesised talkers.
        clip_share (`float`): share of the talk that is real clips, when there are any.

    Returns:
        `Soundtrack`: sound, truth.
    """
    frames = round(duration_s * FRAME_HZ)
    dry, phones = np.zeros(frames * _HOP, np.float32), np.full(frames, -1)
    voices = [(rng.uniform(0.85, 1.2), rng.uniform(90, 230), rng.uniform(0.3, 1.5)) for _ in range(5)]
    position = 0
    while position < frames:
        position += round(rng.exponential(6.0 * (1 / speech_share - 1)) * FRAME_HZ)  # silence before the next turn
        if position >= frames:
            break
        if clips and rng.random() < clip_share:
            clip = clips[int(rng.integers(len(clips)))]
            clip = clip / (np.sqrt(np.mean(clip**2)) + 1e-9) * 0.05
            stop = min(len(dry), position * _HOP + len(clip))
            dry[position * _HOP : stop] += clip[: stop - position * _HOP]
            position = -(-stop // _HOP)
            continue
        length = min(frames - position, max(50, round(rng.exponential(6.0) * FRAME_HZ)))
        tract, pitch, level = voices[rng.integers(len(voices))]
        turn = language.talk(rng, length)
        dry[position * _HOP : (position + length) * _HOP] += level * synthesise(language, turn, tract, pitch, rng)
        phones[position : position + length] = turn
        position += length
    return Soundtrack(room_microphone(dry, rng), dry, phones)


def narration(language: Language, duration_s: float, rng: np.random.Generator) -> Soundtrack:
    """An audiobook: one talker, short pauses, no room. `microphone` is what a room's microphone makes of it.

    Args:
        language (`Language`): what is spoken.
        duration_s (`float`): seconds.
        rng (`np.random.Generator`): everything random.

    Returns:
        `Soundtrack`: `dry` is the clean recording.
    """
    frames = round(duration_s * FRAME_HZ)
    phones = language.talk(rng, frames)
    for start in range(0, frames, 400):  # a breath after a sentence
        stop = start + rng.integers(30, 70)
        phones[start:stop] = -1
    dry = synthesise(language, phones, 1.0, 120.0, rng)
    return Soundtrack(room_microphone(dry, rng), dry, phones)


def room_microphone(dry: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Echo, babble, hiss and automatic gain of a camera's microphone.

    Args:
        dry (`np.ndarray` of shape `(S,)`): the talkers at the ear.
        rng (`np.random.Generator`): the room.

    Returns:
        `np.ndarray` of shape `(S,)`: float32 in -1..1.
    """
    from scipy.signal import lfilter, oaconvolve

    time = np.arange(int(0.35 * RATE_HZ)) / RATE_HZ
    echo = rng.normal(size=len(time)) * np.exp(-6.9 * time / rng.uniform(0.25, 0.5)) * 0.02
    echo[0] = 1.0
    sound = oaconvolve(dry, echo.astype(np.float32))[: len(dry)].astype(np.float32)
    for _ in range(3):  # voices from the corridor: the same talkers at other times
        sound += rng.uniform(0.03, 0.1) * np.roll(sound, rng.integers(len(dry) // 4, 3 * len(dry) // 4))
    sound += 0.002 * rng.standard_normal(len(dry), dtype=np.float32)
    level = np.sqrt(lfilter([1 / RATE_HZ], [1, 1 / RATE_HZ - 1], sound**2)) + 0.003  # about one second
    return np.clip(0.08 * sound / level**0.7 * 0.05**0.7 / 0.05, -1, 1).astype(np.float32)
