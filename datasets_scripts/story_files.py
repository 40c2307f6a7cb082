"""What the converters of story listening share: alignments, GIFTI, confounds, and the command line."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bit_speech.data.story_runs import Interval
from bit_speech.data.story_time import zscore
from bit_speech.import_utils import require
from datasets_scripts.command import plain_parser

_TIER = re.compile(r'class = "IntervalTier"(.*?)(?=item \[\d+\]:|\Z)', re.DOTALL)
_INTERVAL = re.compile(r'xmin = ([\d.eE+-]+)\s+xmax = ([\d.eE+-]+)\s+text = "((?:[^"]|"")*)"')


def read_textgrid(path: Path) -> dict[str, list[Interval]]:
    """Read the interval tiers of a Praat TextGrid.

    Args:
        path (`Path`): a file in the long or the short text format.

    Returns:
        `dict[str, list[Interval]]`: lower-case name of each tier -> its intervals with text.

    Raises:
        ValueError: if the file has no interval tiers.
    """
    content = path.read_bytes()
    encoding = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    text = content.decode(encoding)
    if "class =" not in text:
        return _read_short_textgrid(text, path)
    tiers = {}
    for block in _TIER.findall(text):
        name = re.search(r'name = "([^"]*)"', block)
        found = [
            Interval(float(start), float(stop), label.replace('""', '"').strip())
            for start, stop, label in _INTERVAL.findall(block)
        ]
        tiers[(name.group(1) if name else "").lower()] = [interval for interval in found if interval.text]
    if not tiers:
        raise ValueError(f"{path} has no interval tiers; is it a TextGrid?")
    return tiers


def _read_short_textgrid(text: str, path: Path) -> dict[str, list[Interval]]:
    values = re.findall(r'"(?:[^"]|"")*"|[-+\d.eE]+', text)
    tiers: dict[str, list[Interval]] = {}
    position = 0
    while '"IntervalTier"' in values[position:]:
        position = values.index('"IntervalTier"', position) + 1
        if position + 4 > len(values):
            break
        name, count = values[position].strip('"').lower(), int(float(values[position + 3]))
        rows = values[position + 4 : position + 4 + 3 * count]
        if len(rows) < 3 * count:
            raise ValueError(f"{path}: tier {name!r} says {count} intervals and holds {len(rows) // 3}")
        tiers[name] = [
            Interval(float(rows[i]), float(rows[i + 1]), rows[i + 2].strip('"').strip())
            for i in range(0, 3 * count, 3)
            if rows[i + 2].strip('"').strip()
        ]
    if not tiers:
        raise ValueError(f"{path} has no interval tiers; is it a TextGrid?")
    return tiers


def read_gifti(path: Path) -> np.ndarray:
    """Read a functional GIFTI file.

    Args:
        path (`Path`): `.func.gii` with one data array per volume.

    Returns:
        `np.ndarray` of shape `(R, V)`: float32.

    Raises:
        ImportError: if the package `nibabel` is not installed.
        ValueError: if the volumes differ in size.
    """
    image = require("nibabel").load(path)
    sizes = {array.data.shape for array in image.darrays}
    if len(sizes) != 1:
        raise ValueError(f"{path} holds arrays of shapes {sorted(sizes)}; expected one per volume, all alike")
    return np.stack([array.data for array in image.darrays]).astype(np.float32)


def read_confounds(path: Path, wanted: Sequence[str]) -> np.ndarray:
    """Read columns of an fMRIPrep table of confounds.

    Args:
        path (`Path`): `_desc-confounds_timeseries.tsv` (or `_regressors.tsv`).
        wanted (sequence of `str`): names, or beginnings that end with `*`, such as `"cosine*"`.

    Returns:
        `np.ndarray` of shape `(R, columns)`: `n/a` becomes 0.

    Raises:
        ValueError: if a name is in no column.
    """
    lines = path.read_text(encoding="utf-8").strip().splitlines()
    names = lines[0].split("\t")
    columns = []
    for name in wanted:
        found = [i for i, one in enumerate(names) if one == name or (name[-1:] == "*" and one.startswith(name[:-1]))]
        if not found:
            raise ValueError(f"{path} has no column {name}; it has {', '.join(names[:8])}, ...")
        columns += found
    rows = [line.split("\t") for line in lines[1:]]
    return np.array([[0.0 if row[i] in ("n/a", "") else float(row[i]) for i in columns] for row in rows])


def remove_confounds(responses: np.ndarray, confounds: np.ndarray | None, name: str) -> np.ndarray:
    """Take what confounds explain out of the responses of one run, and z-score what is left.

    Args:
        responses (`np.ndarray` of shape `(R, X)`): BOLD.
        confounds (`np.ndarray` of shape `(R, C)`, *optional*): such as motion and slow drifts.
        name (`str`): of the run, for messages.

    Returns:
        `np.ndarray` of shape `(R, X)`: float32; voxels without any signal are zero.

    Raises:
        ValueError: if the lengths differ.
    """
    if confounds is None:
        return zscore(responses.astype(np.float64)).astype(np.float32)
    if len(confounds) != len(responses):
        raise ValueError(f"{name}: {len(confounds)} rows of confounds for {len(responses)} volumes")
    design = np.column_stack([np.ones(len(responses)), zscore(confounds)])
    left, size, _ = np.linalg.svd(design, full_matrices=False)
    left = left[:, size > 1e-8 * size[0]]
    return zscore(responses - left @ (left.T @ responses)).astype(np.float32)


def story_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Begin the argument parser of a converter of stories.

    Args:
        name (`str`): name of the converter, as in `bit-speech convert NAME`.
        description (`str`): one line.
        epilog (`str`): what is read and written.

    Returns:
        `argparse.ArgumentParser`: with `--input_dir` and `--output_dir`.
    """
    parser = plain_parser(name, description, epilog)
    parser.add_argument("--input_dir", required=True, help="the data set")
    parser.add_argument("--output_dir", required=True, help="folder of stories to write")
    return parser
