"""Models of text files: larger than memory, mixed, converted, through the command line."""

import lzma
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from bit_speech.cli import main
from bit_speech.decoding import NGramLM, build_ngram_lm, lm_text
from bit_speech.decoding.build_lm import build_ngram_lm_from_files
from bit_speech.decoding.lm_kernels import score_word


def random_text(seed, sentences=300, shift=0):
    rng = np.random.default_rng(seed)
    words = [f"w{(i + shift) % 50}" for i in range(50)]
    shares = 1 / np.arange(1, 51) ** 1.2
    return [" ".join(rng.choice(words, rng.integers(1, 9), p=shares / shares.sum())) for _ in range(sentences)]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("texts")
    for name, seed, shift in (("a", 0, 0), ("b", 1, 25), ("dev", 2, 0)):
        (folder / f"{name}.txt").write_text("\n".join(random_text(seed, shift=shift)) + "\n")
    return folder


def same(one, other):
    assert one.words == other.words and one.counts == other.counts
    for mine, theirs in zip(one.arrays, other.arrays, strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_file_gives_the_model_of_its_sentences(files, tmp_path):
    lines = random_text(0)
    same(build_ngram_lm_from_files([files / "a.txt"], 4), build_ngram_lm(lines, order=4))
    with lzma.open(tmp_path / "a.txt.xz", "wt") as stream:
        # No line end at the end of the file, empty lines, and white space of several kinds.
        stream.write("\n\n".join(lines).replace(" ", " \t\u00a0"))
    same(build_ngram_lm_from_files([tmp_path / "a.txt.xz"], 4), build_ngram_lm(lines, order=4))


@pytest.fixture
def mapped(monkeypatch):
    """Sizes of the arrays that went to temporary files."""
    sizes = []
    memmap = np.memmap

    def recorded(*arguments, **options):
        sizes.append(options["shape"])
        return memmap(*arguments, **options)

    monkeypatch.setattr(lm_text.np, "memmap", recorded)
    return sizes


def test_a_text_larger_than_memory_gives_the_same_model_and_leaves_no_files(tmp_path, mapped):
    (tmp_path / "text.txt").write_text("\n".join(random_text(3, sentences=20_000)))
    (tmp_path / "temporary").mkdir()
    leftovers = []
    settings = {"order": 5, "min_counts": [1, 1, 2, 2, 2]}
    limited = build_ngram_lm_from_files(
        [tmp_path / "text.txt"], memory=1 << 20, folder=tmp_path / "temporary", num_threads=2, **settings,
        progress=lambda stage: leftovers.extend((tmp_path / "temporary").iterdir()),
    )  # fmt: skip
    assert len(mapped) > 5 and not leftovers
    same(limited, build_ngram_lm_from_files([tmp_path / "text.txt"], **settings))


def test_temporary_files_have_no_name_so_that_not_even_a_killed_process_leaves_any(tmp_path, mapped):
    space = lm_text.Workspace(memory=0, folder=tmp_path)
    with ThreadPoolExecutor(4) as pool:
        arrays = list(pool.map(lambda k: space.empty(100 + k, np.int32), range(40)))
    for k, array in enumerate(arrays):
        array[:] = k
    assert len(mapped) == 40 and not list(tmp_path.iterdir())
    assert all((array == k).all() for k, array in enumerate(arrays))
    with pytest.raises(FileNotFoundError):
        lm_text.Workspace(memory=0, folder=tmp_path / "missing").empty(10, np.int32)


def test_mixing_a_model_with_itself_changes_nothing(files):
    alone = build_ngram_lm_from_files([files / "a.txt"], 3)
    mixed = build_ngram_lm_from_files([files / "a.txt"] * 3, 3, weights=[0.5, 0.2, 0.3])
    assert mixed.counts == alone.counts
    for line in random_text(4, sentences=30):
        np.testing.assert_allclose(mixed.word_scores(line), alone.word_scores(line), atol=2e-5)


def test_a_mixture_lists_the_ngrams_of_both_with_mixed_probabilities_and_sums_to_one(files):
    words = sorted(
        {word for seed, shift in ((0, 0), (1, 25)) for line in random_text(seed, shift=shift) for word in line.split()}
    )
    both = [build_ngram_lm_from_files([files / f"{name}.txt"], 3, vocabulary=words) for name in "ab"]
    mixed = build_ngram_lm_from_files([files / "a.txt", files / "b.txt"], 3, vocabulary=words, weights=[3, 1])
    assert mixed.metadata["weights"] == [0.75, 0.25]
    assert all(max(lm.counts[k] for lm in both) < mixed.counts[k] < sum(lm.counts[k] for lm in both) for k in (1, 2))
    for line in random_text(0, sentences=40):
        expected = np.logaddexp(*(lm.word_scores(line) + np.log(w) for lm, w in zip(both, (0.75, 0.25), strict=True)))
        # Exact here, because all n-grams of these lines are listed.
        np.testing.assert_allclose(mixed.word_scores(line), expected, atol=1e-5)
    for state in range(0, len(mixed.arrays.backoffs), 7):
        total = sum(
            np.exp(score_word(mixed.arrays, np.int64(state), np.int64(word))[0])
            for word in range(len(mixed))
            if word != mixed.bos
        )
        assert total == pytest.approx(1.0, abs=1e-4)


def test_tuned_weights_are_the_best_for_the_held_out_text(files):
    texts = [files / "a.txt", files / "b.txt"]
    tuned = build_ngram_lm_from_files(texts, 2, interpolate_on=files / "dev.txt")
    held_out = random_text(2)
    first = tuned.metadata["weights"][0]
    assert 0.8 < first < 1.0  # the held-out text is of the first kind
    best = tuned.perplexity(held_out)
    for other in (first - 0.1, min(first + 0.05, 0.999), 0.5):
        assert best < build_ngram_lm_from_files(texts, 2, weights=[other, 1 - other]).perplexity(held_out) * 1.0005


def test_the_model_names_its_texts(files):
    import hashlib

    lm = build_ngram_lm_from_files([files / "a.txt"], 2)
    assert lm.metadata["corpora"][0]["sha256"] == hashlib.sha256((files / "a.txt").read_bytes()).hexdigest()
    assert lm.metadata["corpora"][0]["sentences"] == 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"weights": [1.0]}, "expected 2 positive numbers"),
        ({"weights": [1.0, -1.0]}, "expected 2 positive numbers"),
        ({"weights": [1.0, 1.0], "interpolate_on": "dev.txt"}, "not both"),
        ({"memory": 5}, "memory is 5"),
        ({"num_threads": 0}, "num_threads is 0"),
    ],
)
def test_a_setting_without_sense_is_named(files, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_ngram_lm_from_files([files / "a.txt", files / "b.txt"], 2, **arguments)


def test_the_command_builds_binary_and_arpa_files_that_agree(files, tmp_path, capsys):
    texts = [str(files / "a.txt"), str(files / "b.txt")]
    (tmp_path / "words.txt").write_text("\n".join(f"w{i}" for i in range(40)))
    base = ["build-lm", "--text", *texts, "--order", "4", "--prune", "0", "0", "1", "--threads", "2"]
    base += ["--vocabulary", str(tmp_path / "words.txt"), "--interpolate_on", str(files / "dev.txt")]
    assert main([*base, "--output", str(tmp_path / "lm.bin")]) == 0
    assert main([*base, "--output", str(tmp_path / "lm.arpa.xz")]) == 0
    assert (
        main(["build-lm", "--arpa", str(tmp_path / "lm.arpa.xz"), "--quantize", "--output", str(tmp_path / "q.bin")])
        == 0
    )
    assert "n-grams" in capsys.readouterr().out
    exact, text = NGramLM.load(tmp_path / "lm.bin"), NGramLM.from_arpa(tmp_path / "lm.arpa.xz")
    rounded = NGramLM.load(tmp_path / "q.bin")
    assert exact.metadata["min_counts"] == [1, 1, 2, 2] and rounded.quantized and len(exact) == 43
    for line in random_text(5, sentences=20):
        np.testing.assert_allclose(text.word_scores(line), exact.word_scores(line), rtol=1e-5)
        assert rounded.score_sentence(line) == pytest.approx(exact.score_sentence(line), rel=0.01)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lm.arpa.xz", "lm.bin", "q.bin", "words.txt"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--text", "nowhere.txt"], "nowhere.txt"),
        (["--text", "TEXT", "--prune", "1"], "begin with 0"),
        (["--text", "TEXT", "--prune", "0", "0", "0", "0"], "at most 3"),
        (["--text", "TEXT", "--order", "9"], "order is 9"),
        (["--text", "TEXT", "--vocabulary", "nowhere.txt"], "nowhere.txt"),
        (["--arpa", "TEXT"], "not an ARPA file"),
        (["--text", "TEXT", "--threads", "-1"], "num_threads is -1"),
    ],
)
def test_misuse_of_the_command_is_refused_and_writes_nothing(files, tmp_path, capsys, arguments, message):
    arguments = [str(files / "a.txt") if argument == "TEXT" else argument for argument in arguments]
    assert main(["build-lm", *arguments, "--output", str(tmp_path / "lm.bin")]) == 2
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_quantized_arpa_and_folders_are_refused_as_outputs(files, tmp_path, capsys):
    base = ["build-lm", "--text", str(files / "a.txt"), "--output"]
    assert main([*base, str(tmp_path / "lm.arpa"), "--quantize"]) == 2
    assert "--quantize" in capsys.readouterr().err
    assert main([*base, str(tmp_path)]) == 2
    assert "is a folder" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["build-lm", "--output", "x"])
