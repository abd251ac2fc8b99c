"""The command that shows a category on one page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import arg

from uns_pose_ros.cli.arguments import Category, Device, Json, Videos
from uns_pose_ros.cli.console import StageTimes, emit, progress_bar
from uns_pose_ros.reporting.report_builder import REPORT, make_report


def report_command(
    category: Category,
    videos: Videos = None,
    labels: Annotated[
        Path | None,
        arg(metavar="FILE", help="default: CATEGORY/labels.json where it exists"),
    ] = None,
    out: Annotated[
        Path | None, arg(metavar="FILE", help="the page; default: CATEGORY/report.html")
    ] = None,
    images: Annotated[
        int, arg(metavar="N", help="images a video that are estimated, evenly spread")
    ] = 12,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Write one HTML page about a category.

    It shows what to look at, accuracy, estimates, videos, alignment, correspondences, training and
    time.

    --videos: the videos to estimate in. Default: all that the model was not trained on; if it was
    trained on all, some of these. Labels only measure the accuracy.
    """
    page, times = out or category / REPORT, StageTimes()
    with progress_bar() as progress:
        record = make_report(
            category, videos, labels, page, images, device, times.follow(progress)
        )
    times.end_stage("report: page")
    text = f"{record['report']}: {record['images']} images estimated\n{times.text()}"
    emit({**record, "seconds": times.seconds}, text, json)
