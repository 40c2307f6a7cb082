"""What the converters of iEEG and sound share: files on two clocks in, aligned segments out."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.aligned_segments import SEGMENT_S, check_segment_leakage, split_files, write_segments
from bit_speech.data.audio_features import resample_audio
from bit_speech.data.ieeg_preprocessing import IEEGPreprocessing, preprocess
from bit_speech.data.ieeg_recordings import Recording, open_recording, read_audio
from bit_speech.files import write_json, write_text
from datasets_scripts.command import plain_parser

AUDIO_HZ = 16_000
# Around a border between two splits, so much is left out: the band-pass looks 36 s ahead and back, and nine tenths of
# what it sees lies within 20 s.
GUARD_S = 20.0


@dataclass(frozen=True)
class AlignedFile:
    """A stretch of a recording and the sound of the same time.

    Args:
        participant_id (`str`): whose.
        session_id (`str`): the day.
        file_id (`str`): what a split assigns as a whole.
        recording (`Path` or callable): the iEEG, or what opens it.
        audio (`Path`): the sound.
        clock (`Sequence[tuple[float, float]]`): points (second of the iEEG, second of the sound), rising; between them
            time runs evenly, outside them nothing is known.
        condition (`str`): `ambient`, `clean` or `clean_in_room`.
        bad_channels (`Sequence[str]`): left out.
        positions (`dict[str, tuple]`, *optional*): channel -> x, y, z in metres.
        more (`dict`): what else the report should tell.
    """

    participant_id: str
    session_id: str
    file_id: str
    recording: Path | Callable[[], Recording]
    audio: Path
    clock: Sequence[tuple[float, float]]
    condition: str = "clean"
    bad_channels: Sequence[str] = ()
    positions: dict[str, tuple[float, float, float]] | None = None
    more: dict[str, Any] = field(default_factory=dict)


def cut_blocks(file: AlignedFile, block_s: float) -> list[AlignedFile]:
    """Cut a long file into blocks that splits can tell apart, with a guard between them.

    Args:
        file (`AlignedFile`): the file.
        block_s (`float`): seconds of a block.

    Returns:
        `list[AlignedFile]`: blocks of the same recording; what is shorter than a segment is dropped.
    """
    first, last = file.clock[0][0], file.clock[-1][0]
    blocks = []
    for number in range(max(1, int((last - first) // block_s))):
        start = first + number * block_s + (GUARD_S / 2 if number else 0)
        stop = min(last, first + (number + 1) * block_s - GUARD_S / 2)
        if stop - start >= SEGMENT_S:
            inner = [point for point in file.clock if start < point[0] < stop]
            clock = [(start, sound_time(file.clock, start)), *inner, (stop, sound_time(file.clock, stop))]
            blocks.append(AlignedFile(**{**vars(file), "file_id": f"{file.file_id}_block{number}", "clock": clock}))
    return blocks


def sound_time(clock: Sequence[tuple[float, float]], ieeg_s: float) -> float:
    """Second of the sound at a second of the iEEG.

    Args:
        clock (`Sequence[tuple[float, float]]`): see [`AlignedFile`].
        ieeg_s (`float`): second of the iEEG.

    Returns:
        `float`: second of the sound.

    Example:
        >>> sound_time([(10.0, 0.0), (20.0, 10.001)], 15.0)
        5.0005
    """
    return float(np.interp(ieeg_s, *np.array(clock, dtype=float).T))


def aligned_segments(
    file: AlignedFile,
    split: str,
    values: np.ndarray,
    names: list[str],
    settings: IEEGPreprocessing,
    about: dict[str, str],
) -> Iterator[dict[str, Any]]:
    """Cut the segments of a file out of the filtered recording, with the sound brought to the iEEG's clock.

    Args:
        file (`AlignedFile`): where and when.
        split (`str`): its split.
        values (`np.ndarray` of shape `(T, C)`): the whole recording, filtered.
        names (`list[str]`): of the channels.
        settings (`IEEGPreprocessing`): how it was filtered.
        about (`dict[str, str]`): `source` and `licence`.

    Yields:
        `dict`: rows of [`~bit_speech.data.aligned_segments.segment_features`]; stretches where the sound paused or
        jumped are left out.
    """
    rate = settings.output_hz
    bins = round(SEGMENT_S * rate)
    positions = None
    if file.positions is not None:
        places = [_position(name, file.positions) for name in names]
        positions = [[float(value) for value in place] for place in places]
    first, last = (point[0] for point in (file.clock[0], file.clock[-1]))
    index = 0
    for begin in range(int(np.ceil(first * rate)), int(min(last * rate, len(values))) - bins + 1, bins):
        times = begin / rate, (begin + bins) / rate
        sound = [sound_time(file.clock, second) for second in times]
        inner = [point for point in file.clock if times[0] < point[0] < times[1]]
        points = [(times[0], sound[0]), *inner, (times[1], sound[1])]
        steps = np.diff(np.array(points), axis=0)
        if (np.abs(steps[:, 1] - steps[:, 0]) > 0.01 * np.maximum(steps[:, 0], 1.0)).any():
            continue
        audio, audio_hz = read_audio(file.audio, sound[0], sound[1] - sound[0])
        if len(audio) < 0.99 * (sound[1] - sound[0]) * audio_hz:
            break  # the sound ended
        audio = resample_audio(audio, audio_hz, AUDIO_HZ)
        # The two clocks differ by parts in a million: stretch to the iEEG's.
        wanted = round(SEGMENT_S * AUDIO_HZ)
        audio = np.interp(np.linspace(0, len(audio) - 1, wanted), np.arange(len(audio)), audio)
        yield {
            "participant_id": file.participant_id,
            "session_id": file.session_id,
            "file_id": file.file_id,
            "segment_index": index,
            "start_s": times[0],
            "split": split,
            "condition": file.condition,
            "ieeg": np.array(values[begin : begin + bins], dtype=np.float32),
            "sampling_rate_hz": rate,
            "channel_names": names,
            "channel_positions": positions,
            "audio": np.round(np.clip(audio, -1, 1) * 32767).astype(np.int16),
            "audio_rate_hz": AUDIO_HZ,
            "preprocessing": json.dumps(settings.to_dict(), sort_keys=True),
            **about,
        }
        index += 1


def _position(name: str, positions: dict[str, tuple[float, float, float]]) -> np.ndarray:
    """Of a channel, or the middle of a bipolar pair; NaN where unknown."""
    contacts = [name] if name in positions else name.removesuffix(" gamma").split("-")
    return np.mean([positions.get(contact, (np.nan,) * 3) for contact in contacts], axis=0)


def choose_splits(files: Sequence[AlignedFile], seed: int) -> dict[tuple[str, str], str]:
    """Assign files to splits, for every participant and condition by themselves.

    So a task of few files among days of ambient sound can be trained on, watched and tested, too.

    Args:
        files (`Sequence[AlignedFile]`): what is converted.
        seed (`int`): of the assignment.

    Returns:
        `dict[tuple[str, str], str]`: participant and file -> split; fewer than three files all train.

    Raises:
        ValueError: if two files of a participant have one name.
    """
    splits: dict[tuple[str, str], str] = {}
    for participant, condition in dict.fromkeys((file.participant_id, file.condition) for file in files):
        own = [file.file_id for file in files if (file.participant_id, file.condition) == (participant, condition)]
        twice = sorted(name for name in set(own) if own.count(name) > 1 or (participant, name) in splits)
        if twice:
            raise ValueError(f"{participant} has several recordings of the name {twice[0]!r}: give each its own name")
        chosen = split_files(own, seed=seed) if len(own) >= 3 else dict.fromkeys(own, "train")
        splits |= {(participant, name): split for name, split in chosen.items()}
    return splits


def convert_aligned(
    files: Sequence[AlignedFile],
    output_dir: str | Path,
    settings: IEEGPreprocessing,
    *,
    title: str,
    source: str,
    licence: str,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Filter every recording once, and write a Parquet file for each file or block.

    Args:
        files (`Sequence[AlignedFile]`): what is converted; those of one recording follow each other.
        output_dir (`str`): dataset to write, or to continue: what is there is not made again.
        settings (`IEEGPreprocessing`): how it is filtered.
        title (`str`): of the dataset.
        source (`str`): where the recordings come from.
        licence (`str`): of the recordings.
        seed (`int`): of the splits.
        progress (`bool`): say on standard output what is done.

    Returns:
        `dict`: segments and hours by split, files, and what the leakage check found.

    Raises:
        ValueError: if there is no file, or two have one name.
    """
    if not files:
        raise ValueError("there is no recording to convert: see the layout in --help")
    output = Path(output_dir)
    splits = choose_splits(files, seed)
    written: dict[str, int] = {}
    held: tuple[Any, np.ndarray, list[str]] | None = None
    for file in files:
        split = splits[file.participant_id, file.file_id]
        path = output / "data" / f"{split}-{file.participant_id}-{file.file_id}.parquet"
        if not path.is_file():
            if held is None or held[0] != (file.recording, tuple(file.bad_channels)):
                recording = open_recording(file.recording) if isinstance(file.recording, Path) else file.recording()
                values, names = preprocess(recording, settings, file.bad_channels)
                held = ((file.recording, tuple(file.bad_channels)), values, names)
            rows = aligned_segments(file, split, held[1], held[2], settings, {"source": source, "licence": licence})
            write_segments(path, rows)
        import pyarrow.parquet as pq

        count = pq.ParquetFile(path).metadata.num_rows
        written[split] = written.get(split, 0) + count
        if progress:
            print(f"{path.name}: {count} segments of {SEGMENT_S:g} s", flush=True)
    leakage = check_segment_leakage(_what_leaks(output))
    report: dict[str, Any] = {
        "segments": written,
        "hours": {split: round(count * SEGMENT_S / 3600, 3) for split, count in written.items()},
        "files": [
            {"file": file.file_id, "split": splits[file.participant_id, file.file_id], **file.more} for file in files
        ],
        "leakage": {"files": list(leakage.files), "sounds": leakage.sounds, "overlaps": leakage.overlaps},
        "preprocessing": settings.to_dict(),
    }  # fmt: skip
    write_json(output / "conversion.json", report)
    write_text(output / "README.md", _card(title, source, licence, report))
    if not leakage.ok:
        raise ValueError(
            f"the splits share sound or time ({report['leakage']}): what is heard twice must lie in one split"
        )
    return report


