"""The command that checks this machine, or the videos of a category."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import torch
from tyro.conf import Positional, arg

from uns_pose_ros.cli.arguments import Json, Videos
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.cli.model_commands import weights_record
from uns_pose_ros.core.errors import InvalidInput

if TYPE_CHECKING:
    from uns_pose_ros.reporting.capture_check import Checkup, Finding

# Modules, not the distributions of `importlib.metadata`: their names differ (cv2, skimage), and a
# package of the operating system has no such distribution.
_CORE = (
    "torch",
    "numpy",
    "scipy",
    "cv2",
    "PIL",
    "safetensors",
    "msgspec",
    "tyro",
    "filelock",
    "yaml",
)
_ROS = ("rclpy", "tf2_msgs", "vision_msgs")
_SFM = ("pycolmap",)
_PIPELINE = (
    "skimage",
    "fast_simplification",
    "matplotlib",
    "onnxruntime",
    "rosbags",
    "jinja2",
)
_HEADER = (
    "video",
    "images",
    "blurred",
    "posed",
    "around °",
    "masks' fit",
    "",
)
_IMAGE_HEADER = ("setting", "arrived", "lost %", "sent Hz", "longest gap ms")
_SLOW = 0.9  # share of the rate below which the machine cannot send it
_BUSY = 1.0  # load a core above which other programs disturb the measurement
_WIDTH = 100  # columns
MEND = 1  # exit code where a video must be mended

OptionalCategory = Annotated[
    Positional[Path | None],
    arg(
        metavar="[CATEGORY]",
        help="folder with one subfolder a video; without: this machine",
    ),
]


ImageTrial = Annotated[
    bool,
    arg(
        help="measure the loss of images between two processes here, and which setting of the "
        "middleware helps; needs ROS and 10 to 20 s"
    ),
]
ImageSize = Annotated[
    tuple[int, int], arg(metavar="WIDTH HEIGHT", help="of the images of --images, px")
]
Rate = Annotated[float, arg(metavar="HZ", help="of the images of --images")]
Seconds = Annotated[float, arg(metavar="S", help="that each setting is tried by --images")]


def doctor_command(
    category: OptionalCategory = None,
    videos: Videos = None,
    images: ImageTrial = False,
    image_size: ImageSize = (1920, 1080),
    rate: Rate = 30.0,
    seconds: Seconds = 3.0,
    json: Json = None,
) -> int:
    """List the faults of the videos of a category and their remedies.

    Without a category, list what this machine has and lacks. The command changes and fetches
    nothing. Poses and masks that `reconstruct` finds by itself are not missing. A line with "mend"
    ends the command with exit code 1; with "look", the video could be better. masks' fit: overlap
    of masks and silhouettes of their hull, 0 to 1. With --images, measure how many large images get
    lost between two processes.
    """
    if images and category is not None:
        raise InvalidInput(
            f"doctor {category} --images: checks the videos or this machine, not both; "
            "doctor --images without a category is valid"
        )
    if images:
        _image_loss((*image_size, rate, seconds), json)
        return 0
    if category is None:
        _machine(json)
        return 0
    from uns_pose_ros.reporting import (
        capture_check as doctors,
    )  # needs the pipeline's packages

    with progress_bar() as progress:
        found = doctors.check_category(category, videos, progress=progress)
    rows = []
    for one in found:
        counts = [
            str(value) if value is not None else "–"
            for value in (one.images or None, one.blurred, one.posed)
        ]
        verdict = "mend" if one.mend else "look" if one.findings else "ok"
        covered, fit = figure(one.covered_deg, 0), figure(one.fit, 2)
        rows.append([one.name, *counts, covered, fit, verdict])
    mend = [one.name for one in found if one.mend]
    record = {"mend": mend, "videos": {one.name: one.record() for one in found}}
    emit(record, "\n".join([table(_HEADER, rows), *_finding_lines(found)]), json)
    return MEND if mend else 0


def _finding_lines(found: Sequence[Checkup]) -> list[str]:
    """The findings, what must be mended first; one that several videos have stands once."""
    same: dict[Finding, list[str]] = {}
    for one in found:
        for finding in one.findings:
            named = f"{one.name} ({finding.detail})" if finding.detail else one.name
            same.setdefault(replace(finding, detail=""), []).append(named)
    lines = []
    for finding, names in sorted(same.items(), key=lambda item: not item[0].mend):
        everywhere = len(names) > 1 and len(names) == sum(one.images > 0 for one in found)
        who = f"all {len(names)} videos" if everywhere else ", ".join(names)
        if everywhere and any("(" in name for name in names):
            who += f": {', '.join(names)}"
        first = f"{'mend' if finding.mend else 'look'}  {who}"
        for text, indent in (
            (first, ""),
            (finding.what, " " * 6),
            (finding.remedy, " " * 6),
        ):
            lead = "→ " if text is finding.remedy else ""
            lines += textwrap.wrap(
                lead + text,
                _WIDTH,
                initial_indent=indent,
                subsequent_indent=" " * 6 + " " * len(lead),
                break_long_words=False,
                break_on_hyphens=False,
            )
    return lines


def _machine(json: str | None) -> None:
    """Print what this machine has and lacks for each job; change and fetch nothing."""
    missing = {
        "estimate": _missing(_CORE),
        "pipeline": _missing(_PIPELINE),
        "poses from images": _missing(_SFM),
        "ROS": _missing(_ROS),
    }
    cuda = [torch.cuda.get_device_name(k) for k in range(torch.cuda.device_count())]
    absent = [name for name, one in weights_record().items() if not one["intact"]]
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    )
    record = {
        "python": platform.python_version(),
        "system": platform.platform(),
        "cores": cores,
        "torch": importlib.metadata.version("torch"),
        "cuda_devices": cuda,
        "missing_packages": missing,
        "missing_weights": absent,
    }
    remedy = {
        "estimate": "pip install uns_pose_ros",
        "pipeline": 'pip install "uns_pose_ros[pipeline]"',
        "poses from images": 'pip install "uns_pose_ros[sfm]"',
    }
    lines = [
        f"Python {record['python']}, torch {record['torch']}, {cores} cores, {record['system']}",
        f"CUDA: {', '.join(cuda) or 'no device, the CPU is used'}",
    ]
    for job, lacks in missing.items():
        fix = remedy.get(job, "source a ROS 2 installation, or see the README")
        lines.append(
            f"{job}: "
            + (f"lacks {', '.join(lacks)} ({fix})" if lacks else "all packages are here")
        )
    lines.append(
        f"weights: {', '.join(absent)} missing: uns-pose weights"
        if absent
        else "weights: all are here"
    )
    emit(record, "\n".join(lines), json)


def _image_loss(sizes: tuple[int, int, float, float], json: str | None) -> None:
    """Measure and print the loss of images, and the setting that helps."""
    from uns_pose_ros.nodes import image_loss  # asks for ROS only when it measures

    stream = image_loss.TrialImages(*sizes)
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    middleware, losses = image_loss.measure_image_loss(
        stream, lambda name: print(f"{name} …", file=sys.stderr, flush=True)
    )
    limit = image_loss.socket_limit_bytes()
    advice = image_loss.image_advice(middleware, losses, limit)
    rows = []
    for loss in losses:
        gap = f"{loss.longest_gap * 1000:.0f}"
        arrived = [
            f"{loss.received} of {loss.sent}",
            f"{100 * loss.lost:.0f}",
            f"{loss.rate:.1f}",
            gap,
        ]
        rows.append([loss.setting, *(["–"] * 4 if loss.fault else arrived)])
    lines = [
        f"{stream.width} x {stream.height} rgb8 at {stream.rate:g} Hz "
        f"({stream.megabytes_per_second:.0f} MB/s) between two processes, {middleware}",
        table(_IMAGE_HEADER, rows),
        *(f"{loss.setting}: {loss.fault}" for loss in losses if loss.fault),
    ]
    slowest = min((loss.rate for loss in losses if not loss.fault), default=stream.rate)
    if slowest < _SLOW * stream.rate:
        lines.append(f"this machine is too busy to send {stream.rate:g} images a second")
    if load > _BUSY * cores:
        lines.append(
            f"other programs were busy (load {load:.1f} on {cores} cores): measure again while "
            "they rest; a robot that is always so busy loses as much"
        )
    lines += [f"→ {line}" for line in advice]
    record = {
        "middleware": middleware,
        "width": stream.width,
        "height": stream.height,
        "rate_hz": stream.rate,
        "socket_limit_bytes": limit,
        "load_before": round(load, 2),
        "settings": [loss.record() for loss in losses],
        "advice": advice,
    }
    emit(record, "\n".join(lines), json)


def _missing(modules: Sequence[str]) -> list[str]:
    return [name for name in modules if importlib.util.find_spec(name) is None]
