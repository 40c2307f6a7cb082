"""Characters as a Hugging Face tokenizer: the vocabulary that speech models with a CTC head were trained on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import groupby
from typing import Any

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from configuration_bit.remote_code_bit import RemoteCodeMixin

from .spoken_text_bit import spoken_words
from .tokenization_phoneme import _to_list

# Letters in the order of the published English checkpoints (wav2vec2-base-960h and its relatives): by frequency.
_LETTERS = "ETAONIHSRDLUMWCFGYPBVK'XJQZ"
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
_IGNORED = -100


class SpellingTokenizer(RemoteCodeMixin, PreTrainedTokenizerFast):
    """English text to the characters of a speech checkpoint, and CTC output back to text.

    Args:
        vocabulary (`dict[str, int]`, *optional*): character -> class, with the special tokens. Default: the 32 symbols
            of the English Wav2Vec2 checkpoints: `<pad>` 0 (the CTC blank), `<s>`, `</s>`, `<unk>`, `|` between words,
            26 letters and the apostrophe. Saved with the tokenizer.
        word_delimiter (`str`, defaults to `"|"`): the symbol between words.
        **kwargs: settings that transformers saved.

    Raises:
        ValueError: if the vocabulary lacks the blank, the word delimiter or letters, or has a class twice.

    Note:
        Text is reduced to the words that a reader says (numbers are spelled out), a space for a hyphen and without
        other punctuation than apostrophes, as the published system does (Fiedler et al. 2025, arXiv 2501.09459). Unlike
        `Wav2Vec2CTCTokenizer` it keeps its word delimiter when it is loaded again, and a character outside the
        vocabulary is an error, not `<unk>`.

    Example:
        ```python
        >>> tokenizer = SpellingTokenizer()
        >>> tokenizer.encode_text("Hi, you!")
        [11, 10, 4, 22, 8, 16]
        >>> tokenizer.decode_ctc([11, 11, 0, 10, 4, 4, 22, 8, 0, 16])
        'hi you'

        ```
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, vocabulary: Mapping[str, int] | None = None, word_delimiter: str = "|", **kwargs: Any) -> None:
        if vocabulary is None:
            vocabulary = {token: index for index, token in enumerate((*_SPECIAL, "|", *_LETTERS))}
        self.vocabulary = {str(token): int(index) for token, index in vocabulary.items()}
        self.word_delimiter = word_delimiter
        self._upper = "E" in self.vocabulary
        blank = kwargs.pop("pad_token", None) or "<pad>"
        blank = str(blank)
        missing = [token for token in (blank, word_delimiter) if token not in self.vocabulary]
        if missing:
            raise ValueError(f"The vocabulary lacks {missing}: it needs the blank {blank!r} and the word delimiter.")
        if not self._upper and "e" not in self.vocabulary:
            raise ValueError("The vocabulary has neither 'E' nor 'e': it must hold English letters.")
        if sorted(self.vocabulary.values()) != list(range(len(self.vocabulary))):
            raise ValueError(f"The classes of the vocabulary must be 0 to {len(self.vocabulary) - 1}, each once.")
        for rebuilt in ("tokenizer_object", "tokenizer_file", "vocab", "post_processor", "tokenizer_padding",
                        "tokenizer_truncation"):  # fmt: skip
            kwargs.pop(rebuilt, None)
        backend = Tokenizer(WordLevel(dict(self.vocabulary), unk_token=blank))
        backend.pre_tokenizer = WhitespaceSplit()
        super().__init__(
            tokenizer_object=backend,
            vocabulary=self.vocabulary,
            word_delimiter=word_delimiter,
            pad_token=blank,
            **kwargs,
        )
        self._names = {index: token for token, index in self.vocabulary.items()}

    @classmethod
    def from_speech_checkpoint(cls, name: str | os.PathLike, **kwargs: Any) -> SpellingTokenizer:
        """Take the vocabulary of a speech checkpoint.

        Args:
            name (`str` or `os.PathLike`): folder or Hub name of a checkpoint with a CTC tokenizer.
            **kwargs: passed to `AutoTokenizer.from_pretrained`, such as `revision`.

        Returns:
            `SpellingTokenizer`: with the same classes.

        Raises:
            OSError: if the checkpoint has no tokenizer (self-supervised ones often have none).
            ValueError: if the vocabulary is not one of English letters.
        """
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(name, **kwargs)
        delimiter = getattr(tokenizer, "word_delimiter", None) or getattr(tokenizer, "word_delimiter_token", None)
        # Tokens that transformers adds on top have no output in the model.
        size = getattr(tokenizer, "vocab_size", len(tokenizer))
        vocabulary = {token: index for token, index in tokenizer.get_vocab().items() if index < size}
        return cls(vocabulary, word_delimiter=str(delimiter or "|"), pad_token=str(tokenizer.pad_token))

    @property
    def blank_token_id(self) -> int:
        """Class of the CTC blank."""
        return self.vocabulary[str(self.pad_token)]

    @property
    def characters(self) -> dict[str, int]:
        """What text is spelled with: lower-case letters and the apostrophe -> class, a space -> the word delimiter."""
        letters = {token.lower(): index for token, index in self.vocabulary.items()
                   if len(token) == 1 and token != self.word_delimiter}  # fmt: skip
        return {" ": self.vocabulary[self.word_delimiter], **letters}

    def encode_text(self, text: str) -> list[int]:
        """Classes of an English sentence.

        Args:
            text (`str`): the sentence; case and punctuation do not matter.

        Returns:
            `list[int]`: one class for each character, the word delimiter between words.

        Raises:
            ValueError: if a character is not in the vocabulary.

        Example:
            ```python
            >>> SpellingTokenizer().encode_text("I'm")
            [10, 27, 17]

            ```
        """
        known, ids = self.characters, []
        for character in " ".join(spoken_words(text)).replace("-", " "):
            if character not in known:
                raise ValueError(f"{character!r} of {text!r} is not in the vocabulary {''.join(sorted(known))!r}.")
            ids.append(known[character])
        return ids

    def decode_ctc(self, ids: Any) -> str:
        """Turn the best class of every frame into text: merge repeats, then drop blanks and special tokens.

        Args:
            ids (`Sequence[int]` of length `P`): best class of every real frame of one trial.

        Returns:
            `str`: lower-case text.

        Raises:
            ValueError: if an id is not a class.

        Example:
            ```python
            >>> SpellingTokenizer().decode_ctc([6, 6, 0, 6])
            'tt'

            ```
        """
        return self._text(index for index, _ in groupby(_to_list(ids)))

    def batch_decode_ctc(self, ids: Any, frame_mask: Any | None = None) -> list[str]:
        """[`~SpellingTokenizer.decode_ctc`] for every trial of a batch.

        Args:
            ids (`Sequence[Sequence[int]]` of shape `(B, P)`): best class of every frame.
            frame_mask (`Sequence[Sequence[bool]]` of shape `(B, P)`, *optional*): True = real frame.

        Returns:
            `list[str]`: lower-case text of each trial.

        Raises:
            ValueError: if an id is not a class, or the mask does not fit.
        """
        rows = [_to_list(row) for row in ids]
        if frame_mask is not None:
            masks = [[bool(real) for real in row] for row in frame_mask]
            if [len(row) for row in masks] != [len(row) for row in rows]:
                raise ValueError("frame_mask and ids have different shapes: give one mask value per frame.")
            rows = [[index for index, real in zip(row, mask) if real] for row, mask in zip(rows, masks)]
        return [self.decode_ctc(row) for row in rows]

    def _decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        return self._text(index for index in _to_list(token_ids) if index != _IGNORED)

    def _text(self, ids: Any) -> str:
        characters = []
        for index in ids:
            if index not in self._names:
                raise ValueError(f"{index} is not a class: ids run from 0 to {len(self._names) - 1}.")
            token = self._names[index]
            if token == self.word_delimiter:
                characters.append(" ")
            elif len(token) == 1:
                characters.append(token.lower())
        return " ".join("".join(characters).split())
