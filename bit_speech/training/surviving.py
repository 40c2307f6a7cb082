"""`SurvivingTrainer`: transformers' `Trainer` with runs that survive a kill, and a record of what they were."""

from __future__ import annotations

import abc
import itertools
import json
import logging
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback
from transformers.trainer import TRAINING_ARGS_NAME
from transformers.trainer_utils import EvalLoopOutput

from bit_speech.files import write_json
from bit_speech.training.batches import TrialLoader
from bit_speech.training.checkpoints import (
    delete_old_checkpoints,
    is_complete,
    newest_complete_checkpoint,
    seal_checkpoint,
    set_incomplete_aside,
)
from bit_speech.training.parameter_groups import parameter_groups
from bit_speech.training.run_record import finite

logger = logging.getLogger(__name__)

METRICS_NAME = "metrics.json"
LEARNING_CURVE_NAME = "learning_curve.json"
_PROGRESS_NAME = "progress_{}.json"


class SurvivingTrainer(Trainer, abc.ABC):
    """What the trainers of this room share: whole checkpoints, exact resuming, and a record of the run.

    A run that was killed and resumed repeats, step for step, the losses of one that was not, given batches and
    randomness that are functions of seed and epoch. A subclass makes the batches and the loss, scores the evaluation
    data in `_score`, and describes itself in `run_record`.

    Args:
        callbacks (list of `TrainerCallback`, *optional*): as in `Trainer`.
        **settings: passed on to `Trainer`.
    """

    # Set by `Trainer`, whose types are not checked.
    optimizer: Any
    control: Any

    def __init__(self, *, callbacks: list[TrainerCallback] | None = None, **settings: Any):
        self._resumed_from: Path | None = None
        self.training_bins = 0
        self._seconds_before = 0.0
        self._train_started: float | None = None
        super().__init__(callbacks=[_RestoreProgress(self), *(callbacks or [])], **settings)
        # The loss is scaled in compute_loss; transformers would otherwise guess from the model's signature.
        self.model_accepts_loss_kwargs = False

    def _loader(self, batches: Any, batch_sampler: Any) -> TrialLoader:
        """Loader of what `batches.collate` makes of the items that the sampler names."""
        workers = self.args.dataloader_num_workers
        return TrialLoader(
            batches,
            batch_sampler=batch_sampler,
            collate_fn=batches.collate,
            num_workers=workers,
            pin_memory=self.args.dataloader_pin_memory and torch.cuda.is_available(),
            persistent_workers=self.args.dataloader_persistent_workers and workers > 0,
            prefetch_factor=self.args.dataloader_prefetch_factor if workers > 0 else None,
            # Its own generator: making an iterator must not move the generator that draws noise and dropout.
            generator=torch.Generator().manual_seed(self.args.seed),
        )

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer with groups for the parts of the model, with and without weight decay.

        Args:
            model (`nn.Module`, *optional*): the model; default the trainer's own.

        Returns:
            `torch.optim.Optimizer`: one group per (part, decay) that has parameters.
        """
        if self.optimizer is None:
            model = self.model if model is None else model
            optimizer_class, settings = self.get_optimizer_cls_and_kwargs(self.args, model)
            groups = parameter_groups(
                model,
                learning_rate=self.args.learning_rate,
                weight_decay=self.args.weight_decay,
                read_in_learning_rate=getattr(self.args, "read_in_learning_rate", None),
                head_learning_rate=getattr(self.args, "head_learning_rate", None),
                module_rates=self._module_rates(),
            )
            self.optimizer = optimizer_class(groups, **settings)
        return self.optimizer

    def _module_rates(self) -> dict[str, float | None]:
        """Peak rates of whole modules by their name, for models with such parts."""
        return {}

    def floating_point_ops(self, inputs: dict[str, torch.Tensor]) -> int:
        """Do not estimate operations: walking over all parameters in every step costs more than the number is worth.

        Args:
            inputs (`dict`): a batch.

        Returns:
            `int`: 0. `training_bins` counts what was read.
        """
        return 0

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log as `Trainer` does, and stop a run whose loss is not finite.

        Args:
            logs (`dict[str, float]`): the values.
            start_time (`float`, *optional*): as in `Trainer`.

        Raises:
            FloatingPointError: when the training loss is infinite or not a number.
        """
        loss = logs.get("loss")
        if loss is not None and not math.isfinite(loss):
            raise FloatingPointError(
                f"the training loss is {loss} at step {self.state.global_step}; lower learning_rate, set "
                "max_grad_norm, or look for trials with extreme values"
            )
        super().log(logs, start_time)

    def get_batch_samples(self, epoch_iterator: Iterator, num_batches: int, device: torch.device) -> tuple[list, Any]:
        """Collect the batches of one update, and add up over all processes what they hold.

        Args:
            epoch_iterator (iterator): batches of the epoch.
            num_batches (`int`): how many this process contributes.
            device (`torch.device`): where counts of several processes are added.

        Returns:
            `tuple`: the batches, and None (losses are scaled in `compute_loss`, not by transformers).
        """
        batches = list(itertools.islice(epoch_iterator, num_batches))
        if not batches:
            return batches, None
        counts = torch.tensor([self._counts(batch) for batch in batches], dtype=torch.float64).sum(dim=0)
        if self.args.world_size > 1:
            counts = counts.to(device)
            torch.distributed.all_reduce(counts)
        self._begin_update(batches, [int(value) for value in counts.tolist()])
        return batches, None

    def _counts(self, batch: dict[str, Any]) -> tuple[int, ...]:
        """What of a batch is added up over an update: the bins first."""
        return (0,)

    def _begin_update(self, batches: list[dict[str, Any]], counts: list[int]) -> None:
        """Take in the sums of `_counts` over all batches of an update, those of other processes included."""
        self.training_bins += counts[0]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Any | None = None,
    ) -> Any:
        """Loss of one batch, scaled so that an update does not depend on how its batches are cut.

        Args:
            model (`nn.Module`): the model, wrapped or not.
            inputs (`dict`): a batch.
            return_outputs (`bool`): also return the model's output.
            num_items_in_batch (*optional*): not used.

        Returns:
            `torch.Tensor`, or `tuple` of it and the output.
        """
        loss, outputs = self._loss(model, inputs)
        return (loss, outputs) if return_outputs else loss

    @abc.abstractmethod
    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Loss of one batch and the model's output."""

    def evaluation_loop(
        self,
        dataloader: DataLoader,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> EvalLoopOutput:
        """Score data in this trainer's own way, which its class describes.

        Args:
            dataloader (`DataLoader`): from `get_eval_dataloader` or `get_test_dataloader`.
            description (`str`): for the log.
            prediction_loss_only (`bool`, *optional*): not used.
            ignore_keys (`list[str]`, *optional*): not used.
            metric_key_prefix (`str`): put before the names of the metrics.

        Returns:
            `EvalLoopOutput`: predictions, if any, and metrics.
        """
        return self._score(dataloader, metric_key_prefix)

    @abc.abstractmethod
    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Predictions and metrics, whose names begin with the prefix and `_`."""

    def _read(self, dataloader: DataLoader) -> Iterator[tuple[dict[str, Any], Any]]:
        """Batches with the model in evaluation mode, and no gradient while they are used."""
        model = self.accelerator.unwrap_model(self.model)
        if model.device != self.args.device:
            model.to(self.args.device)
        was_training = model.training
        model.eval()
        try:
            for batch in dataloader:
                with torch.no_grad(), self.accelerator.autocast():
                    yield batch, model
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        finally:
            model.train(was_training)

    def _gather(self, parts: list[Any]) -> list[Any]:
        if self.args.world_size == 1:
            return parts
        collected: list[Any] = [None] * self.args.world_size
        torch.distributed.all_gather_object(collected, parts)
        return [part for process in collected for part in process]

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any | None = None,
        ignore_keys_for_eval: list[str] | None = None,
    ) -> Any:
        """Train, from the start or from a checkpoint.

        Args:
            resume_from_checkpoint (`str` or `bool`, *optional*): True continues from the newest complete checkpoint of
                `output_dir`; a path continues from that one.
            trial (*optional*): of a hyperparameter search.
            ignore_keys_for_eval (`list[str]`, *optional*): as in `Trainer`.

        Returns:
            `TrainOutput`: steps, mean loss and speed. `metrics.json` and `learning_curve.json` are in `output_dir`.

        Raises:
            ValueError: when the checkpoint is not complete, or there is none.
        """
        output_dir = Path(self.args.output_dir)
        checkpoint: Path | None = None
        if resume_from_checkpoint:
            newest = newest_complete_checkpoint(output_dir)
            if resume_from_checkpoint is True:
                if newest is None:
                    raise ValueError(
                        f"there is no complete checkpoint in {output_dir}; start without resume_from_checkpoint"
                    )
                checkpoint = newest
            else:
                checkpoint = Path(resume_from_checkpoint)
                if not is_complete(checkpoint):
                    raise ValueError(
                        f"{checkpoint} is not a complete checkpoint; the newest complete one of {output_dir} is "
                        f"{newest}"
                    )
            self.accelerator.wait_for_everyone()
            if self.is_world_process_zero():
                set_incomplete_aside(output_dir)
            self.accelerator.wait_for_everyone()
        self._resumed_from = checkpoint
        self.training_bins, self._seconds_before = 0, 0.0
        self._train_started = time.perf_counter()
        result = super().train(
            resume_from_checkpoint=str(checkpoint) if checkpoint else None,
            trial=trial,
            ignore_keys_for_eval=ignore_keys_for_eval,
        )
        self._seconds_before, self._train_started = self.training_seconds, None
        self.save_run_record()
        return result

    @property
    def training_seconds(self) -> float:
        """Seconds spent in [`train`], over all processes that took turns on this run (`float`)."""
        running = time.perf_counter() - self._train_started if self._train_started is not None else 0.0
        return self._seconds_before + running

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint, seal it, and only then delete older ones."""
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        limit, self.args.save_total_limit = self.args.save_total_limit, None
        try:
            super()._save_checkpoint(model, trial)
        finally:
            self.args.save_total_limit = limit
        progress = {
            "loss_since_log": self._tr_loss.item(),
            "last_logged_step": self._globalstep_last_logged,
            "training_bins": self.training_bins,
            "training_seconds": round(self.training_seconds, 3),
        }
        write_json(folder / _PROGRESS_NAME.format(self.args.process_index), progress)
        self.accelerator.wait_for_everyone()
        if self.args.should_save:
            seal_checkpoint(folder)
            delete_old_checkpoints(folder.parent, limit, self.state.best_model_checkpoint)
        self.accelerator.wait_for_everyone()

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save model and processor without the pickle of the arguments, which `metrics.json` holds as text."""
        super()._save(output_dir, state_dict=state_dict)
        if self.args.should_save:
            Path(output_dir or self.args.output_dir, TRAINING_ARGS_NAME).unlink(missing_ok=True)

    def _restore_progress(self) -> None:
        """Continue the running sums of a resumed run, so that its log repeats that of a run that was not stopped."""
        if self._resumed_from is None:
            return
        file = self._resumed_from / _PROGRESS_NAME.format(self.args.process_index)
        if not file.is_file():
            logger.warning(
                "%s is missing: the checkpoint was written by fewer processes; the first logged loss may differ", file
            )
            return
        progress = json.loads(file.read_text(encoding="utf-8"))
        self._tr_loss += progress["loss_since_log"]
        # The mean loss that train() returns is over the steps of this call.
        self._total_loss_scalar -= progress["loss_since_log"]
        self._globalstep_last_logged = progress["last_logged_step"]
        self.training_bins = progress["training_bins"]
        self._seconds_before = progress["training_seconds"]

    @abc.abstractmethod
    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: plain values.
        """

    def save_run_record(self, **extra: Any) -> Path | None:
        """Write `metrics.json` and `learning_curve.json` beside the checkpoints.

        Args:
            **extra: more entries of `metrics.json`, for example word error rates.

        Returns:
            `Path` or None: `metrics.json`; None on processes that do not write.
        """
        if not self.is_world_process_zero():
            return None
        folder = Path(self.args.output_dir)
        write_json(folder / LEARNING_CURVE_NAME, finite(self.state.log_history))
        return write_json(folder / METRICS_NAME, {**self.run_record(), **finite(extra)})


class _RestoreProgress(TrainerCallback):
    """Lets the trainer continue its running sums once transformers has reset them."""

    def __init__(self, trainer: SurvivingTrainer):
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `Trainer` after its own start."""
        self._trainer._restore_progress()
