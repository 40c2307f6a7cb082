"""Build and query n-gram language models: time, memory, perplexity, size; beside KenLM's programs when they are given.

    python -m benchmarks.language_models --data_dir DIR [--kenlm_dir DIR] [--lexicon FILE] [--keep_model DIR]
    python -m benchmarks.language_models --data_dir DIR --lexicon FILE --decode_with MODEL  # only that part, anew

DIR holds lm_text.txt.xz (a sentence per line) and lm3s.arpa.xz, and for decoding posteriors_<set>.npz. Every 100th
sentence is held out. The large text is the training text and sentences drawn from lm3s, up to 55 million words: enough
for a 5-gram of 100 million n-grams. Every measurement runs in a process of its own. The package kenlm is asked too when
it is installed.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numba
import numpy as np

from benchmarks.common import RESULTS, machine, save_result
from bit_speech.decoding import BeamSearchDecoder, Lexicon, NGramLM
from bit_speech.decoding.build_lm import build_ngram_lm_from_files
from bit_speech.decoding.lm_kernels import LMArrays, score_words
from bit_speech.evaluation import word_error_rate
from bit_speech.import_utils import is_available

LARGE_WORDS = 55_000_000
# Sets of posteriors for decoding, and the acoustic scale that suits how over-confident they are.
DECODING_SCALES = {"r10": 0.3, "r15": 0.4, "r20": 0.5}


@numba.njit(nogil=True)
def draw(lm, cumulative, unigrams, bos, eos, unk, start, number, seed):
    """Draw words from an exact backoff model. After backing off, listed words may be drawn again: close enough here."""
    np.random.seed(seed)  # noqa: NPY002 (compiled code has its own state)
    words = np.empty(number, dtype=np.int32)
    scratch = np.empty(1, dtype=np.int64)
    state, length, i = np.int64(start), 0, 0
    while i < number:
        context, word = state, np.int64(-1)
        while word < 0:
            if context == 0:
                word = np.searchsorted(unigrams, np.random.random() * unigrams[-1], side="right")  # noqa: NPY002
                break
            low, high = lm.first_child[context], lm.first_child[context + 1]
            target = cumulative[low - 1] + np.random.random()  # noqa: NPY002
            if high > low and target < cumulative[high - 1]:
                word = np.int64(lm.words[low + np.searchsorted(cumulative[low:high], target, side="right")])
            context = np.int64(lm.suffix[context])
        if word in (bos, unk) or (word == eos and length == 0):
            continue
        words[i] = word
        i += 1
        length += 1
        scratch[0] = word
        _, state = score_words(lm, state, scratch)
        if word == eos:
            state, length = np.int64(start), 0
    return words


def write_large_text(options: argparse.Namespace, train: Path, path: Path) -> None:
    """The training text, then sentences drawn from lm3s."""
    shutil.copyfile(train, path)
    lm = NGramLM.from_arpa(options.data_dir / "lm3s.arpa.xz")
    assert isinstance(lm.arrays, LMArrays)
    cumulative = np.cumsum(np.exp(lm.arrays.probs.astype(np.float64)))
    unigrams = np.cumsum(np.exp(lm.unigram_scores().astype(np.float64)))
    names = np.array(lm.words, dtype=object)
    with train.open() as stream:
        have = sum(len(line.split()) for line in stream)
    seed = 0
    with path.open("a") as stream:
        while have < LARGE_WORDS:
            drawn = draw(lm.arrays, cumulative, unigrams, lm.bos, lm.eos, lm.unk, lm.start_state, 2_000_000, seed)
            ends = np.flatnonzero(drawn == lm.eos)
            pieces = names[drawn[: ends[-1] + 1]]
            pieces[ends] = "\n"
            stream.write(" ".join(pieces).replace(" \n ", "\n").replace(" \n", "\n"))
            have += int(ends[-1]) + 1 - len(ends)
            seed += 1


def worker(task: dict[str, Any]) -> dict[str, Any]:
    """One measurement."""
    start, cpu = time.perf_counter(), time.process_time()
    result: dict[str, Any] = {}
    if task["what"] == "build":
        lm = build_ngram_lm_from_files([task["text"]], task["order"], quantize=task["quantize"], num_threads=2)
        lm.save(task["output"])
        result["ngrams"] = lm.counts
    elif task["what"] == "lmplz":
        arguments = ["-o", str(task["order"]), "-S", "4G", "-T", str(Path(task["output"]).parent) + "/"]
        with open(task["text"], "rb") as stdin, open(task["output"], "wb") as stdout:
            subprocess.run(
                [task["program"], *arguments], stdin=stdin, stdout=stdout, stderr=subprocess.DEVNULL, check=True
            )
    elif task["what"] == "query":
        lm = NGramLM.load(task["model"])
        result["open_checked_s"] = time.perf_counter() - start
        start = time.perf_counter()
        lm = NGramLM.load(task["model"], verify=False)
        lm.word_index("the")
        result["open_s"] = time.perf_counter() - start
        result |= measure_queries(lm, Path(task["held_out"]).read_text().splitlines())
        for array in lm.arrays:
            array.view(np.uint8)[::4096].sum()  # touch every page
        result |= {"ngrams": lm.counts, "file_mb": os.path.getsize(task["model"]) / 1e6}
        result["bytes_per_ngram"] = os.path.getsize(task["model"]) / sum(lm.counts)
        # What is resident now; opening with all checks must not have left anything.
        status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
        result["rss_all_pages_mb"] = int(status["VmRSS"].split()[0]) / 1e3
        return result
    elif task["what"] == "decode":
        return decode(task)
    elif task["what"] == "arpa_perplexity":
        lines = Path(task["held_out"]).read_text().splitlines()
        return {"perplexity": NGramLM.from_arpa(task["model"]).perplexity(lines)}
    elif task["what"] == "kenlm":
        import kenlm

        lines = Path(task["held_out"]).read_text().splitlines()
        model = kenlm.Model(task["model"])
        times = []
        for _ in range(3):
            begin = time.process_time()
            for line in lines:
                model.score(line)
            times.append(time.process_time() - begin)
        count = sum(len(line.split()) + 1 for line in lines)
        return {
            "file_mb": os.path.getsize(task["model"]) / 1e6,
            "sentence_ns_per_word": 1e9 * float(np.median(times)) / count,
        }
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    result["wall_s"] = time.perf_counter() - start
    result["cpu_s"] = time.process_time() - cpu + children.ru_utime + children.ru_stime
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    result["peak_rss_mb"] = (children.ru_maxrss if task["what"] == "lmplz" else own) * 1024 / 1e6
    return result


def resident_mb() -> dict[str, float]:
    """Memory of this process that is resident now: of its own, and pages of files, which processes share."""
    status = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(status[key].split()[0]) / 1e3 for name, key in (("own", "RssAnon"), ("files", "RssFile"))}


def decode(task: dict[str, Any]) -> dict[str, Any]:
    """Decode three sets of posteriors twice with a model: the first pass makes the tries of its states."""
    model, lexicon = NGramLM.load(task["model"]), Lexicon.load(task["lexicon"])
    decoder = BeamSearchDecoder(lexicon, model, beam_size=task["beam_size"], beam_threshold=8, num_hypotheses=1)
    decoder.decode(np.log(np.full((5, 41), 1 / 41)))  # compiles
    result: dict[str, Any] = {"ngrams": sum(model.counts), "sets": {}, "resident_mb_before": resident_mb()}
    for name, scale in DECODING_SCALES.items():
        stored = np.load(Path(task["data_dir"]) / f"posteriors_{name}.npz")
        sentences = np.split(stored["log_probs"].astype(np.float32), np.cumsum(stored["lengths"])[:-1])
        tuned = decoder.with_settings(acoustic_scale=scale)
        cost = []
        for _ in range(2):
            begin = time.process_time()
            found = [tuned.decode(sentence)[0].text for sentence in sentences]
            cost.append(1e6 * (time.process_time() - begin) / len(stored["log_probs"]))
        errors = word_error_rate([str(text) for text in stored["text"]], found)
        result["sets"][name] = {
            "us_per_frame_first_pass": cost[0], "us_per_frame_second_pass": cost[1], "wer": errors.rate,
            "resident_mb": resident_mb(),
        }  # fmt: skip
        del tuned
    return result


def measure_decoding(options: argparse.Namespace, folder: Path, large: Path) -> dict[str, Any]:
    """The large model beside lm3s in the same search."""
    small, lexicon = folder / "lm3s.bin", folder / "lexicon.npz"
    NGramLM.from_arpa(options.data_dir / "lm3s.arpa.xz", quantize=True).save(small)
    Lexicon.from_file(options.lexicon).save(lexicon)
    common = {"what": "decode", "lexicon": lexicon, "data_dir": options.data_dir}
    return {
        str(beam_size): {
            name: run(model=model, beam_size=beam_size, **common) for name, model in (("3", small), ("5", large))
        }
        for beam_size in (100, 500)
    }


def measure_queries(lm: NGramLM, lines: list[str]) -> dict[str, float]:
    """Perplexity, and CPU time per word: by sentence through Python, and compiled alone."""
    perplexity = lm.perplexity(lines)
    sentences = [np.append(lm.word_indices(line.split()), lm.eos) for line in lines]
    count = sum(map(len, sentences))
    start = np.int64(lm.start_state)
    whole, compiled = [], []
    for _ in range(3):
        begin = time.process_time()
        for line in lines:
            lm.score_sentence(line)
        whole.append(time.process_time() - begin)
        begin = time.process_time()
        for sentence in sentences:
            score_words(lm.arrays, start, sentence)
        compiled.append(time.process_time() - begin)
    return {
        "perplexity": perplexity,
        "sentence_ns_per_word": 1e9 * float(np.median(whole)) / count,
        "compiled_ns_per_word": 1e9 * float(np.median(compiled)) / count,
    }


def run(**task: Any) -> dict[str, Any]:
    """A measurement in a process of its own; the first run of a kind compiles, so callers warm it up."""
    command = [sys.executable, "-m", "benchmarks.language_models", "--worker", json.dumps(task, default=str)]
    found = subprocess.run(command, capture_output=True, text=True)
    if found.returncode:
        raise RuntimeError(f"{task}: {found.stderr}")
    result = json.loads(found.stdout.splitlines()[-1])
    print(task["what"], Path(str(task.get("text", task.get("model")))).name, json.dumps(result), flush=True)
    return result


def measure(options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All measurements, one after the other; large files go as soon as they are not needed."""
    train, held_out = folder / "train.txt", folder / "held_out.txt"
    with (
        lzma.open(options.data_dir / "lm_text.txt.xz", "rt") as text,
        train.open("w") as most,
        held_out.open("w") as rest,
    ):
        for number, line in enumerate(text):
            (rest if number % 100 == 99 else most).write(line)
    run(what="build", text=held_out, order=5, quantize=True, output=folder / "warm.bin")  # compiles
    run(what="query", model=folder / "warm.bin", held_out=held_out)
    result: dict[str, Any] = {"small": {}}
    for order in (3, 5):
        row: dict[str, Any] = {}
        for name in ("exact", "quantized"):
            model = folder / f"{name}.bin"
            row[name] = run(what="build", text=train, order=order, quantize=name == "quantized", output=model)
            row[name]["query"] = run(what="query", model=model, held_out=held_out)
        if options.kenlm_dir:
            arpa, trie = folder / "kenlm.arpa", folder / "kenlm.trie"
            row["lmplz"] = run(what="lmplz", program=options.kenlm_dir / "lmplz", text=train, order=order, output=arpa)
            row["lmplz"] |= run(what="arpa_perplexity", model=arpa, held_out=held_out)
            program = [str(options.kenlm_dir / "build_binary"), "-q", "8", "-b", "8", "-T", f"{folder}/", "trie"]
            subprocess.run([*program, str(arpa), str(trie)], check=True, capture_output=True)
            arpa.unlink()
            row["kenlm_trie_mb"] = trie.stat().st_size / 1e6
            if is_available("kenlm"):
                row["kenlm"] = run(what="kenlm", model=trie, held_out=held_out)
            trie.unlink()
        result["small"][str(order)] = row
    if options.skip_large:
        return result
    large = options.large_text or folder / "large.txt"
    if not options.large_text:
        write_large_text(options, train, large)
    model = (options.keep_model or folder) / "lm5.bin"
    result["large"] = run(what="build", text=large, order=5, quantize=True, output=model)
    result["large"]["query"] = run(what="query", model=model, held_out=held_out)
    result["large"]["text"] = "given" if options.large_text else "training text and sentences drawn from lm3s"
    if options.lexicon:
        result["decoding"] = measure_decoding(options, folder, model)
    if options.large_text:
        # Nobody knows whether the held-out sentences are in it.
        del result["large"]["query"]["perplexity"]
    if options.kenlm_dir and options.large_lmplz:
        result["large"]["lmplz"] = run(
            what="lmplz", program=options.kenlm_dir / "lmplz", text=large, order=5, output=folder / "large.arpa"
        )
    return result


