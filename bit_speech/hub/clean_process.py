"""The last look before an upload: does the folder load and run where this package does not exist?"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from bit_speech.hub import example_run

_TOLERANCE = 1e-4


def check_in_clean_process(folder: str | Path) -> dict[str, tuple[int, ...]]:
    """Load and run a folder in a process of its own without this package, and compare with the installed classes.

    Args:
        folder (`str`): a folder with a model, its processor and their code.

    Returns:
        `dict[str, tuple[int, ...]]`: the model's outputs and their shapes for random input.

    Raises:
        ValueError: when it does not load, does not run, or gives other numbers than the installed package.
    """
    import bit_speech  # noqa: F401  (registers the models with the Auto classes)

    expected, _ = example_run.run_example(folder, trust_remote_code=False)
    with tempfile.TemporaryDirectory() as home:
        script, output = Path(home) / "example_run.py", Path(home) / "outputs.npz"
        # Away from the package: a script's own folder is importable.
        script.write_text(Path(example_run.__file__).read_text(encoding="utf-8"), encoding="utf-8")
        environment = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "HF_TOKEN")}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": home, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            [sys.executable, str(script), str(Path(folder).resolve()), str(output)],
            cwd=home,
            env=environment,
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise ValueError(
                f"{folder} does not run where this package is missing; its last words were:\n{done.stderr[-2000:]}"
            )
        with np.load(output) as file:
            found = dict(file)
    for name, values in expected.items():
        if name not in found or not np.allclose(values, found[name], atol=_TOLERANCE):
            raise ValueError(
                f"{folder} gives another {name} with its own code than with the installed package; save it again"
            )
    return {name: tuple(values.shape) for name, values in found.items()}