def _what_leaks(folder: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet as pq

    columns = ["participant_id", "file_id", "split", "start_s", "condition", "audio", "audio_rate_hz"]
    for path in sorted(folder.glob("data/*.parquet")):
        for batch in pq.ParquetFile(path).iter_batches(batch_size=8, columns=columns):
            for row in range(batch.num_rows):
                entry = {name: batch.column(name)[row].as_py() for name in columns if name != "audio"}
                yield {**entry, "audio": batch.column("audio")[row].values.to_numpy()}


def _card(title: str, source: str, licence: str, report: dict[str, Any]) -> str:
    hours = ", ".join(f"{split} {value:.2f} h" for split, value in sorted(report["hours"].items()))
    return (
        f"---\nlicense: other\nconfigs:\n- config_name: default\n  data_files: data/*.parquet\n---\n# {title}\n\n"
        f"Aligned segments of {SEGMENT_S:g} s: filtered iEEG and the sound of the same time. {hours}.\n\n"
        f"Source: {source}\n\nLicence: {licence}\n\nPreprocessing: `{json.dumps(report['preprocessing'])}`\n"
    )


def ieeg_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Begin the argument parser of a converter of iEEG and sound.

    Args:
        name (`str`): as in `bit-speech convert NAME`.
        description (`str`): one line.
        epilog (`str`): layout that is read, with examples.

    Returns:
        `argparse.ArgumentParser`: with `--output_dir`, the settings of the filters, `--seed` and `--quiet`.
    """
    parser = plain_parser(name, description, epilog)
    parser.add_argument("--output_dir", required=True, help="dataset to write, or to continue")
    parser.add_argument(
        "--stream", choices=("low", "gamma", "both"), default="low", help="0.05-50 Hz, high gamma, both"
    )
    parser.add_argument("--reference", choices=("none", "average", "bipolar"), default="none")
    parser.add_argument("--notch_hz", type=float, default=50.0, help="mains frequency: 50, or 60")
    parser.add_argument("--seed", type=int, default=0, help="of the splits")
    parser.add_argument("--quiet", action="store_true", help="print nothing but the report")
    return parser


def run_ieeg_converter(
    name: str, find: Callable[[argparse.Namespace], Sequence[AlignedFile]], arguments: argparse.Namespace, **about: str
) -> int:
    """Convert as the arguments say, and print the report.

    Args:
        name (`str`): name of the converter, for messages.
        find (callable): arguments -> the files.
        arguments (`argparse.Namespace`): parsed by [`ieeg_parser`] and what the converter added.
        **about (`str`): `title`, `source`, `licence`.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    try:
        settings = IEEGPreprocessing(
            stream=arguments.stream, reference=arguments.reference, notch_hz=arguments.notch_hz
        )
        report = convert_aligned(
            find(arguments), arguments.output_dir, settings, seed=arguments.seed, progress=not arguments.quiet, **about
        )
    except (ValueError, FileNotFoundError, ImportError, KeyError) as error:
        print(f"convert_{name}: {error}", file=sys.stderr)
        return 2
    print(json.dumps({key: report[key] for key in ("segments", "hours", "leakage")}))
    return 0
