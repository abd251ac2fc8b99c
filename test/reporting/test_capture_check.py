"""`uns-pose doctor CATEGORY` names every fault of a video and its remedy."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from synthetic import write_category
from textured import camera_of, write_textured
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.camera_json import camera_record
from uns_pose_ros.io.colmap import read_sparse, write_sparse
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.reporting import capture_check
from uns_pose_ros.reporting.capture_check import (
    Checkup,
    DoctorConfig,
    check_category,
    check_video,
)


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A category of three good videos, for reading only."""
    folder = tmp_path_factory.mktemp("doctor") / "truck"
    write_category(folder, {"clip_01": 1, "clip_02": 2, "clip_03": 3}, views=12, size=112)
    return folder


@pytest.fixture
def clip(healthy: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(healthy / "clip_01", tmp_path / "clip_01"))


def images(clip: Path) -> list[Path]:
    return sorted((clip / "images").iterdir())


def change_masks(
    clip: Path, count: int, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    for path in sorted((clip / "masks").iterdir())[:count]:
        cv2.imwrite(str(path), change(read_mask(path).numpy()).astype(np.uint8) * 255)


def blur(clip: Path, count: int) -> None:
    for path in images(clip)[:count]:
        cv2.imwrite(str(path), cv2.blur(read_image(path).numpy()[..., ::-1], (13, 1)))


def keep_poses(clip: Path, names: slice) -> None:
    sparse = read_sparse(clip / "sparse")
    shutil.rmtree(clip / "sparse")
    write_sparse(clip / "sparse", sparse.cameras, sparse.images[names], sparse.points)


def shuffle_poses(clip: Path) -> None:
    sparse = read_sparse(clip / "sparse")
    others = np.random.default_rng(0).permutation(np.array(sparse.images, dtype=object))
    mixed = [
        type(a)(a.name, a.camera_id, b.cam_from_obj)
        for a, b in zip(sparse.images, others, strict=True)
    ]
    write_sparse(clip / "sparse", sparse.cameras, mixed, sparse.points)


def elsewhere(clip: Path, red: int) -> None:
    """Put the object before a wall of another color."""
    for path in images(clip):
        image = read_image(path).numpy()[..., ::-1].copy()
        image[~read_mask(clip / "masks" / f"{path.name}.png").numpy()] = (40, 90, red)
        cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 95])


def remove_images(clip: Path) -> None:
    for path in images(clip)[5:]:
        path.unlink()


