"""What the converters of pretraining corpora share: files -> sessions -> stretches -> datasets of trials.

A converter says what its corpus is ([`Corpus`]) and opens one of its files as a [`Session`]; the rest happens here.
Sessions with the same participant, kinds and areas of channels make one dataset, because a dataset has one number of
channels. A stretch without text that is longer than a segment is cut into segments; a stretch with text stays whole.
"""

from __future__ import annotations

import argparse
import os
import re
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.conversion import ConversionReport, Problem, ShardPlan, SourceDescription, run_conversion
from bit_speech.data.dead_channels import DEAD_CHANNELS_NAME, record_dead_channels
from bit_speech.data.schema import SPIKE_BAND_POWER
from datasets_scripts.command import converter_parser, run_converter
from datasets_scripts.spikes import BIN_SIZE_MS, BIN_SIZE_S, count_spikes, cut, rebin, rebin_factor

SEGMENT_S = 20.0


@dataclass(frozen=True)
class Corpus:
    """Facts about a published corpus.

    Attributes:
        name (`str`): of the converter.
        title (`str`): for the dataset cards.
        citation (`str`): who published it, with DOI.
        data (`str`): identifier of the files.
        licence (`str`): SPDX identifier.
        access (`str`): the command, or the way, to get the files.
        files (`str`): pattern of the files below the input folder.
        species (`str`): `"human"` or `"macaque"`.
        hours (`str`): how much to expect.
        layout (`str`): what is read, what a trial is, and what was assumed.
        leave_out (`tuple[str, ...]`): patterns of file names below the input folder that repeat what other files hold.
    """

    name: str
    title: str
    citation: str
    data: str
    licence: str
    access: str
    files: str
    species: str
    hours: str
    layout: str
    leave_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stretch:
    """A piece of a recording that is to be a trial, or several when it is long.

    Attributes:
        start (`float`): seconds, in the time of its recording.
        stop (`float`): seconds.
        block_index (`int`): block, where the source has blocks.
        split (`str`): split, where the source has splits.
        text (`str`): what was cued, where the source says so.
        task (`str`): task of this stretch; default that of its session.
    """

    start: float
    stop: float
    block_index: int = 0
    split: str = "train"
    text: str | None = None
    task: str | None = None


@dataclass(frozen=True)
class Session:
    """One open file.

    Attributes:
        participant_id (`str`): who was recorded.
        session_id (`str`): when; files with the same name make one session.
        task (`str`): what was done.
        feature_kinds (`list[str]`): kind of every channel.
        channel_areas (`list[str]`): area of every channel.
        stretches (`list[Stretch]`): what there is to convert, in order.
        read (`Callable`): gives the features of a stretch, float32 `(T, C)`, in bins of 20 ms.
        problems (`list[str]`): what cannot be converted.
    """

    participant_id: str
    session_id: str
    task: str
    feature_kinds: Sequence[str]
    channel_areas: Sequence[str]
    stretches: Sequence[Stretch]
    read: Callable[[Stretch], np.ndarray]
    problems: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True)
