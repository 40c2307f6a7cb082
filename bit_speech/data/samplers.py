"""Which trials make a batch: few sessions in one, little padding, the same order on every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np


class SessionBatchSampler:
    """Batches of positions, each from a few sessions and of similar lengths; one epoch takes every trial once.

    Args:
        lengths (`list[int]`): bins of every trial, in the order of the dataset.
        session_ids (`list[str]`): session of every trial, in the same order.
        batch_size (`int`): trials in a batch.
        sessions_per_batch (`int`, *optional*): at most this many sessions in a batch, in equal shares; default
            any number.
        seed (`int`, defaults to 0): seed of the order. The order depends on it and on the epoch alone.
        drop_last (`bool`, defaults to False): leave out batches that are not full.
        bucket_batches (`int`, defaults to 8): trials are sorted by length within groups of this many batches: more
            means less padding and less randomness. 1 turns it off.

    Raises:
        ValueError: when the lists differ in length or are empty, a length is not positive, or a number is out of range.

    Note:
        The Brain-to-Text '25 baseline draws 4 random sessions and 16 trials of each with replacement. Here an epoch is
        a pass: every trial comes once, so with `sessions_per_batch` small some batches of an epoch may be smaller.

    Example:
        >>> sampler = SessionBatchSampler([5, 6, 50, 60], ["a", "a", "b", "b"], batch_size=2, sessions_per_batch=1)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        lengths: Sequence[int],
        session_ids: Sequence[str],
        batch_size: int,
        sessions_per_batch: int | None = None,
        seed: int = 0,
        drop_last: bool = False,
        bucket_batches: int = 8,
    ) -> None:
        if len(lengths) != len(session_ids):
            raise ValueError(f"{len(lengths)} lengths but {len(session_ids)} session_ids: give one of each per trial")
        if not len(lengths):
            raise ValueError("no trials to sample from")
        if min(lengths) < 1:
            position = int(np.argmin(lengths))
            raise ValueError(f"trial {position} has length {lengths[position]}; every trial needs at least one bin")
        if batch_size < 1:
            raise ValueError(f"batch_size must be positive, got {batch_size}")
        if sessions_per_batch is not None and not 1 <= sessions_per_batch <= batch_size:
            raise ValueError(f"sessions_per_batch must be from 1 to batch_size {batch_size}, got {sessions_per_batch}")
        if bucket_batches < 1:
            raise ValueError(f"bucket_batches must be positive, got {bucket_batches}")
        self.batch_size = batch_size
        self.sessions_per_batch = sessions_per_batch
        self.drop_last = drop_last
        self.seed = seed
        self.epoch = 0
        self._bucket_batches = bucket_batches
        self._lengths = np.asarray(lengths, dtype=np.int64)
        names = sorted({str(session) for session in session_ids})
        index = {name: position for position, name in enumerate(names)}
        self._sessions = np.array([index[str(session)] for session in session_ids])
        self._batches: tuple[int, list[list[int]]] | None = None

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch, and with it the order.

        Args:
            epoch (`int`): number of the pass, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._epoch_batches())

    def __iter__(self) -> Iterator[list[int]]:
        """Give the batches of the current epoch, each a list of positions."""
        yield from (list(batch) for batch in self._epoch_batches())

    def _epoch_batches(self) -> list[list[int]]:
        if self._batches is None or self._batches[0] != self.epoch:
            rng = np.random.default_rng((self.seed, self.epoch))
            batches = self._mixed(rng) if self.sessions_per_batch is None else self._by_session(rng)
            if self.drop_last:
                batches = [batch for batch in batches if len(batch) == self.batch_size]
            self._batches = (self.epoch, [batches[i] for i in rng.permutation(len(batches))])
        return self._batches[1]

    def _chunks(self, trials: np.ndarray, size: int, rng: np.random.Generator) -> list[np.ndarray]:
        """Cut shuffled trials into chunks of `size` with similar lengths."""
        trials = rng.permutation(trials)
        bucket = size * self._bucket_batches
        chunks = []
        for start in range(0, len(trials), bucket):
            part = trials[start : start + bucket]
            if self._bucket_batches > 1:
                part = part[np.argsort(self._lengths[part], kind="stable")]
            chunks += [part[i : i + size] for i in range(0, len(part), size)]
        return chunks

    def _mixed(self, rng: np.random.Generator) -> list[list[int]]:
        chunks = self._chunks(np.arange(len(self._lengths)), self.batch_size, rng)
        return [chunk.tolist() for chunk in chunks]

    def _by_session(self, rng: np.random.Generator) -> list[list[int]]:
        count = self.sessions_per_batch or 1
        # Shares differ by one when the batch size is no multiple of the number of sessions.
        share = -(-self.batch_size // count)
        waiting = {
            int(session): self._chunks(np.flatnonzero(self._sessions == session), share, rng)
            for session in np.unique(self._sessions)
        }
        batches: list[list[int]] = []
        leftover: list[int] = []
        while waiting:
            # Sessions with the most left go first, so that no session is left alone at the end of the epoch.
            order = sorted(waiting, key=lambda session: (-len(waiting[session]), rng.random()))[:count]
            anchor = self._median_length(waiting[order[0]][-1])
            batch: list[int] = []
            for session in order:
                chunks = waiting[session]
                nearest = min(range(len(chunks)), key=lambda i: abs(self._median_length(chunks[i]) - anchor))
                batch += chunks.pop(nearest).tolist()
                if not chunks:
                    del waiting[session]
            batches.append(batch[: self.batch_size])
            leftover += batch[self.batch_size :]
        return batches + self._leftover(leftover, count)

    def _leftover(self, trials: list[int], count: int) -> list[list[int]]:
        """Batches of the trials that did not fit, again of at most `count` sessions."""
        batches: list[list[int]] = []
        sessions_in_batch: set[int] = set()
        for trial in sorted(trials, key=lambda trial: (self._sessions[trial], self._lengths[trial])):
            session = int(self._sessions[trial])
            full = not batches or len(batches[-1]) == self.batch_size
            if full or len(sessions_in_batch | {session}) > count:
                batches.append([])
                sessions_in_batch = set()
            batches[-1].append(trial)
            sessions_in_batch.add(session)
        return batches

    def _median_length(self, trials: np.ndarray) -> float:
        return float(np.median(self._lengths[trials]))
