"""Small causal language models from text: which sentences count, the tokenizer, and blocks to train on."""

from __future__ import annotations

import gzip
import json
import lzma
import os
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase, Qwen2Tokenizer, TrainerCallback

from bit_speech.data.splits import comparable_text
from bit_speech.evaluation import normalize_text
from bit_speech.training.checkpoints import seal_checkpoint

NUM_PARTS = 20
_OPENERS: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".xz": lzma.open}


def sentence_part(text: str) -> int:
    """Assign a sentence to one of 20 parts, the same one wherever the sentence turns up.

    Args:
        text (`str`): a sentence; case and punctuation do not matter.

    Returns:
        `int`: 0 to 19. Repeats of a sentence, in the same list or another, have the same part, so that sentences can be
        held out of several corpora at once without a list of them.

    Example:
        >>> sentence_part("Bring it closer.") == sentence_part("bring it  closer")
        True
    """
    return zlib.crc32(comparable_text(text.replace("-", " ")).encode()) % NUM_PARTS


def read_sentences(path: str | os.PathLike[str]) -> list[str]:
    """Read a text file with one sentence per line.

    Args:
        path (`str`): UTF-8 text, plain or compressed (`.gz`, `.xz`).

    Returns:
        `list[str]`: the lines that are not empty, without white space at their ends.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it is not UTF-8 text or holds no sentence.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no text file {path}; give UTF-8 text, one sentence per line (.txt, .gz, .xz)"
        )
    try:
        with _OPENERS.get(path.suffix, open)(path, "rt", encoding="utf-8") as lines:
            sentences = [line.strip() for line in lines if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error}); convert it, for example with iconv") from error
    if not sentences:
        raise ValueError(f"{path} holds no sentence; expected one per line")
    return sentences


def select_sentences(
    sentences: Iterable[str],
    *,
    parts: Iterable[int] | None = None,
    exclude: Iterable[str] = (),
    normalization: str = "brain_to_text_25",
) -> list[str]:
    """Normalise sentences and keep those that may be used.

    Args:
        sentences (iterable of `str`): text of any case and punctuation.
        parts (iterable of `int`, *optional*): parts to keep, see [`sentence_part`]; all of them when None.
        exclude (iterable of `str`): sentences to leave out wherever they occur, for example those that will be scored.
        normalization (`str`): `"brain_to_text_25"` (lower-case words, as the benchmarks score them),
            `"brain_to_text_24"` or `"none"`.

    Returns:
        `list[str]`: normalised sentences in their order; empty ones are dropped, repeats stay.

    Example:
        >>> select_sentences(["Hi there!", "Go on.", "..."], exclude=["go on"])
        ['hi there']
    """
    wanted = frozenset(range(NUM_PARTS) if parts is None else parts)
    banned = {comparable_text(text.replace("-", " ")) for text in exclude}
    kept = []
    for sentence in sentences:
        text = normalize_text(sentence, normalization)
        key = comparable_text(text.replace("-", " "))
        if key and key not in banned and sentence_part(text) in wanted:
            kept.append(text)
    return kept


def train_tokenizer(sentences: Iterable[str], vocab_size: int = 4096) -> Qwen2Tokenizer:
    """Train a byte-level byte-pair tokenizer of Qwen2's kind.

    Args:
        sentences (iterable of `str`): training text.
        vocab_size (`int`): number of tokens, 256 bytes and 3 special tokens among them.

    Returns:
        `Qwen2Tokenizer`: `<s>` before every text unless `add_special_tokens=False`, `</s>` to end a text, which the
        tokenizer does not add by itself, and `<pad>` for padding. Any text can be encoded.

    Raises:
        ValueError: when the vocabulary is too small for the bytes.

    Note:
        `AutoTokenizer` gives a folder with a Qwen2 model Qwen2's way of cutting text into words, whatever its
        tokenizer.json says, so the tokens are learned with exactly that way.
    """
    from tokenizers import models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from tokenizers.processors import TemplateProcessing

    special = {"<pad>": 0, "<s>": 1, "</s>": 2}
    if vocab_size < 256 + len(special):
        raise ValueError(f"vocab_size is {vocab_size}; expected at least {256 + len(special)}, for bytes and markers")
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": None}
    backend = Qwen2Tokenizer(**names).backend_tokenizer
    backend.model = models.BPE()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(special),
        initial_alphabet=sorted(ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator(sentences, trainer)
    learned = json.loads(backend.to_str())["model"]
    tokenizer = Qwen2Tokenizer(vocab=learned["vocab"], merges=[tuple(pair) for pair in learned["merges"]], **names)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return tokenizer


class PackedSentences(torch.utils.data.Dataset):
    """Sentences one after the other, cut into blocks of equal length.

    Args:
        sentences (sequence of `str`): the text.
        tokenizer (`PreTrainedTokenizerBase`): every sentence gets its beginning token, if there is one, and its end.
        block_size (`int`): tokens per block; what is left over at the end is dropped.
        seed (`int`, *optional*): shuffles the sentences first; None keeps their order.

    Raises:
        ValueError: when the text is shorter than one block.
    """

    def __init__(
        self,
        sentences: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        block_size: int = 128,
        seed: int | None = None,
    ) -> None:
        order = np.arange(len(sentences)) if seed is None else np.random.default_rng(seed).permutation(len(sentences))
        start = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
        end = tokenizer.eos_token_id
        chunks = []
        for first in range(0, len(order), 10_000):
            batch = [sentences[index] for index in order[first : first + 10_000]]
            rows = tokenizer(batch, add_special_tokens=False)["input_ids"]
            chunks.append(np.fromiter((token for row in rows for token in (*start, *row, end)), dtype=np.int32))
        tokens = np.concatenate(chunks) if chunks else np.empty(0, dtype=np.int32)
        count = len(tokens) // block_size
        if not count:
            raise ValueError(f"the text has {len(tokens)} tokens, less than one block of {block_size}; give more text")
        self.blocks = torch.from_numpy(tokens[: count * block_size].reshape(count, block_size))

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        block = self.blocks[index].long()
        return {"input_ids": block, "labels": block}


class SealCheckpoints(TrainerCallback):
    """Seals every checkpoint of a stock `Trainer`, for `newest_complete_checkpoint` to find the one to resume from."""

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seal the checkpoint that was just written.

        Args:
            args (`TrainingArguments`): say where checkpoints are.
            state (`TrainerState`): says which step it is.
            control (`TrainerControl`): not used.
            **kwargs: not used.
        """
        seal_checkpoint(Path(args.output_dir) / f"checkpoint-{state.global_step}")
