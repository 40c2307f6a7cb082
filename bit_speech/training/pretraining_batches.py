"""Batches of a pretraining corpus with the masks that belong to them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from bit_speech.training.batches import TrialKey
from modeling_bit.masking_bit import sample_span_mask

if TYPE_CHECKING:
    from bit_speech.data.pretraining_corpus import CorpusBatchSampler, PretrainingCorpus
    from bit_speech.data.resident_corpus import ResidentCorpus
    from configuration_bit.configuration_bit import BITConfig


class EpochKeys(Sampler[list[TrialKey]]):
    """Adds the epoch to every position of a batch, so that its mask can depend on it.

    Args:
        batches ([`~bit_speech.data.CorpusBatchSampler`]): batches of positions of this process.
    """

    def __init__(self, batches: CorpusBatchSampler) -> None:
        self.batches = batches
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self.epoch = epoch
        self.batches.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[TrialKey]]:
        for batch in self.batches:
            yield [(self.epoch, int(i)) for i in batch]


class MaskedBatches(Dataset):
    """What a loader reads: keys in, batches with masks out.

    Args:
        corpus ([`~bit_speech.data.PretrainingCorpus`] or its resident copy): the trials.
        config ([`BITConfig`]): of the model: its participants, and what is hidden.
        seed (`int`): seed of the masks. A mask depends on it, on the epoch and on the trial alone.
        shuffle_time (`bool`): put the bins of every trial in a random order, always the same one for a trial.
    """

    def __init__(
        self, corpus: PretrainingCorpus | ResidentCorpus, config: BITConfig, seed: int, shuffle_time: bool = False
    ) -> None:
        self.corpus, self.config, self.seed, self.shuffle_time = corpus, config, seed, shuffle_time
        names = list(config.participants)
        self._positions = [names.index(name) for name in corpus.participants]

    def __len__(self) -> int:
        return len(self.corpus)

    def __getitem__(self, key: TrialKey) -> TrialKey:
        return key

    def collate(self, keys: Sequence[TrialKey]) -> dict[str, torch.Tensor]:
        """Read a batch.

        Args:
            keys (`list[tuple[int, int]]`): epoch and position of each trial.

        Returns:
            `dict[str, torch.Tensor]`: `input_features` (raw), `attention_mask`, `participant_index` of the model,
                `trial_index`, `num_bins` of each trial, `time_mask` unless nothing is masked, and `labels` when counts
                are predicted.
        """
        config = self.config
        positions = [position for _, position in keys]
        if config.pretraining_objective == "reconstruction":
            batch: dict[str, Any] = self.corpus.batch(positions)
        else:
            batch = self.corpus.batch(positions, with_counts=True)
        if self.shuffle_time:
            self._shuffle(batch, positions)
        batch["participant_index"] = torch.tensor(self._positions)[batch["participant_index"]]
        batch["trial_index"] = torch.tensor(positions)
        # What the host needs to know of a batch, without asking the accelerator for it.
        batch["num_bins"] = torch.from_numpy(np.asarray(self.corpus.num_bins)[positions])
        if config.pretraining_objective != "autoregressive":
            lengths = batch["num_bins"] // config.patch_size
            seeds = torch.tensor([_trial_seed(self.seed, *key) for key in keys])
            batch["time_mask"] = sample_span_mask(
                lengths, int(lengths.max()), config.mask_ratio, config.mask_max_span, trial_seeds=seeds
            )
        return batch

    def _shuffle(self, batch: dict[str, torch.Tensor], positions: Sequence[int]) -> None:
        for row, position in enumerate(positions):
            length = int(self.corpus.num_bins[position])
            order = torch.from_numpy(np.random.default_rng((self.seed, position)).permutation(length))
            for key in batch.keys() & {"input_features", "labels"}:
                batch[key][row, :length] = batch[key][row, order]


def _trial_seed(seed: int, epoch: int, position: int) -> int:
    """A different 63-bit number for every trial, epoch and seed."""
    return ((seed & 0x7FFF) << 48) | ((epoch & 0xFFFF) << 32) | (position & 0xFFFFFFFF)
