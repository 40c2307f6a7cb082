"""A decoder in a folder: lexicon, language model, weights and class order, written whole or not at all."""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bit_speech.files import write_json

from .beam_search import BeamSearchDecoder
from .language_model import NGramLM
from .lexicon import Lexicon
from .rescoring import CausalLMRescorer, RescoringWeights

CONFIG_NAME = "decoder_config.json"
FORMAT = "bit-speech decoder"
VERSION = 1
_LEXICON = "lexicon.npz"
_LM = "language_model.bin"


def save_decoder(
    decoder: BeamSearchDecoder,
    folder: str | os.PathLike[str],
    rescoring: Mapping[str, Any] | None = None,
) -> Path:
    """Save a decoder as a folder of three files.

    Args:
        decoder (`BeamSearchDecoder`): the decoder.
        folder (`str`): destination. A decoder that is there already is replaced; anything else is refused.
        rescoring (`dict`, *optional*): what [`load_rescoring`] gives back: `model` (Hub id or folder of a causal
            language model), `weights` (from [`RescoringWeights.to_dict`]) and settings of [`CausalLMRescorer`].

    Returns:
        `Path`: the folder.

    Raises:
        ValueError: when the folder holds something that is no decoder, or the rescoring makes no sense.
    """
    folder = Path(folder)
    if rescoring is not None:
        _check_rescoring(rescoring, "rescoring")
    if folder.exists() and (not folder.is_dir() or (any(folder.iterdir()) and not _is_decoder(folder))):
        raise ValueError(f"{folder} is there and is no decoder; give a folder of its own: {folder / 'decoder'}.")
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".tmp", dir=folder.parent))
    try:
        decoder.lexicon.save(temporary / _LEXICON)
        if decoder.lm is not None:
            decoder.lm.save(temporary / _LM)
        config = {
            "format": FORMAT,
            "version": VERSION,
            "settings": {name: _to_json(value) for name, value in decoder.settings.items()},
            "files": {path.name: path.stat().st_size for path in sorted(temporary.iterdir())},
            "rescoring": None if rescoring is None else dict(rescoring),
        }
        # Last, so that a folder without it is known to be incomplete.
        write_json(temporary / CONFIG_NAME, config)
        temporary.chmod(0o755)
        _replace(temporary, folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return folder


def load_decoder_folder(
    name: str | os.PathLike[str], subfolder: str = "", revision: str | None = None, verify: bool = True, **changes: Any
) -> BeamSearchDecoder:
    """Load what [`save_decoder`] wrote.

    Args:
        name (`str`): the folder, or the id of a repository on the Hub.
        subfolder (`str`): where in it the decoder is, for example `"decoder"`.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        verify (`bool`): compare the language model's checksums; reads all of it.
        **changes: settings that beat the saved ones.

    Returns:
        `BeamSearchDecoder`: decodes as the saved one did.

    Raises:
        FileNotFoundError: when there is no decoder, or a file of it is missing.
        ValueError: when it is of another kind or version, or a file is truncated or damaged.
    """
    folder, config = _read_config(name, subfolder, revision)
    for file, size in config["files"].items():
        path = folder / file
        if not path.is_file():
            raise FileNotFoundError(f"{folder} has no {file}, so the decoder is incomplete; save or download it again.")
        if path.stat().st_size != size:
            raise ValueError(f"{path} has {path.stat().st_size} bytes instead of {size}; save or download it again.")
    settings = {key: _from_json(value) for key, value in config["settings"].items()}
    lexicon = Lexicon.load(folder / _LEXICON)
    lm = NGramLM.load(folder / _LM, verify=verify) if _LM in config["files"] else None
    return BeamSearchDecoder(lexicon, lm, **(settings | changes))


def load_rescoring(
    name: str | os.PathLike[str], subfolder: str = "", revision: str | None = None, **model_settings: Any
) -> tuple[CausalLMRescorer, RescoringWeights] | None:
    """Load the second pass that was saved with a decoder.

    Args:
        name (`str`): the decoder's folder or Hub id.
        subfolder (`str`): where in it the decoder is.
        revision (`str`, *optional*): branch, tag or commit on the Hub.
        **model_settings: arguments of [`CausalLMRescorer.from_pretrained`], for example `device`.

    Returns:
        `tuple[CausalLMRescorer, RescoringWeights]` or None: None when the decoder was saved without one. A model named
        by a path that is not absolute is looked for in the decoder's folder first.

    Raises:
        FileNotFoundError: when there is no decoder.
        ValueError: when the folder is of another kind or version, or its rescoring makes no sense.
    """
    folder, config = _read_config(name, subfolder, revision)
    rescoring = config["rescoring"]
    if rescoring is None:
        return None
    _check_rescoring(rescoring, str(folder / CONFIG_NAME))
    settings = {key: value for key, value in rescoring.items() if key not in ("model", "weights")}
    beside = folder / rescoring["model"]
    model = str(beside) if beside.is_dir() else rescoring["model"]
    return (
        CausalLMRescorer.from_pretrained(model, **(settings | model_settings)),
        RescoringWeights(**rescoring["weights"]),
    )


def _read_config(name: str | os.PathLike[str], subfolder: str, revision: str | None) -> tuple[Path, dict[str, Any]]:
    folder = Path(name) / subfolder
    if not Path(name).is_dir():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError

        pattern = f"{subfolder}/*" if subfolder else "*"
        try:
            folder = Path(snapshot_download(str(name), revision=revision, allow_patterns=[pattern])) / subfolder
        except (HFValidationError, LocalEntryNotFoundError, RepositoryNotFoundError) as error:
            raise FileNotFoundError(f"{name} is neither a folder nor a repository that can be reached.") from error
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise FileNotFoundError(f"{folder} has no {CONFIG_NAME}, so it holds no decoder, or one that was not finished.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is no JSON ({error}); save or download the decoder again.") from error
    kind = config.get("format") if isinstance(config, dict) else None
    if kind != FORMAT:
        raise ValueError(f"{path} has the format {kind!r}; expected {FORMAT!r}.")
    if config.get("version") != VERSION:
        raise ValueError(f"{path} has version {config.get('version')}; this bit-speech reads version {VERSION}.")
    missing = {"settings", "files", "rescoring"} - set(config)
    if missing:
        raise ValueError(f"{path} has no {sorted(missing)[0]!r}; save or download the decoder again.")
    if any(Path(file).name != file for file in config["files"]) or _LEXICON not in config["files"]:
        raise ValueError(f"{path} names the files {sorted(config['files'])}; expected {_LEXICON}, and perhaps {_LM}.")
    return folder, config


def _check_rescoring(rescoring: Mapping[str, Any], where: str) -> None:
    if not isinstance(rescoring.get("model"), str) or not isinstance(rescoring.get("weights"), dict):
        raise ValueError(f"{where} is {dict(rescoring)}; expected a model's name and a dictionary of weights.")
    try:
        RescoringWeights(**rescoring["weights"])
    except TypeError as error:
        raise ValueError(f"The weights of {where} are {rescoring['weights']}: {error}.") from error


def _is_decoder(folder: Path) -> bool:
    try:
        return json.loads((folder / CONFIG_NAME).read_text(encoding="utf-8"))["format"] == FORMAT
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _replace(temporary: Path, folder: Path) -> None:
    if not folder.exists():
        os.replace(temporary, folder)
        return
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", suffix=".old", dir=folder.parent))
    try:
        os.replace(folder, aside / "old")
        try:
            os.replace(temporary, folder)
        except OSError:
            os.replace(aside / "old", folder)
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _to_json(value: Any) -> Any:
    """JSON has no infinity: it is written as text."""
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def _from_json(value: Any) -> Any:
    return float(value) if value in ("inf", "-inf") else value
