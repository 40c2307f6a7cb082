"""What the end-to-end benchmark is made of: simulated hearing, order of cells, intervals, text never to be read."""

from itertools import product

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from benchmarks import end_to_end, spelling_lm
from benchmarks.end_to_end_analysis import project
from benchmarks.end_to_end_cells import REFERENCE, VARIANTS, confidence_quality, subset
from benchmarks.end_to_end_people import held_out_sentences
from bit_speech.decoding import greedy_decode
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

from ..decoding.small_language_models import small_model, small_tokenizer


class Words:
    """A tokenizer with one token a word, as far as the benchmark asks."""

    bos_token_id, eos_token_id, pad_token_id = 1, 2, 0

    def __call__(self, text, add_special_tokens):
        return {"input_ids": [3 + sum(map(ord, word)) % 20 for word in text.split()]}

    def convert_ids_to_tokens(self, ids):
        return ["Ġ" * (place > 0) + str(one) for place, one in enumerate(ids)]


def test_simulated_posteriors_are_probabilities_that_mostly_say_what_was_said():
    rng = np.random.default_rng(0)
    labels = [MODEL_ORDER.index(name) for name in ["HH", "AY", "SIL", "DH", "EH", "R", "SIL"]] * 3
    wrong = 0
    for _ in range(40):
        frames, words = spelling_lm.pseudo_posteriors(labels, rng)
        assert sorted(set(words.tolist())) == [-1, 0, 1, 2, 3, 4, 5] and (np.diff(words) >= 0).all()
        assert frames.min() >= 0 and np.allclose(frames.sum(1), 1)
        found = greedy_decode(np.log(frames + 1e-9))
        wrong += abs(len(found) - len(labels)) + sum(a != b for a, b in zip(found, labels) if len(found) == len(labels))
    assert 0 < wrong < 0.35 * 40 * len(labels)


def test_stacked_posteriors_end_in_blanks():
    stacked = spelling_lm.stack(np.eye(41, dtype=np.float32)[[5, 6, 7]], 2)
    assert stacked.shape == (2, 82)
    assert [int(row[:41].argmax()) for row in stacked] == [5, 7] and [int(row[41:].argmax()) for row in stacked] == [
        6,
        0,
    ]


def test_a_batch_teaches_the_sentence_and_its_end_and_nothing_else():
    batch = next(spelling_lm.batches(["i see you", "go on"] * 8, Words(), 2, np.random.default_rng(0), 4, 32))
    posteriors, positions, mask, text, counts, guide = batch
    heard = posteriors.shape[1]
    assert (text[:, :heard] == 1).sum(1).tolist() == [1] * len(text)  # one token begins every text
    assert (posteriors.sum(-1) == 0)[mask[:, :heard].bool()].sum() == len(text)
    taught = [row[:, None][kept.bool()].flatten().tolist() for row, kept in zip(text[:, heard:], counts)]
    expected = {tuple(Words()(line, False)["input_ids"] + [2]) for line in ("i see you", "go on")}
    assert set(map(tuple, taught)) == expected
    # Every word of the text is shown where it was heard, and nothing else is.
    assert (guide.any(-1) == (counts.bool() & (text[:, heard:] != 2))).all()
    assert not guide[:, :, (posteriors.sum(-1) == 0).all(0)].any()
    for place, real in zip(positions, mask.bool()):
        assert (torch.diff(place[real]) > 0).all()


def test_the_table_of_a_stacked_token_has_every_class_once_a_frame():
    hearing = spelling_lm.Hearing(3, 8, 0.02)
    assert hearing().shape == (3 * 41, 8)
    assert torch.equal(hearing()[:41], hearing.classes)


def test_a_table_goes_on_from_what_it_was():
    before, after = spelling_lm.Hearing(3, 64, 0.02), spelling_lm.Hearing(3, 64, 0.02)
    after.start_at(before().detach())
    assert torch.allclose(after(), before(), atol=1e-5)


