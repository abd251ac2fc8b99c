"""The command that evaluates a model on a recorded bag."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from tyro.conf import OmitArgPrefixes, Positional, arg

from uns_pose_ros.cli.arguments import Device, Estimation, Json
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.cli.model_commands import Model, accuracy_table
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import (
    bag_cameras,
    bag_figures,
    rosbag_export,
    rosbag_plot,
)
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.evaluation.rosbag_evaluation import FrameCallback
from uns_pose_ros.exports.bag_labels import template_hash
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.writing.replacement import atomic_write
from uns_pose_ros.visualization.rerun_recording import RerunRecording, check_rerun_path

Bag = Annotated[
    Positional[Path],
    arg(metavar="BAG", help="rosbag2 recording: its folder, or its .mcap or .db3 file"),
]


def evaluate_bag_command(
    model: Model,
    bag: Bag,
    config: OmitArgPrefixes[BagConfig] = BagConfig(),
    results: Annotated[
        Path | None,
        arg(
            metavar="BAG",
            help="write a bag with /tf, detections, poses and markers: NAME.mcap, or a folder "
            "(sqlite3)",
        ),
    ] = None,
    bop: Annotated[
        Path | None,
        arg(metavar="FILE", help="write all estimates as a CSV of the BOP benchmark"),
    ] = None,
    plot: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="write an image of error and time over the bag: .png, .svg or .pdf",
        ),
    ] = None,
    rerun: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="write images, objects and scores as a recording of the viewer rerun: NAME.rrd; "
            "needs pip install 'uns_pose_ros[rerun]'",
        ),
    ] = None,
    device: Device = "auto",
    json: Json = None,
    estimator: Estimation = EstimatorConfig(),
) -> None:
    """Estimate every image of a recorded bag and print accuracy, time, jitter and losses.

    The bag is not played. The best estimate of each image is compared with the truth: a TF frame, a
    topic with poses, an object at rest, or a printed board of markers (`uns-pose board`). Without
    a truth, the command prints time, jitter and losses only. The frame of the truth is taken to be
    the frame of the model, unless --fit fits it.
    """
    if results is not None and results.exists():
        raise InvalidInput(f"{results}: is there already; another name, or delete it")
    if plot is not None:
        rosbag_plot.check_plot_path(plot)
    if rerun is not None:
        check_rerun_path(rerun)
        if config.image_topics:
            raise InvalidInput(
                "--rerun records one camera: --image-topic is valid with it, not --image-topics"
            )
    trained = artifacts.load_model(model)
    find = Estimator(trained, device=device, config=estimator)
    with progress_bar() as progress, ExitStack() as stack:
        keep: FrameCallback = lambda result, image, camera: None  # noqa: E731
        if rerun is not None:
            written = stack.enter_context(atomic_write(rerun))
            keep = _record_frames(stack.enter_context(RerunRecording(written, [trained])))
        found = bag_cameras.estimate_bag(bag, find, config, progress, keep)
    frames = found.frames
    truth_from_canon = found.fit_truth(trained, config)
    record = bag_cameras.summarize_results(found, trained, truth_from_canon)
    advice = bag_figures.advise_fit(found.images, trained, truth_from_canon)
    if bop is not None:
        rosbag_export.write_bop(bop, frames)
    errors = bag_figures.pose_errors(frames, trained, truth_from_canon)
    if plot is not None:
        rosbag_plot.write_bag_plot(plot, frames, errors)
    if results is not None:  # last: the command cannot be repeated where they are
        placed = found.in_fixed_frame(config.fixed_frame or "")
        rosbag_export.write_bag(results, placed, trained)
    extra = {
        "fused": config.fuse,
        "category": trained.category,
        "template_sha256": template_hash(trained),
        "image_topic": config.image_topic,
        "image_topics": list(config.image_topics),
        "camera_info_topic": config.camera_info_topic,
        "depth_topic": config.depth_topic,
        "truth_from_canon": truth_from_canon.tolist(),
        "advice": advice,
        "frames": rosbag_export.frame_records(frames, errors, truth_from_canon),
    }
    emit(record | extra, _text(record, advice), json)


def _record_frames(recording: RerunRecording) -> FrameCallback:
    def keep(result: FrameResult, image: np.ndarray, camera: Camera) -> None:
        recording.add(
            result.stamp, image, camera, result.estimates, result.tracks, result.seconds
        )

    return keep


def _text(record: Mapping[str, Any], advice: str = "") -> str:
    counted = "stamps of several cameras" if "cameras" in record else "images"
    lines = [
        f"{record['images']} {counted}, {record['estimated']} with an estimate, "
        f"{record['with_truth']} with a known pose"
    ]
    if record["with_truth"]:
        lines += [
            accuracy_table(record),
            f"auroc of the score: {figure(record['auroc'], 2)}",
        ]
    if depth := record["depth"]:
        counts = ", ".join(f"{use}: {count}" for use, count in depth.items())
        lines.append(f"depth at the objects: {counts}")
    if "cameras" in record:
        lines.append(_cameras_table(record))
    if advice:
        lines.append(advice)
    jitter, tracks = record["jitter"], record["tracks"]
    rows = [
        ["time per image, s", *_cells(record["seconds"], 3)],
        ["translation error, m", *_cells(record["translation_m"], 3)],
        [
            "translation error, % of the distance",
            *_cells(record["translation_percent"], 1),
        ],
    ]
    rows += [
        ["jitter, °", *_cells(jitter["deg"], 1)],
        ["jitter, m", *_cells(jitter["m"], 3)],
    ]
    lines.append(table(["", "p50", "p95", "max"], rows))
    if jitter["against"]:
        lines.append(f"jitter over {jitter['steps']} steps, against {jitter['against']}")
    lines.append(
        f"{tracks['ids']} track ids; lost {tracks['gaps']} times, the longest for "
        f"{tracks['longest_gap_images']} images "
        f"({tracks['longest_gap_s']:.1f} s)"
    )
    return "\n".join(lines)


def _cameras_table(record: Mapping[str, Any]) -> str:
    """Accuracies of each camera, and of all of them fused."""
    rows = []
    for name, figures in [*record["cameras"].items(), ("fused", record)]:
        shift = figures["translation_percent"]
        rows.append(
            [
                name,
                f"{figures['estimated']}/{figures['images']}",
                *(figure(figures[key], 1) for key in ("acc30", "acc10", "median_deg")),
                figure(None if shift is None else shift["p50"], 1),
            ]
        )
    head = ["camera", "estimated", "acc30", "acc10", "median °", "translation %"]
    return table(head, rows)


def _cells(spread: Mapping[str, float] | None, digits: int) -> list[str]:
    return [
        figure(None if spread is None else spread[key], digits)
        for key in ("p50", "p95", "max")
    ]
