"""The recorder node, killed while it is shown images over DDS; part of kills.py."""

from __future__ import annotations

import hashlib
import os
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rclpy.time import Time
from std_msgs.msg import Header

from camera_ring import view
from ros_film import SECOND, Film, pixels
from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.io import artifacts
from uns_pose_ros.io.colmap import has_sparse, read_sparse
from uns_pose_ros.io.depth_images import depth_path, read_depth
from uns_pose_ros.io.images import read_image
from uns_pose_ros.io.video_folder import load_video
from uns_pose_ros.nodes.ros_compat import array_to_image
from warm_processes import WarmProcess

VIEWS = 9  # that the recorder is shown
FIRST = 1_700_000_000 * SECOND  # ns, stamp of the first


def kill_recorder(
    work: Path, kills: int, rng: random.Random
) -> tuple[float, list[str], list[str], int]:
    """Kill the recorder node so many times while it is shown an orbit.

    The next one is shown all of it again.

    A image that the dead one had kept is not kept again, so both together keep what one alone
    would have kept. Seconds of the undisturbed recording, what was broken after a kill, what was
    different in the end, and how often there was something to go on with.
    """
    domain = 1 + os.getpid() % 101
    os.environ |= {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)
    whole = work / "undisturbed" / "clip_01"
    seconds = record_all(domain, whole.parent)
    broken, different, left = list[str](), list[str](), 0
    wanted, wanted_files = recorded(whole), files_of(whole)
    for number in range(1, kills + 1):
        clip = work / f"killed_{number:02d}" / "clip_01"
        record_until_killed(domain, clip.parent, rng.uniform(0, seconds))
        kept, moment = images(clip), f"kill {number}"
        left += bool(kept)
        strangers = [
            name
            for name, digest in kept.items()
            if digest not in {one["image"] for one in wanted.values()}
        ]
        broken += [f"{moment}: {name} is no image that was shown" for name in strangers]
        shown = {one["image"]: one["depth"] for one in wanted.values()}
        broken += [
            f"{moment}: {name} has not its depth"
            for name in kept
            if deep(clip, name) != shown.get(kept[name])
        ]
        try:
            if (
                has_sparse(clip / "sparse")
                and len(read_sparse(clip / "sparse").images) >= 3
            ):
                load_video(clip, need_masks=False)
        except InvalidInput as error:
            broken.append(f"{moment}: {error}")
        record_all(domain, clip.parent)
        found = recorded(clip)
        if sorted(map(str, found.values())) != sorted(map(str, wanted.values())):
            different.append(
                f"{moment}: images, stamps or poses are not those of the undisturbed recording"
            )
        lost = [
            name
            for name, digest in kept.items()
            if name not in found or found[name]["image"] != digest
        ]
        different += [f"{moment}: {name} was kept and is not any more" for name in lost]
        different += [
            f"{moment}: {name} is left over"
            for name in sorted(files_of(clip) - wanted_files)
        ]
    return seconds, broken, different, left


@contextmanager
def recorder(domain: int, category: Path) -> Iterator[tuple[Film, WarmProcess]]:
    """A recorder node that records into clip_01 of a category, and its camera."""
    film = Film(domain)
    words = (
        f"category:={category}",
        "clip:=clip_01",
        "record:=true",
        "fixed_frame:=odom",
        "format:=png",
        "sharpness:=0.0",
        "depth:=raw",
    )
    try:
        process = film.record(*words)
        film.wait_until_listening()
        film.wait_until_following()
        yield film, process
    finally:
        film.close()


def record_all(domain: int, category: Path) -> float:
    """Show every view again and again until it is kept, then end the recorder.

    Seconds from the first to the last view.
    """
    with recorder(domain, category) as (film, process):
        start = time.perf_counter()
        for number in range(VIEWS):
            stop = time.monotonic() + 120
            while digest_of(pixels(number)) not in images(category / "clip_01").values():
                if time.monotonic() > stop:
                    raise RuntimeError(f"view {number} was not kept; {film.counts()}")
                show(film, number)
        seconds = time.perf_counter() - start
        code, log = film.interrupt(process)
        if code:
            raise RuntimeError(f"the recorder ended with {code}: {log}")
    return round(seconds, 2)


def record_until_killed(domain: int, category: Path, seconds: float) -> None:
    with recorder(domain, category) as (film, process):
        killer = threading.Timer(seconds, process.kill)
        killer.start()
        number = 0
        while process.poll() is None:
            show(film, number)
            if digest_of(pixels(number)) in images(category / "clip_01").values():
                number = min(
                    number + 1, VIEWS - 1
                )  # never back: to the recorder, stamps that jump back are another start
        killer.join()
        process.communicate()


def show(film: Film, number: int) -> None:
    """Send one view with its camera_info, pose and depth, and give the recorder a moment."""
    stamp = FIRST + number * SECOND // 30
    film.calibrate()
    film.place(stamp, view(40.0 * number))
    film.measure(
        np.arange(pixels(0)[..., 0].size, dtype=np.uint16).reshape(pixels(0).shape[:2])
        + 100 * number,
        stamp,
    )
    header = Header(frame_id="eye", stamp=Time(nanoseconds=stamp).to_msg())
    film.images.publish(array_to_image(pixels(number), "rgb8", header))
    film.turn()
    time.sleep(0.03)


def images(clip: Path) -> dict[str, str]:
    """Digest of the pixels of every image that is there under its name.

    "broken" where it cannot be read.
    """
    found = {}
    for path in sorted((clip / "images").glob("0*.png")):
        try:
            found[path.name] = digest_of(read_image(path).numpy())
        except InvalidInput:
            found[path.name] = "broken"
    return found


def recorded(clip: Path) -> dict[str, dict[str, Any]]:
    """Image, depth, stamp and pose of every frame of a finished recording."""
    # + 0.0: no zero is negative
    stamps, shown = artifacts.read_json(clip / "video.json")["stamps_ns"], images(clip)
    poses = {
        image.name: (image.cam_from_obj.numpy().round(6) + 0.0).tolist()
        for image in read_sparse(clip / "sparse").images
    }
    return {
        name: {
            "image": shown[name],
            "depth": deep(clip, name),
            "stamp": stamp,
            "pose": poses.get(name),
        }
        for name, stamp in stamps.items()
    }


def deep(clip: Path, name: str) -> str:
    """Digest of a image's depth; "broken" where it cannot be read."""
    try:
        return digest_of(read_depth(depth_path(clip, name), pixels(0).shape[1::-1]))
    except InvalidInput:
        return "broken"


def digest_of(image: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(image).tobytes()).hexdigest()


def files_of(folder: Path) -> set[str]:
    return {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    }