def spoil(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


FAULTS: list[tuple[str, Callable[[Path], object], bool, str, str]] = [
    (
        "some images are blurred",
        lambda clip: blur(clip, 2),
        False,
        "2 of 12 images are blurred: 000000.jpg",
        "delete those",
    ),
    (
        "most images are blurred",
        lambda clip: blur(clip, 9),
        True,
        "9 of 12 images are blurred",
        "slower, in more light",
    ),
    (
        "few frames",
        remove_images,
        True,
        "5 usable frames of 5 images, 8 are needed",
        "--frames",
    ),
    (
        "a broken image",
        lambda clip: spoil(images(clip)[3]),
        False,
        "images/000003.jpg: the image is broken",
        "delete",
    ),
    (
        "images without pose",
        lambda clip: keep_poses(clip, slice(0, 9)),
        False,
        "9 of 12 images have a pose",
        "slower",
    ),
    (
        "hardly any pose",
        lambda clip: keep_poses(clip, slice(0, 4)),
        True,
        "4 of 12 images have a pose",
        "pattern",
    ),
    (
        "one side only",
        lambda clip: keep_poses(clip, slice(0, 4)),
        True,
        "degrees around the object are not seen",
        "walk all around",
    ),
    (
        "masks of another size",
        lambda clip: change_masks(clip, 12, lambda mask: mask[:60]),
        True,
        "12 of 12 frames cannot be used; the first: masks/000000.jpg.png: 112 x 60 px",
        "mend or delete",
    ),
    (
        "an empty mask",
        lambda clip: change_masks(clip, 1, lambda mask: 0 * mask),
        False,
        "the mask is empty",
        "mend or delete",
    ),
    (
        "a mask beside the object",
        lambda clip: change_masks(clip, 1, lambda mask: np.roll(mask, 40, 1)),
        False,
        "1 of 12 masks do not fit the others: 000000.jpg",
        "draw these masks anew",
    ),
    (
        "poses of other images",
        shuffle_poses,
        True,
        "on average",
        "look at masks/ and at the poses",
    ),
    (
        "objects cut off",
        lambda clip: change_masks(
            clip, 5, lambda mask: mask | (np.arange(112) > 90)[:, None]
        ),
        False,
        "the image's edge cuts 5 of 12 masks",
        "keep all of the object",
    ),
    (
        "no poses, and nothing to find them by",
        lambda clip: shutil.rmtree(clip / "sparse"),
        True,
        "poses cannot be found: an image has",
        "pattern",
    ),
    (
        "a damaged COLMAP model",
        lambda clip: (clip / "sparse" / "cameras.txt").write_text("?"),
        True,
        "cameras.txt",
        "mend or delete",
    ),
    (
        "a damaged record",
        lambda clip: (clip / "video.json").write_text("{"),
        True,
        "video.json",
        "mend or delete",
    ),
    (
        "a record that is no object",
        lambda clip: (clip / "video.json").write_text("[]"),
        True,
        "video.json: not a valid video record (Expected `object`, got `array`)",
        "mend or delete",
    ),
]


@pytest.mark.parametrize(
    ("fault", "mend", "what", "remedy"),
    [row[1:] for row in FAULTS],
    ids=[row[0] for row in FAULTS],
)
def test_a_fault_is_found(
    clip: Path, fault: Callable[[Path], object], mend: bool, what: str, remedy: str
) -> None:
    fault(clip)
    findings = check_video(clip).findings
    assert any(
        what in finding.what and remedy in finding.remedy and finding.mend == mend
        for finding in findings
    ) or not (what or findings)
    assert all(
        len(f"{finding.what} {finding.remedy}".splitlines()) == 1 for finding in findings
    )


def test_a_film_without_poses_has_only_the_finding_that_its_camera_is_not_calibrated(
    tmp_path: Path,
) -> None:
    write_textured(tmp_path / "clip", views=9)
    shutil.rmtree(tmp_path / "clip" / "truth")
    [unknown] = check_video(tmp_path / "clip").findings
    assert (
        not unknown.mend
        and "focal length is not calibrated but guessed, and will be found" in unknown.what
    )
    assert "--camera K.json" in unknown.remedy
    artifacts.write_json(
        tmp_path / "clip" / "video.json",
        {"metric": False, "camera": camera_record(camera_of(256))},
    )
    assert check_video(tmp_path / "clip").findings == ()


def test_doubt_of_computed_poses_is_a_finding(clip: Path) -> None:
    doubt = "two ways to compute them agree on 8 of 32 images"
    artifacts.write_json(clip / "video.json", {"poses": {"doubt": doubt}})
    assert not any("doubtful" in one.what for one in check_video(clip).findings), "given"
    artifacts.write_json(clip / "sparse" / "made.json", {})
    [finding] = [one for one in check_video(clip).findings if "doubtful" in one.what]
    assert finding.what == f"the camera poses are doubtful: {doubt}" and finding.mend


def test_cameras_placed_by_the_silhouette_are_a_finding_that_need_not_be_mended(
    clip: Path,
) -> None:
    artifacts.write_json(
        clip / "video.json", {"poses": {"placed": ["000001.jpg", "000002.jpg"]}}
    )
    artifacts.write_json(clip / "sparse" / "made.json", {})
    [finding] = [one for one in check_video(clip).findings if "pattern" in one.what]
    assert not finding.mend and "the poses of 2 images" in finding.what


@pytest.mark.parametrize(
    ("source", "said"), [("guessed", "guessed"), ("exif", "taken from EXIF"), ("given", "")]
)
def test_computed_poses_have_a_finding_if_the_focal_length_was_not_calibrated(
    clip: Path, source: str, said: str
) -> None:
    artifacts.write_json(
        clip / "video.json",
        {"metric": False, "poses": {"calibration": source, "focal_px": 181.4}},
    )
    assert not any(
        "focal length" in finding.what for finding in check_video(clip).findings
    ), "its poses were given"
    artifacts.write_json(clip / "sparse" / "made.json", {})
    reports = [
        f"{finding.what} ({finding.detail})"
        for finding in check_video(clip).findings
        if "focal length" in finding.what
    ]
    expected = [f"calibrated but {said}"] if said else []
    assert len(reports) == len(expected) and all(
        part in what for part, what in zip(expected, reports, strict=True)
    )
    assert all(
        "found with the poses; frames may be left out" in what and what.endswith("(181 px)")
        for what in reports
    )


def test_a_small_object_is_a_finding(tmp_path: Path) -> None:
    write_category(tmp_path / "truck", {"clip_01": 1}, views=12, size=64)
    assert any(
        "px large, 64 are needed" in finding.what
        for finding in check_video(tmp_path / "truck" / "clip_01").findings
    )


def test_the_command_ends_with_1_where_something_must_be_mended_and_0_where_not(
    healthy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    category = Path(shutil.copytree(healthy, tmp_path / "truck"))
    assert main.main(["doctor", str(category)]) == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == [
        "clip_01",
        "clip_02",
        "clip_03",
        "(all)",
    ]
    assert [line.split()[-1] for line in lines[1:5]] == ["ok", "ok", "ok", "look"]
    text = " ".join(" ".join(lines).split())
    assert "look (all) all 3 videos show the same surroundings; a model of them" in text
    assert f"`uns-pose run {category.name} --backgrounds DIR`" in text
    blur(category / "clip_02", 9)
    assert main.main(["doctor", str(category), "--json", "-"]) == main.FAULT
    record = json.loads(capsys.readouterr().out)
    assert record["mend"] == ["clip_02"]
    blurred = [video["blurred"] for video in record["videos"].values()]
    assert blurred == [0, 9, 0, None], "three videos and the category"
    assert record["videos"]["clip_01"]["pictures"] == 12
    assert main.main(["doctor", str(category), "--videos", "clip_0[13]"]) == main.DONE
    assert main.main(["doctor", str(tmp_path / "nowhere")]) == main.BAD_INPUT


def test_too_few_videos_and_a_video_that_was_left_out_are_findings_of_the_category(
    healthy: Path, tmp_path: Path
) -> None:
    category = tmp_path / "truck"
    for name in ("clip_01", "clip_02"):
        shutil.copytree(healthy / name, category / name)
    poses, kept = (
        torch.eye(4, dtype=torch.float64).expand(2, 4, 4),
        torch.tensor([True, False]),
    )
    numbers = torch.tensor([1.0, 0.1], dtype=torch.float64)
    artifacts.save_alignment(
        Alignment(("clip_01", "clip_02"), poses, numbers, kept, numbers),
        category / "alignment.json",
        {},
    )
    summary = check_category(category)[-1]
    assert summary.name == "(all)" and summary.mend
    what = {
        finding.what: finding.mend
        for finding in summary.findings
        if "surroundings" not in finding.what
    }
    assert what == {
        "clip_02 did not fit the others in alignment.json and is not trained on": False,
        "2 videos, 3 are needed": True,
    }


def test_videos_of_one_place_are_named_where_they_are_more_than_half(
    healthy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    category = Path(shutil.copytree(healthy, tmp_path / "truck"))
    fine = Checkup("", 12, 12, 0, 12, 360.0, 1.0, ())
    monkeypatch.setattr(capture_check, "check_video", lambda *_: fine)
    elsewhere(category / "clip_02", 200)
    [finding] = check_category(category)[-1].findings
    assert not finding.mend
    assert finding.what.startswith(
        "2 of 3 videos show the same surroundings: clip_01, clip_03; "
    )
    elsewhere(category / "clip_03", 90)
    assert len(check_category(category)) == 3, "three places"


def test_shares_outside_0_to_1_are_refused() -> None:
    with pytest.raises(InvalidInput, match="blurred 2: 0 to 1 is valid"):
        DoctorConfig(blurred=2)
