"""Imports go from higher levels to lower ones, ROS stays in nodes/, and what a robot does not install is not needed there."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "uns_pose_ros"
LEVELS: dict[str, int] = {
    **dict.fromkeys(["datatypes", "device", "geometry", "together"], 0),
    **dict.fromkeys(["storage", "unfinished", "ply", "colmap", "video", "onnx_reader", "weights", "masks"], 1),
    **dict.fromkeys(["sfm", "footage", "crops", "drawing"], 1),
    **dict.fromkeys(["visibility", "mesh", "backbone", "features", "onnx_writer", "runtimes"], 1),
    **dict.fromkeys(["sam", "prompting", "photo", "depth", "orbit", "keyframes", "guidance", "recording", "transform_tree"], 1),
    **dict.fromkeys(["draft", "importing", "import_movie", "import_pictures", "import_co3d", "import_bag"], 1),
    **dict.fromkeys(["unpacking", "bag_messages", "bags"], 1),
    **dict.fromkeys(["shapes", "alignment", "cluster", "consensus", "turns", "symmetry"], 2),
    **dict.fromkeys(["synchronization", "extension", "axes"], 2),
    **dict.fromkeys(["augmentation", "network", "template", "views", "fitting"], 2),
    **dict.fromkeys(
        ["training", "pose_search", "refinement", "solver", "scale", "inference", "fallback", "fusion", "tracking"], 3
    ),
    **dict.fromkeys(["evaluation", "bag_evaluation", "bag_plot", "bag_results", "pose_plot"], 4),
    **dict.fromkeys(["alignment_picture", "training_picture", "page", "report", "report_videos", "viewer"], 4),
    **dict.fromkeys(["preparation", "stages", "doctor"], 4),
    **dict.fromkeys(["cli", "cli_arguments", "cli_bag", "cli_doctor", "cli_model", "cli_pipeline", "cli_report"], 5),
    **dict.fromkeys(["cli_videos", "cli_view", "console"], 5),
    "nodes": 5,
    "cli_export": 5,
}
ROS = ("rclpy", "rcl_interfaces", "builtin_interfaces", "tf2_ros", "tf_transformations", "cv_bridge", "launch", "launch_ros")
# what the offline pipeline needs and the estimator does not (extras of setup.py)
OFFLINE = ("skimage", "fast_simplification", "trimesh", "matplotlib", "pycolmap", "onnxruntime", "rosbags", "viser", "ray")


def module_of(path: Path) -> str:
    """`inference` or `nodes.estimator_node` for a file of the package."""
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__")


FILES = {module_of(path): path for path in sorted(PACKAGE.rglob("*.py")) if path != PACKAGE / "__init__.py"}


def imports(path: Path) -> Iterator[str]:
    """Full names of everything imported anywhere in a file, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path.name}, line {node.lineno}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(path: Path) -> set[str]:
    """Modules of the package that a file imports."""
    found = set()
    for name in imports(path):
        parts = name.split(".")
        if parts[0] == PACKAGE.name:
            candidates = (".".join(parts[1:count]) for count in (2, 3))
            found |= {candidate for candidate in candidates if candidate in FILES and candidate != "nodes"}
    return found


def level(module: str) -> int:
    name = module.split(".")[0]
    assert name in LEVELS, f"uns_pose_ros/{name}.py has no level yet: give it one in LEVELS, and in the picture of the docs"
    return LEVELS[name]


@pytest.mark.parametrize("module", FILES)
def test_imports_go_to_the_same_or_a_lower_level(module: str) -> None:
    higher = {name for name in own_imports(FILES[module]) if level(name) > level(module)}
    assert not higher, f"{module} (level {level(module)}) imports {higher}"


def test_no_modules_import_each_other_in_a_circle() -> None:
    try:
        TopologicalSorter({module: own_imports(path) for module, path in FILES.items()}).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(reversed(error.args[1])))


@pytest.mark.parametrize("module", [module for module in FILES if not module.startswith("nodes")])
def test_ros_stays_in_nodes(module: str) -> None:
    tops = {name.split(".")[0] for name in imports(FILES[module])}
    assert not {name for name in tops if name in ROS or name.endswith("_msgs") or name.endswith("_srvs")}


def test_only_sfm_uses_pycolmap() -> None:
    users = {module for module, path in FILES.items() if "pycolmap" in {name.split(".")[0] for name in imports(path)}}
    assert users <= {"sfm"}


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    # a Python of the ROS wheels hands these down, and they are its own
    environment = {k: v for k, v in os.environ.items() if k not in ("_ROS_WHEELS_BOOTSTRAP_COMPLETE", "LD_LIBRARY_PATH")}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)


def test_waiting_threads_do_not_spin_for_long() -> None:
    """Where others use the processor too, spinning makes everything many times slower; PyTorch's library reads this once."""
    code = "import os, uns_pose_ros, sys; print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    assert run_python(code).stdout.split() == ["20000", "False"]


@pytest.mark.parametrize("module", ["inference", "cli_model", "nodes.estimator_node"])
def test_the_estimator_needs_nothing_of_the_offline_pipeline(module: str) -> None:
    if module.startswith("nodes"):
        pytest.importorskip("rclpy")
    blocked = f"import sys; sys.modules.update(dict.fromkeys({OFFLINE}))"
    done = run_python(f"{blocked}\nimport uns_pose_ros.{module}")
    assert done.returncode == 0, done.stderr[-500:]


def test_the_command_line_imports_neither_ros_nor_the_offline_pipeline() -> None:
    """`uns-pose --help` and `estimate` work on a machine that has only the core dependencies, and start fast."""
    done = run_python(f"import sys, uns_pose_ros.cli\nprint(*(name for name in {OFFLINE + ROS} if name in sys.modules))")
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split() == []


def test_the_first_transform_is_made_at_once() -> None:
    """torch imports sympy, for seconds, where some functions are called first."""
    make = "import sys, torch\nfrom uns_pose_ros import geometry\ngeometry.from_parts(torch.eye(3), torch.zeros(3))"
    done = run_python(f"{make}\nprint('sympy' in sys.modules)")
    assert done.stdout.split() == ["False"], done.stderr[-500:]
