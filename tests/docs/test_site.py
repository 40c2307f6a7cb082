"""The site builds strictly, asks nothing of the network, and its pages can be searched."""

import json
import re
import shutil
import subprocess
import sys

import pytest

from ..documentation import ROOT

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("mkdocs", path=str(sys.prefix) + "/bin") is None, reason="needs bit-speech[docs]"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)],
        cwd=ROOT,
        check=True,
    )
    return folder


def test_no_page_loads_anything_from_elsewhere(site):
    pages = list(site.rglob("*.html"))
    assert len(pages) > 30
    for page in pages:
        loaded = re.findall(
            r"<(?:script|img|link|iframe)\b[^>]*?(?:src|href)=\"?(https?://[^\s\">]+)", page.read_text()
        )
        assert not loaded, f"{page.name}: {loaded}"


def test_every_public_name_is_in_the_reference(site):
    import bit_speech

    text = "".join(page.read_text() for page in (site / "api").glob("*.html"))
    missing = [name for name in bit_speech.__all__ if not re.search(rf'id="[\w.]+\.{name}"', text)]
    assert not missing


def test_the_index_of_the_search_has_pages_and_names(site):
    index = json.loads((site / "search/search_index.json").read_text())
    places = {entry["location"] for entry in index["docs"]}
    assert "faq.html" in places and "api/decoding.html#bit_speech.decoding.beam_search.BeamSearchDecoder" in places
    assert (site / "search/search_index.js").read_text().startswith("var __index")


def test_doctests_are_shown_as_code(site):
    page = (site / "api/decoding.html").read_text()
    assert "&gt;&gt;&gt;" in page and "<blockquote>" not in page
