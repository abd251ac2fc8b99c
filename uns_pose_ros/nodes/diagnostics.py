"""The state of a node for /diagnostics: rates, latencies, drops by reason, conditions, last error.

`diagnostic_updater` of ROS does a part of this. The nodes do not use it for two reasons: it has no
wheel on the package index, and `make setup` must run without ROS; and it has no percentiles of
latencies, no drops by reason and no conditions that are logged once.
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter, deque
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue

from uns_pose_ros.core.left_out import without_numbers

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
# s over which rates are computed, and for which a single error is shown as a condition
WINDOW = 10.0
MOST_TEXT = 1000  # characters of a text that came with a message
KEPT = 200  # latencies from which the percentiles are computed
UNUSABLE = "unusable image or camera_info"  # reason of a drop
_MOST_REASONS = 12  # why images are unusable; messages may hold any text
_MOST_OF_REASON = 200  # characters
_OTHERS = "other reasons"


class NodeDiagnostics:
    """Counters and conditions of a node; callbacks and worker threads may change them."""

    def __init__(self, result: str = "results published", work: str = "estimation") -> None:
        """Begin with zero.

        Args:
            result: Name of the counter of processed images.
            work: Name of the processing of an image.
        """
        self._result, self._work = result, work
        self._lock = threading.Lock()
        self._images = self._results = 0
        self._received: deque[float] = deque(maxlen=1000)
        self._published: deque[float] = deque(maxlen=1000)
        self._latency: deque[float] = deque(maxlen=KEPT)
        self._seconds: deque[float] = deque(maxlen=KEPT)
        # s, ages of images on their way, by what happens to them
        self._ages: dict[str, deque[float]] = {}
        self._drops: Counter[str] = Counter()
        self._unusable: Counter[str] = Counter()
        self._notes: dict[str, int] = {}
        self._conditions: dict[str, tuple[bytes, str]] = {}
        self._last_error, self._error_time = "", -WINDOW

    def received(self) -> None:
        """Count an image that has come."""
        with self._lock:
            self._received.append(time.monotonic())
            self._images += 1

    def aged(self, event: str, age: float) -> None:
        """Note how old an image is when something happens to it.

        Args:
            event: What happens, such as received.
            age: Time since the image's stamp, s.
        """
        with self._lock:
            self._ages.setdefault(event, deque(maxlen=KEPT)).append(age)

    def published(self, latency: float, seconds: float) -> None:
        """Count an image whose results have been published.

        Args:
            latency: Time from the image's stamp to its results, s.
            seconds: Time that the processing took, s.
        """
        with self._lock:
            self._published.append(time.monotonic())
            self._results += 1
            self._latency.append(latency)
            self._seconds.append(seconds)

    def dropped(self, reason: str, count: int = 1) -> None:
        """Count images that are dropped for a reason."""
        with self._lock:
            self._drops[reason] += count

    def unusable(self, error: str) -> None:
        """Count an image that is dropped since it or its camera_info cannot be used.

        Args:
            error: Why. Errors that differ in numbers only are one reason.
        """
        reason = without_numbers(error)[:_MOST_OF_REASON]
        with self._lock:
            self._drops[UNUSABLE] += 1
            if reason not in self._unusable and len(self._unusable) >= _MOST_REASONS:
                reason = _OTHERS
            self._unusable[reason] += 1

    def note(self, counts: Mapping[str, int]) -> None:
        """Set counters of what is wrong with the input and not dropped, by name."""
        with self._lock:
            self._notes.update(counts)

    def failed(self, text: str) -> None:
        """Remember the last error."""
        with self._lock:
            self._last_error, self._error_time = cut_text(text), time.monotonic()

    def condition(self, key: str, level: bytes, text: str) -> bool:
        """Set a condition, which lasts until it is cleared.

        Args:
            key: Identifies the condition.
            level: WARN or ERROR; OK clears the condition.
            text: Description for people.

        Returns:
            True if the condition is new, so that the caller logs it once.
        """
        text = cut_text(text)
        with self._lock:
            is_new = self._conditions.get(key) != (level, text)
            if level == OK:
                self._conditions.pop(key, None)
            else:
                self._conditions[key] = (level, text)
            return is_new and level != OK

    def clear(self) -> None:
        """Forget the conditions and the last error; the counters stay."""
        with self._lock:
            self._conditions.clear()
            self._last_error, self._error_time = "", -WINDOW

    @property
    def drops(self) -> dict[str, int]:
        """Number of images dropped, by reason."""
        with self._lock:
            return dict(sorted(self._drops.items()))

    def status(self, name: str, device: str, facts: dict[str, str]) -> DiagnosticStatus:
        """Make the message: the worst level, all conditions as text, every counter as a value.

        Args:
            name: Name of the status.
            device: cpu or a CUDA device.
            facts: Further values of the node.
        """
        now = time.monotonic()
        with self._lock:
            conditions = list(self._conditions.values())
            if now - self._error_time < WINDOW:
                conditions.append((WARN, self._last_error))
            values = {
                **facts,
                "images received": str(self._images),
                "images received (1/s)": f"{_rate(self._received, now):.2f}",
                self._result: str(self._results),
                f"{self._result} (1/s)": f"{_rate(self._published, now):.2f}",
                **{
                    f"age when {event} p50 (s)": _percentile(ages, 50)
                    for event, ages in self._ages.items()
                },
                f"latency p50, stamp to {self._result} (s)": _percentile(self._latency, 50),
                f"latency p95, stamp to {self._result} (s)": _percentile(self._latency, 95),
                f"{self._work} p50 (s)": _percentile(self._seconds, 50),
                f"{self._work} p95 (s)": _percentile(self._seconds, 95),
                **{
                    f"dropped: {reason}": str(count)
                    for reason, count in sorted(self._drops.items())
                },
                **{
                    f"unusable: {reason}": str(count)
                    for reason, count in sorted(self._unusable.items())
                },
                **{key: str(count) for key, count in sorted(self._notes.items())},
                **_memory(device),
                "last error": self._last_error or "none",
            }
        status = DiagnosticStatus(name=name, hardware_id=device)
        status.level = max((level for level, _ in conditions), default=OK)
        status.message = (
            "; ".join(text for _, text in sorted(conditions, reverse=True)) or "ok"
        )
        status.values = [KeyValue(key=key, value=value) for key, value in values.items()]
        return status


def cut_text(text: str) -> str:
    """The text, cut where a message made it longer than people read."""
    return text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}…"


def _rate(times: deque[float], now: float) -> float:
    return sum(now - t < WINDOW for t in times) / WINDOW


def _percentile(values: deque[float], percent: float) -> str:
    return f"{np.percentile(values, percent):.3f}" if values else "none yet"


def _memory(device: str) -> dict[str, str]:
    """Megabytes held by this process and, on CUDA, by torch on the device."""
    statm = Path("/proc/self/statm")
    memory = {}
    if statm.exists():  # Linux
        memory["memory (MB)"] = (
            f"{int(statm.read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6:.0f}"
        )
    if device.startswith("cuda"):
        memory["device memory (MB)"] = f"{torch.cuda.memory_allocated(device) / 1e6:.0f}"
    return memory
