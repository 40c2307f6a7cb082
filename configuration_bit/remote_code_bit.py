"""Saving is publishing: every saved folder carries the code that loads it.

Stock saving copies only the file of the saved class and silently leaves out files of other packages. Here every
`save_pretrained` and `push_to_hub` writes all room files that the folder's classes need, flat beside the weights, with
imports across rooms rewritten to imports of a sibling file, and the full `auto_map`. With `trust_remote_code=True` such
a folder loads where this package is not installed; where it is installed, the installed classes are used.
"""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

ROOMS: tuple[str, ...] = ("configuration_bit", "modeling_bit", "processing_bit")

# A saved tokenizer says which of these it is.
_TOKENIZERS: dict[str, list[str | None]] = {
    "PhonemeTokenizer": ["tokenization_phoneme.PhonemeTokenizer", None],
    "SpellingTokenizer": ["tokenization_spelling.SpellingTokenizer", None],
}
_PROCESSING: dict[str, Any] = {
    "AutoFeatureExtractor": "feature_extraction_bit.BITFeatureExtractor",
    "AutoTokenizer": _TOKENIZERS["PhonemeTokenizer"],
    "AutoProcessor": "processing_bit.BITProcessor",
}
# What each model type publishes. The one place to extend when a model is added.
AUTO_MAPS: dict[str, dict[str, Any]] = {
    "bit_speech": {
        "AutoConfig": "configuration_bit.BITConfig",
        "AutoModel": "modeling_bit.BITModel",
        "AutoModelForPreTraining": "modeling_bit_pretraining.BITForMaskedModeling",
        "AutoModelForCTC": "modeling_bit.BITForCTC",
        **_PROCESSING,
    },
    "bit_speech_gru": {
        "AutoConfig": "configuration_bit_gru.BITGRUConfig",
        "AutoModel": "modeling_bit_gru.BITGRUModel",
        "AutoModelForCTC": "modeling_bit_gru.BITGRUForCTC",
        **_PROCESSING,
    },
    "bit_speech_llm": {
        "AutoConfig": "configuration_bit_llm.BITLLMConfig",
        "AutoModel": "modeling_bit_llm.BITForConditionalGeneration",
        "AutoModelForMultimodalLM": "modeling_bit_llm.BITForConditionalGeneration",
        "AutoFeatureExtractor": "feature_extraction_bit.BITFeatureExtractor",
        "AutoProcessor": "processing_bit_llm.BITLLMProcessor",
    },
    "bit_speech_wav2vec2": {
        "AutoConfig": "configuration_wav2vec2_brain.Wav2Vec2BrainConfig",
        "AutoModelForCTC": "modeling_wav2vec2_brain.Wav2Vec2BrainForCTC",
        **_PROCESSING,
        "AutoTokenizer": _TOKENIZERS["SpellingTokenizer"],
    },
    "bit_speech_brain_tuned": {
        "AutoConfig": "configuration_brain_tuned.BrainTunedConfig",
        "AutoModel": "modeling_brain_tuned.BrainTunedModel",
        "AutoModelForAudioClassification": "modeling_brain_tuned.BrainTunedForVoxelPrediction",
        "AutoFeatureExtractor": "feature_extraction_story.StoryFeatureExtractor",
    },
    "bit_speech_ieeg_audio": {
        "AutoConfig": "configuration_ieeg_audio.IEEGAudioConfig",
        "AutoModel": "modeling_ieeg_audio.IEEGAudioModel",
        "AutoModelForPreTraining": "modeling_ieeg_audio.IEEGAudioForRetrieval",
        "AutoFeatureExtractor": "feature_extraction_ieeg.IEEGFeatureExtractor",
        "AutoProcessor": "processing_ieeg_audio.IEEGAudioProcessor",
    },
}

# What saved models that read out text can be used with: `pipeline("neural-to-text", trust_remote_code=True)`.
PIPELINES: dict[str, dict[str, Any]] = {
    "BITForConditionalGeneration": {"pt": ["AutoModelForMultimodalLM"]},
    "BITForCTC": {"pt": ["AutoModelForCTC"]},
    "BITGRUForCTC": {"pt": ["AutoModelForCTC"]},
    "Wav2Vec2BrainForCTC": {"pt": ["AutoModelForCTC"]},
}

_IMPORT = re.compile(rf"^([ \t]*)from (?:(?:{'|'.join(ROOMS)})\.|\.)(\w+) import", re.MULTILINE)


def _class_names(auto_map: dict[str, Any]) -> set[str]:
    references = [r for value in auto_map.values() for r in (value if isinstance(value, list) else [value]) if r]
    return {reference.rsplit(".", 1)[1] for reference in references}


def _auto_map_of(content: dict[str, Any]) -> dict[str, Any]:
    """The published entries that belong to one saved JSON file, or an empty dict when the file is not ours."""
    if content.get("model_type") in AUTO_MAPS:
        return AUTO_MAPS[content["model_type"]]
    saved = {content.get(key) for key in ("processor_class", "feature_extractor_type", "tokenizer_class")}
    tokenizer = _TOKENIZERS.get(content.get("tokenizer_class", ""))
    for auto_map in AUTO_MAPS.values():
        processing = {key: value for key, value in auto_map.items() if not key.startswith(("AutoConfig", "AutoModel"))}
        if saved & _class_names(processing):
            return processing if tokenizer is None else processing | {"AutoTokenizer": tokenizer}
    return {}


