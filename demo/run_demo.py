#!/usr/bin/env python3
"""From videos of eight chairs to the poses of chairs never seen, over ROS 2.

What `make demo` runs.

    demo/data/chair/clip_01..08 ─ reconstruct ─ align ─ train ─▶ demo/out/chair/model
    demo/data/live/live_01..02 ─ camera ─ DDS ─▶ estimator node, a process of its own ─ DDS ─▶ /tf …

Prints the errors against the truth and writes demo/report.html. What is done already is not done
again.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

DEMO = Path(__file__).resolve().parent
OUT = DEMO / "out"
CATEGORY = OUT / "chair"
REPORT = DEMO / "report.html"
IMAGE = OUT / "demo.jpg"
TRAINING = "clip_0[1-8]"  # clip_09 and clip_10 show the chairs of the live walks
PERIOD = 0.5  # s between the live camera's images at least
DOMAIN = "87"  # away from the robots of this network
os.environ.setdefault("ROS_DOMAIN_ID", DOMAIN)
os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")

import cv2  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402

from live import Answer, LiveCamera, node_command  # noqa: E402
from uns_pose_ros.alignment.template import TemplateConfig  # noqa: E402
from uns_pose_ros.core.types import Alignment, CategoryModel, PoseEstimate, Video  # noqa: E402
from uns_pose_ros.evaluation import rotation_labels  # noqa: E402
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures  # noqa: E402
from uns_pose_ros.evaluation.poses.pose_evaluation import ImageResult  # noqa: E402
from uns_pose_ros.io import artifacts  # noqa: E402
from uns_pose_ros.io.video_folder import list_videos, load_video  # noqa: E402
from uns_pose_ros.networks.correspondence_head import NetworkConfig  # noqa: E402
from uns_pose_ros.pipeline import (  # noqa: E402
    alignment_stage,
    reconstruction_stage,
    stage_progress,
    training_stage,
)
from uns_pose_ros.reporting.category_report import ReportContents, ReportImage, write_report  # noqa: E402
from uns_pose_ros.reporting.expectation import describe_expectation  # noqa: E402
from uns_pose_ros.reporting.video_summary import summarize_video  # noqa: E402
from uns_pose_ros.training.training_views import TrainConfig  # noqa: E402

# small, so that two cores are done in a few minutes; a robot's category deserves the defaults
TRAIN = TrainConfig(
    network=NetworkConfig(width=128),
    template=TemplateConfig(vertices=150),
    views=3,
    steps=500,
    batch=16,
    learning_rate=4e-3,
    scenes=20,
)


class Log:
    """Progress as lines with the time since the start.

    At every new task, and every five seconds in a long one.
    """

    def __init__(self) -> None:
        self._start = time.monotonic()
        self._task, self._due = "", 0.0

    def say(self, text: str) -> None:
        print(f"[{time.monotonic() - self._start:4.0f} s] {text}", flush=True)

    def progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if what != self._task or now >= self._due:
            self._task, self._due = what, now + 5
            self.say(f"  {what} {done}/{total}")


def main() -> int:
    log = Log()
    copy_videos(DEMO / "data" / "chair", CATEGORY)
    log.say("reconstruct: a mesh with features of each of 8 chair videos")
    reconstruction_stage.reconstruct(CATEGORY, progress=log.progress)
    log.say("align: one canonical frame for all, without labels")
    alignment, _ = alignment_stage.align(CATEGORY, progress=log.progress)
    log.say("train: what a pixel of a chair looks like")
    model, _ = training_stage.train(CATEGORY, config=TRAIN, progress=log.progress)

    known = [folder.name for folder in list_videos(DEMO / "data" / "chair")]
    labels = rotation_labels.load_labels(
        DEMO / "data" / "chair" / "labels.json", known
    )  # read only to measure
    aligned = rotation_labels.evaluate_alignment(alignment, labels)
    log.say(
        f"alignment: {aligned['acc30']:.0f} % of {aligned['pairs']} pairs within 30°, median "
        f"{aligned['median_deg']:.1f}°"
    )
    for line in describe_expectation(model):
        log.say(line)

    log.say("estimator node: starting as a process of its own")
    walks = [load_video(folder) for folder in list_videos(DEMO / "data" / "live")]
    answers = {}
    with estimator_node(), LiveCamera() as camera:
        camera.wait_for_node()
        for walk in walks:
            log.say(
                f"{walk.name}: {len(walk.frames)} images of a chair never seen, one every "
                f"{PERIOD:g} s, or when the last is answered"
            )
            answers[walk.name] = camera.film(walk.frames, PERIOD)
    results = compare(model, walks, answers, labels)
    for result in results:
        told = "no answer"
        if result.estimate is not None:
            told = (
                f"{result.error:5.1f}° off, score {result.estimate.score:.2f}, "
                f"{result.seconds:.2f} s after its image"
            )
        log.say(f"  {result.video}/{result.frame}: {told}")
    summary = pose_figures.summarize_poses(results)
    log.say(
        f"unseen chairs over ROS: {summary['estimated']} of {summary['images']} images answered, "
        f"{summary['acc30']:.0f} % of all within 30°, {summary['acc15']:.0f} % within 15°, "
        f"median {summary['median_deg']:.1f}°"
    )
    page(
        alignment,
        model,
        aligned,
        results,
        [answer for walk in walks for answer in answers[walk.name]],
    )
    log.say(f"images, meshes and figures: {REPORT}")
    return 0


def page(
    alignment: Alignment,
    model: CategoryModel,
    aligned: Mapping[str, Any],
    results: Sequence[ImageResult],
    answers: Sequence[Answer | None],
) -> None:
    """Write REPORT with the overlays that the node drew, the worst first."""
    meshes = {
        name: artifacts.load_feature_mesh(CATEGORY / name) for name in alignment.videos
    }
    shots = []
    for result, answer in sorted(
        zip(results, answers, strict=True), key=lambda pair: -pair[0].error
    ):
        if answer is not None and answer.overlay is not None:
            caption = (
                f"{result.video}/{result.frame}, score {answer.score:.2f}, "
                f"{result.error:.1f}° off"
            )
            shots.append(ReportImage(answer.overlay, caption, answer.score, result.error))
    accuracies = {
        "alignment of the training videos": aligned,
        "unseen chairs, by the node over ROS": pose_figures.summarize_poses(results),
    }
    facts = [
        summarize_video(
            load_video(CATEGORY / name),
            mesh,
            artifacts.provenance_of(CATEGORY / name / artifacts.FEATURES) or {},
        )
        for name, mesh in meshes.items()
    ]
    errors = [result.error for result in results]
    spent = stage_progress.stage_seconds(CATEGORY, model)
    write_report(
        REPORT,
        ReportContents(
            model.category,
            alignment,
            meshes,
            model,
            shots,
            errors,
            accuracies,
            facts,
            spent,
        ),
    )
    drawn = [
        answer.overlay
        for answer in answers
        if answer is not None and answer.overlay is not None
    ]
    some = drawn[:: max(1, len(drawn) // 8)][:8]  # evenly over the walks, not the best
    if len(some) == 8:
        rows = [np.concatenate(some[k : k + 4], 1) for k in (0, 4)]
        cv2.imwrite(
            str(IMAGE), np.concatenate(rows)[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80]
        )


def copy_videos(source: Path, target: Path) -> None:
    """The training videos, where the stages may write beside them; a video once copied stays."""
    for folder in list_videos(source, TRAINING):
        if not (target / folder.name).exists():
            unfinished = target / f".{folder.name}"
            shutil.rmtree(unfinished, ignore_errors=True)
            shutil.copytree(folder, unfinished)
            unfinished.rename(target / folder.name)


@contextmanager
def estimator_node() -> Iterator[None]:
    """The node's process from start to SIGINT; raises where it does not end clean."""
    process = subprocess.Popen(node_command(CATEGORY / "model"))
    try:
        yield
    finally:
        process.send_signal(signal.SIGINT)
        code = process.wait(30)
    if code:
        raise RuntimeError(f"the estimator node ended with exit code {code}")


