"""A corpus small enough to pretrain on in a second, and a run that can be started as a process of its own."""

import argparse
import copy
import json
import os
import signal
from pathlib import Path

import numpy as np
import torch

from bit_speech.training.pretrainer import BITPretrainer
from bit_speech.training.pretraining_arguments import BITPretrainingArguments
from configuration_bit.configuration_bit import BITConfig
from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling


class MemoryCorpus:
    """What the trainer needs of a `PretrainingCorpus`, in memory: slow waves that all channels share, and noise."""

    def __init__(self, participants, items_each=12, seed=0, noise=0.3, counts=False):
        self.counts = counts
        self.participants = dict(sorted(participants.items()))
        self.weights = [1.0] * len(self.participants)
        rng = np.random.default_rng(seed)
        self.items, index = [], []
        for number, channels in enumerate(self.participants.values()):
            weights = rng.normal(size=channels)
            for _ in range(items_each):
                bins = int(rng.integers(20, 90))
                wave = np.sin(np.arange(bins) / 6 + rng.uniform(0, 6))
                values = wave[:, None] * weights + noise * rng.normal(size=(bins, channels))
                self.items.append((rng.poisson(np.exp(values - 1)) if counts else values).astype("f4"))
                index.append(number)
        self._set(self.items, index)

    def _set(self, items, index):
        self.items, self.dataset_index = items, np.array(index)
        self.num_bins = np.array([len(item) for item in items])
        self.hours = self.num_bins.sum() * 0.02 / 3600

    def __len__(self):
        return len(self.items)

    def select(self, indices):
        other = copy.copy(self)
        other._set([self.items[i] for i in indices], [self.dataset_index[i] for i in indices])
        return other

    def batch(self, indices, with_counts=False):
        (dataset,) = {int(self.dataset_index[i]) for i in indices}
        lengths = torch.tensor([int(self.num_bins[i]) for i in indices])
        features = torch.zeros(len(indices), int(lengths.max()), list(self.participants.values())[dataset])
        for row, i in zip(features, indices):
            row[: self.num_bins[i]] = torch.from_numpy(self.items[i])
        return {
            **({"labels": features.clone()} if with_counts else {}),
            "input_features": features,
            "attention_mask": torch.arange(features.shape[1]) < lengths[:, None],
            "participant_index": torch.full((len(indices),), dataset),
        }


def model(participants, dropout=0.1, **settings):
    torch.manual_seed(0)
    small = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "embedding_dropout": dropout,
        "hidden_dropout": dropout,
        "attention_dropout": dropout,
        "mask_ratio": 0.5,
        "mask_max_span": 3,
    }
    return BITForMaskedModeling(BITConfig(participants=participants, **(small | settings)))


def arguments(output_dir, **settings):
    small = {
        "use_cpu": True,
        "max_steps": 4,
        "per_device_train_batch_size": 4,
        "learning_rate": 5e-3,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return BITPretrainingArguments(output_dir=str(output_dir), **(small | settings))


PARTICIPANTS = {"h": 6, "m": 4}


def pretrainer(output_dir, train=None, evaluation=None, net=None, callbacks=None, **settings):
    return BITPretrainer(
        net if net is not None else model(PARTICIPANTS),
        arguments(output_dir, **settings),
        train_dataset=train if train is not None else MemoryCorpus(PARTICIPANTS),
        eval_dataset=evaluation,
        callbacks=callbacks,
    )


def survivor(output_dir, **settings):
    """The run of the kill tests; 13 items of each participant, so that last batches are not full."""
    values = {"max_steps": 24, "save_strategy": "steps", "save_steps": 5, "save_total_limit": 1} | settings
    return pretrainer(output_dir, train=MemoryCorpus(PARTICIPANTS, items_each=13), **values)


def distributed(output_dir, batch_size, **settings):
    """The run of the two-process tests: without noise and dropout, which every process draws for itself."""
    quiet = {"white_noise_sd": 0.0, "constant_offset_sd": 0.0, "per_device_train_batch_size": batch_size}
    return pretrainer(
        output_dir,
        train=MemoryCorpus(PARTICIPANTS, items_each=13),
        evaluation=MemoryCorpus(PARTICIPANTS, items_each=5, seed=1),
        net=model(PARTICIPANTS, dropout=0.0),
        **({"max_steps": 50, "save_strategy": "steps", "save_steps": 20} | quiet | settings),
    )


def step_losses(run):
    return [(log["step"], log["loss"], log["grad_norm"]) for log in run.state.log_history if "loss" in log]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--kill_at_step", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--max_steps", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.distributed:
        run = distributed(options.output_dir, 4, max_steps=options.max_steps)
    else:
        run = survivor(options.output_dir)
    step = run.training_step

    def training_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        if run.state.global_step == options.kill_at_step and run.args.process_index == run.args.world_size - 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    run.training_step = training_step
    run.train(resume_from_checkpoint=options.resume)
    scores = run.evaluate()
    if run.is_world_process_zero():
        result = {"losses": step_losses(run), "scores": scores, "bins": run.training_bins}
        (Path(options.output_dir) / "result.json").write_text(json.dumps(result))
    if options.distributed:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
