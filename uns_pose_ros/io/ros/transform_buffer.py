"""Transforms between frames over time, as in tf2: a history of poses, each with its parent.

As in tf2, a frame has one history and every pose in it has its own parent, so a frame that gets
another parent keeps its past. Between two poses in different parents the older one holds. A static
frame has one pose, and a frame that changes between static and moving begins anew. Unlike tf2, a
quaternion of any length counts, normalized, and stamp 0 is no name for the newest pose.
"""

from __future__ import annotations

import bisect
import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from uns_pose_ros.core.errors import shorten
from uns_pose_ros.io.ros.transform_contradictions import Contradictions

Floats = NDArray[np.float64]

MEMORY = 10.0  # s that poses are kept
_FARTHEST = 1e12  # m, a longer translation is no position
_LONGEST_NAME = 1000  # characters of a frame's name
_MOST_FRAMES = 10_000
_OTHER_CLOCK = 86_400.0  # s between an image and transforms that have one clock, at most


class _Pose(NamedTuple):
    """The pose of a frame in its parent."""

    parent: str
    translation: Floats  # (3,) m
    quaternion: Floats  # (4,) x y z w, of length 1


@dataclass
class _Span:
    """The poses of a frame while it is static or moving, by ascending stamp.

    A static span has a single pose, which is valid at any time.
    """

    static: bool
    begin: int  # ns, arrival of the first message
    stamps: list[int] = field(default_factory=list)  # ns
    poses: list[_Pose] = field(default_factory=list)


