"""Why a video may not fit the others: what its masks and poses say, and what mends it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from uns_pose_ros.core.types import Frame
from uns_pose_ros.io.schema.video_record import PosesReport, read_video_record
from uns_pose_ros.io.video_folder import image_names
from uns_pose_ros.pipeline.poses_and_masks.made_parts import is_given
from uns_pose_ros.reconstruction.capture_quality import azimuth_coverage
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reporting.capture_check import DoctorConfig

_CARVING = 3  # masks that carve a hull
_ENOUGH = 7  # videos with which an alignment is sure
# px, mean reprojection error above which poses are doubtful: observations of up to 2 px count, and
# wrong ones alone have a mean of 1.3
_LARGE_ERROR = 0.9


@dataclass(frozen=True)
class Cause:
    """What may be wrong, and what to do about it."""

    what: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.what}: {self.remedy}"


@dataclass(frozen=True)
class PoseFacts:
    """What is known of a video's camera poses."""

    images: int
    usable: int  # with pose and mask
    given: bool  # else they were computed from the images
    error_px: float | None = None  # mean reprojection error of computed poses
    doubt: str = ""  # of the program that computed them; "" where it has none
    gap_deg: float | None = None  # around the object, without an image; None: no orbit


def pose_facts(folder: Path, frames: Sequence[Frame]) -> PoseFacts:
    """The facts of a video, of whose images `frames` have pose and mask."""
    poses = [frame.cam_from_obj for frame in frames if frame.cam_from_obj is not None]
    around = azimuth_coverage(poses) if len(poses) >= 3 else None
    given = is_given(folder / "sparse")
    report = None if given else read_video_record(folder).poses
    report = report or PosesReport()
    return PoseFacts(
        len(image_names(folder)),
        len(frames),
        given,
        report.reprojection_error_px,
        report.doubt,
        None if around is None else around["largest_gap_deg"],
    )


def pose_contradictions(facts: PoseFacts, overlap: float | None) -> list[str]:
    """Why the camera poses of a video are probably wrong; empty where nothing says so.

    Args:
        facts: of the video.
        overlap: median overlap (IoU) of its masks with the hull of the others; None: no hull.
    """
    doubts = [facts.doubt] if facts.doubt else []
    usual = MaskConfig().agreed
    if overlap is None and facts.usable >= _CARVING:
        doubts.append("its masks have no common place in space")
    elif overlap is not None and overlap < usual:
        doubts.append(
            f"most masks overlap the hull of the others by {overlap:.2f}, {usual} is usual"
        )
    return doubts


def _pose_doubts(facts: PoseFacts, overlap: float | None) -> list[str]:
    """What speaks against the camera poses of a video, weak signs too."""
    doubts = pose_contradictions(facts, overlap)
    if facts.usable < SfmConfig().wanted * facts.images:
        doubts.append(f"{facts.usable} of {facts.images} images have a pose and a mask")
    if facts.error_px is not None and facts.error_px > _LARGE_ERROR:
        doubts.append(
            f"reprojection error {facts.error_px:.2f} px, below {_LARGE_ERROR} is usual"
        )
    return doubts


def find_causes(
    facts: PoseFacts,
    overlap: float | None,
    mask_remedy: str,
    videos: int,
    sure: bool = False,
) -> list[Cause]:
    """What speaks against a video that is in doubt; the likeliest first.

    Args:
        facts: of its poses.
        overlap: median overlap (IoU) of its masks with the hull of the others; None: no hull.
        mask_remedy: command that mends its masks; "" where all of them fit.
        videos: of the category.
        sure: whether its place in the alignment is; then a few bad masks are the only doubt.
    """
    causes, limits = list[Cause](), DoctorConfig()
    if doubts := _pose_doubts(facts, overlap):
        remedy = (
            "film it again: slower, in more light, with a pattern around the object; or import it "
            "with --camera K.json"
        )
        if facts.given:
            remedy = (
                "look whether sparse/ belongs to these images; if you move it away, `uns-pose run` "
                "computes poses"
            )
        causes.append(Cause(f"its camera poses are doubtful ({'; '.join(doubts)})", remedy))
    if mask_remedy:
        causes.append(Cause("if its masks are wrong", mask_remedy))
    if facts.usable < limits.frames:
        what = f"only {facts.usable} of its images can be used, {limits.frames} are needed"
        causes.append(Cause(what, "film it longer, or import more frames (--frames)"))
    if facts.gap_deg is not None and facts.gap_deg > limits.gap:
        what = f"{facts.gap_deg:.0f} degrees around it are not seen"
        causes.append(Cause(what, "film it all around"))
    if not causes and sure:
        what = "the other masks, the poses and the alignment look right"
        return [Cause(what, "nothing has to be done")]
    return causes or [_unsure_alignment(facts, overlap, videos)]


def _unsure_alignment(facts: PoseFacts, overlap: float | None, videos: int) -> Cause:
    """The cause of a doubt where masks and poses give none."""
    values = [f"{facts.usable} of {facts.images} images are used"]
    if overlap is not None:
        values.append(f"masks overlap the hull of the others by {overlap:.2f}")
    if facts.error_px is not None:
        values.append(f"reprojection error {facts.error_px:.2f} px")
    what = f"its masks and poses look right ({', '.join(values)}); the alignment itself is unsure"
    remedy = "the instance may be unlike the others: leave it out, or film another one"
    if videos < _ENOUGH:
        remedy = (
            f"film more instances ({videos} there, {_ENOUGH} or more work well), or another one in "
            "its place"
        )
    return Cause(what, remedy)
