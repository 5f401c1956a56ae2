"""A retrain on a batch group of no nodes: Ray's autoscaler adds one for it, and takes it away.

Run as `python -m tests.support.batch_nodes DSN`: a Ray cluster of its own, with a head, the
autoscaler (v2, as `ray up` has it) and its fake provider, whose nodes are processes of this host,
on ports and in a folder of its own, with a token. Prints one JSON object. As a job of that
cluster it is the retrain itself, with a training that only says where its work ran.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import yaml

from cluster import ports, processes
from configs.settings import Settings, load_settings
from crm.adapters import clock
from crm.adapters.postgres.retrains import open_retrains
from crm.domain.brands import Brand
from crm.domain.errors import CrmError
from crm.domain.models import RegisteredModel, TrainedOn
from crm.domain.retrains import Retrain, RetrainOptions, new_retrain
from pipelines.cluster_tune import BATCH
from pipelines.retrain_kinds import Made
from pipelines.retrain_requests import Serving
from pipelines.retraining import run
from tests.support.ray import ENVIRONMENT, NAMESPACE
from tests.support.wait import wait_for, wait_for_async

HEAD = "ray.head.default"  # the fake provider's own name for it
HEAD_ID = "fffffffffffffffffffffffffffffffffffffffffffffffffff00000"
LAUNCHER = Path(__file__).resolve().parents[2] / "ray-cluster.yaml"
IDLE_S = 5
LONG_S = 120
LONGEST = timedelta(minutes=10)
JOB = (sys.executable, "-m", "tests.support.batch_nodes", "job")


class Broken(CrmError):
    """What the training of the retrain that has to fail says."""

    code = "broken"


def launcher(gcs_port: int) -> dict[str, Any]:
    """Ray's own configuration: the batch group of ray-cluster.yaml on the fake provider."""
    types = yaml.safe_load(LAUNCHER.read_text(encoding="utf-8"))["available_node_types"]
    batch = types["batch"] | {"node_config": {}, "max_workers": 1, "idle_timeout_s": IDLE_S}
    batch["resources"] |= {"CPU": 2, "object_store_memory": 100 * 2**20}
    head = {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 0}
    return {
        "cluster_name": "batch-nodes",
        "max_workers": 1,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_S / 60,
        "provider": {
            "type": "external",  # as "fake_multinode" it asks for a file that no wheel has
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
            "gcs_address": f"127.0.0.1:{gcs_port}",
            "head_node_id": HEAD_ID,
            "launch_multiple": True,
        },
        "auth": {},
        "head_node_type": HEAD,
        "available_node_types": {HEAD: head, "batch": batch},
        "file_mounts": {},
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "cluster_synced_files": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }


@contextmanager
def a_head(home: Path, dsn: str) -> Iterator[tuple[str, str]]:
    """A head with dashboard, jobs and autoscaler; yields the addresses of GCS and dashboard."""
    gcs = ports.free_block(5)
    config = home / "launcher.json"
    config.write_text(json.dumps(launcher(gcs)))
    os.environ |= {
        **ENVIRONMENT,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_TMPDIR": str(home),  # where Ray notes the address of "the" cluster, too
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "AUTOSCALER_METRIC_PORT": str(gcs + 2),
        "DASHBOARD_METRIC_PORT": str(gcs + 3),
        "RAY_enable_worker_prestart": "0",
        "RAY_prestart_worker_first_driver": "0",
        "CRM_POSTGRES__DSN": dsn,
        "PYTHONPATH": str(LAUNCHER.parent),
    }
    of_head = {"RAY_CLOUD_INSTANCE_ID": HEAD_ID, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID}
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block",
        f"--port={gcs}", "--node-ip-address=127.0.0.1", "--num-cpus=2",
        f"--object-store-memory={100 * 2**20}", "--include-dashboard=true",
        "--dashboard-host=127.0.0.1", f"--dashboard-port={gcs + 1}",
        "--dashboard-agent-listen-port=0", f"--ray-client-server-port={gcs + 4}",
        f"--temp-dir={home / 'ray'}", f"--autoscaling-config={config}",
    ]  # fmt: skip
    processes.adopt_orphans()
    with (home / "head.log").open("wb") as log:
        subprocess.Popen(command, env=os.environ | of_head, stdout=log, stderr=log)
    dashboard = f"http://127.0.0.1:{gcs + 1}"
    try:
        wait_for(lambda: _answers(dashboard), "the dashboard answers", deadline_s=LONG_S)
        yield f"127.0.0.1:{gcs}", dashboard
    finally:
        processes.end(processes.descendants(), grace_s=5)
        processes.end(processes.descendants(), grace_s=1)