def main() -> None:
    """Parse arguments, measure, save."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", type=Path, help="folder with lm_text.txt.xz and lm3s.arpa.xz")
    parser.add_argument("--kenlm_dir", type=Path, help="folder with the programs lmplz and build_binary")
    parser.add_argument("--large_text", type=Path, help="a text of about 55 million words, instead of drawing one")
    parser.add_argument("--large_lmplz", action="store_true", help="run lmplz on the large text too (4 GB of disk)")
    parser.add_argument("--keep_model", type=Path, help="folder for the large model; default: removed in the end")
    parser.add_argument("--lexicon", type=Path, help="word<TAB>phonemes, to decode posteriors with the large model")
    parser.add_argument("--decode_with", type=Path, help="a large model kept from before: only decode with it")
    parser.add_argument("--skip_large", action="store_true")
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(worker(options.worker)))
        return
    if options.data_dir is None:
        parser.error("--data_dir is needed")
    with tempfile.TemporaryDirectory() as folder:
        if options.decode_with:
            stored = json.loads((RESULTS / "language_models.json").read_text())
            decoding = measure_decoding(options, Path(folder), options.decode_with)
            result = stored | {"decoding": {**decoding, "machine": machine()}}
        else:
            result = measure(options, Path(folder))
    print(f"written to {save_result('language_models', result)}")


if __name__ == "__main__":
    main()
