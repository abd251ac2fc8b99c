"""How `uns-pose doctor` lists what is wrong with videos."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from uns_pose_ros.cli import main
from uns_pose_ros.reporting import capture_check
from uns_pose_ros.reporting.capture_check import Checkup, Finding

FOCAL = Finding(
    False, "the focal length is guessed; " + "this is long " * 10, "calibrate it"
)
BLURRED = Finding(True, "9 of 12 images are blurred: a.jpg, b.jpg", "film again: slower")


def checkup(name: str, *findings: Finding, images: int = 120) -> Checkup:
    return Checkup(name, images, images, 0, images, 360.0, 0.97, findings)


def listed(
    found: Sequence[Checkup],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> list[str]:
    monkeypatch.setattr(capture_check, "check_category", lambda *_, **__: list(found))
    main.main(["doctor", str(Path("mug"))])
    return capsys.readouterr().out.splitlines()


def test_every_line_fits_100_columns_and_nothing_is_lost(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [
        checkup("clip_01", FOCAL),
        checkup("clip_02", BLURRED, FOCAL),
        checkup("clip_03"),
    ]
    lines = listed(found, monkeypatch, capsys)
    assert max(map(len, lines)) <= 100
    assert [line.split()[-1] for line in lines[1:4]] == ["look", "mend", "ok"]
    text = " ".join(" ".join(lines).split())
    for finding in (FOCAL, BLURRED):
        assert finding.what.strip() in text and f"→ {finding.remedy}" in text
    assert text.index(BLURRED.what) < text.index(
        FOCAL.what[:20]
    )  # what must be mended first


def test_a_finding_of_all_videos_stands_once_with_what_differs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    details = ("612 px", "640 px", "655 px")
    found = [
        checkup(f"clip_0{k}", Finding(False, "guessed", "calibrate it", detail))
        for k, detail in enumerate(details, 1)
    ]
    few = checkup("(all)", Finding(True, "3 videos, 7 are needed", "film more"), images=0)
    lines = listed([*found, few], monkeypatch, capsys)
    assert lines[5:] == [
        "mend  (all)",
        "      3 videos, 7 are needed",
        "      → film more",
        "look  all 3 videos: clip_01 (612 px), clip_02 (640 px), clip_03 (655 px)",
        "      guessed",
        "      → calibrate it",
    ]


def test_a_finding_of_some_videos_names_them(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = [checkup("clip_01", BLURRED), checkup("clip_02"), checkup("clip_03", BLURRED)]
    lines = listed(found, monkeypatch, capsys)
    assert lines[4] == "mend  clip_01, clip_03"
