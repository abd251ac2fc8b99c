"""From categories or a bag to a label set on disk, which appears whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

import uns_pose_ros
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.types import Progress
from uns_pose_ros.exports.bag_labels import BagSelection, label_bag
from uns_pose_ros.exports.formats.bop_format import write_bop_scenes
from uns_pose_ros.exports.formats.coco_format import write_coco
from uns_pose_ros.exports.formats.foundationpose_format import write_foundationpose
from uns_pose_ros.exports.formats.nerfstudio_format import write_nerfstudio
from uns_pose_ros.exports.formats.written_files import WrittenFiles
from uns_pose_ros.exports.formats.yolo_pose_format import write_yolo_pose
from uns_pose_ros.exports.label_set import KEYPOINTS, LabelSet, join_label_sets
from uns_pose_ros.exports.label_views import LabelRenderer
from uns_pose_ros.exports.splits import SplitConfig, split_scenes
from uns_pose_ros.exports.video_labels import VideoSelection, label_videos
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.artifacts import write_json
from uns_pose_ros.io.schema.decoding import decode_json, read_file
from uns_pose_ros.io.writing.replacement import replace_folder
from uns_pose_ros.io.writing.target_lock import lock_target

EXPORT = "export.json"
FORMATS = ("bop", "coco", "yolo-pose", "nerfstudio", "foundationpose")
_IN_METERS = ("bop", "foundationpose")  # formats whose lengths have a unit
_WITH_KEYPOINTS = ("coco", "yolo-pose")
_VIEWS = {"foundationpose": 16}  # of a video, where --views says nothing
_PROGRAM = "uns_pose_ros"
_SCALES = ("refuse", "mark", "leave-out")  # what happens to objects of unknown scale


@dataclass(frozen=True)
class ExportConfig:
    """What is exported, and how."""

    format: str
    videos: VideoSelection = field(default_factory=VideoSelection)
    bag: BagSelection = field(default_factory=BagSelection)
    splits: SplitConfig = field(default_factory=SplitConfig)
    keypoints: str = "box"
    # refuse, mark or leave-out; "": refuse in formats whose lengths have a unit, else mark
    unknown_scale: str = ""

    def __post_init__(self) -> None:
        for value, name, valid in (
            (self.format, "--format", FORMATS),
            (self.keypoints, "--keypoints", tuple(KEYPOINTS)),
            (self.unknown_scale or "mark", "--unknown-scale", _SCALES),
        ):
            if value not in valid:
                raise InvalidInput(f"{name} {value}: one of {', '.join(valid)} is valid")


def export_labels(
    categories: Sequence[Path], out: Path, config: ExportConfig, progress: Progress
) -> dict[str, Any]:
    """Write the labels of categories in the format of another program.

    Args:
        categories: folders with one subfolder for each video and alignment.json; of a bag, one
            folder with a model.
        out: a new folder, or an export of before, which is replaced.
        config: what is exported, and how.
        progress: is called with the step, the images done and all images.

    Returns:
        The content of export.json.

    Raises:
        InvalidInput: The input cannot be used, the scale of an object is not known and needed, or
            something else is at `out`.
        DiskError: the disk refuses it.
    """
    with lock_target(out):
        _check_place(out, categories)
        with _single_thread(), replace_folder(out) as new:
            scratch = new / ".images"
            scratch.mkdir()
            labels = collect_labels(categories, config, scratch)
            record = _write(new, labels, config, progress)
            shutil.rmtree(scratch)
            write_json(new / EXPORT, record)
    return record


@contextmanager
def _single_thread() -> Iterator[None]:
    """One thread of PyTorch: its others wait longer for each other than the small work takes."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def collect_labels(
    categories: Sequence[Path], config: ExportConfig, scratch: Path
) -> LabelSet:
    """The labels of categories, or of a bag, with their splits and known scales.

    `scratch` is a folder for the images of a bag.
    """
    if config.bag.bag is not None and config.bag.results is not None:
        labels = _collect_bag(categories, config.bag, scratch)
    else:
        labels = _collect_videos(categories, config)
    return split_scenes(_settle_scale(labels, config), config.splits)


