"""Transforms between frames over time, as tf2 keeps them.

A tree of frames, each with its recent poses in its parent.
"""

from __future__ import annotations

import bisect
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from uns_pose_ros.core.errors import shorten

Floats = NDArray[np.float64]

MEMORY = 10.0  # s that poses are kept


@dataclass
class _Link:
    """A frame's poses in its parent, by ascending stamp.

    A static one has a single pose, valid at any time.
    """

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)  # ns
    poses: list[tuple[Floats, Floats]] = field(
        default_factory=list
    )  # translation (3,), quaternion (4,) x y z w, unit


class TransformTree:
    """Filled by one thread, asked by others.

    Messages are those of ROS or of `rosbags`, which have the same fields.
    """

    def __init__(self, memory: float = MEMORY, gap: float = math.inf) -> None:
        """memory: s before the newest pose of a frame that its poses are kept, inf: all.

        gap: s, most that may lie between two poses to be interpolated.
        """
        self._memory, self._gap = memory * 1e9, gap * 1e9
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    @property
    def frames(self) -> list[str]:
        """Every frame heard of."""
        with self._lock:
            return sorted({*self._links, *(link.parent for link in self._links.values())})

    def take(self, message: Any, static: bool) -> None:
        """Add the transforms of a TFMessage of /tf or, static, of /tf_static."""
        for one in message.transforms:
            shift, turn, stamp = (
                one.transform.translation,
                one.transform.rotation,
                one.header.stamp,
            )
            self.add(
                one.header.frame_id.lstrip("/"),
                one.child_frame_id.lstrip("/"),
                int(stamp.sec) * 10**9 + int(stamp.nanosec),
                np.array([shift.x, shift.y, shift.z]),
                np.array([turn.x, turn.y, turn.z, turn.w]),
                static,
            )

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: Floats,
        quaternion: Floats,
        static: bool = False,
    ) -> bool:
        """Take the pose of a frame in its parent at a stamp (ns).

        Translation (3,), quaternion (4,) x y z w.

        False where it is of no use: not finite, without direction, a frame in itself, or older than
        what is kept.
        """
        length = float(np.linalg.norm(quaternion))
        if (
            parent == child
            or not child
            or not np.isfinite(translation).all()
            or not 1e-6 < length < 1e6
        ):
            return False
        pose = (translation, quaternion / length)
        with self._lock:
            link = self._links.get(child)
            if link is None or link.parent != parent or link.static or static:
                self._links[child] = _Link(parent, static, [stamp], [pose])
                return True
            if stamp < link.stamps[-1] - self._memory:
                return False
            at = bisect.bisect_left(link.stamps, stamp)
            if at < len(link.stamps) and link.stamps[at] == stamp:
                link.poses[at] = pose
                return True
            link.stamps.insert(at, stamp)
            link.poses.insert(at, pose)
            old = bisect.bisect_left(link.stamps, link.stamps[-1] - self._memory)
            del link.stamps[:old], link.poses[:old]
        return True

    def clear(self) -> None:
        """Forget all poses but the static ones."""
        with self._lock:
            self._links = {
                child: link for child, link in self._links.items() if link.static
            }

    def lookup(self, target: str, source: str, stamp: int) -> Floats | str:
        """target_from_source (4, 4) at a stamp (ns), interpolated between the poses about it.

        Else why there is none.
        """
        with self._lock:
            up, no_further_up = self._chain(source, stamp)
            down, no_further_down = self._chain(target, stamp)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            apart = (
                f"'{target}' and '{source}' are not connected by transforms; there are "
                f"{shorten(self.frames, 20) or 'none'}"
            )
            return no_further_up or no_further_down or apart
        pose: Floats = np.linalg.inv(down[common]) @ up[common]
        return pose

    def _chain(self, frame: str, stamp: int) -> tuple[dict[str, Floats], str]:
        """ancestor_from_frame of the frame itself and its ancestors, nearest first.

        And why it ends before the root, if so.
        """
        chain = {frame: np.eye(4)}
        matrix = np.eye(4)
        # else a circle
        while frame in self._links and self._links[frame].parent not in chain:
            link = self._links[frame]
            pose = _at(link, stamp, self._gap)
            if isinstance(pose, str):
                return chain, f"'{frame}' is known in '{link.parent}' {pose}"
            matrix = pose @ matrix
            frame = link.parent
            chain[frame] = matrix
        return chain, ""


def _at(link: _Link, stamp: int, gap: float) -> Floats | str:
    """parent_from_frame (4, 4) at a stamp.

    Nothing is extrapolated nor bridged over more than `gap` ns: else what is known.
    """
    if link.static:
        return _matrix(*link.poses[0])
    after = bisect.bisect_left(link.stamps, stamp)
    if after < len(link.stamps) and link.stamps[after] == stamp:
        return _matrix(*link.poses[after])
    if after in (0, len(link.stamps)):
        first, last = ((at - stamp) / 1e9 for at in (link.stamps[0], link.stamps[-1]))
        return f"from {first:+.3f} to {last:+.3f} s about the picture only"
    if (apart := link.stamps[after] - link.stamps[after - 1]) > gap:
        return f"not for {apart / 1e9:.1f} s about the picture; {gap / 1e9:g} s are bridged"
    part = (stamp - link.stamps[after - 1]) / (link.stamps[after] - link.stamps[after - 1])
    (t0, q0), (t1, q1) = link.poses[after - 1 : after + 1]
    return _matrix(t0 + part * (t1 - t0), _slerp(q0, q1, part))


def _slerp(a: Floats, b: Floats, part: float) -> Floats:
    """The unit quaternion (4,) that lies `part` of the shorter way from a to b."""
    cosine = float(a @ b)
    if cosine < 0:
        b, cosine = -b, -cosine
    angle = np.arccos(min(cosine, 1.0))
    mixed: Floats = (1 - part) * a + part * b
    if angle > 1e-8:
        mixed = (np.sin((1 - part) * angle) * a + np.sin(part * angle) * b) / np.sin(angle)
    unit: Floats = mixed / np.linalg.norm(mixed)
    return unit


def _matrix(translation: Floats, quaternion: Floats) -> Floats:
    x, y, z, w = quaternion
    return np.array(
        [
            [
                1 - 2 * (y * y + z * z),
                2 * (x * y - z * w),
                2 * (x * z + y * w),
                translation[0],
            ],
            [
                2 * (x * y + z * w),
                1 - 2 * (x * x + z * z),
                2 * (y * z - x * w),
                translation[1],
            ],
            [
                2 * (x * z - y * w),
                2 * (y * z + x * w),
                1 - 2 * (x * x + y * y),
                translation[2],
            ],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
