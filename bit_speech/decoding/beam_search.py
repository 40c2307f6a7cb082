"""Words from phoneme probabilities: CTC prefix beam search over a lexicon trie with an n-gram language model."""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from configuration_bit.phoneme_inventory_bit import MODEL_ORDER, class_permutation

from .beam_kernels import (
    BLANK,
    CONTEXT,
    DONE,
    HISTORY,
    LABEL,
    LM,
    MORE_HISTORIES,
    MORE_HYPOTHESES,
    NODE,
    NUM_HISTORIES,
    NUM_RECORDS,
    RAW,
    RECORD,
    STATE,
    TOTAL,
    WEIGHTED,
    Beam,
    Histories,
    SearchSettings,
    advance,
    fill_history_table,
    fill_look_ahead,
    finish,
)
from .greedy import check_log_probs
from .language_model import NGramLM
from .lexicon import Lexicon
from .lm_kernels import LMArrays


@dataclass(frozen=True)
class Word:
    """A decoded word.

    Args:
        text (`str`): the word.
        start_frame (`int`): frame of its first phoneme.
        end_frame (`int`): one past the last frame of its last phoneme.
        confidence (`float`): share of the n-best probability whose hypotheses have this word at overlapping frames.
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
        score (`float`): `acoustic_score + lm_weight * lm_score + word_score * number of words`.
        acoustic_score (`float`): CTC score of all alignments (or of the best, when merging by maximum), after the blank
            penalty and the acoustic scale, with what missing SILs cost.
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
        num_hypotheses (`int`): how many sentences to return at most.
        missing_sil_score (`float`): added when a word is not followed by SIL; -inf forbids it.
        unknown_word_score (`float`, optional): added to the `<unk>` score of lexicon words that the language model does
            not know; None drops such words.
        blank_skip_threshold (`float`): frames whose blank probability is at least this extend nothing. What is lost
            then had a probability below one minus this value in that frame. 1.0 skips only certain blanks: on
            over-confident posteriors 0.9999 cost a tenth of the words that were right otherwise, and saved little.
        merge (`str`): `"log_add"` sums alignments, `"max"` keeps the best one.
        recombine (`bool`): of hypotheses that differ only in words the language model no longer sees, keep the best
            alone: a narrower beam does, but the n-best list gets poorer.
        class_order (`str`): order of the 41 classes of the input: `"model"`, `"lm"` or `"tf24"`.

    Raises:
        ValueError: when a setting makes no sense; the message names it.

    Note:
        Labels have a SIL after every word, the last one too; SIL before the first word and repeated SIL cost nothing.
        A score does not depend on threads or on what was decoded before.

    Example:
        >>> import numpy as np
        >>> lexicon = Lexicon.from_words({"a": "AH", "be": "B IY"})
        >>> decoder = BeamSearchDecoder(lexicon, None)
        >>> path = [0, 7, 0, 18, 40, 0]  # blank B blank IY SIL blank
        >>> log_probs = np.log(np.eye(41)[path] * 0.9 + 0.1 / 41)
        >>> decoder.decode(log_probs)[0].text
        'be'
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
        beam_threshold: float = 25.0,
        num_hypotheses: int = 10,
        missing_sil_score: float = -4.0,
        unknown_word_score: float | None = 0.0,
        blank_skip_threshold: float = 1.0,
        merge: str = "log_add",
        recombine: bool = False,
        class_order: str = "model",
    ) -> None:
        for name, value, low in (("beam_size", beam_size, 1), ("num_hypotheses", num_hypotheses, 1)):
            if int(value) != value or value < low:
                raise ValueError(f"{name} is {value}; expected a whole number of at least {low}.")
        for name, number in (("lm_weight", lm_weight), ("word_score", word_score), ("blank_penalty", blank_penalty)):
            if not math.isfinite(number):
                raise ValueError(f"{name} is {number}; expected a finite number.")
        if lm_weight < 0:
            raise ValueError(f"lm_weight is {lm_weight}; expected zero or more.")
        if not acoustic_scale > 0 or not math.isfinite(acoustic_scale):
            raise ValueError(f"acoustic_scale is {acoustic_scale}; expected a positive number.")
        if not beam_threshold > 0:
            raise ValueError(f"beam_threshold is {beam_threshold}; expected a positive number (inf keeps all).")
        if math.isnan(missing_sil_score) or missing_sil_score > 0:
            raise ValueError(f"missing_sil_score is {missing_sil_score}; expected zero or less (-inf forbids).")
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
        self.unknown_word_score = None if unknown_word_score is None else float(unknown_word_score)
        self.blank_skip_threshold = float(blank_skip_threshold)
        self.merge = merge
        self.recombine = bool(recombine)
        self.class_order = class_order
        self._permutation = np.array(class_permutation(class_order, "model"))
        self._trie = lexicon.trie()
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

    def _prepare(self) -> None:
        """Link the lexicon's words to the language model and fill the look-ahead."""
        num_words = len(self.lexicon)
        unigrams = np.zeros(num_words, dtype=np.float64)
        self._word_ids = np.zeros(num_words, dtype=np.int32)
        self._lm_arrays = _no_lm() if self.lm is None else self.lm.arrays
        if self.lm is not None:
            self._word_ids = np.array([self.lm.word_index(word) for word in self.lexicon.words], dtype=np.int32)
            if self.unknown_word_score is None:
                self._word_ids[self._word_ids == self.lm.unk] = -1
                if (self._word_ids < 0).all():
                    raise ValueError(
                        f"None of the {num_words} words of the lexicon is in the language model (for example "
                        f"{self.lexicon.words[0]!r}); check upper and lower case."
                    )
            unigrams = self._lm_arrays.probs[1 + np.maximum(self._word_ids, 0)].astype(np.float64)
        scores = self.lm_weight * unigrams + self.word_score
        if self.lm is not None and self.unknown_word_score is not None:
            scores[self._word_ids == self.lm.unk] += self.unknown_word_score
        scores[self._word_ids < 0] = -np.inf
        self._look_ahead = np.empty(len(self._trie.label), dtype=np.float64)
        fill_look_ahead(self._trie, scores, self._look_ahead)
        self._settings = SearchSettings(
            beam_size=self.beam_size,
            beam_threshold=self.beam_threshold,
            lm_weight=self.lm_weight,
            word_score=self.word_score,
            unknown_word_score=self.unknown_word_score or 0.0,
            missing_sil_score=self.missing_sil_score,
            log_add=self.merge == "log_add",
            recombine=self.recombine,
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

    def _check(self, log_probs: npt.ArrayLike, name: str) -> tuple[np.ndarray, np.ndarray]:
        array = check_log_probs(log_probs, len(MODEL_ORDER), name)[:, self._permutation]
        array = np.ascontiguousarray(array, dtype=np.float32)
        skip = array[:, 0] >= math.log(self.blank_skip_threshold)
        array[:, 0] -= np.float32(self.blank_penalty)
        array *= np.float32(self.acoustic_scale)
        return array, skip

    def _decode_checked(self, checked: tuple[np.ndarray, np.ndarray]) -> list[Hypothesis]:
        search = _Search(self)
        search.advance(*checked)
        return search.hypotheses()

    def _trace(self, records: np.ndarray, record: int) -> list[tuple[str, int, int]]:
        words = []
        while record >= 0:
            previous, word, start, last = records[record].tolist()
            words.append((self.lexicon.words[word], start, last + 1))
            record = previous
        words.reverse()
        return words


_SETTINGS = tuple(name for name in inspect.signature(BeamSearchDecoder).parameters if name not in ("lexicon", "lm"))


class _Search:
    """One utterance on its way through the decoder: the state and its tables."""

    def __init__(self, decoder: BeamSearchDecoder) -> None:
        self.decoder = decoder
        self.settings = decoder._settings
        room = 1 << max(12, (8 * min(decoder.beam_size, 4096)).bit_length())
        self.num_hypotheses = 1
        self.beam = _new_beam(min(decoder.beam_size, room))
        self.beam.links[0] = (0, 0, 0, -1, -1, -1)
        lm = float(decoder._look_ahead[0])
        self.beam.scores[0] = (0.0, -math.inf, lm, lm, 0.0)
        links = np.empty((4096, 3), dtype=np.int32)
        links[0] = (-1, -1, 0 if decoder.lm is None else decoder.lm.start_state)
        self.histories = Histories(
            links=links,
            scores=np.zeros((4096, 2), dtype=np.float64),
            table=np.full(8192, -1, dtype=np.int32),
            records=np.empty((4096, 4), dtype=np.int32),
            counts=np.array([1, 0, 0], dtype=np.int64),
        )
        if self.settings.recombine:
            self.beam.links[0, CONTEXT] = links[0, STATE]
        self._make_room(room)

    def _make_room(self, room: int) -> None:
        self._room = room
        self._new = _new_beam(room)
        self._table = np.empty(4 * room, dtype=np.int32)
        self._stamps = np.zeros(4 * room + 1, dtype=np.int64)
        self._ranks = np.empty(room, dtype=np.float64)
        if len(self.beam.links) < min(self.settings.beam_size, room):
            self.beam = _grown_beam(self.beam, min(self.settings.beam_size, room))

    def advance(self, scores: np.ndarray, skip: np.ndarray) -> None:
        """Take in a chunk of frames."""
        decoder, status, frame = self.decoder, -1, 0
        while status != DONE:
            status, frame, self.num_hypotheses = advance(
                scores, skip, frame, decoder._trie, decoder._look_ahead, decoder._lm_arrays, decoder._word_ids,
                self.settings, self.beam, self.num_hypotheses, self._new, self._table, self._stamps, self._ranks,
                self.histories,
            )  # fmt: skip
            if status == MORE_HYPOTHESES:
                self._make_room(2 * self._room)
            elif status == MORE_HISTORIES:
                self._grow_histories(2 * len(self.histories.links))
            elif status != DONE:
                self._grow_records(2 * len(self.histories.records))

    def _grow_histories(self, size: int) -> None:
        old = self.histories
        count = int(old.counts[NUM_HISTORIES])
        links, scores = np.empty((size, 3), dtype=np.int32), np.empty((size, 2), dtype=np.float64)
        links[:count], scores[:count] = old.links[:count], old.scores[:count]
        table = np.full(1 << (2 * size - 1).bit_length(), -1, dtype=np.int32)
        fill_history_table(links, table, count)
        self.histories = old._replace(links=links, scores=scores, table=table)

    def _grow_records(self, size: int) -> None:
        count = int(self.histories.counts[NUM_RECORDS])
        records = np.empty((size, 4), dtype=np.int32)
        records[:count] = self.histories.records[:count]
        self.histories = self.histories._replace(records=records)

    def hypotheses(self) -> list[Hypothesis]:
        """End the sentence here."""
        decoder, beam = self.decoder, self.beam
        nodes = beam.links[: self.num_hypotheses, NODE]
        most = self.num_hypotheses + int((decoder._trie.here[nodes] - decoder._trie.begin[nodes]).sum())
        self._grow_histories(int(self.histories.counts[NUM_HISTORIES]) + most)
        self._grow_records(int(self.histories.counts[NUM_RECORDS]) + most)
        ends = _new_beam(most)
        place = np.full(len(self.histories.links), -1, dtype=np.int32)
        count = finish(
            decoder._trie, decoder._lm_arrays, decoder._word_ids, self.settings, beam, self.num_hypotheses,
            self.histories, place, ends,
        )  # fmt: skip
        complete = count > 0
        if complete:
            total, acoustic = ends.scores[:count, TOTAL], ends.scores[:count, BLANK]
            lm, records = ends.scores[:count, LM], ends.links[:count, RECORD]
        else:
            # No hypothesis ends with a whole word: what was complete before the word in progress.
            best = int(np.argmax(beam.scores[: self.num_hypotheses, TOTAL])) if self.num_hypotheses else 0
            history = beam.links[best, HISTORY]
            acoustic = np.logaddexp(*beam.scores[[best], : LABEL + 1].T)
            if not self.num_hypotheses:
                history, acoustic = 0, np.array([-math.inf])
            lm = self.histories.scores[[history], RAW]
            total = acoustic + self.histories.scores[[history], WEIGHTED]
            records = beam.links[[best], RECORD] if self.num_hypotheses else np.array([-1])
        order = np.argsort(-total, kind="stable")[: decoder.num_hypotheses]
        sentences = [decoder._trace(self.histories.records, int(records[i])) for i in order]
        with np.errstate(invalid="ignore"):
            weights = np.nan_to_num(np.exp(total[order] - total[order[0]]), nan=1.0)
        confidences = _confidences(sentences, weights / weights.sum())
        result = []
        for i, sentence, shares in zip(order, sentences, confidences, strict=True):
            words = [Word(text, start, end, share) for (text, start, end), share in zip(sentence, shares, strict=True)]
            text = " ".join(word.text for word in words)
            result.append(Hypothesis(text, float(total[i]), float(acoustic[i]), float(lm[i]), words, complete))
        return result


def _new_beam(size: int) -> Beam:
    return Beam(np.empty((size, 6), dtype=np.int32), np.empty((size, 5), dtype=np.float64))


def _grown_beam(beam: Beam, size: int) -> Beam:
    grown = _new_beam(size)
    grown.links[: len(beam.links)], grown.scores[: len(beam.links)] = beam.links, beam.scores
    return grown


def _confidences(sentences: list[list[tuple[str, int, int]]], posterior: np.ndarray) -> list[list[float]]:
    """Share of the posterior in which each word appears at overlapping frames."""
    where: dict[str, list[tuple[int, int, int]]] = {}
    for index, sentence in enumerate(sentences):
        for text, start, end in sentence:
            where.setdefault(text, []).append((index, start, end))
    result = []
    for sentence in sentences:
        shares = []
        for text, start, end in sentence:
            agreeing = {index for index, low, high in where[text] if low < end and start < high}
            shares.append(min(1.0, float(sum(posterior[index] for index in agreeing))))
        result.append(shares)
    return result


def _no_lm() -> LMArrays:
    arrays = LMArrays(
        words=np.zeros(1, dtype=np.int32),
        probs=np.zeros(1, dtype=np.float32),
        next_state=np.zeros(1, dtype=np.int32),
        backoffs=np.zeros(1, dtype=np.float32),
        suffix=np.zeros(1, dtype=np.int32),
        first_child=np.ones(2, dtype=np.int64),
    )
    for array in arrays:
        array.flags.writeable = False
    return arrays
