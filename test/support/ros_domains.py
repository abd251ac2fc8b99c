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
# UDP ports of a domain, from 7400 on, which name the shared memory of Fast DDS too
_FIRST_PORT, _PORTS = 7400, 250
_SHARED_MEMORY = Path("/dev/shm")
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
    remove_unfinished_ports(domain)
    try:
        yield domain
    finally:
        lock.release()


def remove_unfinished_ports(domain: int, folder: Path = _SHARED_MEMORY) -> None:
    """Remove shared memory that a process left empty, because it was killed as it made it.

    Fast DDS waits forever for such a port to be finished.
    """
    first = _FIRST_PORT + _PORTS * domain
    for port in range(first, first + _PORTS):
        path = folder / f"fastrtps_port{port}"
        if path.is_file() and not path.stat().st_size:
            path.unlink(missing_ok=True)
