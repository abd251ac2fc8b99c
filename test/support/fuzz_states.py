"""Files that the package leaves for itself, to be spoiled: states, records and locks."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path
from unittest import mock

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import fuzz_checks
from source_files import checks, save_photograph
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts, checkpoint
from uns_pose_ros.io.checkpoint import Checkpoint
from uns_pose_ros.io.schema.video_record import read_video_record
from uns_pose_ros.io.writing import target_lock
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.pipeline.poses_and_masks import pose_preparation
from uns_pose_ros.pipeline.provenance import MADE
from uns_pose_ros.training import training_state, training_views
from uns_pose_ros.training.training_state import TrainingParts
from uns_pose_ros.training.training_views import Views

KEY = {"seed": 1}
STEPS, _JOBS = 20, 3
_LOCK = "mug.lock"
_STATE = "tensors.safetensors"


def training_parts() -> TrainingParts:
    """The parts of a training of a tiny head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = NetworkConfig(layers=(11,), width=4, blocks=1, features=3, clutter=2)
        head = Head(config, 5, 6)
    optimizer = torch.optim.AdamW(head.parameters(), lr=2e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    return TrainingParts(head, optimizer, schedule, torch.Generator())


def kept_views(work: Checkpoint) -> Views:
    columns: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
        "tokens": ((4, 2, 2, 6), torch.bfloat16),
        "canon": ((4, 16, 3), torch.float16),
        "background": ((4, 16), torch.bool),
        "weight": ((4,), torch.float32),
        "video": ((4,), torch.int64),
        "crop_from_cam": ((4, 3, 3), torch.float64),
        "cam_from_canon": ((4, 3, 4), torch.float64),
    }
    return Views(**{name: work.array(name, *column) for name, column in columns.items()})


def write_training(folder: Path) -> None:
    """The state of a training that was stopped after one step."""
    work, parts = Checkpoint(folder / "state", KEY), training_parts()
    views = kept_views(work)
    for column in fields(Views):
        getattr(views, column.name)[:] = 1
    work.write_note("views", (_JOBS, len(views)))
    parts.head(torch.ones(1, 2, 2, 6)).sum().backward()
    parts.optimizer.step()
    parts.schedule.step()
    curve: dict[str, list[float]] = {"step": [0], "object": [1.5], "background": [0.5]}
    curve |= {"watched_step": [0], "watched_accuracy": [50.0]}
    training_state.keep_state(work, parts, 1, curve)
    work.close(done=False)


def read_training(folder: Path, _: Path) -> None:
    """Resume; what is not as a training leaves it is refused as a whole."""
    work, parts = Checkpoint(folder / "state", KEY), training_parts()
    try:
        before = {name: tensor.clone() for name, tensor in parts.head.state_dict().items()}
        views = kept_views(work)
        try:
            start, filled = training_views.check_left(work.read_note("views"), views, _JOBS)
        except ValueError:
            start, filled = 0, 0
        assert 0 <= start <= _JOBS and 0 <= filled <= len(views)
        assert bool(torch.isfinite(views.tokens[:filled]).all())
        assert bool(((views.weight[:filled] >= 0) & (views.weight[:filled] <= 1)).all())
        first, curve = training_state.resume_state(work, parts, STEPS)
        assert 0 <= first <= STEPS
        if first == 0:
            assert not curve and not parts.optimizer.state_dict()["state"]
            now = parts.head.state_dict()
            assert all(torch.equal(now[name], tensor) for name, tensor in before.items())
            raise InvalidInput("refused with a warning")
        assert all(
            len(curve[name]) == len(curve["step"]) for name in ("object", "background")
        )
        for _step in range(first, min(first + 2, STEPS)):  # it goes on
            parts.optimizer.zero_grad()
            parts.head(torch.ones(1, 2, 2, 6)).sum().backward()
            parts.optimizer.step()
            parts.schedule.step()
        torch.rand(1, generator=parts.generator)
        for weights in parts.head.state_dict().values():
            assert bool(torch.isfinite(weights).all()), "not finite after a step"
        assert 0 <= parts.optimizer.param_groups[0]["lr"] <= 2e-3
    finally:
        work.close(done=False)


def renew_training(folder: Path, spoiled: Path) -> None:
    """The checksum of a spoiled state put right."""
    if spoiled.name == _STATE:
        with safe_open(spoiled, "pt") as file:
            metadata = file.metadata()
        tensors = load_file(spoiled)
        metadata["sha256"] = checkpoint._digest(tensors, metadata["facts"])
        save_file(tensors, spoiled, metadata)
    elif spoiled.name == "notes.json":
        record = json.loads(spoiled.read_text())
        record.pop("sha256", None)
        digest = artifacts.fingerprint(**record)
        spoiled.write_text(json.dumps({**record, "sha256": digest}))


def write_made(folder: Path) -> None:
    """A video whose poses and masks the package made."""
    clip = folder / "clip"
    (clip / "images").mkdir(parents=True)
    for number in range(3):
        save_photograph(clip / "images" / f"{number}.jpg", checks(number))
    with _stand_ins():
        pose_preparation.ensure_poses(clip)


def read_made(folder: Path, _: Path) -> None:
    """Poses whose record was spoiled stay, are found again, or are refused."""
    clip = folder / "clip"
    with _stand_ins():
        pose_preparation.ensure_poses(clip)
    assert (clip / "sparse").is_dir()
    fuzz_checks.check_record(clip)
    artifacts.provenance_of(clip / "sparse" / MADE)


def _stand_ins() -> mock._patch[object]:
    from quick_work import _find_poses
    from uns_pose_ros.core.camera import assumed_camera
    from uns_pose_ros.reconstruction.colmap.sfm_attempt import Poses

    def find(video: object, *rest: object) -> Poses:
        found = _find_poses(video, *rest)  # type: ignore[arg-type]
        return Poses(assumed_camera(64, 48), found.images, found.points, found.report)

    return mock.patch.multiple(
        pose_preparation,
        structure_from_motion=mock.Mock(find_poses=find),
        capture_quality=mock.Mock(is_turntable=lambda images: False),
    )


def write_origin(folder: Path) -> None:
    """A video, and the images that it was imported from."""
    (folder / "photos").mkdir()
    for number in range(3):
        save_photograph(folder / "photos" / f"{number}.jpg", checks(number), focal_35=28)
    import_video(folder / "photos", folder / "clip", ImportConfig(frames=3))


def read_origin(folder: Path, _: Path) -> None:
    """Import again: the video is current, or the import is refused."""
    made = import_video(folder / "photos", folder / "clip", ImportConfig(frames=3))
    assert not made, "a video with images was made again"
    fuzz_checks.check_imported(folder / "clip")
    origin = read_video_record(folder / "clip").origin
    assert origin is not None and origin.kind == "photographs"


def write_lock(folder: Path) -> None:
    (folder / _LOCK).write_text(
        f"{target_lock.machine_token()}\n{os.getpid()}\nuns-pose train\n"
    )


def read_lock(_: Path, spoiled: Path) -> None:
    """What is said of who holds a lock."""
    said = target_lock._holder(spoiled)
    assert said.isprintable() and len(said) < 300 and said
