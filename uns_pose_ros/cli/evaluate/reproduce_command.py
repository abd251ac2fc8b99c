"""The command that runs the paper's chain."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from uns_pose_ros.cli import main
from uns_pose_ros.cli.arguments import Device, Json, OnCluster
from uns_pose_ros.cli.console import emit, figure, table
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.pipeline import reproduction
from uns_pose_ros.pipeline.reproduction import CONSENSUS, PaperPlan


def reproduce_paper_command(
    co3d: Annotated[Path, arg(metavar="ROOT", help="folder of CO3D version 2")],
    pascal3d: Annotated[Path, arg(metavar="ROOT", help="folder of PASCAL3D+ 1.1")],
    labels: Annotated[
        Path,
        arg(
            metavar="FILE",
            help='{"CATEGORY": {"SEQUENCE": {"canon_from_obj": 3x3 rotation}, …}, …}, by the '
            "names of CO3D; x forward, y left, z up; at most five references a category count",
        ),
    ],
    into: Annotated[Path, arg(metavar="DIR", help="videos, models and results")],
    videos: Annotated[
        int,
        arg(metavar="N", help="of each category: the references, then the best cameras"),
    ] = 50,
    most: Annotated[
        int | None, arg(metavar="N", help="evaluate N images of each category only")
    ] = None,
    plan: Annotated[bool, arg(help="print the estimate of time and disk only")] = False,
    cluster: OnCluster = None,
    device: Device = "auto",
    json: Json = None,
) -> None:
    """Import CO3D, align as published and by consensus, train, and evaluate on PASCAL3D+.

    A model is trained for each reference of each category, and one for the consensus. What is done
    is kept: the same command goes on where it was stopped.
    """
    if videos < 2:
        raise InvalidInput(f"--videos {videos}: 2 or more is valid")
    if most is not None and most < 1:
        raise InvalidInput(f"--most {most}: 1 or more is valid")
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InvalidInput(
            "the chain runs in one process; under torchrun, `uns-pose train` alone is valid"
        )
    into.mkdir(parents=True, exist_ok=True)
    chain = reproduction.plan_paper(
        co3d, pascal3d, labels, into, videos, ("--device", device), most, cluster
    )
    text = _estimate(chain)
    if plan:
        emit(_record(chain), text, json)
        return
    print(text, file=sys.stderr)
    reproduction.check_disk(chain, into)
    for step in chain.steps:
        if step.result is not None and step.result.exists():
            continue
        print(f"uns-pose {' '.join(step.words)}", file=sys.stderr, flush=True)
        code = main.run_quietly(step.words)
        if code != main.DONE:
            raise InvalidInput(
                f"the step `uns-pose {' '.join(step.words)}` ended with {code}; mend what it "
                "says, then run the same command again"
            )
    figures = reproduction.summarize_paper(chain)
    emit(_record(chain) | figures, _table(figures), json)


def _record(chain: PaperPlan) -> dict[str, Any]:
    return {
        "steps": len(chain.steps),
        "left": len(chain.left),
        "videos": chain.videos,
        "seconds": chain.seconds,
        "disk_bytes": chain.disk,
    }


def _estimate(chain: PaperPlan) -> str:
    return (
        f"{len(chain.results)} categories, {chain.videos} videos, {len(chain.steps)} steps, "
        f"{len(chain.left)} of them left; all of them take about {chain.seconds / 3600:.1f} h on "
        f"two cores of a processor, and {chain.disk / 1e9:.1f} GB"
    )


def _table(figures: Mapping[str, Any]) -> str:
    keys = [f"acc{angle}" for angle in ANGLES]
    rows = list[list[str]]()
    for row, words in (("detected", "detected"), ("true_crop", "true crop")):
        for category, variants in figures["categories"].items():
            for name, values in variants.items():
                cells = [figure(values[row][key]) for key in keys]
                rows.append([category, name, words, *cells])
        mean, spread = figures[row]["published"], figures[row]["published_std"]
        cells = [f"{figure(mean[key])} ± {figure(spread[key])}" for key in keys]
        rows.append(["mean", "references, as published", words, *cells])
        cells = [figure(figures[row][CONSENSUS][key]) for key in keys]
        rows.append(["mean", CONSENSUS, words, *cells])
    return table(["", "aligned to", "", *(f"@{angle}° %" for angle in ANGLES)], rows)
