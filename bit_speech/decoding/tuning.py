"""Choose a decoder's weights on validation sentences."""

from __future__ import annotations

import itertools
import os
import re
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from bit_speech.import_utils import require

from .beam_search import BeamSearchDecoder, Hypothesis
from .rescoring import RescoringWeights, score_features

_NOT_COMPARED = re.compile(r"[^a-z' ]")

SEARCH_SPACE = {
    "acoustic_scale": (0.1, 1.5),
    "lm_weight": (0.5, 2.0),
    "word_score": (-3.0, 3.0),
    "blank_penalty": (0.0, 6.0),
}
"""Where [`optimize_decoder`] looks by default; with a time penalty, beam thresholds from 6 to 25 as well."""
_LOGARITHMIC = ("acoustic_scale", "beam_threshold", "beam_size")
_WHOLE = ("beam_size",)
_LLM_WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8, 1.0, 1.25, 1.5)


def tune_decoder(
    log_probs: Sequence[npt.ArrayLike],
    references: Sequence[str],
    decoder: BeamSearchDecoder,
    *,
    acoustic_scales: Sequence[float] = (0.2, 0.28, 0.4, 0.56, 0.8, 1.1),
    blank_penalties: Sequence[float] = (0.0, 1.5, 3.0, 4.5),
    word_scores: Sequence[float] = (-1.0, 0.0, 1.0),
    lm_weights: Sequence[float] | None = None,
    max_sentences: int = 60,
    num_threads: int = 1,
) -> BeamSearchDecoder:
    """Choose acoustic scale, blank penalty, word score and, when asked, language-model weight by word errors.

    One setting is searched after the other, and the acoustic scale once more, more finely, at the end. Among settings
    with equally many errors the one whose right sentences lead most clearly is taken.

    Args:
        log_probs (list of `np.ndarray` of shape `(T, 41)`): natural-log probabilities of validation sentences.
        references (list of `str`): what was said, one text for each.
        decoder (`BeamSearchDecoder`): lexicon, language model and the settings that are not searched.
        acoustic_scales (sequence of `float`): scales to try. What matters is the ratio to the language-model weight.
        blank_penalties (sequence of `float`): natural-log blank penalties to try.
        word_scores (sequence of `float`): word scores to try.
        lm_weights (sequence of `float`, optional): language-model weights to try; by default the decoder's is kept.
        max_sentences (`int`): use the first sentences only, to save time.
        num_threads (`int`): how many sentences to decode at a time.

    Returns:
        `BeamSearchDecoder`: the same decoder with the chosen weights; read them from its attributes.

    Raises:
        ValueError: when there is nothing to tune on, or the numbers of utterances and references differ.

    Example:
        >>> import numpy as np
        >>> from bit_speech.decoding import Lexicon
        >>> decoder = BeamSearchDecoder(Lexicon.from_words({"a": "AH"}), None)
        >>> log_probs = np.log(np.eye(41)[[0, 3, 40]] * 0.9 + 0.1 / 41)
        >>> tune_decoder([log_probs], ["a"], decoder).decode(log_probs)[0].text
        'a'
    """
    _check_sizes(log_probs, references)
    if max_sentences < 1:
        raise ValueError(f"max_sentences is {max_sentences}; expected at least 1.")
    utterances = list(log_probs[:max_sentences])
    words = [_words(text) for text in references[:max_sentences]]

    def cost(candidate: BeamSearchDecoder) -> tuple[int, float]:
        return _count(candidate.decode_batch(utterances, num_threads), words)

    def search(name: str, values: Sequence[float], best: BeamSearchDecoder, lowest: tuple[int, float]) -> tuple:
        for value in values:
            if value != getattr(best, name):
                candidate = best.with_settings(**{name: float(value)})
                found = cost(candidate)
                if found < lowest:
                    best, lowest = candidate, found
        return best, lowest

    best, lowest = decoder, cost(decoder)
    best, lowest = search("acoustic_scale", acoustic_scales, best, lowest)
    best, lowest = search("blank_penalty", blank_penalties, best, lowest)
    best, lowest = search("word_score", word_scores, best, lowest)
    if lm_weights is not None:
        best, lowest = search("lm_weight", lm_weights, best, lowest)
    best, _ = search("acoustic_scale", [best.acoustic_scale * factor for factor in (0.85, 1.18)], best, lowest)
    return best


