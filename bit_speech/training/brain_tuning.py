"""`BrainTuningTrainer`: fits a speech model to many participants' BOLD, one step per story and participant."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler
from transformers import TrainerCallback
from transformers.trainer_utils import EvalLoopOutput

from bit_speech.data.story_runs import read_run, read_story
from bit_speech.evaluation.encoding import correlation_by_voxel
from bit_speech.evaluation.ridge import fit_ridge
from bit_speech.training.run_record import describe_run
from bit_speech.training.surviving import SurvivingTrainer
from bit_speech.training.training_arguments import CommonTrainingArguments

if TYPE_CHECKING:
    from torch import nn

    from bit_speech.data.story_runs import StoryRun
    from modeling_bit.modeling_brain_tuned import BrainTunedForVoxelPrediction
    from processing_bit.feature_extraction_story import StoryFeatureExtractor

# (epoch, run, TR, TRs of the stretch over all processes); a stretch is a part of one story as one participant heard it.
StretchKey = tuple[int, int, int, int]


class StoryRunDataset(Dataset):
    """Runs of several participants, not necessarily of the same stories, as clips with BOLD.

    Args:
        runs (sequence of [`~bit_speech.data.story_runs.StoryRun`]): the runs.
        stories (mapping of `str` to `np.ndarray` of shape `(S,)`): the sound of every story.
        participants (sequence of `str`, *optional*): names in the order of `participant_index`; default those of the
            runs, sorted.

    Raises:
        ValueError: if a story has no sound, a participant is unknown, or runs differ in voxels.
    """

    def __init__(
        self, runs: Sequence[StoryRun], stories: dict[str, np.ndarray], participants: Sequence[str] | None = None
    ) -> None:
        self.runs, self.stories = list(runs), stories
        self.participants = list(participants or sorted({run.participant_id for run in runs}))
        if not self.runs:
            raise ValueError("there are no runs to train on or to score")
        sizes = {(run.responses.shape[1], run.space) for run in self.runs}
        if len(sizes) > 1:
            raise ValueError(f"runs differ in voxels or space: {sorted(sizes)}; project them to a common surface first")
        for run in self.runs:
            if run.story_id not in stories:
                raise ValueError(f"there is no sound of story {run.story_id!r}, which {run.participant_id} heard")
            if run.participant_id not in self.participants:
                raise ValueError(f"{run.participant_id!r} is none of the participants {self.participants}")

    @classmethod
    def from_folder(
        cls, folder: str | os.PathLike[str], names: Sequence[tuple[str, str]], participants: Sequence[str] | None = None
    ) -> StoryRunDataset:
        """Read runs and their sounds from a folder of stories.

        Args:
            folder (`str`): the folder.
            names (sequence of `tuple[str, str]`): (participant, story) of each run.
            participants (sequence of `str`, *optional*): see the class.

        Returns:
            `StoryRunDataset`: in memory; 16 hours are 3.7 GB of sound, and 3.5 GB of 30,172 vertices per participant.
        """
        runs = [read_run(folder, participant, story) for participant, story in names]
        return cls(runs, {story: read_story(folder, story) for _, story in names}, participants)

    def __len__(self) -> int:
        return sum(len(run.responses) for run in self.runs)

    @property
    def num_voxels(self) -> int:
        """Voxels of every run (`int`)."""
        return self.runs[0].responses.shape[1]

    def __getitem__(self, key: StretchKey) -> StretchKey:
        # The batch is made as a whole, in `StretchCollator`: neighbouring clips share their sound.
        return key

    def describe(self) -> dict[str, Any]:
        """Describe what is in it.

        Returns:
            `dict`: TRs and stories of every participant.
        """
        return {
            name: {
                "trs": sum(len(run.responses) for run in self.runs if run.participant_id == name),
                "stories": sum(run.participant_id == name for run in self.runs),
            }
            for name in self.participants
        }


class StretchBatchSampler(Sampler[list[StretchKey]]):
    """Deals out stretches of consecutive TRs of one run, in an order that is a function of seed and epoch.

    Args:
        lengths (sequence of `int`): TRs of every run.
        batch_size (`int`): TRs per stretch and process.
        seed (`int`): of the order.
        shuffle (`bool`): False keeps the order of the runs, as published.
        num_processes (`int`): how many processes share a stretch.
        process_index (`int`): which of them this is.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        seed: int = 0,
        shuffle: bool = True,
        num_processes: int = 1,
        process_index: int = 0,
    ) -> None:
        self.seed, self.epoch, self.shuffle = seed, 0, shuffle
        self.num_processes, self.process_index = num_processes, process_index
        self.batch_size = batch_size
        whole = batch_size * num_processes
        self._stretches = [
            (run, start, min(length, start + whole))
            for run, length in enumerate(lengths)
            for start in range(0, length, whole)
        ]

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches come next.

        Args:
            epoch (`int`): number of the pass over the runs, from 0.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self._stretches)

    def __iter__(self) -> Iterator[list[StretchKey]]:
        order = np.arange(len(self._stretches))
        if self.shuffle:
            order = np.random.default_rng([self.seed, self.epoch]).permutation(len(order))
        for position in order:
            run, start, stop = self._stretches[position]
            # Every process must take part in every step: a stretch shorter than their number repeats TRs.
            rows = np.resize(np.arange(start, stop), max(stop - start, self.num_processes))
            yield [(self.epoch, run, int(row), len(rows)) for row in rows[self.process_index :: self.num_processes]]


