"""A metric of Hugging Face Evaluate as a Space of its own: it loads where this package is not installed."""

from __future__ import annotations

import os
from pathlib import Path

from bit_speech.evaluation import error_rates
from bit_speech.evaluation.metrics import metric_folder
from bit_speech.files import write_text
from bit_speech.hub.card_facts import METRICS
from bit_speech.hub.cards import header, render
from bit_speech.hub.publishing import Publication, check_repo_id, fresh_folder

_INSTALLED = "from bit_speech.evaluation.error_rates import"


def stage_metric(name: str, repo_id: str, folder: str | os.PathLike[str]) -> Publication:
    """Lay out a metric as a Space.

    Args:
        name (`str`): `"per"` or `"wer"`.
        repo_id (`str`): `owner/name`; `evaluate.load("owner/name")` will load it.
        folder (`str`): an empty folder to lay the files out in.

    Returns:
        `Publication`: ready.

    Raises:
        ValueError: when there is no such metric.
    """
    script = metric_folder(name) / f"{name}.py"
    check_repo_id(repo_id)
    target = fresh_folder(folder)
    text = script.read_text(encoding="utf-8")
    if _INSTALLED not in text:
        raise ValueError(f"{script} does not take its arithmetic from error_rates; it cannot be made self-contained")
    # Evaluate fetches the script that is called like the Space, and the files that it imports relatively.
    write_text(target / f"{repo_id.split('/')[1]}.py", text.replace(_INSTALLED, "from .error_rates import"))
    write_text(target / "error_rates.py", Path(error_rates.__file__).read_text(encoding="utf-8"))
    write_text(target / "requirements.txt", "datasets\nevaluate\nnumpy\nrapidfuzz\n")
    titles = {"title": METRICS[name][0].upper() + METRICS[name][1:], "metric": name, "repo_id": repo_id}
    write_text(target / "app.py", render("metric_app.py.jinja", **titles))
    metadata = {
        "title": titles["title"],
        "sdk": "gradio",
        "app_file": "app.py",
        "license": "apache-2.0",
        "tags": ["evaluate", "metric", "speech-neuroprosthesis"],
    }
    write_text(target / "README.md", render("metric_card.md.jinja", header=header(metadata), **titles))
    return Publication(target, repo_id, "space", notes=("the Space needs no package of ours: its code is in it",))
