"""What else could have been said: words with times, scores and posteriors, as a graph."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bit_speech.files import write_json

from .beam_kernels import NUM_RECORDS, PHRASE, RAW, STATE, WEIGHTED
from .lattice_kernels import arc_posteriors, best_paths, collect_arcs, score_sentence

if TYPE_CHECKING:
    from .beam_search import BeamSearchDecoder
    from .streaming import DecoderState, Ends, TimedWord

_FORMAT = "bit-speech lattice"
_VERSION = 1


class LatticeArc(NamedTuple):
    """A word between two nodes. All scores are natural logarithms.

    Args:
        source (`int`): node where the word begins.
        target (`int`): node where it ends; always larger.
        word (`str`): the word; empty for arcs into the last node, which end the sentence.
        start_frame (`int`): frame of its first phoneme.
        end_frame (`int`): one past the last frame of its last phoneme.
        acoustic_score (`float`): acoustic score since the word before.
        lm_score (`float`): unweighted language-model score after the best words that lead to the source.
        score (`float`): weighted sum with all that a word adds. Sums along a path are sentence scores, but for
            words that the language model sees further back than where histories met.
        posterior (`float`): share of the lattice's probability that goes through the arc.
    """

    source: int
    target: int
    word: str
    start_frame: int
    end_frame: int
    acoustic_score: float
    lm_score: float
    score: float
    posterior: float


@dataclass(frozen=True)
class Lattice:
    """Sentences that are nearly as good as the best, sharing their words.

    Args:
        num_nodes (`int`): node 0 is the beginning, the last one the end.
        num_frames (`int`): length of the utterance.
        arcs (`list[LatticeArc]`): sorted by target, so that sources come before their targets.
    """

    num_nodes: int
    num_frames: int
    arcs: list[LatticeArc]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the lattice as JSON.

        Args:
            path (`str`): destination. Written under a temporary name, then renamed.
        """
        head = {"format": _FORMAT, "version": _VERSION, "num_nodes": self.num_nodes, "num_frames": self.num_frames}
        write_json(path, head | {"fields": list(LatticeArc._fields), "arcs": [list(arc) for arc in self.arcs]})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Lattice:
        """Read a lattice that [`Lattice.save`] wrote.

        Args:
            path (`str`): the file.

        Returns:
            `Lattice`: the same lattice.

        Raises:
            FileNotFoundError: when there is no such file.
            ValueError: when the file is something else or damaged.
        """
        try:
            data = json.loads(Path(path).read_text(encoding="utf-8"))
            if data["format"] != _FORMAT or data["version"] != _VERSION or data["fields"] != list(LatticeArc._fields):
                raise ValueError("another format or version")
            arcs = [LatticeArc(*arc) for arc in data["arcs"]]
            if any(not 0 <= arc.source < arc.target < data["num_nodes"] for arc in arcs):
                raise ValueError("arcs that do not lead forward")
            return cls(data["num_nodes"], data["num_frames"], arcs)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path} is no lattice that Lattice.save wrote, or it is damaged ({error}).") from error


class Sentence(NamedTuple):
    """A path through a lattice, for the decoder.

    Args:
        total (`float`): total score.
        acoustic (`float`): acoustic score.
        lm (`float`): unweighted language-model score.
        words (`list[TimedWord]`): words with their frames, less what was settled before.
        confidences (`list[float]`): share of the lattice that has each word at overlapping frames.
    """

    total: float
    acoustic: float
    lm: float
    words: list[TimedWord]
    confidences: list[float]


class _Arcs(NamedTuple):
    links: np.ndarray
    scores: np.ndarray
    num_nodes: int
    posteriors: np.ndarray
    ends: Ends


