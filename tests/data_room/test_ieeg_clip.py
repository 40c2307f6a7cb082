"""Two seconds of real iEEG and two of real speech, through the whole road."""

from pathlib import Path

import numpy as np
import pytest
import torch

from bit_speech.data.audio_features import LogMelFeatures, speech_share, window_means
from bit_speech.data.ieeg_preprocessing import IEEGPreprocessing, preprocess
from bit_speech.data.ieeg_recordings import EDFRecording, MNERecording, open_recording, read_audio, write_edf
from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig
from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval
from processing_bit.feature_extraction_ieeg import IEEGFeatureExtractor
from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

CLIP = Path(__file__).parents[1] / "fixtures" / "ieeg_clip"


def test_our_reader_and_mne_read_the_same_numbers():
    own, other = EDFRecording(CLIP / "ieeg.edf"), MNERecording(CLIP / "ieeg.edf")
    assert own.channel_names == other.channel_names == [f"G{number}" for number in range(1, 11)]
    assert (own.sampling_rate_hz, own.num_samples) == (other.sampling_rate_hz, other.num_samples) == (2048.0, 4096)
    np.testing.assert_allclose(own.read(100, 3000), other.read(100, 3000), atol=1e-11)
    assert 5e-6 < own.read(0, 4096).std() < 1e-4  # volts


@pytest.mark.parametrize("preset", ["brainmagick", "neuralbench"])
@pytest.mark.parametrize("stream, channels", [("low", 9), ("gamma", 9), ("both", 18)])
def test_a_real_clip_and_real_speech_go_through_processing_and_model(preset, stream, channels):
    settings = IEEGPreprocessing(stream=stream, reference="bipolar", notch_hz=60.0)
    values, names = preprocess(open_recording(CLIP / "ieeg.edf"), settings)
    assert values.shape == (80, channels) and np.isfinite(values).all() and names[0] == "G1-G2"
    assert stream == "low" or (values[:, -9:] > 0).all()  # an envelope
    audio, rate = read_audio(CLIP / "speech.wav")
    frames, frame_rate = LogMelFeatures()(audio, rate)
    targets = window_means(frames, frame_rate, 0.5, 4)
    assert speech_share(audio, rate, 0.5, 4).max() > 0.3

    extractor = IEEGFeatureExtractor(participants={"p1": channels}, window_s=0.5)
    extractor.fit({"p1": [values]})
    processor = IEEGAudioProcessor(extractor)
    processor.fit_targets(targets)
    batch = processor(values, audio_features=targets, return_tensors="pt")
    assert batch["input_features"].shape == (4, 20, channels) and batch["input_features"].abs().max() <= 20
    config = IEEGAudioConfig.preset(preset, participants={"p1": channels}, embedding_size=40, hidden_size=16)
    output = IEEGAudioForRetrieval(config)(**batch)
    output.loss.backward()
    assert output.logits.shape == (4, 4) and bool(torch.isfinite(output.loss))


def test_part_of_a_sound_is_read_without_the_rest():
    whole, rate = read_audio(CLIP / "speech.wav")
    part, _ = read_audio(CLIP / "speech.wav", 0.5, 0.25)
    assert np.array_equal(part, whole[rate // 2 : rate // 2 + rate // 4])
    assert len(read_audio(CLIP / "speech.wav", 99.0, 1.0)[0]) == 0


def test_a_written_edf_is_read_back(tmp_path):
    values = np.random.default_rng(0).normal(scale=1e-4, size=(3, 700))
    write_edf(tmp_path / "x.edf", values, 256, ["A1", "A2", "DC1"])
    found = EDFRecording(tmp_path / "x.edf")
    assert found.num_samples == 512 and found.channel_names == ["A1", "A2", "DC1"]
    np.testing.assert_allclose(found.read(10, 500), values[:, 10:500], atol=6e-8)
    content = (tmp_path / "x.edf").read_bytes()
    (tmp_path / "short.edf").write_bytes(content[:-600])
    with pytest.raises(ValueError, match="ends after 1"):
        EDFRecording(tmp_path / "short.edf")
    with pytest.raises(ValueError, match="limit_uv"):
        write_edf(tmp_path / "y.edf", values + 1, 256, ["A1", "A2", "DC1"])


def test_what_is_no_recording_is_refused(tmp_path):
    (tmp_path / "x.edf").write_bytes(b"\xffBIOSEMI" + bytes(300))
    with pytest.raises(ValueError, match="no EDF"):
        open_recording(tmp_path / "x.edf")
    with pytest.raises(FileNotFoundError, match="gone"):
        open_recording(tmp_path / "gone.edf")
    with pytest.raises(FileNotFoundError, match="gone"):
        read_audio(tmp_path / "gone.wav")
