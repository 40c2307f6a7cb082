"""Trials ready for the encoder: selected, z-scored, smoothed and labelled once, augmented anew in every epoch.

Everything that does not change from epoch to epoch is computed once and kept in memory while it fits; only augmentation
and padding are left for the training step. Randomness is a function of (seed, epoch, trial), never of the order of
calls.
"""

from __future__ import annotations

import hashlib
import logging
import zlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset

from bit_speech.ctc import required_frames
from bit_speech.data.reading import TrialReader
from bit_speech.training.batches import TrialKey

if TYPE_CHECKING:
    from bit_speech.data import Augmentation

logger = logging.getLogger(__name__)

_LISTED = 10
_HASHED_TRIALS = 64
_CHANNEL_COLUMNS = ("feature_kinds", "channel_areas")
_METADATA = ("participant_id", "session_id", "block_index", "trial_index", "split", "text", "phonemes")


def name_trial(metadata: dict[str, Any]) -> str:
    """Name a trial for messages.

    Args:
        metadata (`dict`): the columns of a trial without its features.

    Returns:
        `str`: session, block and trial number.

    Example:
        >>> name_trial({"session_id": "t15.2023.08.11", "block_index": 2, "trial_index": 7})
        't15.2023.08.11 block 2 trial 7'
    """
    return f"{metadata.get('session_id')} block {metadata.get('block_index')} trial {metadata.get('trial_index')}"


