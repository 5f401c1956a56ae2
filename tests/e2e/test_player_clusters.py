"""Player clusters on a whole running system: trained twice, listed, explained, as segments."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from sklearn.metrics import adjusted_rand_score

from tests.support.instance import Instance, an_instance

pytestmark = pytest.mark.timeout(1_800)
MAPPING = Path(__file__).parents[2] / "configs" / "mappings" / "simulated.yaml"
SEARCH = ("--algorithm", "kmeans", "--trials", "3")


def _trained(instance: Instance, *options: str) -> dict[str, Any]:
    done = instance.crm("train", "clusters", "--brand", "demo", *SEARCH, *options, "--json")
    log = instance.var_dir / "log" / "crm.log"
    assert done.returncode == 0, f"{done.stderr}\n{log.read_text()[-6_000:]}"
    return dict(json.loads(done.stdout.splitlines()[-1]))


async def test_planted_groups_are_found_explained_and_kept(tmp_path: Path) -> None:
    events = tmp_path / "events.parquet"
    with an_instance() as instance:
        made = instance.crm(
            "simulate", "--out", str(events), "--players", "200", "--days", "30", "--seed", "3",
            "--end", "2026-03-01", "--groups", "3", "--separation", "8",
        )  # fmt: skip
        assert made.returncode == 0, made.stderr
        came = instance.crm("import", str(events), "--mapping", str(MAPPING))
        assert came.returncode == 0, came.stderr
        out, export = tmp_path / "card", tmp_path / "who.csv"
        first = _trained(
            instance, "--out", str(out), "--export", str(export), "--segments", "--seed", "1"
        )
        who = pl.read_csv(export).join(
            pl.read_parquet(tmp_path / "events.labels.parquet"), on="player_id"
        )
        assert adjusted_rand_score(who["group"], who["cluster"]) >= 0.9
        assert (out / "projection.png").read_bytes().startswith(b"\x89PNG")
        assert "# Player clusters of demo" in (out / "card.md").read_text()
        assert all(one["segment"] for one in first["segments"]), first["segments"]
        second = _trained(instance, "--seed", "2", "--promote", "always")
        told = [(one["state"], one["number"]) for one in (first, second)]
        assert told == [("serving", 1), ("serving", 2)]
        assert second["before"] == first["id"], "the first served until then"
        assert {one["id"] for one in second["clusters"]} == {1, 2, 3}
        async with instance.client() as client:
            listed = (await client.get("/v1/clusters", params={"brand": "demo"})).json()["items"]
            moves = (await client.get("/v1/clusters/moves", params={"brand": "demo"})).json()
            segments = (await client.get("/v1/segments", params={"brand": "demo"})).json()["items"]
            models = (await client.get("/v1/models", params={"brand": "demo"})).json()["items"]
        assert sum(one["size"] for one in listed) == 200
        assert moves["model"] == second["id"]
        assert sum(one["players"] for one in moves["moves"]) == 200
        assert len(segments) == 3
        assert {one["id"] for one in models} == {first["id"], second["id"]}
        assert not list((instance.var_dir / "lake" / "searches").rglob("*.*"))
