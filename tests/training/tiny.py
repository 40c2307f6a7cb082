"""A participant small enough to train in a second, and a training run that can be started as a process of its own."""

import argparse
import json
import os
import signal
from pathlib import Path

import numpy as np
import torch

from bit_speech.data import Augmentation
from bit_speech.training import BITTrainer, BITTrainingArguments
from configuration_bit.configuration_bit import BITConfig
from modeling_bit.modeling_bit import BITForCTC
from processing_bit.feature_extraction_bit import BITFeatureExtractor
from processing_bit.processing_bit import BITProcessor
from processing_bit.tokenization_phoneme import PhonemeTokenizer

NAMES = ("AA", "AE", "AH", "AO", "AW")
SESSIONS = ["p.0", "p.1", "p.2"]


def trials(count, seed=0, channels=8, bins_per_phoneme=10, split="train", participant="p"):
    """Rows in which phoneme k lifts channel k for a while."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(count):
        phonemes = rng.integers(0, len(NAMES), rng.integers(3, 7))
        features = rng.normal(0, 0.3, (bins_per_phoneme * len(phonemes) + rng.integers(0, 10), channels))
        for k, phoneme in enumerate(phonemes):
            features[bins_per_phoneme * k + 2 : bins_per_phoneme * (k + 1) - 2, phoneme] += 3
        rows.append(
            {
                "participant_id": participant,
                "session_id": SESSIONS[i % 3],
                "block_index": i % 2,
                "trial_index": i,
                "split": split,
                "features": features.astype(np.float32),
                "bin_size_ms": 20.0,
                "feature_kinds": ["threshold_crossings"] * channels,
                "channel_areas": ["6v"] * channels,
                "species": "human",
                "task": "attempted_speech",
                "text": None,
                "phonemes": " ".join(NAMES[k] for k in phonemes),
                "source": "tests",
                "licence": "CC0-1.0",
            }
        )
    return rows


def processor(**settings):
    return BITProcessor(
        BITFeatureExtractor(**{"participants": {"p": 8}, "sessions": SESSIONS, **settings}), PhonemeTokenizer()
    )


def model(dropout=0.1, **settings):
    torch.manual_seed(0)
    small = {
        "participants": {"p": 8},
        "sessions": SESSIONS,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "embedding_dropout": dropout,
        "hidden_dropout": dropout,
        "attention_dropout": dropout,
    }
    return BITForCTC(BITConfig(**{**small, **settings}))


def arguments(output_dir, **settings):
    small = {
        "use_cpu": True,
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "learning_rate": 5e-3,
        "eval_strategy": "no",
        "save_strategy": "no",
        "load_best_model_at_end": False,
        "logging_steps": 1,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
    }
    return BITTrainingArguments(output_dir=str(output_dir), **{**small, **settings})


def trainer(
    output_dir, train=None, evaluation=None, augmentation=None, net=None, proc=None, callbacks=None, **settings
):
    return BITTrainer(
        net if net is not None else model(),
        arguments(output_dir, **settings),
        train_dataset=train,
        eval_dataset=evaluation,
        processing_class=proc if proc is not None else processor(),
        augmentation=augmentation,
        callbacks=callbacks,
    )


def survivor(output_dir):
    """The run of the kill test: dropout, augmentation, accumulation, evaluation and checkpoints all take part."""
    return trainer(
        output_dir,
        train=trials(37),
        evaluation=trials(9, seed=1),
        augmentation=Augmentation(white_noise_sd=0.2, constant_offset_sd=0.1, random_cut_max_bins=2),
        net=model(mask_ratio=0.2, mask_max_span=2),
        max_steps=24,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=2,
        eval_strategy="steps",
        eval_steps=4,
        save_strategy="steps",
        save_steps=4,
        save_total_limit=1,
        load_best_model_at_end=True,
    )


def step_losses(run):
    return [
        (log["step"], log["loss"], log["grad_norm"], log["learning_rate"])
        for log in run.state.log_history
        if "loss" in log
    ]


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("output_dir")
    parser.add_argument("--kill_at_step", type=int)
    parser.add_argument("--kill_while_saving", type=int)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--distributed", action="store_true")
    parser.add_argument("--resume_from")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.distributed:
        run = distributed(options.output_dir, batch_size=4)
        run.train(resume_from_checkpoint=options.resume_from)
        scores = run.evaluate()
        log_probs = run.predict_log_probs(trials(7, seed=2))
        if run.is_world_process_zero():
            torch.save(run.model.state_dict(), Path(options.output_dir) / "weights.pt")
            result = {
                "losses": step_losses(run),
                "per": scores["eval_per"],
                "eval_loss": scores["eval_loss"],
                "bins": run.training_bins,
                "first": [float(values.sum()) for values in log_probs],
            }
            (Path(options.output_dir) / "result.json").write_text(json.dumps(result))
        torch.distributed.destroy_process_group()
        return
    run = survivor(options.output_dir)
    step, save_rng_state = run.training_step, run._save_rng_state

    def training_step(*args, **kwargs):
        loss = step(*args, **kwargs)
        if run.state.global_step == options.kill_at_step:
            os.kill(os.getpid(), signal.SIGKILL)
        return loss

    def save_half(folder):
        if run.state.global_step == options.kill_while_saving:
            os.kill(os.getpid(), signal.SIGKILL)
        save_rng_state(folder)

    run.training_step, run._save_rng_state = training_step, save_half
    run.train(resume_from_checkpoint=options.resume)


def distributed(output_dir, batch_size):
    """The run of the two-process test: 19 trials, so that the last batch is shared unevenly."""
    return trainer(
        output_dir,
        train=trials(19),
        evaluation=trials(9, seed=1),
        augmentation=Augmentation(white_noise_sd=0.2),
        net=model(dropout=0.0),
        max_steps=8,
        per_device_train_batch_size=batch_size,
        save_strategy="steps",
        save_steps=4,
        max_grad_norm=1.0,
    )


if __name__ == "__main__":
    main()
