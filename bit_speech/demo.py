"""A sentence from a model in the box, then the whole road: raw files -> trials -> training -> sentences -> report.

Everything a lab does with its own recordings happens here with a simulated participant, so that it runs anywhere, needs
no private data and has a known limit: the ideal observer, which decodes with the true parameters of the simulation.
"""

from __future__ import annotations

import importlib
import os
import resource
import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from bit_speech.files import write_json, write_text
from bit_speech.machine import give_back_memory
from bit_speech.scoring import Transcripts, report_rows, transcribe, write_predictions

if TYPE_CHECKING:
    import numpy as np

    from bit_speech.decoding import BeamSearchDecoder, NGramLM


@dataclass(frozen=True)
class DemoSettings:
    """What the demonstration does, in numbers.

    Args:
        num_training_sentences (`int`): sentences the simulated participant attempts for training.
        num_validation_sentences (`int`): sentences for choosing the checkpoint and the decoder's weights.
        num_test_sentences (`int`): held-out sentences that are decoded and scored once.
        num_epochs (`int`): passes over the training sentences.
        batch_size (`int`): trials per step.
        hidden_size (`int`): width of the encoder.
        num_hidden_layers (`int`): depth of the encoder.
        learning_rate (`float`): peak of the cosine schedule.
        patch_stride (`int`): bins from one patch to the next. The paper's 5 gives 10 frames a second, too few for this
            participant's pace.
        mask_ratio (`float`): share of patches hidden from the encoder in training.
        mask_max_span (`int`): longest run of hidden patches.
        beam_size (`int`): hypotheses kept per frame by the word decoder.
    """

    num_training_sentences: int = 3000
    num_validation_sentences: int = 100
    num_test_sentences: int = 200
    num_epochs: int = 10
    batch_size: int = 16
    hidden_size: int = 128
    num_hidden_layers: int = 4
    patch_stride: int = 3
    learning_rate: float = 3e-3
    mask_ratio: float = 0.2
    mask_max_span: int = 4
    beam_size: int = 300


_MARKER = ".bit_speech_demo"
QUICK = DemoSettings(num_training_sentences=600, num_validation_sentences=40, num_test_sentences=40, num_epochs=10)


def language_model_sentences(held_out: list[str]) -> list[str]:
    """Collect the shipped text for a language model, without any held-out sentence.

    Args:
        held_out (`list[str]`): sentences that will be scored or used for tuning.

    Returns:
        `list[str]`: normalised sentences of all shipped corpora; none equals a held-out sentence after normalisation.
    """
    from bit_speech.evaluation import normalize_text
    from bit_speech.simulation import load_sentences

    banned = {normalize_text(text) for text in held_out}
    sentences: list[str] = []
    for corpus in ("tatoeba", "t12", "t15", "read_speech"):
        normalized = (normalize_text(text) for text in load_sentences(corpus))
        sentences += [text for text in normalized if text and text not in banned]
    return sentences


def build_word_decoder(held_out: list[str], beam_size: int) -> tuple[BeamSearchDecoder, NGramLM]:
    """Build an open-vocabulary word decoder from the shipped text and CMUdict.

    Args:
        held_out (`list[str]`): sentences the language model must not see.
        beam_size (`int`): hypotheses kept per frame.

    Returns:
        `tuple[BeamSearchDecoder, NGramLM]`: the decoder and its word 3-gram. The vocabulary is every word of the text
        that CMUdict pronounces: more than 10,000 words.
    """
    from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm

    sentences = language_model_sentences(held_out)
    lm = build_ngram_lm(sentences, order=3)
    lexicon = Lexicon.from_cmudict(words=sorted({word for sentence in sentences for word in sentence.split()}))
    return BeamSearchDecoder(lexicon, lm, beam_size=beam_size), lm


