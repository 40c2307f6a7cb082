"""A look at recordings before training on them: firing rates, dead channels, drift, and what the splits share."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bit_speech.data.dead_channels import MAX_DEAD_CHANNELS
from bit_speech.data.reading import TrialReader
from bit_speech.data.schema import THRESHOLD_CROSSINGS
from bit_speech.data.splits import LeakageReport, comparable_text, find_leakage
from bit_speech.data.statistics import NormalizationReport, RunningStatistics, check_normalization
from bit_speech.files import write_bytes, write_json, write_text
from bit_speech.import_utils import require

if TYPE_CHECKING:
    import datasets

LARGE_DRIFT = 1.0
"""Median change of a channel's mean from one session to the next, in its own standard deviations, that is remarked."""
FEW_SENTENCES = 100
"""Training sentences below which the report says that they are few."""


@dataclass(frozen=True)
class SessionData:
    """One session in numbers.

    Attributes:
        session_id (`str`): its name.
        num_trials (`int`): trials, of all splits.
        num_blocks (`int`): blocks.
        minutes (`float`): of recording, within trials.
        rate_hz (`float`, *optional*): mean over live channels of threshold crossings per second; None for features
            that are no counts.
        dead_channels (`list[int]`): channels that hold one value throughout the session.
        drift (`float`, *optional*): median over channels of the change of the mean since the session before, in
            standard deviations within a session; None for the first.
    """

    session_id: str
    num_trials: int
    num_blocks: int
    minutes: float
    rate_hz: float | None
    dead_channels: list[int]
    drift: float | None


@dataclass(frozen=True)
class DataReport:
    """What there is to know about a dataset of trials before training on it.

    Attributes:
        participants (`list[str]`): names.
        sessions (`list[SessionData]`): in the order of their names, which is that of time when they hold dates.
        splits (`dict[str, dict[str, float]]`): split -> `num_trials`, `minutes`, `num_sentences` (distinct ones),
            `num_labelled`.
        num_channels (`int`): feature channels C.
        feature_kinds (`dict[str, int]`): kind -> number of channels.
        bin_size_ms (`float`): length of a bin.
        normalization (`NormalizationReport`): whether the features look z-scored already.
        leakage (`LeakageReport`): what the splits share.
        unseen_words (`float`, *optional*): share of the words of the other splits that no training sentence has.
        warnings (`list[str]`): what to look at, each with what can be done.
        channel_kinds (`list[str]`): kind of every channel.
        channel_rates (`np.ndarray` of shape `(sessions, C)`): mean of every channel and session; per second for
            threshold crossings that are counts, in the features' own unit otherwise.
        drift (`np.ndarray` of shape `(sessions, sessions)`): as `SessionData.drift`, for every pair.
        trial_seconds (`np.ndarray` of shape `(trials,)`): durations.
    """

    participants: list[str]
    sessions: list[SessionData]
    splits: dict[str, dict[str, float]]
    num_channels: int
    feature_kinds: dict[str, int]
    bin_size_ms: float
    normalization: NormalizationReport
    leakage: LeakageReport
    unseen_words: float | None
    warnings: list[str]
    channel_kinds: list[str]
    channel_rates: np.ndarray
    drift: np.ndarray
    trial_seconds: np.ndarray

    def to_dict(self) -> dict[str, Any]:
        """Give the report as JSON can hold it.

        Returns:
            `dict`: plain values.
        """
        return {
            "participants": self.participants,
            "sessions": [asdict(session) for session in self.sessions],
            "splits": self.splits,
            "num_channels": self.num_channels,
            "feature_kinds": self.feature_kinds,
            "bin_size_ms": self.bin_size_ms,
            "normalization": asdict(self.normalization),
            "leakage": self.leakage.to_dict(),
            "unseen_words": self.unseen_words,
            "warnings": self.warnings,
            "channel_rates": self.channel_rates.round(4).tolist(),
            "drift": self.drift.round(4).tolist(),
        }

    def __str__(self) -> str:
        """Say the most important in a few lines."""
        counts = ", ".join(
            f"{name} {int(split['num_trials']):,} ({split['minutes']:.1f} min)" for name, split in self.splits.items()
        )
        lines = [
            f"{', '.join(self.participants)}: {len(self.sessions)} sessions, {self.num_channels} channels, "
            f"bins of {self.bin_size_ms:g} ms",
            f"trials: {counts}",
            f"features: {self.normalization}",
            f"splits: {self.leakage}",
        ]
        return "\n".join([*lines, *(f"look at this: {warning}" for warning in self.warnings)])


