"""bustabit: segments by text over the API are what pandas finds in the file."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pytest

from configs.brands import load_brands
from crm.adapters.memory import MemoryEventLog
from crm.domain.events import LoggedEvent
from tests.integration.test_import_real_data import BETS, CLONE, DATA, run
from tests.support.api import an_api
from tests.support.clock import Clock
from tests.support.imports import RememberingShards
from tests.support.local_shards import LocalShards
from tests.support.owners import an_owner

pytestmark = [
    pytest.mark.skipif(not DATA.is_dir(), reason="no real data at ../shared/data"),
    pytest.mark.slow,
]
NOW = datetime(2016, 12, 10, 18, tzinfo=UTC)  # half a day after the last bet
Players = set[str]
Bets = pd.DataFrame


def _bets() -> Bets:
    """The file, with payouts as the brand has them: nothing when the bet was lost."""
    bets = pd.read_csv(BETS)
    bets["at"] = pd.to_datetime(bets["PlayDate"])
    bets["won"] = bets["CashedOut"].notna()
    # hundredths are exact in integers, not in floats
    bets["stake"] = (bets["Bet"] * 100).round().astype("int64")
    profit = (bets["Profit"].fillna(0) * 100).round().astype("int64")
    bets["payout"] = (bets["stake"] + profit).where(bets["won"], 0)
    return bets[bets["at"] <= NOW]


def _in_days(bets: Bets, days: int) -> Bets:
    first = (NOW - timedelta(days=days - 1)).replace(hour=0)
    return bets[bets["at"] >= first]


def _count(bets: Bets) -> pd.Series:
    return bets.groupby("Username").size()


def _ggr(bets: Bets) -> pd.Series:
    return (bets["stake"] - bets["payout"]).groupby(bets["Username"]).sum()


def _idle_days(bets: Bets) -> pd.Series:
    days: pd.Series = (NOW - bets.groupby("Username")["at"].max()).dt.days
    return days


def _who(found: pd.Series) -> Players:
    return set(found[found].index)


def _everybody(bets: Bets) -> Players:
    return set(bets["Username"])


CASES: dict[str, Callable[[Bets], Players]] = {
    "bet_count_lifetime >= 10": lambda b: _who(_count(b) >= 10),
    "bet_count_lifetime >= 10 and stake_amount_lifetime > 10000.50": lambda b: (
        _who(_count(b) >= 10) & _who(b.groupby("Username")["stake"].sum() > 10_000_50)
    ),
    "bet_count_7d >= 3": lambda b: _who(_count(_in_days(b, 7)) >= 3),
    "bet_count in 12 days between 2 and 5": lambda b: _who(_count(_in_days(b, 12)).between(2, 5)),
    "days_since_last_bet > 14": lambda b: _who(_idle_days(b) > 14),
    "not (days_since_last_bet > 14)": lambda b: _everybody(b) - _who(_idle_days(b) > 14),
    "ggr_amount_lifetime < 0 or win_count_lifetime = 0": lambda b: (
        _who(_ggr(b) < 0) | _who(b.groupby("Username")["won"].sum() == 0)
    ),
    "did not bet in 10 days, newcomers included": lambda b: (
        _everybody(b) - set(_in_days(b, 10)["Username"])
    ),
    'player_id starts with "a" and bet_count_lifetime > 1': lambda b: _who(
        _count(b[b["Username"].str.startswith("a")]) > 1
    ),
}


@pytest.fixture
def imported(tmp_path: Path) -> list[LoggedEvent]:
    """The file's events, as the importer makes them."""
    remembering = RememberingShards()
    run(remembering, tmp_path, "bustabit", BETS)
    return list(remembering.events.values())


async def test_segments_of_bustabit_are_those_of_pandas(imported: list[LoggedEvent]) -> None:
    bets, brand = _bets(), load_brands(CLONE / "configs" / "brands")["bustabit"]
    clock = Clock(NOW)
    async with an_owner(MemoryEventLog(), clock, brands={brand.id: brand}) as owner:
        await owner.append([[event] for event in imported])
        shards = LocalShards(owner, {brand.id: brand})
        async with an_api(shards=shards, also=[brand]) as api:
            for rule, expected in CASES.items():
                body = {"brand": brand.id, "rule": rule}
                answer = await api.client.post("/v1/segments/preview", json=body)
                assert answer.status_code == 200, answer.text
                wanted = expected(bets)
                assert answer.json()["count"] == len(wanted), rule
                assert set(answer.json()["sample"]) <= wanted, rule
                assert 0 < len(wanted) < len(_everybody(bets)), rule
