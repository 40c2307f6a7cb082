"""The Space in a real browser: for its benchmark, and for the tests of its page."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Long, because the machine may be busy; nothing ever waits for it to pass.
PATIENCE_MS = 120_000
# Notes every text of the sentence, however short it is shown, and when things happened, by the page's own clock.
RECORDER = """() => {
    window.seen = [];
    const places = ['#sentence [role=status]', '#results table'];
    const find = place => document.querySelector(`${place}:not([data-old])`);
    const note = () => {
        const [sentence, table] = places.map(find);
        if (table) window.finished ??= performance.now();
        if (!sentence) return;
        const now = [sentence.dataset.state, sentence.innerText, sentence.querySelector('.settled')?.innerText ?? ''];
        const last = window.seen.at(-1);
        if (!last || now.some((part, i) => part !== last[i])) window.seen.push([...now, performance.now()]);
    };
    const press = () => {
        places.flatMap(place => [...document.querySelectorAll(place)]).forEach(old => { old.dataset.old = ''; });
        Object.assign(window, {seen: [], finished: null, pressed: performance.now()});
    };
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
    document.querySelector('#decode').addEventListener('click', press, true);
}"""


class Space(NamedTuple):
    """A running Space.

    Args:
        address (`str`): of its page.
        pid (`int`): number of its process.
    """

    address: str
    pid: int


def find_browser() -> str | None:
    """Find Chromium or Chrome.

    Returns:
        `str`: path of the program; None when there is none.
    """
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def running_space(*arguments: str, threads: int = 1) -> Iterator[Space]:
    """Run `space/app.py` on a port that the system chooses.

    Args:
        *arguments (`str`): of the app.
        threads (`int`): of the network.

    Yields:
        [`Space`]: ready.

    Raises:
        RuntimeError: when it ends before it serves a page; with what it said.
    """
    command = [sys.executable, str(ROOT / "space" / "app.py"), "--port", "0", *arguments]
    settings = {
        "OMP_NUM_THREADS": str(threads),
        "NUMBA_NUM_THREADS": str(threads),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": "127.0.0.1",
    }
    server = subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, **settings}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert server.stdout is not None
    said = []
    try:
        for line in server.stdout:
            said.append(line)
            if found := re.search(r"http://127\.0\.0\.1:\d+", line):
                break
        else:
            raise RuntimeError("the Space ended before it served a page:\n" + "".join(said))
        # Whatever it says later must not fill the pipe and stop it.
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield Space(found.group(), server.pid)
    finally:
        server.terminate()
        server.wait()


@contextmanager
def running_browser() -> Iterator[Any]:
    """Run the browser that [`find_browser`] found.

    Yields:
        `playwright.sync_api.Browser`: headless.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_browser(), args=FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def open_page(context: Any, address: str, scheme: str = "light") -> Any:
    """Open the page of a Space and wait until its first recording is drawn.

    Args:
        context (`playwright.sync_api.BrowserContext`): of the browser.
        address (`str`): of the Space.
        scheme (`str`): `"light"` or `"dark"`, as the visitor likes it.

    Returns:
        `playwright.sync_api.Page`: it notes every text of the sentence in `window.seen`.
    """
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.emulate_media(color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector("#recording img")
    page.evaluate(RECORDER)
    return page


def choose(page: Any, number: int) -> None:
    """Choose one of the recordings that the page offers, and wait until it is drawn.

    Args:
        page (`playwright.sync_api.Page`): of [`open_page`].
        number (`int`): its place, from 0.
    """
    page.get_by_role("radio").nth(number).click()
    drawn = "number => document.querySelector('#recording').innerText.includes(`${number}: session`)"
    page.wait_for_function(drawn, arg=number + 1)


def decode(page: Any) -> str:
    """Press the button and wait until all results are there.

    Args:
        page (`playwright.sync_api.Page`): of [`open_page`].

    Returns:
        `str`: the sentence.
    """
    page.get_by_role("button", name="Decode").click()
    return finished(page)


def finished(page: Any) -> str:
    """Wait until all results are there.

    Args:
        page (`playwright.sync_api.Page`): of [`open_page`], on which the button has been pressed.

    Returns:
        `str`: the sentence.
    """
    page.wait_for_function("window.finished")
    return str(page.locator("#sentence [data-state=done]").inner_text())


def rows(page: Any, title: str) -> list[list[str]]:
    """Read a table of the results.

    Args:
        page (`playwright.sync_api.Page`): with results.
        title (`str`): heading above the table.

    Returns:
        `list[list[str]]`: its cells, row by row.
    """
    table = page.locator("#results .neural", has=page.get_by_role("heading", name=title, exact=True)).locator("table")
    return [[cell.strip() for cell in row.split("\t")] for row in table.locator("tbody tr").all_inner_texts()]
