"""Make .venv ready on a machine without a ROS installation: `make setup`.

Five steps, each skipped while what it was made from is unchanged: the environment, the packages of
requirements/ (ROS 2 among them), the message packages of tools/interfaces, this package itself, the
pretrained weights. Their output: .venv/setup.log. Older Pythons must be able to read this file, to
be told that they are too old.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import platform
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
LOG = VENV / "setup.log"
STAMPS = VENV / "setup.json"
VALID_PYTHONS = ((3, 10), (3, 11), (3, 12))
TOOLS = ("gcc", "g++", "cmake", "make")
# the reference graph is for the backbone's test
WEIGHTS = ("dinov2_vits14", "u2netp", "mobile_sam", "dinov2_vits14_onnx")
FETCH = """
import sys
from uns_pose_ros.networks import weight_fetching
for name in sys.argv[1:]:
    weight_fetching.fetch(name, progress=print)
"""
# rclpy finds its middleware through AMENT_PREFIX_PATH, which the wheels leave unset
AMENT_PTH = 'import os, sys; os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)\n'


def main() -> None:
    complaint = what_is_missing()
    if complaint:
        sys.exit(f"setup: {complaint}")
    pins = (
        ROOT
        / "requirements"
        / f"bare-py{sys.version_info.major}{sys.version_info.minor}.txt"
    )
    interfaces = files_under(ROOT / "tools" / "interfaces")
    itself = [
        ROOT / name for name in ("setup.py", "setup.cfg", "pyproject.toml", "package.xml")
    ]
    if read_stamps().get("environment") != environment() and VENV.exists():
        shutil.rmtree(VENV)  # made elsewhere, or by another Python
    started = time.monotonic()
    steps: list[
        tuple[str, str, Callable[[], str], Callable[[], None]]
    ] = [  # name, title, key, work
        ("environment", "virtual environment", environment, make_environment),
        (
            "packages",
            "Python packages and ROS 2 (1-2 minutes, 1.9 GB)",
            lambda: key_of([pins]),
            lambda: install_packages(pins),
        ),
        (
            "interfaces",
            "message packages (half a minute)",
            lambda: key_of([pins, *interfaces]),
            build_interfaces,
        ),
        ("itself", "uns_pose_ros", lambda: key_of(itself), install_itself),
        ("weights", "pretrained weights (220 MB)", weights_key, fetch_weights),
    ]
    spent = {}
    for number, (name, title, key, work) in enumerate(steps, 1):
        if read_stamps().get(name) != key():
            print(f"[{number}/{len(steps)}] {title} ...", flush=True)
            begun = time.monotonic()
            work()
            write_stamps({**read_stamps(), name: key()})
            spent[name] = time.monotonic() - begun
            print(f"[{number}/{len(steps)}] done in {spent[name]:.0f} s", flush=True)
    print(describe_times(spent), end="")
    print(
        f"setup: ready after {time.monotonic() - started:.0f} s; the commands are in .venv/bin",
        flush=True,
    )


def describe_times(spent: dict[str, float]) -> str:
    """One line for each step that ran: its seconds, and its share of all."""
    whole = max(sum(spent.values()), 1e-9)
    return "".join(
        f"  {name:12s} {seconds:6.0f} s {100 * seconds / whole:4.0f} %\n"
        for name, seconds in spent.items()
    )


def what_is_missing() -> str | None:
    """One line on what this machine lacks, None where it has everything."""
    version = sys.version_info[:2]
    if version not in VALID_PYTHONS:
        return (
            f"Python {version[0]}.{version[1]} is not supported, 3.10 to 3.12 are: make "
            "setup PYTHON=python3.11"
        )
    if (platform.system(), platform.machine()) != ("Linux", "x86_64"):
        return (
            f"ROS 2 as Python packages exists for Linux on x86-64, this is {platform.system()} "
            f"on {platform.machine()}: "
            "install ROS 2 and build with colcon (README, On a robot)"
        )
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        return f"{', '.join(missing)} not found: sudo apt install gcc g++ cmake make"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return (
            "the headers of Python are missing: sudo apt install "
            f"python{version[0]}.{version[1]}-dev"
        )
    if importlib.util.find_spec("ensurepip") is None:
        return (
            "the venv module of Python is incomplete: sudo apt install "
            f"python{version[0]}.{version[1]}-venv"
        )
    return None


def environment() -> str:
    return f"{sys.version} {sys.base_prefix} {VENV}"


def make_environment() -> None:
    run([sys.executable, "-m", "venv", str(VENV)])
    site = (
        VENV
        / "lib"
        / f"python{sys.version_info.major}.{sys.version_info.minor}"
        / "site-packages"
    )
    (site / "uns_pose_ros_ament.pth").write_text(AMENT_PTH)


def install_packages(pins: Path) -> None:
    # byte code is left to the first import: most of what is installed is never imported
    pip("--no-compile", "--requirement", str(pins))


def build_interfaces() -> None:
    run([str(ROOT / "tools" / "interfaces" / "build.sh"), str(VENV)])


def install_itself() -> None:
    pip("--no-deps", "--no-build-isolation", "--editable", str(ROOT))


def fetch_weights() -> None:
    run([str(PYTHON), "-c", FETCH, *WEIGHTS])


def weights_key() -> str:
    """Changes with the sources of the weights and with what is in their cache, so that a deleted
    file is fetched again.
    """
    cache = (
        Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "uns_pose_ros"
    )
    return key_of(
        [
            ROOT / "uns_pose_ros" / "networks" / f"{module}.py"
            for module in ("weight_catalog", "weight_fetching", "pretrained_weights")
        ],
        *sorted(map(str, cache.glob("*.*"))),
    )


def pip(*arguments: str) -> None:
    run([str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", *arguments])


def run(command: list[str]) -> None:
    """Run a command, its output into the log, on a terminal the newest line in view.

    A failure ends the set-up.
    """
    lines: list[str] = []
    VENV.mkdir(exist_ok=True)
    process = subprocess.Popen(
        command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    with LOG.open("a") as log:
        for line in process.stdout or ():
            log.write(line)
            lines.append(line)
            if sys.stdout.isatty():
                print(
                    f"\r\033[K  {line.strip()[: shutil.get_terminal_size().columns - 3]}",
                    end="",
                    flush=True,
                )
    if sys.stdout.isatty():
        print("\r\033[K", end="", flush=True)
    if process.wait():
        end = "\n".join(line.rstrip()[:200] for line in lines[-8:])
        sys.exit(
            f"{end}\nsetup: failed ({' '.join(command)[:100]}); all of its output is in {LOG}"
        )


def read_stamps() -> dict[str, str]:
    try:
        return dict(json.loads(STAMPS.read_text()))
    except (OSError, ValueError):
        return {}


def write_stamps(stamps: dict[str, str]) -> None:
    partial = STAMPS.with_suffix(".tmp")
    partial.write_text(json.dumps(stamps, indent=1))
    partial.replace(STAMPS)


def key_of(files: Iterable[Path], *parts: str) -> str:
    digest = hashlib.sha256("\n".join(parts).encode())
    for path in files:
        digest.update(f"\n{path.name}\n".encode() + path.read_bytes())
    return digest.hexdigest()


def files_under(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


if __name__ == "__main__":
    main()
