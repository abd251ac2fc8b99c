"""Import, evaluation, estimator and recorder get the same pixels and camera of one message."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip("rosbags")
from rosbags.rosbag2 import StoragePlugin

import bag_writer
from slow_pixels import slow_rgb
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig, VideoWriter
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Camera
from uns_pose_ros.evaluation.bag_config import BagConfig
from uns_pose_ros.evaluation.rosbag_evaluation import estimate_bag_frames
from uns_pose_ros.io.encoded_image import EncodedImage
from uns_pose_ros.io.ros import ros_messages
from uns_pose_ros.io.ros.ros_messages import ENCODINGS, decode_image

SEED = 15
COLORS = [name for name, encoding in ENCODINGS.items() if encoding.is_color]


class Seen(NamedTuple):
    """What an entry made of a message."""

    pixels: np.ndarray
    camera: Camera


def random_image(random: np.random.Generator, name: str, size: tuple[int, int]) -> Any:
    """An Image of random bytes, padding and byte order; size: height, width."""
    layout = ENCODINGS[name]
    height, width = size
    row = width * layout.channels * np.dtype(layout.dtype).itemsize
    step = row + int(random.integers(0, 8))
    rows = int(height * layout.row_share)
    return bag_writer.make(
        ros_messages.IMAGE,
        header=bag_writer.header(0, "cam"),
        height=height,
        width=width,
        encoding=name,
        is_bigendian=int(random.integers(0, 2)),
        step=step,
        data=random.integers(0, 256, rows * step).astype(np.uint8),
    )


def sizes_of(name: str) -> list[tuple[int, int]]:
    layout = ENCODINGS[name]
    columns = (6, 4) if layout.column_step == 2 else (5, 6)
    return [(4, columns[0]), (4 if layout.row_share == 1.5 else 5, columns[1])]


@pytest.mark.parametrize("name", COLORS)
def test_every_encoding_is_read_as_its_definition_says(name: str) -> None:
    random = np.random.default_rng(SEED)
    for size in sizes_of(name) * 3:
        message = random_image(random, name, size)
        off = np.abs(decode_image(message) - slow_rgb(message)).max()
        assert off <= (1 if name[0] in "byunv" and "gr" not in name[:3] else 0), message


def write(path: Path, messages: list[Any], info: Any, topic: str) -> None:
    kind = (
        ros_messages.IMAGE if hasattr(messages[0], "encoding") else ros_messages.COMPRESSED
    )
    given: list[tuple[str, float, Any]] = [("/cam/camera_info", 100.0, info)]
    for k, message in enumerate(messages):
        message.header = bag_writer.header(100 + k, "cam")
        given.append((topic, 100.0 + k, message))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(bag_writer.KINDS, topic, kind)
        topics = {topic, "/cam/camera_info"}
        bag_writer.write_bag(path, StoragePlugin.MCAP, topics, messages=given)


def imported(bag: Path) -> list[Seen]:
    seen = list[Seen]()
    add = VideoWriter.add

    def listen(
        self: VideoWriter, name: str, image: Any, camera: Camera, *rest: Any, **k: Any
    ) -> None:
        seen.append(Seen(image, camera))
        add(self, name, image, camera, *rest, **k)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(VideoWriter, "add", listen)
        import_video(bag, bag.with_name(f"{bag.name}_clip"), ImportConfig(frames=1000))
    return seen


def evaluated(bag: Path) -> list[Seen]:
    seen = list[Seen]()

    class Listener:
        models = (SimpleNamespace(category="truck"),)

        def __call__(self, image: np.ndarray, camera: Camera, **stream: Any) -> list[Any]:
            seen.append(Seen(image, camera))
            return []

    find: Any = Listener()
    estimate_bag_frames(bag, find, BagConfig(), lambda step, done, total: None)
    return seen


def as_ros(message: Any) -> Any:
    """The message of rosbags as one of rclpy."""
    messages = pytest.importorskip("sensor_msgs.msg")
    from rclpy.serialization import deserialize_message

    name = message.__msgtype__
    data = bytes(bag_writer.STORE.serialize_cdr(message, name))
    return deserialize_message(data, getattr(messages, name.rpartition("/")[2]))


def estimated(messages: list[Any], info: Any, rectified: bool) -> list[Seen]:
    """What the estimator node's worker gives to its estimator."""
    pytest.importorskip("rclpy")
    from uns_pose_ros.nodes.estimator.estimation_worker import EstimationWorker

    class Enough(Exception):
        pass

    seen = list[Seen]()
    node = SimpleNamespace(rectified=rectified, regions="search", depth_transport="raw")
    node.wanted, node.classes = None, ()
    settings: Any = SimpleNamespace(node=node, estimator=None)

    class Listener:
        fault = ""

        def configure(self, config: Any) -> None:
            pass

        def __call__(self, image: np.ndarray, camera: Camera, *rest: Any) -> list[Any]:
            seen.append(Seen(image, camera))
            raise Enough

    worker = EstimationWorker.__new__(EstimationWorker)
    shell: Any = worker
    shell._check_headers = lambda message, info: None
    find: Any = Listener()
    for message in messages:
        given = as_ros(message)
        # as in EstimationWorker.process
        with suppress(Enough):
            worker._estimate(find, decode_image(given), (given, as_ros(info), {}), settings)
    return seen


