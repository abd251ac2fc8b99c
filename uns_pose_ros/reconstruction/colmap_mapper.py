"""Incremental and global mapping options and polishing with pycolmap."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Attempt:
    """Thresholds of one attempt."""

    name: str
    peak: float  # contrast of a SIFT feature
    affine: bool  # affine shape and domain-size pooling: features that survive more change of view
    guided: bool  # matches again along the epipolar lines
    inliers: int  # that register a frame
    ratio: float  # of inliers among its matches
    start: int  # inliers of the first pair
    # all poses at once too, from the rotations between pairs (GLOMAP): two models, doubtful
    # images
    use_global_mapper: bool


@dataclass(frozen=True)
class SfmConfig:
    """How poses are found, and what counts as success."""

    features: int = 3000  # an image, at most
    all_pairs: int = 60  # frames up to which every pair is matched
    overlap: int = 10  # neighbors that a frame of a longer video is matched with
    # every so manieth frame of a longer video is matched with all others of them: closes the loop
    net: int = 6
    # registered fraction below which there is a second, relaxed attempt
    wanted: float = 0.9
    least: float = 0.5  # registered fraction below which the video has failed
    # px, mean reprojection error above which the plain attempt is not believed
    error: float = 0.65
    threads: int = -1  # -1: all