class PreparedTrials(Dataset):
    """The trials of one dataset as the encoder reads them.

    Args:
        dataset (sequence of trial rows): `datasets.Dataset`, list of dicts or any indexable dataset with the `Trial`
            columns.
        processor ([`BITProcessor`] or alike): selects, z-scores, smooths and tokenises.
        name (`str`): what messages call the dataset.
        augmentation ([`~bit_speech.data.Augmentation`], *optional*): applied anew in every epoch; None for evaluation.
        seed (`int`): seed of the augmentation.
        cache_gigabytes (`float`): keep the prepared features in memory if they fit into this.
        needs_labels (`bool`): refuse trials that have neither `phonemes` nor `text`.
        fit_sessions (`bool`): with per-session normalisation, fit the statistics that the processor lacks on these
            trials. For training trials only.

    Raises:
        ValueError: when the dataset is empty, or a trial lacks a column or its labels, or names a participant or
            session that the processor does not know.

    Note:
        Block statistics come from all trials of a block that are in this dataset, as in the benchmarks' own
        preparation: the features of an evaluation block are known when it is over, its labels are not used.
    """

    # What `subset` selects from.
    _per_trial: tuple[str, ...] = ("metadata", "lengths", "labels", "_identities", "_statistics", "_cache")

    def __init__(
        self,
        dataset: Any,
        processor: Any,
        name: str = "dataset",
        augmentation: Augmentation | None = None,
        seed: int = 0,
        cache_gigabytes: float = 4.0,
        needs_labels: bool = True,
        fit_sessions: bool = False,
    ):
        if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
            raise ValueError(
                f"the {name} is a {type(dataset).__name__}, whose trials cannot be counted; give a datasets.Dataset "
                "or a list"
            )
        if len(dataset) == 0:
            raise ValueError(f"the {name} has no trials; check the folder and the split")
        self.name = name
        self.processor = processor
        self.extractor = processor.feature_extractor
        self.augmentation = augmentation
        self.seed = seed
        self._selects = self.extractor.feature_kinds is not None or self.extractor.channel_areas is not None
        self.metadata, self.lengths = self._read_metadata(dataset)
        self._rows = self._feature_rows(dataset)
        self._check_identities()
        self._identities = [_identity(row) for row in self.metadata]
        self.labels = self._tokenise()
        if needs_labels:
            self.require_labels()
        self._statistics = self._compute_statistics(fit_sessions)
        channels = max(self.extractor.participants[row["participant_id"]] for row in self.metadata)
        self.cached = sum(self.lengths) * channels * 4 <= cache_gigabytes * 2**30
        self._cache: list[np.ndarray | None] = [None] * len(self.metadata)

    def __len__(self) -> int:
        return len(self.metadata)

    @property
    def session_ids(self) -> list[str]:
        """Session of every trial (`list[str]`)."""
        return [row["session_id"] for row in self.metadata]

    @property
    def participant_ids(self) -> list[str]:
        """Participant of every trial (`list[str]`)."""
        return [row["participant_id"] for row in self.metadata]

    def subset(self, keep: Sequence[int]) -> PreparedTrials:
        """The same preparation on fewer trials; statistics stay those of all.

        Args:
            keep (sequence of `int`): positions of the trials to keep.

        Returns:
            `PreparedTrials`: shares nothing that either could change.
        """
        other = object.__new__(type(self))
        other.__dict__.update(self.__dict__)
        other._rows = _Selected(self._rows, keep)
        for attribute in self._per_trial:
            setattr(other, attribute, [getattr(self, attribute)[i] for i in keep])
        return other

    def features(self, index: int) -> np.ndarray:
        """Features of one trial as the encoder reads them without augmentation.

        Args:
            index (`int`): position of the trial.

        Returns:
            `np.ndarray` of shape `(T, C)`, float32: selected, z-scored and smoothed.
        """
        return self._prepare(index, smooth=True)

    def __getitem__(self, key: TrialKey | int) -> dict[str, Any]:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        augmentation = self.augmentation
        # What changes from epoch to epoch before smoothing forces smoothing into the training step.
        late = augmentation is not None and (
            augmentation.noise_before_smoothing or augmentation.random_cut_max_bins > 0
        )
        features = self._cache[index]
        if features is None:
            features = self._prepare(index, smooth=not late)
            if self.cached:
                # Read-only, so that an augmentation that writes in place fails at once instead of adding up over
                # epochs.
                features.flags.writeable = False
                self._cache[index] = features
        if augmentation is not None:
            rng = np.random.default_rng((self.seed, epoch, self._identities[index]))
            if late:
                features = augmentation.cut(features, rng)
                if augmentation.noise_before_smoothing:
                    features = augmentation.add_noise(features, rng)
                features = self.extractor.smooth(features)
            if not augmentation.noise_before_smoothing:
                features = augmentation.add_noise(features, rng)
            features = augmentation.mask(features, rng)
        return {"index": index, "features": features}

    def collate(self, items: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Pad trials to one batch of model inputs.

        Args:
            items (sequence of `dict`): what indexing this dataset returned.

        Returns:
            `dict[str, torch.Tensor]`: `input_features`, `attention_mask`, `participant_index`, `session_index` when the
            processor has sessions, `labels` when every trial has them, and `trial_index` (B,): positions in this
            dataset.
        """
        indices = [item["index"] for item in items]
        batch = dict(self.extractor.pad([item["features"] for item in items], return_tensors="pt"))
        participants = list(self.extractor.participants)
        batch["participant_index"] = torch.tensor(
            [participants.index(self.metadata[i]["participant_id"]) for i in indices]
        )
        if self.extractor.sessions:
            batch["session_index"] = torch.tensor(
                [self._session_positions[self.metadata[i]["session_id"]] for i in indices]
            )
        labels = [self.labels[i] for i in indices]
        if all(label is not None for label in labels):
            padded = np.full((len(labels), max(1, *(len(label) for label in labels))), -100, dtype=np.int64)
            for row, label in zip(padded, labels):
                row[: len(label)] = label
            batch["labels"] = torch.from_numpy(padded)
        batch["trial_index"] = torch.tensor(indices)
        return batch

    def frames_needed(self, index: int) -> int:
        """Frames below which a trial cannot be learned.

        Args:
            index (`int`): position of the trial.

        Returns:
            `int`: what CTC needs for its labels, at least 1.
        """
        return max(1, required_frames(self.labels[index] or []))

    def content_hash(self) -> str:
        """Hash of what the run is trained or scored on.

        Returns:
            `str`: BLAKE2b of every trial's identity, length and labels, and of the raw features of up to 64 evenly
                spaced trials.
        """
        digest = hashlib.blake2b(digest_size=16)
        for row, length, labels in zip(self.metadata, self.lengths, self.labels):
            digest.update(repr(([row.get(key) for key in _METADATA[:4]], length, labels)).encode())
        for index in np.unique(np.linspace(0, len(self) - 1, min(len(self), _HASHED_TRIALS)).astype(int)):
            features = np.ascontiguousarray(self._rows[int(index)]["features"], dtype=np.float32)
            digest.update(zlib.crc32(features.tobytes()).to_bytes(4, "little"))
        return digest.hexdigest()

    def _feature_rows(self, dataset: Any) -> Any:
        if not hasattr(dataset, "select_columns"):
            return dataset
        return TrialReader(dataset, ["features", *(_CHANNEL_COLUMNS if self._selects else ())])

    def _read_metadata(self, dataset: Any) -> tuple[list[dict[str, Any]], list[int]]:
        columns = getattr(dataset, "column_names", None)
        if columns is None:
            rows = [dataset[i] for i in range(len(dataset))]
            for i, row in enumerate(rows):
                _require_columns(row, f"trial {i} of the {self.name}")
            metadata = [{key: _scalar(row.get(key)) for key in _METADATA} for row in rows]
            lengths = [len(row["features"]) for row in rows]
        else:
            _require_columns(columns, f"the {self.name}")
            plain = dataset.with_format(None).select_columns([key for key in _METADATA if key in columns])
            metadata = [{key: row.get(key) for key in _METADATA} for row in plain]
            lengths = [len(row["features"]) for row in TrialReader(dataset, ["features"])]
        short = [name_trial(row) for row, length in zip(metadata, lengths) if length == 0]
        if short:
            raise ValueError(f"{len(short)} trials of the {self.name} have no bins: {_some(short)}; leave them out")
        return metadata, lengths

    def _check_identities(self) -> None:
        known = self.extractor.participants
        unknown = sorted({str(row["participant_id"]) for row in self.metadata} - set(known))
        if unknown:
            raise ValueError(
                f"the {self.name} has trials of {_some(unknown)}, but the processor knows the participants "
                f"{list(known)}; build the processor and the model for the participants of the trials"
            )
        self._session_positions = {session: i for i, session in enumerate(self.extractor.sessions)}
        unknown = sorted(set(self.session_ids) - set(self._session_positions)) if self._session_positions else []
        if unknown:
            raise ValueError(
                f"the {self.name} has {len(unknown)} sessions that the processor does not know: {_some(unknown)}; it "
                f"knows {_some(self.extractor.sessions)}. Add them to `sessions` of processor and model before training"
            )

    def _tokenise(self) -> list[list[int] | None]:
        tokenizer = self.processor.tokenizer
        spells = not hasattr(tokenizer, "encode_phonemes")  # a vocabulary of characters takes the text
        known: dict[str, list[int]] = {}
        labels: list[list[int] | None] = []
        for row in self.metadata:
            from_text = spells or row["phonemes"] is None
            spelled = row["text"] if from_text else row["phonemes"]
            if spelled is None:
                labels.append(None)
                continue
            key = f"{from_text}:{spelled}"
            if key not in known:
                encode = tokenizer.encode_text if from_text else tokenizer.encode_phonemes
                try:
                    known[key] = encode(spelled)
                except ValueError as error:
                    raise ValueError(f"{name_trial(row)} of the {self.name}: {error}") from error
            labels.append(known[key])
        return labels

    def require_labels(self) -> None:
        """Refuse trials without labels.

        Raises:
            ValueError: naming the trials that have neither `phonemes` nor `text`, or an empty one.
        """
        missing = [name_trial(row) for row, label in zip(self.metadata, self.labels) if not label]
        if missing:
            raise ValueError(
                f"{len(missing)} of {len(self)} trials of the {self.name} have neither phonemes nor text: "
                f"{_some(missing)}; use a split with labels, or leave these trials out"
            )

    def _compute_statistics(self, fit_sessions: bool) -> list[tuple[np.ndarray, np.ndarray] | None]:
        kind = self.extractor.normalization
        if kind == "none":
            return [None] * len(self.metadata)
        if kind == "session":
            missing = sorted(set(self.session_ids) - set(self.extractor.session_statistics))
            if fit_sessions:
                for session in missing:
                    members = [i for i, other in enumerate(self.session_ids) if other == session]
                    self.extractor.fit_session_statistics({session: [self.selected(i) for i in members]})
            elif missing:
                raise ValueError(
                    f"the processor normalises per session but has no statistics of {_some(missing)}; they are fitted "
                    "on training trials: train on these sessions, or call fit_session_statistics"
                )
            fitted = {
                session: (np.asarray(entry["mean"]), np.asarray(entry["std"]))
                for session, entry in self.extractor.session_statistics.items()
            }
            return [fitted[session] for session in self.session_ids]
        blocks: dict[tuple[str, str, int], list[int]] = {}
        for i, row in enumerate(self.metadata):
            blocks.setdefault((row["participant_id"], row["session_id"], row["block_index"]), []).append(i)
        statistics: list[tuple[np.ndarray, np.ndarray] | None] = [None] * len(self.metadata)
        for members in blocks.values():
            pair = self.extractor.compute_statistics([self.selected(i) for i in members])
            for i in members:
                statistics[i] = pair
        return statistics

    def selected(self, index: int) -> np.ndarray:
        """Raw features of one trial, only the channels that the processor keeps.

        Args:
            index (`int`): position of the trial.

        Returns:
            `np.ndarray` of shape `(T, C)`, float32.

        Raises:
            ValueError: when the trial has another number of channels than the processor expects of its participant.
        """
        row = self._rows[index]
        features = np.asarray(row["features"], dtype=np.float32)
        if self._selects:
            features = self.extractor.select(features, row.get("feature_kinds"), row.get("channel_areas"))
        expected = self.extractor.participants[self.metadata[index]["participant_id"]]
        if features.ndim != 2 or features.shape[1] != expected:
            raise ValueError(
                f"{name_trial(self.metadata[index])} of the {self.name} has features of shape {features.shape}; the "
                f"processor expects (bins, {expected})"
            )
        return features

    def _prepare(self, index: int, smooth: bool) -> np.ndarray:
        features = self.selected(index)
        statistics = self._statistics[index]
        try:
            if statistics is not None:
                features = self.extractor.normalize(features, *statistics)
            features = self.extractor.smooth(features) if smooth else features
        except ValueError as error:
            raise ValueError(f"{name_trial(self.metadata[index])} of the {self.name}: {error}") from error
        return np.array(features, dtype=np.float32)


class _Selected:
    """Rows of another dataset, by position."""

    def __init__(self, rows: Any, keep: Sequence[int]):
        self._rows, self._keep = rows, [int(i) for i in keep]

    def __len__(self) -> int:
        return len(self._keep)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self._rows[self._keep[index]]


def _require_columns(present: Iterable[str], where: str) -> None:
    needed = {"features", "participant_id", "session_id", "block_index", "trial_index"}
    missing = sorted(needed - set(present))
    if missing:
        raise ValueError(
            f"{where} lacks the columns {missing}; trials have the columns of bit_speech.data.trial_features"
        )


def _identity(row: dict[str, Any]) -> int:
    """The number that stands for a trial in the seed of its augmentation; the same as in `CTCCollator`."""
    identity = f"{row['participant_id']}\n{row['session_id']}\n{row['block_index']}\n{row['trial_index']}"
    return zlib.crc32(identity.encode())


def _scalar(value: Any) -> Any:
    return value.item() if isinstance(value, np.generic) else value


def _some(names: Sequence[str]) -> str:
    """The first names, and how many more."""
    listed = ", ".join(str(name) for name in names[:_LISTED])
    return listed if len(names) <= _LISTED else f"{listed} and {len(names) - _LISTED} more"
