"""Your own participant in one command: look at the data, choose settings from its size, train, score, report."""

from __future__ import annotations

import importlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers.hf_argparser import HfArg

from bit_speech.arguments import ExperimentParser, dump_config
from bit_speech.files import write_json, write_text
from bit_speech.scoring import Transcripts, load_decoder, report_rows, transcribe, write_predictions

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

    from bit_speech.evaluation.data_report import DataReport
    from bit_speech.training import BITTrainer

_HELD_OUT = 0.15
_SMALL_MINUTES, _LARGE_MINUTES = 60.0, 300.0
_FRAMES_PER_PHONEME = 2.0


@dataclass
class FinetuneArguments:
    """What is trained on what; whatever is not given is chosen from the size of the data."""

    _show_all_settings = True

    data: str = HfArg(help="Folder of trials, or of recordings with the YAML file of `bit-speech convert participant`.")
    base: str | None = HfArg(default=None, help="Start from this BIT checkpoint (folder or Hub name); none: from zero.")
    output_dir: str = HfArg(default="runs/finetuned", help="Where data report, model, scores and report go.")
    check_only: bool = HfArg(default=False, help="Look at the data, say what would be done, and stop.")
    lexicon: str | None = HfArg(default=None, help="word<TAB>phonemes file, or cmudict: decode words too.")
    lm: str | None = HfArg(default=None, help="Word n-gram language model, from `bit-speech build-lm`.")
    beam_size: int = HfArg(default=300, help="Hypotheses kept while decoding words.")
    normalization: str | None = HfArg(default=None, help="block, session or none; default: block unless z-scored.")
    num_train_epochs: float | None = HfArg(default=None, help="Passes over the training trials.")
    max_steps: int = HfArg(default=-1, help="Stop after so many updates, whatever the epochs; -1: do not.")
    learning_rate: float | None = HfArg(default=None, help="Peak learning rate.")
    per_device_train_batch_size: int | None = HfArg(default=None, help="Trials per update.")
    use_cpu: bool = HfArg(default=False, help="Train on the processor even if there is a GPU.")
    seed: int = HfArg(default=0, help="Of weights, batches, augmentation and the split that is held out.")

    def __post_init__(self) -> None:
        """Check what can be checked before any data is read."""
        if (self.lexicon is None) != (self.lm is None):
            raise ValueError("decoding words needs both --lexicon and --lm")


@dataclass(frozen=True)
class Settings:
    """What the size of the data suggests.

    Attributes:
        model (`dict`): fields of the model's configuration.
        num_train_epochs (`float`): passes over the training trials.
        per_device_train_batch_size (`int`): trials per update.
        learning_rate (`float`): peak.
        normalization (`str`): of the feature extractor.
        reasons (`list[str]`): why, a sentence for each.
    """

    model: dict[str, Any]
    num_train_epochs: float
    per_device_train_batch_size: int
    learning_rate: float
    normalization: str
    reasons: list[str]


