"""From a trial to text, step by step: the network, the word search as a stream, and what else could have been said."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCTC, AutoModelForMultimodalLM, AutoProcessor
from trials import Trial, UnreadableTrial, check_trial

from bit_speech import BITProcessorWithDecoder
from bit_speech.ctc import collapse
from bit_speech.decoding import Hypothesis

# Frames between two looks at the text: three make 180 ms with the sample model, a good syllable.
CHUNK = 3
BLANK = 0


@dataclass(frozen=True)
class Partial:
    """What has been decoded when so much of the recording was taken in.

    Args:
        text (`str`): the text so far.
        stable (`str`): its beginning that will not change any more.
        seconds (`float`): recording taken in.
    """

    text: str
    stable: str
    seconds: float


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
    """All that was found in a trial.

    Args:
        trial (`Trial`): the recording.
        log_probs (`np.ndarray` of shape `(P, V)`): natural-log probabilities of every frame; None for a model that has
            no phonemes.
        labels (`list[str]`): names of the V classes.
        seconds_per_frame (`float`): time between two frames.
        partials (`list[Partial]`): how the text grew, without repetitions.
        hypotheses (`list[Hypothesis]`): sentences of the word search, best first; empty without a decoder.
        end_to_end (`str`, *optional*): the sentence of the end-to-end model.
        timing (`dict[str, float]`): seconds of each stage.
    """

    trial: Trial
    log_probs: np.ndarray | None = None
    labels: list[str] = field(default_factory=list)
    seconds_per_frame: float = 0.0
    partials: list[Partial] = field(default_factory=list)
    hypotheses: list[Hypothesis] = field(default_factory=list)
    end_to_end: str | None = None
    timing: dict[str, float] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """Best sentence of the cascade (`str`); phonemes without a decoder, the end-to-end sentence without either."""
        if self.hypotheses:
            return self.hypotheses[0].text
        return self.partials[-1].text if self.partials else self.end_to_end or ""

    @property
    def phonemes(self) -> list[Phoneme]:
        """Best class of every frame, repeats joined, blanks dropped (`list[Phoneme]`)."""
        if self.log_probs is None:
            return []
        best = self.log_probs.argmax(axis=1)
        edges = [0, *(np.flatnonzero(np.diff(best)) + 1).tolist(), len(best)]
        return [Phoneme(self.labels[best[a]], a, b) for a, b in zip(edges, edges[1:]) if b > a and best[a] != BLANK]


class Transcriber:
    """Loads models once and reads trials.

    Args:
        model (`str`): folder or Hub id of a CTC model, with or without a word decoder in it, or of an end-to-end model.
        end_to_end (`str`, *optional*): folder or Hub id of an end-to-end model to set beside a CTC model.

    Raises:
        OSError: when a model cannot be found.
        ValueError: when a model is of another kind.
    """

    def __init__(self, model: str | os.PathLike[str], end_to_end: str | os.PathLike[str] | None = None) -> None:
        self.name = Path(model).name if Path(model).is_dir() else str(model)
        self.model: Any = None
        self.decoder: Any = None
        self.writer: Any = None
        self.writer_name: str | None = None
        if AutoConfig.from_pretrained(model).model_type == "bit_speech_llm":
            model, end_to_end = "", model
        else:
            self._load_cascade(model)
        if end_to_end is not None:
            self.writer = AutoModelForMultimodalLM.from_pretrained(end_to_end).eval()
            self.writer_processor = AutoProcessor.from_pretrained(end_to_end)
            self.writer_name = Path(end_to_end).name if Path(end_to_end).is_dir() else str(end_to_end)
        if self.model is None:
            self.extractor = self.writer_processor.feature_extractor
            self.min_bins = self.writer.config.encoder_config.patch_size
            self.causal = False

    def _load_cascade(self, model: str | os.PathLike[str]) -> None:
        self.model = AutoModelForCTC.from_pretrained(model).eval()
        try:
            joined = BITProcessorWithDecoder.from_pretrained(model)
            self.processor, self.decoder = joined.processor, joined.decoder
        except FileNotFoundError:
            self.processor = AutoProcessor.from_pretrained(model)
        self.extractor = self.processor.feature_extractor
        config = self.model.config
        self.labels = [config.id2label[index] for index in range(config.vocab_size)]
        self.min_bins = int(getattr(config, "patch_size", 1))
        self.seconds_per_frame = config.patch_stride * self.extractor.bin_size_ms / 1000
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
        return check_trial(trial, self.extractor, self.min_bins)

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
        if self._knows_session(trial):
            return f"Channels are scaled by the training trials of session {trial.session_id}."
        return (
            "The model has no statistics of this recording's session, so channels are scaled by this recording alone."
        )

    def _knows_session(self, trial: Trial) -> bool:
        return self.extractor.normalization == "session" and trial.session_id in self.extractor.session_statistics

    def _signal(self, trial: Trial) -> dict[str, Any]:
        settings: dict[str, Any] = {"participant_id": trial.participant_id, "session_id": trial.session_id}
        settings["feature_kinds"] = list(trial.feature_kinds)
        if trial.channel_areas is not None:
            settings["channel_areas"] = list(trial.channel_areas)
        if self.extractor.normalization == "session" and not self._knows_session(trial):
            settings["statistics"] = self.extractor.compute_statistics([trial.features])
        return settings

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
        if self.model is None:
            return transcript
        start = time.perf_counter()
        inputs = self.processor(trial.features, return_tensors="pt", **self._signal(trial))
        transcript.timing["features"] = time.perf_counter() - start
        start = time.perf_counter()
        with torch.inference_mode():
            output = self.model(**inputs)
        transcript.log_probs = output.logits[0][output.frame_mask[0]].float().log_softmax(dim=-1).numpy()
        transcript.labels, transcript.seconds_per_frame = self.labels, self.seconds_per_frame
        transcript.timing["network"] = time.perf_counter() - start
        return transcript

    def search(self, transcript: Transcript) -> Iterator[Partial]:
        """Take in the frames piece by piece, as they would come while someone speaks, and end the sentence.

        Args:
            transcript (`Transcript`): from [`hear`]; its hypotheses and timing are filled in at the end.

        Yields:
            `Partial`: the text so far, whenever it changed. Only the search is timed, not what others do in between.
        """
        log_probs = transcript.log_probs
        if log_probs is None:
            return
        state = None if self.decoder is None else self.decoder.start()
        spent, text, stable = 0.0, "", ""
        for begin in range(0, len(log_probs), CHUNK):
            end = min(begin + CHUNK, len(log_probs))
            last = (text, stable)
            start = time.perf_counter()
            if state is None:
                best = collapse(log_probs[:end].argmax(axis=1), BLANK)
                text = stable = " ".join(self.labels[label] for label in best)
            else:
                found = self.decoder.advance(state, log_probs[begin:end])
                text, stable = found.text, found.stable
            spent += time.perf_counter() - start
            if (text, stable) != last:
                transcript.partials.append(Partial(text, stable, end * self.seconds_per_frame))
                yield transcript.partials[-1]
        transcript.timing["best phonemes" if state is None else "word search"] = spent
        if state is not None:
            start = time.perf_counter()
            transcript.hypotheses = self.decoder.finish(state)
            transcript.timing["n-best and confidences"] = time.perf_counter() - start

    def write(self, transcript: Transcript) -> None:
        """Let the end-to-end model, where there is one, write its sentence.

        Args:
            transcript (`Transcript`): its end-to-end sentence and timing are filled in.
        """
        if self.writer is None:
            return
        trial = transcript.trial
        start = time.perf_counter()
        inputs = self.writer_processor.for_generation([trial.features], return_tensors="pt", **self._signal(trial))
        with torch.inference_mode():
            tokens = self.writer.generate(
                **inputs, max_new_tokens=40, do_sample=False, pad_token_id=self.writer_processor.pad_token_id
            )
        answer = self.writer_processor.decode_answers(tokens, inputs["input_ids"].shape[1])[0]
        transcript.end_to_end = answer
        transcript.timing["end-to-end model"] = time.perf_counter() - start
