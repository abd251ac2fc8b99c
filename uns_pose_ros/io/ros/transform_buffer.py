"""Transforms between frames over time, as in tf2: a tree of frames with their recent poses."""

from __future__ import annotations

import bisect
import math
import threading
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from uns_pose_ros.core.errors import shorten

Floats = NDArray[np.float64]

MEMORY = 10.0  # s that poses are kept


@dataclass
class _Link:
    """The poses of a frame in its parent, by ascending stamp.

    A static link has a single pose, which is valid at any time.
    """

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)  # ns
    # translation (3,) m, unit quaternion (4,) x y z w
    poses: list[tuple[Floats, Floats]] = field(default_factory=list)


class TransformTree:
    """A tree of frames; one thread adds poses, others look them up.

    It takes messages of rclpy and of rosbags, which have the same fields.
    """

    def __init__(self, memory: float = MEMORY, gap: float = math.inf) -> None:
        """Begin without frames.

        Args:
            memory: Age at which poses are dropped, s before the newest pose of the frame.
            gap: Longest time between two poses that is interpolated, s.
        """
        self._memory, self._gap = memory * 1e9, gap * 1e9
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        with self._lock:
            return sorted({*self._links, *(link.parent for link in self._links.values())})

    def take(self, message: Any, static: bool) -> None:
        """Add the transforms of a TFMessage of /tf or, static, of /tf_static."""
        for item in message.transforms:
            shift = item.transform.translation
            turn = item.transform.rotation
            stamp = item.header.stamp
            self.add(
                item.header.frame_id.lstrip("/"),
                item.child_frame_id.lstrip("/"),
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
        """Add the pose of a frame in its parent.

        Args:
            parent: Name of the parent frame.
            child: Name of the frame.
            stamp: ns.
            translation: (3,) m.
            quaternion: (4,) x y z w.
            static: Whether the pose is valid at any time.

        Returns:
            False if the pose cannot be used: it is not finite, its quaternion has no direction, the
            frame is its own parent, or the pose is older than the memory.
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
        """Forget all poses that are not static."""
        with self._lock:
            self._links = {
                child: link for child, link in self._links.items() if link.static
            }

    def lookup(self, target: str, source: str, stamp: int) -> Floats | str:
        """Look a transform up.

        Args:
            target: Name of the target frame.
            source: Name of the source frame.
            stamp: ns; poses before and after it are interpolated.

        Returns:
            target_from_source (4, 4), or the reason why it is not known.
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

        The text is empty, or the reason why the chain ends before the root.
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
    """Interpolate a pose.

    Args:
        link: The poses.
        stamp: ns.
        gap: Longest time between two poses that is interpolated, ns.

    Returns:
        parent_from_frame (4, 4), or the reason why it is not known: nothing is extrapolated.
    """
    if link.static:
        return _pose_matrix(link.poses[0])
    after = bisect.bisect_left(link.stamps, stamp)
    if after < len(link.stamps) and link.stamps[after] == stamp:
        return _pose_matrix(link.poses[after])
    if after in (0, len(link.stamps)):
        first = (link.stamps[0] - stamp) / 1e9
        last = (link.stamps[-1] - stamp) / 1e9
        return f"from {first:+.3f} to {last:+.3f} s about the image only"
    apart = link.stamps[after] - link.stamps[after - 1]
    if apart > gap:
        return f"not for {apart / 1e9:.1f} s about the image; {gap / 1e9:g} s are bridged"
    part = (stamp - link.stamps[after - 1]) / apart
    before_t, before_q = link.poses[after - 1]
    after_t, after_q = link.poses[after]
    translation = before_t + part * (after_t - before_t)
    return _matrix(translation, _interpolate_rotation(before_q, after_q, part))


def _pose_matrix(pose: tuple[Floats, Floats]) -> Floats:
    translation, quaternion = pose
    return _matrix(translation, Rotation.from_quat(quaternion))


def _interpolate_rotation(a: Floats, b: Floats, part: float) -> Rotation:
    """The rotation that lies `part` of the shorter way from quaternion a to b (4,)."""
    return Slerp([0.0, 1.0], Rotation.from_quat(np.stack([a, b])))(part)


def _matrix(translation: Floats, rotation: Rotation) -> Floats:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = translation
    return matrix
