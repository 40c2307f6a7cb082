"""FALCON H1: a person attempts to reach and grasp; NWB -> trials.

    python -m datasets_scripts.convert_falcon_h1 --input_dir raw/falcon_h1 --output_dir trials

Source: Karpowicz et al. 2024, FALCON benchmark; data DANDI:000954 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command, spike_reader
from datasets_scripts.nwb_files import need, open_nwb, session_name, unit_spikes
from datasets_scripts.spikes import BIN_SIZE_S, merge_units

CORPUS = Corpus(
    name="falcon_h1",
    title="FALCON H1, attempted reach and grasp",
    citation=(
        "FALCON benchmark, Karpowicz et al. 2024: open-loop calibration of a 7-degree-of-freedom arm by one "
        "participant, arrays in motor cortex."
    ),
    data="DANDI:000954",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000954",
    files="**/*.nwb",
    species="human",
    hours="about 1 h in 27 files of 13 sessions, 176 channels (from a public count of bins)",
    layout=(
        "Read: units (a multi-unit per channel, 176; they have no electrodes) and the series OpenLoopKinematics and "
        "TrialNum, whose samples end the bins of 20 ms. As the benchmark's own reader does, the start is taken from "
        "the attribute offset and the length of a bin from the attribute rate. A change of TrialNum ends a trial. "
        "Files held-in-minival are left out: they repeat trials of held-in-calib."
    ),
    leave_out=("*minival*",),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: trials; one channel per unit.
    """
    with open_nwb(path) as file:
        kinematics, numbers = (need(file, f"acquisition/{name}") for name in ("OpenLoopKinematics", "TrialNum"))
        data, starting = need(kinematics, "data"), need(kinematics, "starting_time")
        rate = float(starting.attrs.get("rate", np.nan))
        step = rate if rate <= 1 else 1 / rate
        if not abs(step - BIN_SIZE_S) < 1e-6:
            raise ValueError(f"OpenLoopKinematics has the rate {rate:g}; expected bins of 20 ms (0.02 or 50)")
        # A sample without a number is no trial of its own.
        trials = np.nan_to_num(need(numbers, "data")[()].reshape(-1).astype(np.float64), nan=-1.0)
        if len(trials) != len(data):
            raise ValueError(f"TrialNum has {len(trials)} samples, OpenLoopKinematics {len(data)}")
        # The first sample is the end of the first bin.
        start = float(data.attrs.get("offset", 0.0)) - BIN_SIZE_S
        edges = [0, *(np.flatnonzero(np.diff(trials)) + 1).tolist(), len(trials)]
        channels = len(need(file, "units/id"))
        yield Session(
            participant_id="h1",
            session_id=f"h1.{session_name(path)}",
            task="reach_and_grasp",
            feature_kinds=[THRESHOLD_CROSSINGS] * channels,
            channel_areas=["motor_cortex"] * channels,
            stretches=[Stretch(start + a * BIN_SIZE_S, start + b * BIN_SIZE_S) for a, b in zip(edges[:-1], edges[1:])],
            read=spike_reader(lambda: merge_units(enumerate(unit_spikes(file)), channels)),
        )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
