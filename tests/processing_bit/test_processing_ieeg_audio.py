import numpy as np
import pytest

import bit_speech  # noqa: F401  (registers the classes)
from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor, robust_statistics
from processing_bit.processing_ieeg_audio import IEEGAudioProcessor


def extractor(**changes):
    settings = {"participants": {"s1": 2}, "sampling_rate_hz": 10, "window_s": 1.0, **changes}
    return IEEGFeatureExtractor(**settings)


def recording(bins=95, seed=0):
    return np.random.default_rng(seed).normal([5.0, -3.0], [2.0, 0.1], size=(bins, 2)).astype(np.float32)


def test_windows_are_scaled_by_the_training_recordings_and_clamped():
    extractor_ = extractor(clamp=3.0)
    extractor_.fit({"s1": [recording(200, 1), recording(200, 2)]})
    values = recording()
    values[7, 0] = 1e6
    batch = extractor_(values)
    both = np.concatenate([recording(200, 1), recording(200, 2)])
    expected = (values - np.median(both, axis=0)) / np.subtract(*np.percentile(both, [75, 25], axis=0))
    np.testing.assert_allclose(batch["input_features"].reshape(-1, 2), expected[:90].clip(-3, 3), rtol=1e-4, atol=1e-4)
    assert batch["input_features"].shape == (9, 10, 2) and batch["input_features"].max() == 3.0


def test_a_channel_that_does_not_vary_becomes_zeros():
    extractor_ = extractor()
    flat = recording()
    flat[:, 1] = 7.0
    extractor_.fit({"s1": [flat]})
    assert not extractor_(flat)["input_features"][..., 1].any()


def test_running_scaling_never_reads_the_future_and_follows_a_step():
    extractor_ = extractor(normalization="running", running_s=20.0)
    values = recording(2000)
    values[800:] += 100.0
    scaled = extractor_.scale(values)
    changed = values.copy()
    changed[1000:] = 0.0
    np.testing.assert_array_equal(extractor_.scale(changed)[:1000], scaled[:1000])
    fixed = extractor()
    fixed.fit({"s1": [values[:800]]})
    assert abs(scaled[1200:, 0].mean()) < 0.2 and fixed.scale(values)[1200:, 0].mean() > 10


def test_everything_survives_saving(tmp_path):
    first = extractor(sessions=["d1", "d2"], channel_positions={"s1": [[0.0, 0.1, 0.0], [0.01, float("nan"), 0.0]]})
    first.fit({"s1": [recording()]})
    processor = IEEGAudioProcessor(first, target_settings={"kind": "log_mel"})
    processor.fit_targets(np.random.default_rng(0).normal(size=(5, 3)))
    processor.save_pretrained(tmp_path)
    again = IEEGAudioProcessor.from_pretrained(tmp_path)
    assert again.target_settings == {"kind": "log_mel"}
    arguments = {"recording": recording(), "audio_features": np.ones((9, 3)), "session_id": "d2"}
    before, after = processor(**arguments), again(**arguments)
    assert set(before) == set(after)
    for name, value in before.items():
        np.testing.assert_array_equal(value, after[name])
    assert before["session_index"].tolist() == [1] * 9
    assert processor(recording(), session_id="d9")["session_index"].tolist() == [-1] * 9


def test_targets_are_scored_by_the_training_windows():
    processor = IEEGAudioProcessor(extractor())
    processor.fit_targets([[0.0, 4.0], [2.0, 4.0]])
    np.testing.assert_allclose(processor.normalize_targets([[5.0, 4.0]]), [[4.0, 0.0]])


def test_the_quartiles_are_those_of_numpy():
    center, spread = robust_statistics(np.array([[0.0], [1.0], [2.0], [10.0]]))
    assert (center[0], spread[0]) == (1.5, 3.25)


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda e: e(recording()), "fit"),
        (lambda e: e.fit({"s1": []}), "no training recording"),
        (lambda e: e.fit({"s9": [recording()]}), "s9"),
        (lambda e: e.scale(recording().T), "transposed|expected"),
        (lambda e: e.scale(np.full((20, 2), np.nan)), "bin 0, channel 0"),
        (lambda e: e.__class__(normalization="day"), "day"),
        (lambda e: e.__class__(clamp=0), "clamp is 0"),
        (lambda e: IEEGAudioProcessor(e)(), "Nothing"),
        (lambda e: IEEGAudioProcessor(e)(audio=1), "audio"),
        (lambda e: IEEGAudioProcessor(e).normalize_targets([[1.0]]), "fit_targets"),
        (lambda e: IEEGAudioProcessor(e).fit_targets([[1.0]]), "at least 2"),
        (lambda e: IEEGAudioProcessor(e, [0.0], [1.0])(audio_features=[[1.0, 2.0]]), "width 2"),
    ],
)
def test_what_cannot_be_used_is_refused_with_a_remedy(call, named):
    with pytest.raises(ValueError, match=named):
        call(extractor())


def test_a_recording_shorter_than_a_window_is_refused():
    extractor_ = extractor()
    extractor_.fit({"s1": [recording()]})
    with pytest.raises(ValueError, match="9 bins, a window 10"):
        extractor_(recording(9))


def test_places_come_with_every_window_and_survive_saving(tmp_path):
    places = {
        "channel_positions": {"s1": [[0.0, 0.01, 0.02], [float("nan")] * 3]},
        "channel_regions": {"s1": ["44", "?"]},
    }
    extractor = IEEGFeatureExtractor(participants={"s1": 2}, window_s=0.5, regions=["A1", "44"], **places)
    extractor.fit({"s1": [np.random.default_rng(0).normal(size=(60, 2))]})
    extractor.save_pretrained(tmp_path)
    batch = IEEGFeatureExtractor.from_pretrained(tmp_path)(np.zeros((40, 2)))
    assert batch["channel_regions"].tolist() == [[1, -1], [1, -1]]
    np.testing.assert_allclose(batch["channel_positions"][1, 0], [0.0, 0.01, 0.02])
    with pytest.raises(ValueError, match="channel_regions has 1 entries of 's1'"):
        IEEGFeatureExtractor(participants={"s1": 2}, channel_regions={"s1": ["A1"]})
