"""`BITTrainer`: transformers' `Trainer` on neural trials, with phoneme error rates and runs that survive a kill."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy

from bit_speech.ctc import collapse, required_frames
from bit_speech.training.batches import EpochBatchSampler, LengthSortedBatchSampler
from bit_speech.training.prepared_trials import PreparedTrials, name_trial
from bit_speech.training.run_record import describe_run
from bit_speech.training.scoring import phoneme_scores
from bit_speech.training.surviving import SurvivingTrainer
from bit_speech.training.training_arguments import BITTrainingArguments

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from bit_speech.data import Augmentation

logger = logging.getLogger(__name__)

_LISTED = 10


class BITTrainer(SurvivingTrainer):
    """Trains and evaluates a CTC model on datasets of trials.

    Give it raw trials: it selects, z-scores and smooths them with the processor (once, kept in memory while they fit),
    augments them anew in every epoch, makes batches of one participant and like length, and scores phoneme error rates.

    Args:
        model ([`BITForCTC`], [`BITGRUForCTC`] or alike): takes the processor's batch, returns `loss`, `logits`,
            `frame_mask`.
        args ([`BITTrainingArguments`]): settings.
        train_dataset (trials, *optional*): `datasets.Dataset` or list of rows with the `Trial` columns.
        eval_dataset (trials, *optional*): the same, for evaluation during training. None turns evaluation off.
        processing_class ([`BITProcessor`]): belongs to the model and is saved with it.
        augmentation ([`~bit_speech.data.Augmentation`], *optional*): applied to training trials.
        callbacks (list of `TrainerCallback`, *optional*): as in `Trainer`.
        optimizers (`tuple`, *optional*): optimizer and schedule of your own, as in `Trainer`.
        model_init (callable, *optional*): makes a fresh model, for hyperparameter search; instead of `model`.

    Raises:
        ValueError: before the first step, for a dataset without trials, trials without labels, of unknown participants
            or sessions, or with fewer frames than CTC needs for their labels (unless `args.skip_short_trials`).

    Note:
        Results do not depend on how a batch is cut: the loss of an update is the mean over its trials, however many
        accumulation steps and processes share them, also when they share them unevenly. Augmentation is a function of
        (seed, epoch, trial), dropout continues from the checkpoint: a run that was killed and resumed repeats, step for
        step, the losses of one that was not.
    """

    def __init__(
        self,
        model: PreTrainedModel | None = None,
        args: BITTrainingArguments | None = None,
        train_dataset: Any | None = None,
        eval_dataset: Any | None = None,
        processing_class: Any | None = None,
        augmentation: Augmentation | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        model_init: Any | None = None,
    ):
        if processing_class is None:
            raise ValueError("processing_class is missing: give the BITProcessor that belongs to the model")
        args = args if args is not None else BITTrainingArguments(output_dir="runs/bit")
        if eval_dataset is None and args.eval_strategy != IntervalStrategy.NO:
            # Without trials to score there is no best checkpoint; the caller's object stays as it is.
            args = copy.copy(args)
            args.eval_strategy = IntervalStrategy.NO
            args.load_best_model_at_end = False
        self.augmentation = augmentation
        self._prepared: dict[int, tuple[Any, PreparedTrials]] = {}
        self._update_trials = 1
        self.skipped_trials: list[str] = []
        super().__init__(
            model=model,
            args=args,
            data_collator=_refuse_rows,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            model_init=model_init,
        )
        if train_dataset is not None:
            self.train_dataset = self._check_lengths(
                self._prepare_trials(
                    train_dataset,
                    name="training set",
                    augmentation=augmentation,
                    seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
                    cache_gigabytes=self.args.cache_gigabytes,
                    fit_sessions=True,
                )
            )
        # Trials that cannot be scored are refused now, not after an epoch.
        self.evaluation_sets()

    # ---- data ----

    def _prepare_trials(self, dataset: Any, **settings: Any) -> PreparedTrials:
        """What a dataset becomes; a subclass whose labels are not phonemes makes something else of it."""
        return PreparedTrials(dataset, self.processing_class, **settings)

    def _evaluation_trials(self, dataset: Any, needs_labels: bool = True) -> PreparedTrials:
        """Prepare a dataset without augmentation, once per dataset object."""
        if isinstance(dataset, PreparedTrials):
            return dataset
        if id(dataset) not in self._prepared:
            prepared = self._prepare_trials(
                dataset, name="evaluation set", cache_gigabytes=self.args.cache_gigabytes, needs_labels=False
            )
            # The dataset is kept with its preparation, so that its id stays its own.
            self._prepared = {id(dataset): (dataset, prepared), **dict(list(self._prepared.items())[:3])}
        prepared = self._prepared[id(dataset)][1]
        if needs_labels:
            prepared.require_labels()
        return prepared

    def evaluation_sets(self) -> dict[str, PreparedTrials]:
        """The evaluation trials of this trainer.

        Returns:
            `dict[str, PreparedTrials]`: by name; one set without a name is called `eval`.

        Raises:
            ValueError: when trials are of unknown participants or sessions, or lack labels.
        """
        if self.eval_dataset is None:
            return {}
        named = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"eval": self.eval_dataset}
        return {name: self._evaluation_trials(dataset) for name, dataset in named.items()}

    def _num_frames(self, num_bins: int) -> int:
        return int(self.accelerator.unwrap_model(self.model).num_frames(num_bins))

    def _check_lengths(self, trials: PreparedTrials) -> PreparedTrials:
        """Refuse, or leave out and report, the trials that CTC cannot align."""
        cut = getattr(self.augmentation, "random_cut_max_bins", 0)
        short, keep = [], []
        for i, length in enumerate(trials.lengths):
            frames, needed = self._num_frames(max(0, length - cut)), trials.frames_needed(i)
            if frames < needed:
                short.append(f"{name_trial(trials.metadata[i])} ({frames} frames for {needed})")
            else:
                keep.append(i)
        self.skipped_trials = short
        if not short:
            return trials
        listed = ", ".join(short[:_LISTED]) + (f" and {len(short) - _LISTED} more" if len(short) > _LISTED else "")
        message = (
            f"{len(short)} of {len(trials)} training trials have fewer frames than CTC needs for their labels: {listed}"
        )
        if not self.args.skip_short_trials or not keep:
            raise ValueError(
                f"{message}. Check their labels, use a smaller patch_stride, or leave them out with "
                "skip_short_trials=True"
            )
        logger.warning("%s; they are left out", message)
        return trials.subset(keep)

    def get_train_dataloader(self) -> DataLoader:
        """Build the loader of augmented training batches.

        Returns:
            `DataLoader`: batches of this process; their order is a function of seed and epoch.

        Raises:
            ValueError: when the trainer was made without a training set.
        """
        if self.train_dataset is None:
            raise ValueError("training needs train_dataset, which was not given")
        trials: PreparedTrials = self.train_dataset
        sampler = EpochBatchSampler(
            trials.participant_ids,
            trials.session_ids,
            trials.lengths,
            batch_size=self._train_batch_size,
            seed=trials.seed,
            sessions_per_batch=self.args.sessions_per_batch,
            drop_last=self.args.dataloader_drop_last,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
        )
        return self._loader(trials, sampler)

    def get_eval_dataloader(self, eval_dataset: Any | None = None) -> DataLoader:
        """Build the loader of evaluation batches: like lengths together, every trial once.

        Args:
            eval_dataset (trials or `str`, *optional*): a dataset, the name of one of several, or None for the trainer's
                own.

        Returns:
            `DataLoader`: batches of this process; `trial_index` says which trials they hold.

        Raises:
            ValueError: when there is no dataset, or trials lack labels.
        """
        if isinstance(eval_dataset, str):
            eval_dataset = self.eval_dataset[eval_dataset]
        eval_dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if eval_dataset is None:
            raise ValueError("evaluation needs a dataset: give eval_dataset to the trainer or to evaluate()")
        return self._evaluation_loader(self._evaluation_trials(eval_dataset))

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader:
        """Build the loader of trials to predict; labels are not needed.

        Args:
            test_dataset (trials): a dataset.

        Returns:
            `DataLoader`: as [`get_eval_dataloader`].
        """
        return self._evaluation_loader(self._evaluation_trials(test_dataset, needs_labels=False))

    def _evaluation_loader(self, trials: PreparedTrials) -> DataLoader:
        # Trials that CTC cannot align get batches of their own: they count as errors but have no finite loss.
        groups = []
        for row, length, labels in zip(trials.metadata, trials.lengths, trials.labels):
            frames = self._num_frames(length)
            aligned = labels is not None and frames >= max(1, required_frames(labels))
            groups.append((row["participant_id"], aligned, frames > 0))
        sampler = LengthSortedBatchSampler(
            groups, trials.lengths, self.args.eval_batch_size, self.args.world_size, self.args.process_index
        )
        return self._loader(trials, sampler)

    # ---- optimisation ----

    def _counts(self, batch: dict[str, torch.Tensor]) -> tuple[int, ...]:
        return int(batch["attention_mask"].sum()), len(batch["trial_index"])

    def _begin_update(self, batches: list[dict[str, torch.Tensor]], counts: list[int]) -> None:
        super()._begin_update(batches, counts)
        self._update_trials = counts[1]

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        # In training: its sum over accumulation steps, averaged over processes as gradients are, is the loss over all
        # trials of the update.
        inputs = {key: value for key, value in inputs.items() if key != "trial_index"}
        outputs = model(**inputs)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        if model.training:
            scale: float = self.args.world_size * self.current_gradient_accumulation_steps
            if getattr(self.model.config, "ctc_loss_reduction", "mean") == "mean":
                scale *= inputs["input_features"].shape[0] / self._update_trials
            # transformers divides by the accumulation steps afterwards.
            loss = loss if scale == 1 else loss * scale
        return loss, outputs

    # ---- evaluation ----

    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Score phonemes trial by trial and pool the errors.

        Predictions and label ids are lists of label sequences in the order of the dataset; metrics are `<prefix>_per`,
        `<prefix>_per_<session>` (pooled errors / pooled labels) and `<prefix>_loss` (mean over the trials that CTC can
        align).
        """
        trials: PreparedTrials = dataloader.dataset
        mean = getattr(self.model.config, "ctc_loss_reduction", "mean") == "mean"
        blank = int(getattr(self.model.config, "pad_token_id", 0) or 0)
        predictions: dict[int, list[int]] = {}
        loss_sum, loss_trials = 0.0, 0
        for batch, outputs in self._outputs(dataloader):
            indices = batch["trial_index"].tolist()
            if outputs is None:
                predictions.update({i: [] for i in indices})
                continue
            best = outputs["logits"].argmax(dim=-1).cpu().numpy()
            for i, classes, mask in zip(indices, best, outputs["frame_mask"].cpu().numpy()):
                predictions[i] = collapse(classes[mask], blank)
            if outputs.get("loss") is not None:
                loss_sum += outputs["loss"].item() * (len(indices) if mean else 1)
                loss_trials += len(indices)
        gathered = self._gather([(predictions, loss_sum, loss_trials)])
        found = {i: labels for part, _, _ in gathered for i, labels in part.items()}
        ordered = [found[i] for i in range(len(trials))]
        metrics: dict[str, float] = {}
        labels = [label for label in trials.labels if label is not None]
        if len(labels) == len(trials):
            metrics = phoneme_scores(labels, ordered, trials.session_ids, prefix)
        total = sum(count for _, _, count in gathered)
        if total:
            metrics[f"{prefix}_loss"] = sum(part for _, part, _ in gathered) / total
        return EvalLoopOutput(predictions=ordered, label_ids=trials.labels, metrics=metrics, num_samples=len(trials))

    def predict_log_probs(self, dataset: Any) -> list[np.ndarray]:
        """Compute the class log-probabilities of every trial.

        Args:
            dataset (trials): labels are not needed.

        Returns:
            `list[np.ndarray]`: per trial, in the order of the dataset, float32 of shape `(P, V)` in model class order;
            P is 0 for a trial shorter than a patch.
        """
        loader = self.get_test_dataloader(dataset)
        found: dict[int, np.ndarray] = {}
        for batch, outputs in self._outputs(loader, with_labels=False):
            indices = batch["trial_index"].tolist()
            if outputs is None:
                found.update({i: np.zeros((0, self.model.config.vocab_size), dtype=np.float32) for i in indices})
                continue
            log_probs = outputs["logits"].float().log_softmax(dim=-1).cpu().numpy()
            for i, values, mask in zip(indices, log_probs, outputs["frame_mask"].cpu().numpy()):
                found[i] = values[mask]
        found = {i: values for part in self._gather([found]) for i, values in part.items()}
        return [found[i] for i in range(len(found))]

    def _outputs(self, loader: DataLoader, with_labels: bool = True) -> Iterator[tuple[dict[str, torch.Tensor], Any]]:
        """Batches with the model's output; None instead of an output when no trial of the batch has a frame."""
        trials: PreparedTrials = loader.dataset
        for batch, model in self._read(loader):
            indices = batch["trial_index"].tolist()
            frames = [self._num_frames(trials.lengths[i]) for i in indices]
            if max(frames) == 0:
                yield batch, None
                continue
            inputs = {key: value for key, value in batch.items() if key != "trial_index"}
            aligned = all(frame >= max(1, required_frames(trials.labels[i] or [])) for frame, i in zip(frames, indices))
            if not (with_labels and aligned):
                inputs.pop("labels", None)
            yield batch, model(**self._prepare_inputs(inputs))

    # ---- the record ----

    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: settings, model, processor, augmentation, seeds, code, data, machine, seconds, bins, memory, best
                and last scores.
        """
        trials, extractor = self.train_dataset, self.processing_class.feature_extractor
        return describe_run(
            self,
            skipped_trials=self.skipped_trials,
            data_hash={
                "train": trials.content_hash() if trials is not None else None,
                **{name: prepared.content_hash() for name, prepared in self.evaluation_sets().items()},
            },
            augmentation=None if self.augmentation is None else asdict(self.augmentation),
            feature_extractor={key: value for key, value in extractor.to_dict().items() if key != "session_statistics"},
        )


def _refuse_rows(rows: Any) -> Any:
    raise ValueError("BITTrainer makes its own batches from trials; use get_train_dataloader or get_eval_dataloader")
