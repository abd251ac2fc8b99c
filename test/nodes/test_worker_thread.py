"""The threads of the nodes: which item they process, and which threads they leave behind."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from uns_pose_ros.nodes.worker_thread import ArrivalRhythm, Worker, run_in_temporary_thread

PATIENCE = 60.0  # s
PERIOD = 0.04  # s, between two images


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


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """A rhythm in which the next item is always worth waiting for; set when it is asked."""
    asked = threading.Event()

    def patience(rhythm: ArrivalRhythm, now: float) -> float:
        asked.set()
        return PATIENCE

    monkeypatch.setattr(ArrivalRhythm, "patience", patience)
    return asked


def test_an_old_item_is_left_for_the_next_one_and_counted(patient: threading.Event) -> None:
    done = threading.Event()
    seen = list[int]()
    replaced = list[int]()

    def work(item: int) -> None:
        seen.append(item)
        done.set()

    worker: Worker[int] = Worker(work, lambda: replaced.append(1), fresh=True)
    worker.put(1)
    assert patient.wait(PATIENCE)
    worker.put(2)
    assert done.wait(PATIENCE)
    assert worker.stop(PATIENCE)
    assert (seen, len(replaced)) == ([2], 1)


def test_a_request_and_the_end_do_not_wait_for_the_next_item(
    patient: threading.Event,
) -> None:
    called = threading.Event()
    worker: Worker[int] = Worker(lambda item: None, lambda: None, fresh=True)
    worker.put(1)
    assert patient.wait(PATIENCE)
    assert worker.interpose(called.set, 1)
    assert called.wait(PATIENCE / 2)
    assert worker.stop(PATIENCE / 2)


def rhythm_of(*gaps: float) -> ArrivalRhythm:
    """A rhythm whose last item came at time 0."""
    rhythm = ArrivalRhythm()
    now = -sum(gaps)
    rhythm.arrived(now)
    for gap in gaps:
        now += gap
        rhythm.arrived(now)
    return rhythm


def test_an_item_that_came_just_now_is_taken() -> None:
    rhythm = rhythm_of(*[PERIOD] * 6)
    assert rhythm.patience(0.0) == 0
    assert rhythm.patience(0.49 * PERIOD) == 0


def test_an_item_is_left_for_the_next_one_where_that_is_nearer() -> None:
    rhythm = rhythm_of(*[PERIOD] * 6)
    assert rhythm.patience(0.75 * PERIOD) == pytest.approx(0.5 * PERIOD, abs=1e-6)


def test_nothing_is_waited_for_long_where_the_camera_ends() -> None:
    rhythm = rhythm_of(*[PERIOD] * 6)
    assert rhythm.patience(100.0) == pytest.approx(0.25 * PERIOD, abs=1e-6)


def test_a_receiver_that_misses_images_knows_the_rhythm_still() -> None:
    missed = rhythm_of(*[2 * PERIOD, 3 * PERIOD, PERIOD, 2 * PERIOD] * 4)
    assert missed.patience(0.75 * PERIOD) < 2 * PERIOD


def test_nothing_is_waited_for_before_the_rhythm_is_known() -> None:
    assert ArrivalRhythm().patience(1.0) == 0
    assert rhythm_of(PERIOD, PERIOD).patience(0.75 * PERIOD) == 0


@pytest.mark.parametrize("share", [0.1, 0.3, 0.6, 0.9, 1.2])
def test_the_newest_answer_is_never_older_for_the_wait(share: float) -> None:
    """The wait for an image that comes in time is shorter than what it is younger by."""
    rhythm = rhythm_of(*[PERIOD] * 6)
    waited = share * PERIOD
    if rhythm.patience(waited) > 0:
        assert max(PERIOD - waited, 0.0) <= waited
