"""What all converters share: checking counts, writing shard by shard, and resuming after being killed at any moment."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from tqdm import tqdm

from bit_speech.data.schema import SPLITS
from bit_speech.data.splits import LeakageReport, find_leakage
from bit_speech.data.writing import COMPRESSIONS, ShardWriter, dataset_card, file_hash, read_identities
from bit_speech.files import write_json, write_text

MANIFEST_NAME = "conversion.json"
MANIFEST_VERSION = 1


@dataclass(frozen=True)
class Problem:
    """A trial, or a whole file, that cannot be converted.

    Attributes:
        source (`str`): file it is in, relative to the input folder.
        trial (`str`): which trial; empty for the whole file.
        reason (`str`): what is wrong with it.
    """

    source: str
    trial: str
    reason: str

    def __str__(self) -> str:
        """Name file, trial and reason."""
        return f"{self.source}{f', {self.trial}' if self.trial else ''}: {self.reason}"


@dataclass(frozen=True)
class ShardPlan:
    """One shard to be: the trials of one session in one split.

    Attributes:
        split (`str`): `"train"`, `"validation"` or `"test"`.
        session_id (`str`): the session.
        sources (`dict[str, Path]`): files that it is read from, by their name relative to the input folder.
        num_trials (`int`): trials that are expected.
        read (`Callable`): gives the trials in order; a broken one as a `Problem`.
        require_text (`bool`): refuse trials without text.
    """

    split: str
    session_id: str
    sources: Mapping[str, Path]
    num_trials: int
    read: Callable[[], Iterator[Mapping[str, Any] | Problem]]
    require_text: bool = False

    @property
    def name(self) -> str:
        """Path of the shard, relative to the output folder."""
        return f"data/{self.split}-{re.sub(r'[^A-Za-z0-9._-]', '_', self.session_id)}.parquet"


@dataclass(frozen=True)
class SourceDescription:
    """What the dataset card says about where trials come from.

    Attributes:
        converter (`str`): name of the converter.
        title (`str`): name of the dataset.
        licence (`str`): SPDX identifier, or `"unknown"`.
        description (`str`): origin, with DOI.
        notes (`tuple[str, ...]`): paragraphs for the end of the card.
        options (`dict`): settings that change what is written.
    """

    converter: str
    title: str
    licence: str
    description: str
    notes: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion did.

    Attributes:
        output_dir (`Path`): the dataset.
        splits (`dict[str, dict[str, int]]`): split -> `num_trials`, `num_bins`, `num_sessions`, `num_bytes`.
        left_out (`tuple[Problem, ...]`): what could not be converted (only with `allow_partial`).
        leakage (`LeakageReport`): blocks and sentences that the splits share.
        written (`tuple[str, ...]`): shards written by this run.
        kept (`tuple[str, ...]`): shards that an earlier run had completed.
    """

    output_dir: Path
    splits: Mapping[str, Mapping[str, int]]
    left_out: tuple[Problem, ...]
    leakage: LeakageReport
    written: tuple[str, ...]
    kept: tuple[str, ...]

    def __str__(self) -> str:
        """Sum it up in a few lines."""
        counts = ", ".join(f"{name} {numbers['num_trials']:,}" for name, numbers in self.splits.items())
        lines = [
            f"{self.output_dir}: {counts} trials; {len(self.written)} shards written, {len(self.kept)} kept",
            f"splits: {self.leakage}",
        ]
        if self.left_out:
            lines.append(f"left out: {len(self.left_out)}, listed in {MANIFEST_NAME}; the first is {self.left_out[0]}")
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Give it as JSON can hold it.

        Returns:
            `dict`: the folder, counts of each split, what was left out, and the sentences that splits share.
        """
        return {
            "output_dir": str(self.output_dir),
            "splits": {name: dict(numbers) for name, numbers in self.splits.items()},
            "left_out": [str(problem) for problem in self.left_out],
            "sentences_in_several_splits": sorted(self.leakage.sentences),
            "shards_written": len(self.written),
            "shards_kept": len(self.kept),
        }


def check_expected(
    plans: Sequence[ShardPlan],
    problems: Sequence[Problem],
    *,
    counts: Mapping[str, int],
    sessions: Mapping[str, Sequence[str]],
    allow_partial: bool,
) -> None:
    """Refuse a release that is not complete, unless told otherwise.

    Args:
        plans (`list[ShardPlan]`): what was found.
        problems (`list[Problem]`): files that cannot be read.
        counts (`dict[str, int]`): split -> trials of the complete release.
        sessions (`dict[str, list[str]]`): split -> sessions of the complete release.
        allow_partial (`bool`): take what is there.

    Raises:
        ValueError: naming what is missing, unexpected or unreadable; or when nothing is there at all.
    """
    if not plans:
        raise ValueError(f"nothing to convert: {'; '.join(map(str, problems)) or 'no trial found'}")
    if allow_partial:
        return
    differences = [str(problem) for problem in problems]
    for split, expected in counts.items():
        found = {plan.session_id: plan.num_trials for plan in plans if plan.split == split}
        missing = [session for session in sessions[split] if session not in found]
        unexpected = [session for session in found if session not in sessions[split]]
        if missing:
            differences.append(f"{split}: {len(missing)} session(s) missing: {_some(missing)}")
        if unexpected:
            differences.append(f"{split}: {len(unexpected)} unknown session(s): {_some(unexpected)}")
        if sum(found.values()) != expected:
            differences.append(f"{split}: {sum(found.values()):,} trials, the release has {expected:,}")
    if differences:
        raise ValueError(
            "this is not the complete release: " + "; ".join(differences) + ". Complete the download, or pass "
            "allow_partial=True (--allow_partial) to convert what is there"
        )


def _some(names: Sequence[str], most: int = 5) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def run_conversion(
    output_dir: str | os.PathLike[str],
    plans: Sequence[ShardPlan],
    *,
    num_channels: int,
    source: SourceDescription,
    problems: Iterable[Problem] = (),
    allow_partial: bool = False,
    compression: str = "lz4",
    progress: bool = True,
) -> ConversionReport:
    """Write a dataset of trials, shard by shard; a run that was killed goes on where it stopped.

    A shard counts as done when the manifest holds it, the file has the recorded hash, and the files it came from still
    have theirs. Everything else is written again, to a temporary name first, so the result does not depend on whether,
    when or how often a run was killed.

    Args:
        output_dir (`str`): dataset to write: `README.md`, `conversion.json` and `data/`.
        plans (`list[ShardPlan]`): the shards.
        num_channels (`int`): feature channels C.
        source (`SourceDescription`): for card and manifest.
        problems (`list[Problem]`): files that could not be read while planning.
        allow_partial (`bool`, defaults to False): leave broken trials out and list them, instead of refusing.
        compression (`str`, defaults to `"lz4"`): of the Parquet files.
        progress (`bool`, defaults to True): show a progress bar on standard error.

    Returns:
        `ConversionReport`: what was written, kept and left out.

    Raises:
        ValueError: for a broken trial (unless `allow_partial`), two plans for one shard, or an output folder that holds
            something else: another conversion, or shards that this one does not make.
        FileExistsError: when another process is converting into the folder.
    """
    folder = Path(output_dir)
    if compression not in COMPRESSIONS:
        raise ValueError(f"compression {compression!r} is unknown; choose one of {', '.join(COMPRESSIONS)}")
    plans = sorted(plans, key=lambda plan: (SPLITS.index(plan.split), plan.session_id))
    names = [plan.name for plan in plans]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"several sessions would be written to {twice[0]}: give sessions distinct names")
    settings = {
        "manifest_version": MANIFEST_VERSION,
        "converter": source.converter,
        "options": {**source.options, "compression": compression},
        "num_channels": num_channels,
    }
    folder.mkdir(parents=True, exist_ok=True)
    lock_path = folder / ".conversion.lock"
    lock = FileLock(lock_path, timeout=0)
    try:
        with lock:
            try:
                return _run(folder, plans, settings, source, list(problems), allow_partial, progress)
            finally:
                # Windows takes the file away itself, and refuses while it is open.
                if os.name != "nt":
                    lock_path.unlink(missing_ok=True)
    except Timeout:
        raise FileExistsError(f"another process is converting into {str(folder)!r}; wait for it to end") from None


def _run(
    folder: Path,
    plans: Sequence[ShardPlan],
    settings: dict[str, Any],
    source: SourceDescription,
    problems: list[Problem],
    allow_partial: bool,
    progress: bool,
) -> ConversionReport:
    manifest = _open_manifest(folder, settings, [plan.name for plan in plans])
    shards: dict[str, Any] = manifest["shards"]
    hashes = _Hashes()
    written, kept = [], []
    total = sum(plan.num_trials for plan in plans)
    with tqdm(total=total, unit="trial", desc=source.converter, disable=not progress, smoothing=0.05) as bar:
        for plan in plans:
            bar.set_postfix_str(f"{plan.split} {plan.session_id}", refresh=False)
            if _is_done(folder, plan, shards.get(plan.name), hashes, allow_partial):
                kept.append(plan.name)
                bar.update(plan.num_trials)
                continue
            shards.pop(plan.name, None)
            shards[plan.name] = _write_shard(folder, plan, settings, hashes, allow_partial, bar)
            write_json(folder / MANIFEST_NAME, manifest)
            written.append(plan.name)
    return _finish(folder, plans, manifest, source, problems, written, kept)


class _Hashes:
    """Size and hash of source files, computed once each."""

    def __init__(self) -> None:
        self._known: dict[Path, dict[str, Any]] = {}

    def of(self, sources: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
        for path in sources.values():
            if path not in self._known:
                self._known[path] = {"num_bytes": path.stat().st_size, "xxh3_128": file_hash(path)}
        return {name: self._known[path] for name, path in sources.items()}


def _open_manifest(folder: Path, settings: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    path = folder / MANIFEST_NAME
    present = sorted(str(shard.relative_to(folder).as_posix()) for shard in (folder / "data").glob("*.parquet"))
    foreign = [name for name in present if name not in names]
    if foreign:
        raise ValueError(
            f"{str(folder)!r} holds {_some(foreign)}, which this conversion does not make: choose an empty folder"
        )
    if not path.is_file():
        if (folder / "README.md").exists():
            raise ValueError(f"{str(folder)!r} holds a README.md but no {MANIFEST_NAME}: choose an empty folder")
        return {**settings, "complete": False, "shards": {}}
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except json.JSONDecodeError as error:
        raise ValueError(f"{str(path)!r} is damaged ({error}): delete it to convert again from the start") from error
    for key, value in settings.items():
        if manifest.get(key) != value:
            raise ValueError(
                f"{str(folder)!r} was converted with {key} {manifest.get(key)!r}, now it is {value!r}: choose another "
                "output folder, or delete this one"
            )
    manifest = {**settings, "complete": False, "shards": manifest["shards"]}
    # Until the end of this run the folder is not a dataset.
    (folder / "README.md").unlink(missing_ok=True)
    write_json(path, manifest)
    return manifest


def _is_done(
    folder: Path, plan: ShardPlan, entry: Mapping[str, Any] | None, hashes: _Hashes, allow_partial: bool
) -> bool:
    if entry is None or (entry["left_out"] and not allow_partial):
        return False
    path = folder / plan.name
    if entry["num_trials"] and (not path.is_file() or path.stat().st_size != entry["num_bytes"]):
        return False
    if any(entry["sources"].get(name, {}).get("num_bytes") != p.stat().st_size for name, p in plan.sources.items()):
        return False
    if hashes.of(plan.sources) != entry["sources"]:
        return False
    return not entry["num_trials"] or file_hash(path) == entry["xxh3_128"]


def _write_shard(
    folder: Path, plan: ShardPlan, settings: Mapping[str, Any], hashes: _Hashes, allow_partial: bool, bar: tqdm
) -> dict[str, Any]:
    left_out: list[Problem] = []
    source = next(iter(plan.sources))
    writer = ShardWriter(
        folder / plan.name, settings["num_channels"], settings["options"]["compression"], plan.require_text
    )
    count = 0
    try:
        for trial in plan.read():
            problem = trial if isinstance(trial, Problem) else _add(writer, trial, source)
            if problem is None:
                count += 1
            elif allow_partial:
                left_out.append(problem)
            else:
                raise ValueError(
                    f"{problem}. Repair or download the file again, or pass allow_partial=True (--allow_partial) to "
                    "leave such trials out"
                )
            bar.update(1)
        summary = asdict(writer.close()) if count else None
    finally:
        writer.discard()
    if summary is None:
        (folder / plan.name).unlink(missing_ok=True)
        summary = {"num_trials": 0, "num_bins": 0, "num_bytes": 0, "xxh3_128": None}
    return {
        "split": plan.split,
        "session_id": plan.session_id,
        **summary,
        "sources": hashes.of(plan.sources),
        "left_out": [asdict(problem) for problem in left_out],
    }


def _add(writer: ShardWriter, trial: Mapping[str, Any], source: str) -> Problem | None:
    try:
        writer.add(trial)
    except ValueError as error:
        return Problem(source, "", str(error))
    return None


def _finish(
    folder: Path,
    plans: Sequence[ShardPlan],
    manifest: dict[str, Any],
    source: SourceDescription,
    problems: list[Problem],
    written: list[str],
    kept: list[str],
) -> ConversionReport:
    # In the order of the plan, whatever the order in which shards were completed.
    shards = {plan.name: manifest["shards"][plan.name] for plan in plans}
    splits: dict[str, dict[str, int]] = {}
    for entry in shards.values():
        if entry["num_trials"]:
            counts = splits.setdefault(
                entry["split"], {"num_trials": 0, "num_bins": 0, "num_sessions": 0, "num_bytes": 0}
            )
            counts["num_sessions"] += 1
            for key in ("num_trials", "num_bins", "num_bytes"):
                counts[key] += entry[key]
    if not splits:
        raise ValueError("every trial was left out: nothing remains to make a dataset of")
    left_out = [*problems, *(Problem(**problem) for entry in shards.values() for problem in entry["left_out"])]
    leakage = find_leakage(
        identity for name, entry in shards.items() if entry["num_trials"] for identity in read_identities(folder / name)
    )
    for leftover in [*(folder / "data").glob(".*.partial"), *folder.glob(".*.tmp")]:
        leftover.unlink()
    notes = [*source.notes, f"Splits, as the source made them: {leakage}."]
    if left_out:
        listed = "\n".join(f"- {problem}" for problem in left_out[:20])
        more = f"\n- and {len(left_out) - 20} more, see `{MANIFEST_NAME}`" if len(left_out) > 20 else ""
        notes.append(f"**Incomplete.** Left out:\n\n{listed}{more}")
    manifest = {
        **manifest,
        "complete": True,
        "splits": splits,
        "leakage": leakage.to_dict(),
        "problems": [asdict(problem) for problem in problems],
        "shards": shards,
    }
    write_json(folder / MANIFEST_NAME, manifest)
    card = dataset_card(
        title=source.title,
        licence=source.licence,
        description=source.description,
        num_channels=manifest["num_channels"],
        splits=splits,
        notes=notes,
    )
    write_text(folder / "README.md", card)
    return ConversionReport(folder, splits, tuple(left_out), leakage, tuple(written), tuple(kept))
