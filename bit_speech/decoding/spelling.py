"""Words from character probabilities: the phoneme search, given letters for phonemes.

The search over lexicon trie and language model knows 41 classes and nothing of what they mean, except that SIL ends a
word. Here every letter borrows a phoneme class, the space borrows SIL, and each word's spelling is its pronunciation:
the search stays exact, and there is one of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, PHONEMES, SIL_TOKEN

from .beam_search import BeamSearchDecoder, Hypothesis
from .greedy import check_log_probs
from .language_model import NGramLM
from .lexicon import Lexicon
from .tuning import tune_decoder


class SpellingDecoder:
    """CTC prefix beam search over the spellings of words with an n-gram language model.

    Args:
        words (iterable of `str`): the words that can be decoded. Those with other characters than `characters` are
            left out: see `unspellable`.
        lm (`NGramLM`, *optional*): word language model.
        characters (`dict[str, int]`): letter -> class of the input, and a space for the class between words, as
            `SpellingTokenizer.characters` gives them. At most 39 letters.
        num_classes (`int`): how many classes V the input has; those not in `characters` are ignored.
        blank (`int`): class of the CTC blank.
        **settings: settings of [`BeamSearchDecoder`]. Words are always separated here (`missing_sil_score` is -inf),
            and more spaces than one cost nothing (`extra_sil_score` is 0).

    Raises:
        ValueError: when there is no space, there are too many letters, a class does not exist, or no word is left.

    Note:
        The end of an utterance ends its last word, with or without a trailing space.

    Example:
        >>> import numpy as np
        >>> decoder = SpellingDecoder(["a", "be"], None, {" ": 1, "a": 2, "b": 3, "e": 4}, num_classes=5)
        >>> path = [0, 3, 0, 4, 1, 2]  # blank b blank e space a
        >>> decoder.decode(np.log(np.eye(5)[path] * 0.9 + 0.02))[0].text
        'be a'
    """

    def __init__(
        self,
        words: Iterable[str],
        lm: NGramLM | None,
        characters: Mapping[str, int],
        num_classes: int,
        blank: int = 0,
        **settings: Any,
    ) -> None:
        letters = {letter: index for letter, index in characters.items() if letter != " "}
        if " " not in characters:
            raise ValueError("characters has no space: give the class that stands between words.")
        if len(letters) > len(PHONEMES):
            raise ValueError(f"{len(letters)} letters do not fit: the search has room for {len(PHONEMES)}.")
        used = [blank, *characters.values()]
        if len(set(used)) < len(used) or not all(0 <= index < num_classes for index in used):
            raise ValueError(f"The classes of blank and characters must be different and below {num_classes}: {used}.")
        borrowed = dict(zip(letters, PHONEMES))
        spellings: dict[str, str] = {}
        self.unspellable: list[str] = []
        for word in words:
            if word and all(letter in borrowed for letter in word):
                spellings[word] = " ".join(borrowed[letter] for letter in word)
            else:
                self.unspellable.append(word)
        if not spellings:
            raise ValueError(f"None of the words can be spelled with {''.join(letters)!r}: {self.unspellable[:10]}.")
        self.num_classes = num_classes
        place = {name: index for index, name in enumerate(MODEL_ORDER)}
        self._columns = {0: blank, place[SIL_TOKEN]: characters[" "]}
        self._columns |= {place[borrowed[letter]]: index for letter, index in letters.items()}
        separated = {"missing_sil_score": -np.inf, "extra_sil_score": 0.0}
        self.search = BeamSearchDecoder(Lexicon.from_words(spellings), lm, **separated | settings)

    def with_settings(self, **changes: Any) -> SpellingDecoder:
        """Make a decoder with some settings changed; words and language model are shared.

        Args:
            **changes: settings of [`BeamSearchDecoder`].

        Returns:
            `SpellingDecoder`: a new decoder; this one is unchanged.

        Raises:
            ValueError: when there is no such setting, or it makes no sense.
        """
        other = object.__new__(SpellingDecoder)
        other.__dict__.update(self.__dict__)
        other.search = self.search.with_settings(**changes)
        return other

    def tuned(self, log_probs: Sequence[npt.ArrayLike], references: Sequence[str], **searched: Any) -> SpellingDecoder:
        """Choose the weights by the word errors of validation sentences.

        Args:
            log_probs (list of `np.ndarray` of shape `(T, V)`): natural-log probabilities of validation sentences.
            references (list of `str`): what was said, lower-case words.
            **searched: what to try, as for [`tune_decoder`].

        Returns:
            `SpellingDecoder`: the same decoder with the chosen weights; `search.settings` tells them.

        Raises:
            ValueError: as [`tune_decoder`].
        """
        other = object.__new__(SpellingDecoder)
        other.__dict__.update(self.__dict__)
        other.search = tune_decoder([self._borrow(one) for one in log_probs], references, self.search, **searched)
        return other

    def decode(self, log_probs: npt.ArrayLike) -> list[Hypothesis]:
        """Decode one utterance.

        Args:
            log_probs (`np.ndarray` of shape `(T, V)`): natural-log probabilities.

        Returns:
            `list[Hypothesis]`: as [`BeamSearchDecoder.decode`].

        Raises:
            ValueError: when the shape is wrong, or a value is NaN or above zero.
        """
        return self.search.decode(self._borrow(log_probs))

    def decode_batch(self, log_probs: Sequence[npt.ArrayLike], num_threads: int = 1) -> list[list[Hypothesis]]:
        """Decode several utterances, on several threads when asked.

        Args:
            log_probs (list of `np.ndarray` of shape `(T, V)`): one array per utterance.
            num_threads (`int`): how many utterances to decode at a time.

        Returns:
            `list[list[Hypothesis]]`: as [`SpellingDecoder.decode`], in the order of the input.

        Raises:
            ValueError: as [`SpellingDecoder.decode`].
        """
        return self.search.decode_batch([self._borrow(one) for one in log_probs], num_threads)

    def _borrow(self, log_probs: npt.ArrayLike) -> np.ndarray:
        """Scores in the search's classes, with one more frame that is certainly a space."""
        array = check_log_probs(log_probs, self.num_classes)
        borrowed = np.full((len(array) + 1, len(MODEL_ORDER)), -np.inf, dtype=np.float32)
        for column, source in self._columns.items():
            borrowed[:-1, column] = array[:, source]
        borrowed[-1, MODEL_ORDER.index(SIL_TOKEN)] = 0.0
        return borrowed
