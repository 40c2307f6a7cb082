"""The commands of the pages run as they are shown, in order, on tiny data.

Every command of a page with bash blocks is run here, or left out by name with the reason; the tutorial and the page on
publishing are walked by `test_tutorial.py`. `documented_inputs.py` writes what the pages take for granted.
"""

import glob
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from bit_speech import cli
from bit_speech.arguments import ExperimentParser

from . import documented_inputs as inputs
from .documentation import DOCS, ROOT, lines_of, lines_shown, replaced, run_program, shown

WORDS = {"the": "DH AH", "cat": "K AE T", "a": "AH", "sat": "S AE T", "on": "AA N"}
# What makes a run short, where the experiment has such a setting.
SHORT = {
    "max_steps": 2, "eval_steps": 1, "save_steps": 1, "eval_strategy": "steps", "save_strategy": "steps",
    "logging_steps": 1, "warmup_steps": 0, "per_device_train_batch_size": 4, "max_new_tokens": 4, "beam_size": 10,
    "num_scored_sentences": 10, "max_text_sentences": 200, "vocab_size": 300, "block_size": 16, "hidden_size": 16,
    "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16, "use_cpu": "true", "bf16": "false",
    "device": "cpu", "dtype": "float32", "num_sentences": 20, "eval_share": 0.3, "queries": 2,
    "window_s": 4, "stride_s": 2, "num_permutations": 10,
}  # fmt: skip
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
# What is run: the package's command, a script, a converter.
RUN = ("bit-speech ", "python examples/", "python -m datasets_scripts.")


class Walk(NamedTuple):
    """How a page is walked: what is there before, what the test says instead, which words stand for several in turn,
    and what is left out and why, by the beginning of the line."""

    prepare: Callable[[], None]
    changes: dict[str, str] = {}
    several: dict[str, tuple[str, ...]] = {}
    leave_out: dict[str, str] = {}


# Three held-out sentences are all that a participant of these tests has said.
THREE = {"--simulated 5": "--simulated 3"}
SERVER = "a server that does not end; tests/space drives it in a browser"
MAKE = "makes an environment, or runs these very tests"
WALKS = {
    "README.md": Walk(
        inputs.readme,
        changes=THREE,
        leave_out={
            "make demo": MAKE,
            "make test": MAKE,
            "source .venv/bin/activate": "a matter of the shell",
            "python space/app.py": SERVER,
        },
    ),
    "CONTRIBUTING.md": Walk(inputs.nothing, leave_out={"make ": MAKE, ".venv/bin/pip install": MAKE}),
    "docs/quick_start.md": Walk(inputs.nothing),
    "docs/language_models.md": Walk(inputs.language_models),
    "docs/end_to_end.md": Walk(
        inputs.nothing,
        leave_out={
            "python examples/train_bit_llm.py --config examples/configs/bit_llm_paper_t15.yaml": "8 GB of the Hub; the "
            "same script runs with the small one",
            "for weight in": "the loop around a command that runs once here",
            "done": "its end",
        },
    ),
    "docs/brain_tuning.md": Walk(inputs.listening, several={"UTS03": inputs.LISTENERS}),
    "docs/data_format.md": Walk(
        inputs.layouts,
        # Days of two sentences are not the complete release.
        changes={name: f"{name} --allow_partial" for name in ("--output_dir trials/t15", "--output_dir trials/t12")},
    ),
    "docs/decoding.md": Walk(inputs.decoding, changes=THREE),
    "docs/ieeg_audio.md": Walk(inputs.ieeg_audio),
    "docs/pretraining.md": Walk(inputs.pretraining),
    "docs/pretraining_corpora.md": Walk(inputs.monkeys, leave_out={"dandi download": "the network"}),
    "docs/rescoring_and_fusion.md": Walk(inputs.decoders, several={"seed0": ("seed0", "seed1")}),
    "docs/space.md": Walk(
        inputs.nothing,
        leave_out={
            "python space/app.py": SERVER,
            "hf upload": "the network, and an account",
            "pip wheel": "the network: it fetches what builds the package",
            "echo ": "goes with the wheel",
        },
    ),
    "docs/wav2vec2_brain.md": Walk(inputs.speech_models, changes={"--trials DIR": "--trials trials/t12"}),
}
NOTHING_RUNS = {"CONTRIBUTING.md", "docs/space.md"}
MOMENTS = {"docs/data_format.md", "docs/language_models.md", "docs/pretraining_corpora.md"}
WALKED_ELSEWHERE = {"docs/tutorial_own_participant.md", "docs/publishing.md"}


