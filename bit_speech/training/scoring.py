"""Error rates from phoneme sequences."""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein


def phoneme_scores(
    labels: Sequence[Sequence[int]],
    predictions: Sequence[Sequence[int]],
    session_ids: Sequence[str],
    prefix: str = "eval",
) -> dict[str, float]:
    """Pooled phoneme error rates, overall and per session.

    Args:
        labels (sequence of `int` sequences): what was said, one sequence per trial.
        predictions (sequence of `int` sequences): what was decoded, in the same order.
        session_ids (sequence of `str`): session of each trial.
        prefix (`str`): put before the names.

    Returns:
        `dict[str, float]`: `<prefix>_per` and `<prefix>_per_<session>`: edits / labels, each summed over trials, so
            that long trials count by their length.

    Example:
        >>> phoneme_scores([[1, 2], [3, 4, 5, 6]], [[1, 2], [3, 4]], ["a", "b"])
        {'eval_per': 0.3333333333333333, 'eval_per_a': 0.0, 'eval_per_b': 0.5}
    """
    errors: dict[str, int] = {}
    lengths: dict[str, int] = {}
    for label, prediction, session in zip(labels, predictions, session_ids, strict=True):
        errors[session] = errors.get(session, 0) + Levenshtein.distance(label, prediction)
        lengths[session] = lengths.get(session, 0) + len(label)
    scores = {f"{prefix}_per": sum(errors.values()) / max(1, sum(lengths.values()))}
    for session in sorted(errors):
        scores[f"{prefix}_per_{session}"] = errors[session] / max(1, lengths[session])
    return scores
