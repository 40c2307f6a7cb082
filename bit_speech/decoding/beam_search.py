"""Words from phoneme probabilities: CTC prefix beam search over a lexicon trie with an n-gram language model."""

from __future__ import annotations

import inspect
import json
import math
import os
import zlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, class_permutation

from .beam_kernels import SearchSettings
from .build_lm import build_ngram_lm
from .greedy import check_log_probs
from .hot_phrases import hot_phrases
from .language_model import NGramLM
from .lattice import Lattice, read_lattice, read_sentences
from .lexicon import Lexicon
from .search_graph import Model, fill_look_ahead
from .streaming import DecoderState, PartialText, Workspace


@dataclass(frozen=True)
class Word:
    """A decoded word.

    Args:
        text (`str`): the word.
        start_frame (`int`): frame of its first phoneme.
        end_frame (`int`): one past the last frame of its last phoneme.
        confidence (`float`): share of the lattice's probability that has this word at overlapping frames; NaN when no
            lattice was kept (`num_hypotheses=1`).
    """

    text: str
    start_frame: int
    end_frame: int
    confidence: float = math.nan


@dataclass(frozen=True)
class Hypothesis:
    """A decoded sentence. All scores are natural logarithms.

    Args:
        text (`str`): words separated by spaces.
        score (`float`): `acoustic_score + lm_weight * lm_score + word_score * number of words`, with the boosts of hot
            phrases and what unknown words cost.
        acoustic_score (`float`): CTC score of all alignments (or of the best, when merging by maximum), after the blank
            penalty and the acoustic scale, with what missing SILs cost and with pronunciation scores.
        lm_score (`float`): unweighted language-model score with the end of the sentence.
        words (`list[Word]`): the words with their times.
        complete (`bool`): False when no hypothesis ended with a whole word, so that the word in progress was dropped.
    """

    text: str
    score: float
    acoustic_score: float
    lm_score: float
    words: list[Word] = field(default_factory=list)
    complete: bool = True


