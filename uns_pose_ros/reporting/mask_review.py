"""What a person looks at before the training: every mask, the most doubtful first, the alignment.

For each video in doubt it says what its masks and poses speak for. Where masks do not fit, there is
a command that mends them: points on the object in the most doubtful image, and points beside it
where the mask took too much.
"""

from __future__ import annotations

import shlex
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from markupsafe import Markup
from numpy.typing import NDArray

import uns_pose_ros
from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.core.types import Alignment, Camera, Frame, Progress
from uns_pose_ros.io.artifacts import atomic_write
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video, read_frame
from uns_pose_ros.networks import mobile_sam, pretrained_weights
from uns_pose_ros.pipeline.alignment_stage import ALIGNMENT_IMAGE
from uns_pose_ros.pipeline.poses_and_masks.made_parts import is_given
from uns_pose_ros.reconstruction.hull_of_others import (
    MaskFit,
    bad_masks,
    beyond,
    fit_mask,
    silhouettes_of_others,
)
from uns_pose_ros.reconstruction.mask_correction import deep_points
from uns_pose_ros.reconstruction.mask_voting import MaskConfig
from uns_pose_ros.reporting import html
from uns_pose_ros.reporting.doubt_causes import (
    Cause,
    PoseFacts,
    find_causes,
    pose_contradictions,
    pose_facts,
)
from uns_pose_ros.visualization import drawing

REVIEW = "masks.html"
LOW_CONFIDENCE = 0.5  # of a video's alignment, below which a person should look at it
_POINTS = 3  # of a remedy, on the object and beside it
_THUMBNAIL = 160  # px, width
_HULL = (255, 60, 60)


@dataclass(frozen=True, eq=False)
class ReviewedMask:
    """A mask, and how it fits the others."""

    name: str  # of the image
    fit: MaskFit
    thumbnail: drawing.RgbImage  # with the outlines of mask and hull


@dataclass(frozen=True)
class Hint:
    """Points x y, px, in an image that say what the object is there."""

    name: str  # of the image
    inside: Sequence[Sequence[float]]
    outside: Sequence[Sequence[float]]


@dataclass(frozen=True, eq=False)
class ReviewedVideo:
    """The masks of a video, its place in the alignment, and what mends it."""

    folder: Path
    confidence: float | None  # None: not aligned, or not measured
    kept: bool
    masks: Sequence[ReviewedMask]  # empty where they have no hull
    bad: Sequence[str]  # names of the images whose masks do not fit
    hint: Hint | None  # in the most doubtful image
    facts: PoseFacts
    videos: int  # of the category

    @property
    def doubtful(self) -> bool:
        """Whether a person should look at it before the training."""
        return self._is_unsure or bool(self.bad) or self._has_wrong_poses

    @property
    def _is_unsure(self) -> bool:
        """Whether its place in the alignment is."""
        low = self.confidence is not None and self.confidence < LOW_CONFIDENCE
        return low or not self.kept

    @property
    def _has_wrong_poses(self) -> bool:
        return bool(pose_contradictions(self.facts, self._overlap))

    @property
    def _overlap(self) -> float | None:
        """Median overlap of the masks with the hull of the others."""
        values = [one.fit.overlap for one in self.masks]
        return statistics.median(values) if values else None

    @property
    def causes(self) -> list[Cause]:
        """What may be wrong with a doubtful video, and what mends it."""
        return find_causes(
            self.facts, self._overlap, self.remedy, self.videos, not self._is_unsure
        )

    @property
    def finding(self) -> str:
        """What is in doubt, in one line."""
        parts = []
        if self.bad:
            parts.append(
                f"{len(self.bad)} of {len(self.masks)} masks do not fit the others "
                f"({shorten(self.bad, 4)})"
            )
        if self.confidence is not None and self._is_unsure:
            use = "trained on all the same" if self.kept else "left out of the training"
            parts.append(f"confidence {self.confidence:.2f}, {use}")
        if not parts:
            parts.append("the camera poses are doubtful")
        return f"{self.folder.name}: {'; '.join(parts)}"

    @property
    def remedy(self) -> str:
        """The command that mends the masks; empty where all fit, or where no points are known."""
        if self.hint is None or not self.bad:
            return ""
        words = ["uns-pose", "mask", str(self.folder)]
        words += ["--points", *_numbers(self.hint.inside)]
        if self.hint.outside:
            words += ["--background", *_numbers(self.hint.outside)]
        command = shlex.join([*words, "--frame", self.hint.name])
        if not (
            pretrained_weights.cache_folder() / f"{mobile_sam.NAME}.safetensors"
        ).is_file():
            command = f"uns-pose weights {mobile_sam.NAME} && {command}"
        masks = self.folder / "masks"
        if is_given(masks):
            aside = shlex.join(["mv", str(masks), str(masks.with_name("masks.before"))])
            command = f"{aside} && {command}"
        return command


