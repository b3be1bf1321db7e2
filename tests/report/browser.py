"""A headless Chromium that tests speak to, in its DevTools protocol over a pipe. It cannot look up any host."""

from __future__ import annotations

import base64
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np


class Browser:
    """A Chromium that is told what to do over a pipe. See https://chromedevtools.github.io/devtools-protocol/."""

    def __init__(self, program: str, profile: Path) -> None:
        there, self._to = os.pipe()
        self._from, back = os.pipe()
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--mute-audio"]
        flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        flags += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}", "--remote-debugging-pipe"]
        # The browser reads from descriptor 3 and writes to 4, which this process may use for something else.
        start = (
            "import os, sys; read, write = (os.dup2(int(one), 20 + i) for i, one in enumerate(sys.argv[1:3])); "
            "os.dup2(read, 3); os.dup2(write, 4); os.execv(sys.argv[3], sys.argv[3:])"
        )
        command = [sys.executable, "-c", start, str(there), str(back), program, *flags, "about:blank"]
        quiet = subprocess.DEVNULL
        self._process = subprocess.Popen(command, pass_fds=(there, back), stdin=quiet, stdout=quiet, stderr=quiet)
        os.close(there)
        os.close(back)
        self.events: list[dict[str, Any]] = []
        self._unread, self._sent, self._session = b"", 0, ""
        target = self("Target.createTarget", url="about:blank")["targetId"]
        self._session = self("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Network", "Log", "Runtime", "Accessibility"):
            self(f"{domain}.enable")

    def __call__(self, method: str, **parameters: object) -> dict[str, Any]:
        self._sent += 1
        message = {"id": self._sent, "method": method, "params": parameters}
        os.write(
            self._to, json.dumps(message | ({"sessionId": self._session} if self._session else {})).encode() + b"\0"
        )
        while (answer := self._next()).get("id") != self._sent:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            read = os.read(self._from, 1 << 20)
            assert read, "the browser ended"
            self._unread += read
        message, _, self._unread = self._unread.partition(b"\0")
        return json.loads(message)

    def open(self, path: Path, width: int = 1100, scheme: str = "light", media: str = "") -> None:
        self.events.clear()
        self("Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500)
        self("Emulation.setEmulatedMedia", media=media, features=[{"name": "prefers-color-scheme", "value": scheme}])
        self("Page.navigate", url=path.as_uri())
        while not self.of("Page.loadEventFired"):
            self.events.append(self._next())

    def of(self, method: str) -> list[dict[str, Any]]:
        """What the browser told of `method` since the page was opened."""
        return [event["params"] for event in self.events if event.get("method") == method]

    def ask(self, expression: str) -> Any:
        answer = self("Runtime.evaluate", expression=f"JSON.stringify({expression}) ?? null", returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return json.loads(answer["result"]["value"] or "null")

    def picture(self, box: dict[str, float] | None = None) -> np.ndarray:
        """Pixels `(H, W, 3)` from 0 to 255 of the page, or of a part of it."""
        from matplotlib.image import imread

        more = {"clip": box | {"scale": 1}} if box else {}
        shot = self("Page.captureScreenshot", format="png", captureBeyondViewport=True, **more)
        return np.round(255 * imread(io.BytesIO(base64.b64decode(shot["data"])))[..., :3]).astype(int)

    def close(self) -> None:
        os.close(self._to)  # it ends when nobody can talk to it
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)
