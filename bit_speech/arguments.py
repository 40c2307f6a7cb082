"""Settings of a run: one YAML file, any number of flags on top, and an error for everything that is not a setting.

The rules, in the order in which people trip over them:

- a flag beats the file, the file beats the default;
- `1e-4` is a number (plain YAML 1.1 reads it as text), `no` and `on` are text, and `2023-08-11` is text, not a date;
- a key that no setting has is refused, with the nearest names;
- the resolved settings are saved beside the run and can be given back with `--config`.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import json
import os
import re
import sys
from collections.abc import Iterable, Sequence
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from transformers import HfArgumentParser

from bit_speech.files import write_text

HELP_ALL = "--help_all"


class _ConfigLoader(yaml.SafeLoader):
    """YAML with the scalars of YAML 1.2: what looks like a number is one, and only true and false are booleans."""


_ConfigLoader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("tag:yaml.org,2002:bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("tag:yaml.org,2002:null", r"^(?:~|null|Null|NULL|)$", ["~", "n", "N", ""]),
    ("tag:yaml.org,2002:int", r"^[-+]?[0-9]+$", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    _ConfigLoader.add_implicit_resolver(_tag, re.compile(_pattern), list(_first))


def _construct_decimal(loader: yaml.SafeLoader, node: yaml.ScalarNode) -> int:
    return int(str(loader.construct_scalar(node)))


# The stock constructors read `010` as octal and `1:30` as a base-60 number; here digits are decimal.
_ConfigLoader.add_constructor("tag:yaml.org,2002:int", _construct_decimal)


class _ConfigDumper(yaml.SafeDumper):
    """Quotes exactly the text that [`_ConfigLoader`] would otherwise read as something else."""


_ConfigDumper.yaml_implicit_resolvers = _ConfigLoader.yaml_implicit_resolvers


def _construct_unique_mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict[Any, Any]:
    keys = [loader.construct_object(key) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"the configuration sets {', '.join(twice)} more than once: keep one line of each")
    return {key: loader.construct_object(value, deep=True) for key, (_, value) in zip(keys, node.value)}


_ConfigLoader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _construct_unique_mapping)


def load_config(path: str | os.PathLike[str]) -> dict[str, Any]:
    r"""Read a YAML configuration file.

    Args:
        path (`str`): a file whose top level is a mapping of setting names to values.

    Returns:
        `dict[str, Any]`: the settings as written; `1e-4` is a float.

    Raises:
        FileNotFoundError: when there is no such file.
        ValueError: when the file is not YAML, not a mapping, or sets a name twice.

    Example:
        >>> import tempfile, pathlib
        >>> folder = tempfile.TemporaryDirectory()
        >>> file = pathlib.Path(folder.name) / "run.yaml"
        >>> _ = file.write_text("learning_rate: 1e-4\nsave_strategy: no\n")
        >>> load_config(file)
        {'learning_rate': 0.0001, 'save_strategy': 'no'}
        >>> folder.cleanup()
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no configuration file {path}; the examples are in examples/configs")
    try:
        # `_ConfigLoader` is a SafeLoader: it builds plain values only.
        settings = yaml.load(path.read_text(encoding="utf-8"), Loader=_ConfigLoader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from error
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}; it must hold lines of the form `name: value`")
    return {str(key): value for key, value in settings.items()}


