"""Every reader of the package, each with valid files to be spoiled before it reads them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fuzz_artifacts
import fuzz_checks
import fuzz_datasets
import fuzz_geometry
import fuzz_inputs
import fuzz_records
import fuzz_states
import fuzz_videos
from colmap_files import write_binary
from source_files import checks, write_co3d, write_film
from uns_pose_ros.capture.recording import JOURNAL
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import read_camera
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.ply import read_ply

artifacts._PAUSE = 0.0  # nobody else writes, so that there is nothing to wait for


@dataclass(frozen=True)
class Reader:
    """One way into the package."""

    name: str
    write: Callable[[Path], Any]  # valid files into an empty folder
    read: Callable[[Path, Path], Any]  # the folder, the file in it that was spoiled
    pattern: str = "*"  # of the files that are spoiled, comma separated
    # checksums put right, so that the reader behind them is met
    repair: Callable[[Path, Path], None] | None = None


_BAG = {"fixed_frame": "odom", "depth_topic": "/cam/depth/image_raw"}
_IN_MODEL = "model/model.json,model/model.safetensors,model/template.ply"
READERS = (
    Reader(
        "image",
        fuzz_videos.write_images,
        lambda _, spoiled: fuzz_checks.check_image(read_image(spoiled)),
    ),
    Reader(
        "upright",
        fuzz_videos.write_photographs,
        lambda _, spoiled: fuzz_checks.check_camera(read_upright(spoiled).camera()[0]),
        "photos/*",
    ),
    Reader(
        "mask",
        fuzz_videos.write_images,
        lambda _, spoiled: fuzz_checks.check_mask(read_mask(spoiled)),
    ),
    Reader("depth", fuzz_videos.write_depth, fuzz_videos.read_depth),
    Reader("prompts", fuzz_videos.write_prompts, fuzz_videos.read_prompts),
    Reader(
        "camera",
        fuzz_geometry.write_camera,
        lambda _, spoiled: fuzz_checks.check_camera(read_camera(spoiled)),
    ),
    Reader("sparse_text", fuzz_geometry.write_text_model, fuzz_geometry.read_sparse_model),
    Reader(
        "sparse_dialects",
        fuzz_geometry.write_dialects,
        fuzz_geometry.read_sparse_model,
        "*/*",
    ),
    Reader(
        "sparse_binary",
        lambda folder: write_binary(folder / "0"),
        fuzz_geometry.read_sparse_model,
        "0/*",
    ),
    Reader(
        "mesh",
        fuzz_artifacts.write_category,
        fuzz_artifacts.read_mesh,
        "clip_01/features.safetensors,clip_01/mesh.ply",
        fuzz_artifacts.renew_mesh,
    ),
    Reader(
        "ply",
        fuzz_artifacts.write_category,
        lambda _, spoiled: fuzz_checks.check_shape(*read_ply(spoiled)),
        "clip_01/mesh.ply",
    ),
    Reader(
        "alignment",
        fuzz_artifacts.write_category,
        lambda _, spoiled: fuzz_checks.check_alignment(artifacts.load_alignment(spoiled)),
        "alignment.json",
    ),
    Reader(
        "model",
        fuzz_artifacts.write_category,
        fuzz_artifacts.read_model,
        _IN_MODEL,
        fuzz_artifacts.renew_model,
    ),
    Reader("frames", fuzz_geometry.write_named_frames, fuzz_geometry.read_named_frames),
    Reader("labels", fuzz_geometry.write_labels, fuzz_geometry.read_labels),
    Reader("resting", fuzz_geometry.write_resting, fuzz_geometry.read_resting),
    Reader("board", fuzz_geometry.write_board, fuzz_geometry.read_board),
    Reader(
        "video",
        fuzz_videos.write_dataset,
        fuzz_videos.read_video,
        "clip/images/*,clip/masks/*,clip/sparse/*,clip/video.json",
    ),
    Reader(
        "recording",
        fuzz_videos.write_recordings,
        fuzz_videos.read_recordings,
        f"*/video.json,*/{JOURNAL},*/sparse/*",
    ),
    Reader(
        "film",
        lambda folder: write_film(folder / "a.mp4", [checks(k) for k in range(9)]),
        lambda f, s: fuzz_videos.read_source(f, s, "a.mp4"),
    ),
    Reader("metadata", fuzz_inputs.write_metadata, fuzz_inputs.read_metadata),
    Reader("transforms", fuzz_inputs.write_transforms, fuzz_inputs.read_transforms),
    Reader("cut_bags", fuzz_inputs.write_cut_bags, fuzz_inputs.read_cut_bags, "at"),
    Reader(
        "photographs",
        fuzz_videos.write_photographs,
        lambda f, s: fuzz_videos.read_source(f, s, "photos"),
        "photos/*",
    ),
    Reader(
        "colmap_dataset",
        fuzz_videos.write_dataset,
        lambda f, s: fuzz_videos.read_source(f, s, "clip"),
        "clip/images/*,clip/masks/*,clip/sparse/*",
    ),
    Reader(
        "co3d",
        lambda f: write_co3d(f, "ndc_isotropic"),
        lambda f, s: fuzz_videos.read_source(f, s, "truck/101_1_2"),
        "truck/*.jgz,truck/101_1_2/images/*,truck/101_1_2/masks/*",
    ),
    Reader(
        "bag_mcap",
        lambda f: fuzz_videos.write_small_bag(f, "MCAP"),
        lambda f, s: fuzz_videos.read_source(f, s, "bag", **_BAG),
        "bag/*",
    ),
    Reader(
        "bag_sqlite3",
        lambda f: fuzz_videos.write_small_bag(f, "SQLITE3"),
        lambda f, s: fuzz_videos.read_source(f, s, "bag", **_BAG),
        "bag/*",
    ),
    Reader("weights", fuzz_artifacts.write_weights, fuzz_artifacts.read_weights),
    Reader(
        "training",
        fuzz_states.write_training,
        fuzz_states.read_training,
        "state/*",
        fuzz_states.renew_training,
    ),
    Reader(
        "made",
        fuzz_states.write_made,
        fuzz_states.read_made,
        "clip/sparse/made.json,clip/video.json",
    ),
    Reader("origin", fuzz_states.write_origin, fuzz_states.read_origin, "clip/video.json"),
    Reader("lock", fuzz_states.write_lock, fuzz_states.read_lock),
    *(
        Reader(name, write, fuzz_datasets.reader_of(name), pattern)
        for name, (write, _, pattern) in fuzz_datasets.MINIATURES.items()
    ),
    *(
        Reader(name, write, read, pattern)
        for name, (write, read, pattern) in fuzz_records.RECORDS.items()
    ),
)