def compare(
    model: CategoryModel,
    walks: Sequence[Video],
    answers: dict[str, list[Answer | None]],
    labels: dict[str, torch.Tensor],
) -> list[ImageResult]:
    """Each live image's answer against its label, as `uns-pose evaluate pose` compares."""
    live = rotation_labels.load_labels(
        DEMO / "data" / "live" / "labels.json", [walk.name for walk in walks]
    )
    label_from_canon = rotation_labels.fit_label_from_canon(model, labels)
    results = []
    for walk in walks:
        for frame, answer in zip(walk.frames, answers[walk.name], strict=True):
            assert frame.cam_from_obj is not None
            truth = frame.cam_from_obj[:3, :3] @ live[walk.name].T @ label_from_canon
            found = received(model, answer)
            seconds = math.nan if answer is None else answer.latency
            results.append(
                pose_evaluation.score_estimates(
                    [] if found is None else [found],
                    model,
                    truth,
                    walk.name,
                    frame.name,
                    seconds,
                )
            )
    return results


def received(model: CategoryModel, answer: Answer | None) -> PoseEstimate | None:
    """What the messages say, as the estimate that they were made from.

    They do not tell its inliers.
    """
    if answer is None:
        return None
    return PoseEstimate(
        model.category,
        answer.cam_from_canon,
        float(answer.size.norm()),
        True,
        answer.size,
        answer.score,
        None,
        model.symmetry,
        0,
        0.0,
        torch.zeros(4, dtype=torch.float64),
    )


if __name__ == "__main__":
    sys.exit(main())
