"""People who listen to stories in a simulated scanner: features of several levels, voxels of their own, known truth.

Speech becomes an acoustic level (spectrum), a phonemic level (which sounds) and a lexical level (which words). A voxel
follows a mixture of the levels of its area; part of its weights is shared by everybody, part is a participant's own.
What it follows passes a haemodynamic response, is seen once per TR, and is drowned in noise that remembers.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from bit_speech.data.story_runs import SAMPLING_RATE, Interval, StoryRun, write_run, write_story, write_words
from bit_speech.data.story_time import scanner_times, zscore
from bit_speech.data.text_features import WordVectors
from bit_speech.files import write_json
from bit_speech.simulation.text import load_sentences, normalize_sentence, pronounce
from configuration_bit.phoneme_inventory_bit import PHONEMES, SIL_TOKEN

VERSION = "stories-1"
LEVELS = ("acoustic", "phonemic", "lexical")
GRID_HZ = 10.0


@dataclass(frozen=True)
class Stimulus:
    """A story and what it is made of.

    Args:
        story_id (`str`): its name.
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples between -1 and 1.
        text (`str`): what is said.
        levels (`dict[str, np.ndarray]`): features of every level of shape `(T, F)`, 10 per second.
        words (`list[Interval]`): when each word is said.
    """

    story_id: str
    audio: np.ndarray
    text: str
    levels: dict[str, np.ndarray]
    words: list[Interval] = field(default_factory=list)


@dataclass(frozen=True)
class CohortConfig:
    """Every number of the simulated scanner.

    Args:
        num_voxels (`int`): voxels X of everybody, in a common space.
        areas (`dict[str, tuple[float, float, float]]`): area -> share of the acoustic, phonemic and lexical level in
            the variance of its voxels; voxels are dealt out evenly.
        shared_dims (`int`): directions of each level that brains follow; the fewer, the less there is to learn.
        deviation (`float`): share of a voxel's weights (in variance) that is a participant's own.
        snr (`float`): variance of what a voxel follows over the variance of its noise.
        noise_memory (`float`): correlation of the noise from one TR to the next.
        hrf_peak_s (`float`): time of the haemodynamic response's peak.
        hrf_peak_sd_s (`float`): its standard deviation over participants.
        tr_s (`float`): seconds per TR.
        seed (`int`): another seed is another cohort.

    Raises:
        ValueError: naming what is out of range.
    """

    num_voxels: int = 120
    areas: dict[str, tuple[float, float, float]] = field(
        default_factory=lambda: {
            "A1": (1.0, 0.0, 0.0), "A5": (0.3, 0.7, 0.0), "STSda": (0.0, 0.8, 0.2), "44": (0.0, 0.3, 0.7),
        }
    )  # fmt: skip
    shared_dims: int = 4
    deviation: float = 0.3
    snr: float = 0.3
    noise_memory: float = 0.3
    hrf_peak_s: float = 5.0
    hrf_peak_sd_s: float = 0.5
    tr_s: float = 2.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the ranges."""
        if not 0.0 <= self.deviation <= 1.0 or not 0.0 <= self.noise_memory < 1.0 or not self.snr > 0:
            raise ValueError(
                f"deviation {self.deviation} must be in [0, 1], noise_memory {self.noise_memory} in [0, 1), snr "
                f"{self.snr} positive"
            )
        if self.num_voxels < len(self.areas) or any(len(shares) != len(LEVELS) for shares in self.areas.values()):
            raise ValueError(f"{self.num_voxels} voxels for areas {self.areas}: one voxel and three shares each")


def speak_tones(text: str) -> np.ndarray:
    """Speak a sentence with a chord of its own for every phoneme: no voice, but no program is needed either.

    Args:
        text (`str`): a sentence.

    Returns:
        `np.ndarray` of shape `(S,)`: 16 kHz samples between -1 and 1, 80 ms per phoneme.

    Raises:
        ValueError: if a word has no pronunciation.
    """
    phonemes = _phonemes(text)
    length = round(0.08 * SAMPLING_RATE)
    time = np.arange(length) / SAMPLING_RATE
    envelope = np.hanning(length)
    parts = []
    for phoneme in phonemes:
        if phoneme == SIL_TOKEN:
            parts.append(np.zeros(length))
            continue
        tones = np.random.default_rng(PHONEMES.index(phoneme)).uniform(200, 4000, 3)
        parts.append(envelope * np.sin(2 * np.pi * tones[:, None] * time).sum(axis=0) / 6)
    return np.concatenate(parts).astype(np.float32)