class CorpusReport:
    """What the conversion of a corpus did.

    Attributes:
        datasets (`dict[str, ConversionReport]`): folder below the output folder -> what was written there.
        dead_channels (`dict[str, dict[str, list[int]]]`): folder -> session -> its dead channels.
    """

    datasets: Mapping[str, ConversionReport]
    dead_channels: Mapping[str, Mapping[str, Sequence[int]]]

    def __str__(self) -> str:
        """Sum it up in a few lines."""
        lines = []
        for name, report in self.datasets.items():
            hours = sum(split["num_bins"] for split in report.splits.values()) * BIN_SIZE_S / 3600
            sessions, dead = self.dead_channels[name], 0
            dead = sum(bool(channels) for channels in sessions.values())
            lines.append(f"{report}\n{hours:.2f} h; {dead} of {len(sessions)} sessions have dead channels")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON can hold it.

        Returns:
            `dict`: folder -> what [`ConversionReport.to_dict`] gives, and the dead channels of each session.
        """
        found = {}
        for name, report in self.datasets.items():
            dead = {session: list(map(int, channels)) for session, channels in self.dead_channels[name].items()}
            found[name] = {**report.to_dict(), "dead_channels": dead}
        return found


Opener = Callable[[Path], AbstractContextManager[Session]]


def spike_reader(load: Callable[[], Sequence[np.ndarray]]) -> Callable[[Stretch], np.ndarray]:
    """Make a reader that counts spikes; they are loaded when the first stretch is read.

    Args:
        load (`Callable`): gives the spike times of every channel, seconds, ascending.

    Returns:
        `Callable`: from a stretch to its counts, float32 `(T, C)`.
    """
    loaded: list[Sequence[np.ndarray]] = []

    def read(stretch: Stretch) -> np.ndarray:
        if not loaded:
            loaded.append(load())
        return count_spikes(loaded[0], stretch.start, stretch.stop)

    return read


def bin_reader(
    load: Callable[[], np.ndarray], kinds: Sequence[str], bin_size_s: float
) -> Callable[[Stretch], np.ndarray]:
    """Make a reader of a recording that is binned already, in bins of 20 ms or a part of that.

    Args:
        load (`Callable`): gives the features, `(T, C)`; its bin i is the stretch from `i * bin_size_s` on.
        kinds (`list[str]`): kind of every channel.
        bin_size_s (`float`): length of its bins, seconds.

    Returns:
        `Callable`: from a stretch to its features, float32 `(T, C)`.

    Raises:
        ValueError: when 20 ms is not a multiple of the bin size.
    """
    factor = rebin_factor(bin_size_s)
    loaded: list[np.ndarray] = []

    def read(stretch: Stretch) -> np.ndarray:
        if not loaded:
            loaded.append(load())
        first, last = round(stretch.start / bin_size_s), round(stretch.stop / bin_size_s)
        if not 0 <= first <= last <= len(loaded[0]):
            raise ValueError(f"it is from bin {first} to bin {last}, but the recording has {len(loaded[0])} bins")
        return rebin(loaded[0][first:last], kinds, factor)

    return read


@dataclass
class _Dataset:
    """Sessions with the same channels, while planning."""

    kinds: tuple[str, ...]
    areas: tuple[str, ...]
    # (split, session) -> its files and number of trials.
    shards: dict[tuple[str, str], dict[str, Path]] = field(default_factory=dict)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)


def convert_corpus(
    corpus: Corpus,
    open_session: Opener,
    input_dir: str | os.PathLike[str],
    output_dir: str | os.PathLike[str],
    *,
    segment_s: float = SEGMENT_S,
    allow_partial: bool = False,
    compression: str = "lz4",
    progress: bool = True,
) -> CorpusReport:
    """Convert a corpus: one dataset of trials for every participant and arrangement of channels.

    Args:
        corpus (`Corpus`): what it is.
        open_session (`Callable`): opens one of its files as a [`Session`].
        input_dir (`str`): folder of the files, as they were downloaded.
        output_dir (`str`): folder of the datasets to write; a run that was stopped is continued.
        segment_s (`float`, defaults to 20): a stretch without text that is longer is cut into segments of this length.
        allow_partial (`bool`, defaults to False): leave broken files and trials out, and list them.
        compression (`str`, defaults to `"lz4"`): of the Parquet files: `"lz4"`, `"zstd"`, `"snappy"`, `"none"`.
        progress (`bool`, defaults to True): show a progress bar.

    Returns:
        `CorpusReport`: what was written, and the dead channels, which are also in `dead_channels.json` of each dataset.

    Raises:
        FileNotFoundError: when there is no such folder or no such file in it.
        ValueError: when a file has another layout or a trial is broken, and `allow_partial` is off; naming file and
            what was found instead.
    """
    if not segment_s >= 1:
        raise ValueError(f"segment_s is {segment_s!r}; give at least 1 second")
    folder = Path(input_dir)
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {str(folder)!r}: get the files first ({corpus.access})")
    paths = [
        path
        for path in sorted(folder.glob(corpus.files))
        if path.is_file() and not any(path.match(pattern) for pattern in corpus.leave_out)
    ]
    if not paths:
        raise FileNotFoundError(f"{str(folder)!r} holds no {corpus.files}: get the files first ({corpus.access})")
    datasets, numbers, problems = _plan(corpus, folder, paths, open_session, segment_s)
    if problems and not allow_partial:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise ValueError(
            f"{problems[0]}{more}. Repair or download it again, or pass allow_partial=True (--allow_partial) to leave "
            "it out"
        )
    if not datasets:
        raise ValueError(f"nothing to convert: {problems[0] if problems else 'no trial found'}")
    reports, dead = {}, {}
    for name, dataset in datasets.items():
        plans = [
            ShardPlan(
                split=split,
                session_id=session,
                sources=files,
                num_trials=dataset.counts[(split, session)],
                read=partial(_rows, corpus, open_session, segment_s, numbers, split, files),
            )
            for (split, session), files in dataset.shards.items()
        ]
        reports[name] = run_conversion(
            Path(output_dir) / name,
            plans,
            num_channels=len(dataset.kinds),
            source=_description(corpus, name, segment_s),
            problems=problems,
            allow_partial=allow_partial,
            compression=compression,
            progress=progress,
        )
        dead[name] = record_dead_channels(Path(output_dir) / name)
    return CorpusReport(reports, dead)


def _plan(
    corpus: Corpus, folder: Path, paths: Sequence[Path], open_session: Opener, segment_s: float
) -> tuple[dict[str, _Dataset], dict[str, int], list[Problem]]:
    """Datasets by name, the number of the first trial of every file, and what cannot be converted."""
    datasets: dict[str, _Dataset] = {}
    numbers: dict[str, int] = {}
    next_number: dict[str, int] = {}
    problems: list[Problem] = []
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            with open_session(path) as session:
                pieces = _pieces(session, segment_s)
                problems += [Problem(name, "", reason) for reason in session.problems]
                dataset = _dataset_of(corpus, session, datasets)
        except (OSError, ValueError) as error:
            problems.append(Problem(name, "", str(error)))
            continue
        except (TypeError, KeyError, IndexError) as error:
            # A value of another type or shape than anyone thought of.
            problems.append(Problem(name, "", f"it has another layout ({type(error).__name__}: {error})"))
            continue
        numbers[name] = next_number.get(session.session_id, 0)
        next_number[session.session_id] = numbers[name] + len(pieces)
        for piece in pieces:
            key = (piece.split, session.session_id)
            dataset.shards.setdefault(key, {})[name] = path
            dataset.counts[key] = dataset.counts.get(key, 0) + 1
    return {name: dataset for name, dataset in datasets.items() if dataset.shards}, numbers, problems


def _pieces(session: Session, segment_s: float) -> list[Stretch]:
    pieces = []
    for stretch in session.stretches:
        if stretch.text is not None:
            pieces.append(stretch)
        else:
            pieces += [replace(stretch, start=a, stop=b) for a, b in cut(stretch.start, stretch.stop, segment_s)]
    return pieces


def _dataset_of(corpus: Corpus, session: Session, datasets: dict[str, _Dataset]) -> _Dataset:
    """The dataset that a session belongs to, made when it is the first."""
    kinds, areas = tuple(session.feature_kinds), tuple(session.channel_areas)
    plain = name = _dataset_name(f"{corpus.name}_{session.participant_id}", kinds, areas)
    number = 1
    # Two arrangements of the same areas.
    while name in datasets and (datasets[name].kinds, datasets[name].areas) != (kinds, areas):
        number += 1
        name = f"{plain}_{number}"
    return datasets.setdefault(name, _Dataset(kinds, areas))


def _dataset_name(whose: str, kinds: Sequence[str], areas: Sequence[str]) -> str:
    counts: dict[str, int] = {}
    for kind, area in zip(kinds, areas, strict=True):
        counts[area] = counts.get(area, 0) + (kind != SPIKE_BAND_POWER)
    power = ["power"] if SPIKE_BAND_POWER in kinds else []
    words = [whose, *(f"{area}-{count}" for area, count in counts.items()), *power]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", "_".join(words))


def _rows(
    corpus: Corpus,
    open_session: Opener,
    segment_s: float,
    numbers: Mapping[str, int],
    split: str,
    files: Mapping[str, Path],
) -> Iterator[dict[str, Any] | Problem]:
    for name, path in files.items():
        with open_session(path) as session:
            kinds, areas = list(session.feature_kinds), list(session.channel_areas)
            for number, piece in enumerate(_pieces(session, segment_s), numbers[name]):
                if piece.split != split:
                    continue
                try:
                    features = session.read(piece)
                except (OSError, ValueError) as error:
                    yield Problem(name, f"{piece.start:.2f} s to {piece.stop:.2f} s", str(error))
                    continue
                yield {
                    "participant_id": session.participant_id,
                    "session_id": session.session_id,
                    "block_index": piece.block_index,
                    "trial_index": number,
                    "split": piece.split,
                    "features": features,
                    "bin_size_ms": BIN_SIZE_MS,
                    "feature_kinds": kinds,
                    "channel_areas": areas,
                    "species": corpus.species,
                    "task": piece.task or session.task,
                    "text": piece.text,
                    "phonemes": None,
                    "source": f"{corpus.data} {name}",
                    "licence": corpus.licence,
                }


def _description(corpus: Corpus, name: str, segment_s: float) -> SourceDescription:
    return SourceDescription(
        converter=corpus.name,
        title=f"{corpus.title}: {name}",
        licence=corpus.licence,
        description=f"{corpus.citation} Data: {corpus.data}, {corpus.licence}.",
        notes=(
            corpus.layout,
            f"Stretches without text are cut into segments of {segment_s:g} s that do not overlap. Counts of all units "
            f"of an electrode are added up. `{DEAD_CHANNELS_NAME}` lists the channels of each session that hold one "
            "value throughout; nothing was filled in or left out for that.",
        ),
        options={"segment_s": segment_s},
    )


def build_parser(corpus: Corpus) -> argparse.ArgumentParser:
    """Build the argument parser of a converter of a corpus.

    Args:
        corpus (`Corpus`): what it is.

    Returns:
        `argparse.ArgumentParser`: its help says what the corpus is, where it is, and what is read.
    """
    epilog = f"""\
{textwrap.fill(corpus.citation, 110)}

