"""Training patches per second: pretraining beside a plain padded transformer and the benchmark's GRU.

    python -m benchmarks.pretraining_throughput              # 1 and 2 threads, four minutes on a quiet machine
    python -m benchmarks.pretraining_throughput --rounds 3

One process for each number of threads; in it all contenders take turns, round by round, on trials of the same lengths:
those of two simulated participants. A patch is 5 bins of 20 ms of real signal; padding does not count. A step is
everything from batch to updated weights.

- ours: what `BITPretrainer` runs: batches of like length, input smoothed and noisy, half of the patches hidden, 13 M
  parameters (the paper's encoder and ten participants), dropout 0.4, bf16 autocast, fused AdamW.
- ours, random batches: the same on batches of random lengths, padded to the longest.
- plain transformer: `torch.nn.TransformerEncoder` of the same size (width 384, 7 pre-norm layers, 6 heads,
  feed-forward 512, dropout 0.4), one linear read-in and read-out for all patches, random batches padded to the longest;
  in bf16 and in float32.
- GRU: the baseline of Brain-to-Text '25 (5 layers of 768, patches of 14 bins, stride 4) with CTC on random batches, in
  float32, its published precision on the CPU.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.common import save_result

BATCH = 32
CHANNELS = 192
# Ten participants with the channel counts of the paper's corpus: with their read-ins and read-outs 13 M parameters.
PARTICIPANTS = {
    **{f"human{i}": channels for i, channels in enumerate((128, 256, 192))},
    **{f"monkey{i}": channels for i, channels in enumerate((96, 96, 192, 192, 96, 192, 128))},
}
OURS = "human2"  # the one that is timed: 192 channels
TRIALS = 640


def trial_lengths() -> list[int]:
    """Bins of every trial: half of them of each frozen preset, in random order."""
    import numpy as np

    from bit_speech.simulation import SimulatedParticipant

    lengths = []
    for preset in ("t12-like", "t15-like"):
        trials = SimulatedParticipant(preset, seed=0).trials("train")
        lengths += [len(trial.features) for trial, _ in zip(trials, range(TRIALS // 2))]
    return np.random.default_rng(0).permutation(lengths).tolist()


def plain_transformer() -> Any:
    """The encoder as one would write it in an afternoon."""
    import torch
    from torch import nn

    class Plain(nn.Module):
        """Linear read-in, `nn.TransformerEncoder`, linear read-out, squared error of hidden patches."""

        def __init__(self) -> None:
            super().__init__()
            self.read_in, self.read_out = nn.Linear(5 * CHANNELS, 384), nn.Linear(384, 5 * CHANNELS)
            self.mask_token, self.position = nn.Parameter(torch.randn(384)), nn.Parameter(torch.randn(512, 384) * 0.02)
            layer = nn.TransformerEncoderLayer(384, 6, 512, 0.4, "gelu", batch_first=True, norm_first=True)
            self.encoder = nn.TransformerEncoder(layer, 7, nn.LayerNorm(384), enable_nested_tensor=False)
            self.dropout = nn.Dropout(0.2)

        def forward(self, features: torch.Tensor, real: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
            """Loss of a padded batch."""
            patches = features.flatten(2)
            states = torch.where(hidden[..., None], self.mask_token, self.read_in(patches))
            states = self.dropout(states + self.position[: states.shape[1]])
            found = self.read_out(self.encoder(states, src_key_padding_mask=~real)).float()
            chosen = (hidden & real)[..., None]
            return ((found - patches).square() * chosen).sum() / (chosen.sum() * patches.shape[2])

    return Plain()


def contenders(lengths: list[int]) -> dict[str, tuple[Callable[[int], tuple[int, int, int]], Any]]:
    """For each contender: step number -> (real patches, computed patches, model FLOPs), and the model."""
    import numpy as np
    import torch

    from bit_speech.data.pretraining_corpus import CorpusBatchSampler
    from bit_speech.training.pretraining_input import PretrainingInput
    from bit_speech.training.throughput import training_flops
    from configuration_bit.configuration_bit import BITConfig
    from configuration_bit.configuration_bit_gru import BITGRUConfig
    from modeling_bit.masking_bit import sample_span_mask
    from modeling_bit.modeling_bit_gru import BITGRUForCTC
    from modeling_bit.modeling_bit_pretraining import BITForMaskedModeling
    from processing_bit.feature_extraction_bit import BITFeatureExtractor

    bins = np.array(lengths)
    sampler = CorpusBatchSampler(bins, np.zeros(len(bins), dtype=int), BATCH, bucket_batches=32)
    bucketed = [batch for batch in sampler if len(batch) == BATCH]
    order = np.random.default_rng(1).permutation(len(bins))
    random = [order[i : i + BATCH].tolist() for i in range(0, len(bins) - BATCH + 1, BATCH)]
    kernel = torch.from_numpy(BITFeatureExtractor().smoothing_kernel())
    prepare = PretrainingInput(kernel, len(kernel) // 2, 5, white_noise_sd=0.2, constant_offset_sd=0.05)

    def padded(trials: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        real = torch.from_numpy(bins[trials])
        mask = torch.arange(int(real.max())) < real[:, None]
        features = torch.randn(len(trials), mask.shape[1], CHANNELS) * mask[..., None]
        hidden = sample_span_mask(real // 5, int(real.max()) // 5, 0.5, 15, trial_seeds=torch.tensor(trials))
        return features, mask, real // 5, hidden

    def ours(batches: list[list[int]], bf16: bool = True) -> tuple[Any, Any]:
        model = BITForMaskedModeling(BITConfig(participants=PARTICIPANTS, mask_ratio=0.5)).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
        participant = torch.full((BATCH,), list(model.config.participants).index(OURS))

        def step(number: int) -> tuple[int, int, int]:
            features, mask, frames, hidden = padded(batches[number % len(batches)])
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(
                    prepare(features, mask, hidden, training=True),
                    attention_mask=mask,
                    participant_index=participant,
                    labels=features,
                    time_mask=hidden,
                ).loss
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            flops = training_flops(
                model.config, int(frames.sum()), int(frames.square().sum()), CHANNELS, int(hidden.sum())
            )
            return int(frames.sum()), hidden.numel(), flops

        return step, model

    def plain(bf16: bool) -> tuple[Any, Any]:
        model = plain_transformer().train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step(number: int) -> tuple[int, int, int]:
            features, _, frames, hidden = padded(random[number % len(random)])
            real = torch.arange(hidden.shape[1]) < frames[:, None]
            patches = features[:, : 5 * hidden.shape[1]].unflatten(1, (-1, 5))
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = model(patches, real, hidden)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return int(frames.sum()), hidden.numel(), 0

        return step, model

    def recurrent() -> tuple[Any, Any]:
        model = BITGRUForCTC(BITGRUConfig(participants={"p": CHANNELS}, sessions=["day"])).train()
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

        def step(number: int) -> tuple[int, int, int]:
            features, mask, frames, _ = padded(random[number % len(random)])
            labels = torch.randint(1, 41, (BATCH, 20))
            model(features, attention_mask=mask, labels=labels).loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            return int(frames.sum()), BATCH * int(frames.max()), 0

        return step, model

    return {
        "ours": ours(bucketed),
        "ours, random batches": ours(random),
        "ours, float32": ours(bucketed, bf16=False),
        "plain transformer, bf16": plain(bf16=True),
        "plain transformer, float32": plain(bf16=False),
        "GRU, float32": recurrent(),
    }


def measure(threads: int, rounds: int) -> dict[str, Any]:
    """Let the contenders take turns; medians over the rounds."""
    import torch

    from bit_speech.machine import peak_memory_gb
    from bit_speech.training.throughput import peak_flops

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    runs = contenders(trial_lengths())
    found: dict[str, list[dict[str, float]]] = {name: [] for name in runs}
    # Every contender once in every round; the first round warms up.
    for number in range(rounds + 1):
        for name, (step, _) in runs.items():
            wall, processor = time.perf_counter(), time.process_time()
            patches, computed, flops = step(number)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            if number:
                found[name].append(
                    {
                        "patches_per_second": patches / wall,
                        "patches_per_cpu_second": patches / processor,
                        "padding": 1 - patches / computed,
                        "flops_per_second": flops / wall,
                    }
                )
    peak = peak_flops(torch.device("cpu")) or 0.0
    rows = {}
    for name, samples in found.items():
        row: dict[str, Any] = {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}
        row["parameters"] = sum(parameter.numel() for parameter in runs[name][1].parameters())
        flops = row.pop("flops_per_second")
        if flops:
            row["model_flops_utilisation"] = flops / peak
        for key in ("patches_per_second", "patches_per_cpu_second"):
            row[f"{key}_beside_ours"] = statistics.median(
                mine[key] / other[key] for mine, other in zip(found["ours"], samples, strict=True)
            )
        rows[name] = row
    return {"threads": threads, "rounds": rounds, "peak_flops": peak, "peak_memory": peak_memory_gb(), "rows": rows}


def main(argv: list[str] | None = None) -> None:
    """Measure with 1 and 2 threads, each in a process of its own."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, 2])
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.worker:
        print(json.dumps(measure(arguments.threads[0], arguments.rounds)))
        return
    results = []
    for threads in arguments.threads:
        command = [sys.executable, "-m", "benchmarks.pretraining_throughput", "--worker", "--threads", str(threads)]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)}
        done = subprocess.run(
            [*command, "--rounds", str(arguments.rounds)], env=environment, check=True, capture_output=True, text=True
        )
        results.append(json.loads(done.stdout.splitlines()[-1]))
        for name, row in results[-1]["rows"].items():
            print(threads, name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    save_result(
        "pretraining_throughput",
        {
            "command": "python -m benchmarks.pretraining_throughput",
            "batch": BATCH,
            "channels": CHANNELS,
            "lengths": f"{TRIALS} trials of the presets t12-like and t15-like",
            "load_average": os.getloadavg()[0],
            "results": results,
        },
    )


if __name__ == "__main__":
    main()
