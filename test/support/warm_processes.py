"""Python programs in processes that need not import the packages of a node first.

A server process imports them once, which takes seconds, and forks for each program. What runs
there is the program as `python` would start it, with its own signals, output and exit code.

    python warm_processes.py FD     the server; FD is its end of a socket
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

# what takes long of the imports of a node; rclpy starts threads, which no fork has
_IMPORTED = (
    "torch",
    "uns_pose_ros.capture.recording",
    "uns_pose_ros.estimation.device_failover",
    "uns_pose_ros.estimation.tracker",
    "uns_pose_ros.reconstruction.feature_mesh",
    "uns_pose_ros.visualization.drawing",
)
_LONGEST = 1 << 20  # bytes of a request
_POLL = 0.01  # s


class WarmProcess:
    """A program that runs; used as a `subprocess.Popen` with pipes of text."""

    def __init__(self, server: _Server, pid: int, stdout: IO[str], stderr: IO[str]) -> None:
        self.pid, self.stdout, self.stderr = pid, stdout, stderr
        self.returncode: int | None = None
        self._server = server

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            self.returncode = self._server.exit_code(self.pid)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code at the end; TimeoutExpired where it does not end within `timeout` s."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if end is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
            time.sleep(_POLL)
        return code

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What was written to stdout and stderr until the end of the process."""
        streams, texts = (self.stdout, self.stderr), {}

        def read(number: int) -> None:
            with contextlib.suppress(ValueError):  # it is closed
                texts[number] = streams[number].read()

        readers = [threading.Thread(target=read, args=(k,), daemon=True) for k in range(2)]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join()
        for stream in streams:
            stream.close()
        return texts.get(0, ""), texts.get(1, "")

    def send_signal(self, number: int) -> None:
        """Send a signal to a process that has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)  # the server reaps it only where it reports its end

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class _Server:
    """This end of the server."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # threads and a fork do not go together
        alone = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        with other:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(other.fileno())],
                pass_fds=(other.fileno(),),
                env={**os.environ, **alone},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )
        self._lock = threading.Lock()

    def start(self, arguments: Sequence[str], folder: Path | None) -> WarmProcess:
        """Run `python ARGUMENTS` with the environment of now."""
        pipes = [os.pipe() for _ in range(2)]
        request = {
            "arguments": list(arguments),
            "env": dict(os.environ),
            "cwd": str(folder or Path.cwd()),
        }
        try:
            pid = self._ask(request, [write for _, write in pipes])
        finally:
            for _, write in pipes:
                os.close(write)
        return WarmProcess(self, pid, *(os.fdopen(read) for read, _ in pipes))

    def exit_code(self, pid: int) -> int | None:
        """The exit code of a process; None while it runs."""
        code = self._ask({"pid": pid}, [])
        return None if code < -signal.NSIG else code

    def _ask(self, request: Mapping[str, object], descriptors: list[int]) -> int:
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
            answer = self._socket.recv(_LONGEST)
        if not answer:
            raise RuntimeError(f"the server of processes ended with {self._process.wait()}")
        return int(json.loads(answer))

    def close(self) -> None:
        """End the server and what it started."""
        self._socket.close()
        self._process.wait()


_servers: list[_Server] = []


def start_warm(arguments: Sequence[str], folder: Path | None = None) -> WarmProcess:
    """Start `python ARGUMENTS` with pipes for its output.

    Args:
        arguments: A script, `-c CODE` or `-m MODULE`, and the program's own arguments.
        folder: The folder in which it works; None: that of now.
    """
    if not _servers:
        _servers.append(_Server())
        atexit.register(_servers[0].close)
    return _servers[0].start(arguments, folder)


def _serve(link: socket.socket) -> list[str]:
    """Fork for each request. Returns in the children alone, with their arguments."""
    running = set[int]()
    while True:
        data, descriptors, _, _ = socket.recv_fds(link, _LONGEST, 2)
        if not data:  # the other end has ended
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        request = json.loads(data)
        if "pid" in request:
            link.send(json.dumps(_reap(request["pid"], running)).encode())
            continue
        pid = os.fork()
        if pid == 0:
            link.close()
            for number, descriptor in enumerate(descriptors, 1):
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.environ.clear()
            os.environ.update(request["env"])
            os.chdir(request["cwd"])
            arguments: list[str] = request["arguments"]
            return arguments
        running.add(pid)
        for descriptor in descriptors:
            os.close(descriptor)
        link.send(json.dumps(pid).encode())


def _reap(pid: int, running: set[int]) -> int:
    """The exit code of a child, which is below every signal's while it runs."""
    ended, status = os.waitpid(pid, os.WNOHANG)
    if not ended:
        return -signal.NSIG - 1
    running.discard(pid)
    return os.waitstatus_to_exitcode(status)


def _run(arguments: list[str]) -> None:
    """Run a program as `python` does."""
    kind, *rest = arguments
    if kind == "-c":
        sys.path[0] = ""
        sys.argv = ["-c", *rest[1:]]
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.path[0] = os.getcwd()
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.path[0] = str(Path(kind).parent)
        sys.argv = arguments
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    for _name in _IMPORTED:
        __import__(_name)
    assert len(os.listdir("/proc/self/task")) == 1, "a thread would be lost in every fork"
    _run(_serve(socket.socket(fileno=int(sys.argv[1]))))
