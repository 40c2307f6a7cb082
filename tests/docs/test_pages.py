"""The pages are true: their Python runs, their messages are the package's, their links lead somewhere."""

import ast
import re

import pytest
import yaml

from ..documentation import DOCS, ROOT, blocks, replaced, run_python
from .prepared import PREPARED, SMALLER

SHIPPED = ("configuration_bit", "modeling_bit", "processing_bit", "bit_speech", "datasets_scripts")
# tests/test_tutorial.py walks these two, commands and all.
WALKED = {"tutorial_own_participant.md", "publishing.md"}
PAGES = sorted(DOCS.glob("*.md"))
WITH_PYTHON = [
    page.name
    for page in PAGES
    if page.name not in WALKED
    and any(block.kind == "python" and not block.not_run for block in blocks(page.read_text(encoding="utf-8")))
]


@pytest.mark.parametrize("name", WITH_PYTHON)
def test_the_python_of_a_page_runs_in_order(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = replaced((DOCS / name).read_text(encoding="utf-8"), SMALLER.get(name, {}))
    names = PREPARED.get(name, dict)()
    names = names if isinstance(names, dict) else {}
    for block in blocks(text):
        if block.kind == "python" and not block.not_run:
            run_python(block.text, names)


def test_nothing_is_prepared_for_pages_that_are_not_there():
    assert set(PREPARED) | set(SMALLER) <= set(WITH_PYTHON)


def test_every_block_names_its_language_and_few_are_not_run():
    python = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        # A block without a language is a drawing.
        languages = re.findall(r"^```(\w*)$", text, re.MULTILINE)[::2]
        assert set(languages) <= {"python", "bash", "yaml", "text", "json", ""}, page.name
        found = blocks(text)
        assert [block.kind for block in found] == [language for language in languages if language], page.name
        python += [block for block in found if block.kind == "python"]
    not_run = [block for block in python if block.not_run]
    assert all(len(block.not_run) > 20 for block in not_run)
    assert len(python) > 25 and len(not_run) <= 2


def string_of(node):
    """A string of the code, with an ellipsis in the place of each value."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(map(string_of, node.values))
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return string_of(node.left) + string_of(node.right)
    return "…"


def test_every_message_that_is_explained_is_one_of_the_package():
    explained = re.findall(r"^\*\*`(.+)`\*\*$", (DOCS / "faq.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert len(explained) > 25
    paths = [path for folder in SHIPPED for path in (ROOT / folder).rglob("*.py")]
    nodes = [node for path in paths for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))]
    strings = {string_of(node) for node in nodes if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp)}
    for message in explained:
        pattern = re.compile(".*".join(re.escape(piece.strip()) for piece in message.split("…")), re.DOTALL)
        assert any(pattern.search(text) for text in strings), message


def test_every_page_is_in_the_navigation_and_every_name_in_it_is_a_page():
    def pages(entry):
        if isinstance(entry, str):
            return [entry]
        return [page for part in (entry.values() if isinstance(entry, dict) else entry) for page in pages(part)]

    named = pages(yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"])
    notebooks = {f"notebooks/{path.stem}.md" for path in (ROOT / "notebooks").glob("*.ipynb")}
    written = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
    assert sorted(named) == sorted(written | notebooks)


def rows_of(section):
    """Cells of every table row of a section, without headings."""
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| |")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_claim_of_the_comparison_names_tests_that_exist():
    features, proofs = (DOCS / "comparison.md").read_text(encoding="utf-8").split("## What proves it\n")
    proofs = dict(rows_of(proofs.split("\n## ")[0])[1:])
    claimed = {feature: ours for feature, ours, *_ in rows_of(features)}
    facts_of_a_file = ("no", "English", "Apache-2.0")
    assert set(proofs) <= set(claimed) and len(proofs) > 25
    assert {feature for feature, ours in claimed.items() if not ours.startswith(facts_of_a_file)} <= set(proofs)
    for feature, cell in proofs.items():
        tests = re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", cell)
        assert tests and len(tests) == cell.count("`") // 2, feature
        for file, test in tests:
            assert f"def {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{feature}: {file} has no {test}"
