"""How the tests read and run the pages of the documentation."""

import re
import shlex
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from bit_speech.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# `<!-- not run: reason -->` on the line before a block says that it cannot run offline, and why.
BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and why it is not run (empty: it is)."""

    kind: str
    text: str
    not_run: str


def blocks(text):
    return [Block(kind, block, reason) for reason, kind, block in BLOCK.findall(text)]


def run_python(block, names):
    exec(compile(block, "documentation", "exec"), names)


def run_command(line):
    words = shlex.split(line)
    output = None
    if ">" in words:
        output, words = words[words.index(">") + 1], words[: words.index(">")]
    assert words[0] == "bit-speech", line
    if output is None:
        status = main(words[1:])
    else:
        with open(output, "w") as file, redirect_stdout(file):
            status = main(words[1:])
    assert status == 0, line


def walk(text, names):
    """Run what a page shows, in order: Python, YAML files of a participant, commands."""
    for block in blocks(text):
        if block.kind == "python" and not block.not_run:
            run_python(block.text, names)
        elif block.kind == "yaml":
            Path("recordings/participant.yaml").write_text(block.text)
        elif block.kind == "bash":
            for line in block.text.strip().splitlines():
                run_command(line)


def replaced(text, changes):
    """Put the test's words in the place of the page's; a page that no longer says them is an error."""
    for said, changed in changes.items():
        assert said in text, f"the page no longer says {said!r}"
        text = text.replace(said, changed)
    return text
