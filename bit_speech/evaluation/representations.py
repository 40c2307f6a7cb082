"""What an encoder has learnt to tell apart: representational similarity, word embeddings across tasks, confusions.

Zhang, He et al. 2025 (arXiv 2511.21740) compare encoders by these three; where the paper leaves a choice open, the
choice made here is named in the function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bit_speech.evaluation.error_rates import align_tokens
from bit_speech.import_utils import require


@dataclass(frozen=True)
class RepresentationalSimilarity:
    """How alike two representations arrange the same items.

    Args:
        correlation (`float`): Pearson correlation of the upper triangles of the two dissimilarity matrices.
        low (`float`): lower end of the 95 % interval over items, drawn again with replacement.
        high (`float`): upper end.
        p_value (`float`): share of random re-orderings of the items of one matrix that correlate at least as well
            (Mantel test); one-sided, never below 1 / (permutations + 1).
        num_items (`int`): items compared.
    """

    correlation: float
    low: float
    high: float
    p_value: float
    num_items: int


@dataclass(frozen=True)
class TaskSeparability:
    """How well a linear classifier tells two tasks apart.

    Args:
        accuracy (`float`): balanced accuracy of linear discriminant analysis on words that it was not fitted on.
        chance (`float`): mean of the same under shuffled task names within each word.
        p_value (`float`): share of the shuffles that reach the accuracy; never below 1 / (shuffles + 1).
        axis (`np.ndarray` of shape `(D,)`): discriminant direction fitted on everything, unit length.
    """

    accuracy: float
    chance: float
    p_value: float
    axis: np.ndarray


def sentence_vectors(
    states: Sequence[np.ndarray], num_segments: int = 10, min_tokens: int = 1, max_tokens: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Turn encoder outputs of different lengths into vectors of one length.

    Args:
        states (list of `np.ndarray` of shape `(P, D)`): real frames of each sentence; frames differ, D does not.
        num_segments (`int`): a sentence is cut into this many segments of (nearly) equal length in time.
        min_tokens (`int`): shorter sentences are left out; the paper keeps 45-80 tokens for T12, 120-200 for T15.
        max_tokens (`int`, *optional*): longer sentences are left out.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: vectors `(N, num_segments * D)`, the segments' means one after the other; and
        the indices `(N,)` of the sentences that were kept.

    Raises:
        ValueError: when a sentence has the wrong shape or a value that is not finite, or none is left.

    Example:
        ```python
        >>> vectors, kept = sentence_vectors([np.arange(8.0).reshape(4, 2), np.zeros((1, 2))], num_segments=2)
        >>> vectors.tolist(), kept.tolist()
        ([[1.0, 2.0, 5.0, 6.0]], [0])

        ```
    """
    if num_segments < 1:
        raise ValueError(f"num_segments is {num_segments}; expected at least 1")
    vectors, kept = [], []
    for index, one in enumerate(states):
        array = np.asarray(one, dtype=np.float64)
        if array.ndim != 2:
            raise ValueError(f"states[{index}] has shape {array.shape}; expected (frames, width)")
        if not np.isfinite(array).all():
            raise ValueError(f"states[{index}] holds NaN or infinity; the encoder's output is broken there")
        longest = len(array) if max_tokens is None else max_tokens
        if not max(min_tokens, num_segments) <= len(array) <= longest:
            continue
        borders = np.linspace(0, len(array), num_segments + 1).round().astype(int)
        vectors.append(np.concatenate([array[a:b].mean(axis=0) for a, b in zip(borders, borders[1:])]))
        kept.append(index)
    if not kept:
        raise ValueError(
            f"none of the {len(states)} sentences has between {max(min_tokens, num_segments)} and {max_tokens} tokens; "
            "widen min_tokens and max_tokens"
        )
    return np.stack(vectors), np.array(kept)


def dissimilarity_matrix(vectors: np.ndarray) -> np.ndarray:
    """Representational dissimilarity: one minus the cosine of every pair of vectors.

    Args:
        vectors (`np.ndarray` of shape `(N, D)`): one vector for each item.

    Returns:
        `np.ndarray` of shape `(N, N)`: symmetric, zero on the diagonal, between 0 and 2.

    Raises:
        ValueError: when a vector is zero, because it has no direction.

    Example:
        ```python
        >>> dissimilarity_matrix(np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])).tolist()
        [[0.0, 1.0, 2.0], [1.0, 0.0, 1.0], [2.0, 1.0, 0.0]]

        ```
    """
    vectors = np.asarray(vectors, dtype=np.float64)
    lengths = np.linalg.norm(vectors, axis=1)
    if not (lengths > 0).all():
        raise ValueError(f"vector {int(np.argmin(lengths))} is zero or NaN and has no direction; leave that item out")
    unit = vectors / lengths[:, None]
    distances = 1.0 - unit @ unit.T
    np.fill_diagonal(distances, 0.0)
    return np.clip(distances, 0.0, 2.0)


