"""Your own participant: a folder of NPZ, HDF5 or NWB files and a small YAML file -> trials.

python -m datasets_scripts.convert_participant --example > my_participant.yaml      # then edit it
python -m datasets_scripts.convert_participant --config my_participant.yaml --output_dir runs/p01
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from bit_speech.data.conversion import ConversionReport, Problem, ShardPlan, SourceDescription, run_conversion
from bit_speech.data.recordings import FORMATS, NwbRecording, Recording, open_recording
from bit_speech.data.schema import SPLITS
from datasets_scripts.command import converter_parser, run_converter

TRIALS = ("file", "group", "interval")
TIMES = ("seconds", "bins", "matlab")
FIELDS = ("features", "session", "block", "trial", "text", "phonemes", "split", "start", "stop", "timestamps")
SPLIT_NAMES = {"train": "train", "training": "train", "val": "validation", "validation": "validation", "test": "test"}

EXAMPLE = """\
# bit-speech convert participant --config this_file.yaml --output_dir runs/p01
participant_id: p01
title: Attempted speech of p01        # for the dataset card
source: recorded in our laboratory    # a DOI if there is one
licence: unknown                      # an SPDX name such as CC-BY-4.0, or unknown
species: human
task: attempted_speech                # imagined_speech, handwriting, reaching, ...
bin_size_ms: 20

format: npz                           # npz, hdf5 or nwb
files: "*.npz"                        # relative to the folder of this file, or to --input_dir
trials: file                          # file: a file is a trial; group: an HDF5 group is a trial;
                                      # interval: a file is a recording, trials are stretches of it
feature_layout: bins_channels         # channels_bins when time is the second axis

channels:                             # in the order of the columns
  - {count: 128, kind: threshold_crossings, area: 6v}
  - {count: 128, kind: spike_band_power, area: 6v}

# Where things are. A name: what the file calls it. {value: x}: the same everywhere.
# {pattern: '...'}: from the file's name without its ending, the one group of a regular expression.
fields:
  features: neural                    # NWB: a time series, or 'units' to count spikes
  session: {pattern: '(p01\\.\\d+\\.\\d+\\.\\d+)_'}
  block: block
  trial: trial                        # optional; default: counted within the session
  text: sentence                      # optional
  # phonemes: arpabet                 # optional: 'HH AH L OW SIL', SIL after every word
  # split: split                      # optional: train, val(idation) or test
  # start: start_time                 # trials: interval only
  # stop: stop_time
  # timestamps: time                  # optional: start of every bin in seconds; default: i * bin_size_ms
# times: seconds                      # unit of start and stop: seconds; bins (from 0, stop excluded);
                                      # matlab (bins from 1, stop included)

# Without a field 'split': what is held out, by session and block (or 'all'); everything else trains.
held_out:
  validation: {p01.2024.01.08: [4]}
  test: {p01.2024.01.15: all}
