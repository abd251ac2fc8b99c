"""What a recording for the viewer rerun holds, and what is said where the package is missing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from rerun_reading import image_sizes, read_rerun
from uns_pose_ros.cli import main, rosbag_command
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.visualization import rerun_recording
from uns_pose_ros.visualization.rerun_recording import RerunRecording, check_rerun_path

IMAGE = np.zeros((48, 64, 3), np.uint8)
CAMERA = Camera(torch.tensor([[60.0, 0, 32], [0, 60, 24], [0, 0, 1]]).double(), 64, 48)
MODEL = CategoryModel(
    "car",
    torch.tensor([[0.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]),
    torch.tensor([[0, 1, 2], [0, 1, 3]]),
    torch.ones(4, 1),
    torch.ones(1, 1),
    {},
)


def estimate(x: float) -> PoseEstimate:
    pose = torch.eye(4, dtype=torch.float64)
    pose[:3, 3] = torch.tensor([x, 0.0, 2.0])
    size = torch.full((3,), 0.1, dtype=torch.float64)
    box = torch.zeros(4, dtype=torch.float64)
    return PoseEstimate("car", pose, 0.1, True, size, 0.8, None, Symmetry(), 9, 1.0, box)


class FakeStream:
    """Notes what is logged."""

    def __init__(self, _: str) -> None:
        self.logged: list[tuple[str, str, dict[str, Any]]] = []
        self.ended = False

    def save(self, path: str) -> None:
        Path(path).write_bytes(b"RRF2")

    def set_time(self, name: str, timestamp: np.datetime64) -> None:
        self.logged.append((name, "time", {"timestamp": timestamp}))

    def log(self, path: str, thing: Any, static: bool = False) -> None:
        self.logged.append((path, thing.kind, thing.values))

    def flush(self) -> None:
        pass

    def disconnect(self) -> None:
        self.ended = True


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package, as far as a recording uses it."""

    def make(kind: str) -> Any:
        return lambda *given, **values: SimpleNamespace(
            kind=kind, values={"given": given, **values}
        )

    kinds = ["Clear", "Scalars", "Pinhole", "EncodedImage", "Transform3D"]
    kinds += ["Boxes3D", "Mesh3D", "Arrows3D"]
    module: Any = SimpleNamespace(
        RecordingStream=FakeStream,
        ViewCoordinates=SimpleNamespace(RDF=SimpleNamespace(kind="RDF", values={})),
        **{kind: make(kind) for kind in kinds},
    )
    monkeypatch.setitem(sys.modules, "rerun", module)
    monkeypatch.setattr(rerun_recording, "check_rerun", lambda: None)


def test_objects_are_kept_until_they_are_lost(fake: None, tmp_path: Path) -> None:
    with RerunRecording(tmp_path / "a.rrd", [MODEL]) as recording:
        recording.add(10**9, IMAGE, CAMERA, [estimate(0.5), estimate(0.7)], [0, 1], 0.04)
        recording.add(2 * 10**9, IMAGE, CAMERA, [estimate(0.6)], [1])
        stream: Any = recording._stream
    first, second = [k for k, (name, _, _) in enumerate(stream.logged) if name == "stamp"]
    before, after = stream.logged[first:second], stream.logged[second:]
    assert before[0][2]["timestamp"] == np.datetime64(10**9, "ns")
    meshes = [name for name, kind, _ in before if kind == "Mesh3D"]
    assert meshes == ["/objects/car_0/template", "/objects/car_1/template"]
    assert [
        name for name, kind, _ in after if kind == "Mesh3D"
    ] == []  # it is there already
    assert [name for name, kind, _ in after if kind == "Clear"] == ["/objects/car_0"]
    (moved,) = [v for name, _, v in after if name == "/objects/car_1"]
    assert moved["translation"].tolist() == pytest.approx([0.6, 0.0, 2.0])
    assert moved["quaternion"].tolist() == [0.0, 0.0, 0.0, 1.0]  # x y z w
    assert ("/seconds", "Scalars") in [(name, kind) for name, kind, _ in before]
    assert stream.ended


def test_recordings_of_a_folder_do_not_replace_each_other(
    fake: None, tmp_path: Path
) -> None:
    paths = {RerunRecording.in_folder(tmp_path / "new", [MODEL]).path for _ in range(3)}
    assert len(paths) == 3
    assert all(path.is_file() and path.suffix == ".rrd" for path in paths)


