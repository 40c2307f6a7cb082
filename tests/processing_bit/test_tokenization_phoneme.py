"""Phonemes to ids and back, text to ids, and CTC output to phonemes."""

import copy
import itertools
import json
import pickle

import numpy as np
import pytest
import torch

from configuration_bit.phoneme_inventory_bit import LM_ORDER, MODEL_ORDER, PHONEMES
from processing_bit.tokenization_phoneme import PhonemeTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return PhonemeTokenizer()


def test_the_vocabulary_is_the_model_order_with_the_blank_as_padding(tokenizer):
    assert len(tokenizer) == tokenizer.vocab_size == 41
    assert tuple(tokenizer.convert_ids_to_tokens(range(41))) == MODEL_ORDER
    assert tokenizer.pad_token_id == tokenizer.blank_token_id == 0 and tokenizer.sil_token_id == 40
    assert tokenizer.unk_token is None and tokenizer.bos_token is None and tokenizer.eos_token is None


def test_every_phoneme_makes_the_round_trip(tokenizer):
    text = " ".join(MODEL_ORDER[1:])
    assert tokenizer(text)["input_ids"] == list(range(1, 41))
    assert tokenizer.decode(range(1, 41)) == text


@pytest.mark.parametrize("stress", ["0", "1", "2"])
def test_stress_digits_are_dropped(tokenizer, stress):
    for vowel in ("AA", "AH", "UW", "ER"):
        assert tokenizer(vowel + stress)["input_ids"] == tokenizer(vowel)["input_ids"]
        assert tokenizer.encode_phonemes([vowel + stress]) == tokenizer.encode_phonemes(vowel)
    assert tokenizer(f"HH AH{stress} L OW{stress} SIL")["input_ids"] == [16, 3, 21, 25, 40]


@pytest.mark.parametrize("bad", ["QQ", "ah", "AH3", "B1", "hello", "<unk>", "S0", "SIL0"])
def test_an_unknown_phoneme_is_refused_by_name_and_never_becomes_another_class(tokenizer, bad):
    for call in (tokenizer, tokenizer.encode, tokenizer.encode_phonemes, tokenizer.tokenize):
        with pytest.raises(ValueError, match=f"'{bad}' is not a phoneme"):
            call(f"HH {bad} SIL")
    with pytest.raises(ValueError, match=f"'{bad}' is not a phoneme"):
        tokenizer.convert_tokens_to_ids(["HH", bad])


def test_the_other_name_of_the_silence_gets_a_hint(tokenizer):
    with pytest.raises(ValueError, match=r"'\|' is not a phoneme \(the silence is written 'SIL'\)"):
        tokenizer("HH |")


def test_a_batch_is_padded_with_the_blank(tokenizer):
    batch = tokenizer(["HH AY SIL", "AH"], padding=True, return_tensors="pt")
    assert batch["input_ids"].tolist() == [[16, 6, 40], [3, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_silence_follows_every_word_including_the_last(tokenizer):
    assert tokenizer.phonemize("Bring it!") == ["B", "R", "IH", "NG", "SIL", "IH", "T", "SIL"]
    assert tokenizer.encode_text("Bring it!") == tokenizer("B R IH NG SIL IH T SIL")["input_ids"]
    assert set(tokenizer.phonemize("The 3 quick brown foxes")) <= {*PHONEMES, "SIL"}


def test_decoding_labels_merges_nothing_and_skips_the_label_padding(tokenizer):
    assert tokenizer.decode([21, 21, 40, -100, -100]) == "L L SIL"
    assert tokenizer.decode([0, 21, 0]) == "<blank> L <blank>"
    assert tokenizer.decode([0, 21, 0], skip_special_tokens=True) == "L"
    assert tokenizer.batch_decode(np.array([[21, 21], [16, -100]])) == ["L L", "HH"]
    assert tokenizer.decode(torch.tensor([3])) == "AH"


@pytest.mark.parametrize("bad", [41, -1])
def test_an_id_that_is_no_class_is_refused(tokenizer, bad):
    for decode in (tokenizer.decode, tokenizer.decode_ctc):
        with pytest.raises(ValueError, match=f"{bad} is not a class"):
            decode([1, bad])


@pytest.mark.parametrize(
    ("ids", "phonemes"),
    [
        ([], ""),
        ([0, 0], ""),
        ([3, 3, 3], "AH"),
        ([3, 0, 3], "AH AH"),
        ([0, 3, 3, 0, 0, 3, 4, 4, 40, 0], "AH AH AO SIL"),
        ([40, 0, 40], "SIL SIL"),
    ],
)
def test_ctc_merges_repeats_and_then_drops_blanks(tokenizer, ids, phonemes):
    assert tokenizer.decode_ctc(ids) == phonemes
    assert tokenizer.decode_ctc(np.array(ids, dtype=np.int64)) == tokenizer.decode_ctc(torch.tensor(ids)) == phonemes


def test_ctc_collapse_equals_the_definition_on_all_short_paths(tokenizer):
    for path in itertools.product((0, 1, 2), repeat=6):
        expected, last = [], 0
        for index in path:
            if index != last and index != 0:
                expected.append(MODEL_ORDER[index])
            last = index
        assert tokenizer.decode_ctc(path) == " ".join(expected)


def test_frames_behind_the_end_of_a_trial_are_not_read(tokenizer):
    ids = torch.tensor([[3, 0, 5], [16, 7, 7]])
    mask = torch.tensor([[True, True, True], [True, False, False]])
    assert tokenizer.batch_decode_ctc(ids, mask) == ["AH AW", "HH"]
    assert tokenizer.batch_decode_ctc(ids) == ["AH AW", "HH B"]
    with pytest.raises(ValueError, match="different shapes"):
        tokenizer.batch_decode_ctc(ids, mask[:, :2])


def test_saving_keeps_the_vocabulary_and_the_own_pronunciations(tmp_path):
    PhonemeTokenizer(pronunciations={"xerxes": "Z ER K S IY Z"}).save_pretrained(tmp_path)
    loaded = PhonemeTokenizer.from_pretrained(tmp_path)
    assert loaded.get_vocab() == PhonemeTokenizer().get_vocab()
    assert loaded("HH AH0 SIL")["input_ids"] == [16, 3, 40]
    assert loaded.phonemize("Xerxes") == ["Z", "ER", "K", "S", "IY", "Z", "SIL"]
    loaded.save_pretrained(tmp_path / "again")
    assert PhonemeTokenizer.from_pretrained(tmp_path / "again").phonemize("xerxes") == loaded.phonemize("xerxes")


def test_a_folder_with_another_class_order_is_refused(tmp_path):
    PhonemeTokenizer().save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    content["model"]["vocab"] = {token: index for index, token in enumerate(LM_ORDER)}
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(ValueError, match="not the model order.*'<blank>', 'SIL', 'AA'.*class_permutation"):
        PhonemeTokenizer.from_pretrained(tmp_path)


def test_copies_and_pickles_work_for_data_loader_workers(tokenizer):
    for twin in (copy.deepcopy(tokenizer), pickle.loads(pickle.dumps(tokenizer))):
        assert twin("HH AH0")["input_ids"] == [16, 3] and twin.encode_text("hi") == tokenizer.encode_text("hi")
