import numpy as np
import pytest

from bit_speech.data.aligned_segments import (
    WindowSet,
    check_segment_leakage,
    load_segments,
    make_windows,
    split_files,
    take_hours,
    validate_segment,
    write_segments,
)
from bit_speech.data.audio_features import (
    CachedFeatures,
    LogMelFeatures,
    SpeechModelFeatures,
    resample_audio,
    speech_share,
    window_means,
)
from bit_speech.data.window_targets import frame_targets


def test_frames_of_another_source_are_averaged_over_their_windows(tmp_path):
    windows = make_windows([segment()], LogMelFeatures(4))
    np.save(tmp_path / "f0.npy", np.arange(12.0)[:, None])  # two a second, windows of 3 s
    assert frame_targets(windows, tmp_path, 2.0).tolist() == [[2.5], [8.5]]
    with pytest.raises(ValueError, match="holds 4.0 s at 3.0 Hz, a window ends at 6.0 s"):
        frame_targets(windows, tmp_path, 3.0)
    with pytest.raises(FileNotFoundError, match="f0.npy is missing"):
        frame_targets(windows, tmp_path / "elsewhere", 2.0)
    np.save(tmp_path / "f0.npy", np.arange(12.0))
    with pytest.raises(ValueError, match=r"\(12,\), expected"):
        frame_targets(windows, tmp_path, 2.0)


def segment(seed=0, **changes):
    rng = np.random.default_rng(seed)
    return {
        "participant_id": "p1",
        "session_id": "p1.day0",
        "file_id": "f0",
        "segment_index": 0,
        "start_s": 0.0,
        "split": "train",
        "condition": "ambient",
        "ieeg": rng.normal(size=(240, 3)).astype(np.float32),
        "sampling_rate_hz": 40.0,
        "channel_names": ["A1", "A2", "B1"],
        "channel_positions": None,
        "audio": rng.integers(-99, 99, 6 * 8000).astype(np.int16),
        "audio_rate_hz": 8000,
        "preprocessing": "{}",
        "source": "made up",
        "licence": "CC0-1.0",
        **changes,
    }


def test_segments_survive_a_file(tmp_path):
    rows = [segment(0), segment(1, channel_positions=[[0.0, 0.1, 0.2]] * 3)]
    assert write_segments(tmp_path / "data" / "x.parquet", rows) == 2
    for found, row in zip(load_segments(tmp_path), rows, strict=True):
        np.testing.assert_array_equal(found["ieeg"], row["ieeg"])
        np.testing.assert_array_equal(found["audio"], row["audio"])
        assert found["channel_names"] == row["channel_names"] and found["start_s"] == 0.0
    import datasets

    loaded = datasets.load_dataset(str(tmp_path), split="train", cache_dir=str(tmp_path / "cache"))
    assert np.asarray(loaded.with_format("numpy")[1]["ieeg"]).shape == (240, 3)


def test_nothing_is_left_of_a_file_that_was_refused(tmp_path):
    with pytest.raises(ValueError, match="NaN"):
        write_segments(tmp_path / "x.parquet", [segment(), segment(ieeg=np.full((240, 3), np.nan, np.float32))])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "changes, named",
    [
        ({"split": "dev"}, "'dev'"),
        ({"condition": "noisy"}, "'noisy'"),
        ({"ieeg": np.zeros((240, 3))}, "float64"),
        ({"audio": np.zeros(48000, np.float32)}, "float32"),
        ({"channel_names": ["A1"]}, "1 channel_names"),
        ({"audio": np.zeros(40000, np.int16)}, "audio 5.000 s"),
        ({"licence": ""}, "licence"),
        ({"more": 1}, "more"),
    ],
)
def test_a_wrong_segment_is_named(changes, named):
    with pytest.raises(ValueError, match=named):
        validate_segment(segment(**changes))


def test_files_are_split_whole_and_a_held_out_day_goes_to_test():
    files = [f"d{day}f{number}" for day in range(4) for number in range(5)]
    days = {name: name[:2] for name in files}
    split = split_files(files, seed=1, test_sessions=days, held_out=["d3"])
    assert all(split[name] == "test" for name in files if name.startswith("d3"))
    rest = [split[name] for name in files if not name.startswith("d3")]
    assert (rest.count("train"), rest.count("validation"), rest.count("test")) == (11, 2, 2)
    assert split == split_files(files, seed=1, test_sessions=days, held_out=["d3"]) != split_files(files, seed=2)
    with pytest.raises(ValueError, match="more than once"):
        split_files(["a", "a", "b"])
    with pytest.raises(ValueError, match="2 file"):
        split_files(["a", "b"])


def test_leaks_of_files_sounds_and_times_are_found():
    clean = [segment(0), segment(1, file_id="f1", split="test")]
    assert check_segment_leakage(clean).ok
    assert check_segment_leakage([segment(0), segment(1, split="test")]).files == ("f0",)
    assert check_segment_leakage([segment(0), segment(0, file_id="f1", split="test")]).sounds == 2
    assert check_segment_leakage([segment(0), segment(1, start_s=5.0, split="test")]).overlaps == 1
    silent = np.zeros(48000, np.int16)
    assert check_segment_leakage([segment(0, audio=silent), segment(1, file_id="f1", split="test", audio=silent)]).ok


