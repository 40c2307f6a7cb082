"""Submission files have exactly the benchmarks' form, or are not written at all."""

import csv
import re

import pytest

from bit_speech.evaluation import (
    read_submission_24,
    read_submission_25,
    submission_order,
    write_submission_24,
    write_submission_25,
)


def test_a_24_submission_is_1200_lower_case_lines(tmp_path):
    path = write_submission_24(tmp_path / "submission.txt", ["It's a well-known Fact."] * 1200)
    content = path.read_bytes().decode("ascii")
    assert content.endswith("\n") and "\r" not in content
    lines = content[:-1].split("\n")
    assert len(lines) == 1200
    assert all(re.fullmatch(r"[a-z' -]+", line) for line in lines)


def test_a_25_submission_is_a_csv_with_ids_0_to_1449(tmp_path):
    path = write_submission_25(tmp_path / "submission.csv", [f"Yes, {'no ' * (i % 3)}please." for i in range(1450)])
    content = path.read_bytes().decode("ascii")
    assert content.startswith("id,text\n0,yes please\n1,yes no please\n") and '"' not in content and "\r" not in content
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [int(row["id"]) for row in rows] == list(range(1450))


@pytest.mark.parametrize(("write", "right"), [(write_submission_24, 1200), (write_submission_25, 1450)])
@pytest.mark.parametrize("off", [-1, 1])
def test_a_wrong_count_is_refused_and_nothing_is_written(tmp_path, write, right, off):
    with pytest.raises(ValueError, match=f"exactly {right} sentences, got {right + off}"):
        write(tmp_path / "file", ["a"] * (right + off))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("bad", "message"),
    [("", "sentence 7 is empty"), ("?!", "sentence 7 is empty"), ("room 101", "digits"), (None, "NoneType")],
)
def test_a_bad_sentence_is_named(tmp_path, bad, message):
    sentences = ["fine"] * 1200
    sentences[7] = bad
    with pytest.raises(ValueError, match=message):
        write_submission_24(tmp_path / "file", sentences)


def test_the_order_is_by_date_then_block_then_trial():
    sessions = ["t15.2024.02.25", "t15.2023.12.29", "t15.2023.12.29", "t15.2023.12.29"]
    assert submission_order(sessions, [1, 10, 9, 9], [0, 0, 11, 2]) == [3, 2, 1, 0]


def test_an_ambiguous_order_is_refused():
    with pytest.raises(ValueError, match="share session"):
        submission_order(["t15.2023.12.29"] * 2, [1, 1], [0, 0])
    with pytest.raises(ValueError, match="no date"):
        submission_order(["monday"], [1], [0])
    with pytest.raises(ValueError, match="2 sessions, 1 blocks"):
        submission_order(["t15.2023.12.29"] * 2, [1], [0, 1])


def test_what_was_written_is_read_back(tmp_path):
    sentences = [f"it's {'so ' * (i % 4)}well-known" for i in range(1450)]
    assert read_submission_25(write_submission_25(tmp_path / "a.csv", sentences)) == sentences
    assert read_submission_24(write_submission_24(tmp_path / "a.txt", sentences[:1200])) == sentences[:1200]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("id,text", "id,sentence"), "line 1 .*header"),
        (lambda text: text.replace("\n7,yes", "\n8,yes"), "line 9 .*begin with '7,'"),
        (lambda text: text.replace("\n7,yes", '\n7,"yes"'), "line 9 .*lower-case"),
        (lambda text: text.replace("\n7,yes", "\n7,Yes"), "line 9 .*lower-case"),
        (lambda text: text.replace("\n7,yes", "\n7,"), "line 9 .*lower-case"),
        (lambda text: text.replace("\n7,yes", "\n7,yes  no"), "line 9 .*single spaces"),
        (lambda text: text.replace("\n", "\r\n"), "Windows"),
        (lambda text: text.replace("\n7,yes", "\n7,caf\u00e9"), "outside a-z"),
        (lambda text: text.replace("\n1449,yes", ""), "has 1449 sentences"),
        (lambda text: "", "header"),
    ],
)
def test_a_file_of_another_form_is_refused_with_its_line(tmp_path, change, message):
    path = write_submission_25(tmp_path / "a.csv", ["yes"] * 1450)
    path.write_bytes(change(path.read_text()).encode())
    with pytest.raises(ValueError, match=message):
        read_submission_25(path)


def test_a_24_file_of_another_form_is_refused(tmp_path):
    path = tmp_path / "a.txt"
    with pytest.raises(FileNotFoundError):
        read_submission_24(path)
    path.write_text("yes\n" * 1199)
    with pytest.raises(ValueError, match="1199 sentences"):
        read_submission_24(path)
    path.write_text("yes\n" * 1199 + "\n")
    with pytest.raises(ValueError, match="line 1200"):
        read_submission_24(path)