def choose_settings(
    minutes: float,
    num_trials: int,
    normalization: str,
    frames_per_phoneme: float,
    base: Mapping[str, Any] | None = None,
) -> Settings:
    """Choose settings from the size of the training data.

    Args:
        minutes (`float`): of training recordings.
        num_trials (`int`): training trials.
        normalization (`str`): what `check_normalization` says of the features: `"raw"` or a way of z-scoring.
        frames_per_phoneme (`float`): patches of 5 bins that a phoneme lasts, median over training trials.
        base (`dict`, *optional*): configuration of the checkpoint to start from; its sizes are kept.

    Returns:
        `Settings`: with the reasons.

    Note:
        Below an hour without a checkpoint this is the recipe of `bit-speech demo`; up to five hours the encoder of
        `examples/configs/bit_participant.yaml`; above, the published encoder (arXiv 2511.21740). From a checkpoint, its
        sizes with the published learning rate. These are starting points; no participant's data chose them.

    Example:
        >>> choose_settings(20.0, 400, "raw", 3.0).model["hidden_size"]
        128
        >>> choose_settings(20.0, 400, "block", 3.0).normalization
        'none'
    """
    reasons = []
    dropout = ("embedding_dropout", "hidden_dropout", "attention_dropout")
    masks = {"mask_ratio": 0.2, "mask_max_span": 4}
    if base is not None:
        # Masking was the pretraining's task; here it is the augmentation that time masking is.
        model = masks
        updates, learning_rate = 3000, 5e-4
        reasons.append(f"the encoder of the checkpoint: {base['num_hidden_layers']} layers of {base['hidden_size']}")
    elif minutes < _SMALL_MINUTES:
        model = {
            "hidden_size": 128,
            "num_hidden_layers": 4,
            "num_attention_heads": 2,
            "intermediate_size": 256,
            **masks,
        }
        model |= dict.fromkeys(dropout, 0.05)
        updates, learning_rate = 2000, 3e-3
        reasons.append(f"a small encoder, because {minutes:.0f} minutes are less than an hour")
    elif minutes < _LARGE_MINUTES:
        model = {
            "hidden_size": 192,
            "num_hidden_layers": 5,
            "num_attention_heads": 3,
            "intermediate_size": 256,
            **masks,
        }
        model |= {"embedding_dropout": 0.2, "hidden_dropout": 0.4, "attention_dropout": 0.4}
        updates, learning_rate = 6000, 1e-3
        reasons.append(f"a middle-sized encoder for {minutes / 60:.1f} hours")
    else:
        model, updates, learning_rate = {}, 20_000, 5e-4
        reasons.append(f"the published encoder for {minutes / 60:.1f} hours")
    batch = 16 if num_trials < 5000 else 32
    epochs = min(200.0, max(5.0, round(updates * batch / max(num_trials, 1))))
    reasons.append(f"{epochs:g} epochs of {num_trials:,} trials: about {epochs * num_trials / batch:,.0f} updates")
    stride = int((base or {}).get("patch_stride") or (base or {}).get("patch_size") or 5)
    needed = max(1, int(5 * frames_per_phoneme / _FRAMES_PER_PHONEME))
    if needed < stride:
        model = {**model, "patch_stride": needed}
        reasons.append(
            f"a frame every {needed} bins, because a phoneme lasts {5 * frames_per_phoneme:.1f} bins and CTC wants two "
            "frames for each"
        )
    chosen = "block" if normalization == "raw" else "none"
    reasons.append("z-scored by block" if chosen == "block" else "not z-scored again: the features are already")
    return Settings(model, epochs, batch, learning_rate, chosen, reasons)


