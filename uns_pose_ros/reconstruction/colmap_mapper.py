"""COLMAP's mappers with our thresholds: options, incremental and global models, polishing.

Every function imports pycolmap when it is called, so that the settings of this module need no
pycolmap.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from uns_pose_ros.core.geometry import from_parts
from uns_pose_ros.core.view_coverage import ViewCoverage
from uns_pose_ros.reconstruction.capture_quality import (
    CONTRAST,
    azimuth_coverage,
    consistent_frames,
)
from uns_pose_ros.reconstruction.colmap.weak_images import weak_images

SEED = 0
# longer sides of the image: between 90 and 14 degrees of view
_MIN_FOCAL, _MAX_FOCAL = 0.5, 4.0
_DOUBT = 0.5  # px, reprojection error from which on an observation counts less
_WRONG = 2.0  # px, reprojection error from which on an observation does not count
_MIN_RAY_ANGLE = (
    1.5  # degrees between the rays to a point, below which its depth is unknown
)
_SAME_ROTATION = 2.0  # degrees up to which two models agree on the rotation of an image
_POLISH_ITERATIONS = 50
_MIN_MODEL_SIZE = 3  # images
_CONVERGED = 1e-6  # relative change of the errors, below which an adjustment is done
_DETERMINING = 1000  # points that determine a principal point
_HALF_ORBIT = 180.0  # degrees around the object that determine it
_MAX_OFF_MIDDLE = 0.04  # of the image's longer side, by which it may be off the middle
# the part of a model's images that another way rotates likewise, below which it is disputed
DISPUTED = 0.6


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """Thresholds of one attempt."""

    name: str
    peak_threshold: float  # contrast of a SIFT feature
    # affine shape and domain-size pooling: features that survive more change of view
    affine_features: bool
    guided_matching: bool  # a second matching along the epipolar lines
    min_inliers: int  # that register a frame
    min_inlier_ratio: float  # of inliers among the matches of a frame
    min_first_inliers: int  # of the first pair
    # a second model by rotation averaging (GLOMAP); images that both models place differently
    # are registered again
    use_global_mapper: bool
    relative_seconds: float = 1.0  # its time, in times of the first attempt


ATTEMPTS = (
    Attempt(
        name="plain",
        peak_threshold=CONTRAST,
        affine_features=False,
        guided_matching=False,
        min_inliers=30,
        min_inlier_ratio=0.25,
        min_first_inliers=100,
        use_global_mapper=False,
    ),
    Attempt(
        name="relaxed",
        peak_threshold=0.004,
        affine_features=True,
        guided_matching=True,
        min_inliers=12,
        min_inlier_ratio=0.12,
        min_first_inliers=50,
        use_global_mapper=True,
        relative_seconds=5.0,
    ),
)


@dataclass(frozen=True)
class SfmConfig:
    """How poses are computed, and what counts as success."""

    size: int = 1200  # px, longer side of the images in which features are read, at most
    features: int = 2000  # an image, at most
    all_pairs: int = 60  # frames up to which every pair is matched
    overlap: int = 10  # neighbors that a frame of a longer video is matched with
    # step between the frames of a longer video that are all matched with each other: closes the
    # loop
    net: int = 6
    # registered fraction below which a second, relaxed attempt is made
    wanted: float = 0.9
    least: float = 0.5  # registered fraction below which the video has failed
    # px, mean reprojection error above which the plain attempt is not believed
    error: float = 0.65
    threads: int = -1  # -1: all


@dataclass(frozen=True)
class MappedModel:
    """A polished model."""

    model: Any  # pycolmap.Reconstruction
    error: float  # px, mean reprojection error before the polishing
    # images that another way to compute poses rotates likewise; None: there was one way only
    agreed: int | None = None

    @property
    def size(self) -> tuple[int, int]:
        """Its images and their observations of points."""
        return self.model.num_reg_images(), self.model.compute_num_observations()

    @property
    def agreement(self) -> float:
        """The part of its images that another way rotates likewise; 1 where there is none."""
        return 1.0 if self.agreed is None else self.agreed / self.model.num_reg_images()


def choose_model(models: Sequence[MappedModel], least: float) -> MappedModel:
    """The model with the most images, unless another way contradicts it.

    Args:
        models: at least one.
        least: images of a model that can be chosen in its place.
    """
    largest = max(models, key=lambda mapped: mapped.size)
    if largest.agreement >= DISPUTED:
        return largest
    enough = [mapped for mapped in models if mapped.size[0] >= least]
    return max(
        enough or [largest], key=lambda mapped: (round(mapped.agreement, 3), mapped.size)
    )


@dataclass(frozen=True, kw_only=True)
class ColmapMapper:
    """Makes models from the matches of one attempt."""

    database: Path
    images: Path
    work: Path
    attempt: Attempt
    refine_camera: bool
    config: SfmConfig
    # is called with the step and the images done
    progress: Callable[[str, int], None] = lambda what, done: None

    def map_images(self) -> list[MappedModel]:
        """Polished models whose cameras look at a common place."""
        models = [self._strengthen(self._polish_largest(self._map_incrementally()))]
        if not self.attempt.use_global_mapper:
            return [mapped for mapped in models if mapped is not None]
        models.append(self._polish_largest(self._map_globally()))
        models += self._reregister_disputed(
            [mapped.model for mapped in models if mapped is not None]
        )
        ways = models[::2], models[1::2]
        return [
            replace(mapped, agreed=_count_agreed(mapped, ways[1 - number % 2]))
            for number, mapped in enumerate(models)
            if mapped is not None
        ]

    def _map_incrementally(self, start: Path | None = None) -> dict[int, Any]:
        """Models by number. `start` is the folder of a model to which images are added."""
        import pycolmap

        options = self._incremental_options()
        paths = (self.database, self.images, self.work)
        registered = itertools.count(1)
        what = "poses" if start is None else "poses, second look"

        def show() -> None:
            self.progress(what, next(registered))

        self.progress(what, 0)
        given: dict[str, Any] = {} if start is None else {"input_path": start}
        return dict(
            pycolmap.incremental_mapping(*paths, options, next_image_callback=show, **given)
        )

    def _map_globally(self) -> dict[int, Any]:
        """Models by number, with all poses computed at once."""
        import pycolmap

        options = self._global_options()
        self.progress("poses at once", 0)
        return dict(pycolmap.global_mapping(self.database, self.images, self.work, options))

    def _reregister_disputed(self, models: list[Any]) -> list[MappedModel | None]:
        """Remove the images that two models rotate differently, and register them again.

        Both models keep what they agree on. Wrong matches, such as those of another wall's
        bricks, are few against the right ones once the points that they built are gone.
        """
        if len(models) < 2:
            return []
        poses = [registered_poses(model) for model in models]
        agreed = set(consistent_frames(poses[0], poses[1], _SAME_ROTATION))
        nothing_disputed = all(agreed == of_model.keys() for of_model in poses)
        if len(agreed) < 3 or nothing_disputed:
            return []
        results = []
        for number, (model, of_model) in enumerate(zip(models, poses, strict=True)):
            pruned = _without(model, of_model.keys() - agreed)
            self._polish(pruned)
            results.append(
                self._polish_largest(self._add_images(pruned, f"pruned_{number}"))
            )
        return results

    def _strengthen(self, mapped: MappedModel | None) -> MappedModel | None:
        """Register the images again that few and bad observations hold.

        Wrong matches of theirs no longer count once all other images agree.
        """
        weak = [] if mapped is None else weak_images(mapped.model)
        if mapped is None or not weak:
            return mapped
        pruned = _without(mapped.model, weak)
        again = self._polish_largest(self._add_images(pruned, "strengthened"))
        return again if again is not None and again.size >= mapped.size else mapped

    def _add_images(self, model: Any, folder_name: str) -> dict[int, Any]:
        """Models by number, of a model to which the missing images are added."""
        folder = self.work / folder_name
        folder.mkdir()
        model.write(folder)
        return self._map_incrementally(folder)

    def _polish_largest(self, models: Mapping[int, Any]) -> MappedModel | None:
        """The largest model whose cameras look at a common place, polished."""
        plausible = [model for model in models.values() if has_common_target(model)]
        if not plausible:
            return None
        model = max(plausible, key=lambda m: (m.num_reg_images(), m.num_points3D()))
        error = float(model.compute_mean_reprojection_error())
        self._polish(model)
        return MappedModel(model, error) if has_common_target(model) else None

    def find_principal_point(self, model: Any) -> Any:
        """The model with the camera's principal point found too, where it is well determined.

        A principal point that is off the middle of the image, as in most cameras, turns all
        cameras by the same angle. Few points or a part of an orbit do not determine it.

        Args:
            model: polished; it stays as it is.

        Returns:
            A changed copy, or the model itself: of a known camera, or where the point is not
            found near the middle.
        """
        import pycolmap

        coverage = azimuth_coverage(list(registered_poses(model).values()))
        around = 0.0 if coverage is None else coverage["covered_deg"]
        enough = model.num_points3D() >= _DETERMINING and around >= _HALF_ORBIT
        if not (self.refine_camera and enough):
            return model
        copy = pycolmap.Reconstruction(model)
        self._polish(copy, find_principal_point=True)
        camera = next(iter(copy.cameras.values()))
        limit = _MAX_OFF_MIDDLE * max(camera.width, camera.height)
        off = (
            abs(camera.principal_point_x - camera.width / 2),
            abs(camera.principal_point_y - camera.height / 2),
        )
        kept = registered_poses(copy).keys() == registered_poses(model).keys()
        better = (
            copy.compute_mean_reprojection_error()
            <= model.compute_mean_reprojection_error()
        )
        return copy if kept and better and max(off) <= limit else model

    def _polish(self, model: Any, find_principal_point: bool = False) -> None:
        """Adjust a model once more with a robust loss.

        Without it, matches that are only nearly right bend the poses.
        """
        import pycolmap

        options = pycolmap.BundleAdjustmentOptions()
        self._configure_adjustment(options)
        options.refine_principal_point = find_principal_point
        options.ceres.loss_function_type = pycolmap.LossFunctionType.CAUCHY
        options.ceres.loss_function_scale = _DOUBT
        options.ceres.solver_options.max_num_iterations = _POLISH_ITERATIONS
        everything = pycolmap.BundleAdjustmentConfig()
        for image in model.images.values():
            if image.has_pose:
                everything.add_image(image.image_id)
        everything.fix_gauge(pycolmap.BundleAdjustmentGauge.TWO_CAMS_FROM_WORLD)
        for _ in range(2):
            # pycolmap.bundle_adjustment does the same, but its log cannot be switched off
            pycolmap.create_default_bundle_adjuster(options, everything, model).solve()
            observations = pycolmap.ObservationManager(model)
            observations.filter_all_points3D(_WRONG, _MIN_RAY_ANGLE)

    def _configure_adjustment(self, options: Any) -> None:
        options.refine_focal_length = self.refine_camera
        options.refine_extra_params = self.refine_camera
        options.refine_principal_point = False
        options.print_summary = False
        options.ceres.use_gpu = False
        options.ceres.solver_options.num_threads = self.config.threads

    def _incremental_options(self) -> Any:
        import pycolmap

        options = pycolmap.IncrementalPipelineOptions()
        options.num_threads = self.config.threads
        options.random_seed = SEED
        options.extract_colors = False
        options.min_model_size = _MIN_MODEL_SIZE
        options.ba_local_function_tolerance = _CONVERGED
        options.ba_global_function_tolerance = _CONVERGED
        options.ba_refine_focal_length = self.refine_camera
        options.ba_refine_extra_params = self.refine_camera
        options.mapper.abs_pose_refine_focal_length = self.refine_camera
        options.mapper.abs_pose_refine_extra_params = self.refine_camera
        options.mapper.abs_pose_min_num_inliers = self.attempt.min_inliers
        options.mapper.abs_pose_min_inlier_ratio = self.attempt.min_inlier_ratio
        options.mapper.init_min_num_inliers = self.attempt.min_first_inliers
        # wrong matches would bend the focal length beyond any limit
        for part in (options, options.mapper, options.triangulation):
            part.min_focal_length_ratio = _MIN_FOCAL
            part.max_focal_length_ratio = _MAX_FOCAL
        return options

    def _global_options(self) -> Any:
        import pycolmap

        options = pycolmap.GlobalPipelineOptions()
        options.num_threads = self.config.threads
        options.mapper.num_threads = self.config.threads
        options.random_seed = SEED
        options.mapper.random_seed = SEED
        options.min_model_size = _MIN_MODEL_SIZE
        options.mapper.global_positioning.use_gpu = False
        self._configure_adjustment(options.mapper.bundle_adjustment)
        return options


def _count_agreed(mapped: MappedModel, others: Sequence[MappedModel | None]) -> int:
    """Images that at least one model of the other way rotates like a model does."""
    poses = registered_poses(mapped.model)
    return max(
        (
            len(consistent_frames(poses, registered_poses(other.model), _SAME_ROTATION))
            for other in others
            if other is not None
        ),
        default=0,
    )


def _without(model: Any, names: Collection[str]) -> Any:
    """A copy of a model in which some images have no pose."""
    import pycolmap

    pruned = pycolmap.Reconstruction(model)
    for image in list(pruned.images.values()):
        if image.has_pose and image.name in names:
            pruned.deregister_frame(image.frame_id)
    return pruned


def registered_poses(model: Any) -> dict[str, Tensor]:
    """cam_from_obj (4, 4) of every registered image of a model, by image name."""
    return {
        image.name: image_pose(image) for image in model.images.values() if image.has_pose
    }


def image_pose(image: Any) -> Tensor:
    """cam_from_obj (4, 4) of a registered image."""
    rigid = image.cam_from_world()
    rotation = torch.tensor(rigid.rotation.matrix(), dtype=torch.float64)
    translation = torch.tensor(rigid.translation, dtype=torch.float64)
    return from_parts(rotation, translation)


def has_common_target(model: Any) -> bool:
    """Whether the cameras look at a common place. A model of wrong matches does not."""
    views = [pose.numpy() for pose in registered_poses(model).values()]
    return len(views) >= _MIN_MODEL_SIZE and ViewCoverage(views).center is not None
