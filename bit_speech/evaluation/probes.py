"""What a speech model's layers know about speech: linear probes on utterances, layer by layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

if TYPE_CHECKING:
    from torch import nn


@torch.no_grad()
def utterance_vectors(model: nn.Module, recordings: Sequence[np.ndarray]) -> np.ndarray:
    """Average the frames of every layer over each utterance.

    Args:
        model (`nn.Module`): a Wav2Vec2-like speech model in evaluation mode.
        recordings (sequence of `np.ndarray` of shape `(S,)`): 16 kHz samples; normalised here, one by one.

    Returns:
        `np.ndarray` of shape `(layers, N, D)`: the input of the first layer comes first.
    """
    device, found = next(model.parameters()).device, []
    for audio in recordings:
        normal = ((audio - audio.mean()) / np.sqrt(audio.var() + 1e-7)).astype(np.float32)
        hidden = model(torch.from_numpy(normal)[None].to(device), output_hidden_states=True, return_dict=True)
        found.append(torch.stack([layer[0].mean(dim=0) for layer in hidden.hidden_states]).float().cpu().numpy())
    return np.stack(found, axis=1)


def probe_layers(
    training: np.ndarray,
    training_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    kind: Literal["present", "class"],
    epochs: int | None = None,
    learning_rate: float = 1e-3,
    seed: int = 0,
) -> list[dict[str, float]]:
    """Fit a linear map from each layer to labels and score it on other utterances.

    Args:
        training (`np.ndarray` of shape `(layers, N, D)`): from [`utterance_vectors`].
        training_labels (`np.ndarray`): with `"present"` of shape `(N, C)`, 1 where a sound occurs; with `"class"` of
            shape `(N,)`, 0 to C - 1.
        test (`np.ndarray` of shape `(layers, M, D)`): other utterances.
        test_labels (`np.ndarray`): their labels.
        kind (`str`): `"present"` (which sounds occur, several at once) or `"class"` (one of several).
        epochs (`int`, *optional*): passes over all utterances at once; default 50 and 100, as published.
        learning_rate (`float`): of Adam.
        seed (`int`): of the initial weights.

    Returns:
        list of `dict`: `micro_f1` and `macro_f1` of every layer; classes that never occur in the test do not count.

    Raises:
        ValueError: if the kind is unknown or labels do not fit.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520: sounds of an utterance (threshold 0.5) and type of sentence on TIMIT.
        Vectors are z-scored with the training's statistics, which the published probes leave out.
    """
    if kind not in ("present", "class"):
        raise ValueError(f"kind is {kind!r}: choose present or class")
    if len(training_labels) != training.shape[1] or len(test_labels) != test.shape[1]:
        raise ValueError(
            f"{len(training_labels)} and {len(test_labels)} labels for {training.shape[1]} and {test.shape[1]} "
            "utterances"
        )
    classes = training_labels.shape[1] if kind == "present" else int(max(training_labels.max(), test_labels.max())) + 1
    steps = epochs if epochs is not None else (50 if kind == "present" else 100)
    truth = test_labels.astype(bool) if kind == "present" else np.eye(classes, dtype=bool)[test_labels]
    results = []
    for inputs, others in zip(training, test):
        mean, scale = inputs.mean(axis=0), inputs.std(axis=0) + 1e-6
        x, other = (torch.from_numpy(((v - mean) / scale).astype(np.float32)) for v in (inputs, others))
        y = torch.from_numpy(training_labels.astype(np.float32 if kind == "present" else np.int64))
        generator = torch.Generator().manual_seed(seed)
        weight = (torch.randn(classes, x.shape[1], generator=generator) / x.shape[1] ** 0.5).requires_grad_()
        bias = torch.zeros(classes, requires_grad=True)
        optimizer = torch.optim.Adam([weight, bias], lr=learning_rate)
        criterion = torch.nn.BCEWithLogitsLoss() if kind == "present" else torch.nn.CrossEntropyLoss()
        for _ in range(steps):
            optimizer.zero_grad()
            loss = criterion(x @ weight.T + bias, y)
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            logits = (other @ weight.T + bias).numpy()
        guess = logits > 0 if kind == "present" else np.eye(classes, dtype=bool)[logits.argmax(axis=1)]
        results.append(f1_scores(truth, guess))
    return results


_ASKED_WORDS = {"what", "who", "whom", "whose", "which", "where", "when", "why", "how"}
_ASKED_VERBS = {
    "am", "is", "are", "was", "were", "do", "does", "did", "have", "has", "had", "can", "could", "will", "would",
    "shall", "should", "may", "might", "must", "ca", "wo",  # can't, won't
}  # fmt: skip
SENTENCE_TYPES: tuple[str, ...] = ("statement", "question of a word", "question of yes or no")


def sentence_types(texts: Sequence[str]) -> np.ndarray:
    """Tell statements from questions by the first word.

    Args:
        texts (sequence of `str`): sentences.

    Returns:
        `np.ndarray` of shape `(N,)`: positions in `SENTENCE_TYPES`, labels for [`probe_layers`] with `"class"`.

    Note:
        The published types are the three lists of TIMIT, which cannot be given away; read them off its file names
        (`SA`, `SI`, `SX`) where it is at hand. Orders and questions by tone alone count as statements here.

    Example:
        >>> sentence_types(["we go home", "where are you", "are you home"]).tolist()
        [0, 1, 2]
    """
    first = [(text.lower().split() or [""])[0].strip('.,;:!?"').removesuffix("n't") for text in texts]
    return np.array([1 if word in _ASKED_WORDS else 2 if word in _ASKED_VERBS else 0 for word in first])


def f1_scores(truth: np.ndarray, guess: np.ndarray) -> dict[str, float]:
    """Score guesses of several classes.

    Args:
        truth (`np.ndarray` of shape `(N, C)`): booleans.
        guess (`np.ndarray` of shape `(N, C)`): booleans.

    Returns:
        `dict[str, float]`: `micro_f1` over all decisions, and `macro_f1`, the mean over classes that occur.

    Example:
        >>> f1_scores(np.array([[True, False], [True, True]]), np.array([[True, True], [True, False]]))
        {'micro_f1': 0.6666666666666666, 'macro_f1': 0.5}
    """
    hits = (truth & guess).sum(axis=0)
    total = truth.sum(axis=0) + guess.sum(axis=0)
    occurring = truth.any(axis=0)
    each = 2 * hits[occurring] / np.maximum(total[occurring], 1)
    return {
        "micro_f1": float(2 * hits.sum() / max(1, total.sum())),
        "macro_f1": float(each.mean()) if occurring.any() else 0.0,
    }
