"""Forced alignment: where in the recording each phoneme of a known sentence was, according to a CTC model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bit_speech.ctc import required_frames
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER


@dataclass(frozen=True)
class AlignedLabel:
    """A label and the frames it occupies on the best path.

    Args:
        label (`int`): class index.
        phoneme (`str`): its name in model class order; the index as text where the model has other classes.
        onset_frame (`int`): first frame that emits the label.
        offset_frame (`int`): the frame after the last one that emits it (half-open).
        log_prob (`float`): mean log-probability of the label over its frames; natural logarithm.
    """

    label: int
    phoneme: str
    onset_frame: int
    offset_frame: int
    log_prob: float


def align_ctc(log_probs: np.ndarray, labels: str | Sequence[int] | Sequence[str], blank: int = 0) -> list[AlignedLabel]:
    """Align a label sequence to the frames of a CTC model by its single best path (Viterbi).

    Args:
        log_probs (`np.ndarray` of shape `(P, V)`): log-probabilities per frame, model class order; natural logarithm.
        labels (`str`, `list[str]` or `list[int]`): `"HH AY SIL"`, phoneme names, or class indices; no blanks.
        blank (`int`, *optional*): index of the blank.

    Returns:
        `list[AlignedLabel]`: one per label, in time order; spans never overlap. Frames between two spans are blanks.
        CTC models emit a label in few frames: an onset is to be trusted more than a duration.

    Raises:
        ValueError: if the frames are too few for the labels, a label is unknown or the blank, a log-probability is NaN
            or positive, or the sequence has probability zero.

    Example:
        ```python
        >>> probabilities = np.full((4, 41), 1e-4)
        >>> probabilities[[0, 1, 2, 3], [16, 16, 0, 6]] = 1.0  # HH HH blank AY
        >>> [(a.phoneme, a.onset_frame, a.offset_frame) for a in align_ctc(np.log(probabilities), "HH AY")]
        [('HH', 0, 2), ('AY', 3, 4)]

        ```
    """
    log_probs = np.asarray(log_probs, dtype=np.float64)
    if log_probs.ndim != 2:
        raise ValueError(f"log_probs has shape {log_probs.shape}; give one trial of shape (frames, classes)")
    if np.isnan(log_probs).any() or (log_probs > 1e-3).any():
        raise ValueError(
            "log_probs holds NaN or positive values; give natural log-probabilities (log_softmax of the logits)"
        )
    num_frames, num_classes = log_probs.shape
    ids = _label_ids(labels, num_classes, blank)
    needed = required_frames(ids)
    if num_frames < needed:
        raise ValueError(
            f"{num_frames} frames are too few for {len(ids)} labels, which need {needed}; "
            "check that labels and recording belong together, or use a smaller patch stride"
        )
    if not ids:
        return []
    path = _best_path(log_probs, ids, blank)
    aligned = []
    for position, label in enumerate(ids):
        frames = np.flatnonzero(path == 2 * position + 1)
        onset, offset = int(frames[0]), int(frames[-1]) + 1
        aligned.append(
            AlignedLabel(
                label=label,
                phoneme=MODEL_ORDER[label] if num_classes == len(MODEL_ORDER) else str(label),
                onset_frame=onset,
                offset_frame=offset,
                log_prob=float(log_probs[onset:offset, label].mean()),
            )
        )
    return aligned


def _label_ids(labels: str | Sequence[int] | Sequence[str], num_classes: int, blank: int) -> list[int]:
    tokens: list[int | str] = labels.split() if isinstance(labels, str) else list(labels)  # type: ignore[assignment]
    ids = []
    for token in tokens:
        if isinstance(token, str):
            if token not in MODEL_ORDER or num_classes != len(MODEL_ORDER):
                raise ValueError(f"unknown phoneme {token!r}; names are {' '.join(MODEL_ORDER[1:])} (no stress digits)")
            token = MODEL_ORDER.index(token)
        index = int(token)
        if index == blank or not 0 <= index < num_classes:
            raise ValueError(
                f"label {index} is the blank or outside 0..{num_classes - 1}; labels hold no blank and no padding"
            )
        ids.append(index)
    return ids


def _best_path(log_probs: np.ndarray, ids: list[int], blank: int) -> np.ndarray:
    """State of the expanded sequence (blank, label, blank, ...) in every frame of the best path: `(P,)`."""
    num_frames, num_states = len(log_probs), 2 * len(ids) + 1
    expanded = np.full(num_states, blank)
    expanded[1::2] = ids
    # A blank may be skipped between two different labels only.
    can_skip = np.zeros(num_states, dtype=bool)
    can_skip[3::2] = expanded[3::2] != expanded[1:-2:2]

    scores = np.full(num_states, -np.inf)
    scores[:2] = log_probs[0, expanded[:2]]
    steps_back = np.zeros((num_frames, num_states), dtype=np.int8)
    for frame in range(1, num_frames):
        candidates = np.full((3, num_states), -np.inf)
        candidates[0] = scores
        candidates[1, 1:] = scores[:-1]
        candidates[2, 2:] = np.where(can_skip[2:], scores[:-2], -np.inf)
        steps_back[frame] = candidates.argmax(axis=0)
        scores = candidates.max(axis=0) + log_probs[frame, expanded]

    state = num_states - 1 if scores[-1] > scores[-2] else num_states - 2
    if not np.isfinite(scores[state]):
        raise ValueError("the model gives these labels probability zero (log-probabilities of -inf on every path)")
    path = np.empty(num_frames, dtype=np.int64)
    for frame in range(num_frames - 1, -1, -1):
        path[frame] = state
        state -= int(steps_back[frame, state])
    return path
