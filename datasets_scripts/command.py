"""What the commands of all converters share: the arguments at the end, and how a refusal is shown."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any

from bit_speech.data.writing import COMPRESSIONS


def plain_parser(name: str, description: str, epilog: str) -> argparse.ArgumentParser:
    """Begin the argument parser of a converter, whatever it makes.

    Args:
        name (`str`): name of the converter, as in `bit-speech convert NAME`.
        description (`str`): one line.
        epilog (`str`): what is read and written, with examples.

    Returns:
        `argparse.ArgumentParser`: with `--json`.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m datasets_scripts.convert_{name}",
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the report as JSON")
    return parser


def converter_parser(
    name: str, description: str, epilog: str, *, input_help: str | None = None
) -> argparse.ArgumentParser:
    """Begin the argument parser of a converter of trials.

    Args:
        name (`str`): name of the converter, as in `bit-speech convert NAME`.
        description (`str`): one line.
        epilog (`str`): what is read and written, with examples.
        input_help (`str`, *optional*): what `--input_dir` holds; default no such argument.

    Returns:
        `argparse.ArgumentParser`: with `--input_dir`, `--output_dir`, `--allow_partial`, `--compression` and `--quiet`.
    """
    parser = plain_parser(name, description, epilog)
    if input_help is not None:
        parser.add_argument("--input_dir", required=True, help=input_help)
    parser.add_argument("--output_dir", required=input_help is not None, help="dataset to write, or to continue")
    parser.add_argument("--allow_partial", action="store_true", help="convert what is there; leave broken trials out")
    parser.add_argument(
        "--compression",
        choices=COMPRESSIONS,
        default="lz4",
        help="of the Parquet files (default: lz4; zstd is smaller)",
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")
    return parser


def run_converter(name: str, convert: Callable[..., Any], arguments: argparse.Namespace) -> int:
    """Convert as the arguments say, and print the report.

    Args:
        name (`str`): name of the converter, for messages.
        convert (`Callable`): its `convert`; every argument is passed under its own name, `quiet` as `progress`.
        arguments (`argparse.Namespace`): the parsed arguments.

    Returns:
        `int`: 0, or 2 when the input was refused (the reason is on standard error).
    """
    options = vars(arguments)
    as_json = options.pop("json")
    if "quiet" in options:
        options["progress"] = not options.pop("quiet")
    try:
        report = convert(**options)
    except (ValueError, FileNotFoundError, FileExistsError, ImportError) as error:
        print(f"convert_{name}: {error}", file=sys.stderr)
        return 2
    if as_json:
        print(json.dumps({"report": report} if isinstance(report, str) else report.to_dict(), indent=2))
    else:
        print(report)
    return 0
