"""Word error rate against cost of the word decoder: one thread, given posteriors, lexicon and language model.

    python benchmarks/decoder.py --data_dir DIR --lexicon dict.txt [--arpa lm3s.arpa.xz] [--sets r10 r15 r20]

`DIR` holds `posteriors_<set>.npz` files (`log_probs` of all sentences one after the other, `lengths`, `text`; model
class order). Weights are tuned on the first sentences of each set and scored on the others. Every figure comes from a
process of its own that loads the binary model, so memory and load time are those a user sees.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from common import save_result

from bit_speech.decoding import BeamSearchDecoder, Lexicon, NGramLM, tune_decoder
from bit_speech.decoding.tuning import count_word_errors


def load_posteriors(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Read one set: log-probabilities and text of every sentence."""
    with np.load(path, allow_pickle=False) as data:
        log_probs = data["log_probs"].astype(np.float32)
        ends = np.cumsum(data["lengths"])
        texts = [str(text) for text in data["text"]]
    return np.split(log_probs, ends[:-1]), texts


def bootstrap(errors: np.ndarray, words: np.ndarray, number: int = 10_000) -> tuple[float, float]:
    """95 % interval of the pooled error rate over sentences."""
    picks = np.random.default_rng(0).integers(0, len(errors), (number, len(errors)))
    rates = errors[picks].sum(1) / words[picks].sum(1)
    return float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


def memory_mb() -> float:
    """Largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count the parent's memory at the time of the fork.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Decode one set with one beam; runs in a process of its own."""
    log_probs, texts = load_posteriors(options.data_dir / f"posteriors_{options.sets[0]}.npz")
    # Processor seconds, so that other work on the machine does not count.
    start_mb, start = memory_mb(), time.process_time()
    lm = NGramLM.load(options.arpa)
    opened = time.process_time() - start
    lexicon = Lexicon.from_file(options.lexicon)
    weights = json.loads(options.weights)
    decoder = BeamSearchDecoder(lexicon, lm, **({"unknown_word_score": None} | weights))
    loaded = time.process_time() - start
    if options.tune:
        tuned = tune_decoder(log_probs[: options.tune], texts[: options.tune], decoder)
        return {"weights": tuned.settings}
    decoder.decode(log_probs[0][:2])  # compile, or read the compiled code
    log_probs, texts = log_probs[options.skip :], texts[options.skip :]
    first = time.process_time()
    found = [decoder.decode(one)[0].text for one in log_probs]
    seconds = time.process_time() - first
    pairs = [(text.split(), guess.split()) for text, guess in zip(texts, found, strict=True)]
    errors = np.array([count_word_errors(reference, hypothesis) for reference, hypothesis in pairs])
    words = np.array([len(reference) for reference, _ in pairs])
    low, high = bootstrap(errors, words)
    frames = sum(len(one) for one in log_probs)
    return {
        "wer": float(errors.sum() / words.sum()),
        "wer_low": low,
        "wer_high": high,
        "sentences": len(texts),
        "frames": frames,
        "cpu_us_per_frame": seconds / frames * 1e6,
        "peak_rss_mb": memory_mb(),
        "rss_before_loading_mb": start_mb,
        "lm_open_cpu_s": opened,
        "load_cpu_s": loaded,
    }


def run_alone(options: argparse.Namespace, name: str, model: Path, weights: dict, **flags: int) -> dict[str, Any]:
    """Call `measure` in a new process."""
    command = [sys.executable, __file__, "--worker", "--data_dir", str(options.data_dir), "--arpa", str(model)]
    command += ["--lexicon", str(options.lexicon), "--sets", name, "--weights", json.dumps(weights)]
    for flag, value in flags.items():
        command += [f"--{flag}", str(value)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr}")
    return json.loads(finished.stdout.splitlines()[-1])


def main() -> None:
    """Tune on each set, then measure each beam."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, required=True, help="folder of posteriors_<set>.npz")
    parser.add_argument("--lexicon", type=Path, required=True, help="pronunciations, CMUdict style")
    parser.add_argument("--arpa", type=Path, help="language model; default lm3s.arpa.xz in the folder")
    parser.add_argument("--sets", nargs="+", default=["r10", "r15", "r20"])
    parser.add_argument("--beam_sizes", nargs="+", type=int, default=[50, 100, 250, 500, 1500])
    parser.add_argument("--beam_threshold", type=float, default=14.0)
    parser.add_argument("--tune", type=int, default=25, help="sentences to tune on; they are not scored")
    parser.add_argument("--skip", type=int, default=0, help=argparse.SUPPRESS)
    parser.add_argument("--weights", default="{}", help=argparse.SUPPRESS)
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(options)))
        return
    arpa = options.arpa or options.data_dir / "lm3s.arpa.xz"
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        model = NGramLM.from_arpa(arpa)
        read = time.process_time() - start
        model.save(Path(folder) / "lm.bin")
        result: dict[str, Any] = {
            "language_model": {"file": arpa.name, "ngrams": model.counts, "read_arpa_cpu_s": read},
            "tuned_on_sentences": options.tune,
            "sets": {},
        }
        binary = Path(folder) / "lm.bin"
        result["language_model"]["binary_mb"] = binary.stat().st_size / 1e6
        for name in options.sets:
            base = {
                "beam_threshold": options.beam_threshold,
                "recombine": True,
                "beam_size": 500,
                "acoustic_scale": 0.4,
            }
            weights = run_alone(options, name, binary, base, tune=options.tune)["weights"]
            rows = []
            for size in options.beam_sizes:
                row = run_alone(options, name, binary, {**weights, "beam_size": size}, tune=0, skip=options.tune)
                rows.append({"beam_size": size, **row})
                print(
                    f"{name} beam {size:5d}: WER {100 * row['wer']:5.2f} % [{100 * row['wer_low']:.2f}, "
                    f"{100 * row['wer_high']:.2f}]  {row['cpu_us_per_frame']:6.1f} us/frame  "
                    f"{row['peak_rss_mb']:.0f} MB  load {row['load_cpu_s']:.2f} s "
                    f"(model {row['lm_open_cpu_s'] * 1e3:.0f} ms)",
                    flush=True,
                )
            result["sets"][name] = {"weights": weights, "beams": rows}
        print(f"written to {save_result('decoder', result)}")


if __name__ == "__main__":
    main()
