"""Labels of the aligned videos of a category: poses, masks and shapes that the pipeline made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, split_similarity, transform
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Alignment, FeatureMesh, Frame, Symmetry, Video
from uns_pose_ros.exports.excluded_frames import Exclusion, read_exclusion
from uns_pose_ros.exports.label_set import (
    LabelFrame,
    LabelScene,
    LabelSet,
    Matrix,
    ObjectInstance,
    ObjectLabel,
)
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.depth_images import depth_path
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.io.video_folder import frames_of, image_names, list_videos


@dataclass(frozen=True)
class VideoSelection:
    """Which videos and frames of a category are labels."""

    patterns: str | None = None  # shell patterns of videos, comma separated; None: all
    exclude: Path | None = None  # None: exclude.txt of the category
    views: int = 0  # at most so many frames of a video, evenly spread; 0: all

    def __post_init__(self) -> None:
        if self.views < 0:
            raise InvalidInput(f"--views {self.views}: 0 (all) or more is valid")


def label_videos(category: Path, selection: VideoSelection = VideoSelection()) -> LabelSet:
    """The labels of the aligned videos of a category.

    Args:
        category: folder with one subfolder for each video, and alignment.json.
        selection: which videos and frames.

    Raises:
        InvalidInput: The category cannot be used, or nothing is left.
    """
    alignment = artifacts.load_alignment(category / artifacts.ALIGNMENT)
    exclusion = read_exclusion(category, selection.exclude)
    folders = list_videos(category)
    exclusion.check_names({folder.name: image_names(folder) for folder in folders})
    chosen = list_videos(category, selection.patterns)
    left_out = LeftOut()
    instances: list[ObjectInstance] = []
    scenes: list[LabelScene] = []
    for folder in chosen:
        reason = why_no_labels(folder.name, alignment, exclusion)
        if reason:
            left_out.add(reason, folder.name)
            continue
        instance, scene = _label_video(
            folder, alignment, exclusion, len(instances), selection.views, left_out
        )
        if scene.frames:
            instances.append(instance)
            scenes.append(scene)
        else:
            left_out.add("videos without a frame that is left", folder.name)
    if not scenes:
        reasons = "; ".join(left_out.lines()) or "it has no videos"
        raise InvalidInput(f"{category}: no labels are left to export: {reasons}")
    name = category.resolve().name
    return LabelSet((name,), tuple(instances), tuple(scenes), left_out)


def why_no_labels(video: str, alignment: Alignment, exclusion: Exclusion) -> str:
    """Why a whole video is left out; empty if it is not."""
    if exclusion.excludes_video(video):
        return f"videos struck out in {exclusion.path.name}"
    if video not in alignment.videos:
        return "videos that are not aligned (`uns-pose align CATEGORY --add`)"
    if not bool(alignment.kept[alignment.videos.index(video)]):
        return "videos that agree with too few others (kept: false in alignment.json)"
    return ""


def _label_video(
    folder: Path,
    alignment: Alignment,
    exclusion: Exclusion,
    number: int,
    views: int,
    left_out: LeftOut,
) -> tuple[ObjectInstance, LabelScene]:
    """The object of a video with the number `number`, and the labels of its frames."""
    frames, dropped, points = frames_of(folder, need_masks=True, need_poses=True)
    for reason in dropped:
        left_out.add("frames that cannot be used", reason)
    without = set(image_names(folder)) - {frame.name for frame in frames}
    missing = len(without) - len(dropped)
    for name in sorted(without)[: max(0, missing)]:
        left_out.add("frames without a camera pose", f"{folder.name}/{name}")
    video = Video(folder, tuple(frames), points, read_video_record(folder).metric)
    canon_from_obj = alignment.canon_from_obj[alignment.videos.index(folder.name)]
    mesh = artifacts.load_feature_mesh(folder)
    instance = instance_of_video(video, mesh, canon_from_obj, alignment.symmetry)
    kept = []
    for frame in video.frames:
        if exclusion.excludes_frame(folder.name, frame.name):
            reason = f"frames struck out in {exclusion.path.name}"
            left_out.add(reason, f"{folder.name}/{frame.name}")
        else:
            kept.append(frame)
    labeled = [
        label_of_frame(frame, video, number, canon_from_obj)
        for frame in _spread(kept, views, left_out)
    ]
    return instance, LabelScene(0, folder.name, tuple(labeled))


def _spread(frames: list[Frame], views: int, left_out: LeftOut) -> list[Frame]:
    """At most `views` of the frames, evenly spread; 0: all."""
    if not views or len(frames) <= views:
        return frames
    chosen = {round(k) for k in np.linspace(0, len(frames) - 1, views)}
    for k, frame in enumerate(frames):
        if k not in chosen:
            left_out.add("frames beyond --views", frame.name)
    return [frames[k] for k in sorted(chosen)]


def instance_of_video(
    video: Video, mesh: FeatureMesh, canon_from_obj: Tensor, symmetry: Symmetry
) -> ObjectInstance:
    """The object of a video, with the category's axes and, if it is known, its own size."""
    scale = float(split_similarity(canon_from_obj)[2])
    unit = 1 / scale if video.metric else 1.0
    vertices = unit * transform(canon_from_obj, mesh.vertices.double())
    return ObjectInstance(
        category=0,
        name=video.name,
        vertices=vertices.numpy(),
        triangles=mesh.triangles.numpy(),
        symmetry=symmetry,
        unit=unit,
        metric=video.metric,
    )


def label_of_frame(
    frame: Frame, video: Video, number: int, canon_from_obj: Tensor
) -> LabelFrame:
    """A frame of a video with the pose of its object, which has the number `number`."""
    assert frame.cam_from_obj is not None
    depth = depth_path(video.folder, frame.name)
    pose = cam_from_model(frame.cam_from_obj, canon_from_obj, video.metric)
    label = ObjectLabel(number, pose)
    has_depth = video.metric and depth.is_file()
    return LabelFrame(
        frame.name,
        frame.image,
        frame.camera,
        (label,),
        frame.mask,
        depth if has_depth else None,
    )


def cam_from_model(cam_from_obj: Tensor, canon_from_obj: Tensor, metric: bool) -> Matrix:
    """The pose (4, 4) of the model frame.

    Args:
        cam_from_obj: (4, 4) rigid, obj units.
        canon_from_obj: (4, 4) similarity.
        metric: obj units are meters, and so are the units of the result; else canonical units.
    """
    rotation, translation, scale = split_similarity(canon_from_obj.double())
    # the model frame in obj units, where only axes and origin differ from the obj frame
    model_from_obj = from_parts(rotation, translation / scale)
    pose = cam_from_obj.double() @ torch.linalg.inv(model_from_obj)
    if not metric:
        pose[:3, 3] *= scale
    return np.asarray(pose.numpy(), np.float64)
