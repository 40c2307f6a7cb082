"""Submission files of the two Brain-to-Text benchmarks, checked before they are written."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from bit_speech.evaluation.error_rates import normalize_brain_to_text_25
from bit_speech.files import write_text

NUM_SENTENCES_24 = 1200
NUM_SENTENCES_25 = 1450


def write_submission_24(path: str | os.PathLike[str], sentences: Sequence[str]) -> Path:
    """Write the text file that EvalAI scores for Brain-to-Text '24.

    Args:
        path (`str`): destination, usually `.txt`.
        sentences (`list[str]`): one decoded sentence per held-out trial, sessions in date order, then order in the file
            (see [`submission_order`]); normalised to lower case without punctuation here.

    Returns:
        `Path`: the destination: exactly 1,200 lines of `a-z`, apostrophe, space and hyphen, no header.

    Raises:
        ValueError: if the number of sentences is wrong, or one is empty, has digits or is not a string.
    """
    lines = _checked(sentences, NUM_SENTENCES_24, "Brain-to-Text '24")
    return write_text(path, "\n".join(lines) + "\n")


def write_submission_25(path: str | os.PathLike[str], sentences: Sequence[str]) -> Path:
    """Write the CSV file that Kaggle scores for Brain-to-Text '25.

    Args:
        path (`str`): destination, usually `.csv`.
        sentences (`list[str]`): one decoded sentence per test trial, sessions in date order, then order in the file
            (see [`submission_order`]); normalised to lower case without punctuation here.

    Returns:
        `Path`: the destination: header `id,text`, then ids 0 to 1449, unquoted, Unix line ends.

    Raises:
        ValueError: if the number of sentences is wrong, or one is empty, has digits or is not a string.
    """
    lines = _checked(sentences, NUM_SENTENCES_25, "Brain-to-Text '25")
    return write_text(path, "id,text\n" + "".join(f"{index},{line}\n" for index, line in enumerate(lines)))


def read_submission_24(path: str | os.PathLike[str]) -> list[str]:
    """Read a Brain-to-Text '24 submission and refuse one that EvalAI would refuse or score wrongly.

    Args:
        path (`str`): a file such as [`write_submission_24`] writes.

    Returns:
        `list[str]`: its 1,200 sentences.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if the file has another form.
    """
    path = Path(path)
    lines = _read_lines(path)
    _check_lines(path, lines, NUM_SENTENCES_24, first_line=1)
    return lines


def read_submission_25(path: str | os.PathLike[str]) -> list[str]:
    """Read a Brain-to-Text '25 submission and refuse one that Kaggle would refuse or score wrongly.

    Args:
        path (`str`): a file such as [`write_submission_25`] writes.

    Returns:
        `list[str]`: its 1,450 sentences in the order of their ids.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: naming the line, if the file has another form.
    """
    path = Path(path)
    header, *rows = _read_lines(path) or [""]
    if header != "id,text":
        raise ValueError(f"line 1 of {path} is {header!r}; expected the header 'id,text'")
    sentences = []
    for number, row in enumerate(rows):
        index, comma, sentence = row.partition(",")
        if index != str(number) or not comma:
            raise ValueError(f"line {number + 2} of {path} is {row[:60]!r}; expected it to begin with '{number},'")
        sentences.append(sentence)
    _check_lines(path, sentences, NUM_SENTENCES_25, first_line=2)
    return sentences


def submission_order(
    session_ids: Sequence[str], block_indices: Sequence[int], trial_indices: Sequence[int]
) -> list[int]:
    """Sort trials into the order of the benchmarks' submissions.

    Args:
        session_ids (`list[str]`): such as `t15.2023.08.13`; the date makes them sort in time.
        block_indices (`list[int]`): block of every trial.
        trial_indices (`list[int]`): place of every trial in its session's file or block.

    Returns:
        `list[int]`: indices such that `[sentences[i] for i in order]` is ready to be written.

    Raises:
        ValueError: if lengths differ, a session has no date in its name, or two trials share session, block and trial
            index.

    Example:
        ```python
        >>> submission_order(["t15.2023.08.13", "t15.2023.08.11", "t15.2023.08.11"], [1, 2, 2], [0, 1, 0])
        [2, 1, 0]

        ```
    """
    if not len(session_ids) == len(block_indices) == len(trial_indices):
        raise ValueError(
            f"{len(session_ids)} sessions, {len(block_indices)} blocks and {len(trial_indices)} trial indices; "
            "give one of each per trial"
        )
    keys = []
    for session, block, trial in zip(session_ids, block_indices, trial_indices, strict=True):
        date = re.search(r"(\d{4})\.(\d{2})\.(\d{2})", session)
        if date is None:
            raise ValueError(f"session {session!r} has no date yyyy.mm.dd in its name, so its place in time is unknown")
        keys.append((date.group(0), session, int(block), int(trial)))
    order = sorted(range(len(keys)), key=keys.__getitem__)
    for first, second in zip(order, order[1:]):
        if keys[first] == keys[second]:
            raise ValueError(
                f"trials {first} and {second} share session, block and trial index {keys[first][1:]}; "
                "the order is not defined"
            )
    return order


def _checked(sentences: Sequence[str], expected: int, benchmark: str) -> list[str]:
    if isinstance(sentences, str) or len(sentences) != expected:
        raise ValueError(
            f"{benchmark} wants exactly {expected} sentences, got {len(sentences)}; decode every held-out trial once"
        )
    lines = []
    for index, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise ValueError(f"sentence {index} is {type(sentence).__name__}, not str: {sentence!r}")
        if re.search(r"\d", sentence):
            raise ValueError(f"sentence {index} holds digits, which scoring deletes: {sentence!r}; spell numbers out")
        line = normalize_brain_to_text_25(sentence)
        if not line:
            raise ValueError(
                f"sentence {index} is empty, and submission sites refuse or drop empty lines; "
                "put any frequent word there, which cannot cost more errors than nothing"
            )
        lines.append(line)
    return lines


def _read_lines(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no submission {path}")
    content = path.read_bytes()
    if not content.isascii():
        raise ValueError(f"{path} holds characters outside a-z, apostrophe, hyphen and space; write it with bit-speech")
    text = content.decode("ascii")
    if "\r" in text:
        raise ValueError(f"{path} has Windows line ends; write it with Unix ones")
    return text.removesuffix("\n").split("\n") if text else []


def _check_lines(path: Path, lines: list[str], expected: int, first_line: int) -> None:
    for number, line in enumerate(lines, start=first_line):
        if not re.search("[a-z]", line) or line != normalize_brain_to_text_25(line):
            raise ValueError(
                f"line {number} of {path} is {line[:60]!r}; expected lower-case words of a-z, apostrophe and hyphen "
                "with single spaces"
            )
    if len(lines) != expected:
        raise ValueError(f"{path} has {len(lines)} sentences; expected exactly {expected}")