class _Session:
    """Running numbers of one session."""

    def __init__(self) -> None:
        self.statistics = RunningStatistics()
        self.low: np.ndarray | None = None
        self.high: np.ndarray | None = None
        self.blocks: set[int] = set()
        self.num_trials = 0

    def add(self, trial: Mapping[str, Any]) -> None:
        features = trial["features"]
        self.statistics.add(features)
        low, high = features.min(axis=0), features.max(axis=0)
        self.low = low if self.low is None else np.minimum(self.low, low)
        self.high = high if self.high is None else np.maximum(self.high, high)
        self.blocks.add(int(trial["block_index"]))
        self.num_trials += 1

    @property
    def dead(self) -> np.ndarray:
        return np.flatnonzero(self.low == self.high)


def describe_data(trials: datasets.DatasetDict) -> DataReport:
    """Read every trial once and say what is there.

    Args:
        trials (`datasets.DatasetDict`): split -> trials, from `load_trials`.

    Returns:
        `DataReport`: numbers and warnings.

    Raises:
        ValueError: when there is no trial, or trials have different bin sizes.

    Note:
        A channel is dead when it holds one value throughout a session, as in `find_dead_channels`. Rates are only given
        for features that look like counts: raw, and never negative.
    """
    sessions: dict[str, _Session] = {}
    identities: list[tuple[str, str, int, str | None]] = []
    labelled: dict[str, int] = {}
    seconds: dict[str, list[float]] = {}
    first: Mapping[str, Any] | None = None
    participants, bin_sizes = set(), set()
    for split, dataset in trials.items():
        for trial in TrialReader(dataset):
            first = first or trial
            sessions.setdefault(str(trial["session_id"]), _Session()).add(trial)
            identities.append((split, str(trial["session_id"]), int(trial["block_index"]), trial["text"]))
            has_labels = trial["text"] is not None or trial["phonemes"] is not None
            labelled[split] = labelled.get(split, 0) + has_labels
            seconds.setdefault(split, []).append(len(trial["features"]) * float(trial["bin_size_ms"]) / 1000)
            participants.add(str(trial["participant_id"]))
            bin_sizes.add(float(trial["bin_size_ms"]))
    if first is None:
        raise ValueError("the dataset holds no trial: there is nothing to look at")
    if len(bin_sizes) > 1:
        raise ValueError(f"trials have bins of {sorted(bin_sizes)} ms; convert them with one bin size")
    bin_size_ms = bin_sizes.pop()
    names = sorted(sessions)
    normalization = check_normalization(trials)
    kinds = list(first["feature_kinds"])
    crossings = np.array([kind == THRESHOLD_CROSSINGS for kind in kinds])
    lowest = np.stack([np.asarray(sessions[name].low) for name in names])
    counts = normalization.kind == "raw" and bool(np.all(lowest[:, crossings] >= 0))
    means = np.stack([sessions[name].statistics.mean for name in names])
    rates = np.where(crossings & counts, means * (1000 / bin_size_ms), means)
    drift = _drift(means, np.stack([sessions[name].statistics.std for name in names]))
    described = []
    for place, name in enumerate(names):
        session = sessions[name]
        alive = crossings.copy()
        alive[session.dead] = False
        described.append(
            SessionData(
                session_id=name,
                num_trials=session.num_trials,
                num_blocks=len(session.blocks),
                minutes=round(session.statistics.count * bin_size_ms / 60_000, 3),
                rate_hz=round(float(rates[place][alive].mean()), 3) if counts and alive.any() else None,
                dead_channels=[int(channel) for channel in session.dead],
                drift=round(float(drift[place - 1, place]), 3) if place else None,
            )
        )
    leakage = find_leakage(identities)
    splits = {
        split: {
            "num_trials": len(seconds[split]),
            "minutes": round(sum(seconds[split]) / 60, 3),
            "num_sentences": len({comparable_text(text) for part, _, _, text in identities if part == split and text}),
            "num_labelled": labelled[split],
        }
        for split in seconds
    }
    return DataReport(
        participants=sorted(participants),
        sessions=described,
        splits=splits,
        num_channels=means.shape[1],
        feature_kinds={kind: kinds.count(kind) for kind in dict.fromkeys(kinds)},
        bin_size_ms=bin_size_ms,
        normalization=normalization,
        leakage=leakage,
        unseen_words=_unseen_words(identities),
        warnings=_warnings(described, splits, leakage, normalization, identities),
        channel_kinds=kinds,
        channel_rates=rates,
        drift=drift,
        trial_seconds=np.array([value for values in seconds.values() for value in values]),
    )


