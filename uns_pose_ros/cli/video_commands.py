"""The commands that prepare videos for the pipeline."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.cli.arguments import Category, Json, Videos
from uns_pose_ros.cli.console import emit, progress_bar
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.camera_json import read_camera
from uns_pose_ros.io.schema.video_record import read_video_entries
from uns_pose_ros.io.video_folder import list_videos
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks.u2net import load_salience
from uns_pose_ros.pipeline.poses_and_masks import made_parts, mask_preparation
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reconstruction.prompted_segmentation import Prompts, write_prompts

Source = Annotated[
    Positional[Path],
    arg(
        metavar="SOURCE",
        help="film, rosbag2, folder of images, COLMAP dataset or CO3D sequence",
    ),
]


def import_command(
    source: Source,
    into: Annotated[Path, arg(metavar="CATEGORY/NAME", help="the video folder to make")],
    camera: Annotated[
        Path | None,
        arg(
            metavar="K.json",
            help='{"K": 9 numbers or 3x3, "D": [k1 k2 p1 p2 …], "width": px, "height": px}',
        ),
    ] = None,
    json: Json = None,
    config: Annotated[ImportConfig, arg(name="")] = ImportConfig(),
) -> None:
    """Make a video folder of a film, a bag, images, a COLMAP dataset or a CO3D sequence.

    Images are turned upright. A longer source is cut into --frames windows, and the sharpest image
    of each window is kept. Poses come with COLMAP and CO3D, and with a bag whose transforms on /tf
    connect --fixed-frame with the camera. They are then in meters.
    """
    given = None if camera is None else read_camera(camera)
    with progress_bar() as progress:
        made = import_video(source, into, config, given, progress)
    record = read_video_entries(into)
    posed = (into / "sparse").is_dir()
    camera_from = record.get("camera", {}).get("from", "one a frame")
    kind = record["import"]["kind"]
    text = (
        f"{into}: {record['frames']} frames of {record['pictures_read']} images ({kind}), "
        f"camera: {camera_from}, "
    )
    text += (
        ("poses in meters" if record["metric"] else "poses") if posed else "no poses yet"
    )
    lines = [text if made else f"{text}; done already"]
    for reason, count in record.get("left_out", {}).items():
        lines.append(f"  left out: {reason}: {count}")
    lines += [f"  {kind}: {count}" for kind, count in record.get("notes", {}).items()]
    emit(
        {"video": str(into), "made": made, "poses": posed, **record}, "\n".join(lines), json
    )


PixelPositions = tuple[tuple[float, float], ...]


def mask_command(
    category: Category,
    videos: Videos = None,
    points: Annotated[
        PixelPositions,
        arg(
            metavar="X Y …",
            help="px in one image of one video, on the object that is meant",
        ),
    ] = (),
    background: Annotated[
        PixelPositions,
        arg(metavar="X Y …", help="px there, not on it, where the mask took too much"),
    ] = (),
    frame: Annotated[
        str,
        arg(metavar="NAME", help="that image, such as 000001.jpg; without: the first"),
    ] = "",
    json: Json = None,
    mask: MaskConfig = MaskConfig(),
) -> None:
    """Make masks/ of each video that has none.

    CATEGORY may be the folder of one video. The masks show the salient object. If the video has
    camera poses, the masks are fused over the video, and what the other images do not support is
    cut away and asked again (by MobileSAM, if `uns-pose weights mobile_sam` has fetched it).
    `reconstruct` and `run` do this by themselves, after the poses. Masks made before the poses are
    made again then. With --points, the masks show the object at these points, found by MobileSAM.
    The points are kept in prompts.json of the video; delete that file for the salient object.
    """
    load, made = cache(load_salience), dict[str, bool]()
    if (category / "images").is_dir() and videos is None:
        folders = [category]
    else:
        folders = list_videos(category, videos)
    if points:
        _point(folders, Prompts(points, background, frame))
    elif background or frame:
        raise InvalidInput("--background and --frame go with --points")
    with progress_bar() as progress:
        for folder in folders:
            made[folder.name] = mask_preparation.ensure_masks(folder, load, mask, progress)
    new = sum(made.values())
    given = sum(made_parts.is_given(folder / "masks") for folder in folders)
    text = (
        f"masks of {new} of {len(made)} videos made, {given} were given, "
        f"{len(made) - new - given} were done already"
    )
    emit({"videos": {name: {"made": done} for name, done in made.items()}}, text, json)


def _point(folders: list[Path], prompts: Prompts) -> None:
    """Keep the prompts of the one video, whose masks must not be given."""
    if len(folders) != 1:
        raise InvalidInput(
            f"--points are of one image of one video, {len(folders)} are named: --videos "
            "NAME names it"
        )
    [folder] = folders
    with lock_target(folder):  # a command that is refused must not leave its points
        if made_parts.is_given(folder / "masks"):
            raise InvalidInput(
                f"{folder}/masks: were given and are never touched; delete them first"
            )
        write_prompts(folder, prompts)
