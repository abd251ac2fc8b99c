"""Pseudo-labels: fused estimates of `uns-pose evaluate bag --fuse --json` in a bag's images."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Camera, CategoryModel
from uns_pose_ros.exports.label_set import (
    LabelFrame,
    LabelScene,
    LabelSet,
    ObjectInstance,
    ObjectLabel,
)
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.ros_messages import (
    nanoseconds,
    read_camera_info,
    read_encoded_image,
)
from uns_pose_ros.io.schema.constraints import Count, Label, Rows4, Share, check_rigid
from uns_pose_ros.io.schema.decoding import read_record

_MOST = 10_000_000  # messages of a topic
_AGAIN = "uns-pose evaluate bag MODEL BAG --fuse --json FILE"


class EstimateRecord(Struct, frozen=True):
    """An estimate of one object in one image."""

    track: Count
    score: Share
    cam_from_canon: Rows4  # m, or diameters
    scale: Annotated[float, Meta(gt=0, le=1e6)]  # m of one canonical unit, or 1
    metric: bool

    def __post_init__(self) -> None:
        check_rigid(self.cam_from_canon)


class EstimatedImage(Struct, frozen=True):
    """The estimates of an image of a bag."""

    stamp_ns: Annotated[int, Meta(ge=0, le=2**62)]
    estimates: list[EstimateRecord] = []


class BagResults(Struct, frozen=True):
    """What `uns-pose evaluate bag --json` writes, as far as labels need it."""

    frames: list[EstimatedImage]
    fused: bool | None = None
    category: Label = ""
    template_sha256: Label = ""
    image_topic: Label | None = None
    camera_info_topic: Label | None = None
    depth_topic: Label | None = None


@dataclass(frozen=True)
class BagSelection:
    """Which estimates of a bag become labels."""

    # the recording; without: the labels are those of the videos
    bag: Path | None = None
    # what `uns-pose evaluate bag --fuse --json FILE` wrote about the bag
    results: Path | None = None
    min_score: float = 0.5  # least score of an estimate that becomes a label, from 0 to 1

    def __post_init__(self) -> None:
        if (self.bag is None) != (self.results is None):
            raise InvalidInput(
                "--bag and --results belong together: the recording, and the file that "
                f"`{_AGAIN}` wrote"
            )
        if not 0 <= self.min_score <= 1:
            raise InvalidInput(f"--min-score {self.min_score:g}: 0 to 1 is valid")


def template_hash(model: CategoryModel) -> str:
    """SHA-256 of the template's vertices, which says whether two models have one frame."""
    return hashlib.sha256(model.vertices.cpu().numpy().tobytes()).hexdigest()


def label_bag(
    bag: Path, results: Path, model: CategoryModel, min_score: float, scratch: Path
) -> LabelSet:
    """Labels of the images of a bag from its fused estimates.

    A track is one object with the shape of the template and the median of its estimated sizes.

    Args:
        bag: the recording.
        results: what `uns-pose evaluate bag --fuse --json` wrote about it.
        model: the model that the estimates are of.
        min_score: the least score of a label.
        scratch: an existing folder, into which the images are written.

    Raises:
        InvalidInput: The results are not of this bag and model, or not fused; nothing is left.
    """
    record = read_record(results, BagResults, "result of an evaluated bag")
    _check_results(results, record, model)
    left_out = LeftOut()
    chosen = _choose_estimates(record, min_score, left_out)
    tracks = sorted({estimate.track for part in chosen.values() for estimate in part})
    scales = {track: _track_scale(track, chosen) for track in tracks}
    numbers = {track: number for number, track in enumerate(tracks)}
    instances = tuple(
        _instance_of_track(bag.stem, track, model, *scales[track]) for track in tracks
    )
    frames = list[LabelFrame]()
    stamps = Counter[int]()
    for stamp, image, camera in _read_images(bag, record, set(chosen), left_out):
        stamps[stamp] += 1
        file, ending = image.encoded(".png", 0)
        path = scratch / f"{len(frames):06d}{ending}"
        path.write_bytes(file)
        labels = tuple(
            _label(estimate, numbers[estimate.track], scales[estimate.track][0])
            for estimate in chosen[stamp]
        )
        frames.append(LabelFrame(str(stamp), path, camera, labels))
    for _ in range(len(chosen) - len(stamps)):
        left_out.add("estimates whose image is not in the bag, or not once")
    if not frames:
        reasons = "; ".join(left_out.lines())
        raise InvalidInput(
            f"{results}: no labels are left to export of {bag} (--min-score {min_score:g})"
            + (f": {reasons}" if reasons else "")
        )
    scene = LabelScene(0, bag.stem, tuple(frames))
    return LabelSet((model.category,), instances, (scene,), left_out)


