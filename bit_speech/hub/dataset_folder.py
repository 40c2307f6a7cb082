"""A converted corpus as the folder that goes to the Hub: its card, and the recordings only when that is said twice."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from bit_speech.data.conversion import MANIFEST_NAME
from bit_speech.files import write_text
from bit_speech.hub.card_facts import CardFacts
from bit_speech.hub.cards import header, render
from bit_speech.hub.publishing import Publication, check_repo_id, fresh_folder

_DESCRIBED = ("participant_id", "session_id", "species", "task", "licence", "bin_size_ms")


def stage_dataset(
    data: str | os.PathLike[str],
    repo_id: str,
    folder: str | os.PathLike[str],
    facts: CardFacts,
    with_recordings: bool = False,
    licence: str | None = None,
) -> Publication:
    """Lay out a dataset card, and with it the trials themselves when asked for.

    Args:
        data (`str`): folder that a converter wrote.
        repo_id (`str`): `owner/name` on the Hub.
        folder (`str`): an empty folder to lay the files out in.
        facts (`CardFacts`): for the card.
        with_recordings (`bool`, defaults to False): take the recordings along. Without it the card describes them, and
            not one bin and not one sentence leaves this machine.
        licence (`str`, *optional*): under which the recordings may be used; needed with recordings.

    Returns:
        `Publication`: ready, or with the problems that are left.

    Raises:
        FileNotFoundError: when the folder holds no finished conversion.
        ValueError: when recordings are to be uploaded without a licence, or under another one than theirs.
    """
    check_repo_id(repo_id)
    source = Path(data)
    manifest = _manifest(source)
    described = _describe(source, manifest)
    if with_recordings:
        _check_licence(licence, described["licence"])
    target = fresh_folder(folder)
    problems, notes = [], []
    shards = [name for name, entry in manifest["shards"].items() if entry["num_trials"]]
    card_header, title, summary = _header_of_converter(source)
    if with_recordings:
        for name in shards:
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / name, target / name)
        if "human" in described["species"] and not facts.simulated and facts.consent is None:
            problems.append(
                "these are recordings of a person: write what the person agreed to as `consent:` into the file of "
                "--card (or `simulated: true` when nobody was recorded)"
            )
        notes.append("every bin and every sentence of the corpus will be on the Hub; that cannot be taken back")
    else:
        # What tells `load_dataset` about splits and columns belongs to the recordings.
        card_header = {key: value for key, value in card_header.items() if key not in ("configs", "dataset_info")}
        notes.append("only the card is published; the recordings need --with_recordings and --licence")
    card_header["license"] = (licence or card_header.get("license") or "unknown").lower()
    if facts.simulated:
        card_header["tags"] = [*card_header["tags"], "simulated"]
    card = render(
        "dataset_card.md.jinja",
        header=header(card_header),
        title=facts.title or title,
        summary=facts.summary or summary,
        repo_id=repo_id,
        facts=facts,
        described=described,
        splits=manifest["splits"],
        num_channels=manifest["num_channels"],
        leakage=manifest["leakage"],
        num_left_out=len(manifest["problems"]) + sum(len(entry["left_out"]) for entry in manifest["shards"].values()),
        with_recordings=with_recordings,
        licence=licence,
    )
    write_text(target / "README.md", card)
    left_out = [MANIFEST_NAME] if with_recordings else [MANIFEST_NAME, "data/"]
    return Publication(target, repo_id, "dataset", tuple(problems), tuple(notes), tuple(left_out))


def _manifest(folder: Path) -> Mapping[str, Any]:
    path = folder / MANIFEST_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} holds no {MANIFEST_NAME}: give the output of `bit-speech convert`")
    manifest = json.loads(path.read_text(encoding="utf-8"))
    if not manifest.get("complete"):
        raise ValueError(f"the conversion in {folder} did not finish; give the same `bit-speech convert` command again")
    for name, entry in manifest["shards"].items():
        if entry["num_trials"] and (folder / name).stat().st_size != entry["num_bytes"]:
            raise ValueError(f"{folder / name} is not as it was converted; convert again")
    return dict(manifest)


def _describe(folder: Path, manifest: Mapping[str, Any]) -> dict[str, list[Any]]:
    """Distinct values of the columns that describe a corpus; sentences and features are not read."""
    import pyarrow.parquet as pq

    values: dict[str, dict[Any, None]] = {name: {} for name in _DESCRIBED}
    for shard, entry in manifest["shards"].items():
        if not entry["num_trials"]:
            continue
        table = pq.read_table(folder / shard, columns=list(_DESCRIBED))
        for name in _DESCRIBED:
            values[name].update(dict.fromkeys(table.column(name).unique().to_pylist()))
    return {name: list(found) for name, found in values.items()}


def _check_licence(licence: str | None, named: list[str]) -> None:
    if not licence:
        raise ValueError(
            "recordings are not published without a licence: say which one with --licence, such as cc-by-4.0, when "
            "the participant and the source of the data allow it"
        )
    other = [name for name in named if name.lower() not in ("unknown", licence.lower())]
    if other:
        raise ValueError(
            f"the trials are under {', '.join(other)} and cannot be published under {licence}: give their licence, or "
            "convert with the right one"
        )


def _header_of_converter(folder: Path) -> tuple[dict[str, Any], str, str]:
    """Header, title and first paragraph of the card that the converter wrote."""
    parts = (folder / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    if len(parts) != 3:
        raise ValueError(f"{folder / 'README.md'} has no YAML header; convert again")
    values = yaml.safe_load(parts[1])
    paragraphs = [text for text in parts[2].strip().split("\n\n") if not text.startswith("#")]
    return values, str(values["pretty_name"]), paragraphs[0]
