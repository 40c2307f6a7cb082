"""Splitting trials without leakage, and finding leakage in splits that others made."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np

from bit_speech.data.schema import SPLITS

_NOT_A_WORD = re.compile(r"[^\w' ]+")


def comparable_text(text: str) -> str:
    """Bring a sentence into the form in which two sentences count as the same.

    Args:
        text (`str`): a sentence.

    Returns:
        `str`: lower case, without punctuation other than apostrophes, single spaces.

    Example:
        >>> comparable_text("  Bring it,   closer. ")
        'bring it closer'
    """
    return " ".join(_NOT_A_WORD.sub(" ", text.lower()).split())


@dataclass(frozen=True)
class LeakageReport:
    """What two splits have in common.

    Attributes:
        blocks (`dict[tuple[str, int], tuple[str, ...]]`): `(session_id, block_index)` of every block that lies in more
            than one split -> those splits.
        sentences (`dict[str, tuple[str, ...]]`): every sentence, as [`comparable_text`] gives it, that is in more than
            one split -> those splits.
        trials (`dict[str, int]`): split -> its number of trials.
        trials_affected (`dict[str, int]`): split -> its trials whose sentence is also in another split.
    """

    blocks: dict[tuple[str, int], tuple[str, ...]]
    sentences: dict[str, tuple[str, ...]]
    trials: dict[str, int]
    trials_affected: dict[str, int]

    @property
    def ok(self) -> bool:
        """True when no block and no sentence is in two splits."""
        return not self.blocks and not self.sentences

    def to_dict(self) -> dict[str, Any]:
        """Sum the report up in plain numbers, for a file.

        Returns:
            `dict`: counts of blocks and sentences in several splits, per combination of splits, and trials affected.
        """
        return {
            "blocks_in_several_splits": _count(self.blocks.values()),
            "sentences_in_several_splits": _count(self.sentences.values()),
            "trials": self.trials,
            "trials_whose_sentence_is_in_another_split": self.trials_affected,
        }

    def __str__(self) -> str:
        """Say it in a few lines."""
        if self.ok:
            return "no block and no sentence is in two splits"
        lines = []
        for what, found in (("block", self.blocks), ("sentence", self.sentences)):
            if found:
                first, splits = next(iter(found.items()))
                name = f"{first[0]} block {first[1]}" if isinstance(first, tuple) else repr(first)
                lines.append(
                    f"{len(found)} {what}(s) in more than one split, for example {name} in {' and '.join(splits)}"
                )
        shares = [
            f"{count} of {self.trials[split]} in {split}" for split, count in self.trials_affected.items() if count
        ]
        if shares:
            lines.append(f"trials whose sentence is also in another split: {', '.join(shares)}")
        return "; ".join(lines)


def _count(combinations: Iterable[tuple[str, ...]]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for splits in combinations:
        name = " + ".join(splits)
        counts[name] = counts.get(name, 0) + 1
    return counts


def find_leakage(trials: Iterable[tuple[str, str, int, str | None]]) -> LeakageReport:
    """Compare splits, from the identities of their trials alone.

    Args:
        trials (iterable of `tuple[str, str, int, str | None]`): split, session, block and text of every trial.

    Returns:
        `LeakageReport`: what is in more than one split.

    Example:
        >>> report = find_leakage([("train", "a", 1, "Hi."), ("test", "a", 2, "hi")])
        >>> report.ok, report.sentences
        (False, {'hi': ('train', 'test')})
    """
    blocks: dict[tuple[str, int], set[str]] = {}
    sentences: dict[str, dict[str, int]] = {}
    counts: dict[str, int] = {}
    for split, session, block, text in trials:
        counts[split] = counts.get(split, 0) + 1
        blocks.setdefault((session, int(block)), set()).add(split)
        if text is not None:
            by_split = sentences.setdefault(comparable_text(text), {})
            by_split[split] = by_split.get(split, 0) + 1
    shared = {text: by_split for text, by_split in sentences.items() if len(by_split) > 1}
    names = _in_order(counts)
    return LeakageReport(
        blocks={key: tuple(_in_order(found)) for key, found in blocks.items() if len(found) > 1},
        sentences={text: tuple(_in_order(by_split)) for text, by_split in shared.items()},
        trials={split: counts[split] for split in names},
        trials_affected={split: sum(by_split.get(split, 0) for by_split in shared.values()) for split in names},
    )


def _in_order(names: Iterable[str]) -> list[str]:
    return sorted(names, key=lambda name: (SPLITS.index(name) if name in SPLITS else len(SPLITS), name))


def check_leakage(splits: Mapping[str, datasets.Dataset], *, made_by_source: bool = False) -> LeakageReport:
    """Refuse splits that share a block or a sentence, unless the source of the data made them so.

    Args:
        splits (`datasets.DatasetDict`): split -> trials.
        made_by_source (`bool`, defaults to False): the splits were published like this: report instead of refusing.

    Returns:
        `LeakageReport`: what the splits share; nothing, unless `made_by_source`.

    Raises:
        ValueError: when a block or a sentence is in two splits and the source did not make them.

    Note:
        The Brain-to-Text '25 splits share blocks between validation and test, and repeat sentences between training and
        validation; results on them include that, and comparisons with published numbers need them as they are.
    """
    report = find_leakage(_identities(splits))
    if report.ok or made_by_source:
        return report
    raise ValueError(
        f"leakage between splits: {report}. Split by block or session with on_repeated_sentence='drop', or pass "
        "made_by_source=True when the data were published with these splits"
    )


def _identities(splits: Mapping[str, datasets.Dataset]) -> Iterable[tuple[str, str, int, str | None]]:
    for split, dataset in splits.items():
        columns = [_column(dataset, name) for name in ("session_id", "block_index", "text")]
        for session, block, text in zip(*columns):
            yield split, str(session), int(block), None if text is None else str(text)


def _column(dataset: datasets.Dataset, name: str) -> list[Any]:
    table = dataset.select_columns([name]).with_format("arrow")[:]
    return table.column(name).to_pylist()


def split_by_block(
    dataset: datasets.Dataset,
    fractions: Mapping[str, float],
    *,
    seed: int = 0,
    on_repeated_sentence: str = "error",
) -> datasets.DatasetDict:
    """Split trials by whole blocks, in every session alike.

    Args:
        dataset (`datasets.Dataset`): trials.
        fractions (`dict[str, float]`): split -> its share of the trials, such as `{"train": 0.8, "validation": 0.2}`;
            they sum to 1. The first one is the training split: it gets at least one block of every session.
        seed (`int`, defaults to 0): seed of the choice.
        on_repeated_sentence (`str`, defaults to `"error"`): what to do when a sentence lands in two splits. `"error"`
            refuses, `"drop"` leaves it out of the training split, `"keep"` lets it be.

    Returns:
        `datasets.DatasetDict`: the splits; their column `split` is rewritten.

    Raises:
        ValueError: when fractions are wrong, blocks are too few for the splits, or a sentence is in two splits.

    Example:
        ```python
        parts = split_by_block(trials, {"train": 0.8, "validation": 0.1, "test": 0.1}, on_repeated_sentence="drop")
        ```
    """
    _check_fractions(fractions)
    blocks: dict[str, dict[int, int]] = {}
    keys = [(str(s), int(b)) for s, b in zip(_column(dataset, "session_id"), _column(dataset, "block_index"))]
    for session, block in keys:
        counts = blocks.setdefault(session, {})
        counts[block] = counts.get(block, 0) + 1
    rng = np.random.default_rng(seed)
    names = list(fractions)
    wanted = {name: share * len(keys) for name, share in fractions.items()}
    got = dict.fromkeys(names, 0)
    assignment: dict[Hashable, str] = {}
    for session in sorted(blocks):
        order = [sorted(blocks[session])[i] for i in rng.permutation(len(blocks[session]))]
        for position, block in enumerate(order):
            # Each block goes where most is lacking; the first of a session trains.
            lacking = max(names, key=lambda name: (wanted[name] - got[name]) / max(wanted[name], 1e-9))
            chosen = names[0] if position == 0 else lacking
            assignment[(session, block)] = chosen
            got[chosen] += blocks[session][block]
    empty = [name for name in names if got[name] == 0]
    if empty:
        raise ValueError(
            f"no block is left for {', '.join(empty)}: {len(assignment)} blocks in {len(blocks)} sessions are too few"
        )
    return _assign(dataset, [assignment[key] for key in keys], names, on_repeated_sentence)


def _check_fractions(fractions: Mapping[str, float]) -> None:
    unknown = [name for name in fractions if name not in SPLITS]
    if unknown or len(fractions) < 2:
        raise ValueError(
            f"fractions needs at least two of {', '.join(SPLITS)}, got {', '.join(map(str, fractions)) or 'none'}"
        )
    if any(not 0 < share < 1 for share in fractions.values()) or abs(sum(fractions.values()) - 1) > 1e-6:
        raise ValueError(f"fractions must each be between 0 and 1 and sum to 1, got {dict(fractions)}")


def split_by_session(
    dataset: datasets.Dataset, sessions: Mapping[str, Sequence[str]], *, on_repeated_sentence: str = "error"
) -> datasets.DatasetDict:
    """Split trials by whole sessions: how well does a decoder hold on days it has not seen?

    Args:
        dataset (`datasets.Dataset`): trials.
        sessions (`dict[str, list[str]]`): split -> its sessions, for the splits that are held out. All other sessions
            train.
        on_repeated_sentence (`str`, defaults to `"error"`): as in [`split_by_block`].

    Returns:
        `datasets.DatasetDict`: `train` and the splits that were named; their column `split` is rewritten.

    Raises:
        ValueError: when a session is unknown or named twice, none is left to train, or a sentence is in two splits.

    Example:
        ```python
        parts = split_by_session(trials, {"test": ["t15.2025.03.30", "t15.2025.04.13"]})
        ```
    """
    unknown = [name for name in sessions if name not in SPLITS or name == "train"]
    if unknown or not sessions:
        raise ValueError(
            f"sessions names held-out splits (validation, test), got {', '.join(map(str, unknown)) or 'none'}"
        )
    column = [str(session) for session in _column(dataset, "session_id")]
    present = sorted(set(column))
    assignment: dict[str, str] = {}
    for split, names in sessions.items():
        if isinstance(names, str) or not names:
            raise ValueError(f"give a list of sessions for {split!r}, got {names!r}")
        for session in names:
            if session not in present:
                raise ValueError(f"no session {session!r}; the dataset has {', '.join(present)}")
            if session in assignment:
                raise ValueError(f"session {session!r} is named twice; a session is in one split")
            assignment[session] = split
    if len(assignment) == len(present):
        raise ValueError("every session is held out: none is left to train")
    wanted = [assignment.get(session, "train") for session in column]
    return _assign(dataset, wanted, ["train", *sessions], on_repeated_sentence)


def _assign(
    dataset: datasets.Dataset, wanted: Sequence[str], names: Sequence[str], on_repeated_sentence: str
) -> datasets.DatasetDict:
    if on_repeated_sentence not in ("error", "drop", "keep"):
        raise ValueError(f"on_repeated_sentence must be 'error', 'drop' or 'keep', got {on_repeated_sentence!r}")
    positions: dict[str, list[int]] = {name: [i for i, split in enumerate(wanted) if split == name] for name in names}
    texts = [None if text is None else comparable_text(str(text)) for text in _column(dataset, "text")]
    if on_repeated_sentence == "drop":
        held_out = {texts[i] for name in names[1:] for i in positions[name]} - {None}
        positions[names[0]] = [i for i in positions[names[0]] if texts[i] not in held_out]
        if not positions[names[0]]:
            raise ValueError("every training sentence is also held out: nothing is left to train on")
    # Rewritten before selecting, which then shares the one memory-mapped table instead of copying it.
    position = dataset.column_names.index("split")
    order = list(dataset.column_names)
    relabelled = dataset.remove_columns("split").add_column("split", list(wanted), feature=datasets.Value("string"))
    relabelled = relabelled.select_columns(order[:position] + ["split"] + order[position + 1 :])
    parts = datasets.DatasetDict({name: relabelled.select(positions[name]) for name in names})
    report = find_leakage(_identities(parts))
    if report.blocks or (report.sentences and on_repeated_sentence == "error"):
        raise ValueError(
            f"leakage between splits: {report}. Pass on_repeated_sentence='drop' to leave such sentences out of the "
            "training split, or 'keep' when they are meant to repeat"
        )
    return parts
