"""Phonemes as a Hugging Face tokenizer: 41 classes in model order, the CTC blank first."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any

from tokenizers import Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import WhitespaceSplit
from transformers import PreTrainedTokenizerFast

from configuration_bit.phoneme_inventory_bit import BLANK_TOKEN, MODEL_ORDER, PHONEMES, SIL_TOKEN
from configuration_bit.remote_code_bit import RemoteCodeMixin

from .phonemization_bit import Phonemizer

_IDS: dict[str, int] = {token: index for index, token in enumerate(MODEL_ORDER)}
_IGNORED = -100


def _without_stress(token: str) -> str:
    return token[:-1] if len(token) == 3 and token[-1] in "012" else token


def _to_list(ids: Any) -> list[int]:
    if hasattr(ids, "tolist"):
        ids = ids.tolist()
    if isinstance(ids, int):
        return [ids]
    if any(isinstance(index, (list, tuple)) for index in ids):
        raise ValueError("The ids are nested: this takes one sequence; use the batch_ variant for many.")
    return [int(index) for index in ids]


class PhonemeTokenizer(RemoteCodeMixin, PreTrainedTokenizerFast):
    """Phoneme strings to class ids and back, English text to phonemes, and CTC output to phonemes.

    The vocabulary is fixed: `<blank>` 0 (also the padding token), the 39 ARPAbet phonemes 1-39 in alphabetical order,
    `SIL` 40. Stress digits are dropped on input (`AH0` is `AH`). A token outside the vocabulary is an error: there is
    no unknown token that could hide it.

    Args:
        pronunciations (`dict[str, str]`, *optional*): words with their phonemes (`{"xerxes": "Z ER K S IY Z"}`), which
            come before the dictionary when text is phonemized. Saved with the tokenizer.
        **kwargs: settings that transformers saved.

    Raises:
        ValueError: if the saved vocabulary is in another class order, or a pronunciation is not ARPAbet.

    Note:
        Labels follow the Brain-to-Text benchmarks: pronunciations as g2p_en gives them, without stress, and `SIL` after
        every word including the last.

    Example:
        ```python
        >>> tokenizer = PhonemeTokenizer()
        >>> tokenizer("HH AH0 L OW1 SIL")["input_ids"]
        [16, 3, 21, 25, 40]
        >>> tokenizer.decode_ctc([0, 3, 3, 0, 3, 40, 40])
        'AH AH SIL'

        ```
    """

    model_input_names = ["input_ids", "attention_mask"]

    def __init__(self, pronunciations: Mapping[str, str] | None = None, **kwargs: Any) -> None:
        self._refuse_other_order(kwargs.pop("vocab", None), kwargs.pop("tokenizer_file", None))
        for rebuilt in ("tokenizer_object", "post_processor", "tokenizer_padding", "tokenizer_truncation"):
            kwargs.pop(rebuilt, None)
        kwargs["pad_token"] = BLANK_TOKEN
        backend = Tokenizer(WordLevel(dict(_IDS), unk_token=BLANK_TOKEN))
        backend.normalizer = Replace(Regex(r"(?<=\b[A-Z]{2})[012]\b"), "")
        backend.pre_tokenizer = WhitespaceSplit()
        self._phonemizer = Phonemizer(pronunciations)
        super().__init__(tokenizer_object=backend, pronunciations=dict(pronunciations or {}), **kwargs)

    @staticmethod
    def _refuse_other_order(vocab: Any, tokenizer_file: Any) -> None:
        if vocab is None and tokenizer_file is not None:
            with open(tokenizer_file, encoding="utf-8") as file:
                vocab = json.load(file)["model"]["vocab"]
        saved = {} if vocab is None else dict(vocab)
        if vocab is not None and saved != _IDS:
            raise ValueError(
                "The saved tokenizer's vocabulary is not the model order (<blank> 0, AA..ZH 1-39, SIL 40) but "
                f"{sorted(saved, key=lambda token: int(saved[token]))}: convert scores with class_permutation."
            )

    @property
    def blank_token_id(self) -> int:
        """Class of the CTC blank, 0."""
        return _IDS[BLANK_TOKEN]

    @property
    def sil_token_id(self) -> int:
        """Class of the silence between words, 40."""
        return _IDS[SIL_TOKEN]

    def phonemize(self, text: str) -> list[str]:
        """Pronounce an English sentence.

        Args:
            text (`str`): the sentence; case and punctuation do not matter, numbers and symbols are read aloud.

        Returns:
            `list[str]`: phonemes without stress digits, `SIL` after every word including the last.

        Raises:
            ValueError: if a word cannot be pronounced; the message names it.

        Example:
            ```python
            >>> PhonemeTokenizer().phonemize("Bring it.")
            ['B', 'R', 'IH', 'NG', 'SIL', 'IH', 'T', 'SIL']

            ```
        """
        return [phoneme for word in self._phonemizer(text) for phoneme in (*word, SIL_TOKEN)]

    def encode_text(self, text: str) -> list[int]:
        """Class ids of an English sentence.

        Args:
            text (`str`): the sentence.

        Returns:
            `list[int]`: ids in model order, without blanks.

        Raises:
            ValueError: if a word cannot be pronounced; the message names it.

        Example:
            ```python
            >>> PhonemeTokenizer().encode_text("hi")
            [16, 6, 40]

            ```
        """
        return [_IDS[phoneme] for phoneme in self.phonemize(text)]

    def encode_phonemes(self, phonemes: str | Sequence[str]) -> list[int]:
        """Class ids of a phoneme string, checked and without the overhead of a full tokenizer call.

        Args:
            phonemes (`str` or `Sequence[str]`): ARPAbet phonemes and `SIL`, separated by spaces or in a list; stress
                digits are dropped.

        Returns:
            `list[int]`: ids in model order.

        Raises:
            ValueError: if a token is unknown; the message names it.

        Example:
            ```python
            >>> PhonemeTokenizer().encode_phonemes("HH AY1 SIL")
            [16, 6, 40]

            ```
        """
        tokens = phonemes.split() if isinstance(phonemes, str) else phonemes
        return [self._id_of(token) for token in tokens]

    def decode_ctc(self, ids: Any) -> str:
        """Turn the best class of every frame into phonemes: merge repeats, then drop blanks.

        Args:
            ids (`Sequence[int]` of length `P`): best class of every real frame of one trial; numpy and torch work too.

        Returns:
            `str`: phonemes separated by spaces. `A <blank> A` are two `A`, `A A` is one.

        Raises:
            ValueError: if an id is not a class.

        Note:
            The published BIT code does not start a new phoneme after a blank, so that `A <blank> A` becomes one `A`.

        Example:
            ```python
            >>> PhonemeTokenizer().decode_ctc([3, 3, 0, 3])
            'AH AH'

            ```
        """
        merged = [index for index, _ in groupby(_to_list(ids))]
        return self._names(index for index in merged if index != _IDS[BLANK_TOKEN])

    def batch_decode_ctc(self, ids: Any, frame_mask: Any | None = None) -> list[str]:
        """[`~PhonemeTokenizer.decode_ctc`] for every trial of a batch.

        Args:
            ids (`Sequence[Sequence[int]]` of shape `(B, P)`): best class of every frame.
            frame_mask (`Sequence[Sequence[bool]]` of shape `(B, P)`, *optional*): True = real frame, as the models
                return it; frames after a shorter trial's end are noise and must not be read.

        Returns:
            `list[str]`: phonemes of each trial, separated by spaces.

        Raises:
            ValueError: if an id is not a class, or the mask does not fit.
        """
        rows = ids.tolist() if hasattr(ids, "tolist") else [list(row) for row in ids]
        if frame_mask is not None:
            masks = frame_mask.tolist() if hasattr(frame_mask, "tolist") else [list(row) for row in frame_mask]
            if [len(row) for row in masks] != [len(row) for row in rows]:
                raise ValueError("frame_mask and ids have different shapes: give one mask value per frame.")
            rows = [[index for index, real in zip(row, mask) if real] for row, mask in zip(rows, masks)]
        return [self.decode_ctc(row) for row in rows]

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        """Join phonemes with spaces.

        Args:
            tokens (`list[str]`): phonemes.

        Returns:
            `str`: the phoneme string.
        """
        return " ".join(tokens)

    def _encode_plus(self, text: Any, text_pair: Any = None, **kwargs: Any) -> Any:
        if text_pair is not None:
            raise ValueError("A phoneme sequence has no second part: join the two with a space.")
        nested = [text] if isinstance(text, str) else list(text)
        for row in nested:
            for token in row.split() if isinstance(row, str) else row:
                self._id_of(token)
        return super()._encode_plus(text, **kwargs)

    def _decode(self, token_ids: Any, skip_special_tokens: bool = False, **kwargs: Any) -> str:
        ids = [index for index in _to_list(token_ids) if index != _IGNORED]  # padding of labels
        return self._names(index for index in ids if not (skip_special_tokens and index == _IDS[BLANK_TOKEN]))

    def _convert_token_to_id_with_added_voc(self, token: str) -> int:
        return self._id_of(token)

    @staticmethod
    def _id_of(token: Any) -> int:
        index = _IDS.get(token)
        if index is None and isinstance(token, str):
            index = _IDS.get(_without_stress(token))
        if index is None:
            hint = f" (the silence is written {SIL_TOKEN!r})" if token in ("|", "sil", "<sil>", "SP") else ""
            raise ValueError(
                f"{token!r} is not a phoneme{hint}: use upper-case ARPAbet ({' '.join(PHONEMES)}), {SIL_TOKEN!r} "
                "between words, separated by spaces; for English text use encode_text."
            )
        return index

    @staticmethod
    def _names(ids: Any) -> str:
        names = []
        for index in ids:
            if not 0 <= index < len(MODEL_ORDER):
                raise ValueError(f"{index} is not a class: ids run from 0 to {len(MODEL_ORDER) - 1}.")
            names.append(MODEL_ORDER[index])
        return " ".join(names)
