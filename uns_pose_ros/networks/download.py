"""Download one file, and give up where the server is silent, too slow or never ends."""

from __future__ import annotations

import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

from uns_pose_ros.core.errors import InvalidInput

TIMEOUT = 5.0  # s of silence of a server
MIN_RATE = 20_000.0  # bytes a second, over the whole download
PATIENCE = 30.0  # s before the rate counts
MAX_SIZE = 1 << 30  # bytes
_CHUNK = 1 << 20  # bytes
_PERIOD = 0.1  # s between two looks at what has arrived


def download_file(url: str, path: Path, progress: Callable[[int, int], None]) -> None:
    """Download a file.

    Args:
        url: Its address.
        path: Where it is written.
        progress: Receives the bytes that have arrived and all bytes, 0 where they are unknown.

    Raises:
        InvalidInput: The server is too slow, or sends too much.
        OSError: The server does not answer, or the disk refuses the file.
        http.client.HTTPException: The server does not speak HTTP.
    """
    download = _Download(url, path)
    download.start()
    while not download.ended.wait(_PERIOD):
        download.check_rate()
        progress(download.received, download.total)
    if download.error is not None:
        raise download.error
    progress(download.received, download.received)


class _Download(threading.Thread):
    """A download that is given up where the server is too slow.

    A server that sends a byte a second never lets a read of it time out. Therefore, the reads
    happen in a thread of their own, which ends with the process where it is given up.
    """

    def __init__(self, url: str, path: Path) -> None:
        super().__init__(daemon=True)
        self.received = 0  # bytes
        self.total = 0  # bytes as the server says, 0: unknown
        self.error: BaseException | None = None
        self.ended = threading.Event()
        self._url = url
        self._path = path
        self._began = time.monotonic()
        self._given_up = False

    def check_rate(self) -> None:
        """Raise InvalidInput where less arrives than MIN_RATE."""
        seconds = time.monotonic() - self._began
        if seconds > PATIENCE and self.received < MIN_RATE * seconds:
            self._given_up = True
            raise InvalidInput(
                f"too slow: {self.received} bytes in {seconds:.0f} s, at least "
                f"{MIN_RATE:.0f} a second are waited for"
            )

    def run(self) -> None:
        """Download; the thread calls it."""
        try:
            self._read()
        except BaseException as error:
            self.error = error
        finally:
            self.ended.set()

    def _read(self) -> None:
        with (
            urllib.request.urlopen(self._url, timeout=TIMEOUT) as answer,
            self._path.open("wb") as stream,
        ):
            length = answer.headers.get("Content-Length") or ""
            self.total = int(length) if length.isdecimal() else 0
            while not self._given_up and (chunk := answer.read1(_CHUNK)):
                stream.write(chunk)
                self.received += len(chunk)
                if self.received > MAX_SIZE:
                    raise InvalidInput(f"more than {MAX_SIZE >> 20} MiB")
