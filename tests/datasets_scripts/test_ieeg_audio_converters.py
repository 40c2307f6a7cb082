import json

import h5py
import numpy as np
import pytest
from scipy.io import wavfile

from bit_speech.cli import main as cli
from bit_speech.data.aligned_segments import load_segments, make_windows
from bit_speech.data.audio_features import LogMelFeatures
from bit_speech.data.clocks import envelope, estimate_clock
from bit_speech.data.ieeg_recordings import write_edf
from datasets_scripts import convert_brain_treebank, convert_own_ieeg_audio
from datasets_scripts.aligned_recordings import AlignedFile, choose_splits, cut_blocks, sound_time

RATE, AUDIO_HZ = 256, 8000


def loudness(seconds, seed=0):
    """A slow random loudness, 10 values a second."""
    return np.repeat(np.random.default_rng(seed).uniform(0, 1, int(10 * seconds) + 1), 1) ** 2


def sound(times, level, seed=1):
    """Noise with this loudness at these seconds."""
    noise = np.random.default_rng(seed).normal(size=len(times))
    return np.interp(times, np.arange(len(level)) / 10, level) * noise


def make_pair(folder, name, seconds=200.0, offset=7.25, drift_ppm=200.0, seed=0, sync=True):
    """EDF whose channels follow the loudness at once, and a WAV that begins `offset` s earlier on a faster clock."""
    level = loudness(seconds + 60, seed)
    ieeg_times = np.arange(round(seconds * RATE)) / RATE
    follows = np.interp(ieeg_times + 20, np.arange(len(level)) / 10, level)
    rng = np.random.default_rng(seed)
    channels = 1e-5 * (follows[None] * [[3.0], [2.0], [-2.0]] + 0.1 * rng.normal(size=(3, len(ieeg_times))))
    names = ["A1", "A2", "B1"]
    if sync:
        channels = np.concatenate([channels, 1e-4 * sound(ieeg_times + 20, level, seed=5)[None]])
        names.append("DC1")
    write_edf(folder / f"{name}.edf", channels, RATE, names)
    sound_times = np.arange(round((seconds + 15) * AUDIO_HZ)) / AUDIO_HZ
    world = (sound_times - offset) / (1 + 1e-6 * drift_ppm)
    audio = sound(world + 20, level)
    wavfile.write(folder / f"{name}.wav", AUDIO_HZ, (8000 * audio).clip(-32767, 32767).astype(np.int16))


def follows_the_sound(folder):
    """Correlation of the first channel's second-long means with the loudness of the aligned sound."""
    windows = make_windows(load_segments(folder), LogMelFeatures(8), window_s=0.5)
    loud = 10 ** (windows.targets.mean(axis=1) / 4)
    return abs(np.corrcoef(windows.ieeg[:, :, 0].mean(axis=1), loud)[0, 1])


def test_offset_and_drift_of_two_clocks_are_found():
    level, times = loudness(700), np.arange(0, 600 * 1000) / 1000
    reference = envelope(sound(times, level), 1000.0)
    late = (times + 30 - 12.5) / (1 + 150e-6)
    clock = estimate_clock(reference, envelope(sound(late, level, seed=3), 1000.0))
    # sound_s + 30 = 12.5 + (1 + 150e-6) ieeg_s
    assert clock.offset_s == pytest.approx(-17.5, abs=0.02) and clock.drift_ppm == pytest.approx(150, abs=25)
    assert clock.num_points >= 9 and clock.residual_s < 0.02


def test_the_clocks_of_other_sounds_do_not_match():
    reference, other = (envelope(sound(np.arange(200_000) / 1000, loudness(300, seed)), 1000.0) for seed in (1, 2))
    with pytest.raises(ValueError, match="stretches of sound match"):
        estimate_clock(reference, other)


