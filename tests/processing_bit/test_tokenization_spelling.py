"""Characters to classes and back, in the vocabulary of a speech checkpoint."""

import json

import pytest
import torch
from transformers import AutoTokenizer, Wav2Vec2CTCTokenizer

from bit_speech import BITFeatureExtractor, BITProcessor, SpellingTokenizer


def published_vocabulary():
    """The English Wav2Vec2 checkpoints' own."""
    letters = list("ETAONIHSRDLUMWCFGYPBVK'XJQZ")
    return {token: index for index, token in enumerate(["<pad>", "<s>", "</s>", "<unk>", "|", *letters])}


def test_the_default_vocabulary_is_that_of_the_published_checkpoints():
    assert SpellingTokenizer().vocabulary == published_vocabulary()
    assert SpellingTokenizer().blank_token_id == 0


@pytest.mark.parametrize(
    "text, spelled",
    [
        ("Hi, you!", "hi you"),
        ("It's  5 o'clock.", "it's five o'clock"),
        ("thirty-five", "thirty five"),
        ("I will call.", "i will call"),
    ],
)
def test_text_comes_back_without_case_and_punctuation(text, spelled):
    tokenizer = SpellingTokenizer()
    ids = tokenizer.encode_text(text)
    assert tokenizer.decode(ids) == spelled
    path = [index for one in ids for index in (one, one, 0)]
    assert tokenizer.decode_ctc(torch.tensor(path)) == spelled


def test_special_tokens_and_padding_of_labels_are_not_text():
    tokenizer = SpellingTokenizer()
    assert tokenizer.decode_ctc([1, 11, 3, 10, 2]) == "hi" and tokenizer.decode([11, 10, -100]) == "hi"


def test_padding_frames_are_not_read():
    ids, mask = [[11, 10, 5], [11, 10, 5]], [[True, True, False], [True] * 3]
    assert SpellingTokenizer().batch_decode_ctc(ids, mask) == ["hi", "hie"]
    with pytest.raises(ValueError, match="different shapes"):
        SpellingTokenizer().batch_decode_ctc(ids, [[True], [True]])


def test_a_saved_tokenizer_keeps_its_vocabulary_and_its_word_delimiter(tmp_path):
    vocabulary = {"[PAD]": 2, "_": 0, "e": 1, "h": 3}
    SpellingTokenizer(vocabulary, word_delimiter="_", pad_token="[PAD]").save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert type(again) is SpellingTokenizer and again.vocabulary == vocabulary
    assert again.encode_text("he he") == [3, 1, 0, 3, 1] and again.decode_ctc([3, 1, 2, 0, 3, 1]) == "he he"
    assert again.blank_token_id == 2


def test_the_vocabulary_of_a_checkpoint_is_taken_as_it_is(tmp_path):
    (tmp_path / "vocab.json").write_text(json.dumps(published_vocabulary()))
    Wav2Vec2CTCTokenizer(str(tmp_path / "vocab.json")).save_pretrained(tmp_path / "checkpoint")
    tokenizer = SpellingTokenizer.from_speech_checkpoint(tmp_path / "checkpoint")
    assert tokenizer.vocabulary == published_vocabulary() and tokenizer.word_delimiter == "|"


@pytest.mark.parametrize(
    "vocabulary, named",
    [
        ({"<pad>": 0, "E": 1}, r"\['\|'\]"),
        ({"|": 0, "E": 1}, "<pad>"),
        ({"<pad>": 0, "|": 1, "Ж": 2}, "English"),
        ({"<pad>": 0, "|": 1, "E": 3}, "0 to 2"),
    ],
)
def test_vocabularies_that_cannot_work_are_refused(vocabulary, named):
    with pytest.raises(ValueError, match=named):
        SpellingTokenizer(vocabulary)


def test_a_character_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="'h'"):
        SpellingTokenizer({"<pad>": 0, "|": 1, "E": 2}).encode_text("he")
    with pytest.raises(ValueError, match="40 is not a class"):
        SpellingTokenizer().decode_ctc([40])


def test_a_processor_with_characters_spells_the_text_and_leaves_phonemes_alone(tmp_path):
    import numpy as np

    processor = BITProcessor(BITFeatureExtractor(participants={"t": 2}), SpellingTokenizer())
    processor.save_pretrained(tmp_path)
    for one in (processor, BITProcessor.from_pretrained(tmp_path)):
        batch = one([np.eye(2)] * 2, text=["Hi.", "He"], phonemes=["HH AY SIL", "HH IY SIL"], participant_id="t")
        assert batch["labels"].tolist() == [[11, 10], [11, 5]]
    with pytest.raises(ValueError, match="no text to spell"):
        processor(phonemes=["HH AY SIL"])
