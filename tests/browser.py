"""Debian's Chromium without a window, spoken to over two pipes in the DevTools protocol: what a page really looks like."""

import base64
import itertools
import json
import os
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

PROGRAM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
OPTIONS = (
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


class Browser:
    """One tab. Messages are JSON, each ended by a null byte (Chromium's remote-debugging-pipe)."""

    def __init__(self, profile: Path) -> None:
        assert PROGRAM is not None
        (child_in, self._out), (self._in, child_out) = os.pipe(), os.pipe()
        # the browser reads from 3 and writes to 4, which the shell makes of what it inherits
        script = f'exec 3<&{child_in} 4>&{child_out}; exec "$@"'
        command = ["sh", "-c", script, "sh", PROGRAM, *OPTIONS, f"--user-data-dir={profile}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", *command[1:]], pass_fds=(child_in, child_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        os.close(child_in)
        os.close(child_out)
        self._numbers, self._rest, self._session = itertools.count(1), b"", ""
        self.said: list[str] = []
        """What the page or the browser about it wrote to the console, and every address it asked for."""
        self.asked: list[str] = []
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            os.write(self._out, json.dumps({"id": 0, "method": "Browser.close"}).encode() + b"\0")
        self._process.wait(10)
        os.close(self._out)
        os.close(self._in)

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                assert "error" not in answer, answer
                found: dict[str, Any] = answer["result"]
                return found

    def open(self, address: str, *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a page as a window of this size would, and wait until it is loaded."""
        self.said, self.asked = [], []
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])
        self.call("Page.navigate", url=address)
        while self._read().get("method") != "Page.loadEventFired":
            pass

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is on the page; a promise is waited for."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """A PNG of the page, or of what the window shows of it."""
        answer = self.call("Page.captureScreenshot", captureBeyondViewport=whole)
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
            answer = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(answer["data"]))

    def _read(self) -> dict[str, Any]:
        """The next message; what the page says or asks for is noted on the way."""
        while b"\0" not in self._rest:
            block = os.read(self._in, 2**16)
            assert block, "the browser has gone"
            self._rest += block
        text, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        method, facts = message.get("method", ""), message.get("params", {})
        if method == "Log.entryAdded":
            self.said.append(facts["entry"]["text"])
        elif method == "Runtime.consoleAPICalled":
            self.said.append(f"{facts['type']}: {facts['args']}")
        elif method == "Runtime.exceptionThrown":
            self.said.append(str(facts["exceptionDetails"]))
        elif method == "Network.requestWillBeSent":
            self.asked.append(facts["request"]["url"])
        return message
