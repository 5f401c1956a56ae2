"""A search's run: its id is checked before any work, and what goes on is never forgotten."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from configs.settings import Settings
from crm.adapters.lake import Lake
from crm.domain.errors import InvalidModel
from crm.domain.model_changes import registered
from crm.domain.models import RegisteredModel
from crm.domain.ports import Columns
from pipelines.cluster_inputs import Request
from pipelines.cluster_runs import FORGOTTEN_AFTER, Begun, Runs, check_new
from pipelines.clustering import run
from tests.support.builders import a_brand
from tests.support.clock import Clock
from tests.support.models import AT, trained

BEGUN = Begun("demo", {}, AT, AT)


@pytest.mark.parametrize("wrong", ["my run", "../models", "a/b", ".", "x" * 65, "-a"])
def test_an_id_that_no_model_may_have_is_refused_before_any_work(
    tmp_path: Path, wrong: str
) -> None:
    lake = Lake(str(tmp_path))
    lake.write("models/m1/card.md", b"kept")
    settings = Settings.model_construct()  # nothing of it is looked at
    with pytest.raises(InvalidModel, match="id"):
        run(settings, Request(a_brand()), Clock(AT), run_id=wrong)
    assert len(lake.names("models")) == 1


def test_the_run_that_is_asked_for_is_not_forgotten_however_old_it_is(tmp_path: Path) -> None:
    runs = Runs(str(tmp_path))
    for name in ("wanted", "other"):
        runs.begin(name, BEGUN, Columns(AT, [], {}, {}))
    written = max(Lake(str(tmp_path)).names("searches").values())
    runs.forget_old(written + FORGOTTEN_AFTER + timedelta(hours=1), but="wanted")
    assert (runs.begun("wanted"), runs.begun("other")) == (BEGUN, None)


def _registered(**changes: object) -> RegisteredModel:
    return registered(trained(**changes), 1, None)


def test_a_run_may_have_the_id_of_a_model_that_is_its_own_alone() -> None:
    check_new(None, None)
    check_new(BEGUN, None)
    check_new(BEGUN, _registered())  # it died after it had registered
    for begun, model in (
        (None, _registered()),
        (replace(BEGUN, at=AT + timedelta(days=1)), _registered()),
        (BEGUN, _registered(brand="other")),
        (BEGUN, _registered(kind="churn")),
    ):
        with pytest.raises(InvalidModel, match="another model"):
            check_new(begun, model)
