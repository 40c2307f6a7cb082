"""How fast a day of iEEG is filtered, and how fast windows are trained on, beside plain references.

    python -m benchmarks.ieeg_preprocessing                  # ten minutes of recording, extrapolated
    python -m benchmarks.ieeg_preprocessing --hours 24       # a whole day, measured

200 channels at 2,048 Hz, 16 bits, EDF; output 40 Hz, band-pass 0.05-50 Hz. A recording of more than ten minutes is one
minute read again and again, so it measures everything but the disk. The plain reference is what one writes first: two
minutes of it through MNE, everything in memory, `filter` and `resample`. Training: windows per second of a whole step
with the published sizes, beside a plain loop over the same modules.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import save_result
from bit_speech.data.ieeg_preprocessing import IEEGPreprocessing, preprocess
from bit_speech.data.ieeg_recordings import EDFRecording, write_edf
from bit_speech.machine import peak_memory_gb

CHANNELS, RATE_HZ = 200, 2048
_DAY_S = 24 * 3600.0
_PIECE_S = 60
_PLAIN_S = 120.0


def write_recording(path: Path, seconds: int) -> None:
    """An EDF of noise: one minute of it, again and again."""
    rng = np.random.default_rng(0)
    noise = 1e-5 * rng.standard_normal((CHANNELS, _PIECE_S * RATE_HZ), dtype=np.float32).cumsum(axis=1) / 20
    write_edf(path, noise.clip(-3e-3, 3e-3), RATE_HZ, [f"A{index + 1}" for index in range(CHANNELS)])
    if seconds == _PIECE_S:
        return
    whole = path.read_bytes()
    size = 256 * (CHANNELS + 1)
    # The number of records stands at byte 236 of the header.
    head = whole[:236] + f"{seconds:<8}".encode() + whole[244:size]
    with path.open("wb") as file:
        file.write(head)
        for _ in range(seconds // _PIECE_S):
            file.write(whole[size:])


class Repeated:
    """A recording that goes on and on."""

    def __init__(self, recording: EDFRecording, seconds: int) -> None:
        self._recording, self._size = recording, recording.num_samples
        self.sampling_rate_hz, self.channel_names = recording.sampling_rate_hz, recording.channel_names
        self.num_samples = round(seconds * recording.sampling_rate_hz)

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples of all channels."""
        parts, position = [], start
        while position < stop:
            offset = position % self._size
            count = min(stop - position, self._size - offset)
            parts.append(self._recording.read(offset, offset + count))
            position += count
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def ours(path: Path, stream: str, seconds: int) -> dict[str, float]:
    """Stream the file through our filters."""
    recording = Repeated(EDFRecording(path), seconds)
    wall, cpu = time.perf_counter(), time.process_time()
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        values, _ = preprocess(recording, IEEGPreprocessing(stream=stream), output=Path(folder) / "x.npy")
        shape = values.shape
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "bins": shape[0]}


def plain(path: Path) -> dict[str, float]:
    """The first two minutes of the same through MNE in memory; ten would not fit beside other work."""
    import mne

    wall, cpu = time.perf_counter(), time.process_time()
    raw = mne.io.read_raw_edf(path, verbose="error").crop(tmax=_PLAIN_S, include_tmax=False).load_data(verbose="error")
    raw.filter(0.05, 50.0, verbose="error").resample(40.0, verbose="error")
    return {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "bins": raw.n_times}


def alone(what: str, path: Path, seconds: int) -> dict[str, float]:
    """Run one measurement in a process of its own, so that its peak memory is its own."""
    command = [sys.executable, "-m", "benchmarks.ieeg_preprocessing", "--measure", what, "--file", str(path)]
    command += ["--hours", str(seconds / 3600)]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ)
    numbers = dict(entry.split("=") for entry in run.stdout.split())
    return {name: float(value) for name, value in numbers.items()}


def training(threads: int) -> dict[str, Any]:
    """Windows per second of whole training steps of both published sizes, and of a plain loop over the same layers."""
    import torch
    from torch import nn

    from configuration_bit import ENCODER_PRESETS, IEEGAudioConfig
    from modeling_bit import IEEGAudioForRetrieval

    torch.set_num_threads(threads)
    features, labels = torch.randn(32, 120, CHANNELS), torch.randn(32, 1024)

    def rate(model: nn.Module, loss: Callable[[], torch.Tensor]) -> float:
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            optimizer.zero_grad()
            loss().backward()
            optimizer.step()
            seconds.append(time.perf_counter() - started)
        return len(features) / statistics.median(seconds[1:])

    found = {}
    for preset in ENCODER_PRESETS:
        model = IEEGAudioForRetrieval(IEEGAudioConfig.preset(preset, participants={"s1": CHANNELS}))
        bare = PlainEncoder(model.config)
        own = rate(model, lambda model=model: model(features, labels=labels).loss)  # type: ignore[misc]
        other = rate(bare, lambda bare=bare: bare.loss(features, labels))  # type: ignore[misc]
        found[preset] = {"windows_per_s": own, "plain_windows_per_s": other, "ratio": own / other}
    return found