def recorded(messages: list[Any], info: Any, rectified: bool) -> list[Seen]:
    """What the recorder's selection gives to its session, as it is written as PNG."""
    pytest.importorskip("rclpy")
    from uns_pose_ros.nodes.image_stamps import StampOrder
    from uns_pose_ros.nodes.recorder.recorder_node import RecorderNode

    seen = list[Seen]()

    def take(image: EncodedImage, record: Any, *rest: Any) -> None:
        data, _ = image.encoded(".png", 95)
        pixels: Any = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
        seen.append(Seen(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), record.camera))

    class Shell:
        _process, _offer = RecorderNode._process, RecorderNode._offer
        _camera, _publish_overlay = RecorderNode._camera, RecorderNode._publish_overlay
        _session = SimpleNamespace(take=take)
        _settings = SimpleNamespace(frame="", rectified=rectified)
        _overlay = SimpleNamespace(get_subscription_count=lambda: 0)

        def __init__(self) -> None:
            self._stamps = StampOrder()

        def set_warning(self, key: str, text: str) -> None:
            pass

        def _on_jump_back(self) -> None:
            pass

    shell: Any = Shell()
    for message in messages:
        RecorderNode._process(shell, as_ros(message), as_ros(info), {})
    return seen


def check_same(path: Path, messages: list[Any], info: Any, topic: str) -> list[Seen]:
    """Assert that all entries see the same; returns what they see."""
    rectified = "rect" in topic
    write(path, messages, info, topic)
    first = imported(path)
    assert len(first) == len(messages)
    for other in (
        evaluated(path),
        estimated(messages, info, rectified),
        recorded(messages, info, rectified),
    ):
        assert len(other) == len(messages)
        for a, b in zip(first, other, strict=True):
            assert np.array_equal(a.pixels, b.pixels)
            assert same(a.camera, b.camera)
    return first


def check_refused(path: Path, messages: list[Any], info: Any, topic: str) -> None:
    """Assert that every entry refuses the messages with one line."""
    rectified = "rect" in topic
    write(path, messages, info, topic)
    entries: list[Callable[[], Any]] = [
        lambda: imported(path),
        lambda: evaluated(path),
        lambda: estimated(messages, info, rectified),
        lambda: recorded(messages, info, rectified),
    ]
    for read in entries:
        with pytest.raises(InvalidInput) as caught:
            read()
        assert len(str(caught.value).splitlines()) == 1


def same(a: Camera, b: Camera) -> bool:
    sizes = (a.width, a.height) == (b.width, b.height)
    return (
        sizes
        and torch.equal(a.matrix, b.matrix)
        and torch.equal(a.distortion, b.distortion)
    )


@pytest.mark.parametrize("size", [(4, 6), (5, 6), (5, 7)])
def test_images_of_every_encoding_are_the_same_in_all_entries(
    tmp_path: Path, size: tuple[int, int]
) -> None:
    random = np.random.default_rng(SEED)
    names = [
        name
        for name in COLORS
        if size[1] % ENCODINGS[name].column_step == 0
        and (size[0] * ENCODINGS[name].row_share) % 1 == 0
    ]
    assert len(names) >= 24
    messages = [random_image(random, name, size) for name in names * 2]
    info = bag_writer.camera_info(100.0)
    info.height, info.width = size
    seen = check_same(tmp_path / "bag", messages, info, "/cam/image_raw")
    for message, item in zip(messages, seen, strict=True):
        assert np.array_equal(item.pixels, decode_image(message))


def compressed(data: bytes, name: str) -> Any:
    return bag_writer.make(
        ros_messages.COMPRESSED,
        header=bag_writer.header(0, "cam"),
        format=name,
        data=np.frombuffer(data, np.uint8),
    )


