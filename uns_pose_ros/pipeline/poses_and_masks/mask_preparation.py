"""Masks of a video that has none."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path

import cv2
import numpy as np
from torch import Tensor

from uns_pose_ros.core.errors import shorten
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import has_sparse, read_sparse, write_sparse
from uns_pose_ros.io.schema.decoding import read_record
from uns_pose_ros.io.schema.made_record import MadeRecord
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.io.writing.replacement import repair_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks import mobile_sam, pretrained_weights
from uns_pose_ros.networks.u2net import Salience
from uns_pose_ros.pipeline.poses_and_masks.made_parts import (
    is_given,
    note_report,
    replace_made,
)
from uns_pose_ros.pipeline.provenance import (
    MADE,
    FileCache,
    folder_hashes,
    is_current_folder,
    stage_provenance,
)
from uns_pose_ros.reconstruction import prompted_segmentation
from uns_pose_ros.reconstruction import segmentation as masking
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reconstruction.prompted_segmentation import (
    PromptableNetwork,
    PromptedSegmenter,
)
from uns_pose_ros.reconstruction.segmentation import Segmenter

_log = logging.getLogger(__name__)


def ensure_masks(
    folder: Path,
    load: Callable[[], Salience],
    config: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
    load_segmenter: Callable[[], PromptableNetwork] | None = None,
    files: FileCache | None = None,
) -> bool:
    """Give a video without masks its masks/, fused if the video has poses.

    Args:
        folder: the video.
        load: loads the network of salient objects, if it is needed.
        config: settings of the masks.
        progress: is called with the step, the images done and all images.
        load_segmenter: loads the network for prompts and for masks in doubt; None: MobileSAM.
        files: hashes that this run has computed already.

    Returns:
        Whether the masks were made now.

    Raises:
        InvalidInput: the masks cannot be found, or another process works on the video.
        DiskError: the disk refuses masks/.
    """
    with lock_target(folder):
        return _ensure_masks(folder, load, config, progress, load_segmenter, files)


def _place_cameras(folder: Path, placed: Mapping[str, Tensor]) -> None:
    """Write the new poses of some images into sparse/, which this program made."""
    sparse = folder / "sparse"
    _log.warning(
        "%s: in %d images the object is not where the camera poses say (a pattern that repeats, "
        "such as tiles, misleads them); their cameras are placed by the object's silhouette: %s",
        folder,
        len(placed),
        shorten(list(placed)),
    )
    record = read_record(sparse / MADE, MadeRecord, "record")
    model = read_sparse(sparse)
    images = [
        replace(image, cam_from_obj=placed.get(image.name, image.cam_from_obj))
        for image in model.images
    ]
    replace_made(
        sparse,
        record.provenance,
        {**record.report, "placed": list(placed)},
        lambda new: write_sparse(new, model.cameras, images, model.points),
    )
    note_report(folder, "poses", sparse)


def _ensure_masks(
    folder: Path,
    load: Callable[[], Salience],
    config: MaskConfig,
    progress: Progress | None,
    load_segmenter: Callable[[], PromptableNetwork] | None,
    files: FileCache | None,
) -> bool:
    target = folder / "masks"
    repair_folder(folder / "sparse")
    repair_folder(target)
    if is_given(target):
        return False
    files = files or FileCache()
    inputs = {
        **folder_hashes(folder, "images", files),
        **folder_hashes(folder, "sparse", files),
    }
    prompts = prompted_segmentation.read_prompts(folder)
    network = "u2netp" if prompts is None else mobile_sam.NAME
    wanted = {
        **stage_provenance("mask", config, inputs),
        "network": files.hash(pretrained_weights.find(network)),
    }
    if prompts is not None:
        wanted["prompts"] = artifacts.plain(prompts)
    mender = pretrained_weights.cache_folder() / f"{mobile_sam.NAME}.safetensors"
    mends = prompts is not None or mender.is_file()
    if prompts is None and mends:
        wanted["mended_by"] = files.hash(mender)
    if is_current_folder(target, wanted):
        return note_report(folder, "masks", target)
    video = load_video(folder, need_masks=False, need_poses=has_sparse(folder / "sparse"))
    start = time.perf_counter()
    load_network = cache(load_segmenter or mobile_sam.load_sam)
    how: Salience | Segmenter = (
        load() if prompts is None else PromptedSegmenter(prompts, load_network(), config)
    )

    def load_mender() -> PromptableNetwork | None:
        return load_network() if mends else None

    sparse = folder / "sparse"
    ours = has_sparse(sparse) and not is_given(sparse)
    found = masking.find_masks(video, how, config, progress, load_mender, place_again=ours)
    if found.placed:
        _place_cameras(folder, found.placed)
        wanted["inputs"] = {**inputs, **folder_hashes(folder, "sparse", files)}
    if found.mended and not mends:
        _log.warning(
            "%s: %d masks were cut where the other images see no object; `uns-pose weights %s` "
            "fetches the network that segments them again",
            folder,
            len(found.mended),
            mobile_sam.NAME,
        )
    report = {
        **masking.summarize_masks(found, config),
        "seconds": round(time.perf_counter() - start, 2),
    }
    if not found.fits:
        _log.warning(
            "%s: without camera poses the masks of single images stay as they are", folder
        )

    def write(new: Path) -> None:
        for frame in video.frames:
            path = new / f"{frame.name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = (
                masking.distort_mask(found.masks[frame.name], frame.camera).astype(np.uint8)
                * 255
            )
            path.write_bytes(cv2.imencode(".png", pixels)[1].tobytes())

    replace_made(target, wanted, report, write)
    note_report(folder, "masks", target)
    return True
