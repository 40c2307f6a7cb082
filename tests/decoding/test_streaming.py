import gc
import math
import weakref

import numpy as np
import pytest

from bit_speech.decoding import BeamSearchDecoder, Lexicon, build_ngram_lm, search_graph, streaming
from bit_speech.decoding.streaming import DecoderState
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

INDEX = {name: i for i, name in enumerate(MODEL_ORDER)}
WORDS = {"be": "B IY", "bee": "B IY", "b": ["B", "B IY"], "the": ["M", "M B"], "mem": "M IY M", "me": "M IY"}
TEXT = ["me be the bee", "be the mem", "b b me", "the me be", "bee the the", "mem be"]


@pytest.fixture(scope="module")
def decoder():
    return BeamSearchDecoder(Lexicon.from_words(WORDS), build_ngram_lm(TEXT, order=3), beam_size=100)


def stream(seed, words):
    """Frames of a long sequence of words with a little noise."""
    rng = np.random.default_rng(seed)
    path = []
    for word in rng.choice(list(WORDS), words):
        prons = WORDS[word]
        for name in [*(prons if isinstance(prons, str) else prons[0]).split(), "SIL"]:
            path += [INDEX[name], 0]
    logits = rng.normal(0, 1.2, (len(path), 41))
    logits[np.arange(len(path)), path] += 6
    return logits - np.logaddexp.reduce(logits, axis=1, keepdims=True)


def cut(rng, length):
    cuts = np.sort(rng.integers(0, length + 1, rng.integers(1, 30)))
    return list(zip([0, *cuts], [*cuts, length]))


@pytest.mark.parametrize("settings", [{}, {"num_hypotheses": 1}, {"recombine": False, "merge": "max"}])
def test_any_chunks_give_exactly_what_the_whole_gives(decoder, settings):
    decoder = decoder.with_settings(**settings)
    for seed in range(3):
        log_probs = stream(seed, 150)
        whole = decoder.decode(log_probs)
        state = decoder.start()
        for low, high in cut(np.random.default_rng(seed), len(log_probs)):
            decoder.advance(state, log_probs[low:high])
        # Representations tell NaN from NaN.
        assert repr(decoder.finish(state)) == repr(whole)
        assert len(log_probs) > 2 * 256


def test_the_stable_text_never_changes_and_begins_the_partial_and_the_final_text(decoder):
    log_probs = stream(1, 120)
    state, stable, settled = decoder.start(), "", 0
    for frame in log_probs:
        partial = decoder.advance(state, frame[None])
        assert (partial.stable + " ").startswith(stable + " ") or not stable
        assert (partial.text + " ").startswith(partial.stable + " ") or not partial.stable
        stable, settled = partial.stable, max(settled, len(partial.stable.split()))
    assert partial.num_frames == len(log_probs)
    assert (decoder.finish(state)[0].text + " ").startswith(stable)
    assert settled > 100


def test_a_copy_and_saved_bytes_go_on_identically(decoder):
    log_probs = stream(2, 150)
    half = 300
    state = decoder.start()
    decoder.advance(state, log_probs[:half])
    copied, data = state.copy(), state.to_bytes()
    assert DecoderState.from_bytes(data).to_bytes() == data
    # An equal decoder made anew goes on as well.
    again = BeamSearchDecoder(decoder.lexicon, decoder.lm, **decoder.settings)
    found = []
    for one, whose in ((state, decoder), (copied, decoder), (DecoderState.from_bytes(data), again)):
        partial = whose.advance(one, log_probs[half:])
        found.append((repr(partial), repr(whose.finish(one)), one.to_bytes()))
    assert found[0] == found[1] == found[2]


def test_finishing_leaves_the_state_where_it_was(decoder):
    log_probs = stream(3, 60)
    state = decoder.start()
    decoder.advance(state, log_probs[:100])
    first = decoder.finish(state)
    assert decoder.finish(state) == first
    decoder.advance(state, log_probs[100:])
    assert decoder.finish(state) == decoder.decode(log_probs)


