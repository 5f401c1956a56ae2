"""A look at all serving models: one that cannot be looked at hides no other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from actors.drift_looks import DriftLooks
from crm.adapters.memory_model_files import MemoryModelFiles
from crm.adapters.memory_models import MemoryModels
from crm.domain.drift import REFERENCE, Thresholds, encode, reference
from crm.domain.errors import DatabaseAway, FeatureNotFound
from crm.domain.models import TrainedModel
from crm.domain.ports import Columns
from tests.support.builders import NOON
from tests.support.models import some_clusters, trained

LIMITS = Thresholds(0.25, 0.25)


class _Shards:
    """Columns of players of whom each has bet once."""

    async def columns(self, brand: str, names: Sequence[str]) -> Columns:
        if brand == "short":
            raise FeatureNotFound("no such feature")
        if brand == "odd":
            raise KeyError("mean_cashout")
        return Columns(NOON, ["p"] * 100, {name: np.ones(100, np.int64) for name in names}, {})


class _Leaving(MemoryModels):
    """A registry that goes away after its first document."""

    asked = 0

    async def document(self, model: str) -> bytes:
        self.asked += 1
        if self.asked > 1:
            raise DatabaseAway("away")
        return await super().document(model)


async def _serving(models: MemoryModels, *made: TrainedModel) -> DriftLooks:
    files = MemoryModelFiles()
    for one in made:
        files.put(one)
        await models.add(one)
        await models.promote(one.id, "test")
    return DriftLooks({one.brand for one in made}, models, files, _Shards(), LIMITS)


def _model(brand: str, **changes: Any) -> TrainedModel:
    seen = reference(["bet_count_lifetime"], np.ones((100, 1)))
    fields = {"id": f"of-{brand}", "brand": brand, "files": {REFERENCE: encode(seen)}}
    document = some_clusters(id=f"of-{brand}", brand=brand)
    return trained(**({"document": msgspec.json.encode(document)} | fields | changes))


@pytest.mark.parametrize(
    "broken",
    [
        _model("broken", document=b"{}"),
        _model("broken", kind="churn", document=b"{}"),
        _model("broken", files={REFERENCE: b"no reference"}),
        _model("short"),
        _model("odd"),
    ],
)
async def test_a_model_that_cannot_be_looked_at_hides_no_other(broken: TrainedModel) -> None:
    looks = await _serving(MemoryModels(), _model("a"), broken, _model("z"))
    found = [(model.id, drift.drifted) async for model, drift in looks.look()]
    assert found == [("of-a", []), ("of-z", [])]


async def test_each_look_is_told_before_the_next_one_begins() -> None:
    looks = (await _serving(_Leaving(), _model("a"), _model("z"))).look()
    model, _ = await anext(looks)
    assert model.brand == "a"
    with pytest.raises(DatabaseAway):
        await anext(looks)
