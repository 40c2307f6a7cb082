"""The `StoryRun`: what one participant's brain did while hearing one story, the same columns whatever the source.

A folder of stories holds `stories/<story>.wav` (mono, 16 kHz) and `runs/<participant>/<story>.safetensors`. Converters
write facts; clips, windows, delays and normalisation are choices, made by whoever reads.
"""

from __future__ import annotations

import json
import os
import wave
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bit_speech.data.schema import SPLITS
from bit_speech.files import write_bytes, write_json

SAMPLING_RATE = 16_000


@dataclass(frozen=True)
class Interval:
    """A word or a sound of a story.

    Args:
        start_s (`float`): its beginning in seconds from the first sample.
        stop_s (`float`): its end.
        text (`str`): what it is.
    """

    start_s: float
    stop_s: float
    text: str


@dataclass(frozen=True)
class StoryRun:
    """Responses of one participant to one story.

    Args:
        participant_id (`str`): such as `"UTS03"`.
        story_id (`str`): such as `"wheretheressmoke"`.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        responses (`np.ndarray` of shape `(R, X)`): float32 BOLD of X voxels or vertices; the mean of `repeats` if any.
        tr_times_s (`np.ndarray` of shape `(R,)`): start of every TR, in seconds from the first sample of the story.
        tr_s (`float`): seconds from one TR to the next.
        space (`str`): where the voxels are: `"native"`, `"fsaverage"`, `"fsaverage6"`, ...; a model with one head for
            several participants needs a common one.
        source (`str`): where the recording comes from.
        licence (`str`): of the recording.
        repeats (`np.ndarray` of shape `(K, R, X)`, *optional*): single presentations, for the noise ceiling.

    Raises:
        ValueError: naming the run and what is wrong with it.
    """

    participant_id: str
    story_id: str
    split: str
    responses: np.ndarray
    tr_times_s: np.ndarray
    tr_s: float
    space: str
    source: str
    licence: str
    repeats: np.ndarray | None = None

    def __post_init__(self) -> None:
        """Check shapes and values."""
        name = f"participant {self.participant_id}, story {self.story_id}"
        for column in ("participant_id", "story_id", "space", "source", "licence"):
            value = getattr(self, column)
            if not isinstance(value, str) or not value.strip():
                raise ValueError(f"{name}: {column} must be a non-empty string, got {value!r}")
            if column in ("participant_id", "story_id") and Path(value).name != value:
                raise ValueError(f"{name}: {column} names a file and must hold no '/', got {value!r}")
        if self.split not in SPLITS:
            raise ValueError(f"{name}: split is {self.split!r}; expected one of {', '.join(SPLITS)}")
        if self.responses.ndim != 2 or 0 in self.responses.shape or self.responses.dtype != np.float32:
            raise ValueError(
                f"{name}: responses have shape {self.responses.shape} and dtype {self.responses.dtype}; expected "
                "float32 of shape (TRs, voxels)"
            )
        if self.tr_times_s.shape != (len(self.responses),):
            raise ValueError(f"{name}: {self.tr_times_s.shape} times for {len(self.responses)} TRs of responses")
        if not (self.tr_s > 0 and np.all(np.diff(self.tr_times_s) > 0)):
            raise ValueError(f"{name}: tr_s is {self.tr_s} and times must increase")
        if not np.isfinite(self.responses.sum(axis=0, dtype=np.float64)).all():
            raise ValueError(f"{name}: responses hold NaN or infinity; repair or mask these voxels")
        if self.repeats is not None and (self.repeats.ndim != 3 or self.repeats.shape[1:] != self.responses.shape):
            raise ValueError(
                f"{name}: repeats have shape {self.repeats.shape}; expected (repeats, {len(self.responses)}, "
                f"{self.responses.shape[1]})"
            )


def write_run(folder: str | os.PathLike[str], run: StoryRun) -> Path:
    """Write a run to its place in a folder of stories.

    Args:
        folder (`str`): the folder of stories.
        run ([`StoryRun`]): the run.

    Returns:
        `Path`: the file.
    """
    from safetensors.numpy import save

    arrays = {"responses": run.responses, "tr_times_s": run.tr_times_s.astype(np.float64)}
    if run.repeats is not None:
        arrays["repeats"] = run.repeats.astype(np.float32)
    facts = ("participant_id", "story_id", "split", "tr_s", "space", "source", "licence")
    metadata = {"story_run": json.dumps({name: getattr(run, name) for name in facts})}
    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()}, metadata)
    return write_bytes(Path(folder) / "runs" / run.participant_id / f"{run.story_id}.safetensors", content)


