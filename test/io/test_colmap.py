import struct
from pathlib import Path

import pytest
import torch

from colmap_files import write_binary
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.geometry import from_parts, random_rotations
from uns_pose_ros.core.types import Camera
from uns_pose_ros.io.colmap import SparseImage, has_sparse, read_sparse, write_sparse


def write_text(
    folder: Path,
    cameras: str = "1 PINHOLE 640 480 500 510 320 240",
    images: str | None = None,
) -> Path:
    folder.mkdir(exist_ok=True, parents=True)
    (folder / "cameras.txt").write_text(
        f"# Camera list\n#   CAMERA_ID, MODEL, WIDTH, HEIGHT, PARAMS[]\n{cameras}\n"
    )
    (folder / "images.txt").write_text(
        images if images is not None else "# Images\n1 1 0 0 0 1 2 3 1 a.jpg\n10 20 -1\n"
    )
    return folder


@pytest.mark.parametrize(
    ("line", "focal", "distortion"),
    [
        ("SIMPLE_PINHOLE 640 480 500 320 240", (500, 500), []),
        ("PINHOLE 640 480 500 510 320 240", (500, 510), []),
        ("SIMPLE_RADIAL 640 480 500 320 240 0.1", (500, 500), [0.1, 0, 0, 0]),
        ("RADIAL 640 480 500 320 240 0.1 0.2", (500, 500), [0.1, 0.2, 0, 0]),
        (
            "OPENCV 640 480 500 510 320 240 0.1 0.2 0.3 0.4",
            (500, 510),
            [0.1, 0.2, 0.3, 0.4],
        ),
        (
            "FULL_OPENCV 640 480 500 510 320 240 1 2 3 4 5 6 7 8",
            (500, 510),
            [1, 2, 3, 4, 5, 6, 7, 8],
        ),
    ],
)
def test_every_camera_model_becomes_opencvs(
    tmp_path: Path, line: str, focal: tuple[int, int], distortion: list[float]
) -> None:
    camera = read_sparse(write_text(tmp_path, f"1 {line}")).cameras[1]
    assert camera.matrix.tolist() == [[focal[0], 0, 319.5], [0, focal[1], 239.5], [0, 0, 1]]
    assert camera.distortion.tolist() == distortion
    assert (camera.width, camera.height) == (640, 480)


def test_the_middle_of_the_image_is_the_middle_in_our_pixel_convention(
    tmp_path: Path,
) -> None:
    camera = read_sparse(write_text(tmp_path, "1 SIMPLE_PINHOLE 2 2 5 1 1")).cameras[1]
    assert camera.matrix[:2, 2].tolist() == [
        0.5,
        0.5,
    ]  # between the centres of pixels 0 and 1


def test_text_reads_images_with_and_without_points_and_names_with_spaces(
    tmp_path: Path,
) -> None:
    images = (
        "# c\n\n1 1 0 0 0 1 2 3 1 b c.jpg\n10 20 -1 30 40 5\n2 0 0 0 2 0 0 0 1 a.jpg\n\n3 "
        "1 0 0 0 0 0 9 1 d.jpg"
    )
    sparse = read_sparse(write_text(tmp_path, images=images))
    assert [image.name for image in sparse.images] == ["a.jpg", "b c.jpg", "d.jpg"]
    assert sparse.images[0].cam_from_obj[:3, :3].diagonal().tolist() == [
        -1,
        -1,
        1,
    ]  # half a turn about z
    assert sparse.images[1].cam_from_obj[:3, 3].tolist() == [1, 2, 3]
    assert sparse.points.shape == (0, 3)


def test_binary_reads_what_colmap_describes(tmp_path: Path) -> None:
    sparse = read_sparse(write_binary(tmp_path / "sparse"))
    assert sparse.cameras[1].matrix.tolist() == [
        [500, 0, 319.5],
        [0, 510, 239.5],
        [0, 0, 1],
    ]
    assert sparse.cameras[7].distortion.tolist() == [0.1, -0.2, 0.003, 0.004]
    assert [(image.name, image.camera_id) for image in sparse.images] == [
        ("a.jpg", 1),
        ("b c.jpg", 7),
    ]
    assert sparse.images[1].cam_from_obj.tolist() == [
        [-1, 0, 0, 1],
        [0, 1, 0, 2],
        [0, 0, -1, 3],
        [0, 0, 0, 1],
    ]
    assert sparse.points.tolist() == [[0.5, 1, 2], [-1, -2, -3]]


