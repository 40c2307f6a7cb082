"""Representations are compared as the paper defines it, with tests that tell structure from noise."""

import numpy as np
import pytest

from bit_speech.evaluation import (
    attention_over_neural,
    confusions,
    dissimilarity_matrix,
    principal_plane,
    representational_similarity,
    sentence_vectors,
    shared_words,
    similarity_by_stage,
    task_separability,
    word_vectors,
)
from bit_speech.evaluation.representation_figures import (
    attention_figure,
    similarity_figure,
    stage_figure,
    substitution_figure,
    word_plane_figure,
)

PNG = b"\x89PNG"


def test_segments_cover_every_frame_once_whatever_the_length():
    for frames in (10, 11, 17, 63):
        vectors, kept = sentence_vectors([np.arange(frames, dtype=float)[:, None]])
        borders = np.linspace(0, frames, 11).round().astype(int)
        sizes = np.diff(borders)
        assert kept.tolist() == [0] and vectors.shape == (1, 10)
        assert (vectors[0] * sizes).sum() == pytest.approx(frames * (frames - 1) / 2)


def test_sentences_outside_of_the_asked_lengths_are_left_out():
    states = [np.ones((frames, 3)) for frames in (44, 45, 80, 81)]
    assert sentence_vectors(states, min_tokens=45, max_tokens=80)[1].tolist() == [1, 2]
    with pytest.raises(ValueError, match="widen min_tokens"):
        sentence_vectors(states, min_tokens=100)


def test_dissimilarity_ignores_length_and_refuses_what_has_no_direction():
    vectors = np.random.default_rng(0).normal(size=(6, 4))
    scaled = vectors * np.arange(1, 7)[:, None]
    np.testing.assert_allclose(dissimilarity_matrix(vectors), dissimilarity_matrix(scaled), atol=1e-12)
    with pytest.raises(ValueError, match="vector 1 is zero"):
        dissimilarity_matrix(np.array([[1.0, 0.0], [0.0, 0.0]]))


def test_related_representations_correlate_and_unrelated_ones_do_not():
    rng = np.random.default_rng(1)
    hidden = rng.normal(size=(40, 6))
    first = dissimilarity_matrix(hidden @ rng.normal(size=(6, 30)))
    related = dissimilarity_matrix(hidden @ rng.normal(size=(6, 50)) + 0.3 * rng.normal(size=(40, 50)))
    unrelated = dissimilarity_matrix(rng.normal(size=(40, 50)))
    found = representational_similarity(first, related, 200, 200)
    assert found.correlation > 0.5 and found.low > 0.3 and found.p_value <= 1 / 201 + 1e-9
    assert found.low < found.correlation < found.high
    noise = representational_similarity(first, unrelated, 200, 200)
    assert noise.low < 0 < noise.high and noise.p_value > 0.05


def test_a_similarity_equals_numpys_correlation_of_the_upper_triangles():
    rng = np.random.default_rng(2)
    a, b = (dissimilarity_matrix(rng.normal(size=(9, 3))) for _ in range(2))
    upper = np.triu_indices(9, k=1)
    found = representational_similarity(a, b, 10, 10).correlation
    assert found == pytest.approx(np.corrcoef(a[upper], b[upper])[0, 1])


def test_matrices_that_cannot_be_compared_are_refused():
    with pytest.raises(ValueError, match="two equal squares"):
        representational_similarity(np.zeros((4, 4)), np.zeros((5, 5)))
    with pytest.raises(ValueError, match="first matrix is constant"):
        representational_similarity(np.ones((4, 4)), dissimilarity_matrix(np.eye(4) + 1))
    with pytest.raises(ValueError, match="too few"):
        representational_similarity(np.zeros((3, 3)), np.zeros((3, 3)))


def test_a_word_is_the_mean_of_its_occurrences_each_counting_once():
    states = [np.array([[0.0], [0.0], [0.0], [8.0]]), np.array([[4.0]])]
    words, vectors = word_vectors(states, [[("go", 0, 3), ("up", 3, 4)], [("go", 0, 1)]])
    assert words == ["go", "up"] and vectors.tolist() == [[2.0], [8.0]]
    with pytest.raises(ValueError, match="'go' of sentence 0 spans frames 2 to 9"):
        word_vectors(states, [[("go", 2, 9)], []])


