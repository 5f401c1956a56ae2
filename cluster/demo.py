"""The demonstration brand: simulated and imported once, in the background, into an empty store."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable

import structlog

from configs.settings import CLONE, Settings
from crm.adapters import clock

BRAND = "demo"
MAPPING = CLONE / "configs" / "mappings" / "simulated.yaml"

log = structlog.get_logger("cluster.demo")


def demo_needed(settings: Settings) -> bool:
    """Tell whether the brand is wanted and has no event yet."""
    from crm.adapters.postgres.brands import has_events

    dsn = str(settings.postgres.direct_dsn)
    return settings.demo.enabled and not asyncio.run(has_events(dsn, BRAND))


class Demo:
    """Loads the brand by the same two commands that anybody would use."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._process: subprocess.Popen[str] | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._load, name="demo", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the commands; what they have imported stays, and is a duplicate next time."""
        self._stopping.set()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
        self._thread.join(2)

    def _load(self) -> None:
        if not demo_needed(self._settings):
            return
        demo = self._settings.demo
        file = self._settings.var_dir / "data" / "demo.parquet"
        end = clock.now().date().isoformat()
        self._say(f"demonstration brand: simulating {demo.players} players over {demo.days} days")
        simulated = self._crm(
            "simulate", "--out", str(file), "--end", end, "--brand", BRAND,
            "--players", str(demo.players), "--days", str(demo.days), "--seed", str(demo.seed),
        )  # fmt: skip
        done = simulated and self._crm("import", str(file), "--mapping", str(MAPPING))
        file.unlink(missing_ok=True)
        if not self._stopping.is_set():
            self._say("demonstration brand: " + ("loaded" if done else "not loaded, see var/log"))

    def _crm(self, *arguments: str) -> bool:
        """Run a command and pass its lines on; return whether it succeeded."""
        if self._stopping.is_set():
            return False
        command = [sys.executable, "-m", "cluster.cli", *arguments]
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True,
        ) as process:  # fmt: skip
            self._process = process
            for line in process.stdout or ():
                if line.strip() and not self._stopping.is_set():  # Ray comments on its end
                    self._say(f"demonstration brand: {line.strip()}")
        log.info("demo_command_ended", command=arguments[0], code=process.returncode)
        return process.returncode == 0
