"""What a figure depends on besides code and data: the machine, its versions, the memory used."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

from bit_speech.import_utils import installed_versions


def git_commit() -> str | None:
    """Commit of the source tree that this package runs from.

    Returns:
        `str` or None: the commit, with `+changes` when tracked files differ from it; None outside a git checkout.
    """
    here = Path(__file__).resolve().parent

    def git(*command: str) -> str | None:
        try:
            done = subprocess.run(["git", *command], cwd=here, capture_output=True, text=True, timeout=30)
        except (FileNotFoundError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # An installed package may lie inside somebody else's repository (a virtual environment in it, for example).
    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:
        return None
    commit = git("rev-parse", "HEAD")
    return f"{commit}+changes" if commit and git("status", "--porcelain", "--untracked-files=no") else commit


def hardware() -> dict[str, Any]:
    """Describe the machine.

    Returns:
        `dict`: processor, cores, memory in GB, operating system, versions; once torch is loaded, its threads and
            accelerators.
    """
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        names = [
            line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if line.startswith("model name")
        ]
        processor = names[0] if names else processor
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    found: dict[str, Any] = {
        "processor": processor,
        "cores": os.cpu_count(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "versions": installed_versions(),
    }
    # Not imported for this: loading torch costs a second and 300 MB, which would spoil what a benchmark measures.
    torch = sys.modules.get("torch")
    if torch is not None:
        found["torch_threads"] = torch.get_num_threads()
        found["accelerators"] = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return found


def peak_memory_gb() -> dict[str, float]:
    """Peak memory of this process so far.

    Returns:
        `dict[str, float]`: `process` (resident set), and `accelerator` when there is one; in GB of 10^9 bytes.
    """
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    # Linux counts kilobytes, macOS bytes.
    found = {"process": round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 3)}
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        found["accelerator"] = round(torch.cuda.max_memory_allocated() / 1e9, 3)
    return found


def give_back_memory() -> None:
    """Free what hangs in reference cycles, and give freed memory back to the system.

    Note:
        glibc keeps freed memory in its arenas, scattered between what is still used: half a gigabyte after a training
        of minutes. Other C libraries and systems have no such call; there only the cycles are freed.

    Example:
        >>> give_back_memory()
    """
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
