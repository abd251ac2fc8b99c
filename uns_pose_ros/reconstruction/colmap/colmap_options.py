"""COLMAP's options for features and matches of an attempt, and its log."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from uns_pose_ros.reconstruction.colmap_mapper import SEED, Attempt, SfmConfig


def extraction_options(attempt: Attempt, config: SfmConfig, doubled: bool) -> Any:
    """pycolmap.FeatureExtractionOptions of an attempt.

    Args:
        attempt: its thresholds.
        config: number of features and threads.
        doubled: whether images are enlarged to twice their size, which adds small features and
            takes four times as long.
    """
    import pycolmap

    options = pycolmap.FeatureExtractionOptions()
    options.num_threads = config.threads
    options.use_gpu = False
    options.sift.max_num_features = config.features
    options.sift.first_octave = -1 if doubled else 0
    options.sift.peak_threshold = attempt.peak_threshold
    options.sift.estimate_affine_shape = attempt.affine_features
    options.sift.domain_size_pooling = attempt.affine_features
    return options


def matching_options(attempt: Attempt, config: SfmConfig) -> Any:
    """pycolmap.FeatureMatchingOptions of an attempt."""
    import pycolmap

    options = pycolmap.FeatureMatchingOptions()
    options.num_threads = config.threads
    options.use_gpu = False
    options.guided_matching = attempt.guided_matching
    return options


def verification_options() -> Any:
    """pycolmap.TwoViewGeometryOptions that give the same result every time."""
    import pycolmap

    options = pycolmap.TwoViewGeometryOptions()
    options.ransac.random_seed = SEED
    return options


@contextlib.contextmanager
def silence_colmap() -> Iterator[None]:
    """Switch COLMAP's log off, which is for its developers."""
    import pycolmap

    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = int(pycolmap.logging.Level.FATAL)
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before
