"""`pipeline("neural-to-text")` where this package is installed: recordings from anywhere in, words out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

import datasets
import numpy as np

from bit_speech.data import TrialReader, read_trial_file
from bit_speech.transcription import Transcriber, Transcription
from modeling_bit.pipeline_bit import SIGNAL
from modeling_bit.pipeline_bit import NeuralToTextPipeline as PublishedPipeline

_NUM_BEST = 10


class NeuralToTextPipeline(PublishedPipeline):
    """Reads trials with a saved model, its processor and its decoder.

    Args:
        *args: as in transformers; made by `pipeline("neural-to-text", model=folder)`.
        lexicon (`str`, *optional*): `word<TAB>phonemes` file, or `"cmudict"`, for a phoneme model, instead of the
            decoder that is saved beside it.
        lm (`str`, *optional*): word n-gram model, with `lexicon` or for a model of letters.
        **kwargs: as in transformers, and any setting of a call.

    Example:
        ```python
        >>> from transformers import pipeline
        >>> import bit_speech
        >>> from bit_speech.sample_checkpoints import sample_trials
        >>> read = pipeline("neural-to-text", model=str(bit_speech.sample_checkpoint("sim-ctc")))
        >>> found = read(sample_trials("sim-ctc", 1), num_best=3, return_timestamps=True)
        >>> sorted(found[0])
        ['chunks', 'nbest', 'score', 'text']

        ```
    """

    def __init__(self, *args: Any, lexicon: str | None = None, lm: str | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.model.can_generate() and (lexicon or lm):
            raise ValueError("An end-to-end model writes words by itself: leave `lexicon` and `lm` out.")
        self._word_files = {"lexicon": lexicon, "lm": lm}
        self._lists_of = 0
        self._transcriber: Transcriber | None = None

    def __call__(
        self,
        inputs: Any,
        *,
        num_best: int | None = None,
        return_timestamps: bool | None = None,
        batch_size: int | None = None,
        field: str | None = None,
        **settings: Any,
    ) -> dict[str, Any] | list[Any] | Iterator[Any]:
        """Write the sentences of recordings.

        Args:
            inputs: one trial or many. A trial is an array `(T, C)`, a mapping with the columns of a `Trial`, or the
                path of a `.npy`, `.npz`, `.h5`, `.hdf5` or `.nwb` file (see `bit_speech.data.read_trial_file`). Many
                are a list, a `datasets.Dataset`, an array `(B, T, C)`, or a generator.
            num_best (`int`, defaults to 1): sentences in `nbest`; 1 leaves the list out.
            return_timestamps (`bool` or `"word"`, defaults to False): give `chunks`, for a model with a word decoder.
            batch_size (`int`, defaults to 1): trials that the network reads at a time.
            field (`str`, *optional*): what files call the features.
            **settings: `participant_id`, `session_id`, `block_index`, `statistics`, `feature_kinds` and
                `channel_areas` of all trials, which beat the trials' own; for end-to-end models also `num_beams`
                (defaults to 5) and whatever `generate` takes.

        Returns:
            `dict`: `text` (words; phonemes or letters when there is no word decoder); `score`, its natural logarithm as
            far as the model gives one; perhaps `nbest`, a list of `text` and `score`, best first; perhaps `chunks`, a
            list of `text`, `timestamp` (start and end in seconds) and `confidence` of every word. For many trials a
            list of them, for a generator an iterator. In place of a file with several trials stands their list.

        Raises:
            ValueError: when a trial cannot be read, naming it, or a setting does not go with the model.
            FileNotFoundError: when there is no such file.

        Note:
            With block normalisation the statistics of a block are those of all its trials in one list; a trial that
            comes alone is its own block unless `statistics` are given.
        """
        settings = {**self._preprocess_params, **self._forward_params, **settings}
        for name, value in (
            ("num_best", num_best),
            ("return_timestamps", return_timestamps),
            ("batch_size", batch_size),
            ("field", field),
        ):
            if value is not None:
                settings[name] = value
        if isinstance(inputs, Iterator):
            return (self(one, **settings) for one in inputs)
        one = _is_one(inputs)
        found = self._transcribe([inputs] if one else inputs, settings)
        return found[0] if one else found

    def _transcribe(self, inputs: Sequence[Any], settings: dict[str, Any]) -> list[Any]:
        signal = {name: settings.pop(name) for name in SIGNAL if name in settings}
        field, timestamps = settings.pop("field", None), settings.pop("return_timestamps", False)
        if timestamps not in (True, False, "word"):
            raise ValueError(f"return_timestamps is {timestamps!r}; give True or 'word' for the times of words")
        settings.setdefault("batch_size", self._batch_size or 1)
        transcriber = self._with_lists(settings.get("num_best", 1))
        if timestamps and (transcriber.words is None or self.model.can_generate()):
            raise ValueError("The model has no word decoder, so it knows no times of words: drop return_timestamps.")
        if isinstance(inputs, datasets.Dataset):
            trials: Sequence[Any] = _Rows(TrialReader(inputs), signal)
            counts = [1] * len(trials)
        else:
            groups = [list(_trials(one, field)) for one in inputs]
            trials = [trial | signal for group in groups for trial in group]
            counts = [len(group) for group in groups]
        found = (_as_dict(one, bool(timestamps)) for one in transcriber.transcribe(trials, **settings))
        return [next(found) if count == 1 else list(islice(found, count)) for count in counts]

    def _with_lists(self, num_best: int) -> Transcriber:
        """A transcriber that keeps as many sentences; the decoder is read once, unless longer lists are wanted."""
        if self._transcriber is None or num_best > self._lists_of:
            self._lists_of = max(_NUM_BEST, num_best)
            if self.model.can_generate():
                self._transcriber = Transcriber(self.model, self.processor)
            else:
                self._transcriber = Transcriber.with_decoder(
                    self.model, self.processor, self.model.name_or_path, **self._word_files,
                    num_hypotheses=self._lists_of,
                )  # fmt: skip
        return self._transcriber


class _Rows(Sequence[Any]):
    """Rows of a data set, read when they are asked for, with the settings of the call."""

    def __init__(self, reader: TrialReader, signal: dict[str, Any]) -> None:
        self._reader, self._signal = reader, signal

    def __len__(self) -> int:
        return len(self._reader)

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self._reader[index] | self._signal


def _is_one(inputs: Any) -> bool:
    if isinstance(inputs, (str, os.PathLike, Mapping)):
        return True
    if hasattr(inputs, "ndim"):
        return int(inputs.ndim) == 2
    return isinstance(inputs, (list, tuple)) and len(inputs) > 0 and np.ndim(inputs[0]) == 1


def _trials(one: Any, field: str | None) -> Iterator[dict[str, Any]]:
    if isinstance(one, (str, os.PathLike)):
        yield from read_trial_file(one, field)
    elif isinstance(one, Mapping):
        if one.get("features") is None:
            raise ValueError(f"A trial has no 'features'; it has {', '.join(map(str, one)) or 'nothing'}.")
        yield dict(one)
    elif np.ndim(one) != 2:
        raise ValueError(f"A trial has the shape (bins, channels); this has {np.ndim(one)} axes.")
    else:
        yield {"features": one}


def _as_dict(one: Transcription, timestamps: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"text": one.text}
    if one.score is not None:
        found["score"] = one.score
    if one.nbest:
        found["nbest"] = one.nbest
    if timestamps:
        found["chunks"] = [
            {
                "text": word["word"],
                "timestamp": (word["start_time"], word["end_time"]),
                "confidence": word["confidence"],
            }
            for word in one.words
        ]
    return found
