"""`BITPretrainingArguments`: settings of self-supervised pretraining."""

from __future__ import annotations

from dataclasses import dataclass, field

from bit_speech.training.training_arguments import CommonTrainingArguments

# What `--help` of the pretraining script explains; everything else works too (`--help_all`).
PRETRAINING_SETTINGS = (
    "output_dir",
    "num_train_epochs",
    "max_steps",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "weight_decay",
    "lr_scheduler_type",
    "warmup_steps",
    "bf16",
    "use_cpu",
    "seed",
    "smoothing_sd_bins",
    "causal_smoothing",
    "white_noise_sd",
    "constant_offset_sd",
    "mixing_temperature",
    "corpus_on_device",
    "shuffle_time",
    "eval_strategy",
    "eval_steps",
    "save_strategy",
    "save_steps",
    "logging_steps",
)


@dataclass
class BITPretrainingArguments(CommonTrainingArguments):
    """Settings of a pretraining run; every field of `transformers.TrainingArguments` is there too.

    Args:
        smoothing_sd_bins (`float`): Gaussian smoothing of what the encoder sees, in bins of 20 ms; the target is raw.
        causal_smoothing (`bool`): smooth with the past alone. For causal encoders, which would see the future
            otherwise.
        white_noise_sd (`float`): noise added to every value that the encoder sees.
        constant_offset_sd (`float`): offset added to every channel of a trial.
        mixing_temperature (`float`): how datasets of different sizes share the batches: 1 in proportion to their size,
            infinity equally, values between lift the small ones.
        corpus_on_device (`bool`): keep the training corpus in the accelerator's memory, one byte a value for counts,
            and make batches there, without loader workers.
        shuffle_time (`bool`): a control: the bins of every trial in random order, so that only what happens within a
            bin is left to learn.

    Note:
        Defaults follow BIT (arXiv 2511.21740): learning rate 5e-4, weight decay 1e-5, batch 64, 400 epochs, smoothing
        2, noise 0.2 and 0.05, checkpoint by the share of variance that is reconstructed. Gradients are clipped at norm
        1, which the authors do not.

    Example:
        >>> args = BITPretrainingArguments(output_dir="runs/example", use_cpu=True)
        >>> args.metric_for_best_model, args.per_device_train_batch_size
        ('eval_r2', 64)
    """

    per_device_train_batch_size: int = field(default=64, metadata={"help": "Trials per step and device."})
    per_device_eval_batch_size: int = field(default=64, metadata={"help": "Trials per evaluation batch and device."})
    num_train_epochs: float = field(default=400.0, metadata={"help": "Passes over the corpus."})
    metric_for_best_model: str | None = field(default="eval_r2", metadata={"help": "What decides the best checkpoint."})
    greater_is_better: bool | None = field(default=True, metadata={"help": "Explained variance: higher is better."})
    smoothing_sd_bins: float = field(default=2.0, metadata={"help": "Smoothing of the input in bins; 0 turns it off."})
    causal_smoothing: bool = field(default=False, metadata={"help": "Smooth with the past alone."})
    white_noise_sd: float = field(default=0.2, metadata={"help": "Noise added to every bin and channel."})
    constant_offset_sd: float = field(default=0.05, metadata={"help": "Offset added to every channel of a trial."})
    mixing_temperature: float = field(
        default=1.0, metadata={"help": "1: datasets in proportion to their size; infinity: equal shares."}
    )
    corpus_on_device: bool = field(default=False, metadata={"help": "Keep the corpus in the accelerator's memory."})
    shuffle_time: bool = field(default=False, metadata={"help": "Control: bins of every trial in random order."})

    def __post_init__(self) -> None:
        """Check the settings that transformers does not know.

        Raises:
            ValueError: when a value is out of range.
        """
        super().__post_init__()
        for name in ("smoothing_sd_bins", "white_noise_sd", "constant_offset_sd"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 (off) or positive")
        if self.corpus_on_device and self.dataloader_num_workers:
            raise ValueError(
                f"corpus_on_device makes batches without workers, got dataloader_num_workers="
                f"{self.dataloader_num_workers}: leave one of them out"
            )
        if not self.mixing_temperature > 0:
            raise ValueError(f"mixing_temperature is {self.mixing_temperature}; it must be positive, or infinity")
