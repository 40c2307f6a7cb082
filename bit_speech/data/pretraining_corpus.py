"""`PretrainingCorpus`: unlabelled trials of many participants, memory-mapped, in batches of one dataset each."""

from __future__ import annotations

import copy
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from torch.utils.data import DataLoader, Dataset, Sampler

from bit_speech.data.corpus_building import CORPUS_NAME, CORPUS_VERSION
from bit_speech.data.samplers import SessionBatchSampler
from bit_speech.data.writing import file_hash

# As the feature extractor has it: a channel that varies less than this share of its mean is dead.
_DEAD_RATIO = 1e-6


def z_score_coefficients(mean: np.ndarray, std: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Turn statistics into the two numbers of every channel that normalise it: `value * scale + offset`.

    Args:
        mean (`np.ndarray` of shape `(..., C)`): mean of every channel.
        std (`np.ndarray` of shape `(..., C)`): standard deviation of every channel.

    Returns:
        `tuple[np.ndarray, np.ndarray]`: scale and offset, float32; both 0 in a dead channel, which then says nothing.

    Example:
        >>> z_score_coefficients(np.array([2.0, 5.0]), np.array([4.0, 0.0]))
        (array([0.25, 0.  ], dtype=float32), array([-0.5, -0. ], dtype=float32))
    """
    mean, std = np.asarray(mean, dtype=np.float64), np.asarray(std, dtype=np.float64)
    live = std > np.maximum(_DEAD_RATIO * np.abs(mean), np.finfo(np.float32).tiny)
    scale = np.divide(1.0, std, out=np.zeros_like(std), where=live)
    return scale.astype(np.float32), (-mean * scale).astype(np.float32)


def _empty(*shape: int) -> torch.Tensor:
    """Memory for a batch. numpy asks for huge pages, which makes the first writing four times as fast as torch's."""
    return torch.from_numpy(np.empty(shape, dtype=np.float32))


class PretrainingCorpus(Dataset):
    """The trials of a store that [`~bit_speech.data.corpus_building.build_corpus`] wrote, read where they lie.

    An item is a trial, or a piece of a long one: z-scored, not smoothed. Items are ordered by dataset, and within one
    by recording.

    Args:
        folder (`str`): the store.
        verify (`bool`, defaults to False): compare every file with its checksum, which reads all of them.

    Attributes:
        participants (`dict[str, int]`): participant -> channels, in alphabetical order, as a model's configuration has
            them.
        num_bins (`np.ndarray` of shape `(N,)`): int64, length of every item.
        dataset_index (`np.ndarray` of shape `(N,)`): int64, dataset of every item; `manifest[i]` describes dataset i.
        manifest (`list[dict]`): one entry per dataset: participant, species, task, source, licence, hours, trials,
            weight, how it is stored, and more.

    Raises:
        FileNotFoundError: when the folder holds no finished store, or lacks a file of it.
        ValueError: when a file is damaged.

    Example:
        ```python
        build_corpus([CorpusSource("runs/t12"), CorpusSource("runs/monkey_c")], "runs/corpus")
        corpus = PretrainingCorpus("runs/corpus")
        print(corpus.table())
        for batch in corpus_loader(corpus, CorpusBatchSampler(corpus.num_bins, corpus.dataset_index, batch_size=64)):
            ...  # input_features (B, T, C), attention_mask (B, T), participant_index (B,)
        ```
    """

    def __init__(self, folder: str | os.PathLike[str], verify: bool = False) -> None:
        self.folder = Path(folder)
        path = self.folder / CORPUS_NAME
        if not path.is_file():
            raise FileNotFoundError(
                f"{str(folder)!r} holds no {CORPUS_NAME}: build the corpus (again) with build_corpus"
            )
        self.settings: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if self.settings["corpus_version"] != CORPUS_VERSION:
            raise ValueError(
                f"{str(folder)!r} has version {self.settings['corpus_version']} of the store, this package reads "
                f"version {CORPUS_VERSION}: build it again"
            )
        self.manifest: list[dict[str, Any]] = self.settings.pop("datasets")
        self.participants = dict(sorted((entry["participant"], entry["num_channels"]) for entry in self.manifest))
        self._values = [self._open(entry, verify) for entry in self.manifest]
        indices = [load_file(self.folder / entry["index"]["file"]) for entry in self.manifest]
        self._coefficients = [
            tuple(torch.from_numpy(part) for part in z_score_coefficients(index["mean"], index["std"]))
            for index in indices
        ]
        self.num_bins = np.concatenate([index["num_bins"] for index in indices])
        self.dataset_index = np.repeat(np.arange(len(indices)), [len(index["start"]) for index in indices])
        self._start = np.concatenate([index["start"] for index in indices])
        self._group = np.concatenate([index["group"] for index in indices])
        self._place = np.concatenate(
            [np.stack([index[name] for name in ("session", "block_index", "trial_index")], axis=1) for index in indices]
        )

    def _open(self, entry: Mapping[str, Any], verify: bool) -> np.ndarray:
        for kind in ("values", "index"):
            path = self.folder / entry[kind]["file"]
            if not path.is_file():
                raise FileNotFoundError(f"{str(path)!r} is missing: build the corpus again, what is intact is kept")
            size = path.stat().st_size
            if size != entry[kind]["num_bytes"] or (verify and file_hash(path) != entry[kind]["xxh3_128"]):
                raise ValueError(f"{str(path)!r} is damaged ({size} bytes): build the corpus again")
        # Copy-on-write: nothing reaches the file, and torch takes the array without a warning.
        return np.memmap(
            self.folder / entry["values"]["file"],
            dtype=entry["dtype"],
            mode="c",
            shape=(entry["num_bins"], entry["num_channels"]),
        )

    def __getstate__(self) -> dict[str, Any]:
        """Leave the values out: another process opens the files, instead of receiving a copy of them."""
        return {**self.__dict__, "_values": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the files again."""
        self.__dict__.update(state)
        self._values = [self._open(entry, verify=False) for entry in self.manifest]

    def __len__(self) -> int:
        return len(self.num_bins)

    def __getitem__(self, index: int) -> dict[str, Any]:
        """Read one item.

        Args:
            index (`int`): position, counted from the end when negative.

        Returns:
            `dict`: `input_features` (`np.ndarray` of shape `(T, C)`, float32, z-scored, not smoothed) and
                `participant_id`.
        """
        index = int(index)
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of a corpus of {len(self)}")
        entry = self.manifest[self.dataset_index[index]]
        features = _empty(int(self.num_bins[index]), entry["num_channels"])
        self._read(index, features)
        return {"input_features": features.numpy(), "participant_id": entry["participant"]}

    def _read(self, index: int, out: torch.Tensor) -> None:
        dataset, start = int(self.dataset_index[index]), int(self._start[index])
        scale, offset = self._coefficients[dataset]
        group = int(self._group[index])
        out.copy_(torch.from_numpy(self._values[dataset][start : start + int(self.num_bins[index])]))
        torch.addcmul(offset[group], out, scale[group], out=out)

    def batch(self, indices: Sequence[int], with_counts: bool = False) -> dict[str, torch.Tensor]:
        """Read items of one dataset straight into a padded batch.

        Args:
            indices (`list[int]`): positions of items of one participant.
            with_counts (`bool`, defaults to False): also give the values before the z-score, for objectives that
                predict spike counts.

        Returns:
            `dict[str, torch.Tensor]`: `input_features` (float32, `(B, T, C)`, zeros after shorter items),
                `attention_mask` (bool, `(B, T)`), `participant_index` (int64, `(B,)`), and with counts `labels`
                (float32, `(B, T, C)`).

        Raises:
            ValueError: when there is no item, or they are of several participants.
        """
        names = {self.manifest[self.dataset_index[i]]["participant"] for i in indices}
        if len(names) != 1:
            raise ValueError(
                f"one batch holds the participants {', '.join(sorted(names)) or 'none'}: use CorpusBatchSampler"
            )
        name = names.pop()
        lengths = self.num_bins[np.asarray(indices)]
        longest = int(lengths.max())
        features = _empty(len(lengths), longest, self.participants[name])
        for row, (index, length) in enumerate(zip(indices, lengths)):
            self._read(index, features[row, :length])
            features[row, length:] = 0
        batch = {
            "input_features": features,
            "attention_mask": torch.from_numpy(np.arange(longest)[None] < lengths[:, None]),
            "participant_index": torch.full((len(lengths),), list(self.participants).index(name)),
        }
        if with_counts:
            batch["labels"] = torch.zeros_like(features)
            for row, (index, length) in enumerate(zip(indices, lengths)):
                values, start = self._values[self.dataset_index[index]], int(self._start[index])
                batch["labels"][row, :length] = torch.from_numpy(values[start : start + length])
        return batch

    def place(self, index: int) -> tuple[str, str, int, int]:
        """Tell where an item comes from.

        Args:
            index (`int`): position.

        Returns:
            `tuple[str, str, int, int]`: dataset, session, block and trial.
        """
        entry = self.manifest[self.dataset_index[index]]
        session, block, trial = self._place[index]
        return entry["dataset"], entry["sessions"][session], int(block), int(trial)

    def select(self, indices: Sequence[int]) -> PretrainingCorpus:
        """Keep some of the items; the values stay where they are.

        Args:
            indices (`list[int]`): positions of the items to keep, in their new order.

        Returns:
            `PretrainingCorpus`: with the same datasets, but `num_segments` and `selected_hours` of the manifest counted
                anew, and only the participants of whom something is kept.

        Raises:
            ValueError: when nothing is kept.
        """
        keep = np.asarray(indices, dtype=np.int64)
        if not len(keep):
            raise ValueError("no items to keep")
        other = copy.copy(self)
        for name in ("num_bins", "dataset_index", "_start", "_group", "_place"):
            setattr(other, name, getattr(self, name)[keep])
        other.manifest = []
        for number, entry in enumerate(self.manifest):
            bins = other.num_bins[other.dataset_index == number]
            hours = int(bins.sum()) * entry["bin_size_ms"] / 3.6e6
            other.manifest.append({**entry, "num_segments": len(bins), "hours": hours})
        kept = {entry["participant"] for entry in other.manifest if entry["num_segments"]}
        other.participants = {name: channels for name, channels in self.participants.items() if name in kept}
        return other

    @property
    def hours(self) -> float:
        """Recorded time of all items (`float`)."""
        sizes = np.array([entry["bin_size_ms"] for entry in self.manifest])
        return float((self.num_bins * sizes[self.dataset_index]).sum() / 3.6e6)

    def table(self) -> str:
        """Describe the corpus as a Markdown table, one line per dataset and their sum.

        Returns:
            `str`: the table, with a line on what was left out.
        """
        rows = []
        for number, entry in enumerate(self.manifest):
            bins = self.num_bins[self.dataset_index == number]
            rows.append(
                [
                    entry["dataset"], entry["participant"], entry["species"], entry["task"], f"{entry['num_channels']}",
                    f"{bins.sum() * entry['bin_size_ms'] / 3.6e6:.2f}", f"{len(bins):,}", f"{entry['weight']:g}",
                    entry["dtype"] + ("" if entry["exact"] else " (rounded)"), entry["source"], entry["licence"],
                ]
            )  # fmt: skip
        rows.append(["total", "", "", "", "", f"{self.hours:.2f}", f"{len(self):,}", "", "", "", ""])
        header = ["dataset", "participant", "species", "task", "channels", "hours", "items", "weight", "stored as",
                  "source", "licence"]  # fmt: skip
        lines = ["| " + " | ".join(row) + " |" for row in (header, ["---"] * len(header), *rows)]
        splits, kinds = (", ".join(self.settings[name]) for name in ("splits", "feature_kinds"))
        return "\n".join(
            [*lines, "", f"Splits: {splits}. Channels: {kinds}. Z-score by: {self.settings['normalization']}."]
        )

    @property
    def weights(self) -> list[float]:
        """Weight of each dataset (`list[float]`), for [`CorpusBatchSampler`]."""
        return [entry["weight"] for entry in self.manifest]


class CorpusBatchSampler(Sampler[list[int]]):
    """Batches of one dataset each, of items of similar length; a function of seed and epoch alone.

    An epoch has about as many batches as one pass over everything. Dataset d, with `n_d` batches in a pass and weight
    `w_d`, gets a share proportional to `(w_d n_d) ** (1 / temperature)`. It goes through its items pass by pass,
    shuffled anew in each, and the next epoch continues where this one stopped: no item is drawn a second time before
    all others of its dataset were drawn once.

    Args:
        num_bins (`np.ndarray` of shape `(N,)`): length of every item.
        dataset_index (`np.ndarray` of shape `(N,)`): dataset of every item.
        batch_size (`int`): items per batch and process.
        temperature (`float`, defaults to 1.0): the mixing rule. 1 is proportional (an epoch is exactly one pass when
            the weights are equal), infinity gives every dataset the same share, and values between lift small datasets.
        weights (`list[float]`, *optional*): weight of each dataset; default all equal.
        seed (`int`, defaults to 0): seed of the order.
        patch_size (`int`, defaults to 5): bins in a patch. Items of as many patches count as equally long.
        bucket_batches (`int`, defaults to 8): items are sorted by length within groups of this many batches.
        num_processes (`int`, defaults to 1): how many processes share a global batch, dealt out item by item.
        process_index (`int`, defaults to 0): which of them this is.

    Raises:
        ValueError: when the arrays differ in length or are empty, or a number is out of range.

    Note:
        The released BIT code draws every trial once per epoch in batches of one dataset, which is temperature 1; the
        weights of the paper are not known (Zhang, He et al. 2025, arXiv 2511.21740).

    Example:
        >>> sampler = CorpusBatchSampler(np.array([5, 9, 5, 70]), np.array([0, 0, 1, 1]), batch_size=2)
        >>> sorted(sorted(batch) for batch in sampler)
        [[0, 1], [2, 3]]
    """

    def __init__(
        self,
        num_bins: np.ndarray,
        dataset_index: np.ndarray,
        batch_size: int,
        temperature: float = 1.0,
        weights: Sequence[float] | None = None,
        seed: int = 0,
        patch_size: int = 5,
        bucket_batches: int = 8,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        if len(num_bins) != len(dataset_index):
            raise ValueError(f"{len(num_bins)} lengths but {len(dataset_index)} datasets: give one of each per item")
        if not temperature > 0:
            raise ValueError(f"temperature must be positive (inf: equal shares), got {temperature!r}")
        if not 0 <= process_index < num_processes:
            raise ValueError(f"process_index {process_index} of {num_processes} processes")
        present = [int(dataset) for dataset in np.unique(dataset_index)]
        if weights is not None and (len(weights) <= max(present, default=-1) or min(weights) <= 0):
            raise ValueError(f"give one positive weight per dataset, got {list(weights)} for {present}")
        self.batch_size, self.seed = batch_size, seed
        self.num_processes, self.process_index = num_processes, process_index
        self.epoch = self.first_batch = 0
        patches = -(-np.asarray(num_bins) // patch_size)
        self._members = [np.flatnonzero(np.asarray(dataset_index) == dataset) for dataset in present]
        self._passes = [
            SessionBatchSampler(
                patches[members].tolist(),
                ["all"] * len(members),
                batch_size * num_processes,
                seed=seed + dataset,
                bucket_batches=bucket_batches,
            )
            for dataset, members in zip(present, self._members)
        ]
        if not present:
            raise ValueError("no items to sample from")
        sizes = np.array([len(sampler) for sampler in self._passes])
        chosen = np.ones(len(sizes)) if weights is None else np.array([weights[dataset] for dataset in present])
        self.batches_per_epoch = _whole_shares((chosen * sizes) ** (1 / temperature), int(sizes.sum()))

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose the epoch, and where in it the next pass begins.

        Args:
            epoch (`int`): number of the epoch, from 0.
            first_batch (`int`): batches of it that were seen before an interruption; they are not read again. Holds for
                one pass.
        """
        self.epoch, self.first_batch = epoch, first_batch

    def __len__(self) -> int:
        return int(self.batches_per_epoch.sum())

    def __iter__(self) -> Iterator[list[int]]:
        """Give the batches of this process in the current epoch."""
        batches = [
            batch
            for members, sampler, count in zip(self._members, self._passes, self.batches_per_epoch)
            for batch in self._next(members, sampler, int(count))
        ]
        order = np.random.default_rng((self.seed, self.epoch)).permutation(len(batches))
        first, self.first_batch = self.first_batch, 0
        for position in order[first:]:
            batch = batches[position]
            if len(batch) < self.num_processes:
                batch = np.resize(batch, self.num_processes)  # every process must take part in every step
            yield batch[self.process_index :: self.num_processes].tolist()

    def _next(self, members: np.ndarray, sampler: SessionBatchSampler, count: int) -> Iterator[np.ndarray]:
        """Batches number `epoch * count` and on of the endless row of a dataset's passes."""
        per_pass = len(sampler)
        number = self.epoch * count
        while count:
            sampler.set_epoch(number // per_pass)
            found = list(sampler)[number % per_pass :][:count]
            yield from (members[batch] for batch in found)
            number, count = number + len(found), count - len(found)


def _whole_shares(shares: np.ndarray, total: int) -> np.ndarray:
    """Whole numbers in proportion to the shares, none below 1; their sum is the total but for rounding."""
    return np.maximum(1, np.rint(shares / shares.sum() * total)).astype(int)


class _Positions(Dataset):
    """Positions of items: what a loader shuffles, so that a whole batch is read at once."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> int:
        return index


def corpus_loader(corpus: PretrainingCorpus, sampler: CorpusBatchSampler, num_workers: int = 0) -> DataLoader:
    """Build a loader of padded batches.

    Args:
        corpus (`PretrainingCorpus`): what to read.
        sampler (`CorpusBatchSampler`): which batches, in which order; its `set_epoch` holds for the next iteration.
        num_workers (`int`, defaults to 0): processes that read ahead. One core reads several gigabytes per second, so 0
            suffices unless the accelerator waits.

    Returns:
        `DataLoader`: batches as [`PretrainingCorpus.batch`] makes them.
    """
    return DataLoader(
        _Positions(len(corpus)),
        batch_sampler=sampler,
        collate_fn=corpus.batch,
        num_workers=num_workers,
        # Making an iterator must not move the generator that draws masks and dropout.
        generator=torch.Generator().manual_seed(sampler.seed),
    )
