"""The notebooks run from the first cell to the last, and what is kept of them reads well elsewhere."""

import json
import re

import nbformat
import pytest

from notebooks.run import execute

from ..documentation import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
# These train, which takes longer.
TRAINING = {"pretraining", "your_own_participant"}


def outputs(notebook):
    """For every cell of code, the kinds of its outputs; in how many pieces they come depends on the machine."""
    return [{output.output_type for output in cell.outputs} for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, marks=pytest.mark.slow if path.stem in TRAINING else ()) for path in NOTEBOOKS],
    ids=lambda path: path.stem,
)
def test_a_notebook_runs_and_gives_the_kinds_of_output_that_are_kept(path):
    # A warning that a machine adds is no fault of the notebook; an error in a cell ends `execute`.
    kept, found = outputs(nbformat.read(path, as_version=4)), outputs(execute(path))
    assert len(kept) == len(found) and all(kinds <= new for kinds, new in zip(kept, found))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_is_kept_of_a_notebook_has_a_figure_is_small_and_names_no_machine(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    kept = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert any("image/png" in output.get("data", {}) for output in kept)
    assert path.stat().st_size < 300_000
    assert not [output for output in kept if output.get("name") == "stderr" or output.output_type == "error"]
    text = json.dumps([output.get("text", output.get("data", {}).get("text/plain")) for output in kept])
    assert not re.search(r"/(tmp|home|work|root|Users)\b|0x[0-9a-f]{8}", text)


def test_the_four_roads_are_there():
    assert [path.stem for path in NOTEBOOKS] == ["decoding", "pretraining", "quick_start", "your_own_participant"]
