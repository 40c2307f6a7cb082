"""`BITTrainingArguments`: transformers' `TrainingArguments` with defaults that fit neural trials and CTC."""

from __future__ import annotations

from dataclasses import dataclass, field

from transformers import TrainingArguments
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, SchedulerType

# What `--help` of a training script explains; everything else that `TrainingArguments` has works too (`--help_all`).
COMMON_SETTINGS = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "per_device_eval_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "read_in_learning_rate",
    "head_learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "adam_epsilon",
    "max_grad_norm",
    "bf16",
    "use_cpu",
    "seed",
    "sessions_per_batch",
    "skip_short_trials",
    "cache_gigabytes",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "save_total_limit",
    "logging_steps",
)


@dataclass
class CommonTrainingArguments(TrainingArguments):
    """What the settings of both trainers share; the defaults are those of arXiv 2511.21740 where it names them."""

    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate; 1e-4 is a number."})
    weight_decay: float = field(
        default=1e-5, metadata={"help": "Weight decay of matrices; biases, norms and day layers have none."}
    )
    lr_scheduler_type: SchedulerType | str = field(default="cosine", metadata={"help": "Shape of the learning rate."})
    logging_steps: float = field(default=10, metadata={"help": "Log the training loss every so many steps."})
    logging_nan_inf_filter: bool = field(
        default=False,
        metadata={"help": "Hide losses that are not finite from the log; here they stop the run instead."},
    )
    eval_strategy: IntervalStrategy | str = field(
        default="epoch", metadata={"help": "When to evaluate: no, steps, epoch."}
    )
    save_strategy: SaveStrategy | str = field(
        default="epoch", metadata={"help": "When to save a checkpoint: no, steps, epoch, best."}
    )
    save_total_limit: int | None = field(default=2, metadata={"help": "Checkpoints kept: the best and the newest."})
    load_best_model_at_end: bool = field(
        default=True, metadata={"help": "End with the weights of the best checkpoint."}
    )
    restore_callback_states_from_checkpoint: bool = field(
        default=True,
        metadata={"help": "A resumed run continues its callbacks too, for example the patience of early stopping."},
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Trials need all their columns: keep False."})
    label_names: list[str] | None = field(
        default_factory=lambda: ["labels"], metadata={"help": "Name of the labels in a batch."}
    )
    report_to: None | str | list[str] = field(
        default="none", metadata={"help": "Where to report to, for example tensorboard."}
    )

    def __post_init__(self) -> None:
        """Check the inherited setting that would break the training on trials.

        Raises:
            ValueError: when `remove_unused_columns` is on.
        """
        super().__post_init__()
        if self.remove_unused_columns:
            raise ValueError(
                "remove_unused_columns must stay False: trials are turned into model inputs by the trainer itself"
            )


@dataclass
class BITTrainingArguments(CommonTrainingArguments):
    """Settings of a training run; every field of `transformers.TrainingArguments` is there too.

    Args:
        read_in_learning_rate (`float`, *optional*): peak learning rate of the layers that belong to one participant or
            session. None gives them `learning_rate`.
        head_learning_rate (`float`, *optional*): peak learning rate of the phoneme head. None gives it `learning_rate`.
        sessions_per_batch (`int`, *optional*): how many sessions one batch mixes. None mixes freely.
        skip_short_trials (`bool`): leave out training trials with fewer frames than CTC needs for their labels (and
            report them) instead of refusing to start.
        cache_gigabytes (`float`): prepared trials are kept in memory up to this size per dataset; larger datasets are
            prepared trial by trial.

    Note:
        Defaults follow BIT's CTC stage (arXiv 2511.21740: learning rate 5e-4, weight decay 1e-5, batch 32, cosine decay
        without warm-up, best checkpoint by validation PER). Departures: gradients are clipped at norm 1 because the
        loss is a mean here and one bad trial must not decide a step (the authors do not clip: set `max_grad_norm` to
        0); a loss that is not finite stops the run instead of being hidden from the log.

    Example:
        >>> args = BITTrainingArguments(output_dir="runs/example", use_cpu=True)
        >>> args.metric_for_best_model, args.greater_is_better, args.remove_unused_columns
        ('eval_per', False, False)
    """

    per_device_train_batch_size: int = field(default=32, metadata={"help": "Trials per step and device."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Trials per evaluation batch and device."})
    num_train_epochs: float = field(default=100.0, metadata={"help": "Passes over the training trials."})
    metric_for_best_model: str | None = field(
        default="eval_per", metadata={"help": "What decides the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=False, metadata={"help": "Error rates: lower is better."})
    read_in_learning_rate: float | None = field(
        default=None, metadata={"help": "Peak learning rate of the participant's and session's read-in layers."}
    )
    head_learning_rate: float | None = field(default=None, metadata={"help": "Peak learning rate of the phoneme head."})
    sessions_per_batch: int | None = field(
        default=None, metadata={"help": "Sessions that one batch mixes; none: any number."}
    )
    skip_short_trials: bool = field(
        default=False,
        metadata={"help": "Leave out trials that are too short for their labels, instead of refusing to start."},
    )
    cache_gigabytes: float = field(
        default=4.0, metadata={"help": "Keep prepared trials in memory up to this size per dataset."}
    )

    def __post_init__(self) -> None:
        """Check the settings that transformers does not know.

        Raises:
            ValueError: when a value is out of range.
        """
        super().__post_init__()
        for name in ("read_in_learning_rate", "head_learning_rate"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"{name} is {value}; it must be 0 (frozen) or positive")
        if self.sessions_per_batch is not None and self.sessions_per_batch < 1:
            raise ValueError(
                f"sessions_per_batch is {self.sessions_per_batch}; it must be at least 1, or none for any number"
            )
        if self.cache_gigabytes < 0:
            raise ValueError(f"cache_gigabytes is {self.cache_gigabytes}; use 0 to keep nothing in memory")