def _numbers(points: Sequence[Sequence[float]]) -> list[str]:
    return [f"{value:.0f}" for point in points for value in point]


def review_masks(
    folders: Sequence[Path],
    alignment: Alignment | None,
    config: MaskConfig = MaskConfig(),
    progress: Progress | None = None,
) -> list[ReviewedVideo]:
    """Judge all masks of some videos.

    Args:
        folders: the videos, with masks and poses.
        alignment: of the category, or None.
        config: limits of bad masks.
        progress: is called with the step, the videos done and all videos.
    """
    confidences = dict[str, tuple[float | None, bool]]()
    if alignment is not None:
        confidences = {
            name: (float(confidence) if alignment.is_measured else None, bool(kept))
            for name, confidence, kept in zip(
                alignment.videos, alignment.confidence, alignment.kept, strict=True
            )
        }
    reviewed = []
    for done, folder in enumerate(folders, 1):
        frames = [
            frame
            for frame in load_video(folder).frames
            if frame.mask is not None and frame.cam_from_obj is not None
        ]
        masks, hint = _judge_video(frames)
        confidence, kept = confidences.get(folder.name, (None, True))
        bad = bad_masks({one.name: one.fit for one in masks}, config)
        facts, count = pose_facts(folder, frames), max(len(folders), len(confidences))
        reviewed.append(
            ReviewedVideo(folder, confidence, kept, masks, bad, hint, facts, count)
        )
        if progress is not None:
            progress("masks: review", done, len(folders))
    return reviewed


def _judge_video(frames: Sequence[Frame]) -> tuple[list[ReviewedMask], Hint | None]:
    """The masks of a video, and points in the image of the most doubtful one."""
    masks, matrices, poses = list[NDArray[np.bool_]](), [], []
    thumbnails = list[drawing.RgbImage]()
    for frame in frames:
        image, mask, camera = read_frame(frame)
        if mask is None or frame.cam_from_obj is None:
            continue
        masks.append(mask.numpy())
        matrices.append(camera.matrix)
        poses.append(frame.cam_from_obj)
        height = max(1, round(image.shape[0] * 2 * _THUMBNAIL / image.shape[1]))
        small = cv2.resize(
            image.numpy(), (2 * _THUMBNAIL, height), interpolation=cv2.INTER_AREA
        )
        thumbnails.append(np.asarray(small, np.uint8))
    if not masks:
        return [], None
    silhouettes = silhouettes_of_others(masks, torch.stack(matrices), torch.stack(poses))
    reviewed = [
        ReviewedMask(
            frame.name,
            fit_mask(mask, silhouette),
            _draw_outlines(thumbnail, mask, silhouette),
        )
        for frame, mask, silhouette, thumbnail in zip(
            frames, masks, silhouettes, thumbnails, strict=False
        )
    ]
    if not reviewed:
        return [], None
    worst = max(range(len(reviewed)), key=lambda number: reviewed[number].fit.doubt)
    return reviewed, _hint(frames[worst], masks[worst], silhouettes[worst])


def _hint(
    frame: Frame, mask: NDArray[np.bool_], silhouette: NDArray[np.bool_]
) -> Hint | None:
    """Points on what a mask and a silhouette (H, W) share, and on what only the mask has."""
    shared = mask & silhouette
    inside = deep_points(shared if shared.any() else silhouette, _POINTS, apart=1.0)
    outside = deep_points(beyond(mask, silhouette), _POINTS)
    camera = frame.camera
    inside, outside = _in_image(inside, camera), _in_image(outside, camera)
    return Hint(frame.name, inside, outside) if inside else None


def _in_image(points: Sequence[Sequence[float]], camera: Camera) -> list[list[float]]:
    """Points x y, px, where the camera's image with its distortion shows them."""
    if not points or not bool(camera.distortion.any()):
        return [list(point) for point in points]
    k = camera.matrix.numpy()
    rays = (np.array([[*point, 1.0] for point in points])) @ np.linalg.inv(k).T
    seen = cv2.projectPoints(rays, np.zeros(3), np.zeros(3), k, camera.distortion.numpy())[
        0
    ].reshape(-1, 2)
    limits = (camera.width - 1, camera.height - 1)
    return [point for point in seen.tolist() if (np.clip(point, 0, limits) == point).all()]


