"""One slot and one thread: the newest item is worked on, an item not yet begun is replaced."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Worker(Generic[T]):
    """Runs `work` on the newest item put; `put` never waits for it."""

    def __init__(self, work: Callable[[T], None], on_replaced: Callable[[], None]) -> None:
        self._work, self._on_replaced = work, on_replaced
        self._changed = threading.Condition()
        self._slot: T | None = None
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="estimator", daemon=True)
        self._thread.start()

    def put(self, item: T) -> None:
        """Hand over an item; where the last one has not been begun, it is replaced and `on_replaced` called."""
        with self._changed:
            replaced, self._slot = self._slot is not None, item
            self._changed.notify()
        if replaced:
            self._on_replaced()

    def stop(self, timeout: float) -> bool:
        """Finish the item being worked on, drop the one waiting; False where it takes longer than `timeout` s."""
        with self._changed:
            self._stopped, self._slot = True, None
            self._changed.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._stopped or self._slot is not None)
                if self._stopped or self._slot is None:
                    return
                item, self._slot = self._slot, None
            self._work(item)
