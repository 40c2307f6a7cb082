"""What mkdocs does beside reading Markdown: modules on the API pages, notebooks as pages, figures of the benchmarks."""

from __future__ import annotations

import ast
import base64
import re
from pathlib import Path
from typing import Any

import nbformat
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
FIGURES = "benchmarks/results"
NOTEBOOKS = "notebooks"


def modules_of(room: str) -> list[str]:
    """Name the modules of a room that define a public class or function, those of its subfolders included.

    Args:
        room (`str`): dotted name, such as `bit_speech.data`; of `bit_speech` itself only what lies in no room.

    Returns:
        `list[str]`: dotted names, sorted.
    """
    folder = ROOT / room.replace(".", "/")
    paths = folder.glob("*.py") if room == "bit_speech" else folder.rglob("*.py")
    found = []
    for path in sorted(paths):
        body = ast.parse(path.read_text(encoding="utf-8")).body
        names = [node.name for node in body if isinstance(node, (ast.ClassDef, ast.FunctionDef))]
        if any(not name.startswith("_") for name in names):
            found.append(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return found


def notebook_page(path: Path) -> tuple[str, dict[str, bytes]]:
    """Turn an executed notebook into a Markdown page and its figures.

    Args:
        path (`Path`): the `.ipynb` file.

    Returns:
        `tuple`: Markdown, and the PNG figures by file name.
    """
    notebook = nbformat.read(path, as_version=4)
    parts: list[str] = []
    figures: dict[str, bytes] = {}
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            parts.append(cell.source.replace(".ipynb)", ".md)"))
            continue
        parts.append(f"```python\n{cell.source}\n```")
        for output in cell.outputs:
            data = output.get("data", {})
            if "image/png" in data:
                name = f"{path.stem}_{len(figures)}.png"
                figures[name] = base64.b64decode(data["image/png"])
                parts.append(f"![{data['text/plain']}]({name})")
            else:
                text = output.get("text") or data.get("text/plain", "")
                parts.append(f"```text\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n", figures


def on_files(files: Files, config: Any) -> Files:
    """Add the notebooks and the figures of the benchmarks, which lie outside of `docs/`."""
    for path in sorted((ROOT / NOTEBOOKS).glob("*.ipynb")):
        markdown, figures = notebook_page(path)
        files.append(File.generated(config, f"{NOTEBOOKS}/{path.stem}.md", content=markdown))
        for name, figure in figures.items():
            files.append(File.generated(config, f"{NOTEBOOKS}/{name}", content=figure))
    for path in sorted((ROOT / FIGURES).glob("*.png")):
        files.append(File.generated(config, f"{FIGURES}/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Fill in the modules of an API page; find the figures of the benchmarks where the site has them."""
    if page.file.src_uri.startswith("api/"):
        return re.sub(
            r"<!-- modules of ([\w.]+) -->",
            lambda found: "\n\n".join(f"::: {name}" for name in modules_of(found.group(1))),
            markdown,
        )
    return markdown.replace(f"](../{FIGURES}/", f"]({FIGURES}/")
