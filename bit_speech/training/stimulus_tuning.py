"""A control of brain-tuning: the same low-rank updates, learnt from the stories' sound and words, with no brain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import get_linear_schedule_with_warmup

if TYPE_CHECKING:
    from torch import nn

    from bit_speech.data.story_runs import Interval
    from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction

SAMPLING_RATE = 16_000


def spoken_clips(audio: np.ndarray, words: Sequence[Interval], clip_s: float) -> list[tuple[np.ndarray, str]]:
    """Cut a story between words into clips of known text.

    Args:
        audio (`np.ndarray` of shape `(S,)`): 16 kHz samples of the story.
        words (sequence of `Interval`): when each word is said, in order.
        clip_s (`float`): longest clip in seconds; a longer word is a clip of its own.

    Returns:
        list of `tuple[np.ndarray, str]`: samples with mean 0 and variance 1, and what is said in them.

    Raises:
        ValueError: if there are no words.

    Example:
        >>> from bit_speech.data.story_runs import Interval
        >>> words = [Interval(0.0, 0.4, "we"), Interval(0.4, 0.9, "go"), Interval(0.9, 1.5, "home")]
        >>> [(len(clip), text) for clip, text in spoken_clips(np.ones(24_000), words, 1.0)]
        [(14400, 'we go'), (9600, 'home')]
    """
    if not words:
        raise ValueError("there are no words: a story needs its aligned words to be spelt")
    groups: list[list[Interval]] = [[words[0]]]
    for word in words[1:]:
        if word.stop_s - groups[-1][0].start_s > clip_s:
            groups.append([])
        groups[-1].append(word)
    found = []
    for group in groups:
        clip = audio[round(group[0].start_s * SAMPLING_RATE) : round(group[-1].stop_s * SAMPLING_RATE)]
        clip = ((clip - clip.mean()) / np.sqrt(clip.var() + 1e-7)).astype(np.float32)
        found.append((clip, " ".join(word.text for word in group)))
    return found


def tune_to_stimuli(
    model: BrainTunedForVoxelPrediction,
    speller: nn.Module,
    clips: Sequence[tuple[np.ndarray, Sequence[int]]],
    updates: int,
    batch_size: int = 16,
    learning_rate: float = 1e-4,
    weight_decay: float = 0.01,
    seed: int = 0,
) -> list[float]:
    """Teach the updates of a speech model to spell the stories; its head for letters stays as it was.

    Args:
        model ([`BrainTunedForVoxelPrediction`]): whose updates learn. Its voxel head plays no part.
        speller (`nn.Module`): a CTC model of the same checkpoint; its body is replaced by that of `model`.
        clips (sequence of `tuple`): samples and the numbers of their letters.
        updates (`int`): steps of AdamW, a tenth of them warm-up, then linear decay, as in brain-tuning.
        batch_size (`int`): clips per step.
        learning_rate (`float`): peak.
        weight_decay (`float`): of AdamW.
        seed (`int`): of the order of the clips.

    Returns:
        `list[float]`: the loss of every step.

    Raises:
        ValueError: if nothing of the body learns, or there are no clips.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520, go on with Wav2Vec2's own pretraining; small bodies here were made by
        spelling, so that spelling is their pretraining.
    """
    if not clips:
        raise ValueError("there are no clips to learn from")
    body = model.model.body
    setattr(speller, speller.base_model_prefix, body)
    model.train()
    learning = [parameter for parameter in body.parameters() if parameter.requires_grad]
    if not learning:
        raise ValueError("no part of the body learns: `tuning` must be lora or full")
    for name, parameter in speller.named_parameters():
        if not name.startswith(speller.base_model_prefix):
            parameter.requires_grad_(False)
    optimizer = torch.optim.AdamW(learning, lr=learning_rate, weight_decay=weight_decay)
    schedule = get_linear_schedule_with_warmup(optimizer, round(0.1 * updates), updates)
    rng, order, losses = np.random.default_rng(seed), np.zeros(0, dtype=int), []
    for _ in range(updates):
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(len(clips))])
        chosen, order = order[:batch_size], order[batch_size:]
        loss = speller(**_padded([clips[int(i)] for i in chosen], learning[0].device)).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learning, 1.0)
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def _padded(clips: Sequence[tuple[np.ndarray, Sequence[int]]], device: Any) -> dict[str, torch.Tensor]:
    length = max(len(samples) for samples, _ in clips)
    values, mask = torch.zeros(len(clips), length), torch.zeros(len(clips), length, dtype=torch.long)
    labels = torch.full((len(clips), max(len(letters) for _, letters in clips)), -100)
    for row, (samples, letters) in enumerate(clips):
        values[row, : len(samples)], mask[row, : len(samples)] = torch.from_numpy(samples), 1
        labels[row, : len(letters)] = torch.tensor(list(letters))
    return {"input_values": values.to(device), "attention_mask": mask.to(device), "labels": labels.to(device)}
