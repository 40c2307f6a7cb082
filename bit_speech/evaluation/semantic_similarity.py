"""How near a decoded sentence comes to what was meant, in the embeddings of a text model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class EmbeddingSimilarity:
    """Cosine of mean token embeddings between what was said and what was decoded.

    Args:
        mean (`float`): mean cosine over sentences, 1 for a perfect decoder.
        low (`float`): lower end of its 95 % interval over sentences.
        high (`float`): upper end.
        shuffled (`float`): mean cosine of sentences with other sentences' decodes: what says nothing scores so much.
        rescaled (`float`): `(mean - shuffled) / (1 - shuffled)`: 0 for what says nothing, 1 for perfect.
        each (`np.ndarray` of shape `(N,)`): cosine of every sentence; 0 where nothing was decoded.
    """

    mean: float
    low: float
    high: float
    shuffled: float
    rescaled: float
    each: np.ndarray

    def to_dict(self) -> dict[str, float]:
        """Give the summary as JSON can hold it.

        Returns:
            `dict[str, float]`: every field but `each`.
        """
        return {name: value for name, value in asdict(self).items() if name != "each"}


def sentence_embeddings(
    sentences: Sequence[str], model: Any, tokenizer: Any, layer: int = -1, batch_size: int = 64
) -> np.ndarray:
    """Mean token embedding of every sentence under a text model of transformers.

    Args:
        sentences (sequence of `str`): texts.
        model (`PreTrainedModel`): any model of text that gives hidden states; a folder on disk will do.
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        layer (`int`, *optional*): hidden state to average: 0 for the input embeddings, -1 for the last layer.
        batch_size (`int`, *optional*): sentences at a time.

    Returns:
        `np.ndarray` of shape `(N, D)`: float64; zeros for a sentence without tokens.

    Raises:
        ValueError: when `sentences` is one string.
    """
    import torch

    if isinstance(sentences, str):
        raise ValueError(f"sentences is one string, {sentences[:40]!r}; give a list of sentences")
    rows = [list(tokenizer(text, add_special_tokens=False)["input_ids"]) if text else [] for text in sentences]
    order = sorted((index for index, row in enumerate(rows) if row), key=lambda index: len(rows[index]))
    found: dict[int, np.ndarray] = {}
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for start in range(0, len(order), batch_size):
            members = order[start : start + batch_size]
            longest = max(len(rows[index]) for index in members)
            ids = torch.zeros(len(members), longest, dtype=torch.long)
            mask = torch.zeros(len(members), longest, dtype=torch.long)
            for place, index in enumerate(members):
                ids[place, : len(rows[index])] = torch.tensor(rows[index])
                mask[place, : len(rows[index])] = 1
            ids, mask = ids.to(model.device), mask.to(model.device)
            if layer == 0:
                states = model.get_input_embeddings()(ids)
            else:
                states = model(input_ids=ids, attention_mask=mask, output_hidden_states=True).hidden_states[layer]
            weights = mask[..., None].double()
            means = ((states.double() * weights).sum(1) / weights.sum(1)).cpu().numpy()
            found.update(zip(members, means))
    model.train(was_training)
    width = model.get_input_embeddings().embedding_dim if not found else len(next(iter(found.values())))
    return np.stack([found.get(index, np.zeros(width)) for index in range(len(rows))])


def embedding_similarity(
    references: Sequence[str],
    predictions: Sequence[str],
    model: Any,
    tokenizer: Any,
    layer: int = -1,
    num_bootstrap: int = 2000,
    seed: int = 0,
) -> EmbeddingSimilarity:
    """Compare meanings, as far as mean token embeddings hold them.

    Args:
        references (sequence of `str`): what was said.
        predictions (sequence of `str`): what was decoded, in the same order.
        model (`PreTrainedModel`): see [`sentence_embeddings`].
        tokenizer (`PreTrainedTokenizerBase`): its tokenizer.
        layer (`int`, *optional*): see [`sentence_embeddings`].
        num_bootstrap (`int`, *optional*): draws of sentences for the interval.
        seed (`int`, *optional*): of the draws and of the shuffle.

    Returns:
        [`EmbeddingSimilarity`].

    Raises:
        ValueError: when there are fewer than two sentences, or the numbers differ.

    Note:
        A mean of token embeddings is a bag of words with soft edges: it forgives a synonym and is blind to word order
        and to a missing "not". All sentences lie close together in most models, hence the shuffled baseline beside it.
        The score belongs to the model that made it and compares decoders under one model only.
    """
    if len(references) != len(predictions) or len(references) < 2:
        raise ValueError(
            f"{len(references)} references, {len(predictions)} predictions; give as many of each, 2 or more"
        )
    first, second = (sentence_embeddings(texts, model, tokenizer, layer) for texts in (references, predictions))
    unit_first, unit_second = (
        one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in (first, second)
    )
    cosines = unit_first @ unit_second.T
    each, count = np.diag(cosines).copy(), len(cosines)
    shuffled = float((cosines.sum() - each.sum()) / (count * (count - 1)))
    rng = np.random.default_rng(seed)
    draws = (
        each[rng.integers(count, size=(num_bootstrap, count))].mean(axis=1)
        if num_bootstrap
        else each.mean(keepdims=True)
    )
    low, high = np.quantile(draws, (0.025, 0.975))
    mean = float(each.mean())
    rescaled = (mean - shuffled) / max(1 - shuffled, 1e-12)
    return EmbeddingSimilarity(mean, float(low), float(high), shuffled, rescaled, each)