def finetune(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Run the command `bit-speech finetune`.

    Args:
        argv (`list[str]`, *optional*): the command line without the program's name.

    Returns:
        `dict`: what `metrics.json` holds, or the data report with `--check_only`.

    Raises:
        ValueError: for settings or data that cannot be used; the message holds the remedy.
        FileNotFoundError: when there is no such data or checkpoint.
    """
    parser = ExperimentParser(
        [FinetuneArguments],
        description="Fine-tune on your own participant: data report, settings from the size, training, scores, report.",
        example="bit-speech finetune --data recordings --base my-lab/bit-pretrained --output_dir runs/me --check_only\n"
        "  bit-speech finetune --data recordings --base my-lab/bit-pretrained --output_dir runs/me --lexicon cmudict "
        "--lm lm.bin\n\n"
        "  The same command continues a run that was stopped; other settings need another --output_dir.",
    )
    parser.prog = "bit-speech finetune"
    (arguments,) = parser.parse(argv)
    output = Path(arguments.output_dir)
    if not arguments.check_only:
        parser.save_beside(output, write=False)

    from transformers import set_seed

    from bit_speech.evaluation.data_report import describe_data, write_data_report

    set_seed(arguments.seed)
    trials = _read(Path(arguments.data), output, arguments.seed)
    report = describe_data(trials)
    print(report)
    page = write_data_report(output / "data_report", report, f"Recordings of {', '.join(report.participants)}")
    print(f"data report: {page}\n")
    training = _labelled(trials["train"], "train")
    base = _base_config(arguments.base)
    settings = choose_settings(
        report.splits["train"]["minutes"],
        len(training),
        report.normalization.kind,
        _frames_per_phoneme(training),
        base,
    )
    print("\n".join(f"chosen: {reason}" for reason in settings.reasons))
    if arguments.check_only:
        return report.to_dict()
    parser.save_beside(output)
    trainer = _train(arguments, settings, training, _labelled(trials["validation"], "validation"), base)
    metrics = _score(arguments, trainer, trials, report)
    write_text(output / "card.yaml", _card(arguments, report, training))
    print(
        f"\nmodel:   {output / 'model'}\nscores:  {output / 'metrics.json'}\nreport:  {output / 'report/report.html'}\n"
        f"next:    fill in {output / 'card.yaml'}, then\n"
        f"         bit-speech publish --model {output / 'model'} --repo_id YOU/NAME"
    )
    return metrics


def _read(data: Path, output: Path, seed: int) -> DatasetDict:
    """Open trials, or convert recordings first; hold blocks out when nothing is held out."""
    from bit_speech.data import load_trials, split_by_block

    configs = sorted(data.glob("*.yaml")) if data.is_dir() else []
    if configs and not (data / "data").is_dir():
        if len(configs) > 1:
            raise ValueError(
                f"{data} holds {', '.join(c.name for c in configs)}; leave one, which says where things are"
            )
        converted = importlib.import_module("datasets_scripts.convert_participant").convert(
            configs[0], output / "trials"
        )
        print(converted)
        data = converted.output_dir
    elif data.is_dir() and not (data / "data").is_dir():
        raise FileNotFoundError(
            f"{data} holds neither trials nor a YAML file that says where things are; begin with: "
            f"bit-speech convert participant --example > {data / 'participant.yaml'}"
        )
    trials = load_trials(data)
    if "train" not in trials:
        raise ValueError(f"{data} has no split 'train', only {', '.join(trials)}; put recordings into it to train on")
    if "validation" not in trials:
        parts = split_by_block(
            trials["train"], {"train": 1 - _HELD_OUT, "validation": _HELD_OUT}, seed=seed, on_repeated_sentence="drop"
        )
        print(f"held out for validation: {len(parts['validation'])} trials, in whole blocks")
        trials = type(trials)({**trials, **parts})
    return trials


def _labelled(trials: Dataset, split: str) -> Dataset:
    texts, phonemes = list(trials["text"]), list(trials["phonemes"])
    keep = [i for i, labels in enumerate(zip(texts, phonemes)) if labels != (None, None)]
    if not keep:
        raise ValueError(f"no trial of split {split!r} has a text or phonemes; there is nothing to learn from")
    return trials if len(keep) == len(trials) else trials.select(keep)


def _frames_per_phoneme(trials: Dataset) -> float:
    """Patches of 5 bins per phoneme, median over at most 200 trials."""
    import numpy as np

    from processing_bit.tokenization_phoneme import PhonemeTokenizer

    tokenizer = PhonemeTokenizer()
    chosen = trials.select(range(0, len(trials), max(1, len(trials) // 200)))
    ratios = []
    for trial in chosen:
        known = trial["phonemes"]
        phonemes = known.split() if known is not None else tokenizer.phonemize(trial["text"])
        ratios.append(len(trial["features"]) / 5 / max(1, len(phonemes)))
    return float(np.median(ratios))


def _base_config(base: str | None) -> dict[str, Any] | None:
    if base is None:
        return None
    from transformers import AutoConfig

    import bit_speech  # noqa: F401  (registers the models with the Auto classes)

    try:
        config = AutoConfig.from_pretrained(base)
    except OSError as error:
        raise FileNotFoundError(f"--base {base}: {error}") from error
    if config.model_type != "bit_speech":
        raise ValueError(f"--base {base} is a {config.model_type!r}; give an encoder or CTC model of BIT")
    if config.read_in != "participant":
        raise ValueError(f"--base {base} has layers for each of its sessions; give one with read_in 'participant'")
    return dict(config.to_dict())


def _build(
    arguments: FinetuneArguments, settings: Settings, trials: Dataset, base: dict[str, Any] | None
) -> tuple[Any, Any]:
    """Model and processor; with a checkpoint, its encoder, its read-in of this participant, and its phoneme head."""
    import torch

    from configuration_bit.configuration_bit import BITConfig
    from modeling_bit.modeling_bit import BITForCTC, BITModel
    from modeling_bit.transfer_bit import load_pretrained_encoder
    from processing_bit.feature_extraction_bit import BITFeatureExtractor
    from processing_bit.processing_bit import BITProcessor
    from processing_bit.tokenization_phoneme import PhonemeTokenizer

    first = trials[0]
    name, channels = str(first["participant_id"]), first["features"].shape[1]
    extractor = BITFeatureExtractor(
        participants={name: channels},
        normalization=arguments.normalization or settings.normalization,
        bin_size_ms=float(first["bin_size_ms"]),
    )
    processor = BITProcessor(extractor, PhonemeTokenizer())
    if base is None:
        return BITForCTC(BITConfig(participants={name: channels}, **settings.model)), processor
    values = {**base, "participants": {name: channels}, "sessions": [], "causal": base["causal"], **settings.model}
    model = BITForCTC(BITConfig.from_dict(values))
    is_ctc = (base.get("architectures") or [None])[0] == "BITForCTC"
    source = (BITForCTC if is_ctc else BITModel).from_pretrained(str(arguments.base))
    before = base["participants"].get(name)
    if before not in (None, channels):
        raise ValueError(
            f"participant {name!r} has {before} channels in --base and {channels} now: give the recordings another "
            "participant_id, or use examples/train_bit_ctc.py --pretrained"
        )
    print("read-in:", load_pretrained_encoder(model, source)[name])
    if is_ctc:
        teacher = name if name in source.head else next(iter(source.head))
        with torch.no_grad():
            model.head[name].load_state_dict(source.head[teacher].state_dict())
        print(f"phoneme head: that of {teacher}")
    return model, processor


def _train(
    arguments: FinetuneArguments,
    settings: Settings,
    training: Dataset,
    validation: Dataset,
    base: dict[str, Any] | None,
) -> BITTrainer:
    from bit_speech.data import Augmentation
    from bit_speech.training import BITTrainer, BITTrainingArguments, newest_complete_checkpoint

    participants = sorted(set(training["participant_id"]))
    if len(participants) > 1:
        raise ValueError(f"the trials are of {', '.join(participants)}; this command fits one participant at a time")
    model, processor = _build(arguments, settings, training, base)
    given = ("num_train_epochs", "per_device_train_batch_size", "learning_rate")
    training_arguments = BITTrainingArguments(
        output_dir=str(Path(arguments.output_dir) / "training"),
        **{name: getattr(arguments, name) or getattr(settings, name) for name in given},
        max_steps=arguments.max_steps,
        warmup_steps=0.05,
        eval_strategy="steps",
        eval_steps=0.1,
        save_strategy="steps",
        save_steps=0.1,
        skip_short_trials=True,
        use_cpu=arguments.use_cpu,
        seed=arguments.seed,
    )
    trainer = BITTrainer(
        model, training_arguments, training, validation, processing_class=processor,
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
    )  # fmt: skip
    checkpoint = newest_complete_checkpoint(training_arguments.output_dir)
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    trainer.save_model(str(Path(arguments.output_dir) / "model"))
    return trainer


def _score(
    arguments: FinetuneArguments, trainer: BITTrainer, trials: DatasetDict, report: DataReport
) -> dict[str, Any]:
    """Score validation and test, write metrics, predictions and the report, and save the decoder beside the model."""
    from bit_speech.decoding import tune_decoder
    from bit_speech.evaluation.report import write_report
    from bit_speech.processor_with_decoder import BITProcessorWithDecoder
    from bit_speech.training.run_record import finite

    output = Path(arguments.output_dir)
    decoder = load_decoder(arguments.lexicon, arguments.lm, beam_size=arguments.beam_size)
    evaluations = []
    for split in [name for name in ("validation", "test") if name in trials and report.splits[name]["num_labelled"]]:
        dataset = _labelled(trials[split], split)
        log_probs = trainer.predict_log_probs(dataset)
        if decoder is not None and split == "validation" and all(text is not None for text in dataset["text"]):
            decoder = tune_decoder(log_probs, list(dataset["text"]), decoder)
            processor = BITProcessorWithDecoder(trainer.processing_class, decoder)
            processor.save_pretrained(output / "model")
        transcripts, rows = _transcribe(trainer, dataset, log_probs, decoder)
        name = f"{split}, which chose the checkpoint" if split == "validation" else split
        evaluations.append({"split": name, "num_trials": len(rows), **transcripts.to_dict()})
        scored = report_rows(rows, transcripts, log_probs)
        for unit in ("per", "wer"):
            rate = getattr(transcripts, unit)
            print(f"{unit.upper()} on {split}: {rate if rate is not None else 'not scored'}")
    write_predictions(output / "predictions.jsonl", scored)
    write_report(
        output / "report",
        title=f"{', '.join(report.participants)}: {split}",
        trials=scored,
        learning_curve=trainer.state.log_history,
        description=f"{len(scored)} trials of split {split}. Trained on {len(trainer.train_dataset)} trials.",
    )
    metrics = {**trainer.run_record(), "evaluations": finite(evaluations), "finetune": finite(asdict(arguments))}
    write_json(output / "metrics.json", metrics)
    return metrics


def _transcribe(
    trainer: BITTrainer, dataset: Dataset, log_probs: Sequence[Any], decoder: Any
) -> tuple[Transcripts, list[dict[str, Any]]]:
    tokenizer = trainer.processing_class.tokenizer
    rows = []
    for trial in dataset:
        phonemes = trial["phonemes"]
        rows.append(
            {**trial, "phonemes": " ".join(tokenizer.phonemize(trial["text"])) if phonemes is None else phonemes}
        )
    texts, phonemes = [row["text"] for row in rows], [row["phonemes"] for row in rows]
    return transcribe(log_probs, decoder, texts=texts, phonemes=phonemes), rows


def _card(arguments: FinetuneArguments, report: DataReport, trials: Dataset) -> str:
    """Facts for the model card, as far as the trials know them; the rest is left to people."""
    first = trials[0]
    # What the sources of all trials begin with; the rest names files.
    source = " ".join(os.path.commonprefix([str(source).split() for source in trials["source"]]))
    areas = list(dict.fromkeys(first["channel_areas"]))
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in report.feature_kinds.items())
    facts = {
        "title": f"A decoder of {first['task'].replace('_', ' ')} for {', '.join(report.participants)}",
        "simulated": "simulated" in source.lower(),
        "task": str(first["task"]),
        "implant": f"channels in {', '.join(areas)}: {kinds}",
        "data": source or None,
        "data_licence": str(first["licence"]),
        "base_model": arguments.base if arguments.base and not Path(arguments.base).exists() else None,
        "licence": None,
        "participants": None,
        "consent": None,
        "intended_use": None,
        "latency": None,
        "contact": None,
    }
    return "# Facts for the model card; fill in what is null. All keys: bit-speech publish --example\n" + dump_config(
        facts
    )
