"""MATLAB files as scipy writes them, read without scipy."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from mini_views import matlab_objects
from uns_pose_ros.datasets.matlab_file import parse_matlab


def written(value: Any, packed: bool = False) -> bytes:
    file = BytesIO()
    savemat(file, {"other": 1.0, "record": value}, do_compression=packed)
    return file.getvalue()


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3.5, 3.5),
        (np.uint8(7), 7.0),
        (np.float32(0.25), 0.25),
        (np.array([[1, 2, 3, 4]]), [1.0, 2, 3, 4]),
        (np.array([[1.5, 2], [3, 4]]), [1.5, 3, 2, 4]),
        (np.zeros((0, 0)), []),
        (True, 1.0),
        ("a long text, ä", "a long text, ä"),
        ("", ""),
        ({"a": 1.0, "long_name": "b"}, {"a": 1.0, "long_name": "b"}),
        ({"in": {"side": {"it": [1.0, 2]}}}, {"in": {"side": {"it": [1.0, 2]}}}),
        (
            matlab_objects([{"a": 1.0}, {"b": "x"}]),
            [{"a": 1.0, "b": []}, {"a": [], "b": "x"}],
        ),
        (matlab_objects([{"a": 1.0}]), {"a": 1.0}),
        (np.array([1.0, "b"], object), [1.0, "b"]),
    ],
)
def test_what_scipy_writes_comes_back(value: Any, expected: Any, packed: bool) -> None:
    assert parse_matlab(written(value, packed), "record") == expected


def test_a_variable_that_is_not_there_and_a_file_that_ends_early_are_said() -> None:
    data = written({"a": [1.0, 2, 3]})
    with pytest.raises(KeyError):
        parse_matlab(data, "missing")
    for length in range(0, len(data) - 1, 7):
        with pytest.raises((ValueError, KeyError, StopIteration)):
            parse_matlab(data[:length], "record")
