"""Converters of listening data read the official layouts and refuse wrong counts."""

import json
from pathlib import Path

import h5py
import nibabel
import numpy as np
import pytest

from bit_speech.data.story_runs import list_runs, read_run, read_story, read_words, write_run, write_story
from datasets_scripts import (
    convert_bids_stories,
    convert_lebel,
    convert_little_prince,
    convert_narratives,
    project_to_fsaverage,
)
from datasets_scripts.story_files import read_textgrid, remove_confounds

LONG_GRID = """File type = "ooTextFile"
Object class = "TextGrid"

xmin = 0
xmax = 2
tiers? <exists>
size = 2
item []:
    item [1]:
        class = "IntervalTier"
        name = "phone"
        xmin = 0
        xmax = 2
        intervals: size = 2
        intervals [1]:
            xmin = 0.0
            xmax = 0.5
            text = "HH"
        intervals [2]:
            xmin = 0.5
            xmax = 2.0
            text = ""
    item [2]:
        class = "IntervalTier"
        name = "word"
        xmin = 0
        xmax = 2
        intervals: size = 1
        intervals [1]:
            xmin = 0.0
            xmax = 1.5
            text = "hello"
"""
SHORT_GRID = (
    'File type = "ooTextFile"\n"TextGrid"\n\n0\n2\n<exists>\n1\n"IntervalTier"\n"word"\n0\n2\n1\n0.25\n1.5\n"hi"\n'
)


def sound(folder: Path, name: str, seconds: float) -> None:
    """A wav file where a data set has it."""
    tone = np.sin(np.arange(int(16_000 * seconds)) / 9).astype(np.float32)
    path = write_story(folder / "made", name, tone)
    target = folder / "stimuli" / f"{name}.wav"
    target.parent.mkdir(parents=True, exist_ok=True)
    path.rename(target)


def nifti(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), np.eye(4)), path)


def lebel(folder: Path, volumes: int = 30, scans: int = 50, people=("UTS03",), voxels: int = 4, seconds=1.0) -> None:
    rng = np.random.default_rng(0)
    for person in people:
        data = folder / "derivative" / "preprocessed_data" / person
        data.mkdir(parents=True)
        for story in ("wheretheressmoke", "avatar", "itsabox"):
            with h5py.File(data / f"{story}.hf5", "w") as file:
                values = rng.normal(size=(volumes, voxels))
                values[3, 2] = np.nan
                file["data"] = values
                if story == "wheretheressmoke":
                    file["individual_repeats"] = rng.normal(size=(5, volumes, voxels))
    for story in ("wheretheressmoke", "avatar", "itsabox"):
        sound(folder, story, seconds)
    (folder / "derivative" / "respdict.json").write_text(
        json.dumps(dict.fromkeys(("wheretheressmoke", "avatar", "itsabox"), scans))
    )
    (folder / "derivative" / "TextGrids").mkdir()
    (folder / "derivative" / "TextGrids" / "avatar.TextGrid").write_text(LONG_GRID)


def test_lebel_gives_stories_with_their_clock_splits_repeats_and_words(tmp_path, capsys):
    lebel(tmp_path / "raw")
    assert convert_lebel.main(["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out")]) == 0
    assert "UTS03: 3 stories, at most 1 voxels without signal (zero)" in capsys.readouterr().out
    run = read_run(tmp_path / "out", "UTS03", "wheretheressmoke", with_repeats=True)
    assert (run.split, run.repeats.shape, run.tr_times_s[0], run.tr_times_s[-1]) == ("test", (5, 30, 4), 10.0, 68.0)
    assert read_run(tmp_path / "out", "UTS03", "itsabox").split == "validation"
    assert (run.responses[:, 2] == 0).all() and (run.responses[:, 1] != 0).all()
    words = read_words(tmp_path / "out", "avatar")
    assert [(i.start_s, i.stop_s, i.text) for i in words["word"]] == [(0.0, 1.5, "hello")]
    assert [i.text for i in words["phone"]] == ["HH"]


def test_lebel_refuses_a_run_of_another_length(tmp_path, capsys):
    lebel(tmp_path / "raw", volumes=29)
    assert convert_lebel.main(["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out")]) == 2
    assert "holds 29 volumes; a scan of 50 leaves 30" in capsys.readouterr().err


def test_the_short_format_of_textgrids_is_read_too(tmp_path):
    (tmp_path / "a.TextGrid").write_text(SHORT_GRID)
    (interval,) = read_textgrid(tmp_path / "a.TextGrid")["word"]
    assert (interval.start_s, interval.stop_s, interval.text) == (0.25, 1.5, "hi")
    (tmp_path / "b.TextGrid").write_text("nothing")
    with pytest.raises(ValueError, match="no interval tiers"):
        read_textgrid(tmp_path / "b.TextGrid")


