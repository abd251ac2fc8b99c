"""The examples and the README's Python run as they are, and use only the public API."""

from __future__ import annotations

import ast
import itertools
import re
import runpy
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from rosbags.rosbag2 import StoragePlugin

import uns_pose_ros
from bag_writer import write_bag
from small_category import ALIGN, RECONSTRUCT
from synthetic import write_video
from uns_pose_ros import align, reconstruct
from uns_pose_ros.cli import main
from warm_processes import start_warm

if TYPE_CHECKING:
    from ros_robot import Robot

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("0*.py"))
STAMPS = itertools.count(10)  # s
PUBLIC = {"uns_pose_ros", "uns_pose_ros.nodes"}
PYTHON_BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL
)


def run(script: Path | str, *arguments: object, folder: Path | None = None) -> str:
    """What an example, or a text of Python, prints."""
    start = [str(script)] if isinstance(script, Path) else ["-c", script]
    process = start_warm([*start, *map(str, arguments)], folder)
    printed, complaints = process.communicate(timeout=500)
    assert process.returncode == 0, complaints[-2000:]
    return printed


def example(number: int) -> Path:
    """The example of that number."""
    return next(path for path in EXAMPLES if path.name.startswith(f"{number:02}_"))


def imports_of_ours(source: str) -> set[str]:
    """The modules of the package that a source imports from."""
    tree = ast.parse(source)
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    return {name for name in modules if name and name.startswith("uns_pose_ros")}


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_uses_only_the_public_api(path: Path) -> None:
    assert imports_of_ours(path.read_text())
    assert imports_of_ours(path.read_text()) <= PUBLIC


def test_the_readmes_python_uses_only_the_public_api() -> None:
    assert len(PYTHON_BLOCKS) == 2
    assert all(imports_of_ours(block) <= PUBLIC for block in PYTHON_BLOCKS)


@pytest.mark.parametrize("name", uns_pose_ros.__all__)
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(uns_pose_ros, name) is not None
    assert name in dir(uns_pose_ros)


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'estimate_everything'"):
        getattr(uns_pose_ros, "estimate_" + "everything")


def test_importing_the_package_needs_no_torch() -> None:
    code = "import sys, uns_pose_ros; dir(uns_pose_ros); print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code]) == b"False\n"


def test_an_image_is_estimated(chair_model: Path) -> None:
    image = min((ROOT / "demo" / "data" / "chair" / "clip_08" / "images").iterdir())
    lines = run(example(1), chair_model, image, "--fov", 40).splitlines()
    assert lines
    assert all(re.match(r"\w+: score [\d.]+, x .+, y .+, z .+ \w+", line) for line in lines)


def test_a_video_is_tracked(chair_model: Path, tmp_path: Path) -> None:
    video = ROOT / "demo" / "data" / "chair" / "clip_08"
    few = tmp_path / "clip"
    (few / "images").mkdir(parents=True)
    for path in sorted((video / "images").iterdir())[:3]:
        shutil.copy(path, few / "images")
    lines = run(example(2), chair_model, few).splitlines()
    assert lines
    assert all(re.match(r"\S+: \w+ \d+, \w+, score [\d.]+", line) for line in lines)


def test_a_gripper_comes_to_a_named_frame(
    chair_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    shutil.copytree(chair_model, tmp_path / "model")
    command = ["frames", str(tmp_path), "add", "back", "--toward", "0", "0", "1"]
    assert main.main([*command, "--width", "0.1"]) == 0
    image = min((ROOT / "demo" / "data" / "chair" / "clip_08" / "images").iterdir())
    grasp = runpy.run_path(str(example(6)))["main"]

    def pose(distance: float) -> NDArray[np.float64]:
        words = ["--fov", "40", "--frame", "back", "--distance", str(distance)]
        monkeypatch.setattr(
            sys, "argv", ["06", str(tmp_path / "model"), str(image), *words]
        )
        capsys.readouterr()
        assert grasp() == 0
        numbers = re.findall(r"-?\d+\.\d*", capsys.readouterr().out)
        return np.array(numbers, dtype=float).reshape(4, 4)

    near, far = pose(0.0), pose(0.5)
    np.testing.assert_allclose(near[:3, 3] - far[:3, 3], 0.5 * near[:3, 0], atol=2e-4)


def test_films_become_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    film = tmp_path / "film"
    write_video(film, seed=1, views=5, size=96)
    quick = partial(reconstruct, config=RECONSTRUCT), partial(align, config=ALIGN)
    for name, stage in zip(("reconstruct", "align"), quick, strict=True):
        monkeypatch.setattr(uns_pose_ros, name, stage)
    words = [tmp_path / "lorry", film, film, "--steps", 2, "--views", 1]
    monkeypatch.setattr(sys, "argv", ["03", *map(str, words)])
    runpy.run_path(str(example(3)), run_name="__main__")
    assert "2 meshes, 2 of them new" in capsys.readouterr().out
    assert (tmp_path / "lorry" / "model" / "model.safetensors").exists()


def test_a_bag_is_evaluated(chair_model: Path, tmp_path: Path) -> None:
    write_bag(
        tmp_path / "drive", StoragePlugin.MCAP, {"/cam/image_raw", "/cam/camera_info"}
    )
    text = run(example(4), chair_model, tmp_path / "drive")
    assert re.match(r"\d+ images, \d+ with an estimate\n[\d.]+ s per image", text)


def test_the_readmes_first_python_runs(chair_model: Path, tmp_path: Path) -> None:
    shutil.copytree(chair_model, tmp_path / "mug" / "model")
    image = min((ROOT / "demo" / "data" / "chair" / "clip_08" / "images").iterdir())
    from PIL import Image

    Image.open(image).resize((640, 480)).save(tmp_path / "image.jpg")
    assert "chair" in run(PYTHON_BLOCKS[0], folder=tmp_path)


def test_the_readmes_example_for_nodes_waits_for_an_object(
    plain: Robot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ROS_DOMAIN_ID", str(plain.context.get_domain_id()))
    block = PYTHON_BLOCKS[1].replace('"mug"', '"car"').replace('frame="base_link", ', "")
    code = f"import rclpy\nrclpy.init()\n{block}".replace("timeout=5.0", "timeout=120.0")
    assert seen_by(plain, ["-c", code])
    printed = seen_by(plain, [str(example(5)), "car"])
    assert re.match(r"car \d+, score 0.90: x 0.000, y 0.000, z 3.000 m in camera", printed)


def seen_by(robot: Robot, command: list[str]) -> str:
    """What a process of Python prints while the robot's camera sees two cars."""
    process = start_warm(command)
    robot.calibrate()

    def ended() -> bool:
        robot.show(2, next(STAMPS))
        return process.poll() is not None

    try:
        robot.wait(f"the end of {command}", ended)
    finally:
        process.kill()
        printed, complaints = process.communicate()
    assert process.returncode == 0, complaints[-2000:]
    return printed
