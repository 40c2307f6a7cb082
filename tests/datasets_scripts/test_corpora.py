"""Whatever the corpus: files become datasets with one arrangement of channels, and nothing is lost without a word."""

import importlib
import json
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from bit_speech.cli import CONVERTERS, main
from bit_speech.data.conversion import MANIFEST_NAME
from datasets_scripts.corpora import Corpus, Session, Stretch, convert_corpus, run_command

ROOT = Path(__file__).parents[2]
SCRIPTS = sorted((ROOT / "datasets_scripts").glob("convert_*.py"))
# Corpora of trials; iEEG with sound and stories in fMRI have layouts of their own.
PUBLISHED = [path.stem.removeprefix("convert_") for path in SCRIPTS if "CORPUS = Corpus(" in path.read_text("utf-8")]

CORPUS = Corpus(
    name="toy",
    title="A toy corpus",
    citation="Nobody 2024.",
    data="doi:10.0/toy",
    licence="CC0-1.0",
    access="write it yourself",
    files="**/*.json",
    species="macaque",
    hours="seconds",
    layout="Read: a list.",
    leave_out=("*_copy.json",),
)
AREAS = ("M1", "M1", "PMd")


@contextmanager
def open_session(path):
    """A file says who, when, the areas, and a list of stretches; bin i of channel c holds i + 1000 c."""
    what = json.loads(path.read_text())
    if "broken" in what:
        raise ValueError(what["broken"])

    def read(stretch):
        if stretch.block_index == 13:
            raise ValueError("block 13 is unlucky")
        bins = np.arange(round(stretch.start / 0.02), round(stretch.stop / 0.02))
        return (bins[:, None] + 1000 * np.arange(len(what["areas"]))).astype(np.float32)

    yield Session(
        participant_id=what["who"],
        session_id=what["when"],
        task="reaching",
        feature_kinds=["threshold_crossings"] * len(what["areas"]),
        channel_areas=what["areas"],
        stretches=[Stretch(**stretch) for stretch in what["stretches"]],
        read=read,
        problems=what.get("problems", ()),
    )


def write(path, stretches=({"start": 0.0, "stop": 1.0},), who="rex", when="day1", areas=AREAS, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"who": who, "when": when, "areas": areas, "stretches": stretches, **more}))


convert = partial(convert_corpus, CORPUS, open_session, progress=False)


def test_a_long_recording_becomes_segments_and_keeps_every_bin(tmp_path, trials_in):
    write(tmp_path / "in" / "a.json", [{"start": 0.0, "stop": 45.0}])
    report = convert(tmp_path / "in", tmp_path / "out")
    rows = trials_in(tmp_path / "out" / "toy_rex_M1-2_PMd-1")
    assert [len(row["features"]) for row in rows] == [1000, 1000, 250]
    np.testing.assert_array_equal(np.concatenate([row["features"] for row in rows])[:, 0], np.arange(2250))
    assert [row["trial_index"] for row in rows] == [0, 1, 2] and "0.01 h" in str(report)


def test_a_stretch_with_text_is_never_cut(tmp_path, trials_in):
    write(tmp_path / "in" / "a.json", [{"start": 0.0, "stop": 45.0, "text": "a long sentence"}])
    convert(tmp_path / "in", tmp_path / "out")
    (row,) = trials_in(tmp_path / "out" / "toy_rex_M1-2_PMd-1")
    assert len(row["features"]) == 2250 and row["text"] == "a long sentence"


def test_the_length_of_segments_can_be_chosen(tmp_path, trials_in):
    write(tmp_path / "in" / "a.json", [{"start": 0.0, "stop": 9.0}])
    convert(tmp_path / "in", tmp_path / "out", segment_s=4)
    assert [len(row["features"]) for row in trials_in(tmp_path / "out" / "toy_rex_M1-2_PMd-1")] == [200, 200, 50]
    with pytest.raises(ValueError, match="at least 1 second"):
        convert(tmp_path / "in", tmp_path / "other", segment_s=0)