def representational_similarity(
    first: np.ndarray, second: np.ndarray, num_permutations: int = 1000, num_bootstrap: int = 1000, seed: int = 0
) -> RepresentationalSimilarity:
    """Compare how two representations arrange the same items.

    Args:
        first (`np.ndarray` of shape `(N, N)`): dissimilarities of one representation.
        second (`np.ndarray` of shape `(N, N)`): dissimilarities of the other, items in the same order.
        num_permutations (`int`): re-orderings for the p value.
        num_bootstrap (`int`): draws of items for the interval; pairs of an item with its own copy are left out.
        seed (`int`): of both.

    Returns:
        [`RepresentationalSimilarity`].

    Raises:
        ValueError: when the matrices differ in shape, have fewer than four items, or one of them is constant.

    Note:
        The paper states cosine dissimilarities and the Pearson correlation of upper triangles. It gives neither
        interval nor test; sentences are the units of both here.

    Example:
        ```python
        >>> distances = dissimilarity_matrix(np.random.default_rng(0).normal(size=(12, 5)))
        >>> result = representational_similarity(distances, 2 * distances)
        >>> round(result.correlation, 6), result.p_value < 0.01
        (1.0, True)

        ```
    """
    first, second = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 2 or first.shape[0] != first.shape[1]:
        raise ValueError(f"the matrices have shapes {first.shape} and {second.shape}; expected two equal squares")
    num_items = len(first)
    if num_items < 4:
        raise ValueError(f"{num_items} items are too few to compare representations; give at least 4")
    rows, columns = np.triu_indices(num_items, k=1)
    for name, matrix in (("first", first), ("second", second)):
        if not np.isfinite(matrix).all() or np.ptp(matrix[rows, columns]) == 0:
            raise ValueError(f"the {name} matrix is constant or not finite: it arranges nothing")
    correlation = _pearson(first[rows, columns], second[rows, columns])
    rng = np.random.default_rng(seed)
    as_good = 0
    for _ in range(num_permutations):
        order = rng.permutation(num_items)
        as_good += _pearson(first[rows, columns], second[order[rows], order[columns]]) >= correlation - 1e-12
    draws = []
    for _ in range(num_bootstrap):
        chosen = rng.integers(num_items, size=num_items)
        a, b = chosen[rows], chosen[columns]
        pairs = a != b
        draws.append(_pearson(first[a[pairs], b[pairs]], second[a[pairs], b[pairs]]))
    low, high = np.nanquantile(draws, [0.025, 0.975]) if draws else (np.nan, np.nan)
    return RepresentationalSimilarity(
        float(correlation), float(low), float(high), (1 + as_good) / (1 + num_permutations), num_items
    )


def similarity_by_stage(
    stages: Mapping[str, Sequence[np.ndarray]],
    text: np.ndarray,
    num_segments: int = 10,
    num_permutations: int = 1000,
    num_bootstrap: int = 1000,
    seed: int = 0,
) -> dict[str, RepresentationalSimilarity]:
    """Ask of every stage of a network how much it arranges sentences as a language model does.

    Args:
        stages (`Mapping[str, list]`): name -> states `(P, D)` of each sentence, for example raw features, encoder
            output before and after end-to-end training, and neural tokens.
        text (`np.ndarray` of shape `(N, D)`): one vector for each sentence, from `sentence_embeddings`.
        num_segments (`int`): see [`sentence_vectors`]. Sentences too short for it at any stage are left out of all.
        num_permutations (`int`): see [`representational_similarity`].
        num_bootstrap (`int`): see [`representational_similarity`].
        seed (`int`): see [`representational_similarity`].

    Returns:
        `dict[str, RepresentationalSimilarity]`: by stage, all on the same sentences.

    Raises:
        ValueError: when a stage has another number of sentences than the text, or too few are left.

    Note:
        How the paper pools the text's tokens to one vector is not known; a mean is taken here.

    Example:
        ```python
        >>> rng = np.random.default_rng(0)
        >>> text = rng.normal(size=(20, 6))
        >>> stages = {"copy": [np.tile(row, (4, 1)) for row in text], "noise": [rng.normal(size=(4, 6)) for _ in text]}
        >>> found = similarity_by_stage(stages, text, num_segments=2)
        >>> round(found["copy"].correlation, 6), found["noise"].p_value > 0.01
        (1.0, True)

        ```
    """
    for name, states in stages.items():
        if len(states) != len(text):
            raise ValueError(
                f"the stage {name!r} has {len(states)} sentences, the text {len(text)}; give the same ones"
            )
    chosen = [
        index for index in range(len(text)) if all(len(states[index]) >= num_segments for states in stages.values())
    ]
    if len(chosen) < 4:
        raise ValueError(f"{len(chosen)} sentences have {num_segments} frames at every stage; lower num_segments")
    told = dissimilarity_matrix(np.asarray(text)[chosen])
    return {
        name: representational_similarity(
            dissimilarity_matrix(sentence_vectors([states[index] for index in chosen], num_segments)[0]),
            told,
            num_permutations,
            num_bootstrap,
            seed,
        )
        for name, states in stages.items()
    }


