"""From log-probabilities to scored sentences: what the demo and `bit-speech evaluate` share."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bit_speech.files import write_json, write_text

if TYPE_CHECKING:
    import numpy as np

    from bit_speech.decoding import BeamSearchDecoder, Hypothesis, NGramLM
    from bit_speech.evaluation import ErrorRate
    from bit_speech.transcription import Transcriber

# Weight of a phoneme model's scores beside a language model, unless somebody has tuned one.
ACOUSTIC_SCALE = 0.5


@dataclass(frozen=True)
class Transcripts:
    """Free-running transcripts of one system on a list of trials, scored once.

    Args:
        phonemes (`list[str]`): greedy phonemes of every trial, separated by spaces.
        hypotheses (`list[Hypothesis]`): best sentence of every trial; empty without a decoder.
        per (`ErrorRate` or `None`): phoneme error rate, when references are known.
        wer (`ErrorRate` or `None`): word error rate, when references and a decoder are there.
    """

    phonemes: list[str]
    hypotheses: list[Hypothesis]
    per: ErrorRate | None
    wer: ErrorRate | None

    def to_dict(self) -> dict[str, Any]:
        """Give the rates as JSON can hold them.

        Returns:
            `dict`: `per` and `wer` where known, each with its interval and counts.
        """
        return {name: rate.to_dict() for name, rate in (("per", self.per), ("wer", self.wer)) if rate is not None}


def transcribe(
    log_probs: Sequence[np.ndarray],
    decoder: BeamSearchDecoder | Transcriber | None = None,
    *,
    texts: Sequence[str | None] | None = None,
    phonemes: Sequence[str | None] | None = None,
) -> Transcripts:
    """Decode log-probabilities and score the result against what is known.

    Args:
        log_probs (`list[np.ndarray]`): per trial, float32 of shape `(P, 41)` in model class order.
        decoder (`BeamSearchDecoder` or `Transcriber`, *optional*): makes the words; without it only phonemes are
            decoded.
        texts (`list[str]`, *optional*): reference sentences. One that is None leaves the words unscored.
        phonemes (`list[str]`, *optional*): reference phonemes, separated by spaces.

    Returns:
        `Transcripts`: pooled rates with bootstrap intervals over sentences.
    """
    from bit_speech.decoding import greedy_decode
    from bit_speech.evaluation import phoneme_error_rate, word_error_rate
    from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

    found = [" ".join(MODEL_ORDER[label] for label in greedy_decode(values)) for values in log_probs]
    hypotheses = []
    if decoder is not None:
        hypotheses = [nbest[0] for nbest in decoder.decode_batch(log_probs, num_threads=os.cpu_count() or 1)]
    per = wer = None
    known_phonemes = [value for value in phonemes or () if value is not None]
    known_texts = [value for value in texts or () if value is not None]
    if found and len(known_phonemes) == len(found):
        per = phoneme_error_rate(known_phonemes, found)
    if hypotheses and len(known_texts) == len(hypotheses):
        wer = word_error_rate(known_texts, [hypothesis.text for hypothesis in hypotheses])
    return Transcripts(found, hypotheses, per, wer)


def report_rows(
    trials: Sequence[Mapping[str, Any]], transcripts: Transcripts, log_probs: Sequence[np.ndarray]
) -> list[dict[str, Any]]:
    """Put trials and transcripts together in the form that `write_report` takes.

    Args:
        trials (list of mappings): the `Trial` columns.
        transcripts (`Transcripts`): of the same trials in the same order.
        log_probs (`list[np.ndarray]`): of the same trials.

    Returns:
        `list[dict]`: one row per trial.
    """
    rows = []
    for index, (trial, phonemes, values) in enumerate(zip(trials, transcripts.phonemes, log_probs, strict=True)):
        row = {key: trial[key] for key in ("session_id", "block_index", "trial_index", "features", "feature_kinds")}
        row |= {"hypothesis_phonemes": phonemes, "log_probs": values}
        if trial["text"] is not None:
            row["reference_text"] = trial["text"]
        if trial["phonemes"] is not None:
            row["reference_phonemes"] = trial["phonemes"]
        if transcripts.hypotheses:
            hypothesis = transcripts.hypotheses[index]
            row["hypothesis_text"] = hypothesis.text
            row["words"] = [
                {"text": word.text, "start_frame": word.start_frame, "end_frame": word.end_frame}
                for word in hypothesis.words
            ]
        rows.append(row)
    return rows


def write_predictions(path: str | os.PathLike[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write one JSON line per trial: where it comes from, what was said, what was decoded.

    Args:
        path (`str`): the `.jsonl` file.
        rows (list of mappings): from [`report_rows`].

    Returns:
        `Path`: the file.
    """
    keep = (
        "session_id",
        "block_index",
        "trial_index",
        "reference_text",
        "hypothesis_text",
        "reference_phonemes",
        "hypothesis_phonemes",
    )
    lines = [json.dumps({key: row[key] for key in keep if key in row}, ensure_ascii=False, default=int) for row in rows]
    return write_text(path, "".join(line + "\n" for line in lines))


def load_lm(path: str) -> NGramLM:
    """Read a word n-gram model.

    Args:
        path (`str`): `.arpa[.gz|.xz|.bz2]`, or a file written by `NGramLM.save`.

    Returns:
        `NGramLM`: the model.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when it holds something else.
    """
    from bit_speech.decoding import NGramLM

    is_arpa = any(path.endswith(ending) for ending in (".arpa", ".arpa.gz", ".arpa.xz", ".arpa.bz2"))
    return NGramLM.from_arpa(path) if is_arpa else NGramLM.load(path)