def _collect_bag(
    categories: Sequence[Path], selection: BagSelection, scratch: Path
) -> LabelSet:
    assert selection.bag is not None and selection.results is not None
    if len(categories) != 1:
        raise InvalidInput(
            f"{len(categories)} categories: the estimates in a bag are of one; name its folder"
        )
    model = artifacts.load_model(categories[0])
    return label_bag(selection.bag, selection.results, model, selection.min_score, scratch)


def _collect_videos(categories: Sequence[Path], config: ExportConfig) -> LabelSet:
    names = [category.resolve().name for category in categories]
    twice = sorted({name for name in names if names.count(name) > 1})
    if not names or twice:
        what = f"{shorten(twice)} twice" if twice else "none"
        raise InvalidInput(f"categories: {what}; folders of different names are valid")
    if config.videos.exclude is not None and len(names) > 1:
        raise InvalidInput(
            "--exclude is of one category; with several, each has an exclude.txt of its own"
        )
    selection = config.videos
    if not selection.views:
        selection = replace(selection, views=_VIEWS.get(config.format, 0))
    return join_label_sets([label_videos(category, selection) for category in categories])


def _settle_scale(labels: LabelSet, config: ExportConfig) -> LabelSet:
    """Refuse, leave out or keep the objects whose size is not known in meters."""
    unknown = [k for k, instance in enumerate(labels.instances) if not instance.metric]
    otherwise = "refuse" if config.format in _IN_METERS else "mark"
    policy = config.unknown_scale or otherwise
    if not unknown or policy == "mark":
        return labels
    names = [
        f"{labels.categories[labels.instances[k].category]}/{labels.instances[k].name}"
        for k in unknown
    ]
    if policy == "refuse":
        raise InvalidInput(
            f"{config.format} has lengths in meters, and the scale of {len(names)} of "
            f"{len(labels.instances)} objects is not known ({shorten(names, 4)}); film them with "
            'depth, set "metric" in video.json, or take --unknown-scale leave-out or mark'
        )
    return _without(labels, set(unknown), names)


def _without(labels: LabelSet, unknown: set[int], names: list[str]) -> LabelSet:
    """The set without some of its objects; the others get new numbers."""
    kept = [k for k in range(len(labels.instances)) if k not in unknown]
    numbers = {k: number for number, k in enumerate(kept)}
    scenes = []
    for scene in labels.scenes:
        frames = [
            replace(
                frame,
                labels=tuple(
                    replace(label, instance=numbers[label.instance])
                    for label in frame.labels
                    if label.instance in numbers
                ),
            )
            for frame in scene.frames
        ]
        frames = [frame for frame in frames if frame.labels]
        if frames:
            scenes.append(replace(scene, frames=tuple(frames)))
    for name in names:
        labels.left_out.add("objects of unknown scale", name)
    if not scenes:
        raise InvalidInput(
            "no labels are left to export: the scale of none of the objects is known"
        )
    instances = tuple(labels.instances[k] for k in kept)
    return replace(labels, instances=instances, scenes=tuple(scenes))


def _write(
    folder: Path, labels: LabelSet, config: ExportConfig, progress: Progress
) -> dict[str, Any]:
    """Write all files but export.json; returns the content of export.json."""
    renderer = LabelRenderer(labels, progress)
    written = WrittenFiles(folder, labels.categories)
    depth = _write_format(folder, renderer, written, config)
    if not renderer.images:
        raise InvalidInput(
            f"no labels are left to export: {'; '.join(renderer.left_out.lines())}"
        )
    written.save()
    left_out = LeftOut()
    left_out.extend(labels.left_out)
    left_out.extend(renderer.left_out)
    record = describe_export(labels, config)
    if depth:
        record["depth_images"] = depth
    return record | {
        "images": renderer.images,
        "labels": renderer.objects,
        "left_out": dict(left_out.counts),
        "remarks": [*left_out.lines(), *_remarks(labels, config)],
    }


