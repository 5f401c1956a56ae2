"""The service seen from a terminal: bring it up, take it down, ask how it is."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import IO, Any

import httpx

from cluster import processes, state
from cluster.errors import ServiceError
from cluster.layout import Layout
from configs.settings import Settings

DOWN_S = 9.5


def up(settings: Settings, say: Callable[[str], None], *, foreground: bool) -> int:
    """Start the service and return when it answers, or when it has ended if in the foreground.

    Returns an exit code; raises ServiceError when the service does not start.
    """
    layout = Layout(settings.var_dir)
    layout.prepare()
    passing = _Passing()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, passing)
    reading, writing = os.pipe()
    command = [sys.executable, "-m", "cluster.service", "--report", str(writing)]
    with (layout.log / "service.out").open("ab") as out:
        service = subprocess.Popen(
            [*command, "--attached"] if foreground else command,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, pass_fds=(writing,),
            start_new_session=True,
        )  # fmt: skip
    os.close(writing)
    passing.to(service)
    with os.fdopen(reading) as report:
        ready = _follow(report, layout, say, until_ready=not foreground)
    if ready and not foreground:
        return 0
    code = service.wait()
    if passing.stopped:
        say("stopped")
    if not ready and not passing.stopped:
        raise ServiceError(f"the service ended while it started: see {layout.log}")
    if code != 0 and not passing.stopped:
        raise ServiceError(f"the service ended with code {code}: see {layout.log}")
    return code


def down(settings: Settings) -> bool:
    """Stop the service and whatever is left of it; return whether there was anything to stop."""
    layout = Layout(settings.var_dir)
    noted = state.read(layout)
    if noted is None:
        return False
    service = noted.service.find()
    if service is None:
        return processes.end(noted.left, grace_s=2) > 0
    service.send_signal(signal.SIGTERM)
    with suppress(processes.TimedOut):
        service.wait(DOWN_S)
        return True
    processes.end([noted.service, *noted.left], grace_s=1)
    return True


def status(settings: Settings) -> dict[str, Any]:
    """Return each part's state; `up` says whether the whole service answers."""
    noted = state.running(Layout(settings.var_dir))
    if noted is None:
        return {"up": False, "phase": "stopped"}
    facts = {"phase": noted.phase, "pid": noted.service.pid, "url": noted.url}
    facts |= {"dashboard": noted.dashboard, "ray": noted.ray_address}
    if noted.phase != "ready":
        return {"up": False, **facts}
    try:
        answer = httpx.get(f"{noted.url}/readyz", timeout=5)
        parts = answer.json()["parts"]
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return {"up": False, **facts, "parts": {"api": "no answer"}}
    return {"up": answer.status_code == httpx.codes.OK, **facts, "parts": parts}


@dataclass
class _Passing:
    """Signals of the terminal, handed to the service."""

    service: subprocess.Popen[bytes] | None = None
    stopped: bool = False

    def to(self, service: subprocess.Popen[bytes]) -> None:
        """Name the service, once it runs; a signal may have come before."""
        self.service = service
        if self.stopped:
            service.send_signal(signal.SIGTERM)

    def __call__(self, _number: int, _frame: FrameType | None) -> None:
        self.stopped = True
        if self.service is not None and self.service.poll() is None:
            self.service.send_signal(signal.SIGTERM)


def _follow(
    report: IO[str], layout: Layout, say: Callable[[str], None], *, until_ready: bool
) -> bool:
    """Show what the service tells; return whether it became ready; raise what went wrong."""
    ready = False
    for line in report:
        message = json.loads(line)
        if "error" in message:
            raise ServiceError(message["error"])
        if "say" in message:
            say(message["say"])
        if "ready" in message:
            ready = True
            _welcome(message["ready"], layout, say)
            if until_ready:
                break
    return ready


def _welcome(facts: dict[str, str], layout: Layout, say: Callable[[str], None]) -> None:
    say(f"ready: {facts['url']} (the API is described at {facts['url']}/docs)")
    say(f"Ray dashboard: {facts['dashboard']} (its token is in {layout.token})")
    if "key" in facts:
        say(f"API key: {facts['key']} (shown this once, kept in {layout.bootstrap_key})")
    else:
        say(f"API key: in {layout.bootstrap_key}")
