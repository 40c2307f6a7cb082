import itertools
import math
import threading

import numpy as np
import pytest

from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, class_permutation

INDEX = {name: i for i, name in enumerate(MODEL_ORDER)}
SIL = INDEX["SIL"]
# Homophones (be, bee), several pronunciations (the), a word that begins another (the, theme), a repeated phoneme (mem).
WORDS = {"be": "B IY", "bee": "B IY", "b": ["B", "B IY"], "the": ["M", "M B"], "mem": "M IY M", "me": "M IY"}
USED = [0, INDEX["B"], INDEX["IY"], INDEX["M"], SIL]
TEXT = ["me be the bee", "be the mem", "b b me", "the me be", "bee the the", "mem be"]
EXHAUSTIVE = {
    "recombine": False,
    "beam_size": 10**6,
    "beam_threshold": math.inf,
    "blank_skip_threshold": 1.0,
    "num_hypotheses": 10**6,
}


@pytest.fixture(scope="module")
def lexicon():
    return Lexicon.from_words(WORDS)


@pytest.fixture(scope="module")
def lm():
    return build_ngram_lm(TEXT, order=3)


def random_log_probs(seed, frames, classes=USED):
    rng = np.random.default_rng(seed)
    log_probs = np.full((frames, 41), -np.inf)
    scores = rng.normal(0, 2.0, (frames, len(classes)))
    scores -= np.logaddexp.reduce(scores, axis=1, keepdims=True)
    log_probs[:, classes] = scores
    return log_probs


def one_hot(labels, confidence=0.9):
    """Log-probabilities of a phoneme string, a blank between all labels."""
    path = [0]
    for name in labels.split():
        path += [INDEX[name], 0]
    return np.log(np.eye(41)[path] * confidence + (1 - confidence) / 41)


def parses(labels, pronunciations):
    """Every (words, number of words without SIL, number of SILs too many) that a label sequence can be read as."""
    found = []

    def walk(position, words, missing, extra):
        start = position
        while position < len(labels) and labels[position] == SIL:
            position += 1
        if words:
            extra += max(0, position - start - 1)  # before the first word SIL is free
        if position == len(labels):
            found.append((tuple(words), missing, extra))
            return
        for word, pron in pronunciations:
            end = position + len(pron)
            if labels[position:end] == pron:
                no_sil = end == len(labels) or labels[end] != SIL
                walk(end, [*words, word], missing + no_sil, extra)

    walk(0, [], 0, 0)
    return found


def brute_force(log_probs, lexicon, lm, lm_weight, word_score, missing_sil, extra_sil, merge):
    pronunciations = [(w, tuple(INDEX[p] for p in pron)) for w in lexicon.words for pron in lexicon.pronunciations(w)]
    combine = np.logaddexp if merge == "log_add" else max
    cache, acoustic = {}, {}
    for path in itertools.product(USED, repeat=len(log_probs)):
        labels = tuple(label for label, _ in itertools.groupby(path) if label != 0)
        if labels not in cache:
            cache[labels] = parses(labels, pronunciations)
        score = sum(log_probs[t, c] for t, c in enumerate(path))
        for words, missing, extra in cache[labels]:
            here = score + (missing * missing_sil if missing else 0.0) + (extra * extra_sil if extra else 0.0)
            if here == -math.inf:
                continue
            acoustic[words] = combine(acoustic[words], here) if words in acoustic else here
    result = {}
    for words, value in acoustic.items():
        text = " ".join(words)
        lm_score = lm.score_sentence(text) if lm is not None else 0.0
        result[text] = (value + lm_weight * lm_score + word_score * len(words), value, lm_score)
    return result


@pytest.mark.parametrize("merge", ["log_add", "max"])
@pytest.mark.parametrize("seed", range(5))
def test_exhaustive_beam_equals_brute_force(lexicon, lm, seed, merge):
    log_probs = random_log_probs(seed, frames=2 + seed)
    settings = {"lm_weight": 0.7, "word_score": 0.3}
    silence = {"missing_sil_score": -1.5, "extra_sil_score": -0.8}
    decoder = BeamSearchDecoder(lexicon, lm, **settings, **silence, merge=merge, **EXHAUSTIVE)
    found = {h.text: h for h in decoder.decode(log_probs)}
    expected = brute_force(log_probs, lexicon, lm, **settings, missing_sil=-1.5, extra_sil=-0.8, merge=merge)
    assert set(found) == set(expected)
    for text, (score, acoustic, lm_score) in expected.items():
        assert found[text].score == pytest.approx(score, abs=1e-4)
        assert found[text].acoustic_score == pytest.approx(acoustic, abs=1e-4)
        assert found[text].lm_score == pytest.approx(lm_score, abs=1e-4)


