"""`uns-pose estimate` reads images with their cameras and gives the estimates of each."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from command_line import run
from source_files import checks, save_photograph
from uns_pose_ros.cli import main, model_commands
from uns_pose_ros.core.errors import InvalidInput


def test_estimate_gives_each_image_its_estimates_and_overlays(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    seen, black, camera = (
        model.parent / "clip_03/images/000000.jpg",
        tmp_path / "black.png",
        tmp_path / "K.json",
    )
    cv2.imwrite(str(black), torch.zeros(96, 96, 3, dtype=torch.uint8).numpy())
    camera.write_text(
        '{"K": [150, 0, 48, 0, 150, 48, 0, 0, 1], "D": [], "width": 96, "height": 96}'
    )
    words = [
        "estimate",
        model,
        seen,
        black,
        "--camera",
        camera,
        "--overlay",
        tmp_path / "drawn",
        "--json",
        "-",
    ]
    assert run(*words) == main.DONE
    result = json.loads(capsys.readouterr().out)
    (estimate,) = result["images"][0]["estimates"]
    assert estimate["cam_from_canon"][2] == [0, 0, 1, 3]
    assert (
        estimate["category"],
        estimate["score"],
        estimate["metric"],
        estimate["inliers"],
    ) == ("truck", 0.75, False, 12)
    assert result["images"][1]["image"] == str(black)
    assert result["images"][1]["estimates"] == []
    drawn = cv2.imread(str(tmp_path / "drawn" / "000000.png"))
    assert drawn is not None and (drawn != cv2.imread(str(seen))).any()


def test_estimate_and_view_see_every_orientation_as_the_upright_image(
    tmp_path: Path,
) -> None:
    upright = checks(9)
    camera = tmp_path / "K.json"
    camera.write_text('{"K": [50, 0, 32, 0, 50, 24, 0, 0, 1], "width": 64, "height": 48}')
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # how the camera stored it
    for orientation, method in back.items():
        path = tmp_path / f"{orientation}.jpg"
        stored = Image.fromarray(upright).transpose(Image.Transpose(method))
        save_photograph(path, np.asarray(stored), orientation, focal_35=26)
        [loaded] = model_commands.load_images([path], None)
        assert np.abs(loaded.image.numpy().astype(int) - upright).mean() < 10
        assert loaded.source == "exif" and loaded.camera.width == 64
        assert float(loaded.camera.matrix[0, 0]) == pytest.approx(26 * 80 / 43.267)
        [given] = model_commands.load_images([path], camera)
        assert given.source == "given" and float(given.camera.matrix[0, 0]) == 50
    camera.write_text('{"K": [50, 0, 24, 0, 50, 32, 0, 0, 1], "width": 48, "height": 64}')
    with pytest.raises(InvalidInput, match="64 x 48 px after it was turned upright by its"):
        list(model_commands.load_images([tmp_path / "6.jpg"], camera))


def test_estimate_takes_a_folder_in_natural_order_and_says_where_each_camera_is_from(
    model: Path, scripted: None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in (1, 2, 10):
        focal = None if number == 2 else 60000 if number == 10 else 26
        save_photograph(folder / f"frame{number}.JPG", checks(number), focal_35=focal)
    (folder / "notes.txt").write_text("no image")
    assert run("estimate", model, folder, "--json", tmp_path / "out.json") == main.DONE
    out, err = capsys.readouterr()
    result = json.loads((tmp_path / "out.json").read_text())
    names = [Path(record["image"]).name for record in result["images"]]
    assert names == ["frame1.JPG", "frame2.JPG", "frame10.JPG"]
    sources = [record["camera"] for record in result["images"]]
    assert sources == ["exif", "assumed", "assumed"]
    assert result["camera"] == "assumed and exif" and "assumed for 2 of 3 images" in out
    assert "left out: files that are no images: 1 (notes.txt)" in err
    assert "frame10.JPG" in err and "cannot be the focal length" in err


def test_estimate_says_that_it_assumed_a_camera(
    model: Path, scripted: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("estimate", model, model.parent / "clip_03/images/000000.jpg") == main.DONE
    out = capsys.readouterr().out
    assert "truck, score 0.75" in out and "60° was assumed" in out