class TransformTree:
    """A tree of frames; one thread adds poses, others look them up.

    It takes messages of rclpy and of rosbags, which have the same fields. A live tree knows the
    present, as tf2's buffer does. A recording also knows what a buffer knew at any arrival: which
    static pose was the last, and which poses came before time jumped back.
    """

    def __init__(
        self,
        memory: float = MEMORY,
        gap: float = math.inf,
        recording: bool = False,
        jumps: Sequence[int] = (),
    ) -> None:
        """Begin without frames.

        Args:
            memory: Age at which poses are dropped, s before the newest pose of the frame.
            gap: Longest time between two poses that is bridged, s.
            recording: Whether to keep what later messages replace; messages are then added in
                the order of their arrival.
            jumps: Arrivals from which on time has jumped back, ascending, ns: moving poses from
                before and after one have nothing in common.
        """
        self._memory, self._gap = memory * 1e9, gap * 1e9
        self._recording = recording
        self._jumps = list(jumps)
        self._epoch = 0  # of the newest message
        self._spans: dict[str, list[_Span]] = {}
        self._lock = threading.Lock()
        self._refused: Counter[str] = Counter()
        self._contradictions = Contradictions()

    @property
    def frames(self) -> list[str]:
        """Names of all frames."""
        with self._lock:
            parents = {
                pose.parent
                for spans in self._spans.values()
                for span in spans
                for pose in span.poses
            }
            return sorted(parents | self._spans.keys())

    @property
    def faults(self) -> dict[str, int]:
        """What is wrong with the transforms that came, and how often: unusable, contradictory."""
        with self._lock:
            return dict(self._refused) | self._contradictions.counts()

    def take(self, message: Any, static: bool, arrival: int = 0) -> None:
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
                arrival,
            )

    def add(
        self,
        parent: str,
        child: str,
        stamp: int,
        translation: Floats,
        quaternion: Floats,
        static: bool = False,
        arrival: int = 0,
    ) -> bool:
        """Add the pose of a frame in its parent.

        Args:
            parent: Name of the parent frame.
            child: Name of the frame.
            stamp: ns.
            translation: (3,) m.
            quaternion: (4,) x y z w.
            static: Whether the pose is valid at any time.
            arrival: When the message came, ns; only the order counts.

        Returns:
            False if the pose cannot be used: it is not finite, its quaternion has no direction, a
            frame has no name or is its own parent, or the pose is older than the memory.
        """
        length = float(np.linalg.norm(quaternion))
        reason = _unusable(parent, child, translation, length)
        with self._lock:
            full = len(self._spans) >= _MOST_FRAMES and child not in self._spans
            if full and not reason:
                reason = f"transforms of more than {_MOST_FRAMES} frames"
            if reason:
                self._refused[reason] += 1
                return False
            if abs(length**2 - 1) >= 0.01:  # what tf2 leaves out
                self._refused["quaternions that are not of length 1, normalized"] += 1
            epoch = self._epoch_of(arrival)
            if epoch != self._epoch:
                self._epoch = epoch
                self._contradictions.forget_history()
            return self._add_pose(
                child,
                stamp,
                _Pose(parent, translation, quaternion / length),
                static,
                arrival,
            )

    def _add_pose(
        self, child: str, stamp: int, pose: _Pose, static: bool, arrival: int
    ) -> bool:
        """Add a pose to the newest span of a frame, or begin a new one."""
        spans = self._spans.setdefault(child, [])
        newest = spans[-1] if spans else None
        begin = arrival
        if newest is not None:
            if newest.static != static:
                self._contradictions.static_and_moving(child)
            elif static and _same(newest.poses[0], pose):
                return True
            elif static:
                old = newest.poses[0].parent
                self._contradictions.static_redefined(child, old, pose.parent)
        if not static:
            self._contradictions.moves(child, stamp, pose.parent, pose.translation)
            if newest is not None and not newest.static:
                if self._epoch_of(newest.begin) == self._epoch:
                    return self._insert(newest, child, stamp, pose)
                begin = self._jumps[self._epoch - 1]
        if not self._recording:
            spans.clear()
        spans.append(_Span(static, begin, [stamp], [pose]))
        return True

    def _epoch_of(self, arrival: int) -> int:
        """How often time had jumped back."""
        return bisect.bisect_right(self._jumps, arrival)

    def _insert(self, span: _Span, child: str, stamp: int, pose: _Pose) -> bool:
        """Insert a pose into a moving span; the last one of a stamp counts."""
        if span.stamps and stamp < span.stamps[-1] - self._memory:
            self._refused["older than the memory"] += 1
            return False
        at = bisect.bisect_left(span.stamps, stamp)
        if at < len(span.stamps) and span.stamps[at] == stamp:
            if not _same(span.poses[at], pose):
                self._contradictions.two_poses(child)
            span.poses[at] = pose
            return True
        span.stamps.insert(at, stamp)
        span.poses.insert(at, pose)
        old = bisect.bisect_left(span.stamps, span.stamps[-1] - self._memory)
        del span.stamps[:old], span.poses[:old]
        return True

    def clear(self) -> None:
        """Forget all poses that are not static: time has jumped back."""
        with self._lock:
            self._spans = {
                child: [spans[-1]]
                for child, spans in self._spans.items()
                if spans[-1].static
            }
            self._contradictions.forget_history()

    def lookup(
        self, target: str, source: str, stamp: int | None, arrival: int | None = None
    ) -> Floats | str:
        """Look a transform up.

        Args:
            target: Name of the target frame.
            source: Name of the source frame.
            stamp: ns; poses before and after it are interpolated. None: not known, so that only
                static poses count.
            arrival: When the image came, ns: static poses and jumps of time count as at that
                moment, before the first as after it; None: as at the end.

        Returns:
            target_from_source (4, 4), or the reason why it is not known.
        """
        with self._lock:
            up, no_further_up = self._chain(source, stamp, arrival)
            down, no_further_down = self._chain(target, stamp, arrival)
        common = next((frame for frame in up if frame in down), None)
        if target in up:  # as tf2: then a circle above it does not matter
            common = target
        circle = no_further_up.startswith(_CIRCLE) or no_further_down.startswith(_CIRCLE)
        if common is None or (circle and target not in up):
            apart = (
                f"'{target}' and '{source}' are not connected by transforms; there are "
                f"{shorten(self.frames, 20) or 'none'}"
            )
            return no_further_up or no_further_down or apart
        pose: Floats = np.linalg.inv(down[common]) @ up[common]
        return pose

    def _chain(
        self, frame: str, stamp: int | None, arrival: int | None
    ) -> tuple[dict[str, Floats], str]:
        """ancestor_from_frame of the frame itself and its ancestors, nearest first.

        The text is empty, or the reason why the chain ends before the root.
        """
        chain = {frame: np.eye(4)}
        matrix = np.eye(4)
        while spans := self._spans.get(frame):
            span = spans[-1]
            if arrival is not None:
                after = bisect.bisect_right(spans, arrival, key=lambda span: span.begin)
                span = spans[max(after - 1, 0)]
                if not span.static and self._epoch_of(span.begin) != self._epoch_of(
                    arrival
                ):
                    return (
                        chain,
                        f"'{frame}' is not known on this side of a jump back of time",
                    )
            found = _at(span, frame, stamp, self._gap)
            if isinstance(found, str):
                return chain, found
            parent, pose = found
            if parent in chain:
                return chain, f"{_CIRCLE}: {shorten(chain, 20)}"
            matrix = pose @ matrix
            frame = parent
            chain[frame] = matrix
        return chain, ""