def optimize_decoder(
    log_probs: Sequence[npt.ArrayLike],
    references: Sequence[str],
    decoder: BeamSearchDecoder,
    *,
    num_trials: int = 60,
    search_space: Mapping[str, tuple[float, float]] | None = None,
    time_penalty: float = 0.0,
    study_path: str | os.PathLike[str] | None = None,
    seed: int = 0,
    num_threads: int = 1,
) -> BeamSearchDecoder:
    """Search a decoder's weights together, with Optuna's tree-structured Parzen estimator.

    Args:
        log_probs (list of `np.ndarray` of shape `(T, 41)`): natural-log probabilities of validation sentences.
        references (list of `str`): what was said, one text for each.
        decoder (`BeamSearchDecoder`): lexicon, language model and the settings that are not searched. Its own weights
            are the first trial, so that the result makes no more errors than they do.
        num_trials (`int`): how many settings to try, those of an earlier run of the same study included.
        search_space (`dict[str, tuple[float, float]]`, *optional*): lowest and highest value of each setting; by
            default `SEARCH_SPACE`. A range grows to the decoder's own value where that lies outside.
        time_penalty (`float`): word error rate that a decoder may cost to save 100 microseconds of processor time per
            frame: 0.001 is a tenth of a point. Times are measured, so that results differ a little from run to run.
        study_path (`str`, *optional*): file that holds the trials; a run that was stopped continues from it.
        seed (`int`): seed of the search. Without a time penalty the same seed gives the same trials, in one run or
            several.
        num_threads (`int`): how many sentences to decode at a time.

    Returns:
        `BeamSearchDecoder`: the same decoder with the best settings found.

    Raises:
        ValueError: when there is nothing to tune on, numbers of utterances and references differ, or the file holds
            the study of another search space.
        ImportError: when `optuna` is not installed.

    Note:
        Among settings with equally many errors the one whose right sentences lead most clearly wins.
    """
    optuna = require("optuna")
    _check_sizes(log_probs, references)
    if num_trials < 1:
        raise ValueError(f"num_trials is {num_trials}; expected at least 1.")
    if time_penalty < 0:
        raise ValueError(f"time_penalty is {time_penalty}; expected zero or more.")
    if search_space is None:
        search_space = SEARCH_SPACE | ({"beam_threshold": (6.0, 25.0)} if time_penalty else {})
    decoder.with_settings(**{name: low for name, (low, _) in search_space.items()})  # refuses unknown names
    # The decoder's own weights are tried too, wherever they lie.
    own = {name: float(getattr(decoder, name)) for name in search_space}
    ranges = {name: (min(low, own[name]), max(high, own[name])) for name, (low, high) in search_space.items()}
    space: dict[str, Any] = {
        name: optuna.distributions.IntDistribution(int(low), int(high), log=True)
        if name in _WHOLE
        else optuna.distributions.FloatDistribution(low, high, log=name in _LOGARITHMIC)
        for name, (low, high) in ranges.items()
    }
    words = [_words(text) for text in references]
    total = max(1, sum(map(len, words)))
    frames = max(1, sum(np.asarray(one).shape[0] for one in log_probs))

    def objective(trial: Any) -> float:
        start = time.process_time()
        found = decoder.with_settings(**_suggest(trial, space)).decode_batch(log_probs, num_threads)
        microseconds = (time.process_time() - start) / frames * 1e6
        errors, doubt = _count(found, words)
        # All doubt together is less than one error.
        return (errors + 0.99 * (1 + doubt / len(words))) / total + time_penalty * microseconds / 100

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = _open_study(optuna, study_path, space)
        if not study.trials:
            study.enqueue_trial(own)
        while (done := _num_complete(optuna, study)) < num_trials:
            # A sampler of its own for every trial makes a resumed search go on as if it had never stopped.
            study.sampler = optuna.samplers.TPESampler(seed=seed + done, multivariate=True)
            study.optimize(objective, n_trials=1)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return decoder.with_settings(**study.best_params)


def _suggest(trial: Any, space: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: trial.suggest_int(name, one.low, one.high, log=one.log)
        if name in _WHOLE
        else trial.suggest_float(name, one.low, one.high, log=one.log)
        for name, one in space.items()
    }


def _num_complete(optuna: Any, study: Any) -> int:
    return len(study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE]))


