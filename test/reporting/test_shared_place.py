"""Whether videos were filmed in one place is read off the colors beside the object."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from uns_pose_ros.io.images import Pixels, read_mask
from uns_pose_ros.reporting.shared_place import (
    Surroundings,
    group_places,
    measure_surroundings,
    place_distance,
)

_HEIGHT, _WIDTH = 96, 128  # px
_RED, _GREEN, _WHITE = (200, 40, 40), (40, 180, 60), (240, 240, 240)
Color = tuple[int, int, int]


def room(seed: int) -> Pixels:
    """A wide view (H, 4 W, 3) of a floor and things before a wall, in colors of the seed's own."""
    rng = np.random.default_rng(seed)
    view = np.zeros((_HEIGHT, 4 * _WIDTH, 3), np.uint8)
    view[: _HEIGHT // 3], view[_HEIGHT // 3 :] = rng.integers(30, 226, (2, 3))
    for _ in range(24):
        left, top = rng.integers(0, (4 * _WIDTH - 30, _HEIGHT - 30))
        view[top : top + 30, left : left + 30] = rng.integers(0, 256, 3)
    return view


def film(
    folder: Path,
    place: Pixels | Color,
    item: Color,
    masked: bool = True,
    light: float = 1.0,
    start: int = 0,
    count: int = 8,
) -> Path:
    """A video of a disc before the views of a place, seen in passing from column `start` on."""
    rng = np.random.default_rng(start)
    (folder / "images").mkdir(parents=True)
    if masked:
        (folder / "masks").mkdir()
    for k in range(count):
        if isinstance(place, tuple):
            image = np.full((_HEIGHT, _WIDTH, 3), place, float)
        else:
            image = np.roll(place, -start - 4 * _WIDTH * k // count, 1)[:, :_WIDTH].astype(
                float
            )
        mask = np.zeros((_HEIGHT, _WIDTH), np.uint8)
        cv2.circle(mask, (_WIDTH // 2, _HEIGHT // 2 + k % 3), 30, 255, -1)
        image[mask > 0] = item
        image = np.clip(image * light + rng.normal(0, 3, image.shape), 0, 255)
        name = f"{k:03d}.jpg"
        cv2.imwrite(str(folder / "images" / name), image[..., ::-1].astype(np.uint8))
        if masked:
            cv2.imwrite(str(folder / "masks" / f"{name}.png"), mask)
    return folder


def measured(folders: Sequence[Path]) -> dict[str, Surroundings]:
    surroundings = {folder.name: measure_surroundings(folder) for folder in folders}
    return {name: one for name, one in surroundings.items() if one is not None}


def distance(one: Path, other: Path) -> float:
    a, b = measured([one, other]).values()
    return place_distance(a, b)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("seed", [0, 1])
def test_different_objects_in_one_room_share_the_place_and_another_room_is_another(
    tmp_path: Path, masked: bool, seed: int
) -> None:
    first = film(tmp_path / "a", room(seed), _RED, masked)
    same = film(tmp_path / "b", room(seed), _WHITE, masked, light=1.08, start=100)
    other = film(tmp_path / "c", room(seed + 10), _RED, masked)
    assert distance(first, same) < 1 < distance(first, other)
    assert distance(other, first) == pytest.approx(distance(first, other))


@pytest.mark.parametrize("color", [(128, 128, 128), (30, 60, 160), (0, 0, 0)])
def test_a_plain_background_is_one_place_and_one_of_another_color_is_not(
    tmp_path: Path, color: Color
) -> None:
    first = film(tmp_path / "a", color, _RED)
    same = film(tmp_path / "b", color, _GREEN, light=0.95, start=1)
    other = film(tmp_path / "c", (200, 150, 90), _RED)
    assert distance(first, same) < 1 < distance(first, other)


def test_only_what_lies_outside_the_masks_counts(tmp_path: Path) -> None:
    first = film(tmp_path / "a", _WHITE, _RED)
    same = film(tmp_path / "b", _WHITE, _GREEN)
    assert distance(first, same) < 0.5
    for path in [*(first / "masks").iterdir(), *(same / "masks").iterdir()]:
        cv2.imwrite(str(path), np.uint8(255) * ~read_mask(path).numpy())
    assert distance(first, same) > 1


def test_places_are_grouped_the_largest_first_and_by_way_of_others(tmp_path: Path) -> None:
    light = (0.85, 0.9, 0.95, 1.0)  # the others join the darkest and the brightest
    dim = [
        film(tmp_path / f"dim_{k}", (150, 120, 90), _RED, True, x)
        for k, x in enumerate(light)
    ]
    rooms = [film(tmp_path / f"room_{k}", room(k), _RED) for k in (3, 4)]
    surroundings = measured([rooms[0], dim[3], dim[0], rooms[1], dim[1], dim[2]])
    assert place_distance(surroundings["dim_0"], surroundings["dim_3"]) > 1
    assert group_places(surroundings) == [
        ["dim_3", "dim_0", "dim_1", "dim_2"],
        ["room_3"],
        ["room_4"],
    ]
    assert group_places({}) == []


def test_a_video_that_shows_too_little_beside_its_object_has_no_place(
    tmp_path: Path,
) -> None:
    full = film(tmp_path / "full", _WHITE, _RED)
    for path in (full / "masks").iterdir():
        cv2.imwrite(str(path), np.full((_HEIGHT, _WIDTH), 255, np.uint8))
    assert measure_surroundings(full) is None
    broken = film(tmp_path / "broken", _WHITE, _RED, count=2)
    assert measure_surroundings(broken) is not None
    (broken / "images" / "000.jpg").write_bytes(b"no image")
    assert measure_surroundings(broken) is None
    assert measure_surroundings(tmp_path / "nowhere") is None
