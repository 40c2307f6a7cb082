"""The two facts about connectionist temporal classification that several rooms need."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt


def collapse(path: npt.ArrayLike, blank: int = 0) -> list[int]:
    """Turn a CTC path into labels: repeats are collapsed first, then blanks are dropped.

    Args:
        path (`np.ndarray` of shape `(P,)`): class index of every frame.
        blank (`int`): index of the CTC blank.

    Returns:
        `list[int]`: label indices; `A blank A` is two A's, `A A` is one.

    Raises:
        ValueError: when the path has more than one dimension.

    Example:
        >>> collapse([3, 3, 0, 3, 5, 5, 0])
        [3, 3, 5]
    """
    array = np.asarray(path, dtype=np.int64)
    if array.ndim != 1:
        raise ValueError(f"path has shape {array.shape}; expected (frames,).")
    first = np.ones(len(array), dtype=bool)
    first[1:] = array[1:] != array[:-1]
    return array[first & (array != blank)].tolist()


def required_frames(labels: Sequence[int]) -> int:
    """Count the frames that CTC needs to emit a label sequence.

    Args:
        labels (`list[int]`): class indices without blanks.

    Returns:
        `int`: one frame for each label and one blank between every two equal neighbours.

    Example:
        >>> required_frames([3, 3, 5])
        4
    """
    return len(labels) + sum(first == second for first, second in zip(labels, labels[1:]))