def _check_results(path: Path, record: BagResults, model: CategoryModel) -> None:
    if record.fused is None:
        raise InvalidInput(f"{path}: made by an earlier version; run again: {_AGAIN}")
    if not record.fused:
        raise InvalidInput(
            f"{path}: its estimates are not fused over images; run again: {_AGAIN}"
        )
    if record.category != model.category or record.template_sha256 != template_hash(model):
        raise InvalidInput(
            f"{path}: its estimates are of another model ({record.category}); run again: {_AGAIN}"
        )


def _choose_estimates(
    record: BagResults, min_score: float, left_out: LeftOut
) -> dict[int, list[EstimateRecord]]:
    """The estimates of a good score by stamp; stamps that are no names of images are left out."""
    stamps = Counter(frame.stamp_ns for frame in record.frames)
    below = f"estimates with a score below {min_score:g}"
    chosen: dict[int, list[EstimateRecord]] = {}
    for frame in record.frames:
        name = str(frame.stamp_ns)
        if stamps[frame.stamp_ns] > 1:
            left_out.add("images whose stamp is not their own", name)
            continue
        if not frame.estimates:
            left_out.add("images without an estimate", name)
            continue
        good = [estimate for estimate in frame.estimates if estimate.score >= min_score]
        for estimate in frame.estimates:
            if estimate.score < min_score:
                left_out.add(below, f"{name}: {estimate.score:.2f}")
        if good:
            chosen[frame.stamp_ns] = good
        else:
            left_out.add("images without a label", name)
    return chosen


def _track_scale(track: int, chosen: dict[int, list[EstimateRecord]]) -> tuple[float, bool]:
    """Length of a canonical unit of a track's object, and whether it is in m."""
    scales: dict[bool, list[float]] = defaultdict(list)
    for part in chosen.values():
        for estimate in part:
            if estimate.track == track:
                scales[estimate.metric].append(estimate.scale)
    metric = bool(scales[True])
    return float(np.median(scales[metric])), metric


def _instance_of_track(
    bag: str, track: int, model: CategoryModel, unit: float, metric: bool
) -> ObjectInstance:
    return ObjectInstance(
        category=0,
        name=f"{bag}_track_{track}",
        vertices=unit * model.vertices.double().cpu().numpy(),
        triangles=model.triangles.cpu().numpy(),
        symmetry=model.symmetry,
        unit=unit,
        metric=metric,
    )


def _label(estimate: EstimateRecord, number: int, unit: float) -> ObjectLabel:
    """The pose that shows an object of the track's size where the estimate shows its own."""
    pose = np.array(estimate.cam_from_canon, np.float64)
    pose[:3, 3] *= unit / estimate.scale
    return ObjectLabel(number, pose, estimate.score)


def _read_images(
    bag: Path, record: BagResults, wanted: set[int], left_out: LeftOut
) -> Iterator[tuple[int, EncodedImage, Camera]]:
    """Yield stamp, image and camera of the wanted images; a stamp that comes twice is left out."""
    with rosbag.open_bag(bag) as reader:
        kinds = rosbag.kinds_of(reader)
        depth = record.depth_topic and rosbag.depth_topic(bag, kinds, record.depth_topic)
        topic = rosbag.image_topic(bag, kinds, record.image_topic, depth or None)
        info = rosbag.camera_info(bag, reader, kinds, topic, record.camera_info_topic)
        stamps = Counter(
            nanoseconds(message.header.stamp)
            for message in rosbag.messages(bag, reader, topic, _MOST)
        )
        for message in rosbag.messages(bag, reader, topic, _MOST):
            stamp = nanoseconds(message.header.stamp)
            if stamp not in wanted or stamps[stamp] > 1:
                continue
            try:
                image = read_encoded_image(message)
                camera = read_camera_info(
                    info, image.width, image.height, rosbag.is_rectified(topic)
                )
            except InvalidInput as error:
                left_out.add("images that cannot be read", str(error))
                continue
            yield stamp, image, camera
