"""The command that runs the paper's chain."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import arg

from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.cli.arguments import Device, Json, OnCluster
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.cli.evaluate.paper_shares import (
    ProcessShare,
    work_on_categories,
    work_on_cluster,
)
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

    Several processes share the categories out: those that torchrun starts, the same command on
    several machines with one disk, or the jobs of a Ray cluster (--cluster). The first process of
    torchrun prints the table.
    """
    if videos < 2:
        raise InvalidInput(f"--videos {videos}: 2 or more is valid")
    if most is not None and most < 1:
        raise InvalidInput(f"--most {most}: 1 or more is valid")
    share = ProcessShare.from_environment()
    if share.world > 1 and cluster is not None:
        raise InvalidInput(
            "--cluster shares the categories out by itself: torchrun or --cluster is valid"
        )
    co3d, pascal3d, into = co3d.absolute(), pascal3d.absolute(), into.absolute()
    into.mkdir(parents=True, exist_ok=True)

    def plan_chain(pairs_on: str | None = None) -> PaperPlan:
        options = ("--device", share.device(device))
        return reproduction.plan_paper(
            co3d, pascal3d, labels, into, videos, options, most, pairs_on
        )

    chain = plan_chain()
    categories = len(chain.results)
    if categories == 1 and cluster is not None:
        chain = plan_chain(cluster)
    processes = share.world if cluster is None else categories
    text = _estimate(chain, processes)
    if share.rank == 0 and plan:
        emit(_record(chain, processes), text, json)
    if plan:
        return
    if share.rank == 0:
        print(text, file=sys.stderr)
    reproduction.check_disk(chain, into, processes)
    if cluster is None or categories == 1:
        work_on_categories(chain, into, share)
    else:
        with Cluster(cluster) as connected, progress_bar() as progress:
            work_on_cluster(chain, (co3d, pascal3d, into), into, connected, progress)
    if share.rank != 0:
        return
    figures = reproduction.summarize_paper(chain)
    emit(_record(chain, processes) | figures, _table(figures), json)


def _record(chain: PaperPlan, processes: int) -> dict[str, Any]:
    return {
        "steps": len(chain.steps),
        "left": len(chain.left),
        "videos": chain.videos,
        "processes": processes,
        "seconds": chain.seconds(processes),
        "seconds_left": chain.seconds(processes, left=True),
        "disk_bytes": chain.disk(processes),
    }


def _estimate(chain: PaperPlan, processes: int) -> str:
    count = min(processes, len(chain.results))
    where = (
        "two cores of a processor" if count == 1 else f"{count} processes of two cores each"
    )
    took, left = (chain.seconds(count, left=left) / 3600 for left in (False, True))
    return (
        f"{len(chain.results)} categories, {chain.videos} videos, {len(chain.steps)} steps, "
        f"{len(chain.left)} of them left; all of them take about {took:.1f} h on {where} "
        f"({left:.1f} h of it left), and {chain.disk(count) / 1e9:.1f} GB"
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
