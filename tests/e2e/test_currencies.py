"""Amounts in another currency in the whole system: over HTTP, in imports, in what jobs are told."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from pathlib import Path

import httpx
import psutil
import pytest

from tests.support.instance import Instance, a_place

RATES = "day,from,to,rate\n2020-01-01,USD,EUR,0.9\n"
MAPPING = """
source: deposits
brand: {is: demo}
format: csv
columns: {amount: decimal, at: {type: time, zone: UTC}}
player_id: player
occurred_at: at
currency: money
backfill: true
events:
  - {type: {is: deposit.completed}, amount: amount}
"""
ROWS = "player,amount,money,at\nana,100.00,USD,2021-05-01\nana,100.00,XYZ,2021-05-01\n"


@pytest.mark.slow
def test_the_file_of_rates_reaches_every_door(tmp_path: Path) -> None:
    (tmp_path / "rates.csv").write_text(RATES)
    (tmp_path / "map.yaml").write_text(MAPPING)
    (tmp_path / "deposits.csv").write_text(ROWS)
    own = {"CRM_RATES_FILE": os.path.relpath(tmp_path / "rates.csv")}
    with a_place() as instance:
        started = instance.crm("up", **own)
        assert started.returncode == 0, started.stderr
        assert _deposit(instance, "USD") == {"accepted": 1, "duplicates": 0, "rejected": []}
        refused = _deposit(instance, "XYZ")["rejected"]
        assert [item["code"] for item in refused] == ["unknown_currency"]
        files = [str(tmp_path / "deposits.csv"), "--mapping", str(tmp_path / "map.yaml"), "--json"]
        report = json.loads(instance.crm("import", *files, **own).stdout.splitlines()[-1])
        assert (report["accepted"], report["rejected_by_reason"]) == (1, {"unknown_currency": 1})
        features = _get(instance, "/v1/players/ana/features?brand=demo")["features"]
        assert features["deposit_amount_lifetime"] == "99.00"
        told = Path(psutil.Process(instance.owner_pids()[0]).environ()["CRM_RATES_FILE"])
        assert told.is_absolute()  # a job runs in another folder
        assert told.samefile(tmp_path / "rates.csv")


@pytest.mark.slow
def test_a_bad_file_of_rates_is_one_line_and_nothing_starts(tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text(RATES + "2020-01-02,USD,EUR,0;91\n")
    with a_place() as instance:
        started = instance.crm("up", CRM_RATES_FILE=str(file))
        assert started.returncode == 1
        last = started.stderr.splitlines()[-1]
        assert f"{file}, line 3: the rate of USD is a decimal above 0" in last
        assert not instance.status()["up"]


def _deposit(instance: Instance, currency: str) -> dict[str, list[dict[str, str]]]:
    event = {
        "event_id": f"deposit-{currency}",
        "type": "deposit.completed",
        "player_id": "ana",
        "brand": "demo",
        "occurred_at": datetime.now(UTC).isoformat(),
        "amount": "10.00",
        "currency": currency,
    }
    answer = httpx.post(
        f"{instance.state()['url']}/v1/events", json={"events": [event]}, headers=_key(instance)
    )
    report: dict[str, list[dict[str, str]]] = answer.json()
    return report


def _get(instance: Instance, path: str) -> dict[str, dict[str, str]]:
    answer = httpx.get(instance.state()["url"] + path, headers=_key(instance))
    found: dict[str, dict[str, str]] = answer.json()
    return found


def _key(instance: Instance) -> dict[str, str]:
    return {"Authorization": f"Bearer {instance.key()}"}