def _open_study(optuna: Any, path: str | os.PathLike[str] | None, space: Mapping[str, Any]) -> Any:
    if path is None:
        return optuna.create_study()
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(path)))
    study = optuna.create_study(storage=storage, study_name="decoder", load_if_exists=True)
    for trial in study.get_trials(deepcopy=False, states=[optuna.trial.TrialState.COMPLETE])[:1]:
        if trial.distributions != space:
            raise ValueError(
                f"{path} holds a study of {', '.join(trial.distributions)} in other ranges than this search of "
                f"{', '.join(space)}; give another study_path, or the same search_space."
            )
    return study


def tune_rescoring(
    nbest_lists: Sequence[Sequence[Hypothesis]],
    llm_scores: Sequence[np.ndarray],
    references: Sequence[str],
    *,
    lm_weight: float = 1.0,
    llm_weights: Sequence[float] = _LLM_WEIGHTS,
    lm_shares: Sequence[float] = (1.0, 0.8, 0.6, 0.4, 0.2, 0.0),
    word_scores: Sequence[float] = (-1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0),
    length_normalizations: Sequence[float] = (0.0,),
) -> RescoringWeights:
    """Choose the weights of rescoring by word errors; every combination is tried, on scores that are computed once.

    Args:
        nbest_lists (sequence of sequences of `Hypothesis`): n-best list of every validation sentence.
        llm_scores (sequence of `np.ndarray`): what [`CausalLMRescorer.score`] gives for each list.
        references (sequence of `str`): what was said.
        lm_weight (`float`): weight of the n-gram model in the first pass.
        llm_weights (sequence of `float`): weights of the causal model to try.
        lm_shares (sequence of `float`): shares of `lm_weight` to try.
        word_scores (sequence of `float`): word scores to try.
        length_normalizations (sequence of `float`): see [`RescoringWeights`].

    Returns:
        `RescoringWeights`: those with fewest errors; among equals the first in the order of the arguments, so that 0
        for the causal model wins where it does not help.

    Raises:
        ValueError: when there is nothing to tune on, or the numbers of lists, scores and references differ.
    """
    _check_sizes(nbest_lists, references)
    if len(llm_scores) != len(nbest_lists):
        raise ValueError(f"{len(nbest_lists)} n-best lists but {len(llm_scores)} arrays of scores; give one for each.")
    features = [score_features(nbest, scores) for nbest, scores in zip(nbest_lists, llm_scores, strict=True)]
    errors = [
        np.array([count_word_errors(_words(reference), _words(hypothesis.text)) for hypothesis in nbest])
        for nbest, reference in zip(nbest_lists, references, strict=True)
    ]
    best, fewest = RescoringWeights(), None
    for llm, share, word, power in itertools.product(llm_weights, lm_shares, word_scores, length_normalizations):
        weights = RescoringWeights(llm, share * lm_weight, word, power)
        found = sum(
            int(counts[np.argmax(weights.combine_features(rows))])
            for rows, counts in zip(features, errors, strict=True)
        )
        if fewest is None or found < fewest:
            best, fewest = weights, found
    return best


def _check_sizes(utterances: Sequence[Any], references: Sequence[str]) -> None:
    if len(utterances) != len(references):
        raise ValueError(f"{len(utterances)} utterances but {len(references)} references; give one text for each.")
    if not len(references):
        raise ValueError("No validation sentences to tune on.")


def _count(found: Sequence[Sequence[Hypothesis]], references: Sequence[list[str]]) -> tuple[int, float]:
    """Word errors, and minus the summed share of the n-best probability that right sentences have."""
    errors, doubt = 0, 0.0
    for best, reference in zip(found, references, strict=True):
        errors += count_word_errors(reference, _words(best[0].text))
        scores = np.array([hypothesis.score for hypothesis in best])
        right = np.array([_words(hypothesis.text) == reference for hypothesis in best])
        share = np.exp(scores - np.logaddexp.reduce(scores))[right].sum() if np.isfinite(scores).all() else 0.0
        doubt -= float(share)
    return errors, doubt


def _words(text: str) -> list[str]:
    return _NOT_COMPARED.sub(" ", text.lower()).split()


def count_word_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> int:
    """Substitutions, insertions and deletions between two word sequences.

    Args:
        reference (sequence of `str`): what was said.
        hypothesis (sequence of `str`): what was decoded.

    Returns:
        `int`: Levenshtein distance.

    Example:
        >>> count_word_errors("a b c".split(), "a c d".split())
        2
    """
    row = list(range(len(hypothesis) + 1))
    for i, expected in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, found in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (expected != found))
    return row[-1]
