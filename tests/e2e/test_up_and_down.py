"""The whole system: up, who listens, down, and nothing of it left."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import grpc  # type: ignore[import-untyped]  # no stubs
import httpx
import psutil
import pytest

from tests.support.instance import CRM, Instance, a_place, an_instance
from tests.support.wait import wait_for


@pytest.fixture
def instance() -> Iterator[Instance]:
    with a_place() as place:
        yield place


@pytest.fixture(scope="module")
def running() -> Iterator[Instance]:
    with an_instance() as started:
        yield started


@pytest.mark.parametrize("wrong", ["brands/demo.yaml", "rates.csv"])
def test_up_reads_brands_and_rates_before_it_starts_any_part(
    instance: Instance, tmp_path: Path, wrong: str
) -> None:
    file = tmp_path / wrong
    file.parent.mkdir(exist_ok=True)
    file.write_text("id: 7\n")
    brands = wrong.startswith("brands")
    own = {"CRM_BRANDS_DIR": str(file.parent)} if brands else {"CRM_RATES_FILE": str(file)}
    up = instance.crm("up", **own)
    assert (up.returncode, up.stdout) == (1, "")  # nothing is starting
    assert str(file) in up.stderr


@pytest.mark.slow
def test_status_names_every_part_of_a_running_service(running: Instance) -> None:
    status = running.status()
    assert status["up"]
    assert set(status["parts"].values()) == {"ok"}


@pytest.mark.slow
def test_the_shard_owners_are_listed_and_their_number_is_changed(running: Instance) -> None:
    assert [owner["shards"] for owner in _owners(running)] == [128, 128]
    grown = json.loads(running.crm("shards", "resize", "3", "--json").stdout.splitlines()[-1])
    assert (grown["owners"], grown["moved"]) == (3, 85)
    assert sorted(owner["shards"] for owner in _owners(running)) == [85, 85, 86]
    assert running.crm("shards", "list").stdout.count("ready") == 3
    assert "2 owners; 85 shards moved" in running.crm("shards", "resize", "2").stdout
    _refused(running.crm("shards", "resize", "0"), "1 to 256")


def _owners(instance: Instance) -> list[dict[str, Any]]:
    listed = json.loads(instance.crm("shards", "list", "--json").stdout.splitlines()[-1])
    owners: list[dict[str, Any]] = listed["owners"]
    assert {owner["state"] for owner in owners} == {"ready"}
    return owners


@pytest.mark.slow
def test_every_listener_is_on_loopback_but_the_named_ones(running: Instance) -> None:
    strangers = [
        (port, owner) for address, port, owner in _listeners(running) if not _loopback(address)
    ]
    # docs/listeners.md: Serve binds a replica's internal gRPC server to all interfaces
    assert {owner.partition(":")[0] for _, owner in strangers} <= {"ray"}
    for port, owner in strangers:
        assert owner.startswith("ray::ServeReplica")
        assert _grpc_answer(port) == grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.slow
def test_the_dashboard_refuses_a_request_without_its_token(running: Instance) -> None:
    dashboard = running.status()["dashboard"]
    token = (running.var_dir / "run" / "ray-token").read_text()
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/v0/actors", "/api/serve/applications/"):
        assert httpx.get(dashboard + path).status_code == 401
        wrong = {"Authorization": "Bearer " + "0" * 64}
        assert httpx.get(dashboard + path, headers=wrong).status_code in (401, 403)
    job = {"entrypoint": "id"}
    assert httpx.post(f"{dashboard}/api/jobs/", json=job).status_code == 401
    right = {"Authorization": f"Bearer {token}"}
    assert httpx.get(f"{dashboard}/api/jobs/", headers=right).status_code == 200


@pytest.mark.slow
def test_no_other_user_can_read_a_secret_of_the_instance(running: Instance) -> None:
    run = running.var_dir / "run"
    secrets = [run / "ray-token", run / "state.json", running.var_dir / "bootstrap-key"]
    admin = next((run / "haproxy").glob("*/a"))
    for path in (*secrets, admin):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.slow
def test_a_second_start_in_the_same_folder_is_refused_in_one_line(running: Instance) -> None:
    _refused(running.crm("up"), "is in use by a running instance")
    assert running.status()["up"]


@pytest.mark.slow
def test_logs_are_json_lines(running: Instance) -> None:
    lines = (running.var_dir / "log" / "crm.log").read_text().splitlines()
    assert "service_ready" in [json.loads(line)["event"] for line in lines]


@pytest.mark.slow
def test_a_killed_service_leaves_no_process_and_starts_again_with_its_data(
    instance: Instance,
) -> None:
    assert instance.crm("up").returncode == 0
    key = (instance.var_dir / "bootstrap-key").read_text()
    before = instance.processes()
    before[0].kill()
    again = instance.crm("up")
    assert again.returncode == 0, again.stderr
    _all_gone(before)  # most die with their parent; what does not is ended by the next start
    assert (instance.var_dir / "bootstrap-key").read_text() == key
    assert key not in again.stdout  # it is shown once
    running = instance.processes()
    assert instance.crm("down").returncode == 0
    _all_gone(running)
    assert instance.crm("status").returncode == 1


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("after", ["starting PostgreSQL", "starting Ray", "starting the API"])
def test_a_start_that_is_interrupted_leaves_nothing(
    instance: Instance, sent: signal.Signals, after: str
) -> None:
    with subprocess.Popen(
        [*CRM, "up", "--foreground"],
        env=instance.environment(PYTHONUNBUFFERED="1"),
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    ) as console:  # fmt: skip
        assert console.stdout is not None
        assert console.stderr is not None
        for line in console.stdout:
            if line.startswith(after):
                break
        started = psutil.Process(console.pid).children(recursive=True)
        os.killpg(console.pid, sent)  # what a terminal does
        assert console.wait(30) == 0
        assert console.stderr.read() == ""
    _all_gone(started)


def test_a_port_in_use_is_one_line(instance: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        _refused(instance.crm("up", CRM_API__PORT=str(port)), f"port {port} on 127.0.0.1 is in use")
    assert not (instance.var_dir / "data" / "postgres").exists()


def test_a_database_that_is_away_is_one_line_without_its_password(instance: Instance) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    dsn = f"postgresql://crm:hush@127.0.0.1:{port}/crm"
    refused = instance.crm("up", CRM_POSTGRES__DSN=dsn)
    _refused(refused, "PostgreSQL cannot be used")
    log = (instance.var_dir / "log" / "crm.log").read_text()
    assert "hush" not in refused.stderr + log


def test_a_wrong_setting_is_one_line(instance: Instance) -> None:
    _refused(instance.crm("up", CRM_API__PORT="eighty"), "api.port")


def test_a_folder_that_cannot_be_made_is_one_line(instance: Instance) -> None:
    _refused(instance.crm("up", CRM_VAR_DIR="/proc/nowhere"), "/proc/nowhere")


def test_wrong_usage_has_exit_code_2(instance: Instance) -> None:
    assert instance.crm("upp").returncode == 2
    assert instance.crm("status", "--colour").returncode == 2


def _refused(run: subprocess.CompletedProcess[str], reason: str) -> None:
    assert run.returncode == 1
    assert reason in run.stderr
    assert len(run.stderr.splitlines()) == 1


def _all_gone(processes: list[psutil.Process]) -> None:
    def left() -> list[psutil.Process]:
        return [process for process in processes if _alive(process)]

    wait_for(lambda: not left(), f"all processes have ended, but {left()}")


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _listeners(instance: Instance) -> list[tuple[str, int, str]]:
    found = []
    for process in instance.processes():
        try:
            name = process.name()
            for connection in process.net_connections("inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.append((connection.laddr.ip, connection.laddr.port, name))  # noqa: PERF401 - a generator would hide the name
        except psutil.NoSuchProcess:
            continue
    return found


def _loopback(address: str) -> bool:
    parsed = ip_address(address)
    mapped = getattr(parsed, "ipv4_mapped", None)
    return parsed.is_loopback or (mapped is not None and mapped.is_loopback)


def _grpc_answer(port: int) -> grpc.StatusCode:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        call = channel.unary_unary("/ray.serve.ASGIService/HandleRequest")
        with pytest.raises(grpc.RpcError) as raised:
            call(b"", timeout=20)
    code: grpc.StatusCode = raised.value.code()
    return code
