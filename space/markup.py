"""What the page shows, as HTML: plain strings of escaped text, readable by people and by screen readers."""

from __future__ import annotations

import base64
import difflib
import math
from collections.abc import Sequence
from html import escape

from listening import Transcript
from trials import Trial

from bit_speech.decoding import PartialText
from bit_speech.simulation import normalize_sentence

STYLE = """
.neural { color: var(--body-text-color); line-height: 1.5; overflow-wrap: anywhere; }
.neural h1 { font-size: 1.7rem; font-weight: 700; margin: 0.5rem 0; }
.neural h2 { font-size: 1.1rem; font-weight: 600; margin: 1.2rem 0 0.3rem; }
.neural p { margin: 0.3rem 0; }
.neural .alert { border-left: 4px solid #b42318; padding: 0.5rem 0.8rem; background: var(--background-fill-secondary); }
.neural .sentence { font-size: 1.45rem; min-height: 2.4rem; margin: 0.2rem 0; }
.neural .settled { font-weight: 600; }
.neural .open { font-style: italic; text-decoration: underline dotted; text-underline-offset: 0.25em; }
.neural .scroll { overflow-x: auto; }
.neural .scroll img { min-width: 560px; width: 100%; height: auto; border-radius: 4px; background: white; }
.neural table { border-collapse: collapse; font-size: 0.95rem; overflow-wrap: normal; }
.neural th, .neural td { text-align: left; padding: 0.25rem 1.6rem 0.25rem 0; vertical-align: top;
  border-bottom: 1px solid var(--border-color-primary); }
.neural .wide { min-width: 13rem; }
.neural .number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.neural meter { width: 5rem; vertical-align: middle; }
.neural ins { text-decoration: underline; font-weight: 600; }
.neural del { text-decoration: line-through; font-weight: 600; }
#upload .or { color: inherit; }
"""


def block(*parts: str) -> str:
    """Join parts into one piece of the page.

    Args:
        *parts (`str`): HTML.

    Returns:
        `str`: HTML in the page's own style.
    """
    return f'<div class="neural">{"".join(parts)}</div>'


def alert(message: str) -> str:
    """Say that something is wrong.

    Args:
        message (`str`): plain text; empty when all is well.

    Returns:
        `str`: HTML that screen readers speak at once.
    """
    return block(f'<p class="alert" role="alert">{escape(message)}</p>') if message else ""


def waiting(seconds: float) -> str:
    """Say that a recording is being read.

    Args:
        seconds (`float`): its length.

    Returns:
        `str`: HTML; the place of the sentence, still empty.
    """
    return _sentence("open", "", f"Reading {seconds:.1f} s of recording.")


def growing(partial: PartialText, taken_in: float, seconds: float) -> str:
    """Show the sentence while it is decoded.

    Args:
        partial (`PartialText`): the text so far.
        taken_in (`float`): seconds of the recording that it is made of.
        seconds (`float`): length of the recording.

    Returns:
        `str`: HTML; settled words and those that may still change differ in weight, slant and underline, not in colour
        alone.
    """
    rest = partial.text[len(partial.stable) :]
    text = f'<span class="settled">{escape(partial.stable)}</span><span class="open">{escape(rest)}</span>'
    return _sentence("open", text, f"{taken_in:.1f} of {seconds:.1f} s taken in. Underlined words may still change.")


def final(text: str, seconds: float) -> str:
    """Show the sentence as it is at the end.

    Args:
        text (`str`): the sentence.
        seconds (`float`): length of the recording.

    Returns:
        `str`: HTML.
    """
    note = f"Decoded: {seconds:.1f} s of recording." if text else "Nothing that sounds like a word was found."
    return _sentence("done", f'<span class="settled">{escape(text)}</span>', note)


def _sentence(state: str, text: str, note: str) -> str:
    return block(
        "<h2>Sentence</h2>",
        f'<p class="sentence" role="status" data-state="{state}">{text}</p>',
        f"<p>{escape(note)}</p>",
    )


def picture(title: str, png: bytes, description: str) -> str:
    """Show a figure.

    Args:
        title (`str`): heading.
        png (`bytes`): the image.
        description (`str`): what it shows, for those who cannot see it.

    Returns:
        `str`: HTML; on narrow screens the figure scrolls by itself, with the keyboard too.
    """
    data = base64.b64encode(png).decode()
    return block(
        f"<h2>{escape(title)}</h2>",
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(title)}">',
        f'<img src="data:image/png;base64,{data}" alt="{escape(description)}"></div>',
    )


def table(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> str:
    """Show a table.

    Args:
        title (`str`): heading.
        header (`Sequence[str]`): names of the columns; those that begin with `#` hold numbers.
        rows (`Sequence[Sequence[str]]`): cells, HTML.
        note (`str`): plain text below the heading.

    Returns:
        `str`: HTML.
    """
    kinds = [f'class="{"number" if name.startswith("#") else "wide" if name == "sentence" else ""}"' for name in header]
    head = "".join(f'<th scope="col" {kind}>{escape(name.lstrip("#"))}</th>' for name, kind in zip(header, kinds))
    body = "".join(
        "<tr>" + "".join(f"<td {kind}>{cell}</td>" for cell, kind in zip(row, kinds)) + "</tr>" for row in rows
    )
    return block(
        f"<h2>{escape(title)}</h2>",
        f"<p>{escape(note)}</p>" if note else "",
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(title)}"><table>',
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>",
    )


