import numpy as np
import pytest

from bit_speech.decoding import Lexicon
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER


def words_of_the_trie(lexicon):
    """All (word, phonemes) found by walking the packed trie from the root."""
    trie = lexicon.trie()
    found = []

    def walk(node, phonemes):
        for word in trie.words[trie.word_begin[node] : trie.word_begin[node + 1]]:
            found.append((lexicon.words[word], tuple(phonemes)))
        classes = [c for c in range(41) if int(trie.children[node]) >> c & 1]
        for offset, c in enumerate(classes):
            child = int(trie.first_child[node]) + offset
            assert trie.label[child] == c
            walk(child, [*phonemes, MODEL_ORDER[c]])

    walk(0, [])
    return found


def random_entries(seed, number):
    rng = np.random.default_rng(seed)
    return [
        (f"w{rng.integers(number)}", [MODEL_ORDER[c] for c in rng.integers(1, 8, rng.integers(1, 7))])
        for _ in range(number)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_trie_holds_exactly_the_pronunciations(seed):
    entries = random_entries(seed, 10 ** (seed % 4))
    lexicon = Lexicon(entries)
    assert sorted(words_of_the_trie(lexicon)) == sorted({(word, tuple(p)) for word, p in entries})


def test_the_node_after_a_silence_has_the_children_of_the_root():
    trie = Lexicon(random_entries(1, 50)).trie()
    assert trie.children[0] == trie.children[1] and trie.first_child[0] == trie.first_child[1]
    assert (trie.label[0], trie.label[1]) == (0, 40)


def test_files_with_tabs_or_spaces_stress_and_alternatives_are_read(tmp_path):
    path = tmp_path / "lexicon.txt"
    path.write_text(
        ";;; a comment\n\nREAD  R EH1 D\nREAD(2)  R IY1 D\nred\tR EH D\nreed\tR IY D SIL\n"
        "aalborg AO1 L B AO0 R G # place\n"
        "READ  R EH1 D\n"
    )
    lexicon = Lexicon.from_file(path)
    assert lexicon.words == ("read", "red", "reed", "aalborg")
    assert lexicon.pronunciations("read") == [("R", "EH", "D"), ("R", "IY", "D")]
    assert lexicon.pronunciations("reed") == [("R", "IY", "D")]
    assert lexicon.num_pronunciations == 5
    assert "READ" in Lexicon.from_file(path, lowercase=False)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("cat K AE QQ", r"'QQ' in line 2 of .*lexicon.txt"),
        ("cat", "No phonemes in line 2"),
        ("cat K SIL AE T", "SIL inside the pronunciation in line 2"),
        ("cat K AE5 T", "'AE5' in line 2"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, message):
    path = tmp_path / "lexicon.txt"
    path.write_text(f"a AH\n{line}\n")
    with pytest.raises(ValueError, match=message):
        Lexicon.from_file(path)


def test_missing_empty_and_binary_files_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Lexicon.from_file(tmp_path / "nowhere")
    (tmp_path / "empty").write_text("")
    with pytest.raises(ValueError, match="empty"):
        Lexicon.from_file(tmp_path / "empty")
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ValueError, match="UTF-8"):
        Lexicon.from_file(tmp_path / "binary")


def test_cmudict_has_all_its_pronunciations_and_packs_into_few_bytes():
    lexicon = Lexicon.from_cmudict(["Read", "cat", "tomato", "xyzzyq"])
    assert lexicon.words == ("cat", "read", "tomato")  # in the order of the dictionary
    assert len(lexicon.pronunciations("read")) == 2
    with pytest.raises(ValueError, match="xyzzyq"):
        Lexicon.from_cmudict(["xyzzyq"])
    # The whole of it packs into few bytes.
    lexicon = Lexicon.from_cmudict()
    assert len(lexicon) > 120_000
    assert sum(array.nbytes for array in lexicon.trie()) < 10e6


def test_words_can_be_added_without_changing_the_lexicon():
    small = Lexicon.from_words({"hi": "HH AY"})
    bigger = small.with_words({"casey": ["K EY S IY"], "hi": "HH AY"})
    assert small.words == ("hi",) and bigger.words == ("hi", "casey")
    assert bigger.num_pronunciations == 2


def test_unknown_words_and_phonemes_are_named():
    with pytest.raises(ValueError, match="'cat' is not in the lexicon"):
        Lexicon.from_words({"hi": "HH AY"}).pronunciations("cat")
    with pytest.raises(ValueError, match="'XX' in word 'hi'"):
        Lexicon.from_words({"hi": "XX"})
    with pytest.raises(ValueError, match="empty"):
        Lexicon.from_words({})
