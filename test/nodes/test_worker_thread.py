"""The threads of the nodes: which item they process, and which threads they leave behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from uns_pose_ros.nodes.worker_thread import Worker, run_in_temporary_thread

PATIENCE = 60.0  # s


def test_the_worker_processes_the_newest_item_and_counts_the_replaced_ones() -> None:
    begun = threading.Event()
    go = threading.Event()
    done = threading.Event()
    seen = list[int]()
    replaced = list[int]()

    def work(item: int) -> None:
        seen.append(item)
        begun.set()
        go.wait(PATIENCE)
        if item == 5:
            done.set()

    worker: Worker[int] = Worker(work, lambda: replaced.append(1))
    worker.put(1)
    assert begun.wait(PATIENCE)
    for item in (2, 3, 4, 5):
        worker.put(item)
    go.set()
    assert done.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    assert (seen, len(replaced)) == ([1, 5], 3)


def test_a_worker_with_slots_keeps_the_order_drops_the_oldest_and_finishes_what_waits() -> (
    None
):
    go = threading.Event()
    begun = threading.Event()
    seen = list[int]()
    replaced = list[int]()

    def work(item: int) -> None:
        begun.set()
        go.wait(PATIENCE)
        seen.append(item)

    worker: Worker[int] = Worker(work, lambda: replaced.append(1), slots=2)
    worker.put(0)
    assert begun.wait(PATIENCE)
    for item in (1, 2, 3):
        worker.put(item)
    assert not worker.offer(4)
    go.set()
    assert worker.stop(60, finish=True)
    assert (seen, len(replaced)) == ([0, 2, 3], 1)
    assert not worker.offer(5)


def test_a_temporary_thread_leaves_no_compute_threads() -> None:
    """The test runs in a process of its own, where PyTorch has not computed yet."""
    code = """
import os, time, torch
from uns_pose_ros.nodes.worker_thread import run_in_temporary_thread
count = lambda: len(os.listdir("/proc/self/task"))
torch.set_num_threads(2)
product = lambda: float((torch.ones(800, 800) + 1).exp().mm(torch.ones(800, 800)).sum())
before = count()
assert run_in_temporary_thread(product) > 0
end = time.monotonic() + 30
while count() > before and time.monotonic() < end:
    time.sleep(0.05)
print(count() - before)
product()
print(count() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120
    )
    # computed in the main thread, the product leaves the second compute thread
    assert done.stdout.split() == ["0", "1"], done.stderr[-500:]


def test_an_error_in_a_temporary_thread_is_raised_in_the_caller() -> None:
    with pytest.raises(ZeroDivisionError):
        run_in_temporary_thread(lambda: 1 // 0)
    assert run_in_temporary_thread(lambda: 3) == 3
