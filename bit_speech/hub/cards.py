"""Model cards and dataset cards: every figure with its origin, every gap shown as a gap."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bit_speech.hub.card_facts import METRICS, CardFacts, Figure, Measurements, all_figures
from bit_speech.import_utils import require

NOT_STATED = "not stated"
_PIPELINE_TAGS = {
    "bit_speech": "automatic-speech-recognition",
    "bit_speech_gru": "automatic-speech-recognition",
    "bit_speech_wav2vec2": "automatic-speech-recognition",
    "bit_speech_llm": "automatic-speech-recognition",
    "bit_speech_brain_tuned": "feature-extraction",
    "bit_speech_ieeg_audio": "feature-extraction",
}


def render(template: str, **values: Any) -> str:
    """Fill a card's template.

    Args:
        template (`str`): name of a file of this folder.
        **values: everything it mentions; a name that is missing is an error, not a blank.

    Returns:
        `str`: Markdown.

    Raises:
        ImportError: when jinja2 is not installed.
    """
    jinja = require("jinja2")
    environment = jinja.Environment(
        loader=jinja.FileSystemLoader(Path(__file__).parent),
        autoescape=False,  # Markdown, not HTML
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja.StrictUndefined,
    )
    environment.filters["stated"] = lambda value: value if value not in (None, "", (), []) else NOT_STATED
    return str(environment.get_template(template).render(**values))


def header(values: Mapping[str, Any]) -> str:
    """Write the YAML header of a card.

    Args:
        values (`dict`): plain values; what is None is left out.

    Returns:
        `str`: between two lines of dashes.

    Example:
        >>> print(header({"license": "mit", "tags": ["speech"], "language": None}))
        ---
        license: "mit"
        tags: ["speech"]
        ---
    """
    # JSON is YAML, and it is written the same way by every version of every library.
    kept = (f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in values.items() if value is not None)
    return "\n".join(["---", *kept, "---"])


def shown(figure: Figure) -> dict[str, str]:
    """Bring a figure into the words of a card.

    Args:
        figure (`Figure`): one figure.

    Returns:
        `dict[str, str]`: `metric`, `value`, `interval`, `split`, `mark`, `source`.

    Example:
        >>> shown(Figure("wer", "ours", 0.1234, 0.1, 0.15, "test", 200))["value"]
        '12.3 %'
        >>> shown(Figure("wer", "not measured"))["value"]
        '–'
    """
    interval = "–"
    if figure.low is not None and figure.high is not None:
        interval = f"{100 * figure.low:.1f} – {100 * figure.high:.1f} %"
    sentences = f", {figure.num_sentences:,} sentences" if figure.num_sentences else ""
    return {
        "metric": METRICS.get(figure.metric, figure.metric),
        "value": "–" if figure.value is None else f"{100 * figure.value:.1f} %",
        "interval": interval,
        "split": (figure.split or "–") + sentences,
        "mark": figure.mark,
        "source": figure.source or "–",
    }


def model_card(repo_id: str, folder: str | Path, facts: CardFacts, measurements: Measurements) -> str:
    """Write the model card.

    Args:
        repo_id (`str`): `owner/name` on the Hub.
        folder (`str`): the folder that is published; configuration and processor are read from it.
        facts (`CardFacts`): what only people know.
        measurements (`Measurements`): what was measured.

    Returns:
        `str`: `README.md`.
    """
    folder = Path(folder)
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    processor = {}
    for name in ("preprocessor_config.json", "processor_config.json"):
        if (folder / name).is_file():
            content = json.loads((folder / name).read_text(encoding="utf-8"))
            processor = content.get("feature_extractor") or content
    figures = all_figures(measurements, facts)
    title = facts.title or repo_id.split("/")[-1]
    ours = [figure for figure in figures if figure.mark == "ours" and figure.value is not None]
    participants = config.get("participants") or (config.get("encoder_config") or {}).get("participants") or {}
    metadata = {
        "license": facts.licence,
        "library_name": "transformers",
        "pipeline_tag": _PIPELINE_TAGS[config["model_type"]],
        "base_model": facts.base_model,
        "tags": ["brain-computer-interface", "speech-neuroprosthesis", "bit-speech"]
        + (["simulated"] if facts.simulated else []),
        "model-index": [_model_index(title, ours, facts)] if ours else None,
    }
    return render(
        "model_card.md.jinja",
        header=header(metadata),
        title=title,
        repo_id=repo_id,
        facts=facts,
        config=config,
        processor=processor,
        participants=participants,
        example_participant=next(iter(participants), "participant"),
        figures=[shown(figure) for figure in figures],
        run=measurements.run,
        has_decoder=(folder / "decoder").is_dir(),
        auto_class=_auto_class(config),
        has_pipeline="custom_pipelines" in config,
        inner_speech=any(word in (facts.task or "") for word in ("imagined", "inner")),
    )


def _auto_class(config: Mapping[str, Any]) -> str:
    from bit_speech.hub.example_run import auto_class_of

    return auto_class_of(dict(config))


def _model_index(title: str, figures: list[Figure], facts: CardFacts) -> dict[str, Any]:
    """Results as the Hub lists them; our own figures only."""
    data = facts.data or ("a simulated participant" if facts.simulated else NOT_STATED)
    return {
        "name": title,
        "results": [
            {
                "task": {"type": "automatic-speech-recognition", "name": "speech decoding from neural activity"},
                "dataset": {"type": "neural-recordings", "name": data, "split": figure.split},
                "metrics": [{"type": figure.metric, "value": round(100 * (figure.value or 0.0), 2), "verified": False}],
            }
            for figure in figures
        ],
    }
