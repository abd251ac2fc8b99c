"""A video in doubt is told what its masks and poses speak for, and never only to mend masks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from synthetic import write_video
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reporting.doubt_causes import (
    PoseFacts,
    find_causes,
    pose_contradictions,
    pose_facts,
)

GOOD = PoseFacts(40, 40, given=False, error_px=0.4, gap_deg=20.0)
COMMAND = "uns-pose mask mug/clip_02 --points 1 2"


def causes(
    facts: PoseFacts, overlap: float | None = 0.93, command: str = "", videos: int = 3
) -> list[str]:
    return [str(cause) for cause in find_causes(facts, overlap, command, videos)]


def test_good_masks_and_poses_speak_for_an_unsure_alignment() -> None:
    [said] = causes(GOOD)
    assert said == (
        "its masks and poses look right (40 of 40 images are used, masks overlap the hull of the "
        "others by 0.93, reprojection error 0.40 px); the alignment itself is unsure: film more "
        "instances (3 there, 7 or more work well), or another one in its place"
    )
    [said] = causes(GOOD, videos=9)
    assert said.endswith(
        "the instance may be unlike the others: leave it out, or film another one"
    )


def test_a_few_bad_masks_without_a_remedy_do_not_speak_against_a_sure_alignment() -> None:
    [said] = map(str, find_causes(GOOD, 0.94, "", 3, sure=True))
    assert said == (
        "the other masks, the poses and the alignment look right: nothing has to be done"
    )
    [said] = map(str, find_causes(GOOD, 0.94, COMMAND, 3, sure=True))
    assert said == f"if its masks are wrong: {COMMAND}"


def test_bad_masks_speak_for_the_command_that_mends_them() -> None:
    assert causes(GOOD, command=COMMAND) == [f"if its masks are wrong: {COMMAND}"]


@pytest.mark.parametrize(
    ("facts", "overlap", "reason"),
    [
        (GOOD, 0.61, "most masks overlap the hull of the others by 0.61, 0.8 is usual"),
        (GOOD, None, "its masks have no common place in space"),
        (
            replace(GOOD, error_px=1.02),
            0.93,
            "reprojection error 1.02 px, below 0.9 is usual",
        ),
        (replace(GOOD, usable=26), 0.93, "26 of 40 images have a pose and a mask"),
        (replace(GOOD, doubt="two ways disagree"), 0.93, "two ways disagree"),
    ],
)
def test_poses_in_doubt_speak_for_another_film(
    facts: PoseFacts, overlap: float | None, reason: str
) -> None:
    [said] = causes(facts, overlap)
    assert said.startswith(
        f"its camera poses are doubtful ({reason}): film it again: slower"
    )
    both = causes(facts, overlap, COMMAND)
    assert [line.split(" ")[1] for line in both] == ["camera", "its"], "poses come first"
    [said] = causes(replace(facts, given=True), overlap)
    assert "look whether sparse/ belongs to these images" in said and "film" not in said


def test_a_few_images_and_a_part_of_the_orbit_are_named() -> None:
    few = replace(GOOD, images=6, usable=6)
    assert causes(few) == [
        "only 6 of its images can be used, 8 are needed: film it longer, or import more frames "
        "(--frames)"
    ]
    assert causes(replace(GOOD, gap_deg=140.2)) == [
        "140 degrees around it are not seen: film it all around"
    ]
    two = replace(GOOD, images=2, usable=2, gap_deg=None)
    assert len(causes(two, None)) == 1, "two masks carve nothing, which is no contradiction"


def test_only_contradictions_stop_before_the_training() -> None:
    assert pose_contradictions(GOOD, 0.93) == []
    assert pose_contradictions(replace(GOOD, usable=26, error_px=1.5), 0.93) == []
    assert pose_contradictions(GOOD, 0.7) and pose_contradictions(GOOD, None)
    assert pose_contradictions(replace(GOOD, doubt="two ways disagree"), 0.93)


def test_facts_of_computed_poses_are_in_the_record_and_given_poses_have_none(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "mug" / "clip_01"
    write_video(folder, seed=1, views=8, size=64)
    report = {"reprojection_error_px": 0.5, "doubt": "two ways disagree"}
    (folder / "video.json").write_text(json.dumps({"poses": report}))
    frames = load_video(folder).frames
    given = pose_facts(folder, frames)
    assert given.given and given.error_px is None and given.doubt == ""
    assert (given.images, given.usable) == (8, 8)
    (folder / "sparse" / "made.json").write_text("{}")
    computed = pose_facts(folder, frames)
    assert not computed.given
    assert (computed.error_px, computed.doubt) == (0.5, "two ways disagree")
    assert computed.gap_deg is not None and computed.gap_deg < 60
