import pytest

from configuration_bit.configuration_ieeg_audio import IEEGAudioConfig


def test_the_defaults_are_the_brainmagick_preset():
    assert IEEGAudioConfig().to_dict() == IEEGAudioConfig.preset("brainmagick").to_dict()
    narrow = IEEGAudioConfig.preset("neuralbench")
    assert (narrow.num_hidden_layers, narrow.dilation_period, narrow.output_size) == (4, None, 512)


def test_the_configuration_survives_saving(tmp_path):
    config = IEEGAudioConfig.preset("neuralbench", participants={"s2": 9, "s1": 4}, sessions=["b", "a"])
    config.save_pretrained(tmp_path)
    again = IEEGAudioConfig.from_pretrained(tmp_path)
    assert list(again.participants) == ["s1", "s2"] and again.sessions == ["b", "a"]
    assert again.num_hidden_layers == 4 and again.dilation_period is None


def test_further_targets_keep_their_order_when_they_are_saved(tmp_path):
    config = IEEGAudioConfig(embedding_size=4, extra_targets={"video": 3, "text": 2}, target_weights={"text": 0.5})
    config.save_pretrained(tmp_path)
    again = IEEGAudioConfig.from_pretrained(tmp_path)
    assert list(config.extra_targets) == list(again.extra_targets) == ["text", "video"]
    assert again.label_size == 9 and again.target_weights == {"text": 0.5}


@pytest.mark.parametrize(
    "values, named",
    [
        ({"kernel_size": 4}, "4"),
        ({"hidden_size": 0}, "hidden_size"),
        ({"dropout": 1.0}, "1.0"),
        ({"dilation_period": 0}, "dilation_period"),
        ({"glu_every": -1}, "-1"),
        ({"encoder_type": "lstm"}, "lstm"),
        ({"read_in": "place"}, "place"),
        ({"loss": "mse"}, "mse"),
        ({"temperature_init": 9.0}, "9.0"),
        ({"session_layer": True}, "sessions"),
        ({"day_adversary_weight": 0.1}, "sessions"),
        ({"regions": ["A1"]}, "read_in"),
        ({"regions": ["A1", "A1"], "read_in": "position"}, "A1"),
        ({"extra_targets": {"audio": 3}}, "audio"),
        ({"extra_targets": {"a.b": 3}}, "a.b"),
        ({"extra_targets": {"text": 0}}, "text"),
        ({"extra_targets": {"text": 2.5}}, "2.5"),
        ({"extra_targets": {"text": 2}, "target_weights": {"video": 1.0}}, "video"),
        ({"extra_targets": {"text": 2}, "target_weights": {"text": 0.0}}, "0.0"),
        ({"encoder_type": "linear", "participants": {"a": 1, "b": 2}}, "linear"),
    ],
)
def test_values_out_of_range_are_named(values, named):
    with pytest.raises(Exception, match=named):
        IEEGAudioConfig(**values)


def test_an_unknown_preset_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match="brainmagick, neuralbench"):
        IEEGAudioConfig.preset("eegnet")