def _answers(dashboard: str) -> bool:
    try:
        return httpx.get(f"{dashboard}/api/jobs/", headers=_token()).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


def _submitted(dashboard: str) -> list[dict[str, Any]]:
    listed = httpx.get(f"{dashboard}/api/jobs/", headers=_token()).json()
    return [one for one in listed if one["submission_id"]]


def _token() -> dict[str, str]:
    return {"Authorization": f"Bearer {os.environ['RAY_AUTH_TOKEN']}"}


def _nodes() -> list[dict[str, Any]]:
    import ray

    return [one for one in ray.nodes() if one["Alive"]]  # type: ignore[no-untyped-call]  # no types


def _with_batch() -> list[str]:
    return [one["NodeID"] for one in _nodes() if "crm-batch" in one["Resources"]]


async def experiment(dsn: str, address: str, dashboard: str) -> dict[str, object]:
    """Ask for two retrains, of which the second fails; return what was seen of nodes and jobs."""
    from actors.ray_jobs import RayJobs
    from crm.services.retraining import look_after

    jobs = RayJobs(JOB, {}, batch=1.0, address=address)
    seen: list[list[str]] = [_with_batch()]
    async with open_retrains(dsn) as store:

        async def ended(retrain: Retrain) -> Retrain | None:
            await look_after(store, jobs, clock.now(), LONGEST)
            if (nodes := _with_batch()) != seen[-1]:
                seen.append(nodes)
            found = await store.get(retrain.id)
            return None if found.active else found

        async def retrained(occasion: str, seed: int) -> Retrain:
            options = RetrainOptions(seed, promote="never")
            asked = new_retrain("demo", "clusters", "request", occasion, clock.now(), options)
            await store.ask(asked)
            found = await wait_for_async(
                lambda: ended(asked), f"{occasion} has ended", deadline_s=LONG_S, every_s=0.3
            )
            assert found is not None
            await jobs.submit(asked)  # once more: its id is taken, and nothing happens
            return found

        done, failed = await retrained("first", 0), await retrained("second", 1)

        async def gone() -> bool:
            return not _with_batch()

        await wait_for_async(gone, "the batch node is gone", deadline_s=LONG_S, every_s=0.5)
    there = {node for nodes in seen for node in nodes}
    submitted = await asyncio.to_thread(_submitted, dashboard)
    return {
        "before": len(seen[0]),
        "at_work": max(len(nodes) for nodes in seen),
        "after": len(_with_batch()),
        "worker_there": done.model in there,
        "drivers_there": [
            one["driver_node_id"] in there for one in submitted if one["submission_id"]
        ],
        "states": [done.state, failed.state],
        "reason": failed.reason,
        "jobs": len(submitted),
    }


def _training(
    _settings: Settings, _brand: Brand, options: RetrainOptions, _serving: Serving | None
) -> Made:
    """Ask the batch group for a worker, as a search does, and say where it was."""
    import ray

    if options.seed:
        raise Broken("it was told to")
    node = ray.remote(num_cpus=0.5, resources=BATCH)(_where)
    found = ray.get(node.remote())
    at = clock.now()
    model = RegisteredModel(
        found, "demo", "clusters", 1, "candidate", "none", at, [], "", "", TrainedOn(0, 0, at, ""),
        {}, None, [],
    )  # fmt: skip
    return Made(model, lambda _document: _never())


def _where() -> str:
    import ray

    return str(ray.get_runtime_context().get_node_id())


def _never() -> Any:
    raise AssertionError("nothing serves")


def job(identity: str) -> None:
    """Do a retrain, as the job of one."""
    import ray

    ray.init("auto", namespace=NAMESPACE, log_to_driver=False)
    run(load_settings(), identity, {"clusters": _training})


def _looked_at(dsn: str, address: str, dashboard: str) -> dict[str, object]:
    import ray

    ray.init(address, namespace=NAMESPACE, log_to_driver=False, configure_logging=False)
    try:
        return asyncio.run(experiment(dsn, address, dashboard))
    finally:
        ray.shutdown()


def main(dsn: str) -> None:
    """Run the experiment."""
    home = Path(tempfile.mkdtemp(prefix="crm-ray-", dir="/tmp"))  # a socket's path is short
    try:
        with a_head(home, dsn) as (address, dashboard):
            result = _looked_at(dsn, address, dashboard)
            result["without_token"] = httpx.get(f"{dashboard}/api/jobs/").status_code
        sys.stdout.write(json.dumps(result) + "\n")
    finally:
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    if sys.argv[1] == "job":
        job(sys.argv[2])
    else:
        main(sys.argv[1])
