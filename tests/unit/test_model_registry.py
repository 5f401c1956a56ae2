"""A training is registered whole, and has its turn to serve by rule."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest
from structlog.testing import capture_logs

from crm.adapters.memory_model_files import MemoryModelFiles, MemoryRuns
from crm.adapters.memory_models import MemoryModels
from crm.domain.cluster_shapes import Cores
from crm.domain.errors import InvalidModel, ModelFileLost, ModelFileNotFound
from crm.domain.model_changes import PROMOTION_RULES, PromotionRule
from crm.services.model_registry import LEFTOVER_AFTER, Parts, read_file, register, sweep, tidy
from tests.support.builders import NOON
from tests.support.clock import Clock
from tests.support.models import AT, a_score, some_clusters, trained

CORES = Cores([[0.1], [0.3]], [0, 1], [0.1, 0.1])


class _Registry:
    def __init__(self) -> None:
        self.clock = Clock(NOON)
        self.files, self.runs = MemoryModelFiles(self.clock), MemoryRuns(self.clock)
        self.models = MemoryModels(now=self.clock)
        self.parts = Parts(self.files, self.runs, self.models)

    async def serving(self) -> list[str]:
        return [one.id for one in await self.models.serving("demo")]


async def _here(work: Any, *values: Any) -> Any:
    return work(*values)


async def test_a_registration_writes_to_all_three_places() -> None:
    at = _Registry()
    registered = await register(at.parts, trained())
    assert registered == await at.models.get("m1")
    assert registered.run == "run-m1"
    assert at.files.files["m1"].keys() == {"card.md", "sizes.png", "document.json"}
    card = await read_file(at.models, at.files, "m1", "card.md", _here)
    assert card == trained().files["card.md"]


async def test_nothing_is_written_of_what_is_refused() -> None:
    at = _Registry()
    with pytest.raises(InvalidModel):
        await register(at.parts, trained(id="a/b"))
    assert (at.files.files, at.runs.runs, await at.models.listed("demo")) == ({}, {}, [])


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"id": "../m"}, "id"),
        ({"id": "x" * 65}, "id"),
        ({"files": {"a/b": b""}}, "files"),
        ({"files": {".hidden": b""}}, "files"),
        ({"files": {"document.json": b""}}, "files"),
        ({"files": {f"f{n}": b"" for n in range(201)}}, "files"),
        ({"metrics": {"auc": float("nan")}}, "auc"),
        ({"created_at": AT.replace(tzinfo=None)}, "zone"),
        ({"document": b"{}"}, "document"),
        ({"document": b"\xff"}, "document"),
        ({"document": msgspec.json.encode(some_clusters(id="other"))}, "document"),
        ({"kind": "churn", "document": msgspec.json.encode(a_score(kind="value"))}, "document"),
        ({"kind": "churn", "document": msgspec.json.encode(some_clusters())}, "document"),
        ({"document": msgspec.json.encode(some_clusters(cores=CORES))}, "describe cluster 0"),
    ],
)
async def test_what_cannot_serve_or_be_stored_is_refused_by_name(
    changes: dict[str, Any], said: str
) -> None:
    made = trained(**{"document": msgspec.json.encode(some_clusters())} | changes)
    with pytest.raises(InvalidModel, match=said):
        await register(_Registry().parts, made)


@pytest.mark.parametrize(
    ("rule", "beats", "first", "second"),
    [
        ("first", None, ["a"], ["a"]),
        ("first", True, ["a"], ["a"]),
        ("first", False, [], []),
        ("always", True, ["a"], ["b"]),
        ("always", None, ["a"], ["b"]),
        ("always", False, [], []),
        ("never", True, [], []),
    ],
)
async def test_the_rule_says_who_serves(
    rule: PromotionRule, beats: bool | None, first: list[str], second: list[str]
) -> None:
    at = _Registry()
    await register(at.parts, trained(id="a", beats_baseline=beats), rule)
    assert await at.serving() == first
    await register(at.parts, trained(id="b", beats_baseline=beats), rule)
    assert await at.serving() == second


async def test_no_rule_promotes_a_score_without_a_word_on_its_baseline() -> None:
    at = _Registry()
    for rule in PROMOTION_RULES:
        await register(at.parts, trained(id=f"by-{rule}", kind="churn", beats_baseline=None), rule)
    assert await at.serving() == []


async def test_the_rule_looks_at_the_models_own_kind_and_brand() -> None:
    at = _Registry()
    await register(at.parts, trained(id="a"))
    await register(at.parts, trained(id="b", kind="churn", beats_baseline=True))
    await register(at.parts, trained(id="c", brand="other"))
    assert [one.id for one in await at.models.serving()] == ["b", "a", "c"]
    (newest, *_) = await at.models.changes("other")
    assert (newest.by, newest.why) == ("rule", "first of its kind")


async def test_a_former_model_that_is_registered_again_does_not_come_back() -> None:
    at = _Registry()
    for name in "ab":
        await register(at.parts, trained(id=name), "always")
    again = await register(at.parts, trained(id="a"), "always")
    assert (again.state, await at.serving()) == ("former", ["b"])


@pytest.mark.parametrize(
    "changes", [{"created_at": AT + timedelta(days=1)}, {"brand": "other"}, {"kind": "churn"}]
)
async def test_an_id_that_another_model_has_is_refused_before_anything_is_written(
    changes: dict[str, Any],
) -> None:
    at = _Registry()
    await register(at.parts, trained(files={"card.md": b"# First"}))
    with pytest.raises(InvalidModel, match="nothing was changed"):
        await register(at.parts, trained(**changes), "always")
    assert await read_file(at.models, at.files, "m1", "card.md", _here) == b"# First"
    assert at.runs.runs["m1"].created_at == AT
    assert await at.serving() == ["m1"]


async def test_a_sweep_that_fails_is_logged_and_the_registration_stands() -> None:
    at = _Registry()
    await register(at.parts, trained())
    at.runs.away = True
    with capture_logs() as logged:
        assert await tidy(at.parts, at.clock()) == []
    assert [(one["event"], one["error"]) for one in logged] == [("sweep_failed", "RunsAway")]


async def test_leftovers_are_swept_when_they_are_old_and_models_never() -> None:
    at = _Registry()
    await register(at.parts, trained(id="model"))
    at.files.put(trained(id="files-only"))
    at.runs.begin(trained(id="run-only"))
    at.runs.record(trained(id="elsewhere"))  # ended: nothing that a crash has left
    at.files.put(trained(id="both"))
    at.runs.record(trained(id="both"))
    at.clock.move(seconds=LEFTOVER_AFTER.total_seconds() - 1)
    at.files.put(trained(id="at-work"))
    assert await sweep(at.parts, at.clock()) == []
    at.clock.move(seconds=2)
    assert await sweep(at.parts, at.clock()) == ["both", "files-only", "run-only"]
    assert at.files.files.keys() == {"model", "at-work"}
    assert at.runs.runs.keys() == {"model", "elsewhere"}
    assert await sweep(at.parts, at.clock()) == []


async def test_a_file_that_is_missing_or_altered_is_said_to_be() -> None:
    at = _Registry()
    await register(at.parts, trained())
    with pytest.raises(ModelFileNotFound):
        await read_file(at.models, at.files, "m1", "other.md", _here)
    at.files.files["m1"]["card.md"] = b"something else"
    with pytest.raises(ModelFileLost):
        await read_file(at.models, at.files, "m1", "card.md", _here)