def test_two_streams_at_a_time_do_not_disturb_each_other(decoder):
    inputs = [stream(seed, 50)[:150] for seed in (4, 5)]
    states = [decoder.start(), decoder.start()]
    for t in range(150):
        for state, log_probs in zip(states, inputs):
            decoder.advance(state, log_probs[t : t + 1])
    for state, log_probs in zip(states, inputs):
        assert decoder.finish(state) == decoder.decode(log_probs)


def test_memory_stays_bounded_however_long_the_stream(decoder):
    decoder = decoder.with_settings(num_hypotheses=1, beam_size=30)
    log_probs = stream(6, 300)
    state, sizes = decoder.start(), []
    for _ in range(12):
        decoder.advance(state, log_probs)
        sizes.append(state.nbytes - 24 * len(state._committed))
    assert sizes[-1] == sizes[1]
    assert state.num_frames == 12 * len(log_probs)


def test_hypotheses_that_never_agree_are_settled_by_force():
    # Without a language model and without recombination nothing ever decides between homophones.
    lexicon = Lexicon.from_words({"be": "B IY", "bee": "B IY"})
    decoder = BeamSearchDecoder(lexicon, None, recombine=False, beam_size=8, num_hypotheses=1)
    path = [INDEX["B"], INDEX["IY"], INDEX["SIL"]] * 256
    log_probs = np.log(np.eye(41)[path] * 0.9 + 0.1 / 41)
    state, sizes = decoder.start(), []
    for _ in range(8):
        decoder.advance(state, log_probs)
        sizes.append(state.nbytes - 24 * len(state._committed))
    assert len(state._committed) > 1000
    assert sizes[-1] == sizes[-3]
    assert len(decoder.finish(state)[0].words) == 8 * 256


@pytest.mark.parametrize(("nodes", "items"), [(1000, 32), (1000, 1), (70, 1000)])
def test_a_full_search_graph_is_cleared_or_enlarged_and_changes_nothing(decoder, monkeypatch, nodes, items):
    log_probs = stream(7, 40)
    expected = decoder.with_settings(beam_size=12).decode(log_probs)
    real, cleared, made = streaming.new_graph, [], []

    def small(model, scores, look_ahead, nodes=nodes, items=items):
        made.append((nodes, items))
        return real(model, scores, look_ahead, nodes, items)

    def counted(graph, model):
        cleared.append(1)
        search_graph.forget_states(graph, model)

    monkeypatch.setattr(streaming, "new_graph", small)
    monkeypatch.setattr(streaming, "forget_states", counted)
    narrow = decoder.with_settings(beam_size=12)
    assert narrow.decode(log_probs) == expected
    assert cleared
    # Every graph has twice the room of the one before; room for one item is never enough.
    assert made == [(nodes << k, items << k) for k in range(len(made))]
    assert len(made) > 1 or items > 1
    again = narrow.decode(log_probs)
    assert again == expected


def test_damaged_states_and_other_decoders_are_refused(decoder):
    state = decoder.start()
    decoder.advance(state, stream(8, 5))
    data = state.to_bytes()
    for broken in (b"", b"abc", data[:100], data[:-30]):
        with pytest.raises(ValueError, match="bytes are no decoder state"):
            DecoderState.from_bytes(broken)
    damaged = bytearray(data)
    damaged[len(data) // 2] ^= 1
    with pytest.raises(ValueError, match=r"damaged|checksum"):
        DecoderState.from_bytes(bytes(damaged))
    with pytest.raises(ValueError, match="another|other settings"):
        decoder.with_settings(lm_weight=0.5).advance(state, stream(8, 5))
    before = state.to_bytes()
    with pytest.raises(ValueError, match="frames is NaN"):
        decoder.advance(state, np.full((1, 41), math.nan))
    assert state.to_bytes() == before


def test_a_decoder_that_is_no_longer_used_frees_its_memory_at_once(decoder):
    other = decoder.with_settings(beam_size=7)
    other.decode(stream(9, 5))
    gone = weakref.ref(other)
    gc.disable()
    try:
        del other
        assert gone() is None
    finally:
        gc.enable()
