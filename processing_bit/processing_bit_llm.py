"""The processor of the end-to-end decoder: recordings and sentences to prompts, generated tokens to sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from transformers import AddedToken, BatchFeature, ProcessorMixin

from configuration_bit.remote_code_bit import RemoteCodeMixin

from .feature_extraction_bit import BITFeatureExtractor
from .tokenization_phoneme import PhonemeTokenizer

NEURAL_TOKEN = "<|neural_token|>"
PAPER_PROMPT = "<|neural_activity|>#<|/neural_activity|> decode the above neural activity into an English sentence:"
_PLACE = "#"
_OUTSIDE_ALPHABET = re.compile(r"[^a-zA-Z\- ']")


class BITLLMProcessor(RemoteCodeMixin, ProcessorMixin):
    """Joins a [`BITFeatureExtractor`] and a language model's tokenizer, and owns the prompt.

    `processor(neural=..., text=...)` makes batches to train on, `processor.for_generation(neural=...)` batches to
    generate from. The latter takes no text, so that no answer can reach the model when it is evaluated.

    Args:
        feature_extractor ([`BITFeatureExtractor`], *optional*): signal side; default settings if left out.
        tokenizer (`PreTrainedTokenizerBase`): the language model's own. It is given one more token, which marks the
            places of neural tokens and never reaches the model's table.
        prompt (`str`): what the language model reads; the neural tokens come in place of its one `#`.
        chat_template (`str`, *optional*): as in transformers; default the tokenizer's.
        use_chat_template (`bool`, defaults to `False`): the prompt becomes a user's turn in the tokenizer's chat
            template, and the answer the assistant's.
        normalization (`str`, defaults to `"brain_to_text_25"`): how sentences to learn are written: lower-case words as
            the benchmark scores them, or `"none"`: as they are.
        patch_size (`int`, defaults to 5): bins in a patch of the model's encoder.
        patch_stride (`int`, *optional*): bins from one patch to the next; default `patch_size`.
        stacking (`int`, defaults to 1): encoder frames in a neural token.

    Raises:
        ValueError: if a setting makes no sense.

    Note:
        The prompt is that of the code released with Zhang, He et al. 2025, arXiv 2511.21740: its two tags are ordinary
        text, the sentence follows the colon without a space and ends with the end-of-text token. A tokenizer that
        begins texts with a token of its own does so here too (Qwen's does not).

    Example:
        ```python
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import PreTrainedTokenizerFast
        >>> words = {word: index for index, word in enumerate(["</s>", "?", "go", "on", "say", ":"])}
        >>> backend = Tokenizer(models.WordLevel(words, unk_token="?"))
        >>> backend.pre_tokenizer = pre_tokenizers.Whitespace()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>")
        >>> extractor = BITFeatureExtractor(participants={"t15": 4})
        >>> processor = BITLLMProcessor(extractor, tokenizer, prompt="# say:")
        >>> batch = processor(neural=[np.ones((10, 4))], text=["Go on."])
        >>> batch["input_ids"].tolist(), batch["labels"].tolist()
        ([[6, 6, 4, 5, 2, 3, 0]], [[-100, -100, -100, -100, 2, 3, 0]])
        >>> processor.for_generation(neural=[np.ones((10, 4))])["input_ids"].tolist()
        [[6, 6, 4, 5]]

        ```
    """

    feature_extractor: BITFeatureExtractor
    tokenizer: Any

    def __init__(
        self,
        feature_extractor: Any = None,
        tokenizer: Any = None,
        prompt: str = PAPER_PROMPT,
        chat_template: str | None = None,
        use_chat_template: bool = False,
        normalization: str = "brain_to_text_25",
        patch_size: int = 5,
        patch_stride: int | None = None,
        stacking: int = 1,
    ) -> None:
        if tokenizer is None:
            raise ValueError("`tokenizer` is missing: give the language model's tokenizer.")
        if tokenizer.eos_token_id is None:
            raise ValueError("The tokenizer has no eos_token to end a sentence with: set it.")
        if prompt.count(_PLACE) != 1:
            raise ValueError(
                f"The prompt {prompt!r} has {prompt.count(_PLACE)} times {_PLACE!r}: the neural tokens need one place."
            )
        if normalization not in ("brain_to_text_25", "none"):
            raise ValueError(f"normalization is {normalization!r}: choose 'brain_to_text_25' or 'none'.")
        sizes = {"patch_size": patch_size, "patch_stride": patch_stride or patch_size, "stacking": stacking}
        for name, value in sizes.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} is {value!r}: give an integer of at least 1.")
        if use_chat_template and not (chat_template or getattr(tokenizer, "chat_template", None)):
            raise ValueError("use_chat_template=True, but the tokenizer has no chat template.")
        if NEURAL_TOKEN not in tokenizer.get_vocab():
            tokenizer.add_tokens([AddedToken(NEURAL_TOKEN, special=True, normalized=False)], special_tokens=True)
        self.prompt = prompt
        self.use_chat_template = use_chat_template
        self.normalization = normalization
        self.patch_size, self.patch_stride, self.stacking = sizes.values()
        super().__init__(
            BITFeatureExtractor() if feature_extractor is None else feature_extractor,
            tokenizer,
            chat_template=chat_template,
        )
        self._before, self._after = self._encode_prompt()

    @property
    def neural_token_id(self) -> int:
        """Id that marks the places of neural tokens; the model's configuration needs the same (`int`)."""
        return int(self.tokenizer.convert_tokens_to_ids(NEURAL_TOKEN))

    @property
    def pad_token_id(self) -> int:
        """Id that fills shorter rows; the attention mask says that it is not read (`int`)."""
        pad = self.tokenizer.pad_token_id
        return int(self.tokenizer.eos_token_id if pad is None else pad)

    @property
    def model_input_names(self) -> list[str]:
        """Names of the tensors that the model takes."""
        signal = ["input_features", "input_features_mask", "participant_index", "session_index"]
        return ["input_ids", "attention_mask", *signal, "labels", "sentence_mask", "ctc_labels"]

    def num_neural_tokens(self, num_bins: int) -> int:
        """Neural tokens of a trial.

        Args:
            num_bins (`int`): bins of the trial.

        Returns:
            `int`: patches / `stacking`, rounded up; 0 for a trial shorter than a patch.
        """
        frames = max(0, (num_bins - self.patch_size) // self.patch_stride + 1)
        return -(-frames // self.stacking)

    def normalize(self, text: str) -> str:
        """Write a sentence as the model shall write it.

        Args:
            text (`str`): a sentence.

        Returns:
            `str`: with `normalization="brain_to_text_25"`, lower-case words of letters, apostrophes and inner hyphens.
        """
        if self.normalization == "none":
            return text
        text = _OUTSIDE_ALPHABET.sub("", text).replace("- ", " ").lower().replace("--", "").replace(" '", "'")
        return " ".join(text.split())

    def encode_answers(self, text: Sequence[str]) -> list[list[int]]:
        """Tokens of sentences as answers.

        Args:
            text (`Sequence[str]`): sentences.

        Returns:
            `list[list[int]]`: the tokens of each normalised sentence and the end-of-text token.
        """
        return [[*self._encode(self.normalize(sentence)), self.tokenizer.eos_token_id] for sentence in text]

    def training_text(self, num_bins: Sequence[int], text: Sequence[str]) -> dict[str, np.ndarray]:
        """Prompts and answers of trials whose features are ready.

        Args:
            num_bins (`Sequence[int]`): bins of each trial.
            text (`Sequence[str]`): sentence of each trial.

        Returns:
            `dict[str, np.ndarray]`: `input_ids`, `attention_mask`, `labels` (-100 outside of the answer) and
            `sentence_mask` (True on the answer without its end), each `(B, N)` and padded on the right.

        Raises:
            ValueError: naming the trial that is too short or has no words.
        """
        if isinstance(text, str) or len(text) != len(num_bins):
            raise ValueError(
                f"text has {1 if isinstance(text, str) else len(text)} entries for {len(num_bins)} trials."
            )
        empty = [index for index, sentence in enumerate(text) if not sentence or not self.normalize(sentence)]
        if empty:
            raise ValueError(f"trial {empty[0]}: {text[empty[0]]!r} holds no words to learn.")
        prompts, answers = self._prompts(num_bins), self.encode_answers(text)
        width = max(len(prompt) + len(answer) for prompt, answer in zip(prompts, answers))
        ids = np.full((len(prompts), width), self.pad_token_id, dtype=np.int64)
        mask, labels = np.zeros(ids.shape, dtype=bool), np.full_like(ids, -100)
        sentence = np.zeros_like(mask)
        for row, (prompt, answer) in enumerate(zip(prompts, answers)):
            start, end = len(prompt), len(prompt) + len(answer)
            ids[row, :start], ids[row, start:end] = prompt, answer
            labels[row, start:end] = answer
            mask[row, :end] = True
            sentence[row, start : end - 1] = True
        return {"input_ids": ids, "attention_mask": mask, "labels": labels, "sentence_mask": sentence}

    def generation_text(self, num_bins: Sequence[int]) -> dict[str, np.ndarray]:
        """Prompts alone, of trials whose features are ready.

        Args:
            num_bins (`Sequence[int]`): bins of each trial.

        Returns:
            `dict[str, np.ndarray]`: `input_ids` and `attention_mask`, each `(B, N)` and padded on the left.

        Raises:
            ValueError: naming the trial that is too short.
        """
        prompts = self._prompts(num_bins)
        width = max(map(len, prompts))
        ids = np.full((len(prompts), width), self.pad_token_id, dtype=np.int64)
        mask = np.zeros(ids.shape, dtype=bool)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = prompt
            mask[row, width - len(prompt) :] = True
        return {"input_ids": ids, "attention_mask": mask}

    def __call__(
        self,
        neural: Any,
        text: str | Sequence[str] | None = None,
        phonemes: Sequence[str] | None = None,
        return_tensors: str | None = None,
        **signal: Any,
    ) -> BatchFeature:
        """Make a batch to train on.

        Args:
            neural (array-like of shape `(T, C)`, or a sequence of them): one raw trial or many.
            text (`str` or `Sequence[str]`): the sentence of each trial.
            phonemes (`Sequence[str]`, *optional*): phonemes of each trial, for the auxiliary CTC loss.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.
            **signal: passed to the feature extractor: `participant_id`, `session_id`, `block_index`, `statistics`,
                `feature_kinds`, `channel_areas`.

        Returns:
            `BatchFeature`: `input_ids`, `attention_mask`, `labels`, `sentence_mask`, `input_features`,
            `input_features_mask`, `participant_index`, `session_index` if the extractor has sessions, and `ctc_labels`
            if phonemes were given.

        Raises:
            ValueError: naming the trial and the value, for any input that cannot be used.
        """
        if text is None:
            raise ValueError(
                "`text` is missing: training needs sentences; `for_generation` makes batches without them."
            )
        batch, num_bins = self._signal(neural, signal)
        batch.update(self.training_text(num_bins, [text] if isinstance(text, str) else list(text)))
        if phonemes is not None:
            rows = [PhonemeTokenizer().encode_phonemes(row) for row in phonemes]
            batch["ctc_labels"] = np.full((len(rows), max(map(len, rows))), -100, dtype=np.int64)
            for place, row in zip(batch["ctc_labels"], rows):
                place[: len(row)] = row
        return batch.convert_to_tensors(return_tensors)

    def for_generation(self, neural: Any, return_tensors: str | None = None, **signal: Any) -> BatchFeature:
        """Make a batch to generate from; there is no way to give it a sentence.

        Args:
            neural (array-like of shape `(T, C)`, or a sequence of them): one raw trial or many.
            return_tensors (`str`, *optional*): `"pt"` for torch tensors; numpy arrays otherwise.
            **signal: passed to the feature extractor, see [`__call__`].

        Returns:
            `BatchFeature`: `input_ids` and `attention_mask`, padded on the left, and the signal's tensors.

        Raises:
            ValueError: naming the trial and the value, for any input that cannot be used.
        """
        batch, num_bins = self._signal(neural, signal)
        batch.update(self.generation_text(num_bins))
        return batch.convert_to_tensors(return_tensors)

    def decode_answers(self, sequences: Any, prompt_length: int = 0) -> list[str]:
        """Sentences that a model has generated.

        Args:
            sequences (`Sequence[Sequence[int]]` of shape `(B, N + new)`): what `generate` returned.
            prompt_length (`int`): tokens N of the padded prompt before the answers.

        Returns:
            `list[str]`: text up to the end-of-text token.
        """
        rows = [
            list(row)[prompt_length:] for row in (sequences.tolist() if hasattr(sequences, "tolist") else sequences)
        ]
        end = self.tokenizer.eos_token_id
        rows = [row[: row.index(end)] if end in row else row for row in rows]
        return [text.strip() for text in self.tokenizer.batch_decode(rows, skip_special_tokens=True)]

    def _signal(self, neural: Any, settings: dict[str, Any]) -> tuple[BatchFeature, list[int]]:
        batch = self.feature_extractor(neural, **settings)
        batch["input_features_mask"] = batch.pop("attention_mask")
        return batch, batch["input_features_mask"].sum(axis=1).tolist()

    def _prompts(self, num_bins: Sequence[int]) -> list[list[int]]:
        counts = [self.num_neural_tokens(int(bins)) for bins in num_bins]
        if not counts:
            raise ValueError("No trials: give at least one.")
        if min(counts) == 0:
            short = counts.index(0)
            raise ValueError(
                f"trial {short} has {num_bins[short]} bins, less than one patch of {self.patch_size}: leave it out."
            )
        return [[*self._before, *[self.neural_token_id] * count, *self._after] for count in counts]

    def _encode_prompt(self) -> tuple[list[int], list[int]]:
        """Tokens before and after the neural ones."""
        text = self.prompt.replace(_PLACE, NEURAL_TOKEN)
        first: list[int] = []
        if self.use_chat_template:
            turn = [{"role": "user", "content": text}]
            text = self.tokenizer.apply_chat_template(
                turn, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
            )
        else:
            first = [token for token in self.tokenizer("")["input_ids"] if token == self.tokenizer.bos_token_id]
        before, after = text.split(NEURAL_TOKEN)
        return [*first, *self._encode(before)], self._encode(after)

    def _encode(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"]) if text else []
