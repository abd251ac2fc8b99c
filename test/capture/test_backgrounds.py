"""Images of a robot's places: which are chosen of a bag, a film and a folder."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("rosbags")

from rosbags.rosbag2 import StoragePlugin

from bag_writer import compressed, raw, write_bag
from source_files import write_film
from uns_pose_ros.capture import backgrounds
from uns_pose_ros.capture.backgrounds import (
    ALIKE,
    BLURRED,
    DARK,
    FURTHER,
    SEEN,
    BackgroundConfig,
    write_backgrounds,
)
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io.images import Pixels, read_image


def place(number: int) -> Pixels:
    """The texture (96, 128, 3) of a place, whose colors say its number."""
    rng = np.random.default_rng(number)
    coarse = rng.uniform(40, 220, (6, 8, 3))
    coarse[..., number % 3] *= 0.3
    fine = cv2.resize(coarse, (128, 96), interpolation=cv2.INTER_NEAREST)
    return np.clip(fine + rng.normal(0, 8, fine.shape), 0, 255).astype(np.uint8)


def walk(places: int = 3, stay: int = 10) -> list[Pixels]:
    """Images of places in which a camera stays for a while and trembles."""
    return [
        np.roll(place(number), k % 2, 1) for number in range(places) for k in range(stay)
    ]


def shown(folder: Path, places: int = 3) -> list[int]:
    """The place that each image of a folder shows, in order."""
    answers = []
    for path in sorted(folder.iterdir()):
        image = read_image(path).numpy().astype(float)
        errors = [np.abs(image - place(number)).mean() for number in range(places)]
        answers.append(int(np.argmin(errors)))
    return answers


def test_a_film_of_three_places_gives_one_image_of_each_and_counts_the_rest(
    tmp_path: Path,
) -> None:
    images = walk()
    images[4] = images[4] // 16
    images[14] = np.asarray(cv2.GaussianBlur(images[14], (0, 0), 5), np.uint8)
    film = write_film(tmp_path / "rooms.mp4", images)
    chosen = write_backgrounds(film, tmp_path / "rooms")
    assert shown(tmp_path / "rooms") == [0, 1, 2]
    assert chosen.names == sorted(path.name for path in (tmp_path / "rooms").iterdir())
    counts = chosen.left_out.counts
    assert counts[DARK] == 1 and counts[BLURRED] >= 1 and counts[ALIKE] >= 20
    assert sum(counts.values()) + len(chosen.names) == chosen.images == 30


def test_a_long_source_is_not_measured_whole_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backgrounds, "_MEASURED", 5)
    film = write_film(tmp_path / "rooms.mp4", walk())
    chosen = write_backgrounds(film, tmp_path / "rooms")
    assert chosen.images == 30 and chosen.measured < 10
    assert sum(chosen.left_out.counts.values()) + len(chosen.names) == chosen.measured
    assert shown(tmp_path / "rooms") == [0, 1, 2]


@pytest.mark.parametrize("topic", ["/cam/image_raw", "/cam/image_raw/compressed"])
def test_a_bag_gives_its_places_without_a_camera_info_and_says_what_is_broken(
    tmp_path: Path, topic: str
) -> None:
    write = raw if topic == "/cam/image_raw" else compressed
    messages = [(topic, k / 10, write(k / 10, image)) for k, image in enumerate(walk())]
    messages[7][2].data = messages[7][2].data[:20]
    write_bag(tmp_path / "bag", StoragePlugin.MCAP, {topic}, messages=messages)
    chosen = write_backgrounds(tmp_path / "bag", tmp_path / "rooms")
    assert shown(tmp_path / "rooms") == [0, 1, 2]
    assert sum(count for why, count in chosen.left_out.counts.items() if ": " in why) == 1


def test_images_in_which_the_object_is_seen_are_left_out_and_kept_apart(
    tmp_path: Path,
) -> None:
    film = write_film(tmp_path / "rooms.mp4", walk())
    red = place(1)

    def sees(image: Pixels) -> bool:
        return float(np.abs(image.astype(float) - red).mean()) < 30

    chosen = write_backgrounds(
        film, tmp_path / "rooms", judge=sees, doubtful=tmp_path / "seen"
    )
    assert shown(tmp_path / "rooms") == [0, 2]
    assert set(shown(tmp_path / "seen")) == {1}
    assert len(chosen.seen) == chosen.left_out.counts[SEEN]
    again = write_backgrounds(film, tmp_path / "others", judge=sees)
    assert again.names == chosen.names and not again.seen


def test_no_more_than_the_wanted_images_are_written_those_that_differ_most(
    tmp_path: Path,
) -> None:
    film = write_film(tmp_path / "rooms.mp4", walk(5))
    chosen = write_backgrounds(film, tmp_path / "rooms", BackgroundConfig(count=2))
    assert len(chosen.names) == 2 and len(set(shown(tmp_path / "rooms", 5))) == 2
    assert chosen.left_out.counts[FURTHER] >= 1


def test_a_folder_is_searched_with_its_subfolders_but_without_masks(tmp_path: Path) -> None:
    names = ["a.png", "shoe/images/b.png", "shoe/masks/left/b.png.png", ".trash/c.png"]
    for number, name in enumerate(names):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), place(number)[..., ::-1])
    write_backgrounds(tmp_path / "images", tmp_path / "rooms")
    assert shown(tmp_path / "rooms", 4) == [0, 1]


def test_what_cannot_be_used_is_said_in_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    film = write_film(tmp_path / "rooms.mp4", walk(1))
    night = write_film(tmp_path / "night.mp4", [image // 16 for image in walk(1)])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine.jpg").write_bytes(b"mine")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("text")
    for source, into, said in (
        (film, "full", "is there already"),
        (night, "rooms", f"no image can serve as a background: {DARK}: 10"),
        (tmp_path / "empty", "rooms", "it is empty"),
        (tmp_path / "text.txt", "rooms", "a bag, a film or a folder with images is valid"),
        (tmp_path / "none", "rooms", "not there"),
    ):
        with pytest.raises(InvalidInput, match=said):
            write_backgrounds(source, tmp_path / into)
    with pytest.raises(InvalidInput, match="another folder is valid"):
        write_backgrounds(film, tmp_path / "rooms", doubtful=tmp_path / "rooms" / "seen")
    left = {"rooms.mp4", "night.mp4", "full", "empty", "text.txt"}
    assert {path.name for path in tmp_path.iterdir()} == left
    assert [path.name for path in (tmp_path / "full").iterdir()] == ["mine.jpg"]
