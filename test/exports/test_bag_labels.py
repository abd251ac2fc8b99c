"""Fused estimates of a bag become labels of its images; the doubtful are left out and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

from bag_writer import CAMERA, camera_info, raw, write_bag
from label_readers import iterate_objects, overlap, paint_model, read_labels, source_of
from labeled_category import box_mesh
from synthetic import look_at, render, truck
from uns_pose_ros.cli import main, rosbag_command
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.exports.bag_labels import template_hash
from uns_pose_ros.io import artifacts

COUNT = 6
SIZE = 0.25  # m of a canonical unit
BOXES = truck(np.random.default_rng(1))


def cam_from_canon(k: int) -> np.ndarray:
    """Rigid pose (4, 4) in image k, canonical units."""
    return look_at(3.0 * k, 30, 2.3)


def truck_model() -> CategoryModel:
    vertices, triangles = box_mesh(BOXES)
    unit = torch.nn.functional.normalize(torch.ones(len(vertices), 8), dim=1)
    return CategoryModel(
        "truck",
        torch.from_numpy(vertices).float(),
        torch.from_numpy(triangles),
        unit,
        unit[:1].clone(),
        {},
        diameter=SIZE,
    )


class Scripted:
    """An estimator that knows the pose of the truck in image k, whose first pixel is k.

    Its scores fall from image to image, and its sizes differ by 2 % from image to image.
    """

    best_rejected: float | None = None

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)

    def __call__(
        self, image: np.ndarray, camera: Camera, **stream: object
    ) -> list[PoseEstimate]:
        k = int(image[0, 0, 0])
        if k == 5:
            return []
        pose = torch.from_numpy(cam_from_canon(k))
        scale = SIZE * (0.98, 1.0, 1.02)[k % 3]
        pose[:3, 3] *= scale
        size = scale * torch.ones(3, dtype=torch.float64)
        box = torch.zeros(4, dtype=torch.float64)
        score = 0.9 - 0.1 * k
        return [
            PoseEstimate(
                "truck", pose, scale, True, size, score, None, Symmetry(), 9, 1.0, box
            )
        ]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the bag `drive` and the model of the category `truck`."""
    folder = tmp_path_factory.mktemp("recorded")
    messages: list[tuple[str, float, Any]] = [("/cam/camera_info", 1.0, camera_info(1.0))]
    info = messages[0][2]
    info.k[:] = CAMERA.matrix.numpy().ravel()
    info.d = np.zeros(0)
    for k in range(COUNT):
        image, _ = render(BOXES, np.linalg.inv(cam_from_canon(k)), CAMERA)
        image[0, 0] = k
        messages.append(("/cam/image_raw", 1.0 + k / 10, raw(1.0 + k / 10, image)))
    topics = {"/cam/image_raw", "/cam/camera_info"}
    write_bag(folder / "drive", StoragePlugin.SQLITE3, topics, messages=messages)
    artifacts.save_model(truck_model(), folder / "truck" / "model")
    return folder