def _collect(decoder: BeamSearchDecoder, state: DecoderState) -> _Arcs | None:
    """Arcs of all sentences within the lattice beam; None when nothing ends with a whole word."""
    ends = state._ends(decoder)
    if not ends.complete:
        return None
    histories = state._histories
    start = histories.links[0]
    near = ends.total >= ends.total[0] - decoder.lattice_beam
    links, scores, num_nodes = collect_arcs(
        histories.records, histories.record_scores, int(histories.counts[NUM_RECORDS]), decoder._model,
        decoder._settings, state._base_acoustic, int(start[STATE]), int(start[PHRASE]), ends.record[near],
        ends.acoustic[near], min(max(decoder.num_hypotheses, 16), 256),
    )  # fmt: skip
    posteriors, gaps = arc_posteriors(links, scores, num_nodes, decoder.confidence_temperature)
    kept = gaps <= decoder.lattice_beam + 1e-6
    # Nodes that no arc is left for are dropped.
    nodes = np.union1d([0, num_nodes - 1], links[kept, :2])
    links, scores = links[kept], scores[kept]
    links[:, :2] = np.searchsorted(nodes, links[:, :2])
    return _Arcs(links, scores, len(nodes), posteriors[kept], ends)


def read_lattice(decoder: BeamSearchDecoder, state: DecoderState) -> Lattice:
    """End a search and tell everything within the lattice beam.

    Args:
        decoder (`BeamSearchDecoder`): the decoder.
        state (`DecoderState`): where its search is.

    Returns:
        `Lattice`: without arcs when nothing ends with a whole word.
    """
    found = _collect(decoder, state)
    if found is None:
        return Lattice(2, state.num_frames, [])
    names = decoder.lexicon.words
    rows = zip(found.links.tolist(), found.scores.tolist(), found.posteriors.tolist(), strict=True)
    arcs = [
        LatticeArc(source, target, names[word] if word >= 0 else "", start, end, acoustic, lm, score, posterior)
        for (source, target, word, start, end), (acoustic, lm, score), posterior in rows
    ]
    return Lattice(found.num_nodes, state.num_frames, arcs)


def read_sentences(decoder: BeamSearchDecoder, state: DecoderState, number: int) -> list[Sentence]:
    """End a search and tell the best distinct sentences.

    Args:
        decoder (`BeamSearchDecoder`): the decoder.
        state (`DecoderState`): where its search is.
        number (`int`): how many at most.

    Returns:
        `list[Sentence]`: best first; empty when nothing ends with a whole word.
    """
    from .streaming import TimedWord

    found = _collect(decoder, state)
    if found is None:
        return []
    histories, ends = state._histories, found.ends
    start = histories.links[0]
    # What the search itself ends with comes first, since streams have told its beginning already. Where histories met,
    # the model's full view may rank another sentence higher; such sentences are left out.
    words = state._trace(int(ends.record[0]))[len(state._committed) :]
    sentences = [(float(ends.total[0]), float(ends.acoustic[0]), float(ends.lm[0]), words)]
    for path in best_paths(found.links, found.scores, found.num_nodes, number):
        arcs = path[path >= 0][::-1]
        rows = found.links[arcs[:-1], 2:]
        raw, weighted = score_sentence(
            decoder._model, decoder._settings, int(start[STATE]), int(start[PHRASE]), rows[:, 0]
        )
        acoustic = float(found.scores[arcs, 0].sum()) + state._base_acoustic
        total = acoustic + float(histories.scores[0, WEIGHTED]) + weighted
        words = [TimedWord(*row) for row in rows.tolist()]
        if total <= sentences[0][0] and [word.word for word in words] != [word.word for word in sentences[0][3]]:
            sentences.append((total, acoustic, float(histories.scores[0, RAW]) + raw, words))
    sentences.sort(key=lambda sentence: -sentence[0])
    where: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]] = {}
    return [Sentence(*one, _confidences(found, one[3], where)) for one in sentences[:number]]


def _confidences(
    found: _Arcs, words: list[TimedWord], where: dict[int, tuple[np.ndarray, np.ndarray, np.ndarray]]
) -> list[float]:
    """Share of the lattice that has each word at overlapping frames; `where` remembers the arcs of words."""
    confidences = []
    for word, begin, end in words:
        if word not in where:
            same = found.links[:, 2] == word
            where[word] = (found.links[same, 3], found.links[same, 4], found.posteriors[same])
        low, high, shares = where[word]
        confidences.append(min(1.0, float(shares[(low < end) & (begin < high)].sum())))
    return confidences
