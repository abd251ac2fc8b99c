"""A split has whole videos, is the same for the same names, and never takes all of a category."""

from __future__ import annotations

import pytest

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.exports.label_set import LabelScene, LabelSet
from uns_pose_ros.exports.splits import SplitConfig, split_scenes


def splits(counts: dict[str, int], config: SplitConfig) -> dict[str, list[str]]:
    scenes = [
        LabelScene(number, f"clip_{k:02d}", ())
        for number, count in enumerate(counts.values())
        for k in range(count)
    ]
    labels = split_scenes(LabelSet(tuple(counts), (), tuple(scenes)), config)
    listed: dict[str, list[str]] = {}
    for scene in labels.scenes:
        name = f"{labels.categories[scene.category]}/{scene.name}"
        listed.setdefault(scene.split, []).append(name)
    return listed


@pytest.mark.parametrize(
    ("count", "share", "val"),
    [
        (1, 0.2, 0),
        (2, 0.2, 1),
        (3, 0.2, 1),
        (10, 0.2, 2),
        (10, 0.0, 0),
        (2, 0.9, 1),
        (20, 0.25, 5),
    ],
)
def test_a_share_of_each_category_validates(count: int, share: float, val: int) -> None:
    listed = splits({"mug": count, "car": count}, SplitConfig(val_share=share))
    for category in ("mug", "car"):
        assert sum(name.startswith(category) for name in listed.get("val", [])) == val
    assert listed == splits({"mug": count, "car": count}, SplitConfig(val_share=share))


def test_another_video_changes_at_most_what_its_place_in_the_share_needs() -> None:
    before = splits({"mug": 10}, SplitConfig())["val"]
    after = splits({"mug": 11}, SplitConfig())["val"]
    assert len(set(before) & set(after)) >= 1


def test_patterns_name_videos_of_one_or_all_categories() -> None:
    config = SplitConfig(val="mug/clip_0[01]", test="clip_02")
    listed = splits({"mug": 3, "car": 3}, config)
    assert listed["val"] == ["mug/clip_00", "mug/clip_01"]
    assert listed["test"] == ["mug/clip_02", "car/clip_02"]
    assert listed["train"] == ["car/clip_00", "car/clip_01"]
    rest = splits({"mug": 3}, SplitConfig(test="clip_00", val_share=0.5))
    assert "mug/clip_00" not in rest["val"] and len(rest["val"]) == 1


def test_a_pattern_without_a_video_or_in_two_splits_is_an_error() -> None:
    with pytest.raises(InvalidInput, match="--val: no exported video is called 'clip_9'"):
        splits({"mug": 2}, SplitConfig(val="clip_9"))
    with pytest.raises(InvalidInput, match="--val and --test both name mug/clip_01"):
        splits({"mug": 2}, SplitConfig(val="clip_01", test="*"))