def write_review(category: Path, videos: Sequence[ReviewedVideo]) -> Path:
    """Write the page with all masks and the alignment; returns its path."""
    sections = [
        ("What to look at", _doubts_section(videos)),
        ("Alignment", _alignment_section(category, videos)),
        ("Masks", _masks_section(videos)),
    ]
    note = f"uns_pose_ros {uns_pose_ros.__version__}"
    page = html.page_document(
        f"{category.resolve().name}: before the training", note, sections
    )
    path = category / REVIEW
    with atomic_write(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return path


def _doubts_section(videos: Sequence[ReviewedVideo]) -> Markup:
    doubtful = [video for video in videos if video.doubtful]
    if not doubtful:
        return html.paragraph("Nothing stands out.")
    section = Markup()
    for video in doubtful:
        section += html.paragraph(video.finding, "bad")
        section += html.bullet_list([str(cause) for cause in video.causes])
    return section + html.paragraph(
        "When something is mended, call `uns-pose run` again.", "note"
    )


def _alignment_section(category: Path, videos: Sequence[ReviewedVideo]) -> Markup:
    rows = [
        [
            video.folder.name,
            "–" if video.confidence is None else f"{video.confidence:.2f}",
            "yes" if video.kept else "no",
            str(len(video.bad)),
            f"{np.mean([one.fit.overlap for one in video.masks]):.2f}"
            if video.masks
            else "–",
        ]
        for video in videos
    ]
    header = [
        "video",
        "confidence",
        "trained on",
        "bad masks",
        "overlap with the others' hull",
    ]
    section = html.data_table(header, rows, [video.doubtful for video in videos])
    figure = category / ALIGNMENT_IMAGE
    try:
        pixels = read_image(figure).numpy() if figure.exists() else None
    except InvalidInput:
        pixels = None
    if pixels is None:
        return section
    return section + html.image_figure(pixels, "the videos' hulls in one frame", 1100)


def _masks_section(videos: Sequence[ReviewedVideo]) -> Markup:
    note = (
        "The mask is outlined in yellow, the hull of the other images' masks in red. Doubt: the "
        "part of the mask in which they differ by more than an edge."
    )
    figures = list[tuple[Markup, str, float]]()
    for video in videos:
        for one in video.masks:
            name = f"{video.folder.name}/{one.name}"
            figure = html.image_figure(
                one.thumbnail,
                f"{name}, doubt {one.fit.doubt:.2f}",
                _THUMBNAIL,
                bad=one.name in video.bad,
            )
            figures.append((figure, name, one.fit.doubt))
    if not figures:
        return html.paragraph("No video has masks that carve a hull.", "bad")
    return html.paragraph(note, "note") + html.sortable_grid(figures)


def _draw_outlines(
    image: drawing.RgbImage, mask: NDArray[np.bool_], silhouette: NDArray[np.bool_]
) -> drawing.RgbImage:
    """A small image with the outlines of a mask and a silhouette (H, W)."""
    size = (image.shape[1], image.shape[0])

    def shrunk(whole: NDArray[np.bool_]) -> NDArray[np.bool_]:
        return np.asarray(
            cv2.resize(whole.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST) > 0
        )

    with_hull = drawing.draw_contour(image, shrunk(silhouette), _HULL)
    return drawing.highlight_mask(with_hull, shrunk(mask))


def review_text(videos: Sequence[ReviewedVideo], page: Path) -> str:
    """What a person should know before the training, and the commands that mend it."""
    lines = list[str]()
    for video in videos:
        if video.doubtful:
            lines.append(video.finding)
            lines += [f"  {cause}" for cause in video.causes]
    lines.append(f"all masks and the alignment: {page}")
    return "\n".join(lines)


def review_record(videos: Sequence[ReviewedVideo]) -> Mapping[str, object]:
    """The doubtful videos as JSON types."""
    return {
        video.folder.name: {
            "finding": video.finding,
            "bad_masks": list(video.bad),
            "remedy": video.remedy,
            "causes": [
                {"what": cause.what, "remedy": cause.remedy} for cause in video.causes
            ],
        }
        for video in videos
        if video.doubtful
    }
