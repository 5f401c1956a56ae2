"""The laws of the registry of models, on the twin in memory and on PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from hashlib import sha256
from typing import Any

import asyncpg
import pytest

from crm.adapters.memory_models import MemoryModels
from crm.adapters.postgres.models import open_models
from crm.domain.errors import (
    DatabaseAway,
    InvalidModel,
    InvalidReason,
    KeyReused,
    ModelNotBetter,
    ModelNotFound,
    NoFormerModel,
    ServingChanged,
)
from crm.domain.saved_segments import Once
from crm.services.model_registry import Models
from tests.support.models import AT, trained


def asked(request: str = "a", key: str = "k", caller: str = "c") -> Once:
    return Once(caller.encode(), key, request.encode())


async def serving(models: Models, brand: str = "demo") -> list[str]:
    return [one.id for one in await models.serving(brand)]


class ModelsLaws:
    """What any registry of models does."""

    async def test_a_model_comes_back_as_it_was(self, models: Models) -> None:
        given = trained(beats_baseline=True)
        added = await models.add(given, "run1")
        assert await models.get("m1") == added
        assert (added.number, added.state, added.promoted_at) == (1, "candidate", None)
        assert (added.run, added.seed, added.params) == ("run1", 7, {"k": "2"})
        assert (added.metrics, added.data) == (given.metrics, given.data)
        assert added.files == ["card.md", "sizes.png"]
        assert await models.document("m1") == given.document
        digests = {name: sha256(data).digest() for name, data in given.files.items()}
        assert await models.digests("m1") == digests

    async def test_adding_the_same_model_again_changes_nothing(self, models: Models) -> None:
        first = await models.add(trained(), "run1")
        assert await models.add(trained(), "run2") == first
        assert len(await models.changes("demo")) == 1
        await models.promote("m1", "key")
        assert (await models.add(trained())).state == "serving"

    @pytest.mark.parametrize(
        "changes",
        [
            {"brand": "other"},
            {"kind": "churn"},
            {"created_at": AT + timedelta(days=1)},
            {"document": b"{}"},
            {"files": {}},
            {"files": trained().files | {"card.md": b"# Another"}},
        ],
    )
    async def test_an_id_that_another_model_has_is_refused_and_changes_nothing(
        self, models: Models, changes: dict[str, Any]
    ) -> None:
        first = await models.add(trained(), "run1")
        with pytest.raises(InvalidModel, match="the clusters model 1 of brand demo"):
            await models.add(trained(**changes), "run2")
        assert await models.get("m1") == first
        assert await models.document("m1") == trained().document
        assert len(await models.changes("demo")) == 1
        assert await models.changes("other") == []

    async def test_a_model_without_files_has_none(self, models: Models) -> None:
        assert (await models.add(trained(files={}))).files == []
        assert await models.digests("m1") == {}

    async def test_numbers_count_within_brand_and_kind_without_gaps(self, models: Models) -> None:
        numbers = [
            (await models.add(trained(id=name, brand=brand, kind=kind))).number
            for name, brand, kind in (
                ("a", "demo", "clusters"), ("b", "demo", "churn"), ("a", "demo", "clusters"),
                ("c", "demo", "clusters"), ("d", "other", "clusters"),
            )
        ]  # fmt: skip
        assert numbers == [1, 1, 1, 2, 1]

    async def test_models_added_at_once_get_a_number_each(self, models: Models) -> None:
        names = [f"m{n % 6}" for n in range(18)]  # each three times
        added = await asyncio.gather(*[models.add(trained(id=name)) for name in names])
        assert sorted({(one.number, one.id) for one in added}, key=lambda pair: pair[0]) == sorted(
            {(one.number, one.id) for one in await models.listed("demo")}
        )
        assert sorted({one.number for one in added}) == [1, 2, 3, 4, 5, 6]

    async def test_what_is_not_there_is_not_found(self, models: Models) -> None:
        for question in (
            models.get("m1"), models.document("m1"), models.digests("m1"),
            models.promote("m1", "key"),
        ):  # fmt: skip
            with pytest.raises(ModelNotFound):
                await question
        assert await models.serving() == []
        assert await models.known(["m1"]) == set()

    async def test_a_candidate_serves_nobody_until_it_is_promoted(self, models: Models) -> None:
        await models.add(trained())
        assert (await models.serving("demo"), await models.revision()) == ([], 0)
        promoted = await models.promote("m1", "key")
        assert promoted.state == "serving"
        assert promoted.promoted_at is not None
        assert await models.serving("demo") == [promoted]
        assert await models.get("m1") == promoted
        assert await models.revision() == 1

    async def test_one_model_of_a_kind_serves_and_the_former_one_is_known_as_such(
        self, models: Models
    ) -> None:
        for name, kind in (("a", "clusters"), ("b", "clusters"), ("c", "churn")):
            await models.add(trained(id=name, kind=kind))
            await models.promote(name, "key")
        await models.add(trained(id="x", brand="other"))
        await models.promote("x", "key")
        assert await serving(models) == ["c", "b"]  # by kind
        assert [one.id for one in await models.serving()] == ["c", "b", "x"]
        assert (await models.get("a")).state == "former"

    async def test_promoting_what_serves_changes_nothing(self, models: Models) -> None:
        await models.add(trained())
        first = await models.promote("m1", "key")
        before = (await models.revision(), await models.changes("demo"))
        assert await models.promote("m1", "other") == first
        assert (await models.revision(), await models.changes("demo")) == before

    async def test_what_does_not_beat_its_baseline_serves_only_by_force_and_with_a_reason(
        self, models: Models
    ) -> None:
        await models.add(trained(kind="churn", beats_baseline=False))
        with pytest.raises(ModelNotBetter):
            await models.promote("m1", "key", why="I like it")
        for empty in ("", "  "):
            with pytest.raises(InvalidReason):
                await models.promote("m1", "key", force=True, why=empty)
        with pytest.raises(InvalidReason):
            await models.promote("m1", "key", force=True, why="x" * 501)
        assert (await models.serving("demo"), await models.revision()) == ([], 0)
        assert len(await models.changes("demo")) == 1
        await models.promote("m1", "key", force=True, why="the baseline is broken")
        newest = (await models.changes("demo"))[0]
        assert (newest.forced, newest.why) == (True, "the baseline is broken")
        assert await serving(models) == ["m1"]

    async def test_each_rollback_goes_one_promotion_back(self, models: Models) -> None:
        for name in "abc":
            await models.add(trained(id=name))
            await models.promote(name, "key")
        assert (await models.rollback("demo", "clusters", "key")).id == "b"
        assert await serving(models) == ["b"]
        assert (await models.get("c")).state == "former"
        assert (await models.rollback("demo", "clusters", "key")).id == "a"
        with pytest.raises(NoFormerModel):
            await models.rollback("demo", "clusters", "key")
        assert await serving(models) == ["a"]
        await models.promote("c", "key")
        assert (await models.rollback("demo", "clusters", "key")).id == "a"
        assert await models.revision() == 7

    async def test_there_is_nothing_to_roll_back_to_before_the_second_promotion(
        self, models: Models
    ) -> None:
        for change in (models.add(trained()), models.promote("m1", "key")):
            with pytest.raises(NoFormerModel):
                await models.rollback("demo", "clusters", "key")
            await change
        with pytest.raises(NoFormerModel):
            await models.rollback("demo", "clusters", "key")
        assert await models.revision() == 1

    @pytest.mark.parametrize(
        "why",
        ["ask ana@example.com", "call +55 11 98765 4321", "4111 1111 1111 1111", "\0", "x" * 501],
    )
    async def test_a_reason_that_may_not_be_kept_changes_nothing(
        self, models: Models, why: str
    ) -> None:
        for name in "ab":
            await models.add(trained(id=name))
        await models.promote("a", "key")
        for change in (models.promote("b", "key", why=why),
                       models.rollback("demo", "clusters", "key", why=why)):  # fmt: skip
            with pytest.raises(InvalidReason):
                await change
        assert (await serving(models), await models.revision()) == (["a"], 1)

    async def test_of_two_rollbacks_of_the_same_model_one_is_told_that_it_is_late(
        self, models: Models
    ) -> None:
        for name in "abc":
            await models.add(trained(id=name))
            await models.promote(name, "key")
        back = [models.rollback("demo", "clusters", "key", seen="c") for _ in range(3)]
        found = await asyncio.gather(*back, return_exceptions=True)
        assert sum(isinstance(one, ServingChanged) for one in found) == 2
        assert await serving(models) == ["b"]

    async def test_a_promotion_over_a_model_that_nobody_has_seen_is_refused(
        self, models: Models
    ) -> None:
        for name in "abc":
            await models.add(trained(id=name))
        await models.promote("a", "key", seen="")  # nobody serves
        for late in ("", "c"):
            with pytest.raises(ServingChanged, match="model a serves now"):
                await models.promote("b", "key", seen=late)
        assert await serving(models) == ["a"]
        await models.promote("b", "key", seen="a")
        await models.promote("b", "key", seen="a")  # it does already
        assert await serving(models) == ["b"]
        assert len(await models.changes("demo")) == 5

    async def test_of_two_promotions_over_the_same_model_one_is_told_that_it_is_late(
        self, models: Models
    ) -> None:
        for name in "abc":
            await models.add(trained(id=name))
        await models.promote("a", "key")
        tried = [models.promote(name, "key", seen="a") for name in "bc"]
        found = await asyncio.gather(*tried, return_exceptions=True)
        assert sum(isinstance(one, ServingChanged) for one in found) == 1

    async def test_the_record_says_who_did_what_and_why(self, models: Models) -> None:
        await models.add(trained(id="a"))
        await models.add(trained(id="b"))
        await models.promote("a", "rule", why="first")
        await models.promote("b", "ana", why="better names")
        await models.rollback("demo", "clusters", "ben", why="names again")
        await models.add(trained(id="x", brand="other"))
        record = await models.changes("demo")
        assert [(one.action, one.by, one.model, one.before, one.why) for one in record] == [
            ("rolled_back", "ben", "a", "b", "names again"),
            ("promoted", "ana", "b", "a", "better names"),
            ("promoted", "rule", "a", None, "first"),
            ("registered", "training", "b", None, ""),
            ("registered", "training", "a", None, ""),
        ]
        assert [one.id for one in record] == sorted((one.id for one in record), reverse=True)
        assert await models.changes("demo", record[1].id, 2) == record[2:4]

    async def test_pages_are_the_newest_first_and_stay_right_while_models_come(
        self, models: Models
    ) -> None:
        for n in (1, 2, 3, 4):  # two of one moment
            at = AT + timedelta(minutes=n // 2)
            await models.add(trained(id=f"m{n}", created_at=at))
        await models.add(trained(id="m0", brand="other"))
        await models.add(trained(id="c1", kind="churn"))
        first = await models.listed("demo", limit=2)
        assert [one.id for one in first] == ["m4", "m3"]
        await models.add(trained(id="m5", created_at=AT + timedelta(days=1)))
        last = first[-1]
        rest = await models.listed("demo", after=(last.created_at, last.id))
        assert [one.id for one in rest] == ["m2", "m1", "c1"]
        assert [one.id for one in await models.listed("demo", "churn")] == ["c1"]

    # --- asked for twice ------------------------------------------------------------------------

    async def test_a_change_asked_for_twice_happens_once(self, models: Models) -> None:
        for name in "abc":
            await models.add(trained(id=name))
            await models.promote(name, "key")
        first = await models.rollback("demo", "clusters", "key", once=asked())
        assert await models.rollback("demo", "clusters", "key", once=asked()) == first
        assert await serving(models) == ["b"]
        with pytest.raises(KeyReused):
            await models.promote("a", "key", once=asked("another"))
        promoted = await models.promote("c", "key", once=asked("p", "k2"))
        await models.rollback("demo", "clusters", "key")
        assert await models.promote("c", "key", once=asked("p", "k2")) == promoted
        assert await serving(models) == ["b"]
        assert (await models.promote("c", "key", once=asked("p", "k2", "other"))).id == "c"
        assert await serving(models) == ["c"]

    async def test_a_change_that_was_refused_is_not_kept_under_its_key(
        self, models: Models
    ) -> None:
        await models.add(trained(beats_baseline=False))
        with pytest.raises(ModelNotBetter):
            await models.promote("m1", "key", once=asked())
        await models.promote("m1", "key", why="all the same", force=True, once=asked("b"))
        assert await serving(models) == ["m1"]


class TestMemoryModels(ModelsLaws):
    @pytest.fixture
    def models(self) -> Models:
        return MemoryModels()

    async def test_it_can_be_away(self) -> None:
        twin = MemoryModels()
        twin.away = True
        with pytest.raises(DatabaseAway):
            await twin.get("m1")

    async def test_what_happens_is_told(self) -> None:
        twin = MemoryModels()
        await tell_a_story(twin)
        assert [(one.kind, one.brand) for one in await twin.facts.after("models", 0, 99)] == STORY


class TestPostgresModels(ModelsLaws):
    @pytest.fixture
    async def models(self, dsn: str) -> AsyncIterator[Models]:
        async with open_models(dsn) as models:
            yield models


STORY = [
    ("features.computed", "demo"),
    ("model.retrained", "demo"),
    ("clustering.updated", "demo"),
    ("features.computed", "demo"),
    ("model.retrained", "demo"),
]


async def tell_a_story(models: Models) -> None:
    await models.add(trained())
    await models.add(trained())
    await models.promote("m1", "key")
    await models.add(trained(id="c1", kind="churn"))
    await models.promote("c1", "key")
    with pytest.raises(NoFormerModel):
        await models.rollback("demo", "churn", "key")


async def test_what_happens_is_told_once_in_the_same_transaction(dsn: str) -> None:
    async with open_models(dsn) as models:
        await tell_a_story(models)
    connection = await asyncpg.connect(dsn)
    try:
        rows = await connection.fetch("SELECT seq, kind, brand FROM facts ORDER BY seq")
    finally:
        await connection.close()
    assert [(row["kind"], row["brand"]) for row in rows] == STORY
    assert [row["seq"] for row in rows] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE model_changes SET by = 'nobody'",
        "DELETE FROM model_changes",
        "TRUNCATE model_changes CASCADE",
    ],
)
async def test_the_record_only_grows(dsn: str, change: str) -> None:
    async with open_models(dsn) as models:
        await models.add(trained())
        await models.promote("m1", "key")
        connection = await asyncpg.connect(dsn)
        try:
            with pytest.raises(asyncpg.RaiseError, match="model_changes only grows"):
                await connection.execute(change)
        finally:
            await connection.close()
        assert len(await models.changes("demo")) == 2


async def test_an_installation_keeps_its_name(dsn: str) -> None:
    async with open_models(dsn) as models:
        name = await models.installation()
    async with open_models(dsn) as models:
        assert await models.installation() == name


async def test_a_database_that_is_away_is_named_as_such() -> None:
    async with open_models("postgresql://nobody@127.0.0.1:1/none") as models:
        with pytest.raises(DatabaseAway):
            await models.serving()
