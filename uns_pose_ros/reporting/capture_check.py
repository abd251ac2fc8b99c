"""Checks the videos of a category, and says what to do about each fault.

The checks only read files; they compute neither poses nor masks.

Blur is measured without a reference image: an image that loses little detail when it is blurred
again was blurred before (Crete et al., "The blur effect", SPIE 2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import blur_effect

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Frame, Progress, Video
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import has_sparse
from uns_pose_ros.io.images import Pixels, read_image, read_mask, shrunk
from uns_pose_ros.io.schema.video_record import PosesReport, read_video_record
from uns_pose_ros.io.video_folder import frames_of, image_names, list_videos
from uns_pose_ros.pipeline.frame_axes import ALIGNMENT
from uns_pose_ros.pipeline.poses_and_masks.made_parts import is_given
from uns_pose_ros.pipeline.poses_and_masks.mask_check import mask_fits
from uns_pose_ros.reconstruction import capture_quality
from uns_pose_ros.reconstruction.colmap.colmap_cameras import UNSURE
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.hull_of_others import bad_masks
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reporting.shared_place import group_places, measure_surroundings

_LONGEST = 640  # px, longer side of the images whose blur is measured
_CATEGORY_NAME = "(all)"  # in place of a video's name, for the findings about the category


@dataclass(frozen=True)
class DoctorConfig:
    """The limits beyond which a check reports a finding."""

    videos: int = 3  # instances that a category needs
    frames: int = 8  # usable frames that a video needs
    # blur effect at 640 px, 0 sharp to 1, above which an image is blurred: about 7 px of motion
    blur: float = 0.5
    blurred: float = 0.25  # share of blurred images above which the video must be mended
    covered: float = 120.0  # degrees around the object that a video needs
    gap: float = 60.0  # degrees without an image that are reported
    # mean overlap of the masks with the silhouettes of their hull below which poses and masks
    # contradict each other
    fit: float = 0.7
    small: int = 64  # px, longer side of the object in an image
    cut: float = 0.25  # share of masks at the edge of the image that is reported

    def __post_init__(self) -> None:
        for name in ("blur", "blurred", "fit", "cut"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} {getattr(self, name)}: 0 to 1 is valid")


@dataclass(frozen=True)
class Finding:
    """One fault."""

    mend: bool  # the fault must be mended; else the video could be better
    what: str
    remedy: str
    detail: str = ""  # of this video, where `what` may be the same for several


@dataclass(frozen=True)
class Checkup:
    """The findings about one video; a value that cannot be measured is None."""

    name: str
    images: int
    usable: int
    blurred: int | None
    posed: int | None
    covered_deg: float | None
    fit: float | None  # mean overlap of the masks with the silhouettes of their hull
    findings: tuple[Finding, ...]

    @property
    def mend(self) -> bool:
        """Whether something must be mended."""
        return any(finding.mend for finding in self.findings)

    def record(self) -> dict[str, Any]:
        """The checkup as JSON types, with the keys of version 0.1.0."""
        record: dict[str, Any] = artifacts.plain(self)
        return {"pictures" if key == "images" else key: record[key] for key in record}


def check_category(
    category: Path,
    patterns: str | None = None,
    config: DoctorConfig = DoctorConfig(),
    progress: Progress | None = None,
) -> list[Checkup]:
    """Check the videos of a category.

    Args:
        category: folder with one subfolder for each video.
        patterns: names of the videos to check; None: all.
        config: the limits.
        progress: is called with the step, the videos done and all videos.

    Returns:
        A checkup of every video, and one of the category if it has findings.
    """
    folders = list_videos(category, patterns)
    checkups = []
    for done, folder in enumerate(folders, 1):
        checkups.append(check_video(folder, config))
        if progress is not None:
            progress(f"{category.name}: videos", done, len(folders))
    findings = [*_alignment_findings(category), *_place_findings(category, folders)]
    if len(folders) < config.videos and patterns is None:
        what = f"{len(folders)} videos, {config.videos} are needed"
        remedy = "film more instances; seven or more give good accuracy"
        findings.append(Finding(True, what, remedy))
    if findings:
        summary = Checkup(_CATEGORY_NAME, 0, 0, None, None, None, None, tuple(findings))
        checkups.append(summary)
    return checkups


def check_video(folder: Path, config: DoctorConfig = DoctorConfig()) -> Checkup:
    """Check one video folder; a file that cannot be read is a finding, not an error."""
    names = image_names(folder)
    posed = has_sparse(folder / "sparse")
    masked = (folder / "masks").is_dir() and any((folder / "masks").iterdir())
    try:
        frames, dropped, _ = frames_of(folder, masked, posed)
    except InvalidInput as error:
        what = str(error).removeprefix(f"{folder}: ")
        finding = Finding(True, what, "mend or delete that file or folder")
        return Checkup(folder.name, len(names), 0, None, None, None, None, (finding,))
    findings = list(_frame_findings(folder, names, frames, dropped, config))
    gray = [_gray_image(frame) for frame in frames]
    blurred = [
        frame.name
        for frame, image in zip(frames, gray, strict=True)
        if blur_effect(image) > config.blur
    ]
    findings += _blur_findings(blurred, len(frames), config)
    covered = None
    fit = None
    if posed and len(frames) >= 3:
        covered, pose_findings = _pose_findings(names, frames, config)
        findings += pose_findings
        findings += _doubt_findings(folder)
    elif frames and not posed:
        findings += _pattern_findings(gray)
    findings += _focal_findings(folder, posed)
    if masked:
        findings += _mask_findings(frames, config)
    if masked and posed and len(frames) >= 3:
        fit, hull_findings = _hull_findings(folder, frames, config)
        findings += hull_findings
    return Checkup(
        folder.name,
        len(names),
        len(frames),
        len(blurred),
        len(frames) if posed else None,
        covered,
        fit,
        tuple(findings),
    )


def _gray_image(frame: Frame) -> Pixels:
    """The image of a frame in gray, at most _LONGEST px wide and high."""
    gray = cv2.cvtColor(read_image(frame.image).numpy(), cv2.COLOR_RGB2GRAY)
    return shrunk(gray.astype(np.uint8), _LONGEST)


def _frame_findings(
    folder: Path,
    names: list[str],
    frames: list[Frame],
    dropped: list[str],
    config: DoctorConfig,
) -> Iterable[Finding]:
    if dropped:
        count = len(frames) + len(dropped)
        first = dropped[0].replace(f"{folder}/", "")
        what = f"{len(dropped)} of {count} frames cannot be used; the first: {first}"
        yield Finding(len(dropped) > 0.1 * count, what, "mend or delete those files")
    if len(frames) < config.frames:
        what = f"{len(frames)} usable frames of {len(names)} images, {config.frames} are needed"
        yield Finding(True, what, "import more of the film (--frames), or film longer")


def _blur_findings(
    blurred: list[str], count: int, config: DoctorConfig
) -> Iterable[Finding]:
    if not blurred:
        return
    mend = len(blurred) > config.blurred * count
    remedy = "delete those images, or leave it so"
    if mend:
        remedy = "film again: slower, in more light, in focus"
    what = f"{len(blurred)} of {count} images are blurred: {shorten(blurred, 4)}"
    yield Finding(mend, what, remedy)


def _pose_findings(
    names: list[str], frames: list[Frame], config: DoctorConfig
) -> tuple[float | None, list[Finding]]:
    """Degrees covered around the object, and what is wrong with the poses."""
    findings = []
    limits = SfmConfig()
    count = len(frames)
    if count < limits.wanted * len(names):
        what = f"{count} of {len(names)} images have a pose"
        remedy = (
            "film again: slower, on something with a pattern, the surroundings in the image"
        )
        findings.append(Finding(count < limits.least * len(names), what, remedy))
    around = capture_quality.azimuth_coverage(
        [frame.cam_from_obj for frame in frames if frame.cam_from_obj is not None]
    )
    if around is None:
        what = "the cameras look at no common place"
        remedy = "walk around the object, keep it in the middle"
        findings.append(Finding(True, what, remedy))
        return None, findings
    covered = around["covered_deg"]
    gap = around["largest_gap_deg"]
    if gap > config.gap:
        what = f"{gap:.0f} degrees around the object are not seen"
        findings.append(
            Finding(covered < config.covered, what, "walk all around the object")
        )
    return covered, findings


def _doubt_findings(folder: Path) -> Iterable[Finding]:
    """What structure from motion doubted in the poses that it computed."""
    poses = read_video_record(folder).poses
    if poses is None or is_given(folder / "sparse"):
        return
    if poses.placed:
        what = (
            f"a pattern that repeats has misled the poses of {len(poses.placed)} images; the "
            "object's silhouette placed them, less exactly"
        )
        remedy = "film it on something whose pattern does not repeat, such as newspaper"
        yield Finding(False, what, remedy)
    if poses.doubt:
        what = f"the camera poses are doubtful: {poses.doubt}"
        remedy = "film again: slower, on something with a pattern, in more light"
        yield Finding(True, what, remedy)


def _pattern_findings(gray: list[Pixels]) -> Iterable[Finding]:
    """Whether images without poses show enough keypoints to compute the poses."""
    count = capture_quality.median_keypoints(gray)
    if count < capture_quality.FEW_FEATURES:
        what = (
            f"poses cannot be found: an image has {count:.0f} features, "
            f"{capture_quality.FEW_FEATURES} are needed"
        )
        remedy = (
            "film it on something with a pattern (newspaper, a rug), in more light, "
            "larger images"
        )
        yield Finding(True, what, remedy)


def _focal_findings(folder: Path, posed: bool) -> Iterable[Finding]:
    """Whether the focal length of the camera was calibrated.

    Otherwise it is computed with the poses, and starts from a less certain value.
    """
    source, focal_px = _focal_source(folder, posed)
    if source not in UNSURE:
        return
    start = "guessed" if source == "guessed" else "taken from EXIF, right to some percent"
    result = ", and will be found with the poses"
    detail = ""
    if posed:
        result = " and found with the poses"
        detail = f"{focal_px:.0f} px"
    what = (
        f"the camera's focal length is not calibrated but {start}{result}; frames may be left "
        "out, and what is wrong of it stretches the object in depth and bends the poses"
    )
    remedy = "calibrate the camera and import again with --camera K.json (or --focal PX)"
    yield Finding(False, what, remedy, detail)


def _focal_source(folder: Path, posed: bool) -> tuple[str, float]:
    """Where the focal length comes from, and its value in px if it was computed."""
    record = read_video_record(folder)
    poses = record.poses or PosesReport()
    focal_px = poses.focal_px
    if not posed:
        return record.camera_from or "guessed", focal_px
    if is_given(folder / "sparse"):
        return "given", focal_px
    return poses.calibration, focal_px


def _mask_findings(frames: list[Frame], config: DoctorConfig) -> Iterable[Finding]:
    """Whether the object is too small, or the edge of the image cuts it."""
    sizes = list[int]()
    cut = list[str]()
    for frame in frames:
        if frame.mask is None:
            continue
        mask = read_mask(frame.mask).numpy()
        rows = np.flatnonzero(mask.any(1))
        columns = np.flatnonzero(mask.any(0))
        sizes.append(int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1)
        if _at_edge(mask):
            cut.append(frame.name)
    if sizes and np.median(sizes) < config.small:
        what = f"the object is {np.median(sizes):.0f} px large, {config.small} are needed"
        yield Finding(True, what, "go closer, or import larger images (--longest)")
    if len(cut) > config.cut * len(sizes):
        what = f"the image's edge cuts {len(cut)} of {len(sizes)} masks"
        yield Finding(False, what, "keep all of the object in the image")


def _at_edge(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _hull_findings(
    folder: Path, frames: list[Frame], config: DoctorConfig
) -> tuple[float | None, list[Finding]]:
    """Mean overlap of the masks with the silhouettes of their hull, and the findings about it."""
    fits = mask_fits(Video(folder, tuple(frames)))
    if not fits:
        what = "the masks have no common place in space"
        remedy = "look whether masks/ and sparse/ are of the same object and images"
        return None, [Finding(True, what, remedy)]
    fit = float(np.mean([one.overlap for one in fits.values()]))
    if fit < config.fit:
        what = (
            f"the masks overlap with the silhouettes of their hull by {fit:.2f} on average"
        )
        remedy = "look at masks/ and at the poses: one of them is wrong; the object must not move"
        return fit, [Finding(True, what, remedy)]
    bad = bad_masks(fits, MaskConfig())
    if not bad:
        return fit, []
    remedy = (
        f"`uns-pose mask {folder.parent.name} --videos {folder.name} --points X Y`, px on "
        "the object; or give masks/"
    )
    if is_given(folder / "masks"):
        remedy = "draw these masks anew"
    what = f"{len(bad)} of {len(fits)} masks do not fit the others: {shorten(bad, 4)}"
    return fit, [Finding(len(bad) > 0.1 * len(fits), what, remedy)]


def _alignment_findings(category: Path) -> Iterable[Finding]:
    """The videos that the alignment left out, if it exists."""
    if not (category / ALIGNMENT).exists():
        return
    try:
        alignment = artifacts.load_alignment(category / ALIGNMENT)
    except InvalidInput as error:
        yield Finding(True, str(error), "`uns-pose align` makes it again")
        return
    left_out = [
        name
        for name, kept in zip(alignment.videos, alignment.kept, strict=True)
        if not kept
    ]
    if left_out:
        what = f"{shorten(left_out)} did not fit the others in {ALIGNMENT} and is not trained on"
        remedy = "see what is said of it above; film it all around, or leave it out"
        yield Finding(False, what, remedy)


def _place_findings(category: Path, folders: list[Path]) -> Iterable[Finding]:
    """Whether more than half of the videos were filmed in one place."""
    measured = {folder.name: measure_surroundings(folder) for folder in folders}
    seen = {name: one for name, one in measured.items() if one is not None}
    most = next(iter(group_places(seen)), [])
    if len(most) < 2 or 2 * len(most) <= len(folders):
        return
    who = f"all {len(most)} videos show the same surroundings"
    if len(most) < len(folders):
        who = f"{len(most)} of {len(folders)} videos show the same surroundings: "
        who += shorten(most, 4)
    what = (
        f"{who}; a model of them is weaker in other places, which its figures cannot show"
    )
    remedy = (
        "film some in other places; or `uns-pose backgrounds BAG --into DIR` with a recording of "
        f"the robot's places, then `uns-pose run {category.name} --backgrounds DIR`"
    )
    yield Finding(False, what, remedy)
