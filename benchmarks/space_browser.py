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
from typing import Any

ROOT = Path(__file__).parents[1]
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip
# Long, because the machine may be busy; nothing ever waits for it to pass.
PATIENCE_MS = 120_000
# Notes every text of the sentence, however short it is shown, and when it came after the button was pressed.
RECORDER = """() => {
    window.seen = [];
    const note = () => {
        const place = document.querySelector('#sentence [role=status]');
        if (!place) return;
        const now = [place.dataset.state, place.innerText, place.querySelector('.settled')?.innerText ?? ''];
        const last = window.seen.at(-1);
        if (!last || now.some((part, i) => part !== last[i])) window.seen.push([...now, performance.now()]);
    };
    new MutationObserver(note).observe(document.body, {subtree: true, childList: true, characterData: true});
    document.querySelector('#decode').addEventListener(
        'click', () => { window.seen = []; window.pressed = performance.now(); }, true);
}"""


def find_browser() -> str | None:
    """Find Chromium or Chrome.

    Returns:
        `str`: path of the program; None when there is none.
    """
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


@contextmanager
def running_space(*arguments: str, threads: int = 1) -> Iterator[str]:
    """Run `space/app.py` on a port that the system chooses.

    Args:
        *arguments (`str`): of the app.
        threads (`int`): of the network.

    Yields:
        `str`: its address.

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
        yield found.group()
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


def open_page(context: Any, address: str) -> Any:
    """Open the page of a Space and wait until its first recording is drawn.

    Args:
        context (`playwright.sync_api.BrowserContext`): of the browser.
        address (`str`): of the Space.

    Returns:
        `playwright.sync_api.Page`: it notes every text of the sentence in `window.seen`.
    """
    page = context.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(address)
    page.wait_for_selector("#recording img")
    page.evaluate(RECORDER)
    return page
