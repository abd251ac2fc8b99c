"""Fixtures of several test files.

A test that talks over ROS has a domain of its own and leaves no process behind.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from filelock import FileLock

from ros_domains import leased_domain

if TYPE_CHECKING:
    from rclpy.context import Context

    from ros_film import Film
    from ros_robot import Robot

# a shell's job in the background ignores Ctrl-C, and so would all processes that tests interrupt
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = (
    "1"  # else an int in a float64 field goes out as rubbish, unnoticed
)
# processes that run tests side by side share the cores
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
if _WORKERS > 1:
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // _WORKERS)))
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # the wheels do not set it
_DEFAULTS: dict[str, Any] = {  # of what tests change in the shared node
    "models": ["plain"],
    "categories": [""],
    "enabled": True,
    "object_diameter": 0.0,
    "tracking.fuse": True,
    "tracking.fixed_frame": "",
    "tracking.transform_timeout": 0.1,
    "tracking.tentative": True,
    "tracking.min_hits": 2,
    "tracking.max_age": 2.0,
    "regions": "search",
    "detection_classes": [""],
    "use_depth": False,
    "depth_transport": "raw",
}


# the files whose tests take longest; they start first, so that no process ends long after others
_LONGEST = (
    "test_pipeline",
    "test_examples",
    "test_kills",
    "test_structure_from_motion",
    "test_category_training",
    "test_two_processes",
    "test_frames_editor",
    "test_preparation",
    "test_mask_review",
    "test_fuzz",
    "test_estimator_node",
    "test_category_alignment",
    "test_provenance",
    "test_same_pose",
    "test_prompted_segmentation",
    "test_disk_errors",
    "test_privacy",
    "test_ray_executor",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first when several processes share the tests."""
    if _WORKERS > 1:
        ranks = {name: k for k, name in enumerate(_LONGEST)}
        items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Random numbers of a test do not depend on the tests that this process has run before."""
    import torch

    random.seed(0)
    torch.manual_seed(0)


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A ROS domain of the test's own, also for the processes that it starts."""
    with leased_domain() as domain:
        monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
        yield domain


@pytest.fixture
def ros_context(ros_domain: int) -> Iterator[Context]:
    """A context of rclpy for nodes in the test's process."""
    import rclpy

    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    yield context
    rclpy.shutdown(context=context)


@pytest.fixture(scope="module")
def module_domain() -> Iterator[int]:
    """A ROS domain for what all tests of a module share."""
    with leased_domain() as domain:
        yield domain


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

    with leased_domain() as domain:
        robot = Robot(domain)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("ROS_DOMAIN_ID", str(domain))
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
    from ros_film import QUICK, Film

    film = Film(module_domain)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ROS_DOMAIN_ID", str(module_domain))
        film.record(program=QUICK)
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
def aligned_trucks(run_folder: Path) -> Path:
    """Three rendered videos with labels.json, reconstructed and aligned, for reading only."""
    from small_category import write_aligned_trucks

    return made_once(run_folder, "truck", write_aligned_trucks)


@pytest.fixture
def trucks(aligned_trucks: Path, tmp_path: Path) -> Path:
    """A copy of `aligned_trucks` of the test's own."""
    return Path(shutil.copytree(aligned_trucks, tmp_path / "truck"))


@pytest.fixture(scope="session")
def chair_model(run_folder: Path) -> Path:
    """Folder of a model that knows one chair of the demo's data; trained once a run."""
    from small_model import train_small_model

    return made_once(run_folder, "model", train_small_model)


def made_once(run_folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """A folder of this name that the first process of a test run makes for all."""
    whole, part = run_folder / f"{name}-whole", run_folder / f"{name}-part"
    with FileLock(run_folder / f"{name}.lock"):
        if not whole.exists():
            make(part / name)
            part.rename(whole)
    return whole / name


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all processes of this test run share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own
