"""From a trial to text, step by step: the network, the word search as a stream, and the end-to-end model beside it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from trials import Trial, UnreadableTrial, check_trial

from bit_speech.decoding import Hypothesis, PartialText
from bit_speech.sample_checkpoints import RECORD_NAME
from bit_speech.transcription import Transcriber
from processing_bit.feature_extraction_bit import BITFeatureExtractor

# Frames between two looks at the text: three make 180 ms with the sample model, a short syllable.
CHUNK = 3
BLANK = 0


@dataclass(frozen=True)
class Phoneme:
    """A phoneme of the best path.

    Args:
        label (`str`): its name.
        start (`int`): first frame that emits it.
        end (`int`): one past the last.
    """

    label: str
    start: int
    end: int


@dataclass
class Transcript:
    """What has been found in a trial so far.

    Args:
        trial (`Trial`): the recording.
        text (`str`): the sentence of the cascade; phonemes without a word decoder, the end-to-end sentence without a
            cascade.
        log_probs (`np.ndarray` of shape `(P, V)`): natural-log probabilities of every frame; None for a model that has
            no phonemes.
        labels (`list[str]`): names of the V classes.
        seconds_per_frame (`float`): time between two frames.
        hypotheses (`list[Hypothesis]`): sentences of the word search, best first; empty without a decoder.
        end_to_end (`str`, *optional*): the sentence of the end-to-end model.
        problem (`str`): why the end-to-end model could not read the trial.
        timing (`dict[str, float]`): seconds of each stage.
    """

    trial: Trial
    text: str = ""
    log_probs: np.ndarray | None = None
    labels: list[str] = field(default_factory=list)
    seconds_per_frame: float = 0.0
    hypotheses: list[Hypothesis] = field(default_factory=list)
    end_to_end: str | None = None
    problem: str = ""
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def phonemes(self) -> list[Phoneme]:
        """Best class of every frame, repeats joined, blanks dropped (`list[Phoneme]`)."""
        if self.log_probs is None:
            return []
        best = self.log_probs.argmax(axis=1)
        edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        spans = [(int(best[a]), a, b) for a, b in zip(edges, edges[1:]) if b > a]
        return [Phoneme(self.labels[label], a, b) for label, a, b in spans if label != BLANK]


class Listener:
    """Loads models once and reads trials.

    Args:
        model (`str`): folder or Hub id of a CTC model, with or without a word decoder in it, or of an end-to-end model.
        end_to_end (`str`, *optional*): folder or Hub id of an end-to-end model to set beside a CTC model.

    Raises:
        OSError: when a model cannot be found.
        ValueError: when a model is of another kind.
    """

    def __init__(self, model: str | os.PathLike[str], end_to_end: str | os.PathLike[str] | None = None) -> None:
        main = Transcriber.from_pretrained(model)
        self.name = _short(model)
        self.cascade: Transcriber | None = None if main.model.can_generate() else main
        self.writer: Transcriber | None = main if self.cascade is None else None
        self.writer_name: str | None = self.name if self.cascade is None else None
        self.writer_words: int | None = None
        if end_to_end is not None and self.cascade is not None:
            self.writer, self.writer_name = Transcriber.from_pretrained(end_to_end), _short(end_to_end)
            self.writer_words = _num_words(end_to_end)
            if not self.writer.model.can_generate():
                raise ValueError(f"{end_to_end} is no end-to-end model: give it as --model")
        self.extractor = main.processor.feature_extractor
        config = getattr(main.model.config, "encoder_config", main.model.config)
        self._min_bins = main.min_bins
        self.causal = bool(getattr(config, "causal", False))

    def check(self, trial: Trial) -> Trial:
        """Stop a trial that the model cannot read, see [`check_trial`].

        Args:
            trial (`Trial`): a recording.

        Returns:
            `Trial`: the same with all its channels named.

        Raises:
            UnreadableTrial: saying what is wrong and what to do.
        """
        return check_trial(trial, self.extractor, self._min_bins)

    def readable(self, trials: Sequence[Trial]) -> list[Trial]:
        """Leave out what the model cannot read, such as the simulated participant's trials for a model of another.

        Args:
            trials (`Sequence[Trial]`): recordings.

        Returns:
            `list[Trial]`: those that [`check`] lets through.
        """
        found = []
        for trial in trials:
            try:
                found.append(self.check(trial))
            except UnreadableTrial:
                continue
        return found

    def normalization(self, trial: Trial) -> str:
        """Say where the mean and the deviation of every channel come from.

        Args:
            trial (`Trial`): a recording.

        Returns:
            `str`: for the page; empty when nothing is z-scored.
        """
        if self.extractor.normalization == "none":
            return ""
        if _knows_session(self.extractor, trial):
            return f"Channels are scaled by the training trials of session {trial.session_id}."
        if self.extractor.normalization == "block":
            return "Channels are scaled by this recording alone."
        return "The model does not know this recording's session, so channels are scaled by this recording alone."

    def hear(self, trial: Trial) -> Transcript:
        """Run the network.

        Args:
            trial (`Trial`): a checked recording.

        Returns:
            `Transcript`: with probabilities of phonemes, and no text yet; empty for a model that has no phonemes.

        Raises:
            ValueError: when the model does not know the recording's session and needs it.
        """
        transcript = Transcript(trial)
        if self.cascade is None:
            return transcript
        config = self.cascade.model.config
        start = time.perf_counter()
        columns = _columns(self.extractor, trial)
        inputs = self.cascade.processor(columns.pop("features"), return_tensors="pt", **columns)
        transcript.timing["features"] = time.perf_counter() - start
        start = time.perf_counter()
        (scores,) = self.cascade.log_probs(inputs)
        transcript.timing["network"] = time.perf_counter() - start
        transcript.log_probs = scores
        transcript.labels = [config.id2label[index] for index in range(scores.shape[1])]
        transcript.seconds_per_frame = self.cascade.seconds_per_frame
        return transcript

    def search(self, transcript: Transcript) -> Iterator[PartialText]:
        """Take in the frames piece by piece, as they would come while someone speaks, and end the sentence.

        Args:
            transcript (`Transcript`): from [`hear`]; its hypotheses and timing are filled in at the end.

        Yields:
            `PartialText`: the text so far, whenever it changed. Only the search is timed, not what others do meanwhile.
        """
        if self.cascade is None or transcript.log_probs is None:
            return
        scores, decoder = transcript.log_probs, self.cascade.search
        state = None if decoder is None else decoder.start()
        spent, partial = 0.0, PartialText("", "", 0)
        for begin in range(0, len(scores), CHUNK):
            before, start = partial, time.perf_counter()
            if decoder is None:
                end = min(begin + CHUNK, len(scores))
                text = self.cascade.processor.decode_ctc(scores[:end].argmax(axis=1).tolist())
                partial = PartialText(text, text, end)
            else:
                partial = decoder.advance(state, scores[begin : begin + CHUNK])
            spent += time.perf_counter() - start
            if (partial.text, partial.stable) != (before.text, before.stable):
                yield partial
        transcript.timing["best phonemes" if decoder is None else "word search"] = spent
        transcript.text = partial.text
        if self.cascade.words is not None:
            start = time.perf_counter()
            transcript.hypotheses = self.cascade.words(scores)
            transcript.text = transcript.hypotheses[0].text
            transcript.timing["n-best and confidences"] = time.perf_counter() - start

    def write(self, transcript: Transcript) -> None:
        """Let the end-to-end model, where there is one, write its sentence.

        Args:
            transcript (`Transcript`): its end-to-end sentence, or the reason why there is none, and timing are filled
                in.
        """
        if self.writer is None:
            return
        start = time.perf_counter()
        try:
            columns = _columns(self.writer.processor.feature_extractor, transcript.trial)
            transcript.end_to_end = next(self.writer.transcribe([columns])).text
        except ValueError as error:
            transcript.problem = str(error)  # for example, it was trained on another participant
        if self.cascade is None:
            transcript.text = transcript.end_to_end or ""
        transcript.timing["end-to-end model"] = time.perf_counter() - start


def _knows_session(extractor: BITFeatureExtractor, trial: Trial) -> bool:
    return extractor.normalization == "session" and trial.session_id in extractor.session_statistics


def _columns(extractor: BITFeatureExtractor, trial: Trial) -> dict[str, Any]:
    """What a processor reads; with statistics of the trial itself where there are none of its session."""
    columns = trial.columns()
    if extractor.normalization == "session" and not _knows_session(extractor, trial):
        columns["statistics"] = extractor.compute_statistics([trial.features])
    return columns


def _num_words(name: str | os.PathLike[str]) -> int | None:
    """Words that a model in the box knows, from the record of its making."""
    record = Path(name) / RECORD_NAME
    return json.loads(record.read_text(encoding="utf-8")).get("vocabulary_words") if record.is_file() else None


def _short(name: str | os.PathLike[str]) -> str:
    return Path(name).name if Path(name).is_dir() else str(name)
