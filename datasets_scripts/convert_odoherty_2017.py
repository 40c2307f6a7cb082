"""O'Doherty et al. 2017: two macaques reach to random targets; MATLAB v7.3 -> trials.

    python -m datasets_scripts.convert_odoherty_2017 --input_dir raw/odoherty_2017 --output_dir trials

Source: doi:10.1088/1741-2552/aa9e95; data doi:10.5281/zenodo.3854034 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command, spike_reader
from datasets_scripts.matlab_files import flat, read_matlab, words
from datasets_scripts.spikes import merge_units

CORPUS = Corpus(
    name="odoherty_2017",
    title="O'Doherty 2017, random-target reaching",
    citation=(
        "O'Doherty et al. 2017, doi:10.5281/zenodo.3854034 (paper: doi:10.1088/1741-2552/aa9e95): "
        "macaques Indy and Loco reach to targets in a grid, arrays in M1, in some sessions also in S1."
    ),
    data="doi:10.5281/zenodo.3854034",
    licence="CC-BY-4.0",
    access="zenodo_get 3854034",
    files="**/*.mat",
    species="macaque",
    hours="47 sessions (37 of Indy, 10 of Loco); 96 channels, 192 with S1; hours not stated by the source",
    layout=(
        "Read: spikes (a cell, channels x units, of times in seconds; the first unit holds the crossings that were "
        "not sorted), chan_names ('M1 001') and t (time of the samples, 4 ms apart). All units of a channel are added "
        "up, so a channel has all of its threshold crossings. The recording is taken from the first t to the last."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): a MATLAB file of the corpus, such as `indy_20160407_02.mat`.

    Yields:
        `Session`: the whole recording; one channel per row of `spikes`.
    """
    values = read_matlab(path, ("spikes", "chan_names", "t"))
    spikes, times = values["spikes"], flat(values["t"])
    areas = [name.split()[0] for name in words(values["chan_names"], "chan_names") if name]
    if spikes.dtype != object or len(areas) != len(spikes):
        raise ValueError(f"spikes is {spikes.dtype} of shape {spikes.shape}; expected a cell with {len(areas)} rows")
    if len(times) < 2:
        raise ValueError(f"t has {len(times)} samples")
    units = [(channel, flat(train)) for channel, row in enumerate(spikes) for train in row]
    yield Session(
        participant_id=path.stem.split("_")[0].lower(),
        session_id=path.stem,
        task="reaching",
        feature_kinds=[THRESHOLD_CROSSINGS] * len(areas),
        channel_areas=areas,
        stretches=[Stretch(float(times[0]), float(times[-1]))],
        read=spike_reader(lambda: merge_units(units, len(areas))),
    )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
