"""The command `uns-pose run`: all stages, one after the other."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import arg

from uns_pose_ros.alignment.canonical_axes import AxisNames
from uns_pose_ros.alignment.category.align_config import AlignConfig
from uns_pose_ros.cli.arguments import (
    Backgrounds,
    Category,
    Device,
    Front,
    Json,
    Seed,
    Up,
    Videos,
)
from uns_pose_ros.cli.console import StageTimes, emit, progress_bar
from uns_pose_ros.cli.pipeline.align_command import alignment_record, alignment_text
from uns_pose_ros.cli.pipeline.reconstruct_command import reconstructed_text
from uns_pose_ros.cli.pipeline.train_command import model_record, model_text
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.pipeline import (
    alignment_stage,
    frame_axes,
    reconstruction_stage,
    training_stage,
)
from uns_pose_ros.pipeline.earlier_choices import PublishedChoice, published_choice
from uns_pose_ros.pipeline.provenance import FileCache
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reporting.mask_review import (
    REVIEW,
    ReviewedVideo,
    review_masks,
    review_record,
    review_text,
    write_review,
)
from uns_pose_ros.reporting.report_builder import REPORT, make_report
from uns_pose_ros.training.training_views import TrainConfig

_SHOWN = 6  # images a video that the report of `run` estimates


def run_command(
    category: Category,
    videos: Videos = None,
    device: Device = "auto",
    seed: Seed = 0,
    up: Up = None,
    front: Front = None,
    backgrounds: Backgrounds = None,
    until: Annotated[
        Literal["align", "train"],
        arg(help="align: stop before the training, with the page of all masks"),
    ] = "train",
    yes: Annotated[
        bool, arg(help="train without a question, whatever is in doubt")
    ] = False,
    json: Json = None,
    reconstruct: ReconstructConfig = ReconstructConfig(),
    align: AlignConfig = AlignConfig(),
    train: TrainConfig = TrainConfig(),
    sfm: SfmConfig = SfmConfig(),
    mask: MaskConfig = MaskConfig(),
) -> None:
    """Find poses and masks, reconstruct, align, train, and write CATEGORY/report.html.

    Only videos without poses or masks get new ones. The command skips what is done already with the
    same settings and files. Before the training it writes CATEGORY/masks.html: every mask, the most
    doubtful first, and the alignment. It prints which videos are in doubt, with the command that
    mends their masks. In a terminal it then asks whether to train; without one, or with --yes, it
    goes on by itself. --until align stops there.

    Alpha shapes (`reconstruct --surface alpha`) and an alignment by the published method (`align
    --method published`) are kept.
    """
    names, files, times = AxisNames(up, front), FileCache(), StageTimes()
    reviewed: list[ReviewedVideo] | None = None
    kept = _kept_method(category, align, files)
    with progress_bar() as progress:
        steps = times.follow(progress, _part_of_reconstruct)
        meshes = reconstruction_stage.reconstruct(
            category, videos, reconstruct, device, steps, sfm, mask, files
        )
        times.end_stage("reconstruct")
        if kept is None:
            alignment, aligned = alignment_stage.align(
                category, videos, align, seed, device, progress, files=files
            )
        else:
            alignment, aligned = alignment_stage.align_by_published_method(
                category,
                kept.reference,
                videos,
                kept.config,
                kept.seed,
                device,
                progress,
                files,
            )
        alignment, named = frame_axes.name_axes(category, names, files)
        alignment_stage.draw_alignment(category, files)
        times.end_stage("align")
        review = category / REVIEW
        if not review.exists() or any(meshes.values()) or aligned or named:
            folders = [
                category / name for name in alignment.videos if (category / name).is_dir()
            ]
            reviewed = review_masks(folders, alignment, mask, progress)
            write_review(category, reviewed)
            times.end_stage("review")
    if reviewed is not None:
        print(review_text(reviewed, review), file=sys.stderr)
    record: dict[str, Any] = {
        "reconstruct": {"videos": {name: {"made": new} for name, new in meshes.items()}},
        "align": alignment_record(
            category,
            alignment,
            frame_axes.axes_as_computed(category, files),
            aligned,
            named,
            files,
        ),
        "review": {
            "page": str(review),
            "doubtful": None if reviewed is None else review_record(reviewed),
        },
    }
    parts = [
        reconstructed_text(meshes),
        alignment_text(category, alignment, files),
    ]
    again = next_step(category, alignment)
    if until == "align" or not (yes or _wants_training(reviewed or [])):
        record["seconds"] = times.seconds
        emit(record, "\n".join([*parts, times.text(), f"masks: {review}", again]), json)
        return
    times.skip()
    with progress_bar() as progress:
        model, trained = training_stage.train(
            category, videos, train, seed, device, progress, backgrounds, files
        )
        times.end_stage("train")
        page = category / REPORT
        if not page.exists() or any(meshes.values()) or aligned or named or trained:
            make_report(category, None, None, page, _SHOWN, device, progress)
            times.end_stage("report")
    record |= {"train": model_record(category, model, trained), "report": str(page)}
    record["seconds"] = times.seconds
    parts += [model_text(category, model), times.text(), f"report: {page}"]
    emit(record, "\n".join(parts), json)


def _part_of_reconstruct(what: str) -> str:
    """The part of the stage to which a step of its progress belongs."""
    if what.startswith("reconstruct "):
        return "reconstruct: meshes"
    return "reconstruct: masks" if ": masks" in what else "reconstruct: poses"


def _kept_method(
    category: Path, align: AlignConfig, files: FileCache
) -> PublishedChoice | None:
    """The published method where the category was aligned by it; None: consensus."""
    kept = published_choice(category, files)
    if kept is None:
        return None
    path = category / frame_axes.ALIGNMENT
    other = f"`uns-pose align {category}` aligns by consensus"
    if align != AlignConfig():
        raise InvalidInput(
            f"--align.… belongs to --method consensus, and {path} is by the published method, "
            f"which `run` keeps; {other}"
        )
    print(
        f"{path}: by the published method to {kept.reference}, which stays; {other}",
        file=sys.stderr,
    )
    return kept


def next_step(category: Path, alignment: Alignment) -> str:
    """What to do after the alignment: train, or first mend the videos that it leaves out."""
    left_out = int((~alignment.kept).sum())
    again = f"next: uns-pose run {category}"
    if not left_out:
        return again
    return (
        f"{left_out} of {len(alignment.videos)} videos are left out of the training: mend what is "
        f"said of them above first, or go on without them\n{again}"
    )


def _wants_training(reviewed: Sequence[ReviewedVideo]) -> bool:
    """Whether to train: asked in a terminal if a video is in doubt, else yes."""
    terminal = sys.stdin.isatty() and sys.stderr.isatty()
    if not terminal or not any(video.doubtful for video in reviewed):
        return True
    print("train all the same? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
