"""A brand's own measures over HTTP: listed, read in the property's unit, and used in rules."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from crm.domain.features import FEATURES
from crm.domain.score_columns import LISTED
from tests.support.api import Api, an_api, an_event_body, problem_of

PREVIEW = "/v1/segments/preview"


def _settled(number: int, player: str, x: object, result: str = "won") -> dict[str, Any]:
    return an_event_body(
        event_id=f"s{number}", type="bet.settled", brand="other", player_id=player, amount="0",
        properties={"result": result, "x": x},
    )  # fmt: skip


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    async with an_api() as running:
        await running.take(
            _settled(1, "p1", 1.27), _settled(2, "p1", 2.01), _settled(3, "p1", 99, "lost"),
            _settled(4, "p1", "50.0"), _settled(5, "p2", 1.005), _settled(6, "p3", 5, "lost"),
            an_event_body(
                event_id="spin", type="custom.spin", brand="other", player_id="p3", amount=...,
                currency=..., properties={"x": 0.25, "tag": "won"},
            ),
        )  # fmt: skip
        yield running


async def _features(api: Api, player: str) -> dict[str, Any]:
    answer = await api.client.get(f"/v1/players/{player}/features?brand=other")
    return dict(answer.json()["features"])


async def _count(api: Api, rule: object, brand: str = "other") -> int:
    answer = await api.client.post(PREVIEW, json={"brand": brand, "rule": rule})
    assert answer.status_code == 200, answer.text
    return int(answer.json()["count"])


async def test_own_features_are_listed_after_the_built_in_ones_of_their_brand_alone(
    api: Api,
) -> None:
    items = (await api.client.get("/v1/features?brand=other")).json()["items"]
    names = [item["name"] for item in items]
    assert names[: len(FEATURES)] == list(FEATURES)
    assert names[len(FEATURES)] == "mean_cashout_24h"
    mean = items[len(FEATURES)]
    assert (mean["unit"], mean["decimals"]) == ("number", 2)
    assert mean["meaning"].startswith("mean cash-out multiplier")
    of_demo = (await api.client.get("/v1/features?brand=demo")).json()["items"]
    assert [item["name"] for item in of_demo] == [*FEATURES, *(one.name for one in LISTED)]
    problem_of(await api.client.get("/v1/features?brand=nobody"), 404, "unknown_brand")


async def test_values_are_in_the_propertys_unit_and_missing_without_an_event(api: Api) -> None:
    first, second, third = [await _features(api, player) for player in ("p1", "p2", "p3")]
    assert first["mean_cashout_lifetime"] == first["mean_cashout_24h"] == 1.64
    assert second["mean_cashout_30d"] == 1.01  # half away from zero, and not the double below
    assert third["mean_cashout_lifetime"] is None
    assert (third["spin_x_sum_7d"], first["spin_x_sum_7d"]) == (0.25, 0.0)
    assert (third["tagged_count_7d"], third["tagged_days_lifetime"]) == (1, 0)
    assert type(third["tagged_count_7d"]) is int


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        ("mean_cashout_7d >= 1.64", 1),
        ("mean_cashout_7d > 1.64", 0),
        ("mean_cashout_lifetime in (1.64, 1.010)", 2),
        ("mean_cashout_lifetime between 1 and 1.5 and tagged_count_7d = 0", 1),
        ("not (mean_cashout_lifetime < 9)", 1),  # p3: missing
        ("spin_x_sum_7d = 0.25", 1),
        ({"kind": "compare", "feature": "mean_cashout_30d", "op": "<", "value": "1.02"}, 1),
    ],
)
async def test_rules_name_own_features(api: Api, rule: object, count: int) -> None:
    assert await _count(api, rule) == count


@pytest.mark.parametrize(
    ("brand", "rule", "position", "message"),
    [
        ("other", "mean_cashot_7d > 1", 0, "did you mean mean_cashout_7d"),
        ("demo", "bet_count_7d > 1 or mean_cashout_7d > 1", 20, "there is no feature"),
        ("other", "mean_cashout_7d > 1.275", 18, "mean_cashout_7d has 2 decimals"),
        ("other", 'mean_cashout_7d > "2026-01-01"', 18, "a number: a decimal such as 1.27"),
        ("other", "exists mean_cashout.sum_7d", 7, "there is no feature"),
        (
            "other",
            {"kind": "compare", "feature": "mean_cashout_7d", "op": ">", "value": "1.275"},
            None,
            "mean_cashout_7d has 2 decimals",
        ),
    ],
)
async def test_a_wrong_rule_says_what_is_wrong_and_where(
    api: Api, brand: str, rule: object, position: int | None, message: str
) -> None:
    answer = await api.client.post(PREVIEW, json={"brand": brand, "rule": rule})
    problem = problem_of(answer, 422, "invalid_rule")
    assert message in problem["message"]
    assert problem["position"] == position