class StretchCollator:
    """Makes model inputs of a stretch.

    Args:
        dataset ([`StoryRunDataset`]): runs and sounds.
        extractor ([`StoryFeatureExtractor`]): cuts and normalises clips.
        frames (`dict`, *optional*): from [`keep_convolutions`], instead of clips.
    """

    def __init__(
        self,
        dataset: StoryRunDataset,
        extractor: StoryFeatureExtractor,
        frames: dict[tuple[str, float], torch.Tensor] | None = None,
    ) -> None:
        self.dataset, self.extractor, self.frames = dataset, extractor, frames

    def __call__(self, keys: list[StretchKey]) -> dict[str, torch.Tensor]:
        """Cut clips and take their BOLD.

        Args:
            keys (list of `tuple[int, int, int, int]`): from [`StretchBatchSampler`], all of one run.

        Returns:
            `dict`: `input_values`, `participant_index` and `labels`.
        """
        run = self.dataset.runs[keys[0][1]]
        rows = np.array([key[2] for key in keys])
        clips = self._clips(run, rows)
        person = self.dataset.participants.index(run.participant_id)
        return {
            "input_values": clips,
            "participant_index": torch.full((len(rows),), person),
            "labels": torch.from_numpy(run.responses[rows]),
        }

    def _clips(self, run: StoryRun, rows: np.ndarray) -> torch.Tensor:
        times = run.tr_times_s[rows]
        if self.frames is not None:
            return torch.stack([self.frames[run.story_id, round(time, 6)] for time in times.tolist()]).float()
        clips = self.extractor(self.dataset.stories[run.story_id], times)["input_values"]
        return torch.from_numpy(np.ascontiguousarray(clips))


