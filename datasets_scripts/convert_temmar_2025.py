"""LINK (Temmar et al. 2025): a macaque moves two finger groups, over three and a half years; NWB -> trials.

    python -m datasets_scripts.convert_temmar_2025 --input_dir raw/temmar_2025 --output_dir trials

Source: Temmar et al. 2025; data DANDI:001201 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.nwb_files import electrode_areas, need, open_nwb, series, series_pieces, session_name, subject
from datasets_scripts.spikes import BIN_SIZE_S, whole_counts

# The release has the series in the first; an earlier version had them in the second.
PLACES = ("analysis", "processing/ecephys", "acquisition")

CORPUS = Corpus(
    name="temmar_2025",
    title="LINK, finger movements",
    citation=(
        "LINK: Long-term Intracortical Neural activity and Kinematics, Temmar et al. 2025, "
        "doi:10.48324/dandi.001201/0.251023.2336: macaque N, 96 channels in the hand area of M1."
    ),
    data="DANDI:001201",
    licence="CC-BY-4.0",
    access="dandi download DANDI:001201",
    files="**/*.nwb",
    species="macaque",
    hours="about 45 h in 312 sessions of one monkey, 2020-01 to 2023-06 (from a public count of bins)",
    layout=(
        "Read: the series ThresholdCrossings (counts at -4.5 x RMS) and SpikingBandPower (microvolts) of 96 channels "
        "in bins of 20 ms, and their timestamps; in /analysis, or else /processing/ecephys or /acquisition. A gap in "
        "the timestamps ends a stretch. Channels: the crossings, then the power."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: the stretches without a gap; crossings, then power.
    """
    with open_nwb(path) as file:
        crossings, power = (series(file, name, PLACES) for name in ("ThresholdCrossings", "SpikingBandPower"))
        if crossings["data"].ndim != 2 or crossings["data"].shape != power["data"].shape:
            shapes = f"{crossings['data'].shape} and {power['data'].shape}"
            raise ValueError(f"crossings and power have the shapes {shapes}; expected the same (bins, channels)")
        areas = _areas(file, crossings)
        kinds = [THRESHOLD_CROSSINGS] * len(areas) + [SPIKE_BAND_POWER] * len(areas)
        pieces = series_pieces(need(crossings, "timestamps")[()], BIN_SIZE_S)

        def load() -> np.ndarray:
            counts = whole_counts(crossings["data"][()], "ThresholdCrossings")
            return np.concatenate([counts, power["data"][()].astype(np.float32)], axis=1)

        yield Session(
            participant_id=subject(file),
            session_id=session_name(path),
            task="finger_movement",
            feature_kinds=kinds,
            channel_areas=areas * 2,
            stretches=[Stretch(first * BIN_SIZE_S, last * BIN_SIZE_S) for first, last in pieces],
            read=bin_reader(load, kinds, BIN_SIZE_S),
        )


def _areas(file: h5py.File, crossings: h5py.Group) -> list[str]:
    rows = need(crossings, "electrodes")[()]
    if len(rows) != crossings["data"].shape[1]:
        raise ValueError(f"there are {len(rows)} electrodes for {crossings['data'].shape[1]} channels")
    areas = electrode_areas(file)
    return [areas[row] for row in rows]


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