def test_a_quantized_language_model_is_searched_like_an_exact_one(lexicon, lm):
    log_probs, small = random_log_probs(3, frames=5), lm.quantize()
    silence = {"missing_sil_score": -1.5, "extra_sil_score": -0.8}
    found = {h.text: h for h in BeamSearchDecoder(lexicon, small, **silence, **EXHAUSTIVE).decode(log_probs)}
    expected = brute_force(log_probs, lexicon, small, 1.0, 0.0, -1.5, -0.8, "log_add")
    assert set(found) == set(expected)
    for text, (score, _, lm_score) in expected.items():
        assert found[text].score == pytest.approx(score, abs=1e-4)
        assert found[text].lm_score == pytest.approx(lm_score, abs=1e-4)
    best = BeamSearchDecoder(lexicon, small, merge="max", **silence, beam_threshold=math.inf).decode(log_probs)[0]
    exact = BeamSearchDecoder(lexicon, small, merge="max", **silence, **EXHAUSTIVE).decode(log_probs)[0]
    assert (best.text, best.score) == (exact.text, pytest.approx(exact.score, abs=1e-4))


def test_exhaustive_beam_equals_brute_force_without_a_language_model(lexicon):
    log_probs = random_log_probs(11, frames=5)
    never = {"missing_sil_score": -math.inf, "extra_sil_score": -math.inf}
    decoder = BeamSearchDecoder(lexicon, None, **never, **EXHAUSTIVE)
    found = {h.text: h.score for h in decoder.decode(log_probs)}
    expected = brute_force(log_probs, lexicon, None, 1.0, 0.0, -math.inf, -math.inf, "log_add")
    assert set(found) == set(expected)
    for text, (score, _, _) in expected.items():
        assert found[text] == pytest.approx(score, abs=1e-4)


def test_a_second_silence_speaks_for_a_word_between():
    # "me", then a word that was all but missed, then "be".
    lexicon = Lexicon.from_words({"me": "M IY", "a": "AH", "be": "B IY"})
    log_probs = one_hot("M IY SIL SIL B IY SIL")
    log_probs[6, INDEX["AH"]] = -3.0  # in the blank between the two silences
    free = BeamSearchDecoder(lexicon, extra_sil_score=0.0, merge="max").decode(log_probs)[0]
    assert free.text == "me be"
    assert BeamSearchDecoder(lexicon, extra_sil_score=-8.0, merge="max").decode(log_probs)[0].text == "me a be"


def test_a_phoneme_may_be_needed_where_half_precision_says_that_the_blank_is_certain():
    lexicon = Lexicon.from_words({"beam": "B IY M"})
    spoken = one_hot("B IY", 0.999)
    certain = np.array([[0.0, *(40 * [-30.0])]])
    certain[0, INDEX["M"]] = -9.0
    silence = one_hot("SIL", 0.999)
    log_probs = np.concatenate([spoken, certain, silence])
    found = BeamSearchDecoder(lexicon, missing_sil_score=-math.inf).decode(log_probs)[0]
    assert found.text == "beam" and found.complete


def test_scores_add_up(lexicon, lm):
    decoder = BeamSearchDecoder(lexicon, lm, lm_weight=1.7, word_score=-0.4)
    for h in decoder.decode(random_log_probs(3, frames=12)):
        assert h.score == pytest.approx(h.acoustic_score + 1.7 * h.lm_score - 0.4 * len(h.words))
        assert h.text == " ".join(word.text for word in h.words)
        assert h.lm_score == pytest.approx(lm.score_sentence(h.text), abs=1e-4)


def test_hypotheses_are_distinct_and_sorted(lexicon, lm):
    hypotheses = BeamSearchDecoder(lexicon, lm, num_hypotheses=12).decode(random_log_probs(4, frames=20))
    assert len({h.text for h in hypotheses}) == len(hypotheses) == 12
    assert [h.score for h in hypotheses] == sorted((h.score for h in hypotheses), reverse=True)


