import numpy as np
import pytest

from bit_speech.data.aligned_segments import check_segment_leakage, make_windows, validate_segment
from bit_speech.data.audio_features import LogMelFeatures
from bit_speech.simulation.ambient_sound import Language, Soundtrack, ambient_sound, narration
from bit_speech.simulation.continuous import ContinuousConfig, SimulatedPatient

SMALL = ContinuousConfig(num_channels=10, num_days=2, files_per_day=2, file_s=60.0, task_files=3)


def patient(seed=0, **changes):
    return SimulatedPatient(ContinuousConfig(**{**vars(SMALL), **changes}), seed)


def test_a_file_is_a_function_of_the_seed_alone():
    first, second = list(patient().segments("day1_file0")), list(patient().segments("day1_file0"))
    for a, b in zip(first, second, strict=True):
        assert np.array_equal(a["ieeg"], b["ieeg"]) and np.array_equal(a["audio"], b["audio"])
    other = next(patient(seed=1).segments("day1_file0"))
    assert not np.array_equal(first[0]["ieeg"], other["ieeg"])


def test_the_segments_are_valid_and_their_splits_share_nothing():
    one = patient()
    rows = [row for name in one.splits for row in one.segments(name)]
    for row in rows:
        validate_segment(row)
    assert check_segment_leakage(rows).ok
    assert {row["condition"] for row in rows} == {"ambient", "clean", "clean_in_room"}
    assert set(one.splits.values()) == {"train", "validation", "test"}


def test_the_brain_follows_the_sound_with_a_delay():
    one = patient(signal_to_noise=20.0, drift_per_day=0.0, responsive_share=0.9)
    sound = one.soundtrack("task_file0")
    ieeg = one.response("task_file0", sound)
    talking = (sound.phones[(np.arange(len(ieeg)) * 2.5).astype(int)] >= 0).astype(float)
    best = max(range(10), key=lambda channel: abs(np.corrcoef(ieeg[:, channel], talking)[0, 1]))
    lags = np.arange(-20, 21)
    follows = [abs(np.corrcoef(np.roll(ieeg[:, best], -lag), talking)[0, 1]) for lag in lags]
    assert max(follows) > 0.15 and 1 <= lags[int(np.argmax(follows))] <= 12  # 25 to 300 ms


def test_the_noise_is_flat_below_a_twentieth_of_a_hertz_at_every_rate():
    silence = Soundtrack(*np.zeros((2, 600 * 16_000), np.float32), np.full(600 * 100, -1))
    for rate in (10.0, 200.0):
        one = patient(sampling_rate_hz=rate, num_channels=40, offset_drift=0.0, file_s=600.0)
        noise = one.response("day0_file0", silence)
        power = (np.abs(np.fft.rfft(noise, axis=0)) ** 2).mean(axis=1)
        hertz = np.fft.rfftfreq(len(noise), 1 / rate)

        def mean(low: float, high: float, power=power, hertz=hertz) -> float:
            return float(power[(hertz >= low) & (hertz < high)].mean())

        assert 0.6 < mean(0.005, 0.02) / mean(0.03, 0.05) < 1.7
        assert 7 < mean(0.1, 0.2) / mean(1.0, 2.0) < 14


def test_what_is_not_heard_leaves_no_trace():
    one = patient(signal_to_noise=20.0, responsive_share=0.3)
    sound = one.soundtrack("task_file0")
    with_sound, deaf = one.response("task_file0", sound), one.response("task_file0", one.soundtrack("task_file1"))
    changed = np.abs(with_sound - deaf).max(axis=0) > 1e-6
    assert changed.sum() == 3


def test_tuning_and_offsets_drift_from_day_to_day():
    means = []
    for one in (patient(drift_per_day=0.0, offset_drift=0.0), patient(offset_drift=3.0)):
        files = [f"day{day}_file0" for day in range(2)]
        means.append([one.response(name, one.soundtrack(name)).mean(axis=0) for name in files])
    assert np.abs(means[1][0] - means[1][1]).mean() > 5 * np.abs(means[0][0] - means[0][1]).mean()


def test_the_room_is_silent_for_half_the_time_and_the_narrator_is_not():
    language, rng = Language(), np.random.default_rng(0)
    room = ambient_sound(language, 300.0, rng, speech_share=0.5)
    assert 0.3 < (room.phones >= 0).mean() < 0.7
    book = narration(language, 60.0, rng)
    assert (book.phones >= 0).mean() > 0.8 and book.dry[np.repeat(book.phones < 0, 160)].std() < 0.2 * book.dry.std()


def test_a_real_clip_is_played_where_the_truth_says_silence():
    clip = np.random.default_rng(1).normal(size=32000).astype(np.float32)
    rng = np.random.default_rng(0)
    track = ambient_sound(Language(), 60.0, rng, clips=[clip], clip_share=0.999)
    assert (track.phones >= 0).mean() < 0.1 and track.dry.std() > 0.01


def test_the_ideal_features_are_those_of_the_phones():
    one = patient()
    frames, sound = one.ideal_speech_features("task_file0", "clean_in_room"), one.soundtrack("task_file0")
    first, second = (frames[sound.phones == phone] for phone in (3, 4))
    assert np.linalg.norm(first.mean(axis=0) - second.mean(axis=0)) > 5
    clean = one.ideal_speech_features("task_file0", "clean")
    assert np.linalg.norm((clean - frames).mean(axis=0)) > 5  # clean sound lies apart


def test_windows_hold_the_right_part_of_both_signals():
    one = patient()
    rows = list(one.segments("day0_file0"))
    windows = make_windows(rows, LogMelFeatures(8), offset_s=0.15)
    assert windows.ieeg.shape == (2 * 9, 120, 10)
    assert np.array_equal(windows.ieeg[9], rows[1]["ieeg"][6:126])
    mel, _ = LogMelFeatures(8)(rows[1]["audio"].astype(np.float32) / 32768.0, 16000)
    np.testing.assert_allclose(windows.targets[9], mel[:375].mean(axis=0), rtol=1e-4)
    assert windows.start_s.tolist()[9] == 30.0


@pytest.mark.parametrize(
    "changes, named", [({"num_channels": 0}, "num_channels"), ({"speech_share": 1.0}, "1.0"), ({"file_s": 9.0}, "9.0")]
)
def test_an_impossible_patient_is_refused(changes, named):
    with pytest.raises(ValueError, match=named):
        patient(**changes)
