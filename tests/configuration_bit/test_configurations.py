import json

import pytest

from configuration_bit.configuration_bit import BITConfig
from configuration_bit.configuration_bit_gru import BITGRUConfig


def test_the_defaults_are_the_papers_encoder():
    config = BITConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.num_attention_heads) == (384, 7, 6)
    assert (config.intermediate_size, config.patch_size, config.patch_stride) == (512, 5, 5)
    assert (config.embedding_dropout, config.hidden_dropout, config.attention_dropout) == (0.2, 0.4, 0.4)
    assert (config.causal, config.attention_window, config.mask_ratio, config.read_in) == (
        False,
        None,
        0,
        "participant",
    )


def test_the_recurrent_defaults_are_the_benchmarks_baseline():
    config = BITGRUConfig()
    assert (config.hidden_size, config.num_hidden_layers, config.patch_size, config.patch_stride) == (768, 5, 14, 4)
    assert (config.input_dropout, config.hidden_dropout, config.bidirectional) == (0.2, 0.4, False)


@pytest.mark.parametrize("config_class, participants", [(BITConfig, {"t15": 9, "t12": 5}), (BITGRUConfig, {"t15": 9})])
def test_a_configuration_survives_saving(tmp_path, config_class, participants):
    config = config_class(participants=participants, sessions=["b", "a"], hidden_size=24)
    config.save_pretrained(tmp_path)
    again = config_class.from_pretrained(tmp_path)
    assert list(again.participants.items()) == sorted(participants.items())
    assert again.sessions == ["b", "a"] and again.hidden_size == 24
    assert again.id2label[40] == "SIL" and again.label2id["<blank>"] == 0


def test_participants_keep_their_index_whatever_order_they_are_given_in():
    assert list(BITConfig(participants={"t15": 9, "t12": 5}).participants) == ["t12", "t15"]


@pytest.mark.parametrize(
    "values, named",
    [
        ({"participants": {}}, "participants"),
        ({"participants": {"t.15": 4}}, "t.15"),
        ({"participants": {"t15": 0}}, "0"),
        ({"participants": {"t15": 4.5}}, "4.5"),
        ({"sessions": ["a", "b", "a"]}, "'a'"),
        ({"hidden_size": 385}, "385"),
        ({"num_attention_heads": 128}, "128"),
        ({"patch_size": 0}, "patch_size"),
        ({"hidden_dropout": 1.0}, "1.0"),
        ({"mask_ratio": -0.1}, "-0.1"),
        ({"attention_window": -1}, "-1"),
        ({"read_in": "day"}, "'day'"),
        ({"read_in": "session"}, "sessions"),
        ({"ctc_loss_reduction": "none"}, "'none'"),
        ({"pad_token_id": 41}, "41"),
    ],
)
def test_a_value_out_of_range_is_named(values, named):
    with pytest.raises(ValueError, match=named.replace(".", r"\.")):
        BITConfig(**values)


def test_the_recurrent_baseline_refuses_two_participants():
    with pytest.raises(ValueError, match=r"\['t12', 't15'\]"):
        BITGRUConfig(participants={"t15": 9, "t12": 5})


def test_the_model_types_are_free_in_transformers():
    from transformers.models.auto.auto_mappings import CONFIG_MAPPING_NAMES

    assert not {BITConfig.model_type, BITGRUConfig.model_type} & set(CONFIG_MAPPING_NAMES)


def test_no_public_name_exists_in_transformers():
    import transformers

    import bit_speech
    import configuration_bit
    import modeling_bit
    import processing_bit

    public = {name for room in (bit_speech, configuration_bit, modeling_bit, processing_bit) for name in room.__all__}
    assert not [name for name in public if hasattr(transformers, name)]


def test_a_saved_configuration_is_plain_json(tmp_path):
    BITConfig(participants={"t15": 4}).save_pretrained(tmp_path)
    saved = json.loads((tmp_path / "config.json").read_text())
    assert saved["model_type"] == "bit_speech" and saved["participants"] == {"t15": 4}