def test_a_path_that_cannot_be_taken_is_refused(fake: None, tmp_path: Path) -> None:
    (tmp_path / "old.rrd").touch()
    with pytest.raises(InvalidInput, match=r"a name that ends with \.rrd is valid"):
        check_rerun_path(tmp_path / "a.mcap")
    with pytest.raises(InvalidInput, match="is there already"):
        check_rerun_path(tmp_path / "old.rrd")


def test_without_the_package_the_command_names_its_extra_before_it_works(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    out = str(tmp_path / "a.rrd")
    given = [
        "evaluate",
        "bag",
        str(tmp_path / "model"),
        str(tmp_path / "bag"),
        "--rerun",
        out,
    ]
    assert main.main(given) == 2
    assert "pip install 'uns_pose_ros[rerun]'" in capsys.readouterr().err


def test_what_was_written_is_read_by_the_readers_of_the_package(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    large = np.zeros((960, 1280, 3), np.uint8)
    matrix = torch.tensor([[1200.0, 0, 640], [0, 1200, 480], [0, 0, 1]]).double()
    with RerunRecording(tmp_path / "a.rrd", [MODEL]) as recording:
        recording.add(10**9, IMAGE, CAMERA, [estimate(0.5)], [3], 0.04)
        recording.add(2 * 10**9, large, Camera(matrix, 1280, 960), [], [])
    rows = read_rerun(tmp_path / "a.rrd")
    assert image_sizes(rows) == [(64, 48), (960, 720)]
    resolution = rows["/camera:Pinhole:resolution"]
    assert [(stamp, value[0]) for stamp, value in resolution] == [
        (10**9, [64.0, 48.0]),
        (2 * 10**9, [960.0, 720.0]),
    ]
    [(stamp, place)] = rows["/objects/car_3:Transform3D:translation"]
    assert (stamp, place) == (10**9, [[0.5, 0.0, 2.0]])
    [(_, half)] = rows["/objects/car_3/box:Boxes3D:half_sizes"]
    assert half[0] == pytest.approx([0.05, 0.05, 0.05])
    [(_, label)] = rows["/objects/car_3/box:Boxes3D:labels"]
    assert label == ["car 3  0.80"]
    [(_, vertices)] = rows["/objects/car_3/template:Mesh3D:vertex_positions"]
    assert vertices == MODEL.vertices.tolist()
    [(_, score)] = rows["/score/objects/car_3:Scalars:scalars"]
    assert score == [0.8]
    assert rows["/seconds:Scalars:scalars"] == [(10**9, [0.04])]


class OneCar:
    """An estimator that finds a car in each image but the second, by its first pixel."""

    best_rejected: float | None = None

    def __init__(self, model: CategoryModel, device: str, config: object) -> None:
        self.models = (model,)

    def __call__(
        self, image: np.ndarray, camera: Camera, **stream: object
    ) -> list[PoseEstimate]:
        number = int(image[0, 0, 0])
        return [] if number == 1 else [estimate(0.1 * number)]


def test_evaluate_bag_records_every_image_with_its_objects_and_the_stamps_of_the_bag(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("rerun")
    pytest.importorskip("rosbags")
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import camera_info, raw, write_bag

    messages: list[tuple[str, float, Any]] = [("/cam/camera_info", 1.0, camera_info(1.0))]
    for number in range(3):
        pixels = np.full((48, 64, 3), number, np.uint8)
        messages.append(("/cam/image_raw", 1.0 + number, raw(1.0 + number, pixels)))
    topics = {"/cam/image_raw", "/cam/camera_info"}
    write_bag(tmp_path / "drive", StoragePlugin.SQLITE3, topics, messages=messages)
    artifacts.save_model(MODEL, tmp_path / "model")
    monkeypatch.setattr(rosbag_command, "Estimator", OneCar)
    out = tmp_path / "drive.rrd"
    words = [str(tmp_path / "model"), str(tmp_path / "drive"), "--rerun", str(out)]
    assert main.main(["evaluate", "bag", *words]) == main.DONE

    rows = read_rerun(out)
    assert image_sizes(rows) == [(64, 48)] * 3
    stamps = [stamp for stamp, _ in rows["/camera:EncodedImage:blob"]]
    assert stamps == [10**9, 2 * 10**9, 3 * 10**9]
    cars = [name for name in rows if name.endswith(":Transform3D:translation")]
    places = {stamp: value[0] for name in cars for stamp, value in rows[name]}
    assert sorted(places) == [10**9, 3 * 10**9]
    assert places[3 * 10**9] == pytest.approx([0.2, 0.0, 2.0])