def speak_espeak(text: str, voice: str = "en-us", words_per_minute: int = 200) -> np.ndarray:
    """Speak a sentence with the program espeak-ng.

    Args:
        text (`str`): a sentence.
        voice (`str`): one of its voices.
        words_per_minute (`int`): speaking rate.

    Returns:
        `np.ndarray` of shape `(S,)`: 16 kHz samples between -1 and 1.

    Raises:
        FileNotFoundError: if the program is not installed.
    """
    from scipy.signal import resample_poly

    command = ["espeak-ng", "--stdout", "-v", voice, "-s", str(words_per_minute), text]
    try:
        wav = subprocess.run(command, capture_output=True, check=True).stdout
    except FileNotFoundError as error:
        raise FileNotFoundError("espeak-ng is not installed: apt-get install espeak-ng") from error
    samples = np.frombuffer(wav[44:], dtype="<i2").astype(np.float32) / 32768
    return np.clip(resample_poly(samples, 320, 441), -1.0, 1.0).astype(np.float32)  # 22.05 kHz to 16 kHz


def _phonemes(text: str) -> list[str]:
    found = pronounce(text)
    if found is None:
        raise ValueError(f"the sentence {text!r} has a word without a pronunciation; leave it out")
    return found


def make_stimulus(
    story_id: str,
    sentences: Sequence[str],
    word_vectors: Callable[[Sequence[str]], np.ndarray],
    speak: Callable[[str], np.ndarray] = speak_tones,
) -> Stimulus:
    """Read sentences aloud, one after the other, and say what the story is made of at every level.

    Args:
        story_id (`str`): name of the story.
        sentences (sequence of `str`): its sentences; all words need a pronunciation.
        word_vectors (callable): texts to vectors, such as [`~bit_speech.data.text_features.WordVectors`].
        speak (callable): a sentence to 16 kHz samples.

    Returns:
        [`Stimulus`]: sounds are laid out evenly over each sentence.

    Raises:
        ValueError: if there is nothing to say, or a word has no pronunciation.
    """
    if not sentences:
        raise ValueError(f"story {story_id!r} has no sentences")
    sounds = [speak(sentence) for sentence in sentences]
    audio = np.concatenate(sounds)
    size = int(len(audio) / SAMPLING_RATE * GRID_HZ) + 1
    phonemic = np.zeros((size, len(PHONEMES)))
    words_at: list[list[str]] = [[] for _ in range(size)]
    intervals: list[Interval] = []
    start = 0.0
    for sentence, sound in zip(sentences, sounds):
        phonemes = _phonemes(sentence)
        step = len(sound) / SAMPLING_RATE / len(phonemes)
        words = iter(sentence.split())
        word, begun = next(words, ""), start
        for position, phoneme in enumerate(phonemes):
            place = min(size - 1, int((start + (position + 0.5) * step) * GRID_HZ))
            if phoneme != SIL_TOKEN:
                phonemic[place, PHONEMES.index(phoneme)] += 1
            else:  # every word ends so
                words_at[place].append(word)
                intervals.append(Interval(begun, start + position * step, word))
                word, begun = next(words, ""), start + (position + 1) * step
        start += len(sound) / SAMPLING_RATE
    lexical = word_vectors([" ".join(words) for words in words_at])
    levels = {"acoustic": log_spectrum(audio, size), "phonemic": phonemic, "lexical": lexical}
    return Stimulus(story_id, audio, " ".join(sentences), levels, intervals)