def run_demo(
    output_dir: str | os.PathLike[str], settings: DemoSettings | None = None, quick: bool = False, seed: int = 0
) -> dict[str, Any]:
    """Run the demonstration and write everything it makes below one folder.

    Args:
        output_dir (`str`): folder for raw files, trials, model, predictions, `metrics.json` and `report/`.
        settings (`DemoSettings`, *optional*): sizes; the defaults take about five minutes on two cores.
        quick (`bool`, *optional*): use the small sizes; proves the road, not the accuracy.
        seed (`int`, *optional*): seed of participant, weights, batches and augmentation.

    Returns:
        `dict`: the metrics that are also in `metrics.json`.
    """
    settings = settings or (QUICK if quick else DemoSettings())
    output = _fresh_folder(Path(output_dir))
    clock = _Clock()

    clock.stage("0/6 a model in the box reads three sentences that it was not trained on")
    _first_sentences()

    from bit_speech.simulation import PRESETS, IdealObserver, SimulatedParticipant, write_brain_to_text_25

    clock.stage("1/6 simulate a participant, in the layout of Brain-to-Text '25")
    participant = SimulatedParticipant(
        replace(
            PRESETS["demo"],
            train_sentences=settings.num_training_sentences,
            val_sentences=settings.num_validation_sentences,
            test_sentences=settings.num_test_sentences,
        ),
        seed=seed,
    )
    raw = output / "hdf5_data_final"
    write_brain_to_text_25(participant, raw)

    clock.stage("2/6 convert the raw files to trials")
    importlib.import_module("datasets_scripts.convert_brain_to_text_25").convert(
        raw, output / "trials", allow_partial=True
    )

    clock.stage("3/6 build the language model, from text without the held-out sentences")
    truth = list(participant.trials("test"))  # The layout's test split has no labels; the simulator knows them.
    decoder, lm = build_word_decoder(participant.sentences("val") + participant.sentences("test"), settings.beam_size)
    lm.save(output / "lm.bin")

    clock.stage("4/6 train BIT from scratch")
    trained = _train(output, settings, seed)
    give_back_memory()  # the trainer and its caches are gone, and the decoder has better use for their memory

    from bit_speech.decoding import tune_decoder

    clock.stage(f"5/6 decode {len(truth)} held-out sentences with a vocabulary of {len(decoder.lexicon):,} words")
    decoder = tune_decoder(trained.validation_log_probs, list(trained.trials["validation"]["text"]), decoder)
    known: dict[str, Any] = {"texts": [trial.text for trial in truth], "phonemes": [trial.phonemes for trial in truth]}
    bit = transcribe(trained.test_log_probs, decoder, **known)

    clock.stage("6/6 decode the same sentences with the ideal observer, and write the report")
    observer = IdealObserver(participant)
    # Its posteriors are calibrated otherwise than a network's: decoder weights of its own, chosen in the same way.
    observed = list(participant.trials("val"))
    ideal_decoder = tune_decoder(
        [observer.log_probs(trial) for trial in observed], [str(trial.text) for trial in observed], decoder
    )
    ideal = transcribe([observer.log_probs(trial) for trial in truth], ideal_decoder, **known)

    metrics: dict[str, Any] = {
        "data": "simulated participant, preset demo; accuracy on simulated data says nothing about a person",
        "bit": bit.to_dict(),
        "ideal_observer": ideal.to_dict(),
        "vocabulary_words": len(decoder.lexicon),
        "settings": asdict(settings),
        "seed": seed,
        "parameters": trained.num_parameters,
        "peak_memory_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6,
    }
    rates = {name: metrics[name]["per"]["rate"] for name in ("bit", "ideal_observer")}
    metrics["per_ratio_to_ideal_observer"] = rates["bit"] / max(rates["ideal_observer"], 1e-9)
    rows = [
        {**row, "text": trial.text, "phonemes": trial.phonemes}
        for row, trial in zip(trained.trials["test"], truth, strict=True)
    ]
    page = _report(output, trained, rows, bit, ideal, metrics)
    clock.stage(None)
    metrics["seconds"] = clock.seconds
    write_json(output / "metrics.json", metrics)
    print(_table(metrics, page))
    return metrics


def _first_sentences() -> None:
    """Show what all of this is for, before minutes of training."""
    from bit_speech.sample_checkpoints import sample_checkpoint, sample_trials
    from bit_speech.transcription import Transcriber

    # One hypothesis needs no lattice, whose compiled code a first run would wait for.
    transcriber = Transcriber.from_pretrained(sample_checkpoint("sim-ctc"), num_hypotheses=1)
    for found in transcriber.transcribe(sample_trials("sim-ctc", count=3)):
        print(f"        said: {found.reference}\n        read: {found.text}", flush=True)


def _fresh_folder(output: Path) -> Path:
    """Empty the folder of an earlier demonstration; refuse any other folder that holds something.

    Raises:
        FileExistsError: when the folder is not empty and no demonstration made it.
    """
    marker = output / _MARKER
    if output.exists() and any(output.iterdir()):
        if not marker.exists():
            raise FileExistsError(
                f"{output} holds files that no demonstration made; nothing was touched: choose an empty --output_dir"
            )
        shutil.rmtree(output)
    write_text(marker, "Made by `bit-speech demo`, which may empty this folder when it runs again.\n")
    return output


