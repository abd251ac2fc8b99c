"""The command that writes labels in the formats of other programs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import OmitArgPrefixes, arg

from uns_pose_ros.cli.arguments import Categories, Json, Videos
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.exports.bag_labels import BagSelection
from uns_pose_ros.exports.label_export import ExportConfig, export_labels
from uns_pose_ros.exports.splits import SplitConfig
from uns_pose_ros.exports.video_labels import VideoSelection


def export_labels_command(
    categories: Categories,
    format: Annotated[
        str,
        arg(metavar="NAME", help="bop, coco, yolo-pose, nerfstudio or foundationpose"),
    ],
    out: Annotated[
        Path | None,
        arg(
            metavar="FOLDER",
            help="new, or an export of before; default: CATEGORY-FORMAT beside the category",
        ),
    ] = None,
    videos: Videos = None,
    exclude: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="videos and frames that are struck out; default: CATEGORY/exclude.txt",
        ),
    ] = None,
    views: Annotated[
        int,
        arg(
            metavar="N",
            help="at most so many images of a video, evenly spread; 0: all, 16 for foundationpose",
        ),
    ] = 0,
    keypoints: Annotated[
        str,
        arg(
            metavar="KIND",
            help="box: its 8 corners; frame: origin and tips of the axes (coco, yolo-pose)",
        ),
    ] = "box",
    unknown_scale: Annotated[
        str,
        arg(
            metavar="WHAT",
            help="objects without a scale in meters: refuse, mark or leave-out; default: refuse "
            "for bop and foundationpose, else mark",
        ),
    ] = "",
    splits: OmitArgPrefixes[SplitConfig] = SplitConfig(),
    bag: OmitArgPrefixes[BagSelection] = BagSelection(),
    json: Json = None,
) -> None:
    """Write images, poses, masks, boxes and keypoints of aligned videos for other programs.

    Several categories become one set. With --bag and --results, the labels are the fused estimates
    in a recording. `uns-pose report` shows before what would be exported; a line in exclude.txt, a
    video or VIDEO/IMAGE, strikes it out.
    """
    config = ExportConfig(
        format=format,
        videos=VideoSelection(videos, exclude, views),
        bag=bag,
        splits=splits,
        keypoints=keypoints,
        unknown_scale=unknown_scale,
    )
    if out is None:
        if len(categories) != 1:
            raise InvalidInput(
                "several categories become one set: name its folder by --out"
            )
        folder = categories[0].resolve()
        out = folder.with_name(f"{folder.name}-{format}")
    with progress_bar() as progress:
        record = export_labels(categories, out, config, progress)
    emit({"folder": str(out)} | record, _text(out, record), json)


def _text(out: Path, record: Mapping[str, Any]) -> str:
    objects = len(record["objects"])
    splits = [scene["split"] for scene in record["scenes"]]
    counts = ", ".join(
        f"{splits.count(split)} {split}" for split in ("train", "val", "test")
    )
    lines = [
        f"{out}: {record['images']} images, {record['labels']} labels of {objects} objects, "
        f"{len(splits)} videos ({counts})"
    ]
    return "\n".join([*lines, *(f"  {remark}" for remark in record["remarks"])])
