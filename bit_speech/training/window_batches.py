"""Batches of aligned windows: scaled iEEG in, audio features as labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    from bit_speech.data.aligned_segments import WindowSet
    from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

# Which set of windows, and which window in it.
WindowKey = tuple[int, int]


def scale_windows(windows: WindowSet, processor: IEEGAudioProcessor) -> np.ndarray:
    """Scale windows file by file, so that running statistics see the past across windows.

    Args:
        windows ([`~bit_speech.data.aligned_segments.WindowSet`]): of one participant; within a file in order of time.
        processor ([`IEEGAudioProcessor`]): its feature extractor scales.

    Returns:
        `np.ndarray` of shape `(N, T, C)`: float32.
    """
    extractor = processor.feature_extractor
    scaled = np.empty(windows.ieeg.shape, np.float32)
    names = np.char.add(np.char.add(windows.file.astype(str), "|"), windows.condition.astype(str))
    for name in np.unique(names):
        own = np.flatnonzero(names == name)
        own = own[np.argsort(windows.start_s[own], kind="stable")]
        recording = windows.ieeg[own].reshape(-1, windows.ieeg.shape[2])
        scaled[own] = extractor.scale(recording, str(windows.participant[own[0]])).reshape(len(own), *scaled.shape[1:])
    return scaled


class WindowBatches(Dataset):
    """What a loader reads: keys in, batches of one participant out.

    Args:
        sets (`Sequence[WindowSet]`): one for each participant; they may differ in channels.
        processor ([`IEEGAudioProcessor`]): with statistics of the training windows.

    Raises:
        ValueError: if a set holds several participants, or the processor does not know one.
    """

    def __init__(self, sets: Sequence[WindowSet], processor: IEEGAudioProcessor) -> None:
        self.sets, self.processor = list(sets), processor
        extractor = processor.feature_extractor
        self._scaled: list[np.ndarray | None] = []
        self._labels = [processor.normalize_targets(part.targets) for part in self.sets]
        self._participant, self._session, self._places = [], [], []
        for part in self.sets:
            names = sorted(set(part.participant.tolist()))
            if len(names) != 1 or names[0] not in extractor.participants:
                raise ValueError(
                    f"a set of windows must belong to one participant of {sorted(extractor.participants)}, got {names}"
                )
            self._participant.append(list(extractor.participants).index(names[0]))
            known = {name: index for index, name in enumerate(extractor.sessions)}
            self._session.append(np.array([known.get(str(name), -1) for name in part.session], dtype=np.int64))
            places = extractor.places(names[0])
            self._places.append({key: torch.from_numpy(values) for key, values in places.items()})
            # Fixed statistics are applied batch by batch, so that the iEEG may stay on disk.
            self._scaled.append(scale_windows(part, processor) if extractor.normalization == "running" else None)

    def __len__(self) -> int:
        return sum(len(part) for part in self.sets)

    def __getitem__(self, key: WindowKey) -> WindowKey:
        return key

    @property
    def sizes(self) -> list[int]:
        """Windows of each set (`list[int]`)."""
        return [len(part) for part in self.sets]

    def collate(self, keys: Sequence[WindowKey]) -> dict[str, torch.Tensor]:
        """Read a batch.

        Args:
            keys (`list[tuple[int, int]]`): set (all equal) and position of each window.

        Returns:
            `dict[str, torch.Tensor]`: the inputs of [`IEEGAudioForRetrieval`].
        """
        number, chosen = keys[0][0], np.array([position for _, position in keys])
        part, extractor = self.sets[number], self.processor.feature_extractor
        scaled = self._scaled[number]
        if scaled is not None:
            features = scaled[chosen]
        else:
            raw = part.ieeg[chosen]
            name = list(extractor.participants)[self._participant[number]]
            features = extractor.scale(raw.reshape(-1, raw.shape[2]), name).reshape(raw.shape)
        batch = {
            "input_features": torch.from_numpy(np.ascontiguousarray(features)),
            "labels": torch.from_numpy(self._labels[number][chosen]),
            "participant_index": torch.full((len(chosen),), self._participant[number]),
            "session_index": torch.from_numpy(self._session[number][chosen]),
        }
        places = self._places[number].items()
        return batch | {key: values.expand(len(chosen), *values.shape) for key, values in places}


class WindowBatchSampler(Sampler[list[WindowKey]]):
    """Random batches of one participant each, in an order that is a function of seed and epoch.

    Args:
        sizes (`Sequence[int]`): windows of each set.
        batch_size (`int`): windows in a batch, each a negative for the others.
        seed (`int`): of the order.
        shuffle (`bool`): False gives every window once, in order, the last batch smaller.
        num_processes (`int`): processes that take turns on the batches.
        process_index (`int`): which of them this is.

    Note:
        In training, an incomplete last batch is left out, because the loss depends on the number of candidates; a set
        smaller than one batch is one batch.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        self.sizes, self.batch_size, self.seed, self.shuffle = list(sizes), batch_size, seed, shuffle
        self.num_processes, self.process_index = num_processes, process_index
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        if not self.shuffle:
            return sum(-(-size // self.batch_size) for size in self.sizes)
        total = sum(max(1, size // self.batch_size) for size in self.sizes if size)
        return -(-total // self.num_processes)

    def __iter__(self) -> Iterator[list[WindowKey]]:
        batches: list[list[WindowKey]] = []
        rng = np.random.default_rng([self.seed, self.epoch])
        for number, size in enumerate(self.sizes):
            order = rng.permutation(size) if self.shuffle else np.arange(size)
            stop = max(self.batch_size, size // self.batch_size * self.batch_size) if self.shuffle else size
            for start in range(0, min(stop, size), self.batch_size):
                batches.append([(number, int(i)) for i in order[start : min(start + self.batch_size, stop)]])
        if not self.shuffle:
            yield from batches
            return
        batches = [batches[int(i)] for i in rng.permutation(len(batches))]
        while len(batches) % self.num_processes:  # every process takes part in every step
            batches.append(batches[0])
        yield from batches[self.process_index :: self.num_processes]