def words(transcript: Transcript) -> str:
    """Show every word of the best sentence with its time and confidence.

    Args:
        transcript (`Transcript`): a finished one.

    Returns:
        `str`: HTML; empty without a word decoder.
    """
    if not transcript.hypotheses:
        return ""
    rows = []
    for word in transcript.hypotheses[0].words:
        known = not math.isnan(word.confidence)
        share = f"{100 * word.confidence:.0f} %" if known else "not known"
        bar = f'<meter min="0" max="1" value="{word.confidence:.3f}" aria-hidden="true"></meter> ' if known else ""
        times = (f"{frame * transcript.seconds_per_frame:.2f}" for frame in (word.start_frame, word.end_frame))
        rows.append([escape(word.text), *times, bar + share])
    note = "Confidence: the share of all nearly best sentences, weighted by their probability, that has the word there."
    return table("Word confidences", ["word", "#from (s)", "#to (s)", "#confidence"], rows, note)


def nbest(transcript: Transcript) -> str:
    """Show the sentences that came closest.

    Args:
        transcript (`Transcript`): a finished one.

    Returns:
        `str`: HTML; says so when the model has no word decoder.
    """
    if not transcript.hypotheses:
        note = "This model comes without a word decoder, so there are phonemes and no sentences to rank."
        return block("<h2>N-best sentences</h2>", f"<p>{note}</p>") if transcript.log_probs is not None else ""
    rows = [
        [str(rank), escape(one.text), f"{one.score:.1f}", f"{one.acoustic_score:.1f}", f"{one.lm_score:.1f}"]
        for rank, one in enumerate(transcript.hypotheses, 1)
    ]
    note = "Scores are natural logarithms. The list is short when nothing else comes near."
    header = ["#rank", "sentence", "#score", "#network", "#language model"]
    return table("N-best sentences", header, rows, note)


def comparison(transcript: Transcript, writer_name: str | None, writer_words: int | None = None) -> str:
    """Set the cascade beside the end-to-end model, and both beside what was to be said, where that is known.

    Args:
        transcript (`Transcript`): a finished one.
        writer_name (`str`, *optional*): name of the end-to-end model; None when there is none.
        writer_words (`int`, *optional*): words that it knows, when they are few.

    Returns:
        `str`: HTML.
    """
    said = transcript.trial.text
    rows = [] if said is None else [["to be said", escape(said)]]
    found = {}
    if transcript.hypotheses:
        found["cascade (phonemes, then word search)"] = transcript.text
    if transcript.end_to_end is not None:
        found[f"end-to-end ({writer_name})"] = transcript.end_to_end
    expected = None if said is None else normalize_sentence(said)
    rows += [[escape(name), _marked(text, expected)] for name, text in found.items()]
    notes = []
    if transcript.problem:
        notes.append(f"The end-to-end model {writer_name} cannot read this recording: {transcript.problem}.")
    elif writer_name is None:
        notes.append("No end-to-end model is loaded here, so there is nothing to compare the cascade with.")
    elif writer_words is not None:
        notes.append(
            f"{writer_name} knows {writer_words} words and can write no others: compare recordings of few words."
        )
    if expected is not None and found:
        notes.append("Missing words are struck through, wrong ones underlined.")
    return table("Cascade and end-to-end", ["who", "sentence"], rows, " ".join(notes))


def _marked(text: str, expected: str | None) -> str:
    """A sentence with its errors marked."""
    found = normalize_sentence(text).split()
    if expected is None:
        return escape(text)
    wanted, parts = expected.split(), []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, wanted, found, autojunk=False).get_opcodes():
        if kind == "equal":
            parts += found[c:d]
            continue
        parts += [f"<del>{escape(' '.join(wanted[a:b]))}</del>"] if b > a else []
        parts += [f"<ins>{escape(' '.join(found[c:d]))}</ins>"] if d > c else []
    return " ".join(part if part.startswith("<") else escape(part) for part in parts)


def timing(transcript: Transcript) -> str:
    """Show how long every stage took.

    Args:
        transcript (`Transcript`): a finished one.

    Returns:
        `str`: HTML.
    """
    rows = [[escape(name), f"{1000 * seconds:.0f}"] for name, seconds in transcript.timing.items()]
    total = sum(transcript.timing.values())
    rows.append(["all together", f"{1000 * total:.0f}"])
    note = f"For {transcript.trial.seconds:.1f} s of recording, on this server's processor."
    return table("Timing", ["stage", "#milliseconds"], rows, note)


def origin(trial: Trial, normalization: str) -> str:
    """Say where a recording is from and how it is scaled.

    Args:
        trial (`Trial`): a recording.
        normalization (`str`): from the model.

    Returns:
        `str`: HTML.
    """
    where = "Simulated; no person was recorded." if trial.simulated else "Uploaded by you."
    size = f"{trial.name}: {trial.features.shape[1]} channels, {trial.seconds:.1f} s."
    return block(f"<p>{escape(' '.join((size, where, normalization)))}</p>")
