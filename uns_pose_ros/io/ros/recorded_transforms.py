"""The transforms of a bag: one tree, from the topics that belong to the camera.

A robot keeps its tree on /tf and /tf_static; several robots keep theirs on /r1/tf, /r2/tf and so
on. Trees without common frames are one tree. Where two topics know the same frame differently, the
tree of the camera's namespace counts, or the one of the user; both together would be wrong.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.io.ros import rosbag
from uns_pose_ros.io.ros.ros_messages import TF, nanoseconds
from uns_pose_ros.io.ros.transform_buffer import TransformTree

_GAP = 0.5  # s, longest time between two transforms that is bridged
_MOST = 10_000_000  # messages
_JUMP = 500_000_000  # ns that a stamp goes back where time jumps; less is disorder
_COMPARED = 10_000  # poses of a frame that are compared between two topics
_STATIC = "_static"

_log = logging.getLogger(__name__)

_Key: TypeAlias = tuple[Any, ...]  # a pose as numbers, with its parent


@dataclass(eq=False)
class _Group:
    """A topic of moving transforms and the static one beside it; either may be missing."""

    name: str  # of the topic of moving transforms
    topics: list[str] = field(default_factory=list)
    poses: dict[str, dict[int, _Key]] = field(default_factory=dict)  # by frame and stamp

    @property
    def namespace(self) -> str:
        """Namespace of the topics, without a slash at its end."""
        return self.name.rpartition("/")[0]

    def knows_otherwise(self, other: _Group) -> list[str]:
        """Frames of both groups whose poses are not the same ones, sent twice."""
        return [
            child
            for child in sorted(self.poses.keys() & other.poses.keys())
            if not _are_copies(self.poses[child], other.poses[child])
        ]

    def knows(self, frames: Sequence[str]) -> bool:
        """Whether all of the frames are in the tree."""
        parents = {pose[0] for poses in self.poses.values() for pose in poses.values()}
        return {*frames} <= parents | self.poses.keys()


def _are_copies(a: dict[int, _Key], b: dict[int, _Key]) -> bool:
    common = a.keys() & b.keys()
    enough = len(common) * 2 > min(len(a), len(b))
    return enough and all(a[stamp] == b[stamp] for stamp in common)


def read_transforms(
    path: Path,
    reader: Any,
    kinds: dict[str, str],
    image_topic: str,
    frames: Sequence[str],
    tf_topic: str | None = None,
) -> TransformTree:
    """Read the transforms of a bag, merged by arrival, and warn of what is wrong with them.

    Args:
        path: The bag, for messages.
        reader: Its reader.
        kinds: Types of the messages by topic.
        image_topic: Topic of the images, whose namespace chooses among several trees.
        frames: Frames that the caller needs.
        tf_topic: Topic of the transforms; its static topic goes with it. None: chosen.

    Returns:
        The tree; lookups take the arrival of an image, as it is recorded.

    Raises:
        InvalidInput: There are no transforms, one of the frames is not known, or several topics
            contradict each other and nothing says which one counts.
    """
    groups = _groups(kinds)
    if not groups:
        frame = frames[0] if frames else "of the truth"
        raise InvalidInput(
            f"{path}: no transforms (tf2_msgs/TFMessage on /tf), so frame {frame} gives no poses"
        )
    name, topics = _topics(path, reader, groups, image_topic, frames, tf_topic)
    tree, returns = _fill(path, reader, topics, ())
    jumps = _jumps(path, reader, image_topic, returns) if returns else []
    if jumps:
        tree, _ = _fill(path, reader, topics, jumps)
        _log.warning(
            "%s: time jumps back %d times; an image counts with the transforms of its own part",
            path,
            len(jumps),
        )
    for fault, count in tree.faults.items():
        _log.warning("%s: transforms: %s (%d times)", path, fault, count)
    for frame in frames:
        if frame.lstrip("/") not in tree.frames:
            raise InvalidInput(
                f"{path}: {name} has no frame {frame!r}; its frames: {shorten(tree.frames, 20)}"
            )
    return tree


def _is_static(topic: str) -> bool:
    return _STATIC in topic.rpartition("/")[2]


def _groups(kinds: dict[str, str]) -> dict[str, _Group]:
    """Topics of transforms by the name of their topic of moving ones."""
    groups: dict[str, _Group] = {}
    for topic in sorted(topic for topic, kind in kinds.items() if kind == TF):
        namespace, slash, base = topic.rpartition("/")
        name = f"{namespace}{slash}{base.replace(_STATIC, '')}"
        groups.setdefault(name, _Group(name)).topics.append(topic)
    return groups


def _topics(
    path: Path,
    reader: Any,
    groups: dict[str, _Group],
    image_topic: str,
    frames: Sequence[str],
    wanted: str | None,
) -> tuple[str, list[str]]:
    """Name of the tree in messages, and the topics that make it."""
    every = sorted(topic for group in groups.values() for topic in group.topics)
    if wanted is not None:
        chosen = next(
            (g for g in groups.values() if wanted in g.topics or wanted == g.name), None
        )
        if chosen is None:
            raise InvalidInput(
                f"{path}: no transforms on {wanted!r}; topics with some: {shorten(every, 20)}"
            )
        return chosen.name, _complete(chosen, groups)
    if len(groups) == 1:
        return next(iter(groups)), every
    _read_poses(path, reader, groups)
    rivals = {
        (a.name, b.name): common
        for a in groups.values()
        for b in groups.values()
        if a.name < b.name and (common := a.knows_otherwise(b))
    }
    if not rivals:
        return " and ".join(groups), every
    names = sorted({name for pair in rivals for name in pair})
    image_frame = _image_frame(path, reader, image_topic)
    needed = [frame.lstrip("/") for frame in (image_frame, *frames)]
    chosen = _nearest(groups, image_topic)
    if chosen is None or (chosen.name not in names and not chosen.knows(needed)):
        fitting = [groups[name] for name in names if groups[name].knows(needed)]
        chosen = fitting[0] if len(fitting) == 1 else None
    if chosen is None:
        first, second = next(iter(rivals))
        raise InvalidInput(
            f"{path}: {first} and {second} both know {shorten(rivals[first, second])}, each in a "
            f"tree of its own; name one by --tf-topic: {shorten(names, 20)}"
        )
    kept = {*_complete(chosen, groups)}
    kept |= {t for name, group in groups.items() if name not in names for t in group.topics}
    _log.warning(
        "%s: transforms of %s; %s left out, since the same frames are there "
        "(--tf-topic takes another)",
        path,
        chosen.name,
        shorten([topic for topic in every if topic not in kept], 20),
    )
    return chosen.name, sorted(kept)


def _complete(chosen: _Group, groups: dict[str, _Group]) -> list[str]:
    """The topics of a group; what it lacks, static or moving, from the nearest outer namespace."""
    topics = list(chosen.topics)
    for static in (False, True):
        if any(_is_static(topic) == static for topic in chosen.topics):
            continue
        for namespace in _namespaces(chosen.namespace):
            outer = groups.get(f"{namespace}/tf")
            found = [t for t in outer.topics if _is_static(t) == static] if outer else []
            if found:
                topics += found
                break
    return topics


def _namespaces(namespace: str) -> Iterator[str]:
    """A namespace and all outer ones, the innermost first; the last one is empty."""
    while namespace:
        yield namespace
        namespace = namespace.rpartition("/")[0]
    yield ""


def _nearest(groups: dict[str, _Group], image_topic: str) -> _Group | None:
    """The tree of the innermost namespace around the image topic; None where there is none."""
    for namespace in _namespaces(image_topic.rpartition("/")[0]):
        if f"{namespace}/tf" in groups:
            return groups[f"{namespace}/tf"]
    return None


def _image_frame(path: Path, reader: Any, image_topic: str) -> str:
    for message in rosbag.messages(path, reader, image_topic, 1, cut=True):
        return str(message.header.frame_id)
    return ""


def _read_poses(path: Path, reader: Any, groups: dict[str, _Group]) -> None:
    """Read which frames each group knows, and the first poses of each."""
    by_topic = {topic: group for group in groups.values() for topic in group.topics}
    for topic, _, message in rosbag.timed_messages(path, reader, [*by_topic], _MOST):
        for item in message.transforms:
            poses = by_topic[topic].poses.setdefault(item.child_frame_id.lstrip("/"), {})
            if len(poses) < _COMPARED:
                shift, turn = item.transform.translation, item.transform.rotation
                stamp = 0 if _is_static(topic) else nanoseconds(item.header.stamp)
                poses[stamp] = (
                    item.header.frame_id.lstrip("/"),
                    *(shift.x, shift.y, shift.z),
                    *(turn.x, turn.y, turn.z, turn.w),
                )


def _fill(
    path: Path, reader: Any, topics: Sequence[str], jumps: Sequence[int]
) -> tuple[TransformTree, list[int]]:
    """The tree, and the arrivals of moving transforms whose stamps go back, ns."""
    tree = TransformTree(math.inf, _GAP, recording=True, jumps=jumps)
    returns = list[int]()
    newest: dict[str, int] = {}
    for topic, arrival, message in rosbag.timed_messages(path, reader, topics, _MOST):
        static = _is_static(topic)
        tree.take(message, static, arrival)
        for item in message.transforms if not static else ():
            stamp = nanoseconds(item.header.stamp)
            if stamp < newest.get(item.child_frame_id, stamp) - _JUMP:
                returns.append(arrival)
            newest[item.child_frame_id] = stamp
    return tree, returns


def _jumps(path: Path, reader: Any, image_topic: str, returns: Sequence[int]) -> list[int]:
    """Arrivals at which time jumps back, by the images; the transforms say the exact moment."""
    jumps = list[int]()
    before: tuple[int, int] | None = None  # arrival and stamp of the last image
    for _, arrival, message in rosbag.timed_messages(path, reader, [image_topic], _MOST):
        stamp = nanoseconds(message.header.stamp)
        if before is not None and stamp < before[1] - _JUMP:
            between = (time for time in returns if before[0] < time <= arrival)
            jumps.append(min(between, default=arrival))
        before = arrival, stamp
    return jumps
