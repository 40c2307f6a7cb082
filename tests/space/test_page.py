"""The page in a real browser: what visitors see, hear and press."""

import re

import h5py
import numpy as np
import pytest
from trials import bundled_trials

from benchmarks.space_browser import PATIENCE_MS, ROOT, find_browser, open_page, running_browser, running_space

pytest.importorskip("gradio", reason="the Space needs gradio: pip install 'bit-speech[space]'")
pytest.importorskip("playwright", reason="tests of the page need playwright: pip install 'bit-speech[test]'")
pytestmark = [
    pytest.mark.skipif(find_browser() is None, reason="no Chromium on this machine: apt-get install chromium"),
    pytest.mark.timeout(PATIENCE_MS / 1000 * 2),
]


@pytest.fixture(scope="module")
def address():
    with running_space() as address:
        yield address


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
def offered():
    return bundled_trials()


def choose(page, number):
    page.get_by_role("radio").nth(number).click()
    page.wait_for_function(
        "n => document.querySelector('#recording').innerText.includes(`${n}: session`)", arg=number + 1
    )


def decode(page):
    page.get_by_role("button", name="Decode").click()
    return finished(page)


def finished(page):
    page.wait_for_selector("#results table")
    return page.locator("#sentence [data-state=done]").inner_text()


def upload(page, path):
    page.locator("#upload input[type=file]").set_input_files(path)


def alert(page):
    return page.get_by_role("alert").inner_text()


def section(page, title):
    """The table below a heading, row by row."""
    rows = page.locator("#results .neural", has=page.get_by_role("heading", name=title, exact=True)).locator("tr")
    return [cells.split("\t") for cells in rows.all_inner_texts()]


def test_a_chosen_trial_is_decoded_into_its_sentence(page):
    choose(page, 4)
    assert decode(page) == "the car is good"
