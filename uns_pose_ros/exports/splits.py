"""Which videos train, validate and test: whole videos, never frames of one video in two parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase

from uns_pose_ros.core.errors import InvalidInput, shorten
from uns_pose_ros.exports.label_set import LabelScene, LabelSet


@dataclass(frozen=True)
class SplitConfig:
    """Which videos are kept for validation and for tests."""

    # videos for validation: shell patterns, comma separated; without: a share of each category
    val: str | None = None
    test: str | None = None  # videos for tests: shell patterns, comma separated
    val_share: float = 0.2  # of each category's videos, where --val names none

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise InvalidInput(f"--val-share {self.val_share:g}: 0 to below 1 is valid")


def split_scenes(labels: LabelSet, config: SplitConfig) -> LabelSet:
    """The set with a split for each scene.

    Without patterns, the videos for validation follow from their names alone, so that an export of
    the same videos has the same split.

    Raises:
        InvalidInput: A pattern names no video, or a video has two splits.
    """
    names = [f"{labels.categories[s.category]}/{s.name}" for s in labels.scenes]
    test = _match(names, config.test, "--test")
    val = _match(names, config.val, "--val")
    if test & val:
        raise InvalidInput(
            f"--val and --test both name {shorten(sorted(test & val), 4)}; a video has one split"
        )
    if config.val is None:
        rest = [
            (scene, name)
            for scene, name in zip(labels.scenes, names, strict=True)
            if name not in test
        ]
        val = _choose(rest, config.val_share)
    scenes = []
    for scene, name in zip(labels.scenes, names, strict=True):
        split = "test" if name in test else "val" if name in val else "train"
        scenes.append(replace(scene, split=split))
    return replace(labels, scenes=tuple(scenes))


def _match(names: list[str], patterns: str | None, option: str) -> set[str]:
    """The names `category/video` that patterns of a video or of category/video match."""
    chosen: set[str] = set()
    for pattern in filter(None, (p.strip() for p in (patterns or "").split(","))):
        matches = {
            name
            for name in names
            if fnmatchcase(name, pattern) or fnmatchcase(name.partition("/")[2], pattern)
        }
        if not matches:
            raise InvalidInput(
                f"{option}: no exported video is called {pattern!r}; there are {shorten(names)}"
            )
        chosen |= matches
    return chosen


def _choose(scenes: list[tuple[LabelScene, str]], share: float) -> set[str]:
    """A share of the scenes of each category: at least one of two, never all."""
    chosen: set[str] = set()
    for category in {scene.category for scene, _ in scenes}:
        names = [name for scene, name in scenes if scene.category == category]
        count = round(share * len(names))
        if share > 0:
            count = max(count, 1)
        names.sort(key=lambda name: hashlib.sha256(name.encode()).hexdigest())
        chosen |= set(names[: min(count, len(names) - 1)])
    return chosen