def attention_over_neural(attentions: Sequence[Sequence[np.ndarray]], places: np.ndarray) -> np.ndarray:
    """How much every written token looked at every neural token.

    Args:
        attentions (list of lists of `np.ndarray` of shape `(1, H, Q, K)`): of each generation step and each layer, as
            `generate(output_attentions=True, return_dict_in_generate=True)` gives them for one trial without beams.
        places (`np.ndarray` of shape `(N,)`, bool): True where the prompt has a neural token.

    Returns:
        `np.ndarray` of shape `(tokens, neural tokens)`: means over layers and heads of the attention of the position
        that wrote each token; a row adds up to the share that fell on neural tokens at all.

    Raises:
        ValueError: when there is no step, or a step looks at fewer positions than the prompt has.

    Note:
        The paper maps the weights of its cross-attention projector; an attention map of the language model itself needs
        no such projector. Attention says where information can come from, not that it was used.

    Example:
        ```python
        >>> first = np.full((1, 2, 3, 3), 1 / 3)  # a prompt of three positions, the last of which writes
        >>> second = np.array([0.5, 0.1, 0.2, 0.2]).reshape(1, 1, 1, 4).repeat(2, axis=1)
        >>> attention_over_neural([[first], [second]], np.array([False, True, True])).round(2).tolist()
        [[0.33, 0.33], [0.1, 0.2]]

        ```
    """
    places = np.asarray(places, dtype=bool)
    if not len(attentions):
        raise ValueError("there is no generation step; generate with output_attentions=True")
    rows = []
    for number, layers in enumerate(attentions):
        last = np.mean([np.asarray(layer, dtype=np.float64)[0, :, -1].mean(axis=0) for layer in layers], axis=0)
        if len(last) < len(places):
            raise ValueError(f"step {number} looks at {len(last)} positions, but the prompt has {len(places)}")
        rows.append(last[: len(places)][places])
    return np.stack(rows)


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.sqrt((a @ a) * (b @ b)))
    return float(a @ b) / size if size > 0 else float("nan")


def word_vectors(
    states: Sequence[np.ndarray], spans: Sequence[Sequence[tuple[str, int, int]]]
) -> tuple[list[str], np.ndarray]:
    """Average the frames of every word, over time and then over its occurrences.

    Args:
        states (list of `np.ndarray` of shape `(P, D)`): encoder outputs of each sentence.
        spans (list of lists of `(word, first frame, end frame)`): where the words are; ends are exclusive. A decoder's
            word times or [`align_ctc`] give them.

    Returns:
        `tuple[list[str], np.ndarray]`: the words in alphabetical order, and their vectors `(W, D)`.

    Raises:
        ValueError: when a span is empty or outside of its sentence, or there is no word at all.

    Example:
        ```python
        >>> words, vectors = word_vectors([np.array([[0.0], [2.0], [4.0]])], [[("hi", 0, 2), ("you", 2, 3)]])
        >>> words, vectors.tolist()
        (['hi', 'you'], [[1.0], [4.0]])

        ```
    """
    found: dict[str, list[np.ndarray]] = {}
    for index, (array, words) in enumerate(zip(states, spans, strict=True)):
        for word, begin, end in words:
            if not 0 <= begin < end <= len(array):
                raise ValueError(
                    f"the word {word!r} of sentence {index} spans frames {begin} to {end}, but there are {len(array)}"
                )
            found.setdefault(word, []).append(np.asarray(array[begin:end], dtype=np.float64).mean(axis=0))
    if not found:
        raise ValueError("there is not a single word in `spans`")
    names = sorted(found)
    return names, np.stack([np.mean(found[name], axis=0) for name in names])


