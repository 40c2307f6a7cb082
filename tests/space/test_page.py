"""The page in a real browser: what visitors see, hear and press."""

import h5py
import numpy as np
import pytest
from trials import bundled_trials

from benchmarks.space_browser import (
    ROOT,
    choose,
    decode,
    find_browser,
    finished,
    open_page,
    rows,
    running_browser,
    running_space,
)

pytest.importorskip("gradio", reason="the Space needs gradio: pip install 'bit-speech[space]'")
pytest.importorskip("playwright", reason="tests of the page need playwright: pip install 'bit-speech[test]'")
pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.timeout(900),  # for a machine that does much else
]
LONGEST = 8
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def address():
    with running_space() as space:
        yield space.address


@pytest.fixture(scope="module")
def browser():
    with running_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def context(browser, address):
    """One profile, so that the page's files are fetched once; nothing but the server itself can be reached."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    context.elsewhere = []

    def keep_out(route):
        context.elsewhere.append(route.request.url)
        route.abort()

    context.route(lambda url: not url.startswith(address), keep_out)
    yield context
    context.close()


@pytest.fixture
def page(context, address):
    page = open_page(context, address)
    yield page
    page.close()


@pytest.fixture(scope="module")
def decoded(context, address):
    """A page on which the first recording has been decoded; only to be looked at."""
    page = open_page(context, address)
    decode(page)
    yield page
    page.close()


@pytest.fixture(scope="module")
def uploading(context, address):
    """A page to which one file after the other is given."""
    page = open_page(context, address)
    yield page
    page.close()


@pytest.fixture(scope="module")
def trial():
    return bundled_trials()[4]


def upload(page, path):
    """Give the page a file, after taking away the one from before."""
    if page.get_by_role("button", name="Clear").count():
        page.get_by_role("button", name="Clear").click()
        page.wait_for_selector("#upload input[type=file]", state="attached")
        page.wait_for_function("!document.querySelector('[role=alert]')")
        page.wait_for_function("document.querySelector('#recording').innerText.includes('Simulated;')")
    page.locator("#upload input[type=file]").set_input_files(path)


def complaint(page, path):
    upload(page, path)
    return page.get_by_role("alert").inner_text()


def saved(folder, **arrays):
    np.savez(folder / "recording.npz", **arrays)
    return folder / "recording.npz"


def sideways(page):
    """Pixels by which the page is wider than the window."""
    return page.evaluate("document.documentElement.scrollWidth - window.innerWidth")


def faults(page):
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page).response["violations"]
    return [(fault["id"], [node["html"] for node in fault["nodes"]]) for fault in found if fault["impact"] in SERIOUS]


def test_the_page_says_that_its_recordings_are_simulated_and_asks_nothing_from_elsewhere(decoded, context):
    assert decoded.get_by_role("heading", level=1).inner_text() == "Brain recordings in, sentences out"
    assert "The recordings offered here are simulated." in decoded.inner_text("body")
    assert decoded.locator("#recording img").evaluate("image => image.naturalWidth") > 600
    assert context.elsewhere == []


def test_a_recording_is_decoded_into_a_sentence_that_is_set_beside_what_was_to_be_said(decoded):
    compared = dict(rows(decoded, "Cascade and end-to-end"))
    assert compared["to be said"] == "You must've measured wrong."
    assert {"you", "must've", "wrong"} <= set(compared["cascade (phonemes, then word search)"].split())


def test_phonemes_are_drawn_over_time_and_told_in_words(decoded):
    image = decoded.locator("#results img")
    assert image.evaluate("image => image.naturalWidth") > 600
    assert "Y UW SIL M AH S" in image.get_attribute("alt")


def test_word_confidences_nbest_and_timing_are_shown(decoded):
    text = decoded.locator("#sentence [data-state=done]").inner_text()
    words = rows(decoded, "Word confidences")
    assert [row[0] for row in words] == text.split()
    assert all(0 <= float(row[1]) < float(row[2]) < 3 for row in words)
    assert all(0 <= int(row[3].removesuffix("%")) <= 100 for row in words)
    sentences = rows(decoded, "N-best sentences")
    assert sentences[0][1] == text and len(sentences) > 1
    scores = [float(row[2]) for row in sentences]
    assert scores == sorted(scores, reverse=True)
    stages = [row[0] for row in rows(decoded, "Timing")]
    assert {"features", "network", "word search", "all together"} <= set(stages)


def test_another_recording_is_chosen_and_its_sentence_grows_and_what_is_settled_stays(page):
    choose(page, LONGEST)
    final = decode(page)
    seen = page.evaluate("window.seen")
    partial = [(text, settled) for state, text, settled, _ in seen if state == "open" and text]
    assert len({text for text, _ in partial}) >= 2
    assert 0 < len(partial[0][0]) < len(final)
    settled = [part for _, part in partial]
    assert all(later.startswith(sooner) for sooner, later in zip(settled, [*settled[1:], final]))
    assert any(part != text for text, part in partial)  # something was open at some time


def test_an_uploaded_file_is_decoded_as_the_chosen_trial_is(uploading, trial, tmp_path):
    path = saved(tmp_path, features=trial.features, session_id=trial.session_id, text=trial.text)
    upload(uploading, path)
    uploading.wait_for_function("document.querySelector('#recording').innerText.includes('Uploaded by you')")
    assert "training trials of session sim.2024.01.11" in uploading.inner_text("#recording")
    assert decode(uploading) == "the car is good"


def test_an_hdf5_file_without_a_session_is_scaled_by_itself_and_the_page_says_so(uploading, trial, tmp_path):
    with h5py.File(tmp_path / "recording.h5", "w") as file:
        file.create_group("trial_0000")["input_features"] = trial.features
    upload(uploading, tmp_path / "recording.h5")
    uploading.wait_for_function("document.querySelector('#recording').innerText.includes('this recording alone')")
    assert decode(uploading)


def test_a_file_of_another_format_is_refused_in_words(uploading, tmp_path):
    (tmp_path / "letter.txt").write_text("To whom it may concern")
    found = complaint(uploading, tmp_path / "letter.txt")
    assert "letter.txt is a .txt file; this page reads .npz, .h5, .hdf5, .nwb." in found
    assert "numpy.savez" in found


def test_a_wrong_number_of_channels_is_named_with_the_right_one(uploading, trial, tmp_path):
    assert "96 channels, but the model reads 128" in complaint(
        uploading, saved(tmp_path, features=trial.features[:, :96])
    )
    uploading.get_by_role("button", name="Decode").click()
    assert "96 channels" in uploading.get_by_role("alert").inner_text()


def test_values_that_are_no_numbers_are_found(uploading, trial, tmp_path):
    features = trial.features.copy()
    features[7, 3] = np.nan
    assert "at bin 7, channel 3" in complaint(uploading, saved(tmp_path, features=features))


def test_everything_can_be_done_with_the_keyboard(page):
    def tab_to(what):
        for _ in range(30):
            page.keyboard.press("Tab")
            if page.evaluate(f"document.activeElement.matches({what!r})"):
                return
        raise AssertionError(f"no {what} within 30 presses of the Tab key")

    tab_to("input[type=radio]")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('#recording').innerText.includes('2: session')")
    page.keyboard.press("ArrowDown")
    page.wait_for_function("document.querySelector('#recording').innerText.includes('3: session')")
    page.keyboard.press("ArrowUp")
    page.wait_for_function("document.querySelector('#recording').innerText.includes('2: session')")
    tab_to("#upload button")
    tab_to("#decode")
    page.keyboard.press("Enter")
    assert finished(page) == "what would you tell her to do"


def test_a_narrow_screen_needs_no_sideways_scrolling(page, tmp_path):
    page.set_viewport_size({"width": 360, "height": 740})
    assert sideways(page) <= 0
    choose(page, LONGEST)
    decode(page)
    assert sideways(page) <= 0
    page.locator("#decode").scroll_into_view_if_needed()
    box = page.locator("#decode").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 360
    (tmp_path / "a_name_without_any_place_to_break_the_line_that_is_longer_than_the_screen.txt").touch()
    complaint(page, next(tmp_path.iterdir()))
    assert sideways(page) <= 0


def test_a_chosen_recording_takes_the_place_of_an_uploaded_file(uploading, tmp_path):
    (tmp_path / "letter.txt").write_text("To whom it may concern")
    complaint(uploading, tmp_path / "letter.txt")
    choose(uploading, 3)
    uploading.wait_for_function("!document.querySelector('[role=alert]')")
    uploading.wait_for_selector("#upload input[type=file]", state="attached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_serious_fault_of_accessibility(context, address, scheme, tmp_path):
    page = open_page(context, address, scheme)
    assert page.evaluate("document.body.classList.contains('dark')") == (scheme == "dark")
    decode(page)
    (tmp_path / "letter.txt").write_text("To whom it may concern")
    assert faults(page) == []
    complaint(page, tmp_path / "letter.txt")
    assert faults(page) == []
    page.close()


def test_the_picture_in_the_documentation_is_there_and_small():
    picture = ROOT / "docs" / "images" / "space.png"
    assert picture.read_bytes()[:4] == b"\x89PNG"
    assert picture.stat().st_size < 400_000