def test_a_repeated_phoneme_needs_a_blank():
    lexicon = Lexicon.from_words({"one": "B", "two": "B B"})
    decoder = BeamSearchDecoder(lexicon, None, missing_sil_score=-math.inf, **EXHAUSTIVE)
    b = INDEX["B"]

    def best(path):
        log_probs = np.full((len(path), 41), -np.inf)
        log_probs[np.arange(len(path)), path] = 0.0
        return decoder.decode(log_probs)[0].text

    assert best([b, b, SIL]) == "one"
    assert best([b, 0, b, SIL]) == "two"


def test_the_language_model_chooses_among_homophones(lexicon, lm):
    decoder = BeamSearchDecoder(lexicon, lm)
    assert decoder.decode(one_hot("M IY SIL B IY SIL M SIL B IY SIL"))[0].text == "me be the bee"


def test_a_homophone_is_never_dropped():
    many = {f"word{i}": "B IY" for i in range(100)}
    decoder = BeamSearchDecoder(Lexicon.from_words(many), None, num_hypotheses=1000)
    found = {h.text for h in decoder.decode(one_hot("B IY SIL"))}
    assert set(many) <= found


def test_words_are_found_with_and_without_their_silences(lexicon, lm):
    decoder = BeamSearchDecoder(lexicon, lm)
    for labels in ("M IY SIL B IY SIL", "SIL M IY SIL B IY", "M IY B IY SIL", "M IY B IY", "M IY SIL SIL B IY SIL"):
        assert decoder.decode(one_hot(labels))[0].text == "me be"


def test_word_times_are_those_of_the_phonemes(lexicon, lm):
    words = BeamSearchDecoder(lexicon, lm).decode(one_hot("M IY SIL B IY SIL"))[0].words
    assert [(w.text, w.start_frame, w.end_frame) for w in words] == [("me", 1, 4), ("be", 7, 10)]


def test_confidences_are_shares_of_the_n_best(lexicon, lm):
    hypotheses = BeamSearchDecoder(lexicon, lm).decode(random_log_probs(5, frames=10))
    for hypothesis in hypotheses:
        assert all(0 <= word.confidence <= 1 for word in hypothesis.words)
    sure = BeamSearchDecoder(lexicon, lm).decode(one_hot("M IY SIL B IY SIL", 0.999999))[0]
    assert sure.words[0].confidence > 0.99


def test_all_blank_gives_empty_text(lexicon, lm):
    log_probs = np.full((30, 41), math.log(1e-6))
    log_probs[:, 0] = math.log(1 - 40e-6)
    hypothesis = BeamSearchDecoder(lexicon, lm).decode(log_probs)[0]
    assert hypothesis.text == "" and hypothesis.words == []


def test_no_frames_give_empty_text(lexicon, lm):
    hypotheses = BeamSearchDecoder(lexicon, lm).decode(np.zeros((0, 41)))
    assert [h.text for h in hypotheses] == [""]
    assert hypotheses[0].lm_score == pytest.approx(lm.score_sentence(""))


def test_an_unfinished_word_is_reported_as_incomplete():
    decoder = BeamSearchDecoder(Lexicon.from_words({"be": "B IY"}), None, **EXHAUSTIVE)
    log_probs = np.full((1, 41), -np.inf)
    log_probs[0, INDEX["B"]] = 0.0
    assert [(h.text, h.complete) for h in decoder.decode(log_probs)] == [("", False)]


def test_an_impossible_utterance_gives_an_empty_incomplete_hypothesis():
    decoder = BeamSearchDecoder(Lexicon.from_words({"be": "B IY"}), None, **EXHAUSTIVE)
    log_probs = np.full((3, 41), -np.inf)
    log_probs[:, INDEX["ZH"]] = 0.0
    assert [(h.text, h.complete) for h in decoder.decode(log_probs)] == [("", False)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a[:, :40], r"\(8, 40\)"),
        (lambda a: a[0], r"\(41,\)"),
        (lambda a: np.where(np.arange(8)[:, None] == 5, np.nan, a), "NaN at frame 5, class 0"),
        (lambda a: np.where(np.arange(8)[:, None] == 2, -np.inf, a), "-inf for every class of frame 2"),
        (lambda a: a + 20, "log_softmax"),
        (lambda a: np.zeros((8, 41), dtype=int), "int64"),
    ],
)
def test_wrong_input_is_named(lexicon, lm, change, message):
    decoder = BeamSearchDecoder(lexicon, lm)
    with pytest.raises(ValueError, match=message):
        decoder.decode(change(np.full((8, 41), -math.log(41))))
    with pytest.raises(ValueError, match=r"log_probs\[1\]"):
        decoder.decode_batch([np.full((8, 41), -4.0), change(np.full((8, 41), -math.log(41)))])


