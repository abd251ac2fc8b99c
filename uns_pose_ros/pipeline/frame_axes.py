"""The axes of a category's canonical frame: proposed, named by a person, kept, and turned.

alignment.json records them beside its provenance, under "axes":

up, front             names of AxisNames, of the base frame; null: not named
base_from_computed    rotation to the proposed frame, whose axes the names are of; without it, the
                      names are of the frame as the alignment computed it
named_from_computed   rotation to the frame of the file
proposal              how sure the proposed frame is
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.alignment.canonical_axes import (
    AUTO,
    AxisNames,
    ProposedFrame,
    nearest_axis,
    propose_frame,
    reorient,
    turn_between,
)
from uns_pose_ros.core.geometry import from_parts, split_similarity
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.writing.target_lock import lock_target
from uns_pose_ros.pipeline.provenance import FileCache

ALIGNMENT = "alignment.json"
_SAME = 1e-6  # two poses are the same up to this, in canonical units


def name_axes(
    category: Path,
    names: AxisNames,
    files: FileCache | None = None,
) -> tuple[Alignment, bool]:
    """Express alignment.json in the frame that the names give; an axis without a name stays.

    Names are of the base frame, so the same names always give the same frame. The provenance of the
    file stays, because nothing is aligned again. A model that was trained before has the old axes
    until `training_stage.train` turns it.

    Args:
        category: folder with alignment.json.
        names: names of the axes.
        files: hashes that this run has computed already.

    Returns:
        The alignment, and whether the names changed it.
    """
    path = category / ALIGNMENT
    files = files or FileCache()
    with lock_target(path):
        alignment = files.alignment(path)
        provenance = files.alignment_provenance(path) or {}
        before = provenance.get("axes")
        propose = AUTO in (names.up, names.front)
        record = dict(before or {"up": None, "front": None})
        computed = reorient(alignment, _rotation(record, "named_from_computed").T)
        if propose and "base_from_computed" not in record:
            folders = {
                name: category / name
                for name, kept in zip(alignment.videos, alignment.kept, strict=True)
                if kept
            }
            meshes = {
                name: artifacts.load_feature_mesh(path) for name, path in folders.items()
            }
            record |= _proposal_record(propose_frame(meshes, computed))
        record["up"] = names.up or record["up"] or (AUTO if propose else None)
        record["front"] = names.front or record["front"] or (AUTO if propose else None)
        if record == (before or {"up": None, "front": None}):
            return alignment, False
        chosen = AxisNames(record["up"], record["front"])
        named_from_computed = chosen.rotation() @ _rotation(record, "base_from_computed")
        record["named_from_computed"] = named_from_computed.tolist()
        named = reorient(computed, named_from_computed)
        artifacts.save_alignment(named, path, {**provenance, "axes": record})
        return named, True


def propose_axes(
    alignment: Alignment, meshes: Mapping[str, FeatureMesh]
) -> tuple[Alignment, dict[str, Any]]:
    """Express a new alignment in the proposed frame; returns it and its record of the axes."""
    record = _proposal_record(propose_frame(meshes, alignment))
    named_from_computed = _rotation(record, "base_from_computed")
    record |= {
        "up": AUTO,
        "front": AUTO,
        "named_from_computed": named_from_computed.tolist(),
    }
    return reorient(alignment, named_from_computed), record


def _rotation(record: Mapping[str, Any], key: str) -> Tensor:
    """A rotation (3, 3) of a record; without it, the identity."""
    return torch.tensor(record.get(key, torch.eye(3).tolist()), dtype=torch.float64)


def _proposal_record(proposed: ProposedFrame) -> dict[str, Any]:
    return {
        "base_from_computed": proposed.proposed_from_canon.tolist(),
        "proposal": {
            "up_spread_deg": proposed.up_spread,
            "front_contrast": proposed.front_contrast,
        },
    }


def keep_axes(
    old: Alignment, axes: Mapping[str, Any], new: Alignment, unchanged: Collection[str]
) -> tuple[Alignment, dict[str, Any]] | None:
    """Express a new alignment in the frame that a person named for the old one.

    Args:
        old: The alignment that is replaced.
        axes: Its record of the axes.
        new: The new alignment, in the frame as computed.
        unchanged: Videos whose meshes are the same for both.

    Returns:
        The new alignment in that frame, and its record of the axes. None: a person named nothing,
        or no video connects the two.
    """
    if not AxisNames(axes.get("up"), axes.get("front")).explicit:
        return None
    new_from_old = turn_between(old, new, unchanged)
    if new_from_old is None:
        return None
    named_from_computed = new_from_old.T
    named_from_base = _rotation(axes, "named_from_computed") @ (
        _rotation(axes, "base_from_computed").T
    )
    record = {
        **axes,
        "base_from_computed": (named_from_base.T @ named_from_computed).tolist(),
        "named_from_computed": named_from_computed.tolist(),
    }
    return reorient(new, named_from_computed), record


def axes_as_computed(
    category: Path, files: FileCache | None = None
) -> dict[str, str] | None:
    """The axes of the base frame ("x", "-y", …) nearest to those of alignment.json.

    The result is None if nobody has named the axes.
    """
    axes = axes_record(category, files)
    if axes is None:
        return None
    named_from_base = _rotation(axes, "named_from_computed") @ (
        _rotation(axes, "base_from_computed").T
    )
    return {
        axis: nearest_axis(row) for axis, row in zip("xyz", named_from_base, strict=True)
    }


def axes_record(category: Path, files: FileCache | None = None) -> dict[str, Any] | None:
    """The record of the axes in alignment.json; None: nothing was named or proposed."""
    files = files or FileCache()
    axes = (files.alignment_provenance(category / ALIGNMENT) or {}).get("axes")
    return dict(axes) if isinstance(axes, Mapping) else None


def describe_axes(category: Path, files: FileCache | None = None) -> str:
    """Say in one line what the axes of alignment.json are."""
    record = axes_record(category, files)
    if record is None:
        return "arbitrary; --up auto proposes them, --up and --front name them"
    if AxisNames(record["up"], record["front"]).explicit:
        names = axes_as_computed(category, files) or {}
        base = (
            "frame as proposed" if "base_from_computed" in record else "frame as computed"
        )
        return f"z (up) was {names['z']}, x (front) was {names['x']} of the {base}"
    proposal = record.get("proposal")
    if proposal is None:  # an earlier version proposed up only
        return "z up as the cameras were held, x arbitrary; --up and --front name others"
    return ProposedFrame(
        _rotation(record, "base_from_computed"),
        proposal["up_spread_deg"],
        proposal["front_contrast"],
    ).text


def turn_model(model: CategoryModel, alignment: Alignment) -> CategoryModel | None:
    """Turn a trained model to the axes of an alignment, without training again.

    Args:
        model: The model.
        alignment: The alignment of its category.

    Returns:
        The model in the frame of the alignment; None where the alignment differs by more than one
        rotation of the whole frame from that of the training.
    """
    poses = model.training_poses
    kept = {
        name: pose
        for name, pose, keep in zip(
            alignment.videos, alignment.canon_from_obj, alignment.kept, strict=True
        )
        if bool(keep)
    }
    if not poses or not poses.keys() <= kept.keys():
        return None
    first = next(iter(poses))
    rotation = split_similarity(kept[first])[0] @ split_similarity(poses[first])[0].T
    turn = from_parts(rotation, torch.zeros(3, dtype=torch.float64))
    if any(
        not torch.allclose(turn @ pose, kept[name], rtol=0, atol=_SAME)
        for name, pose in poses.items()
    ):
        return None
    provenance = {**model.provenance, "turn": (rotation @ model.turn).tolist()}
    provenance["canon_from_obj"] = {
        name: (turn @ pose).tolist() for name, pose in poses.items()
    }
    if instances := model.instances:
        provenance["instances"] = {
            name: (points @ rotation.T).tolist() for name, points in instances.items()
        }
    mirror = provenance.get("mirror")
    if isinstance(mirror, list):
        reflection = torch.tensor(mirror, dtype=torch.float64)
        provenance["mirror"] = (turn @ reflection @ turn.T).tolist()
    return replace(
        model,
        vertices=(model.vertices.double() @ rotation.T).float(),
        symmetry=Symmetry(model.symmetry.order, rotation @ model.symmetry.axis),
        provenance=provenance,
        frames=tuple(frame.moved(turn) for frame in model.frames),
    )