def log_spectrum(audio: np.ndarray, size: int, num_bands: int = 16) -> np.ndarray:
    """Sum up the power in bands of equal width on the mel scale.

    Args:
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples.
        size (`int`): points wanted, 10 per second.
        num_bands (`int`): bands up to 8 kHz.

    Returns:
        `np.ndarray` of shape `(size, num_bands)`: logarithms, relative to a quiet floor.
    """
    frame = round(SAMPLING_RATE / GRID_HZ)
    padded = np.zeros(size * frame)
    padded[: min(len(audio), len(padded))] = audio[: len(padded)]
    power = np.abs(np.fft.rfft(padded.reshape(size, frame) * np.hanning(frame), axis=1)) ** 2
    frequencies = np.fft.rfftfreq(frame, 1 / SAMPLING_RATE)
    edges = np.linspace(0, 2595 * np.log10(1 + SAMPLING_RATE / 2 / 700), num_bands + 1)
    band = np.clip(np.searchsorted(edges, 2595 * np.log10(1 + frequencies / 700), side="right") - 1, 0, num_bands - 1)
    sums = np.stack([power[:, band == number].sum(axis=1) for number in range(num_bands)], axis=1)
    return np.log(sums + 1e-2) - np.log(1e-2)


class StoryCohort:
    """Participants of one simulated scanner.

    Args:
        config ([`CohortConfig`]): the numbers.
        level_sizes (`dict[str, int]`): features of every level, as the stimuli have them.

    Example:
        >>> cohort = StoryCohort(CohortConfig(num_voxels=8), {"acoustic": 16, "phonemic": 39, "lexical": 10})
        >>> cohort.areas
        ['A1', 'A1', 'A5', 'A5', 'STSda', 'STSda', '44', '44']
    """

    def __init__(self, config: CohortConfig, level_sizes: dict[str, int]) -> None:
        self.config, self.level_sizes = config, level_sizes
        names = list(config.areas)
        self.areas = [names[voxel * len(names) // config.num_voxels] for voxel in range(config.num_voxels)]
        rng = np.random.default_rng([config.seed, 0])
        # Directions of the feature space that brains follow at all, the same for everybody.
        self._directions = {level: rng.normal(size=(level_sizes[level], config.shared_dims)) for level in LEVELS}
        self._shared = {level: rng.normal(size=(config.shared_dims, config.num_voxels)) for level in LEVELS}
        shares = np.array([config.areas[area] for area in self.areas])
        self._gains = {level: np.sqrt(shares[:, column]) for column, level in enumerate(LEVELS)}

    @property
    def ceiling(self) -> float:
        """Correlation of a perfect model with a single presentation, on average (`float`)."""
        return float(np.sqrt(self.config.snr / (1 + self.config.snr)))

    def signal(self, participant: int, stimulus: Stimulus) -> tuple[np.ndarray, np.ndarray]:
        """What the voxels of a participant follow, without noise.

        Args:
            participant (`int`): number of the participant.
            stimulus ([`Stimulus`]): the story.

        Returns:
            `tuple`: `(R, X)` z-scored signals, and `(R,)` start of every TR in seconds.
        """
        config = self.config
        rng = np.random.default_rng([config.seed, 1, participant])
        peak = config.hrf_peak_s + config.hrf_peak_sd_s * rng.normal()
        own = {level: rng.normal(size=(config.shared_dims, config.num_voxels)) for level in LEVELS}
        lags = np.arange(0, 25, 1 / GRID_HZ)
        response = haemodynamic_response(lags, peak)
        num_trs = int(len(stimulus.audio) / SAMPLING_RATE / config.tr_s)
        times = scanner_times(num_trs, config.tr_s, 0.0)
        # The value in the middle of each volume.
        places = np.round((times + config.tr_s / 2) * GRID_HZ).astype(int)
        found = np.zeros((num_trs, config.num_voxels))
        for level in LEVELS:
            features = zscore(stimulus.levels[level]) @ self._directions[level]
            slow = np.apply_along_axis(np.convolve, 0, features, response)[places]
            weights = np.sqrt(1 - config.deviation) * self._shared[level] + np.sqrt(config.deviation) * own[level]
            found += self._gains[level] * zscore(slow @ weights)
        return zscore(found), times

    def run(
        self, participant: int, stimulus: Stimulus, split: str = "train", num_repeats: int = 1, session: int = 0
    ) -> StoryRun:
        """Scan a participant.

        Args:
            participant (`int`): number of the participant.
            stimulus ([`Stimulus`]): the story.
            split (`str`): what the run is for.
            num_repeats (`int`): presentations; above 1 the responses are their mean.
            session (`int`): another session has other noise.

        Returns:
            [`StoryRun`]: z-scored responses.
        """
        config = self.config
        signal, times = self.signal(participant, stimulus)
        name = int.from_bytes(stimulus.story_id.encode()[-6:], "big")
        rng = np.random.default_rng([config.seed, 2, participant, session, name])
        noise = rng.normal(size=(num_repeats, *signal.shape))
        for tr in range(1, signal.shape[0]):
            noise[:, tr] = config.noise_memory * noise[:, tr - 1] + np.sqrt(1 - config.noise_memory**2) * noise[:, tr]
        repeats = np.stack([zscore(signal + one / np.sqrt(config.snr)) for one in noise]).astype(np.float32)
        return StoryRun(
            participant_id=f"S{participant:02d}",
            story_id=stimulus.story_id,
            split=split,
            responses=repeats.mean(axis=0),
            tr_times_s=times,
            tr_s=config.tr_s,
            space="simulated",
            source=f"simulated cohort {VERSION}, seed {config.seed}",
            licence="CC0-1.0",
            repeats=repeats if num_repeats > 1 else None,
        )


def haemodynamic_response(lags_s: np.ndarray, peak_s: float = 5.0) -> np.ndarray:
    """Evaluate a haemodynamic response with its peak at a given time.

    Args:
        lags_s (`np.ndarray`): seconds since the event.
        peak_s (`float`): time of the peak.

    Returns:
        `np.ndarray`: the difference of two gamma densities, scaled to a sum of 1.

    Example:
        >>> lags = np.arange(0, 20, 0.1)
        >>> round(float(lags[haemodynamic_response(lags, 6.0).argmax()]), 1)
        6.0
    """
    stretched = lags_s * 5.0 / peak_s
    response = stretched**5 * np.exp(-stretched) / 120.0 - stretched**15 * np.exp(-stretched) / 1307674368000.0 / 6.0
    return response / response.sum()


def write_cohort(
    folder: str | os.PathLike[str],
    config: CohortConfig,
    num_participants: int = 6,
    num_stories: int = 8,
    sentences_per_story: int = 20,
    num_test: int = 1,
    num_validation: int = 1,
    num_repeats: int = 5,
    speak: Callable[[str], np.ndarray] = speak_tones,
) -> StoryCohort:
    """Write a folder of stories that a simulated cohort heard; the last stories are for tests and validation.

    Args:
        folder (`str`): where to.
        config ([`CohortConfig`]): the scanner.
        num_participants (`int`): who all hear every story.
        num_stories (`int`): stories in all.
        sentences_per_story (`int`): sentences of read speech, no two alike.
        num_test (`int`): stories for tests, heard several times.
        num_validation (`int`): stories for choosing checkpoints.
        num_repeats (`int`): presentations of test stories.
        speak (callable): a sentence to 16 kHz samples.

    Returns:
        [`StoryCohort`]: for its truth; `folder` holds `cohort.json` with areas and settings.

    Raises:
        ValueError: if no story is left for training.
    """
    if num_stories <= num_test + num_validation:
        raise ValueError(f"of {num_stories} stories, {num_test} and {num_validation} are held out: none is left")
    fitting = [text for text in dict.fromkeys(map(normalize_sentence, load_sentences("read_speech")))
               if 5 <= len(text.split()) <= 14]  # fmt: skip
    order = np.random.default_rng([config.seed, 3]).permutation(len(fitting))
    spoken = (fitting[i] for i in order if pronounce(fitting[i]))
    chosen = list(islice(spoken, num_stories * sentences_per_story))
    vectors = WordVectors(load_sentences("tatoeba"), size=20)
    cohort = StoryCohort(config, {"acoustic": 16, "phonemic": len(PHONEMES), "lexical": 20})
    for number in range(num_stories):
        part = chosen[number * sentences_per_story : (number + 1) * sentences_per_story]
        stimulus = make_stimulus(f"story{number:03d}", part, vectors, speak)
        write_story(folder, stimulus.story_id, stimulus.audio)
        write_words(folder, stimulus.story_id, {"word": stimulus.words})
        split = "train"
        if number >= num_stories - num_test:
            split = "test"
        elif number >= num_stories - num_test - num_validation:
            split = "validation"
        for person in range(num_participants):
            write_run(folder, cohort.run(person, stimulus, split, num_repeats if split == "test" else 1))
    write_json(Path(folder) / "cohort.json", {"version": VERSION, "areas": cohort.areas, "config": asdict(config)})
    return cohort
