"""How long a visitor of the Space waits, from the press of the button to what is on the page, by the browser's clock.

    python -m benchmarks.space               # two threads, on a quiet machine; about a minute
    python -m benchmarks.space --picture     # takes the picture of docs/space.md too

Needs Chromium and playwright.
"""

from __future__ import annotations

import argparse
import io
import re
import statistics
import time
from pathlib import Path
from typing import Any

from benchmarks.common import save_result
from benchmarks.space_browser import (
    ROOT,
    Space,
    choose,
    decode,
    find_browser,
    open_page,
    rows,
    running_browser,
    running_space,
)

THREADS = 2
PRESSES = 9
TEN_SECONDS = 8  # place among the recordings of the page
PICTURE = ROOT / "docs" / "images" / "space.png"


def press(page: Any) -> dict[str, float]:
    """Decode the recording that has been chosen.

    Args:
        page (`playwright.sync_api.Page`): of the Space.

    Returns:
        `dict[str, float]`: seconds from the press of the button to the first partial text, to the final sentence and to
        all results.
    """
    decode(page)
    pressed, seen, finished = page.evaluate("[window.pressed, window.seen, window.finished]")
    first = min(at for state, text, _, at in seen if state == "open" and text)
    final = min(at for state, _, _, at in seen if state == "done")
    return {
        name: round((at - pressed) / 1000, 3)
        for name, at in (("first_text", first), ("sentence", final), ("all_results", finished))
    }


def peak_memory_mb(space: Space) -> float:
    """Most memory that the server has used, in MB."""
    status = Path(f"/proc/{space.pid}/status").read_text(encoding="utf-8")
    return round(int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1000, 0)


def take_picture(page: Any) -> None:
    """Keep a picture of the page for the documentation, in few colours so that it stays small.

    Args:
        page (`playwright.sync_api.Page`): of the Space.
    """
    from PIL import Image

    choose(page, 0)
    decode(page)
    shown = Image.open(io.BytesIO(page.screenshot(full_page=True))).convert("RGB")
    PICTURE.parent.mkdir(exist_ok=True)
    shown.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).save(PICTURE, optimize=True)


def measure(picture: bool) -> dict[str, Any]:
    """Run the Space and press its button.

    Args:
        picture (`bool`): take the picture of the documentation.

    Returns:
        `dict`: what is saved.
    """
    begin = time.perf_counter()
    with running_space(threads=THREADS) as space, running_browser() as browser:
        start = time.perf_counter() - begin
        page = open_page(browser.new_context(viewport={"width": 1180, "height": 800}), space.address)
        load = time.perf_counter() - begin - start
        choose(page, TEN_SECONDS)
        cold, *warm = (press(page) for _ in range(PRESSES + 1))
        seconds = float(re.findall(r"For ([\d.]+) s", page.inner_text("#results"))[0])
        partial_texts = {text for state, text, *_ in page.evaluate("window.seen") if state == "open" and text}
        stages = {stage: float(milliseconds) for stage, milliseconds in rows(page, "Timing")}
        memory = peak_memory_mb(space)
        if picture:
            take_picture(page)
        version = browser.version
    return {
        "command": "python -m benchmarks.space",
        "what": f"{PRESSES} presses of the button after a first one, in headless Chromium {version}",
        "recording_s": seconds,
        "threads": THREADS,
        "server_start_s": round(start, 2),
        "page_load_s": round(load, 2),
        "first_press_s": cold,
        "median_s": {name: round(statistics.median(run[name] for run in warm), 3) for name in cold},
        "worst_s": {name: max(run[name] for run in warm) for name in cold},
        "partial_texts": len(partial_texts),
        "stages_ms": stages,
        "server_peak_memory_mb": memory,
    }


def main() -> None:
    """Measure, and keep the result."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", action="store_true", help="take the picture of docs/space.md")
    arguments = parser.parse_args()
    if find_browser() is None:
        print("no Chromium on this machine: apt-get install chromium")
        return
    result = measure(arguments.picture)
    print(save_result("space", result))
    print({key: result[key] for key in ("first_press_s", "median_s", "worst_s")})


if __name__ == "__main__":
    main()