def read_run(
    folder: str | os.PathLike[str], participant_id: str, story_id: str, with_repeats: bool = False
) -> StoryRun:
    """Read a run.

    Args:
        folder (`str`): the folder of stories.
        participant_id (`str`): whose.
        story_id (`str`): which.
        with_repeats (`bool`): also read single presentations, which are several times as large.

    Returns:
        [`StoryRun`].

    Raises:
        FileNotFoundError: naming the stories that the participant has.
        ValueError: if the file is not a run.
    """
    from safetensors import SafetensorError, safe_open

    path = Path(folder) / "runs" / participant_id / f"{story_id}.safetensors"
    if not path.is_file():
        known = ", ".join(list_runs(folder).get(participant_id, [])) or "no stories"
        raise FileNotFoundError(f"there is no {path}; {participant_id} has {known}")
    try:
        with safe_open(path, framework="numpy") as file:
            facts = json.loads((file.metadata() or {})["story_run"])
            repeats = file.get_tensor("repeats") if with_repeats and "repeats" in file.keys() else None  # noqa: SIM118
            return StoryRun(
                **facts, responses=file.get_tensor("responses"), tr_times_s=file.get_tensor("tr_times_s"),
                repeats=repeats,
            )  # fmt: skip
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{path} is not a story run ({error!r}); convert it again") from error


def list_runs(folder: str | os.PathLike[str]) -> dict[str, list[str]]:
    """List the runs of a folder.

    Args:
        folder (`str`): the folder of stories.

    Returns:
        `dict[str, list[str]]`: participants and their stories, both sorted.

    Raises:
        FileNotFoundError: if the folder holds no runs.
    """
    found: dict[str, list[str]] = {}
    for path in sorted((Path(folder) / "runs").glob("*/*.safetensors")):
        found.setdefault(path.parent.name, []).append(path.stem)
    if not found:
        raise FileNotFoundError(f"{folder} holds no runs/<participant>/<story>.safetensors; make them with a converter")
    return found


def write_story(folder: str | os.PathLike[str], story_id: str, audio: np.ndarray) -> Path:
    """Write the sound of a story.

    Args:
        folder (`str`): the folder of stories.
        story_id (`str`): its name.
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples between -1 and 1.

    Returns:
        `Path`: the wav file, 16 bits.

    Raises:
        ValueError: if the samples are not finite, or beyond -1 to 1.
    """
    if audio.ndim != 1 or not len(audio) or not np.isfinite(audio).all() or np.abs(audio).max() > 1.0:
        raise ValueError(f"{story_id}: audio must be finite samples of shape (S,) between -1 and 1")
    samples = np.round(audio * 32767).astype("<i2")
    path = Path(folder) / "stories" / f"{story_id}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with wave.open(str(temporary), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(SAMPLING_RATE)
            file.writeframes(samples.tobytes())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def read_wav(path: str | os.PathLike[str]) -> np.ndarray:
    """Read a 16-bit wav file as mono at 16 kHz.

    Args:
        path (`str`): the file; channels are averaged, and other rates resampled.

    Returns:
        `np.ndarray` of shape `(S,)`: float32 between -1 and 1.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no 16-bit wav file.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no sound file {path}")
    try:
        with wave.open(str(path), "rb") as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            content = file.readframes(file.getnframes())
    except (wave.Error, EOFError) as error:
        raise ValueError(f"{path} is not a wav file ({error}); convert it, for example with ffmpeg") from error
    if width != 2:
        raise ValueError(f"{path} has {8 * width} bits per sample; convert it to 16, for example with ffmpeg")
    audio = np.frombuffer(content, dtype="<i2").reshape(-1, channels).mean(axis=1, dtype=np.float64) / 32767
    if rate != SAMPLING_RATE:
        from bit_speech.import_utils import require

        require("scipy")
        from scipy.signal import resample_poly

        common = int(np.gcd(rate, SAMPLING_RATE))
        audio = resample_poly(audio, SAMPLING_RATE // common, rate // common)
    return np.clip(audio, -1.0, 1.0).astype(np.float32)


def read_story(folder: str | os.PathLike[str], story_id: str) -> np.ndarray:
    """Read the sound of a story.

    Args:
        folder (`str`): the folder of stories.
        story_id (`str`): its name.

    Returns:
        `np.ndarray` of shape `(S,)`: float32 at 16 kHz.

    Raises:
        FileNotFoundError: if the folder lacks the story.
    """
    return read_wav(Path(folder) / "stories" / f"{story_id}.wav")


def write_words(folder: str | os.PathLike[str], story_id: str, tiers: dict[str, list[Interval]]) -> Path:
    """Write the words (and sounds) of a story beside its sound.

    Args:
        folder (`str`): the folder of stories.
        story_id (`str`): its name.
        tiers (`dict[str, list[Interval]]`): such as `{"word": [...], "phone": [...]}`.

    Returns:
        `Path`: the JSON file.
    """
    rows = {name: [[i.start_s, i.stop_s, i.text] for i in intervals] for name, intervals in tiers.items()}
    return write_json(Path(folder) / "stories" / f"{story_id}.json", rows)


def read_words(folder: str | os.PathLike[str], story_id: str) -> dict[str, list[Interval]]:
    """Read the words (and sounds) of a story.

    Args:
        folder (`str`): the folder of stories.
        story_id (`str`): its name.

    Returns:
        `dict[str, list[Interval]]`: tiers as they were written.

    Raises:
        FileNotFoundError: if nothing was aligned for the story.
    """
    path = Path(folder) / "stories" / f"{story_id}.json"
    if not path.is_file():
        raise FileNotFoundError(f"there is no {path}; the source had no alignment of {story_id}")
    rows = json.loads(path.read_text(encoding="utf-8"))
    return {name: [Interval(*row) for row in intervals] for name, intervals in rows.items()}
