"""What is shared tells nothing of the person, the machine, or the place of the camera."""

from __future__ import annotations

import getpass
import json
import os
import socket
from pathlib import Path

import pytest
from PIL import Image

from source_files import checks
from synthetic import write_video
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.recording import FrameRecord, Recording
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.cli import main

SMALL = (
    "--train.size=112",
    "--train.views=1",
    "--train.steps=3",
    "--train.batch=2",
    "--train.network.width=16",
    "--train.network.blocks=1",
)


def save_photograph_of_a_place(path: Path, number: int) -> None:
    exif = Image.Exif()
    exif[0x010F] = exif[0x013B] = "PRIVATE"
    exif.get_ifd(0x8769).update({0xA405: 28, 0xA431: "PRIVATE", 0x927C: b"PRIVATE"})
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 8.0, 11.0), 29: "PRIVATE"})
    Image.fromarray(checks(number)).save(path, exif=exif, comment="PRIVATE")


def assert_names_nothing(folder: Path, words: set[str]) -> None:
    """No file below a folder holds one of the words."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    for path in files:
        data = path.read_bytes()
        for word in words:
            assert word.encode() not in data, f"{path.relative_to(folder)}: {word}"


def words_of_this_machine(*places: Path) -> set[str]:
    words = {str(Path.home()), socket.gethostname(), getpass.getuser(), os.getcwd()}
    words |= {str(place) for place in places} | {"PRIVATE"}
    # a user or a host may have a name that is a word of any page
    return {word for word in words if word not in ("root", "localhost") and len(word) > 3}


def write_results(category: Path, work: Path) -> Path:
    """A folder of all that the commands write of a trained category."""
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import KINDS, write_bag

    out, model = work / "out", str(category / "model")
    out.mkdir()
    topics = set(KINDS) - {"/cam/image_raw/compressed"}
    write_bag(work / "bag", StoragePlugin.MCAP, topics, views=3)
    eye = [[1, 0, 0], [0, 1, 0], [0, 0, 1]]
    names = [path.parent.name for path in category.glob("*/images")]
    labels = work / "labels.json"
    labels.write_text(json.dumps({name: {"canon_from_obj": eye} for name in names}))
    image = str(next(category.glob("*/images/*")))
    bag = ["--results", str(out / "bag"), "--bop", str(out / "bop.csv")]
    bag += ["--plot", str(out / "plot.svg"), "--json", str(out / "bag.json")]
    given = ["--labels", str(labels), "--json"]
    for words in (
        ["estimate", model, image, "--overlay", str(out / "drawn")],
        ["export", model, str(out / "net.onnx")],
        ["evaluate", "alignment", str(category), *given, str(out / "alignment.json")],
        ["evaluate", "pose", model, str(category), *given, str(out / "pose.json")]
        + ["--videos", names[0]],
        ["evaluate", "bag", model, str(work / "bag"), *bag],
        ["frames", model, "add", "tip", "--position", "0.1", "0", "0.1"],
        *(
            ["export", "labels", str(category), "--out", str(out / form), "--format", form]
            + ["--unknown-scale", "mark"]
            for form in ("coco", "nerfstudio")
        ),
    ):
        assert main.main(words) == 0, words
    assert len([*out.rglob("*")]) > 7
    return out


@pytest.mark.timeout(600)
def test_no_path_user_or_host_is_in_anything_that_the_pipeline_makes(
    trucks: Path, tmp_path: Path
) -> None:
    rooms = tmp_path / "rooms of a person"
    rooms.mkdir()
    for number in range(2):
        save_photograph_of_a_place(rooms / f"{number}.jpg", number)
    assert main.main(["train", str(trucks), "--backgrounds", str(rooms), *SMALL]) == 0
    assert main.main(["report", str(trucks), "--images", "1"]) == 0
    made = json.loads((trucks / "model" / "model.json").read_text())["provenance"]
    assert {name for name in made["inputs"] if name.startswith("backgrounds")} == {
        "backgrounds/0.jpg",
        "backgrounds/1.jpg",
    }
    assert (trucks / "report.html").is_file()
    words = words_of_this_machine(tmp_path, rooms) | {"rooms of a person"}
    assert_names_nothing(trucks, words)
    assert_names_nothing(write_results(trucks, tmp_path), words)


@pytest.mark.parametrize("kind", ["photographs", "colmap", "tiff"])
def test_an_import_keeps_neither_its_source_s_path_nor_where_images_were_taken(
    tmp_path: Path, kind: str
) -> None:
    source = tmp_path / "folders of a person" / "mug"
    if kind == "photographs":
        source.mkdir(parents=True)
        for number in range(4):
            save_photograph_of_a_place(source / f"{number}.jpg", number)
    else:
        write_video(source, seed=1, views=4, size=32)
        for path in (source / "images").iterdir():
            exif = Image.Exif()
            exif.get_ifd(0x8825).update({1: "N", 29: "PRIVATE"})
            form = "TIFF" if kind == "tiff" else "JPEG"
            Image.open(path).copy().save(path, form, exif=exif)
    into = tmp_path / "category" / "clip_01"
    for made in (True, False):  # the second has nothing to do
        assert import_video(source, into, ImportConfig(frames=4)) is made
    words = words_of_this_machine(tmp_path, source)
    assert_names_nothing(into, words | {"folders of a person"})
    assert json.loads((into / "video.json").read_text())["import"]["source"] == "mug"


def test_an_import_of_an_earlier_version_with_its_path_is_known_again(
    tmp_path: Path,
) -> None:
    write_video(tmp_path / "mug", seed=1, views=4, size=32)
    into = tmp_path / "category" / "clip_01"
    assert import_video(tmp_path / "mug", into)
    record = json.loads((into / "video.json").read_text())
    record["import"]["source"] = str(tmp_path / "mug")
    (into / "video.json").write_text(json.dumps(record))
    assert not import_video(tmp_path / "mug", into)


def test_a_recording_keeps_no_metadata_of_the_camera_s_images(tmp_path: Path) -> None:
    save_photograph_of_a_place(tmp_path / "a.jpg", 0)
    recording = Recording.open_or_recover(tmp_path / "clip", {"image": "/image"})
    for stamp in range(3):
        recording.add((tmp_path / "a.jpg").read_bytes(), ".jpg", FrameRecord(stamp))
    recording.close()
    assert_names_nothing(tmp_path / "clip", words_of_this_machine(tmp_path))
