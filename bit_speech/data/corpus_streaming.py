"""The corpus without a store: trials streamed from shards wherever they lie, z-scored block by block on the way."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np

from bit_speech.data.corpus_building import cut, table_trials
from bit_speech.data.pretraining_corpus import z_score_coefficients
from bit_speech.data.schema import THRESHOLD_CROSSINGS
from bit_speech.data.statistics import RunningStatistics

_ROWS_AT_ONCE = 16


def stream_corpus(
    shards: Sequence[str | os.PathLike[str]],
    *,
    feature_kinds: Sequence[str] = (THRESHOLD_CROSSINGS,),
    normalization: str = "block",
    segment_s: float = 30.0,
    include_held_out: bool = False,
    shuffle_buffer: int = 0,
    seed: int = 0,
) -> datasets.IterableDataset:
    """Read the items of a corpus from its Parquet shards, without storing anything.

    Args:
        shards (`list[str]`): Parquet shards of trials: paths, or addresses that `datasets` reads (`https://`, `hf://`,
            `s3://`).
        feature_kinds (`list[str]`, defaults to threshold crossings): channels to keep.
        normalization (`str`, defaults to `"block"`): z-score over each block, which is the trials of a block that
            follow each other in the shard, or `"none"`. A session is not known before its end, so `"session"` needs
            the store.
        segment_s (`float`, defaults to 30): longer recordings are cut into equal pieces of at most this many seconds.
        include_held_out (`bool`, defaults to False): also give trials of the validation and test splits.
        shuffle_buffer (`int`, defaults to 0): items among which the next one is drawn; also shuffles the shards.
        seed (`int`, defaults to 0): seed of that.

    Returns:
        `datasets.IterableDataset`: rows with `input_features` (float32, `(T, C)`), `participant_id`, `session_id`,
            `block_index` and `trial_index`. `datasets.distributed.split_dataset_by_node` deals the shards out to
            processes, `state_dict` and `load_state_dict` resume in the middle, `set_epoch` shuffles anew.

    Raises:
        ValueError: when there is no shard, or the normalisation is unknown.

    Note:
        The same trials give the same values as [`~bit_speech.data.pretraining_corpus.PretrainingCorpus`] does, as long
        as the trials of a block lie in one shard, as the converters write them. What a shuffle buffer held when a run
        was interrupted is not given again; the rest follows exactly.

    Example:
        ```python
        stream = stream_corpus(["hf://datasets/someone/trials/data/train-p1.2024.01.05.parquet"])
        next(iter(stream))["input_features"].shape
        ```
    """
    if not shards:
        raise ValueError("no shards: name at least one Parquet file of trials")
    if normalization not in ("block", "none"):
        raise ValueError(
            f"normalization must be 'block' or 'none' in a stream, got {normalization!r}; build a store for 'session'"
        )
    stream = datasets.IterableDataset.from_generator(
        _items,
        gen_kwargs={
            "shards": [str(shard) for shard in shards],
            "options": {
                "feature_kinds": tuple(feature_kinds),
                "normalize": normalization == "block",
                "segment_s": segment_s,
                "held_out": include_held_out,
            },
        },
    )
    return stream.shuffle(seed=seed, buffer_size=shuffle_buffer) if shuffle_buffer else stream


def _items(shards: Sequence[str], options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for shard in shards:
        for block in _blocks(_trials(shard, options)):
            features = [trial["features"] for trial in block]
            if options["normalize"]:
                statistics = RunningStatistics()
                for array in features:
                    statistics.add(array)
                scale, offset = z_score_coefficients(
                    statistics.mean.astype(np.float32), statistics.std.astype(np.float32)
                )
                features = [array * scale + offset for array in features]
            for trial, array in zip(block, features):
                segment_bins = max(1, round(1000 * options["segment_s"] / trial["bin_size_ms"]))
                for first, length in cut(len(array), segment_bins):
                    yield {
                        "input_features": np.asarray(array[first : first + length], dtype=np.float32),
                        **{
                            name: trial[name] for name in ("participant_id", "session_id", "block_index", "trial_index")
                        },
                    }


def _trials(shard: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    rows = datasets.load_dataset("parquet", data_files=[shard], split="train", streaming=True)
    for table in rows.with_format("arrow").iter(batch_size=_ROWS_AT_ONCE):
        for trial in table_trials(table, options["feature_kinds"], shard):
            if options["held_out"] or trial["split"] == "train":
                yield trial


def _blocks(trials: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    block: list[dict[str, Any]] = []
    for trial in trials:
        if block and (trial["session_id"], trial["block_index"]) != (block[0]["session_id"], block[0]["block_index"]):
            yield block
            block = []
        block.append(trial)
    if block:
        yield block
