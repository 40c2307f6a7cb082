"""Ridge regression gives what slower and other software gives."""

import numpy as np
import pytest
import torch

from bit_speech.evaluation.ridge import block_folds, bootstrap_folds, fit_ridge


def problem(trs: int, features: int, voxels: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    inputs = rng.normal(size=(trs, features)) + 1.0
    return inputs, inputs @ rng.normal(size=(features, voxels)) / 4 + rng.normal(size=(trs, voxels)) + 2.0


@pytest.mark.parametrize("trs, features", [(120, 30), (40, 90)])
def test_weights_and_predictions_equal_those_of_scikit_learn(trs, features):
    from sklearn.linear_model import Ridge

    inputs, responses = problem(trs, features, 7)
    fit = fit_ridge(inputs, responses, 12.5, dtype=torch.float64)
    reference = Ridge(12.5).fit(inputs, responses)
    np.testing.assert_allclose(fit.weights.T, reference.coef_, atol=1e-10)
    np.testing.assert_allclose(fit.predict(inputs), reference.predict(inputs), atol=1e-10)


def test_penalties_and_weights_of_every_voxel_equal_those_of_himalaya():
    from himalaya.ridge import RidgeCV
    from himalaya.scoring import r2_score

    inputs, responses = problem(100, 20, 9)
    candidates, folds = np.logspace(-1, 4, 11), block_folds(100, 4, 10)
    splits = [(np.setdiff1d(np.arange(100), fold), fold) for fold in folds]
    reference = RidgeCV(candidates, fit_intercept=True, cv=splits, solver_params={"score_func": r2_score})
    reference.fit(inputs, responses)
    fit = fit_ridge(inputs, responses, candidates, folds, score="r2", dtype=torch.float64)
    np.testing.assert_allclose(fit.penalties, reference.best_alphas_, rtol=1e-9)
    np.testing.assert_allclose(fit.weights, reference.coef_, atol=1e-8)
    np.testing.assert_allclose(fit.scores.max(axis=0), reference.cv_scores_.ravel(), atol=1e-8)


def test_the_penalty_chosen_is_the_one_a_loop_over_voxels_and_folds_chooses():
    from sklearn.linear_model import Ridge

    inputs, responses = problem(90, 25, 5, seed=3)
    candidates, folds = [0.1, 10.0, 1000.0], block_folds(90, 3, 6)
    fit = fit_ridge(inputs, responses, candidates, folds, dtype=torch.float64)
    for voxel in range(5):
        means = []
        for candidate in candidates:
            scores = []
            for fold in folds:
                training = np.setdiff1d(np.arange(90), fold)
                model = Ridge(candidate).fit(inputs[training], responses[training, voxel])
                scores.append(np.corrcoef(model.predict(inputs[fold]), responses[fold, voxel])[0, 1])
            means.append(np.mean(scores))
        np.testing.assert_allclose(fit.scores[:, voxel], means, atol=1e-9)
        assert fit.penalties[voxel] == candidates[int(np.argmax(means))]


def test_voxels_in_slices_and_single_precision_change_nothing_that_matters():
    inputs, responses = problem(100, 20, 9)
    whole = fit_ridge(inputs, responses, [1.0, 100.0], dtype=torch.float64)
    sliced = fit_ridge(inputs, responses, [1.0, 100.0], voxels_at_once=2)
    np.testing.assert_array_equal(whole.penalties, sliced.penalties)
    np.testing.assert_allclose(whole.weights, sliced.weights, atol=1e-5)


def test_folds_hold_every_time_once_in_whole_blocks():
    folds = block_folds(103, 4, 10, seed=5)
    assert sorted(np.concatenate(folds).tolist()) == list(range(103))
    for fold in folds:
        assert all(len(np.intersect1d(fold, range(10 * b, min(103, 10 * b + 10)))) in (0, 3, 10) for b in range(11))


def test_bootstrap_draws_the_share_that_was_asked_for_in_blocks():
    draws = bootstrap_folds(200, num_draws=3, block_trs=10, share=0.25)
    assert [len(draw) for draw in draws] == [50, 50, 50]
    assert all((draw.reshape(-1, 10) % 10 == np.arange(10)).all() for draw in draws)


@pytest.mark.parametrize(
    "features, responses, penalties, message",
    [
        (np.zeros((4, 2)), np.zeros((5, 2)), [1.0], r"\(4, 2\) and responses \(5, 2\)"),
        (np.zeros((4, 2)), np.zeros((4, 2)), [1.0, -1.0], r"\[1.0, -1.0\]"),
        (np.zeros((4, 2)), np.full((4, 3), np.nan), [1.0], "responses hold NaN or infinity in column 0"),
    ],
)
def test_what_cannot_be_fitted_is_refused_with_its_value(features, responses, penalties, message):
    with pytest.raises(ValueError, match=message):
        fit_ridge(features, responses, penalties)