class PlainEncoder:
    """The encoder as one would write it in a notebook; defined lazily to keep torch out of the measuring processes."""

    def __new__(cls, config: Any) -> Any:
        """Make the module."""
        import torch
        from torch import nn
        from torch.nn import functional as F

        class Encoder(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.first = nn.Conv1d(CHANNELS, 270, 1)
                self.layers, self.norms, self.gates = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
                narrow = config.output_layers == "narrow_last"
                for index in range(config.num_hidden_layers):
                    last = narrow and index == config.num_hidden_layers - 1
                    size = 512 if last else 320
                    dilation = 2 ** (index % (config.dilation_period or 99))
                    inputs = 270 if index == 0 else 320
                    self.layers.append(nn.Conv1d(inputs, size, 3, padding=dilation, dilation=dilation))
                    self.norms.append(nn.Identity() if last else nn.Sequential(nn.BatchNorm1d(size), nn.GELU()))
                    self.gates.append(nn.Conv1d(size, 2 * size, 3, padding=1) if index % 2 else nn.Identity())
                middle = 512 if narrow else 1024
                wide = nn.Sequential(nn.Conv1d(320, 640, 1), nn.GELU(), nn.Conv1d(640, 1024, 1))
                self.out = nn.Identity() if narrow else wide
                self.score = nn.Sequential(nn.Linear(middle, 256), nn.Tanh(), nn.Linear(256, 1))
                self.last = nn.Linear(512, 1024) if narrow else nn.Identity()
                self.temperature = nn.Parameter(torch.tensor(2.66))

            def loss(self, features: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
                x = self.first(features.transpose(1, 2))
                for index, (layer, norm, gate) in enumerate(zip(self.layers, self.norms, self.gates, strict=True)):
                    y = norm(layer(x))
                    x = y + x if y.shape == x.shape else y
                    x = F.glu(gate(x), dim=1) if index % 2 else x
                x = self.out(x).transpose(1, 2)
                x = self.last((self.score(x).softmax(dim=1) * x).sum(dim=1))
                scores = self.temperature.exp() * F.normalize(x, dim=1) @ F.normalize(labels, dim=1).T
                return F.cross_entropy(scores, torch.arange(len(x)))

        return Encoder()


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hours", type=float, default=1 / 6, help="length of the recording that is made")
    parser.add_argument("--folder", default=None, help="where the recording is written; default the temporary folder")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--measure", choices=("low", "gamma", "both", "plain"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        seconds = round(arguments.hours * 3600)
        found = (
            plain(arguments.file) if arguments.measure == "plain" else ours(arguments.file, arguments.measure, seconds)
        )
        found["peak_memory_gb"] = peak_memory_gb()["process"]
        print(" ".join(f"{name}={value}" for name, value in found.items()))
        return
    os.environ["OMP_NUM_THREADS"] = str(arguments.threads)
    seconds = max(1, round(arguments.hours * 3600 / _PIECE_S)) * _PIECE_S
    rows: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        path = Path(folder) / "day.edf"
        write_recording(path, seconds if seconds <= 600 else _PIECE_S)
        streams = ("low", "gamma") if arguments.hours < 2 else ("low",)
        for name in (*streams, *(("plain",) if arguments.hours < 0.5 else ())):
            rounds = [alone(name, path, seconds) for _ in range(arguments.rounds if arguments.hours < 2 else 1)]
            rows[name] = {key: statistics.median(entry[key] for entry in rounds) for key in rounds[0]}
            days = _DAY_S / (min(seconds, _PLAIN_S) if name == "plain" else seconds)
            rows[name]["day_wall_min"] = rows[name]["wall_s"] * days / 60
            rows[name]["day_cpu_min"] = rows[name]["cpu_s"] * days / 60
            print(name, rows[name], flush=True)
    result = {
        "command": "python -m benchmarks.ieeg_preprocessing", "channels": CHANNELS, "rate_hz": RATE_HZ,
        "recording_s": seconds, "threads": arguments.threads, "rows": rows, "load_average": os.getloadavg()[0],
    }  # fmt: skip
    if arguments.hours < 2:
        result["training"] = training(arguments.threads)
        save_result("ieeg_preprocessing", result)
    else:
        save_result("ieeg_preprocessing_day", result)


if __name__ == "__main__":
    main()
