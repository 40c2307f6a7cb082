"""One answer from two decoders: sentences of a language model that reads neural activity, and of the beam search.

Either proposes sentences; all are scored by the encoder's CTC likelihood, by the n-gram model and by the model that
reads neural activity, and a log-linear model says how much each counts and how sure the result is.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from .beam_search import Hypothesis
from .fusion import NO_WORD, _insert
from .language_model import NGramLM
from .sentence_likelihood import SentenceLikelihood
from .tuning import _check_sizes, _words, count_word_errors

FEATURES = ("ctc", "lm", "llm", "words")
"""Columns of what [`JointDecoder.features`] gives: three natural-log probabilities and the number of words."""
_STEPS = (8.0, 4.0, 2.0, 1.4, 1.15, 1.05)


@dataclasses.dataclass(frozen=True)
class JointWeights:
    """How much each score of a sentence counts.

    Args:
        ctc (`float`): factor on the log-likelihood under the encoder's CTC head.
        lm (`float`): factor on the n-gram model's log-probability.
        llm (`float`): factor on the log-probability under the language model that reads neural activity.
        word_score (`float`): added for every word.

    Raises:
        ValueError: when a number is not finite, or a factor is negative.

    Example:
        >>> JointWeights(ctc=0.5, lm=0.0).combine(np.array([[-2.0, -9.0, -3.0, 1.0]])).tolist()
        [-4.0]
    """

    ctc: float = 1.0
    lm: float = 1.0
    llm: float = 1.0
    word_score: float = 0.0

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if not math.isfinite(value) or (value < 0 and field.name != "word_score"):
                raise ValueError(f"{field.name} is {value}; expected a finite number, and no negative factor.")

    def combine(self, features: np.ndarray) -> np.ndarray:
        """Add up the scores.

        Args:
            features (`np.ndarray` of shape `(..., 4)`): see `FEATURES`; `-inf` where a sentence is impossible.

        Returns:
            `np.ndarray` of shape `(...)`: totals; what has no weight cannot rule a sentence out.
        """
        weights = np.array(dataclasses.astuple(self))
        return (np.where(weights == 0, 0.0, features) * weights).sum(-1)

    def to_dict(self) -> dict[str, float]:
        """Give the weights as JSON can hold them.

        Returns:
            `dict[str, float]`: name -> value.
        """
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True)
class JointResult:
    """The sentence that all scores together find most likely, and how sure that is.

    Args:
        text (`str`): the sentence.
        confidences (`tuple[float, ...]`): for every word of it, the share of the probability of all proposed sentences
            that has this word at this place.
        sentences (`list[tuple[str, float]]`): all proposed sentences with their probabilities, best first.
    """

    text: str
    confidences: tuple[float, ...]
    sentences: list[tuple[str, float]]


class JointDecoder:
    """Weighs up the sentences that several decoders propose for a recording.

    Args:
        likelihood (`SentenceLikelihood`): CTC likelihood of sentences.
        lm (`NGramLM`, *optional*): n-gram model; its column is zero when None.
        weights (`JointWeights`, *optional*): from [`tune_joint`].

    Note:
        The paper (arXiv 2511.21740) reports either decoder, never both; its released code names a score of phonemes for
        reranking but never adds it up.

    Example:
        >>> from bit_speech.decoding import Lexicon
        >>> decoder = JointDecoder(SentenceLikelihood(Lexicon.from_words({"hi": "HH AY", "he": "HH IY"})))
        >>> log_probs = np.log(np.eye(41)[[16, 6, 40]] * 0.9 + 0.1 / 41)
        >>> result = decoder.decode(log_probs, ["he", "hi"], lambda texts: [-1.0, -2.0])
        >>> result.text, len(result.confidences)
        ('hi', 1)
    """

    def __init__(
        self, likelihood: SentenceLikelihood, lm: NGramLM | None = None, weights: JointWeights | None = None
    ) -> None:
        self.likelihood = likelihood
        self.lm = lm
        self.weights = weights or JointWeights()

    def features(
        self, log_probs: npt.ArrayLike, texts: Sequence[str], llm_score: Callable[[list[str]], npt.ArrayLike]
    ) -> np.ndarray:
        """Score sentences in every way.

        Args:
            log_probs (`np.ndarray` of shape `(T, 41)`): the encoder's natural-log probabilities.
            texts (sequence of `str`): proposed sentences, from [`proposals`].
            llm_score (callable): natural-log probabilities of given sentences for this recording, for example
                `BITForConditionalGeneration.score_sentences` with the recording filled in.

        Returns:
            `np.ndarray` of shape `(len(texts), 4)`: columns as in `FEATURES`.

        Raises:
            ValueError: when there is no sentence, or `llm_score` gives another number of scores or a NaN.
        """
        if not len(texts):
            raise ValueError("No sentence was proposed; give the n-best list of at least one decoder.")
        llm = np.asarray(llm_score(list(texts)), dtype=np.float64)
        if llm.shape != (len(texts),) or np.isnan(llm).any():
            raise ValueError(f"llm_score gave {llm.shape} scores for {len(texts)} sentences, or a NaN.")
        lm = [0.0 if self.lm is None else self.lm.score_sentence(text) for text in texts]
        words = [len(text.split()) for text in texts]
        return np.stack([self.likelihood.score(log_probs, texts), lm, llm, words], axis=1)

    def decode(
        self, log_probs: npt.ArrayLike, texts: Sequence[str], llm_score: Callable[[list[str]], npt.ArrayLike]
    ) -> JointResult:
        """Choose among proposed sentences.

        Args:
            log_probs (`np.ndarray` of shape `(T, 41)`): as for [`JointDecoder.features`].
            texts (sequence of `str`): as for [`JointDecoder.features`].
            llm_score (callable): as for [`JointDecoder.features`].

        Returns:
            [`JointResult`].

        Raises:
            ValueError: as [`JointDecoder.features`].
        """
        return choose(texts, self.features(log_probs, texts, llm_score), self.weights)


def proposals(*lists: Iterable[str | Hypothesis]) -> list[str]:
    """Put n-best lists together.

    Args:
        *lists (iterables of `str` or `Hypothesis`): what each decoder proposes.

    Returns:
        `list[str]`: distinct sentences in order of appearance, words separated by single spaces.

    Example:
        >>> proposals(["a b", "a"], ["a  b", "c"])
        ['a b', 'a', 'c']
    """
    texts = (one if isinstance(one, str) else one.text for nbest in lists for one in nbest)
    return list(dict.fromkeys(" ".join(text.split()) for text in texts))


def choose(texts: Sequence[str], features: np.ndarray, weights: JointWeights) -> JointResult:
    """Choose among sentences that were scored before.

    Args:
        texts (sequence of `str`): distinct sentences.
        features (`np.ndarray` of shape `(len(texts), 4)`): from [`JointDecoder.features`].
        weights (`JointWeights`): how the scores add up.

    Returns:
        [`JointResult`]: ties go to the sentence that was proposed first.

    Raises:
        ValueError: when there is no sentence, or the numbers differ.
    """
    if not len(texts) or len(features) != len(texts):
        raise ValueError(f"{len(texts)} sentences and {len(features)} rows of scores; give one row for each, not none.")
    shares = np.exp(_log_posteriors(weights.combine(features)))
    order = np.argsort(-shares, kind="stable")
    best = tuple(texts[order[0]].split())
    support = np.zeros(len(best))
    for index in order:
        if shares[index] > 0:
            support += shares[index] * _agreement(best, texts[index].split())
    confidences = tuple(float(value) for value in np.minimum(support, 1.0))
    return JointResult(texts[order[0]], confidences, [(texts[index], float(shares[index])) for index in order])


def tune_joint(
    text_lists: Sequence[Sequence[str]],
    features: Sequence[np.ndarray],
    references: Sequence[str],
    *,
    fixed: Iterable[str] = (),
) -> JointWeights:
    """Choose the weights on validation sentences.

    Args:
        text_lists (sequence of sequences of `str`): proposed sentences of every recording.
        features (sequence of `np.ndarray` of shape `(N, 4)`): their scores, from [`JointDecoder.features`].
        references (sequence of `str`): what was said.
        fixed (iterable of `str`): names of weights that stay zero, for example `("llm",)` for the cascade alone.

    Returns:
        `JointWeights`: those under which the proposed sentences with fewest word errors are most probable.

    Raises:
        ValueError: when there is nothing to tune on, numbers differ, or a name in `fixed` is unknown.

    Note:
        Word errors are few on a hundred sentences and a coarse judge of weights; the probability of the best proposed
        sentence (of all of them, where several are equally good) is smooth, and makes the posteriors mean something.
        Lists whose sentences are all equally wrong have no say, and neither have sentences that a score rules out. The
        search is one weight after the other, in steps that shrink, from several scales; it is deterministic.
    """
    _check_sizes(text_lists, references)
    if len(features) != len(text_lists):
        raise ValueError(
            f"{len(text_lists)} lists of sentences but {len(features)} arrays of scores; give one for each."
        )
    names = [field.name for field in dataclasses.fields(JointWeights)]
    fixed = set(fixed)
    if fixed - set(names):
        raise ValueError(f"fixed names {sorted(fixed - set(names))}; expected some of {', '.join(names)}.")
    free = [name for name in names if name not in fixed]
    columns = [names.index(name) for name in free]
    rows = []
    for texts, given, reference in zip(text_lists, features, references, strict=True):
        scores = np.asarray(given, dtype=np.float64)
        errors = np.array([count_word_errors(_words(reference), _words(text)) for text in texts])
        # A sentence that some score rules out cannot be what the others should prefer.
        possible = np.isfinite(scores[:, columns]).all(axis=1)
        scores, errors = scores[possible], errors[possible]
        if len(errors) and errors.min() < errors.max():
            rows.append((scores, errors == errors.min()))

    def cost(weights: JointWeights) -> float:
        # What makes no difference gets no weight.
        doubt = 1e-4 * (weights.ctc + weights.lm + weights.llm)
        for scores, right in rows:
            doubt -= float(np.logaddexp.reduce(_log_posteriors(weights.combine(scores))[right]))
        return doubt

    best, lowest = JointWeights(**dict.fromkeys(names, 0.0)), math.inf
    for scale in (0.1, 0.3, 1.0):
        start = JointWeights(**{name: 0.0 if name in fixed or name == "word_score" else scale for name in names})
        found, value = _descend(start, free, cost)
        if value < lowest - 1e-9:
            best, lowest = found, value
    return best


def _descend(
    best: JointWeights, free: Sequence[str], cost: Callable[[JointWeights], float]
) -> tuple[JointWeights, float]:
    """Change one weight at a time as long as it helps; factors in ratios, the word score in differences."""
    lowest = cost(best)
    for step in _STEPS:
        improved = True
        while improved:
            improved = False
            for name in free:
                value = getattr(best, name)
                if name == "word_score":
                    tried = [value - step / 4, value + step / 4]
                else:
                    tried = [value / step, value * step, 0.0] if value else [0.02 * step]
                for other in tried:
                    changed = dataclasses.replace(best, **{name: other})
                    found = cost(changed)
                    if found < lowest - 1e-6:
                        best, lowest, improved = changed, found, True
    return best, lowest


def _agreement(words: Sequence[str], others: Sequence[str]) -> np.ndarray:
    """Where an aligned sentence has the same word: ones and zeros, one for each of `words`."""
    ours, theirs = _insert([list(words)], [1.0], list(others))
    return np.array([float(a == b) for a, b in zip(ours, theirs, strict=True) if a != NO_WORD])


def _log_posteriors(totals: np.ndarray) -> np.ndarray:
    """Natural-log shares of the sentences; equal ones where all are impossible."""
    if not np.isfinite(totals.max()):
        return np.full(len(totals), -math.log(len(totals)))
    totals = totals - totals.max()
    return totals - np.logaddexp.reduce(totals)
