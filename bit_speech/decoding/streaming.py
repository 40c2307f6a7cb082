"""The state of a search as a value: advance it by any chunks of frames, copy it, save it, end it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from .beam_kernels import (
    BLANK,
    DONE,
    HISTORY,
    LABEL,
    LM,
    MORE_GRAPH,
    MORE_HISTORIES,
    MORE_HYPOTHESES,
    MORE_RECORDS,
    NODE,
    NUM_FRAMES,
    NUM_HISTORIES,
    NUM_RECORDS,
    RAW,
    RECORD,
    RECORD_WORD,
    TIDY,
    TOTAL,
    WEIGHTED,
    Beam,
    Histories,
    advance,
    begin_search,
    finish,
    settle,
)
from .checked_arrays import pack_arrays, unpack_arrays
from .history_kernels import (
    best_hypothesis,
    common_history,
    count_words,
    drop_stragglers,
    fill_history_table,
    tidy,
    word_records,
)
from .search_graph import Graph, forget_states, new_graph

if TYPE_CHECKING:
    from .beam_search import BeamSearchDecoder

_VERSION = 1
# With a lattice, words stay open for so many frames, so that their alternatives can still be told.
_LATTICE_FRAMES = 4096
_ROOM = 1024


@dataclass(frozen=True)
class PartialText:
    """What has been decoded so far.

    Args:
        text (`str`): words of the best hypothesis that have ended, separated by spaces.
        stable (`str`): the beginning of that text on which all living hypotheses agree. It never changes again.
        num_frames (`int`): frames taken in so far.
    """

    text: str
    stable: str
    num_frames: int


class TimedWord(NamedTuple):
    """A word of the lexicon and its frames.

    Args:
        word (`int`): index into the lexicon's words.
        start (`int`): frame of its first phoneme.
        end (`int`): one past the last frame of its last phoneme.
    """

    word: int
    start: int
    end: int


class Ends(NamedTuple):
    """Distinct sentences at the end of a search, best first.

    Args:
        total (`np.ndarray` of shape `(N,)`): total score.
        acoustic (`np.ndarray` of shape `(N,)`): acoustic score.
        lm (`np.ndarray` of shape `(N,)`): unweighted language-model score.
        record (`np.ndarray` of shape `(N,)`): last entry in the table of word ends.
        complete (`bool`): whether they end with whole words.
    """

    total: np.ndarray
    acoustic: np.ndarray
    lm: np.ndarray
    record: np.ndarray
    complete: bool


class Workspace:
    """What a search needs but is no part of its result: the graph and scratch memory. Not shared between threads."""

    def __init__(self, decoder: BeamSearchDecoder) -> None:
        # Not the decoder itself, which keeps workspaces: a cycle would keep their memory until the next collection.
        self.model, self._scores, self._look_ahead = decoder._model, decoder._scores, decoder._look_ahead
        self.graph: Graph = new_graph(self.model, self._scores, self._look_ahead)
        self.stamps = np.zeros(1, dtype=np.int64)
        self.make_room(_ROOM)

    def clear_graph(self) -> None:
        """Forget the tries of all language-model states."""
        forget_states(self.graph, self.model)

    def enlarge_graph(self) -> None:
        """Make room for twice as many tries, and forget those that were there."""
        trie = self.model.trie
        nodes, items = 2 * (len(self.graph.label) - len(trie.label)), 2 * (len(self.graph.ranks) - len(trie.words))
        del self.graph  # before the larger one is made
        self.graph = new_graph(self.model, self._scores, self._look_ahead, nodes, items)

    def make_room(self, room: int) -> None:
        """Make room for so many hypotheses within a frame."""
        self.beam = new_beam(room)
        self.table = np.zeros(4 * room, dtype=np.int64)
        self.ranks = np.empty(room, dtype=np.float64)


class DecoderState:
    """A search on its way: the living hypotheses, their histories and the words that are settled.

    Made by [`BeamSearchDecoder.start`]; [`BeamSearchDecoder.advance`] changes it in place. A copy is a snapshot. It
    holds nothing but numbers, and the same frames lead to the same state bit by bit, whatever the chunks, on a copy and
    after saving and loading alike.
    """

    def __init__(self, decoder: BeamSearchDecoder) -> None:
        self._fingerprint = decoder.fingerprint
        self._workspace: Workspace | None = None
        self._owner: BeamSearchDecoder | None = None
        self._committed: list[TimedWord] = []
        self._settled_text = ""
        self._base_acoustic = 0.0
        self._num = 0
        self._beam = new_beam(_ROOM)
        self._histories = Histories(
            links=np.zeros((4096, 5), dtype=np.int32),
            scores=np.zeros((4096, 2), dtype=np.float64),
            table=np.full(8192, -1, dtype=np.int32),
            records=np.empty((4096, 4), dtype=np.int32),
            record_scores=np.empty(4096, dtype=np.float64),
            counts=np.array([1, 0, 0], dtype=np.int64),
        )

    @property
    def num_frames(self) -> int:
        """Frames taken in so far."""
        return int(self._histories.counts[NUM_FRAMES])

    @property
    def nbytes(self) -> int:
        """Memory of the state in bytes, without what decoders keep for speed."""
        return sum(array.nbytes for array in (*self._beam, *self._histories)) + 24 * len(self._committed)

    def copy(self) -> DecoderState:
        """Take a snapshot.

        Returns:
            `DecoderState`: an independent state that goes on from here.
        """
        return _unpacked(_packed(self))

    def to_bytes(self) -> bytes:
        """Save the state.

        Returns:
            `bytes`: all of it, with version and checksum, to be read by [`DecoderState.from_bytes`].
        """
        return pack_arrays(_packed(self), _VERSION)

    @classmethod
    def from_bytes(cls, data: bytes) -> DecoderState:
        """Read a state that [`DecoderState.to_bytes`] saved. Go on with it on an equal decoder.

        Args:
            data (`bytes`): what was saved.

        Returns:
            `DecoderState`: the same state.

        Raises:
            ValueError: when the data are of another kind or version, truncated or damaged.
        """
        what = f"These {len(data)} bytes are no decoder state"
        arrays = unpack_arrays(data, _VERSION, _PACKED, what, "give what DecoderState.to_bytes wrote")
        return _unpacked(arrays)

    # What follows is for the decoder.

    def _begin(self, decoder: BeamSearchDecoder) -> None:
        start = 0 if decoder.lm is None else decoder.lm.start_state
        workspace = self._work_with(decoder)

        def begin() -> int:
            return begin_search(decoder._model, workspace.graph, decoder._settings, start, self._beam, self._histories)

        self._num = begin()
        if self._num < 0:
            workspace.clear_graph()
            self._num = begin()
        while self._num < 0:
            workspace.enlarge_graph()
            self._num = begin()

    def _work_with(self, decoder: BeamSearchDecoder) -> Workspace:
        """Take a workspace of the decoder and find the hypotheses' places in its graph."""
        if self._workspace is not None and self._owner is decoder:
            return self._workspace
        if self._fingerprint != decoder.fingerprint:
            raise ValueError(
                f"The state belongs to a decoder with other settings, lexicon or language model (fingerprint "
                f"{self._fingerprint:08x}, this decoder's is {decoder.fingerprint:08x}); make the decoder as it was."
            )
        places = None if self._workspace is None else self._places()
        self._release()
        self._workspace, self._owner = decoder._take_workspace(), decoder
        if len(self._beam.links) < len(self._workspace.ranks):
            self._beam = grown_beam(self._beam, len(self._workspace.ranks))
        if places is None and self._num:
            places = self._dormant
        if places is not None:
            self._settle(*places)
        return self._workspace

    def _release(self) -> None:
        """Give the workspace back; the places of hypotheses are kept as numbers that do not depend on it."""
        if self._workspace is not None:
            self._dormant = self._places()
            if self._owner is not None:
                self._owner._give_back(self._workspace)
            self._workspace = self._owner = None

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """Language-model state and place in the lexicon of every hypothesis."""
        if self._workspace is None:
            return self._dormant
        graph, nodes = self._workspace.graph, self._beam.links[: self._num, NODE]
        return graph.state[nodes], graph.trie_node[nodes]

    def _settle(self, states: np.ndarray, places: np.ndarray) -> None:
        assert self._workspace is not None
        workspace = self._workspace
        if settle(workspace.graph, workspace.model, states, places, self._beam):
            return
        workspace.clear_graph()
        while not settle(workspace.graph, workspace.model, states, places, self._beam):
            workspace.enlarge_graph()

    def _advance(self, decoder: BeamSearchDecoder, scores: np.ndarray, skip: np.ndarray) -> None:
        """Take in a chunk of checked and scaled frames."""
        workspace = self._work_with(decoder)
        status, frame, cleared_at = -1, 0, -1
        while status != DONE:
            status, frame, self._num, swapped = advance(
                scores, skip, frame, decoder._model, workspace.graph, decoder._settings, self._beam, self._num,
                workspace.beam, workspace.table, workspace.stamps, workspace.ranks, self._histories,
            )  # fmt: skip
            if swapped:
                self._beam, workspace.beam = workspace.beam, self._beam
            if status == TIDY:
                self._tidy(decoder)
            elif status == MORE_HYPOTHESES:
                workspace.make_room(2 * len(workspace.ranks))
                self._beam = grown_beam(self._beam, len(workspace.ranks))
            elif status == MORE_HISTORIES:
                self._grow_histories(2 * len(self._histories.links))
            elif status == MORE_RECORDS:
                self._grow_records(max(2 * len(self._histories.records), 8 * len(workspace.ranks)))
            elif status == MORE_GRAPH:
                # A frame that fills an empty graph needs a larger one.
                self._clear_graph(enlarge=cleared_at == frame)
                cleared_at = frame

    def _clear_graph(self, enlarge: bool) -> None:
        """Forget all tries of states but those that the hypotheses walk in."""
        assert self._workspace is not None
        places = self._places()
        if enlarge:
            self._workspace.enlarge_graph()
        else:
            self._workspace.clear_graph()
        self._settle(*places)

    def _tidy(self, decoder: BeamSearchDecoder) -> None:
        """Forget what no hypothesis needs, so that memory stays bounded; settle words that all agree on."""
        beam, histories = self._beam, self._histories
        if not self._num:
            return
        self._num = drop_stragglers(beam, self._num, histories)
        common, number = 0, 0
        words: list[TimedWord] = []
        if decoder._settings.lattice_beam == 0 or self.num_frames > _LATTICE_FRAMES:
            common = int(common_history(beam, self._num, histories))
            number = int(count_words(histories, common))
            found = word_records(histories, int(beam.links[best_hypothesis(beam, self._num), RECORD]))[:number]
            words = [TimedWord(*row) for row in (histories.records[found, 1:] + [0, 0, 1]).tolist()]
            if decoder._settings.lattice_beam > 0:
                recent = sum(word.end > self.num_frames - _LATTICE_FRAMES for word in words)
                for _ in range(recent):
                    common = int(histories.links[common, 0])
                number -= recent
                words, found = words[:number], found[:number]
            if number:
                self._base_acoustic = float(histories.record_scores[found[-1]])
        tidy(beam, self._num, histories, decoder._settings.recombine, common, number)
        self._committed += words
        self._settled_text = _joined(self._settled_text, [decoder.lexicon.words[word.word] for word in words])

    def _grow_histories(self, size: int) -> None:
        old = self._histories
        count = int(old.counts[NUM_HISTORIES])
        links, scores = np.empty((size, 5), dtype=np.int32), np.empty((size, 2), dtype=np.float64)
        links[:count], scores[:count] = old.links[:count], old.scores[:count]
        table = np.full(1 << (2 * size - 1).bit_length(), -1, dtype=np.int32)
        fill_history_table(links, table, count)
        self._histories = old._replace(links=links, scores=scores, table=table)

    def _grow_records(self, size: int) -> None:
        old = self._histories
        count = int(old.counts[NUM_RECORDS])
        records, scores = np.empty((size, 4), dtype=np.int32), np.empty(size, dtype=np.float64)
        records[:count], scores[:count] = old.records[:count], old.record_scores[:count]
        self._histories = old._replace(records=records, record_scores=scores)

    def _trace(self, record: int) -> list[TimedWord]:
        """Settled words and those that lead to a record."""
        rows = self._histories.records[word_records(self._histories, record)].tolist()
        return self._committed + [TimedWord(word, start, last + 1) for _, word, start, last in rows]

    def _partial(self, decoder: BeamSearchDecoder) -> PartialText:
        if not self._num:
            return PartialText(self._settled_text, self._settled_text, self.num_frames)
        histories, names = self._histories, decoder.lexicon.words
        record = int(self._beam.links[best_hypothesis(self._beam, self._num), RECORD])
        open_records = word_records(histories, record)
        words = [names[word] for word in histories.records[open_records, RECORD_WORD].tolist()]
        number = int(count_words(histories, common_history(self._beam, self._num, histories)))
        stable = _joined(self._settled_text, words[:number])
        return PartialText(_joined(stable, words[number:]), stable, self.num_frames)

    def _ends(self, decoder: BeamSearchDecoder) -> Ends:
        """End the sentence here. The tables gain entries, the state stays what it is."""
        workspace, beam = self._work_with(decoder), self._beam
        graph, nodes = workspace.graph, beam.links[: self._num, NODE]
        most = self._num + int((graph.here[nodes] - graph.begin[nodes]).sum())
        for name, grow in ((NUM_HISTORIES, self._grow_histories), (NUM_RECORDS, self._grow_records)):
            needed = int(self._histories.counts[name]) + most
            if needed > len(self._histories.links if name == NUM_HISTORIES else self._histories.records):
                grow(2 * needed)
        ends = new_beam(most)
        place = np.full(int(self._histories.counts[NUM_HISTORIES]) + most, -1, dtype=np.int32)
        count = finish(decoder._model, graph, decoder._settings, beam, self._num, self._histories, place, ends)
        if count:
            total = ends.scores[:count, TOTAL]
            order = np.argsort(-total, kind="stable")
            return Ends(
                total[order], ends.scores[order, BLANK], ends.scores[order, LM], ends.links[order, RECORD], True
            )
        # No hypothesis ends with a whole word: what was complete before the word in progress.
        if not self._num:
            acoustic = np.array([-math.inf])
            return Ends(acoustic, acoustic, self._histories.scores[:1, RAW], np.array([-1]), False)
        best = best_hypothesis(beam, self._num)
        history = beam.links[[best], HISTORY]
        acoustic = np.logaddexp(*beam.scores[[best], : LABEL + 1].T)
        total = acoustic + self._histories.scores[history, WEIGHTED]
        return Ends(total, acoustic, self._histories.scores[history, RAW], beam.links[[best], RECORD], False)