def test_a_model_in_subfolder_0_is_found(tmp_path: Path) -> None:
    write_text(tmp_path / "sparse" / "0")
    assert len(read_sparse(tmp_path / "sparse").images) == 1


def write_models(folder: Path, sizes: dict[str, int]) -> Path:
    """Text models by subfolder with so many images each; image k stands at x = k."""
    for name, count in sizes.items():
        lines = [f"{k} 1 0 0 0 {k} 2 3 1 {k:02d}.jpg\n\n" for k in range(1, count + 1)]
        write_text(folder / name, images="".join(lines))
    return folder


@pytest.mark.parametrize(
    ("sizes", "largest"),
    [
        ({"0": 3, "1": 21}, "1"),
        ({"1": 4}, "1"),
        ({"0": 5, "1": 2, "10": 7, "2": 6}, "10"),
        ({".": 6, "0": 3}, ""),
        ({"0": 4, "1": 4}, "0"),
    ],
)
def test_of_several_models_the_largest_is_read_and_the_others_are_named(
    tmp_path: Path, sizes: dict[str, int], largest: str
) -> None:
    assert has_sparse(write_models(tmp_path / "sparse", sizes))
    sparse = read_sparse(tmp_path / "sparse")
    assert sparse.folder == tmp_path / "sparse" / largest
    assert len(sparse.images) == max(sizes.values())
    assert sparse.images[-1].cam_from_obj[0, 3] == max(sizes.values())
    assert sorted([*sparse.smaller.values(), len(sparse.images)]) == sorted(sizes.values())
    assert len(sparse.remarks()) == (len(sizes) > 1)


def test_the_remark_names_the_models_and_their_sizes(tmp_path: Path) -> None:
    sparse = read_sparse(write_models(tmp_path / "sparse", {"0": 3, "1": 5, "2": 1}))
    assert sparse.remarks() == [
        "3 models: the largest, sparse/1 with 5 images, is taken; sparse/0 has 3, sparse/2 has 1"
    ]


def test_a_broken_model_among_several_is_counted(tmp_path: Path) -> None:
    write_models(tmp_path / "sparse", {"0": 3, "1": 2})
    write_binary(tmp_path / "sparse" / "2")
    (tmp_path / "sparse" / "2" / "images.bin").write_bytes(b"\xff" * 9)
    sparse = read_sparse(tmp_path / "sparse")
    assert len(sparse.images) == 3
    assert sparse.left_out.counts == {"models that cannot be used": 1}
    assert "2/images.bin: ends in the middle" in sparse.remarks()[1]


def test_binary_images_with_unsupported_cameras_are_counted(tmp_path: Path) -> None:
    folder = write_binary(tmp_path / "sparse")
    cameras = struct.pack("<QiiQQ5d", 2, 1, 7, 640, 480, 500, 510, 320, 240, 1)
    cameras += struct.pack("<iiQQ4d", 7, 1, 320, 240, 250, 251, 160, 120)
    (folder / "cameras.bin").write_bytes(cameras)
    sparse = read_sparse(folder)
    assert [image.name for image in sparse.images] == ["b c.jpg"]
    assert sparse.cameras[7].matrix.tolist() == [
        [250, 0, 159.5],
        [0, 251, 119.5],
        [0, 0, 1],
    ]
    assert sparse.left_out.counts == {
        "cameras that cannot be used": 1,
        "images whose camera cannot be used": 1,
    }


@pytest.mark.parametrize("binary", [True, False])
def test_a_model_of_a_rig_that_pycolmap_writes_has_the_poses_of_its_images(
    tmp_path: Path, binary: bool
) -> None:
    pycolmap = pytest.importorskip("pycolmap")
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig = 2, 2, 3
    model = pycolmap.synthesize_dataset(options)
    (model.write_binary if binary else model.write_text)(tmp_path)
    assert any(tmp_path.glob("rigs.*")) and any(tmp_path.glob("frames.*"))
    sparse = read_sparse(tmp_path)
    truth = {image.name: image.cam_from_world().matrix() for image in model.images.values()}
    assert len(sparse.images) == len(truth) == 12 and not sparse.left_out
    for image in sparse.images:
        expected = torch.from_numpy(truth[image.name])
        assert torch.allclose(image.cam_from_obj[:3], expected, atol=1e-9)
    assert len(sparse.points) == model.num_points3D()


