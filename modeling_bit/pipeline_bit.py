"""`pipeline("neural-to-text")`: a recording in, text out, from any saved folder that can read text out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from transformers import Pipeline

SIGNAL: tuple[str, ...] = (
    "participant_id",
    "session_id",
    "block_index",
    "statistics",
    "feature_kinds",
    "channel_areas",
)
MAX_NEW_TOKENS = 100
NUM_BEAMS = 5


def write_sentences(
    model: Any, processor: Any, batch: Any, num_best: int = 1, num_beams: int | None = None, **generation: Any
) -> list[list[dict[str, Any]]]:
    """Let an end-to-end model write.

    Args:
        model ([`BITForConditionalGeneration`]): the model.
        processor ([`BITLLMProcessor`]): its own.
        batch (`Mapping`): what `processor.for_generation` makes of B trials, on the model's device.
        num_best (`int`): sentences of each trial.
        num_beams (`int`, *optional*): 5 when left out, at least `num_best`; 1 when sampling. 1 without sampling is
            greedy.
        **generation: passed to `generate`.

    Returns:
        `list[list[dict]]`: of each trial the sentences, best first: `text`, and with beams `score`, the log-probability
        per token as `generate` gives it.
    """
    if num_beams is None:
        num_beams = 1 if generation.get("do_sample") else max(NUM_BEAMS, num_best)
    settings: dict[str, Any] = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False} | generation
    with torch.inference_mode():
        found = model.generate(
            **batch,
            **settings,
            num_beams=num_beams,
            num_return_sequences=num_best,
            pad_token_id=processor.pad_token_id,
            return_dict_in_generate=True,
            output_scores=num_beams > 1,
        )
    texts = processor.decode_answers(found.sequences, batch["input_ids"].shape[1])
    sentences: list[dict[str, Any]] = [{"text": text} for text in texts]
    if num_beams > 1:  # greedy search and sampling keep no score of the sentence
        for sentence, score in zip(sentences, found.sequences_scores.tolist()):
            sentence["score"] = score
    return [sentences[start : start + num_best] for start in range(0, len(sentences), num_best)]


class NeuralToTextPipeline(Pipeline):
    """Reads trials with a saved model and its processor.

    An end-to-end decoder writes sentences; a CTC model's best classes become phonemes or letters. Where bit-speech is
    installed, `pipeline("neural-to-text")` is its own, which also writes words with the decoder beside a CTC model,
    tells when they were said, and reads files.

    Args:
        *args: as in transformers; made by `pipeline("neural-to-text", model=folder)`.
        **kwargs: as in transformers. Calls take a trial `(T, C)`, a mapping with the columns of a `Trial`, or a list of
            them; the feature extractor's arguments (`participant_id`, `session_id`, `block_index`, `statistics`,
            `feature_kinds`, `channel_areas`), which beat the mapping's; and, for end-to-end models, `num_best`,
            `num_beams` and whatever `generate` takes.

    Note:
        Trials are read one by one. With block normalisation each trial is then its own block: pass `statistics`.

    Example:
        ```python
        >>> NeuralToTextPipeline._load_processor
        True

        ```
    """

    _load_processor = True
    _load_image_processor = False
    _load_video_processor = False
    _load_feature_extractor = False
    _load_tokenizer = False

    def _sanitize_parameters(self, **settings: Any) -> tuple[dict, dict, dict]:
        signal = {key: settings.pop(key) for key in SIGNAL if key in settings}
        return signal, settings, {}

    def preprocess(self, trial: Any, **signal: Any) -> dict[str, Any]:
        """Make model inputs of one trial.

        Args:
            trial (array-like of shape `(T, C)`, or a mapping): raw features, or the columns of a `Trial`.
            **signal: passed to the feature extractor.

        Returns:
            `dict`: a batch of one.
        """
        if isinstance(trial, Mapping):
            signal = {name: trial[name] for name in SIGNAL if trial.get(name) is not None} | signal
            trial = trial["features"]
        make = self.processor.for_generation if self.model.can_generate() else self.processor
        return dict(make([trial], return_tensors="pt", **signal))

    def _forward(self, inputs: dict[str, Any], **generation: Any) -> dict[str, Any]:
        if self.model.can_generate():
            return {"sentences": write_sentences(self.model, self.processor, inputs, **generation)[0]}
        output = self.model(**inputs)
        return {"classes": output.logits.argmax(dim=-1), "frame_mask": output.frame_mask}

    def postprocess(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Make text of what the model gave.

        Args:
            outputs (`dict`): sentences, or best classes.

        Returns:
            `dict`: `text`; of an end-to-end model perhaps its `score`, and `nbest` if several sentences were asked for.
        """
        if "classes" in outputs:
            classes, mask = outputs["classes"].tolist(), outputs["frame_mask"].tolist()
            return {"text": self.processor.batch_decode_ctc(classes, mask)[0]}
        sentences = outputs["sentences"]
        return {**sentences[0], **({"nbest": sentences} if len(sentences) > 1 else {})}