def shared_words(
    first: tuple[Sequence[str], np.ndarray], second: tuple[Sequence[str], np.ndarray]
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Keep the words that two tasks have in common.

    Args:
        first (`tuple`): words and vectors of one task, from [`word_vectors`].
        second (`tuple`): the same of the other.

    Returns:
        `tuple[list[str], np.ndarray, np.ndarray]`: the common words in alphabetical order and the vectors `(W, D)` of
        each task.

    Raises:
        ValueError: when no word is common.

    Example:
        ```python
        >>> shared_words((["a", "b"], np.eye(2)), (["b", "c"], np.ones((2, 2))))[0]
        ['b']

        ```
    """
    words = sorted(set(first[0]) & set(second[0]))
    if not words:
        raise ValueError(f"no word is in both tasks, which have {len(first[0])} and {len(second[0])} words")
    rows = [[{word: i for i, word in enumerate(names)}[word] for word in words] for names, _ in (first, second)]
    return words, first[1][rows[0]], second[1][rows[1]]


def principal_plane(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Project the words of two tasks onto their two leading principal components.

    Args:
        first (`np.ndarray` of shape `(W, D)`): words of one task.
        second (`np.ndarray` of shape `(W, D)`): the same words of the other.

    Returns:
        `tuple[np.ndarray, np.ndarray, np.ndarray]`: coordinates `(W, 2)` of each task, and for every word the cosine
        `(W,)` between its two vectors around the common mean (the figure's colour).

    Example:
        ```python
        >>> plane = principal_plane(np.eye(4), np.eye(4))
        >>> plane[0].shape, plane[2].round(6).tolist()
        ((4, 2), [1.0, 1.0, 1.0, 1.0])

        ```
    """
    require("sklearn")
    from sklearn.decomposition import PCA

    both = np.concatenate([first, second]).astype(np.float64)
    coordinates = PCA(n_components=2, svd_solver="full").fit_transform(both)
    centred = both - both.mean(axis=0)
    a, b = centred[: len(first)], centred[len(first) :]
    sizes = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return coordinates[: len(first)], coordinates[len(first) :], (a * b).sum(axis=1) / np.maximum(sizes, 1e-12)


def task_separability(
    first: np.ndarray, second: np.ndarray, num_folds: int = 5, num_shuffles: int = 200, seed: int = 0
) -> TaskSeparability:
    """Measure how well linear discriminant analysis tells two tasks apart on words it has not seen.

    Args:
        first (`np.ndarray` of shape `(W, D)`): words of one task (attempted speech, say).
        second (`np.ndarray` of shape `(W, D)`): the same words of the other task (imagined speech).
        num_folds (`int`): folds over words; both versions of a word are in the same fold.
        num_shuffles (`int`): shuffles of the task names within words, for chance and the p value.
        seed (`int`): of folds and shuffles.

    Returns:
        [`TaskSeparability`].

    Raises:
        ValueError: when the shapes differ or there are fewer words than folds.

    Note:
        The paper shows the two groups of one fit (separable in raw features, not after BIT). With fewer words than
        dimensions any two groups are separable on the words of the fit, so here the words scored are held out, and the
        covariance is shrunk (Ledoit-Wolf).

    Example:
        ```python
        >>> words = np.random.default_rng(0).normal(size=(20, 3))
        >>> task_separability(words, words + [9.0, 0.0, 0.0], num_shuffles=20).accuracy
        1.0

        ```
    """
    if first.shape != second.shape or first.ndim != 2:
        raise ValueError(f"the tasks have shapes {first.shape} and {second.shape}; expected the same words and width")
    num_words = len(first)
    if not 2 <= num_folds <= num_words:
        raise ValueError(f"num_folds is {num_folds} for {num_words} words; expected between 2 and the number of words")
    require("sklearn")
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

    rng = np.random.default_rng(seed)
    fold = rng.permutation(np.arange(num_words) % num_folds)
    vectors = np.concatenate([first, second]).astype(np.float64)
    word_fold = np.tile(fold, 2)

    def accuracy(tasks: np.ndarray) -> float:
        right = np.zeros(len(tasks), dtype=bool)
        for held_out in range(num_folds):
            test = word_fold == held_out
            fitted = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(vectors[~test], tasks[~test])
            right[test] = fitted.predict(vectors[test]) == tasks[test]
        return float(right.mean())

    tasks = np.repeat([0, 1], num_words)
    found = accuracy(tasks)
    shuffled = []
    for _ in range(num_shuffles):
        swap = rng.integers(2, size=num_words)
        shuffled.append(accuracy(np.concatenate([swap, 1 - swap])))
    axis = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(vectors, tasks).coef_[0]
    return TaskSeparability(
        accuracy=found,
        chance=float(np.mean(shuffled)) if shuffled else 0.5,
        p_value=(1 + sum(value >= found - 1e-12 for value in shuffled)) / (1 + num_shuffles),
        axis=axis / max(float(np.linalg.norm(axis)), 1e-12),
    )


@dataclass(frozen=True)
class Confusions:
    """Substitutions between tokens.

    Args:
        tokens (`tuple[str, ...]`): rows and columns of `percent`.
        percent (`np.ndarray` of shape `(N, N)`): per cent of all counted substitutions; row = decoded, column = said.
        num_substitutions (`int`): how many were counted.
        deletions (`Mapping[str, int]`): tokens that were said and not decoded; not in `percent`.
        insertions (`Mapping[str, int]`): tokens that were decoded and not said; not in `percent`.
    """

    tokens: tuple[str, ...]
    percent: np.ndarray
    num_substitutions: int
    deletions: Mapping[str, int]
    insertions: Mapping[str, int]


def confusions(
    references: Sequence[Sequence[str]],
    predictions: Sequence[Sequence[str]],
    order: str = "errors",
    min_count: int = 1,
) -> Confusions:
    """Count which tokens were decoded as which, matches left out.

    Args:
        references (list of lists of `str`): phonemes or words that were said, one list per sentence.
        predictions (list of lists of `str`): what was decoded.
        order (`str`): `"errors"` puts tokens with most errors first (the paper's figure of phonemes),
            `"alphabetical"` sorts them (its figure of words).
        min_count (`int`): leave out pairs seen less often; the paper's filtered figure of words has 2.

    Returns:
        [`Confusions`].

    Raises:
        ValueError: when the two lists differ in length, or `order` is unknown.

    Note:
        How the paper treats insertions and deletions is not known; here they are counted beside the matrix, because
        they are confusions with nothing. A pair below `min_count` leaves the matrix and its total.

    Example:
        ```python
        >>> found = confusions([["B", "AH"], ["B"]], [["P", "AH"], ["B", "T"]])
        >>> found.tokens, found.percent.tolist(), dict(found.insertions)
        (('B', 'P'), [[0.0, 0.0], [100.0, 0.0]], {'T': 1})

        ```
    """
    if len(references) != len(predictions):
        raise ValueError(f"{len(references)} references for {len(predictions)} predictions; give one each")
    if order not in ("errors", "alphabetical"):
        raise ValueError(f"order is {order!r}; expected 'errors' or 'alphabetical'")
    pairs: Counter[tuple[Hashable, Hashable]] = Counter()
    deletions: Counter[str] = Counter()
    insertions: Counter[str] = Counter()
    for reference, prediction in zip(references, predictions):
        for step in align_tokens(reference, prediction):
            if step.operation == "substitution":
                pairs[step.reference, step.prediction] += 1
            elif step.operation == "deletion":
                deletions[str(step.reference)] += 1
            elif step.operation == "insertion":
                insertions[str(step.prediction)] += 1
    pairs = Counter({pair: count for pair, count in pairs.items() if count >= min_count})
    errors: Counter[str] = Counter()
    for (said, decoded), count in pairs.items():
        errors[str(said)] += count
        errors[str(decoded)] += 0
    by_name = sorted(errors)
    tokens = by_name if order == "alphabetical" else sorted(by_name, key=lambda token: -errors[token])
    place = {token: index for index, token in enumerate(tokens)}
    percent = np.zeros((len(tokens), len(tokens)))
    total = sum(pairs.values())
    for (said, decoded), count in pairs.items():
        percent[place[str(decoded)], place[str(said)]] = 100.0 * count / total
    return Confusions(tuple(tokens), percent, total, deletions, insertions)
