"""The search of the paper for batch size, learning rate and weight decay: 30 random samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bit_speech.import_utils import require

if TYPE_CHECKING:
    from transformers.trainer_utils import BestRun

    from bit_speech.training.surviving import SurvivingTrainer

# Tuples of two floats are the ends of a logarithmic scale, lists are choices (arXiv 2511.21740: batch 8 to 64).
SEARCH_SPACE: dict[str, Any] = {
    "per_device_train_batch_size": [8, 16, 32, 64],
    "learning_rate": (5e-5, 1e-3),
    "weight_decay": (5e-5, 0.1),
}


def optuna_space(trial: Any) -> dict[str, Any]:
    """Draw one sample of [`SEARCH_SPACE`] with Optuna.

    Args:
        trial (`optuna.Trial`): of a study.

    Returns:
        `dict[str, Any]`: training arguments.
    """
    return {
        name: trial.suggest_categorical(name, values)
        if isinstance(values, list)
        else trial.suggest_float(name, *values, log=True)
        for name, values in SEARCH_SPACE.items()
    }


def ray_space(_: Any = None) -> dict[str, Any]:
    """Describe [`SEARCH_SPACE`] for Ray Tune.

    Returns:
        `dict[str, Any]`: training arguments and what Ray draws them from.

    Raises:
        ImportError: when Ray is not installed.
    """
    require("ray")
    from ray import tune

    return {
        name: tune.choice(values) if isinstance(values, list) else tune.loguniform(*values)
        for name, values in SEARCH_SPACE.items()
    }


def random_search(
    trainer: SurvivingTrainer, metric: str, direction: str = "minimize", n_trials: int = 30, backend: str = "optuna"
) -> BestRun:
    """Train with random samples of [`SEARCH_SPACE`] and give the best.

    Args:
        trainer ([`BITTrainer`] or [`BITPretrainer`]): made with `model_init`, so that every sample starts from a fresh
            model. Its `seed` is the seed of the samples.
        metric (`str`): what is compared, for example `"eval_per"` or `"eval_r2"`.
        direction (`str`): `"minimize"` or `"maximize"`.
        n_trials (`int`, defaults to 30): how many samples.
        backend (`str`): `"optuna"`, one sample after the other, or `"ray"`, spread over a cluster.

    Returns:
        `BestRun`: its hyperparameters, and the metric as `objective`.

    Raises:
        ImportError: when the backend is not installed.
        ValueError: for an unknown backend.
    """
    more: dict[str, Any] = {}
    if backend == "optuna":
        more["sampler"] = require("optuna").samplers.RandomSampler(seed=trainer.args.seed)
    elif backend == "ray":
        require("ray")
    else:
        raise ValueError(f"backend is {backend!r}: choose 'optuna' or 'ray'")
    return trainer.hyperparameter_search(
        hp_space=optuna_space if backend == "optuna" else ray_space,
        compute_objective=lambda metrics: metrics[metric],
        direction=direction,
        n_trials=n_trials,
        backend=backend,
        **more,
    )
