"""A few slots and one thread.

Items are worked on in their order; where all slots are full, the oldest gives way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

T = TypeVar("T")


def run_in_temporary_thread(work: Callable[[], T]) -> T:
    """What `work` gives or raises, done in a thread that ends with it.

    The threads that PyTorch computes with belong to the one that first computed, and end with it.
    Left behind they make OpenMP count more threads than cores, and those of another one sleep
    whenever they wait: 1.7 times the time of an estimate.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


class Worker(Generic[T]):
    """Runs `work` on items put; `put` never waits for it.

    With the one slot of the default the newest item is worked on.
    """

    def __init__(
        self, work: Callable[[T], None], on_replaced: Callable[[], None], slots: int = 1
    ) -> None:
        """on_replaced: called for every item that gave way to a newer one before it was begun."""
        self._work, self._on_replaced = work, on_replaced
        self._changed = threading.Condition()
        self._waiting: deque[T] = deque()
        self._slots = slots
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item.

        Where there is no room, the oldest one not begun is dropped and `on_replaced` called.
        """
        with self._changed:
            replaced = len(self._waiting) >= self._slots
            if replaced:
                self._waiting.popleft()
            self._waiting.append(item)
            self._changed.notify()
        if replaced:
            self._on_replaced()

    def offer(self, item: T) -> bool:
        """Hand over an item if there is room for it and the worker has not been stopped.

        Whether it was taken.
        """
        with self._changed:
            if self._stopped or len(self._waiting) >= self._slots:
                return False
            self._waiting.append(item)
            self._changed.notify()
        return True

    def stop(self, timeout: float, finish: bool = False) -> bool:
        """Finish the item being worked on, and with `finish` those waiting, which are dropped
        otherwise.

        False where it takes longer than `timeout` s.
        """
        with self._changed:
            self._stopped = True
            if not finish:
                self._waiting.clear()
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or bool(self._waiting))
                if not self._waiting:
                    return
                item = self._waiting.popleft()
            self._work(item)
