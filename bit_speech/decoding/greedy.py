"""Greedy CTC decoding: the best class of every frame, repeats collapsed, blanks dropped."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bit_speech.ctc import collapse


def check_log_probs(log_probs: npt.ArrayLike, num_classes: int, name: str = "log_probs") -> np.ndarray:
    """Check that an array holds log-probabilities of the right shape.

    Args:
        log_probs (`np.ndarray` of shape `(T, V)`): natural-log probabilities, one row per frame. -inf is allowed, but
            not for a whole frame.
        num_classes (`int`): how many classes V there must be.
        name (`str`): what to call the array in error messages.

    Returns:
        `np.ndarray` of shape `(T, V)`: the same values as float32.

    Raises:
        ValueError: when the shape is wrong, or a value is NaN, above zero, or a frame gives every class probability 0.
    """
    if type(log_probs).__module__.startswith("torch"):
        log_probs = log_probs.detach().float().cpu().numpy()  # type: ignore[union-attr]
    array = np.asarray(log_probs)
    if array.ndim != 2 or array.shape[1] != num_classes:
        raise ValueError(f"{name} has shape {array.shape}; expected (frames, {num_classes} classes), one utterance.")
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"{name} has dtype {array.dtype}; expected floating-point log-probabilities.")
    array = array.astype(np.float32, copy=False)
    if len(array) == 0:
        return array
    best = array.max(axis=1)
    if np.isnan(best).any():
        frame = int(np.flatnonzero(np.isnan(best))[0])
        column = int(np.flatnonzero(np.isnan(array[frame]))[0])
        raise ValueError(f"{name} is NaN at frame {frame}, class {column}; the model's output is broken there.")
    if best.max() > 1e-2:
        frame = int(best.argmax())
        raise ValueError(f"{name} is {best[frame]:.4g} > 0 at frame {frame}; apply log_softmax to the logits first.")
    if np.isneginf(best).any():
        frame = int(np.flatnonzero(np.isneginf(best))[0])
        raise ValueError(f"{name} is -inf for every class of frame {frame}; at least one class must be possible.")
    return array


def greedy_decode(log_probs: npt.ArrayLike, blank: int = 0) -> list[int]:
    """Best class of every frame, repeats collapsed, blanks dropped.

    Args:
        log_probs (`np.ndarray` of shape `(T, V)`): natural-log probabilities; unnormalised logits work too.
        blank (`int`): index of the CTC blank.

    Returns:
        `list[int]`: label indices.

    Raises:
        ValueError: when the array is not two-dimensional or holds NaN.

    Example:
        >>> import numpy as np
        >>> greedy_decode(np.log([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.2, 0.7, 0.1]]))
        [1, 1]
    """
    if type(log_probs).__module__.startswith("torch"):
        log_probs = log_probs.detach().float().cpu().numpy()  # type: ignore[union-attr]
    array = np.asarray(log_probs)
    if array.ndim != 2:
        raise ValueError(f"log_probs has shape {array.shape}; expected (frames, classes), one utterance.")
    if np.isnan(array).any():
        frame = int(np.flatnonzero(np.isnan(array).any(axis=1))[0])
        raise ValueError(f"log_probs is NaN at frame {frame}; the model's output is broken there.")
    if len(array) == 0:
        return []
    return collapse(array.argmax(axis=1), blank)
