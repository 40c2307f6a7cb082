"""A processor that writes words: features in, labels out, and the model's scores back to sentences, from one folder."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from bit_speech.decoding import BeamSearchDecoder, CausalLMRescorer, Hypothesis, RescoringWeights
    from processing_bit.processing_bit import BITProcessor

DECODER_FOLDER = "decoder"


@dataclass(frozen=True)
class DecodedText:
    """Sentences of a batch.

    Args:
        text (`list[str]`): best sentence of every trial.
        score (`list[float]`): its score, natural logarithm.
        nbest (`list[list[Hypothesis]]`): all sentences of every trial with scores and words, best first.
        word_times (`list[list[dict]]`): `word`, `start_time` and `end_time` in seconds from the start of the trial, and
            `confidence`, for every word of the best sentence.
    """

    text: list[str]
    score: list[float]
    nbest: list[list[Hypothesis]]
    word_times: list[list[dict[str, Any]]]


class BITProcessorWithDecoder:
    """Joins a [`BITProcessor`] and a [`BeamSearchDecoder`], as `Wav2Vec2ProcessorWithLM` does for audio.

    Args:
        processor ([`BITProcessor`]): feature extractor and phoneme tokenizer.
        decoder ([`BeamSearchDecoder`]): lexicon, language model and weights, for scores in model class order.
        seconds_per_frame (`float`): time between two frames of the model's scores: 4 bins of 20 ms by default.
        rescorer (`tuple[CausalLMRescorer, RescoringWeights]`, *optional*): a second pass over every n-best list.

    Raises:
        ValueError: when the decoder expects another class order than the models give.

    Note:
        It lives in the laboratory, because a folder on the Hub must load without this package; the folder stays an
        ordinary one for the stock classes, with the decoder in its subfolder `decoder`.
    """

    def __init__(
        self,
        processor: BITProcessor,
        decoder: BeamSearchDecoder,
        seconds_per_frame: float = 0.08,
        rescorer: tuple[CausalLMRescorer, RescoringWeights] | None = None,
    ) -> None:
        if decoder.class_order != "model":
            raise ValueError(
                f"The decoder expects the class order {decoder.class_order!r}, the models give 'model': use "
                "decoder.with_settings(class_order='model')."
            )
        self.processor = processor
        self.decoder = decoder
        self.seconds_per_frame = seconds_per_frame
        self.rescorer = rescorer

    @classmethod
    def from_pretrained(
        cls, name: str | os.PathLike[str], *, rescore: bool = True, rescorer_settings: dict[str, Any] | None = None
    ) -> BITProcessorWithDecoder:
        """Load processor, decoder and, when one was saved, the second pass.

        Args:
            name (`str`): folder or Hub id of model and processor, with the decoder in the subfolder `decoder`.
            rescore (`bool`): load the causal language model of the second pass, if the decoder names one.
            rescorer_settings (`dict`, *optional*): arguments of `CausalLMRescorer.from_pretrained`, such as `device`.

        Returns:
            `BITProcessorWithDecoder`: ready to use.

        Raises:
            FileNotFoundError: when there is no decoder.
            ValueError: when a file is damaged or of another kind.
        """
        from transformers import AutoConfig

        import bit_speech  # noqa: F401  (registers the models with the Auto classes)
        from bit_speech.decoding import BeamSearchDecoder
        from bit_speech.decoding.saving import load_rescoring
        from processing_bit.processing_bit import BITProcessor

        decoder = BeamSearchDecoder.from_pretrained(name, subfolder=DECODER_FOLDER)
        rescorer = load_rescoring(name, DECODER_FOLDER, **(rescorer_settings or {})) if rescore else None
        processor = BITProcessor.from_pretrained(name)
        seconds = AutoConfig.from_pretrained(name).patch_stride * processor.feature_extractor.bin_size_ms / 1000
        return cls(processor, decoder, seconds, rescorer)

    def save_pretrained(self, folder: str | os.PathLike[str]) -> Path:
        """Save processor and decoder beside the model.

        Args:
            folder (`str`): the model's folder; it may hold anything else.

        Returns:
            `Path`: the folder. The second pass is saved by the name of its model.

        Raises:
            ValueError: when the second pass has a model without a name, or `decoder` in the folder is something else.
        """
        from bit_speech.decoding.saving import save_decoder

        folder = Path(folder)
        rescoring = None
        if self.rescorer is not None:
            scorer, weights = self.rescorer
            names = ("text_form", "end_punctuation", "score_end")
            rescoring = {"model": scorer.model.name_or_path, "weights": weights.to_dict()}
            rescoring |= {name: getattr(scorer, name) for name in names}
            if not rescoring["model"]:
                raise ValueError("The rescorer's model has no name; save it first and load it from there.")
        self.processor.save_pretrained(folder)
        save_decoder(self.decoder, folder / DECODER_FOLDER, rescoring)
        return folder

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Prepare recordings and labels, see [`BITProcessor.__call__`].

        Args:
            *args: as for the processor.
            **kwargs: as for the processor.

        Returns:
            `BatchFeature`: model inputs.
        """
        return self.processor(*args, **kwargs)

    def batch_decode(self, logits: Any, frame_mask: Any | None = None, num_threads: int = 1) -> DecodedText:
        """Turn a model's scores into sentences.

        Args:
            logits (`torch.Tensor` or `np.ndarray` of shape `(B, P, 41)`, or a list of `(P, 41)`): logits or natural-log
                probabilities, model class order.
            frame_mask (`torch.Tensor` or `np.ndarray` of shape `(B, P)`, *optional*): True = real frame, as the models
                return it. Frames after a shorter trial's end must not be read.
            num_threads (`int`): trials decoded at a time.

        Returns:
            `DecodedText`: text, scores, n-best lists and word times.

        Raises:
            ValueError: when shapes do not fit or scores are not finite.
        """
        from bit_speech.decoding import rescore

        rows = [_log_softmax(row) for row in _rows(logits, frame_mask)]
        nbest = self.decoder.decode_batch(rows, num_threads)
        if self.rescorer is not None:
            nbest = [rescore(hypotheses, *self.rescorer) for hypotheses in nbest]
        best = [hypotheses[0] for hypotheses in nbest]
        times = [
            [
                {
                    "word": word.text,
                    "start_time": word.start_frame * self.seconds_per_frame,
                    "end_time": word.end_frame * self.seconds_per_frame,
                    "confidence": word.confidence,
                }
                for word in hypothesis.words
            ]
            for hypothesis in best
        ]
        return DecodedText([one.text for one in best], [one.score for one in best], nbest, times)

    def decode(self, logits: Any) -> DecodedText:
        """Turn the scores of one trial into sentences.

        Args:
            logits (`torch.Tensor` or `np.ndarray` of shape `(P, 41)`): see [`BITProcessorWithDecoder.batch_decode`].

        Returns:
            `DecodedText`: of a batch of one.
        """
        return self.batch_decode([logits])


def _as_array(values: Any) -> np.ndarray:
    return np.asarray(values.detach().float().cpu() if hasattr(values, "detach") else values)


def _rows(logits: Any, frame_mask: Any | None) -> list[np.ndarray]:
    rows = [_as_array(row) for row in logits]
    for row in rows:
        if row.ndim != 2:
            raise ValueError(f"The scores of a trial have shape {row.shape}; expected (frames, classes).")
    if frame_mask is None:
        return rows
    masks = [_as_array(mask).astype(bool) for mask in frame_mask]
    if [len(mask) for mask in masks] != [len(row) for row in rows]:
        raise ValueError("frame_mask and logits have different shapes: give one mask value per frame.")
    return [row[mask] for row, mask in zip(rows, masks, strict=True)]


def _log_softmax(scores: np.ndarray) -> np.ndarray:
    scores = scores.astype(np.float64)
    if len(scores) and not np.isfinite(scores.max(axis=1)).all():
        raise ValueError("The model's scores are not finite; its output is broken.")
    return scores - np.logaddexp.reduce(scores, axis=1, keepdims=True)
