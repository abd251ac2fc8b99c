"""The page: whole in itself, failures first, and honest about what is missing."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import (
    Alignment,
    CategoryModel,
    FeatureMesh,
)
from uns_pose_ros.evaluation.box_figures import BoxFit, BoxResult, summarize_boxes
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.reporting.category_report import (
    ReportContents,
    ReportImage,
    write_report,
)
from uns_pose_ros.reporting.video_summary import (
    VideoSummary,
    choose_frames,
    draw_correspondences,
    draw_viewpoints,
    summarize_video,
    viewpoints,
    widest_gap,
)

CHROMIUM = (
    shutil.which("chromium")
    or shutil.which("chromium-browser")
    or shutil.which("google-chrome")
)

TETRAHEDRON = (
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]]),
)
FIGURES = {
    "acc30": 90.0,
    "acc15": 50.0,
    "acc10": None,
    "median_deg": 12.34,
    "symmetry_aware": {"acc30": 95.0},
}


def contents(names: tuple[str, ...] = ("clip_01", "clip_02")) -> ReportContents:
    ones = torch.ones(len(names), dtype=torch.float64)
    pose = torch.eye(4, dtype=torch.float64).repeat(len(names), 1, 1)
    kept = torch.tensor([k == 0 for k in range(len(names))])
    alignment = Alignment(names, pose, ones * 0.87, kept, ones * 3.2)
    return ReportContents(
        "mug", alignment, dict.fromkeys(names, mesh_seen_from(0, 90, 180))
    )


def mesh_seen_from(*azimuths: float, features: torch.Tensor | None = None) -> FeatureMesh:
    """The tetrahedron, each vertex with a feature of its own.

    Views around the z axis through its middle, 20° above it.
    """
    poses = []
    for azimuth in np.radians(azimuths):
        turn = torch.tensor(
            [
                [np.cos(azimuth), np.sin(azimuth), 0],
                [-np.sin(azimuth), np.cos(azimuth), 0],
                [0, 0, 1],
            ]
        ).float()
        eye = (
            TETRAHEDRON[0].mean(0)
            + 3
            * turn.T
            @ torch.tensor([np.cos(np.radians(20)), 0, np.sin(np.radians(20))]).float()
        )
        pose = torch.eye(4)
        pose[:3, :3], pose[:3, 3] = turn, -turn @ eye
        poses.append(pose)
    own = torch.eye(4) if features is None else features
    return FeatureMesh(
        *TETRAHEDRON,
        own.half(),
        torch.arange(4),
        torch.zeros(4, dtype=torch.int64),
        torch.stack(poses),
    )


def model_of(curve: object = None) -> CategoryModel:
    provenance = {"canon_from_obj": {"clip_01": torch.eye(4).tolist()}, "training": curve}
    return CategoryModel(
        "mug",
        *TETRAHEDRON,
        torch.eye(4),
        torch.eye(4),
        {},
        diameter=0.125,
        provenance=provenance,
    )


def page(folder: Path, shown: ReportContents) -> str:
    write_report(folder / "report.html", shown)
    return (folder / "report.html").read_text(encoding="utf-8")


def test_the_page_needs_no_other_file(tmp_path: Path) -> None:
    gray = np.full((30, 40, 3), 127, np.uint8)
    curve = {"step": [0, 20], "object": [5.0, 1.0], "background": [2.0, 0.5]}
    whole = contents()
    images, accuracies = (
        [ReportImage(gray, "a", 0.5, 3.0)],
        {"poses": {**FIGURES, "images": 4, "estimated": 3}},
    )
    shown = ReportContents(
        whole.category,
        whole.alignment,
        whole.meshes,
        model_of(curve),
        images,
        [3.0],
        accuracies,
    )
    text = page(tmp_path, shown)
    sources = re.findall(r"(?:src|href)='([^']{0,22})", text)
    assert (
        len([source for source in sources if source.startswith("data:image/")]) == 6
    )  # two meshes and four others
    assert all(source.startswith(("data:image/", "#s")) for source in sources)
    assert (
        "<script" not in text
        and "http" not in text
        and "url(" not in text
        and "@import" not in text
    )
    for link in re.findall(r"href='#(\w+)'", text):
        assert f"id='{link}'" in text
    for said in (
        "0.87",
        "3.2",
        "12.3",
        "3 of 4 images",
        "0.125 m",
        "training: losses",
        "<tr class='out'><td>clip_02",
    ):
        assert said in text


def test_what_is_missing_is_said(tmp_path: Path) -> None:
    text = page(tmp_path, contents())
    for said in (
        "No labels were given, so it is not measured whether the axes are the right ones.",
        "an axis must point to the same part of every object",
        "Not trained yet.",
        "No model",
        "No stage noted its time",
        "folders were not looked at",
    ):
        assert said in text


def test_named_frames_are_on_the_template(tmp_path: Path) -> None:
    place = torch.tensor([0.3, 0.1, 0.2], dtype=torch.float64)
    frame = NamedFrame("handle", place, torch.eye(3, dtype=torch.float64), 0.1)
    model = replace(model_of(), frames=(frame,))
    bare, framed = (
        page(tmp_path, replace(contents(), model=one)) for one in (model_of(), model)
    )
    assert "the template, with the frames handle" in framed
    assert "with the frames" not in bare


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    text = page(tmp_path, contents(("<b>x", "it's")))
    assert "<b>x" not in text and "&lt;b&gt;x" in text
    assert "alt='it's" not in text


def test_the_gap_is_where_no_camera_stood() -> None:
    azimuths, elevations = viewpoints(mesh_seen_from(0, 20, 40, 60, 90, 120, 150, 180, 210))
    assert widest_gap(azimuths) == pytest.approx(150, abs=0.1)
    assert elevations == pytest.approx(np.full(9, 20.0), abs=0.1)
    assert widest_gap(np.array([10.0])) == 360 and widest_gap(np.zeros(0)) == 360
    assert widest_gap(np.array([350.0, 10.0, 170.0])) == 180


def test_elevations_are_measured_from_the_up_axis_and_not_from_a_tilted_path() -> None:
    azimuths = np.arange(0, 360, 30.0)
    truth = 33.5 + 14.5 * np.sin(np.radians(azimuths))
    mesh = mesh_seen_from(*azimuths)
    middle = TETRAHEDRON[0].mean(0)
    poses = mesh.cameras_in_obj.clone()
    for pose, azimuth, elevation in zip(
        poses, np.radians(azimuths), np.radians(truth), strict=True
    ):
        level, high = float(np.cos(elevation)), float(np.sin(elevation))
        away = [np.cos(azimuth) * level, np.sin(azimuth) * level, high]
        pose[:3, 3] = -pose[:3, :3] @ (middle + 3 * torch.tensor(away).float())
    tilted = replace(mesh, cameras_in_obj=poses)
    by_path = viewpoints(tilted)[1]
    assert by_path.max() - by_path.min() < 10  # a tilted circle looks level
    seen, elevations = viewpoints(tilted, torch.tensor([0.0, 0.0, 2.0]))
    assert elevations == pytest.approx(truth, abs=0.1)
    assert widest_gap(seen) == pytest.approx(30, abs=0.1)
    # also where the camera passed over the object, along the axis
    over = torch.tensor([1.0, 0.0, 0.0])
    assert np.isfinite(viewpoints(tilted, over)[1]).all()


def test_the_worst_masks_are_shown_first_and_then_a_usual_one() -> None:
    overlaps = {0: 0.9, 1: 0.4, 2: 0.95, 3: 0.6, 5: 0.92}
    assert choose_frames(overlaps, 6) == [1, 3, 0]
    assert choose_frames({2: 0.9}, 6) == [2]
    assert choose_frames({}, 9) == [0, 4, 8]
    assert choose_frames({}, 1) == [0]


def test_a_bad_mask_is_named_and_the_table_has_the_worst_overlap(tmp_path: Path) -> None:
    image = np.full((30, 40, 3), 127, np.uint8)
    bad = facts(
        images=[image],
        captions=["clip_01/000012.jpg, overlap 0.41"],
        overlap=0.96,
        worst=("000012.jpg", 0.41),
    )
    line = "clip_01: the mask of 000012.jpg and the hull overlap by 0.41 only"
    assert [warning.split(";")[0] for warning in bad.warnings] == [line]
    text = page(tmp_path, replace(contents(), videos=[bad]))
    assert "<td>0.96, 0.41</td>" in text
    assert "clip_01/000012.jpg, overlap 0.41" in text
    assert "The worst masks are shown first" in text


def test_without_labels_the_page_says_how_well_poses_agree_and_what_that_does_not_show(
    tmp_path: Path,
) -> None:
    agreement = {**FIGURES, "images": 8, "estimated": 7}
    text = page(tmp_path, replace(contents(), agreement=agreement))
    assert re.search(
        r"agreement with the camera(&#39;|')s motion</td><td>7 of 8 images", text
    )
    assert "It does not show an object that is turned the same way in every image" in text
    assert "No labels were given" in text
    curve = {"step": [0, 20], "object": [5.0, 1.0], "background": [2.0, 0.5]}
    curve |= {"watched_step": [20], "watched_accuracy": [61.0]}
    trained = page(tmp_path, replace(contents(), model=model_of(curve)))
    assert (
        "The dotted curve, right where it did not learn: some images of the same" in trained
    )


def test_the_page_says_how_well_boxes_fit_and_which_videos_have_no_true_box(
    tmp_path: Path,
) -> None:
    fit = BoxFit(0.72, torch.tensor([0.1, 0.2, 0.05], dtype=torch.float64))
    boxes = summarize_boxes([BoxResult(fit), BoxResult()], {"videos without masks": 3})
    figures = {**FIGURES, "images": 2, "estimated": 1, "iou3d": boxes}
    text = page(tmp_path, replace(contents(), accuracies={"unseen": figures}))
    assert "unseen: boxes at the true depth: 3D IoU 0.72 on average, 50.0 %" in text
    assert "sides 10.0 20.0 5.0 % wrong" in text
    assert "not compared by box: videos without masks: 3" in text
    assert "moved along its ray to the true depth" in text
    without = {**figures, "iou3d": summarize_boxes([], {})}
    text = page(tmp_path, replace(contents(), accuracies={"unseen": without}))
    assert "true depth" not in text


def test_equal_features_have_equal_colors_on_both_objects() -> None:
    meshes = {
        "a": mesh_seen_from(0, 90),
        "b": mesh_seen_from(0, 90),
        "c": mesh_seen_from(0, 90, features=torch.eye(4).flip(0)),
    }
    alignment = contents(("a", "b", "c")).alignment
    one, same = draw_correspondences("a", "b", alignment, meshes)
    _, other = draw_correspondences("a", "c", alignment, meshes)
    assert np.array_equal(one, same) and not np.array_equal(one, other)


def facts(**changes: object) -> VideoSummary:
    values: dict[str, object] = {
        "name": "clip_01",
        "views": 8,
        "frames": 8,
        "gap": 45.0,
        "overlap": 0.95,
    }
    values |= {
        "azimuths": np.arange(8) * 45.0,
        "elevations": np.full(8, 20.0),
        "poses": "given",
        "masks": "found",
    }
    values |= {"images": [], "seconds": {"reconstruct": 3.0}} | changes
    return VideoSummary(**values)  # type: ignore[arg-type]


def test_what_is_wrong_with_a_video_stands_first_and_marks_its_row(tmp_path: Path) -> None:
    assert not facts().warnings
    bad = facts(name="clip_02", views=6, gap=200.0, overlap=0.4)
    assert [line.split(";")[0] for line in bad.warnings] == [
        "clip_02: 6 of 8 frames were used",
        "clip_02: no view of 200° around the object",
        "clip_02: masks and hull overlap by 0.40 only",
    ]
    text = page(
        tmp_path, replace(contents(), videos=[facts(), bad], seconds={"train": 61.0})
    )
    first = text.split("<section>")[1]
    assert "What to look at" in first and all(f"{line}<" in first for line in bad.warnings)
    assert "clip_02: left out of the training" in first
    assert "<tr class='out'><td>clip_02</td><td>8</td><td>6</td>" in text
    assert "<td>reconstruct</td><td>6</td>" in text and "<td>train</td><td>61</td>" in text
    assert (draw_viewpoints(bad) != draw_viewpoints(facts())).any()


def test_masks_and_hull_of_a_true_mesh_agree(trucks: Path) -> None:
    folder = trucks / "clip_01"
    video, mesh = load_video(folder), artifacts.load_feature_mesh(folder)
    found = summarize_video(
        video, mesh, artifacts.provenance_of(folder / artifacts.FEATURES) or {}
    )
    assert found.views == found.frames == 8 and found.poses == found.masks == "given"
    assert found.overlap is not None and found.overlap > 0.75
    assert found.gap < 70 and found.seconds["reconstruct"] > 0
    assert len(found.images) == len(found.captions) == 3
    assert found.worst is not None and found.worst[1] <= found.overlap
    assert found.captions[0] == f"{found.worst[0]}, overlap {found.worst[1]:.2f}"
    shifted = replace(mesh, vertices=mesh.vertices + mesh.diameter)
    assert (summarize_video(video, shifted, {}).overlap or 0) < 0.2


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_at_desktop_and_phone_width(
    tmp_path: Path, width: int
) -> None:
    """Every image is loaded, and nothing is wider than the window."""
    images = [ReportImage(np.full((240, 320, 3), 127, np.uint8), "a" * 200, 0.5, None)] * 6
    write_report(
        tmp_path / "report.html", replace(contents(), images=images, videos=[facts()])
    )
    inner = (tmp_path / "report.html").read_text()
    # a window is 500 px wide at least, a frame in it is not
    (tmp_path / "outer.html").write_text(
        "<!doctype html><body style='margin:0'>"
        f"<iframe src='report.html' style='border:0;width:{width}px;height:900px'></iframe>"
        "<script>onload=()=>{const "
        "d=document.querySelector('iframe').contentDocument;document.title=["
        "d.documentElement.scrollWidth,d.images.length,"
        "[...d.images].every(i=>i.naturalWidth>0)].join(' ')}</script>"
    )
    command = [
        str(CHROMIUM),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--allow-file-access-from-files",
    ]
    command += [f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},900"]
    outer = f"file://{tmp_path / 'outer.html'}"
    subprocess.run(
        [*command, f"--screenshot={tmp_path / 'screenshot.png'}", outer],
        check=True,
        timeout=240,
        capture_output=True,
    )
    assert read_image(tmp_path / "screenshot.png").float().std() > 5, "the page is blank"
    done = subprocess.run(
        [*command, "--dump-dom", outer],
        check=True,
        timeout=240,
        capture_output=True,
        text=True,
    )
    wide, count, loaded = re.findall(r"<title>(\d+) (\d+) (\w+)</title>", done.stdout)[0]
    assert int(wide) == width and int(count) == inner.count("<img") and loaded == "true"
