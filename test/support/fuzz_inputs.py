"""Inputs of which one inner part is spoiled: metadata of images, transforms and ends of bags."""

from __future__ import annotations

import contextlib
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from source_files import checks
from uns_pose_ros.capture.import_source import import_video
from uns_pose_ros.capture.video_writer import ImportConfig
from uns_pose_ros.io.image_metadata import read_upright
from uns_pose_ros.io.video_folder import load_video

_NOWHERE = b"\1\2\3\4\5\6"
_XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description tiff:Orientation="3"
 exif:FocalLength="5000/1000" exif:FocalLengthIn35mmFilm='28' exif:PixelXDimension="64"
 exif:FocalPlaneXResolution="100/1" exif:DigitalZoomRatio="1/1">
<exif:PixelYDimension>48</exif:PixelYDimension></rdf:Description></x:xmpmeta>"""


def write_metadata(folder: Path) -> None:
    """EXIF, XMP and ImageMagick's text of an EXIF, each in a file of its own."""
    exif = Image.Exif()
    exif[0x0112], exif[0x0100], exif[0x0101] = 6, 64, 48
    inner = exif.get_ifd(0x8769)
    inner |= {0x920A: 5.0, 0xA20E: 300.0, 0xA20F: 300.0, 0xA210: 3, 0xA404: 1.0}
    inner |= {0xA002: 64, 0xA003: 48, 0xA401: 0, 0xA405: 28}
    data = exif.tobytes()
    (folder / "exif.bin").write_bytes(data)
    (folder / "xmp.txt").write_text(_XMP)
    hexadecimal = data.hex()
    (folder / "profile.txt").write_text(f"\nAPP1\n{len(data)}\n{hexadecimal}\n")


def read_metadata(folder: Path, spoiled: Path) -> None:
    """The metadata in images of every format that carries them."""
    exif, xmp = (folder / "exif.bin").read_bytes(), (folder / "xmp.txt").read_bytes()
    image, path = Image.fromarray(checks(1)), folder / "image"
    for kind in ("JPEG", "WEBP", "PNG"):
        options: dict[str, Any] = {"exif": exif, "xmp": xmp}
        if kind == "PNG":
            options = {"pnginfo": PngImagePlugin.PngInfo()}
            text = xmp.decode("utf-8", "replace")
            options["pnginfo"].add_itxt("XML:com.adobe.xmp", text)
            profile = (folder / "profile.txt").read_text("utf-8", "replace")
            options["pnginfo"].add_text("Raw profile type APP1", profile)
        with contextlib.suppress(Exception):  # Pillow does not write everything
            path.unlink(missing_ok=True)
            image.save(path, kind, **options)
        if path.exists():
            upright = read_upright(path)
            assert sorted(upright.pixels.shape) == [3, 48, 64]
            camera, _ = upright.camera()
            assert (camera.height, camera.width) == upright.pixels.shape[:2]
            assert 0.1 < float(camera.matrix[0, 0]) / 64 < 30


def write_transforms(folder: Path) -> None:
    """Messages of /tf and /tf_static as they are in a bag, one a file."""
    import bag_writer

    motion = np.eye(4)
    for k in range(4):
        motion[0, 3] = k
        moving = bag_writer.transform(100 + 0.4 * k, "odom", "body", motion)
        _write_message(folder / f"tf_{k}", [moving, moving])
    static = bag_writer.transform(0, "body", "cam_optical", bag_writer.BODY_FROM_CAM)
    _write_message(folder / "static", [static])


def _write_message(path: Path, transforms: list[Any]) -> None:
    from bag_writer import KINDS, STORE, make

    message = make(KINDS["/tf"], transforms=transforms)
    path.write_bytes(bytes(STORE.serialize_cdr(message, KINDS["/tf"])))


def read_transforms(folder: Path, _: Path) -> None:
    """Import a bag with the messages; the poses of what is imported are poses."""
    from rosbags.rosbag2 import StoragePlugin, Writer

    import bag_writer

    messages = [(f"tf_{k}", "/tf", 100 + k) for k in range(4)]
    messages.append(("static", "/tf_static", 99))
    with Writer(folder / "bag", version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        names = ("/tf", "/tf_static", "/cam/image_raw", "/cam/camera_info")
        connections = {
            name: writer.add_connection(
                name, bag_writer.KINDS[name], typestore=bag_writer.STORE
            )
            for name in names
        }
        for name, topic, time in messages:
            data = (folder / name).read_bytes()
            writer.write(connections[topic], time * 10**9, data)
        for k in range(8):
            seconds = 100 + k / 8
            given = {
                "/cam/image_raw": bag_writer.raw(seconds, checks(k)),
                "/cam/camera_info": bag_writer.camera_info(seconds),
            }
            for topic, message in given.items():
                packed = bag_writer.STORE.serialize_cdr(message, bag_writer.KINDS[topic])
                writer.write(connections[topic], round(seconds * 1e9), packed)
    into = folder.parent / "into"
    import_video(folder / "bag", into, ImportConfig(frames=3, fixed_frame="odom"))
    video = load_video(into, need_masks=False)
    for frame in video.frames:
        assert frame.cam_from_obj is not None
        pose = frame.cam_from_obj.numpy()
        assert np.isfinite(pose).all()
        assert np.abs(pose[:3, :3] @ pose[:3, :3].T - np.eye(3)).max() < 1e-6


def _flat(number: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 * number, np.uint8)


def write_cut_bags(folder: Path) -> None:
    """Bags of both storages, and the bytes that say where they are cut."""
    from rosbags.rosbag2 import StoragePlugin

    from bag_writer import compressed, write_bag

    topic = "/cam/image_raw/compressed"
    messages = [(topic, float(k), compressed(k, _flat(k))) for k in range(8)]
    for plugin in StoragePlugin:
        write_bag(folder / plugin.name, plugin, {topic}, messages=messages)
    (folder / "at").write_bytes(_NOWHERE)


def read_cut_bags(folder: Path, _: Path) -> None:
    """Cut a bag at a place that follows from the spoiled bytes; what is read is in order."""
    place = (folder / "at").read_bytes()
    number = zlib.crc32(place)
    bag = ("MCAP", "SQLITE3")[number & 1]
    file = next(p for p in (folder / bag).iterdir() if p.suffix in (".mcap", ".db3"))
    data = file.read_bytes()
    if place != _NOWHERE:
        file.write_bytes(data[: (number >> 2) % (len(data) + 1)])
    if number & 2:
        (folder / bag / "metadata.yaml").unlink()
    into = folder.parent / "into"
    import_video(folder / bag, into, ImportConfig(frames=99, focal=80))
    frames = load_video(into, need_masks=False, need_poses=False).frames
    levels = [np.array(Image.open(frame.image)).mean() / 20 for frame in frames]
    assert np.abs(levels - np.rint(levels)).max() < 0.1
    assert (np.diff(levels) > 0.5).all() and max(levels) < 7.5
