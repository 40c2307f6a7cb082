"""How the tests read and run the pages of the documentation."""

import re
import runpy
import shlex
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import NamedTuple

from bit_speech.cli import main

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
# `<!-- not run: reason -->` on the line before a block says that it cannot run offline, and why.
BLOCK = re.compile(r"(?:^<!-- not run: ([^\n]+?) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAM = re.compile(r"(?:bit-speech|torchrun|make|python) ")
# Words that stand for one of several.
STANDS_FOR = {"KIND": "ctc", "SOURCE": "participant"}


class Block(NamedTuple):
    """A fenced block of a page: its language, its text, and why it is not run (empty: it is)."""

    kind: str
    text: str
    not_run: str


def blocks(text):
    return [Block(kind, block, reason) for reason, kind, block in BLOCK.findall(text)]


class Shown(NamedTuple):
    """A command as it is shown: where, its words, and whether it is a part of one (in running text, or with `...`)."""

    where: str
    words: tuple[str, ...]
    part: bool


def shown(where, line, part=False):
    line = re.sub(r"\$\w+", "1", line.replace("[", " ").replace("]", " "))
    words = shlex.split(line, comments=True)
    words = words[: words.index(">")] if ">" in words else words
    part = part or "..." in words
    return Shown(where, tuple(STANDS_FOR.get(word, word) for word in words if word not in ("...", "|")), part)


def lines_of(text):
    joined = re.sub(r"\\\n\s*", " ", text)
    return [line.strip() for line in joined.splitlines() if PROGRAM.match(line.strip())]


def lines_shown(text):
    """All lines of the bash blocks of a page, whatever their program, without comments."""
    joined = (re.sub(r"\\\n\s*", " ", block.text) for block in blocks(text) if block.kind == "bash")
    lines = (re.sub(r"(?:^|\s+)#.*", "", line).strip() for text in joined for line in text.splitlines())
    return [re.sub(r"\s+", " ", line) for line in lines if line]


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


def run_program(words, monkeypatch):
    """Run `python FILE ...` or `python -m MODULE ...` in this process."""
    if words[1] == "-m":
        monkeypatch.setattr(sys, "argv", words[2:])
        runpy.run_module(words[2], run_name="__main__")
    else:
        monkeypatch.setattr(sys, "argv", words[1:])
        runpy.run_path(words[1], run_name="__main__")
