"""Any BIDS folder of iEEG recorded while something was heard, and the sound files -> aligned segments.

    python -m datasets_scripts.convert_bids_ieeg_audio --input_dir ds00xxxx --audio stimuli/a.wav --output_dir segments

Source: your own; iEEG-BIDS, Holdgraf et al. 2019, doi:10.1038/s41597-019-0105-7.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bit_speech.data.ieeg_recordings import MNERecording, Recording, open_recording
from datasets_scripts.aligned_recordings import AlignedFile, cut_blocks, ieeg_parser, run_ieeg_converter

_SUFFIXES = (".edf", ".vhdr", ".fif", ".set")
_INVASIVE = ("SEEG", "ECOG", "DBS", "EEG")
EPILOG = """\
read:
  sub-*/[ses-*/]ieeg/*_ieeg.{edf,vhdr,fif,set}   the recordings
  *_channels.tsv     name, type (SEEG, ECOG, ...), status (bad channels are left out)
  *_electrodes.tsv   name, x, y, z; the unit from *_coordsystem.json (m, cm or mm)
  *_events.tsv       onset, and stim_file where a sound begins (relative to stimuli/)
Without stim_file in the events, give --audio: one sound, from --onset_s on, or from the first event named --event.
Recordings are cut into blocks of --block_min minutes, each in one split, with 20 s left out between blocks.
"""


def read_table(path: Path) -> list[dict[str, str]]:
    """Read a BIDS table.

    Args:
        path (`Path`): a `.tsv` file; one that is missing is empty.

    Returns:
        `list[dict[str, str]]`: its rows.
    """
    if not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def beside(recording: Path, suffix: str) -> Path:
    """The file that belongs to a recording, by BIDS's rule that a more general name applies too.

    Args:
        recording (`Path`): `sub-01_ses-a_task-x_run-1_ieeg.edf`.
        suffix (`str`): such as `channels.tsv`.

    Returns:
        `Path`: the most specific one that is there; its own name if there is none.
    """
    parts = recording.name.split("_")[:-1]
    own = recording.with_name("_".join([*parts, suffix]))
    # Electrodes belong to a session, not to a task; a space may stand in the name.
    general = [part for part in parts if part.startswith(("sub-", "ses-"))]
    of_session = recording.with_name("_".join([*general, suffix]))
    for candidate in (own, of_session, *sorted(recording.parent.glob(f"*_{suffix}"))):
        if candidate.is_file():
            return candidate
    return own


def positions_of(recording: Path) -> dict[str, tuple[float, float, float]] | None:
    """Positions of the electrodes in metres.

    Args:
        recording (`Path`): the recording.

    Returns:
        `dict[str, tuple[float, float, float]]`, *optional*: name -> x, y, z; None if there is no table.
    """
    rows = read_table(beside(recording, "electrodes.tsv"))
    if not rows:
        return None
    system = beside(recording, "coordsystem.json")
    unit = json.loads(system.read_text(encoding="utf-8")).get("iEEGCoordinateUnits", "mm") if system.is_file() else "mm"
    factor = {"m": 1.0, "cm": 1e-2, "mm": 1e-3}.get(unit)
    if factor is None:
        raise ValueError(f"{system.name}: iEEGCoordinateUnits is {unit!r}; expected m, cm or mm")

    def number(text: str | None) -> float:
        return factor * float(text) if text not in (None, "", "n/a") else math.nan

    return {row["name"]: (number(row.get("x")), number(row.get("y")), number(row.get("z"))) for row in rows}


def not_used(recording: Path, names: Sequence[str]) -> list[str]:
    """Channels of a recording that are bad, or no iEEG, by its table.

    Args:
        recording (`Path`): the recording.
        names (`Sequence[str]`): its channels.

    Returns:
        `list[str]`: those to leave out.

    Raises:
        ValueError: if the table names none of the channels.
    """
    rows = {row["name"]: row for row in read_table(beside(recording, "channels.tsv"))}
    if rows and not set(rows) & set(names):
        raise ValueError(f"{beside(recording, 'channels.tsv').name} names none of the channels {list(names)[:5]} ...")
    return [
        name
        for name in names
        if name in rows
        and (rows[name].get("status", "good") == "bad" or rows[name].get("type", "SEEG").upper() not in _INVASIVE)
    ]


def sounds_of(recording: Path, root: Path, arguments: argparse.Namespace) -> list[tuple[float, Path]]:
    """When which sound began.

    Args:
        recording (`Path`): the recording.
        root (`Path`): the BIDS folder.
        arguments (`argparse.Namespace`): `audio`, `onset_s` and `event`.

    Returns:
        `list[tuple[float, Path]]`: second of the iEEG, sound file; in order of time.

    Raises:
        ValueError: if that is not known.
    """
    events = read_table(beside(recording, "events.tsv"))
    if arguments.audio is None:
        named = [row for row in events if row.get("stim_file") not in (None, "", "n/a")]
        if not named:
            raise ValueError(f"{recording.name}: its events name no stim_file; give --audio, and --onset_s or --event")
        return sorted((float(row["onset"]), root / "stimuli" / row["stim_file"]) for row in named)
    audio = Path(arguments.audio)
    audio = audio if audio.is_absolute() or audio.is_file() else root / audio
    if arguments.event is None:
        return [(arguments.onset_s, audio)]
    onsets = [float(row["onset"]) for row in events if arguments.event in row.values()]
    if not onsets:
        raise ValueError(f"{recording.name}: no event is named {arguments.event!r}")
    return [(min(onsets), audio)]


def find(arguments: argparse.Namespace) -> list[AlignedFile]:
    """List what is converted.

    Args:
        arguments (`argparse.Namespace`): from the command line.

    Returns:
        `list[AlignedFile]`: blocks of all recordings.

    Raises:
        FileNotFoundError: if there is no recording.
    """
    root = Path(arguments.input_dir)
    pattern = f"*task-{arguments.task}_*ieeg.*" if arguments.task else "*_ieeg.*"
    recordings = [
        path
        for folder in sorted(root.glob("sub-*"))
        if not arguments.participants or folder.name.removeprefix("sub-") in arguments.participants
        for path in sorted(folder.glob(f"**/ieeg/{pattern}"))
        if path.suffix in _SUFFIXES
    ]
    if not recordings:
        raise FileNotFoundError(f"{root} holds no sub-*/**/ieeg/{pattern} (edf, vhdr, fif, set)")
    files = []
    for path in recordings:
        opened = open_recording(path)
        entities = dict(part.split("-", 1) for part in path.stem.split("_")[:-1] if "-" in part)
        participant = f"sub{entities['sub']}"
        sounds = sounds_of(path, root, arguments)
        ends = [start for start, _ in sounds[1:]] + [opened.num_samples / opened.sampling_rate_hz]
        for number, ((start, audio), end) in enumerate(zip(sounds, ends, strict=True)):
            run = "_".join(f"{key}{entities[key]}" for key in ("task", "run") if key in entities) or "run"
            file = AlignedFile(
                participant_id=participant,
                session_id=f"{participant}.{entities.get('ses', 'session')}",
                file_id=f"{entities.get('ses', '')}{run}" + (f"_sound{number}" if len(sounds) > 1 else ""),
                recording=path,
                audio=audio,
                clock=[(start, 0.0), (end, end - start)],
                bad_channels=tuple(not_used(path, opened.channel_names)),
                positions=_own_positions(opened) or positions_of(path),
                more={"recording": path.name, "sound_begins_s": start, "clock": "taken from the events, no drift"},
            )
            files += cut_blocks(file, 60 * arguments.block_min)
    return files


