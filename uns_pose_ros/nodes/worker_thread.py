"""One thread that processes items in their order, from a queue that drops the oldest item."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar, cast

T = TypeVar("T")

_KEPT = 16  # times between two arrivals
_FEWEST = 4  # of them, before anything is waited for
_QUANTILE = 0.25  # of them that is the rhythm: a busy receiver misses images
_SLACK = 0.25  # time that an image may be late, as a share of the rhythm


def run_in_temporary_thread(work: Callable[[], T]) -> T:
    """Call `work` in a thread that ends afterwards; return its result or raise its error.

    The compute threads of PyTorch belong to the thread that computes first, and end with it. If
    they stay, OpenMP counts more threads than cores, and the compute threads of every other thread
    sleep whenever they wait: an estimate takes 1.7 times as long.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class ArrivalRhythm:
    """Whether a newer image is worth waiting for, from the rhythm in which images come.

    A camera sends images while the worker thread is busy; the newest one waits. If it has waited
    for more than half of the time between two images, the next one is nearer than the last: its
    answer comes a little later and is fresher by more. The caller guards it against other threads.
    """

    def __init__(self) -> None:
        """Begin without arrivals."""
        self._last: float | None = None
        self._gaps: deque[float] = deque(maxlen=_KEPT)

    def arrived(self, now: float) -> None:
        """Note that an item comes now, s."""
        if self._last is not None:
            self._gaps.append(now - self._last)
        self._last = now

    def patience(self, now: float) -> float:
        """How long to wait for the next item in place of the last one, s; 0: take the last one."""
        if self._last is None or len(self._gaps) < _FEWEST:
            return 0.0
        rhythm = sorted(self._gaps)[int(_QUANTILE * len(self._gaps))]
        waited = now - self._last
        if waited <= rhythm / 2:
            return 0.0
        return max(rhythm - waited, 0.0) + _SLACK * rhythm


class Worker(Generic[T]):
    """Calls a function for each item in a thread of its own; `put` never waits for it.

    With one slot, the default, the newest item is processed next.
    """

    def __init__(
        self,
        work: Callable[[T], None],
        on_replaced: Callable[[], None],
        slots: int = 1,
        fresh: bool = False,
    ) -> None:
        """Start the thread.

        Args:
            work: The function processes one item.
            on_replaced: The function is called for every waiting item that a newer one replaces.
            slots: Items that may wait.
            fresh: Whether an item that has waited for long is left for the next one, if that comes
                soon; see `ArrivalRhythm`. It needs one slot.
        """
        assert slots == 1 or not fresh
        self._rhythm = ArrivalRhythm() if fresh else None
        self._work, self._on_replaced = work, on_replaced
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._urgent: deque[Callable[[], None]] = deque()
        self._slots = slots
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Add an item; if no slot is free, drop the oldest waiting item and call `on_replaced`."""
        with self._changed:
            replaced = len(self._waiting) >= self._slots
            if replaced:
                self._waiting.popleft()
            self._waiting.append(item)
            if self._rhythm is not None:
                self._rhythm.arrived(time.monotonic())
            self._changed.notify()
        if replaced:
            self._on_replaced()

    def offer(self, item: T) -> bool:
        """Add an item if a slot is free and the worker runs; return whether it was added."""
        with self._changed:
            if self._stopped or len(self._waiting) >= self._slots:
                return False
            self._waiting.append(item)
            self._changed.notify()
        return True

    def interpose(self, job: Callable[[], None], most: int) -> bool:
        """Call a function in the thread before all waiting items.

        Args:
            job: The function; it must not raise.
            most: Functions that may wait at most.

        Returns:
            Whether it is added: False if too many wait or the worker is stopped.
        """
        with self._changed:
            if self._stopped or len(self._urgent) >= most:
                return False
            self._urgent.append(job)
            self._changed.notify()
        return True

    def stop(self, timeout: float, finish: bool = False) -> bool:
        """Finish the present item and end the thread.

        Args:
            timeout: Time to wait for the thread, s.
            finish: Process the waiting items too; false: drop them.

        Returns:
            False if the thread still runs.
        """
        with self._changed:
            self._stopped = True
            if not finish:
                self._waiting.clear()
                self._urgent.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(
                    lambda: self._stopped or bool(self._waiting or self._urgent)
                )
                self._wait_for_a_fresh_one()
                if not self._waiting and not self._urgent:
                    return
                job = self._urgent.popleft() if self._urgent else None
                item = self._waiting.popleft() if job is None else None
            if job is not None:
                job()
            else:
                self._work(cast(T, item))

    def _wait_for_a_fresh_one(self) -> None:
        """Wait for an item that replaces the one that waits, where that is worth it."""
        if self._rhythm is None or not self._waiting:
            return
        patience = self._rhythm.patience(time.monotonic())
        if patience > 0:
            old = self._waiting[0]
            self._changed.wait_for(
                lambda: self._stopped or bool(self._urgent) or self._waiting[0] is not old,
                patience,
            )
