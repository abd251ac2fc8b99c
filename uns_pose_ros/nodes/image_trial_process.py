"""A process that sends or receives images: its program, and the class that starts it.

The caller and the process talk in lines of JSON over the pipes of the process.
"""

from __future__ import annotations

import argparse
import array
import itertools
import json
import os
import queue
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_QUIET = 0.7  # s without an image after which no more are expected
_DEPTH = 5  # of both queues, as of most camera drivers
_STAMP = 4  # bytes before the stamp in a serialized Image, the header of the encapsulation
_LAST_WORDS = 5.0  # s, in which the errors of a process that has ended are read


class TrialProcess:
    """One of the two processes; they talk in lines of JSON over their pipes."""

    def __init__(
        self, role: str, arguments: list[str], environment: Mapping[str, str]
    ) -> None:
        """Start the process.

        Args:
            role: "publish" or "subscribe".
            arguments: Of the program, after the role.
            environment: Variables beside those of the caller.
        """
        self._role = role
        command = [
            sys.executable,
            "-m",
            "uns_pose_ros.nodes.image_trial_process",
            role,
            *arguments,
        ]
        root = str(Path(__file__).resolve().parents[2])
        path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
        self._process = subprocess.Popen(
            command,
            env={**os.environ, **environment, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=self._listen, daemon=True),
            threading.Thread(target=self._collect, daemon=True),
        ]
        for thread in self._threads:
            thread.start()

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        for thread in self._threads:
            thread.join()
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                pipe.close()

    def say(self, word: str) -> None:
        """Send a line; a process that has died is noticed by `expect`."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(word + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass

    def expect(self, event: str, seconds: float) -> dict[str, Any]:
        """The next line of this event.

        Raises:
            TimeoutError: It did not come; the message says why.
        """
        end = time.monotonic() + seconds
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                raise TimeoutError(f"no image arrived within {seconds:.0f} s") from None
            if line is None:
                self._process.wait()
                # its last words may still be on their way
                self._threads[1].join(_LAST_WORDS)
                last = self._errors[-1] if self._errors else "no message"
                raise TimeoutError(f"the process that should {self._role} ended: {last}")
            if not line.startswith("{"):  # of a library
                continue
            record = json.loads(line)
            if record["event"] == event:
                return dict(record)

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _collect(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self._errors = [*self._errors[-20:], *([line.strip()] if line.strip() else [])]


def _main(given: list[str]) -> None:
    """Be one of the two processes."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=("publish", "subscribe"))
    parser.add_argument("topic")
    parser.add_argument("reliability", choices=("best_effort", "reliable"))
    parser.add_argument("sizes", nargs="*")
    options = parser.parse_args(given)
    import rclpy
    from rclpy.qos import QoSProfile, ReliabilityPolicy

    rclpy.init(args=[])
    node = rclpy.create_node(f"uns_pose_doctor_{options.role}_{os.getpid()}")
    policy = ReliabilityPolicy[options.reliability.upper()]
    qos = QoSProfile(depth=_DEPTH, reliability=policy)
    words: queue.Queue[str] = queue.Queue()
    threading.Thread(target=_read_words, args=(words,), daemon=True).start()
    if options.role == "publish":
        width, height, rate, count = options.sizes
        _publish(
            node,
            options.topic,
            qos,
            words,
            (int(width), int(height)),
            float(rate),
            int(count),
        )
    else:
        _subscribe(node, options.topic, qos, words)


def _read_words(words: queue.Queue[str]) -> None:
    for line in sys.stdin:
        words.put(line.strip())


def _publish(
    node: Any,
    topic: str,
    qos: Any,
    words: queue.Queue[str],
    size: tuple[int, int],
    rate: float,
    count: int,
) -> None:
    """Send small images with stamp 0 until somebody listens, then `count` numbered ones."""
    from sensor_msgs.msg import Image

    publisher = node.create_publisher(Image, topic, qos)
    small = Image(
        height=1, width=1, encoding="rgb8", step=3, data=array.array("B", bytes(3))
    )
    while words.empty():
        publisher.publish(small)
        time.sleep(0.05)
    width, height = size
    data = array.array("B", bytes(range(256))) * (width * height * 3 // 256 + 1)
    image = Image(height=height, width=width, encoding="rgb8", step=3 * width)
    image.data = data[: width * height * 3]
    begun = time.monotonic()
    for number in range(1, count + 1):
        image.header.stamp.sec = number
        publisher.publish(image)
        due = begun + number / rate
        time.sleep(max(0.0, due - time.monotonic()))
    seconds = time.monotonic() - begun
    _tell("sent", count=count, rate=count / seconds)
    while True:  # what was sent reliably may be asked for again until this process is ended
        time.sleep(1)


def _subscribe(node: Any, topic: str, qos: Any, words: queue.Queue[str]) -> None:
    """Count the numbered images until no more come after the word to stop."""
    import rclpy
    from sensor_msgs.msg import Image

    arrivals: dict[int, float] = {}
    ready: list[bool] = []

    def take(message: bytes) -> None:
        order = "<" if message[1] & 1 else ">"
        number = struct.unpack_from(f"{order}i", message, _STAMP)[0]
        if number:
            arrivals.setdefault(number, time.monotonic())
        elif not ready:
            ready.append(True)
            _tell("ready")

    # as bytes: what Python needs to unpack an image is not a loss of the middleware
    subscription = node.create_subscription(Image, topic, take, qos, raw=True)
    last = time.monotonic()
    known = 0
    while words.empty() or time.monotonic() - last < _QUIET:
        rclpy.spin_once(node, timeout_sec=0.05)
        if words.empty() or len(arrivals) > known:
            last = time.monotonic()
        known = len(arrivals)
    times = sorted(arrivals.values())
    gaps = [after - before for before, after in itertools.pairwise(times)]
    _tell("received", count=len(arrivals), longest_gap=max(gaps, default=0.0))
    node.destroy_subscription(subscription)


def _tell(event: str, **values: float) -> None:
    print(json.dumps({"event": event, **values}), flush=True)


if __name__ == "__main__":
    _main(sys.argv[1:])
