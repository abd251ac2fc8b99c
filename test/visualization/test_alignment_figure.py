"""The image of an alignment shows every mesh; equal parts have equal colors."""

from __future__ import annotations

import json
import os
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from small_category import ALIGN_WORDS
from uns_pose_ros.cli import main
from uns_pose_ros.core.types import Alignment, FeatureMesh
from uns_pose_ros.visualization.alignment_figure import (
    SurfaceFeatures,
    average_features,
    feature_colors,
    render_alignment,
)

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def skin(features: torch.Tensor) -> SurfaceFeatures:
    return SurfaceFeatures(
        torch.cat([torch.zeros(1, 3), torch.eye(3)]) - 0.2, TETRAHEDRON, features
    )


def alignment_of(kept: list[bool]) -> Alignment:
    ones = torch.ones(len(kept), dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(len(kept), 1, 1)
    return Alignment(
        tuple(f"clip_{k}" for k in range(len(kept))),
        poses,
        ones * 0.5,
        torch.tensor(kept),
        ones,
    )


def test_align_writes_the_image_of_every_mesh_and_prints_its_path(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["align", str(trucks), *ALIGN_WORDS]) == main.DONE
    assert f"image: {trucks / 'alignment.png'}" in capsys.readouterr().out
    image = cv2.imread(str(trucks / "alignment.png"))
    assert image is not None
    colorful = (image.max(2).astype(int) - image.min(2) > 40).mean(0) > 0
    assert len(colorful) == 420 and all(
        colorful[k : k + 140].sum() > 40 for k in (0, 140, 280)
    )  # three views
    filled = (image.max(2).astype(int) - image.min(2) > 40).sum(1) > 30
    assert (
        np.diff(filled.astype(int)) == 1
    ).sum() >= 3  # three trucks, one below the other


def test_the_image_is_drawn_again_only_for_another_alignment(
    trucks: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main.main(["align", str(trucks), *ALIGN_WORDS]) == main.DONE
    path = trucks / "alignment.png"
    before, written = path.read_bytes(), path.stat().st_mtime_ns
    capsys.readouterr()
    assert main.main(["align", str(trucks), *ALIGN_WORDS, "--json", "-"]) == main.DONE
    assert json.loads(capsys.readouterr().out)["picture"] == str(path)
    assert path.stat().st_mtime_ns == written
    assert main.main(["align", str(trucks), *ALIGN_WORDS, "--up", "y"]) == main.DONE
    assert path.read_bytes() != before
    os.utime(
        trucks / "alignment.json", ns=(2**62, 2**62)
    )  # as after a kill between the two
    written = path.stat().st_mtime_ns
    assert main.main(["align", str(trucks), *ALIGN_WORDS]) == main.DONE
    assert path.stat().st_mtime_ns != written


def test_equal_features_have_equal_colors_in_all_meshes_and_different_ones_differ() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 16, generator=generator)
    one, other = feature_colors([features, features.flip(0)])
    np.testing.assert_allclose(one, other[::-1])
    assert one.min() >= 0 and one.max() <= 255
    assert (one.std(0) > 30).all()


def test_a_vertex_has_the_mean_of_its_views_and_gray_where_none_sees_it() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]], dtype=torch.float16)
    vertex, view = torch.tensor([0, 0, 2]), torch.tensor([0, 1, 0])
    mesh = FeatureMesh(
        torch.eye(3),
        torch.tensor([[0, 1, 2]]),
        features,
        vertex,
        view,
        torch.eye(4).repeat(2, 1, 1),
    )
    skin = average_features(mesh)
    torch.testing.assert_close(
        skin.features, torch.tensor([[0.5, 0.5], [0.0, 0.0], [1.0, 0.0]])
    )


def test_unseen_vertices_are_gray() -> None:
    features = torch.randn(4, 8, generator=torch.Generator().manual_seed(1))
    features[2] = 0
    (colors,) = feature_colors([features])
    assert colors[2].tolist() == [200, 200, 200]
    (nothing,) = feature_colors([torch.zeros(4, 8)])
    assert (nothing == 200).all()


def test_what_was_left_out_has_a_red_frame() -> None:
    skins = [
        skin(torch.randn(4, 8, generator=torch.Generator().manual_seed(k)))
        for k in range(5)
    ]
    red = (200, 0, 0)
    drawn = render_alignment(alignment_of([True, True, True, True, False]), skins)
    assert (drawn == red).all(2).sum() > 500
    assert not (render_alignment(alignment_of([True] * 5), skins) == red).all(2).any()


def test_a_note_that_is_wider_than_the_image_is_continued_below() -> None:
    surfaces = [skin(torch.ones(4, 3))]
    short = render_alignment(alignment_of([True]), surfaces, "axes: z up")
    note = "axes: z up as the cameras were held (videos differ by 0\u00b0), x in the mirror plane; "
    long = render_alignment(
        alignment_of([True]), surfaces, note + "--up and --front name others"
    )
    added = len(long) - len(short)
    assert added > 0 and np.array_equal(long[22 + 22 + added :], short[22 + 22 :])
    assert (long[22 : 44 + added, -2:] == 255).all(), "no line reaches the edge"
