"""What diagnostics count."""

from __future__ import annotations

import pytest

pytest.importorskip("rclpy")

from uns_pose_ros.nodes.diagnostics import NodeDiagnostics


def values(diagnostics: NodeDiagnostics) -> dict[str, int]:
    status = diagnostics.status("node", "cpu", {})
    return {
        item.key: int(item.value)
        for item in status.values
        if item.key.startswith(("dropped: ", "unusable: "))
    }


def test_unusable_images_are_counted_by_reason_and_errors_with_other_numbers_are_one() -> (
    None
):
    diagnostics = NodeDiagnostics()
    for size in (3, 4, 5):
        diagnostics.unusable(f"an image of {size} bytes is cut off")
    diagnostics.unusable("image encoding 'bayer_rggb12' is not supported")
    assert values(diagnostics) == {
        "dropped: unusable image or camera_info": 4,
        "unusable: an image of … bytes is cut off": 3,
        "unusable: image encoding 'bayer_rggb12' is not supported": 1,
    }


def test_reasons_that_never_repeat_do_not_fill_the_diagnostics() -> None:
    diagnostics = NodeDiagnostics()
    for number in range(1000):
        diagnostics.unusable(f"format 'x{number}' {'y' * 5000}")
    counts = values(diagnostics)
    assert len(counts) == 14 and counts["unusable: other reasons"] == 988
    assert max(len(key) for key in counts) < 250


def test_the_age_of_images_on_their_way_is_told_by_what_happens_to_them() -> None:
    diagnostics = NodeDiagnostics()
    for age in (0.01, 0.02, 0.9):
        diagnostics.aged("received", age)
    diagnostics.aged("begun", 0.25)
    status = diagnostics.status("node", "cpu", {})
    told = {item.key: item.value for item in status.values if item.key.startswith("age ")}
    assert told == {"age when received p50 (s)": "0.020", "age when begun p50 (s)": "0.250"}
