"""Pages in a browser without a screen: what they look like."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

_PATIENCE = 200.0  # s after which nothing will come any more


class Page:
    """A page that is open in a browser."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel
        self._number = 0

    def _call(self, method: str, **parameters: object) -> Any:
        self._number += 1
        call = {"id": self._number, "method": method, "params": parameters}
        self._channel.send(json.dumps(call))
        while True:
            answer = json.loads(self._channel.recv(timeout=_PATIENCE))
            if answer.get("id") == self._number:
                return answer["result"]

    def __call__(self) -> np.ndarray:
        """A screenshot, (H, W, 3) RGB."""
        data = base64.b64decode(self._call("Page.captureScreenshot")["data"])
        return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))

    def click(self, x: int, y: int) -> None:
        """Click at a point of the page, px."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            pressed = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self._call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression in the page, awaited if it is a promise."""
        answer = self._call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        return answer["result"].get("value")


@contextlib.contextmanager
def browser(url: str, profile: Path) -> Iterator[Page]:
    """A page in a browser without a screen."""
    from websockets.sync.client import connect  # viser brings it

    command = [
        "chromium",
        "--headless",
        "--no-sandbox",
        "--enable-unsafe-swiftshader",
        "--use-gl=angle",
    ]
    command += [
        "--use-angle=swiftshader",
        "--window-size=900,600",
        f"--user-data-dir={profile}",
        "--remote-debugging-port=0",
    ]
    process = subprocess.Popen(
        [*command, url], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:

        def lines() -> list[str]:
            """Port and path; the file is there before its lines are."""
            written = (profile / "DevToolsActivePort").read_text().split()
            return written if len(written) == 2 else []

        targets_of = f"http://127.0.0.1:{wait(lines)[0]}/json"

        def pages() -> list[str]:
            with urllib.request.urlopen(targets_of, timeout=_PATIENCE) as answer:
                targets = json.load(answer)
            return [
                each["webSocketDebuggerUrl"] for each in targets if each["type"] == "page"
            ]

        (address,) = wait(pages)
        with connect(address, max_size=None, open_timeout=_PATIENCE) as channel:
            yield Page(channel)
    finally:
        process.terminate()
        process.wait(_PATIENCE)


def wait(ready: Callable[[], Any]) -> Any:
    """What `ready` returns as soon as that is true."""
    end, said = time.monotonic() + _PATIENCE, "nothing"
    while time.monotonic() < end:
        try:
            if value := ready():
                return value
        except OSError as error:  # not yet there
            said = str(error)
        time.sleep(0.2)
    raise AssertionError(f"it did not come: {said}")


def shows_blue_and_red(screenshot: np.ndarray) -> bool:
    """Whether a screenshot (H, W, 3) shows something blue, as a picture in the scene, and
    something red, as a template.
    """
    red, green, blue = screenshot.astype(int).transpose(2, 0, 1)
    picture, template = (blue > 150) & (red < 100), (red > green + 60) & (red > blue + 60)
    return bool(picture.mean() > 0.005 and template.mean() > 0.0005)
