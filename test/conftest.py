"""Fixtures of several test files.

A test that talks over ROS has a domain of its own and leaves no process behind.
"""

from __future__ import annotations

import itertools
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from ros_film import Film
    from ros_robot import Robot

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = (
    "1"  # else an int in a float64 field goes out as rubbish, unnoticed
)
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # the wheels do not set it
_SHARED_DOMAIN = 1 + (os.getpid() - 1) % 101
_DOMAINS = itertools.count(os.getpid())
_DEFAULTS: dict[str, Any] = {  # of what tests change in the shared node
    "models": ["plain"],
    "categories": [""],
    "object_diameter": 0.0,
    "tracking.fuse": True,
    "tracking.fixed_frame": "",
    "tracking.transform_timeout": 0.1,
    "tracking.tentative": True,
    "tracking.min_hits": 2,
    "regions": "search",
    "detection_classes": [""],
    "use_depth": False,
    "depth_transport": "raw",
}


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of the test's own, also for the processes that it starts."""
    domain = 1 + next(_DOMAINS) % 101
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    return domain


@pytest.fixture(scope="module")
def module_domain() -> int:
    """A ROS domain for what all tests of a module share."""
    return 1 + next(_DOMAINS) % 101


@pytest.fixture
def robot(ros_domain: int) -> Iterator[Robot]:
    """The other end of the estimator node's topics."""
    from ros_robot import Robot

    robot = Robot(ros_domain)
    yield robot
    robot.close()


@pytest.fixture(scope="session")
def shared() -> Iterator[Robot]:
    """One node for all tests that do not need a start of their own, which takes seconds."""
    from ros_robot import Robot

    robot = Robot(_SHARED_DOMAIN)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(_SHARED_DOMAIN))
        robot.start("-p", "models:=[plain]")
    robot.wait_until_listening()
    yield robot
    robot.close()


@pytest.fixture
def plain(shared: Robot) -> Robot:
    """A node with the plain model, as if just started."""
    shared.renew(**_DEFAULTS)
    return shared


@pytest.fixture(scope="module")
def recorder(module_domain: int) -> Iterator[Film]:
    """One recorder for all tests of a module that do not need a start of their own."""
    from ros_film import Film

    film = Film(module_domain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(module_domain))
        film.record()
    film.wait_until_listening()
    yield film
    film.close()


@pytest.fixture
def film(recorder: Film, tmp_path: Path) -> Film:
    """A recorder as if just started, whose category is tmp_path/mug."""
    from uns_pose_ros.capture.keyframes import KeyframeConfig

    recorder.stop()
    defaults = {
        "fixed_frame": "",
        "transport": "raw",
        "format": "jpg",
        "clip": "",
        "record": False,
        "tf_wait": 10.0,
        "depth": "none",
    }
    config = KeyframeConfig()
    defaults |= {
        name: getattr(config, name)
        for name in ("sharpness", "darkest", "clipped", "view_angle")
    }
    recorder.renew(**{**defaults, "category": str(tmp_path / "mug")})
    recorder.statuses.clear()
    recorder.overlays.clear()
    return recorder


@pytest.fixture
def own(ros_domain: int) -> Iterator[Film]:
    """A camera for recorders that the test itself starts."""
    from ros_film import Film

    film = Film(ros_domain)
    yield film
    film.close()


@pytest.fixture(scope="session")
def aligned_trucks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three rendered videos with labels.json, reconstructed and aligned, for reading only."""
    from small_category import write_aligned_trucks

    return write_aligned_trucks(tmp_path_factory.mktemp("category") / "truck")


@pytest.fixture
def trucks(aligned_trucks: Path, tmp_path: Path) -> Path:
    """A copy of `aligned_trucks` of the test's own."""
    return Path(shutil.copytree(aligned_trucks, tmp_path / "truck"))


@pytest.fixture(scope="session")
def chair_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a model that knows one chair of the demo's data."""
    from small_model import train_small_model

    folder = tmp_path_factory.mktemp("chair") / "model"
    train_small_model(folder)
    return folder
