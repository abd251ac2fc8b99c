"""An export says of every image what is true, in the units and axes of its format.

`check_labels` compares what a reader of the format gives with the truth; the tests at the end show
that it refuses meters in place of millimeters, mirrored axes, and a swapped width and height.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from label_checks import check_image, check_labels, export, quiet
from label_readers import (
    iterate_objects,
    read_labels,
    source_of,
)
from labeled_category import (
    TrueVideo,
    write_labeled_category,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.exports import video_labels
from uns_pose_ros.exports.formats import (
    bop_format,
    coco_format,
    foundationpose_format,
    nerfstudio_format,
    yolo_pose_format,
)
from uns_pose_ros.exports.label_export import FORMATS, ExportConfig, export_labels
from uns_pose_ros.exports.label_set import ObjectInstance
from uns_pose_ros.exports.label_views import ObjectView


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest, category: tuple[Path, dict[str, TrueVideo]]
) -> Path:
    return export(category[0], request.param)


def test_what_a_reader_of_the_format_reads_is_the_truth(
    exported: Path, category: tuple[Path, dict[str, TrueVideo]]
) -> None:
    check_labels(exported, *category)


def test_the_images_of_a_video_are_in_one_split(exported: Path) -> None:
    splits: dict[str, set[str]] = {}
    for split, _, video, _ in source_of(exported).values():
        splits.setdefault(video, set()).add(split)
    assert all(len(found) == 1 for found in splits.values())
    assert sorted(str(*found) for found in splits.values()) == ["train", "train", "val"]
    scenes = json.loads((exported / "export.json").read_text())["scenes"]
    assert {scene["name"]: {scene["split"]} for scene in scenes} == splits


def test_nothing_of_the_work_stays(exported: Path) -> None:
    assert not [path for path in exported.rglob("*") if path.name.startswith(".")]
    assert not [path for path in exported.parent.iterdir() if path.name.startswith(".")]


def test_several_categories_become_one_set(tmp_path: Path) -> None:
    truths = write_labeled_category(tmp_path / "truck", {"clip_01": 1, "clip_02": 2})
    write_labeled_category(tmp_path / "lorry", {"clip_01": 3}, views=3)
    for kind in FORMATS:
        out = tmp_path / f"both-{kind}"
        categories = [tmp_path / "lorry", tmp_path / "truck"]
        export_labels(categories, out, ExportConfig(kind), quiet)
        things = [(thing, image) for image, thing in iterate_objects(read_labels(out))]
        assert sorted(thing.category for thing, _ in things) == 3 * ["lorry"] + 8 * [
            "truck"
        ]
        sources = source_of(out)
        for thing, image in things:
            _, name, video, frame = sources[image.path.relative_to(out).as_posix()]
            assert thing.category == name
            if name == "truck":
                check_image(image, tmp_path / "truck" / video, frame, truths[video], True)
    with pytest.raises(InvalidInput, match="truck twice"):
        export_labels(
            [tmp_path / "truck", tmp_path / "truck"],
            tmp_path / "x",
            ExportConfig("bop"),
            quiet,
        )


def test_unknown_scale_is_refused_where_a_format_has_a_unit_and_marked_elsewhere(
    tmp_path: Path,
) -> None:
    truths = write_labeled_category(tmp_path / "truck", metric=False)
    for kind in ("bop", "foundationpose"):
        with pytest.raises(InvalidInput, match="the scale of 3 of 3 objects is not known"):
            export(tmp_path / "truck", kind)
        assert not (tmp_path / f"truck-{kind}").exists()
        out = export(tmp_path / "truck", kind, unknown_scale="mark")
        check_labels(out, tmp_path / "truck", truths, metric=False)
    for kind in ("coco", "nerfstudio", "yolo-pose"):
        out = export(tmp_path / "truck", kind)
        check_labels(out, tmp_path / "truck", truths, metric=False)
        record = json.loads((out / "export.json").read_text())
        assert not any(entry["metric"] for entry in record["objects"])
        assert "metric: false in export.json" in record["remarks"][0]


def swap_sides(view: ObjectView) -> ObjectView:
    """The view with width and height of its camera swapped."""
    camera = Camera(view.camera.matrix, view.camera.height, view.camera.width)
    return replace(view, camera=camera)


def mirror(points: Any) -> Any:
    """Points or poses whose x points to the other side."""
    mirrored = np.array(points)
    mirrored[..., 0] *= -1
    return mirrored


true_line, true_lengths = yolo_pose_format.label_line, coco_format.run_lengths
true_pose, true_points = video_labels.cam_from_model, ObjectInstance.keypoints
true_matrix, true_obj = foundationpose_format.write_matrix, foundationpose_format._write_obj
# format, and what stands in for a part of its writer
MUTANTS: dict[str, tuple[str, Any, str, Any]] = {
    "m for mm": ("bop", bop_format, "_MM", 1.0),
    "OpenCV's camera axes": ("nerfstudio", nerfstudio_format, "_GL_FROM_CV", np.eye(4)),
    "mirrored camera": (
        "nerfstudio",
        nerfstudio_format,
        "_GL_FROM_CV",
        np.diag([-1.0, -1, -1, 1]),
    ),
    "mask by rows": (
        "coco",
        coco_format,
        "run_lengths",
        lambda mask: true_lengths(mask.reshape(mask.shape[::-1])),
    ),
    "mask without its first pixel": (
        "coco",
        coco_format,
        "run_lengths",
        lambda mask: true_lengths(np.roll(mask, 1, 0)),
    ),
    "swapped width": (
        "yolo-pose",
        yolo_pose_format,
        "label_line",
        lambda view, kind: true_line(swap_sides(view), kind),
    ),
    "object in camera": (
        "foundationpose",
        foundationpose_format,
        "write_matrix",
        lambda path, matrix: true_matrix(path, np.linalg.inv(matrix)),
    ),
    "model in mm": (
        "foundationpose",
        foundationpose_format,
        "_write_obj",
        lambda path, thing: true_obj(path, replace(thing, vertices=1000 * thing.vertices)),
    ),
    **{
        f"mirrored model axis, {kind}": (
            kind,
            video_labels,
            "cam_from_model",
            lambda *parts: mirror(true_pose(*parts)),
        )
        for kind in FORMATS
    },
    **{
        f"canonical units for m, {kind}": (
            kind,
            video_labels,
            "cam_from_model",
            lambda cam, canon, metric: true_pose(cam, canon, False),
        )
        for kind in FORMATS
    },
    **{
        f"other order of corners, {kind}": (
            kind,
            ObjectInstance,
            "keypoints",
            lambda thing, name: true_points(thing, name)[::-1],
        )
        for kind in ("coco", "yolo-pose")
    },
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_wrong_unit_a_mirrored_axis_and_a_swapped_width_fail(
    category: tuple[Path, dict[str, TrueVideo]],
    monkeypatch: pytest.MonkeyPatch,
    mutant: str,
) -> None:
    kind, place, name, stand_in = MUTANTS[mutant]
    monkeypatch.setattr(place, name, stand_in)
    with pytest.raises((AssertionError, ValueError)):
        check_labels(export(category[0], kind), *category)