"""


@dataclass(frozen=True)
class ParticipantConfig:
    """Where a participant's files keep what a trial needs; see `--example` for every key.

    Attributes:
        participant_id (`str`): name of the participant.
        files (`str`): pattern of file names.
        fields (`dict`): where features, session, block, ... are.
        channels (`list[dict]`): `count`, `kind` and `area` of runs of channels, in the order of the columns.
        format (`str`): `"npz"`, `"hdf5"` or `"nwb"`.
        trials (`str`): `"file"`, `"group"` or `"interval"`.
        times (`str`): unit of start and stop: `"seconds"`, `"bins"` or `"matlab"`.
        feature_layout (`str`): `"bins_channels"` or `"channels_bins"`.
        bin_size_ms (`float`): length of a bin in milliseconds.
        species (`str`): such as `"human"`.
        task (`str`): such as `"attempted_speech"`.
        title (`str`): for the dataset card.
        source (`str`): where the recordings come from.
        licence (`str`): SPDX name, or `"unknown"`.
        held_out (`dict`): split -> session -> blocks, or `"all"`.
    """

    participant_id: str
    files: str
    fields: Mapping[str, Any]
    channels: Sequence[Mapping[str, Any]]
    format: str
    trials: str = "file"
    times: str = "seconds"
    feature_layout: str = "bins_channels"
    bin_size_ms: float = 20.0
    species: str = "human"
    task: str = "attempted_speech"
    title: str = ""
    source: str = "unknown"
    licence: str = "unknown"
    held_out: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse what cannot work before any file is opened."""
        for name, known in (
            ("format", FORMATS),
            ("trials", TRIALS),
            ("times", TIMES),
            ("feature_layout", ("bins_channels", "channels_bins")),
        ):
            if getattr(self, name) not in known:
                raise ValueError(f"{name} is {getattr(self, name)!r}; choose one of {', '.join(known)}")
        if self.trials == "group" and self.format != "hdf5":
            raise ValueError("trials: group needs format: hdf5")
        unknown = [name for name in self.fields if name not in FIELDS]
        if unknown:
            raise ValueError(f"fields: unknown {', '.join(unknown)}; there are {', '.join(FIELDS)}")
        needed = ["features", "session", "block", *(["start", "stop"] if self.trials == "interval" else [])]
        missing = [name for name in needed if name not in self.fields]
        if missing:
            raise ValueError(f"fields: {', '.join(missing)} missing; trials: {self.trials} needs {', '.join(needed)}")
        for name, place in self.fields.items():
            if not isinstance(place, str) and (
                not isinstance(place, Mapping) or len(place) != 1 or set(place) - {"value", "pattern"}
            ):
                raise ValueError(f"fields: {name} is {place!r}; give a name, {{value: ...}} or {{pattern: ...}}")
            if isinstance(place, Mapping) and "pattern" in place and re.compile(place["pattern"]).groups != 1:
                raise ValueError(f"fields: the pattern of {name} needs exactly one (group): {place['pattern']!r}")
        for run in self.channels:
            if set(run) != {"count", "kind", "area"} or not isinstance(run["count"], int) or run["count"] < 1:
                raise ValueError(f"channels: {dict(run)!r}; every entry has count (a positive integer), kind and area")
        if not self.channels:
            raise ValueError("channels: empty; give count, kind and area of the columns")
        wrong = [name for name in self.held_out if name not in SPLITS or name == "train"]
        if wrong:
            raise ValueError(f"held_out: unknown split {wrong[0]!r}; give validation or test")
        if self.held_out and "split" in self.fields:
            raise ValueError("give either fields: split or held_out, not both")

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> ParticipantConfig:
        """Read a configuration file.

        Args:
            path (`str`): the YAML file.

        Returns:
            `ParticipantConfig`: checked.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: naming the key and what it should be.
        """
        path = Path(path)
        if not path.is_file():
            raise FileNotFoundError(f"no file {str(path)!r}: write one, starting from --example")
        try:
            values = yaml.safe_load(path.read_text(encoding="utf-8"))
        except yaml.YAMLError as error:
            raise ValueError(f"{path.name} is no valid YAML: {error}") from error
        if not isinstance(values, dict):
            raise ValueError(f"{path.name} holds no keys: start from --example")
        known = [entry.name for entry in fields(cls)]
        unknown = [str(key) for key in values if key not in known]
        if unknown:
            raise ValueError(f"{path.name}: unknown key(s) {', '.join(unknown)}; there are {', '.join(known)}")
        required = ("participant_id", "files", "fields", "channels", "format")
        missing = [key for key in required if key not in values]
        if missing:
            raise ValueError(f"{path.name}: missing key(s) {', '.join(missing)}; see --example")
        try:
            return cls(**values)
        except (ValueError, re.error) as error:
            raise ValueError(f"{path.name}: {error}") from error

    @property
    def num_channels(self) -> int:
        """Feature channels C."""
        return sum(run["count"] for run in self.channels)

    def names(self, key: str) -> list[str]:
        """Kind or area of every channel.

        Args:
            key (`str`): `"kind"` or `"area"`.

        Returns:
            `list[str]`: one name per channel.
        """
        return [str(run[key]) for run in self.channels for _ in range(run["count"])]


@dataclass(frozen=True)
class _Found:
    """One trial in a file: who it is, and how to get its features once the file is open."""

    session_id: str
    block_index: int
    trial_index: int | None
    split: str
    text: str | None
    phonemes: str | None
    load: Callable[[], np.ndarray]


