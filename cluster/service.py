"""The main process of an instance: starts every part in order, watches them, stops them all.

Run as `python -m cluster.service` by `crm up`, in a session of its own, so that a Ctrl-C at the
terminal reaches `crm up` alone. It tells what happens as JSON lines on the descriptor `--report`.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx
import psutil
import structlog

from cluster import demo, in_force, logs, ports, processes, ray_runtime, state
from cluster.embedded import Embedded, EmbeddedPostgres, EmbeddedRedis
from cluster.errors import ServiceError
from cluster.layout import Layout
from configs.settings import BadSettings, Settings, load_settings
from crm.adapters.redis.settings import RedisSettings
from crm.adapters.vault import VaultSettings, own_key_file
from crm.domain.error_lines import line_of

if TYPE_CHECKING:
    from crm.domain.brands import Brand
    from crm.domain.rates import Rates

READY_S = 120.0
STOP_S = 6.0
WATCH_S = 1.0
RAY_DAEMONS = ("gcs_server", "raylet")

log = structlog.get_logger("cluster.service")


class Stopped(BaseException):
    """Somebody asked this process to end; not an Exception, so that nothing swallows it."""


@dataclass(frozen=True)
class Report:
    """The pipe to `crm up`; nobody listens any more once a background start is done."""

    descriptor: int | None

    def say(self, line: str) -> None:
        """Show a line of progress."""
        self._send({"say": line})

    def ready(self, facts: dict[str, str]) -> None:
        """Tell that the service answers."""
        self._send({"ready": facts})

    def error(self, line: str) -> None:
        """Tell why it does not start, or does not go on."""
        self._send({"error": line})

    def _send(self, message: dict[str, Any]) -> None:
        if self.descriptor is not None:
            with suppress(OSError):
                os.write(self.descriptor, json.dumps(message).encode() + b"\n")


class Service:
    """One running instance."""

    def __init__(self, settings: Settings, report: Report) -> None:
        self._settings = settings
        self._layout = Layout(settings.var_dir)
        self._report = report
        self._parts: list[Embedded] = []
        self._daemons: list[processes.Recorded] = []
        self._state = state.State(processes.recorded(psutil.Process()), "starting")
        self._serving = False
        self._code = 0
        self._demo: demo.Demo | None = None

    def run(self) -> int:
        """Start, watch until told to stop, stop; return the exit code."""
        try:
            self._layout.prepare()
            with self._only_one():
                try:
                    self._run()
                finally:
                    self._stop()
        except ServiceError as error:
            self._failed(str(error))
        return self._code

    def _run(self) -> None:
        """Start, and watch until told to stop; what went wrong is told before the long stop."""
        try:
            self._start()
            self._watch()
        except (Stopped, SystemExit):  # Ray's own handler of SIGTERM, while it starts, exits
            log.info("service_stopped")
        except ServiceError as error:
            self._failed(str(error))
        except Exception as error:
            log.exception("service_failed")
            story = self._layout.log / logs.FILE
            self._failed(f"unexpected error: {type(error).__name__} (see {story})")

    def _failed(self, reason: str) -> None:
        self._code = 1
        log.error("service_failed", reason=reason)
        self._report.error(reason)

    def _start(self) -> None:
        """Bring the parts up, each after what it needs."""
        self._clear_the_way()
        settings = self._settings
        known = _known(settings)  # what is wrong with the files is told before anything starts
        api_port = ports.claim(settings.api.host, settings.api.port, "CRM_API__PORT")
        chosen = ray_runtime.choose_ports(settings)
        settings = self._start_stores(settings)
        settings = settings.model_copy(update={"api": replace(settings.api, port=api_port)})
        first = not self._layout.bootstrap_key.exists()
        key = self._prepare_store(settings)
        self._report.say("starting Ray")
        with _step("Ray does not start"):
            address = ray_runtime.start(settings, self._layout, chosen)
        _on_signals(_stop_now)  # ray.init has put its own in place
        self._daemons = [note for note in processes.descendants() if _name(note) in RAY_DAEMONS]
        host = f"[{settings.api.host}]" if ":" in settings.api.host else settings.api.host
        self._note(
            url=f"http://{host}:{api_port}",
            dashboard=f"http://{ray_runtime.LOOPBACK}:{chosen.dashboard}",
            ray_address=address,
            postgres=settings.postgres.dsn,
            redis=settings.redis.url,
            lake=settings.lake.uri,
            vault_key=str(settings.vault.key_file),
        )
        self._start_workload(settings, known)
        in_force.note(self._layout, in_force.digests(known.brands, known.rates, settings))
        self._note(phase="ready")
        log.info("service_ready", url=self._state.url)
        facts = {"url": self._state.url, "dashboard": self._state.dashboard}
        self._report.ready(facts | ({"key": key} if first else {}))
        self._settings = settings
        self._demo = demo.Demo(settings, self._report.say)

    def _clear_the_way(self) -> None:
        """End what an instance left that was killed, before anything is opened again."""
        logs.rotate(self._layout.log)
        logs.configure(self._layout.log)
        processes.adopt_orphans()
        _on_signals(_stop_now)
        before = state.read(self._layout)
        if before is not None:
            ended = processes.end(before.left, grace_s=3)
            if ended:
                log.warning("leftovers_ended", processes=ended)
        in_force.forget(self._layout)
        self._note()

    def _start_stores(self, settings: Settings) -> Settings:
        """Start the stores that are not configured; return the settings with their addresses."""
        found: dict[str, object] = {}
        if settings.ray.address is not None:
            _check_shared(settings)
        if settings.postgres.dsn is None:
            dsn = self._start_part(EmbeddedPostgres(self._layout), "PostgreSQL")
            found["postgres"] = replace(settings.postgres, dsn=dsn, direct_dsn=dsn)
        elif settings.postgres.direct_dsn is None:
            found["postgres"] = replace(settings.postgres, direct_dsn=settings.postgres.dsn)
        if settings.redis.url is None:
            found["redis"] = RedisSettings(self._start_part(EmbeddedRedis(self._layout), "Redis"))
        if settings.lake.uri is None:
            lake = settings.var_dir / "lake"
            lake.mkdir(exist_ok=True)
            found["lake"] = replace(settings.lake, uri=str(lake))
        if settings.vault.key_file is None:
            with _step("the vault cannot be opened"):
                found["vault"] = VaultSettings(own_key_file(settings.var_dir))
        return settings.model_copy(update=found)

    def _start_part(self, part: Embedded, name: str) -> str:
        self._report.say(f"starting {name}")
        self._parts.append(part)
        with _step(f"the embedded {name} does not start"):
            part.start()
        return part.address

    def _prepare_store(self, settings: Settings) -> str:
        """Bring the schema up to date; return the bootstrap key, made on the first start."""
        from crm.adapters.postgres.keys import bootstrap_key
        from crm.adapters.postgres.migrate import migrate

        direct = str(settings.postgres.direct_dsn)
        with _step("PostgreSQL cannot be used"):
            asyncio.run(migrate(direct))
            return asyncio.run(bootstrap_key(direct, settings.var_dir))

    def _start_workload(self, settings: Settings, known: _Known) -> None:
        """Start the shard owners and the API; return when it says that it is ready."""
        from actors import lake_keeper, retrain_keeper, segment_keeper, supervisor
        from actors.owners import SupervisorSpec
        from crm.adapters.postgres.brands import register
        from deployments import serving
        from deployments.api.deployment import ApiSpec
        from deployments.live.deployment import LiveSpec
        from deployments.segmentation import SegmentationSpec

        brands, rates = known
        with _step("the brands cannot be used"):
            asyncio.run(register(str(settings.postgres.direct_dsn), brands))
        dsn, lake = str(settings.postgres.dsn), str(settings.lake.uri)
        self._report.say("starting the feature shards")
        self._serving = True
        with _step("the feature shards do not start"):
            supervisor.start(SupervisorSpec(brands, dsn, lake, settings.shards))
            lake_keeper.start(lake_keeper.LakeSpec(dsn, settings.lake))
            segment_keeper.start(segment_keeper.SegmentsSpec(brands, dsn, settings.segments, lake))
            retrain_keeper.start(
                retrain_keeper.RetrainsSpec(
                    brands, dsn, lake, settings.retrains, ray_runtime.RUNTIME_ENV
                )
            )
        self._report.say("starting the API")
        with _step("the API does not start"):
            key_file = Path(str(settings.vault.key_file))
            redis = str(settings.redis.url)
            spec = ApiSpec(brands, rates, dsn, redis, lake, key_file, settings.shards.coalesce)
            direct, sockets = str(settings.postgres.direct_dsn), settings.live.sockets
            live = LiveSpec(brands, dsn, direct, sockets)
            models = SegmentationSpec(brands, dsn)
            served = serving.Serving(
                settings.api, spec, settings.live, live, settings.predictions, models
            )
            serving.start(served)
        deadline = time.monotonic() + READY_S
        while (parts := _parts_if_ready(f"{self._state.url}/readyz")) is None:
            if time.monotonic() > deadline:
                raise ServiceError(f"the API was not ready within {READY_S:.0f} s: see var/log")
            time.sleep(0.1)
        for name, found in parts.items():
            if found != "ok":
                self._report.say(f"warning: {name} is {found}")

    def _watch(self) -> None:
        """Keep the note of our processes fresh, and the embedded parts alive."""
        while True:
            self._note()
            for part in self._parts:
                if not part.running():
                    _start_again(part)
            if any(note.find() is None for note in self._daemons):
                raise ServiceError(f"Ray ended by itself: see {self._layout.log / 'ray'}")
            time.sleep(WATCH_S)

    def _note(self, **changes: Any) -> None:
        left = tuple(sorted(processes.descendants(), key=lambda note: note.pid))
        changed = replace(self._state, left=left, **changes)
        if changed != self._state or not self._layout.state.exists():
            self._state = changed
            with suppress(OSError):  # a full disk: the note is only for a start after a kill
                state.write(self._layout, changed)

    def _stop(self) -> None:
        """Stop everything in the opposite order; what does not stop in time is killed."""
        _on_signals(signal.SIG_IGN)
        watchdog = threading.Timer(STOP_S, self._cut_short)
        watchdog.daemon = True
        watchdog.start()
        self._note(phase="stopping")
        if self._demo is not None:
            _quietly(self._demo.stop)
        if self._serving:
            from actors import lake_keeper, retrain_keeper, segment_keeper, supervisor
            from deployments import serving

            _quietly(retrain_keeper.stop)
            _quietly(serving.stop)
            _quietly(lake_keeper.stop)
            _quietly(segment_keeper.stop)
            _quietly(supervisor.stop)
        if "ray" in sys.modules:
            _quietly(ray_runtime.stop)
        self._end_all()
        watchdog.cancel()

    def _end_all(self) -> None:
        kept = {note for part in self._parts for note in part.processes()}
        processes.end([note for note in processes.descendants() if note not in kept], grace_s=1)
        for part in reversed(self._parts):
            _quietly(part.stop)
        processes.end(processes.descendants(), grace_s=1)
        self._layout.state.unlink(missing_ok=True)
        self._layout.forget_short()

    def _cut_short(self) -> None:
        log.warning("stop_cut_short", after_s=STOP_S)
        self._end_all()
        os._exit(self._code)

    @contextmanager
    def _only_one(self) -> Iterator[None]:
        """Hold the folder's lock, which the kernel frees however we end."""
        with self._layout.lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise ServiceError(
                    f"{self._layout.var_dir} is in use by a running instance: "
                    "stop it with `crm down`, or set CRM_VAR_DIR"
                ) from None
            yield


