#!/usr/bin/env python3
"""How well videos are reconstructed from their images alone.

Poses, masks and hulls found by us, against the given ones.

    python benchmarks/reconstruction.py demo/data/chair --videos 'clip_0[12]' --json out.json
    python benchmarks/reconstruction.py clips/chair \\
        --labels clips/chair/labels.json --work /tmp/work --json out.json

Of each video with masks and poses only the images are taken (and, unless --guess, the camera's
matrix). A video costs minutes of one core. Rotations are compared after the best similarity between
the cameras' places; the hull with that of the given masks and poses: mean distance to the nearest
of 50000 points on the other, both ways, in percent of its diagonal. With --labels both sets of
videos are reconstructed and aligned too, and their alignments compared with the labels; videos that
failed have no part in either. With --work what is done already is not done again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import trimesh
from scipy.spatial import cKDTree
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    fit_similarity,
    split_similarity,
    transform,
)
from uns_pose_ros.core.types import Video
from uns_pose_ros.evaluation.rotation_labels import evaluate_alignment, load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.io.images import read_mask
from uns_pose_ros.io.video_folder import list_videos, load_video, read_frame
from uns_pose_ros.networks import u2net
from uns_pose_ros.pipeline import alignment_stage, reconstruction_stage
from uns_pose_ros.pipeline.poses_and_masks.mask_preparation import ensure_masks
from uns_pose_ros.pipeline.poses_and_masks.pose_preparation import ensure_poses
from uns_pose_ros.reconstruction import mask_voting
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.visual_hull import carve_visual_hull

POINTS = 50_000  # so many that their own spacing is 0.2 % of the diagonal


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "category", type=Path, help="folder of videos with masks and camera poses"
    )
    parser.add_argument("--videos", help="shell patterns, comma separated")
    parser.add_argument("--guess", action="store_true", help="find the focal length too")
    parser.add_argument(
        "--threads",
        type=int,
        default=1,
        help="of structure from motion and masks (default: %(default)s)",
    )
    parser.add_argument(
        "--labels", type=Path, help="labels.json of the category: align both and compare"
    )
    parser.add_argument(
        "--work",
        type=Path,
        help="folder to work in and to go on in (default: a temporary one)",
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    work = args.work or Path(tempfile.mkdtemp(prefix="uns_pose_benchmark_"))
    rows = {}
    for folder in list_videos(args.category, args.videos):
        rows[folder.name] = measure(
            load_video(folder), work / "found" / folder.name, args.guess, args.threads
        )
        print(folder.name, json.dumps(rows[folder.name]), flush=True)
    result: dict[str, Any] = {"videos": rows, "summary": summarise(list(rows.values()))}
    if args.labels is not None:
        names = [name for name, row in rows.items() if row["registered"] > 0]
        result["summary"]["alignment"] = alignments(
            args.category, work, names, args.labels, args.threads
        )
    print(json.dumps(result["summary"], indent=1))
    if args.json is not None:
        artifacts.write_json(args.json, result)
    if args.work is None:
        shutil.rmtree(work)


def measure(true: Video, folder: Path, guess: bool, threads: int) -> dict[str, Any]:
    """Figures of one video, made in `folder`.

    Registered is 0 and the others missing where it failed.
    """
    start = time.perf_counter()
    for frame in true.frames:
        path = folder / "images" / frame.name
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(frame.image, path)
    if not guess and not (folder / "video.json").exists():
        camera = {**camera_record(true.frames[0].camera), "from": "given"}
        artifacts.write_json(folder / "video.json", {"metric": False, "camera": camera})
    try:
        ensure_poses(folder, SfmConfig(threads=threads))
        ensure_masks(folder, lambda: u2net.load_salience(threads=threads))
    except InvalidInput as error:
        return {
            "registered": 0.0,
            "error": str(error),
            "seconds": round(time.perf_counter() - start, 1),
        }
    seconds = round(time.perf_counter() - start, 1)
    return {**compare(load_video(folder), true), "seconds": seconds}


def alignments(
    category: Path, work: Path, names: list[str], labels: Path, threads: int
) -> dict[str, Any]:
    """Accuracies of the alignment of what was found and of that of the given masks and poses."""
    known = load_labels(labels, [folder.name for folder in list_videos(category)])
    for name in names:
        shutil.copytree(category / name, work / "given" / name, dirs_exist_ok=True)
    result = {}
    for kind in ("given", "found"):
        turns = dict(known)
        if kind == "found":
            for name in names:
                found, true = load_video(work / kind / name), load_video(category / name)
                turns[name] = (
                    known[name] @ split_similarity(true_from_found(found, true))[0]
                )
        patterns = ",".join(names)
        reconstruction_stage.reconstruct(
            work / kind, patterns, device="cpu", sfm=SfmConfig(threads=threads)
        )
        alignment, _ = alignment_stage.align(work / kind, patterns, device="cpu")
        result[kind] = evaluate_alignment(alignment, turns)
    return result


def compare(found: Video, true: Video) -> dict[str, Any]:
    """Poses, masks and hull of what was found with those of the truth."""
    known = {frame.name: frame for frame in true.frames}
    ours, theirs = both_poses(found, true)
    true_from_obj = true_from_found(found, true)
    rotation, _, _ = split_similarity(true_from_obj)
    turns = angle_between(ours[:, :3, :3] @ rotation.T, theirs[:, :3, :3])
    overlaps = []
    for frame in found.frames:
        mask, wanted = frame.mask, known[frame.name].mask
        if mask is not None and wanted is not None:
            overlaps.append(
                mask_voting.mask_iou(read_mask(mask).numpy(), read_mask(wanted).numpy())
            )
    return {
        "frames": len(true.frames),
        "registered": len(found.frames) / len(true.frames),
        "rotation_deg_median": float(turns.median()),
        "rotation_deg_max": float(turns.max()),
        "focal_error_percent": 100
        * abs(
            float(found.frames[0].camera.matrix[0, 0] / true.frames[0].camera.matrix[0, 0])
            - 1
        ),
        "mask_iou": statistics.mean(overlaps),
        "hull_chamfer_percent": chamfer(found, true, true_from_obj),
    }


def both_poses(found: Video, true: Video) -> tuple[Tensor, Tensor]:
    """Poses (F, 4, 4) of the found frames, as found and as they are."""
    known = {frame.name: frame for frame in true.frames}
    pairs = [(poses_of(frame), poses_of(known[frame.name])) for frame in found.frames]
    return torch.stack([a for a, _ in pairs]), torch.stack([b for _, b in pairs])


def true_from_found(found: Video, true: Video) -> Tensor:
    """The similarity (4, 4) that brings the found cameras' places nearest to the true ones."""
    ours, theirs = both_poses(found, true)
    return fit_similarity(places(ours), places(theirs))


