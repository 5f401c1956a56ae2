"""The simulated brand: the same for the same plan, consistent in itself, acceptable at the door."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from crm.domain.brands import Brand, Currency
from crm.domain.events import Door, IncomingEvent
from pipelines.simulate import InvalidSimulation, labels_path, simulate, write_simulation
from pipelines.simulated_players import Simulation

END = datetime(2026, 3, 1, tzinfo=UTC)
EUROS = Currency("EUR", 2)
BRAND = Brand(
    "demo", "Demo", EUROS, "Europe/Lisbon", date(2020, 1, 1), "PT",
    ("casino", "live", "sports", "poker", "crash"),
)  # fmt: skip
PLAN = Simulation(BRAND, players=300, days=30, seed=7, end=END)
COLUMNS = {
    "event_id": pl.String(),
    "type": pl.String(),
    "player_id": pl.String(),
    "brand": pl.String(),
    "occurred_at": pl.Datetime("us", "UTC"),
    "amount": pl.String(),
    "currency": pl.String(),
    "properties": pl.String(),
}


@pytest.fixture(scope="module")
def events() -> pl.DataFrame:
    return simulate(PLAN)[0]


class _NoVault:
    def seal(self, brand: str, player_id: str, field: str, value: str) -> bytes:
        raise AssertionError(f"something personal in the simulation: {field}")

    def fingerprint(self, content: bytes) -> bytes:
        return b""


def _minor(frame: pl.DataFrame, kind: str) -> pl.DataFrame:
    return frame.filter(pl.col("type") == kind).with_columns(
        (pl.col("amount").cast(pl.Decimal(30, 2)) * 100).cast(pl.Int64).alias("minor"),
        pl.col("properties").str.json_path_match("$.bet_id").alias("bet_id"),
        pl.col("properties").str.json_path_match("$.result").alias("result"),
    )


def test_the_columns_are_those_of_the_contract_sorted_by_time(events: pl.DataFrame) -> None:
    assert dict(events.schema) == COLUMNS
    assert events["occurred_at"].is_sorted()
    assert events["event_id"].is_unique().all()


def test_the_same_plan_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.parquet"
    assert write_simulation(PLAN, first) == write_simulation(PLAN, second)
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize(
    "other", [replace(PLAN, seed=8), replace(PLAN, days=31), replace(PLAN, players=301)]
)
def test_another_plan_shares_no_event_id(events: pl.DataFrame, other: Simulation) -> None:
    assert not set(events["event_id"]) & set(simulate(other)[0]["event_id"])


def test_the_door_accepts_every_event(events: pl.DataFrame) -> None:
    door = Door({"demo": BRAND}, _NoVault())
    for row in events.iter_rows(named=True):
        row["amount"] = None if row["amount"] is None else Decimal(row["amount"])
        row["properties"] = None if row["properties"] is None else json.loads(row["properties"])
        door.accept(IncomingEvent(**row), received_at=END)


def test_no_event_is_after_the_end_or_before_its_players_registration(
    events: pl.DataFrame,
) -> None:
    assert (events["occurred_at"] <= END).all()
    first = events.group_by("player_id").agg(pl.col("type").first())
    assert first.height == PLAN.players
    assert set(first["type"]) == {"player.registered"}
    assert (events["type"] == "player.registered").sum() == PLAN.players


def test_a_bet_is_settled_once_after_it_was_placed_and_lost_ones_pay_nothing(
    events: pl.DataFrame,
) -> None:
    placed, settled = _minor(events, "bet.placed"), _minor(events, "bet.settled")
    both = settled.join(placed, on="bet_id", how="left", suffix="_placed", validate="1:1")
    assert both["occurred_at_placed"].null_count() == 0
    assert (both["occurred_at"] > both["occurred_at_placed"]).all()
    assert (both["player_id"] == both["player_id_placed"]).all()
    assert set(both["result"]) == {"won", "lost", "void"}
    assert (both.filter(pl.col("result") == "lost")["minor"] == 0).all()
    assert (both.filter(pl.col("result") == "won")["minor"] > 0).all()


def test_nobody_stakes_or_withdraws_money_they_do_not_have(events: pl.DataFrame) -> None:
    signs = {
        "deposit.completed": 1, "bet.settled": 1, "bet.placed": -1, "withdrawal.completed": -1,
    }  # fmt: skip
    parts = [_minor(events, kind).with_columns(pl.col("minor") * by) for kind, by in signs.items()]
    balance = (
        pl.concat(parts)
        .sort("occurred_at", maintain_order=True)
        .select(pl.col("minor").cum_sum().over("player_id"))
    )
    assert (balance["minor"] >= 0).all()


def test_stakes_are_heavy_tailed_and_the_house_wins_a_little() -> None:
    many = simulate(replace(PLAN, players=3_000))[0]
    staked = _minor(many, "bet.placed").group_by("player_id").agg(pl.col("minor").sum())["minor"]
    top = staked.sort(descending=True).head(staked.len() // 20).sum()
    assert int(top) > 0.4 * int(staked.sum()), "the top 5 % stake more than 40 % of the money"
    paid_back = int(_minor(many, "bet.settled")["minor"].sum()) / int(staked.sum())
    assert 0.88 < paid_back < 1.0


def test_every_kind_of_event_occurs(events: pl.DataFrame) -> None:
    assert set(events["type"]) == {
        "player.registered", "session.started", "session.ended", "deposit.requested",
        "deposit.completed", "deposit.failed", "withdrawal.requested", "withdrawal.completed",
        "withdrawal.cancelled", "bonus.granted", "bet.placed", "bet.settled",
    }  # fmt: skip


@pytest.mark.parametrize("decimals", [0, 2, 8])
def test_amounts_have_the_decimals_of_the_brands_currency(decimals: int) -> None:
    brand = replace(BRAND, currency=Currency("COIN", decimals))
    amounts = simulate(replace(PLAN, brand=brand, players=50))[0]["amount"].drop_nulls()
    shape = r"^\d+$" if decimals == 0 else rf"^\d+\.\d{{{decimals}}}$"
    assert amounts.str.contains(shape).all()


def test_planted_groups_lie_as_far_apart_as_stated() -> None:
    found, labels = simulate(replace(PLAN, players=600, days=60, groups=3, separation=6.0))
    assert labels is not None
    is_bet = pl.col("type") == "bet.placed"
    levels = found.group_by("player_id").agg(
        (pl.col("type") == "session.started").sum().log().alias("sessions"),
        is_bet.sum().log().alias("bets"),
        pl.col("amount").filter(is_bet).cast(pl.Float64).sum().log().alias("staked"),
    )
    table = levels.join(labels, on="player_id")
    values, group = table.select("sessions", "bets", "staked").to_numpy(), table["group"].to_numpy()
    centres = np.array([values[group == g].mean(axis=0) for g in range(3)])
    spread = np.mean([values[group == g].std(axis=0, ddof=1) for g in range(3)])
    gaps = np.linalg.norm(centres[:, None] - centres[None], axis=2)[~np.eye(3, dtype=bool)]
    assert 4.5 < gaps.min() / spread < 7.5


def test_labels_lie_beside_the_events(tmp_path: Path) -> None:
    out = tmp_path / "planted.parquet"
    write_simulation(replace(PLAN, groups=2, separation=3.0), out)
    labels = pl.read_parquet(labels_path(out))
    assert labels.columns == ["player_id", "group"]
    assert set(labels["group"]) == {0, 1}
    assert set(labels["player_id"]) == set(pl.read_parquet(out)["player_id"])


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (replace(PLAN, players=0), "--players"),
        (replace(PLAN, days=9_000), "--days may be at most"),
        (replace(PLAN, groups=1), "--groups"),
        (replace(PLAN, players=3, groups=5), "--groups may not exceed"),
        (replace(PLAN, groups=2, separation=-1.0), "--separation"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused_by_name(wrong: Simulation, says: str) -> None:
    with pytest.raises(InvalidSimulation, match=says):
        simulate(wrong)


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["--end", "2026-99-01"], 2, "--end"),
        (["--end", "2999-01-01"], 2, "future"),
        (["--separation", "3"], 2, "--groups"),
        (["--brand", "nowhere"], 1, "no such brand; there are bustabit"),
        (["--days", "99999", "--end", "2026-03-01"], 1, "--days may be at most"),
        (["--out", "missing-folder/x.parquet"], 1, "there is no such folder"),
    ],
)
def test_wrong_arguments_are_one_clear_error_and_write_nothing(
    arguments: list[str], code: int, says: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from cluster.app import run

    out = tmp_path / "x.parquet"
    assert run(["simulate", "--out", str(out), *arguments]) == code
    assert says in capfd.readouterr().err
    assert not out.exists()