def test_own_recordings_are_brought_to_one_clock(tmp_path, capsys):
    for number in range(3):
        make_pair(tmp_path, f"part{number}", seconds=95.0, seed=number, offset=3.0 + number, drift_ppm=400.0)
    entries = "".join(
        f"  - {{ieeg: part{i}.edf, audio: part{i}.wav, session: day1, sync_channel: DC1, bad_channels: [B1]}}\n"
        for i in range(3)
    )
    (tmp_path / "me.yaml").write_text(f"participant_id: p1\nrecordings:\n{entries}")
    out = tmp_path / "segments"
    assert cli(["convert", "own_ieeg_audio", "--config", str(tmp_path / "me.yaml"), "--output_dir", str(out)]) == 0
    assert "+3.0" in capsys.readouterr().out
    report = json.loads((out / "conversion.json").read_text())
    for number, entry in enumerate(report["files"]):
        assert entry["clock"]["offset_s"] == pytest.approx(3.0 + number, abs=0.02)
        assert entry["clock"]["drift_ppm"] == pytest.approx(400, abs=120)
    assert sorted(report["segments"]) == ["test", "train", "validation"] and sum(report["segments"].values()) == 9
    rows = list(load_segments(out))
    assert rows[0]["channel_names"] == ["A1", "A2"] and rows[0]["ieeg"].shape == (1200, 2)
    assert follows_the_sound(out) > 0.7
    before = {path: path.stat().st_mtime_ns for path in out.glob("data/*")}
    convert_own_ieeg_audio.main(["--config", str(tmp_path / "me.yaml"), "--output_dir", str(out), "--quiet"])
    assert before == {path: path.stat().st_mtime_ns for path in out.glob("data/*")}


def test_a_wrong_offset_would_be_noticed(tmp_path):
    make_pair(tmp_path, "part", seconds=125.0, sync=False, offset=3.0)
    for name, start in (("right", 3.0), ("wrong", 1.0)):
        (tmp_path / f"{name}.yaml").write_text(
            f"participant_id: p1\nrecordings:\n"
            f"  - {{ieeg: part.edf, audio: part.wav, session: d, audio_start_s: {start}, drift_ppm: 200}}\n"
        )
        arguments = ["--config", str(tmp_path / f"{name}.yaml"), "--output_dir", str(tmp_path / name), "--quiet"]
        assert convert_own_ieeg_audio.main(arguments) == 0
    assert follows_the_sound(tmp_path / "right") > 0.7 > 0.4 > follows_the_sound(tmp_path / "wrong")


def bids(folder, events, subjects=("01", "02")):
    """Two patients; the podcast begins 4 s into the recording."""
    for subject in subjects:
        place = folder / f"sub-{subject}" / "ieeg"
        place.mkdir(parents=True)
        make_pair(place, "x", offset=0.0, drift_ppm=0.0, sync=False)
        (place / "x.edf").rename(place / f"sub-{subject}_task-podcast_ieeg.edf")
        (folder / "stimuli").mkdir(exist_ok=True)
        (place / "x.wav").replace(folder / "stimuli" / "podcast.wav")
        (place / f"sub-{subject}_task-podcast_channels.tsv").write_text(
            "name\ttype\tunits\tstatus\nA1\tSEEG\tV\tgood\nA2\tSEEG\tV\tbad\nB1\tSEEG\tV\tgood\n"
        )
        (place / f"sub-{subject}_space-MNI_electrodes.tsv").write_text(
            "name\tx\ty\tz\nA1\t10\t-20\t30\nB1\tn/a\tn/a\tn/a\n"
        )
        (place / f"sub-{subject}_task-podcast_events.tsv").write_text(events)


def test_a_bids_folder_is_read_with_its_tables(tmp_path):
    bids(tmp_path / "ds", "onset\tduration\tstim_file\n0.0\t200\tpodcast.wav\n")
    out = tmp_path / "out"
    arguments = ["--input_dir", str(tmp_path / "ds"), "--output_dir", str(out), "--block_min", "1", "--quiet"]
    assert cli(["convert", "bids_ieeg_audio", *arguments]) == 0
    rows = list(load_segments(out))
    assert {row["participant_id"] for row in rows} == {"sub01", "sub02"}
    assert rows[0]["channel_names"] == ["A1", "B1"]
    np.testing.assert_allclose(rows[0]["channel_positions"][0], [0.01, -0.02, 0.03], atol=1e-6)
    assert np.isnan(rows[0]["channel_positions"][1]).all()
    splits = {}
    for row in rows:
        splits.setdefault(row["file_id"], set()).add(row["split"])
    assert all(len(found) == 1 for found in splits.values()) and len(splits) == 3
    assert follows_the_sound(out) > 0.7


def test_the_podcast_needs_no_events(tmp_path):
    bids(tmp_path / "ds", "onset\tduration\ttrial_type\n0.0\t200\tword\n")
    arguments = ["--input_dir", str(tmp_path / "ds"), "--output_dir", str(tmp_path / "out"), "--participants", "02"]
    assert cli(["convert", "podcast_ecog", *arguments, "--quiet", "--reference", "average"]) == 0
    assert {row["participant_id"] for row in load_segments(tmp_path / "out")} == {"sub02"}
    assert cli(["convert", "bids_ieeg_audio", *arguments, "--quiet"]) == 2


