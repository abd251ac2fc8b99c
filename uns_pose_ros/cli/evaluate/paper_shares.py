"""The categories of the paper's chain shared out among processes.

A process takes the next category that is neither done nor taken, so the same command may run any
number of times at once: as torchrun starts it, on several machines with one disk, or as the jobs
of a Ray cluster. The lock of a process that died is free, and another one goes on from the results
that are there.
"""

from __future__ import annotations

import io
import os
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path

import torch

from uns_pose_ros.alignment.ray_executor import Cluster
from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import DiskError, InvalidInput, shorten
from uns_pose_ros.core.types import Progress
from uns_pose_ros.io.writing.target_lock import TargetLock
from uns_pose_ros.pipeline.reproduction import PaperPlan

_POLL = 1.0  # s between two looks at categories that other processes work on
# what torchrun tells its processes; with it, they would train one model together
_TORCHRUN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_RANK")


@dataclass(frozen=True)
class ProcessShare:
    """This process among those that torchrun started."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0

    @staticmethod
    def from_environment() -> ProcessShare:
        """Read what torchrun set; without torchrun, this process is alone."""
        numbers = [
            os.environ.get(name, "") for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK")
        ]
        if not all(number.isdecimal() for number in numbers[:2]):
            return ProcessShare()
        local = int(numbers[2]) if numbers[2].isdecimal() else int(numbers[0])
        return ProcessShare(int(numbers[0]), int(numbers[1]), local)

    def device(self, name: str) -> str:
        """The device of this process, where a person named one for all."""
        if self.world == 1 or name not in ("auto", "cuda") or not torch.cuda.is_available():
            return name
        return f"cuda:{self.local_rank % torch.cuda.device_count()}"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Hide what torchrun set: each process trains models of its own."""
        hidden = {name: os.environ.pop(name) for name in _TORCHRUN if name in os.environ}
        try:
            yield
        finally:
            os.environ.update(hidden)


def work_on_categories(plan: PaperPlan, into: Path, share: ProcessShare) -> None:
    """Do categories until all of them are done, by this process or by others.

    Args:
        plan: The chain.
        into: Folder of the results.
        share: This process; its number stands before its lines.

    Raises:
        InvalidInput: A step failed.
    """
    start = f"[{share.rank}] " if share.world > 1 else ""
    waiting = False
    with share.alone():
        while left := [name for name in plan.results if not plan.is_done(name)]:
            taken = False
            for category in left:
                lock = _take(into, category)
                if lock is None:
                    continue
                taken = True
                try:
                    if not plan.is_done(category):
                        _do_steps(plan, category, start)
                finally:
                    lock.release()
            if not taken:
                if not waiting:
                    text = (
                        f"{start}other processes are at {shorten(left)}; waiting for them"
                    )
                    _say(text)
                waiting = True
                time.sleep(_POLL)


def _take(into: Path, category: str) -> TargetLock | None:
    """The lock of a category; None: another process has it."""
    try:
        return TargetLock(into / "results" / category)
    except DiskError:
        raise
    except InvalidInput:
        return None


def _say(line: str) -> None:
    """Write a line to stderr at once: without a buffer, `print` writes its end by itself."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def _do_steps(plan: PaperPlan, category: str, start: str) -> None:
    for step in plan.by_category[category]:
        if step.is_done:
            continue
        _say(f"{start}uns-pose {' '.join(step.words)}")
        code = main.run_quietly(step.words)
        if code != main.DONE:
            raise InvalidInput(
                f"the step `uns-pose {' '.join(step.words)}` ended with {code}; mend what it "
                "says, then run the same command again"
            )


def work_on_cluster(
    plan: PaperPlan,
    folders: Sequence[Path],
    into: Path,
    cluster: Cluster,
    progress: Progress,
) -> None:
    """Do each category as a job of a Ray cluster, whose machines share the disk.

    Args:
        plan: The chain, with absolute paths.
        folders: What every machine must see.
        into: Folder of the results.
        cluster: The cluster.
        progress: Receives the number of categories that ended.

    Raises:
        InvalidInput: Steps failed; the others were done all the same.
    """
    left = [name for name in plan.results if not plan.is_done(name)]
    said = cluster.map(
        do_category, (plan, folders, into), left, progress, "categories", large=True
    )
    if faults := [f"{name}: {text}" for name, text in zip(left, said, strict=True) if text]:
        raise InvalidInput("; ".join(faults))


def do_category(common: tuple[PaperPlan, Sequence[Path], Path], category: str) -> str:
    """Do a category in a process of a cluster; returns what failed, empty if nothing did."""
    plan, folders, into = common
    here = socket.gethostname()
    if missing := [str(folder) for folder in folders if not folder.is_dir()]:
        return f"{here} does not see {shorten(missing)}; a disk that all machines share is valid"
    lines = io.StringIO()
    with redirect_stderr(lines):
        lock = _take(into, category)
        if lock is None:
            return f"another process is at work on it ({here}); wait for it, or end it"
        try:
            _do_steps(plan, category, "")
        except InvalidInput as error:
            last = [line for line in lines.getvalue().splitlines() if line.strip()][-1:]
            return "; ".join([*last, f"on {here}, {error}"])
        finally:
            lock.release()
    return ""