@pytest.mark.parametrize(
    "setting",
    [
        {"beam_size": 0},
        {"num_hypotheses": 0},
        {"lm_weight": -1.0},
        {"acoustic_scale": 0.0},
        {"beam_threshold": math.nan},
        {"missing_sil_score": 1.0},
        {"extra_sil_score": 0.5},
        {"blank_skip_threshold": 0.0},
        {"merge": "sum"},
        {"class_order": "alphabetical"},
        {"word_score": math.nan},
    ],
)
def test_a_setting_without_sense_is_named(lexicon, lm, setting):
    with pytest.raises(ValueError, match=str(next(iter(setting.values())))):
        BeamSearchDecoder(lexicon, lm, **setting)


def test_the_class_order_is_only_a_naming(lexicon, lm):
    log_probs = random_log_probs(6, frames=12)
    expected = BeamSearchDecoder(lexicon, lm).decode(log_probs)
    for order in ("lm", "tf24"):
        moved = log_probs[:, class_permutation("model", order)]
        assert BeamSearchDecoder(lexicon, lm, class_order=order).decode(moved) == expected


def test_scale_and_blank_penalty_act_on_the_log_probabilities(lexicon, lm):
    log_probs = random_log_probs(7, frames=10)
    changed = log_probs.copy()
    changed[:, 0] -= 1.3
    plain = BeamSearchDecoder(lexicon, lm, blank_skip_threshold=1.0)
    scaled = BeamSearchDecoder(lexicon, lm, acoustic_scale=0.5, blank_penalty=1.3, blank_skip_threshold=1.0)
    for a, b in zip(plain.decode(0.5 * changed), scaled.decode(log_probs), strict=True):
        assert a.text == b.text and a.score == pytest.approx(b.score, abs=1e-4)


def test_threads_and_order_change_nothing(lexicon, lm):
    batch = [random_log_probs(seed, frames=5 + seed) for seed in range(20)]
    decoder = BeamSearchDecoder(lexicon, lm, beam_size=50)
    alone = [decoder.decode(one) for one in batch]
    assert decoder.decode_batch(batch, num_threads=4) == alone
    assert decoder.decode_batch(batch[::-1]) == alone[::-1]


def test_decoding_releases_the_gil(lexicon, lm):
    decoder = BeamSearchDecoder(lexicon, lm, beam_size=2000, beam_threshold=1e3)
    decoder.decode(random_log_probs(8, frames=3))
    long = random_log_probs(8, frames=150)
    worker = threading.Thread(target=decoder.decode, args=(long,))
    ticks = 0
    worker.start()
    while worker.is_alive():
        ticks += 1
        worker.join(0.001)
    assert ticks > 5


def test_words_unknown_to_the_language_model_score_as_unknown_or_are_dropped(lm):
    lexicon = Lexicon.from_words({"be": "B IY", "zebra": "M IY"})
    assert BeamSearchDecoder(lexicon, lm).decode(one_hot("M IY SIL"))[0].text == "zebra"
    dropping = BeamSearchDecoder(lexicon, lm, unknown_word_score=None)
    assert "zebra" not in {h.text for h in dropping.decode(one_hot("M IY SIL"))}
    with pytest.raises(ValueError, match="zebra"):
        BeamSearchDecoder(Lexicon.from_words({"zebra": "M IY"}), lm, unknown_word_score=None)


def test_a_narrow_beam_keeps_the_best_of_clear_input(lexicon, lm):
    decoder = BeamSearchDecoder(lexicon, lm, beam_size=5, beam_threshold=10.0)
    assert decoder.decode(one_hot("M IY SIL B IY SIL"))[0].text == "me be"


def test_torch_tensors_are_accepted(lexicon, lm):
    torch = pytest.importorskip("torch")
    log_probs = one_hot("M IY SIL B IY SIL")
    decoder = BeamSearchDecoder(lexicon, lm)
    assert decoder.decode(torch.tensor(log_probs)) == decoder.decode(log_probs)
