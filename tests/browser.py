"""A headless Chromium for tests, spoken to over a pair of pipes: the DevTools protocol, no port, no network."""

from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

#: By which names a Chromium is found, the smallest first.
NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
#: Seconds for one answer.
PATIENCE = 30.0
_CHUNK = 1 << 20
#: Pixels of a screenshot's height; Chromium draws no more than about this.
_TALLEST = 12_000
#: Sheets of A4 with the page's own margins, in pixels of CSS.
PRINT_WIDTH = 688

_ARGUMENTS = (
    "--headless",
    "--remote-debugging-pipe",
    # as root there is no sandbox; the pages are our own
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
)


class BrowserError(Exception):
    """The browser did not do what it was told."""


def find() -> str:
    """The path of a Chromium, "" where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), "")


@dataclass(frozen=True)
class Page:
    """One tab."""

    browser: Browser
    session: str

    def call(self, method: str, **parameters: Any) -> Any:
        """A command of the DevTools protocol and its result. Raises BrowserError."""
        return self.browser.call(method, parameters, self.session)

    def open(self, path: Path) -> None:
        """Load a file, and wait until all of it is there."""
        self.browser.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        self.browser.wait_for("Page.loadEventFired", self.session)

    def said(self, path: Path) -> list[str]:
        """What the page has said on its console, thrown, or asked of the network since it was opened, in words; the
        loading of itself, from ``path``, left out."""
        # answers come in order, so what happened before is here when this one is
        self.run("0")
        own = path.resolve().as_uri()
        events = [event for event in self.browser.events if event.get("sessionId") == self.session]
        return [said for event in events if (said := _noise(event, own))]

    def show(
        self, width: int, height: int = 844, scheme: Literal["light", "dark"] = "light", media: str = "screen"
    ) -> None:
        """Have a window of that size, in pixels of CSS, and that style of colours."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )

    def run(self, expression: str) -> Any:
        """The value of a JavaScript expression, awaited. Raises BrowserError where it throws."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise BrowserError(json.dumps(answer["exceptionDetails"])[:2000])
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Keep what is seen, from the top of the page as far down as one image goes."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], _TALLEST), "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))

    def pdf(self, path: Path) -> None:
        """Print on A4."""
        made = self.call("Page.printToPDF", preferCSSPageSize=True, paperWidth=8.27, paperHeight=11.69)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(made["data"]))


class Browser:
    """A running Chromium. ``events`` are what it reported by itself."""

    def __init__(self, write: int, read: int) -> None:
        self._write, self._read = write, read
        self._buffer = b""
        self._number = 0
        self.events: list[Mapping[str, Any]] = []

    def call(self, method: str, parameters: Mapping[str, Any], session: str = "") -> Any:
        """Say one thing and wait for the answer. Raises BrowserError."""
        self._number += 1
        number = self._number
        message = {"id": number, "method": method, "params": parameters} | ({"sessionId": session} if session else {})
        data = json.dumps(message).encode() + b"\0"
        while data:
            data = data[os.write(self._write, data) :]
        deadline = time.monotonic() + PATIENCE
        while True:
            answer = self._next(deadline, method)
            if answer.get("id") == number:
                if "error" in answer:
                    raise BrowserError(f"{method}: {answer['error']}")
                return answer["result"]
            self.events.append(answer)

    def wait_for(self, event: str, session: str) -> None:
        """Wait until that has been reported."""
        deadline = time.monotonic() + PATIENCE
        while not any(each.get("method") == event and each.get("sessionId") == session for each in self.events):
            self.events.append(self._next(deadline, event))

    def page(self) -> Page:
        """A new tab."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        return page

    def _next(self, deadline: float, what: str) -> Any:
        """The next message."""
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._read], [], [], left)[0]:
                raise BrowserError(f"no answer to {what} within {PATIENCE:.0f} s")
            more = os.read(self._read, _CHUNK)
            if not more:
                raise BrowserError(f"the browser ended before it answered to {what}")
            self._buffer += more
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)


@contextlib.contextmanager
def running(program: str, directory: Path) -> Iterator[Browser]:
    """A Chromium that keeps its files in ``directory``, and does not outlive the block."""
    (reads, write), (read, writes) = os.pipe(), os.pipe()
    # it reads its file 3 and writes its file 4, so neither of these may be one of those
    theirs = [fcntl.fcntl(each, fcntl.F_DUPFD, 10) for each in (reads, writes)]
    script = f'exec "$0" "$@" 3<"/dev/fd/{theirs[0]}" 4>"/dev/fd/{theirs[1]}"'
    command = ["/bin/sh", "-c", script, program, *_ARGUMENTS, f"--user-data-dir={directory}"]
    with (directory / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            pass_fds=theirs,
            start_new_session=True,
            env=os.environ | {"HOME": str(directory)},
        )
    for each in (reads, writes, *theirs):
        os.close(each)
    browser = Browser(write, read)
    try:
        yield browser
    finally:
        # its helpers, some of which it leaves to themselves when it ends
        helpers = _descendants(process.pid)
        with contextlib.suppress(BrowserError, OSError):
            browser.call("Browser.close", {})
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait(5)
        os.close(write)
        os.close(read)
        _end(helpers)


def _parents() -> dict[int, tuple[int, str]]:
    """The parent's process id and the time of birth of each living process."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # proc(5): pid (name) state ppid ...; the name may hold spaces and brackets; the 22nd is the time of birth
            fields = stat.read_text().rpartition(")")[2].split()
            if fields[0] not in "ZX":
                found[int(stat.parent.name)] = (int(fields[1]), fields[19])
    return found


def _descendants(pid: int) -> dict[int, str]:
    """All that a process has started, and they: when each was born, by its id."""
    parents = _parents()
    found: dict[int, str] = {}
    while more := {
        each: born for each, (parent, born) in parents.items() if parent in (pid, *found) and each not in found
    }:
        found |= more
    return found


def _end(processes: Mapping[int, str]) -> None:
    """Kill what is left of these, and wait until nothing is. Raises BrowserError."""
    deadline = time.monotonic() + PATIENCE
    while left := [pid for pid, (_, born) in _parents().items() if processes.get(pid) == born]:
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if time.monotonic() > deadline:
            raise BrowserError(f"processes of the browser do not end: {left}")
        time.sleep(0.01)


def _noise(event: Mapping[str, Any], url: str) -> str:
    """What an event says that a quiet page does not give rise to, "" where it is none of that."""
    method, parameters = event.get("method"), event.get("params", {})
    if method == "Runtime.consoleAPICalled":
        return f"console.{parameters['type']}: {[each.get('value') for each in parameters['args']]}"
    if method == "Runtime.exceptionThrown":
        return f"exception: {parameters['exceptionDetails'].get('text')}"
    if method == "Log.entryAdded":
        return f"log: {parameters['entry'].get('text')}"
    if method == "Network.requestWillBeSent":
        asked = parameters["request"]["url"]
        return "" if asked == url or asked.startswith("data:") else f"request: {asked}"
    return ""
