"""What an export has, what it leaves out and counts, and that it appears whole or not at all."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from label_checks import export, quiet
from label_readers import (
    iterate_objects,
    read_labels,
    source_of,
)
from labeled_category import (
    TrueVideo,
    save_true_alignment,
    write_labeled_category,
)
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Symmetry
from uns_pose_ros.exports.bag_labels import BagSelection
from uns_pose_ros.exports.label_export import ExportConfig, export_labels
from uns_pose_ros.exports.splits import SplitConfig
from uns_pose_ros.exports.video_labels import VideoSelection


def test_objects_of_unknown_scale_can_be_left_out_and_are_counted(tmp_path: Path) -> None:
    write_labeled_category(tmp_path / "truck")
    (tmp_path / "truck" / "clip_02" / "video.json").write_text('{"metric": false}')
    out = export(tmp_path / "truck", "bop", unknown_scale="leave-out")
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {"objects of unknown scale": 1}
    assert [entry["name"] for entry in record["objects"]] == ["clip_01", "clip_03"]
    assert {row[2] for row in source_of(out).values()} == {"clip_01", "clip_03"}
    assert sorted({o.object_id for _, o in iterate_objects(read_labels(out))}) == [1, 2]


def test_videos_that_are_no_labels_are_left_out_and_counted(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    truths = write_labeled_category(folder)
    save_true_alignment(folder, truths, Symmetry(), kept=2)
    (folder / "exclude.txt").write_text("# blurred\nclip_01/00000[01].jpg\n")
    (folder / "clip_02" / "images" / "000001.jpg").write_bytes(b"no image")
    (folder / "clip_02" / "images" / "extra.jpg").write_bytes(
        (folder / "clip_02" / "images" / "000000.jpg").read_bytes()
    )
    out = export(folder, "coco")
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {
        "videos that agree with too few others (kept: false in alignment.json)": 1,
        "frames struck out in exclude.txt": 2,
        "frames that cannot be used": 1,
        "frames without a camera pose": 1,
    }
    assert (record["images"], record["labels"]) == (5, 5)
    assert len(read_labels(out)) == 5
    (folder / "exclude.txt").write_text("clip_0?\n")
    with pytest.raises(InvalidInput, match=r"no labels are left .* struck out .*: 3"):
        export(folder, "coco")
    assert len(read_labels(out)) == 5, "the export of before stays"


def test_at_most_so_many_views_of_a_video_are_exported(
    category: tuple[Path, dict[str, TrueVideo]],
) -> None:
    out = export(category[0], "nerfstudio", videos=VideoSelection("clip_01", views=2))
    assert [row[3] for row in source_of(out).values()] == ["000000.jpg", "000003.jpg"]
    record = json.loads((out / "export.json").read_text())
    assert record["left_out"] == {"frames beyond --views": 2}
    assert "no video is left for validation" in record["remarks"][-1]


def test_only_an_export_of_before_is_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    write_labeled_category(folder, {"clip_01": 1}, views=3)
    out = export(folder, "coco")
    (out / "old.txt").touch()
    export(folder, "coco")
    assert not (out / "old.txt").exists()
    other = tmp_path / "mine"
    other.mkdir()
    (other / "thesis.txt").write_text("all of it")
    config = ExportConfig("coco")
    for place, line in (
        (other, "something else is there already"),
        (folder, "the category is in there"),
        (tmp_path, "the category is in there"),
    ):
        with pytest.raises(InvalidInput, match=line):
            export_labels([folder], place, config, quiet)
    assert (other / "thesis.txt").read_text() == "all of it"


def test_a_killed_export_leaves_nothing_half_made(tmp_path: Path) -> None:
    folder = tmp_path / "truck"
    write_labeled_category(folder, {"clip_01": 1}, views=6)
    out = export(folder, "bop")
    before = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from uns_pose_ros.exports.label_export import ExportConfig, export_labels\n"
        "def die(what, done, total):\n"
        "    if done == 4: os.kill(os.getpid(), signal.SIGKILL)\n"
        "category, *places = map(Path, sys.argv[1:])\n"
        "for place in places:\n"
        "    child = os.fork()\n"
        "    if not child: export_labels([category], place, ExportConfig('bop'), die)\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL\n"
    )
    words = [str(folder), str(out), str(tmp_path / "new")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, "-c", code, *words], check=True, env=environment)
    assert not (tmp_path / "new").exists()
    after = {p.relative_to(out): p.read_bytes() for p in out.rglob("*") if p.is_file()}
    assert after == before
    export(folder, "bop")
    left = [name for name in os.listdir(tmp_path) if not name.endswith(".lock")]
    assert sorted(left) == ["truck", "truck-bop"]


def test_an_error_of_a_setting_names_what_is_valid() -> None:
    for make, line in (
        (lambda: ExportConfig("voc"), "--format voc: one of bop, coco"),
        (
            lambda: ExportConfig("bop", keypoints="all"),
            "--keypoints all: one of box, frame",
        ),
        (
            lambda: ExportConfig("bop", unknown_scale="x"),
            "--unknown-scale x: one of refuse",
        ),
        (lambda: VideoSelection(views=-1), "--views -1: 0"),
        (lambda: SplitConfig(val_share=1.0), "--val-share 1: 0 to below 1"),
        (lambda: BagSelection(min_score=2.0), "--min-score 2: 0 to 1"),
        (lambda: BagSelection(bag=Path("x.mcap")), "--bag and --results belong together"),
    ):
        with pytest.raises(InvalidInput) as error:
            make()
        assert line in str(error.value)


def test_the_command_prints_what_it_wrote_and_what_is_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_labeled_category(tmp_path / "truck", {"clip_01": 1, "clip_02": 2})
    (tmp_path / "truck" / "exclude.txt").write_text("clip_02/000001.jpg")
    words = [
        "export",
        "labels",
        str(tmp_path / "truck"),
        "--format",
        "bop",
        "--val-share=0",
    ]
    assert main.main([*words, "--test", "clip_01"]) == main.DONE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith(
        "truck-bop: 7 images, 7 labels of 2 objects, 2 videos (1 train, 0 val, 1 test)"
    )
    assert "frames struck out in exclude.txt: 1 (clip_02/000001.jpg)" in lines[1]
    assert (tmp_path / "truck-bop" / "test" / "000001" / "scene_gt.json").exists()
    twice = [*words[:2], *2 * [str(tmp_path / "truck")], *words[3:]]
    assert main.main(twice) == main.BAD_INPUT
    assert "name its folder by --out" in capsys.readouterr().err
