"""What the page shows: text that is escaped, told apart without colour, and said to screen readers."""

import markup
import numpy as np
from listening import Transcript
from trials import Trial

from bit_speech.decoding import Hypothesis, PartialText, Word


def transcript(text="go on", said="Go on.", **found):
    trial = Trial("mine", np.zeros((50, 2), np.float32), ("threshold_crossings",) * 2, text=said)
    words = [
        Word(word, 2 * i, 2 * i + 1, confidence) for i, (word, confidence) in enumerate(zip(text.split(), (0.5, 1)))
    ]
    return Transcript(
        trial, text=text, log_probs=np.zeros((5, 2)), labels=["<blank>", "AA"], seconds_per_frame=0.1,
        hypotheses=[Hypothesis(text, -1.0, -2.0, -3.0, words)], timing={"network": 0.25, "word search": 0.5}, **found,
    )  # fmt: skip


def test_settled_and_open_words_are_told_apart():
    shown = markup.growing(PartialText("go on then", "go on", 3), 0.3, 1.0)
    assert '<span class="settled">go on</span><span class="open"> then</span>' in shown
    assert 'data-state="open"' in shown and "0.3 of 1.0 s taken in." in shown


def test_the_final_sentence_is_said_to_screen_readers():
    shown = markup.final("go on", 1.0)
    assert 'role="status"' in shown and 'data-state="done"' in shown and "go on" in shown
    assert "Nothing that sounds like a word was found." in markup.final("", 1.0)


def test_whatever_comes_from_a_file_is_escaped():
    bad = "<script>alert(1)</script>"
    assert bad not in markup.alert(bad) + markup.final(bad, 1.0) + markup.waiting(1.0)
    assert bad not in markup.origin(Trial(bad, np.zeros((5, 2), np.float32), (), session_id=bad), bad)
    assert bad not in markup.comparison(transcript(said=bad, end_to_end=bad), bad)
    assert bad not in markup.picture(bad, b"", bad) + markup.table(bad, [bad], [], bad)


def test_words_have_times_and_confidences():
    shown = markup.words(transcript())
    assert ">go<" in shown and ">0.20<" in shown and ">0.30<" in shown
    assert 'value="0.500"' in shown and "50 %" in shown and "100 %" in shown


def test_a_confidence_that_was_not_computed_is_not_shown_as_one():
    found = transcript()
    found.hypotheses = [Hypothesis("go", -1.0, -1.0, -1.0, [Word("go", 0, 1)])]
    assert "not known" in markup.words(found) and "meter" not in markup.words(found)


def test_a_model_without_words_says_so_in_the_place_of_the_nbest_list():
    found = transcript()
    found.hypotheses = []
    assert "without a word decoder" in markup.nbest(found)
    assert markup.words(found) == ""


def test_errors_are_marked_in_the_sentence():
    shown = markup.comparison(transcript("go in now"), None)
    assert "go <del>on</del> <ins>in now</ins>" in shown
    assert "No end-to-end model is loaded here" in shown


def test_both_models_are_set_beside_what_was_to_be_said():
    shown = markup.comparison(transcript(end_to_end="go one"), "sim-llm")
    assert "end-to-end (sim-llm)" in shown and "go <del>on</del> <ins>one</ins>" in shown
    assert "Go on." in shown and "No end-to-end model" not in shown


def test_few_words_of_the_end_to_end_model_are_told():
    assert "sim-llm knows 48 words" in markup.comparison(transcript(end_to_end="go"), "sim-llm", 48)
    assert "knows" not in markup.comparison(transcript(end_to_end="go"), "sim-llm")


def test_without_a_known_sentence_nothing_is_marked():
    shown = markup.comparison(transcript("go in", said=None), None)
    assert "go in" in shown and "<del>" not in shown and "to be said" not in shown


def test_why_the_end_to_end_model_wrote_nothing_is_shown():
    shown = markup.comparison(transcript(problem="it has 96 channels"), "sim-llm")
    assert "The end-to-end model sim-llm cannot read this recording: it has 96 channels." in shown


def test_stages_are_in_milliseconds_with_their_sum():
    shown = markup.timing(transcript())
    assert ">250<" in shown and ">500<" in shown and ">750<" in shown and "1.0 s of recording" in shown
