"""Perich et al. 2018: four macaques reach, for up to three years; NWB -> trials.

    python -m datasets_scripts.convert_perich_2018 --input_dir raw/perich_2018 --output_dir trials

Source: doi:10.1016/j.neuron.2018.09.030; data DANDI:000688 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command, spike_reader
from datasets_scripts.nwb_files import electrode_spikes, open_nwb, session_name, subject
from datasets_scripts.spikes import active_stretches

# The files have initials; other corpora have recordings of the same monkeys under their names.
MONKEYS = {"c": "chewie", "j": "jaco", "m": "mihili", "t": "mrt"}

CORPUS = Corpus(
    name="perich_2018",
    title="Perich 2018, reaching",
    citation=(
        "Perich et al. 2018, doi:10.1016/j.neuron.2018.09.030: macaques Chewie, Jaco, Mihili and MrT (C, J, M, T in "
        "the files), arrays in M1, PMd or both."
    ),
    data="DANDI:000688",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000688",
    files="**/*.nwb",
    species="macaque",
    hours="111 files; 147 h in the publication of BIT, 43 h by another count after filtering; 96 or 192 electrodes",
    layout=(
        "Read: units (spike times, electrodes) and the electrode table. The recording is taken from its first spike "
        "to its last, without pauses of more than a second, because movements go on between trials. Units were sorted "
        "by hand in three monkeys, so an electrode without a unit is silent but not broken."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: the whole recording; one channel per electrode.
    """
    with open_nwb(path) as file:
        spikes, areas = electrode_spikes(file)
        initial = subject(file)
        yield Session(
            participant_id=MONKEYS.get(initial, initial),
            session_id=session_name(path),
            task="reaching",
            feature_kinds=[THRESHOLD_CROSSINGS] * len(areas),
            channel_areas=areas,
            stretches=[Stretch(start, stop) for start, stop in active_stretches(spikes)],
            read=spike_reader(lambda: spikes),
        )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