def test_every_arrangement_of_channels_is_its_own_dataset(tmp_path):
    write(tmp_path / "in" / "a.json")
    write(tmp_path / "in" / "b.json", when="day2", areas=("M1", "M1"))
    write(tmp_path / "in" / "c.json", when="day3", areas=("M1", "PMd", "M1"))
    write(tmp_path / "in" / "d.json", who="ada", when="day1")
    report = convert(tmp_path / "in", tmp_path / "out")
    names = ["toy_rex_M1-2_PMd-1", "toy_rex_M1-2", "toy_rex_M1-2_PMd-1_2", "toy_ada_M1-2_PMd-1"]
    assert list(report.datasets) == names
    assert all((tmp_path / "out" / name / "README.md").is_file() for name in names)


def test_trials_of_a_session_are_numbered_over_its_files_and_splits(tmp_path, trials_in):
    two = [{"start": 0.0, "stop": 1.0}, {"start": 2.0, "stop": 3.0, "split": "validation"}]
    write(tmp_path / "in" / "a.json", two)
    write(tmp_path / "in" / "b.json", two)
    convert(tmp_path / "in", tmp_path / "out")
    rows = trials_in(tmp_path / "out" / "toy_rex_M1-2_PMd-1")
    assert [(row["split"], row["trial_index"], row["source"]) for row in rows] == [
        ("train", 0, "doi:10.0/toy a.json"),
        ("train", 2, "doi:10.0/toy b.json"),
        ("validation", 1, "doi:10.0/toy a.json"),
        ("validation", 3, "doi:10.0/toy b.json"),
    ]


def test_a_trial_says_where_it_comes_from_and_what_was_done(tmp_path, trials_in):
    write(tmp_path / "in" / "a.json", [{"start": 0.0, "stop": 1.0, "block_index": 4, "task": "rest"}])
    convert(tmp_path / "in", tmp_path / "out")
    (row,) = trials_in(tmp_path / "out" / "toy_rex_M1-2_PMd-1")
    kept = {key: row[key] for key in ("species", "task", "block_index", "licence", "bin_size_ms", "text", "phonemes")}
    assert kept == {
        "species": "macaque",
        "task": "rest",
        "block_index": 4,
        "licence": "CC0-1.0",
        "bin_size_ms": 20.0,
        "text": None,
        "phonemes": None,
    }


def test_files_that_repeat_others_are_left_out(tmp_path):
    write(tmp_path / "in" / "a.json")
    write(tmp_path / "in" / "a_copy.json", broken="it was read")
    assert convert(tmp_path / "in", tmp_path / "out").datasets["toy_rex_M1-2_PMd-1"].splits["train"]["num_trials"] == 1


