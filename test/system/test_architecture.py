"""Imports go down the floors, ROS stays in nodes/, and a robot needs only what it uses."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter

import pytest

import draw_architecture
import house
from house import imported_modules, imported_names

FILES = house.module_files()
PACKAGE = house.PACKAGE
ROS = (
    "rclpy",
    "rcl_interfaces",
    "builtin_interfaces",
    "tf2_ros",
    "tf_transformations",
    "cv_bridge",
    "launch",
    "launch_ros",
)
# what the offline pipeline needs and the estimator does not (extras of setup.py)
OFFLINE = (
    "skimage",
    "fast_simplification",
    "trimesh",
    "matplotlib",
    "pycolmap",
    "onnxruntime",
    "rosbags",
    "jinja2",
    "viser",
    "ray",
)


@pytest.mark.parametrize("package", house.FLOORS)
def test_a_package_imports_only_packages_below_it(package: str) -> None:
    forbidden = set(house.package_imports()[package]) - set(house.allowed_imports(package))
    assert not forbidden, f"{package} imports {forbidden}"


def test_every_module_is_in_a_package_that_has_a_floor() -> None:
    assert {module.split(".")[0] for module in FILES} == set(house.FLOORS)


def test_a_package_may_import_only_packages_on_lower_floors() -> None:
    for package, (floor, _) in house.FLOORS.items():
        higher = {
            name for name in house.allowed_imports(package) if house.FLOORS[name][0] > floor
        }
        assert not higher, f"{package} may import {higher}"


def test_no_folder_holds_more_modules_than_a_person_can_survey() -> None:
    most = house.LIMITS["modules_per_folder"]
    assert not {folder: n for folder, n in house.modules_per_folder().items() if n > most}


def test_a_public_name_has_one_home() -> None:
    assert house.names_public_twice() == {}


def test_the_image_of_the_architecture_shows_the_packages_of_now() -> None:
    drawn = draw_architecture.draw()
    assert drawn.count("marker-end") > len(house.FLOORS)
    assert draw_architecture.IMAGE.read_text() == drawn, (
        "run python tools/draw_architecture.py"
    )


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {module: imported_modules(path, FILES) for module, path in FILES.items()}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize(
    "module", [module for module in FILES if not module.startswith("nodes")]
)
def test_ros_stays_in_nodes(module: str) -> None:
    tops = {name.split(".")[0] for name in imported_names(FILES[module])}
    assert not {
        name
        for name in tops
        if name in ROS or name.endswith("_msgs") or name.endswith("_srvs")
    }


def test_only_structure_from_motion_uses_pycolmap() -> None:
    users = {
        module
        for module, path in FILES.items()
        if "pycolmap" in {name.split(".")[0] for name in imported_names(path)}
    }
    assert users <= {
        "reconstruction.colmap_mapper",
        "reconstruction.colmap.colmap_cameras",
        "reconstruction.colmap.colmap_options",
        "reconstruction.colmap.sfm_attempt",
    }


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    # a Python of the ROS wheels hands these down, and they are its own
    environment = {
        k: v
        for k, v in os.environ.items()
        if k not in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")
    }
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )


def test_waiting_threads_do_not_spin_for_long() -> None:
    """Where others use the processor too, spinning makes everything many times slower.

    PyTorch's library reads this once.
    """
    code = (
        "import os, uns_pose_ros, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in "
        "sys.modules)"
    )
    assert run_python(code).stdout.split() == ["20000", "False"]


@pytest.mark.parametrize(
    "module",
    ["estimation.estimator", "cli.model_commands", "nodes.estimator.estimator_node"],
)
def test_the_estimator_needs_nothing_of_the_offline_pipeline(module: str) -> None:
    if module.startswith("nodes"):
        pytest.importorskip("rclpy")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({OFFLINE}))"
    done = run_python(f"{blocked}\nimport uns_pose_ros.{module}")
    assert done.returncode == 0, done.stderr[-500:]


def test_the_command_line_imports_neither_ros_nor_the_offline_pipeline() -> None:
    """`uns-pose --help` and `estimate` work on a machine that has only the core dependencies, and
    start fast.
    """
    done = run_python(
        f"import sys, uns_pose_ros.cli.main\nprint(*(name for name in {OFFLINE + ROS} if name "
        "in sys.modules))"
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() == []


def test_the_first_transform_is_made_at_once() -> None:
    """torch imports sympy, for seconds, where some functions are called first."""
    make = (
        "import sys, torch\nfrom uns_pose_ros.core import "
        "geometry\ngeometry.from_parts(torch.eye(3), torch.zeros(3))"
    )
    done = run_python(f"{make}\nprint('sympy' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr[-500:]


def test_nothing_is_unpickled_and_no_text_is_run() -> None:
    banned = {"pickle", "dill", "joblib", "shelve", "marshal", "cloudpickle"}
    for path in PACKAGE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for node in ast.walk(tree):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            )
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not {name.split(".")[0] for name in names} & banned, path
            if not isinstance(node, ast.Call):
                continue
            called = ast.unparse(node.func)
            options = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
            assert called not in ("eval", "exec", "yaml.load", "os.system"), path
            assert called != "np.load" or options.get("allow_pickle", "False") == "False", (
                path
            )
            # one file, whose checksum is known, and of it tensors only
            assert called != "torch.load" or (
                path.name == "weight_fetching.py" and options["weights_only"] == "True"
            ), path
            assert "shell" not in options, path
    assert (
        len(
            re.findall(
                r"torch\.load\(",
                (PACKAGE / "networks" / "weight_fetching.py").read_text(),
            )
        )
        == 1
    )
