"""A trained model as the folder that goes to the Hub: weights, processor, decoder, code, card, and nothing else."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bit_speech.files import write_text
from bit_speech.hub.card_facts import CardFacts, Measurements
from bit_speech.hub.cards import model_card
from bit_speech.hub.clean_process import check_in_clean_process
from bit_speech.hub.publishing import Publication, check_repo_id, fresh_folder
from configuration_bit.remote_code_bit import flatten_remote_code

# What is taken along, by name. Code is written anew, and everything else stays at home: optimizer states and
# training_args.bin are pickles, logs name folders and machines.
_TAKEN = {
    "config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "tokenizer_config.json",
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
    "LICENSE",
}
_WEIGHTS = re.compile(r".+\.safetensors(\.index\.json)?$")
_DECODER = ("decoder_config.json", "lexicon.npz", "language_model.bin")
_DATE = re.compile(r"(19|20)\d\d[._-]\d\d[._-]\d\d")


def stage_model(
    model: str | os.PathLike[str],
    repo_id: str,
    folder: str | os.PathLike[str],
    facts: CardFacts,
    measurements: Measurements,
    check: bool = True,
) -> Publication:
    """Lay out everything that would be uploaded, and try it.

    Args:
        model (`str`): folder that `save_pretrained` has written, with the processor in it.
        repo_id (`str`): `owner/name` on the Hub.
        folder (`str`): an empty folder to lay the files out in.
        facts (`CardFacts`): for the card.
        measurements (`Measurements`): for the card.
        check (`bool`, defaults to True): load and run the result in a clean process.

    Returns:
        `Publication`: ready, or with the problems that are left.

    Raises:
        FileNotFoundError: when the folder holds no model.
        ValueError: when the model is of no known type, or does not run in a clean process.
    """
    source = Path(model)
    if not (source / "config.json").is_file():
        raise FileNotFoundError(
            f"{source} holds no config.json: give the folder of a saved model, such as runs/me/model"
        )
    check_repo_id(repo_id)
    target = fresh_folder(folder)
    left_out = _copy(source, target)
    flatten_remote_code(target)
    config = _read_json(target / "config.json")
    if "auto_map" not in config:
        raise ValueError(f"{source} holds a model of type {config.get('model_type')!r}, which bit-speech does not know")
    if not any(_WEIGHTS.match(path.name) for path in target.iterdir()):
        raise FileNotFoundError(f"{source} holds no .safetensors file: save the model again with this version")
    if not any((target / name).is_file() for name in ("processor_config.json", "preprocessor_config.json")):
        raise FileNotFoundError(f"{source} holds no processor, so nobody could use the model: save it there too")
    problems = [*_missing_code(target), *_names_of_this_machine(target)]
    if facts.licence is None:
        problems.append("the card names no licence; add `licence: apache-2.0` (or another) to the file of --card")
    checked = check_in_clean_process(target) if check else {}
    card = model_card(repo_id, target, facts, measurements)
    write_text(target / "README.md", card)
    notes = _notes(target, facts)
    return Publication(target, repo_id, "model", tuple(problems), tuple(notes), tuple(left_out), checked)


def _copy(source: Path, target: Path) -> list[str]:
    """Copy what is on the list; weights are linked where the disk allows it, because they are large."""
    left_out = []
    for path in sorted(source.iterdir()):
        if path.is_file() and (path.name in _TAKEN or _WEIGHTS.match(path.name)):
            _link_or_copy(path, target / path.name) if _WEIGHTS.match(path.name) else shutil.copyfile(
                path, target / path.name
            )
        elif path.is_dir() and (path / "decoder_config.json").is_file():
            _copy_decoder(path, target)
        elif path.suffix != ".py" and path.name != "README.md":
            left_out.append(path.name + ("/" if path.is_dir() else ""))
    return left_out


def _copy_decoder(decoder: Path, target: Path) -> None:
    (target / decoder.name).mkdir()
    for name in _DECODER:
        if (decoder / name).is_file():
            _link_or_copy(decoder / name, target / decoder.name / name)
    rescoring = _read_json(decoder / "decoder_config.json").get("rescoring")
    # A causal language model that lies in the decoder's folder belongs to it; any other is on the Hub already.
    if rescoring is not None and (decoder / rescoring["model"]).is_dir():
        inside = target / decoder.name / rescoring["model"]
        inside.mkdir(parents=True)
        _copy(decoder / rescoring["model"], inside)


def _link_or_copy(source: Path, target: Path) -> None:
    try:
        os.link(source.resolve(), target)
    except OSError:  # another disk, or a file system without links
        shutil.copyfile(source, target)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text(encoding="utf-8")))
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}): save the model again") from error


def _missing_code(folder: Path) -> Iterator[str]:
    """Entries of the `auto_map` that point nowhere."""
    for name in ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json"):
        if not (folder / name).is_file():
            continue
        for key, value in (_read_json(folder / name).get("auto_map") or {}).items():
            for reference in value if isinstance(value, list) else [value]:
                if reference and not (folder / f"{reference.split('.')[0]}.py").is_file():
                    yield f"{name} says {key} is {reference}, whose file is missing; save the model again"


def _names_of_this_machine(folder: Path) -> Iterator[str]:
    """Paths that exist here and nowhere else."""
    for path in sorted(folder.rglob("*.json")):
        if path.name in ("tokenizer.json", "vocab.json"):
            continue
        for key, text in _texts(json.loads(path.read_text(encoding="utf-8"))):
            if text.startswith(("/", "~")) and len(Path(text).parts) > 2:
                yield (
                    f"{path.relative_to(folder)}: {key} names the path {text} of this machine; put what it names on "
                    "the Hub, or into the model's folder"
                )


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, dict):
        for name, item in value.items():
            yield from _texts(item, str(name))
    elif isinstance(value, list):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _notes(folder: Path, facts: CardFacts) -> Iterator[str]:
    config = _read_json(folder / "config.json")
    processor = _read_json(folder / "processor_config.json") if (folder / "processor_config.json").is_file() else {}
    extractor = processor.get("feature_extractor") or {}
    # Statistics are kept by session, so they name sessions too.
    places = (config.get("sessions"), extractor.get("sessions"), extractor.get("session_statistics"))
    sessions = sorted({name for names in places for name in names or ()})
    dated = [session for session in sessions if _DATE.search(session)]
    if dated:
        yield (
            f"{len(dated)} session names hold dates of recordings, such as {dated[0]}; in some countries such dates "
            "identify a patient"
        )
    if extractor.get("session_statistics"):
        yield "the processor holds mean and deviation of every channel and session, computed from the recordings"
    if (folder / "decoder" / "language_model.bin").is_file():
        yield "decoder/language_model.bin holds every n-gram of its text; private sentences could be read from it"
    if facts.consent is None and not facts.simulated:
        yield "the card will say that consent is not stated"
