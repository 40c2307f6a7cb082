"""Build the static search graph that `kaldi-decoder` walks: CTC topology, lexicon and n-gram model in one.

    PEER_PYTHON benchmarks/peers/static_graph.py --arpa lm.arpa.xz --lexicon dict.txt --output graph.fst

Needs `kaldifst` alone. The recipe is the usual one: T o min(det(L o G)), disambiguation symbols removed. SIL after a
word is free, its absence costs `--missing_sil`. Labels in: class + 1; labels out: line of `words.txt` beside the graph.
"""

from __future__ import annotations

import argparse
import json
import lzma
import math
import re
import resource
import time
from collections import Counter
from pathlib import Path

import kaldifst

PHONEMES = [
    "AA",
    "AE",
    "AH",
    "AO",
    "AW",
    "AY",
    "B",
    "CH",
    "D",
    "DH",
    "EH",
    "ER",
    "EY",
    "F",
    "G",
    "HH",
    "IH",
    "IY",
    "JH",
    "K",
    "L",
    "M",
    "N",
    "NG",
    "OW",
    "OY",
    "P",
    "R",
    "S",
    "SH",
    "T",
    "TH",
    "UH",
    "UW",
    "V",
    "W",
    "Y",
    "Z",
    "ZH",
    "SIL",
]
LABEL = {name: index + 2 for index, name in enumerate(PHONEMES)}  # 0 is epsilon, 1 the blank
BLANK, SIL = 1, LABEL["SIL"]
BACKOFF = len(PHONEMES) + 2  # "#0"; "#1", "#2", ... follow


def read_lexicon(path: Path) -> list[tuple[str, tuple[int, ...]]]:
    """Distinct (word, labels) of a CMUdict-style file."""
    entries = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        line = line.split(" #", 1)[0].strip()
        if line and not line.startswith(";;;"):
            word, *phonemes = line.split()
            word = re.sub(r"\(\d+\)$", "", word).lower()
            labels = tuple(LABEL[name.rstrip("012")] for name in phonemes if name != "SIL")
            entries[word, labels] = None
    return list(entries)


def read_arpa(path: Path) -> list[dict[tuple[str, ...], tuple[float, float]]]:
    """(log10 probability, log10 backoff) of each n-gram, by order."""
    orders: list[dict[tuple[str, ...], tuple[float, float]]] = []
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            if line.endswith("-grams:\n"):
                orders.append({})
            elif orders and line[:1] not in "\\\n":
                parts = line.split()
                end = 1 + len(orders)
                orders[-1][tuple(parts[1:end])] = (float(parts[0]), float(parts[end]) if len(parts) > end else 0.0)
    return orders


def lexicon_graph(
    entries: list[tuple[str, tuple[int, ...]]], word_ids: dict[str, int], missing_sil: float, word_score: float
) -> tuple[kaldifst.StdVectorFst, int]:
    """L with disambiguation symbols, and the number of the last symbol."""
    pronunciations = Counter(labels for _, labels in entries)
    prefixes = {labels[:end] for labels in pronunciations for end in range(1, len(labels))}
    used: Counter[tuple[int, ...]] = Counter()
    last = BACKOFF
    graph = kaldifst.StdVectorFst()
    start, loop, silent, word_end = (graph.add_state() for _ in range(4))
    graph.start = start
    arcs = []
    for word, labels in entries:
        ins = list(labels)
        if pronunciations[labels] > 1 or labels in prefixes:
            used[labels] += 1
            ins.append(BACKOFF + used[labels])
            last = max(last, ins[-1])
        here = loop
        for position, label in enumerate(ins):
            # All words end in one state: what follows must not depend on the word, or determinisation takes hours.
            there = word_end if position + 1 == len(ins) else graph.add_state()
            first = position == 0
            arcs.append((here, label, word_ids[word] if first else 0, -word_score if first else 0.0, there))
            here = there
    arcs += [(word_end, 0, 0, missing_sil, loop), (word_end, SIL, 0, 0.0, silent)]
    silence_end = last + 1
    arcs += [(start, 0, 0, 0.0, loop), (start, SIL, 0, 0.0, silent), (silent, silence_end, 0, 0.0, loop)]
    arcs.append((loop, BACKOFF, word_ids["#0"], 0.0, loop))
    for here, label, word, cost, there in arcs:
        graph.add_arc(here, kaldifst.StdArc(label, word, cost, there))
    graph.set_final(loop, 0.0)
    return graph, silence_end