def _drift(means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Median over channels of how far two sessions' means lie apart, in standard deviations within a session."""
    found = np.zeros((len(means), len(means)))
    for a in range(len(means)):
        for b in range(a + 1, len(means)):
            scale = np.sqrt((deviations[a] ** 2 + deviations[b] ** 2) / 2)
            live = scale > 0
            moved = np.abs(means[a] - means[b])[live] / scale[live]
            found[a, b] = found[b, a] = float(np.median(moved)) if live.any() else 0.0
    return found


def _unseen_words(identities: Sequence[tuple[str, str, int, str | None]]) -> float | None:
    words: dict[bool, list[str]] = {True: [], False: []}
    for split, _, _, text in identities:
        if text is not None:
            words[split == "train"] += comparable_text(text).split()
    known = set(words[True])
    return sum(word not in known for word in words[False]) / len(words[False]) if words[False] else None


def _warnings(
    sessions: Sequence[SessionData],
    splits: Mapping[str, Mapping[str, float]],
    leakage: LeakageReport,
    normalization: NormalizationReport,
    identities: Sequence[tuple[str, str, int, str | None]],
) -> list[str]:
    found = []
    broken = [session for session in sessions if len(session.dead_channels) > MAX_DEAD_CHANNELS]
    if broken:
        worst = max(broken, key=lambda session: len(session.dead_channels))
        found.append(
            f"{len(broken)} session(s) have more than {MAX_DEAD_CHANNELS} dead channels, {worst.session_id} has "
            f"{len(worst.dead_channels)}: check the cables, or leave these channels or sessions out"
        )
    moved = [session for session in sessions if session.drift is not None and session.drift > LARGE_DRIFT]
    if moved:
        found.append(
            f"channels move by {max(float(s.drift or 0) for s in moved):.1f} standard deviations into "
            f"{moved[0].session_id}{' and others' if len(moved) > 1 else ''}: was an electrode, a reference or a "
            "threshold changed there? z-scoring by block takes a shift away, not a change of tuning"
        )
    if not leakage.ok:
        found.append(f"{leakage}: scores on those trials are too good; leave them out of training")
    if normalization.kind == "block":
        found.append("features are z-scored over whole blocks already, which a decoder that runs live cannot do")
    labelled = splits.get("train", {}).get("num_labelled", 0)
    if labelled < FEW_SENTENCES:
        found.append(f"{int(labelled)} training sentences are few: start from a --base that has learned from others")
    trained = {session for split, session, _, _ in identities if split == "train"}
    new = sorted({session for split, session, _, _ in identities if split != "train"} - trained)
    if new:
        found.append(f"no trial of {', '.join(new)} is trained on: its score tells about days without any training")
    return found


def write_data_report(output_dir: str | os.PathLike[str], report: DataReport, title: str) -> Path:
    """Write `data_report.html` (one file, no outside resources), `data_report.json` and the figures as PNG files.

    Args:
        output_dir (`str`): folder to write into; made if missing.
        report (`DataReport`): from [`describe_data`].
        title (`str`): heading of the page.

    Returns:
        `Path`: of `data_report.html`.

    Raises:
        ImportError: without matplotlib or jinja2; the message holds the command that installs it.
    """
    require("matplotlib")
    jinja = require("jinja2")
    from bit_speech.evaluation import data_report_figures as figures

    output = Path(output_dir)
    pngs = {
        "rates": figures.rate_figure(report),
        "dead_channels": figures.dead_channel_figure(report),
        "durations": figures.duration_figure(report),
    }
    if len(report.sessions) > 1:
        pngs["drift"] = figures.drift_figure(report)
    for name, content in pngs.items():
        write_bytes(output / "figures" / f"{name}.png", content)
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja.StrictUndefined,
    )
    images = {name: base64.b64encode(content).decode("ascii") for name, content in pngs.items()}
    page = environment.get_template("data_report.html.jinja").render(title=title, report=report, images=images)
    write_json(output / "data_report.json", report.to_dict())
    return write_text(output / "data_report.html", page)