def test_compressed_images_are_the_same_in_all_entries_whatever_their_format_says(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(SEED)
    rgb = random.integers(0, 256, (8, 10, 3)).astype(np.uint8)
    gray16 = np.linspace(0, 65535, 80).astype(np.uint16).reshape(8, 10)
    files = {
        **{end: cv2.imencode(end, rgb)[1].tobytes() for end in (".jpg", ".png", ".tiff")},
        "16": cv2.imencode(".png", gray16)[1].tobytes(),
        "gray": cv2.imencode(".png", rgb[..., 0])[1].tobytes(),
        ".webp": cv2.imencode(".webp", rgb)[1].tobytes(),
    }
    names = ["jpeg", "JPEG", "jpg", "", "rgb8; jpeg compressed bgr8", "png", "tiff", "webp"]
    names += ["mono16; png compressed ", "bayer_rggb8; png compressed ", "bgr8;png", ";;"]
    messages = [compressed(data, name) for data in files.values() for name in names]
    info = bag_writer.camera_info(100.0)
    info.height, info.width = 8, 10
    seen = check_same(tmp_path / "bag", messages, info, "/cam/image_raw/compressed")
    pixels = {
        (data, name): item.pixels
        for (data, name), item in zip(
            ((d, n) for d in files for n in names), seen, strict=True
        )
    }
    expected = np.rint(gray16 / 257)
    assert np.array_equal(pixels["16", "mono16; png compressed "][..., 1], expected)
    assert np.array_equal(pixels[".png", "jpeg"], rgb[..., ::-1])
    mosaic = cv2.cvtColor(np.ascontiguousarray(rgb[..., 0]), cv2.COLOR_BayerRGGB2RGB)
    assert np.array_equal(pixels["gray", "bayer_rggb8; png compressed "], mosaic)
    assert np.array_equal(pixels[".png", "bayer_rggb8; png compressed "], rgb[..., ::-1])


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"", "jpeg"),
        (b"", ""),
        (b"\0" * 12, "16UC1; compressedDepth"),
        (b"\0" * 12, "; compressedDepth png"),
        (b"\0" * 12, "32fc1; png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"\x89PNG\r\n\x1a\n", "png"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "webp"),
        (b"II*\0\x08\0\0\0", "tiff"),
        (b"\0\0\0\x18ftypheic\0\0\0\0", "heic"),
        (b"", "bayer_rggb8; jpeg compressed "),
    ],
)
def test_a_compressed_image_without_a_whole_file_is_one_line_in_every_entry(
    data: bytes, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    entries: list[Callable[[Any], Any]] = [
        decode_image,
        lambda message: ros_messages.read_encoded_image(message).gray(100),
    ]
    for read in entries:
        with pytest.raises(InvalidInput) as caught:
            read(compressed(data, name))
        assert len(str(caught.value).splitlines()) == 1
        assert "OpenCV" not in str(caught.value) + capfd.readouterr().err


def random_info(random: np.random.Generator) -> tuple[Any, tuple[int, int]]:
    """A CameraInfo and the height and width of an image of it."""
    info = bag_writer.camera_info(100.0)
    f = random.uniform(50, 150, 4)
    info.k = np.array([f[0], 0, 31.2, 0, f[1], 23.4, 0, 0, 1])
    info.p = np.array([f[2], 0, 30.0, -5.0, 0, f[3], 22.0, 0, 0, 0, 1, 0])
    models = ("plumb_bob", "rational_polynomial", "", "equidistant", "none")
    info.distortion_model = models[random.integers(0, 5)]
    info.d = random.uniform(-0.1, 0.1, random.choice([0, 4, 5, 8, 12])) * random.integers(
        0, 2
    )
    if random.random() < 0.3:
        info.d[8:] = 0
    info.binning_x, info.binning_y = (int(n) for n in random.choice([0, 1, 2], 2))
    height, width = 48, 64
    if random.random() < 0.5:
        roi = info.roi
        roi.x_offset, roi.y_offset, roi.width, roi.height = 8, 4, 32, 24
        roi.do_rectify = bool(random.integers(0, 2))
        height, width = 24, 32
    if random.random() < 0.8:
        height //= max(info.binning_y, 1)
        width //= max(info.binning_x, 1)
    return info, (height, width)


def test_a_camera_is_the_same_in_all_entries_whatever_camera_info_holds(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(SEED)
    outcomes = {"read": 0, "refused": 0}
    for number in range(32):
        info, size = random_info(random)
        topic = ("/cam/image_raw", "/cam/image_rect")[number % 2]
        messages = [random_image(random, "mono8", size) for _ in range(3)]
        path = tmp_path / str(number)
        try:
            ros_messages.read_camera_info(info, size[1], size[0], number % 2 == 1)
        except InvalidInput:
            outcomes["refused"] += 1
            check_refused(path, messages, info, topic)
        else:
            outcomes["read"] += 1
            check_same(path, messages, info, topic)
    assert min(outcomes.values()) >= 5, outcomes


def test_camera_info_of_ros_1_is_read(tmp_path: Path) -> None:
    info = bag_writer.camera_info(0.0)
    old = SimpleNamespace(
        **{k.upper() if len(k) == 1 else k: v for k, v in vars(info).items()}
    )
    for rectified in (False, True):
        camera = ros_messages.read_camera_info(old, 64, 48, rectified)
        assert same(camera, ros_messages.read_camera_info(info, 64, 48, rectified))
