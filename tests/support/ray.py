"""The one Ray session of a test run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

# read when Ray is imported, by us and by every worker; the reasons are in Ray's own documentation
ENVIRONMENT = {
    "RAY_AUTH_MODE": "disabled",  # always said: else it depends on what lies in the home folder
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # every socket on loopback, as in production
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_TQDM": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_GRAFANA_HOST": "DISABLED",
    "RAY_SCHEDULER_EVENTS": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
    "RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S": "1",
    "RAY_enable_metrics_collection": "0",
    "RAY_num_workers_soft_limit": "6",
    "RAY_idle_worker_killing_time_threshold_ms": "60000",
}
NAMESPACE = "crm"


def prepare_environment() -> None:
    """Set Ray's flags: before anything imports Ray, and with no cluster to fall into."""
    os.environ.update(ENVIRONMENT)
    os.environ.pop("RAY_ADDRESS", None)


@contextmanager
def ray_session() -> Iterator[None]:
    """A local Ray of eight logical CPUs on loopback, gone when the block ends."""
    import ray

    home = tempfile.mkdtemp(prefix="crm-ray-", dir="/tmp")  # a socket's path has 107 characters
    try:
        ray.init(
            address="local",
            namespace=NAMESPACE,
            num_cpus=8,
            resources={"crm-state": 64, "crm-batch": 64},
            object_store_memory=200 * 1024**2,
            include_dashboard=False,
            log_to_driver=False,
            configure_logging=False,
            _temp_dir=home,
        )
        yield
    finally:
        ray.shutdown()
        shutil.rmtree(home, ignore_errors=True)
