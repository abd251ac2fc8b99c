"""What is wrong with the videos of a category, and what to do about it.

Reads only; finds neither poses nor masks.

Blur is measured without a reference: how much of its detail a picture loses when it is blurred once
more tells how sharp it was (Crete et al., "The blur effect", SPIE 2007).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.measure import blur_effect

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Frame, Progress, Video
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import has_sparse
from uns_pose_ros.io.images import Pixels, read_image, read_mask, shrunk
from uns_pose_ros.io.video_folder import frames_of, image_names, list_videos
from uns_pose_ros.pipeline.preparation import RECORD, is_given, mask_agreement
from uns_pose_ros.pipeline.stages import ALIGNMENT
from uns_pose_ros.reconstruction import capture_quality
from uns_pose_ros.reconstruction.colmap_mapper import SfmConfig
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reconstruction.structure_from_motion import UNSURE

_LONGEST = 640  # px, longer side at which pictures are looked at
_CROWD = "(all)"  # in place of a video's name: what concerns the category


@dataclass(frozen=True)
class DoctorConfig:
    """From where on something is told."""

    videos: int = 3  # instances that a category needs
    frames: int = 8  # usable ones that a video needs
    # blur effect at 640 px, 0 sharp to 1, above which a picture is blurred: about 7 px of motion
    blur: float = 0.5
    blurred: float = 0.25  # share of the pictures above which it must be mended
    covered: float = 120.0  # degrees around the object that a video needs
    gap: float = 60.0  # degrees without a picture that are told
    # mean overlap of the masks with the silhouettes of their hull below which poses and masks
    # contradict
    fit: float = 0.7
    small: int = 64  # px, longer side of the object in a picture
    cut: float = 0.25  # share of the masks at the picture's edge that is told

    def __post_init__(self) -> None:
        for name in ("blur", "blurred", "fit", "cut"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidInput(f"{name} {getattr(self, name)}: 0 to 1 is valid")


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be."""

    mend: bool  # it must be mended; else it could be better
    what: str
    remedy: str


@dataclass(frozen=True)
class Checkup:
    """What was found out about one video; None where it cannot be told."""

    name: str
    pictures: int
    usable: int
    blurred: int | None
    posed: int | None
    covered_deg: float | None
    fit: float | None  # mean overlap of the masks with the silhouettes of their hull
    findings: tuple[Finding, ...]

    @property
    def mend(self) -> bool:
        return any(finding.mend for finding in self.findings)


def check_category(
    category: Path,
    patterns: str | None = None,
    config: DoctorConfig = DoctorConfig(),
    progress: Progress | None = None,
) -> list[Checkup]:
    """A checkup of every video (those that `patterns` name), the category's own last, where there
    is something to tell.
    """
    folders = list_videos(category, patterns)
    found = []
    for done, folder in enumerate(folders, 1):
        found.append(check_video(folder, config))
        if progress is not None:
            progress(f"{category.name}: videos", done, len(folders))
    crowd = list(_alignment_findings(category))
    if len(folders) < config.videos and patterns is None:
        what = f"{len(folders)} videos, {config.videos} are needed"
        crowd.append(
            Finding(True, what, "film more instances; seven or more give good accuracy")
        )
    return (
        [*found, Checkup(_CROWD, 0, 0, None, None, None, None, tuple(crowd))]
        if crowd
        else found
    )


