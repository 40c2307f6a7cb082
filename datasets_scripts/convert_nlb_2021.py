"""Neural Latents Benchmark, MC_Maze and MC_RTT: macaques reach; NWB -> trials.

    python -m datasets_scripts.convert_nlb_2021 --input_dir raw/nlb_2021 --output_dir trials

Source: Pei et al. 2021, arXiv 2109.04463; data DANDI:000128 and DANDI:000129 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command, spike_reader
from datasets_scripts.nwb_files import (
    electrode_areas,
    electrode_spikes,
    need,
    open_nwb,
    session_name,
    subject,
    trial_column,
    trial_intervals,
)
from datasets_scripts.spikes import join_touching

SPLITS = {"train": "train", "none": "train", "val": "validation", "test": "test"}

CORPUS = Corpus(
    name="nlb_2021",
    title="Neural Latents Benchmark, reaching",
    citation=(
        "Neural Latents Benchmark, Pei et al. 2021, arXiv 2109.04463: MC_Maze (macaque Jenkins, M1 and PMd; "
        "Churchland and Kaufman) and MC_RTT (macaque Indy, M1; O'Doherty and Sabes)."
    ),
    data="DANDI:000128, DANDI:000129",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000128; dandi download DANDI:000129",
    files="**/*.nwb",
    species="macaque",
    hours="about 2 h: MC_Maze 2,295 trials of about 3 s, 192 electrodes; MC_RTT 1,080 pieces of 0.6 s, 96 electrodes",
    layout=(
        "Read: units, the electrode table, and the trials table with its split (train and none -> train, val -> "
        "validation). Trials of one split that follow each other without a gap are joined. Files desc-test are left "
        "out: they lack the held-out units, so the counts of their electrodes mean something else."
    ),
    leave_out=("*desc-test*",),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: joined trials of one split; one channel per electrode.
    """
    with open_nwb(path) as file:
        need(file, "units/electrodes")
        areas = electrode_areas(file)
        trials, problems = trial_intervals(file)
        splits = trial_column(file, "split").tolist()
        unknown = sorted(set(splits) - set(SPLITS))
        if unknown:
            raise ValueError(f"its trials have the split {unknown[0]!r}; expected {', '.join(SPLITS)}")
        joined = join_touching([(start, stop, SPLITS[splits[row]]) for row, start, stop in trials])
        yield Session(
            participant_id=subject(file),
            session_id=session_name(path),
            task="reaching",
            feature_kinds=[THRESHOLD_CROSSINGS] * len(areas),
            channel_areas=areas,
            stretches=[Stretch(start, stop, split=split) for start, stop, split in joined],
            read=spike_reader(lambda: electrode_spikes(file)[0]),
            problems=problems,
        )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