class ExperimentParser(HfArgumentParser):
    """Command line of an experiment: dataclasses become flags, and `--config` gives them all at once.

    Args:
        dataclass_types (sequence of dataclasses): their fields are the settings; names must not repeat.
        description (`str`): what the experiment does, shown on top of `--help`.
        example (`str`, *optional*): a command to copy, shown below the flags.
        highlights (sequence of `str`, *optional*): settings that `--help` explains; the others appear with
            `--help_all`. The fields of a class that sets `_show_all_settings = True` are always explained.

    Example:
        >>> @dataclasses.dataclass
        ... class Arguments:
        ...     learning_rate: float = 1e-3
        ...     sessions: list[str] = dataclasses.field(default_factory=list)
        >>> parser = ExperimentParser([Arguments], description="A run.")
        >>> parser.parse(["--learning_rate", "5e-4"])
        (Arguments(learning_rate=0.0005, sessions=[]),)
        >>> parser.resolved["learning_rate"]
        0.0005
    """

    def __init__(
        self,
        dataclass_types: Sequence[type],
        description: str = "",
        example: str = "",
        highlights: Iterable[str] = (),
    ):
        self._own_settings = {
            field.name
            for cls in dataclass_types
            for field in dataclasses.fields(cls)
            if getattr(cls, "_show_all_settings", False) or field.name in set(highlights)
        }
        super().__init__(
            list(dataclass_types),
            description=description,
            epilog=f"example:\n  {example}" if example else None,
            formatter_class=_TeachingFormatter,
            allow_abbrev=False,
            add_help=False,
        )
        self.add_argument(
            "-h",
            "--help",
            action="store_true",
            default=argparse.SUPPRESS,
            help="explain the settings of this experiment and stop",
        )
        self.add_argument(
            HELP_ALL,
            action="store_true",
            default=argparse.SUPPRESS,
            help="explain every setting, with those of transformers' Trainer, and stop",
        )
        self.add_argument(
            "--config", metavar="FILE", default=argparse.SUPPRESS, help="YAML file of settings; flags beat it"
        )
        self.resolved: dict[str, Any] = {}

    @property
    def settings(self) -> list[str]:
        """Names of all settings, in the order of the dataclasses (`list[str]`)."""
        return [field.name for cls in self.dataclass_types for field in dataclasses.fields(cls) if field.init]

    def parse(self, argv: Sequence[str] | None = None) -> tuple[Any, ...]:
        """Read flags and configuration file into the dataclasses.

        Args:
            argv (`list[str]`, *optional*): the command line without the program's name; default `sys.argv[1:]`.

        Returns:
            `tuple`: one instance per dataclass, in their order. [`resolved`] then holds every setting as a plain value.

        Raises:
            ValueError: for a key or flag that no setting has, or a value of the wrong kind; the message says which.
            FileNotFoundError: when the configuration file does not exist.
            SystemExit: after `--help`.
        """
        flags = list(sys.argv[1:] if argv is None else argv)
        if {"-h", "--help", HELP_ALL} & set(flags):
            self._print_teaching_help(everything=HELP_ALL in flags)
            raise SystemExit(0)
        given, unknown_flags = self._given_flags(flags)
        self._refuse_unknown([flag.lstrip("-") for flag in unknown_flags], where="the command line", prefix="--")

        from_file: dict[str, Any] = {}
        if given.get("config"):
            from_file = load_config(given["config"])
            self._refuse_unknown([key for key in from_file if key not in self.settings], where=str(given["config"]))
        # A command line cannot spell "nothing": these values go to the dataclass as they are.
        verbatim = {key: value for key, value in from_file.items() if value in (None, []) and key not in given}
        arguments = [
            text for key, value in from_file.items() if value not in (None, []) for text in _as_flags(key, value)
        ]
        for action in self._actions:
            # The dataclass itself says what is missing; argparse would stop before the file was read.
            action.required = False
        namespace = vars(self.parse_args(arguments + flags))
        instances = []
        for cls in self.dataclass_types:
            values = {field.name: namespace[field.name] for field in dataclasses.fields(cls) if field.init}
            values.update({key: value for key, value in verbatim.items() if key in values})
            missing = [
                field.name
                for field in dataclasses.fields(cls)
                if field.init
                and values[field.name] is None
                and field.default is dataclasses.MISSING
                and field.default_factory is dataclasses.MISSING
            ]
            if missing:
                raise ValueError(f"{', '.join(missing)} must be given, as a flag or in the file of --config")
            # Access tokens are no settings of the experiment and must not end up in files that people share.
            self.resolved.update({key: _plain(value) for key, value in values.items() if not key.endswith("_token")})
            instances.append(cls(**values))
        return tuple(instances)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Save the resolved settings as YAML, so that `--config` on that file repeats the run.

        Args:
            path (`str`): destination; written whole or not at all.

        Returns:
            `Path`: the destination.
        """
        return write_text(path, dump_config(self.resolved))

    def save_beside(self, output_dir: str | os.PathLike[str], write: bool = True) -> None:
        """Save the resolved settings as `config.yaml` of a run, and refuse to mix two runs in one folder.

        Args:
            output_dir (`str`): folder of the run.
            write (`bool`): False only compares; for all processes but the first.

        Raises:
            ValueError: when the folder holds a run with other settings; the message names them.
        """
        saved = Path(output_dir) / "config.yaml"
        if saved.is_file():
            before = load_config(saved)
            keys = before.keys() | self.resolved.keys()
            changed = sorted(key for key in keys if before.get(key) != self.resolved.get(key))
            if changed:
                raise ValueError(f"{output_dir} holds a run with other {', '.join(changed)}; choose another output_dir")
        elif write:
            self.save(saved)

    def error(self, message: str) -> Any:
        """Turn argparse's exit into an exception that carries the reason.

        Args:
            message (`str`): what argparse found wrong.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{message}; --help lists the settings")

    def _given_flags(self, flags: list[str]) -> tuple[dict[str, Any], list[str]]:
        """Settings that the command line itself names, and the flags it names that do not exist."""
        probe = argparse.ArgumentParser(add_help=False, allow_abbrev=False, argument_default=argparse.SUPPRESS)
        probe.error = self.error  # type: ignore[method-assign]
        for action in self._actions:
            if action.option_strings:
                nargs = (
                    0 if isinstance(action, (argparse._StoreTrueAction, argparse._StoreFalseAction)) else action.nargs
                )
                if nargs == 0:
                    probe.add_argument(*action.option_strings, dest=action.dest, action="store_true")
                else:
                    probe.add_argument(*action.option_strings, dest=action.dest, nargs=nargs)
        known, rest = probe.parse_known_args(flags)
        names = [text.split("=", 1)[0] for text in rest if text.startswith("--")]
        stray = [text for text in rest if not text.startswith("--")]
        if stray and not names:
            raise ValueError(f"{stray[0]!r} belongs to no flag; settings are given as --name value")
        return vars(known), names

    def _refuse_unknown(self, names: list[str], where: str, prefix: str = "") -> None:
        if not names:
            return
        lines = []
        for name in names:
            near = difflib.get_close_matches(name.replace("-", "_"), self.settings, n=3, cutoff=0.6)
            hint = (
                f"did you mean {' or '.join(prefix + match for match in near)}?"
                if near
                else "no setting has a similar name"
            )
            lines.append(f"unknown setting {prefix}{name} in {where}: {hint}")
        raise ValueError("; ".join(lines))

    def _print_teaching_help(self, everything: bool) -> None:
        hidden = []
        for action in self._actions:
            listed = action.dest in self._own_settings or action.dest in {"help", HELP_ALL.strip("-"), "config"}
            # `--no_x` doubles of boolean settings only lengthen the page.
            double = isinstance(action, argparse._StoreFalseAction) and action.dest in self.settings
            if double or not (listed or everything):
                hidden.append((action, action.help))
                action.help = argparse.SUPPRESS
        try:
            self.print_help()
        finally:
            for action, text in hidden:
                action.help = text


