"""What our decoder and its peers are measured with alike; needs numpy alone."""

from __future__ import annotations

import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

_NOT_COMPARED = re.compile(r"[^a-z' ]")
# Searched one after the other, the scale once more at the end: the same trials for every decoder.
GRID = {
    "acoustic_scale": (0.28, 0.34, 0.4, 0.48, 0.56, 0.66, 0.8),
    "blank_penalty": (0.0, 1.5, 3.0, 4.5),
    "word_score": (0.0, 0.5, 1.0, 1.5),
}


def load_posteriors(path: Path) -> tuple[list[np.ndarray], list[str]]:
    """Read one set: log-probabilities and text of every sentence."""
    with np.load(path, allow_pickle=False) as data:
        log_probs = data["log_probs"].astype(np.float32)
        ends = np.cumsum(data["lengths"])
        texts = [str(text) for text in data["text"]]
    return np.split(log_probs, ends[:-1]), texts


def memory_mb() -> float:
    """Largest resident set of this process so far."""
    status = Path("/proc/self/status")
    if status.exists():
        # getrusage would count the parent's memory at the time of the fork.
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(lines["VmHWM"].split()[0]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def words_of(text: str) -> list[str]:
    """Words as they are compared."""
    return _NOT_COMPARED.sub(" ", text.lower()).split()


def count_errors(reference: str, hypothesis: str) -> int:
    """Word edit distance."""
    expected, found = words_of(reference), words_of(hypothesis)
    row = list(range(len(found) + 1))
    for i, word in enumerate(expected, start=1):
        diagonal, row[0] = row[0], i
        for j, other in enumerate(found, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (word != other))
    return row[-1]


def tune(cost: Callable[[dict[str, float]], int], tunable: list[str]) -> tuple[dict[str, float], int, int]:
    """Coordinate search over `GRID`. Returns weights, their errors and the number of trials."""
    best = {"acoustic_scale": 0.4, "blank_penalty": 3.0, "word_score": 0.0}
    lowest, trials = cost(best), 1
    rounds = [(name, GRID[name]) for name in tunable]
    for name, values in [*rounds, ("acoustic_scale", None)]:
        if values is None:
            values = tuple(best["acoustic_scale"] * factor for factor in (0.85, 0.93, 1.08, 1.18))
        start = dict(best)
        for value in values:
            if value == start[name]:
                continue
            errors, trials = cost({**start, name: value}), trials + 1
            if errors < lowest:
                best, lowest = {**start, name: value}, errors
    return best, lowest, trials


def bootstrap(errors: np.ndarray, words: np.ndarray, number: int = 10_000) -> tuple[float, float]:
    """95 % interval of the pooled error rate over sentences."""
    picks = np.random.default_rng(0).integers(0, len(errors), (number, len(errors)))
    rates = errors[picks].sum(1) / words[picks].sum(1)
    return float(np.quantile(rates, 0.025)), float(np.quantile(rates, 0.975))


def measure(
    decode: Callable[[np.ndarray], str], log_probs: list[np.ndarray], texts: list[str], passes: int
) -> dict[str, Any]:
    """Error rate and processor time per frame: of several passes the quickest of each sentence, and the first pass.

    Other work on a machine makes sentences slower, never faster.
    """
    decode(log_probs[0][:2])
    seconds = np.zeros((passes, len(log_probs)))
    found: list[str] = []
    for number in range(passes):
        found = []
        for index, one in enumerate(log_probs):
            start = time.process_time()
            found.append(decode(one))
            seconds[number, index] = time.process_time() - start
    errors = np.array([count_errors(text, guess) for text, guess in zip(texts, found, strict=True)])
    words = np.array([len(words_of(text)) for text in texts])
    low, high = bootstrap(errors, words)
    frames = sum(len(one) for one in log_probs)
    return {
        "wer": float(errors.sum() / words.sum()),
        "wer_low": low,
        "wer_high": high,
        "sentences": len(texts),
        "frames": frames,
        "cpu_us_per_frame": float(seconds.min(0).sum() / frames * 1e6),
        "cpu_us_per_frame_first_pass": float(seconds[0].sum() / frames * 1e6),
        "errors": errors.tolist(),
        "words": words.tolist(),
    }
