"""Run independent jobs in the processes of a Ray cluster, on this machine or on others."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any, TypeVar

from uns_pose_ros.core.errors import InvalidInput
from uns_pose_ros.core.types import Progress

LOCAL = "local"  # processes of this machine, one for each core
_RETRIES = 5  # of a job whose process was killed
_TIMEOUT = 5.0  # s to connect to an address; Ray itself would try for minutes

Job = TypeVar("Job")
Common = TypeVar("Common")
Result = TypeVar("Result")


class Cluster:
    """A connection to Ray, open within a `with` block.

    The processes that it starts on this machine end with the block. The machines of the cluster
    need the same version of this package.
    """

    def __init__(self, address: str) -> None:
        """Store the address; the connection opens with the block.

        Entering the block raises InvalidInput if Ray is not installed or the cluster does not
        answer.

        Args:
            address: "local", "auto" (the cluster that already runs on this machine) or HOST:PORT of
                a cluster's head.
        """
        self._address = address

    def __enter__(self) -> Cluster:
        try:
            import ray
        except ImportError:
            raise InvalidInput(
                "a cluster needs Ray: pip install 'uns_pose_ros[cluster]'"
            ) from None
        if self._address not in (LOCAL, "auto"):
            self._check_connection()
        os.environ.setdefault(
            "RAY_USAGE_STATS_ENABLED", "0"
        )  # otherwise Ray reports its use
        options: dict[str, Any] = (
            {"include_dashboard": False} if self._address == LOCAL else {}
        )
        handler = signal.getsignal(signal.SIGTERM)
        try:
            ray.init(
                address=self._address,
                log_to_driver=False,
                logging_level=logging.ERROR,
                **options,
            )
        except (ConnectionError, ValueError, RuntimeError, TimeoutError) as error:
            raise self._fault(str(error).strip().splitlines()[0]) from None
        finally:
            # Ray's own handler would end the process at once, and stays after Ray's end
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, handler)
        self._ray: Any = ray
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._ray.shutdown()

    def map(
        self,
        function: Callable[[Common, Job], Result],
        common: Common,
        jobs: Sequence[Job],
        progress: Progress | None = None,
        what: str = "jobs",
        large: bool = False,
    ) -> list[Result]:
        """Compute function(common, job) for every job, in order.

        A job whose process dies is computed again. Exceptions of the function are raised here.

        Args:
            function: The function.
            common: First argument of every call; each machine receives it once.
            jobs: Second arguments.
            progress: Receives the number of finished jobs.
            what: Name of the work, for `progress`.
            large: The jobs are few and long: each gets its part of the cores, and a GPU of its own
                where the cluster has GPUs. A job has one core else.
        """

        def run_job(common: Common, job: Job) -> Result:  # Ray takes no partial
            return function(common, job)

        need = self._share_of(len(jobs)) if large else {"num_cpus": 1}
        remote = self._ray.remote(**need, max_retries=_RETRIES)(run_job)
        shared = self._ray.put(common)
        waiting = [remote.remote(shared, job) for job in jobs]
        left = waiting
        while left and progress is not None:
            _, left = self._ray.wait(left, num_returns=1)
            progress(what, len(jobs) - len(left), len(jobs))
        results: list[Result] = self._ray.get(waiting)
        return results

    def _share_of(self, count: int) -> dict[str, int]:
        """What each of several large jobs needs, so that all run at once if they can."""
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        cores = [int(machine.get("CPU", 0)) for machine in machines]
        gpus = [int(machine.get("GPU", 0)) for machine in machines]
        if any(gpus):
            each = min(c // g for c, g in zip(cores, gpus, strict=True) if g)
            return {"num_cpus": max(1, each), "num_gpus": 1}
        return {"num_cpus": max(1, min(sum(cores) // max(1, count), max(cores, default=1)))}

    def _check_connection(self) -> None:
        """Raise InvalidInput if no process listens at the address."""
        host, _, port = self._address.removeprefix("ray://").rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) < 65536:
            raise self._fault("no address")
        try:
            socket.create_connection((host, int(port)), timeout=_TIMEOUT).close()
        except OSError as error:
            raise self._fault(f"nothing answers ({error})") from None

    def _fault(self, reason: str) -> InvalidInput:
        return InvalidInput(
            f'cluster "{self._address}": {reason}; valid are local, auto or HOST:PORT of a Ray head'
        )
