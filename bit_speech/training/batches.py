"""Which trials make a batch, on which process, in which order: a function of seed and epoch alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import DataLoader, Sampler

from bit_speech.data.samplers import SessionBatchSampler

# One trial of one epoch: augmentation is drawn from both, so that no order of calls and no worker can change it.
TrialKey = tuple[int, int]


class EpochBatchSampler(Sampler[list[TrialKey]]):
    """Batches of `(epoch, trial)` keys for one of several processes.

    Global batches come from one [`SessionBatchSampler`] per participant (a batch holds one participant, because
    participants differ in channels) and are dealt out to the processes trial by trial, so that two processes with 16
    trials each see the same batches as one process with 32.

    Args:
        participant_ids (sequence of `str`): participant of every trial.
        session_ids (sequence of `str`): session of every trial.
        lengths (sequence of `int`): bins of every trial.
        batch_size (`int`): trials per batch and process.
        seed (`int`): seed of the order.
        sessions_per_batch (`int`, *optional*): sessions that one global batch mixes.
        drop_last (`bool`): leave out the last incomplete global batch.
        num_processes (`int`): how many processes share a global batch.
        process_index (`int`): which of them this is.

    Note:
        A last batch with fewer trials than processes repeats some of its trials, because every process must take part
        in every step.
    """

    def __init__(
        self,
        participant_ids: Sequence[str],
        session_ids: Sequence[str],
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 0,
        sessions_per_batch: int | None = None,
        drop_last: bool = False,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self.num_processes = num_processes
        self.process_index = process_index
        self._parts: list[tuple[np.ndarray, SessionBatchSampler]] = []
        participants = np.asarray(participant_ids)
        for participant in sorted(set(participant_ids)):
            members = np.flatnonzero(participants == participant)
            sampler = SessionBatchSampler(
                [int(lengths[int(i)]) for i in members],
                [session_ids[int(i)] for i in members],
                batch_size * num_processes,
                sessions_per_batch=sessions_per_batch,
                seed=seed,
                drop_last=drop_last,
            )
            self._parts.append((members, sampler))

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch (`int`): number of the pass over the trials, from 0.
        """
        self.epoch = epoch
        for _, sampler in self._parts:
            sampler.set_epoch(epoch)

    def __len__(self) -> int:
        return sum(len(sampler) for _, sampler in self._parts)

    def __iter__(self) -> Iterator[list[TrialKey]]:
        batches = [members[list(batch)] for members, sampler in self._parts for batch in sampler]
        if len(self._parts) > 1:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(batches))
            batches = [batches[i] for i in order]
        for batch in batches:
            if len(batch) < self.num_processes:
                batch = np.resize(batch, self.num_processes)
            yield [(self.epoch, int(i)) for i in batch[self.process_index :: self.num_processes]]


class LengthSortedBatchSampler(Sampler[list[TrialKey]]):
    """Batches for evaluation: trials of like length together, every trial exactly once over all processes.

    Args:
        groups (sequence): trials may share a batch only when their group is equal, for example (participant, has
            labels).
        lengths (sequence of `int`): bins of every trial.
        batch_size (`int`): trials per batch.
        num_processes (`int`): how many processes share the batches.
        process_index (`int`): which of them this is.
    """

    def __init__(
        self,
        groups: Sequence[tuple],
        lengths: Sequence[int],
        batch_size: int,
        num_processes: int = 1,
        process_index: int = 0,
    ):
        self.batch_size = batch_size
        batches = []
        for group in sorted(set(groups)):
            members = sorted((i for i, other in enumerate(groups) if other == group), key=lambda i: (-lengths[i], i))
            batches += [members[start : start + batch_size] for start in range(0, len(members), batch_size)]
        self._batches = batches[process_index::num_processes]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[list[TrialKey]]:
        for batch in self._batches:
            yield [(0, i) for i in batch]


class TrialLoader(DataLoader):
    """A `DataLoader` that tells its batch sampler the epoch, as `Trainer` expects."""

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch (`int`): number of the pass over the trials, from 0.
        """
        choose = getattr(self.batch_sampler, "set_epoch", None)
        if choose is not None:
            choose(epoch)
