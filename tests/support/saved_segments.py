"""Saved segments over HTTP, as tests make, import and read them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from tests.support.api import Api, an_api, an_event_body

PATH = "/v1/segments"
RULE = "stake_amount_lifetime >= 20"
CSV = {"content-type": "text/csv"}


@asynccontextmanager
async def an_api_with_bets() -> AsyncIterator[Api]:
    """An API over three players: p1 has staked 20, p2 5, p3 50."""
    async with an_api() as running:
        await bets(running, p1="20", p2="5", p3="50")
        yield running


async def bets(api: Api, **amounts: str) -> None:
    """Take in a bet of each player."""
    await api.take(
        *[
            an_event_body(event_id=f"{player}:{amount}", player_id=player, amount=amount)
            for player, amount in amounts.items()
        ]
    )


async def make(api: Api, **fields: Any) -> dict[str, Any]:
    """Save a segment; return it."""
    answer = await api.client.post(PATH, json={"name": "Big", "rule": RULE} | fields)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"{PATH}/{answer.json()['id']}"
    return dict(answer.json())


async def imported(api: Api, body: str, **params: str) -> dict[str, Any]:
    """Import a CSV as a list; return it."""
    params = {"name": "VIP"} | params
    answer = await api.client.post(f"{PATH}/lists", content=body, params=params, headers=CSV)
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


async def read(api: Api, path: str, **params: Any) -> Any:
    """Return what a route below the segments answers."""
    answer = await api.client.get(f"{PATH}/{path}", params=params)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def members(api: Api, segment: str, **params: Any) -> list[str]:
    """Return the members of a segment."""
    found = await read(api, f"{segment}/members", **params)
    return [one["player_id"] for one in found["items"]]
