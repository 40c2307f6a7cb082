"""Word error rate against cost of the word decoder, beside its peers: same posteriors, lexicon and language model.

    python -m benchmarks.decoding --data_dir DIR --lexicon dict.txt [--peer_python PYTHON --work_dir FOLDER]

`DIR` holds `posteriors_<set>.npz` files (`log_probs` of all sentences one after the other, `lengths`, `text`; model
class order) and the language model. Every decoder's weights are tuned by the same trials on the first sentences of each
set and scored on the others, in a process of its own, on one thread. Processor time counts: of several passes the
quickest of each sentence. The peers (`kaldi-decoder`, `kaldifst`; `flashlight-text`, `kenlm`) run with an interpreter
of their own; the static graph is built once and kept in the working folder.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import RESULTS, save_result
from benchmarks.peers.shared import count_errors, load_posteriors, measure, memory_mb, tune
from bit_speech.decoding import BeamSearchDecoder, Lexicon, NGramLM

PEERS = Path(__file__).parent / "peers"
BEAMS = {
    "ours": [7, 8, 9, 10, 11, 12, 13, 14, 16, 18],
    "kaldi": [8, 10, 12, 14, 16, 18],
    "flashlight": [25, 50, 100, 500, 1500],
}
TUNE_BEAM = {"ours": 12, "kaldi": 14, "flashlight": 500}
NAMES = {
    "ours": "bit-speech",
    "kaldi": "kaldi-decoder (static WFST)",
    "flashlight": "flashlight-text + KenLM",
    "flashlight-spelled": "flashlight-text + KenLM (SIL required)",
}


def worker(job: dict[str, Any]) -> dict[str, Any]:
    """Load, tune and measure our decoder; runs in a process of its own."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    log_probs, texts = load_posteriors(Path(job["posteriors"]))
    before, start = memory_mb(), time.process_time()
    lm = NGramLM.load(job["lm"])
    opened = time.process_time() - start
    base = BeamSearchDecoder(
        # As the static graph: the best alignment counts, not the sum of all.
        Lexicon.load(job["own_lexicon"]),
        lm,
        beam_size=20000,
        num_hypotheses=1,
        unknown_word_score=None,
        merge="max",
    )
    loaded = time.process_time() - start
    first = job["tune_sentences"]

    def cost(weights: dict[str, float]) -> int:
        decoder = base.with_settings(beam_threshold=job["tune_beam"], **weights)
        found = decoder.decode_batch(log_probs[:first])
        return sum(count_errors(text, best[0].text) for text, best in zip(texts[:first], found, strict=True))

    weights, errors, trials = tune(cost, job["tunable"])
    result: dict[str, Any] = {"weights": weights, "tuning_errors": errors, "tuning_trials": trials, "beams": []}
    for beam in job["beams"]:
        decoder = base.with_settings(beam_threshold=beam, **weights)
        row = measure(_text_of(decoder), log_probs[first:], texts[first:], job["passes"])
        result["beams"].append({"beam": beam, **row})
        print(f"ours {beam} {row['wer']:.4f} {row['cpu_us_per_frame']:.1f}", file=sys.stderr, flush=True)
    return result | {
        "load_cpu_s": loaded,
        "lm_open_cpu_s": opened,
        "rss_before_loading_mb": before,
        "peak_rss_mb": memory_mb(),
    }


def _text_of(decoder: BeamSearchDecoder) -> Callable[[np.ndarray], str]:
    return lambda log_probs: decoder.decode(log_probs)[0].text


def threads(job: dict[str, Any]) -> dict[str, float]:
    """Wall seconds of the same batch on one and on two threads, the quickest of three each."""
    log_probs, _ = load_posteriors(Path(job["posteriors"]))
    decoder = BeamSearchDecoder(
        Lexicon.load(job["own_lexicon"]),
        NGramLM.load(job["lm"]),
        beam_threshold=12.0,
        acoustic_scale=0.4,
        num_hypotheses=1,
        unknown_word_score=None,
    )
    seconds = {1: [], 2: []}
    decoder.decode_batch(log_probs, 2)
    for _ in range(3):
        for number, found in seconds.items():
            start = time.perf_counter()
            decoder.decode_batch(log_probs, number)
            found.append(time.perf_counter() - start)
    return {"one_s": min(seconds[1]), "two_s": min(seconds[2]), "speed_up": min(seconds[1]) / min(seconds[2])}


