"""ROS domains that no other test of this machine uses at the same time."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
import tempfile
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

_COUNT = 101  # of the domains from 1 whose ports no operating system hands out
_FOLDER = Path(tempfile.gettempdir()) / f"uns_pose_ros_domains.{os.getuid()}"


@contextlib.contextmanager
def leased_domain() -> Iterator[int]:
    """Lease a domain from 1 to 101; other processes, also other test runs, get other ones."""
    _FOLDER.mkdir(exist_ok=True)
    first = random.SystemRandom().randrange(_COUNT)
    for number in itertools.count(first):
        domain = 1 + number % _COUNT
        lock = FileLock(_FOLDER / str(domain))
        with contextlib.suppress(Timeout):
            lock.acquire(blocking=False)
            break
    try:
        yield domain
    finally:
        lock.release()
