"""A trial that is not valid is refused, with its name and the value."""

import numpy as np
import pytest
from datasets import Array2D, List, Value

from bit_speech.data.schema import TRIAL_COLUMNS, trial_features, validate_trial

NAME = r"^session p\.2024\.01\.01, block 1, trial 0: "


def test_the_columns_have_the_agreed_names_and_types():
    features = trial_features(512)
    assert list(features) == list(TRIAL_COLUMNS)
    assert features["features"] == Array2D((None, 512), "float32")
    assert features["feature_kinds"] == features["channel_areas"] == List(Value("string"))
    assert features["block_index"] == features["trial_index"] == Value("int32")
    assert features["bin_size_ms"] == Value("float32")
    others = set(features) - {"features", "feature_kinds", "channel_areas", "block_index", "trial_index", "bin_size_ms"}
    assert all(features[name] == Value("string") for name in others)


@pytest.mark.parametrize("value", [0, -1, 2.0, True, "512", None])
def test_a_number_of_channels_that_is_none_is_refused(value):
    with pytest.raises(ValueError, match="num_channels must be a positive integer"):
        trial_features(value)


def test_valid_trials_pass(trial):
    validate_trial(trial())
    validate_trial(trial(text=None, phonemes=None), num_channels=4)
    validate_trial(trial(block_index=np.int32(3), bin_size_ms=np.float32(10)), require_text=True)


BROKEN = np.zeros((3, 4), np.float32)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"features": BROKEN.tolist()}, "features must be a numpy array"),
        ({"features": BROKEN.astype(np.float64)}, "dtype float64; convert"),
        ({"features": BROKEN.astype(np.int16)}, "dtype int16"),
        ({"features": BROKEN[0]}, r"shape \(4,\)"),
        ({"features": BROKEN[:0]}, "no time bins"),
        ({"features": BROKEN[:, :3]}, "3 channels, expected 4"),
        ({"features": np.zeros((4, 9), np.float32)}, "is it transposed"),
        ({"feature_kinds": ["threshold_crossings"] * 3}, "feature_kinds needs one name per channel .4., got 3"),
        ({"channel_areas": "6v44"}, "channel_areas needs one name per channel"),
        ({"channel_areas": ["6v", "", "6v", "6v"]}, "must be a non-empty string"),
        ({"text": "  "}, "text must be a non-empty string or null"),
        ({"text": 3}, "text must be"),
        ({"phonemes": "HH AH L OW1 SIL"}, "'OW1' is no phoneme"),
        ({"phonemes": "hello"}, "'hello' is no phoneme"),
        ({"phonemes": ""}, "phonemes must be a string"),
        ({"split": "dev"}, "split is 'dev'; expected one of train, validation, test"),
        ({"trial_index": 1.5}, "trial_index must be a non-negative integer, got 1.5"),
        ({"trial_index": -1}, "trial_index must be"),
        ({"bin_size_ms": 0}, "bin_size_ms must be a positive number"),
        ({"bin_size_ms": float("nan")}, "bin_size_ms must be"),
        ({"species": ""}, "species must be a non-empty string"),
        ({"colour": "red"}, r"unknown column\(s\) colour"),
    ],
)
def test_every_fault_is_named(trial, changes, message):
    row = trial() | changes
    with pytest.raises(ValueError, match=message) as error:
        validate_trial(row, num_channels=4)
    if not set(changes) & {"trial_index"}:
        assert str(error.value).startswith("session p.2024.01.01, block 1, trial 0: ")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_first_value_that_is_not_finite_is_named(trial, value):
    row = trial()
    row["features"][7, 2] = value
    with pytest.raises(ValueError, match=NAME + r"features hold 1 NaN .* bin 7, channel 2"):
        validate_trial(row)


def test_missing_text_is_refused_where_labels_are_needed(trial):
    with pytest.raises(ValueError, match=NAME + "the text is missing, but split 'train' needs labels"):
        validate_trial(trial(text=None), require_text=True)


def test_missing_columns_are_named(trial):
    row = trial()
    del row["species"], row["text"]
    with pytest.raises(ValueError, match=NAME + r"missing column\(s\) species, text$"):
        validate_trial(row)