_CIRCLE = "the transforms go in a circle"


def _unusable(parent: str, child: str, translation: Floats, length: float) -> str:
    """Why a pose cannot be used; empty if it can."""
    if not child or not parent:
        return "transforms without the name of a frame"
    if max(len(parent), len(child)) > _LONGEST_NAME:
        return f"transforms with a name of more than {_LONGEST_NAME} characters"
    if parent == child:
        return "transforms of a frame into itself"
    if not (np.abs(translation) < _FARTHEST).all():
        return "transforms with a translation that is not finite"
    if not 1e-6 < length < 1e6:
        return "transforms with a quaternion without direction"
    return ""


def _same(a: _Pose, b: _Pose) -> bool:
    """Whether two poses are equal but for rounding."""
    return (
        a.parent == b.parent
        and bool(np.abs(a.translation - b.translation).max() < 1e-6)
        and abs(float(a.quaternion @ b.quaternion)) > 1 - 1e-9
    )


def _at(span: _Span, frame: str, stamp: int | None, gap: float) -> tuple[str, Floats] | str:
    """Interpolate a pose.

    Args:
        span: The poses.
        frame: Name of the frame, for the reason.
        stamp: ns; None: not known.
        gap: Longest time between two poses that is bridged, ns.

    Returns:
        The parent and parent_from_frame (4, 4), or the reason why they are not known: nothing is
        extrapolated.
    """
    if span.static:
        return _posed(span.poses[0])
    if stamp is None:
        return f"'{frame}' moves, and the image has no stamp of its own"
    after = bisect.bisect_left(span.stamps, stamp)
    if after < len(span.stamps) and span.stamps[after] == stamp:
        return _posed(span.poses[after])
    older = span.poses[max(after - 1, 0)]
    known = f"'{frame}' is known in '{older.parent}'"
    if after in (0, len(span.stamps)):
        first = (span.stamps[0] - stamp) / 1e9
        last = (span.stamps[-1] - stamp) / 1e9
        clocks = ""
        if min(abs(first), abs(last)) > _OTHER_CLOCK:
            clocks = ": the stamps of transforms and images are not of one clock"
        return f"{known} from {first:+.3f} to {last:+.3f} s about the image only{clocks}"
    apart = span.stamps[after] - span.stamps[after - 1]
    if apart > gap:
        return f"{known} not for {apart / 1e9:.1f} s about the image; {gap / 1e9:g} s are bridged"
    newer = span.poses[after]
    if older.parent != newer.parent:
        return _posed(older)
    part = (stamp - span.stamps[after - 1]) / apart
    translation = older.translation + part * (newer.translation - older.translation)
    rotation = _interpolate_rotation(older.quaternion, newer.quaternion, part)
    return older.parent, _matrix(translation, rotation)


def _posed(pose: _Pose) -> tuple[str, Floats]:
    return pose.parent, _matrix(pose.translation, Rotation.from_quat(pose.quaternion))


def _interpolate_rotation(a: Floats, b: Floats, part: float) -> Rotation:
    """The rotation that lies `part` of the shorter way from quaternion a to b (4,)."""
    return Slerp([0.0, 1.0], Rotation.from_quat(np.stack([a, b])))(part)


def _matrix(translation: Floats, rotation: Rotation) -> Floats:
    matrix = np.eye(4)
    matrix[:3, :3] = rotation.as_matrix()
    matrix[:3, 3] = translation
    return matrix
