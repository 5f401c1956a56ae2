"""`crm train value` and `churn` on a whole running system with the real purchases of CDNOW."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from crm.domain.models import ScoreModel
from tests.support.instance import Instance, an_instance

CLONE = Path(__file__).parents[2]
SAMPLE = CLONE.parent / "shared" / "data" / "cdnow" / "CDNOW_sample.txt.gz"
MAPPING = CLONE / "configs" / "mappings" / "cdnow_sample.yaml"

pytestmark = [
    pytest.mark.skipif(not SAMPLE.is_file(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]


async def test_scores_are_trained_by_command_shown_written_and_registered(tmp_path: Path) -> None:
    with an_instance() as instance:
        _json(instance, "import", str(SAMPLE), "--mapping", str(MAPPING), "--json")
        out = tmp_path / "out"
        asked = ("train", "value", "--brand", "cdnow", "--target", "count", "--horizon-days", "273")
        value = _json(instance, *asked, "--out", str(out), "--json")
        assert (value["kind"], value["target"], value["players"]) == ("value", "deposit_days", 2357)
        test = {one["model"]: one for one in value["tests"] if one["players"] == "all"}
        assert test["xgboost"]["test"] == "1997-09-30T00:00:00Z"
        assert test["xgboost"]["mae"] < test["bgnbd"]["mae"]
        assert test["xgboost"]["true_total"] == 1_882
        assert test["xgboost"]["total"] == pytest.approx(1_882, rel=0.1)
        assert round(value["bgnbd"]["log_likelihood"], 1) == -9582.4
        assert value["state"] == "serving"
        document = msgspec.json.decode((out / "document.json").read_bytes(), type=ScoreModel)
        assert document.id == value["id"]
        assert "BG/NBD" in (out / "card.md").read_text()
        refused = instance.crm(*asked, "--out", str(out))
        assert (refused.returncode, refused.stderr.count("\n")) == (1, 1)
        assert "is there already" in refused.stderr

        churn = instance.crm("train", "churn", "--brand", "cdnow", "--promote", "never")
        assert churn.returncode == 0, churn.stderr
        for word in ("xgboost", "logistic", "recency", "at risk", "critical", ": candidate"):
            assert word in churn.stdout
        short = instance.crm("train", "churn", "--brand", "cdnow", "--horizon-days", "300")
        assert short.returncode == 1
        assert "545 days of events; churn over 300 days needs 900" in short.stderr

        async with instance.client() as client:
            answer = await client.get("/v1/models", params={"brand": "cdnow"})
        assert {one["kind"] for one in answer.json()["items"]} == {"value", "churn"}


def _json(instance: Instance, *arguments: str) -> dict[str, Any]:
    done = instance.crm(*arguments)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