def _own_positions(recording: Recording) -> dict[str, tuple[float, float, float]] | None:
    if not isinstance(recording, MNERecording):
        return None
    known: dict[str, Any] = dict(zip(recording.channel_names, map(tuple, recording.channel_positions), strict=True))
    return known if any(place[0] == place[0] for place in known.values()) else None


def parser(name: str = "bids_ieeg_audio", description: str | None = None) -> argparse.ArgumentParser:
    """The arguments.

    Args:
        name (`str`): of the converter.
        description (`str`, *optional*): one line.

    Returns:
        `argparse.ArgumentParser`: ready to parse.
    """
    made = ieeg_parser(name, description or (__doc__ or "").split("\n\n")[0], EPILOG)
    made.add_argument("--input_dir", required=True, help="the BIDS folder")
    made.add_argument("--task", help="only recordings of this task")
    made.add_argument("--participants", nargs="*", default=[], help="only these, for example 01 02")
    made.add_argument("--audio", help="the one sound that was heard, if the events name none")
    made.add_argument("--onset_s", type=float, default=0.0, help="second of the iEEG at which it begins")
    made.add_argument("--event", help="or the event that marks its beginning")
    made.add_argument("--block_min", type=float, default=5.0, help="minutes that go to one split together")
    return made


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: exit status.
    """
    about = {"title": "iEEG and sound", "source": "a BIDS folder", "licence": "that of the folder"}
    return run_ieeg_converter("bids_ieeg_audio", find, parser().parse_args(argv), **about)


if __name__ == "__main__":
    sys.exit(main())
