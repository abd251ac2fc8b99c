"""The command line names the axes of an aligned category afterward, without aligning again."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from small_category import ALIGN_WORDS, RECONSTRUCT_WORDS
from small_model import one_triangle
from uns_pose_ros.alignment import category_alignment
from uns_pose_ros.alignment.canonical_axes import frame_of, propose_up
from uns_pose_ros.cli import main
from uns_pose_ros.cli.pipeline import run_command
from uns_pose_ros.core.geometry import split_similarity
from uns_pose_ros.core.types import Alignment, CategoryModel
from uns_pose_ros.io import artifacts
from uns_pose_ros.pipeline import frame_axes, training_stage
from uns_pose_ros.training import category_training

Align = Callable[..., dict[str, Any]]


@pytest.fixture
def align(
    trucks: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Align:
    """`uns-pose align` with the settings that `trucks` is aligned with: its JSON.

    The fixture fails the test if anything is computed again.
    """

    def refuse(*_: Any) -> None:
        raise AssertionError("was aligned again")

    def call(*words: str) -> dict[str, Any]:
        assert (
            main.main(["align", str(trucks), *ALIGN_WORDS, "--json", "-", *words])
            == main.DONE
        )
        result: dict[str, Any] = json.loads(capsys.readouterr().out)
        return result

    monkeypatch.setattr(category_alignment, "align_videos", refuse)
    return call


def poses(category: Path) -> Tensor:
    """canon_from_obj (N, 4, 4)."""
    return artifacts.load_alignment(category / frame_axes.ALIGNMENT).canon_from_obj


def test_what_was_up_becomes_z_and_what_was_front_becomes_x(
    trucks: Path, align: Align
) -> None:
    computed = poses(trucks)
    before = artifacts.provenance_of(trucks / frame_axes.ALIGNMENT)
    result = align("--up", "-y", "--front", "z")
    new_from_old = poses(trucks) @ torch.linalg.inv(computed)
    expected = torch.tensor(
        [[0.0, 0, 1, 0], [-1, 0, 0, 0], [0, -1, 0, 0], [0, 0, 0, 1]], dtype=torch.float64
    )
    torch.testing.assert_close(new_from_old, expected.expand_as(new_from_old))
    assert (result["made"], result["named"], result["axes"]) == (
        False,
        True,
        {"x": "z", "y": "-x", "z": "-y"},
    )
    after = artifacts.provenance_of(trucks / frame_axes.ALIGNMENT)
    assert before is not None and after is not None
    for provenance in (before, after):
        del provenance["axes"]
    assert after == before


def test_the_same_names_said_again_change_nothing_and_no_names_neither(
    trucks: Path, align: Align
) -> None:
    align("--up", "y", "--front", "-x")
    written = (trucks / frame_axes.ALIGNMENT).read_bytes()
    assert align("--up", "y", "--front", "-x")["named"] is False
    assert align()["axes"] == {"x": "-x", "y": "z", "z": "y"}
    assert (trucks / frame_axes.ALIGNMENT).read_bytes() == written


def test_names_are_of_the_frame_as_proposed_so_a_wrong_one_is_corrected_by_another(
    trucks: Path, align: Align
) -> None:
    computed = poses(trucks)
    align("--up", "x", "--front", "-z")
    assert align("--front", "y")["axes"] == {"x": "y", "y": "z", "z": "x"}  # up stays
    align("--up", "z", "--front", "x")
    torch.testing.assert_close(poses(trucks), computed)


@pytest.mark.parametrize(
    ("words", "axes"),
    [
        (("--up", "x"), {"x": "y", "y": "z", "z": "x"}),
        (("--up", "-z"), {"x": "x", "y": "-y", "z": "-z"}),
        (("--front", "-y"), {"x": "-y", "y": "x", "z": "z"}),
        (("--front", "z"), {"x": "z", "y": "-y", "z": "x"}),
    ],
)
def test_one_name_is_enough(
    align: Align, words: tuple[str, ...], axes: dict[str, str]
) -> None:
    assert align(*words)["axes"] == axes


def test_auto_is_up_as_the_cameras_were_held(trucks: Path, align: Align) -> None:
    computed = artifacts.load_alignment(trucks / frame_axes.ALIGNMENT)
    meshes = {name: artifacts.load_feature_mesh(trucks / name) for name in computed.videos}
    up = propose_up(meshes, computed)
    align("--up", "auto")
    named_from_computed = poses(trucks)[0] @ torch.linalg.inv(computed.canon_from_obj[0])
    torch.testing.assert_close(
        named_from_computed[:3, :3] @ up, torch.tensor([0.0, 0, 1], dtype=torch.float64)
    )
    labels = json.loads((trucks / "labels.json").read_text())
    for name, rotation in zip(
        computed.videos, split_similarity(poses(trucks))[0], strict=True
    ):
        true_up = (
            rotation
            @ torch.tensor(labels[name]["canon_from_obj"], dtype=torch.float64).T[:, 2]
        )
        assert float(true_up[2]) > 0.9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--up", "w"), "--up 'w': x, -x, y, -y, z, -z and auto are valid"),
        (("--front", "ahead"), "--front 'ahead': x, -x, y, -y, z, -z and auto are valid"),
        (
            ("--up", "z", "--front", "-z"),
            "--up z --front -z: they must be two directions across each other",
        ),
    ],
)
@pytest.mark.parametrize("command", ["align", "run"])
def test_names_that_make_no_frame_are_refused_before_any_work(
    trucks: Path,
    command: str,
    words: tuple[str, ...],
    said: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written = (trucks / frame_axes.ALIGNMENT).read_bytes()
    assert (
        main.main([command, str(trucks), *words]) == main.BAD_INPUT
    )  # with other settings, so aligning would be due
    assert capsys.readouterr().err == f"uns-pose {command}: {said}\n"
    assert (trucks / frame_axes.ALIGNMENT).read_bytes() == written


def test_a_model_that_does_not_record_its_poses_is_trained_again_for_new_axes(
    trucks: Path, align: Align, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train(category: str, *_: Any) -> CategoryModel:
        return one_triangle(category)

    monkeypatch.setattr(category_training, "train_model", train)
    assert training_stage.train(trucks)[1]
    assert not training_stage.train(trucks)[1]
    align("--up", "y", "--front", "x")
    assert training_stage.train(trucks)[1]
    align("--up", "y", "--front", "x")
    assert not training_stage.train(trucks)[1]


def test_run_names_the_axes_before_it_trains(
    trucks: Path, align: Align, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []

    def train(
        category: str, videos: Any, meshes: Any, alignment: Alignment, *_: Any
    ) -> CategoryModel:
        trained.append(alignment.canon_from_obj)
        return one_triangle(category)

    monkeypatch.setattr(category_training, "train_model", train)
    monkeypatch.setattr(
        run_command, "make_report", lambda *_: None
    )  # no network exists to report on
    computed = poses(trucks)
    words = [
        "run",
        str(trucks),
        *RECONSTRUCT_WORDS,
        *ALIGN_WORDS,
        "--up",
        "-y",
        "--front",
        "x",
    ]
    assert [main.main(words), main.main(words)] == [main.DONE, main.DONE]
    (used,) = trained  # the second time nothing is to be done
    torch.testing.assert_close(used[:, 2], -computed[:, 1])
    torch.testing.assert_close(used[:, 0], computed[:, 0])


def test_the_table_says_what_the_axes_were(
    trucks: Path, align: Align, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["align", str(trucks), *ALIGN_WORDS]) == main.DONE
    said = capsys.readouterr().out
    assert re.search(
        r"axes: z up as the cameras were held \(videos differ by \d+°\), x ", said
    )
    assert "--up and --front name others\n" in said
    assert (
        main.main(["align", str(trucks), *ALIGN_WORDS, "--up", "y", "--front", "-x"])
        == main.DONE
    )
    assert (
        "axes: z (up) was y, x (front) was -x of the frame as proposed"
        in capsys.readouterr().out
    )


def up_and_front_in_label_frame(category: Path) -> Tensor:
    """The canonical z and x (2, 3) in the frame of the labels, by the first video."""
    alignment = artifacts.load_alignment(category / frame_axes.ALIGNMENT)
    labels = json.loads((category / "labels.json").read_text())
    rotation = split_similarity(alignment.canon_from_obj[0])[0]
    label_from_obj = torch.tensor(labels[alignment.videos[0]]["canon_from_obj"]).double()
    return (label_from_obj @ rotation.T).T[[2, 0]]


def test_without_names_up_and_front_are_those_of_the_labels(trucks: Path) -> None:
    up, front = up_and_front_in_label_frame(trucks)
    assert float(up[2]) > math.cos(math.radians(5))
    assert float(front[0].abs()) > math.cos(math.radians(5))


def test_names_point_the_same_way_after_another_alignment(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["align", str(trucks), *ALIGN_WORDS]
    assert main.main([*words, "--up", "y", "--front", "-z"]) == main.DONE
    before = up_and_front_in_label_frame(trucks)
    assert main.main([*words, "--seed", "1"]) == main.DONE
    out, err = capsys.readouterr()
    assert "z (up) was y, x (front) was -z of the frame as proposed" in out and not err
    after = up_and_front_in_label_frame(trucks)
    assert float((before * after).sum(1).min()) > math.cos(math.radians(3))
    assert main.main([*words, "--seed", "1", "--up", "y", "--front", "-z"]) == main.DONE
    assert torch.equal(up_and_front_in_label_frame(trucks), after)


def test_names_are_gone_where_no_mesh_is_the_same_and_that_is_said(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["align", str(trucks), *ALIGN_WORDS, "--up", "y"]) == main.DONE
    path = trucks / frame_axes.ALIGNMENT
    record = json.loads(path.read_text())
    other = {name: "0" * 64 for name in record["provenance"]["inputs"]}
    record["provenance"]["inputs"] = other
    path.write_text(json.dumps(record))
    assert main.main(["align", str(trucks), *ALIGN_WORDS]) == main.DONE
    out, err = capsys.readouterr()
    assert "the names of its axes are gone" in err and "axes: z up as the cameras" in out


def test_an_alignment_of_an_earlier_version_keeps_its_axes(
    trucks: Path, align: Align
) -> None:
    path = trucks / frame_axes.ALIGNMENT
    record = json.loads(path.read_text())
    del record["provenance"]["axes"]
    path.write_text(json.dumps(record))
    before = poses(trucks)
    assert align()["axes"] is None
    assert torch.equal(poses(trucks), before)
    assert align("--up", "x")["axes"] == {"x": "y", "y": "z", "z": "x"}
    assert align("--up", "auto")["named"] is True


def test_a_frame_has_its_x_across_up_as_near_to_front_as_that_allows() -> None:
    frame = frame_of(torch.tensor([0.0, 2, 0]), torch.tensor([3.0, 1, 0]))
    torch.testing.assert_close(
        frame, torch.tensor([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]], dtype=torch.float64)
    )
