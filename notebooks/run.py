"""Execute the notebooks: `python -m notebooks.run` runs all of them and keeps their outputs, `... NAME` only one."""

from __future__ import annotations

import base64
import io
import os
import re
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from traitlets.config import Config

FOLDER = Path(__file__).parent
# No network, no progress bars in what is kept, and one thread, which two busy ones would only wait for.
SETTINGS = {
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}


def execute(path: Path) -> nbformat.NotebookNode:
    """Run a notebook in a process and a folder of its own.

    Args:
        path (`Path`): the `.ipynb` file, which stays as it is.

    Returns:
        `nbformat.NotebookNode`: with outputs, without what differs from machine to machine: paths, times, and
            what goes to standard error.

    Raises:
        nbclient.exceptions.CellExecutionError: if a cell fails; its traceback is in the message.
    """
    notebook = nbformat.read(path, as_version=4)
    with tempfile.TemporaryDirectory(prefix="nb") as folder:
        # Sockets in the folder instead of ports, which others might have.
        sockets = {"transport": "ipc", "connection_file": os.path.join(folder, "kernel.json")}
        client = NotebookClient(
            notebook, timeout=None, config=Config(KernelManager=sockets), resources={"metadata": {"path": folder}}
        )
        client.execute(env={**os.environ, **SETTINGS})
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = joined([tidy(output) for output in cell.outputs if output.get("name") != "stderr"])
    return notebook


def tidy(output: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Make an output small, and the same on every machine.

    Args:
        output (`nbformat.NotebookNode`): of a cell; it is changed.

    Returns:
        `nbformat.NotebookNode`: the output, with figures in 64 colours and paths of temporary folders shortened.
    """
    data = output.get("data", {})
    if "image/png" in data:
        figure = io.BytesIO()
        picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"]))).convert("RGB")
        picture.quantize(64).save(figure, format="png", optimize=True)
        data["image/png"] = base64.b64encode(figure.getvalue()).decode()
    if "text" in output:
        output.text = re.sub(re.escape(tempfile.gettempdir()) + r"/\w+/", "", output.text)
    return output


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """Join what was printed in pieces, which standard error had parted.

    Args:
        outputs (`list[nbformat.NotebookNode]`): of a cell.

    Returns:
        `list[nbformat.NotebookNode]`: with one output for neighbouring pieces of standard output.
    """
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == found[-1].output_type == "stream":
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def main(names: list[str]) -> None:
    """Execute notebooks in place.

    Args:
        names (`list[str]`): such as `quick_start`; none are all.
    """
    for path in [FOLDER / f"{name}.ipynb" for name in names] or sorted(FOLDER.glob("*.ipynb")):
        nbformat.write(execute(path), path)
        print(f"{path.name}: {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(sys.argv[1:])
