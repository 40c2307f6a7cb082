"""A MATLAB file says the same, whichever of its two formats it has."""

import doctest

import numpy as np
import pytest

from datasets_scripts import matlab_files
from datasets_scripts.matlab_files import flat, read_matlab, scalar, words

VERSIONS = ("v5", "v7.3")


@pytest.fixture(params=VERSIONS)
def path(request, tmp_path, matlab_file, matlab_cell):
    variables = {
        "matrix": np.arange(6.0).reshape(2, 3),
        "number": np.array([[20.0]]),
        "word": "ban",
        "cell": matlab_cell(["a", "bc", np.array([[1.0, 2.0]])], (1, 3)),
        "grid": matlab_cell([np.array([[float(i)]]) for i in range(6)], (3, 2)),
        "struct": {"monkey": "Han", "count": np.array([[3.0]]), "inner": {"deep": np.array([[7.0]])}},
    }
    return matlab_file(tmp_path / "a.mat", variables, request.param)


def test_numbers_text_cells_and_structs_are_read_alike(path):
    names = ("matrix", "number", "word", "cell", "grid", "struct", "struct.monkey", "struct.inner.deep")
    found = read_matlab(path, names)
    np.testing.assert_array_equal(found["matrix"], np.arange(6.0).reshape(2, 3))
    assert scalar(found["number"], "number") == 20 and found["word"] == "ban"
    assert found["cell"].shape == (1, 3) and found["cell"][0, 1] == "bc"
    np.testing.assert_array_equal(found["cell"][0, 2], [[1.0, 2.0]])
    assert found["grid"].shape == (3, 2)
    assert [float(one[0, 0]) for one in flat(found["grid"])] == [0, 1, 2, 3, 4, 5]
    assert found["struct.monkey"] == "Han" == found["struct"]["monkey"] and found["struct.inner.deep"] == 7


def test_what_is_missing_is_named_with_what_is_there(path):
    with pytest.raises(ValueError, match=r"it has no spikes, xds.meta; there are .*matrix.*word"):
        read_matlab(path, ("spikes", "xds.meta", "word"))
    with pytest.raises(ValueError, match=r"no struct.spikes; there are .*struct.count.*struct.monkey"):
        read_matlab(path, ("struct.spikes",))
    with pytest.raises(ValueError, match="no struct.count.more"):
        read_matlab(path, ("struct.count.more",))
    assert set(read_matlab(path, ("word",), optional=("spikes",))) == {"word"}


@pytest.mark.parametrize("version", VERSIONS)
def test_a_field_of_a_struct_array_is_a_list(tmp_path, matlab_file, version):
    one, two = [{"n": np.full((k, 2), float(k)), "who": "Han"} for k in (1, 2)]
    if version == "v5":
        array = np.zeros((1, 2), dtype=[("n", object), ("who", object)])
        array[0, 0], array[0, 1] = (one["n"], one["who"]), (two["n"], two["who"])
        path = matlab_file(tmp_path / "a.mat", {"td": array}, version)
    else:
        path = matlab_file(tmp_path / "a.mat", {"td": [one, two]}, version)
    found = read_matlab(path, ("td.n", "td.who"))
    assert [part.shape for part in found["td.n"]] == [(1, 2), (2, 2)] and found["td.who"] == ["Han", "Han"]


@pytest.mark.parametrize("version", VERSIONS)
def test_empty_cells_and_empty_text_are_empty(tmp_path, matlab_file, matlab_cell, version):
    values = {"cell": matlab_cell([np.zeros((0, 0)), "x", ""])}
    found = read_matlab(matlab_file(tmp_path / "a.mat", values, version), ("cell",))["cell"]
    assert flat(found[0, 0]).size == 0 and found[1, 0] == "x" and len(found[2, 0]) == 0


def test_a_file_that_is_no_matlab_file_is_refused(tmp_path):
    (tmp_path / "a.mat").write_bytes(b"<html>sign in</html>" * 20)
    with pytest.raises(ValueError, match="not a MATLAB file: download it again"):
        read_matlab(tmp_path / "a.mat", ("spikes",))


def test_texts_come_from_cells_of_cells_and_numbers_are_no_texts(matlab_cell):
    nested = matlab_cell([matlab_cell(["one "], (1, 1)), "two"])
    assert words(nested, "cues") == ["one", "two"] and words("alone", "cues") == ["alone"]
    with pytest.raises(ValueError, match="cues holds ndarray; expected text"):
        words(matlab_cell([np.zeros((2, 2))]), "cues")
    with pytest.raises(ValueError, match="binSize is .* expected one number"):
        scalar(np.zeros((2, 1)), "binSize")


def test_the_examples_in_the_documentation_hold():
    assert doctest.testmod(matlab_files).failed == 0 and doctest.testmod(matlab_files).attempted > 0
