import numpy as np
import pytest

from bit_speech.evaluation.retrieval import Ranks, fit_scaling
from bit_speech.evaluation.retrieval_figures import day_figure, plane, rank_figure, scaling_figure

RNG = np.random.default_rng(0)


def test_every_figure_is_a_picture_and_equal_input_gives_equal_bytes():
    ranks = {"model": Ranks(RNG.integers(0, 50, 80).astype(float), np.full(80, 50))}
    runs = 0.4 - 0.1 * np.log10([1, 2, 4]) + 0.01 * RNG.normal(size=(3, 3))
    vectors, days = RNG.normal(size=(60, 5)), np.repeat(np.arange(3), 20)
    for draw in (
        lambda: rank_figure(ranks),
        lambda: scaling_figure([1, 2, 4], runs, fit_scaling([1, 2, 4], runs)),
        lambda: day_figure({"brain": plane(vectors), "audio": plane(vectors[::-1])}, days),
    ):
        picture = draw()
        assert picture.startswith(b"\x89PNG") and picture == draw() and len(picture) > 5000


def test_the_plane_holds_the_most_variance():
    vectors = RNG.normal(size=(50, 4)) * [5, 0.1, 3, 0.1]
    assert plane(vectors).var(axis=0).sum() > 0.95 * vectors.var(axis=0).sum()
    with pytest.raises(ValueError, match="tsne"):
        plane(vectors, "tsne")
    with pytest.raises(ValueError, match="no system"):
        rank_figure({})
