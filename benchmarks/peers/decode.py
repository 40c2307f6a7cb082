"""Decode one set of posteriors with one peer; run by `benchmarks/decoding.py` with the peers' own interpreter.

    PEER_PYTHON benchmarks/peers/decode.py JOB.json

The job names the decoder (`kaldi` or `flashlight`), its files, its beams and how many sentences are for tuning. Prints
one JSON object. Needs `kaldi-decoder` and `kaldifst`, or `flashlight-text` and `kenlm`.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))
from shared import count_errors, load_posteriors, measure, memory_mb, tune

Decode = Callable[[np.ndarray], str]


class Kaldi:
    """A static graph of lexicon, n-gram model and CTC topology."""

    def __init__(self, job: dict[str, Any]) -> None:
        import kaldi_decoder
        import kaldifst

        self.kaldi_decoder, self.kaldifst = kaldi_decoder, kaldifst
        self.graph = kaldifst.StdConstFst.read(job["graph"])
        self.words = Path(job["graph"]).with_suffix(".words.txt").read_text(encoding="utf-8").splitlines()

    def decoder(self, weights: dict[str, float], beam: float) -> Decode:
        """Decode with given weights; the word score is part of the graph."""
        options = self.kaldi_decoder.FasterDecoderOptions(beam=beam, max_active=20000, min_active=20)

        def decode(log_probs: np.ndarray) -> str:
            scaled = log_probs.copy()
            scaled[:, 0] -= weights["blank_penalty"]
            scaled *= weights["acoustic_scale"]
            decoder = self.kaldi_decoder.FasterDecoder(self.graph, options)
            decoder.decode(self.kaldi_decoder.DecodableCtc(scaled))
            ok, path = decoder.get_best_path()
            if not ok:
                return ""
            return " ".join(self.words[label] for label in self.kaldifst.get_linear_symbol_sequence(path)[2])

        return decode


class Flashlight:
    """A lexicon trie with unigram look-ahead and KenLM."""

    def __init__(self, job: dict[str, Any]) -> None:
        from flashlight.lib.text import decoder, dictionary
        from flashlight.lib.text.decoder.kenlm import KenLM

        self.library = decoder
        known = set(Path(job["vocabulary"]).read_text(encoding="utf-8").split())
        lexicon: dict[str, list[list[int]]] = {}
        for line in Path(job["lexicon"]).read_text(encoding="utf-8").splitlines():
            word, *codes = line.split()
            if word in known:
                lexicon.setdefault(word, []).append([int(code) for code in codes])
        self.dictionary = dictionary.Dictionary([*lexicon, "<unk>"])
        self.dictionary.set_default_index(self.dictionary.get_index("<unk>"))
        self.lm = KenLM(job["arpa"], self.dictionary)
        start = self.lm.start(False)
        entries = []
        for word, pronunciations in lexicon.items():
            index = self.dictionary.get_index(word)
            score = self.lm.score(start, index)[1]
            entries += [(score, index, pronunciation) for pronunciation in pronunciations]
        # At most six words of a pronunciation are kept: the most probable come first.
        entries.sort(key=lambda entry: -entry[0])
        self.trie = decoder.Trie(41, 40)
        homophones: Counter[tuple[int, ...]] = Counter()
        for score, index, pronunciation in entries:
            homophones[tuple(pronunciation)] += 1
            if homophones[tuple(pronunciation)] > 6:
                continue  # it would be dropped, with a line on the screen for each
            self.trie.insert([*pronunciation, 40] if job["spell_sil"] else pronunciation, index, score)
        self.trie.smear(decoder.SmearingMode.MAX)

    def decoder(self, weights: dict[str, float], beam: float) -> Decode:
        """Decode with given weights; KenLM's scores are log10."""
        library = self.library
        options = library.LexiconDecoderOptions(
            beam_size=int(beam),
            beam_size_token=41,
            beam_threshold=25.0,
            lm_weight=float(np.log(10)),
            word_score=weights["word_score"],
            unk_score=-np.inf,
            sil_score=0.0,
            log_add=True,
            criterion_type=library.CriterionType.CTC,
        )
        unknown = self.dictionary.get_index("<unk>")
        search = library.LexiconDecoder(options, self.trie, self.lm, 40, 0, unknown, [], False)

        def decode(log_probs: np.ndarray) -> str:
            scaled = log_probs.copy()
            scaled[:, 0] -= weights["blank_penalty"]
            scaled = np.ascontiguousarray(scaled * np.float32(weights["acoustic_scale"]), dtype=np.float32)
            found = search.decode(scaled.ctypes.data, *scaled.shape)
            if not found:
                return ""
            return " ".join(self.dictionary.get_entry(index) for index in found[0].words if index >= 0)

        return decode


def main() -> None:
    """Load, tune, measure every beam."""
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    log_probs, texts = load_posteriors(Path(job["posteriors"]))
    before, start = memory_mb(), time.process_time()
    peer = {"kaldi": Kaldi, "flashlight": Flashlight}[job["decoder"]](job)
    result: dict[str, Any] = {"load_cpu_s": time.process_time() - start, "rss_before_loading_mb": before}
    first = job["tune_sentences"]

    def cost(weights: dict[str, float]) -> int:
        decode = peer.decoder(weights, job["tune_beam"])
        return sum(count_errors(text, decode(one)) for one, text in zip(log_probs[:first], texts[:first], strict=True))

    result["weights"], result["tuning_errors"], result["tuning_trials"] = tune(cost, job["tunable"])
    result["beams"] = []
    for beam in job["beams"]:
        decode = peer.decoder(result["weights"], beam)
        row = measure(decode, log_probs[first:], texts[first:], job["passes"])
        result["beams"].append({"beam": beam, **row})
        print(f"{job['decoder']} {beam} {row['wer']:.4f} {row['cpu_us_per_frame']:.1f}", file=sys.stderr, flush=True)
    result["peak_rss_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 if before < 0 else memory_mb()
    print(json.dumps(result))


if __name__ == "__main__":
    main()
