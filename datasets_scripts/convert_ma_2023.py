"""Ma et al. 2023: six macaques, wrist force, grasping and reaching; MATLAB (xds) -> trials.

    python -m datasets_scripts.convert_ma_2023 --input_dir raw/ma_2023 --output_dir trials

Source: doi:10.7554/eLife.84296; data doi:10.5061/dryad.cvdncjt7n (CC0-1.0).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command, spike_reader
from datasets_scripts.matlab_files import flat, read_matlab, words
from datasets_scripts.spikes import merge_units

NUM_ELECTRODES = 96
# Codes of the laboratory -> task. A code that is not here is written as it is.
TASKS = {
    "CO": "reaching",
    "RT": "reaching",
    "RW": "reaching",
    "WF": "isometric_wrist",
    "ISO": "isometric_wrist",
    "WM": "wrist_movement",
    "KG": "grasping",
    "PG": "grasping",
    "MG": "grasping",
    "MULTI_GADGET": "grasping",
}

CORPUS = Corpus(
    name="ma_2023",
    title="Ma 2023, wrist, grasping and reaching",
    citation="Ma et al. 2023, doi:10.7554/eLife.84296: six macaques, one array of 96 electrodes in M1 each.",
    data="doi:10.5061/dryad.cvdncjt7n",
    licence="CC0-1.0",
    access="download from https://doi.org/10.5061/dryad.cvdncjt7n in a browser, and unpack the .7z files",
    files="**/*.mat",
    species="macaque",
    hours="not stated by the source (15.4 GB, six monkeys, 2012 to 2021), 96 channels",
    layout=(
        "Read: the struct xds: spikes (a cell of times in seconds), unit_names ('elec12', or 'elec12_1' when sorted), "
        "time_frame, and meta (monkey, task, array). Counts are made from the times, on the clock of time_frame, so "
        "the bins of the file do not matter. Electrode n is channel n - 1 of 96; all its units are added up. The "
        "recording is taken whole. Chewie and Mihili are also in Perich 2018, in part with the same days."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): a MATLAB file of the corpus, v5 or v7.3.

    Yields:
        `Session`: the whole recording; one channel per electrode.
    """
    values = read_matlab(
        path, ("xds.spikes", "xds.unit_names", "xds.time_frame", "xds.meta.monkey", "xds.meta.task", "xds.meta.array")
    )
    spikes, times = flat(values["xds.spikes"]), flat(values["xds.time_frame"])
    names = words(values["xds.unit_names"], "xds.unit_names")
    if len(names) != len(spikes) or len(times) < 2:
        raise ValueError(f"there are {len(spikes)} spike trains, {len(names)} unit names and {len(times)} time frames")
    units = [(_electrode(name) - 1, flat(train)) for name, train in zip(names, spikes)]
    task = str(values["xds.meta.task"]).strip()
    yield Session(
        participant_id=str(values["xds.meta.monkey"]).strip().lower(),
        session_id=path.stem,
        task=TASKS.get(task.upper(), task.lower() or "unknown"),
        feature_kinds=[THRESHOLD_CROSSINGS] * NUM_ELECTRODES,
        channel_areas=[str(values["xds.meta.array"]).strip() or "M1"] * NUM_ELECTRODES,
        stretches=[Stretch(float(times[0]), float(times[-1]))],
        read=spike_reader(lambda: merge_units(units, NUM_ELECTRODES)),
    )


def _electrode(name: str) -> int:
    match = re.match(r"elec(\d+)", name)
    if match is None:
        raise ValueError(f"a unit is called {name!r}; expected a name such as 'elec12' or 'elec12_1'")
    return int(match.group(1))


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