def stream(job: dict[str, Any]) -> dict[str, Any]:
    """Latency from a new frame to partial text and from the last frame to the final text; memory over hours."""
    log_probs, _ = load_posteriors(Path(job["posteriors"]))
    decoder = BeamSearchDecoder(
        Lexicon.load(job["own_lexicon"]),
        NGramLM.load(job["lm"]),
        beam_threshold=12.0,
        acoustic_scale=0.4,
        blank_penalty=3.0,
        word_score=1.0,
        num_hypotheses=1,
        unknown_word_score=None,
    )
    steps, ends = [], []
    for utterance in log_probs:
        state = decoder.start()
        for frame in utterance:
            start = time.perf_counter()
            decoder.advance(state, frame[None])
            steps.append(time.perf_counter() - start)
        start = time.perf_counter()
        decoder.finish(state)
        ends.append(time.perf_counter() - start)
    whole, state = np.concatenate(log_probs), decoder.start()
    memory, sizes = [], []
    total = int(job["hours"] * 3600 / 0.08)
    start = time.process_time()
    while state.num_frames < total:
        decoder.advance(state, whole[: total - state.num_frames])
        memory.append(memory_mb())
        sizes.append((state.nbytes - 24 * len(state._committed)) / 1e6)
    return {
        "frame_ms": {name: float(np.quantile(steps, q) * 1e3) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1))},
        "final_ms": {name: float(np.quantile(ends, q) * 1e3) for name, q in (("p50", 0.5), ("p99", 0.99), ("max", 1))},
        "hours": job["hours"],
        "frames": state.num_frames,
        "cpu_us_per_frame": (time.process_time() - start) / max(1, state.num_frames) * 1e6,
        "peak_rss_mb_after_first_and_last_pass": [memory[0], memory[-1]] if memory else [],
        "state_mb_after_first_and_last_pass": [sizes[0], sizes[-1]] if sizes else [],
    }


