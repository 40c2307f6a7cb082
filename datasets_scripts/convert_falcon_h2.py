"""FALCON H2: participant T5 attempts to write by hand; NWB -> trials.

    python -m datasets_scripts.convert_falcon_h2 --input_dir raw/falcon_h2 --output_dir trials

Source: Karpowicz et al. 2024, FALCON benchmark; data DANDI:000950 (CC-BY-4.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.nwb_files import need, open_nwb, series_pieces, session_day, trial_column
from datasets_scripts.spikes import BIN_SIZE_S, whole_counts

CORPUS = Corpus(
    name="falcon_h2",
    title="FALCON H2, attempted handwriting",
    citation=(
        "FALCON benchmark, Karpowicz et al. 2024: participant T5 copies sentences by attempted handwriting, two "
        "arrays in the hand knob of precentral gyrus."
    ),
    data="DANDI:000950",
    licence="CC-BY-4.0",
    access="dandi download DANDI:000950",
    files="**/*.nwb",
    species="human",
    hours="under 9 h in 26 files of 26 days, 192 channels (from a public count of bins)",
    layout=(
        "Read: the series binned_spikes (threshold crossings in bins of 20 ms) and its timestamps, and the trials "
        "table (cue, block_num). Ten seconds without samples part the trials. The text is the cue as it is: > for a "
        "blank, ~ for a full stop. Files held-in-minival are left out: they repeat trials of held-in-calib. The "
        "recordings are part of those of Fan et al. 2023 (converter fan_2023): take one of the two."
    ),
    leave_out=("*minival*",),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): an NWB file of the corpus.

    Yields:
        `Session`: one stretch per sentence.
    """
    with open_nwb(path) as file:
        spikes = need(file, "acquisition/binned_spikes")
        data = need(spikes, "data")
        pieces = series_pieces(need(spikes, "timestamps")[()], BIN_SIZE_S)
        cues, blocks = trial_column(file, "cue"), trial_column(file, "block_num")
        if len(pieces) != len(cues):
            raise ValueError(f"gaps part the bins into {len(pieces)} trials, but the trials table has {len(cues)}")
        kinds = [THRESHOLD_CROSSINGS] * data.shape[1]
        yield Session(
            participant_id="t5",
            session_id=f"t5.{session_day(file)}",
            task="handwriting",
            feature_kinds=kinds,
            channel_areas=["hand_knob"] * data.shape[1],
            stretches=[
                Stretch(first * BIN_SIZE_S, last * BIN_SIZE_S, block_index=int(block), text=str(cue).strip() or None)
                for (first, last), cue, block in zip(pieces, cues, blocks)
            ],
            read=bin_reader(lambda: whole_counts(data[()], "binned_spikes"), kinds, BIN_SIZE_S),
        )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
