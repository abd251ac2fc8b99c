"""What a model's own videos say about the poses to expect, in words."""

from __future__ import annotations

from math import sqrt
from statistics import median, stdev

from uns_pose_ros.core.types import CategoryModel

_FEW = 6  # videos; with fewer, another instance helps most
_WEAK, _STRONG = 50.0, 80.0  # percent within 30 degrees of a weak video, and of the others


def describe_expectation(model: CategoryModel) -> list[str]:
    """Sentences about `CategoryModel.left_out`; none if it was not measured."""
    figures = model.left_out
    if not figures.get("images"):
        return []
    middle = figures["median_deg"]
    spread = _spread(list(figures["videos"].values()))
    shares = (
        f"{figures['acc30']:.0f}{spread} % within 30°, {figures['acc10']:.0f} % within 10°"
    )
    if middle is not None:
        shares += f", median {middle:.1f}°"
    region = figures["region95"]
    held = "" if region is None else f", the 95 % region holds in {region:.0f} %"
    lines = [
        f"cautious estimate for new instances: {shares}, {figures['answered']:.0f} % answered"
        f"{held} ({figures['images']} images of its own videos, each by a head that learned from "
        "half of the others)"
    ]
    if advice := _advice(figures["videos"]):
        lines.append(advice)
    return lines


def _spread(shares: list[float]) -> str:
    """The standard error of the mean share, by how much the instances differ."""
    if len(shares) < 3:
        return ""
    return f" ± {stdev(shares) / sqrt(len(shares)):.0f}"


def _advice(videos: dict[str, float]) -> str:
    """What would help most, by the percent within 30 degrees of each video."""
    weakest = min(videos, key=lambda name: videos[name])
    others = [share for name, share in videos.items() if name != weakest]
    if others and videos[weakest] <= _WEAK and median(others) >= _STRONG:
        return (
            f"weakest: {weakest}, {videos[weakest]:.0f} % within 30°, the others "
            f"{median(others):.0f} %: look at its masks and axes in the report; where they are "
            "right, more instances like it help most"
        )
    if len(videos) < _FEW:
        return (
            f"learned from {len(videos)} videos: more instances help most; the estimate is a low "
            f"one, since a head of it learned from {max(1, len(videos) // 2)} of them"
        )
    return ""
