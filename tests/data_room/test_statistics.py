"""Statistics are those of all bins of a block or session, and tell how recordings were normalised."""

from pathlib import Path

import datasets
import numpy as np
import pytest

from bit_speech.data.statistics import (
    RunningStatistics,
    block_statistics,
    check_normalization,
    session_statistics,
)

FIXTURES = Path(__file__).parents[1] / "fixtures"


def bins_of(rows, **wanted):
    chosen = [row["features"] for row in rows if all(row[key] == value for key, value in wanted.items())]
    return np.concatenate(chosen).astype(np.float64)


def test_block_statistics_equal_numpy_on_all_bins_of_the_block(dataset, trials):
    rows = trials()
    statistics = block_statistics(dataset(rows))
    assert len(statistics) == 6
    for (session, block), (mean, std) in statistics.items():
        bins = bins_of(rows, session_id=session, block_index=block)
        np.testing.assert_allclose(mean, bins.mean(axis=0), rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(std, bins.std(axis=0), rtol=1e-6)
        assert mean.dtype == std.dtype == np.float32


def test_a_block_that_lies_in_two_splits_is_pooled(dataset, trial):
    rows = [trial(trial=0), trial(trial=1, split="validation")]
    parts = datasets.DatasetDict({"train": dataset(rows[:1]), "validation": dataset(rows[1:])})
    mean, _ = block_statistics(parts)[("p.2024.01.01", 1)]
    np.testing.assert_allclose(mean, bins_of(rows).mean(axis=0), rtol=1e-5, atol=1e-7)


def test_session_statistics_see_training_trials_only(dataset, trials):
    rows = trials()
    for row in rows:
        if row["block_index"] == 3:
            row["split"] = "test"
            row["features"] += 100
    statistics = session_statistics(dataset(rows))
    expected = bins_of(rows, session_id="p.2024.01.01", split="train")
    np.testing.assert_allclose(statistics["p.2024.01.01"][0], expected.mean(axis=0), rtol=1e-5, atol=1e-6)
    assert session_statistics(dataset(rows), splits=None)["p.2024.01.01"][0].mean() > 10
    with pytest.raises(ValueError, match="no trial of split 'validation'"):
        session_statistics(dataset(rows), splits=["validation"])


def test_a_large_mean_does_not_cancel():
    rng = np.random.default_rng(0)
    values = (1e6 + rng.normal(size=(3000, 2))).astype(np.float32)
    running = RunningStatistics()
    for part in np.array_split(values, 7):
        running.add(part)
    np.testing.assert_allclose(running.std, values.astype(np.float64).std(axis=0), rtol=1e-9)
    assert running.count == 3000
    with pytest.raises(ValueError, match="3 channels, those before it 2"):
        running.add(np.zeros((1, 3)))


def normalised(rows, groups):
    for group in groups:
        bins = bins_of(rows, **group)
        for row in rows:
            if all(row[key] == value for key, value in group.items()):
                row["features"] = ((row["features"] - bins.mean(axis=0)) / bins.std(axis=0)).astype(np.float32)
    return rows


def drifting(trials):
    rows = trials(per_block=6)
    for row in rows:
        row["features"] = row["features"] * 3 + 5 + 2 * row["block_index"]
    return rows


def test_recordings_are_told_raw_from_z_scored(trials):
    sessions = [{"session_id": s} for s in ("p.2024.01.01", "p.2024.01.08")]
    blocks = [{**session, "block_index": block} for session in sessions for block in (1, 2, 3)]
    assert check_normalization(drifting(trials)).kind == "raw"
    by_block = check_normalization(normalised(drifting(trials), blocks))
    assert by_block.kind == "block" and by_block.num_blocks == 6 and by_block.num_sessions == 2
    assert check_normalization(normalised(drifting(trials), sessions)).kind == "session"
    running = normalised(drifting(trials), blocks)
    for i, row in enumerate(running):
        row["features"] = row["features"] * 1.1 + 0.1 * (-1) ** (i // 6)
    assert check_normalization(running).kind == "running"
    assert "running (|mean|" in str(check_normalization(running))
    with pytest.raises(ValueError, match="no trial"):
        check_normalization([])


def test_a_real_trial_of_a_block_z_scored_recording_is_not_called_raw():
    features = np.load(FIXTURES / "t12_neural_trial/figure1_neural_data.npy").T
    row = {"session_id": "t12.2022.04.28", "block_index": 1, "features": features}
    # One trial of its block: near mean 0 and deviation 1, but not exactly.
    assert check_normalization([row]).kind == "running"