def treebank(root, movies):
    """One patient and one movie, which starts at second 5 of the recording and stands still at 60 for 20 s."""
    rate = convert_brain_treebank.RATE_HZ
    for name in ("electrode_labels/sub_1", "subject_metadata", "subject_timings"):
        (root / name).mkdir(parents=True)
    movies.mkdir()
    seconds = 130
    with h5py.File(root / "sub_1_trial000.h5", "w") as file:
        for index in range(4):  # the last has no name, as in the release
            values = np.random.default_rng(index).normal(size=int(seconds * rate)).astype("float32")
            file[f"data/electrode_{index}"] = values
    (root / "electrode_labels/sub_1/electrode_labels.json").write_text('["*T1", "T2#", "DC1"]')
    (root / "subject_metadata/sub_1_trial000_metadata.json").write_text('{"title": "A Movie", "filename": "a-movie"}')
    points = [(5, 0), (60, 55), (80, 55), (125, 100)]
    lines = "\n".join(f"trigger,{movie},{round(ieeg * rate)}" for ieeg, movie in points)
    (root / "subject_timings/sub_1_trial000_timings.csv").write_text(f"type,movie_time,index\n{lines}\n")
    wavfile.write(movies / "a-movie.wav", AUDIO_HZ, np.arange(100 * AUDIO_HZ, dtype=np.int64).astype(np.int16))


def test_a_treebank_movie_is_read_around_its_pause(tmp_path):
    root = tmp_path / "btb"
    treebank(root, root / "movies")
    arguments = ["--input_dir", str(root), "--movies", str(root / "movies"), "--output_dir", str(tmp_path / "out")]
    assert convert_brain_treebank.main([*arguments, "--quiet"]) == 0
    rows = list(load_segments(tmp_path / "out"))
    assert [row["start_s"] for row in rows] == [5.0, 95.0]
    assert rows[0]["channel_names"] == ["T1", "T2"] and rows[0]["session_id"] == "btb1.trial000"
    (root / "movies/a-movie.wav").unlink()
    assert convert_brain_treebank.main([*arguments, "--quiet"]) == 2


def test_blocks_leave_a_guard_between_splits():
    file = AlignedFile("p", "p.d", "f", None, None, [(0.0, 10.0), (300.0, 310.0)])
    blocks = cut_blocks(file, 100.0)
    assert [(block.clock[0][0], block.clock[-1][0]) for block in blocks] == [
        (0.0, 90.0),
        (110.0, 190.0),
        (210.0, 290.0),
    ]
    assert sound_time(blocks[1].clock, 150.0) == pytest.approx(160.0)


def test_every_condition_has_splits_of_its_own_and_names_are_given_once():
    def file(name, condition):
        return AlignedFile("p", "p.d", name, None, None, [], condition=condition)

    days, books = ([f"{kind}{i}" for i in range(count)] for kind, count in (("day", 9), ("book", 3)))
    files = [*(file(name, "ambient") for name in days), *(file(name, "clean") for name in books)]
    splits = choose_splits(files, seed=0)
    for names in (days, books):
        assert {splits["p", name] for name in names} == {"train", "validation", "test"}
    for condition in ("ambient", "clean"):
        with pytest.raises(ValueError, match="several recordings of the name 'day4'"):
            choose_splits([*files, file("day4", condition)], seed=0)


@pytest.mark.parametrize(
    "text, named",
    [
        ("participant_id: p1\n", "needs participant_id and recordings"),
        ("participant_id: p1\nrecordings: [{ieeg: a.edf, audio: b.wav, session: d, sound: 3}]\n", "'sound'"),
        (
            "participant_id: p1\nrecordings: [{ieeg: a.edf, audio: b.wav, session: d}]\n",
            "sync_channel or audio_start_s",
        ),
        ("participant_id: p1\nrecordings: [{ieeg: a.edf, audio: b.wav, session: d, audio_start_s: 0}]\n", "a.edf"),
    ],
)
def test_a_wrong_configuration_is_named(tmp_path, capsys, text, named):
    (tmp_path / "me.yaml").write_text(text)
    assert (
        convert_own_ieeg_audio.main(["--config", str(tmp_path / "me.yaml"), "--output_dir", str(tmp_path / "o")]) == 2
    )
    assert named in capsys.readouterr().err
