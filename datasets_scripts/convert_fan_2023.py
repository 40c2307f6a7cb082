"""Fan et al. 2023 (CORP): participant T5 attempts to write by hand, over a year; MATLAB -> trials.

    python -m datasets_scripts.convert_fan_2023 --input_dir raw/fan_2023 --output_dir trials

Source: NeurIPS 2023, openreview.net/forum?id=STqaMqhtDi; data doi:10.5061/dryad.hqbzkh1p6 (CC0-1.0).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.matlab_files import flat, read_matlab, scalar, words
from datasets_scripts.spikes import BIN_SIZE_S, whole_counts

CORPUS = Corpus(
    name="fan_2023",
    title="Fan 2023 (CORP), attempted handwriting",
    citation=(
        "Fan et al. 2023, openreview.net/forum?id=STqaMqhtDi: participant T5 writes sentences with a decoder that "
        "recalibrates itself, two arrays of 96 electrodes in the hand knob of precentral gyrus."
    ),
    data="doi:10.5061/dryad.hqbzkh1p6",
    licence="CC0-1.0",
    access="download from https://doi.org/10.5061/dryad.hqbzkh1p6 in a browser",
    files="**/t5.*.mat",
    species="human",
    hours="15.4 h in the publication of BIT; 192 channels, about 26 days",
    layout=(
        "Read: tx_feats (a cell with bins x channels per trial, threshold crossings in bins of 20 ms), sentences (a "
        "cell) and blocks (a cell of numbers, or numbers). Known from public programs that read these files (the "
        "authors' figures, FALCON's conversion), not from the data's own description; a file with anything else is "
        "refused. The text is the cue as it is: > for a blank, ~ for a full stop. Files of one day (with and without "
        "recalibration) make one session; the TFRecords of the seed model are not read. The recordings of FALCON H2 "
        "(converter falcon_h2) are part of these: take one of the two."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): a MATLAB file of the corpus, such as `t5.2022.05.18.mat`.

    Yields:
        `Session`: one stretch per sentence.
    """
    values = read_matlab(path, ("tx_feats", "sentences", "blocks"))
    trials = [np.asarray(trial) for trial in flat(values["tx_feats"])]
    texts = words(values["sentences"], "sentences")
    blocks = [int(scalar(block, "blocks")) for block in flat(values["blocks"])]
    if not len(trials) == len(texts) == len(blocks):
        raise ValueError(f"there are {len(trials)} trials, {len(texts)} sentences and {len(blocks)} blocks")
    shapes = {trial.shape[1:] for trial in trials}
    if len(shapes) != 1 or len(next(iter(shapes))) != 1:
        raise ValueError(f"the trials of tx_feats have the channels {sorted(shapes)}; expected one number")
    ((channels,),) = shapes
    lengths = [len(trial) for trial in trials]
    ends = np.cumsum(lengths).tolist()
    kinds = [THRESHOLD_CROSSINGS] * channels
    yield Session(
        participant_id="t5",
        session_id=re.sub(r"_.*$", "", path.stem),
        task="handwriting",
        feature_kinds=kinds,
        channel_areas=["hand_knob"] * channels,
        stretches=[
            Stretch((end - n) * BIN_SIZE_S, end * BIN_SIZE_S, block_index=block, text=text or None)
            for n, end, block, text in zip(lengths, ends, blocks, texts)
        ],
        read=bin_reader(lambda: whole_counts(np.concatenate(trials), "tx_feats"), kinds, BIN_SIZE_S),
    )


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
