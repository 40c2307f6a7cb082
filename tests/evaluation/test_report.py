"""The report is one well-formed page that escapes what it shows, with the same numbers in JSON."""

import base64
import json
import re
import shutil
import subprocess
import time
from html.parser import HTMLParser
from types import SimpleNamespace

import numpy as np
import pytest

from bit_speech.evaluation import phoneme_error_rate, word_error_rate
from bit_speech.evaluation.report import write_report
from configuration_bit.phoneme_inventory_bit import MODEL_ORDER

VOID = {"meta", "img", "br", "link", "input", "hr"}
SENTENCES = {
    "how are you": "HH AW SIL AA R SIL Y UW SIL",
    "no": "N OW SIL",
    "i am fine today": "AY SIL AE M SIL F AY N SIL T AH D EY SIL",
    "yes it is": "Y EH S SIL IH T SIL IH Z SIL",
}


class Page(HTMLParser):
    """Checks that tags balance, and collects what tests ask about."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.text = [], [], [], []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]} at {self.getpos()}"
        self.open.pop()

    def handle_data(self, data):
        self.text.append(data)


def synthetic_trials(count: int, examples: int, seed: int = 0, num_channels: int = 12) -> list[dict]:
    rng = np.random.default_rng(seed)
    trials = []
    for index in range(count):
        text = list(SENTENCES)[index % len(SENTENCES)]
        phonemes = SENTENCES[text].split()
        trial = {
            "session_id": f"t15.2023.08.{11 + index % 5}",
            "block_index": index // 10,
            "trial_index": index,
            "reference_text": text.capitalize() + ".",
            "reference_phonemes": " ".join(phonemes),
            "hypothesis_text": text if rng.random() < 0.7 else text.replace("you", "who").replace("fine", "") + " then",
            "hypothesis_phonemes": [p if rng.random() < 0.9 else str(rng.choice(MODEL_ORDER[1:])) for p in phonemes],
        }
        if index < examples:
            num_frames = 3 * len(phonemes)
            logits = rng.normal(size=(num_frames, 41))
            logits[:, 0] += 9
            for place, phoneme in enumerate(phonemes):
                logits[3 * place + 1, MODEL_ORDER.index(phoneme)] += 20
            trial |= {
                "log_probs": logits - np.log(np.exp(logits).sum(axis=1, keepdims=True)),
                "features": np.concatenate(
                    [rng.poisson(0.5, (num_frames * 5, num_channels)), rng.normal(size=(num_frames * 5, num_channels))],
                    axis=1,
                ),
                "feature_kinds": ["threshold_crossings"] * num_channels + ["spike_band_power"] * num_channels,
                "words": [
                    SimpleNamespace(text=word, start_frame=2 * i, end_frame=2 * i + 2)
                    for i, word in enumerate(text.split())
                ],
            }
        trials.append(trial)
    return trials


CURVE = [{"step": step, "loss": 3 / step, "eval_loss": 3.1 / step, "eval_per": 1 / step} for step in range(1, 9)]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    trials = synthetic_trials(40, examples=2)
    trials[1]["hypothesis_text"] = "<script>alert('x')</script>"
    ideal = [
        {"hypothesis_text": trial["reference_text"], "hypothesis_phonemes": trial["reference_phonemes"]}
        for trial in trials
    ]
    path = write_report(
        folder,
        title="Fish & <b>chips</b>",
        description="A <script>description</script>",
        trials=trials,
        comparisons={"ideal observer": ideal},
        metrics={
            "bit": {"per": 0.9},
            "GRU baseline": {"per": 0.2},
            "vocabulary_words": 12345,
            "note": "<script>note</script>",
        },
        learning_curve=CURVE,
        num_bootstrap=500,
    )
    return folder, trials, path


def test_the_page_is_well_formed_and_needs_nothing_from_outside(report):
    page = Page(report[2].read_text(encoding="utf-8"))
    assert page.tags.count("html") == page.tags.count("title") == page.tags.count("main") == 1
    assert "script" not in page.tags and "link" not in page.tags
    for tag, attributes in page.attributes:
        for name in ("src", "href"):
            assert attributes.get(name) is None or attributes[name].startswith("data:image/png;base64,"), (
                tag,
                attributes,
            )
        assert tag != "img" or attributes["alt"]
    assert "url(" not in report[2].read_text(encoding="utf-8")


def test_what_was_decoded_is_shown_as_text_and_never_as_markup(report):
    source = report[2].read_text(encoding="utf-8")
    assert "<script" not in source
    assert "<title>Fish &amp; &lt;b&gt;chips&lt;/b&gt;</title>" in source
    assert "scriptalert'x'script" in "".join(Page(source).text)  # The benchmark's normalisation drops the brackets.


def test_raw_hypotheses_without_reference_are_escaped_too(tmp_path):
    path = write_report(tmp_path, title="no labels", trials=[{"hypothesis_text": "<script>alert(1)</script> &"}])
    source = path.read_text(encoding="utf-8")
    assert "<script" not in source and "&lt;script&gt;alert(1)&lt;/script&gt; &amp;" in source
    Page(source)


def test_every_figure_is_embedded_and_lies_beside_the_page(report):
    folder, _, path = report
    names = {
        "trial_0000",
        "trial_0001",
        "learning_curve",
        "per_session",
        "phoneme_confusions",
        "error_rate_by_length",
    }
    assert {png.stem for png in (folder / "figures").iterdir()} == names
    embedded = {
        base64.b64decode(code) for code in re.findall(r"base64,([A-Za-z0-9+/=]+)", path.read_text(encoding="utf-8"))
    }
    assert embedded == {png.read_bytes() for png in (folder / "figures").iterdir()}
    assert all(png.startswith(b"\x89PNG") for png in embedded)


def test_numbers_on_the_page_and_in_json_are_those_of_the_error_rates(report):
    folder, trials, path = report
    numbers = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    wer = word_error_rate(
        [trial["reference_text"] for trial in trials], [trial["hypothesis_text"] for trial in trials], num_bootstrap=500
    )
    rates = numbers["systems"]["BIT"]["rates"]
    assert rates["WER"] == wer.to_dict()
    per = phoneme_error_rate(
        [trial["reference_phonemes"] for trial in trials],
        [trial["hypothesis_phonemes"] for trial in trials],
        num_bootstrap=500,
    )
    assert rates["PER"] == per.to_dict(), "rates from sentences win over numbers given in metrics"
    assert numbers["systems"]["ideal observer"]["rates"]["WER"]["rate"] == 0.0
    assert numbers["systems"]["ideal observer"]["ratio_of_first_to_this"]["WER"]["ratio"] is None, "infinite"
    assert numbers["systems"]["GRU baseline"]["rates"]["PER"]["rate"] == 0.2
    assert numbers["metrics"]["vocabulary_words"] == 12345
    assert f"{100 * wer.rate:.1f}" in "".join(Page(path.read_text(encoding="utf-8")).text)
    assert len(numbers["sentences"]) == 40 and numbers["learning_curve"] == CURVE


def test_words_carry_their_error_in_markup_and_not_in_colour_alone(tmp_path):
    trial = {"reference_text": "one two three four five six", "hypothesis_text": "one too three oh four five"}
    source = write_report(tmp_path, title="t", trials=[trial]).read_text(encoding="utf-8")
    body = source[source.index('<ul class="sentences">') :]
    assert re.search(r'<ruby class="sub"[^>]*>too<rp>\(</rp><rt>two</rt>', body)
    assert re.search(r"<ins[^>]*>oh</ins>", body)
    assert re.search(r"<del[^>]*>six</del>", body)
    assert "line-through" in source and "underline wavy" in source


def test_sessions_given_by_the_caller_are_taken_as_they_are(tmp_path):
    write_report(
        tmp_path, title="t", trials=synthetic_trials(4, 0), per_session={"monday": 0.1, "friday": (0.2, 0.1, 0.3)}
    )
    numbers = json.loads((tmp_path / "report.json").read_text())
    assert numbers["per_session"] == {
        "monday": {"rate": 0.1, "low": 0.1, "high": 0.1},
        "friday": {"rate": 0.2, "low": 0.1, "high": 0.3},
    }


def test_phonemes_are_decoded_greedily_where_only_log_probabilities_are_given(tmp_path):
    trials = synthetic_trials(1, examples=1)
    del trials[0]["hypothesis_phonemes"]
    write_report(tmp_path, title="t", trials=trials, num_examples=0)
    assert json.loads((tmp_path / "report.json").read_text())["systems"]["BIT"]["rates"]["PER"]["rate"] == 0.0
    assert not (tmp_path / "figures" / "trial_0000.png").exists()


def test_a_trial_that_cannot_be_aligned_is_drawn_with_a_note(tmp_path):
    trials = synthetic_trials(1, examples=1)
    trials[0]["log_probs"] = trials[0]["log_probs"][:4]
    source = write_report(tmp_path, title="t", trials=trials).read_text()
    assert "could not be aligned: 4 frames are too few" in source


def test_log_probabilities_alone_or_features_alone_make_a_figure(tmp_path):
    full = synthetic_trials(1, examples=1)[0]
    trials = [{"log_probs": full["log_probs"]}, {"features": full["features"], "bin_size_ms": 20}]
    write_report(tmp_path, title="t", trials=trials)
    assert {png.stem for png in (tmp_path / "figures").iterdir()} == {"trial_0000", "trial_0001"}


def test_a_trial_too_short_for_a_frame_is_counted_as_missed_and_not_drawn(tmp_path):
    trial = {"log_probs": np.zeros((0, 41)), "reference_phonemes": "N OW SIL", "reference_text": "No."}
    write_report(tmp_path, title="t", trials=[trial | {"hypothesis_text": ""}])
    rates = json.loads((tmp_path / "report.json").read_text())["systems"]["BIT"]["rates"]
    assert (rates["PER"]["deletions"], rates["WER"]["rate"]) == (3, 1.0)
    assert not list((tmp_path / "figures").glob("trial_*"))


def test_the_same_input_gives_the_same_bytes(tmp_path):
    first, second = (write_report(tmp_path / name, title="t", trials=synthetic_trials(1, 1)[:1]) for name in "ab")
    assert first.read_bytes() == second.read_bytes()


def test_bad_trials_are_refused_by_name(tmp_path):
    with pytest.raises(ValueError, match="trials is empty"):
        write_report(tmp_path, title="t", trials=[])
    with pytest.raises(ValueError, match=r"trial 0 has unknown keys \['hypothesis'\]"):
        write_report(tmp_path, title="t", trials=[{"hypothesis": "a"}])
    with pytest.raises(ValueError, match="log_probs has shape"):
        write_report(tmp_path, title="t", trials=[{"log_probs": np.zeros((3, 40))}])
    with pytest.raises(ValueError, match="2 hypotheses for 1 trials"):
        write_report(tmp_path, title="t", trials=[{"reference_text": "a"}], comparisons={"x": [{}, {}]})
    with pytest.raises(ValueError, match="feature_kinds for 4 channels"):
        write_report(tmp_path, title="t", trials=[{"features": np.zeros((5, 4)), "feature_kinds": ["x"]}])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_two_hundred_sentences_with_six_examples_take_less_than_ten_seconds(tmp_path):
    trials = synthetic_trials(200, examples=6, num_channels=256)
    start = time.process_time()
    write_report(tmp_path, title="t", trials=trials, learning_curve=CURVE)
    assert time.process_time() - start < 10


@pytest.mark.slow
def test_chromium_renders_title_and_figures(report, tmp_path):
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no Chromium on this machine")
    result = subprocess.run(
        [
            *(chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
            *(f"--user-data-dir={tmp_path}", "--window-size=1280,3000", f"--screenshot={tmp_path / 'page.png'}"),
            *("--dump-dom", report[2].as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "<title>Fish &amp; &lt;b&gt;chips&lt;/b&gt;</title>" in result.stdout
    assert result.stdout.count("<img ") == 6
    from PIL import Image

    pixels = np.asarray(Image.open(tmp_path / "page.png").convert("RGB"))
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > 500, "a blank page has few colours"
