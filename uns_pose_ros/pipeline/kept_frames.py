"""The named frames of a model that is trained again: they move to the new canonical frame."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import (
    angle_between,
    from_parts,
    invert,
    split_similarity,
)
from uns_pose_ros.core.types import CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.frames_record import FRAMES, read_frames

_LOG = logging.getLogger(__name__)
SET_ASIDE = "frames_before.yaml"
_AGREE = 20.0  # degrees by which videos may differ about the turn of the canonical frame


def keep_frames(model: CategoryModel, folder: Path) -> CategoryModel:
    """Give a new model the named frames of the model in the folder that it will replace.

    They move with the videos that both models were trained on. Where no video says how, the
    frames are written to frames_before.yaml in the folder, with a warning: a frame at a wrong
    place would be worse than none.
    """
    try:
        frames = read_frames(folder)
        if not frames:
            return model
        new_from_old = turn_since(artifacts.load_model(folder), model)
    except InvalidInput as error:
        _LOG.warning("%s: the new model has no named frames (%s)", folder, error)
        _set_aside(folder)
        return model
    if new_from_old is None:
        _LOG.warning(
            "%s: the new model has no named frames: no video connects it to the model before; "
            "the frames are in %s",
            folder,
            SET_ASIDE,
        )
        _set_aside(folder)
        return model
    moved = [frame.moved(new_from_old) for frame in frames]
    return replace(model, frames=tuple(moved))


def turn_since(old: CategoryModel, new: CategoryModel) -> Tensor | None:
    """The similarity (4, 4) from the canonical frame of a model to that of another.

    Its rotation is that of one video, which agrees best with the others that both models were
    trained on. Videos whose meshes have not changed come first, as their obj frames are surely the
    same. Returns None if the models have no video in common, or only changed ones that disagree.
    """
    before, after = old.training_poses, new.training_poses
    common = [name for name in after if name in before]
    hashes = [_inputs(model) for model in (old, new)]
    same = [n for n in common if n in hashes[0] and hashes[0][n] == hashes[1].get(n)]
    names = same or common
    if not names or (not same and len(names) < 2):
        return None
    moves = torch.stack([after[name] @ invert(before[name]) for name in names])
    rotation = split_similarity(moves)[0]
    apart = angle_between(rotation[:, None], rotation[None]).median(1).values
    best = int(apart.argmin())
    if not same and float(apart[best]) > _AGREE:
        return None
    near = angle_between(rotation, rotation[best]) <= _AGREE
    _, shift, scale = split_similarity(moves[near])
    return from_parts(rotation[best], shift.median(0).values, float(scale.median(0).values))


def _inputs(model: CategoryModel) -> Mapping[str, object]:
    inputs = model.provenance.get("inputs")
    return inputs if isinstance(inputs, Mapping) else {}


def _set_aside(folder: Path) -> None:
    """Keep the file of the frames as it is, under a name that nothing reads."""
    source = folder / FRAMES
    if source.is_file():
        with artifacts.atomic_write(folder / SET_ASIDE) as temporary:
            temporary.write_bytes(source.read_bytes())
