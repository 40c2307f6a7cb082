"""The processor: features and labels together, saved and loaded as one."""

import numpy as np
import pytest
import torch

from processing_bit.feature_extraction_bit import BITFeatureExtractor
from processing_bit.processing_bit import BITProcessor
from processing_bit.tokenization_phoneme import PhonemeTokenizer

RNG = np.random.default_rng(1)


@pytest.fixture(scope="module")
def processor():
    return BITProcessor(
        BITFeatureExtractor(participants={"t15": 5}, sessions=["t15.2023.08.11", "t15.2023.08.13"]), PhonemeTokenizer()
    )


def trials(*lengths):
    return [RNG.normal(size=(length, 5)).astype(np.float32) for length in lengths]


def test_features_and_text_become_one_batch(processor):
    batch = processor(
        trials(12, 7),
        text=["Bring it closer.", "Hi"],
        participant_id="t15",
        session_id="t15.2023.08.13",
        return_tensors="pt",
    )
    assert batch["input_features"].shape == (2, 12, 5) and batch["attention_mask"].sum().item() == 19
    assert batch["participant_index"].tolist() == [0, 0] and batch["session_index"].tolist() == [1, 1]
    assert batch["labels"].dtype == torch.int64
    assert processor.batch_decode(batch["labels"]) == ["B R IH NG SIL IH T SIL K L OW S ER SIL", "HH AY SIL"]
    assert batch["labels"][1].tolist() == [16, 6, 40] + [-100] * 11


def test_the_features_are_those_of_the_feature_extractor(processor):
    batch = trials(9, 4)
    arguments = {"session_id": "t15.2023.08.11", "block_index": [1, 2]}
    expected = processor.feature_extractor(batch, **arguments)
    got = processor(batch, **arguments)
    assert set(got) == set(expected)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_labels_alone_need_no_features(processor):
    assert processor(text="Hi")["labels"].tolist() == [[16, 6, 40]]
    assert processor(phonemes=["HH AY1 SIL", "AH"])["labels"].tolist() == [[16, 6, 40], [3, -100, -100]]


def test_given_phonemes_win_over_text_trial_by_trial(processor):
    batch = processor(text=["use", "use"], phonemes=["Y UW Z SIL", None])
    assert processor.batch_decode(batch["labels"]) == ["Y UW Z SIL", "Y UW S SIL"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Nothing to process"),
        ({"text": ["hi", "..."]}, r"trial 1: '\.\.\.' holds no words"),
        ({"text": ["hi", None]}, "trial 1: there is neither text nor phonemes"),
        ({"phonemes": ["HH", "HH QQ"]}, "trial 1: 'QQ' is not a phoneme"),
        ({"text": ["hi", "привет"]}, "trial 1: The word 'привет'"),
        ({"text": []}, "No labels"),
        ({"text": ["a", "b"], "phonemes": ["AH"]}, "phonemes has 1 entries for 2 trials"),
    ],
)
def test_labels_that_cannot_be_made_are_refused_by_trial_and_value(processor, arguments, message):
    with pytest.raises(ValueError, match=message):
        processor(**arguments)


def test_every_trial_needs_its_sentence(processor):
    with pytest.raises(ValueError, match="text has 1 entries for 2 trials"):
        processor(trials(3, 3), text="hi", session_id="t15.2023.08.11")


def test_model_output_is_decoded_with_the_frame_mask(processor):
    ids = np.array([[16, 16, 0, 6], [3, 0, 3, 3]])
    mask = np.array([[True] * 4, [True, True, False, False]])
    assert processor.batch_decode_ctc(ids, mask) == ["HH AY", "AH"]
    assert processor.decode_ctc(ids[1]) == "AH AH" and processor.decode([16, 6]) == "HH AY"


def test_saving_and_loading_gives_the_same_batch(processor, tmp_path):
    import bit_speech  # noqa: F401  (registers the Auto classes)

    processor.feature_extractor.fit_session_statistics({"t15.2023.08.11": trials(30, 30)})
    processor.save_pretrained(tmp_path)
    loaded = BITProcessor.from_pretrained(tmp_path)
    assert type(loaded.feature_extractor) is BITFeatureExtractor and type(loaded.tokenizer) is PhonemeTokenizer
    assert loaded.feature_extractor.to_dict() == BITFeatureExtractor.from_pretrained(tmp_path).to_dict()
    batch = trials(8, 6)
    arguments = {"text": ["hello there", "hi"], "session_id": "t15.2023.08.11"}
    expected, got = processor(batch, **arguments), loaded(batch, **arguments)
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_input_names_are_those_the_models_take(processor):
    assert processor.model_input_names == [
        "input_features",
        "attention_mask",
        "participant_index",
        "session_index",
        "labels",
    ]
