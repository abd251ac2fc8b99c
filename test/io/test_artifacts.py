import dataclasses
import json
import multiprocessing
import os
import socket
import subprocess
import sys
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import pytest
import torch

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Alignment, CategoryModel, FeatureMesh, Symmetry
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.ply import read_ply, write_ply

TETRAHEDRON = torch.tensor([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
PROVENANCE = {"version": "1", "seed": 3, "config": {"size": 280}}


def unit(features: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.normalize(features, dim=-1)


def a_mesh() -> FeatureMesh:
    generator = torch.Generator().manual_seed(1)
    features = unit(torch.randn(6, 8, generator=generator)).half()
    return FeatureMesh(
        vertices=torch.rand(4, 3, generator=generator),
        triangles=TETRAHEDRON,
        features=features,
        mirrored=features.flip(0),
        vertex_index=torch.tensor([0, 0, 1, 2, 3, 3]),
        view_index=torch.tensor([0, 1, 0, 1, 0, 1]),
        cameras_in_obj=torch.eye(4).expand(2, 4, 4),
    )


def a_model() -> CategoryModel:
    generator = torch.Generator().manual_seed(2)
    return CategoryModel(
        category="mug",
        vertices=torch.rand(4, 3, generator=generator),
        triangles=TETRAHEDRON,
        vertex_features=unit(torch.randn(4, 5, generator=generator)),
        background_features=unit(torch.randn(2, 5, generator=generator)),
        head={
            "conv.weight": torch.randn(3, 3, generator=generator),
            "conv.bias": torch.zeros(3),
        },
        symmetry=Symmetry(2, torch.tensor([0.0, 1.0, 0.0], dtype=torch.float64)),
        diameter=0.12,
        provenance=PROVENANCE,
    )


def an_alignment() -> Alignment:
    return Alignment(
        videos=("a", "b"),
        canon_from_obj=torch.tensor([0.1, 0.1, 0.1, 1.0], dtype=torch.float64)
        .diag()
        .expand(2, 4, 4),
        confidence=torch.tensor([0.9, 1 / 3], dtype=torch.float64),
        kept=torch.tensor([True, False]),
        residual=torch.tensor([2.0, 170.0], dtype=torch.float64),
        symmetry=Symmetry(0),
    )


def assert_equal(a: object, b: object) -> None:
    for field in dataclasses.fields(a):  # type: ignore[arg-type]
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, torch.Tensor):
            assert left.dtype == right.dtype and torch.equal(left, right), field.name
        elif isinstance(left, Symmetry):
            assert left.order == right.order and torch.equal(left.axis, right.axis)
        elif field.name == "head":
            assert left.keys() == right.keys() and all(
                torch.equal(left[k], right[k]) for k in left
            )
        else:
            assert left == right, field.name


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    artifacts.write_json(path, 1)
    with pytest.raises(ValueError):
        artifacts.write_json(path, float("nan"))
    assert artifacts.read_json(path) == 1 and files(tmp_path) == {"a.json"}


def test_a_written_file_is_complete_before_it_gets_its_name(tmp_path: Path) -> None:
    path = tmp_path / "new" / "a.txt"
    with artifacts.atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"


def test_broken_json_names_the_file_and_the_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1,\n "b": }')
    with pytest.raises(InvalidInput, match=r"a.json: not a valid JSON file .*line 2"):
        artifacts.read_json(path)


def test_a_missing_json_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"a.json: JSON file is not there"):
        artifacts.read_json(tmp_path / "a.json")


def test_the_hash_of_a_file_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert (
        artifacts.file_hash(tmp_path / "a")
        == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )


def test_a_fingerprint_depends_on_values_and_not_on_their_order() -> None:
    assert artifacts.fingerprint(a=1, b={"x": 1, "y": (2, 3)}) == artifacts.fingerprint(
        b={"y": [2, 3], "x": 1}, a=1
    )
    assert artifacts.fingerprint(a=1) != artifacts.fingerprint(a=2)
    assert artifacts.fingerprint(a=Symmetry.__name__) != artifacts.fingerprint(
        b=Symmetry.__name__
    )


