"""Of models that contradict each other, the largest is not believed; cameras off the middle."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from uns_pose_ros.reconstruction.colmap_mapper import (
    ATTEMPTS,
    DISPUTED,
    ColmapMapper,
    MappedModel,
    SfmConfig,
    choose_model,
)


@dataclass
class Model:
    """The numbers of a pycolmap.Reconstruction."""

    images: int
    observations: int

    def num_reg_images(self) -> int:
        return self.images

    def compute_num_observations(self) -> int:
        return self.observations


def mapped(images: int, agreed: int | None, observations: int = 900) -> MappedModel:
    return MappedModel(Model(images, observations), 0.4, agreed)


def test_the_largest_model_is_taken_where_nothing_contradicts_it() -> None:
    plain = [mapped(30, None, 800), mapped(32, None, 700), mapped(32, None, 900)]
    assert choose_model(plain, 16) is plain[2] and plain[2].agreement == 1.0
    relaxed = [mapped(20, 20), mapped(32, 24), mapped(31, 31)]
    assert choose_model(relaxed, 16) is relaxed[1], "most of its images agree"


def test_a_smaller_model_on_which_two_ways_agree_more_replaces_a_disputed_one() -> None:
    # a mug on a plain cloth: the largest model was 21 degrees wrong, the first 1 degree
    models = [
        mapped(20, 10, 1230),
        mapped(32, 8, 1290),
        mapped(20, 10, 1220),
        mapped(26, 10, 1400),
    ]
    best = choose_model(models, 16)
    assert best is models[0] and best.agreement < DISPUTED
    assert choose_model(models, 22) is models[3], "20 images are too few"
    assert choose_model(models, 40) is models[1], "none is large enough"


def filmed(points: int, middle: tuple[float, float]) -> Any:
    """A model of ten cameras around points, with exact observations; px."""
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 1, 1, 10
    options.num_points3D, options.num_points2D_without_point3D = points, 0
    options.camera_width, options.camera_height = 640, 480
    options.camera_params = [700.0, *middle, 0.0]
    pycolmap.set_random_seed(0)
    return pycolmap.synthesize_dataset(options)


def mapper(refine_camera: bool) -> ColmapMapper:
    nothing = Path("unused")
    return ColmapMapper(
        database=nothing,
        images=nothing,
        work=nothing,
        attempt=ATTEMPTS[0],
        refine_camera=refine_camera,
        config=SfmConfig(threads=1),
    )


def middle_of(model: Any) -> list[float]:
    camera = next(iter(model.cameras.values()))
    return [camera.principal_point_x, camera.principal_point_y]


def test_a_principal_point_off_the_middle_is_found_with_many_points_all_around() -> None:
    model = filmed(1100, (326.0, 233.0))
    camera = next(iter(model.cameras.values()))
    camera.params = [700.0, 320.0, 240.0, 0.0]
    mapper(True)._polish(model)
    found = mapper(True).find_principal_point(model)
    assert found is not model and middle_of(model) == [320.0, 240.0]
    assert middle_of(found) == pytest.approx([326.0, 233.0], abs=0.5)
    assert mapper(False).find_principal_point(model) is model, "a known camera stays"


def test_few_points_or_a_point_far_from_the_middle_leave_the_camera_as_it_is() -> None:
    few = filmed(300, (326.0, 233.0))
    next(iter(few.cameras.values())).params = [700.0, 320.0, 240.0, 0.0]
    assert mapper(True).find_principal_point(few) is few
    far = filmed(1100, (360.0, 240.0))
    next(iter(far.cameras.values())).params = [700.0, 359.0, 240.0, 0.0]
    mapper(True)._polish(far)
    assert mapper(True).find_principal_point(far) is far
