"""Every command that is shown somewhere exists with all its flags and files, and those that run in seconds do run.

Commands are those of the README, the pages, the configurations, the help texts, and the docstrings of scripts and
benchmarks. The tutorial and the page on publishing are walked by `test_tutorial.py`.
"""

import argparse
import ast
import importlib.util
import json
import re
import runpy
import shlex
import sys
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from bit_speech import cli, decode_command, report_command
from bit_speech.arguments import ExperimentParser
from bit_speech.hub import command as publish_command

from .documentation import DOCS, ROOT, blocks

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
PROGRAM = re.compile(r"(?:bit-speech|torchrun|make|python) ")
HELP = [cli.EPILOG, cli.BUILD_LM_EPILOG, decode_command.EPILOG, report_command.EPILOG, publish_command.EPILOG]
# Words that stand for one of several.
STANDS_FOR = {"KIND": "ctc", "SOURCE": "participant"}


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
        elif words[1] == "-m":
            monkeypatch.setattr(sys, "argv", words[2:])
            runpy.run_module(words[2], run_name="__main__")
        else:
            monkeypatch.setattr(sys, "argv", words[1:])
            runpy.run_path(words[1], run_name="__main__")
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


WORDS = {"the": "DH AH", "cat": "K AE T", "a": "AH", "sat": "S AE T", "on": "AA N"}
# What makes a run short, where the experiment has such a setting.
SHORT = {
    "max_steps": 2, "eval_steps": 1, "save_steps": 1, "eval_strategy": "steps", "save_strategy": "steps",
    "logging_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 4, "max_new_tokens": 4, "beam_size": 10,
    "num_scored_sentences": 10, "max_text_sentences": 200, "vocab_size": 300, "block_size": 16, "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "use_cpu": "true", "bf16": "false",
}  # fmt: skip
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A folder to work in where simulated participants say little and no training takes more than two steps."""
    import bit_speech.demo as demo
    import bit_speech.simulation as simulation

    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    # As many electrodes as the model in the box knows, and as many held-out sentences as the demonstration first shows.
    sizes = {"train_sentences": 12, "val_sentences": 4, "test_sentences": 3, "num_sessions": 2}
    presets = {name: replace(preset, **sizes) for name, preset in simulation.PRESETS.items()}
    monkeypatch.setattr(simulation, "PRESETS", presets)
    monkeypatch.setattr(simulation.intracortical, "PRESETS", presets)
    sizes = {"num_training_sentences": 12, "num_validation_sentences": 4, "num_test_sentences": 3, "num_epochs": 1}
    monkeypatch.setattr(demo, "QUICK", replace(demo.QUICK, **sizes, hidden_size=64, num_hidden_layers=1, beam_size=10))
    sentences = demo.language_model_sentences
    monkeypatch.setattr(demo, "language_model_sentences", lambda held_out: sentences(held_out)[:300])
    read = ExperimentParser.parse

    def read_and_shorten(self, argv=None):
        flags = [f"--{name}={value}" for name, value in SHORT.items() if name in self.settings]
        if "train ctc" in self.prog or "pretrain" in self.prog:
            flags.append(f"--model_config={json.dumps(SMALL)}")
        return read(self, [*(sys.argv[1:] if argv is None else argv), *flags])

    monkeypatch.setattr(ExperimentParser, "parse", read_and_shorten)
    Path("words.txt").write_text("".join(f"{word}\t{phonemes}\n" for word, phonemes in WORDS.items()))
    return tmp_path


def run(line, monkeypatch):
    words = list(shown("", line).words)
    # The dictionary of 125,000 words is right, and slow to lay out.
    words = ["words.txt" if word == "cmudict" else word for word in words]
    if words[0] == "bit-speech":
        assert cli.main(words[1:]) == 0, line
        return
    assert words[0] == "python" and words[1].startswith("examples/"), line
    with monkeypatch.context() as patched:
        patched.setattr(sys, "argv", words[1:])
        try:
            runpy.run_path(words[1], run_name="__main__")
        except SystemExit as stopped:
            assert stopped.code == 0, line


def run_page(page, monkeypatch, leave_out=()):
    """Run the commands of a page in order; what is left out must be there."""
    found = [
        line
        for block in blocks(page.read_text(encoding="utf-8"))
        if block.kind == "bash"
        for line in lines_of(block.text)
    ]
    for beginning in leave_out:
        assert any(line.startswith(beginning) for line in found), beginning
    ran = [line for line in found if not line.startswith(tuple(leave_out))]
    for line in ran:
        run(line, monkeypatch)
    assert ran


def write_recordings(folder, num_channels=256):
    """Recordings as the example of `bit-speech convert participant` describes them."""
    rng = np.random.default_rng(0)
    folder.mkdir(exist_ok=True)
    said = ["the cat sat", "a cat sat on the cat", "the cat", "sat on a cat", "a cat", "on the cat sat a cat"]
    for day, block, count in (("05", 1, 6), ("08", 4, 3), ("15", 2, 2)):
        for trial in range(count):
            np.savez(
                folder / f"p01.2024.01.{day}_{trial}.npz", block=block, trial=trial,
                neural=rng.poisson(2.0, (120, num_channels)).astype(np.float32),
                sentence=f"{said[trial]} {'on' if day == '08' else 'sat' if day == '15' else ''}".strip(),
            )  # fmt: skip


@pytest.mark.slow
def test_the_commands_of_the_readme_run_in_order(short, monkeypatch):
    from bit_speech.decoding import build_ngram_lm
    from datasets_scripts.convert_participant import EXAMPLE

    write_recordings(short)
    write_recordings(short / "recordings")
    Path("my_participant.yaml").write_text(EXAMPLE)
    Path("recordings/participant.yaml").write_text(EXAMPLE)
    build_ngram_lm(["the cat sat", "a cat sat on the cat"], order=2).save("lm.bin")
    run_page(ROOT / "README.md", monkeypatch, leave_out=("make demo", "make test"))


@pytest.mark.slow
def test_the_commands_of_the_quick_start_run_in_order(short, monkeypatch):
    run_page(DOCS / "quick_start.md", monkeypatch)


@pytest.mark.slow
def test_the_commands_of_language_models_run_in_order(short, monkeypatch):
    import gzip
    import lzma

    from bit_speech.decoding import build_ngram_lm

    text = "".join(f"{line}\n" for line in ("the cat sat", "a cat sat on the cat", "on a cat") * 10)
    for name in ("talk.txt", "books.txt", "dev.txt"):
        Path(name).write_text(text)
    Path("words.txt").write_text("the cat sat on a")
    Path("corpus.txt.xz").write_bytes(lzma.compress(text.encode()))
    build_ngram_lm(text.splitlines(), order=3).write_arpa("lm.arpa")
    Path("lm.arpa.gz").write_bytes(gzip.compress(Path("lm.arpa").read_bytes()))
    run_page(DOCS / "language_models.md", monkeypatch)


@pytest.mark.slow
def test_the_commands_of_the_end_to_end_page_run_in_order(short, monkeypatch):
    run_page(
        DOCS / "end_to_end.md", monkeypatch,
        # An 8 GB checkpoint of the Hub; the same script runs with the small one.
        leave_out=("python examples/train_bit_llm.py   --config examples/configs/bit_llm_paper_t15.yaml",),
    )  # fmt: skip


@pytest.mark.slow
def test_the_first_walk_of_the_help_runs_in_order(short, monkeypatch):
    walk, _, _ = cli.EPILOG.partition("your own participant:")
    Path("lexicon.txt").write_text(Path("words.txt").read_text())
    from bit_speech.decoding import build_ngram_lm

    build_ngram_lm(["the cat sat", "a cat sat on the cat"], order=2).write_arpa("lm.arpa.xz")
    commands = lines_of(walk)
    assert len(commands) == 6
    for line in commands:
        # Three held-out sentences are all that a participant of this test has said.
        run(
            line.replace("--simulated 5", "--simulated 3").replace("bit-speech demo", "bit-speech demo --quick"),
            monkeypatch,
        )