def load_decoder(lexicon: str | None, lm: str | None, **settings: float) -> BeamSearchDecoder | None:
    """Build a word decoder from files.

    Args:
        lexicon (`str`, *optional*): `word<TAB>phonemes` file, or `"cmudict"`. None gives no decoder.
        lm (`str`, *optional*): `.arpa[.gz|.xz]`, or a file written by `NGramLM.save`.
        **settings: further arguments of `BeamSearchDecoder`.

    Returns:
        `BeamSearchDecoder` or `None`: the decoder.

    Raises:
        ValueError: when a language model is given without a lexicon.
    """
    from bit_speech.decoding import BeamSearchDecoder, Lexicon

    if lexicon is None:
        if lm is not None:
            raise ValueError(f"the language model {lm} needs a lexicon: give --lexicon FILE or --lexicon cmudict")
        return None
    model = None if lm is None else load_lm(lm)
    words = Lexicon.from_cmudict() if lexicon == "cmudict" else Lexicon.from_file(lexicon)
    return BeamSearchDecoder(words, model, **settings)  # type: ignore[arg-type]


def evaluate_model(
    model: str,
    trials: str,
    split: str,
    output_dir: str,
    lexicon: str | None = None,
    lm: str | None = None,
    **settings: float | None,
) -> dict[str, Any]:
    """Score a trained model on a split and write metrics, predictions and the report.

    Args:
        model (`str`): folder, Hub name or name in the box of a CTC or end-to-end model and its processor. A decoder in
            its subfolder `decoder` is used unless `lexicon` or `lm` is given.
        trials (`str`): folder of converted trials.
        split (`str`): `"train"`, `"validation"` or `"test"`.
        output_dir (`str`): where `metrics.json`, `predictions.jsonl` and `report/` go.
        lexicon (`str`, *optional*): see [`load_decoder`].
        lm (`str`, *optional*): see [`load_decoder`]; alone for a model of letters.
        **settings: settings of `BeamSearchDecoder` that beat the saved ones; None leaves them.

    Returns:
        `dict`: what `metrics.json` holds: of a phoneme model `per`, and `wer` with a word decoder; of others `cer` and
        `wer`.

    Raises:
        ValueError: when the trials have no such split, or the decoder does not go with the model.
    """
    from bit_speech.data import TrialReader, load_trials
    from bit_speech.evaluation.report import write_report
    from bit_speech.sample_checkpoints import find_model
    from bit_speech.transcription import Transcriber

    splits = load_trials(trials)
    if split not in splits:
        raise ValueError(f"{trials} has no split {split!r}; it has {', '.join(splits)}")
    given = {name: value for name, value in settings.items() if value is not None}
    transcriber = Transcriber.from_pretrained(find_model(model), lexicon, lm, num_hypotheses=1, **given)
    score = _score_phonemes if transcriber.has_phonemes else _score_texts
    rates, rows = score(transcriber, TrialReader(splits[split]), splits[split], output_dir)
    metrics = {"model": model, "trials": trials, "split": split, "num_trials": len(rows)}
    metrics |= {name: rate.to_dict() for name, rate in rates.items() if rate is not None}
    write_json(Path(output_dir) / "metrics.json", metrics)
    write_predictions(Path(output_dir) / "predictions.jsonl", rows)
    page = write_report(Path(output_dir) / "report", title=f"{Path(model).name} on {split}", trials=rows)
    for name, rate in rates.items():
        print(f"{name.upper()}  {rate}" if rate is not None else f"{name.upper()}  not scored")
    print(f"report: {page}")
    return metrics


def _score_phonemes(
    transcriber: Transcriber, reader: Any, dataset: Any, output_dir: str
) -> tuple[dict[str, ErrorRate | None], list[dict[str, Any]]]:
    """Rates and report rows of a phoneme model, with words if it has a decoder."""
    from bit_speech.training import BITTrainer, BITTrainingArguments

    trainer = BITTrainer(
        model=transcriber.model,
        args=BITTrainingArguments(output_dir=output_dir, eval_strategy="no", load_best_model_at_end=False),
        processing_class=transcriber.processor,
    )
    log_probs = trainer.predict_log_probs(dataset)
    rows = []
    for trial in reader:
        phonemes = trial["phonemes"]
        if phonemes is None and trial["text"] is not None:
            phonemes = " ".join(transcriber.processor.tokenizer.phonemize(trial["text"]))
        rows.append({**trial, "phonemes": phonemes})
    transcripts = transcribe(
        log_probs,
        None if transcriber.words is None else transcriber,
        texts=[row["text"] for row in rows],
        phonemes=[row["phonemes"] for row in rows],
    )
    return {"per": transcripts.per, "wer": transcripts.wer}, report_rows(rows, transcripts, log_probs)


def _score_texts(
    transcriber: Transcriber, reader: Any, dataset: Any, output_dir: str
) -> tuple[dict[str, ErrorRate | None], list[dict[str, Any]]]:
    """Rates and report rows of a model that writes text: letters, or whole sentences."""
    from tqdm import tqdm

    from bit_speech.evaluation import character_error_rate, word_error_rate

    found = [one.text for one in tqdm(transcriber.transcribe(reader), total=len(reader), desc="decoding", unit="trial")]
    keys = ("session_id", "block_index", "trial_index", "features", "feature_kinds")
    rows = [{**{key: trial[key] for key in keys}, "hypothesis_text": text} for trial, text in zip(reader, found)]
    texts = list(dataset["text"])
    if any(text is None for text in texts):
        return {"cer": None, "wer": None}, rows
    for row, text in zip(rows, texts):
        row["reference_text"] = text
    return {"cer": character_error_rate(texts, found), "wer": word_error_rate(texts, found)}, rows
