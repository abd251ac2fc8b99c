"""The command `uns-pose align`, and what it prints."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.alignment.published_alignment import PublishedConfig
from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.cli.arguments import (
    Categories,
    Device,
    Front,
    Json,
    OnCluster,
    Seed,
    Up,
    Videos,
    annotate_settings,
)
from uns_pose_ros.cli.console import emit, figure, progress_bar, table
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.io.video_folder import list_videos
from uns_pose_ros.pipeline import alignment_stage, frame_axes
from uns_pose_ros.pipeline.provenance import FileCache

_Published = Annotated[PublishedConfig, annotate_settings(PublishedConfig)]


def align_command(
    categories: Categories,
    videos: Videos = None,
    device: Device = "auto",
    seed: Seed = 0,
    up: Up = None,
    front: Front = None,
    add: Annotated[
        bool,
        arg(
            help="place videos that were not aligned yet by a few pairs each; what is aligned stays"
        ),
    ] = False,
    cluster: OnCluster = None,
    method: Annotated[
        Literal["consensus", "published"],
        arg(help="published: every video goes to --reference by itself, as in the paper"),
    ] = "consensus",
    reference: Annotated[
        str | None, arg(metavar="VIDEO", help="that --method published aligns to")
    ] = None,
    json: Json = None,
    align: AlignConfig = AlignConfig(),
    published: _Published = PublishedConfig(),
) -> None:
    """Bring the videos of a category to one canonical frame.

    The command writes alignment.json and an image, and prints a table of confidences. It aligns
    several categories one after the other; a category that fails does not stop the others.

    Confidence: the part of a video's pairs that agree with the whole, 0 to 1. Residual: the median
    disagreement, degrees. Videos that are not kept are left out of the training. The axes are
    proposed: z up as the cameras were held, x in the mirror plane of the shapes. --up and --front
    name others, which does not align again; an axis that you do not name stays. `uns-pose train`
    turns a model that was trained before to the new axes, without training again.

    --method published is the alignment of Sommer et al., CVPR 2024, for comparison: all poses are
    relative to one reference, there is no confidence, and no video is left out.
    """
    if not categories:
        raise InvalidInput(
            "no category named: uns-pose align CATEGORY [CATEGORY ...] is valid"
        )
    if add and cluster is not None:
        raise InvalidInput(
            "--add aligns a few pairs, here: --cluster is valid without it only"
        )
    settings = PublishedConfig(**vars(published))
    if method == "published":
        _check_published(categories, reference, add, cluster, align)
    elif reference is not None or settings != PublishedConfig():
        word = "--published.…" if reference is None else f"--reference {reference}"
        raise InvalidInput(f"{word} belongs to --method published, which is not given")
    names = AxisNames(up, front)
    records = dict[str, Any]()
    texts = list[str]()
    errors = list[str]()
    files = FileCache()
    with (
        nullcontext() if cluster is None else Cluster(cluster) as connected,
        progress_bar() as progress,
    ):
        for category in categories:
            try:
                if reference is not None:
                    alignment, made = alignment_stage.align_by_published_method(
                        category,
                        reference,
                        videos,
                        settings,
                        seed,
                        device,
                        progress,
                        files,
                    )
                elif add:
                    alignment, made = alignment_stage.add_to_alignment(
                        category, videos, align, seed, progress, files
                    )
                else:
                    alignment, made = alignment_stage.align(
                        category, videos, align, seed, device, progress, connected, files
                    )
                alignment, named = frame_axes.name_axes(category, names, files)
                alignment_stage.draw_alignment(category, files)
            except InvalidInput as error:
                errors.append(str(error))
                continue
            axes = frame_axes.axes_as_computed(category, files)
            records[str(category)] = alignment_record(
                category, alignment, axes, made, named, files
            )
            texts.append(alignment_text(category, alignment, files))
    if records:
        emit(
            records[str(categories[0])]
            if len(categories) == 1
            else {"categories": records},
            "\n\n".join(texts),
            json,
        )
    if errors:
        raise InvalidInput("; ".join(errors))


def _check_published(
    categories: Sequence[Path],
    reference: str | None,
    add: bool,
    cluster: str | None,
    align: AlignConfig,
) -> None:
    """Refuse what --method published lacks, or what does not go with it."""
    if reference is None:
        names = [folder.name for folder in list_videos(categories[0], None)]
        raise InvalidInput(
            f"--method published needs --reference VIDEO: {shorten(names)} are valid"
        )
    for word, given in (
        ("--add", add),
        ("--cluster", cluster is not None),
        ("--align.…", align != AlignConfig()),
    ):
        if given:
            raise InvalidInput(f"{word} belongs to --method consensus, not to published")


def alignment_record(
    category: Path,
    alignment: Alignment,
    axes: Mapping[str, str] | None,
    made: bool,
    named: bool,
    files: FileCache,
) -> dict[str, Any]:
    """The alignment as JSON types.

    Args:
        category: the folder of the category.
        alignment: its alignment.
        axes: those of the base frame that are nearest; None: nobody has named the axes.
        made: whether it was made now.
        named: whether its axes were named now.
        files: hashes and alignments that this run has read already.
    """
    reference = alignment_stage.alignment_reference(category, files)
    method = {} if reference is None else {"method": "published", "reference": reference}
    return {
        "made": made,
        "named": named,
        "axes": axes,
        "picture": str(category / alignment_stage.ALIGNMENT_IMAGE),
        "symmetry": alignment.symmetry.name,
        **method,
        "videos": _video_records(alignment, reference),
    }


def _video_records(
    alignment: Alignment, reference: str | None
) -> dict[str, dict[str, Any]]:
    """Confidence and residual of each video; both unknown where all went to a reference."""
    unknown: list[float | None] = [None] * len(alignment.videos)
    columns = (
        alignment.confidence.tolist() if reference is None else unknown,
        alignment.residual.tolist() if reference is None else unknown,
        alignment.kept.tolist(),
    )
    rows = zip(alignment.videos, *columns, strict=True)
    return {
        name: {"confidence": c, "residual_deg": r, "kept": kept}
        for name, c, r, kept in rows
    }


def alignment_text(category: Path, alignment: Alignment, files: FileCache) -> str:
    """The alignment as a table of the videos, with symmetry, axes and image."""
    reference = alignment_stage.alignment_reference(category, files)
    rows = [
        [
            name,
            figure(row["confidence"], 2),
            figure(row["residual_deg"]),
            "yes" if row["kept"] else "no",
        ]
        for name, row in _video_records(alignment, reference).items()
    ]
    lines = [table(["video", "confidence", "residual °", "kept"], rows)]
    if reference is None:
        lines.append(f"symmetry: {alignment.symmetry.name}")
    else:
        lines.append(f"published method: each video alone to {reference}, no confidence")
    return "\n".join(
        [
            *lines,
            f"axes: {frame_axes.describe_axes(category, files)}",
            f"image: {category / alignment_stage.ALIGNMENT_IMAGE}",
        ]
    )
