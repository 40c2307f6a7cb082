"""Every command that is shown somewhere exists with all its flags and files.

Commands are those of the README, the pages, the configurations, the help texts, and the docstrings of scripts and
benchmarks. `test_documented_pages.py` runs those of the pages.
"""

import argparse
import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

from bit_speech import cli, decode_command, report_command
from bit_speech.arguments import ExperimentParser
from bit_speech.hub import command as publish_command

from .documentation import DOCS, PROGRAM, ROOT, blocks, lines_of, run_program, shown

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
HELP = [cli.EPILOG, cli.BUILD_LM_EPILOG, decode_command.EPILOG, report_command.EPILOG, publish_command.EPILOG]


def commands():
    for page in PAGES:
        text, where = page.read_text(encoding="utf-8"), page.relative_to(ROOT).as_posix()
        for block in blocks(text):
            if block.kind == "bash":
                yield from (shown(where, line) for line in lines_of(block.text))
        outside = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
        for code in re.findall(r"`([^`\n]+)`", outside):
            if PROGRAM.match(code):
                yield shown(where, code, part=True)
    for folder in ("examples", "benchmarks", "bit_speech/experiments"):
        for path in sorted((ROOT / folder).glob("*.py")):
            docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
            yield from (shown(f"{folder}/{path.name}", line) for line in lines_of(docstring))
    for path in sorted((ROOT / "examples" / "configs").glob("*.yaml")):
        first = path.read_text(encoding="utf-8").splitlines()[0].removeprefix("# ")
        if PROGRAM.match(first):
            yield shown(f"examples/configs/{path.name}", first)
    for text in HELP:
        yield from (shown("--help", line) for line in lines_of(text))


COMMANDS = sorted({command.words + (command.part,): command for command in commands()}.values(), key=str)


class Reached(Exception):
    """A parser has been asked to read a command line; nothing has run yet."""

    def __init__(self, parser, argv):
        self.parser, self.argv = parser, argv


def reach(words, monkeypatch):
    """The parser that a command meets, and what it is given."""
    words = list(words)
    if words[0] == "torchrun":
        start = next(i for i, word in enumerate(words) if word == "-m" or word.endswith(".py"))
        words = ["python", *words[start:]]
    if words[:3] == ["python", "-m", "bit_speech.cli"]:
        words = ["bit-speech", *words[3:]]
    if words[0] == "bit-speech" and words[1] not in ("convert", "train", "pretrain", "finetune"):
        (subparsers,) = cli.build_parser()._subparsers._group_actions
        assert words[1] in subparsers.choices, f"there is no command {words[1]}"
        return subparsers.choices[words[1]], words[2:]

    def stop(self, argv=None, namespace=None):
        raise Reached(self, list(sys.argv[1:] if argv is None else argv))

    monkeypatch.setattr(ExperimentParser, "parse", stop)
    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    monkeypatch.chdir(ROOT)
    with pytest.raises(Reached) as reached:
        if words[0] == "bit-speech":
            cli.main(words[1:])
        else:
            run_program(words, monkeypatch)
    monkeypatch.undo()
    return reached.value.parser, reached.value.argv


# A benchmark that another test has imported is run a second time here, as a program.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: f"{command.where}: {' '.join(command.words)}")
def test_a_command_that_is_shown_exists_with_all_its_flags_and_files(command, monkeypatch):
    words = command.words
    if command.part and len(words) == 2 and words[0] == "bit-speech":
        assert words[1] in cli.build_parser()._subparsers._group_actions[0].choices
        return
    if words[0] == "make":
        assert re.search(rf"^{words[1]}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        return
    for word in words:
        if word.startswith("examples/"):
            assert (ROOT / word).is_file(), word
    if words[:2] == ("python", "-m") and words[2].startswith("benchmarks."):
        found = importlib.util.find_spec(words[2])
        assert found is not None, words[2]
        if "argparse" not in Path(found.origin).read_text(encoding="utf-8"):
            assert len(words) == 3, f"{words[2]} takes no arguments"
            return
    elif words[:2] == ("python", "-m"):
        assert importlib.util.find_spec(words[2]) is not None, words[2]
    parser, argv = reach(words, monkeypatch)
    flags = {word.split("=")[0] for word in argv if word.startswith("--")}
    assert flags <= set(parser._option_string_actions) | {"--json"}, f"{flags} of {parser.prog}"
    if command.part or "--help" in argv:
        return
    if isinstance(parser, ExperimentParser):
        monkeypatch.chdir(ROOT)
        here = [f"--{name}" for name in ("use_cpu=true", "bf16=false") if name.split("=")[0] in parser.settings]
        parser.parse([*argv, *here])
    else:
        parser.parse_args(argv)


def test_many_commands_of_every_kind_are_found():
    assert len(COMMANDS) > 120
    assert {command.words[0] for command in COMMANDS} == {"bit-speech", "python", "torchrun", "make"}


def test_a_flag_or_a_file_that_is_gone_is_noticed(monkeypatch):
    for line in (
        "bit-speech decode --model m --no_such_flag x",
        "python examples/train_bit_ctc.py --config examples/configs/no_such.yaml",
        "bit-speech train ctc --trials t --no_such_setting 1",
        "python -m benchmarks.fusion --no_such_flag",
        "make no_such_target",
    ):
        with pytest.raises(AssertionError):
            test_a_command_that_is_shown_exists_with_all_its_flags_and_files(shown("here", line), monkeypatch)