def _joined(text: str, words: list[str]) -> str:
    return " ".join([text, *words] if text else words)


def new_beam(size: int) -> Beam:
    """Make room for hypotheses.

    Args:
        size (`int`): how many.

    Returns:
        `Beam`: uninitialised arrays.
    """
    return Beam(np.empty((size, 6), dtype=np.int32), np.empty((size, 5), dtype=np.float64))


def grown_beam(beam: Beam, size: int) -> Beam:
    """Copy a beam into one with more room.

    Args:
        beam (`Beam`): the hypotheses.
        size (`int`): room of the new one.

    Returns:
        `Beam`: the same hypotheses.
    """
    grown = new_beam(size)
    grown.links[: len(beam.links)], grown.scores[: len(beam.links)] = beam.links, beam.scores
    return grown


_PACKED = (
    "links", "scores", "states", "places", "history_links", "history_scores", "records", "record_scores", "counts",
    "text", "committed", "rest",
)  # fmt: skip


def _packed(state: DecoderState) -> dict[str, np.ndarray]:
    num, histories = state._num, state._histories
    used, records = int(histories.counts[NUM_HISTORIES]), int(histories.counts[NUM_RECORDS])
    states, places = state._places()
    links = state._beam.links[:num].copy()
    links[:, NODE] = 0  # says something within one graph only
    return {
        "links": links,
        "scores": state._beam.scores[:num].copy(),
        "states": np.array(states),
        "places": np.array(places),
        "history_links": histories.links[:used].copy(),
        "history_scores": histories.scores[:used].copy(),
        "records": histories.records[:records].copy(),
        "record_scores": histories.record_scores[:records].copy(),
        "counts": histories.counts.copy(),
        "text": np.frombuffer(state._settled_text.encode(), dtype=np.uint8),
        "committed": np.array(state._committed, dtype=np.int64).reshape(-1, 3),
        "rest": np.array([state._fingerprint, state._base_acoustic], dtype=np.float64),
    }


