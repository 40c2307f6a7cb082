"""`pipeline("neural-to-text")`: a recording in, text out, from any saved folder that can read text out."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Pipeline

_SIGNAL = ("participant_id", "session_id", "block_index", "statistics", "feature_kinds", "channel_areas")


class NeuralToTextPipeline(Pipeline):
    """Reads trials with a saved model and its processor.

    An end-to-end decoder writes sentences; a CTC model's best classes become phonemes or letters (for words, search
    with a language model: `bit_speech.decoding`).

    Args:
        *args: as in transformers; made by `pipeline("neural-to-text", model=folder)`.
        **kwargs: as in transformers. Calls take a trial `(T, C)` or a list of them, the feature extractor's arguments
            (`participant_id`, `session_id`, `block_index`, `statistics`, `feature_kinds`, `channel_areas`), and those
            of `generate`.

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
        signal = {key: settings.pop(key) for key in _SIGNAL if key in settings}
        return signal, settings, {}

    def preprocess(self, trial: Any, **signal: Any) -> dict[str, Any]:
        """Make model inputs of one trial.

        Args:
            trial (array-like of shape `(T, C)`): raw features.
            **signal: passed to the feature extractor.

        Returns:
            `dict`: a batch of one.
        """
        make = self.processor.for_generation if self.model.can_generate() else self.processor
        return dict(make([trial], return_tensors="pt", **signal))

    def _forward(self, inputs: dict[str, Any], **generation: Any) -> dict[str, Any]:
        if not self.model.can_generate():
            output = self.model(**inputs)
            return {"classes": output.logits.argmax(dim=-1), "frame_mask": output.frame_mask}
        settings = {"max_new_tokens": 25, "do_sample": False, "pad_token_id": self.processor.pad_token_id} | generation
        return {"ids": self.model.generate(**inputs, **settings)[:, inputs["input_ids"].shape[1] :]}

    def postprocess(self, outputs: dict[str, torch.Tensor]) -> Any:
        """Make text of what the model gave.

        Args:
            outputs (`dict[str, torch.Tensor]`): generated tokens, or best classes.

        Returns:
            `dict[str, str]` with `text`, or a list of them if several sentences were asked for.
        """
        if "classes" in outputs:
            texts = self.processor.batch_decode_ctc(outputs["classes"].tolist(), outputs["frame_mask"].tolist())
        else:
            texts = self.processor.decode_answers(outputs["ids"])
        found = [{"text": text} for text in texts]
        return found[0] if len(found) == 1 else found
