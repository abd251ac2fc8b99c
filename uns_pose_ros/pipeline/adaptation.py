"""Adaptation of a model to a recording, without labels.

The model estimates the images of a bag. Objects at rest get one pose in the fixed frame, which
teaches every image of the first two thirds of their tracks, each object a head of its own. The last
third decides which of them are kept. The model before stays beside the adapted one.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

import uns_pose_ros
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import project
from uns_pose_ros.core.types import Camera, CategoryModel, Progress
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.bag_figures import FrameResult
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.writing.replacement import replace_folder
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.networks.dinov2 import DinoV2
from uns_pose_ros.pipeline.kept_frames import keep_frames
from uns_pose_ros.training.adaptation.fine_tuning import fine_tune
from uns_pose_ros.training.adaptation.judgment import HeldOutImage
from uns_pose_ros.training.adaptation.lesson_choice import Choice, Lesson, choose_lessons
from uns_pose_ros.training.adaptation.lesson_views import (
    object_views,
    replayed_views,
    training_videos,
)
from uns_pose_ros.training.adaptation.pseudo_labels import (
    RecordedImage,
    split_views,
    view_config,
)
from uns_pose_ros.training.adaptation.resting_objects import (
    RestingObject,
    Sighting,
    find_objects,
    fuse_sightings,
)
from uns_pose_ros.training.training_views import TrainConfig

_HELD_OUT = 1 / 3  # last share of the images of an object
_LEAST_HELD_OUT = 4  # images of an object
_CLEAR = 0.3  # least median score of an object
_PATIENCE = 60.0  # s, for another process that changes the model
_QUALITY = 97  # of the JPEG files of the images

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdaptConfig:
    """Which images are read, and how the head learns from them."""

    fixed_frame: str  # TF frame that does not move with the camera, such as odom
    image_topic: str | None = None  # of the images; without: the only one
    camera_info_topic: str | None = None  # without: camera_info beside the images
    tf_topic: str | None = None  # without: that of the camera
    images: int = 300  # at most; a longer bag is read in steps
    views: int = 4  # random views of each image
    steps: int = 400  # for each object
    learning_rate: float = 2e-3

    def __post_init__(self) -> None:
        for name, least in (("images", 20), ("views", 1), ("steps", 1)):
            if getattr(self, name) < least:
                raise InvalidInput(
                    f"--{name} {getattr(self, name)}: at least {least} is valid"
                )
        if not 0 < self.learning_rate <= 0.1:
            raise InvalidInput(
                f"--learning-rate {self.learning_rate:g}: up to 0.1 is valid"
            )


@dataclass(frozen=True, eq=False)
class Adaptation:
    """What came of an adaptation."""

    images: int  # that were estimated
    objects: Sequence[RestingObject]
    left_out: Mapping[str, int]  # objects, by reason
    taught: int  # images that taught
    held_out: int  # images that judged
    choice: Choice  # of what the objects have taught
    kept: int = 0  # objects whose lesson is kept
    before: Path | None = None  # where the model before is


def adapt_model(
    folder: Path,
    bag: Path,
    config: AdaptConfig,
    backbone: DinoV2,
    seed: int = 0,
    device: str = "auto",
    progress: Progress = lambda what, done, total: None,
) -> Adaptation:
    """Adapt the model in a folder to a bag, and replace it if it became better.

    Args:
        folder: The model's folder, or a category folder.
        bag: A rosbag2 recording with camera_info and transforms.
        config: Settings.
        backbone: The frozen backbone, on the device.
        seed: Seed of the views and of the training.
        device: auto, cpu, cuda or cuda:N.
        progress: Called with what is done, steps done and steps in all.

    Raises:
        InvalidInput: Model or bag cannot be used, or no object of the bag can teach.
    """
    folder = artifacts.model_folder(folder)
    model = artifacts.load_model(folder)
    known = training_videos(folder, model)
    find = Estimator(model, device=device)
    with TemporaryDirectory(prefix="uns_pose_adapt_") as name:
        scratch = Path(name)
        results, images = _estimate(bag, find, config, scratch, progress)
        found, left_out = find_objects(_sightings(results))
        objects = _with_clear_scores(found, left_out)
        taught, held_out = _split(objects, left_out, results, images)
        if not held_out:
            counts = [f"{why}: {n}" for why, n in left_out.items()]
            raise InvalidInput(
                f"{bag}: no object can teach: "
                + ("; ".join(counts) or "the model sees none whose camera pose is known")
            )
        replay = replayed_views(known, model, backbone, seed, progress)
        views = object_views(
            model, taught, images, backbone, config.views, seed, scratch, progress
        )
        settings = replace(
            view_config(model, config.views, TrainConfig()),
            steps=config.steps,
            learning_rate=config.learning_rate,
            weight_decay=0.0,
        )
        learned = [
            fine_tune(
                model, own, replay, settings, seed, _of_object(progress, number, taught)
            )
            for number, own in enumerate(split_views(views, len(taught)), 1)
        ]
        lessons = [
            Lesson(one, *judged) for one, judged in zip(learned, held_out, strict=True)
        ]
        before = {k: result.estimates for k, result in enumerate(results)}
        choice = choose_lessons(
            model, lessons, objects, before, images, partial(_load, find), progress
        )
    answer = Adaptation(
        images=len(results),
        objects=objects,
        left_out=left_out,
        taught=sum(len(part) for _, part in taught),
        held_out=sum(len(part) for _, part in held_out),
        choice=choice,
    )
    if choice.model is None:
        return answer
    answer = replace(answer, kept=len(choice.model.taught) - len(model.taught))
    return replace(answer, before=_save(folder, choice.model, bag, answer))


def _load(find: Estimator, model: CategoryModel) -> Estimator:
    """An estimator of another model, with the same backbone."""
    return Estimator(model, find.backbone, str(find.device), EstimatorConfig())


def _estimate(
    bag: Path,
    find: Estimator,
    config: AdaptConfig,
    scratch: Path,
    progress: Progress,
) -> tuple[list[FrameResult], dict[int, RecordedImage]]:
    """Estimate images of the bag, each alone, and keep those with a camera pose as files."""
    with rosbag.open_bag(bag) as reader:
        topic = rosbag.image_topic(bag, rosbag.kinds_of(reader), config.image_topic)
        total = int(reader.topics[topic].msgcount)
    chosen = BagConfig(
        image_topic=config.image_topic,
        camera_info_topic=config.camera_info_topic,
        fixed_frame=config.fixed_frame,
        tf_topic=config.tf_topic,
        every=max(1, -(-total // config.images)),
        search_every=1,
    )
    images, count = dict[int, RecordedImage](), 0

    def keep(result: FrameResult, image: np.ndarray, camera: Camera) -> None:
        nonlocal count
        number, count = count, count + 1
        if result.fixed_from_cam is None:
            return
        path = scratch / "images" / f"{number:06d}.jpg"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        images[number] = RecordedImage(path, camera)

    return estimate_bag_frames(bag, find, chosen, progress, keep), images


def _sightings(results: Sequence[FrameResult]) -> list[Sighting]:
    return [
        Sighting(number, result.stamp, track, estimate, result.fixed_from_cam)
        for number, result in enumerate(results)
        if result.fixed_from_cam is not None
        for estimate, track in zip(result.estimates, result.tracks, strict=True)
    ]


def _with_clear_scores(
    objects: Sequence[RestingObject], left_out: dict[str, int]
) -> list[RestingObject]:
    """The objects whose scores are clear: something that only resembles one teaches a mistake."""
    clear = []
    for thing in objects:
        scores = [sighting.estimate.score for sighting in thing.sightings]
        if float(np.median(scores)) >= _CLEAR:
            clear.append(thing)
        else:
            why = "objects of low scores"
            left_out[why] = left_out.get(why, 0) + 1
    return clear


def _split(
    objects: Sequence[RestingObject],
    left_out: dict[str, int],
    results: Sequence[FrameResult],
    images: Mapping[int, RecordedImage],
) -> tuple[
    list[tuple[RestingObject, Sequence[Sighting]]],
    list[tuple[RestingObject, Sequence[HeldOutImage]]],
]:
    """The objects with the images that teach, and with those that are held out.

    Objects in too few images are counted in `left_out`.
    The pose that teaches comes from the first part alone, so that the last part is independent.
    """
    taught = list[tuple[RestingObject, Sequence[Sighting]]]()
    held_out = list[tuple[RestingObject, Sequence[HeldOutImage]]]()
    for thing in objects:
        last = round(_HELD_OUT * len(thing.sightings))
        first = thing.sightings[: len(thing.sightings) - last]
        fused: RestingObject | str = "objects in too few images for a part that is held out"
        if last >= _LEAST_HELD_OUT:
            fused = fuse_sightings(first)
        if isinstance(fused, str):
            left_out[fused] = left_out.get(fused, 0) + 1
            continue
        taught.append((fused, first))
        held_out.append((thing, _held_out_images(thing, len(first), results, images)))
    return taught, held_out


def _held_out_images(
    thing: RestingObject,
    start: int,
    results: Sequence[FrameResult],
    images: Mapping[int, RecordedImage],
) -> list[HeldOutImage]:
    """The images from sighting `start` on in which an object is, also those without an estimate."""
    seen = {one.image: one.estimate for one in thing.sightings}
    shown = list[HeldOutImage]()
    for number in range(thing.sightings[start].image, thing.sightings[-1].image + 1):
        fixed_from_cam = results[number].fixed_from_cam
        if fixed_from_cam is None or number not in images:
            continue
        place = thing.cam_from_canon(fixed_from_cam)[:3, 3]
        camera = images[number].camera
        x, y = project(camera.matrix, place[None])[0].tolist()
        inside = 0 <= x < camera.width and 0 <= y < camera.height
        if number in seen or (float(place[2]) > 0 and inside):
            shown.append(HeldOutImage(number, fixed_from_cam, seen.get(number)))
    return shown


def _of_object(progress: Progress, number: int, objects: Sequence[object]) -> Progress:
    """Report the progress of one of several objects with its number."""
    if len(objects) == 1:
        return progress
    return lambda what, done, total: progress(
        f"object {number} of {len(objects)}: {what}", done, total
    )


def _save(folder: Path, tuned: CategoryModel, bag: Path, answer: Adaptation) -> Path:
    """Copy the model before beside it and write the adapted one; returns the copy."""
    judgment = answer.choice.judgment
    assert judgment is not None
    record = {
        "bag": bag.resolve().name,
        "version": uns_pose_ros.__version__,
        "objects": answer.kept,
        "images": answer.taught,
        "before": asdict(judgment.before[0]),
        "after": asdict(judgment.after[0]),
    }
    former = tuned.provenance.get("adapted")
    history = [*(former if isinstance(former, list) else []), record]
    tuned = replace(tuned, provenance={**tuned.provenance, "adapted": history})
    with lock_target(folder, _PATIENCE):
        before = folder.with_name(f"{folder.name}.before-adapt")
        number = 2
        while before.exists():
            before = folder.with_name(f"{folder.name}.before-adapt-{number}")
            number += 1
        with replace_folder(before) as new:
            shutil.copytree(folder, new, dirs_exist_ok=True, symlinks=True)
        artifacts.save_model(keep_frames(tuned, folder), folder)
    return before