def keep_convolutions(
    model: BrainTunedForVoxelPrediction,
    datasets: Sequence[StoryRunDataset],
    extractor: StoryFeatureExtractor,
    batch_size: int = 16,
) -> dict[tuple[str, float], torch.Tensor]:
    """Pass every clip through the convolutions once, for all participants and epochs.

    Args:
        model ([`BrainTunedForVoxelPrediction`]): the model; its convolutions never learn.
        datasets (sequence of [`StoryRunDataset`]): runs.
        extractor ([`StoryFeatureExtractor`]): normalises clip by clip.
        batch_size (`int`): clips at a time.

    Returns:
        `dict`: (story, seconds) -> frames in half precision. 10 s of a base model are half a megabyte.

    Raises:
        ValueError: if clips are not normalised by themselves.
    """
    if extractor.normalization == "batch":
        raise ValueError("clips that are normalised over a batch depend on their batch and cannot be kept")
    found: dict[tuple[str, float], torch.Tensor] = {}
    for dataset in datasets:
        for run in dataset.runs:
            times = [time for time in run.tr_times_s.tolist() if (run.story_id, round(time, 6)) not in found]
            for start in range(0, len(times), batch_size):
                part = times[start : start + batch_size]
                clips = extractor(dataset.stories[run.story_id], part)["input_values"]
                frames = model.model.convolve(torch.from_numpy(clips).to(model.device)).half().cpu()
                found |= {(run.story_id, round(time, 6)): one.clone() for time, one in zip(part, frames)}
    return found


@torch.no_grad()
def fit_head(
    model: BrainTunedForVoxelPrediction,
    dataset: StoryRunDataset,
    extractor: StoryFeatureExtractor,
    batch_size: int = 16,
) -> float:
    """Start the voxel head at a ridge regression, so that the body is not tuned to a random head.

    Args:
        model ([`BrainTunedForVoxelPrediction`]): the model; its head is changed. Deviations stay none.
        dataset ([`StoryRunDataset`]): runs; clips that several participants heard are heard once.
        extractor ([`StoryFeatureExtractor`]): cuts and normalises clips.
        batch_size (`int`): clips at a time.

    Returns:
        `float`: mean correlation with held-out blocks at the penalties that were chosen.

    Raises:
        ValueError: if the readout has regions.

    Note:
        Kumar et al. 2022, arXiv 2202.10054: a random head distorts the features that are tuned through it. The
        published system starts at random.
    """
    if model.config.readout == "regions":
        raise ValueError("the head of a readout with regions has no closed form; leave it random")
    was_training = model.training
    model.eval()
    pooled: dict[tuple[str, float], np.ndarray] = {}
    for run in dataset.runs:
        times = [time for time in run.tr_times_s.tolist() if (run.story_id, round(time, 6)) not in pooled]
        for start in range(0, len(times), batch_size):
            part = times[start : start + batch_size]
            clips = torch.from_numpy(extractor(dataset.stories[run.story_id], part)["input_values"]).to(model.device)
            found = model.model(clips).pooled.float().cpu().numpy()
            pooled |= {(run.story_id, round(time, 6)): one for time, one in zip(part, found)}
    model.train(was_training)
    groups = [dataset.participants] if model.config.head != "separate" else [[name] for name in dataset.participants]
    scores = []
    for copy, names in enumerate(groups):
        runs = [run for run in dataset.runs if run.participant_id in names]
        inputs = np.stack([pooled[run.story_id, round(time, 6)] for run in runs for time in run.tr_times_s.tolist()])
        # The same story must not be in training and validation of a penalty: participants hear the same ones.
        order = sorted({run.story_id for run in runs})
        fold = np.concatenate([np.full(len(run.responses), order.index(run.story_id) % 5) for run in runs])
        folds = [np.flatnonzero(fold == number) for number in sorted(set(fold.tolist()))]
        if len(folds) == 1:
            folds = np.array_split(np.arange(len(inputs)), 2)
        scale = inputs.std(axis=0) + 1e-6
        fit = fit_ridge(inputs / scale, np.concatenate([run.responses for run in runs]), np.logspace(0, 6, 13), folds)
        weights = fit.weights / scale[:, None]
        model.head.weight[copy] = torch.from_numpy(weights.T.astype(np.float32))
        model.head.bias[copy] = torch.from_numpy(
            (fit.voxel_means - (fit.feature_means * scale) @ weights).astype(np.float32)
        )
        scores.append(float(fit.scores.max(axis=0).mean()))
    return float(np.mean(scores))


