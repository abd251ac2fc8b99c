"""A command of `uns-pose` in the test's own process."""

from __future__ import annotations

from uns_pose_ros.cli import main


def run(*words: object) -> int:
    return main.main([str(word) for word in words])
