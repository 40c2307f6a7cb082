"""What the command `bit-speech build-lm` does."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from .arpa import is_arpa
from .build_lm import build_ngram_lm_from_files
from .language_model import NGramLM
from .lm_text import blocks_of_file

_STAGES = 6  # of one text, after it was read: sorting, merging, linking, smoothing, packing, writing


def min_counts_of(prune: Sequence[int], order: int) -> list[int]:
    """Turn pruning thresholds into the least counts that are kept.

    Args:
        prune (sequence of `int`): for each order, n-grams that occur at most so often are dropped; the last number
            holds for higher orders too.
        order (`int`): length of the longest n-grams.

    Returns:
        `list[int]`: one number for each order.

    Raises:
        ValueError: when there are too many thresholds or they make no sense.

    Example:
        >>> min_counts_of([0, 0, 1], 5)
        [1, 1, 2, 2, 2]
    """
    values = list(prune)
    if not 1 <= len(values) <= order or values[0] != 0 or sorted(values) != values:
        raise ValueError(
            f"--prune {' '.join(map(str, values))} makes no sense for order {order}: give at most {order} numbers that "
            "begin with 0 (limit words by --vocabulary or --max_words) and never decrease, such as 0 0 1"
        )
    return [value + 1 for value in values + [values[-1]] * (order - len(values))]


def build_lm(
    output: str,
    *,
    text: Sequence[str] | None = None,
    arpa: str | None = None,
    order: int = 3,
    prune: Sequence[int] = (0,),
    vocabulary: str | None = None,
    max_words: int | None = None,
    interpolate_on: str | None = None,
    weights: Sequence[float] | None = None,
    quantize: bool = False,
    memory_gb: float | None = None,
    temporary_dir: str | None = None,
    threads: int | None = None,
) -> NGramLM:
    """Build a language model of text files, or convert an ARPA file, and write it.

    Args:
        output (`str`): `.arpa[.gz|.xz|.bz2]` for text, anything else for the binary form.
        text (sequence of `str`, optional): text files, one sentence per line.
        arpa (`str`, optional): an ARPA file to convert instead.
        order (`int`): length of the longest n-grams.
        prune (sequence of `int`): see [`min_counts_of`].
        vocabulary (`str`, optional): file with one word per line.
        max_words (`int`, optional): keep the most frequent words only.
        interpolate_on (`str`, optional): held-out text that chooses the weights of several texts.
        weights (sequence of `float`, optional): the weights of several texts.
        quantize (`bool`): round scores to 8 bits.
        memory_gb (`float`, optional): what working arrays may take before they go to disk.
        temporary_dir (`str`, optional): where they go.
        threads (`int`, optional): threads to compute on; default all cores.

    Returns:
        `NGramLM`: the model.

    Raises:
        FileNotFoundError: when an input is missing.
        ValueError: when inputs or settings make no sense.
    """
    if (text is None) == (arpa is None):
        raise ValueError("give --text FILES to build a model, or --arpa FILE to convert one")
    if quantize and is_arpa(output):
        raise ValueError(f"--quantize does not go with {output}: ARPA files hold exact scores; name the output lm.bin")
    if os.path.isdir(output):
        raise ValueError(
            f"--output {output} is a folder; name a file in it, for example {os.path.join(output, 'lm.bin')}"
        )
    with tqdm(total=_STAGES * len(text or [0]), unit="step", file=sys.stderr, leave=False) as bar:

        def progress(stage: str) -> None:
            bar.set_description(stage)
            bar.update(0 if stage.startswith("reading") else 1)

        if arpa is not None:
            progress(f"reading {arpa}")
            lm = NGramLM.from_arpa(arpa, quantize)
        else:
            words = None
            if vocabulary is not None:
                words = b"".join(blocks_of_file(vocabulary)).decode().split()
            lm = build_ngram_lm_from_files(
                list(text or []),
                order,
                min_counts=min_counts_of(prune, order),
                vocabulary=words,
                max_words=max_words,
                weights=weights,
                interpolate_on=interpolate_on,
                quantize=quantize,
                memory=None if memory_gb is None else int(memory_gb * 1e9),
                folder=temporary_dir,
                num_threads=threads or os.cpu_count() or 1,
                progress=progress,
            )
        progress(f"writing {output}")
        if is_arpa(output):
            lm.write_arpa(output)
        else:
            lm.save(output)
    size = Path(output).stat().st_size
    print(
        f"{output}: order {lm.order}, {sum(lm.counts):,} n-grams ({' + '.join(f'{n:,}' for n in lm.counts)}), "
        f"{size / 1e6:.1f} MB, {size / sum(lm.counts):.2f} bytes per n-gram"
    )
    if "weights" in lm.metadata:
        print("weights: " + ", ".join(f"{weight:.4f}" for weight in lm.metadata["weights"]))
    return lm