def test_a_feature_mesh_comes_back_exactly_with_its_provenance(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    assert_equal(artifacts.load_feature_mesh(tmp_path), a_mesh())
    assert artifacts.provenance_of(tmp_path / "features.safetensors") == PROVENANCE
    assert files(tmp_path) == {"mesh.ply", "features.safetensors"}


def test_features_beside_the_mesh_of_another_run_are_refused(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    write_ply(tmp_path / "mesh.ply", a_mesh().vertices + 1, TETRAHEDRON)
    assert artifacts.provenance_of(tmp_path / "features.safetensors") is None
    with pytest.raises(InvalidInput, match="mesh.ply beside it is not the file"):
        artifacts.load_feature_mesh(tmp_path)


def test_missing_features_say_which_command_makes_them(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="uns-pose reconstruct"):
        artifacts.load_feature_mesh(tmp_path / "clip_01")


def test_cut_features_are_refused_in_one_line(tmp_path: Path) -> None:
    artifacts.save_feature_mesh(a_mesh(), tmp_path, PROVENANCE)
    path = tmp_path / "features.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(InvalidInput) as caught:
        artifacts.load_feature_mesh(tmp_path)
    assert "features.safetensors" in str(caught.value) and "\n" not in str(caught.value)


def test_an_alignment_comes_back_exactly(tmp_path: Path) -> None:
    path = tmp_path / "alignment.json"
    artifacts.save_alignment(an_alignment(), path, PROVENANCE)
    assert_equal(artifacts.load_alignment(path), an_alignment())
    assert artifacts.provenance_of(path) == PROVENANCE


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


def test_a_model_comes_back_exactly_also_by_its_category_folder(tmp_path: Path) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    assert_equal(artifacts.load_model(tmp_path / "model"), a_model())
    assert_equal(artifacts.load_model(tmp_path), a_model())
    assert files(tmp_path / "model") == {"model.json", "model.safetensors", "template.ply"}


def test_a_model_with_the_weights_of_another_is_refused(tmp_path: Path) -> None:
    artifacts.save_model(a_model(), tmp_path / "a")
    artifacts.save_model(
        dataclasses.replace(a_model(), vertex_features=-a_model().vertex_features),
        tmp_path / "b",
    )
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(InvalidInput, match="not the file that it was saved with"):
        artifacts.load_model(tmp_path / "a")


def test_a_folder_without_a_model_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no model there .*uns-pose train"):
        artifacts.load_model(tmp_path)


def test_a_file_without_provenance_has_none(tmp_path: Path) -> None:
    artifacts.write_json(tmp_path / "a.json", {})
    artifacts.write_json(tmp_path / "b.json", [1])
    (tmp_path / "c.safetensors").write_bytes(b"\xff" * 20)
    assert [
        artifacts.provenance_of(tmp_path / name)
        for name in ("a.json", "b.json", "c.safetensors", "d.json")
    ] == [None] * 4


def test_a_ply_file_is_laid_out_as_its_header_says(tmp_path: Path) -> None:
    write_ply(
        tmp_path / "a.ply",
        torch.tensor([[1.0, 2, 3], [0, 0, 0], [4, 5, 6]]),
        torch.tensor([[2, 1, 0]]),
    )
    header, body = (tmp_path / "a.ply").read_bytes().split(b"end_header\n")
    assert b"element vertex 3" in header and b"element face 1" in header
    assert (
        body[:12].hex() == "0000803f0000004000004040"
        and body[-13:].hex() == "03020000000100000000000000"
    )


@pytest.mark.parametrize("damage", ["cut", "text", "count", "corner"])
def test_a_damaged_ply_file_is_refused(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.ply"
    write_ply(path, a_mesh().vertices, TETRAHEDRON)
    data = path.read_bytes()
    changed = {
        "cut": data[:-1],
        "text": b"ply\nformat ascii 1.0\nend_header\n",
        "count": data.replace(b"vertex 4", b"vertex 999999999999"),
        "corner": data[:-4] + b"\x04\0\0\0",
    }
    path.write_bytes(changed[damage])
    with pytest.raises(InvalidInput, match="a.ply"):
        read_ply(path)


def test_what_a_killed_process_left_half_written_is_gone_with_the_next_write(
    tmp_path: Path,
) -> None:
    path, dead = tmp_path / "alignment.json", subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    host = socket.gethostname()
    left = tmp_path / f".alignment.json.{host}-{dead.pid}.tmp"
    alive = tmp_path / f".alignment.json.{host}-{os.getppid()}.tmp"
    elsewhere, other = (
        tmp_path / f".alignment.json.not{host}-{dead.pid}.tmp",
        tmp_path / f".model.json.{host}-{dead.pid}.tmp",
    )
    for stray in (left, alive, elsewhere, other):
        stray.write_text("half")
    artifacts.write_json(path, {})
    assert set(tmp_path.iterdir()) == {path, alive, elsewhere}


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


@pytest.mark.timeout(100)
@pytest.mark.parametrize("kind", ["fifo", "device", "outside", "missing"])
def test_a_companion_is_a_regular_file_of_the_folder(tmp_path: Path, kind: str) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    weights = tmp_path / "model" / "model.safetensors"
    weights.rename(tmp_path / "elsewhere")
    if kind == "fifo":
        os.mkfifo(weights)
    elif kind != "missing":
        weights.symlink_to("/dev/zero" if kind == "device" else tmp_path / "elsewhere")
    with pytest.raises(InvalidInput, match=r"model.safetensors|leaves the folder") as said:
        artifacts.load_model(tmp_path / "model")
    assert "\n" not in str(said.value)
    assert artifacts.provenance_of(tmp_path / "model" / "model.json") is None


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


def alternate(folder: Path, ended: Event) -> None:
    """Save one of two models and one of two meshes in turn."""
    turn = 0
    while not ended.is_set():
        turn += 1
        artifacts.save_model(a_model() if turn % 2 else changed_model(), folder / "model")
        artifacts.save_feature_mesh(
            a_mesh() if turn % 2 else changed_mesh(), folder / "clip", PROVENANCE
        )


def changed_model() -> CategoryModel:
    model = a_model()
    return dataclasses.replace(
        model,
        category="cup",
        vertices=model.vertices / 2,
        vertex_features=-model.vertex_features,
    )


def changed_mesh() -> FeatureMesh:
    mesh = a_mesh()
    return dataclasses.replace(mesh, vertices=mesh.vertices / 2, features=-mesh.features)


def test_a_reader_beside_a_writer_gets_the_whole_old_or_the_whole_new_artifact(
    tmp_path: Path,
) -> None:
    artifacts.save_model(a_model(), tmp_path / "model")
    artifacts.save_feature_mesh(a_mesh(), tmp_path / "clip", PROVENANCE)
    context = multiprocessing.get_context("fork")
    ended = context.Event()
    writer = context.Process(target=alternate, args=(tmp_path, ended), daemon=True)
    writer.start()
    read, refused = {"mug": 0, "cup": 0}, list[str]()
    begun = time.monotonic()

    def is_enough() -> bool:
        """Either may stand still for seconds; a reader that gets nothing would go on for long."""
        return time.monotonic() - begun > (2.0 if min(read.values()) > 0 else 100.0)

    try:
        while writer.is_alive() and not is_enough():
            try:
                model = artifacts.load_model(tmp_path)
                mesh = artifacts.load_feature_mesh(tmp_path / "clip")
            except InvalidInput as error:
                refused.append(str(error))
                continue
            assert_equal(model, {"mug": a_model, "cup": changed_model}[model.category]())
            read[model.category] += 1
            old = torch.equal(mesh.vertices, a_mesh().vertices)
            assert_equal(mesh, a_mesh() if old else changed_mesh())
    finally:
        ended.set()
        writer.join()
    assert writer.exitcode == 0 and not any("\n" in line for line in refused)
    assert min(read.values()) > 0 and len(refused) <= sum(read.values()), (read, refused)
