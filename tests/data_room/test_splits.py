"""Splits share no block and no sentence, or say so."""

import datasets
import numpy as np
import pytest

from bit_speech.data.splits import check_leakage, find_leakage, split_by_block, split_by_session

FRACTIONS = {"train": 0.6, "validation": 0.2, "test": 0.2}


def keys(part):
    return set(zip(part["session_id"][:].tolist(), part["block_index"][:].tolist()))


def test_blocks_stay_whole_and_every_session_trains(dataset, trials):
    data = dataset(trials(blocks=(1, 2, 3, 4, 5)))
    parts = split_by_block(data, FRACTIONS)
    assert sum(map(len, parts.values())) == len(data)
    assert keys(parts["train"]) | keys(parts["validation"]) | keys(parts["test"]) == keys(data)
    assert not keys(parts["train"]) & keys(parts["test"])
    assert len(parts["train"]) == 18 and len(parts["validation"]) == len(parts["test"]) == 6
    assert set(parts["train"]["session_id"][:].tolist()) == {"p.2024.01.01", "p.2024.01.08"}


def test_the_split_column_says_the_new_split_and_nothing_else_changes(dataset, trials):
    rows = trials(blocks=(1, 2, 3, 4, 5))
    data = dataset(rows)
    parts = split_by_block(data, FRACTIONS)
    original = {row["text"]: row for row in rows}
    for name, part in parts.items():
        assert part.column_names == data.column_names and part.features == data.features
        for row in part:
            assert row["split"] == name
            np.testing.assert_array_equal(row["features"], original[str(row["text"])]["features"])


def test_the_choice_depends_on_the_seed_alone(dataset, trials):
    data = dataset(trials(blocks=tuple(range(8))))
    first, again, other = (split_by_block(data, FRACTIONS, seed=seed) for seed in (1, 1, 2))
    assert keys(first["test"]) == keys(again["test"]) != keys(other["test"])


def test_whole_sessions_are_held_out(dataset, trials):
    parts = split_by_session(dataset(trials()), {"test": ["p.2024.01.08"]})
    assert set(parts) == {"train", "test"}
    assert set(parts["test"]["session_id"][:].tolist()) == {"p.2024.01.08"}
    assert set(parts["train"]["session_id"][:].tolist()) == {"p.2024.01.01"}


def repeated(trials):
    rows = trials(blocks=(1, 2, 3, 4, 5))
    rows[0]["text"], rows[-1]["text"] = "The same,  sentence!", "the same sentence"
    return rows


def test_a_sentence_in_two_splits_is_refused_dropped_or_kept(dataset, trials):
    data = dataset(repeated(trials))
    held_out = {"test": ["p.2024.01.08"]}
    with pytest.raises(ValueError, match="1 sentence.s. in more than one split, for example 'the same sentence'"):
        split_by_session(data, held_out)
    dropped = split_by_session(data, held_out, on_repeated_sentence="drop")
    assert len(dropped["train"]) == 14 and len(dropped["test"]) == 15
    kept = split_by_session(data, held_out, on_repeated_sentence="keep")
    assert len(kept["train"]) == 15
    with pytest.raises(ValueError, match="'error', 'drop' or 'keep'"):
        split_by_session(data, held_out, on_repeated_sentence="ignore")


def test_splits_of_the_source_are_reported_instead(dataset, trials):
    rows = repeated(trials)
    parts = datasets.DatasetDict({"train": dataset(rows[:1] + rows[3:6]), "validation": dataset(rows[1:3] + rows[-1:])})
    with pytest.raises(ValueError, match="leakage between splits"):
        check_leakage(parts)
    report = check_leakage(parts, made_by_source=True)
    assert not report.ok
    assert report.blocks == {("p.2024.01.01", 1): ("train", "validation")}
    assert report.sentences == {"the same sentence": ("train", "validation")}
    assert report.trials_affected == {"train": 1, "validation": 1}
    assert report.to_dict()["blocks_in_several_splits"] == {"train + validation": 1}
    assert check_leakage(datasets.DatasetDict({"train": dataset(rows[:3]), "test": dataset(rows[3:6])})).ok


def test_trials_without_text_leak_no_sentence():
    assert find_leakage([("train", "a", 1, None), ("test", "a", 2, None)]).ok


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ({"train": 1.0}, "at least two of train, validation, test"),
        ({"train": 0.5, "dev": 0.5}, "got train, dev"),
        ({"train": 0.5, "test": 0.6}, "sum to 1"),
        ({"train": 1.5, "test": -0.5}, "between 0 and 1"),
    ],
)
def test_wrong_fractions_are_refused(dataset, trials, fractions, message):
    with pytest.raises(ValueError, match=message):
        split_by_block(dataset(trials()), fractions)


def test_too_few_blocks_are_refused(dataset, trials):
    with pytest.raises(ValueError, match="no block is left for validation, test: 2 blocks in 2 sessions"):
        split_by_block(dataset(trials(blocks=(1,))), FRACTIONS)


@pytest.mark.parametrize(
    ("sessions", "message"),
    [
        ({}, "got none"),
        ({"train": ["p.2024.01.01"]}, "got train"),
        ({"test": []}, "give a list of sessions"),
        ({"test": ["p.2030"]}, "no session 'p.2030'; the dataset has p.2024.01.01, p.2024.01.08"),
        ({"test": ["p.2024.01.01"], "validation": ["p.2024.01.01"]}, "named twice"),
        ({"test": ["p.2024.01.01", "p.2024.01.08"]}, "none is left to train"),
    ],
)
def test_wrong_sessions_are_refused(dataset, trials, sessions, message):
    with pytest.raises(ValueError, match=message):
        split_by_session(dataset(trials()), sessions)