def pages():
    every = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.rglob("*.md"))]
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in every}


def to_run(text, walk):
    """The lines of a page that run; what is left out must be there, and what is neither is an error."""
    found = lines_shown(text)
    for beginning in walk.leave_out:
        assert any(line.startswith(beginning) for line in found), f"the page no longer says {beginning!r}"
    kept = [line for line in found if not line.startswith(tuple(walk.leave_out))]
    for line in kept:
        assert line.startswith(RUN), f"neither run nor left out by name: {line}"
        assert "..." not in line, f"a sketch: {line}"
    changed = replaced("\n".join(kept), walk.changes).splitlines()
    for word in walk.several:
        assert any(word in line for line in changed), f"the page no longer says {word!r}"
    return [one for line in changed for one in spread(line, walk.several)]


def spread(line, several):
    for word, others in several.items():
        if word in line:
            return [line.replace(word, other) for other in others]
    return [line]


def test_every_command_of_every_page_is_run_or_left_out_by_name():
    shown_on = {name for name, text in pages().items() if lines_shown(text)}
    assert shown_on == set(WALKS) | WALKED_ELSEWHERE
    lines = {name: to_run(pages()[name], walk) for name, walk in WALKS.items()}
    assert sum(map(len, lines.values())) > 45
    assert {name for name, kept in lines.items() if not kept} == NOTHING_RUNS


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("dandi download DANDI:000070", "neither run nor left out"),
        ("make no_such_target", "neither run nor left out"),
        ("bit-speech evaluate --model runs/me/model ...", "a sketch"),
    ],
)
def test_a_command_that_is_neither_run_nor_left_out_is_noticed(line, said):
    with pytest.raises(AssertionError, match=said):
        to_run(f"```bash\nbit-speech doctor   # works\n{line}\n```\n", Walk(inputs.nothing))


def test_a_command_that_is_left_out_and_gone_is_noticed():
    with pytest.raises(AssertionError, match="no longer says 'hf upload'"):
        to_run("```bash\nbit-speech doctor\n```\n", Walk(inputs.nothing, leave_out={"hf upload": "an account"}))


@pytest.fixture
def short(tmp_path, monkeypatch):
    """A folder to work in where simulated participants say little and no training takes more than two steps."""
    import bit_speech.demo as demo
    import bit_speech.simulation as simulation

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
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
        if "train ctc" in self.prog or "bit-speech pretrain" in self.prog:
            flags.append(f"--model_config={json.dumps(SMALL)}")
        return read(self, [*(sys.argv[1:] if argv is None else argv), *flags])

    monkeypatch.setattr(ExperimentParser, "parse", read_and_shorten)
    Path("words.txt").write_text("".join(f"{word}\t{phonemes}\n" for word, phonemes in WORDS.items()))
    return tmp_path


def expanded(word):
    """What the shell makes of a word with a star."""
    return sorted(glob.glob(word)) if "*" in word else [word]


def run(line, monkeypatch):
    words = [one for word in shown("", line).words for one in expanded(word)]
    # The dictionary of 125,000 words is right, and slow to lay out.
    words = ["words.txt" if word == "cmudict" else word for word in words]
    if words[0] == "bit-speech":
        assert cli.main(words[1:]) == 0, line
        return
    assert words[0] == "python", line
    with monkeypatch.context() as patched:
        try:
            run_program(words, patched)
        except SystemExit as stopped:
            assert not stopped.code, f"{line}: {stopped.code}"


def in_a_moment_or_slowly():
    pages_that_run = sorted(set(WALKS) - NOTHING_RUNS)
    return [page if page in MOMENTS else pytest.param(page, marks=pytest.mark.slow) for page in pages_that_run]


# A converter that another test has imported is run a second time here, as a program.
@pytest.mark.filterwarnings("ignore:.*found in sys.modules.*:RuntimeWarning")
@pytest.mark.parametrize("page", in_a_moment_or_slowly())
def test_the_commands_of_a_page_run_in_order(page, short, monkeypatch):
    WALKS[page].prepare()
    for line in to_run(pages()[page], WALKS[page]):
        run(line, monkeypatch)


@pytest.mark.slow
def test_the_first_walk_of_the_help_runs_in_order(short, monkeypatch):
    walk, _, _ = cli.EPILOG.partition("your own participant:")
    inputs.help_walk()
    commands = lines_of(walk)
    assert len(commands) == 6
    for line in commands:
        line = line.replace("--simulated 5", "--simulated 3").replace("bit-speech demo", "bit-speech demo --quick")
        run(line, monkeypatch)