def check_video(folder: Path, config: DoctorConfig = DoctorConfig()) -> Checkup:
    """A checkup of one video folder; what cannot be read is a finding, not an error."""
    names = image_names(folder)
    posed, masked = (
        has_sparse(folder / "sparse"),
        (folder / "masks").is_dir() and any((folder / "masks").iterdir()),
    )
    try:
        frames, dropped, _ = frames_of(folder, masked, posed)
    except InvalidInput as error:
        finding = Finding(
            True,
            str(error).removeprefix(f"{folder}: "),
            "mend or delete that file or folder",
        )
        return Checkup(folder.name, len(names), 0, None, None, None, None, (finding,))
    findings = list(_frame_findings(folder, names, frames, dropped, config))
    gray = [
        shrunk(
            cv2.cvtColor(read_image(f.image).numpy(), cv2.COLOR_RGB2GRAY).astype(np.uint8),
            _LONGEST,
        )
        for f in frames
    ]
    blurred = [
        f.name
        for f, picture in zip(frames, gray, strict=True)
        if blur_effect(picture) > config.blur
    ]
    findings += _blur_findings(blurred, len(frames), config)
    covered, fit = None, None
    if posed and len(frames) >= 3:
        covered, about_poses = _pose_findings(names, frames, config)
        findings += about_poses
    elif frames and not posed:
        findings += _pattern_findings(gray)
    findings += _focal_findings(folder, posed)
    if masked:
        findings += _mask_findings(frames, config)
    if masked and posed and len(frames) >= 3:
        fit, about_hull = _hull_findings(folder, frames, config)
        findings += about_hull
    count = len(frames) if posed else None
    return Checkup(
        folder.name,
        len(names),
        len(frames),
        len(blurred),
        count,
        covered,
        fit,
        tuple(findings),
    )


def _frame_findings(
    folder: Path,
    names: list[str],
    frames: list[Frame],
    dropped: list[str],
    config: DoctorConfig,
) -> Iterable[Finding]:
    if dropped:
        what = f"{len(dropped)} of {len(frames) + len(dropped)} frames cannot be used; the first: "
        what += dropped[0].replace(f"{folder}/", "")
        yield Finding(
            len(dropped) > 0.1 * (len(frames) + len(dropped)),
            what,
            "mend or delete those files",
        )
    if len(frames) < config.frames:
        what = f"{len(frames)} usable frames of {len(names)} pictures, {config.frames} are needed"
        yield Finding(True, what, "import more of the film (--frames), or film longer")


def _blur_findings(
    blurred: list[str], count: int, config: DoctorConfig
) -> Iterable[Finding]:
    if blurred:
        mend = len(blurred) > config.blurred * count
        remedy = (
            "film again: slower, in more light, in focus"
            if mend
            else "delete those pictures, or leave it so"
        )
        yield Finding(
            mend,
            f"{len(blurred)} of {count} pictures are blurred: {shorten(blurred, 4)}",
            remedy,
        )


def _pose_findings(
    names: list[str], frames: list[Frame], config: DoctorConfig
) -> tuple[float | None, list[Finding]]:
    """Degrees covered around the object, and what is wrong with the poses."""
    findings = []
    limits, count = SfmConfig(), len(frames)
    if count < limits.wanted * len(names):
        what = f"{count} of {len(names)} pictures have a pose"
        remedy = "film again: slower, on something with a pattern, the surroundings in the picture"
        findings.append(Finding(count < limits.least * len(names), what, remedy))
    around = capture_quality.azimuth_coverage(
        [frame.cam_from_obj for frame in frames if frame.cam_from_obj is not None]
    )
    if around is None:
        findings.append(
            Finding(
                True,
                "the cameras look at no common place",
                "walk around the object, keep it in the middle",
            )
        )
        return None, findings
    covered, gap = around["covered_deg"], around["largest_gap_deg"]
    if gap > config.gap:
        what = f"{gap:.0f} degrees around the object are not seen"
        findings.append(
            Finding(covered < config.covered, what, "walk all around the object")
        )
    return covered, findings


def _pattern_findings(gray: list[Pixels]) -> Iterable[Finding]:
    """Whether pictures without poses show enough to find them by."""
    features = capture_quality.median_keypoints(gray)
    if features < capture_quality.FEW_FEATURES:
        what = (
            f"poses cannot be found: an image has {features:.0f} features, "
            f"{capture_quality.FEW_FEATURES} are needed"
        )
        yield Finding(
            True,
            what,
            "film it on something with a pattern (newspaper, a rug), in more light, "
            "larger pictures",
        )


