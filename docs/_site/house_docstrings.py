"""Reads the house's docstrings as griffe's dialect of the same style."""

from __future__ import annotations

import re
from typing import Any

import griffe

EXAMPLE = re.compile(r"^Example:\n(.*?)(?=^\S|\Z)", re.MULTILINE | re.DOTALL)
FENCE = re.compile(r"^ *```(?:python|py)?\n?", re.MULTILINE)
TYPE = re.compile(r"^( {4}\**[\w.]+ )\((`.*?)\):(?= )", re.MULTILINE)
LINK = re.compile(r"\[(`[^`\]]+`)\](?![\[(])")


def as_doctest(section: re.Match[str]) -> str:
    """Name a section of examples as griffe does; a doctest needs no fence."""
    body = section.group(1)
    return "Examples:\n" + (FENCE.sub("", body) if ">>>" in body else body)


def as_type(entry: re.Match[str]) -> str:
    """Take the backticks off a type; what is optional, and its default, griffe sees in the signature."""
    kind = entry.group(2).split(", *optional*")[0].replace("`", "")
    return f"{entry.group(1)}({kind}):"


class HouseDocstrings(griffe.Extension):
    """Rewrites every docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Name the examples, and take names in brackets for what they are: names."""
        if obj.docstring is not None:
            obj.docstring.value = EXAMPLE.sub(as_doctest, TYPE.sub(as_type, LINK.sub(r"\1", obj.docstring.value)))
