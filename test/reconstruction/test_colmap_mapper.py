"""Of models that contradict each other, the largest is not believed."""

from __future__ import annotations

from dataclasses import dataclass

from uns_pose_ros.reconstruction.colmap_mapper import DISPUTED, MappedModel, choose_model


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
