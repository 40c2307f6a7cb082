"""Features of causal windows equal those of a loop over windows, and never hear the future."""

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel, WhisperConfig, WhisperModel

from bit_speech.evaluation.story_features import can_share, story_features, window_features
from processing_bit.feature_extraction_story import StoryFeatureExtractor

AUDIO = np.random.default_rng(0).normal(size=24_000).astype(np.float32)


def body(kind: str = "wav2vec2", norm: str = "layer", **values) -> torch.nn.Module:
    torch.manual_seed(0)
    if kind != "data2vec-audio":
        values |= {"feat_extract_norm": norm, "num_conv_pos_embeddings": 8}
    config = AutoConfig.for_model(
        kind, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, conv_dim=[8, 8],
        conv_kernel=[10, 4], conv_stride=[80, 4], num_conv_pos_embedding_groups=2, **values,
    )  # fmt: skip
    return AutoModel.from_config(config).eval()


def loop(model, extractor, layers, audio=AUDIO) -> dict[int, np.ndarray]:
    """Every window alone through the whole model."""
    found = {layer: [] for layer in layers}
    for window in extractor.windows(audio, extractor.window_ends(len(audio))):
        with torch.no_grad():
            hidden = model(torch.from_numpy(window)[None], output_hidden_states=True).hidden_states
        for layer in layers:
            found[layer].append(hidden[layer][0, -1].numpy())
    return {layer: np.stack(rows) for layer, rows in found.items()}


@pytest.mark.parametrize(
    "kind, norm, normalization, shared",
    [
        ("wav2vec2", "layer", "none", True),
        ("wav2vec2", "layer", "clip", False),
        ("wav2vec2", "group", "none", False),
        ("wav2vec2", "group", "clip", False),
        ("hubert", "group", "clip", False),
        ("hubert", "layer", "none", True),
        ("data2vec-audio", "layer", "none", True),
        ("wavlm", "layer", "none", True),
        ("wavlm", "group", "clip", False),
    ],
)
@pytest.mark.parametrize("share", [True, False])
def test_windows_equal_a_loop_over_them_whatever_is_shared(kind, norm, normalization, shared, share):
    model = body(kind, norm)
    extractor = StoryFeatureExtractor(window_s=0.6, stride_s=0.1, normalization=normalization)
    assert can_share(model, extractor) is shared
    found, times = window_features(model, AUDIO, extractor, [0, 2], batch_size=4, share=share)
    expected = loop(model, extractor, [0, 2])
    for layer in (0, 2):
        np.testing.assert_allclose(found[layer], expected[layer], atol=1e-5)
    np.testing.assert_allclose(times, np.arange(1, 16) * 0.1)
    assert len(model.encoder.layers) == 3
    np.testing.assert_array_equal(loop(model, extractor, [2])[2], expected[2])  # the model is as it was


def test_a_quiet_story_is_normalised_as_its_windows_are():
    """The constant in the denominator of group norm must be as small beside quiet sound as beside loud sound."""
    model, extractor = body(norm="group"), StoryFeatureExtractor(window_s=0.6, stride_s=0.1)
    quiet = 1e-3 * AUDIO + 0.01
    found, _ = window_features(model, quiet, extractor, [1])
    np.testing.assert_allclose(found[1][8:], loop(model, extractor, [1], quiet)[1][8:], atol=1e-4)


@pytest.mark.parametrize("kind", ["wav2vec2", "hubert", "wavlm"])
@pytest.mark.parametrize("layers", [[0], [2], [1, 3]])
def test_a_model_with_a_norm_after_its_layers_leaves_out_those_above_the_last(kind, layers):
    model = body(kind, do_stable_layer_norm=True)
    extractor = StoryFeatureExtractor(window_s=0.6, stride_s=0.1, normalization="none")
    found, _ = window_features(model, AUDIO, extractor, layers)
    for layer in layers:
        np.testing.assert_allclose(found[layer], loop(model, extractor, layers)[layer], atol=1e-5)


def test_frames_of_another_window_are_not_those_of_this_one_behind_group_norm():
    """Why convolutions of the base models cannot be shared: the same sound gives other frames in the next window."""
    model, extractor = body(norm="group"), StoryFeatureExtractor(window_s=0.6, stride_s=0.1)
    first, second = (torch.from_numpy(window)[None] for window in extractor.windows(AUDIO, np.array([12_800, 14_400])))
    with torch.no_grad():
        frames = [model.feature_extractor(window)[0] for window in (first, second)]
    step = 1600 // 320
    assert (frames[0][:, step:] - frames[1][:, :-step]).abs().max() > 1e-2


def test_the_transformer_hears_the_same_frames_differently_in_every_window():
    """Why its layers cannot be shared even where convolutions can: attention reaches over the whole window."""
    model = body()
    extractor = StoryFeatureExtractor(window_s=0.6, stride_s=0.1, normalization="none")
    windows = [torch.from_numpy(window)[None] for window in extractor.windows(AUDIO, np.array([12_800, 14_400]))]
    step, reach = 1600 // 320, 8  # frames that the positional convolution sees beyond the window's ends
    with torch.no_grad():
        frames = [model.feature_extractor(window)[0] for window in windows]
        layers = [model(window, output_hidden_states=True).hidden_states for window in windows]

    def difference(before: torch.Tensor, after: torch.Tensor) -> float:
        return float((before[step:][reach:-reach] - after[:-step][reach:-reach]).abs().max())

    assert difference(frames[0].T, frames[1].T) < 1e-6
    assert difference(layers[0][0][0], layers[1][0][0]) < 1e-5
    assert difference(layers[0][1][0], layers[1][1][0]) > 5e-4  # five times what features may differ by


def test_a_sound_in_the_future_changes_nothing_before_it():
    model, extractor = body(), StoryFeatureExtractor(window_s=0.6, stride_s=0.1)
    changed = AUDIO.copy()
    changed[16_000:] = 0
    first, second = (window_features(model, audio, extractor, [3])[0][3] for audio in (AUDIO, changed))
    np.testing.assert_allclose(first[:10], second[:10], atol=1e-5)
    assert np.abs(first[10:] - second[10:]).max() > 1e-3


def test_whisper_gives_the_last_frame_that_heard_something():
    config = WhisperConfig(
        d_model=16, encoder_layers=1, encoder_attention_heads=2, decoder_layers=1, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, num_mel_bins=8, vocab_size=20, pad_token_id=0, bos_token_id=1,
        eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperModel(config).eval()
    extractor = StoryFeatureExtractor(window_s=1.0, stride_s=0.5)
    found, times = window_features(model, AUDIO, extractor, [1])
    assert found[1].shape == (3, 16) and times.tolist() == [0.5, 1.0, 1.5]


def test_features_of_a_story_have_a_row_per_volume_and_its_delays():
    extractor = StoryFeatureExtractor(window_s=0.6, stride_s=0.1)
    found = story_features(body(), AUDIO, np.array([0.0, 0.5, 1.0]), extractor, [1], delays=(1, 2))
    assert found[1].shape == (3, 32)
    np.testing.assert_allclose(found[1][0], 0.0)


def test_layers_that_do_not_exist_are_named():
    with pytest.raises(ValueError, match=r"\[9\] do not exist: the model has 0 to 3"):
        window_features(body(), AUDIO, StoryFeatureExtractor(), [1, 9])
