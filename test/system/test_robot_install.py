"""One way to install on a robot: README, Dockerfile and workflow have the same commands."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

import check_wheels

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text().split("## On a robot\n")[1].split("\n## ")[0]
PLACES = {
    name: (ROOT / name).read_text() for name in ("Dockerfile", ".github/workflows/test.yml")
}
FOLDER = ROOT / "requirements"
# Python packages that rosdep installs, by their names on the Python package index
OF_ROSDEP = {
    "numpy": "python3-numpy",
    "scipy": "python3-scipy",
    "opencv-python-headless": "python3-opencv",
    "pillow": "python3-pil",
    "PyYAML": "python3-yaml",
}
COMMANDS = [
    "rosdep install --from-paths src -iy",
    "python3 -m venv --system-site-packages venv && touch venv/COLCON_IGNORE",
    ". venv/bin/activate",
    "pip install -r src/uns_pose_ros/requirements/robot.txt",
    'python "$(which colcon)" build --packages-select uns_pose_ros',
    ". install/setup.bash",
    "ros2 run uns_pose_ros uns-pose weights",
]


def requirements(file: str) -> list[str]:
    """Return the lines of a requirements file, without comments and options."""
    lines = (FOLDER / file).read_text().splitlines()
    return [line for line in lines if line and not line.startswith(("#", "-"))]


def setup_list(name: str) -> list[str]:
    """Return a list of requirements of setup.py: a name at its top, or install_requires."""
    tree = ast.parse((ROOT / "setup.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            return list(ast.literal_eval(node.value))
        if isinstance(node, ast.keyword) and node.arg == name:
            return list(ast.literal_eval(node.value))
    raise AssertionError(name)


@pytest.mark.parametrize("command", COMMANDS)
def test_readme_dockerfile_and_workflow_have_the_same_commands(command: str) -> None:
    assert command in README
    for name, text in PLACES.items():
        assert command in text, name


def test_nothing_else_is_installed_by_pip_anywhere() -> None:
    for name, text in {"README.md": README, **PLACES}.items():
        for line in re.findall(r"pip install[^\n&]*", text):
            assert "robot" in line, f"{name}: {line}"
        assert "break-system-packages" not in text.lower().replace("_", "-")


def test_the_robot_gets_what_setup_py_asks_for_and_rosdep_does_not_give() -> None:
    asked = setup_list("install_requires")
    assert OF_ROSDEP.keys() <= set(asked)
    assert sorted(requirements("robot.txt")) == sorted(set(asked) - OF_ROSDEP.keys())
    declared = (ROOT / "package.xml").read_text()
    assert all(f">{key}<" in declared for key in [*OF_ROSDEP.values(), "python3-venv"])


def test_the_pipeline_on_a_robot_is_that_of_setup_py() -> None:
    names = [re.split(r"[;<>=]", line)[0] for line in requirements("robot-pipeline.txt")]
    assert sorted(names) == sorted([*setup_list("PIPELINE"), "pycolmap"])


@pytest.mark.parametrize("file", ["robot.txt", "robot-pipeline.txt"])
def test_numpy_of_the_distribution_is_kept(file: str) -> None:
    assert "-c robot-constraints.txt" in (FOLDER / file).read_text().splitlines()
    constraints = requirements("robot-constraints.txt")
    assert 'numpy<2; python_version < "3.13"' in constraints


@pytest.mark.parametrize("lock", sorted(FOLDER.glob("bare-py*.txt")), ids=lambda p: p.stem)
def test_pinned_versions_on_a_robot_are_those_of_the_tests(lock: Path) -> None:
    pins = set(lock.read_text().splitlines())
    for line in requirements("robot-constraints.txt"):
        if "==" in line.partition(";")[0]:
            assert line.partition(";")[0].strip() in pins


@pytest.mark.parametrize("python", check_wheels.TARGETS)
def test_wheels_are_looked_for_on_another_machine_and_nothing_is_installed(
    python: str, tmp_path: Path
) -> None:
    command = check_wheels.pip_command(
        FOLDER / "robot.txt", python, tmp_path / "report.json"
    )
    assert command[0] == sys.executable
    text = " ".join(command)
    assert "--dry-run" in text and "--only-binary=:all:" in text
    assert f"--python-version {python}" in text
    for tag in ("manylinux2014", "manylinux_2_17", "manylinux_2_28"):
        assert f"--platform {tag}_aarch64" in text


def test_the_chosen_wheels_are_read_from_pips_report() -> None:
    urls = ["https://host/b-1-py3-none-any.whl", "file:///x/a-2-cp310-cp310-linux.whl"]
    report = {"install": [{"download_info": {"url": url}} for url in urls]}
    assert check_wheels.chosen_wheels(report) == [
        "a-2-cp310-cp310-linux.whl",
        "b-1-py3-none-any.whl",
    ]