class _TeachingFormatter(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every flag, descriptions as written, and one spelling of every flag."""

    def __init__(self, prog: str):
        super().__init__(prog, max_help_position=36, width=118)

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        super().add_usage("%(prog)s [--config FILE] [--name value ...]", [], [], prefix)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        spelling = next((text for text in action.option_strings if text.startswith("--")), "")
        if action.nargs == 0:
            return spelling
        return f"{spelling} {self._format_args(action, self._get_default_metavar_for_optional(action).split('.')[-1])}"


def _as_flags(key: str, value: Any) -> list[str]:
    """The command-line spelling of one setting of a file."""
    if isinstance(value, dict):
        return [f"--{key}", json.dumps(value)]
    if isinstance(value, (list, tuple)):
        return [f"--{key}", *(_as_text(item) for item in value)]
    return [f"--{key}={_as_text(value)}"]


def _as_text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return repr(value) if isinstance(value, float) else str(value)


def _plain(value: Any) -> Any:
    """A value as YAML and JSON can hold it."""
    if isinstance(value, Enum):
        return value.value
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    return value


def dump_config(settings: dict[str, Any]) -> str:
    """Write settings as YAML that [`load_config`] reads back to equal values.

    Args:
        settings (`dict[str, Any]`): plain values.

    Returns:
        `str`: the YAML text.

    Example:
        >>> print(dump_config({"learning_rate": 1e-4, "split": "no", "name": "1e-4"}), end="")
        learning_rate: 0.0001
        split: no
        name: '1e-4'
    """
    return yaml.dump(
        _plain(settings), Dumper=_ConfigDumper, sort_keys=False, allow_unicode=True, default_flow_style=False, width=120
    )
