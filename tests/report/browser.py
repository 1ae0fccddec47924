"""A real, headless Chromium for the report tests, driven through the DevTools protocol over a pipe (no dependency)."""

import json
import os
import select
import shutil
import subprocess
import time
from base64 import b64decode
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
EXECUTABLE = next((path for path in map(shutil.which, NAMES) if path), None)
FLAGS = [
    "--headless",
    "--no-sandbox",  # tests may run as root
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--hide-scrollbars",
    "--host-resolver-rules=MAP * ~NOTFOUND",
    "--remote-debugging-pipe",
]


class Browser:
    """One Chromium process with a fresh profile in `folder`. Use as a context manager."""

    def __init__(self, folder: Path):
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        # the protocol wants its pipes at file descriptors 3 and 4; the shell puts them there
        shell = f'exec 8<&{to_read} 9>&{to_write}; exec "$0" "$@" 3<&8 4>&9'
        command = ["bash", "-c", shell, str(EXECUTABLE), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self._process = subprocess.Popen(command, pass_fds=(to_read, to_write), **quiet)
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._last_id = 0
        self.events: list[dict[str, Any]] = []
        self.downloads = folder / "downloads"
        self.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads), eventsEnabled=True)

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, *_: object) -> None:
        self.call("Browser.close")
        self._process.wait(20)
        os.close(self._read)
        os.close(self._write)

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send one command and return its answer; events that arrive meanwhile are kept in `events`."""
        self._last_id += 1
        self._send(self._last_id, method, session, params)
        while True:
            answer = self._receive(60)
            if answer is None:
                raise TimeoutError(f"no answer to {method}")
            if answer.get("id") == self._last_id:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]
            self._keep(answer)

    def _send(self, number: int, method: str, session: str | None, params: dict[str, Any]) -> None:
        message = {"id": number, "method": method, "params": params} | ({"sessionId": session} if session else {})
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def _keep(self, event: dict[str, Any]) -> None:
        self.events.append(event)
        if event.get("method") == "Page.javascriptDialogOpening":  # an open dialog would stop the page for good
            self._send(0, "Page.handleJavaScriptDialog", event["sessionId"], {"accept": False})

    def _receive(self, seconds: float) -> dict[str, Any] | None:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], seconds)[0]:
                return None
            chunk = os.read(self._read, 1 << 20)
            if not chunk:
                raise RuntimeError("Chromium closed its end")
            self._buffer += chunk
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def drain(self, seconds: float = 0.05) -> None:
        """Take in events until none came for `seconds`."""
        while (event := self._receive(seconds)) is not None:
            self._keep(event)

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> "Tab":
        """Open a local file in a new tab of that size and wait until it is loaded."""
        return Tab(self, page.resolve().as_uri(), width, height, dark)


class Tab:
    """One page. What it did to the outside is in `errors()`, `requests()` and `dialogs()`."""

    def __init__(self, browser: Browser, address: str, width: int, height: int, dark: bool):
        self.browser, self.address = browser, address
        target = browser.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.resize(width, height)
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Page.navigate", url=address)
        self.wait_until("location.href !== 'about:blank' && document.readyState === 'complete'")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        return self.browser.call(method, self.session, **params)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth (promises are awaited); it runs as DevTools does, outside the page's policy."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(json.dumps(answer["exceptionDetails"]))
        return answer["result"].get("value")

    def wait_until(self, condition: str, seconds: float = 30) -> None:
        end = time.monotonic() + seconds
        while not self.value(condition):
            if time.monotonic() > end:
                raise TimeoutError(f"{condition} did not become true in {seconds} s; errors: {self.errors()}")
            time.sleep(0.03)

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        if whole:
            size = self.value("[document.documentElement.clientWidth, document.documentElement.scrollHeight]")
            self.resize(size[0], size[1])
        path.write_bytes(b64decode(self.call("Page.captureScreenshot")["data"]))
        return path

    def _events(self, *methods: str) -> list[dict[str, Any]]:
        self.browser.drain()
        return [e["params"] for e in self.browser.events if e.get("sessionId") == self.session and e.get("method") in methods]

    def errors(self) -> list[str]:
        """Everything a developer would see in red or yellow: exceptions, console errors and warnings, policy violations."""
        logged = [p["entry"]["text"] for p in self._events("Log.entryAdded") if p["entry"]["level"] in ("error", "warning")]
        said = [json.dumps(p["args"]) for p in self._events("Runtime.consoleAPICalled") if p["type"] in ("error", "warning")]
        thrown = [json.dumps(p["exceptionDetails"]) for p in self._events("Runtime.exceptionThrown")]
        return logged + said + thrown

    def requests(self) -> list[str]:
        """Addresses asked for, besides the page itself and data inside it."""
        asked = [p["request"]["url"] for p in self._events("Network.requestWillBeSent")]
        return [url for url in asked if url != self.address and not url.startswith("data:")]

    def dialogs(self) -> list[str]:
        return [p["message"] for p in self._events("Page.javascriptDialogOpening")]