def test_a_layout_that_nobody_thought_of_is_named_with_its_file(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.json").write_text("{}")
    with pytest.raises(ValueError, match=r"a.json: it has another layout \(KeyError: 'who'\)"):
        convert(tmp_path / "in", tmp_path / "out")


@pytest.mark.parametrize("more", [{"broken": "no spikes in it"}, {"problems": ["no spikes in it"]}])
def test_what_cannot_be_read_is_named_and_can_be_left_out(tmp_path, more):
    write(tmp_path / "in" / "a.json")
    write(tmp_path / "in" / "b.json", when="day2", **more)
    with pytest.raises(ValueError, match=r"b.json: no spikes in it.*--allow_partial"):
        convert(tmp_path / "in", tmp_path / "out")
    report = convert(tmp_path / "in", tmp_path / "out", allow_partial=True).datasets["toy_rex_M1-2_PMd-1"]
    assert [str(problem) for problem in report.left_out] == ["b.json: no spikes in it"]
    assert "b.json: no spikes in it" in (tmp_path / "out" / "toy_rex_M1-2_PMd-1" / "README.md").read_text()


def test_a_stretch_that_cannot_be_read_is_named_by_its_time(tmp_path):
    write(tmp_path / "in" / "a.json", [{"start": 0.0, "stop": 1.0}, {"start": 2.0, "stop": 3.0, "block_index": 13}])
    with pytest.raises(ValueError, match=r"a.json, 2.00 s to 3.00 s: block 13 is unlucky"):
        convert(tmp_path / "in", tmp_path / "out")


def test_a_missing_folder_and_a_folder_without_files_say_how_to_get_them(tmp_path):
    for folder in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(FileNotFoundError, match="write it yourself"):
            convert(folder, tmp_path / "out")


def test_nothing_but_problems_is_nothing_to_convert(tmp_path):
    write(tmp_path / "in" / "a.json", broken="no spikes in it")
    with pytest.raises(ValueError, match="nothing to convert: a.json: no spikes in it"):
        convert(tmp_path / "in", tmp_path / "out", allow_partial=True)


def test_a_conversion_goes_on_where_it_was(tmp_path):
    write(tmp_path / "in" / "a.json")
    write(tmp_path / "in" / "b.json", when="day2")
    convert(tmp_path / "in", tmp_path / "out")
    folder = tmp_path / "out" / "toy_rex_M1-2_PMd-1"
    first = {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    (folder / "data" / "train-day2.parquet").unlink()
    (folder / "dead_channels.json").unlink()
    report = convert(tmp_path / "in", tmp_path / "out").datasets["toy_rex_M1-2_PMd-1"]
    assert report.kept == ("data/train-day1.parquet",) and report.written == ("data/train-day2.parquet",)
    assert {path.name: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == first


def test_another_length_of_segments_is_another_dataset(tmp_path):
    write(tmp_path / "in" / "a.json")
    convert(tmp_path / "in", tmp_path / "out")
    assert (
        json.loads((tmp_path / "out" / "toy_rex_M1-2_PMd-1" / MANIFEST_NAME).read_text())["options"]["segment_s"] == 20
    )
    with pytest.raises(ValueError, match="choose another output folder"):
        convert(tmp_path / "in", tmp_path / "out", segment_s=10)


def test_the_command_teaches_reports_and_refuses(tmp_path, capsys):
    with pytest.raises(SystemExit):
        run_command(CORPUS, open_session, ["--help"])
    shown = capsys.readouterr().out
    assert all(part in shown for part in ("Nobody 2024.", "write it yourself", "CC0-1.0", "seconds", "--segment_s"))
    arguments = ["--input_dir", str(tmp_path / "in"), "--output_dir", str(tmp_path / "out"), "--quiet"]
    assert run_command(CORPUS, open_session, arguments) == 2
    assert "convert_toy: no folder" in capsys.readouterr().err
    write(tmp_path / "in" / "a.json")
    assert run_command(CORPUS, open_session, arguments) == 0
    assert "0 of 1 sessions have dead channels" in capsys.readouterr().out


def test_the_command_line_lists_every_converter(capsys):
    assert len(PUBLISHED) >= 12
    assert sorted(path.stem.removeprefix("convert_") for path in SCRIPTS) == sorted(CONVERTERS)
    with pytest.raises(SystemExit):
        main(["convert", "--help"])
    shown = capsys.readouterr().out
    assert all(f"{name} " in shown and reads in shown for name, reads in CONVERTERS.items())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_corpus_is_described_where_people_look(name, capsys):
    module = importlib.import_module(f"datasets_scripts.convert_{name}")
    corpus = module.CORPUS
    assert corpus.name == name and corpus.licence in ("CC0-1.0", "CC-BY-4.0")
    (row,) = [
        line
        for line in (ROOT / "docs" / "pretraining_corpora.md").read_text(encoding="utf-8").splitlines()
        if line.startswith(f"| `{name}` |") and corpus.licence in line
    ]
    assert corpus.species in row
    with pytest.raises(SystemExit):
        module.main(["--help"])
    shown = capsys.readouterr().out
    assert corpus.data in shown and corpus.access in shown and corpus.hours in shown and corpus.licence in shown