def _unpacked(arrays: dict[str, np.ndarray]) -> DecoderState:
    state = DecoderState.__new__(DecoderState)
    num, used, records = len(arrays["links"]), len(arrays["history_links"]), len(arrays["records"])
    state._fingerprint, state._base_acoustic = int(arrays["rest"][0]), float(arrays["rest"][1])
    state._committed = [TimedWord(*row) for row in arrays["committed"].tolist()]
    state._settled_text = arrays["text"].tobytes().decode()
    state._workspace, state._owner, state._num = None, None, num
    state._dormant = (arrays["states"], arrays["places"])
    state._beam = new_beam(max(_ROOM, num))
    state._beam.links[:num], state._beam.scores[:num] = arrays["links"], arrays["scores"]
    size, room = max(4096, 2 * used), max(4096, 2 * records)
    state._histories = Histories(
        links=np.zeros((size, 5), dtype=np.int32),
        scores=np.zeros((size, 2), dtype=np.float64),
        table=np.full(1 << (2 * size - 1).bit_length(), -1, dtype=np.int32),
        records=np.empty((room, 4), dtype=np.int32),
        record_scores=np.empty(room, dtype=np.float64),
        counts=arrays["counts"].copy(),
    )
    state._histories.links[:used], state._histories.scores[:used] = arrays["history_links"], arrays["history_scores"]
    state._histories.records[:records] = arrays["records"]
    state._histories.record_scores[:records] = arrays["record_scores"]
    fill_history_table(state._histories.links, state._histories.table, used)
    return state
