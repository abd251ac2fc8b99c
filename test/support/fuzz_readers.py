"""Every reader of the package, each with valid files to be spoiled before it reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional

import fuzz_checks
import fuzz_datasets
import fuzz_inputs
import fuzz_records
import fuzz_states
from colmap_files import write_binary
from source_files import checks, save_photograph, write_co3d, write_film
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.recording import JOURNAL, FrameRecord, Recording, recover
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.geometry import rotation_from_vector
from uns_pose_ros.core.named_frames import NamedFrame
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh
from uns_pose_ros.estimation import loaded_model
from uns_pose_ros.evaluation import bag_transforms, rotation_labels
from uns_pose_ros.io import artifacts, depth_images
from uns_pose_ros.io.camera_json import parse_camera, read_camera
from uns_pose_ros.io.colmap import read_sparse
from uns_pose_ros.io.given_files import stays_inside
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.ply import read_ply
from uns_pose_ros.io.schema.board_record import read_board_record
from uns_pose_ros.io.schema.frames_record import (
    FRAMES,
    MAX_FRAMES,
    read_frames,
    write_frames,
)
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.networks import weight_catalog, weight_fetching
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.reconstruction import prompted_segmentation

_NAMES = ("clip_01", "clip_02")  # of labels
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


def _pictures(folder: Path) -> None:
    colour = Image.fromarray(checks(1))
    for ending in ("jpg", "png", "bmp", "webp", "tif"):
        colour.save(folder / f"colour.{ending}")
    colour.convert("P").save(folder / "palette.png")
    colour.convert("CMYK").save(folder / "print.jpg", progressive=True)
    colour.convert("L").save(folder / "grey.tiff", compression="tiff_lzw")
    colour.save(folder / "small.tif", compression="tiff_adobe_deflate")


def _camera(folder: Path) -> None:
    k = [500.0, 0, 31.5, 0, 500.0, 23.5, 0, 0, 1]
    (folder / "K.json").write_text(
        json.dumps({"K": k, "D": [0.1, 0.2, 0, 0, 0], "width": 64, "height": 48})
    )


def _text_model(folder: Path) -> None:
    (folder / "cameras.txt").write_text(
        "# cameras\n1 PINHOLE 640 480 500 510 320 240\n2 OPENCV 64 48 50 51 32 24 .1 .2 0 0\n"
    )
    (folder / "images.txt").write_text(
        "1 1 0 0 0 1 2 3 1 a.jpg\n10 20 -1 3 4 1\n2 0 1 0 0 4 5 6 2 b/c d.jpg\n\n"
    )
    (folder / "points3D.txt").write_text(
        "1 0.5 1 2 128 128 128 0.1 1 0 2 1\n2 -1 -2 -3 0 0 0 0\n"
    )


def _dialects(folder: Path) -> None:
    """The text model as other programs write it, one dialect a subfolder."""
    _text_model(folder)
    files = [path for path in folder.iterdir() if path.is_file()]
    for number, (blank, point, end) in enumerate(
        [(";", ",", "\n"), (", ", ".", "\r\n"), ("\t", ",", "\n\n"), (",", ".", "\r")]
    ):
        (folder / str(number)).mkdir()
        for path in files:
            text = path.read_text().replace(".", point).replace(" ", blank)
            text = text.replace("\n", end).replace(",jpg", ".jpg")
            (folder / str(number) / path.name).write_text("\ufeff" + text, newline="")
    for path in files:
        path.unlink()


def _category(folder: Path) -> None:
    """One reconstructed video without pictures, an alignment of it, and a model of it."""
    vertices, triangles = (
        torch.eye(4)[:, :3].contiguous(),
        torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]),
    )
    features, cameras = torch.eye(4, 8).half(), torch.eye(4).repeat(2, 1, 1)
    mesh = FeatureMesh(
        vertices, triangles, features, torch.arange(4), torch.tensor([0, 1, 0, 1]), cameras
    )
    artifacts.save_feature_mesh(mesh, folder / "clip_01", {"seed": 0})
    one, pose = torch.ones(1, dtype=torch.float64), torch.eye(4, dtype=torch.float64)[None]
    alignment = Alignment(("clip_01",), pose, one, torch.ones(1, dtype=torch.bool), one)
    artifacts.save_alignment(alignment, folder / "alignment.json", {"seed": 0})
    config = NetworkConfig(layers=(11,), width=8, blocks=1, features=4, clutter=2)
    head = {
        name: tensor.detach()
        for name, tensor in Head(config, len(vertices), 16).state_dict().items()
    }
    vertex_features = functional.normalize(head.pop("vertex_features"), dim=-1)
    background_features = functional.normalize(head.pop("background_features"), dim=-1)
    origin = {
        "network": artifacts.plain(config),
        "crop_size": 224,
        "canon_from_obj": {"clip_01": torch.eye(4).tolist()},
    }
    artifacts.save_model(
        CategoryModel(
            "truck",
            vertices,
            triangles,
            vertex_features,
            background_features,
            head,
            provenance=origin,
        ),
        folder / "model",
    )


def _read_model(folder: Path, _: Path) -> None:
    model = artifacts.load_model(folder / "model")
    fuzz_checks.check_model(model)
    loaded_model.LoadedModel(model, torch.device("cpu"), False)


def _renew_mesh(folder: Path, _: Path) -> None:
    """The mesh's new checksum into the features' metadata."""
    path = folder / "clip_01" / artifacts.FEATURES
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    metadata["companions"] = json.dumps(
        {artifacts.MESH: artifacts.file_hash(path.with_name(artifacts.MESH))}
    )
    save_file(load_file(path), path, metadata)


def _renew_model(folder: Path, _: Path) -> None:
    path = folder / "model" / artifacts.MODEL
    record = json.loads(path.read_text())
    if isinstance(record.get("companions"), dict):
        record["companions"] = {
            n: artifacts.file_hash(path.with_name(n))
            for n in (artifacts.TEMPLATE, artifacts.WEIGHTS)
        }
        path.write_text(json.dumps(record))


def _recording(folder: Path) -> None:
    """A recording that was closed, one that was killed."""
    picture = cv2.imencode(".jpg", checks(1))[1].tobytes()
    camera = {
        "K": [500.0, 0, 31.5, 0, 500.0, 23.5, 0, 0, 1],
        "D": [],
        "width": 64,
        "height": 48,
    }
    pose = torch.eye(4, dtype=torch.float64)
    for name in ("clip_01", "clip_02"):
        recording = Recording.open_or_recover(folder / name, {"image": "/image"}, "odom")
        for stamp in range(4):
            recording.add(
                picture,
                ".jpg",
                FrameRecord(stamp, parse_camera(camera, folder), cam_from_obj=pose),
            )
        if name == "clip_01":
            recording.close()


def _read_recordings(folder: Path, spoiled: Path) -> None:
    """Recover both, and go on with the one that was spoiled."""
    recover(folder)
    clip = folder / spoiled.relative_to(folder).parts[0]
    Recording.open_or_recover(clip, {"image": "/image"}, "odom").close()
    fuzz_checks.check_imported(clip)


def _import(folder: Path, _: Path, source: str, **settings: Any) -> None:
    into = folder.parent / "into"
    import_video(folder / source, into, ImportConfig(**{"frames": 3, **settings}))
    fuzz_checks.check_imported(into)


def _bag(folder: Path, plugin: str) -> None:
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import DEPTHS, KINDS, write_bag

    topics = set(KINDS) - ({"/cam/image_raw"} if plugin == "MCAP" else set())
    topics |= {sorted(DEPTHS)[plugin == "MCAP"]}
    write_bag(folder / "bag", StoragePlugin[plugin], topics, views=4)


def _photographs(folder: Path) -> None:
    (folder / "photos").mkdir()
    for k in range(4):
        save_photograph(
            folder / "photos" / f"{k}.jpg", checks(k), orientation=6, focal_35=28
        )


def _dataset(folder: Path) -> None:
    from synthetic import write_video

    write_video(folder / "clip", seed=1, views=4, size=32)
    (folder / "clip" / "video.json").write_text(
        json.dumps(
            {
                "metric": True,
                "camera": {
                    "K": [50, 0, 16, 0, 50, 16, 0, 0, 1],
                    "D": [],
                    "width": 32,
                    "height": 32,
                },
            }
        )
    )


def _field(number: int, content: bytes | int) -> bytes:
    """One field of a protobuf message; numbers and lengths below 2^14."""
    value = content if isinstance(content, int) else len(content)
    head = bytes(
        [
            number << 3 | (0 if isinstance(content, int) else 2),
            value & 127 | 128,
            value >> 7,
        ]
    )
    return head if isinstance(content, int) else head + content


def _onnx(folder: Path) -> None:
    """A graph of one matrix product, and of the parts of DINOv2 that are put together again."""
    graph = _field(
        1,
        _field(1, b"x") + _field(1, b"m") + _field(3, b"/a/MatMul") + _field(4, b"MatMul"),
    )
    for name, shape in (
        ("m", (3, 2)),
        ("model.cls_token", (1, 1, 4)),
        ("onnx::Reshape_1", (1, 2, 4)),
        ("model.b", (5,)),
    ):
        dimensions = b"".join(_field(1, size) for size in shape)
        graph += _field(
            5,
            dimensions
            + _field(2, 1)
            + _field(8, name.encode())
            + _field(9, np.zeros(shape, "<f4").tobytes()),
        )
    (folder / "tiny.onnx").write_bytes(_field(1, 8) + _field(7, graph))
    save_file(
        {"cls_token": torch.zeros(1, 1, 4), "norm.weight": torch.ones(4)},
        folder / "tiny.safetensors",
    )


def _read_weights(_: Path, spoiled: Path) -> None:
    weight_fetching._read_tensors(
        spoiled, weight_catalog._BY_NAME["dinov2_vits14"]
    )  # behind it the checksum of their content


def _labels(folder: Path) -> None:
    eye = np.eye(3).tolist()
    (folder / "labels.json").write_text(
        json.dumps({name: {"canon_from_obj": eye} for name in _NAMES})
    )


def _resting(folder: Path) -> None:
    (folder / "pose.json").write_text(
        json.dumps({"frame": "odom", "pose": np.eye(4).tolist()})
    )


def _read_mesh(folder: Path, _: Path) -> None:
    fuzz_checks.check_mesh(artifacts.load_feature_mesh(folder / "clip_01"))


def _read_video(folder: Path, _: Path) -> None:
    fuzz_checks.check_video(load_video(folder / "clip"))
    fuzz_checks.check_video(load_video(folder / "clip", need_masks=False, need_poses=False))
    fuzz_checks.check_record(folder / "clip")


def _depth(folder: Path) -> None:
    (folder / "a.png").write_bytes(
        depth_images.encode_depth(np.arange(48 * 64, dtype=np.uint16).reshape(48, 64))
    )


def _prompts(folder: Path) -> None:
    prompted_segmentation.write_prompts(
        folder, prompted_segmentation.Prompts(((3.0, 4.5),), ((5.0, 6.0),), "000001.jpg")
    )


def _read_depth(_: Path, spoiled: Path) -> None:
    depth = depth_images.read_depth(spoiled, (64, 48))
    assert depth.shape == (48, 64) and depth.dtype == np.uint16


def _read_prompts(folder: Path, _: Path) -> None:
    prompts = prompted_segmentation.read_prompts(folder)
    if prompts is not None:
        assert prompts.points and len(prompts.points) <= 10_000
        points = [*prompts.points, *prompts.background]
        assert all(abs(at) <= 1e6 for point in points for at in point)
        assert not prompts.frame or stays_inside(prompts.frame)


def _read_sparse(folder: Path, _: Path) -> None:
    sparse = read_sparse(folder)
    fuzz_checks.check_sparse(sparse)
    assert all("\n" not in line for line in sparse.remarks())


def _frames(folder: Path) -> None:
    turn = rotation_from_vector(torch.tensor([0.3, -0.2, 0.9], dtype=torch.float64))
    place = torch.tensor([0.4, -0.1, 0.2], dtype=torch.float64)
    one = NamedFrame("handle", place, turn, 0.08)
    two = NamedFrame("rim", -place, turn.T, follow="rigid", prefer=place)
    write_frames([one, two], folder / FRAMES)


def _board(folder: Path) -> None:
    (folder / "board.yaml").write_text(
        "kind: charuco\nsquares: [7, 5]\nsquare: 0.03\nmarker: 0.022\n"
        "board_from_object: [[1, 0, 0, 0.1], [0, 1, 0, 0.1], [0, 0, 1, 0], [0, 0, 0, 1]]\n"
    )


def _read_board(folder: Path, _: Path) -> None:
    record = read_board_record(folder / "board.yaml")
    assert 0 < record.marker_side <= record.square
    assert all(0 < side < 3000 for side in record.size)


def _read_frames(folder: Path, _: Path) -> None:
    frames = read_frames(folder)
    assert len({frame.name for frame in frames}) == len(frames) <= MAX_FRAMES
    for frame in frames:
        fuzz_checks.check_pose(frame.canon_from_frame)
        assert float(frame.position.abs().max()) <= 10
        assert frame.width is None or 0 < frame.width <= 10


def _read_labels(_: Path, spoiled: Path) -> None:
    labels = rotation_labels.load_labels(spoiled, _NAMES)
    assert labels and labels.keys() <= {*_NAMES}
    for rotation in labels.values():
        fuzz_checks.check_rotation(rotation)


def _read_resting(_: Path, spoiled: Path) -> None:
    frame, pose = bag_transforms._resting(spoiled)
    assert frame.strip("/") and len(frame) <= 1000
    fuzz_checks.check_pose(torch.from_numpy(pose), most=0.03)


_BAG = {"fixed_frame": "odom", "depth_topic": "/cam/depth/image_raw"}
_IN_MODEL = "model/model.json,model/model.safetensors,model/template.ply"
READERS = (
    Reader(
        "image",
        _pictures,
        lambda _, spoiled: fuzz_checks.check_image(read_image(spoiled)),
    ),
    Reader(
        "upright",
        _photographs,
        lambda _, spoiled: fuzz_checks.check_camera(read_upright(spoiled).camera()[0]),
        "photos/*",
    ),
    Reader(
        "mask", _pictures, lambda _, spoiled: fuzz_checks.check_mask(read_mask(spoiled))
    ),
    Reader("depth", _depth, _read_depth),
    Reader("prompts", _prompts, _read_prompts),
    Reader(
        "camera",
        _camera,
        lambda _, spoiled: fuzz_checks.check_camera(read_camera(spoiled)),
    ),
    Reader("sparse_text", _text_model, _read_sparse),
    Reader("sparse_dialects", _dialects, _read_sparse, "*/*"),
    Reader(
        "sparse_binary",
        lambda folder: write_binary(folder / "0"),
        _read_sparse,
        "0/*",
    ),
    Reader(
        "mesh",
        _category,
        _read_mesh,
        "clip_01/features.safetensors,clip_01/mesh.ply",
        _renew_mesh,
    ),
    Reader(
        "ply",
        _category,
        lambda _, spoiled: fuzz_checks.check_shape(*read_ply(spoiled)),
        "clip_01/mesh.ply",
    ),
    Reader(
        "alignment",
        _category,
        lambda _, spoiled: fuzz_checks.check_alignment(artifacts.load_alignment(spoiled)),
        "alignment.json",
    ),
    Reader("model", _category, _read_model, _IN_MODEL, _renew_model),
    Reader("frames", _frames, _read_frames),
    Reader("labels", _labels, _read_labels),
    Reader("resting", _resting, _read_resting),
    Reader("board", _board, _read_board),
    Reader(
        "video",
        _dataset,
        _read_video,
        "clip/images/*,clip/masks/*,clip/sparse/*,clip/video.json",
    ),
    Reader(
        "recording", _recording, _read_recordings, f"*/video.json,*/{JOURNAL},*/sparse/*"
    ),
    Reader(
        "film",
        lambda folder: write_film(folder / "a.mp4", [checks(k) for k in range(9)]),
        lambda f, s: _import(f, s, "a.mp4"),
    ),
    Reader("metadata", fuzz_inputs.write_metadata, fuzz_inputs.read_metadata),
    Reader("transforms", fuzz_inputs.write_transforms, fuzz_inputs.read_transforms),
    Reader("cut_bags", fuzz_inputs.write_cut_bags, fuzz_inputs.read_cut_bags, "at"),
    Reader("photographs", _photographs, lambda f, s: _import(f, s, "photos"), "photos/*"),
    Reader(
        "colmap_dataset",
        _dataset,
        lambda f, s: _import(f, s, "clip"),
        "clip/images/*,clip/masks/*,clip/sparse/*",
    ),
    Reader(
        "co3d",
        lambda f: write_co3d(f, "ndc_isotropic"),
        lambda f, s: _import(f, s, "truck/101_1_2"),
        "truck/*.jgz,truck/101_1_2/images/*,truck/101_1_2/masks/*",
    ),
    Reader(
        "bag_mcap",
        lambda f: _bag(f, "MCAP"),
        lambda f, s: _import(f, s, "bag", **_BAG),
        "bag/*",
    ),
    Reader(
        "bag_sqlite3",
        lambda f: _bag(f, "SQLITE3"),
        lambda f, s: _import(f, s, "bag", **_BAG),
        "bag/*",
    ),
    Reader("weights", _onnx, _read_weights),
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