def run(command: list[str], job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Give a job to a process of its own and read its answer."""
    path = folder / "job.json"
    path.write_text(json.dumps(job), encoding="utf-8")
    one_thread = {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    finished = subprocess.run(
        [*command, str(path)], stdout=subprocess.PIPE, text=True, cwd=PEERS.parents[1], env={**os.environ, **one_thread}
    )
    if finished.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with exit status {finished.returncode} on {path}.")
    return json.loads(finished.stdout.splitlines()[-1])


def prepare(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Make every decoder's files from the same language model and lexicon."""
    start = time.process_time()
    lm = NGramLM.from_arpa(options.arpa)
    read = time.process_time() - start
    lm.save(folder / "lm.bin")
    start = time.process_time()
    lexicon = Lexicon.from_file(options.lexicon)
    lexicon.trie()
    facts = {
        "language_model": {"file": options.arpa.name, "ngrams": lm.counts, "read_arpa_cpu_s": read},
        "lexicon": {"words": len(lexicon), "pronunciations": lexicon.num_pronunciations},
        "trie_mb": sum(array.nbytes for array in lexicon.trie()) / 1e6,
        "trie_build_cpu_s": time.process_time() - start,
    }
    lexicon.save(folder / "lexicon.npz")
    (folder / "vocabulary.txt").write_text("\n".join(word for word in lexicon.words if word in lm), encoding="utf-8")
    with (folder / "lexicon.txt").open("w", encoding="utf-8") as stream:
        for word, code, _ in lexicon._coded():
            stream.write(" ".join([word, *map(str, code)]) + "\n")
    if options.peer_python:
        if not (folder / "lm.arpa").exists():
            lm.write_arpa(folder / "lm.arpa")
        if not (folder / "graph.fst").exists():
            command = [str(options.peer_python), str(PEERS / "static_graph.py"), "--arpa", str(folder / "lm.arpa")]
            command += ["--lexicon", str(options.lexicon), "--output", str(folder / "graph.fst")]
            subprocess.run(command, check=True)
        facts["static_graph"] = json.loads((folder / "graph.json").read_text(encoding="utf-8"))
    return facts


def differences(found: dict[str, Any], number: int = 10_000) -> dict[str, list[float]]:
    """Our best beam's WER less each peer's best, with the interval of a paired bootstrap over sentences."""
    best = {name: min(one["beams"], key=lambda row: row["wer"]) for name, one in found.items()}
    words = np.array(best["ours"]["words"])
    picks = np.random.default_rng(0).integers(0, len(words), (number, len(words)))
    result = {}
    for name, row in best.items():
        if name != "ours":
            gap = np.array(best["ours"]["errors"]) - np.array(row["errors"])
            rates = gap[picks].sum(1) / words[picks].sum(1)
            result[name] = [float(gap.sum() / words.sum()), *(float(q) for q in np.quantile(rates, (0.025, 0.975)))]
    return result


def plot(sets: dict[str, Any]) -> None:
    """Draw WER against cost, one panel for each set."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(sets), figsize=(4.2 * len(sets), 3.6), squeeze=False)
    for axis, (name, found) in zip(axes[0], sets.items(), strict=True):
        for decoder, one in found["decoders"].items():
            rows = one["beams"]
            axis.plot(
                [row["cpu_us_per_frame"] for row in rows],
                [100 * row["wer"] for row in rows],
                marker="o",
                label=NAMES[decoder],
            )
        axis.set(title=name, xscale="log", xlabel="CPU µs per 80 ms frame", ylabel="WER %")
        axis.grid(alpha=0.3)
    axes[0][0].legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "decoding.png", dpi=110)


def main() -> None:
    """Prepare files, run every decoder on every set, save and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder of posteriors_<set>.npz")
    parser.add_argument("--lexicon", type=Path, help="pronunciations, CMUdict style")
    parser.add_argument("--arpa", type=Path, help="language model; default lm3s.arpa.xz in the folder")
    parser.add_argument("--peer_python", type=Path, help="interpreter that has the peers; they are left out without it")
    parser.add_argument("--work_dir", type=Path, help="where the static graph is kept; default a temporary folder")
    parser.add_argument("--sets", nargs="+", default=["r10", "r15", "r20"])
    parser.add_argument("--decoders", nargs="+", default=["kaldi", "flashlight"], help="which peers")
    parser.add_argument("--tune", type=int, default=25, help="sentences to tune on; they are not scored")
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--hours", type=float, default=24.0, help="length of the simulated stream")
    parser.add_argument("--worker", nargs=2, metavar=("WHAT", "JOB"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        job = json.loads(Path(options.worker[1]).read_text(encoding="utf-8"))
        print(json.dumps({"decode": worker, "threads": threads, "stream": stream}[options.worker[0]](job)))
        return
    if not options.data_dir or not options.lexicon:
        parser.error("--data_dir and --lexicon are needed")
    options.arpa = options.arpa or options.data_dir / "lm3s.arpa.xz"
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.work_dir or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        result: dict[str, Any] = {**prepare(options, folder), "tuned_on_sentences": options.tune, "sets": {}}
        own = [sys.executable, "-m", "benchmarks.decoding", "--worker"]
        job = {"lm": folder / "lm.bin", "own_lexicon": folder / "lexicon.npz", "arpa": folder / "lm.arpa"}
        job |= {"lexicon": folder / "lexicon.txt", "graph": folder / "graph.fst"}
        job = {name: str(path.resolve()) for name, path in job.items()}
        job |= {"vocabulary": str((folder / "vocabulary.txt").resolve()), "hours": options.hours}
        job |= {"tune_sentences": options.tune, "passes": options.passes}
        for name in options.sets:
            job["posteriors"] = str((options.data_dir / f"posteriors_{name}.npz").resolve())
            found = {}
            for decoder in ["ours", *(options.decoders if options.peer_python else [])]:
                kind = decoder.split("-")[0]
                job |= {"beams": BEAMS[kind], "tune_beam": TUNE_BEAM[kind], "decoder": kind}
                job["spell_sil"] = decoder.endswith("-spelled")
                # The word score of a static graph is built in, so nobody's is tuned: the same trials for all.
                job["tunable"] = ["acoustic_scale", "blank_penalty"]
                command = (
                    [*own, "decode"] if decoder == "ours" else [str(options.peer_python), str(PEERS / "decode.py")]
                )
                found[decoder] = run(command, job, folder)
            result["sets"][name] = {"decoders": found, "differences": differences(found)}
            for one in found.values():
                for row in one["beams"]:
                    del row["errors"], row["words"]
        result["threads"] = run([*own, "threads"], job, folder)
        result["stream"] = run([*own, "stream"], job, folder)
    plot(result["sets"])
    print(f"written to {save_result('decoding', result)}")


if __name__ == "__main__":
    main()