data:     {corpus.data} ({corpus.licence})
get it:   {corpus.access}
expect:   {corpus.hours}
files:    <input_dir>/{corpus.files}

{textwrap.fill(corpus.layout, 110)}

what is written: <output_dir>/{corpus.name}_<participant>_<areas>/, one dataset of trials for every participant and
                 arrangement of channels, each with {DEAD_CHANNELS_NAME}.
A run that was stopped goes on where it stopped: give the same command again.

example:
  bit-speech convert {corpus.name} --input_dir raw/{corpus.name} --output_dir trials
"""
    parser = converter_parser(
        corpus.name, f"{corpus.title} -> trials in Parquet.", epilog, input_help="folder of the files, as downloaded"
    )
    parser.add_argument(
        "--segment_s",
        type=float,
        default=SEGMENT_S,
        help=f"length in seconds of the segments of stretches without text (default: {SEGMENT_S:g})",
    )
    return parser


def run_command(corpus: Corpus, open_session: Opener, argv: Sequence[str] | None = None) -> int:
    """Run the command of a converter of a corpus.

    Args:
        corpus (`Corpus`): what it is.
        open_session (`Callable`): opens one of its files as a [`Session`].
        argv (`list[str]`, *optional*): arguments without the program name; default the process's own.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    convert = partial(convert_corpus, corpus, open_session)
    return run_converter(corpus.name, convert, build_parser(corpus).parse_args(argv))