def test_a_second_round_goes_on_where_the_first_ended_also_after_a_stop(tmp_path, monkeypatch):
    tokenizer = small_tokenizer()
    small_model("qwen2", vocab_size=len(tokenizer)).save_pretrained(tmp_path / "text")
    tokenizer.save_pretrained(tmp_path / "text")
    words = ["i", "you", "we", "they", "see", "hear", "know"]
    said = [" ".join(three) for three in product(words, repeat=3)]  # 200 of them are held out
    monkeypatch.setattr(spelling_lm, "spelling_sentences", lambda exclude, parts: said)
    monkeypatch.setattr(spelling_lm, "GUIDED_LAYERS", (0,))
    rounds, settings = [(2, 1e-3), (2, 1e-3)], {"words_per_batch": 24, "max_words": 3}
    for name, steps in (("once", [rounds]), ("stopped", [rounds[:1], rounds])):
        for wanted in steps:
            record = spelling_lm.train_spelling_lm(tmp_path / "text", tmp_path / name, [], rounds=wanted, **settings)
        assert [found["steps"] for found in record["rounds"]] == [2, 2]
    for name in ("model.safetensors", spelling_lm.TABLE):
        once, stopped = (load_file(tmp_path / folder / name) for folder in ("once", "stopped"))
        assert all(torch.equal(once[key], stopped[key]) for key in once)
    assert not list(tmp_path.glob("*.round*"))


def test_words_come_before_sentences():
    lengths = [spelling_lm.curriculum(step, 100, 6) for step in range(100)]
    assert lengths[0] == 1 and lengths[-1] == 6 and lengths == sorted(lengths)


def test_sentences_that_are_scored_are_not_spelled():
    held_out = held_out_sentences()
    kept = set(spelling_lm.spelling_sentences(held_out[:300], (), 6))
    assert kept and not kept & {text.lower().strip(".?!") for text in held_out[:300]}


def test_a_run_stopped_early_leaves_whole_comparisons():
    cells = end_to_end.wanted_cells(end_to_end.GROUPS, (0, 1))
    assert cells[:2] == [("attempted", REFERENCE, 0), ("attempted", REFERENCE, 1)]
    assert cells[2:4] == [("imagined_scratch", REFERENCE, 0), ("imagined_pretrained", REFERENCE, 0)]
    ablation = cells[6:]
    assert [seed for *_, seed in ablation] == [0] * (len(VARIANTS) - 1) + [1] * (len(VARIANTS) - 1)


def test_differences_are_pooled_over_sentences_and_seeds():
    cells = [
        {"test": {"greedy": {"errors": [1, 0], "lengths": [4, 4]}, "cascade": {"errors": [0, 0], "lengths": [4, 4]}}},
        {"test": {"greedy": {"errors": [3, 2], "lengths": [4, 4]}, "cascade": {"errors": [1, 2], "lengths": [4, 4]}}},
    ]
    assert end_to_end.pooled(cells, "greedy", draws=20)[0] == pytest.approx(6 / 16)
    difference = end_to_end.pooled(cells, "greedy", "cascade", draws=200)
    assert difference[0] == pytest.approx(3 / 16) and difference[1] >= 0
    assert end_to_end.compared(cells, cells, draws=20) == [0.0, 0.0, 0.0]


def test_lists_are_cut_out_with_their_scores():
    one = {
        "texts": ["a", "b", "c"],
        "features": np.arange(12.0).reshape(3, 4),
        "own": ["c", "b"],
        "cascade": ["a", "b"],
    }
    texts, features = subset(one, ("own",))
    assert texts == ["b", "c"] and features[:, 0].tolist() == [4.0, 8.0]


def test_confidences_are_judged_by_the_words_they_belong_to():
    found = confidence_quality(["go on", "see it"], [(0.9, 0.8), (0.7, 0.2)], ["go on", "see me"])
    assert (found["words"], found["wrong_words"], found["area_under_roc"]) == (4, 1, 1.0)


def test_projection_is_arithmetic_on_the_rates():
    rows = project(1e10, 1e12)["machines"]["this processor"]["models"]["Qwen2.5 1.5B"]
    assert rows["token_ms"] == pytest.approx(1000 * 2 * 1.54e9 / 1e10)
    assert rows["prefill_ms"] == pytest.approx(1000 * 2 * 1.54e9 * 180 / 1e12)
