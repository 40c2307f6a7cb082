"""What the README shows is there and runs."""

import re
from pathlib import Path

from bit_speech.cli import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_decoder_in_the_box_reads_a_sentence_as_shown(capsys):
    block = re.findall(r"```python\n(.*?)```", README, re.DOTALL)[0]
    exec(compile(block, "README.md", "exec"), {})
    said, decoded = capsys.readouterr().out.strip().splitlines()[-1].split(" -> ")
    wanted = re.findall(r"[a-z']+", said.lower())
    assert len(set(wanted) & set(decoded.split())) >= len(wanted) / 2


def test_every_page_and_script_that_is_named_exists():
    named = re.findall(r"\]\((?!http)([^)#]+)\)|(examples/[\w/]+\.(?:py|yaml))", README)
    paths = [link or script for link, script in named]
    assert len(paths) > 20
    assert not [path for path in paths if not (ROOT / path).exists()]


def test_every_subcommand_that_is_shown_has_help(capsys):
    for name in sorted(set(re.findall(r"^bit-speech (\w[\w-]*)", README, re.MULTILINE))):
        try:
            main([name, "--help"])
        except SystemExit as end:
            assert end.code == 0, name
        assert name in capsys.readouterr().out
