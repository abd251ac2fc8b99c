"""Transforms between frames over time, as tf2 keeps them: a tree of frames, each with its recent poses in its parent."""

from __future__ import annotations

import bisect
import threading
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MEMORY = 10.0  # s that poses are kept


@dataclass
class _Link:
    """A frame's poses in its parent, by ascending stamp; a static one has a single pose, valid at any time."""

    parent: str
    static: bool
    stamps: list[int] = field(default_factory=list)  # ns
    poses: list[tuple[Floats, Floats]] = field(default_factory=list)  # translation (3,), quaternion (4,) x y z w, unit


class TransformTree:
    """Filled by one thread, asked by others."""

    def __init__(self, memory: float = MEMORY) -> None:
        """memory: s before the newest pose of a frame that its poses are kept."""
        self._memory = int(memory * 1e9)
        self._links: dict[str, _Link] = {}
        self._lock = threading.Lock()

    def add(self, parent: str, child: str, stamp: int, translation: Floats, quaternion: Floats, static: bool = False) -> bool:
        """Take the pose of a frame in its parent at a stamp (ns): translation (3,), quaternion (4,) x y z w.

        False where it is of no use: not finite, without direction, a frame in itself, or older than what is kept.
        """
        length = float(np.linalg.norm(quaternion))
        if parent == child or not child or not np.isfinite(translation).all() or not 1e-6 < length < 1e6:
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
            self._links = {child: link for child, link in self._links.items() if link.static}

    def lookup(self, target: str, source: str, stamp: int) -> Floats | str:
        """target_from_source (4, 4) at a stamp (ns), interpolated between the poses about it; else why there is none."""
        with self._lock:
            up, no_further_up = self._chain(source, stamp)
            down, no_further_down = self._chain(target, stamp)
        common = next((frame for frame in up if frame in down), None)
        if common is None:
            return no_further_up or no_further_down or f"'{target}' and '{source}' are not connected by transforms"
        pose: Floats = np.linalg.inv(down[common]) @ up[common]
        return pose

    def _chain(self, frame: str, stamp: int) -> tuple[dict[str, Floats], str]:
        """ancestor_from_frame of the frame itself and its ancestors, nearest first; and why it ends before the root, if so."""
        chain = {frame: np.eye(4)}
        matrix = np.eye(4)
        while frame in self._links and self._links[frame].parent not in chain:  # else a circle
            link = self._links[frame]
            pose = _at(link, stamp)
            if pose is None:
                first, last = ((at - stamp) / 1e9 for at in (link.stamps[0], link.stamps[-1]))
                return chain, f"'{frame}' is known in '{link.parent}' from {first:+.3f} to {last:+.3f} s about the picture only"
            matrix = pose @ matrix
            frame = link.parent
            chain[frame] = matrix
        return chain, ""


def _at(link: _Link, stamp: int) -> Floats | None:
    """parent_from_frame (4, 4) at a stamp; None outside of what is known, for nothing is extrapolated."""
    if link.static:
        return _matrix(*link.poses[0])
    after = bisect.bisect_left(link.stamps, stamp)
    if after < len(link.stamps) and link.stamps[after] == stamp:
        return _matrix(*link.poses[after])
    if after in (0, len(link.stamps)):
        return None
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
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w), translation[0]],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w), translation[1]],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y), translation[2]],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