def convert(
    config: str | os.PathLike[str] | ParticipantConfig,
    output_dir: str | os.PathLike[str],
    *,
    input_dir: str | os.PathLike[str] | None = None,
    allow_partial: bool = False,
    compression: str = "lz4",
    progress: bool = True,
) -> ConversionReport:
    """Convert the recordings of one participant.

    Args:
        config (`str` or `ParticipantConfig`): the YAML file that says where things are.
        output_dir (`str`): dataset to write; a run that was stopped is continued.
        input_dir (`str`, *optional*): folder of the recordings; default the folder of the YAML file.
        allow_partial (`bool`, defaults to False): leave broken files and trials out, and list them.
        compression (`str`, defaults to `"lz4"`): of the Parquet files: `"lz4"`, `"zstd"`, `"snappy"`, `"none"`.
        progress (`bool`, defaults to True): show a progress bar.

    Returns:
        `ConversionReport`: counts, what was left out, and what the splits share.

    Raises:
        FileNotFoundError: when a file or folder does not exist.
        ValueError: when the configuration is wrong, or a file or trial is broken and `allow_partial` is off; naming
            file, trial and value.

    Example:
        ```python
        report = convert("my_participant.yaml", "runs/p01")
        trials = load_trials("runs/p01")
        ```
    """
    if isinstance(config, ParticipantConfig):
        if input_dir is None:
            raise ValueError("give input_dir, the folder of the recordings, when config is not a file")
        settings, folder = config, Path(input_dir)
    else:
        settings = ParticipantConfig.from_yaml(config)
        folder = Path(config).parent if input_dir is None else Path(input_dir)
    paths = sorted(folder.glob(settings.files))
    if not paths:
        raise FileNotFoundError(f"no file {settings.files!r} in {str(folder)!r}")
    plans, problems = _plan(settings, folder, paths)
    if problems and not allow_partial:
        raise ValueError(f"{problems[0]}. Repair it, or pass allow_partial=True (--allow_partial) to leave it out")
    if not plans:
        raise ValueError(f"nothing to convert: {problems[0]}")
    return run_conversion(
        output_dir,
        plans,
        num_channels=settings.num_channels,
        source=SourceDescription(
            converter="participant",
            title=settings.title or f"Trials of {settings.participant_id}",
            licence=settings.licence,
            description=f"{settings.participant_id} ({settings.species}), {settings.task}. Source: {settings.source}.",
            # Whatever changes in the YAML file may change what is written.
            options={"config": json.loads(json.dumps(asdict(settings), default=str))},
        ),
        problems=problems,
        allow_partial=allow_partial,
        compression=compression,
        progress=progress,
    )


def _plan(config: ParticipantConfig, folder: Path, paths: Sequence[Path]) -> tuple[list[ShardPlan], list[Problem]]:
    problems: list[Problem] = []
    # Shard -> its files and, for each, the numbers of its trials, which count on over the files of a session.
    shards: dict[tuple[str, str], dict[str, Path]] = {}
    counts: dict[tuple[str, str], int] = {}
    numbers: dict[tuple[str, int], int] = {}
    next_number: dict[str, int] = {}
    for path in paths:
        name = path.relative_to(folder).as_posix()
        try:
            for position, found in enumerate(_trials(config, path, name)):
                if isinstance(found, Problem):
                    problems.append(found)
                    continue
                key = (found.split, found.session_id)
                shards.setdefault(key, {})[name] = path
                counts[key] = counts.get(key, 0) + 1
                number = next_number.get(found.session_id, 0) if found.trial_index is None else found.trial_index
                numbers[(name, position)] = number
                next_number[found.session_id] = number + 1
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            problems.append(Problem(name, "", str(error)))
    plans = [
        ShardPlan(
            split=split,
            session_id=session,
            sources=files,
            num_trials=counts[(split, session)],
            read=partial(_rows, config, split, session, files, numbers),
            require_text=split != "test" and ("text" in config.fields),
        )
        for (split, session), files in shards.items()
    ]
    return plans, problems


def _rows(
    config: ParticipantConfig,
    split: str,
    session: str,
    files: Mapping[str, Path],
    numbers: Mapping[tuple[str, int], int],
) -> Iterator[dict[str, Any] | Problem]:
    kinds, areas = config.names("kind"), config.names("area")
    for name, path in files.items():
        for position, found in enumerate(_trials(config, path, name)):
            # Problems of this step were listed when planning.
            if isinstance(found, Problem) or (found.split, found.session_id) != (split, session):
                continue
            try:
                features = found.load()
            except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
                yield Problem(name, f"trial {numbers[(name, position)]}", str(error))
                continue
            yield {
                "participant_id": config.participant_id,
                "session_id": session,
                "block_index": found.block_index,
                "trial_index": numbers[(name, position)],
                "split": split,
                "features": features,
                "bin_size_ms": float(config.bin_size_ms),
                "feature_kinds": kinds,
                "channel_areas": areas,
                "species": config.species,
                "task": config.task,
                "text": found.text,
                "phonemes": found.phonemes,
                "source": f"{config.source} {name}",
                "licence": config.licence,
            }


