"""One version, one licence, every file installed: for pip, for colcon, for rosdep."""

from __future__ import annotations

import ast
import json
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import uns_pose_ros
from uns_pose_ros.cli import doctor_command

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ET.parse(ROOT / "package.xml").getroot()
DEPENDENCIES = {element.text for element in PACKAGE if element.tag.endswith("depend")}
LOCKS = sorted((ROOT / "requirements").glob("bare-py*.txt"))


def setup_arguments() -> dict[str, ast.expr]:
    """Arguments of the call of setup() in setup.py."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call)
    ]
    [call] = [
        call
        for call in calls
        if isinstance(call.func, ast.Name) and call.func.id == "setup"
    ]
    return {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}


def test_the_version_is_the_same_everywhere() -> None:
    changelog = re.findall(
        r"^(\d+\.\d+\.\d+)\b.*\n-+$", (ROOT / "CHANGELOG.rst").read_text(), re.MULTILINE
    )
    version = uns_pose_ros.__version__
    assert PACKAGE.findtext("version") == version
    assert ast.literal_eval(setup_arguments()["version"]) == version
    assert metadata.version("uns_pose_ros") == version
    assert changelog[0] == version


def test_package_xml_is_format_3_with_a_licence_and_a_plain_maintainer() -> None:
    assert PACKAGE.get("format") == "3"
    assert PACKAGE.findtext("export/build_type") == "ament_python"
    assert (
        PACKAGE.findtext("license")
        == ast.literal_eval(setup_arguments()["license"])
        == "Apache-2.0"
    )
    maintainer = PACKAGE.find("maintainer")
    # catkin_pkg drops a maintainer with another form of address without a word
    assert maintainer is not None and re.fullmatch(
        r"[-a-zA-Z0-9_.+]+@[a-zA-Z0-9-]+\.[a-zA-Z0-9-.]+", maintainer.get("email", "")
    )
    assert "Apache License" in (ROOT / "LICENSE").read_text()


def test_every_ros_package_that_the_nodes_import_is_declared() -> None:
    known = {
        "rclpy",
        "cv_bridge",
        "tf2_ros",
        "tf_transformations",
        "launch",
        "launch_ros",
        "ament_index_python",
    }
    files = [
        *(ROOT / "uns_pose_ros" / "nodes").rglob("*.py"),
        *(ROOT / "launch").glob("*.py"),
    ]
    imported = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text())):
            names = (
                [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            )
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.split(".")[0] for name in names}
    ros = {
        name
        for name in imported
        if name in known or re.search(r"_(msgs|srvs|interfaces)$", name)
    }
    assert "rclpy" in ros and ros <= DEPENDENCIES, (
        f"missing in package.xml: {ros - DEPENDENCIES}"
    )


def test_every_package_that_launch_files_start_is_declared() -> None:
    sources = [
        *(ROOT / "launch").glob("*.py"),
        *(ROOT / "uns_pose_ros" / "nodes" / "bringup").glob("*.py"),
    ]
    text = "\n".join(path.read_text() for path in sources)
    named = set(re.findall(r'package="(\w+)"', text))
    named |= set(re.findall(r'^(?:PACKAGE|RVIZ) = "(\w+)"', text, re.MULTILINE))
    assert named == {"uns_pose_ros", "rviz2", "rqt_image_view"}
    # `ros2 VERB` comes from the package ros2VERB
    named |= {f"ros2{verb}" for verb in re.findall(r'"ros2", "(\w+)"', text)}
    named |= {
        f"ros2{verb}" for verb in re.findall(r"^    ros2 (launch) ", text, re.MULTILINE)
    }
    assert {"ros2bag", "ros2launch"} <= named
    displays = (ROOT / "config" / "uns_pose.rviz").read_text()
    plugins = set(re.findall(r"Class: (\w+)/", displays))
    # rviz2 brings its own
    named |= plugins - {"rviz_common", "rviz_default_plugins"}
    named |= {
        "rosbag2",
        "rosbag2_storage_mcap",
        "tf2_ros_py",
    }  # storage of bags, Python of tf2_ros
    assert named - {"uns_pose_ros"} <= DEPENDENCIES


def test_launch_and_config_files_and_the_index_entry_are_installed() -> None:
    sources = ast.unparse(setup_arguments()["data_files"])
    for pattern in ("launch/*.launch.py", "config/*", "package.xml", "resource/{NAME}"):
        assert pattern in sources
    assert (ROOT / "resource" / "uns_pose_ros").is_file()
    launched = {path.name for path in (ROOT / "launch").iterdir() if path.suffix == ".py"}
    assert {"estimate.launch.py", "record.launch.py", "replay.launch.py"} <= launched
    assert all(name.endswith(".launch.py") for name in launched), (
        "setup.py installs launch/*.launch.py only"
    )


def test_every_command_can_be_loaded() -> None:
    commands = {
        point.name: point
        for point in metadata.entry_points(group="console_scripts")
        if point.module.startswith("uns_pose_ros")
    }
    assert {"uns-pose", "uns-pose-bringup", "estimator"} <= commands.keys()
    declared = ast.literal_eval(setup_arguments()["entry_points"])["console_scripts"]
    named = [line.split(" = ") for line in declared]
    points = [metadata.EntryPoint(name, value, "console_scripts") for name, value in named]
    assert {point.name for point in points} >= {
        "uns-pose",
        "uns-pose-bringup",
        "estimator",
        "recorder",
    }
    for point in points:
        if ".nodes." in point.module:
            pytest.importorskip("rclpy")
        assert callable(point.load())


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.stem)
def test_locked_versions_are_exact_and_hold_no_torchvision(lock: Path) -> None:
    pins = [line for line in lock.read_text().splitlines() if not line.startswith("#")]
    names = [re.fullmatch(r"([a-z0-9._-]+)==[\w.!]+", pin) for pin in pins]
    assert all(names), [pin for pin, name in zip(pins, names, strict=True) if not name]
    assert "torch==2.13.0" in pins
    assert not {name[1] for name in names if name} & {"torchvision", "timm", "torchaudio"}


def test_every_supported_python_has_its_lock() -> None:
    assert [path.stem for path in LOCKS] == ["bare-py310", "bare-py311", "bare-py312"]


def test_nothing_builds_the_message_packages_on_a_robot() -> None:
    assert (ROOT / "tools" / "interfaces" / "COLCON_IGNORE").is_file()


def test_the_installed_torch_is_the_locked_one() -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not the environment of make setup")
    assert metadata.version("torch").partition("+")[0] == "2.13.0"
    with pytest.raises(metadata.PackageNotFoundError):
        metadata.version("torchvision")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The wheel, built of a copy: a build leaves files beside setup.py."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("uns_pose_ros", "launch", "config", "resource"):
        shutil.copytree(
            ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in (
        "setup.py",
        "setup.cfg",
        "pyproject.toml",
        "package.xml",
        "README.md",
        "LICENSE",
    ):
        shutil.copy(ROOT / name, source)
    command = [sys.executable, "setup.py", "-q", "bdist_wheel", "-d", str(out)]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-1000:]
    [path] = out.glob("*.whl")
    assert (
        path.name == f"uns_pose_ros-{uns_pose_ros.__version__}-py3-none-any.whl"
        and path.stat().st_size < 2**20
    )
    return zipfile.ZipFile(path)


def test_the_wheel_holds_the_package_and_what_ros_reads_and_nothing_else(
    wheel: zipfile.ZipFile,
) -> None:
    names = set(wheel.namelist())
    modules = {
        path.relative_to(ROOT).as_posix() for path in (ROOT / "uns_pose_ros").rglob("*.py")
    }
    assert modules <= names and "uns_pose_ros/py.typed" in names
    info, data = (
        f"uns_pose_ros-{uns_pose_ros.__version__}.dist-info",
        f"uns_pose_ros-{uns_pose_ros.__version__}.data",
    )
    shared = {
        name.removeprefix(f"{data}/data/share/uns_pose_ros/")
        for name in names
        if name.startswith(data)
    }
    assert {
        "package.xml",
        "launch/estimate.launch.py",
        "launch/record.launch.py",
        "config/estimator.yaml",
    } <= shared
    assert any(name.endswith("resource_index/packages/uns_pose_ros") for name in shared)
    assert [name for name in names if name.startswith(info) and name.endswith("LICENSE")]
    assert not [
        name
        for name in names
        if not name.startswith(("uns_pose_ros/", f"{info}/", f"{data}/"))
    ]


def test_the_wheel_asks_for_little_and_gives_the_commands(wheel: zipfile.ZipFile) -> None:
    info = f"uns_pose_ros-{uns_pose_ros.__version__}.dist-info"
    lines = wheel.read(f"{info}/METADATA").decode().splitlines()
    required = {
        line.split(": ")[1]
        for line in lines
        if line.startswith("Requires-Dist") and "extra ==" not in line
    }
    assert required == {
        "torch",
        "numpy",
        "scipy",
        "opencv-python-headless",
        "pillow",
        "safetensors",
        "msgspec",
        "tyro",
        "filelock>=4.1",
        "PyYAML",
    }
    extras = {line.split(": ")[1] for line in lines if line.startswith("Provides-Extra")}
    assert {"pipeline", "sfm", "test", "docs"} <= extras
    assert (
        "uns-pose = uns_pose_ros.cli.main:main"
        in wheel.read(f"{info}/entry_points.txt").decode()
    )


@pytest.mark.parametrize(
    ("extra", "modules"),
    [
        ("", doctor_command._CORE),
        ("pipeline", doctor_command._PIPELINE),
        ("sfm", doctor_command._SFM),
    ],
)
def test_the_doctor_looks_for_every_package_that_the_wheel_asks_for(
    extra: str, modules: tuple[str, ...], wheel: zipfile.ZipFile
) -> None:
    info = f"uns_pose_ros-{uns_pose_ros.__version__}.dist-info"
    lines = wheel.read(f"{info}/METADATA").decode().splitlines()
    asked = [
        Requirement(line.split(": ")[1])
        for line in lines
        if line.startswith("Requires-Dist")
    ]
    where = {"platform_machine": "x86_64", "extra": extra}
    wanted = {
        canonicalize_name(one.name)
        for one in asked
        if (f'extra == "{extra}"' in str(one.marker) if extra else one.marker is None)
        and (one.marker is None or one.marker.evaluate(where))
    }
    homes = metadata.packages_distributions()
    looked_for = {canonicalize_name(homes[module][0]) for module in modules}
    assert looked_for == wanted


def test_workflows_and_containers_name_what_there_is() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for path in sorted((ROOT / ".github" / "workflows").glob("*.yml")):
        jobs = yaml.safe_load(path.read_text())["jobs"]
        steps = [step.get("run", "") for job in jobs.values() for step in job["steps"]]
        for target in re.findall(r"\bmake (\w+)", " ".join(steps)):
            assert f"\n{target}:" in makefile
    dockerfile = (ROOT / "Dockerfile").read_text()
    for source in re.findall(r"^COPY ([\w./]+) ", dockerfile, re.MULTILINE):
        assert (ROOT / source).exists(), source
    assert (
        "make setup"
        in json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())[
            "postCreateCommand"
        ]
    )
    assert yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]


def test_the_citation_names_this_version_and_the_paper() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert (
        citation["version"] == uns_pose_ros.__version__
        and citation["license"] == "Apache-2.0"
    )
    assert "2407.04384" in citation["references"][0]["url"]


def test_every_locked_package_is_in_the_list_of_licences(tmp_path: Path) -> None:
    if Path(sys.prefix) != ROOT / ".venv":
        pytest.skip("not the environment of make setup")
    out = tmp_path / "sbom.json"
    subprocess.run(
        [sys.executable, str(ROOT / "requirements" / "licences.py"), str(out)],
        check=True,
        capture_output=True,
    )
    listed = {
        one["name"]: one["licenses"][0]["license"]["name"]
        for one in json.loads(out.read_text())["components"]
    }
    lock = (
        ROOT
        / "requirements"
        / f"bare-py{sys.version_info.major}{sys.version_info.minor}.txt"
    )
    pins = {
        line.partition("==")[0] for line in lock.read_text().splitlines() if "==" in line
    }
    assert listed.keys() == pins
    assert (
        listed["numpy"].startswith("BSD-3-Clause")
        and listed["ros-rclpy"] == "Apache License 2.0"
    )
