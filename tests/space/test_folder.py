"""The folder can be pushed to the Hub as it stands."""

import re
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[2]
SPACE = ROOT / "space"


def head():
    return yaml.safe_load((SPACE / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_the_head_of_its_card_names_what_is_there():
    known = head()
    assert known["sdk"] == "gradio" and (SPACE / known["app_file"]).is_file()
    assert known["license"] == "apache-2.0" and len(known["short_description"]) <= 60
    pinned = re.search(r"^gradio==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert known["sdk_version"] == pinned.group(1)


def test_it_asks_for_extras_that_the_package_has():
    extras = re.search(r"^bit-speech\[(.+)\]>=", (SPACE / "requirements.txt").read_text(encoding="utf-8")).group(1)
    setup = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert all(f'"{extra}": [' in setup for extra in [*extras.split(","), "space"])


def test_it_holds_nothing_but_its_files():
    names = {path.name for path in SPACE.iterdir() if path.name != "__pycache__"}
    modules = {"app.py", "page.py", "markup.py", "figures.py", "listening.py", "trials.py"}
    assert names == {"README.md", "requirements.txt", *modules}


def test_help_comes_at_once_and_shows_examples():
    code = (
        "import runpy, sys; sys.argv = ['app.py', '--help']\n"
        "try: runpy.run_path('space/app.py', run_name='__main__')\n"
        "except SystemExit: print(sorted({'torch', 'gradio', 'bit_speech'} & set(sys.modules)))"
    )
    found = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "python space/app.py --model" in found and found.endswith("[]\n")
