import numpy as np
import pytest
from scipy import signal

from bit_speech.data.ieeg_preprocessing import (
    FilterAndResample,
    IEEGPreprocessing,
    bipolar_pairs,
    find_bad_channels,
    preprocess,
)
from bit_speech.data.ieeg_recordings import ArrayRecording

RATE = 512.0
# The same edge and fall, designed by scipy at the common multiple of both rates: 18 +- 2 Hz, 60 dB.
EDGE = signal.firwin(2321, 18.0, fs=RATE * 5, window=("kaiser", 0.1102 * (60 - 8.7)))


def tones(frequencies, seconds=60.0, rate=RATE):
    time = np.arange(round(seconds * rate)) / rate
    return np.stack([np.cos(2 * np.pi * frequency * time) for frequency in frequencies]).astype(np.float32)


def gains(settings, frequencies, rate=RATE, seconds=60.0):
    """Amplitude of what comes out over that of what goes in, in the middle of the recording."""
    values, _ = preprocess(ArrayRecording(tones(frequencies, seconds, rate), rate), settings)
    middle = values[len(values) // 4 : -len(values) // 4]
    return np.sqrt(2) * middle.std(axis=0), middle.mean(axis=0)


def test_the_band_of_the_low_stream_is_that_of_the_specification():
    low, _ = gains(IEEGPreprocessing(), [0.15, 1.0, 5.0, 10.0, 15.0, 22.0, 30.0, 50.0, 60.0, 200.0], seconds=200.0)
    np.testing.assert_allclose(low[:5], 1.0, atol=0.01)
    assert (low[5:] < 0.003).all()  # -50 dB: nothing folds back


def test_drift_below_the_band_is_taken_out():
    time = np.arange(round(300 * RATE)) / RATE
    slow = (1000 + 50 * np.sin(2 * np.pi * 0.005 * time))[None].astype(np.float32)
    values, _ = preprocess(ArrayRecording(slow, RATE), IEEGPreprocessing())
    assert np.abs(values[4000:-4000]).max() < 0.5


def test_the_mains_and_its_multiples_are_taken_out_where_the_band_holds_them():
    wide = IEEGPreprocessing(high_hz=90.0, output_hz=250.0, notch_hz=50.0)
    kept, _ = gains(wide, [20.0, 45.0, 55.0, 80.0])
    np.testing.assert_allclose(kept, 1.0, atol=0.02)
    without = IEEGPreprocessing(high_hz=90.0, output_hz=250.0, notch_hz=None)
    assert gains(wide, [50.0])[0] < 0.01 < 0.9 < gains(without, [50.0])[0]
    inside, mains = gains(IEEGPreprocessing(stream="gamma", notch_hz=50.0), [90.0, 100.0])[1]
    assert inside == pytest.approx(1.0, abs=0.01) and mains < 0.01


def test_the_envelope_is_that_of_the_hilbert_transform():
    rng = np.random.default_rng(0)
    time = np.arange(round(40 * RATE)) / RATE
    carrier = np.cos(2 * np.pi * 93.0 * time) * (2 + np.sin(2 * np.pi * 1.5 * time)) + 3 * rng.normal(size=len(time))
    settings = IEEGPreprocessing(stream="gamma", notch_hz=None)
    ours, _ = preprocess(ArrayRecording(carrier[None].astype(np.float32), RATE), settings)
    band = signal.firwin(613, (70, 120), width=5, fs=RATE, pass_zero=False)
    envelope = np.abs(signal.hilbert(np.convolve(carrier, band, "same")))
    reference = signal.resample_poly(envelope, 5, 64, window=EDGE)[: len(ours)]
    assert np.corrcoef(ours[100:-100, 0], reference[100:-100])[0, 1] > 0.99
    assert ours[100:-100].mean() == pytest.approx(reference[100:-100].mean(), rel=0.02)


@pytest.mark.parametrize("stream", ["low", "gamma", "both"])
@pytest.mark.parametrize("rate", [512.0, 600.0])
def test_pieces_of_any_size_give_the_numbers_of_the_whole_file(stream, rate):
    values = np.random.default_rng(0).normal(size=(4, round(150.3 * rate))).cumsum(axis=1).astype(np.float32)
    recording = ArrayRecording(values, rate, ["A1", "A2", "B1", "B2"])
    settings = IEEGPreprocessing(stream=stream, reference="bipolar")
    whole, names = preprocess(recording, settings, chunk_s=1000.0)
    pieces, _ = preprocess(recording, settings, chunk_s=0.7)
    assert whole.shape == (int(values.shape[1] * 40 / rate), len(names))
    np.testing.assert_allclose(pieces, whole, atol=1e-6 * np.abs(whole).max())


def test_the_low_stream_equals_an_independent_filter_of_the_whole_file():
    values = np.random.default_rng(1).normal(size=(2, round(60 * RATE))).astype(np.float32)
    ours, _ = preprocess(ArrayRecording(values, RATE), IEEGPreprocessing(low_hz=0.0))
    reference = signal.resample_poly(values, 5, 64, axis=1, window=EDGE)[:, 200 : len(ours) - 200].T
    np.testing.assert_allclose(ours[200:-200], reference, atol=0.01 * reference.std())


def test_references_combine_the_good_channels_of_a_shaft():
    values = tones([3.0, 3.0, 5.0, 7.0], 20.0) * np.array([[3.0], [1.0], [1.0], [1.0]], np.float32)
    recording = ArrayRecording(values, RATE, ["A1", "A2", "A3", "B1"])
    _, names = preprocess(recording, IEEGPreprocessing(reference="bipolar"))
    assert names == ["A1-A2", "A2-A3"]
    with pytest.raises(ValueError, match="neighbours"):
        preprocess(recording, IEEGPreprocessing(reference="bipolar"), bad_channels=["A2"])
    plain, _ = preprocess(recording, IEEGPreprocessing(low_hz=0.0), bad_channels=["A3"])
    average, names = preprocess(recording, IEEGPreprocessing(low_hz=0.0, reference="average"), bad_channels=["A3"])
    assert names == ["A1", "A2", "B1"]
    np.testing.assert_allclose(average, plain - plain.mean(axis=1, keepdims=True), atol=1e-5)


def test_pairs_are_neighbours_of_one_shaft():
    names = ["EEG TP1-Ref", "EEG TP2-Ref", "TP'1", "TP'2", "TP4", "ECG", "10"]
    assert bipolar_pairs(names) == [(0, 1), (2, 3)]


def test_the_result_can_be_written_instead_of_held(tmp_path):
    recording = ArrayRecording(tones([3.0, 7.0], 10.0), RATE)
    held, _ = preprocess(recording, IEEGPreprocessing())
    written, _ = preprocess(recording, IEEGPreprocessing(), output=tmp_path / "low.npy")
    assert isinstance(written, np.memmap) and np.array_equal(written, held)
    assert [path.name for path in tmp_path.iterdir()] == ["low.npy"]


def test_flat_and_loud_channels_are_suspects():
    values = np.random.default_rng(0).normal(size=(1000, 6)) * [1, 1, 0, 1, 40, 1.5]
    assert find_bad_channels(values, list("abcdef")) == ["c", "e"]


@pytest.mark.parametrize(
    "call, named",
    [
        (lambda: IEEGPreprocessing(stream="high"), "high"),
        (lambda: IEEGPreprocessing(low_hz=60.0), "60"),
        (lambda: IEEGPreprocessing(reference="ring"), "ring"),
        (lambda: FilterAndResample(100.0, 40.0, 60.0, 5.0), "100"),
        (lambda: preprocess(ArrayRecording(np.zeros((2, 5)), RATE), IEEGPreprocessing()), "too short"),
        (lambda: preprocess(ArrayRecording(np.zeros((1, 999)), RATE), IEEGPreprocessing(), ["x"]), "'x'"),
        (lambda: preprocess(ArrayRecording(np.zeros((1, 999)), RATE), IEEGPreprocessing(), ["ch0"]), "every channel"),
        (lambda: preprocess(ArrayRecording(np.zeros((1, 999)), 160.0), IEEGPreprocessing(stream="gamma")), "160"),
        (lambda: ArrayRecording(np.zeros((2, 5)), RATE, ["a"]), "1 names"),
    ],
)
def test_what_cannot_be_done_is_refused(call, named):
    with pytest.raises(ValueError, match=named):
        call()
