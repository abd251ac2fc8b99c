"""The commands that run the stages on a category folder and print the result."""

from __future__ import annotations

import sys
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
    Backgrounds,
    Categories,
    Category,
    Device,
    Front,
    Json,
    OnCluster,
    Seed,
    Up,
    Videos,
    annotate_settings,
)
from uns_pose_ros.cli.console import StageTimes, emit, figure, progress_bar, table
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.io.video_folder import list_videos
from uns_pose_ros.pipeline import frame_axes, stages, training_stage
from uns_pose_ros.pipeline.earlier_choices import PublishedChoice, published_choice
from uns_pose_ros.pipeline.provenance import FileCache
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.feature_mesh import ReconstructConfig, Surface
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reporting.expectation import describe_expectation
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

_Published = Annotated[PublishedConfig, annotate_settings(PublishedConfig)]
_SHOWN = 6  # images a video that the report of `run` estimates


def reconstruct_command(
    category: Category,
    videos: Videos = None,
    device: Device = "auto",
    surface: Annotated[
        Surface | None,
        arg(
            help="hull: of the masks; alpha: alpha shape of the points in sparse/, as published; "
            "without: that of the meshes there, at first hull"
        ),
    ] = None,
    json: Json = None,
    reconstruct: ReconstructConfig = ReconstructConfig(),
    sfm: SfmConfig = SfmConfig(),
    mask: MaskConfig = MaskConfig(),
) -> None:
    """Make mesh.ply and features.safetensors of each video.

    The command finds camera poses where a video has no sparse/ and masks where it has no masks/. It
    skips what is done already.
    """
    with progress_bar() as progress:
        made = stages.reconstruct(
            category,
            videos,
            reconstruct,
            device,
            progress,
            sfm,
            mask,
            surface=surface,
        )
    emit(
        {"videos": {name: {"made": new} for name, new in made.items()}},
        _reconstructed_text(made),
        json,
    )


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
                    alignment, made = stages.align_by_published_method(
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
                    alignment, made = stages.add_to_alignment(
                        category, videos, align, seed, progress, files
                    )
                else:
                    alignment, made = stages.align(
                        category, videos, align, seed, device, progress, connected, files
                    )
                alignment, named = frame_axes.name_axes(category, names, files)
                stages.draw_alignment(category, files)
            except InvalidInput as error:
                errors.append(str(error))
                continue
            axes = frame_axes.axes_as_computed(category, files)
            records[str(category)] = _alignment_record(
                category, alignment, axes, made, named, files
            )
            texts.append(_alignment_text(category, alignment, files))
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


def train_command(
    category: Category,
    videos: Videos = None,
    device: Device = "auto",
    seed: Seed = 0,
    backgrounds: Backgrounds = None,
    json: Json = None,
    train: TrainConfig = TrainConfig(),
) -> None:
    """Train the category's model on its aligned videos: model/."""
    with progress_bar() as progress:
        model, made = training_stage.train(
            category, videos, train, seed, device, progress, backgrounds
        )
    emit(_model_record(category, model, made), _model_text(category, model), json)


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
        meshes = stages.reconstruct(
            category, videos, reconstruct, device, steps, sfm, mask, files
        )
        times.end_stage("reconstruct")
        if kept is None:
            alignment, aligned = stages.align(
                category, videos, align, seed, device, progress, files=files
            )
        else:
            alignment, aligned = stages.align_by_published_method(
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
        stages.draw_alignment(category, files)
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
        "align": _alignment_record(
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
        _reconstructed_text(meshes),
        _alignment_text(category, alignment, files),
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
    record |= {"train": _model_record(category, model, trained), "report": str(page)}
    record["seconds"] = times.seconds
    parts += [_model_text(category, model), times.text(), f"report: {page}"]
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
    path = category / stages.ALIGNMENT
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


def _reconstructed_text(made: Mapping[str, bool]) -> str:
    new = sum(made.values())
    return f"{new} of {len(made)} videos reconstructed, {len(made) - new} were done already"


def _alignment_record(
    category: Path,
    alignment: Alignment,
    axes: Mapping[str, str] | None,
    made: bool,
    named: bool,
    files: FileCache,
) -> dict[str, Any]:
    reference = stages.alignment_reference(category, files)
    method = {} if reference is None else {"method": "published", "reference": reference}
    return {
        "made": made,
        "named": named,
        "axes": axes,
        "picture": str(category / stages.ALIGNMENT_IMAGE),
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


def _alignment_text(category: Path, alignment: Alignment, files: FileCache) -> str:
    reference = stages.alignment_reference(category, files)
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
            f"image: {category / stages.ALIGNMENT_IMAGE}",
        ]
    )


def _model_record(category: Path, model: CategoryModel, made: bool) -> dict[str, Any]:
    return {
        "made": made,
        "model": str(category / training_stage.MODEL),
        "category": model.category,
        "vertices": len(model.vertices),
        "videos": list(model.training_poses),
        "diameter_m": model.diameter,
        "left_out": dict(model.left_out) or None,
    }


def _model_text(category: Path, model: CategoryModel) -> str:
    size = "size unknown" if model.diameter is None else f"diameter {model.diameter:.3f} m"
    path = category / training_stage.MODEL
    lines = [
        f"{path}: {model.category}, {len(model.vertices)} vertices, {size}",
        *describe_expectation(model),
        f"next: uns-pose estimate {path} IMAGE… --camera K.json",
    ]
    return "\n".join(lines)
