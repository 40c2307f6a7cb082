"""Story runs, their clocks and their files."""

import wave

import numpy as np
import pytest

from bit_speech.data.story_runs import StoryRun, list_runs, read_run, read_story, read_wav, write_run, write_story
from bit_speech.data.story_time import lanczos_resample, make_delays, scanner_times, trim, zscore
from bit_speech.data.text_features import WordVectors, count_phonemes
from configuration_bit.phoneme_inventory_bit import PHONEMES
from processing_bit.feature_extraction_story import StoryFeatureExtractor


def run(**values) -> StoryRun:
    responses = np.arange(12, dtype=np.float32).reshape(4, 3)
    facts = {
        "participant_id": "UTS01", "story_id": "avatar", "split": "train", "responses": responses,
        "tr_times_s": np.arange(4) * 2.0, "tr_s": 2.0, "space": "native", "source": "test", "licence": "CC0-1.0",
    }  # fmt: skip
    return StoryRun(**(facts | values))


def test_a_run_is_read_as_it_was_written(tmp_path):
    repeats = np.ones((2, 4, 3), np.float32)
    write_run(tmp_path, run(repeats=repeats))
    again = read_run(tmp_path, "UTS01", "avatar", with_repeats=True)
    np.testing.assert_array_equal(again.responses, run().responses)
    np.testing.assert_array_equal(again.repeats, repeats)
    assert (again.split, again.tr_s, again.space) == ("train", 2.0, "native")
    assert list_runs(tmp_path) == {"UTS01": ["avatar"]}
    with pytest.raises(FileNotFoundError, match="UTS01 has avatar"):
        read_run(tmp_path, "UTS01", "other")


@pytest.mark.parametrize(
    "values, message",
    [
        ({"responses": np.zeros((4, 3))}, "float64"),
        ({"responses": np.full((4, 3), np.nan, np.float32)}, "NaN"),
        ({"tr_times_s": np.arange(3.0)}, r"\(3,\) times for 4 TRs"),
        ({"split": "dev"}, "'dev'"),
        ({"story_id": "a/b"}, "'a/b'"),
        ({"repeats": np.zeros((2, 5, 3), np.float32)}, r"\(2, 5, 3\)"),
    ],
)
def test_what_is_no_run_is_refused_with_its_value(values, message):
    with pytest.raises(ValueError, match=message):
        run(**values)


def test_sound_survives_writing_and_other_rates_become_16_khz(tmp_path):
    audio = np.sin(np.arange(1600) / 10).astype(np.float32)
    write_story(tmp_path, "a", audio)
    np.testing.assert_allclose(read_story(tmp_path, "a"), audio, atol=1e-4)
    with wave.open(str(tmp_path / "stereo.wav"), "wb") as file:
        file.setnchannels(2)
        file.setsampwidth(2)
        file.setframerate(44100)
        file.writeframes(np.zeros((4410, 2), "<i2").tobytes())
    assert read_wav(tmp_path / "stereo.wav").shape == (1600,)
    with pytest.raises(ValueError, match="between -1 and 1"):
        write_story(tmp_path, "loud", 2 * audio)


def test_kept_volumes_begin_ten_seconds_into_the_story():
    times = trim(scanner_times(40))
    assert (times[0], len(times)) == (10.0, 25)


def test_low_pass_filtering_removes_what_the_scanner_cannot_follow():
    times = np.arange(0, 100, 0.1)
    fast, slow = np.sin(2 * np.pi * 2.0 * times), np.sin(2 * np.pi * 0.02 * times)
    new = np.arange(20, 80, 2.0)
    found = lanczos_resample(np.stack([fast, slow], axis=1), times, new, normalized=True)
    assert np.abs(found[:, 0]).max() < 0.02
    np.testing.assert_allclose(found[:, 1], np.sin(2 * np.pi * 0.02 * new), atol=0.02)


def test_the_published_kernel_is_a_product_of_two_sincs_without_normalisation():
    found = lanczos_resample(np.ones((1, 1)), np.array([1.0]), np.array([0.0, 2.0, 4.0, 9.0]))
    rate = 3.0  # mean distance of the new times
    expected = [np.sinc(t / rate) * np.sinc(t / rate / 3) for t in (1.0, 1.0, 3.0, 8.0)]
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-12)


def test_delays_look_back_and_never_across_the_start():
    values = np.array([[1.0], [2.0], [3.0]])
    assert make_delays(values, (1, 2)).tolist() == [[0, 0], [1, 0], [2, 1]]
    assert make_delays(values, (-1, 5)).tolist() == [[2, 0], [3, 0], [0, 0]]


def test_constant_columns_are_zero_after_z_scoring():
    found = zscore(np.stack([np.full(5, 0.1), np.arange(5.0)], axis=1))
    assert (found[:, 0] == 0).all() and found[:, 1].std() == pytest.approx(1.0)


def test_clips_end_in_the_middle_of_their_volume_and_start_with_silence():
    audio = np.arange(1, 5 * 16000 + 1, dtype=np.float32)
    clips = StoryFeatureExtractor(clip_s=2.0, normalization="none")(audio, [0.0, 2.0]).input_values
    assert (clips[0, :16000] == 0).all() and clips[0, -1] == 16000
    np.testing.assert_array_equal(clips[1], audio[16000:48000])


def test_each_clip_is_normalised_alone_unless_the_released_way_is_asked_for():
    audio = np.concatenate([0.01 * np.sin(np.arange(32000)), np.sin(np.arange(32000))]).astype(np.float32)
    times = [1.0, 3.0]
    alone = StoryFeatureExtractor(clip_s=2.0)(audio, times).input_values
    together = StoryFeatureExtractor(clip_s=2.0, normalization="batch")(audio, times).input_values
    np.testing.assert_allclose(alone.std(axis=1), 1.0, atol=1e-2)
    assert together[0].std() < 0.05


def test_windows_hear_the_past_only_and_as_much_as_there_is():
    extractor = StoryFeatureExtractor(window_s=1.0, stride_s=0.5, normalization="none")
    audio = np.arange(32000, dtype=np.float32)
    windows = extractor.windows(audio, extractor.window_ends(len(audio)))
    assert [len(window) for window in windows] == [8000, 16000, 16000, 16000]
    assert [window[-1] for window in windows] == [7999, 15999, 23999, 31999]


def test_sounds_of_words_are_counted_by_tr():
    found = count_phonemes(["see", "", "zzyzzx"])
    assert {PHONEMES[i]: found[0, i] for i in np.flatnonzero(found[0])} == {"S": 1.0, "IY": 1.0}
    assert found[1:].sum() == 0


def test_words_in_the_same_company_have_like_vectors():
    rng = np.random.default_rng(0)
    animals, tools, verbs = ["cat", "dog"], ["saw", "axe"], {"cat": "eats", "dog": "eats", "saw": "cuts", "axe": "cuts"}
    words = rng.choice(animals + tools, 400)
    vectors = WordVectors([f"the {word} {verbs[word]} {'fish' if word in animals else 'wood'}" for word in words], 3)
    cat, dog, axe = vectors(["cat", "dog", "axe"])
    assert cat @ dog > 0.9 > 0.5 > cat @ axe
    assert vectors.lexical(["the unknown"])[0, 2] == 1
