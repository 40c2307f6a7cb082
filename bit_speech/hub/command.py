"""What the command `bit-speech publish` does."""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from bit_speech.hub.card_facts import EXAMPLE, CardFacts, read_measurements
from bit_speech.hub.publishing import Publication, push

EPILOG = """\
examples:
  bit-speech publish --model runs/me/model --repo_id my-lab/p01-decoder              # shows what would be uploaded
  bit-speech publish --model runs/me/model --repo_id my-lab/p01-decoder --push
  bit-speech publish --data runs/me/trials --repo_id my-lab/p01-trials               # the card alone
  bit-speech publish --data runs/me/trials --repo_id my-lab/p01-trials --with_recordings --licence cc-by-4.0 --push
  bit-speech publish --metric wer --repo_id my-lab/bci-wer --push
  bit-speech publish --example > card.yaml                                           # facts for the card, to fill in

Nothing is uploaded without --push. A new repository is private unless --public.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Give a parser the flags of the command.

    Args:
        parser (`argparse.ArgumentParser`): is changed.
    """
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--model", help="folder of a trained model with its processor")
    source.add_argument("--data", help="folder of converted trials; its card, unless --with_recordings")
    source.add_argument("--metric", choices=("per", "wer"), help="the error rate as a Space for Hugging Face Evaluate")
    source.add_argument("--example", action="store_true", help="print a file for --card to start from, and stop")
    parser.add_argument("--repo_id", help="owner/name on the Hub")
    parser.add_argument("--card", help="YAML file of facts (default: card.yaml beside the model's folder, if there)")
    parser.add_argument(
        "--metrics", nargs="+", help="metrics.json files (default: the one beside the model's folder, if there)"
    )
    parser.add_argument("--with_recordings", action="store_true", help="upload the recordings of --data too")
    parser.add_argument("--licence", help="licence of the recordings, or of the model when the card names none")
    parser.add_argument("--output_dir", help="empty folder to lay everything out in (default: a temporary one)")
    parser.add_argument("--push", action="store_true", help="upload; without it nothing leaves this machine")
    parser.add_argument("--public", action="store_true", help="a repository that is made now is open to everyone")
    parser.add_argument("--json", action="store_true", help="print the plan as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the command.

    Args:
        arguments (`argparse.Namespace`): from a parser with [`add_arguments`].

    Returns:
        `int`: 0; 1 when the dry run found problems that stand in the way of an upload.

    Raises:
        ValueError: for flags that do not go together, and for whatever stands in the way of an upload with `--push`.
    """
    if arguments.example:
        print(EXAMPLE, end="")
        return 0
    if not arguments.repo_id:
        raise ValueError("--repo_id is missing: give owner/name, such as my-lab/p01-decoder")
    if arguments.with_recordings and not arguments.data:
        raise ValueError("--with_recordings goes with --data; a model or a metric holds no recordings")
    folder = arguments.output_dir or tempfile.mkdtemp(prefix="bit-speech-publish-")
    publication = _stage(arguments, folder)
    url = push(publication, public=arguments.public) if arguments.push else None
    if arguments.json:
        print(json.dumps(publication.to_dict() | {"uploaded": url}, indent=2))
    else:
        print(publication)
        print(f"uploaded: {url}" if url else "nothing was uploaded; add --push to do it")
    return 1 if publication.problems else 0


def _stage(arguments: argparse.Namespace, folder: str) -> Publication:
    if arguments.metric:
        from bit_speech.hub.metric_space import stage_metric

        return stage_metric(arguments.metric, arguments.repo_id, folder)
    source = Path(arguments.model or arguments.data)
    facts = _facts(arguments.card, source)
    if arguments.data:
        from bit_speech.hub.dataset_folder import stage_dataset

        return stage_dataset(
            source, arguments.repo_id, folder, facts, with_recordings=arguments.with_recordings,
            licence=arguments.licence,
        )  # fmt: skip
    from bit_speech.hub.model_folder import stage_model

    beside = source.parent / "metrics.json"
    metrics: list[Any] = arguments.metrics or ([beside] if beside.is_file() else [])
    if facts.licence is None and arguments.licence:
        facts = CardFacts(**{**vars(facts), "licence": arguments.licence})
    return stage_model(source, arguments.repo_id, folder, facts, read_measurements(metrics))


def _facts(card: str | None, source: Path) -> CardFacts:
    beside = source.parent / "card.yaml"
    if card is None and not beside.is_file():
        return CardFacts()
    return CardFacts.from_yaml(card or beside)
