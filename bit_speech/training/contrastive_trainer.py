"""`ContrastiveTrainer`: trains the end-to-end decoder, and scores the sentences that it writes by itself."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from transformers.trainer_utils import EvalLoopOutput

from bit_speech.evaluation import word_error_rate
from bit_speech.training.batches import LengthSortedBatchSampler
from bit_speech.training.sentence_trials import SentenceTrials
from bit_speech.training.trainer import BITTrainer
from bit_speech.training.training_arguments import BITTrainingArguments
from modeling_bit.losses_bit import contrastive_loss

_NOT_FOR_THE_MODEL = ("trial_index", "sentence_id")
_QUEUE_NAME = "contrastive_queue.safetensors"
Vectors = dict[str, torch.Tensor]


@dataclass
class BITLLMTrainingArguments(BITTrainingArguments):
    """Settings of an end-to-end training run; every field of [`BITTrainingArguments`] is there too.

    Args:
        projector_learning_rate (`float`, *optional*): peak learning rate of the projector and the aligner, which are
            new. None gives them `learning_rate`.
        language_model_learning_rate (`float`, *optional*): peak learning rate of the language model or its adapters.
            None gives them `learning_rate`.
        negative_queue (`int`): vectors of past trials that are further negatives of the contrastive loss.
        max_new_tokens (`int`): longest answer in evaluation.
        num_beams (`int`): beams in evaluation; 1 is greedy.

    Note:
        Defaults follow arXiv 2511.21740, Table 13: learning rate 5e-5, batch 16 (T12; 8 for T15), 150 epochs, cosine
        decay, at most 25 new tokens. Departures: checkpoints are chosen by the free-running word error rate (the
        released code shows the model the true sentence when it chooses), evaluation is greedy (the paper samples, which
        makes a choice between checkpoints a matter of luck), and gradients are clipped.

    Example:
        >>> args = BITLLMTrainingArguments(output_dir="runs/example", use_cpu=True)
        >>> args.metric_for_best_model, args.max_new_tokens
        ('eval_wer', 25)
    """

    learning_rate: float = field(default=5e-5, metadata={"help": "Peak learning rate; 1e-4 is a number."})
    per_device_train_batch_size: int = field(default=16, metadata={"help": "Trials per step and device."})
    per_device_eval_batch_size: int = field(default=16, metadata={"help": "Trials per evaluation batch and device."})
    num_train_epochs: float = field(default=150.0, metadata={"help": "Passes over the training trials."})
    metric_for_best_model: str | None = field(
        default="eval_wer", metadata={"help": "What decides the best checkpoint: the free-running word error rate."}
    )
    projector_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the new parts, projector and aligner."}
    )
    language_model_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the language model or its adapters."}
    )
    negative_queue: int = field(default=0, metadata={"help": "Vectors of past trials kept as further negatives."})
    max_new_tokens: int = field(default=25, metadata={"help": "Longest answer in evaluation, in tokens."})
    num_beams: int = field(default=1, metadata={"help": "Beams in evaluation; 1 is greedy."})

    def __post_init__(self) -> None:
        """Check the settings of this stage.

        Raises:
            ValueError: when a value is out of range.
        """
        super().__post_init__()
        for name in ("projector_learning_rate", "language_model_learning_rate"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; it must be 0 (frozen) or positive")
        for name, least in (("negative_queue", 0), ("max_new_tokens", 1), ("num_beams", 1)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be at least {least}")


class ContrastiveTrainer(BITTrainer):
    """Trains [`BITForConditionalGeneration`] with cross-entropy, contrastive loss and, as an option, CTC.

    Args:
        model ([`BITForConditionalGeneration`], or that with adapters): the decoder.
        args ([`BITLLMTrainingArguments`]): settings.
        train_dataset (trials, *optional*): rows with the `Trial` columns and `text`.
        eval_dataset (trials, *optional*): the same, scored by the word error rate of what the model writes freely.
        processing_class ([`BITLLMProcessor`]): belongs to the model and is saved with it.
        **settings: as for [`BITTrainer`].

    Note:
        One update has the same gradient however its trials are cut into accumulation steps and processes. For the
        contrastive loss, whose negatives are *all* trials of the update, this takes two passes (the gradient cache of
        Gao et al. 2021, arXiv 2101.06983): first every batch's vectors without gradient, encoder and projector only;
        then the loss over all of them and its gradient at each vector; then each batch again, whose vectors are pulled
        by that gradient. Dropout is seeded by (seed, step, batch), so both passes see the same network.

    Example:
        >>> ContrastiveTrainer.__mro__[1].__name__
        'BITTrainer'
    """

    def __init__(self, model: Any = None, args: BITLLMTrainingArguments | None = None, **settings: Any):
        args = args if args is not None else BITLLMTrainingArguments(output_dir="runs/bit_llm")
        self._update: list[dict[str, Any]] = []
        self._micro_step = 0
        self._update_tokens = 1
        self._pulls: list[Vectors] = []
        self._queue: Vectors = {}
        super().__init__(model, args, **settings)

    # ---- data ----

    def _prepare_trials(self, dataset: Any, **settings: Any) -> SentenceTrials:
        return SentenceTrials(
            dataset, self.processing_class, with_phonemes=self.model.config.ctc_weight > 0, **settings
        )

    def _evaluation_loader(self, trials: Any) -> DataLoader:
        sampler = LengthSortedBatchSampler(
            [(name,) for name in trials.participant_ids], trials.lengths, self.args.eval_batch_size
        )
        batches, world = list(sampler), self.args.world_size
        own = batches[self.args.process_index :: world]
        if len(own) * world < len(batches):
            own.append(batches[0])  # a model that is spread over processes needs all of them in every step
        return self._loader(trials, own)

    # ---- optimisation ----

    def _module_rates(self) -> dict[str, float | None]:
        new = self.args.projector_learning_rate
        rates = {"neural_projector": new, "language_model": self.args.language_model_learning_rate}
        return rates | ({"aligner": new} if self.model.config.contrastive_weight > 0 else {})

    def _counts(self, batch: dict[str, Any]) -> tuple[int, ...]:
        tokens = int((batch["labels"] != -100).sum())
        return int(batch["input_features_mask"].sum()), len(batch["trial_index"]), tokens

    def _begin_update(self, batches: list[dict[str, Any]], counts: list[int]) -> None:
        super()._begin_update(batches, counts)
        self._update_tokens = counts[2]
        self._update, self._micro_step = batches, 0

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        # In training: its sum over accumulation steps, averaged over processes as gradients are, is cross-entropy per
        # token of the update, plus the weighted CTC loss per trial, plus the weighted contrastive loss over all trials.
        if not model.training:
            outputs = model(**_for_the_model(inputs))
            return outputs["loss"], outputs
        config, steps, world = self.model.config, len(self._update), self.args.world_size
        contrasts = config.contrastive_weight > 0
        alone = steps == 1 and world == 1
        if contrasts and not alone and self._micro_step == 0:
            self._pulls = self._first_pass(model)
        with self._seeded(self._micro_step):
            outputs = model(**_for_the_model(inputs))
        tokens, trials = int((inputs["labels"] != -100).sum()), len(inputs["labels"])
        loss = world * outputs["text_loss"] * (tokens / self._update_tokens)
        if outputs.get("ctc_loss") is not None:
            loss = loss + world * config.ctc_weight * outputs["ctc_loss"] * (trials / self._update_trials)
        if contrasts and alone:
            vectors = {"neural": outputs["neural_embeds"], "text": outputs["text_embeds"]}
            vectors["sentences"] = inputs["sentence_id"]
            loss = loss + config.contrastive_weight * self._contrast(vectors, outputs["logit_scale"])
            self._remember(vectors)
        elif contrasts:
            pull = self._pulls[self._micro_step]
            # Its gradient is that of the contrastive loss over the whole update; its value is that loss's share.
            drag = world * (outputs["neural_embeds"].float() * pull["neural"]).sum()
            drag = drag + world * (outputs["text_embeds"].float() * pull["text"]).sum()
            drag = drag + outputs["logit_scale"] * (pull["scale"] if self._micro_step == 0 else 0.0)
            share = pull["value"] / steps
            loss = loss + config.contrastive_weight * (drag - drag.detach() + share)
        self._micro_step += 1
        # transformers divides by the accumulation steps afterwards.
        loss = loss * steps
        return loss, outputs

    def _first_pass(self, model: nn.Module) -> list[Vectors]:
        """The gradient of the contrastive loss at every vector of this process's batches."""
        own: list[Vectors] = []
        scale = None
        for number, batch in enumerate(self._update):
            inputs = self._prepare_inputs(batch)
            with self._seeded(number), torch.no_grad(), self.compute_loss_context_manager():
                outputs = model(**_for_the_model(inputs), embeds_only=True)
            scale = outputs["logit_scale"]
            own.append(
                {
                    "neural": outputs["neural_embeds"].float().cpu(),
                    "text": outputs["text_embeds"].float().cpu(),
                    "sentences": batch["sentence_id"].cpu(),
                }
            )
        everyone = self._gather([(self.args.process_index, part) for part in own])
        whole = {key: torch.cat([part[key] for _, part in everyone]) for key in own[0]}
        neural, text = whole["neural"].requires_grad_(), whole["text"].requires_grad_()
        scale = scale.detach().cpu().requires_grad_()  # type: ignore[union-attr]
        value = self._contrast(whole, scale)
        at_neural, at_text, at_scale = torch.autograd.grad(value, (neural, text, scale))
        self._remember(whole)
        pulls, start = [], 0
        device = self.args.device
        for process, part in everyone:
            rows = slice(start, start + len(part["neural"]))
            start = rows.stop
            if process == self.args.process_index:
                pulls.append(
                    {
                        "neural": at_neural[rows].to(device),
                        "text": at_text[rows].to(device),
                        "scale": at_scale.to(device),
                        "value": value.detach().to(device),
                    }
                )
        return pulls

    def _contrast(self, vectors: Vectors, scale: torch.Tensor) -> torch.Tensor:
        """The contrastive loss with the negatives of past updates."""
        more = {f"more_{key}": value.to(vectors["neural"].device) for key, value in self._queue.items()}
        return contrastive_loss(vectors["neural"], vectors["text"], scale, vectors["sentences"], **more)

    def _remember(self, vectors: Vectors) -> None:
        """Put an update's vectors into the queue, and let the oldest go."""
        if self.args.negative_queue == 0:
            return
        for key, value in vectors.items():
            known = [self._queue[key]] if key in self._queue else []
            new = value.detach().cpu()
            self._queue[key] = torch.cat([*known, new.float() if new.is_floating_point() else new])[
                -self.args.negative_queue :
            ].contiguous()

    @contextlib.contextmanager
    def _seeded(self, number: int) -> Iterator[None]:
        """Randomness of one batch of this update: the same in both passes, and after a restart."""
        place = (self.args.seed, self.state.global_step, number, self.args.process_index)
        seed = zlib.crc32(repr(place).encode())
        devices = [self.args.device] if self.args.device.type == "cuda" else []
        with torch.random.fork_rng(devices):
            torch.manual_seed(seed)
            yield

    def _save_rng_state(self, output_dir: str) -> None:
        super()._save_rng_state(output_dir)
        if self._queue and self.args.should_save:
            save_file(self._queue, str(Path(output_dir) / _QUEUE_NAME))

    def _restore_progress(self) -> None:
        super()._restore_progress()
        file = None if self._resumed_from is None else self._resumed_from / _QUEUE_NAME
        self._queue = load_file(file) if file is not None and file.is_file() else {}

    # ---- evaluation ----

    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Let the model write every trial's sentence, and pool the word errors.

        Predictions and label ids are lists of sentences in the order of the dataset. Metrics: `<prefix>_wer` with its
        95 % interval (`_low`, `_high`), free-running; and, from a second pass that does see the sentences,
        `<prefix>_loss` per token and `<prefix>_teacher_forced_token_accuracy`.
        """
        trials: Any = dataloader.dataset
        written = self.write_sentences(trials)
        metrics: dict[str, float] = {}
        if all(trials.labels):
            rate = word_error_rate(trials.sentences, written, num_bootstrap=1000)
            metrics = {
                f"{prefix}_wer": rate.rate,
                f"{prefix}_wer_low": rate.low,
                f"{prefix}_wer_high": rate.high,
                **self._teacher_forced(trials, prefix),
            }
        return EvalLoopOutput(predictions=written, label_ids=trials.sentences, metrics=metrics, num_samples=len(trials))

    def write_sentences(self, dataset: Any, **generation: Any) -> list[str]:
        """Let the model write the sentence of every trial. The batches hold no text.

        Args:
            dataset (trials): sentences are not needed.
            **generation: arguments of `generate`; default those of the trainer's settings.

        Returns:
            `list[str]`: in the order of the dataset; empty for a trial shorter than a patch.
        """
        settings = {"max_new_tokens": self.args.max_new_tokens, "num_beams": self.args.num_beams, "do_sample": False}
        settings |= generation
        trials: Any = self._evaluation_trials(dataset, needs_labels=False)
        found: dict[int, str] = {}
        trials, readable, everything = *self._readable(trials), len(trials)
        for batch, model in self._batches(trials.without_answers()):
            inputs = self._prepare_inputs(_for_the_model(batch))
            sequences = model.generate(**inputs, pad_token_id=self.processing_class.pad_token_id, **settings)
            texts = self.processing_class.decode_answers(sequences, inputs["input_ids"].shape[1])
            each = len(texts) // len(batch["trial_index"])  # the best of several per trial comes first
            found.update(zip((readable[i] for i in batch["trial_index"].tolist()), texts[::each]))
        found = {i: text for part in self._gather([found]) for i, text in part.items()}
        return [found.get(i, "") for i in range(everything)]

    def predict_log_probs(self, dataset: Any) -> list[np.ndarray]:
        """Compute the phoneme log-probabilities of every trial, from the same encoder.

        Args:
            dataset (trials): sentences are not needed.

        Returns:
            `list[np.ndarray]`: per trial, in the order of the dataset, float32 of shape `(P, V)` in model class order;
            P is 0 for a trial shorter than a patch.

        Raises:
            ValueError: when the model has no phoneme head.
        """
        config = self.model.config
        if not config.ctc_head:
            raise ValueError("The model has no phoneme head (ctc_head=False): build it from a phoneme model.")
        trials: Any = self._evaluation_trials(dataset, needs_labels=False)
        found: dict[int, np.ndarray] = {}
        trials, readable, everything = *self._readable(trials), len(trials)
        for batch, model in self._batches(trials.without_answers()):
            inputs = self._prepare_inputs(_for_the_model(batch))
            signal = ("input_features", "input_features_mask", "session_index", "participant_index")
            _, _, logits = model.encode_neural(**{key: inputs[key] for key in signal if key in inputs})
            for i, values in zip(batch["trial_index"].tolist(), logits.float().log_softmax(dim=-1).cpu().numpy()):
                found[readable[i]] = values[: self._num_frames(trials.lengths[i])]
        found = {i: values for part in self._gather([found]) for i, values in part.items()}
        nothing = np.zeros((0, config.encoder_config.vocab_size), dtype=np.float32)
        return [found.get(i, nothing) for i in range(everything)]

    def _readable(self, trials: Any) -> tuple[Any, list[int]]:
        """The trials that have a frame, and their positions."""
        positions = [i for i, length in enumerate(trials.lengths) if self._num_frames(length) > 0]
        return (trials if len(positions) == len(trials) else trials.subset(positions)), positions

    def _teacher_forced(self, trials: Any, prefix: str) -> dict[str, float]:
        """Loss and accuracy of each next token, given the true ones before it."""
        found: dict[int, tuple[float, int, int]] = {}
        for batch, model in self._batches(self._readable(trials)[0]):
            logits = model(**self._prepare_inputs(_for_the_model(batch))).logits[:, :-1].float().cpu()
            labels = batch["labels"][:, -logits.shape[1] :]
            losses = F.cross_entropy(logits.transpose(1, 2), labels, ignore_index=-100, reduction="none").sum(dim=1)
            counted = labels != -100
            right = ((logits.argmax(dim=-1) == labels) & counted).sum(dim=1)
            rows = zip(losses.tolist(), right.tolist(), counted.sum(dim=1).tolist())
            found.update(zip(batch["trial_index"].tolist(), rows))
        found = {i: row for part in self._gather([found]) for i, row in part.items()}
        loss, correct, total = (sum(column) for column in zip(*found.values()))
        return {f"{prefix}_loss": loss / total, f"{prefix}_teacher_forced_token_accuracy": correct / total}

    def _batches(self, trials: Any) -> Iterator[tuple[dict[str, Any], Any]]:
        """Batches with the model, as [`SurvivingTrainer`] reads them."""
        model = self.accelerator.unwrap_model(self.model)
        # Generating calls the model from inside, where what is spread over processes (FSDP) is not gathered by itself.
        spread = hasattr(model, "unshard")
        if spread:
            model.unshard()
        try:
            yield from self._read(self._evaluation_loader(trials))
        finally:
            if spread:
                model.reshard()

    # ---- the record ----

    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: what [`BITTrainer.run_record`] gives, the prompt, and how many parameters learn.
        """
        learned = sum(parameter.numel() for parameter in self.model.parameters() if parameter.requires_grad)
        return {**super().run_record(), "prompt": self.processing_class.prompt, "trained_parameters": learned}


def _for_the_model(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch without what only the trainer reads."""
    return {key: value for key, value in batch.items() if key not in _NOT_FOR_THE_MODEL}