def test_confounds_leave_nothing_of_themselves():
    rng = np.random.default_rng(0)
    drift, signal = rng.normal(size=(60, 2)), rng.normal(size=(60, 3))
    clean = remove_confounds(signal + 10 * drift @ rng.normal(size=(2, 3)), drift, "run")
    assert np.abs(drift.T @ clean).max() < 1e-3
    np.testing.assert_allclose(clean.std(axis=0), 1.0, atol=1e-5)


def narratives(folder: Path, people=("sub-001", "sub-002")) -> None:
    rng = np.random.default_rng(0)
    for person in people:
        func = folder / "derivatives" / "fmriprep" / person / "func"
        func.mkdir(parents=True)
        for side, vertices in (("L", 3), ("R", 2)):
            arrays = [nibabel.gifti.GiftiDataArray(rng.normal(size=vertices).astype(np.float32)) for _ in range(14)]
            nibabel.save(
                nibabel.gifti.GiftiImage(darrays=arrays),
                func / f"{person}_task-tale_space-fsaverage6_hemi-{side}.func.gii",
            )
        rows = ["trans_x\tcosine00"] + [f"{rng.normal()}\tn/a" for _ in range(14)]
        (func / f"{person}_task-tale_desc-confounds_timeseries.tsv").write_text("\n".join(rows))
    sound(folder, "tale_audio", 15.0)
    (folder / "code").mkdir()
    (folder / "code" / "scan_exclude.json").write_text(json.dumps({"tale": {"sub-002": ["sub-002_task-tale"]}}))
    align = folder / "stimuli" / "gentle" / "tale"
    align.mkdir(parents=True)
    words = [{"case": "success", "start": 0.5, "end": 1.0, "word": "Once"}, {"case": "not-found-in-audio"}]
    (align / "align.json").write_text(json.dumps({"words": words}))


def test_narratives_gives_both_hemispheres_and_leaves_out_excluded_scans(tmp_path, capsys):
    narratives(tmp_path / "raw")
    arguments = ["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out"), "--task", "tale"]
    clock = ["--onset_trs", "3", "--stimulus_trs", "10", "--confounds", "trans_x", "cosine*"]
    assert convert_narratives.main([*arguments, *clock]) == 0
    assert "1 participants; left out by scan_exclude.json: sub-002_task-tale" in capsys.readouterr().out
    run, test = (read_run(tmp_path / "out", "sub-001", name) for name in ("tale", "tale_test"))
    assert (run.responses.shape, test.responses.shape, run.space) == ((8, 5), (2, 5), "fsaverage6")
    assert (run.tr_times_s[0], test.tr_times_s[0]) == (0.0, 12.0)
    assert [i.text for i in read_words(tmp_path / "out", "tale")["word"]] == ["Once"]
    assert convert_narratives.main(arguments) == 2
    assert "clock of 'tale' is not known" in capsys.readouterr().err


def test_the_little_prince_needs_nine_sections_of_enough_volumes(tmp_path, capsys):
    rng = np.random.default_rng(0)
    for number in range(1, 10):
        sound(tmp_path / "raw", f"task-lppEN_section-{number}", 6.0)
        values = rng.normal(size=(2, 2, 1, 8))
        values[0, 0] = 0.0
        nifti(
            tmp_path / f"raw/derivatives/sub-EN057/func/sub-EN057_task-lppEN_run-{number + 14}_space-MNIColin27_"
            "desc-preproc_bold.nii.gz",
            values,
        )
    arguments = ["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out")]
    assert convert_little_prince.main(arguments) == 0
    assert "1 participants, 9 sections, 3 voxels" in capsys.readouterr().out
    run = read_run(tmp_path / "out", "sub-EN057", "EN_section9")
    assert (run.split, run.responses.shape, run.tr_times_s.tolist()) == ("test", (3, 3), [0.0, 2.0, 4.0])
    next((tmp_path / "raw/derivatives/sub-EN057/func").glob("*run-20_*")).unlink()
    assert convert_little_prince.main(arguments) == 2
    assert "sub-EN057 has 8 runs" in capsys.readouterr().err