def poses_of(frame: Any) -> Tensor:
    if frame.cam_from_obj is None:
        raise ValueError(f"{frame.name} has no pose")
    return torch.as_tensor(frame.cam_from_obj)


def places(cam_from_obj: Tensor) -> Tensor:
    """(F, 3) where the cameras stand."""
    return -(cam_from_obj[:, :3, :3].transpose(1, 2) @ cam_from_obj[:, :3, 3:])[..., 0]


def hull(video: Video) -> tuple[Tensor, Tensor]:
    frames = [(*read_frame(frame), poses_of(frame)) for frame in video.frames]
    chosen = [
        (mask, camera.matrix, pose)
        for _, mask, camera, pose in frames
        if mask is not None and bool(mask.any())
    ]
    masks, matrices, poses = zip(*chosen, strict=True)
    return carve_visual_hull(masks, torch.stack(matrices), torch.stack(poses))


def chamfer(found: Video, true: Video, true_from_obj: Tensor) -> float | None:
    """Percent of the true hull's diagonal; None where there is no hull."""
    try:
        vertices, triangles = hull(found)
        wanted, faces = hull(true)
    except InvalidInput:
        return None
    moved = trimesh.Trimesh(
        transform(true_from_obj, vertices.double()).numpy(),
        triangles.numpy(),
        process=False,
    )
    target = trimesh.Trimesh(wanted.double().numpy(), faces.numpy(), process=False)
    there = trimesh.sample.sample_surface(target, POINTS, seed=0)[0]
    here = trimesh.sample.sample_surface(moved, POINTS, seed=0)[0]
    mean = (cKDTree(here).query(there)[0].mean() + cKDTree(there).query(here)[0].mean()) / 2
    return 100 * float(mean) / float((wanted.amax(0) - wanted.amin(0)).norm())


def summarise(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Means over the videos.

    Videos without a figure are left out of its mean, but count as not registered.
    """
    result: dict[str, Any] = {
        "videos": len(rows),
        "registered_90": sum(row["registered"] >= 0.9 for row in rows),
    }
    result["rotation_below_0.3_deg"] = sum(
        row.get("rotation_deg_median", 180.0) <= 0.3 for row in rows
    )
    for key in (
        "registered",
        "rotation_deg_median",
        "mask_iou",
        "hull_chamfer_percent",
        "seconds",
    ):
        values = [row[key] for row in rows if row.get(key) is not None]
        result[key] = round(statistics.mean(values), 3) if values else None
    return result


if __name__ == "__main__":
    main()