@pytest.fixture
def evaluated(recorded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """What `uns-pose evaluate bag --fuse --json` writes about the bag."""
    monkeypatch.setattr(rosbag_command, "Estimator", Scripted)
    words = [str(recorded / "truck"), str(recorded / "drive"), "--json"]
    out = tmp_path / "results.json"
    assert main.main(["evaluate", "bag", *words, str(out), "--fuse"]) == main.DONE
    return out


def score_of_three(results: Path) -> float:
    """The score that the first three images have, and the others have not."""
    scores = [e["score"] for f in frames_of(results) for e in f["estimates"]]
    assert scores == sorted(scores, reverse=True) and len(scores) == COUNT - 1
    return round((scores[2] + scores[3]) / 2, 3)


def frames_of(results: Path) -> list[Any]:
    frames: list[Any] = json.loads(results.read_text())["frames"]
    return frames


def export(recorded: Path, results: Path, kind: str, *words: str) -> tuple[int, Path]:
    out = results.parent / f"set-{kind}"
    command = ["export", "labels", str(recorded / "truck"), "--format", kind]
    command += ["--bag", str(recorded / "drive"), "--results", str(results)]
    return main.main([*command, "--out", str(out), *words]), out


@pytest.mark.parametrize("kind", ["bop", "coco", "foundationpose"])
def test_good_estimates_are_labels_and_the_rest_is_counted(
    recorded: Path, evaluated: Path, kind: str
) -> None:
    least = score_of_three(evaluated)
    code, out = export(recorded, evaluated, kind, f"--min-score={least}")
    assert code == main.DONE
    images = read_labels(out)
    stamps = [row[3] for row in source_of(out).values()]
    assert stamps == ["1000000000", "1100000000", "1200000000"]
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {
        f"estimates with a score below {least:g}": 2,
        "images without a label": 2,
        "images without an estimate": 1,
    }
    assert (record["source"], record["min_score"]) == ("estimates in a bag", least)
    assert record["scenes"][0]["masks"] == "the projected model"
    frames = frames_of(evaluated)
    for k, (image, thing) in enumerate(iterate_objects(images)):
        truth = cam_from_canon(k)
        (estimate,) = frames[k]["estimates"]
        pose = np.array(estimate["cam_from_canon"])
        assert thing.rotation is not None and thing.translation is not None
        np.testing.assert_allclose(thing.rotation, pose[:3, :3], atol=1e-6)
        # the object has the median size of its track, and is as far as it then must be
        shift = pose[:3, 3] * SIZE / estimate["scale"]
        np.testing.assert_allclose(thing.translation, shift, atol=1e-6)
        np.testing.assert_allclose(thing.rotation, truth[:3, :3], atol=0.1)
        np.testing.assert_allclose(thing.translation, SIZE * truth[:3, 3], atol=0.02)
        _, mask = render(BOXES, np.linalg.inv(truth), CAMERA)
        assert thing.mask is not None and overlap(thing.mask, mask) > 0.85
        if thing.vertices is not None:
            assert overlap(paint_model(image, thing), thing.mask) > 0.98
    if kind == "coco":
        content = json.loads((out / "annotations" / "train.json").read_text())
        scores = [entry["score"] for entry in content["annotations"]]
        assert scores == [frame["estimates"][0]["score"] for frame in frames[:3]]


def test_results_that_do_not_belong_to_it_are_refused(
    recorded: Path, evaluated: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = json.loads(evaluated.read_text())
    least = score_of_three(evaluated)
    spoiled = {
        "its estimates are not fused": {"fused": False},
        "made by an earlier version": {"fused": None},
        "its estimates are of another model (cup)": {"category": "cup"},
        "its estimates are of another model (truck)": {"template_sha256": 64 * "0"},
        "estimates whose image is not in the bag, or not once: 3": {
            "frames": [
                {**frame, "stamp_ns": frame["stamp_ns"] + 1} for frame in record["frames"]
            ]
        },
        "not a valid result of an evaluated bag (frames[0].estimates[0]": {
            "frames": [{"stamp_ns": 1, "estimates": [{"track": 0}]}]
        },
    }
    for line, change in spoiled.items():
        evaluated.write_text(json.dumps(record | change))
        code, out = export(recorded, evaluated, "bop", f"--min-score={least}")
        assert code == main.BAD_INPUT and not out.exists()
        assert line in capsys.readouterr().err
    evaluated.write_text(json.dumps(record))
    assert export(recorded, evaluated, "bop", "--min-score=0.95")[0] == main.BAD_INPUT
    assert "no labels are left" in capsys.readouterr().err


def test_a_template_has_a_hash_of_its_own() -> None:
    model = truck_model()
    assert template_hash(model) == template_hash(truck_model())
    turned = CategoryModel(
        "truck",
        model.vertices[:, [1, 0, 2]],
        model.triangles,
        model.vertex_features,
        model.background_features,
        {},
    )
    assert template_hash(turned) != template_hash(model)
