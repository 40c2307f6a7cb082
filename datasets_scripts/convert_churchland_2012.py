"""Churchland et al. 2012: two macaques reach through mazes; NWB -> trials.

    python -m datasets_scripts.convert_churchland_2012 --input_dir raw/000070 --output_dir trials

Source: doi:10.1038/nature11129; data DANDI:000070 (CC-BY-4.0).
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
    trial_intervals,
)
from datasets_scripts.spikes import join_touching

CORPUS = Corpus(
    name="churchland_2012",
    title="Churchland 2012, maze reaching",
    citation="Churchland et al. 2012, doi:10.1038/nature11129: macaques Jenkins and Nitschke, arrays in M1 and PMd.",
    data="DANDI:000070",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000070",
    files="**/*.nwb",
    species="macaque",
    hours="at most 37 h in 9 or 10 files of two monkeys, 192 channels (from a public count of bins)",
    layout=(
        "Read: units (spike times, electrodes), the electrode table, and the trials table (start_time, stop_time). "
        "Trials that follow each other without a gap are joined. Trials that share their time with another one are "
        "refused: in some sessions of Nitschke the clock started again, and such spikes cannot be told apart "
        "(--allow_partial leaves these trials out)."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: joined trials; one channel per electrode.
    """
    with open_nwb(path) as file:
        need(file, "units/electrodes")
        areas = electrode_areas(file)
        trials, problems = trial_intervals(file)
        joined = join_touching([(start, stop, "train") for _, start, stop in trials])
        yield Session(
            participant_id=subject(file),
            session_id=session_name(path),
            task="reaching",
            feature_kinds=[THRESHOLD_CROSSINGS] * len(areas),
            channel_areas=areas,
            stretches=[Stretch(start, stop) for start, stop, _ in joined],
            read=spike_reader(lambda: electrode_spikes(file)[0]),
            problems=problems,
        )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