def _focal_findings(folder: Path, posed: bool) -> Iterable[Finding]:
    """Whether the camera's focal length was measured, or is found with the poses from something
    less.
    """
    path = folder / RECORD
    record = artifacts.read_json(path) if path.exists() else {}
    record = record if isinstance(record, dict) else {}
    camera, poses = record.get("camera") or {}, record.get("poses") or {}
    if posed:
        source = (
            "given" if is_given(folder / "sparse") else poses.get("calibration", "given")
        )
    else:
        source = camera.get("from", "given") if camera else "guessed"
    if source not in UNSURE:
        return
    began = "guessed" if source == "guessed" else "taken from EXIF, right to some percent"
    cost = (
        "frames may be left out, and what is wrong of it stretches the object in depth and "
        "bends the poses"
    )
    found = (
        f" and found with the poses: {poses.get('focal_px', 0):.0f} px"
        if posed
        else ", and will be found with the poses"
    )
    remedy = "calibrate the camera and import again with --camera K.json (or --focal PX)"
    yield Finding(
        False,
        f"the camera's focal length is not calibrated but {began}{found}; {cost}",
        remedy,
    )


def _mask_findings(frames: list[Frame], config: DoctorConfig) -> Iterable[Finding]:
    """How the object lies in the pictures."""
    sizes, cut = list[int](), list[str]()
    for frame in frames:
        if frame.mask is None:
            continue
        mask = read_mask(frame.mask).numpy()
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        sizes.append(int(max(rows[-1] - rows[0], columns[-1] - columns[0])) + 1)
        if _at_edge(mask):
            cut.append(frame.name)
    if sizes and np.median(sizes) < config.small:
        what = f"the object is {np.median(sizes):.0f} px large, {config.small} are needed"
        yield Finding(True, what, "go closer, or import larger pictures (--longest)")
    if len(cut) > config.cut * len(sizes):
        yield Finding(
            False,
            f"the picture's edge cuts {len(cut)} of {len(sizes)} masks",
            "keep all of the object in the picture",
        )


def _at_edge(mask: NDArray[np.bool_]) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _hull_findings(
    folder: Path, frames: list[Frame], config: DoctorConfig
) -> tuple[float | None, list[Finding]]:
    """Mean overlap of the masks with the silhouettes of their hull, and what it says."""
    agreement = mask_agreement(Video(folder, tuple(frames)))
    if not agreement:
        remedy = "look whether masks/ and sparse/ are of the same object and pictures"
        return None, [Finding(True, "the masks have no common place in space", remedy)]
    fit = float(np.mean(list(agreement.values())))
    if fit < config.fit:
        what = (
            f"the masks overlap with the silhouettes of their hull by {fit:.2f} on average"
        )
        return fit, [
            Finding(
                True,
                what,
                "look at masks/ and at the poses: one of them is wrong; the object must not move",
            )
        ]
    bad = [name for name, value in agreement.items() if value < MaskConfig().bad]
    if not bad:
        return fit, []
    found = (
        f"`uns-pose mask {folder.parent.name} --videos {folder.name} --points X Y`, px on "
        "the object; or give masks/"
    )
    remedy = "draw these masks anew" if is_given(folder / "masks") else found
    what = f"{len(bad)} of {len(agreement)} masks do not fit the others: {shorten(bad, 4)}"
    return fit, [Finding(len(bad) > 0.1 * len(agreement), what, remedy)]


def _alignment_findings(category: Path) -> Iterable[Finding]:
    """Videos that the alignment, where there is one, has left out."""
    if not (category / ALIGNMENT).exists():
        return
    try:
        alignment = artifacts.load_alignment(category / ALIGNMENT)
    except InvalidInput as error:
        yield Finding(True, str(error), "`uns-pose align` makes it again")
        return
    lost = [
        name
        for name, kept in zip(alignment.videos, alignment.kept, strict=True)
        if not kept
    ]
    if lost:
        what = (
            f"{shorten(lost)} did not fit the others in {ALIGNMENT} and is not trained on"
        )
        yield Finding(
            False, what, "see what is said of it above; film it all around, or leave it out"
        )
