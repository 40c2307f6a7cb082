"""Trials ready for the end-to-end decoder: features, prompts and answers."""

from __future__ import annotations

import copy
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from bit_speech.ctc import required_frames
from bit_speech.training.prepared_trials import PreparedTrials, name_trial
from processing_bit.tokenization_phoneme import PhonemeTokenizer


class SentenceTrials(PreparedTrials):
    """The trials of one dataset with their sentences; augmented and kept as [`PreparedTrials`] does.

    Args:
        dataset (sequence of trial rows): trials with the `Trial` columns; `text` is what is learned.
        processor ([`BITLLMProcessor`]): prepares the signal and writes prompts and answers.
        with_phonemes (`bool`): also prepare phoneme labels, for the auxiliary CTC loss.
        **settings: as for [`PreparedTrials`].
    """

    _per_trial = (*PreparedTrials._per_trial, "sentences", "_phonemes")

    def __init__(self, dataset: Any, processor: Any, with_phonemes: bool = False, **settings: Any):
        self.with_phonemes = with_phonemes
        self.answers = True
        super().__init__(dataset, processor, **settings)

    def without_answers(self) -> SentenceTrials:
        """The same trials in batches that hold no sentence.

        Returns:
            `SentenceTrials`: shares the prepared features with this one.
        """
        other = copy.copy(self)
        other.answers = False
        return other

    def frames_needed(self, index: int) -> int:
        """Frames below which a trial cannot be learned.

        Args:
            index (`int`): position of the trial.

        Returns:
            `int`: 1, or what CTC needs when phonemes are learned too.
        """
        return max(1, required_frames(self._phonemes[index] or []))

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Pad trials to one batch of model inputs.

        Args:
            items (sequence of `dict`): what indexing this dataset returned.

        Returns:
            `dict`: what [`BITLLMProcessor`] gives, `trial_index` (B,), and with answers also `sentence_id` (B,), equal
            for equal sentences, and `logits_to_keep`, the positions whose scores the labels need.
        """
        batch: dict[str, Any] = super().collate(items)
        batch.pop("labels", None)
        mask = batch.pop("attention_mask")
        batch["input_features_mask"] = mask
        indices, bins = batch["trial_index"].tolist(), mask.sum(dim=1).tolist()
        if not self.answers:
            text = self.processor.generation_text(bins)
        else:
            text = self.processor.training_text(bins, [self.sentences[i] for i in indices])
            first = int((text["labels"] != -100).any(axis=0).argmax())
            batch["logits_to_keep"] = text["labels"].shape[1] - first + 1
            batch["sentence_id"] = torch.tensor([zlib.crc32((self.sentences[i] or "").encode()) for i in indices])
            if self.with_phonemes:
                rows = [self._phonemes[i] or [] for i in indices]
                labels = np.full((len(rows), max(1, *map(len, rows))), -100, dtype=np.int64)
                for place, row in zip(labels, rows):
                    place[: len(row)] = row
                batch["ctc_labels"] = torch.from_numpy(labels)
        return {**batch, **{key: torch.from_numpy(value) for key, value in text.items()}}

    def _tokenise(self) -> list[list[int] | None]:
        """The answers' tokens; the sentences and the phonemes are kept beside them."""
        self.sentences = [
            self.processor.normalize(row["text"]) if row["text"] is not None else None for row in self.metadata
        ]
        phonemes = PhonemeTokenizer() if self.with_phonemes else None
        self._phonemes: list[list[int] | None] = []
        for row in self.metadata:
            spoken = row["phonemes"] if row["phonemes"] is not None else row["text"]
            if phonemes is None or spoken is None:
                self._phonemes.append(None)
                continue
            encode = phonemes.encode_phonemes if row["phonemes"] is not None else phonemes.encode_text
            try:
                self._phonemes.append(encode(spoken))
            except ValueError as error:
                raise ValueError(f"{name_trial(row)} of the {self.name}: {error}") from error
        return [self.processor.encode_answers([text])[0] if text else None for text in self.sentences]
