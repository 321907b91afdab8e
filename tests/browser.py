"""Drives a headless Chromium over a pipe with the DevTools protocol, for tests of HTML pages."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync "
    "--disable-background-networking --disable-component-update --remote-debugging-pipe"
)


@dataclass
class Page:
    """What a page requested, logged and showed in a window of one size.

    Attributes:
        requests: the URLs that the page requested, its own included.
        messages: the messages of the console and the log, and the exceptions, as JSON.
        facts: the value of the JavaScript expression that the test evaluates in the page.
        png: a screenshot of the whole page.
    """

    requests: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    facts: Any = None
    png: bytes = b""


class Browser:
    """Sends commands to a running Chromium and collects its events."""

    def __init__(self, to_browser: int, from_browser: int) -> None:
        self._to, self._from = to_browser, from_browser
        self._buffer, self._last_id, self._session = b"", 0, ""
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Opens a tab and subscribes to its events."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        attached = self.call("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Sends a command and returns its result. Events that arrive before it go to ``events``."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            response = self._receive()
            if response.get("id") == self._last_id:
                assert "error" not in response, response
                return response["result"]
            self.events.append(response)

    def wait_for(self, event: str) -> None:
        """Waits until ``events`` has an event whose method is ``event``."""
        while not any(each.get("method") == event for each in self.events):
            self.events.append(self._receive())

    def open_page(self, path: Path, script: str, *, width: int, height: int, dark: bool) -> Page:
        """Opens an HTML file and evaluates the JavaScript expression ``script`` in the page.

        Args:
            path: the HTML file.
            script: the expression whose value is ``Page.facts``.
            width: the width of the window in CSS pixels; below 600, Chromium acts as a mobile browser.
            height: the height of the window in CSS pixels.
            dark: whether the page sees that the user prefers dark colours.
        """
        self.events.clear()
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        size = {"width": width, "height": height, "deviceScaleFactor": 1}
        self.call("Emulation.setDeviceMetricsOverride", **size, mobile=width < 600)
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.wait_for("Page.loadEventFired")
        value = self.call("Runtime.evaluate", expression=f"JSON.stringify({script})")
        screenshot = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        page = Page(facts=json.loads(value["result"]["value"]))
        page.png = base64.b64decode(screenshot["data"])
        for event in self.events:
            params = event.get("params", {})
            if event.get("method") == "Network.requestWillBeSent":
                page.requests.append(params["request"]["url"])
            elif event.get("method") in ("Log.entryAdded", "Runtime.exceptionThrown"):
                page.messages.append(json.dumps(params))
            elif event.get("method") == "Runtime.consoleAPICalled":
                page.messages.append(json.dumps(params["args"]))
        return page

    def _receive(self) -> dict[str, Any]:
        """Returns the next message from Chromium, which ends each message with a zero byte."""
        while b"\0" not in self._buffer:
            chunk = os.read(self._from, 1 << 20)
            if not chunk:
                raise EOFError("Chromium ended")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@contextmanager
def open_browser() -> Iterator[Browser]:
    """Starts Chromium with an empty tab; skips the test if Chromium is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    if program is None:
        pytest.skip("chromium is not installed")
    chromium_input, to_browser = os.pipe()
    from_browser, chromium_output = os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Chromium reads commands from descriptor 3 and writes events to descriptor 4.
        start = f'exec "$0" "$@" 3<&{chromium_input} 4>&{chromium_output}'
        process = subprocess.Popen(
            ["bash", "-c", start, program, *FLAGS.split(), f"--user-data-dir={profile}"],
            pass_fds=(chromium_input, chromium_output),
            stderr=subprocess.DEVNULL,
        )
        os.close(chromium_input)
        os.close(chromium_output)
        try:
            browser = Browser(to_browser, from_browser)
            browser.attach()
            yield browser
        finally:
            process.terminate()
            process.wait(timeout=30)
            os.close(to_browser)
            os.close(from_browser)