def test_what_is_written_comes_back(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    pose = from_parts(
        random_rotations(3, generator),
        torch.randn(3, 3, generator=generator, dtype=torch.float64),
    )
    matrix = torch.tensor(
        [[500.25, 0, 319.125], [0, 510, 239], [0, 0, 1]], dtype=torch.float64
    )
    cameras = {
        n: Camera(matrix, 640, 480, torch.full((n,), 0.01, dtype=torch.float64))
        for n in (0, 4, 5, 8)
    }
    images = [SparseImage(f"{i}.jpg", 4, pose[i]) for i in range(3)]
    points = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    write_sparse(tmp_path, cameras, images, points)
    back = read_sparse(tmp_path)
    assert torch.equal(back.points, points)
    for n, camera in cameras.items():
        assert torch.equal(back.cameras[n].matrix, matrix)
        assert back.cameras[n].distortion[:n].tolist() == camera.distortion.tolist()
    for image, read in zip(images, back.images, strict=True):
        assert read.name == image.name and torch.allclose(
            read.cam_from_obj, image.cam_from_obj, atol=1e-14
        )


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_binary_file_cut_anywhere_is_refused_by_name(tmp_path: Path, name: str) -> None:
    folder = write_binary(tmp_path / "sparse")
    whole = (folder / f"{name}.bin").read_bytes()
    for length in range(len(whole)):
        (folder / f"{name}.bin").write_bytes(whole[:length])
        with pytest.raises(InvalidInput, match=rf"{name}\.bin"):
            read_sparse(folder)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_a_count_beyond_the_end_of_the_file_takes_no_memory_and_is_refused(
    tmp_path: Path, name: str
) -> None:
    folder = write_binary(tmp_path / "sparse")
    whole = (folder / f"{name}.bin").read_bytes()
    (folder / f"{name}.bin").write_bytes(struct.pack("<Q", 2**63) + whole[8:])
    with pytest.raises(InvalidInput, match="ends in the middle"):
        read_sparse(folder)


def test_an_unsupported_camera_model_lists_the_supported_ones(tmp_path: Path) -> None:
    with pytest.raises(
        InvalidInput,
        match=r"cameras.txt, line 3: camera model FOV is not supported: SIMPLE_PINHOLE, PINHOLE, ",
    ):
        read_sparse(write_text(tmp_path / "text", "1 FOV 640 480 500 510 320 240 1"))
    folder = write_binary(tmp_path / "binary")
    (folder / "cameras.bin").write_bytes(
        struct.pack("<QiiQQ8d", 1, 1, 5, 640, 480, *[1.0] * 8)
    )
    with pytest.raises(InvalidInput, match="OPENCV_FISHEYE is not supported"):
        read_sparse(folder)


@pytest.mark.parametrize(
    "line",
    [
        "1 PINHOLE 640 480 500 510 320",
        "1 PINHOLE 640 480 a b c d",
        "1 PINHOLE 0 480 5 5 1 1",
        "1 PINHOLE 640 480 nan 5 1 1",
        "x",
    ],
)
def test_a_bad_camera_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match=r"cameras.txt, line 3: "):
        read_sparse(write_text(tmp_path, line))


@pytest.mark.parametrize(
    "line",
    [
        "1 0 0 0 0 1 2 3 1 a.jpg",
        "1 1 0 0 0 1 2 inf 1 a.jpg",
        "1 1 0 0 0 1 2 3 1",
        "1 1 0 0 0 1 2 3 1 ../a.jpg",
        "1 1 0 0 0 1 2 3 1 /a",
    ],
)
def test_a_bad_image_line_is_named(tmp_path: Path, line: str) -> None:
    with pytest.raises(InvalidInput, match=r"images.txt, line 1: "):
        read_sparse(write_text(tmp_path, images=line + "\n\n"))


def test_an_image_of_an_unknown_camera_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="image a.jpg names camera 3"):
        read_sparse(write_text(tmp_path, images="1 1 0 0 0 1 2 3 3 a.jpg\n\n"))


def test_a_folder_without_cameras_says_what_a_model_holds(tmp_path: Path) -> None:
    (write_text(tmp_path) / "cameras.txt").unlink()
    with pytest.raises(InvalidInput, match="no cameras.txt or cameras.bin"):
        read_sparse(tmp_path)


def test_text_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (write_text(tmp_path) / "images.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidInput, match=r"images.txt: cannot be read as text"):
        read_sparse(tmp_path)
