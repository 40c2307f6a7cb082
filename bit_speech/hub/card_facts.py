"""What only people know about a model or a dataset, from a small YAML file, and the numbers of its metrics files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

EXAMPLE = """\
# bit-speech publish --model runs/me/model --card this_file.yaml --repo_id my-lab/p01-decoder
title: A decoder of attempted speech for participant p01
summary: Turns 20 ms bins of p01's speech cortex into sentences.
licence: apache-2.0                    # of the model, as the Hub spells it; needed for an upload
simulated: false                       # true when no person was recorded
participants: one paralysed man        # no names, no dates of birth
implant: 4 arrays of 64 electrodes in ventral 6v, area 4, 55b, dorsal 6v
task: attempted_speech                 # imagined_speech needs special care, see the card
data: recorded in our laboratory, 2024 # a DOI if there is one
data_licence: not public
consent: p01 agreed in writing to the publication of decoders, study NCT00000000
intended_use: research on restoring communication
limits: [one participant, read sentences only]
latency: median 31 ms per 80 ms frame, one core of a laptop (benchmarks/latency.json)
contact: someone@example.org
published:                             # figures of others, marked as such
  - {metric: wer, value: 0.067, split: test, source: 'name and DOI'}
"""

METRICS = {"per": "phoneme error rate", "wer": "word error rate", "cer": "character error rate"}


@dataclass(frozen=True)
class CardFacts:
    """What a card needs and no file of the model holds. What is None is shown as not stated.

    Attributes:
        title (`str`): heading of the card.
        summary (`str`): one sentence.
        licence (`str`): of the model or dataset, as the Hub spells it.
        simulated (`bool`): True when no person was recorded.
        participants (`str`): who, without anything that names a person.
        implant (`str`): arrays and where they are.
        task (`str`): such as `"attempted_speech"`.
        data (`str`): where the recordings come from.
        data_licence (`str`): of the recordings.
        consent (`str`): what the participant agreed to.
        intended_use (`str`): what it is for.
        limits (`list[str]`): what it cannot do.
        latency (`str`): measured how, on what.
        contact (`str`): whom to ask.
        base_model (`str`): Hub name of the checkpoint that training started from.
        published (`list[dict]`): figures of others: `metric`, `value`, `split`, `source`.
    """

    title: str | None = None
    summary: str | None = None
    licence: str | None = None
    simulated: bool = False
    participants: str | None = None
    implant: str | None = None
    task: str | None = None
    data: str | None = None
    data_licence: str | None = None
    consent: str | None = None
    intended_use: str | None = None
    limits: Sequence[str] = ()
    latency: str | None = None
    contact: str | None = None
    base_model: str | None = None
    published: Sequence[Mapping[str, Any]] = ()

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> CardFacts:
        """Read a file of facts.

        Args:
            path (`str`): the YAML file; `bit-speech publish --example` prints one.

        Returns:
            `CardFacts`: checked.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: for a key that no card has, or a published figure without its source.
        """
        from bit_speech.arguments import load_config

        values = load_config(path)
        known = [entry.name for entry in fields(cls)]
        unknown = [name for name in values if name not in known]
        if unknown:
            raise ValueError(f"{path}: unknown {', '.join(unknown)}; a card has {', '.join(known)}")
        for figure in values.get("published") or ():
            if not isinstance(figure, Mapping) or set(figure) != {"metric", "value", "split", "source"}:
                raise ValueError(f"{path}: published: {figure!r}; give metric, value, split and source of every figure")
        return cls(**{name: value for name, value in values.items() if value is not None})


@dataclass(frozen=True)
class Figure:
    """One figure of a card.

    Attributes:
        metric (`str`): such as `"wer"`.
        mark (`str`): `"ours"`, `"published"` or `"not measured"`.
        value (`float`, *optional*): 0.08 is 8 %.
        low (`float`, *optional*): lower end of the 95 % interval.
        high (`float`, *optional*): upper end.
        split (`str`): what it was measured on.
        num_sentences (`int`, *optional*): how many sentences.
        source (`str`): who measured it.
    """

    metric: str
    mark: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    split: str = ""
    num_sentences: int | None = None
    source: str = ""


@dataclass(frozen=True)
class Measurements:
    """What metrics files say.

    Attributes:
        figures (`tuple[Figure, ...]`): error rates, ours.
        run (`dict`): the record of the training run, or empty.
    """

    figures: tuple[Figure, ...] = ()
    run: Mapping[str, Any] = field(default_factory=dict)


def read_measurements(paths: Sequence[str | os.PathLike[str]]) -> Measurements:
    """Read the metrics files of runs and evaluations.

    Args:
        paths (`list[str]`): each a `metrics.json` of a training run, of `bit-speech finetune` or of
            `bit-speech evaluate`.

    Returns:
        `Measurements`: figures of all files, and the last run record among them.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when a file holds neither a run nor a score.
    """
    figures: list[Figure] = []
    run: Mapping[str, Any] = {}
    for path in map(Path, paths):
        if not path.is_file():
            raise FileNotFoundError(f"there is no metrics file {path}; `bit-speech evaluate` writes one")
        content = json.loads(path.read_text(encoding="utf-8"))
        found = [
            figure
            for scored in [content, *content.get("evaluations", ())]
            for figure in _figures(scored, str(scored.get("split", "unnamed split")))
        ]
        if "model_config" in content:
            run = content
            last = content.get("final_evaluation") or {}
            if not found and "eval_per" in last:
                split = (content.get("experiment") or {}).get("eval_split", "validation")
                note = f"{split}, which chose the checkpoint"
                found = [Figure("per", "ours", last["eval_per"], split=note, source="this training run")]
        if not found and "model_config" not in content:
            raise ValueError(f"{path} holds neither the record of a run nor an error rate; give a metrics.json")
        figures += found
    return Measurements(tuple(figures), run)


def _figures(scored: Mapping[str, Any], split: str) -> list[Figure]:
    found = []
    for name in METRICS:
        rate = scored.get(name)
        if isinstance(rate, Mapping) and "rate" in rate:
            count = rate.get("num_sentences")
            found.append(Figure(name, "ours", rate["rate"], rate.get("low"), rate.get("high"), split, count, "us"))
    return found


def all_figures(measurements: Measurements, facts: CardFacts) -> list[Figure]:
    """Put our figures, published ones and the gaps into one list.

    Args:
        measurements (`Measurements`): ours.
        facts (`CardFacts`): with those of others.

    Returns:
        `list[Figure]`: phoneme and word error rate always occur, as not measured when nobody measured them.
    """
    figures = list(measurements.figures)
    for given in facts.published:
        source = str(given["source"])
        figures.append(
            Figure(str(given["metric"]), "published", float(given["value"]), split=given["split"], source=source)
        )
    known = {figure.metric for figure in figures if figure.mark == "ours"}
    return figures + [Figure(name, "not measured") for name in ("per", "wer") if name not in known]
