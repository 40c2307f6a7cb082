"""What the released code of arXiv 2501.09459 does differently from its benchmark, for runs that compare with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bit_speech.evaluation import ErrorRate


def first_blocks(session_ids: Sequence[str], block_indices: Sequence[int]) -> list[bool]:
    """Tell which training trials the released code scores as its test set: the first block of every session.

    Args:
        session_ids (sequence of `str`): session of each trial of the official training split.
        block_indices (sequence of `int`): block of each trial.

    Returns:
        `list[bool]`: True = test, False = train. The official test split chooses the checkpoint there.

    Example:
        >>> first_blocks(["a", "a", "b"], [3, 2, 5])
        [False, True, True]
    """
    first: dict[str, int] = {}
    for session, block in zip(session_ids, block_indices, strict=True):
        first[session] = min(block, first.get(session, block))
    return [block == first[session] for session, block in zip(session_ids, block_indices)]


def mean_over_batches(
    measure: Callable[..., ErrorRate], references: Sequence[str], predictions: Sequence[str], batch_size: int = 64
) -> float:
    """Average the rates of batches, as the released code does, instead of pooling errors.

    Args:
        measure (callable): `word_error_rate` or `character_error_rate`.
        references (list of `str`): what was said.
        predictions (list of `str`): what was decoded.
        batch_size (`int`): sentences in a batch; the last may be smaller and counts as much as the others.

    Returns:
        `float`: the mean rate.

    Raises:
        ValueError: when there are no sentences.

    Example:
        >>> from bit_speech.evaluation import word_error_rate
        >>> mean_over_batches(word_error_rate, ["a b c", "a"], ["a b c", "b"], batch_size=1)
        0.5
    """
    starts = range(0, len(references), batch_size)
    if not starts:
        raise ValueError("There are no sentences to score.")
    parts = [slice(start, start + batch_size) for start in starts]
    return float(np.mean([measure(references[part], predictions[part], num_bootstrap=0).rate for part in parts]))