class _Known(NamedTuple):
    """What the operator's own files say."""

    brands: dict[str, Brand]
    rates: Rates


def _known(settings: Settings) -> _Known:
    """Read the brands and the rates; raises ServiceError."""
    from configs.brands import load_brands
    from crm.adapters.rates import load_rates

    with _step("the brands cannot be used"):
        brands = load_brands(settings.brands_dir)
    with _step("the currency rates cannot be used"):
        return _Known(brands, load_rates(settings.rates_file, brands.values()))


def _check_shared(settings: Settings) -> None:
    """Refuse what would be another thing on each node; raises ServiceError."""
    needed = {
        "CRM_POSTGRES__DSN": settings.postgres.dsn,
        "CRM_REDIS__URL": settings.redis.url,
        "CRM_LAKE__URI": settings.lake.uri,
        "CRM_VAULT__KEY_FILE": settings.vault.key_file,
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise ServiceError(f"ray.address is set: its nodes need {', '.join(missing)} as well")


@contextmanager
def _step(what: str) -> Iterator[None]:
    """Turn any error into one line that begins with `what`; the log gets the whole story."""
    try:
        yield
    except ServiceError:
        raise
    except Exception as error:
        log.exception("start_failed", step=what)
        raise ServiceError(f"{what}: {line_of(error)}") from error


def _start_again(part: Embedded) -> None:
    """Start a part that has ended; what stands in its way, such as a full disk, may pass."""
    log.warning("embedded_part_restarted", address=part.address)
    try:
        part.start()
    except (ServiceError, OSError) as error:
        log.warning("embedded_part_away", address=part.address, reason=line_of(error))


def _quietly(stop: Callable[[], None]) -> None:
    try:
        stop()
    except Exception:
        log.exception("stop_failed")


def _parts_if_ready(url: str) -> dict[str, str] | None:
    """Return each part's state once the API says that it is ready."""
    with suppress(httpx.HTTPError):
        answer = httpx.get(url, timeout=5)
        if answer.status_code == httpx.codes.OK:
            parts: dict[str, str] = answer.json()["parts"]
            return parts
    return None


def _name(note: processes.Recorded) -> str:
    process = note.find()
    return "" if process is None else process.name()


def _on_signals(action: Callable[[int, FrameType | None], None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, action)


def _stop_now(_number: int, _frame: FrameType | None) -> None:
    raise Stopped


def main() -> int:
    """Run an instance until it is told to stop."""
    parser = argparse.ArgumentParser(prog="python -m cluster.service")
    parser.add_argument("--report", type=int, help="file descriptor for JSON lines")
    parser.add_argument("--attached", action="store_true", help="stop when the parent ends")
    arguments = parser.parse_args()
    report = Report(arguments.report)
    if arguments.attached:
        processes.die_with_parent(signal.SIGTERM)()
    try:
        return Service(load_settings(), report).run()
    except BadSettings as error:
        report.error(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
