"""The simulated cohort of the pretraining benchmark: one target participant, other humans, monkeys.

Everything follows from a seed; no participant is in two cohorts. The simulator is the frozen one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bit_speech.data.writing import ShardWriter, dataset_card
from bit_speech.files import write_text
from bit_speech.simulation import PRESETS, SimulatedParticipant

TARGET = "target"
ELECTRODES = 32
# The pace of T12 with clearer signals, so that 300 sentences suffice to learn something; chosen by the from-scratch
# model alone. Imagined speech is 0.6 as strong as attempted speech and half rotated.
ATTEMPTED = replace(
    PRESETS["t12-like"],
    participant_id=TARGET,
    num_electrodes=ELECTRODES,
    areas=("superior_6v", "inferior_6v"),
    tuning_gain=0.38,
    max_words=7,
    num_sessions=2,
    train_sentences=1000,
    val_sentences=60,
    test_sentences=150,
)
IMAGINED = replace(
    ATTEMPTED, task="imagined_speech", sentences_source="fifty_words", imagined_gain=0.6, train_sentences=500
)
# Electrodes, task and pace of the other participants. Two thirds of the human time is speech, as in the paper's corpus.
HUMANS: tuple[tuple[int, str, float], ...] = (
    (32, "attempted_speech", 190.0),
    (48, "attempted_speech", 190.0),
    (24, "attempted_speech", 240.0),
    (48, "attempted_speech", 160.0),
    (48, "handwriting", 190.0),
    (32, "handwriting", 190.0),
)
MONKEYS: tuple[int, ...] = (48, 32, 24, 48, 32)
HUMAN_TRIALS, MONKEY_TRIALS = 200, 400
# Labelled trials of the main comparison; the encoder is pretrained on these and on the imagined ones, without labels.
ATTEMPTED_TRIALS, IMAGINED_TRIALS = 300, 500
# Attempted trials that last as long as all other participants together.
MORE_TRIALS = 2700
OTHERS = (HUMANS, MONKEYS, HUMAN_TRIALS, MONKEY_TRIALS, ATTEMPTED_TRIALS, IMAGINED_TRIALS, MORE_TRIALS)


def target(seed: int, task: str) -> SimulatedParticipant:
    """The participant whose speech is decoded; attempted and imagined speech come from the same electrodes."""
    return SimulatedParticipant(ATTEMPTED if task == "attempted" else IMAGINED, seed=1000 * (seed + 1))


def humans(seed: int) -> list[SimulatedParticipant]:
    """The other humans."""
    found = []
    for number, (electrodes, task, phone_ms) in enumerate(HUMANS):
        config = replace(
            ATTEMPTED,
            participant_id=f"human{number}",
            task=task,
            num_electrodes=electrodes,
            phone_duration_ms=phone_ms,
            sentences_source="tatoeba",
            train_sentences=HUMAN_TRIALS,
            val_sentences=0,
            test_sentences=0,
            movement_trial_s=5.3,
        )
        found.append(SimulatedParticipant(config, seed=1000 * (seed + 1) + 1 + number))
    return found


def monkeys(seed: int) -> list[SimulatedParticipant]:
    """Macaques that reach."""
    config = replace(
        ATTEMPTED, species="macaque", task="reaching", train_sentences=MONKEY_TRIALS, val_sentences=0, test_sentences=0
    )
    return [
        SimulatedParticipant(
            replace(config, participant_id=f"monkey{number}", num_electrodes=electrodes, areas=("M1", "PMd")),
            seed=1000 * (seed + 1) + 101 + number,
        )
        for number, electrodes in enumerate(MONKEYS)
    ]


def rows(participant: SimulatedParticipant, split: str, limit: int | None = None) -> Iterator[dict[str, Any]]:
    """Trials of a split as rows; with a limit, that many, evenly spread over the sessions."""
    config = participant.config
    chosen = None
    if limit is not None:
        count = participant.num_trials(split)
        chosen = set(np.linspace(0, count - 1, min(limit, count)).round().astype(int).tolist())
    for number, trial in enumerate(participant.trials(split)):
        if chosen is not None and number not in chosen:
            continue
        yield {
            "participant_id": config.participant_id,
            "session_id": trial.session_id,
            "block_index": trial.block_index,
            "trial_index": trial.trial_index,
            "split": {"val": "validation"}.get(split, split),
            "features": trial.features,
            "bin_size_ms": config.bin_size_ms,
            "feature_kinds": participant.feature_kinds,
            "channel_areas": participant.channel_areas,
            "species": config.species,
            "task": config.task,
            "text": trial.text,
            "phonemes": trial.phonemes,
            "source": f"simulator {participant.version}, seed {participant.seed}",
            "licence": "CC0-1.0",
        }


def write_participant(
    participant: SimulatedParticipant, folder: Path, limit: int | None = None, shuffle_time: bool = False
) -> Path:
    """Write the training trials as a converted folder; with `shuffle_time`, the bins of every trial in random order."""
    if (folder / "README.md").exists():
        return folder
    channels = participant.config.num_channels
    rng = np.random.default_rng(participant.seed)
    with ShardWriter(folder / "data" / f"train-{participant.config.participant_id}.parquet", channels) as writer:
        for row in rows(participant, "train", limit):
            if shuffle_time:
                row["features"] = rng.permutation(row["features"], axis=0)
            writer.add(row)
    summary = writer.summary
    counts = {
        "num_trials": summary.num_trials, "num_bins": summary.num_bins, "num_bytes": summary.num_bytes,
        "num_sessions": len(participant.sessions),
    }  # fmt: skip
    card = dataset_card(
        title=participant.config.participant_id,
        licence="CC0-1.0",
        description="A simulated participant.",
        num_channels=channels,
        splits={"train": counts},
    )
    write_text(folder / "README.md", card)
    return folder


def members(part: str, seed: int) -> list[tuple[SimulatedParticipant, str, int | None]]:
    """The recordings of one part of a corpus.

    Args:
        part (`str`): `"target"` (the labelled trials of both tasks), `"target_more"` (attempted speech of the target
            until all together lasts as long as the whole cohort), `"humans"` or `"monkeys"`.
        seed (`int`): the cohort.

    Returns:
        `list`: participant, folder name, and how many training trials are taken (None: all).
    """
    if part == "target":
        return [
            (target(seed, "attempted"), "attempted", ATTEMPTED_TRIALS),
            (target(seed, "imagined"), "imagined", IMAGINED_TRIALS),
        ]
    if part == "target_more":
        config = replace(ATTEMPTED, train_sentences=MORE_TRIALS)
        return [(SimulatedParticipant(config, seed=1000 * (seed + 1)), "attempted_more", None)]
    others = {"humans": humans, "monkeys": monkeys}[part](seed)
    return [(participant, participant.config.participant_id, None) for participant in others]
