"""Chowdhury et al. 2020: macaques reach and are pushed, area 2; MATLAB (trial_data) -> trials.

    python -m datasets_scripts.convert_chowdhury_2020 --input_dir raw/chowdhury_2020 --output_dir trials

Source: doi:10.7554/eLife.48198; data doi:10.5061/dryad.nk98sf7q7 (CC0-1.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.matlab_files import read_matlab, scalar
from datasets_scripts.spikes import whole_counts

NUM_ELECTRODES = 96

CORPUS = Corpus(
    name="chowdhury_2020",
    title="Chowdhury 2020, reaching, area 2",
    citation=(
        "Chowdhury et al. 2020, doi:10.7554/eLife.48198: macaques reach in two workspaces or are pushed, one array of "
        "96 electrodes in area 2 of somatosensory cortex."
    ),
    data="doi:10.5061/dryad.nk98sf7q7",
    licence="CC0-1.0",
    access="download s1-kinematics.zip from https://doi.org/10.5061/dryad.nk98sf7q7 in a browser",
    files="**/*_TD*.mat",
    species="macaque",
    hours="about 10 h by another count; 96 channels (BIT names 92)",
    layout=(
        "Read: the struct trial_data: S1_spikes (bins x units), S1_unit_guide (electrode and unit; unit 0 is what was "
        "not sorted), bin_size (seconds; 20 ms must be a multiple) and monkey. In the release it is one struct with "
        "the whole recording; with several, each is a stretch. Electrode n is channel n - 1 of 96; all its units are "
        "added up."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): a MATLAB file of the corpus, v5 or v7.3.

    Yields:
        `Session`: the whole recording, or one stretch per struct; one channel per electrode.
    """
    names = ("trial_data.S1_spikes", "trial_data.S1_unit_guide", "trial_data.bin_size", "trial_data.monkey")
    values = read_matlab(path, names)
    # A list where trial_data is an array of structs.
    spikes, guide, bin_size, monkey = (
        values[name] if isinstance(values[name], list) else [values[name]] for name in names
    )
    bin_size_s = scalar(bin_size[0], "bin_size")
    electrodes = np.asarray(guide[0])[:, 0].astype(int)
    lengths = [len(part) for part in spikes]
    wrong = [part.shape for part in spikes if part.shape[1] != len(electrodes)]
    if wrong:
        raise ValueError(f"S1_spikes has shape {wrong[0]}, but S1_unit_guide has {len(electrodes)} units")
    if electrodes.min() < 1 or electrodes.max() > NUM_ELECTRODES:
        raise ValueError(f"S1_unit_guide names electrodes {electrodes.min()} to {electrodes.max()}; expected 1 to 96")

    def load() -> np.ndarray:
        counts = np.zeros((sum(lengths), NUM_ELECTRODES), dtype=np.float32)
        units = whole_counts(np.concatenate(spikes), "S1_spikes")
        for unit, electrode in enumerate(electrodes):
            counts[:, electrode - 1] += units[:, unit]
        return counts

    ends = np.cumsum(lengths)
    kinds = [THRESHOLD_CROSSINGS] * NUM_ELECTRODES
    yield Session(
        participant_id=str(monkey[0]).strip().lower(),
        session_id=path.stem,
        task="reaching",
        feature_kinds=kinds,
        channel_areas=["area2"] * NUM_ELECTRODES,
        stretches=[Stretch((end - n) * bin_size_s, end * bin_size_s) for n, end in zip(lengths, ends.tolist())],
        read=bin_reader(load, kinds, bin_size_s),
    )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
