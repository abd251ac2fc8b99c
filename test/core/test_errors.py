"""Messages are one line that does not steer a terminal, whatever a file put into them."""

from __future__ import annotations

import copy
import errno

import pytest

from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.core.left_out import LeftOut


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\x1bb", "a\u2028b", "a\udcffb", "a\0b"])
def test_a_refusal_and_what_is_left_out_are_one_printable_line(text: str) -> None:
    refused = InvalidInput(f"mug.json: {text} is no name")
    assert str(refused) == "mug.json: a b is no name"
    assert str(copy.copy(refused)) == str(refused)
    assert str(DiskError(f"{text}: full", errno.ENOSPC)) == "a b: full"
    left_out = LeftOut()
    left_out.add("objects that are not listed", text)
    assert left_out.lines() == ["objects that are not listed: 1 (a b)"]


def test_a_message_in_any_language_stays_as_it_is() -> None:
    assert str(InvalidInput("/tmp/tasse à café/画像.jpg: kein Bild")).endswith(
        "tasse à café/画像.jpg: kein Bild"
    )