def _trials(config: ParticipantConfig, path: Path, name: str) -> Iterator[_Found | Problem]:
    """Every trial of a file; their `load` works until the next one is asked for."""
    with open_recording(path, config.format) as recording:
        if config.trials == "interval":
            yield from _intervals(config, recording, path, name)
            return
        parts = recording.groups() if config.trials == "group" else iter([("", recording)])
        for group, part in parts:
            try:
                yield _found(config, {key: _look_up(config, key, part, path) for key in _IDENTITY}, part)
            except (OSError, ValueError) as error:
                yield Problem(name, group, str(error))


_IDENTITY = ("session", "block", "trial", "text", "phonemes", "split")


def _found(
    config: ParticipantConfig,
    identity: Mapping[str, Any],
    recording: Recording,
    stretch: np.ndarray | slice | None = None,
) -> _Found:
    session = _string(identity["session"], "session")
    block = _integer(identity["block"], "block")
    if session is None or block is None:
        raise ValueError("the session or the block is empty; every trial needs both")
    return _Found(
        session_id=session,
        block_index=block,
        trial_index=_integer(identity["trial"], "trial"),
        split=_split(config, identity["split"], session, block),
        text=_string(identity["text"], "text"),
        phonemes=_string(identity["phonemes"], "phonemes"),
        load=lambda: _features(config, recording, stretch),
    )


def _look_up(config: ParticipantConfig, key: str, recording: Recording, path: Path) -> Any:
    place = config.fields.get(key)
    if place is None:
        return None
    if isinstance(place, str):
        try:
            value = recording.get(place)
        except ValueError as error:
            raise ValueError(f"fields: {key}: {error}") from error
        return value[()] if hasattr(value, "shape") and hasattr(value, "file") else value
    if "value" in place:
        return place["value"]
    match = re.search(place["pattern"], path.stem)
    if match is None:
        raise ValueError(f"fields: {key}: the pattern {place['pattern']!r} is not in the file's name {path.stem!r}")
    return match.group(1)


def _single(value: Any, key: str) -> Any:
    array = np.asarray(value)
    if array.size != 1:
        raise ValueError(f"fields: {key} has {array.size} values where one belongs; 'trials: interval' takes lists")
    value = array.reshape(-1)[0]
    return value.decode("utf-8") if isinstance(value, bytes) else value


def _string(value: Any, key: str) -> str | None:
    if value is None:
        return None
    return str(_single(value, key)).strip() or None


def _integer(value: Any, key: str) -> int | None:
    if value is None:
        return None
    single = _single(value, key)
    try:
        number = float(single)
    except (TypeError, ValueError):
        raise ValueError(f"fields: {key} is {single!r}, which is no number") from None
    if number != int(number):
        raise ValueError(f"fields: {key} is {single!r}, which is no whole number")
    return int(number)


def _split(config: ParticipantConfig, value: Any, session: str, block: int) -> str:
    if value is not None:
        name = str(_single(value, "split")).strip().lower()
        if name not in SPLIT_NAMES:
            raise ValueError(f"fields: split is {name!r}; expected one of {', '.join(SPLIT_NAMES)}")
        return SPLIT_NAMES[name]
    for split, sessions in config.held_out.items():
        blocks = sessions.get(session, ())
        if blocks == "all" or (not isinstance(blocks, str) and block in blocks):
            return split
    return "train"


def _features(config: ParticipantConfig, recording: Recording, stretch: np.ndarray | slice | None) -> np.ndarray:
    place = config.fields["features"]
    if not isinstance(place, str):
        raise ValueError("fields: features must be a name in the file")
    if place == "units" and isinstance(recording, NwbRecording):
        if not isinstance(stretch, np.ndarray):
            raise ValueError("fields: features: units needs 'trials: interval'")
        return recording.spike_counts(stretch, config.bin_size_ms / 1000)
    data = recording.get(place)
    if len(data.shape) != 2:
        raise ValueError(f"features have shape {tuple(data.shape)}; expected two dimensions ({config.feature_layout})")
    part = slice(None) if stretch is None else stretch
    values = np.asarray(data[part] if config.feature_layout == "bins_channels" else data[:, part].T)
    if values.dtype.kind not in "fuib":
        raise ValueError(f"features are {values.dtype}; expected numbers")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(values, dtype=np.float32)


