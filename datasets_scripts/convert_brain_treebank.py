"""Brain Treebank: ten patients watch movies, 43 hours; HDF5 and your copies of the sound -> segments.

    python -m datasets_scripts.convert_brain_treebank --input_dir btb --movies movies --output_dir segments/btb

Source: Wang et al. 2024, arXiv 2411.08343, braintreebank.dev (CC BY 4.0); the movies' sound is not part of it.
"""

from __future__ import annotations

import argparse
import csv
import json
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np

from bit_speech.import_utils import require
from datasets_scripts.aligned_recordings import AlignedFile, cut_blocks, ieeg_parser, run_ieeg_converter

RATE_HZ = 2048.0
EPILOG = """\
read:
  sub_1_trial000.h5 (in the folder, or in all_subject_data/)     data/electrode_<i>: samples of one electrode
  electrode_labels/sub_1/electrode_labels.json                   names, in the order of <i>
  corrupted_elec.json (optional)                                 sub_1 -> names that are left out
  subject_metadata/sub_1_trial000_metadata.json                  title (or filename) of the movie
  subject_timings/sub_1_trial000_timings.csv                     movie_time and index (sample) of every trigger
  movies/<filename of the metadata>.wav (or .flac)               the sound of the movie, your own copy
Segments of 30 s in which the movie paused or jumped are left out. The last movie of a patient makes a task,
the others pretraining: choose with --participants and by folder; blocks of --block_min minutes are split as a whole.
"""


class TreebankRecording:
    """One recording; the electrodes are separate data sets.

    Args:
        path (`Path`): `sub_<n>_trial<m>.h5`.
        names (`list[str]`): of the electrodes, in the order of the file.

    Raises:
        ValueError: if the names do not fit the file.
    """

    def __init__(self, path: Path, names: list[str]) -> None:
        self._file = require("h5py").File(path, "r")
        data = self._file["data"]
        if len(data) < len(names):  # some files hold one more, which has no name
            raise ValueError(f"{path.name} has {len(data)} electrodes, the table of labels {len(names)} names")
        self._electrodes = [data[f"electrode_{index}"] for index in range(len(names))]
        self.channel_names = names
        self.sampling_rate_hz = RATE_HZ
        self.num_samples = int(self._electrodes[0].shape[0])

    def read(self, start: int, stop: int) -> np.ndarray:
        """Read samples.

        Args:
            start (`int`): the first.
            stop (`int`): one after the last.

        Returns:
            `np.ndarray` of shape `(C, stop - start)`: float32, as the file holds them.
        """
        return np.stack([electrode[start:stop].astype(np.float32) for electrode in self._electrodes])


def read_clock(path: Path) -> list[tuple[float, float]]:
    """Read when which second of the movie was shown.

    Args:
        path (`Path`): the timings of a recording.

    Returns:
        `list[tuple[float, float]]`: (second of the iEEG, second of the movie), rising.

    Raises:
        ValueError: if a column is missing, or there are fewer than two triggers.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    missing = {"movie_time", "index"} - set(rows[0] if rows else ())
    if missing:
        raise ValueError(f"{path.name}: column(s) {sorted(missing)} are missing")
    filled = [row for row in rows if row["index"] and row["movie_time"]]
    points = sorted({(float(row["index"]) / RATE_HZ, float(row["movie_time"])) for row in filled})
    kept = [point for index, point in enumerate(points) if index == 0 or point[0] > points[index - 1][0]]
    if len(kept) < 2:
        raise ValueError(f"{path.name}: {len(kept)} trigger(s); at least two are needed")
    return kept


def find(arguments: argparse.Namespace) -> list[AlignedFile]:
    """List what is converted.

    Args:
        arguments (`argparse.Namespace`): from the command line.

    Returns:
        `list[AlignedFile]`: blocks of all recordings.

    Raises:
        FileNotFoundError: if there is no recording, or a movie's sound is missing.
    """
    root, files = Path(arguments.input_dir), []
    for path in sorted(root.glob("**/sub_*_trial*.h5")):
        match = re.fullmatch(r"(sub_(\d+))_trial(\d+)", path.stem)
        if match is None or (arguments.participants and match[2] not in arguments.participants):
            continue
        labels = json.loads(
            (root / "electrode_labels" / match[1] / "electrode_labels.json").read_text(encoding="utf-8")
        )
        names = [re.sub(r"[*#_]", "", label) for label in labels]
        metadata = json.loads((root / "subject_metadata" / f"{path.stem}_metadata.json").read_text(encoding="utf-8"))
        movie = metadata.get("filename") or metadata["title"]
        sounds = [Path(arguments.movies) / f"{movie}{suffix}" for suffix in (".wav", ".flac")]
        audio = next((sound for sound in sounds if sound.is_file()), None)
        if audio is None:
            raise FileNotFoundError(f"{sounds[0]} does not exist: {path.stem} needs the sound of the movie {movie!r}")
        spoiled = root / "corrupted_elec.json"
        bad = json.loads(spoiled.read_text(encoding="utf-8")).get(match[1], []) if spoiled.is_file() else []
        bad = [re.sub(r"[*#_]", "", name) for name in bad]
        file = AlignedFile(
            participant_id=f"btb{match[2]}",
            session_id=f"btb{match[2]}.trial{match[3]}",
            file_id=f"trial{match[3]}",
            recording=partial(TreebankRecording, path, names),
            audio=audio,
            clock=read_clock(root / "subject_timings" / f"{path.stem}_timings.csv"),
            bad_channels=tuple(name for name in names if name in bad or name.upper().startswith(("DC", "TRIG"))),
            more={"movie": movie},
        )
        files += cut_blocks(file, 60 * arguments.block_min)
    if not files:
        raise FileNotFoundError(f"{root} holds no sub_<n>_trial<m>.h5")
    return files


def main(argv: list[str] | None = None) -> int:
    """Run the command.

    Args:
        argv (`list[str]`, *optional*): arguments; default those of the process.

    Returns:
        `int`: exit status.
    """
    parser = ieeg_parser("brain_treebank", (__doc__ or "").split("\n\n")[0], EPILOG)
    parser.add_argument("--input_dir", required=True, help="the unpacked release")
    parser.add_argument("--movies", required=True, help="folder with the sound of the movies")
    parser.add_argument("--participants", nargs="*", default=[], help="only these, for example 1 3")
    parser.add_argument("--block_min", type=float, default=10.0, help="minutes that go to one split together")
    parser.set_defaults(notch_hz=60.0)
    about = {"title": "Brain Treebank", "source": "braintreebank.dev, arXiv 2411.08343", "licence": "CC-BY-4.0"}
    return run_ieeg_converter("brain_treebank", find, parser.parse_args(argv), **about)


if __name__ == "__main__":
    sys.exit(main())