def _write_format(
    folder: Path, renderer: LabelRenderer, written: WrittenFiles, config: ExportConfig
) -> dict[str, int]:
    """Write the files of a format; returns how its depth images were made, if it has any."""
    if config.format == "foundationpose":
        return write_foundationpose(folder, renderer, written)
    if config.format == "coco":
        write_coco(folder, renderer, written, config.keypoints)
    elif config.format == "yolo-pose":
        write_yolo_pose(folder, renderer, written, config.keypoints)
    elif config.format == "bop":
        write_bop_scenes(folder, renderer, written)
    else:
        write_nerfstudio(folder, renderer, written)
    return {}


def describe_export(labels: LabelSet, config: ExportConfig) -> dict[str, Any]:
    """What export.json says about categories, objects and scenes; sizes in units of the objects."""
    return {
        "program": _PROGRAM,
        "version": uns_pose_ros.__version__,
        "format": config.format,
        "source": "videos" if config.bag.bag is None else "estimates in a bag",
        "min_score": None if config.bag.bag is None else config.bag.min_score,
        "keypoints": list(KEYPOINTS[config.keypoints]),
        "categories": list(labels.categories),
        "objects": [
            {
                "id": number,
                "category": labels.categories[instance.category],
                "name": instance.name,
                "metric": instance.metric,
                "unit": "m" if instance.metric else "object diameter of the category",
                "size": (instance.vertices.max(0) - instance.vertices.min(0)).tolist(),
                "symmetry_order": instance.symmetry.order,
                "symmetry_axis": instance.symmetry.axis.tolist(),
                "keypoints": instance.keypoints(config.keypoints).tolist(),
            }
            for number, instance in enumerate(labels.instances, 1)
        ],
        "scenes": [
            {
                "id": number,
                "category": labels.categories[scene.category],
                "name": scene.name,
                "split": scene.split,
                "masks": "of the video" if scene.frames[0].mask else "the projected model",
            }
            for number, scene in enumerate(labels.scenes, 1)
        ],
    }


def _remarks(labels: LabelSet, config: ExportConfig) -> list[str]:
    """What a person should know before a training."""
    remarks = []
    unknown = sum(not instance.metric for instance in labels.instances)
    if unknown:
        remarks.append(
            f"the scale of {unknown} of {len(labels.instances)} objects is not known: their "
            "lengths are in object diameters of the category (metric: false in export.json)"
        )
    symmetric = sorted(
        {
            labels.categories[instance.category]
            for instance in labels.instances
            if instance.symmetry.order != 1
        }
    )
    if symmetric and config.format in _WITH_KEYPOINTS:
        remarks.append(
            f"{shorten(symmetric)}: symmetric, so that several sets of keypoints are right in "
            "an image and only one of them is in the labels"
        )
    if not any(scene.split == "val" for scene in labels.scenes):
        remarks.append(
            "no video is left for validation: film another one, or name it by --val"
        )
    return remarks


def _check_place(out: Path, categories: Sequence[Path]) -> None:
    """Raise InvalidInput if a folder that is no export of before, or a file, is at `out`."""
    place = out.resolve()
    for category in categories:
        if place == category.resolve() or place in category.resolve().parents:
            raise InvalidInput(
                f"--out {out}: the category is in there; another folder is valid"
            )
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not (out / EXPORT).is_file() or not _is_export(out / EXPORT):
        raise InvalidInput(
            f"--out {out}: something else is there already; a new folder, or an export of before, "
            "which is replaced, is valid"
        )


def _is_export(path: Path) -> bool:
    try:
        record = decode_json(read_file(path, "export"), path, "export")
    except InvalidInput:
        return False
    return isinstance(record, dict) and record.get("program") == _PROGRAM
