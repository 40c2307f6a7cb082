"""Rows of trials to a training batch: select, normalise, augment, smooth, and only then pad."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from bit_speech.data.augmentation import Augmentation
from bit_speech.data.schema import trial_name
from bit_speech.data.statistics import Statistics


class CTCCollator:
    """Makes the batch that CTC models take out of rows of a dataset of trials.

    Args:
        processor (`BITProcessor`): its feature extractor says what happens to the signal, its tokenizer makes labels.
        augmentation (`Augmentation`, *optional*): random changes, for training only.
        statistics (`dict`, *optional*): mean and standard deviation by `(session_id, block_index)`
            ([`~bit_speech.data.statistics.block_statistics`]) or by `session_id`
            ([`~bit_speech.data.statistics.session_statistics`]), of the channels before or after selection. Needed when
            the extractor normalises by block; by session it takes precedence over the extractor's own.
        seed (`int`, defaults to 0): seed of the augmentation. What a trial meets depends on the seed, the epoch and the
            trial alone: not on its batch, not on the number of loader workers, not on where a run was resumed.

    Raises:
        ValueError: when the extractor normalises by block and no statistics are given, because a batch is not a block.

    Example:
        ```python
        trials = load_trials("runs/t12", "train")
        collate = CTCCollator(processor, Augmentation(white_noise_sd=1.0), block_statistics(trials))
        batch = collate([trials[0], trials[1]])  # input_features, attention_mask, participant_index, labels, ...
        ```
    """

    def __init__(
        self,
        processor: Any,
        augmentation: Augmentation | None = None,
        statistics: Mapping[Any, Statistics] | None = None,
        seed: int = 0,
    ) -> None:
        self.processor = processor
        self.augmentation = augmentation
        self.statistics = statistics
        self.seed = seed
        # In shared memory, so that loader workers that outlive an epoch see the change.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        if processor.feature_extractor.normalization == "block" and statistics is None:
            raise ValueError(
                "the feature extractor normalises by block, and a batch is not a block: pass "
                "statistics=block_statistics(dataset), or use an extractor with normalization='session' or 'none'"
            )

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and with it the random changes that every trial meets.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self._epoch.fill_(epoch)

    def __call__(self, trials: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
        """Make one batch.

        Args:
            trials (`list[dict]`): rows with the columns of a trial; all of one participant.

        Returns:
            `dict[str, torch.Tensor]`: `input_features` (float32, `(B, T, C)`), `attention_mask` (bool, `(B, T)`),
                `participant_index` (int64, `(B,)`), `session_index` (int64, `(B,)`) when the extractor has sessions,
                and `labels` (int64, `(B, L)`, padded with -100) when the trials have text or phonemes.

        Raises:
            ValueError: naming the trial, for an unknown participant or session, several participants in one batch,
                statistics that are missing, or labels that only some of the trials have.
        """
        if not len(trials):
            raise ValueError("an empty batch: give at least one trial")
        extractor = self.processor.feature_extractor
        batch = dict(extractor.pad([self._prepare(trial) for trial in trials]))
        batch["participant_index"] = np.full(len(trials), self._participant(trials), dtype=np.int64)
        if extractor.sessions:
            batch["session_index"] = np.array([self._session(trial) for trial in trials], dtype=np.int64)
        labels = self._labels(trials)
        if labels is not None:
            batch["labels"] = labels
        return {key: torch.as_tensor(value) for key, value in batch.items()}

    def _prepare(self, trial: Mapping[str, Any]) -> np.ndarray:
        extractor, augmentation = self.processor.feature_extractor, self.augmentation
        features = extractor.select(trial["features"], trial["feature_kinds"], trial["channel_areas"])
        features = np.asarray(features, dtype=np.float32)
        statistics = self._statistics(trial, features.shape[-1])
        if statistics is not None:
            features = extractor.normalize(features, *statistics)
        if augmentation is None:
            return extractor.smooth(features)
        rng = self._generator(trial)
        features = augmentation.cut(features, rng)
        if augmentation.noise_before_smoothing:
            features = extractor.smooth(augmentation.add_noise(features, rng))
        else:
            features = augmentation.add_noise(extractor.smooth(features), rng)
        # After smoothing, which would otherwise spread the edges of a span into it.
        return augmentation.mask(features, rng)

    def _generator(self, trial: Mapping[str, Any]) -> np.random.Generator:
        identity = f"{trial['participant_id']}\n{trial['session_id']}\n{trial['block_index']}\n{trial['trial_index']}"
        return np.random.default_rng((self.seed, int(self._epoch), zlib.crc32(identity.encode())))

    def _statistics(self, trial: Mapping[str, Any], num_channels: int) -> Statistics | None:
        extractor = self.processor.feature_extractor
        if extractor.normalization == "none":
            return None
        session, block = str(trial["session_id"]), int(trial["block_index"])
        given = self.statistics or {}
        found = given.get((session, block), given.get(session))
        if found is None and extractor.normalization == "session" and session in extractor.session_statistics:
            entry = extractor.session_statistics[session]
            found = (np.asarray(entry["mean"]), np.asarray(entry["std"]))
        if found is None:
            what = (
                f"block {block} of session {session!r}"
                if extractor.normalization == "block"
                else f"session {session!r}"
            )
            raise ValueError(
                f"{trial_name(trial)}: no statistics for {what}; compute them over the dataset that holds this trial "
                "(block_statistics, session_statistics) and pass them as statistics="
            )
        mean, std = found
        if len(mean) != num_channels:
            kinds, areas = trial["feature_kinds"], trial["channel_areas"]
            mean, std = (extractor.select(np.asarray(values), kinds, areas) for values in (mean, std))
        return mean, std

    def _participant(self, trials: Sequence[Mapping[str, Any]]) -> int:
        names = sorted({str(trial["participant_id"]) for trial in trials})
        if len(names) > 1:
            raise ValueError(
                f"one batch holds the participants {', '.join(names)}: sample batches of one participant each"
            )
        known = list(self.processor.feature_extractor.participants)
        if names[0] not in known:
            raise ValueError(
                f"{trial_name(trials[0])}: unknown participant {names[0]!r}; the processor knows {', '.join(known)}"
            )
        return known.index(names[0])

    def _session(self, trial: Mapping[str, Any]) -> int:
        known = list(self.processor.feature_extractor.sessions)
        session = str(trial["session_id"])
        if session not in known:
            raise ValueError(f"{trial_name(trial)}: unknown session; the processor knows {', '.join(known)}")
        return known.index(session)

    def _labels(self, trials: Sequence[Mapping[str, Any]]) -> np.ndarray | None:
        columns: dict[str, list[str | None]] = {
            name: [_text_or_none(trial.get(name)) for trial in trials] for name in ("text", "phonemes")
        }
        labelled = [any(column[i] is not None for column in columns.values()) for i in range(len(trials))]
        if not any(labelled):
            return None
        if not all(labelled):
            raise ValueError(
                f"{trial_name(trials[labelled.index(False)])}: no text and no phonemes, unlike others of its batch"
            )
        try:
            labels = self.processor(text=columns["text"], phonemes=columns["phonemes"])["labels"]
        except ValueError as error:
            names = "; ".join(trial_name(trial) for trial in trials)
            raise ValueError(f"labels of a batch could not be made: {error} (trials in order: {names})") from error
        return np.asarray(labels)


def _text_or_none(value: Any) -> str | None:
    return None if value is None else str(value)
