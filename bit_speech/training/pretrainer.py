"""`BITPretrainer`: self-supervised training on a corpus of many participants."""

from __future__ import annotations

import copy
import logging
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy

from bit_speech.data.pretraining_corpus import CorpusBatchSampler, PretrainingCorpus
from bit_speech.data.resident_corpus import ResidentCorpus
from bit_speech.training.batches import LengthSortedBatchSampler
from bit_speech.training.pretraining_arguments import BITPretrainingArguments
from bit_speech.training.pretraining_batches import EpochKeys, MaskedBatches
from bit_speech.training.pretraining_input import PretrainingInput
from bit_speech.training.run_record import describe_run
from bit_speech.training.surviving import SurvivingTrainer
from bit_speech.training.throughput import peak_flops, training_flops
from processing_bit.feature_extraction_bit import BITFeatureExtractor

if TYPE_CHECKING:
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling

logger = logging.getLogger(__name__)

# Trials are sorted by length within so many batches: 4 % of the patches are padding then, 10 % with 8.
_BUCKET_BATCHES = 32
_INPUTS = ("input_features", "attention_mask", "participant_index", "time_mask", "labels")


class BITPretrainer(SurvivingTrainer):
    """Trains [`BITForMaskedModeling`] on a [`~bit_speech.data.PretrainingCorpus`].

    Every batch holds one participant and trials of like length. What the encoder sees is smoothed and noisy, the target
    is raw. Masks are a function of (seed, epoch, trial), noise and dropout come from torch's generator.

    Args:
        model ([`BITForMaskedModeling`], *optional*): knows the participants of the corpus.
        args ([`BITPretrainingArguments`], *optional*): settings.
        train_dataset ([`~bit_speech.data.PretrainingCorpus`], *optional*): what is learnt.
        eval_dataset ([`~bit_speech.data.PretrainingCorpus`], *optional*): other trials, with masks that never change.
            None turns evaluation off.
        callbacks (list of `TrainerCallback`, *optional*): as in `Trainer`.
        optimizers (`tuple`, *optional*): optimizer and schedule of your own, as in `Trainer`.
        model_init (callable, *optional*): makes a fresh model, for hyperparameter search; instead of `model`.

    Raises:
        ValueError: before the first step, when the model does not know a participant of a corpus or its channels.

    Note:
        The loss of an update is the mean over its masked patches, however many accumulation steps and processes share
        them.

    Example:
        ```python
        corpus = PretrainingCorpus("runs/corpus")
        model = BITForMaskedModeling(BITConfig(participants=corpus.participants, mask_ratio=0.5))
        BITPretrainer(model, BITPretrainingArguments(output_dir="runs/bit_all"), corpus).train()
        ```
    """

    def __init__(
        self,
        model: BITForMaskedModeling | None = None,
        args: BITPretrainingArguments | None = None,
        train_dataset: PretrainingCorpus | None = None,
        eval_dataset: PretrainingCorpus | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        model_init: Any | None = None,
    ):
        args = args if args is not None else BITPretrainingArguments(output_dir="runs/bit_pretraining")
        if eval_dataset is None and args.eval_strategy != IntervalStrategy.NO:
            # Without trials to score there is no best checkpoint; the caller's object stays as it is.
            args = copy.copy(args)
            args.eval_strategy = IntervalStrategy.NO
            args.load_best_model_at_end = False
        self._update_patches = 1
        self._clock: float | None = None
        self._peak_flops: float | None = None
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
            model_init=model_init,
        )
        config = self.model.config
        for name in ("train_dataset", "eval_dataset"):
            corpus = getattr(self, name)
            if corpus is not None:
                setattr(self, name, _usable(corpus, config, name))
        # Saved with the model: it says how the signal was prepared, and which kinds of channels the read-ins know.
        stored = getattr(train_dataset if train_dataset is not None else eval_dataset, "settings", {})
        self.processing_class = BITFeatureExtractor(
            participants=config.participants,
            normalization=stored.get("normalization", "block"),
            smoothing_sd_bins=args.smoothing_sd_bins,
            smoothing="causal" if args.causal_smoothing else "symmetric",
            feature_kinds=stored.get("feature_kinds"),
        )
        kernel = torch.from_numpy(self.processing_class.smoothing_kernel()[::-1].copy())
        self._input = PretrainingInput(
            kernel=kernel,
            left=len(kernel) - 1 if args.causal_smoothing else len(kernel) // 2,
            patch_size=config.patch_size,
            white_noise_sd=args.white_noise_sd,
            constant_offset_sd=args.constant_offset_sd,
        )
        if config.causal and not args.causal_smoothing and len(kernel) > 1:
            raise ValueError(
                "a causal encoder would see the future through symmetric smoothing: set causal_smoothing=True, or "
                "smoothing_sd_bins=0"
            )

    # ---- data ----

    def get_train_dataloader(self) -> DataLoader:
        """Build the loader of training batches.

        Returns:
            `DataLoader`: batches of this process; their order is a function of seed and epoch.

        Raises:
            ValueError: when the trainer was made without a corpus.
        """
        if self.train_dataset is None:
            raise ValueError("training needs train_dataset, which was not given")
        corpus: PretrainingCorpus = self.train_dataset
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        sampler = CorpusBatchSampler(
            corpus.num_bins,
            corpus.dataset_index,
            batch_size=self._train_batch_size,
            temperature=self.args.mixing_temperature,
            weights=corpus.weights,
            seed=seed,
            patch_size=self.model.config.patch_size,
            bucket_batches=_BUCKET_BATCHES,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
        )
        stored = ResidentCorpus(corpus, self.args.device) if self.args.corpus_on_device else corpus
        batches = MaskedBatches(stored, self.model.config, seed, shuffle_time=self.args.shuffle_time)
        return self._loader(batches, EpochKeys(sampler))

    def get_eval_dataloader(self, eval_dataset: PretrainingCorpus | None = None) -> DataLoader:
        """Build the loader of evaluation batches: every trial once, with the same mask in every evaluation.

        Args:
            eval_dataset ([`~bit_speech.data.PretrainingCorpus`], *optional*): a corpus; default the trainer's own.

        Returns:
            `DataLoader`: batches of this process.

        Raises:
            ValueError: when there is no corpus.
        """
        corpus = self.eval_dataset if eval_dataset is None else _usable(eval_dataset, self.model.config, "eval_dataset")
        if corpus is None:
            raise ValueError("evaluation needs a corpus: give eval_dataset to the trainer or to evaluate()")
        sampler = LengthSortedBatchSampler(
            [(int(dataset),) for dataset in corpus.dataset_index],
            [int(bins) for bins in corpus.num_bins],
            self.args.eval_batch_size,
            self.args.world_size,
            self.args.process_index,
        )
        return self._loader(MaskedBatches(corpus, self.model.config, seed=0), sampler)

    # ---- optimisation ----

    def _num_targets(self, batch: dict[str, torch.Tensor]) -> int:
        """Patches of a batch that count in its loss."""
        if "time_mask" in batch:
            return int(batch["time_mask"].sum())
        frames = batch["num_bins"] // self.model.config.patch_size
        return int((frames - 1).clamp(min=0).sum())

    def _begin_update(self, batches: list[dict[str, torch.Tensor]], counts: list[int]) -> None:
        super()._begin_update(batches, counts)
        if self._clock is None:
            self._clock, self._patches, self._flops = time.perf_counter(), 0, 0
        _, self._update_patches, patches, flops = counts
        self._patches += patches
        self._flops += flops

    def _counts(self, batch: dict[str, torch.Tensor]) -> tuple[int, ...]:
        """Bins, patches that count in the loss, patches, and operations of a batch."""
        config, bins, targets = self.model.config, batch["num_bins"], self._num_targets(batch)
        frames = bins // config.patch_size
        batch["num_targets"] = torch.tensor(targets)
        flops = training_flops(
            config,
            frames=int(frames.sum()),
            pairs=int(frames.square().sum()),
            channels=batch["input_features"].shape[2],
            hidden=targets if "time_mask" in batch else 0,
        )
        return int(bins.sum()), targets, int(frames.sum()), flops

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as [`SurvivingTrainer`] does, with the speed since the last log.

        Args:
            logs (`dict[str, float]`): the values; training losses get `patches_per_second` and, where the machine's
                peak is known, `model_flops_utilisation`, both over all processes.
            start_time (`float`, *optional*): as in `Trainer`.
        """
        if "loss" in logs and self._clock is not None:
            seconds = time.perf_counter() - self._clock
            logs["patches_per_second"] = self._patches / seconds
            if self._peak_flops is None:
                dtype = torch.bfloat16 if self.args.bf16 else torch.float32
                self._peak_flops = peak_flops(self.args.device, dtype) or float("nan")
            if self._peak_flops == self._peak_flops:
                logs["model_flops_utilisation"] = self._flops / seconds / (self._peak_flops * self.args.world_size)
            self._clock = None  # until the next batch: evaluating and saving do not count
        super().log(logs, start_time)

    def _seen(self, inputs: dict[str, torch.Tensor], training: bool) -> dict[str, torch.Tensor]:
        """Model inputs of a batch: what the encoder sees, and the raw values as labels."""
        raw = inputs["input_features"]
        seen = self._input(raw, inputs["attention_mask"], inputs.get("time_mask"), training)
        return {"labels": raw, **{key: inputs[key] for key in _INPUTS if key in inputs}, "input_features": seen}

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        # In training: its sum over accumulation steps, averaged over processes as gradients are, is the loss over all
        # masked patches of the update.
        outputs = model(**self._seen(inputs, model.training))
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        if model.training:
            share = int(inputs["num_targets"]) / max(1, self._update_patches)
            # transformers divides by the accumulation steps afterwards.
            loss = loss * (self.args.world_size * self.current_gradient_accumulation_steps * share)
        return loss, outputs

    # ---- evaluation ----

    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Score the reconstruction of hidden patches, participant by participant.

        Metrics are `<prefix>_loss` (mean over hidden patches), `<prefix>_r2_<participant>` (share of the variance
        around each channel's mean that is explained, pooled over all trials) and `<prefix>_r2`, their mean.
        """
        names = list(self.model.config.participants)
        sums: dict[str, dict[str, Any]] = {}
        for batch, model in self._read(dataloader):
            outputs = model(**self._seen(self._prepare_inputs(batch), training=False))
            name = names[int(batch["participant_index"][0])]
            _add(sums.setdefault(name, {}), _sums_of(outputs, model.config.patch_size))
        pooled: dict[str, dict[str, Any]] = {}
        for part in self._gather([sums]):
            for name, values in part.items():
                _add(pooled.setdefault(name, {}), values)
        metrics = {}
        for name, values in sorted(pooled.items()):
            spread = (values["square"] - values["sum"] ** 2 / np.maximum(values["bins"], 1)).sum()
            metrics[f"{prefix}_r2_{name}"] = float(1 - values["error"] / spread) if spread > 0 else 0.0
        metrics[f"{prefix}_r2"] = float(np.mean(list(metrics.values())))
        total = sum(values["patches"] for values in pooled.values())
        metrics[f"{prefix}_loss"] = sum(values["loss"] for values in pooled.values()) / max(1, total)
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(dataloader.dataset))

    # ---- the record ----

    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: settings, model, corpus, seeds, code, machine, seconds, bins, memory, best and last scores.
        """
        corpora = {"train": self.train_dataset, "eval": self.eval_dataset}
        return describe_run(
            self,
            corpus={name: _describe(corpus) for name, corpus in corpora.items() if corpus is not None},
            feature_extractor=self.processing_class.to_dict(),
        )


def _usable(corpus: PretrainingCorpus, config: Any, name: str) -> PretrainingCorpus:
    """The corpus without items shorter than a patch, after checking that the model can read it."""
    for participant, channels in corpus.participants.items():
        known = config.participants.get(participant)
        if known != channels:
            raise ValueError(
                f"{name} has participant {participant!r} with {channels} channels, the model knows "
                f"{'it not' if known is None else f'it with {known}'}: build the model with "
                "participants=corpus.participants"
            )
    long_enough = np.flatnonzero(np.asarray(corpus.num_bins) >= config.patch_size)
    if len(long_enough) == len(corpus):
        return corpus
    logger.warning(
        "%d of %d items of %s are shorter than a patch of %d bins; they are left out",
        len(corpus) - len(long_enough),
        len(corpus),
        name,
        config.patch_size,
    )
    return corpus.select([int(i) for i in long_enough])


def _describe(corpus: PretrainingCorpus) -> dict[str, Any]:
    return {"items": len(corpus), "hours": round(corpus.hours, 4), "participants": corpus.participants}


def _sums_of(outputs: Any, patch_size: int) -> dict[str, Any]:
    """What can be added up over batches to give loss and explained variance."""
    target, prediction = outputs["target"].double(), outputs["prediction"].double()
    bins = target.unflatten(1, (patch_size, -1)).flatten(0, 1)
    return {
        "error": float((prediction - target).square().sum()),
        "sum": bins.sum(dim=0).cpu().numpy(),
        "square": bins.square().sum(dim=0).cpu().numpy(),
        "bins": len(bins),
        "patches": len(target),
        "loss": float(outputs["loss"]) * len(target),
    }


def _add(total: dict[str, Any], part: dict[str, Any]) -> None:
    for key, value in part.items():
        total[key] = total[key] + value if key in total else value