def test_any_bids_data_set_is_read_by_its_events(tmp_path, capsys):
    func = tmp_path / "raw" / "sub-01" / "func"
    nifti(func / "sub-01_task-listen_bold.nii.gz", np.random.default_rng(0).normal(size=(2, 1, 1, 10)))
    (func / "sub-01_task-listen_bold.json").write_text('{"RepetitionTime": 1.5}')
    (func / "sub-01_task-listen_events.tsv").write_text(
        "onset\tduration\tstim_file\n2.0\t6\ttale.wav\n9\t1\tcross.png\n"
    )
    sound(tmp_path / "raw", "tale", 6.0)
    arguments = ["--input_dir", str(tmp_path / "raw"), "--output_dir", str(tmp_path / "out"), "--test", "tale"]
    assert convert_bids_stories.main(arguments) == 0
    run = read_run(tmp_path / "out", "sub-01", "tale")
    assert (run.split, run.tr_s, run.tr_times_s.tolist()) == ("test", 1.5, [1.0, 2.5, 4.0])
    sound(tmp_path / "raw", "tale", 20.0)
    assert convert_bids_stories.main(arguments) == 2
    assert "needs 14 volumes, the run has 10" in capsys.readouterr().err


def sphere(points: int, seed: int) -> np.ndarray:
    values = np.random.default_rng(seed).normal(size=(points, 3))
    return 100 * values / np.linalg.norm(values, axis=1, keepdims=True)


def surfaces(person: Path, average: Path, areas, labels) -> np.ndarray:
    """A participant's cortex along the first axis, 0 to 4, and a template with these areas in another order."""
    write = nibabel.freesurfer
    faces = np.array([[0, 1, 2]])
    table = np.array([[i, i, i, 0, i * 65793] for i in range(len(areas) + 1)])
    for folder in (person / "surf", average / "surf", average / "label"):
        folder.mkdir(parents=True, exist_ok=True)
    count = len(labels)
    registered, order = sphere(count, 0), np.random.default_rng(1).permutation(count)
    places = np.stack([np.linspace(0, 4, count), np.full(count, 0.8), np.full(count, 0.8)], axis=1)
    for side in ("lh", "rh"):
        write.write_geometry(person / "surf" / f"{side}.white", places - 0.1, faces)
        write.write_geometry(person / "surf" / f"{side}.pial", places + 0.1, faces)
        write.write_geometry(person / "surf" / f"{side}.sphere.reg", registered, faces)
        write.write_geometry(average / "surf" / f"{side}.sphere.reg", registered[order], faces)
        names = ["???", *(f"{side[0].upper()}_{area}_ROI" for area in areas)]
        path = average / "label" / f"{side}.HCP-MMP1.annot"
        write.write_annot(path, np.array(labels), table, names, fill_ctab=True)
    return order


def test_projection_takes_the_middle_of_the_cortex_at_the_registered_place(tmp_path):
    order = surfaces(tmp_path / "person", tmp_path / "average", ["A1", "V1"], [1, 1, 2, 0, 1, 2])
    mask = np.ones((6, 3, 3))
    nifti(tmp_path / "mask.nii.gz", mask)
    # BOLD that equals the first coordinate is projected to the first coordinate.
    first = np.broadcast_to(np.arange(6.0)[:, None, None], (6, 3, 3)).ravel().astype(np.float32)
    from bit_speech.data.story_runs import StoryRun

    run = StoryRun("p", "tale", "train", np.stack([first, 2 * first]), np.array([0.0, 2.0]), 2.0, "native", "t", "CC0")
    write_run(tmp_path / "in", run)
    write_story(tmp_path / "in", "tale", first[:16])
    settings = {
        "participant": "p", "freesurfer": str(tmp_path / "person"), "fsaverage": str(tmp_path / "average"),
        "mask": str(tmp_path / "mask.nii.gz"), "regions": "all",
    }  # fmt: skip
    said = project_to_fsaverage.project(str(tmp_path / "in"), str(tmp_path / "out"), **settings)
    assert said == "p: 1 stories, 10 vertices, 0 of them outside the mask (zero)"
    found = read_run(tmp_path / "out", "p", "tale")
    expected = 0.8 * order[[0, 1, 2, 4, 5]]
    np.testing.assert_allclose(found.responses[0], np.tile(expected, 2), atol=1e-5)
    content = json.loads((tmp_path / "out" / "areas.json").read_text())
    assert content["areas"] == ["A1", "A1", "V1", "A1", "V1"] * 2
    assert content["vertices"][5:] == [6, 7, 8, 10, 11]
    assert list_runs(tmp_path / "out") == {"p": ["tale"]}
    assert read_story(tmp_path / "out", "tale").shape == (16,)
    with pytest.raises(ValueError, match="no area 44"):
        project_to_fsaverage.project(str(tmp_path / "in"), str(tmp_path / "o"), **(settings | {"regions": "paper"}))
