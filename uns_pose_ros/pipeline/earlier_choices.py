"""What earlier commands chose for a category, so that `uns-pose run` keeps it.

The surface of a mesh and the method of an alignment stand in their provenance.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.schema.alignment_record import PUBLISHED
from uns_pose_ros.pipeline.provenance import FileCache
from uns_pose_ros.reconstruction.feature_mesh import Surface


@dataclass(frozen=True)
class PublishedChoice:
    """How a category was aligned by the published method."""

    reference: str
    config: PublishedConfig
    seed: int


def published_choice(
    category: Path, files: FileCache | None = None
) -> PublishedChoice | None:
    """What `align --method published` was called with; None: there is no such alignment.

    Raises:
        InvalidInput: The settings in alignment.json are not valid.
    """
    path = category / artifacts.ALIGNMENT
    record = (files or FileCache()).alignment_provenance(path) or {}
    if record.get("method") != PUBLISHED:
        return None
    settings, seed = record.get("config"), record.get("seed", 0)
    known = {field.name for field in fields(PublishedConfig)}
    try:
        if not isinstance(settings, Mapping) or not settings.keys() <= known:
            raise InvalidInput("no settings of this version")
        config = PublishedConfig(**settings)
        return PublishedChoice(str(record["reference"]), config, int(seed))
    except (InvalidInput, TypeError, ValueError) as error:
        raise InvalidInput(
            f"{path}: settings of the published method: {error}; `uns-pose align {category} "
            "--method published` makes it again"
        ) from None


def mesh_surface(folder: Path) -> Surface | None:
    """The surface of a video's mesh; None: there is no mesh, or a broken one."""
    record = artifacts.provenance_of(folder / artifacts.FEATURES)
    if record is None:
        return None
    settings = record.get("config")
    is_alpha = isinstance(settings, Mapping) and settings.get("surface") == "alpha"
    return "alpha" if is_alpha else "hull"


def choose_surfaces(
    folders: Sequence[Path], surface: Surface | None
) -> dict[Path, Surface]:
    """The surface that each video gets.

    Args:
        folders: Folders of the videos.
        surface: The surface of all; None: a mesh keeps its own. A video without a mesh gets that
            of the others where they have one surface, else a hull.
    """
    if surface is not None:
        return dict.fromkeys(folders, surface)
    present: dict[Path, Any] = {folder: mesh_surface(folder) for folder in folders}
    kinds = set(present.values()) - {None}
    usual: Surface = "alpha" if kinds == {"alpha"} else "hull"
    return {folder: kind or usual for folder, kind in present.items()}
