#!/usr/bin/env python3
"""How well masks are found from the images alone, and how long it takes.

    python benchmarks/masks.py rooms/mug --work /tmp/masks --json out.json
    python benchmarks/masks.py demo/data/chair --given-poses --json -
    python benchmarks/masks.py rooms/mug --labels rooms/mug/labels.json --json -

Of each video with masks only the images are taken; nothing is given, not even the camera. Masks are
compared with the given ones: intersection over union, mean and worst image of each video. With
--given-poses the given camera poses are taken too. `reported` are the images that the program
itself calls bad, `wrong` those below 0.8. Seconds are of the processor, all threads together, so
that they mean the same on a busy machine. With --work poses that are found already are not found
again, and their seconds are missing; masks are always made again. With --labels the videos are
aligned too, once with what was found and once with what is given: percent of the pairs whose
relative rotation has an error below 30, 15 and 10 degrees.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from common import machine, politely, write
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import nearest_rotation
from uns_pose_ros.core.types import Video
from uns_pose_ros.evaluation import rotation_labels
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.io.schema.video_record import read_video_entries
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks import mobile_sam, pretrained_weights, u2net
from uns_pose_ros.pipeline import alignment_stage, reconstruction_stage
from uns_pose_ros.pipeline.poses_and_masks.mask_preparation import ensure_masks
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.reconstruction import mask_voting
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig

WRONG = 0.8


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("category", type=Path, help="folder of videos with masks")
    parser.add_argument("--videos", help="shell patterns, comma separated")
    parser.add_argument(
        "--given-poses", action="store_true", help="take the given poses too"
    )
    parser.add_argument(
        "--work", type=Path, help="folder to work in (default: a temporary one)"
    )
    parser.add_argument(
        "--labels", type=Path, help="align found and given, and compare with these labels"
    )
    parser.add_argument("--json", help="write the figures there; -: to standard output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    work = args.work or Path(tempfile.mkdtemp(prefix="uns_pose_benchmark_"))
    rows = {}
    for folder in list_videos(args.category, args.videos):
        rows[folder.name] = measure(folder, work / folder.name, args.given_poses)
        row = {key: value for key, value in rows[folder.name].items() if key != "overlap"}
        print(folder.name, row, flush=True)
    figures = {
        "machine": machine(),
        "mended_by_mobile_sam": (
            pretrained_weights.cache_folder() / f"{mobile_sam.NAME}.safetensors"
        ).is_file(),
        "videos": rows,
        "summary": summarize(list(rows.values())),
    }
    if args.labels:
        figures["alignment"] = compare_alignments(
            args.category, list(rows), args.labels, work
        )
        print(figures["alignment"])
    print(figures["summary"], "on", figures["machine"])
    write(figures, args.json)
    if args.work is None:
        shutil.rmtree(work)


def measure(source: Path, folder: Path, given_poses: bool) -> dict[str, Any]:
    """Figures of one video, made in `folder`; an error in their place where it failed."""
    true = load_video(source, need_poses=given_poses)
    for frame in true.frames:
        path = folder / "images" / frame.name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            shutil.copyfile(frame.image, path)
    if given_poses and not (folder / "sparse").exists():
        shutil.copytree(source / "sparse", folder / "sparse")
    shutil.rmtree(folder / "masks", ignore_errors=True)
    start = spent()
    try:
        found = not given_poses and ensure_poses(folder, SfmConfig(threads=1))
        middle = spent()
        ensure_masks(folder, lambda: u2net.load_salience(threads=1))
    except InvalidInput as error:
        return {"error": str(error)}
    return {
        **compare(load_video(folder), true),
        "pose_seconds": round(middle - start, 1) if found else None,
        "mask_seconds": round(spent() - middle, 1),
    }


def compare(found: Video, true: Video) -> dict[str, Any]:
    """Overlap of the masks that were found with the true ones."""
    known = {frame.name: frame.mask for frame in true.frames}
    overlap = {}
    for frame in found.frames:
        wanted = known[frame.name]
        if frame.mask is not None and wanted is not None:
            ours, theirs = read_mask(frame.mask).numpy(), read_mask(wanted).numpy()
            overlap[frame.name] = round(mask_voting.mask_iou(ours, theirs), 4)
    report = read_video_entries(found.folder)["masks"]
    return {
        "images": len(overlap),
        "mean": round(statistics.mean(overlap.values()), 4),
        "worst": min(overlap.values()),
        "wrong": [name for name, value in overlap.items() if value < WRONG],
        "reported": report["bad"],
        "mended": len(report["mended"]),
        "overlap": overlap,
    }


def compare_alignments(
    category: Path, names: list[str], labels: Path, work: Path
) -> dict[str, dict[str, Any]]:
    """Accuracies of the alignment of the videos as found and as given."""
    turns = rotation_labels.load_labels(labels, names)
    true, found = dict[str, Tensor](), dict[str, Tensor]()
    made = [name for name in names if (work / name / "masks").is_dir()]
    for name in made:
        # the camera poses that were found have a frame of their own in each video
        theirs = {
            frame.name: frame.cam_from_obj for frame in load_video(category / name).frames
        }
        between = [
            pose[:3, :3].T @ frame.cam_from_obj[:3, :3]
            for frame in load_video(work / name).frames
            if (pose := theirs[frame.name]) is not None and frame.cam_from_obj is not None
        ]
        true[name] = turns[name]
        found[name] = turns[name] @ nearest_rotation(torch.stack(between).mean(0))
    given = work / "given"
    for name in made:
        if not (given / name).exists():
            shutil.copytree(category / name, given / name)
    accuracies = {}
    for what, folder, rotations in (("found", work, found), ("given", given, true)):
        reconstruction_stage.reconstruct(folder, ",".join(made), sfm=SfmConfig(threads=1))
        alignment, _ = alignment_stage.align(folder, ",".join(made))
        accuracies[what] = rotation_labels.evaluate_alignment(alignment, rotations)
    return accuracies


def summarize(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Over the videos that have masks."""
    made = [row for row in rows if "mean" in row]
    if not made:
        return {"videos": len(rows), "made": 0}
    return {
        "videos": len(rows),
        "made": len(made),
        "mean": round(statistics.mean(row["mean"] for row in made), 4),
        "lowest_mean": min(row["mean"] for row in made),
        "worst_image": min(row["worst"] for row in made),
        "mask_seconds": round(statistics.mean(row["mask_seconds"] for row in made), 1),
    }


def spent() -> float:
    """Seconds of the processor that this process and its ended children took."""
    usages = [
        resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    ]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    politely(main)