def test_windows_can_be_kept_chosen_and_cut_to_hours(tmp_path):
    rows = [segment(number, file_id=f"f{number}") for number in range(6)]
    windows = make_windows(rows, LogMelFeatures(8))
    assert len(windows) == 12 and windows.hours == pytest.approx(36 / 3600)
    windows.save(tmp_path)
    again = WindowSet.load(tmp_path)
    assert isinstance(again.ieeg, np.memmap) and np.array_equal(again.targets, windows.targets)
    assert again.file.tolist() == windows.file.tolist()
    half = take_hours(again, 18 / 3600)
    assert sorted(set(half.file.tolist())) == ["f0", "f2", "f5"]
    with pytest.raises(ValueError, match="0 files"):
        take_hours(again, 1 / 3600)
    with pytest.raises(ValueError, match="no window"):
        windows.where(split="test")
    with pytest.raises(FileNotFoundError, match="windows.json"):
        WindowSet.load(tmp_path / "nothing")


def test_the_mean_of_a_window_is_that_of_its_frames():
    frames = np.arange(10.0)[:, None]
    np.testing.assert_allclose(window_means(frames, 2.5, 2.0, 2)[:, 0], [2.0, 7.0])
    with pytest.raises(ValueError, match="end before"):
        window_means(frames, 2.5, 2.0, 4)


def test_a_tone_is_loud_in_its_mel_band():
    time = np.arange(16000) / 16000
    low, high = (LogMelFeatures(20)(0.1 * np.sin(2 * np.pi * f * time), 16000)[0].mean(axis=0) for f in (200, 5000))
    assert low.argmax() < 4 and high.argmax() > 13


def test_speech_is_told_from_silence():
    rng = np.random.default_rng(0)
    quiet, loud = 1e-4 * rng.normal(size=16000), 0.05 * rng.normal(size=16000)
    found = speech_share(np.concatenate([quiet, loud, quiet]).astype(np.float32), 16000, 1.0, 3)
    assert found.tolist() == [0.0, 1.0, 0.0]


def test_features_come_from_the_cache_until_a_setting_changes(tmp_path):
    calls = []

    class Counting(LogMelFeatures):
        def __call__(self, audio, rate_hz):
            calls.append(len(audio))
            return super().__call__(audio, rate_hz)

    sound = np.random.default_rng(0).normal(size=8000).astype(np.float32)
    first, _ = CachedFeatures(Counting(8), tmp_path)(sound, 16000)
    second, rate = CachedFeatures(Counting(8), tmp_path)(sound, 16000)
    assert calls == [8000] and rate == 125.0 and np.array_equal(first, second)
    CachedFeatures(Counting(8), tmp_path)(sound + 1, 16000)
    CachedFeatures(Counting(9), tmp_path)(sound, 16000)
    assert len(calls) == 3


def test_a_layer_of_a_speech_model_is_brought_to_120_hz():
    import torch
    from transformers import Wav2Vec2Config, Wav2Vec2Model

    torch.manual_seed(0)
    config = Wav2Vec2Config(
        hidden_size=12,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=8,
        conv_dim=(8, 8),
        conv_stride=(5, 64),
        conv_kernel=(10, 64),
        num_conv_pos_embeddings=4,
        num_conv_pos_embedding_groups=2,
    )
    model = Wav2Vec2Model(config).eval()
    features = SpeechModelFeatures(model, layer=1)
    sound = np.random.default_rng(0).normal(size=31 * 16000).astype(np.float32)
    frames, rate = features(sound, 16000)
    assert frames.shape == (31 * 120, 12) and rate == 120.0
    chunk = sound[30 * 16000 :]
    chunk = (chunk - chunk.mean()) / chunk.std()
    with torch.no_grad():
        hidden = model(torch.from_numpy(chunk)[None], output_hidden_states=True).hidden_states[1][0]
    nearest = np.floor(np.arange(120) * len(hidden) / 120).astype(int)
    np.testing.assert_allclose(frames[30 * 120 :], hidden.numpy()[nearest], atol=1e-4)
    # The first chunk does not see the second.
    np.testing.assert_allclose(features(sound[: 30 * 16000], 16000)[0], frames[: 30 * 120], atol=1e-5)
    with pytest.raises(ValueError, match="layer is 3"):
        SpeechModelFeatures(model, layer=3)


def test_stereo_becomes_mono_at_the_wanted_rate():
    time = np.arange(44100) / 44100
    tone = np.sin(2 * np.pi * 440 * time)
    found = resample_audio(np.stack([tone, np.zeros_like(tone)], axis=1), 44100, 16000)
    np.testing.assert_allclose(
        found[500:-500], 0.5 * np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)[500:-500], atol=1e-3
    )
