"""A real, headless Chromium for the report tests: local files only, and everything the page says or asks for is kept."""

import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

from playwright.sync_api import Error, sync_playwright

SECONDS = 120
NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL = "install one: `.venv/bin/python -m playwright install --only-shell chromium`, or `apt-get install chromium`"
FLAGS = ["--no-sandbox", "--disable-dev-shm-usage", "--host-resolver-rules=MAP * ~NOTFOUND"]  # tests may run as root


class NoBrowser(Exception):
    """There is no Chromium that starts."""


def in_system() -> str | None:
    """The path of the system's Chromium."""
    return next((path for path in map(shutil.which, NAMES) if path), None)


def install() -> str:
    """Fetch playwright's Chromium where the system has none, within `SECONDS`; says what came of it and never fails."""
    if found := in_system():
        return f"browser tests use {found}"
    command = [sys.executable, "-m", "playwright", "install", "--only-shell", "chromium"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        done = False
    return "browser tests use playwright's Chromium" if done else f"no Chromium: the browser tests will be skipped; {INSTALL}"


class Browser:
    """One Chromium: the system's, else playwright's own. Use as a context manager.

    Leaving it also ends playwright's event loop, which would keep other tests of the same process from starting theirs.
    """

    def __init__(self, folder: Path):
        self.downloads = folder / "downloads"
        self._driver = sync_playwright().start()
        try:
            self._chromium = self._driver.chromium.launch(executable_path=in_system(), args=FLAGS)
        except Error as error:
            self._driver.stop()
            raise NoBrowser(str(error).splitlines()[0]) from None

    def __enter__(self) -> "Browser":
        return self

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._chromium.close()
        self._driver.stop()

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> "Tab":
        """Open a local file in a new tab of that size, with a fresh profile, and wait until it is loaded."""
        context = self._chromium.new_context(
            viewport={"width": width, "height": height},
            is_mobile=width < 600,
            has_touch=width < 600,
            color_scheme="dark" if dark else "light",
        )
        return Tab(context.new_page(), page.resolve().as_uri(), self.downloads)


class Tab:
    """One page. What it did to the outside is in `errors()`, `requests()` and `dialogs()`; `page` is playwright's."""

    def __init__(self, page: Any, address: str, downloads: Path):
        self.page, self.address = page, address
        self._said: list[str] = []
        self._asked: list[str] = []
        self._dialogs: list[str] = []
        page.on("console", lambda message: message.type in ("error", "warning") and self._said.append(message.text))
        page.on("pageerror", lambda error: self._said.append(str(error)))
        page.on("request", lambda request: self._asked.append(request.url))
        page.on("dialog", self._dismiss)  # an open dialog would stop the page for good
        page.on("download", lambda download: download.save_as(downloads / download.suggested_filename))
        page.goto(address)

    def _dismiss(self, dialog: Any) -> None:
        self._dialogs.append(dialog.message)
        dialog.dismiss()

    def resize(self, width: int, height: int) -> None:
        self.page.set_viewport_size({"width": width, "height": height})

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth (promises are awaited); it runs outside the page's policy."""
        return self.page.evaluate(expression)

    def wait_until(self, condition: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true. Raises `TimeoutError` with what the page said."""
        for _ in range(round(seconds / 0.03)):
            if self.value(condition):
                return
            self.page.wait_for_timeout(30)
        raise TimeoutError(f"{condition} did not become true in {seconds} s; errors: {self.errors()}")

    def screenshot(self, path: Path, whole: bool = True) -> Path:
        self.page.screenshot(path=path, full_page=whole)
        return path

    def errors(self) -> list[str]:
        """Everything a developer would see in red or yellow: exceptions, console errors and warnings, policy violations."""
        self.page.wait_for_timeout(50)
        return self._said

    def requests(self) -> list[str]:
        """Addresses asked for, besides the page itself and data inside it."""
        self.page.wait_for_timeout(50)
        return [url for url in self._asked if url != self.address and not url.startswith(("data:", "blob:"))]

    def dialogs(self) -> list[str]:
        self.page.wait_for_timeout(50)
        return self._dialogs


if __name__ == "__main__":
    sys.stdout.write(install() + "\n")
