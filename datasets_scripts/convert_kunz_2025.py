"""Kunz et al. 2025: four participants attempt, mouth, imagine, hear and read words; MATLAB -> trials.

    python -m datasets_scripts.convert_kunz_2025 --input_dir raw/kunz_2025 --output_dir trials

Source: doi:10.1016/j.cell.2025.06.015; data doi:10.5061/dryad.gf1vhhn1j (CC0-1.0).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.schema import SPIKE_BAND_POWER, THRESHOLD_CROSSINGS
from datasets_scripts.corpora import Corpus, Session, Stretch, bin_reader, convert_corpus, run_command
from datasets_scripts.matlab_files import flat, read_matlab, scalar, words
from datasets_scripts.spikes import whole_counts

# Behaviour, as file names and cues have it -> task, and the epoch in which it happens.
BEHAVIOURS = {
    "attempted": ("attempted_speech", "go"),
    "mouthed": ("mouthed_speech", "go"),
    "imagined1stmotor": ("imagined_speech_motor", "go"),
    "imagined1stauditory": ("imagined_speech_auditory", "go"),
    "imaginedlistening": ("imagined_listening", "go"),
    "listening": ("listening", "delay"),
    "passivelistening": ("listening", "delay"),
    "reading": ("reading", "delay"),
}
INTERLEAVED = "interleavedverbalbehaviors"
DO_NOTHING = "DO_NOTHING"

CORPUS = Corpus(
    name="kunz_2025",
    title="Kunz 2025, inner speech",
    citation=(
        "Kunz, Abramovich Krasa et al. 2025, doi:10.1016/j.cell.2025.06.015: participants T12, T15, T16 and T17 "
        "attempt, mouth, imagine, hear and read single words, arrays in motor cortex."
    ),
    data="doi:10.5061/dryad.gf1vhhn1j",
    licence="CC0-1.0",
    access=(
        "download isolatedVerbalBehaviors.zip and interleavedVerbalBehaviors.zip from "
        "https://doi.org/10.5061/dryad.gf1vhhn1j in a browser"
    ),
    files="**/t1*_raw.mat",
    species="human",
    hours="8.4 h in the publication of BIT, with the sentences, which are not read here",
    layout=(
        "Read: binnedTX and spikePow (bins x channels), blockNum, goTrialEpochs and delayTrialEpochs (first and last "
        "bin, counted from 1, both included), trialCues (counted from 1, into cueList), chanSets and chanSetNames "
        "(areas) and binSize (10 or 20 ms; of 10 ms bins pairs are made from the start of each trial, counts added "
        "and power averaged). A trial is the go epoch; of listening and reading the delay epoch, in which the word "
        "comes. The task says the behaviour; in interleaved files the cue does, in brackets, and a cue without "
        "brackets is taken as listening (assumed). DO_NOTHING is the task rest, without text. Files allBehaviors are "
        "left out: they repeat the files of single behaviours. The layout of sentenceData.zip is not known and it is "
        "not read. Channels: the crossings, then the power."
    ),
    leave_out=("*_allBehaviors_raw.mat",),
)


@contextmanager
def open_session(path: Path) -> Iterator[Session]:
    """Open one file.

    Args:
        path (`Path`): a MATLAB file of the corpus, such as `t12.2023.08.15_attempted_raw.mat`.

    Yields:
        `Session`: one stretch per cue; crossings, then power.
    """
    match = re.fullmatch(r"(t\d+)\.(\d{4}\.\d\d\.\d\d)_(\w+?)_raw", path.stem)
    if match is None:
        raise ValueError("its name is not <participant>.<YYYY.MM.DD>_<behaviour>_raw.mat")
    participant, day, behaviour = match.group(1), match.group(2), match.group(3).lower()
    if behaviour not in BEHAVIOURS and behaviour != INTERLEAVED:
        raise ValueError(
            f"behaviour {match.group(3)!r} is unknown; known are {', '.join(BEHAVIOURS)} and {INTERLEAVED}"
        )
    names = ("binnedTX", "spikePow", "blockNum", "goTrialEpochs", "delayTrialEpochs", "trialCues", "cueList", "binSize")
    values = read_matlab(path, (*names, "chanSets", "chanSetNames"))
    crossings, power = values["binnedTX"], values["spikePow"]
    if crossings.shape != power.shape or len(flat(values["blockNum"])) != len(crossings):
        shapes = ", ".join(f"{name} {values[name].shape}" for name in ("binnedTX", "spikePow", "blockNum"))
        raise ValueError(f"the shapes are {shapes}; expected the same bins, and channels")
    channels = crossings.shape[1]
    kinds = [THRESHOLD_CROSSINGS] * channels + [SPIKE_BAND_POWER] * channels
    bin_size_s = scalar(values["binSize"], "binSize") / 1000

    def load() -> np.ndarray:
        return np.concatenate([whole_counts(crossings, "binnedTX"), power.astype(np.float32)], axis=1)

    yield Session(
        participant_id=participant,
        session_id=f"{participant}.{day}",
        task=BEHAVIOURS.get(behaviour, ("interleaved_speech", "go"))[0],
        feature_kinds=kinds,
        channel_areas=_areas(values, channels) * 2,
        stretches=_trials(values, behaviour, bin_size_s),
        read=bin_reader(load, kinds, bin_size_s),
    )


def _trials(values: Mapping[str, Any], behaviour: str, bin_size_s: float) -> list[Stretch]:
    cues, blocks = words(values["cueList"], "cueList"), flat(values["blockNum"]).astype(int)
    epochs = {name: np.asarray(values[f"{name}TrialEpochs"]).astype(int) for name in ("go", "delay")}
    numbers = flat(values["trialCues"]).astype(int)
    if any(table.shape != (len(numbers), 2) for table in epochs.values()):
        shapes = ", ".join(f"{name}TrialEpochs {table.shape}" for name, table in epochs.items())
        raise ValueError(f"{shapes}; expected ({len(numbers)}, 2), as there are {len(numbers)} trialCues")
    if len(numbers) and not 1 <= numbers.min() <= numbers.max() <= len(cues):
        raise ValueError(f"trialCues are {numbers.min()} to {numbers.max()}, but cueList has {len(cues)} (from 1)")
    trials = []
    for index, number in enumerate(numbers):
        text, task, epoch = _cue(cues[number - 1], behaviour)
        first, last = (int(edge) for edge in epochs[epoch][index])
        if not 1 <= first <= last <= len(blocks):
            raise ValueError(f"trial {index} is from bin {first} to bin {last} (from 1), but there are {len(blocks)}")
        start, stop = (first - 1) * bin_size_s, last * bin_size_s
        trials.append(Stretch(start, stop, block_index=int(blocks[first - 1]), text=text, task=task))
    return trials


def _cue(cue: str, behaviour: str) -> tuple[str | None, str, str]:
    """Text, task and epoch of a cue such as `ban`, or, interleaved, `ban (attempted)`, which `$1` may follow."""
    plain = re.sub(r"\$\d*$", "", cue).replace("\\n", " ").strip()
    match = re.fullmatch(r"(.*?)\s*\(([^()]*)\)", plain, re.DOTALL)
    text = match.group(1).strip() if match else plain
    if text.upper().replace(" ", "_") == DO_NOTHING:
        return None, "rest", "go"
    if behaviour == INTERLEAVED:
        behaviour = re.sub(r"\W", "", match.group(2)).lower() if match else "listening"
    if behaviour not in BEHAVIOURS:
        raise ValueError(f"cue {cue!r} is of an unknown behaviour; known are {', '.join(BEHAVIOURS)}")
    return text or None, *BEHAVIOURS[behaviour]


def _areas(values: Mapping[str, Any], channels: int) -> list[str]:
    names, sets = words(values["chanSetNames"], "chanSetNames"), flat(values["chanSets"])
    areas = ["unknown"] * channels
    for name, members in zip(names, sets, strict=True):
        for channel in flat(members).astype(int) - 1:
            # Sets may overlap, and may go on into the power; the first name of a channel holds.
            if channel < channels and areas[channel] == "unknown":
                areas[channel] = name
    return areas


convert = partial(convert_corpus, CORPUS, open_session)
main = partial(run_command, CORPUS, open_session)

if __name__ == "__main__":
    sys.exit(main())