@dataclass
class BrainTuningArguments(CommonTrainingArguments):
    """Settings of a brain-tuning; every field of `transformers.TrainingArguments` is there too.

    Args:
        head_learning_rate (`float`, *optional*): peak rate of the voxel head; default `learning_rate`, as published.
        keep_convolutions (`bool`): pass clips through the convolutions once and keep the frames in memory, 0.5 MB for a
            clip of a base model. They never learn, so that only rounding to half precision differs.
        legacy (`bool`): the released code's defects: the schedule's clock runs too slowly (the rate still rises after
            27 of 30 epochs and ends at 99 % of its peak), stories always come in the same order, and clips are
            normalised over the whole batch.

    Note:
        Moussa & Toneva 2025, arXiv 2510.21520: AdamW at 1e-4, a tenth of the steps to warm up, then linear decay, 128
        TRs per step, 30 epochs.

    Example:
        >>> args = BrainTuningArguments(output_dir="runs/example", use_cpu=True)
        >>> args.per_device_train_batch_size, args.learning_rate, args.metric_for_best_model
        (128, 0.0001, 'eval_correlation')
    """

    per_device_train_batch_size: int = field(default=128, metadata={"help": "TRs per step and device."})
    per_device_eval_batch_size: int = field(default=128, metadata={"help": "TRs per evaluation batch and device."})
    learning_rate: float = field(default=1e-4, metadata={"help": "Peak learning rate."})
    num_train_epochs: float = field(default=30.0, metadata={"help": "Passes over all runs."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up, or their share."})
    lr_scheduler_type: str = field(default="linear", metadata={"help": "How the rate decays."})
    metric_for_best_model: str | None = field(
        default="eval_correlation", metadata={"help": "What decides the best checkpoint."}
    )
    greater_is_better: bool | None = field(default=True, metadata={"help": "Correlation: higher is better."})
    head_learning_rate: float | None = field(default=None, metadata={"help": "Peak rate of the head."})
    keep_convolutions: bool = field(default=False, metadata={"help": "Keep the frames of all clips in memory."})
    legacy: bool = field(default=False, metadata={"help": "The released code's schedule, order and normalisation."})


def legacy_factor(step: int, steps_per_story: float, num_stories: int, num_participants: int, num_epochs: int) -> float:
    """Share of the peak learning rate in the released code.

    Args:
        step (`int`): optimizer step, from 0.
        steps_per_story (`float`): optimizer steps between two ticks of the schedule's clock.
        num_stories (`int`): stories in an epoch: ticks.
        num_participants (`int`): participants.
        num_epochs (`int`): epochs.

    Returns:
        `float`: between 0 and 1.

    Note:
        The schedule is made for `3 * participants * epochs * stories` ticks, a tenth of them warm-up, and ticks once
        per story: with 3 participants a ninth of it ever happens.

    Example:
        >>> round(legacy_factor(82 * 30, 1, 82, 3, 30), 3), legacy_factor(82 * 27, 1, 82, 3, 30)
        (0.988, 1.0)
    """
    total = 3 * num_participants * num_epochs * num_stories
    warmup, tick = 0.1 * total, int(step / steps_per_story)
    return tick / warmup if tick < warmup else max(0.0, (total - tick) / (total - warmup))


class BrainTuningTrainer(SurvivingTrainer):
    """Tunes a speech model to BOLD, whole and resumable.

    Args:
        model ([`BrainTunedForVoxelPrediction`]): the model.
        args ([`BrainTuningArguments`]): settings.
        train_dataset ([`StoryRunDataset`]): runs to learn from.
        eval_dataset ([`StoryRunDataset`], *optional*): runs that choose the checkpoint.
        extractor ([`StoryFeatureExtractor`]): cuts clips; saved beside the model.
        voxel_weights (`np.ndarray` of shape `(X,)`, *optional*): such as noise ceilings, see
            [`~modeling_bit.losses_brain_tuned.voxel_loss`].
        callbacks (list of `TrainerCallback`, *optional*): as in `Trainer`.
        optimizers (`tuple`): as in `Trainer`.

    Raises:
        ValueError: if the model does not fit the runs.
    """

    def __init__(
        self,
        model: BrainTunedForVoxelPrediction,
        args: BrainTuningArguments,
        train_dataset: StoryRunDataset,
        eval_dataset: StoryRunDataset | None = None,
        *,
        extractor: StoryFeatureExtractor,
        voxel_weights: np.ndarray | None = None,
        callbacks: list[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
    ) -> None:
        config = model.config
        for dataset in (train_dataset, *([eval_dataset] if eval_dataset is not None else [])):
            if dataset.num_voxels != config.num_voxels:
                raise ValueError(f"the runs have {dataset.num_voxels} voxels, the model {config.num_voxels}")
            if config.participants and dataset.participants != config.participants:
                raise ValueError(f"the runs are of {dataset.participants}, the model knows {config.participants}")
        if extractor.clip_s != config.clip_s:
            raise ValueError(f"clips last {extractor.clip_s} s, but the model was made for {config.clip_s} s")
        if args.legacy:
            extractor.normalization = "batch"
        self.extractor = extractor
        self._frames: dict[tuple[str, float], torch.Tensor] | None = None
        self.voxel_weights = None if voxel_weights is None else torch.as_tensor(voxel_weights, dtype=torch.float32)
        super().__init__(
            model=model,
            args=args,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            callbacks=callbacks,
            optimizers=optimizers,
            processing_class=extractor,
        )

    def _stretches(self, dataset: StoryRunDataset, batch_size: int, shuffle: bool) -> Any:
        seed = self.args.data_seed if self.args.data_seed is not None else self.args.seed
        lengths = [len(run.responses) for run in dataset.runs]
        sampler = StretchBatchSampler(lengths, batch_size, seed, shuffle, self.args.world_size, self.args.process_index)
        datasets = [known for known in (self.train_dataset, self.eval_dataset) if known is not None]
        if not any(dataset is known for known in datasets):
            return self._loader(_Collated(dataset, self.extractor), sampler)
        if self.args.keep_convolutions and self._frames is None:
            self._frames = keep_convolutions(self.accelerator.unwrap_model(self.model), datasets, self.extractor)
        return self._loader(_Collated(dataset, self.extractor, self._frames), sampler)

    def get_train_dataloader(self) -> DataLoader:
        """Build the loader of training batches.

        Returns:
            `DataLoader`: stretches of this process; their order is a function of seed and epoch.
        """
        return self._stretches(self.train_dataset, self._train_batch_size, not self.args.legacy)

    def get_eval_dataloader(self, eval_dataset: StoryRunDataset | None = None) -> DataLoader:
        """Build the loader of evaluation batches.

        Args:
            eval_dataset ([`StoryRunDataset`], *optional*): runs; default the trainer's own.

        Returns:
            `DataLoader`: all stretches in order.

        Raises:
            ValueError: when there are no runs.
        """
        dataset = self.eval_dataset if eval_dataset is None else eval_dataset
        if dataset is None:
            raise ValueError("evaluation needs runs: give eval_dataset to the trainer or to evaluate()")
        return self._stretches(dataset, self.args.eval_batch_size, shuffle=False)

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Build the schedule: warm-up and linear decay over the steps there are; with `legacy` the released one.

        Args:
            num_training_steps (`int`): steps of the run.
            optimizer (`torch.optim.Optimizer`, *optional*): default the trainer's own.

        Returns:
            The schedule.
        """
        if not self.args.legacy:
            return super().create_scheduler(num_training_steps, optimizer)
        dataset: StoryRunDataset = self.train_dataset
        stories = len({run.story_id for run in dataset.runs})
        people = len({run.participant_id for run in dataset.runs})
        epochs = max(1, round(self.args.num_train_epochs))
        per_story = num_training_steps / (epochs * stories)
        self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer if optimizer is None else optimizer,
            lambda step: legacy_factor(step, per_story, stories, people, epochs),
        )
        return self.lr_scheduler

    def _loss(self, model: nn.Module, inputs: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        # In training: its mean over processes is the loss of the whole stretch, also when they hold unequal parts.
        weights = None if self.voxel_weights is None else self.voxel_weights.to(inputs["labels"].device)
        progress = self.state.global_step / max(1, self.state.max_steps)
        seen = {key: value for key, value in inputs.items() if key != "keys"}
        outputs = model(**seen, voxel_weights=weights, progress=progress)
        loss = outputs["loss"]
        if model.training:
            whole = int(inputs["keys"][0, 2])
            self.training_bins += whole
            loss = loss * (self.args.world_size * len(inputs["keys"]) / whole)
        return loss, outputs

    def _score(self, dataloader: DataLoader, prefix: str) -> EvalLoopOutput:
        """Score predictions run by run.

        Metrics are `<prefix>_loss`, `<prefix>_correlation_<participant>` (over the TRs of a run, averaged over voxels
        and runs) and `<prefix>_correlation`, their mean.
        """
        dataset: StoryRunDataset = dataloader.dataset.dataset
        parts: list[tuple[int, list[int], np.ndarray, float]] = []
        for batch, model in self._read(dataloader):
            keys = batch["keys"].tolist()
            loss, outputs = self._loss(model, self._prepare_inputs(batch))
            rows = [row for _, row, _ in keys]
            parts.append((keys[0][0], rows, outputs["logits"].float().cpu().numpy(), float(loss) * len(rows)))
        predicted = [np.zeros_like(run.responses) for run in dataset.runs]
        total = rows_seen = 0.0
        for run, rows, values, loss in self._gather(parts):
            predicted[run][rows] = values
            total, rows_seen = total + loss, rows_seen + len(rows)
        by_person: dict[str, list[float]] = {}
        for run, found in zip(dataset.runs, predicted):
            by_person.setdefault(run.participant_id, []).append(
                float(correlation_by_voxel(found, run.responses).mean())
            )
        metrics = {f"{prefix}_correlation_{name}": float(np.mean(v)) for name, v in sorted(by_person.items())}
        metrics[f"{prefix}_correlation"] = float(np.mean(list(metrics.values())))
        metrics[f"{prefix}_loss"] = total / max(1.0, rows_seen)
        return EvalLoopOutput(predictions=predicted, label_ids=None, metrics=metrics, num_samples=len(dataset))

    def run_record(self) -> dict[str, Any]:
        """Describe the run so that it can be repeated and compared.

        Returns:
            `dict`: settings, model, runs, seeds, code, machine, seconds, TRs (as bins), memory, best and last scores.
        """
        datasets = {"train": self.train_dataset, "eval": self.eval_dataset}
        return describe_run(
            self,
            runs={name: dataset.describe() for name, dataset in datasets.items() if dataset is not None},
            feature_extractor=self.extractor.to_dict(),
        )


class _Collated(Dataset):
    """Stretches of a dataset in the form that the loaders of this room expect."""

    def __init__(self, dataset: StoryRunDataset, extractor: StoryFeatureExtractor, frames: Any = None) -> None:
        self.dataset = dataset
        self._collator = StretchCollator(dataset, extractor, frames)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: StretchKey) -> StretchKey:
        return self.dataset[key]

    def collate(self, keys: list[StretchKey]) -> dict[str, torch.Tensor]:
        return self._collator(keys) | {"keys": torch.tensor([key[1:] for key in keys])}


def save_merged_body(model: BrainTunedForVoxelPrediction, folder: str | os.PathLike[str]) -> Path:
    """Save the tuned speech model as one that plain `AutoModel` loads.

    Args:
        model ([`BrainTunedForVoxelPrediction`]): the tuned model.
        folder (`str`): where to.

    Returns:
        `Path`: the folder.
    """
    model.merge_body().save_pretrained(folder)
    return Path(folder)
