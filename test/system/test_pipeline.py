"""From rendered videos to a pose.

All stages through the command line, on an object whose poses are known.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from synthetic import Truth, write_category
from uns_pose_ros.cli import main
from uns_pose_ros.core.crops import mask_box
from uns_pose_ros.core.geometry import angle_between
from uns_pose_ros.evaluation.rotation_labels import fit_label_from_canon, load_labels
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.images import read_mask

pytestmark = pytest.mark.timeout(
    1800
)  # s; all but a few of them are spent in the fixture, on a machine that may be busy

VIDEOS = {f"clip_0{k}": k for k in range(1, 6)}
TRAINED, UNSEEN = "clip_0[1-4]", "clip_05"
# small settings: boxes on wheels need no more; two idle cores are done in two minutes
SMALL = (
    "--reconstruct.size=112",
    "--reconstruct.hull.resolution=48",
    "--reconstruct.hull.vertices=300",
    "--align.pair.hypotheses=500",
    "--train.size=168",
    "--train.views=6",
    "--train.steps=500",
    "--train.learning-rate=4e-3",
    "--train.scenes=8",
    "--train.network.width=96",
    "--train.spread=0.04",
)


def run(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints."""
    assert main.main([*(str(word) for word in words), "--json", "-"]) == main.DONE
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Truth]]:
    """Videos of five trucks; a model of four of them."""
    folder = tmp_path_factory.mktemp("pipeline") / "truck"
    truths = write_category(folder, VIDEOS, views=18, size=176)
    assert main.main(["run", str(folder), "--videos", TRAINED, *SMALL]) == main.DONE
    return folder, truths


@pytest.fixture
def category(rendered: tuple[Path, dict[str, Truth]]) -> Path:
    return rendered[0]


def test_a_truck_never_seen_is_posed_within_six_degrees(
    category: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The median was 4.9 before there was a coarse rotation, and 5.2 to 5.3 since."""
    result = run(
        capsys,
        "evaluate",
        "pose",
        category / "model",
        category,
        "--labels",
        category / "labels.json",
    )
    assert (result["images"], result["estimated"]) == (18, 18)
    assert result["median_deg"] <= 6
    assert result["acc10"] > 85
    assert result["acc15"] == 100


def test_the_trucks_are_aligned_within_five_degrees(
    category: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = run(
        capsys, "evaluate", "alignment", category, "--labels", category / "labels.json"
    )
    assert (result["videos"], result["pairs"], result["acc10"]) == (4, 6, 100)
    assert result["median_deg"] <= 5


def test_estimate_finds_the_truck_where_it_is(
    rendered: tuple[Path, dict[str, Truth]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    category, truths = rendered
    truth, name = truths[UNSEEN], "000007.jpg"
    image, camera = category / UNSEEN / "images" / name, tmp_path / "K.json"
    size = {"width": truth.camera.width, "height": truth.camera.height}
    camera.write_text(json.dumps({"K": truth.camera.matrix.tolist(), "D": [], **size}))
    result = run(capsys, "estimate", category / "model", image, "--camera", camera)
    (estimate,) = result["images"][0]["estimates"]
    box = mask_box(read_mask(category / UNSEEN / "masks" / f"{name}.png"))
    assert (torch.tensor(estimate["box_px"]) - box).abs().max() < 0.15 * (
        box[2:] - box[:2]
    ).max()
    assert (estimate["metric"], estimate["scale"]) == (False, 1.0)

    model = artifacts.load_model(category)
    label_from_canon = fit_label_from_canon(
        model, load_labels(category / "labels.json", list(VIDEOS))
    )
    rotation = torch.from_numpy(truth.canon_from_obj[:3, :3])
    label_from_obj = rotation / torch.linalg.det(rotation) ** (1 / 3)
    cam_from_label = torch.from_numpy(truth.cam_from_obj[name])[:3, :3] @ label_from_obj.T
    cam_from_canon = torch.tensor(estimate["cam_from_canon"], dtype=torch.float64)[:3, :3]
    assert angle_between(cam_from_canon, cam_from_label @ label_from_canon) < 10


def test_a_second_run_has_nothing_to_do(
    category: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {
        path: path.stat().st_mtime_ns for path in category.rglob("*") if path.is_file()
    }
    result = run(capsys, "run", category, "--videos", TRAINED, *SMALL)
    made: Sequence[bool] = [
        video["made"] for video in result["reconstruct"]["videos"].values()
    ]
    assert not any([*made, result["align"]["made"], result["train"]["made"]])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (
        result["report"] == str(category / "report.html")
        and category / "report.html" in before
    )


def test_the_report_shows_what_the_model_does_in_the_video_it_has_not_seen(
    category: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "report.html"
    result = run(capsys, "report", category, "--out", page, "--images", 3)
    assert result["accuracies"]["estimates in unseen videos"]["images"] == 3
    text = page.read_text()
    assert text.count(f"{UNSEEN}/0") == 2 * 3  # a caption and an alternative text each
    assert "training: losses" in text
