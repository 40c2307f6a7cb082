"""Willett et al. 2021: participant T5 attempts to write by hand; MATLAB -> trials.

    python -m datasets_scripts.convert_willett_2021 --input_dir raw/willett_2021 --output_dir trials

Source: doi:10.1038/s41586-021-03506-2; data doi:10.5061/dryad.wh70rxwmv (CC0-1.0).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.schema import THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.matlab_files import flat, read_matlab, words
from datasets_scripts.spikes import whole_counts

SOURCE_BIN_S = 0.01
CHARACTERS = {"greaterThan": ">", "comma": ",", "apostrophe": "'", "tilde": "~", "questionMark": "?"}

CORPUS = Corpus(
    name="willett_2021",
    title="Willett 2021, attempted handwriting",
    citation=(
        "Willett et al. 2021, doi:10.1038/s41586-021-03506-2: participant T5 attempts to write sentences and single "
        "characters, two arrays of 96 electrodes in the hand knob of precentral gyrus."
    ),
    data="doi:10.5061/dryad.wh70rxwmv",
    licence="CC0-1.0",
    access="download handwritingBCIData.tar.gz from https://doi.org/10.5061/dryad.wh70rxwmv in a browser",
    # sentences.mat and singleLetters.mat
    files="**/t5.*/s[ei]n*.mat",
    species="human",
    hours="10.7 h recorded by the source's own count (BIT counts 17.4 h), less the pauses; 192 channels, ten days",
    layout=(
        "Read: neuralActivityTimeSeries (threshold crossings in bins of 10 ms, added up in pairs) and "
        "blockNumsTimeSeries; of sentences.mat goCueOnsetTimeBin, sentenceEndTimeBin, sentencePrompt and "
        "excludedSentences (those are left out); of singleLetters.mat goPeriodOnsetTimeBin, delayPeriodOnsetTimeBin "
        "and characterCues. A trial is from the go cue to the end of the sentence, or to the next delay or the end of "
        "the block. Bins count from 1, the last included (assumed for sentenceEndTimeBin). straightLines.mat is not "
        "read."
    ),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): `sentences.mat` or `singleLetters.mat` in the folder of a session.

    Yields:
        `Session`: one stretch per sentence or character.
    """
    sentences = path.stem == "sentences"
    names = ["neuralActivityTimeSeries", "blockNumsTimeSeries"]
    if sentences:
        names += ["goCueOnsetTimeBin", "sentenceEndTimeBin", "sentencePrompt", "excludedSentences"]
    else:
        names += ["goPeriodOnsetTimeBin", "delayPeriodOnsetTimeBin", "characterCues"]
    values = read_matlab(path, names)
    activity, blocks = values["neuralActivityTimeSeries"], flat(values["blockNumsTimeSeries"]).astype(int)
    if len(activity) != len(blocks):
        raise ValueError(f"neuralActivityTimeSeries has {len(activity)} bins, blockNumsTimeSeries {len(blocks)}")
    trials = _sentences(values) if sentences else _characters(values, blocks)
    wrong = [(first, last) for first, last, _ in trials if not 0 <= first < last <= len(blocks)]
    if wrong:
        raise ValueError(f"a trial is from bin {wrong[0][0]} to bin {wrong[0][1]} of {len(blocks)} (from 0)")
    kinds = [THRESHOLD_CROSSINGS] * activity.shape[1]
    yield Session(
        participant_id="t5",
        session_id=path.parent.name,
        task="handwriting",
        feature_kinds=kinds,
        channel_areas=["hand_knob"] * activity.shape[1],
        stretches=[
            Stretch(first * SOURCE_BIN_S, last * SOURCE_BIN_S, block_index=int(blocks[first]), text=text)
            for first, last, text in trials
        ],
        read=bin_reader(lambda: whole_counts(activity, "neuralActivityTimeSeries"), kinds, SOURCE_BIN_S),
    )


def _sentences(values: dict[str, Any]) -> list[tuple[int, int, str | None]]:
    """First bin, last bin (not included) and text of every sentence, counted from 0."""
    starts = flat(values["goCueOnsetTimeBin"]).astype(int) - 1
    ends = flat(values["sentenceEndTimeBin"]).astype(int)
    texts, excluded = words(values["sentencePrompt"], "sentencePrompt"), flat(values["excludedSentences"])
    return [
        (int(first), int(last), text or None)
        for first, last, text, out in zip(starts, ends, texts, excluded, strict=True)
        if not out
    ]


def _characters(values: dict[str, Any], blocks: np.ndarray) -> list[tuple[int, int, str | None]]:
    """First bin, last bin (not included) and character of every cue, counted from 0."""
    starts = flat(values["goPeriodOnsetTimeBin"]).astype(int) - 1
    delays = np.sort(flat(values["delayPeriodOnsetTimeBin"]).astype(int) - 1)
    block_ends = np.append(np.flatnonzero(np.diff(blocks)) + 1, len(blocks))
    trials = []
    for first, cue in zip(starts, words(values["characterCues"], "characterCues"), strict=True):
        later = np.concatenate([delays[delays > first][:1], block_ends[block_ends > first][:1]])
        last = int(later.min()) if len(later) else int(first)
        trials.append((int(first), last, None if cue in ("", "doNothing") else CHARACTERS.get(cue, cue)))
    return trials


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
