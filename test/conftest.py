"""Fixtures for the tests that talk over ROS: every test has its own domain and leaves no process behind."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ros_robot import Robot

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"
os.environ["ROS_PYTHON_CHECK_FIELDS"] = "1"  # else an int in a float64 field goes out as rubbish, unnoticed
os.environ.setdefault("AMENT_PREFIX_PATH", sys.prefix)  # the wheels do not set it
_DOMAINS = itertools.count(os.getpid())


@pytest.fixture
def ros_domain(monkeypatch: pytest.MonkeyPatch) -> int:
    """A ROS domain of the test's own, also for the processes that it starts."""
    domain = 1 + next(_DOMAINS) % 101
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    return domain


@pytest.fixture
def robot(ros_domain: int) -> Iterator[Robot]:
    """The other end of the estimator node's topics."""
    from ros_robot import Robot

    robot = Robot(ros_domain)
    yield robot
    robot.close()
