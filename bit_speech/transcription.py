"""Recordings in, sentences out: a trained model, its processor and its decoder behind one call."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bit_speech.scoring import load_decoder, load_lm

if TYPE_CHECKING:
    import numpy as np

    from bit_speech.decoding import Hypothesis, PartialText

PLACE = ("participant_id", "session_id", "block_index", "trial_index")
_MAX_NEW_TOKENS = 100
_NUM_BEAMS = 5
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
        Trials are read one by one. With block normalisation the statistics of a block are those of all its trials that
        are given, as in the benchmarks' own preparation; no label is used.
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
        from transformers import AutoConfig

        import bit_speech  # noqa: F401  (registers the models with the Auto classes)

        device = "cuda" if torch.cuda.is_available() else "cpu"
        adapters = (Path(name) / "adapter_config.json").is_file()
        if adapters or AutoConfig.from_pretrained(name).model_type == "bit_speech_llm":
            if lexicon or lm:
                raise ValueError(
                    f"{name} is an end-to-end model, which writes words by itself: drop --lexicon and --lm"
                )
            from bit_speech.training import load_end_to_end
            from processing_bit.processing_bit_llm import BITLLMProcessor

            return cls(load_end_to_end(name).to(device), BITLLMProcessor.from_pretrained(name))
        return cls._of_ctc(name, device, lexicon, lm, settings)

    @classmethod
    def _of_ctc(
        cls, name: str | os.PathLike[str], device: str, lexicon: str | None, lm: str | None, settings: dict[str, Any]
    ) -> Transcriber:
        from transformers import AutoModelForCTC, AutoProcessor
        from transformers.utils import cached_file

        from bit_speech.processor_with_decoder import DECODER_FOLDER, BITProcessorWithDecoder

        model = AutoModelForCTC.from_pretrained(name).to(device)
        processor = AutoProcessor.from_pretrained(name)
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
        decoder = load_decoder(lexicon, lm, **settings)
        if decoder is None:
            saved = cached_file(
                name, f"{DECODER_FOLDER}/decoder_config.json", _raise_exceptions_for_missing_entries=False
            )
            if saved is None:
                return cls(model, processor)
            joined = BITProcessorWithDecoder.from_pretrained(name)
            if joined.rescorer is not None:
                settings.pop("num_hypotheses", None)  # a second pass chooses among the sentences it was tuned on
            joined.decoder = joined.decoder.with_settings(**settings)
        else:
            joined = BITProcessorWithDecoder(processor, decoder)
        return cls(model, processor, lambda scores: joined.batch_decode([scores]).nbest[0], joined.decoder)

    @property
    def writes(self) -> str:
        """What comes out: `"words"`, `"phonemes"` or `"letters"` (`str`)."""
        if self.model.can_generate() or self.words is not None:
            return "words"
        return "phonemes" if hasattr(self.processor.tokenizer, "encode_phonemes") else "letters"

    def transcribe(
        self,
        trials: Sequence[Mapping[str, Any]],
        num_best: int = 1,
        on_partial: Callable[[float, PartialText], None] | None = None,
        num_beams: int = _NUM_BEAMS,
    ) -> Iterator[Transcription]:
        """Write the sentence of every trial.

        Args:
            trials (sequence of mappings): `features` `(T, C)`, and, as far as the processor needs them, the other
                columns of a `Trial`; perhaps `statistics`, a `(mean, std)` pair to z-score with instead of those of the
                session or the block. `text` is passed on as the reference and read by nothing else.
            num_best (`int`): sentences in `nbest`; 1 leaves the list out.
            on_partial (`Callable`, *optional*): called with the seconds decoded so far and the `PartialText`, each time
                the text changes. Needs a word decoder.
            num_beams (`int`): beams of an end-to-end model, at least `num_best`; 1 is greedy.

        Yields:
            `Transcription`: in the order of the trials, each as soon as it is there.

        Raises:
            ValueError: when a trial cannot be read, naming it; or when there is nothing that could give partial texts.
        """
        if on_partial is not None and self.search is None:
            raise ValueError("sentences appear word by word only with a word decoder: a phoneme model with a lexicon")
        statistics: dict[Any, Any] = {}
        for number, trial in enumerate(trials):
            place = {key: _plain(trial[key]) for key in PLACE if trial.get(key) is not None}
            try:
                signal = self._signal(trial, trials, statistics)
                found: dict[str, Any] = {"text": ""}  # of a trial without a frame
                if len(trial["features"]) >= self.min_bins:
                    if self.model.can_generate():
                        found = self._generate(signal, num_best, max(num_beams, num_best))
                    else:
                        found = self._decode(signal, num_best, on_partial)
            except ValueError as error:
                name = ", ".join(f"{key} {value}" for key, value in place.items()) or f"number {number}"
                raise ValueError(f"trial {name}: {error}") from error
            yield Transcription(**found, place=place, reference=trial.get("text"))

    def log_probs(self, batch: Any) -> np.ndarray:
        """Run a CTC model on one trial.

        Args:
            batch (`BatchFeature`): what the processor makes of the trial.

        Returns:
            `np.ndarray` of shape `(P, V)`: float32, natural-log probabilities of every frame.
        """
        import torch

        with torch.inference_mode():
            return self.model(**batch.to(self.model.device)).logits[0].float().log_softmax(dim=-1).cpu().numpy()

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

    def _decode(
        self, signal: dict[str, Any], num_best: int, on_partial: Callable[[float, PartialText], None] | None
    ) -> dict[str, Any]:
        scores = self.log_probs(self.processor(signal.pop("features"), return_tensors="pt", **signal))
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

    def _generate(self, signal: dict[str, Any], num_best: int, num_beams: int) -> dict[str, Any]:
        import torch

        batch = self.processor.for_generation([signal.pop("features")], return_tensors="pt", **signal)
        batch = batch.to(self.model.device)
        with torch.inference_mode():
            found = self.model.generate(
                **batch,
                max_new_tokens=_MAX_NEW_TOKENS,
                do_sample=False,
                num_beams=num_beams,
                num_return_sequences=num_best,
                pad_token_id=self.processor.pad_token_id,
                return_dict_in_generate=True,
                output_scores=True,
            )
        texts = self.processor.decode_answers(found.sequences, batch["input_ids"].shape[1])
        if num_beams == 1:
            return {"text": texts[0]}  # greedy search keeps no score of the sentence
        scores = found.sequences_scores.tolist()
        nbest = [{"text": text, "score": score} for text, score in zip(texts, scores)]
        return {"text": texts[0], "score": scores[0], "nbest": nbest if num_best > 1 else []}


def _block(trial: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(trial.get(key) for key in PLACE[:3])


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value
