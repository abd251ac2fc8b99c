"""The command that takes images of a robot's own places for `--backgrounds`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import OmitArgPrefixes, Positional, arg

from uns_pose_ros.capture.backgrounds import (
    BackgroundConfig,
    Judge,
    write_backgrounds,
)
from uns_pose_ros.cli.arguments import Device, Json
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.core.camera import assumed_camera
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import Pixels

_DOUBT = 0.5  # share of the threshold from which on the model may see an object


def backgrounds_command(
    source: Annotated[
        Positional[Path],
        arg(metavar="SOURCE", help="rosbag2, film, or folder of images (and subfolders)"),
    ],
    into: Annotated[Path, arg(metavar="FOLDER", help="the folder to make")],
    model: Annotated[
        Path | None,
        arg(
            metavar="MODEL",
            help="leave out images in which this model sees its object, or nearly does",
        ),
    ] = None,
    seen: Annotated[
        Path | None,
        arg(
            metavar="FOLDER",
            help="write those there; where none is in the image, move it to the backgrounds: it "
            "teaches most",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = None,
    config: OmitArgPrefixes[BackgroundConfig] = BackgroundConfig(),
) -> None:
    """Write images of a robot's places that differ, for `--backgrounds` of `run` and `train`.

    They are the sharpest of each stretch, spread over the recording, without near-duplicates. They
    must not show the object: record without it, or give a model that knows it.
    """
    if seen is not None and model is None:
        raise InvalidInput("--seen goes with --model, which sees the object")
    judge = None if model is None else _judge(model, device)
    with progress_bar() as progress:
        chosen = write_backgrounds(source, into, config, judge, seen, progress)
    lines = [f"{into}: {len(chosen.names)} of {chosen.images} images"]
    if chosen.measured < chosen.images:
        lines.append(f"  one in {round(chosen.images / chosen.measured)} was looked at")
    lines += [f"  left out: {line}" for line in chosen.left_out.lines()]
    if chosen.seen:
        lines.append(
            f"{seen}: {len(chosen.seen)} images in which the model sees the object; move those "
            f"without one to {into}"
        )
    if model is None:
        lines.append(
            "no --model: nothing looked for the object; delete the images that show it"
        )
    record = {
        "backgrounds": str(into),
        "images": chosen.images,
        "looked_at": chosen.measured,
        "files": chosen.names,
        "seen": chosen.seen,
        "left_out": chosen.left_out.counts,
    }
    emit(record, "\n".join(lines), json)


def _judge(model: Path, device: str) -> Judge:
    """Whether a model sees its object in an image, or nearly does."""
    find = Estimator(artifacts.load_model(model), device=device)

    def sees(image: Pixels) -> bool:
        height, width = image.shape[:2]
        found = find.without_threshold(image, assumed_camera(width, height))
        return any(one.score >= _DOUBT * find.threshold for one in found)

    return sees
