"""An export says of every image what is true, in the units and axes of its format.

`check_labels` compares what a reader of the format gives with the truth; the tests at the end show
that it refuses meters in place of millimeters, mirrored axes, and a swapped width and height.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from label_readers import (
    ReadImage,
    iterate_objects,
    overlap,
    paint_model,
    read_labels,
    source_of,
)
from labeled_category import (
    CAMERA,
    TrueVideo,
    save_true_alignment,
    write_labeled_category,
)
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.ray_casting import cast_rays
from uns_pose_ros.core.types import Camera, Symmetry
from uns_pose_ros.exports import (
    bop_format,
    coco_format,
    foundationpose_format,
    nerfstudio_format,
    video_labels,
    yolo_pose_format,
)
from uns_pose_ros.exports.bag_labels import BagSelection
from uns_pose_ros.exports.label_export import FORMATS, ExportConfig, export_labels
from uns_pose_ros.exports.label_set import ObjectInstance
from uns_pose_ros.exports.label_views import ObjectView
from uns_pose_ros.exports.splits import SplitConfig
from uns_pose_ros.exports.video_labels import VideoSelection
from uns_pose_ros.io.depth_images import read_depth
from uns_pose_ros.io.images import read_image, read_mask


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def export(category: Path, kind: str, **settings: Any) -> Path:
    out = category.with_name(f"{category.name}-{kind}")
    export_labels([category], out, ExportConfig(kind, **settings), quiet)
    return out


@pytest.fixture(scope="module")
def category(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, TrueVideo]]:
    folder = tmp_path_factory.mktemp("set") / "truck"
    return folder, write_labeled_category(folder)


@pytest.fixture(scope="module", params=FORMATS)
def exported(
    request: pytest.FixtureRequest, category: tuple[Path, dict[str, TrueVideo]]
) -> Path:
    return export(category[0], request.param)


def check_labels(
    folder: Path, category: Path, truths: dict[str, TrueVideo], metric: bool = True
) -> None:
    """Compare every file of an export with the truth; AssertionError where they differ."""
    images = read_labels(folder)
    sources = source_of(folder)
    assert (
        len(images) == len(sources) == sum(len(t.cam_from_canon) for t in truths.values())
    )
    for image in images:
        split, name, video, frame = sources[image.path.relative_to(folder).as_posix()]
        assert name == "truck" and image.split in ("", split)
        check_image(image, category / video, frame, truths[video], metric)


def check_image(
    image: ReadImage, video: Path, frame: str, truth: TrueVideo, metric: bool
) -> None:
    source = read_image(video / "images" / frame).numpy()
    assert (image.pixels == source).all()
    assert image.size in (None, (CAMERA.width, CAMERA.height))
    if image.matrix is not None:
        np.testing.assert_allclose(image.matrix, CAMERA.matrix.numpy(), atol=1e-6)
    unit = truth.unit if metric else 1.0
    mask = read_mask(video / "masks" / f"{frame}.png").numpy()
    (thing,) = image.objects
    assert thing.category == "truck"
    pose = truth.cam_from_canon[frame]
    if thing.rotation is not None and thing.translation is not None:
        np.testing.assert_allclose(thing.rotation, pose[:3, :3], atol=2e-7)
        np.testing.assert_allclose(thing.translation, unit * pose[:3, 3], atol=2e-6)
    if thing.mask is not None:
        assert (thing.mask == mask).all()
    if thing.box is not None:
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        np.testing.assert_allclose(thing.box, box, atol=1e-4)
    if thing.keypoints is not None:
        check_keypoints(thing.keypoints, truth, pose)
    if thing.vertices is not None:
        np.testing.assert_allclose(np.ptp(thing.vertices, 0), unit * truth.size, atol=1e-5)
        assert overlap(paint_model(image, thing), mask) > 0.9


def check_keypoints(keypoints: np.ndarray, truth: TrueVideo, pose: np.ndarray) -> None:
    low = np.min([box[0] for box in truth.boxes], axis=0)
    high = np.max([box[1] for box in truth.boxes], axis=0)
    corners = np.array([np.where([c & 1, c & 2, c & 4], high, low) for c in range(8)])
    uvw = (corners @ pose[:3, :3].T + pose[:3, 3]) @ CAMERA.matrix.numpy().T
    pixels = uvw[:, :2] / uvw[:, 2:]
    size = [CAMERA.width, CAMERA.height]
    inside = ((pixels >= -0.5) & (pixels <= np.array(size) - 0.5)).all(1)
    assert ((keypoints[:, 2] > 0) == inside).all()
    assert (keypoints[~inside] == 0).all()
    np.testing.assert_allclose(keypoints[inside, :2], pixels[inside], atol=6e-4)


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


def test_bop_has_what_its_tools_read(category: tuple[Path, dict[str, TrueVideo]]) -> None:
    folder, truths = category
    out = export(folder, "bop")
    infos = json.loads((out / "models" / "models_info.json").read_text())
    truth = truths["clip_01"]
    sizes = [infos["1"][f"size_{axis}"] for axis in "xyz"]
    np.testing.assert_allclose(sizes, 1000 * truth.unit * truth.size, rtol=1e-5)
    assert max(sizes) < infos["1"]["diameter"] < np.linalg.norm(sizes)
    for image, thing in iterate_objects(read_labels(out)):
        (info,) = image.extra["infos"]
        assert thing.mask is not None and thing.silhouette is not None
        assert not (thing.mask & ~thing.silhouette).any()
        assert info["px_count_visib"] == thing.mask.sum()
        assert info["px_count_all"] >= thing.silhouette.sum()
        assert info["visib_fract"] == info["px_count_visib"] / info["px_count_all"] <= 1
        # the crane leaves the upper rim of the image: the whole box is larger than the visible one
        assert info["bbox_obj"][1] <= info["bbox_visib"][1]
    tops = [image.extra["infos"][0]["bbox_obj"][1] for image in read_labels(out)]
    assert min(tops) < 0


@pytest.mark.parametrize(
    ("order", "key", "count"),
    [(1, None, 0), (2, "symmetries_discrete", 1), (4, "symmetries_discrete", 3)],
)
def test_the_symmetry_of_a_category_is_in_its_models(
    category: tuple[Path, dict[str, TrueVideo]], order: int, key: str | None, count: int
) -> None:
    folder, truths = category
    axis = torch.tensor([0.0, 0.0, 2.0], dtype=torch.float64)
    save_true_alignment(folder, truths, Symmetry(order, axis))
    try:
        models = export(folder, "bop") / "models"
    finally:
        save_true_alignment(folder, truths, Symmetry())
    info = json.loads((models / "models_info.json").read_text())["1"]
    assert [name for name in info if name.startswith("sym")] == ([key] if key else [])
    if key:
        assert len(info[key]) == count
        turn = np.reshape(info[key][0], (4, 4))
        angle = 2 * np.pi / order
        np.testing.assert_allclose(turn[:2, 0], [np.cos(angle), np.sin(angle)], atol=1e-12)
        np.testing.assert_allclose(turn[2:, 2:], np.eye(2), atol=1e-12)


def test_a_continuous_symmetry_is_an_axis_and_said_where_keypoints_are_ambiguous(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    folder, truths = category
    save_true_alignment(folder, truths, Symmetry(0))
    try:
        models = export(folder, "bop") / "models"
        record = json.loads((export(folder, "coco") / "export.json").read_text())
    finally:
        save_true_alignment(folder, truths, Symmetry())
    info = json.loads((models / "models_info.json").read_text())["1"]
    assert info["symmetries_continuous"] == [{"axis": [0, 0, 1], "offset": [0, 0, 0]}]
    assert any("truck: symmetric" in remark for remark in record["remarks"])


def test_rendered_depth_is_that_of_the_surface(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    out = export(category[0], "foundationpose")
    for image, thing in list(iterate_objects(read_labels(out)))[::5]:
        assert (
            thing.depth is not None and thing.mask is not None and image.matrix is not None
        )
        assert thing.rotation is not None and thing.translation is not None
        assert thing.vertices is not None and thing.triangles is not None
        rows, columns = np.nonzero(thing.mask & (thing.depth > 0))
        assert len(rows) > 0.95 * thing.mask.sum()
        pixels = np.stack([columns, rows, np.ones_like(rows)], 1)
        rays = pixels @ np.linalg.inv(image.matrix).T @ thing.rotation
        eye = -thing.rotation.T @ thing.translation
        eye, rays, vertices, triangles = map(
            torch.from_numpy, (eye, rays, thing.vertices, thing.triangles)
        )
        hit = cast_rays(eye, rays, vertices, triangles)[0].numpy()
        wrong = np.abs(thing.depth[rows, columns] - hit) > 6e-4  # m: half a mm is lost
        assert wrong.mean() < 0.005
    record = json.loads((out / "export.json").read_text())
    assert record["depth_images"] == {"measured": 0, "rendered": 12}


def test_measured_depth_goes_before_rendered_depth(tmp_path: Path) -> None:
    write_labeled_category(tmp_path / "truck", {"clip_01": 1})
    depth = np.full((72, 96), 1234, np.uint16)
    (tmp_path / "truck" / "clip_01" / "depth").mkdir()
    for k in range(4):
        place = tmp_path / "truck" / "clip_01" / "depth" / f"{k:06d}.jpg.png"
        cv2.imwrite(str(place), depth)
    out = export(tmp_path / "truck", "foundationpose")
    assert all(
        thing.depth is not None and (thing.depth == 1.234).all()
        for _, thing in iterate_objects(read_labels(out))
    )
    scene = export(tmp_path / "truck", "bop") / "train" / "000001"
    place = scene / "depth" / "000003.png"
    assert (read_depth(place, (CAMERA.width, CAMERA.height)) == 1234).all()
    infos = json.loads((scene / "scene_gt_info.json").read_text())
    assert infos["0"][0]["px_count_valid"] > 0


def test_the_frame_of_an_object_can_be_the_keypoints(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    folder, truths = category
    out = export(folder, "yolo-pose", keypoints="frame")
    sources = source_of(out)
    text = (out / "dataset.yaml").read_text()
    assert "kpt_shape: [4, 3]" in text and "flip_idx" not in text
    for image, thing in iterate_objects(read_labels(out)):
        _, _, video, frame = sources[image.path.relative_to(out).as_posix()]
        pose = truths[video].cam_from_canon[frame]
        tips = np.vstack([np.zeros(3), 0.5 * np.eye(3)]) @ pose[:3, :3].T + pose[:3, 3]
        uvw = tips @ CAMERA.matrix.numpy().T
        assert thing.keypoints is not None
        shown = thing.keypoints[:, 2] > 0
        pixels = uvw[:, :2] / uvw[:, 2:]
        np.testing.assert_allclose(thing.keypoints[shown, :2], pixels[shown], atol=1e-4)
        assert thing.keypoints[0, 2] == 1  # the origin is inside of the truck


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


def test_objects_of_unknown_scale_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    write_labeled_category(tmp_path / "truck")
    (tmp_path / "truck" / "clip_02" / "video.json").write_text('{"metric": false}')
    out = export(tmp_path / "truck", "bop", unknown_scale="leave-out")
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {"objects of unknown scale": 1}
    assert [entry["name"] for entry in record["objects"]] == ["clip_01", "clip_03"]
    assert {row[2] for row in source_of(out).values()} == {"clip_01", "clip_03"}
    assert sorted({o.object_id for _, o in iterate_objects(read_labels(out))}) == [1, 2]


def test_videos_that_are_no_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    truths = write_labeled_category(folder)
    save_true_alignment(folder, truths, Symmetry(), kept=2)
    (folder / "exclude.txt").write_text("# blurred\nclip_01/00000[01].jpg\n")
    (folder / "clip_02" / "images" / "000001.jpg").write_bytes(b"no image")
    (folder / "clip_02" / "images" / "extra.jpg").write_bytes(
        (folder / "clip_02" / "images" / "000000.jpg").read_bytes()
    )
    out = export(folder, "coco")
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {
        "videos that agree with too few others (kept: false in alignment.json)": 1,
        "frames struck out in exclude.txt": 2,
        "frames that cannot be used": 1,
        "frames without a camera pose": 1,
    }
    assert (record["images"], record["labels"]) == (5, 5)
    assert len(read_labels(out)) == 5
    (folder / "exclude.txt").write_text("clip_0?\n")
    with pytest.raises(InvalidInput, match=r"no labels are left .* struck out .*: 3"):
        export(folder, "coco")
    assert len(read_labels(out)) == 5, "the export of before stays"


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


def test_at_most_so_many_views_of_a_video_are_exported(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    out = export(category[0], "nerfstudio", videos=VideoSelection("clip_01", views=2))
    assert [row[3] for row in source_of(out).values()] == ["000000.jpg", "000003.jpg"]
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {"frames beyond --views": 2}
    assert "no video is left for validation" in record["remarks"][-1]


def test_only_an_export_of_before_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    write_labeled_category(folder, {"clip_01": 1}, views=3)
    out = export(folder, "coco")
    (out / "old.txt").touch()
    export(folder, "coco")
    assert not (out / "old.txt").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    config = ExportConfig("coco")
    for place, line in (
        (other, "something else is there already"),
        (folder, "the category is in there"),
        (tmp_path, "the category is in there"),
    ):
        with pytest.raises(InvalidInput, match=line):
            export_labels([folder], place, config, quiet)
    assert (other / "thesis.txt").read_text() == "all of it"


def test_a_killed_export_leaves_nothing_half_made(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    write_labeled_category(folder, {"clip_01": 1}, views=6)
    out = export(folder, "bop")
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from uns_pose_ros.exports.label_export import ExportConfig, export_labels\n"
        "def die(what, done, total):\n"
        "    if done == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "category, *places = map(Path, sys.argv[1:])\n"
        "for place in places:\n"
        "    child = os.fork()\n"
        "    if not child: export_labels([category], place, ExportConfig('bop'), die)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL\n"
    )
    words = [str(folder), str(out), str(tmp_path / "new")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment)
    assert not (tmp_path / "new").exists()
    after = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert after == before
    export(folder, "bop")
    left = [name for name in os.listdir(tmp_path) if not name.endswith(".lock")]
    assert sorted(left) == ["truck", "truck-bop"]


def test_an_error_of_a_setting_names_what_is_valid() -> None:
    for make, line in (
        (lambda: ExportConfig("voc"), "--format voc: one of bop, coco"),
        (
            lambda: ExportConfig("bop", keypoints="all"),
            "--keypoints all: one of box, frame",
        ),
        (
            lambda: ExportConfig("bop", unknown_scale="x"),
            "--unknown-scale x: one of refuse",
        ),
        (lambda: VideoSelection(views=-1), "--views -1: 0"),
        (lambda: SplitConfig(val_share=1.0), "--val-share 1: 0 to below 1"),
        (lambda: BagSelection(min_score=2.0), "--min-score 2: 0 to 1"),
        (lambda: BagSelection(bag=Path("x.mcap")), "--bag and --results belong together"),
    ):
        with pytest.raises(InvalidInput) as error:
            make()
        assert line in str(error.value)


def test_the_command_prints_what_it_wrote_and_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labeled_category(tmp_path / "truck", {"clip_01": 1, "clip_02": 2})
    (tmp_path / "truck" / "exclude.txt").write_text("clip_02/000001.jpg")
    words = [
        "export",
        "labels",
        str(tmp_path / "truck"),
        "--format",
        "bop",
        "--val-share=0",
    ]
    assert main.main([*words, "--test", "clip_01"]) == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "truck-bop: 7 images, 7 labels of 2 objects, 2 videos (1 train, 0 val, 1 test)"
    )
    assert "frames struck out in exclude.txt: 1 (clip_02/000001.jpg)" in lines[1]
    assert (tmp_path / "truck-bop" / "test" / "000001" / "scene_gt.json").exists()
    twice = [*words[:2], *2 * [str(tmp_path / "truck")], *words[3:]]
    assert main.main(twice) == main.BAD_INPUT
    assert "name its folder by --out" in capsys.readouterr().err


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
