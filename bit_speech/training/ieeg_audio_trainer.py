"""`IEEGAudioTrainer`: contrastive pretraining on days of sound, and finetuning on minutes of a task."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput, IntervalStrategy

from bit_speech.data.aligned_segments import WindowSet
from bit_speech.evaluation.retrieval import retrieval_ranks, score_ranks
from bit_speech.training.run_record import describe_run
from bit_speech.training.surviving import SurvivingTrainer
from bit_speech.training.training_arguments import CommonTrainingArguments
from bit_speech.training.window_batches import WindowBatches, WindowBatchSampler

if TYPE_CHECKING:
    from modeling_bit.modeling_ieeg_audio import IEEGAudioForRetrieval
    from processing_bit.processing_ieeg_audio import IEEGAudioProcessor

FINETUNE_MODES: tuple[str, ...] = ("none", "head", "full", "head_then_full")
# What `--help` of the example explains; everything else works too (`--help_all`).
IEEG_AUDIO_SETTINGS = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "learning_rate",
    "head_learning_rate",
    "finetune_mode",
    "head_share",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "bf16",
    "use_cpu",
    "seed",
    "eval_strategy",
    "save_strategy",
    "logging_steps",
)


@dataclass
class IEEGAudioTrainingArguments(CommonTrainingArguments):
    """Settings of a run; every field of `transformers.TrainingArguments` is there too.

    Args:
        finetune_mode (`str`): `"none"` trains the model as it is; the others add a linear layer (D, D) and train only
            it (`"head"`), everything (`"full"`), or first one and then the other (`"head_then_full"`).
        head_share (`float`): share of the steps of `"head_then_full"` that train the head alone.
        head_learning_rate (`float`, *optional*): rate of that layer; by default ten times `learning_rate` when
            finetuning, which then is the rate of the pretrained trunk.

    Note:
        The paper gives the batch (about 128) and nothing else; learning rate and patience follow published code of
        this family (Adam, 3e-4). It does not say whether the trunk is frozen in finetuning.

    Example:
        >>> args = IEEGAudioTrainingArguments(output_dir="runs/example", use_cpu=True, finetune_mode="full")
        >>> round(args.head_learning_rate, 6)
        0.003
    """

    per_device_train_batch_size: int = field(default=128, metadata={"help": "Windows in a batch: candidates."})
    per_device_eval_batch_size: int = field(default=256, metadata={"help": "Windows embedded at a time."})
    num_train_epochs: float = field(default=40.0, metadata={"help": "Passes over the windows."})
    learning_rate: float = field(default=3e-4, metadata={"help": "Peak learning rate; of the trunk in finetuning."})
    metric_for_best_model: str | None = field(
        default="eval_rank", metadata={"help": "What decides the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=False, metadata={"help": "Ranks: lower is better."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Peak learning rate of the added layer."})
    finetune_mode: str = field(default="none", metadata={"help": "none, head, full or head_then_full."})
    head_share: float = field(default=0.3, metadata={"help": "Share of the steps that train the head alone."})

    def __post_init__(self) -> None:
        """Check the settings that transformers does not know.

        Raises:
            ValueError: when a value is out of range.
        """
        super().__post_init__()
        if self.finetune_mode not in FINETUNE_MODES:
            raise ValueError(f"finetune_mode is {self.finetune_mode!r}; choose one of {', '.join(FINETUNE_MODES)}")
        if not 0 < self.head_share < 1:
            raise ValueError(f"head_share is {self.head_share}; it must lie between 0 and 1")
        if self.finetune_mode != "none" and self.head_learning_rate is None:
            self.head_learning_rate = 10 * self.learning_rate


class IEEGAudioTrainer(SurvivingTrainer):
    """Trains [`IEEGAudioForRetrieval`] on windows of iEEG and the sound of the same time.

    Args:
        model ([`IEEGAudioForRetrieval`]): knows the participants; gets a head when `finetune_mode` asks for one.
        args ([`IEEGAudioTrainingArguments`]): settings.
        processor ([`IEEGAudioProcessor`]): with the statistics of the training windows; saved with the model.
        train_dataset (`WindowSet` or a list of them, one a participant, *optional*): what is learnt.
        eval_dataset (`WindowSet` or a list of them, *optional*): windows of other files. None turns evaluation off.
        callbacks (list of `TrainerCallback`, *optional*): as in `Trainer`.

    Raises:
        ValueError: if model, processor and windows do not fit each other.

    Note:
        Evaluation embeds every window on every process and ranks it among all windows of its participant.

    Example:
        ```python
        trainer = IEEGAudioTrainer(model, IEEGAudioTrainingArguments(output_dir="runs/s1"), processor, train, held_out)
        trainer.train()
        trainer.evaluate()["eval_rank"]
        ```
    """

    def __init__(
        self,
        model: IEEGAudioForRetrieval,
        args: IEEGAudioTrainingArguments,
        processor: IEEGAudioProcessor,
        train_dataset: WindowSet | Sequence[WindowSet] | None = None,
        eval_dataset: WindowSet | Sequence[WindowSet] | None = None,
        callbacks: list[TrainerCallback] | None = None,
    ) -> None:
        if eval_dataset is None and args.eval_strategy != IntervalStrategy.NO:
            args = copy.copy(args)
            args.eval_strategy = IntervalStrategy.NO
            args.load_best_model_at_end = False
        if model.config.participants != processor.feature_extractor.participants:
            raise ValueError(
                f"the model reads {model.config.participants}, the processor {processor.feature_extractor.participants}"
            )
        if model.config.sessions != processor.feature_extractor.sessions:
            raise ValueError("model and processor name different sessions: give both the same list")
        if model.config.regions and model.config.regions != processor.feature_extractor.regions:
            raise ValueError("model and processor name different brain regions: give both the same list")
        if args.finetune_mode != "none":
            model.encoder.add_finetuning_head()
        # Not `processing_class`: transformers would look for the special tokens of its tokenizer.
        self.processor = processor
        super().__init__(
            model=model,
            args=args,
            train_dataset=_batches(train_dataset, processor),
            eval_dataset=_batches(eval_dataset, processor),
            callbacks=[_FreezeTrunk(self), *(callbacks or [])],
        )

    @property
    def trunk_is_frozen(self) -> bool:
        """Whether only the head learns at this step (`bool`)."""
        mode = self.args.finetune_mode
        early = self.state.global_step < self.args.head_share * max(1, self.state.max_steps)
        return mode == "head" or (mode == "head_then_full" and early)

    def trunk_parameters(self) -> list[nn.Parameter]:
        """What pretraining has learnt.

        Returns:
            `list[nn.Parameter]`: all but the added head and the temperature.
        """
        model = self.accelerator.unwrap_model(self.model)
        return [value for name, value in model.encoder.named_parameters() if not name.startswith("head.")]

    def get_train_dataloader(self) -> DataLoader:
        """Build the loader of training batches.

        Returns:
            `DataLoader`: batches of this process.

        Raises:
            ValueError: when the trainer was made without training windows.
        """
        if self.train_dataset is None:
            raise ValueError("training needs train_dataset, which was not given")
        sampler = WindowBatchSampler(
            self.train_dataset.sizes,
            self._train_batch_size,
            seed=self.args.data_seed if self.args.data_seed is not None else self.args.seed,
            num_processes=self.args.world_size,
            process_index=self.args.process_index,
        )
        return self._loader(self.train_dataset, sampler)

    def get_eval_dataloader(self, eval_dataset: Any | None = None) -> DataLoader:
        """Build the loader of evaluation batches: every window once, in order.

        Args:
            eval_dataset (`WindowSet` or a list of them, *optional*): windows; default the trainer's own.

        Returns:
            `DataLoader`: batches.

        Raises:
            ValueError: when there are no windows.
        """
        batches = self.eval_dataset if eval_dataset is None else _batches(eval_dataset, self.processor)
        if batches is None:
            raise ValueError("evaluation needs windows: give eval_dataset to the trainer or to evaluate()")
        return self._loader(batches, WindowBatchSampler(batches.sizes, self.args.eval_batch_size, shuffle=False))

    def _save(self, output_dir: str | None = None, state_dict: dict[str, torch.Tensor] | None = None) -> None:
        """Save model and processor."""
        super()._save(output_dir, state_dict=state_dict)
        if self.args.should_save:
            self.processor.save_pretrained(output_dir or self.args.output_dir)

    def _counts(self, batch: dict[str, torch.Tensor]) -> tuple[int, ...]:
        windows, bins = batch["input_features"].shape[:2]
        return (windows * bins,)

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        if model.training and self.trunk_is_frozen:
            for module in self.accelerator.unwrap_model(model).encoder.modules():
                if isinstance(module, nn.BatchNorm1d):
                    module.eval()  # running statistics are part of the trunk
        outputs = model(**inputs)
        loss = outputs["loss"] if isinstance(outputs, dict) else outputs[0]
        return loss, outputs

    @torch.no_grad()
    def embed(self, windows: WindowSet, target: str = "audio") -> np.ndarray:
        """Predicted vectors of windows.

        Args:
            windows (`WindowSet`): of one participant.
            target (`str`): `"audio"`, or one of the model's `extra_targets`.

        Returns:
            `np.ndarray` of shape `(N, D)`: float32, in the order of the windows.

        Raises:
            ValueError: if the model does not look for that target.
        """
        self._columns(target)
        return self._embed(self.get_eval_dataloader(windows))[0][0][target]

    def wanted(self, windows: WindowSet, target: str = "audio") -> np.ndarray:
        """The vectors that should be found.

        Args:
            windows (`WindowSet`): of one participant.
            target (`str`): `"audio"`, or one of the model's `extra_targets`.

        Returns:
            `np.ndarray` of shape `(N, D)`: z-scored.

        Raises:
            ValueError: if the model does not look for that target.
        """
        return self.processor.normalize_targets(windows.targets)[:, self._columns(target)]

    def _columns(self, target: str) -> slice:
        config = self.accelerator.unwrap_model(self.model).config
        start = 0
        for name, size in {"audio": config.embedding_size, **config.extra_targets}.items():
            if name == target:
                return slice(start, start + size)
            start += size
        raise ValueError(f"there is no target {target!r}: choose audio or one of {sorted(config.extra_targets)}")

    def _embed(self, loader: DataLoader) -> tuple[list[dict[str, np.ndarray]], float]:
        """Vectors of every set by target, and the mean contrastive loss of the batches."""
        vectors: dict[int, list[dict[str, np.ndarray]]] = {}
        losses, number, seen = [], 0, 0
        sizes = loader.dataset.sizes
        for batch, model in self._read(loader):
            while seen == sizes[number]:
                number, seen = number + 1, 0
            output = model(**self._prepare_inputs(batch))
            found = {"audio": output.embedding, **(output.target_embeddings or {})}
            vectors.setdefault(number, []).append({key: value.float().cpu().numpy() for key, value in found.items()})
            losses.append((float(output.loss), len(output.embedding)))
            seen += len(output.embedding)
        total = sum(count for _, count in losses)
        joined = [
            {key: np.concatenate([p[key] for p in parts]) for key in parts[0]} for _, parts in sorted(vectors.items())
        ]
        return joined, sum(a * b for a, b in losses) / total

    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Rank every window's sound among those of all windows of its participant.

        Metrics are `<prefix>_loss`, `<prefix>_rank` (mean relative rank, averaged over participants), `<prefix>_top_1`,
        `_top_5`, `_top_10` and `_num_candidates`; and `<prefix>_rank_<name>` of every further target.
        """
        batches: WindowBatches = dataloader.dataset
        vectors, loss = self._embed(dataloader)
        scores = []
        ranks: dict[str, list[float]] = {}
        for part, found in zip(batches.sets, vectors, strict=True):
            ranked = {name: retrieval_ranks(values, self.wanted(part, name)) for name, values in found.items()}
            scores.append(score_ranks(ranked.pop("audio"), part.file.tolist(), num_resamples=1).to_dict())
            for name, one in ranked.items():
                ranks.setdefault(name, []).append(float(one.relative.mean()))
        metrics = {f"{prefix}_loss": loss, **{f"{prefix}_rank_{name}": float(np.mean(v)) for name, v in ranks.items()}}
        metrics[f"{prefix}_rank"] = float(np.mean([score["mean_relative_rank"] for score in scores]))
        for name in ("top_1", "top_5", "top_10", "num_candidates"):
            metrics[f"{prefix}_{name}"] = float(np.mean([score[name] for score in scores]))
        return EvalLoopOutput(predictions=None, label_ids=None, metrics=metrics, num_samples=len(batches))

    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: settings, model, windows, seeds, code, machine, seconds, bins, memory, best and last scores.
        """
        sets = {"train": self.train_dataset, "eval": self.eval_dataset}
        described = {
            name: [_describe(part) for part in batches.sets] for name, batches in sets.items() if batches is not None
        }
        return describe_run(self, windows=described, audio_features=self.processor.target_settings)


def _describe(windows: WindowSet) -> dict[str, Any]:
    return {
        "participant": str(windows.participant[0]),
        "windows": len(windows),
        "hours": windows.hours,
        "files": len(set(windows.file.tolist())),
    }


def _batches(windows: Any, processor: IEEGAudioProcessor) -> WindowBatches | None:
    if windows is None or isinstance(windows, WindowBatches):  # `Trainer.evaluate` hands back what it was given
        return windows
    return WindowBatches([windows] if isinstance(windows, WindowSet) else windows, processor)


class _FreezeTrunk(TrainerCallback):
    """Keeps the pretrained weights as they are while the head learns alone."""

    def __init__(self, trainer: IEEGAudioTrainer):
        self._trainer = trainer

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by `Trainer` right before an update."""
        if self._trainer.trunk_is_frozen:
            for parameter in self._trainer.trunk_parameters():
                parameter.grad = None