def _intervals(config: ParticipantConfig, recording: Recording, path: Path, name: str) -> Iterator[_Found | Problem]:
    starts, stops = (
        np.asarray(_look_up(config, key, recording, path), dtype=np.float64).reshape(-1) for key in ("start", "stop")
    )
    if len(starts) != len(stops):
        raise ValueError(f"there are {len(starts)} starts and {len(stops)} stops")
    columns = {key: _per_trial(_look_up(config, key, recording, path), len(starts), key) for key in _IDENTITY}
    stretch = _stretches(config, recording, path)
    for index, (start, stop) in enumerate(zip(starts, stops)):
        try:
            identity = {key: values[index] for key, values in columns.items()}
            yield _found(config, identity, recording, stretch(start, stop))
        except (OSError, ValueError) as error:
            yield Problem(name, f"interval {index} ({start:g} to {stop:g})", str(error))


def _per_trial(value: Any, count: int, key: str) -> Sequence[Any]:
    array = np.asarray(value)
    if value is None or array.ndim == 0 or (array.size == 1 and count != 1):
        return [value] * count
    if array.size != count:
        raise ValueError(f"fields: {key} has {array.size} values for {count} intervals")
    return list(array.reshape(-1))


def _stretches(
    config: ParticipantConfig, recording: Recording, path: Path
) -> Callable[[float, float], np.ndarray | slice]:
    """From start and stop of a trial to what is cut out of the recording."""
    place = config.fields["features"]
    bin_size_s = config.bin_size_ms / 1000
    if place == "units":
        if config.times != "seconds":
            raise ValueError("fields: features: units needs times: seconds")
        return lambda start, stop: start + bin_size_s * np.arange(_whole_bins(start, stop, bin_size_s))
    length = recording.get(place).shape[0 if config.feature_layout == "bins_channels" else 1]
    if config.times == "seconds":
        if "timestamps" in config.fields:
            times = np.asarray(_look_up(config, "timestamps", recording, path), dtype=np.float64).reshape(-1)
        elif isinstance(recording, NwbRecording):
            times = recording.times(place)
        else:
            times = np.arange(length) * bin_size_s
        if len(times) != length:
            raise ValueError(f"there are {len(times)} timestamps for {length} bins")
        if np.any(np.diff(times) <= 0):
            raise ValueError("the timestamps do not increase")
        return partial(_by_time, times, bin_size_s)

    def by_bins(start: float, stop: float) -> slice:
        first = int(start) - (1 if config.times == "matlab" else 0)
        if start != int(start) or stop != int(stop) or not 0 <= first <= int(stop) <= length:
            raise ValueError(f"it does not lie in the {length} bins of the recording (times: {config.times})")
        return slice(first, int(stop))

    return by_bins


def _by_time(times: np.ndarray, bin_size_s: float, start: float, stop: float) -> slice:
    # A hair of tolerance: bin starts such as 3 * 0.02 are not exact.
    slack = 1e-6 * bin_size_s
    if not len(times) or start < times[0] - slack or stop > times[-1] + bin_size_s + slack:
        raise ValueError("it does not lie within the recording")
    first, last = np.searchsorted(times, (start - slack, stop - slack))
    return slice(int(first), int(last))


def _whole_bins(start: float, stop: float, bin_size_s: float) -> int:
    return max(0, int((stop - start) / bin_size_s + 1e-6))


def build_parser() -> argparse.ArgumentParser:
    """Build the argument parser of the command.

    Returns:
        `argparse.ArgumentParser`: with help that teaches.
    """
    parser = converter_parser(
        "participant",
        "Your own NPZ, HDF5 or NWB files -> trials in Parquet. A small YAML file says where things are.",
        f"a configuration to start from (--example prints it):\n\n{EXAMPLE}",
    )
    parser.add_argument("--example", action="store_true", help="print a configuration to start from, and stop")
    parser.add_argument("--config", help="the YAML file")
    parser.add_argument("--input_dir", help="folder of the recordings (default: the folder of the YAML file)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments without the program name; default the process's own.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    parser = build_parser()
    arguments = parser.parse_args(argv)
    if arguments.example:
        print(EXAMPLE, end="")
        return 0
    if not arguments.config or not arguments.output_dir:
        parser.error("give --config and --output_dir (or --example)")
    del arguments.example
    return run_converter("participant", convert, arguments)


if __name__ == "__main__":
    sys.exit(main())
