"""ray-cluster.yaml against Ray's own schema, and against what the design asks of it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.processes import folder_of

FILE = Path(__file__).resolve().parents[2] / "ray-cluster.yaml"
# what differs between nodes breaks requests between them; the drain time is for development only
FLAGS = {
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN_PATH": "$HOME/.crm/ray-token",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    "RAY_SERVE_ENABLE_HA_PROXY": "1",
    "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "0",
}


@pytest.fixture(scope="module")
def launcher() -> dict[str, Any]:
    loaded = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


def _starting(launcher: dict[str, Any]) -> list[str]:
    commands = launcher["head_start_ray_commands"] + launcher["worker_start_ray_commands"]
    return [command for command in commands if re.search(r"\b(ray start|crm up)\b", command)]


def _flags(command: str) -> dict[str, str]:
    return dict(re.findall(r"\b(RAY_[A-Z_]+)=([^\s;]+)", command))


def test_it_fits_rays_own_schema(launcher: dict[str, Any]) -> None:
    schema = folder_of("ray") / "autoscaler" / "ray-schema.json"
    jsonschema.validate(launcher, json.loads(schema.read_text(encoding="utf-8")))


def test_the_head_is_one_of_its_node_types_and_no_worker(launcher: dict[str, Any]) -> None:
    head = launcher["available_node_types"][launcher["head_node_type"]]
    assert (head["min_workers"], head["max_workers"]) == (0, 0)
    assert "crm-state" not in head["resources"]


def test_what_the_code_asks_of_a_node_its_group_has(launcher: dict[str, Any]) -> None:
    from actors.processes import STATE
    from pipelines.cluster_tune import BATCH

    types = launcher["available_node_types"]
    for asked, group in ((STATE, "state"), (BATCH, "batch")):
        for name, amount in asked.items():
            have = {kind: node["resources"].get(name, 0) for kind, node in types.items()}
            assert have.pop(group) >= amount
            assert not any(have.values())


def test_shard_owners_have_nodes_that_stay(launcher: dict[str, Any]) -> None:
    state = launcher["available_node_types"]["state"]
    assert state["resources"]["crm-state"] >= 1
    assert 2 <= state["min_workers"] <= state["max_workers"]


def test_batch_nodes_come_and_go(launcher: dict[str, Any]) -> None:
    batch = launcher["available_node_types"]["batch"]
    assert batch["min_workers"] == 0 < batch["max_workers"]
    assert batch["idle_timeout_s"] > 0


def test_each_group_may_reach_its_own_limit(launcher: dict[str, Any]) -> None:
    types = launcher["available_node_types"].values()
    assert launcher["max_workers"] == sum(each["max_workers"] for each in types)


def test_each_group_has_its_label(launcher: dict[str, Any]) -> None:
    types = launcher["available_node_types"]
    assert {name: each["labels"]["crm-group"] for name, each in types.items()} == {
        "head": "head",
        "state": "state",
        "batch": "batch",
    }


def test_whatever_starts_ray_asks_for_the_token_and_has_the_same_flags(
    launcher: dict[str, Any],
) -> None:
    starting = _starting(launcher)
    assert len(starting) == 3
    assert [_flags(command) for command in starting] == [FLAGS] * 3


def test_the_dashboard_is_on_loopback(launcher: dict[str, Any]) -> None:
    head = " ".join(launcher["head_start_ray_commands"])
    assert re.findall(r"--dashboard-host=(\S+)", head) == ["127.0.0.1"]


def test_no_secret_is_written_in_it() -> None:
    text = FILE.read_text(encoding="utf-8")
    assert not re.search(r"postgres(ql)?://|redis(s)?://|AKIA|[0-9a-f]{32}", text)
