"""/v1/retrains and a model's drift, over stores in memory."""

from __future__ import annotations

from crm.domain.drift import Drift, Shift
from crm.domain.retrains import Outcome
from tests.support.api import an_api, problem_of

KEY = {"idempotency-key": "monday"}


async def test_a_retrain_is_asked_for_read_and_listed() -> None:
    async with an_api() as api:
        answer = await api.client.post("/v1/retrains", json={"kind": "clusters", "seed": 5})
        assert answer.status_code == 201
        made = answer.json()
        assert made | {"id": ""} == {
            "id": "", "brand": "demo", "kind": "clusters", "cause": "request",
            "occasion": "request", "options": {"seed": 5, "budget_s": None, "promote": "rule"},
            "state": "queued", "asked_at": "2026-03-10T12:00:00Z",
            "changed_at": "2026-03-10T12:00:00Z", "started_at": None, "ended_at": None,
            "reason": None, "model": None, "promoted": None, "note": None,
        }  # fmt: skip
        assert answer.headers["location"] == f"/v1/retrains/{made['id']}"
        assert (await api.client.get(answer.headers["location"])).json() == made
        assert (await api.client.get("/v1/retrains")).json() == {"items": [made], "next": None}


async def test_asking_twice_under_one_key_is_one_retrain() -> None:
    async with an_api() as api:
        body = {"kind": "churn"}
        first = await api.client.post("/v1/retrains", json=body, headers=KEY)
        again = await api.client.post("/v1/retrains", json=body, headers=KEY)
        assert (again.status_code, again.json()) == (201, first.json())
        other = await api.client.post("/v1/retrains", json={"kind": "value"}, headers=KEY)
        problem_of(other, 422, "idempotency_key_reused")
        running = await api.client.post("/v1/retrains", json=body)
        assert first.json()["id"] in problem_of(running, 409, "retrain_running")["message"]
        await api.retrains.begin(first.json()["id"], api.clock())
        made = Outcome("m1", promoted=True, note="promoted: nothing was serving")
        await api.retrains.finish(first.json()["id"], made, api.clock())
        done = (await api.client.post("/v1/retrains", json=body, headers=KEY)).json()
        assert (done["id"], done["state"], done["model"]) == (first.json()["id"], "done", "m1")
        assert (await api.client.post("/v1/retrains", json=body)).status_code == 201


async def test_retrains_come_page_by_page() -> None:
    async with an_api() as api:
        for _ in range(3):
            made = (await api.client.post("/v1/retrains", json={"kind": "value"})).json()
            await api.retrains.fail(made["id"], "over", api.clock())
            api.clock.move(seconds=1)
        page = (await api.client.get("/v1/retrains?limit=2")).json()
        rest = (await api.client.get("/v1/retrains", params={"cursor": page["next"]})).json()
        times = [one["asked_at"] for one in page["items"] + rest["items"]]
        assert times == sorted(times, reverse=True)
        assert (len(times), rest["next"]) == (3, None)
        assert (await api.client.get("/v1/retrains?kind=churn")).json()["items"] == []
        assert (await api.client.get("/v1/retrains?brand=other")).json()["items"] == []


async def test_what_cannot_be_asked_for_is_told() -> None:
    async with an_api() as api:
        send = api.client.post
        problem_of(await send("/v1/retrains", json={"kind": "luck"}), 422, "invalid_field")
        problem_of(await send("/v1/retrains", json={}), 422, "invalid_field")
        unknown = {"kind": "churn", "brand": "none"}
        problem_of(await send("/v1/retrains", json=unknown), 404, "unknown_brand")
        get = api.client.get
        problem_of(await get("/v1/retrains/retrain-none"), 404, "retrain_not_found")
        problem_of(await get("/v1/retrains?cursor=x"), 422, "invalid_cursor")
        problem_of(await get("/v1/models/none/drift"), 404, "model_not_found")


async def test_a_models_drift_is_the_newest_look() -> None:
    async with an_api() as api:
        shifts = [Shift("stake_amount_30d", 0.4, 0.02)]
        found = Drift("m1", "demo", "churn", api.clock(), 900, shifts, None, ["stake_amount_30d"])
        await api.retrains.note_drift(found)
        shown = (await api.client.get("/v1/models/m1/drift")).json()
        assert shown["drifted"] == ["stake_amount_30d"]
        assert shown["features"] == [{"name": "stake_amount_30d", "psi": 0.4, "chance": 0.02}]