def grammar_graph(orders: list[dict], word_ids: dict[str, int]) -> kaldifst.StdVectorFst:
    """G: one state per context that has successors, backoff by #0."""
    contexts = {(): 0}
    for grams in orders[1:]:
        for gram in grams:
            contexts.setdefault(gram[:-1], len(contexts))
    graph = kaldifst.StdVectorFst()
    for _ in contexts:
        graph.add_state()
    graph.start = contexts["<s>",]

    def longest(gram: tuple[str, ...]) -> int:
        while gram not in contexts:
            gram = gram[1:]
        return contexts[gram]

    scale = -math.log(10)
    for order, grams in enumerate(orders):
        for gram, (score, backoff) in grams.items():
            if gram in contexts and order + 1 < len(orders):
                graph.add_arc(contexts[gram], kaldifst.StdArc(word_ids["#0"], 0, scale * backoff, longest(gram[1:])))
            here = contexts.get(gram[:-1])
            if gram[-1] == "</s>":
                graph.set_final(here, scale * score)
            elif gram[-1] in word_ids:
                graph.add_arc(
                    here, kaldifst.StdArc(word_ids[gram[-1]], word_ids[gram[-1]], scale * score, longest(gram))
                )
    return graph


def topology_graph(last: int) -> kaldifst.StdVectorFst:
    """T: blanks and repeats dropped; disambiguation symbols pass as epsilon."""
    graph = kaldifst.StdVectorFst()
    states = [graph.add_state() for _ in range(len(PHONEMES) + 1)]  # after a blank, after each phoneme
    graph.start = 0
    for state in states:
        graph.set_final(state, 0.0)
        graph.add_arc(state, kaldifst.StdArc(BLANK, 0, 0.0, 0))
        for phoneme in range(1, len(states)):
            graph.add_arc(state, kaldifst.StdArc(phoneme + 1, 0 if phoneme == state else phoneme + 1, 0.0, phoneme))
        for symbol in range(BACKOFF, last + 1):
            graph.add_arc(state, kaldifst.StdArc(0, symbol, 0.0, state))
    return graph


def main() -> None:
    """Read, compose, determinise, minimise, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arpa", type=Path, required=True)
    parser.add_argument("--lexicon", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--missing_sil", type=float, default=4.0, help="cost of a word without SIL")
    parser.add_argument("--word_score", type=float, default=0.0, help="bonus of every word")
    options = parser.parse_args()
    start = time.process_time()

    def say(what: str, graph: kaldifst.StdVectorFst) -> None:
        arcs = sum(graph.num_arcs(state) for state in range(graph.num_states))
        print(f"{time.process_time() - start:7.1f} s {what}: {graph.num_states:,} states, {arcs:,} arcs", flush=True)

    orders = read_arpa(options.arpa)
    known = {gram[0] for gram in orders[0]} - {"<s>", "</s>", "<unk>"}
    entries = [(word, labels) for word, labels in read_lexicon(options.lexicon) if word in known]
    words = sorted({word for word, _ in entries})
    word_ids = {word: index for index, word in enumerate(["<eps>", *words, "#0"])}
    lexicon, last = lexicon_graph(entries, word_ids, options.missing_sil, options.word_score)
    say("L", lexicon)
    grammar = grammar_graph(orders, word_ids)
    del orders
    say("G", grammar)
    kaldifst.arcsort(lexicon, "olabel")
    kaldifst.arcsort(grammar, "ilabel")
    graph = kaldifst.compose(lexicon, grammar)
    del lexicon, grammar
    say("LoG", graph)
    kaldifst.determinize_star(graph, use_log=True)
    say("determinised", graph)
    kaldifst.minimize_encoded(graph)
    say("minimised", graph)
    kaldifst.arcsort(graph, "ilabel")
    topology = topology_graph(last)
    kaldifst.arcsort(topology, "olabel")
    graph = kaldifst.compose(topology, graph)
    say("T o LG", graph)
    options.output.parent.mkdir(parents=True, exist_ok=True)
    constant = kaldifst.StdConstFst(graph)
    constant.write(str(options.output))
    options.output.with_suffix(".words.txt").write_text("\n".join(["<eps>", *words, "#0"]) + "\n", encoding="utf-8")
    facts = {
        "build_cpu_s": time.process_time() - start,
        "build_peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "states": graph.num_states,
        "file_mb": options.output.stat().st_size / 1e6,
    }
    options.output.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(facts)


if __name__ == "__main__":
    main()