def _read_sources(source: Path | None) -> dict[str, Path]:
    """Every module that could be needed: file stem -> path."""
    if source is not None:
        folders = [source]
    else:
        folders = []
        for room in ROOMS:
            spec = find_spec(room)
            if spec is None or not spec.submodule_search_locations:
                raise FileNotFoundError(f"Package {room!r} is not installed beside {__name__!r}: reinstall bit-speech.")
            folders.extend(Path(location) for location in spec.submodule_search_locations)
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.py")) if path.stem != "__init__"}


def _write_if_changed(path: Path, text: str) -> None:
    if path.is_file() and path.read_text(encoding="utf-8") == text:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def flatten_remote_code(folder: str | os.PathLike, source: str | os.PathLike | None = None) -> list[str]:
    """Write the code that a saved folder needs beside its weights, and the full `auto_map` into its JSON files.

    Which files are needed is read from the folder itself: `config.json`, `processor_config.json`,
    `preprocessor_config.json` and `tokenizer_config.json` say which model or processor lives there. Doing it twice
    changes nothing.

    Args:
        folder (`str` or `os.PathLike`): a folder that `save_pretrained` has written.
        source (`str` or `os.PathLike`, *optional*): folder with already flat code to copy from (a model that was itself
            loaded from a published folder); by default the installed rooms.

    Returns:
        `list[str]`: sorted names of the code files of the folder.

    Raises:
        FileNotFoundError: if `folder` does not exist or a room is not installed.

    Note:
        An entry of the `auto_map` is written only when its file is in the folder, so that no entry points nowhere.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder} is not a folder: save the model or processor there first.")
    names = ("config.json", "processor_config.json", "preprocessor_config.json", "tokenizer_config.json")
    saved = {n: json.loads((folder / n).read_text(encoding="utf-8")) for n in names if (folder / n).is_file()}
    auto_maps = {name: _auto_map_of(content) for name, content in saved.items()}

    sources = _read_sources(None if source is None else Path(source))
    waiting = [r.split(".")[0] for auto_map in auto_maps.values() for value in auto_map.values()
               for r in (value if isinstance(value, list) else [value]) if r]  # fmt: skip
    pipelines = [
        PIPELINES[name] for name in saved.get("config.json", {}).get("architectures") or [] if name in PIPELINES
    ]
    waiting += ["pipeline_bit"] * len(pipelines)
    written: set[str] = set()
    while waiting:
        stem = waiting.pop()
        if stem in written or stem not in sources:
            continue
        text = sources[stem].read_text(encoding="utf-8")
        waiting.extend(match.group(2) for match in _IMPORT.finditer(text))
        _write_if_changed(folder / f"{stem}.py", _IMPORT.sub(r"\1from .\2 import", text))
        written.add(stem)

    for name, content in saved.items():
        auto_map = {
            key: value
            for key, value in auto_maps[name].items()
            if (folder / f"{(value[0] if isinstance(value, list) else value).split('.')[0]}.py").is_file()
        }
        if not auto_map:
            continue
        before = json.dumps(content, sort_keys=True)
        content["auto_map"] = {**(content.get("auto_map") or {}), **auto_map}
        if name == "config.json" and pipelines and "pipeline_bit" in written:
            task = {"impl": "pipeline_bit.NeuralToTextPipeline", "type": "multimodal", **pipelines[0]}
            content["custom_pipelines"] = {"neural-to-text": task}
        # The feature extractor is stored inside the processor's file and is looked up there by its own auto_map.
        nested = content.get("feature_extractor")
        if isinstance(nested, dict) and "AutoFeatureExtractor" in auto_map:
            nested["auto_map"] = {"AutoFeatureExtractor": auto_map["AutoFeatureExtractor"]}
        if json.dumps(content, sort_keys=True) != before:
            _write_if_changed(folder / name, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return sorted(path.name for path in folder.glob("*.py"))


class RemoteCodeMixin:
    """First base class of every configuration, model, feature extractor, tokenizer and processor that is saved.

    It extends `save_pretrained` (and with it `push_to_hub` and the `Trainer`'s checkpoints) by
    [`flatten_remote_code`].
    """

    def __post_init__(self, **kwargs: Any) -> None:
        """Configurations only: where this package is installed, its own pipeline is used and no trust is asked.

        Args:
            **kwargs: what the saved file holds beyond the fields.
        """
        if not type(self).__module__.startswith("transformers_modules"):
            kwargs.pop("custom_pipelines", None)
        super().__post_init__(**kwargs)  # type: ignore[misc]

    def save_pretrained(self, save_directory: str | os.PathLike, *args: Any, **kwargs: Any) -> Any:
        """Save as usual, then add the code and the full `auto_map`.

        Args:
            save_directory (`str` or `os.PathLike`): folder to write to; it is created.
            *args: passed on to the class's own `save_pretrained`.
            **kwargs: passed on, except `push_to_hub` and its companions (`repo_id`, `commit_message`, `private`,
                `token`, `revision`, `create_pr`), which are carried out after the code has been added.

        Returns:
            what the class's own `save_pretrained` returns.
        """
        push = kwargs.pop("push_to_hub", False)
        hub_names = ("repo_id", "commit_message", "private", "token", "revision", "create_pr", "tags")
        hub = {name: kwargs.pop(name) for name in hub_names if push and name in kwargs}
        result = super().save_pretrained(save_directory, *args, **kwargs)  # type: ignore[misc]
        if kwargs.get("is_main_process", True):
            own = sys.modules[type(self).__module__]
            remote = type(self).__module__.startswith("transformers_modules")
            flatten_remote_code(save_directory, source=Path(str(own.__file__)).parent if remote else None)
        if push:
            self.push_to_hub(**{"repo_id": Path(save_directory).name, **hub})  # type: ignore[attr-defined]
        return result