def test_tasks_are_compared_on_their_common_words_only():
    words, a, b = shared_words((["go", "up"], np.array([[1.0], [2.0]])), (["in", "up"], np.array([[3.0], [4.0]])))
    assert words == ["up"] and a.tolist() == [[2.0]] and b.tolist() == [[4.0]]
    with pytest.raises(ValueError, match="no word is in both"):
        shared_words((["go"], np.ones((1, 1))), (["in"], np.ones((1, 1))))


def test_separable_tasks_are_found_and_equal_ones_are_at_chance_even_with_more_dimensions_than_words():
    rng = np.random.default_rng(3)
    words = rng.normal(size=(16, 40))
    shifted = words + 0.1 * rng.normal(size=(16, 40))
    shifted[:, 0] += 8.0
    found = task_separability(words, shifted, num_shuffles=20)
    assert found.accuracy > 0.95 and found.p_value < 0.06 and abs(found.axis[0]) > 0.5
    same = task_separability(
        words + rng.normal(size=words.shape), words + rng.normal(size=words.shape), num_shuffles=20
    )
    assert 0.25 < same.accuracy < 0.75 and same.p_value > 0.05


def test_confusions_count_substitutions_only_and_order_tokens_by_errors():
    said = [["D", "AH", "B"], ["D", "D", "S"], ["K"], []]
    decoded = [["T", "AH", "P"], ["T", "D", "Z"], [], ["IY"]]
    found = confusions(said, decoded)
    assert found.tokens[0] == "D" and found.num_substitutions == 4
    assert found.percent.sum() == pytest.approx(100) and found.percent[found.tokens.index("T"), 0] == 50.0
    assert dict(found.deletions) == {"K": 1} and dict(found.insertions) == {"IY": 1}
    frequent = confusions(said, decoded, order="alphabetical", min_count=2)
    assert frequent.tokens == ("D", "T") and frequent.num_substitutions == 2


def test_every_figure_is_drawn():
    rng = np.random.default_rng(4)
    first, second = rng.normal(size=(12, 8)), rng.normal(size=(12, 8))
    a, b = dissimilarity_matrix(first), dissimilarity_matrix(second)
    result = representational_similarity(a, b, 10, 10)
    assert similarity_figure(a, b, ("encoder", "language model"), result).startswith(PNG)
    plane = principal_plane(first, second)
    names = [f"word{i}" for i in range(12)]
    assert word_plane_figure(names, *plane, ("attempted", "imagined")).startswith(PNG)
    assert substitution_figure(confusions([["B"]], [["P"]])).startswith(PNG)
    with pytest.raises(ValueError, match="no substitution"):
        substitution_figure(confusions([["B"]], [["B"]]))


def test_every_stage_is_compared_on_the_sentences_that_all_stages_can_cut():
    rng = np.random.default_rng(0)
    text = rng.normal(size=(12, 5))
    copy = [np.tile(row, (6, 1)) for row in text]
    short = [rng.normal(size=(2 if index == 0 else 4, 3)) for index in range(12)]
    found = similarity_by_stage({"copy": copy, "short": short}, text, num_segments=3, num_permutations=20)
    assert found["copy"].num_items == found["short"].num_items == 11
    assert found["copy"].correlation == pytest.approx(1)
    assert stage_figure(found).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="has 12 sentences, the text 11"):
        similarity_by_stage({"copy": copy}, text[1:])
    with pytest.raises(ValueError, match="0 sentences have 9 frames"):
        similarity_by_stage({"copy": copy}, text, num_segments=9)


def test_attention_maps_keep_the_neural_places_of_the_position_that_writes():
    steps = []
    for length in (4, 5):
        layer = np.zeros((1, 2, 4 if length == 4 else 1, length))
        layer[0, :, -1] = np.arange(length) / 10
        steps.append([layer, 3 * layer])
    found = attention_over_neural(steps, np.array([False, True, True, False]))
    assert found == pytest.approx(np.array([[0.2, 0.4], [0.2, 0.4]]))
    assert attention_figure(found, ["go", "on"]).startswith(b"\x89PNG")
    with pytest.raises(ValueError, match="2 rows of attention for 1 tokens"):
        attention_figure(found, ["go"])
    with pytest.raises(ValueError, match="looks at 4 positions"):
        attention_over_neural(steps, np.ones(9, dtype=bool))
    with pytest.raises(ValueError, match="no generation step"):
        attention_over_neural([], np.ones(2, dtype=bool))
