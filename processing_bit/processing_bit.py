"""The processor: recordings to model inputs, sentences to labels, class ids to phonemes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import BatchFeature, ProcessorMixin

from configuration_bit.remote_code_bit import RemoteCodeMixin

from .feature_extraction_bit import BITFeatureExtractor
from .tokenization_phoneme import PhonemeTokenizer


class BITProcessor(RemoteCodeMixin, ProcessorMixin):
    """Joins a [`BITFeatureExtractor`] and a [`PhonemeTokenizer`] or [`SpellingTokenizer`].

    Args:
        feature_extractor ([`BITFeatureExtractor`], *optional*): signal side; default settings if left out.
        tokenizer ([`PhonemeTokenizer`] or [`SpellingTokenizer`], *optional*): label side; phonemes if left out.

    Example:
        ```python
        >>> processor = BITProcessor(BITFeatureExtractor(participants={"t15": 4}), PhonemeTokenizer())
        >>> batch = processor([np.eye(4), np.eye(4)[:3]], text=["Hi.", "Bring it."], participant_id="t15")
        >>> batch["input_features"].shape, batch["labels"][0].tolist()
        ((2, 4, 4), [16, 6, 40, -100, -100, -100, -100, -100])

        ```
    """

    feature_extractor: BITFeatureExtractor
    tokenizer: PhonemeTokenizer

    def __init__(self, feature_extractor: Any = None, tokenizer: Any = None) -> None:
        super().__init__(
            BITFeatureExtractor() if feature_extractor is None else feature_extractor,
            PhonemeTokenizer() if tokenizer is None else tokenizer,
        )

    def __call__(
        self,
        features: Any | None = None,
        text: str | Sequence[str | None] | None = None,
        phonemes: str | Sequence[str | None] | None = None,
        participant_id: str | Sequence[str] | None = None,
        session_id: str | Sequence[str | None] | None = None,
        block_index: int | Sequence[int] | None = None,
        statistics: Any | None = None,
        feature_kinds: Sequence[str] | None = None,
        channel_areas: Sequence[str] | None = None,
        return_tensors: str | None = None,
    ) -> BatchFeature:
        """Prepare recordings, labels, or both.

        Args:
            features (array-like of shape `(T, C)`, or a sequence of them, *optional*): one raw trial or many.
            text (`str` or `Sequence[str]`, *optional*): the sentence of each trial.
            phonemes (`str` or `Sequence[str]`, *optional*): the phonemes of each trial, separated by spaces. Where both
                are given, the phonemes are used; a character tokenizer spells the text instead.
            participant_id (`str`, *optional*): whose trials these are; the only participant if there is just one.
            session_id (`str` or `Sequence[str]`, *optional*): session of all trials, or one per trial.
            block_index (`int` or `Sequence[int]`, *optional*): block of all trials, or one per trial.
            statistics (*optional*): one `(mean, std)` pair for all trials or one per trial.
            feature_kinds (`Sequence[str]`, *optional*): kind of each raw channel, if the feature extractor selects.
            channel_areas (`Sequence[str]`, *optional*): area of each raw channel, if the feature extractor selects.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.

        Returns:
            `BatchFeature`: of `features`, what [`BITFeatureExtractor`] gives; of `text` or `phonemes`, `labels` (int64,
            `(B, L)`, padded with -100).

        Raises:
            ValueError: naming the trial and the value, for any input that cannot be used.
        """
        if features is None and text is None and phonemes is None:
            raise ValueError("Nothing to process: give features, text or phonemes.")
        batch = BatchFeature()
        count = None
        if features is not None:
            batch = self.feature_extractor(
                features,
                participant_id=participant_id,
                session_id=session_id,
                block_index=block_index,
                statistics=statistics,
                feature_kinds=feature_kinds,
                channel_areas=channel_areas,
            )
            count = len(batch["input_features"])
        if text is not None or phonemes is not None:
            batch["labels"] = self._labels(text, phonemes, count)
        return batch.convert_to_tensors(return_tensors)

    def batch_decode(self, ids: Any, **kwargs: Any) -> list[str]:
        """Phonemes of many label sequences; nothing is merged and -100 is skipped.

        Args:
            ids (`Sequence[Sequence[int]]` of shape `(B, L)`): labels.
            **kwargs: passed to the tokenizer, such as `skip_special_tokens`.

        Returns:
            `list[str]`: phonemes of each sequence, separated by spaces.
        """
        return self.tokenizer.batch_decode(ids, **kwargs)

    def decode(self, ids: Any, **kwargs: Any) -> str:
        """Phonemes of one label sequence; nothing is merged and -100 is skipped.

        Args:
            ids (`Sequence[int]` of length `L`): labels.
            **kwargs: passed to the tokenizer, such as `skip_special_tokens`.

        Returns:
            `str`: phonemes separated by spaces.
        """
        return self.tokenizer.decode(ids, **kwargs)

    def decode_ctc(self, ids: Any) -> str:
        """Phonemes of a model's best classes: repeats merged, then blanks dropped.

        Args:
            ids (`Sequence[int]` of length `P`): best class of every real frame of one trial.

        Returns:
            `str`: phonemes separated by spaces.
        """
        return self.tokenizer.decode_ctc(ids)

    def batch_decode_ctc(self, ids: Any, frame_mask: Any | None = None) -> list[str]:
        """Phonemes of a model's best classes for a batch: repeats merged, then blanks dropped.

        Args:
            ids (`Sequence[Sequence[int]]` of shape `(B, P)`): best class of every frame.
            frame_mask (`Sequence[Sequence[bool]]` of shape `(B, P)`, *optional*): True = real frame.

        Returns:
            `list[str]`: phonemes of each trial, separated by spaces.
        """
        return self.tokenizer.batch_decode_ctc(ids, frame_mask)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that the models take."""
        return [*self.feature_extractor.model_input_names, "labels"]

    def _labels(self, text: Any, phonemes: Any, count: int | None) -> np.ndarray:
        columns: dict[str, list[str | None]] = {}
        for name, value in (("text", text), ("phonemes", phonemes)):
            if value is not None:
                columns[name] = [value] if isinstance(value, str) else list(value)
                expected = count if count is not None else len(next(iter(columns.values())))
                if len(columns[name]) != expected:
                    raise ValueError(
                        f"{name} has {len(columns[name])} entries for {expected} trials: give one per trial."
                    )
        rows = max(len(column) for column in columns.values())
        spells = not hasattr(self.tokenizer, "encode_phonemes")
        ids = []
        for index in range(rows):
            spoken, written = (columns[name][index] if name in columns else None for name in ("phonemes", "text"))
            if spells:
                spoken = None
            try:
                if spoken is not None:
                    row = self.tokenizer.encode_phonemes(spoken)
                elif written is not None:
                    row = self.tokenizer.encode_text(written)
                else:
                    needed = "no text to spell" if spells else "neither text nor phonemes"
                    raise ValueError(f"there is {needed}; leave trials without labels out")
            except ValueError as error:
                raise ValueError(f"trial {index}: {error}") from error
            if not row:
                raise ValueError(f"trial {index}: {written if spoken is None else spoken!r} holds no words to learn.")
            ids.append(row)
        if not ids:
            raise ValueError("No labels: text or phonemes is an empty list.")
        labels = np.full((rows, max(map(len, ids))), -100, dtype=np.int64)
        for index, row in enumerate(ids):
            labels[index, : len(row)] = row
        return labels
