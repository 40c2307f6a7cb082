"""Load a published folder and run it once on random input: what a stranger's first minute looks like.

As a script (`python example_run.py FOLDER OUTPUT.npz ...`) it runs where this package cannot be imported, so it
imports nothing of it.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

PACKAGES = ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech", "datasets_scripts")


class PackageBlocker(importlib.abc.MetaPathFinder):
    """Makes this package unfindable, however it is installed."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> None:
        """Refuse the modules of this package.

        Args:
            fullname (`str`): what is to be imported.
            path (*optional*): not used.
            target (*optional*): not used.

        Raises:
            ModuleNotFoundError: when it belongs to this package.
        """
        if fullname.split(".")[0] in PACKAGES:
            raise ModuleNotFoundError(f"No module named {fullname!r} (blocked)", name=fullname)


def auto_class_of(config: dict[str, Any]) -> str:
    """Find the Auto class that loads a saved model.

    Args:
        config (`dict`): content of `config.json`.

    Returns:
        `str`: such as `"AutoModelForCTC"`.

    Raises:
        ValueError: when the `auto_map` does not know the model's class.

    Example:
        >>> auto_class_of({"architectures": ["M"], "auto_map": {"AutoModelForCTC": "modeling.M"}})
        'AutoModelForCTC'
    """
    architecture = (config.get("architectures") or ["none"])[0]
    names = [
        name
        for name, reference in (config.get("auto_map") or {}).items()
        if isinstance(reference, str) and name.startswith("AutoModel") and reference.split(".")[-1] == architecture
    ]
    if not names:
        raise ValueError(
            f"config.json saves a {architecture!r}, which its auto_map does not name; save the model again"
        )
    # A class may be known by a general name too; the particular one says what it is for.
    return max(names, key=len)


def run_example(folder: str | Path, trust_remote_code: bool) -> tuple[dict[str, np.ndarray], list[str]]:
    """Load model and processor by their Auto classes and run them on random input.

    Args:
        folder (`str`): the published folder.
        trust_remote_code (`bool`): take the code from the folder; without it, from the installed package.

    Returns:
        `tuple[dict[str, np.ndarray], list[str]]`: the outputs of the model by name, and the modules that the classes
        came from.

    Raises:
        ValueError: when the model type is unknown here, or an output is not finite.
    """
    import torch
    import transformers

    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    auto_class = getattr(transformers, auto_class_of(config))
    model = auto_class.from_pretrained(folder, trust_remote_code=trust_remote_code).eval()
    has_processor = "AutoProcessor" in config["auto_map"]
    loader = transformers.AutoProcessor if has_processor else transformers.AutoFeatureExtractor
    processor = loader.from_pretrained(folder, trust_remote_code=trust_remote_code)
    inputs = _inputs(model.config, processor)
    torch.manual_seed(0)  # pretraining draws masks
    with torch.no_grad():
        output = model(**inputs)
    found = {
        name: value.float().numpy()
        for name, value in output.items()
        if isinstance(value, torch.Tensor) and value.is_floating_point()
    }
    broken = [name for name, value in found.items() if not np.isfinite(value).all()]
    if broken or not found:
        raise ValueError(f"the model's output {', '.join(broken) or 'is empty or'} is not finite for random input")
    return found, [type(model).__module__, type(processor).__module__]


def _inputs(config: Any, processor: Any) -> Any:
    """Random input of the right kind for a type of model."""
    random = np.random.default_rng(0)
    kind = config.model_type
    if kind == "bit_speech_brain_tuned":
        audio = random.normal(size=int(processor.sampling_rate * (config.clip_s + 2))).astype(np.float32)
        batch = processor(audio, [config.clip_s], processor.sampling_rate, return_tensors="pt")
        if config.participants and config.head != "shared":
            batch["participant_index"] = importlib.import_module("torch").zeros(1, dtype=int)
        return batch
    extractor = processor.feature_extractor
    name, channels = next(iter(extractor.participants.items()))
    session = extractor.sessions[0] if extractor.sessions else None
    if kind == "bit_speech_ieeg_audio":
        recording = random.normal(size=(2 * extractor.window_bins, channels))
        return processor(recording, participant_id=name, session_id=session, return_tensors="pt")
    signal: dict[str, Any] = {"participant_id": name, "session_id": session}
    for chosen in ("feature_kinds", "channel_areas"):
        if getattr(extractor, chosen) is not None:
            signal[chosen] = [getattr(extractor, chosen)[0]] * channels
    trial = random.normal(size=(100, channels)).astype(np.float32)
    if extractor.normalization == "session":
        signal["statistics"] = (np.zeros(channels, np.float32), np.ones(channels, np.float32))
    if kind == "bit_speech_llm":
        signal["text"] = ["i can speak"]
        return processor([trial], return_tensors="pt", **signal)
    return processor([trial], return_tensors="pt", **signal)


if __name__ == "__main__":
    sys.meta_path.insert(0, PackageBlocker())
    for folder_name, output_name in zip(sys.argv[1::2], sys.argv[2::2], strict=True):
        outputs, modules = run_example(folder_name, trust_remote_code=True)
        inside = [module for module in modules if not module.startswith("transformers_modules.")]
        if inside:
            sys.exit(f"{', '.join(inside)} did not come from the folder")
        np.savez(output_name, **outputs)  # type: ignore[arg-type]
