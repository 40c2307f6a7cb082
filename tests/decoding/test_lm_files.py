"""Files of language models: damaged ones are refused, or at worst give wrong scores where checks were switched off."""

import copy
import json
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bit_speech.decoding import NGramLM, build_ngram_lm, lm_file
from bit_speech.decoding.lm_kernels import back_off, child_range, child_score, child_word, score_word

TEXT = ["the cat sat on the mat", "the cat ran", "a dog sat", "the dog sat on the cat", "a a a", "the mat"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    exact = build_ngram_lm(TEXT, order=4)
    exact.save(folder / "exact.bin")
    exact.quantize().save(folder / "quantized.bin")
    return folder, {kind: (folder / f"{kind}.bin").read_bytes() for kind in ("exact", "quantized")}


def header_of(data):
    length = int(np.frombuffer(data, dtype="<u4", offset=12, count=1)[0])
    return json.loads(data[20 : 20 + length]), data[20 + length :]


def with_header(header, payload, raw=None):
    text = json.dumps(header).encode() if raw is None else raw
    text += b" " * (-(len(text) + 20) % 64)
    numbers = np.array([lm_file._VERSION, len(text), zlib.crc32(text)], dtype="<u4").tobytes()
    return b"BITNGRAM" + numbers + text + payload


def use(lm):
    """Ask for everything that a search asks for."""
    for state in (lm.start_state, 0, 1, 5, sum(lm.counts) - lm.counts[-1]):
        for word in range(len(lm)):
            following = np.int64(state)
            for _ in range(3):
                _, following = score_word(lm.arrays, following, np.int64(word))
        back_off(lm.arrays, np.int64(state))
        begin, end = child_range(lm.arrays, np.int64(state))
        for child in range(begin, min(end, begin + 5)):
            child_word(lm.arrays, np.int64(child))
            child_score(lm.arrays, np.int64(child))


@pytest.mark.parametrize("kind", ["exact", "quantized"])
@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_file_is_refused(files, kind, data):
    check_damage(files, kind, data)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["exact", "quantized"])
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_change_of_a_file_is_refused_at_length(files, kind, data):
    check_damage(files, kind, data)


def check_damage(files, kind, data):
    folder, originals = files
    original = originals[kind]
    damage = data.draw(st.sampled_from(["cut", "extend", "change", "overwrite"]))
    position = data.draw(st.integers(0, len(original) - 1))
    damaged = {
        "cut": original[:position],
        "extend": original + b"\0" * (position + 1),
        "change": original[:position]
        + bytes([original[position] ^ data.draw(st.integers(1, 255))])
        + original[position + 1 :],
    }.get(damage)
    if damaged is None:
        noise = data.draw(st.binary(min_size=1, max_size=64))
        damaged = (original[:position] + noise + original[position + len(noise) :])[: len(original)]
    path = folder / f"{kind}_damaged.bin"
    path.write_bytes(damaged)
    try:
        loaded = NGramLM.load(path)
    except ValueError:
        return
    # Only the padding between sections may change unseen.
    whole = NGramLM.load(folder / f"{kind}.bin")
    assert loaded.words == whole.words
    for mine, theirs in zip(loaded.arrays, whole.arrays, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_noise_in_an_unverified_file_neither_crashes_nor_hangs(files, seed):
    check_noise(files, seed)


@pytest.mark.slow
@settings(max_examples=20_000, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32 - 1))
def test_noise_in_an_unverified_file_neither_crashes_nor_hangs_at_length(files, seed):
    check_noise(files, seed)


def check_noise(files, seed):
    folder, originals = files
    header, payload = header_of(originals["quantized"])
    rng = np.random.default_rng(seed)
    noisy = np.frombuffer(payload, dtype=np.uint8).copy()
    # The vocabulary is always checked; everything before it is noise here and there, or everywhere.
    size = next(section["offset"] for section in header["sections"] if section["name"] == "vocabulary")
    where = rng.random(size) < rng.choice([0.001, 0.05, 1.0])
    noisy[:size][where] = rng.integers(0, 256, int(where.sum()))
    path = folder / "noisy.bin"
    path.write_bytes(with_header(header, noisy.tobytes()))
    use(NGramLM.load(path, verify=False))


@pytest.mark.parametrize(
    ("change", "value"),
    [
        ("kind", "other"),
        ("kind", None),
        ("counts", []),
        ("counts", [0]),
        ("counts", [9, "5", 3, 1]),
        ("counts", [9, -5, 3, 1]),
        ("counts", [1 << 40, 5, 3, 1]),
        ("counts", [True, 5, 3, 1]),
        ("rank_bits", [99, 99]),
        ("rank_bits", 3),
        ("bos", 10_000),
        ("unk", -1),
        ("eos", 1.5),
        ("sections", []),
        ("sections", [{"name": "words"}]),
        ("sections", "words"),
        ("payload_bytes", 0),
        ("payload_bytes", 1 << 62),
        ("metadata", 3),
    ],
)
def test_a_header_that_contradicts_itself_is_refused(files, tmp_path, change, value):
    for data in files[1].values():
        header, payload = header_of(data)
        (tmp_path / "lm.bin").write_bytes(with_header({**header, change: value}, payload))
        with pytest.raises(ValueError, match=r"lm\.bin"):
            NGramLM.load(tmp_path / "lm.bin", verify=False)


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"[" * 3000])
def test_a_header_that_is_no_description_is_refused(tmp_path, raw):
    (tmp_path / "lm.bin").write_bytes(with_header({}, b"", raw))
    with pytest.raises(ValueError, match=r"lm\.bin"):
        NGramLM.load(tmp_path / "lm.bin")


def test_sections_that_overlap_or_lie_outside_are_refused(files, tmp_path):
    for data in files[1].values():
        header, payload = header_of(data)
        for i in range(len(header["sections"])):
            for key, value in (
                ("offset", 64 * 1000),
                ("offset", -64),
                ("length", -1),
                ("length", 10**12),
                ("checksum", 5),
            ):
                changed = json.loads(json.dumps(header))
                changed["sections"][i][key] = value
                (tmp_path / "lm.bin").write_bytes(with_header(changed, payload))
                with pytest.raises(ValueError, match=r"lm\.bin"):
                    NGramLM.load(tmp_path / "lm.bin", verify=False)


def test_the_metadata_travels_with_the_file(files):
    lm = NGramLM.load(files[0] / "quantized.bin")
    assert lm.metadata["min_counts"] == [1, 1, 1, 1] and lm.metadata["corpora"][0]["words"] == 23


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells how much of a process's memory is of files")
def test_pages_of_a_model_are_given_back_when_they_are_many_and_scores_stay(tmp_path, monkeypatch):
    sentences = [f"word{i} word{i + 1} word{i % 7}" for i in range(3000)]
    build_ngram_lm(sentences, order=3).save(tmp_path / "pages.bin")
    lm = NGramLM.load(tmp_path / "pages.bin")

    def resident():
        """Pages of the model in memory of this process, in kilobytes."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        (start,) = (index for index, line in enumerate(lines) if line.endswith("/pages.bin"))
        return int(next(line for line in lines[start:] if line.startswith("Rss:")).split()[1])

    scores = [lm.score_sentence(sentence) for sentence in sentences]
    before = resident()
    lm.release_pages()
    assert resident() == before  # few pages stay
    monkeypatch.setattr(lm_file, "_RESIDENT_BYTES", -(1 << 60))
    lm.release_pages()
    assert before > 100 and resident() < before / 4
    assert [lm.score_sentence(sentence) for sentence in sentences] == scores
    assert copy.deepcopy(lm).score_sentence(sentences[0]) == scores[0]