class BeamSearchDecoder:
    """CTC prefix beam search over a lexicon with an n-gram language model.

    Args:
        lexicon (`Lexicon`): the words that can be decoded.
        lm (`NGramLM`, optional): language model; all sentences are equally likely without one.
        beam_size (`int`): how many hypotheses survive a frame.
        lm_weight (`float`): factor on the language model's natural-log scores.
        word_score (`float`): added to the score for every word.
        acoustic_scale (`float`): factor on the log-probabilities. Below 1 for over-confident models.
        blank_penalty (`float`): subtracted from the blank's log-probability, before scaling (natural log; the
            benchmark's "blank penalty 90" is log 90 = 4.5).
        beam_threshold (`float`): hypotheses this far below the best are dropped, natural-log units.
        num_hypotheses (`int`): how many sentences to return at most. With 1 no lattice is kept, which is faster.
        missing_sil_score (`float`): added when a word is not followed by SIL; -inf forbids it.
        extra_sil_score (`float`): added for every SIL after a word but the first; -inf forbids it. Models are trained
            on one SIL after every word, so a second one speaks for a word between. Before the first word SIL is free.
        unknown_word_score (`float`, optional): added to the `<unk>` score of lexicon words that the language model does
            not know; None drops such words.
        blank_skip_threshold (`float`): frames whose blank probability is at least this extend nothing. What is lost
            then had a probability below one minus this value in that frame. 1.0 skips nothing: on
            over-confident posteriors 0.9999 cost a tenth of the words that were right otherwise, and saved little.
        merge (`str`): `"log_add"` sums alignments, `"max"` keeps the best one.
        recombine (`bool`): of hypotheses that differ only in words the language model no longer sees, keep the best;
            the others stay in the lattice. Without it every sequence of words is a hypothesis of its own: exact, and
            many times slower.
        lattice_beam (`float`): what recombination drops is kept in the lattice when it is at most so much worse.
        confidence_temperature (`float`): scores are divided by it before word confidences are computed.
        pronunciation_weight (`float`): factor on the log-probabilities of pronunciations.
        hotwords (`dict[str, float]`, optional): words or phrases, and what each occurrence adds to the score (natural
            log). All their words must be in the lexicon.
        class_order (`str`): order of the 41 classes of the input: `"model"`, `"lm"` or `"tf24"`.

    Raises:
        ValueError: when a setting makes no sense, or no word of the lexicon can be used.

    Note:
        Scores need not be normalised; what matters is the ratio of acoustic scale and language-model weight. The graph
        that is searched (a small trie for every language-model state that is visited) follows the static transducers of
        Mohri, Pereira and Riley (2002), made lazily.

    Example:
        >>> import numpy as np
        >>> lexicon = Lexicon.from_words({"hi": "HH AY", "high": "HH AY"})
        >>> decoder = BeamSearchDecoder(lexicon, build_ngram_lm(["hi", "hi hi high"], order=2))
        >>> path = [16, 0, 6, 40]  # HH, blank, AY, SIL
        >>> decoder.decode(np.log(np.eye(41)[path] * 0.9 + 0.1 / 41))[0].text
        'hi'
    """

    def __init__(
        self,
        lexicon: Lexicon,
        lm: NGramLM | None = None,
        *,
        beam_size: int = 500,
        lm_weight: float = 1.0,
        word_score: float = 0.0,
        acoustic_scale: float = 1.0,
        blank_penalty: float = 0.0,
        beam_threshold: float = 14.0,
        num_hypotheses: int = 10,
        missing_sil_score: float = -4.0,
        extra_sil_score: float = -4.0,
        unknown_word_score: float | None = 0.0,
        blank_skip_threshold: float = 1.0,
        merge: str = "log_add",
        recombine: bool = True,
        lattice_beam: float = 8.0,
        confidence_temperature: float = 1.0,
        pronunciation_weight: float = 1.0,
        hotwords: Mapping[str, float] | None = None,
        class_order: str = "model",
    ) -> None:
        for name, value, low in (("beam_size", beam_size, 1), ("num_hypotheses", num_hypotheses, 1)):
            if int(value) != value or value < low:
                raise ValueError(f"{name} is {value}; expected a whole number of at least {low}.")
        for name, number in (("lm_weight", lm_weight), ("word_score", word_score), ("blank_penalty", blank_penalty)):
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}; expected a finite number.")
        for name, number in (("lm_weight", lm_weight), ("pronunciation_weight", pronunciation_weight)):
            if not 0 <= number < math.inf:
                raise ValueError(f"{name} is {number}; expected zero or more.")
        for name, number in (("acoustic_scale", acoustic_scale), ("confidence_temperature", confidence_temperature)):
            if not 0 < number < math.inf:
                raise ValueError(f"{name} is {number}; expected a positive number.")
        for name, number in (("beam_threshold", beam_threshold), ("lattice_beam", lattice_beam)):
            if not number > 0:
                raise ValueError(f"{name} is {number}; expected a positive number (inf keeps all).")
        for name, number in (("missing_sil_score", missing_sil_score), ("extra_sil_score", extra_sil_score)):
            if math.isnan(number) or number > 0:
                raise ValueError(f"{name} is {number}; expected zero or less (-inf forbids).")
        if unknown_word_score is not None and not math.isfinite(unknown_word_score):
            raise ValueError(f"unknown_word_score is {unknown_word_score}; expected a finite number, or None to drop.")
        if not 0 < blank_skip_threshold <= 1:
            raise ValueError(f"blank_skip_threshold is {blank_skip_threshold}; expected a probability in (0, 1].")
        if merge not in ("log_add", "max"):
            raise ValueError(f"merge is {merge!r}; expected 'log_add' or 'max'.")
        self.lexicon = lexicon
        self.lm = lm
        self.beam_size = int(beam_size)
        self.lm_weight = float(lm_weight)
        self.word_score = float(word_score)
        self.acoustic_scale = float(acoustic_scale)
        self.blank_penalty = float(blank_penalty)
        self.beam_threshold = float(beam_threshold)
        self.num_hypotheses = int(num_hypotheses)
        self.missing_sil_score = float(missing_sil_score)
        self.extra_sil_score = float(extra_sil_score)
        self.unknown_word_score = None if unknown_word_score is None else float(unknown_word_score)
        self.blank_skip_threshold = float(blank_skip_threshold)
        self.merge = merge
        self.recombine = bool(recombine)
        self.lattice_beam = float(lattice_beam)
        self.confidence_temperature = float(confidence_temperature)
        self.pronunciation_weight = float(pronunciation_weight)
        self.hotwords = {} if hotwords is None else {phrase: float(boost) for phrase, boost in hotwords.items()}
        self.class_order = class_order
        self._permutation = np.array(class_permutation(class_order, "model"))
        self._workspaces: list[Workspace] = []
        self._prepare()

    def with_settings(self, **changes: Any) -> BeamSearchDecoder:
        """Make a decoder with some settings changed; lexicon and language model are shared.

        Args:
            **changes: settings of the constructor, for example `acoustic_scale=0.4`.

        Returns:
            `BeamSearchDecoder`: a new decoder; this one is unchanged.

        Raises:
            ValueError: when there is no such setting, or it makes no sense.
        """
        settings = self.settings
        unknown = sorted(set(changes) - set(settings))
        if unknown:
            raise ValueError(f"Unknown setting {unknown[0]!r}: name one of {sorted(settings)}.")
        return BeamSearchDecoder(self.lexicon, self.lm, **(settings | changes))

    def save_pretrained(self, folder: str | os.PathLike[str], rescoring: Mapping[str, Any] | None = None) -> Path:
        """Save lexicon, language model, settings and class order in one folder.

        Args:
            folder (`str`): destination; a decoder that is there already is replaced, anything else refused.
            rescoring (`dict`, *optional*): the second pass that goes with it, see `bit_speech.decoding.save_decoder`.

        Returns:
            `Path`: the folder, written whole or not at all.

        Raises:
            ValueError: when the folder holds something that is no decoder.
        """
        from .saving import save_decoder

        return save_decoder(self, folder, rescoring)

    @classmethod
    def from_pretrained(cls, name: str | os.PathLike[str], **options: Any) -> BeamSearchDecoder:
        """Load a decoder that [`BeamSearchDecoder.save_pretrained`] wrote.

        Args:
            name (`str`): the folder, or a Hub id.
            **options: `subfolder`, `revision` and `verify` of `bit_speech.decoding.load_decoder_folder`, and settings
                that beat the saved ones.

        Returns:
            `BeamSearchDecoder`: decodes as the saved one did.

        Raises:
            FileNotFoundError: when there is no decoder, or a file of it is missing.
            ValueError: when it is of another kind or version, or damaged.
        """
        from .saving import load_decoder_folder

        return load_decoder_folder(name, **options)

    @property
    def settings(self) -> dict[str, Any]:
        """All settings of the constructor by name; a dictionary that JSON can hold (but for infinities)."""
        return {name: getattr(self, name) for name in _SETTINGS}

    @cached_property
    def fingerprint(self) -> int:
        """Number that tells decoders apart: states of searches go on with an equal decoder only."""
        trie = self._model.trie
        words = zlib.crc32("\0".join(self.lexicon.words).encode())
        arrays = (trie.children, trie.words, self._model.bias, self._scores)
        for array in arrays:
            words = zlib.crc32(array.tobytes(), words)
        counts = None if self.lm is None else self.lm.counts
        return zlib.crc32(json.dumps([self.settings, counts]).encode(), words)

    def _prepare(self) -> None:
        """Link the lexicon's words to the language model and fill the look-ahead."""
        trie = self.lexicon.trie()
        # Without a language model the compiled search still wants one to look at; it never does.
        lm = build_ngram_lm(["a"], order=1) if self.lm is None else self.lm
        word_ids = np.zeros(len(self.lexicon), dtype=np.int32)
        word_scores = np.full(len(self.lexicon), self.word_score, dtype=np.float32)
        unigrams = np.zeros(len(lm), dtype=np.float32)
        if self.lm is not None:
            word_ids = lm.word_indices(self.lexicon.words).astype(np.int32)
            unknown = word_ids == lm.unk
            if self.unknown_word_score is None:
                word_ids[unknown] = -1
                if unknown.all():
                    raise ValueError(
                        f"None of the {len(self.lexicon)} words of the lexicon is in the language model (for example "
                        f"{self.lexicon.words[0]!r}); check upper and lower case."
                    )
            else:
                word_scores[unknown] += self.unknown_word_score
            unigrams = lm.unigram_scores()
        word_scores[word_ids < 0] = -np.inf
        hot = hot_phrases(self.hotwords, self.lexicon)
        pronunciation_scores = (self.pronunciation_weight * trie.scores).astype(np.float32)
        bias = (word_scores + hot.first)[trie.words] + pronunciation_scores
        ids = word_ids[trie.words]
        items = np.argsort(ids, kind="stable")[np.count_nonzero(ids < 0) :].astype(np.int32)
        item_begin = np.searchsorted(ids[items], np.arange(len(lm) + 1)).astype(np.int32)
        self._model = Model(
            trie, lm.arrays, word_ids, item_begin, items, bias, pronunciation_scores, hot, self.lm_weight
        )
        self._scores = (self.lm_weight * unigrams[np.maximum(ids, 0)] + bias).astype(np.float32)
        self._look_ahead = np.empty(len(trie.label), dtype=np.float32)
        fill_look_ahead(trie, self._scores, self._look_ahead)
        self._settings = SearchSettings(
            beam_size=self.beam_size,
            beam_threshold=self.beam_threshold,
            word_score=self.word_score,
            unknown_word_score=self.unknown_word_score or 0.0,
            missing_sil_score=self.missing_sil_score,
            extra_sil_score=self.extra_sil_score,
            log_add=self.merge == "log_add",
            recombine=self.recombine,
            lattice_beam=self.lattice_beam if self.recombine and self.num_hypotheses > 1 else 0.0,
            best_ahead=float(bias.max()),
            eos=-1 if self.lm is None else self.lm.eos,
            unk=-1 if self.lm is None else self.lm.unk,
        )

    def decode(self, log_probs: npt.ArrayLike) -> list[Hypothesis]:
        """Decode one utterance.

        Args:
            log_probs (`np.ndarray` of shape `(T, 41)`): natural-log probabilities in the decoder's class order.

        Returns:
            `list[Hypothesis]`: at most `num_hypotheses` distinct sentences, best first; never empty. The text may be.

        Raises:
            ValueError: when the shape is wrong, or a value is NaN, above zero, or a frame is impossible.
        """
        return self._decode_checked(self._check(log_probs, "log_probs"))

    def decode_batch(self, log_probs: Sequence[npt.ArrayLike], num_threads: int = 1) -> list[list[Hypothesis]]:
        """Decode several utterances, on several threads when asked. The result does not depend on the threads.

        Args:
            log_probs (list of `np.ndarray` of shape `(T, 41)`): one array per utterance.
            num_threads (`int`): how many utterances to decode at a time.

        Returns:
            `list[list[Hypothesis]]`: as [`BeamSearchDecoder.decode`], in the order of the input.

        Raises:
            ValueError: as [`BeamSearchDecoder.decode`]; the message says which utterance.
        """
        if num_threads < 1:
            raise ValueError(f"num_threads is {num_threads}; expected at least 1.")
        checked = [self._check(one, f"log_probs[{index}]") for index, one in enumerate(log_probs)]
        if num_threads == 1:
            return [self._decode_checked(one) for one in checked]
        with ThreadPoolExecutor(num_threads) as pool:
            return list(pool.map(self._decode_checked, checked))

    def start(self) -> DecoderState:
        """Begin to decode a stream.

        Returns:
            `DecoderState`: the state before the first frame.

        Example:
            >>> import numpy as np
            >>> decoder = BeamSearchDecoder(Lexicon.from_words({"hi": "HH AY"}))
            >>> state = decoder.start()
            >>> for label in (16, 6, 40):  # HH, AY, SIL
            ...     partial = decoder.advance(state, np.log(np.eye(41)[[label]] * 0.9 + 0.1 / 41))
            >>> partial.text, decoder.finish(state)[0].text
            ('hi', 'hi')
        """
        state = DecoderState(self)
        state._begin(self)
        return state

    def advance(self, state: DecoderState, frames: npt.ArrayLike) -> PartialText:
        """Take in more frames of a stream.

        Args:
            state (`DecoderState`): changed in place.
            frames (`np.ndarray` of shape `(T, 41)`): the next frames, any number; as for [`BeamSearchDecoder.decode`].

        Returns:
            `PartialText`: what has been decoded so far, and how much of it is settled.

        Raises:
            ValueError: when the frames are no log-probabilities (the state stays what it was), or the state belongs to
                another decoder.
        """
        state._advance(self, *self._check(frames, "frames"))
        return state._partial(self)

    def finish(self, state: DecoderState) -> list[Hypothesis]:
        """End the sentence. The state itself stays where it is and may go on.

        Args:
            state (`DecoderState`): where the stream is.

        Returns:
            `list[Hypothesis]`: exactly what [`BeamSearchDecoder.decode`] returns for all the frames at once.
        """
        hypotheses = self._hypotheses(state)
        state._release()
        if self.lm is not None:
            self.lm.release_pages()
        return hypotheses

    def lattice(self, log_probs: npt.ArrayLike) -> Lattice:
        """Decode one utterance and keep the alternatives.

        Args:
            log_probs (`np.ndarray` of shape `(T, 41)`): as for [`BeamSearchDecoder.decode`].

        Returns:
            `Lattice`: words with times and scores, everything within `lattice_beam` of the best sentence.

        Raises:
            ValueError: as [`BeamSearchDecoder.decode`]; or when the decoder keeps no lattice.
        """
        if not self.recombine or self.num_hypotheses == 1:
            raise ValueError("Lattices need recombine=True and num_hypotheses of at least 2; see with_settings.")
        state = self.start()
        state._advance(self, *self._check(log_probs, "log_probs"))
        return read_lattice(self, state)

    def _check(self, log_probs: npt.ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
        array = check_log_probs(log_probs, len(MODEL_ORDER), name)[:, self._permutation]
        array = np.ascontiguousarray(array, dtype=np.float32)
        # Half precision rounds a confident blank to certainty, though a phoneme may still be needed there.
        skip = (array[:, 0] >= math.log(self.blank_skip_threshold)) & (self.blank_skip_threshold < 1)
        array[:, 0] -= np.float32(self.blank_penalty)
        array *= np.float32(self.acoustic_scale)
        return array, skip

    def _decode_checked(self, checked: tuple[np.ndarray, np.ndarray]) -> list[Hypothesis]:
        state = self.start()
        state._advance(self, *checked)
        return self.finish(state)

    def _take_workspace(self) -> Workspace:
        try:
            return self._workspaces.pop()
        except IndexError:
            return Workspace(self)

    def _give_back(self, workspace: Workspace) -> None:
        self._workspaces.append(workspace)

    def _hypotheses(self, state: DecoderState) -> list[Hypothesis]:
        if self._settings.lattice_beam > 0:
            sentences = read_sentences(self, state, self.num_hypotheses)
            if sentences:
                settled = [(*word, 1.0) for word in state._committed]
                return [
                    self._hypothesis(
                        settled + [(*word, share) for word, share in zip(one.words, one.confidences, strict=True)],
                        one.total, one.acoustic, one.lm,
                    )
                    for one in sentences
                ]  # fmt: skip
        ends = state._ends(self)
        result = []
        for i in range(min(len(ends.total), self.num_hypotheses)):
            words = [(*word, math.nan) for word in state._trace(int(ends.record[i]))]
            total, acoustic, lm_score = float(ends.total[i]), float(ends.acoustic[i]), float(ends.lm[i])
            result.append(self._hypothesis(words, total, acoustic, lm_score, ends.complete))
        return result

    def _hypothesis(
        self, timed: list[tuple[int, int, int, float]], total: float, acoustic: float, lm: float, complete: bool = True
    ) -> Hypothesis:
        words = [Word(self.lexicon.words[word], start, end, share) for word, start, end, share in timed]
        return Hypothesis(" ".join(word.text for word in words), total, acoustic, lm, words, complete)


_SETTINGS = tuple(name for name in inspect.signature(BeamSearchDecoder).parameters if name not in ("lexicon", "lm"))
