"""Pickles from strangers give plain values, or are refused; nothing in them runs."""

from __future__ import annotations

import os
import pickle
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.datasets.restricted_pickle import load_restricted, read_npz, read_pickle

VALUES = {
    "class": "car",
    "px": 3.5,
    "count": np.int32(7),
    "distance": np.float64(2.25),
    "flags": (True, None, [1, -(2**40)]),
    "rows": np.arange(6, dtype=np.float32).reshape(2, 3),
    "columns": np.asfortranarray(np.arange(6).reshape(2, 3)),
    "big endian": np.arange(3, dtype=">i2"),
    "texts": np.array(["a", "bcd"]),
    "mask": np.array([True, False]),
    "nothing": np.zeros((0, 4)),
}


def assert_equal(a: Any, b: Any) -> None:
    assert type(a) is type(b), (a, b)
    if isinstance(a, dict):
        assert a.keys() == b.keys()
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, np.ndarray):
        assert a.dtype.kind == b.dtype.kind
        np.testing.assert_array_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("protocol", range(6))
def test_what_is_pickled_comes_back_plain(protocol: int) -> None:
    expected = VALUES | {"count": 7, "distance": 2.25}
    assert_equal(load_restricted(pickle.dumps(VALUES, protocol), "a"), expected)


def test_an_array_of_dicts_comes_back_as_a_list(tmp_path: Path) -> None:
    items = np.empty(2, object)
    items[:] = [VALUES, {"x": 1}]
    np.savez(tmp_path / "a.npz", annotations=items, plain=np.arange(3))
    read = read_npz(tmp_path / "a.npz", "annotations")
    assert isinstance(read, list) and len(read) == 2
    assert_equal(read[0], VALUES | {"count": 7, "distance": 2.25})
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", "plain"), np.arange(3))


class Runs:
    """Unpickles by a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", range(6))
def test_a_malicious_pickle_runs_nothing(tmp_path: Path, protocol: int) -> None:
    mark = tmp_path / "mark"
    for call in (
        Runs(os.system, f"touch {mark}"),
        Runs(eval, f"open({str(mark)!r}, 'w')"),
        Runs(open, str(mark), "w"),
        Runs(Path, "/"),
        Runs(getattr, "a", "join"),
    ):
        data = pickle.dumps({"x": [1.0, call]}, protocol)
        with pytest.raises(InvalidInput, match=r"a\.pkl: not read \(it names .*is valid$"):
            load_restricted(data, "a.pkl")
    assert not mark.exists()


@pytest.mark.parametrize(
    "value", [{1, 2}, b"bytes", 3j, OrderedDict(a=1), np.datetime64("2020-01-01"), range(3)]
)
def test_other_values_are_refused(value: object) -> None:
    with pytest.raises(InvalidInput, match="not read"):
        load_restricted(pickle.dumps([value]), "a")


def test_a_value_that_holds_itself_is_refused() -> None:
    loop: list[Any] = []
    loop.append(loop)
    with pytest.raises(InvalidInput, match="too deep"):
        load_restricted(pickle.dumps(loop), "a")


def test_a_value_that_is_repeated_a_billion_times_is_refused() -> None:
    value: Any = [0.0] * 10
    for _ in range(9):
        value = [value] * 10
    data = pickle.dumps(value)
    assert len(data) < 1000
    with pytest.raises(InvalidInput, match="too many values"):
        load_restricted(data, "a")


class Claims:
    """Unpickles as an array of a shape, a dtype and bytes, whether they fit or not."""

    def __init__(self, shape: Any, data: bytes, code: str) -> None:
        self.shape, self.data, self.code = shape, data, code

    def __reduce__(self) -> Any:
        state = 1, self.shape, Runs(np.dtype, self.code), False, self.data
        return np.zeros(1).__reduce__()[0], (np.ndarray, (0,), b"b"), state


@pytest.mark.parametrize(
    ("shape", "data", "code"),
    [
        ((2**40,), bytes(8), "f8"),
        ((3,), bytes(8), "f8"),
        ((-1,), bytes(8), "f8"),
        ((1,), bytes(8), "V8"),
        ((1,), bytes(8), "no"),
        ("ab", bytes(8), "f8"),
    ],
)
def test_an_array_that_does_not_fit_its_data_is_refused(
    shape: Any, data: bytes, code: str
) -> None:
    fits = pickle.dumps(Claims((1,), bytes(8), "f8"))
    assert load_restricted(fits, "a").tolist() == [0.0]
    with pytest.raises(InvalidInput, match="not read"):
        load_restricted(pickle.dumps(Claims(shape, data, code)), "a")


def test_a_broken_file_is_refused_by_one_line(tmp_path: Path) -> None:
    whole = pickle.dumps(VALUES)
    for data in (b"", whole[:-20], b"text", whole.replace(b"numpy", b"nompy")):
        (tmp_path / "a.pkl").write_bytes(data)
        with pytest.raises(InvalidInput, match=r"a\.pkl: not read") as error:
            read_pickle(tmp_path / "a.pkl")
        assert "\n" not in str(error.value)
    np.savez(tmp_path / "a.npz", other=np.arange(3))
    with pytest.raises(InvalidInput, match="no array 'annotations' can be read"):
        read_npz(tmp_path / "a.npz", "annotations")
    (tmp_path / "a.npz").write_bytes(b"PK\3\4")
    with pytest.raises(InvalidInput, match=r"a\.npz: no array 'other' can be read"):
        read_npz(tmp_path / "a.npz", "other")
