"""An alignment, a model or a feature mesh with values that make no sense is refused in one line."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from small_artifacts import PROVENANCE, a_mesh, a_model, an_alignment
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import TaughtObject
from uns_pose_ros.io import artifacts


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("canon_from_obj", [[1, 0], [0, 1]]),
        ("confidence", "high"),
        ("confidence", float("nan")),
        ("residual_deg", None),
    ],
)
def test_an_alignment_with_a_wrong_value_is_refused(
    tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "alignment.json"
    artifacts.save_alignment(an_alignment(), path, PROVENANCE)
    record = json.loads(path.read_text())
    record["videos"]["a"][key] = value
    path.write_text(json.dumps(record))
    with pytest.raises(InvalidInput, match="alignment.json: not a valid alignment"):
        artifacts.load_alignment(path)


def edit(path: Path, place: str, value: object) -> None:
    """Another value at a place such as `videos.a.kept` of a JSON file."""
    record = json.loads(path.read_text())
    inner = record
    *outer, last = place.split(".")
    for key in outer:
        inner = inner[key]
    inner[last] = value
    path.write_text(json.dumps(record))


def similarity(scale: float, *diagonal: float) -> list[list[float]]:
    numbers = [*(scale * d for d in diagonal or (1, 1, 1)), 1.0]
    return torch.tensor(numbers, dtype=torch.float64).diag().tolist()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("videos.a.canon_from_obj", [[0.0] * 4] * 4),
        ("videos.a.canon_from_obj", similarity(1e300)),
        ("videos.a.canon_from_obj", similarity(1e-12)),
        ("videos.a.canon_from_obj", similarity(1.0, 1, 1, -1)),
        ("videos.a.canon_from_obj", similarity(1.0, 1, 2, 1)),
        ("videos.a.canon_from_obj", [*similarity(1.0)[:3], [0, 0, 1, 1]]),
        ("videos.a.canon_from_obj", similarity(1.0)[:3]),
        ("videos.a.confidence", -5),
        ("videos.a.confidence", 1.5),
        ("videos.a.confidence", True),
        ("videos.a.kept", "no"),
        ("videos.a.kept", 0),
        ("videos.a.residual_deg", -1),
        ("videos.a.residual_deg", 1e9),
        ("videos", {}),
        ("videos", []),
        ("symmetry.order", -1),
        ("symmetry.order", 1.5),
        ("symmetry.order", True),
        ("symmetry.axis", [0, 0, 0]),
        ("symmetry.axis", [0, 0, 1e300]),
        ("provenance", "by hand"),
        ("provenance.seconds", -1),
        ("provenance.inputs", {"a": "no hash"}),
        ("provenance.axes", {"up": "z", "named_from_computed": [[1, 0, 0]] * 3}),
    ],
)
def test_an_alignment_that_is_nonsense_is_refused_by_one_line(
    tmp_path: Path, place: str, value: object
) -> None:
    path = tmp_path / "alignment.json"
    artifacts.save_alignment(an_alignment(), path, PROVENANCE)
    edit(path, place, value)
    with pytest.raises(InvalidInput, match=r"alignment.json: not a valid") as refused:
        artifacts.load_alignment(path)
    assert "\n" not in str(refused.value)
    assert ("alignment of a (" in str(refused.value)) == place.startswith("videos.a")


@pytest.mark.parametrize("name", ["../a", "/etc", "a/b", "..", "", "a\nb"])
def test_an_alignment_names_videos_of_its_own_folder_only(
    tmp_path: Path, name: str
) -> None:
    path = tmp_path / "alignment.json"
    artifacts.save_alignment(an_alignment(), path, PROVENANCE)
    record = json.loads(path.read_text())
    record["videos"][name] = record["videos"].pop("a")
    path.write_text(json.dumps(record))
    with pytest.raises(InvalidInput, match="the name of a folder"):
        artifacts.load_alignment(path)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("category", ""),
        ("category", 3),
        ("category", "a\nb"),
        ("diameter_m", 0),
        ("diameter_m", -1),
        ("diameter_m", "large"),
        ("diameter_m", True),
        ("provenance.network", "a string"),
        ("provenance.network", {"width": "wide"}),
        ("provenance.network", {"layers": 5}),
        ("provenance.network", {"temperature": 0}),
        ("provenance.crop_size", "224"),
        ("provenance.template_share", 0),
        ("provenance.template_share", 2),
        ("provenance.instances", {"a": [[0.0, 0.0, 0.0]]}),
        ("provenance.instances", {"../a": [[0.0, 0.0, 0.0], [1.0, 1.0, 1.0]]}),
        ("provenance.instances", {"a": [[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]]}),
        ("provenance.instances", {"a": [[0.0, 0.0, 0.0], [1e3, 1e3, 1e3]]}),
        ("provenance.training", {"step": [1]}),
        ("provenance.canon_from_obj", {"a": [[0] * 4] * 4}),
        ("provenance.canon_from_obj", {"../a": similarity(1.0)}),
        ("provenance", None),
        ("companions", {}),
        ("companions", {"template.ply": "0" * 64}),
        ("companions", {"/dev/zero": "0" * 64}),
        ("companions", {"template.ply": "x", "model.safetensors": "y"}),
    ],
)
def test_a_model_that_is_nonsense_is_refused_by_one_line(
    tmp_path: Path, place: str, value: object
) -> None:
    artifacts.save_model(a_model(), tmp_path)
    edit(tmp_path / "model.json", place, value)
    with pytest.raises(InvalidInput, match=r"model.json: not a valid") as refused:
        artifacts.load_model(tmp_path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("vertex_features", torch.zeros(4, 5)),
        ("background_features", torch.full((2, 5), 1e30)),
        ("vertices", torch.zeros(4, 3)),
        ("vertices", torch.full((4, 3), 1e30)),
        ("triangles", torch.zeros(0, 3, dtype=torch.int64)),
        ("head", {"conv.bias": torch.tensor([1e30])}),
        ("taught", (TaughtObject({}, torch.full((5,), 1e30), torch.zeros(1)),)),
        (
            "taught",
            (TaughtObject({"x": torch.tensor([1e30])}, torch.zeros(5), torch.zeros(1)),),
        ),
        ("taught", (TaughtObject({}, torch.zeros(5), torch.full((1,), 1e30)),)),
    ],
)
def test_a_model_of_nonsense_numbers_is_refused(
    tmp_path: Path, field: str, value: Any
) -> None:
    artifacts.save_model(dataclasses.replace(a_model(), **{field: value}), tmp_path)
    with pytest.raises(InvalidInput, match=r"model.json: not a valid model"):
        artifacts.load_model(tmp_path)


FAR_AWAY = torch.eye(4).repeat(2, 1, 1)
FAR_AWAY[:, 0, 3] = 1e30


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("features", torch.zeros(6, 8).half()),
        ("mirrored", torch.ones(6, 8).half()),
        ("vertex_index", torch.tensor([3, 0, 1, 2, 3, 3])),
        ("cameras_in_obj", torch.zeros(2, 4, 4)),
        ("cameras_in_obj", FAR_AWAY),
        ("cameras_in_obj", torch.eye(4).repeat(2, 1, 1) * -1),
        ("vertices", torch.full((4, 3), 1e30)),
        ("triangles", torch.zeros(0, 3, dtype=torch.int64)),
    ],
)
def test_a_feature_mesh_of_nonsense_numbers_is_refused(
    tmp_path: Path, field: str, value: Any
) -> None:
    artifacts.save_feature_mesh(
        dataclasses.replace(a_mesh(), **{field: value}), tmp_path, PROVENANCE
    )
    with pytest.raises(InvalidInput, match=r"features.safetensors: not a valid feature"):
        artifacts.load_feature_mesh(tmp_path)


def test_records_nested_two_hundred_thousand_deep_are_refused(tmp_path: Path) -> None:
    deep = "[" * 200_000 + "]" * 200_000
    artifacts.save_model(a_model(), tmp_path)
    path = tmp_path / "model.json"
    text = path.read_text()
    path.write_text(text.replace('"seed": 3', f'"seed": {deep}'))
    with pytest.raises(InvalidInput, match="deep"):
        artifacts.load_model(tmp_path)
    assert artifacts.provenance_of(path) is None
    path.write_text(text.replace('"seed": 3', f'"seed": {deep[199_900:200_100]}'))
    with pytest.raises(InvalidInput, match="more than 64 deep"):
        artifacts.load_model(tmp_path)
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    features = tmp_path / "features.safetensors"
    metadata = json.dumps(
        {"__metadata__": {"provenance": deep, "companions": "{}"}}
    ).encode()
    features.write_bytes(len(metadata).to_bytes(8, "little") + metadata)
    with pytest.raises(InvalidInput, match=r"features.safetensors"):
        artifacts.load_feature_mesh(tmp_path)
    assert artifacts.provenance_of(features) is None
