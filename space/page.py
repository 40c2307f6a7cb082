"""The layout of the page and what its buttons do; everything else is in the other files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from html import escape
from typing import Any

import gradio as gr
import markup
from figures import posterior_figure, recording_figure
from listening import Listener, Transcript
from trials import MAX_SECONDS, Trial, UnreadableTrial, read_trial

INTRODUCTION = """
<h1>Brain recordings in, sentences out</h1>
<p><strong>The recordings offered here are simulated.</strong> No person was recorded, and how well they are decoded
says nothing about how well a person's would be. Choose one, or upload a recording, and decode it.</p>
"""
FILES = f"""
<details><summary>What a file must hold</summary>
<p>One attempted sentence of at most {MAX_SECONDS:.0f} s, as an array <code>features</code> of shape (bins, channels),
in bins of 20 ms, in an NPZ, HDF5 or NWB file. With <code>session_id</code> in it, the channels are scaled by that
session's training trials. A recording of a brain is health data: upload only what you may share with this server. Files
are deleted after about an hour.</p></details>
"""
# Fonts of the system, so that nothing is fetched from elsewhere; a blue that white letters stand out from.
THEME = gr.themes.Default(
    primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]
).set(button_primary_background_fill="*primary_700", button_primary_background_fill_dark="*primary_700")
# Gradio gives every radio button a name of its own, so that arrow keys would not lead from one to the next.
ONE_GROUP = """() => {
    const group = document.querySelector("#choice");
    const join = () => group.querySelectorAll("input:not([name=recording])").forEach(button => {
        button.name = "recording";
    });
    new MutationObserver(join).observe(group, {subtree: true, attributeFilter: ["name"]});
    join();
}"""
NO_CHANGE: dict[str, Any] = gr.skip()


def build_page(listener: Listener, trials: list[Trial]) -> gr.Blocks:
    """Lay out the page.

    Args:
        listener (`Listener`): the models.
        trials (`list[Trial]`): recordings to choose from, which the model can read; may be empty.

    Returns:
        `gr.Blocks`: to be launched with `theme=THEME, css=markup.STYLE`.
    """
    offered = {trial.name: trial for trial in trials}

    def chosen(name: str | None, file: str | None) -> Trial:
        if file is not None:
            return listener.check(read_trial(file))
        if name is None:
            raise UnreadableTrial("There is no recording yet. Choose one of the simulated ones, or upload a file.")
        return offered[name]

    def show(name: str | None, file: str | None) -> Iterator[tuple[Any, ...]]:
        # What was found in another recording goes at once, lest it goes after this one has been decoded.
        yield "", NO_CHANGE, "", ""
        if name is None and file is None:
            return
        try:
            yield "", _recording(listener, chosen(name, file)), NO_CHANGE, NO_CHANGE
        except UnreadableTrial as error:
            yield markup.alert(str(error)), "", NO_CHANGE, NO_CHANGE

    def decode(name: str | None, file: str | None) -> Iterator[tuple[Any, ...]]:
        try:
            yield from _decoded(listener, chosen(name, file))
        except ValueError as error:
            yield markup.alert(str(error)), NO_CHANGE, "", ""

    with gr.Blocks(
        title="Brain recordings in, sentences out", analytics_enabled=False, delete_cache=(600, 3600)
    ) as page:
        model = f"<p>Model: <code>{escape(listener.name)}</code>. {_streaming(listener)}</p>"
        _html(markup.block(INTRODUCTION, model))
        with gr.Row():
            with gr.Column(scale=2, min_width=300):
                first = next(iter(offered), None)
                choice = gr.Radio(
                    list(offered), value=first, label="Simulated recordings", visible=bool(offered), elem_id="choice"
                )
                upload = gr.File(label="Or your own recording: NPZ, HDF5 or NWB", height=160, elem_id="upload")
                _html(markup.block(FILES))
                button = gr.Button("Decode", variant="primary", elem_id="decode")
            with gr.Column(scale=3, min_width=300):
                recording = _html(elem_id="recording")
        message, sentence, results = _html(elem_id="message"), _html(elem_id="sentence"), _html(elem_id="results")
        outputs = [message, recording, sentence, results]
        for event in (page.load, choice.change, upload.change):
            event(show, [choice, upload], outputs, show_progress="hidden", api_visibility="private")
        if offered:
            page.load(None, js=ONE_GROUP)
            # Whoever chooses a simulated recording means that one, and not the file from before.
            choice.input(None, None, upload, js="() => null", api_visibility="private")
        button.click(
            decode, [choice, upload], outputs, show_progress="hidden", api_visibility="private", concurrency_limit=1
        )
    return page


def _html(value: str = "", elem_id: str | None = None) -> gr.HTML:
    return gr.HTML(value, elem_id=elem_id, apply_default_css=False, padding=False)


def _streaming(listener: Listener) -> str:
    if listener.cascade is None:
        return "It writes the whole sentence at the end of the recording."
    if listener.causal:
        return "It looks only back, so the sentence grows as it would while someone speaks."
    return (
        "Its network looks at the whole recording, and the word search then takes in one piece after the other; while "
        "someone speaks, a causal network would feed the same search."
    )


def _recording(listener: Listener, trial: Trial) -> str:
    description = f"Threshold crossings and spike-band power of all electrodes over {trial.seconds:.1f} seconds."
    drawn = markup.picture("Recording", recording_figure(trial), description)
    return drawn + markup.origin(trial, listener.normalization(trial))


def _decoded(listener: Listener, trial: Trial) -> Iterator[tuple[Any, ...]]:
    """What the page shows, step by step: message, recording, sentence, results."""
    yield "", NO_CHANGE, markup.waiting(trial.seconds), ""
    transcript = listener.hear(trial)
    for partial in listener.search(transcript):
        taken_in = partial.num_frames * transcript.seconds_per_frame
        yield "", NO_CHANGE, markup.growing(partial, taken_in, trial.seconds), NO_CHANGE
    if transcript.log_probs is not None:
        yield "", NO_CHANGE, markup.final(transcript.text, trial.seconds), NO_CHANGE
    listener.write(transcript)
    start = time.perf_counter()
    heard = _heard(transcript)
    transcript.timing["figure"] = time.perf_counter() - start
    results = (
        heard,
        markup.words(transcript),
        markup.nbest(transcript),
        markup.comparison(transcript, listener.writer_name, listener.writer_words),
        markup.timing(transcript),
    )
    yield "", NO_CHANGE, markup.final(transcript.text, trial.seconds), "".join(results)


def _heard(transcript: Transcript) -> str:
    if transcript.log_probs is None:
        return ""
    said = " ".join(phoneme.label for phoneme in transcript.phonemes)
    description = f"Probability of every phoneme over time. The decoded phonemes are {said or 'none'}."
    return markup.picture("Phonemes", posterior_figure(transcript), description)
