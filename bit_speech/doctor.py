"""Is this machine ready? Versions, accelerator, optional parts, and the command that puts each right."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bit_speech.import_utils import OPTIONAL_PACKAGES, is_available

MIN_PYTHON = (3, 11)
_FEW_GIGABYTES = 10.0


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name (`str`): what.
        state (`str`): `"ok"`, `"missing"` (an optional part) or `"broken"` (nothing works without it).
        found (`str`): what is there.
        remedy (`str`): what to do, empty when all is well.

    Example:
        >>> print(Check("python", "ok", "3.12.1"))
        ok       python               3.12.1
    """

    name: str
    state: str
    found: str
    remedy: str = ""

    def to_dict(self) -> dict[str, str]:
        """Give the check as JSON can hold it.

        Returns:
            `dict[str, str]`: its attributes.
        """
        return asdict(self)

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.state:8} {self.name:20} {self.found}{f'  ->  {self.remedy}' if self.remedy else ''}"


def examine() -> list[Check]:
    """Look at this machine.

    Returns:
        `list[Check]`: the interpreter, the required packages against the versions asked for, the accelerator, memory,
        the disk of the download cache, and every optional package.
    """
    version = ".".join(map(str, sys.version_info[:3]))
    wanted = ".".join(map(str, MIN_PYTHON))
    old = sys.version_info[:2] < MIN_PYTHON
    checks = [Check("python", "broken" if old else "ok", version, f"install Python {wanted} or newer" if old else "")]
    checks += _required()
    checks += [_accelerator(), _memory(), _disk()]
    return checks + [_optional(name) for name in sorted(OPTIONAL_PACKAGES)]


def _required() -> list[Check]:
    from packaging.requirements import Requirement

    try:
        requirements = importlib.metadata.requires("bit-speech") or []
    except importlib.metadata.PackageNotFoundError:
        return [Check("bit-speech", "broken", "runs from source, not installed", "pip install -e .")]
    checks = [Check("bit-speech", "ok", importlib.metadata.version("bit-speech"))]
    for requirement in map(Requirement, requirements):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            checks.append(Check(requirement.name, "broken", "not installed", f"pip install '{requirement}'"))
            continue
        fits = requirement.specifier.contains(version, prereleases=True)
        remedy = "" if fits else f"pip install '{requirement}'"
        checks.append(Check(requirement.name, "ok" if fits else "broken", version, remedy))
    return checks


def _accelerator() -> Check:
    import torch

    if torch.cuda.is_available():
        names = {torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())}
        return Check("accelerator", "ok", f"{torch.cuda.device_count()} x {', '.join(sorted(names))}")
    if torch.backends.mps.is_available():
        return Check("accelerator", "ok", "Apple GPU (mps)")
    return Check("accelerator", "missing", "none", "small models train on the processor; large ones need a GPU")


def _memory() -> Check:
    gigabytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9
    return Check("memory", "ok", f"{gigabytes:.1f} GB, {os.cpu_count()} cores")


def _disk() -> Check:
    from huggingface_hub.constants import HF_HOME

    place = Path(HF_HOME)
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free / 1e9
    remedy = "" if free >= _FEW_GIGABYTES else "make room, or set HF_HOME to another disk"
    return Check("download cache", "missing" if remedy else "ok", f"{free:.1f} GB free for {HF_HOME}", remedy)


def _optional(name: str) -> Check:
    distribution, extra = OPTIONAL_PACKAGES[name]
    if not is_available(name):
        return Check(distribution, "missing", "not installed", f"pip install 'bit-speech[{extra}]'")
    found: Any = "installed"
    try:
        found = importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        found = "importable, not installed as a package"
    return Check(distribution, "ok", found)