class _Clock:
    """Announces stages and keeps their seconds."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name: str | None = None
        self._start = self._begin = time.perf_counter()

    def stage(self, name: str | None) -> None:
        now = time.perf_counter()
        if self._name is not None:
            self.seconds[self._name] = round(now - self._start, 1)
        self.seconds["total"] = round(now - self._begin, 1)
        if name is not None:
            print(f"[{now - self._begin:5.0f} s] {name}", flush=True)
        self._name, self._start = name, now


class _Trained(NamedTuple):
    """What is needed of a finished training; the trainer and its caches are gone by then."""

    trials: Any
    validation_log_probs: list[np.ndarray]
    test_log_probs: list[np.ndarray]
    history: list[dict[str, Any]]
    num_parameters: int


def _train(output: Path, settings: DemoSettings, seed: int) -> _Trained:
    """Train BIT from scratch on the converted trials; the best checkpoint by validation PER is kept."""
    import torch
    import transformers

    from bit_speech.data import Augmentation, load_trials
    from bit_speech.training import BITTrainer, BITTrainingArguments
    from configuration_bit.configuration_bit import BITConfig
    from modeling_bit.modeling_bit import BITForCTC
    from processing_bit.feature_extraction_bit import BITFeatureExtractor
    from processing_bit.processing_bit import BITProcessor
    from processing_bit.tokenization_phoneme import PhonemeTokenizer

    transformers.set_seed(seed)
    trials = load_trials(output / "trials")
    first = trials["train"][0]
    participants = {first["participant_id"]: first["features"].shape[1]}
    # The layout's features are z-scored within the block already.
    processor = BITProcessor(BITFeatureExtractor(participants=participants, normalization="none"), PhonemeTokenizer())
    model = BITForCTC(
        BITConfig(
            participants=participants,
            hidden_size=settings.hidden_size,
            num_hidden_layers=settings.num_hidden_layers,
            num_attention_heads=settings.hidden_size // 64,
            intermediate_size=2 * settings.hidden_size,
            hidden_dropout=0.05,
            attention_dropout=0.05,
            embedding_dropout=0.05,
            patch_stride=settings.patch_stride,
            mask_ratio=settings.mask_ratio,
            mask_max_span=settings.mask_max_span,
        )
    )
    trainer = BITTrainer(
        model=model,
        args=BITTrainingArguments(
            output_dir=str(output / "training"),
            num_train_epochs=settings.num_epochs,
            per_device_train_batch_size=settings.batch_size,
            learning_rate=settings.learning_rate,
            warmup_steps=0.05,
            eval_strategy="steps",
            eval_steps=0.2,
            save_strategy="steps",
            save_steps=0.2,
            save_total_limit=1,
            logging_steps=20,
            seed=seed,
            use_cpu=True,
            # Almost twice as fast where the processor has it, slower elsewhere.
            bf16=torch.cpu._is_avx512_bf16_supported(),
        ),
        train_dataset=trials["train"],
        eval_dataset=trials["validation"],
        processing_class=processor,
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )
    trainer.train()
    trainer.save_model(str(output / "model"))
    return _Trained(
        trials,
        trainer.predict_log_probs(trials["validation"]),
        trainer.predict_log_probs(trials["test"]),
        trainer.state.log_history,
        model.num_parameters(),
    )


def _report(
    output: Path,
    trained: _Trained,
    trials: list[dict[str, Any]],
    bit: Transcripts,
    ideal: Transcripts,
    metrics: dict[str, Any],
) -> Path:
    from bit_speech.evaluation.report import write_report

    rows = report_rows(trials, bit, trained.test_log_probs)
    write_predictions(output / "predictions.jsonl", rows)
    reference = [
        {"hypothesis_text": hypothesis.text, "hypothesis_phonemes": phonemes}
        for hypothesis, phonemes in zip(ideal.hypotheses, ideal.phonemes, strict=True)
    ]
    return write_report(
        output / "report",
        title="bit-speech demo: a simulated participant",
        description="Trained from scratch on one simulated participant; the ideal observer decodes with the "
        "simulation's true parameters. Accuracy on simulated data says nothing about a person.",
        trials=rows,
        comparisons={"ideal observer": reference},
        learning_curve=trained.history,
        metrics={key: value for key, value in metrics.items() if not isinstance(value, dict)},
    )


def _table(metrics: dict[str, Any], page: Path) -> str:
    """The result as a person reads it."""
    lines = ["", f"{'':16s}{'PER':>22s}{'WER':>22s}"]
    for key, name in (("bit", "BIT"), ("ideal_observer", "ideal observer")):
        cells = [
            f"{100 * rate['rate']:.1f} % [{100 * rate['low']:.1f}, {100 * rate['high']:.1f}]"
            for rate in map(metrics[key].get, ("per", "wer"))
        ]
        lines.append(f"{name:16s}{cells[0]:>22s}{cells[1]:>22s}")
    lines += [
        "",
        f"{metrics['bit']['wer']['num_sentences']} held-out sentences of a simulated participant, "
        f"{metrics['vocabulary_words']:,} words, "
        f"PER {metrics['per_ratio_to_ideal_observer']:.2f} x the ideal observer's",
        f"{metrics['seconds']['total']:.0f} s, peak memory {metrics['peak_memory_gb']:.1f} GB",
        f"report: {page}",
    ]
    return "\n".join(lines)
