"""A pretraining corpus on the accelerator: batches are made where they are used, past the host's memory bus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from bit_speech.data.pretraining_corpus import PretrainingCorpus


class ResidentCorpus:
    """The stored values of a corpus, copied to a device once; batches come from there.

    Args:
        corpus ([`PretrainingCorpus`]): the corpus.
        device (`torch.device`): where its values go, in the type in which they are stored: mostly one byte each, 13 GB
            for 367 hours of 192 channels.

    Example:
        ```python
        resident = ResidentCorpus(PretrainingCorpus("runs/corpus"), "cuda")
        resident.batch([4, 7])["input_features"].device  # the same batch as the corpus makes, on the device
        ```
    """

    def __init__(self, corpus: PretrainingCorpus, device: torch.device | str) -> None:
        self.corpus, self.device = corpus, torch.device(device)
        self.participants, self.num_bins, self.dataset_index = (
            corpus.participants,
            corpus.num_bins,
            corpus.dataset_index,
        )
        present = {int(dataset) for dataset in np.unique(corpus.dataset_index)}
        self._stored = {
            dataset: tuple(
                part.to(self.device)
                for part in (torch.from_numpy(corpus._values[dataset]), *corpus._coefficients[dataset])
            )
            for dataset in present
        }

    def __len__(self) -> int:
        return len(self.corpus)

    def batch(self, indices: Sequence[int], with_counts: bool = False) -> dict[str, torch.Tensor]:
        """Make a padded batch on the device.

        Args:
            indices (`list[int]`): positions of items of one dataset.
            with_counts (`bool`, defaults to False): also give the values before the z-score.

        Returns:
            `dict[str, torch.Tensor]`: as [`PretrainingCorpus.batch`], on the device; `participant_index` stays with the
                host, which reads it.

        Raises:
            ValueError: when there is no item, or they are of several datasets.
        """
        positions = np.asarray(indices, dtype=np.int64)
        datasets = set(self.dataset_index[positions].tolist())
        if len(datasets) != 1:
            raise ValueError(f"one batch holds the datasets {sorted(datasets)}: use CorpusBatchSampler")
        dataset = datasets.pop()
        values, scale, offset = self._stored[dataset]

        def moved(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array[positions]).to(self.device, torch.int64, non_blocking=True)[:, None]

        lengths, starts = moved(self.num_bins), moved(self.corpus._start)
        group = moved(self.corpus._group)
        bins = torch.arange(int(self.num_bins[positions].max()), device=self.device)
        mask = bins < lengths
        counts = values[starts + torch.minimum(bins, lengths - 1)].float()  # (B, T, C)
        features = torch.addcmul(offset[group], counts, scale[group]).masked_fill_(~mask[..., None], 0.0)
        participant = list(self.participants).index(self.corpus.manifest[dataset]["participant"])
        batch = {
            "input_features": features,
            "attention_mask": mask,
            "participant_index": torch.full((len(positions),), participant),
        }
        if with_counts:
            batch["labels"] = counts.masked_fill_(~mask[..., None], 0.0)
        return batch
