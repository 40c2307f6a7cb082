"""Figures of encoding models are images, equal for equal input, and refuse what does not fit."""

import numpy as np
import pytest

from bit_speech.evaluation.encoding_figures import controls_figure, curves_figure, surface_figure

PNG = b"\x89PNG"


def test_controls_and_curves_are_drawn_alike_twice():
    rng = np.random.default_rng(0)
    values = {"words": rng.normal(size=50), "permuted": rng.normal(size=50)}
    means = {"words": (0.1, 0.0, 0.2), "permuted": (0.0, -0.1, 0.1), "rate": (0.05, 0.0, 0.1)}
    first, second = (controls_figure(values, values["words"] > 1, means) for _ in range(2))
    assert first.startswith(PNG) and first == second
    assert curves_figure({"a": [(1, 0.1, 0.0, 0.2), (4, 0.2, 0.1, 0.3)]}, "stories", "r", log=True).startswith(PNG)


def test_a_surface_shows_two_hemispheres_and_needs_a_place_for_every_vertex():
    rng = np.random.default_rng(0)
    scores = np.where(rng.random(40) < 0.2, np.nan, rng.normal(size=40))
    assert surface_figure(scores, rng.normal(size=(40, 3)), "gain").startswith(PNG)
    with pytest.raises(ValueError, match=r"\(40, 2\)"):
        surface_figure(scores, rng.normal(size=(40, 2)), "gain")
